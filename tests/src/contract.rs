//! What every driver must do, whatever its technology: one suite, given a driver and what is particular to it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test that several crates' tests share")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use control::driver::{Driver, DriverError, DriverEvent, InstanceSpec, Running};
use control::model::{AddressPair, InstanceId};
use control::netlink::{BridgeSpec, Net, PortSpec};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for something that should take milliseconds.
pub const SOON: Duration = Duration::from_secs(20);

/// What the suite needs to know of a technology.
pub struct Fixture<'a> {
    /// The driver under test.
    pub driver: &'a dyn Driver,
    /// The same technology for another owner.
    pub other: &'a dyn Driver,
    /// What can be started; its identifier is replaced. Its image serves `ok` under `/healthz` on port 80.
    pub spec: InstanceSpec,
    /// An image that is not there.
    pub absent_image: &'a str,
    /// Links of the namespace that the test runs in.
    pub net: &'a Net,
    /// The bridge to use; made by the suite.
    pub bridge: BridgeSpec,
    /// Addresses on it for the instance.
    pub addresses: AddressPair,
}

impl Fixture<'_> {
    fn spec(&self, number: u32) -> InstanceSpec {
        InstanceSpec { id: InstanceId::from_number(number), ..self.spec.clone() }
    }

    async fn owned(&self) -> Vec<Running> {
        let mut all = self.driver.list_owned().await.unwrap();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

/// The whole contract. Leaves nothing running.
///
/// # Panics
/// Where the driver does not keep it.
pub async fn suite(fixture: &Fixture<'_>) {
    assert_eq!(fixture.owned().await, [], "the suite starts with nothing of ours");
    can_be_used(fixture).await;
    refuses_what_it_cannot_start(fixture).await;
    runs_and_is_reached(fixture).await;
    starts_anew_what_was_left(fixture).await;
    tells_exits(fixture).await;
    leaves_others_alone(fixture).await;
    assert_eq!(fixture.owned().await, [], "the suite ends with nothing of ours");
}

async fn can_be_used(fixture: &Fixture<'_>) {
    let text = fixture.driver.check().await.unwrap();
    assert!(text.chars().any(|c| c.is_ascii_digit()), "a version is expected: {text}");
    fixture.driver.validate(&fixture.spec(1)).await.unwrap();
    fixture.driver.fetch(&fixture.spec(1), &|_| ()).await.unwrap();
    assert_eq!(fixture.owned().await, [], "validation starts nothing");
}

async fn refuses_what_it_cannot_start(fixture: &Fixture<'_>) {
    let spec = InstanceSpec { image: fixture.absent_image.to_owned(), ..fixture.spec(1) };
    for error in [fixture.driver.validate(&spec).await.unwrap_err(), fixture.driver.start(&spec).await.unwrap_err()] {
        let DriverError::NoImage { image, .. } = &error else { panic!("{error}") };
        assert_eq!(image, fixture.absent_image);
    }
    assert_eq!(fixture.driver.fetch(&spec, &|_| ()).await.unwrap_err().label(), "no_image");
    assert_eq!(fixture.owned().await, []);
}

async fn runs_and_is_reached(fixture: &Fixture<'_>) {
    let spec = fixture.spec(2);
    let running = fixture.driver.start(&spec).await.unwrap();
    assert_eq!((&running.id, running.service.as_str()), (&spec.id, spec.service.as_str()));
    assert_eq!(fixture.owned().await, std::slice::from_ref(&running));

    let pid = running.pid.expect("a process whose namespace takes the interface");
    fixture.net.ensure_bridge(&fixture.bridge).await.unwrap();
    let (instance, bridge) = (spec.id.clone(), fixture.bridge.clone());
    let port = PortSpec { instance, bridge, addresses: fixture.addresses, shaping: None };
    let port = fixture.net.create_port(&port).await.unwrap();
    fixture.net.attach_port(&port, pid).await.unwrap();
    let v4 = fixture.addresses.v4.map(IpAddr::V4);
    for address in v4.into_iter().chain(fixture.addresses.v6.map(IpAddr::V6)) {
        assert_eq!(get(address, "/healthz").await, b"ok\n", "{address}");
    }

    let before = fixture.driver.usage().await.unwrap();
    let before = before.get(&spec.id).expect("its usage");
    assert!(before.cpu_ns > 0 && before.memory_bytes > 0, "{before:?}");
    assert!(before.memory_bytes < spec.memory_mib << 20, "{before:?}");
    for _ in 0..50 {
        get(fixture.addresses.v4.expect("an IPv4 address").into(), "/healthz").await;
    }
    let after = fixture.driver.usage().await.unwrap();
    assert!(after.get(&spec.id).unwrap().cpu_ns > before.cpu_ns, "work takes CPU time");

    for _ in 0..2 {
        fixture.driver.stop(&spec.id, Duration::from_secs(2)).await.unwrap();
    }
    assert_eq!(fixture.owned().await, []);
    assert_eq!(fixture.driver.usage().await.unwrap().len(), 0);
    fixture.net.delete_port(&spec.id).await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its process is gone when stop returns");
}

async fn starts_anew_what_was_left(fixture: &Fixture<'_>) {
    let spec = fixture.spec(3);
    let first = fixture.driver.start(&spec).await.unwrap();
    let second = fixture.driver.start(&spec).await.unwrap();
    assert_ne!((&first.handle, first.pid), (&second.handle, second.pid));
    assert_eq!(fixture.owned().await, [second]);
    fixture.driver.stop(&spec.id, Duration::ZERO).await.unwrap();
}

async fn tells_exits(fixture: &Fixture<'_>) {
    let mut events = fixture.driver.events();
    let spec = fixture.spec(4);
    let running = fixture.driver.start(&spec).await.unwrap();
    kill(running.pid.unwrap());
    let DriverEvent::Exited { id, cause } = next(&mut events).await else { panic!("an exit is expected") };
    assert_eq!(id, spec.id);
    assert!(cause.contains("137") && cause.contains("signal 9"), "{cause}");
    let left = fixture.owned().await;
    assert_eq!(left.iter().map(|l| (&l.id, l.pid)).collect::<Vec<_>>(), [(&spec.id, None)], "it is ours until removed");
    assert_eq!(fixture.driver.usage().await.unwrap().len(), 0, "what does not run uses nothing");
    fixture.driver.stop(&spec.id, Duration::from_secs(2)).await.unwrap();
}

async fn leaves_others_alone(fixture: &Fixture<'_>) {
    let owner = control::model::OwnerId::from_number(0xfeed);
    let theirs = InstanceSpec { owner, ..fixture.spec(5) };
    let running = fixture.other.start(&theirs).await.unwrap();
    let mut events = fixture.driver.events();
    assert_eq!(fixture.owned().await, []);
    fixture.driver.stop(&theirs.id, Duration::ZERO).await.unwrap();
    assert_eq!(fixture.driver.usage().await.unwrap().len(), 0);
    // Both may have the same identifier at once.
    let ours = fixture.driver.start(&fixture.spec(5)).await.unwrap();
    assert_eq!(fixture.other.list_owned().await.unwrap(), std::slice::from_ref(&running));
    kill(running.pid.unwrap());
    kill(ours.pid.unwrap());
    assert!(matches!(next(&mut events).await, DriverEvent::Exited { .. }));
    fixture.driver.stop(&ours.id, Duration::ZERO).await.unwrap();
    assert_eq!(fixture.other.list_owned().await.unwrap().len(), 1, "theirs is left, though it ended");
    fixture.other.stop(&theirs.id, Duration::ZERO).await.unwrap();
    // One exit was ours: no second one is told.
    assert!(tokio::time::timeout(Duration::from_millis(300), events.next()).await.is_err());
}

/// The next event, in time.
///
/// # Panics
/// Where none comes.
pub async fn next(events: &mut BoxStream<'_, DriverEvent>) -> DriverEvent {
    tokio::time::timeout(SOON, events.next()).await.expect("an event in time").expect("an endless stream")
}

/// Ends a process by force, as a crash would.
///
/// # Panics
/// Where it may not be signalled.
pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The body of a page that answers 200. The server may still be on its way up: refused connections are tried again.
///
/// # Panics
/// Where it does not answer in time, or with another status.
pub async fn get(address: IpAddr, path: &str) -> Vec<u8> {
    let connect = async {
        loop {
            match TcpStream::connect(SocketAddr::new(address, 80)).await {
                Ok(stream) => return stream,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(e) => panic!("{address}: {e}"),
            }
        }
    };
    let mut stream = tokio::time::timeout(SOON, connect).await.expect("a connection in time");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a header") + 4;
    let body = answer.split_off(end);
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    body
}

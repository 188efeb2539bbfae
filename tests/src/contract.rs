//! What every driver must do, whatever its technology: one suite, given a driver and what is particular to it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test that several crates' tests share")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use control::driver::{Driver, DriverError, DriverEvent, InstanceSpec, Resized, Resources, Running};
use control::model::{AddressPair, InstanceId};
use control::netlink::{BridgeSpec, Net, Port, PortSpec};
use control::reconcile::attachment;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for something that takes milliseconds, and a minute where a machine is emulated on a busy one.
pub const SOON: Duration = Duration::from_secs(600);

/// How long one connection is waited for. TCP asks again after one second, then after two.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// What happens to an instance behind its driver's back.
pub trait Outside: Sync {
    /// Ends an instance as a crash would.
    fn kill<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ()>;

    /// Whether what the instance runs as is there, in whatever state.
    fn is_there<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, bool>;

    /// Words of the cause that is told for that end.
    fn cause(&self) -> &'static [&'static str];
}

/// Instances that are processes.
pub struct Processes;

impl Outside for Processes {
    fn kill<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ()> {
        kill(running.pid().expect("a process that is the instance"));
        std::future::ready(()).boxed()
    }

    fn is_there<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, bool> {
        let pid = running.pid().expect("a process that is the instance");
        std::future::ready(std::path::Path::new(&format!("/proc/{pid}")).exists()).boxed()
    }

    fn cause(&self) -> &'static [&'static str] {
        &["137", "signal 9"]
    }
}

/// What the suite needs to know of a technology.
pub struct Fixture<'a> {
    /// The driver under test.
    pub driver: &'a dyn Driver,
    /// The same technology and owner, as after a restart of the daemon.
    pub again: &'a dyn Driver,
    /// The same technology for another owner.
    pub other: &'a dyn Driver,
    /// What can be started; its identifier is replaced. Its image serves `ok` under `/healthz` and 100 kB or more
    /// under `/content`, on port 80.
    pub spec: InstanceSpec,
    /// What can be changed while it runs.
    pub resizes: Resized,
    /// A share of a processor that is little, and with which it still starts soon.
    pub share: f64,
    /// How long limits are looked at; longer where use is counted in coarse steps.
    pub window: Duration,
    /// What makes it work.
    pub load: &'a str,
    /// What happens behind the driver's back.
    pub outside: &'a dyn Outside,
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

    /// A port for the instance of that number, as the technology wants it.
    async fn port(&self, number: u32) -> Port {
        let spec = PortSpec {
            instance: InstanceId::from_number(number),
            bridge: self.bridge.clone(),
            addresses: self.addresses,
            shaping: None,
            kind: self.driver.port(),
        };
        self.net.create_port(&spec).await.unwrap()
    }

    /// An instance that can be reached.
    async fn up(&self, spec: &InstanceSpec, number: u32) -> Running {
        let mut port = self.port(number).await;
        let running = self.driver.start(spec, attachment(&mut port)).await.unwrap();
        self.net.attach_port(&port, running.end.clone().expect("it runs")).await.unwrap();
        running
    }

    /// Stops it and gives its port back.
    async fn down(&self, number: u32, grace: Duration) {
        let id = InstanceId::from_number(number);
        self.driver.stop(&id, grace).await.unwrap();
        self.net.delete_port(&id).await.unwrap();
    }

    fn v4(&self) -> IpAddr {
        self.addresses.v4.expect("an IPv4 address").into()
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
    fixture.net.ensure_bridge(&fixture.bridge).await.unwrap();
    can_be_used(fixture).await;
    refuses_what_it_cannot_start(fixture).await;
    runs_and_is_reached(fixture).await;
    starts_anew_what_was_left(fixture).await;
    tells_exits(fixture).await;
    keeps_limits(fixture).await;
    is_resized_live(fixture).await;
    is_found_again(fixture).await;
    leaves_others_alone(fixture).await;
    assert_eq!(fixture.owned().await, [], "the suite ends with nothing of ours");
    let ports = fixture.net.list_owned().await.unwrap().into_iter().filter(|link| link.instance().is_some());
    assert_eq!(ports.collect::<Vec<_>>(), [], "no port is left");
}

async fn can_be_used(fixture: &Fixture<'_>) {
    let text = fixture.driver.check().await.unwrap();
    assert!(text.chars().any(|c| c.is_ascii_digit()), "a version is expected: {text}");
    fixture.driver.validate(&fixture.spec(1)).await.unwrap();
    fixture.driver.fetch(&fixture.spec(1), &|_| ()).await.unwrap();
    let size = fixture.driver.image_bytes(&fixture.spec(1)).await.unwrap().unwrap();
    assert!(size > 100_000, "{size} bytes are no image");
    assert_eq!(fixture.owned().await, [], "validation starts nothing");
}

async fn refuses_what_it_cannot_start(fixture: &Fixture<'_>) {
    let spec = InstanceSpec { image: fixture.absent_image.to_owned(), ..fixture.spec(1) };
    let mut port = fixture.port(1).await;
    let started = fixture.driver.start(&spec, attachment(&mut port)).await;
    for error in [fixture.driver.validate(&spec).await.unwrap_err(), started.unwrap_err()] {
        let DriverError::NoImage { image, .. } = &error else { panic!("{error}") };
        assert_eq!(image, fixture.absent_image);
    }
    assert_eq!(fixture.driver.fetch(&spec, &|_| ()).await.unwrap_err().label(), "no_image");
    assert_eq!(fixture.owned().await, []);
    fixture.down(1, Duration::ZERO).await;
}

async fn runs_and_is_reached(fixture: &Fixture<'_>) {
    let spec = fixture.spec(2);
    let running = fixture.up(&spec, 2).await;
    assert_eq!((&running.id, running.service.as_str()), (&spec.id, spec.service.as_str()));
    assert_eq!(fixture.owned().await, std::slice::from_ref(&running));
    let v4 = fixture.addresses.v4.map(IpAddr::V4);
    for address in v4.into_iter().chain(fixture.addresses.v6.map(IpAddr::V6)) {
        assert_eq!(get(address, "/healthz").await, b"ok\n", "{address}");
    }

    let usage = async || *fixture.driver.usage().await.unwrap().get(&spec.id).expect("its usage");
    let (before, begun) = (usage().await, Instant::now());
    let most = spec.resources.memory_mib << 20;
    assert!((1..=most).contains(&before.memory_bytes), "{before:?}");
    // It may be counted in steps that a small guest needs many answers for.
    while usage().await.cpu_ns <= before.cpu_ns {
        get(fixture.v4(), fixture.load).await;
        assert!(begun.elapsed() < SOON, "work takes processor time: {before:?}");
    }

    for _ in 0..2 {
        fixture.down(2, Duration::from_secs(2)).await;
    }
    assert_eq!(fixture.owned().await, []);
    assert_eq!(fixture.driver.usage().await.unwrap().len(), 0);
    assert!(!fixture.outside.is_there(&running).await, "it is gone when stop returns");
}

async fn starts_anew_what_was_left(fixture: &Fixture<'_>) {
    let spec = fixture.spec(3);
    let first = fixture.up(&spec, 3).await;
    let second = fixture.up(&spec, 3).await;
    assert_ne!((&first.handle, &first.end), (&second.handle, &second.end));
    assert_eq!(fixture.owned().await, [second]);
    assert_eq!(get(fixture.v4(), "/healthz").await, b"ok\n");
    fixture.down(3, Duration::ZERO).await;
}

async fn tells_exits(fixture: &Fixture<'_>) {
    let mut events = fixture.driver.events();
    let spec = fixture.spec(4);
    let running = fixture.up(&spec, 4).await;
    get(fixture.v4(), "/healthz").await;
    fixture.outside.kill(&running).await;
    let DriverEvent::Exited { id, cause } = next(&mut events).await else { panic!("an exit is expected") };
    assert_eq!(id, spec.id);
    assert!(fixture.outside.cause().iter().all(|word| cause.contains(word)), "{cause}");
    let left = fixture.owned().await;
    assert_eq!(
        left.iter().map(|l| (&l.id, &l.end)).collect::<Vec<_>>(),
        [(&spec.id, &None)],
        "it is ours until removed"
    );
    assert_eq!(fixture.driver.usage().await.unwrap().len(), 0, "what does not run uses nothing");
    fixture.down(4, Duration::from_secs(2)).await;
}

/// As much work as there is, with a small share of a processor.
async fn keeps_limits(fixture: &Fixture<'_>) {
    let share = fixture.share;
    let resources = Resources { vcpus: share, ..fixture.spec.resources };
    let spec = InstanceSpec { resources, ..fixture.spec(6) };
    fixture.up(&spec, 6).await;
    get(fixture.v4(), "/healthz").await;
    let used = async || fixture.driver.usage().await.unwrap()[&spec.id].cpu_ns as f64 / 1e9;
    let (before, begun) = (used().await, Instant::now());
    while begun.elapsed() < fixture.window {
        get(fixture.v4(), fixture.load).await;
    }
    let (used, elapsed) = (used().await - before, begun.elapsed().as_secs_f64());
    // The first period may be used up at once, and the last one is under way.
    assert!(used < share * (elapsed + 0.5), "{used} s of processor time in {elapsed} s");
    assert!(used > share * elapsed / 4.0, "{used} s in {elapsed} s: there was no load to limit");
    fixture.down(6, Duration::ZERO).await;
}

/// More processor time, then less, and more memory where that can be: the same process, under load, by a daemon that
/// did not start it.
async fn is_resized_live(fixture: &Fixture<'_>) {
    let (least, memory_mib) = (fixture.share, fixture.spec.resources.memory_mib);
    let (few, many) = (Resources { vcpus: least, memory_mib }, Resources { vcpus: 1.0, memory_mib });
    let unknown = fixture.driver.resize(&InstanceId::from_number(8), many).await.unwrap_err();
    assert!(matches!(&unknown, DriverError::Unknown { id, .. } if *id == InstanceId::from_number(8)), "{unknown}");

    let spec = InstanceSpec { resources: few, ..fixture.spec(8) };
    let running = fixture.up(&spec, 8).await;
    get(fixture.v4(), "/healthz").await;
    let used = async || fixture.driver.usage().await.unwrap()[&spec.id].cpu_ns as f64 / 1e9;
    let resized = fixture.again.resize(&spec.id, many).await.unwrap();
    if !fixture.resizes.vcpus {
        assert_eq!(resized, Resized::default(), "what cannot be is told");
        fixture.down(8, Duration::ZERO).await;
        return;
    }
    assert_eq!(resized, Resized { vcpus: true, memory: true });
    let (before, begun) = (used().await, Instant::now());
    // Until it has used more than the old limit would have allowed.
    while used().await - before <= least * (begun.elapsed().as_secs_f64() + 0.5) {
        get(fixture.v4(), fixture.load).await;
        assert!(begun.elapsed() < 4 * SOON, "it is held to the old limit");
    }
    fixture.driver.resize(&spec.id, few).await.unwrap();
    let (before, begun) = (used().await, Instant::now());
    while begun.elapsed() < fixture.window {
        get(fixture.v4(), fixture.load).await;
    }
    let (used, elapsed) = (used().await - before, begun.elapsed().as_secs_f64());
    assert!(used < least * (elapsed + 0.5), "{used} s of processor time in {elapsed} s");

    let larger = Resources { memory_mib: memory_mib + 16, ..many };
    let resized = fixture.driver.resize(&spec.id, larger).await.unwrap();
    assert_eq!(resized, fixture.resizes);
    assert_eq!(fixture.owned().await, [running], "the same one");
    fixture.down(8, Duration::ZERO).await;
    assert_eq!(fixture.driver.resize(&spec.id, few).await.unwrap_err().label(), "unknown_instance");
}

/// What runs is found by a daemon that did not start it: listed, watched, stopped.
async fn is_found_again(fixture: &Fixture<'_>) {
    let again = fixture.again;
    let running = fixture.up(&fixture.spec(7), 7).await;
    assert_eq!(again.list_owned().await.unwrap(), std::slice::from_ref(&running));
    assert_eq!(get(fixture.v4(), "/healthz").await, b"ok\n");
    again.stop(&running.id, Duration::from_secs(2)).await.unwrap();
    assert!(!fixture.outside.is_there(&running).await, "it is gone when stop returns");
    assert_eq!(fixture.owned().await, []);

    let mut events = again.events();
    let running = fixture.up(&fixture.spec(7), 7).await;
    assert_eq!(again.list_owned().await.unwrap().len(), 1);
    get(fixture.v4(), "/healthz").await;
    fixture.outside.kill(&running).await;
    let DriverEvent::Exited { id, .. } = next(&mut events).await else { panic!("an exit is expected") };
    assert_eq!(id, running.id);
    fixture.down(7, Duration::ZERO).await;
}

async fn leaves_others_alone(fixture: &Fixture<'_>) {
    let owner = control::model::OwnerId::from_number(0xfeed);
    let theirs = InstanceSpec { owner, ..fixture.spec(5) };
    let mut port = fixture.port(50).await;
    let running = fixture.other.start(&theirs, attachment(&mut port)).await.unwrap();
    let mut events = fixture.driver.events();
    assert_eq!(fixture.owned().await, []);
    fixture.driver.stop(&theirs.id, Duration::ZERO).await.unwrap();
    assert_eq!(fixture.driver.usage().await.unwrap().len(), 0);
    // Both may have the same identifier at once.
    let ours = fixture.up(&fixture.spec(5), 5).await;
    assert_eq!(fixture.other.list_owned().await.unwrap(), std::slice::from_ref(&running));
    get(fixture.v4(), "/healthz").await;
    fixture.outside.kill(&running).await;
    fixture.outside.kill(&ours).await;
    assert!(matches!(next(&mut events).await, DriverEvent::Exited { .. }));
    fixture.down(5, Duration::ZERO).await;
    assert_eq!(fixture.other.list_owned().await.unwrap().len(), 1, "theirs is left, though it ended");
    fixture.other.stop(&theirs.id, Duration::ZERO).await.unwrap();
    fixture.net.delete_port(&InstanceId::from_number(50)).await.unwrap();
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

/// The body of a page that answers 200. The server may still be on its way up: refused connections are tried again, and
/// one that nobody answers is given up for another.
///
/// # Panics
/// Where it does not answer in time, or with another status.
pub async fn get(address: IpAddr, path: &str) -> Vec<u8> {
    let connect = async {
        loop {
            match tokio::time::timeout(ATTEMPT, TcpStream::connect(SocketAddr::new(address, 80))).await {
                Ok(Ok(stream)) => return stream,
                Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(Err(e)) => panic!("{address}: {e}"),
                Err(_) => {}
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

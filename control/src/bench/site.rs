//! Where instances are measured: a namespace with a bridge, and the technology's driver. Of Xen it is the machine's own
//! namespace, where its interfaces are, and the bridge is removed afterwards.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, FuturesUnordered};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, unshare};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep_until;

use super::plain::{PlainDomain, XL};
use super::{BenchError, BenchOptions};
use crate::driver::docker::Docker;
use crate::driver::unikernel::{Settings, Unikernel};
use crate::driver::xen::{self, Xen};
use crate::driver::{Driver, DriverEvent, InstanceSpec, Resources};
use crate::model::{AddressPair, Guest, InstanceId, Launch, OwnerId, PortKind, ServiceName, Technology};
use crate::netlink::{BridgeSpec, Net, PortSpec};
use crate::reconcile::attachment;

/// Everything of ours is below this, also what a killed run left.
const DIRECTORY: &str = "/run/selvedge-bench";
/// The mark of what is measured.
const OWNER: u64 = 0xbe_0c40;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
const PREFIX: u8 = 16;
/// Longest wait for an instance's answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between attempts to connect.
const AGAIN: Duration = Duration::from_millis(5);
/// The pause is this part of the time so far, once that is more.
const PART: u32 = 64;

/// The place.
pub(super) struct Site {
    pub driver: Box<dyn Driver>,
    net: Net,
    bridge: BridgeSpec,
    owner: OwnerId,
    image: String,
    /// What the image does not say, but for the size of its content.
    guest: Guest,
    memory_mib: u64,
    /// Of Xen: what its own tool is measured with.
    pub plain: Option<PlainDomain>,
    /// No second measurement at the same time.
    _lock: Lock,
}

/// Held while something is measured.
pub(super) type Lock = Flock<File>;

/// Makes the directory of measurements; no second one runs while the lock is held.
pub(super) fn lock(directory: &Path) -> Result<Lock, BenchError> {
    let failed = BenchError::system("make /run/selvedge-bench");
    let prepared = fs::create_dir_all(directory)
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755)))
        .and_then(|()| File::create(directory.join("lock")));
    Flock::lock(prepared.map_err(failed)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| BenchError::Missing {
        what: format!("another measurement runs: {errno}"),
        remedy: "wait for its end, or end it with Ctrl-C",
    })
}

/// How long each step of a start took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub port: Duration,
    /// Its driver's part of `start`; the rest joins it to its port.
    pub driver: Duration,
    pub start: Duration,
    pub accept: Duration,
    pub answer: Duration,
}

impl Steps {
    /// All of them.
    pub(super) fn total(&self) -> Duration {
        self.port + self.start + self.accept + self.answer
    }
}

/// Runs `work` on a site of its own: a thread in a new network namespace, which goes with it. Whatever comes of the
/// work, every instance is removed behind it.
pub(super) fn on_site<T, F>(options: &BenchOptions, work: F) -> Result<T, BenchError>
where
    T: Send,
    F: AsyncFnOnce(&Site) -> Result<T, BenchError> + Send,
{
    let inside = || {
        // Interfaces of Xen's guests appear in the first namespace, and stay there.
        if !options.technology.is_xen() {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| BenchError::Missing {
                what: format!("no network namespace can be made: {errno}"),
                remedy: "run this as root",
            })?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(BenchError::system("start the runtime"))?.block_on(async {
            let mut terminated = signal(SignalKind::terminate()).map_err(BenchError::system("hear signals"))?;
            let site = Site::new(options).await?;
            let outcome = tokio::select! {
                outcome = work(&site) => outcome,
                _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
                _ = terminated.recv() => Err(BenchError::Interrupted),
            };
            let cleared = site.clear().await;
            if cleared.is_ok() {
                // The lock is held still; what cannot be removed is overwritten by the next measurement.
                let _ = fs::remove_dir_all(DIRECTORY);
            }
            let outcome = outcome?;
            cleared.map(|()| outcome)
        })
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| {
        Err(BenchError::System { operation: "measure", source: io::Error::other("the measuring thread ended badly") })
    })
}

impl Site {
    async fn new(options: &BenchOptions) -> Result<Self, BenchError> {
        allow_descriptors();
        let directory = Path::new(DIRECTORY);
        let lock = lock(directory)?;
        let owner = OwnerId::from_number(OWNER);
        let (driver, image, memory_mib) = technology(options, directory, &owner)?;
        let net = Net::new(owner.clone())?;
        let prefix = ipnet::Ipv4Net::new_assert(GATEWAY, PREFIX).trunc();
        let bridge = BridgeSpec { name: "selv-bench".to_owned(), v4: (GATEWAY, prefix), v6: None, shaping: None };
        let ramdisk = options.ramdisk.as_ref().map(|file| file.to_string_lossy().into_owned());
        let launch = if ramdisk.is_some() { Launch::Linux } else { Launch::default() };
        let guest = Guest { launch, ramdisk, ..Guest::default() };
        let most_memory_mib = if guest.launch == Launch::Linux { 2 * memory_mib } else { memory_mib };
        let parts = (image.as_str(), options.ramdisk.as_deref());
        let plain = options
            .technology
            .is_xen()
            .then(|| PlainDomain::new(options.technology, parts, (memory_mib, most_memory_mib), directory));
        let plain = plain.transpose()?;
        let site = Self { driver, net, bridge, owner, image, guest, memory_mib, plain, _lock: lock };
        site.driver.check().await?;
        site.clear().await?;
        site.net.ensure_bridge(&site.bridge).await?;
        Ok(site)
    }

    /// What is started as the instance of that number, with these megabytes of content.
    pub(super) fn spec(&self, number: u32, content_mb: u64) -> Result<InstanceSpec, BenchError> {
        let service = ServiceName::new("bench").map_err(|error| BenchError::Missing {
            what: error.to_string(),
            remedy: "report this as a defect of selvedge",
        })?;
        let arguments = vec![format!("content={}", content_mb * 1_000_000)];
        Ok(InstanceSpec {
            id: InstanceId::from_number(number),
            owner: self.owner.clone(),
            service,
            image: self.image.replace("{content}", &content_mb.to_string()),
            guest: Guest { arguments, ..self.guest.clone() },
            resources: Resources { vcpus: 1.0, memory_mib: self.memory_mib },
        })
    }

    /// Has so many instances prepared; how long that took.
    pub(super) async fn prepare(&self, content_mb: u64, count: u32) -> Result<Duration, BenchError> {
        let wanted = [(self.spec(0, content_mb)?, count)];
        let begun = Instant::now();
        let prepared = self.driver.prepare(&wanted).await?;
        if let Some((_, error)) = prepared.failed.into_iter().next() {
            return Err(error.into());
        }
        let ready: u32 = prepared.ready.values().sum();
        if ready < count {
            return Err(BenchError::Missing {
                what: format!("{} prepares no instances", self.driver.technology().label()),
                remedy: "leave --pool out",
            });
        }
        Ok(begun.elapsed())
    }

    /// Address of the instance of that number.
    pub(super) fn address(number: u32) -> Ipv4Addr {
        // The bridge has the first one.
        Ipv4Addr::from(u32::from(GATEWAY) + 1 + number)
    }

    /// Starts an instance and waits until it has answered 200.
    pub(super) async fn up(&self, number: u32, content_mb: u64) -> Result<Steps, BenchError> {
        let spec = self.spec(number, content_mb)?;
        let kind = self.driver.port();
        let addresses = AddressPair { v4: Some(Self::address(number)), v6: None };
        let target = SocketAddr::from((Self::address(number), 80));
        let mut events = self.driver.events();
        let begun = Instant::now();
        let port = PortSpec { instance: spec.id.clone(), bridge: self.bridge.clone(), addresses, shaping: None, kind };
        let mut port = self.net.create_port(&port).await?;
        let made = Instant::now();
        // With a tap the client's first packet waits there for the instance: that it is accepted is the event of its
        // readiness. Behind a pair nobody can be asked before it is attached.
        let early = matches!(kind, PortKind::Tap(_)).then(|| tokio::spawn(connect(target)));
        let running = self.driver.start(&spec, attachment(&mut port)).await?;
        let driver = made.elapsed();
        if let Some(end) = running.end {
            self.net.attach_port(&port, end).await?;
        }
        let started = Instant::now();
        let connected = async {
            match early {
                Some(task) => task.await.unwrap_or_else(|error| Err(io::Error::other(error))),
                None => connect(target).await,
            }
        };
        let stream = tokio::select! {
            stream = connected => stream,
            cause = end_of(&mut events, &spec.id) => Err(io::Error::other(format!("it ended: {cause}"))),
        };
        let failed =
            |reason: String| BenchError::Answer { operation: "connect to", object: target.to_string(), reason };
        let mut stream = stream.map_err(|error| failed(error.to_string()))?;
        let accepted = Instant::now();
        fetch(&mut stream, target, "/healthz").await?;
        let answer = accepted.elapsed();
        Ok(Steps { port: made - begun, driver, start: started - made, accept: accepted - started, answer })
    }

    /// Downloads a path from an instance; its length.
    pub(super) async fn download(&self, number: u32, path: &str) -> Result<u64, BenchError> {
        let target = SocketAddr::from((Self::address(number), 80));
        let connected = connect(target).await;
        let mut stream = connected.map_err(BenchError::system("connect"))?;
        fetch(&mut stream, target, path).await
    }

    /// Stops an instance and removes its port; how long that took.
    pub(super) async fn down(&self, number: u32) -> Result<Duration, BenchError> {
        let id = InstanceId::from_number(number);
        let begun = Instant::now();
        self.driver.stop(&id, Duration::ZERO).await?;
        self.net.delete_port(&id).await?;
        Ok(begun.elapsed())
    }

    /// Removes all instances, also those of other technologies that a killed run left.
    async fn clear(&self) -> Result<(), BenchError> {
        self.clear_of(self.driver.as_ref()).await?;
        if let Some(plain) = &self.plain {
            // Most often there is none.
            let _ = plain.destroy().await;
            // Its namespace does not go with the measurement.
            self.net.remove_bridge(&self.bridge.name).await?;
            return Ok(());
        }
        for technology in Technology::UNIKERNELS {
            let settings = Settings {
                program: PathBuf::new(),
                accelerator: String::new(),
                user: String::new(),
                directory: Path::new(DIRECTORY).join("instances"),
            };
            if let Some(driver) = Unikernel::new(technology, settings, self.owner.clone()) {
                self.clear_of(&driver).await?;
            }
        }
        Ok(())
    }

    async fn clear_of(&self, driver: &dyn Driver) -> Result<(), BenchError> {
        driver.prepare(&[]).await?;
        for instance in driver.list_owned().await? {
            driver.stop(&instance.id, Duration::ZERO).await?;
            self.net.delete_port(&instance.id).await?;
        }
        Ok(())
    }
}

/// The reference unikernel for Xen, in the directory of all.
pub(crate) const XEN_UNIKERNEL: &str = "unikernel.xen";

/// What instances are made of.
#[derive(Debug)]
pub(super) struct Parts {
    /// Their monitor; of no meaning for Docker.
    pub program: PathBuf,
    /// Their image.
    pub image: String,
    /// Memory of an instance in MiB.
    pub memory_mib: u64,
}

/// A technology's parts, copied to where monitors may read them.
pub(super) fn parts(options: &BenchOptions, directory: &Path) -> Result<Parts, BenchError> {
    let technology = options.technology;
    if technology == Technology::Docker {
        let image = options.image.clone().ok_or_else(|| BenchError::Missing {
            what: "there is no image for docker".to_owned(),
            remedy: "name one that the engine holds and that answers /healthz and /content: --image NAME",
        })?;
        return Ok(Parts { program: PathBuf::new(), image, memory_mib: 256 });
    }
    if let (true, Some(image)) = (technology.is_xen(), options.image.clone()) {
        return Ok(Parts { program: PathBuf::from(XL), image, memory_mib: 96 });
    }
    let (tender, kernel, memory_mib) = match technology {
        Technology::Spt => (Some("solo5-spt"), "unikernel.spt", 32),
        Technology::Hvt => (Some("solo5-hvt"), "unikernel.hvt", 32),
        Technology::XenPv | Technology::XenPvh => (None, XEN_UNIKERNEL, 32),
        _ => (None, "unikernel.pvh", 64),
    };
    let program = match (tender, technology) {
        (Some(tender), _) => copy(&options.unikernels, directory, tender)?,
        (None, Technology::XenPv | Technology::XenPvh) => PathBuf::from(XL),
        (None, Technology::Firecracker) => PathBuf::from("/usr/bin/firecracker"),
        (None, _) => PathBuf::from("/usr/bin/qemu-system-x86_64"),
    };
    let image = match &options.image {
        Some(image) => image.clone(),
        None => copy(&options.unikernels, directory, kernel)?.to_string_lossy().into_owned(),
    };
    Ok(Parts { program, image, memory_mib })
}

/// The technology's driver, its image, and the memory of an instance.
fn technology(
    options: &BenchOptions,
    directory: &Path,
    owner: &OwnerId,
) -> Result<(Box<dyn Driver>, String, u64), BenchError> {
    let technology = options.technology;
    let Parts { program, image, memory_mib } = parts(options, directory)?;
    if technology == Technology::Docker {
        return Ok((Box::new(Docker::new(options.docker.clone(), owner.clone())), image, memory_mib));
    }
    let xen = xen::Settings { program: program.clone(), store: "/run/xenstored/socket".into() };
    if let Some(driver) = Xen::new(technology, &xen, owner) {
        return Ok((Box::new(driver), image, memory_mib));
    }
    let settings = Settings {
        program,
        accelerator: "tcg".to_owned(),
        user: options.user.clone(),
        directory: directory.join("instances"),
    };
    let driver = Unikernel::new(technology, settings, owner.clone()).ok_or_else(|| BenchError::Missing {
        what: format!("{} cannot be measured", technology.label()),
        remedy: "choose another technology",
    })?;
    Ok((Box::new(driver), image, memory_mib))
}

/// Waits until the instance ends; why it did.
async fn end_of(events: &mut BoxStream<'_, DriverEvent>, instance: &InstanceId) -> String {
    loop {
        match events.next().await {
            Some(DriverEvent::Exited { id, cause }) if id == *instance => return cause,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Raises this process's limit of open descriptors as far as it may: each instance is watched by one.
fn allow_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and lives through the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            // Where it stays as it is, many instances fail with a clear error.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Copies a built file to where the monitors' user may read it.
fn copy(from: &Path, to: &Path, name: &str) -> Result<PathBuf, BenchError> {
    let (source, target) = (from.join(name), to.join(name));
    fs::copy(&source, &target).map_err(|error| BenchError::Missing {
        what: format!("{}: {error}", source.display()),
        remedy: "build it with make unikernel, or say where it is: --unikernels DIR",
    })?;
    Ok(target)
}

/// Connects. A new attempt begins every few milliseconds beside those that wait, less often the longer it lasts: a
/// monitor that resets its device drops a first packet that waited in the tap, and TCP would send it again after a second
/// only.
async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let attempts = async {
        let begun = Instant::now();
        let mut again = begun + AGAIN;
        let mut waiting = FuturesUnordered::new();
        waiting.push(TcpStream::connect(target));
        loop {
            tokio::select! {
                Some(outcome) = waiting.next() => match outcome {
                    Err(e) if e.kind() != io::ErrorKind::ConnectionRefused => return Err(e),
                    Ok(stream) => return Ok(stream),
                    Err(_) => {}
                },
                () = sleep_until(again.into()) => {
                    waiting.push(TcpStream::connect(target));
                    again = Instant::now() + (begun.elapsed() / PART).max(AGAIN);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One request that must be answered 200; length of the content.
pub(super) async fn fetch(stream: &mut TcpStream, target: SocketAddr, path: &str) -> Result<u64, BenchError> {
    let failed = |reason: String| BenchError::Answer { operation: "get", object: format!("{target}{path}"), reason };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        let (mut length, mut head) = (0u64, Vec::new());
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok((head, length));
            }
            length += count as u64;
            // The head is in the first kilobytes.
            if head.len() < 4096 {
                head.extend_from_slice(&buffer[..count.min(4096)]);
            }
        }
    };
    let answered: io::Result<(Vec<u8>, u64)> =
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (head, length) = answered.map_err(|error| failed(error.to_string()))?;
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(failed(String::from_utf8_lossy(line).into_owned()));
    }
    let end = head.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| failed("no end of its head".to_owned()))?;
    Ok(length - (end as u64 + 4))
}

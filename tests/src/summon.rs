//! A node whose services are unikernels and start from zero, and a client: two namespaces and a cable, or a relay
//! between two taps that keeps each frame for a while.
//!
//! ```text
//!   <name>-client                                <name>-edge
//!   c0 10.63.0.2, monitor 10.63.0.66 ── cable ── e0 10.63.0.1  selvedged ─ sv-sum 10.64.0.1 ─ taps
//!                                     or relay
//! ```

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use control::dns::TYPE_A;
use control::dns::client::{Question, ReplyError};
use control::model::Technology;

use crate::lab::daemon::{Daemon, selvedge};
use crate::lab::netns::veth;
use crate::lab::record::{self, Record, Thing};
use crate::lab::unikernel::Unikernels;
use crate::lab::wire::tap;
use crate::lab::{LabError, Lock, Namespace, Result};

/// Where queries are sent.
pub const EDGE: Ipv4Addr = Ipv4Addr::new(10, 63, 0, 1);
/// The client's own address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 63, 0, 2);
/// Another address of the client's machine, which the configuration lists as a monitor.
pub const MONITOR: Ipv4Addr = Ipv4Addr::new(10, 63, 0, 66);
/// Prefix of instances' addresses.
pub const POOL: &str = "10.64.0.0/16";
/// Longest wait for anything; far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The lab.
#[derive(Debug)]
pub struct SummonLab {
    name: String,
    dir: PathBuf,
    record: Option<Record>,
    _lock: Lock,
    /// Where clients are.
    pub client: Namespace,
    /// Where the daemon is.
    pub edge: Namespace,
    /// Image and tender.
    pub unikernels: Unikernels,
}

impl SummonLab {
    /// Makes the lab; `None` where the unikernel has not been built, which was said then. `services` are further
    /// sections of the configuration, in which `{image}` stands for the unikernel's. With a `delay` each frame takes so
    /// long, in either direction.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn create(name: &str, test: &str, services: &str, delay: Option<Duration>) -> Result<Option<Self>> {
        let name = format!("sv-{name}");
        let lock = Lock::take(&name)?;
        let dir = Path::new("/var/tmp").join(format!("{name}-lab"));
        let path = Path::new("/run").join(format!("{name}.lab.json"));
        record::clean_up(&path).map_err(first)?;
        let mut record = Record::create(&path)?;
        record.add(Thing::Directory { path: dir.clone() })?;
        fs::create_dir_all(&dir).map_err(LabError::system("make directory", dir.display()))?;
        let Some(unikernels) = Unikernels::copy(&dir, test)? else {
            record.remove().map_err(first)?;
            return Ok(None);
        };
        let mut namespace = |part: &str| {
            let name = format!("{name}-{part}");
            record.add(Thing::Namespace { name: name.clone() })?;
            Namespace::create(&name)
        };
        let (client, edge) = (namespace("client")?, namespace("edge")?);
        record.add(Thing::Pins { path: Path::new("/sys/fs/bpf").join(&name) })?;
        match delay {
            None => veth((&client, "c0"), (&edge, "e0"))?,
            Some(delay) => relay((&client, "c0"), (&edge, "e0"), delay)?,
        }
        client.add_address("c0", CLIENT.into(), 24)?;
        client.add_address("c0", MONITOR.into(), 24)?;
        edge.add_address("e0", EDGE.into(), 24)?;
        client.add_route("default", EDGE.into())?;
        // Spoofed senders have no way back; their answers go where the client is.
        edge.add_route("default", CLIENT.into())?;
        for which in ["all", "e0"] {
            edge.set(&format!("ipv4/conf/{which}/rp_filter"), "0")?;
        }
        let lab = Self { name, dir, record: Some(record), _lock: lock, client, edge, unikernels };
        lab.configure(services)?;
        Ok(Some(lab))
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn configure(&self, services: &str) -> Result<()> {
        let image = self.unikernels.image(Technology::Spt);
        let text = format!(
            "[node]\nname = \"edge-1\"\n[dataplane]\ninterfaces = [\"e0\"]\npin_dir = \"/sys/fs/bpf/{name}\"\n\
             [dns]\nlisten = [\"{EDGE}\"]\n[[zone]]\nname = \"edge.test\"\n\
             [control]\nwindow = \"1s\"\nstate_dir = \"{dir}/state\"\nsocket = \"{socket}\"\n\
             metrics = \"127.0.0.1:9553\"\n\
             [scaling]\npredictor = \"ema\"\nheadroom = 0\nstabilisation = \"0s\"\ntolerance = 0\n\
             [technology.unikernel]\nbridge = \"sv-sum\"\npool = \"{POOL}\"\n[technology.spt]\nprogram = \"{tender}\"\n\
             {services}",
            name = self.name,
            dir = self.dir.display(),
            socket = self.socket().display(),
            tender = self.unikernels.monitor(Technology::Spt).display(),
            services = services.replace("{image}", &image.to_string_lossy()),
        );
        fs::write(self.config(), text).map_err(LabError::system("write", self.config().display()))
    }

    /// The daemon's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("selvedge.toml")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("selvedged.sock")
    }

    /// A file of the lab's own.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts the daemon with these variables in its environment.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_daemon(&mut self, environment: &[(&str, &str)]) -> Result<Daemon> {
        let (config, socket, log) = (self.config(), self.socket(), self.file("selvedged.log"));
        let gone = || LabError::system("use", "lab")(io::ErrorKind::NotFound.into());
        let record = self.record.as_mut().ok_or_else(gone)?;
        Daemon::start_with(record, &self.edge, &config, &socket, &log, environment)
    }

    /// Asks for a name's address from an address of the client's; what comes within `patience`.
    ///
    /// # Errors
    /// [`LabError`] where the namespace is gone.
    pub fn ask_from(&self, from: Ipv4Addr, name: &str, patience: Duration) -> Result<Answer> {
        self.client.run_in(|| ask(from, name, patience))
    }

    /// Asks as the client.
    ///
    /// # Errors
    /// As of [`SummonLab::ask_from`].
    pub fn ask(&self, name: &str) -> Result<Answer> {
        self.ask_from(CLIENT, name, PATIENCE)
    }

    /// Status line of what an address answers to a request from an address of the client's.
    ///
    /// # Errors
    /// [`LabError`] where it does not.
    pub fn get_from(&self, from: Ipv4Addr, address: IpAddr) -> Result<String> {
        let line = self.client.run_in(|| get(from, address, "/healthz"))?;
        line.map_err(LabError::system("get", address))
    }

    /// As the client.
    ///
    /// # Errors
    /// As of [`SummonLab::get_from`].
    pub fn get(&self, address: IpAddr) -> Result<String> {
        self.get_from(CLIENT, address)
    }

    /// Removes everything, what the daemon made by its own command.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn remove(mut self) -> Result<()> {
        self.clear()?;
        self.record.take().map_or(Ok(()), |record| record.remove().map_err(first))
    }

    fn clear(&self) -> Result<()> {
        let config = self.config();
        let (code, _, said) = selvedge(Some(&self.edge), &["clear", "--yes", "--config", &config.to_string_lossy()])?;
        match code {
            Some(0) => Ok(()),
            _ => Err(LabError::system("clear", config.display())(io::Error::other(said))),
        }
    }
}

/// A test that failed leaves nothing either: the record ends the daemon, and what it made bears its mark.
impl Drop for SummonLab {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        record.end_processes();
        for error in self.clear().err().into_iter().chain(record.remove().err().into_iter().flatten()) {
            eprintln!("lab: {error}");
        }
    }
}

fn first(errors: Vec<LabError>) -> LabError {
    errors.into_iter().next().unwrap_or_else(|| LabError::system("clean up", "lab")(io::Error::other("unknown")))
}

/// What a query came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, after so long.
    Addresses(Vec<IpAddr>, Duration),
    /// Another code than 0, by its number.
    Code(u16),
    /// Nothing.
    Silence,
}

impl Answer {
    /// The first address.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Addresses(list, _) => list[0],
            other => panic!("no address: {other:?}"),
        }
    }
}

/// Asks once, from the calling thread's namespace.
#[must_use]
pub fn ask(from: Ipv4Addr, name: &str, patience: Duration) -> Answer {
    try_ask(from, name, patience).unwrap_or(Answer::Silence)
}

fn try_ask(from: Ipv4Addr, name: &str, patience: Duration) -> io::Result<Answer> {
    let question = Question::new(name, TYPE_A).map_err(io::Error::other)?;
    let socket = UdpSocket::bind((from, 0))?;
    socket.connect((EDGE, 53))?;
    socket.set_read_timeout(Some(patience))?;
    let begun = Instant::now();
    socket.send(&question.bytes(1))?;
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer)?;
    Ok(match question.read(1, &buffer[..len]) {
        Ok(reply) => Answer::Addresses(reply.list, begun.elapsed()),
        Err(ReplyError::Code { code, .. }) => Answer::Code(code),
        Err(error) => return Err(io::Error::other(error)),
    })
}

/// One request from the calling thread's namespace; the status line.
fn get(from: Ipv4Addr, address: IpAddr, path: &str) -> io::Result<String> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(from, 0)))?;
    let IpAddr::V4(to) = address else { return Err(io::ErrorKind::Unsupported.into()) };
    connect(socket.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(to, 80)))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let target = SocketAddr::new(address, 80);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A cable on which each frame takes `delay`: two taps, and a thread in each direction that keeps frames in order of
/// their time. There is no netem on every kernel. The threads end with the taps' namespaces.
fn relay(a: (&Namespace, &str), b: (&Namespace, &str), delay: Duration) -> Result<()> {
    let (left, right) = (tap(a.0, a.1)?, tap(b.0, b.1)?);
    let clone = |file: &File| file.try_clone().map_err(LabError::system("share", "tap"));
    carry(clone(&left)?, clone(&right)?, delay);
    carry(right, left, delay);
    Ok(())
}

fn carry(mut from: File, mut to: File, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        loop {
            let next = match queue.front() {
                None => receiver.recv().ok(),
                Some((due, _)) => receiver.recv_timeout(due.saturating_duration_since(Instant::now())).ok(),
            };
            match next {
                Some(frame) => queue.push_back(frame),
                None if queue.is_empty() => return,
                None => {}
            }
            while queue.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                let Some((_, frame)) = queue.pop_front() else { break };
                // An interface that is down takes nothing, as a cable that is not plugged in.
                let _ = to.write(&frame);
            }
        }
    });
}

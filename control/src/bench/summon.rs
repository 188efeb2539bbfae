//! Cold starts through the real daemon: a client asks for a service at zero, is answered, connects and reads HTTP 200.
//!
//! Two namespaces and a cable. In one runs `selvedged` with services of its own and its state on a real disk, in the
//! other the client. The services are asked for in turn, and all are back at zero before the next turn begins.
//!
//! ```text
//! client c0 10.241.0.2 ──── cable ──── e0 10.241.0.1 selvedged ── selv-bench 10.240.0.1 ── instances
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use serde::Serialize;
use tokio::net::{TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::site::{self, Parts};
use super::{BenchError, BenchOptions};
use crate::api::{ServiceStatus, Status, client};
use crate::dns::client::Question;
use crate::dns::{Stage, TYPE_A};
use crate::model::Technology;

/// The daemon's files but its state.
const DIRECTORY: &str = "/run/selvedge-bench";
/// Its state: where a node has it, on a disk.
const STATE: &str = "/var/tmp/selvedge-bench";
const PINS: &str = "/sys/fs/bpf/selvedge-bench";
const EDGE: Ipv4Addr = Ipv4Addr::new(10, 241, 0, 1);
const CLIENT: &str = "10.241.0.2/30";
const POOL: &str = "10.240.0.0/16";
const ZONE: &str = "bench.test";
/// Services that are asked for one after the other. Then all go back to zero before the next turn: taking down a tap holds
/// the kernel's lock of all network interfaces for milliseconds, and would be measured instead of starts.
const SERVICES: u32 = 16;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the daemon's status, which is a document and no stream of events.
const LOOK: Duration = Duration::from_millis(20);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct SummonOptions {
    /// Cold starts.
    pub runs: u32,
    /// Clients that ask at the same time for each.
    pub askers: u32,
}

/// Median and 99th percentile of one part of the way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// The middle one.
    pub median_ms: f64,
    /// 99 of 100 are at most this.
    pub p99_ms: f64,
}

impl Percentiles {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * values.len() as f64).ceil() as usize;
            values.get(place.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { median_ms: at(0.5), p99_ms: at(0.99) }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summon {
    /// The technology's label.
    pub technology: &'static str,
    /// Cold starts.
    pub runs: u32,
    /// Clients that asked at the same time.
    pub askers: u32,
    /// Instances that were started; one for each run.
    pub starts: u64,
    /// From the query's sending until HTTP 200 was read.
    pub median_ms: f64,
    /// The same of 99 in 100.
    pub p99_ms: f64,
    /// Stages of the daemon by their labels; `dns` from query to reply as the client sees it (which holds all of these),
    /// then `connect` and `http`.
    pub parts: BTreeMap<&'static str, Percentiles>,
}

/// One cold start as the client saw it, and as the daemon did.
#[derive(Debug, Default)]
struct Run {
    total_ms: f64,
    parts: BTreeMap<&'static str, f64>,
}

/// Starts services from zero by asking for them, one run after the other. `say` is told how far it is.
///
/// # Errors
/// [`BenchError`] at the first run that fails; nothing is left.
pub fn summon(options: &BenchOptions, how: SummonOptions, say: impl Fn(&str) + Send) -> Result<Summon, BenchError> {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| BenchError::Missing {
            what: format!("no network namespace can be made: {errno}"),
            remedy: "run this as root",
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(BenchError::system("start the runtime"))?.block_on(async {
            let mut terminated = signal(SignalKind::terminate()).map_err(BenchError::system("hear signals"))?;
            let mut lab = Lab::new(options)?;
            let outcome = tokio::select! {
                outcome = lab.measure(options.technology, how, say) => outcome,
                _ = tokio::signal::ctrl_c() => Err(BenchError::Interrupted),
                _ = terminated.recv() => Err(BenchError::Interrupted),
            };
            let removed = lab.remove();
            let outcome = outcome?;
            removed.map(|()| outcome)
        })
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| {
        Err(BenchError::System { operation: "measure", source: io::Error::other("the measuring thread ended badly") })
    })
}

/// The daemon and the client's end of the cable.
struct Lab {
    edge: File,
    daemon: Child,
    socket: PathBuf,
    _lock: site::Lock,
}

impl Lab {
    /// Must be called in the client's namespace.
    fn new(options: &BenchOptions) -> Result<Self, BenchError> {
        let directory = Path::new(DIRECTORY);
        let lock = site::lock(directory)?;
        let edge = edge_namespace()?;
        let config = directory.join("selvedge.toml");
        if config.exists() {
            // A run that was killed left its instances; their mark is in its store.
            clear(&edge, &config)?;
        }
        let _ = fs::remove_dir_all(STATE);
        fs::create_dir_all(STATE).map_err(BenchError::system("make /var/tmp/selvedge-bench"))?;
        let parts = site::parts(options, directory)?;
        let socket = directory.join("selvedged.sock");
        let text = config_text(options, &parts, &socket);
        fs::write(&config, text).map_err(BenchError::system("write the daemon's configuration"))?;
        let daemon = start_daemon(&edge, &config)?;
        Ok(Self { edge, daemon, socket, _lock: lock })
    }

    async fn measure(
        &mut self,
        technology: Technology,
        how: SummonOptions,
        say: impl Fn(&str),
    ) -> Result<Summon, BenchError> {
        let mut runs = Vec::new();
        for run in 0..how.runs {
            say(&format!("run {} of {}", run + 1, how.runs));
            let service = format!("s{}", run % SERVICES);
            if run % SERVICES == 0 {
                self.until_all_cold().await?;
            }
            self.until(&service, |s| s.basis == "cold" && s.instances.is_empty()).await?;
            let (address, mut measured) = cold_start(&service, how.askers).await?;
            let status = self.until(&service, |s| s.instances.iter().any(|i| i.report.published)).await?;
            let of_service = status.services.iter().find(|(name, _)| name.as_str() == service).map(|(_, s)| s);
            let instances = of_service.map_or(0, |s| s.instances.len());
            if instances != 1 {
                return Err(answer("start", &service, format!("{instances} instances at {address}, not one")));
            }
            let record = status.summons.iter().rev().find(|record| record.service.as_str() == service);
            for stage in Stage::ALL {
                if let Some(ms) = record.and_then(|record| record.stages_ms.get(stage.label())) {
                    measured.parts.insert(stage.label(), *ms);
                }
            }
            runs.push(measured);
        }
        let status = self.status().await?;
        let starts = status.services.values().filter_map(|s| s.summon.queries.get("ordered")).sum();
        let total = Percentiles::of(runs.iter().map(|run| run.total_ms).collect());
        let labels = Stage::ALL.iter().map(|stage| stage.label()).chain(["dns", "connect", "http"]);
        let part = |label| {
            let values = runs.iter().filter_map(|run| run.parts.get(label).copied()).collect();
            (label, Percentiles::of(values))
        };
        Ok(Summon {
            technology: technology.label(),
            runs: how.runs,
            askers: how.askers,
            starts,
            median_ms: total.median_ms,
            p99_ms: total.p99_ms,
            parts: labels.map(part).collect(),
        })
    }

    async fn status(&self) -> Result<Status, BenchError> {
        let status = client::status(&self.socket).await;
        status.map_err(|error| answer("ask", "the daemon", error.to_string()))
    }

    /// Looks until every service is at zero and nothing of the runs before is being removed.
    async fn until_all_cold(&mut self) -> Result<(), BenchError> {
        for number in 0..SERVICES {
            self.until(&format!("s{number}"), |s| s.basis == "cold" && s.instances.is_empty()).await?;
        }
        Ok(())
    }

    /// Looks until a service is as wanted.
    async fn until(&mut self, service: &str, wanted: impl Fn(&ServiceStatus) -> bool) -> Result<Status, BenchError> {
        let begun = Instant::now();
        loop {
            let failure = match self.status().await {
                Ok(status) if status.services.iter().any(|(name, s)| name.as_str() == service && wanted(s)) => {
                    return Ok(status);
                }
                Ok(_) => "it does not come to what is waited for".to_owned(),
                Err(error) => error.to_string(),
            };
            let ended = self.daemon.try_wait().map_err(BenchError::system("look at selvedged"))?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(log()).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(answer("wait for", service, format!("{failure}; its log ends: {}", last.join(" | "))));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the daemon and removes all that it made.
    fn remove(&mut self) -> Result<(), BenchError> {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        // One that has ended is waited for all the same.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.daemon.wait().map_err(BenchError::system("end selvedged"))?;
        clear(&self.edge, &Path::new(DIRECTORY).join("selvedge.toml"))?;
        for directory in [STATE, PINS, DIRECTORY] {
            // The lock is held still; what cannot be removed is overwritten by the next measurement.
            let _ = fs::remove_dir_all(directory);
        }
        Ok(())
    }
}

fn answer(operation: &'static str, object: &str, reason: String) -> BenchError {
    BenchError::Answer { operation, object: object.to_owned(), reason }
}

fn log() -> PathBuf {
    Path::new(DIRECTORY).join("selvedged.log")
}

/// A namespace for the daemon, with a cable to this one.
fn edge_namespace() -> Result<File, BenchError> {
    let client = nix::unistd::gettid().to_string();
    let make = move || -> Result<File, BenchError> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| BenchError::system("make a namespace")(e.into()))?;
        ip("link set lo up")?;
        ip(&format!("link add e0 type veth peer name c0 netns {client}"))?;
        ip(&format!("addr add {EDGE}/30 dev e0"))?;
        ip("link set e0 up")?;
        File::open("/proc/thread-self/ns/net").map_err(BenchError::system("open the namespace"))
    };
    let made = std::thread::scope(|scope| scope.spawn(make).join());
    let edge = made.unwrap_or_else(|_| Err(answer("make", "the namespace", "its thread ended badly".to_owned())))?;
    ip("link set lo up")?;
    ip(&format!("addr add {CLIENT} dev c0"))?;
    ip("link set c0 up")?;
    ip(&format!("route add {POOL} via {EDGE}"))?;
    Ok(edge)
}

/// `ip` in the calling thread's namespace.
fn ip(words: &str) -> Result<(), BenchError> {
    let output = Command::new("ip")
        .args(words.split(' '))
        .output()
        .map_err(|error| BenchError::Missing { what: format!("ip: {error}"), remedy: "install iproute2" })?;
    if output.status.success() {
        return Ok(());
    }
    Err(answer("run ip", words, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// A program of ours, to be run in the daemon's namespace.
fn ours(edge: &File, name: &str) -> Result<Command, BenchError> {
    let own = std::env::current_exe().map_err(BenchError::system("find this program"))?;
    let edge = edge.try_clone().map_err(BenchError::system("keep the namespace"))?;
    let mut command = Command::new(own.with_file_name(name));
    let enter = move || setns(edge.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: between fork and exec only setns(2) is called, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
    command.stdin(Stdio::null());
    Ok(command)
}

fn start_daemon(edge: &File, config: &Path) -> Result<Child, BenchError> {
    let log = File::create(log()).map_err(BenchError::system("make the daemon's log"))?;
    let mut command = ours(edge, "selvedged")?;
    command.arg("--config").arg(config).stdout(Stdio::null()).stderr(log);
    // A Ctrl-C at the terminal is for the measurement, which ends the daemon in its turn.
    command.process_group(0);
    // SAFETY: prctl(2) with numbers only.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn().map_err(|error| BenchError::Missing {
        what: format!("selvedged beside this program: {error}"),
        remedy: "build or install it, too",
    })
}

/// Removes everything that a daemon with this configuration made.
fn clear(edge: &File, config: &Path) -> Result<(), BenchError> {
    let mut command = ours(edge, "selvedge")?;
    command.args(["clear", "--yes", "--config"]).arg(config);
    let output = command.output().map_err(BenchError::system("run selvedge clear"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(answer("clear", "the measurement", String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn config_text(options: &BenchOptions, parts: &Parts, socket: &Path) -> String {
    let technology = options.technology.label();
    let mut text = format!(
        "[node]\nname = \"bench\"\n[dataplane]\ninterfaces = [\"e0\"]\npin_dir = \"{PINS}\"\n\
         [dns]\nlisten = [\"{EDGE}\"]\n[control]\nwindow = \"1s\"\nstate_dir = \"{STATE}\"\nsocket = \"{}\"\n\
         [scaling]\npredictor = \"ema\"\n[limits]\ninstances = {}\n[summon]\nstarts_per_minute = 60000\nclient_starts_per_minute = 60000\n\
         held_per_client = 1024\n[[zone]]\nname = \"{ZONE}\"\n",
        socket.display(),
        4 * SERVICES,
    );
    let pool = format!("bridge = \"selv-bench\"\npool = \"{POOL}\"\n");
    if options.technology == Technology::Docker {
        text += &format!("[technology.docker]\nsocket = \"{}\"\n{pool}", options.docker.display());
    } else {
        text += &format!("[technology.unikernel]\nuser = \"{}\"\n{pool}", options.user);
        text += &format!("[technology.{technology}]\nprogram = \"{}\"\n", parts.program.display());
    }
    for number in 0..SERVICES {
        let arguments = if options.technology == Technology::Docker { "" } else { "arguments = [\"content=1000\"]\n" };
        text += &format!(
            "[[service]]\nname = \"s{number}\"\nnames = [\"s{number}.{ZONE}\"]\ntechnology = \"{technology}\"\n\
             image = \"{}\"\n{arguments}memory_mib = {}\nprobe_path = \"/healthz\"\nmin = 0\nmax = 2\nttl_s = 1\n\
             drain_quiet = \"100ms\"\n\
             [service.summon]\nhold = \"10s\"\nttl_s = 1\nidle_after = \"100ms\"\nstarts_per_minute = 60000\n",
            parts.image.replace("{content}", "1"),
            parts.memory_mib,
        );
    }
    text
}

/// Asks for a service at zero from so many sockets at once, connects and reads the first answer.
async fn cold_start(service: &str, askers: u32) -> Result<(IpAddr, Run), BenchError> {
    let name = format!("{service}.{ZONE}");
    let question = Question::new(&name, TYPE_A).map_err(|error| answer("ask for", &name, error.to_string()))?;
    let failed = |error: io::Error| answer("ask for", &name, error.to_string());
    let mut sockets = Vec::new();
    for _ in 0..askers {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.map_err(failed)?;
        socket.connect((EDGE, 53)).await.map_err(failed)?;
        sockets.push(socket);
    }
    let begun = Instant::now();
    for (id, socket) in (1..).zip(&sockets) {
        socket.send(&question.bytes(id)).await.map_err(failed)?;
    }
    let mut said: Option<(IpAddr, Duration)> = None;
    let mut run = Run::default();
    for (id, socket) in (1..).zip(&sockets) {
        let mut buffer = [0; 2048];
        let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.map_err(|e| failed(e.into()))?.map_err(failed)?;
        let reply = question.read(id, &buffer[..len]).map_err(|error| answer("ask for", &name, error.to_string()))?;
        let Some(address) = reply.list.first().copied() else { return Err(answer("ask for", &name, "nothing".into())) };
        match said {
            Some((first, _)) if first != address => {
                return Err(answer("ask for", &name, format!("{first} and {address}: two instances")));
            }
            Some(_) => {}
            None => {
                let target = SocketAddr::new(address, 80);
                let replied = begun.elapsed();
                let failed = |error: io::Error| answer("connect to", &target.to_string(), error.to_string());
                let connected = timeout(PATIENCE, TcpStream::connect(target)).await;
                let mut stream = connected.map_err(|e| failed(e.into()))?.map_err(failed)?;
                let accepted = begun.elapsed();
                site::fetch(&mut stream, target, "/healthz").await?;
                let total = begun.elapsed();
                run.total_ms = ms(total);
                let parts = [("dns", replied), ("connect", accepted - replied), ("http", total - accepted)];
                run.parts.extend(parts.map(|(label, time)| (label, ms(time))));
                said = Some((address, replied));
            }
        }
    }
    let (address, _) = said.ok_or_else(|| answer("ask for", &name, "nobody asked".to_owned()))?;
    Ok((address, run))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = Percentiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((of.median_ms, of.p99_ms), (100.0, 198.0));
        assert_eq!(Percentiles::of(vec![]).p99_ms, 0.0);
    }
}

//! A technology whose instances are real processes that serve HTTP in a network namespace of their own, and whose calls
//! fail as a seed says. Where a call begins and ends the process may be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::driver::{Attachment, Driver, DriverError, DriverEvent, InstanceSpec, Result, Running, Usage};
use control::model::{InstanceId, PortEnd, PortKind, Technology};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::lab::process;

/// Between two looks at the instances' processes.
const LOOK: Duration = Duration::from_millis(50);
/// What ends of a fault is listed here: it is no fault of the operator that it is gone.
const FAULTED: &str = "faulted";

/// Numbers from a seed (splitmix64).
#[derive(Debug)]
pub struct Chance(AtomicU64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    pub fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True once in `n` times.
    pub fn one_in(&self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// Counts points and kills this process at one of them.
#[derive(Debug)]
pub struct Reaper {
    at: u64,
    passed: AtomicU64,
}

impl Reaper {
    pub fn new(at: u64) -> Self {
        Self { at, passed: AtomicU64::new(0) }
    }

    pub fn point(&self, what: &str) {
        let passed = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if passed == self.at {
            eprintln!("--- killed at point {passed}: {what}");
            let _ = kill(Pid::this(), Signal::SIGKILL);
        }
    }
}

/// The instances' processes, known by their command lines whoever started them.
#[derive(Debug, Clone)]
pub struct Processes {
    owner: String,
}

impl Processes {
    pub fn of(dir: &Path) -> Self {
        Self { owner: format!("owner={}", dir.display()) }
    }

    /// Each process of ours, with its instance and when it started.
    fn all(&self) -> Vec<(InstanceId, u32, u64)> {
        let mut found = Vec::new();
        for pid in process::all() {
            let arguments = process::arguments(pid);
            if !arguments.contains(&self.owner) {
                continue;
            }
            let id = arguments.iter().find_map(|a| a.strip_prefix("id=")).and_then(|id| InstanceId::new(id).ok());
            if let (Some(id), Some(started)) = (id, process::start_time(pid)) {
                found.push((id, pid, started));
            }
        }
        found
    }

    /// By instance.
    pub fn alive(&self) -> BTreeMap<InstanceId, Vec<u32>> {
        let mut alive: BTreeMap<InstanceId, Vec<u32>> = BTreeMap::new();
        for (id, pid, _) in self.all() {
            alive.entry(id).or_default().push(pid);
        }
        alive
    }

    fn end(&self, id: &InstanceId) {
        for (_, pid, started) in self.all().into_iter().filter(|(other, ..)| other == id) {
            process::end(pid, started, Duration::ZERO).unwrap();
        }
    }

    pub fn end_all(&self) {
        for (_, pid, started) in self.all() {
            process::end(pid, started, Duration::ZERO).unwrap();
        }
    }
}

/// Instances that a fault ended.
pub fn faulted(dir: &Path) -> BTreeSet<InstanceId> {
    let text = fs::read_to_string(dir.join(FAULTED)).unwrap_or_default();
    text.lines().filter_map(|line| InstanceId::new(line).ok()).collect()
}

#[derive(Debug)]
pub struct Simulated {
    dir: PathBuf,
    processes: Processes,
    reaper: Arc<Reaper>,
    /// `None`: nothing fails.
    faults: Option<Chance>,
    /// Ids that this process stopped itself.
    stopped: Mutex<BTreeSet<InstanceId>>,
}

impl Simulated {
    pub fn new(dir: &Path, reaper: Arc<Reaper>, faults: Option<Chance>) -> Self {
        Self { dir: dir.to_owned(), processes: Processes::of(dir), reaper, faults, stopped: Mutex::default() }
    }

    fn fails(&self, operation: &'static str, once_in: u64) -> Result<()> {
        if self.faults.as_ref().is_some_and(|chance| chance.one_in(once_in)) {
            let (object, source) = ("a fault".to_owned(), "injected".into());
            return Err(DriverError::Failed { technology: "simulated", operation, object, source });
        }
        Ok(())
    }

    fn spawn(&self, id: &InstanceId) -> u32 {
        let exe = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.arg("--net").arg(exe).args(["instance_process", "--exact", "--nocapture"]);
        command.arg(&self.processes.owner).arg(format!("id={id}")).env("CRASH_INSTANCE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let pid = command.spawn().unwrap().id();
        // Its namespace is its own, and it has its name, once it is the second program; in between it has none.
        let named = || process::arguments(pid).first().is_some_and(|program| !program.ends_with("unshare"));
        while !named() && process::start_time(pid).is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        pid
    }

    /// An instance that ends by itself, now and then.
    fn lose_one(&self) {
        let Some(chance) = self.faults.as_ref().filter(|chance| chance.one_in(40)) else { return };
        let alive = self.processes.alive();
        let Some(id) = alive.keys().nth(chance.next() as usize % alive.len().max(1)).cloned() else { return };
        let mut file = fs::File::options().create(true).append(true).open(self.dir.join(FAULTED)).unwrap();
        writeln!(file, "{id}").unwrap();
        self.processes.end(&id);
    }
}

impl Driver for Simulated {
    fn technology(&self) -> Technology {
        Technology::Docker
    }

    fn port(&self) -> PortKind {
        PortKind::Pair
    }

    fn check(&self) -> BoxFuture<'_, Result<String>> {
        async { Ok("simulated".to_owned()) }.boxed()
    }

    fn validate<'a>(&'a self, _: &'a InstanceSpec) -> BoxFuture<'a, Result<()>> {
        async {
            self.reaper.point("before fetch");
            self.fails("fetch", 20)?;
            self.reaper.point("after fetch");
            Ok(())
        }
        .boxed()
    }

    fn start<'a>(&'a self, spec: &'a InstanceSpec, _: Option<Attachment>) -> BoxFuture<'a, Result<Running>> {
        async {
            self.reaper.point("before start");
            self.fails("start", 12)?;
            self.processes.end(&spec.id);
            let pid = tokio::task::block_in_place(|| self.spawn(&spec.id));
            self.reaper.point("in start");
            // It runs, and nobody hears of it.
            self.fails("start", 12)?;
            self.reaper.point("after start");
            let (id, handle) = (spec.id.clone(), pid.to_string());
            Ok(Running { id, handle, end: Some(PortEnd::Process(pid)), service: spec.service.to_string() })
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, _: Duration) -> BoxFuture<'a, Result<()>> {
        async move {
            self.reaper.point("before stop");
            self.fails("stop", 10)?;
            self.stopped.lock().unwrap().insert(id.clone());
            self.processes.end(id);
            self.reaper.point("in stop");
            self.fails("stop", 20)?;
            self.reaper.point("after stop");
            Ok(())
        }
        .boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, Result<Vec<Running>>> {
        async {
            self.reaper.point("before list");
            self.fails("list", 20)?;
            let alive = self.processes.alive();
            let running = alive.into_iter().map(|(id, pids)| {
                let handle = pids[0].to_string();
                Running { id, handle, end: Some(PortEnd::Process(pids[0])), service: String::new() }
            });
            Ok(running.collect())
        }
        .boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Result<BTreeMap<InstanceId, Usage>>> {
        async { Ok(BTreeMap::new()) }.boxed()
    }

    fn events(&self) -> BoxStream<'_, DriverEvent> {
        let look = async move |known: BTreeSet<InstanceId>| {
            tokio::time::sleep(LOOK).await;
            self.lose_one();
            let alive: BTreeSet<InstanceId> = self.processes.alive().into_keys().collect();
            let stopped = self.stopped.lock().unwrap().clone();
            let gone: Vec<InstanceId> = known.difference(&alive).filter(|id| !stopped.contains(id)).cloned().collect();
            let told = gone.into_iter().map(|id| DriverEvent::Exited { id, cause: "it ended".to_owned() });
            Some((stream::iter(told.collect::<Vec<_>>()), alive))
        };
        stream::unfold(BTreeSet::new(), look).flatten().boxed()
    }
}

/// An instance: answers every request with 200 until it is killed. Nothing where it is run as a test.
pub fn instance_main() {
    if std::env::var_os("CRASH_INSTANCE").is_none() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    }
}

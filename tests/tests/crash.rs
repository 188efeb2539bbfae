//! `kill -9` at any point: the operator's loop runs in a process of its own, on a real store, real links and a driver
//! that fails at times, and is killed at a seeded point: before or after a write to the store or a call to the driver.
//! Then the next process on the same store has to find everything again. Needs root.
//!
//! `KILLS=300 SEED=1`: how many points, and which.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "crash/driver.rs"]
mod driver;
#[path = "crash/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use control::model::{InstanceId, InstanceState, NodeName, ServiceName};
use control::store::{FILE_NAME, Store, StoreError};
use driver::{Chance, Processes};
use node::Report;
use tests::lab::{Lock, Namespace, is_root, process};

/// Chains of kills that run side by side; each is mostly waiting.
const CHAINS: u64 = 6;
/// Points at which a run can be killed; a run that gets further is killed from outside.
const POINTS: u64 = 120;
/// Longest run before it is killed from outside.
const RUN: Duration = Duration::from_secs(8);
/// Longest wait until all is as it shall be after a kill.
const SETTLE: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The process that is killed; nothing of itself when it is run as a test.
#[test]
fn node_process() {
    node::main();
}

/// What stands for a container.
#[test]
fn instance_process() {
    driver::instance_main();
}

#[test]
fn a_kill_at_any_point_leaves_no_orphan_and_forgets_nobody() {
    if !is_root("a_kill_at_any_point_leaves_no_orphan_and_forgets_nobody") {
        return;
    }
    let (kills, seed) = (number("KILLS", 24), number("SEED", 1));
    let _lock = Lock::take("sv-crash").unwrap();
    let done: Vec<Outcome> = std::thread::scope(|scope| {
        let chains = (0..CHAINS).map(|chain| {
            let share = kills / CHAINS + u64::from(chain < kills % CHAINS);
            scope.spawn(move || Chain::new(chain, seed).run(share))
        });
        chains.collect::<Vec<_>>().into_iter().map(|chain| chain.join().unwrap()).collect()
    });
    let by_point = done.iter().map(|d| d.at_point).sum::<u64>();
    let adopted = done.iter().map(|d| d.adopted).sum::<u64>();
    println!("kills={kills} at_a_point={by_point} from_outside={} adopted={adopted} seed={seed}", kills - by_point);
    assert!(adopted > 0, "no instance ever outlived a kill: nothing was tested");
}

#[derive(Default)]
struct Outcome {
    at_point: u64,
    adopted: u64,
}

/// One store and what belongs to it, over many kills.
struct Chain {
    name: String,
    dir: PathBuf,
    _namespace: Namespace,
    chance: Chance,
}

/// What a kill left, as store and processes say.
struct Left {
    /// Serving instances whose process lives, and that nobody has ordered out.
    serving: BTreeMap<ServiceName, BTreeSet<InstanceId>>,
    wanted: BTreeMap<ServiceName, u32>,
}

impl Chain {
    fn new(chain: u64, seed: u64) -> Self {
        let name = format!("sv-crash-{chain}");
        // On tmpfs: what is synced is there, and a sync costs nothing.
        let dir = Path::new("/dev/shm").join(&name);
        Processes::of(&dir).end_all();
        Namespace::remove(&name).unwrap();
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self { _namespace: Namespace::create(&name).unwrap(), name, dir, chance: Chance::new(seed * 1000 + chain) }
    }

    fn run(self, kills: u64) -> Outcome {
        let mut outcome = Outcome::default();
        for kill in 0..kills {
            let (seed, at) = (self.chance.next(), 1 + self.chance.next() % POINTS);
            let what = format!("{} kill {kill} (run {seed} point {at})", self.name);
            outcome.at_point += u64::from(self.kill(seed, at));
            let left = self.look(&what);
            let report = self.settle(seed, &what);
            assert_eq!(report.violations, [""; 0], "{what}; log: {}", self.log().display());
            for (service, before) in &left.serving {
                let after: BTreeSet<InstanceId> = report.serving.get(service).cloned().unwrap_or_default();
                let stayed = before.intersection(&after).count();
                let wanted = left.wanted.get(service).copied().unwrap_or(0) as usize;
                let log = self.log();
                assert!(
                    stayed >= before.len().min(wanted),
                    "{what}: of {before:?} only {stayed} of {service} were adopted, {wanted} are wanted: {after:?}; log: {}",
                    log.display()
                );
                outcome.adopted += stayed as u64;
            }
        }
        outcome
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn node(&self, seed: u64) -> Command {
        let exe = std::env::current_exe().unwrap();
        let mut command = self._namespace.command(&exe.to_string_lossy()).unwrap();
        command.args(["node_process", "--exact", "--nocapture"]);
        command.env("CRASH_DIR", &self.dir).env("CRASH_SEED", seed.to_string());
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // The instances outlive it.
        command.process_group(0);
        command
    }

    /// Runs the node until it dies. True where that was at the point.
    fn kill(&self, seed: u64, at: u64) -> bool {
        let mut child = self.node(seed).env("CRASH_AT", at.to_string()).spawn().unwrap();
        let mut ended = None;
        let waited = process::wait_for("the point", RUN, &self.log(), || {
            ended = child.try_wait().unwrap();
            Ok(ended)
        });
        if waited.is_err() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let by_itself = ended.is_some();
        if let Some(status) = ended {
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(status.signal(), Some(9), "{}: it ended otherwise; log: {}", self.name, self.log().display());
        }
        by_itself
    }

    /// What is promised of the moment itself: what was published last is of instances that live.
    fn look(&self, what: &str) -> Left {
        let processes = Processes::of(&self.dir);
        let path = self.dir.join("state").join(FILE_NAME);
        // A child that was just forked holds the killed process's lock until it becomes another program.
        let opened = process::wait_for("the store", RUN, &self.log(), || match Store::open(&path) {
            Err(StoreError::Locked { .. }) => Ok(None),
            opened => Ok(Some(opened.unwrap())),
        });
        let store = opened.unwrap();
        let records: BTreeMap<_, _> = store.instances().unwrap().into_iter().map(|i| (i.id.clone(), i)).collect();
        let (faulted, orders) = (driver::faulted(&self.dir), store.orders().unwrap());
        let alive = processes.alive();
        for service in store.snapshot().unwrap().iter().flat_map(|s| &s.services) {
            for backend in &service.backends {
                let id = &backend.instance;
                assert!(
                    alive.contains_key(id) || faulted.contains(id),
                    "{what}: answers name {id}, which was stopped; log: {}",
                    self.log().display()
                );
                assert!(records.get(id).is_none_or(|r| r.largest_ttl_s > 0), "{what}: {id} is answered, unrecorded");
            }
        }
        // An order to run something is written before it is carried out.
        for id in alive.keys() {
            assert!(
                records.contains_key(id),
                "{what}: {id} runs and no record of it is stored; {}",
                self.log().display()
            );
        }
        let node = NodeName::new("node").unwrap();
        let desired = store.desired(&node).unwrap();
        let wanted =
            desired.map(|d| d.services.into_iter().map(|(n, s)| (n, s.replicas)).collect()).unwrap_or_default();
        let mut serving: BTreeMap<ServiceName, BTreeSet<InstanceId>> = BTreeMap::new();
        for record in records.values().filter(|r| r.state == InstanceState::Serving) {
            if alive.contains_key(&record.id) && !orders.instances.contains_key(&record.id) {
                serving.entry(record.service.clone()).or_default().insert(record.id.clone());
            }
        }
        Left { serving, wanted }
    }

    /// The next process, whose driver does not fail, until all is as it shall be.
    fn settle(&self, seed: u64, what: &str) -> Report {
        let report = self.dir.join("report.json");
        let _ = fs::remove_file(&report);
        let mut child = self.node(seed).env("CRASH_REPORT", &report).spawn().unwrap();
        let mut status = None;
        let waited = process::wait_for("the node to settle", SETTLE, &self.log(), || {
            status = child.try_wait().unwrap();
            Ok(status)
        });
        if waited.is_err() {
            let _ = child.kill();
        }
        assert!(status.is_some_and(|s| s.success()), "{what}: {status:?}; log: {}", self.log().display());
        serde_json::from_slice(&fs::read(report).unwrap()).unwrap()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        Processes::of(&self.dir).end_all();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

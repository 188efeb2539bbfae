//! Instances that come and go, with something killed at every step: a tender, a container, the daemon, the engine.
//! What is left is counted after each round and after the end. ROUNDS and SEED make it as long as one likes
//! (`make soak-technologies`). Needs root, dockerd for the lab, and the unikernel (`make unikernel`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control::api::Status;
use control::model::{InstanceState, Technology, Timestamp};
use control::store::{FILE_NAME, Store};
use nix::sys::signal::Signal;
use support::{lab, wait_until};
use tests::contract::kill;
use tests::edge::EdgeLab;
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::is_root;
use tests::lab::unikernel::Unikernels;

/// What a publication gives up is free after the next one.
const GIVEN_BACK_LATER: [&str; 2] = ["map POOL", "map CURSORS"];

/// Longest wait for a round's end, far above what it takes: an engine or container that was killed comes back after a while,
/// and the machine may have others to serve.
const ROUND: Duration = Duration::from_secs(400);

/// Wherever it is written, xorshift64*: the same rounds for the same seed, as far as the machine keeps time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// A moment of a phase that takes about `length`.
    fn moment(&mut self, length: Duration) -> Duration {
        Duration::from_millis(self.below(length.as_millis() as u64))
    }
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    /// Some tenders, at moments of their own.
    Tenders,
    Container,
    Daemon,
    Engine,
}

struct Soak {
    lab: EdgeLab,
    unikernels: Unikernels,
    /// The lab's configuration up to its services.
    head: String,
    /// The container's image, as a line.
    image: String,
    daemon: Option<Daemon>,
    dice: Dice,
    /// By victim, and by the state of the instances at that moment.
    killed: BTreeMap<(Victim, &'static str), u32>,
}

impl Soak {
    fn new(unikernels: Unikernels, seed: u64) -> Self {
        let lab = lab("soak", "");
        let text = fs::read_to_string(lab.config()).unwrap();
        let image = text.lines().find(|line| line.starts_with("image = ")).unwrap().to_owned();
        let (head, _) = text.split_once("[[service]]").unwrap();
        let head = format!(
            "{head}[limits]\ninstances = 64\n[technology.unikernel]\nbridge = \"sv-uni\"\npool = \"10.214.0.0/24\"\n\
             pool6 = \"fd5e:214::/64\"\n[technology.spt]\nprogram = \"{}\"\n",
            unikernels.monitor(Technology::Spt).display()
        );
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { lab, unikernels, head, image, daemon: None, dice, killed: BTreeMap::new() }
    }

    /// So many instances of each technology from now on.
    fn order(&self, unikernels: u64, containers: u64) {
        let service = |name: &str, count: u64, what: &str| {
            format!(
                "[[service]]\nname = \"{name}\"\nnames = [\"{name}.edge.test\"]\nprobe_path = \"/healthz\"\nttl_s = 1\n\
                 drain_quiet = \"100ms\"\nmin = {count}\nmax = {count}\n{what}\n"
            )
        };
        let spt = format!(
            "technology = \"spt\"\nimage = \"{}\"\nmemory_mib = 32",
            self.unikernels.image(Technology::Spt).display()
        );
        let all = [service("page", unikernels, &spt), service("video", containers, &self.image)].concat();
        fs::write(self.lab.config(), format!("{}{all}", self.head)).unwrap();
        if let Some(daemon) = &self.daemon {
            daemon.signal(Signal::SIGHUP).unwrap();
        }
    }

    fn start_daemon(&mut self) {
        let daemon = self.lab.start_daemon().unwrap();
        self.daemon = Some(daemon);
    }

    /// Waits until there are exactly so many, all serving.
    fn settled(&mut self, unikernels: u64, containers: u64) -> Status {
        let daemon = self.daemon.as_mut().unwrap();
        let is = |status: &Status| {
            let all = || status.services.values().flat_map(|service| &service.instances);
            let serving = |technology| {
                let ours = all().filter(|i| i.report.instance.technology == technology);
                ours.filter(|i| i.report.instance.state == InstanceState::Serving).count() as u64
            };
            (serving(Technology::Spt), serving(Technology::Docker)) == (unikernels, containers)
                && all().count() as u64 == unikernels + containers
        };
        daemon.wait_for(&format!("{unikernels} unikernels and {containers} containers"), ROUND, is).unwrap()
    }

    /// Kills after a while, in the middle of whatever goes on.
    fn strike(&mut self, victim: Victim, phase: Duration) {
        let strikes = if victim == Victim::Tenders { 1 + self.dice.below(4) } else { 1 };
        for _ in 0..strikes {
            let pause = self.dice.moment(phase / strikes as u32);
            std::thread::sleep(pause);
            let status = self.daemon.as_ref().unwrap().status().ok();
            let states = status.iter().flat_map(|status| status.services.values()).flat_map(|s| &s.instances);
            for label in states.map(|i| i.report.instance.state.label()).collect::<BTreeSet<_>>() {
                *self.killed.entry((victim, label)).or_default() += 1;
            }
            self.kill(victim);
        }
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Tenders => {
                let tenders = self.unikernels.tenders();
                if !tenders.is_empty() {
                    kill_if_there(tenders[self.dice.below(tenders.len() as u64) as usize]);
                }
            }
            Victim::Container => {
                let containers = self.lab.engine.as_ref().unwrap().processes().unwrap();
                containers.first().copied().into_iter().for_each(kill_if_there);
            }
            Victim::Daemon => self.daemon.take().unwrap().kill().unwrap(),
            Victim::Engine => {
                let engine = self.lab.engine.as_mut().unwrap();
                engine.kill().unwrap();
                engine.restart().unwrap();
            }
        }
        // A new daemon knows no back-off, so that a round does not wait for what the one before it has done.
        if let Some(daemon) = self.daemon.take() {
            daemon.kill().unwrap();
        }
        self.start_daemon();
    }

    /// Who is killed while instances come, and who while they go.
    fn victims(&mut self) -> [Option<Victim>; 2] {
        let mut one = || match self.dice.below(20) {
            0..8 => Some(Victim::Tenders),
            8..15 => Some(Victim::Daemon),
            15..18 => Some(Victim::Container),
            18 => Some(Victim::Engine),
            _ => None,
        };
        [one(), one()]
    }

    /// Everything that instances have, counted.
    fn inventory(&self) -> BTreeMap<String, usize> {
        let edge = &self.lab.edge;
        // Without what the kernel gives an interface by itself, a while after it has been made.
        let ours = |line: &&str| !["fe80:", "ff00:", "anycast"].iter().any(|own| line.contains(own));
        let lines = |arguments: &[&str]| edge.ip(arguments).unwrap().lines().filter(ours).count();
        let dir = |path: PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
        let engine = self.lab.engine.as_ref().unwrap();
        let mut all = BTreeMap::from([
            ("interfaces", edge.interfaces().unwrap().len()),
            ("addresses", lines(&["-o", "address"])),
            ("neighbours", lines(&["neigh", "show", "nud", "permanent"])),
            ("routes", lines(&["route", "show", "table", "all"])),
            ("tenders", self.unikernels.tenders().len()),
            ("containers", dir(engine.data("containers"))),
            ("container processes", engine.processes().unwrap().len()),
            ("control groups", groups(Path::new("/sys/fs/cgroup"), &self.owner())),
            ("directories", dir(self.unikernel_state().join("spt"))),
        ])
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect::<BTreeMap<_, _>>();
        // The kernel's maps: names, packet counters, answers, turns.
        let status = self.daemon.as_ref().and_then(|daemon| daemon.status().ok());
        for map in status.iter().flat_map(|status| &status.maps) {
            all.insert(format!("map {}", map.map), map.used as usize);
        }
        all
    }

    /// Waits until the inventory is as it was. The kernel lets go of a tap, and the engine of a container, a moment after
    /// they have said so.
    fn comes_back_to(&self, baseline: &BTreeMap<String, usize>, but: &[&str], after: &str) {
        let begun = Instant::now();
        loop {
            let now = self.inventory();
            let differs = |name: &&String| now.get(*name) != baseline.get(*name) && !but.contains(&name.as_str());
            let different: Vec<_> = baseline.keys().filter(differs).collect();
            if different.is_empty() {
                return;
            }
            assert!(begun.elapsed() < ROUND, "{different:?} left of {after}:\n{now:?}\n{baseline:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn state(&self) -> PathBuf {
        self.lab.config().with_file_name("state")
    }

    /// The owner's mark, from the log: the store is the daemon's.
    fn owner(&self) -> String {
        let unikernels = fs::read_dir(self.state().join("unikernels")).into_iter().flatten().flatten();
        unikernels.map(|entry| entry.file_name().to_string_lossy().into_owned()).next().unwrap_or_default()
    }

    fn unikernel_state(&self) -> PathBuf {
        self.state().join("unikernels").join(self.owner())
    }
}

fn kill_if_there(pid: u32) {
    if Path::new(&format!("/proc/{pid}")).exists() {
        kill(pid);
    }
}

/// Control groups of an owner's instances, in all hierarchies.
fn groups(root: &Path, owner: &str) -> usize {
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let directory = |path: &fs::DirEntry| path.file_type().is_ok_and(|kind| kind.is_dir());
    let of = |root: PathBuf| fs::read_dir(root.join("selvedge").join(owner)).into_iter().flatten().flatten();
    hierarchies.chain([root.to_owned()]).map(|root| of(root).filter(directory).count()).sum()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_is_left_of_what_was_killed() {
    const TEST: &str = "nothing_is_left_of_what_was_killed";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-soak-").tempdir().unwrap();
    let Some(unikernels) = Unikernels::copy(dir.path(), TEST).unwrap() else { return };
    let (rounds, seed) = (number("ROUNDS", 100), number("SEED", 1));
    let mut soak = Soak::new(unikernels, seed);
    // The engine keeps what a failed test left.
    soak.lab.engine.as_ref().unwrap().remove_containers("selvedge.owner").unwrap();
    let links = soak.lab.edge.interfaces().unwrap();
    // One of each stays from round to round, so that there is something to hold the rest against.
    soak.order(1, 1);
    soak.start_daemon();
    soak.settled(1, 1);
    let baseline = soak.inventory();
    assert!(baseline["control groups"] > 0 && baseline["map FLOWS"] == 2, "{baseline:?}");

    let mut cycles = 0;
    while cycles < rounds {
        let (unikernels, containers) = (8 + soak.dice.below(13), soak.dice.below(2));
        let [coming, going] = soak.victims();
        soak.order(1 + unikernels, 1 + containers);
        if let Some(victim) = coming {
            soak.strike(victim, Duration::from_millis(400));
        }
        soak.settled(1 + unikernels, 1 + containers);
        soak.order(1, 1);
        if let Some(victim) = going {
            soak.strike(victim, Duration::from_millis(2500));
        }
        soak.settled(1, 1);
        soak.comes_back_to(&baseline, &GIVEN_BACK_LATER, &format!("{coming:?}, {going:?}"));
        cycles += unikernels + containers;
        println!(
            "{cycles:>5} of {rounds}: {unikernels} unikernels, {containers} containers; killed {coming:?}, {going:?}"
        );
    }

    // Everything, once the tables have been taken up anew.
    soak.daemon.take().unwrap().terminate().unwrap();
    soak.start_daemon();
    soak.settled(1, 1);
    soak.comes_back_to(&baseline, &[], "all");
    soak.daemon.take().unwrap().terminate().unwrap();
    let config = soak.lab.config().to_string_lossy().into_owned();
    // Addresses: all given back, and none at rest a moment later.
    let later = Timestamp(Timestamp::now().0 + 60_000);
    let store = Store::open(&soak.state().join(FILE_NAME)).unwrap();
    assert_eq!((store.instances().unwrap().len(), store.quarantined(later).unwrap().len()), (2, 0));
    drop(store);
    let (owner, state) = (soak.owner(), soak.unikernel_state());
    let (code, said, error) = selvedge(Some(&soak.lab.edge), &["clear", "--yes", "--config", &config]).unwrap();
    assert_eq!(code, Some(0), "{said}{error}");
    let engine = soak.lab.engine.as_ref().unwrap();
    let left = [
        soak.lab.edge.interfaces().unwrap().iter().filter(|name| !links.contains(name)).count(),
        soak.unikernels.tenders().len(),
        wait_until("the end of containers", || engine.processes().ok()).len(),
        fs::read_dir(engine.data("containers")).unwrap().count(),
        groups(Path::new("/sys/fs/cgroup"), &owner),
        usize::from(state.exists()),
    ];
    for ((victim, state), times) in &soak.killed {
        println!("{victim:?} killed with an instance in {state}: {times}");
    }
    println!("cycles={cycles} left={}", left.iter().sum::<usize>());
    assert_eq!(left, [0; 6], "links, tenders, containers' processes and records, groups, directory");
    soak.lab.remove().unwrap();
}

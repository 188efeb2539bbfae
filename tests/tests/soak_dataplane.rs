//! The dataplane's life under constant load: the daemon is killed, stopped for an hour (its clock is moved), started again
//! and again, and replaced by a build with other layouts and back, in an order that the seed makes. `make
//! soak-dataplane`; a short form in each test run. Needs root, and both builds (`make other-layout`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control::api::Status;
use tests::dataplane::{DataplaneLab, EDGE};
use tests::lab::daemon::{binary, status};
use tests::lab::{Namespace, is_root};
use xdp_balancer::testing::Query;

/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
/// Queries a second, of each kind in turn.
const RATE: u64 = 1000;
const HOSTS: [&str; 3] = ["www.edge.test", "WWW.edge.TEST", "none.edge.test"];

/// What came of the load.
#[derive(Debug, Default)]
struct Load {
    asked: u64,
    answered: u64,
    wrong: u64,
}

/// Asks without a pause until it is told to stop; then waits for what is still on its way.
fn load(stop: &AtomicBool, asked: &AtomicU64) -> Load {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((EDGE, 53)).unwrap();
    let queries = HOSTS.map(|host| Query::new(host, 1).opt(1232, false, &[]).build());
    let right: Vec<Vec<u8>> = queries.iter().map(|query| first_answer(&socket, query)).collect();
    socket.set_nonblocking(true).unwrap();
    let (mut load, mut open, mut reply) = (Load::default(), BTreeMap::<u16, usize>::new(), [0; 2048]);
    let begun = Instant::now();
    let mut quiet = Instant::now();
    while !stop.load(Ordering::Relaxed) || (!open.is_empty() && quiet.elapsed() < Duration::from_secs(3)) {
        let mut idle = true;
        while let Ok(len) = socket.recv(&mut reply) {
            (idle, quiet) = (false, Instant::now());
            let id = u16::from_be_bytes([reply[0], reply[1]]);
            match open.remove(&id) {
                Some(kind) if comparable(&reply[..len]) == comparable(&right[kind]) => load.answered += 1,
                _ => load.wrong += 1,
            }
        }
        // What the machine's sleep made late is not made up for in one burst.
        let due = u64::try_from(begun.elapsed().as_millis()).unwrap() * RATE / 1000;
        if !stop.load(Ordering::Relaxed) && load.asked < due {
            let kind = usize::try_from(load.asked).unwrap() % HOSTS.len();
            let id = u16::try_from(load.asked % 65536).unwrap();
            let mut query = queries[kind].clone();
            query[..2].copy_from_slice(&id.to_be_bytes());
            // A number that comes again before its answer: that one is lost, for its place is taken.
            open.insert(id, kind);
            socket.send(&query).unwrap();
            load.asked += 1;
            asked.store(load.asked, Ordering::Relaxed);
        } else if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    load
}

/// A reply without its number, and without the serial of a SOA in it, which is the table's generation: it stands before the
/// record's last four words and the OPT.
fn comparable(reply: &[u8]) -> Vec<u8> {
    const OPT: usize = 11;
    let mut bytes = reply[2..].to_vec();
    let authorities = reply[9];
    if authorities > 0 {
        let end = bytes.len() - OPT - 4 * size_of::<u32>();
        bytes[end - size_of::<u32>()..end].fill(0);
    }
    bytes
}

fn first_answer(socket: &UdpSocket, query: &[u8]) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(query).unwrap();
    let mut reply = [0; 2048];
    let len = socket.recv(&mut reply).unwrap();
    reply[..len].to_vec()
}

/// Looks at the interface all the time; how often, and how often there was no program.
fn watch(stop: &AtomicBool) -> (u64, u64) {
    let (mut looks, mut bare) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        looks += 1;
        bare += u64::from(xdp_balancer::program_on("e0").unwrap().is_none());
        std::thread::sleep(Duration::from_micros(100));
    }
    (looks, bare)
}

struct Node {
    lab: DataplaneLab,
    builds: [PathBuf; 2],
    /// Which build, hours that have passed, starts.
    build: usize,
    hours: u32,
    starts: u32,
}

impl Node {
    fn spawn(&mut self) -> Child {
        let log = File::options().create(true).append(true).open(self.lab.log()).unwrap();
        let mut command = self.lab.edge.command(&self.builds[self.build].to_string_lossy()).unwrap();
        command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("+{}h", self.hours));
        command.arg("--config").arg(self.lab.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.starts += 1;
        self.lab.record.spawn("selvedged", &mut command).unwrap()
    }

    /// Starts a daemon and waits until it has published.
    fn start(&mut self) -> (Child, Status) {
        let mut child = self.spawn();
        let begun = Instant::now();
        loop {
            let up = |status: &Status| status.generation > 0 && status.interfaces.iter().all(|i| i.mode == "native");
            // Of this one: an earlier one's socket answers nobody.
            if let Some(status) = status(&self.lab.socket()).ok().filter(up) {
                return (child, status);
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE * 4, "{ended:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.lab.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

fn end(mut child: Child, gently: bool) {
    use nix::sys::signal::{Signal, kill};
    let signal = if gently { Signal::SIGTERM } else { Signal::SIGKILL };
    kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    child.wait().unwrap();
}

/// A sequence of numbers that the seed makes (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// No counter goes back.
fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (verdict, count) in before {
        let now = after.get(verdict).copied().unwrap_or(0);
        assert!(now >= *count, "{verdict} went back from {count} to {now}");
    }
}

#[test]
fn answers_go_on_whatever_becomes_of_the_daemon() {
    const TEST: &str = "answers_go_on_whatever_becomes_of_the_daemon";
    if !is_root(TEST) {
        return;
    }
    let own = binary("selvedged").unwrap();
    let other = own.parent().unwrap().join("other-layout/selvedged");
    for (needed, how) in [(other.as_path(), "make other-layout"), (Path::new(FAKETIME), "tests/setup.sh lab")] {
        if !needed.exists() {
            println!("SKIPPED (no {}; {how}): {TEST}", needed.display());
            return;
        }
    }
    let (rounds, mut dice) = (number("ROUNDS", 10), Dice(number("SEED", 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    let lab = DataplaneLab::create("selv-soak", "native").unwrap();
    let mut node = Node { lab, builds: [own, other], build: 0, hours: 0, starts: 0 };
    let (mut daemon, first) = node.start();
    let mut verdicts = first.verdicts;
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let [client, edge] = [&node.lab.client, &node.lab.edge].map(|place| Namespace::existing(place.name()));
    let mut done = BTreeMap::<&str, u32>::new();
    let (load, looks) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| client.run_in(|| load(&stop, &asked)).unwrap());
        let watching = scope.spawn(|| edge.run_in(|| watch(&stop)).unwrap());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds {
                // Answers come in each round, while there is a daemon and while there is none.
                let enough = asked.load(Ordering::Relaxed) + RATE / 5;
                while asked.load(Ordering::Relaxed) < enough {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // Each in turn in the first rounds, so that a short run has them all.
                let what = if round < 5 { round } else { dice.below(5) };
                let name = ["kill", "hour", "loop", "switch", "switch_by_force"][usize::try_from(what).unwrap()];
                *done.entry(name).or_default() += 1;
                end(daemon, matches!(name, "hour" | "switch"));
                match name {
                    "hour" => node.hours += 1,
                    "loop" => {
                        for _ in 0..3 {
                            let child = node.spawn();
                            std::thread::sleep(Duration::from_millis(dice.below(150)));
                            end(child, false);
                        }
                    }
                    "kill" => {}
                    _ => node.build = 1 - node.build,
                }
                let (child, status) = node.start();
                daemon = child;
                grown(&verdicts, &status.verdicts);
                verdicts = status.verdicts;
                println!("round {}: {name}, build {}, {} starts, {} asked", round + 1, node.build, node.starts, enough);
            }
            (daemon, node, verdicts)
        }));
        stop.store(true, Ordering::Relaxed);
        let (load, looks) = (loading.join().unwrap(), watching.join().unwrap());
        match outcome {
            Ok((daemon, node, verdicts)) => {
                let last = status(&node.lab.socket()).unwrap();
                grown(&verdicts, &last.verdicts);
                let counted: u64 = ["answered", "nodata", "nxdomain"].iter().map(|v| last.verdicts[*v]).sum();
                assert!(counted >= load.answered, "{counted} counted, {} answered", load.answered);
                assert!(last.audit.drifts.values().all(|count| *count == 0), "{:?}", last.audit);
                end(daemon, true);
                xdp_balancer::remove_all(&node.lab.pins()).unwrap();
                node.lab.remove().unwrap();
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
        (load, looks)
    });
    println!("{done:?}; {} asked, {} looks at the interface", load.asked, looks.0);
    println!("rounds={rounds} lost={} wrong={} bare={}", load.asked - load.answered - load.wrong, load.wrong, looks.1);
    assert_eq!((load.answered, load.wrong, looks.1), (load.asked, 0, 0));
}

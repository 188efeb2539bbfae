//! Shared by the privileged tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
#![allow(dead_code, reason = "each test program uses its own part")]

pub mod lab;
pub mod namespace;
pub mod replies;
pub mod rows;
pub mod vlan;
pub mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use xdp_balancer::testing::{FrameBuilder, Query, address_record, wire};
use xdp_balancer::{Below, Dataplane, Name, Options, Rendered, Ring, Rrset, Sizes, Table, Verdict, remove_all};

pub const AA: u16 = 0x0400;
pub const A: u16 = 1;
pub const AAAA: u16 = 28;

/// Verdicts that only rules lead to.
pub const GUARDED: [Verdict; 8] = [
    Verdict::Slipped,
    Verdict::Unproven,
    Verdict::Refused,
    Verdict::Aged,
    Verdict::Stale,
    Verdict::Denied,
    Verdict::Limited,
    Verdict::Ceiling,
];

/// True if the test may go on; prints why not otherwise.
pub fn privileged(test: &str) -> bool {
    // SAFETY: a plain call.
    if unsafe { libc::geteuid() } == 0 {
        return true;
    }
    println!("SKIPPED (needs root): {test}");
    false
}

/// A pin directory of one test, removed with all that was attached from it.
pub struct PinDir(pub PathBuf);

impl PinDir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let bpffs = Path::new("/sys/fs/bpf");
        // Mounting twice would hide the pins of others.
        let mounted = std::fs::read_to_string("/proc/self/mounts").unwrap();
        if !mounted.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
            let status = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(bpffs).status().unwrap();
            assert!(status.success(), "mount a BPF file system");
        }
        let name = format!("selvedge-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(bpffs.join(name))
    }

    /// Small maps.
    pub fn options(&self) -> Options {
        Options {
            pin_dir: self.0.clone(),
            sizes: Sizes {
                pool_bytes: 1 << 20,
                cursors: 64,
                services: 16,
                flows: 8,
                connections: 64,
                lists: 64,
                top: 64,
            },
        }
    }

    pub fn open(&self) -> Dataplane {
        Dataplane::open(&self.options()).unwrap_or_else(|error| panic!("{error}\n{error:?}"))
    }
}

impl Drop for PinDir {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.0) {
            eprintln!("cannot clean up: {error}");
            assert!(std::thread::panicking(), "clean-up failed");
        }
    }
}

/// Keeps the thread on one CPU, so that per-CPU positions are one sequence.
pub fn stay_on_one_cpu() {
    // SAFETY: a plain call.
    stay_on_cpu(usize::try_from(unsafe { libc::sched_getcpu() }).unwrap());
}

/// Keeps the thread on a certain CPU.
pub fn stay_on_cpu(cpu: usize) {
    // SAFETY: a plain set of CPUs, filled before use.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set), 0);
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An answer of address records.
pub fn addresses(addresses: &[&str]) -> Rendered {
    Rendered {
        flags: AA,
        ancount: addresses.len() as u16,
        bytes: addresses.iter().flat_map(|address| address_record(ip(address), 30)).collect(),
        ..Rendered::default()
    }
}

/// A name with its types, each with its answers in turn; none: nothing is published.
pub fn name(name: &str, service: u32, rrsets: Vec<(u16, Vec<Rendered>)>) -> Name {
    let ring = |answers: Vec<Rendered>| (!answers.is_empty()).then(|| Arc::new(Ring::round_robin(answers)));
    let rrsets = rrsets.into_iter().map(|(qtype, answers)| Rrset { qtype, ring: ring(answers) }).collect();
    Name { wire: wire(name), service, rrsets, others: None, below: Below::UserSpace }
}

/// Ours in all tests.
pub fn local() -> Vec<IpAddr> {
    vec![ip("192.0.2.53"), ip("2001:db8::53"), ip("192.0.2.54")]
}

pub fn table(generation: u64, names: Vec<Name>) -> Table {
    Table { generation, local: local(), names, ..Table::default() }
}

/// Where the pins of this layout are.
pub fn pinned(pins: &PinDir, name: &str) -> PathBuf {
    pins.0.join(format!("v{}", xdp_balancer_common::LAYOUT)).join(name)
}

/// A frame from a client to us.
pub fn frame(v6: bool) -> FrameBuilder {
    let (client, server) = if v6 { ("2001:db8::1", "2001:db8::53") } else { ("192.0.2.1", "192.0.2.53") };
    FrameBuilder::new(SocketAddr::new(ip(client), 40000), SocketAddr::new(ip(server), 53))
}

pub fn query(v6: bool, query: &Query) -> Vec<u8> {
    frame(v6).payload(query.build()).build()
}

/// Lines that are logged by this process while `act` runs.
pub fn logged(act: impl FnOnce()) -> Vec<String> {
    struct Collector(Mutex<Vec<String>>);
    impl log::Log for Collector {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
        fn flush(&self) {}
    }
    static COLLECTOR: Collector = Collector(Mutex::new(Vec::new()));
    // Set before, perhaps, by another test of this process.
    if log::set_logger(&COLLECTOR).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
    act();
    COLLECTOR.0.lock().unwrap().clone()
}

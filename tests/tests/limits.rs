//! Abuse: a flood from spoofed prefixes at ten times the limit, with a full table, by the program in the kernel
//! (`PROG_TEST_RUN`); and limits and lists that a running daemon takes by a reload. Needs root; the second also `dig`,
//! nginx and dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{PATIENCE, dig, lab, serving};
use tests::edge::{EDGE, NAME};
use tests::lab::daemon::selvedge;
use tests::lab::is_root;
use xdp_balancer::frames::{FrameBuilder, Query, address_record, wire};
use xdp_balancer::{
    Below, Dataplane, Limits, Name, Options, Rendered, Ring, Rrset, Rules, RunAction, Sizes, Table, remove_all,
};

const A: u16 = 1;
/// Answers in a second to a client prefix.
const LIMIT: u32 = 20;
/// Bytes out for one in.
const AMPLIFICATION: u32 = 3;
const LENGTH: Duration = Duration::from_secs(3);
/// Prefixes that ask at ten times the limit, and those that ask at half of it.
const HEAVY: u8 = 50;
const LIGHT: u8 = 20;

/// An A RRset of so many addresses.
fn name(name: &str, addresses: u8) -> Name {
    let bytes = (0..addresses).flat_map(|i| address_record(Ipv4Addr::new(10, 0, 0, i).into(), 30)).collect();
    let answer = Rendered { flags: 0x0400, ancount: addresses.into(), bytes, ..Rendered::default() };
    let rrset = Rrset { qtype: A, ring: Some(Arc::new(Ring::single(answer))) };
    Name { wire: wire(name), service: 0, rrsets: vec![rrset], others: None, below: Below::UserSpace }
}

fn asks(client: [u8; 4], name: &str) -> Vec<u8> {
    let server = SocketAddr::from(([192, 0, 2, 53], 53));
    FrameBuilder::new((client, 40000).into(), server).payload(Query::new(name, A).build()).build()
}

/// What one kind of client sent and got, in packets and bytes.
#[derive(Debug, Default)]
struct Traffic {
    sent: u64,
    /// With records.
    answered: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Traffic {
    fn ask(&mut self, dataplane: &Dataplane, frame: &[u8]) {
        let result = dataplane.run(frame).unwrap();
        self.sent += 1;
        self.bytes_in += frame.len() as u64;
        if result.action == RunAction::Answer {
            self.bytes_out += result.frame.len() as u64;
            // TC is in the third byte of the DNS header.
            self.answered += u64::from(result.frame[14 + 20 + 8 + 2] & 2 == 0);
        }
    }
}

#[test]
fn a_flood_from_spoofed_prefixes_takes_no_answers_from_the_others() {
    if !is_root("a_flood_from_spoofed_prefixes_takes_no_answers_from_the_others") {
        return;
    }
    let pin_dir = Path::new("/sys/fs/bpf").join(format!("selvedge-limits-{}", std::process::id()));
    let mut dataplane = Dataplane::open(&Options { pin_dir: pin_dir.clone(), sizes: Sizes::default() }).unwrap();
    let local: Vec<IpAddr> = vec![[192, 0, 2, 53].into()];
    let names = vec![name("www.edge.test", 2), name("many.edge.test", 20)];
    dataplane.publish(&Table { generation: 1, local, names, ..Table::default() }).unwrap();
    let limits = Limits { client: LIMIT, slip: 2, amplification: AMPLIFICATION, ..Limits::default() };
    dataplane.set_rules(&Rules { limits, ..Rules::default() }).unwrap();
    // All of it taken for longer than the flood lasts.
    dataplane.fill_buckets(Duration::from_secs(3600)).unwrap();

    let (mut light, mut heavy, mut spoofed) = (Traffic::default(), Traffic::default(), Traffic::default());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let before = dataplane.counters(0).unwrap();
    let begun = Instant::now();
    // A millisecond at a time: every fifth each heavy one asks, every hundredth each light one, at all times three that
    // are new.
    let mut late = Duration::ZERO;
    for tick in 0..LENGTH.as_millis() as u32 {
        let due = Duration::from_millis(tick.into()) + late;
        match due.checked_sub(begun.elapsed()) {
            Some(left) => std::thread::sleep(left),
            // The machine stood still: clients do not make up for that.
            None => late += begun.elapsed().saturating_sub(due),
        }
        for host in (0..HEAVY).filter(|host| tick % 5 == u32::from(host % 5)) {
            heavy.ask(&dataplane, &asks([198, 18, host, tick as u8], "www.edge.test"));
        }
        for host in (0..LIGHT).filter(|host| tick % 100 == u32::from(host % 100)) {
            light.ask(&dataplane, &asks([203, 0, host, 7], "www.edge.test"));
        }
        for _ in 0..3 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let [a, b, ..] = random.to_le_bytes();
            spoofed.ask(&dataplane, &asks([100, a, b, 1], "many.edge.test"));
        }
    }
    let elapsed = begun.elapsed();
    let after = dataplane.counters(0).unwrap();
    drop(dataplane);
    remove_all(&pin_dir).unwrap();
    println!("{light:?}\n{heavy:?}\n{spoofed:?}");

    assert!(light.answered * 100 >= light.sent * 99, "{light:?}");
    assert!(heavy.sent >= 10 * u64::from(LIMIT) * u64::from(HEAVY) * LENGTH.as_secs(), "{heavy:?}");
    // A burst, and the rate; and again as much for buckets that others took from them.
    let most = f64::from(HEAVY) * f64::from(LIMIT) * (1.0 + elapsed.as_secs_f64()) * 2.0;
    assert!((heavy.answered as f64) < most, "{heavy:?} in {elapsed:?}");
    assert_eq!(spoofed.answered, 0, "more than they may get: {spoofed:?}");
    for traffic in [&light, &heavy, &spoofed] {
        assert!(traffic.bytes_out <= traffic.bytes_in * u64::from(AMPLIFICATION), "{traffic:?}");
    }
    // Each packet has one verdict.
    let all = after.verdicts.iter().sum::<u64>() - before.verdicts.iter().sum::<u64>();
    assert_eq!(all, light.sent + heavy.sent + spoofed.sent);
}

#[test]
fn a_running_daemon_takes_limits_and_lists() {
    if !is_root("a_running_daemon_takes_limits_and_lists") {
        return;
    }
    let mut lab = lab("limits", "min = 1\nmax = 1");
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("an instance", PATIENCE, |s| serving(s).len() == 1).unwrap();
    let ask = |extra: &[&str]| dig(&lab.client, &[&[&format!("@{}", EDGE.0), NAME, "A"], extra].concat());
    assert_eq!(ask(&["+notcp"]).status, "NOERROR");
    let config = std::fs::read_to_string(lab.config()).unwrap();
    let reload = |keys: &str| {
        std::fs::write(lab.config(), format!("{config}\n{keys}")).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
    };

    reload("[dataplane.lists]\ndeny = [\"0.0.0.0/0\"]\ndenied = \"refuse\"");
    let deadline = Instant::now() + PATIENCE;
    while ask(&["+notcp"]).status != "REFUSED" {
        assert!(Instant::now() < deadline, "the list is not in force");
    }
    assert_eq!(ask(&["+tcp"]).status, "REFUSED", "by the daemon, too");
    let status = daemon.status().unwrap();
    assert!(status.verdicts["refused"] > 0 && status.dns.tcp["denied"] > 0);
    assert_eq!(status.guard.lists.deny.len(), 1);

    reload("[dataplane.limits]\nper_client = 1\nslip = 1");
    while ask(&["+notcp"]).status == "REFUSED" {
        assert!(Instant::now() < deadline, "the list is still in force");
    }
    while !ask(&["+notcp", "+ignore"]).flag("tc") {
        assert!(Instant::now() < deadline, "never over the limit");
    }
    let pins = lab.pins();
    let dataplane = |what: &str| -> Value {
        let arguments = ["dataplane", what, "--json", "--pin-dir", pins.to_str().unwrap()];
        let (code, out, error) = selvedge(Some(&lab.edge), &arguments).unwrap();
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str(&out).unwrap()
    };
    let shown = dataplane("show");
    assert_eq!(shown["guards"], serde_json::json!(["limits"]));
    assert!(shown["verdicts"]["slipped"].as_u64().unwrap() > 0 && shown["generation"].as_u64().unwrap() > 0, "{shown}");
    assert!(shown["heartbeat_age_ms"].is_u64() && shown["stale"] == false, "{shown}");
    // Truncated, so a true client comes over TCP, where no limit holds.
    assert!((0..3).all(|_| ask(&[]).status == "NOERROR"));

    reload("[dataplane.lists]\nallow = [\"0.0.0.0/0\"]\n[dataplane.limits]\nper_client = 1");
    daemon.wait_for("the list", PATIENCE, |s| s.guard.lists.allow.len() == 1).unwrap();
    assert!((0..5).all(|_| !ask(&["+notcp", "+ignore"]).flag("tc")), "listed, so not limited");
    assert_eq!(dataplane("top")["one_in"], 0, "nothing is noted");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

//! Tables that change as fast as they can while two CPUs ask: no answer mixes versions, none is older than the
//! version whose publication had returned before the question. And the proof that this would be seen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{A, AA, AAAA, PinDir, frame, name, privileged, stay_on_cpu, table};
use xdp_balancer::testing::{Datagram, Query, Runner, address_record};
use xdp_balancer::{Below, Dataplane, Error, Rendered, Ring, RunAction, Table};

const RECORDS: u8 = 30;
/// Every so many publications the names change too, which takes a new table of names and a grace period.
const NAMES_EVERY: u64 = 100;
const HOSTS: [&str; 3] = ["www.example.net", "any.wild.example.net", "none.example.net"];

/// Ends the asking, also when the publisher panics.
struct Stop<'a>(&'a Progress);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Addresses that all say `version`.
fn version_of(version: u64, v6: bool, records: u8) -> Rendered {
    let [.., a, b, c] = version.to_be_bytes();
    let address: IpAddr = if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, a.into(), u16::from_be_bytes([b, c])).into()
    } else {
        Ipv4Addr::new(10, a, b, c).into()
    };
    let bytes = address_record(address, 30).repeat(records.into());
    Rendered { flags: AA, ancount: records.into(), bytes, ..Rendered::default() }
}

/// A table of which all answers say its version, in so many records at most. `names` decides which names there are.
fn table_of(version: u64, names: u64, records: u8) -> Table {
    let ring = |v6| {
        let turns = (0..4).map(|turn| version_of(version, v6, records - turn));
        Some(Arc::new(Ring::round_robin(turns.collect())))
    };
    let (v4, v6) = (ring(false), ring(true));
    let held = |host: &str| {
        let mut name = name(host, 0, vec![(A, vec![]), (AAAA, vec![])]);
        (name.rrsets[0].ring, name.rrsets[1].ring) = (v4.clone(), v6.clone());
        name
    };
    let denied = version_of(version, false, records);
    let denied = Rendered { flags: AA | 3, nscount: denied.ancount, ancount: 0, ..denied };
    let mut names = vec![
        name("example.net", 0, vec![]),
        held("www.example.net"),
        name("wild.example.net", 0, vec![]),
        held("*.wild.example.net"),
        held(&format!("n{names}.example.net")),
    ];
    names[0].below = Below::Denied(Arc::new(Ring::single(denied)));
    names[2].below = Below::Wildcard;
    table(version, names)
}

/// What the publisher has done.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    returned: AtomicU64,
    stop: AtomicBool,
}

/// The version that a reply, which has an OPT, says in all its records.
fn said(reply: &[u8]) -> Result<u64, String> {
    const OPT: usize = 11;
    // The sum of an answer is made when it is rendered, so that it too tells a mixture.
    let payload = Datagram::parse(reply)?.payload;
    let count = |at: usize| usize::from(u16::from_be_bytes([payload[at], payload[at + 1]]));
    let records = count(6) + count(8);
    let question = 12 + payload[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let behind = &payload[question..payload.len() - OPT];
    let len = if behind.get(3) == Some(&28) { 28 } else { 16 };
    if records == 0 || behind.len() != records * len {
        return Err(format!("{records} records in {} bytes", behind.len()));
    }
    let version = |record: &[u8]| record[len - 3..].iter().fold(0, |version, byte| version << 8 | u64::from(*byte));
    let first = version(&behind[..len]);
    match behind.chunks_exact(len).find(|record| version(record) != first) {
        Some(other) => Err(format!("records of versions {first} and {}", version(other))),
        None => Ok(first),
    }
}

/// Asks until it is told to stop. Says how often, and what was wrong.
fn ask(runner: &Runner, cpu: usize, progress: &Progress) -> (u64, Option<String>) {
    stay_on_cpu(cpu);
    let mut frames = Vec::new();
    for (host, qtype) in HOSTS.iter().flat_map(|host| [(host, A), (host, AAAA)]) {
        let query = Query::new(host, qtype).opt(1232, false, &[]).build();
        frames.extend([false, true].map(|v6| frame(v6).payload(query.clone()).build()));
    }
    let mut asked = 0;
    for frame in frames.iter().cycle() {
        if progress.stop.load(Ordering::Relaxed) {
            break;
        }
        let oldest = progress.returned.load(Ordering::SeqCst);
        let result = runner.run(frame).unwrap();
        let newest = progress.begun.load(Ordering::SeqCst);
        asked += 1;
        if result.action != RunAction::Answer {
            return (asked, Some(format!("not answered in version {oldest} to {newest}")));
        }
        match said(&result.frame) {
            Ok(version) if (oldest..=newest).contains(&version) => {}
            Ok(version) => return (asked, Some(format!("version {version}, not {oldest} to {newest}"))),
            Err(problem) => return (asked, Some(problem)),
        }
    }
    (asked, None)
}

/// Publishes as often as it can for so long, while two CPUs ask. Says how often, how long one took at most, how often
/// was asked, and what was wrong.
fn churn(
    seconds: u64,
    mut publish: impl FnMut(&mut Dataplane, u64) -> Result<(), Error>,
) -> (u64, Duration, u64, Vec<String>) {
    let pins = PinDir::new();
    // Room for some forty versions, so that grains are used again many times.
    let mut options = pins.options();
    options.sizes.pool_bytes = 1 << 18;
    let mut dataplane = Dataplane::open(&options).unwrap();
    dataplane.publish(&table_of(1, 0, RECORDS)).unwrap();
    let progress = Progress::default();
    progress.begun.store(1, Ordering::SeqCst);
    progress.returned.store(1, Ordering::SeqCst);
    let runners = [dataplane.runner().unwrap(), dataplane.runner().unwrap()];
    let progress = &progress;
    std::thread::scope(|scope| {
        let stop = Stop(progress);
        let askers: Vec<_> =
            runners.iter().enumerate().map(|(cpu, runner)| scope.spawn(move || ask(runner, cpu, progress))).collect();
        let (begin, mut version, mut longest) = (Instant::now(), 1, Duration::ZERO);
        while begin.elapsed() < Duration::from_secs(seconds) && !askers.iter().any(|asker| asker.is_finished()) {
            version += 1;
            let before = Instant::now();
            progress.begun.store(version, Ordering::SeqCst);
            publish(&mut dataplane, version).unwrap();
            progress.returned.store(version, Ordering::SeqCst);
            longest = longest.max(before.elapsed());
        }
        drop(stop);
        let asked: Vec<_> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
        let problems = asked.iter().filter_map(|(_, problem)| problem.clone()).collect();
        (version - 1, longest, asked.iter().map(|(count, _)| count).sum(), problems)
    })
}

#[test]
fn no_answer_mixes_versions_or_names_a_withdrawn_address() {
    if !privileged("no_answer_mixes_versions_or_names_a_withdrawn_address") {
        return;
    }
    const SECONDS: u64 = 5;
    let (mut replaced, mut waited) = (0, 0);
    let (versions, longest, asked, problems) = churn(SECONDS, |dataplane, version| {
        // Other counts and lengths too.
        let table = table_of(version, version / NAMES_EVERY, RECORDS - (version % 3) as u8);
        let published = dataplane.publish(&table)?;
        replaced += u64::from(published.names_replaced);
        waited += u64::from(published.waited);
        Ok(())
    });
    println!(
        "{} publications/s ({replaced} of {versions} with other names, {waited} waited for room, the longest took \
         {longest:?}); {asked} queries",
        versions / SECONDS
    );
    assert_eq!(problems, Vec::<String>::new());
    assert!(replaced > 0 && waited > 0 && asked > 10_000, "too little happened");
}

/// The same check, with the protection taken out: it must be seen to fail.
#[test]
fn a_mixture_would_be_seen() {
    if !privileged("a_mixture_would_be_seen") {
        return;
    }
    let (versions, _, asked, problems) =
        churn(30, |dataplane, version| dataplane.publish_over(&table_of(version, 0, RECORDS)));
    println!("seen after {versions} publications and {asked} queries: {problems:?}");
    assert!(!problems.is_empty());
}

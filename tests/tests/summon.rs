//! Services that start from zero, end to end: the real daemon, unikernels on Solo5's `spt`, a client that asks and
//! downloads. Needs root and the unikernel (`make unikernel`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use control::api::{ServiceStatus, Status};
use control::dns::TYPE_A;
use control::dns::client::Question;
use control::model::InstanceState;
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::unikernel::Unikernels;
use tests::lab::{is_root, process};
use tests::summon::{Answer, CLIENT, EDGE, MONITOR, PATIENCE, SummonLab};

const SERVFAIL: u16 = 2;
const OK: &str = "HTTP/1.1 200 OK";

/// The section of a service on spt that goes to sleep soon; `summon` are further lines of its `[service.summon]`.
fn service(name: &str, keys: &str, summon: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nnames = [\"{name}.edge.test\"]\ntechnology = \"spt\"\nimage = \"{{image}}\"\n\
         arguments = [\"content=1000\"]\nmemory_mib = 32\nprobe_path = \"/healthz\"\nmin = 0\nmax = 3\nttl_s = 60\n\
         drain_quiet = \"100ms\"\n{keys}\n[service.summon]\nhold = \"10s\"\nttl_s = 1\n{summon}\n"
    )
}

fn lab(name: &str, test: &str, services: &str) -> Option<SummonLab> {
    if !is_root(test) {
        return None;
    }
    SummonLab::create(name, test, services, None).unwrap()
}

fn of<'s>(status: &'s Status, name: &str) -> &'s ServiceStatus {
    status.services.iter().find(|(known, _)| known.as_str() == name).map(|(_, s)| s).expect("the service")
}

fn queries(status: &Status, name: &str, what: &str) -> u64 {
    of(status, name).summon.queries.get(what).copied().unwrap_or(0)
}

fn is_cold(status: &Status, name: &str) -> bool {
    of(status, name).basis == "cold" && of(status, name).instances.is_empty()
}

fn starts(status: &Status, name: &str) -> usize {
    let to = InstanceState::Requested;
    status.transitions.iter().filter(|t| t.service.as_str() == name && t.to == to).count()
}

fn up(lab: &mut SummonLab, name: &str) -> Daemon {
    let mut daemon = lab.start_daemon(&[]).unwrap();
    daemon.wait_for("a service at zero", PATIENCE, |s| is_cold(s, name) && s.technologies["spt"].available).unwrap();
    daemon
}

/// From nothing to HTTP 200 by one question, with the short TTL, then from the kernel; 100 at once are one start.
#[test]
fn a_query_starts_what_answers_it() {
    let services = service("one", "", "") + &service("many", "", "");
    let Some(mut lab) = lab("sum-one", "a_query_starts_what_answers_it", &services) else { return };
    let mut daemon = up(&mut lab, "one");
    let answer = lab.ask("one.edge.test").unwrap();
    assert_eq!(lab.get(answer.address()).unwrap(), OK);
    println!("cold: {answer:?}");
    let status = daemon.status().unwrap();
    assert_eq!((of(&status, "one").instances.len(), starts(&status, "one")), (1, 1));
    assert_eq!((queries(&status, "one", "ordered"), queries(&status, "one", "held")), (1, 1));
    let stages = &of(&status, "one").summon.stages;
    assert_eq!(stages.len(), 7, "{stages:?}");
    assert_eq!(status.summons.len(), 1);

    let mut dig = lab.client.command("dig").unwrap();
    let server = format!("@{EDGE}");
    let said = dig.args(["+noall", "+answer", "+tries=1", &server, "one.edge.test", "A"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.split_whitespace().nth(1) == Some("1"), "the short TTL: {said}");
    assert_eq!(of(&daemon.status().unwrap(), "one").answered_in_kernel, 1);

    let found: BTreeSet<IpAddr> = thread::scope(|scope| {
        let askers: Vec<_> = (0..100).map(|_| scope.spawn(|| lab.ask("many.edge.test").unwrap().address())).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    assert_eq!(found.len(), 1);
    assert_eq!(lab.get(*found.first().unwrap()).unwrap(), OK);
    let status = daemon.wait_for("it", PATIENCE, |s| of(s, "many").serving == 1).unwrap();
    assert_eq!((of(&status, "many").instances.len(), starts(&status, "many")), (1, 1));
    assert_eq!(queries(&status, "many", "ordered"), 1);
    let metrics = lab.edge.run_in(scrape).unwrap();
    for line in [
        "selvedge_summon_stage_seconds_count{service=\"one\",stage=\"total\",technology=\"spt\"} 1",
        "selvedge_summon_queries_total{service=\"many\",what=\"ordered\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

fn scrape() -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect("127.0.0.1:9553").unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Use keeps it, by queries or by traffic; without either it goes, and the next query starts it again. A monitor wakes
/// nothing and keeps nothing awake, though it asks and downloads all the time.
#[test]
fn it_goes_when_nobody_uses_it_whatever_monitors_do() {
    let services = format!("[summon]\nmonitors = [\"{MONITOR}/32\"]\n") + &service("one", "", "idle_after = \"2s\"");
    let Some(mut lab) = lab("sum-idle", "it_goes_when_nobody_uses_it_whatever_monitors_do", &services) else { return };
    let mut daemon = up(&mut lab, "one");
    assert_eq!(lab.ask_from(MONITOR, "one.edge.test", PATIENCE).unwrap(), Answer::Code(SERVFAIL));
    let status = daemon.status().unwrap();
    assert_eq!((starts(&status, "one"), queries(&status, "one", "monitor")), (0, 1));

    for round in 0..2 {
        let address = lab.ask("one.edge.test").unwrap().address();
        // By traffic alone, for longer than the idle time.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(lab.get(address).unwrap(), OK);
            thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(of(&daemon.status().unwrap(), "one").serving, 1, "traffic keeps it");
        // By queries alone, which the kernel answers.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(lab.ask("one.edge.test").unwrap().address(), address);
            thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(of(&daemon.status().unwrap(), "one").serving, 1, "queries keep it");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let monitor = scope.spawn(|| {
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Answer::Addresses(list, _) = lab.ask_from(MONITOR, "one.edge.test", PATIENCE).unwrap() {
                        answered += 1;
                        // It may be on its way out by now.
                        let _ = lab.get_from(MONITOR, list[0]);
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                answered
            });
            daemon.wait_for("zero", PATIENCE, |s| of(s, "one").basis == "cold").unwrap();
            stop.store(true, Ordering::Relaxed);
            assert!(monitor.join().unwrap() > 3, "it was answered while there was an instance");
        });
        let status = daemon.wait_for("nothing", PATIENCE, |s| is_cold(s, "one")).unwrap();
        assert_eq!(queries(&status, "one", "ordered"), round + 1);
    }
    assert_eq!(lab.get(lab.ask("one.edge.test").unwrap().address()).unwrap(), OK);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// Each policy says its own where nothing can be started, at once, and starts are bounded.
#[test]
fn late_and_too_many_are_answered_by_policy() {
    let broken = "image = \"/nowhere/at.all\"\n";
    let with = |name: &str, late: &str, keys: &str| {
        service(name, keys, late).replace("image = \"{image}\"\n", broken).replace("\"10s\"", "\"5s\"")
    };
    let services = with("fails", "late = \"servfail\"", "")
        + &with("sorry", "late = \"sorry\"", "sorry = [\"192.0.2.9\"]")
        + &with("silent", "late = \"silence\"", "")
        + &service("bound", "", "idle_after = \"100ms\"\nstarts_per_minute = 2");
    let Some(mut lab) = lab("sum-late", "late_and_too_many_are_answered_by_policy", &services) else { return };
    let mut daemon = up(&mut lab, "fails");
    assert_eq!(lab.ask("fails.edge.test").unwrap(), Answer::Code(SERVFAIL));
    assert_eq!(lab.ask("sorry.edge.test").unwrap().address().to_string(), "192.0.2.9");
    assert_eq!(lab.ask_from(CLIENT, "silent.edge.test", Duration::from_secs(2)).unwrap(), Answer::Silence);
    let status = daemon.status().unwrap();
    assert!(queries(&status, "fails", "back_off") >= 1, "{:?}", of(&status, "fails").summon);
    let reasons = status.transitions.iter().filter(|t| t.to == InstanceState::Failed);
    assert!(reasons.clone().count() >= 3 && reasons.clone().all(|t| t.reason.contains("no image")));
    assert_eq!(queries(&status, "silent", "late"), 0, "the failure answered, not the deadline");

    for _ in 0..2 {
        let answer = lab.ask("bound.edge.test").unwrap();
        assert!(matches!(answer, Answer::Addresses(..)), "{answer:?}");
        daemon.wait_for("zero", PATIENCE, |s| is_cold(s, "bound")).unwrap();
    }
    assert_eq!(lab.ask("bound.edge.test").unwrap(), Answer::Code(SERVFAIL));
    let status = daemon.status().unwrap();
    assert_eq!((queries(&status, "bound", "ordered"), queries(&status, "bound", "budget_service")), (2, 1));
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// Processes of tenders below the lab's directory.
fn tenders(lab: &SummonLab) -> Vec<u32> {
    let program = lab.file("solo5-spt").to_string_lossy().into_owned();
    let ours = |pid: &u32| process::arguments(*pid).first().is_some_and(|first| *first == program);
    process::all().into_iter().filter(ours).collect()
}

fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The daemon is killed while it holds: the client asks again, the next daemon answers with one instance and has
/// removed what was half made. An instance that dies at once is replaced at the next query, after its back-off.
#[test]
fn it_survives_what_dies_under_it() {
    let Some(mut lab) = lab("sum-kill", "it_survives_what_dies_under_it", &service("one", "", "")) else { return };
    let daemon = up(&mut lab, "one");
    let socket = lab.client.run_in(|| UdpSocket::bind((CLIENT, 0)).unwrap()).unwrap();
    socket.connect((EDGE, 53)).unwrap();
    let question = Question::new("one.edge.test", TYPE_A).unwrap();
    socket.send(&question.bytes(7)).unwrap();
    // At whatever step of the start.
    thread::sleep(Duration::from_millis(3));
    daemon.kill().unwrap();
    let mut daemon = lab.start_daemon(&[]).unwrap();
    daemon.wait_for("the next daemon", PATIENCE, |s| s.technologies.get("spt").is_some_and(|t| t.available)).unwrap();
    let address = (0..100).find_map(|_| match lab.ask_from(CLIENT, "one.edge.test", Duration::from_secs(1)).unwrap() {
        Answer::Addresses(list, _) => Some(list[0]),
        _ => None,
    });
    assert_eq!(lab.get(address.unwrap()).unwrap(), OK);
    daemon.wait_for("one instance", PATIENCE, |s| of(s, "one").instances.len() == 1).unwrap();
    assert_eq!(tenders(&lab).len(), 1);

    kill(tenders(&lab)[0]);
    daemon.wait_for("its end", PATIENCE, |s| s.transitions.iter().any(|t| t.to == InstanceState::Failed)).unwrap();
    let begun = Instant::now();
    let again = loop {
        match lab.ask_from(CLIENT, "one.edge.test", Duration::from_secs(1)).unwrap() {
            Answer::Addresses(list, _) if lab.get(list[0]).is_ok_and(|line| line == OK) => break list[0],
            // SERVFAIL while it backs off.
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    println!("{again} after {:?}", begun.elapsed());
    assert_eq!(tenders(&lab).len(), 1);
    let log = daemon.log();
    daemon.terminate().unwrap();
    assert!(!log.contains("panicked"), "{log}");
    lab.remove().unwrap();
}

/// A restart finds the instance in use: the stored plan of none does not end it.
#[test]
fn a_restart_keeps_what_is_awake() {
    let services = service("one", "", "idle_after = \"1h\"");
    let Some(mut lab) = lab("sum-keep", "a_restart_keeps_what_is_awake", &services) else { return };
    let mut daemon = up(&mut lab, "one");
    let address = lab.ask("one.edge.test").unwrap().address();
    daemon
        .wait_for("a plan of none", PATIENCE, |s| of(s, "one").history.len() >= 3 && of(s, "one").wanted == 0)
        .unwrap();
    daemon.kill().unwrap();
    let mut daemon = lab.start_daemon(&[]).unwrap();
    let wanted = |s: &Status| of(s, "one").history.len() >= 3 && of(s, "one").wanted == 0;
    let status = daemon.wait_for("the same plan", PATIENCE, wanted).unwrap();
    assert_eq!(of(&status, "one").serving, 1);
    assert_eq!(lab.ask("one.edge.test").unwrap().address(), address);
    assert_eq!(lab.get(address).unwrap(), OK);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// A flood of random names (of our zone and of others) and of a cold service's own name, from spoofed senders, starts
/// no more than the budgets, and other services are summoned as before. What it took is printed.
#[test]
fn a_flood_starts_no_more_than_its_budget() {
    const PER_SECOND: u64 = 10_000;
    let listed: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
    let mut services = "[limits]\ninstances = 64\n[summon]\nclient_starts_per_minute = 60\n".to_owned();
    services += &service("target", "", "idle_after = \"100ms\"\nstarts_per_minute = 3");
    for name in &listed {
        services += &service(name, "", "");
    }
    let Some(mut lab) = lab("sum-flood", "a_flood_starts_no_more_than_its_budget", &services) else { return };
    let daemon = up(&mut lab, "target");
    let summon = |names: &[String]| -> Vec<Duration> {
        let time = |name: &String| match lab.ask(&format!("{name}.edge.test")).unwrap() {
            Answer::Addresses(list, took) => {
                assert_eq!(lab.get(list[0]).unwrap(), OK);
                thread::sleep(Duration::from_millis(100));
                took
            }
            other => panic!("{name}: {other:?}"),
        };
        let mut times: Vec<Duration> = names.iter().map(time).collect();
        times.sort();
        times
    };
    let quiet = summon(&listed[..20]);
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let flooded = thread::scope(|scope| {
        let flood = scope.spawn(|| lab.client.run_in(|| flood(PER_SECOND, &stop, &sent)).unwrap());
        thread::sleep(Duration::from_millis(500));
        let begun = (Instant::now(), sent.load(Ordering::Relaxed));
        let times = summon(&listed[20..]);
        let rate = (sent.load(Ordering::Relaxed) - begun.1) as f64 / begun.0.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        println!("{rate:.0} queries/s of the flood");
        times
    });
    let show =
        |times: &[Duration]| format!("median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
    println!("quiet: {}\nflood: {}", show(&quiet), show(&flooded));
    let status = daemon.status().unwrap();
    let ordered = queries(&status, "target", "ordered");
    assert!((1..=4).contains(&ordered), "{ordered} starts of 3 per minute");
    let all: u64 = listed.iter().map(|name| queries(&status, name, "ordered")).sum();
    assert_eq!(all, 40, "one for each");
    println!("{:?}", of(&status, "target").summon.queries);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// Sends queries from senders of 10.200.0.0/13: a quarter each for the target, for names that are not in our zone's
/// services, for other zones, and with another type.
fn flood(per_second: u64, stop: &AtomicBool, sent: &AtomicU64) {
    // SAFETY: three numbers.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    assert!(raw >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it, for nobody else.
    let socket: std::os::fd::OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) };
    let to = nix::sys::socket::SockaddrIn::from(std::net::SocketAddrV4::new(EDGE, 0));
    let begun = Instant::now();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 32) as u32;
        let name = match number % 4 {
            0 => "target.edge.test".to_owned(),
            1 => format!("n{random:x}.edge.test"),
            2 => format!("n{random:x}.example.com"),
            _ => format!("s{random:x}.s1.edge.test"),
        };
        let question = Question::new(&name, TYPE_A).unwrap();
        let from = Ipv4Addr::from(0x0AC8_0000 | (random & 0x0007_FFFF));
        let packet = udp(SocketAddr::new(from.into(), 1024 + (random >> 20) as u16), &question.bytes(random as u16));
        // A full queue loses one, as any network does.
        let _ = nix::sys::socket::sendto(socket.as_raw_fd(), &packet, &to, nix::sys::socket::MsgFlags::empty());
        sent.fetch_add(1, Ordering::Relaxed);
        let due = Duration::from_micros((number + 1) * 1_000_000 / per_second);
        if let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| *early > Duration::from_millis(1)) {
            thread::sleep(early);
        }
    }
}

/// An IPv4 packet to the edge's DNS; the kernel fills in the header's checksum, and UDP's is left out.
fn udp(from: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(sender) = from.ip() else { panic!("IPv4") };
    let length = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(sender.octets());
    packet.extend(EDGE.octets());
    for word in [from.port(), 53, length - 20, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

/// A client far away: the cold answer takes the way there and back and the start, no more.
#[test]
fn a_client_far_away_is_served() {
    const DELAY: Duration = Duration::from_millis(50);
    const TEST: &str = "a_client_far_away_is_served";
    if !is_root(TEST) {
        return;
    }
    let services: String = (0..10).map(|number| service(&format!("s{number}"), "", "")).collect();
    let Some(mut lab) = SummonLab::create("sum-far", TEST, &services, Some(DELAY)).unwrap() else { return };
    let mut daemon = up(&mut lab, "s0");
    // Neighbours find each other.
    assert_eq!(lab.get(lab.ask("s9.edge.test").unwrap().address()).unwrap(), OK);
    for number in 0..9 {
        let begun = Instant::now();
        let Answer::Addresses(list, took) = lab.ask(&format!("s{number}.edge.test")).unwrap() else {
            panic!("no answer")
        };
        assert_eq!(lab.get(list[0]).unwrap(), OK);
        assert!(took >= 2 * DELAY, "{took:?}");
        println!(
            "answered after {took:?} ({:?} beyond the way), HTTP 200 after {:?}",
            took - 2 * DELAY,
            begun.elapsed()
        );
    }
    let status = daemon.wait_for("all", PATIENCE, |s| s.summons.len() == 10).unwrap();
    assert!(status.services.values().all(|s| s.summon.queries.get("ordered") == Some(&1)), "one start each");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// An hour without a query, by a clock that is moved under the running daemon (libfaketime): what had been awake is
/// gone, and the next query is answered as the first was.
#[test]
fn an_hour_later_it_is_as_on_the_first_day() {
    const TEST: &str = "an_hour_later_it_is_as_on_the_first_day";
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(LIBRARY).exists() {
        println!("SKIPPED (no libfaketime; run tests/setup.sh lab): {TEST}");
        return;
    }
    let services = service("one", "", "idle_after = \"30m\"").replace("ttl_s = 60", "ttl_s = 5");
    let Some(mut lab) = lab("sum-hour", TEST, &services) else { return };
    let clock = lab.file("clock");
    std::fs::write(&clock, "+0\n").unwrap();
    let path = clock.to_string_lossy().into_owned();
    let environment = [
        ("LD_PRELOAD", LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", path.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_RESET", "1"),
    ];
    let mut daemon = lab.start_daemon(&environment).unwrap();
    daemon.wait_for("zero", PATIENCE, |s| is_cold(s, "one") && s.technologies["spt"].available).unwrap();
    let first = daemon.status().unwrap();
    let mut now = 0;
    for hour in 1..=3u64 {
        let begun = now;
        let answer = lab.ask("one.edge.test").unwrap();
        assert_eq!(lab.get(answer.address()).unwrap(), OK);
        println!("hour {hour}: {answer:?}");
        // In steps of ten minutes, each of which makes one probe late and is followed by one that is not.
        while now < begun + 3600 || of(&daemon.status().unwrap(), "one").basis != "cold" {
            assert!(now < begun + 7200, "still in use");
            now += 600;
            std::fs::write(&clock, format!("+{now}\n")).unwrap();
            let moved = daemon.wait_for("the clock", PATIENCE, |s| s.uptime_s >= first.uptime_s + now).unwrap().at;
            let healthy = |s: &Status| {
                let serving = of(s, "one").instances.iter().filter(|i| i.report.published);
                let mut probes = serving.map(|i| i.report.last_probe.as_ref());
                probes.all(|probe| probe.is_some_and(|probe| probe.error.is_none() && probe.at > moved))
            };
            daemon.wait_for("a probe", PATIENCE, healthy).unwrap();
        }
        let status = daemon.wait_for("zero again", PATIENCE, |s| is_cold(s, "one")).unwrap();
        assert!(status.uptime_s >= first.uptime_s + hour * 3600, "the clock was moved: {}", status.uptime_s);
        assert_eq!(queries(&status, "one", "ordered"), hour);
    }
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// The command that measures it: one instance for a hundred who ask at once, the parts of the time, and nothing left.
#[test]
fn the_bench_measures_the_whole_way_and_leaves_nothing() {
    const TEST: &str = "the_bench_measures_the_whole_way_and_leaves_nothing";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-summon-").tempdir().unwrap();
    let Some(_) = Unikernels::copy(dir.path(), TEST).unwrap() else { return };
    let directory = dir.path().to_string_lossy();
    let words = ["bench", "summon", "--technology", "spt", "--runs", "4", "--askers", "100", "--json", "--unikernels"];
    let (code, out, said) = selvedge(None, &[&words[..], &[&directory]].concat()).unwrap();
    assert_eq!((code, said.as_str()), (Some(0), ""), "{out}");
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((figures["runs"].as_u64(), figures["starts"].as_u64()), (Some(4), Some(4)));
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!(0.0 < number(&figures["median_ms"]) && number(&figures["median_ms"]) <= number(&figures["p99_ms"]));
    for part in ["stored", "port", "started", "ready", "published", "answered", "dns", "connect", "http"] {
        assert!(number(&figures["parts"][part]["median_ms"]) > 0.0, "{part}: {out}");
    }
    for left in ["/run/selvedge-bench", "/var/tmp/selvedge-bench", "/sys/fs/bpf/selvedge-bench"] {
        assert!(!std::path::Path::new(left).exists(), "{left}");
    }
    let of_bench = |pid: &u32| process::arguments(*pid).iter().any(|word| word.contains("/run/selvedge-bench"));
    assert!(!process::all().iter().any(of_bench));
}

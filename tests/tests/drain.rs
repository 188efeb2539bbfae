//! Ten instances become one while clients hold connections that say nothing for longer than a drain takes for silence,
//! and while slow ones download: no request is lost. Needs root, nginx and dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{PATIENCE, dig, lab, serving, video};
use tests::edge::{EDGE, NAME};
use tests::lab::{Namespace, is_root};

/// Longer than `drain_quiet` below.
const THINKING: Duration = Duration::from_millis(1200);
/// Requests over one connection, the name looked up before each connection.
const REQUESTS: usize = 5;
/// Bytes of the lab's file, and how many a slow client takes at a time.
const FILE: usize = 100_000;
const SIP: usize = 10_000;

/// What became of the clients' requests.
#[derive(Default)]
struct Tally {
    ok: AtomicU32,
    failed: AtomicU32,
}

/// The address that the name has now.
fn look_up(from: &Namespace) -> IpAddr {
    let reply = dig(from, &[&format!("@{}", EDGE.0), NAME, "A"]);
    *reply.addresses().iter().next().expect("an address")
}

/// One request over an open connection; how many bytes of the file came. A slow reader waits between sips.
fn request(stream: &mut TcpStream, pause: Duration) -> std::io::Result<usize> {
    stream.write_all(format!("GET /content HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let length = length.ok_or_else(|| std::io::Error::other(format!("no length: {text}")))?;
    let mut left = length;
    let mut sip = vec![0; SIP];
    while left > 0 {
        let len = sip.len().min(left);
        stream.read_exact(&mut sip[..len])?;
        left -= len;
        std::thread::sleep(pause);
    }
    Ok(length)
}

/// A client that keeps its connection for some requests and thinks between them.
fn keep_alive(from: &Namespace, tally: &Tally, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let address = SocketAddr::new(look_up(from), 80);
        let visit = from.run_in(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            for _ in 0..REQUESTS {
                let got = request(&mut stream, Duration::ZERO)?;
                assert_eq!(got, FILE);
                tally.ok.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(THINKING);
            }
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = visit.unwrap() {
            println!("keep-alive client of {address}: {error}");
            tally.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A client that takes several seconds for its download.
fn slow(from: &Namespace, tally: &Tally, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let address = SocketAddr::new(look_up(from), 80);
        let got = from.run_in(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            request(&mut stream, Duration::from_millis(500))
        });
        match got.unwrap() {
            Ok(FILE) => tally.ok.fetch_add(1, Ordering::Relaxed),
            other => {
                println!("slow client of {address}: {other:?}");
                tally.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

#[test]
fn ten_instances_become_one_and_no_request_is_lost() {
    if !is_root("ten_instances_become_one_and_no_request_is_lost") {
        return;
    }
    let keys = "min = 10\nmax = 10\nttl_s = 1\ndrain_quiet = \"500ms\"\ndrain_deadline = \"60s\"";
    let mut lab = lab("ten", keys);
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("ten instances", 2 * PATIENCE, |s| serving(s).len() == 10).unwrap();
    let (tally, stop) = (Tally::default(), AtomicBool::new(false));
    let client = lab.client.name().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| keep_alive(&Namespace::existing(&client), &tally, &stop));
        }
        for _ in 0..6 {
            scope.spawn(|| slow(&Namespace::existing(&client), &tally, &stop));
        }
        // Every client has a connection by now, and thinks.
        std::thread::sleep(2 * THINKING);
        let good = std::fs::read_to_string(lab.config()).unwrap();
        let less = good.replace("min = 10", "min = 1").replace("[[service]]", "[[service]]\ncapacity = 1000");
        std::fs::write(lab.config(), less).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
        let connections = AtomicU64::new(0);
        let begun = Instant::now();
        daemon
            .wait_for("one instance", 3 * PATIENCE, |s| {
                let drains = video(s).instances.iter().filter_map(|i| i.report.drain.as_ref());
                let open = drains.filter_map(|drain| drain.open).max().unwrap_or(0);
                connections.fetch_max(open, Ordering::Relaxed);
                video(s).instances.len() == 1 && serving(s).len() == 1
            })
            .unwrap();
        println!("ten became one in {:?}", begun.elapsed());
        assert!(connections.into_inner() > 0, "the status told of no open connection");
        stop.store(true, Ordering::Relaxed);
    });
    let (ok, failed) = (tally.ok.load(Ordering::Relaxed), tally.failed.load(Ordering::Relaxed));
    println!("{ok} requests, {failed} lost");
    assert!(ok > 50, "{ok}");
    assert_eq!(failed, 0);
    let status = daemon.status().unwrap();
    let quiet = status.transitions.iter().filter(|t| t.reason.contains("traffic has ended")).count();
    assert_eq!(quiet, 9, "drains ended by their clients, not by the deadline: {:?}", status.transitions);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

//! A program takes the place of another one while a client asks as fast as a core can: every query is answered. On a real
//! interface, in namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::lab::{CLIENT, Lab, SERVER, in_lab};
use support::{A, PinDir, addresses, name, privileged, table};
use xdp_balancer::testing::Query;
use xdp_balancer::{Mode, Verdict, attach_pass};

/// No reply comes later; as long as the machine may be busy with others.
const PATIENCE: Duration = Duration::from_secs(30);
/// Queries on the way at once: fewer than a veth's ring holds.
const BURST: u16 = 32;
/// Versions that come one after the other.
const UPGRADES: u32 = 5;
/// How often each is put into the link.
const TIMES: u32 = 100;

/// Asks until told to stop; how many were asked, and how many of these were not answered.
fn ask(lab: &Lab, stop: &AtomicBool) -> (u64, u64) {
    lab.at_client();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.53:53").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut query, mut reply) = (Query::new("www.example.net", A).build(), [0; 512]);
    let (mut asked, mut lost) = (0, 0);
    while !stop.load(Ordering::Relaxed) || asked == 0 {
        for id in 0..BURST {
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&query).unwrap();
        }
        let mut answered = 0_u32;
        while answered.count_ones() < BURST.into() {
            let Ok(len) = socket.recv(&mut reply) else { break };
            assert!(len > query.len() && reply[7] == 1, "{:02x?}", &reply[..len]);
            answered |= 1 << reply[1];
        }
        asked += u64::from(BURST);
        lost += u64::from(answered.count_zeros());
    }
    (asked, lost)
}

#[test]
fn no_query_is_lost_while_versions_come_and_go() {
    if !privileged("no_query_is_lost_while_versions_come_and_go") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut plane = pins.open();
        let www = name("www.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1"])])]);
        plane.publish(&table(1, vec![www])).unwrap();
        plane.attach(SERVER, Mode::Native).unwrap();
        lab.at_client();
        attach_pass(CLIENT).unwrap();
        lab.at_server();
        let stop = AtomicBool::new(false);
        let begun = Instant::now();
        let (plane, (asked, lost)) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&lab, &stop));
            let mut ids = Vec::new();
            for _ in 0..UPGRADES {
                drop(plane);
                plane = pins.open();
                for _ in 0..TIMES {
                    ids.push(plane.attach(SERVER, Mode::Auto).unwrap().program_id);
                }
            }
            stop.store(true, Ordering::Relaxed);
            ids.dedup();
            assert_eq!(ids.len(), UPGRADES as usize, "each brings its program");
            (plane, asking.join().unwrap())
        });
        let rate = asked as f64 / begun.elapsed().as_secs_f64();
        println!("asked={asked} lost={lost} rate={rate:.0}/s replaced={}", UPGRADES * TIMES);
        assert_eq!(lost, 0);
        assert_eq!(plane.counters(1).unwrap().verdict(Verdict::Answered), asked);
    });
}

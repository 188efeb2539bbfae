//! What the program says in the kernel (`PROG_TEST_RUN`), and that user space changes it while it runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::Mutex;

use support::{A, PinDir, addresses, ip, name, privileged, table};
use xdp_balancer::testing::{FrameBuilder, Query, wire};
use xdp_balancer::{Capture, CaptureRules, LogLevel, Rules, Verdict, log_level, set_log_level};

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl log::Log for Listener {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            SAID.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn each_level_says_what_it_should() {
    if !privileged("each_level_says_what_it_should") {
        return;
    }
    log::set_logger(&Listener).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let pins = PinDir::new();
    assert_eq!(log_level(&pins.0).unwrap(), None);
    assert!(set_log_level(&pins.0, LogLevel::Debug).is_err(), "there are no tables");

    let mut plane = pins.open();
    let answer = || name("www.example.net", 0, vec![(A, vec![addresses(&["10.0.0.1"])])]);
    plane.publish(&table(1, vec![answer()])).unwrap();
    assert!(plane.damage(&wire("www.example.net")));
    let deny = vec![(ip("198.51.100.0"), 24)];
    plane.set_rules(&Rules { deny, ..Rules::default() }).unwrap();
    let asked_by = |client: &str| {
        let query = Query::new("www.example.net", A).build();
        FrameBuilder::new(SocketAddr::new(ip(client), 40000), SocketAddr::new(ip("192.0.2.53"), 53))
            .payload(query)
            .build()
    };
    let (meets_damage, denied) = (asked_by("203.0.113.7"), asked_by("198.51.100.7"));

    let mut messages = plane.take_log().unwrap();
    let mut said = |frames: u32| {
        for _ in 0..frames {
            plane.run(&meets_damage).unwrap();
            plane.run(&denied).unwrap();
        }
        messages.drain();
        let mut said = std::mem::take(&mut *SAID.lock().unwrap());
        said.iter_mut().for_each(|line| line.truncate(12));
        said
    };
    assert_eq!(log_level(&pins.0).unwrap(), Some(LogLevel::Warn), "nobody has chosen");
    assert_eq!(said(1), ["broken table"]);
    for (level, wanted) in [
        (LogLevel::Debug, &["broken table", "dropped as d"][..]),
        (LogLevel::Off, &[]),
        (LogLevel::Error, &["broken table"]),
    ] {
        set_log_level(&pins.0, level).unwrap();
        assert_eq!(log_level(&pins.0).unwrap(), Some(level));
        assert_eq!(said(1), wanted, "{level:?}");
    }

    // The program that captures says it in the same place.
    let all = CaptureRules { one_in: 1, rate: 1000, client: None, name: None, verdicts: Vec::new() };
    let mut capture = Capture::start(&pins.0, &all).unwrap();
    assert_eq!(said(1), ["broken table"]);
    let captured: Vec<_> = std::iter::from_fn(|| capture.next_query()).map(|query| query.verdict).collect();
    assert_eq!(captured, [Verdict::Broken, Verdict::Denied]);
    drop(capture);

    set_log_level(&pins.0, LogLevel::Debug).unwrap();
    let burst = said(1000).len();
    assert!((90..1500).contains(&burst), "a hundred in a second, not {burst}");
}

//! What queries cost in the kernel, measured and told by a running daemon, and switched by reloads. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{PATIENCE, metrics};
use tests::dataplane::{DataplaneLab, EDGE};
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::is_root;
use xdp_balancer::testing::Query;

/// As many queries, each answered.
fn ask(lab: &DataplaneLab, times: usize) {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((EDGE, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for _ in 0..times {
            socket.send(&Query::new("www.edge.test", 1).build()).unwrap();
            socket.recv(&mut [0; 2048]).unwrap();
        }
    };
    lab.client.run_in(ask).unwrap();
}

#[test]
fn what_queries_cost_is_told_and_switched_at_run_time() {
    if !is_root("what_queries_cost_is_told_and_switched_at_run_time") {
        return;
    }
    let mut lab = DataplaneLab::create("selv-cost", "native").unwrap();
    let (path, socket, log) = (lab.config(), lab.socket(), lab.log());
    let mut daemon = Daemon::start(&mut lab.record, &lab.edge, &path, &socket, &log).unwrap();
    daemon.wait_for("a table", PATIENCE, |s| s.generation > 0).unwrap();
    let show = |extra: &[&str]| {
        let pins = lab.pins();
        let words = [&["dataplane", "show", "--pin-dir", pins.to_str().unwrap()], extra].concat();
        let (code, out, error) = selvedge(Some(&lab.edge), &words).unwrap();
        assert_eq!(code, Some(0), "{error}");
        out
    };
    let costs = || serde_json::from_str::<Value>(&show(&["--json"])).unwrap()["costs"].clone();
    ask(&lab, 20);
    assert!(costs().is_null() && !show(&[]).contains("cost:"), "off by default");
    let config = fs::read_to_string(&path).unwrap();
    let reload = |one_in: u32| {
        let key = format!("[dataplane]\ncost_sample = {one_in}\n");
        fs::write(&path, config.replace("[dataplane]\n", &key)).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
    };

    reload(1);
    support::wait_until("that it is on", || (costs()["one_in"] == 1).then_some(()));
    ask(&lab, 50);
    let measured = costs();
    assert_eq!(measured["count"], 50, "{measured}");
    let buckets: u64 = measured["below_ns"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert!(buckets == 50 && measured["sum_ns"].as_u64().unwrap() > 0, "{measured}");
    let shown = show(&[]);
    println!("{shown}");
    assert!(shown.contains("cost:   50 queries measured, one query in 1 is measured\n        mean "), "{shown}");
    let text = metrics(&lab.edge);
    for line in [
        "# TYPE selvedge_xdp_query_cost_seconds histogram",
        "selvedge_xdp_query_cost_seconds_count 50",
        "selvedge_xdp_query_cost_seconds_bucket{le=\"+Inf\"} 50",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }

    reload(0);
    support::wait_until("that it is off", || (costs()["one_in"] == 0).then_some(()));
    ask(&lab, 50);
    assert_eq!(costs()["count"], 50, "what was measured stays");
    assert!(show(&[]).contains("cost:   50 queries measured, none is measured now"), "{}", show(&[]));
    daemon.terminate().unwrap();
    xdp_balancer::remove_all(&lab.pins()).unwrap();
    lab.remove().unwrap();
}

//! What is answered while nothing serves, switched in the running daemon. Needs root, `dig`, nginx and dockerd
//! (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use nix::sys::signal::Signal;
use support::{PATIENCE, dig, lab, metrics, serving, video};
use tests::edge::{EDGE, NAME};
use tests::lab::is_root;

/// The line of the configuration that each step replaces.
const DEFAULT: &str = "on_all_down = \"last-good\"";

/// One instance that cannot be reached, and an engine that cannot start another: each policy and fallback takes
/// effect by a reload, and the last good answer comes back after all of them.
#[test]
fn policies_are_switched_live() {
    if !is_root("policies_are_switched_live") {
        return;
    }
    let mut lab = lab("policy", &format!("min = 1\nmax = 1\nttl_s = 1\n{DEFAULT}"));
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("an instance", PATIENCE, |s| serving(s).len() == 1).unwrap();
    assert_eq!(video(&status).basis, "serving");
    let instance = &video(&status).instances[0].report.instance;
    let own = instance.addresses.v4.unwrap().to_string();
    lab.engine.as_mut().unwrap().kill().unwrap();
    daemon.wait_for("the loss", PATIENCE, |s| !s.technologies["docker"].available).unwrap();
    // Not its interface: that would be put up again.
    lab.edge.ip(&["route", "add", "blackhole", &format!("{own}/32")]).unwrap();

    let config = std::fs::read_to_string(lab.config()).unwrap();
    let fallback = "[[service.fallback]]\naddresses = [\"192.0.2.7\"]";
    let sorry = "on_all_down = \"sorry\"\nsorry = [\"192.0.2.9\"]";
    for (keys, basis, code, address) in [
        (DEFAULT, "last-good", "NOERROR", Some(own.as_str())),
        // The instance is there still, and out of all answers from here on.
        ("on_all_down = \"all\"", "all", "NOERROR", Some(&own)),
        ("on_all_down = \"servfail\"", "servfail", "SERVFAIL", None),
        ("on_all_down = \"nodata\"", "nodata", "NOERROR", None),
        (sorry, "sorry", "NOERROR", Some("192.0.2.9")),
        ("on_all_down = \"pass\"", "pass", "NOERROR", None),
        (fallback, "fallback", "NOERROR", Some("192.0.2.7")),
        (DEFAULT, "last-good", "NOERROR", Some(&own)),
    ] {
        std::fs::write(lab.config(), config.replace(DEFAULT, keys)).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
        let status = daemon.wait_for(basis, PATIENCE, |s| video(s).basis == basis).unwrap();
        assert_eq!(video(&status).fallback_group, (basis == "fallback").then_some(1));
        for extra in ["+notcp", "+tcp"] {
            let reply = dig(&lab.client, &[&format!("@{}", EDGE.0), NAME, "A", extra]);
            let told = reply.answer.iter().map(|record| record[4].as_str());
            assert_eq!(
                (reply.status.as_str(), told.collect::<Vec<_>>()),
                (code, address.into_iter().collect()),
                "{basis}"
            );
            assert_eq!(reply.flag("aa"), code == "NOERROR", "{basis}");
            assert_eq!(reply.authority.len(), usize::from(code == "NOERROR" && address.is_none()), "{basis}");
        }
        let text = metrics(&lab.edge);
        let ones = text.lines().filter(|l| l.starts_with("selvedge_service_answer_basis{") && l.ends_with(" 1"));
        let line = format!("selvedge_service_answer_basis{{basis=\"{basis}\",service=\"video\"}} 1");
        assert_eq!(ones.collect::<Vec<_>>(), [line]);
    }
    lab.engine.as_mut().unwrap().restart().unwrap();
    daemon.wait_for("the return", PATIENCE, |s| video(s).basis == "serving").unwrap();
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

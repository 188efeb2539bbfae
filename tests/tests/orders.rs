//! What an operator of the machine orders, on the real daemon with a real engine: it holds over a crash, says who, when
//! and why, and is taken back. And `kill -9` of the daemon, again and again. Needs root, nginx and dockerd.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use control::api::Status;
use serde_json::Value;
use support::{PATIENCE, lab, serving, video};
use tests::edge::EdgeLab;
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::is_root;

const SERVICE: &str = "min = 1\nmax = 4\nttl_s = 1\ndrain_quiet = \"200ms\"";

/// The command on the lab's socket; what it printed.
fn command(lab: &EdgeLab, arguments: &[&str]) -> String {
    let socket = lab.socket();
    let all = [arguments, &["--socket", socket.to_str().unwrap()]].concat();
    let (code, out, error) = selvedge(None, &all).unwrap();
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    out
}

fn json(lab: &EdgeLab, arguments: &[&str]) -> Value {
    serde_json::from_str(&command(lab, &[arguments, &["--json"]].concat())).unwrap()
}

/// Instances in the answers.
fn published(status: &Status) -> BTreeSet<String> {
    let all = video(status).instances.iter().filter(|i| i.report.published);
    all.map(|i| i.report.instance.id.to_string()).collect()
}

fn until(daemon: &mut Daemon, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    daemon.wait_for(what, PATIENCE, wanted).unwrap()
}

#[test]
fn orders_stand_over_a_crash_and_say_whose_they_are() {
    if !is_root("orders_stand_over_a_crash_and_say_whose_they_are") {
        return;
    }
    let mut lab = lab("orders", SERVICE);
    let mut daemon = lab.start_daemon().unwrap();
    until(&mut daemon, "one instance", |s| serving(s).len() == 1);

    let tried = json(&lab, &["service", "pin", "video", "3", "--dry-run"]);
    assert!(tried["dry_run"] == true && tried["changes"][0].as_str().unwrap().contains("pinned to 3"), "{tried}");
    command(&lab, &["service", "pin", "video", "3", "--reason", "match day", "--if-revision", "0"]);
    let three = serving(&until(&mut daemon, "three instances", |s| published(s).len() == 3));

    daemon.kill().unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    let status = until(&mut daemon, "the same three", |s| serving(s) == three && !video(s).decision.is_empty());
    assert!(video(&status).decision.starts_with("3: pinned to 3 by root: match day; the plan says"), "{status:?}");
    let shown = json(&lab, &["service", "show", "video"]);
    assert_eq!(
        (shown["ordered"]["by"].as_str(), shown["ordered"]["reason"].as_str()),
        (Some("root"), Some("match day"))
    );

    // One is taken out and kept: another takes its place, and it goes on running, also over a crash.
    let kept = three.first().unwrap().clone();
    command(&lab, &["instance", "drain", &kept, "--keep", "--reason", "slow"]);
    until(&mut daemon, "its replacement", |s| published(s).len() == 3 && !published(s).contains(&kept));
    daemon.kill().unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    let is_kept = |s: &Status| published(s).len() == 3 && serving(s).contains(&kept) && !published(s).contains(&kept);
    until(&mut daemon, "the kept one beside three", is_kept);
    let ordered = json(&lab, &["instance", "show", &kept]);
    assert_eq!(
        (ordered["ordered"]["kind"].as_str(), ordered["ordered"]["reason"].as_str()),
        (Some("keep"), Some("slow"))
    );
    command(&lab, &["instance", "undrain", &kept]);
    until(&mut daemon, "it is back", |s| published(s).contains(&kept) && published(s).len() == 3);

    // One is removed, whoever talks to it, and replaced.
    let removed = serving(&daemon.status().unwrap()).last().unwrap().clone();
    command(&lab, &["instance", "remove", &removed]);
    until(&mut daemon, "its removal", |s| {
        published(s).len() == 3 && video(s).instances.iter().all(|i| i.report.instance.id.as_str() != removed)
    });
    // None at all, though they are the last good answer.
    command(&lab, &["service", "drain", "video"]);
    until(&mut daemon, "no instance", |s| video(s).instances.is_empty());
    command(&lab, &["service", "resume", "video"]);
    until(&mut daemon, "one by its plan", |s| serving(s).len() == 1 && video(s).ordered.is_none());
    // Paused at what is wanted.
    command(&lab, &["service", "pause", "video"]);
    let paused = until(&mut daemon, "the pause", |s| video(s).decision.contains("paused by root"));
    assert_eq!(video(&paused).wanted, 1);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

#[test]
fn killed_again_and_again_the_daemon_finds_every_container() {
    if !is_root("killed_again_and_again_the_daemon_finds_every_container") {
        return;
    }
    let number = |name: &str, default| std::env::var(name).ok().and_then(|t| t.parse().ok()).unwrap_or(default);
    let (kills, mut chance) = (number("KILLS", 4_u64), number("SEED", 1_u64));
    let mut next = |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let mut lab = lab("killed-often", SERVICE);
    let mut daemon = lab.start_daemon().unwrap();
    until(&mut daemon, "one instance", |s| serving(s).len() == 1);
    for kill in 0..kills {
        let wanted = 1 + next(4);
        command(&lab, &["service", "pin", "video", &wanted.to_string()]);
        // Whatever is going on then: starts, probes, publishing, drains, stops.
        std::thread::sleep(Duration::from_millis(next(2500)));
        let before = published(&daemon.status().unwrap());
        daemon.kill().unwrap();
        let running = lab.engine.as_ref().unwrap().processes().unwrap().len();
        assert!(running >= before.len(), "kill {kill}: {running} containers, {before:?} were answered");
        daemon = lab.start_daemon().unwrap();
        let settled = until(&mut daemon, &format!("{wanted} after kill {kill}"), |s| {
            let wanted = wanted as usize;
            published(s).len() == wanted && serving(s).len() == wanted && video(s).instances.len() == wanted
        });
        let stayed = before.intersection(&published(&settled)).count();
        assert!(stayed >= before.len().min(wanted as usize), "kill {kill}: {stayed} of {before:?} stayed of {wanted}");
        let addresses: BTreeSet<_> =
            video(&settled).instances.iter().flat_map(|i| i.report.instance.addresses.iter()).collect();
        assert_eq!(addresses.len(), 2 * wanted as usize, "kill {kill}: an address twice");
        let containers = lab.engine.as_ref().unwrap().processes().unwrap().len();
        assert_eq!(containers, wanted as usize, "kill {kill}: containers beside the instances");
    }
    println!("kills={kills}");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

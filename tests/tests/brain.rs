//! Decisions of the real daemon, with unikernels on Solo5's `spt`: what is observed only, paused, not counted or crashes
//! on start, and how that is told. Needs root and the unikernel (`make unikernel`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;

use control::api::{ServiceStatus, Status};
use control::model::InstanceState;
use serde_json::Value;
use tests::lab::daemon::selvedge;
use tests::lab::is_root;
use tests::summon::{PATIENCE, SummonLab};

/// Windows of a second that a service is looked at for.
const LONG: usize = 15;

fn service(name: &str, image: &str, keys: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nnames = [\"{name}.edge.test\"]\ntechnology = \"spt\"\nimage = \"{image}\"\n\
         arguments = [\"content=1000\"]\nmemory_mib = 32\nprobe_path = \"/healthz\"\nttl_s = 1\n{keys}\n"
    )
}

fn of<'s>(status: &'s Status, name: &str) -> &'s ServiceStatus {
    status.services.iter().find(|(known, _)| known.as_str() == name).map(|(_, s)| s).expect("the service")
}

fn starts(status: &Status, name: &str) -> usize {
    let to = InstanceState::Requested;
    status.transitions.iter().filter(|t| t.service.as_str() == name && t.to == to).count()
}

/// The command on the lab's socket; what it printed.
fn command(lab: &SummonLab, arguments: &[&str]) -> String {
    let socket = lab.file("selvedged.sock");
    let all = [arguments, &["--socket", socket.to_str().unwrap()]].concat();
    let (code, out, error) = selvedge(None, &all).unwrap();
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    out
}

fn records(lab: &SummonLab, name: &str) -> Vec<Value> {
    let explained: Value = serde_json::from_str(&command(lab, &["explain", name, "--json"])).unwrap();
    explained["records"].as_array().unwrap().clone()
}

/// A release whose process ends as soon as it is started is tried, then one by one and ever later, and is not multiplied;
/// beside it a service that is only observed, and one that serves and is paused, whose counters then go away.
#[test]
fn decisions_are_bounded_and_told() {
    let test = "decisions_are_bounded_and_told";
    if !is_root(test) {
        return;
    }
    let Some(mut lab) = SummonLab::create("brain", test, "", None).unwrap() else { return };
    let broken = lab.file("broken.spt");
    fs::write(&broken, "no program").unwrap();
    let services = service("broken", broken.to_str().unwrap(), "min = 2\nmax = 4")
        + &service("watched", "{image}", "min = 2\n[service.scaling]\nmode = \"observe\"")
        + &service("steady", "{image}", "min = 1");
    lab.configure(&services).unwrap();
    let mut daemon = lab.start_daemon(&[]).unwrap();
    daemon.wait_for("one that serves", PATIENCE, |s| of(s, "steady").serving == 1).unwrap();

    command(&lab, &["service", "pause", "steady", "--reason", "match day"]);
    let paused = |s: &Status| of(s, "steady").decision.starts_with("1: paused by root: match day; the plan says");
    daemon.wait_for("the pause", PATIENCE, paused).unwrap();
    let told = command(&lab, &["explain", "steady"]);
    assert!(told.starts_with("steady: 1: paused by root: match day"), "{told}");
    command(&lab, &["service", "resume", "steady"]);

    let status = daemon.wait_for("a brake", PATIENCE, |s| of(s, "broken").fitness.braked).unwrap();
    let before = of(&status, "broken").history.len();
    let later = |s: &Status| of(s, "broken").history.len() >= before + LONG;
    let status = daemon.wait_for("what comes of it", PATIENCE, later).unwrap();
    let tried = starts(&status, "broken");
    println!("the release that crashes was started {tried} times in {} windows", before + LONG);
    assert!((3..=8).contains(&tried), "started {tried} times: {:?}", status.transitions);
    let told = command(&lab, &["explain", "broken"]);
    assert!(told.starts_with("broken: 2 wanted") && told.contains("in a row never became ready"), "{told}");
    let shown = command(&lab, &["status"]);
    assert!(shown.contains("in a row never became ready"), "{shown}");
    println!("{told}");

    let watched = of(&status, "watched");
    assert!(watched.instances.is_empty() && starts(&status, "watched") == 0, "{watched:?}");
    assert!(status.transitions.iter().all(|t| t.service.as_str() != "watched"));
    let told = command(&lab, &["explain", "watched"]);
    assert!(told.starts_with("watched: observed only, 0 left as they are; the plan says: 2 wanted"), "{told}");
    let last = records(&lab, "watched").pop().unwrap();
    assert_eq!((last["outcome"].as_str(), last["planned"].as_u64()), (Some("observed_only"), Some(2)), "{last}");

    let pins = format!("/sys/fs/bpf/{}", lab.edge.name().trim_end_matches("-edge"));
    let (code, _, error) = selvedge(Some(&lab.edge), &["dataplane", "detach", "--pin-dir", &pins]).unwrap();
    assert_eq!(code, Some(0), "{error}");
    let missing = |s: &Status| of(s, "steady").history.iter().any(|w| w.observed.is_none());
    let status = daemon.wait_for("a window that was not counted", PATIENCE, missing).unwrap();
    let steady = of(&status, "steady");
    assert_eq!((steady.wanted, steady.serving), (1, 1));
    let uncounted: Vec<u32> = steady.history.iter().filter(|w| w.observed.is_none()).map(|w| w.wanted).collect();
    assert!(uncounted.iter().all(|wanted| *wanted == 1), "{uncounted:?}");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

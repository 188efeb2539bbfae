//! Instances that stop responding without ending: out of the answers, back when they answer again, replaced when they
//! do not. Needs root, `dig`, nginx and dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bollard::Docker;
use control::api::{InstanceStatus, Status};
use support::{PATIENCE, dig, lab, metrics, serving, under_load, video, wait_until};
use tests::edge::{EDGE, EdgeLab, NAME};
use tests::lab::{Namespace, is_root};
use tokio::runtime::Runtime;

/// Freezes and thaws containers: such a process is there and says nothing.
struct Freezer {
    client: Docker,
    runtime: Runtime,
}

impl Freezer {
    fn of(lab: &EdgeLab) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async { lab.engine.as_ref().unwrap().client() }).unwrap();
        Self { client, runtime }
    }

    fn freeze(&self, instance: &InstanceStatus) {
        self.runtime.block_on(self.client.pause_container(handle(instance))).unwrap();
    }

    fn thaw(&self, instance: &InstanceStatus) {
        self.runtime.block_on(self.client.unpause_container(handle(instance))).unwrap();
    }

    /// Stops it for most of a while, as one whose processor others take: it goes on for less than a probe's interval.
    fn starve(&self, instance: &InstanceStatus) {
        for _ in 0..3 {
            self.freeze(instance);
            std::thread::sleep(Duration::from_millis(400));
            self.thaw(instance);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn handle(instance: &InstanceStatus) -> &str {
    instance.report.instance.handle.as_deref().unwrap()
}

fn address(instance: &InstanceStatus) -> IpAddr {
    instance.report.instance.addresses.v4.unwrap().into()
}

/// All addresses that the name has now.
fn answers(lab: &EdgeLab) -> BTreeSet<IpAddr> {
    dig(&lab.client, &[&format!("@{}", EDGE.0), NAME, "A"]).addresses()
}

fn instance<'a>(status: &'a Status, id: &str) -> Option<&'a InstanceStatus> {
    video(status).instances.iter().find(|i| i.report.instance.id.to_string() == id)
}

const KEYS: &str = "min = 2\nmax = 2\nttl_s = 1\nprobe_interval = \"50ms\"\nprobe_timeout = \"100ms\"\nprobe_fall = 2\n\
    probe_rise = 2\nreplace_after = \"1h\"";

/// One of two falls silent, returns, and comes and goes: it is out of the answers while it is silent, the same instance
/// is back afterwards, and the more often it has left the longer it has to answer.
#[test]
fn an_instance_that_comes_and_goes_does_not_make_the_answers_do_so() {
    if !is_root("an_instance_that_comes_and_goes_does_not_make_the_answers_do_so") {
        return;
    }
    let mut lab = lab("flaps", KEYS);
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    let ids = serving(&status);
    let flapping = video(&status).instances[0].clone();
    let (id, own) = (flapping.report.instance.id.to_string(), address(&flapping));
    let freezer = Freezer::of(&lab);
    assert_eq!(answers(&lab).len(), 2);

    freezer.freeze(&flapping);
    let frozen = Instant::now();
    wait_until("its leave of the answers", || (!answers(&lab).contains(&own)).then_some(()));
    println!("out of the answers {:?} after it fell silent", frozen.elapsed());
    let status = daemon.status().unwrap();
    let silent = instance(&status, &id).unwrap();
    assert!(!silent.report.published && silent.report.unwell.as_ref().unwrap().contains("missed 2 probes"));
    freezer.thaw(&flapping);
    let thawed = Instant::now();
    wait_until("its return", || answers(&lab).contains(&own).then_some(()));
    println!("back {:?} after it answered again", thawed.elapsed());

    // Ten turns of half a second each; how often the answers change is what its clients feel.
    let generation = daemon.status().unwrap().generation;
    let mut returns = Vec::new();
    for _ in 0..10 {
        freezer.freeze(&flapping);
        std::thread::sleep(Duration::from_millis(500));
        freezer.thaw(&flapping);
        std::thread::sleep(Duration::from_millis(500));
        returns.push(answers(&lab).contains(&own));
    }
    let changes = daemon.status().unwrap().generation - generation;
    println!("{changes} changes of the answers in ten turns; in them after each: {returns:?}");
    assert!(changes < 20, "each turn changed the answers twice: {changes}");
    assert!(!returns[9], "still trusted after ten turns");
    wait_until("its return", || answers(&lab).contains(&own).then_some(()));
    assert_eq!(serving(&daemon.status().unwrap()), ids, "nothing was replaced");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// One that stays silent is replaced, and nobody is sent to it meanwhile; where all are silent they are answered still.
#[test]
fn a_silent_instance_is_replaced_and_the_last_ones_are_kept() {
    if !is_root("a_silent_instance_is_replaced_and_the_last_ones_are_kept") {
        return;
    }
    let mut lab = lab("silent", &KEYS.replace("\"1h\"", "\"2s\""));
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    let silent = video(&status).instances[0].clone();
    let (id, own) = (silent.report.instance.id.to_string(), address(&silent));
    let freezer = Freezer::of(&lab);
    freezer.freeze(&silent);
    wait_until("its leave of the answers", || (!answers(&lab).contains(&own)).then_some(()));
    let replaced = |s: &Status| serving(s).len() == 2 && instance(s, &id).is_none();
    let status = daemon.wait_for("its replacement", PATIENCE, replaced).unwrap();
    assert!(!answers(&lab).contains(&own));

    for one in &video(&status).instances {
        freezer.freeze(one);
    }
    let basis = daemon.wait_for("nobody that serves", PATIENCE, |s| video(s).basis == "last-good").unwrap();
    assert!(!answers(&lab).is_empty(), "{basis:?}");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// One of two that answers late, though in time, is named less often, and as often as the other once it is well again.
#[test]
fn a_slow_instance_is_named_less_often() {
    if !is_root("a_slow_instance_is_named_less_often") {
        return;
    }
    let mut lab = lab("slow", "min = 2\nmax = 2\nttl_s = 1\nweights = \"load\"\nprobe_interval = \"200ms\"");
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    let slow = video(&status).instances[0].clone();
    let id = slow.report.instance.id.to_string();
    let weight = |s: &Status| instance(s, &id).and_then(|i| i.report.weight);
    assert_eq!(weight(&status), Some(1.0));

    let freezer = Freezer::of(&lab);
    let status = wait_until("half the weight", || {
        freezer.starve(&slow);
        let status = daemon.status().unwrap();
        weight(&status).is_some_and(|weight| weight <= 0.5).then_some(status)
    });
    let all = &video(&status).instances;
    let told: Vec<_> = all.iter().map(|i| (i.report.weight, i.report.share, i.report.published)).collect();
    println!("weight, share, published: {told:?}");
    let share = instance(&status, &id).unwrap().report.share;
    assert!(share > 0.0 && share < 0.5, "{told:?}");
    assert!(answers(&lab).contains(&address(&slow)), "it is named still");

    // Replaced is none: the same two.
    let ids = serving(&status);
    let well = |s: &Status| weight(s) == Some(1.0) && instance(s, &id).is_some_and(|i| i.report.share == 0.5);
    let status = daemon.wait_for("its full weight and half of the answers", PATIENCE, well).unwrap();
    assert_eq!(serving(&status), ids, "nothing was replaced");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// An instance that takes more than its service's capacity says is planned with as much as it has shown, also after a
/// restart; one that then answers late under less load is planned with less.
#[test]
fn capacity_is_what_an_instance_serves_in_time() {
    if !is_root("capacity_is_what_an_instance_serves_in_time") {
        return;
    }
    let keys = "capacity = 20\nmin = 1\nmax = 1\nttl_s = 1\nprobe_interval = \"100ms\"\nprobe_fall = 100\n\
        [service.scaling]\nlatency = \"150ms\"";
    let mut lab = lab("capacity", keys);
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("an instance", PATIENCE, |s| serving(s).len() == 1).unwrap();
    let measured = |s: &Status| video(s).fitness.capacity.measured;
    let client = lab.client.name().to_owned();

    under_load(Namespace::existing(&client), vec![30; 60], || {
        let more = |s: &Status| measured(s).is_some_and(|capacity| capacity > 20.0);
        let status = daemon.wait_for("more than is configured", PATIENCE, more).unwrap();
        println!("{:?}; {}", video(&status).fitness.capacity, video(&status).decision);
    });
    daemon.terminate().unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    let kept = |s: &Status| serving(s).len() == 1 && measured(s).is_some_and(|capacity| capacity > 20.0);
    let status = daemon.wait_for("the same after a restart", PATIENCE, kept).unwrap();
    let told = "per instance as measured";
    assert!(video(&status).decision.contains(told), "{}", video(&status).decision);
    assert!(metrics(&lab.edge).contains("selvedge_capacity_requests{kind=\"measured\",service=\"video\"}"));

    let slow = video(&status).instances[0].clone();
    let freezer = Freezer::of(&lab);
    under_load(Namespace::existing(&client), vec![17; 120], || {
        let status = wait_until("less than is configured", || {
            freezer.starve(&slow);
            let status = daemon.status().unwrap();
            measured(&status).is_some_and(|capacity| capacity < 20.0).then_some(status)
        });
        let decision = &video(&status).decision;
        println!("{:?}; {decision}", video(&status).fitness.capacity);
        assert!(decision.contains(told) && decision.contains("lowered to max 1"), "{decision}");
    });
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

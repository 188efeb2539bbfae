//! The explainer beside the process that holds the dataplane: the same verdicts and replies, and no trace.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use support::{A, AAAA, PinDir, addresses, local, name, privileged, query, table};
use xdp_balancer::testing::Query;
use xdp_balancer::{Explainer, Rules, RunAction, Verdict};

#[test]
fn it_says_what_the_program_does_and_leaves_no_trace() {
    if !privileged("it_says_what_the_program_does_and_leaves_no_trace") {
        return;
    }
    let pins = PinDir::new();
    assert!(Explainer::open(&pins.0).is_err(), "nothing is pinned there");
    assert!(!pins.0.exists(), "and nothing was made");
    let mut dataplane = pins.open();
    let ring = vec![addresses(&["10.0.0.1"]), addresses(&["10.0.0.2"])];
    dataplane.publish(&table(7, vec![name("a.example.net", 3, vec![(A, ring)])])).unwrap();
    dataplane.set_rules(&Rules { costs: Some(0), sample: Some(0), ..Rules::default() }).unwrap();
    let before = dataplane.counters(16).unwrap();

    let explainer = Explainer::open(&pins.0).unwrap();
    let mut addresses = explainer.local();
    let mut wanted = local();
    addresses.sort();
    wanted.sort();
    assert_eq!(addresses, wanted);
    let asked = query(false, &Query::new("a.example.net", A));
    let explained = explainer.run(&asked).unwrap();
    assert_eq!((explained.verdict, explained.action, explained.generation), (Verdict::Answered, RunAction::Answer, 7));
    for (frame, verdict) in [
        (query(true, &Query::new("b.example.net", A)), Verdict::UnknownName),
        (query(false, &Query::new("a.example.net", AAAA)), Verdict::UnknownType),
        (vec![0; 60], Verdict::NotIp),
    ] {
        let passed = explainer.run(&frame).unwrap();
        assert_eq!((passed.verdict, passed.action, &passed.frame), (verdict, RunAction::Pass, &frame));
    }
    assert_eq!(dataplane.counters(16).unwrap(), before, "nothing is counted");
    let (costs, top) = (dataplane.costs().unwrap(), dataplane.top(1).unwrap());
    assert!(costs.sum_ns == 0 && top.names.is_empty(), "nor measured or noted");
    let real = dataplane.run(&asked).unwrap();
    assert_eq!(real.frame, explained.frame, "and no turn is used up");
    // What is published later is seen at once.
    dataplane.publish(&table(8, vec![])).unwrap();
    let gone = explainer.run(&asked).unwrap();
    assert_eq!((gone.verdict, gone.generation), (Verdict::UnknownName, 8));
}

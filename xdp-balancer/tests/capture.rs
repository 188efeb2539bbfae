//! Captured queries, through the programs in the kernel (`PROG_TEST_RUN`): what is told of them, which are told, and that
//! nothing else changes by it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::time::Duration;

use support::{A, AAAA, PinDir, addresses, frame, ip, name, pinned, privileged, query, stay_on_one_cpu, table};
use xdp_balancer::testing::hands::delete_element;
use xdp_balancer::testing::{Query, wire};
use xdp_balancer::{
    Capture, CaptureRules, CaptureTotals, CapturedQuery, Dataplane, Error, Explainer, RunAction, Verdict,
};
use xdp_balancer_common::object;

const ALL: CaptureRules = CaptureRules { one_in: 1, rate: 1_000_000, client: None, name: None, verdicts: Vec::new() };

fn open(pins: &PinDir) -> Dataplane {
    stay_on_one_cpu();
    let mut plane = pins.open();
    let ring = || vec![addresses(&["10.0.0.1"]), addresses(&["10.0.0.2"])];
    let names =
        vec![name("video.edge.example", 1, vec![(A, ring())]), name("xvideo.edge.example", 2, vec![(A, ring())])];
    plane.publish(&table(1, names)).unwrap();
    plane
}

fn all(capture: &mut Capture) -> Vec<CapturedQuery> {
    std::iter::from_fn(|| capture.next_query()).collect()
}

#[test]
fn a_query_is_told_as_it_came_in_and_as_it_was_answered() {
    if !privileged("a_query_is_told_as_it_came_in_and_as_it_was_answered") {
        return;
    }
    let pins = PinDir::new();
    let plane = open(&pins);
    let frames = [
        (query(false, &Query::new("ViDeo.edge.example", A)), Verdict::Answered),
        (query(true, &Query::new("video.edge.example", A)), Verdict::Answered),
        (query(false, &Query::new("video.edge.example", AAAA)), Verdict::UnknownType),
        (query(true, &Query::new("other.example", A)), Verdict::UnknownName),
        // Found out before the question is looked at.
        (frame(false).payload([0, 1, 0x78, 0, 0, 1, 0, 0, 0, 0, 0, 0]).build(), Verdict::OddHeader),
        (frame(false).payload([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).build(), Verdict::ShortFrame),
    ];
    let without: Vec<_> = frames.iter().map(|(frame, _)| plane.run(frame).unwrap()).collect();
    // The ring has two turns, and two queries asked for it.
    let before = plane.counters(16).unwrap();
    let mut capture = Capture::start(&pins.0, &ALL).unwrap();
    for ((frame, verdict), without) in frames.iter().zip(&without) {
        let run = plane.run(frame).unwrap();
        assert_eq!((run.action, &run.frame), (without.action, &without.frame), "{verdict:?}: the same as without");
        let told = all(&mut capture);
        let [told] = told.as_slice() else { panic!("{verdict:?}: {told:?}") };
        assert_eq!(told.verdict, *verdict);
        assert_eq!((&told.query.bytes, told.query.len as usize), (frame, frame.len()));
        match (&told.answer, run.action) {
            (Some(answer), RunAction::Answer) => {
                assert_eq!((&answer.bytes, answer.len as usize), (&run.frame, run.frame.len()));
                assert!(answer.at >= told.query.at);
            }
            (None, RunAction::Pass) => {}
            other => panic!("{verdict:?}: {other:?}"),
        }
    }
    let after = plane.counters(16).unwrap();
    for (_, verdict) in &frames {
        let times = frames.iter().filter(|(_, other)| other == verdict).count() as u64;
        assert_eq!(after.verdict(*verdict), before.verdict(*verdict) + times, "{verdict:?}: counted once");
    }
    assert_eq!(after.services[1].queries, before.services[1].queries + 3);
    // What is no query to port 53 is not looked at.
    plane.run(&[0; 60]).unwrap();
    assert_eq!(all(&mut capture), []);
    assert_eq!(capture.totals().unwrap(), CaptureTotals { told: 6, over_rate: 0, lost: 0 });
    // Whoever asks what would be done is told the same, and leaves no trace.
    let explained = Explainer::open(&pins.0).unwrap().run(&frames[0].0).unwrap();
    assert_eq!((explained.verdict, explained.action), (Verdict::Answered, RunAction::Answer));
    assert_eq!(all(&mut capture), []);

    assert!(matches!(Capture::start(&pins.0, &ALL), Err(Error::Capturing { .. })), "one at a time");
    drop(capture);
    assert_eq!(plane.run(&frames[0].0).unwrap().frame, without[0].frame);
    assert_eq!(plane.counters(16).unwrap().verdict(Verdict::Broken), before.verdict(Verdict::Broken));
}

#[test]
fn only_what_is_asked_for_is_told() {
    if !privileged("only_what_is_asked_for_is_told") {
        return;
    }
    let pins = PinDir::new();
    let plane = open(&pins);
    let run = |rules: &CaptureRules| {
        let mut capture = Capture::start(&pins.0, rules).unwrap();
        for asked in ["video.edge.example", "a.b.VIDEO.edge.example", "xvideo.edge.example", "other.example"] {
            for v6 in [false, true] {
                plane.run(&query(v6, &Query::new(asked, A))).unwrap();
            }
        }
        plane.run(&frame(false).payload([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).build()).unwrap();
        all(&mut capture)
    };
    let verdicts = |found: &[CapturedQuery]| found.iter().map(|query| query.verdict).collect::<Vec<_>>();
    use Verdict::{Answered, UnknownName, UnknownType};
    let named = |name: &str| run(&CaptureRules { name: Some(wire(name)), ..ALL });
    assert_eq!(run(&ALL).len(), 9);
    assert_eq!(verdicts(&named("Video.Edge.Example")), [Answered, Answered, UnknownType, UnknownType]);
    assert_eq!(named("edge.example").len(), 6);
    assert_eq!(named("dge.example").len(), 0);
    assert_eq!(named(".").len(), 8, "any name, but there has to be one");
    let of = |address: &str, len| run(&CaptureRules { client: Some((ip(address), len)), ..ALL });
    assert_eq!(of("192.0.2.0", 24).len(), 5);
    assert_eq!(of("2001:db8::1", 128).len(), 4);
    assert_eq!(of("192.0.3.0", 24).len(), 0);
    let odd = run(&CaptureRules { verdicts: vec![UnknownName], ..ALL });
    assert_eq!(verdicts(&odd), [UnknownName, UnknownName]);
}

#[test]
fn no_more_are_told_than_the_rate_and_as_many_as_the_sample() {
    if !privileged("no_more_are_told_than_the_rate_and_as_many_as_the_sample") {
        return;
    }
    let pins = PinDir::new();
    let plane = open(&pins);
    let ask = |count: u16| {
        for id in 0..count {
            let mut query = Query::new("video.edge.example", A).build();
            query[..2].copy_from_slice(&id.to_be_bytes());
            plane.run(&frame(false).payload(query).build()).unwrap();
        }
    };
    let mut capture = Capture::start(&pins.0, &CaptureRules { rate: 1, ..ALL }).unwrap();
    ask(200);
    let totals = capture.totals().unwrap();
    assert_eq!(totals.told + totals.over_rate, 200);
    // One, and one more each second that this took.
    assert!((1..20).contains(&totals.told), "{totals:?}");
    assert_eq!(all(&mut capture).len() as u64, totals.told);
    drop(capture);

    let capture = Capture::start(&pins.0, &CaptureRules { one_in: 10, ..ALL }).unwrap();
    ask(5000);
    let told = capture.totals().unwrap().told;
    assert!((250..1000).contains(&told), "{told} of 5000, one in ten");
}

#[test]
fn who_is_gone_without_a_word_captures_no_more() {
    if !privileged("who_is_gone_without_a_word_captures_no_more") {
        return;
    }
    let pins = PinDir::new();
    let mut plane = open(&pins);
    let asked = query(false, &Query::new("video.edge.example", A));
    let mut capture = Capture::start(&pins.0, &ALL).unwrap();
    capture.set_beat_age(Duration::from_secs(6));
    assert!(capture.is_on());
    // By the program, with the query that finds it out, which is answered all the same.
    assert_eq!(plane.run(&asked).unwrap().action, RunAction::Answer);
    assert!(!capture.is_on());
    assert_eq!(all(&mut capture), []);
    drop(capture);
    // By the daemon, if nobody asks.
    let capture = Capture::start(&pins.0, &ALL).unwrap();
    capture.set_beat_age(Duration::from_secs(6));
    plane.glance().unwrap();
    assert!(capture.is_on(), "who is only late is not cut off");
    capture.set_beat_age(Duration::from_secs(11));
    assert!(plane.glance().unwrap().is_empty());
    assert!(!capture.is_on());
    assert_eq!(plane.run(&asked).unwrap().action, RunAction::Answer);
    drop(capture);
    // With the slot emptied by others queries pass, and that is counted.
    let capture = Capture::start(&pins.0, &ALL).unwrap();
    delete_element(&pinned(&pins, object::TAILS), object::TAIL_CAPTURE).unwrap();
    assert_eq!(plane.run(&asked).unwrap().action, RunAction::Pass);
    assert_eq!(plane.counters(16).unwrap().verdict(Verdict::Broken), 1);
    drop(capture);
    assert_eq!(plane.run(&asked).unwrap().action, RunAction::Answer);
}

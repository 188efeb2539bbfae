//! Limits, lists and stale tables in the kernel (`PROG_TEST_RUN`): each of their verdicts, what goes out with it, and
//! who is exempt.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use support::zone::{SECRET, TIME};
use support::{A, AAAA, GUARDED, PinDir, addresses, ip, name, privileged, query, stay_on_one_cpu, table};
use xdp_balancer::testing::{Datagram, FrameBuilder, Query, wire};
use xdp_balancer::{Dataplane, Limits, Rendered, Ring, Rules, RunAction, RunResult, Stale, Table, Verdict};
use xdp_balancer_common::server_cookie;

const NAME: &str = "www.example.net";

fn tables() -> Table {
    let many: Vec<String> = (1..=20).map(|i| format!("10.0.1.{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut names = vec![
        name(NAME, 0, vec![(A, vec![addresses(&["10.0.0.1", "10.0.0.2"])]), (AAAA, vec![addresses(&["fd00::1"])])]),
        name("odd.example.net", 1, vec![(A, vec![addresses(&["10.0.0.3"])])]),
        name("many.example.net", 1, vec![(A, vec![addresses(&many)])]),
    ];
    // An owner that stands in full, as in a negative answer.
    let owner = wire("example.net");
    let soa = [&owner[..], &[0, 6, 0, 1, 0, 0, 0x0e, 0x10, 0, 22, 0, 0], &[0; 20]].concat();
    names[0].others =
        Some(Arc::new(Ring::single(Rendered { flags: 0x0400, nscount: 1, bytes: soa, ..Rendered::default() })));
    Table { cookies: Some(SECRET), ..table(1, names) }
}

fn asks(client: &str, query: &Query) -> Vec<u8> {
    let client = SocketAddr::new(ip(client), 40000);
    let server = if client.is_ipv4() { "192.0.2.53" } else { "2001:db8::53" };
    FrameBuilder::new(client, SocketAddr::new(ip(server), 53)).payload(query.build()).build()
}

/// The verdict of one frame.
fn run(dataplane: &Dataplane, frame: &[u8]) -> (Verdict, RunResult) {
    let before = dataplane.counters(0).unwrap().verdicts;
    let result = dataplane.run(frame).unwrap();
    let after = dataplane.counters(0).unwrap().verdicts;
    let changed: Vec<_> = (0..after.len()).filter(|i| after[*i] != before[*i]).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(after[changed[0]] - before[changed[0]], 1);
    (Verdict::ALL[changed[0]], result)
}

fn message(result: &RunResult) -> Message {
    assert_eq!(result.action, RunAction::Answer);
    Message::from_vec(&Datagram::parse(&result.frame).unwrap().payload).unwrap()
}

fn open(pins: &PinDir, rules: &Rules) -> Dataplane {
    let mut dataplane = pins.open();
    dataplane.publish(&tables()).unwrap();
    dataplane.set_time(TIME);
    dataplane.beat();
    dataplane.set_rules(rules).unwrap();
    dataplane
}

/// A query with a cookie that this server gave.
fn with_cookie(client: &str, name: &str) -> Query {
    let mine = u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]);
    let octets = match ip(client) {
        std::net::IpAddr::V4(v4) => [&v4.octets()[..], &[0; 12]].concat(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let word = |at: usize| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap());
    let server = server_cookie(SECRET, mine, TIME - 60, [word(0), word(8)], ip(client).is_ipv4());
    let words = [mine, server[0], server[1]].map(u64::to_ne_bytes).concat();
    Query::new(name, A).opt(1232, false, &[&[0, 10, 0, 24][..], &words].concat())
}

#[test]
fn each_rule_has_its_verdict() {
    if !privileged("each_rule_has_its_verdict") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let mut dataplane = open(&pins, &Rules::default());
    let asked = asks("198.51.100.7", &Query::new(NAME, A));
    let limits = |client, total, slip| Limits { client, total, slip, ..Limits::default() };
    let after = Duration::from_secs(30);
    let deny = vec![(ip("198.51.100.0"), 24), (ip("2001:db8:bad::"), 48)];
    let mut seen = BTreeSet::new();
    let mut check = |rules: Rules, frame: &[u8], wanted: Verdict| {
        dataplane.set_rules(&rules).unwrap();
        dataplane.set_heartbeat_age(Duration::from_secs(60));
        // The burst of one.
        if rules.limits.client + rules.limits.total != 0 {
            dataplane.run(frame).unwrap();
        }
        let (verdict, result) = run(&dataplane, frame);
        assert_eq!(verdict, wanted);
        seen.insert(verdict.label());
        if wanted == Verdict::Stale {
            assert_eq!((result.action, &result.frame[..]), (RunAction::Pass, frame));
        } else if matches!(wanted, Verdict::Denied | Verdict::Limited | Verdict::Ceiling) {
            assert_eq!(result.action, RunAction::Drop);
        }
        result
    };
    let of_limits = |limits| Rules { limits, ..Rules::default() };
    check(of_limits(limits(1, 0, 0)), &asked, Verdict::Limited);
    check(of_limits(limits(0, 1, 0)), &asks("203.0.113.1", &Query::new(NAME, A)), Verdict::Ceiling);
    for client in ["203.0.114.1", "2001:db8:7::1"] {
        let slipped =
            message(&check(of_limits(limits(1, 0, 1)), &asks(client, &Query::new(NAME, A)), Verdict::Slipped));
        assert!(slipped.metadata.truncation && slipped.answers.is_empty() && slipped.queries.len() == 1);
    }
    let amplification = of_limits(Limits { amplification: 3, ..Limits::default() });
    let large = asks("198.51.100.7", &Query::new("many.example.net", A));
    let cut = message(&check(amplification, &large, Verdict::Unproven));
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    check(Rules { deny: deny.clone(), ..Rules::default() }, &asked, Verdict::Denied);
    let v6 = asks("2001:db8:bad:1::1", &Query::new(NAME, AAAA));
    check(Rules { deny: deny.clone(), ..Rules::default() }, &v6, Verdict::Denied);
    for frame in [&asked, &v6] {
        let refused =
            check(Rules { deny: deny.clone(), deny_refuses: true, ..Rules::default() }, frame, Verdict::Refused);
        assert_eq!(message(&refused).metadata.response_code, ResponseCode::Refused);
    }
    check(Rules { stale: Stale::Pass { after }, ..Rules::default() }, &asked, Verdict::Stale);
    for qtype in [A, AAAA, 16] {
        for v6 in [false, true] {
            for q in [Query::new(NAME, qtype), Query::new(NAME, qtype).opt(1232, true, &[])] {
                let rules = Rules { stale: Stale::Shorten { after, ttl: 7 }, ..Rules::default() };
                let aged = message(&check(rules, &query(v6, &q), Verdict::Aged));
                let records: Vec<_> = aged.answers.iter().chain(&aged.authorities).collect();
                assert!(!records.is_empty() && records.iter().all(|record| record.ttl == 7), "{records:?}");
            }
        }
    }
    let wanted: BTreeSet<_> = GUARDED.iter().map(|verdict| verdict.label()).collect();
    assert_eq!(seen, wanted);
    // Off again: answered as before, and none of it is left.
    dataplane.set_rules(&Rules::default()).unwrap();
    assert_eq!(run(&dataplane, &asked).0, Verdict::Answered);
}

#[test]
fn a_prefix_has_its_rate_and_every_nth_answer_over_it_slips() {
    if !privileged("a_prefix_has_its_rate_and_every_nth_answer_over_it_slips") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let limits = Limits { client: 20, slip: 4, ..Limits::default() };
    let dataplane = open(&pins, &Rules { limits, ..Rules::default() });
    for (first, second, other) in
        [("198.51.100.1", "198.51.100.254", "198.51.101.1"), ("2001:db8:1::1", "2001:db8:1:ff::1", "2001:db8:1:100::1")]
    {
        let before = dataplane.counters(1).unwrap();
        let begun = Instant::now();
        for i in 0..100 {
            dataplane.run(&asks([first, second][i % 2], &Query::new(NAME, A))).unwrap();
        }
        // The burst, and what has come in since, a tick more or less.
        let more = (begun.elapsed().as_secs_f64() * 20.0) as u64 + 2;
        let after = dataplane.counters(1).unwrap();
        let of = |verdict| after.verdict(verdict) - before.verdict(verdict);
        let (answered, slipped, limited) = (of(Verdict::Answered), of(Verdict::Slipped), of(Verdict::Limited));
        assert!((20..=20 + more).contains(&answered), "{answered}");
        assert_eq!(answered + slipped + limited, 100);
        assert!(slipped.abs_diff((slipped + limited) / 4) <= 1, "{slipped} of {limited}");
        let (was, is) = (before.services[0], after.services[0]);
        assert_eq!((is.queries - was.queries, is.limited - was.limited), (100, limited));
        assert_eq!(is.queries_v6 - was.queries_v6, if first.contains(':') { 100 } else { 0 });
        assert_eq!(is.answered() - was.answered(), answered + slipped);
        assert_eq!(run(&dataplane, &asks(other, &Query::new(NAME, A))).0, Verdict::Answered, "another prefix");
    }
}

#[test]
fn listed_clients_and_those_with_a_cookie_are_exempt() {
    if !privileged("listed_clients_and_those_with_a_cookie_are_exempt") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let limits = Limits { client: 1, slip: 0, amplification: 2, ..Limits::default() };
    let rules = Rules { limits, allow: vec![(ip("198.51.100.128"), 25)], ..Rules::default() };
    let mut dataplane = open(&pins, &rules);
    for _ in 0..5 {
        assert_eq!(run(&dataplane, &asks("198.51.100.200", &Query::new("many.example.net", A))).0, Verdict::Answered);
        for client in ["203.0.113.1", "2001:db8:2::1"] {
            let frame = asks(client, &with_cookie(client, "many.example.net"));
            assert_eq!(run(&dataplane, &frame).0, Verdict::Answered, "{client}");
        }
    }
    // Another's cookie, a changed one, an old one: as good as none.
    for change in 0..3 {
        let client = format!("203.0.{change}.1");
        let mut query = with_cookie(if change == 0 { "192.0.2.9" } else { &client }, "many.example.net");
        if change == 1 {
            *query.rest.last_mut().unwrap() ^= 1;
        }
        dataplane.set_time(if change == 2 { TIME + 4000 } else { TIME });
        assert_eq!(run(&dataplane, &asks(&client, &query)).0, Verdict::Unproven, "{change}");
    }
    dataplane.set_rules(&Rules { allow: vec![], ..rules }).unwrap();
    let frame = asks("198.51.100.200", &Query::new(NAME, A));
    let verdicts = [run(&dataplane, &frame).0, run(&dataplane, &frame).0];
    assert_eq!(verdicts[1], Verdict::Limited, "the list was emptied: {verdicts:?}");
}

#[test]
fn a_heartbeat_keeps_tables_fresh() {
    if !privileged("a_heartbeat_keeps_tables_fresh") {
        return;
    }
    let pins = PinDir::new();
    let after = Duration::from_secs(3600);
    let mut dataplane = open(&pins, &Rules { stale: Stale::Pass { after }, ..Rules::default() });
    let asked = asks("198.51.100.7", &Query::new(NAME, A));
    for (age, wanted) in [(0, Verdict::Answered), (3000, Verdict::Answered), (3700, Verdict::Stale)] {
        dataplane.set_heartbeat_age(Duration::from_secs(age));
        assert_eq!(run(&dataplane, &asked).0, wanted, "{age}");
        let freshness = dataplane.freshness();
        assert_eq!(freshness.stale, wanted == Verdict::Stale);
        assert!(freshness.heartbeat_age.unwrap() >= Duration::from_secs(age));
    }
    dataplane.set_rules(&Rules::default()).unwrap();
    assert_eq!(run(&dataplane, &asked).0, Verdict::Answered, "kept by default");
    assert!(!dataplane.freshness().stale);
}

#[test]
fn who_asks_most_is_known() {
    if !privileged("who_asks_most_is_known") {
        return;
    }
    let pins = PinDir::new();
    let dataplane = open(&pins, &Rules { sample: Some(0), ..Rules::default() });
    for (client, name, times) in [
        ("198.51.100.7", "WWW.example.net", 5),
        ("198.51.100.8", "www.example.net", 4),
        ("2001:db8:3::1", "nothing.example.org", 7),
    ] {
        (0..times).for_each(|_| drop(dataplane.run(&asks(client, &Query::new(name, A))).unwrap()));
    }
    let top = dataplane.top(10).unwrap();
    assert_eq!(top.clients, [(ip("198.51.100.0"), 9), (ip("2001:db8:3::"), 7)]);
    assert_eq!(top.names, [(wire("www.example.net"), 9), (wire("nothing.example.org"), 7)]);
    assert_eq!((top.one_in, dataplane.top(1).unwrap().names.len()), (1, 1));
}

#[test]
fn what_queries_cost_is_measured_where_that_is_on() {
    if !privileged("what_queries_cost_is_measured_where_that_is_on") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let mut dataplane = open(&pins, &Rules::default());
    let answered = asks("198.51.100.7", &Query::new(NAME, A));
    let passed = asks("2001:db8:3::1", &Query::new("nothing.example.org", A));
    let other = FrameBuilder::new(SocketAddr::new(ip("198.51.100.7"), 40000), SocketAddr::new(ip("192.0.2.53"), 54));
    let other = other.payload(Query::new(NAME, A).build()).build();
    let frames = [(&answered, Verdict::Answered), (&passed, Verdict::UnknownName), (&other, Verdict::NotDns)];
    let all = |dataplane: &Dataplane| {
        for (frame, verdict) in frames {
            assert_eq!(run(dataplane, frame).0, verdict);
        }
    };
    all(&dataplane);
    let costs = dataplane.costs().unwrap();
    assert_eq!((costs.one_in, costs.sum_ns, costs.buckets.iter().sum::<u64>()), (0, 0, 0), "off by default");

    // Queries alone, whoever answers them; beside other rules too.
    dataplane.set_rules(&Rules { costs: Some(0), ..Rules::default() }).unwrap();
    (0..10).for_each(|_| all(&dataplane));
    let deny = vec![(ip("203.0.113.0"), 24)];
    dataplane.set_rules(&Rules { costs: Some(0), deny, sample: Some(0), ..Rules::default() }).unwrap();
    assert_eq!(run(&dataplane, &asks("203.0.113.1", &Query::new(NAME, A))).0, Verdict::Denied);
    let costs = dataplane.costs().unwrap();
    assert_eq!((costs.one_in, costs.buckets.iter().sum::<u64>()), (1, 21));
    // Each bucket's queries took at least half of its bound.
    let least: u64 = (1..).zip(&costs.buckets[1..]).map(|(bits, count)| count << (bits - 1)).sum();
    assert!(costs.sum_ns >= least && costs.sum_ns < 2 * least && costs.buckets[0] == 0, "{costs:?}");

    // One in so many; and off again, with what was measured kept.
    dataplane.set_rules(&Rules { costs: Some(2), ..Rules::default() }).unwrap();
    (0..4000).for_each(|_| drop(dataplane.run(&answered).unwrap()));
    let some = dataplane.costs().unwrap();
    let measured = some.buckets.iter().sum::<u64>() - 21;
    assert!(some.one_in == 4 && (800..1200).contains(&measured), "{measured} of 4000");
    dataplane.set_rules(&Rules::default()).unwrap();
    all(&dataplane);
    assert_eq!(dataplane.costs().unwrap().buckets, some.buckets);
    drop(dataplane);
    assert_eq!(pins.open().costs().unwrap().buckets, some.buckets, "and over a restart");
}

#[test]
fn maps_that_the_program_fills_say_how_full_they_are() {
    if !privileged("maps_that_the_program_fills_say_how_full_they_are") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let limits = Limits { client: 1, ..Limits::default() };
    let deny = vec![(ip("203.0.113.0"), 24)];
    let mut dataplane = open(&pins, &Rules { limits, deny, sample: Some(0), ..Rules::default() });
    let of = |dataplane: &Dataplane, map: &str| {
        let all = dataplane.fill().unwrap();
        let fill = all.iter().find(|fill| fill.map == map).unwrap();
        (fill.used, fill.capacity)
    };
    let used = |dataplane: &Dataplane| ["LISTS", "BUCKETS", "TOP_CLIENTS", "TOP_NAMES"].map(|map| of(dataplane, map).0);
    assert_eq!(used(&dataplane), [1, 0, 0, 0]);
    for client in ["198.51.100.7", "192.0.2.1"] {
        run(&dataplane, &asks(client, &Query::new(NAME, A)));
    }
    // Two buckets, each for a second.
    let [lists, buckets, clients, names] = used(&dataplane);
    assert!((lists, clients, names) == (1, 2, 1) && buckets <= 2, "{buckets} buckets");
    dataplane.fill_buckets(Duration::from_secs(3600)).unwrap();
    let (taken, capacity) = of(&dataplane, "BUCKETS");
    assert_eq!(taken, capacity);
    dataplane.set_rules(&Rules::default()).unwrap();
    assert_eq!(used(&dataplane), [0; 4], "nothing is looked at");
}

//! Who is named at which turn, and what is said while nobody serves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use xdp_balancer_common::{ANSWER_BYTES, CLIENT_TURNS, client_turn_v4, client_turn_v6};

use super::*;

const NAME: &str = "video.edge.test.";

/// A service with backends of these weights, from number 1 on.
fn weighted(choice: Choice, weights: &[u16]) -> PublishedService {
    let backends = (1..).zip(weights).map(|(number, weight)| backend(number, *weight));
    PublishedService { choice, ..service(0, NAME, backends.collect()) }
}

fn rrset(service: &PublishedService, qtype: u16) -> RenderedRrset {
    rrsets(service).unwrap().into_iter().find(|rrset| rrset.qtype == qtype).unwrap()
}

/// Last byte of each address of an answer: the numbers of the backends.
fn numbers(answer: &RenderedAnswer) -> Vec<u8> {
    let length = answer.bytes.len() / usize::from(answer.ancount);
    answer.bytes.chunks_exact(length).map(|record| record[length - 1]).collect()
}

fn ask(basis: Basis, addresses: &[&str], kind: RecordType) -> (Response, Message) {
    let addresses = addresses.iter().map(|a| a.parse::<IpAddr>().unwrap()).collect();
    let published = PublishedService { basis, addresses, ..service(0, NAME, vec![]) };
    let index = Index::new(&snapshot(vec![published])).unwrap();
    let response = respond(&bytes(&query(NAME, kind)), &index, Transport::Udp, Pick::Next);
    let message = Message::from_vec(response.bytes.as_ref().unwrap()).unwrap();
    (response, message)
}

fn texts(message: &Message) -> Vec<String> {
    let text = |data: &RData| match data {
        RData::A(address) => address.0.to_string(),
        RData::AAAA(address) => address.0.to_string(),
        other => panic!("{other}"),
    };
    message.answers.iter().map(|record| text(&record.data)).collect()
}

#[test]
fn shares_are_exact_over_100_000_turns() {
    for weights in [&[1, 1, 1][..], &[5, 3, 2], &[1, 9], &[7, 1, 1, 1, 1]] {
        let index = Index::new(&snapshot(vec![weighted(Choice::RoundRobin, weights)])).unwrap();
        let query = bytes(&query(NAME, RecordType::A));
        let (mut met, runs) = (BTreeMap::new(), 100_000);
        for _ in 0..runs {
            let reply = respond(&query, &index, Transport::Udp, Pick::Next).bytes.unwrap();
            // The first record begins behind the question: its address is the last of 16 bytes.
            *met.entry(reply[query.len() + 15]).or_insert(0) += 1;
        }
        let sum: u16 = weights.iter().sum();
        for (number, weight) in (1..).zip(weights) {
            let share = f64::from(met[&number]) / f64::from(runs);
            let wanted = f64::from(*weight) / f64::from(sum);
            assert!((share - wanted).abs() < 1e-4, "{weights:?}: {number} has {share}");
        }
    }
}

#[test]
fn shares_of_100_000_clients_are_near_their_weights() {
    for weights in [&[1, 1][..], &[5, 3, 2], &[1, 1, 1, 1]] {
        let published = weighted(Choice::Client, weights);
        let (a, aaaa) = (rrset(&published, TYPE_A), rrset(&published, TYPE_AAAA));
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for client in 0..100_000_u32 {
            let turn = client_turn_v4((client << 8).to_be());
            *v4.entry(numbers(a.at(turn.into()))[0]).or_insert(0) += 1;
            let turn = client_turn_v6((0x2001_0db8_0000_0000 | u64::from(client) << 8).to_be());
            *v6.entry(numbers(aaaa.at(turn.into()))[0]).or_insert(0) += 1;
        }
        let sum: u16 = weights.iter().sum();
        for (number, weight) in (1..).zip(weights) {
            let wanted = f64::from(*weight) / f64::from(sum);
            for met in [&v4, &v6] {
                let share = f64::from(met[&number]) / 1e5;
                assert!((share - wanted).abs() < 0.01, "{weights:?}: {number} has {share}");
            }
        }
    }
}

#[test]
fn a_client_keeps_its_instance_in_both_families_and_is_told_its_next() {
    let three = weighted(Choice::Client, &[1, 1, 1]);
    let (a, aaaa) = (rrset(&three, TYPE_A), rrset(&three, TYPE_AAAA));
    assert!(a.by_client && aaaa.by_client);
    assert_eq!((a.turns.len(), a.answers.len()), (usize::from(CLIENT_TURNS), 6));
    let without = PublishedService { backends: vec![backend(1, 1), backend(2, 1)], ..three };
    let after = rrset(&without, TYPE_A);
    let (mut followed, mut of_third) = (0, 0);
    for turn in 0..usize::from(CLIENT_TURNS) {
        let before = numbers(a.at(turn));
        assert_eq!((before.len(), &before), (2, &numbers(aaaa.at(turn))));
        if before[0] == 3 {
            of_third += 1;
            followed += usize::from(numbers(after.at(turn))[0] == before[1]);
        }
    }
    assert!(of_third > 300 && followed * 10 > of_third * 8, "{followed} of {of_third}");
}

#[test]
fn round_robin_holds_each_variant_once() {
    let rrset = rrset(&weighted(Choice::RoundRobin, &[4, 1]), TYPE_A);
    assert!(!rrset.by_client);
    assert_eq!((rrset.turns.len(), rrset.answers.len()), (5, 2));
    let firsts: Vec<u8> = (0..5).map(|turn| numbers(rrset.at(turn))[0]).collect();
    assert_eq!(firsts.iter().filter(|first| **first == 2).count(), 1);
}

#[test]
fn as_many_addresses_as_are_wanted_and_fit() {
    let many = PublishedService { answers: 64, ..weighted(Choice::RoundRobin, &[1; 80]) };
    for (qtype, record) in [(TYPE_A, 16), (TYPE_AAAA, 28)] {
        let rrset = rrset(&many, qtype);
        let most = 64.min(ANSWER_BYTES / record);
        assert!(rrset.answers.iter().all(|answer| usize::from(answer.ancount) == most));
        assert_eq!(rrset.answers[0].bytes.len(), most * record);
    }
}

#[test]
fn addresses_elsewhere_are_given_by_family() {
    for basis in [Basis::Fallback { group: 1 }, Basis::Sorry] {
        let addresses = ["192.0.2.7", "2001:db8::7", "192.0.2.8"];
        let (response, message) = ask(basis, &addresses, RecordType::A);
        assert_eq!((response.outcome, response.service), (Outcome::Answered, Some(0)));
        let mut told = texts(&message);
        told.sort_unstable();
        assert_eq!(told, ["192.0.2.7", "192.0.2.8"]);
        assert!(message.metadata.authoritative);
        assert_eq!(texts(&ask(basis, &addresses, RecordType::AAAA).1), ["2001:db8::7"]);
        let (response, message) = ask(basis, &addresses[..1], RecordType::AAAA);
        assert_eq!((response.outcome, message.authorities.len()), (Outcome::NoData, 1));
    }
}

#[test]
fn addresses_elsewhere_are_chosen_by_client_too() {
    let addresses = ["192.0.2.7", "192.0.2.8"].map(|a| a.parse().unwrap()).to_vec();
    let fallback = PublishedService {
        choice: Choice::Client,
        basis: Basis::Fallback { group: 1 },
        addresses,
        ..service(0, NAME, vec![])
    };
    let rrset = rrset(&fallback, TYPE_A);
    assert!(rrset.by_client && rrset.turns.len() == usize::from(CLIENT_TURNS) && rrset.answers.len() == 2);
}

#[test]
fn servfail_has_no_records_and_no_authority() {
    for kind in [RecordType::A, RecordType::AAAA, RecordType::ANY] {
        let (response, message) = ask(Basis::ServFail, &[], kind);
        assert_eq!((response.outcome, response.service), (Outcome::ServFail, Some(0)));
        assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
        assert!(!message.metadata.authoritative);
        assert_eq!((message.answers.len(), message.authorities.len()), (0, 0));
    }
    // Of other types there are none, whoever serves.
    assert_eq!(ask(Basis::ServFail, &[], RecordType::TXT).0.outcome, Outcome::NoData);
}

#[test]
fn no_records_are_remembered_for_a_short_time_only() {
    for (basis, outcome) in
        [(Basis::NoData, Outcome::NoData), (Basis::Pass, Outcome::NoBackend), (Basis::Nothing, Outcome::NoBackend)]
    {
        for kind in [RecordType::A, RecordType::AAAA] {
            let (response, message) = ask(basis, &[], kind);
            assert_eq!(response.outcome, outcome);
            assert_eq!(message.metadata.response_code, ResponseCode::NoError);
            assert!(message.metadata.authoritative && message.answers.is_empty());
            assert_eq!(message.authorities[0].ttl, 5);
        }
    }
}

//! EDNS options: cookies and client subnets.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{RData, Record};
use proptest::prelude::*;
use xdp_balancer_common::{CLIENT_TURNS, CookieSecret};

use super::*;

const SECRET: CookieSecret = [0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210];
const NOW: u32 = 1_800_000_000;
const V4: &str = "192.0.2.1";
const V6: &str = "2001:db8::1";

fn policy() -> Policy {
    Policy {
        cookies: Some(SECRET),
        client_subnet_from: vec!["192.0.2.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..Policy::default()
    }
}

/// A reply, and its OPT's options.
struct Reply {
    outcome: Outcome,
    message: Message,
    options: Vec<(u16, Vec<u8>)>,
}

struct Client {
    transport: Transport,
    address: IpAddr,
    time: u32,
    policy: Policy,
}

impl Default for Client {
    fn default() -> Self {
        Self { transport: Transport::Udp, address: V4.parse().unwrap(), time: NOW, policy: policy() }
    }
}

impl Client {
    fn ask(&self, index: &Index, query: &[u8]) -> Reply {
        let Self { transport, address, time, policy } = self;
        let context = Context { transport: *transport, client: *address, time: *time, policy };
        let response = super::super::respond(query, index, &context, Pick::Next);
        let message = Message::from_vec(&response.bytes.expect("a reply")).expect("a reply that parses");
        let all = message.edns.iter().flat_map(|edns| edns.options().as_ref().iter());
        let options = all.map(|(code, option)| ((*code).into(), Vec::<u8>::try_from(option).unwrap())).collect();
        Reply { outcome: response.outcome, message, options }
    }
}

fn with_options(message: Message, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = with_edns(message, 1232);
    for (code, data) in options {
        let option = EdnsOption::Unknown(*code, data.to_vec());
        message.edns.as_mut().unwrap().options_mut().options.push((EdnsCode::from(*code), option));
    }
    bytes(&message)
}

fn video(options: &[(u16, &[u8])]) -> Vec<u8> {
    with_options(query("video.edge.test.", RecordType::A), options)
}

/// A query for a cookie alone.
fn cookie_alone(options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = query("video.edge.test.", RecordType::A);
    message.queries.clear();
    with_options(message, options)
}

const MINE: [u8; 8] = *b"my-own-1";

/// The cookie that a client has learned.
fn learned(client: &Client) -> Vec<u8> {
    let reply = client.ask(&index(), &video(&[(10, &MINE)]));
    let [(10, cookie)] = reply.options.as_slice() else { panic!("one cookie: {:?}", reply.options) };
    assert_eq!((&cookie[..8], cookie.len()), (&MINE[..], 24));
    cookie.clone()
}

#[test]
fn a_client_cookie_gets_a_server_cookie() {
    for transport in Transport::ALL {
        for address in [V4, V6] {
            let client = Client { transport, address: address.parse().unwrap(), ..Client::default() };
            let cookie = learned(&client);
            assert_eq!(cookie[8..12], [1, 0, 0, 0]);
            assert_eq!(cookie[12..16], NOW.to_be_bytes());
            // Every reply has one, whatever it says.
            for (name, outcome) in [
                ("video.edge.test.", Outcome::Answered),
                ("nothing.edge.test.", Outcome::NxDomain),
                ("four.edge.test.", Outcome::NoData),
                ("example.org.", Outcome::Refused),
            ] {
                let reply = client.ask(&index(), &with_options(query(name, RecordType::AAAA), &[(10, &cookie)]));
                assert_eq!((reply.outcome, reply.options), (outcome, vec![(10, cookie.clone())]));
            }
            // Another client's is another.
            let other = Client { address: "192.0.2.2".parse().unwrap(), ..Client::default() };
            assert_ne!(learned(&other), cookie);
        }
    }
}

/// RFC 9018, appendix A.1.
#[test]
fn the_cookie_is_that_of_the_rfc() {
    let secret = [0xe5e9_73e5_a6b2_a43f_u64, 0x48e7_dc84_9e37_bfcf].map(u64::swap_bytes);
    let client = Client {
        address: [198, 51, 100, 100].into(),
        time: 1_559_731_985,
        policy: Policy { cookies: Some(secret), ..Policy::default() },
        ..Client::default()
    };
    let reply = client.ask(&index(), &video(&[(10, &[0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57])]));
    let expected = [
        0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57, 1, 0, 0, 0, 0x5c, 0xf7, 0x9f, 0x11, 0x1f, 0x81, 0x30, 0xc3,
        0xee, 0xe2, 0x94, 0x80,
    ];
    assert_eq!(reply.options, [(10, expected.to_vec())]);
}

#[test]
fn cookies_of_other_lengths_are_malformed() {
    let client = Client::default();
    for len in (0..48).chain([255]) {
        let cookie = vec![7; len];
        let reply = client.ask(&index(), &video(&[(10, &cookie)]));
        let sound = len == 8 || (16..=40).contains(&len);
        assert_eq!(reply.outcome == Outcome::Answered, sound, "{len}");
        assert_eq!(reply.options.len(), usize::from(sound), "{len}");
        if !sound {
            assert_eq!(reply.message.metadata.response_code, ResponseCode::FormErr);
            assert!(reply.message.edns.is_some() && reply.message.answers.is_empty());
        }
    }
}

#[test]
fn the_first_of_several_cookies_counts() {
    let reply = Client::default().ask(&index(), &video(&[(10, &MINE), (10, b"another1"), (10, b"odd")]));
    assert_eq!(reply.outcome, Outcome::Answered);
    assert!(matches!(reply.options.as_slice(), [(10, cookie)] if cookie[..8] == MINE));
}

#[test]
fn cookies_mean_nothing_where_they_are_switched_off() {
    let client = Client { policy: Policy::default(), ..Client::default() };
    for cookie in [&MINE[..], b"odd"] {
        let reply = client.ask(&index(), &video(&[(10, cookie)]));
        assert_eq!((reply.outcome, reply.options), (Outcome::Answered, vec![]));
    }
    assert_eq!(client.ask(&index(), &cookie_alone(&[(10, &MINE)])).outcome, Outcome::FormErr);
}

#[test]
fn a_cookie_alone_may_be_asked_for() {
    for transport in Transport::ALL {
        let client = Client { transport, ..Client::default() };
        let cookie = learned(&client);
        let code = |reply: &Reply| u16::from(reply.message.metadata.response_code);
        let ask = |client: &Client, cookie: &[u8]| client.ask(&index(), &cookie_alone(&[(10, cookie)]));
        for asked in [&MINE[..], &cookie] {
            let reply = ask(&client, asked);
            assert_eq!((reply.outcome, code(&reply)), (Outcome::Cookie, 0));
            assert_eq!(reply.options, [(10, cookie.clone())]);
            assert!(reply.message.queries.is_empty() && !reply.message.metadata.authoritative);
        }
        // One that is not ours, of another client, too old, or from the future is BADCOOKIE, with a good one.
        let at = |time: u32| Client { transport, time, ..Client::default() };
        let (later, earlier) = (at(NOW + 3601), at(NOW - 301));
        let elsewhere = Client { transport, address: V6.parse().unwrap(), ..Client::default() };
        let mut forged = cookie.clone();
        *forged.last_mut().unwrap() ^= 1;
        let longer = [&cookie[..], &[0]].concat();
        for (client, asked) in
            [(&client, &forged), (&client, &longer), (&later, &cookie), (&earlier, &cookie), (&elsewhere, &cookie)]
        {
            let reply = ask(client, asked);
            assert_eq!((reply.outcome, code(&reply)), (Outcome::Cookie, 23));
            assert_eq!(ask(client, &reply.options[0].1).message.metadata.response_code, ResponseCode::NoError);
        }
        assert_eq!(code(&ask(&at(NOW + 3600), &cookie)), 0);
        assert_eq!(code(&ask(&at(NOW - 300), &cookie)), 0);
    }
    let client = Client::default();
    assert_eq!(client.ask(&index(), &cookie_alone(&[])).outcome, Outcome::FormErr);
    assert_eq!(client.ask(&index(), &cookie_alone(&[(10, b"odd")])).outcome, Outcome::FormErr);
}

#[test]
fn a_cookie_takes_its_room() {
    // Behind this name all addresses fit, but not with a cookie.
    let name = format!("{}.edge.test.", "x".repeat(20));
    let mut many = service(0, &name, (1..=16).map(|n| backend(n, 1)).collect());
    many.answers = 16;
    let index = Index::new(&snapshot(vec![many])).unwrap();
    let asking = |options: &[(u16, &[u8])]| {
        let mut query = with_options(query(&name, RecordType::AAAA), options);
        let payload = 12 + name.len() + 1 + 4 + 3;
        query[payload..payload + 2].copy_from_slice(&512u16.to_be_bytes());
        query
    };
    let client = Client::default();
    let plain = client.ask(&index, &asking(&[]));
    assert_eq!((plain.outcome, plain.message.answers.len()), (Outcome::Answered, 16));
    let with = client.ask(&index, &asking(&[(10, &MINE)]));
    assert_eq!((with.outcome, with.message.answers.len()), (Outcome::Truncated, 15));
    assert!(with.message.metadata.truncation && with.options.len() == 1);
    let tcp = Client { transport: Transport::Tcp, ..client };
    assert_eq!(tcp.ask(&index, &asking(&[(10, &MINE)])).message.answers.len(), 16);
}

/// Like [`index`], with a service whose ring goes by clients: turn t answers 10.0.(t / 256).(t % 256).
fn by_client() -> Index {
    let snapshot = snapshot(vec![
        service(0, "video.edge.test.", vec![backend(1, 1)]),
        service(1, "rr.edge.test.", vec![backend(1, 1)]),
    ]);
    Index::with(&snapshot, |service: &PublishedService| {
        let mut rrsets = rrsets(service)?;
        if service.index == 0 {
            let answer = |turn: u16| {
                let [high, low] = turn.to_be_bytes();
                records::FixedRrset { rtype: TYPE_A, ttl_s: 30, rdata: vec![vec![10, 0, high, low]] }.answer()
            };
            rrsets[0] = RenderedRrset::new(TYPE_A, true, (0..CLIENT_TURNS).map(answer));
        }
        Ok(rrsets)
    })
    .unwrap()
}

fn turn(reply: &Reply) -> u16 {
    let [Record { data: RData::A(a), .. }] = reply.message.answers.as_slice() else { panic!("one address") };
    let [10, 0, high, low] = a.0.octets() else { panic!("{a:?}") };
    u16::from_be_bytes([high, low])
}

fn turn_of(address: &str) -> u16 {
    match address.parse().unwrap() {
        IpAddr::V4(address) => xdp_balancer_common::client_turn_v4(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            xdp_balancer_common::client_turn_v6(u64::from_ne_bytes(address.octets()[..8].try_into().unwrap()))
        }
    }
}

#[test]
fn a_client_keeps_its_turn() {
    let index = by_client();
    for address in [V4, V6, "192.0.2.200", "198.51.100.7", "2001:db8:0:ff::9"] {
        for transport in Transport::ALL {
            let client = Client { transport, address: address.parse().unwrap(), ..Client::default() };
            for _ in 0..3 {
                assert_eq!(turn(&client.ask(&index, &video(&[]))), turn_of(address));
            }
        }
    }
    assert_eq!(turn_of(V4), turn_of("192.0.2.200"));
    assert_eq!(turn_of(V6), turn_of("2001:db8:0:ff::9"));
    assert_ne!(turn_of(V4), turn_of("198.51.100.7"));
}

/// The option of a prefix.
fn subnet(family: u8, source: u8, address: &[u8]) -> Vec<u8> {
    [&[0, family, source, 0], address].concat()
}

#[test]
fn a_subnet_from_a_resolver_picks_the_turn() {
    let index = by_client();
    let resolver = Client::default();
    for (asked, address, scope) in [
        (subnet(1, 24, &[198, 51, 100]), "198.51.100.0", 24),
        (subnet(1, 32, &[198, 51, 100, 77]), "198.51.100.77", 24),
        (subnet(1, 20, &[198, 51, 96]), "198.51.96.0", 24),
        (subnet(2, 56, &[0x20, 1, 0xD, 0xB8, 0, 0, 7]), "2001:db8:0:700::", 56),
        (subnet(2, 64, &[0x20, 1, 0xD, 0xB8, 0, 0, 7, 9]), "2001:db8:0:709::", 56),
        // Who says nothing of itself is taken for its resolver.
        (subnet(1, 0, &[]), V4, 0),
        (subnet(2, 0, &[]), V4, 0),
    ] {
        let reply = resolver.ask(&index, &video(&[(8, &asked)]));
        let mut expected = asked.clone();
        expected[3] = scope;
        assert_eq!((turn(&reply), reply.options), (turn_of(address), vec![(8, expected)]), "{asked:?}");
    }
    // Family 0 says nothing either; hickory does not read it.
    let Client { transport, address: client, time, policy } = &resolver;
    let context = Context { transport: *transport, client: *client, time: *time, policy };
    let reply = super::super::respond(&video(&[(8, &subnet(0, 0, &[]))]), &index, &context, Pick::Next);
    assert!(reply.bytes.unwrap().ends_with(&[0, 8, 0, 8, 0, 4, 0, 0, 0, 0]));
    // With a cookie too, in one OPT.
    let reply = resolver.ask(&index, &video(&[(8, &subnet(1, 24, &[198, 51, 100])), (10, &MINE)]));
    assert_eq!(reply.options.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [10, 8]);
    assert_eq!(turn(&reply), turn_of("198.51.100.0"));
}

#[test]
fn answers_that_do_not_depend_on_the_client_have_scope_0() {
    let (index, resolver) = (by_client(), Client::default());
    let asked = subnet(1, 24, &[198, 51, 100]);
    for (name, outcome) in [
        ("rr.edge.test.", Outcome::Answered),
        ("edge.test.", Outcome::NoData),
        ("nothing.edge.test.", Outcome::NxDomain),
        ("example.org.", Outcome::Refused),
    ] {
        let reply = resolver.ask(&index, &with_options(query(name, RecordType::A), &[(8, &asked)]));
        assert_eq!((reply.outcome, reply.options), (outcome, vec![(8, asked.clone())]), "{name}");
    }
}

#[test]
fn malformed_subnets_are_told_so_to_resolvers_alone() {
    let index = by_client();
    for asked in [
        vec![],
        vec![0, 1, 24],
        subnet(1, 24, &[198, 51]),
        subnet(1, 24, &[198, 51, 100, 0]),
        subnet(1, 33, &[198, 51, 100, 0, 0]),
        subnet(1, 20, &[198, 51, 100]),
        subnet(2, 129, &[0; 17]),
        subnet(0, 8, &[1]),
        subnet(3, 0, &[]),
        vec![1, 1, 0, 0],
        vec![0, 1, 24, 24, 198, 51, 100],
    ] {
        let reply = Client::default().ask(&index, &video(&[(8, &asked)]));
        assert_eq!((reply.outcome, reply.options), (Outcome::FormErr, vec![]), "{asked:?}");
        let other = Client { address: "203.0.113.5".parse().unwrap(), ..Client::default() };
        let reply = other.ask(&index, &video(&[(8, &asked)]));
        assert_eq!(turn(&reply), turn_of("203.0.113.5"));
        assert_eq!((reply.outcome, reply.options), (Outcome::Answered, vec![]), "{asked:?}");
    }
    let other = Client { address: V6.parse().unwrap(), ..Client::default() };
    let reply = other.ask(&index, &video(&[(8, &subnet(1, 24, &[198, 51, 100]))]));
    assert_eq!((turn(&reply), reply.options), (turn_of(V6), vec![]));
}

#[test]
fn a_policy_may_say_a_code_or_nothing() {
    let snapshot = snapshot(vec![
        service(0, "fails.edge.test.", vec![backend(1, 1)]),
        service(1, "silent.edge.test.", vec![backend(1, 1)]),
    ]);
    let zones = {
        let mut zones = snapshot.zones.clone();
        let zone = Arc::make_mut(&mut zones[0]);
        zone.records.push(zone_data::alias("www.edge.test.", "fails.edge.test."));
        zone.records.push(zone_data::alias("quiet.edge.test.", "silent.edge.test."));
        zones
    };
    let index = Index::with(&Snapshot { zones, ..snapshot }, |service: &PublishedService| {
        let flags = if service.index == 0 { SERVFAIL } else { render::FLAG_AA };
        let answer = RenderedAnswer { flags, ..RenderedAnswer::default() };
        Ok([TYPE_A, TYPE_AAAA].map(|qtype| RenderedRrset::new(qtype, false, [answer.clone()])).into())
    })
    .unwrap();
    let ask = |name: &str, kind| Client::default().ask(&index, &bytes(&query(name, kind)));
    for name in ["fails.edge.test.", "www.edge.test."] {
        for kind in [RecordType::A, RecordType::AAAA] {
            let reply = ask(name, kind);
            assert_eq!((reply.outcome, reply.message.metadata.authoritative), (Outcome::ServFail, false));
            assert_eq!(reply.message.metadata.response_code, ResponseCode::ServFail);
            assert!(reply.message.answers.is_empty() && reply.message.authorities.is_empty());
        }
        assert_eq!(ask(name, RecordType::TXT).outcome, Outcome::NoData);
    }
    for (name, answers) in [("silent.edge.test.", 0), ("quiet.edge.test.", 1)] {
        let reply = ask(name, RecordType::AAAA);
        assert_eq!((reply.outcome, reply.message.answers.len()), (Outcome::NoData, answers));
        let [soa] = reply.message.authorities.as_slice() else { panic!("one SOA") };
        assert!(reply.message.metadata.authoritative && soa.ttl == 5);
    }
    // The kernel says all of it.
    let known: Vec<_> = index.names().filter(|name| name.service != crate::model::ZONE_INDEX).collect();
    assert_eq!(known.len(), 4);
    assert!(known.iter().all(|name| name.rrsets.iter().all(|rrset| rrset.ring.is_some()) && name.others.is_some()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever options say: a reply of the right size with the same identifier, and options only where they are due.
    #[test]
    fn any_options_are_survived(
        options in prop::collection::vec((prop::sample::select(vec![8u16, 10, 3]), prop::collection::vec(0u8..4, 0..44)), 0..5),
        believed in any::<bool>(),
        alone in any::<bool>(),
    ) {
        let options: Vec<(u16, &[u8])> = options.iter().map(|(code, data)| (*code, data.as_slice())).collect();
        let query = if alone { cookie_alone(&options) } else { video(&options) };
        let policy = policy();
        let client: IpAddr = if believed { V4.parse().unwrap() } else { V6.parse().unwrap() };
        let context = Context { transport: Transport::Udp, client, time: NOW, policy: &policy };
        let response = super::super::respond(&query, &by_client(), &context, Pick::Next);
        let reply = response.bytes.unwrap();
        prop_assert_eq!(&reply[..2], &query[..2]);
        let first = |code: u16| options.iter().find(|(of, _)| *of == code).map(|(_, data)| data.len());
        let heard = [first(10).is_some(), believed && first(8).is_some()];
        let opt = match response.outcome {
            Outcome::FormErr => 11,
            Outcome::Answered | Outcome::Cookie => {
                11 + if heard[0] { 28 } else { 0 } + if heard[1] { 4 + first(8).unwrap() } else { 0 }
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        let records = if response.outcome == Outcome::Answered { 16 } else { 0 };
        let question = if alone { 0 } else { 21 };
        prop_assert_eq!(reply.len(), 12 + question + records + opt);
        prop_assert_eq!(response.outcome == Outcome::Cookie, alone && response.outcome != Outcome::FormErr);
    }
}

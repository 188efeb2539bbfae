#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! From what is asked for to the frame, and from what the program did to words.

use xdp_balancer_common::Verdict;

use super::*;
use crate::datapath::RunAction;
use crate::datapath::explain::frame as build;
use crate::dns::TYPE_A;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request(subject: &str) -> Request {
    Request { subject: subject.to_owned(), client: None, server: None, qtype: TYPE_A, edns: true }
}

fn ends(request: &Request, local: &[&str]) -> Result<(String, String), ExplainError> {
    let local: Vec<IpAddr> = local.iter().map(|text| ip(text)).collect();
    let frame = frame_of(request, &local)?;
    let datagram = Datagram::find(&frame).unwrap();
    Ok((datagram.from.to_string(), datagram.to.to_string()))
}

#[test]
fn a_name_is_asked_by_its_client_at_the_first_address_of_its_family() {
    let both = ["10.0.0.53", "fd00::53", "10.0.0.54"];
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let plain = request("video.edge.test");
    assert_eq!(ends(&plain, &both).unwrap(), pair("192.0.2.1:40000", "10.0.0.53:53"));
    assert_eq!(ends(&plain, &both[1..2]).unwrap(), pair("[2001:db8::1]:40000", "[fd00::53]:53"));
    let client = Request { client: Some(ip("fd00::9")), ..plain.clone() };
    assert_eq!(ends(&client, &both).unwrap(), pair("[fd00::9]:40000", "[fd00::53]:53"));
    let server = Request { server: Some(ip("10.0.0.99")), ..plain.clone() };
    assert_eq!(ends(&server, &both).unwrap(), pair("192.0.2.1:40000", "10.0.0.99:53"));
    assert_eq!(ends(&client, &both[..1]).unwrap_err().label(), "no_server");
    assert_eq!(ends(&plain, &[]).unwrap_err().label(), "no_server");
    let mixed = Request { client: Some(ip("fd00::9")), ..server };
    assert_eq!(ends(&mixed, &both).unwrap_err().label(), "families");
    assert_eq!(ends(&request("a..b"), &both).unwrap_err().label(), "name");
}

#[test]
fn the_query_is_as_wanted() {
    let wanted = Request { qtype: 65, edns: false, ..request("ViDeo.edge.test") };
    let frame = frame_of(&wanted, &[ip("10.0.0.53")]).unwrap();
    let decoded = present::decode(Datagram::find(&frame).unwrap().payload).unwrap();
    assert_eq!((decoded.questions, decoded.edns), (vec!["ViDeo.edge.test. IN HTTPS".to_owned()], None));
    let given = frame_of(&request(&hex::digits(&frame)), &[]).unwrap();
    assert_eq!(given, frame, "a frame is taken as it is");
}

fn ran(verdict: Verdict, action: RunAction, frame: Vec<u8>) -> Ran {
    Ran { verdict, action, frame, generation: 17 }
}

#[test]
fn what_goes_back_is_decoded_and_what_passes_is_not() {
    let (client, server) = ("192.0.2.1:40000".parse().unwrap(), "10.0.0.53:53".parse().unwrap());
    let query = present::query(1, "a.test", TYPE_A, false).unwrap();
    let frame = build(client, server, &query).unwrap();
    let mut reply = query.clone();
    (reply[2], reply[7]) = (0x85, 1);
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1]);
    let back = build(server, client, &reply).unwrap();

    let answered = account(&frame, &ran(Verdict::Answered, RunAction::Answer, back));
    assert!(answered.is_answered());
    assert_eq!((answered.verdict, answered.action.as_str(), answered.generation), ("answered", "answered", 17));
    let said = answered.reply.unwrap();
    assert_eq!((said.from, said.to), (server, client));
    assert_eq!(said.decoded.unwrap().answers, ["a.test. 30 IN A 10.0.0.1"]);

    let passed = account(&frame, &ran(Verdict::UnknownName, RunAction::Pass, frame.clone()));
    assert!(!passed.is_answered() && passed.reply.is_none() && passed.reply_frame.is_none());
    assert_eq!(passed.meaning, Verdict::UnknownName.meaning().trim());
    assert_eq!(passed.query.unwrap().decoded.unwrap().questions, ["a.test. IN A"]);

    let broken = build(client, server, b"no message").unwrap();
    let query = account(&broken, &ran(Verdict::OddCounts, RunAction::Pass, broken.clone())).query.unwrap();
    assert!(query.decoded.is_none() && query.problem.is_some());
    let arp = account(&[0; 42], &ran(Verdict::NotIp, RunAction::Pass, vec![0; 42]));
    assert_eq!(arp.query, None);
}

#[tokio::test]
async fn the_daemon_is_asked_only_at_addresses_of_this_machine() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    let from = "192.0.2.1:40000".parse().unwrap();
    let not_dns = Datagram { from, to, payload: b"x" };
    assert_eq!(ask::daemon(&not_dns).await, None);
    // Of nobody (RFC 5737).
    let foreign = Datagram { from, to: "198.51.100.1:53".parse().unwrap(), payload: b"x" };
    let asked = ask::daemon(&foreign).await.unwrap();
    assert_eq!(asked.problem.as_deref(), Some("it is not an address of this machine"));
}

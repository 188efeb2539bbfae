//! Tests of the module as a whole, with hickory's `Message` as the other side.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod answers;
mod arbitrary;
mod choice;
mod dname;
mod kernel;
mod options;
mod over_sockets;
mod summon;
mod zone_data;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};

use super::*;
use crate::model::{AddressPair, Backend, Basis, Choice, PublishedService, Snapshot, Zone, ZoneRecord, fixtures};

pub(crate) fn zone(apex: &str) -> Zone {
    Zone {
        apex: apex.to_owned(),
        primary: format!("ns1.{apex}"),
        contact: format!("hostmaster.{apex}"),
        nameservers: vec![format!("ns1.{apex}"), "ns.elsewhere.example.".to_owned()],
        ttl_s: 3600,
        negative_ttl_s: 60,
        ..fixtures::zone()
    }
}

/// Backend `number` has the addresses 10.7.0.`number` and fd07::`number`.
pub(crate) fn backend(number: u8, weight: u16) -> Backend {
    let addresses = AddressPair { v4: Some(v4(number)), v6: Some(v6(number)) };
    Backend { addresses, weight, ..fixtures::backend(number) }
}

pub(crate) fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 7, 0, number)
}

pub(crate) fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, number.into())
}

/// For a server whose services always have instances.
pub(crate) fn no_summons() -> SummonChannels {
    let (orders, _) = tokio::sync::mpsc::channel(1);
    SummonChannels { orders, cold: tokio::sync::watch::channel(Arc::default()).1, stats: Arc::default() }
}

pub(crate) fn service(index: u32, name: &str, backends: Vec<Backend>) -> PublishedService {
    PublishedService {
        index,
        names: vec![name.to_owned()],
        ttl_s: 30,
        answers: 2,
        ..fixtures::service(&format!("s{index}"), backends)
    }
}

pub(crate) fn snapshot(services: Vec<PublishedService>) -> Snapshot {
    fixtures::snapshot(7, vec![zone("edge.test."), zone("inner.edge.test.")], services)
}

/// What most tests ask: a service of three, one in the inner zone that is deep, one without backends,
/// one without IPv6, one with an apex for a name, and one with many addresses.
fn index() -> Index {
    let mut four = backend(1, 1);
    four.addresses.v6 = None;
    let mut many = service(5, "many.edge.test.", (1..=20).map(|n| backend(n, 1)).collect());
    many.answers = 16;
    Index::new(&snapshot(vec![
        service(0, "video.edge.test.", vec![backend(1, 2), backend(2, 1), backend(3, 1), backend(4, 0)]),
        service(1, "a.b.c.inner.edge.test.", vec![backend(9, 1)]),
        service(2, "idle.edge.test.", vec![]),
        service(3, "four.edge.test.", vec![four]),
        service(4, "inner.edge.test.", vec![backend(5, 1)]),
        many,
        service(6, "paused.edge.test.", vec![backend(6, 0)]),
    ]))
    .unwrap()
}

/// A query as hickory writes it; letter case stays.
fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

fn of_class(mut message: Message, class: DNSClass) -> Message {
    message.queries[0].query_class = class;
    message
}

/// What a client gets that is nobody special, of a server with the default policy.
fn respond(message: &[u8], index: &Index, transport: Transport, pick: Pick) -> Response {
    let policy = Policy::default();
    let context = Context { transport, client: [192, 0, 2, 1].into(), time: 0, policy: &policy };
    super::respond(message, index, &context, pick)
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

//! The kinds of frames, and the table that they are asked of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::frames::{FrameBuilder, Query, address_record, wire};
use crate::guard::{Limits, Rules};
use crate::table::{Below, Name, Rendered, Ring, Rrset, Table};

/// AA.
const FLAGS: u16 = 0x0400;
const TTL: u32 = 30;
const INSTANCES: u8 = 4;
pub(super) const A: u16 = 1;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;
/// 30 bytes in wire form.
const NAME: &str = "servic.bench.edge.example.nl";
const ZONE: &str = "bench.edge.example.nl";
const NXDOMAIN: u16 = 3;
const TXT: u16 = 16;
/// 60, 120 and 255 bytes.
const LONGER: [(&str, usize); 3] = [("a_v4_60", 60), ("a_v4_120", 120), ("a_v4_255", 255)];

/// A frame.
pub(super) struct Case {
    pub name: &'static str,
    pub about: &'static str,
    pub frame: Vec<u8>,
    /// Whether it is passed, but not as it was.
    pub rewritten: bool,
    /// What is in force meanwhile.
    pub rules: Rules,
}

/// Addresses of the server, one per family.
pub(super) fn local() -> Vec<IpAddr> {
    vec![server(false), server(true)]
}

fn server(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53).into() } else { Ipv4Addr::new(192, 0, 2, 53).into() }
}

fn client(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into() } else { Ipv4Addr::new(192, 0, 2, 1).into() }
}

fn frame(v6: bool, port: u16, payload: Vec<u8>) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(client(v6), 40_000), SocketAddr::new(server(v6), port));
    FrameBuilder::new(from, to).payload(payload).build()
}

/// A query for a name, over IPv4.
pub(super) fn query(name: &str) -> Vec<u8> {
    frame(false, 53, Query::new(name, A).build())
}

/// Another server's reply for the name of the plain query.
fn reply() -> Vec<u8> {
    let rest = address_record(Ipv4Addr::new(203, 0, 113, 1).into(), 300);
    let message = Query { flags: 0x8180, counts: [1, 1, 0, 0], rest, ..Query::new(NAME, A) }.build();
    let (from, to) = (SocketAddr::new(server(false), 53), SocketAddr::new(client(false), 40_000));
    FrameBuilder::new(from, to).payload(message).build()
}

fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x2a]);
    frame
}

fn long_name(wire_len: usize) -> String {
    let mut labels = Vec::new();
    let mut left = wire_len - 1;
    while left > 0 {
        let mut take = left.min(16);
        // A label has one byte at least.
        if left - take == 1 {
            take -= 1;
        }
        labels.push("x".repeat(take - 1));
        left -= take;
    }
    labels.join(".")
}

/// `records` addresses, as many rotations as there are instances.
pub(super) fn ring(v6: bool, records: u8, salt: u32) -> Arc<Ring> {
    let address = |instance: u8| -> IpAddr {
        let [_, high, middle, low] = salt.to_be_bytes();
        if v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, low.into(), instance.into()).into()
        } else {
            Ipv4Addr::new(10, high ^ instance, middle, low).into()
        }
    };
    let answers = (0..INSTANCES)
        .map(|first| Rendered {
            flags: FLAGS,
            ancount: records.into(),
            bytes: (0..records).flat_map(|i| address_record(address((first + i) % INSTANCES), TTL)).collect(),
            ..Rendered::default()
        })
        .collect();
    Arc::new(Ring::round_robin(answers))
}

/// One HTTPS record: priority 1, the owner itself, alpn h2 and h3, one address as a hint.
fn https() -> Arc<Ring> {
    let mut data = vec![0, 1, 0, 0, 1, 0, 6, 2, b'h', b'2', 2, b'h', b'3'];
    data.extend([0, 4, 0, 4, 10, 0, 0, 1]);
    let mut bytes = vec![0xc0, 0x0c, 0, HTTPS as u8, 0, 1, 0, 0, 0, TTL as u8, 0, data.len() as u8];
    bytes.extend(data);
    Arc::new(Ring::single(Rendered { flags: FLAGS, ancount: 1, bytes, ..Rendered::default() }))
}

/// The zone's SOA in a negative answer.
fn denied(rcode: u16) -> Arc<Ring> {
    let mut bytes = wire(ZONE);
    bytes.extend([0, 6, 0, 1, 0, 0, 0, TTL as u8]);
    let mut data = [wire(&format!("ns1.{ZONE}")), wire(&format!("hostmaster.{ZONE}"))].concat();
    data.extend([1_u32, 3600, 600, 604_800, 30].iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    Arc::new(Ring::single(Rendered { flags: FLAGS | rcode, nscount: 1, bytes, ..Rendered::default() }))
}

/// What the cases ask for.
pub(super) fn table() -> Table {
    let rrset = |qtype, ring| Rrset { qtype, ring: Some(ring) };
    let (nodata, nxdomain) = (denied(0), denied(NXDOMAIN));
    let name = |name: &str, service, rrsets| Name {
        wire: wire(name),
        service,
        rrsets,
        others: Some(Arc::clone(&nodata)),
        below: Below::Denied(Arc::clone(&nxdomain)),
    };
    let four = vec![rrset(A, ring(false, 4, 0)), rrset(AAAA, ring(true, 4, 0)), rrset(HTTPS, https())];
    let mut names = vec![name(NAME, 0, four.clone()), name(ZONE, 3, vec![])];
    names.extend(LONGER.iter().map(|(_, len)| name(&long_name(*len), 1, four.clone())));
    names.push(name(&NAME.replacen('s', "t", 1), 2, vec![rrset(A, ring(false, 2, 0))]));
    // Forty addresses, which need more than the 512 bytes that a client without EDNS takes.
    let large = Name { others: None, ..name(&NAME.replacen('s', "l", 1), 2, vec![rrset(A, ring(false, 40, 0))]) };
    names.push(large);
    // Everything on that is on by default.
    Table { generation: 1, local: local(), cookies: Some([1, 2]), names, ..Table::default() }
}

/// All cases; the first one is the plain query that baselines run with.
pub(super) fn all() -> Vec<Case> {
    let case = |name, about, frame| Case { name, about, frame, rewritten: false, rules: Rules::default() };
    let limited = |name, about, client| {
        let limits = Limits { client, slip: 0, ..Limits::default() };
        Case {
            name,
            about,
            frame: frame(false, 53, Query::new(NAME, A).build()),
            rewritten: false,
            rules: Rules { limits, ..Rules::default() },
        }
    };
    let query = |qtype| Query::new(NAME, qtype);
    let measured = |name, about, costs| Case {
        name,
        about,
        frame: frame(false, 53, query(A).build()),
        rewritten: false,
        rules: Rules { costs: Some(costs), ..Rules::default() },
    };
    let a = |v6| frame(v6, 53, query(A).build());
    let opt = |options: &[u8]| query(A).opt(1232, false, options).build();
    // A client's cookie alone, as a first query has it.
    let cookie = [0, 10, 0, 8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    let mixed: String = NAME.char_indices().map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
    let two = NAME.replacen('s', "t", 1);
    let mut cases = vec![
        case("a_v4", "A, name of 30 bytes, four addresses", a(false)),
        case("a_v6", "the same over IPv6", a(true)),
        case("a_v4_two", "A, two addresses", frame(false, 53, Query::new(&two, A).build())),
        case("a_v4_mixed", "A, every other letter in upper case", frame(false, 53, Query::new(&mixed, A).build())),
        case("aaaa_v4", "AAAA, four addresses", frame(false, 53, query(AAAA).build())),
        case("https_v4", "HTTPS, one record", frame(false, 53, query(HTTPS).build())),
        case(
            "nxdomain_v4",
            "a name that does not exist",
            frame(false, 53, Query::new("no.bench.edge.example.nl", A).build()),
        ),
        case("nodata_v4", "a type that the name has not", frame(false, 53, query(TXT).build())),
        case("edns_v4", "A with OPT", frame(false, 53, opt(&[]))),
        case("cookie_v4", "A with OPT and a client's cookie", frame(false, 53, opt(&cookie))),
        case("edns_v6", "A with OPT over IPv6", frame(true, 53, opt(&[]))),
        case("vlan_v4", "A behind one VLAN tag", tagged(a(false))),
        limited("rrl_pass_v4", "A, with a limit that its client is under", 1_000_000_000),
        limited("rrl_drop_v4", "A, with a limit that its client is over", 1),
        measured("cost_v4", "A, while one in 1,024 has its time measured", 10),
        measured("cost_v4_each", "A whose time is measured", 0),
        case("non_dns_v4", "UDP to another port", frame(false, 443, vec![0; 64])),
        case("non_dns_v6", "the same over IPv6", frame(true, 443, vec![0; 64])),
    ];
    // Passed, each a step further than the one before: their differences are what the steps cost.
    let large = NAME.replacen('s', "l", 1);
    cases.extend([
        case("not_query_v4", "passed: a response", frame(false, 53, Query { flags: 0x8000, ..query(A) }.build())),
        case("odd_class_v4", "passed: its name was read", frame(false, 53, Query { qclass: 3, ..query(A) }.build())),
        case("type_v4", "passed: its name was found", frame(false, 53, Query::new(&large, TXT).build())),
        case("too_large_v4", "passed: its turn was found", frame(false, 53, Query::new(&large, A).build())),
    ]);
    let passing = case("transit_v4", "a reply that is rewritten: A, one address", reply());
    cases.push(Case { rewritten: true, ..passing });
    for (name, len) in LONGER {
        cases.push(case(name, "A, a longer name", frame(false, 53, Query::new(&long_name(len), A).build())));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_lengths_that_are_told() {
        assert_eq!(wire(NAME).len(), 30);
        for (_, len) in LONGER {
            assert_eq!(wire(&long_name(len)).len(), len);
        }
    }
}

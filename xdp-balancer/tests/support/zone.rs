//! The tables that named frames are asked of, and what a query must get from them, said without the program.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xdp_balancer::testing::{Query, wire};
use xdp_balancer::{Below, Name, Rendered, Ring, Rrset, Table, Verdict};
use xdp_balancer_common::{CookieSecret, server_cookie};

use super::{A, AA, AAAA, addresses, name, table};

pub const TXT: u16 = 16;
pub const SOA: u16 = 6;
/// Of private use.
pub const PRIVATE: u16 = 65_280;
pub const SECRET: CookieSecret = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
pub const TIME: u32 = 1_764_043_200;

/// Lengths of names: each place of the end within a chunk, the end of a slot, and the longest.
pub fn name_lengths() -> impl Iterator<Item = usize> {
    (19..=44).chain(54..=66).chain([120, 248, 249, 254, 255])
}

/// Lengths of an answer's one record: each way to copy it, and all but the longest.
pub fn record_lengths() -> impl Iterator<Item = usize> {
    (13..=41).chain([63, 64, 65, 95, 96, 97, 255, 256, 257, 440])
}

/// A name of exactly so many bytes in wire form, under the suffix.
pub fn name_of(suffix: &str, wire_len: usize) -> String {
    let mut left = wire_len - (suffix.len() + 2);
    let mut labels = Vec::new();
    while left > 0 {
        // A label costs a byte more than it has; never leave a single byte, which no label fits.
        let take = if left > 64 { if left == 65 { 62 } else { 63 } } else { left - 1 };
        labels.push("x".repeat(take));
        left -= take + 1;
    }
    labels.push(suffix.to_owned());
    let name = labels.join(".");
    assert_eq!(wire(&name).len(), wire_len);
    name
}

fn soa_record(zone: &str) -> Vec<u8> {
    let zone = wire(zone);
    let mut data = [b"\x02ns", zone.as_slice(), b"\x0ahostmaster", zone.as_slice()].concat();
    for word in [1_u32, 3600, 600, 86400, 60] {
        data.extend_from_slice(&word.to_be_bytes());
    }
    let len = data.len() as u8;
    [zone.as_slice(), &[0, 6, 0, 1, 0, 0, 0, 60, 0, len], &data].concat()
}

/// That a zone has no such type (0) or no such name (3): its SOA, uncompressed.
fn negative(zone: &str, rcode: u16) -> Arc<Ring> {
    let rendered = Rendered { flags: AA | rcode, nscount: 1, bytes: soa_record(zone), ..Rendered::default() };
    Arc::new(Ring::single(rendered))
}

/// A record of exactly so many bytes, of a type that nobody knows.
fn record_of(len: usize) -> Rendered {
    let data: Vec<u8> = (0..len - 12).map(|i| (i * 7 + len) as u8).collect();
    let mut bytes = vec![0xc0, 0x0c];
    for word in [PRIVATE, 1, 0, 30, data.len() as u16] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(&data);
    assert_eq!(bytes.len(), len);
    Rendered { flags: AA, ancount: 1, bytes, ..Rendered::default() }
}

/// Names of no zone, and one zone.
pub fn names() -> Vec<Name> {
    let many = |count: u8| {
        let addresses: Vec<String> = (0..count).map(|i| format!("10.1.0.{i}")).collect();
        super::addresses(&addresses.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut more = addresses(&["10.0.0.1", "fd00::1", "10.0.0.2"]);
    (more.ancount, more.arcount) = (1, 2);
    let mut names = vec![
        name(
            "www.example.net",
            1,
            vec![(A, vec![addresses(&["10.0.0.1", "10.0.0.2"])]), (AAAA, vec![addresses(&["fd00::1"])])],
        ),
        name("idle.example.net", 2, vec![(A, vec![])]),
        name("many.example.net", 3, vec![(A, vec![many(30)])]),
        name("broken.example.net", 4, vec![(A, vec![addresses(&["10.0.0.9"])])]),
        name("more.example.net", 3, vec![(A, vec![more])]),
        // With an OPT and five bytes of name, 1232 bytes.
        name("big", 3, vec![(A, vec![many(75)])]),
        name("none.example.net", 3, vec![(A, vec![Rendered { flags: AA, ..Rendered::default() }])]),
    ];
    for len in name_lengths() {
        let held = vec![(A, vec![addresses(&["10.0.0.6"])]), (AAAA, vec![addresses(&["fd00::6", "fd00::7"])])];
        names.push(name(&name_of("svc.example.net", len), 6, held));
    }
    for len in record_lengths() {
        for host in [format!("r{len}.example.net"), format!("odd{}.example.net", len + 1000)] {
            names.push(name(&host, 7, vec![(PRIVATE, vec![record_of(len)])]));
        }
    }
    names.extend(zone());
    names
}

fn zone() -> Vec<Name> {
    let (nodata, denied) = (negative("zone.test", 0), negative("zone.test", 3));
    let text = Rendered { bytes: b"\xc0\x0c\0\x10\0\x01\0\0\0\x1e\0\x03\x02hi".to_vec(), ..addresses(&[""; 0]) };
    let text = Rendered { ancount: 1, ..text };
    let a = || vec![(A, vec![addresses(&["10.2.0.1"])])];
    let in_zone = |host: &str, service, rrsets| Name {
        others: Some(Arc::clone(&nodata)),
        below: Below::Denied(Arc::clone(&denied)),
        ..name(host, service, rrsets)
    };
    let mut names = vec![
        in_zone("zone.test", 0, vec![]),
        in_zone("host.zone.test", 8, a()),
        in_zone("wild.zone.test", 0, vec![]),
        in_zone("*.wild.zone.test", 9, [a(), vec![(TXT, vec![text])]].concat()),
        in_zone("lazy.zone.test", 0, vec![]),
        in_zone("*.lazy.zone.test", 9, vec![(A, vec![])]),
        // At a delegation, and below it.
        Name { others: None, below: Below::UserSpace, ..in_zone("sub.zone.test", 0, vec![]) },
    ];
    let soa = Rendered { flags: AA, ancount: 1, bytes: soa_record("zone.test"), ..Rendered::default() };
    names[0].rrsets.push(Rrset { qtype: SOA, ring: Some(Arc::new(Ring::single(soa))) });
    (names[2].below, names[4].below) = (Below::Wildcard, Below::Wildcard);
    names
}

/// The table with all switches off.
pub fn plain() -> Table {
    table(1, names())
}

/// The table with cookies and client subnets.
pub fn with_options() -> Table {
    Table { cookies: Some(SECRET), client_subnet: true, ..table(2, names()) }
}

/// The root's own, whatever address it is asked at.
pub fn root() -> Table {
    Table { transparent: true, ..table(3, vec![name("", 5, vec![(A, vec![addresses(&["10.0.0.5"])])])]) }
}

/// The answer that a query must get.
pub fn expected(table: &Table, query: &Query) -> (Verdict, Rendered) {
    let find = |wire: &[u8]| table.names.iter().find(|name| name.wire.eq_ignore_ascii_case(wire));
    let first = |ring: &Ring| ring.answers[usize::from(ring.turns[0])].clone();
    let of = |name: &Name| match name.rrsets.iter().find(|rrset| rrset.qtype == query.qtype) {
        Some(rrset) => {
            let rendered = first(rrset.ring.as_ref().unwrap());
            (if rendered.ancount == 0 { Verdict::NoData } else { Verdict::Answered }, rendered)
        }
        None => (Verdict::NoData, first(name.others.as_ref().unwrap())),
    };
    if let Some(name) = find(&query.name) {
        return of(name);
    }
    let mut rest = query.name.as_slice();
    loop {
        rest = &rest[1 + usize::from(rest[0])..];
        let Some(encloser) = find(rest) else { continue };
        return match &encloser.below {
            Below::UserSpace => panic!("user space answers"),
            Below::Denied(ring) => (Verdict::NxDomain, first(ring)),
            Below::Wildcard => of(find(&[b"\x01*", encloser.wire.as_slice()].concat()).unwrap()),
        };
    }
}

/// The value of the first option with this code in a query's OPT.
fn option(query: &Query, code: u16) -> Option<&[u8]> {
    let mut rest = query.rest.get(11..)?;
    while let Some((header, behind)) = rest.split_at_checked(4) {
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[..2] == code.to_be_bytes() {
            return behind.get(..len);
        }
        rest = &behind[len..];
    }
    None
}

/// The reply that a query from this client must get, byte for byte.
pub fn expected_payload(table: &Table, query: &Query, client: SocketAddr) -> Vec<u8> {
    let (_, rendered) = expected(table, query);
    let mut reply = Query {
        flags: 0x8000 | (query.flags & 0x0100) | rendered.flags,
        counts: [1, rendered.ancount, rendered.nscount, rendered.arcount],
        rest: rendered.bytes,
        ..query.clone()
    };
    if query.counts[3] == 1 {
        reply.counts[3] += 1;
        reply.rest.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, query.rest[7] & 0x80, 0]);
        match table.cookies.and_then(|secret| Some((secret, option(query, 10)?))) {
            None => reply.rest.extend_from_slice(&[0, 0]),
            Some((secret, cookie)) => {
                let ours = cookie_of(secret, &cookie[..8], client.ip());
                reply.rest.extend_from_slice(&[&[0, 28, 0, 10, 0, 24], &cookie[..8], &ours].concat());
            }
        }
    }
    reply.build()
}

/// The server cookie of a client at the time of the tests.
fn cookie_of(secret: CookieSecret, client: &[u8], address: IpAddr) -> Vec<u8> {
    let mut words = [0; 16];
    match address {
        IpAddr::V4(address) => words[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => words.copy_from_slice(&address.octets()),
    }
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
    let address_words = [word(&words[..8]), word(&words[8..])];
    let cookie = server_cookie(secret, word(client), TIME, address_words, address.is_ipv4());
    cookie.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

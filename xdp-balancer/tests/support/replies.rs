//! Replies in transit: a generator of more or less broken ones, and a twin of the program that says, on the same
//! bytes and by code that shares nothing with it, what has to become of each.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use xdp_balancer::TransitVerdict;
use xdp_balancer::testing::{FrameBuilder, Query, wire};
use xdp_balancer_common::{CLIENT_TURNS, client_turn_v4, client_turn_v6};

use super::{A, AAAA};

pub const CNAME: u16 = 5;
pub const RRSIG: u16 = 46;

/// A small generator, so that a seed means the same everywhere and for ever (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a name of ours has of a type.
#[derive(Clone, Debug)]
pub struct Served {
    pub ttl: u32,
    /// The addresses of the answer at each turn; none: nothing is published.
    pub turns: Vec<Vec<IpAddr>>,
    pub by_client: bool,
}

/// Names in lower case, wire form, and type.
pub type Ours = HashMap<(Vec<u8>, u16), Served>;

/// A reply, part by part.
pub struct Reply {
    pub flags: u16,
    pub question: (Vec<u8>, u16),
    pub answers: Vec<Vec<u8>>,
    pub rest: Vec<Vec<u8>>,
}

impl Reply {
    pub fn new(name: &str, qtype: u16) -> Self {
        Self { flags: 0x8180, question: (wire(name), qtype), answers: Vec::new(), rest: Vec::new() }
    }

    /// Adds a record; the owner is in wire form, pointers included.
    #[must_use]
    pub fn answer(mut self, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Self {
        self.answers.push(record(owner, kind, ttl, data));
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let counts = [1, self.answers.len() as u16, 0, self.rest.len() as u16];
        let rest = [self.answers.concat(), self.rest.concat()].concat();
        let (name, qtype) = self.question.clone();
        Query { id: 0x4711, flags: self.flags, counts, name, qtype, qclass: 1, rest }.build()
    }
}

pub fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let head = [&kind.to_be_bytes()[..], &[0, 1], &ttl.to_be_bytes(), &(data.len() as u16).to_be_bytes()].concat();
    [owner, &head, data].concat()
}

/// From a server to a client.
pub fn carry(v6: bool, payload: Vec<u8>) -> FrameBuilder {
    let (server, client) = if v6 { ("2001:db8:5::53", "2001:db8:1:2::7") } else { ("198.51.100.53", "192.0.2.77") };
    let (server, client) = (super::ip(server), super::ip(client));
    FrameBuilder::new(SocketAddr::new(server, 53), SocketAddr::new(client, 40_000)).payload(payload)
}

/// Some reply, mostly sound.
pub fn some(random: &mut Random, names: &[&str]) -> Vec<u8> {
    let qtype = random.pick(&[A, A, AAAA]);
    let mut reply = Reply::new(random.pick(names), qtype);
    let mut owner = vec![0xc0, 12];
    let mut at = 12 + reply.question.0.len() + 4;
    let mut add = |reply: &mut Reply, owner: &[u8], kind: u16, ttl: u32, data: &[u8]| {
        reply.answers.push(record(owner, kind, ttl, data));
        let start = at + owner.len() + 10;
        at += owner.len() + 10 + data.len();
        start
    };
    for _ in 0..random.pick(&[0, 0, 0, 1, 1, 2, 5]) {
        let mut target = wire(random.pick(names));
        if random.one_in(3) {
            // The end of the question's name, or of whatever stands there.
            target.truncate(1 + usize::from(target[0]));
            target.extend([0xc0, 12 + reply.question.0[0] + 1]);
        }
        let ttl = random.pick(&[0, 5, 300, 86_400]);
        let start = add(&mut reply, &owner, CNAME, ttl, &target);
        owner = if random.one_in(3) { target } else { (0xc000 | start as u16).to_be_bytes().to_vec() };
    }
    for _ in 0..random.pick(&[0, 1, 1, 1, 2, 3, 4, 8, 33]) {
        let kind = if random.one_in(12) { random.pick(&[A, AAAA, 16]) } else { qtype };
        let data: Vec<u8> = (0..if kind == AAAA { 16 } else { 4 }).map(|_| random.next() as u8).collect();
        let ttl = random.pick(&[0, 1, 29, 30, 31, 300, u32::MAX]);
        let owner = if random.one_in(8) { wire(random.pick(names)) } else { owner.clone() };
        add(&mut reply, &owner, kind, ttl, &data);
    }
    if random.one_in(12) {
        add(&mut reply, &owner, RRSIG, 30, &[0; 40]);
    }
    if random.one_in(2) {
        reply.rest.push([&[0, 0, 41][..], &1232_u16.to_be_bytes(), &[0, 0, 0, 0, 0, 0]].concat());
    }
    reply.flags |= random.pick(&[0, 0, 0, 0, 0, 0, 0, 0x0400, 0x0020, 0x0200, 0x0003, 0x0040]);
    let mut message = reply.build();
    // What a test run of the kernel takes.
    message.truncate(3200);
    if random.one_in(2) {
        for _ in 0..=random.below(3) {
            let at = random.below(message.len());
            message[at] = random.pick(&[0, 1, 4, 12, 16, 28, 46, 0xc0, 0xff, random.0 as u8]);
        }
        if random.one_in(8) {
            message.truncate(random.below(message.len()).max(1));
        }
    }
    let mut builder = carry(random.one_in(3), message);
    for tag in [0x88a8, 0x8100].into_iter().skip(random.pick(&[2, 2, 2, 1, 0])) {
        builder = builder.tag(tag, 42);
    }
    if random.one_in(10) {
        builder = builder.no_checksum();
    }
    if random.one_in(10) {
        builder = builder.trailer([1, 2, 3]);
    }
    let mut frame = builder.padded_to(60).build();
    // A checksum that a device is to finish, or one that is wrong.
    if random.one_in(10) {
        let Some(headers) = Headers::of(&frame) else { return frame };
        let field = if random.one_in(3) { 0x1234 } else { fold(headers.pseudo(&frame)) };
        frame[headers.udp + 6..headers.udp + 8].copy_from_slice(&field.to_be_bytes());
    }
    if random.one_in(20) {
        let at = 12 + random.below(frame.len().min(70) - 12);
        frame[at] ^= 1 << random.below(8);
    }
    frame
}

/// Where the headers are; `None`: no plain UDP.
struct Headers {
    ip: usize,
    v6: bool,
    udp: usize,
}

impl Headers {
    fn of(frame: &[u8]) -> Option<Self> {
        let short = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let mut ip = 14;
        if matches!(short(12)?, 0x8100 | 0x88a8) {
            ip += 4;
            if short(ip - 2)? == 0x8100 {
                ip += 4;
            }
        }
        let first = *frame.get(ip)?;
        match short(ip - 2)? {
            0x0800 if first == 0x45 && *frame.get(ip + 9)? == 17 => Some(Self { ip, v6: false, udp: ip + 20 }),
            0x86dd if first >> 4 == 6 && *frame.get(ip + 6)? == 17 => Some(Self { ip, v6: true, udp: ip + 40 }),
            _ => None,
        }
    }

    fn pseudo(&self, frame: &[u8]) -> u64 {
        let addresses = if self.v6 { self.ip + 8..self.ip + 40 } else { self.ip + 12..self.ip + 20 };
        words(&frame[addresses]) + 17 + words(&frame[self.udp + 4..self.udp + 6])
    }
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// An address record to be rewritten: offset of its TTL, its owner, its type.
struct Place {
    ttl_at: usize,
    owner: Vec<u8>,
    kind: u16,
}

/// Holds what came out against what has to: on ingress the checksum may be one that a device is to finish. Returns the
/// verdict that it must have had.
pub fn check(ours: &Ours, before: &[u8], after: &[u8], ingress: bool) -> Result<TransitVerdict, String> {
    let places = match places(ours, before) {
        Ok(places) => places,
        Err(verdict) if before == after => return Ok(verdict),
        Err(verdict) => return Err(format!("changed, though {}", verdict.label())),
    };
    let Some(headers) = Headers::of(before) else { return Err("no headers".into()) };
    if before.len() != after.len() {
        return Err("another length".into());
    }
    let mut wanted = before.to_vec();
    let mut source = (None, 0, 0);
    let mut turns: HashMap<(Vec<u8>, u16), usize> = HashMap::new();
    for Place { ttl_at, owner, kind } in &places {
        let key = (owner.clone(), *kind);
        let served = &ours[&key];
        let len = if *kind == A { 4 } else { 16 };
        let (ttl, address) = (*ttl_at..ttl_at + 4, ttl_at + 6..ttl_at + 6 + len);
        let told = served.ttl.min(u32::from_be_bytes(before[ttl.clone()].try_into().unwrap()));
        wanted[ttl].copy_from_slice(&told.to_be_bytes());
        let (last, turn, given) = source;
        let (turn, given) = if last == Some(key.clone()) && given < served.turns[turn].len() {
            (turn, given)
        } else {
            let first = |turn: &usize| octets(served.turns[*turn][0]) == after[address.clone()];
            let turn = match turns.get(&key) {
                _ if served.by_client => client_turn(before, &headers) % served.turns.len(),
                Some(before) => (before + 1) % served.turns.len(),
                None => (0..served.turns.len()).find(first).ok_or("no instance's address")?,
            };
            turns.insert(key.clone(), turn);
            (turn, 0)
        };
        wanted[address].copy_from_slice(&octets(served.turns[turn][given]));
        source = (Some(key), turn, given + 1);
    }
    let field = headers.udp + 6..headers.udp + 8;
    let end = headers.udp + usize::from(u16::from_be_bytes([before[headers.udp + 4], before[headers.udp + 5]]));
    let sum = |frame: &[u8]| fold(headers.pseudo(frame) + words(&frame[headers.udp..end]));
    let old = u16::from_be_bytes([before[field.start], before[field.start + 1]]);
    let new = u16::from_be_bytes([after[field.start], after[field.start + 1]]);
    let unfinished = ingress && old == fold(headers.pseudo(before)) && sum(before) != 0xffff;
    if old == 0 || unfinished {
        if new != old {
            return Err(format!("checksum {old:#06x} became {new:#06x}"));
        }
    } else if sum(before) % 0xffff != sum(after) % 0xffff || new == 0 {
        return Err(format!("sum {:#06x} became {:#06x}, the checksum {new:#06x}", sum(before), sum(after)));
    }
    wanted[field.clone()].copy_from_slice(&after[field]);
    if wanted == after { Ok(TransitVerdict::Rewritten) } else { Err(format!("not {wanted:02x?}")) }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn client_turn(frame: &[u8], headers: &Headers) -> usize {
    let turn = if headers.v6 {
        client_turn_v6(u64::from_ne_bytes(frame[headers.ip + 24..headers.ip + 32].try_into().unwrap()))
    } else {
        client_turn_v4(u32::from_ne_bytes(frame[headers.ip + 16..headers.ip + 20].try_into().unwrap()))
    };
    assert!(turn < CLIENT_TURNS);
    turn.into()
}

/// What is to be rewritten, or why nothing is.
fn places(ours: &Ours, frame: &[u8]) -> Result<Vec<Place>, TransitVerdict> {
    use TransitVerdict as V;
    if frame.len() > 2047 {
        return Err(V::TooLong);
    }
    let short = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    if frame.len() < 54 {
        return Err(V::NotReply);
    }
    let Headers { ip, v6, udp } = Headers::of(frame).ok_or(V::NotReply)?;
    if !v6 && short(ip + 6) & 0x3fff != 0 {
        return Err(V::Fragment);
    }
    let payload = if v6 { Some(short(ip + 4)) } else { short(ip + 2).checked_sub(20) };
    if udp + 20 > frame.len() {
        return Err(V::BadLength);
    }
    if short(udp) != 53 {
        return Err(V::NotReply);
    }
    let payload = payload.filter(|len| udp + len <= frame.len()).ok_or(V::BadLength)?;
    if short(udp + 4) < 20 || short(udp + 4) > payload || (v6 && short(udp + 6) == 0) {
        return Err(V::BadLength);
    }
    let (dns, message) = (udp + 8, &frame[udp + 8..udp + short(udp + 4)]);
    let short =
        |at: usize| -> Option<usize> { message.get(at..at + 2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]]))) };
    let flags = short(2).unwrap_or(0);
    if flags & 0xf80f != 0x8000 || short(4) != Some(1) {
        return Err(V::OddHeader);
    }
    if flags & 0x0200 != 0 {
        return Err(V::Truncated);
    }
    if flags & 0x0020 != 0 {
        return Err(V::Signed);
    }
    let count = short(6).unwrap_or(0);
    match count {
        0 => return Err(V::NoAnswer),
        33.. => return Err(V::TooMany),
        _ => {}
    }
    let (_, mut at) = name(message, 12).ok_or(V::OddName)?;
    at += 4;
    let mut places = Vec::new();
    for _ in 0..count {
        let (owner, fixed) = name(message, at).ok_or(V::OddName)?;
        let len = short(fixed + 8).ok_or(V::OddRecord)?;
        let data = message.get(fixed + 10..fixed + 10 + len).ok_or(V::OddRecord)?;
        let kind = short(fixed).unwrap_or(0) as u16;
        if kind == RRSIG {
            return Err(V::Signed);
        }
        let known = |kind| ours.get(&(owner.clone(), kind));
        let is_ours = known(A).is_some() || known(AAAA).is_some();
        if is_ours && (kind == A || kind == AAAA) && short(fixed + 2) == Some(1) {
            if data.len() != if kind == A { 4 } else { 16 } {
                return Err(V::OddRecord);
            }
            if known(kind).is_none_or(|served| served.turns.is_empty()) {
                return Err(V::NoInstance);
            }
            places.push(Place { ttl_at: dns + fixed + 4, owner, kind });
        }
        at = fixed + 10 + len;
    }
    if places.is_empty() { Err(V::NotOurs) } else { Ok(places) }
}

/// A name in lower case without pointers, and where it ends.
fn name(message: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut at, mut next, mut wire) = (start, None, Vec::new());
    for _ in 0..40 {
        match usize::from(*message.get(at)?) {
            0 => {
                wire.push(0);
                return Some((wire, next.unwrap_or(at + 1)));
            }
            len @ 1..=63 => {
                let label = message.get(at..at + 1 + len)?;
                wire.extend(label.iter().map(u8::to_ascii_lowercase));
                at += 1 + len;
                if wire.len() > 254 || at >= message.len() {
                    return None;
                }
            }
            0xc0.. => {
                let target = usize::from(u16::from_be_bytes([message[at], *message.get(at + 1)?]) & 0x3fff);
                next = next.or(Some(at + 2));
                if target >= at || target < 12 {
                    return None;
                }
                at = target;
            }
            _ => return None,
        }
    }
    None
}

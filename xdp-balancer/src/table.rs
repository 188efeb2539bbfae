//! What is to be answered, in the terms of DNS, and its check before anything is touched.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use xdp_balancer_common::{
    ANSWER_BYTES, AnswerHead, CLIENT_TURNS, CookieSecret, LOCAL_ADDRESSES, NameEntry, QUIET_PREFIXES, QuietPrefix,
    Settings, TYPE_SLOTS, Verdict,
};

use crate::error::{Error, Problem};

/// Bits that an answer may set in the header: AA and RCODE.
const ANSWER_FLAGS: u16 = 0x040f;
const RCODE: u16 = 0x000f;
const NXDOMAIN: u16 = 3;

/// Everything that the program is to answer. What is not in it is passed on to user space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Number of this table; must be higher than that of the one in force.
    pub generation: u64,
    /// Addresses that queries may be sent to, at most 8 of each family.
    pub local: Vec<IpAddr>,
    /// Answer whatever address a query was sent to.
    pub transparent: bool,
    /// Speak DNS cookies with this secret; `None`: they are ignored.
    pub cookies: Option<CookieSecret>,
    /// Leave queries that carry an EDNS client subnet to user space.
    pub client_subnet: bool,
    /// Clients, as address and length of their prefix, whose queries and packets are no sign of use.
    pub monitors: Vec<(IpAddr, u8)>,
    /// Addresses of this node whose packets to instances are none either: it probes.
    pub own: Vec<(IpAddr, u8)>,
    /// The names, each once: every one that exists in our zones.
    pub names: Vec<Name>,
}

/// A name and its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Wire form, any letter case.
    pub wire: Vec<u8>,
    /// Index of the service's counters.
    pub service: u32,
    /// What it has, by type.
    pub rrsets: Vec<Rrset>,
    /// What every other data type gets: that there is none. `None`: user space answers.
    pub others: Option<Arc<Ring>>,
    /// What names below it get that do not exist and have no nearer ancestor in the table.
    pub below: Below,
}

/// The answers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrset {
    /// Type in host order.
    pub qtype: u16,
    /// `None`: nothing is published now, and queries go to user space.
    pub ring: Option<Arc<Ring>>,
}

/// What names get that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Below {
    /// User space answers.
    #[default]
    UserSpace,
    /// This, which says that there is no such name.
    Denied(Arc<Ring>),
    /// What the wildcard below this name has, which is in the table too.
    Wildcard,
}

/// Variants of an answer. Names that hold the same one share it, so that it changes for all in one store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring {
    /// The variants.
    pub answers: Vec<Rendered>,
    /// Indices into `answers`, in the order in which they are given.
    pub turns: Vec<u16>,
    /// Whether the client's address picks the turn (of [`CLIENT_TURNS`]) rather than round robin.
    pub by_client: bool,
}

impl Ring {
    /// One answer, always the same.
    #[must_use]
    pub fn single(answer: Rendered) -> Self {
        Self { answers: vec![answer], turns: vec![0], by_client: false }
    }

    /// Each answer in its turn.
    #[must_use]
    pub fn round_robin(answers: Vec<Rendered>) -> Self {
        let turns = (0..answers.len()).map(|index| index as u16).collect();
        Self { answers, turns, by_client: false }
    }
}

/// One rendered answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rendered {
    /// AA (0x0400) and RCODE, host order.
    pub flags: u16,
    /// Records in the answer section.
    pub ancount: u16,
    /// Records in the authority section.
    pub nscount: u16,
    /// Records in the additional section, at most 254; an OPT is no part of it.
    pub arcount: u16,
    /// The records in wire form; owner names that equal the question's are the pointer 0xC00C.
    pub bytes: Vec<u8>,
}

/// A ring in the form of the pool.
pub(crate) type Shared = Arc<CheckedRing>;

/// A checked ring: answers differ and stand in the order of their first turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedRing {
    /// Heads and records.
    pub answers: Vec<(AnswerHead, Vec<u8>)>,
    pub turns: Vec<u16>,
    pub by_client: bool,
}

impl CheckedRing {
    /// Whether any of its answers is this.
    fn says(&self, verdict: Verdict) -> bool {
        self.answers.iter().any(|(head, _)| head.verdict == verdict as u16)
    }
}

/// What a ring of a name is for. The program looks through the types from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// A type's; what is asked most comes first.
    Type(u8, u16),
    /// All other types'.
    Others,
    /// That of names below it.
    Below,
}

impl Role {
    /// A type's.
    pub(crate) fn of_type(qtype: u16) -> Self {
        const A: u16 = 1;
        const AAAA: u16 = 28;
        let rank = match qtype {
            A => 0,
            AAAA => 1,
            _ => 2,
        };
        Self::Type(rank, qtype)
    }
}

/// A checked table: names in lower case, each once.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub generation: u64,
    /// All but secret, epoch and generation.
    pub settings: Settings,
    pub names: BTreeMap<Vec<u8>, CheckedName>,
}

/// A checked name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckedName {
    pub service: u32,
    /// In order; `None`: nothing published.
    pub rings: Vec<(Role, Option<Shared>)>,
    /// The wildcard that names below it have, in wire form.
    pub wildcard: Option<Vec<u8>>,
}

/// Rings that were checked already. Holding both keeps a pointer from meaning another ring.
pub(crate) type Known = HashMap<*const Ring, (Arc<Ring>, Shared)>;

impl Table {
    /// Checks that all of it can be expressed in the tables. `known` are the rings of the table before and becomes
    /// those of this one.
    pub(crate) fn check(&self, services: u32, known: &mut Rings) -> Result<Checked, Error> {
        let settings = self.settings()?;
        let mut now = Known::with_capacity(known.0.len());
        let mut names = BTreeMap::new();
        for name in &self.names {
            let invalid = |problem| Error::Invalid { name: present(&name.wire), problem };
            let entry = NameEntry::new(&name.wire).ok_or_else(|| invalid(Problem::Name))?;
            if name.service >= services.min(u16::MAX.into()) {
                return Err(invalid(Problem::Service(name.service)));
            }
            let mut ring = |ring: &Arc<Ring>| known.checked(ring, &mut now).map_err(invalid);
            let mut rings = Vec::with_capacity(name.rrsets.len() + 2);
            if name.rrsets.len() > TYPE_SLOTS {
                return Err(invalid(Problem::Types(name.rrsets.len())));
            }
            for rrset in &name.rrsets {
                let role = Role::of_type(rrset.qtype);
                if rrset.qtype == 0 || rings.iter().any(|(other, _)| *other == role) {
                    return Err(invalid(Problem::Type(rrset.qtype)));
                }
                let ring = rrset.ring.as_ref().map(&mut ring).transpose()?;
                // The program would take the name for one that does not exist.
                if ring.as_ref().is_some_and(|ring| ring.says(Verdict::NxDomain)) {
                    return Err(invalid(Problem::Denied));
                }
                rings.push((role, ring));
            }
            if let Some(others) = &name.others {
                let others = ring(others)?;
                if others.says(Verdict::NxDomain) {
                    return Err(invalid(Problem::Denied));
                }
                rings.push((Role::Others, Some(others)));
            }
            let wire = wire_of(&entry);
            let mut wildcard = None;
            match &name.below {
                Below::UserSpace => {}
                Below::Denied(denied) => {
                    let denied = ring(denied)?;
                    if !denied.answers.iter().all(|(head, _)| head.verdict == Verdict::NxDomain as u16) {
                        return Err(invalid(Problem::Denied));
                    }
                    rings.push((Role::Below, Some(denied)));
                }
                Below::Wildcard => wildcard = Some(wildcard_of(&wire)),
            }
            rings.sort_by_key(|(role, _)| *role);
            if names.insert(wire, CheckedName { service: name.service, rings, wildcard }).is_some() {
                return Err(invalid(Problem::DuplicateName));
            }
        }
        for (wire, name) in &names {
            if name.wildcard.as_ref().is_some_and(|wildcard| !names.contains_key(wildcard)) {
                return Err(Error::Invalid { name: present(wire), problem: Problem::Wildcard });
            }
        }
        known.0 = now;
        Ok(Checked { generation: self.generation, settings, names })
    }

    fn settings(&self) -> Result<Settings, Error> {
        let mut settings = Settings { cookie_secret: self.cookies.unwrap_or_default(), ..Settings::default() };
        let features = [
            (self.transparent, Settings::TRANSPARENT),
            (self.cookies.is_some(), Settings::COOKIES),
            (self.client_subnet, Settings::CLIENT_SUBNET),
        ];
        settings.features = features.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
        let (mut local4, mut local6) = (Vec::new(), Vec::new());
        for address in &self.local {
            match address {
                IpAddr::V4(address) => local4.push(u32::from_ne_bytes(address.octets())),
                IpAddr::V6(address) => {
                    let [a, b, c, d, e, f, g, h, rest @ ..] = address.octets();
                    local6.push([u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]);
                }
            }
        }
        for count in [local4.len(), local6.len()] {
            if count > LOCAL_ADDRESSES {
                return Err(Error::Invalid { name: "local addresses".into(), problem: Problem::Local(count) });
            }
        }
        let quiet: Vec<QuietPrefix> =
            self.monitors.iter().chain(&self.own).map(|(address, len)| quiet_prefix(*address, *len)).collect();
        if quiet.len() > QUIET_PREFIXES {
            return Err(Error::Invalid { name: "quiet prefixes".into(), problem: Problem::Quiet(quiet.len()) });
        }
        settings.quiet_lens = [self.monitors.len() as u32, quiet.len() as u32];
        settings.quiet[..quiet.len()].copy_from_slice(&quiet);
        settings.local_lens = [local4.len() as u32, local6.len() as u32];
        settings.local4[..local4.len()].copy_from_slice(&local4);
        settings.local6[..local6.len()].copy_from_slice(&local6);
        Ok(settings)
    }
}

/// A prefix as the program compares it.
fn quiet_prefix(address: IpAddr, len: u8) -> QuietPrefix {
    let (address, len) = match address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(len) + 96),
        IpAddr::V6(v6) => (v6, len.into()),
    };
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(len)).unwrap_or(0);
    let words = |bits: u128| {
        let bytes = bits.to_be_bytes();
        std::array::from_fn(|i| u32::from_ne_bytes(std::array::from_fn(|j| bytes[4 * i + j])))
    };
    QuietPrefix { address: words(u128::from(address) & mask), mask: words(mask) }
}

/// See [`Known`].
#[derive(Debug, Default)]
pub(crate) struct Rings(Known);

// SAFETY: the pointers are keys and never followed.
unsafe impl Send for Rings {}

impl Rings {
    fn checked(&self, ring: &Arc<Ring>, now: &mut Known) -> Result<Shared, Problem> {
        let key = Arc::as_ptr(ring);
        if let Some((_, checked)) = now.get(&key) {
            return Ok(Arc::clone(checked));
        }
        let checked = match self.0.get(&key) {
            Some((_, checked)) => Arc::clone(checked),
            None => Arc::new(ring.check()?),
        };
        now.insert(key, (Arc::clone(ring), Arc::clone(&checked)));
        Ok(checked)
    }
}

impl Ring {
    fn check(&self) -> Result<CheckedRing, Problem> {
        if self.turns.is_empty() || self.turns.len() > usize::from(u16::MAX) {
            return Err(Problem::Ring(self.turns.len()));
        }
        if self.by_client && self.turns.len() != usize::from(CLIENT_TURNS) {
            return Err(Problem::ClientRing(self.turns.len()));
        }
        let mut answers: Vec<(AnswerHead, Vec<u8>)> = Vec::new();
        let mut places: HashMap<&Rendered, u16> = HashMap::new();
        let mut turns = Vec::with_capacity(self.turns.len());
        for turn in &self.turns {
            let rendered = self.answers.get(usize::from(*turn)).ok_or(Problem::Turn(*turn))?;
            let place = match places.get(rendered) {
                Some(place) => *place,
                None => {
                    let place = answers.len() as u16;
                    answers.push((rendered.head()?, rendered.bytes.clone()));
                    places.insert(rendered, place);
                    place
                }
            };
            turns.push(place);
        }
        // One that never changes needs no turns.
        if answers.len() == 1 {
            turns.truncate(1);
        }
        let by_client = self.by_client && answers.len() > 1;
        Ok(CheckedRing { answers, turns, by_client })
    }
}

impl Rendered {
    /// As it is told to the program.
    pub(crate) fn head(&self) -> Result<AnswerHead, Problem> {
        // Shorter ones than a record are copied by another rule.
        if self.bytes.len() > ANSWER_BYTES || (1..8).contains(&self.bytes.len()) {
            return Err(Problem::Answer(self.bytes.len()));
        }
        if self.flags & !ANSWER_FLAGS != 0 {
            return Err(Problem::Flags(self.flags));
        }
        if self.arcount >= 0xff {
            return Err(Problem::Additional(self.arcount));
        }
        let counts = [self.ancount.to_be_bytes(), self.nscount.to_be_bytes(), self.arcount.to_be_bytes()];
        Ok(AnswerHead {
            len: self.bytes.len() as u16,
            sum: sum(&self.bytes),
            flags: self.flags.to_be(),
            counts: sum(counts.as_flattened()),
            ancount: self.ancount.to_be(),
            nscount: self.nscount.to_be(),
            arcount: self.arcount.to_be(),
            verdict: self.verdict() as u16,
        })
    }

    /// What it says.
    fn verdict(&self) -> Verdict {
        match (self.ancount, self.flags & RCODE) {
            (0, NXDOMAIN) => Verdict::NxDomain,
            (0, 0) => Verdict::NoData,
            _ => Verdict::Answered,
        }
    }
}

/// One's complement sum of words in memory order; a last odd byte is the first half of a word.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A stored name's wire form, in lower case.
pub(crate) fn wire_of(entry: &NameEntry) -> Vec<u8> {
    let mut wire: Vec<u8> = entry.text.iter().flat_map(|chunk| chunk.to_ne_bytes()).collect();
    wire.truncate(entry.wire_len as usize);
    wire
}

/// The wildcard below a name.
pub(crate) fn wildcard_of(wire: &[u8]) -> Vec<u8> {
    [b"\x01*", wire].concat()
}

/// A name for people, as far as its wire form can be read.
pub(crate) fn present(wire: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = wire;
    while let Some((len, tail)) = rest.split_first() {
        let len = usize::from(*len);
        if len == 0 || len > tail.len() {
            break;
        }
        for byte in &tail[..len] {
            if byte.is_ascii_graphic() && *byte != b'.' && *byte != b'\\' {
                text.push(char::from(*byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\{byte:03}");
            }
        }
        text.push('.');
        rest = &tail[len..];
    }
    if text.is_empty() { ".".into() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::*;

    fn name(wire: &[u8], rrsets: Vec<Rrset>) -> Name {
        Name { wire: wire.to_vec(), service: 0, rrsets, others: None, below: Below::UserSpace }
    }

    fn check(table: &Table) -> Result<Checked, Error> {
        table.check(1, &mut Rings::default())
    }

    fn problem(name: Name) -> Problem {
        match check(&Table { names: vec![name], ..Table::default() }) {
            Err(Error::Invalid { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    fn rrset(qtype: u16, ring: Ring) -> Rrset {
        Rrset { qtype, ring: Some(Arc::new(ring)) }
    }

    fn empty(qtype: u16) -> Rrset {
        Rrset { qtype, ring: None }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let single = |rendered: Rendered| problem(name(b"\x01a\0", vec![rrset(1, Ring::single(rendered))]));
        assert_eq!(problem(name(b"\x01a", vec![])), Problem::Name);
        let long = Rendered { bytes: vec![0; ANSWER_BYTES + 1], ..Rendered::default() };
        assert_eq!(single(long), Problem::Answer(ANSWER_BYTES + 1));
        assert_eq!(single(Rendered { bytes: vec![0; 7], ..Rendered::default() }), Problem::Answer(7));
        assert_eq!(single(Rendered { flags: 0x8000, ..Rendered::default() }), Problem::Flags(0x8000));
        assert_eq!(single(Rendered { arcount: 255, ..Rendered::default() }), Problem::Additional(255));
        assert_eq!(problem(name(b"\x01a\0", vec![empty(0)])), Problem::Type(0));
        assert_eq!(problem(name(b"\x01a\0", vec![empty(1), empty(1)])), Problem::Type(1));
        assert_eq!(problem(name(b"\x01a\0", (1..=9).map(empty).collect())), Problem::Types(9));
        let ring = Ring { answers: vec![Rendered::default()], turns: vec![0; 65536], by_client: false };
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, ring.clone())])), Problem::Ring(65536));
        let few = Ring { turns: vec![0; 7], by_client: true, ..ring.clone() };
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, few)])), Problem::ClientRing(7));
        let beyond = Ring { turns: vec![1], ..ring };
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, beyond)])), Problem::Turn(1));
        let far = Name { service: 1, ..name(b"\x01a\0", vec![]) };
        assert_eq!(problem(far), Problem::Service(1));
        let wild = Name { below: Below::Wildcard, ..name(b"\x01a\0", vec![]) };
        assert_eq!(problem(wild), Problem::Wildcard);
    }

    #[test]
    fn rings_are_in_the_order_of_their_turns() {
        let rendered = |ancount| Rendered { ancount, ..Rendered::default() };
        let ring = Ring {
            answers: vec![rendered(1), rendered(2), rendered(2), rendered(3)],
            turns: vec![3, 2, 3, 1],
            by_client: false,
        };
        let checked = ring.check().unwrap();
        let counts: Vec<_> = checked.answers.iter().map(|(head, _)| u16::from_be(head.ancount)).collect();
        assert_eq!((counts, checked.turns), (vec![3, 2], vec![0, 1, 0, 1]));
    }

    #[test]
    fn rings_are_checked_once() {
        let shared = Arc::new(Ring::single(Rendered::default()));
        let named = |wire: &[u8]| name(wire, vec![Rrset { qtype: 1, ring: Some(Arc::clone(&shared)) }]);
        let table = Table { names: vec![named(b"\x01a\0"), named(b"\x01b\0")], ..Table::default() };
        let mut rings = Rings::default();
        let mut of = |table: &Table| {
            let checked = table.check(1, &mut rings).unwrap();
            let rings = checked.names.values().map(|name| name.rings[0].1.clone().unwrap());
            rings.collect::<Vec<_>>()
        };
        let (first, second) = (of(&table), of(&table));
        assert!(Arc::ptr_eq(&first[0], &first[1]) && Arc::ptr_eq(&first[0], &second[0]));
    }

    #[test]
    fn names_are_equal_in_any_case() {
        let table = Table { names: vec![name(b"\x01a\0", vec![]), name(b"\x01A\0", vec![])], ..Table::default() };
        let error = check(&table).unwrap_err();
        assert!(
            matches!(error, Error::Invalid { ref name, problem: Problem::DuplicateName } if name == "A."),
            "{error}"
        );
    }

    #[test]
    fn addresses_of_a_family_are_limited() {
        let local = (0..9).map(|i| IpAddr::from([192, 0, 2, i])).collect();
        let error = check(&Table { local, ..Table::default() }).unwrap_err();
        assert!(matches!(error, Error::Invalid { problem: Problem::Local(9), .. }), "{error}");
    }

    #[test]
    fn an_odd_byte_is_the_first_half_of_a_word() {
        assert_eq!(sum(&[0x12, 0x34, 0x56]), u16::from_ne_bytes([0x12, 0x34]) + u16::from_ne_bytes([0x56, 0]));
        assert_eq!(sum(&[0xff, 0xff, 0x00, 0x01]), u16::from_ne_bytes([0, 1]));
    }

    #[test]
    fn wire_form_survives_the_table() {
        let entry = NameEntry::new(b"\x03wWw\x07example\0").unwrap();
        assert_eq!(wire_of(&entry), b"\x03www\x07example\0");
        assert_eq!(present(b"\x03w.w\0"), "w\\046w.");
    }
}

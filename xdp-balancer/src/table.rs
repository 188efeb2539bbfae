//! What is published: names with their rendered answers, checked before anything is touched.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use xdp_balancer_common::{ANSWER_BYTES, Answer, LOCAL_ADDRESSES, NameEntry, TYPE_SLOTS};

use crate::error::{Error, Problem};

/// Bits that an answer may set: AA and RCODE.
const ANSWER_FLAGS: u16 = 0x040f;

/// Everything that the program is to answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Number of this state; only a larger one replaces it.
    pub generation: u64,
    /// Addresses that queries may be sent to.
    pub local: Vec<IpAddr>,
    /// The names.
    pub names: Vec<Name>,
}

/// A name and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Wire form, any letter case.
    pub wire: Vec<u8>,
    /// Index of the service's counters.
    pub service: u32,
    /// One entry per type that the program is to answer; other types go to user space.
    pub rrsets: Vec<Rrset>,
}

/// The answers of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrset {
    /// Type in host order.
    pub qtype: u16,
    /// Variants in round-robin order, one per unit of weight. Empty: nothing is published now, and
    /// queries go to user space.
    pub ring: Vec<Rendered>,
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
    /// The records in wire form; owner names that equal the question's are the pointer 0xC00C.
    pub bytes: Vec<u8>,
}

/// A ring in the form of the answer slots. Within a checked table, equal rings of a service are the same.
pub(crate) type Ring = Arc<[Answer]>;

/// A checked table: names in lower case, each once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    pub generation: u64,
    pub local4: Vec<u32>,
    pub local6: Vec<[u32; 4]>,
    pub names: BTreeMap<Vec<u8>, CheckedName>,
}

/// A checked name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckedName {
    pub service: u32,
    /// In the order of the type slots.
    pub types: Vec<(u16, Ring)>,
}

impl Table {
    /// Checks that all of it can be expressed in the tables.
    pub(crate) fn check(&self, services: u32) -> Result<Checked, Error> {
        let (mut local4, mut local6) = (Vec::new(), Vec::new());
        for address in &self.local {
            match address {
                IpAddr::V4(address) => local4.push(u32::from_ne_bytes(address.octets())),
                IpAddr::V6(address) => {
                    let octets = address.octets();
                    let mut words = [0; 4];
                    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
                        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    }
                    local6.push(words);
                }
            }
        }
        for count in [local4.len(), local6.len()] {
            if count > LOCAL_ADDRESSES {
                return Err(Error::Invalid { name: "local addresses".into(), problem: Problem::Local(count) });
            }
        }

        let mut names = BTreeMap::new();
        let mut rings = HashMap::new();
        for name in &self.names {
            let invalid = |problem| Error::Invalid { name: present(&name.wire), problem };
            let entry = NameEntry::new(&name.wire).ok_or_else(|| invalid(Problem::Name))?;
            if name.service >= services {
                return Err(invalid(Problem::Service(name.service)));
            }
            let checked = CheckedName { service: name.service, types: check_types(name, &mut rings).map_err(invalid)? };
            if names.insert(wire_of(&entry), checked).is_some() {
                return Err(invalid(Problem::DuplicateName));
            }
        }
        Ok(Checked { generation: self.generation, local4, local6, names })
    }
}

/// Rings by what makes them one: names of a service with equal answers share them.
type Rings<'a> = HashMap<(u32, u16, &'a [Rendered]), Ring>;

fn check_types<'a>(name: &'a Name, rings: &mut Rings<'a>) -> Result<Vec<(u16, Ring)>, Problem> {
    if name.rrsets.len() > TYPE_SLOTS {
        return Err(Problem::Types(name.rrsets.len()));
    }
    let mut types = Vec::with_capacity(name.rrsets.len());
    for rrset in &name.rrsets {
        if rrset.qtype == 0 || types.iter().any(|(qtype, _)| *qtype == rrset.qtype) {
            return Err(Problem::Type(rrset.qtype));
        }
        if rrset.ring.len() > usize::from(u16::MAX) {
            return Err(Problem::Ring(rrset.ring.len()));
        }
        let key = (name.service, rrset.qtype, rrset.ring.as_slice());
        let ring = match rings.get(&key) {
            Some(ring) => Arc::clone(ring),
            None => {
                let ring = rrset.ring.iter().map(Rendered::slot).collect::<Result<Ring, _>>()?;
                rings.insert(key, Arc::clone(&ring));
                ring
            }
        };
        types.push((rrset.qtype, ring));
    }
    // The program looks from the first slot on: what is asked most stands first.
    types.sort_by_key(|(qtype, _)| (*qtype != 1, *qtype != 28, *qtype));
    Ok(types)
}

impl Rendered {
    fn slot(&self) -> Result<Answer, Problem> {
        if self.bytes.len() > ANSWER_BYTES {
            return Err(Problem::Answer(self.bytes.len()));
        }
        if self.flags & !ANSWER_FLAGS != 0 {
            return Err(Problem::Flags(self.flags));
        }
        let mut slot = Answer {
            len: self.bytes.len() as u16,
            sum: sum(&self.bytes),
            flags: self.flags.to_be(),
            ancount: self.ancount.to_be(),
            nscount: self.nscount.to_be(),
            ..Answer::ZERO
        };
        slot.bytes[..self.bytes.len()].copy_from_slice(&self.bytes);
        Ok(slot)
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

/// A name for people, as far as its wire form can be read.
fn present(wire: &[u8]) -> String {
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
        Name { wire: wire.to_vec(), service: 0, rrsets }
    }

    fn problem(name: Name) -> Problem {
        let table = Table { names: vec![name], ..Table::default() };
        match table.check(1) {
            Err(Error::Invalid { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    fn rrset(qtype: u16, ring: Vec<Rendered>) -> Rrset {
        Rrset { qtype, ring }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let long = Rendered { bytes: vec![0; ANSWER_BYTES + 1], ..Rendered::default() };
        let flags = Rendered { flags: 0x8000, ..Rendered::default() };
        assert_eq!(problem(name(b"\x01a", vec![])), Problem::Name);
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, vec![long])])), Problem::Answer(ANSWER_BYTES + 1));
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, vec![flags])])), Problem::Flags(0x8000));
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(0, vec![])])), Problem::Type(0));
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, vec![]), rrset(1, vec![])])), Problem::Type(1));
        assert_eq!(problem(name(b"\x01a\0", (1..=9).map(|qtype| rrset(qtype, vec![])).collect())), Problem::Types(9));
        let ring = vec![Rendered::default(); 65536];
        assert_eq!(problem(name(b"\x01a\0", vec![rrset(1, ring)])), Problem::Ring(65536));
        let far = Name { service: 1, ..name(b"\x01a\0", vec![]) };
        assert_eq!(problem(far), Problem::Service(1));
    }

    #[test]
    fn names_are_equal_in_any_case() {
        let table = Table { names: vec![name(b"\x01a\0", vec![]), name(b"\x01A\0", vec![])], ..Table::default() };
        let error = table.check(1).unwrap_err();
        assert!(
            matches!(error, Error::Invalid { ref name, problem: Problem::DuplicateName } if name == "A."),
            "{error}"
        );
    }

    #[test]
    fn addresses_of_a_family_are_limited() {
        let local = (0..9).map(|i| IpAddr::from([192, 0, 2, i])).collect();
        let error = Table { local, ..Table::default() }.check(1).unwrap_err();
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

//! Limits, lists, and what becomes of stale tables: set at any time, whatever is published.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use xdp_balancer_common::{Guard, LIST_ALLOW, LIST_DENY, ListKey, NotedName, Rate, mask_v4, mask_v6, object};

use crate::dataplane::Dataplane;
use crate::drift::{Drift, DriftKind, Mended};
use crate::error::{Error, Problem};
use crate::maps::{Maps, random};
use crate::pins::Pins;
use crate::sys;

/// A network: address and length of its prefix.
pub type Prefix = (IpAddr, u8);

/// Who is answered how much, and what becomes of stale tables. The default is to answer everybody everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Limits.
    pub limits: Limits,
    /// Clients that are not limited.
    pub allow: Vec<Prefix>,
    /// Clients that are not answered.
    pub deny: Vec<Prefix>,
    /// Whether those are told so (REFUSED) rather than left without an answer.
    pub deny_refuses: bool,
    /// What becomes of tables of which nobody says that they are still right.
    pub stale: Stale,
    /// One query in 2ⁿ is noted, to know who asks most and for what; `None`: none is.
    pub sample: Option<u8>,
    /// Of one query in 2ⁿ it is measured what it costs; `None`: of none.
    pub costs: Option<u8>,
}

/// Answers in a second, each with a burst of a second's; 0: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To a client prefix.
    pub client: u32,
    /// Of a service.
    pub service: u32,
    /// In all.
    pub total: u32,
    /// Bits of an IPv4 address that make clients one, at most 32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that make clients one, at most 64.
    pub prefix_v6: u8,
    /// Each so many answers over a limit one goes out truncated and without records; 0: none does.
    pub slip: u32,
    /// Most bytes that go out for one that came in, to who has not proven its address; 0: any.
    pub amplification: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { client: 0, service: 0, total: 0, prefix_v4: 24, prefix_v6: 56, slip: 2, amplification: 0 }
    }
}

/// What is done once there was no heartbeat for so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// Nothing.
    #[default]
    Keep,
    /// No TTL is longer than so many seconds.
    Shorten {
        /// How long.
        after: Duration,
        /// Seconds.
        ttl: u32,
    },
    /// Nothing is answered from them.
    Pass {
        /// How long.
        after: Duration,
    },
}

/// How old the tables' last sign of life is, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Time since the daemon was last there; `None`: it never was.
    pub heartbeat_age: Option<Duration>,
    /// Whether that is too long.
    pub stale: bool,
}

/// What asks most and is asked for most, of the queries that were noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// Client prefixes, the most first: their address, and queries that were noted.
    pub clients: Vec<(IpAddr, u64)>,
    /// Names in lower case, wire form (of long ones the first bytes), the most first.
    pub names: Vec<(Vec<u8>, u64)>,
    /// For how many queries one that was noted stands; 0: none is noted.
    pub one_in: u64,
}

impl Rules {
    fn guard(&self, secret: u64) -> Guard {
        let Limits { client, service, total, prefix_v4, prefix_v6, slip, amplification } = self.limits;
        let limited = client != 0 || service != 0 || total != 0 || amplification != 0;
        let (stale_ns, stale_ttl) = match self.stale {
            Stale::Keep => (0, 0),
            Stale::Shorten { after, ttl } => (nanoseconds(after), ttl.into()),
            Stale::Pass { after } => (nanoseconds(after), 0),
        };
        let features = [
            (limited, Guard::LIMITS),
            (!self.allow.is_empty() || !self.deny.is_empty(), Guard::LISTS),
            (!self.deny.is_empty() && !self.deny_refuses, Guard::DENY_DROPS),
            (matches!(self.stale, Stale::Pass { .. }), Guard::STALE_PASSES),
            (matches!(self.stale, Stale::Shorten { .. }), Guard::STALE_SHORTENS),
            (self.sample.is_some(), Guard::SAMPLES),
            (self.costs.is_some(), Guard::COSTS),
        ];
        let mask = |one_in: Option<u8>| one_in.map_or(0, |n| (1_u64 << n.min(31)) - 1);
        Guard {
            features: features.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
            secret,
            client: Rate::per_second(client),
            service: Rate::per_second(service),
            total: Rate::per_second(total),
            mask_v4: mask_v4(prefix_v4.min(32)),
            mask_v6: mask_v6(prefix_v6.min(64)),
            slip: slip.into(),
            amplification: amplification.into(),
            stale_ns,
            stale_ttl,
            sample_mask: mask(self.sample),
            cost_mask: mask(self.costs),
        }
    }

    /// A prefix that is in both lists is denied.
    fn lists(&self) -> BTreeMap<ListKey, u32> {
        let of = |list: &[Prefix], value| list.iter().map(move |prefix| (list_key(*prefix), value)).collect::<Vec<_>>();
        of(&self.allow, LIST_ALLOW).into_iter().chain(of(&self.deny, LIST_DENY)).collect()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A prefix as lists hold it.
pub(crate) fn list_key((address, len): Prefix) -> ListKey {
    let (address, len) = match address {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(len) + 96),
        IpAddr::V6(v6) => (v6, len.into()),
    };
    // Bits behind the prefix do not count, but two keys must not differ in them.
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(len)).unwrap_or(0);
    let bytes = (u128::from(address) & mask).to_be_bytes();
    let word = |i: usize| u32::from_ne_bytes(std::array::from_fn(|j| bytes[4 * i + j]));
    ListKey { len, address: std::array::from_fn(word) }
}

impl Dataplane {
    /// Puts rules in force, for all answers from now on. On an error the lists may hold some of the new ones already.
    pub fn set_rules(&mut self, rules: &Rules) -> Result<(), Error> {
        let wanted = rules.lists();
        let capacity = self.maps.lists_capacity;
        if wanted.len() > capacity as usize {
            return Err(Error::Invalid {
                name: "lists of clients".into(),
                problem: Problem::Lists(wanted.len(), capacity),
            });
        }
        self.maps.set_lists(&wanted)?;
        let secret = match self.maps.guard().secret {
            0 => random()?,
            secret => secret,
        };
        let guard = rules.guard(secret);
        self.maps.set_guard(&guard);
        self.rules = Some((guard, wanted));
        Ok(())
    }

    /// What differs of the rules' words from what was set, put right.
    pub(crate) fn mend_guard(&mut self) -> Option<Mended> {
        let (wanted, _) = self.rules.as_ref()?;
        let found = self.maps.guard();
        if found == *wanted {
            return None;
        }
        let drift = Drift::new(DriftKind::Rules, object::POOL, guard_words(&found, wanted));
        self.maps.set_guard(wanted);
        Some((drift, Ok(())))
    }

    /// The same of the lists, and of the answers without records.
    pub(crate) fn mend_lists(&mut self) -> Result<Vec<Mended>, Error> {
        let mut mended = Vec::new();
        if self.maps.bare_answers_differ() {
            self.maps.write_bare_answers();
            mended.push((Drift::new(DriftKind::Rules, object::POOL, "answers without records differ"), Ok(())));
        }
        let Some((_, wanted)) = self.rules.as_ref() else { return Ok(mended) };
        let found = self.maps.lists()?;
        let missing = wanted.iter().filter(|(key, value)| found.get(key) != Some(value)).count();
        let others = found.keys().filter(|key| !wanted.contains_key(key)).count();
        if missing + others != 0 {
            let what = format!("{missing} prefixes are missing or altered, {others} are there and shall not be");
            let outcome = self.maps.set_lists(wanted);
            mended.push((Drift::new(DriftKind::Rules, object::LISTS, what), outcome));
        }
        Ok(mended)
    }

    /// Says that the tables are kept right: to be told once a second.
    pub fn beat(&self) {
        self.maps.set_heartbeat(sys::monotonic_ns());
    }

    /// How old the last sign of life is.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.maps.freshness()
    }

    /// The rules' words as the program reads them.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.maps.guard()
    }

    /// See [`top`].
    pub fn top(&self, most: usize) -> Result<Top, Error> {
        self.maps.top(most)
    }
}

/// Who asks most and for what, of the queries that were noted since the maps were made; `None` where no maps of this
/// layout are. Needs no process that holds the dataplane.
pub fn top(pin_dir: &Path, most: usize) -> Result<Option<Top>, Error> {
    Maps::found(&Pins::new(pin_dir))?.map(|maps| maps.top(most)).transpose()
}

/// Which words differ.
fn guard_words(found: &Guard, wanted: &Guard) -> String {
    let limits = |guard: &Guard| (guard.client, guard.service, guard.total, guard.slip, guard.amplification);
    let parts = [
        ("features", found.features != wanted.features),
        ("limits", limits(found) != limits(wanted)),
        ("client prefixes", (found.mask_v4, found.mask_v6) != (wanted.mask_v4, wanted.mask_v6)),
        ("stale tables", (found.stale_ns, found.stale_ttl) != (wanted.stale_ns, wanted.stale_ttl)),
        ("samples", (found.sample_mask, found.cost_mask) != (wanted.sample_mask, wanted.cost_mask)),
        ("secret", found.secret != wanted.secret),
    ];
    let words: Vec<&str> = parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| *what).collect();
    words.join(", ")
}

/// The most first, and no more than `most`.
fn largest<T: Ord>(mut counted: Vec<(T, u64)>, most: usize) -> Vec<(T, u64)> {
    counted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counted.truncate(most);
    counted
}

/// The bytes up to the name's end, in lower case.
fn wire_of(name: &NotedName) -> Vec<u8> {
    let (mut wire, mut at) = (name.0.to_ascii_lowercase(), 0);
    while let Some(len) = name.0.get(at).copied() {
        // A length is no letter.
        wire[at] = len;
        at += usize::from(len) + 1;
        if len == 0 {
            break;
        }
    }
    wire.truncate(at.min(name.0.len()));
    wire
}

/// The address of a client prefix.
fn client_of(key: u64) -> IpAddr {
    let [first, b, c, d, rest @ ..] = key.to_ne_bytes();
    // As no IPv6 client's begins.
    if first == 0xff {
        return Ipv4Addr::from(rest).into();
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&[&[first, b, c, d], rest.as_slice()].concat());
    Ipv6Addr::from(bytes).into()
}

impl Maps {
    /// What the lists hold.
    fn lists(&self) -> Result<BTreeMap<ListKey, u32>, Error> {
        let held = self.lists.iter().collect::<Result<Vec<_>, _>>().map_err(Error::system("read", object::LISTS))?;
        let entry =
            |(key, value): (Key<[u32; 4]>, u32)| (ListKey { len: key.prefix_len(), address: key.data() }, value);
        Ok(held.into_iter().map(entry).collect())
    }

    /// Makes the lists hold exactly this: new prefixes first.
    fn set_lists(&mut self, wanted: &BTreeMap<ListKey, u32>) -> Result<(), Error> {
        let trie = |key: &ListKey| Key::new(key.len, key.address);
        let failed = |what| Error::system(what, object::LISTS);
        let held = self.lists()?;
        for (key, value) in wanted.iter().filter(|(key, value)| held.get(key) != Some(value)) {
            self.lists.insert(&trie(key), value, 0).map_err(failed("write"))?;
        }
        for key in held.keys().filter(|key| !wanted.contains_key(key)) {
            self.lists.remove(&trie(key)).map_err(failed("write"))?;
        }
        Ok(())
    }

    fn top(&self, most: usize) -> Result<Top, Error> {
        let guard = self.guard();
        let clients = sys::lookup_batch::<u64, u64>(self.top_clients.fd().as_fd());
        let clients = clients.map_err(Error::system("read", object::TOP_CLIENTS))?;
        let names = sys::lookup_batch::<NotedName, u64>(self.top_names.fd().as_fd());
        let names = names.map_err(Error::system("read", object::TOP_NAMES))?;
        let mut folded: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for (name, count) in names {
            *folded.entry(wire_of(&name)).or_default() += count;
        }
        let clients = clients.into_iter().map(|(key, count)| (client_of(key), count)).collect();
        let one_in = if guard.features & Guard::SAMPLES == 0 { 0 } else { guard.sample_mask + 1 };
        Ok(Top { clients: largest(clients, most), names: largest(folded.into_iter().collect(), most), one_in })
    }

    /// See [`Dataplane::freshness`].
    pub(crate) fn freshness(&self) -> Freshness {
        let (beat, guard) = (self.heartbeat(), self.guard());
        let age = (beat != 0).then(|| sys::monotonic_ns().saturating_sub(beat));
        let policies = Guard::STALE_PASSES | Guard::STALE_SHORTENS;
        let stale = guard.features & policies != 0 && age.is_none_or(|age| age > guard.stale_ns);
        Freshness { heartbeat_age: age.map(Duration::from_nanos), stale }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use xdp_balancer_common::{client_key_v4, client_key_v6};

    fn prefix(text: &str, len: u8) -> Prefix {
        (text.parse().unwrap(), len)
    }

    #[test]
    fn by_default_nothing_is_looked_at() {
        assert_eq!(Rules::default().guard(7).features, 0);
    }

    #[test]
    fn a_prefix_in_both_lists_is_denied() {
        let rules = Rules {
            allow: vec![prefix("192.0.2.0", 24), prefix("2001:db8::", 32)],
            deny: vec![prefix("192.0.2.77", 24)],
            ..Rules::default()
        };
        let lists = rules.lists();
        assert_eq!(lists.len(), 2);
        assert_eq!(lists[&list_key(prefix("192.0.2.0", 24))], LIST_DENY);
        assert_eq!(rules.guard(1).features, Guard::LISTS | Guard::DENY_DROPS);
    }

    #[test]
    fn client_prefixes_are_told_as_addresses() {
        let v4 = client_key_v4(u32::from_ne_bytes([192, 0, 2, 9]), mask_v4(24));
        assert_eq!(client_of(v4), prefix("192.0.2.0", 24).0);
        let v6 = client_key_v6(u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 7, 1, 9]), mask_v6(56));
        assert_eq!(client_of(v6), prefix("2001:db8:7:100::", 56).0);
    }

    #[test]
    fn names_end_at_their_root_and_fold() {
        let mut name = NotedName::default();
        name.0[..9].copy_from_slice(b"\x03wWw\x02NL\0\xff");
        assert_eq!(wire_of(&name), b"\x03www\x02nl\0");
        assert_eq!(wire_of(&NotedName([b'a'; 64])).len(), 64);
    }
}

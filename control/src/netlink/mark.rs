//! The mark of ownership: an alias for people and tools, a hardware address for the moments without one.
//!
//! The kernel takes an alias only after the link exists. A link that was made when the daemon was killed
//! before it could set the alias is still recognised by its hardware address, which is set in the
//! same request that makes the link and derives from the owner.

use crate::model::{InstanceId, OwnerId};

/// What a marked link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A technology's bridge.
    Bridge,
    /// The host's end of an instance's port.
    Port(InstanceId),
    /// An intermediate device through which goes what another link of ours, or a shaped one, receives.
    Shaper,
    /// A tunnel to other nodes.
    Tunnel,
}

impl Kind {
    /// The last part of the alias.
    fn text(&self) -> String {
        match self {
            Self::Bridge => "bridge".to_owned(),
            Self::Port(id) => format!("port:{id}"),
            Self::Shaper => "shaper".to_owned(),
            Self::Tunnel => "vxlan".to_owned(),
        }
    }

    /// The reverse of [`Kind::text`].
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "bridge" => Some(Self::Bridge),
            None if text == "shaper" => Some(Self::Shaper),
            None if text == "vxlan" => Some(Self::Tunnel),
            Some(("port", id)) => InstanceId::new(id).ok().map(Self::Port),
            _ => None,
        }
    }
}

/// The alias of a link of `owner`.
#[must_use]
pub fn alias(owner: &OwnerId, kind: &Kind) -> String {
    format!("selvedge:{owner}:{}", kind.text())
}

/// What the alias says, if it is one of `owner`'s.
#[must_use]
pub fn parse(owner: &OwnerId, alias: &str) -> Option<Kind> {
    let rest = alias.strip_prefix("selvedge:")?;
    let (who, what) = rest.split_once(':')?;
    (who == owner.as_str()).then(|| Kind::parse(what)).flatten()
}

/// A hardware address as the kernel takes it.
pub type Mac = [u8; 6];

/// The same for the same owner and part on every start: locally administered, unicast, the other
/// 46 bits an FNV-1a hash.
#[must_use]
pub fn mac(owner: &OwnerId, part: &str) -> Mac {
    let [_, _, bytes @ ..] = hash(owner, part).to_be_bytes();
    let [first, rest @ ..] = bytes;
    let [b1, b2, b3, b4, b5] = rest;
    [(first & 0xfc) | 0x02, b1, b2, b3, b4, b5]
}

/// Protocol number (`rtm_protocol`) of our routes. Routes have no place for an owner; no other program is known to use
/// this number (`/etc/iproute2/rt_protos`).
pub const ROUTE_PROTOCOL: u8 = 94;

/// The part of our token buckets' handle that says whose they are; the kernel's own handles begin at 0x8000.
#[must_use]
pub(super) fn qdisc_major(owner: &OwnerId) -> u16 {
    0x5000 | (hash(owner, "qdisc") & 0x0fff) as u16
}

/// The table of nf_tables.
#[must_use]
pub(super) fn table_name(owner: &OwnerId) -> String {
    format!("selvedge-{owner}")
}

/// The intermediate device of a link: the port's name in another spelling, else a hash of the name, so that it stays
/// within the kernel's 15 bytes.
#[must_use]
pub fn shaper_name(owner: &OwnerId, link: &str) -> String {
    let is_id = |id: &&str| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit());
    match link.strip_prefix("sv").filter(is_id) {
        Some(id) => format!("svi{id}"),
        None => format!("svb{:08x}", hash(owner, link) as u32),
    }
}

/// The intermediate device of that name.
#[must_use]
pub fn shaper_mac(owner: &OwnerId, name: &str) -> Mac {
    mac(owner, &format!("shaper {name}"))
}

/// The tunnel of that name.
#[must_use]
pub fn tunnel_mac(owner: &OwnerId, name: &str) -> Mac {
    mac(owner, &format!("vxlan {name}"))
}

/// FNV-1a over owner and part.
fn hash(owner: &OwnerId, part: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in owner.as_str().bytes().chain([b'/']).chain(part.bytes()) {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0100_0000_01b3);
    }
    // FNV's low bits are weaker than the bits above them: fold the top half in.
    hash ^ (hash >> 17)
}

/// The bridge's own address; set by us so that it does not change with its ports.
#[must_use]
pub fn bridge_mac(owner: &OwnerId, name: &str) -> Mac {
    mac(owner, &format!("bridge {name}"))
}

/// The host's end of a port.
#[must_use]
pub fn host_mac(owner: &OwnerId, id: &InstanceId) -> Mac {
    mac(owner, &format!("host {id}"))
}

/// The instance's end of a port.
#[must_use]
pub fn instance_mac(owner: &OwnerId, id: &InstanceId) -> Mac {
    mac(owner, &format!("instance {id}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_alias_is_read_back_by_its_owner_only() {
        let (ours, theirs) = (OwnerId::from_number(1), OwnerId::from_number(2));
        for kind in [Kind::Bridge, Kind::Port(InstanceId::from_number(0xabcd)), Kind::Shaper, Kind::Tunnel] {
            let text = alias(&ours, &kind);
            assert_eq!(parse(&ours, &text), Some(kind));
            assert_eq!(parse(&theirs, &text), None);
        }
        for text in ["", "selvedge", "selvedge:", "selvedge:000000000001", "selvedge:000000000001:", "lan port"] {
            assert_eq!(parse(&ours, text), None, "{text}");
        }
        assert_eq!(parse(&ours, "selvedge:000000000001:port:NOT"), None);
    }

    #[test]
    fn names_fit_the_kernel() {
        let owner = OwnerId::from_number(7);
        assert_eq!(shaper_name(&owner, "sv0000abcd"), "svi0000abcd");
        for link in ["selv-docker", "svelte", "sv0000abcdef", "eth0"] {
            let name = shaper_name(&owner, link);
            assert!(name.len() <= 15 && name.starts_with("svb"), "{name}");
        }
    }

    #[test]
    fn addresses_are_local_unicast_stable_and_different() {
        let owner = OwnerId::from_number(7);
        let mut seen = BTreeSet::new();
        for number in 0..20_000 {
            let id = InstanceId::from_number(number);
            for address in [host_mac(&owner, &id), instance_mac(&owner, &id)] {
                assert_eq!(address.first().unwrap() & 0x03, 0x02);
                assert!(seen.insert(address), "{id} collides");
            }
        }
        let id = InstanceId::from_number(1);
        assert_eq!(instance_mac(&owner, &id), instance_mac(&owner, &id));
        assert_ne!(host_mac(&owner, &id), host_mac(&OwnerId::from_number(8), &id));
    }
}

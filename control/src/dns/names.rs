//! What the kernel answers: every name that exists, with the rings of its answers.
//!
//! They are the very rings that the daemon answers from. What stays with the daemon:
//! - names with a zero byte in a label, where the program takes a name for ended;
//! - names at and below delegations, and those below a DNAME, whose answers depend on the question;
//! - answers longer than the tables can hold, and types of a name beyond those that they can hold: A, AAAA and HTTPS
//!   go first;
//! - A and AAAA of a service that has nothing published, or is at zero.

use std::sync::Arc;

use xdp_balancer_common::{ANSWER_BYTES, TYPE_SLOTS};

use super::index::{Answered, Index, OthersOf, ZoneAnswers};
use super::layout::{Absent, Node, Place, Rrset, Standing};
use super::turns::Ring;
use super::{TYPE_A, TYPE_AAAA, TYPE_ANY};
use crate::model::ZONE_INDEX;

const TYPE_HTTPS: u16 = 65;

/// A name as the kernel answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedName<'a> {
    /// Wire form, lower case. A wildcard is there by its own name.
    pub wire: &'a [u8],
    /// Index of the counters: the service's that the name leads to, else [`ZONE_INDEX`].
    pub service: u32,
    /// What is said to questions of these types, at most `TYPE_SLOTS`.
    pub rrsets: Vec<PublishedRrset<'a>>,
    /// What questions of all other types of data get; `None`: the daemon answers.
    pub others: Option<&'a Arc<Ring>>,
    /// What names get that do not exist and whose closest encloser this is.
    pub below: Below<'a>,
}

/// What is said to questions of one type for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedRrset<'a> {
    /// QTYPE.
    pub qtype: u16,
    /// `None`: the daemon answers.
    pub ring: Option<&'a Arc<Ring>>,
}

/// What names below a name get that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below<'a> {
    /// The daemon answers.
    UserSpace,
    /// This: NXDOMAIN.
    Denied(&'a Arc<Ring>),
    /// What stands at the wildcard below this name (RFC 4592).
    Wildcard,
}

impl Index {
    /// Every name that the kernel is to know, in no order. That is all that exist, for without the others it would
    /// take the wrong one for the closest encloser of a name; but for the root, which is not in its tables, and for
    /// those that it can tell from no other because a label holds a zero byte: it passes all questions that do.
    pub fn names(&self) -> impl Iterator<Item = PublishedName<'_>> {
        self.nodes()
            .filter(|(wire, ..)| wire.len() > 1 && !has_zero(wire))
            .map(|(wire, node, zone)| self.name(wire, node, zone))
    }

    fn name<'a>(&'a self, wire: &'a [u8], node: &'a Node, zone: &'a ZoneAnswers) -> PublishedName<'a> {
        let below = match (&node.place, &node.absent) {
            (Place::Delegated(_), _) | (_, Absent::Redirected(_)) => Below::UserSpace,
            (_, Absent::Wildcard) => Below::Wildcard,
            (_, Absent::Denied) => fitting(&zone.nxdomain).map_or(Below::UserSpace, Below::Denied),
        };
        let Some(Answered { service, rrsets, others }) = self.answered(node) else {
            return PublishedName { wire, service: ZONE_INDEX, rrsets: Vec::new(), others: None, below };
        };
        let too_many = rrsets.iter().filter(|rrset| rrset.qtype != TYPE_ANY).count() > TYPE_SLOTS;
        let others = match others {
            OthersOf::Ring(ring) if !too_many => fitting(ring),
            _ => None,
        };
        PublishedName { wire, service: service.unwrap_or(ZONE_INDEX), rrsets: published(rrsets), others, below }
    }
}

/// Whether a label of a name holds a zero byte: behind the root's there is nothing, and other lengths are not zero.
fn has_zero(wire: &[u8]) -> bool {
    wire.split_last().is_some_and(|(_, labels)| labels.contains(&0))
}

/// The RRsets that a name of the tables has room for.
fn published(rrsets: &[Rrset]) -> Vec<PublishedRrset<'_>> {
    let rank = |rrset: &&Rrset| match rrset.qtype {
        TYPE_A => 0,
        TYPE_AAAA => 1,
        TYPE_HTTPS => 2,
        TYPE_ANY => 4,
        _ => 3,
    };
    let mut ranked: Vec<&Rrset> = rrsets.iter().collect();
    ranked.sort_by_key(rank);
    ranked.truncate(TYPE_SLOTS);
    ranked.into_iter().map(PublishedRrset::of).collect()
}

impl<'a> PublishedRrset<'a> {
    fn of(rrset: &'a Rrset) -> Self {
        Self { qtype: rrset.qtype, ring: fitting(&rrset.ring).filter(|_| rrset.standing == Standing::Published) }
    }
}

/// The ring, where the tables can hold its answers.
fn fitting(ring: &Arc<Ring>) -> Option<&Arc<Ring>> {
    (ring.longest() <= ANSWER_BYTES).then_some(ring)
}

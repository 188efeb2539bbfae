//! What the XDP program and user space must agree on, said once: table layouts, limits, verdicts
//! and the name hash. `no_std`, depends on nothing; the feature `user` adds aya's marker traits.
//!
//! The way of a query through the tables:
//!
//! ```text
//! QNAME ─fold+hash─> TABLE[0] ─> buckets (two per hash) ─> cell: first unit, set
//!                                 unit ─> ENTRIES (array of NameUnit), verified byte for byte
//!                                  set ─> SETS (array of TypeSet) ─> service, rrset id by QTYPE
//!                                  rrset id ─> RRSETS (array of RingWord) ─> first slot, ring length
//!                                  CURSORS (per CPU, by rrset id) picks a slot ─> ANSWERS (array of Answer)
//! ```
//!
//! Publishing one service stores one `RingWord`; publishing other names swaps the inner map of
//! `TABLE`. Answer slots, name entries, sets and rrset ids are not written again before a grace period has passed, so a
//! running program sees the old answer or the new one, never a mixture.

#![no_std]

mod answer;
pub mod bench;
mod cells;
mod client;
mod cookie;
mod counts;
mod name;
mod settings;
mod verdict;

pub use answer::{ANSWER_BYTES, Answer, RingWord};
pub use cells::{BUCKET_CELLS, BUCKETS, Bucket, CELLS, Cell, MAX_INDEX, MAX_NAMES, first_bucket, second_bucket};
pub use client::{CLIENT_PREFIX_V4, CLIENT_PREFIX_V6, CLIENT_TURNS, client_turn_v4, client_turn_v6};
pub use cookie::{CLIENT_COOKIE, COOKIE_OPTION, CookieSecret, SERVER_COOKIE, server_cookie};
pub use counts::{FlowCount, ServiceCount};
pub use name::{
    MAX_NAME_BYTES, MAX_UNITS, NAME_CHUNKS, NameEntry, NameHash, NameUnit, TYPE_SLOTS, TypeSet, TypeSlot, UNIT_CHUNKS,
    keep_bytes, same_chunk, units_of,
};
pub use settings::{LOCAL_ADDRESSES, Settings};
pub use verdict::{Action, Verdict};

/// Number of these layouts. Part of the pin path, so tables of another layout are never reinterpreted.
/// A test holds sizes and offsets against it: change one, raise the other.
pub const LAYOUT: u32 = 1;

/// UDP payload size that we advertise in OPT and never exceed (DNS flag day 2020).
pub const EDNS_PAYLOAD: u16 = 1232;

/// Names of the maps and programs inside the object, and of their pins.
pub mod object {
    /// Array of maps with one element: the array of [`Bucket`](crate::Bucket)s in force.
    pub const TABLE: &str = "TABLE";
    /// Array of [`NameUnit`](crate::NameUnit)s.
    pub const ENTRIES: &str = "ENTRIES";
    /// Array of [`TypeSet`](crate::TypeSet)s.
    pub const SETS: &str = "SETS";
    /// Array of [`RingWord`](crate::RingWord) by rrset id, memory-mapped by user space.
    pub const RRSETS: &str = "RRSETS";
    /// Array of [`Answer`](crate::Answer) slots.
    pub const ANSWERS: &str = "ANSWERS";
    /// Per-CPU array of `u32` round-robin positions by rrset id.
    pub const CURSORS: &str = "CURSORS";
    /// Array with one [`Settings`](crate::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// Per-CPU array of `u64` by [`Verdict`](crate::Verdict).
    pub const VERDICTS: &str = "VERDICTS";
    /// Per-CPU array of [`ServiceCount`](crate::ServiceCount) by service index.
    pub const SERVICES: &str = "SERVICES";
    /// Per-CPU hash of [`FlowCount`](crate::FlowCount) by interface index.
    pub const FLOWS: &str = "FLOWS";
    /// The XDP program that answers.
    pub const XDP: &str = "selvedge_xdp";
    /// The XDP program that passes everything, for the far ends of lab links.
    pub const PASS: &str = "selvedge_pass";
    /// The classifier that counts an instance's packets towards it (egress of the host's end).
    pub const FLOW_TO: &str = "selvedge_to";
    /// The classifier that counts an instance's packets from it (ingress of the host's end).
    pub const FLOW_FROM: &str = "selvedge_from";
}

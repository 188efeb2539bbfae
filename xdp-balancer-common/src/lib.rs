//! What the XDP program and user space must agree on, said once: table layouts, limits, verdicts
//! and the name hash. `no_std`, depends on nothing; the feature `user` adds aya's marker traits.
//!
//! The way of a query through the tables:
//!
//! ```text
//! POOL: root ─> table ─QNAME, folded and hashed─> pilot ─> slot: name (verified byte for byte), set
//!       set ─QTYPE─> RRset ─> word: ring or answer ─ turn (CURSORS per CPU, or the client's address) ─> answer
//! ```
//!
//! Publishing other answers writes them into free grains of the pool and stores one word per RRset; publishing other
//! names builds another table and stores one word in the root. What a program may be reading is not written again before a grace period has
//! passed, so it sees the old answer or the new one, never a mixture.

#![no_std]

pub mod bench;
mod capture;
mod client;
mod cookie;
mod cost;
mod counts;
mod guard;
mod labelled;
mod log;
mod name;
mod pool;
mod settings;
mod slots;
mod transit;
mod verdict;

pub use capture::{CAPTURE_BYTES, CAPTURE_NAME, CAPTURE_ONE_IN, Capture, CaptureCount, CaptureFilter, Captured};
pub use client::{CLIENT_PREFIX_V4, CLIENT_PREFIX_V6, CLIENT_TURNS, client_turn_v4, client_turn_v6};
pub use cookie::{CLIENT_COOKIE, COOKIE_OPTION, CookieSecret, SERVER_COOKIE, cookie_head, server_cookie};
pub use cost::{COST_BUCKETS, CostCount};
pub use counts::{ANSWER_VERDICTS, Connection, ConnectionKey, FlowCount, ServiceCount};
pub use guard::{
    Admission, BUCKET_SETS, BUCKETS_OF_SET, Bucket, BucketSet, Guard, LIST_ALLOW, LIST_DENY, ListKey, NOTED_NAME_BYTES,
    NotedName, Rate, bucket_set, client_key_v4, client_key_v6, mask_v4, mask_v6,
};
pub use log::LogLevel;
pub use name::{MAX_NAME_BYTES, NAME_CHUNKS, NameEntry, NameHash, keep_bytes, same_chunk};
pub use pool::{
    ANSWER_BYTES, AnswerHead, Bytes, Choice, GRAIN, POOL_BYTES, POOL_GRAINS, POOL_MARGIN, Pool, REFUSED_AT,
    RESERVED_GRAINS, ROOT_AT, RingWord, Root, Rrset, SLIPPED_AT, TYPE_SLOTS, TypeSet, TypeSlot, UNPROVEN_AT, grains_of,
};
pub use settings::{LOCAL_ADDRESSES, QUIET_PREFIXES, QuietPrefix, Settings};
pub use slots::{MAX_NAMES, MAX_SLOT_TEXT, MAX_SLOTS, PILOTS_AT, SLOT_HEAD, SLOT_SHIFTS, TableHead};
pub use transit::{MAX_TRANSIT_RECORDS, OWN_CLSACT, TransitHook, TransitVerdict, ZONE_SERVICE};
pub use verdict::{Action, Verdict};

/// Number of these layouts. Part of the pin path, so tables of another layout are never reinterpreted.
/// A test holds sizes and offsets against it: change one, raise the other.
pub const LAYOUT: u32 = 5 + OTHER_LAYOUT;

/// Added to the number where the layouts are others, for tests of upgrades.
const OTHER_LAYOUT: u32 = if cfg!(feature = "other-layout") { 1000 } else { 0 };

/// UDP payload size that we advertise in OPT and never exceed (DNS flag day 2020).
pub const EDNS_PAYLOAD: u16 = 1232;

/// Names of the maps and programs inside the object, and of their pins.
pub mod object {
    /// Array with one [`Pool`](crate::Pool), memory-mapped by user space.
    pub const POOL: &str = "POOL";
    /// Per-CPU array of `u32` round-robin positions, by RRset.
    pub const CURSORS: &str = "CURSORS";
    /// Array of maps that no program looks into: a write to it returns when none is running that ran before.
    pub const FENCE: &str = "FENCE";
    /// Per-CPU array of `u64` by [`Verdict`](crate::Verdict).
    pub const VERDICTS: &str = "VERDICTS";
    /// Per-CPU array of [`ServiceCount`](crate::ServiceCount) by service index.
    pub const SERVICES: &str = "SERVICES";
    /// Per-CPU array with one [`CostCount`](crate::CostCount).
    pub const COSTS: &str = "COSTS";
    /// Per-CPU hash of [`FlowCount`](crate::FlowCount) by interface index.
    pub const FLOWS: &str = "FLOWS";
    /// Connections of instances that are open.
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// Ring buffer of what the programs say; aya's name for it.
    pub const LOGS: &str = "AYA_LOGS";
    /// Programs that the XDP program goes on into, by the numbers below; where none is, it does without.
    pub const TAILS: &str = "TAILS";
    /// In [`TAILS`]: rewrites replies in transit.
    pub const TAIL_TRANSIT: u32 = 0;
    /// In [`TAILS`]: does what the program that answers does, and tells of it.
    pub const TAIL_CAPTURE: u32 = 1;
    /// Slots of [`TAILS`].
    pub const TAIL_SLOTS: u32 = 4;
    /// Hash of [`TransitHook`](crate::TransitHook) bits by interface index: where replies are rewritten.
    pub const TRANSIT_HOOKS: &str = "TRANSIT_HOOKS";
    /// Per-CPU array of `u64` by [`TransitVerdict`](crate::TransitVerdict).
    pub const TRANSIT_VERDICTS: &str = "TRANSIT_VERDICTS";
    /// The XDP program that rewrites replies, behind the one that answers.
    pub const TRANSIT_INGRESS: &str = "selvedge_transit";
    /// The classifier that rewrites replies (egress).
    pub const TRANSIT_EGRESS: &str = "selvedge_transit_out";
    /// The XDP program that captures.
    pub const CAPTURE: &str = "selvedge_capture";
    /// The program that answers, as if nothing could be captured; beside the one above, for the bench.
    pub const UNCAPTURED: &str = "selvedge_uncaptured";
    /// Ring buffer of [`Captured`](crate::Captured) with the frames.
    pub const CAPTURE_EVENTS: &str = "CAPTURE_EVENTS";
    /// Array with one [`CaptureFilter`](crate::CaptureFilter).
    pub const CAPTURE_FILTER: &str = "CAPTURE_FILTER";
    /// Per-CPU array of `u64` by [`CaptureCount`](crate::CaptureCount).
    pub const CAPTURE_COUNTS: &str = "CAPTURE_COUNTS";
    /// Array of [`BucketSet`](crate::BucketSet).
    pub const BUCKETS: &str = "BUCKETS";
    /// Array of `u64`, when buckets will be full again: that of everything, then those of services by their index.
    pub const CEILINGS: &str = "CEILINGS";
    /// Trie of [`ListKey`](crate::ListKey) to what its clients are.
    pub const LISTS: &str = "LISTS";
    /// Of queries that were noted, how many came from a client prefix, by its key.
    pub const TOP_CLIENTS: &str = "TOP_CLIENTS";
    /// Of queries that were noted, how many asked for a [`NotedName`](crate::NotedName).
    pub const TOP_NAMES: &str = "TOP_NAMES";
    /// The XDP program that answers.
    pub const XDP: &str = "selvedge_xdp";
    /// The XDP program that passes everything, for the far ends of lab links.
    pub const PASS: &str = "selvedge_pass";
    /// The classifier that counts an instance's packets towards it (egress of the host's end).
    pub const FLOW_TO: &str = "selvedge_to";
    /// The classifier that counts an instance's packets from it (ingress of the host's end).
    pub const FLOW_FROM: &str = "selvedge_from";
}

//! DNS answers. One renderer for both ways out: the records that the XDP program sends and those that
//! the daemon's own sockets send for what the program passed on (TCP, negative answers, other types).
//! No other module of this crate knows hickory.
//!
//! ```text
//!             ┌ Layout: names, records of zones ┐
//! Snapshot ───┤  (kept while they do not change)├─> Index ─┬─ names: rings ─────────────────> datapath (kernel tables)
//!             └ services' rings, SOA serials ───┘          └─ respond(query) ──> Response ──> sockets (serve), DnsStats
//!                                                                                   └ late ─> Summoner: held until there is more to say
//! ```

mod affinity;
mod answer;
mod answerer;
mod bare;
mod budget;
mod chaos;
pub mod client;
mod context;
mod draft;
mod edns;
mod error;
mod index;
mod layout;
mod limiter;
mod names;
pub mod present;
mod query;
mod records;
mod render;
mod reply;
mod ring;
mod server;
mod sockets;
mod stages;
mod stats;
mod summoner;
mod turns;
mod waiting;
mod wire;

pub use answer::{Response, respond};
pub use context::{Context, Policy};
pub use error::IndexError;
pub use index::Index;
pub use names::{Below, PublishedName, PublishedRrset};
pub use render::{RenderError, RenderedAnswer, RenderedRrset, rrsets};
pub use ring::MAX_RING;
pub use server::Listeners;
pub use sockets::BindError;
pub use stages::{Histogram, Stage, SummonRecord, SummonReport, SummonStats};
pub use stats::{DnsStats, Outcome, ServiceStats, Transport, TransportStats};
pub use summoner::SummonChannels;
pub use turns::{Pick, Ring};

/// Most addresses in one answer, whatever a service asks for; fewer where they do not fit an answer slot.
const MAX_ANSWERS: usize = 64;

/// QTYPE of IPv4 addresses.
pub const TYPE_A: u16 = 1;
/// QTYPE of IPv6 addresses.
pub const TYPE_AAAA: u16 = 28;
const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;
const TYPE_DNAME: u16 = 39;
const TYPE_OPT: u16 = 41;
const TYPE_DS: u16 = 43;
const TYPE_TKEY: u16 = 249;
const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;
const TYPE_ANY: u16 = 255;

const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const YXDOMAIN: u16 = 6;
const NOTAUTH: u16 = 9;

#[cfg(test)]
pub(crate) mod tests;

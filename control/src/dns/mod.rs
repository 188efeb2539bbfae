//! DNS answers. One renderer for both ways out: the records that the XDP program sends and those that
//! the daemon's own sockets send for what the program passed on (TCP, negative answers, other types).
//! No other module of this crate knows hickory.
//!
//! ```text
//! Snapshot ─Index::new─> Index ─┬─ Index::names: rendered answers ─────> datapath (kernel tables)
//!                               └─ respond(query) ──> Response ──> sockets (serve), counted in DnsStats
//! ```

mod answer;
pub mod client;
mod index;
mod names;
pub mod present;
mod query;
mod render;
mod reply;
mod ring;
mod server;
mod sockets;
mod stats;
mod wire;

pub use answer::{Pick, Response, respond};
pub use index::{Index, IndexError, Published};
pub use names::PublishedName;
pub use render::{RenderError, RenderedAnswer, RenderedRrset, rrsets};
pub use ring::MAX_RING;
pub use server::{Listeners, serve};
pub use sockets::BindError;
pub use stats::{DnsStats, Outcome, ServiceStats, Transport, TransportStats};

/// QTYPE of IPv4 addresses.
pub const TYPE_A: u16 = 1;
/// QTYPE of IPv6 addresses.
pub const TYPE_AAAA: u16 = 28;
const TYPE_NS: u16 = 2;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;

#[cfg(test)]
pub(crate) mod tests;

//! The daemon's face: the status document and the published tables over a Unix socket, Prometheus text over TCP.
//! Reads what the halves show of themselves and hands orders on; decides nothing, calls no driver and no table.

pub mod client;
mod difference;
mod network;
mod server;
mod status;
mod tables;

#[cfg(test)]
mod tests;

pub use crate::dns::{Histogram, Stage};
pub use difference::{Change, Line, difference};
pub use server::{ApiError, serve_metrics, serve_socket};
pub use status::{DnsStatus, InstanceStatus, NetworkStatus, ServiceStatus, Sources, Status};
pub use tables::{
    Pair, Refusal, RollbackOrder, TableContent, TableDifference, TableList, TableOrdered, TableSummary, ZoneContent,
};

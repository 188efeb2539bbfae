//! The daemon's face: one status document over a Unix socket, Prometheus text over TCP. Reads what the
//! halves show of themselves, decides nothing, calls no driver and no table.

pub mod client;
mod server;
mod status;

pub use server::{ApiError, serve_metrics, serve_socket};
pub use status::{DnsStatus, InstanceStatus, ServiceStatus, Sources, Status};

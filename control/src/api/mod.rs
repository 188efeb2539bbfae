//! The daemon's face: what is, as resources with revisions; orders; changes as they come. HTTP and JSON over a Unix
//! socket, over TCP with TLS. Reads what the halves show of themselves and hands orders on; decides nothing, calls no
//! driver and no table.
//!
//! One table, `operations`, makes the router and the OpenAPI document. A request passes the listener (connections,
//! slow heads), the guard (name, rate, right, form) and its handler.

mod caller;
pub mod client;
mod configuration;
mod configured;
mod dataplane;
mod difference;
mod extract;
mod feed;
mod guard;
mod inspect;
mod instances;
mod limits;
mod network;
mod openapi;
mod operations;
mod problem;
mod server;
mod services;
mod status;
mod store;
mod tables;
mod tls;
mod watch;

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::dns::{Histogram, Stage};
pub use caller::TokenError;
pub use configuration::ConfigurationOrder;
pub use configured::{ConfigRefusal, ConfigRequest, ConfigTaken, Configuration, ConfigurationResource, Origin};
pub use difference::{Change, Line, difference};
pub use feed::Feed;
pub use inspect::{DecisionList, DecisionResource, ImageList, ImageResource, NodeList, NodeResource};
pub use instances::{DrainOrder, InstanceList, InstanceResource};
pub use openapi::document;
pub use problem::{Kind, Problem};
pub use server::{ApiError, serve_metrics, serve_socket, serve_tcp};
pub use services::{OverrideOrder, ServiceList, ServiceResource};
pub use status::{DnsStatus, InstanceStatus, LeftStatus, NetworkStatus, ServiceStatus, Sources, Status, StoreHealth};
pub use store::StoreResource;
pub use tables::{
    Pair, RollbackOrder, TableContent, TableDifference, TableList, TableOrdered, TableSummary, ZoneContent,
};
pub use tls::TlsError;
pub use watch::feed;

/// Whether an order is only tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// Nothing was changed: it was asked what would be.
    pub dry_run: bool,
    /// What changed, or would, one sentence each.
    pub changes: Vec<String>,
    /// What has no effect yet, and why, one sentence each.
    pub warnings: Vec<String>,
    /// Revision of the thing now.
    pub revision: u64,
}

/// A document whose revision is its `ETag`.
struct Tagged<T>(u64, T);

impl<T: Serialize> axum::response::IntoResponse for Tagged<T> {
    fn into_response(self) -> axum::response::Response {
        let tag = axum::http::HeaderValue::from_str(&format!("\"{}\"", self.0));
        let mut response = axum::Json(self.1).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(axum::http::header::ETAG, tag);
        }
        response
    }
}

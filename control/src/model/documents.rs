//! The one interface between orchestrator and operator: documents with revisions.
//!
//! The orchestrator writes [`Desired`], the operator writes [`Observed`]; each reads the other's
//! newest and nothing else passes between them. In one process they travel through `tokio::sync::watch`
//! channels; between machines the same documents go through a store. A reader may miss revisions,
//! never see an older one after a newer one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Instance, NodeName, ServiceName, Timestamp, WindowReport};

/// What one node shall run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Rises with each change; an operator ignores what is not newer than what it has.
    pub revision: u64,
    /// The node that is meant.
    pub node: NodeName,
    /// Wanted by service. A service that is absent is left as it is: absence is no order.
    pub services: BTreeMap<ServiceName, DesiredService>,
}

/// What is wanted of one service on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredService {
    /// Instances on this node.
    pub replicas: u32,
    /// Why, for people (`selvedge status`).
    pub reason: String,
    /// Fewer are enough already, and only the plan's stabilisation keeps these: a removal is likely.
    #[serde(default)]
    pub fewer_soon: bool,
    /// Instances that are prepared beside these, where the service has any prepared.
    #[serde(default)]
    pub prepared: u32,
}

/// What one node runs and counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Rises with each change.
    pub revision: u64,
    /// The node.
    pub node: NodeName,
    /// When it was written.
    pub at: Timestamp,
    /// Newest [`Desired`] revision that was taken in; 0 before the first.
    pub desired_revision: u64,
    /// State by service.
    pub services: BTreeMap<ServiceName, ObservedService>,
    /// The newest closed window, if one was closed.
    pub window: Option<WindowReport>,
    /// What the window after it has come to so far, where that was looked at.
    #[serde(default)]
    pub running_window: Option<WindowReport>,
    /// Generation of the published tables; 0 before the first.
    pub generation: u64,
    /// True once the node has read back what it already runs; nothing may be planned before.
    pub settled: bool,
}

impl Observed {
    /// What a daemon says that has not read back yet what its node runs.
    #[must_use]
    pub fn unsettled(node: NodeName) -> Self {
        Self {
            revision: 0,
            node,
            at: Timestamp::now(),
            desired_revision: 0,
            services: BTreeMap::new(),
            window: None,
            running_window: None,
            generation: 0,
            settled: false,
        }
    }
}

/// State of one service on one node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedService {
    /// Its instances that are not stopped.
    pub instances: Vec<Instance>,
    /// True where its technology has a working driver now.
    pub available: bool,
    /// How its instances answered in the newest closed window, where the same ones served all of it.
    #[serde(default)]
    pub served: Option<Served>,
}

/// How the instances that were in the answers during a whole window answered their probes in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// The window's number, as its report has it.
    pub window: u64,
    /// Largest share of the answers that one of them had; 0 to 1.
    pub largest_share: f64,
    /// Milliseconds to the answer of a probe: the median of the slowest one's.
    pub slowest_ms: f64,
}

impl ObservedService {
    /// Instances up or on their way up.
    #[must_use]
    pub fn running(&self) -> u32 {
        u32::try_from(self.instances.iter().filter(|i| i.state.counts()).count()).unwrap_or(u32::MAX)
    }
}

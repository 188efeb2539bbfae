//! What the operator shows of itself, for `status`, metrics and the demo; read by others, never decided on.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{
    Basis, Drain, Hold, Instance, InstanceId, LateClients, Left, Order, ServiceName, Technology, Timestamp, Transition,
};

/// Outcome of one probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeReport {
    /// When it ended.
    pub at: Timestamp,
    /// Time to the answer in milliseconds; `None` where there was none.
    pub took_ms: Option<f64>,
    /// Why there was none.
    pub error: Option<String>,
}

/// An instance that is out of the answers and waits for its clients to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainReport {
    /// When the last answer that named it had run out.
    pub answers_end: Timestamp,
    /// When it is stopped whoever uses it, unless the service keeps its clients.
    pub deadline: Timestamp,
    /// Connections to it that are open; `None` where they are not known.
    pub open: Option<u64>,
    /// Clients, up to eight, that opened a connection after the answers' end.
    pub late_clients: Vec<IpAddr>,
    /// Of the open connections, those that were opened after the answers' end; `None` where they are not known.
    #[serde(default)]
    pub late_open: Option<u64>,
    /// What becomes of these clients.
    pub late: LateClients,
}

/// One instance, as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceReport {
    /// Its record.
    pub instance: Instance,
    /// Its last probe.
    pub last_probe: Option<ProbeReport>,
    /// Whether it is in the tables.
    pub published: bool,
    /// What the machine's operator has ordered of it, if anything.
    #[serde(default)]
    pub ordered: Option<Order<Drain>>,
    /// Its share of its service's answers, 0 to 1.
    pub share: f64,
    /// What it is taken to be able to do of what its peers can, 0.25 to 1, where its share follows its load.
    #[serde(default)]
    pub weight: Option<f64>,
    /// How far its drain is, once the last answer that named it has run out.
    #[serde(default)]
    pub drain: Option<DrainReport>,
    /// Why it is out of the answers though it runs: what its probes say.
    #[serde(default)]
    pub unwell: Option<String>,
}

/// An instance that has left the answers, gone or not, and whose late clients go to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftReport {
    /// Which, with its addresses, and until when.
    #[serde(flatten)]
    pub left: Left,
    /// The instance that they go to; `None` while none serves.
    pub to: Option<InstanceId>,
}

/// One technology, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TechnologyReport {
    /// Whether it can be used now.
    pub available: bool,
    /// Version, or why it cannot be used.
    pub detail: String,
}

/// How many samples and transitions are kept for the status.
const KEPT: usize = 512;

/// The operator, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorView {
    /// Generation of the published tables.
    pub generation: u64,
    /// Whether what ran before has been read back; nothing is planned before.
    #[serde(default)]
    pub settled: bool,
    /// The order that they stay as they are, if there is one.
    #[serde(default)]
    pub held: Option<Hold>,
    /// Instances that have left the answers and whose late clients go to others.
    #[serde(default)]
    pub left: Vec<LeftReport>,
    /// Publishes that were refused because a service would have become empty.
    pub refused_empty: u64,
    /// Times that a service's TTL was shortened ahead of a removal.
    #[serde(default)]
    pub shortened_ttls: u64,
    /// Publishes that failed.
    pub publish_failures: u64,
    /// Instances that are not stopped.
    pub instances: BTreeMap<InstanceId, InstanceReport>,
    /// Technologies.
    pub technologies: BTreeMap<Technology, TechnologyReport>,
    /// Instances that are prepared ahead, by service.
    #[serde(default)]
    pub prepared: BTreeMap<ServiceName, u32>,
    /// From what each service is answered.
    pub bases: BTreeMap<ServiceName, Basis>,
    /// Services that are answered from their last good backends because none serves.
    pub last_good: Vec<ServiceName>,
    /// Trigger to ready, in milliseconds, newest last (the paper's resource allocation time).
    pub allocation_ms: VecDeque<f64>,
    /// Stop to gone, in milliseconds, newest last (the paper's resource removal time).
    pub removal_ms: VecDeque<f64>,
    /// Newest transitions, oldest first.
    pub transitions: VecDeque<Transition>,
}

impl OperatorView {
    pub(super) fn note(&mut self, transition: Transition) {
        keep(&mut self.transitions, transition);
    }

    pub(super) fn note_allocation(&mut self, millis: f64) {
        keep(&mut self.allocation_ms, millis);
    }

    pub(super) fn note_removal(&mut self, millis: f64) {
        keep(&mut self.removal_ms, millis);
    }
}

fn keep<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(item);
}

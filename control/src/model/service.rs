//! What an operator wants: services, their requirements, and limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ServiceName;

/// What runs an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Technology {
    /// A container of the Docker engine.
    Docker,
}

impl Technology {
    /// Every technology that has a driver.
    pub const ALL: [Self; 1] = [Self::Docker];

    /// Short fixed name: configuration value, metric label, JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Docker => "docker",
        }
    }
}

/// A service: names, content and requirements.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// Its name in configuration, API and metrics.
    pub name: ServiceName,
    /// Fully qualified domain names that clients ask for, lower case, with the final dot.
    pub names: Vec<String>,
    /// What runs it.
    pub technology: Technology,
    /// The image: for Docker a name with tag or digest that the engine holds.
    pub image: String,
    /// TCP port that it serves on.
    pub port: u16,
    /// Path of the readiness request.
    pub probe_path: String,
    /// Requests that one instance serves per window (20 in the paper).
    pub capacity: f64,
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// TTL of its answers in seconds.
    pub ttl_s: u32,
    /// Most addresses in one answer; 1 to 16.
    pub answers: u32,
    /// Virtual CPUs of an instance (1 in the paper).
    pub vcpus: f64,
    /// Memory of an instance in MiB (256 in the paper).
    pub memory_mib: u64,
    /// Longest wait for the first answer to a probe.
    pub start_deadline: Duration,
    /// Quiet time after which traffic counts as ended.
    pub drain_quiet: Duration,
    /// Longest drain behind the TTL, whatever traffic there is.
    pub drain_deadline: Duration,
}

/// Hard bounds of this node, whatever the forecasts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most instances on the node, all services together, draining ones included.
    pub instances: u32,
}

//! What is known of a technology with an image: the catalogue's entries, and the measurements that a bench writes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// How far an instance is from the kernel of its node, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Processes on the node's kernel, parted by namespaces and control groups.
    Container,
    /// One process on the node's kernel that may make only a handful of system calls.
    Sandbox,
    /// A machine of its own, by hardware or emulated.
    Vm,
}

impl Isolation {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Container, Self::Sandbox, Self::Vm];

    /// Short fixed name: option and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Sandbox => "sandbox",
            Self::Vm => "vm",
        }
    }
}

/// What a service can ask of a technology and image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Runs programs of a Linux distribution as they are.
    LinuxPrograms,
    /// Limits change while it runs (the paper's vertical elasticity).
    LiveResize,
    /// Content on a block device, apart from the image.
    BlockDevice,
    /// Answers range requests.
    RangeRequests,
    /// Has IPv6.
    Ipv6,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 5] =
        [Self::LinuxPrograms, Self::LiveResize, Self::BlockDevice, Self::RangeRequests, Self::Ipv6];

    /// Short fixed name: option and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::LinuxPrograms => "linux-programs",
            Self::LiveResize => "live-resize",
            Self::BlockDevice => "block-device",
            Self::RangeRequests => "range-requests",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// Two points of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of all runs took at most this.
    pub p50: f64,
    /// 95 of 100 did.
    pub p95: f64,
}

/// What instances of an image take and give.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Bytes of the image.
    pub size_bytes: u64,
    /// From the order to the first answer, in milliseconds, with the image on the node.
    pub allocation_ms: Quantiles,
    /// From the order until nothing is left, in milliseconds.
    pub removal_ms: Quantiles,
    /// Resident memory of an idle instance, in MiB.
    pub memory_mib: f64,
    /// What one instance sends at most, in Mbit/s; `None` where nobody has measured it.
    #[serde(default)]
    pub throughput_mbit: Option<f64>,
}

/// One row of what a bench has measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The technology's label.
    pub technology: String,
    /// The image's name.
    pub image: String,
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
    /// Times that it was started and removed.
    pub runs: u32,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The document that a bench writes and the catalogue reads (`catalogue.json` below `control.state_dir`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// At most one per technology and image; of several the last counts.
    pub measurements: Vec<Measurement>,
}

/// When and how often something was measured on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
    /// Times.
    pub runs: u32,
}

/// One entry of the catalogue: a technology with an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// The technology's label, also of one that this node lacks.
    pub technology: String,
    /// The image's name.
    pub image: String,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// How far it is from the kernel.
    pub isolation: Isolation,
    /// What it can.
    pub features: BTreeSet<Feature>,
    /// Where the figures are of this node; `None` for published ones, not measured here.
    pub measured: Option<Measured>,
}

//! What an operator wants: services, their requirements, and limits.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probing, ServiceName, Shaping, Summon};

/// What runs an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Technology {
    /// A container of the Docker engine.
    Docker,
    /// A unikernel as a process under seccomp: Solo5's tender `spt`. Needs no virtualisation.
    Spt,
    /// A unikernel on KVM with Solo5's tender `hvt`.
    Hvt,
    /// A unikernel on QEMU's machine without PCI, emulated or on KVM.
    QemuMicrovm,
    /// A unikernel on QEMU's PC.
    QemuPc,
    /// A unikernel on Firecracker.
    Firecracker,
    /// A paravirtual guest of Xen.
    XenPv,
    /// A guest of Xen in hardware virtualisation, with paravirtual devices and no emulator.
    XenPvh,
}

impl Technology {
    /// Every technology that has a driver.
    pub const ALL: [Self; 8] = [
        Self::Docker,
        Self::Spt,
        Self::Hvt,
        Self::QemuMicrovm,
        Self::QemuPc,
        Self::Firecracker,
        Self::XenPv,
        Self::XenPvh,
    ];

    /// Those that run a unikernel as a process of a monitor.
    pub const UNIKERNELS: [Self; 5] = [Self::Spt, Self::Hvt, Self::QemuMicrovm, Self::QemuPc, Self::Firecracker];

    /// Short fixed name: configuration value, metric label, JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Spt => "spt",
            Self::Hvt => "hvt",
            Self::QemuMicrovm => "qemu-microvm",
            Self::QemuPc => "qemu-pc",
            Self::Firecracker => "firecracker",
            Self::XenPv => "xen-pv",
            Self::XenPvh => "xen-pvh",
        }
    }

    /// Those that run guests of Xen.
    pub const XEN: [Self; 2] = [Self::XenPv, Self::XenPvh];

    /// Whether its instances are guests with a kernel of their own, which [`Guest`] is about.
    #[must_use]
    pub const fn runs_guests(self) -> bool {
        !matches!(self, Self::Docker)
    }

    /// Whether it runs guests of Xen.
    #[must_use]
    pub const fn is_xen(self) -> bool {
        matches!(self, Self::XenPv | Self::XenPvh)
    }
}

/// How a unikernel is told its address: each library operating system has its own words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Launch {
    /// Our reference unikernel.
    #[default]
    Selvedge,
    /// MirageOS.
    Mirage,
    /// Unikraft.
    Unikraft,
    /// OSv.
    Osv,
    /// Nanos.
    Nanos,
    /// Rumprun.
    Rumprun,
    /// A Linux kernel with an initial ramdisk.
    Linux,
    /// ClickOS, told by its Click configuration. On Xen only.
    #[serde(rename = "clickos")]
    ClickOs,
}

impl Launch {
    /// Every form.
    pub const ALL: [Self; 8] = [
        Self::Selvedge,
        Self::Mirage,
        Self::Unikraft,
        Self::Osv,
        Self::Nanos,
        Self::Rumprun,
        Self::Linux,
        Self::ClickOs,
    ];

    /// Short fixed name: configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Selvedge => "selvedge",
            Self::Mirage => "mirage",
            Self::Unikraft => "unikraft",
            Self::Osv => "osv",
            Self::Nanos => "nanos",
            Self::Rumprun => "rumprun",
            Self::Linux => "linux",
            Self::ClickOs => "clickos",
        }
    }
}

impl Launch {
    /// Whether a guest can be made before its address is known: it is told behind that, and not by its command line.
    #[must_use]
    pub const fn can_be_prepared(self) -> bool {
        matches!(self, Self::Selvedge | Self::Linux | Self::Rumprun | Self::ClickOs)
    }
}

/// What of a unikernel its image does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guest {
    /// How it is told its address.
    pub launch: Launch,
    /// Its application's own words, behind those of the launch form.
    pub arguments: Vec<String>,
    /// A block device for it: the absolute path of an image.
    pub disk: Option<String>,
    /// An initial ramdisk for its kernel: a file's absolute path. On Xen only.
    pub ramdisk: Option<String>,
    /// A Click configuration with placeholders for its addresses: a file's absolute path. For ClickOS only.
    pub click: Option<String>,
}

impl Guest {
    /// The files that it needs beside its image.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        [&self.disk, &self.ramdisk, &self.click].into_iter().flatten()
    }
}

/// Which of a service's instances an answer names first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// One after the other, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The same one for the same client (affinity), as long as it serves.
    Client,
}

impl Choice {
    /// Every way to choose.
    pub const ALL: [Self; 2] = [Self::RoundRobin, Self::Client];

    /// Short fixed name: configuration value and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Client => "client",
        }
    }
}

/// How often answers name each of a service's instances first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// All as often.
    #[default]
    Equal,
    /// The less often, the slower it answers its probes than its peers.
    Load,
}

impl Weights {
    /// Every way to weigh.
    pub const ALL: [Self; 2] = [Self::Equal, Self::Load];

    /// Short fixed name: configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Load => "load",
        }
    }
}

/// What is answered for a service while neither an instance serves nor a fallback group has addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAllDown {
    /// The instances that served last.
    #[default]
    LastGood,
    /// Every instance that is there, whatever its probe says.
    All,
    /// Addresses of something that says sorry.
    Sorry,
    /// No records, to be asked again soon.
    #[serde(rename = "nodata")]
    NoData,
    /// SERVFAIL, so that a resolver asks another server of the zone.
    #[serde(rename = "servfail")]
    ServFail,
    /// Nothing in the kernel; the daemon answers.
    Pass,
}

impl OnAllDown {
    /// Every policy.
    pub const ALL: [Self; 6] = [Self::LastGood, Self::All, Self::Sorry, Self::NoData, Self::ServFail, Self::Pass];

    /// Short fixed name: configuration value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::LastGood => "last-good",
            Self::All => "all",
            Self::Sorry => "sorry",
            Self::NoData => "nodata",
            Self::ServFail => "servfail",
            Self::Pass => "pass",
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
    /// The image: for Docker a name with tag or digest that the engine holds, for a unikernel a file's absolute path.
    pub image: String,
    /// For a unikernel, what its image does not say.
    pub guest: Guest,
    /// TCP port that it serves on.
    pub port: u16,
    /// Path of the readiness request.
    pub probe_path: String,
    /// Requests that one instance serves per window (20 in the paper).
    pub capacity: f64,
    /// Fewest instances; none where its first query starts one.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// TTL of its answers in seconds.
    pub ttl_s: u32,
    /// Most addresses in one answer; 1 to 64.
    pub answers: u32,
    /// Which instance an answer names first.
    pub choice: Choice,
    /// How often answers name each of its instances first.
    pub weights: Weights,
    /// Addresses elsewhere that stand in while no instance serves: the first group that has any.
    pub fallback: Vec<Vec<IpAddr>>,
    /// What is answered when there is no fallback either.
    pub on_all_down: OnAllDown,
    /// Addresses for [`OnAllDown::Sorry`] and [`Late::Sorry`](super::Late::Sorry).
    pub sorry: Vec<IpAddr>,
    /// Virtual CPUs of an instance (1 in the paper).
    pub vcpus: f64,
    /// Memory of an instance in MiB (256 in the paper).
    pub memory_mib: u64,
    /// How fast an instance may send, and receive; `None` for as fast as it can.
    pub shaping: Option<Shaping>,
    /// How its queries start it; there exactly where `min` is 0.
    pub summon: Option<Summon>,
    /// How many of its instances are prepared ahead, beside those that run; `None` for none.
    pub prepared: Option<Prepared>,
    /// How it is asked whether it serves.
    pub probing: Probing,
    /// Longest wait for the first answer to a probe.
    pub start_deadline: Duration,
    /// Quiet time after which traffic counts as ended.
    pub drain_quiet: Duration,
    /// Longest drain behind the TTL.
    pub drain_deadline: Duration,
    /// What becomes of clients that are there still then.
    pub drain_at_deadline: AtDeadline,
    /// What becomes of clients that come when no answer names the instance any more.
    pub drain_late: LateClients,
    /// How long behind its removal they are forwarded.
    pub drain_forward: Duration,
    /// TTL of its answers in seconds while a removal is coming; `None` for the usual one.
    pub drain_ttl_s: Option<u32>,
}

/// Instances of a service that are prepared ahead. Between these bounds the forecast says how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Fewest, while there is room.
    pub min: u32,
    /// Most.
    pub max: u32,
}

/// What becomes of clients that use an instance still when its drain has lasted for as long as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtDeadline {
    /// They are cut off.
    Cut,
    /// It goes on while a connection of theirs is open.
    Keep,
}

impl AtDeadline {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Cut, Self::Keep];

    /// Its name in configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Keep => "keep",
        }
    }
}

/// What becomes of clients that come to an instance when the last answer that named it has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LateClients {
    /// They have until the drain's deadline, and are cut off then.
    Cut,
    /// The instance goes on while a connection of theirs is open.
    Keep,
    /// Their connections go to another instance of the service.
    Forward,
}

impl LateClients {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cut, Self::Keep, Self::Forward];

    /// Its name in configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Keep => "keep",
            Self::Forward => "forward",
        }
    }
}

/// Hard bounds of this node, whatever the forecasts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most instances on the node, all services together, draining ones included.
    pub instances: u32,
}

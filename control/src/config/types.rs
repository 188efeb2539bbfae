//! The checked configuration. `packaging/selvedge.toml` tells each key to operators.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::api::Api;
use super::images::Images;
use crate::model::{
    Limits, NodeName, RouteSpec, ServiceName, ServiceSpec, Shaping, SummonLimits, Technology, UplinkSpec, VxlanSpec,
    Zone,
};
use crate::predict::PredictorKind;

/// A configuration in which everything has been checked that can be without effects.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This node's name.
    pub node: NodeName,
    /// Where and how the kernel answers.
    pub dataplane: Dataplane,
    /// Addresses of this node that queries are sent to; at most 8 per family, none twice.
    pub listen: Vec<IpAddr>,
    /// How DNS is spoken.
    pub dns: Dns,
    /// Zones that we are authoritative for, by apex, none twice.
    pub zones: Vec<Arc<Zone>>,
    /// The daemon's own settings.
    pub control: Control,
    /// Who may use the daemon's interface.
    pub api: Api,
    /// Hard bounds of this node.
    pub limits: Limits,
    /// Bounds of what queries may start.
    pub summon: SummonLimits,
    /// The repository of images.
    pub images: Images,
    /// Settings of the technologies; those without a section in the file have their defaults.
    pub technologies: Technologies,
    /// Networks beside those of the technologies.
    pub networks: Networks,
    /// The services, by name, none twice.
    pub services: Vec<ServiceSpec>,
    /// Which model predicts each service; has an entry for every service.
    pub predictors: BTreeMap<ServiceName, PredictorKind>,
}

/// Where and how the kernel answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataplane {
    /// Interfaces whose received frames are looked at; none twice.
    pub interfaces: Vec<String>,
    /// How the program is attached.
    pub mode: AttachMode,
    /// Directory on a BPF file system for pinned programs, maps and links.
    pub pin_dir: PathBuf,
    /// Answer queries for our names whatever address they were sent to, not only those of `dns.listen`.
    pub transparent: bool,
    /// Earlier tables that are kept to go back to; 0 to 256.
    pub keep_tables: u32,
}

/// How DNS is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Whether DNS cookies are spoken (RFC 7873, RFC 9018).
    pub cookies: bool,
    /// Where their secret is, for servers that share an address; `None` for one of this installation's own.
    pub cookie_secret_file: Option<PathBuf>,
    /// Resolvers whose EDNS client subnet (RFC 7871) is believed.
    pub client_subnet_from: Vec<IpNet>,
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver where it can; generic otherwise, which is logged and shown.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the kernel's generic hook, whatever the driver can.
    Generic,
}

impl AttachMode {
    /// Short fixed name: configuration value and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// The daemon's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Length of a counting period; 1 s to 1 h.
    pub window: Duration,
    /// Directory of the store.
    pub state_dir: PathBuf,
    /// Unix socket of the API.
    pub socket: PathBuf,
    /// Where Prometheus metrics are served over HTTP.
    pub metrics: SocketAddr,
    /// Least severe level that is logged.
    pub log: LogLevel,
}

/// Least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happened.
    Info,
    /// And why it happened.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// Short fixed name: configuration value and `tracing` directive.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Settings by technology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Technologies {
    /// The Docker engine.
    pub docker: Docker,
    /// Everything that runs unikernels.
    pub unikernels: Unikernels,
    /// Xen, for both kinds of its guests.
    pub xen: Xen,
}

/// Settings of Xen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xen {
    /// Its tool, `xl`.
    pub program: PathBuf,
    /// The store's Unix socket.
    pub store: PathBuf,
    /// The network of its guests.
    pub pool: Pool,
}

/// Settings of the technologies that run unikernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unikernels {
    /// The network of their instances.
    pub pool: Pool,
    /// Name of the user that monitors run as.
    pub user: String,
    /// By technology; has an entry for each of [`Technology::UNIKERNELS`].
    pub monitors: BTreeMap<Technology, Monitor>,
}

/// A program that runs unikernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Its absolute path.
    pub program: PathBuf,
    /// What QEMU runs the guest's code with.
    pub accelerator: Accelerator,
}

/// What QEMU runs the guest's code with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Emulation; works everywhere.
    Tcg,
    /// The processor's virtualisation; the monitors' user must be allowed to use `/dev/kvm`.
    Kvm,
}

impl Accelerator {
    /// Short fixed name: configuration value and QEMU's own.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// Settings of the Docker engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// The network of its instances.
    pub pool: Pool,
}

/// Networks beside those of the technologies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Tunnels to other nodes; no name and no VNI twice.
    pub tunnels: Vec<VxlanSpec>,
    /// Static routes; none twice.
    pub routes: Vec<RouteSpec>,
    /// Interfaces of others whose sending is shaped; none twice.
    pub uplinks: Vec<UplinkSpec>,
}

/// The network of a technology's instances: a bridge, its prefixes and the node's addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The bridge's interface name.
    pub bridge: String,
    /// IPv4 prefix that addresses are leased from.
    pub v4: Ipv4Net,
    /// The bridge's own address; never leased.
    pub gateway: Ipv4Addr,
    /// IPv6 prefix, where instances shall have IPv6. Its host part mirrors the IPv4 host number.
    pub v6: Option<Ipv6Net>,
    /// How fast all instances together may send to beyond the bridge, and receive from there.
    pub shaping: Option<Shaping>,
}

impl Pool {
    /// Addresses that instances can have.
    #[must_use]
    pub const fn size(&self) -> u64 {
        // Network, broadcast and gateway are never leased.
        (1u64 << (32 - self.v4.prefix_len())).saturating_sub(3)
    }

    /// The bridge's own IPv6 address, where the pool has IPv6: the gateway's host number in it.
    #[must_use]
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        let host = u32::from(self.gateway).checked_sub(u32::from(self.v4.network()))?;
        self.v6.and_then(|net| crate::placement::lease::host6(net, host))
    }
}

impl Config {
    /// The pool of a technology.
    #[must_use]
    pub const fn pool(&self, technology: Technology) -> &Pool {
        match technology {
            Technology::Docker => &self.technologies.docker.pool,
            Technology::Spt
            | Technology::Hvt
            | Technology::QemuMicrovm
            | Technology::QemuPc
            | Technology::Firecracker => &self.technologies.unikernels.pool,
            Technology::XenPv | Technology::XenPvh => &self.technologies.xen.pool,
        }
    }

    /// This node's own addresses towards the instances of all technologies.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        let technologies = &self.technologies;
        let pools = [&technologies.docker.pool, &technologies.unikernels.pool, &technologies.xen.pool];
        let of = |pool: &Pool| [Some(IpAddr::V4(pool.gateway)), pool.gateway6().map(IpAddr::V6)];
        pools.into_iter().flat_map(of).flatten().collect()
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceSpec> {
        self.services.iter().find(|s| s.name == *name)
    }

    /// Technologies that some service uses. Nothing is set up for the others.
    #[must_use]
    pub fn technologies_in_use(&self) -> BTreeSet<Technology> {
        self.services.iter().map(|s| s.technology).collect()
    }

    /// What is allowed but probably not meant, one sentence each.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.services.is_empty() && self.listen.is_empty() && !self.dataplane.transparent {
            remarks.push("dns.listen is empty, so nobody can ask for the services".to_owned());
        }
        if !self.services.is_empty() && self.dataplane.interfaces.is_empty() {
            remarks.push("dataplane.interfaces is empty, so the daemon answers and the kernel does not".to_owned());
        }
        if !self.control.metrics.ip().is_loopback() {
            remarks.push(format!("control.metrics {} can be read from other machines", self.control.metrics));
        }
        if let Some(listen) = self.images.listen.filter(|listen| !listen.ip().is_loopback()) {
            remarks.push(format!("images.listen {listen} lets other machines pull every image, without a password"));
        }
        let longest = self.services.iter().map(|s| u64::from(s.max)).sum::<u64>();
        if longest > u64::from(self.limits.instances) {
            remarks.push(format!(
                "the services' max sum up to {longest}; limits.instances = {} will bind first",
                self.limits.instances
            ));
        }
        remarks
    }
}

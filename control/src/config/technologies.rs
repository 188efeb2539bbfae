//! `[technology.…]`: each technology's settings, and the network of its instances.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::errors::Complaint;
use super::reader::{Field, Section};
use super::services::ServiceSection;
use super::shared::shaping;
use super::types::{Accelerator, Docker, Monitor, Pool, Technologies, Unikernels, Xen};
use super::values::{absolute_path, interface, parsed, socket_path, user_name, word};
use crate::model::Technology;

/// Keys of a pool.
const POOL_KEYS: [&str; 6] = ["bridge", "pool", "gateway", "pool6", "rate", "burst"];

/// All technologies' settings with the places of their prefixes.
pub(super) struct TechnologiesSection {
    pub(super) technologies: Technologies,
    pub(super) pools: Vec<PoolSection>,
}

/// One pool with its place.
pub(super) struct PoolSection {
    /// The section's name in the file.
    pub(super) path: String,
    pub(super) pool: Pool,
    /// The bridge's name.
    pub(super) bridge: Field<String>,
    pub(super) v4: Field<Ipv4Net>,
    pub(super) v6: Option<Field<Ipv6Net>>,
    /// Technologies whose instances are in it.
    pub(super) of: &'static [Technology],
}

impl PoolSection {
    /// Whether the file gives it or a service uses it; Docker's always is, as services are its own by default.
    pub(super) fn is_meant(&self, services: &[ServiceSection]) -> bool {
        let used = |s: &ServiceSection| self.of.contains(&s.spec.technology);
        self.v4.written || self.of.contains(&Technology::Docker) || services.iter().any(used)
    }

    /// The prefixes that instances get addresses from, where they are sound.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let v4 = (!self.v4.broken).then_some(IpNet::V4(self.v4.value));
        let v6 = self.v6.as_ref().filter(|v6| !v6.broken).map(|v6| IpNet::V6(v6.value));
        v4.into_iter().chain(v6)
    }
}

pub(super) fn technologies(section: &Section<'_, '_>) -> TechnologiesSection {
    let monitors = Technology::UNIKERNELS.map(Technology::label);
    let known: Vec<&str> = ["docker", "unikernel", "xen"].into_iter().chain(monitors).collect();
    section.allow(&known);
    let (docker, docker_pool) = docker(&section.section("docker"));
    let (unikernels, unikernel_pool) = unikernels(section);
    let (xen, xen_pool) = xen(&section.section("xen"));
    let technologies = Technologies { docker, unikernels, xen };
    TechnologiesSection { technologies, pools: vec![docker_pool, unikernel_pool, xen_pool] }
}

fn xen(section: &Section<'_, '_>) -> (Xen, PoolSection) {
    section.allow(&[&["program", "store"], POOL_KEYS.as_slice()].concat());
    let pool = pool(section, "selv-xen", [10, 215, 0, 0], &Technology::XEN);
    let program = section.or("program", PathBuf::from("/usr/sbin/xl"), absolute_path).value;
    let store = section.or("store", PathBuf::from("/run/xenstored/socket"), socket_path).value;
    (Xen { program, store, pool: pool.pool.clone() }, pool)
}

fn docker(section: &Section<'_, '_>) -> (Docker, PoolSection) {
    section.allow(&[&["socket"], POOL_KEYS.as_slice()].concat());
    let pool = pool(section, "selv-docker", [10, 213, 0, 0], &[Technology::Docker]);
    let socket = section.or("socket", PathBuf::from("/var/run/docker.sock"), socket_path).value;
    (Docker { socket, pool: pool.pool.clone() }, pool)
}

/// `[technology.unikernel]`, and a section for each monitor.
fn unikernels(technologies: &Section<'_, '_>) -> (Unikernels, PoolSection) {
    let section = technologies.section("unikernel");
    section.allow(&[&["user"], POOL_KEYS.as_slice()].concat());
    let pool = pool(&section, "selv-unikernel", [10, 214, 0, 0], &Technology::UNIKERNELS);
    let user = section.or("user", "nobody".to_owned(), user_name).value;
    let monitors: BTreeMap<Technology, Monitor> =
        Technology::UNIKERNELS.map(|t| (t, monitor(t, &technologies.section(t.label())))).into();
    (Unikernels { pool: pool.pool.clone(), user, monitors }, pool)
}

fn monitor(technology: Technology, section: &Section<'_, '_>) -> Monitor {
    // Those that have no monitor are never asked for.
    let (program, emulates) = match technology {
        Technology::Hvt => ("/usr/bin/solo5-hvt", false),
        Technology::QemuMicrovm | Technology::QemuPc => ("/usr/bin/qemu-system-x86_64", true),
        Technology::Firecracker => ("/usr/bin/firecracker", false),
        Technology::Spt | Technology::Docker | Technology::XenPv | Technology::XenPvh => ("/usr/bin/solo5-spt", false),
    };
    section.allow(if emulates { &["program", "accelerator"] } else { &["program"] });
    let accelerators = [Accelerator::Tcg, Accelerator::Kvm].map(|a| (a.label(), a));
    Monitor {
        program: section.or("program", PathBuf::from(program), absolute_path).value,
        accelerator: section.or("accelerator", Accelerator::Tcg, |v| word(v, &accelerators)).value,
    }
}

/// A pool's keys; `standard` is its IPv4 prefix where the file gives none.
fn pool(section: &Section<'_, '_>, bridge: &str, standard: [u8; 4], of: &'static [Technology]) -> PoolSection {
    let standard = Ipv4Net::new_assert(Ipv4Addr::from(standard), 24);
    let v4 = section.or("pool", standard, |v| {
        let net: Ipv4Net = parsed(v, "an IPv4 prefix", "10.213.0.0/24")?;
        let addr = net.network();
        let special = addr.is_loopback() || addr.is_multicast() || addr.is_link_local() || addr.is_unspecified();
        check_prefix(net, net.trunc(), special, (8..=29).contains(&net.prefix_len()), "/8 to /29")
    });
    let first = u32::from(v4.value.network()) + 1;
    let gateway = section.or("gateway", Ipv4Addr::from(first), |v| parsed(v, "an IPv4 address", "10.213.0.1"));
    let edge = [v4.value.network(), v4.value.broadcast()].contains(&gateway.value);
    if !v4.broken && !gateway.broken && (edge || !v4.value.contains(&gateway.value)) {
        let what = format!("{} is no host address of the pool {}", gateway.value, v4.value);
        section.complain(gateway.line, "gateway", what, format!("use for example {}", Ipv4Addr::from(first)));
    }
    let v6 = section.optional("pool6", Ipv6Net::default(), |v| {
        let net: Ipv6Net = parsed(v, "an IPv6 prefix", "fd5e:1::/64")?;
        let addr = net.network();
        let special = addr.is_loopback() || addr.is_multicast() || addr.is_unicast_link_local();
        let mapped = addr.to_ipv4_mapped().is_some() || addr.is_unspecified();
        check_prefix(net, net.trunc(), special || mapped, (32..=120).contains(&net.prefix_len()), "/32 to /120")
    });
    // The IPv6 host part mirrors the IPv4 host number, so it must have room for it.
    if let Some(v6) = &v6
        && !v6.broken
        && !v4.broken
        && 128 - v6.value.prefix_len() < 32 - v4.value.prefix_len()
    {
        let most = 96 + v4.value.prefix_len();
        let what = format!("{} has fewer host addresses than the pool {}", v6.value, v4.value);
        section.complain(v6.line, "pool6", what, format!("use a prefix of at most /{most}, as in /64"));
    }
    let bridge = section.or("bridge", bridge.to_owned(), interface);
    let pool = Pool {
        bridge: bridge.value.clone(),
        v4: v4.value,
        gateway: gateway.value,
        v6: v6.as_ref().filter(|v6| !v6.broken).map(|v6| v6.value),
        shaping: shaping(section),
    };
    PoolSection { path: section.path.clone(), pool, bridge, v4, v6, of }
}

fn check_prefix<N: Copy + PartialEq + std::fmt::Display>(
    net: N,
    truncated: N,
    special: bool,
    fits: bool,
    lengths: &str,
) -> Result<N, Complaint> {
    if !fits {
        return Err(Complaint::new(format!("{net} is too large or too small"), format!("use {lengths}")));
    }
    if net != truncated {
        return Err(Complaint::new(format!("{net} has bits behind its prefix"), format!("write {truncated}")));
    }
    if special {
        let fix = "use a private prefix such as 10.213.0.0/24 or fd5e:1::/64";
        return Err(Complaint::new(format!("{net} cannot be given to instances"), fix));
    }
    Ok(net)
}

//! What a changed file means for a running daemon.

use std::sync::Arc;

use super::sections::nameserver_default;
use super::types::{Config, Dataplane, Technologies, Transit};
use crate::model::{ServiceName, ServiceSpec, Zone};

/// The difference of two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigDiff {
    /// Services that the new one has more.
    pub added: Vec<ServiceName>,
    /// Services that the new one lacks.
    pub removed: Vec<ServiceName>,
    /// Services that both have, with different settings.
    pub changed: Vec<ServiceChange>,
    /// Other keys that take effect at once.
    pub live: Vec<&'static str>,
    /// Keys that take effect only when the daemon is started again.
    pub restart: Vec<&'static str>,
}

/// A service whose settings differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    /// The service.
    pub name: ServiceName,
    /// Its keys that differ.
    pub keys: Vec<&'static str>,
    /// True where running instances do not fit the new settings and have to be replaced.
    pub replaces_instances: bool,
}

impl ConfigDiff {
    /// True where the two mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What `new` changes.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> ConfigDiff {
    let missing = |from: &Config, of: &Config| {
        of.services.iter().map(|s| &s.name).filter(|n| from.service(n).is_none()).cloned().collect()
    };
    let changed = old.services.iter().filter_map(|before| {
        let after = new.service(&before.name)?;
        let mut keys = changed_keys(before, after);
        if old.scaling.get(&before.name) != new.scaling.get(&before.name) {
            keys.push("scaling");
        }
        let replaces_instances = keys.iter().any(|k| REPLACING.contains(k));
        (!keys.is_empty()).then(|| ServiceChange { name: before.name.clone(), keys, replaces_instances })
    });
    ConfigDiff {
        added: missing(old, new),
        removed: missing(new, old),
        changed: changed.collect(),
        live: differing([
            ("zone", old.zones != new.zones_for(old)),
            ("dataplane.limits", old.dataplane.guard.limits != new.dataplane.guard.limits),
            ("dataplane.lists", old.dataplane.guard.lists != new.dataplane.guard.lists),
            ("dataplane.stale", old.dataplane.guard.stale != new.dataplane.guard.stale),
            ("dataplane.sample", old.dataplane.guard.sample != new.dataplane.guard.sample),
            ("dataplane.cost_sample", old.dataplane.guard.cost_sample != new.dataplane.guard.cost_sample),
            ("dataplane.transit", old.dataplane.transit != new.transit_for(old)),
            ("limits.instances", old.limits != new.limits),
            ("limits.vcpus", old.caps.vcpus != new.caps.vcpus),
            ("limits.memory_mib", old.caps.memory_mib != new.caps.memory_mib),
            ("network", old.networks != new.networks),
            ("technology.docker.rate", old.technologies.docker != new.technologies_for(old).docker),
            ("technology.unikernel.rate", old.technologies.unikernels != new.technologies_for(old).unikernels),
            ("technology.xen.rate", old.technologies.xen != new.technologies_for(old).xen),
        ]),
        restart: differing([
            ("node.name", old.node != new.node),
            ("dataplane.interfaces", old.dataplane.interfaces != new.dataplane.interfaces),
            ("dataplane.mode", old.dataplane.mode != new.dataplane.mode),
            ("dataplane.pin_dir", old.dataplane.pin_dir != new.dataplane.pin_dir),
            ("dataplane.transparent", old.dataplane.transparent != new.dataplane.transparent),
            ("dataplane.keep_tables", old.dataplane.keep_tables != new.dataplane.keep_tables),
            ("dataplane.transit", new.dataplane.transit != new.transit_for(old)),
            ("dns.listen", old.listen != new.listen),
            ("dns.cookies", old.dns.cookies != new.dns.cookies),
            ("dns.cookie_secret_file", old.dns.cookie_secret_file != new.dns.cookie_secret_file),
            ("dns.client_subnet_from", old.dns.client_subnet_from != new.dns.client_subnet_from),
            ("control.window", old.control.window != new.control.window),
            ("control.state_dir", old.control.state_dir != new.control.state_dir),
            ("control.socket", old.control.socket != new.control.socket),
            ("control.metrics", old.control.metrics != new.control.metrics),
            ("control.log", old.control.log != new.control.log),
            ("summon", old.summon != new.summon),
            ("api", old.api != new.api),
            ("images", old.images != new.images),
            ("technology.docker", new.technologies.docker != new.technologies_for(old).docker),
            ("technology.unikernel", new.technologies.unikernels != new.technologies_for(old).unikernels),
            ("technology.xen", new.technologies.xen != new.technologies_for(old).xen),
        ]),
    }
}

impl Config {
    /// This configuration with the old values of all keys that [`ConfigDiff::restart`] names, so that
    /// no part of a running daemon acts on a value that the others do not have.
    #[must_use]
    pub fn with_fixed_of(self, old: &Self) -> Self {
        Self {
            dataplane: Dataplane {
                guard: self.dataplane.guard.clone(),
                transit: self.transit_for(old),
                ..old.dataplane.clone()
            },
            zones: self.zones_for(old),
            technologies: self.technologies_for(old),
            limits: self.limits,
            caps: self.caps,
            services: self.services,
            scaling: self.scaling,
            networks: self.networks,
            ..old.clone()
        }
    }

    /// Where a daemon rewrites replies that has its program on the interfaces of `old`: as they come in, on no others.
    fn transit_for(&self, old: &Self) -> Transit {
        let mut transit = self.dataplane.transit.clone();
        transit.ingress.retain(|name| old.dataplane.interfaces.contains(name));
        transit
    }

    /// The technologies of `old` with the rates of this one, which are changed in place.
    fn technologies_for(&self, old: &Self) -> Technologies {
        let mut technologies = old.technologies.clone();
        technologies.docker.pool.shaping = self.technologies.docker.pool.shaping;
        technologies.unikernels.pool.shaping = self.technologies.unikernels.pool.shaping;
        technologies.xen.pool.shaping = self.technologies.xen.pool.shaping;
        technologies
    }

    /// The zones as a daemon has them that goes on listening where `old` says: name servers' addresses that follow
    /// `dns.listen` wait for it.
    fn zones_for(&self, old: &Self) -> Vec<Arc<Zone>> {
        let (followed, fixed) = (nameserver_default(&self.listen), nameserver_default(&old.listen));
        let mut zones = self.zones.clone();
        // What did not change stays the same by its pointer, too: comparing it costs nothing then.
        for zone in &mut zones {
            if let Some(same) = old.zones.iter().find(|known| *known == zone) {
                zone.clone_from(same);
            }
        }
        let following = zones.iter_mut().filter(|zone| zone.nameserver_addresses == followed && followed != fixed);
        for zone in following {
            Arc::make_mut(zone).nameserver_addresses.clone_from(&fixed);
        }
        zones
    }
}

/// Keys that an instance is made with.
const REPLACING: [&str; 8] = ["technology", "image", "launch", "arguments", "disk", "ramdisk", "click", "port"];

fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

fn changed_keys(old: &ServiceSpec, new: &ServiceSpec) -> Vec<&'static str> {
    // Taken apart, so that a new field of the model cannot be forgotten here.
    let ServiceSpec {
        name: _,
        names,
        technology,
        image,
        guest,
        port,
        probe_path,
        capacity,
        min,
        max,
        ttl_s,
        answers,
        choice,
        weights,
        fallback,
        on_all_down,
        sorry,
        vcpus,
        memory_mib,
        shaping,
        summon,
        prepared,
        start_deadline,
        drain_quiet,
        drain_deadline,
        drain_at_deadline,
        drain_late,
        drain_forward,
        drain_ttl_s,
        probing,
    } = old;
    differing([
        ("names", *names != new.names),
        ("technology", *technology != new.technology),
        ("image", *image != new.image),
        ("launch", guest.launch != new.guest.launch),
        ("arguments", guest.arguments != new.guest.arguments),
        ("disk", guest.disk != new.guest.disk),
        ("ramdisk", guest.ramdisk != new.guest.ramdisk),
        ("click", guest.click != new.guest.click),
        ("port", *port != new.port),
        ("probe_path", *probe_path != new.probe_path),
        ("capacity", *capacity != new.capacity),
        ("min", *min != new.min),
        ("max", *max != new.max),
        ("ttl_s", *ttl_s != new.ttl_s),
        ("answers", *answers != new.answers),
        ("choice", *choice != new.choice),
        ("weights", *weights != new.weights),
        ("fallback", *fallback != new.fallback),
        ("on_all_down", *on_all_down != new.on_all_down),
        ("sorry", *sorry != new.sorry),
        ("vcpus", *vcpus != new.vcpus),
        ("memory_mib", *memory_mib != new.memory_mib),
        ("rate", shaping.map(|s| s.rate_bps) != new.shaping.map(|s| s.rate_bps)),
        ("burst", shaping.map(|s| s.burst_bytes) != new.shaping.map(|s| s.burst_bytes)),
        ("summon", *summon != new.summon),
        ("prepared", *prepared != new.prepared),
        ("start_deadline", *start_deadline != new.start_deadline),
        ("drain_quiet", *drain_quiet != new.drain_quiet),
        ("drain_deadline", *drain_deadline != new.drain_deadline),
        ("probe", *probing != new.probing),
        ("drain_at_deadline", *drain_at_deadline != new.drain_at_deadline),
        ("drain_late", *drain_late != new.drain_late),
        ("drain_forward", *drain_forward != new.drain_forward),
        ("drain_ttl_s", *drain_ttl_s != new.drain_ttl_s),
    ])
}

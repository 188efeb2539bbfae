//! Services that may have no instance: woken by a query's order, kept up by use, and let go when nobody uses them.
//!
//! What is wanted of such a service is the larger of the plan's number and of one while it is awake. So a plan does
//! not end what a query has just started, and an idle service does not end what a plan has started ahead of its load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::Operator;
use super::idle::{Awake, Use};
use super::short_ttl::Shortening;
use crate::dns::Stage;
use crate::driver::InstanceSpec;
use crate::model::{
    Basis, Cold, ColdServices, InstanceId, InstanceState, Refusal, ServiceName, ServiceSpec, SummonOrder, Timestamp,
    in_full,
};

/// An instance that has served so long is no passing thing: its service's answers get their usual TTL.
const PROVEN: Duration = Duration::from_secs(30);

impl Operator {
    /// Takes an order in; the step that follows acts on it.
    pub(super) fn summoned(&mut self, order: SummonOrder) {
        let named = self.snapshot.services.iter().find(|s| s.index == order.service).map(|s| s.name.clone());
        let Some(service) = named.filter(|name| self.config.service(name).is_some_and(|s| s.summon.is_some())) else {
            // It left the configuration meanwhile.
            debug!(index = order.service, "an order for a service that is none of ours");
            return;
        };
        info!(%service, waited = ?order.seen.elapsed(), "asked for while at zero");
        self.awake.insert(service, Awake::new(Instant::now()));
    }

    /// Services whose instances were found running are in use until it shows that they are not.
    pub(super) fn wake_running(&mut self) {
        let now = Instant::now();
        for spec in self.config.services.iter().filter(|s| s.summon.is_some()) {
            if self.instances.values().any(|t| t.record.service == spec.name && t.record.state.counts()) {
                self.awake.entry(spec.name.clone()).or_insert_with(|| Awake::new(now));
            }
        }
    }

    /// Sees to it that the images of services at zero are here before anybody asks.
    pub(super) fn prefetch(&self) {
        for spec in self.config.services.iter().filter(|s| s.summon.is_some()) {
            let Some(driver) = self.world.drivers.get(&spec.technology).cloned() else { continue };
            let wanted = InstanceSpec::of(spec, InstanceId::from_number(0), self.world.owner.clone());
            tokio::spawn(async move {
                if let Err(error) = driver.fetch(&wanted, &|_| {}).await {
                    let (service, error) = (&wanted.service, in_full(&error));
                    warn!(%service, error, "its image is not here; its first query will wait for it");
                }
            });
        }
    }

    /// Fewest instances of a service now, whatever the plan says.
    pub(super) fn floor(&self, service: &ServiceName) -> Option<u32> {
        self.awake.contains_key(service).then_some(1)
    }

    /// Why an instance of a service is started that no plan wants.
    pub(super) fn why_awake(&self, service: &ServiceName) -> &'static str {
        if self.awake.contains_key(service) { "a query asked for it" } else { "" }
    }

    /// Lets go of the services that nobody has used for their idle time.
    pub(super) fn look_for_idle(&mut self) {
        let now = Instant::now();
        let due: Vec<ServiceName> =
            self.awake.iter().filter(|(_, awake)| awake.next_look() <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            let spec = self.config.service(&name);
            let Some(summon) = spec.and_then(|spec| spec.summon.clone()) else {
                self.awake.remove(&name);
                continue;
            };
            let read = self.used(&name);
            let Some(awake) = self.awake.get_mut(&name) else { continue };
            if awake.is_idle(now, summon.idle_after, read) {
                info!(service = %name, idle_after = ?summon.idle_after, "not used any more");
                self.awake.remove(&name);
            }
        }
    }

    /// When that is due next.
    pub(super) fn next_look(&self) -> impl Iterator<Item = Instant> {
        self.awake.values().map(Awake::next_look)
    }

    /// How much a service has been used so far; `None` where that cannot be read, and while an instance is on its way:
    /// somebody waits for it.
    fn used(&self, service: &ServiceName) -> Option<Use> {
        let index = self.snapshot.services.iter().find(|s| s.name == *service)?.index;
        let counts = self.world.datapath.counts([&index])?;
        let kernel = counts.services.get(index as usize)?;
        let daemon = self.world.dns.service(index);
        let mut packets = 0;
        for tracked in self.instances.values().filter(|t| t.record.service == *service) {
            if tracked.record.state.counts() && tracked.record.state != InstanceState::Serving {
                return None;
            }
            if tracked.record.state == InstanceState::Serving {
                let flow = self.world.datapath.flow(&tracked.record.id.interface())?;
                packets += flow.packets_to.saturating_sub(flow.quiet_to);
            }
        }
        let queries = kernel.queries.saturating_sub(kernel.quiet) + daemon.udp.queries + daemon.tcp.queries;
        Some(Use { queries, packets })
    }

    /// TTL of a service's answers now.
    pub(super) fn ttl_s(&self, spec: &ServiceSpec) -> u32 {
        let shortened = self.shortenings.get(&spec.name).is_some_and(Shortening::is_short);
        let most = spec.drain_ttl_s.filter(|_| shortened).unwrap_or(spec.ttl_s).min(spec.ttl_s);
        match &spec.summon {
            Some(summon) if self.unproven_until(&spec.name).is_none_or(|until| until > Timestamp::now()) => {
                summon.ttl_s.min(most)
            }
            _ => most,
        }
    }

    /// Until when the answers of a service have the short TTL; `None` where nothing of it serves.
    fn unproven_until(&self, service: &ServiceName) -> Option<Timestamp> {
        let serving = self.instances.values().filter(|t| t.record.service == *service && !t.dead);
        let serving = serving.filter(|t| t.record.state == InstanceState::Serving);
        let proven_ms = u64::try_from(PROVEN.as_millis()).unwrap_or(u64::MAX);
        serving.map(|t| Timestamp(t.record.since.0.saturating_add(proven_ms))).min()
    }

    /// When a service's TTL is due to become its usual one.
    pub(super) fn next_proof(&self) -> impl Iterator<Item = Instant> {
        let now = Timestamp::now();
        let due = |spec: &ServiceSpec| spec.summon.as_ref().and_then(|_| self.unproven_until(&spec.name));
        let later = self.config.services.iter().filter_map(due).filter(move |until| *until > now);
        later.map(move |until| Instant::now() + Duration::from_millis(until.millis_since(now)))
    }

    /// Tells the daemon's DNS which services are cold, and what an order would do.
    pub(super) fn tell_cold(&self) {
        let cold: ColdServices = self
            .snapshot
            .services
            .iter()
            .filter(|s| s.basis == Basis::Cold)
            .map(|s| (s.index, self.cold(&s.name)))
            .collect();
        self.channels.cold.send_if_modified(|known| {
            let differs = **known != cold;
            if differs {
                *known = Arc::new(cold);
            }
            differs
        });
    }

    fn cold(&self, service: &ServiceName) -> Cold {
        if self.hold.is_some() {
            return Cold::Refused(Refusal::TablesHeld);
        }
        let coming = |t: &super::operator::Tracked| t.record.service == *service && t.record.state.counts();
        if self.instances.values().any(coming) {
            return Cold::Starting;
        }
        let technology = self.config.service(service).map(|spec| spec.technology);
        if !technology.is_some_and(|t| self.technologies.get(&t).is_some_and(|report| report.available)) {
            return Cold::Refused(Refusal::Unavailable);
        }
        if self.back_off.holds(service) {
            return Cold::Refused(Refusal::BackOff);
        }
        if self.instances.len() >= self.config.limits.instances as usize {
            return Cold::Refused(Refusal::NodeFull);
        }
        if self.awake.contains_key(service) { Cold::Starting } else { Cold::AtZero }
    }

    /// Notes that a start by a query has got so far.
    pub(super) fn reached(&self, service: &ServiceName, stage: Stage) {
        self.world.summons.reached(service, stage);
    }
}

#[cfg(test)]
#[path = "summon_tests.rs"]
mod tests;

//! Where request counts come from, and the clock that closes their windows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval_at};

use crate::config::Config;
use crate::datapath::Datapath;
use crate::dns::DnsStats;
use crate::model::{Demand, InstanceId, InstanceState, ServiceName, Timestamp, WindowReport};
use crate::stop::Stop;
use crate::store::Store;
use crate::telemetry::{Reading, Windows};

/// Looks at each window, its closing among them, and the least time between two.
const PARTS: u32 = 10;
const LEAST_PART: Duration = Duration::from_millis(100);

/// Where request counts come from.
pub(super) struct Counts {
    pub config: watch::Receiver<Arc<Config>>,
    pub datapath: Datapath,
    pub dns: Arc<DnsStats>,
    pub store: Arc<Store>,
    /// Epoch of the kernel's counters, and by service what the kernel had passed on before the daemon counted.
    pub before: (u64, BTreeMap<ServiceName, u64>),
    /// Connections of instances, of the services whose load they are.
    pub connections: Connections,
}

/// Connections of services, added up over instances that come and go.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Counts of the instances that are there.
    seen: BTreeMap<InstanceId, u64>,
    totals: BTreeMap<ServiceName, u64>,
}

impl Connections {
    /// Takes in the counts of all instances of these services; gives the services' sums, but of those of which an
    /// instance could not be read.
    fn add(
        &mut self,
        services: &[ServiceName],
        instances: &[(InstanceId, ServiceName, Option<u64>)],
    ) -> BTreeMap<ServiceName, u64> {
        self.totals.retain(|service, _| services.contains(service));
        for (id, service, now) in instances {
            let Some(now) = now else { continue };
            let before = self.seen.insert(id.clone(), *now);
            // What is there when a service is first looked at was there before.
            let Some(total) = self.totals.get_mut(service) else { continue };
            // Counters that were made anew begin at nothing, and so do those of a new instance.
            *total += before.and_then(|before| now.checked_sub(before)).unwrap_or(*now);
        }
        for service in services {
            self.totals.entry(service.clone()).or_default();
        }
        self.seen.retain(|id, _| instances.iter().any(|(known, ..)| known == id));
        let unread = |service: &ServiceName| instances.iter().any(|(_, of, now)| of == service && now.is_none());
        self.totals.iter().filter(|(service, _)| !unread(service)).map(|(s, total)| (s.clone(), *total)).collect()
    }
}

impl Counts {
    /// Cumulative requests by service, those of listed monitors left out: what the kernel has seen, and what only the
    /// daemon has. Where the program is
    /// not in the kernel, or was taken off an interface, the daemon sees every query that comes there.
    fn read(&mut self, clock: Instant) -> Option<Reading> {
        let config = self.config.borrow().clone();
        let attached = self.datapath.is_attached();
        let indexes = self.store.service_indexes().ok()?;
        let kernel = if attached { Some(self.datapath.counts(indexes.values())?) } else { None };
        let epoch = kernel.as_ref().map_or(0, |k| k.epoch);
        if self.before.0 != epoch {
            self.before = (epoch, BTreeMap::new());
        }
        let mut totals = BTreeMap::new();
        for spec in &config.services {
            // Before its first publish a service has no index and nobody can have asked for it.
            let Some(index) = indexes.get(&spec.name).copied() else { continue };
            let daemon = self.dns.service(index);
            let seen = match &kernel {
                Some(kernel) => {
                    let kernel = kernel.services.get(index as usize)?;
                    let before = self.before.1.entry(spec.name.clone()).or_insert_with(|| {
                        kernel.queries.saturating_sub(kernel.ended()).saturating_sub(daemon.udp.queries)
                    });
                    // The daemon counts no query of a monitor for its service.
                    seen(kernel.queries, kernel.ended(), *before + daemon.udp.queries).saturating_sub(kernel.quiet)
                }
                None => daemon.udp.queries,
            };
            totals.insert(spec.name.clone(), seen + daemon.tcp.queries);
        }
        let connections = self.connections(&config);
        let at_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(Reading { epoch, at_ms, totals, connections })
    }

    /// Cumulative connections of the services whose load they are.
    fn connections(&mut self, config: &Config) -> BTreeMap<ServiceName, u64> {
        let of = |service: &ServiceName| config.scaling.get(service).is_some_and(|s| s.demand != Demand::Dns);
        let services: Vec<ServiceName> = config.services.iter().map(|s| s.name.clone()).filter(of).collect();
        if services.is_empty() {
            self.connections = Connections::default();
            return BTreeMap::new();
        }
        let Ok(instances) = self.store.instances() else { return BTreeMap::new() };
        let up = [InstanceState::Ready, InstanceState::Serving, InstanceState::Draining];
        let counted = instances.into_iter().filter(|i| up.contains(&i.state) && services.contains(&i.service));
        let counts: Vec<_> = counted
            .map(|i| (i.id.clone(), i.service, self.datapath.flow(&i.id.interface()).map(|flow| flow.connections)))
            .collect();
        self.connections.add(&services, &counts)
    }
}

/// Queries over UDP. The kernel counts those that it then passes to the daemon, but not those that never came through
/// it; so each query was either answered there or has reached the daemon. A query on its way between the two is in
/// the kernel's count only. Never falls, for neither side does.
const fn seen(in_kernel: u64, answered_in_kernel: u64, by_daemon: u64) -> u64 {
    let arrived = answered_in_kernel + by_daemon;
    if arrived > in_kernel { arrived } else { in_kernel }
}

pub(super) async fn close_windows(mut counts: Counts, windows_in: mpsc::Sender<WindowReport>, mut stopped: Stop) {
    let length: Duration = counts.config.borrow().control.window;
    let clock = Instant::now();
    let first = tokio::task::block_in_place(|| counts.read(clock));
    let mut windows = Windows::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX), first);
    // Between two closings the running window is looked at, so that a surge need not wait for its end.
    let part = (length / PARTS).max(LEAST_PART).min(length);
    let parts = u32::try_from(length.as_millis() / part.as_millis().max(1)).unwrap_or(1).max(1);
    let mut ticks = interval_at(tokio::time::Instant::now() + part, length / parts);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in (1..=parts).cycle() {
        tokio::select! {
            () = stopped.ordered() => return,
            _ = ticks.tick() => {}
        }
        let reading = tokio::task::block_in_place(|| counts.read(clock));
        if tick < parts {
            if let Some(so_far) = reading.and_then(|reading| windows.so_far(Timestamp::now(), &reading)) {
                // Who is not ready for it gets the next one.
                let _ = windows_in.try_send(so_far);
            }
            continue;
        }
        if windows_in.send(windows.close(Timestamp::now(), reading)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn queries_past_the_program_count_and_none_counts_twice() {
        // 90 answered in the kernel; 10 seen there, passed on and counted by the daemon, too.
        assert_eq!(seen(100, 90, 10), 100);
        // One of them is still on its way.
        assert_eq!(seen(100, 90, 9), 100);
        // The program was taken off: the kernel's counts stand still.
        assert_eq!(seen(100, 90, 510), 600);
        assert_eq!(seen(0, 0, 7), 7);
    }

    #[test]
    fn connections_add_up_over_instances_that_come_and_go() {
        let service = |name: &str| ServiceName::new(name).unwrap();
        let (a, b) = (service("a"), service("b"));
        let mut connections = Connections::default();
        let mut look = |counts: &[(u32, &ServiceName, Option<u64>)]| {
            let counts: Vec<_> =
                counts.iter().map(|(id, of, now)| (InstanceId::from_number(*id), (*of).clone(), *now)).collect();
            connections.add(&[a.clone(), b.clone()], &counts)
        };
        let sums = |a_sum, b_sum| BTreeMap::from([(a.clone(), a_sum), (b.clone(), b_sum)]);
        assert_eq!(look(&[(1, &a, Some(500))]), sums(0, 0), "from before the first look");
        assert_eq!(look(&[(1, &a, Some(510)), (2, &b, Some(3))]), sums(10, 3), "a new one counts whole");
        assert_eq!(look(&[(2, &b, Some(4)), (3, &a, Some(7))]), sums(17, 4), "one went, one came");
        assert_eq!(look(&[(2, &b, None), (3, &a, Some(2))]), [(a.clone(), 19)].into(), "one not read, one made anew");
        assert_eq!(look(&[]), sums(19, 4));
    }
}

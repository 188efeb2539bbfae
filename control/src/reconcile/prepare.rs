//! Instances that are prepared ahead: how many of each service a technology is asked for, and when.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Event, Operator};
use crate::config::Config;
use crate::driver::{Driver, InstanceSpec};
use crate::model::{Desired, InstanceId, InstanceState, OwnerId, ServiceName, Technology, in_full};

/// What one technology was asked for.
#[derive(Debug, Default)]
pub(super) struct Preparing {
    /// The last request; `None` before the first, for an earlier daemon may have prepared what is not wanted now.
    asked: Option<Vec<(InstanceSpec, u32)>>,
    /// The same is to be asked again: something that was prepared may be gone.
    due: bool,
    /// The last request failed as a whole: what is not wanted any more may be there still.
    unknown: bool,
    /// The driver is at it.
    under_way: bool,
    /// What came of it.
    pub ready: BTreeMap<ServiceName, u32>,
    /// Why some are not ready, by service.
    failed: BTreeMap<ServiceName, String>,
}

/// What has come of a request.
#[derive(Debug)]
pub(super) struct Prepared {
    ready: BTreeMap<ServiceName, u32>,
    failed: BTreeMap<ServiceName, String>,
}

impl Operator {
    /// Asks technologies for what shall be prepared, where that differs from what they were asked for. It waits while
    /// instances come up: these are needed now.
    pub(super) fn prepare(&mut self) {
        for (technology, driver) in &self.world.drivers {
            let coming = |state: InstanceState| {
                matches!(state, InstanceState::Requested | InstanceState::Fetching | InstanceState::Starting)
            };
            let of_it = self.instances.values().filter(|t| t.record.technology == *technology);
            let busy = of_it.into_iter().any(|t| coming(t.record.state) && !t.is_leaving());
            let available = self.technologies.get(technology).is_some_and(|report| report.available);
            let preparing = self.preparing.entry(*technology).or_default();
            if busy || preparing.under_way || !available {
                continue;
            }
            let wanted = wanted(&self.config, self.desired.as_deref(), *technology, &self.world.owner);
            let again = preparing.due && (preparing.unknown || !wanted.is_empty());
            preparing.due = false;
            if preparing.asked.as_ref() == Some(&wanted) && !again {
                continue;
            }
            preparing.asked = Some(wanted.clone());
            preparing.under_way = true;
            tokio::spawn(ask(Arc::clone(driver), *technology, wanted, self.events.clone()));
        }
    }

    /// Something that a technology had prepared is used or lost.
    pub(super) fn prepare_again(&mut self, technology: Technology) {
        self.preparing.entry(technology).or_default().due = true;
    }

    /// All technologies look again: what failed is tried again, what is outdated made anew.
    pub(super) fn prepare_all_again(&mut self) {
        self.preparing.values_mut().for_each(|preparing| preparing.due = true);
    }

    pub(super) fn prepared(&mut self, technology: Technology, outcome: Result<Prepared, String>) {
        let preparing = self.preparing.entry(technology).or_default();
        preparing.under_way = false;
        match outcome {
            Ok(Prepared { ready, failed }) => {
                if ready != preparing.ready {
                    let count: u32 = ready.values().sum();
                    info!(technology = technology.label(), count, "instances are prepared");
                }
                for (service, reason) in &failed {
                    if preparing.failed.get(service) != Some(reason) {
                        warn!(%service, reason, "no instance could be prepared; tried again");
                    }
                }
                (preparing.ready, preparing.failed, preparing.unknown) = (ready, failed, false);
            }
            Err(reason) => {
                warn!(technology = technology.label(), reason, "what is prepared could not be looked at; tried again");
                preparing.unknown = true;
            }
        }
    }
}

/// What a technology shall have prepared: what was decided, and the least of services that nothing is decided for.
fn wanted(
    config: &Config,
    desired: Option<&Desired>,
    technology: Technology,
    owner: &OwnerId,
) -> Vec<(InstanceSpec, u32)> {
    let of_it = config.services.iter().filter(|spec| spec.technology == technology);
    of_it
        .filter_map(|spec| {
            let decided = desired.and_then(|d| d.services.get(&spec.name)).map(|d| d.prepared);
            let count = decided.unwrap_or(spec.prepared?.min);
            // No instance has this number yet, and none is made of it.
            let form = InstanceSpec::of(spec, InstanceId::from_number(0), owner.clone());
            spec.prepared.map(|_| (form, count))
        })
        .collect()
}

async fn ask(
    driver: Arc<dyn Driver>,
    technology: Technology,
    wanted: Vec<(InstanceSpec, u32)>,
    events: mpsc::Sender<Event>,
) {
    let outcome = driver.prepare(&wanted).await.map_err(|error| in_full(&error));
    let outcome = outcome.map(|preparation| Prepared {
        ready: preparation.ready,
        failed: preparation.failed.into_iter().map(|(service, error)| (service, in_full(&error))).collect(),
    });
    // Nobody hears it at shutdown only.
    let _ = events.send(Event::Prepared { technology, outcome }).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::{DesiredService, NodeName};
    use crate::reconcile::fixtures::config;

    #[test]
    fn what_is_decided_is_asked_for_else_the_least() {
        let service = |name: &str, technology: &str, more: &str| {
            format!(
                "[[service]]\nname = '{name}'\nnames = ['{name}.e.test']\ntechnology = '{technology}'\n\
                 image = '/images/web'\n{more}"
            )
        };
        let text = "[dns]\nlisten = ['192.0.2.1']\n[[zone]]\nname = 'e.test'\n".to_owned()
            + &service("a", "xen-pvh", "prepared = { min = 2 }\n")
            + &service("b", "xen-pvh", "prepared = { min = 0, max = 3 }\n")
            + &service("c", "xen-pvh", "")
            + &service("d", "xen-pv", "prepared = { min = 1 }\n");
        let (config, owner) = (config(&text), OwnerId::from_number(1));
        let asked = |desired: Option<&Desired>, technology| -> Vec<(String, u32)> {
            let wanted = wanted(&config, desired, technology, &owner);
            wanted.into_iter().map(|(spec, count)| (spec.service.to_string(), count)).collect()
        };
        let is = |pairs: &[(&str, u32)]| pairs.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
        assert_eq!(asked(None, Technology::XenPvh), is(&[("a", 2), ("b", 0)]));
        let decided = |prepared| DesiredService { replicas: 1, reason: String::new(), fewer_soon: false, prepared };
        let services = [("b", 3), ("c", 1)].map(|(name, count)| (ServiceName::new(name).unwrap(), decided(count)));
        let desired = Desired { revision: 1, node: NodeName::new("n").unwrap(), services: services.into() };
        assert_eq!(asked(Some(&desired), Technology::XenPvh), is(&[("a", 2), ("b", 3)]));
        assert_eq!(asked(Some(&desired), Technology::XenPv), is(&[("d", 1)]));
        assert_eq!(asked(None, Technology::Docker), is(&[]));
    }
}

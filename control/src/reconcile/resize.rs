//! Limits of running instances follow those of their service, without a restart (the paper's vertical elasticity).

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Event, Operator};
use crate::driver::{Driver, Resized, Resources};
use crate::model::{InstanceId, InstanceState, ServiceSpec, in_full};

/// Limits that an instance was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    resources: Resources,
    /// Why they could not be had; asked for again at the next audit.
    refused: Option<String>,
    /// They are to be asked for again.
    again: bool,
    /// The driver is at it: what changes meanwhile comes after it, not beside it.
    under_way: bool,
}

impl Given {
    /// Those that an instance of `service` is started with.
    pub(super) const fn at_start(service: &ServiceSpec) -> Self {
        Self { resources: Resources::of(service), refused: None, again: false, under_way: false }
    }
}

impl Operator {
    /// Gives running instances the limits that their services have now.
    pub(super) fn resize(&mut self) {
        for (id, tracked) in &mut self.instances {
            let runs = matches!(tracked.record.state, InstanceState::Ready | InstanceState::Serving);
            let service = self.config.service(&tracked.record.service);
            let driver = self.world.drivers.get(&tracked.record.technology);
            let (true, false, Some(service), Some(driver)) = (runs, tracked.is_leaving(), service, driver) else {
                continue;
            };
            let resources = Resources::of(service);
            let holds = |given: &Given| given.under_way || (given.resources == resources && !given.again);
            if tracked.given.as_ref().is_some_and(holds) {
                continue;
            }
            let refused = tracked.given.take().and_then(|given| given.refused);
            tracked.given = Some(Given { resources, refused, again: false, under_way: true });
            tokio::spawn(resize(Arc::clone(driver), id.clone(), resources, self.events.clone()));
        }
    }

    /// Lets [`Operator::resize`] try again what was refused.
    pub(super) fn resize_refused(&mut self) {
        for given in self.instances.values_mut().filter_map(|tracked| tracked.given.as_mut()) {
            given.again = given.refused.is_some();
        }
    }

    pub(super) fn resized(&mut self, id: &InstanceId, outcome: Result<Resized, String>) {
        let Some(given) = self.instances.get_mut(id).and_then(|tracked| tracked.given.as_mut()) else { return };
        given.under_way = false;
        let Resources { vcpus, memory_mib } = given.resources;
        match outcome {
            Ok(resized) => {
                given.refused = None;
                if resized.vcpus && resized.memory {
                    info!(instance = %id, vcpus, memory_mib, "has these limits");
                } else if !resized.vcpus {
                    info!(instance = %id, vcpus, memory_mib, "keeps its limits, which cannot be changed; the next instance has these");
                } else {
                    info!(instance = %id, vcpus, "has this limit; its memory stays, the next instance has {memory_mib} MiB");
                }
            }
            Err(reason) => {
                if given.refused.as_ref() != Some(&reason) {
                    warn!(instance = %id, vcpus, memory_mib, reason, "keeps the limits that it had; tried again");
                }
                given.refused = Some(reason);
            }
        }
    }
}

async fn resize(driver: Arc<dyn Driver>, id: InstanceId, resources: Resources, events: mpsc::Sender<Event>) {
    let outcome = driver.resize(&id, resources).await.map_err(|error| in_full(&error));
    // Nobody hears it at shutdown only.
    let _ = events.send(Event::Resized { id, outcome }).await;
}

//! The operator's part in forwarding late clients: who has left, who is live, and what the store and the networks are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use super::Operator;
use super::late::Live;
use super::publish::named;
use crate::model::{Instance, InstanceState, LateClients, Left, ServiceName, ServiceSpec, Timestamp, in_full};
use crate::netlink::Forwards;

/// How long the service forwards behind a removal, if it does.
fn forwarding(spec: &ServiceSpec) -> Option<Duration> {
    (spec.drain_late == LateClients::Forward).then_some(spec.drain_forward)
}

impl Operator {
    /// How long behind its removal an instance's late clients are forwarded; `None` where they are not.
    pub(super) fn forwards_late(&self, record: &Instance) -> Option<Duration> {
        self.config.service(&record.service).and_then(forwarding)
    }

    /// Sees to it that late clients are forwarded as they shall be. Not before it is known what there is: until then the
    /// kernel's rules stay as they were left.
    pub(super) fn forward_late(&mut self) {
        if !self.settled {
            return;
        }
        let config = Arc::clone(&self.config);
        let forward = |service: &ServiceName| config.service(service).and_then(forwarding);
        for tracked in self.instances.values() {
            let record = &tracked.record;
            if tracked.drain.is_some() && forward(&record.service).is_some() && !self.late.has(&record.id) {
                self.late.add(record, None);
            }
        }
        self.late.prune(Timestamp::now(), forward, |id| self.instances.contains_key(id));
        let live = self.live();
        self.late.aim(&live);
        let all = self.late.forwards(&live, |service| config.service(service).map(|spec| spec.port));
        let on = config.services.iter().any(|spec| forwarding(spec).is_some());
        self.keep_late();
        self.world.net.forward(Forwards { on, all });
    }

    /// When the first forward ends.
    pub(super) fn next_forward_end(&self) -> Option<Duration> {
        let now = Timestamp::now();
        let first = self.late.all().filter_map(|left| left.until).min()?;
        Some(Duration::from_millis(first.0.saturating_sub(now.0)))
    }

    /// Instances in the answers that are well, by service.
    fn live(&self) -> BTreeMap<ServiceName, Vec<Live>> {
        let in_tables = named(&self.snapshot);
        let mut live: BTreeMap<ServiceName, Vec<Live>> = BTreeMap::new();
        for tracked in self.instances.values() {
            let record = &tracked.record;
            let serves = record.state == InstanceState::Serving && tracked.unwell.is_none() && !tracked.is_leaving();
            if serves && in_tables.contains(&record.id) {
                live.entry(record.service.clone()).or_default().push((record.id.clone(), record.addresses));
            }
        }
        live
    }

    /// Stores who is forwarded, so that a restart goes on with it.
    pub(super) fn keep_late(&mut self) {
        let Some(now) = self.late.unstored() else { return };
        match tokio::task::block_in_place(|| self.world.store.put_left(&now)) {
            Ok(()) => {
                for Left { instance, service, until, .. } in self.late.stored(now) {
                    info!(%instance, %service, ?until, "its late clients are forwarded");
                }
                self.late_not_kept = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.late_not_kept, true) {
                    error!(error = %in_full(&error), "who is forwarded cannot be stored; a restart would forget it");
                }
            }
        }
    }
}

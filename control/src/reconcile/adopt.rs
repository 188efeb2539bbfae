//! Reading back what is: at start, when an engine returns, and on a timer. Only what bears our mark is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{error, info, warn};

use super::Operator;
use super::bring_up::port_spec;
use super::late::Late;
use crate::driver::Running;
use crate::model::{Instance, InstanceId, InstanceState, Technology, in_full};

impl Operator {
    /// Takes up everything that an earlier run of the daemon left: serving instances go on serving, drains go
    /// on, half-made ones are removed. While the store cannot be read nothing is: what runs goes on running.
    pub(super) async fn adopt(&mut self) {
        let stored = match tokio::task::block_in_place(|| self.world.store.instances()) {
            Ok(stored) => stored,
            Err(error) => {
                error!(error = %in_full(&error), "the store cannot be read; what runs is left as it is, nothing is planned");
                return;
            }
        };
        match tokio::task::block_in_place(|| self.world.store.left()) {
            Ok(left) => self.late = Late::resume(left),
            Err(error) => warn!(error = %in_full(&error), "who was forwarded is not known; nobody is"),
        }
        let mut running: BTreeMap<Technology, Option<BTreeMap<InstanceId, Running>>> = BTreeMap::new();
        for (technology, driver) in &self.world.drivers {
            let owned = driver.list_owned().await;
            let by_id = owned.map(|list| list.into_iter().map(|r| (r.id.clone(), r)).collect());
            running.insert(*technology, by_id.ok());
        }
        let links: BTreeSet<InstanceId> = match self.world.net.list_owned().await {
            Ok(links) => links.iter().filter_map(|l| l.instance().cloned()).collect(),
            Err(error) => {
                warn!(error = %in_full(&error), "links cannot be listed");
                BTreeSet::new()
            }
        };
        for record in stored {
            let engine = running.get(&record.technology).and_then(Option::as_ref);
            self.adopt_one(record, engine, &links).await;
        }
        self.settled = true;
        // An order that came as its instance ended.
        let known = |id: &InstanceId| self.instances.contains_key(id);
        let orders = self.orders.borrow().clone();
        orders.instances.keys().filter(|id| !known(id)).for_each(|id| self.world.orders.forget(id));
        self.audit().await;
    }

    async fn adopt_one(
        &mut self,
        mut record: Instance,
        engine: Option<&BTreeMap<InstanceId, Running>>,
        links: &BTreeSet<InstanceId>,
    ) {
        let id = record.id.clone();
        let state = record.state;
        let naming = self.snapshot.services.iter().filter(|s| s.backends.iter().any(|b| b.instance == id));
        record.largest_ttl_s = naming.map(|s| s.ttl_s).fold(record.largest_ttl_s, u32::max);
        // Without the engine nothing is known; what was serving is taken to be serving still.
        let process = engine.map(|owned| owned.get(&id).is_some_and(|r| r.end.is_some()));
        let alive = process.unwrap_or(true) && links.contains(&id);
        let spec = self.config.services.iter().find(|s| s.name == record.service).cloned();
        let running = engine.and_then(|owned| owned.get(&id)).filter(|running| alive && running.end.is_some());
        let bridge = self.world.bridges.get(&record.technology).cloned();
        let kind = self.world.drivers.get(&record.technology).map(|driver| driver.port());
        if let (Some(running), Some(spec), Some(bridge), Some(kind)) = (running, &spec, bridge, kind)
            && let Err(error) = self.world.net.adopt_port(&port_spec(&record, bridge, spec, kind), running.pid())
        {
            warn!(instance = %id, error = %in_full(&error), "its port is not looked after");
        }
        self.track(record, process == Some(false));
        match (state, alive, spec) {
            // Ready: it answered its probe, and may be in tables that could not be stored any more.
            (InstanceState::Ready | InstanceState::Serving, true, Some(spec)) => {
                info!(instance = %id, state = state.label(), "adopted");
                if let Err(error) = self.world.datapath.count_flows(&id.interface()) {
                    warn!(instance = %id, error = %in_full(&error), "packets cannot be counted");
                }
                self.bring_up(&id, spec, true);
            }
            (InstanceState::Draining | InstanceState::Failed | InstanceState::Stopped, _, _) => {}
            (_, true, None) => {
                self.change(&id, InstanceState::Draining, "its service left the configuration");
            }
            (_, true, Some(_)) => {
                self.change(&id, InstanceState::Failed, "its start was interrupted");
            }
            (_, false, _) => {
                self.change(&id, InstanceState::Failed, "was gone when the daemon started");
            }
        }
    }

    /// Removes what bears our mark but belongs to no instance that we know, and notices instances whose
    /// process is gone without an event having said so.
    pub(super) async fn audit(&mut self) {
        for (technology, driver) in self.world.drivers.clone() {
            // An engine that is away has already been said to be so.
            let Ok(owned) = driver.list_owned().await else { continue };
            for stray in owned.iter().filter(|r| !self.instances.contains_key(&r.id)) {
                warn!(instance = %stray.id, technology = technology.label(), "ours, but of no instance; removed");
                if let Err(error) = driver.stop(&stray.id, Duration::ZERO).await {
                    warn!(instance = %stray.id, error = %in_full(&error), "could not be removed yet");
                }
            }
            let alive: BTreeSet<&InstanceId> = owned.iter().filter(|r| r.end.is_some()).map(|r| &r.id).collect();
            let gone: Vec<InstanceId> = self
                .instances
                .values()
                .filter(|t| t.record.technology == technology && !alive.contains(&t.record.id))
                .filter(|t| matches!(t.record.state, InstanceState::Ready | InstanceState::Serving))
                .map(|t| t.record.id.clone())
                .collect();
            for id in gone {
                self.mark_dead(&id);
                self.change(&id, InstanceState::Failed, "its process is gone");
            }
        }
        self.world.datapath.forget_lost_flows();
        if let Ok(links) = self.world.net.list_owned().await {
            let strays =
                links.iter().filter_map(|l| l.instance()).filter(|id| !self.instances.contains_key(id)).cloned();
            for id in strays.collect::<Vec<_>>() {
                warn!(instance = %id, "a port of ours, but of no instance; removed");
                if let Err(error) = self.world.net.delete_port(&id).await {
                    warn!(instance = %id, error = %in_full(&error), "port could not be removed yet");
                }
            }
        }
    }

    fn mark_dead(&mut self, id: &InstanceId) {
        if let Some(tracked) = self.instances.get_mut(id) {
            tracked.dead = true;
        }
    }
}

//! Rollback: an earlier table goes out again under a new generation and stays in force until it is released,
//! over restarts too. The history that it comes from is kept here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::block_in_place;
use tracing::{info, warn};

use super::cause::cause;
use super::{Operator, QUARANTINE_GRACE, World};
use crate::config::Config;
use crate::model::{
    Backend, Hold, Instance, InstanceState, PublishedService, ServiceName, Snapshot, Timestamp, in_full,
};
use crate::store::StoreError;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Rollback {
    /// The generation that shall be in force again.
    pub generation: u64,
    /// Also where it does not fit, or names addresses that nobody has.
    pub force: bool,
    /// Only say what would come of it.
    pub dry_run: bool,
    /// Who asks.
    pub by: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The new generation, under which the old content is in force.
    pub generation: u64,
    /// What was forced, one sentence each, and whether the hold ends with the daemon.
    pub warnings: Vec<String>,
}

/// Why the tables were not held or released; they are as they were.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Never published, or too long ago.
    #[error("table {generation} is not kept; selvedge table list shows those that are")]
    Unknown {
        /// What was asked for.
        generation: u64,
    },
    /// It can be done, but is probably not what is meant.
    #[error("table {generation}: {}; --force puts it in force nevertheless", reasons.join("; "))]
    NeedsForce {
        /// What was asked for.
        generation: u64,
        /// One sentence each.
        reasons: Vec<String>,
    },
    /// It cannot be put in force.
    #[error("table {generation} could not be published: {reason}")]
    Publish {
        /// What was asked for.
        generation: u64,
        /// What was met.
        reason: String,
    },
    /// There is nothing to release.
    #[error("no table is held")]
    NotHeld,
    /// The store could not be read or written.
    #[error("{}", in_full(.0))]
    Store(#[from] StoreError),
}

impl HoldError {
    /// Short fixed name: the API's code.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_table",
            Self::NeedsForce { .. } => "needs_force",
            Self::Publish { .. } => "publish_failed",
            Self::NotHeld => "not_held",
            Self::Store(error) => error.label(),
        }
    }
}

impl Operator {
    /// Puts an earlier table in force and keeps it there.
    pub(super) fn roll_back(&mut self, order: Rollback) -> Result<RolledBack, HoldError> {
        let generation = order.generation;
        let found = block_in_place(|| self.world.store.table(generation))?;
        let (_, content) = found.ok_or(HoldError::Unknown { generation })?;
        let mut warnings = misfits(&content, &self.config);
        warnings.extend(unserved(&content, self.instances.values().map(|t| &t.record)));
        if !warnings.is_empty() && !order.force {
            return Err(HoldError::NeedsForce { generation, reasons: warnings });
        }
        if order.dry_run {
            return Ok(RolledBack { generation: self.snapshot.generation, warnings });
        }
        let left = Arc::clone(&self.snapshot);
        let hold = Hold { of: generation, since: Timestamp::now(), by: order.by };
        let before = self.hold.replace(hold.clone());
        if let Err(reason) = self.publish_snapshot(content) {
            self.hold = before;
            return Err(HoldError::Publish { generation, reason });
        }
        if before.is_some() {
            self.rest_left(&left);
        }
        self.refused = None;
        self.view.last_good.clear();
        self.mark_serving();
        warn!(generation = self.snapshot.generation, of = generation, by = hold.by, "tables are held");
        for warning in &warnings {
            warn!(of = generation, warning, "tables are held by force");
        }
        if let Some(problem) = &self.not_kept {
            warnings.push(format!("the hold ends with the daemon, for it could not be stored: {problem}"));
        }
        Ok(RolledBack { generation: self.snapshot.generation, warnings })
    }

    /// Lets the tables follow the instances again; the generation then in force.
    pub(super) fn release(&mut self, by: &str) -> Result<u64, HoldError> {
        let hold = self.hold.clone().ok_or(HoldError::NotHeld)?;
        block_in_place(|| self.world.store.forget_hold())?;
        self.hold = None;
        let left = Arc::clone(&self.snapshot);
        info!(of = hold.of, by, "tables are released");
        self.publish();
        if self.snapshot.generation != left.generation {
            self.rest_left(&left);
        }
        Ok(self.snapshot.generation)
    }

    /// Stores what was just published, before `self.snapshot` becomes it. A failure is no reason to take it back:
    /// only a restart and a rollback read it, and at a restart the kernel's tables still answer.
    pub(super) fn keep_table(&mut self, snapshot: &Snapshot) {
        let cause = match &self.hold {
            Some(hold) => format!("rolled back to {} by {}", hold.of, hold.by),
            None => cause(&self.snapshot, snapshot, !self.published),
        };
        let World { store, .. } = &*self.world;
        let (hold, kept) = (self.hold.as_ref(), self.config.dataplane.keep_tables.into());
        let kept = block_in_place(|| store.keep_table(snapshot, Timestamp::now(), &cause, hold, kept));
        self.not_kept = kept.err().map(|e| in_full(&e));
        if let Some(error) = &self.not_kept {
            warn!(error, "the published tables could not be stored");
        }
    }

    /// A held table may have named addresses that no instance has. Clients know them until its TTLs have passed,
    /// so nobody else may have them sooner.
    fn rest_left(&self, left: &Snapshot) {
        let now = Timestamp::now();
        for service in &left.services {
            let rest = Duration::from_secs(service.ttl_s.into()) + QUARANTINE_GRACE;
            let until = Timestamp(now.0 + u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
            let strays = service.backends.iter().filter(|b| !self.instances.contains_key(&b.instance));
            for backend in strays {
                let rested = block_in_place(|| self.world.store.release(&backend.addresses, now, until));
                if let Err(error) = rested {
                    warn!(instance = %backend.instance, error = %in_full(&error), "its addresses may be leased at once");
                }
            }
        }
    }
}

/// Where a table does not fit the configuration: zones and services, not what they contain.
fn misfits(table: &Snapshot, config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for zone in table.zones.iter().filter(|z| config.zones.iter().all(|c| c.apex != z.apex)) {
        found.push(format!("its zone {} is not configured any more", zone.apex));
    }
    for zone in config.zones.iter().filter(|c| table.zones.iter().all(|z| c.apex != z.apex)) {
        found.push(format!("the zone {} would not be answered", zone.apex));
    }
    for service in &table.services {
        match config.service(&service.name) {
            None => found.push(format!("its service {} is not configured any more", service.name)),
            Some(spec) if spec.names != service.names => {
                let (then, now) = (service.names.join(" "), spec.names.join(" "));
                found.push(format!("its service {} has the names {then}, now {now}", service.name));
            }
            Some(_) => {}
        }
    }
    for spec in config.services.iter().filter(|c| table.services.iter().all(|s| c.name != s.name)) {
        found.push(format!("the service {} would not be answered", spec.name));
    }
    found
}

/// Addresses of a table that no instance which serves its service has.
fn unserved<'i>(table: &Snapshot, instances: impl Iterator<Item = &'i Instance> + Clone) -> Vec<String> {
    let stray = |service: &PublishedService, backend: &Backend| -> Option<String> {
        let strays: Vec<String> = backend
            .addresses
            .iter()
            .filter(|address| !serves(*address, &service.name, instances.clone()))
            .map(|address| match holder(address, instances.clone()) {
                None => address.to_string(),
                Some(other) => format!("{address} (now of {} of {})", other.id, other.service),
            })
            .collect();
        (!strays.is_empty()).then(|| {
            format!("no serving instance of {} has {} (was {})", service.name, strays.join(", "), backend.instance)
        })
    };
    table.services.iter().flat_map(|s| s.backends.iter().filter_map(move |b| stray(s, b))).collect()
}

fn serves<'i>(address: IpAddr, service: &ServiceName, mut instances: impl Iterator<Item = &'i Instance>) -> bool {
    instances.any(|i| {
        i.service == *service
            && matches!(i.state, InstanceState::Ready | InstanceState::Serving)
            && i.addresses.iter().any(|a| a == address)
    })
}

fn holder<'i>(address: IpAddr, mut instances: impl Iterator<Item = &'i Instance>) -> Option<&'i Instance> {
    instances.find(|i| i.addresses.iter().any(|a| a == address))
}

#[cfg(test)]
#[path = "hold_tests.rs"]
pub(super) mod tests;

//! Replies of other servers that pass through, rewritten where the configuration says so.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{error, info};
use xdp_balancer::{TransitHook, TransitVerdict};
use xdp_balancer_common::ZONE_SERVICE;

use super::{Datapath, State};
use crate::config;
use crate::model::{ZONE_INDEX, in_full};

const _: () = assert!(ZONE_INDEX == ZONE_SERVICE as u32);

/// A place where replies are rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TransitStatus {
    /// The interface.
    pub interface: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Why they are not.
    pub problem: Option<String>,
}

impl State {
    /// Rewrites there and nowhere else. Without it replies pass as they are, so a failure is no reason not to start.
    pub(super) fn rewrite(&mut self, settings: &config::Transit) -> Vec<TransitStatus> {
        let Some(plane) = self.plane.as_mut() else {
            return places(settings).map(|(name, hook)| status(name, hook, self.problem.clone())).collect();
        };
        let wanted: Vec<(&str, TransitHook)> = places(settings).collect();
        let problem = plane.set_transit(&wanted).err().map(|error| in_full(&error));
        match &problem {
            Some(problem) => error!(problem, "replies in transit are not rewritten"),
            None => wanted.iter().for_each(|(interface, hook)| {
                info!(interface, direction = direction(*hook), "replies in transit are rewritten");
            }),
        }
        wanted.into_iter().map(|(name, hook)| status(name, hook, problem.clone())).collect()
    }
}

impl Datapath {
    /// Where replies are rewritten.
    #[must_use]
    pub fn transit(&self) -> Vec<TransitStatus> {
        self.lock().transit.clone()
    }

    /// What became of replies in transit, by label; nothing where they are not rewritten.
    #[must_use]
    pub fn transit_counts(&self) -> BTreeMap<String, u64> {
        let state = self.lock();
        let counts = state.plane.as_ref().and_then(|plane| plane.transit_counts().ok()).flatten().unwrap_or_default();
        TransitVerdict::ALL.iter().map(|verdict| verdict.label().to_owned()).zip(counts).collect()
    }
}

fn places(settings: &config::Transit) -> impl Iterator<Item = (&str, TransitHook)> {
    let ingress = settings.ingress.iter().map(|name| (name.as_str(), TransitHook::Ingress));
    ingress.chain(settings.egress.iter().map(|name| (name.as_str(), TransitHook::Egress)))
}

const fn direction(hook: TransitHook) -> &'static str {
    match hook {
        TransitHook::Ingress => "ingress",
        TransitHook::Egress => "egress",
    }
}

fn status(interface: &str, hook: TransitHook, problem: Option<String>) -> TransitStatus {
    TransitStatus { interface: interface.to_owned(), direction: direction(hook).to_owned(), problem }
}

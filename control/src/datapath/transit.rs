//! Replies of other servers that pass through, rewritten where the configuration says so.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{error, info};
use xdp_balancer::{Dataplane, TransitHook, TransitVerdict};
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
    /// By what the program is attached on the way out, `tcx` or `clsact`; nothing on the way in, or where it is not.
    pub egress: Option<String>,
    /// Why they are not.
    pub problem: Option<String>,
}

impl State {
    /// Rewrites there and nowhere else. Without it replies pass as they are, so a failure is no reason not to go on.
    pub(super) fn rewrite(&mut self, settings: &config::Transit) {
        self.transit = settings.clone();
        let Some(plane) = self.plane.as_mut() else { return };
        let wanted: Vec<(&str, TransitHook)> = places(settings).collect();
        self.transit_problem = plane.set_transit(&wanted).err().map(|error| in_full(&error));
        for TransitStatus { interface, direction, egress, problem } in self.transit() {
            match problem {
                Some(problem) => error!(interface, direction, problem, "replies in transit are not rewritten"),
                None => info!(interface, direction, egress, "replies in transit are rewritten"),
            }
        }
    }

    fn transit(&self) -> Vec<TransitStatus> {
        let there = self.plane.as_ref().map(Dataplane::transit).unwrap_or_default();
        let general = match &self.plane {
            Some(_) => &self.transit_problem,
            None => &self.problem,
        };
        let status = |(name, hook): (&str, TransitHook)| {
            let place = there.iter().find(|place| place.interface == name && place.hook == hook);
            let problem = match place {
                Some(place) => place.problem.clone(),
                None => general.clone().or_else(|| Some("nothing of ours is loaded into the kernel".to_owned())),
            };
            let egress = place.and_then(|place| place.egress).map(|by| by.label().to_owned());
            TransitStatus { interface: name.to_owned(), direction: direction(hook).to_owned(), egress, problem }
        };
        places(&self.transit).map(status).collect()
    }
}

impl Datapath {
    /// Rewrites replies there and nowhere else, from now on. What cannot be done is told in [`Datapath::transit`] and
    /// in the log.
    pub fn set_transit(&self, settings: &config::Transit) {
        let mut state = self.lock();
        if state.transit != *settings {
            state.rewrite(settings);
        }
    }

    /// Where replies are rewritten.
    #[must_use]
    pub fn transit(&self) -> Vec<TransitStatus> {
        let interfaces = self.interfaces();
        let mut places = self.lock().transit();
        let incoming = places.iter_mut().filter(|place| place.direction == direction(TransitHook::Ingress));
        for place in incoming.filter(|place| place.problem.is_none()) {
            let there = interfaces.iter().find(|known| known.interface == place.interface);
            if there.is_none_or(|known| known.program_id.is_none()) {
                place.problem = Some("the program that answers, which stands in front, is not attached".to_owned());
            }
        }
        places
    }

    /// What became of replies in transit, by label; nothing where they are not rewritten.
    #[must_use]
    pub fn transit_counts(&self) -> BTreeMap<String, u64> {
        let state = self.lock();
        let counts = state.plane.as_ref().and_then(|plane| plane.transit_counts().ok()).flatten().unwrap_or_default();
        TransitVerdict::ALL.iter().map(|verdict| verdict.label().to_owned()).zip(counts).collect()
    }
}

pub(super) fn places(settings: &config::Transit) -> impl Iterator<Item = (&str, TransitHook)> {
    let ingress = settings.ingress.iter().map(|name| (name.as_str(), TransitHook::Ingress));
    ingress.chain(settings.egress.iter().map(|name| (name.as_str(), TransitHook::Egress)))
}

pub(super) const fn direction(hook: TransitHook) -> &'static str {
    match hook {
        TransitHook::Ingress => "ingress",
        TransitHook::Egress => "egress",
    }
}

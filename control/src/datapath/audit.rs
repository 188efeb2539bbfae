//! Looks at the kernel's side by a clock: what others did to it is counted, named and put right.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};
use xdp_balancer::{DriftKind, Mended};

use super::Datapath;
use crate::model::{Timestamp, in_full};

/// Drifts that are remembered.
const MOST_RECENT: usize = 32;

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Pins, links, programs, settings and rules: some system calls.
    Glance,
    /// All tables too, read back name by name, and lists.
    Full,
}

/// Something in the kernel that was not as the daemon had put it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftReport {
    /// When it was found.
    pub at: Timestamp,
    /// `pin`, `link`, `program`, `table`, `settings`, `counter`, `rules` or `filter`.
    pub kind: String,
    /// Which: an interface, a pin, a name.
    pub object: String,
    /// What differed.
    pub what: String,
    /// Why it could not be put right; nothing where it was.
    pub problem: Option<String>,
}

/// What the looks have found since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReport {
    /// When all tables were read back last.
    pub at: Option<Timestamp>,
    /// Drifts found, by kind.
    pub drifts: BTreeMap<String, u64>,
    /// What could not be put right and stands.
    pub open: Vec<DriftReport>,
    /// The newest drifts, oldest first.
    pub recent: VecDeque<DriftReport>,
}

impl AuditReport {
    pub(super) fn new() -> Self {
        // Each kind from the beginning, so that a rate can be had of the first.
        let drifts = DriftKind::ALL.iter().map(|kind| (kind.label().to_owned(), 0)).collect();
        Self { drifts, ..Self::default() }
    }

    /// Takes in what a look found; gives it in words. What stands since an earlier look is no other drift.
    fn note(&mut self, at: Timestamp, depth: Depth, found: Vec<Mended>) -> Vec<DriftReport> {
        let known: BTreeSet<(String, String)> =
            self.open.iter().map(|drift| (drift.kind.clone(), drift.object.clone())).collect();
        let report = |(drift, outcome): Mended| DriftReport {
            at,
            kind: drift.kind.label().to_owned(),
            object: drift.object,
            what: drift.what,
            problem: outcome.err().map(|error| in_full(&error)),
        };
        let found: Vec<DriftReport> = found.into_iter().map(report).collect();
        // A glance says nothing of tables and lists.
        let deep = [DriftKind::Table.label(), DriftKind::Counter.label(), DriftKind::Rules.label()];
        self.open.retain(|drift| depth == Depth::Glance && deep.contains(&drift.kind.as_str()));
        self.open.extend(found.iter().filter(|drift| drift.problem.is_some()).cloned());
        for drift in found.iter().filter(|drift| !known.contains(&(drift.kind.clone(), drift.object.clone()))) {
            let DriftReport { kind, object, what, problem, .. } = drift;
            match problem {
                None => warn!(kind, object, what, "the dataplane was changed by others; put right"),
                Some(problem) => {
                    error!(kind, object, what, problem, "the dataplane was changed by others; it stays so")
                }
            }
            *self.drifts.entry(kind.clone()).or_default() += 1;
            self.recent.push_back(drift.clone());
            if self.recent.len() > MOST_RECENT {
                self.recent.pop_front();
            }
        }
        if depth == Depth::Full {
            self.at = Some(at);
        }
        found
    }
}

impl Datapath {
    /// Looks, puts right what it can, and gives what it found. Without a program there is nothing to look at.
    pub fn look(&self, depth: Depth) -> Vec<DriftReport> {
        let mut state = self.lock();
        let Some(plane) = state.plane.as_mut() else { return Vec::new() };
        let looked = match depth {
            Depth::Glance => plane.glance(),
            Depth::Full => plane.audit(),
        };
        match looked {
            Ok(found) => state.audit.note(Timestamp::now(), depth, found),
            Err(error) => {
                error!(error = %in_full(&error), "the dataplane could not be looked at");
                Vec::new()
            }
        }
    }

    /// What was found since the start.
    #[must_use]
    pub fn audited(&self) -> AuditReport {
        self.lock().audit.clone()
    }
}

#[cfg(test)]
mod tests {
    use xdp_balancer::{Drift, Error};

    use super::*;

    fn drift(kind: DriftKind, object: &str, well: bool) -> Mended {
        let refusal = || Error::NoInterface { interface: object.to_owned() };
        let drift = Drift { kind, object: object.to_owned(), what: "differs".to_owned() };
        (drift, if well { Ok(()) } else { Err(refusal()) })
    }

    #[test]
    fn what_stands_is_counted_once_and_what_comes_again_twice() {
        let mut report = AuditReport::new();
        let at = Timestamp(1);
        for _ in 0..3 {
            report.note(at, Depth::Glance, vec![drift(DriftKind::Link, "e0", false)]);
        }
        assert_eq!((report.drifts["link"], report.open.len(), report.recent.len()), (1, 1, 1));
        report.note(at, Depth::Glance, Vec::new());
        assert!(report.open.is_empty());
        for _ in 0..2 {
            report.note(at, Depth::Glance, vec![drift(DriftKind::Link, "e0", true)]);
        }
        assert_eq!((report.drifts["link"], report.open.len(), report.recent.len()), (3, 0, 3));
    }

    #[test]
    fn a_glance_does_not_forget_tables() {
        let mut report = AuditReport::new();
        report.note(Timestamp(1), Depth::Full, vec![drift(DriftKind::Table, "www.", false)]);
        report.note(Timestamp(2), Depth::Glance, Vec::new());
        assert_eq!((report.open.len(), report.at), (1, Some(Timestamp(1))));
        report.note(Timestamp(3), Depth::Full, Vec::new());
        assert_eq!((report.open.len(), report.at), (0, Some(Timestamp(3))));
    }
}

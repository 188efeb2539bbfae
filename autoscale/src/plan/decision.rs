//! The function from state to decision, and the decision's sentence.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::reason::{Basis, Bound, Reason};
use super::{Policy, instances_for};
use crate::predict::{Forecast, Trust};

/// What a decision about one service rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What is expected of the window that an instance started now can serve in, if anything is.
    pub forecast: Option<Forecast>,
    /// Requests to be ready for by that forecast: its upper quantile, or its mean.
    pub demand: Option<f64>,
    /// The same of the windows behind it: what is needed again soon is not removed, and two steps up are made as one.
    pub ahead: Vec<f64>,
    /// The same of the windows that pass while an instance starts: too late to start for, too early to stop.
    pub before: Vec<f64>,
    /// Whether the forecast may lower what runs.
    pub trust: Trust,
    /// Requests of the last window; `None` where the service was not measured.
    pub observed: Option<f64>,
    /// True where the last report came, in time, and without a counter reset.
    pub complete: bool,
    /// Requests that the running window comes to at the rate of its first part; `None` where that was not counted.
    pub surge: Option<f64>,
    /// Instances up or on their way up, on all nodes.
    pub running: u32,
    /// Instances that serve; those that never became ready are no capacity.
    pub ready: u32,
    /// What was wanted last; `None` before the first decision.
    pub last_wanted: Option<u32>,
    /// Instances in a row that were started and never became ready.
    pub never_ready: u32,
    /// Requests that one instance was seen to serve per window while its latency held, where enough windows say so.
    pub measured_capacity: Option<f64>,
    /// Most instances that the nodes can hold together.
    pub node_limit: u32,
    /// Most that their processors allow, where the service's use is known.
    pub cpu_limit: Option<u32>,
    /// Most that their memory allows, where the service's use is known.
    pub memory_limit: Option<u32>,
}

/// What later decisions need of earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanState {
    /// Needs of the newest windows, oldest first.
    needs: VecDeque<u32>,
    /// Starts and stops that the newest decisions asked for.
    changes: VecDeque<u32>,
    /// Windows until a panic is over.
    panic: u32,
}

/// A wanted number with everything that led to it. `Display` tells it in one sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What it rests on.
    pub input: Input,
    /// Requests per instance and window that it was computed with.
    pub capacity: f64,
    /// Instances that the forecast asks for before any bound; `None` without a usable one.
    pub needed: Option<u32>,
    /// How the number came about.
    pub basis: Basis,
    /// The bounds that changed it, in the order they were applied.
    pub reasons: Vec<Reason>,
    /// Wanted replicas on all nodes.
    pub wanted: u32,
}

/// The number on its way through the bounds.
struct Path {
    wanted: u32,
    reasons: Vec<Reason>,
}

impl Path {
    fn bind(&mut self, bound: Bound, to: u32) {
        if to != self.wanted {
            self.reasons.push(Reason { bound, from: self.wanted, to });
            self.wanted = to;
        }
    }

    fn at_least(&mut self, bound: Bound, least: u32) {
        self.bind(bound, self.wanted.max(least));
    }

    fn at_most(&mut self, bound: Bound, most: u32) {
        self.bind(bound, self.wanted.min(most));
    }
}

/// Decides how many instances are wanted, and what the next decision has to know.
///
/// Nothing is lowered without a usable forecast and a complete report of this service: the number holds at what was
/// wanted last (what runs, before the first decision), be that N, 1 or 0. Bounds that an operator set hold always,
/// and of those the upper ones win over the lower.
#[must_use]
pub fn plan(policy: &Policy, state: &PlanState, input: &Input) -> (Decision, PlanState) {
    let sound = |r: &f64| r.is_finite() && *r >= 0.0;
    let capacity = input.measured_capacity.filter(|c| c.is_finite() && *c > 0.0).unwrap_or(policy.capacity);
    let observed = input.observed.filter(sound);
    let trusted_report = input.complete && observed.is_some();
    let current = input.last_wanted.unwrap_or(input.running);
    let needed = input.demand.and_then(|demand| instances_for(demand, capacity));
    let by_load = observed.and_then(|r| instances_for(r, capacity));

    let (raw, basis) = match (needed, by_load) {
        (None, Some(load)) if load > current => (load, Basis::ObservedWithoutForecast),
        (None, _) => (current, Basis::HeldWithoutForecast),
        (Some(needed), _) if needed < current && !trusted_report => (current, Basis::HeldByReport),
        (Some(needed), Some(load)) if input.trust != Trust::Earned && needed < load => (load, Basis::Observed),
        (Some(needed), _) => (needed, Basis::Forecast),
    };
    let mut next = state.clone();
    let surge = input.surge.filter(sound).filter(|s| *s > policy.panic * capacity * f64::from(input.running));
    let (raw, basis) = match surge.and_then(|s| instances_for(s, capacity)).filter(|needed| *needed > raw.max(current))
    {
        Some(needed) => {
            next.panic = policy.stabilisation.saturating_add(1);
            (needed, Basis::Panic)
        }
        None => (raw, basis),
    };

    let mut path = Path { wanted: raw, reasons: Vec::new() };
    let most =
        |demands: &[f64]| demands.iter().filter_map(|demand| instances_for(*demand, capacity)).max().unwrap_or(0);
    let soon = most(&input.ahead);
    if basis == Basis::Forecast && input.trust == Trust::Earned {
        let alike = input.forecast.as_ref().zip(input.demand).and_then(|(forecast, demand)| forecast.alike(demand));
        let (low, high) = alike.unwrap_or((f64::NAN, f64::NAN));
        match (instances_for(low, capacity), instances_for(high, capacity)) {
            (Some(low), Some(high)) if (low..=high).contains(&current) => path.bind(Bound::Alike, current),
            // Two steps in a row are made as one.
            _ if raw > current => path.at_least(Bound::Ahead, soon),
            _ => {}
        }
    }
    // What was or will be needed within the stabilisation window.
    let kept = state.most_needed().max(most(&input.before)).max(soon).min(current);
    if path.wanted < current {
        path.at_least(Bound::Stabilisation, kept);
        if path.wanted < current && f64::from(path.wanted) >= f64::from(current) * (1.0 - policy.tolerance) {
            path.bind(Bound::Tolerance, current);
        }
        if next.panic > 0 {
            path.bind(Bound::AfterPanic, current);
        }
        path.at_least(Bound::DownRate, current.saturating_sub(policy.down.most(current)));
    }
    path.at_most(Bound::UpRate, current.saturating_add(policy.up.most(current)).max(raw.min(current)));
    let used: u32 = state.changes.iter().fold(0, |sum, c| sum.saturating_add(*c));
    let left = policy.churn.saturating_sub(used);
    if path.wanted.abs_diff(current) > left {
        // Stops are what can wait. Starts that the load itself asks for cannot.
        let bound = if path.wanted < current {
            current - left.min(current)
        } else {
            (current + left).max(by_load.unwrap_or(0).min(path.wanted))
        };
        path.bind(Bound::Churn, bound);
    }
    if input.never_ready >= policy.brake.after.max(1) {
        path.at_most(Bound::Brake, current);
    }
    path.at_least(Bound::Min, policy.min);
    path.at_most(Bound::Max, policy.max);
    path.at_most(Bound::NodeLimit, input.node_limit);
    path.at_most(Bound::Cpu, input.cpu_limit.unwrap_or(u32::MAX));
    path.at_most(Bound::Memory, input.memory_limit.unwrap_or(u32::MAX));

    // A window that was not measured tells nothing about what is enough.
    next.remember(policy, needed.filter(|_| trusted_report).map_or(raw, |n| n.max(raw)), path.wanted.abs_diff(current));
    let decision =
        Decision { input: input.clone(), capacity, needed, basis, reasons: path.reasons, wanted: path.wanted };
    (decision, next)
}

impl PlanState {
    /// Most instances that one of the newest windows needed.
    #[must_use]
    pub fn most_needed(&self) -> u32 {
        self.needs.iter().copied().max().unwrap_or(0)
    }

    fn remember(&mut self, policy: &Policy, need: u32, change: u32) {
        self.panic = self.panic.saturating_sub(1);
        for (queue, value, most) in [
            (&mut self.needs, need, policy.stabilisation),
            (&mut self.changes, change, policy.churn_windows.saturating_sub(1)),
        ] {
            queue.push_back(value);
            while queue.len() > most as usize {
                queue.pop_front();
            }
        }
    }
}

/// A word for a capacity that the configuration does not say.
fn measured(input: &Input) -> &'static str {
    if input.measured_capacity.is_some() { " as measured" } else { "" }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, needed, basis, reasons, wanted, capacity } = self;
        write!(f, "{wanted} wanted")?;
        if let Some(last) = input.last_wanted.filter(|last| last != wanted) {
            write!(f, " (was {last})")?;
        }
        match (&input.forecast, input.demand, needed) {
            (Some(forecast), Some(demand), Some(needed)) => {
                write!(f, ": {} expects {:.1} requests", forecast.model, forecast.mean)?;
                if demand > forecast.mean {
                    write!(f, ", {demand:.1} with headroom")?;
                }
                write!(f, ", at {capacity} per instance{} that needs {needed}", measured(input))?;
            }
            (Some(forecast), ..) => write!(f, ": {} gave no usable forecast ({})", forecast.model, forecast.mean)?,
            (None, ..) => f.write_str(": no forecast yet")?,
        }
        let load = input.observed.and_then(|r| instances_for(r, *capacity)).unwrap_or(0);
        match basis {
            Basis::Forecast => {}
            Basis::Observed => {
                let why = match input.trust {
                    Trust::NoBetterThanNaive => "was no better than naive lately",
                    Trust::CoverageBroken => "was exceeded more often than it claims",
                    Trust::TooYoung | Trust::Earned => "has seen too little",
                };
                write!(f, "; the forecast {why}, so not below the {load} that the observed load needs")?;
            }
            Basis::Panic => {
                write!(
                    f,
                    "; the running window comes to {:.1} requests, more than runs can serve",
                    input.surge.unwrap_or(0.0)
                )?;
            }
            Basis::ObservedWithoutForecast => {
                write!(f, "; the observed load needs {load} at {capacity} per instance{}", measured(input))?;
            }
            Basis::HeldWithoutForecast => f.write_str("; left as it is")?,
            Basis::HeldByReport => f.write_str("; not lowered, for the last report is incomplete")?,
        }
        for Reason { bound, from, to } in reasons {
            match bound {
                Bound::Alike => write!(f, "; kept at {to}, for that is about as likely to be enough")?,
                Bound::Ahead => write!(f, "; raised to {to}, which will be needed soon")?,
                Bound::Stabilisation => write!(f, "; kept at {to}, which was needed lately or will be soon")?,
                Bound::Tolerance => write!(f, "; kept at {to}, for {from} is only a little less")?,
                Bound::AfterPanic => write!(f, "; kept at {to} until the surge is over")?,
                Bound::UpRate => write!(f, "; raised to {to} only, as fast as may be")?,
                Bound::DownRate => write!(f, "; lowered to {to} only, as fast as may be")?,
                Bound::Churn => write!(f, "; {to} instead of {from}, for the budget of starts and stops is used up")?,
                Bound::Brake => write!(
                    f,
                    "; not raised to {from}, for {} instances in a row never became ready",
                    input.never_ready
                )?,
                Bound::Min => write!(f, "; raised to min {to}")?,
                Bound::Max => write!(f, "; lowered to max {to}")?,
                Bound::NodeLimit => write!(f, "; lowered to the nodes' limit {to}")?,
                Bound::Cpu => write!(f, "; lowered to {to}, what the nodes' processors allow")?,
                Bound::Memory => write!(f, "; lowered to {to}, what the nodes' memory allows")?,
            }
        }
        match input.observed {
            Some(observed) => write!(f, " (last window: {observed:.1})"),
            None => f.write_str(" (last window: not measured)"),
        }
    }
}

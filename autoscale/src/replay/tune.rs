//! The policy for a load: a grid of predictors, headrooms, stabilisations and rates, each replayed through the plan.

use serde::Serialize;

use super::{Options, PolicyKind, Trace, outlooks, supply};
use crate::plan::{Policy, Rate};
use crate::predict::PredictorKind;
use crate::score::{ElasticityScore, elasticity};

/// Predictors that are tried.
const PREDICTORS: [PredictorKind; 5] = [
    PredictorKind::Ema,
    PredictorKind::SeasonalNaive,
    PredictorKind::HoltWinters,
    PredictorKind::Sarima,
    PredictorKind::Select,
];
const HEADROOMS: [f64; 7] = [0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99];
/// Stabilisations, in seconds and in windows: of each time the windows that it comes to.
const STABILISATIONS_S: [f64; 4] = [0.0, 120.0, 300.0, 600.0];
const STABILISATIONS: [u32; 3] = [0, 1, 2];
/// Shares by which the number may fall in one window, one instance at least.
const DOWN: [f64; 2] = [f64::INFINITY, 0.1];
/// Instance-seconds that are about the same, as a share.
const ABOUT: f64 = 0.01;

/// What the policy is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Goal {
    /// Most windows with too few instances, in percent.
    pub tau_u: f64,
}

/// One policy of the grid with its scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// What predicts.
    pub predictor: String,
    /// Share of windows that shall have enough instances.
    pub headroom: f64,
    /// Windows beside the newest for which fewer must have been enough.
    pub stabilisation_windows: u32,
    /// Share by which the number may fall in one window; `None` for as fast as may be.
    pub down_share: Option<f64>,
    /// How the supply followed the demand.
    #[serde(flatten)]
    pub elasticity: ElasticityScore,
}

impl Candidate {
    /// At least as good in windows with too few instances, instance-seconds and changes, and better in one of them.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        let three = |c: &Self| {
            let e = &c.elasticity;
            [e.tau_u, e.instance_seconds_ratio, e.adaptations_per_h]
        };
        let pairs = three(self).into_iter().zip(three(other));
        pairs.clone().all(|(own, theirs)| own <= theirs) && pairs.clone().any(|(own, theirs)| own < theirs)
    }
}

/// Replays the grid. `progress` is told the predictor at work and how many of all windows are done.
///
/// Gives the candidates that no other beats, by windows with too few instances, and the index of the proposed one: of
/// those that reach the goal the one with the fewest instance-seconds, about equal ones by fewer changes; where none
/// reaches it, the one with the fewest windows short. `None` where nothing was scored.
pub fn tune(
    trace: &Trace,
    options: &Options,
    goal: Goal,
    progress: &mut dyn FnMut(PredictorKind, usize, usize),
) -> Option<(Vec<Candidate>, usize)> {
    let levels = HEADROOMS.map(Some);
    let all = PREDICTORS.len() * trace.values.len();
    let mut candidates: Vec<Candidate> = Vec::new();
    for (i, kind) in PREDICTORS.into_iter().enumerate() {
        let before = i * trace.values.len();
        let seen = outlooks(trace, kind, options, &levels, &|| 0.0, &mut |done| progress(kind, before + done, all));
        for headroom in HEADROOMS {
            for stabilisation in stabilisations(trace.window_s) {
                for share in DOWN {
                    let down = if share.is_finite() { Rate { instances: 1, share } } else { Rate::UNBOUNDED };
                    let policy = Policy { stabilisation, down, ..options.policy.clone() };
                    let options = Options { headroom: Some(headroom), policy, ..options.clone() };
                    let supply = supply(trace, &seen, &options, PolicyKind::Plan);
                    candidates.push(Candidate {
                        predictor: kind.to_string(),
                        headroom,
                        stabilisation_windows: stabilisation,
                        down_share: share.is_finite().then_some(share),
                        elasticity: elasticity(&trace.values, &supply, options.start, options.capacity, trace.window_s),
                    });
                }
            }
        }
    }
    let mut best: Vec<Candidate> = Vec::new();
    for candidate in &candidates {
        // The first of equals stands: it is the simplest.
        let equal = |b: &Candidate| b.elasticity == candidate.elasticity;
        if !candidates.iter().any(|other| other.beats(candidate)) && !best.iter().any(equal) {
            best.push(candidate.clone());
        }
    }
    best.sort_by(|a, b| a.elasticity.tau_u.total_cmp(&b.elasticity.tau_u));
    let proposed = propose(&best, goal)?;
    Some((best, proposed))
}

fn stabilisations(window_s: f64) -> Vec<u32> {
    let mut windows: Vec<u32> =
        STABILISATIONS_S.iter().map(|seconds| Policy::stabilisation_within(*seconds, window_s)).collect();
    windows.extend(STABILISATIONS);
    windows.sort_unstable();
    windows.dedup();
    windows
}

fn propose(best: &[Candidate], goal: Goal) -> Option<usize> {
    let score = |i: usize| &best[i].elasticity;
    let reaching: Vec<usize> = (0..best.len()).filter(|i| score(*i).tau_u <= goal.tau_u).collect();
    let cheapest = reaching.iter().map(|i| score(*i).instance_seconds_ratio).min_by(f64::total_cmp);
    let Some(cheapest) = cheapest else { return (!best.is_empty()).then_some(0) };
    let about = reaching.into_iter().filter(|i| score(*i).instance_seconds_ratio <= cheapest * (1.0 + ABOUT));
    about.min_by(|a, b| score(*a).adaptations_per_h.total_cmp(&score(*b).adaptations_per_h))
}

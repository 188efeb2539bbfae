//! How many instances of a service: forecast, capacity and limits → wanted replicas, with the reason.
//!
//! The paper's caching optimizer adds ⌈(predicted − capacity of all running) / capacity of one⌉
//! instances, or removes as many when that is negative. Added to what runs, that is
//! ⌈predicted / capacity of one⌉ whatever runs, and so it is computed here. The forecast alone gives
//! the number; what was observed is recorded beside it.

use std::fmt;

use crate::model::{Forecast, ServiceName};

/// Slack in instances that keeps 40.000000001 requests at 20 each from asking for a third one.
const ROUNDING: f64 = 1e-6;

/// What a decision about one service rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanInput {
    /// The service.
    pub service: ServiceName,
    /// What its model expects of the next window, if anything.
    pub forecast: Option<Forecast>,
    /// Instances up or on their way up, on all nodes.
    pub running: u32,
    /// What was wanted last; `None` before the first decision.
    pub last_wanted: Option<u32>,
    /// Requests of the last window; `None` where the service was not measured.
    pub observed: Option<f64>,
    /// True where the last report came, in time, and without a counter reset. See
    /// [`WindowReport::complete`](crate::model::WindowReport::complete).
    pub complete: bool,
    /// Requests that one instance serves per window.
    pub capacity: f64,
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// Most instances that the nodes can hold together.
    pub node_limit: u32,
}

/// How the wanted number came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The forecast gave it.
    Forecast,
    /// Fewer would do by the forecast, but the last report is not to be trusted: not lowered.
    HeldByReport,
    /// There is no usable forecast: left as it is.
    HeldWithoutForecast,
}

impl Outcome {
    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forecast => "forecast",
            Self::HeldByReport => "held_by_report",
            Self::HeldWithoutForecast => "held_without_forecast",
        }
    }
}

/// A bound that changed the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// Raised to the service's fewest.
    Min,
    /// Lowered to the service's most.
    Max,
    /// Lowered to what the nodes can hold.
    NodeLimit,
}

impl Clamp {
    /// Short fixed name: metric label and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::NodeLimit => "node_limit",
        }
    }
}

/// A wanted number with everything that led to it. `Display` tells it in one sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanDecision {
    /// What it rests on.
    pub input: PlanInput,
    /// Instances that the forecast asks for before any bound; `None` without a usable forecast.
    pub needed: Option<u32>,
    /// How the number came about.
    pub outcome: Outcome,
    /// The bounds that changed it, in the order they were applied.
    pub clamps: Vec<Clamp>,
    /// Wanted replicas on all nodes.
    pub wanted: u32,
}

/// Decides how many instances are wanted.
///
/// Nothing is lowered without a usable forecast and a complete report of this service: the number holds
/// at what was wanted last (what runs, before the first decision), be that N, 1 or 0. Bounds that an
/// operator set hold always, and of those the upper ones win over the lower.
#[must_use]
pub fn plan(input: &PlanInput) -> PlanDecision {
    let needed = input.forecast.as_ref().and_then(|f| instances_for(f.mean, input.capacity));
    let current = input.last_wanted.unwrap_or(input.running);
    let trusted = input.complete && input.observed.is_some_and(|r| r.is_finite() && r >= 0.0);
    let (raw, outcome) = match needed {
        None => (current, Outcome::HeldWithoutForecast),
        Some(needed) if needed < current && !trusted => (current, Outcome::HeldByReport),
        Some(needed) => (needed, Outcome::Forecast),
    };
    let mut wanted = raw;
    let mut clamps = Vec::new();
    if wanted < input.min {
        wanted = input.min;
        clamps.push(Clamp::Min);
    }
    for (bound, clamp) in [(input.max, Clamp::Max), (input.node_limit, Clamp::NodeLimit)] {
        if wanted > bound {
            wanted = bound;
            clamps.push(clamp);
        }
    }
    PlanDecision { input: input.clone(), needed, outcome, clamps, wanted }
}

/// ⌈requests / capacity⌉; `None` where either is not a usable number.
fn instances_for(requests: f64, capacity: f64) -> Option<u32> {
    let usable = requests.is_finite() && requests >= 0.0 && capacity.is_finite() && capacity > 0.0;
    let instances = (requests / capacity - ROUNDING).ceil().max(0.0);
    // The cast saturates, and the quotient of two finite numbers may be infinite but not NaN.
    usable.then_some(instances as u32)
}

impl fmt::Display for PlanDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input, needed, outcome, clamps, wanted } = self;
        write!(f, "{wanted} wanted")?;
        if let Some(last) = input.last_wanted.filter(|last| last != wanted) {
            write!(f, " (was {last})")?;
        }
        match (&input.forecast, needed) {
            (Some(forecast), Some(needed)) => write!(
                f,
                ": {} expects {:.1} requests, at {} per instance that needs {needed}",
                forecast.model, forecast.mean, input.capacity
            )?,
            (Some(forecast), None) => write!(f, ": {} gave no usable forecast ({})", forecast.model, forecast.mean)?,
            (None, _) => f.write_str(": no forecast yet")?,
        }
        match outcome {
            Outcome::Forecast => {}
            Outcome::HeldByReport => f.write_str("; not lowered, for the last report is incomplete")?,
            Outcome::HeldWithoutForecast => f.write_str("; left as it is")?,
        }
        for clamp in clamps {
            match clamp {
                Clamp::Min => write!(f, "; raised to min {}", input.min)?,
                Clamp::Max => write!(f, "; lowered to max {}", input.max)?,
                Clamp::NodeLimit => write!(f, "; lowered to the nodes' limit {}", input.node_limit)?,
            }
        }
        match input.observed {
            Some(observed) => write!(f, " (last window: {observed:.1})"),
            None => f.write_str(" (last window: not measured)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn input(forecast: Option<f64>) -> PlanInput {
        PlanInput {
            service: ServiceName::new("video").unwrap(),
            forecast: forecast.map(|mean| Forecast { mean, quantiles: Vec::new(), model: "ema".to_owned() }),
            running: 3,
            last_wanted: Some(3),
            observed: Some(50.0),
            complete: true,
            capacity: 20.0,
            min: 1,
            max: 8,
            node_limit: 32,
        }
    }

    #[test]
    fn the_forecast_is_covered_exactly() {
        for (requests, wanted) in [(0.0, 1), (0.5, 1), (20.0, 1), (20.00001, 1), (20.1, 2), (100.0, 5), (1e300, 8)] {
            assert_eq!(plan(&input(Some(requests))).wanted, wanted, "{requests}");
        }
    }

    #[test]
    fn the_number_is_the_papers() {
        // ⌈(predicted − running · capacity) / capacity⌉ more than run.
        for predicted in [0.0, 13.0, 60.0, 61.0, 99.9, 140.0] {
            let decision = plan(&input(Some(predicted)));
            let delta = ((predicted - 3.0 * 20.0) / 20.0f64).ceil() as i64;
            assert_eq!(i64::from(decision.wanted), (3 + delta).clamp(1, 8), "{predicted}");
        }
    }

    #[test]
    fn nothing_is_lowered_without_a_trusted_report() {
        for current in [7, 1, 0] {
            let distrusted = [
                PlanInput { complete: false, ..input(Some(0.0)) },
                PlanInput { observed: None, ..input(Some(0.0)) },
                PlanInput { observed: Some(f64::NAN), ..input(Some(0.0)) },
                PlanInput { capacity: f64::NAN, ..input(Some(0.0)) },
                PlanInput { capacity: 0.0, ..input(Some(0.0)) },
                input(Some(f64::NAN)),
                input(Some(-1.0)),
                input(Some(f64::INFINITY)),
                input(None),
            ];
            for case in distrusted {
                let case = PlanInput { last_wanted: Some(current), min: 0, ..case };
                assert_eq!(plan(&case).wanted, current, "{case:?}");
                let first = PlanInput { last_wanted: None, running: current, ..case };
                assert_eq!(plan(&first).wanted, current, "{first:?}");
            }
        }
        let raised = plan(&PlanInput { complete: false, ..input(Some(100.0)) });
        assert_eq!((raised.wanted, raised.outcome), (5, Outcome::Forecast));
    }

    #[test]
    fn an_operators_bounds_hold_always() {
        let decision = plan(&PlanInput { max: 2, complete: false, ..input(None) });
        assert_eq!((decision.wanted, decision.clamps), (2, vec![Clamp::Max]));
        let decision = plan(&PlanInput { node_limit: 4, ..input(Some(1e9)) });
        assert_eq!((decision.wanted, decision.clamps), (4, vec![Clamp::Max, Clamp::NodeLimit]));
        assert_eq!(plan(&PlanInput { min: 5, max: 2, ..input(Some(0.0)) }).wanted, 2);
    }

    #[test]
    fn a_decision_tells_its_reason_in_a_sentence() {
        let decision = plan(&PlanInput { max: 4, ..input(Some(87.5)) });
        let expected = "4 wanted (was 3): ema expects 87.5 requests, at 20 per instance that needs 5; lowered to max 4 \
                        (last window: 50.0)";
        assert_eq!(decision.to_string(), expected);
        let held = plan(&PlanInput { complete: false, observed: None, ..input(Some(10.0)) });
        let expected = "3 wanted: ema expects 10.0 requests, at 20 per instance that needs 1; not lowered, for the last \
                        report is incomplete (last window: not measured)";
        assert_eq!(held.to_string(), expected);
        assert_eq!(plan(&input(None)).to_string(), "3 wanted: no forecast yet; left as it is (last window: 50.0)");
    }

    prop_compose! {
        fn any_input()(
            forecast in prop::option::of(prop::num::f64::ANY),
            (running, last_wanted) in (0u32..50, prop::option::of(0u32..50)),
            (observed, complete) in (prop::option::of(prop::num::f64::ANY), any::<bool>()),
            capacity in prop_oneof![prop::num::f64::ANY, 0.1..100.0f64],
            (min, span, node_limit) in (0u32..10, 0u32..10, 0u32..60),
        ) -> PlanInput {
            let max = min + span;
            PlanInput { running, last_wanted, observed, complete, capacity, min, max, node_limit, ..input(forecast) }
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_for_any_input(input in any_input()) {
            let decision = plan(&input);
            prop_assert!(decision.wanted <= input.max.min(input.node_limit));
            prop_assert!(decision.wanted >= input.min.min(input.node_limit));
            let sentence = decision.to_string();
            prop_assert!(!sentence.contains('\n'));
        }

        #[test]
        fn no_input_lowers_blindly(input in any_input()) {
            let blind = PlanInput { complete: false, ..input };
            let current = blind.last_wanted.unwrap_or(blind.running);
            prop_assert!(plan(&blind).wanted >= current.min(blind.max).min(blind.node_limit));
        }

        #[test]
        fn more_is_never_answered_with_fewer(base in any_input(), a in 0.0..1e6f64, b in 0.0..1e6f64) {
            let with = |mean: f64| {
                let forecast = Some(Forecast { mean, quantiles: Vec::new(), model: "m".to_owned() });
                plan(&PlanInput { forecast, ..base.clone() }).wanted
            };
            prop_assert!(with(a.min(b)) <= with(a.max(b)));
        }
    }
}

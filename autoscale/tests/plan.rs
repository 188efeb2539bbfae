//! Situations, what the plan makes of each, and what it says.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use autoscale::plan::{Basis, Bound, Decision, Input, PlanState, Policy, Rate, instances_for, plan};
use autoscale::predict::{Forecast, Trust};

fn policy() -> Policy {
    Policy { max: 30, ..Policy::default() }
}

/// Five run and five are needed.
fn input() -> Input {
    Input {
        forecast: Some(Forecast { mean: 90.0, quantiles: Vec::new(), model: "select".to_owned() }),
        demand: Some(100.0),
        ahead: Vec::new(),
        before: Vec::new(),
        trust: Trust::Earned,
        observed: Some(90.0),
        complete: true,
        surge: None,
        running: 5,
        ready: 5,
        last_wanted: Some(5),
        never_ready: 0,
        measured_capacity: None,
        node_limit: 100,
        cpu_limit: None,
        memory_limit: None,
    }
}

fn at(running: u32) -> Input {
    Input { running, ready: running, last_wanted: Some(running), ..input() }
}

fn bounds(decision: &Decision) -> Vec<Bound> {
    decision.reasons.iter().map(|r| r.bound).collect()
}

struct Situation {
    what: &'static str,
    policy: Policy,
    input: Input,
    wanted: u32,
    basis: Basis,
    bounds: &'static [Bound],
    says: &'static str,
}

fn situation(
    what: &'static str,
    input: Input,
    wanted: u32,
    basis: Basis,
    bounds: &'static [Bound],
    says: &'static str,
) -> Situation {
    Situation { what, policy: policy(), input, wanted, basis, bounds, says }
}

#[test]
fn each_situation_has_its_number_and_its_sentence() {
    use Basis::{Forecast as Foreseen, HeldByReport, HeldWithoutForecast, Observed, ObservedWithoutForecast, Panic};
    let low = || Input { demand: Some(40.0), ..input() };
    let high = || Input { demand: Some(150.0), ..input() };
    let with = |policy: Policy, situation: Situation| Situation { policy, ..situation };
    let two = Rate { instances: 2, share: 0.0 };
    let table = [
        situation("steady", input(), 5, Foreseen, &[], "5 wanted: select expects 90.0 requests, 100.0 with headroom"),
        situation("more is coming", high(), 8, Foreseen, &[], "8 wanted (was 5)"),
        situation("less is coming", low(), 2, Foreseen, &[], "2 wanted (was 5)"),
        situation(
            "less now, more soon",
            Input { ahead: vec![30.0, 80.0], ..low() },
            4,
            Foreseen,
            &[Bound::Stabilisation],
            "kept at 4, which was needed lately or will be soon",
        ),
        situation(
            "a little less",
            Input { demand: Some(380.0), ..at(20) },
            20,
            Foreseen,
            &[Bound::Tolerance],
            "kept at 20, for 19 is only a little less",
        ),
        situation(
            "no forecast, more load",
            Input { forecast: None, demand: None, observed: Some(150.0), ..input() },
            8,
            ObservedWithoutForecast,
            &[],
            "no forecast yet; the observed load needs 8",
        ),
        situation(
            "no forecast, less load",
            Input { forecast: None, demand: None, observed: Some(10.0), ..input() },
            5,
            HeldWithoutForecast,
            &[],
            "left as it is",
        ),
        situation(
            "a forecast that is no number",
            Input { demand: Some(f64::NAN), ..input() },
            5,
            HeldWithoutForecast,
            &[],
            "no usable forecast",
        ),
        situation(
            "incomplete report",
            Input { complete: false, ..low() },
            5,
            HeldByReport,
            &[],
            "not lowered, for the last report is incomplete",
        ),
        situation(
            "not measured",
            Input { observed: None, ..low() },
            5,
            HeldByReport,
            &[],
            "(last window: not measured)",
        ),
        situation("not measured, more expected", Input { observed: None, ..high() }, 8, Foreseen, &[], "not measured"),
        situation("too young", Input { trust: Trust::TooYoung, ..low() }, 5, Observed, &[], "has seen too little"),
        situation(
            "no better than naive",
            Input { trust: Trust::NoBetterThanNaive, ..low() },
            5,
            Observed,
            &[],
            "was no better than naive lately, so not below the 5",
        ),
        situation(
            "coverage broken",
            Input { trust: Trust::CoverageBroken, ..low() },
            5,
            Observed,
            &[],
            "exceeded more often than it claims",
        ),
        situation(
            "surge",
            Input { surge: Some(300.0), ..input() },
            15,
            Panic,
            &[],
            "the running window comes to 300.0 requests",
        ),
        with(
            Policy { up: two, ..policy() },
            situation("slow up", high(), 7, Foreseen, &[Bound::UpRate], "raised to 7 only"),
        ),
        with(
            Policy { down: two, ..policy() },
            situation("slow down", low(), 3, Foreseen, &[Bound::DownRate], "lowered to 3 only"),
        ),
        with(
            Policy { churn: 1, ..policy() },
            situation("budget", low(), 4, Foreseen, &[Bound::Churn], "budget of starts and stops is used up"),
        ),
        with(
            Policy { churn: 0, ..policy() },
            situation("the load itself", Input { observed: Some(150.0), ..high() }, 8, Foreseen, &[], "8 wanted"),
        ),
        situation(
            "crashes on start",
            Input { never_ready: 3, ..high() },
            5,
            Foreseen,
            &[Bound::Brake],
            "3 instances in a row never became ready",
        ),
        with(Policy { min: 3, ..policy() }, situation("fewest", low(), 3, Foreseen, &[Bound::Min], "raised to min 3")),
        with(Policy { max: 6, ..policy() }, situation("most", high(), 6, Foreseen, &[Bound::Max], "lowered to max 6")),
        situation(
            "full nodes",
            Input { node_limit: 7, ..high() },
            7,
            Foreseen,
            &[Bound::NodeLimit],
            "the nodes' limit 7",
        ),
        situation("processors", Input { cpu_limit: Some(6), ..high() }, 6, Foreseen, &[Bound::Cpu], "processors"),
        situation("memory", Input { memory_limit: Some(6), ..high() }, 6, Foreseen, &[Bound::Memory], "memory"),
        situation(
            "capacity measured",
            Input { measured_capacity: Some(10.0), ..input() },
            10,
            Foreseen,
            &[],
            "at 10 per",
        ),
    ];
    for s in table {
        let (decision, _) = plan(&s.policy, &PlanState::default(), &s.input);
        assert_eq!(decision.wanted, s.wanted, "{}: {decision}", s.what);
        assert_eq!(decision.basis, s.basis, "{}: {decision}", s.what);
        assert_eq!(bounds(&decision), s.bounds, "{}: {decision}", s.what);
        assert!(decision.to_string().contains(s.says), "{}: {decision}", s.what);
    }
}

#[test]
fn down_only_after_fewer_were_enough_for_a_while() {
    let policy = Policy { stabilisation: 3, ..policy() };
    let (_, mut state) = plan(&policy, &PlanState::default(), &input());
    let mut wanted = Vec::new();
    for _ in 0..4 {
        let (decision, next) = plan(&policy, &state, &Input { demand: Some(40.0), ..input() });
        state = next;
        wanted.push(decision.wanted);
    }
    assert_eq!(wanted, [5, 5, 5, 2]);
}

#[test]
fn nothing_is_removed_until_a_surge_is_over() {
    let policy = Policy { stabilisation: 1, ..policy() };
    let (first, state) = plan(&policy, &PlanState::default(), &Input { surge: Some(300.0), ..input() });
    assert_eq!(first.wanted, 15);
    let low = || Input { demand: Some(40.0), ..at(15) };
    let (second, state) = plan(&policy, &state, &low());
    assert_eq!(second.wanted, 15, "{second}");
    assert_eq!(plan(&policy, &state, &low()).0.wanted, 2);
}

/// Source dead, map gone, clock jumped, store gone: each comes to an input without a sound report or without a forecast.
#[test]
fn what_is_missing_lowers_nothing_from_0_1_or_n() {
    let policy = Policy { min: 0, ..policy() };
    let nothing = || Input { demand: Some(0.0), observed: Some(0.0), ..input() };
    for running in [0, 1, 7] {
        let from = |input: Input| Input { running, ready: running, last_wanted: Some(running), ..input };
        let cases = [
            ("source dead", from(Input { observed: None, complete: false, ..nothing() })),
            ("map gone", from(Input { complete: false, ..nothing() })),
            ("clock jump", from(Input { observed: Some(f64::NAN), ..nothing() })),
            ("store gone", from(Input { forecast: None, demand: None, last_wanted: None, ..nothing() })),
        ];
        for (what, mut input) in cases {
            if what == "store gone" {
                input.last_wanted = None;
            }
            let (decision, _) = plan(&policy, &PlanState::default(), &input);
            assert_eq!(decision.wanted, running, "{what} at {running}: {decision}");
        }
    }
}

#[test]
fn instances_are_what_serves_the_requests() {
    assert_eq!(instances_for(0.0, 20.0), Some(0));
    assert_eq!(instances_for(100.000_000_01, 20.0), Some(5));
    assert_eq!(instances_for(100.1, 20.0), Some(6));
    for (requests, capacity) in [(f64::NAN, 20.0), (-1.0, 20.0), (1.0, 0.0), (f64::INFINITY, 1.0), (1.0, f64::NAN)] {
        assert_eq!(instances_for(requests, capacity), None);
    }
}

/// Neither up nor down where what runs is about as likely to be enough; once it is not, at once, and for what comes next too.
#[test]
fn what_is_about_as_likely_to_be_enough_stays() {
    let policy = Policy { stabilisation: 0, tolerance: 0.0, ..Policy::default() };
    let quantiles = vec![(0.5, 100.0), (0.86, 175.0), (0.9, 190.0), (0.92, 205.0), (0.95, 250.0)];
    let forecast = Forecast { mean: 100.0, quantiles, model: "test".to_owned() };
    let wanted = |running: u32, trust: Trust| {
        let input = Input {
            forecast: Some(forecast.clone()),
            demand: Some(190.0),
            ahead: vec![230.0],
            before: Vec::new(),
            trust,
            running,
            last_wanted: Some(running),
            observed: Some(100.0),
            complete: true,
            surge: None,
            ready: running,
            never_ready: 0,
            measured_capacity: None,
            node_limit: u32::MAX,
            cpu_limit: None,
            memory_limit: None,
        };
        plan(&policy, &PlanState::default(), &input).0.wanted
    };
    // 9 serve 180: between the quantiles alike, 175 and 205.
    assert_eq!([8, 9, 10, 11].map(|running| wanted(running, Trust::Earned)), [12, 9, 10, 11]);
    // 14 are more than any of that, and what comes next needs 12.
    assert_eq!(wanted(14, Trust::Earned), 12);
    // A forecast that is not trusted has no say in what is alike.
    assert_eq!(wanted(9, Trust::TooYoung), 10);
}

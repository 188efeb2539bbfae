//! Against rolling forecasts computed elsewhere: a directory with `reference.json` and the traces that it speaks of,
//! which is not part of the repository; `SELVEDGE_TRACES`, or `shared/traces` beside it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::PathBuf;

use autoscale::predict::{Predictor, PredictorKind, Settings};
use autoscale::replay::{Options, PolicyKind, Row, Trace, outlook, score};
use serde_json::Value;

/// The reference's traces; `None`, and it is said, where they are not at hand.
fn reference(test: &str) -> Option<Vec<(Value, Trace)>> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces"));
    let dir = std::env::var_os("SELVEDGE_TRACES").map_or_else(beside, PathBuf::from);
    let Ok(text) = std::fs::read_to_string(dir.join("reference.json")) else {
        println!("SKIPPED (no reference traces): {test}");
        return None;
    };
    let all: Value = serde_json::from_str(&text).unwrap();
    let read = |scores: &Value| {
        let name = scores["trace"].as_str().unwrap();
        let text = std::fs::read_to_string(dir.join(format!("{name}.csv"))).unwrap();
        (scores.clone(), Trace::parse(name, &text).unwrap())
    };
    Some(all["traces"].as_array().unwrap().iter().map(read).collect())
}

fn options(trace: &Trace, season: Option<usize>, delay: usize, headroom: Option<f64>) -> Options {
    Options { delay, headroom, season, ..Options::usual(trace, 20.0) }
}

fn row(trace: &Trace, kind: PredictorKind, options: &Options) -> Row {
    let outlook = outlook(trace, kind, options, &|| 0.0, &mut |_| {});
    score(trace, &outlook, options, PolicyKind::Direct)
}

#[track_caller]
fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance * wanted.abs().max(1e-3), "{what}: {got} instead of {wanted}");
}

const PLAIN: [(PredictorKind, &str); 3] =
    [(PredictorKind::Naive, "naive"), (PredictorKind::Ema, "ema3"), (PredictorKind::SeasonalNaive, "snaive")];

#[test]
fn plain_forecasts_and_their_scores_are_the_references() {
    let Some(all) = reference("plain_forecasts_and_their_scores_are_the_references") else { return };
    assert!(all.len() >= 6);
    for (theirs, trace) in &all {
        let season = theirs["season_m"].as_u64().unwrap() as usize;
        for (kind, key) in PLAIN {
            let what = format!("{} {key}", trace.name);
            let options = options(trace, Some(season), 1, None);
            let ours = row(trace, kind, &options);
            let scores = &theirs["scores"][key];
            near(&what, ours.forecast.rmse, scores["rmse"].as_f64().unwrap(), 1e-6);
            near(&what, ours.forecast.mae, scores["mae"].as_f64().unwrap(), 1e-6);
            near(&what, ours.forecast.mase.unwrap(), scores["mase"].as_f64().unwrap(), 1e-6);

            let mut predictor = Predictor::new(Settings { kind, season: Some(season), ..Settings::default() });
            let mut forecasts = Vec::new();
            for value in &trace.values {
                forecasts.push(predictor.point(1));
                predictor.observe(*value);
            }
            let samples = theirs["sample_forecasts"][key].as_array().unwrap();
            assert_eq!(samples.len(), 20);
            for (ours, theirs) in forecasts[options.start..].iter().zip(samples) {
                near(&what, ours.unwrap(), theirs.as_f64().unwrap(), 1e-6);
            }
        }
    }
}

/// Of this one the definition is short enough to be told twice, and must agree to the last digits.
#[test]
fn the_moving_average_is_the_papers() {
    let Some(all) = reference("the_moving_average_is_the_papers") else { return };
    for (_, trace) in &all {
        let mut predictor = Predictor::new(Settings { kind: PredictorKind::Ema, ..Settings::default() });
        let mut average = trace.values[0].unwrap();
        for value in &trace.values {
            average = 0.5 * value.unwrap() + 0.5 * average;
            predictor.observe(*value);
            near(&trace.name, predictor.point(1).unwrap(), average, 1e-9);
            assert_eq!(predictor.point(3), predictor.point(1));
        }
    }
}

#[test]
fn supplies_of_plain_forecasts_are_the_references() {
    let Some(all) = reference("supplies_of_plain_forecasts_are_the_references") else { return };
    let mut compared = 0;
    for (theirs, trace) in &all {
        let season = theirs["season_m"].as_u64().unwrap() as usize;
        for cell in theirs["autoscaling"].as_array().unwrap() {
            let Some((kind, key)) = PLAIN.into_iter().find(|(_, key)| cell["predictor"] == *key) else { continue };
            if cell["capacity"].as_f64() != Some(20.0) {
                continue;
            }
            let level = (cell["headroom"] == "q90").then_some(0.9);
            let delay = cell["delay"].as_u64().unwrap() as usize;
            let ours = row(trace, kind, &options(trace, Some(season), delay, level)).elasticity;
            let pairs = [
                ("theta_u", ours.theta_u),
                ("theta_o", ours.theta_o),
                ("tau_u", ours.tau_u),
                ("tau_o", ours.tau_o),
                ("upsilon", ours.upsilon),
                ("adapt_per_h", ours.adaptations_per_h),
                ("inst_s_ratio", ours.instance_seconds_ratio),
                ("excess_load_pct", ours.excess_load_pct),
            ];
            for (metric, ours) in pairs {
                let what = format!("{} {key} delay {delay} headroom {level:?} {metric}", trace.name);
                near(&what, ours, cell[metric].as_f64().unwrap(), 1e-6);
            }
            compared += 1;
        }
    }
    assert!(compared >= 72, "{compared} cells compared");
}

#[test]
fn the_combination_is_about_as_good_as_the_best_reference() {
    let Some(all) = reference("the_combination_is_about_as_good_as_the_best_reference") else { return };
    let check = |theirs: &Value, trace: &Trace| {
        let scores = theirs["scores"].as_object().unwrap();
        let best = scores.values().filter_map(|s| s["rmse"].as_f64()).fold(f64::INFINITY, f64::min);
        let ours = row(trace, PredictorKind::Select, &options(trace, None, 1, Some(0.9))).forecast.rmse;
        println!("{}: {ours:.3}, best reference {best:.3}", trace.name);
        assert!(ours <= 1.03 * best + 1e-6, "{}: {ours} {best}", trace.name);
    };
    std::thread::scope(|scope| {
        for (theirs, trace) in &all {
            scope.spawn(|| check(theirs, trace));
        }
    });
}

/// Supply one window late: not worse than the moving average with headroom in windows with too few instances nor in
/// instance-seconds, and no row is better than ours in both.
#[test]
fn the_plan_takes_less_and_leaves_less_short_than_the_references() {
    let Some(all) = reference("the_plan_takes_less_and_leaves_less_short_than_the_references") else { return };
    let check = |theirs: &Value, trace: &Trace| {
        let capacity = if trace.name.contains("taxi") { 1000.0 } else { 20.0 };
        let options = Options::usual(trace, capacity);
        let outlook = outlook(trace, PredictorKind::Select, &options, &|| 0.0, &mut |_| {});
        for policy in [PolicyKind::Direct, PolicyKind::Plan] {
            let ours = score(trace, &outlook, &options, policy).elasticity;
            for cell in theirs["autoscaling"].as_array().unwrap() {
                if cell["delay"] != 1 || cell["capacity"].as_f64() != Some(capacity) || cell["predictor"] == "oracle" {
                    continue;
                }
                let what = format!("{} {policy:?} {} {}", trace.name, cell["predictor"], cell["headroom"]);
                let (short, taken) = (cell["tau_u"].as_f64().unwrap(), cell["inst_s_ratio"].as_f64().unwrap());
                if cell["predictor"] == "ema3" && cell["headroom"] == "q90" {
                    assert!(ours.tau_u <= short && ours.instance_seconds_ratio < taken, "{what}: {ours:?}");
                }
                let better = short < ours.tau_u && taken < ours.instance_seconds_ratio;
                assert!(!better, "{what}: {ours:?} {short} {taken}");
            }
        }
    };
    std::thread::scope(|scope| {
        for (theirs, trace) in &all {
            scope.spawn(|| check(theirs, trace));
        }
    });
}

#[test]
fn the_papers_cycle_is_exact_after_its_training() {
    let Some(all) = reference("the_papers_cycle_is_exact_after_its_training") else { return };
    let (_, trace) = all.iter().find(|(_, trace)| trace.name == "paper_cycle_exact").unwrap();
    let ours = row(trace, "sarima(0,1,0)(0,1,0)10".parse().unwrap(), &options(trace, None, 1, None));
    assert_eq!((ours.forecast.rmse, ours.elasticity.tau_u, ours.elasticity.tau_o), (0.0, 0.0, 0.0));
    assert_eq!(ours.order.as_deref(), Some("(0,1,0)(0,1,0)10"));
}

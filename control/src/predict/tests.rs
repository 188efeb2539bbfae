#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! The models against their definitions, a committed series and, where it is at hand, a reference.

use std::num::NonZeroU32;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::Timestamp;

fn window(requests: Option<f64>) -> Window {
    Window { start: Timestamp(0), length_ms: 30_000, requests }
}

fn feed(predictor: &mut dyn Predictor, requests: &[f64]) {
    for r in requests {
        predictor.observe(&window(Some(*r)));
    }
}

fn mean(predictor: &dyn Predictor) -> f64 {
    predictor.forecast(1).unwrap().mean
}

/// One period and a half of the paper's duty cycle with the averages worked out by hand for n = 3, where
/// each is the middle between the new value and the last average.
const SERIES: [(f64, f64); 7] =
    [(100.0, 100.0), (20.0, 60.0), (20.0, 40.0), (100.0, 70.0), (0.0, 35.0), (0.0, 17.5), (101.0, 59.25)];

#[test]
fn the_average_is_the_papers() {
    let mut ema = build(PredictorKind::Ema);
    let mut naive = build(PredictorKind::Naive);
    assert_eq!((ema.forecast(1), naive.forecast(1)), (None, None));
    for (requests, average) in SERIES {
        ema.observe(&window(Some(requests)));
        naive.observe(&window(Some(requests)));
        assert_eq!(mean(&*ema), average);
        assert_eq!(ema.forecast(7), ema.forecast(1));
        assert_eq!(mean(&*naive), requests);
    }
    assert_eq!((ema.name(), naive.name()), ("ema", "naive"));
    assert_eq!(ema.forecast(1).unwrap().model, "ema");
    assert!(ema.explain().contains("59.2") && naive.explain().contains("101"), "{}", ema.explain());
}

#[test]
fn n_sets_the_weight() {
    // n = 1 keeps nothing of the past; n = 4 weighs the new value by 2/5.
    let with = |n: u32| Ema::new(NonZeroU32::new(n).unwrap());
    let (mut one, mut four) = (with(1), with(4));
    feed(&mut one, &[10.0, 30.0]);
    feed(&mut four, &[10.0, 30.0]);
    assert_eq!(mean(&one), 30.0);
    assert!((mean(&four) - 18.0).abs() < 1e-12);
}

#[test]
fn a_constant_load_is_forecast_as_it_is() {
    // Without care the two weights of n = 9 add up to more than 1 by a rounding.
    for n in 1..200 {
        let mut ema = Ema::new(NonZeroU32::new(n).unwrap());
        feed(&mut ema, &[0.1, 0.1]);
        assert!(mean(&ema) <= 0.1 && mean(&ema) > 0.1 - 1e-12, "n = {n}");
        feed(&mut ema, &[f64::MAX, f64::MAX]);
        assert!(mean(&ema).is_finite(), "n = {n}");
    }
}

#[test]
fn windows_that_were_not_counted_are_left_out() {
    for kind in PredictorKind::ALL {
        let (mut with, mut without) = (build(kind), build(kind));
        for bad in [None, Some(f64::NAN), Some(-1.0), Some(f64::INFINITY), Some(f64::NEG_INFINITY)] {
            with.observe(&window(bad));
            assert_eq!(with.forecast(1), None, "{bad:?}");
        }
        for (requests, _) in SERIES {
            with.observe(&window(Some(requests)));
            with.observe(&window(None));
            with.observe(&window(Some(f64::NAN)));
            without.observe(&window(Some(requests)));
        }
        assert_eq!(with.forecast(1), without.forecast(1));
        assert_eq!(with.save(), without.save());
    }
}

#[test]
fn state_survives_a_restart_exactly() {
    for kind in PredictorKind::ALL {
        let mut before = build(kind);
        let mut empty = build(kind);
        assert!(empty.restore(&before.save()), "the empty state");
        feed(&mut *before, &[0.1, 1.0 / 3.0, 7e5]);
        // As text, as the store keeps it.
        let saved: Value = serde_json::from_str(&before.save().to_string()).unwrap();
        let mut after = build(kind);
        assert!(after.restore(&saved));
        feed(&mut *before, &[12.7]);
        feed(&mut *after, &[12.7]);
        assert_eq!(after.forecast(1), before.forecast(1));
        assert_eq!(after.save(), before.save());
    }
}

#[test]
fn states_that_do_not_fit_are_refused_and_change_nothing() {
    let mut ema = build(PredictorKind::Ema);
    feed(&mut *ema, &[5.0]);
    let good = ema.save();
    let with = |key: &str, value: Value| {
        let mut state = good.clone();
        state[key] = value;
        state
    };
    let bad = [
        Value::Null,
        json!([]),
        json!({}),
        with("version", json!(2)),
        with("model", json!("naive")),
        with("n", json!(4)),
        with("n", json!(0)),
        with("average", json!(-1.0)),
        with("average", Value::Null),
        with("average", json!("5")),
        with("extra", json!(1)),
        build(PredictorKind::Naive).save(),
    ];
    for state in bad {
        assert!(!ema.restore(&state), "{state}");
        assert_eq!(mean(&*ema), 5.0);
    }
    let mut naive = build(PredictorKind::Naive);
    assert!(!naive.restore(&good));
    assert!(!naive.restore(&json!({"model": "naive", "version": 1, "last": -3.0})));
}

proptest! {
    #[test]
    fn forecasts_are_finite_whatever_is_fed(
        windows in prop::collection::vec(prop::option::of(prop::num::f64::ANY), 0..40),
        n in 1u32..=u32::MAX,
    ) {
        let models: [Box<dyn Predictor>; 2] = [Box::new(Naive::default()), Box::new(Ema::new(NonZeroU32::new(n).unwrap()))];
        for mut model in models {
            let (mut least, mut most) = (f64::INFINITY, 0.0f64);
            for requests in &windows {
                model.observe(&window(*requests));
                if let Some(r) = requests.filter(|r| r.is_finite() && *r >= 0.0) {
                    (least, most) = (least.min(r), most.max(r));
                }
                if let Some(forecast) = model.forecast(1) {
                    prop_assert!(forecast.mean.is_finite() && forecast.mean >= 0.0);
                    // An average lies among what it averages, but for rounding.
                    prop_assert!(forecast.mean <= most && forecast.mean >= least * (1.0 - 1e-9));
                }
            }
        }
    }
}

/// Against rolling forecasts computed elsewhere: a directory with `reference.json` and the traces that it
/// speaks of, which is not part of the repository; `SELVEDGE_TRACES`, or `shared/traces` beside it.
#[test]
fn forecasts_and_scores_are_those_of_the_reference() {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces"));
    let dir = std::env::var_os("SELVEDGE_TRACES").map_or_else(beside, PathBuf::from);
    if !dir.join("reference.json").exists() {
        println!("SKIPPED (no reference traces): forecasts_and_scores_are_those_of_the_reference");
        return;
    }
    let text = std::fs::read_to_string(dir.join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1e-9);
    let mut compared = 0;
    for trace in reference["traces"].as_array().unwrap() {
        let name = trace["trace"].as_str().unwrap();
        let rows = std::fs::read_to_string(dir.join(format!("{name}.csv"))).unwrap();
        let requests: Vec<f64> =
            rows.lines().skip(1).map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect();
        let start = trace["eval_first_index"].as_u64().unwrap() as usize;
        for (kind, column) in [(PredictorKind::Naive, "naive"), (PredictorKind::Ema, "ema3")] {
            let mut model = build(kind);
            let mut forecasts = Vec::new();
            for (i, r) in requests.iter().enumerate() {
                if i >= start {
                    forecasts.push(mean(&*model));
                }
                model.observe(&window(Some(*r)));
            }
            let samples = trace["sample_forecasts"][column].as_array().unwrap();
            assert_eq!(samples.len(), 20, "{name}");
            for (ours, theirs) in forecasts.iter().zip(samples) {
                assert!(close(*ours, theirs.as_f64().unwrap()), "{name} {column}: {ours} {theirs}");
                compared += 1;
            }
            let errors = || forecasts.iter().zip(&requests[start..]).map(|(f, r)| f - r);
            let count = forecasts.len() as f64;
            let rmse = (errors().map(|e| e * e).sum::<f64>() / count).sqrt();
            let mae = errors().map(f64::abs).sum::<f64>() / count;
            for (ours, key) in [(rmse, "rmse"), (mae, "mae")] {
                let theirs = trace["scores"][column][key].as_f64().unwrap();
                assert!(close(ours, theirs), "{name} {column} {key}: {ours} {theirs}");
            }
        }
    }
    assert!(compared >= 200, "{compared} forecasts compared");
}

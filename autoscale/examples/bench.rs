//! Times fits and forecasts on a recorded load, for `tests/bench/forecast.py`, which sets another implementation beside it:
//! one JSON object on standard output.
//!
//! `bench TRACE.csv SEASON FITTED`: estimates on the first FITTED windows, forecasts each later one from those before it.

use std::hint::black_box;

use autoscale::predict::{Estimate, Model, Order, Predictor, PredictorKind, Sarima, Settings};
use autoscale::replay::Trace;
use serde_json::{Value, json};

const SERVICES: usize = 10_000;
/// Services that are there at a time: the memory of all would not be everywhere.
const BATCH: usize = 500;
const REPEATS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, season, fitted] = &args[..] else { return Err("usage: bench TRACE.csv SEASON FITTED".into()) };
    let (season, fitted): (usize, usize) = (season.parse()?, fitted.parse()?);
    let trace = Trace::parse("bench", &std::fs::read_to_string(file)?)?;
    let values: Vec<f64> = trace.values.iter().map(|v| v.unwrap_or(0.0)).collect();
    let report = json!({
        "exact": sarima(&values, season, fitted, Estimate::Exact),
        "conditional": sarima(&values, season, fitted, Estimate::Conditional),
        "services": services(&values, season, fitted, trace.window_s),
    });
    println!("{report}");
    Ok(())
}

/// Processor time of this process in seconds: others at work on the machine do not count.
fn processor_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = processor_s();
    work();
    processor_s() - begun
}

/// In milliseconds, of seconds.
fn median_ms(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2] * 1e3
}

/// SARIMA(1,1,1)(0,1,1)m: the first fit, which starts from nothing, and a refit a season later.
fn sarima(values: &[f64], season: usize, fitted: usize, estimate: Estimate) -> Value {
    let new = || Sarima::new(Order::seasonal((1, 1, 1), (0, 1, 1), season), estimate);
    let earlier = &values[..fitted - season];
    let window = &values[..fitted];
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let mut model = new();
        first.push(timed(|| model.fit(black_box(window), window)));
        let mut model = new();
        model.fit(earlier, earlier);
        again.push(timed(|| model.fit(black_box(window), window)));
    }
    let mut model = new();
    model.fit(window, window);
    let mut forecasts = Vec::new();
    for t in fitted..values.len() {
        forecasts.push(model.path(&values[..t], 1).and_then(|path| path.first().copied()));
        model.observe(&values[..=t]);
    }
    json!({ "fit_ms": median_ms(first), "refit_ms": median_ms(again), "forecasts": forecasts, "model": model.explain() })
}

/// Bytes of memory that this process has in use.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
}

/// One window of many services that are predicted by the combination of all models.
fn services(values: &[f64], season: usize, fitted: usize, window_s: f64) -> Value {
    let mut one =
        Predictor::new(Settings { kind: PredictorKind::Select, window_s: Some(window_s), ..Settings::default() });
    let mut refits = Vec::new();
    let mut last = 0;
    for (t, value) in values[..fitted].iter().enumerate() {
        one.observe(Some(*value));
        if one.is_due() {
            refits.push((t - last, timed(|| one.maintain())));
            last = t;
        }
    }
    // The last one is of a service that has been there for long.
    let (windows, seconds) = refits.last().copied().unwrap_or((1, 0.0));
    let mut took = 0.0;
    let mut bytes = 0.0f64;
    for batch in 0..SERVICES / BATCH {
        let before = resident();
        let mut all: Vec<Predictor> = vec![one.clone(); BATCH];
        bytes = bytes.max((resident() - before) / BATCH as f64);
        took += timed(|| {
            for (i, predictor) in all.iter_mut().enumerate() {
                predictor.observe(Some(values[(batch + i) % fitted]));
                black_box(predictor.quantile(2, 0.9));
            }
        });
    }
    json!({
        "services": SERVICES,
        "seasons": one.seasons(),
        "season": season,
        "observe_s": took,
        "bytes_each": bytes,
        "refit_ms": seconds * 1e3,
        "refit_every_windows": windows,
        "refits_s_per_window": seconds / windows.max(1) as f64 * SERVICES as f64,
        "window_s": window_s,
    })
}

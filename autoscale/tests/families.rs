//! Loads of different kinds, made by formula: on each the combination is about as good as the single model that fits it
//! best, which nobody tells it. And loads with holes and absurd values.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod made;

use autoscale::predict::{Predictor, PredictorKind, Settings, Trust};
use autoscale::replay::{Options, Trace, outlook};
use autoscale::score::forecasts;
use made::{Noise, wave};
use proptest::prelude::*;

fn rmse(values: &[f64], kind: PredictorKind) -> f64 {
    let trace = Trace { name: String::new(), window_s: 60.0, values: values.iter().copied().map(Some).collect() };
    let options = Options { delay: 0, look_ahead: 0, ..Options::usual(&trace, 20.0) };
    forecasts(&trace.values, &outlook(&trace, kind, &options, &|| 0.0, &mut |_| {}).next, options.start).rmse
}

#[test]
fn the_combination_keeps_up_with_the_best_single_model() {
    let n = 900;
    let (mut walk, mut level) = (500.0f64, 0.0f64);
    type Family<'a> = (&'a str, Box<dyn FnMut(usize, &mut Noise) -> f64 + 'a>);
    let families: [Family<'_>; 9] = [
        ("noise", Box::new(|_, e| 200.0 + 20.0 * e.normal())),
        (
            "random walk",
            Box::new(|_, e| {
                walk += 10.0 * e.normal();
                walk
            }),
        ),
        (
            "autoregressive",
            Box::new(|_, e| {
                level = 0.7f64.mul_add(level, 15.0 * e.normal());
                300.0 + level
            }),
        ),
        ("trend", Box::new(|t, e| 100.0 + t as f64 + 10.0 * e.normal())),
        ("season", Box::new(move |t, e| 200.0 + 80.0 * wave(t, 24) + 10.0 * e.normal())),
        ("two seasons", Box::new(move |t, e| 300.0 + 80.0 * wave(t, 12) + 60.0 * wave(t, 84) + 10.0 * e.normal())),
        ("level shifts", Box::new(|t, e| 100.0 + 150.0 * ((t / 150) % 2) as f64 + 10.0 * e.normal())),
        (
            "regime change",
            Box::new(move |t, e| if t < 600 { 200.0 + 80.0 * wave(t, 20) } else { 120.0 } + 10.0 * e.normal()),
        ),
        ("bursts", Box::new(|_, e| if e.uniform() < 0.03 { 400.0 } else { 50.0 } + 5.0 * e.normal())),
    ];
    let singles = ["naive", "ema", "snaive", "holt-winters", "arima", "sarima"];
    for (seed, (name, mut family)) in families.into_iter().enumerate() {
        let mut noise = Noise::new(seed as u64 + 1);
        let values: Vec<f64> = (0..n).map(|t| family(t, &mut noise).max(0.0)).collect();
        let errors = singles.map(|single| (rmse(&values, single.parse().unwrap()), single));
        let (best, single) = errors.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        let ours = rmse(&values, PredictorKind::Select);
        println!("{name}: {ours:.2}, best single {single} {best:.2}, ratio {:.3}", ours / best);
        assert!(ours <= 1.05 * best, "{name}: {ours} {best} ({single})");
    }
}

/// Windows through a predictor that is looked after.
fn feed(predictor: &mut Predictor, windows: impl IntoIterator<Item = Option<f64>>) {
    for window in windows {
        predictor.observe(window);
        if predictor.is_due() {
            predictor.maintain();
        }
    }
}

fn cycle(n: usize) -> impl Iterator<Item = f64> {
    (0..n).map(|t| if t % 10 < 8 { 100.0 } else { 20.0 } + (t * 7 % 5) as f64)
}

#[test]
fn state_survives_a_restart() {
    for kind in PredictorKind::NAMED {
        let settings = Settings { kind, ..Settings::default() };
        let (mut before, mut after) = (Predictor::new(settings), Predictor::new(settings));
        feed(&mut before, cycle(200).map(Some));
        let text = before.save().to_string();
        assert!(after.restore(&serde_json::from_str(&text).unwrap()), "{kind}");
        for predictor in [&mut before, &mut after] {
            feed(predictor, cycle(230).skip(200).map(Some));
        }
        let (a, b) = (before.point(1).unwrap(), after.point(1).unwrap());
        assert!((a - b).abs() <= 1e-9 * a.abs(), "{kind}: {a} {b}");
        // Another service's state, or another version's, changes nothing.
        let mut other = Predictor::new(Settings { horizon: 5, ..settings });
        assert!(!other.restore(&before.save()));
        let mut newer = before.save();
        newer["version"] = 99.into();
        assert!(!after.restore(&newer));
        assert_eq!(after.point(1).unwrap(), b);
    }
}

#[test]
fn holes_are_no_zeros_and_a_spike_is_no_load() {
    let settings = Settings { horizon: 1, ..Settings::default() };
    let mut whole = Predictor::new(settings);
    feed(&mut whole, cycle(300).map(Some));
    let mut holes = Predictor::new(settings);
    feed(&mut holes, cycle(300).enumerate().map(|(t, r)| if t % 17 == 3 { None } else { Some(r) }));
    let mut spike = Predictor::new(settings);
    feed(&mut spike, cycle(300).enumerate().map(|(t, r)| Some(if t == 150 { 1e12 } else { r })));
    for t in 300..310 {
        let r = cycle(t + 1).last().unwrap();
        for (what, predictor) in [("whole", &mut whole), ("holes", &mut holes), ("spike", &mut spike)] {
            let forecast = predictor.point(1).unwrap();
            // The cycle steps by 80. A spike in the window that is fitted costs some of what was learnt.
            let most = if what == "spike" { 40.0 } else { 12.0 };
            assert!((forecast - r).abs() < most, "{what} at {t}: {forecast} for {r}");
            feed(predictor, [Some(r)]);
        }
    }
    assert_eq!(whole.trust(1), Trust::Earned);
    assert_eq!(Predictor::new(settings).trust(1), Trust::TooYoung);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn forecasts_are_finite_whatever_is_fed(
        windows in prop::collection::vec(prop::option::weighted(0.9, prop_oneof![0.0..1e4f64, prop::num::f64::ANY]), 0..90),
        kind in prop::sample::select(&PredictorKind::NAMED),
    ) {
        let mut predictor = Predictor::new(Settings { kind, ..Settings::default() });
        for window in windows {
            feed(&mut predictor, [window]);
            if let Some(forecast) = predictor.forecast(2) {
                prop_assert!(forecast.mean.is_finite() && forecast.mean >= 0.0);
                prop_assert!(forecast.quantiles.windows(2).all(|q| q[0].0 < q[1].0 && q[0].1 <= q[1].1));
            }
        }
    }
}

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Likelihoods, estimates and forecasts against series computed elsewhere (where they are at hand) and against
//! closed forms.

use crate::predict::noise::Noise;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

/// The directory of reference traces: no part of the repository; `SELVEDGE_TRACES`, or `shared/traces` beside it.
fn fixtures() -> Option<Value> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces"));
    let dir = std::env::var_os("SELVEDGE_TRACES").map_or_else(beside, PathBuf::from);
    let text = std::fs::read_to_string(dir.join("sarima_fixtures.json")).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().map(|list| list.iter().map(|v| v.as_f64().unwrap()).collect()).unwrap_or_default()
}

fn parameters(value: &Value) -> Parameters {
    Parameters {
        phi: numbers(&value["phi"]),
        theta: numbers(&value["theta"]),
        seasonal_phi: numbers(&value["seasonal_phi"]),
        seasonal_theta: numbers(&value["seasonal_theta"]),
        mean: value["mean"].as_f64(),
    }
}

fn flat(p: &Parameters) -> Vec<f64> {
    [&p.phi, &p.theta, &p.seasonal_phi, &p.seasonal_theta].into_iter().flatten().copied().chain(p.mean).collect()
}

#[track_caller]
fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance, "{what}: {got} instead of {wanted} (± {tolerance:e})");
}

fn deviation(y: &[f64]) -> f64 {
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    (y.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / y.len() as f64).sqrt()
}

/// Forecasts of a model that runs with these parameters.
fn path(order: Order, estimate: Estimate, parameters: Parameters, y: &[f64]) -> Vec<f64> {
    let mut model = Sarima::new(order, estimate);
    model.run(parameters, estimate == Estimate::Exact, y, y);
    model.path(y, 10).unwrap()
}

#[test]
fn likelihoods_estimates_and_forecasts_are_those_of_the_fixtures() {
    let Some(all) = fixtures() else {
        println!("SKIPPED (no reference traces): likelihoods_estimates_and_forecasts_are_those_of_the_fixtures");
        return;
    };
    let cases = all["fixtures"].as_array().unwrap();
    assert!(cases.len() >= 11);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let terms = |key: &str| {
            let n = numbers(&case[key]);
            (n[0] as usize, n[1] as usize, n[2] as usize)
        };
        let order = Order::seasonal(terms("order"), terms("seasonal_order"), case["m"].as_u64().unwrap() as usize);
        let with_mean = case["has_mean"].as_bool().unwrap();
        let y = numbers(&case["y"]);
        let (w, spread) = (order.difference(&y), deviation(&y));
        let relative =
            |what: &str, got: f64, wanted: f64| near(&format!("{name} {what}"), got, wanted, 1e-8 * wanted.abs());

        let at = &case["at_generating_params"];
        let generating = parameters(&case["generating"]["params"]);
        let css = css::likelihood(&order, &generating, &w).unwrap();
        relative("css sigma2", css.sigma2, at["css"]["sigma2"].as_f64().unwrap());
        relative("css loglik", css.log, at["css"]["loglik"].as_f64().unwrap());
        assert_eq!(css.n as u64, at["css"]["n_eff"].as_u64().unwrap());
        let mle = exact::likelihood(&order, &generating, &w).unwrap();
        relative("exact loglik", mle.log, at["exact"]["loglik"].as_f64().unwrap());
        relative("exact sigma2", mle.sigma2, at["exact"]["sigma2_profile"].as_f64().unwrap());
        for (h, wanted) in numbers(&at["css_forecast10"]).into_iter().enumerate() {
            near(name, path(order, Estimate::Conditional, generating.clone(), &y)[h], wanted, 1e-6 * spread);
        }

        let conditional = css::fit(&order, &w, with_mean, None).unwrap();
        let wanted = case["css"]["loglik"].as_f64().unwrap();
        assert!(conditional.likelihood.log > wanted - 1e-3, "{name} css: {} {wanted}", conditional.likelihood.log);
        assert!(conditional.likelihood.log < wanted + 1e-6, "{name} css: {} {wanted}", conditional.likelihood.log);
        for (got, wanted) in flat(&conditional.parameters).iter().zip(flat(&parameters(&case["css"]["params"]))) {
            near(&format!("{name} css parameter"), *got, wanted, 2e-3 * wanted.abs().max(1.0));
        }
        let got = path(order, Estimate::Conditional, conditional.parameters.clone(), &y);
        for (got, wanted) in got.iter().zip(numbers(&case["css"]["forecast10"])) {
            near(&format!("{name} css forecast"), *got, wanted, 0.005 * spread);
        }

        let wanted = case["exact_mle"]["loglik"].as_f64().unwrap();
        let from = [conditional.parameters];
        let exact = exact::fit(&order, &w, &from).map_or_else(|| from[0].clone(), |fitted| fitted.parameters);
        let log = exact::likelihood(&order, &exact, &w).unwrap().log;
        near(&format!("{name} exact loglik"), log, wanted, 1e-2);
        for (got, wanted) in flat(&exact).iter().zip(flat(&parameters(&case["exact_mle"]["params"]))) {
            near(&format!("{name} exact parameter"), *got, wanted, 1e-2 * wanted.abs().max(1.0));
        }
        let got = path(order, Estimate::Exact, exact, &y);
        for (got, wanted) in got.iter().zip(numbers(&case["exact_mle"]["forecast10"])) {
            near(&format!("{name} exact forecast"), *got, wanted, 0.01 * spread);
        }
    }
}

/// AR(1) of n values: γ(0) = σ²/(1 − φ²), and each later value is told from the one before.
#[test]
fn the_exact_likelihood_of_an_ar1_is_its_closed_form() {
    let phi: f64 = 0.6;
    let y: Vec<f64> = (0..60).map(|t| (f64::from(t) * 1.7).sin() * 3.0 + f64::from(t % 7)).collect();
    let squares = y[0] * y[0] * (1.0 - phi * phi) + y.windows(2).map(|p| (p[1] - phi * p[0]).powi(2)).sum::<f64>();
    let n = y.len() as f64;
    let wanted = -0.5 * (n * ((std::f64::consts::TAU * squares / n).ln() + 1.0) - (1.0 - phi * phi).ln());
    let ar1 = Parameters { phi: vec![phi], ..Default::default() };
    near("loglik", exact::likelihood(&Order::plain(1, 0, 0), &ar1, &y).unwrap().log, wanted, 1e-9);
}

/// The covariance of an MA(1) is tridiagonal: its determinant and inverse by elimination.
#[test]
fn the_exact_likelihood_of_an_ma1_is_its_closed_form() {
    for theta in [0.4, -0.95, -0.9992] {
        let y: Vec<f64> = (0..80).map(|t| (f64::from(t) * 2.3).cos() * 2.0).collect();
        let (mut variance, mut last, mut squares, mut logs) = (1.0 + theta * theta, 0.0, 0.0, 0.0);
        for (t, v) in y.iter().enumerate() {
            if t > 0 {
                let before = variance;
                last = theta * last / before;
                variance = 1.0 + theta * theta - theta * theta / before;
                last = v - last;
            } else {
                last = *v;
            }
            squares += last * last / variance;
            logs += variance.ln();
        }
        let n = y.len() as f64;
        let wanted = -0.5 * (n * ((std::f64::consts::TAU * squares / n).ln() + 1.0) + logs);
        let ma1 = Parameters { theta: vec![theta], ..Default::default() };
        let got = exact::likelihood(&Order::plain(0, 0, 1), &ma1, &y).unwrap().log;
        near(&format!("loglik at {theta}"), got, wanted, 1e-7);
    }
}

/// The paper's cycle: one cycle teaches (0,1,0)(0,1,0)10 all there is.
#[test]
fn the_papers_cycle_is_predicted_exactly_after_its_training_cycle() {
    let cycle = [100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 20.0, 20.0];
    let y: Vec<f64> = cycle.iter().copied().cycle().take(60).collect();
    let mut model = Sarima::new(Order::seasonal((0, 1, 0), (0, 1, 0), 10), Estimate::Conditional);
    model.fit(&y[..11], &y[..11]);
    for t in 11..50 {
        assert_eq!(model.path(&y[..t], 10).unwrap(), y[t..t + 10], "{t}");
        model.observe(&y[..=t]);
    }
}

/// By the covariances of the whole series, which is what the filter saves.
#[test]
fn the_exact_likelihood_of_a_seasonal_model_is_that_of_its_covariances() {
    let order = Order::seasonal((1, 0, 1), (0, 0, 1), 24);
    let n = 96;
    let mut noise = Noise::new(11);
    let w: Vec<f64> = (0..n).map(|_| noise.normal()).collect();
    // With a small φ what the filter corrects by dies out within a season, and comes back with the next.
    for (phi, theta, seasonal) in [(0.03, -0.5, -0.8), (0.7, -0.4, -0.9), (-0.01, 0.0, 0.6)] {
        let parameters = Parameters {
            phi: vec![phi],
            theta: vec![theta],
            seasonal_phi: Vec::new(),
            seasonal_theta: vec![seasonal],
            mean: None,
        };
        let mut psi = vec![0.0; 2000];
        for (lag, weight) in [(0, 1.0), (1, theta), (24, seasonal), (25, theta * seasonal)] {
            psi[lag] = weight;
        }
        for t in 1..psi.len() {
            psi[t] += phi * psi[t - 1];
        }
        let gamma = |k: usize| -> f64 { psi.iter().zip(&psi[k..]).map(|(a, b)| a * b).sum() };
        let gammas: Vec<f64> = (0..n).map(gamma).collect();
        // Cholesky, and the innovations that it makes of the series.
        let mut l = vec![vec![0.0; n]; n];
        let (mut squares, mut logs, mut x) = (0.0, 0.0, vec![0.0; n]);
        for i in 0..n {
            for j in 0..=i {
                let rest: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
                let own = gammas[i - j] - rest;
                l[i][j] = if i == j { own.sqrt() } else { own / l[j][j] };
            }
            x[i] = (w[i] - (0..i).map(|k| l[i][k] * x[k]).sum::<f64>()) / l[i][i];
            squares += x[i] * x[i];
            logs += 2.0 * l[i][i].ln();
        }
        let sigma2 = squares / n as f64;
        let log = -0.5 * (n as f64 * ((std::f64::consts::TAU * sigma2).ln() + 1.0) + logs);
        let ours = maximum_likelihood::likelihood(&order, &parameters, &w).unwrap();
        assert!((ours.log - log).abs() < 1e-6, "{phi} {theta} {seasonal}: {} instead of {log}", ours.log);
        assert!((ours.sigma2 - sigma2).abs() < 1e-9, "{phi} {theta} {seasonal}");
    }
}

//! How good forecasts and plans were.
//!
//! Elasticity metrics after Herbst et al., "Ready for Rain? A View from SPEC Research on the Future of Cloud Metrics"
//! (SPEC-RG-2016-01), for windows of equal length.

use serde::Serialize;

/// Errors of point forecasts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ForecastScore {
    /// Root of the mean squared error, in requests.
    pub rmse: f64,
    /// Mean absolute error, in requests.
    pub mae: f64,
    /// Mean absolute error over that of the naive forecast in the training part; `None` where that is 0.
    pub mase: Option<f64>,
}

/// Scores forecasts of the windows from `start` on; those that were not counted are left out.
#[must_use]
pub fn forecasts(values: &[Option<f64>], forecast: &[Option<f64>], start: usize) -> ForecastScore {
    let errors: Vec<f64> =
        (start..values.len()).filter_map(|t| Some(values[t]? - forecast.get(t).copied().flatten()?)).collect();
    let n = errors.len().max(1) as f64;
    let mae = errors.iter().map(|e| e.abs()).sum::<f64>() / n;
    let steps: Vec<f64> =
        (1..start.min(values.len())).filter_map(|t| Some((values[t]? - values[t - 1]?).abs())).collect();
    let scale = steps.iter().sum::<f64>() / steps.len().max(1) as f64;
    ForecastScore {
        rmse: (errors.iter().map(|e| e * e).sum::<f64>() / n).sqrt(),
        mae,
        mase: (scale > 0.0).then(|| mae / scale),
    }
}

/// Mean pinball loss of upper quantiles at `level`, in requests; and the share of windows that they covered.
#[must_use]
pub fn quantiles(values: &[Option<f64>], upper: &[Option<f64>], start: usize, level: f64) -> Option<(f64, f64)> {
    let pairs: Vec<(f64, f64)> =
        (start..values.len()).filter_map(|t| Some((values[t]?, upper.get(t).copied().flatten()?))).collect();
    let n = pairs.len() as f64;
    let loss = |(y, q): &(f64, f64)| if y > q { level * (y - q) } else { (1.0 - level) * (q - y) };
    let covered = pairs.iter().filter(|(y, q)| y <= q).count() as f64;
    (n > 0.0).then(|| (pairs.iter().map(loss).sum::<f64>() / n, covered / n))
}

/// How well a supply of instances followed a demand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ElasticityScore {
    /// θU: missing instances relative to the demand, mean over windows, percent.
    pub theta_u: f64,
    /// θO: superfluous instances relative to the demand, percent.
    pub theta_o: f64,
    /// τU: windows with too few instances, percent.
    pub tau_u: f64,
    /// τO: windows with too many, percent.
    pub tau_o: f64,
    /// υ: windows in which supply and demand moved differently, percent.
    pub upsilon: f64,
    /// Changes of the supply per hour.
    pub adaptations_per_h: f64,
    /// Instance-seconds over those of a supply that equals the demand.
    pub instance_seconds_ratio: f64,
    /// Requests beyond what the supply could serve, percent of all.
    pub excess_load_pct: f64,
}

/// Scores a supply from window `start` on.
#[must_use]
pub fn elasticity(
    values: &[Option<f64>],
    supply: &[u32],
    start: usize,
    capacity: f64,
    window_s: f64,
) -> ElasticityScore {
    let demand = |r: f64| crate::plan::instances_for(r, capacity).unwrap_or(0).max(1);
    let rows: Vec<(f64, f64, f64)> = (start..values.len())
        .filter_map(|t| values[t].map(|r| (r, f64::from(demand(r)), f64::from(supply[t]))))
        .collect();
    let n = rows.len().max(1) as f64;
    let sum = |f: &dyn Fn(&(f64, f64, f64)) -> f64| rows.iter().map(f).sum::<f64>();
    let count = |f: &dyn Fn(&(f64, f64, f64)) -> bool| rows.iter().filter(|row| f(row)).count() as f64;
    let sign = |x: f64| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            0.0
        }
    };
    let moves = rows.windows(2).map(|w| (sign(w[1].2 - w[0].2), sign(w[1].1 - w[0].1)));
    let differing: f64 = moves.clone().map(|(s, d): (f64, f64)| (s - d).abs().min(1.0)).sum();
    let adaptations = moves.filter(|(s, _)| *s != 0.0).count() as f64;
    let load = sum(&|(r, ..)| *r);
    ElasticityScore {
        theta_u: 100.0 / n * sum(&|(_, d, s)| (d - s).max(0.0) / d),
        theta_o: 100.0 / n * sum(&|(_, d, s)| (s - d).max(0.0) / d),
        tau_u: 100.0 / n * count(&|(_, d, s)| d > s),
        tau_o: 100.0 / n * count(&|(_, d, s)| s > d),
        upsilon: 100.0 / (n - 1.0).max(1.0) * differing,
        adaptations_per_h: adaptations / (n * window_s / 3600.0),
        instance_seconds_ratio: sum(&|(_, _, s)| *s) / sum(&|(_, d, _)| *d).max(1.0),
        excess_load_pct: if load > 0.0 { 100.0 * sum(&|(r, _, s)| (r - capacity * s).max(0.0)) / load } else { 0.0 },
    }
}

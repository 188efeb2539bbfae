//! Conditional sum of squares: the likelihood given that what was before the series had no innovations.

use super::order::{Lags, Order, Parameters, Space, ar_lags, constant, ma_lags};
use crate::predict::optimise::{Limits, minimise};

/// A likelihood and what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Natural logarithm of the Gaussian likelihood, variance profiled out.
    pub log: f64,
    /// Variance of the innovations.
    pub sigma2: f64,
    /// Innovations that it rests on.
    pub n: usize,
}

/// Parameters with the likelihood that they have.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The estimates.
    pub parameters: Parameters,
    /// Their likelihood.
    pub likelihood: Likelihood,
}

/// A series whose values lie closer together than this is constant.
const CONSTANT: f64 = 1e-12;

pub(super) fn is_constant(w: &[f64]) -> bool {
    let (least, most) = w.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    most - least < CONSTANT
}

/// Σ aₖxₜ₋ₖ over lags that lie inside of the series.
pub(super) fn lagged(lags: &Lags, x: &[f64], t: usize) -> f64 {
    lags.iter().filter(|(k, _)| *k <= t).map(|(k, a)| a * x[t - k]).sum()
}

/// Sum of squared innovations of the differenced series `w`, of which the first p + mP are taken as zero.
fn sum_of_squares(order: &Order, parameters: &Parameters, w: &[f64], e: &mut Vec<f64>) -> f64 {
    let (ar, ma, c) = (ar_lags(order, parameters), ma_lags(order, parameters), constant(parameters));
    let first = order.ar_span();
    // Behind this one all lags lie inside, and the loop needs no questions.
    let inside = first.max(order.ma_span()).min(w.len());
    e.clear();
    e.resize(w.len(), 0.0);
    for t in first..inside {
        e[t] = w[t] - c - lagged(&ar, w, t) - lagged(&ma, e, t);
    }
    for t in inside..w.len() {
        let mut v = w[t] - c;
        for (k, a) in &ar {
            v -= a * w[t - k];
        }
        for (k, b) in &ma {
            v -= b * e[t - k];
        }
        e[t] = v;
    }
    e[first.min(w.len())..].iter().map(|e| e * e).sum()
}

/// The likelihood of `w`, a series that is differenced already. `None` where it is too short.
#[must_use]
pub fn likelihood(order: &Order, parameters: &Parameters, w: &[f64]) -> Option<Likelihood> {
    let n = w.len().checked_sub(order.ar_span()).filter(|n| *n > 0)?;
    let sse = sum_of_squares(order, parameters, w, &mut Vec::new());
    let sigma2 = sse / n as f64;
    let log = -0.5 * n as f64 * ((std::f64::consts::TAU * sigma2).ln() + 1.0);
    Some(Likelihood { log, sigma2, n })
}

/// The parameters of the least sum of squares. From `warm` where it is given, from two points otherwise.
#[must_use]
pub fn fit(order: &Order, w: &[f64], with_mean: bool, warm: Option<&Parameters>) -> Option<Fitted> {
    let zero = Parameters::zero(order, with_mean);
    let n = w.len().checked_sub(order.ar_span())?;
    let free = order.parameters() + usize::from(with_mean);
    if free == 0 {
        let unknown = Likelihood { log: 0.0, sigma2: 0.0, n: 0 };
        return Some(Fitted { likelihood: likelihood(order, &zero, w).unwrap_or(unknown), parameters: zero });
    }
    if n <= free + 1 {
        return None;
    }
    if is_constant(w) {
        let mean = zero.mean.map(|_| w[0]);
        let parameters = Parameters { mean, ..zero };
        return Some(Fitted { likelihood: likelihood(order, &parameters, w)?, parameters });
    }
    let centre = w.iter().sum::<f64>() / w.len() as f64;
    let scale = (w.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / w.len() as f64).sqrt();
    let space = Space { order: *order, centre, scale, with_mean };
    let mut e = Vec::new();
    let mut cost = |x: &[f64]| sum_of_squares(order, &space.parameters(x), w, &mut e).ln();
    let starts = warm.map_or_else(|| starts(&space), |warm| vec![space.vector(warm)]);
    let mut best: Option<(Vec<f64>, f64)> = None;
    for start in starts {
        let limits = Limits { evaluations: 150 * (start.len() + 1), tolerance: 1e-9 };
        // A second, smaller simplex at the end of the first walks on where that one had collapsed.
        let first = minimise(&start, 0.4, limits, &mut cost);
        let found = minimise(&first.0, 0.1, limits, &mut cost);
        if best.as_ref().is_none_or(|b| found.1 < b.1) {
            best = Some(found);
        }
    }
    let parameters = space.parameters(&best?.0);
    Some(Fitted { likelihood: likelihood(order, &parameters, w)?, parameters })
}

/// White noise, and a series that remembers: a ridge between them does not hide the better side.
pub(super) fn starts(space: &Space) -> Vec<Vec<f64>> {
    let Order { p, q, sp, sq, .. } = space.order;
    let zero = vec![0.0; p + q + sp + sq + usize::from(space.with_mean)];
    let mut other = zero.clone();
    for (at, z) in other.iter_mut().enumerate().take(p + q + sp + sq) {
        let leading = [0, p, p + q, p + q + sp].contains(&at);
        *z = if leading { 0.7 } else { 0.1 };
    }
    if zero.len() == usize::from(space.with_mean) { vec![zero] } else { vec![zero, other] }
}

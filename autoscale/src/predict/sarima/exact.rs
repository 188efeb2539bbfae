//! The exact Gaussian likelihood of a differenced series with a stationary start.
//!
//! State space form of Harvey; the covariances are not carried along, only the increments of the gain, which have rank
//! one: the recursions of Chandrasekhar type of Morf, Sidhu and Kailath (IEEE TAC 19, 1974), for ARMA models Mélard
//! (Applied Statistics 33, 1984, AS 197). A step costs a few times r = max(p + mP, q + mQ + 1), not r².

use serde::{Deserialize, Serialize};

use super::css::{self, Fitted, Likelihood, is_constant};
use super::order::{Lags, Order, Parameters, Space, ar_lags, ma_lags};
use crate::predict::optimise::{Limits, minimise};

/// Autoregressive lags up to which the stationary covariances are solved for.
const MOST_AR: usize = 150;

/// The filter after some values: what it expects next, and the gain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Filter {
    phi: Vec<f64>,
    mean: f64,
    /// Expected state: its first component is the next value less the mean.
    state: Vec<f64>,
    /// Variance of the next innovation in units of σ².
    variance: f64,
    /// Covariance of the state after next with the next value.
    gain: Vec<f64>,
    /// Increment of the covariance: `weight` · `change` · `change`ᵀ.
    change: Vec<f64>,
    weight: f64,
    /// Steps in a row that changed the variance by less than the precision of numbers. What `change` still holds comes to its
    /// front one component a step, so only as many steps as it has components tell that nothing will.
    quiet: usize,
}

impl Filter {
    /// Before the first value of a stationary series. `None` where the parameters are not stationary.
    pub fn new(order: &Order, parameters: &Parameters) -> Option<Self> {
        let (ar, ma) = (ar_lags(order, parameters), ma_lags(order, parameters));
        let r = order.ar_span().max(order.ma_span() + 1);
        let mut phi = vec![0.0; r];
        for (k, a) in &ar {
            phi[k - 1] = *a;
        }
        let psi = impulse(&ar, &ma, r);
        let gamma = autocovariances(&ar, &ma, &psi, order.ar_span(), r)?;
        // Covariance of each component of the state with the value: Σφⱼγ(j−s) + Σθⱼψ(j−s), θ₀ = 1.
        let with_value = |s: usize| -> f64 {
            if s == 0 {
                return gamma[0];
            }
            let past: f64 = ar.iter().filter(|(j, _)| *j > s).map(|(j, a)| a * gamma[j - s]).sum();
            let shocks: f64 = ma.iter().filter(|(j, _)| *j >= s).map(|(j, b)| b * psi[j - s]).sum();
            past + shocks
        };
        let gain: Vec<f64> =
            (0..r).map(|i| phi[i] * gamma[0] + if i + 1 < r { with_value(i + 1) } else { 0.0 }).collect();
        let variance = gamma[0];
        Some(Self {
            phi,
            mean: parameters.mean.unwrap_or(0.0),
            state: vec![0.0; r],
            variance,
            change: gain.clone(),
            gain,
            weight: -1.0 / variance,
            quiet: 0,
        })
    }

    /// Takes the next value; its innovation and that one's variance in units of σ².
    pub fn step(&mut self, w: f64) -> (f64, f64) {
        let r = self.phi.len();
        let (before, innovation) = (self.variance, w - self.mean - self.state[0]);
        let (standard, first) = (innovation / before, self.state[0]);
        // Plain products, and slices of one length: so these loops, where fits spend their time, become vectors.
        let (phi, state) = (&self.phi[..r], &mut self.state[..r]);
        let (gain, change) = (&mut self.gain[..r], &mut self.change[..r]);
        for i in 0..r - 1 {
            state[i] = phi[i] * first + state[i + 1] + gain[i] * standard;
        }
        state[r - 1] = phi[r - 1] * first + gain[r - 1] * standard;
        let z = change[0];
        let growth = z * z * self.weight;
        self.quiet = if growth.abs() > before * 1e-16 { 0 } else { self.quiet + 1 };
        if self.quiet <= r {
            self.variance += growth;
            let (wz, zf) = (self.weight * z, z / self.variance);
            for i in 0..r - 1 {
                let moved = phi[i] * z + change[i + 1];
                gain[i] += moved * wz;
                change[i] = moved - gain[i] * zf;
            }
            let moved = phi[r - 1] * z;
            gain[r - 1] += moved * wz;
            change[r - 1] = moved - gain[r - 1] * zf;
            self.weight += self.weight * self.weight * z * z / before;
        }
        (innovation, before)
    }

    /// Expected next `horizon` values of the differenced series.
    pub fn path(&self, horizon: usize) -> Vec<f64> {
        let mut state = self.state.clone();
        (0..horizon)
            .map(|_| {
                let first = state[0];
                shift(&mut state, |i, next| self.phi[i].mul_add(first, next));
                first + self.mean
            })
            .collect()
    }

    pub fn is_sound(&self) -> bool {
        self.variance > 0.0 && self.variance.is_finite() && self.state.iter().all(|v| v.is_finite())
    }
}

/// Replaces each component by a function of its index and the component behind it.
fn shift(x: &mut [f64], mut to: impl FnMut(usize, f64) -> f64) {
    let last = x.len() - 1;
    for i in 0..last {
        x[i] = to(i, x[i + 1]);
    }
    x[last] = to(last, 0.0);
}

/// ψ₀ … ψₙ: what an innovation does to later values.
fn impulse(ar: &Lags, ma: &Lags, n: usize) -> Vec<f64> {
    let mut psi = vec![0.0; n + 1];
    psi[0] = 1.0;
    for (k, b) in ma.iter().filter(|(k, _)| *k <= n) {
        psi[*k] = *b;
    }
    for t in 1..=n {
        psi[t] += css::lagged(ar, &psi, t);
    }
    psi
}

/// γ(0) … γ(n) in units of σ², from the Yule–Walker equations of the mixed model.
fn autocovariances(ar: &Lags, ma: &Lags, psi: &[f64], span: usize, n: usize) -> Option<Vec<f64>> {
    let shocks = |k: usize| -> f64 {
        let own = if k == 0 { 1.0 } else { 0.0 };
        own + ma.iter().filter(|(j, _)| *j >= k).map(|(j, b)| b * psi[j - k]).sum::<f64>()
    };
    if span > MOST_AR {
        return None;
    }
    let size = span + 1;
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for (k, row) in matrix.iter_mut().enumerate() {
        row[k] += 1.0;
        for (j, a) in ar {
            row[k.abs_diff(*j)] -= a;
        }
        row[size] = shocks(k);
    }
    let mut gamma = solve(matrix)?;
    for k in size..=n {
        let past: f64 = ar.iter().map(|(j, a)| a * gamma[k - j]).sum();
        gamma.push(past + shocks(k));
    }
    (gamma[0] > 0.0 && gamma[0].is_finite()).then_some(gamma)
}

/// Gaussian elimination with pivots; the right side is each row's last column.
pub(crate) fn solve(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        if rows[column][column].abs() < 1e-300 {
            return None;
        }
        let (above, below) = rows.split_at_mut(column + 1);
        let own = &above[column];
        for row in below {
            let factor = row[column] / own[column];
            if factor != 0.0 {
                for (x, y) in row.iter_mut().zip(own).skip(column) {
                    *x -= factor * y;
                }
            }
        }
    }
    let mut x = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| rows[row][k] * x[k]).sum();
        x[row] = (rows[row][n] - known) / rows[row][row];
    }
    x.iter().all(|v| v.is_finite()).then_some(x)
}

/// The likelihood of `w`, a series that is differenced already. `None` where the parameters are not stationary.
#[must_use]
pub fn likelihood(order: &Order, parameters: &Parameters, w: &[f64]) -> Option<Likelihood> {
    let mut filter = Filter::new(order, parameters)?;
    let (mut squares, mut logs) = (0.0, 0.0);
    for value in w {
        let (innovation, variance) = filter.step(*value);
        if variance.is_nan() || variance <= 0.0 {
            return None;
        }
        squares += innovation * innovation / variance;
        logs += variance.ln();
    }
    let n = w.len() as f64;
    let sigma2 = squares / n;
    let log = -0.5 * (n * ((std::f64::consts::TAU * sigma2).ln() + 1.0) + logs);
    log.is_finite().then_some(Likelihood { log, sigma2, n: w.len() })
}

/// The most likely parameters, searched from those of `from` (the conditional fit or an earlier one).
#[must_use]
pub fn fit(order: &Order, w: &[f64], from: &[Parameters]) -> Option<Fitted> {
    let with_mean = from.first()?.mean.is_some();
    if is_constant(w) || order.parameters() + usize::from(with_mean) == 0 {
        return None;
    }
    let centre = w.iter().sum::<f64>() / w.len() as f64;
    let scale = (w.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / w.len() as f64).sqrt();
    let space = Space { order: *order, centre, scale, with_mean };
    let mut best: Option<(Vec<f64>, f64)> = None;
    for start in from {
        let cost = |x: &[f64]| likelihood(order, &space.parameters(x), w).map_or(f64::MAX, |l| -l.log);
        let start = space.vector(start);
        let limits = Limits { evaluations: 60 * (start.len() + 1), tolerance: 1e-8 };
        let found = minimise(&start, 0.2, limits, cost);
        if best.as_ref().is_none_or(|b| found.1 < b.1) {
            best = Some(found);
        }
    }
    let parameters = space.parameters(&best?.0);
    Some(Fitted { likelihood: likelihood(order, &parameters, w)?, parameters })
}

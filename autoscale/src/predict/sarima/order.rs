//! Orders and parameters of seasonal ARIMA models, and the polynomials in the lag operator that they stand for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The order (p,d,q)(P,D,Q)m of φ(B)Φ(Bᵐ)(1−B)ᵈ(1−Bᵐ)ᴰ(yₜ − mean) = θ(B)Θ(Bᵐ)eₜ, θ(B) = 1 + θ₁B + ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Autoregressive terms.
    pub p: usize,
    /// Differences.
    pub d: usize,
    /// Moving-average terms.
    pub q: usize,
    /// Seasonal autoregressive terms (P).
    pub sp: usize,
    /// Seasonal differences (D).
    pub sd: usize,
    /// Seasonal moving-average terms (Q).
    pub sq: usize,
    /// Windows per season (m); 0 or 1 where there is none.
    pub m: usize,
}

impl Order {
    /// An order without a season.
    #[must_use]
    pub const fn plain(p: usize, d: usize, q: usize) -> Self {
        Self { p, d, q, sp: 0, sd: 0, sq: 0, m: 0 }
    }

    /// An order with a season of `m` windows.
    #[must_use]
    pub const fn seasonal((p, d, q): (usize, usize, usize), (sp, sd, sq): (usize, usize, usize), m: usize) -> Self {
        Self { p, d, q, sp, sd, sq, m }
    }

    /// Parameters to estimate, a mean not among them.
    #[must_use]
    pub const fn parameters(&self) -> usize {
        self.p + self.q + self.sp + self.sq
    }

    /// Highest lag of the autoregressive side without differences.
    #[must_use]
    pub const fn ar_span(&self) -> usize {
        self.p + self.m * self.sp
    }

    /// Highest lag of the moving-average side.
    #[must_use]
    pub const fn ma_span(&self) -> usize {
        self.q + self.m * self.sq
    }

    /// Values that the differences use up.
    #[must_use]
    pub const fn differenced(&self) -> usize {
        self.d + self.m * self.sd
    }

    /// (1−B)ᵈ(1−Bᵐ)ᴰ `y`.
    #[must_use]
    pub fn difference(&self, y: &[f64]) -> Vec<f64> {
        let mut w = y.to_vec();
        for lag in std::iter::repeat_n(1, self.d).chain(std::iter::repeat_n(self.m, self.sd)) {
            w = (lag..w.len()).map(|t| w[t] - w[t - lag]).collect();
        }
        w
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p, d, q, sp, sd, sq, m } = self;
        write!(f, "({p},{d},{q})")?;
        if sp + sd + sq > 0 { write!(f, "({sp},{sd},{sq}){m}") } else { Ok(()) }
    }
}

/// A text that is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no order; write it as (1,1,1) or (1,1,1)(0,1,1)48")]
pub struct WrongOrder(String);

/// Most of p, q, P and Q, and of d and D.
const MOST_TERMS: usize = 6;
const MOST_DIFFERENCES: usize = 2;

impl FromStr for Order {
    type Err = WrongOrder;

    fn from_str(text: &str) -> Result<Self, WrongOrder> {
        let wrong = || WrongOrder(text.to_owned());
        let numbers: Result<Vec<usize>, _> =
            text.split(['(', ')', ',']).map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect();
        let order = match numbers.map_err(|_| wrong())?[..] {
            [p, d, q] => Self::plain(p, d, q),
            [p, d, q, sp, sd, sq, m] if m >= 2 => Self::seasonal((p, d, q), (sp, sd, sq), m),
            _ => return Err(wrong()),
        };
        let few = [order.p, order.q, order.sp, order.sq].iter().all(|n| *n <= MOST_TERMS);
        let tame = order.d <= MOST_DIFFERENCES && order.sd <= MOST_DIFFERENCES && order.m <= 10_080;
        if few && tame { Ok(order) } else { Err(wrong()) }
    }
}

/// Parameters of a model; the vectors are as long as its order says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// φ.
    pub phi: Vec<f64>,
    /// θ, plus signs.
    pub theta: Vec<f64>,
    /// Φ.
    pub seasonal_phi: Vec<f64>,
    /// Θ, plus signs.
    pub seasonal_theta: Vec<f64>,
    /// Mean of the differenced series, where one is estimated.
    pub mean: Option<f64>,
}

impl Parameters {
    /// All zero.
    #[must_use]
    pub fn zero(order: &Order, with_mean: bool) -> Self {
        Self {
            phi: vec![0.0; order.p],
            theta: vec![0.0; order.q],
            seasonal_phi: vec![0.0; order.sp],
            seasonal_theta: vec![0.0; order.sq],
            mean: with_mean.then_some(0.0),
        }
    }
}

/// Terms of a polynomial beside its leading 1: lag and coefficient, lags rising.
pub(crate) type Lags = Vec<(usize, f64)>;

/// 1 + Σ cₖBᵏ, as `[1, c₁, …]`.
fn multiply(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut product = vec![0.0; a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate().filter(|(_, x)| **x != 0.0) {
        for (j, y) in b.iter().enumerate() {
            product[i + j] += x * y;
        }
    }
    product
}

fn polynomial(coefficients: &[f64], sign: f64, lag: usize) -> Vec<f64> {
    let mut p = vec![0.0; coefficients.len() * lag + 1];
    p[0] = 1.0;
    for (k, c) in coefficients.iter().enumerate() {
        p[(k + 1) * lag] = sign * c;
    }
    p
}

fn sparse(polynomial: &[f64], sign: f64) -> Lags {
    polynomial.iter().enumerate().skip(1).filter(|(_, c)| **c != 0.0).map(|(k, c)| (k, sign * c)).collect()
}

/// wₜ = Σ aₖwₜ₋ₖ + …: the autoregressive side on the differenced series.
pub(crate) fn ar_lags(order: &Order, parameters: &Parameters) -> Lags {
    let seasonal = polynomial(&parameters.seasonal_phi, -1.0, order.m.max(1));
    sparse(&multiply(&polynomial(&parameters.phi, -1.0, 1), &seasonal), -1.0)
}

/// … + Σ bₖeₜ₋ₖ: the moving-average side.
pub(crate) fn ma_lags(order: &Order, parameters: &Parameters) -> Lags {
    let seasonal = polynomial(&parameters.seasonal_theta, 1.0, order.m.max(1));
    sparse(&multiply(&polynomial(&parameters.theta, 1.0, 1), &seasonal), 1.0)
}

/// The autoregressive side multiplied out with the differences: on the original scale.
pub(crate) fn full_ar_lags(order: &Order, parameters: &Parameters) -> Lags {
    let m = order.m.max(1);
    let mut all = multiply(&polynomial(&parameters.phi, -1.0, 1), &polynomial(&parameters.seasonal_phi, -1.0, m));
    for lag in std::iter::repeat_n(1, order.d).chain(std::iter::repeat_n(m, order.sd)) {
        all = multiply(&all, &polynomial(&[1.0], -1.0, lag));
    }
    sparse(&all, -1.0)
}

/// The constant that a mean adds to each step.
pub(crate) fn constant(parameters: &Parameters) -> f64 {
    let rest = |c: &[f64]| 1.0 - c.iter().sum::<f64>();
    parameters.mean.map_or(0.0, |mean| mean * rest(&parameters.phi) * rest(&parameters.seasonal_phi))
}

/// Partial autocorrelations in (−1, 1) → coefficients of a stationary polynomial (Durbin–Levinson), each
/// r = z/√(1+z²) of an unbounded z (Barndorff-Nielsen and Schou 1973; Monahan 1984).
fn stationary(z: &[f64]) -> Vec<f64> {
    let mut phi: Vec<f64> = Vec::with_capacity(z.len());
    for z in z {
        let r = z / z.mul_add(*z, 1.0).sqrt();
        let before = phi.clone();
        for (i, c) in phi.iter_mut().enumerate() {
            *c -= r * before[before.len() - 1 - i];
        }
        phi.push(r);
    }
    phi
}

/// The way back; coefficients on or beyond the border are moved inside.
fn unbounded(phi: &[f64]) -> Vec<f64> {
    let mut phi = phi.to_vec();
    let mut z = vec![0.0; phi.len()];
    for k in (0..phi.len()).rev() {
        let r = phi[k].clamp(-0.999, 0.999);
        z[k] = r / r.mul_add(-r, 1.0).sqrt();
        let before = phi.clone();
        for i in 0..k {
            phi[i] = r.mul_add(before[k - 1 - i], before[i]) / r.mul_add(-r, 1.0);
        }
        phi.truncate(k);
    }
    z
}

/// Between parameters and the unbounded vector that an optimiser walks in; the mean is told in units of `scale`
/// around `centre`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space {
    pub order: Order,
    pub centre: f64,
    pub scale: f64,
    pub with_mean: bool,
}

impl Space {
    pub fn parameters(&self, x: &[f64]) -> Parameters {
        let Order { p, q, sp, sq, .. } = self.order;
        let minus = |z: &[f64]| stationary(z).into_iter().map(|c| -c).collect();
        Parameters {
            phi: stationary(&x[..p]),
            theta: minus(&x[p..p + q]),
            seasonal_phi: stationary(&x[p + q..p + q + sp]),
            seasonal_theta: minus(&x[p + q + sp..p + q + sp + sq]),
            mean: self.with_mean.then(|| self.centre + self.scale * x[p + q + sp + sq]),
        }
    }

    pub fn vector(&self, parameters: &Parameters) -> Vec<f64> {
        let minus = |c: &[f64]| unbounded(&c.iter().map(|c| -c).collect::<Vec<_>>());
        let mut x = unbounded(&parameters.phi);
        x.extend(minus(&parameters.theta));
        x.extend(unbounded(&parameters.seasonal_phi));
        x.extend(minus(&parameters.seasonal_theta));
        x.extend(parameters.mean.map(|mean| (mean - self.centre) / self.scale));
        x
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for text in ["(1,1,1)(0,1,1)48", "(0,1,0)(0,1,0)10", "(2,0,3)"] {
            assert_eq!(text.parse::<Order>().unwrap().to_string(), text);
        }
        for text in ["", "(1,1)", "(1,1,1)(0,1,1)", "(1,1,1)(0,1,1)1", "(9,1,1)", "(1,3,1)", "(1,1,x)"] {
            assert!(text.parse::<Order>().is_err(), "{text}");
        }
    }

    #[test]
    fn polynomials_multiply_out() {
        let order = Order::seasonal((1, 1, 1), (0, 1, 1), 4);
        let parameters =
            Parameters { phi: vec![0.5], theta: vec![0.2], seasonal_theta: vec![-0.6], ..Default::default() };
        let close = |got: Lags, wanted: &[(usize, f64)]| {
            assert_eq!(got.len(), wanted.len(), "{got:?}");
            assert!(got.iter().zip(wanted).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-12), "{got:?}");
        };
        close(ma_lags(&order, &parameters), &[(1, 0.2), (4, -0.6), (5, -0.12)]);
        // (1 − 0.5B)(1 − B)(1 − B⁴)
        close(full_ar_lags(&order, &parameters), &[(1, 1.5), (2, -0.5), (4, 1.0), (5, -1.5), (6, 0.5)]);
        assert_eq!(order.difference(&[1.0, 2.0, 4.0, 7.0, 11.0, 22.0, 30.0]), [10.0, 6.0]);
    }

    #[test]
    fn the_unbounded_space_covers_the_stationary_one() {
        let order = Order::seasonal((3, 0, 2), (1, 0, 1), 7);
        let space = Space { order, centre: 5.0, scale: 2.0, with_mean: true };
        let x = [0.3, -1.2, 0.4, 2.0, -0.7, 0.9, -3.0, 0.25];
        let back = space.vector(&space.parameters(&x));
        assert!(x.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-9), "{back:?}");
    }
}

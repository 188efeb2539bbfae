//! Seasonal ARIMA of any order: estimated by the conditional sum of squares, or from there by the exact likelihood.
//!
//! Each estimate goes with its own recursion: conditional parameters with innovations that start at zero, exact ones
//! with the filter that they were estimated by. An exact estimate may lie on the border where zero innovations are
//! never forgotten, so the two are not mixed.

mod css;
mod exact;
mod order;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::css::{Fitted, Likelihood};
pub use self::order::{Order, Parameters, WrongOrder};

use self::exact::Filter;
use self::order::{Lags, constant, full_ar_lags, ma_lags};
use super::Model;

pub(crate) use self::exact::solve;

/// Conditional sum of squares of a differenced series.
pub mod conditional {
    pub use super::css::{fit, likelihood};
}

/// Exact likelihood of a differenced series.
pub mod maximum_likelihood {
    pub use super::exact::{fit, likelihood};
}

/// What the parameters are estimated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Estimate {
    /// Least conditional sum of squares.
    Conditional,
    /// Exact maximum likelihood.
    Exact,
}

/// A model of one order with its estimates and the state of its recursion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sarima {
    order: Order,
    estimate: Estimate,
    /// `None` before the first fit.
    running: Option<Running>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Running {
    parameters: Parameters,
    /// Autoregressive side with the differences, on the original scale.
    ar: Lags,
    ma: Lags,
    constant: f64,
    recursion: Recursion,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Recursion {
    /// Innovations so far, as many as the moving-average side reaches back or more; the newest is last.
    Conditional { innovations: Vec<f64> },
    /// The filter, and the differences that it does not see.
    Exact { filter: Filter, differences: Lags },
}

impl Sarima {
    /// A model without estimates.
    #[must_use]
    pub const fn new(order: Order, estimate: Estimate) -> Self {
        Self { order, estimate, running: None }
    }

    /// Its order.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Its estimates, once it was fitted.
    #[must_use]
    pub fn parameters(&self) -> Option<&Parameters> {
        self.running.as_ref().map(|r| &r.parameters)
    }

    /// Values that a fit needs at least: a season for each seasonal term to be seen twice, and a few more than
    /// there are parameters.
    fn least(&self) -> usize {
        let order = &self.order;
        let free = order.parameters();
        let spare = if free == 0 { 0 } else { 8 * free };
        order.differenced() + order.ar_span().max(order.ma_span()) + spare
    }

    /// Takes `parameters` and runs the recursion over the whole history.
    fn run(&mut self, parameters: Parameters, exact: bool, fitted: &[f64], history: &[f64]) {
        let order = self.order;
        let mut running = Running {
            ar: full_ar_lags(&order, &parameters),
            ma: ma_lags(&order, &parameters),
            constant: constant(&parameters),
            recursion: Recursion::Conditional { innovations: vec![0.0; order.differenced() + order.ar_span()] },
            parameters,
        };
        if let Some(filter) = exact.then(|| Filter::new(&order, &running.parameters)).flatten() {
            let differences = full_ar_lags(&order, &Parameters::zero(&Order { p: 0, sp: 0, ..order }, false));
            let mut filter = filter;
            for w in order.difference(fitted) {
                filter.step(w);
            }
            running.recursion = Recursion::Exact { filter, differences };
        } else {
            let first = order.differenced() + order.ar_span();
            for t in first..history.len() {
                running.observe(&history[..=t]);
            }
        }
        if running.is_sound() {
            self.running = Some(running);
        }
    }
}

impl Running {
    fn observe(&mut self, history: &[f64]) {
        let Some((newest, before)) = history.split_last() else { return };
        match &mut self.recursion {
            Recursion::Conditional { innovations } => {
                let expected = self.constant
                    + self.ar.iter().map(|(k, a)| a * before[before.len() - k]).sum::<f64>()
                    + css::lagged(&self.ma, innovations, innovations.len());
                innovations.push(newest - expected);
                let reach = self.ma.last().map_or(0, |(k, _)| *k);
                if innovations.len() > 2 * reach + 64 {
                    innovations.drain(..innovations.len() - reach);
                }
            }
            Recursion::Exact { filter, differences } => {
                filter.step(newest - differences.iter().map(|(k, a)| a * before[before.len() - k]).sum::<f64>());
            }
        }
    }

    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        let reach = |lags: &Lags| lags.last().map_or(0, |(k, _)| *k);
        let (lags, own): (&Lags, Vec<f64>) = match &self.recursion {
            Recursion::Conditional { innovations } => {
                // Future innovations are zero, those of the past are looked up as far as they are known.
                let n = innovations.len();
                let shocks = |h: usize| -> f64 {
                    let known = self.ma.iter().filter(|(k, _)| *k >= h && *k - h < n);
                    known.map(|(k, b)| b * innovations[n - 1 - (k - h)]).sum()
                };
                (&self.ar, (1..=horizon).map(|h| self.constant + shocks(h)).collect())
            }
            Recursion::Exact { filter, differences } => (differences, filter.path(horizon)),
        };
        let back = reach(lags);
        let mut values = history[history.len().checked_sub(back)?..].to_vec();
        for own in own {
            let past: f64 = lags.iter().map(|(k, a)| a * values[values.len() - k]).sum();
            values.push(own + past);
        }
        Some(values.split_off(back))
    }

    fn is_sound(&self) -> bool {
        match &self.recursion {
            Recursion::Conditional { innovations } => innovations.last().is_none_or(|e| e.is_finite()),
            Recursion::Exact { filter, .. } => filter.is_sound(),
        }
    }
}

impl Model for Sarima {
    fn label(&self) -> String {
        let season = self.order.sp + self.order.sd + self.order.sq > 0;
        let by = if self.estimate == Estimate::Exact { " by exact likelihood" } else { "" };
        format!("{}{}{by}", if season { "sarima" } else { "arima" }, self.order)
    }

    fn observe(&mut self, history: &[f64]) {
        if let Some(running) = &mut self.running {
            running.observe(history);
        }
    }

    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        self.running.as_ref()?.path(history, horizon)
    }

    fn fit(&mut self, window: &[f64], history: &[f64]) {
        if window.len() < self.least() {
            return;
        }
        let order = self.order;
        let w = order.difference(window);
        let with_mean = order.d + order.sd == 0;
        let warm = self.running.as_ref().map(|r| &r.parameters);
        let Some(conditional) =
            css::fit(&order, &w, with_mean, warm.filter(|_| self.estimate == Estimate::Conditional))
        else {
            return;
        };
        if self.estimate == Estimate::Exact {
            let from = [warm.unwrap_or(&conditional.parameters).clone()];
            if let Some(exact) = exact::fit(&order, &w, &from) {
                return self.run(exact.parameters, true, window, history);
            }
        }
        self.run(conditional.parameters, false, window, history);
    }

    fn explain(&self) -> String {
        match &self.running {
            None => "not fitted yet".to_owned(),
            Some(running) => {
                let p = &running.parameters;
                let list = |name: &str, c: &[f64]| {
                    let numbers: Vec<String> = c.iter().map(|c| format!("{c:.3}")).collect();
                    if c.is_empty() { String::new() } else { format!("{name} {}", numbers.join(" ")) }
                };
                let parts =
                    [list("φ", &p.phi), list("θ", &p.theta), list("Φ", &p.seasonal_phi), list("Θ", &p.seasonal_theta)];
                let told: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                if told.is_empty() { "no parameters".to_owned() } else { told.join(", ") }
            }
        }
    }
}

//! Linear regression of a window on earlier ones: the last few, and those around a season and two seasons before.
//! Least squares with a small ridge; newer windows weigh more.

use serde::{Deserialize, Serialize};

use super::Model;
use super::sarima::solve;

/// Coefficients of an intercept and of lags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regression {
    seasons: [usize; 2],
    lags: Vec<usize>,
    /// Intercept first, then by lag.
    coefficients: Option<Vec<f64>>,
}

/// Share of a variance that the ridge adds to it.
const RIDGE: f64 = 1e-4;

impl Regression {
    /// A model without estimates; a season of length 0 is none.
    #[must_use]
    pub fn new(seasons: [usize; 2]) -> Self {
        let mut lags = vec![1, 2, 3];
        for m in seasons.into_iter().filter(|m| *m > 0) {
            lags.extend([m - 1, m, m + 1]);
        }
        // Two seasons back: what was odd a season ago is told from what always is.
        lags.extend(seasons.into_iter().filter(|m| *m > 0).map(|m| 2 * m));
        lags.sort_unstable();
        lags.dedup();
        lags.retain(|lag| *lag > 0);
        Self { seasons, lags, coefficients: None }
    }

    fn value(&self, coefficients: &[f64], values: &[f64]) -> f64 {
        let past: f64 = self.lags.iter().zip(&coefficients[1..]).map(|(lag, c)| c * values[values.len() - lag]).sum();
        coefficients[0] + past
    }

    fn reach(&self) -> usize {
        self.lags.last().copied().unwrap_or(0)
    }
}

impl Model for Regression {
    fn label(&self) -> String {
        match self.seasons {
            [0, _] => "regression".to_owned(),
            [m, 0] => format!("regression{m}"),
            [m, n] => format!("regression{m}+{n}"),
        }
    }

    fn observe(&mut self, _history: &[f64]) {}

    fn path(&self, history: &[f64], horizon: usize) -> Option<Vec<f64>> {
        let coefficients = self.coefficients.as_ref()?;
        let mut values = history[history.len().checked_sub(self.reach())?..].to_vec();
        for _ in 0..horizon {
            values.push(self.value(coefficients, &values));
        }
        Some(values.split_off(self.reach()))
    }

    fn fit(&mut self, window: &[f64], history: &[f64]) {
        let (reach, k) = (self.reach(), self.lags.len() + 1);
        let rows = window.len().min(history.len().saturating_sub(reach));
        if rows < 6 * k {
            return;
        }
        let centre = history[history.len() - rows..].iter().sum::<f64>() / rows as f64;
        let mut normal = vec![vec![0.0; k + 1]; k];
        let mut x = vec![1.0; k];
        let memory = rows as f64;
        for t in history.len() - rows..history.len() {
            for (x, lag) in x[1..].iter_mut().zip(&self.lags) {
                *x = history[t - lag] - centre;
            }
            let weight = (-((history.len() - 1 - t) as f64) / memory).exp();
            let y = history[t] - centre;
            for i in 0..k {
                let wx = weight * x[i];
                for j in i..k {
                    normal[i][j] += wx * x[j];
                }
                normal[i][k] += wx * y;
            }
        }
        #[expect(clippy::needless_range_loop, reason = "the upper triangle, mirrored")]
        for i in 0..k {
            for j in 0..i {
                normal[i][j] = normal[j][i];
            }
        }
        for (i, row) in normal.iter_mut().enumerate() {
            row[i] += RIDGE * row[i] + f64::MIN_POSITIVE;
        }
        let Some(mut solved) = solve(normal) else { return };
        // Around the centre → as it is.
        solved[0] += centre * (1.0 - solved[1..].iter().sum::<f64>());
        self.coefficients = Some(solved);
    }

    fn explain(&self) -> String {
        match &self.coefficients {
            None => "not fitted yet".to_owned(),
            Some(c) => {
                let terms: Vec<String> =
                    self.lags.iter().zip(&c[1..]).map(|(lag, c)| format!("{c:+.2}·y[-{lag}]")).collect();
                format!("{:.1} {}", c[0], terms.join(" "))
            }
        }
    }
}

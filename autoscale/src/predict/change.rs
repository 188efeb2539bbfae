//! Change points in a stream of forecast errors: two-sided cumulative sums (Page, Biometrika 41, 1954) of the errors
//! for a shift of the mean, and of their squares for a shift of the variance.

use serde::{Deserialize, Serialize};

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The errors are no longer around zero.
    Mean,
    /// The errors are larger than they were.
    Variance,
}

impl Change {
    /// Short fixed name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Variance => "variance",
        }
    }
}

/// Shifts of less than this many deviations are let be.
const SLACK: f64 = 0.75;
/// Sum of standard errors that makes a change.
const MEAN_ALARM: f64 = 9.0;
const VARIANCE_ALARM: f64 = 40.0;
/// One error counts as at most so many deviations: a spike is no change.
const MOST: f64 = 3.0;
/// Errors before the deviation is believed, also after a change.
const WARM_UP: u32 = 24;
/// What the deviation rests on: about so many errors.
const MEMORY: f64 = 100.0;

/// The detector. An error is what came less what was forecast.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Detector {
    seen: u32,
    /// Mean size of the errors.
    size: f64,
    above: f64,
    below: f64,
    wider: f64,
}

impl Detector {
    /// Takes an error; tells a change once and starts over.
    pub fn observe(&mut self, error: f64) -> Option<Change> {
        // √(2/π) of a deviation is a normal error's mean size.
        let deviation = self.size / 0.798;
        let rate = (1.0 / f64::from(self.seen + 1)).max(1.0 / MEMORY);
        let warm = self.seen >= WARM_UP && deviation > 0.0;
        // Later errors must not be judged by a deviation that an outlier made.
        let judged = if warm { error.abs().min(MOST * deviation) } else { error.abs() };
        self.size += rate * (judged - self.size);
        self.seen = self.seen.saturating_add(1);
        if !warm {
            return None;
        }
        let z = (error / deviation).clamp(-MOST, MOST);
        self.above = (self.above + z - SLACK).max(0.0);
        self.below = (self.below - z - SLACK).max(0.0);
        self.wider = (self.wider + z * z - 3.0).max(0.0);
        let change = if self.above > MEAN_ALARM || self.below > MEAN_ALARM {
            Some(Change::Mean)
        } else {
            (self.wider > VARIANCE_ALARM).then_some(Change::Variance)
        };
        if change.is_some() {
            *self = Self::default();
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::noise::Noise;

    fn alarms(errors: impl Iterator<Item = f64>) -> Vec<(usize, Change)> {
        let mut detector = Detector::default();
        errors.enumerate().filter_map(|(t, e)| detector.observe(e).map(|change| (t, change))).collect()
    }

    #[test]
    fn shifts_of_mean_and_variance_are_found_soon() {
        let mut noise = Noise::new(7);
        let mean = alarms((0..300).map(|t| noise.normal() + if t >= 200 { 3.0 } else { 0.0 }));
        assert!(mean.first().is_some_and(|(t, change)| (200..208).contains(t) && *change == Change::Mean), "{mean:?}");
        let wider = alarms((0..300).map(|t| noise.normal() * if t >= 200 { 4.0 } else { 1.0 }));
        assert!(wider.first().is_some_and(|(t, _)| (200..220).contains(t)), "{wider:?}");
    }

    #[test]
    fn noise_and_single_spikes_are_no_changes() {
        let mut noise = Noise::new(3);
        let found = alarms((0..2000).map(|t| noise.normal() + if t % 200 == 150 { 50.0 } else { 0.0 }));
        assert!(found.len() <= 4, "{found:?}");
        assert!(alarms((0..500).map(|_| 0.0)).is_empty());
    }
}

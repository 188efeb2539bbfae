//! What an instance can serve, learnt from windows in which its latency held and windows in which it did not.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Newest windows of each kind that are kept.
const KEPT: usize = 16;
/// Windows that say so before the configured capacity is not believed any more.
const ENOUGH: usize = 5;
/// The measured capacity is at most so many times the configured one, and at least its so-manieth part.
const MOST: f64 = 2.0;

/// Windows at load, of one service and one configured capacity. Less load than the configured capacity's part by
/// [`MOST`] is none: what is slow then is slow for another reason, and what is not proves nothing.
///
/// A window contradicts an older one where its latency held under more load than that which was late, or the other way
/// round; the older one is then forgotten. Nothing else is, so that a time without measurements changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Requests per instance and window that the configuration says.
    configured: f64,
    /// Latest answer to a probe, in milliseconds, at which the latency holds.
    latency_ms: f64,
    /// Requests per instance of windows in which it held, oldest first.
    held: VecDeque<f64>,
    /// The same where it did not.
    late: VecDeque<f64>,
}

impl Measured {
    /// Begins anew where the configuration says something else than before: what was measured was measured by that.
    pub fn adapt(&mut self, configured: f64, latency_ms: f64) {
        if !self.is_of(configured, latency_ms) {
            *self = Self { configured, latency_ms, ..Self::default() };
        }
    }

    /// Whether it was measured by this configuration.
    #[must_use]
    pub fn is_of(&self, configured: f64, latency_ms: f64) -> bool {
        (self.configured, self.latency_ms) == (configured, latency_ms)
    }

    /// Takes in a window: the requests of the busiest instance, and the time to its probes' answers in milliseconds.
    pub fn observe(&mut self, requests: f64, took_ms: f64) {
        if !(requests.is_finite() && took_ms.is_finite() && requests >= self.configured / MOST) {
            return;
        }
        let held = took_ms <= self.latency_ms;
        let (same, other) = if held { (&mut self.held, &mut self.late) } else { (&mut self.late, &mut self.held) };
        let contradicts = |older: &f64| if held { *older <= requests } else { *older >= requests };
        if let Some(index) = other.iter().position(contradicts) {
            other.remove(index);
        }
        if same.len() == KEPT {
            same.pop_front();
        }
        same.push_back(requests);
    }

    /// Windows at load that are kept: those in which the latency held, and the others.
    #[must_use]
    pub fn windows(&self) -> (usize, usize) {
        (self.held.len(), self.late.len())
    }

    /// Requests per instance and window, where enough windows say that it is another number than the configured one: the
    /// load that best parts the windows that held from those that were late.
    #[must_use]
    pub fn capacity(&self) -> Option<f64> {
        let (least, most) = (self.configured / MOST, self.configured * MOST);
        let wrong = |at: f64| {
            self.late.iter().filter(|load| **load <= at).count() + self.held.iter().filter(|load| **load > at).count()
        };
        let better = |best: f64, at: f64| match wrong(at).cmp(&wrong(best)) {
            std::cmp::Ordering::Less => at,
            std::cmp::Ordering::Equal => at.max(best),
            std::cmp::Ordering::Greater => best,
        };
        let best = self.held.iter().copied().fold(least, better);
        if best > self.configured {
            // As much as so many windows have shown, not what one did.
            let mut held: Vec<f64> = self.held.iter().copied().collect();
            held.sort_by(|a, b| b.total_cmp(a));
            let shown = held.get(ENOUGH - 1)?.min(best).min(most);
            return (shown > self.configured).then_some(shown);
        }
        let late = self.late.iter().filter(|load| **load > best && **load <= self.configured).count();
        (late >= ENOUGH && best < self.configured).then_some(best.max(least))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a capacity of 20 within 50 ms: windows of these requests and times.
    fn after(windows: &[(f64, f64)]) -> Measured {
        let mut measured = Measured::default();
        measured.adapt(20.0, 50.0);
        windows.iter().for_each(|(requests, took_ms)| measured.observe(*requests, *took_ms));
        measured
    }

    #[test]
    fn more_is_believed_once_enough_windows_have_shown_it() {
        let shown = [(31.0, 2.0), (30.0, 3.0), (33.0, 2.0), (90.0, 2.0), (32.0, 9.0)];
        assert_eq!(after(&shown[..4]).capacity(), None);
        assert_eq!(after(&shown).capacity(), Some(30.0), "not what a single one showed");
        assert_eq!(after(&[(90.0, 2.0); 9]).capacity(), Some(40.0), "twice the configured at most");
        assert_eq!(after(&[(19.0, 2.0); 9]).capacity(), None, "less load shows nothing");
    }

    #[test]
    fn less_is_believed_once_enough_windows_at_load_were_late() {
        let late = [(12.0, 3.0), (18.0, 80.0), (17.0, 90.0), (16.0, 70.0), (19.0, 200.0), (20.0, 60.0)];
        assert_eq!(after(&late[..5]).capacity(), None);
        assert_eq!(after(&late).capacity(), Some(12.0));
        assert_eq!(after(&[(15.0, 80.0); 5]).capacity(), Some(10.0), "half the configured at least");
        assert_eq!(after(&[(9.0, 800.0); 50]).capacity(), None, "slow without load is slow for another reason");
        assert_eq!(after(&[(45.0, 80.0); 50]).capacity(), None, "late under more load than it is said to take");
    }

    #[test]
    fn what_is_contradicted_is_forgotten() {
        let mut measured = after(&[(30.0, 2.0); 16]);
        assert_eq!(measured.capacity(), Some(30.0));
        (0..8).for_each(|_| measured.observe(25.0, 80.0));
        assert_eq!((measured.windows(), measured.capacity()), ((8, 8), Some(30.0)));
        measured.observe(25.0, 80.0);
        assert_eq!(measured.capacity(), None, "a slower release: the configured one again");
        (0..12).for_each(|_| measured.observe(15.0, 80.0));
        assert_eq!(measured.capacity(), Some(10.0));
        (0..32).for_each(|_| measured.observe(21.0, 2.0));
        assert_eq!(measured.capacity(), Some(21.0));
    }

    #[test]
    fn another_configuration_begins_anew_and_the_same_does_not() {
        let mut measured = after(&[(30.0, 2.0); 9]);
        measured.adapt(20.0, 50.0);
        assert_eq!(measured.capacity(), Some(30.0));
        measured.adapt(25.0, 50.0);
        assert_eq!((measured.windows(), measured.capacity()), ((0, 0), None));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_rests_on_enough_windows(
            windows in prop::collection::vec((0.0..100.0f64, prop_oneof![0.0..50.0f64, 51.0..500.0f64]), 0..80),
        ) {
            let measured = after(&windows);
            if let Some(capacity) = measured.capacity() {
                prop_assert!((10.0..=40.0).contains(&capacity) && capacity != 20.0);
                let held = windows.iter().filter(|(load, took)| *load >= capacity && *took <= 50.0).count();
                let late = windows.iter().filter(|(load, took)| *load <= 20.0 && *took > 50.0).count();
                prop_assert!(if capacity > 20.0 { held } else { late } >= 5, "{capacity} of {windows:?}");
            }
        }

        #[test]
        fn a_window_that_says_nothing_changes_nothing(
            windows in prop::collection::vec((10.0..100.0f64, 0.0..100.0f64), 0..40),
            nothing in prop::collection::vec(prop_oneof![
                (0.0..9.9f64, 0.0..500.0f64),
                Just((f64::NAN, 1.0)), Just((30.0, f64::NAN)), Just((f64::INFINITY, 1.0)), Just((-5.0, 1.0)),
            ], 0..40),
        ) {
            let mut measured = after(&windows);
            let before = measured.clone();
            nothing.iter().for_each(|(requests, took_ms)| measured.observe(*requests, *took_ms));
            prop_assert_eq!(measured, before);
        }
    }
}

//! How often answers name an instance first where `weights = "load"`: the less, the slower it answers its probes than
//! its peers do. Pure; the operator hands in probes and closes the windows.
//!
//! Only a difference counts: where all are slow there is nobody to send their clients to, and all weigh the same.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::Probing;

/// Weight of an instance that is not slower than its peers.
pub(super) const FULL: u16 = 8;
/// Least weight: a quarter. One that gets nothing could not show that it is well again.
const LEAST: u16 = 2;
/// So much may an answer take longer for no reason that has to do with load, on a busy machine.
const NOISE_MS: f64 = 5.0;
/// Part of what a window says that is believed at once.
const BELIEVED: f64 = 0.5;
/// Part of what a window says that an instance's own usual takes in.
const LEARNT: f64 = 1.0 / 64.0;
/// An instance may be slower than its peers by this factor for good; what is beyond it is load, however long it lasts.
const MOST_USUAL: f64 = 1.5;
/// Steps that a weight is off before it moves by one: publishing costs, and half a step is not worth it.
const MARGIN: f64 = 0.75;
/// Newest probes of a window that are looked at.
const MOST_PROBES: usize = 256;

/// One instance's weight and what it follows from.
#[derive(Debug, Clone)]
pub(super) struct Weighing {
    weight: u16,
    /// What it can take of what its peers can, smoothed; 0.25 to 1.
    able: f64,
    /// By how much it is usually slower than its peers; 1 to [`MOST_USUAL`].
    usual: f64,
    /// Of the running window: the time to the answer, and the time that the probe stands for, in milliseconds.
    probes: VecDeque<(f64, f64)>,
}

impl Weighing {
    /// Begins with the weight that is published of it, if that is one of these.
    pub fn new(published: Option<u16>) -> Self {
        let weight = published.filter(|weight| (LEAST..=FULL).contains(weight)).unwrap_or(FULL);
        Self { weight, able: f64::from(weight) / f64::from(FULL), usual: 1.0, probes: VecDeque::new() }
    }

    /// Its weight, [`LEAST`] to [`FULL`].
    pub const fn weight(&self) -> u16 {
        self.weight
    }

    /// Takes in a probe: the time to its answer, or else that for which it was waited. It stands for the time to the
    /// next one: an instance that stands still half of the time answers few probes late and many at once.
    pub fn probed(&mut self, took_ms: Option<f64>, probing: &Probing) {
        if self.probes.len() == MOST_PROBES {
            self.probes.pop_front();
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let took_ms = took_ms.unwrap_or(ms(probing.timeout));
        self.probes.push_back((took_ms, took_ms.max(ms(probing.interval))));
    }

    /// Milliseconds to the answer, the median of the running window's probes; `None` where there was none.
    pub fn median_ms(&self) -> Option<f64> {
        median(self.probes.iter().copied().collect())
    }

    /// Ends a window in which it was not in the answers, so that it says nothing.
    pub fn pass(&mut self) {
        self.probes.clear();
    }

    /// Takes in a window: its own probes and those of all, in milliseconds. The weight moves by a step at most.
    fn window(&mut self, own_ms: f64, all_ms: f64) {
        let slower = (own_ms + NOISE_MS) / (all_ms + NOISE_MS);
        let able = (self.usual / slower).clamp(f64::from(LEAST) / f64::from(FULL), 1.0);
        self.usual += (slower.clamp(1.0, MOST_USUAL) - self.usual) * LEARNT;
        self.able += (able - self.able) * BELIEVED;
        let off = self.able * f64::from(FULL) - f64::from(self.weight);
        if off >= MARGIN {
            self.weight = (self.weight + 1).min(FULL);
        } else if off <= -MARGIN {
            self.weight = (self.weight - 1).max(LEAST);
        }
    }
}

/// Closes a window of a service, given its instances that are in the answers. One without a probe in it stays as it is.
pub(super) fn close(instances: &mut [&mut Weighing]) {
    let own: Vec<Option<f64>> = instances.iter_mut().map(|one| median(one.probes.drain(..).collect())).collect();
    // Of two the faster one: it shows what is possible.
    let Some(all_ms) = median(own.iter().flatten().map(|own_ms| (*own_ms, 1.0)).collect()) else { return };
    for (instance, own) in instances.iter_mut().zip(own) {
        if let Some(own_ms) = own {
            instance.window(own_ms, all_ms);
        }
    }
}

/// The middle one of values with weights, of two middle ones the lower.
fn median(mut values: Vec<(f64, f64)>) -> Option<f64> {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    let middle = values.iter().find(|(_, weight)| {
        below += weight;
        below >= half
    });
    middle.map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every second, for a second.
    const PROBING: Probing = Probing {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
        replace_after: Duration::from_secs(10),
    };

    /// Windows of three probes each, given as the time that each instance takes; the weights after each.
    fn run(all: &mut [Weighing], windows: &[&[f64]]) -> Vec<Vec<u16>> {
        let one = |times: &&[f64]| {
            for (instance, took) in all.iter_mut().zip(*times) {
                (0..3).for_each(|_| instance.probed(Some(*took), &PROBING));
            }
            close(&mut all.iter_mut().collect::<Vec<_>>());
            all.iter().map(Weighing::weight).collect()
        };
        windows.iter().map(one).collect()
    }

    fn fresh(count: usize) -> Vec<Weighing> {
        vec![Weighing::new(None); count]
    }

    /// Those of the last instance.
    fn last(weights: &[Vec<u16>]) -> Vec<u16> {
        weights.iter().filter_map(|all| all.last().copied()).collect()
    }

    #[test]
    fn a_slow_one_gets_less_step_by_step_and_recovers_so() {
        let mut all = fresh(3);
        let slow = run(&mut all, &[&[1.0, 1.2, 100.0][..]; 8]);
        assert_eq!(last(&slow), [7, 6, 5, 4, 3, 2, 2, 2], "to a quarter, by a step per window");
        assert!(slow.iter().all(|w| w[..2] == [FULL, FULL]));
        let well = run(&mut all, &[&[1.0, 1.2, 1.1][..]; 10]);
        assert_eq!(last(&well)[..6], [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn where_all_are_slow_all_weigh_the_same() {
        let weights = run(&mut fresh(3), &[&[200.0, 190.0, 210.0][..]; 20]);
        assert!(weights.iter().flatten().all(|w| *w == FULL), "{weights:?}");
    }

    #[test]
    fn of_two_the_slower_one_gets_less() {
        assert_eq!(run(&mut fresh(2), &[&[60.0, 1.0][..]; 9])[8], [2, 8]);
    }

    #[test]
    fn a_single_one_has_the_full_weight_and_comes_back_to_it() {
        assert_eq!(run(&mut fresh(1), &[&[900.0]])[0], [FULL]);
        let mut alone = [Weighing::new(Some(LEAST))];
        assert_eq!(last(&run(&mut alone, &[&[900.0][..]; 7])), [3, 4, 5, 6, 7, 8, 8]);
    }

    #[test]
    fn noise_and_single_slow_windows_move_nothing_for_long() {
        let weights = run(&mut fresh(2), &[&[0.3, 0.9][..], &[0.3, 0.4], &[0.5, 1.0], &[0.2, 0.8]]);
        assert!(weights.iter().flatten().all(|w| *w == FULL), "{weights:?}");
        let windows = [&[1.0, 50.0][..], &[1.0, 1.0], &[1.0, 1.0], &[1.0, 1.0], &[1.0, 1.0]];
        assert_eq!(last(&run(&mut fresh(2), &windows)), [7, 7, 7, 7, 8]);
    }

    #[test]
    fn what_is_usual_is_no_load_within_bounds() {
        let usual = [&[10.0, 17.0][..]; 300];
        assert_eq!(last(&run(&mut fresh(2), &usual))[299], FULL, "a little slower for good");
        let slow = [&[10.0, 60.0][..]; 3000];
        assert!(last(&run(&mut fresh(2), &slow))[2999] <= 4, "much slower is never usual");
    }

    #[test]
    fn a_missed_probe_counts_as_its_timeout_and_a_lost_one_of_many_not_at_all() {
        let mut all = fresh(2);
        for _ in 0..3 {
            all[0].probed(Some(1.0), &PROBING);
            all[1].probed(None, &PROBING);
        }
        close(&mut all.iter_mut().collect::<Vec<_>>());
        assert_eq!(all[1].weight(), 7);
        let mut all = fresh(2);
        [Some(1.0), None, Some(1.0)].into_iter().for_each(|took| all[1].probed(took, &PROBING));
        all[0].probed(Some(1.0), &PROBING);
        close(&mut all.iter_mut().collect::<Vec<_>>());
        assert_eq!(all[1].weight(), FULL);
    }

    #[test]
    fn one_that_stands_still_most_of_the_time_is_slow_though_most_probes_are_not() {
        let often = Probing { interval: Duration::from_millis(50), ..PROBING };
        let mut all = fresh(2);
        for _ in 0..3 {
            all[0].probed(Some(1.0), &often);
            [Some(400.0), Some(1.0), Some(1.0)].into_iter().for_each(|took| all[1].probed(took, &often));
        }
        close(&mut all.iter_mut().collect::<Vec<_>>());
        assert_eq!(all[1].weight(), 7);
    }

    #[test]
    fn who_was_not_asked_stays_as_it_is() {
        let mut all = [Weighing::new(Some(5)), Weighing::new(None)];
        all[1].probed(Some(1.0), &PROBING);
        close(&mut all.iter_mut().collect::<Vec<_>>());
        assert_eq!((all[0].weight(), all[1].weight()), (5, FULL));
        // Weights of a service whose instances weighed the same are none of these.
        assert_eq!(Weighing::new(Some(1)).weight(), FULL);
    }

    proptest! {
        #[test]
        fn weights_are_bounded_and_move_by_one_step(
            windows in prop::collection::vec(prop::collection::vec(0.0..1000.0f64, 4), 1..60),
        ) {
            let windows: Vec<&[f64]> = windows.iter().map(Vec::as_slice).collect();
            let mut before = vec![FULL; 4];
            for weights in run(&mut fresh(4), &windows) {
                for (now, before) in weights.iter().zip(&before) {
                    prop_assert!((LEAST..=FULL).contains(now) && now.abs_diff(*before) <= 1);
                }
                before = weights;
            }
        }
    }
}

//! What a serving instance's probes say of it. Pure; [`bring_up`](super::bring_up) asks.

use std::time::{Duration, Instant};

use crate::model::Probing;

/// One that has left and come back within this time comes and goes.
const FLAPPING: Duration = Duration::from_secs(300);
/// Most doublings of the probes that one which comes and goes has to answer before it is put back.
const MOST_DOUBLINGS: u32 = 5;

/// What follows from a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Out of the answers.
    Out,
    /// Back into them.
    Back,
    /// It has been out for too long.
    Replace,
}

/// One instance's health.
#[derive(Debug)]
pub(super) struct Health {
    probing: Probing,
    /// Probes of one outcome in a row: misses while it is in the answers, successes while it is out.
    row: u32,
    out_since: Option<Instant>,
    /// When it came back lately, and how often in a row of such times.
    returned: Option<Instant>,
    flaps: u32,
}

impl Health {
    pub const fn new(probing: Probing) -> Self {
        Self { probing, row: 0, out_since: None, returned: None, flaps: 0 }
    }

    /// Takes in the outcome of one probe.
    pub fn probed(&mut self, now: Instant, answered: bool) -> Option<Change> {
        let Some(since) = self.out_since else {
            self.row = if answered { 0 } else { self.row + 1 };
            if self.row < self.probing.fall {
                return None;
            }
            let lately = self.returned.is_some_and(|at| now.saturating_duration_since(at) < FLAPPING);
            self.flaps = if lately { (self.flaps + 1).min(MOST_DOUBLINGS) } else { 0 };
            self.out_since = Some(now);
            self.row = 0;
            return Some(Change::Out);
        };
        self.row = if answered { self.row + 1 } else { 0 };
        if self.row >= self.probing.rise << self.flaps {
            self.out_since = None;
            self.returned = Some(now);
            self.row = 0;
            return Some(Change::Back);
        }
        // One that answers again is not replaced while it is counted.
        (self.row == 0 && now.saturating_duration_since(since) >= self.probing.replace_after).then_some(Change::Replace)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROBING: Probing = Probing {
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
        replace_after: Duration::from_secs(10),
    };

    /// Probes a second apart, `.` answered and `x` missed; what followed, by the probe's number from 1.
    fn changes(probes: &str) -> Vec<(u64, Change)> {
        let (mut health, begun) = (Health::new(PROBING), Instant::now());
        let one = |(second, probe): (u64, char)| {
            Some((second, health.probed(begun + Duration::from_secs(second), probe == '.')?))
        };
        (1..).zip(probes.chars()).filter_map(one).collect()
    }

    #[test]
    fn single_misses_are_nothing() {
        assert_eq!(changes("..x..xx.x.xx."), []);
    }

    #[test]
    fn it_leaves_after_misses_in_a_row_and_comes_back_after_answers_in_a_row() {
        assert_eq!(changes("xxx.x..x"), [(3, Change::Out), (7, Change::Back)]);
    }

    #[test]
    fn one_that_stays_away_is_replaced() {
        assert_eq!(changes("xxxxxxxxxxxxx"), [(3, Change::Out), (13, Change::Replace)]);
    }

    #[test]
    fn one_that_comes_and_goes_has_to_answer_longer_each_time() {
        let probes = "xxx..xxx....xxx........xxx........";
        let wanted = [
            (3, Change::Out),
            (5, Change::Back),
            (8, Change::Out),
            (12, Change::Back),
            (15, Change::Out),
            (23, Change::Back),
            (26, Change::Out),
        ];
        assert_eq!(changes(probes), wanted);
    }

    proptest! {
        #[test]
        fn it_never_leaves_or_comes_twice_in_a_row(probes in "[.x]{0,400}") {
            let kinds: Vec<_> = changes(&probes).into_iter().map(|(_, c)| c).filter(|c| *c != Change::Replace).collect();
            let wanted: Vec<_> = [Change::Out, Change::Back].into_iter().cycle().take(kinds.len()).collect();
            prop_assert_eq!(kinds, wanted);
        }

        #[test]
        fn the_answers_change_seldom_however_it_flaps(probes in "[.x]{300}") {
            // Five minutes: out and back at most once for each doubling, then every 64 probes.
            let count = changes(&probes).into_iter().filter(|(_, c)| *c == Change::Out).count();
            prop_assert!(count <= 12, "{} times out", count);
        }
    }
}

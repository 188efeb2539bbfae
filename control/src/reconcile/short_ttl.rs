//! Answers that live shorter ahead of a removal, so that the drain is shorter: when they do, and how long the answers
//! that named an instance can still be used. Pure; the operator looks and publishes.

use std::time::{Duration, Instant};

/// From the end of one shortening to the next of the same service: of one whose number only wavers the resolvers would
/// else ask all the time.
const REST: Duration = Duration::from_secs(600);

/// One service's shortening.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shortening {
    begun: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Shortening {
    /// Whether answers live shorter now, given whether a removal is coming. If it has not come within `longest`, the
    /// number wavers, and the usual TTL is back.
    pub fn look(&mut self, now: Instant, is_coming: bool, longest: Duration) -> bool {
        match self.begun {
            Some(begun) if !is_coming || now.saturating_duration_since(begun) >= longest => {
                *self = Self { begun: None, rests_until: Some(now + REST) };
            }
            None if is_coming && self.rests_until.is_none_or(|until| until <= now) => self.begun = Some(now),
            _ => {}
        }
        self.is_short()
    }

    /// As it was at the last look.
    pub const fn is_short(&self) -> bool {
        self.begun.is_some()
    }
}

/// The TTLs under which an instance is named in answers, as far as they can still hold. Not stored: after a restart of
/// the daemon the largest one counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    ttl: Duration,
    /// When the last answer with a longer one ends.
    longer_until: Option<Instant>,
}

impl Named {
    /// Begins with the largest that there has been.
    pub const fn new(largest_ttl_s: u32) -> Self {
        Self { ttl: Duration::from_secs(largest_ttl_s as u64), longer_until: None }
    }

    /// It is named under this TTL from now on.
    pub fn publish(&mut self, now: Instant, ttl_s: u32) {
        let ttl = Duration::from_secs(u64::from(ttl_s));
        if ttl < self.ttl {
            self.longer_until = self.longer_until.max(Some(now + self.ttl));
        }
        self.ttl = ttl;
    }

    /// How long an answer that was handed out until now can still be used.
    pub fn left(&self, now: Instant) -> Duration {
        self.longer_until.map_or(self.ttl, |until| self.ttl.max(until.saturating_duration_since(now)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(300);

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn answers_live_shorter_until_the_removal() {
        let (mut one, begun) = (Shortening::default(), Instant::now());
        let looks = [(0, false), (10, true), (60, true), (90, false), (91, false)];
        let short = looks.map(|(at, coming)| one.look(begun + second(at), coming, LONGEST));
        assert_eq!(short, [false, true, true, false, false]);
    }

    #[test]
    fn where_no_removal_comes_the_usual_ttl_is_back() {
        let (mut one, begun) = (Shortening::default(), Instant::now());
        let short: Vec<bool> =
            [0, 299, 300, 400, 899, 900].map(|at| one.look(begun + second(at), true, LONGEST)).into();
        assert_eq!(short, [true, true, false, false, false, true]);
    }

    #[test]
    fn a_number_that_wavers_shortens_once_in_a_rest() {
        let (mut one, begun) = (Shortening::default(), Instant::now());
        let mut begins = Vec::new();
        for at in 0..1200 {
            let before = one.is_short();
            if one.look(begun + second(at), at % 20 < 10, LONGEST) && !before {
                begins.push(at);
            }
        }
        assert_eq!(begins, [0, 620]);
    }

    #[test]
    fn what_was_handed_out_is_waited_for_and_no_more() {
        let (mut named, begun) = (Named::new(0), Instant::now());
        named.publish(begun, 60);
        assert_eq!(named.left(begun + second(500)), second(60));
        named.publish(begun + second(500), 2);
        assert_eq!(named.left(begun + second(510)), second(50), "an answer of the last moment before");
        assert_eq!(named.left(begun + second(600)), second(2));
        // Published anew under the same TTL, as a neighbour came: nothing of before comes back.
        named.publish(begun + second(600), 2);
        assert_eq!(named.left(begun + second(601)), second(2));
        named.publish(begun + second(700), 60);
        assert_eq!(named.left(begun + second(700)), second(60));
    }

    #[test]
    fn after_a_restart_the_largest_counts() {
        let (mut named, begun) = (Named::new(60), Instant::now());
        named.publish(begun, 2);
        assert_eq!(named.left(begun + second(1)), second(59));
    }

    proptest! {
        #[test]
        fn no_answer_outlives_what_is_left(published in prop::collection::vec((0u64..100, 1u32..100), 1..20), more in 0u64..100) {
            let begun = Instant::now();
            let (mut named, mut at) = (Named::new(0), 0);
            let mut ends = 0;
            let mut last = 0;
            for (wait, ttl_s) in published {
                // Answers go out up to the moment at which the next TTL is in force.
                at += wait;
                ends = ends.max(at + last);
                named.publish(begun + second(at), ttl_s);
                last = u64::from(ttl_s);
            }
            at += more;
            ends = ends.max(at + last);
            prop_assert_eq!(named.left(begun + second(at)), second(ends - at));
        }
    }
}

//! When a service that is kept up by use alone is not used any more. Pure, as everything that takes an instance away.

use std::time::{Duration, Instant};

/// Looks at the counters in one idle time: it is noticed at most this part of it late.
const LOOKS: u32 = 4;

/// Counts that rise with use, at one moment. Those of listed clients and of our own probes are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    /// Queries for the service's names, in the kernel and in the daemon.
    pub queries: u64,
    /// Packets towards its instances.
    pub packets: u64,
}

/// A service that is awake: since when nobody has used it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awake {
    known: Option<Use>,
    used_at: Instant,
    look_at: Instant,
}

impl Awake {
    /// In use at this moment.
    pub(super) const fn new(now: Instant) -> Self {
        Self { known: None, used_at: now, look_at: now }
    }

    /// When the counters are to be looked at next.
    pub(super) const fn next_look(&self) -> Instant {
        self.look_at
    }

    /// Takes in the counters; true where the service has not been used for `idle_after`. Counts that cannot be read
    /// are no proof of that.
    pub(super) fn is_idle(&mut self, now: Instant, idle_after: Duration, read: Option<Use>) -> bool {
        let unused = read.is_some() && self.known == read;
        if !unused {
            self.known = read;
            self.used_at = now;
        }
        let idle_at = self.used_at + idle_after;
        self.look_at = idle_at.min(now + idle_after / LOOKS);
        unused && idle_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_millis(1000);

    const fn counts(queries: u64, packets: u64) -> Option<Use> {
        Some(Use { queries, packets })
    }

    #[test]
    fn queries_and_traffic_keep_it_awake_each_by_itself() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut awake = Awake::new(begun);
        assert!(!awake.is_idle(at(0), AFTER, counts(1, 1)));
        assert!(!awake.is_idle(at(900), AFTER, counts(2, 1)), "a query");
        assert!(!awake.is_idle(at(1800), AFTER, counts(2, 2)), "a packet");
        assert_eq!(awake.next_look(), at(2050));
        assert!(!awake.is_idle(at(2799), AFTER, counts(2, 2)));
        assert_eq!(awake.next_look(), at(2800));
        assert!(awake.is_idle(at(2800), AFTER, counts(2, 2)));
    }

    #[test]
    fn what_cannot_be_read_is_no_silence() {
        let begun = Instant::now();
        let mut awake = Awake::new(begun);
        for second in 0..10 {
            assert!(!awake.is_idle(begun + AFTER * second, AFTER, None));
        }
        assert!(!awake.is_idle(begun + AFTER * 10, AFTER, counts(1, 1)), "known only from now on");
        assert!(awake.is_idle(begun + AFTER * 11, AFTER, counts(1, 1)));
    }

    proptest! {
        /// Followed as it says, it is idle after the last use by the idle time and at most a quarter of it more.
        #[test]
        fn idle_is_neither_early_nor_late(uses in proptest::collection::vec(1u64..1500, 0..20)) {
            let begun = Instant::now();
            let mut at = Duration::ZERO;
            let uses: Vec<Duration> = uses.into_iter().map(|ms| { at += Duration::from_millis(ms); at }).collect();
            let mut awake = Awake::new(begun);
            let mut now = begun;
            let idle = loop {
                let used = uses.iter().filter(|used| begun + **used <= now).count() as u64;
                if awake.is_idle(now, AFTER, counts(used, 0)) { break now }
                prop_assert!(awake.next_look() > now);
                now = awake.next_look();
            };
            let last = uses.iter().map(|used| begun + *used).filter(|used| *used <= idle).max().unwrap_or(begun);
            prop_assert!(idle >= last + AFTER);
            prop_assert!(idle <= last + AFTER + AFTER / LOOKS);
        }
    }
}

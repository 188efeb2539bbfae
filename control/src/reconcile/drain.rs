//! When an instance that is out of the answers may be stopped: the largest TTL that named it has run out, no client has
//! a connection open, and no packet comes. Pure; [`take_down`](super::take_down) looks and acts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::view::DrainReport;
use crate::model::{AtDeadline, Timestamp};

/// Clients that are named of those that come late.
const NAMED: usize = 8;
/// How often the open connections are looked at while packets come: the kernel's table of them is large.
const OPEN_LOOK: Duration = Duration::from_secs(1);

/// What a drain waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Largest TTL that named the instance, counted from now.
    pub ttl: Duration,
    /// Time without a packet after which traffic counts as ended.
    pub quiet: Duration,
    /// Longest wait behind the TTL.
    pub deadline: Duration,
    /// What becomes of clients that are there still then.
    pub at_deadline: AtDeadline,
}

/// What is seen of the instance at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Packets so far; `None` where they are not counted.
    pub packets: Option<u64>,
    /// Its open connections, as the client and the time since it was opened; `None` where they are not known.
    pub open: Option<Vec<(IpAddr, Duration)>>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody uses it.
    Unused,
    /// Its clients have had their time.
    Cut {
        /// Connections that were open; `None` where that is not known.
        open: Option<usize>,
    },
}

/// A drain behind the TTL.
#[derive(Debug)]
pub(super) struct Drain {
    patience: Patience,
    /// When the TTL had run out.
    begun: (Instant, Timestamp),
    packets: Option<u64>,
    still_since: Instant,
    looked: Instant,
    open: Option<usize>,
    late: BTreeSet<IpAddr>,
}

impl Drain {
    /// Begins with what is seen when the TTL has run out.
    pub fn begin(patience: Patience, now: (Instant, Timestamp), seen: &Seen) -> Self {
        let open = seen.open.as_ref().map(Vec::len);
        let late = BTreeSet::new();
        Self { patience, begun: now, packets: seen.packets, still_since: now.0, looked: now.0, open, late }
    }

    /// Whether the open connections matter at this moment: before that, packets are enough to know that it goes on.
    pub fn wants_connections(&self, now: Instant, packets: Option<u64>) -> bool {
        let still = packets == self.packets && now.saturating_duration_since(self.still_since) >= self.patience.quiet;
        let over = now.saturating_duration_since(self.begun.0) >= self.patience.deadline;
        still || over || now.saturating_duration_since(self.looked) >= OPEN_LOOK
    }

    /// Takes in packets alone, at a moment at which they are enough.
    pub fn goes_on(&mut self, now: Instant, packets: Option<u64>) {
        if packets != self.packets {
            self.packets = packets;
            self.still_since = now;
        }
    }

    /// Takes in what is seen at a later moment; how the drain has ended, if it has.
    pub fn look(&mut self, now: Instant, seen: &Seen) -> Option<Ended> {
        self.goes_on(now, seen.packets);
        self.looked = now;
        let waited = now.saturating_duration_since(self.begun.0);
        self.open = seen.open.as_ref().map(Vec::len);
        for (client, age) in seen.open.iter().flatten() {
            if *age < waited && self.late.len() < NAMED {
                self.late.insert(*client);
            }
        }
        let still = now.saturating_duration_since(self.still_since) >= self.patience.quiet;
        // Counts that cannot be read are no proof of silence, and connections that are not known are none of their end.
        if self.packets.is_some() && still && self.open.unwrap_or(0) == 0 {
            return Some(Ended::Unused);
        }
        let kept = self.patience.at_deadline == AtDeadline::Keep && self.open.is_some_and(|open| open > 0);
        (waited >= self.patience.deadline && !kept).then_some(Ended::Cut { open: self.open })
    }

    /// How it stands, for people.
    pub fn report(&self) -> DrainReport {
        let deadline_ms = u64::try_from(self.patience.deadline.as_millis()).unwrap_or(u64::MAX);
        DrainReport {
            answers_end: self.begun.1,
            deadline: Timestamp(self.begun.1.0.saturating_add(deadline_ms)),
            open: self.open.map(|open| open as u64),
            late_clients: self.late.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    fn patience(at_deadline: AtDeadline) -> Patience {
        let second = Duration::from_secs(1);
        Patience { ttl: second, quiet: QUIET, deadline: 30 * second, at_deadline }
    }

    fn seen(packets: u64, open: &[(u8, u64)]) -> Seen {
        let open = open.iter().map(|(client, age)| (IpAddr::from([192, 0, 2, *client]), Duration::from_secs(*age)));
        Seen { packets: Some(packets), open: Some(open.collect()) }
    }

    /// Looks at these seconds after the TTL's end; the first end.
    fn run(at_deadline: AtDeadline, looks: &[(u64, Seen)]) -> (Option<(u64, Ended)>, DrainReport) {
        let begun = Instant::now();
        let mut drain = Drain::begin(patience(at_deadline), (begun, Timestamp(5_000)), &looks[0].1);
        for (at, seen) in looks {
            if let Some(ended) = drain.look(begun + Duration::from_secs(*at), seen) {
                return (Some((*at, ended)), drain.report());
            }
        }
        (None, drain.report())
    }

    #[test]
    fn silence_without_a_connection_is_the_end() {
        let looks = [(0, seen(5, &[])), (1, seen(6, &[])), (2, seen(6, &[])), (3, seen(6, &[]))];
        assert_eq!(run(AtDeadline::Cut, &looks).0, Some((3, Ended::Unused)));
    }

    #[test]
    fn a_connection_that_says_nothing_is_waited_for() {
        let kept = |age| seen(6, &[(1, age)]);
        let looks = [(0, kept(9)), (10, kept(19)), (29, kept(38)), (29, seen(8, &[])), (31, seen(8, &[]))];
        // Two packets ended it at 29 s; the deadline passes while they are waited for.
        assert_eq!(run(AtDeadline::Keep, &looks).0, Some((31, Ended::Unused)));
        let looks = [(0, kept(9)), (29, kept(38)), (30, kept(39))];
        assert_eq!(run(AtDeadline::Cut, &looks).0, Some((30, Ended::Cut { open: Some(1) })));
    }

    #[test]
    fn by_policy_a_client_is_kept_for_as_long_as_it_stays() {
        let looks = [(0, seen(6, &[(1, 9)])), (1000, seen(7, &[(1, 1009)])), (1003, seen(7, &[]))];
        assert_eq!(run(AtDeadline::Keep, &looks).0, Some((1003, Ended::Unused)));
        // A connection that is not known is kept from nobody.
        let unknown = |packets| Seen { packets: Some(packets), open: None };
        let looks = [(0, unknown(1)), (15, unknown(2)), (30, unknown(3))];
        assert_eq!(run(AtDeadline::Keep, &looks).0, Some((30, Ended::Cut { open: None })));
    }

    #[test]
    fn counts_that_cannot_be_read_are_no_silence() {
        let nothing = Seen::default();
        let looks = [(0, nothing.clone()), (10, nothing.clone()), (30, nothing)];
        assert_eq!(run(AtDeadline::Cut, &looks).0, Some((30, Ended::Cut { open: None })));
    }

    #[test]
    fn those_who_come_after_their_answers_have_ended_are_named() {
        let looks = [(0, seen(1, &[(1, 40)])), (5, seen(9, &[(1, 45), (2, 3)])), (6, seen(9, &[(1, 46)]))];
        let (ended, report) = run(AtDeadline::Cut, &looks);
        assert_eq!(ended, None);
        let wanted = DrainReport {
            answers_end: Timestamp(5_000),
            deadline: Timestamp(35_000),
            open: Some(1),
            late_clients: vec![IpAddr::from([192, 0, 2, 2])],
        };
        assert_eq!(report, wanted);
    }
}

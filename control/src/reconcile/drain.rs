//! When an instance that is out of the answers may be stopped: the largest TTL that named it has run out, no client has
//! a connection open, and no packet comes. Pure; [`take_down`](super::take_down) looks and acts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::view::DrainReport;
use crate::model::{AtDeadline, LateClients, Timestamp};

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
    /// What becomes of clients that came when the TTL had run out. Forwarded ones do not come to it, but where that
    /// cannot be done.
    pub late: LateClients,
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
    open: Option<Open>,
    late: BTreeSet<IpAddr>,
}

/// Open connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Open {
    /// Opened before the TTL had run out.
    in_time: usize,
    /// Opened behind it.
    late: usize,
}

impl Open {
    const fn all(self) -> usize {
        self.in_time + self.late
    }
}

impl Drain {
    /// Begins with what is seen when the TTL has run out.
    pub fn begin(patience: Patience, now: (Instant, Timestamp), seen: &Seen) -> Self {
        let open = seen.open.as_ref().map(|open| Open { in_time: open.len(), late: 0 });
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
        self.open = seen.open.as_ref().map(|_| Open::default());
        for (client, age) in seen.open.iter().flatten() {
            let open = self.open.get_or_insert_default();
            if *age >= waited {
                open.in_time += 1;
                continue;
            }
            open.late += 1;
            if self.late.len() < NAMED {
                self.late.insert(*client);
            }
        }
        let still = now.saturating_duration_since(self.still_since) >= self.patience.quiet;
        // Counts that cannot be read are no proof of silence, and connections that are not known are none of their end.
        let open = self.open.unwrap_or_default();
        if self.packets.is_some() && still && open.all() == 0 {
            return Some(Ended::Unused);
        }
        let in_time_kept = self.patience.at_deadline == AtDeadline::Keep && open.in_time > 0;
        let late_kept = self.patience.late == LateClients::Keep && open.late > 0;
        let over = waited >= self.patience.deadline && !in_time_kept && !late_kept;
        over.then_some(Ended::Cut { open: self.open.map(Open::all) })
    }

    /// How it stands, for people.
    pub fn report(&self) -> DrainReport {
        let deadline_ms = u64::try_from(self.patience.deadline.as_millis()).unwrap_or(u64::MAX);
        DrainReport {
            answers_end: self.begun.1,
            deadline: Timestamp(self.begun.1.0.saturating_add(deadline_ms)),
            open: self.open.map(|open| open.all() as u64),
            late_clients: self.late.iter().copied().collect(),
            late_open: self.open.map(|open| open.late as u64),
            late: self.patience.late,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    fn patience(at_deadline: AtDeadline, late: LateClients) -> Patience {
        let second = Duration::from_secs(1);
        Patience { ttl: second, quiet: QUIET, deadline: 30 * second, at_deadline, late }
    }

    fn seen(packets: u64, open: &[(u8, u64)]) -> Seen {
        let open = open.iter().map(|(client, age)| (IpAddr::from([192, 0, 2, *client]), Duration::from_secs(*age)));
        Seen { packets: Some(packets), open: Some(open.collect()) }
    }

    /// Looks at these seconds after the TTL's end; the first end.
    fn run(at_deadline: AtDeadline, looks: &[(u64, Seen)]) -> (Option<(u64, Ended)>, DrainReport) {
        run_with(patience(at_deadline, LateClients::Cut), looks)
    }

    fn run_with(patience: Patience, looks: &[(u64, Seen)]) -> (Option<(u64, Ended)>, DrainReport) {
        let begun = Instant::now();
        let mut drain = Drain::begin(patience, (begun, Timestamp(5_000)), &looks[0].1);
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
            late_open: Some(0),
            late: LateClients::Cut,
        };
        assert_eq!(report, wanted);
    }

    #[test]
    fn those_who_come_late_and_those_who_came_in_time_are_kept_each_by_their_own_policy() {
        let in_time = [(0, seen(1, &[(1, 9)])), (15, seen(2, &[(1, 24)])), (30, seen(3, &[(1, 39)]))];
        let late = [(0, seen(1, &[])), (15, seen(2, &[(2, 5)])), (30, seen(3, &[(2, 20)]))];
        let cut = Some((30, Ended::Cut { open: Some(1) }));
        for (at_deadline, of_late, in_time_ends, late_ends) in [
            (AtDeadline::Cut, LateClients::Cut, cut, cut),
            (AtDeadline::Keep, LateClients::Cut, None, cut),
            (AtDeadline::Keep, LateClients::Forward, None, cut),
            (AtDeadline::Cut, LateClients::Keep, cut, None),
            (AtDeadline::Keep, LateClients::Keep, None, None),
        ] {
            let patience = patience(at_deadline, of_late);
            assert_eq!(run_with(patience, &in_time).0, in_time_ends, "{at_deadline:?} {of_late:?}");
            let (ended, report) = run_with(patience, &late);
            assert_eq!((ended, report.late_open), (late_ends, Some(1)), "{at_deadline:?} {of_late:?}");
        }
    }
}

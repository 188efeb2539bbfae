//! What became of the queries that reached the daemon.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// Framed by length in a connection.
    Tcp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Tcp];

    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// What became of a query; each has exactly one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Outcome {
            /// Every outcome, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Short fixed name: metric label and JSON key.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

outcomes! {
    /// Answered with records.
    Answered = "answered",
    /// The name is delegated: told who has it.
    Referral = "referral",
    /// The name exists, the type does not.
    NoData = "nodata",
    /// The service exists but has no backend at this moment.
    NoBackend = "no_backend",
    /// The service has no backend, and its policy is to say SERVFAIL then.
    ServFail = "servfail",
    /// The service is at zero, and its instance did not come in time or may not be started: its policy was said.
    Late = "late",
    /// The same query is being held already; there is one reply to both.
    Repeated = "repeated",
    /// No such name in our zone.
    NxDomain = "nxdomain",
    /// What a DNAME makes of the name is too long for one.
    YxDomain = "yxdomain",
    /// Asked for a cookie alone.
    Cookie = "cookie",
    /// Not our zone, not our class, or a zone transfer.
    Refused = "refused",
    /// A transfer of what is no zone of ours, or signed with a key that we do not have.
    NotAuth = "notauth",
    /// Not a well-formed query.
    FormErr = "formerr",
    /// Another opcode than QUERY.
    NotImp = "notimp",
    /// An EDNS version that we do not speak.
    BadVers = "badvers",
    /// The answer did not fit: TC set, to be asked again over TCP.
    Truncated = "truncated",
    /// From a client that is denied.
    Denied = "denied",
    /// Over a limit: told to ask again over TCP.
    Slipped = "slipped",
    /// Over a limit, and not answered.
    Limited = "limited",
    /// Told to ask again over TCP, for the answer would be too much to who has not proven its address.
    Unproven = "unproven",
    /// No reply: shorter than a header, or itself a reply.
    Dropped = "dropped",
}

/// Counts of one service over one transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Well-formed queries for a name of the service, of any type.
    pub queries: u64,
    /// Of these, answered with records.
    pub answered: u64,
}

/// Counts of one service. Those over UDP are in the kernel's counters too wherever the program runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// Over UDP.
    pub udp: TransportStats,
    /// Over TCP, which the kernel's program never counts.
    pub tcp: TransportStats,
}

#[derive(Debug, Default)]
struct ServiceCells {
    queries: [AtomicU64; 2],
    answered: [AtomicU64; 2],
}

/// Counters of the daemon's DNS; they outlive every [`Index`](super::Index).
#[derive(Debug, Default)]
pub struct DnsStats {
    outcomes: [[AtomicU64; 2]; Outcome::ALL.len()],
    services: RwLock<BTreeMap<u32, Arc<ServiceCells>>>,
}

impl DnsStats {
    /// Counts one query.
    pub fn record(&self, transport: Transport, outcome: Outcome, service: Option<u32>) {
        let way = transport as usize;
        self.outcomes[outcome as usize][way].fetch_add(1, Ordering::Relaxed);
        let Some(service) = service else { return };
        let cells = self.cells(service);
        cells.queries[way].fetch_add(1, Ordering::Relaxed);
        if outcome == Outcome::Answered {
            cells.answered[way].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queries with this outcome.
    #[must_use]
    pub fn outcome(&self, transport: Transport, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize][transport as usize].load(Ordering::Relaxed)
    }

    /// Queries of any outcome.
    #[must_use]
    pub fn total(&self, transport: Transport) -> u64 {
        Outcome::ALL.iter().map(|outcome| self.outcome(transport, *outcome)).sum()
    }

    /// Counts of the service with this index; zero where it was never asked for.
    #[must_use]
    pub fn service(&self, index: u32) -> ServiceStats {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.get(&index).map(|cells| cells.read()).unwrap_or_default()
    }

    /// Counts of all services that were asked for, by index.
    #[must_use]
    pub fn services(&self) -> BTreeMap<u32, ServiceStats> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.iter().map(|(index, cells)| (*index, cells.read())).collect()
    }

    /// The map is written once per service, so its lock is free on the way of a query.
    fn cells(&self, service: u32) -> Arc<ServiceCells> {
        if let Some(cells) = self.services.read().unwrap_or_else(PoisonError::into_inner).get(&service) {
            return Arc::clone(cells);
        }
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(service).or_default())
    }
}

impl ServiceCells {
    fn read(&self) -> ServiceStats {
        let of = |way: usize| TransportStats {
            queries: self.queries[way].load(Ordering::Relaxed),
            answered: self.answered[way].load(Ordering::Relaxed),
        };
        ServiceStats { udp: of(Transport::Udp as usize), tcp: of(Transport::Tcp as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_indices_dense() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, i);
            assert!(Outcome::ALL[i + 1..].iter().all(|other| other.label() != outcome.label()));
        }
    }

    #[test]
    fn only_records_count_as_answered() {
        let stats = DnsStats::default();
        stats.record(Transport::Udp, Outcome::Answered, Some(3));
        stats.record(Transport::Udp, Outcome::NoData, Some(3));
        stats.record(Transport::Tcp, Outcome::Refused, None);
        let expected = ServiceStats { udp: TransportStats { queries: 2, answered: 1 }, ..ServiceStats::default() };
        assert_eq!(stats.service(3), expected);
        assert_eq!(stats.services().len(), 1);
        assert_eq!((stats.total(Transport::Udp), stats.total(Transport::Tcp)), (2, 1));
    }
}

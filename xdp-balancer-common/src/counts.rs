//! Counters; all per CPU with one writer each, summed by the reader. And the connections that are open.

use crate::Verdict;

/// Counts of one service: a line of the cache and a half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceCount {
    /// Well-formed queries for a name of the service, whoever answers them.
    pub queries: u64,
    /// Of these, over IPv6.
    pub queries_v6: u64,
    /// Of these, from clients that are no sign of use; see [`QuietPrefix`](crate::QuietPrefix).
    pub quiet: u64,
    /// Of these, left without an answer because of a limit.
    pub limited: u64,
    /// Answers by what they said, the first [`Verdict`](crate::Verdict)s. A name that does not exist is none of the
    /// service's queries; its answer is counted where its zone's or its nearest ancestor's are.
    pub answers: [u64; ANSWER_VERDICTS],
    /// A word that other versions know nothing of.
    #[cfg(feature = "other-layout")]
    pub more: u64,
}

/// Verdicts that an answer can have (seven), and to spare; a power of two.
pub const ANSWER_VERDICTS: usize = 8;

impl ServiceCount {
    /// Queries that the program answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answers.iter().sum::<u64>() - self.answers[Verdict::NxDomain as usize]
    }

    /// Queries of which user space hears nothing.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.answered() + self.limited
    }

    /// Adds another CPU's.
    pub fn add(&mut self, other: &Self) {
        self.queries += other.queries;
        self.queries_v6 += other.queries_v6;
        self.quiet += other.quiet;
        self.limited += other.limited;
        for (sum, part) in self.answers.iter_mut().zip(other.answers) {
            *sum += part;
        }
    }
}

/// Counts of one instance, taken at the host's end of its interface. Only unicast IP packets that
/// are not neighbour discovery count, so a silent instance stands still.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Packets towards the instance.
    pub packets_to: u64,
    /// Bytes of frames towards the instance.
    pub bytes_to: u64,
    /// Packets from the instance.
    pub packets_from: u64,
    /// Bytes of frames from the instance.
    pub bytes_from: u64,
    /// TCP connections opened towards the instance (SYN without ACK), but for those of clients that are no sign of use.
    pub connections: u64,
    /// Packets towards the instance from those that are no sign of use.
    pub quiet_to: u64,
}

/// Names a TCP connection of an instance.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionKey {
    /// Index of the host's end of the instance's interface.
    pub interface: u32,
    /// Ports of client and instance, network order.
    pub ports: [u16; 2],
    /// The client's address as it stands in packets; IPv4 as IPv6 maps it.
    pub client: [u32; 4],
}

/// What is known of a connection that is open.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// When it was accepted, nanoseconds on the monotonic clock.
    pub opened_ns: u64,
    /// Whether the client and the instance have closed their halves; each written in one direction only, so that
    /// neither overwrites the other's.
    pub closed: [u32; 2],
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for ServiceCount {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for FlowCount {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for ConnectionKey {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Connection {}

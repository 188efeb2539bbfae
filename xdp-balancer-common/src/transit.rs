//! Replies in transit: where they are rewritten, and why one was or was not.

use crate::labelled::labelled;

/// Index of the counters of names that belong to no service but to their zone.
pub const ZONE_SERVICE: u16 = 4095;

/// Most records in the answer section of a reply that is rewritten.
pub const MAX_TRANSIT_RECORDS: usize = 32;

/// Where replies are rewritten, as bits of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransitHook {
    /// As they come in, behind the XDP program.
    Ingress,
    /// As they go out, in a classifier.
    Egress,
}

impl TransitHook {
    /// Its bit.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::Ingress => 1,
            Self::Egress => 2,
        }
    }
}

/// Beside the hooks' bits of an interface: its `clsact` qdisc was made for our filter, so it goes with it.
pub const OWN_CLSACT: u32 = 1 << 2;

labelled! {
    /// What became of a packet where replies are rewritten; each has exactly one, and all but the first leave it as it
    /// was.
    pub enum TransitVerdict {
        /// At least one address was replaced.
        Rewritten = "rewritten",
        /// A reply on an interface where they are not rewritten.
        Elsewhere = "elsewhere",
        /// No UDP datagram from port 53 over IPv4 without options or IPv6 without extension headers.
        NotReply = "not_reply",
        /// A fragment of a datagram.
        Fragment = "fragment",
        /// Longer than 2047 bytes, or several datagrams in one.
        TooLong = "too_long",
        /// Shorter than its headers say, or the IPv6 checksum is missing.
        BadLength = "bad_length",
        /// Not a response to one query with RCODE 0.
        OddHeader = "odd_header",
        /// Truncated (TC): the client asks again over TCP.
        Truncated = "truncated",
        /// Without records in the answer section.
        NoAnswer = "no_answer",
        /// With more than 32 records in the answer section.
        TooMany = "too_many",
        /// Signed (RRSIG in the answer section), or validated (AD).
        Signed = "signed",
        /// A name with more than 40 labels and pointers, a pointer that does not lead back, or no end.
        OddName = "odd_name",
        /// A record that does not end within the datagram, or an address of another length than its type's.
        OddRecord = "odd_record",
        /// No address of a name of a service of ours.
        NotOurs = "not_ours",
        /// The service has no instance for an address of this type.
        NoInstance = "no_instance",
        /// A table was missing or inconsistent, or the packet could not be written; should not happen.
        Broken = "broken",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_indices_dense() {
        for (i, verdict) in TransitVerdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, i);
            assert!(TransitVerdict::ALL[i + 1..].iter().all(|other| other.label() != verdict.label()));
        }
    }
}

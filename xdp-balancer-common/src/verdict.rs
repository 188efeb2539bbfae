//! Why the program did what it did with a packet. The list stands here alone: map index, metric
//! label, `--json` name and documentation come from it.

use crate::labelled::labelled;

/// What the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The frame goes on into the stack, unchanged.
    Pass,
    /// The frame was turned into its answer and goes back out.
    Answer,
    /// The frame ends here.
    Drop,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal => $action:ident,)+) => {
        labelled! {
            /// The reason for a packet's treatment; each packet has exactly one.
            pub enum Verdict { $($(#[doc = $doc])+ $name = $label,)+ }
        }

        impl Verdict {
            /// What the kernel is told.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action,)+ }
            }
        }
    };
}

verdicts! {
    /// Answered from the tables.
    Answered = "answered" => Answer,
    /// Answered that the name has nothing of this type.
    NoData = "nodata" => Answer,
    /// Answered that there is no such name.
    NxDomain = "nxdomain" => Answer,
    /// Over a limit: told to ask again over TCP.
    Slipped = "slipped" => Answer,
    /// Told to ask again over TCP, for the answer would be too much to who has not proven its address.
    Unproven = "unproven" => Answer,
    /// From a client that is denied: told so.
    Refused = "refused" => Answer,
    /// Answered from stale tables, with TTLs made shorter.
    Aged = "aged" => Answer,
    /// Neither IPv4 nor IPv6, behind at most two VLAN tags (ARP and the rest).
    NotIp = "not_ip" => Pass,
    /// Shorter than its headers say, or continued in further buffers.
    ShortFrame = "short_frame" => Pass,
    /// IPv4 with options.
    IpOptions = "ip_options" => Pass,
    /// A fragment of a datagram.
    Fragment = "fragment" => Pass,
    /// IPv6 with extension headers.
    ExtensionHeader = "extension_header" => Pass,
    /// Not UDP.
    NotUdp = "not_udp" => Pass,
    /// UDP to another port than 53.
    NotDns = "not_dns" => Pass,
    /// UDP from port 53 to another: a reply that passes through, which may be rewritten where transit is on.
    Reply = "reply" => Pass,
    /// To an address that is not configured as ours.
    NotLocal = "not_local" => Pass,
    /// From an address or port that nothing may be sent to (multicast, unspecified, loopback, port 0).
    OddSource = "odd_source" => Pass,
    /// Longer by the UDP header than by the IP header, or the IPv6 checksum is missing.
    BadLength = "bad_length" => Pass,
    /// A DNS message that is no query (QR set).
    NotQuery = "not_query" => Pass,
    /// Another opcode than QUERY, or flags that a query does not carry.
    OddHeader = "odd_header" => Pass,
    /// Not exactly one question and at most one additional record.
    OddCounts = "odd_counts" => Pass,
    /// A name with a compression pointer, an unknown label type, or no end.
    OddName = "odd_name" => Pass,
    /// Another class than IN.
    OddClass = "odd_class" => Pass,
    /// Bytes behind the question that are not one well-formed OPT of version 0.
    OddAdditional = "odd_additional" => Pass,
    /// With a DNS cookie of a length that cannot be, or with several.
    OddCookie = "odd_cookie" => Pass,
    /// With an EDNS client subnet, which the daemon looks at.
    ClientSubnet = "client_subnet" => Pass,
    /// Neither the name nor one above it is in the tables.
    UnknownName = "unknown_name" => Pass,
    /// The tables have the name or one above it, and leave the rest to the daemon.
    UnknownType = "unknown_type" => Pass,
    /// The service has nothing published.
    NoBackend = "no_backend" => Pass,
    /// The tables are stale, and not answered from.
    Stale = "stale" => Pass,
    /// The answer does not fit what the client can take.
    TooLarge = "too_large" => Pass,
    /// The frame could not be resized for its answer.
    NoRoom = "no_room" => Pass,
    /// A table was missing or inconsistent; should not happen.
    Broken = "broken" => Pass,
    /// From a client that is denied.
    Denied = "denied" => Drop,
    /// Over the limit of its client's prefix.
    Limited = "limited" => Drop,
    /// Over the limit of its service, or of everything.
    Ceiling = "ceiling" => Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_indices_dense() {
        for (i, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, i);
            // What services count by what it said.
            assert_eq!(verdict.action() == Action::Answer, i < 7);
            assert!(Verdict::ALL[i + 1..].iter().all(|other| other.label() != verdict.label()));
        }
    }
}

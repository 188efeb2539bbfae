//! One memory for all that the program reads: tables of names and what they lead to (sets of types, RRsets, rings,
//! answers, ends of long names). What lies in it is found by the number of its first grain and is as long as it needs
//! to be. Behind the grains lies the [`Root`], where the program begins.
//!
//! Nothing in it changes while a program can reach it, but for the root, each word of which stands alone, and the
//! [`RingWord`] of an RRset, which changes in one store.

use crate::{Capture, Guard, Settings, TableHead};

/// Bytes that are handed out together; everything in the pool begins at a multiple of it.
pub const GRAIN: usize = 16;
/// Grains of the pool. The first [`RESERVED_GRAINS`] are never handed out: number 0 says "none", in the others lie
/// answers without records.
pub const POOL_GRAINS: u32 = 1 << 21;
/// Bytes in grains; a power of two, so that the program bounds an offset with a mask.
pub const POOL_BYTES: usize = POOL_GRAINS as usize * GRAIN;
/// Bytes behind the last grain, so that what begins at any grain is inside: more than the longest thing.
pub const POOL_MARGIN: usize = 8192;

/// Where the program begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Moves all that follows.
    #[cfg(feature = "other-layout")]
    pub moved: [u64; 8],
    /// Grain of the table of names in force; changes in one store.
    pub table: u64,
    /// The wall clock in seconds, as user space says.
    pub clock: u64,
    /// When the daemon was last there to keep the tables right, nanoseconds on the monotonic clock.
    pub heartbeat: u64,
    /// Limits, lists and what becomes of stale tables.
    pub guard: Guard,
    /// What to do besides.
    pub settings: Settings,
    /// Which queries are captured.
    pub capture: Capture,
    /// What the programs say, by [`LogLevel::to_word`](crate::LogLevel::to_word).
    pub log: u64,
}

/// Grains that are never handed out.
pub const RESERVED_GRAINS: u32 = 4;
/// Offset in the pool of the answer to who is over a limit: truncated, so that it asks again over TCP.
pub const SLIPPED_AT: usize = GRAIN;
/// Offset of the answer where the true one would be too much for who has not proven its address.
pub const UNPROVEN_AT: usize = 2 * GRAIN;
/// Offset of the answer to who is denied.
pub const REFUSED_AT: usize = 3 * GRAIN;

/// Offset of the [`Root`] in the pool.
pub const ROOT_AT: usize = POOL_BYTES + POOL_MARGIN;

/// The pool, as the map's one element.
#[repr(C, align(8))]
pub struct Pool(pub [u8; ROOT_AT + size_of::<Root>()]);

/// Longest run of answer records (answer, authority and additional sections, without OPT). With header and question it
/// fits an EDNS payload of 1232 bytes while the name has 20 bytes at most; a longer one is found out in time.
pub const ANSWER_BYTES: usize = 1200;

/// Types that one name can hold.
pub const TYPE_SLOTS: usize = 8;

/// Grains that so many bytes take.
#[must_use]
pub const fn grains_of(bytes: usize) -> u32 {
    bytes.div_ceil(GRAIN) as u32
}

/// One rendered answer: this, then `len` bytes, which are everything that follows the question.
///
/// Records name their owner with a compression pointer to the question (0xC00C), so the same bytes
/// serve every letter case that a client may ask in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerHead {
    /// Bytes of records.
    pub len: u16,
    /// One's complement sum of those bytes as 16-bit words in memory order, from an even offset
    /// (RFC 1071): the program swaps its halves where the question's length is odd.
    pub sum: u16,
    /// Bits to set in the header's second word, network order: AA and RCODE.
    pub flags: u16,
    /// The same sum of the three counts.
    pub counts: u16,
    /// ANCOUNT, network order.
    pub ancount: u16,
    /// NSCOUNT, network order.
    pub nscount: u16,
    /// ARCOUNT without an OPT, network order.
    pub arcount: u16,
    /// The [`Verdict`](crate::Verdict) that this answer is.
    pub verdict: u16,
}

/// What a name holds; then `types` of [`TypeSlot`]. Names that hold the same and end alike share one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSet {
    /// Index of the service's counters.
    pub service: u16,
    /// Number of types that follow, at most [`TYPE_SLOTS`].
    pub types: u8,
    /// What `below` is: one of [`TypeSet::BELOW_USER_SPACE`] and the like.
    pub below_kind: u8,
    /// The rest of a name that its slot does not hold, in the pool, zero after its end; zero: none.
    pub tail: u32,
    /// The RRset that all other types have, which says that there are none; 0: user space answers.
    pub others: u32,
    /// What names below this one have that do not exist and have no nearer ancestor.
    pub below: u32,
}

impl TypeSet {
    /// User space answers.
    pub const BELOW_USER_SPACE: u8 = 0;
    /// `below` is the RRset that says that they do not exist.
    pub const BELOW_DENIED: u8 = 1;
    /// `below` is the set of a wildcard.
    pub const BELOW_WILDCARD: u8 = 2;
}

/// An RRset of a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSlot {
    /// QTYPE, network order as in the question.
    pub qtype: u16,
    /// Explicit padding, zero.
    pub _pad: u16,
    /// Its [`Rrset`].
    pub rrset: u32,
}

/// An RRset: what it stands for now, and where each CPU's round robin stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rrset {
    /// What it stands for now.
    pub word: RingWord,
    /// Index of its position in `CURSORS`.
    pub cursor: u32,
    /// Explicit padding, zero.
    pub _pad: u32,
}

/// How an answer is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// There is one.
    Single,
    /// Each in its turn, on each CPU.
    RoundRobin,
    /// As the client's address says.
    Client,
}

/// What an RRset stands for, in one 64-bit word so that it changes in one store: bits 0–31 the answer
/// or the ring (as many `u32`, each an answer), bits 32–47 the ring's length, bits 48–49 the choice.
/// Zero: nothing is published.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingWord(pub u64);

impl RingWord {
    /// Nothing published.
    pub const EMPTY: Self = Self(0);

    const SINGLE: u64 = 1;
    const ROUND_ROBIN: u64 = 2;
    const CLIENT: u64 = 3;
    const CHOICE_SHIFT: u32 = 48;

    /// The one answer.
    #[must_use]
    pub const fn single(answer: u32) -> Self {
        Self(answer as u64 | 1 << 32 | Self::SINGLE << Self::CHOICE_SHIFT)
    }

    /// A ring of `len` turns.
    #[must_use]
    pub const fn ring(first: u32, len: u16, by_client: bool) -> Self {
        let choice = if by_client { Self::CLIENT } else { Self::ROUND_ROBIN };
        Self(first as u64 | (len as u64) << 32 | choice << Self::CHOICE_SHIFT)
    }

    /// The answer or the ring.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> u32 {
        self.0 as u32
    }

    /// Turns of the ring.
    #[inline(always)]
    #[must_use]
    pub const fn len(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// How one is chosen; `None` where nothing is published.
    #[inline(always)]
    #[must_use]
    pub const fn choice(self) -> Option<Choice> {
        match self.0 >> Self::CHOICE_SHIFT {
            Self::SINGLE => Some(Choice::Single),
            Self::ROUND_ROBIN => Some(Choice::RoundRobin),
            Self::CLIENT => Some(Choice::Client),
            _ => None,
        }
    }

    /// True where nothing is published.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What lies in the pool as bytes, as user space writes and reads it.
pub trait Bytes: Sized {
    /// As many as it takes.
    type Array: AsRef<[u8]>;

    /// As it lies in memory.
    fn to_bytes(self) -> Self::Array;

    /// Back again; `None` where there are too few.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Fields in their order, all of them, without padding between.
macro_rules! bytes {
    ($name:ident { $($field:ident: $kind:ty),+ }) => {
        impl Bytes for $name {
            type Array = [u8; size_of::<$name>()];

            fn to_bytes(self) -> Self::Array {
                let mut bytes = [0; size_of::<$name>()];
                let mut at = 0;
                $(
                    let field = self.$field.to_ne_bytes();
                    bytes[at..at + field.len()].copy_from_slice(&field);
                    at += field.len();
                )+
                debug_assert!(at <= bytes.len());
                bytes
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let mut value = Self::default();
                let mut at = 0;
                $(
                    let mut field = [0; size_of::<$kind>()];
                    field.copy_from_slice(bytes.get(at..at + size_of::<$kind>())?);
                    value.$field = <$kind>::from_ne_bytes(field);
                    at += size_of::<$kind>();
                )+
                let _ = at;
                Some(value)
            }
        }
    };
}

bytes!(TableHead { pilot_mask: u32, last_slot: u32, slots_at: u32, slot_shift: u32, secret: u64 });
bytes!(AnswerHead {
    len: u16,
    sum: u16,
    flags: u16,
    counts: u16,
    ancount: u16,
    nscount: u16,
    arcount: u16,
    verdict: u16
});
bytes!(TypeSet { service: u16, types: u8, below_kind: u8, tail: u32, others: u32, below: u32 });
bytes!(TypeSlot { qtype: u16, _pad: u16, rrset: u32 });
bytes!(Rrset { word: RingWord, cursor: u32 });

impl RingWord {
    const fn to_ne_bytes(self) -> [u8; 8] {
        self.0.to_ne_bytes()
    }

    const fn from_ne_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_what_it_was_made_of() {
        let words = [RingWord::single(7), RingWord::ring(POOL_GRAINS - 1, 1024, true), RingWord::ring(3, 2, false)];
        let parts = words.map(|word| (word.first(), word.len(), word.choice()));
        let wanted = [
            (7, 1, Some(Choice::Single)),
            (POOL_GRAINS - 1, 1024, Some(Choice::Client)),
            (3, 2, Some(Choice::RoundRobin)),
        ];
        assert_eq!(parts, wanted);
        assert!(RingWord::EMPTY.is_empty() && RingWord::EMPTY.choice().is_none());
    }

    #[test]
    fn bytes_and_back() {
        let head = AnswerHead { len: 1, sum: 2, flags: 3, counts: 4, ancount: 5, nscount: 6, arcount: 7, verdict: 8 };
        let table = TableHead::of(1000, 5, 7);
        assert_eq!(TableHead::from_bytes(&table.to_bytes()), Some(table));
        assert_eq!(AnswerHead::from_bytes(&head.to_bytes()), Some(head));
        let set = TypeSet { service: 1, types: 2, below_kind: 3, tail: 6, others: 4, below: 5 };
        assert_eq!(TypeSet::from_bytes(&set.to_bytes()), Some(set));
        let slot = TypeSlot { qtype: 1, _pad: 0, rrset: 2 };
        assert_eq!(TypeSlot::from_bytes(&slot.to_bytes()), Some(slot));
        let rrset = Rrset { word: RingWord(1 << 50 | 7), cursor: 2, _pad: 0 };
        assert_eq!(Rrset::from_bytes(&rrset.to_bytes()), Some(rrset));
        assert_eq!(Rrset::from_bytes(&[0; 11]), None);
    }

    #[test]
    fn what_begins_at_the_last_grain_ends_inside() {
        let longest = size_of::<AnswerHead>() + ANSWER_BYTES;
        assert!(longest.max(usize::from(crate::CLIENT_TURNS) * 4) <= POOL_MARGIN);
    }
}

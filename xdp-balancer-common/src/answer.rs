//! Pre-rendered answers and the word that says which of them are in force.

/// Longest run of answer records (answer, authority and additional sections, without OPT) in a slot.
pub const ANSWER_BYTES: usize = 496;

/// One rendered variant of an RRset's answer: everything that follows the question.
///
/// Records name their owner with a compression pointer to the question (0xC00C), so the same bytes
/// serve every letter case that a client may ask in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes used of `bytes`.
    pub len: u16,
    /// One's complement sum of those bytes as 16-bit words in memory order, from an even offset
    /// (RFC 1071): the program swaps its halves where the question's length is odd.
    pub sum: u16,
    /// Bits to set in the header's second word, network order: AA and RCODE.
    pub flags: u16,
    /// ANCOUNT, network order.
    pub ancount: u16,
    /// NSCOUNT, network order.
    pub nscount: u16,
    /// Explicit padding, zero.
    pub _pad: [u16; 3],
    /// The records in wire form.
    pub bytes: [u8; ANSWER_BYTES],
}

impl Answer {
    /// An empty slot.
    pub const ZERO: Self =
        Self { len: 0, sum: 0, flags: 0, ancount: 0, nscount: 0, _pad: [0; 3], bytes: [0; ANSWER_BYTES] };
}

/// What an rrset id stands for at this moment, in one 64-bit word so that it changes in one store:
/// bits 0–31 the first answer slot, bits 32–47 the ring's length. Zero length: nothing published.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingWord(pub u64);

impl RingWord {
    /// Nothing published.
    pub const EMPTY: Self = Self(0);

    /// A ring of `len` slots from `first`.
    #[inline(always)]
    #[must_use]
    pub const fn new(first: u32, len: u16) -> Self {
        Self(first as u64 | (len as u64) << 32)
    }

    /// First answer slot.
    #[inline(always)]
    #[must_use]
    pub const fn first(self) -> u32 {
        self.0 as u32
    }

    /// Slots in the ring.
    #[inline(always)]
    #[must_use]
    pub const fn len(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// True where nothing is published.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Answer {}

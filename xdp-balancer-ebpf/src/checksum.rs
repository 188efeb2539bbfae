//! One's complement sums (RFC 1071), updated incrementally (RFC 1624).
//!
//! Words are taken as they lie in memory: the sum of byte-swapped words is the byte-swapped sum, so
//! nothing is converted. For the same reason a run of bytes at an odd offset counts with its halves
//! exchanged.

/// A sum that is not folded yet; 64 bits hold far more words than a frame has.
#[derive(Clone, Copy)]
pub struct Sum(u64);

impl Sum {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum that a checksum field stands for.
    #[inline(always)]
    pub fn of_checksum(field: u16) -> Self {
        Self(u64::from(!field))
    }

    /// Adds one word.
    #[inline(always)]
    pub fn add(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds the four words of a chunk.
    #[inline(always)]
    pub fn add_chunk(self, chunk: u64) -> Self {
        Self(self.0 + (chunk & 0xffff_ffff) + (chunk >> 32))
    }

    /// Exchanges one word for another.
    #[inline(always)]
    pub fn replace(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }
}

/// Folds to 16 bits.
#[inline(always)]
pub fn fold(sum: Sum) -> u16 {
    let sum = (sum.0 & 0xffff_ffff) + (sum.0 >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of a run of bytes as it counts from an even or an odd offset.
#[inline(always)]
pub fn at_offset(sum: u16, odd: bool) -> u16 {
    if odd { sum.swap_bytes() } else { sum }
}

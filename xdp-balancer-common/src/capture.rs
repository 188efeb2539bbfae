//! Queries that are captured: which ones, and in what form user space gets them.
//!
//! The program that answers hands a query that is chosen over to another one, which does the same as it and says what
//! it did. The choice is by a hash of the packet (RFC 5475, 6.2): it needs no state, and a query that is sent again is
//! chosen again.

use crate::{QuietPrefix, Rate, Verdict};

/// Most bytes of a frame that are captured; the rest is counted.
pub const CAPTURE_BYTES: usize = 2048;
/// Most queries for which one that is chosen may stand.
pub const CAPTURE_ONE_IN: u32 = 1 << 20;
/// Bytes of a filter's name, and a power of two.
pub const CAPTURE_NAME: usize = 256;

/// What the program that answers looks at; each word changes in one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// See [`Capture::rule_of`]; 0: nothing is captured.
    pub rule: u64,
    /// Until when, nanoseconds on the monotonic clock: whoever captures goes on saying so.
    pub until: u64,
}

impl Capture {
    /// The rule that chooses one query in so many, at most [`CAPTURE_ONE_IN`]: bits 0–31 the largest hash of those
    /// chosen, bits 32–63 what makes the choice another one each time.
    #[must_use]
    pub const fn rule_of(one_in: u32, salt: u32) -> u64 {
        let one_in = if one_in == 0 { 1 } else { one_in };
        (salt as u64) << 32 | (u32::MAX / one_in) as u64
    }

    /// Whether a rule that is not 0 chooses a query, by its UDP checksum and ID as they stand in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn chooses(rule: u64, word: u32) -> bool {
        (word ^ (rule >> 32) as u32).wrapping_mul(0x9E37_79B1) <= rule as u32
    }
}

/// Which of the chosen queries are told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureFilter {
    /// A bit for each [`Verdict`].
    pub verdicts: u64,
    /// Most in a second, of all CPUs.
    pub rate: Rate,
    /// Where they come from.
    pub client: QuietPrefix,
    /// Bytes of `name`; 0: any name.
    pub name_len: u64,
    /// The name in wire form and lower case, which they ask for or for one below it.
    pub name: [u8; CAPTURE_NAME],
}

const _: () = assert!(Verdict::ALL.len() <= 64);

/// What became of the chosen queries, as indices of `CAPTURE_COUNTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CaptureCount {
    /// Told.
    Told,
    /// Not told, for there are too many.
    OverRate,
    /// Not told, for nobody reads fast enough.
    Lost,
}

impl CaptureCount {
    /// How many there are.
    pub const LEN: usize = 3;
}

/// A captured query: this, then the bytes of the query that were kept, then those of the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// When the query was met, nanoseconds on the monotonic clock.
    pub received: u64,
    /// When the program was done with it.
    pub done: u64,
    /// Its [`Verdict`].
    pub verdict: u32,
    /// Index of the interface that it came in on.
    pub interface: u32,
    /// Bytes of the query's frame.
    pub query_len: u32,
    /// How many of them are here, at most [`CAPTURE_BYTES`].
    pub query_kept: u32,
    /// Bytes of the answer's frame; 0: not answered here.
    pub answer_len: u32,
    /// How many of them are here.
    pub answer_kept: u32,
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for CaptureFilter {}
#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for Captured {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_chosen_as_asked_for() {
        for (one_in, salt) in [(1, 5), (2, 0), (100, 7), (1000, 0xdead_beef)] {
            let rule = Capture::rule_of(one_in, salt);
            // IDs in turn, and a checksum that falls as they rise; then any.
            let chosen = (0..1_u32 << 20)
                .filter(|id| Capture::chooses(rule, id << 16 | (0xffff_u32.wrapping_sub(*id) & 0xffff)))
                .count();
            let mixed = |i: u32| i.wrapping_mul(0x85EB_CA6B) ^ i.rotate_left(13);
            let others = (0..1_u32 << 20).filter(|i| Capture::chooses(rule, mixed(*i))).count();
            for chosen in [chosen, others] {
                let expected = (1 << 20) / one_in as usize;
                assert!(chosen > expected / 2 && chosen < expected * 2 || one_in == 1, "{chosen} for 1 in {one_in}");
            }
            assert!(one_in > 1 || chosen == 1 << 20);
        }
        assert_ne!(Capture::rule_of(CAPTURE_ONE_IN, 0), 0, "a rule is never 0");
    }
}

//! Domain names in the tables: exact, case-blind, up to 255 bytes.

/// Longest name in wire form, root label included (RFC 1035, 2.3.4).
pub const MAX_NAME_BYTES: usize = 255;
/// Eight-byte chunks that cover any name.
pub const NAME_CHUNKS: usize = 32;

const LOWER: u64 = 0x2020_2020_2020_2020;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
/// Even; has nothing to do with the multiplier.
const STEP: u64 = 0xD1B5_4A32_D192_ED02;

/// A name as the tables hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// Length in wire form, root label included.
    pub wire_len: u32,
    /// The name itself in lower case, eight bytes in memory order each, zero after its end; verified on
    /// every hit.
    pub text: [u64; NAME_CHUNKS],
}

impl NameEntry {
    /// Builds an entry from a name in wire form (labels and root, no pointers, any letter case).
    /// `None` where the form is broken, longer than 255 bytes, or has a zero byte inside a label,
    /// which the program's end-of-name search could not tell from the root.
    #[must_use]
    pub fn new(wire: &[u8]) -> Option<Self> {
        if wire.len() > MAX_NAME_BYTES || !well_formed(wire) {
            return None;
        }
        let mut text = [0_u64; NAME_CHUNKS];
        let mut at = 0;
        while at < wire.len() {
            let mut chunk = text[at / 8].to_ne_bytes();
            // Lengths of labels are below all letters.
            chunk[at % 8] = wire[at].to_ascii_lowercase();
            text[at / 8] = u64::from_ne_bytes(chunk);
            at += 1;
        }
        Some(Self { wire_len: wire.len() as u32, text })
    }

    /// Its bytes.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        self.text.iter().flat_map(|chunk| chunk.to_ne_bytes()).take(self.wire_len as usize)
    }

    /// The hash of this name under `secret`: the same steps as the program takes.
    #[must_use]
    pub fn hash(&self, secret: u64) -> u64 {
        let chunks = (self.wire_len as usize).div_ceil(8);
        let mut state = NameHash::new(secret);
        let mut i = 0;
        while i < chunks {
            // The last chunk is hashed without the bytes behind the name, as the program masks them.
            let used = (self.wire_len as usize - i * 8).min(8);
            state = state.add(self.text[i], used as u32);
            i += 1;
        }
        state.finish(self.wire_len)
    }
}

/// True for labels that end in the root exactly at the slice's end, without a zero byte inside one.
fn well_formed(wire: &[u8]) -> bool {
    let mut at = 0;
    while at < wire.len() {
        let len = wire[at] as usize;
        if len == 0 {
            return at + 1 == wire.len();
        }
        if len > 63 || at + 1 + len > wire.len() || wire[at + 1..at + 1 + len].contains(&0) {
            return false;
        }
        at += 1 + len;
    }
    false
}

/// A hash of a name that is being made. Each chunk is multiplied by a factor of its own and added: the
/// multiplications do not wait for each other, as those of a chain would.
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    sum: u64,
    factor: u64,
    secret: u64,
}

impl NameHash {
    /// The beginning.
    #[inline(always)]
    #[must_use]
    pub const fn new(secret: u64) -> Self {
        Self { sum: 0, factor: MULTIPLIER, secret }
    }

    /// Takes in eight bytes of the name (memory order), of which the first `used` (1–8) belong to it.
    /// Folding by OR is not exact and need not be: the entry found is verified byte for byte.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, chunk: u64, used: u32) -> Self {
        let product = ((chunk | LOWER) & keep_bytes(used) ^ self.secret).wrapping_mul(self.factor);
        // Odd factors lose nothing; an even step keeps them odd.
        let factor = self.factor.wrapping_add(STEP);
        Self { sum: self.sum.wrapping_add(product), factor, secret: self.secret }
    }

    /// The hash of a name of this length. High bits come down first, for so far no low bit knows of them.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self, wire_len: u32) -> u64 {
        let sum = self.sum ^ wire_len as u64;
        let mixed = (sum ^ (sum >> 32)).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 29)
    }
}

/// Whether eight bytes of a question are the stored ones, letters in either case. Exact: only where a
/// stored byte is a letter may the bit of the case differ.
#[inline(always)]
#[must_use]
pub const fn same_chunk(asked: u64, stored: u64) -> bool {
    let differs = asked ^ stored;
    // Most questions are in lower case.
    differs == 0 || differs & !case_bits(stored) == 0
}

/// 0x20 at each lower-case letter.
#[inline(always)]
const fn case_bits(chunk: u64) -> u64 {
    // The top bit of a byte becomes one from `a` on, and from behind `z` on; without carry into the next.
    let low = chunk & 0x7f7f_7f7f_7f7f_7f7f;
    let from_a = low + 0x1f1f_1f1f_1f1f_1f1f;
    let behind_z = low + 0x0505_0505_0505_0505;
    (from_a & !behind_z & !chunk & 0x8080_8080_8080_8080) >> 2
}

/// Mask of the first `n` (1–8) bytes of a chunk, in memory order.
#[inline(always)]
#[must_use]
pub const fn keep_bytes(n: u32) -> u64 {
    // The shift is at most 56 for the values allowed; the mask keeps it defined for all.
    let unused = (64 - 8 * n) & 63;
    if cfg!(target_endian = "little") { u64::MAX >> unused } else { u64::MAX << unused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(wire: &[u8]) -> Option<NameEntry> {
        NameEntry::new(wire)
    }

    #[test]
    fn case_is_folded_at_letters_only() {
        let upper = entry(b"\x03WwW\x04a[1z\0");
        let lower = entry(b"\x03www\x04a[1z\0");
        assert_eq!(upper, lower);
        assert_ne!(entry(b"\x01[\0"), entry(b"\x01{\0"));
    }

    #[test]
    fn a_letter_is_the_same_in_either_case_and_nothing_else_is() {
        for asked in 0..=u8::MAX {
            for stored in (0..=u8::MAX).filter(|stored| !stored.is_ascii_uppercase()) {
                for at in 0..8 {
                    let (mut left, mut right) = (*b"\x03aZ[{\xff\0q", *b"\x03az[{\xff\0q");
                    (left[at], right[at]) = (asked, stored);
                    let same = same_chunk(u64::from_ne_bytes(left), u64::from_ne_bytes(right));
                    assert_eq!(same, asked.eq_ignore_ascii_case(&stored), "{asked} {stored} {at}");
                }
            }
        }
    }

    #[test]
    fn broken_names_are_refused() {
        for wire in [&b""[..], b"\x03ww\0", b"\x03www", b"\0\0", b"\xc0\x0c", b"\x02a\0\0", b"\x40a\0"] {
            assert!(entry(wire).is_none(), "{wire:?}");
        }
        assert!(entry(b"\0").is_some());
    }

    #[test]
    fn hashes_of_similar_names_spread() {
        // Each bit is set in about half of them, whichever byte of which chunk it is that changes.
        let mut counts = [0_u32; 64];
        let mut total = 0;
        for at in 1..29 {
            for letter in b'a'..=b'z' {
                let mut wire = *b"\x1caaaaaaaaaaaaaaaaaaaaaaaaaaaa\0";
                wire[at] = letter;
                let Some(entry) = entry(&wire) else { panic!("well-formed") };
                let hash = entry.hash(0x1234_5678_9abc_def1);
                counts.iter_mut().enumerate().for_each(|(bit, count)| *count += (hash >> bit & 1) as u32);
                total += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > total * 4 / 10 && *count < total * 6 / 10), "{counts:?} of {total}");
    }

    #[test]
    fn hash_depends_on_name_length_and_secret() {
        let (a, b) = (entry(b"\x01a\0"), entry(b"\x01b\0"));
        let (Some(a), Some(b)) = (a, b) else { panic!("well-formed names") };
        assert_ne!(a.hash(1), b.hash(1));
        assert_ne!(a.hash(1), a.hash(2));
    }
}

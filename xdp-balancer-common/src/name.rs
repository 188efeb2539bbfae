//! Domain names in the tables: exact, case-blind, up to 255 bytes.

/// Longest name in wire form, root label included (RFC 1035, 2.3.4).
pub const MAX_NAME_BYTES: usize = 255;
/// Eight-byte chunks that cover any name.
pub const NAME_CHUNKS: usize = 32;
/// Types that one name can hold.
pub const TYPE_SLOTS: usize = 8;

const LOWER: u64 = 0x2020_2020_2020_2020;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Eight bytes of a stored name. A query's chunk `q` matches where `(q | case) == text`: exact, for
/// `case` holds 0x20 only where the stored byte is a letter.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameChunk {
    /// The lower-case bytes in memory order, zero after the name's end.
    pub text: u64,
    /// 0x20 at each letter.
    pub case: u64,
}

/// An RRset of a name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeSlot {
    /// QTYPE in host order; 0 marks an unused slot.
    pub qtype: u16,
    /// Explicit padding, zero.
    pub _pad: u16,
    /// Index into `RRSETS`.
    pub rrset: u32,
}

/// A name of the table, keyed by its hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// Length in wire form, root label included.
    pub wire_len: u32,
    /// Index of the service's counters.
    pub service: u32,
    /// What it holds.
    pub types: [TypeSlot; TYPE_SLOTS],
    /// The name itself; verified on every hit.
    pub chunks: [NameChunk; NAME_CHUNKS],
}

impl NameEntry {
    /// Builds an entry from a name in wire form (labels and root, no pointers, any letter case).
    /// `None` where the form is broken, longer than 255 bytes, or has a zero byte inside a label,
    /// which the program's end-of-name search could not tell from the root.
    #[must_use]
    pub fn new(wire: &[u8], service: u32, types: [TypeSlot; TYPE_SLOTS]) -> Option<Self> {
        if wire.len() > MAX_NAME_BYTES || !well_formed(wire) {
            return None;
        }
        let mut chunks = [NameChunk::default(); NAME_CHUNKS];
        let mut at = 0;
        let mut label_end = 0;
        while at < wire.len() {
            let is_length = at == label_end;
            if is_length {
                label_end = at + 1 + wire[at] as usize;
            }
            let letter = !is_length && wire[at].is_ascii_alphabetic();
            let (chunk, byte) = (at / 8, at % 8);
            let mut text = chunks[chunk].text.to_ne_bytes();
            let mut case = chunks[chunk].case.to_ne_bytes();
            text[byte] = if letter { wire[at] | 0x20 } else { wire[at] };
            case[byte] = if letter { 0x20 } else { 0 };
            chunks[chunk] = NameChunk { text: u64::from_ne_bytes(text), case: u64::from_ne_bytes(case) };
            at += 1;
        }
        Some(Self { wire_len: wire.len() as u32, service, types, chunks })
    }

    /// The table key of this name under `secret`: the same steps as the program takes.
    #[must_use]
    pub fn hash(&self, secret: u64) -> u64 {
        let chunks = (self.wire_len as usize).div_ceil(8);
        let mut state = secret;
        let mut i = 0;
        while i < chunks {
            // The last chunk is hashed without the bytes behind the name, as the program masks them.
            let used = (self.wire_len as usize - i * 8).min(8);
            state = hash_step(state, self.chunks[i].text, used as u32);
            i += 1;
        }
        hash_finish(state, self.wire_len)
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

/// Mixes eight bytes of a name (memory order) into the hash, of which the first `used` (1–8) belong to
/// the name. Folding by OR is not exact and need not be: the entry found is verified byte for byte.
#[inline(always)]
#[must_use]
pub const fn hash_step(state: u64, chunk: u64, used: u32) -> u64 {
    let mixed = (state ^ ((chunk | LOWER) & keep_bytes(used))).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 32)
}

/// Ends a hash with the name's length.
#[inline(always)]
#[must_use]
pub const fn hash_finish(state: u64, wire_len: u32) -> u64 {
    let mixed = (state ^ wire_len as u64).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 29)
}

/// Mask of the first `n` (1–8) bytes of a chunk, in memory order.
#[inline(always)]
#[must_use]
pub const fn keep_bytes(n: u32) -> u64 {
    // The shift is at most 56 for the values allowed; the mask keeps it defined for all.
    let unused = (64 - 8 * n) & 63;
    if cfg!(target_endian = "little") { u64::MAX >> unused } else { u64::MAX << unused }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no padding, any bit pattern valid.
unsafe impl aya::Pod for NameEntry {}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(wire: &[u8]) -> Option<NameEntry> {
        NameEntry::new(wire, 0, [TypeSlot::default(); TYPE_SLOTS])
    }

    #[test]
    fn case_is_folded_at_letters_only() {
        let upper = entry(b"\x03WwW\x04a[1z\0");
        let lower = entry(b"\x03www\x04a[1z\0");
        assert_eq!(upper, lower);
        assert_ne!(entry(b"\x01[\0"), entry(b"\x01{\0"));
    }

    #[test]
    fn broken_names_are_refused() {
        for wire in [&b""[..], b"\x03ww\0", b"\x03www", b"\0\0", b"\xc0\x0c", b"\x02a\0\0", b"\x40a\0"] {
            assert!(entry(wire).is_none(), "{wire:?}");
        }
        assert!(entry(b"\0").is_some());
    }

    #[test]
    fn hash_depends_on_name_length_and_secret() {
        let (a, b) = (entry(b"\x01a\0"), entry(b"\x01b\0"));
        let (Some(a), Some(b)) = (a, b) else { panic!("well-formed names") };
        assert_ne!(a.hash(1), b.hash(1));
        assert_ne!(a.hash(1), a.hash(2));
    }
}

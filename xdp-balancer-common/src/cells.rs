//! Where a name's entry is found: a table of buckets of four cells, two of which may hold a name.
//!
//! A table is built once and then only read, so the builder can afford to move names about until each
//! lies in one of its two buckets (cuckoo hashing), nearly always the first. The program looks at one line
//! of the cache, or two; the kernel's own hash maps cost a call and ten times as much.

/// Buckets of a table of names, a power of two. Tables in force are exchanged, and the kernel looks into
/// them without a call only if all are of one size.
pub const BUCKETS: u32 = 1 << 15;

/// Cells of a bucket.
pub const BUCKET_CELLS: usize = 4;

/// Cells of a table of names.
pub const CELLS: u32 = BUCKETS * BUCKET_CELLS as u32;

/// Most names in a table. With two buckets of four to choose from, all find a place while fewer than 97 of
/// 100 cells are taken; this leaves a margin.
pub const MAX_NAMES: u32 = CELLS / 10 * 9;

/// Bits of a unit's and of a set's index.
const INDEX_BITS: u32 = 20;
const INDEX: u64 = (1 << INDEX_BITS) - 1;
/// The bits above them are those of the hash.
const TAG_SHIFT: u32 = 2 * INDEX_BITS;

/// Most units, and most sets, that cells can lead to.
pub const MAX_INDEX: u32 = (1 << INDEX_BITS) - 1;

/// A cell: bits 0–19 the name's first unit plus one, bits 20–39 its set of types, bits 40–63 as in its hash.
/// Zero: empty.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell(pub u64);

impl Cell {
    /// Nothing here.
    pub const EMPTY: Self = Self(0);

    /// The cell of a name with this hash; both indices below [`MAX_INDEX`].
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, unit: u32, set: u32) -> Self {
        Self(hash >> TAG_SHIFT << TAG_SHIFT | (set as u64 & INDEX) << INDEX_BITS | ((unit as u64 + 1) & INDEX))
    }

    /// First unit of the name; `None` where the cell is empty.
    #[inline(always)]
    #[must_use]
    pub const fn unit(self) -> Option<u32> {
        ((self.0 & INDEX) as u32).checked_sub(1)
    }

    /// Its set of types.
    #[inline(always)]
    #[must_use]
    pub const fn set(self) -> u32 {
        (self.0 >> INDEX_BITS & INDEX) as u32
    }
}

/// Cells that lie together.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [Cell; BUCKET_CELLS]);

impl Bucket {
    /// The cell that may be that of a hash, or an empty one. Without a branch: which of the cells it is
    /// cannot be foreseen, and a wrong guess costs more than looking at all. If there were two, something
    /// of both would come out; whoever builds a table sees to it that a name in it has one.
    #[inline(always)]
    #[must_use]
    pub const fn find(&self, hash: u64) -> Cell {
        let mut found = 0;
        let mut i = 0;
        while i < BUCKET_CELLS {
            let differs = (self.0[i].0 ^ hash) >> TAG_SHIFT;
            // All ones where nothing differs.
            let mask = 0_u64.wrapping_sub(differs.wrapping_sub(1) >> 63);
            found |= self.0[i].0 & mask;
            i += 1;
        }
        Cell(found)
    }
}

/// First of the two buckets that may hold a name.
#[inline(always)]
#[must_use]
pub const fn first_bucket(hash: u64) -> u32 {
    hash as u32 & (BUCKETS - 1)
}

/// Second of the two buckets that may hold a name.
#[inline(always)]
#[must_use]
pub const fn second_bucket(hash: u64) -> u32 {
    (hash >> 20) as u32 & (BUCKETS - 1)
}

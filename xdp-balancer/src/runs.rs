//! Which elements of a map are free, in use, or given up but perhaps still being read.

use std::collections::BTreeMap;

/// Elements `0..capacity`, handed out in runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    capacity: u32,
    /// Start to length; neighbours are merged.
    free: BTreeMap<u32, u32>,
    /// Given up; a running program may still read them.
    retired: Vec<(u32, u32)>,
    used: u32,
}

impl Runs {
    /// All free.
    pub(crate) fn new(capacity: u32) -> Self {
        let free = if capacity == 0 { BTreeMap::new() } else { BTreeMap::from([(0, capacity)]) };
        Self { capacity, free, retired: Vec::new(), used: 0 }
    }

    /// Number of elements.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Elements in use, without the retired ones.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Whether a grace period would free anything.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Takes the first free run of `len` elements.
    pub(crate) fn allocate(&mut self, len: u32) -> Option<u32> {
        if len == 0 {
            return Some(0);
        }
        let (start, size) = self.free.iter().find(|(_, size)| **size >= len).map(|(start, size)| (*start, *size))?;
        self.free.remove(&start);
        if size > len {
            self.free.insert(start + len, size - len);
        }
        self.used += len;
        Some(start)
    }

    /// Takes the last free `len` elements from a multiple of `align` on: what is large and comes and goes stays apart
    /// from what is small, and finds room in one piece again.
    pub(crate) fn allocate_last(&mut self, len: u32, align: u32) -> Option<u32> {
        let place = |(start, size): (&u32, &u32)| {
            let at = (start + size).checked_sub(len)? / align * align;
            (at >= *start).then_some(at)
        };
        let at = self.free.iter().rev().find_map(place)?;
        self.claim(at, len).then_some(at)
    }

    /// Marks a certain run as in use; false if part of it is already.
    pub(crate) fn claim(&mut self, start: u32, len: u32) -> bool {
        if len == 0 {
            return true;
        }
        let Some(end) = start.checked_add(len) else { return false };
        let Some((free, size)) = self.free.range(..=start).next_back().map(|(free, size)| (*free, *size)) else {
            return false;
        };
        if end > free + size {
            return false;
        }
        self.free.remove(&free);
        if start > free {
            self.free.insert(free, start - free);
        }
        if free + size > end {
            self.free.insert(end, free + size - end);
        }
        self.used += len;
        true
    }

    /// Gives a run up: free after the next grace period.
    pub(crate) fn retire(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.used -= len;
            self.retired.push((start, len));
        }
    }

    /// Gives a run back that nobody could reach yet.
    pub(crate) fn release(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.used -= len;
            self.free(start, len);
        }
    }

    /// A grace period has passed since everything retired was last reachable.
    pub(crate) fn settle(&mut self) {
        for (start, len) in std::mem::take(&mut self.retired) {
            self.free(start, len);
        }
    }

    fn free(&mut self, mut start: u32, mut len: u32) {
        if let Some((before, size)) = self.free.range(..start).next_back().map(|(before, size)| (*before, *size))
            && before + size == start
        {
            self.free.remove(&before);
            start = before;
            len += size;
        }
        if let Some(size) = self.free.remove(&(start + len)) {
            len += size;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retired_runs_come_back_only_after_grace() {
        let mut runs = Runs::new(4);
        assert_eq!(runs.allocate(3), Some(0));
        runs.retire(0, 3);
        assert_eq!(runs.allocate(2), None);
        runs.settle();
        assert_eq!(runs.allocate(4), Some(0));
    }

    #[test]
    fn claims_do_not_overlap() {
        let mut runs = Runs::new(8);
        assert!(runs.claim(2, 3));
        assert!(!runs.claim(4, 1));
        assert!(!runs.claim(0, 3));
        assert!(!runs.claim(7, 2));
        assert!(!runs.claim(u32::MAX, 2));
        assert!(runs.claim(5, 3));
        assert_eq!((runs.used(), runs.allocate(3)), (6, None));
        assert_eq!(runs.allocate(2), Some(0));
    }

    proptest! {
        /// Whatever is done, no element is in use twice, and all come back in the end.
        #[test]
        fn elements_are_never_shared_nor_lost(steps in prop::collection::vec((0_u8..5, 1_u32..6), 1..80)) {
            let capacity = 24;
            let mut runs = Runs::new(capacity);
            let mut held: Vec<(u32, u32)> = Vec::new();
            let mut limbo: Vec<(u32, u32)> = Vec::new();
            for (step, len) in steps {
                match step {
                    0 | 4 => {
                        let taken = if step == 0 { runs.allocate(len) } else { runs.allocate_last(len, 2) };
                        if let Some(start) = taken {
                            prop_assert!(start + len <= capacity);
                            for (other, size) in held.iter().chain(&limbo) {
                                prop_assert!(start + len <= *other || other + size <= start);
                            }
                            held.push((start, len));
                        }
                    }
                    1 if !held.is_empty() => {
                        let (start, len) = held.remove(len as usize % held.len());
                        runs.retire(start, len);
                        limbo.push((start, len));
                    }
                    2 if !held.is_empty() => {
                        let (start, len) = held.remove(len as usize % held.len());
                        runs.release(start, len);
                    }
                    _ => {
                        runs.settle();
                        limbo.clear();
                    }
                }
                prop_assert_eq!(runs.used(), held.iter().map(|(_, len)| len).sum::<u32>());
            }
            for (start, len) in held {
                runs.retire(start, len);
            }
            runs.settle();
            prop_assert_eq!(runs, Runs::new(capacity));
        }
    }
}

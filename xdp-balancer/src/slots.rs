//! Finds the pilots under which no two names meet in a slot: hash and displace, for a table that is built once and
//! then only read.

use xdp_balancer_common::{MAX_NAMES, TableHead};

use crate::error::{Error, Problem};

/// Attempts to find a secret under which all names can be told apart. Even with the most names a second one is
/// rarely needed; a fault in the hash must not make this loop for ever.
const SECRETS: usize = 8;

/// Where each name goes.
pub(crate) struct Places {
    /// Size of the table, and the secret that the hashes were made with.
    pub head: TableHead,
    /// By number of the pilot.
    pub pilots: Vec<u16>,
    /// Slot of each name, in their order.
    pub slots: Vec<u32>,
}

/// Bytes that a table of so many names takes.
pub(crate) fn bytes(names: usize, slot_shift: u32) -> Result<usize, Error> {
    match u32::try_from(names) {
        Ok(count) if count <= MAX_NAMES => Ok(TableHead::of(count, slot_shift, 0).bytes()),
        _ => Err(Error::Invalid { name: "the table".into(), problem: Problem::Names(names) }),
    }
}

/// Finds places for so many names (no more than [`bytes`] accepts), under the given secret or, if two cannot be told
/// apart by it, under another one.
pub(crate) fn find(
    names: usize,
    slot_shift: u32,
    secret: u64,
    hash: impl Fn(usize, u64) -> u64,
    mut another: impl FnMut() -> Result<u64, Error>,
) -> Result<Places, Error> {
    let mut secret = secret;
    for _ in 0..SECRETS {
        let head = TableHead::of(u32::try_from(names).unwrap_or(MAX_NAMES), slot_shift, secret);
        let hashes: Vec<u64> = (0..names).map(|index| hash(index, secret)).collect();
        if let Some((pilots, slots)) = place(&head, &hashes) {
            return Ok(Places { head, pilots, slots });
        }
        secret = another()?;
    }
    Err(Error::Invalid { name: "the table".into(), problem: Problem::Hash })
}

fn place(head: &TableHead, hashes: &[u64]) -> Option<(Vec<u16>, Vec<u32>)> {
    let mut groups: Vec<(u32, u32)> =
        (0_u32..).zip(hashes).map(|(index, hash)| (head.pilot_of(*hash), index)).collect();
    groups.sort_unstable();
    let mut groups: Vec<&[(u32, u32)]> = groups.chunk_by(|a, b| a.0 == b.0).collect();
    // The largest first, while there is much room.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut pilots = vec![0; head.pilots()];
    let mut slots = vec![0; hashes.len()];
    let mut taken = vec![false; head.slots()];
    for group in groups {
        let found = (0..=u16::MAX).find(|pilot| settle(head, group, hashes, *pilot, &mut taken, &mut slots))?;
        pilots[group[0].0 as usize] = found;
    }
    Some((pilots, slots))
}

/// Takes the slots of a group under a pilot, if all are free and no two are the same.
fn settle(
    head: &TableHead,
    group: &[(u32, u32)],
    hashes: &[u64],
    pilot: u16,
    taken: &mut [bool],
    slots: &mut [u32],
) -> bool {
    for (done, (_, index)) in group.iter().enumerate() {
        let slot = head.slot_of(hashes[*index as usize], pilot);
        if taken[slot as usize] {
            for (_, index) in &group[..done] {
                taken[slots[*index as usize] as usize] = false;
            }
            return false;
        }
        taken[slot as usize] = true;
        slots[*index as usize] = slot;
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use std::collections::BTreeSet;

    use xdp_balancer_common::{NameHash, bench};

    use super::*;

    fn hash(index: usize, secret: u64) -> u64 {
        NameHash::new(secret).add(bench::letters(index as u32), 8).finish(8)
    }

    #[test]
    fn names_that_cannot_be_told_apart_get_another_secret() {
        let meets = |index, secret| if secret == 7 { 1 << 50 } else { hash(index, secret) };
        let places = find(3, 4, 7, meets, || Ok(8)).unwrap();
        assert_eq!(places.head.secret, 8);
        assert_eq!(places.slots.iter().collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn a_hash_that_does_not_tell_names_apart_is_an_error() {
        let error = find(2, 4, 7, |_, _| 1, || Ok(8)).err().unwrap();
        assert!(matches!(error, Error::Invalid { problem: Problem::Hash, .. }), "{error}");
    }

    #[test]
    fn the_most_names_find_places_of_their_own() {
        for seed in 1..6_u64 {
            let mut tried = 0;
            let places = find(MAX_NAMES as usize, 4, seed << 17, hash, || {
                tried += 1;
                Ok(seed << 40 | tried)
            })
            .unwrap();
            assert!(tried < 2, "{tried} other secrets");
            let mut met = vec![false; places.head.slots()];
            for (index, slot) in places.slots.iter().enumerate() {
                let hash = hash(index, places.head.secret);
                assert_eq!(places.head.slot_of(hash, places.pilots[places.head.pilot_of(hash) as usize]), *slot);
                assert!(!std::mem::replace(&mut met[*slot as usize], true));
            }
        }
        let error = bytes(MAX_NAMES as usize + 1, 4).unwrap_err();
        assert!(matches!(error, Error::Invalid { problem: Problem::Names(_), .. }), "{error}");
    }
}

//! Finds a place for each name: cuckoo hashing, for a table that is built once and then only read.

use xdp_balancer_common::{BUCKET_CELLS, BUCKETS, Bucket, Cell, MAX_NAMES, first_bucket, second_bucket};

use crate::error::{Error, Problem};

/// Attempts to find a secret under which all names find a place and can be told apart. Even with the most
/// names a second one is rarely needed; a fault in the hash must not make this loop for ever.
const SECRETS: usize = 8;

/// Moves before a name is given up. Chains are short with the most names that are allowed.
const MOVES: usize = 1000;

/// A name to place: its first unit and its set.
pub(crate) type Target = (u32, u32);

/// Buckets that lead to the targets, under the given secret or, if the names find no place so, under another
/// one. A changed secret is in force a moment after its table; in between the names are unknown to the
/// program, and user space answers. `hash` takes an index into `targets`.
pub(crate) fn keyed(
    targets: &[Target],
    secret: u64,
    hash: impl Fn(usize, u64) -> u64,
    mut another: impl FnMut() -> Result<u64, Error>,
) -> Result<(u64, Vec<Bucket>), Error> {
    if targets.len() > MAX_NAMES as usize {
        return Err(Error::Invalid { name: "the table".into(), problem: Problem::Names(targets.len()) });
    }
    let mut secret = secret;
    for _ in 0..SECRETS {
        let hashes: Vec<u64> = (0..targets.len()).map(|index| hash(index, secret)).collect();
        if let Some(buckets) = place(targets, &hashes) {
            return Ok((secret, buckets));
        }
        secret = another()?;
    }
    Err(Error::Invalid { name: "the table".into(), problem: Problem::Hash })
}

fn place(targets: &[Target], hashes: &[u64]) -> Option<Vec<Bucket>> {
    // Index plus one of the name in each cell.
    let mut taken = vec![[0_u32; BUCKET_CELLS]; BUCKETS as usize];
    for (index, hash) in hashes.iter().enumerate() {
        let (mut moving, mut at, mut moves) = (index as u32 + 1, first_bucket(*hash), 0);
        loop {
            let hash = hashes[moving as usize - 1];
            let other = if at == first_bucket(hash) { second_bucket(hash) } else { first_bucket(hash) };
            let free = |bucket: u32| Some((bucket, taken[bucket as usize].iter().position(|cell| *cell == 0)?));
            if let Some((bucket, cell)) = free(at).or_else(|| free(other)) {
                taken[bucket as usize][cell] = moving;
                break;
            }
            moves += 1;
            if moves > MOVES {
                return None;
            }
            // Another one goes on from here, each time out of another cell.
            std::mem::swap(&mut moving, &mut taken[at as usize][moves % BUCKET_CELLS]);
            let hash = hashes[moving as usize - 1];
            at = if at == first_bucket(hash) { second_bucket(hash) } else { first_bucket(hash) };
        }
    }
    let cell = |index: u32| match index.checked_sub(1) {
        Some(index) => {
            let (unit, set) = targets[index as usize];
            Cell::new(hashes[index as usize], unit, set)
        }
        None => Cell::EMPTY,
    };
    let buckets: Vec<Bucket> = taken.iter().map(|cells| Bucket(cells.map(cell))).collect();
    // Two names may share part of a hash and a bucket; each has to be what the program finds.
    let all = targets.iter().zip(hashes).all(|((unit, _), hash)| find(&buckets, *hash) == Some(*unit));
    all.then_some(buckets)
}

/// What the program finds.
fn find(buckets: &[Bucket], hash: u64) -> Option<u32> {
    let [first, second] = [first_bucket(hash), second_bucket(hash)].map(|at| buckets[at as usize].find(hash));
    if first == Cell::EMPTY { second } else { first }.unit()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use xdp_balancer_common::{NameHash, bench};

    use super::*;

    fn hash(index: usize, secret: u64) -> u64 {
        NameHash::new(secret).add(bench::letters(index as u32), 8).finish(8)
    }

    #[test]
    fn names_that_cannot_be_told_apart_get_another_secret() {
        let meets = |index, secret| if secret == 7 { 1 << 50 } else { hash(index, secret) };
        let (secret, buckets) = keyed(&[(5, 0), (6, 1), (7, 1)], 7, meets, || Ok(8)).unwrap();
        assert_eq!(secret, 8);
        assert_eq!([0, 1, 2].map(|index| find(&buckets, hash(index, 8))), [Some(5), Some(6), Some(7)]);
    }

    #[test]
    fn a_hash_that_does_not_tell_names_apart_is_an_error() {
        let error = keyed(&[(1, 0), (2, 0)], 7, |_, _| 1, || Ok(8)).unwrap_err();
        assert!(matches!(error, Error::Invalid { problem: Problem::Hash, .. }), "{error}");
    }

    #[test]
    fn a_name_whose_part_of_the_hash_is_zero_is_found() {
        let (_, buckets) = keyed(&[(0, 0)], 7, |_, _| 3, || Ok(8)).unwrap();
        assert_eq!((find(&buckets, 3), find(&buckets, 4)), (Some(0), None));
    }

    #[test]
    fn the_most_names_find_places() {
        let targets: Vec<Target> = (0..MAX_NAMES).map(|unit| (unit, unit % 7)).collect();
        let mut tried = 0;
        for seed in 1..20_u64 {
            let (secret, buckets) = keyed(&targets, seed << 17, hash, || {
                tried += 1;
                Ok(seed << 40 | tried)
            })
            .unwrap();
            let mut first = 0;
            for (unit, set) in targets.iter().step_by(97) {
                let hash = hash(*unit as usize, secret);
                let mut cell = buckets[first_bucket(hash) as usize].find(hash);
                if cell == Cell::EMPTY {
                    cell = buckets[second_bucket(hash) as usize].find(hash);
                } else {
                    first += 1;
                }
                assert_eq!((cell.unit(), cell.set()), (Some(*unit), *set));
            }
            assert!(first * 97 * 10 > targets.len() * 6, "{first} in their first bucket");
        }
        assert!(tried < 20, "{tried} other secrets");
        let error = keyed(&vec![(0, 0); MAX_NAMES as usize + 1], 7, hash, || Ok(8)).unwrap_err();
        assert!(matches!(error, Error::Invalid { problem: Problem::Names(_), .. }), "{error}");
    }
}

//! Which instance a client gets, and gets again: weighted rendezvous hashing over the turns of a ring, with a bound
//! on what one instance gets.
//!
//! Each pair of turn and instance has a score that depends on nothing else, so a turn keeps its order of preference
//! whatever happens to other instances, and whom a client's turn names second it mostly gets if its first goes.
//! Hashing alone would leave shares to chance: with 1024 turns two instances of equal weight end up at 52 to 48 and
//! worse. So no instance gets more than its share and a little ([`bounds`]): a turn that finds its first full goes to
//! its next, and a full instance keeps the turns that score highest there. That matching is the same in whatever order
//! the turns are looked at, and little else moves when an instance comes or goes.

use xdp_balancer_common::CLIENT_TURNS;

use super::MAX_ANSWERS;

/// Most instances that a turn ranks: as many as an answer can name. Those behind them are given only where all of
/// these are full.
const RANKED: usize = MAX_ANSWERS;

/// An instance among which turns are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Hash of what tells it from all others, here and on other nodes.
    pub identity: u64,
    /// Its share; not 0.
    pub weight: u16,
}

/// The identity that a name stands for. Not secret, and the same in every build: nodes must agree.
pub(super) fn identity(name: &[u8]) -> u64 {
    // FNV-1a, then mixed, for its high bits depend on few of the name's.
    let folded = name
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3));
    mix(folded)
}

/// For each of [`CLIENT_TURNS`] turns the candidates in the order in which its clients are told them, as indices: the
/// one that they get, then those that they prefer most, up to [`MAX_ANSWERS`] in all.
pub(super) fn orders(candidates: &[Candidate]) -> Vec<Vec<usize>> {
    let turns = usize::from(CLIENT_TURNS);
    let ranked: Vec<Vec<(f64, usize)>> = (0..turns).map(|turn| rank(candidates, turn)).collect();
    let given = divide(&ranked, &bounds(candidates));
    let order = |(ranks, given): (Vec<(f64, usize)>, usize)| {
        let mut order: Vec<usize> = ranks.into_iter().map(|(_, candidate)| candidate).collect();
        if let Some(first) = order.get_mut(..=given) {
            first.rotate_right(1);
        }
        order
    };
    ranked.into_iter().zip(given).map(order).collect()
}

/// The best candidates for a turn with their scores, best first.
fn rank(candidates: &[Candidate], turn: usize) -> Vec<(f64, usize)> {
    let of_turn = mix(turn as u64 + 1);
    let score = |candidate: &Candidate| {
        // Between 0 and 1, both excluded: 52 bits and a half.
        let uniform = ((mix(candidate.identity ^ of_turn) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        -f64::from(candidate.weight) / uniform.ln()
    };
    let better = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let mut ranks: Vec<(f64, usize)> = candidates.iter().enumerate().map(|(i, c)| (score(c), i)).collect();
    if ranks.len() > RANKED {
        ranks.select_nth_unstable_by(RANKED, better);
        ranks.truncate(RANKED);
    }
    ranks.sort_unstable_by(better);
    ranks
}

/// Most turns that each candidate gets: its share and a little, rounded up.
///
/// Less makes shares more exact, more lets fewer turns move that need not: full instances hand them on. Few instances
/// have large shares, which are to be met, so they get 4 turns together; many have small ones, and up to 2 turns each.
/// Measured over 2 to 64 instances: no more than 4 % of the turns move needlessly, and up to 8 instances are within
/// 0.8 % of their shares.
fn bounds(candidates: &[Candidate]) -> Vec<usize> {
    let sum: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
    let many = candidates.len() as u64;
    // In parts of a turn: max(4 ÷ many, min(many ÷ 16, 2)).
    let parts = 16 * many;
    let more = (many * many).min(32 * many).max(64);
    let bound = |c: &Candidate| {
        let turns = u64::from(c.weight) * u64::from(CLIENT_TURNS) * parts + more * sum;
        usize::try_from(turns.div_ceil((sum * parts).max(1))).unwrap_or(usize::MAX)
    };
    candidates.iter().map(bound).collect()
}

/// The place in each turn's ranking of the candidate that it gets.
fn divide(ranked: &[Vec<(f64, usize)>], bounds: &[usize]) -> Vec<usize> {
    let mut given = vec![0; ranked.len()];
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); bounds.len()];
    let mut waiting: Vec<usize> = (0..ranked.len()).rev().collect();
    while let Some(turn) = waiting.pop() {
        let Some((_, candidate)) = ranked[turn].get(given[turn]) else {
            // All that it ranks are full: it gets its first, bound or not.
            given[turn] = 0;
            continue;
        };
        let turns = &mut held[*candidate];
        turns.push(turn);
        if turns.len() <= bounds[*candidate] {
            continue;
        }
        let score = |turn: usize| ranked[turn].get(given[turn]).map_or(0.0, |(score, _)| *score);
        let lowest = turns.iter().enumerate().min_by(|(_, a), (_, b)| score(**a).total_cmp(&score(**b)).then(a.cmp(b)));
        if let Some((at, _)) = lowest {
            let out = turns.swap_remove(at);
            given[out] += 1;
            waiting.push(out);
        }
    }
    given
}

/// Each bit of the result depends on each of the argument (SplitMix64's finalizer).
const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const TURNS: f64 = CLIENT_TURNS as f64;

    /// Who has each turn, by identity.
    fn owners(candidates: &[Candidate]) -> Vec<u64> {
        orders(candidates).iter().map(|order| candidates[order[0]].identity).collect()
    }

    fn share(candidates: &[Candidate], of: usize) -> f64 {
        f64::from(candidates[of].weight) / candidates.iter().map(|c| f64::from(c.weight)).sum::<f64>()
    }

    /// Share of the turns that have another owner.
    fn moved(before: &[u64], after: &[u64]) -> f64 {
        before.iter().zip(after).filter(|(a, b)| a != b).count() as f64 / TURNS
    }

    fn named(names: impl Iterator<Item = u32>, weight: u16) -> Vec<Candidate> {
        names.map(|n| Candidate { identity: identity(format!("i{n:08x}").as_bytes()), weight }).collect()
    }

    #[test]
    fn nobody_is_left_out_and_orders_hold_each_once() {
        let ten = named(0..10, 3);
        for order in orders(&ten) {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert!(orders(&named(0..1, 1)).iter().all(|order| order == &[0]));
        assert!(orders(&[]).iter().all(Vec::is_empty));
        let all = orders(&named(0..64, 1));
        assert!((0..64).all(|i| all.iter().any(|order| order[0] == i)));
        assert!(orders(&named(0..300, 1)).iter().all(|order| order.len() == RANKED));
    }

    /// A change of the numbers would move all clients once: it must be meant.
    #[test]
    fn the_numbers_are_these() {
        let four = named(0..4, 1);
        let first: Vec<usize> = orders(&four).iter().take(16).map(|order| order[0]).collect();
        assert_eq!(first, [1, 0, 2, 3, 2, 2, 2, 3, 1, 2, 0, 3, 3, 0, 0, 2]);
    }

    #[test]
    fn shares_of_few_are_near_their_weights() {
        for run in 0..100 {
            for weights in [&[1, 1][..], &[1, 1, 1], &[1, 2, 3], &[4, 1], &[1, 2, 3, 4]] {
                let candidates: Vec<Candidate> = (run * 10..)
                    .zip(weights)
                    .map(|(n, weight)| Candidate { weight: *weight, ..named(n..n + 1, 1)[0] })
                    .collect();
                let mut turns: HashMap<u64, f64> = HashMap::new();
                owners(&candidates).into_iter().for_each(|owner| *turns.entry(owner).or_default() += 1.0 / TURNS);
                for (i, candidate) in candidates.iter().enumerate() {
                    let off = turns[&candidate.identity] - share(&candidates, i);
                    assert!(off.abs() <= 0.01, "{weights:?} of run {run}: {off}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// One of N that goes, or comes, moves its own share and at most 5 % more.
        #[test]
        fn little_else_moves(
            start in any::<u32>(),
            weights in prop_oneof![
                prop::collection::vec(1_u16..=10, 2..=64),
                (2_usize..=64).prop_map(|n| vec![1; n]),
            ],
            which in any::<prop::sample::Index>(),
        ) {
            let candidates: Vec<Candidate> = (0_u32..)
                .zip(&weights)
                .map(|(n, weight)| Candidate { weight: *weight, ..named(std::iter::once(start.wrapping_add(n)), 1)[0] })
                .collect();
            let gone = which.index(candidates.len());
            let mut fewer = candidates.clone();
            fewer.remove(gone);
            let moved = moved(&owners(&candidates), &owners(&fewer));
            let share = share(&candidates, gone);
            prop_assert!(moved <= share + 0.05, "{} of {}: {moved:.3}, its share {share:.3}", gone, candidates.len());
            // And its clients did move.
            prop_assert!(moved >= share - 0.05);
        }

        /// A client's second is where it goes when its first goes, but for those that find it full.
        #[test]
        fn the_second_is_the_next_first(start in any::<u32>(), n in 3_u32..=16) {
            let candidates = named((0..n).map(|i| start.wrapping_add(i)), 1);
            let before = orders(&candidates);
            let after = orders(&candidates[1..]);
            let of_gone = before.iter().zip(&after).filter(|(before, _)| before[0] == 0);
            let (followed, all) = of_gone.fold((0, 0), |(followed, all), (before, after)| {
                (followed + usize::from(before[1] == after[0] + 1), all + 1)
            });
            prop_assert!(followed * 2 >= all, "{followed} of {all}");
        }
    }
}

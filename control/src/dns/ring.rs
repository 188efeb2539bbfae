//! Who is chosen at which turn: smooth weighted round robin as a finite ring.

/// Longest ring. Weights that need a longer one are rounded to it.
pub const MAX_RING: usize = 256;

/// The turns of one round: indices into `weights`, each as often as its share says and as evenly
/// spread as can be. Weight 0 never has a turn; every other weight has at least one.
///
/// Shares are exact where the weights' sum divided by their greatest common divisor fits into
/// [`MAX_RING`], else rounded. With more weights than that each has one turn and the ring is as long
/// as they are many: a lost share is better than a backend that nobody reaches.
pub(super) fn ring(weights: &[u16]) -> Vec<usize> {
    let shares = shares(weights);
    let total: i64 = shares.iter().map(|share| i64::from(*share)).sum();
    let mut current = vec![0i64; shares.len()];
    let mut turns = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
    for _ in 0..total {
        let mut best = 0;
        for (i, share) in shares.iter().enumerate() {
            current[i] += i64::from(*share);
            if current[i] > current[best] {
                best = i;
            }
        }
        current[best] -= total;
        turns.push(best);
    }
    turns
}

/// Turns per weight.
fn shares(weights: &[u16]) -> Vec<u32> {
    let reduced = reduce(weights.iter().map(|w| u32::from(*w)).collect());
    let sum: u32 = reduced.iter().sum();
    if sum as usize <= MAX_RING {
        return reduced;
    }
    let scale = |w: &u32| if *w == 0 { 0 } else { (w * MAX_RING as u32 / sum).max(1) };
    let mut scaled: Vec<u32> = reduced.iter().map(scale).collect();
    // Rounding small ones up may have taken too much: the largest give it back, as long as they can.
    let mut total: usize = scaled.iter().map(|w| *w as usize).sum();
    while total > MAX_RING
        && let Some(largest) = scaled.iter_mut().max().filter(|w| **w > 1)
    {
        *largest -= 1;
        total -= 1;
    }
    reduce(scaled)
}

/// Divides by the greatest common divisor.
fn reduce(mut weights: Vec<u32>) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b));
    if divisor > 1 {
        weights.iter_mut().for_each(|w| *w /= divisor);
    }
    weights
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns_of(ring: &[usize], backend: usize) -> usize {
        ring.iter().filter(|turn| **turn == backend).count()
    }

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(ring(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(ring(&[2, 2]), [0, 1]);
        assert_eq!(ring(&[0, 7]), [1]);
        assert!(ring(&[0, 0]).is_empty());
        assert!(ring(&[]).is_empty());
    }

    #[test]
    fn one_turn_each_where_there_are_too_many() {
        let ring = ring(&vec![3; MAX_RING + 9]);
        assert_eq!(ring.len(), MAX_RING + 9);
    }

    proptest! {
        #[test]
        fn small_weights_get_exact_shares(weights in prop::collection::vec(0u16..16, 1..16)) {
            let ring = ring(&weights);
            let sum: usize = weights.iter().map(|w| usize::from(*w)).sum();
            for (i, weight) in weights.iter().enumerate() {
                prop_assert_eq!(turns_of(&ring, i) * sum, usize::from(*weight) * ring.len());
            }
        }

        #[test]
        fn any_weights_give_a_bounded_ring_with_everyone_in_it(weights in prop::collection::vec(any::<u16>(), 0..40)) {
            let ring = ring(&weights);
            prop_assert!(ring.len() <= MAX_RING);
            for (i, weight) in weights.iter().enumerate() {
                prop_assert_eq!(turns_of(&ring, i) > 0, *weight > 0);
            }
        }
    }
}

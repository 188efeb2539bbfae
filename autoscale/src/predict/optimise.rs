//! Least values of functions without derivatives: Nelder and Mead, "A simplex method for function
//! minimization", The Computer Journal 7 (1965).

/// When a search ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Most evaluations of the function.
    pub evaluations: usize,
    /// Ends when the simplex' values lie within this, relative to their size.
    pub tolerance: f64,
}

/// The best point found from `start` with first steps of `step`, and its value. Values that are not finite count as
/// worse than all others.
pub(crate) fn minimise(
    start: &[f64],
    step: f64,
    limits: Limits,
    mut function: impl FnMut(&[f64]) -> f64,
) -> (Vec<f64>, f64) {
    let mut used = 0;
    let mut value = |x: &[f64]| {
        used += 1;
        let v = function(x);
        (if v.is_finite() { v } else { f64::MAX }, used)
    };
    let n = start.len();
    let mut simplex: Vec<(Vec<f64>, f64)> = Vec::with_capacity(n + 1);
    for corner in 0..=n {
        let mut x = start.to_vec();
        if let Some(moved) = corner.checked_sub(1) {
            x[moved] += step;
        }
        let v = value(&x).0;
        simplex.push((x, v));
    }
    if n == 0 {
        return simplex.swap_remove(0);
    }
    loop {
        simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (best, worst) = (simplex[0].1, simplex[n].1);
        let close = (worst - best).abs() <= limits.tolerance * (best.abs() + worst.abs() + f64::MIN_POSITIVE);
        let narrow = (0..n).all(|i| (simplex[n].0[i] - simplex[0].0[i]).abs() < 1e-4);
        let centre: Vec<f64> = (0..n).map(|i| simplex[..n].iter().map(|(x, _)| x[i]).sum::<f64>() / n as f64).collect();
        // The point on the line from the worst corner through the centre of the others.
        let along = |t: f64| -> Vec<f64> { (0..n).map(|i| centre[i] + t * (simplex[n].0[i] - centre[i])).collect() };
        let reflected = along(-1.0);
        let (at_reflected, used) = value(&reflected);
        if used > limits.evaluations || (close && narrow) {
            return simplex.swap_remove(0);
        }
        if at_reflected < best {
            let expanded = along(-2.0);
            let at_expanded = value(&expanded).0;
            simplex[n] = if at_expanded < at_reflected { (expanded, at_expanded) } else { (reflected, at_reflected) };
        } else if at_reflected < simplex[n - 1].1 {
            simplex[n] = (reflected, at_reflected);
        } else {
            let inside = at_reflected >= worst;
            let contracted = along(if inside { 0.5 } else { -0.5 });
            let at_contracted = value(&contracted).0;
            if at_contracted < at_reflected.min(worst) {
                simplex[n] = (contracted, at_contracted);
            } else {
                let best = simplex[0].0.clone();
                for (x, v) in &mut simplex[1..] {
                    for (x, b) in x.iter_mut().zip(&best) {
                        *x = b + 0.5 * (*x - b);
                    }
                    *v = value(x).0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { evaluations: 2000, tolerance: 1e-12 };

    #[test]
    fn the_banana_valleys_end_is_found() {
        let banana = |x: &[f64]| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2);
        let (x, v) = minimise(&[-1.2, 1.0], 0.5, LIMITS, banana);
        assert!(v < 1e-8 && (x[0] - 1.0).abs() < 1e-3, "{x:?} {v}");
    }

    #[test]
    fn holes_in_the_function_are_walked_around() {
        let holed = |x: &[f64]| if x[0] < 0.0 { f64::NAN } else { (x[0] - 0.25).abs() };
        let (x, _) = minimise(&[3.0], 1.0, LIMITS, holed);
        assert!((x[0] - 0.25).abs() < 1e-3, "{x:?}");
        assert_eq!(minimise(&[], 1.0, LIMITS, |_| 7.0), (vec![], 7.0));
    }
}

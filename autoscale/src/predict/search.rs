//! The paper's stepwise search for an order by validation error: from a few starting orders to the best neighbour,
//! as long as that is better. Costs dozens of fits and gains little over a good fixed order, so it is run rarely and
//! its find is one candidate among others.

use super::sarima::{Estimate, Order, Sarima};
use super::{Model, rms};

/// Least gain that a step is made for.
const GAIN: f64 = 0.001;
/// Most fits.
const MOST_FITS: usize = 40;

/// The order with the least one-step error over the last third of `history`, fitted on the part before it. `None`
/// where no order can be fitted on it.
#[must_use]
pub fn stepwise(history: &[f64], m: usize) -> Option<Order> {
    let split = history.len() - history.len() / 3;
    let mut tried: Vec<(Order, f64)> = Vec::new();
    let mut best: Option<(Order, f64)> = None;
    let mut candidates = starting(m);
    while !candidates.is_empty() {
        let mut moved = false;
        for order in candidates.drain(..) {
            if tried.len() >= MOST_FITS || tried.iter().any(|(t, _)| *t == order) {
                continue;
            }
            let error = validation(history, split, order).unwrap_or(f64::INFINITY);
            tried.push((order, error));
            if error.is_finite() && best.is_none_or(|(_, least)| error < least * (1.0 - GAIN)) {
                best = Some((order, error));
                moved = true;
            }
        }
        if let Some((order, _)) = best.filter(|_| moved) {
            candidates = neighbours(order);
        }
    }
    best.map(|(order, _)| order)
}

fn validation(history: &[f64], split: usize, order: Order) -> Option<f64> {
    let mut model = Sarima::new(order, Estimate::Conditional);
    model.fit(&history[..split], &history[..split]);
    let mut errors = Vec::with_capacity(history.len() - split);
    for t in split..history.len() {
        errors.push(history[t] - model.path(&history[..t], 1)?.first()?);
        model.observe(&history[..=t]);
    }
    Some(rms(&errors))
}

fn starting(m: usize) -> Vec<Order> {
    let plain = [(1, 1, 1), (0, 1, 0), (1, 0, 0), (2, 1, 2)].map(|(p, d, q)| Order::plain(p, d, q));
    if m < 2 {
        return plain.to_vec();
    }
    let seasonal = [
        ((1, 1, 1), (0, 1, 1)),
        ((0, 1, 1), (0, 1, 1)),
        ((1, 0, 1), (0, 1, 1)),
        ((0, 1, 0), (0, 1, 0)),
        ((1, 0, 0), (0, 1, 0)),
        ((1, 0, 1), (1, 0, 0)),
    ];
    let mut all: Vec<Order> = seasonal.iter().map(|(own, season)| Order::seasonal(*own, *season, m)).collect();
    all.extend(&plain[..2]);
    all
}

/// Each of the six numbers one more or one less: p, q up to 3, the others up to 1.
fn neighbours(order: Order) -> Vec<Order> {
    let mut found = Vec::new();
    let mut with = |change: &dyn Fn(&mut Order) -> (&mut usize, usize)| {
        for up in [true, false] {
            let mut other = order;
            let (number, most) = change(&mut other);
            let moved = if up { Some(*number + 1).filter(|n| *n <= most) } else { number.checked_sub(1) };
            if let Some(moved) = moved {
                *number = moved;
                found.push(other);
            }
        }
    };
    with(&|o| (&mut o.p, 3));
    with(&|o| (&mut o.q, 3));
    with(&|o| (&mut o.d, 1));
    if order.m >= 2 {
        with(&|o| (&mut o.sp, 1));
        with(&|o| (&mut o.sd, 1));
        with(&|o| (&mut o.sq, 1));
    }
    found
}

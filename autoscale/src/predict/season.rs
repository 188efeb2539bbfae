//! Season lengths, found from the autocorrelation of the history.

/// Least windows and least autocorrelation of a season.
const SHORTEST: usize = 4;
const LEAST: f64 = 0.15;
/// How much a peak has to stand out of the lags before it.
const PROMINENCE: f64 = 0.08;
/// Share of the best peak's autocorrelation that makes a divisor of it the season.
const FUNDAMENTAL: f64 = 0.5;
/// How much better than the season a multiple of it has to be to be a second one.
const SECOND: f64 = 0.03;
/// Share by which a season may miss the calendar's.
const NEAR: f64 = 0.03;
/// Cycles that have to be seen.
const CYCLES: usize = 3;

/// The season in windows and a longer one that is a multiple of it; 0 where there is none. People live by the day: a
/// season of nearly one, told by the length of a window in seconds, is one.
#[must_use]
pub fn find(history: &[f64], window_s: Option<f64>) -> [usize; 2] {
    let r = autocorrelation(history, history.len() / CYCLES);
    let peaks = peaks(&r, noise(history.len()));
    let Some(best) = peaks.iter().copied().max_by(|a, b| r[*a].total_cmp(&r[*b])) else { return [0, 0] };
    let divides = |lag: usize| {
        let times = (best as f64 / lag as f64).round();
        lag <= best && (best as f64 - times * lag as f64).abs() <= 0.02 * best as f64 + 0.5 * times.min(2.0)
    };
    let first = peaks.iter().copied().find(|lag| divides(*lag) && r[*lag] >= FUNDAMENTAL * r[best]).unwrap_or(best);
    let first = calendar(first, window_s);
    [first, if first < r.len() { second(&r, &peaks, first) } else { 0 }]
}

/// The whole number of windows in an hour, a day or a week that is near to `lag`; else `lag`.
fn calendar(lag: usize, window_s: Option<f64>) -> usize {
    let Some(window) = window_s.filter(|w| *w > 0.0) else { return lag };
    let spans = [3600.0, 86_400.0, 604_800.0].map(|span| span / window);
    let whole = |span: f64| (span - span.round()).abs() < 1e-6;
    let near = |span: &f64| whole(*span) && (span - lag as f64).abs() <= NEAR * span && lag > 24;
    spans.into_iter().find(near).map_or(lag, |span| span.round() as usize)
}

/// The longer season that goes with a known one; 0 where there is none.
#[must_use]
pub fn longer(history: &[f64], first: usize) -> usize {
    let r = autocorrelation(history, history.len() / CYCLES);
    if first == 0 || first >= r.len() {
        return 0;
    }
    second(&r, &peaks(&r, noise(history.len())), first)
}

fn noise(n: usize) -> f64 {
    LEAST.max(3.0 / (n.max(1) as f64).sqrt())
}

/// The shortest multiple of `first` at whose lag a peak is clearly better than at `first`, and about as good as the best.
fn second(r: &[f64], peaks: &[usize], first: usize) -> usize {
    let multiple = |lag: usize| (lag + first / 2) / first * first;
    let near = |lag: usize| lag.abs_diff(multiple(lag)) <= 1 + first / 50;
    let candidates: Vec<usize> = peaks.iter().copied().filter(|lag| *lag >= 2 * first && near(*lag)).collect();
    let best = candidates.iter().map(|lag| r[*lag]).fold(0.0, f64::max);
    let good = |lag: &usize| r[*lag] > r[first] + SECOND && r[*lag] > best - SECOND;
    candidates.into_iter().find(good).map_or(0, multiple)
}

/// Autocorrelation at lags 0 … `most` of the history less its straight trend.
fn autocorrelation(history: &[f64], most: usize) -> Vec<f64> {
    let n = history.len();
    if n < CYCLES * SHORTEST {
        return vec![1.0];
    }
    let middle = (n - 1) as f64 / 2.0;
    let mean = history.iter().sum::<f64>() / n as f64;
    let moment: f64 = history.iter().enumerate().map(|(t, v)| (t as f64 - middle) * (v - mean)).sum();
    let slope = moment / (n as f64 * ((n * n) as f64 - 1.0) / 12.0);
    let mut x: Vec<f64> = history.iter().enumerate().map(|(t, v)| v - mean - slope * (t as f64 - middle)).collect();
    // A spike's square would outshine the rest.
    let deviation = (x.iter().map(|v| v * v).sum::<f64>() / n as f64).sqrt();
    for v in &mut x {
        *v = v.clamp(-3.0 * deviation, 3.0 * deviation);
    }
    let variance = x.iter().map(|v| v * v).sum::<f64>() / n as f64;
    if variance <= f64::MIN_POSITIVE {
        return vec![1.0];
    }
    let at = |lag: usize| x[lag..].iter().zip(&x).map(|(a, b)| a * b).sum::<f64>() / ((n - lag) as f64 * variance);
    (0..=most).map(at).collect()
}

/// Lags that stand out from those around and before them, rising.
fn peaks(r: &[f64], least: f64) -> Vec<usize> {
    let mut lowest = 1.0f64;
    let mut found = Vec::new();
    for lag in 1..r.len() {
        lowest = lowest.min(r[lag]);
        let around = (lag / 8).max(1);
        let highest = r[lag - around..(lag + around + 1).min(r.len())].iter().all(|v| *v <= r[lag]);
        let inside = lag + 1 < r.len();
        if lag >= SHORTEST && inside && highest && r[lag] >= least && r[lag] - lowest >= PROMINENCE {
            found.push(lag);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::noise::Noise;

    fn wave(n: usize, season: usize) -> impl Iterator<Item = f64> {
        (0..n).map(move |t| (std::f64::consts::TAU * t as f64 / season as f64).sin())
    }

    #[test]
    fn seasons_are_found_in_noise_and_trend() {
        let mut noise = Noise::new(1);
        let daily: Vec<f64> =
            wave(480, 24).enumerate().map(|(t, s)| 100.0 + 30.0 * s + 0.2 * t as f64 + 10.0 * noise.normal()).collect();
        assert_eq!(find(&daily, None), [24, 0]);
        let weekly: Vec<f64> = wave(2016, 24)
            .enumerate()
            .map(|(t, s)| 100.0 + 30.0 * s - if t / 24 % 7 >= 5 { 40.0 } else { 0.0 } + 5.0 * noise.normal())
            .collect();
        assert_eq!(find(&weekly, None), [24, 168]);
        assert_eq!(longer(&weekly, 24), 168);
        let cycle: Vec<f64> = (0..120).map(|t| noise.poisson(if t % 10 < 8 { 100.0 } else { 20.0 })).collect();
        assert_eq!(find(&cycle, None), [10, 0]);
    }

    #[test]
    fn noise_walks_and_silence_have_none() {
        let mut noise = Noise::new(5);
        let white: Vec<f64> = (0..1000).map(|_| noise.normal()).collect();
        assert_eq!(find(&white, None), [0, 0]);
        assert_eq!(find(&[7.0; 300], None), [0, 0]);
        assert_eq!(find(&[], None), [0, 0]);
    }
}

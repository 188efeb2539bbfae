//! Recorded loads.

use crate::predict::MOST_COUNTED;

/// Requests by window of equal length.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Its name, for reports.
    pub name: String,
    /// Length of a window in seconds.
    pub window_s: f64,
    /// Requests; `None` where a window was not counted.
    pub values: Vec<Option<f64>>,
}

/// A text that is no trace.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TraceError {
    /// The first line is another.
    #[error("line 1: {found:?} is not the header; write time_unix_s,requests")]
    Header {
        /// What it is.
        found: String,
    },
    /// A row is no pair of numbers.
    #[error("line {line}: {found:?} is no pair of a time in seconds and a number of requests")]
    Row {
        /// From 1.
        line: usize,
        /// What it is.
        found: String,
    },
    /// A count that no counter of a window comes to.
    #[error("line {line}: {requests:e} requests in one window; at most {MOST_COUNTED:e} can be told apart")]
    TooMany {
        /// From 1.
        line: usize,
        /// How many it says.
        requests: f64,
    },
    /// Times go back or stand still.
    #[error("line {line}: {seconds} s after the row before; rows are in the order of time, one for each window")]
    Order {
        /// From 1.
        line: usize,
        /// Seconds since the row before.
        seconds: f64,
    },
    /// Times do not keep the step.
    #[error(
        "line {line}: {seconds} s after the row before, where the step is {step} s; every row is 1 to {MOST_MISSING} whole windows later"
    )]
    Step {
        /// From 1.
        line: usize,
        /// Seconds since the row before.
        seconds: f64,
        /// Seconds between most rows.
        step: f64,
    },
    /// Too few rows to say anything.
    #[error("{rows} rows are too few; at least {least} are needed")]
    Short {
        /// How many there are.
        rows: usize,
        /// How many there must be.
        least: usize,
    },
}

/// Least rows of a trace.
const LEAST: usize = 4;
/// Most windows that may be missing in one place.
const MOST_MISSING: f64 = 10_000.0;

impl Trace {
    /// Reads `time_unix_s,requests`, one row per window. Rows that are missing, and those whose count is empty or `NaN`,
    /// are windows that were not counted.
    ///
    /// # Errors
    /// Where the text is another.
    pub fn parse(name: &str, text: &str) -> Result<Self, TraceError> {
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let header = lines.next().map_or("", |(_, line)| line);
        if header.trim_start_matches('\u{feff}').replace(' ', "") != "time_unix_s,requests" {
            return Err(TraceError::Header { found: header.to_owned() });
        }
        let mut rows: Vec<(usize, f64, Option<f64>)> = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let wrong = || TraceError::Row { line: number, found: line.to_owned() };
            let (time, count) = line.split_once(',').ok_or_else(wrong)?;
            let time: f64 = time.trim().parse().map_err(|_| wrong())?;
            let count = match count.trim() {
                "" => None,
                text => Some(text.parse::<f64>().map_err(|_| wrong())?),
            };
            if !time.is_finite() || count.is_some_and(|c| c < 0.0 || c.is_infinite()) {
                return Err(wrong());
            }
            if let Some(requests) = count.filter(|c| *c > MOST_COUNTED) {
                return Err(TraceError::TooMany { line: number, requests });
            }
            rows.push((number, time, count.filter(|c| !c.is_nan())));
        }
        if rows.len() < LEAST {
            return Err(TraceError::Short { rows: rows.len(), least: LEAST });
        }
        let mut steps: Vec<f64> = Vec::with_capacity(rows.len() - 1);
        for pair in rows.windows(2) {
            let (seconds, line) = (pair[1].1 - pair[0].1, pair[1].0);
            if seconds <= 0.0 {
                return Err(TraceError::Order { line, seconds });
            }
            steps.push(seconds);
        }
        // The median: rows may be missing anywhere, the second one too.
        let middle = (steps.len() - 1) / 2;
        let step = *steps.select_nth_unstable_by(middle, f64::total_cmp).1;
        let mut values = vec![rows[0].2];
        for pair in rows.windows(2) {
            let (seconds, line) = (pair[1].1 - pair[0].1, pair[1].0);
            let windows = (seconds / step).round();
            let off = (seconds - windows * step).abs() > 1e-3 * step;
            if off || !(1.0..=MOST_MISSING).contains(&windows) {
                return Err(TraceError::Step { line, seconds, step });
            }
            values.extend(std::iter::repeat_n(None, windows as usize - 1));
            values.push(pair[1].2);
        }
        Ok(Self { name: name.to_owned(), window_s: step, values })
    }
}

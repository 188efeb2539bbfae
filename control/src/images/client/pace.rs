//! How far a transfer is, and how fast it may be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Counts while a transfer runs; others may look at it meanwhile.
#[derive(Debug, Default)]
pub struct Meter {
    total: AtomicU64,
    moved: AtomicU64,
    present: AtomicU64,
    resumed: AtomicU64,
    interruptions: AtomicU64,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Bytes of the image's blobs; 0 until its manifest is known.
    pub total: u64,
    /// Bytes that came or went over the network, those that were sent again included.
    pub moved: u64,
    /// Bytes of blobs that were there already.
    pub present: u64,
    /// Bytes of begun blobs that an interruption did not cost.
    pub resumed: u64,
    /// How often it was interrupted and went on.
    pub interruptions: u64,
}

impl Meter {
    pub(super) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn present(&self, bytes: u64) {
        self.present.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn resumed(&self, bytes: u64) {
        self.resumed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn interrupted(&self) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
    }

    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            total: of(&self.total),
            moved: of(&self.moved),
            present: of(&self.present),
            resumed: of(&self.resumed),
            interruptions: of(&self.interruptions),
        }
    }
}

/// A bound on bytes per second over all transfers that share it. Gives each piece its turn after the one before; what
/// was not used is not saved up, so there is no burst.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// `None` for no bound.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits for the turn of `bytes`.
    pub(super) async fn take(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else { return };
        let turn = {
            let mut free_at = self.free_at.lock().await;
            *free_at = turn(*free_at, Instant::now(), bytes, rate);
            *free_at
        };
        sleep_until(turn).await;
    }
}

/// When the turn of `bytes` is over that came at `now`, where others have the way until `free_at`.
fn turn(free_at: Instant, now: Instant, bytes: u64, rate: u64) -> Instant {
    #[expect(clippy::cast_precision_loss, reason = "a piece is far below 2^52 bytes")]
    let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
    free_at.max(now) + takes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_transfers_share_the_bound() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let one = turn(begun, begun, 500, 1000);
        let two = turn(one, begun, 500, 1000);
        assert_eq!(two, begun + second);
        // Idle time is not saved up.
        assert_eq!(turn(two, begun + 10 * second, 3000, 1000), begun + 13 * second);
    }
}

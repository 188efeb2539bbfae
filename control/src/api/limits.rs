//! How much one peer may ask for, and how many may be connected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at once, all peers together.
pub(super) const MOST_CONNECTIONS: usize = 4096;
/// Of one peer that is not root: the others get in whatever it does.
const MOST_OF_PEER: usize = 2048;
/// Watchers at once.
pub(super) const MOST_WATCHERS: usize = 2048;
/// Peers whose rate is remembered.
const MOST_PEERS: usize = 4096;

/// A token bucket per peer (a user of this machine, an address), and counts of connections.
#[derive(Debug)]
pub(super) struct Limits {
    per_second: f64,
    buckets: Mutex<BTreeMap<String, (f64, Instant)>>,
    connected: Mutex<BTreeMap<String, usize>>,
    all: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

/// A place for a connection, given back when it ends.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<Limits>,
    peer: String,
    _one: OwnedSemaphorePermit,
}

impl Limits {
    pub fn new(per_second: u32) -> Arc<Self> {
        Arc::new(Self {
            per_second: per_second.into(),
            buckets: Mutex::default(),
            connected: Mutex::default(),
            all: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            watchers: Arc::new(Semaphore::new(MOST_WATCHERS)),
        })
    }

    /// Takes one request of a peer; false where it has had its share.
    pub fn take(&self, peer: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_PEERS && !buckets.contains_key(peer) {
            // Full ones say nothing that a new one would not.
            buckets.retain(|_, (left, at)| {
                *left + now.duration_since(*at).as_secs_f64() * self.per_second < self.per_second
            });
        }
        let (left, at) = buckets.entry(peer.to_owned()).or_insert((self.per_second, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * self.per_second).min(self.per_second);
        *at = now;
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }

    /// A place for one more connection, where there is one. `trusted` peers have all that there are.
    pub fn connect(self: &Arc<Self>, peer: &str, trusted: bool) -> Option<Place> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = connected.get(peer).copied().unwrap_or(0);
        if !trusted && of_peer >= MOST_OF_PEER {
            return None;
        }
        let one = Arc::clone(&self.all).try_acquire_owned().ok()?;
        connected.insert(peer.to_owned(), of_peer + 1);
        Some(Place { limits: Arc::clone(self), peer: peer.to_owned(), _one: one })
    }

    /// A place for one more watcher.
    pub fn watch(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.watchers).try_acquire_owned().ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connected = self.limits.connected.lock().unwrap_or_else(PoisonError::into_inner);
        match connected.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(connected.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_peer_has_its_rate_and_others_have_theirs() {
        let limits = Limits::new(10);
        let now = Instant::now();
        assert_eq!((0..30).filter(|_| limits.take("a", now)).count(), 10);
        assert!(limits.take("b", now));
        let later = now + Duration::from_millis(500);
        assert_eq!((0..30).filter(|_| limits.take("a", later)).count(), 5);
    }

    #[test]
    fn places_are_given_back() {
        let limits = Limits::new(1);
        let places: Vec<_> = (0..MOST_OF_PEER + 9).filter_map(|_| limits.connect("a", false)).collect();
        assert_eq!(places.len(), MOST_OF_PEER);
        let trusted: Vec<_> = (0..MOST_CONNECTIONS).filter_map(|_| limits.connect("root", true)).collect();
        assert_eq!(trusted.len(), MOST_CONNECTIONS - MOST_OF_PEER);
        drop(places);
        assert!(limits.connect("a", false).is_some());
        drop(trusted);
        assert_eq!(limits.connected.lock().map(|c| c.len()).unwrap_or(9), 0);
    }
}

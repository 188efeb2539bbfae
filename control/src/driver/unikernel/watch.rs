//! One watcher for each process: it tells the end, with its cause, the moment it comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::{broadcast, watch};

use super::process::Process;
use super::record::Directory;
use crate::driver::DriverEvent;
use crate::model::InstanceId;

/// Events that may wait for a slow reader. One that falls behind is told to look for itself.
const BACKLOG: usize = 1024;

/// The watchers of one driver.
#[derive(Debug)]
pub(super) struct Watches {
    events: broadcast::Sender<DriverEvent>,
    /// By instance: closed when its process has been reaped.
    open: Arc<Mutex<BTreeMap<InstanceId, watch::Receiver<()>>>>,
}

impl Default for Watches {
    fn default() -> Self {
        Self { events: broadcast::Sender::new(BACKLOG), open: Arc::default() }
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, watch::Receiver<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a process of `id` until it has ended.
    pub(super) fn add(&self, id: &InstanceId, process: Arc<Process>, directory: Directory) {
        let (alive, reaped) = watch::channel(());
        self.lock().insert(id.clone(), reaped.clone());
        let (id, events, open) = (id.clone(), self.events.clone(), Arc::clone(&self.open));
        tokio::spawn(async move {
            // A descriptor that cannot be waited for is as good as a process that is gone: reaping waits.
            if let Err(error) = process.ended().await {
                tracing::warn!(instance = %id, %error, "its process cannot be watched");
            }
            let cause = process.reap();
            // Read and told before the instance counts as reaped: its directory goes then.
            let words = directory.last_words();
            let cause = if words.is_empty() { cause } else { format!("{cause}; {words}") };
            // Nobody may listen yet.
            let _ = events.send(DriverEvent::Exited { id: id.clone(), cause });
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            // The same instance may have been started anew meanwhile.
            if open.get(&id).is_some_and(|current| current.same_channel(&reaped)) {
                open.remove(&id);
            }
            drop(alive);
        });
    }

    /// Whether a process of `id` is being watched.
    pub(super) fn has(&self, id: &InstanceId) -> bool {
        self.lock().contains_key(id)
    }

    /// Waits until the watched process of `id`, if there is one, has been reaped.
    pub(super) async fn until_reaped(&self, id: &InstanceId) {
        let waiting = self.lock().get(id).cloned();
        if let Some(mut reaped) = waiting {
            // Nothing is ever sent; the channel closes.
            let _ = reaped.changed().await;
        }
    }

    /// Ends from now on.
    pub(super) fn events(&self) -> impl Stream<Item = DriverEvent> + Send + use<> {
        unfold(self.events.subscribe(), |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((event, events)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((DriverEvent::Back, events)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
    }
}

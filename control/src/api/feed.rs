//! Changes as server-sent events. One task compares what the halves show with what it told last, and hands each
//! difference, rendered once, to all watchers. A watcher that does not keep up is cut off; it comes back with
//! `Last-Event-ID` and misses nothing, as long as its place is among the last changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::debug;

use crate::model::Timestamp;
use crate::stop::{Stop, Stopper, stop};

/// Changes that are remembered for those who come back.
const REMEMBERED: usize = 4096;
/// Changes that may wait for one watcher.
const WAITING: usize = 256;
/// Kinds of things that are watched.
pub(super) const RESOURCES: [&str; 7] =
    ["configuration", "decisions", "instances", "networks", "nodes", "services", "tables"];

/// A kind of thing and its name.
pub(super) type Key = (&'static str, String);

/// One change, rendered.
#[derive(Debug)]
struct Event {
    revision: u64,
    resource: &'static str,
    frame: Bytes,
}

/// Ends a connection from within one of its requests.
#[derive(Debug, Clone)]
pub(super) struct Cut(Arc<Stopper>);

impl Cut {
    /// One, and what hears of it. The connection holds one as long as it lasts.
    pub fn new() -> (Self, Stop) {
        let (stopper, ordered) = stop();
        (Self(Arc::new(stopper)), ordered)
    }

    /// Ends it.
    pub fn now(&self) {
        self.0.stop();
    }
}

/// A watcher's end of the feed.
#[derive(Debug)]
struct Watcher {
    wanted: BTreeSet<&'static str>,
    queue: mpsc::Sender<Bytes>,
    cut: Cut,
}

#[derive(Debug, Default)]
struct Told {
    revision: u64,
    /// Everything there is, as it was told last.
    objects: BTreeMap<Key, String>,
    last: VecDeque<Event>,
    watchers: Vec<Watcher>,
}

/// The feed, shared by its task and all requests.
#[derive(Debug)]
pub struct Feed {
    /// Tells this run's revisions from those of others.
    run: u64,
    state: Mutex<Told>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { run: Timestamp::now().0, state: Mutex::default() }
    }
}

impl Feed {
    /// Tells what differs from what was told last.
    pub(super) fn take(&self, now: BTreeMap<Key, Value>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeMap<Key, String> = now.into_iter().map(|(key, value)| (key, value.to_string())).collect();
        let gone: Vec<Key> = state.objects.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        for key in gone {
            state.objects.remove(&key);
            self.tell(&mut state, &key, None);
        }
        for (key, object) in now {
            if state.objects.get(&key) != Some(&object) {
                self.tell(&mut state, &key, Some(&object));
                state.objects.insert(key, object);
            }
        }
    }

    fn tell(&self, state: &mut Told, key: &Key, object: Option<&str>) {
        state.revision += 1;
        let (revision, resource) = (state.revision, key.0);
        let frame = self.frame(Some(revision), revision, key, object);
        // One that is full or gone is let go; its connection is ended, for nobody reads it.
        state.watchers.retain(|watcher| {
            if !watcher.wanted.contains(resource) {
                return !watcher.queue.is_closed();
            }
            match watcher.queue.try_send(frame.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    debug!("a watcher does not keep up; cut off");
                    watcher.cut.now();
                    false
                }
                Err(TrySendError::Closed(_)) => false,
            }
        });
        if state.last.len() == REMEMBERED {
            state.last.pop_front();
        }
        state.last.push_back(Event { revision, resource, frame });
    }

    /// An event in the form of the stream. `id` is left out where nobody can go on behind it.
    fn frame(&self, id: Option<u64>, revision: u64, (resource, name): &Key, object: Option<&str>) -> Bytes {
        let id = id.map(|id| format!("id: {}-{id}\n", self.run)).unwrap_or_default();
        let kind = if object.is_some() { "put" } else { "delete" };
        // The name is a key of ours; the object is JSON on one line.
        let name = Value::from(name.as_str());
        let object = object.map(|object| format!(",\"object\":{object}")).unwrap_or_default();
        let data = format!("{{\"revision\":{revision},\"resource\":\"{resource}\",\"name\":{name}{object}}}");
        Bytes::from(format!("{id}event: {kind}\ndata: {data}\n\n"))
    }

    /// A new watcher: what it is told first, and what comes. `behind` is the last event that it has seen.
    pub(super) fn join(
        &self,
        wanted: BTreeSet<&'static str>,
        behind: Option<&str>,
        cut: Cut,
    ) -> (Vec<Bytes>, mpsc::Receiver<Bytes>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.last.front().map_or(state.revision + 1, |event| event.revision);
        let seen = behind.and_then(|id| {
            let (run, revision) = id.split_once('-')?;
            let revision: u64 = revision.parse().ok()?;
            (run.parse() == Ok(self.run) && revision + 1 >= first && revision <= state.revision).then_some(revision)
        });
        let mut frames = Vec::new();
        if let Some(seen) = seen {
            let missed = state.last.iter().filter(|e| e.revision > seen && wanted.contains(e.resource));
            frames.extend(missed.map(|event| event.frame.clone()));
        } else {
            if behind.is_some() {
                // What it has seen is of no use: all that there is follows.
                frames.push(Bytes::from_static(b"event: reset\ndata: {}\n\n"));
            }
            let there = state.objects.iter().filter(|((resource, _), _)| wanted.contains(resource));
            frames.extend(there.map(|(key, object)| self.frame(None, state.revision, key, Some(object))));
            let (run, revision) = (self.run, state.revision);
            let listed = format!("id: {run}-{revision}\nevent: listed\ndata: {{\"revision\":{revision}}}\n\n");
            frames.push(Bytes::from(listed));
        }
        let (queue, frames_in) = mpsc::channel(WAITING);
        state.watchers.push(Watcher { wanted, queue, cut });
        (frames, frames_in)
    }

    /// Says to all that the stream is alive; those that are gone are forgotten.
    pub(super) fn keep_alive(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let word = Bytes::from_static(b":\n\n");
        // One whose queue is full is cut at its next event.
        state.watchers.retain(|w| !matches!(w.queue.try_send(word.clone()), Err(TrySendError::Closed(_))));
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

//! Changes as server-sent events. One task compares what the halves show with what it told last, and hands each
//! difference, rendered once, to all watchers. A watcher that does not keep up is cut off; it comes back with
//! `Last-Event-ID` and misses nothing, as long as its place is among the last changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error};

use super::extract::Asked;
use super::limits::Limits;
use super::problem::{Kind, Refused};
use super::server::Cut;
use super::status::Sources;
use super::{inspect, instances, services};
use crate::model::Timestamp;
use crate::stop::Stop;

/// Changes that are remembered for those who come back.
const REMEMBERED: usize = 4096;
/// Changes that may wait for one watcher.
const WAITING: usize = 256;
/// Between two comparisons: a thousand probes a second are no thousand comparisons.
const PAUSE: Duration = Duration::from_millis(100);
/// A word to each watcher, so that one that is gone is noticed.
const ALIVE: Duration = Duration::from_secs(15);

/// Kinds of things that are watched.
const RESOURCES: [&str; 7] = ["configuration", "decisions", "instances", "networks", "nodes", "services", "tables"];

/// What to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchFilter {
    /// Kinds of things, separated by commas: configuration, decisions, instances, networks, nodes, services, tables. All
    /// where none is named.
    #[serde(default)]
    pub resources: Option<String>,
}

/// A kind of thing and its name.
type Key = (&'static str, String);

/// One change, rendered.
#[derive(Debug)]
struct Event {
    revision: u64,
    resource: &'static str,
    frame: Bytes,
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
    fn take(&self, now: BTreeMap<Key, Value>) {
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
    fn join(
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
    fn keep_alive(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let word = Bytes::from_static(b":\n\n");
        // One whose queue is full is cut at its next event.
        state.watchers.retain(|w| !matches!(w.queue.try_send(word.clone()), Err(TrySendError::Closed(_))));
    }
}

/// Compares and tells until `shutdown`.
pub async fn feed(sources: Sources, mut shutdown: Stop) {
    let (mut config, mut operator) = (sources.config.clone(), sources.operator.clone());
    let (mut plan, mut network) = (sources.orchestrator.clone(), sources.network.clone());
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sources.feed.take(objects(&sources));
        tokio::select! {
            () = shutdown.ordered() => return,
            Ok(()) = config.changed() => {}
            Ok(()) = operator.changed() => {}
            Ok(()) = plan.changed() => {}
            Ok(()) = network.changed() => {}
            _ = alive.tick() => sources.feed.keep_alive(),
        }
        sleep(PAUSE).await;
        drop((config.borrow_and_update(), operator.borrow_and_update()));
        drop((plan.borrow_and_update(), network.borrow_and_update()));
    }
}

/// Everything that is watched, as it is.
fn objects(sources: &Sources) -> BTreeMap<Key, Value> {
    let (config, operator, plan) =
        (sources.config.borrow().clone(), sources.operator.borrow().clone(), sources.orchestrator.borrow().clone());
    let mut all = BTreeMap::new();
    let mut put = |resource: &'static str, name: String, object: Result<Value, serde_json::Error>| match object {
        Ok(object) => drop(all.insert((resource, name), object)),
        Err(error) => error!(resource, name, %error, "cannot be told to watchers"),
    };
    for service in services::resources(&config, &operator, &plan) {
        put("services", service.name.to_string(), serde_json::to_value(&service));
    }
    for instance in instances::resources(&operator) {
        put("instances", instance.instance.id.to_string(), serde_json::to_value(&instance));
    }
    for decision in inspect::resources(&plan) {
        put("decisions", decision.service.to_string(), serde_json::to_value(&decision));
    }
    let node = inspect::this_node(&config, &operator);
    put("nodes", node.name.to_string(), serde_json::to_value(&node));
    let tables = serde_json::json!({ "generation": operator.generation, "held": operator.held });
    put("tables", "in-force".to_owned(), Ok(tables));
    put("networks", config.node.to_string(), serde_json::to_value(sources.network_status()));
    let taken = sources.configuration.now();
    let configuration = serde_json::json!({
        "revision": taken.revision, "taken_at": taken.taken_at, "origin": taken.origin, "rejected": taken.rejected,
    });
    put("configuration", config.node.to_string(), Ok(configuration));
    all
}

pub(super) async fn watch(
    State(sources): State<Sources>,
    Extension(limits): Extension<Arc<Limits>>,
    Extension(cut): Extension<Cut>,
    Asked(filter): Asked<WatchFilter>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let wanted = wanted(filter.resources.as_deref())?;
    let Some(place) = limits.watch() else {
        return Err(Refused::coded(Kind::Unavailable, "too_many_watchers", "too many watch already"));
    };
    let behind = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let (first, coming) = sources.feed.join(wanted, behind, cut);
    let body = Body::from_stream(stream::unfold((first.into_iter(), coming, place), next));
    Ok(([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")], body).into_response())
}

type Frames = (std::vec::IntoIter<Bytes>, mpsc::Receiver<Bytes>, OwnedSemaphorePermit);

/// What was there first, then what comes, until the feed lets go.
async fn next((mut first, mut coming, place): Frames) -> Option<(Result<Bytes, std::convert::Infallible>, Frames)> {
    let frame = match first.next() {
        Some(frame) => frame,
        None => coming.recv().await?,
    };
    Some((Ok(frame), (first, coming, place)))
}

fn wanted(named: Option<&str>) -> Result<BTreeSet<&'static str>, Refused> {
    let Some(named) = named else { return Ok(RESOURCES.into()) };
    let known = |name: &str| {
        let found = RESOURCES.into_iter().find(|known| *known == name);
        let wrong = || format!("{name:?} cannot be watched; there are {}", RESOURCES.join(", "));
        found.ok_or_else(|| Refused::new(Kind::Malformed, wrong()))
    };
    named.split(',').map(|name| known(name.trim())).collect()
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;

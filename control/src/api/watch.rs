//! Who watches, and the task that feeds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::error;

use super::extract::Asked;
use super::feed::{Cut, Key, RESOURCES};
use super::limits::Limits;
use super::problem::{Kind, Refused};
use super::status::Sources;
use super::{inspect, instances, services};
use crate::stop::Stop;

/// Between two comparisons: a thousand probes a second are no thousand comparisons.
const PAUSE: Duration = Duration::from_millis(100);
/// A word to each watcher, so that one that is gone is noticed.
const ALIVE: Duration = Duration::from_secs(15);

/// What to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchFilter {
    /// Kinds of things, separated by commas: configuration, decisions, instances, networks, nodes, services, tables. All
    /// where none is named.
    #[serde(default)]
    pub resources: Option<String>,
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

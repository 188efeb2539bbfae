//! The engine's events as ours, over losses and returns of the engine.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};

use super::container::{INSTANCE, OWNER, exit_cause};
use super::engine::{Engine, last_words};
use crate::driver::DriverEvent;
use crate::model::{InstanceId, OwnerId};

/// First and longest pause between attempts to reach the engine again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Where the stream stands.
struct Watch<'a> {
    engine: &'a Engine,
    owner: &'a OwnerId,
    /// The engine's stream, while it is there.
    stream: Option<BoxStream<'static, Result<EventMessage, bollard::errors::Error>>>,
    /// When that stream was made.
    connected: Instant,
    /// Set once [`DriverEvent::Lost`] was told.
    lost: bool,
    /// Before the next attempt to come back.
    pause: Duration,
    /// Asked for from here on, in nanoseconds since the epoch: what happened while the stream was not there is
    /// told afterwards, as far as the engine remembers it.
    since: i64,
    told: VecDeque<DriverEvent>,
}

/// All exits of `owner`'s instances from now on.
pub(super) fn watch<'a>(engine: &'a Engine, owner: &'a OwnerId) -> BoxStream<'a, DriverEvent> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let watch = Watch {
        engine,
        owner,
        stream: None,
        connected: Instant::now(),
        lost: false,
        pause: PAUSE.0,
        since,
        told: VecDeque::new(),
    };
    unfold(watch, |mut watch| async move {
        loop {
            if let Some(event) = watch.told.pop_front() {
                return Some((event, watch));
            }
            watch.step().await;
        }
    })
    .boxed()
}

impl Watch<'_> {
    /// Connects, waits, or takes one event.
    async fn step(&mut self) {
        let Some(stream) = &mut self.stream else { return self.connect().await };
        match stream.next().await {
            Some(Ok(message)) => {
                self.since = message.time_nano.map_or(self.since, |time| time.saturating_add(1));
                if let Some(event) = exited(&message) {
                    let event = explain(self.engine, &message, event).await;
                    self.told.push_back(event);
                }
            }
            Some(Err(error)) => self.lose(&error.to_string()),
            None => self.lose("the stream of events ended"),
        }
    }

    /// Tries once. After a loss it waits first: also an engine that answers and then ends the stream at once, over
    /// and over, is not asked in a tight loop.
    async fn connect(&mut self) {
        if self.lost {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE.1);
        }
        match self.engine.connect().await {
            Ok(client) => {
                let filters = HashMap::from([
                    ("type", vec!["container".to_owned()]),
                    // The second is what Podman calls it when it is asked; it tells the first.
                    ("event", vec!["die".to_owned(), "died".to_owned()]),
                    ("label", vec![format!("{OWNER}={}", self.owner), INSTANCE.to_owned()]),
                ]);
                let since = format!("{}.{:09}", self.since / 1_000_000_000, self.since % 1_000_000_000);
                let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
                self.stream = Some(client.events(Some(options)).boxed());
                self.connected = Instant::now();
                if std::mem::take(&mut self.lost) {
                    self.told.push_back(DriverEvent::Back);
                }
            }
            Err(error) => self.lose(&error.to_string()),
        }
    }

    /// Told once, however often the attempts to come back fail.
    fn lose(&mut self, cause: &str) {
        tracing::debug!(cause, "events of the engine were lost");
        // A stream that held for longer than the longest pause: this is a new loss, not the same one again.
        if self.stream.take().is_some() && self.connected.elapsed() > PAUSE.1 {
            self.pause = PAUSE.0;
        }
        if !std::mem::replace(&mut self.lost, true) {
            self.told.push_back(DriverEvent::Lost);
        }
    }
}

/// Adds what the instance wrote last where it failed by itself and was not ended by a signal.
async fn explain(engine: &Engine, message: &EventMessage, event: DriverEvent) -> DriverEvent {
    let DriverEvent::Exited { id, cause } = event else { return event };
    let handle = message.actor.as_ref().and_then(|actor| actor.id.as_deref());
    let (true, Some(handle)) = (matches!(exit_code(message), Some(1..=128)), handle) else {
        return DriverEvent::Exited { id, cause };
    };
    match engine.client().await {
        Ok(client) => DriverEvent::Exited { id, cause: format!("{cause}; {}", last_words(&client, handle).await) },
        Err(_) => DriverEvent::Exited { id, cause },
    }
}

/// The exit that a message tells of; other messages, and those of others' containers, tell none.
fn exited(message: &EventMessage) -> Option<DriverEvent> {
    let attributes = message.actor.as_ref()?.attributes.as_ref()?;
    let id = InstanceId::new(attributes.get(INSTANCE)?.as_str()).ok()?;
    let cause = exit_code(message).map_or_else(|| "unknown cause".to_owned(), exit_cause);
    Some(DriverEvent::Exited { id, cause })
}

fn exit_code(message: &EventMessage) -> Option<i64> {
    message.actor.as_ref()?.attributes.as_ref()?.get("exitCode")?.parse().ok()
}

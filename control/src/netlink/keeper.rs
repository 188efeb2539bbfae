//! Keeps the kernel's networks as they are wanted: at start, when netlink tells of a change, and on a timer.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};

use super::diff::{self, Hazard};
use super::error::{NetError, Result};
use super::forward::{self, Forwards};
use super::step::Step;
use super::{Net, seen, uplinks};
use crate::model::{NetChange, Timestamp, in_full};

/// What the kernel tells of by itself. Neighbours are told of each time one is asked for, so of these only removals
/// count.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Tc,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// After this time everything is looked at, whether or not an event said so.
const AUDIT_INTERVAL: Duration = Duration::from_secs(30);
/// How often forwarded connections are counted while there are forwards. The kernel tells of none.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// One command of an operator makes several events; they are looked at together.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks at all links at least this time passes, however many events there are.
const PAUSE: Duration = Duration::from_millis(100);
/// Somebody who undoes each repair at once is not answered ever faster: after each so many repairs in a row the pause
/// doubles, up to [`LONGEST_PAUSE`].
const REPAIRS_PER_PAUSE: u32 = 50;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Repairs are in a row where so little time lies between them.
const ROW: Duration = Duration::from_secs(10);
/// Until something that failed is tried again, and until a lost socket is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// Told of each port that lost its filters, by interface: whoever counts there has to do it again.
pub type OnPort = Box<dyn Fn(&str) + Send + Sync>;

/// The task that keeps a [`Net`].
pub struct Keeper {
    net: Arc<Net>,
    on_port: OnPort,
    /// Hazards that were told.
    told: Vec<String>,
    /// Links of others that were shaped at the last look.
    shaped: Vec<String>,
    /// Repairs in a row, and when the last one was.
    row: (u32, Option<Instant>),
}

/// Why there is a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The daemon started, or something was declared: what is missing was never there.
    Intent,
    /// What is missing was taken away.
    Drift,
}

/// The kernel's events, or none while there is no socket.
struct Events {
    stream: futures_util::stream::BoxStream<'static, bool>,
    connection: JoinHandle<()>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Events {
    /// Listens in the calling thread's network namespace.
    fn open() -> Result<Self> {
        let opened = rtnetlink::new_multicast_connection(&GROUPS);
        let (connection, _, messages) = opened.map_err(|source| NetError::Refused {
            operation: "listen on",
            object: "netlink socket".to_owned(),
            source,
        })?;
        let stream = messages.map(|(message, _)| matters(&message)).boxed();
        Ok(Self { stream, connection: tokio::spawn(connection) })
    }

    /// Ends when something happened; `false` where the socket was lost. Cancel-safe.
    async fn next(&mut self) -> bool {
        loop {
            match self.stream.next().await {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
    }
}

/// Whether an event can be about something of ours.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    !matches!(message.payload, NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(_)))
}

impl Keeper {
    /// A keeper of `net`; `on_port` is told of ports that lost their filters.
    #[must_use]
    pub fn new(net: Arc<Net>, on_port: OnPort) -> Self {
        Self { net, on_port, told: Vec::new(), shaped: Vec::new(), row: (0, None) }
    }

    /// Looks and mends until `stop` ends. What it has made stays.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let net = Arc::clone(&self.net);
        let count = async move {
            let mut ticks = interval(COUNT_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if net.wanted().forwards.as_ref().is_some_and(|forwards| !forwards.all.is_empty()) {
                    net.count_forwarded();
                }
            }
        };
        tokio::select! {
            () = self.keep(stop) => {}
            () = count => {}
        }
    }

    async fn keep(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut intents = self.net.intents.subscribe();
        let mut audit = interval(AUDIT_INTERVAL);
        audit.set_missed_tick_behavior(MissedTickBehavior::Delay);
        audit.reset();
        let mut events = None;
        let mut cause = Cause::Intent;
        loop {
            if events.is_none() {
                match Events::open() {
                    Ok(opened) => events = Some(opened),
                    Err(error) => warn!(error = %in_full(&error), "changes by others are seen on the timer only"),
                }
            }
            // Opened before the look: what changes meanwhile is an event.
            intents.borrow_and_update();
            let looked = Instant::now();
            let again = if self.look(cause).await { None } else { Some(looked + RETRY) };
            let retry = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let listening = events.is_some();
            let event = async {
                match &mut events {
                    Some(events) => events.next().await,
                    None => {
                        sleep(RETRY).await;
                        false
                    }
                }
            };
            tokio::select! {
                () = &mut stop => return,
                happened = event => {
                    cause = Cause::Drift;
                    if !happened && listening {
                        warn!("the netlink socket was lost; it is opened again");
                        sleep(RETRY).await;
                    }
                    if !happened {
                        events = None;
                    }
                }
                changed = intents.changed() => {
                    if changed.is_err() { return }
                    cause = Cause::Intent;
                }
                () = retry => {}
                _ = audit.tick() => cause = Cause::Drift,
            }
            sleep(GATHER).await;
            sleep_until(looked + self.pause()).await;
            if let Some(events) = &mut events {
                drain(events);
            }
        }
    }

    /// Time between the start of a look and the next.
    fn pause(&self) -> Duration {
        let doublings = (self.row.0 / REPAIRS_PER_PAUSE).min(8);
        (PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
    }

    /// One look; false where something failed that is to be tried again.
    async fn look(&mut self, cause: Cause) -> bool {
        // Rules that go take their counts with them.
        self.net.count_forwarded();
        let outcome = self.net.mend(&self.shaped).await;
        let (done, failed, hazards) = match outcome {
            Ok(Mended { done, failed, hazards }) => (done, failed, hazards),
            Err(error) => (Vec::new(), vec![in_full(&error)], Vec::new()),
        };
        self.shaped = uplinks(&self.net.wanted());
        self.net.count_forwarded();
        if cause == Cause::Drift && !done.is_empty() {
            let now = Instant::now();
            let in_a_row = self.row.1.is_some_and(|last| now - last < ROW);
            self.row = (if in_a_row { self.row.0 + 1 } else { 1 }, Some(now));
        }
        for step in &done {
            let NetChange { object, name, what } = step.change();
            match cause {
                Cause::Intent => info!(object, name, what, "network"),
                Cause::Drift => warn!(object, name, what, "network: changed by somebody else, put back"),
            }
            match step {
                Step::RestorePort(id) => (self.on_port)(&id.interface()),
                Step::AddClsact { link } => (self.on_port)(link),
                _ => {}
            }
        }
        let texts: Vec<String> = hazards.into_iter().map(|h| h.text).collect();
        for text in texts.iter().filter(|text| !self.told.contains(text)) {
            warn!(hazard = text, "network: not ours to change");
        }
        for text in self.told.iter().filter(|text| !texts.contains(text)) {
            info!(hazard = text, "network: no more");
        }
        self.told.clone_from(&texts);
        let problem = (!failed.is_empty()).then(|| failed.join("; "));
        self.net.report.send_modify(|report| {
            if cause == Cause::Drift {
                for step in &done {
                    report.note(Timestamp::now(), step.change());
                }
            }
            report.failures += u64::from(problem.is_some());
            if problem.is_some() && report.problem != problem {
                warn!(problem, "network: not as it shall be; tried again");
            }
            report.problem.clone_from(&problem);
            report.hazards = texts;
        });
        problem.is_none()
    }
}

/// Takes out what has happened before the look that follows.
fn drain(events: &mut Events) {
    use futures_util::FutureExt as _;
    while let Some(Some(_)) = events.stream.next().now_or_never() {}
}

/// What one look has done.
struct Mended {
    done: Vec<Step>,
    /// What could not be done, each with its reason.
    failed: Vec<String>,
    hazards: Vec<Hazard>,
}

impl Net {
    /// Does what can be done so that the kernel has what is wanted; one failure does not keep the rest.
    async fn mend(&self, shaped_before: &[String]) -> Result<Mended> {
        let _changes = self.changes.lock().await;
        let wanted = self.wanted().clone();
        let seen = seen::look(&self.handle, &self.owner, &wanted).await?;
        let diff = diff::diff(&self.owner, &wanted, &seen, shaped_before);
        let mut mended = Mended { done: Vec::new(), failed: Vec::new(), hazards: diff.hazards };
        for step in diff.steps {
            match self.execute(&step).await {
                Ok(()) => mended.done.push(step),
                Err(error) => mended.failed.push(in_full(&error)),
            }
        }
        if let Some(forwards) = &wanted.forwards {
            self.mend_forwards(forwards, &mut mended);
        }
        Ok(mended)
    }

    /// Writes down what is forwarded and how many connections that has taken.
    fn count_forwarded(&self) {
        let Some(wanted) = self.wanted().forwards.clone() else { return };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if tally.is_idle(&wanted) {
            return;
        }
        // Why it could not be read was told by the look.
        let table = self.nft.read().ok().flatten().unwrap_or_default();
        let (forwards, total) = tally.count(&wanted, &table);
        self.report.send_if_modified(|report| {
            let news = report.forwards != forwards || report.forwarded != total;
            report.forwards = forwards;
            report.forwarded = total;
            news
        });
    }

    fn mend_forwards(&self, wanted: &Forwards, mended: &mut Mended) {
        let change = self.nft.read().map(|table| forward::change(wanted, table.as_ref()));
        let done = change.and_then(|change| {
            let Some(change) = change else { return Ok(()) };
            self.nft.apply(&change)?;
            mended.done.push(Step::Forward(change));
            Ok(())
        });
        match done {
            Err(error) if forward::is_missing(&error) && wanted.on => {
                mended.hazards.push(Hazard { text: forward::hazard(&error), blocks: false });
            }
            // Nothing is wanted of a kernel that has no such thing.
            Err(error) if forward::is_missing(&error) => {}
            Err(error) => mended.failed.push(in_full(&error)),
            Ok(()) => {}
        }
    }
}

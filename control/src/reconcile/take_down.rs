//! One instance's way down: out of the answers first (the operator did that), then the largest TTL that
//! was handed out, then until its clients have left ([`drain`](super::drain)), then stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::bring_up::remove;
use super::drain::{Drain, Ended, Patience, Seen};
use super::{Event, World};
use crate::driver::Driver;
use crate::model::{Instance, InstanceState, Timestamp};

/// How often the kernel's counts are read while traffic runs out. There is no event for "no packet came".
const QUIET_POLL: Duration = Duration::from_millis(100);
/// What an instance gets to end by itself before it is killed; clients have left by then.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How a removal went.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing is left.
    Gone {
        /// Stop to gone, in milliseconds.
        removal_ms: f64,
        /// How its traffic ended, for people.
        reason: String,
    },
    /// Something is left; to be tried again.
    Failed(String),
}

/// What a removal needs to know.
pub(super) struct TakeDown {
    pub world: Arc<World>,
    pub driver: Arc<dyn Driver>,
    pub instance: Instance,
    pub events: mpsc::Sender<Event>,
    /// `None` where nobody can be talking to it: never published, or dead already.
    pub patience: Option<Patience>,
    /// The instance's start or watch, told to end; its step in hand is finished first.
    pub after: Option<JoinHandle<()>>,
}

impl TakeDown {
    /// Drains, stops, removes and reports.
    pub async fn run(mut self) {
        if let Some(task) = self.after.take()
            && let Err(error) = task.await
        {
            warn!(instance = %self.instance.id, %error, "its task ended badly");
        }
        let reason = match self.patience {
            Some(patience) => self.drain(patience).await,
            None => "was not in use".to_owned(),
        };
        let begun = Instant::now();
        let grace = if self.patience.is_some() { STOP_GRACE } else { Duration::ZERO };
        let outcome = match remove(&self.world, self.driver.as_ref(), &self.instance, grace).await {
            Ok(()) => Outcome::Gone { removal_ms: begun.elapsed().as_secs_f64() * 1e3, reason },
            Err(error) => Outcome::Failed(error),
        };
        let _ = self.events.send(Event::TakenDown { id: self.instance.id.clone(), outcome }).await;
    }

    async fn drain(&self, patience: Patience) -> String {
        // An answer handed out just before the publish may be used for its whole TTL: time itself is
        // what is waited for here.
        sleep(patience.ttl).await;
        let begun = Instant::now();
        let mut drain = Drain::begin(patience, (begun, Timestamp::now()), &self.seen(self.packets().await));
        let first = drain.report();
        let mut told = Some(first.clone());
        let _ = self.events.send(Event::Draining { id: self.instance.id.clone(), report: first }).await;
        let mut ticks = interval(QUIET_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            ticks.tick().await;
            let (now, packets) = (Instant::now(), self.packets().await);
            if !drain.wants_connections(now, packets) {
                drain.goes_on(now, packets);
                continue;
            }
            let ended = drain.look(now, &self.seen(packets));
            if let Some(ended) = ended {
                break ended;
            }
            let report = drain.report();
            if told.as_ref() != Some(&report) {
                told = Some(report.clone());
                let _ = self.events.send(Event::Draining { id: self.instance.id.clone(), report }).await;
            }
        };
        let (instance, waited, late) = (&self.instance.id, begun.elapsed(), drain.report().late_clients);
        if !late.is_empty() {
            warn!(%instance, clients = ?late, "clients came after the last answer that named it had run out");
        }
        match ended {
            Ended::Unused => {
                info!(%instance, ?waited, "traffic has ended");
                "its traffic has ended".to_owned()
            }
            Ended::Cut { open } => {
                warn!(%instance, deadline = ?patience.deadline, open, "stopped while clients still use it");
                match open {
                    Some(open) => format!("still had traffic after {:?}, {open} connections open", patience.deadline),
                    None => format!("still had traffic after {:?}", patience.deadline),
                }
            }
        }
    }

    fn seen(&self, packets: Option<u64>) -> Seen {
        // One that has failed keeps nobody by a connection over which nothing comes.
        let kept = self.instance.state != InstanceState::Failed;
        let open = kept.then(|| self.world.datapath.connections(&self.instance.id.interface())).flatten();
        let open = open.map(|all| all.into_iter().map(|c| (c.client.ip(), c.age)).collect());
        Seen { packets, open }
    }

    /// Packets to and from the instance so far: the program's counts at its interface, or the interface's
    /// own where the program could not be attached.
    async fn packets(&self) -> Option<u64> {
        if let Some(flow) = self.world.datapath.flow(&self.instance.id.interface()) {
            return Some(flow.packets_to + flow.packets_from);
        }
        let counters = self.world.net.port_counters(&self.instance.id).await.ok()??;
        Some(counters.from_instance_packets + counters.to_instance_packets)
    }
}

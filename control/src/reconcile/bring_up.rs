//! One instance's way up: image, port, start, network, probe; then its health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};
use tracing::warn;

use super::health::{Change, Health};
use super::probe::Probe;
use super::{Event, ProbeReport, World};
use crate::dns::Stage;
use crate::driver::{Attachment, Driver, InstanceSpec};
use crate::model::{Instance, InstanceState, PortKind, ServiceSpec, Timestamp, in_full};
use crate::netlink::{BeforeUp, BridgeSpec, Port, PortSpec};

/// Readiness is asked for again when this part of the time so far has passed once more, so that at most this part of it
/// is waited too long; not sooner and not later than these bounds. The paper (section III) asks every 0.1 s.
const READINESS_PART: u32 = 8;
const READINESS_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// What a start needs to know; owned, so that the task borrows nothing of the operator.
pub(super) struct BringUp {
    pub world: Arc<World>,
    pub driver: Arc<dyn Driver>,
    pub service: ServiceSpec,
    pub instance: Instance,
    pub events: mpsc::Sender<Event>,
    /// Ordered when the instance is not wanted any more; looked at between steps, never inside one,
    /// so that no step is left half done.
    pub cancelled: crate::stop::Stop,
    /// The instance serves already (adopted): only its health is watched.
    pub resume: bool,
}

/// Why a start ended early.
enum Stop {
    /// It is not wanted any more; whoever said so cleans up.
    Cancelled,
    /// It failed; this text says at what.
    Failed(String),
}

impl BringUp {
    /// Runs the start, then watches the instance until it fails or is not wanted any more.
    pub async fn run(mut self) {
        let probe = self.probe();
        let outcome = if self.resume { Ok(()) } else { self.come_up(&probe).await };
        match outcome {
            Ok(()) => self.watch_health(&probe).await,
            Err(Stop::Cancelled) => {}
            // What was made is removed by the way down, which every failed instance takes.
            Err(Stop::Failed(reason)) => self.tell(Event::Failed { id: self.instance.id.clone(), reason }).await,
        }
    }

    async fn come_up(&mut self, probe: &Probe) -> Result<(), Stop> {
        self.start().await?;
        self.until_ready(probe).await
    }

    fn probe(&self) -> Probe {
        Probe {
            addresses: self.instance.addresses,
            port: self.service.port,
            path: self.service.probe_path.clone(),
            timeout: self.service.probing.timeout,
        }
    }

    async fn start(&mut self) -> Result<(), Stop> {
        let failed = |what: &str, error: &dyn std::error::Error| Stop::Failed(format!("{what}: {}", in_full(error)));
        let spec = InstanceSpec::of(&self.service, self.instance.id.clone(), self.world.owner.clone());
        let Some(bridge) = self.world.bridges.get(&self.instance.technology).cloned() else {
            return Err(Stop::Failed(format!("{}: no bridge is configured", self.instance.technology.label())));
        };

        self.advance(InstanceState::Fetching, "looking for the image", None).await?;
        self.fetch(&spec).await?;

        self.advance(InstanceState::Starting, "image is there", None).await?;
        let port = port_spec(&self.instance, bridge, &self.service, self.driver.port());
        let count = |interface: &str| {
            if let Err(error) = tokio::task::block_in_place(|| self.world.datapath.count_flows(interface)) {
                // The drain then falls back on the interface's own counters.
                warn!(interface, error = %in_full(&error), "packets cannot be counted");
            }
        };
        let made = self.world.net.create_port_with(&port, &count).await;
        let mut port = made.map_err(|e| failed("port", &e))?;
        self.reached(Stage::Port);
        let handle = self.launch(&spec, &mut port, &count).await?;
        self.reached(Stage::Started);
        self.advance(InstanceState::Starting, "started", Some(handle)).await
    }

    /// Has the driver start the instance and gives it its port; the driver's handle.
    async fn launch(&self, spec: &InstanceSpec, port: &mut Port, count: BeforeUp<'_>) -> Result<String, Stop> {
        let failed = |what: &str, error: &dyn std::error::Error| Stop::Failed(format!("{what}: {}", in_full(error)));
        let running = self.driver.start(spec, attachment(port)).await.map_err(|e| failed("start", &e))?;
        let Some(end) = running.end else {
            return Err(Stop::Failed("start: it ended at once".to_owned()));
        };
        self.world.net.attach_port_with(port, end, count).await.map_err(|e| failed("network", &e))?;
        Ok(running.handle)
    }

    /// Waits for the image and tells how far it is. Not wanted any more ends this at once.
    async fn fetch(&mut self, spec: &InstanceSpec) -> Result<(), Stop> {
        let (events, id) = (self.events.clone(), self.instance.id.clone());
        let tell = move |reason: String| {
            // A report that finds no room is followed by another.
            let _ =
                events.try_send(Event::Advanced { id: id.clone(), to: InstanceState::Fetching, reason, handle: None });
        };
        tokio::select! {
            fetched = self.driver.fetch(spec, &tell) => {
                fetched.map_err(|error| Stop::Failed(format!("image: {}", in_full(&error))))
            }
            () = self.cancelled.ordered() => Err(Stop::Cancelled),
        }
    }

    /// Asks until the first answer or the deadline. A question may wait for its answer while the next is asked: what the
    /// first packet of one runs into (a monitor that resets its device drops it) is not what the next one does.
    async fn until_ready(&mut self, probe: &Probe) -> Result<(), Stop> {
        let begun = Instant::now();
        let mut cancelled = self.cancelled.clone();
        let mut asked = FuturesUnordered::new();
        asked.push(ask(probe));
        let mut again = begun + READINESS_PAUSES.0;
        loop {
            let report = tokio::select! {
                () = cancelled.ordered() => return Err(Stop::Cancelled),
                Some(report) = asked.next() => report,
                () = sleep_until(again.into()) => {
                    asked.push(ask(probe));
                    let pause = (begun.elapsed() / READINESS_PART).clamp(READINESS_PAUSES.0, READINESS_PAUSES.1);
                    again = Instant::now() + pause;
                    continue;
                }
            };
            let Some(error) = report.error.clone() else {
                self.reached(Stage::Ready);
                // First what others wait for.
                self.advance(InstanceState::Ready, "answered its probe", None).await?;
                self.probed(report).await;
                return Ok(());
            };
            self.probed(report).await;
            if begun.elapsed() > self.service.start_deadline {
                let after = self.service.start_deadline;
                return Err(Stop::Failed(format!("not ready within {after:?}: {error}")));
            }
        }
    }

    async fn watch_health(&mut self, probe: &Probe) {
        let probing = self.service.probing;
        // It has just answered one.
        let mut ticks = interval_at(tokio::time::Instant::now() + probing.interval, probing.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = Health::new(probing);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.cancelled.ordered() => return,
            }
            let report = ask(probe).await;
            let error = report.error.clone();
            self.probed(report).await;
            let id = self.instance.id.clone();
            let why = || format!("missed {} probes: {}", probing.fall, error.clone().unwrap_or_default());
            match health.probed(Instant::now(), error.is_none()) {
                None => {}
                Some(Change::Out) => self.tell(Event::Unwell { id, why: Some(why()) }).await,
                Some(Change::Back) => self.tell(Event::Unwell { id, why: None }).await,
                Some(Change::Replace) => {
                    let reason = format!("out of the answers for {:?}; {}", probing.replace_after, why());
                    self.tell(Event::Failed { id, reason }).await;
                    return;
                }
            }
        }
    }

    async fn probed(&self, report: ProbeReport) {
        self.tell(Event::Probed { id: self.instance.id.clone(), report }).await;
    }

    /// Notes that a start by a query has got so far.
    fn reached(&self, stage: Stage) {
        self.world.summons.reached(&self.service.name, stage);
    }

    /// Tells the next state, unless the instance is not wanted any more.
    async fn advance(&self, to: InstanceState, reason: &str, handle: Option<String>) -> Result<(), Stop> {
        if self.cancelled.is_ordered() {
            return Err(Stop::Cancelled);
        }
        self.tell(Event::Advanced { id: self.instance.id.clone(), to, reason: reason.to_owned(), handle }).await;
        Ok(())
    }

    async fn tell(&self, event: Event) {
        // The operator's end of the channel closes at shutdown only; there is nobody left to tell then.
        let _ = self.events.send(event).await;
    }
}

/// One probe.
async fn ask(probe: &Probe) -> ProbeReport {
    let (took_ms, error) = match probe.ask().await {
        Ok(took) => (Some(took.as_secs_f64() * 1e3), None),
        Err(error) => (None, Some(in_full(&error))),
    };
    ProbeReport { at: Timestamp::now(), took_ms, error }
}

/// The port of an instance.
pub(super) fn port_spec(instance: &Instance, bridge: BridgeSpec, service: &ServiceSpec, kind: PortKind) -> PortSpec {
    let (id, addresses) = (instance.id.clone(), instance.addresses);
    PortSpec { instance: id, bridge, addresses, shaping: service.shaping, kind }
}

/// What an instance that configures its own interface is told at its start; `None` of one that is configured from
/// outside. A tap's descriptor goes with it.
pub fn attachment(port: &mut Port) -> Option<Attachment> {
    if port.spec.kind == PortKind::Pair {
        return None;
    }
    let (addresses, bridge) = (port.spec.addresses, &port.spec.bridge);
    let v6 = addresses.v6.zip(bridge.v6).map(|(address, (gateway, net))| (address, net.prefix_len(), gateway));
    Some(Attachment {
        interface: port.interface.clone(),
        descriptor: port.descriptor.take(),
        mac: port.mac,
        v4: addresses.v4.map(|address| (address, bridge.v4.1.prefix_len(), bridge.v4.0)),
        v6,
    })
}

/// Stops an instance and gives back its port; goes on after a failure and tells all that failed.
pub(super) async fn remove(
    world: &World,
    driver: &dyn Driver,
    instance: &Instance,
    grace: Duration,
) -> Result<(), String> {
    let mut errors = Vec::new();
    if let Err(error) = driver.stop(&instance.id, grace).await {
        errors.push(in_full(&error));
    }
    world.datapath.forget_flows(&instance.id.interface());
    if let Err(error) = world.net.delete_port(&instance.id).await {
        errors.push(in_full(&error));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

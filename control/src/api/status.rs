//! The status document: what `selvedge status`, `selvedge top` and the metrics show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::configured::{ConfigRequest, Configuration, Origin};
use super::feed::Feed;
use crate::config::Config;
use crate::datapath::audit::AuditReport;
use crate::datapath::{Costs, Datapath, InterfaceStatus, MapFill, TransitStatus};
use crate::dns::{DnsStats, Outcome, SummonRecord, SummonReport, SummonStats, Transport};
use crate::model::{
    Basis, Forecast, Guard, Hold, NetReport, Order, Orders, Override, ServiceName, Timestamp, Transition,
};
use crate::orchestrator::{Fitness, OrchestratorView, WindowRecord};
use crate::orders::Book;
use crate::reconcile::{Command, InstanceReport, LeftReport, OperatorView, TechnologyReport};
use crate::store::{Health, Store};

/// Everything that can be seen of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// When this was written.
    pub at: Timestamp,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Length of a counting period in milliseconds.
    pub window_ms: u64,
    /// Generation of the published tables.
    pub generation: u64,
    /// The order that they stay as they are, if there is one.
    #[serde(default)]
    pub held: Option<Hold>,
    /// Configurations that were refused since the start.
    pub config_rejected: u64,
    /// Where the configuration in force came from.
    #[serde(default)]
    pub config_origin: Origin,
    /// Why the configuration that was given last was refused, one line for each fault.
    #[serde(default)]
    pub config_problems: Vec<String>,
    /// How writing to the store goes.
    #[serde(default)]
    pub store: StoreHealth,
    /// Why the program is not in the kernel, if it is not.
    pub dataplane_problem: Option<String>,
    /// Interfaces, as attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// What others did to the kernel's side, and what became of it.
    #[serde(default)]
    pub audit: AuditReport,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Where replies of other servers that pass through are rewritten.
    pub transit: Vec<TransitStatus>,
    /// What became of these replies.
    pub transit_verdicts: BTreeMap<String, u64>,
    /// How full the kernel's maps are.
    pub maps: Vec<MapFill>,
    /// Milliseconds since the kernel was last told that the daemon is there; `None` where there is no program.
    #[serde(default)]
    pub heartbeat_age_ms: Option<u64>,
    /// What queries cost in the kernel; nothing where that was never measured.
    #[serde(default)]
    pub costs: Option<Costs>,
    /// Limits, lists, and what becomes of stale tables.
    #[serde(default)]
    pub guard: Guard,
    /// What the daemon's own DNS did.
    pub dns: DnsStatus,
    /// Networks.
    #[serde(default)]
    pub network: NetworkStatus,
    /// The newest starts by queries, oldest first.
    #[serde(default)]
    pub summons: Vec<SummonRecord>,
    /// Technologies.
    pub technologies: BTreeMap<String, TechnologyReport>,
    /// Services.
    pub services: BTreeMap<ServiceName, ServiceStatus>,
    /// Publishes that were refused because a service would have become empty.
    pub refused_empty: u64,
    /// Times that a service's TTL was shortened ahead of a removal.
    #[serde(default)]
    pub shortened_ttls: u64,
    /// Publishes that failed.
    pub publish_failures: u64,
    /// Trigger to ready, in milliseconds, newest last.
    pub allocation_ms: Vec<f64>,
    /// Stop to gone, in milliseconds, newest last.
    pub removal_ms: Vec<f64>,
    /// Newest transitions, oldest first.
    pub transitions: Vec<Transition>,
}

/// How writing to the store goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreHealth {
    /// Writes that are on the disk, since the daemon started.
    pub writes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Why the last one failed, if it did. Nothing new is started, stopped or ordered then; what answers goes on, and
    /// what has died leaves the answers.
    pub problem: Option<String>,
}

impl StoreHealth {
    pub(super) fn of(health: &Health) -> Self {
        Self { writes: health.done(), failures: health.failed(), problem: health.problem() }
    }
}

/// How the networks fare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// Changes by others that were undone since the daemon started, by kind of thing.
    pub repairs: BTreeMap<String, u64>,
    /// Looks at the kernel after which not all was as it shall be.
    pub failures: u64,
    /// What hurts but is not ours to change, one sentence each.
    pub hazards: Vec<String>,
    /// Why not all is as it shall be.
    pub problem: Option<String>,
    /// Connections of late clients that went to another instance since the daemon started.
    #[serde(default)]
    pub forwarded: u64,
}

/// What the daemon's own DNS did, by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsStatus {
    /// Over UDP: what the program in the kernel passed on.
    pub udp: BTreeMap<String, u64>,
    /// Over TCP.
    pub tcp: BTreeMap<String, u64>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its names.
    pub names: Vec<String>,
    /// Its technology's label.
    pub technology: String,
    /// Fewest and most instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// TTL of its answers in seconds.
    pub ttl_s: u32,
    /// Wanted instances.
    pub wanted: u32,
    /// Instances in the tables.
    pub serving: u32,
    /// Instances that are prepared ahead and ready, where any shall be.
    #[serde(default)]
    pub prepared: Option<u32>,
    /// From what it is answered: a label of [`Basis`].
    pub basis: String,
    /// Which fallback group stands in, from 1.
    pub fallback_group: Option<u32>,
    /// Why that, for people.
    pub basis_reason: String,
    /// True where its last good answers are kept because nothing serves.
    pub last_good: bool,
    /// Queries for its names, whoever answered.
    pub queries: u64,
    /// Those of them that the program in the kernel has seen; goes on over restarts of the daemon.
    pub queries_in_kernel: u64,
    /// Answered by the program in the kernel.
    pub answered_in_kernel: u64,
    /// Queries that the kernel left without an answer because of a limit.
    #[serde(default)]
    pub limited_in_kernel: u64,
    /// Queries that the kernel saw over IPv6; the others came over IPv4.
    #[serde(default)]
    pub queries_v6_in_kernel: u64,
    /// Answers of the kernel by verdict.
    #[serde(default)]
    pub answers_in_kernel: BTreeMap<String, u64>,
    /// Answered by the daemon.
    pub answered_by_daemon: u64,
    /// What is expected of the running window.
    pub forecast: Option<Forecast>,
    /// What an operator of the machine has ordered of the number of its instances.
    #[serde(default)]
    pub ordered: Option<Order<Override>>,
    /// The last decision in a sentence.
    pub decision: String,
    /// How the forecast comes about.
    pub model: String,
    /// How the forecasts fare.
    #[serde(default)]
    pub fitness: Fitness,
    /// Decisions since the daemon started, by what they rest on and by the bounds that changed them.
    #[serde(default)]
    pub decisions: BTreeMap<String, u64>,
    /// Newest windows, oldest first.
    pub history: Vec<WindowRecord>,
    /// Its instances that are not stopped.
    pub instances: Vec<InstanceStatus>,
    /// What becomes of clients that come to an instance when no answer names it any more: a label of `drain_late`.
    #[serde(default)]
    pub late_clients: String,
    /// Its instances, gone or not, whose late clients go to another.
    #[serde(default)]
    pub left: Vec<LeftStatus>,
    /// How its starts by queries go; nothing of a service that always has an instance.
    #[serde(default)]
    pub summon: SummonReport,
}

/// An instance that has left the answers, and where its late clients go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LeftStatus {
    /// Which, until when, and to whom.
    #[serde(flatten)]
    pub report: LeftReport,
    /// Whether the kernel does it.
    pub in_force: bool,
    /// Connections so far.
    pub connections: u64,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceStatus {
    /// Its record, last probe and share.
    #[serde(flatten)]
    pub report: InstanceReport,
    /// Packets towards it, where they are counted.
    pub packets_to: Option<u64>,
    /// Packets from it.
    pub packets_from: Option<u64>,
    /// TCP connections opened towards it.
    pub connections: Option<u64>,
}

/// Where the status comes from; each part has one writer elsewhere.
#[derive(Clone)]
pub struct Sources {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// The operator's side.
    pub operator: watch::Receiver<Arc<OperatorView>>,
    /// The orchestrator's side.
    pub orchestrator: watch::Receiver<Arc<OrchestratorView>>,
    /// The kernel's side.
    pub datapath: Datapath,
    /// The daemon's own DNS.
    pub dns: Arc<DnsStats>,
    /// Starts by queries.
    pub summons: Arc<SummonStats>,
    /// Networks.
    pub network: watch::Receiver<NetReport>,
    /// Counter indices of the services.
    pub store: Arc<Store>,
    /// How writing to the store goes.
    pub store_health: Arc<Health>,
    /// What is known of the configuration.
    pub configuration: Arc<Configuration>,
    /// The way of orders to take another.
    pub configurations: mpsc::Sender<ConfigRequest>,
    /// Orders of the machine's operators.
    pub book: Arc<Book>,
    /// Changes for watchers.
    pub feed: Arc<Feed>,
    /// The way of orders to the operator.
    pub commands: mpsc::Sender<Command>,
    /// When the daemon started.
    pub started: Instant,
}

impl Sources {
    /// Reads everything at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let config = self.config.borrow().clone();
        let operator = self.operator.borrow().clone();
        let orchestrator = self.orchestrator.borrow().clone();
        let configuration = self.configuration.now();
        let indexes = self.store.service_indexes().unwrap_or_default();
        let counts = self.datapath.counts(indexes.values()).unwrap_or_default();
        let services = config.services.iter().map(|spec| {
            let outlook = orchestrator.services.get(&spec.name).cloned().unwrap_or_default();
            let index = indexes.get(&spec.name).copied();
            let kernel = index.and_then(|i| counts.services.get(i as usize)).copied().unwrap_or_default();
            let daemon = index.map(|i| self.dns.service(i)).unwrap_or_default();
            // The kernel counts what it passes on, too, but not what came where the program is not attached.
            let udp = kernel.queries.max(kernel.ended() + daemon.udp.queries);
            let of_service = operator.instances.values().filter(|r| r.instance.service == spec.name);
            let instances: Vec<InstanceStatus> = of_service.map(|r| self.instance(r)).collect();
            let basis = operator.bases.get(&spec.name).copied().unwrap_or(Basis::Nothing);
            let status = ServiceStatus {
                names: spec.names.clone(),
                technology: spec.technology.label().to_owned(),
                min: spec.min,
                max: spec.max,
                ttl_s: spec.ttl_s,
                wanted: outlook.wanted,
                prepared: spec.prepared.map(|_| operator.prepared.get(&spec.name).copied().unwrap_or_default()),
                serving: instances.iter().filter(|i| i.report.published).count() as u32,
                basis: basis.label().to_owned(),
                fallback_group: basis.group(),
                basis_reason: basis.reason().to_owned(),
                last_good: operator.last_good.contains(&spec.name),
                queries: udp + daemon.tcp.queries,
                queries_in_kernel: kernel.queries,
                answered_in_kernel: kernel.answered(),
                limited_in_kernel: kernel.limited,
                queries_v6_in_kernel: kernel.queries_v6,
                answers_in_kernel: crate::datapath::answers(&kernel),
                answered_by_daemon: daemon.udp.answered + daemon.tcp.answered,
                forecast: outlook.forecast,
                ordered: outlook.ordered,
                decision: outlook.decision,
                model: outlook.model,
                fitness: outlook.fitness,
                decisions: outlook.counts,
                history: outlook.history.into(),
                instances,
                late_clients: spec.drain_late.label().to_owned(),
                left: operator.left.iter().filter(|l| l.left.service == spec.name).map(|l| self.left(l)).collect(),
                summon: self.summons.report(&spec.name),
            };
            (spec.name.clone(), status)
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.node.to_string(),
            at: Timestamp::now(),
            uptime_s: self.started.elapsed().as_secs(),
            window_ms: u64::try_from(config.control.window.as_millis()).unwrap_or(u64::MAX),
            generation: operator.generation,
            held: operator.held.clone(),
            config_rejected: configuration.rejected,
            config_origin: configuration.origin,
            config_problems: configuration.problems,
            store: StoreHealth::of(&self.store_health),
            dataplane_problem: self.datapath.problem(),
            interfaces: self.datapath.interfaces(),
            audit: self.datapath.audited(),
            verdicts: counts.verdicts.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect(),
            transit: self.datapath.transit(),
            transit_verdicts: self.datapath.transit_counts(),
            maps: self.datapath.fill(),
            heartbeat_age_ms: self
                .datapath
                .freshness()
                .and_then(|freshness| u64::try_from(freshness.heartbeat_age?.as_millis()).ok()),
            costs: self.datapath.costs(),
            guard: config.dataplane.guard.clone(),
            dns: DnsStatus { udp: self.outcomes(Transport::Udp), tcp: self.outcomes(Transport::Tcp) },
            network: self.network_status(),
            summons: self.summons.recent(),
            technologies: operator.technologies.iter().map(|(t, r)| (t.label().to_owned(), r.clone())).collect(),
            services: services.collect(),
            refused_empty: operator.refused_empty,
            shortened_ttls: operator.shortened_ttls,
            publish_failures: operator.publish_failures,
            allocation_ms: operator.allocation_ms.iter().copied().collect(),
            removal_ms: operator.removal_ms.iter().copied().collect(),
            transitions: operator.transitions.iter().cloned().collect(),
        }
    }

    /// The orders that stand.
    pub(super) fn orders(&self) -> Arc<Orders> {
        self.book.watch().borrow().clone()
    }

    pub(super) fn network_status(&self) -> NetworkStatus {
        let report = self.network.borrow();
        NetworkStatus {
            repairs: report.repairs.clone(),
            failures: report.failures,
            hazards: report.hazards.clone(),
            problem: report.problem.clone(),
            forwarded: report.forwarded,
        }
    }

    fn left(&self, report: &LeftReport) -> LeftStatus {
        let network = self.network.borrow();
        let forwards: Vec<_> = network.forwards.iter().filter(|f| f.instance == report.left.instance).collect();
        LeftStatus {
            report: report.clone(),
            in_force: !forwards.is_empty(),
            connections: forwards.iter().map(|forward| forward.connections).sum(),
        }
    }

    fn instance(&self, report: &InstanceReport) -> InstanceStatus {
        let flow = self.datapath.flow(&report.instance.id.interface());
        InstanceStatus {
            report: report.clone(),
            packets_to: flow.map(|f| f.packets_to),
            packets_from: flow.map(|f| f.packets_from),
            connections: flow.map(|f| f.connections),
        }
    }

    fn outcomes(&self, transport: Transport) -> BTreeMap<String, u64> {
        Outcome::ALL.iter().map(|o| (o.label().to_owned(), self.dns.outcome(transport, *o))).collect()
    }
}

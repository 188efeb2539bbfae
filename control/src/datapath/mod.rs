//! Snapshot → kernel tables, and counters out. The only module that names `xdp-balancer`.
//!
//! The daemon works without it: where the program cannot be loaded or attached, the daemon's own DNS
//! answers alone, and status, metrics and log say why.

pub mod audit;
pub mod bench;
pub mod capture;
mod costs;
pub mod explain;
pub mod offline;
mod transit;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::AuditReport;
pub use costs::Costs;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{error, info, warn};
pub use transit::TransitStatus;
pub use xdp_balancer::Freshness;
pub use xdp_balancer::OpenConnection;
pub use xdp_balancer::RunAction;
use xdp_balancer::{AttachedMode, Attachment, Dataplane, KernelLog, Limits, Mode, Options, Rules, Sizes, Stale, Table};
use xdp_balancer_common::{Action, CookieSecret, FlowCount, ServiceCount, Verdict};

use crate::config::{self, AttachMode};
use crate::dns::{Below, Index, PublishedName, PublishedRrset, RenderedAnswer, Ring};
use crate::model::{Denied, Guard, QueryLimits, Snapshot, StalePolicy, Staleness, in_full};

/// Why the kernel could not be made to do something.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The loader's own error.
    #[error(transparent)]
    Kernel(#[from] xdp_balancer::Error),
    /// `dataplane.mode = "native"` and the driver cannot.
    #[error("dataplane.mode is \"native\", but {interface} could not be attached so: {source}")]
    Required {
        /// The interface.
        interface: String,
        /// What was met.
        source: xdp_balancer::Error,
    },
    /// The snapshot cannot be rendered.
    #[error("render answers: {0}")]
    Render(#[from] crate::dns::IndexError),
}

/// One interface as it is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceStatus {
    /// Its name.
    pub interface: String,
    /// `native`, `generic`, or `none`.
    pub mode: String,
    /// The kernel's id of the attached program.
    pub program_id: Option<u32>,
    /// Why it is not attached, or not as asked for.
    pub problem: Option<String>,
}

/// How full a kernel map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MapFill {
    /// The map.
    pub map: String,
    /// Entries in use.
    pub used: u64,
    /// Entries that it can hold.
    pub capacity: u64,
}

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelCounts {
    /// Which maps they come from; another value means that the old counts are gone.
    pub epoch: u64,
    /// By verdict label.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// By service index.
    pub services: Vec<ServiceCount>,
}

/// The kernel's side; cheap to clone.
#[derive(Clone)]
pub struct Datapath {
    state: Arc<Mutex<State>>,
    terms: Arc<Terms>,
}

struct State {
    plane: Option<Dataplane>,
    /// Why there is no plane.
    problem: Option<String>,
    interfaces: Vec<InterfaceStatus>,
    /// Interfaces on which a program of another layout goes on until there is a table.
    waiting: Vec<(String, AttachMode)>,
    audit: AuditReport,
    /// Where replies in transit shall be rewritten.
    transit: config::Transit,
    /// Why they are rewritten nowhere.
    transit_problem: Option<String>,
}

impl Datapath {
    /// Must be called in a tokio runtime, which then carries the program's messages to the log.
    ///
    /// Loads or adopts the program and attaches it where the configuration says. Failure is not the end:
    /// what could not be had is in [`Datapath::interfaces`]. Where a program of another layout is attached, `last`, which
    /// was published last, is published first, so that answers go on when ours takes its place.
    ///
    /// # Errors
    /// [`DatapathError::Required`] where the configuration demands driver mode and it cannot be had.
    pub fn open(
        settings: &config::Dataplane,
        terms: Terms,
        has_services: bool,
        last: Option<(&Snapshot, &Index)>,
    ) -> Result<Self, DatapathError> {
        let terms = Arc::new(terms);
        let mut state = State {
            plane: None,
            problem: None,
            interfaces: Vec::new(),
            waiting: Vec::new(),
            audit: AuditReport::new(),
            transit: config::Transit::default(),
            transit_problem: None,
        };
        if settings.interfaces.is_empty() && !has_services {
            info!("no interface and no service is configured; nothing is loaded into the kernel");
            return Ok(Self { state: Arc::new(Mutex::new(state)), terms });
        }
        match Dataplane::open(&Options { pin_dir: settings.pin_dir.clone(), sizes: Sizes::default() }) {
            Ok(mut plane) => {
                if let Some(messages) = plane.take_log() {
                    tokio::spawn(carry_log(messages));
                }
                if let Some((snapshot, index)) = last
                    && plane.generation()? == 0
                    && plane.takes_over()?
                {
                    plane.publish(&table(snapshot, index, &terms))?;
                    info!(
                        generation = snapshot.generation,
                        "tables of another layout are there; published anew in ours"
                    );
                }
                state.plane = Some(plane);
            }
            Err(problem) if settings.mode == AttachMode::Native && !settings.interfaces.is_empty() => {
                let interface = settings.interfaces.join(", ");
                return Err(DatapathError::Required { interface, source: problem });
            }
            Err(problem) => {
                let problem = in_full(&problem);
                error!(problem, "the program cannot be loaded; the daemon answers alone");
                state.problem = Some(problem);
            }
        }
        for interface in &settings.interfaces {
            let status = state.attach(interface, settings.mode)?;
            state.interfaces.push(status);
        }
        state.rewrite(&settings.transit);
        Ok(Self { state: Arc::new(Mutex::new(state)), terms })
    }

    /// Generation of the tables in the kernel; 0 where there are none.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let state = self.lock();
        state.plane.as_ref().and_then(|plane| plane.generation().ok()).unwrap_or(0)
    }

    /// Makes the kernel's tables equal to `snapshot`, all at once.
    ///
    /// # Errors
    /// [`DatapathError`]; the tables are then as they were.
    pub fn publish(&self, snapshot: &Snapshot, index: &Index) -> Result<(), DatapathError> {
        let mut state = self.lock();
        let Some(plane) = state.plane.as_mut() else { return Ok(()) };
        plane.publish(&table(snapshot, index, &self.terms))?;
        for (interface, mode) in std::mem::take(&mut state.waiting) {
            let status = state.attach(&interface, mode)?;
            state.interfaces.retain(|known| known.interface != interface);
            state.interfaces.push(status);
        }
        Ok(())
    }

    /// Tells the program that the daemon is there, and the time that goes into server cookies: seconds since 1970, once
    /// a second.
    pub fn set_time(&self, seconds: u32) {
        if let Some(plane) = self.lock().plane.as_ref() {
            plane.set_time(seconds);
            plane.beat();
        }
    }

    /// Puts rules in force. What the kernel refuses is told in the log; the rules before stay then.
    pub fn set_guard(&self, guard: &Guard) {
        if let Some(plane) = self.lock().plane.as_mut()
            && let Err(error) = plane.set_rules(&rules(guard))
        {
            error!(error = %in_full(&error), "limits and lists could not be given to the kernel");
        }
    }

    /// How old the kernel's tables' last sign of life is; `None` where there are none.
    #[must_use]
    pub fn freshness(&self) -> Option<Freshness> {
        self.lock().plane.as_ref().map(Dataplane::freshness)
    }

    /// Counters, where the program runs; those of the services at least that have these indexes.
    #[must_use]
    pub fn counts<'i>(&self, indexes: impl IntoIterator<Item = &'i u32>) -> Option<KernelCounts> {
        let services = indexes.into_iter().max().map_or(0, |last| last + 1);
        let state = self.lock();
        match state.plane.as_ref()?.counters(services) {
            Ok(counters) => {
                let by_label = Verdict::ALL.iter().map(|v| v.label()).zip(counters.verdicts.iter().copied());
                Some(KernelCounts { epoch: counters.epoch, verdicts: by_label.collect(), services: counters.services })
            }
            Err(error) => {
                warn!(error = %in_full(&error), "counters cannot be read");
                None
            }
        }
    }

    /// True where the program answers on at least one interface, so that its counters hold all UDP queries.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.interfaces().iter().any(|i| i.program_id.is_some())
    }

    /// The configured interfaces, as they are attached now: somebody may have taken the program off.
    #[must_use]
    pub fn interfaces(&self) -> Vec<InterfaceStatus> {
        let state = self.lock();
        let Some(now) = state.plane.as_ref().and_then(|plane| plane.attachments().ok()) else {
            return state.interfaces.clone();
        };
        let current = |known: &InterfaceStatus| match now.iter().find(|a| a.interface == known.interface) {
            Some(attachment) => InterfaceStatus { problem: known.problem.clone(), ..plain(attachment) },
            None if known.program_id.is_none() => known.clone(),
            None => InterfaceStatus {
                mode: "none".to_owned(),
                program_id: None,
                problem: Some("the program was taken off; `selvedge dataplane attach` puts it on again".to_owned()),
                ..known.clone()
            },
        };
        state.interfaces.iter().map(current).collect()
    }

    /// Why the program is not loaded, if it is not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// How full the maps are.
    #[must_use]
    pub fn fill(&self) -> Vec<MapFill> {
        let state = self.lock();
        let Some(Ok(fills)) = state.plane.as_ref().map(Dataplane::fill) else { return Vec::new() };
        fills
            .into_iter()
            .map(|f| MapFill { map: f.map.to_owned(), used: f.used.into(), capacity: f.capacity.into() })
            .collect()
    }

    /// Counts an instance's packets at the host's end of its interface from now on.
    ///
    /// # Errors
    /// [`DatapathError`] where the classifiers cannot be attached.
    pub fn count_flows(&self, interface: &str) -> Result<(), DatapathError> {
        match self.lock().plane.as_mut() {
            Some(plane) => Ok(plane.count_flows(interface)?),
            None => Ok(()),
        }
    }

    /// An instance's packet counts; `None` where they are not counted.
    #[must_use]
    pub fn flow(&self, interface: &str) -> Option<FlowCount> {
        let index = nix::net::if_::if_nametoindex(interface).ok()?;
        self.lock().plane.as_ref()?.flow(index).ok()?
    }

    /// An instance's open connections; `None` where they are not known.
    #[must_use]
    pub fn connections(&self, interface: &str) -> Option<Vec<OpenConnection>> {
        let index = nix::net::if_::if_nametoindex(interface).ok()?;
        let state = self.lock();
        let plane = state.plane.as_ref()?;
        // Kept only where packets are counted.
        plane.flow(index).ok()??;
        plane.connections(index).ok()
    }

    /// Gives back an instance's counter; best before its interface goes.
    pub fn forget_flows(&self, interface: &str) {
        let Ok(index) = nix::net::if_::if_nametoindex(interface) else { return self.forget_lost_flows() };
        let mut state = self.lock();
        let Some(plane) = state.plane.as_mut() else { return };
        if let Err(error) = plane.forget_flow(index) {
            warn!(interface, error = %in_full(&error), "a packet counter could not be given back");
        }
    }

    /// Gives back the counters of interfaces that are gone: a tap goes with its monitor where the daemon that made it has
    /// ended before.
    pub fn forget_lost_flows(&self) {
        let mut state = self.lock();
        let Some(plane) = state.plane.as_mut() else { return };
        let forgotten = plane.flows().and_then(|flows| {
            let mut lost = flows.into_iter().filter(|index| is_lost(*index));
            lost.try_for_each(|index| plane.forget_flow(index))
        });
        if let Err(error) = forgotten {
            warn!(error = %in_full(&error), "packet counters of lost interfaces could not be given back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every method leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is no interface of that index.
fn is_lost(index: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer is as long as a name may be, and lives through the call.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    found.is_null() && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO)
}

/// Hands what the program says (through aya-log) to the log, as it comes.
async fn carry_log(messages: KernelLog) {
    // SAFETY: the descriptor belongs to the ring buffer inside `messages`, which the wrapper owns, so it stays open
    // and the same for as long as it is registered.
    let registered = unsafe { AsyncFd::register_with_interest(messages, Interest::READABLE) };
    let mut messages = match registered {
        Ok(messages) => messages,
        Err(error) => {
            warn!(%error, "messages of the program cannot be waited for");
            return;
        }
    };
    while let Ok(mut ready) = messages.readable_mut().await {
        ready.get_inner_mut().drain();
        ready.clear_ready();
    }
}

impl State {
    fn attach(&mut self, interface: &str, mode: AttachMode) -> Result<InterfaceStatus, DatapathError> {
        let none = |problem: Option<String>| InterfaceStatus {
            interface: interface.to_owned(),
            mode: "none".to_owned(),
            program_id: None,
            problem,
        };
        let Some(plane) = self.plane.as_mut() else { return Ok(none(self.problem.clone())) };
        match plane.attach(interface, mode_of(mode)) {
            Ok(attachment) => Ok(attached(&attachment, mode)),
            Err(source @ xdp_balancer::Error::Unpublished { .. }) => {
                info!(interface, "{source}");
                self.waiting.push((interface.to_owned(), mode));
                Ok(none(Some(source.to_string())))
            }
            Err(source) if mode == AttachMode::Native => {
                Err(DatapathError::Required { interface: interface.to_owned(), source })
            }
            Err(source) => {
                let problem = in_full(&source);
                error!(interface, problem, "not attached; the daemon answers alone here");
                Ok(none(Some(problem)))
            }
        }
    }
}

fn mode_of(mode: AttachMode) -> Mode {
    match mode {
        AttachMode::Auto => Mode::Auto,
        AttachMode::Native => Mode::Native,
        AttachMode::Generic => Mode::Generic,
    }
}

fn plain(attachment: &Attachment) -> InterfaceStatus {
    InterfaceStatus {
        interface: attachment.interface.clone(),
        mode: attachment.mode.map_or("none", AttachedMode::label).to_owned(),
        program_id: Some(attachment.program_id),
        problem: None,
    }
}

fn attached(attachment: &Attachment, asked: AttachMode) -> InterfaceStatus {
    let mut status = plain(attachment);
    if attachment.mode == Some(AttachedMode::Generic) && asked != AttachMode::Generic {
        status.problem = Some("its driver cannot run XDP programs; generic mode is slower".to_owned());
    }
    match &status.problem {
        None => info!(interface = status.interface, mode = status.mode, "attached"),
        Some(problem) => warn!(interface = status.interface, mode = status.mode, problem, "attached"),
    }
    status
}

/// How many of these packets, by verdict label, went back out as answers.
#[must_use]
pub fn answered(verdicts: &BTreeMap<String, u64>) -> u64 {
    ended(verdicts, Action::Answer)
}

/// How many of these packets ended in the kernel without an answer.
#[must_use]
pub fn dropped(verdicts: &BTreeMap<String, u64>) -> u64 {
    ended(verdicts, Action::Drop)
}

fn ended(verdicts: &BTreeMap<String, u64>, action: Action) -> u64 {
    let these = Verdict::ALL.iter().filter(|verdict| verdict.action() == action);
    these.filter_map(|verdict| verdicts.get(verdict.label())).sum()
}

/// A service's answers by verdict label.
#[must_use]
pub fn answers(count: &ServiceCount) -> BTreeMap<String, u64> {
    let answers = Verdict::ALL.iter().filter(|verdict| verdict.action() == Action::Answer).zip(count.answers);
    answers.map(|(verdict, count)| (verdict.label().to_owned(), count)).collect()
}

/// How the kernel is to answer, whatever the names are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Addresses that queries may be sent to.
    pub listen: Vec<IpAddr>,
    /// Answer whatever address a query was sent to.
    pub transparent: bool,
    /// Speak DNS cookies with this secret.
    pub cookies: Option<CookieSecret>,
    /// Leave queries with an EDNS client subnet to the daemon.
    pub client_subnet: bool,
    /// Clients whose queries and packets are no sign that a service is in use.
    pub monitors: Vec<IpNet>,
    /// This node's own addresses towards instances: its probes are none either.
    pub own: Vec<IpAddr>,
}

/// The kernel's form of the rules.
fn rules(guard: &Guard) -> Rules {
    let prefixes = |list: &[IpNet]| list.iter().map(|net| (net.addr(), net.prefix_len())).collect();
    let QueryLimits { per_client, per_service, total, prefix_v4, prefix_v6, slip, amplification } = guard.limits;
    let Staleness { policy, after, ttl_s } = guard.stale;
    // Of two, as the configuration checks.
    let power = |one_in: u32| (one_in != 0).then(|| one_in.ilog2() as u8);
    Rules {
        limits: Limits { client: per_client, service: per_service, total, prefix_v4, prefix_v6, slip, amplification },
        allow: prefixes(&guard.lists.allow),
        deny: prefixes(&guard.lists.deny),
        deny_refuses: guard.lists.denied == Denied::Refuse,
        stale: match policy {
            StalePolicy::Keep => Stale::Keep,
            StalePolicy::Shorten => Stale::Shorten { after, ttl: ttl_s },
            StalePolicy::Pass => Stale::Pass { after },
        },
        sample: power(guard.sample),
        costs: power(guard.cost_sample),
    }
}

/// The kernel's form of a snapshot.
#[must_use]
pub fn table(snapshot: &Snapshot, index: &Index, terms: &Terms) -> Table {
    Table {
        generation: snapshot.generation,
        local: terms.listen.clone(),
        transparent: terms.transparent,
        cookies: terms.cookies,
        client_subnet: terms.client_subnet,
        monitors: terms.monitors.iter().map(|net| (net.addr(), net.prefix_len())).collect(),
        own: terms.own.iter().map(|address| (*address, if address.is_ipv4() { 32 } else { 128 })).collect(),
        names: index.names().map(kernel_name).collect(),
    }
}

fn kernel_name(name: PublishedName<'_>) -> xdp_balancer::Name {
    let rrset =
        |rrset: &PublishedRrset<'_>| xdp_balancer::Rrset { qtype: rrset.qtype, ring: rrset.ring.map(kernel_ring) };
    xdp_balancer::Name {
        wire: name.wire.to_vec(),
        service: name.service,
        rrsets: name.rrsets.iter().map(rrset).collect(),
        others: name.others.map(kernel_ring),
        below: match name.below {
            Below::UserSpace => xdp_balancer::Below::UserSpace,
            Below::Denied(ring) => xdp_balancer::Below::Denied(kernel_ring(ring)),
            Below::Wildcard => xdp_balancer::Below::Wildcard,
        },
    }
}

/// The same for as long as the ring lives, by which the kernel's side knows what it has already.
fn kernel_ring(ring: &Arc<Ring>) -> Arc<xdp_balancer::Ring> {
    ring.twin(|ring| {
        let rendered = |answer: &RenderedAnswer| xdp_balancer::Rendered {
            flags: answer.flags,
            ancount: answer.ancount,
            nscount: answer.nscount,
            arcount: answer.arcount,
            bytes: answer.bytes.clone(),
        };
        let answers = ring.answers.iter().map(rendered).collect();
        xdp_balancer::Ring { answers, turns: ring.turns.clone(), by_client: ring.by_client }
    })
}

//! Builds every part, joins them with channels, and owns the order of start and shutdown. The only place
//! that knows all modules.

mod accepted;
mod breakglass;
mod clear;
mod counts;
mod images;
mod logging;
mod network;
mod privileges;
mod reload;
mod signals;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use xdp_balancer_common::CookieSecret;

use crate::api::{ApiError, Configuration, Feed, Origin, Sources, feed, serve_metrics, serve_socket, serve_tcp};
use crate::config::{Config, ConfigErrors};
use crate::datapath::{Datapath, DatapathError, Terms};
use crate::dns::{BindError, DnsStats, Index, IndexError, Listeners, Policy, SummonChannels, SummonStats};
use crate::driver::{Driver, ImageSource, docker::Docker, unikernel, xen};
use crate::model::{InstanceId, OwnerId, Snapshot, Technology, Timestamp, in_full};
use crate::netlink::{Keeper, Net, NetError, OnPort};
use crate::orchestrator::{Orchestrator, OrchestratorView};
use crate::orders::Book;
use crate::reconcile::{Operator, OperatorChannels, OperatorView, World};
use crate::stop::stop;
use crate::store::{Health, SecretError, Store, StoreError, cookie_secret};
use accepted::Loaded;
use counts::{Counts, close_windows};
use reload::Reloader;
use signals::{Signal, Signals, undisturbed};

pub use crate::store::Examination;
pub use breakglass::{BreakGlassError, attach, verify};
pub use clear::{Cleared, clear};
pub use images::registry_settings;
pub use network::{NetworkError, net_apply, net_plan};
pub use store::{StoreCommandError, check_store, dump_store, restore_store};

/// The DNS port.
const DNS_PORT: u16 = 53;

/// Orders for instances that may wait for the operator half: each is of another service.
const MOST_ORDERS: usize = 1024;

/// What the daemon is told on its command line.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Log lines as JSON objects.
    pub json_log: bool,
}

/// Why the daemon could not start. Each is one plain sentence with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// Not enough privileges.
    #[error("{0}")]
    Privileges(#[from] privileges::Missing),
    /// The store cannot be used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The kernel refused, and the configuration does not allow to go on without it.
    #[error("{}", in_full(.0))]
    Datapath(#[from] DatapathError),
    /// A DNS socket cannot be had.
    #[error("{}", in_full(.0))]
    Dns(#[from] BindError),
    /// The last published tables cannot be answered from.
    #[error("stored tables: {0}")]
    Index(#[from] IndexError),
    /// A listener cannot be had.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The image repository cannot be served.
    #[error("{0}")]
    Repository(#[from] crate::images::server::ListenError),
    /// The image store cannot be used.
    #[error("image store: {0}")]
    Images(#[from] crate::images::ImageError),
    /// Netlink cannot be used.
    #[error("netlink: {}", in_full(.0))]
    Netlink(#[from] NetError),
    /// The secret of cookies cannot be had.
    #[error("{}", in_full(.0))]
    Cookies(#[from] SecretError),
    /// Signals cannot be caught.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}

impl StartError {
    /// Exit code: 2 for a wrong configuration, 77 (as `sysexits`' EX_NOPERM) for missing privileges, 1 otherwise.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Privileges(_) => 77,
            _ => 1,
        }
    }
}

/// Runs until SIGTERM or SIGINT. Instances, tables and attached programs stay.
///
/// # Errors
/// [`StartError`]; nothing that was found running has been changed then.
pub async fn run(options: DaemonOptions) -> Result<(), StartError> {
    let Loaded { config, text, origin, problems } = accepted::load(&options.config)?;
    let config = Arc::new(config);
    logging::start(config.control.log, options.json_log);
    privileges::check(&config)?;
    for remark in config.remarks() {
        warn!("{remark}");
    }
    for problem in &problems {
        error!("{problem}");
    }
    if origin == Origin::LastAccepted {
        error!(file = %options.config.display(), "the configuration is wrong: started with the one that was accepted last");
    }
    let started = Instant::now();
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let (stopper, stopped) = stop();

    let store_health = Arc::new(Health::default());
    let store = config.control.state_dir.join(crate::store::FILE_NAME);
    let store = Arc::new(Store::open_watched(&store, store_health.watch())?);
    let book = Arc::new(Book::open(Arc::clone(&store))?);
    if let Err(error) = accepted::keep(&config.control.state_dir, &text) {
        warn!(%error, "the configuration could not be kept");
    }
    let known = Arc::new(Configuration::default());
    known.taken(&options.config.display().to_string(), text, origin, Vec::new(), problems);
    let owner = store.owner_id().clone();
    let cookies = cookies(&config)?;
    let client_subnet_from = config.dns.client_subnet_from.clone();
    let identity = config.node.to_string();
    let guard = config.dataplane.guard.clone();
    let policy = Policy { cookies, client_subnet_from, identity, summon: config.summon.clone(), guard };
    let last = store.snapshot()?;
    let first = Index::new(last.as_ref().unwrap_or(&Snapshot::default()))?;
    let terms = terms(&config, cookies);
    let known_last = last.as_ref().map(|last| (last, &first));
    let datapath = undisturbed(|| Datapath::open(&config.dataplane, terms, !config.services.is_empty(), known_last))?;
    datapath.set_guard(&config.dataplane.guard);
    // A store that was lost must not be behind the kernel's tables, or nothing could be published.
    store.raise_generation(datapath.generation());
    let listeners = Listeners::bind(&config.listen, DNS_PORT)?;
    warn_of_foreign(&config.listen);
    let last = last.unwrap_or_default();
    let hold = store.hold()?;
    let dns = Arc::new(DnsStats::default());
    let (index_in, index) = watch::channel(Arc::new(first));
    // Stays as it is but for the limits, as the listeners do, until a restart.
    let (policy_in, policy) = watch::channel(Arc::new(policy));
    let clock = tokio::spawn(tell_time(datapath.clone()));
    let audit = tokio::spawn(breakglass::keep_dataplane(datapath.clone(), stopped.clone()));

    let net = Arc::new(Net::new(owner.clone())?);
    let summons = Arc::new(SummonStats::default());
    let hands = (Arc::clone(&net), Arc::clone(&store), datapath.clone());
    let told = (Arc::clone(&dns), Arc::clone(&summons), Arc::clone(&book));
    let world = Arc::new(world(&config, &owner, hands, told).await);

    let (desired_in, desired) = watch::channel(None);
    let (observed_in, observed) = watch::channel(Arc::new(crate::model::Observed::unsettled(config.node.clone())));
    let (operator_in, operator_view) = watch::channel(Arc::new(OperatorView::default()));
    let (orchestrator_in, orchestrator_view) = watch::channel(Arc::new(OrchestratorView::default()));
    let (config_in, config_out) = watch::channel(Arc::clone(&config));
    let (windows_in, windows) = mpsc::channel(4);
    let (commands_in, commands) = mpsc::channel(4);
    let (orders_in, orders) = mpsc::channel(MOST_ORDERS);
    let (cold_in, cold) = watch::channel(Arc::default());
    let (configurations_in, mut configurations) = mpsc::channel(4);

    let sources = Sources {
        config: config_out.clone(),
        operator: operator_view,
        orchestrator: orchestrator_view,
        datapath: datapath.clone(),
        dns: Arc::clone(&dns),
        summons: Arc::clone(&summons),
        network: net.report(),
        store: Arc::clone(&store),
        store_health,
        configuration: Arc::clone(&known),
        configurations: configurations_in,
        book: Arc::clone(&book),
        feed: Arc::new(Feed::default()),
        commands: commands_in.clone(),
        started,
    };
    serve_metrics(config.control.metrics, sources.clone(), stopped.clone()).await?;
    serve_tcp(&config.api, sources.clone(), stopped.clone()).await?;
    // Last: whoever has an answer from the socket finds the others, too.
    serve_socket(&config.control.socket, &config.api, sources.clone(), stopped.clone()).await?;
    let told = tokio::spawn(feed(sources, stopped.clone()));
    images::serve_images(&config.images, stopped.clone()).await?;

    let mut dns_stop = stopped.clone();
    let channels = SummonChannels { orders: orders_in, cold, stats: summons };
    let answers = tokio::spawn(listeners.serve(index, policy, Arc::clone(&dns), channels, async move {
        dns_stop.ordered().await;
    }));
    let before = (0, BTreeMap::new());
    let keeper = Keeper::new(Arc::clone(&net), count_again(datapath.clone()));
    let mut keeper_stop = stopped.clone();
    let keeper = tokio::spawn(keeper.run(async move { keeper_stop.ordered().await }));
    let kernel = datapath.clone();
    let connections = counts::Connections::default();
    let counts = Counts { config: config_out.clone(), datapath, dns, store: Arc::clone(&store), before, connections };
    let telemetry = tokio::spawn(close_windows(counts, windows_in, stopped.clone()));
    let orchestrator =
        Orchestrator::new(config.node.clone(), Arc::clone(&store), book.watch(), desired_in, orchestrator_in);
    let orchestrator = tokio::spawn(orchestrator.run(observed, config_out, stopped.clone()));
    let channels = OperatorChannels {
        desired,
        observed: observed_in,
        view: operator_in,
        index: index_in,
        windows,
        commands,
        summons: orders,
        cold: cold_in,
    };
    let operator = Operator::new(world, Arc::clone(&config), last, hold, channels);
    let operator = tokio::spawn(operator.run(stopped));

    info!(version = env!("CARGO_PKG_VERSION"), node = %config.node, %owner, "selvedged is up");
    notify(&[sd_notify::NotifyState::Ready]);
    let path = options.config;
    let reloader =
        Reloader { path, current: config_in, commands: commands_in, net, known, datapath: kernel, policy: policy_in };
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => reloader.signalled().await,
                Signal::Stop => break,
            },
            Some(request) = configurations.recv() => reloader.asked(request).await,
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    clock.abort();
    stopper.stop();
    for (what, task) in [
        ("operator", operator),
        ("orchestrator", orchestrator),
        ("telemetry", telemetry),
        ("watchers", told),
        ("networks", keeper),
        ("audit", audit),
        ("dns", answers),
    ] {
        if let Err(error) = task.await {
            error!(what, %error, "ended badly");
        }
    }
    info!("selvedged ends; programs, tables and instances stay");
    Ok(())
}

/// How the kernel is to answer.
fn terms(config: &Config, cookies: Option<CookieSecret>) -> Terms {
    Terms {
        listen: config.listen.clone(),
        transparent: config.dataplane.transparent,
        cookies,
        client_subnet: !config.dns.client_subnet_from.is_empty(),
        monitors: config.summon.monitors.clone(),
        own: config.gateways(),
    }
}

/// The secret of server cookies, where they are spoken.
fn cookies(config: &Config) -> Result<Option<CookieSecret>, StartError> {
    if !config.dns.cookies {
        return Ok(None);
    }
    Ok(Some(cookie_secret(config.dns.cookie_secret_file.as_deref(), &config.control.state_dir)?))
}

/// Keeps the program's clock, which it takes for its cookies. Should nobody, the cookies grow old and are still good
/// for an hour (RFC 9018, 4.3), and no answer depends on one.
async fn tell_time(datapath: Datapath) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        datapath.set_time(Timestamp::now().seconds());
    }
}

/// A listen address that is not on this machine is allowed, for it may come later; most often it is a mistake.
fn warn_of_foreign(listen: &[std::net::IpAddr]) {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return };
    let own: Vec<std::net::IpAddr> = interfaces
        .filter_map(|i| i.address)
        .filter_map(|a| match (a.as_sockaddr_in(), a.as_sockaddr_in6()) {
            (Some(v4), _) => Some(v4.ip().into()),
            (None, Some(v6)) => Some(v6.ip().into()),
            (None, None) => None,
        })
        .collect();
    for address in listen.iter().filter(|a| !own.contains(a)) {
        warn!(%address, "dns.listen: not an address of this machine now; nobody is answered there until it is");
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    // Not started by systemd is no error, and one that cannot be told is none of the daemon's work.
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd could not be told");
    }
}

/// The operator's hands: a bridge and a driver for each technology that some service uses.
async fn world(
    config: &Config,
    owner: &OwnerId,
    (net, store, datapath): (Arc<Net>, Arc<Store>, Datapath),
    (dns, summons, orders): (Arc<DnsStats>, Arc<SummonStats>, Arc<Book>),
) -> World {
    let mut drivers: BTreeMap<Technology, Arc<dyn Driver>> = BTreeMap::new();
    let mut bridges = BTreeMap::new();
    // What was started for a service that has left the file meanwhile has to be taken down.
    let mut technologies = config.technologies_in_use();
    technologies.extend(store.instances().iter().flatten().map(|instance| instance.technology));
    let images = match images::Unikernels::open(&config.images) {
        Ok(images) => Some(Arc::new(images)),
        Err(error) => {
            error!(error = %in_full(&error), "the image repository cannot be used; unikernels are started from files only");
            None
        }
    };
    for technology in technologies {
        let bridge = network::bridge(config, technology);
        match net.ensure_bridge(&bridge).await {
            Ok(state) => {
                network::note_settings(&store, &bridge.name, &state.changed);
                bridges.insert(technology, bridge);
            }
            Err(error) => {
                error!(bridge = bridge.name, error = %in_full(&error), "no bridge; nothing of this technology can be started");
            }
        }
        drivers.insert(technology, driver(config, technology, owner, images.as_ref()));
    }
    net.intend(network::network(config, bridges.keys().copied()));
    let (node, owner) = (config.node.clone(), owner.clone());
    World { node, owner, orders, store, net, drivers, bridges, datapath, dns, summons }
}

/// Counts an instance's packets anew at a port that lost its filters.
fn count_again(datapath: Datapath) -> OnPort {
    Box::new(move |interface| {
        let port = interface.strip_prefix("sv").is_some_and(|id| InstanceId::new(id).is_ok());
        if port && let Err(error) = datapath.count_flows(interface) {
            warn!(interface, error = %in_full(&error), "packets cannot be counted");
        }
    })
}

/// The one place that knows which driver belongs to which technology.
fn driver(
    config: &Config,
    technology: Technology,
    owner: &OwnerId,
    images: Option<&Arc<images::Unikernels>>,
) -> Arc<dyn Driver> {
    let images = images.map(|images| Arc::clone(images) as Arc<dyn ImageSource>);
    let settings = xen::Settings {
        program: config.technologies.xen.program.clone(),
        store: config.technologies.xen.store.clone(),
    };
    if let Some(driver) = xen::Xen::new(technology, &settings, owner) {
        return match images {
            Some(images) => Arc::new(driver.with_images(images)),
            None => Arc::new(driver),
        };
    }
    let docker = || Arc::new(Docker::new(config.technologies.docker.socket.clone(), owner.clone()));
    let unikernels = &config.technologies.unikernels;
    let Some(monitor) = unikernels.monitors.get(&technology) else { return docker() };
    let settings = unikernel::Settings {
        program: monitor.program.clone(),
        accelerator: monitor.accelerator.label().to_owned(),
        user: unikernels.user.clone(),
        directory: config.control.state_dir.join("unikernels"),
    };
    match unikernel::Unikernel::new(technology, settings, owner.clone()) {
        Some(driver) => match images {
            Some(images) => Arc::new(driver.with_images(images)),
            None => Arc::new(driver),
        },
        None => docker(),
    }
}

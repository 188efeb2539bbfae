//! The process that is killed: operator, store, links and driver as the daemon joins them, with plans and orders that
//! change all the time. Where a report is asked for, nothing fails and the last plan is carried out to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::config::{self, Config};
use control::datapath::{Datapath, Terms};
use control::dns::Index;
use control::driver::Driver;
use control::model::{
    Desired, DesiredService, Drain, InstanceId, InstanceState, Observed, ServiceName, Snapshot, Technology, Timestamp,
};
use control::netlink::{BridgeSpec, Net};
use control::orders::{Book, Giver};
use control::reconcile::{Operator, OperatorChannels, OperatorView, Probe, World};
use control::stop::stop;
use control::store::{FILE_NAME, Store, Write};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::driver::{Chance, Processes, Reaper, Simulated};

/// Longest wait for the last plan to be carried out.
const PATIENCE: Duration = Duration::from_secs(90);

/// What was found when all had settled.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What is not as it is promised.
    pub violations: Vec<String>,
    /// Serving instances.
    pub serving: BTreeMap<ServiceName, BTreeSet<InstanceId>>,
}

/// Runs the node. Nothing where it is run as a test.
pub fn main() {
    let Some(dir) = std::env::var_os("CRASH_DIR").map(PathBuf::from) else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let report = std::env::var_os("CRASH_REPORT").map(PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let seed = number("CRASH_SEED").unwrap();
    runtime.block_on(async {
        match report {
            Some(path) => {
                let node = Node::new(&dir, u64::MAX, None).await;
                let found = node.settle().await;
                std::fs::write(path, serde_json::to_vec(&found).unwrap()).unwrap();
            }
            None => Node::new(&dir, number("CRASH_AT").unwrap(), Some(seed)).await.operate(&Chance::new(seed)).await,
        }
    });
    // What is left is the next one's.
    std::process::exit(0);
}

fn configuration() -> Config {
    let service = |name: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nnames = [\"{name}.edge.test\"]\nimage = \"i\"\nmax = 4\nttl_s = 1\n\
             drain_quiet = \"100ms\"\ndrain_deadline = \"1s\"\nstart_deadline = \"5s\"\n"
        )
    };
    let text = format!(
        "[dns]\nlisten = [\"127.0.0.1\"]\n[limits]\ninstances = 12\n[technology.docker]\npool = \"10.213.0.0/25\"\n\
         [[zone]]\nname = \"edge.test\"\n{}{}",
        service("maps"),
        service("video")
    );
    config::parse(&text, "crash").unwrap_or_else(|e| panic!("{e}"))
}

struct Node {
    dir: PathBuf,
    config: Arc<Config>,
    store: Arc<Store>,
    book: Arc<Book>,
    net: Arc<Net>,
    desired: watch::Sender<Option<Arc<Desired>>>,
    view: watch::Receiver<Arc<OperatorView>>,
    /// Held, for the operator ends with its channels.
    _ends: (control::stop::Stopper, watch::Receiver<Arc<Observed>>, watch::Receiver<Arc<Index>>),
    _inputs: (mpsc::Sender<control::model::WindowReport>, mpsc::Sender<control::reconcile::Command>),
}

impl Node {
    async fn new(dir: &Path, at: u64, faults: Option<u64>) -> Self {
        let config = Arc::new(configuration());
        let reaper = Arc::new(Reaper::new(at));
        let seen = Arc::clone(&reaper);
        let on_write = Box::new(move |write: Write<'_>| match write {
            Write::Begins(what) => seen.point(&format!("before: {what}")),
            Write::Done(what) => seen.point(&format!("after: {what}")),
            Write::Failed(_) => {}
        });
        let store = Store::open_watched(&dir.join("state").join(FILE_NAME), on_write);
        let store = Arc::new(store.unwrap_or_else(|e| panic!("{e}")));
        let owner = store.owner_id().clone();
        let net = Arc::new(Net::new(owner.clone()).unwrap());
        let pool = config.pool(Technology::Docker);
        let bridge =
            BridgeSpec { name: pool.bridge.clone(), v4: (pool.gateway, pool.v4), v6: None, shaping: pool.shaping };
        net.ensure_bridge(&bridge).await.unwrap();
        let faults = faults.map(|seed| Chance::new(seed ^ 0xfa17));
        let driver: Arc<dyn Driver> = Arc::new(Simulated::new(dir, reaper, faults));
        let book = Arc::new(Book::open(Arc::clone(&store)).unwrap());
        let world = World {
            node: config.node.clone(),
            owner,
            orders: Arc::clone(&book),
            store: Arc::clone(&store),
            net: Arc::clone(&net),
            drivers: BTreeMap::from([(Technology::Docker, driver)]),
            bridges: BTreeMap::from([(Technology::Docker, bridge)]),
            // No program: answers are what the daemon's own DNS has.
            datapath: Datapath::open(&config.dataplane, Terms::default(), false, None).unwrap(),
            dns: Arc::default(),
            summons: Arc::default(),
        };
        let last: Snapshot = store.snapshot().unwrap().unwrap_or_default();
        let (index_in, index) = watch::channel(Arc::new(Index::new(&last).unwrap()));
        let (desired, desired_out) = watch::channel(store.desired(&config.node).unwrap().map(Arc::new));
        let (view_in, view) = watch::channel(Arc::new(OperatorView::default()));
        let unsettled = Observed::unsettled(config.node.clone());
        let (observed_in, observed) = watch::channel(Arc::new(unsettled));
        let (windows_in, windows) = mpsc::channel(1);
        let (commands_in, commands) = mpsc::channel(1);
        let (stopper, stopped) = stop();
        let mut first = desired_out;
        // What was wanted before the kill still is.
        first.mark_changed();
        let channels = OperatorChannels {
            desired: first,
            observed: observed_in,
            view: view_in,
            index: index_in,
            windows,
            commands,
            // No service here is at zero.
            summons: mpsc::channel(1).1,
            cold: watch::channel(Arc::default()).0,
        };
        let operator = Operator::new(Arc::new(world), Arc::clone(&config), last, None, channels);
        tokio::spawn(operator.run(stopped));
        Self {
            dir: dir.to_owned(),
            config,
            store,
            book,
            net,
            desired,
            view,
            _ends: (stopper, observed, index),
            _inputs: (windows_in, commands_in),
        }
    }

    /// Other plans and orders, without end.
    async fn operate(self, chance: &Chance) {
        loop {
            let revision = self.desired.borrow().as_ref().map_or(0, |d| d.revision) + 1;
            let wanted = |_| DesiredService {
                replicas: 1 + (chance.next() % 4) as u32,
                reason: "chance".to_owned(),
                fewer_soon: false,
                prepared: 0,
            };
            let services = self.config.services.iter().map(|s| (s.name.clone(), wanted(s))).collect();
            let desired = Desired { revision, node: self.config.node.clone(), services };
            tokio::task::block_in_place(|| self.store.put_desired(&desired)).unwrap();
            self.desired.send_replace(Some(Arc::new(desired)));
            tokio::time::sleep(Duration::from_millis(200 + chance.next() % 1500)).await;
            let ids: Vec<InstanceId> = self.view.borrow().instances.keys().cloned().collect();
            if let Some(id) = ids.get(chance.next() as usize % (3 * ids.len()).max(1)) {
                let what = [Drain::Stop, Drain::Remove, Drain::Keep][chance.next() as usize % 3];
                let giver = Giver { by: "chance".to_owned(), reason: String::new(), expected: None };
                tokio::task::block_in_place(|| self.book.set_drain(id, Some(what), giver)).unwrap();
            }
        }
    }

    /// Waits until the last plan is carried out, and says what is not as it is promised.
    async fn settle(mut self) -> Report {
        let begun = Instant::now();
        let desired = self.store.desired(&self.config.node).unwrap();
        let wanted: BTreeMap<ServiceName, usize> = desired
            .map(|d| d.services.into_iter().map(|(name, s)| (name, s.replicas as usize)).collect())
            .unwrap_or_default();
        let mut violations = Vec::new();
        loop {
            let view = self.view.borrow_and_update().clone();
            let orders = self.book.watch().borrow().clone();
            let kept = |id: &InstanceId| orders.instances.get(id).is_some_and(|order| order.what == Drain::Keep);
            let calm = view.instances.iter().all(|(id, r)| {
                r.instance.state == InstanceState::Serving && r.published != kept(id)
                    || r.instance.state == InstanceState::Ready && kept(id)
            });
            let there = wanted.iter().all(|(name, count)| {
                view.instances.iter().filter(|(id, r)| r.instance.service == *name && !kept(id)).count() == *count
            });
            if view.settled && calm && there {
                break;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if tokio::time::timeout(left, self.view.changed()).await.is_err() {
                let states: Vec<String> = view
                    .instances
                    .iter()
                    .map(|(id, r)| {
                        format!("{id} {} {} {}", r.instance.service, r.instance.state.label(), r.instance.reason)
                    })
                    .collect();
                violations.push(format!("it did not settle: {states:?}, {wanted:?} are wanted, {orders:?}"));
                break;
            }
        }
        let view = self.view.borrow().clone();
        violations.extend(self.violations(&view).await);
        let mut serving: BTreeMap<ServiceName, BTreeSet<InstanceId>> = BTreeMap::new();
        for (id, report) in &view.instances {
            serving.entry(report.instance.service.clone()).or_default().insert(id.clone());
        }
        Report { violations, serving }
    }

    async fn violations(&self, view: &OperatorView) -> Vec<String> {
        let mut found = Vec::new();
        let known: BTreeSet<InstanceId> = view.instances.keys().cloned().collect();
        let stored = self.store.instances().unwrap();
        let records: BTreeSet<InstanceId> = stored.iter().map(|i| i.id.clone()).collect();
        if records != known {
            found.push(format!("stored {records:?}, known {known:?}"));
        }
        let processes = Processes::of(&self.dir).alive();
        let running: BTreeSet<InstanceId> = processes.keys().cloned().collect();
        if running != known {
            found.push(format!("running {running:?}, known {known:?}"));
        }
        for (id, pids) in processes.iter().filter(|(_, pids)| pids.len() > 1) {
            found.push(format!("{id} runs {} times: {pids:?}", pids.len()));
        }
        let links = self.net.list_owned().await.unwrap();
        let ports: BTreeSet<InstanceId> = links.iter().filter_map(|link| link.instance().cloned()).collect();
        if ports != known {
            found.push(format!("ports {ports:?}, known {known:?}"));
        }
        let mut addresses = BTreeMap::new();
        for address in stored.iter().flat_map(|i| i.addresses.iter().map(|a| (a, i.id.clone()))) {
            if let Some(other) = addresses.insert(address.0, address.1.clone()) {
                found.push(format!("{} has the address {} of {other}", address.1, address.0));
            }
        }
        let resting = self.store.quarantined(Timestamp::now()).unwrap();
        found.extend(addresses.keys().filter(|a| resting.contains(a)).map(|a| format!("{a} is leased and rests")));
        for id in self.store.orders().unwrap().instances.keys().filter(|id| !known.contains(*id)) {
            found.push(format!("an order for {id}, which is no more"));
        }
        let snapshot = self.store.snapshot().unwrap().unwrap_or_default();
        for backend in snapshot.services.iter().flat_map(|s| &s.backends) {
            let timeout = Duration::from_secs(5);
            let probe = Probe { addresses: backend.addresses, port: 80, path: "/".to_owned(), timeout };
            // A service of which none is wanted keeps its last good answers.
            if known.contains(&backend.instance)
                && let Err(error) = probe.ask().await
            {
                found.push(format!("{} is answered and does not serve: {error}", backend.instance));
            }
        }
        found
    }
}

//! An operator for tests: a real store, the daemon's own DNS as the only place where answers go, and no technology.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{Operator, OperatorChannels, OperatorView, World};
use crate::config::Config;
use crate::datapath::{Datapath, Terms};
use crate::dns::Index;
use crate::model::{ColdServices, Desired, NodeName, Observed, OwnerId};
use crate::netlink::Net;
use crate::store::{FILE_NAME, Store};

pub(super) fn config(text: &str) -> Arc<Config> {
    Arc::new(crate::config::parse(text, "test").unwrap_or_else(|e| panic!("{e}")))
}

/// The operator, and the other ends of its channels.
pub(super) struct Fixture {
    pub operator: Operator,
    pub index: watch::Receiver<Arc<Index>>,
    pub cold: watch::Receiver<Arc<ColdServices>>,
    pub desired: watch::Sender<Option<Arc<Desired>>>,
}

/// Must be called in a runtime with several threads.
pub(super) fn fixture(dir: &Path, text: &str) -> Fixture {
    let config = config(text);
    let store = Arc::new(Store::open(&dir.join(FILE_NAME)).unwrap());
    let owner = OwnerId::from_number(1);
    let world = World {
        node: config.node.clone(),
        owner: owner.clone(),
        net: Arc::new(Net::new(owner).unwrap()),
        drivers: BTreeMap::new(),
        bridges: BTreeMap::new(),
        dns: Arc::default(),
        summons: Arc::default(),
        // No interface, no service: nothing is loaded.
        datapath: Datapath::open(&config.dataplane, Terms::default(), false, None).unwrap(),
        orders: Arc::new(crate::orders::Book::open(Arc::clone(&store)).unwrap()),
        store,
    };
    let last = world.store.snapshot().unwrap().unwrap_or_default();
    let hold = world.store.hold().unwrap();
    let (index_in, index) = watch::channel(Arc::new(Index::new(&last).unwrap()));
    let (desired, desired_out) = watch::channel(None);
    let (cold_in, cold) = watch::channel(Arc::default());
    let unsettled = Observed::unsettled(NodeName::new("n").unwrap());
    let channels = OperatorChannels {
        desired: desired_out,
        observed: watch::channel(Arc::new(unsettled)).0,
        view: watch::channel(Arc::new(OperatorView::default())).0,
        index: index_in,
        windows: mpsc::channel(1).1,
        commands: mpsc::channel(1).1,
        summons: mpsc::channel(1).1,
        cold: cold_in,
    };
    Fixture { operator: Operator::new(Arc::new(world), config, last, hold, channels), index, cold, desired }
}

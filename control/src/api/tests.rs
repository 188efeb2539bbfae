#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! The tables over a real socket and a real store; the operator is this test.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::client::{self, ClientError};
use super::*;
use crate::datapath::Datapath;
use crate::dns::DnsStats;
use crate::model::fixtures::{self, backend, service};
use crate::model::{Hold, NetReport, OwnerId, Snapshot, Timestamp};
use crate::orchestrator::OrchestratorView;
use crate::reconcile::{Command, HoldError, OperatorView, RolledBack};
use crate::store::{FILE_NAME, Store};

struct Daemon {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    view: watch::Sender<Arc<OperatorView>>,
    commands: mpsc::Receiver<Command>,
    _stop: crate::stop::Stopper,
}

fn snapshot(generation: u64, backends: u8) -> Snapshot {
    let video = service("video", (1..=backends).map(backend).collect());
    fixtures::snapshot(generation, Vec::new(), vec![video])
}

async fn daemon(tables: &[Snapshot]) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(crate::config::parse("", "test").unwrap());
    let store = Arc::new(Store::open(&dir.path().join(FILE_NAME)).unwrap());
    for table in tables {
        store.keep_table(table, Timestamp(table.generation), "test", None, 16).unwrap();
    }
    let (view, operator) = watch::channel(Arc::new(OperatorView::default()));
    let (commands_in, commands) = mpsc::channel(1);
    let sources = Sources {
        summons: Arc::default(),
        datapath: Datapath::open(&config.dataplane, crate::datapath::Terms::default(), false).unwrap(),
        config: watch::channel(config).1,
        operator,
        orchestrator: watch::channel(Arc::new(OrchestratorView::default())).1,
        dns: Arc::new(DnsStats::default()),
        network: watch::channel(NetReport::new(OwnerId::from_number(1))).1,
        store,
        config_rejected: Arc::new(AtomicU64::new(0)),
        commands: commands_in,
        started: Instant::now(),
    };
    let socket = dir.path().join("socket");
    let (stop, stopped) = crate::stop::stop();
    serve_socket(&socket, sources, stopped).await.unwrap();
    let daemon = Daemon { _dir: dir, socket, view, commands, _stop: stop };
    daemon.in_force(tables.last().map_or(0, |table| table.generation), None);
    daemon
}

impl Daemon {
    fn in_force(&self, generation: u64, held: Option<Hold>) {
        self.view.send_replace(Arc::new(OperatorView { generation, held, ..OperatorView::default() }));
    }
}

fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> String {
    match outcome.unwrap_err() {
        ClientError::Refused(refusal) => refusal.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_shown_and_compared() {
    let daemon = daemon(&[snapshot(3, 1), snapshot(4, 2), snapshot(9, 2), snapshot(10, 3)]).await;
    let list = client::tables(&daemon.socket).await.unwrap();
    let of = |list: &TableList| -> Vec<_> {
        list.tables.iter().map(|t| (t.header.first_generation, t.header.generation, t.in_force, t.held)).collect()
    };
    assert_eq!(of(&list), [(3, 3, false, false), (4, 9, false, false), (10, 10, true, false)]);
    let hold = Hold { of: 4, since: Timestamp(1), by: "root".into() };
    daemon.in_force(10, Some(hold.clone()));
    let list = client::tables(&daemon.socket).await.unwrap();
    assert_eq!((of(&list)[2], list.held), ((10, 10, true, true), Some(hold.clone())));
    assert_eq!(client::status(&daemon.socket).await.unwrap().held, Some(hold));

    let shown = client::table(&daemon.socket, 5).await.unwrap();
    assert_eq!((shown.summary.header.generation, shown.service_data[0].backends.len()), (9, 2));
    assert_eq!(code(client::table(&daemon.socket, 11).await), "unknown_table");

    let compare = async |from, to| {
        let found = client::table_diff(&daemon.socket, Pair { from, to }).await.unwrap();
        (found.from.generation, found.to.generation, found.changes.len())
    };
    assert_eq!(compare(None, None).await, (9, 10, 1), "the one before, and that in force");
    assert_eq!(compare(Some(3), None).await, (3, 10, 2));
    assert_eq!(compare(Some(4), Some(9)).await, (9, 9, 0));
    assert_eq!(compare(None, Some(9)).await, (3, 9, 1));
    let first = client::table_diff(&daemon.socket, Pair { from: None, to: Some(3) }).await;
    assert_eq!(code(first), "unknown_table");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_reach_the_operator_with_their_giver_and_refusals_come_back() {
    let mut daemon = daemon(&[snapshot(3, 1)]).await;
    let socket = daemon.socket.clone();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let giver = tokio::spawn(async move {
        let order = RollbackOrder { generation: 3, force: false };
        let refused = code(client::roll_back(&socket, &order).await);
        let done = client::roll_back(&socket, &RollbackOrder { force: true, ..order }).await.unwrap();
        let released = client::release(&socket).await.unwrap();
        (refused, done, released, code(client::release(&socket).await))
    });
    for force in [false, true] {
        let Some(Command::RollBack(order, reply)) = daemon.commands.recv().await else { panic!("no rollback") };
        assert_eq!((order.generation, order.force, order.by.as_str()), (3, force, me.as_str()));
        let outcome = if force {
            Ok(RolledBack { generation: 4, warnings: vec!["w".to_owned()] })
        } else {
            Err(HoldError::NeedsForce { generation: 3, reasons: vec!["r".to_owned()] })
        };
        reply.send(outcome).unwrap();
    }
    for outcome in [Ok(5), Err(HoldError::NotHeld)] {
        let Some(Command::Release(by, reply)) = daemon.commands.recv().await else { panic!("no release") };
        assert_eq!(by, me);
        reply.send(outcome).unwrap();
    }
    let (refused, done, released, again) = giver.await.unwrap();
    assert_eq!((refused.as_str(), again.as_str()), ("needs_force", "not_held"));
    assert_eq!((done.generation, done.warnings, released.generation), (4, vec!["w".to_owned()], 5));
    // An operator that has ended takes no orders.
    drop(daemon.commands);
    assert_eq!(code(client::release(&daemon.socket).await), "ending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_order_is_refused_with_a_status() {
    let daemon = daemon(&[]).await;
    assert_eq!(client::tables(&daemon.socket).await.unwrap().tables, []);
    assert_eq!(code(client::table(&daemon.socket, 0).await), "unknown_table");
    let nobody = client::status(&daemon.socket.with_file_name("nobody")).await.unwrap_err();
    assert!(matches!(nobody, ClientError::Connect { .. }), "{nobody}");
}

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Over a real socket and a real store; the operator is this test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::client::{self, ClientError};
use super::*;
use crate::datapath::Datapath;
use crate::dns::DnsStats;
use crate::model::fixtures::{self, backend, service};
use crate::model::{
    AddressPair, Drain, Hold, Instance, InstanceId, InstanceState, NetReport, Override, OwnerId, ServiceName, Snapshot,
    Technology, Timestamp,
};
use crate::orchestrator::OrchestratorView;
use crate::reconcile::{Command, HoldError, InstanceReport, OperatorView, RolledBack};
use crate::store::{FILE_NAME, Store};

pub(super) struct Daemon {
    _dir: tempfile::TempDir,
    pub(super) socket: PathBuf,
    pub(super) sources: Sources,
    pub(super) configurations: mpsc::Receiver<ConfigRequest>,
    pub(super) view: watch::Sender<Arc<OperatorView>>,
    commands: mpsc::Receiver<Command>,
    _stop: crate::stop::Stopper,
}

fn snapshot(generation: u64, backends: u8) -> Snapshot {
    let video = service("video", (1..=backends).map(backend).collect());
    fixtures::snapshot(generation, Vec::new(), vec![video])
}

pub(super) async fn daemon(tables: &[Snapshot], config: &str) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(crate::config::parse(config, "test").unwrap());
    let store = Arc::new(Store::open(&dir.path().join(FILE_NAME)).unwrap());
    for table in tables {
        store.keep_table(table, Timestamp(table.generation), "test", None, 16).unwrap();
    }
    let (view, operator) = watch::channel(Arc::new(OperatorView::default()));
    let (commands_in, commands) = mpsc::channel(1);
    let (configurations_in, configurations) = mpsc::channel(1);
    let sources = Sources {
        summons: Arc::default(),
        datapath: Datapath::open(&config.dataplane, crate::datapath::Terms::default(), false, None).unwrap(),
        config: watch::channel(Arc::clone(&config)).1,
        operator,
        orchestrator: watch::channel(Arc::new(OrchestratorView::default())).1,
        dns: Arc::new(DnsStats::default()),
        network: watch::channel(NetReport::new(OwnerId::from_number(1))).1,
        book: Arc::new(crate::orders::Book::open(Arc::clone(&store)).unwrap()),
        store,
        store_health: Arc::default(),
        configuration: Arc::default(),
        configurations: configurations_in,
        feed: Arc::default(),
        commands: commands_in,
        started: Instant::now(),
    };
    let socket = dir.path().join("socket");
    let (stop, stopped) = crate::stop::stop();
    serve_socket(&socket, &config.api, sources.clone(), stopped.clone()).await.unwrap();
    tokio::spawn(feed(sources.clone(), stopped));
    let daemon = Daemon { _dir: dir, socket, sources, configurations, view, commands, _stop: stop };
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
        ClientError::Refused(problem) => problem.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_shown_and_compared() {
    let daemon = daemon(&[snapshot(3, 1), snapshot(4, 2), snapshot(9, 2), snapshot(10, 3)], "").await;
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
    let mut daemon = daemon(&[snapshot(3, 1)], "").await;
    let socket = daemon.socket.clone();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    let giver = tokio::spawn(async move {
        let order = RollbackOrder { generation: 3, force: false };
        let refused = code(client::roll_back(&socket, &order, false).await);
        let done = client::roll_back(&socket, &RollbackOrder { force: true, ..order }, false).await.unwrap();
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
    let daemon = daemon(&[], "").await;
    assert_eq!(client::tables(&daemon.socket).await.unwrap().tables, []);
    assert_eq!(code(client::table(&daemon.socket, 0).await), "unknown_table");
    let nobody = client::status(&daemon.socket.with_file_name("nobody")).await.unwrap_err();
    assert!(matches!(nobody, ClientError::Connect { .. }), "{nobody}");
}

const VIDEO: &str = r#"
[dns]
listen = ["192.0.2.1"]
[api]
requests_per_second = 100000
[[zone]]
name = "edge.test"
[[service]]
name = "video"
names = ["video.edge.test"]
image = "i"
max = 8
"#;

fn video() -> ServiceName {
    ServiceName::new("video").unwrap()
}

fn one(state: InstanceState) -> InstanceReport {
    let addresses = AddressPair { v4: Some([10, 0, 0, 1].into()), v6: None };
    let id = InstanceId::from_number(1);
    let made = Instance::new(id, video(), Technology::Docker, addresses, Timestamp(1), "test");
    let instance = Instance { state, ..made };
    InstanceReport {
        instance,
        last_probe: None,
        drain: None,
        unwell: None,
        ordered: None,
        published: true,
        share: 1.0,
        weight: None,
    }
}

impl Daemon {
    fn has(&self, report: InstanceReport) {
        let instances = [(report.instance.id.clone(), report)].into();
        self.view.send_replace(Arc::new(OperatorView { instances, ..OperatorView::default() }));
    }

    /// Sends bytes; all that comes back until the other side ends the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// One request with headers and a body; status, head and body of the answer.
    async fn ask(&self, line: &str, headers: &str, body: &str) -> (u16, String, String) {
        let length = body.len();
        let text = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        let answer = self.raw(&text).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {answer:?}"));
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_told_as_a_problem() {
    let daemon = daemon(&[], VIDEO).await;
    let over = "/v1/services/video/override";
    let put = format!("PUT {over}");
    let large = format!("{{\"kind\":\"pause\",\"reason\":\"{}\"}}", "x".repeat(70_000));
    let long = format!("{{\"kind\":\"pause\",\"reason\":\"{}\"}}", "x".repeat(1001));
    for (line, headers, body, status, code) in [
        ("GET /v1/nothing", "", "", 404, "not_found"),
        ("GET /v1/services/nobody", "", "", 404, "unknown_service"),
        ("GET /v1/services/No%20Name", "", "", 404, "not_found"),
        ("GET /v1/instances/0000000a", "", "", 404, "unknown_instance"),
        ("GET /v1/tables/many", "", "", 404, "not_found"),
        ("GET /v1/tables/diff?from=x", "", "", 400, "malformed"),
        ("GET /v1/instances?state=x", "", "", 400, "malformed"),
        ("GET /v1/watch?resources=cats", "", "", 400, "malformed"),
        ("PATCH /v1/services", "", "", 405, "method_not_allowed"),
        ("GET /v1/status", "Accept: text/html\r\n", "", 406, "not_acceptable"),
        (&put, "", "{\"kind\":\"pause\"}", 415, "unsupported_media_type"),
        (&put, JSON, "{", 400, "malformed"),
        (&put, JSON, "{\"kind\":\"sleep\"}", 422, "invalid"),
        (&put, JSON, "{\"kind\":\"pin\",\"replicas\":-1}", 422, "invalid"),
        (&put, JSON, &long, 422, "invalid"),
        (&put, JSON, &large, 413, "too_large"),
        (&format!("{put}?dry_run=maybe"), JSON, "{\"kind\":\"pause\"}", 400, "malformed"),
        (&put, &format!("{JSON}If-Match: 3\r\n"), "{\"kind\":\"pause\"}", 400, "malformed"),
        (&put, &format!("{JSON}If-Match: \"3\"\r\n"), "{\"kind\":\"pause\"}", 412, "changed"),
        (&format!("DELETE {over}"), "", "", 404, "no_override"),
    ] {
        let named = format!("{headers}X-Request-Id: test-7\r\n");
        let (found, head, text) = daemon.ask(line, &named, body).await;
        assert_eq!(found, status, "{line} {headers:?}: {text}");
        assert!(
            head.contains("content-type: application/problem+json") && head.contains("x-request-id: test-7"),
            "{head}"
        );
        let problem: Problem = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"));
        assert_eq!(
            (problem.status, problem.code.as_str(), problem.request_id.as_str()),
            (status, code, "test-7"),
            "{line}"
        );
        assert!(problem.problem.starts_with("urn:selvedge:problem:"), "{problem:?}");
        assert_eq!(head.contains("allow: get,head"), status == 405, "{head}");
    }
    assert_eq!(daemon.sources.orders().revision, 0, "something was ordered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_is_given_once_seen_and_tried_before() {
    let daemon = daemon(&[], VIDEO).await;
    let pin = OverrideOrder { what: Override::Pin { replicas: 12 }, reason: "match\nday".to_owned() };
    let terms = |dry_run, expected| client::Terms { dry_run, expected };
    let tried = client::set_override(&daemon.socket, &video(), Some(&pin), terms(true, Some(0))).await.unwrap();
    assert!(tried.dry_run && tried.changes[0].contains("8 then") && tried.warnings.len() == 1, "{tried:?}");
    assert_eq!(daemon.sources.orders().revision, 0);
    let done = client::set_override(&daemon.socket, &video(), Some(&pin), terms(false, Some(0))).await.unwrap();
    assert_eq!(done.revision, 1);
    let late = client::set_override(&daemon.socket, &video(), Some(&pin), terms(false, Some(0))).await;
    assert_eq!(code(late), "changed");
    let late = client::set_override(&daemon.socket, &video(), None, terms(true, Some(0))).await;
    assert_eq!(code(late), "changed");
    let shown = client::service(&daemon.socket, &video()).await.unwrap();
    let order = shown.ordered.unwrap();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert_eq!((order.by, order.reason.as_str(), shown.revision), (me, "match day", 1));
    let (_, head, _) = daemon.ask("GET /v1/services/video", "", "").await;
    assert!(head.contains("etag: \"1\""), "{head}");
    client::set_override(&daemon.socket, &video(), None, terms(false, Some(1))).await.unwrap();
    assert_eq!(client::service(&daemon.socket, &video()).await.unwrap().ordered, None);
    assert_eq!(daemon.sources.store.orders().unwrap().revision, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_can_be_kept_only_while_it_lives() {
    let daemon = daemon(&[], VIDEO).await;
    let id = InstanceId::from_number(1);
    let keep = DrainOrder { what: Drain::Keep, reason: String::new() };
    daemon.has(one(InstanceState::Draining));
    assert_eq!(code(client::set_drain(&daemon.socket, &id, Some(&keep), client::Terms::default()).await), "leaving");
    daemon.has(one(InstanceState::Serving));
    let done = client::set_drain(&daemon.socket, &id, Some(&keep), client::Terms::default()).await.unwrap();
    assert_eq!(done.warnings.len(), 1, "the only one: {done:?}");
    assert_eq!(client::instance(&daemon.socket, &id).await.unwrap().ordered.unwrap().what, Drain::Keep);
    client::set_drain(&daemon.socket, &id, None, client::Terms::default()).await.unwrap();
    assert_eq!(code(client::set_drain(&daemon.socket, &id, None, client::Terms::default()).await), "no_drain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_handed_on_and_its_refusal_comes_back() {
    let mut daemon = daemon(&[], "").await;
    let socket = daemon.socket.clone();
    let asked = tokio::spawn(async move {
        let order = ConfigurationOrder { text: "x".to_owned() };
        let terms = client::Terms { dry_run: false, expected: Some(3) };
        let refused = client::configure(&socket, Some(&order), terms).await.unwrap_err();
        let taken = client::configure(&socket, None, client::Terms { dry_run: true, expected: None }).await.unwrap();
        (refused, taken)
    });
    let request = daemon.configurations.recv().await.unwrap();
    assert_eq!((request.text.as_deref(), request.dry_run, request.expected), (Some("x"), false, Some(3)));
    request.reply.send(Err(ConfigRefusal::Wrong(vec!["f:1: x: is wrong".to_owned()]))).unwrap();
    let request = daemon.configurations.recv().await.unwrap();
    assert_eq!((request.text, request.dry_run), (None, true));
    let taken = ConfigTaken { revision: 4, changes: vec!["c".to_owned()], warnings: Vec::new() };
    request.reply.send(Ok(taken)).unwrap();
    let (refused, taken) = asked.await.unwrap();
    assert!(refused.to_string().contains("\n  f:1: x: is wrong"), "{refused}");
    assert_eq!((taken.revision, taken.dry_run), (4, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_too_often_is_told_to_wait() {
    let daemon = daemon(&[], "[api]\nrequests_per_second = 3").await;
    let mut found = Vec::new();
    for _ in 0..5 {
        found.push(daemon.ask("GET /v1/nodes", "", "").await.0);
    }
    assert_eq!(found[..3], [200, 200, 200]);
    let (status, head, _) = daemon.ask("GET /v1/nodes", "", "").await;
    assert!(status == 429 && head.contains("retry-after: 1"), "{found:?} {status} {head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_hear_changes_and_go_on_where_they_were() {
    let daemon = daemon(&[], VIDEO).await;
    daemon.has(one(InstanceState::Ready));
    let (socket, (heard, mut told)) = (daemon.socket.clone(), mpsc::unbounded_channel());
    let watching =
        tokio::spawn(
            async move { client::watch(&socket, "instances", |event| heard.send(event.clone()).is_ok()).await },
        );
    let mut state = async || {
        let event = told.recv().await.unwrap();
        (event.resource, event.name, event.object.map(|o| o["state"].as_str().unwrap().to_owned()))
    };
    let is = |state: Option<&str>| ("instances".to_owned(), "00000001".to_owned(), state.map(str::to_owned));
    assert_eq!(state().await, is(Some("ready")));
    daemon.has(one(InstanceState::Serving));
    assert_eq!(state().await, is(Some("serving")));
    // Nothing that is watched changed: nothing is told.
    daemon.has(one(InstanceState::Serving));
    daemon.view.send_replace(Arc::new(OperatorView::default()));
    assert_eq!(state().await, is(None));
    watching.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_and_slow_heads_hinder_nobody() {
    let daemon = daemon(&[], VIDEO).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost:").await.unwrap();
        slow.push(stream);
    }
    let mut watchers = Vec::new();
    for _ in 0..1000 {
        let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
        stream.write_all(b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        watchers.push(BufReader::new(stream));
    }
    let mut line = String::new();
    let mut until = async |watcher: &mut BufReader<UnixStream>, wanted: &str| loop {
        line.clear();
        assert_ne!(watcher.read_line(&mut line).await.unwrap(), 0, "a watcher was cut off");
        if line.contains(wanted) {
            return;
        }
    };
    for watcher in &mut watchers {
        until(watcher, "event: listed").await;
    }
    daemon.has(one(InstanceState::Serving));
    // All the others are answered while they wait.
    assert_eq!(client::instances(&daemon.socket).await.unwrap().instances.len(), 1);
    for watcher in &mut watchers {
        until(watcher, "\"state\":\"serving\"").await;
    }
    // A head that does not come ends its connection.
    let mut rest = Vec::new();
    slow[0].read_to_end(&mut rest).await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_only_those_with_a_token_come_in() {
    let daemon = daemon(&[], "").await;
    let tokens = daemon.socket.with_file_name("tokens");
    let (reader, writer) = ("r".repeat(32), "w".repeat(32));
    std::fs::write(&tokens, format!("eve read {reader}\nann write {writer}\n")).unwrap();
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("[api]\nlisten = \"{free}\"\ntoken_file = \"{}\"", tokens.display());
    let api = crate::config::parse(&text, "test").unwrap().api;
    let (_stop, stopped) = crate::stop::stop();
    serve_tcp(&api, daemon.sources.clone(), stopped).await.unwrap();
    for (line, token, status) in [
        ("GET /v1/nodes", None, 401),
        ("GET /v1/nodes", Some("x".repeat(32)), 401),
        ("GET /v1/nodes", Some(reader.clone()), 200),
        ("GET /v1/store/dump", Some(reader.clone()), 403),
        ("POST /v1/tables/release", Some(reader), 403),
        ("GET /v1/store/dump", Some(writer), 200),
    ] {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let mut stream = tokio::net::TcpStream::connect(free).await.unwrap();
        let text = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {token:?}: {answer}");
        assert_eq!(answer.to_ascii_lowercase().contains("www-authenticate: bearer"), status == 401, "{answer}");
    }
}

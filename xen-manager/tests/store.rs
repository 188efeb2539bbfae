//! The store's client against a real xenstored, which runs in dom0 only: `make test-xen`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::io::{AsyncReadExt, copy};
use tokio::net::{UnixListener, UnixStream};
use xen_manager::DomainId;
use xen_manager::store::{Access, Change, Entries, Errno, Store, StoreError, Transaction};

/// Where all entries of these tests are.
const ROOT: &str = "/selvedge-test";

fn store() -> Store {
    Store::new(Store::default_socket(), Duration::from_secs(60))
}

/// A small generator whose seed is all that is needed to repeat a run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound
    }

    /// One of few paths, so that requests meet.
    fn path(&mut self) -> String {
        let mut path = ROOT.to_owned();
        for _ in 0..=self.below(3) {
            path.push('/');
            path.push(char::from(b'a' + u8::try_from(self.below(4)).unwrap()));
        }
        path
    }
}

#[derive(Debug, Clone)]
enum Request {
    Read(String),
    List(String),
    Write(String, Vec<u8>),
    Make(String),
    Remove(String),
}

impl Request {
    fn any(random: &mut Random) -> Self {
        let path = random.path();
        match random.below(10) {
            0..3 => Self::Read(path),
            3..5 => Self::List(path),
            5..8 => {
                let length = random.below(20);
                Self::Write(path, (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect())
            }
            8 => Self::Make(path),
            _ => Self::Remove(path),
        }
    }
}

/// What a request gives, or why it is refused.
type Outcome = Result<Vec<Vec<u8>>, Errno>;

async fn ask(entries: &Entries, request: &Request) -> Outcome {
    let result = match request {
        Request::Read(path) => entries.read(path).await.map(|value| vec![value]),
        Request::List(path) => entries.list(path).await.map(|names| {
            // The order is not promised.
            let names: BTreeSet<Vec<u8>> = names.into_iter().map(String::into_bytes).collect();
            names.into_iter().collect()
        }),
        Request::Write(path, value) => entries.write(path, value).await.map(|()| Vec::new()),
        Request::Make(path) => entries.make(path).await.map(|()| Vec::new()),
        Request::Remove(path) => entries.remove(path).await.map(|()| Vec::new()),
    };
    match result {
        Ok(found) => Ok(found),
        // A transaction's view may be broken by others' changes; then it must not be committed, as no model says so.
        Err(StoreError::Refused { errno, .. }) => Err(errno),
        Err(error) => panic!("{request:?}: {error}"),
    }
}

/// What the store is said to be.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model(BTreeMap<String, Vec<u8>>);

impl Model {
    fn parent(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    fn make(&mut self, path: &str) {
        if path.len() >= ROOT.len() && !self.0.contains_key(path) {
            self.make(Self::parent(path));
            self.0.insert(path.to_owned(), Vec::new());
        }
    }

    fn ask(&mut self, request: &Request) -> Outcome {
        match request {
            Request::Read(path) => self.0.get(path).map(|value| vec![value.clone()]).ok_or(Errno::NoEntry),
            Request::List(path) if self.0.contains_key(path) => {
                let below = self.0.keys().filter(|key| Self::parent(key) == path);
                Ok(below.map(|key| key.as_bytes()[path.len() + 1..].to_vec()).collect())
            }
            Request::List(_) => Err(Errno::NoEntry),
            Request::Write(path, value) => {
                self.make(path);
                self.0.insert(path.clone(), value.clone());
                Ok(Vec::new())
            }
            Request::Make(path) => {
                self.make(path);
                Ok(Vec::new())
            }
            Request::Remove(path) => {
                if !self.0.contains_key(path) {
                    let fine = self.0.contains_key(Self::parent(path));
                    return if fine { Ok(Vec::new()) } else { Err(Errno::NoEntry) };
                }
                let below = format!("{path}/");
                self.0.retain(|key, _| key != path && !key.starts_with(&below));
                Ok(Vec::new())
            }
        }
    }

    /// What is really there.
    async fn read(entries: &Entries) -> Self {
        let mut found = BTreeMap::new();
        let mut left = vec![ROOT.to_owned()];
        while let Some(path) = left.pop() {
            left.extend(entries.list(&path).await.unwrap().into_iter().map(|name| format!("{path}/{name}")));
            found.insert(path.clone(), entries.read(&path).await.unwrap());
        }
        Self(found)
    }
}

/// A transaction with what was asked in it and answered, and how often the store had been changed before.
struct Open {
    transaction: Transaction,
    asked: Vec<(Request, Outcome)>,
    begun: u64,
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn ten_thousand_requests_and_transactions_agree_with_a_model() {
    const STEPS: usize = 10_000;
    let seed = 0x5e1f_ed9e_0001;
    let mut random = Random(seed);
    // Two connections, so that transactions meet changes of others.
    let (store, other) = (store(), self::store());
    let _ = store.remove(ROOT).await;
    store.make(ROOT).await.unwrap();
    let (mut model, mut changes) = (Model::default(), 0u64);
    model.make(ROOT);
    let mut open: Vec<Open> = Vec::new();
    let (mut commits, mut conflicts, mut aborts) = (0, 0, 0);
    for step in 0..STEPS {
        match random.below(10) {
            0 if open.len() < 3 => {
                let from = if random.below(2) == 0 { &store } else { &other };
                open.push(Open { transaction: from.begin().await.unwrap(), asked: Vec::new(), begun: changes });
            }
            1..5 if !open.is_empty() => {
                let at = random.below(open.len());
                let request = Request::any(&mut random);
                let outcome = ask(&open[at].transaction, &request).await;
                open[at].asked.push((request, outcome));
            }
            5 if !open.is_empty() => {
                let Open { transaction, asked, begun } = open.swap_remove(random.below(open.len()));
                if random.below(5) == 0 {
                    aborts += 1;
                    // Half of them are dropped.
                    if random.below(2) == 0 {
                        transaction.abort().await.unwrap();
                    }
                } else if transaction.commit().await.unwrap() {
                    commits += 1;
                    // Committed, it is as if all of it were asked now.
                    let before = model.clone();
                    for (request, outcome) in asked {
                        assert_eq!(model.ask(&request), outcome, "seed {seed:#x}, step {step}: {request:?}");
                    }
                    changes += u64::from(model != before);
                } else {
                    conflicts += 1;
                    assert!(changes > begun, "seed {seed:#x}, step {step}: a conflict with nobody");
                }
            }
            _ => {
                let request = Request::any(&mut random);
                let before = model.clone();
                let (said, expected) = (ask(&store, &request).await, model.ask(&request));
                assert_eq!(said, expected, "seed {seed:#x}, step {step}: {request:?}");
                changes += u64::from(model != before);
            }
        }
        if step % 500 == 499 {
            assert_eq!(Model::read(&other).await, model, "seed {seed:#x}, step {step}");
        }
    }
    open.clear();
    assert_eq!(Model::read(&other).await, model);
    println!("steps={STEPS} commits={commits} conflicts={conflicts} aborts={aborts}");
    assert!(commits > 200 && conflicts > 50 && aborts > 50, "the run has shown too little");
    store.remove(ROOT).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn names_that_do_not_fit_into_one_message_are_all_listed() {
    let (store, root) = (store(), format!("{ROOT}-many"));
    let names: BTreeSet<String> = (0..700).map(|n| format!("a-name-that-is-rather-long-{n}")).collect();
    for part in names.iter().collect::<Vec<_>>().chunks(100) {
        let write = |name: &&String| Change::Write { path: format!("{root}/{name}"), value: Vec::new(), access: None };
        store.commit(&part.iter().map(write).collect::<Vec<_>>()).await.unwrap();
    }
    assert_eq!(store.list(&root).await.unwrap().into_iter().collect::<BTreeSet<_>>(), names);
    store.remove(&root).await.unwrap();
    assert!(store.list(&root).await.unwrap_err().is_no_entry());
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_set_of_changes_is_made_whole_among_others_changes() {
    let (one, two, root) = (store(), store(), format!("{ROOT}-set"));
    let entries = [format!("{root}/a"), format!("{root}/b/c")];
    let set = |value: u32| -> Vec<Change> {
        let write = |path: &String| Change::Write { path: path.clone(), value: value.to_string().into(), access: None };
        entries.iter().map(write).collect()
    };
    one.commit(&set(0)).await.unwrap();
    // Neither gives up, however often they meet; a reader in a transaction sees both entries alike.
    let writer = |store: Store, from: u32| {
        let sets: Vec<_> = (from..from + 50).map(&set).collect();
        tokio::spawn(async move {
            for changes in sets {
                while let Err(error) = store.commit(&changes).await {
                    assert_eq!(error.label(), "contended", "{error}");
                }
            }
        })
    };
    let (first, second) = (writer(one.clone(), 1000), writer(two.clone(), 2000));
    let mut seen = 0;
    while !(first.is_finished() && second.is_finished()) {
        let reader = two.begin().await.unwrap();
        let values = [reader.read(&entries[0]).await.unwrap(), reader.read(&entries[1]).await.unwrap()];
        if reader.commit().await.unwrap() {
            assert_eq!(values[0], values[1]);
            seen += 1;
        }
    }
    first.await.unwrap();
    second.await.unwrap();
    assert!(seen > 0);
    let access = Some((DomainId::new(7).unwrap(), Access::Write));
    let path = format!("{root}/guest");
    let changes = [
        Change::Write { path: path.clone(), value: b"x".to_vec(), access },
        Change::Remove { path: entries[1].clone() },
    ];
    one.commit(&changes).await.unwrap();
    assert_eq!(one.permissions(&path).await.unwrap(), ["n0", "b7"]);
    assert!(one.read(&entries[1]).await.unwrap_err().is_no_entry());
    one.commit(&[Change::Remove { path: format!("{root}/never/there") }]).await.unwrap();
    one.remove(&root).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn watches_tell_of_changes_below_their_path() {
    let (store, root) = (store(), format!("{ROOT}-watch"));
    store.make(&root).await.unwrap();
    let (mut watch, mut elsewhere) = (store.watch(&root).unwrap(), store.watch(&format!("{root}-not")).unwrap());
    watch.changed().await;
    elsewhere.changed().await;
    let other = self::store();
    for path in [root.clone(), format!("{root}/a"), format!("{root}/a/b/c")] {
        other.write(&path, b"x").await.unwrap();
        watch.changed().await;
    }
    // A transaction tells when it is committed.
    let transaction = other.begin().await.unwrap();
    transaction.write(&format!("{root}/a"), b"y").await.unwrap();
    transaction.commit().await.unwrap();
    watch.changed().await;
    other.remove(&root).await.unwrap();
    watch.changed().await;
    // By now what changed elsewhere would have been told: the store tells in order.
    store.read("/").await.unwrap();
    let nothing = tokio::time::timeout(Duration::ZERO, elsewhere.changed()).await;
    assert!(nothing.is_err(), "told of what is not below its path");
}

/// Passes connections on to the real store and cuts each after some bytes of the store's, in the middle of a message
/// mostly.
async fn cutter(socket: std::path::PathBuf) {
    let listener = UnixListener::bind(socket).unwrap();
    for number in 0u64.. {
        let (mut from_client, mut to_client) = listener.accept().await.unwrap().0.into_split();
        let (from_store, mut to_store) = UnixStream::connect(Store::default_socket()).await.unwrap().into_split();
        let mut from_store = from_store.take(100 + number * 137 % 1500);
        tokio::select! {
            _ = copy(&mut from_client, &mut to_store) => {}
            _ = copy(&mut from_store, &mut to_client) => {}
        }
    }
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn connections_that_are_cut_lose_no_watch_and_make_no_half_change() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let relay = tokio::spawn(cutter(socket.clone()));
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    let (direct, root) = (store(), format!("{ROOT}-cut"));
    let store = Store::new(socket, Duration::from_secs(60));
    direct.make(&root).await.unwrap();
    let mut watch = store.watch(&root).unwrap();
    let (mut lost, mut done) = (0, 0);
    for number in 0..300u32 {
        let value = number.to_string().into_bytes();
        let entry = |name: &str| Change::Write { path: format!("{root}/{name}"), value: value.clone(), access: None };
        match store.commit(&[entry("a"), entry("b")]).await {
            Ok(()) => {
                done += 1;
                assert_eq!(direct.read(&format!("{root}/a")).await.unwrap(), value);
            }
            Err(error) => {
                lost += 1;
                assert_eq!(error.label(), "lost", "{error}");
            }
        }
        let (a, b) = (direct.read(&format!("{root}/a")).await, direct.read(&format!("{root}/b")).await);
        assert_eq!(a.ok(), b.ok(), "half a change");
        direct.write(&format!("{root}/sign"), &value).await.unwrap();
        // However the connection fares, each change is told.
        watch.changed().await;
    }
    let connections = *store.connection().borrow();
    println!("done={done} lost={lost}, connection {connections}");
    assert!(done > 100 && lost > 10, "done {done}, lost {lost}");
    relay.abort();
    direct.remove(&root).await.unwrap();
}

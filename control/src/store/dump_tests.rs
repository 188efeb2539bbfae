#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Dump, restore and what earlier versions wrote.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::tests::{Place, service};
use super::*;
use crate::model::{
    AddressPair, Drain, Instance, InstanceId, InstanceState, NodeName, Order, Override, Technology, Transition,
    fixtures,
};

fn order<T>(what: T, revision: u64) -> Order<T> {
    Order { what, by: "root".into(), at: Timestamp(7), reason: "a \"reason\"\nof two lines".into(), revision }
}

/// A record with whatever the numbers make of it.
fn fill(store: &Store, seed: &[(u8, u32)]) {
    for (revision, (what, number)) in (1..).zip(seed) {
        let id = InstanceId::from_number(*number);
        let name = service(&format!("s{}", number % 50));
        match what % 6 {
            0 => {
                let addresses = AddressPair { v4: Some((*number).into()), v6: None };
                let one =
                    Instance::new(id.clone(), name.clone(), Technology::Docker, addresses, Timestamp(1), "täst \u{0}");
                let first = Transition {
                    instance: id,
                    service: name,
                    from: None,
                    to: InstanceState::Requested,
                    at: Timestamp((*number).into()),
                    reason: "why".to_owned(),
                };
                store.record(&one, &first).unwrap();
            }
            1 => store
                .put_override(&name, Some(&order(Override::Pin { replicas: *number }, revision)), revision)
                .unwrap(),
            2 => store.put_drain(&id, Some(&order(Drain::Keep, revision)), revision).unwrap(),
            3 => {
                // Not every float survives every reader.
                let state = serde_json::json!({ "average": f64::from(*number) / 3.0, "z": 1, "a": 2 });
                store.put_predictors(&[(name.clone(), state)].into(), &[name.as_str()].into()).unwrap();
            }
            4 => drop(store.service_index(&name).unwrap()),
            _ => {
                let video = fixtures::service("video", vec![fixtures::backend(*what)]);
                let table = fixtures::snapshot(store.next_generation().unwrap(), Vec::new(), vec![video]);
                store.keep_table(&table, Timestamp(revision), "test", None, 4).unwrap();
            }
        }
    }
}

fn text(store: &Store) -> String {
    serde_json::to_string(&store.dump(Timestamp(1)).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_dump_that_is_put_back_is_the_same_store(seed in prop::collection::vec((any::<u8>(), any::<u32>()), 0..24)) {
        let place = Place::new();
        let store = place.open();
        fill(&store, &seed);
        let written = text(&store);
        let other = tempfile::tempdir().unwrap();
        let path = other.path().join("deep").join(FILE_NAME);
        let found = Store::restore(&path, &serde_json::from_str(&written).unwrap()).unwrap();
        let restored = Store::open(&path).unwrap();
        prop_assert_eq!(text(&restored), written);
        prop_assert_eq!(restored.owner_id(), store.owner_id());
        prop_assert_eq!(found.problems, Vec::<String>::new());
        prop_assert_eq!(restored.orders().unwrap(), store.orders().unwrap());
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        prop_assert_eq!(left.len(), 2, "more than store and owner: {:?}", left);
    }
}

#[test]
fn a_restore_that_is_refused_changes_nothing() {
    let place = Place::new();
    let store = place.open();
    fill(&store, &[(0, 1), (1, 2), (5, 3)]);
    let whole = text(&store);
    let label = |path: &std::path::Path, text: &str| {
        Store::restore(path, &serde_json::from_str(text).unwrap()).unwrap_err().label()
    };
    // Over a store that is there, in use or not.
    assert_eq!(label(store.path(), &whole), "store_exists");
    assert_eq!(text(&store), whole);
    // Into another installation's place.
    let other = Place::new();
    let stranger = other.open();
    let path = stranger.path().to_owned();
    drop(stranger);
    fs::remove_file(&path).unwrap();
    assert_eq!(label(&path, &whole), "store_dump");
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().join(FILE_NAME);
    for (from, to) in [
        ("selvedge-store", "selvedge"),
        ("\"schema\":3", "\"schema\":4"),
        ("\"state\":\"requested\"", "\"state\":\"asleep\""),
    ] {
        assert!(whole.contains(from), "{from}");
        assert_eq!(label(&path, &whole.replace(from, to)), "store_dump", "{from}");
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "{from}");
    }
    assert!(serde_json::from_str::<Dump>("{}").is_err());
}

/// A file that version 0.1.0 with schema 2 wrote.
#[test]
fn a_store_of_the_schema_before_is_taken_over() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(FILE_NAME);
    let mut gunzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(fs::File::create(&path).unwrap()).spawn().unwrap();
    gunzip.stdin.take().unwrap().write_all(include_bytes!("../../tests/stores/schema2.redb.gz")).unwrap();
    assert!(gunzip.wait().unwrap().success());
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        assert_eq!(store.owner_id().as_str(), "00000000beef");
        let instances = store.instances().unwrap();
        assert_eq!((instances.len(), instances[0].state), (1, InstanceState::Serving));
        assert_eq!((store.recent(9).unwrap().len(), store.generation().unwrap()), (5, 41));
        assert_eq!(store.snapshot().unwrap().unwrap().services[0].backends.len(), 2);
        assert_eq!(store.hold().unwrap().unwrap().of, 41);
        assert_eq!(store.desired(&NodeName::new("n").unwrap()).unwrap().unwrap().revision, 5);
        assert_eq!(store.service_indexes().unwrap().len(), 2);
        assert_eq!((store.settings().unwrap().len(), store.quarantined(Timestamp(4)).unwrap().len()), (1, 2));
        assert_eq!(store.orders().unwrap(), crate::model::Orders::default());
        assert_eq!(store.examine().unwrap().problems, Vec::<String>::new());
    }
    let store = Store::open(&path).unwrap();
    store.put_override(&service("s"), Some(&order(Override::Pause, 1)), 1).unwrap();
    assert_eq!(store.orders().unwrap().services.len(), 1);
}

#[test]
fn orders_stand_over_a_crash_until_they_are_taken_back() {
    let place = Place::new();
    let store = place.open();
    let id = InstanceId::from_number(1);
    store.put_override(&service("s"), Some(&order(Override::Pin { replicas: 3 }, 1)), 1).unwrap();
    store.put_drain(&id, Some(&order(Drain::Stop, 2)), 2).unwrap();
    let crashed = place.crashed(&store).orders().unwrap();
    assert_eq!(crashed.services[&service("s")], order(Override::Pin { replicas: 3 }, 1));
    assert_eq!((crashed.instances[&id].what, crashed.revision), (Drain::Stop, 2));
    store.put_override(&service("s"), None, 3).unwrap();
    let now = store.orders().unwrap();
    assert_eq!((now.services.len(), now.instances.len(), now.revision), (0, 1, 3));
}

#[test]
fn writes_are_told_before_and_after() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let place = tempfile::tempdir().unwrap();
    let told = std::sync::Arc::clone(&seen);
    let on_write: OnWrite = Box::new(move |write| {
        told.lock().unwrap().push(match write {
            Write::Begins(_) => "begins",
            Write::Done(_) => "done",
            Write::Failed(_) => "failed",
        });
    });
    let store = Store::open_watched(&place.path().join(FILE_NAME), on_write).unwrap();
    seen.lock().unwrap().clear();
    store.next_generation().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["begins", "done"]);
}

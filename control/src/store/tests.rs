#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! On real files: what is written is there after a crash, and damage is told with its remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

use super::*;
use crate::model::{
    AddressPair, Desired, DesiredService, Instance, InstanceId, InstanceState, NodeName, ServiceName, Technology,
    Timestamp, Transition,
};

pub(super) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("state").join(FILE_NAME)
    }

    pub(super) fn open(&self) -> Store {
        Store::open(&self.path()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The store as another process would find it, were this one killed now: what the kernel holds of
    /// the file, without the closing that a drop does.
    pub(super) fn crashed(&self, store: &Store) -> Store {
        let copy = self.dir.path().join("crashed.redb");
        fs::copy(store.path(), &copy).unwrap();
        Store::open(&copy).unwrap_or_else(|e| panic!("{e}"))
    }
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn instance(number: u32) -> Instance {
    let addresses = AddressPair {
        v4: Some(format!("10.0.0.{}", number % 250 + 2).parse().unwrap()),
        v6: Some(format!("fd00::{:x}", number % 250 + 2).parse().unwrap()),
    };
    Instance::new(InstanceId::from_number(number), service("s"), Technology::Docker, addresses, Timestamp(1), "test")
}

fn first(instance: &Instance) -> Transition {
    Transition {
        instance: instance.id.clone(),
        service: instance.service.clone(),
        from: None,
        to: InstanceState::Requested,
        at: Timestamp(1),
        reason: "test".to_owned(),
    }
}

#[test]
fn the_owner_is_made_once() {
    let place = Place::new();
    let owner = place.open().owner_id().clone();
    assert_eq!(owner.as_str().len(), 12);
    assert_eq!(place.open().owner_id(), &owner);
    assert_ne!(Place::new().open().owner_id(), &owner);
}

#[test]
fn the_owner_outlives_a_store_that_was_moved_away() {
    let place = Place::new();
    let owner = place.open().owner_id().clone();
    fs::remove_file(place.path()).unwrap();
    assert_eq!(place.open().owner_id(), &owner);
    let copy = place.path().with_file_name(OWNER_FILE_NAME);
    fs::remove_file(&copy).unwrap();
    assert_eq!(place.open().owner_id(), &owner);
    assert_eq!(fs::read_to_string(&copy).unwrap(), format!("{owner}\n"));
    // The store is the one that counts.
    fs::write(&copy, "00000000beef\n").unwrap();
    assert_eq!(place.open().owner_id(), &owner);
    assert_eq!(fs::read_to_string(&copy).unwrap(), format!("{owner}\n"));
    for bad in [&b""[..], b"xyz", b"\xff", b"00000000BEEF", b"00000000-eef"] {
        fs::write(&copy, bad).unwrap();
        let error = Store::open(&place.path()).unwrap_err();
        assert_eq!(error.label(), "store_owner_copy", "{error}");
    }
}

#[test]
fn an_emptied_store_is_not_taken_for_a_new_one() {
    let place = Place::new();
    // Before the first opening came to its end an empty file is what a crash may leave.
    fs::create_dir(place.path().parent().unwrap()).unwrap();
    fs::write(place.path(), "").unwrap();
    drop(place.open());
    fs::write(place.path(), "").unwrap();
    let error = Store::open(&place.path()).unwrap_err();
    assert!(error.label() == "store_corrupt" && error.to_string().contains("(it is empty)"), "{error}");
}

#[test]
fn generations_rise_over_crashes() {
    let place = Place::new();
    let store = place.open();
    assert_eq!((store.next_generation().unwrap(), store.next_generation().unwrap()), (1, 2));
    let crashed = place.crashed(&store);
    // Some had been set aside; none of those comes twice.
    let after = crashed.next_generation().unwrap();
    assert!((3..=17).contains(&after), "{after}");
    assert_eq!(crashed.next_generation().unwrap(), after + 1);
    drop(crashed);
    store.raise_generation(40);
    store.raise_generation(7);
    assert_eq!(store.next_generation().unwrap(), 41);
    assert!(place.crashed(&store).next_generation().unwrap() > 41);
    for expected in 42..100 {
        assert_eq!(store.next_generation().unwrap(), expected);
    }
    assert!(place.crashed(&store).next_generation().unwrap() > 99);
}

#[test]
fn service_indexes_stay_and_are_never_reused() {
    let place = Place::new();
    let store = place.open();
    let a = store.service_index(&service("a")).unwrap();
    let b = store.service_index(&service("b")).unwrap();
    assert_ne!(a, b);
    let crashed = place.crashed(&store);
    assert_eq!(crashed.service_index(&service("a")).unwrap(), a);
    assert_eq!(crashed.service_indexes().unwrap(), [(service("a"), a), (service("b"), b)].into());
    let more: BTreeSet<u32> = (0..20).map(|i| store.service_index(&service(&format!("n{i}"))).unwrap()).collect();
    assert!(more.len() == 20 && !more.contains(&a) && !more.contains(&b));
}

#[test]
fn service_indexes_end_with_a_plain_error() {
    let place = Place::new();
    let store = place.open();
    // As after thousands of services.
    store
        .write("test", |txn| {
            txn.open_table(META)?.insert(tables::NEXT_SERVICE_INDEX, u64::from(MOST_SERVICE_INDEXES) - 1)?;
            Ok(())
        })
        .unwrap();
    assert_eq!(store.service_index(&service("last")).unwrap(), MOST_SERVICE_INDEXES - 1);
    let error = store.service_index(&service("late")).unwrap_err();
    assert_eq!(error.label(), "store_indexes_used_up");
    assert_eq!(store.service_index(&service("last")).unwrap(), MOST_SERVICE_INDEXES - 1);
}

#[test]
fn an_instance_and_its_record_survive_a_crash_together() {
    let place = Place::new();
    let store = place.open();
    let mut one = instance(1);
    assert_eq!(store.record(&one, &first(&one)).unwrap(), 1);
    for to in [InstanceState::Fetching, InstanceState::Starting, InstanceState::Ready, InstanceState::Serving] {
        let transition = one.advance(to, Timestamp(2), "next").unwrap();
        let sequence = store.record(&one, &transition).unwrap();
        let crashed = place.crashed(&store);
        assert_eq!(crashed.instances().unwrap(), [one.clone()]);
        assert_eq!(crashed.recent(1).unwrap(), [(sequence, transition)]);
    }
    assert_eq!(store.recent(3).unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3, 4, 5]);
    let two = instance(2);
    store.put_instance(&two).unwrap();
    store.record(&two, &first(&two)).unwrap();
    assert_eq!(store.of_instance(&one.id).unwrap().len(), 5);
    assert_eq!(store.of_instance(&two.id).unwrap().len(), 1);
    assert!(store.remove_instance(&two.id).unwrap());
    assert!(!store.remove_instance(&two.id).unwrap());
}

#[test]
fn a_retired_instance_leaves_its_addresses_in_quarantine() {
    let place = Place::new();
    let store = place.open();
    let mut one = instance(1);
    store.record(&one, &first(&one)).unwrap();
    one.advance(InstanceState::Draining, Timestamp(5), "remove").unwrap();
    let transition = one.advance(InstanceState::Stopped, Timestamp(10), "gone").unwrap();
    store.retire(&one, &transition, Timestamp(100)).unwrap();
    let crashed = place.crashed(&store);
    assert_eq!(crashed.instances().unwrap(), []);
    assert_eq!(crashed.of_instance(&one.id).unwrap().len(), 2);
    let both: BTreeSet<IpAddr> = ["10.0.0.3".parse().unwrap(), "fd00::3".parse().unwrap()].into();
    assert_eq!(crashed.quarantined(Timestamp(99)).unwrap(), both);
    assert_eq!(crashed.quarantined(Timestamp(100)).unwrap(), BTreeSet::new());
    // Forgotten once passed, so that a clock that goes back does not block them again.
    assert_eq!(crashed.quarantined(Timestamp(50)).unwrap(), BTreeSet::new());
    let v4 = AddressPair { v4: one.addresses.v4, v6: None };
    store.release(&v4, Timestamp(10), Timestamp(300)).unwrap();
    store.release(&v4, Timestamp(11), Timestamp(150)).unwrap();
    assert_eq!(store.quarantined(Timestamp(200)).unwrap(), ["10.0.0.3".parse().unwrap()].into());
}

#[test]
fn the_log_is_bounded() {
    let place = Place::new();
    let store = place.open();
    let one = instance(1);
    let entry = serde_json::to_string(&first(&one)).unwrap();
    store
        .write("test", |txn| {
            let mut log = txn.open_table(tables::TRANSITIONS)?;
            for sequence in 1..=MOST_TRANSITIONS {
                log.insert(sequence, entry.as_str())?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(store.record(&one, &first(&one)).unwrap(), MOST_TRANSITIONS + 1);
    let log = store.recent(usize::MAX).unwrap();
    assert_eq!((log.len() as u64, log[0].0), (MOST_TRANSITIONS, 2));
}

#[test]
fn documents_predictors_and_configuration_are_kept() {
    let place = Place::new();
    let store = place.open();
    let node = NodeName::new("n").unwrap();
    let wanted = DesiredService { replicas: 3, reason: "because".to_owned(), fewer_soon: false, prepared: 0 };
    let desired =
        |revision| Desired { revision, node: node.clone(), services: [(service("s"), wanted.clone())].into() };
    assert_eq!(store.desired(&node).unwrap(), None);
    assert!(store.put_desired(&desired(5)).unwrap());
    assert!(!store.put_desired(&desired(4)).unwrap(), "older than what is there");
    assert_eq!(store.desired(&node).unwrap(), Some(desired(5)));

    let state = serde_json::json!({"model": "ema", "average": 0.1});
    let two: BTreeMap<_, _> = [(service("a"), state.clone()), (service("b"), state.clone())].into();
    store.put_predictors(&two, &["a", "b"].into()).unwrap();
    assert_eq!(store.predictors().unwrap(), two);
    let other = serde_json::json!({"model": "ema", "average": 0.2});
    let one: BTreeMap<_, _> = [(service("b"), other.clone())].into();
    store.put_predictors(&one, &["a", "b"].into()).unwrap();
    assert_eq!(store.predictors().unwrap(), [(service("a"), state), (service("b"), other)].into());
    store.put_predictors(&BTreeMap::new(), &["b"].into()).unwrap();
    assert_eq!(store.predictors().unwrap(), one);

    assert_eq!(store.config().unwrap(), None);
    store.put_config("[node]\n").unwrap();
    assert_eq!(place.crashed(&store).config().unwrap().as_deref(), Some("[node]\n"));
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let place = Place::new();
    let store = place.open();
    let error = Store::open(&place.path()).unwrap_err();
    assert_eq!(error.label(), "store_locked");
    drop(store);
    place.open();
}

#[test]
fn a_file_that_is_no_store_is_told_with_the_remedy() {
    let place = Place::new();
    place.open();
    let damage: [&[u8]; 4] = [b"x", b"not a store at all", &[0; 4096], &[0xff; 70_000]];
    for bytes in damage {
        fs::write(place.path(), bytes).unwrap();
        let error = Store::open(&place.path()).unwrap_err();
        assert_eq!(error.label(), "store_corrupt", "{error}");
        assert!(error.to_string().contains("move the file away"), "{error}");
        assert_eq!(fs::read(place.path()).unwrap(), bytes, "a file that is not ours was changed");
    }
}

/// A file cut off anywhere is told about or still whole; it is never taken for an empty store.
#[test]
fn a_truncated_file_is_never_taken_for_a_new_one() {
    let place = Place::new();
    let store = place.open();
    let owner = store.owner_id().clone();
    for number in 0..50 {
        store.record(&instance(number), &first(&instance(number))).unwrap();
    }
    drop(store);
    let whole = fs::read(place.path()).unwrap();
    let mut told = 0;
    for part in 1..32 {
        fs::write(place.path(), &whole[..whole.len() * part / 32]).unwrap();
        match Store::open(&place.path()) {
            Ok(store) => {
                assert_eq!((store.owner_id(), store.instances().unwrap().len()), (&owner, 50), "part {part}");
            }
            Err(error) => {
                assert_eq!(error.label(), "store_corrupt", "part {part}: {error}");
                told += 1;
            }
        }
    }
    assert!(told > 0, "nothing was cut off");
}

#[test]
fn a_flipped_byte_is_never_believed() {
    let place = Place::new();
    let store = place.open();
    let owner = store.owner_id().clone();
    for number in 0..50 {
        store.record(&instance(number), &first(&instance(number))).unwrap();
    }
    let before = store.instances().unwrap();
    drop(store);
    let whole = fs::read(place.path()).unwrap();
    let mut told = 0;
    for at in (0..whole.len()).step_by(whole.len() / 61) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(place.path(), &bytes).unwrap();
        match Store::open(&place.path()) {
            Ok(store) => {
                assert_eq!((store.owner_id(), store.instances().unwrap()), (&owner, before.clone()), "byte {at}")
            }
            Err(error) => {
                assert_eq!(error.label(), "store_corrupt", "byte {at}: {error}");
                told += 1;
            }
        }
    }
    assert!(told > 0, "no flip was noticed");
}

#[test]
fn another_schema_is_refused_and_left_alone() {
    let place = Place::new();
    let store = place.open();
    store
        .write("test", |txn| {
            txn.open_table(META)?.insert(SCHEMA, SCHEMA_VERSION + 1)?;
            Ok(())
        })
        .unwrap();
    drop(store);
    let error = Store::open(&place.path()).unwrap_err();
    assert_eq!(error.label(), "store_schema");
    assert!(error.to_string().contains("schema 4, this version knows 3"), "{error}");
}

#[test]
fn an_unreadable_record_is_named() {
    let place = Place::new();
    let store = place.open();
    store
        .write("test", |txn| {
            txn.open_table(tables::INSTANCES)?.insert("0000000a", "{}")?;
            Ok(())
        })
        .unwrap();
    let error = store.instances().unwrap_err();
    assert_eq!(error.label(), "store_record");
    assert!(error.to_string().contains("\"0000000a\""), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_told() {
    let place = Place::new();
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("below").join(FILE_NAME)).unwrap_err();
    assert_eq!(error.label(), "store_open", "{error}");
}

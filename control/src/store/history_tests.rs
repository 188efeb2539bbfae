#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! The last tables, what they share, and the hold.

use super::tables::{HOLD, META, META_TEXT, SCHEMA, SNAPSHOT, TABLE_HEADERS, TABLE_ZONES};
use super::tests::Place;
use super::*;
use crate::model::{Hold, Snapshot, TableHeader, Zone, ZoneRecord, fixtures};
use redb::ReadableTableMetadata;

fn zone(records: u32) -> Zone {
    let record =
        |number| ZoneRecord { name: format!("r{number}.edge.test."), rtype: 1, ttl_s: 60, rdata: vec![192, 0, 2, 1] };
    Zone { records: (0..records).map(record).collect(), ..fixtures::zone() }
}

fn snapshot(generation: u64, zones: Vec<Zone>, backends: &[u8]) -> Snapshot {
    let video = fixtures::service("video", backends.iter().map(|number| fixtures::backend(*number)).collect());
    fixtures::snapshot(generation, zones, vec![video])
}

fn keep(store: &Store, snapshot: &Snapshot) {
    store.keep_table(snapshot, Timestamp(snapshot.generation * 10), "test", None, 4).unwrap();
}

fn generations(store: &Store) -> Vec<(u64, u64)> {
    store.tables().unwrap().iter().map(|t| (t.first_generation, t.generation)).collect()
}

fn zones_stored(store: &Store) -> Vec<u64> {
    let read = |txn: &ReadTransaction| {
        let table = txn.open_table(TABLE_ZONES)?;
        let keys = table.iter()?.map(|row| row.map(|(key, _)| key.value()));
        Ok(keys.collect::<Result<Vec<_>, _>>()?)
    };
    store.read("test", read).unwrap()
}

#[test]
fn the_last_tables_are_kept_whole() {
    let place = Place::new();
    let store = place.open();
    assert_eq!((store.snapshot().unwrap(), store.tables().unwrap()), (None, Vec::new()));
    let all: Vec<_> = (1..=6u8).map(|n| snapshot(n.into(), vec![zone((n / 4).into())], &[n])).collect();
    all.iter().for_each(|snapshot| keep(&store, snapshot));
    let crashed = place.crashed(&store);
    assert_eq!(generations(&crashed), [(3, 3), (4, 4), (5, 5), (6, 6)]);
    assert_eq!(crashed.snapshot().unwrap().as_ref(), all.last());
    for kept in &all[2..] {
        let (header, read) = crashed.table(kept.generation).unwrap().unwrap();
        assert_eq!((&read, &header), (kept, &TableHeader::of(kept, Timestamp(kept.generation * 10), "test")));
    }
    assert_eq!(crashed.table(2).unwrap(), None);
    assert_eq!(crashed.table(7).unwrap(), None);
    // Zones are stored once for all tables that have them, as long as one does.
    assert_eq!(zones_stored(&crashed), [1, 4]);
    (7..=8u8).for_each(|n| keep(&store, &snapshot(n.into(), vec![zone(1)], &[n])));
    assert_eq!((zones_stored(&store), generations(&store).len()), (vec![4], 4));
}

#[test]
fn the_same_content_is_one_table() {
    let store = Place::new().open();
    keep(&store, &snapshot(1, vec![zone(1)], &[1]));
    keep(&store, &snapshot(5, vec![zone(1)], &[2]));
    keep(&store, &snapshot(6, vec![zone(1)], &[2]));
    keep(&store, &snapshot(9, vec![zone(1)], &[2]));
    assert_eq!(generations(&store), [(1, 1), (5, 9)]);
    assert_eq!(store.tables().unwrap()[1].at, Timestamp(50), "since when it was in force");
    for generation in [5, 6, 9] {
        assert_eq!(store.table(generation).unwrap().unwrap().1, snapshot(9, vec![zone(1)], &[2]));
    }
    assert_eq!(store.table(4).unwrap(), None);
    // An earlier content that comes back is another table.
    keep(&store, &snapshot(10, vec![zone(1)], &[1]));
    assert_eq!(generations(&store), [(1, 1), (5, 9), (10, 10)]);
}

#[test]
fn headers_count_what_is_in_the_table() {
    let table = snapshot(3, vec![zone(2), Zone { apex: "other.test.".into(), ..zone(1) }], &[1, 2]);
    let header = TableHeader::of(&table, Timestamp(1), "why");
    // Two apexes, r0 and r1, and the service's.
    assert_eq!((header.zones, header.names, header.services, header.backends), (2, 5, 1, 2));
}

#[test]
fn a_hold_is_written_with_its_table_and_survives() {
    let place = Place::new();
    let store = place.open();
    keep(&store, &snapshot(1, Vec::new(), &[1]));
    assert_eq!(store.hold().unwrap(), None);
    let hold = Hold { of: 1, since: Timestamp(7), by: "root".into() };
    store.keep_table(&snapshot(2, Vec::new(), &[1]), Timestamp(7), "held", Some(&hold), 4).unwrap();
    let crashed = place.crashed(&store);
    assert_eq!((crashed.hold().unwrap(), crashed.snapshot().unwrap().unwrap().generation), (Some(hold), 2));
    drop(crashed);
    store.forget_hold().unwrap();
    assert_eq!(place.crashed(&store).hold().unwrap(), None);
}

#[test]
fn a_store_of_schema_1_is_taken_over() {
    let place = Place::new();
    let old = snapshot(41, vec![zone(3)], &[1, 2]);
    let store = place.open();
    let owner = store.owner_id().clone();
    store
        .write("test", |txn| {
            txn.delete_table(TABLE_HEADERS)?;
            txn.open_table(META)?.insert(SCHEMA, 1)?;
            txn.open_table(META_TEXT)?.insert(SNAPSHOT, serde_json::to_string(&old).unwrap().as_str())?;
            Ok(())
        })
        .unwrap();
    drop(store);
    for _ in 0..2 {
        let store = place.open();
        assert_eq!((store.owner_id(), store.snapshot().unwrap().as_ref()), (&owner, Some(&old)));
        assert_eq!(generations(&store), [(41, 41)]);
        let left = store.read("test", |txn| Ok(txn.open_table(META_TEXT)?.get(SNAPSHOT)?.is_some())).unwrap();
        assert!(!left, "it is there once");
    }
}

#[test]
fn what_is_not_understood_is_left_out_but_for_the_newest() {
    let store = Place::new().open();
    (1..=3u8).for_each(|n| keep(&store, &snapshot(n.into(), Vec::new(), &[n])));
    let spoil = |generation: u64| {
        let spoil = |txn: &WriteTransaction| Ok(txn.open_table(TABLE_HEADERS)?.insert(generation, "{}")?.map(drop));
        store.write("test", spoil).unwrap();
    };
    spoil(2);
    assert_eq!(generations(&store), [(1, 1), (3, 3)]);
    keep(&store, &snapshot(4, Vec::new(), &[4]));
    assert_eq!(generations(&store), [(1, 1), (3, 3), (4, 4)]);
    spoil(4);
    assert_eq!(store.snapshot().unwrap_err().label(), "store_record");
    let headers = store.read("test", |txn| Ok(txn.open_table(TABLE_HEADERS)?.len()?)).unwrap();
    assert_eq!(headers, 4);
    store.write("test", |txn| Ok(txn.open_table(META_TEXT)?.insert(HOLD, "?")?.map(drop))).unwrap();
    assert_eq!(store.hold().unwrap_err().label(), "store_record");
}

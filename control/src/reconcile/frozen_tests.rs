#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
//! A store that cannot be written freezes decisions; what is observed still counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hold::tests::{Bench, bench};
use super::operator::Work;
use crate::model::{Desired, DesiredService, InstanceId, InstanceState, NodeName, ServiceName};

fn id(number: u32) -> InstanceId {
    InstanceId::from_number(number)
}

fn state(bench: &Bench, number: u32) -> Option<InstanceState> {
    bench.operator.instances.get(&id(number)).map(|t| t.record.state)
}

fn stored(bench: &Bench) -> BTreeMap<String, (InstanceState, u32)> {
    let all = bench.operator.world.store.instances().unwrap();
    all.into_iter().map(|i| (i.id.to_string(), (i.state, i.largest_ttl_s))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_stored_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    bench.add(1, "video");
    assert_eq!(bench.published(), ["1"]);
    assert_eq!(stored(&bench)["00000001"], (InstanceState::Serving, 5));
    bench.operator.world.store.fill_disk(true);
    bench.add(2, "video");
    assert_eq!((bench.published(), state(&bench, 2)), (vec!["1".to_owned()], Some(InstanceState::Ready)));
    bench.operator.world.store.fill_disk(false);
    bench.operator.publish();
    assert_eq!(
        (bench.published(), state(&bench, 2)),
        (vec!["1".to_owned(), "2".to_owned()], Some(InstanceState::Serving))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dies_leaves_the_answers_and_waits_for_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    bench.add(1, "video");
    bench.add(2, "video");
    let generation = bench.operator.snapshot.generation;
    bench.operator.world.store.fill_disk(true);
    bench.operator.failed(&id(1), "it ended");
    bench.operator.publish();
    assert_eq!(bench.published(), ["2"], "a full disk keeps a dead instance in the answers");
    assert!(bench.operator.snapshot.generation > generation);
    bench.operator.take_down_unpublished();
    let tracked = &bench.operator.instances[&id(1)];
    assert!(matches!(tracked.work, Work::None) && tracked.unstored.len() == 1, "it was acted on before it was stored");
    assert_eq!(stored(&bench)["00000001"].0, InstanceState::Serving);
    bench.operator.world.store.fill_disk(false);
    bench.operator.store_late();
    assert_eq!(stored(&bench)["00000001"].0, InstanceState::Failed);
    assert!(bench.operator.instances[&id(1)].unstored.is_empty());
    // The generation goes on above what was published meanwhile.
    let meanwhile = bench.operator.snapshot.generation;
    bench.add(3, "video");
    assert!(
        bench.operator.snapshot.generation > meanwhile && bench.operator.world.store.generation().unwrap() > meanwhile
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_or_drained_that_cannot_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    bench.add(1, "video");
    bench.operator.world.store.fill_disk(true);
    assert!(!bench.operator.change(&id(1), InstanceState::Draining, "not wanted any more"));
    assert_eq!(state(&bench, 1), Some(InstanceState::Serving));
    let video = ServiceName::new("video").unwrap();
    let wanted = DesiredService { replicas: 2, reason: "test".to_owned(), fewer_soon: false, prepared: 0 };
    let desired =
        Desired { revision: 1, node: NodeName::new("node").unwrap(), services: [(video.clone(), wanted)].into() };
    bench.operator.desired = Some(Arc::new(desired));
    bench.operator.start(&video);
    assert_eq!(bench.operator.instances.len(), 1);
}

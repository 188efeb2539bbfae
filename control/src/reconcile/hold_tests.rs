#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! On a real store, with the daemon's own DNS as the only place where answers go.

use std::path::Path;

use tokio::sync::watch;

use super::*;
use crate::dns::Index;
use crate::model::{AddressPair, InstanceId, Technology};
use crate::reconcile::fixtures::{Fixture, config, fixture};

const CONFIG: &str = r#"
[dns]
listen = ["192.0.2.1"]
[[zone]]
name = "edge.test"
[[service]]
name = "video"
names = ["video.edge.test"]
image = "i"
[[service]]
name = "maps"
names = ["maps.edge.test"]
image = "i"
"#;

/// An operator without hands, and what it tells.
pub(in crate::reconcile) struct Bench {
    pub(in crate::reconcile) operator: Operator,
    index: watch::Receiver<Arc<Index>>,
}

pub(in crate::reconcile) fn bench(dir: &Path) -> Bench {
    let Fixture { operator, index, .. } = fixture(dir, CONFIG);
    Bench { operator, index }
}

impl Bench {
    pub(in crate::reconcile) fn add(&mut self, number: u32, service: &str) {
        let id = InstanceId::from_number(number);
        let addresses = AddressPair { v4: Some([10, 0, 0, number as u8].into()), v6: None };
        let service = ServiceName::new(service).unwrap();
        let mut made = Instance::new(id, service, Technology::Docker, addresses, Timestamp(0), "test");
        made.state = InstanceState::Ready;
        self.operator.track(made, false);
        self.operator.publish();
    }

    fn remove(&mut self, number: u32) {
        self.operator.instances.remove(&InstanceId::from_number(number));
        self.operator.publish();
    }

    fn generation(&self) -> u64 {
        self.operator.snapshot.generation
    }

    fn roll_back(&mut self, generation: u64, force: bool) -> Result<RolledBack, HoldError> {
        self.operator.roll_back(Rollback { generation, force, dry_run: false, by: "root".into() })
    }

    /// Numbers of the published instances of both services.
    pub(in crate::reconcile) fn published(&self) -> Vec<String> {
        let backends = self.operator.snapshot.services.iter().flat_map(|s| &s.backends);
        let mut ids: Vec<String> = backends.map(|b| b.instance.to_string().trim_start_matches('0').into()).collect();
        ids.sort();
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_table_comes_back_under_a_new_generation_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench_1 = bench(dir.path());
    bench_1.add(1, "video");
    bench_1.add(2, "video");
    let then = bench_1.generation();
    bench_1.add(3, "video");
    let newest = bench_1.generation();
    assert_eq!(bench_1.published(), ["1", "2", "3"]);

    let done = bench_1.roll_back(then, false).unwrap();
    assert!(done.generation > newest && done.warnings.is_empty(), "{done:?}");
    assert_eq!(bench_1.published(), ["1", "2"]);
    bench_1.index.mark_unchanged();
    bench_1.add(4, "maps");
    bench_1.operator.publish();
    assert_eq!((bench_1.published(), bench_1.generation()), (vec!["1".into(), "2".into()], done.generation));
    assert!(!bench_1.index.has_changed().unwrap(), "published while held");
    // 3 serves and is not named, 1 and 2 are; 4 came up meanwhile.
    let held: Vec<bool> =
        bench_1.operator.services_view().values().flat_map(|s| s.instances.iter().map(|i| i.held)).collect();
    assert_eq!(held, [false, true, true, false], "maps: 4; video: 1, 2, 3");

    // A new process goes on with it.
    drop(bench_1);
    let mut bench_2 = bench(dir.path());
    assert_eq!((bench_2.generation(), bench_2.published()), (done.generation, vec!["1".into(), "2".into()]));
    bench_2.operator.publish();
    assert_eq!(bench_2.published(), ["1", "2"], "nothing runs, and yet");
    let restarted = bench_2.generation();
    assert!(restarted > done.generation);
    bench_2.operator.publish();
    assert_eq!(bench_2.generation(), restarted, "once");
    bench_2.operator.tell();
    assert_eq!(bench_2.operator.view.held.as_ref().map(|h| (h.of, h.by.as_str())), Some((then, "root")));

    bench_2.add(5, "video");
    assert_eq!(bench_2.published(), ["1", "2"]);
    let released = bench_2.operator.release("root").unwrap();
    assert!(released > restarted);
    assert_eq!(bench_2.published(), ["5"]);
    assert_eq!(bench_2.operator.release("root").unwrap_err().label(), "not_held");
    assert_eq!(bench_2.operator.world.store.hold().unwrap(), None);
    // Nobody has 1 and 2 any more, but clients may.
    let resting = bench_2.operator.world.store.quarantined(Timestamp::now()).unwrap();
    assert_eq!(resting.len(), 2, "{resting:?}");

    let causes: Vec<String> = bench_2.operator.world.store.tables().unwrap().into_iter().map(|t| t.cause).collect();
    assert_eq!(
        &causes[causes.len() - 2..],
        [format!("rolled back to {then} by root"), "video: +00000005 -2 instances".to_owned()]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_probably_is_a_mistake_needs_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    bench.add(1, "video");
    let then = bench.generation();
    bench.add(2, "video");
    bench.remove(1);
    let now = bench.generation();
    let unknown = bench.roll_back(now + 1, true).unwrap_err();
    assert_eq!(unknown.label(), "unknown_table");
    let refused = bench.roll_back(then, false).unwrap_err();
    assert_eq!(refused.label(), "needs_force");
    assert_eq!(
        refused.to_string(),
        format!(
            "table {then}: no serving instance of video has 10.0.0.1 (was 00000001); --force puts it in force \
             nevertheless"
        )
    );
    // Worse: somebody else has it now.
    let id = InstanceId::from_number(9);
    bench.add(9, "maps");
    bench.operator.instances.get_mut(&id).unwrap().record.addresses.v4 = Some([10, 0, 0, 1].into());
    let refused = bench.roll_back(then, false).unwrap_err().to_string();
    assert!(refused.contains("10.0.0.1 (now of 00000009 of maps)"), "{refused}");
    // A newer instance of the same service is as good as the old one.
    bench.operator.instances.get_mut(&id).unwrap().record.service = ServiceName::new("video").unwrap();
    bench.roll_back(then, false).unwrap();
    bench.operator.release("root").unwrap();

    bench.operator.config = config(&CONFIG.replace("edge.test", "other.test").replace("\"maps\"", "\"films\""));
    let before = (bench.generation(), bench.published());
    let HoldError::NeedsForce { reasons, .. } = bench.roll_back(then, false).unwrap_err() else { panic!() };
    assert_eq!(
        reasons,
        [
            "its zone edge.test. is not configured any more",
            "the zone other.test. would not be answered",
            "its service maps is not configured any more",
            "its service video has the names video.edge.test., now video.other.test.",
            "the service films would not be answered",
        ]
    );
    assert_eq!((bench.generation(), bench.published()), before);
    assert!(bench.operator.hold.is_none());
    let forced = bench.roll_back(then, true).unwrap();
    assert_eq!(forced.warnings.len(), 5);
    assert_eq!(bench.published(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_can_move_to_another_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench(dir.path());
    bench.add(1, "video");
    let one = bench.generation();
    bench.add(2, "video");
    let two = bench.generation();
    let first = bench.roll_back(one, false).unwrap().generation;
    let second = bench.roll_back(two, false).unwrap().generation;
    assert!(second > first && first > two);
    assert_eq!(bench.published(), ["1", "2"]);
    assert_eq!(bench.operator.world.store.hold().unwrap().map(|h| h.of), Some(two));
}

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
//! The TTL ahead of a removal as it is published. On a real store, without a technology.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Operator;
use super::fixtures::fixture;
use crate::model::{
    AddressPair, Desired, DesiredService, Instance, InstanceId, InstanceState, ServiceName, Technology, Timestamp,
};

const CONFIG: &str = r#"
[dns]
listen = ["192.0.2.1"]
[[zone]]
name = "edge.test"
[[service]]
name = "video"
names = ["video.edge.test"]
image = "i"
ttl_s = 60
drain_ttl_s = 2
"#;

/// Says what is planned and publishes what follows; the TTL in the tables.
fn plan(operator: &mut Operator, replicas: u32, fewer_soon: bool) -> u32 {
    let wanted = DesiredService { replicas, reason: "test".to_owned(), fewer_soon, prepared: 0 };
    let services = [(ServiceName::new("video").unwrap(), wanted)].into();
    let node = operator.world.node.clone();
    operator.desired = Some(Arc::new(Desired { revision: 1, node, services }));
    operator.shorten_ttls();
    operator.publish();
    operator.snapshot.services[0].ttl_s
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_live_shorter_while_a_removal_is_coming() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = fixture(dir.path(), CONFIG);
    let operator = &mut fixture.operator;
    for number in [1, 2] {
        let addresses = AddressPair { v4: Some([10, 0, 0, number as u8].into()), v6: None };
        let (id, service) = (InstanceId::from_number(number), ServiceName::new("video").unwrap());
        let mut made = Instance::new(id, service, Technology::Docker, addresses, Timestamp(0), "test");
        made.state = InstanceState::Ready;
        operator.track(made, false);
    }
    let left = |operator: &Operator, later: u64| {
        let tracked = &operator.instances[&InstanceId::from_number(1)];
        (tracked.record.largest_ttl_s, tracked.named.left(Instant::now() + Duration::from_secs(later)).as_secs())
    };
    assert_eq!(plan(operator, 2, false), 60);
    assert_eq!(left(operator, 0), (60, 60));
    assert_eq!(plan(operator, 2, true), 2);
    // What was handed out before is waited for; a minute later nothing of it is left.
    assert!((58..=60).contains(&left(operator, 0).1));
    assert_eq!(left(operator, 61), (60, 2));
    assert_eq!(operator.view.shortened_ttls, 1);
    assert_eq!(plan(operator, 1, false), 60, "the removal has come");
    assert_eq!(plan(operator, 1, true), 60, "and the next is not announced so soon");
    assert_eq!(operator.view.shortened_ttls, 1);
}

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Who decides how many instances a service has that may have none. On a real store, without a technology.

use std::collections::BTreeMap;

use super::*;
use crate::model::{AddressPair, Desired, DesiredService, Instance, InstanceId, Technology};
use crate::reconcile::fixtures::{Fixture, fixture};
use crate::reconcile::view::TechnologyReport;
use crate::reconcile::{Action, decide};

const CONFIG: &str = r#"
[dns]
listen = ["192.0.2.1"]
[[zone]]
name = "edge.test"
[[service]]
name = "rare"
names = ["rare.edge.test"]
image = "i"
min = 0
ttl_s = 60
[service.summon]
ttl_s = 3
"#;

fn rare() -> ServiceName {
    ServiceName::new("rare").unwrap()
}

fn order(service: u32) -> SummonOrder {
    SummonOrder { service, seen: Instant::now() }
}

fn plan(fixture: &Fixture, revision: u64, replicas: u32) {
    let wanted = DesiredService { replicas, reason: "planned".to_owned(), fewer_soon: false, prepared: 0 };
    let services = BTreeMap::from([(rare(), wanted)]);
    fixture.desired.send_replace(Some(Arc::new(Desired {
        revision,
        node: "node".to_owned().try_into().unwrap(),
        services,
    })));
}

fn actions(operator: &Operator) -> Vec<Action> {
    decide(&operator.services_view(), operator.config.limits)
}

fn add(operator: &mut Operator, number: u32, state: InstanceState, since: Timestamp) {
    let addresses = AddressPair { v4: Some([10, 0, 0, number as u8].into()), v6: None };
    let id = InstanceId::from_number(number);
    let mut made = Instance::new(id, rare(), Technology::Docker, addresses, since, "test");
    made.state = state;
    operator.track(made, false);
}

fn available(operator: &mut Operator) {
    let report = TechnologyReport { available: true, detail: String::new() };
    operator.technologies.insert(Technology::Docker, report);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_plan_nor_idleness_ends_what_the_other_has_started() {
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = fixture(dir.path(), CONFIG);
    available(&mut fixture.operator);
    plan(&fixture, 1, 0);
    fixture.operator.take_desired();
    fixture.operator.publish();
    assert_eq!(actions(&fixture.operator), [], "at zero by plan");
    fixture.operator.summoned(order(99));
    assert_eq!(actions(&fixture.operator), [], "not for a service that there is not");
    fixture.operator.summoned(order(0));
    fixture.operator.summoned(order(0));
    assert_eq!(actions(&fixture.operator), [Action::Start(rare())], "one, whatever the plan says");
    add(&mut fixture.operator, 1, InstanceState::Serving, Timestamp::now());
    assert_eq!(actions(&fixture.operator), [], "and it stays");
    plan(&fixture, 2, 2);
    fixture.operator.take_desired();
    assert_eq!(actions(&fixture.operator), [Action::Start(rare())], "the plan may want more");
    fixture.operator.awake.clear();
    add(&mut fixture.operator, 2, InstanceState::Serving, Timestamp::now());
    assert_eq!(actions(&fixture.operator), [], "what is planned stays, used or not");
    plan(&fixture, 3, 0);
    fixture.operator.take_desired();
    assert_eq!(actions(&fixture.operator).len(), 2, "and goes when neither wants it");
    fixture.operator.wake_running();
    assert_eq!(actions(&fixture.operator).len(), 1, "found running, it counts as in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cold_is_told_with_what_an_order_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let Fixture { mut operator, cold, .. } = fixture(dir.path(), CONFIG);
    let told = |operator: &Operator| {
        operator.tell_cold();
        cold.borrow().get(&0).copied()
    };
    operator.publish();
    assert_eq!(told(&operator), Some(Cold::Refused(Refusal::Unavailable)));
    available(&mut operator);
    assert_eq!(told(&operator), Some(Cold::AtZero));
    operator.back_off.failed(&rare());
    assert_eq!(told(&operator), Some(Cold::Refused(Refusal::BackOff)));
    operator.back_off.succeeded(&rare());
    operator.summoned(order(0));
    assert_eq!(told(&operator), Some(Cold::Starting));
    add(&mut operator, 1, InstanceState::Starting, Timestamp::now());
    assert_eq!(told(&operator), Some(Cold::Starting));
    operator.instances.clear();
    add(&mut operator, 1, InstanceState::Serving, Timestamp::now());
    operator.publish();
    assert_eq!(told(&operator), None, "it serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_short_lived_until_an_instance_has_proven_itself() {
    let dir = tempfile::tempdir().unwrap();
    let Fixture { mut operator, .. } = fixture(dir.path(), CONFIG);
    add(&mut operator, 1, InstanceState::Ready, Timestamp::now());
    operator.publish();
    let ttl = |operator: &Operator| operator.snapshot.services[0].ttl_s;
    assert_eq!(ttl(&operator), 3);
    let due = operator.next_proof().next().expect("it is looked at again");
    assert!(due > Instant::now() && due <= Instant::now() + PROVEN);
    let since = Timestamp(Timestamp::now().0 - PROVEN.as_millis() as u64 - 1);
    operator.instances.values_mut().for_each(|tracked| tracked.record.since = since);
    operator.publish();
    assert_eq!((ttl(&operator), operator.next_proof().next()), (60, None));
    add(&mut operator, 2, InstanceState::Ready, Timestamp::now());
    operator.publish();
    assert_eq!(ttl(&operator), 60, "one that has proven itself is enough");
}

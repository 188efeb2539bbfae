//! Wanted − observed → actions. Pure, so that every brake can be tested without a machine.

use std::collections::BTreeMap;

use crate::model::{Drain, InstanceId, InstanceState, Limits, ServiceName, Timestamp};

/// One service as it stands.
#[derive(Debug, Clone, Default)]
pub struct ServiceView {
    /// Wanted instances; `None` while nobody has said so, which changes nothing.
    pub wanted: Option<u32>,
    /// Hard maximum of the service; 0 where it is not configured any more.
    pub max: u32,
    /// Its technology has a working driver.
    pub available: bool,
    /// No start now: its last ones failed.
    pub held_back: bool,
    /// Its last starts failed: the next instance has to become ready before another one is tried.
    pub one_by_one: bool,
    /// Its instances that are not stopped.
    pub instances: Vec<InstanceView>,
}

/// One instance as it stands.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// Its identifier.
    pub id: InstanceId,
    /// Where it stands.
    pub state: InstanceState,
    /// Since when.
    pub since: Timestamp,
    /// A held table names it: it stays.
    pub held: bool,
    /// The machine's operator has ordered it out of the answers: another takes its place.
    pub ordered: Option<Drain>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start one more instance.
    Start(ServiceName),
    /// Take this instance out.
    Drain(InstanceId),
}

/// What is to be done, drains first: they make room.
///
/// Never starts beyond the service's maximum or the node's limit (draining instances count for the
/// node: they still hold memory), and never drains for a service of which nothing is wanted to be known.
#[must_use]
pub fn decide(services: &BTreeMap<ServiceName, ServiceView>, limits: Limits) -> Vec<Action> {
    let mut drains = Vec::new();
    let mut starts = Vec::new();
    let total: usize = services.values().map(|s| s.instances.len()).sum();
    let mut room = (limits.instances as usize).saturating_sub(total);
    for (name, service) in services {
        let alive = service.instances.iter().filter(|i| i.state.counts());
        let out = alive.clone().filter(|i| !i.held && matches!(i.ordered, Some(Drain::Stop | Drain::Remove)));
        drains.extend(out.map(|i| Action::Drain(i.id.clone())));
        let mut running: Vec<&InstanceView> = alive.filter(|i| i.ordered.is_none()).collect();
        let wanted = match service.wanted {
            Some(wanted) => (wanted.min(service.max)) as usize,
            None if service.max == 0 => 0,
            None => continue,
        };
        if running.len() > wanted {
            let excess = running.len() - wanted;
            // Those that serve nobody yet first, then the youngest.
            running.retain(|i| !i.held);
            running.sort_by_key(|i| (i.state, std::cmp::Reverse(i.since), i.id.clone()));
            drains.extend(running.iter().take(excess).map(|i| Action::Drain(i.id.clone())));
        } else if service.available && !service.held_back {
            let coming = |i: &&InstanceView| i.state < InstanceState::Ready;
            let tried = usize::from(!running.iter().any(coming));
            let missing = (wanted - running.len()).min(room).min(if service.one_by_one { tried } else { room });
            room -= missing;
            starts.extend(std::iter::repeat_n(Action::Start(name.clone()), missing));
        }
    }
    drains.extend(starts);
    drains
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn service(wanted: Option<u32>, states: &[InstanceState]) -> ServiceView {
        let instances = states.iter().enumerate().map(|(i, state)| InstanceView {
            id: InstanceId::from_number(i as u32),
            state: *state,
            since: Timestamp(i as u64),
            held: false,
            ordered: None,
        });
        ServiceView {
            wanted,
            max: 8,
            available: true,
            held_back: false,
            one_by_one: false,
            instances: instances.collect(),
        }
    }

    fn actions(view: ServiceView, limit: u32) -> Vec<Action> {
        let name = ServiceName::new("s").unwrap();
        decide(&BTreeMap::from([(name, view)]), Limits { instances: limit })
    }

    fn start() -> Action {
        Action::Start(ServiceName::new("s").unwrap())
    }

    #[test]
    fn starts_what_is_missing_and_no_more() {
        use InstanceState::{Draining, Serving, Starting};
        assert_eq!(actions(service(Some(3), &[Serving, Starting, Draining]), 32), vec![start()]);
        assert!(actions(service(Some(2), &[Serving, Starting]), 32).is_empty());
    }

    #[test]
    fn drains_unready_first_then_the_youngest() {
        use InstanceState::{Serving, Starting};
        let drained = actions(service(Some(1), &[Serving, Serving, Starting]), 32);
        let ids: Vec<_> = [2, 1].into_iter().map(|n| Action::Drain(InstanceId::from_number(n))).collect();
        assert_eq!(drained, ids);
    }

    #[test]
    fn what_a_held_table_names_stays_and_the_rest_is_drained() {
        let mut view = service(Some(1), &[InstanceState::Serving; 4]);
        view.instances[2].held = true;
        view.instances[3].held = true;
        let ids: Vec<_> = [1, 0].into_iter().map(|n| Action::Drain(InstanceId::from_number(n))).collect();
        assert_eq!(actions(view.clone(), 32), ids);
        let gone = ServiceView { max: 0, wanted: None, ..view };
        assert_eq!(actions(gone, 32), ids, "not even where its service left the configuration");
    }

    #[test]
    fn what_is_ordered_out_is_replaced_whatever_is_wanted() {
        let mut view = service(Some(2), &[InstanceState::Serving; 2]);
        view.instances[0].ordered = Some(Drain::Stop);
        assert_eq!(actions(view.clone(), 32), vec![Action::Drain(InstanceId::from_number(0)), start()]);
        assert_eq!(actions(view.clone(), 2).len(), 1, "the one that leaves still takes its place on the node");
        view.instances[0].ordered = Some(Drain::Keep);
        assert_eq!(actions(view.clone(), 32), vec![start()]);
        view.instances[0] = InstanceView { ordered: Some(Drain::Remove), held: true, ..view.instances[0].clone() };
        assert_eq!(actions(ServiceView { wanted: None, ..view }, 32), vec![], "a held table names it");
    }

    #[test]
    fn what_failed_is_tried_one_by_one() {
        use InstanceState::{Serving, Starting};
        let suspect = |states| ServiceView { one_by_one: true, ..service(Some(5), states) };
        assert_eq!(actions(suspect(&[]), 32), vec![start()]);
        assert_eq!(actions(suspect(&[Serving, Serving]), 32), vec![start()]);
        assert!(actions(suspect(&[Serving, Starting]), 32).is_empty());
    }

    #[test]
    fn nothing_known_means_nothing_done() {
        assert!(actions(service(None, &[InstanceState::Serving; 3]), 32).is_empty());
    }

    #[test]
    fn a_service_that_left_the_configuration_is_drained() {
        let gone = ServiceView { max: 0, ..service(None, &[InstanceState::Serving; 2]) };
        assert_eq!(actions(gone, 32).len(), 2);
    }

    #[test]
    fn back_off_and_missing_technology_hold_starts_but_not_drains() {
        let later = ServiceView { held_back: true, ..service(Some(2), &[]) };
        assert!(actions(later, 32).is_empty());
        let away = ServiceView { available: false, ..service(Some(1), &[InstanceState::Serving; 2]) };
        assert_eq!(actions(away, 32).len(), 1);
    }

    proptest! {
        #[test]
        fn limits_always_hold(wanted in 0u32..100, max in 0u32..10, limit in 0u32..20,
                              states in proptest::collection::vec(0usize..8, 0..12)) {
            let states: Vec<_> = states.iter().map(|i| InstanceState::ALL[*i])
                .filter(|s| *s != InstanceState::Stopped).collect();
            let view = ServiceView { max, ..service(Some(wanted), &states) };
            let running = states.iter().filter(|s| s.counts()).count();
            let done = actions(view, limit);
            let starts = done.iter().filter(|a| matches!(a, Action::Start(_))).count();
            let drains = done.len() - starts;
            prop_assert!(starts == 0 || drains == 0);
            prop_assert!(starts == 0 || states.len() + starts <= limit as usize);
            prop_assert!(running + starts <= running.max(wanted.min(max) as usize));
            prop_assert_eq!(drains, running.saturating_sub(wanted.min(max) as usize));
        }
    }
}

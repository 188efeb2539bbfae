//! Clients that come to an instance when no answer names it any more, where their service forwards them: from the end of
//! its answers until some time behind its removal, new connections go to an instance that serves. Which one is decided
//! here; `netlink` keeps the kernel's rules so, and they outlive the daemon. Pure; the operator looks and stores.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::model::{AddressPair, Instance, InstanceId, Left, ServiceName, Timestamp};
use crate::netlink::Forward;

/// The rules are in force long before this has passed since the end of the answers, so that a drain never ends sooner.
pub(super) const SETTLED: Duration = Duration::from_secs(1);

/// Instances whose late clients are forwarded, and to whom.
#[derive(Debug, Default)]
pub(super) struct Late {
    left: BTreeMap<InstanceId, Left>,
    targets: BTreeMap<InstanceId, InstanceId>,
    /// As the store has it.
    stored: Vec<Left>,
}

/// An instance that can take connections of others.
pub(super) type Live = (InstanceId, AddressPair);

impl Late {
    /// As an earlier run of the daemon left it.
    pub fn resume(stored: Vec<Left>) -> Self {
        let left = stored.iter().map(|left| (left.instance.clone(), left.clone())).collect();
        Self { left, stored, ..Self::default() }
    }

    /// The last answer that named it has run out, or it is gone and forwarded until then.
    pub fn add(&mut self, record: &Instance, until: Option<Timestamp>) {
        let (instance, service, addresses) = (record.id.clone(), record.service.clone(), record.addresses);
        self.left.insert(instance.clone(), Left { instance, service, addresses, until });
    }

    pub fn has(&self, id: &InstanceId) -> bool {
        self.left.contains_key(id)
    }

    /// Who its clients go to.
    pub fn target(&self, id: &InstanceId) -> Option<&InstanceId> {
        self.targets.get(id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Left> {
        self.left.values()
    }

    /// Everyone, where the store has something else.
    pub fn unstored(&self) -> Option<Vec<Left>> {
        let now: Vec<Left> = self.left.values().cloned().collect();
        (now != self.stored).then_some(now)
    }

    /// The store has this now; those of them that are news.
    pub fn stored(&mut self, now: Vec<Left>) -> Vec<Left> {
        let news = now.iter().filter(|left| !self.stored.contains(left)).cloned().collect();
        self.stored = now;
        news
    }

    /// Lets go of those whose time is over, and those of services that do not forward (any more). One that is gone and
    /// whose end was not stored, for the daemon was killed then, is forwarded for as long as its service says from now on.
    pub fn prune(
        &mut self,
        now: Timestamp,
        forward: impl Fn(&ServiceName) -> Option<Duration>,
        is_there: impl Fn(&InstanceId) -> bool,
    ) {
        self.left.retain(|id, left| {
            let Some(forward) = forward(&left.service) else { return false };
            if left.until.is_none() && !is_there(id) {
                left.until = Some(after(now, forward));
            }
            left.until.is_none_or(|until| until > now)
        });
    }

    /// Gives each an instance of its service that serves: the one that it has, else the one that has fewest of them.
    pub fn aim(&mut self, live: &BTreeMap<ServiceName, Vec<Live>>) {
        let before = std::mem::take(&mut self.targets);
        let mut load: BTreeMap<InstanceId, usize> = BTreeMap::new();
        let of = |left: &Left| live.get(&left.service).map(Vec::as_slice).unwrap_or_default();
        let (settled, open): (Vec<&Left>, Vec<&Left>) = self.left.values().partition(|left| {
            before.get(&left.instance).is_some_and(|target| of(left).iter().any(|(id, _)| id == target))
        });
        for left in settled {
            let target = before[&left.instance].clone();
            *load.entry(target.clone()).or_default() += 1;
            self.targets.insert(left.instance.clone(), target);
        }
        for left in open {
            let least = of(left).iter().min_by_key(|(id, _)| (load.get(id).copied().unwrap_or(0), id));
            if let Some((target, _)) = least {
                *load.entry(target.clone()).or_default() += 1;
                self.targets.insert(left.instance.clone(), target.clone());
            }
        }
    }

    /// What the kernel shall do.
    pub fn forwards(
        &self,
        live: &BTreeMap<ServiceName, Vec<Live>>,
        port: impl Fn(&ServiceName) -> Option<u16>,
    ) -> BTreeSet<Forward> {
        let addresses: BTreeMap<&InstanceId, AddressPair> = live.values().flatten().map(|(id, a)| (id, *a)).collect();
        let of_one = |left: &Left| {
            let to = self.targets.get(&left.instance).and_then(|target| addresses.get(target)).copied()?;
            let port = port(&left.service)?;
            let v4 = left.addresses.v4.zip(to.v4).map(|(from, to)| (IpAddr::V4(from), IpAddr::V4(to)));
            let v6 = left.addresses.v6.zip(to.v6).map(|(from, to)| (IpAddr::V6(from), IpAddr::V6(to)));
            let instance = left.instance.clone();
            Some([v4, v6].into_iter().flatten().map(move |(from, to)| Forward {
                instance: instance.clone(),
                from,
                port,
                to,
            }))
        };
        self.left.values().filter_map(of_one).flatten().collect()
    }
}

/// A moment that much later.
pub(super) fn after(now: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(now.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::Technology;

    fn service() -> ServiceName {
        ServiceName::new("s").unwrap()
    }

    fn addresses(number: u32) -> AddressPair {
        AddressPair { v4: Some((0x0A00_0000 + number).into()), v6: None }
    }

    fn instance(number: u32) -> Instance {
        let id = InstanceId::from_number(number);
        Instance::new(id, service(), Technology::Docker, addresses(number), Timestamp(0), "test")
    }

    fn live(numbers: &[u32]) -> BTreeMap<ServiceName, Vec<Live>> {
        let all = numbers.iter().map(|n| (InstanceId::from_number(*n), addresses(*n))).collect();
        BTreeMap::from([(service(), all)])
    }

    /// Last bytes of the addresses that are forwarded, from and to.
    fn pairs(late: &Late, live: &BTreeMap<ServiceName, Vec<Live>>) -> Vec<(u8, u8)> {
        let last = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        late.forwards(live, |_| Some(80)).iter().map(|f| (last(f.from), last(f.to))).collect()
    }

    #[test]
    fn each_keeps_its_target_while_that_serves_and_the_rest_are_spread() {
        let mut late = Late::default();
        (1..=4).for_each(|number| late.add(&instance(number), None));
        let two = live(&[7, 8]);
        late.aim(&two);
        assert_eq!(pairs(&late, &two), [(1, 7), (2, 8), (3, 7), (4, 8)]);
        let three = live(&[6, 7, 8]);
        late.aim(&three);
        assert_eq!(pairs(&late, &three), [(1, 7), (2, 8), (3, 7), (4, 8)], "nobody is moved without need");
        let left = live(&[6, 8]);
        late.aim(&left);
        assert_eq!(pairs(&late, &left), [(1, 6), (2, 8), (3, 6), (4, 8)]);
        let none = live(&[]);
        late.aim(&none);
        assert_eq!(pairs(&late, &none), []);
    }

    #[test]
    fn a_forward_ends_with_its_time_or_its_policy() {
        let mut late = Late::default();
        late.add(&instance(1), Some(Timestamp(100)));
        late.add(&instance(2), None);
        let minute = |_: &ServiceName| Some(Duration::from_secs(60));
        late.prune(Timestamp(99), minute, |_| true);
        assert_eq!(late.all().count(), 2);
        late.prune(Timestamp(100), minute, |_| true);
        assert!(!late.has(&InstanceId::from_number(1)) && late.has(&InstanceId::from_number(2)));
        // Its removal was not stored any more.
        late.prune(Timestamp(200), minute, |_| false);
        assert_eq!(late.all().next().and_then(|left| left.until), Some(Timestamp(60_200)));
        late.prune(Timestamp(200), |_| None, |_| true);
        assert_eq!(late.all().count(), 0);
    }
}

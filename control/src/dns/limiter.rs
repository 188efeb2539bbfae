//! The daemon's own limits of what it answers over UDP: the same rules by which the program in the kernel answers, with
//! buckets of its own. Who asks both sides has a burst from each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use xdp_balancer_common::{
    Admission, Bucket, BucketSet, Rate, bucket_set, client_key_v4, client_key_v6, mask_v4, mask_v6,
};

use crate::model::{ClientLists, Guard, QueryLimits};

/// Sets of buckets, of four client prefixes each.
const SETS: u32 = 1 << 12;

/// What a client is in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    /// Not limited.
    Allowed,
    /// Not answered.
    Denied,
}

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sentence {
    /// It goes out.
    Send,
    /// It goes out truncated and without records.
    Slip,
    /// It does not.
    Hold,
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Limiter {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    clients: Vec<BucketSet>,
    services: HashMap<u32, u64>,
    total: u64,
    /// Answers over a limit.
    over: u64,
}

/// The longest prefix of the lists that an address is in; of two that are equal the denying one.
pub(super) fn listed(lists: &ClientLists, client: IpAddr) -> Option<Listed> {
    let client = client.to_canonical();
    let longest =
        |list: &[ipnet::IpNet]| list.iter().filter(|net| net.contains(&client)).map(ipnet::IpNet::prefix_len).max();
    match (longest(&lists.allow), longest(&lists.deny)) {
        (None, None) => None,
        (allow, deny) if deny >= allow => Some(Listed::Denied),
        _ => Some(Listed::Allowed),
    }
}

impl Limiter {
    pub(super) fn new() -> Self {
        let clients = vec![BucketSet::default(); SETS as usize];
        let state = State { clients, services: HashMap::new(), total: 0, over: 0 };
        Self { begun: Instant::now(), state: Mutex::new(state) }
    }

    /// Asks the bounds for an answer of a service to a client that may have `proven` its address.
    pub(super) fn ask(&self, guard: &Guard, client: IpAddr, proven: bool, service: Option<u32>) -> Sentence {
        let limits = &guard.limits;
        if limits.per_client == 0 && limits.per_service == 0 && limits.total == 0 {
            return Sentence::Send;
        }
        // Ahead of zero, at which buckets begin.
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let within = (proven || state.admit_client(limits, client, now))
            && service.is_none_or(|service| {
                admit(Rate::per_second(limits.per_service), state.services.entry(service).or_default(), now)
            })
            && admit(Rate::per_second(limits.total), &mut state.total, now);
        if within {
            return Sentence::Send;
        }
        state.over += 1;
        let slips = limits.slip != 0 && state.over.is_multiple_of(limits.slip.into());
        if slips { Sentence::Slip } else { Sentence::Hold }
    }
}

impl State {
    fn admit_client(&mut self, limits: &QueryLimits, client: IpAddr, now: u64) -> bool {
        let rate = Rate::per_second(limits.per_client);
        if rate.interval == 0 {
            return true;
        }
        let key = key(limits, client);
        // No secret: the kernel's is for places that can be probed at its speed.
        let Some(BucketSet(set)) = self.clients.get_mut(bucket_set(key, 0, SETS) as usize) else { return true };
        if let Some(bucket) = set.iter_mut().find(|bucket| bucket.key == key) {
            return admit(rate, &mut bucket.full_at, now);
        }
        if let Some(soonest) = set.iter_mut().min_by_key(|bucket| bucket.full_at) {
            *soonest = Bucket { key, full_at: now + rate.interval };
        }
        true
    }
}

fn admit(rate: Rate, full_at: &mut u64, now: u64) -> bool {
    if rate.interval == 0 {
        return true;
    }
    match rate.ask(*full_at, now) {
        Admission::Set(at) => *full_at = at,
        Admission::Add(more) => *full_at += more,
        Admission::Over => return false,
    }
    true
}

fn key(limits: &QueryLimits, client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(v4) => client_key_v4(u32::from_ne_bytes(v4.octets()), mask_v4(limits.prefix_v4)),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.octets();
            client_key_v6(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), mask_v6(limits.prefix_v6))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guard(limits: QueryLimits) -> Guard {
        Guard { limits, ..Guard::default() }
    }

    #[test]
    fn a_prefix_over_its_limit_is_held_or_slips_and_others_are_answered() {
        let limiter = Limiter::new();
        let guard = guard(QueryLimits { per_client: 1, slip: 2, ..QueryLimits::default() });
        let ask = |client, proven| limiter.ask(&guard, ip(client), proven, Some(1));
        assert_eq!(ask("192.0.2.1", false), Sentence::Send);
        // Fewer than a second's: what is over does not come back meanwhile, or the machine stands.
        let over: Vec<_> = (0..4).map(|i| ask(["192.0.2.2", "192.0.2.3"][i % 2], false)).collect();
        assert!(over.contains(&Sentence::Slip) && over.contains(&Sentence::Hold), "{over:?}");
        assert_eq!(ask("192.0.2.1", true), Sentence::Send, "with a cookie");
        assert_eq!([ask("192.0.3.1", false), ask("2001:db8::1", false)], [Sentence::Send; 2]);
    }

    #[test]
    fn ceilings_hold_for_a_service_and_for_all() {
        let limiter = Limiter::new();
        let of_service = guard(QueryLimits { per_service: 1, slip: 0, ..QueryLimits::default() });
        let ask = |guard, service| limiter.ask(guard, ip("192.0.2.1"), true, service);
        assert_eq!([ask(&of_service, Some(1)), ask(&of_service, Some(2))], [Sentence::Send; 2]);
        assert_eq!(ask(&of_service, Some(1)), Sentence::Hold);
        assert_eq!(ask(&of_service, None), Sentence::Send, "no service's");
        let total = guard(QueryLimits { total: 1, slip: 1, ..QueryLimits::default() });
        assert_eq!([ask(&total, None), ask(&total, Some(3))], [Sentence::Send, Sentence::Slip]);
    }

    #[test]
    fn a_full_table_answers_who_is_not_in_it() {
        let limiter = Limiter::new();
        let guard = guard(QueryLimits { per_client: 1, ..QueryLimits::default() });
        for i in 0..SETS * 8 {
            let client = IpAddr::from((0x0100_0000 + (i << 8)).to_be_bytes());
            assert_eq!(limiter.ask(&guard, client, false, None), Sentence::Send, "{client}");
        }
        assert_eq!(limiter.ask(&guard, ip("203.0.113.1"), false, None), Sentence::Send);
    }

    #[test]
    fn the_longest_prefix_holds() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        let lists = ClientLists {
            allow: nets(&["192.0.2.0/24", "2001:db8::/32"]),
            deny: nets(&["192.0.2.128/25", "192.0.2.0/24", "10.0.0.0/8"]),
            ..ClientLists::default()
        };
        let of = |client| listed(&lists, ip(client));
        assert_eq!(of("192.0.2.1"), Some(Listed::Denied), "in both alike");
        assert_eq!(
            (of("2001:db8::1"), of("::ffff:10.1.1.1"), of("203.0.113.1")),
            (Some(Listed::Allowed), Some(Listed::Denied), None)
        );
    }
}

//! Queries that are held until their service has an instance: bounded, each once, each with its deadline.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::model::SummonLimits;

/// Longest query that is held: what a resolver asks has some hundred bytes at most.
pub(super) const LONGEST_QUERY: usize = 512;

/// Who asked what: the same again is the same client that has become impatient.
type Key = (SocketAddr, Vec<u8>);

/// A held query.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    /// The query.
    pub message: Vec<u8>,
    /// Who waits for the reply.
    pub client: SocketAddr,
    /// When it was read.
    pub seen: Instant,
    /// When it is answered at the latest.
    pub deadline: Instant,
    /// The way of the reply.
    pub reply: T,
}

/// Why a query is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// It is held already.
    Repeated,
    /// As many are held as may be.
    All,
    /// Its service has half of all, so that one cannot keep the others out.
    Service,
    /// Its client has as many as it may.
    Client,
    /// It is too long.
    Length,
}

impl NoPlace {
    /// Short fixed name: metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::All => "full",
            Self::Service => "full_service",
            Self::Client => "full_client",
            Self::Length => "too_long",
        }
    }
}

/// All that are held, by index of their service.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    services: BTreeMap<u32, BTreeMap<Key, Waiter<T>>>,
    clients: HashMap<IpAddr, u32>,
    total: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { services: BTreeMap::new(), clients: HashMap::new(), total: 0 }
    }
}

impl<T> Waiting<T> {
    /// Whether a query is a new one that there is a place for.
    pub(super) fn place(
        &self,
        limits: &SummonLimits,
        service: u32,
        client: SocketAddr,
        message: &[u8],
    ) -> Result<(), NoPlace> {
        let most = limits.held as usize;
        let of_service = self.services.get(&service);
        if message.len() > LONGEST_QUERY {
            return Err(NoPlace::Length);
        }
        if of_service.is_some_and(|s| s.contains_key(&(client, message.to_owned()))) {
            return Err(NoPlace::Repeated);
        }
        if self.total >= most {
            return Err(NoPlace::All);
        }
        if of_service.is_some_and(|s| s.len() >= most.div_ceil(2)) {
            return Err(NoPlace::Service);
        }
        if self.clients.get(&client.ip()).is_some_and(|count| *count >= limits.held_per_client) {
            return Err(NoPlace::Client);
        }
        Ok(())
    }

    /// Holds a query that there is a place for. An instance of its service is ordered from now on.
    pub(super) fn hold(&mut self, service: u32, waiter: Waiter<T>) {
        let of_service = self.services.entry(service).or_default();
        let client = waiter.client.ip();
        if of_service.insert((waiter.client, waiter.message.clone()), waiter).is_none() {
            *self.clients.entry(client).or_default() += 1;
            self.total += 1;
        }
    }

    /// True while somebody waits for `service`, and so an instance is ordered.
    pub(super) fn is_ordered(&self, service: u32) -> bool {
        self.services.contains_key(&service)
    }

    /// Services that somebody waits for.
    pub(super) fn services(&self) -> Vec<u32> {
        self.services.keys().copied().collect()
    }

    /// All who wait for `service`, first come first; none of them waits any more.
    pub(super) fn take(&mut self, service: u32) -> Vec<Waiter<T>> {
        let Some(of_service) = self.services.remove(&service) else { return Vec::new() };
        let mut taken: Vec<Waiter<T>> = of_service.into_values().collect();
        taken.sort_by_key(|waiter| waiter.seen);
        taken.iter().for_each(|waiter| self.forget(waiter.client.ip()));
        taken
    }

    /// Those whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Waiter<T>> {
        let mut expired = Vec::new();
        self.services.retain(|_, of_service| {
            expired.extend(of_service.extract_if(.., |_, w| w.deadline <= now).map(|(_, w)| w));
            !of_service.is_empty()
        });
        expired.iter().for_each(|waiter| self.forget(waiter.client.ip()));
        expired
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.services.values().flat_map(|s| s.values().map(|w| w.deadline)).min()
    }

    /// Queries that are held.
    #[cfg(test)]
    const fn len(&self) -> usize {
        self.total
    }

    fn forget(&mut self, client: IpAddr) {
        self.total -= 1;
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limits(held: u32, held_per_client: u32) -> SummonLimits {
        SummonLimits { held, held_per_client, ..SummonLimits::default() }
    }

    fn waiter(client: u32, port: u16, id: u8, seen: Instant, ms: u64) -> Waiter<()> {
        let client = (client.to_be_bytes(), port).into();
        Waiter { message: vec![id; 20], client, seen, deadline: seen + Duration::from_millis(ms), reply: () }
    }

    /// Holds it where it may be.
    fn offer(
        waiting: &mut Waiting<()>,
        limits: &SummonLimits,
        service: u32,
        waiter: Waiter<()>,
    ) -> Result<(), NoPlace> {
        waiting.place(limits, service, waiter.client, &waiter.message)?;
        waiting.hold(service, waiter);
        Ok(())
    }

    #[test]
    fn a_retransmission_is_one_waiter_and_bounds_are_told_apart() {
        let (mut waiting, now, limits) = (Waiting::default(), Instant::now(), limits(8, 2));
        let mut ask = |service, client, id| offer(&mut waiting, &limits, service, waiter(client, 53, id, now, 100));
        assert_eq!([ask(1, 1, 1), ask(1, 1, 1), ask(1, 1, 2)], [Ok(()), Err(NoPlace::Repeated), Ok(())]);
        assert_eq!(ask(1, 1, 3), Err(NoPlace::Client));
        assert_eq!([ask(1, 2, 1), ask(1, 2, 2)], [Ok(()); 2]);
        assert_eq!(ask(1, 3, 1), Err(NoPlace::Service));
        for client in 4..8 {
            assert_eq!(ask(2, client, 1), Ok(()));
        }
        assert_eq!(ask(3, 9, 1), Err(NoPlace::All));
        let long = Waiter { message: vec![0; LONGEST_QUERY + 1], ..waiter(9, 53, 1, now, 100) };
        assert_eq!(offer(&mut waiting, &limits, 3, long), Err(NoPlace::Length));
        assert!(waiting.is_ordered(1) && !waiting.is_ordered(3));
        assert_eq!((waiting.take(1).len(), waiting.len()), (4, 4));
        assert!(!waiting.is_ordered(1), "who comes later needs an order of their own");
    }

    proptest! {
        /// Whatever comes and goes: bounds hold, none is lost, none is answered twice or after its deadline.
        #[test]
        fn every_query_that_is_held_comes_out_once(
            steps in proptest::collection::vec((0u32..4, 0u32..6, 0u8..6, 1u64..50, 0u8..8), 1..300),
        ) {
            let limits = limits(12, 4);
            let (mut waiting, mut now) = (Waiting::default(), Instant::now());
            let (mut held, mut out) = (0usize, 0usize);
            for (service, client, id, ms, what) in steps {
                now += Duration::from_millis(1);
                match what {
                    0 => out += waiting.take(service).len(),
                    1 => {
                        let expired = waiting.expire(now);
                        prop_assert!(expired.iter().all(|w| w.deadline <= now));
                        out += expired.len();
                        prop_assert!(waiting.next_deadline().is_none_or(|next| next > now));
                    }
                    _ => {
                        let held_now = offer(&mut waiting, &limits, service, waiter(client, 53, id, now, ms));
                        held += usize::from(held_now.is_ok());
                    }
                }
                prop_assert_eq!(waiting.len(), held - out);
                prop_assert!(waiting.len() <= 12);
                prop_assert!(waiting.clients.values().all(|count| (1..=4).contains(count)));
                prop_assert!(waiting.services.values().all(|s| (1..=6).contains(&s.len())));
            }
            for service in waiting.services() {
                out += waiting.take(service).len();
            }
            prop_assert_eq!((out, waiting.len(), waiting.clients.len()), (held, 0, 0));
        }
    }
}

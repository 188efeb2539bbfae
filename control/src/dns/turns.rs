//! An RRset's answers and whose turn it is.

use std::any::Any;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use xdp_balancer_common::{client_turn_v4, client_turn_v6};

use super::render::{RenderedAnswer, RenderedRrset};

/// Which turn of a ring that goes round answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// The next one.
    Next,
    /// This one (modulo the ring's length), for comparison with the kernel's.
    Slot(usize),
}

/// The answers to one question, turn by turn. Shared by all names that are answered so, and by the indexes that
/// follow each other as long as nothing in it changes.
#[derive(Debug)]
pub struct Ring {
    /// Distinct variants, at least one.
    pub answers: Vec<RenderedAnswer>,
    /// Which of `answers` is given at each turn; at least one.
    pub turns: Vec<u16>,
    /// The client's address picks the turn, of `CLIENT_TURNS`; otherwise one follows the other.
    pub by_client: bool,
    /// Bytes of the longest answer.
    longest: usize,
    /// The daemon's own position.
    next: AtomicUsize,
    /// See [`Ring::twin`].
    twin: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        self.by_client == other.by_client && self.turns == other.turns && self.answers == other.answers
    }
}

impl Eq for Ring {}

impl Ring {
    fn new(answers: Vec<RenderedAnswer>, turns: Vec<u16>, by_client: bool, start: usize) -> Self {
        let longest = answers.iter().map(|answer| answer.bytes.len()).max().unwrap_or(0);
        Self { answers, turns, by_client, longest, next: AtomicUsize::new(start), twin: OnceLock::new() }
    }

    /// One answer for everybody.
    pub(super) fn single(answer: RenderedAnswer) -> Self {
        Self::new(vec![answer], vec![0], false, 0)
    }

    /// An RRset's turns, the `start`th first where they go round; `None` where it has none.
    pub(super) fn of(rrset: RenderedRrset, start: usize) -> Option<Self> {
        let RenderedRrset { answers, turns, by_client, .. } = rrset;
        (!turns.is_empty() && turns.iter().all(|turn| usize::from(*turn) < answers.len()))
            .then(|| Self::new(answers, turns, by_client, start))
    }

    /// The same turns with other answers.
    pub(super) fn map(&self, change: impl Fn(&RenderedAnswer) -> RenderedAnswer) -> Self {
        let answers = self.answers.iter().map(change).collect();
        Self::new(answers, self.turns.clone(), self.by_client, self.next.load(Ordering::Relaxed))
    }

    /// The answer for a client: by its address where the ring goes by clients, else by `pick`.
    pub(super) fn answer(&self, pick: Pick, client: IpAddr) -> &RenderedAnswer {
        let turn = match pick {
            _ if self.by_client => usize::from(turn_of(client)),
            Pick::Next => self.next.fetch_add(1, Ordering::Relaxed),
            Pick::Slot(slot) => slot,
        };
        // Neither list is ever empty, and turns are places in the other.
        &self.answers[usize::from(self.turns[turn % self.turns.len()])]
    }

    /// The longest answer's records in bytes.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// This ring in somebody else's form, made once and kept with it: whoever publishes rings sees by the pointer
    /// which of them he has published already. There is one such form.
    pub fn twin<T: Any + Send + Sync>(&self, make: impl Fn(&Self) -> T) -> Arc<T> {
        let twin = self.twin.get_or_init(|| Arc::new(make(self)));
        Arc::clone(twin).downcast().unwrap_or_else(|_| Arc::new(make(self)))
    }
}

/// The turn of a client in a ring that goes by clients, as the program in the kernel finds it.
fn turn_of(client: IpAddr) -> u16 {
    match client.to_canonical() {
        IpAddr::V4(address) => client_turn_v4(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            client_turn_v6(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
        }
    }
}

//! The front's end of a ring of requests and responses (`public/io/ring.h`).

use crate::page::{Shared, barrier};

/// Requests on their way at most: what fits into a page for both kinds of entries.
pub const ENTRIES: u32 = 256;

/// Offsets in the page.
const REQUESTS: usize = 0;
const REQUEST_EVENT: usize = 4;
const RESPONSES: usize = 8;
const RESPONSE_EVENT: usize = 12;
const FIRST: usize = 64;

/// A ring with entries of `SIZE` bytes.
pub struct Ring<const SIZE: usize> {
    /// The page that is shared.
    pub page: Shared,
    produced: u32,
    consumed: u32,
}

impl<const SIZE: usize> Ring<SIZE> {
    /// An empty one.
    pub fn new() -> Option<Self> {
        let page = Shared::allocate()?;
        page.write(REQUEST_EVENT, 1u32);
        page.write(RESPONSE_EVENT, 1u32);
        Some(Self { page, produced: 0, consumed: 0 })
    }

    /// Gives the other side a request. Whether it is to be woken.
    pub fn push(&mut self, request: [u8; SIZE]) -> bool {
        let at = FIRST + (self.produced % ENTRIES) as usize * SIZE;
        self.page.write(at, request);
        self.produced = self.produced.wrapping_add(1);
        barrier();
        self.page.write(REQUESTS, self.produced);
        barrier();
        self.page.read::<u32>(REQUEST_EVENT) == self.produced
    }

    /// The next response.
    pub fn pop(&mut self) -> Option<[u8; SIZE]> {
        if self.is_empty() {
            return None;
        }
        let at = FIRST + (self.consumed % ENTRIES) as usize * SIZE;
        self.consumed = self.consumed.wrapping_add(1);
        Some(self.page.read(at))
    }

    /// Whether no response is there. Where there is none, the next one makes an event.
    pub fn arm(&self) -> bool {
        self.page.write(RESPONSE_EVENT, self.consumed.wrapping_add(1));
        barrier();
        self.is_empty()
    }

    fn is_empty(&self) -> bool {
        let produced: u32 = self.page.read(RESPONSES);
        barrier();
        produced == self.consumed
    }
}

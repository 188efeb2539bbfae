//! The store, by the ring that the toolstack has made (`public/io/xs_wire.h`). Paths without a slash before them are this
//! domain's own.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::events;
use crate::hypercall::{self, Parameter, Refused};
use crate::page::{Shared, barrier};

/// Offsets in the ring's page: the answers' bytes behind the requests', then how many there have been since the start.
const ANSWERS: usize = 1024;
const REQUESTS_CONSUMED: usize = 2048;
const REQUESTS_PRODUCED: usize = 2052;
const ANSWERS_CONSUMED: usize = 2056;
const ANSWERS_PRODUCED: usize = 2060;
/// Bytes of each direction.
const SIZE: u32 = 1024;
/// Most bytes behind a header (`XENSTORE_PAYLOAD_MAX`).
const LONGEST: usize = 4096;

const READ: u32 = 2;
const WATCH: u32 = 4;
const WRITE: u32 = 11;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// What the store could not do.
#[derive(Debug)]
pub enum StoreError {
    /// The hypervisor does not say where it is.
    Absent(Refused),
    /// It refused, with the name of an errno.
    Refused(String),
    /// What it answered is no answer.
    Nonsense,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(Refused(errno)) => write!(f, "the store is not there ({errno})"),
            Self::Refused(errno) => write!(f, "the store refuses: {errno}"),
            Self::Nonsense => f.write_str("the store's answer is malformed"),
        }
    }
}

/// The store's client. It asks for one thing at a time but for writes, which go together.
pub struct Store {
    ring: Shared,
    port: u32,
    /// A watch has fired since it was last asked.
    fired: bool,
}

impl Store {
    /// Finds it.
    ///
    /// # Errors
    /// [`StoreError::Absent`].
    pub fn find() -> Result<Self, StoreError> {
        let port = hypercall::parameter(Parameter::StoreEvents).map_err(StoreError::Absent)?;
        let frame = hypercall::parameter(Parameter::StoreFrame).map_err(StoreError::Absent)?;
        let ring = Shared::at_frame(frame).ok_or(StoreError::Absent(Refused(0)))?;
        Ok(Self { ring, port: port as u32, fired: false })
    }

    /// The port at which it tells of answers and of watches.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The value at `path`; nothing where it is not there.
    ///
    /// # Errors
    /// Where the store refuses for another reason, or answers nonsense.
    pub fn read(&mut self, path: &str) -> Result<Option<String>, StoreError> {
        self.send(READ, &[path.as_bytes(), b"\0"]);
        match self.answer() {
            Ok(value) => String::from_utf8(value).map(Some).map_err(|_| StoreError::Nonsense),
            Err(StoreError::Refused(errno)) if errno == "ENOENT" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes several values, in this order.
    ///
    /// # Errors
    /// As for [`read`](Self::read); what comes behind a refused value is written all the same.
    pub fn write(&mut self, entries: &[(&str, &str)]) -> Result<(), StoreError> {
        for (path, value) in entries {
            self.send(WRITE, &[path.as_bytes(), b"\0", value.as_bytes()]);
        }
        let answers: Vec<_> = entries.iter().map(|_| self.answer()).collect();
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// Watches a path; the watch fires at once for the first time.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn watch(&mut self, path: &str) -> Result<(), StoreError> {
        self.send(WATCH, &[path.as_bytes(), b"\0", b"w\0"]);
        self.answer().map(drop)
    }

    /// Sleeps until a watch fires.
    ///
    /// # Errors
    /// Where what the store tells is nonsense.
    pub fn wait(&mut self) -> Result<(), StoreError> {
        while !self.has_fired()? {
            self.sleep(|store| store.answers() == 0);
        }
        Ok(())
    }

    /// Whether a watch has fired since the last call. It does not sleep.
    ///
    /// # Errors
    /// Where what the store tells is nonsense.
    pub fn has_fired(&mut self) -> Result<bool, StoreError> {
        while self.answers() > 0 {
            // Nothing was asked, so that it is a watch.
            let (kind, _) = self.message()?;
            self.fired |= kind == WATCH_EVENT;
        }
        Ok(core::mem::take(&mut self.fired))
    }

    /// Sends a request. Its number is always 0, for answers come in the order of requests.
    fn send(&mut self, kind: u32, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let header = [kind, 0, 0, length as u32].map(u32::to_le_bytes);
        for part in header.iter().map(<[u8; 4]>::as_slice).chain(parts.iter().copied()) {
            for byte in part {
                self.put(*byte);
            }
        }
        hypercall::notify(self.port);
    }

    fn put(&mut self, byte: u8) {
        let full = |store: &Self| {
            let produced: u32 = store.ring.read(REQUESTS_PRODUCED);
            produced.wrapping_sub(store.ring.read(REQUESTS_CONSUMED)) >= SIZE
        };
        while full(self) {
            hypercall::notify(self.port);
            self.sleep(full);
        }
        let produced: u32 = self.ring.read(REQUESTS_PRODUCED);
        self.ring.write((produced % SIZE) as usize, byte);
        barrier();
        self.ring.write(REQUESTS_PRODUCED, produced.wrapping_add(1));
    }

    /// The next answer; watches that fire meanwhile are remembered.
    fn answer(&mut self) -> Result<Vec<u8>, StoreError> {
        loop {
            match self.message()? {
                (WATCH_EVENT, _) => self.fired = true,
                (ERROR, mut text) => {
                    text.pop_if(|last| *last == 0);
                    return Err(StoreError::Refused(String::from_utf8_lossy(&text).into_owned()));
                }
                (_, value) => return Ok(value),
            }
        }
    }

    fn message(&mut self) -> Result<(u32, Vec<u8>), StoreError> {
        let mut words = [0u32; 4];
        for word in &mut words {
            let mut bytes = [0; 4];
            self.get(&mut bytes);
            *word = u32::from_le_bytes(bytes);
        }
        let [kind, _, _, length] = words;
        if length as usize > LONGEST {
            return Err(StoreError::Nonsense);
        }
        let mut body = vec![0; length as usize];
        self.get(&mut body);
        // There is room in the ring again.
        hypercall::notify(self.port);
        Ok((kind, body))
    }

    /// Takes bytes of answers out, and sleeps for those that are not there yet.
    fn get(&mut self, out: &mut [u8]) {
        for byte in out {
            while self.answers() == 0 {
                hypercall::notify(self.port);
                self.sleep(|store| store.answers() == 0);
            }
            let consumed: u32 = self.ring.read(ANSWERS_CONSUMED);
            *byte = self.ring.read(ANSWERS + (consumed % SIZE) as usize);
            barrier();
            self.ring.write(ANSWERS_CONSUMED, consumed.wrapping_add(1));
        }
    }

    fn answers(&self) -> u32 {
        let produced: u32 = self.ring.read(ANSWERS_PRODUCED);
        let count = produced.wrapping_sub(self.ring.read(ANSWERS_CONSUMED));
        barrier();
        count
    }

    /// Sleeps as long as `still`, which is looked at behind the event before, at most until the next one.
    fn sleep(&self, still: impl Fn(&Self) -> bool) {
        events::take(self.port);
        if still(self) {
            hypercall::poll(&[self.port], 0);
        }
    }
}

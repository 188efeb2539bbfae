//! Queries as they are answered, told one by one: the program that captures, loaded and put behind the one that answers
//! while somebody wants to know.
//!
//! Works from the pins alone, beside whoever holds the dataplane. It is on for as long as [`Capture::beat`] goes on
//! saying so: of a process that is killed the program itself finds out with the next query, and takes itself off.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use xdp_balancer_common::{
    CAPTURE_NAME, Capture as Words, CaptureCount, CaptureFilter, Captured, MAX_NAME_BYTES, QuietPrefix, ROOT_AT, Rate,
    Root, Verdict, object,
};

use crate::error::Error;
use crate::guard::{Prefix, list_key};
use crate::maps::{Maps, Sizes, shapes};
use crate::object as elf;
use crate::pins::Pins;
use crate::sys;
use crate::tails::Slot;

pub(crate) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-capture"));

/// How long the program goes on without a beat.
const LEASE: Duration = Duration::from_secs(5);
const RULE_AT: usize = ROOT_AT + offset_of!(Root, capture) + offset_of!(Words, rule);
const UNTIL_AT: usize = ROOT_AT + offset_of!(Root, capture) + offset_of!(Words, until);

/// Which queries are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRules {
    /// One in so many, at most [`CAPTURE_ONE_IN`](xdp_balancer_common::CAPTURE_ONE_IN).
    pub one_in: u32,
    /// Most in a second.
    pub rate: u32,
    /// From these clients; `None`: from all.
    pub client: Option<Prefix>,
    /// For this name in wire form, or one below it; `None`: for any.
    pub name: Option<Vec<u8>>,
    /// With one of these verdicts; empty: with any.
    pub verdicts: Vec<Verdict>,
}

/// A frame, as much of it as was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapturedFrame {
    /// When it was there, nanoseconds since 1970.
    pub at: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many it had.
    pub len: u32,
}

/// A captured query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedQuery {
    /// Why it was treated so.
    pub verdict: Verdict,
    /// Index of the interface that it came in on.
    pub interface: u32,
    /// As it came in.
    pub query: CapturedFrame,
    /// As it was answered; `None`: not here.
    pub answer: Option<CapturedFrame>,
}

/// Of the queries that the rules match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureTotals {
    /// Told.
    pub told: u64,
    /// Not told, for there were more in a second than may be.
    pub over_rate: u64,
    /// Not told, for they were not read fast enough.
    pub lost: u64,
}

/// A capture that goes on. Dropping it ends it.
pub struct Capture {
    maps: Maps,
    pins: Pins,
    events: RingBuf<MapData>,
    counts: PerCpuArray<MapData, u64>,
    /// What the wall clock is ahead of the monotonic one, nanoseconds.
    ahead: u64,
    /// The program.
    object: Ebpf,
    _lock: sys::Lock,
}

impl Capture {
    /// Begins to capture what the pinned program answers or passes. One process at a time.
    pub fn start(pin_dir: &Path, rules: &CaptureRules) -> Result<Self, Error> {
        let pins = Pins::new(pin_dir);
        let missing = || Error::system("open the pinned map", object::POOL)(io::Error::from_raw_os_error(libc::ENOENT));
        let maps = Maps::found(&pins)?.ok_or_else(missing)?;
        let lock = sys::lock(pins.root())
            .map_err(Error::system("lock", pins.root().display().to_string()))?
            .ok_or_else(|| Error::Capturing { path: pins.root().to_owned() })?;
        let mut loader = EbpfLoader::new();
        // What it says goes where the program that answers says it.
        loader.map_pin_path(object::LOGS, pins.map(object::LOGS));
        let mut object = load(&mut loader, |shape| Some(pins.map(shape)), &pins)?;
        let filter: Array<MapData, CaptureFilter> = take(&mut object, object::CAPTURE_FILTER)?;
        let mut capture = Self {
            maps,
            pins,
            events: take(&mut object, object::CAPTURE_EVENTS)?,
            counts: take(&mut object, object::CAPTURE_COUNTS)?,
            ahead: wall_clock().saturating_sub(sys::monotonic_ns()),
            object,
            _lock: lock,
        };
        capture.switch_on(filter, rules)?;
        Ok(capture)
    }

    /// Which of the queries are chosen from now on; `None`: none.
    #[cfg(feature = "bench")]
    pub(crate) fn choose(&self, one_in: Option<u32>) {
        self.beat();
        self.maps.pool.store(RULE_AT, one_in.map_or(0, |one_in| Words::rule_of(one_in, 0)));
    }

    /// What is loaded for it.
    #[cfg(feature = "bench")]
    pub(crate) fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// First what the program reads, last the word that leads to it. What was begun ends where this fails.
    fn switch_on(&mut self, mut filter: Array<MapData, CaptureFilter>, rules: &CaptureRules) -> Result<(), Error> {
        filter.set(0, filter_of(rules), 0).map_err(Error::system("write", object::CAPTURE_FILTER))?;
        self.beat();
        let program = elf::loaded(&self.object, object::CAPTURE)?.fd();
        let program = program.map_err(Error::system("open", object::CAPTURE))?;
        let slot = Slot::open(&self.pins, object::TAIL_CAPTURE)?.ok_or(Error::Missing { name: object::TAILS })?;
        slot.set(program.as_fd())?;
        // Another choice each time.
        let salt = sys::random().map_err(Error::system("get", "random numbers"))?;
        self.maps.pool.store(RULE_AT, Words::rule_of(rules.one_in, salt as u32));
        Ok(())
    }

    /// Says that somebody still reads: to be told once a second.
    pub fn beat(&self) {
        self.maps.pool.store(UNTIL_AT, sys::monotonic_ns() + LEASE.as_nanos() as u64);
    }

    /// Moves the last beat: it was so long ago.
    #[cfg(feature = "testing")]
    pub fn set_beat_age(&self, age: Duration) {
        let at = sys::monotonic_ns().saturating_sub(age.as_nanos() as u64);
        self.maps.pool.store(UNTIL_AT, at + LEASE.as_nanos() as u64);
    }

    /// Ends it; what was told before is still there to be read.
    pub fn end(&mut self) -> Result<(), Error> {
        switch_off(&mut self.maps, &self.pins)
    }

    /// Whether it goes on; a daemon or a pause of this process may have ended it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.maps.pool.get::<u64>(RULE_AT).is_some_and(|rule| rule != 0)
    }

    /// The next query, if one is there already.
    pub fn next_query(&mut self) -> Option<CapturedQuery> {
        loop {
            let item = self.events.next()?;
            // What is not as the program tells it is nobody's.
            if let Some(query) = read(&item, self.ahead) {
                return Some(query);
            }
        }
    }

    /// The name of an interface by its index, or what stands for it.
    #[must_use]
    pub fn interface_name(index: u32) -> String {
        sys::if_name(index).unwrap_or_else(|| format!("if{index}"))
    }

    /// How many there were.
    pub fn totals(&self) -> Result<CaptureTotals, Error> {
        let sum = |what: CaptureCount| self.counts.get(&(what as u32), 0).map(|parts| parts.iter().sum());
        let read = || -> Result<_, MapError> {
            Ok(CaptureTotals {
                told: sum(CaptureCount::Told)?,
                over_rate: sum(CaptureCount::OverRate)?,
                lost: sum(CaptureCount::Lost)?,
            })
        };
        read().map_err(Error::system("read", object::CAPTURE_COUNTS))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::warn!("the program that captures stays loaded, unused: {error}");
        }
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl AsRawFd for Capture {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Loads the program that captures onto the maps of `pinned`; the others are made anew.
pub(crate) fn load(
    loader: &mut EbpfLoader<'_>,
    pinned: impl Fn(&'static str) -> Option<std::path::PathBuf>,
    pins: &Pins,
) -> Result<Ebpf, Error> {
    for shape in &shapes(&Sizes::default()) {
        let missing = || {
            let nothing = io::Error::from_raw_os_error(libc::ENOENT);
            Error::system("open the pinned map", shape.name)(nothing)
        };
        loader.map_max_entries(shape.name, shape.adopt(pins)?.ok_or_else(missing)?);
        if let Some(path) = pinned(shape.name) {
            loader.map_pin_path(shape.name, path);
        }
    }
    let mut object = elf::load_other(loader, OBJECT)?;
    elf::xdp(&mut object, object::CAPTURE)?;
    Ok(object)
}

/// No query goes to the program any more; then it goes.
fn switch_off(maps: &mut Maps, pins: &Pins) -> Result<(), Error> {
    maps.pool.store(RULE_AT, 0);
    maps.pool.store(UNTIL_AT, 0);
    // Who has read the word may not have come to the slot yet.
    maps.grace()?;
    Slot::open(pins, object::TAIL_CAPTURE)?.map_or(Ok(()), |slot| slot.clear())
}

impl Maps {
    /// Switches off what a process left on that is gone, for it has said nothing for twice as long as it may.
    pub(crate) fn end_stale_capture(&mut self, pins: &Pins) -> Result<(), Error> {
        let until = self.pool.get::<u64>(UNTIL_AT).unwrap_or_default();
        if until == 0 || until + LEASE.as_nanos() as u64 > sys::monotonic_ns() {
            return Ok(());
        }
        log::info!("a capture is switched off: whoever captured is gone");
        switch_off(self, pins)
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    let map = object.take_map(name).ok_or(Error::Missing { name })?;
    T::try_from(map).map_err(Error::system("open the map", name))
}

fn filter_of(rules: &CaptureRules) -> CaptureFilter {
    let all = u64::MAX >> (64 - Verdict::ALL.len());
    let verdicts = rules.verdicts.iter().fold(0, |bits, verdict| bits | 1 << *verdict as u32);
    let client = rules.client.map_or(QuietPrefix::default(), |prefix| {
        let (key, full) = (list_key(prefix), u128::MAX);
        let mask = full.checked_shl(128_u32.saturating_sub(key.len)).unwrap_or(0).to_be_bytes();
        let word = |i: usize| u32::from_ne_bytes(std::array::from_fn(|j| mask[4 * i + j]));
        QuietPrefix { address: key.address, mask: std::array::from_fn(word) }
    });
    let wire = rules.name.as_deref().unwrap_or_default();
    let mut name = [0; CAPTURE_NAME];
    let len = wire.len().min(MAX_NAME_BYTES);
    name[..len].copy_from_slice(&wire[..len]);
    // Lengths of labels are below all letters.
    name.make_ascii_lowercase();
    CaptureFilter {
        verdicts: if verdicts == 0 { all } else { verdicts },
        rate: Rate::per_second(rules.rate),
        client,
        name_len: len as u64,
        name,
    }
}

fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn read(item: &[u8], ahead: u64) -> Option<CapturedQuery> {
    let (head, bytes) = item.split_at_checked(size_of::<Captured>())?;
    // SAFETY: as many bytes are there, and any are such a head.
    let head = unsafe { head.as_ptr().cast::<Captured>().read_unaligned() };
    let (query, rest) = bytes.split_at_checked(head.query_kept as usize)?;
    let answer = rest.get(..head.answer_kept as usize)?;
    let frame = |at: u64, bytes: &[u8], len| CapturedFrame { at: at + ahead, bytes: bytes.to_vec(), len };
    Some(CapturedQuery {
        verdict: *Verdict::ALL.get(head.verdict as usize)?,
        interface: head.interface,
        query: frame(head.received, query, head.query_len),
        answer: (head.answer_kept != 0).then(|| frame(head.done, answer, head.answer_len)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_object_has_this_program_and_maps_of_these_shapes() {
        let parsed = aya_obj::Object::parse(OBJECT).unwrap();
        let programs: BTreeSet<&str> = parsed.programs.keys().map(String::as_str).collect();
        assert_eq!(programs, BTreeSet::from([object::CAPTURE, object::UNCAPTURED]));
        for (name, value) in
            [(object::CAPTURE_FILTER, size_of::<CaptureFilter>()), (object::CAPTURE_COUNTS, size_of::<u64>())]
        {
            assert_eq!(parsed.maps.get(name).unwrap().value_size() as usize, value, "{name}");
        }
        assert!(parsed.maps.contains_key(object::CAPTURE_EVENTS));
    }

    #[test]
    fn without_rules_everything_is_told() {
        let rules = CaptureRules { one_in: 1, rate: 10, client: None, name: None, verdicts: Vec::new() };
        let filter = filter_of(&rules);
        assert!(Verdict::ALL.iter().all(|verdict| filter.verdicts >> *verdict as u32 & 1 == 1));
        assert!(filter.client.holds([1, 2, 3, 4]) && filter.name_len == 0);
        let client = Some(("192.0.2.0".parse().unwrap(), 24));
        let filter = filter_of(&CaptureRules { client, verdicts: vec![Verdict::Stale], ..rules });
        let of = |last: [u8; 4]| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(last)];
        assert!(filter.client.holds(of([192, 0, 2, 9])) && !filter.client.holds(of([192, 0, 3, 9])));
        assert_eq!(filter.verdicts, 1 << Verdict::Stale as u32);
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let head = Captured { query_kept: 3, query_len: 3, answer_kept: 2, answer_len: 9, ..Captured::default() };
        // SAFETY: plain bytes.
        let mut item = unsafe { std::mem::transmute::<Captured, [u8; size_of::<Captured>()]>(head) }.to_vec();
        item.extend([1, 2, 3, 4, 5, 0, 0]);
        let query = read(&item, 0).unwrap();
        assert_eq!(
            (query.query.bytes, query.answer.map(|answer| (answer.bytes, answer.len))),
            (vec![1, 2, 3], Some((vec![4, 5], 9)))
        );
        item.truncate(size_of::<Captured>() + 4);
        assert_eq!(read(&item, 0), None);
    }
}

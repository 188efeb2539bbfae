//! The pinned maps with their types, and the check that they are what this version expects.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{ArrayOfMaps, LpmTrie, Map, MapData, MapError, MapType, PerCpuArray, PerCpuHashMap};
use aya::util::nr_cpus;
use xdp_balancer_common::{
    BUCKET_SETS, BucketSet, Bytes as _, Connection, ConnectionKey, CostCount, FlowCount, GRAIN, Guard, ListKey,
    NotedName, PILOTS_AT, POOL_GRAINS, Pool, ROOT_AT, Root, SLOT_HEAD, ServiceCount, Settings, TableHead, Verdict,
    object,
};

use crate::bare::bare_answers;
use crate::carried::Carried;
use crate::error::Error;
use crate::pins::{self, Pins};
use crate::plan::{Placed, Writes};
use crate::slots::Places;
use crate::sys::{self, Memory};

const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Tries have no other way.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Elements of the maps when they are created; maps that exist keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the pool that are used for what names lead to; the kernel's memory is the same.
    pub pool_bytes: usize,
    /// RRsets whose answers take turns.
    pub cursors: u32,
    /// Services with counters.
    pub services: u32,
    /// Instances with counters.
    pub flows: u32,
    /// Open connections of instances.
    pub connections: u32,
    /// Prefixes in the lists of clients.
    pub lists: u32,
    /// Client prefixes, and names, that are noted.
    pub top: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pool_bytes: POOL_GRAINS as usize * GRAIN,
            cursors: 8192,
            services: 4096,
            flows: 1024,
            connections: 65536,
            lists: 16384,
            top: 4096,
        }
    }
}

impl Sizes {
    /// Grains of the pool that are used.
    pub(crate) fn grains(&self) -> u32 {
        u32::try_from(self.pool_bytes / GRAIN).unwrap_or(POOL_GRAINS).min(POOL_GRAINS)
    }
}

/// What a map must look like.
pub(crate) struct Shape {
    pub name: &'static str,
    pub kind: MapType,
    pub key: usize,
    pub value: usize,
    pub flags: u32,
    /// Elements if it is to be created; also required of an existing one where `fixed`.
    pub entries: u32,
    pub fixed: bool,
}

/// All pinned maps.
pub(crate) fn shapes(sizes: &Sizes) -> [Shape; 14] {
    let shape = |name, kind, key, value, entries| Shape { name, kind, key, value, flags: 0, entries, fixed: false };
    let fixed = |name, kind, value, entries| Shape { fixed: true, ..shape(name, kind, 4, value, entries) };
    let (key, list) = (size_of::<ConnectionKey>(), size_of::<ListKey>());
    let mapped = |name, value| Shape { flags: BPF_F_MMAPABLE, ..fixed(name, MapType::Array, value, 1) };
    [
        mapped(object::POOL, size_of::<Pool>()),
        fixed(object::FENCE, MapType::ArrayOfMaps, 4, 1),
        fixed(object::TAILS, MapType::ProgramArray, 4, object::TAIL_SLOTS),
        shape(object::CURSORS, MapType::PerCpuArray, 4, 4, sizes.cursors),
        fixed(object::VERDICTS, MapType::PerCpuArray, 8, Verdict::ALL.len() as u32),
        shape(object::SERVICES, MapType::PerCpuArray, 4, size_of::<ServiceCount>(), sizes.services),
        fixed(object::COSTS, MapType::PerCpuArray, size_of::<CostCount>(), 1),
        shape(object::FLOWS, MapType::PerCpuHash, 4, size_of::<FlowCount>(), sizes.flows),
        shape(object::CONNECTIONS, MapType::LruHash, key, size_of::<Connection>(), sizes.connections),
        fixed(object::BUCKETS, MapType::Array, size_of::<BucketSet>(), BUCKET_SETS),
        shape(object::CEILINGS, MapType::Array, 4, 8, sizes.services + 1),
        Shape { flags: BPF_F_NO_PREALLOC, ..shape(object::LISTS, MapType::LpmTrie, list, 4, sizes.lists) },
        shape(object::TOP_CLIENTS, MapType::LruHash, 8, 8, sizes.top),
        shape(object::TOP_NAMES, MapType::LruHash, size_of::<NotedName>(), 8, sizes.top),
    ]
}

impl Shape {
    /// Elements of the pinned map, checked; `None` where there is no pin.
    pub(crate) fn adopt(&self, pins: &Pins) -> Result<Option<u32>, Error> {
        let Some(map) = open(pins, self.name)? else { return Ok(None) };
        let info = map.info().map_err(Error::system("inspect the map", self.name))?;
        let kind = info.map_type().map_err(Error::system("inspect the map", self.name))?;
        let differs = |what, found: u64, wanted: u64| Error::Shape { map: self.name, what, found, wanted };
        if kind != self.kind {
            return Err(differs("type", kind as u64, self.kind as u64));
        }
        let pairs = [
            ("key size", info.key_size() as u64, self.key as u64),
            ("value size", info.value_size() as u64, self.value as u64),
            ("flags", info.map_flags() as u64, self.flags as u64),
        ];
        for (what, found, wanted) in pairs {
            if found != wanted {
                return Err(differs(what, found, wanted));
            }
        }
        if self.fixed && info.max_entries() != self.entries {
            return Err(differs("size", info.max_entries() as u64, self.entries as u64));
        }
        Ok(Some(info.max_entries()))
    }
}

/// Opens a pinned map; `None` where there is no pin.
pub(crate) fn open(pins: &Pins, name: &'static str) -> Result<Option<MapData>, Error> {
    match MapData::from_pin(pins.map(name)) {
        Ok(map) => Ok(Some(map)),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system("open the pinned map", name)(error)),
    }
}

fn require(pins: &Pins, name: &'static str) -> Result<MapData, Error> {
    open(pins, name)?
        .ok_or_else(|| Error::system("open the pinned map", name)(io::Error::from_raw_os_error(libc::ENOENT)))
}

fn typed<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<T, Error> {
    let map = Map::from_map_data(require(pins, name)?).map_err(Error::system("open the pinned map", name))?;
    T::try_from(map).map_err(Error::system("open the pinned map", name))
}

/// The pinned maps.
pub(crate) struct Maps {
    pub pool: Memory,
    /// What is written to the fence, again and again.
    fence: (ArrayOfMaps<MapData, MapData>, MapData),
    pub cursors: u32,
    pub verdicts: PerCpuArray<MapData, u64>,
    pub services: PerCpuArray<MapData, ServiceCount>,
    pub costs: PerCpuArray<MapData, CostCount>,
    pub flows: PerCpuHashMap<MapData, u32, FlowCount>,
    pub flows_capacity: u32,
    pub connections: MapData,
    pub lists: LpmTrie<MapData, [u32; 4], u32>,
    pub lists_capacity: u32,
    pub top_clients: MapData,
    pub top_names: MapData,
    /// Counters of other layouts.
    pub carried: Vec<Carried>,
}

/// The settings in a mapped pool.
pub(crate) fn settings_in(pool: &Memory) -> Settings {
    // It is mapped whole.
    pool.get(ROOT_AT + offset_of!(Root, settings)).unwrap_or_default()
}

/// The pinned pool.
pub(crate) fn open_pool(pins: &Pins) -> Result<Memory, Error> {
    let map = require(pins, object::POOL)?;
    Memory::map(map.fd().as_fd(), size_of::<Pool>()).map_err(Error::system("map into memory", object::POOL))
}

impl Maps {
    /// Opens them all, where all are there and as they shall be.
    pub(crate) fn found(pins: &Pins) -> Result<Option<Self>, Error> {
        for shape in &shapes(&Sizes::default()) {
            if shape.adopt(pins)?.is_none() {
                return Ok(None);
            }
        }
        Self::open(pins).map(Some)
    }

    /// Opens them all; they must exist.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        let entries = |name| {
            let info = require(pins, name)?.info().map_err(Error::system("inspect the map", name))?;
            Ok(info.max_entries())
        };
        let nothing = sys::create_array(size_of::<u32>(), 1, 0)
            .and_then(|fd| MapData::from_fd(fd).map_err(io::Error::other))
            .map_err(Error::system("create", object::FENCE))?;
        Ok(Self {
            pool: open_pool(pins)?,
            fence: (typed(pins, object::FENCE)?, nothing),
            cursors: entries(object::CURSORS)?,
            verdicts: typed(pins, object::VERDICTS)?,
            services: typed(pins, object::SERVICES)?,
            costs: typed(pins, object::COSTS)?,
            flows: typed(pins, object::FLOWS)?,
            flows_capacity: entries(object::FLOWS)?,
            connections: require(pins, object::CONNECTIONS)?,
            lists: typed(pins, object::LISTS)?,
            lists_capacity: entries(object::LISTS)?,
            top_clients: require(pins, object::TOP_CLIENTS)?,
            top_names: require(pins, object::TOP_NAMES)?,
            carried: Carried::open(pins)?,
        })
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Settings {
        settings_in(&self.pool)
    }

    /// Replaces the settings.
    pub(crate) fn set_settings(&mut self, settings: &Settings) {
        self.pool.put(ROOT_AT + offset_of!(Root, settings), settings);
    }

    /// Tells the time in seconds.
    pub(crate) fn set_clock(&self, seconds: u64) {
        self.pool.store(ROOT_AT + offset_of!(Root, clock), seconds);
    }

    /// The rules in force.
    pub(crate) fn guard(&self) -> Guard {
        self.pool.get(ROOT_AT + offset_of!(Root, guard)).unwrap_or_default()
    }

    /// Replaces the rules.
    pub(crate) fn set_guard(&mut self, guard: &Guard) {
        self.pool.put(ROOT_AT + offset_of!(Root, guard), guard);
    }

    /// When the daemon was last there; 0: never.
    pub(crate) fn heartbeat(&self) -> u64 {
        self.pool.get(ROOT_AT + offset_of!(Root, heartbeat)).unwrap_or_default()
    }

    /// Says when the daemon was last there.
    pub(crate) fn set_heartbeat(&self, at: u64) {
        self.pool.store(ROOT_AT + offset_of!(Root, heartbeat), at);
    }

    /// Puts the answers without records where the program looks for them.
    pub(crate) fn write_bare_answers(&mut self) {
        for (at, bytes) in bare_answers() {
            self.pool.write(at, &bytes);
        }
    }

    /// Whether somebody altered them.
    pub(crate) fn bare_answers_differ(&self) -> bool {
        bare_answers().iter().any(|(at, bytes)| self.pool.read(*at, bytes.len()).is_none_or(|found| found != bytes))
    }

    /// Grain of the table of names in force; 0 before there was one.
    pub(crate) fn table(&self) -> u32 {
        // Grains are numbered with 32 bits.
        self.pool.get::<u64>(ROOT_AT + offset_of!(Root, table)).unwrap_or_default() as u32
    }

    /// The head of the table of names in force; `None` before there was one.
    pub(crate) fn table_head(&self) -> Option<TableHead> {
        let grain = self.table() as usize;
        let bytes = self.pool.read(grain * GRAIN, size_of::<TableHead>())?;
        (grain != 0).then(|| TableHead::from_bytes(&bytes)).flatten()
    }

    /// Puts a table of names in force. Programs that run may still read the one before.
    pub(crate) fn set_table(&self, grain: u32) {
        self.pool.store(ROOT_AT + offset_of!(Root, table), grain.into());
    }

    /// Writes a table of these names into free grains, from `grain` on.
    pub(crate) fn build_table(&mut self, grain: u32, names: &[Placed], places: &Places) {
        let (head, at) = (&places.head, grain as usize * GRAIN);
        let mut bytes = vec![0; head.bytes()];
        let mut put = |offset: usize, part: &[u8]| bytes[offset..offset + part.len()].copy_from_slice(part);
        put(0, head.to_bytes().as_ref());
        for (index, pilot) in places.pilots.iter().enumerate() {
            put(PILOTS_AT + index * size_of::<u16>(), &pilot.to_ne_bytes());
        }
        for (name, slot) in names.iter().zip(&places.slots) {
            let slot = head.slots_at as usize + ((*slot as usize) << head.slot_shift);
            put(slot, &name.set.to_ne_bytes());
            let text: Vec<u8> = name.entry.bytes().take(head.slot_text()).collect();
            put(slot + SLOT_HEAD, &text);
        }
        self.pool.write(at, &bytes);
    }

    /// Waits until no program reads what it could read before the call. Writing to a map of maps does
    /// that, whatever is written (since Linux 4.19).
    pub(crate) fn grace(&mut self) -> Result<(), Error> {
        let (fence, nothing) = &mut self.fence;
        fence.set(0, nothing, 0).map_err(Error::system("write", object::FENCE))
    }

    /// Writes into free grains.
    pub(crate) fn fill_pool(&mut self, writes: &Writes) {
        for (grain, bytes) in &writes.bytes {
            self.pool.write(*grain as usize * GRAIN, bytes);
        }
    }

    /// Makes the RRsets in force say the new. Each at once.
    pub(crate) fn store_words(&mut self, writes: &Writes) {
        for (grain, cursor) in &writes.cursors {
            self.pool.write(*grain as usize * GRAIN + size_of::<u64>(), &cursor.to_ne_bytes());
        }
        for (grain, word) in &writes.words {
            self.pool.store(*grain as usize * GRAIN, word.0);
        }
    }
}

/// A number pinned by itself, beside the tables of all layouts; `None` where none is.
pub(crate) fn pinned_word(path: &Path) -> Result<Option<u64>, Error> {
    let object = || path.display().to_string();
    match sys::get(path) {
        Ok(map) => {
            let word = Memory::map(map, size_of::<u64>()).map_err(Error::system("map into memory", object()))?;
            Ok(word.get(0))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system("open the pinned map", object())(error)),
    }
}

/// Pins such a number, in the place of another one.
pub(crate) fn pin_word(path: &Path, value: u64) -> Result<(), Error> {
    let object = || path.display().to_string();
    let map = sys::create_array(size_of::<u64>(), 1, BPF_F_MMAPABLE).map_err(Error::system("create", object()))?;
    let word = Memory::map(&map, size_of::<u64>()).map_err(Error::system("map into memory", object()))?;
    word.store(0, value);
    pins::remove(path)?;
    sys::pin(map.as_fd(), path).map_err(Error::system("pin", object()))
}

/// A random secret or epoch.
pub(crate) fn random() -> Result<u64, Error> {
    sys::random().map_err(Error::system("get", "random numbers"))
}

/// The first `len` elements of a per-CPU array, all CPUs' summed, read in one call.
pub(crate) fn sums<T: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    name: &'static str,
    len: u32,
    add: impl Fn(&mut T, &T),
) -> Result<Vec<T>, Error> {
    let cpus = nr_cpus().map_err(|(path, error)| Error::system("read", path)(error))?;
    let parts = sys::lookup_batch_per_cpu::<T>(map, len, cpus).map_err(Error::system("read", name))?;
    let sum = |parts: &[T]| {
        let mut total = T::default();
        parts.iter().for_each(|part| add(&mut total, part));
        total
    };
    Ok(parts.chunks(cpus).map(sum).collect())
}

/// A pinned map with its name.
pub(crate) fn open_pin(pins: &Pins, name: &'static str) -> Result<(&'static str, OwnedFd), Error> {
    Ok((name, sys::get(&pins.map(name)).map_err(Error::system("open the pinned map", name))?))
}

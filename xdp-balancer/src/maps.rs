//! The pinned maps with their types, and the check that they are what this version expects.

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError, MapType, PerCpuArray, PerCpuHashMap};
use xdp_balancer_common::{
    FlowCount, GRAIN, LINE_BYTES, LINES, PILOT_LINES, POOL_GRAINS, Pool, ServiceCount, Settings, Verdict, object,
};

use crate::error::Error;
use crate::pins::Pins;
use crate::plan::{Placed, Writes};
use crate::slots::Places;
use crate::sys::{self, Memory};

const BPF_F_MMAPABLE: u32 = 1 << 10;

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
}

impl Default for Sizes {
    fn default() -> Self {
        Self { pool_bytes: POOL_GRAINS as usize * GRAIN, cursors: 8192, services: 4096, flows: 1024 }
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
pub(crate) fn shapes(sizes: &Sizes) -> [Shape; 8] {
    let shape = |name, kind, key, value, entries| Shape { name, kind, key, value, flags: 0, entries, fixed: false };
    let fixed = |name, kind, value, entries| Shape { fixed: true, ..shape(name, kind, 4, value, entries) };
    let mapped = |name, value| Shape { flags: BPF_F_MMAPABLE, ..fixed(name, MapType::Array, value, 1) };
    [
        fixed(object::TABLE, MapType::ArrayOfMaps, 4, 1),
        mapped(object::POOL, size_of::<Pool>()),
        shape(object::CURSORS, MapType::PerCpuArray, 4, 4, sizes.cursors),
        fixed(object::SETTINGS, MapType::Array, size_of::<Settings>(), 1),
        mapped(object::CLOCK, 8),
        fixed(object::VERDICTS, MapType::PerCpuArray, 8, Verdict::ALL.len() as u32),
        shape(object::SERVICES, MapType::PerCpuArray, 4, size_of::<ServiceCount>(), sizes.services),
        shape(object::FLOWS, MapType::PerCpuHash, 4, size_of::<FlowCount>(), sizes.flows),
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
fn open(pins: &Pins, name: &'static str) -> Result<Option<MapData>, Error> {
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

/// A generation of names.
pub(crate) type Names = MapData;

/// The pinned maps.
pub(crate) struct Maps {
    pub table: ArrayOfMaps<MapData, Names>,
    pub pool: Memory,
    pub clock: Memory,
    pub cursors: u32,
    pub settings: Array<MapData, Settings>,
    pub verdicts: PerCpuArray<MapData, u64>,
    pub services: PerCpuArray<MapData, ServiceCount>,
    pub flows: PerCpuHashMap<MapData, u32, FlowCount>,
    pub flows_capacity: u32,
}

impl Maps {
    /// Opens them all; they must exist.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        let mapped = |name, len| {
            let map = require(pins, name)?;
            Memory::map(map.fd().as_fd(), len).map_err(Error::system("map into memory", name))
        };
        let entries = |name| {
            let info = require(pins, name)?.info().map_err(Error::system("inspect the map", name))?;
            Ok(info.max_entries())
        };
        Ok(Self {
            table: typed(pins, object::TABLE)?,
            pool: mapped(object::POOL, size_of::<Pool>())?,
            clock: mapped(object::CLOCK, 8)?,
            cursors: entries(object::CURSORS)?,
            settings: typed(pins, object::SETTINGS)?,
            verdicts: typed(pins, object::VERDICTS)?,
            services: typed(pins, object::SERVICES)?,
            flows: typed(pins, object::FLOWS)?,
            flows_capacity: entries(object::FLOWS)?,
        })
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Result<Settings, Error> {
        self.settings.get(&0, 0).map_err(Error::system("read", object::SETTINGS))
    }

    /// Replaces the settings.
    pub(crate) fn set_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        self.settings.set(0, *settings, 0).map_err(Error::system("write", object::SETTINGS))
    }

    /// The names in force; `None` before the first ones were put there.
    pub(crate) fn names(&self) -> Result<Option<Names>, Error> {
        match self.table.get(&0, 0) {
            Ok(names) => Ok(Some(names)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(Error::system("read", object::TABLE)(error)),
        }
    }

    /// Makes a table of these names, not yet in force.
    pub(crate) fn build_names(names: &[Placed], places: &Places) -> Result<Names, Error> {
        let created = sys::create_array(LINE_BYTES, LINES, BPF_F_MMAPABLE)
            .map_err(Error::system("create", "a table of names"))?;
        let table = Names::from_fd(created).map_err(Error::system("create", "a table of names"))?;
        let mut lines = lines(&table)?;
        for (index, pilot) in places.pilots.iter().enumerate().filter(|(_, pilot)| **pilot != 0) {
            lines.write(index * size_of::<u16>(), &pilot.to_ne_bytes());
        }
        for (name, slot) in names.iter().zip(&places.slots) {
            let mut bytes = [0; LINE_BYTES];
            bytes[..4].copy_from_slice(&name.set.to_ne_bytes());
            bytes[4..8].copy_from_slice(&name.tail.to_ne_bytes());
            for (to, chunk) in bytes[8..].chunks_exact_mut(8).zip(name.entry.head()) {
                to.copy_from_slice(&chunk.to_ne_bytes());
            }
            lines.write((PILOT_LINES + slot) as usize * LINE_BYTES, &bytes);
        }
        Ok(table)
    }

    /// Puts a table of names in force. The kernel returns when no program reads the one before.
    pub(crate) fn swap_names(&mut self, names: &Names) -> Result<(), Error> {
        self.table.set(0, names, 0).map_err(Error::system("write", object::TABLE))
    }

    /// Waits until no program reads what it could read before the call. Writing to a map of maps does
    /// that, whatever is written (since Linux 4.19).
    pub(crate) fn grace(&mut self) -> Result<(), Error> {
        match self.names()? {
            Some(names) => self.swap_names(&names),
            None => Ok(()),
        }
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

/// A table's lines in memory.
pub(crate) fn lines(names: &Names) -> Result<Memory, Error> {
    let fd = names.fd().as_fd();
    Memory::map(fd, LINES as usize * LINE_BYTES).map_err(Error::system("map into memory", "a table of names"))
}

/// A random secret or epoch.
pub(crate) fn random() -> Result<u64, Error> {
    sys::random().map_err(Error::system("get", "random numbers"))
}

//! The pinned maps with their types, and the check that they are what this version expects.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{Array, ArrayOfMaps, Map, MapData, MapError, MapType, PerCpuArray, PerCpuHashMap};
use xdp_balancer_common::{
    Answer, BUCKETS, Bucket, CELLS, Cell, FlowCount, MAX_INDEX, MAX_UNITS, NameEntry, NameUnit, RingWord, ServiceCount,
    Settings, TypeSet, TypeSlot, Verdict, object, units_of,
};

use crate::error::Error;
use crate::pins::Pins;
use crate::plan::{Installed, InstalledName, InstalledRrset};
use crate::sys::{self, Words};

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Elements of the maps when they are created; maps that exist keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Parts of names: one for each 32 bytes of a name's wire form.
    pub names: u32,
    /// RRsets, each a service's type or, where its names differ in their answers, a name's; and as many
    /// different sets of types.
    pub rrsets: u32,
    /// Rendered answers, one per unit of weight.
    pub answers: u32,
    /// Services with counters.
    pub services: u32,
    /// Instances with counters.
    pub flows: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { names: 16384, rrsets: 8192, answers: 16384, services: 4096, flows: 1024 }
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
pub(crate) fn shapes(sizes: &Sizes) -> [Shape; 10] {
    // A table's cells have so many bits for them.
    let (names, sets) = (sizes.names.min(MAX_INDEX), sizes.rrsets.min(MAX_INDEX));
    let shape = |name, kind, key, value, entries| Shape { name, kind, key, value, flags: 0, entries, fixed: false };
    let verdicts = Verdict::ALL.len() as u32;
    [
        Shape { fixed: true, ..shape(object::TABLE, MapType::ArrayOfMaps, 4, 4, 1) },
        // Begins on a page, so that no unit lies across two lines of the cache.
        Shape { flags: BPF_F_MMAPABLE, ..shape(object::ENTRIES, MapType::Array, 4, size_of::<NameUnit>(), names) },
        shape(object::SETS, MapType::Array, 4, size_of::<TypeSet>(), sets),
        Shape {
            flags: BPF_F_MMAPABLE,
            ..shape(object::RRSETS, MapType::Array, 4, size_of::<RingWord>(), sizes.rrsets)
        },
        shape(object::ANSWERS, MapType::Array, 4, size_of::<Answer>(), sizes.answers),
        shape(object::CURSORS, MapType::PerCpuArray, 4, 4, sizes.rrsets),
        Shape { fixed: true, ..shape(object::SETTINGS, MapType::Array, 4, size_of::<Settings>(), 1) },
        Shape { fixed: true, ..shape(object::VERDICTS, MapType::PerCpuArray, 4, 8, verdicts) },
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
    pub units: Array<MapData, NameUnit>,
    pub sets: Array<MapData, TypeSet>,
    pub rrsets: Words,
    pub answers: Array<MapData, Answer>,
    pub settings: Array<MapData, Settings>,
    pub verdicts: PerCpuArray<MapData, u64>,
    pub services: PerCpuArray<MapData, ServiceCount>,
    pub flows: PerCpuHashMap<MapData, u32, FlowCount>,
    pub flows_capacity: u32,
}

impl Maps {
    /// Opens them all; they must exist.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        let rrsets = require(pins, object::RRSETS)?;
        let len = rrsets.info().map_err(Error::system("inspect the map", object::RRSETS))?.max_entries();
        let rrsets = Words::map(rrsets.fd().as_fd(), len).map_err(Error::system("map into memory", object::RRSETS))?;
        let flows = require(pins, object::FLOWS)?;
        let flows_capacity = flows.info().map_err(Error::system("inspect the map", object::FLOWS))?.max_entries();
        Ok(Self {
            table: typed(pins, object::TABLE)?,
            units: typed(pins, object::ENTRIES)?,
            sets: typed(pins, object::SETS)?,
            rrsets,
            answers: typed(pins, object::ANSWERS)?,
            settings: typed(pins, object::SETTINGS)?,
            verdicts: typed(pins, object::VERDICTS)?,
            services: typed(pins, object::SERVICES)?,
            flows: typed(pins, object::FLOWS)?,
            flows_capacity,
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

    /// Makes a table of these buckets, not yet in force.
    pub(crate) fn build_names(buckets: &[Bucket]) -> Result<Names, Error> {
        let created = sys::create_array(size_of::<Bucket>(), BUCKETS, BPF_F_MMAPABLE)
            .map_err(Error::system("create", "a table of names"))?;
        let names = Names::from_fd(created).map_err(Error::system("create", "a table of names"))?;
        let words = words(&names)?;
        let cells = buckets.iter().flat_map(|bucket| bucket.0);
        for (index, cell) in (0..CELLS).zip(cells).filter(|(_, cell)| *cell != Cell::EMPTY) {
            words.store(index, cell.0);
        }
        Ok(names)
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

    /// Reads back what is installed.
    pub(crate) fn read_installed(&self) -> Result<Installed, Error> {
        let (units, sets) = (self.units.len(), self.sets.len());
        let mut installed = Installed::new(self.answers.len(), self.rrsets.len(), units, sets);
        let Some(names) = self.names()? else { return Ok(installed) };
        let words = words(&names)?;
        let mut read = Read::default();
        for cell in (0..CELLS).filter_map(|index| words.load(index)).map(Cell) {
            let Some(unit) = cell.unit() else { continue };
            let (wire, set) = (self.read_units(&mut installed, unit)?, cell.set());
            let (service, types) = self.read_set(&mut installed, &mut read, set)?;
            installed.names.insert(wire, InstalledName { service, unit, set, types });
        }
        Ok(installed)
    }

    /// A name in wire form.
    fn read_units(&self, installed: &mut Installed, first: u32) -> Result<Vec<u8>, Error> {
        let damaged = |what| Error::Damaged { map: object::ENTRIES, index: first.into(), what };
        let unit = |index| match self.units.get(&index, 0) {
            Ok(unit) => Ok(unit),
            Err(MapError::OutOfBounds { .. }) => Err(damaged("no such element")),
            Err(error) => Err(Error::system("read", object::ENTRIES)(error)),
        };
        let mut wire: Vec<u8> = Vec::new();
        for index in 0..MAX_UNITS as u32 {
            wire.extend(unit(first.saturating_add(index))?.0.iter().flat_map(|chunk| chunk.to_ne_bytes()));
            if wire.contains(&0) {
                break;
            }
        }
        wire.truncate(wire.iter().position(|byte| *byte == 0).map_or(0, |root| root + 1));
        if NameEntry::new(&wire).is_none() {
            return Err(damaged("no name"));
        }
        if !installed.units.claim(first, units_of(wire.len() as u32)) {
            return Err(damaged("used twice"));
        }
        Ok(wire)
    }

    /// A set's service and types.
    fn read_set(&self, installed: &mut Installed, read: &mut Read, index: u32) -> Result<ReadSet, Error> {
        if let Some(set) = read.sets.get(&index) {
            return Ok(set.clone());
        }
        let damaged = |what| Error::Damaged { map: object::SETS, index: index.into(), what };
        if !installed.sets.claim(index, 1) {
            return Err(damaged("no such element"));
        }
        let set = self.sets.get(&index, 0).map_err(Error::system("read", object::SETS))?;
        if set.service >= self.services.len() {
            return Err(damaged("unknown service"));
        }
        let mut types = Vec::new();
        for slot in set.types.iter().filter(|slot| slot.qtype != 0) {
            types.push(self.read_rrset(installed, read, slot)?);
        }
        read.sets.insert(index, (set.service, types.clone()));
        Ok((set.service, types))
    }

    fn read_rrset(&self, installed: &mut Installed, read: &mut Read, slot: &TypeSlot) -> Result<InstalledRrset, Error> {
        let damaged = |what| Error::Damaged { map: object::RRSETS, index: slot.rrset.into(), what };
        if let Some(rrset) = read.rrsets.get(&slot.rrset) {
            // Sets of a service may differ in one type and share another.
            return if rrset.qtype == slot.qtype { Ok(rrset.clone()) } else { Err(damaged("used for two types")) };
        }
        let word = RingWord(self.rrsets.load(slot.rrset).ok_or_else(|| damaged("no such element"))?);
        let (first, len) = (word.first(), u32::from(word.len()));
        if !installed.ids.claim(slot.rrset, 1) {
            return Err(damaged("used twice"));
        }
        if !installed.slots.claim(first, len) {
            return Err(damaged("answer slots used twice or missing"));
        }
        let ring = (first..first + len)
            .map(|index| self.answers.get(&index, 0).map_err(Error::system("read", object::ANSWERS)))
            .collect::<Result<_, _>>()?;
        let rrset = InstalledRrset { qtype: slot.qtype, id: slot.rrset, first, ring };
        read.rrsets.insert(slot.rrset, rrset.clone());
        Ok(rrset)
    }
}

/// Service and types.
type ReadSet = (u32, Vec<InstalledRrset>);

/// What was read already, for those that share it.
#[derive(Default)]
struct Read {
    sets: HashMap<u32, ReadSet>,
    rrsets: HashMap<u32, InstalledRrset>,
}

/// A table's cells in memory.
fn words(names: &Names) -> Result<Words, Error> {
    let fd = names.fd().as_fd();
    Words::map(fd, CELLS).map_err(Error::system("map into memory", "a table of names"))
}

/// A random secret or epoch.
pub(crate) fn random() -> Result<u64, Error> {
    sys::random().map_err(Error::system("get", "random numbers"))
}

//! The pinned maps with their types, and the check that they are what this version expects.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, MapType, PerCpuArray, PerCpuHashMap};
use xdp_balancer_common::{Answer, FlowCount, NameEntry, RingWord, ServiceCount, Settings, Verdict, object};

use crate::error::Error;
use crate::pins::Pins;
use crate::plan::{Installed, InstalledName, InstalledRrset};
use crate::sys::{self, Words};
use crate::table::wire_of;

const BPF_F_MMAPABLE: u32 = 1 << 10;

/// Elements of the maps when they are created; maps that exist keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// RRsets, each a name and a type.
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
        Self { rrsets: 8192, answers: 16384, services: 4096, flows: 1024 }
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
    let verdicts = Verdict::ALL.len() as u32;
    [
        Shape { fixed: true, ..shape(object::TABLE, MapType::ArrayOfMaps, 4, 4, 1) },
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
pub(crate) type Names = HashMap<MapData, u64, NameEntry>;

/// The pinned maps.
pub(crate) struct Maps {
    pub table: ArrayOfMaps<MapData, Names>,
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

    /// Makes a table of these names, not yet in force.
    pub(crate) fn build_names(entries: &BTreeMap<u64, NameEntry>) -> Result<Names, Error> {
        let size = u32::try_from(entries.len()).unwrap_or(u32::MAX).max(1);
        let mut names = Names::create(size, 0).map_err(Error::system("create", "a table of names"))?;
        for (key, entry) in entries {
            names.insert(key, entry, 0).map_err(Error::system("fill", "a table of names"))?;
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
        let mut installed = Installed::new(self.answers.len(), self.rrsets.len());
        let Some(names) = self.names()? else { return Ok(installed) };
        for entry in names.iter() {
            let (key, entry) = entry.map_err(Error::system("read", object::TABLE))?;
            let name = self.read_name(&mut installed, key, &entry)?;
            installed.names.insert(wire_of(&entry), name);
        }
        Ok(installed)
    }

    fn read_name(&self, installed: &mut Installed, key: u64, entry: &NameEntry) -> Result<InstalledName, Error> {
        if entry.service >= self.services.len() {
            return Err(Error::Damaged { map: object::TABLE, index: key, what: "unknown service" });
        }
        let mut types = Vec::new();
        for slot in entry.types.iter().filter(|slot| slot.qtype != 0) {
            let damaged = |what| Error::Damaged { map: object::RRSETS, index: slot.rrset.into(), what };
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
            types.push(InstalledRrset { qtype: slot.qtype, id: slot.rrset, first, ring });
        }
        Ok(InstalledName { service: entry.service, types })
    }
}

/// A random secret or epoch.
pub(crate) fn random() -> Result<u64, Error> {
    sys::random().map_err(Error::system("get", "random numbers"))
}

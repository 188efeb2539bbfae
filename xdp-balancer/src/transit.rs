//! Replies in transit: the programs that rewrite them, loaded and attached only where that is asked for.
//!
//! On ingress the program stands behind the one that answers, in a slot of `TAILS`; on egress it is a classifier of a
//! place of its own. Where it is on is written in a pinned map, so that it can be taken off without a daemon.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError, MapType, PerCpuArray, ProgramArray};
use aya::programs::links::Link as _;
use aya::programs::tc::{SchedClassifierLink, TcError};
use aya::programs::{ProgramError, TcAttachType, tc};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use xdp_balancer_common::object::{
    TAIL_TRANSIT, TAILS, TRANSIT_EGRESS, TRANSIT_HOOKS, TRANSIT_INGRESS, TRANSIT_VERDICTS,
};
use xdp_balancer_common::{TransitHook, TransitVerdict};

use crate::attach::{FILTER_HANDLE, TRANSIT_PRIORITY, attach_classifier};
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::maps::{Shape, Sizes, shapes};
use crate::object as elf;
use crate::pins::{self, Pins};
use crate::sys;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-transit"));

/// Interfaces on which replies can be rewritten.
pub const MAX_TRANSIT_INTERFACES: usize = 64;

/// Maps that are there only where replies are rewritten.
fn own_shapes() -> [Shape; 2] {
    let shape = |name, kind, value, entries| Shape { name, kind, key: 4, value, flags: 0, entries, fixed: true };
    [
        shape(TRANSIT_HOOKS, MapType::Hash, 4, MAX_TRANSIT_INTERFACES as u32),
        shape(TRANSIT_VERDICTS, MapType::PerCpuArray, 8, TransitVerdict::ALL.len() as u32),
    ]
}

impl Dataplane {
    /// Rewrites replies at these places and at no others. On ingress the interface has to be attached as well.
    /// May be repeated: this version's programs then take the place of those there. After an error replies are rewritten
    /// nowhere.
    pub fn set_transit(&mut self, places: &[(&str, TransitHook)]) -> Result<(), Error> {
        self.transit = None;
        if places.is_empty() {
            return take_off(&self.pins, None);
        }
        match self.rewrite_at(places) {
            Ok(object) => {
                self.transit = Some(object);
                Ok(())
            }
            Err(error) => {
                take_off(&self.pins, None)?;
                Err(error)
            }
        }
    }

    fn rewrite_at(&self, places: &[(&str, TransitHook)]) -> Result<Ebpf, Error> {
        let mut wanted: Vec<(u32, &str, TransitHook)> = Vec::with_capacity(places.len());
        for (interface, hook) in places {
            let ifindex =
                sys::if_index(interface).ok_or_else(|| Error::NoInterface { interface: (*interface).into() })?;
            if !sys::is_ethernet(interface).map_err(Error::system("inspect", *interface))? {
                return Err(Error::NotEthernet { interface: (*interface).into() });
            }
            wanted.push((ifindex, interface, *hook));
        }
        let mut object = load(&self.pins)?;
        let mut hooks = hooks(&self.pins)?.ok_or(Error::Missing { name: TRANSIT_HOOKS })?;
        for (ifindex, interface, hook) in &wanted {
            if *hook == TransitHook::Egress {
                attach_egress(&mut object, interface)?;
            }
            let bits = wanted.iter().filter(|(index, ..)| index == ifindex).map(|(.., hook)| hook.bit());
            let bits = bits.fold(0, |all, bit| all | bit);
            hooks.insert(*ifindex, bits, 0).map_err(Error::system("write", TRANSIT_HOOKS))?;
        }
        let before: Vec<u32> =
            hooks.keys().collect::<Result<_, MapError>>().map_err(Error::system("read", TRANSIT_HOOKS))?;
        for ifindex in before {
            let here = |hook| wanted.iter().any(|(index, _, wanted)| *index == ifindex && *wanted == hook);
            if !here(TransitHook::Egress) {
                take_filter_off(ifindex)?;
            }
            if !here(TransitHook::Egress) && !here(TransitHook::Ingress) {
                hooks.remove(&ifindex).map_err(Error::system("write", TRANSIT_HOOKS))?;
            }
        }
        let mut tails = tails(&self.pins)?;
        if wanted.iter().any(|(.., hook)| *hook == TransitHook::Ingress) {
            let program = elf::loaded(&object, TRANSIT_INGRESS)?.fd();
            let program = program.map_err(Error::system("open", TRANSIT_INGRESS))?;
            tails.set(TAIL_TRANSIT, program, 0).map_err(Error::system("write", TAILS))?;
        } else {
            clear_tail(&mut tails, TAIL_TRANSIT)?;
        }
        Ok(object)
    }

    /// Packets by [`TransitVerdict`], in its order; `None` where replies are not rewritten.
    pub fn transit_counts(&self) -> Result<Option<Vec<u64>>, Error> {
        counts(&self.pins)
    }

    /// The programs that rewrite, if they are loaded.
    #[cfg(feature = "testing")]
    pub(crate) fn transit_object(&self) -> Result<&Ebpf, Error> {
        self.transit.as_ref().ok_or(Error::Missing { name: TRANSIT_INGRESS })
    }
}

fn load(pins: &Pins) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    let (main, own) = (shapes(&Sizes::default()), own_shapes());
    for shape in main.iter().chain(&own) {
        let entries = shape.adopt(pins)?.unwrap_or(shape.entries);
        loader.map_pin_path(shape.name, pins.map(shape.name)).map_max_entries(shape.name, entries);
    }
    let mut object = elf::load_other(&mut loader, OBJECT)?;
    elf::xdp(&mut object, TRANSIT_INGRESS)?;
    elf::classifier(&mut object, TRANSIT_EGRESS)?;
    Ok(object)
}

fn attach_egress(object: &mut Ebpf, interface: &str) -> Result<(), Error> {
    match tc::qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        result => result.map_err(Error::system("add the clsact qdisc to", interface))?,
    }
    let program = elf::classifier_of(object, TRANSIT_EGRESS)?;
    attach_classifier(program, interface, TcAttachType::Egress, TRANSIT_PRIORITY)
        .map_err(Error::system("attach the rewriting filter to", interface))
}

fn map(pins: &Pins, name: &'static str) -> Result<Option<Map>, Error> {
    let Some(data) = crate::maps::open(pins, name)? else { return Ok(None) };
    Map::from_map_data(data).map(Some).map_err(Error::system("open the pinned map", name))
}

fn hooks(pins: &Pins) -> Result<Option<HashMap<MapData, u32, u32>>, Error> {
    let map = map(pins, TRANSIT_HOOKS)?.map(HashMap::try_from).transpose();
    map.map_err(Error::system("open the pinned map", TRANSIT_HOOKS))
}

/// The programs behind the one that answers.
pub(crate) fn tails(pins: &Pins) -> Result<ProgramArray<MapData>, Error> {
    let map = map(pins, TAILS)?.ok_or(Error::Missing { name: TAILS })?;
    ProgramArray::try_from(map).map_err(Error::system("open the pinned map", TAILS))
}

/// Empties a slot; an empty one is fine.
pub(crate) fn clear_tail(tails: &mut ProgramArray<MapData>, slot: u32) -> Result<(), Error> {
    match tails.clear_index(&slot) {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map_err(Error::system("write", TAILS)),
    }
}

/// Packets by what became of them, of all CPUs.
pub(crate) fn counts(pins: &Pins) -> Result<Option<Vec<u64>>, Error> {
    let Some(map) = map(pins, TRANSIT_VERDICTS)? else { return Ok(None) };
    let map: PerCpuArray<MapData, u64> =
        PerCpuArray::try_from(map).map_err(Error::system("open the pinned map", TRANSIT_VERDICTS))?;
    let sum = |index| map.get(&index, 0).map(|parts| parts.iter().sum());
    let sums = (0..map.len()).map(sum).collect::<Result<_, MapError>>();
    sums.map(Some).map_err(Error::system("read", TRANSIT_VERDICTS))
}

/// Ends the rewriting on one interface, or everywhere; then its counters go too. Needs no daemon.
pub(crate) fn take_off(pins: &Pins, interface: Option<&str>) -> Result<(), Error> {
    let Some(mut hooks) = hooks(pins)? else { return Ok(()) };
    let places: Vec<u32> =
        hooks.keys().collect::<Result<_, MapError>>().map_err(Error::system("read", TRANSIT_HOOKS))?;
    let wanted = interface.map(sys::if_index);
    for ifindex in places.into_iter().filter(|index| wanted.is_none_or(|wanted| wanted == Some(*index))) {
        take_filter_off(ifindex)?;
        hooks.remove(&ifindex).map_err(Error::system("write", TRANSIT_HOOKS))?;
    }
    if interface.is_none() {
        if map(pins, TAILS)?.is_some() {
            clear_tail(&mut tails(pins)?, TAIL_TRANSIT)?;
        }
        pins::remove(&pins.map(TRANSIT_HOOKS))?;
        pins::remove(&pins.map(TRANSIT_VERDICTS))?;
    }
    Ok(())
}

/// Takes our filter off an interface; where there is none, or no interface any more, nothing happens.
fn take_filter_off(ifindex: u32) -> Result<(), Error> {
    let Some(interface) = sys::if_name(ifindex) else { return Ok(()) };
    let link = SchedClassifierLink::attached(&interface, TcAttachType::Egress, TRANSIT_PRIORITY, FILTER_HANDLE, None)
        .map_err(Error::system("find the filter on", interface.as_str()))?;
    match link.detach() {
        // No such filter, no qdisc for it, no interface.
        Err(ProgramError::NetlinkError(error))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) =>
        {
            Ok(())
        }
        other => other.map_err(Error::system("take the filter off", interface.as_str())),
    }
}

/// What is pinned below a directory of any layout; older ones may have none of it.
pub(crate) fn take_all_off(layout: &Path, interface: Option<&str>) -> Result<(), Error> {
    take_off(&Pins::at(layout), interface)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn the_object_has_these_programs_and_maps_of_these_shapes() {
        let parsed = aya_obj::Object::parse(OBJECT).unwrap();
        let mut programs: Vec<&str> = parsed.programs.keys().map(String::as_str).collect();
        programs.sort_unstable();
        assert_eq!(programs, [TRANSIT_INGRESS, TRANSIT_EGRESS]);
        for shape in own_shapes() {
            let map = parsed.maps.get(shape.name).unwrap();
            let found = (map.map_type(), map.key_size(), map.value_size(), map.map_flags(), map.max_entries());
            let wanted = (shape.kind as u32, shape.key as u32, shape.value as u32, shape.flags, shape.entries);
            assert_eq!(found, wanted, "{}", shape.name);
        }
    }
}

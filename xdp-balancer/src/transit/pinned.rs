//! What of the rewriting is pinned and attached, worked on without the programs: taken off, shown, counted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError};
use xdp_balancer_common::object::{TAIL_TRANSIT, TRANSIT_HOOKS, TRANSIT_VERDICTS};
use xdp_balancer_common::{OWN_CLSACT, TransitHook, TransitVerdict};

use super::{PinnedTransit, TransitPlace, direction, egress, kind};
use crate::drift::Drift;
use crate::error::Error;
use crate::maps::sums;
use crate::pins::{self, Pins};
use crate::sys;
use crate::tails::Slot;

/// Where replies are rewritten: [`TransitHook`]'s bits by interface, with [`OWN_CLSACT`].
pub(super) struct Hooks(HashMap<MapData, u32, u32>);

impl Hooks {
    /// The pinned ones; `None` where nothing was ever rewritten.
    pub(super) fn open(pins: &Pins) -> Result<Option<Self>, Error> {
        let Some(data) = crate::maps::open(pins, TRANSIT_HOOKS)? else { return Ok(None) };
        let map = Map::from_map_data(data).and_then(HashMap::try_from);
        map.map(|map| Some(Self(map))).map_err(Error::system("open the pinned map", TRANSIT_HOOKS))
    }

    /// All of them.
    pub(super) fn all(&self) -> Result<BTreeMap<u32, u32>, Error> {
        self.0.iter().collect::<Result<_, MapError>>().map_err(Error::system("read", TRANSIT_HOOKS))
    }

    /// Those of one; 0: none.
    pub(super) fn of(&self, ifindex: u32) -> Result<u32, Error> {
        match self.0.get(&ifindex, 0) {
            Err(MapError::KeyNotFound) => Ok(0),
            other => other.map_err(Error::system("read", TRANSIT_HOOKS)),
        }
    }

    /// Writes one; without a direction it goes.
    pub(super) fn put(&mut self, ifindex: u32, bits: u32) -> Result<(), Error> {
        if bits & !OWN_CLSACT != 0 {
            return self.0.insert(ifindex, bits, 0).map_err(Error::system("write", TRANSIT_HOOKS));
        }
        match self.0.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(Error::system("write", TRANSIT_HOOKS)(error)),
        }
    }
}

/// Leaves what is not wanted: the interfaces that are not, by their index, the directions that are not, and the slot.
pub(super) fn leave(pins: &Pins, wanted: &BTreeMap<u32, u32>) -> Result<(), Error> {
    let out = TransitHook::Egress.bit();
    egress::take_links_off(pins, |ifindex| wanted.get(&ifindex).is_some_and(|bits| bits & out != 0))?;
    let Some(mut hooks) = Hooks::open(pins)? else { return Ok(()) };
    for (ifindex, bits) in hooks.all()? {
        let wanted = wanted.get(&ifindex).copied().unwrap_or(0);
        if bits & out != 0 && wanted & out == 0 {
            egress::take_filter_off(ifindex, bits & OWN_CLSACT != 0)?;
        }
        let kept = bits & wanted | if wanted & out == 0 { 0 } else { bits & OWN_CLSACT };
        if kept != bits {
            hooks.put(ifindex, kept)?;
        }
    }
    if wanted.values().all(|bits| bits & TransitHook::Ingress.bit() == 0)
        && let Some(slot) = Slot::open(pins, TAIL_TRANSIT)?
    {
        slot.clear()?;
    }
    Ok(())
}

/// Ends the rewriting in one layout, with its counters.
pub(super) fn forget(pins: &Pins) -> Result<(), Error> {
    leave(pins, &BTreeMap::new())?;
    pins::remove(&pins.map(TRANSIT_HOOKS))?;
    pins::remove(&pins.map(TRANSIT_VERDICTS))
}

/// Ends the rewriting in all layouts.
pub(super) fn forget_all(base: &Path) -> Result<(), Error> {
    pins::layouts(base)?.iter().try_for_each(|layout| forget(&Pins::at(layout)))
}

/// Takes over from other layouts, where ours is on in their place: what is wanted goes on with our filters in their
/// places, what is not ends, and their counters stay.
pub(super) fn inherit(pins: &Pins, hooks: &mut Hooks, wanted: &BTreeMap<u32, u32>) -> Result<(), Error> {
    for layout in pins.others()? {
        let other = Pins::at(&layout);
        let Some(theirs) = Hooks::open(&other)? else { continue };
        for (ifindex, bits) in theirs.all()?.into_iter().filter(|(_, bits)| bits & OWN_CLSACT != 0) {
            let ours = hooks.of(ifindex)?;
            if ours != 0 {
                hooks.put(ifindex, ours | bits & OWN_CLSACT)?;
            }
        }
        leave(&other, wanted)?;
        pins::remove(&other.map(TRANSIT_HOOKS))?;
    }
    Ok(())
}

/// Takes the rewriting off one interface, or off all, by order; then its counters go too. Needs no daemon, and one that
/// runs leaves it off. Returns the interfaces.
pub(crate) fn take_off(layout: &Path, interface: Option<&str>) -> Result<Vec<String>, Error> {
    let pins = Pins::at(layout);
    let (mut stay, mut off) = (Hooks::open(&pins)?.map_or(Ok(BTreeMap::new()), |hooks| hooks.all())?, Vec::new());
    // Also where others have deleted the entry.
    for ifindex in egress::linked(&pins)? {
        *stay.entry(ifindex).or_default() |= TransitHook::Egress.bit();
    }
    if stay.is_empty() && !pins.map(TRANSIT_HOOKS).exists() {
        return Ok(off);
    }
    for ifindex in stay.keys().copied().collect::<Vec<_>>() {
        let name = sys::if_name(ifindex);
        if interface.is_none() || interface == name.as_deref() {
            stay.remove(&ifindex);
            off.extend(name);
        }
    }
    for name in &off {
        // First, so that nobody takes it for the work of others.
        let mark = pins::off_mark(pins.base(), name);
        fs::create_dir_all(&mark).map_err(Error::system("create the directory", mark.display().to_string()))?;
    }
    if stay.is_empty() {
        forget(&pins)?
    } else {
        leave(&pins, &stay)?
    }
    Ok(off)
}

/// Counters of one layout.
pub(super) struct Counted {
    map: OwnedFd,
    /// Verdicts are only ever appended, so those that both know are the first.
    len: u32,
}

/// The counters of all layouts.
pub(super) fn counted(base: &Path) -> Result<Vec<Counted>, Error> {
    let mut found = Vec::new();
    for layout in pins::layouts(base)? {
        let map = match sys::get(&Pins::at(&layout).map(TRANSIT_VERDICTS)) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::system("open the pinned map", TRANSIT_VERDICTS)(error)),
        };
        let [_, _, entries] = sys::map_size(map.as_fd()).map_err(Error::system("inspect the map", TRANSIT_VERDICTS))?;
        found.push(Counted { map, len: entries.min(TransitVerdict::ALL.len() as u32) });
    }
    Ok(found)
}

/// Packets by [`TransitVerdict`], in its order; one call for each layout.
pub(super) fn counts(counted: &[Counted]) -> Result<Vec<u64>, Error> {
    let mut totals = vec![0; TransitVerdict::ALL.len()];
    for Counted { map, len } in counted {
        let sums = sums(map.as_fd(), TRANSIT_VERDICTS, *len, |total: &mut u64, part| *total += part)?;
        totals.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    Ok(totals)
}

/// Where replies are rewritten, and what became of them; `None` where they are not.
pub(crate) fn show(pin_dir: &Path) -> Result<Option<PinnedTransit>, Error> {
    let pins = Pins::new(pin_dir);
    let Some(hooks) = Hooks::open(&pins)? else { return Ok(None) };
    let slot = Slot::open(&pins, TAIL_TRANSIT)?;
    let mut places = Vec::new();
    for (ifindex, bits) in hooks.all()? {
        let Some(interface) = sys::if_name(ifindex) else { continue };
        for hook in [TransitHook::Ingress, TransitHook::Egress].into_iter().filter(|hook| bits & hook.bit() != 0) {
            let (program_id, egress) = match (hook, &slot) {
                (TransitHook::Egress, _) => egress::find(&pins, ifindex, &interface)?.unzip(),
                (TransitHook::Ingress, Some(slot)) => (slot.program()?, None),
                (TransitHook::Ingress, None) => (None, None),
            };
            places.push(TransitPlace { interface: interface.clone(), hook, egress, program_id, problem: None });
        }
    }
    Ok(Some(PinnedTransit { places, counts: counts(&counted(pin_dir)?)? }))
}

/// What differs between what is pinned and attached and the places where replies shall be rewritten. Nothing is changed.
pub fn verify(pin_dir: &Path, wanted: &[(&str, TransitHook)]) -> Result<Vec<Drift>, Error> {
    let there = show(pin_dir)?.map_or(Vec::new(), |transit| transit.places);
    let mut found = Vec::new();
    for (interface, hook) in wanted {
        let place = there.iter().find(|place| place.interface == *interface && place.hook == *hook);
        let what = match place {
            Some(TransitPlace { program_id: Some(_), .. }) => continue,
            Some(_) => "the program that rewrites replies is gone",
            None => "replies are not rewritten",
        };
        found.push(Drift::new(kind(*hook), *interface, format!("{}: {what}", direction(*hook))));
    }
    let extra = there.iter().filter(|place| !wanted.contains(&(place.interface.as_str(), place.hook)));
    found.extend(extra.map(|place| {
        let what = format!("{}: replies are rewritten and shall not be", direction(place.hook));
        Drift::new(kind(place.hook), place.interface.as_str(), what)
    }));
    Ok(found)
}

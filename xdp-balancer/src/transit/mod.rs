//! Replies in transit: the programs that rewrite them, loaded and attached only where that is asked for.
//!
//! On ingress the program stands behind the one that answers, in a slot of `TAILS`; on egress it is a classifier of a
//! place of its own ([`egress`]). Where it is on is written in a pinned map, so that it can be taken off without a daemon
//! ([`pinned`]). What is wanted is put on and kept on by the same steps ([`mend`]).

mod egress;
mod mend;
mod pinned;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use aya::maps::MapType;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use xdp_balancer_common::object::{TRANSIT_EGRESS, TRANSIT_HOOKS, TRANSIT_INGRESS, TRANSIT_VERDICTS};
use xdp_balancer_common::{TransitHook, TransitVerdict};

use crate::audit::DriftKind;
use crate::dataplane::{Dataplane, open_pin};
use crate::error::Error;
use crate::maps::{Shape, Sizes, shapes};
use crate::object as elf;
use crate::pins::Pins;
use crate::sys;
pub use egress::EgressBy;
use mend::Place;
pub use pinned::verify as verify_transit;
use pinned::{Counted, Hooks};
pub(crate) use pinned::{show, take_off};

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

/// An interface and a direction where replies are rewritten, or shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitPlace {
    /// The interface.
    pub interface: String,
    /// The direction.
    pub hook: TransitHook,
    /// By what the program is attached on the way out; `None` on the way in, or where it is not.
    pub egress: Option<EgressBy>,
    /// Kernel's id of the program that does it; `None` where none does.
    pub program_id: Option<u32>,
    /// Why none does.
    pub problem: Option<String>,
}

/// Where replies are rewritten, and what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedTransit {
    /// The places.
    pub places: Vec<TransitPlace>,
    /// Packets by [`TransitVerdict`], in its order.
    pub counts: Vec<u64>,
}

/// The programs of this version, and where they shall be.
pub(crate) struct Transit {
    object: Ebpf,
    places: Vec<Place>,
    /// Pins, as they shall be.
    pinned: Vec<(&'static str, OwnedFd)>,
    /// Counters, those of other layouts among them.
    counted: Vec<Counted>,
    /// Whether links are used on the way out where the kernel has them.
    tcx: bool,
}

impl Dataplane {
    /// Rewrites replies at these places and at no others. On ingress the interface has to be attached as well. May be
    /// repeated, with other places: no reply is lost, and where both what was and what is wanted rewrite one way, no
    /// reply passes as it was. The first time this version's programs take the place of those there. A place where it
    /// cannot be done has a problem ([`Dataplane::transit`]), and is tried again by each [`Dataplane::glance`]; after an
    /// error replies are rewritten nowhere.
    pub fn set_transit(&mut self, places: &[(&str, TransitHook)]) -> Result<(), Error> {
        let before = self.transit.take();
        if places.is_empty() {
            return pinned::forget_all(self.pins.base());
        }
        match self.rewrite_at(before, places) {
            Ok(transit) => {
                self.transit = Some(transit);
                Ok(())
            }
            Err(error) => {
                pinned::forget_all(self.pins.base())?;
                Err(error)
            }
        }
    }

    fn rewrite_at(&self, before: Option<Transit>, places: &[(&str, TransitHook)]) -> Result<Transit, Error> {
        let mut transit = match before {
            Some(transit) => transit,
            None => Transit::load(&self.pins, self.tcx)?,
        };
        let mut before = std::mem::take(&mut transit.places);
        for (interface, hook) in places {
            let at = before.iter().position(|place| place.is(interface, *hook));
            let known = at.map(|at| before.swap_remove(at));
            if known.is_none() && !self.held.contains_key(*interface) {
                // An order to stay off is over, as it is for the program that answers.
                self.pins.forget_off(interface)?;
            }
            transit.places.push(known.unwrap_or_else(|| Place::new(interface, *hook)));
        }
        transit.mend(&self.pins)?;
        let wanted = transit.wanted();
        pinned::leave(&self.pins, &wanted)?;
        let mut hooks = Hooks::open(&self.pins)?.ok_or(Error::Missing { name: TRANSIT_HOOKS })?;
        pinned::inherit(&self.pins, &mut hooks, &wanted)?;
        Ok(transit)
    }

    /// Packets by [`TransitVerdict`], in its order; `None` where replies are not rewritten.
    pub fn transit_counts(&self) -> Result<Option<Vec<u64>>, Error> {
        self.transit.as_ref().map(|transit| pinned::counts(&transit.counted)).transpose()
    }

    /// Where replies shall be rewritten, and whether they are.
    #[must_use]
    pub fn transit(&self) -> Vec<TransitPlace> {
        self.transit.as_ref().map(Transit::places).unwrap_or_default()
    }

    /// The programs that rewrite, if they are loaded.
    #[cfg(feature = "testing")]
    pub(crate) fn transit_object(&self) -> Result<&Ebpf, Error> {
        self.transit.as_ref().map(|transit| &transit.object).ok_or(Error::Missing { name: TRANSIT_INGRESS })
    }
}

impl Transit {
    fn load(pins: &Pins, tcx: bool) -> Result<Self, Error> {
        let mut loader = EbpfLoader::new();
        let (main, own) = (shapes(&Sizes::default()), own_shapes());
        for shape in main.iter().chain(&own) {
            let entries = shape.adopt(pins)?.unwrap_or(shape.entries);
            loader.map_pin_path(shape.name, pins.map(shape.name)).map_max_entries(shape.name, entries);
        }
        let mut object = elf::load_other(&mut loader, OBJECT)?;
        elf::xdp(&mut object, TRANSIT_INGRESS)?;
        elf::classifier(&mut object, TRANSIT_EGRESS)?;
        let pinned = own.iter().map(|shape| open_pin(pins, shape.name)).collect::<Result<_, _>>()?;
        let counted = pinned::counted(pins.base())?;
        Ok(Self { object, places: Vec::new(), pinned, counted, tcx })
    }

    /// Bits by interface; those that are gone have none.
    fn wanted(&self) -> BTreeMap<u32, u32> {
        let mut wanted = BTreeMap::new();
        for place in &self.places {
            if let Some(ifindex) = sys::if_index(&place.interface) {
                *wanted.entry(ifindex).or_default() |= place.hook.bit();
            }
        }
        wanted
    }
}

/// What others can change in that direction.
const fn kind(hook: TransitHook) -> DriftKind {
    match hook {
        TransitHook::Ingress => DriftKind::Program,
        TransitHook::Egress => DriftKind::Filter,
    }
}

/// `ingress` or `egress`.
pub(crate) const fn direction(hook: TransitHook) -> &'static str {
    match hook {
        TransitHook::Ingress => "ingress",
        TransitHook::Egress => "egress",
    }
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

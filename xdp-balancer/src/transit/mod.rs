//! Replies in transit: the programs that rewrite them, loaded and attached only where that is asked for.
//!
//! On ingress the program stands behind the one that answers, in a slot of `TAILS`; on egress it is a classifier of a
//! place of its own ([`egress`]). Where it is on is written in a pinned map, so that it can be taken off without a daemon
//! ([`pinned`]). What is wanted is put on and kept on by the same steps ([`mend`]).

mod egress;
mod mend;
mod pinned;
mod places;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use aya::maps::MapType;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use xdp_balancer_common::object::{TRANSIT_EGRESS, TRANSIT_HOOKS, TRANSIT_INGRESS, TRANSIT_VERDICTS};
use xdp_balancer_common::{TransitHook, TransitVerdict};

use crate::drift::DriftKind;
use crate::error::Error;
use crate::maps::{Shape, Sizes, open_pin, shapes};
use crate::object as elf;
use crate::pins::Pins;
use crate::sys;
pub use egress::EgressBy;
use mend::Place;
use pinned::Counted;
pub use pinned::verify as verify_transit;
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

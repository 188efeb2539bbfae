//! Puts the rewriting on where it is wanted, and on again where others took it off.

use std::os::fd::{AsFd as _, OwnedFd};

use xdp_balancer_common::object::{TAIL_TRANSIT, TAILS, TRANSIT_EGRESS, TRANSIT_HOOKS, TRANSIT_INGRESS};
use xdp_balancer_common::{OWN_CLSACT, TransitHook};

use super::egress::{self, EgressBy, Out};
use super::pinned::Hooks;
use super::{Transit, TransitPlace, direction, kind};
use crate::drift::{Drift, DriftKind, Mended, mend_pin};
use crate::error::Error;
use crate::hook::instead_of_ours;
use crate::object as elf;
use crate::pins::Pins;
use crate::sys;
use crate::tails::Slot;

/// A place where replies shall be rewritten.
pub(super) struct Place {
    pub interface: String,
    pub hook: TransitHook,
    /// Index of the interface on which this process has put it on. What is missing there was taken off by others.
    on: Option<u32>,
    /// On the way out: held, so that a lost pin ends nothing.
    link: Option<OwnedFd>,
    egress: Option<EgressBy>,
    program_id: Option<u32>,
    problem: Option<String>,
}

/// What rewrites in a place, and what was not as it shall be.
struct On {
    program_id: u32,
    egress: Option<EgressBy>,
    found: Vec<Mended>,
}

impl Place {
    pub(super) fn new(interface: &str, hook: TransitHook) -> Self {
        Self {
            interface: interface.to_owned(),
            hook,
            on: None,
            link: None,
            egress: None,
            program_id: None,
            problem: None,
        }
    }

    pub(super) fn is(&self, interface: &str, hook: TransitHook) -> bool {
        self.interface == interface && self.hook == hook
    }
}

impl Transit {
    /// The places as they are.
    pub(super) fn places(&self) -> Vec<TransitPlace> {
        let place = |place: &Place| TransitPlace {
            interface: place.interface.clone(),
            hook: place.hook,
            egress: place.egress,
            program_id: place.program_id,
            problem: place.problem.clone(),
        };
        self.places.iter().map(place).collect()
    }

    /// Makes it as it shall be, first pins, then each place. What is put on for the first time is no drift, and what an
    /// operator took off stays off.
    pub(crate) fn mend(&mut self, pins: &Pins) -> Result<Vec<Mended>, Error> {
        let mut found = Vec::new();
        let mut places = std::mem::take(&mut self.places);
        let mut on: Vec<&mut Place> = Vec::new();
        for place in &mut places {
            if pins.is_off(&place.interface) {
                *place = Place::new(&place.interface, place.hook);
                place.problem = Some("taken off by order; a restart of the daemon puts it on".to_owned());
            } else {
                on.push(place);
            }
        }
        let mended = if on.is_empty() { Ok(()) } else { self.mend_places(pins, on, &mut found) };
        self.places = places;
        mended.map(|()| found)
    }

    fn mend_places(&mut self, pins: &Pins, places: Vec<&mut Place>, found: &mut Vec<Mended>) -> Result<(), Error> {
        for (name, map) in &self.pinned {
            found.extend(mend_pin(pins, name, map.as_fd())?);
        }
        let mut hooks = Hooks::open(pins)?.ok_or(Error::Missing { name: TRANSIT_HOOKS })?;
        for place in places {
            let ifindex = sys::if_index(&place.interface);
            if place.on != ifindex {
                place.on = None;
            }
            let result = match ifindex {
                None => Err(Error::NoInterface { interface: place.interface.clone() }),
                Some(ifindex) => self.mend_place(pins, place, ifindex, &mut hooks),
            };
            let was_on = place.on.is_some();
            place.problem = result.as_ref().err().map(ToString::to_string);
            (place.on, place.program_id, place.egress) = match &result {
                Ok(on) => (ifindex, Some(on.program_id), on.egress),
                // Still to be told of, once.
                Err(_) => (place.on, None, None),
            };
            match result {
                Ok(on) if was_on => found.extend(on.found),
                Err(error) if was_on => {
                    let what = format!("{}: replies are not rewritten", direction(place.hook));
                    found.push((Drift::new(kind(place.hook), place.interface.as_str(), what), Err(error)));
                }
                _ => {}
            }
        }
        for ifindex in hooks.all()?.into_keys().filter(|ifindex| sys::if_name(*ifindex).is_none()) {
            hooks.put(ifindex, 0)?;
        }
        Ok(())
    }

    fn mend_place(&mut self, pins: &Pins, place: &mut Place, ifindex: u32, hooks: &mut Hooks) -> Result<On, Error> {
        let interface = place.interface.as_str();
        if !sys::is_ethernet(interface).map_err(Error::system("inspect", interface))? {
            return Err(Error::NotEthernet { interface: interface.to_owned() });
        }
        let bits = hooks.of(ifindex)?;
        let own_clsact = bits & OWN_CLSACT;
        let (mut on, clsact) = match place.hook {
            TransitHook::Ingress => {
                let (program_id, missing) = self.mend_slot(pins)?;
                let found = missing.map(|drift| (drift, Ok(()))).into_iter().collect();
                (On { program_id, egress: None, found }, own_clsact)
            }
            TransitHook::Egress => {
                let program = elf::classifier_of(&mut self.object, TRANSIT_EGRESS)?;
                let at = (interface, ifindex);
                let out = egress::mend(program, pins, at, &mut place.link, (self.tcx, own_clsact))?;
                let Out { program_id, by, clsact, found } = out;
                (On { program_id, egress: Some(by), found }, clsact)
            }
        };
        let wanted = bits & !OWN_CLSACT | place.hook.bit() | clsact;
        if wanted != bits {
            hooks.put(ifindex, wanted)?;
        }
        if bits & place.hook.bit() == 0 && on.found.is_empty() {
            let what = format!("{}: the entry of {interface} is gone", direction(place.hook));
            on.found.push((Drift::new(DriftKind::Settings, TRANSIT_HOOKS, what), Ok(())));
        }
        Ok(on)
    }

    fn mend_slot(&self, pins: &Pins) -> Result<(u32, Option<Drift>), Error> {
        let program = elf::loaded(&self.object, TRANSIT_INGRESS)?;
        let own = program.info().map_err(Error::system("inspect", TRANSIT_INGRESS))?.id();
        let slot = Slot::open(pins, TAIL_TRANSIT)?.ok_or(Error::Missing { name: TAILS })?;
        let there = slot.program()?;
        if there == Some(own) {
            return Ok((own, None));
        }
        slot.set(program.fd().map_err(Error::system("open", TRANSIT_INGRESS))?.as_fd())?;
        let what = format!("ingress: {}", there.map_or_else(|| "the slot is empty".to_owned(), instead_of_ours));
        Ok((own, Some(Drift::new(DriftKind::Program, TAILS, what))))
    }
}

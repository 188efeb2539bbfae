//! Puts the rewriting on where it is wanted, and on again where others took it off.

use std::os::fd::AsFd as _;

use aya::programs::tc::TcError;
use aya::programs::{TcAttachType, tc};
use xdp_balancer_common::object::{TAIL_TRANSIT, TAILS, TRANSIT_EGRESS, TRANSIT_HOOKS, TRANSIT_INGRESS};
use xdp_balancer_common::{OWN_CLSACT, TransitHook};

use super::pinned::{self, Hooks};
use super::{Transit, TransitPlace, direction, kind};
use crate::attach::{TRANSIT_PRIORITY, attach_classifier, name_and_tag};
use crate::audit::{Drift, DriftKind, Mended, mend_pin};
use crate::error::Error;
use crate::object as elf;
use crate::pins::Pins;
use crate::sys;
use crate::tails::Slot;

/// A place where replies shall be rewritten.
#[derive(Clone)]
pub(super) struct Place {
    pub interface: String,
    pub hook: TransitHook,
    /// Index of the interface on which this process has put it on. What is missing there was taken off by others.
    on: Option<u32>,
    program_id: Option<u32>,
    problem: Option<String>,
}

impl Place {
    pub(super) fn new(interface: &str, hook: TransitHook) -> Self {
        Self { interface: interface.to_owned(), hook, on: None, program_id: None, problem: None }
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
            (place.on, place.program_id) = match &result {
                Ok((id, _)) => (ifindex, Some(*id)),
                // Still to be told of, once.
                Err(_) => (place.on, None),
            };
            match result {
                Ok((_, Some(drift))) if was_on => found.push((drift, Ok(()))),
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

    /// The program's number, and what was missing.
    fn mend_place(
        &mut self,
        pins: &Pins,
        place: &Place,
        ifindex: u32,
        hooks: &mut Hooks,
    ) -> Result<(u32, Option<Drift>), Error> {
        let interface = place.interface.as_str();
        if !sys::is_ethernet(interface).map_err(Error::system("inspect", interface))? {
            return Err(Error::NotEthernet { interface: interface.to_owned() });
        }
        let bits = hooks.of(ifindex)?;
        let (id, clsact, missing) = match place.hook {
            TransitHook::Ingress => {
                let (id, missing) = self.mend_slot(pins)?;
                (id, bits & OWN_CLSACT, missing)
            }
            TransitHook::Egress => self.mend_filter(interface, ifindex, bits & OWN_CLSACT)?,
        };
        let wanted = bits & !OWN_CLSACT | place.hook.bit() | clsact;
        if wanted != bits {
            hooks.put(ifindex, wanted)?;
        }
        let unmarked = bits & place.hook.bit() == 0;
        let entry = || {
            let what = format!("{}: the entry of {interface} is gone", direction(place.hook));
            Drift::new(DriftKind::Settings, TRANSIT_HOOKS, what)
        };
        Ok((id, missing.or_else(|| unmarked.then(entry))))
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
        let what = format!("ingress: {}", instead(there, "the slot is empty"));
        Ok((own, Some(Drift::new(DriftKind::Program, TAILS, what))))
    }

    fn mend_filter(&mut self, interface: &str, ifindex: u32, clsact: u32) -> Result<(u32, u32, Option<Drift>), Error> {
        let program = elf::classifier_of(&mut self.object, TRANSIT_EGRESS)?;
        let own = program.info().map_err(Error::system("inspect", TRANSIT_EGRESS))?.id();
        let there = pinned::filter(ifindex, interface)?;
        if there == Some(own) {
            return Ok((own, clsact, None));
        }
        let added = match tc::qdisc_add_clsact(interface) {
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => false,
            result => result.map(|()| true).map_err(Error::system("add the clsact qdisc to", interface))?,
        };
        attach_classifier(program, interface, TcAttachType::Egress, TRANSIT_PRIORITY)
            .map_err(Error::system("attach the rewriting filter to", interface))?;
        let missing = if added { "the qdisc is gone, and the filter with it" } else { "the filter is gone" };
        let what = format!("egress: {}", instead(there, missing));
        // A qdisc without our filter may be another one by now, made by others.
        let clsact = if added { OWN_CLSACT } else { clsact & there.map_or(0, |_| OWN_CLSACT) };
        Ok((own, clsact, Some(Drift::new(DriftKind::Filter, interface, what))))
    }
}

fn instead(there: Option<u32>, missing: &str) -> String {
    there.map_or_else(
        || missing.to_owned(),
        |id| {
            let (name, tag) = name_and_tag(id);
            format!("runs program {id} ({name}, tag {tag:016x}) instead of ours")
        },
    )
}

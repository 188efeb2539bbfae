//! Where replies are rewritten: what is asked for, and what is.

#[cfg(feature = "testing")]
use aya::Ebpf;
use xdp_balancer_common::TransitHook;
use xdp_balancer_common::object::TRANSIT_HOOKS;
#[cfg(feature = "testing")]
use xdp_balancer_common::object::TRANSIT_INGRESS;

use super::mend::Place;
use super::pinned::{self, Hooks};
use super::{Transit, TransitPlace};
use crate::dataplane::Dataplane;
use crate::error::Error;

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

//! Carries out a plan: slots first, then words, then the table of names.

use xdp_balancer_common::Settings;

use crate::cells;
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::maps::{Maps, random};
use crate::plan::Installed;
use crate::table::Table;

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Generation now in force.
    pub generation: u64,
    /// Names in force.
    pub names: usize,
    /// RRsets whose answers changed.
    pub rrsets_changed: usize,
    /// True if the table of names was replaced.
    pub names_replaced: bool,
    /// True if it had to be waited for programs that still read what was given up.
    pub waited: bool,
    /// Answer slots in use.
    pub slots_used: u32,
    /// Answer slots there are.
    pub slots_capacity: u32,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Elements in use.
    pub used: u32,
    /// Elements there are.
    pub capacity: u32,
}

impl Dataplane {
    /// Makes the tables say exactly `table`. On an error nothing has changed in what is answered.
    ///
    /// Each RRset changes at once. If names, types or services change, all RRsets change together.
    pub fn publish(&mut self, table: &Table) -> Result<Published, Error> {
        let settings = self.maps.settings()?;
        if table.generation <= settings.generation {
            return Err(Error::StaleGeneration { current: settings.generation, offered: table.generation });
        }
        let wanted = table.check(self.maps.services.len())?;

        let (plan, waited) = match self.installed.plan(&wanted) {
            Err(Error::Full { .. }) if self.installed.has_retired() => {
                self.maps.grace()?;
                self.installed.settle();
                (self.installed.plan(&wanted)?, true)
            }
            other => (other?, false),
        };

        for (slot, answer) in &plan.slots {
            let written = self.maps.answers.set(*slot, answer, 0);
            written.map_err(Error::system("write", xdp_balancer_common::object::ANSWERS))?;
        }
        for (index, set) in &plan.sets {
            let written = self.maps.sets.set(*index, set, 0);
            written.map_err(Error::system("write", xdp_balancer_common::object::SETS))?;
        }
        for (index, unit) in &plan.units {
            let written = self.maps.units.set(*index, unit, 0);
            written.map_err(Error::system("write", xdp_balancer_common::object::ENTRIES))?;
        }
        let mut next = plan.next;
        let mut secret = settings.secret;
        let names = match &plan.table {
            Some(names) => {
                let hash = |index: usize, secret| names[index].entry.hash(secret);
                let targets: Vec<_> = names.iter().map(|name| (name.unit, name.set)).collect();
                let (found, buckets) = cells::keyed(&targets, secret, hash, random)?;
                secret = found;
                Some(Maps::build_names(&buckets)?)
            }
            None => None,
        };
        // From here on nothing fails that could leave a mixture: the words of a new table have ids
        // that no table in force leads to.
        for (id, word) in &plan.words {
            self.maps.rrsets.store(*id, word.0);
        }
        if let Some(names) = &names {
            self.maps.swap_names(names)?;
            // The swap has waited for all programs.
            next.settle();
        }
        self.installed = next;

        let mut changed =
            Settings { secret, epoch: settings.epoch, generation: wanted.generation, ..Settings::default() };
        changed.local_lens = [wanted.local4.len() as u32, wanted.local6.len() as u32];
        changed.local4[..wanted.local4.len()].copy_from_slice(&wanted.local4);
        changed.local6[..wanted.local6.len()].copy_from_slice(&wanted.local6);
        self.maps.set_settings(&changed)?;

        Ok(Published {
            generation: wanted.generation,
            names: self.installed.names.len(),
            rrsets_changed: plan.words.len(),
            names_replaced: names.is_some(),
            waited,
            slots_used: self.installed.slots.used(),
            slots_capacity: self.installed.slots.capacity(),
        })
    }

    /// Generation in force; zero before the first publication.
    pub fn generation(&self) -> Result<u64, Error> {
        Ok(self.maps.settings()?.generation)
    }

    /// How full the maps are.
    pub fn fill(&self) -> Result<Vec<Fill>, Error> {
        use xdp_balancer_common::object::{ANSWERS, ENTRIES, FLOWS, RRSETS, SERVICES, SETS};
        let services = self.installed.names.values().map(|name| name.service + 1).max().unwrap_or(0);
        let Installed { slots, ids, units, sets, .. } = &self.installed;
        Ok(vec![
            Fill { map: ANSWERS, used: slots.used(), capacity: slots.capacity() },
            Fill { map: ENTRIES, used: units.used(), capacity: units.capacity() },
            Fill { map: SETS, used: sets.used(), capacity: sets.capacity() },
            Fill { map: RRSETS, used: ids.used(), capacity: ids.capacity() },
            Fill { map: SERVICES, used: services, capacity: self.maps.services.len() },
            Fill { map: FLOWS, used: self.flows_used()?, capacity: self.maps.flows_capacity },
        ])
    }
}

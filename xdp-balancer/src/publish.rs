//! Carries out a plan: slots first, then words, then the table of names.

use std::collections::BTreeMap;

use xdp_balancer_common::{NameEntry, Settings};

use crate::dataplane::Dataplane;
use crate::error::{Error, Problem};
use crate::maps::{Maps, random};
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

/// Attempts to find a secret under which all names differ. Even with a million names a second one is
/// never needed; a fault in the hash must not make this loop for ever.
const SECRETS: usize = 8;

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
        let mut next = plan.next;
        let mut secret = settings.secret;
        let names = match &plan.table {
            Some(entries) => {
                let (found, entries) = keyed(entries, secret, NameEntry::hash, random)?;
                secret = found;
                Some(Maps::build_names(&entries)?)
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
        use xdp_balancer_common::object::{ANSWERS, FLOWS, RRSETS, SERVICES};
        let services = self.installed.names.values().map(|name| name.service + 1).max().unwrap_or(0);
        let (slots, ids) = (&self.installed.slots, &self.installed.ids);
        Ok(vec![
            Fill { map: ANSWERS, used: slots.used(), capacity: slots.capacity() },
            Fill { map: RRSETS, used: ids.used(), capacity: ids.capacity() },
            Fill { map: SERVICES, used: services, capacity: self.maps.services.len() },
            Fill { map: FLOWS, used: self.flows_used()?, capacity: self.maps.flows_capacity },
        ])
    }
}

/// Entries by hash, under the given secret or, if two names meet there, under another one. A changed
/// secret is in force a moment after its table; in between the names are unknown to the program, and
/// user space answers.
fn keyed(
    entries: &[NameEntry],
    secret: u64,
    hash: impl Fn(&NameEntry, u64) -> u64,
    mut another: impl FnMut() -> Result<u64, Error>,
) -> Result<(u64, BTreeMap<u64, NameEntry>), Error> {
    let mut secret = secret;
    for _ in 0..SECRETS {
        let keyed: BTreeMap<u64, NameEntry> = entries.iter().map(|entry| (hash(entry, secret), *entry)).collect();
        if keyed.len() == entries.len() {
            return Ok((secret, keyed));
        }
        secret = another()?;
    }
    Err(Error::Invalid { name: "the table".into(), problem: Problem::Hash })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use xdp_balancer_common::{TYPE_SLOTS, TypeSlot};

    use super::*;

    fn entries() -> Vec<NameEntry> {
        let names: [&[u8]; 3] = [b"\x01a\0", b"\x01b\0", b"\x01c\0"];
        names.iter().map(|wire| NameEntry::new(wire, 0, [TypeSlot::default(); TYPE_SLOTS]).unwrap()).collect()
    }

    #[test]
    fn names_that_meet_get_another_secret() {
        let meets = |entry: &NameEntry, secret| if secret == 7 { 1 } else { entry.hash(secret) };
        let (secret, keyed) = keyed(&entries(), 7, meets, || Ok(8)).unwrap();
        assert_eq!((secret, keyed.len()), (8, 3));
    }

    #[test]
    fn a_hash_that_does_not_tell_names_apart_is_an_error() {
        let error = keyed(&entries(), 7, |_, _| 1, || Ok(8)).unwrap_err();
        assert!(matches!(error, Error::Invalid { problem: Problem::Hash, .. }), "{error}");
    }
}

//! Carries out a plan: free grains first, then words, then the table of names.

use xdp_balancer_common::Settings;

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::maps::random;
use crate::plan::{Installed, Plan};
use crate::slots;
use crate::table::Table;

/// What a publication did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Generation now in force.
    pub generation: u64,
    /// Names in force.
    pub names: usize,
    /// RRsets whose answers changed in place.
    pub rrsets_changed: usize,
    /// True if the table of names was replaced.
    pub names_replaced: bool,
    /// True if it had to be waited for programs that still read what was given up.
    pub waited: bool,
}

impl Dataplane {
    /// Makes the tables say exactly `table`. On an error nothing has changed in what is answered.
    ///
    /// Each RRset changes at once. If names, types or services change, all RRsets change together.
    pub fn publish(&mut self, table: &Table) -> Result<Published, Error> {
        let settings = self.maps.settings();
        if table.generation <= settings.generation {
            return Err(Error::StaleGeneration { current: settings.generation, offered: table.generation });
        }
        let wanted = table.check(self.maps.services.len(), &mut self.rings)?;

        let (plan, waited) = match self.installed.plan(&wanted) {
            Err(Error::Full { .. }) if self.installed.has_retired() => {
                self.maps.grace()?;
                self.installed.settle();
                (self.installed.plan(&wanted)?, true)
            }
            other => (other?, false),
        };

        let (mut rrsets_changed, mut names_replaced) = (0, false);
        match plan {
            Plan::Renew(writes) => {
                self.maps.fill_pool(&writes);
                self.maps.store_words(&writes);
                rrsets_changed = writes.words.len();
            }
            Plan::Rebuild(writes, next) => {
                // Into grains that no table in force leads to.
                self.maps.fill_pool(&writes);
                self.put_names(*next)?;
                names_replaced = true;
            }
        }
        let Settings { epoch, .. } = settings;
        self.settings = Settings { epoch, generation: wanted.generation, ..wanted.settings };
        self.maps.set_settings(&self.settings);
        Ok(Published {
            generation: wanted.generation,
            names: self.installed.names.len(),
            rrsets_changed,
            names_replaced,
            waited,
        })
    }

    /// Writes the table of names for what is to be installed, and puts it in force. On an error the one before is.
    pub(crate) fn put_names(&mut self, mut next: Installed) -> Result<(), Error> {
        let names = next.placed();
        let secret = self.maps.table_head().map_or_else(random, |head| Ok(head.secret))?;
        let hash = |index: usize, secret| names[index].entry.hash(secret);
        let places = slots::find(names.len(), next.slot_shift, secret, hash, random)?;
        self.maps.build_table(next.table.0, &names, &places);
        let before = self.maps.table();
        self.maps.set_table(next.table.0);
        // Until no program reads the one before, its grains are not written.
        if let Err(error) = self.maps.grace() {
            self.maps.set_table(before);
            return Err(error);
        }
        next.settle();
        self.installed = next;
        Ok(())
    }

    /// Generation in force; zero before the first publication.
    pub fn generation(&self) -> Result<u64, Error> {
        Ok(self.maps.settings().generation)
    }

    /// The wall clock in seconds (modulo 2³², RFC 1982) that goes into server cookies; to be told once a second.
    pub fn set_time(&self, seconds: u32) {
        self.maps.set_clock(seconds.into());
    }
}

//! Counters of other layouts. They stay where they were counted and are added to ours: nothing is copied, so nothing is
//! lost or counted twice while one program takes the place of another, and counts go on over upgrades and downgrades.
//!
//! This works because two things are the same in every layout: `VERDICTS` and `SERVICES` are arrays per CPU by verdict
//! and by service whose values are words of 64 bits, and verdicts and words are only ever appended. That is so from
//! layout 5 on; what was counted before is given up.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::util::nr_cpus;
use xdp_balancer_common::{ServiceCount, object};

use crate::error::Error;
use crate::pins::{self, Pins};
use crate::sys;

/// The counters of one other layout.
pub(crate) struct Carried {
    verdicts: Words,
    services: Words,
}

/// Whether the counters of a layout mean what ours do.
pub(crate) fn is_countable(layout: &Path) -> bool {
    const SINCE: u32 = 5;
    pins::number_of(layout).is_some_and(|number| number >= SINCE)
}

/// An array per CPU of words.
struct Words {
    name: &'static str,
    map: OwnedFd,
    words: usize,
    entries: u32,
    cpus: usize,
}

impl Carried {
    /// Of all other layouts that left some.
    pub(crate) fn open(pins: &Pins) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        for layout in pins.others()?.into_iter().filter(|layout| is_countable(layout)) {
            if let (Some(verdicts), Some(services)) =
                (Words::open(&layout, object::VERDICTS)?, Words::open(&layout, object::SERVICES)?)
            {
                found.push(Self { verdicts, services });
            }
        }
        Ok(found)
    }

    /// Packets with a verdict.
    pub(crate) fn verdict(&self, index: u32) -> Result<u64, Error> {
        Ok(self.verdicts.sums(index)?.first().copied().unwrap_or(0))
    }

    /// Counts of a service.
    pub(crate) fn service(&self, index: u32) -> Result<ServiceCount, Error> {
        const WORDS: usize = size_of::<ServiceCount>() / size_of::<u64>();
        let mut words = [0_u64; WORDS];
        words.iter_mut().zip(self.services.sums(index)?).for_each(|(word, sum)| *word = sum);
        // SAFETY: words and nothing else, of which any are valid; the sizes are the same.
        Ok(unsafe { std::mem::transmute::<[u64; WORDS], ServiceCount>(words) })
    }
}

impl Words {
    fn open(layout: &Path, name: &'static str) -> Result<Option<Self>, Error> {
        let map = match sys::get(&layout.join(name)) {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::system("open the pinned map", name)(error)),
        };
        let [_, value, entries] = sys::map_size(map.as_fd()).map_err(Error::system("inspect the map", name))?;
        let cpus = nr_cpus().map_err(|(path, error)| Error::system("read", path)(error))?;
        Ok(Some(Self { name, map, words: (value as usize).div_ceil(size_of::<u64>()), entries, cpus }))
    }

    /// The words of an element, each summed over CPUs; none beyond the end.
    fn sums(&self, index: u32) -> Result<Vec<u64>, Error> {
        if index >= self.entries || self.words == 0 {
            return Ok(Vec::new());
        }
        let mut all = vec![0; self.words * self.cpus];
        sys::lookup_words(self.map.as_fd(), index, &mut all).map_err(Error::system("read", self.name))?;
        let mut sums = vec![0; self.words];
        for part in all.chunks_exact(self.words) {
            sums.iter_mut().zip(part).for_each(|(sum, word)| *sum += word);
        }
        Ok(sums)
    }
}

//! The program on the live tables, run for one frame at a time: beside what is attached, without the lock, and
//! without a trace. Counters, limits and the rings' positions are maps of this process alone, so nobody is over a limit here.

use std::net::IpAddr;
use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use xdp_balancer_common::{Verdict, object};

use crate::capture;
use crate::counters::changed;
use crate::dataplane::{RunAction, test_run};
use crate::error::Error;
use crate::maps::{open_pool, settings_in};
use crate::object as elf;
use crate::pins::Pins;
use crate::sys::Memory;

/// Maps that the program writes, and the programs that it goes on into.
const WRITTEN: [&str; 11] = [
    object::VERDICTS,
    object::SERVICES,
    object::COSTS,
    object::FLOWS,
    object::CURSORS,
    object::CONNECTIONS,
    object::BUCKETS,
    object::CEILINGS,
    object::TOP_CLIENTS,
    object::TOP_NAMES,
    object::TAILS,
];

/// Bytes of a ring in which nothing is told: a page.
const SMALL_RING: u32 = 4096;

/// The program, loaded once more onto the pinned tables: in the form that does not go on into another one.
pub struct Explainer {
    object: Ebpf,
    pool: Memory,
}

/// What the program makes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Why.
    pub verdict: Verdict,
    /// What the kernel is told.
    pub action: RunAction,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Generation of the tables.
    pub generation: u64,
}

impl Explained {
    /// `answered`, `passed`, `dropped`, or the number of another XDP action.
    #[must_use]
    pub fn action_label(&self) -> String {
        match self.action {
            RunAction::Answer => "answered".to_owned(),
            RunAction::Pass => "passed".to_owned(),
            RunAction::Drop => "dropped".to_owned(),
            RunAction::Other(number) => format!("XDP action {number}"),
        }
    }

    /// Whether the frame goes back out.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.action == RunAction::Answer
    }
}

impl Explainer {
    /// Opens the tables of this version's layout below `pin_dir`; nothing is made there, and nothing written.
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let pins = Pins::new(pin_dir);
        // The program that answers would go on into the one that captures, here and in the middle of a run.
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(object::CAPTURE_EVENTS, SMALL_RING);
        let read = |name| (!WRITTEN.contains(&name)).then(|| pins.map(name));
        let object = capture::load(&mut loader, read, &pins)?;
        Ok(Self { object, pool: open_pool(&pins)? })
    }

    /// Addresses that queries are answered for.
    #[must_use]
    pub fn local(&self) -> Vec<IpAddr> {
        let settings = settings_in(&self.pool);
        let used = |family: usize| settings.local_lens[family] as usize;
        let v4 = settings.local4.iter().take(used(0)).map(|address| IpAddr::from(address.to_ne_bytes()));
        let v6 = settings.local6.iter().take(used(1)).map(|words| {
            let mut bytes = [0; 16];
            for (part, word) in bytes.chunks_mut(8).zip(words) {
                part.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::from(bytes)
        });
        v4.chain(v6).collect()
    }

    /// Runs one frame (14 to about 3,500 bytes).
    pub fn run(&self, frame: &[u8]) -> Result<Explained, Error> {
        let before = self.counts()?;
        let result = test_run(elf::loaded(&self.object, object::CAPTURE)?, frame, 1)?;
        let verdict = changed(&before, &self.counts()?).unwrap_or(Verdict::Broken);
        let generation = settings_in(&self.pool).generation;
        Ok(Explained { verdict, action: result.action, frame: result.frame, generation })
    }

    fn counts(&self) -> Result<Vec<u64>, Error> {
        let map: PerCpuArray<&MapData, u64> = self.map(object::VERDICTS)?;
        let sum = |index| map.get(&index, 0).map(|parts| parts.iter().sum());
        (0..map.len()).map(sum).collect::<Result<_, _>>().map_err(Error::system("read", object::VERDICTS))
    }

    fn map<'a, T: TryFrom<&'a Map, Error = aya::maps::MapError>>(&'a self, name: &'static str) -> Result<T, Error> {
        let map = self.object.map(name).ok_or(Error::Missing { name })?;
        T::try_from(map).map_err(Error::system("open the map", name))
    }
}

//! Opening: create or adopt the maps, load this version's programs onto them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use xdp_balancer_common::{Guard, ListKey, Settings, object};

use crate::error::Error;
use crate::hook::Held;
use crate::log::KernelLog;
use crate::maps::{Maps, Sizes, open_pin, pin_word, pinned_word, random, shapes};
use crate::object as elf;
use crate::pins::Pins;
use crate::plan::Installed;
use crate::sys;
use crate::table::Rings;
use crate::transit::Transit;

/// How to open the dataplane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on a BPF file system; a subdirectory for the layout is made in it.
    pub pin_dir: PathBuf,
    /// Sizes of maps that do not exist yet.
    pub sizes: Sizes,
}

impl Default for Options {
    fn default() -> Self {
        Self { pin_dir: PathBuf::from("/sys/fs/bpf/selvedge"), sizes: Sizes::default() }
    }
}

/// The maps and programs of this machine. Dropping it changes nothing in the kernel: maps are pinned,
/// attached programs stay.
pub struct Dataplane {
    pub(crate) object: Ebpf,
    pub(crate) maps: Maps,
    pub(crate) pins: Pins,
    pub(crate) installed: Installed,
    /// As they shall be.
    pub(crate) settings: Settings,
    /// The rules' words and the lists, as they shall be; `None` before they were set.
    pub(crate) rules: Option<(Guard, BTreeMap<ListKey, u32>)>,
    /// Map pins, as they shall be.
    pub(crate) pinned: Vec<(&'static str, OwnedFd)>,
    /// Links, by interface: held, so that a lost pin takes no program off.
    pub(crate) held: BTreeMap<String, Held>,
    /// Interfaces whose packets are counted.
    pub(crate) counted: BTreeSet<u32>,
    pub(crate) rings: Rings,
    pub(crate) classifiers_loaded: bool,
    /// The programs that rewrite replies in transit, where they are on.
    pub(crate) transit: Option<Transit>,
    /// Whether these use links on the way out where the kernel has them; tests do without.
    pub(crate) tcx: bool,
    log: Option<KernelLog>,
    adopted: bool,
    /// One process at a time.
    _lock: sys::Lock,
}

/// What the program did with a frame that was run through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunResult {
    /// What the kernel was told.
    pub action: RunAction,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time that the kernel measured.
    pub duration_ns: u64,
}

/// An XDP action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunAction {
    /// Goes on into the stack.
    Pass,
    /// Goes back out.
    Answer,
    /// Ends here.
    Drop,
    /// Any other action; the program has none.
    Other(u32),
}

impl RunAction {
    pub(crate) fn of(action: u32) -> Self {
        match action {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Answer,
            other => Self::Other(other),
        }
    }
}

impl Dataplane {
    /// Adopts what is pinned, creates and pins what is missing, and loads the programs.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let pins = Pins::new(&options.pin_dir);
        let opened = pins.create().and_then(|()| Self::open_pins(options, pins.clone()));
        if opened.is_err() {
            pins.remove_empty();
        }
        opened
    }

    fn open_pins(options: &Options, pins: Pins) -> Result<Self, Error> {
        let base = pins.base().display().to_string();
        // One for all layouts: links go from one to another.
        let lock = sys::lock(pins.base())
            .map_err(Error::system("lock", base))?
            .ok_or_else(|| Error::Busy { path: pins.base().to_owned() })?;

        let mut loader = EbpfLoader::new();
        let shapes = shapes(&options.sizes);
        let mut found = Vec::new();
        for shape in &shapes {
            let entries = match shape.adopt(&pins)? {
                Some(entries) => {
                    found.push(shape.name);
                    entries
                }
                None => shape.entries,
            };
            loader.map_pin_path(shape.name, pins.map(shape.name)).map_max_entries(shape.name, entries);
        }
        loader.map_pin_path(object::LOGS, pins.map(object::LOGS));
        let adopted = found.len() == shapes.len();
        // What a later layout leaves of this one when it takes over.
        let only_counters = found == [object::VERDICTS, object::SERVICES];
        if !adopted && !found.is_empty() && !only_counters {
            log::warn!("only {} of {} pinned maps are there; the others are made anew", found.len(), shapes.len());
        }
        let mut object = elf::load(&mut loader)?;
        elf::xdp(&mut object, object::XDP)?;

        let mut maps = Maps::open(&pins)?;
        let mut settings = maps.settings();
        // A part that is new makes the whole a new one to those who compare counters.
        let goes_on = adopted || only_counters || (found.is_empty() && !maps.carried.is_empty());
        let epoch = pinned_word(&pins.epoch())?.filter(|epoch| goes_on && *epoch != 0);
        settings.epoch = match epoch.or(Some(settings.epoch).filter(|epoch| adopted && *epoch != 0)) {
            Some(epoch) => epoch,
            None => random()?,
        };
        if epoch.is_none() {
            pin_word(&pins.epoch(), settings.epoch)?;
        }
        maps.set_settings(&settings);
        if !adopted {
            maps.carry_log_level(&pins)?;
        }
        maps.write_bare_answers();
        // What the process before us gave up shortly before its end may still be read.
        maps.grace()?;
        let installed = maps.read_installed(options.sizes.grains())?;
        let log = KernelLog::take(&mut object);
        let rings = Rings::default();
        let names = shapes.iter().map(|shape| shape.name).chain([object::LOGS]);
        let pinned = names.map(|name| open_pin(&pins, name)).collect::<Result<_, _>>()?;
        let mut plane = Self {
            object,
            maps,
            pins,
            installed,
            settings,
            rules: None,
            pinned,
            held: BTreeMap::new(),
            counted: BTreeSet::new(),
            rings,
            classifiers_loaded: false,
            transit: None,
            tcx: true,
            log,
            adopted,
            _lock: lock,
        };
        plane.counted = plane.flows()?.into_iter().collect();
        Ok(plane)
    }

    /// True if all maps were there already.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The messages of the programs loaded by this process, once.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        self.log.take()
    }

    /// Runs one frame (14 to about 3,500 bytes) through the program on the live tables. It counts as
    /// if it had come from the wire.
    pub fn run(&self, frame: &[u8]) -> Result<RunResult, Error> {
        test_run(elf::loaded_xdp(&self.object)?, frame, 1)
    }
}

pub(crate) fn test_run(program: &Xdp, frame: &[u8], repeat: u32) -> Result<RunResult, Error> {
    let mut out = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), repeat, ..TestRunOptions::new() };
    let result = program.test_run(options).map_err(Error::system("run a frame through", object::XDP))?;
    out.truncate(result.data_size_out as usize);
    let action = RunAction::of(result.return_value);
    let duration_ns = u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX);
    Ok(RunResult { action, frame: out, duration_ns })
}

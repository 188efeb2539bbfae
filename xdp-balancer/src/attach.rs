//! Attaching by pinned links, and taking them off again.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::EbpfLoader;
use aya::programs::loaded_programs;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};
use xdp_balancer_common::object;

use crate::costs::Costs;
use crate::counters::Counters;
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::guard::Freshness;
use crate::maps::{Maps, Sizes, shapes};
use crate::netlink;
use crate::object as elf;
use crate::pins::{self, PinnedLink, Pins};
use crate::sys;
use crate::tails::Slot;
use crate::takeover;
use crate::transit::{self, PinnedTransit};

/// How an interface is to run the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver; where it cannot, in the network stack, with a warning; on a veth pair in the network stack, for
    /// what its driver sends back reaches the other end only if that runs a program too.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack, slower.
    Generic,
}

/// How an interface runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl AttachedMode {
    /// Short fixed name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Native => sys::XDP_FLAGS_DRV_MODE,
            Self::Generic => sys::XDP_FLAGS_SKB_MODE,
        }
    }
}

/// An interface that runs our program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// How it runs the program; `None` if the link is in another network namespace or the interface
    /// is just going.
    pub mode: Option<AttachedMode>,
    /// Kernel's id of the program.
    pub program_id: u32,
}

/// A link of ours.
pub(crate) struct Held {
    pub link: OwnedFd,
    /// As it was asked for.
    pub mode: Mode,
}

/// What is pinned, seen without loading anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Interfaces that run our program.
    pub attachments: Vec<Attachment>,
    /// Generation of the tables.
    pub generation: u64,
    /// Counters.
    pub counters: Counters,
    /// How old their last sign of life is.
    pub freshness: Freshness,
    /// What is looked at besides the tables: bits of [`Guard`](xdp_balancer_common::Guard).
    pub features: u64,
    /// What queries cost.
    pub costs: Costs,
    /// Replies in transit; `None` where they are not rewritten.
    pub transit: Option<PinnedTransit>,
    /// Kernel's id of the program that captures; `None` while nobody does.
    pub capture: Option<u32>,
}

impl Dataplane {
    /// Attaches to an interface. Where ours is attached already, this version's program takes the
    /// place of the one in the link; no packet goes without.
    pub fn attach(&mut self, interface: &str, mode: Mode) -> Result<Attachment, Error> {
        let no_interface = || Error::NoInterface { interface: interface.into() };
        let ifindex = sys::if_index(interface).ok_or_else(no_interface)?;
        let program = elf::loaded_xdp(&self.object)?.fd().map_err(Error::system("open", object::XDP))?;
        let pin = self.pins.link(interface);

        self.pins.forget_off(interface)?;

        let ours = self.pins.links()?;
        for link in ours.into_iter().chain(self.links_of_others()?) {
            if link.info.ifindex == ifindex {
                let attachment = attachment_of(&link).ok_or_else(no_interface)?;
                check_mode(&attachment, mode)?;
                let layout = link.path.ancestors().nth(2).filter(|layout| *layout != self.pins.root());
                let unpublished = layout.filter(|_| self.settings.generation == 0);
                if let Some(layout) = unpublished {
                    let layout = layout.display().to_string();
                    return Err(Error::Unpublished { interface: interface.into(), layout });
                }
                sys::link_update(link.link.as_fd(), program.as_fd())
                    .map_err(Error::system("replace the program on", interface))?;
                if link.path != pin {
                    // Renamed since, or of another layout; the pin follows.
                    pins::remove(&pin)?;
                    fs::rename(&link.path, &pin).map_err(Error::system("rename the pin of", interface))?;
                }
                let info =
                    sys::link_info(link.link.as_fd()).map_err(Error::system("inspect the link on", interface))?;
                if let Some(layout) = layout {
                    log::info!("{interface} was taken over from {}", layout.display());
                    takeover::retire(layout)?;
                }
                self.hold(interface, link.link, mode);
                return Ok(Attachment { interface: interface.into(), program_id: info.program_id, ..attachment });
            }
            if link.path == pin {
                // Of an interface that bore this name before: gone, or renamed and no longer wanted.
                pins::remove(&pin)?;
            }
        }

        let (link, attached) = create(program.as_fd(), interface, ifindex, mode)?;
        let pinned = sys::pin(link.as_fd(), &pin);
        pinned.map_err(Error::system("pin the link on", interface))?;
        let info = sys::link_info(link.as_fd()).map_err(Error::system("inspect the link on", interface))?;
        self.hold(interface, link, mode);
        Ok(Attachment { interface: interface.into(), ifindex, mode: Some(attached), program_id: info.program_id })
    }

    fn hold(&mut self, interface: &str, link: OwnedFd, mode: Mode) {
        self.held.insert(interface.to_owned(), Held { link, mode });
    }

    fn links_of_others(&self) -> Result<Vec<PinnedLink>, Error> {
        let mut found = Vec::new();
        for layout in self.pins.others()? {
            found.extend(pins::links_in(&layout.join("links"))?);
        }
        Ok(found)
    }

    /// Whether a program of another layout is attached somewhere, which ours takes the place of once there are tables.
    pub fn takes_over(&self) -> Result<bool, Error> {
        Ok(self.links_of_others()?.iter().any(|link| link.info.ifindex != 0))
    }

    /// Interfaces that run our program.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        Ok(self.pins.links()?.iter().filter_map(attachment_of).collect())
    }

    /// Counts an instance's packets at the host's end of its interface. May be repeated; this
    /// version's programs then take the place of those there. Without tcx, so that it works on
    /// Linux 6.1; the filters stay until the interface goes.
    pub fn count_flows(&mut self, interface: &str) -> Result<(), Error> {
        let ifindex = sys::if_index(interface).ok_or_else(|| Error::NoInterface { interface: interface.into() })?;
        if !self.classifiers_loaded {
            elf::classifier(&mut self.object, object::FLOW_TO)?;
            elf::classifier(&mut self.object, object::FLOW_FROM)?;
            self.classifiers_loaded = true;
        }
        self.make_flow(ifindex)?;
        match tc::qdisc_add_clsact(interface) {
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => result.map_err(Error::system("add the clsact qdisc to", interface))?,
        }
        for (name, direction) in [(object::FLOW_TO, TcAttachType::Egress), (object::FLOW_FROM, TcAttachType::Ingress)] {
            let program = elf::classifier_of(&mut self.object, name)?;
            attach_classifier(program, interface, direction, FILTER_PRIORITY)
                .map_err(Error::system("attach the counting filter to", interface))?;
        }
        Ok(())
    }
}

/// Place of our filters in an interface's list: fixed, so that they are found again.
const FILTER_PRIORITY: u16 = 0x5e1f;
/// The same of the filter that rewrites replies, which sees them first: an instance's may be counted behind it.
pub(crate) const TRANSIT_PRIORITY: u16 = 0x5e1e;
pub(crate) const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

pub(crate) fn attach_classifier(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
    priority: u16,
) -> Result<(), ProgramError> {
    let options = NlOptions { priority, handle: FILTER_HANDLE, classid: None };
    let attached = program.attach_with_options(interface, direction, TcAttachOptions::Netlink(options));
    let id = match attached {
        Err(ProgramError::TcError(TcError::NetlinkError(error))) if error.raw_os_error() == Some(libc::EEXIST) => {
            let link = SchedClassifierLink::attached(interface, direction, priority, FILTER_HANDLE, None)
                .map_err(TcError::IoError)?;
            program.attach_to_link(link)?
        }
        other => other?,
    };
    // Dropping the link would take the filter off.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

pub(crate) fn check_mode(attachment: &Attachment, mode: Mode) -> Result<(), Error> {
    let wanted = match mode {
        Mode::Auto => return Ok(()),
        Mode::Native => AttachedMode::Native,
        Mode::Generic => AttachedMode::Generic,
    };
    match attachment.mode {
        Some(found) if found != wanted => Err(Error::OtherMode {
            interface: attachment.interface.clone(),
            found: found.label(),
            wanted: wanted.label(),
        }),
        _ => Ok(()),
    }
}

pub(crate) fn create(
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    mode: Mode,
) -> Result<(OwnedFd, AttachedMode), Error> {
    let modes: &[AttachedMode] = match mode {
        Mode::Auto if netlink::is_veth(ifindex).map_err(Error::system("inspect", interface))? => {
            log::info!(
                "{interface} is one end of a veth pair and runs XDP in generic mode, which needs nothing of the other"
            );
            &[AttachedMode::Generic]
        }
        Mode::Auto => &[AttachedMode::Native, AttachedMode::Generic],
        Mode::Native => &[AttachedMode::Native],
        Mode::Generic => &[AttachedMode::Generic],
    };
    let mut refusal = None;
    for mode in modes {
        if let Some(error) = refusal.take() {
            log::warn!(
                "{interface} cannot run XDP in its driver ({error}); falling back to generic mode, which is slower"
            );
        }
        match sys::link_create(program, ifindex, mode.flags()) {
            Ok(link) => return Ok((link, *mode)),
            Err(error) => {
                // Whatever the number, a program that is there already is the reason to tell.
                if let Some(foreign) = foreign(interface, ifindex)? {
                    return Err(foreign);
                }
                if error.raw_os_error() == Some(libc::EPERM) {
                    return Err(Error::system("attach to", interface)(error));
                }
                refusal = Some(error);
            }
        }
    }
    let error = refusal.unwrap_or_else(|| std::io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    Err(Error::system("attach to", interface)(error))
}

/// Instructions that the kernel's verifier walked when it took a program; `None` where the program is gone or may not be
/// looked at. Looks through all programs of the machine.
#[must_use]
pub fn verified_instructions(program_id: u32) -> Option<u32> {
    loaded_programs().filter_map(Result::ok).find(|info| info.id() == program_id)?.verified_instruction_count()
}

/// The program that an interface runs, as an error. Only asked where no link of ours is on it.
fn foreign(interface: &str, ifindex: u32) -> Result<Option<Error>, Error> {
    let running = netlink::running(ifindex).map_err(Error::system("inspect", interface))?;
    let Some(running) = running else { return Ok(None) };
    let (name, tag) = name_and_tag(running.program_id);
    Ok(Some(Error::Foreign { interface: interface.into(), id: running.program_id, name, tag }))
}

/// A program's name and the hash of its instructions; nothing and 0 where it is gone.
pub(crate) fn name_and_tag(program_id: u32) -> (String, u64) {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program_id);
    let name = info.as_ref().and_then(|info| info.name_as_str()).unwrap_or_default().to_owned();
    // The kernel's tag is eight bytes in their order, not a number.
    (name, info.map_or(0, |info| u64::from_be_bytes(info.tag().to_ne_bytes())))
}

/// In words: another program is where ours should be.
pub(crate) fn instead_of_ours(program_id: u32) -> String {
    let (name, tag) = name_and_tag(program_id);
    format!("runs program {program_id} ({name}, tag {tag:016x}) instead of ours")
}

/// What a link is attached to; `None` if its interface is gone.
pub(crate) fn attachment_of(link: &PinnedLink) -> Option<Attachment> {
    let ifindex = link.info.ifindex;
    if ifindex == 0 {
        return None;
    }
    let running = netlink::running(ifindex).ok().flatten();
    let mode = running.filter(|running| running.program_id == link.info.program_id).map(|running| running.mode);
    // The index means something only in the interface's own network namespace, where its program is seen to run.
    let current = mode.and_then(|_| sys::if_name(ifindex));
    let interface = current.unwrap_or_else(|| pins::interface_of(&link.path));
    Some(Attachment { interface, ifindex, mode, program_id: link.info.program_id })
}

/// Takes our programs off one interface, or off all, those that rewrite replies too. Needs no daemon and works while one runs, which then leaves it off.
/// Returns the interfaces that it was taken off. The maps stay.
pub fn detach(pin_dir: &Path, interface: Option<&str>) -> Result<Vec<String>, Error> {
    let mut detached = Vec::new();
    for layout in pins::layouts(pin_dir)? {
        detached.extend(transit::take_off(&layout, interface)?);
        for link in pins::links_in(&layout.join("links"))? {
            let attachment = attachment_of(&link);
            let name = attachment.as_ref().map_or_else(|| pins::interface_of(&link.path), |it| it.interface.clone());
            if interface.is_some_and(|wanted| wanted != name) {
                continue;
            }
            // A pin alone does not hold the program if the daemon has the link open.
            if attachment.is_some() {
                // First, so that nobody takes it for the work of others.
                let mark = pins::off_mark(pin_dir, &name);
                fs::create_dir_all(&mark).map_err(Error::system("create the directory", mark.display().to_string()))?;
                sys::link_detach(link.link.as_fd()).map_err(Error::system("detach from", name.as_str()))?;
                detached.push(name);
            }
            pins::remove(&link.path)?;
        }
    }
    detached.sort();
    detached.dedup();
    Ok(detached)
}

/// Takes our program off all interfaces and removes all pins, so that the tables go too once no
/// process has them open. Returns the interfaces that it was taken off.
pub fn remove_all(pin_dir: &Path) -> Result<Vec<String>, Error> {
    let detached = detach(pin_dir, None)?;
    for layout in pins::layouts(pin_dir)? {
        let directories = [layout.join("links"), Pins::at(&layout).egress_dir(), layout];
        for directory in &directories {
            for path in pins::entries(directory)?.iter().filter(|path| !path.is_dir()) {
                pins::remove(path)?;
            }
        }
        for directory in &directories {
            pins::remove_dir(directory)?;
        }
    }
    let pins = Pins::new(pin_dir);
    for word in [pins.epoch(), pins.log()] {
        pins::remove(&word)?;
    }
    for mark in pins::entries(&pins::off_dir(pin_dir))? {
        pins::remove_dir(&mark)?;
    }
    pins::remove_dir(&pins::off_dir(pin_dir))?;
    pins::remove_dir(pin_dir)?;
    Ok(detached)
}

/// What is pinned, without loading or changing anything; `None` where no maps of this layout are.
pub fn show(pin_dir: &Path) -> Result<Option<Pinned>, Error> {
    let pins = Pins::new(pin_dir);
    let Some(maps) = Maps::found(&pins)? else { return Ok(None) };
    Ok(Some(Pinned {
        attachments: pins.links()?.iter().filter_map(attachment_of).collect(),
        generation: maps.settings().generation,
        counters: maps.counters(u32::MAX)?,
        freshness: maps.freshness(),
        features: maps.guard().features,
        costs: maps.costs()?,
        transit: transit::show(pin_dir)?,
        capture: Slot::open(&pins, object::TAIL_CAPTURE)?.map_or(Ok(None), |slot| slot.program())?,
    }))
}

/// Lets an interface run the program that passes everything, in its driver. For the far ends of lab
/// links: a veth hands out what its peer sends back (`XDP_TX`) only if it runs a program itself.
/// Attached without a link, so it stays when the process ends and goes with the interface.
pub fn attach_pass(interface: &str) -> Result<(), Error> {
    let ifindex = sys::if_index(interface).ok_or_else(|| Error::NoInterface { interface: interface.into() })?;
    let mut loader = EbpfLoader::new();
    // The maps of the object come along; as small as they can be, they are freed at once.
    for shape in &shapes(&Sizes { pool_bytes: 0, cursors: 1, services: 1, flows: 1, connections: 1, lists: 1, top: 1 })
    {
        loader.map_max_entries(shape.name, shape.entries);
    }
    let mut object = elf::load(&mut loader)?;
    let program = elf::xdp(&mut object, object::PASS)?.fd().map_err(Error::system("open", object::PASS))?;
    let flags = sys::XDP_FLAGS_DRV_MODE | sys::XDP_FLAGS_UPDATE_IF_NOEXIST;
    match netlink::set(ifindex, program.as_fd(), flags) {
        Ok(()) => Ok(()),
        Err(error) => Err(foreign(interface, ifindex)?.unwrap_or_else(|| Error::system("attach to", interface)(error))),
    }
}

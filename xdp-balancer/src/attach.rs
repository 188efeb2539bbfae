//! Attaching by pinned links, and taking them off again.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use aya::EbpfLoader;
use aya::programs::TcAttachType;
use xdp_balancer_common::object;

use crate::costs::Costs;
use crate::counters::Counters;
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::guard::Freshness;
use crate::hook::{
    Attachment, FILTER_PRIORITY, Held, add_clsact, attach_classifier, attachment_of, check_mode, create, foreign,
};
use crate::maps::{Maps, Sizes, shapes};
use crate::mode::Mode;
use crate::netlink;
use crate::object as elf;
use crate::pins::{self, PinnedLink, Pins};
use crate::sys;
use crate::tails::Slot;
use crate::takeover;
use crate::transit::{self, PinnedTransit};

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
        add_clsact(interface)?;
        for (name, direction) in [(object::FLOW_TO, TcAttachType::Egress), (object::FLOW_FROM, TcAttachType::Ingress)] {
            let program = elf::classifier_of(&mut self.object, name)?;
            attach_classifier(program, interface, direction, FILTER_PRIORITY)
                .map_err(Error::system("attach the counting filter to", interface))?;
        }
        Ok(())
    }
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

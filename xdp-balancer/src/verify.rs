//! Looks at what is pinned without changing anything and beside a daemon: what differs from a table that is wanted.
//! And attaching from the pins alone, for the hour in which there is no daemon.

use std::os::fd::AsFd as _;
use std::path::Path;

use aya::EbpfLoader;
use xdp_balancer_common::{Settings, object};

use crate::audit::{differences, settings_words};
use crate::drift::{Drift, DriftKind, missing_pins};
use crate::error::Error;
use crate::hook::{Attachment, attachment_of, check_mode, create, name_and_tag};
use crate::maps::{Maps, Sizes, pinned_word, shapes};
use crate::mode::Mode;
use crate::netlink;
use crate::object as elf;
use crate::pins::Pins;
use crate::sys;
use crate::table::{Rings, Table};

/// Compares the pinned tables with a wanted one, and the links with the interfaces that shall run this version's
/// program. Nothing is changed. What an operator took off is told as any other difference.
pub fn verify(pin_dir: &Path, table: &Table, interfaces: &[String]) -> Result<Vec<Drift>, Error> {
    let pins = Pins::new(pin_dir);
    let sizes = Sizes::default();
    let shapes = shapes(&sizes);
    let mut found = missing_pins(&pins, &shapes.each_ref().map(|shape| shape.name));
    if !found.is_empty() {
        return Ok(found);
    }
    for shape in &shapes {
        shape.adopt(&pins)?;
    }
    let maps = Maps::open(&pins)?;
    let settings = maps.settings();
    let wanted = table.check(maps.services.len(), &mut Rings::default())?;
    let epoch = pinned_word(&pins.epoch())?.unwrap_or(settings.epoch);
    let expected = Settings { epoch, generation: wanted.generation, ..wanted.settings };
    if settings != expected {
        found.push(Drift::new(DriftKind::Settings, object::POOL, settings_words(&settings, &expected)));
    }
    match maps.read_installed(sizes.grains()) {
        Ok(read) => found.extend(differences(&read, &wanted)),
        Err(Error::Damaged { map, index, what }) => {
            found.push(Drift::new(DriftKind::Table, format!("{map}[{index}]"), what));
        }
        Err(error) => return Err(error),
    }
    let (own, links) = (own_tag(pin_dir)?, pins.links()?);
    for interface in interfaces {
        found.extend(interface_drift(&pins, interface, &links, own));
    }
    Ok(found)
}

fn interface_drift(pins: &Pins, interface: &str, links: &[crate::pins::PinnedLink], own: u64) -> Option<Drift> {
    let drift = |kind, what: String| Some(Drift::new(kind, interface, what));
    let Some(ifindex) = sys::if_index(interface) else {
        return drift(DriftKind::Link, "there is no such interface".to_owned());
    };
    if let Some(link) = links.iter().find(|link| link.info.ifindex == ifindex) {
        let (name, tag) = name_and_tag(link.info.program_id);
        let what = format!("runs program {} ({name}, tag {tag:016x}), not this version's", link.info.program_id);
        return (tag != own).then(|| Drift::new(DriftKind::Program, interface, what));
    }
    if pins.is_off(interface) {
        return drift(DriftKind::Link, "taken off by order".to_owned());
    }
    match netlink::running(ifindex) {
        Ok(Some(running)) => {
            let (name, tag) = name_and_tag(running.program_id);
            let what = format!("no link of ours; it runs program {} ({name}, tag {tag:016x})", running.program_id);
            drift(DriftKind::Link, what)
        }
        _ => drift(DriftKind::Link, "no program is attached".to_owned()),
    }
}

/// The tag of this version's program, which the kernel computes.
fn own_tag(pin_dir: &Path) -> Result<u64, Error> {
    let mut object = load(pin_dir)?;
    let info = elf::xdp(&mut object, object::XDP)?.info().map_err(Error::system("inspect", object::XDP))?;
    Ok(u64::from_be_bytes(info.tag().to_ne_bytes()))
}

/// This version's object onto the pinned maps, which must all be there.
fn load(pin_dir: &Path) -> Result<aya::Ebpf, Error> {
    let pins = Pins::new(pin_dir);
    let mut loader = EbpfLoader::new();
    for shape in &shapes(&Sizes::default()) {
        let missing = || {
            let nothing = std::io::Error::from_raw_os_error(libc::ENOENT);
            Error::system("open the pinned map", shape.name)(nothing)
        };
        let entries = shape.adopt(&pins)?.ok_or_else(missing)?;
        loader.map_max_entries(shape.name, entries).map_pin_path(shape.name, pins.map(shape.name));
    }
    loader.map_pin_path(object::LOGS, pins.map(object::LOGS));
    elf::load(&mut loader)
}

/// Whether all maps of this layout are pinned.
pub fn has_tables(pin_dir: &Path) -> Result<bool, Error> {
    let pins = Pins::new(pin_dir);
    for shape in &shapes(&Sizes::default()) {
        if shape.adopt(&pins)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Attaches this version's program, onto the pinned tables as they are: without the lock, so that it works whatever has
/// become of a daemon, which takes the link over when it is well. An order to stay off ends with it.
pub fn attach(pin_dir: &Path, interface: &str, mode: Mode) -> Result<Attachment, Error> {
    let ifindex = sys::if_index(interface).ok_or_else(|| Error::NoInterface { interface: interface.into() })?;
    let pins = Pins::new(pin_dir);
    let mut object = load(pin_dir)?;
    let program = elf::xdp(&mut object, object::XDP)?.fd().map_err(Error::system("open", object::XDP))?;
    let inspect = || Error::system("inspect the link on", interface);
    let ours = pins.links()?.into_iter().find(|link| link.info.ifindex == ifindex);
    let link = match ours {
        Some(link) => {
            if let Some(attachment) = attachment_of(&link) {
                check_mode(&attachment, mode)?;
            }
            sys::link_update(link.link.as_fd(), program.as_fd())
                .map_err(Error::system("replace the program on", interface))?;
            link.link
        }
        None => {
            let (link, _) = create(program.as_fd(), interface, ifindex, mode)?;
            crate::pins::remove(&pins.link(interface))?;
            sys::pin(link.as_fd(), &pins.link(interface)).map_err(Error::system("pin the link on", interface))?;
            link
        }
    };
    pins.forget_off(interface)?;
    let info = sys::link_info(link.as_fd()).map_err(inspect())?;
    let running = netlink::running(ifindex).map_err(inspect())?;
    let mode = running.filter(|running| running.program_id == info.program_id).map(|running| running.mode);
    Ok(Attachment { interface: interface.into(), ifindex, mode, program_id: info.program_id })
}

/// Number of the program that an interface runs, whoever's it is; a few system calls.
pub fn program_on(interface: &str) -> Result<Option<u32>, Error> {
    let ifindex = sys::if_index(interface).ok_or_else(|| Error::NoInterface { interface: interface.into() })?;
    let running = netlink::running(ifindex).map_err(Error::system("inspect", interface))?;
    Ok(running.map(|running| running.program_id))
}

/// Number, name and tag of the program that an interface runs, whoever's it is.
pub fn running(interface: &str) -> Result<Option<(u32, String, u64)>, Error> {
    Ok(program_on(interface)?.map(|id| {
        let (name, tag) = name_and_tag(id);
        (id, name, tag)
    }))
}

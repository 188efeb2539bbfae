//! The way out. Where the kernel has tcx (since Linux 6.6) the program is attached by a link, which no queue notices;
//! else it is a filter of a `clsact` qdisc, for whose making and removing the kernel stops the interface's queues.
//!
//! A filter that a daemon without tcx left goes once the link is on: between the two a reply is rewritten twice, and is
//! right each time. Its qdisc stays until the rewriting ends there, for taking it away costs packets.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::links::Link as _;
use aya::programs::tc::SchedClassifierLink;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use xdp_balancer_common::OWN_CLSACT;
use xdp_balancer_common::object::TRANSIT_EGRESS;

use crate::drift::{Drift, DriftKind, Mended, mend_pin_at, pin_again};
use crate::error::Error;
use crate::hook::{FILTER_HANDLE, TRANSIT_PRIORITY, add_clsact, attach_classifier, instead_of_ours, name_and_tag};
use crate::netlink::{self, List};
use crate::pins::{self, PinnedLink, Pins};
use crate::sys::{self, Classifier};

/// By what the program is attached on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressBy {
    /// A link of its own.
    Tcx,
    /// A filter of a `clsact` qdisc.
    Clsact,
}

impl EgressBy {
    /// Short fixed name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What was found and done on one interface.
pub(super) struct Out {
    /// Number of our program.
    pub program_id: u32,
    /// By what it is attached.
    pub by: EgressBy,
    /// [`OWN_CLSACT`], if the qdisc is ours.
    pub clsact: u32,
    /// What was not as it shall be.
    pub found: Vec<Mended>,
}

/// Has the program rewrite what goes out of an interface; `link` is what this process holds of it.
pub(super) fn mend(
    program: &mut SchedClassifier,
    pins: &Pins,
    (interface, ifindex): (&str, u32),
    link: &mut Option<OwnedFd>,
    (tcx, clsact): (bool, u32),
) -> Result<Out, Error> {
    let there = sys::tcx_programs(ifindex).map_err(Error::system("read the programs on the way out of", interface))?;
    match there.filter(|_| tcx) {
        Some(there) => mend_link(program, pins, (interface, ifindex), link, (&there, clsact)),
        None => mend_filter(program, (interface, ifindex), clsact),
    }
}

fn mend_link(
    program: &SchedClassifier,
    pins: &Pins,
    (interface, ifindex): (&str, u32),
    held: &mut Option<OwnedFd>,
    (there, mut clsact): (&[Classifier], u32),
) -> Result<Out, Error> {
    let own = program.info().map_err(Error::system("inspect", TRANSIT_EGRESS))?.id();
    let code = program.fd().map_err(Error::system("open", TRANSIT_EGRESS))?.as_fd();
    let inspect = || Error::system("inspect the link on the way out of", interface);
    let (directory, pin) = (pins.egress_dir(), pins.egress(interface));
    fs::create_dir_all(&directory).map_err(Error::system("create the directory", directory.display().to_string()))?;
    let drift = |what: String| Drift::new(DriftKind::Filter, interface, format!("egress: {what}"));
    let mut found = Vec::new();

    let on = held.take().map(|link| sys::link_info(link.as_fd()).map(|info| (link, info))).transpose();
    let link = match on.map_err(inspect())?.filter(|(_, info)| info.ifindex == ifindex) {
        Some((link, _)) => link,
        None => match pinned_link(pins, ifindex)? {
            Some(PinnedLink { path, link, .. }) => {
                if path != pin {
                    // Of another layout, or the interface was renamed; the pin follows.
                    pins::remove(&pin)?;
                    fs::rename(&path, &pin).map_err(Error::system("rename the pin of", interface))?;
                }
                link
            }
            None => {
                let link = sys::tcx_create(code, ifindex);
                let link = link.map_err(Error::system("attach the rewriting program to the way out of", interface))?;
                pin_again(&pin, link.as_fd())?;
                found.push((drift("the link is detached".to_owned()), Ok(())));
                link
            }
        },
    };
    let runs = sys::link_info(link.as_fd()).map_err(inspect())?.program_id;
    if runs != own {
        sys::link_update(link.as_fd(), code).map_err(Error::system("replace the program on", interface))?;
        found.push((drift(instead_of_ours(runs)), Ok(())));
    }
    found.extend(mend_pin_at(pins, &pin, format!("egress/{interface}"), link.as_fd())?);
    let link_id = sys::object_id(link.as_fd()).map_err(inspect())?;
    let behind = there.iter().position(|known| known.link_id == link_id).unwrap_or(0);
    if let Some(first) = there.first().filter(|_| behind > 0) {
        let (name, tag) = name_and_tag(first.program_id);
        let error = Error::InFront { interface: interface.into(), id: first.program_id, name, tag };
        found.push((drift("ours is not the first program, and may not see all replies".to_owned()), Err(error)));
    }
    *held = Some(link);
    if filter(ifindex, interface)?.is_some() {
        // Without the qdisc, whose removal costs packets.
        take_filter_off(ifindex, false)?;
    } else if clsact != 0 && !netlink::has_clsact(ifindex).map_err(Error::system("inspect the qdisc of", interface))? {
        // One that comes now is not ours.
        clsact = 0;
    }
    Ok(Out { program_id: own, by: EgressBy::Tcx, clsact, found })
}

fn mend_filter(program: &mut SchedClassifier, (interface, ifindex): (&str, u32), clsact: u32) -> Result<Out, Error> {
    let own = program.info().map_err(Error::system("inspect", TRANSIT_EGRESS))?.id();
    let there = filter(ifindex, interface)?;
    let out = |clsact, found| Out { program_id: own, by: EgressBy::Clsact, clsact, found };
    if there == Some(own) {
        return Ok(out(clsact, Vec::new()));
    }
    let added = add_clsact(interface)?;
    attach_classifier(program, interface, TcAttachType::Egress, TRANSIT_PRIORITY)
        .map_err(Error::system("attach the rewriting filter to", interface))?;
    let missing = if added { "the qdisc is gone, and the filter with it" } else { "the filter is gone" };
    let what = format!("egress: {}", there.map_or_else(|| missing.to_owned(), instead_of_ours));
    // A qdisc without our filter may be another one by now, made by others.
    let clsact = if added { OWN_CLSACT } else { clsact & there.map_or(0, |_| OWN_CLSACT) };
    Ok(out(clsact, vec![(Drift::new(DriftKind::Filter, interface, what), Ok(()))]))
}

/// The pinned link on the way out of an interface, of this layout or else of another one.
fn pinned_link(pins: &Pins, ifindex: u32) -> Result<Option<PinnedLink>, Error> {
    let others = pins.others()?;
    for directory in [pins.egress_dir()].into_iter().chain(others.iter().map(|layout| Pins::at(layout).egress_dir())) {
        let found = pins::links_in(&directory)?.into_iter().find(|link| link.info.ifindex == ifindex);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Interfaces with a pinned link on their way out, in one layout.
pub(super) fn linked(pins: &Pins) -> Result<BTreeSet<u32>, Error> {
    let links = pins::links_in(&pins.egress_dir())?;
    Ok(links.iter().map(|link| link.info.ifindex).filter(|ifindex| *ifindex != 0).collect())
}

/// Number of the program on an interface's way out, and by what it is attached; `None` where none of ours is.
pub(super) fn find(pins: &Pins, ifindex: u32, interface: &str) -> Result<Option<(u32, EgressBy)>, Error> {
    let links = pins::links_in(&pins.egress_dir())?;
    if let Some(link) = links.iter().find(|link| link.info.ifindex == ifindex) {
        return Ok(Some((link.info.program_id, EgressBy::Tcx)));
    }
    Ok(filter(ifindex, interface)?.map(|program_id| (program_id, EgressBy::Clsact)))
}

/// Detaches the links of one layout but for those on these interfaces, whoever holds them.
pub(super) fn take_links_off(pins: &Pins, stays: impl Fn(u32) -> bool) -> Result<(), Error> {
    let directory = pins.egress_dir();
    for link in pins::links_in(&directory)?.into_iter().filter(|link| !stays(link.info.ifindex)) {
        // 0: the interface is gone, or it was detached already.
        if link.info.ifindex != 0 {
            let name = pins::interface_of(&link.path);
            sys::link_detach(link.link.as_fd()).map_err(Error::system("detach from the way out of", name))?;
        }
        pins::remove(&link.path)?;
    }
    pins::remove_dir(&directory)
}

/// Number of the program in our filter on an interface's way out; `None` where there is no filter.
fn filter(ifindex: u32, interface: &str) -> Result<Option<u32>, Error> {
    let filters = netlink::filters(ifindex, List::Egress).map_err(Error::system("read the filters of", interface))?;
    Ok(filters.iter().find(|f| f.priority == TRANSIT_PRIORITY && f.handle == 1).map(|f| f.program_id))
}

/// Takes our filter off an interface, and with it the qdisc where it is our own and nobody else uses it. Where there is
/// none, or no interface any more, nothing happens.
pub(super) fn take_filter_off(ifindex: u32, own_clsact: bool) -> Result<(), Error> {
    let Some(interface) = sys::if_name(ifindex) else { return Ok(()) };
    let link = SchedClassifierLink::attached(&interface, TcAttachType::Egress, TRANSIT_PRIORITY, FILTER_HANDLE, None)
        .map_err(Error::system("find the filter on", interface.as_str()))?;
    match link.detach() {
        // No such filter, no qdisc for it, no interface.
        Err(ProgramError::NetlinkError(error))
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => {}
        other => other.map_err(Error::system("take the filter off", interface.as_str()))?,
    }
    if own_clsact {
        let failed = || Error::system("remove the clsact qdisc from", interface.as_str());
        let mut used = false;
        for list in [List::Ingress, List::Egress] {
            used |= !netlink::filters(ifindex, list).map_err(failed())?.is_empty();
        }
        if !used {
            netlink::remove_clsact(ifindex).map_err(failed())?;
        }
    }
    Ok(())
}

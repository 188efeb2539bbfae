//! One interface's places for programs: links made there, filters, and what runs there already.

use std::os::fd::{BorrowedFd, OwnedFd};

use aya::programs::loaded_programs;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, tc};

use crate::error::Error;
use crate::mode::{AttachedMode, Mode};
use crate::netlink;
use crate::pins::{self, PinnedLink};
use crate::sys;

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

/// Place of our filters in an interface's list: fixed, so that they are found again.
pub(crate) const FILTER_PRIORITY: u16 = 0x5e1f;
/// The same of the filter that rewrites replies, which sees them first: an instance's may be counted behind it.
pub(crate) const TRANSIT_PRIORITY: u16 = 0x5e1e;
pub(crate) const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Gives an interface a `clsact` qdisc; `false` where it has one.
pub(crate) fn add_clsact(interface: &str) -> Result<bool, Error> {
    match tc::qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        result => result.map(|()| true).map_err(Error::system("add the clsact qdisc to", interface)),
    }
}

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
pub(crate) fn foreign(interface: &str, ifindex: u32) -> Result<Option<Error>, Error> {
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

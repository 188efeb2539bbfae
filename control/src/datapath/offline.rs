//! The program in the kernel without a daemon: from its pins alone.

use std::path::Path;

use serde::Serialize;

use super::{DatapathError, InterfaceStatus};

/// What the pins tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Where the program is attached.
    pub interfaces: Vec<FoundInterface>,
}

/// An interface that runs the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundInterface {
    /// How it runs it.
    #[serde(flatten)]
    pub status: InterfaceStatus,
    /// Instructions that the kernel's verifier walked before it took the program.
    pub verified_instructions: Option<u32>,
}

/// Reads the pins.
///
/// # Errors
/// [`DatapathError`] where they cannot be read.
pub fn show(pin_dir: &Path) -> Result<Found, DatapathError> {
    let attachments = xdp_balancer::show(pin_dir)?;
    let interfaces = attachments.iter().flat_map(|pinned| &pinned.attachments).map(|attachment| FoundInterface {
        status: super::plain(attachment),
        verified_instructions: xdp_balancer::verified_instructions(attachment.program_id),
    });
    Ok(Found { interfaces: interfaces.collect() })
}

/// Takes the program off one interface or all, and with `tables` forgets tables and counters too; the names
/// of the interfaces it was taken off.
///
/// # Errors
/// [`DatapathError`] where a link cannot be detached.
pub fn detach(pin_dir: &Path, interface: Option<&str>, tables: bool) -> Result<Vec<String>, DatapathError> {
    let detached = xdp_balancer::detach(pin_dir, interface)?;
    if tables {
        xdp_balancer::remove_all(pin_dir)?;
    }
    Ok(detached)
}

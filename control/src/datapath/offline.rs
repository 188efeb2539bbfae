//! The program in the kernel without a daemon: from its pins alone.

use std::path::Path;

use serde::Serialize;

use super::{DatapathError, InterfaceStatus};

/// What the pins tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceStatus>,
}

/// Reads the pins.
///
/// # Errors
/// [`DatapathError`] where they cannot be read.
pub fn show(pin_dir: &Path) -> Result<Found, DatapathError> {
    let attachments = xdp_balancer::show(pin_dir)?;
    Ok(Found { interfaces: attachments.iter().flat_map(|pinned| &pinned.attachments).map(super::plain).collect() })
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

//! The program in the kernel without a daemon: from its pins alone.

use std::path::Path;

use serde::Serialize;

use super::{DatapathError, InterfaceStatus, Terms, mode_of, table};
use crate::config::{self, AttachMode};
use crate::dns::Index;
use crate::model::Snapshot;

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

/// What differs between the pinned tables and links and what they shall be, one line each. Changes nothing.
///
/// # Errors
/// [`DatapathError`] where they cannot be read.
pub fn verify(
    settings: &config::Dataplane,
    snapshot: &Snapshot,
    index: &Index,
    terms: &Terms,
) -> Result<Vec<String>, DatapathError> {
    let drifts = xdp_balancer::verify(&settings.pin_dir, &table(snapshot, index, terms), &settings.interfaces)?;
    Ok(drifts.iter().map(ToString::to_string).collect())
}

/// Whether there are tables of this version.
///
/// # Errors
/// [`DatapathError`] where they cannot be read.
pub fn has_tables(pin_dir: &Path) -> Result<bool, DatapathError> {
    Ok(xdp_balancer::has_tables(pin_dir)?)
}

/// Attaches the program onto the tables that are there, beside a daemon or without one.
///
/// # Errors
/// [`DatapathError`] where the kernel refuses.
pub fn attach(pin_dir: &Path, interface: &str, mode: AttachMode) -> Result<InterfaceStatus, DatapathError> {
    Ok(super::plain(&xdp_balancer::attach(pin_dir, interface, mode_of(mode))?))
}

/// Makes tables that say what was published last, and attaches the program. Refused while a daemon has them.
///
/// # Errors
/// [`DatapathError`] where the kernel refuses.
pub fn attach_anew(
    pin_dir: &Path,
    interface: &str,
    mode: AttachMode,
    (snapshot, index, terms): (&Snapshot, &Index, &Terms),
) -> Result<InterfaceStatus, DatapathError> {
    let options = xdp_balancer::Options { pin_dir: pin_dir.to_owned(), sizes: xdp_balancer::Sizes::default() };
    let mut plane = xdp_balancer::Dataplane::open(&options)?;
    plane.publish(&table(snapshot, index, terms))?;
    Ok(super::plain(&plane.attach(interface, mode_of(mode))?))
}

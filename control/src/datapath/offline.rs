//! The program in the kernel without a daemon: from its pins alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use xdp_balancer::EgressBy;
pub use xdp_balancer_common::LogLevel;
use xdp_balancer_common::{Guard, TransitVerdict, Verdict};

use super::transit::{direction, places};
use super::{Costs, DatapathError, Freshness, InterfaceStatus, Terms, mode_of, table};
use crate::config::{self, AttachMode};
use crate::dns::Index;
use crate::model::Snapshot;

/// What the pins tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Where the program is attached.
    pub interfaces: Vec<FoundInterface>,
    /// Generation of the tables that are answered from; 0: there are none.
    pub generation: u64,
    /// Milliseconds since the daemon was last there; `None`: it never was.
    pub heartbeat_age_ms: Option<u64>,
    /// Whether that is so long that the tables are not answered from as they are.
    pub stale: bool,
    /// What is looked at besides the tables: `limits`, `lists`, `stale`, `sample`, `cost`.
    pub guards: Vec<&'static str>,
    /// What queries cost; nothing where that was never measured.
    pub costs: Option<Costs>,
    /// Packets by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Where replies in transit are rewritten.
    pub transit: Vec<FoundTransit>,
    /// What became of them, by verdict; nothing where they are not rewritten.
    pub transit_verdicts: BTreeMap<&'static str, u64>,
    /// The program that captures; nothing while nobody does.
    pub capture: Option<FoundProgram>,
}

/// Who asks most, and for what, as far as it was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Top {
    /// For how many queries one that was noted stands; 0: none is noted.
    pub one_in: u64,
    /// Client prefixes, the most first.
    pub clients: Vec<TopEntry>,
    /// Names, the most first.
    pub names: Vec<TopEntry>,
}

/// A client prefix or a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopEntry {
    /// What.
    pub what: String,
    /// Queries that were noted.
    pub noted: u64,
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

/// A program of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundProgram {
    /// The kernel's id of it.
    pub program_id: u32,
    /// Instructions that the kernel's verifier walked before it took it.
    pub verified_instructions: Option<u32>,
}

/// A place where replies in transit are rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundTransit {
    /// The interface.
    pub interface: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// By what the program is attached on the way out, `tcx` or `clsact`; nothing on the way in.
    pub egress: Option<&'static str>,
    /// The kernel's id of the program that does it; nothing where it was taken away.
    pub program_id: Option<u32>,
    /// Instructions that the kernel's verifier walked before it took that program.
    pub verified_instructions: Option<u32>,
}

/// Reads the pins.
///
/// # Errors
/// [`DatapathError`] where they cannot be read.
pub fn show(pin_dir: &Path) -> Result<Found, DatapathError> {
    let pinned = xdp_balancer::show(pin_dir)?;
    let interfaces = pinned.iter().flat_map(|pinned| &pinned.attachments).map(|attachment| FoundInterface {
        status: super::plain(attachment),
        verified_instructions: xdp_balancer::verified_instructions(attachment.program_id),
    });
    let interfaces = interfaces.collect();
    let Some(pinned) = &pinned else { return Ok(Found { interfaces, ..Found::default() }) };
    let words = [
        (Guard::LIMITS, "limits"),
        (Guard::LISTS, "lists"),
        (Guard::STALE_PASSES | Guard::STALE_SHORTENS, "stale"),
        (Guard::SAMPLES, "sample"),
        (Guard::COSTS, "cost"),
    ];
    let transit = pinned.transit.iter().flat_map(|transit| &transit.places).map(|place| FoundTransit {
        interface: place.interface.clone(),
        direction: direction(place.hook),
        egress: place.egress.map(EgressBy::label),
        program_id: place.program_id,
        verified_instructions: place.program_id.and_then(xdp_balancer::verified_instructions),
    });
    let transit_counts = pinned.transit.iter().flat_map(|transit| &transit.counts).copied();
    let Freshness { heartbeat_age, stale } = pinned.freshness;
    Ok(Found {
        interfaces,
        generation: pinned.generation,
        heartbeat_age_ms: heartbeat_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        stale,
        guards: words.iter().filter(|(bits, _)| pinned.features & bits != 0).map(|(_, word)| *word).collect(),
        costs: Costs::of(&pinned.costs),
        verdicts: Verdict::ALL.iter().map(|v| (v.label(), pinned.counters.verdict(*v))).collect(),
        transit: transit.collect(),
        capture: pinned.capture.map(|program_id| FoundProgram {
            program_id,
            verified_instructions: xdp_balancer::verified_instructions(program_id),
        }),
        transit_verdicts: TransitVerdict::ALL.iter().map(|v| v.label()).zip(transit_counts).collect(),
    })
}

/// Reads who asks most, and for what.
///
/// # Errors
/// [`DatapathError`] where the tables cannot be read.
pub fn top(pin_dir: &Path, most: usize) -> Result<Top, DatapathError> {
    let top = xdp_balancer::top(pin_dir, most)?.unwrap_or_default();
    let clients = top.clients.into_iter().map(|(client, noted)| TopEntry { what: client.to_string(), noted });
    let names = top.names.into_iter().map(|(wire, noted)| TopEntry { what: show_name(&wire), noted });
    Ok(Top { one_in: top.one_in, clients: clients.collect(), names: names.collect() })
}

/// A name for people; of one that was cut, its labels as far as they go.
fn show_name(wire: &[u8]) -> String {
    let mut shown = String::new();
    let mut rest = wire;
    while let Some((len, behind)) = rest.split_first() {
        let (label, next) = behind.split_at(usize::from(*len).min(behind.len()));
        if *len == 0 {
            break;
        }
        shown.push_str(&label.escape_ascii().to_string());
        shown.push('.');
        rest = next;
    }
    if wire.last() != Some(&0) {
        shown.push_str("..");
    }
    if shown.is_empty() { ".".to_owned() } else { shown }
}

/// What the programs say of what they meet, by its word; `None` where there are no tables.
///
/// # Errors
/// [`DatapathError`] where the tables cannot be read.
pub fn log_level(pin_dir: &Path) -> Result<Option<&'static str>, DatapathError> {
    Ok(xdp_balancer::log_level(pin_dir)?.map(LogLevel::label))
}

/// Has them say that much from now on.
///
/// # Errors
/// [`DatapathError`] where there are no tables.
pub fn set_log_level(pin_dir: &Path, level: LogLevel) -> Result<(), DatapathError> {
    Ok(xdp_balancer::set_log_level(pin_dir, level)?)
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
    let mut drifts = xdp_balancer::verify(&settings.pin_dir, &table(snapshot, index, terms), &settings.interfaces)?;
    let transit: Vec<_> = places(&settings.transit).collect();
    drifts.extend(xdp_balancer::verify_transit(&settings.pin_dir, &transit)?);
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

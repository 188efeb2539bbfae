//! Master files (RFC 1035, 5) → the records of a zone, checked as a server's loader checks them.
//!
//! A reader of our own, for hickory's takes `\DDD` as octal, knows neither `\#` (RFC 3597) nor DNAME nor the origin of an
//! `$INCLUDE`, and does not say in which line a fault is. Beyond the RFCs it takes times with units (`1h30m`).
//!
//! ```text
//! bytes ─lexer─> entries ─load─> records (owner, TTL, type, rdata) ─check─> ZoneFile
//! ```

mod check;
mod exotic;
mod lexer;
mod load;
mod rdata;
mod svcb;
mod types;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use crate::model::{Authority, ZoneRecord, parse_domain};

pub use types::type_text;

/// TYPE of delegations and of a zone's own servers.
pub const NS: u16 = 2;
/// TYPE of aliases.
pub const CNAME: u16 = 5;
const SOA: u16 = 6;
/// TYPE of aliases of whole subtrees (RFC 6672).
pub const DNAME: u16 = 39;

/// Most faults that are told of one zone: a file of another kind would have one in every line.
const MOST_FAULTS: usize = 20;

/// Where in a file something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file: the zone's own or one that it includes.
    pub file: Arc<Path>,
    /// Line in it, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What is wrong with a master file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {fix}")]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Fault {
    /// Short fixed name: metric label and log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        "zone_file"
    }
}

/// A zone as its file says it.
#[derive(Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// SOA MNAME.
    pub primary: String,
    /// SOA RNAME.
    pub contact: String,
    /// Targets of the apex's NS, in the order of the file.
    pub nameservers: Vec<String>,
    /// TTL in seconds of the SOA.
    pub ttl_s: u32,
    /// SOA MINIMUM.
    pub minimum_s: u32,
    /// The rest of the SOA, and the TTL of the NS.
    pub authority: Authority,
    /// Where its first NS stands.
    pub nameservers_at: Place,
    /// All else, by name and type; the order inside an RRset is the file's.
    pub records: Vec<ZoneRecord>,
    /// Where each of `records` stands.
    pub places: Vec<Place>,
}

/// Reads the zone `apex` (lower case, with the final dot) from a master file and those that it includes.
///
/// # Errors
/// Every [`Fault`] that was found, at most 20 and by place; never none.
pub fn read(path: &Path, apex: &str) -> Result<ZoneFile, Vec<Fault>> {
    let mut faults = Vec::new();
    let apex = match parse_domain(apex.as_bytes(), None) {
        Ok(apex) => apex,
        Err(fault) => {
            let place = Place { file: path.into(), line: 1 };
            return Err(vec![Fault { place, what: format!("the zone's name {fault}"), fix: "correct it".to_owned() }]);
        }
    };
    let loaded = load::load(path, &apex, &mut faults);
    // A record that could not be read may be the very one that is missing.
    let zone = if faults.is_empty() { check::zone(path, &apex, &loaded, &mut faults) } else { None };
    faults.sort_by(|a, b| a.place.cmp(&b.place));
    let more = faults.len().saturating_sub(MOST_FAULTS);
    faults.truncate(MOST_FAULTS);
    if let Some(last) = faults.last_mut().filter(|_| more > 0) {
        last.what.push_str(&format!(" (and {more} more)"));
    }
    zone.filter(|_| faults.is_empty()).ok_or(faults)
}

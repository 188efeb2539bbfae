//! A zone as it was read, with the places that checks over several sections need.

use std::sync::Arc;

use super::errors::Complaint;
use super::reader::{Field, Reader};
use crate::model::{Zone, ZoneRecord};
use crate::zonefile::Place;

/// Keys of a `[[zone]]`.
pub(super) const ZONE_KEYS: [&str; 9] =
    ["name", "file", "primary", "contact", "nameservers", "nameserver_addresses", "ttl_s", "negative_ttl_s", "record"];

/// A record with the places that checks over several sections need.
pub(super) struct RecordSection {
    pub(super) record: ZoneRecord,
    /// The line of its name.
    pub(super) line: usize,
    /// How its keys are named in complaints.
    pub(super) path: String,
}

/// A zone with its records, which are not yet in it.
pub(super) struct ZoneSection {
    pub(super) zone: Field<Zone>,
    pub(super) records: Vec<RecordSection>,
    /// Where the zone comes from, if that is a master file.
    pub(super) file: Option<FileSection>,
}

impl ZoneSection {
    /// The zone whole. RRsets stand together; in them the file's order stays.
    pub(super) fn finish(mut self) -> Arc<Zone> {
        let zone = &mut self.zone.value;
        zone.records.extend(self.records.into_iter().map(|r| r.record));
        zone.records.sort_by(|a, b| (&a.name, a.rtype).cmp(&(&b.name, b.rtype)));
        Arc::new(self.zone.value)
    }
}

/// Where a zone from a file has its parts.
pub(super) struct FileSection {
    /// The key that names the file, and its line.
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) nameservers_at: Place,
    /// Of each of the zone's records.
    pub(super) places: Vec<Place>,
}

impl FileSection {
    pub(super) fn complain(&self, reader: &Reader<'_>, place: &Place, what: &str, fix: &str) {
        reader.complain(self.line, &self.key, Complaint::new(format!("{place}: {what}"), fix));
    }
}

//! What two tables have that the other has not: each thing that a table says is one line, and lines are compared.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dns::present;
use crate::model::{PublishedService, Snapshot, Zone, ZoneRecord};

/// One thing that a table says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// `zone` or `service`, and its name; `table` for what belongs to none.
    pub object: String,
    /// What of it: `record`, `backend`, or the name of a setting.
    pub what: String,
    /// The record in presentation form, the backend's or the setting's values.
    pub text: String,
}

/// A line that only one of the two tables has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What it is of.
    #[serde(flatten)]
    pub line: Line,
    /// True where the second table has it, false where the first has.
    pub added: bool,
}

/// All changes from one table to another, those of one object together, what goes before what comes.
#[must_use]
pub fn difference(from: &Snapshot, to: &Snapshot) -> Vec<Change> {
    let (before, after) = (lines(from, to), lines(to, from));
    let gone = before.difference(&after).map(|line| Change { line: line.clone(), added: false });
    let come = after.difference(&before).map(|line| Change { line: line.clone(), added: true });
    let mut changes: Vec<Change> = gone.chain(come).collect();
    changes.sort_by(|a, b| {
        let key = |c: &Change| (c.line.object.clone(), c.line.what.clone(), c.added, c.line.text.clone());
        key(a).cmp(&key(b))
    });
    changes
}

/// What a table says; zones that `other` has just so are left out, for they may be large.
fn lines(table: &Snapshot, other: &Snapshot) -> BTreeSet<Line> {
    let mut lines = BTreeSet::new();
    for zone in table.zones.iter().filter(|zone| !other.zones.contains(zone)) {
        of_zone(zone, &mut lines);
    }
    for service in &table.services {
        of_service(service, &mut lines);
    }
    let mut rest = table.clone();
    (rest.zones, rest.services) = (Vec::new(), Vec::new());
    settings("table", &rest, &["generation", "zones", "services"], &mut lines);
    lines
}

fn of_zone(zone: &Zone, lines: &mut BTreeSet<Line>) {
    let object = format!("zone {}", zone.apex);
    let records =
        zone.records.iter().map(|r| Line { object: object.clone(), what: "record".to_owned(), text: record(r) });
    lines.extend(records);
    let bare = Zone { records: Vec::new(), ..zone.clone() };
    settings(&object, &bare, &["apex", "records"], lines);
}

fn of_service(service: &PublishedService, lines: &mut BTreeSet<Line>) {
    let object = format!("service {}", service.name);
    let backends = service.backends.iter().map(|backend| Line {
        object: object.clone(),
        what: "backend".to_owned(),
        text: plain(&serde_json::to_value(backend).unwrap_or_default()),
    });
    lines.extend(backends);
    settings(&object, service, &["name", "backends"], lines);
}

/// A record as a master file has it.
pub(super) fn record(record: &ZoneRecord) -> String {
    let (rtype, rdata) = (present::type_name(record.rtype), present::rdata(record.rtype, &record.rdata));
    format!("{} {} {rtype} {rdata}", record.name, record.ttl_s)
}

/// Every other field, whatever a later version adds; the elements of a list one by one.
fn settings(object: &str, value: &impl Serialize, but: &[&str], lines: &mut BTreeSet<Line>) {
    let Ok(Value::Object(fields)) = serde_json::to_value(value) else { return };
    for (what, value) in fields.into_iter().filter(|(what, _)| !but.contains(&what.as_str())) {
        let elements = match value {
            Value::Array(elements) => elements,
            Value::Null => continue,
            one => vec![one],
        };
        let line = |element| Line { object: object.to_owned(), what: what.clone(), text: plain(element) };
        lines.extend(elements.iter().map(line));
    }
}

/// A value without braces and quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(elements) => elements.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| match value {
                Value::Null => None,
                // Fields of an inner object speak for themselves.
                Value::Object(_) => Some(plain(value)),
                _ => Some(format!("{key}={}", plain(value))),
            };
            fields.iter().filter_map(field).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use std::sync::Arc;

    use crate::model::fixtures::{self, backend, service, zone};

    fn snapshot() -> Snapshot {
        let record = ZoneRecord { name: "info.edge.test.".into(), rtype: 16, ttl_s: 60, rdata: b"\x03one".to_vec() };
        let zone = Zone { records: vec![record], ..zone() };
        let video = service("video", vec![backend(1), backend(2)]);
        fixtures::snapshot(1, vec![zone], vec![video])
    }

    fn text(from: &Snapshot, to: &Snapshot) -> Vec<String> {
        let sign = |c: &Change| if c.added { '+' } else { '-' };
        let changes = difference(from, to);
        changes.iter().map(|c| format!("{}{} {} {}", sign(c), c.line.object, c.line.what, c.line.text)).collect()
    }

    #[test]
    fn generations_are_no_difference() {
        assert!(difference(&snapshot(), &Snapshot { generation: 9, ..snapshot() }).is_empty());
    }

    #[test]
    fn what_changed_is_said_and_nothing_else() {
        let mut to = snapshot();
        let zone = Arc::make_mut(&mut to.zones[0]);
        zone.records[0].rdata = b"\x03two".to_vec();
        zone.nameservers.push("ns2.edge.test.".into());
        to.services[0].backends.remove(0);
        to.services[0].ttl_s = 9;
        assert_eq!(
            text(&snapshot(), &to),
            [
                "-service video backend v4=10.0.0.1 instance=00000001 weight=1",
                "-service video ttl_s 5",
                "+service video ttl_s 9",
                "+zone edge.test. nameservers ns2.edge.test.",
                "-zone edge.test. record info.edge.test. 60 TXT \"one\"",
                "+zone edge.test. record info.edge.test. 60 TXT \"two\"",
            ]
        );
        let back: Vec<String> = text(&to, &snapshot());
        assert_eq!(back.len(), 6);
        assert!(back.contains(&"+service video backend v4=10.0.0.1 instance=00000001 weight=1".to_owned()), "{back:?}");
    }

    #[test]
    fn a_table_from_nothing_is_all_of_it() {
        let all = text(&Snapshot::default(), &snapshot());
        assert!(all.iter().all(|line| line.starts_with('+')), "{all:?}");
        assert_eq!(all.len(), 2 + 6 + 1 + 5, "{all:?}");
    }
}

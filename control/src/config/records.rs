//! `[[zone.record]]`: a zone's records by themselves, and what they may not do to each other and to services.

use std::collections::BTreeMap;

use super::errors::Complaint;
use super::names::{lies_in, owner_name};
use super::rdata::{rdata, rtype, type_name};
use super::reader::{Reader, Section};
use super::services::ServiceSection;
use super::shared::LONGEST_TTL_S;
use super::values::{text, whole32};
use super::zone::{RecordSection, ZoneSection};
use crate::model::{Zone, ZoneRecord};
use crate::zonefile::{CNAME, NS};

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;

/// One record; `None` where it has been complained of.
pub(super) fn record(section: &Section<'_, '_>, apex: &str, zone_ttl_s: u32) -> Option<RecordSection> {
    section.allow(&["name", "type", "data", "ttl_s"]);
    let name = section.required("name", String::new(), "\"www\"", |v| owner_name(v, apex));
    let kind = section.required("type", 0, "\"TXT\"", |v| rtype(&text(v)?));
    let ttl_s = section.or("ttl_s", zone_ttl_s, |v| whole32(v, 0, LONGEST_TTL_S));
    let data = section.required("data", Vec::new(), "'…', as a zone file has it", |v| {
        let data = text(v)?;
        // Without its type nothing can be said about it.
        if kind.broken { Ok(Vec::new()) } else { rdata(kind.value, &data, apex) }
    });
    let sound = !(name.broken || kind.broken || ttl_s.broken || data.broken);
    sound.then(|| RecordSection {
        record: ZoneRecord { name: name.value, rtype: kind.value, ttl_s: ttl_s.value, rdata: data.value },
        line: name.line,
        path: section.path.clone(),
    })
}

/// Each record against the others, the zones and the services.
pub(super) fn check(reader: &Reader<'_>, zones: &[ZoneSection], services: &[ServiceSection]) {
    for section in zones {
        let zone = &section.zone.value;
        for record in &section.records {
            placed(reader, zone, record, zones);
        }
        sets(reader, &section.records);
        names(reader, zone, &section.records, services);
    }
}

fn complain(reader: &Reader<'_>, record: &RecordSection, key: &str, what: String, fix: impl Into<String>) {
    reader.complain(record.line, &format!("{}.{key}", record.path), Complaint::new(what, fix));
}

/// In its own zone, not in one below it that is configured too; no NS or CNAME at the apex.
fn placed(reader: &Reader<'_>, zone: &Zone, section: &RecordSection, zones: &[ZoneSection]) {
    let record = &section.record;
    let inner = zones
        .iter()
        .map(|z| &z.zone.value.apex)
        .find(|apex| apex.len() > zone.apex.len() && lies_in(apex, &zone.apex) && lies_in(&record.name, apex));
    if let Some(inner) = inner {
        let what = format!("{} lies in the zone {inner}", record.name);
        complain(reader, section, "name", what, "move it to that [[zone]]");
    } else if record.name.starts_with("*.") && record.rtype == NS {
        let what = format!("{} cannot be delegated", record.name);
        complain(reader, section, "type", what, "delegate each name by itself");
    } else if record.name == zone.apex && record.rtype == NS {
        let what = "the zone's own NS are not given as records".to_owned();
        complain(reader, section, "type", what, "use nameservers of the [[zone]]");
    } else if record.name == zone.apex && record.rtype == CNAME {
        let what = format!("{} is the apex, which has SOA and NS beside it", record.name);
        complain(reader, section, "type", what, "use A, AAAA or HTTPS there, or a name below it");
    }
}

/// No record twice, one TTL in an RRset, a CNAME alone.
fn sets(reader: &Reader<'_>, records: &[RecordSection]) {
    let mut by_name: BTreeMap<&str, Vec<&RecordSection>> = BTreeMap::new();
    for section in records {
        let (record, before) = (&section.record, by_name.entry(&section.record.name).or_default());
        let kind = type_name(record.rtype);
        let same = || before.iter().filter(|b| b.record.rtype == record.rtype);
        if let Some(first) = same().find(|b| b.record.rdata == record.rdata) {
            let what = format!("this {kind} of {} is there twice (line {})", record.name, first.line);
            complain(reader, section, "data", what, "remove one");
        } else if let Some(first) = before.iter().find(|b| (b.record.rtype == CNAME) != (record.rtype == CNAME)) {
            let what = format!("{} has a CNAME and another record (line {})", record.name, first.line);
            complain(reader, section, "name", what, "a CNAME stands alone at its name: remove one");
        } else if let Some(first) = same().next().filter(|_| record.rtype == CNAME) {
            let what = format!("{} has two CNAMEs (line {})", record.name, first.line);
            complain(reader, section, "name", what, "remove one");
        } else if let Some(first) = same().find(|b| b.record.ttl_s != record.ttl_s) {
            let (name, ttl_s, line) = (&record.name, first.record.ttl_s, first.line);
            let what = format!("another {kind} of {name} has ttl_s = {ttl_s} (line {line})");
            complain(reader, section, "ttl_s", what, "give all records of one name and type the same");
        }
        before.push(section);
    }
}

/// What stands at the names of services and name servers, and below delegations.
fn names(reader: &Reader<'_>, zone: &Zone, records: &[RecordSection], services: &[ServiceSection]) {
    let owner = |name: &str| services.iter().find(|s| s.names.iter().any(|n| n.value == name));
    let servers = || zone.nameservers.iter().chain([&zone.primary]);
    for section in records {
        let record = &section.record;
        let kind = type_name(record.rtype);
        if let Some(service) = owner(&record.name) {
            if matches!(record.rtype, A | AAAA | CNAME | NS) {
                let what = format!("{} belongs to service {}, which rules out {kind}", record.name, service.spec.name);
                complain(reader, section, "name", what, "use another name or remove the service's");
            }
        } else if record.rtype == CNAME && servers().any(|server| *server == record.name) {
            let what = format!("{} is a name server, which must not be an alias", record.name);
            complain(reader, section, "type", what, "give it A and AAAA");
        }
    }
    let cuts = records.iter().filter(|s| s.record.rtype == NS && s.record.name != zone.apex);
    let cuts: BTreeMap<&str, usize> = cuts.map(|s| (s.record.name.as_str(), s.line)).collect();
    for section in records {
        let record = &section.record;
        let (cut, allowed) = match cuts.iter().find(|(cut, _)| lies_in(&record.name, cut)) {
            // Beside the NS only what the parent says of the delegation, below it the servers' addresses.
            Some((cut, line)) if record.name == **cut => ((cut, line), matches!(record.rtype, NS | A | AAAA | 43)),
            Some((cut, line)) => ((cut, line), matches!(record.rtype, A | AAAA)),
            None => continue,
        };
        if !allowed {
            let what = format!("{} is delegated to others by the NS of {} (line {})", record.name, cut.0, cut.1);
            complain(reader, section, "name", what, "remove the NS, or put this record into their zone");
        }
    }
    for service in services {
        for name in &service.names {
            if let Some((cut, line)) = cuts.iter().find(|(cut, _)| lies_in(&name.value, cut) && name.value != **cut) {
                let what = format!("{} is delegated to others by the NS of {cut} (line {line})", name.value);
                let key = format!("{}.names", service.path);
                reader.complain(name.line, &key, Complaint::new(what, "remove the NS or use another name"));
            }
        }
    }
}

//! `zone.file`: a zone out of a master file, and what it may not do to services and other zones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::errors::Complaint;
use super::names::lies_in;
use super::reader::{Field, Reader, Section};
use super::records::{A, AAAA};
use super::services::ServiceSection;
use super::values::text;
use super::zone::{FileSection, ZONE_KEYS, ZoneSection};
use crate::model::Zone;
use crate::zonefile::{self, CNAME, DNAME, NS, Place, type_text};

/// The file of a zone, if it has one. A relative path begins where the configuration is.
pub(super) fn path(section: &Section<'_, '_>) -> Option<Field<PathBuf>> {
    section.optional("file", PathBuf::new(), |v| match text(v)? {
        empty if empty.is_empty() => Err(Complaint::new("is empty", "write the path of a master file")),
        path => Ok(section.reader.directory().join(path)),
    })
}

/// The zone as its file says it. `None` where something has been complained of.
pub(super) fn zone(section: &Section<'_, '_>, apex: Field<String>, file: &Field<PathBuf>) -> Option<ZoneSection> {
    for key in ZONE_KEYS.iter().filter(|key| !["name", "file"].contains(key)) {
        if let Some(line) = section.line_of(key) {
            section.complain(line, key, "cannot be given beside file", "remove it and say it in the master file");
        }
    }
    if apex.broken || file.broken {
        return None;
    }
    let read = match zonefile::read(&file.value, &apex.value) {
        Ok(read) => read,
        Err(faults) => {
            for fault in faults {
                section.complain(file.line, "file", format!("{}: {}", fault.place, fault.what), fault.fix);
            }
            return None;
        }
    };
    let file = FileSection {
        key: section.key("file"),
        line: file.line,
        nameservers_at: read.nameservers_at,
        places: read.places,
    };
    let zone = Zone {
        apex: apex.value.clone(),
        primary: read.primary,
        contact: read.contact,
        nameservers: read.nameservers,
        ttl_s: read.ttl_s,
        negative_ttl_s: read.minimum_s,
        nameserver_addresses: Vec::new(),
        authority: Some(read.authority),
        records: read.records,
    };
    Some(ZoneSection { zone: apex.map(|_| zone), records: Vec::new(), file: Some(file) })
}

/// Each file against the services and the other zones. What a file says of a zone that is configured by itself is
/// left out: that zone answers there.
pub(super) fn check(reader: &Reader<'_>, zones: &mut [ZoneSection], services: &[ServiceSection]) {
    let apexes: Vec<String> = zones.iter().map(|section| section.zone.value.apex.clone()).collect();
    let owners =
        services.iter().flat_map(|service| service.names.iter().map(move |name| (name.value.as_str(), service)));
    let owners: BTreeMap<&str, &ServiceSection> = owners.collect();
    for ZoneSection { zone, file, .. } in zones {
        let (zone, Some(file)) = (&mut zone.value, file) else { continue };
        let inner: Vec<&String> =
            apexes.iter().filter(|other| **other != zone.apex && lies_in(other, &zone.apex)).collect();
        let elsewhere = |name: &str| inner.iter().any(|apex| lies_in(name, apex));
        services_in(reader, zone, file, &owners);
        bounds(reader, zone, file, services);
        nameservers(reader, zone, file, |name| elsewhere(name) || owners.contains_key(name));
        if !inner.is_empty() {
            zone.records.retain(|record| !elsewhere(&record.name));
        }
    }
}

/// A service's addresses come from its instances.
fn services_in(reader: &Reader<'_>, zone: &Zone, file: &FileSection, owners: &BTreeMap<&str, &ServiceSection>) {
    for (record, place) in zone.records.iter().zip(&file.places) {
        if matches!(record.rtype, A | AAAA | CNAME | NS)
            && let Some(service) = owners.get(record.name.as_str())
        {
            let (name, kind) = (&record.name, type_text(record.rtype));
            let what = format!("{name} belongs to service {}, which rules out {kind}", service.spec.name);
            file.complain(reader, place, &what, "remove the record, or use another name for the service");
        }
    }
}

/// No service below a delegation or a DNAME.
fn bounds(reader: &Reader<'_>, zone: &Zone, file: &FileSection, services: &[ServiceSection]) {
    let bounds = zone.records.iter().zip(&file.places).filter(|(record, _)| matches!(record.rtype, NS | DNAME));
    let bounds: BTreeMap<&str, (u16, &Place)> =
        bounds.map(|(record, place)| (record.name.as_str(), (record.rtype, place))).collect();
    for name in services.iter().flat_map(|service| &service.names).filter(|name| lies_in(&name.value, &zone.apex)) {
        let above = name.value.match_indices('.').map(|(dot, _)| &name.value[dot + 1..]);
        if let Some((bound, (rtype, place))) = above.filter_map(|name| bounds.get_key_value(name)).next() {
            let what = match *rtype {
                NS => format!("the NS of {bound} delegate {} to others, which is a service's", name.value),
                _ => format!("the DNAME of {bound} leads {} elsewhere, which is a service's", name.value),
            };
            let fix = format!("remove the {}, or use another name for the service", type_text(*rtype));
            file.complain(reader, place, &what, &fix);
        }
    }
}

/// A server inside the zone has an address and is no alias. `known` tells names whose addresses others say.
fn nameservers(reader: &Reader<'_>, zone: &Zone, file: &FileSection, known: impl Fn(&str) -> bool) {
    // Letter case is the file's in data, lower in owners.
    let servers: BTreeSet<String> = zone.nameservers.iter().map(|server| server.to_ascii_lowercase()).collect();
    let mut without: BTreeSet<&str> = servers.iter().map(String::as_str).collect();
    without.retain(|server| lies_in(server, &zone.apex) && !known(server));
    for (record, place) in zone.records.iter().zip(&file.places) {
        match record.rtype {
            A | AAAA => _ = without.remove(record.name.as_str()),
            CNAME if servers.contains(record.name.as_str()) => {
                without.remove(record.name.as_str());
                let what = format!("{} is a name server and a CNAME", record.name);
                file.complain(reader, place, &what, "give it A and AAAA");
            }
            _ => {}
        }
    }
    for server in without {
        let what = format!("the name server {server} has no address");
        file.complain(reader, &file.nameservers_at, &what, "give it A or AAAA, or name another");
    }
}

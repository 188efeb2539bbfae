//! The names of a snapshot and what it says of each, before anything is rendered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::error::IndexError;
use super::records::{FixedRrset, Soa};
use super::wire::{name_as_written, name_bytes, suffixes, wildcard_of};
use super::{TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_DNAME, TYPE_NS};
use crate::model::{PublishedService, Snapshot, Zone, ZoneRecord};

/// What stands at a name that exists.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Place of the service that it belongs to.
    pub service: Option<usize>,
    /// The zone whose apex it is.
    pub apex: Option<usize>,
    /// Its RRsets that do not change with the instances, but for an apex's SOA and NS.
    pub fixed: Vec<FixedRrset>,
}

impl Entry {
    /// The fixed RRset of a type.
    pub(super) fn fixed(&self, rtype: u16) -> Option<&FixedRrset> {
        self.fixed.iter().find(|rrset| rrset.rtype == rtype)
    }

    /// Its CNAME, and where that leads.
    pub(super) fn alias(&self) -> Option<(&FixedRrset, &[u8])> {
        let cname = self.fixed(TYPE_CNAME)?;
        Some((cname, cname.rdata.first()?))
    }

    /// Its DNAME, which stands for all names below it (RFC 6672).
    pub(super) fn dname(&self) -> Option<&FixedRrset> {
        self.fixed(TYPE_DNAME)
    }

    fn is_cut(&self) -> bool {
        self.apex.is_none() && self.fixed(TYPE_NS).is_some()
    }

    fn add(&mut self, rtype: u16, ttl_s: u32, rdata: Vec<u8>) {
        match self.fixed.iter_mut().find(|rrset| rrset.rtype == rtype) {
            Some(rrset) if rrset.rdata.contains(&rdata) => {}
            Some(rrset) => rrset.rdata.push(rdata),
            None => self.fixed.push(FixedRrset { rtype, ttl_s, rdata: vec![rdata] }),
        }
    }
}

/// A zone's own data.
#[derive(Debug)]
pub(super) struct Apex {
    /// Its name in wire form.
    pub wire: Vec<u8>,
    pub soa: Soa,
    /// TTL in seconds of the SOA, where it is asked for.
    pub soa_ttl_s: u32,
    /// TTL in seconds of the SOA in negative answers (RFC 2308, section 3).
    pub negative_ttl_s: u32,
    /// At least one.
    pub ns: FixedRrset,
    /// Whether some of its names are delegated or have a DNAME, so that the way of most stays short.
    has_bounds: bool,
}

impl Apex {
    fn new(zone: &Zone) -> Result<Self, IndexError> {
        let targets: Result<Vec<_>, _> = zone.nameservers.iter().map(|ns| name_as_written("name server", ns)).collect();
        let ns_ttl_s = zone.authority.map_or(zone.ttl_s, |told| told.ns_ttl_s);
        let ns = FixedRrset { rtype: TYPE_NS, ttl_s: ns_ttl_s, rdata: targets? };
        if ns.rdata.is_empty() {
            return Err(IndexError::NoNameserver { apex: zone.apex.clone() });
        }
        let soa = Soa {
            primary: name_as_written("primary name server", &zone.primary)?,
            contact: name_as_written("zone contact", &zone.contact)?,
            serial: zone.authority.map(|told| told.serial),
            // Refresh, retry and expire speak to secondaries, which there are none of: usual values.
            times: zone.authority.map_or([3600, 600, 604_800, zone.negative_ttl_s], |told| {
                [told.refresh_s, told.retry_s, told.expire_s, zone.negative_ttl_s]
            }),
        };
        Ok(Self {
            wire: name_bytes("zone", &zone.apex)?,
            soa,
            soa_ttl_s: zone.ttl_s,
            negative_ttl_s: zone.ttl_s.min(zone.negative_ttl_s),
            ns,
            has_bounds: false,
        })
    }
}

/// Where a zone's own data end.
pub(super) enum Bound<'n> {
    /// At or below this delegated name.
    Cut(&'n [u8]),
    /// Below a name with a DNAME, which begins at this place in the name.
    Dname(usize),
}

/// What there is at a name, whether it exists or not.
pub(super) enum Located<'a> {
    /// It is in none of our zones.
    Outside,
    /// It does not exist in this zone, and no wildcard stands for it.
    Nothing { zone: usize },
    /// Others have it: it is at (`exact`) or below the delegated name `cut` of a zone of ours.
    Cut { zone: usize, cut: &'a [u8], exact: bool },
    /// This DNAME stands for it, whose own name begins at `at` in it.
    Redirected { dname: &'a FixedRrset, at: usize },
    /// This, by the name `key`: its own or a wildcard's.
    Entry { key: &'a [u8], entry: &'a Entry },
}

/// All names, by wire form in lower case; empty non-terminals too (RFC 8020).
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub names: HashMap<Vec<u8>, Entry>,
    pub zones: Vec<Apex>,
}

impl Draft {
    pub(super) fn new(snapshot: &Snapshot) -> Result<Self, IndexError> {
        let mut draft = Self::default();
        for zone in &snapshot.zones {
            let apex = Apex::new(zone)?;
            if draft.names.entry(apex.wire.clone()).or_default().apex.replace(draft.zones.len()).is_some() {
                return Err(IndexError::DuplicateZone { apex: zone.apex.clone() });
            }
            draft.zones.push(apex);
        }
        for wire in draft.zones.iter().map(|apex| apex.wire.clone()).collect::<Vec<_>>() {
            draft.add_ancestors(&wire);
        }
        // After all apexes, for a name belongs to the innermost zone that contains it.
        for (number, zone) in snapshot.zones.iter().enumerate() {
            for record in &zone.records {
                draft.add_record(number, zone, record)?;
            }
        }
        for (number, service) in snapshot.services.iter().enumerate() {
            draft.add_service(number, service)?;
        }
        draft.add_nameservers(&snapshot.zones)?;
        Ok(draft)
    }

    fn add_record(&mut self, number: usize, zone: &Zone, record: &ZoneRecord) -> Result<(), IndexError> {
        let name = name_bytes("record's name", &record.name)?;
        if self.zone_of(&name).is_none_or(|(innermost, _)| innermost != number) {
            return Err(IndexError::RecordOutside { apex: zone.apex.clone(), name: record.name.clone() });
        }
        self.add_ancestors(&name);
        let entry = self.names.entry(name).or_default();
        entry.add(record.rtype, record.ttl_s, record.rdata.clone());
        self.zones[number].has_bounds |= entry.is_cut() || entry.dname().is_some();
        Ok(())
    }

    fn add_service(&mut self, number: usize, service: &PublishedService) -> Result<(), IndexError> {
        for text in &service.names {
            let name = name_bytes("service name", text)?;
            if self.zone_of(&name).is_none() {
                return Err(IndexError::OutsideZones { service: service.name.to_string(), name: text.clone() });
            }
            self.add_ancestors(&name);
            if self.names.entry(name).or_default().service.replace(number).is_some() {
                return Err(IndexError::DuplicateName { service: service.name.to_string(), name: text.clone() });
            }
        }
        Ok(())
    }

    /// A name server in a zone of ours exists and has addresses: those of a record or a service of its name, or
    /// those that the zones say which name it. With none at all it still exists, for NXDOMAIN would make
    /// resolvers take the delegation for broken.
    fn add_nameservers(&mut self, zones: &[Arc<Zone>]) -> Result<(), IndexError> {
        let mut added: HashMap<Vec<u8>, (u32, Vec<IpAddr>)> = HashMap::new();
        // What a master file does not say is not there.
        for zone in zones.iter().filter(|zone| zone.authority.is_none()) {
            for target in zone.nameservers.iter().chain([&zone.primary]) {
                let name = name_bytes("name server", target)?;
                if let Some((holder, _)) = self.zone_of(&name) {
                    let (_, addresses) = added.entry(name).or_insert((zones[holder].ttl_s, Vec::new()));
                    addresses.extend(&zone.nameserver_addresses);
                }
            }
        }
        for (name, (ttl_s, addresses)) in added {
            self.add_ancestors(&name);
            let entry = self.names.entry(name).or_default();
            let told = [TYPE_A, TYPE_AAAA, TYPE_CNAME].iter().any(|rtype| entry.fixed(*rtype).is_some());
            if entry.service.is_none() && !told {
                for address in addresses {
                    match address {
                        IpAddr::V4(address) => entry.add(TYPE_A, ttl_s, address.octets().to_vec()),
                        IpAddr::V6(address) => entry.add(TYPE_AAAA, ttl_s, address.octets().to_vec()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the names between a name and the apex above it exist.
    fn add_ancestors(&mut self, name: &[u8]) {
        for (_, ancestor) in suffixes(name).skip(1) {
            // What exists has its ancestors already, or gets them when its own turn comes.
            if self.names.contains_key(ancestor) || self.zone_of(ancestor).is_none() {
                break;
            }
            self.names.insert(ancestor.to_vec(), Entry::default());
        }
    }

    /// The innermost zone that contains a lower-case name, and where its apex begins.
    pub(super) fn zone_of(&self, name: &[u8]) -> Option<(usize, usize)> {
        suffixes(name).find_map(|(at, suffix)| self.names.get(suffix)?.apex.map(|zone| (zone, at)))
    }

    /// What keeps a name of `zone`, whose apex begins at `apex_at` in it, from being told as it stands: the highest,
    /// for what is below that does not count.
    pub(super) fn bound<'n>(&self, zone: usize, name: &'n [u8], apex_at: usize) -> Option<Bound<'n>> {
        if !self.zones[zone].has_bounds {
            return None;
        }
        let bound = |(at, suffix): (usize, &'n [u8])| match self.names.get(suffix)? {
            entry if entry.is_cut() => Some(Bound::Cut(suffix)),
            entry => entry.dname().filter(|_| at > 0).map(|_| Bound::Dname(at)),
        };
        suffixes(name).take_while(|(at, _)| *at <= apex_at).filter_map(bound).last()
    }

    /// What there is at a lower-case name.
    pub(super) fn locate(&self, name: &[u8]) -> Located<'_> {
        let Some((zone, apex_at)) = self.zone_of(name) else { return Located::Outside };
        let located = match self.bound(zone, name, apex_at) {
            Some(Bound::Cut(cut)) => {
                let exact = cut.len() == name.len();
                self.entry(cut).map(|(cut, _)| Located::Cut { zone, cut, exact })
            }
            Some(Bound::Dname(at)) => {
                self.entry(&name[at..]).and_then(|(_, entry)| Some(Located::Redirected { dname: entry.dname()?, at }))
            }
            None => {
                // By its own name, or by the wildcard below its closest encloser (RFC 4592).
                let found = self.entry(name).or_else(|| {
                    let (_, encloser) = suffixes(name).find(|(_, suffix)| self.names.contains_key(*suffix))?;
                    self.entry(&wildcard_of(encloser))
                });
                found.map(|(key, entry)| Located::Entry { key, entry })
            }
        };
        located.unwrap_or(Located::Nothing { zone })
    }

    fn entry(&self, name: &[u8]) -> Option<(&[u8], &Entry)> {
        self.names.get_key_value(name).map(|(key, entry)| (key.as_slice(), entry))
    }
}

//! A snapshot prepared for answering.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use xdp_balancer_common::MAX_NAME_BYTES;

use super::render::{FixedRrset, RenderError, RenderedAnswer, RenderedRrset, Template, rrsets};
use super::wire::{absolute, is_wildcard, name_bytes, suffixes, wildcard_of};
use super::{TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_NS};
use crate::model::{DomainFault, PublishedService, Snapshot, Zone, ZoneRecord};

/// Why a snapshot cannot be answered from.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A name has no wire form.
    #[error("{what} {name:?} is not a domain name: it {source}")]
    Name {
        /// What it names.
        what: &'static str,
        /// The text.
        name: String,
        /// What is wrong with it.
        source: DomainFault,
    },
    /// Two zones with one apex.
    #[error("zone {apex} is there twice")]
    DuplicateZone {
        /// The apex.
        apex: String,
    },
    /// A zone without NS.
    #[error("zone {apex} names no name server")]
    NoNameserver {
        /// The apex.
        apex: String,
    },
    /// Two services with one name.
    #[error("service {service}: the name {name} belongs to another service already")]
    DuplicateName {
        /// The later service.
        service: String,
        /// The name.
        name: String,
    },
    /// A service's name that no zone contains.
    #[error("service {service}: the name {name} is in none of our zones")]
    OutsideZones {
        /// The service.
        service: String,
        /// The name.
        name: String,
    },
    /// A record that does not lie in the zone that has it.
    #[error("zone {apex}: the record's name {name} is outside it")]
    RecordOutside {
        /// The zone.
        apex: String,
        /// The name.
        name: String,
    },
    /// A record could not be encoded.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl IndexError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Name { source: DomainFault::Relative, .. } => "relative",
            Self::Name { .. } => "name",
            Self::DuplicateZone { .. } => "duplicate_zone",
            Self::NoNameserver { .. } => "no_nameserver",
            Self::DuplicateName { .. } => "duplicate_name",
            Self::OutsideZones { .. } => "outside_zones",
            Self::RecordOutside { .. } => "record_outside",
            Self::Render(error) => error.label(),
        }
    }
}

/// A service's rendered answers, as both the kernel and the daemon send them.
#[derive(Debug)]
pub struct Published {
    /// Index of the service's counters.
    pub index: u32,
    /// Its names in wire form, lower case.
    pub names: Vec<Vec<u8>>,
    /// Its RRsets; none where it has no backend.
    pub rrsets: Vec<RenderedRrset>,
    /// TTL in seconds of its answers.
    pub(super) ttl_s: u32,
    /// The daemon's own position in each ring.
    cursors: Vec<AtomicUsize>,
}

impl Published {
    /// The RRset of a type, with its place among `rrsets`.
    pub(super) fn rrset(&self, qtype: u16) -> Option<(usize, &RenderedRrset)> {
        self.rrsets.iter().enumerate().find(|(_, rrset)| rrset.qtype == qtype)
    }

    /// The variant whose turn it is.
    pub(super) fn next(&self, rrset: usize) -> &RenderedAnswer {
        let turn = self.cursors[rrset].fetch_add(1, Ordering::Relaxed);
        let ring = &self.rrsets[rrset].ring;
        &ring[turn % ring.len()]
    }
}

/// A zone's own records.
#[derive(Debug)]
pub(super) struct ZoneRecords {
    pub soa: Template,
    pub ns: Vec<Template>,
    /// Targets of `ns` in wire form, in the same order.
    pub targets: Vec<Vec<u8>>,
    pub ttl_s: u32,
    pub ns_ttl_s: u32,
    /// TTL of the SOA in negative answers (RFC 2308, section 3).
    pub negative_ttl_s: u32,
    pub apex: Vec<u8>,
    /// Whether some names of it are delegated, or stand for others, so that the way of most questions stays short.
    has_cuts: bool,
    has_wildcards: bool,
}

/// What stands at a name that exists.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub service: Option<usize>,
    /// The zone whose apex it is.
    pub zone: Option<usize>,
    /// Its RRsets that do not change with the instances, but for an apex's SOA and NS.
    pub fixed: Vec<FixedRrset>,
}

impl Node {
    /// The fixed RRset of a type.
    pub(super) fn fixed(&self, rtype: u16) -> Option<&FixedRrset> {
        self.fixed.iter().find(|rrset| rrset.rtype == rtype)
    }

    fn is_cut(&self) -> bool {
        self.zone.is_none() && self.fixed(TYPE_NS).is_some()
    }

    fn add(&mut self, rtype: u16, ttl_s: u32, rdata: Vec<u8>) {
        match self.fixed.iter_mut().find(|rrset| rrset.rtype == rtype) {
            Some(rrset) if rrset.rdata.contains(&rdata) => {}
            Some(rrset) => rrset.rdata.push(rdata),
            None => self.fixed.push(FixedRrset { rtype, ttl_s, rdata: vec![rdata] }),
        }
    }
}

/// Where a question's name was found.
pub(super) struct Found<'a> {
    /// The innermost zone that contains it.
    pub zone: &'a ZoneRecords,
    /// Where that zone's apex begins in the name.
    pub apex_at: usize,
    pub place: Place<'a>,
}

/// What there is at a name of a zone.
pub(super) enum Place<'a> {
    /// This, by its own name or by a wildcard's.
    Node(&'a Node),
    /// The name is at or below one whose zone others have. `at` is where the delegated name begins.
    Cut { ns: &'a FixedRrset, at: usize },
    /// No such name.
    Nothing,
}

/// A snapshot prepared for answering: names by wire form, records rendered once. Never changed but
/// for the round robin's positions; a new snapshot gets a new index.
#[derive(Debug)]
pub struct Index {
    generation: u64,
    zones: Vec<ZoneRecords>,
    services: Vec<Published>,
    /// Every name that exists, empty non-terminals too, lower case in wire form.
    nodes: HashMap<Vec<u8>, Node>,
}

impl Index {
    /// Renders a snapshot.
    ///
    /// # Errors
    /// [`IndexError`] where a name is no name, stands twice, or is in no zone.
    pub fn new(snapshot: &Snapshot) -> Result<Self, IndexError> {
        let mut index = Self {
            generation: snapshot.generation,
            zones: Vec::with_capacity(snapshot.zones.len()),
            services: Vec::with_capacity(snapshot.services.len()),
            nodes: HashMap::new(),
        };
        for zone in &snapshot.zones {
            index.add_apex(zone, snapshot.generation)?;
        }
        for apex in index.zones.iter().map(|zone| zone.apex.clone()).collect::<Vec<_>>() {
            index.add_ancestors(&apex);
        }
        // After all apexes, for a name belongs to the innermost zone that contains it.
        for (number, zone) in snapshot.zones.iter().enumerate() {
            for record in &zone.records {
                index.add_record(number, zone, record)?;
            }
        }
        for service in &snapshot.services {
            index.add_service(service)?;
        }
        index.add_nameservers(&snapshot.zones)?;
        Ok(index)
    }

    /// Number of the snapshot.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its services in the snapshot's order: what is to be published in the kernel.
    #[must_use]
    pub fn published(&self) -> &[Published] {
        &self.services
    }

    fn add_apex(&mut self, zone: &Zone, generation: u64) -> Result<(), IndexError> {
        let apex = absolute("zone", &zone.apex)?;
        let primary = absolute("primary name server", &zone.primary)?;
        let contact = absolute("zone contact", &zone.contact)?;
        let encode = |source| RenderError { owner: zone.apex.clone(), source };
        let (mut ns, mut targets) = (Vec::new(), Vec::new());
        for target in &zone.nameservers {
            ns.push(Template::ns(&apex, &absolute("name server", target)?).map_err(encode)?);
            targets.push(name_bytes("name server", target)?);
        }
        if ns.is_empty() {
            return Err(IndexError::NoNameserver { apex: zone.apex.clone() });
        }
        let records = ZoneRecords {
            // Without a master file: serials wrap by RFC 1982; the generation rises, so its low half is one.
            // Refresh, retry and expire speak to secondaries, which there are none of: usual values.
            soa: Template::soa(
                &apex,
                [primary, contact],
                zone.authority.map_or([generation as u32, 3600, 600, 604_800, zone.negative_ttl_s], |told| {
                    [told.serial, told.refresh_s, told.retry_s, told.expire_s, zone.negative_ttl_s]
                }),
            )
            .map_err(encode)?,
            ns,
            targets,
            ttl_s: zone.ttl_s,
            ns_ttl_s: zone.authority.map_or(zone.ttl_s, |told| told.ns_ttl_s),
            negative_ttl_s: zone.ttl_s.min(zone.negative_ttl_s),
            apex: name_bytes("zone", &zone.apex)?,
            has_cuts: false,
            has_wildcards: false,
        };
        let node = self.nodes.entry(records.apex.clone()).or_default();
        if node.zone.replace(self.zones.len()).is_some() {
            return Err(IndexError::DuplicateZone { apex: zone.apex.clone() });
        }
        self.zones.push(records);
        Ok(())
    }

    fn add_record(&mut self, number: usize, zone: &Zone, record: &ZoneRecord) -> Result<(), IndexError> {
        let name = name_bytes("record's name", &record.name)?;
        if self.zone_of(&name).is_none_or(|(innermost, _)| innermost != number) {
            return Err(IndexError::RecordOutside { apex: zone.apex.clone(), name: record.name.clone() });
        }
        let node = self.nodes.entry(name.clone()).or_default();
        node.add(record.rtype, record.ttl_s, record.rdata.clone());
        self.zones[number].has_cuts |= node.is_cut();
        self.zones[number].has_wildcards |= is_wildcard(&name);
        self.add_ancestors(&name);
        Ok(())
    }

    /// A name server in a zone of ours exists and has addresses: those of a record or a service of its name, or
    /// those that the zones say which name it. With none at all it still exists, for NXDOMAIN would make
    /// resolvers take the delegation for broken.
    fn add_nameservers(&mut self, zones: &[Zone]) -> Result<(), IndexError> {
        let mut added: HashMap<Vec<u8>, Vec<IpAddr>> = HashMap::new();
        // What a master file does not say is not there.
        for zone in zones.iter().filter(|zone| zone.authority.is_none()) {
            for target in zone.nameservers.iter().chain([&zone.primary]) {
                let name = name_bytes("name server", target)?;
                if self.zone_of(&name).is_some() {
                    added.entry(name).or_default().extend(&zone.nameserver_addresses);
                }
            }
        }
        for (name, addresses) in added {
            let ttl_s = self.zone_of(&name).map_or(0, |(zone, _)| zones[zone].ttl_s);
            let node = self.nodes.entry(name.clone()).or_default();
            let told = [TYPE_A, TYPE_AAAA, TYPE_CNAME].iter().any(|rtype| node.fixed(*rtype).is_some());
            if node.service.is_none() && !told {
                for address in addresses {
                    match address {
                        IpAddr::V4(address) => node.add(TYPE_A, ttl_s, address.octets().to_vec()),
                        IpAddr::V6(address) => node.add(TYPE_AAAA, ttl_s, address.octets().to_vec()),
                    }
                }
            }
            self.add_ancestors(&name);
        }
        Ok(())
    }

    fn add_service(&mut self, service: &PublishedService) -> Result<(), IndexError> {
        let rrsets = rrsets(service)?;
        let mut names = Vec::with_capacity(service.names.len());
        for text in &service.names {
            let name = name_bytes("service name", text)?;
            if self.zone_of(&name).is_none() {
                let service = service.name.to_string();
                return Err(IndexError::OutsideZones { service, name: text.clone() });
            }
            let node = self.nodes.entry(name.clone()).or_default();
            if node.service.replace(self.services.len()).is_some() {
                let service = service.name.to_string();
                return Err(IndexError::DuplicateName { service, name: text.clone() });
            }
            self.add_ancestors(&name);
            names.push(name);
        }
        // Each generation begins at another turn, so that frequent ones do not favour the first.
        let begin = || AtomicUsize::new(self.generation as usize);
        let cursors = rrsets.iter().map(|_| begin()).collect();
        self.services.push(Published { index: service.index, names, rrsets, ttl_s: service.ttl_s, cursors });
        Ok(())
    }

    /// Makes the names between a name and the apex above it exist (empty non-terminals, RFC 8020).
    fn add_ancestors(&mut self, name: &[u8]) {
        for (_, ancestor) in suffixes(name).skip(1) {
            if self.zone_of(ancestor).is_none() {
                break;
            }
            self.nodes.entry(ancestor.to_vec()).or_default();
        }
    }

    /// The innermost zone that contains a lower-case name, and where its apex begins.
    fn zone_of(&self, name: &[u8]) -> Option<(usize, usize)> {
        suffixes(name).find_map(|(at, suffix)| self.nodes.get(suffix)?.zone.map(|zone| (zone, at)))
    }

    /// Looks a question's name up; `None` where it is in none of our zones.
    pub(super) fn find(&self, name: &[u8]) -> Option<Found<'_>> {
        let mut buffer = [0; MAX_NAME_BYTES];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        // Lengths are below every letter, so folding the whole folds the labels only.
        lower.make_ascii_lowercase();
        let lower = &*lower;
        let (zone, apex_at) = self.zone_of(lower)?;
        let zone = &self.zones[zone];
        let place = match self.cut(zone, lower, apex_at) {
            Some(cut) => cut,
            None => match self.nodes.get(lower) {
                Some(node) => Place::Node(node),
                None => self.wildcard(zone, lower).map_or(Place::Nothing, Place::Node),
            },
        };
        Some(Found { zone, apex_at, place })
    }

    /// The delegation that a name is at or below: the highest, for what is below it is not ours.
    fn cut(&self, zone: &ZoneRecords, name: &[u8], apex_at: usize) -> Option<Place<'_>> {
        if !zone.has_cuts {
            return None;
        }
        let below_apex = suffixes(name).take_while(|(at, _)| *at < apex_at);
        let cuts = below_apex.filter_map(|(at, suffix)| {
            let node = self.nodes.get(suffix).filter(|node| node.is_cut())?;
            Some(Place::Cut { ns: node.fixed(TYPE_NS)?, at })
        });
        cuts.last()
    }

    /// The wildcard that stands for a name that does not exist: the one below its closest encloser (RFC 4592).
    fn wildcard(&self, zone: &ZoneRecords, name: &[u8]) -> Option<&Node> {
        if !zone.has_wildcards {
            return None;
        }
        let (_, encloser) = suffixes(name).skip(1).find(|(_, suffix)| self.nodes.contains_key(*suffix))?;
        self.nodes.get(&wildcard_of(encloser))
    }

    /// Every name that exists, in wire form, with what stands there.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(name, node)| (name.as_slice(), node))
    }

    /// What stands at a name in wire form and lower case.
    pub(super) fn node(&self, name: &[u8]) -> Option<&Node> {
        self.nodes.get(name)
    }
}

//! A snapshot prepared for answering.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::ProtoError;
use hickory_proto::rr::Name;
use xdp_balancer_common::MAX_NAME_BYTES;

use super::render::{RenderError, RenderedAnswer, RenderedRrset, Template, rrsets, wire};
use crate::model::{PublishedService, Snapshot, Zone};

/// Why a snapshot cannot be answered from.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A name has no wire form.
    #[error("{what} {name:?} is not a domain name: {source}")]
    Name {
        /// What it names.
        what: &'static str,
        /// The text.
        name: String,
        /// What is wrong with it.
        source: ProtoError,
    },
    /// A name without the final dot.
    #[error("{what} {name:?} must end in a dot")]
    Relative {
        /// What it names.
        what: &'static str,
        /// The text.
        name: String,
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
    /// A record could not be encoded.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl IndexError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Name { .. } => "name",
            Self::Relative { .. } => "relative",
            Self::DuplicateZone { .. } => "duplicate_zone",
            Self::NoNameserver { .. } => "no_nameserver",
            Self::DuplicateName { .. } => "duplicate_name",
            Self::OutsideZones { .. } => "outside_zones",
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
    pub ttl_s: u32,
    /// TTL of the SOA in negative answers (RFC 2308, section 3).
    pub negative_ttl_s: u32,
    apex: Vec<u8>,
}

/// What stands at a name that exists.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Node {
    pub service: Option<usize>,
    /// The zone whose apex it is.
    pub zone: Option<usize>,
}

/// Where a question's name was found.
pub(super) struct Found<'a> {
    /// The innermost zone that contains it.
    pub zone: &'a ZoneRecords,
    /// Where that zone's apex begins in the name.
    pub apex_at: usize,
    /// `None`: no such name.
    pub node: Option<Node>,
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
        // After all apexes, for a name belongs to the innermost zone that contains it.
        for zone in &snapshot.zones {
            index.add_nameservers(zone)?;
        }
        for apex in index.zones.iter().map(|zone| zone.apex.clone()).collect::<Vec<_>>() {
            index.add_ancestors(&apex);
        }
        for service in &snapshot.services {
            index.add_service(service)?;
        }
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
        absolute("primary name server", &zone.primary)?;
        absolute("zone contact", &zone.contact)?;
        let encode = |source| RenderError { owner: zone.apex.clone(), source };
        let mut ns = Vec::with_capacity(zone.nameservers.len());
        for target in &zone.nameservers {
            ns.push(Template::ns(&apex, &absolute("name server", target)?).map_err(encode)?);
        }
        if ns.is_empty() {
            return Err(IndexError::NoNameserver { apex: zone.apex.clone() });
        }
        let records = ZoneRecords {
            // Serials wrap by RFC 1982; the generation rises, so its low half is one.
            soa: Template::soa(&apex, zone, generation as u32).map_err(encode)?,
            ns,
            ttl_s: zone.ttl_s,
            negative_ttl_s: zone.ttl_s.min(zone.negative_ttl_s),
            apex: wire(&apex).map_err(encode)?,
        };
        let node = self.nodes.entry(records.apex.clone()).or_default();
        if node.zone.replace(self.zones.len()).is_some() {
            return Err(IndexError::DuplicateZone { apex: zone.apex.clone() });
        }
        self.zones.push(records);
        Ok(())
    }

    /// A name server in a zone of ours exists, though its addresses are not ours to tell: NODATA, for
    /// NXDOMAIN would make resolvers take the delegation for broken.
    fn add_nameservers(&mut self, zone: &Zone) -> Result<(), IndexError> {
        for target in zone.nameservers.iter().chain([&zone.primary]) {
            let name = name_bytes("name server", target)?;
            if self.zone_of(&name).is_some() {
                self.nodes.entry(name.clone()).or_default();
                self.add_ancestors(&name);
            }
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
        let (zone, apex_at) = self.zone_of(lower)?;
        Some(Found { zone: &self.zones[zone], apex_at, node: self.nodes.get(&*lower).copied() })
    }
}

/// The name itself and every ancestor with the offset at which it begins, down to the root.
fn suffixes(name: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let next = |at: &usize| match name.get(*at) {
        None | Some(0) => None,
        Some(length) => Some(at + 1 + usize::from(*length)),
    };
    std::iter::successors(Some(0), next).filter_map(|at| Some((at, name.get(at..)?)))
}

fn absolute(what: &'static str, text: &str) -> Result<Name, IndexError> {
    let name = Name::from_ascii(text).map_err(|source| IndexError::Name { what, name: text.to_owned(), source })?;
    if name.is_fqdn() { Ok(name) } else { Err(IndexError::Relative { what, name: text.to_owned() }) }
}

fn name_bytes(what: &'static str, text: &str) -> Result<Vec<u8>, IndexError> {
    wire(&absolute(what, text)?).map_err(|source| IndexError::Name { what, name: text.to_owned(), source })
}

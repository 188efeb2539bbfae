//! A snapshot prepared for answering.

use std::sync::Arc;

use xdp_balancer_common::MAX_NAME_BYTES;

use super::error::IndexError;
use super::layout::{Absent, Alias, ChangingNode, Cut, End, Layout, Node, Place, Rrset, Source, Standing, any_of};
use super::records::{Chain, FixedRrset, negative};
use super::render::{RCODE_BITS, RenderError, RenderedRrset, rrsets};
use super::turns::Ring;
use super::wire::{suffixes, wildcard_of};
use super::{NXDOMAIN, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_DS, TYPE_SOA};
use crate::model::{Basis, PublishedService, ServiceName, Snapshot, Summon};

/// Longest time in seconds that a client may remember that a service has no backend: one may come
/// at any moment.
const NO_BACKEND_TTL_S: u32 = 5;

/// How a service's RRsets are rendered.
pub(super) trait Render: Fn(&PublishedService) -> Result<Vec<RenderedRrset>, RenderError> {}

impl<F: Fn(&PublishedService) -> Result<Vec<RenderedRrset>, RenderError>> Render for F {}

/// A service's answers.
#[derive(Debug)]
struct Service {
    /// What they were made from.
    origin: Arc<PublishedService>,
    /// By type; none where nothing is published. A ring without records is an answer too: the service's policy says
    /// NODATA, or a code.
    rings: Vec<(u16, Arc<Ring>)>,
}

/// What a zone says of itself; its SOA bears the generation.
#[derive(Debug)]
pub(super) struct ZoneAnswers {
    soa: Arc<Ring>,
    pub nodata: Arc<Ring>,
    pub nxdomain: Arc<Ring>,
    serial: u32,
}

/// What a [`Source`] of the layout makes of a snapshot.
#[derive(Debug)]
pub(super) struct Answers {
    /// Index of the counters of the service that the name leads to.
    pub service: Option<u32>,
    pub rrsets: Vec<Rrset>,
    pub others: Others,
    /// NODATA for a service that may have something to say soon. This and the next so that the index after this one
    /// finds what it can keep.
    for_now: Option<Arc<Ring>>,
    /// An alias's rings by those of its end.
    derived: Vec<(Arc<Ring>, Arc<Ring>)>,
}

/// What all types get that have no RRset.
#[derive(Debug)]
pub(super) enum Others {
    Ring(Arc<Ring>),
    /// The alias leads to this cut.
    Referral {
        chain: Chain,
        cut: usize,
    },
}

/// What stands at a name.
#[derive(Clone, Copy)]
pub(super) struct Answered<'a> {
    pub service: Option<u32>,
    pub rrsets: &'a [Rrset],
    pub others: OthersOf<'a>,
}

/// As [`Others`].
#[derive(Clone, Copy)]
pub(super) enum OthersOf<'a> {
    Ring(&'a Arc<Ring>),
    Referral { chain: &'a Chain, cut: &'a Cut },
}

/// What there is at a question's name.
pub(super) enum Found<'a> {
    /// This, by its own name or by a wildcard's.
    Name(Answered<'a>),
    /// The name is at or below one that others have, which begins at `at` in it.
    Cut { zone: &'a ZoneAnswers, cut: &'a Cut, at: usize },
    /// The name is below one that has this DNAME, which begins at `at` in it.
    Redirected { dname: &'a FixedRrset, at: usize },
    /// No such name.
    Nothing(&'a ZoneAnswers),
}

/// A snapshot prepared for answering: names by wire form, records rendered once. Never changed but
/// for the round robin's positions; a new snapshot gets a new index, which keeps what it can of the one before.
#[derive(Debug)]
pub struct Index {
    generation: u64,
    layout: Arc<Layout>,
    zones: Vec<ZoneAnswers>,
    services: Vec<Service>,
    /// By source of the layout.
    made: Vec<Answers>,
}

impl Index {
    /// Renders a snapshot.
    ///
    /// # Errors
    /// [`IndexError`] where a name is no name, stands twice, or is in no zone.
    pub fn new(snapshot: &Snapshot) -> Result<Self, IndexError> {
        Self::build(None, snapshot, rrsets)
    }

    /// Renders a snapshot that comes after another: what is the same in both is rendered no more, and its rings are
    /// the same by their pointers.
    ///
    /// # Errors
    /// As of [`Index::new`].
    pub fn next(&self, snapshot: &Snapshot) -> Result<Self, IndexError> {
        Self::build(Some(self), snapshot, rrsets)
    }

    /// With answers of services that no snapshot asks for.
    #[cfg(test)]
    pub(super) fn with(snapshot: &Snapshot, render: impl Render) -> Result<Self, IndexError> {
        Self::build(None, snapshot, render)
    }

    fn build(previous: Option<&Self>, snapshot: &Snapshot, render: impl Render) -> Result<Self, IndexError> {
        let layout = Layout::next(previous.map(|previous| &previous.layout), snapshot)?;
        // Numbers of zones and sources mean the same in the previous index only where the layout is the same.
        let same = previous.filter(|previous| Arc::ptr_eq(&previous.layout, &layout));
        let mut index = Self {
            generation: snapshot.generation,
            zones: Vec::with_capacity(layout.zones.len()),
            services: Vec::with_capacity(snapshot.services.len()),
            made: Vec::with_capacity(layout.sources.len()),
            layout: Arc::clone(&layout),
        };
        for (place, service) in snapshot.services.iter().enumerate() {
            let before = previous.and_then(|previous| previous.service(place, service));
            index.services.push(Service::new(service, snapshot.generation, before, &render)?);
        }
        for zone in 0..layout.zones.len() {
            index.zones.push(index.zone_answers(zone, same.and_then(|same| same.zones.get(zone))));
        }
        for (number, source) in layout.sources.iter().enumerate() {
            let before = same.and_then(|same| same.made.get(number));
            let made = match source {
                Source::Node(node) => index.changing(node, before),
                Source::Alias(alias) => index.alias(alias, before),
            };
            index.made.push(made);
        }
        Ok(index)
    }

    /// Number of the snapshot.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How the queries of the service with this index start it, and its name; `None` unless it is cold.
    pub(super) fn cold(&self, index: u32) -> Option<(&ServiceName, &Summon)> {
        let service = self.services.iter().find(|service| service.origin.index == index)?;
        let summon = service.origin.summon.as_ref().filter(|_| service.origin.basis == Basis::Cold)?;
        Some((&service.origin.name, summon))
    }

    /// The name of the service with this index.
    pub(super) fn service_name(&self, index: u32) -> Option<&ServiceName> {
        self.services.iter().find(|service| service.origin.index == index).map(|service| &service.origin.name)
    }

    /// The service of the same name, most likely at the same place.
    fn service(&self, place: usize, service: &PublishedService) -> Option<&Service> {
        let named = |known: &&Service| known.origin.name == service.name;
        self.services.get(place).filter(named).or_else(|| self.services.iter().find(named))
    }

    fn zone_answers(&self, zone: usize, before: Option<&ZoneAnswers>) -> ZoneAnswers {
        let apex = &self.layout.zones[zone];
        // Serials wrap by RFC 1982; the generation rises, so its low half is one.
        let serial = self.generation as u32;
        let soa = |ttl_s| apex.soa.rrset(serial, ttl_s);
        let no = |rcode| Ring::single(negative(&apex.wire, &soa(apex.negative_ttl_s), rcode));
        ZoneAnswers {
            soa: kept(before.map(|before| &before.soa), Ring::single(soa(apex.soa_ttl_s).answer())),
            nodata: kept(before.map(|before| &before.nodata), no(0)),
            nxdomain: kept(before.map(|before| &before.nxdomain), no(NXDOMAIN)),
            serial,
        }
    }

    /// NODATA of a zone for a service that may have something to say soon.
    fn nodata_for_now(&self, zone: usize, service_ttl_s: u32) -> Ring {
        let apex = &self.layout.zones[zone];
        let ttl_s = apex.negative_ttl_s.min(service_ttl_s).min(NO_BACKEND_TTL_S);
        Ring::single(negative(&apex.wire, &apex.soa.rrset(self.zones[zone].serial, ttl_s), 0))
    }

    fn changing(&self, node: &ChangingNode, before: Option<&Answers>) -> Answers {
        let zone = &self.zones[node.zone];
        let mut rrsets = Vec::new();
        let mut others = Arc::clone(&zone.nodata);
        let mut for_now = None;
        let service = node.service.and_then(|service| self.services.get(service));
        if let Some(service) = service {
            let idle = service.rings.is_empty();
            if idle || service.rings.iter().any(|(_, ring)| is_silent(ring)) {
                let known = before.and_then(|before| before.for_now.as_ref());
                for_now = Some(kept(known, self.nodata_for_now(node.zone, service.origin.ttl_s)));
            }
            for (qtype, ring) in &service.rings {
                let silent = for_now.as_ref().filter(|_| is_silent(ring));
                let standing = if service.origin.basis == Basis::Cold { Standing::Cold } else { Standing::Published };
                rrsets.push(Rrset { qtype: *qtype, ring: Arc::clone(silent.unwrap_or(ring)), standing });
            }
            // The same types whether it is at zero or not: then waking it is a store of a word each, and no other table.
            let always = service.origin.summon.iter().flat_map(|_| [TYPE_A, TYPE_AAAA]);
            let missing: Vec<u16> = always.filter(|qtype| service.rings.iter().all(|(of, _)| of != qtype)).collect();
            rrsets.extend(missing.into_iter().map(|qtype| Rrset::new(qtype, Arc::clone(&zone.nodata))));
            if let Some(for_now) = for_now.as_ref().filter(|_| idle) {
                let ring = |qtype| Rrset { qtype, ring: Arc::clone(for_now), standing: Standing::Idle };
                rrsets.extend([TYPE_A, TYPE_AAAA].map(ring));
                others = Arc::clone(for_now);
            }
        }
        let taken = |rrsets: &[Rrset], qtype: u16| rrsets.iter().any(|rrset| rrset.qtype == qtype);
        for rrset in &node.own {
            if !taken(&rrsets, rrset.qtype) {
                rrsets.push(rrset.clone());
            }
        }
        if node.is_apex {
            rrsets.push(Rrset::new(TYPE_SOA, Arc::clone(&zone.soa)));
        }
        // A zone's DS are its parent's to tell (RFC 4035, 3.1.4.1), and ours says that there are none.
        if let Some(parent) = node.parent
            && !taken(&rrsets, TYPE_DS)
        {
            rrsets.push(Rrset::new(TYPE_DS, Arc::clone(&self.zones[parent].nodata)));
        }
        rrsets.extend(any_of(&rrsets));
        let service = service.map(|service| service.origin.index);
        Answers { service, rrsets, others: Others::Ring(others), for_now, derived: Vec::new() }
    }

    fn alias(&self, alias: &Alias, before: Option<&Answers>) -> Answers {
        let mut derived = Vec::new();
        let mut behind = |name: &[u8], base: &Arc<Ring>| {
            let known = |pairs: &[(Arc<Ring>, Arc<Ring>)]| {
                pairs.iter().find(|(of, _)| Arc::ptr_eq(of, base)).map(|(_, ring)| Arc::clone(ring))
            };
            known(&derived).unwrap_or_else(|| {
                let kept = before.and_then(|before| known(&before.derived));
                let ring = kept.unwrap_or_else(|| Arc::new(base.map(|answer| alias.chain.before(name, answer))));
                derived.push((Arc::clone(base), Arc::clone(&ring)));
                ring
            })
        };
        let mut rrsets = alias.own.clone();
        let mut service = None;
        let others = match &alias.end {
            End::Left(ring) => Others::Ring(Arc::clone(ring)),
            End::Denied { zone } => Others::Ring(behind(&[], &self.zones[*zone].nxdomain)),
            End::Cut { zone, cut, exact } => {
                if *exact {
                    let ds = self.layout.cuts[*cut].ds.as_ref().unwrap_or(&self.zones[*zone].nodata);
                    rrsets.push(Rrset::new(TYPE_DS, behind(&self.layout.cuts[*cut].name, ds)));
                }
                Others::Referral { chain: alias.chain.clone(), cut: *cut }
            }
            End::Fixed { name, zone, rrsets: there } => {
                rrsets.extend(there.iter().map(|rrset| Rrset::new(rrset.qtype, behind(name, &rrset.ring))));
                Others::Ring(behind(name, &self.zones[*zone].nodata))
            }
            // Its source is no alias, so it has been made before this.
            End::Made { name, source } => {
                let there = &self.made[*source];
                service = there.service;
                let data = there.rrsets.iter().filter(|rrset| rrset.qtype != TYPE_ANY);
                rrsets.extend(data.map(|rrset| Rrset { ring: behind(name, &rrset.ring), ..rrset.clone() }));
                match &there.others {
                    Others::Ring(ring) => Others::Ring(behind(name, ring)),
                    Others::Referral { chain, cut } => Others::Referral { chain: chain.clone(), cut: *cut },
                }
            }
        };
        Answers { service, rrsets, others, for_now: None, derived }
    }

    /// Whether a zone of ours has this name.
    pub(super) fn is_apex(&self, name: &[u8]) -> bool {
        let lower = name.to_ascii_lowercase();
        self.layout.nodes.get(lower.as_slice()).is_some_and(|node| self.layout.zones[node.zone].wire == lower)
    }

    /// Looks a question's name up; `None` where it is in none of our zones.
    pub(super) fn find(&self, name: &[u8]) -> Option<Found<'_>> {
        let mut buffer = [0; MAX_NAME_BYTES];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        // Lengths are below every letter, so folding the whole folds the labels only.
        lower.make_ascii_lowercase();
        let lower = &*lower;
        let nodes = &self.layout.nodes;
        // The name itself or its closest encloser. Zones have no holes: every ancestor up to the apex exists.
        let (at, encloser, node) = suffixes(lower).find_map(|(at, suffix)| Some((at, suffix, nodes.get(suffix)?)))?;
        let zone = &self.zones[node.zone];
        Some(match &node.place {
            Place::Delegated(cut) => {
                let cut = &self.layout.cuts[*cut];
                Found::Cut { zone, cut, at: lower.len().saturating_sub(cut.name.len()) }
            }
            _ if at == 0 => Found::Name(self.answered(node)?),
            _ => match &node.absent {
                Absent::Denied => Found::Nothing(zone),
                Absent::Wildcard => Found::Name(self.answered(nodes.get(wildcard_of(encloser).as_slice())?)?),
                Absent::Redirected(dname) => Found::Redirected { dname, at },
            },
        })
    }

    /// What stands at a node; `None` where that is not ours to say.
    pub(super) fn answered<'a>(&'a self, node: &'a Node) -> Option<Answered<'a>> {
        match &node.place {
            Place::Fixed(rrsets) => {
                let others = OthersOf::Ring(&self.zones[node.zone].nodata);
                Some(Answered { service: None, rrsets, others })
            }
            Place::Made(source) => {
                let Answers { service, rrsets, others, .. } = &self.made[*source];
                let others = match others {
                    Others::Ring(ring) => OthersOf::Ring(ring),
                    Others::Referral { chain, cut } => OthersOf::Referral { chain, cut: &self.layout.cuts[*cut] },
                };
                Some(Answered { service: *service, rrsets, others })
            }
            Place::Delegated(_) => None,
        }
    }

    /// Every name that exists, in wire form, and the zone that has it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node, &ZoneAnswers)> {
        self.layout.nodes.iter().map(|(name, node)| (&**name, node, &self.zones[node.zone]))
    }
}

impl Service {
    fn new(
        service: &PublishedService,
        generation: u64,
        before: Option<&Self>,
        render: &impl Render,
    ) -> Result<Self, IndexError> {
        if let Some(before) = before.filter(|before| *before.origin == *service) {
            return Ok(Self { origin: Arc::clone(&before.origin), rings: before.rings.clone() });
        }
        let ring_before = |qtype: u16| before?.rings.iter().find(|(of, _)| *of == qtype).map(|(_, ring)| ring);
        let mut rings = Vec::new();
        for rrset in render(service)? {
            let qtype = rrset.qtype;
            // Each new ring begins at another turn, so that frequent ones do not favour the first.
            if let Some(ring) = Ring::of(rrset, generation as usize) {
                rings.push((qtype, kept(ring_before(qtype), ring)));
            }
        }
        Ok(Self { origin: Arc::new(service.clone()), rings })
    }
}

/// The ring of the index before, if it says the same.
fn kept(before: Option<&Arc<Ring>>, made: Ring) -> Arc<Ring> {
    before.filter(|before| ***before == made).map_or_else(|| Arc::new(made), Arc::clone)
}

/// Whether a ring says NOERROR without a record: the service's zone has to say NODATA for it.
fn is_silent(ring: &Ring) -> bool {
    ring.answers.iter().all(|answer| answer.bytes.is_empty() && answer.flags & RCODE_BITS == 0)
}

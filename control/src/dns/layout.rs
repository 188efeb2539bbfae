//! All of a snapshot that does not change from one publication to the next: its names, what stands there, and the
//! answers with records of zones. Made anew only where zones, services or their names change.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::draft::{Apex, Bound, Draft, Entry, Located};
use super::error::IndexError;
use super::records::{Chain, FixedRrset, QUESTION_OWNER};
use super::render::RenderedAnswer;
use super::turns::Ring;
use super::wire::{is_wildcard, suffixes};
use super::{TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_CNAME, TYPE_DS, TYPE_NS, TYPE_SOA, YXDOMAIN};
use crate::model::{Snapshot, Zone};

/// Most aliases that one reply follows.
pub(super) const MAX_ALIASES: usize = 32;

/// What questions of one type for a name get.
#[derive(Debug, Clone)]
pub(super) struct Rrset {
    pub qtype: u16,
    pub ring: Arc<Ring>,
    pub standing: Standing,
}

/// Who says what an RRset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The kernel and the daemon.
    Published,
    /// The daemon alone: it belongs to a service that has nothing published now.
    Idle,
    /// The daemon alone, and only where the service's instance does not come in time: its queries are held.
    Cold,
}

impl Rrset {
    pub(super) fn new(qtype: u16, ring: Arc<Ring>) -> Self {
        Self { qtype, ring, standing: Standing::Published }
    }
}

/// The RRset that answers ANY (RFC 8482, 4.1): A, else AAAA, else an apex's SOA, else any.
pub(super) fn any_of(rrsets: &[Rrset]) -> Option<Rrset> {
    let of = |qtype: u16| rrsets.iter().find(|rrset| rrset.qtype == qtype);
    let chosen = of(TYPE_A).or_else(|| of(TYPE_AAAA)).or_else(|| of(TYPE_SOA)).or_else(|| rrsets.first())?;
    Some(Rrset { qtype: TYPE_ANY, ..chosen.clone() })
}

/// A name that exists.
#[derive(Debug)]
pub(super) struct Node {
    /// The innermost zone that contains it.
    pub zone: usize,
    pub place: Place,
    pub absent: Absent,
}

impl Node {
    fn new(zone: usize, place: Place) -> Self {
        Self { zone, place, absent: Absent::Denied }
    }
}

/// What stands for the names below a name that do not exist.
#[derive(Debug)]
pub(super) enum Absent {
    Denied,
    /// The wildcard below it.
    Wildcard,
    /// Its DNAME. There are no other names below it, but for those of zones of their own.
    Redirected(Box<FixedRrset>),
}

/// What stands at a name.
#[derive(Debug)]
pub(super) enum Place {
    /// These RRsets; all other types have the zone's NODATA. None: an empty non-terminal.
    Fixed(Box<[Rrset]>),
    /// What this source makes with each snapshot.
    Made(usize),
    /// Others have it: it is at or below this cut.
    Delegated(usize),
}

/// What changes with each snapshot at some names.
#[derive(Debug)]
pub(super) enum Source {
    Node(ChangingNode),
    Alias(Alias),
}

/// A name of a service, or an apex, whose SOA bears the generation.
#[derive(Debug)]
pub(super) struct ChangingNode {
    pub zone: usize,
    pub service: Option<usize>,
    pub is_apex: bool,
    /// The zone above an apex, where that is ours too.
    pub parent: Option<usize>,
    /// Its RRsets that do not change.
    pub own: Vec<Rrset>,
}

/// A name with a CNAME.
#[derive(Debug)]
pub(super) struct Alias {
    /// The CNAME itself, and ANY.
    pub own: Vec<Rrset>,
    pub chain: Chain,
    pub end: End,
}

/// Where an alias leads.
#[derive(Debug)]
pub(super) enum End {
    /// Out of our zones, to itself, or too far: the client goes on. The answer is the chain. Or to what is too long for
    /// a name.
    Left(Arc<Ring>),
    /// To a name that does not exist in this zone.
    Denied { zone: usize },
    /// To a name at (`exact`) or below this cut of this zone.
    Cut { zone: usize, cut: usize, exact: bool },
    /// To `name`, where these RRsets of this zone stand.
    Fixed { name: Vec<u8>, zone: usize, rrsets: Vec<Rrset> },
    /// To `name`, where this source's answers stand, which is no alias.
    Made { name: Vec<u8>, source: usize },
}

/// A delegation.
#[derive(Debug)]
pub(super) struct Cut {
    /// The delegated name.
    pub name: Vec<u8>,
    pub ns: FixedRrset,
    /// Its DS, which are the parent's to tell (RFC 4035, 3.1.4.1).
    pub ds: Option<Arc<Ring>>,
    pub glue: Vec<Glue>,
}

/// A name server's addresses, as far as they are ours to tell.
#[derive(Debug)]
pub(super) struct Glue {
    /// Which of the NS it is.
    pub server: usize,
    /// It lies in the delegated zone, which cannot be reached without them (RFC 9471).
    pub needed: bool,
    pub rrsets: Vec<FixedRrset>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Layout {
    /// What it was made from.
    origin: Origin,
    pub zones: Vec<Apex>,
    /// Every name that exists, in wire form and lower case.
    pub nodes: HashMap<Box<[u8]>, Node>,
    /// Those that are no aliases stand before those that are.
    pub sources: Vec<Source>,
    pub cuts: Vec<Cut>,
    /// Every ring of one answer in `nodes` and `sources`, each once.
    rings: Known,
}

/// The part of a snapshot that makes a layout.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    zones: Vec<Arc<Zone>>,
    service_names: Vec<Vec<String>>,
}

impl Origin {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        self.zones == snapshot.zones && self.service_names.iter().eq(snapshot.services.iter().map(|s| &s.names))
    }
}

impl Layout {
    /// The previous layout where it still holds, else a new one with what can be kept of the old.
    pub(super) fn next(previous: Option<&Arc<Self>>, snapshot: &Snapshot) -> Result<Arc<Self>, IndexError> {
        if let Some(previous) = previous.filter(|previous| previous.origin.is_of(snapshot)) {
            return Ok(Arc::clone(previous));
        }
        let draft = Draft::new(snapshot)?;
        let mut builder = Builder {
            draft: &draft,
            rings: Rings { made: Known::default(), old: previous.map(|previous| &previous.rings) },
            nodes: HashMap::with_capacity(draft.names.len()),
            sources: Vec::new(),
            cuts: Vec::new(),
            cut_numbers: HashMap::new(),
        };
        builder.add_cuts();
        let aliases = builder.add_nodes();
        builder.add_aliases(aliases);
        builder.mark_wildcards();
        let Builder { rings: Rings { made: rings, .. }, nodes, sources, cuts, .. } = builder;
        let service_names = snapshot.services.iter().map(|service| service.names.clone()).collect();
        let origin = Origin { zones: snapshot.zones.clone(), service_names };
        Ok(Arc::new(Self { origin, zones: draft.zones, nodes, sources, cuts, rings }))
    }
}

/// A name with a CNAME, which leads to `target`.
struct AliasEntry<'d> {
    name: &'d [u8],
    zone: usize,
    cname: &'d FixedRrset,
    target: &'d [u8],
}

struct Builder<'d> {
    draft: &'d Draft,
    rings: Rings<'d>,
    nodes: HashMap<Box<[u8]>, Node>,
    sources: Vec<Source>,
    cuts: Vec<Cut>,
    cut_numbers: HashMap<&'d [u8], usize>,
}

impl<'d> Builder<'d> {
    fn add_cuts(&mut self) {
        for (name, entry) in &self.draft.names {
            let Located::Cut { cut, exact: true, .. } = self.draft.locate(name) else { continue };
            let Some(ns) = entry.fixed(TYPE_NS) else { continue };
            self.cut_numbers.insert(cut, self.cuts.len());
            let ds = entry.fixed(TYPE_DS).map(|ds| self.rings.single(ds.answer()));
            self.cuts.push(Cut { name: name.clone(), ns: ns.clone(), ds, glue: glue(self.draft, name, ns) });
        }
    }

    /// The number of a delegated name, all of which have been added.
    fn cut_number(&self, name: &[u8]) -> usize {
        self.cut_numbers.get(name).copied().unwrap_or_default()
    }

    /// All names but the aliases, which it returns.
    fn add_nodes(&mut self) -> Vec<AliasEntry<'d>> {
        let mut aliases = Vec::new();
        let mut shared: HashMap<(usize, usize), usize> = HashMap::new();
        for (name, entry) in &self.draft.names {
            let Some((zone, apex_at)) = self.draft.zone_of(name) else { continue };
            let mut node = match self.draft.bound(zone, name, apex_at) {
                Some(Bound::Cut(cut)) => Node::new(zone, Place::Delegated(self.cut_number(cut))),
                // A DNAME hides what stands below it (RFC 6672, 2.4).
                Some(Bound::Dname(_)) => continue,
                None => match entry.alias().filter(|_| entry.service.is_none()) {
                    Some((cname, target)) => {
                        aliases.push(AliasEntry { name, zone, cname, target });
                        continue;
                    }
                    None => Node::new(zone, self.place(zone, name, entry, &mut shared)),
                },
            };
            if let (Some(dname), false) = (entry.dname(), matches!(node.place, Place::Delegated(_))) {
                node.absent = Absent::Redirected(Box::new(dname.clone()));
            }
            self.nodes.insert(name.as_slice().into(), node);
        }
        aliases
    }

    /// What stands at a name that is neither delegated nor an alias. `shared`: sources by service and zone.
    fn place(&mut self, zone: usize, name: &[u8], entry: &Entry, shared: &mut HashMap<(usize, usize), usize>) -> Place {
        let mut own: Vec<Rrset> = entry.fixed.iter().map(|rrset| self.rrset(rrset)).collect();
        match (entry.service, entry.apex) {
            (None, None) => {
                own.extend(any_of(&own));
                Place::Fixed(own.into())
            }
            // Names of a service with nothing beside it have everything in common.
            (Some(service), None) if own.is_empty() => {
                let next = self.sources.len();
                let source = *shared.entry((service, zone)).or_insert(next);
                if source == next {
                    self.add_changing(zone, entry, own, None);
                }
                Place::Made(source)
            }
            (_, apex) => {
                let above = apex.and_then(|_| suffixes(name).nth(1));
                let parent = above.and_then(|(_, above)| self.draft.zone_of(above)).map(|(zone, _)| zone);
                if let Some(apex) = apex {
                    own.retain(|rrset| !matches!(rrset.qtype, TYPE_NS | TYPE_SOA));
                    own.push(self.apex_ns(&self.draft.zones[apex]));
                }
                Place::Made(self.add_changing(zone, entry, own, parent))
            }
        }
    }

    fn add_changing(&mut self, zone: usize, entry: &Entry, own: Vec<Rrset>, parent: Option<usize>) -> usize {
        let (service, is_apex) = (entry.service, entry.apex.is_some());
        self.sources.push(Source::Node(ChangingNode { zone, service, is_apex, parent, own }));
        self.sources.len() - 1
    }

    fn rrset(&mut self, rrset: &FixedRrset) -> Rrset {
        Rrset::new(rrset.rtype, self.rings.single(rrset.answer()))
    }

    /// An apex's NS, with the servers' addresses where they are ours to tell.
    fn apex_ns(&mut self, apex: &Apex) -> Rrset {
        let mut answer = apex.ns.answer();
        for glue in glue(self.draft, &apex.wire, &apex.ns) {
            let Some(owner) = apex.ns.rdata.get(glue.server) else { continue };
            for rrset in &glue.rrsets {
                for rdata in &rrset.rdata {
                    answer.arcount += 1;
                    rrset.append(owner, rdata, &mut answer.bytes);
                }
            }
        }
        Rrset::new(TYPE_NS, self.rings.single(answer))
    }

    /// After all other names, whose answers they have.
    fn add_aliases(&mut self, aliases: Vec<AliasEntry<'d>>) {
        let mut shared: HashMap<(u32, &'d [u8]), usize> = HashMap::new();
        for AliasEntry { name, zone, cname, target } in aliases {
            let known = shared.get(&(cname.ttl_s, target)).copied();
            let source = known.unwrap_or_else(|| {
                let (alias, ends) = self.alias(name, cname, target);
                self.sources.push(Source::Alias(alias));
                let source = self.sources.len() - 1;
                // One that goes in a circle is another from each name in it, whoever came first.
                if ends {
                    shared.insert((cname.ttl_s, target), source);
                }
                source
            });
            self.nodes.insert(name.into(), Node::new(zone, Place::Made(source)));
        }
    }

    /// Follows an alias; also says whether that comes to an end.
    fn alias(&mut self, name: &[u8], cname: &FixedRrset, target: &[u8]) -> (Alias, bool) {
        let own = self.rings.single(FixedRrset { rdata: vec![target.to_vec()], ..cname.clone() }.answer());
        let own = vec![Rrset::new(TYPE_CNAME, Arc::clone(&own)), Rrset::new(TYPE_ANY, own)];
        let mut chain = Chain::default();
        let mut followed: Vec<Vec<u8>> = Vec::new();
        chain.append(&QUESTION_OWNER, cname, target);
        let mut target = target.to_vec();
        let mut ends = true;
        let end = loop {
            let lower = target.to_ascii_lowercase();
            if lower == name || followed.contains(&lower) || followed.len() >= MAX_ALIASES {
                ends = false;
                break self.left(&chain);
            }
            match self.draft.locate(&lower) {
                Located::Outside => break self.left(&chain),
                Located::Nothing { zone } => break End::Denied { zone },
                Located::Cut { zone, cut, exact } => {
                    break End::Cut { zone, cut: self.cut_number(cut), exact };
                }
                Located::Redirected { dname, at } => match chain.redirect(&target, &target, at, dname) {
                    Some(next) => {
                        followed.push(lower);
                        target = next;
                    }
                    None => break End::Left(self.rings.single(chain.answer(YXDOMAIN))),
                },
                Located::Entry { key, entry } => match entry.alias().filter(|_| entry.service.is_none()) {
                    Some((cname, next)) => {
                        followed.push(lower);
                        chain.append(&target, cname, next);
                        target = next.to_vec();
                    }
                    None => break self.end_at(target, key, &chain),
                },
            }
        };
        (Alias { own, chain, end }, ends)
    }

    fn left(&mut self, chain: &Chain) -> End {
        End::Left(self.rings.single(chain.answer(0)))
    }

    fn end_at(&mut self, name: Vec<u8>, key: &[u8], chain: &Chain) -> End {
        match self.nodes.get(key) {
            Some(Node { zone, place: Place::Fixed(rrsets), .. }) => {
                let rrsets = rrsets.iter().filter(|rrset| rrset.qtype != TYPE_ANY).cloned().collect();
                End::Fixed { name, zone: *zone, rrsets }
            }
            Some(Node { place: Place::Made(source), .. }) => End::Made { name, source: *source },
            _ => self.left(chain),
        }
    }

    fn mark_wildcards(&mut self) {
        let wildcards: Vec<&[u8]> = self.draft.names.keys().map(Vec::as_slice).filter(|n| is_wildcard(n)).collect();
        for wildcard in wildcards {
            if !matches!(self.nodes.get(wildcard), Some(Node { place: Place::Delegated(_), .. }) | None)
                && let Some(encloser) = self.nodes.get_mut(&wildcard[2..])
            {
                encloser.absent = Absent::Wildcard;
            }
        }
    }
}

/// Addresses of the servers of `zone` that fixed records of ours tell.
fn glue(draft: &Draft, zone: &[u8], ns: &FixedRrset) -> Vec<Glue> {
    let of = |(server, target): (usize, &Vec<u8>)| {
        let lower = target.to_ascii_lowercase();
        let entry = draft.names.get(&lower)?;
        let rrsets: Vec<_> = [TYPE_A, TYPE_AAAA].iter().filter_map(|rtype| entry.fixed(*rtype).cloned()).collect();
        let needed = suffixes(&lower).any(|(_, suffix)| suffix == zone);
        (!rrsets.is_empty()).then_some(Glue { server, needed, rrsets })
    };
    ns.rdata.iter().enumerate().filter_map(of).collect()
}

/// Rings of one answer, each once.
struct Rings<'o> {
    made: Known,
    /// Those of the layout before.
    old: Option<&'o Known>,
}

#[derive(Debug, Default)]
struct Known(HashSet<ByAnswer>);

impl Rings<'_> {
    fn single(&mut self, answer: RenderedAnswer) -> Arc<Ring> {
        if let Some(known) = self.made.0.get(&answer) {
            return Arc::clone(&known.0);
        }
        let kept = self.old.and_then(|old| old.0.get(&answer)).map(|known| Arc::clone(&known.0));
        let ring = kept.unwrap_or_else(|| Arc::new(Ring::single(answer)));
        self.made.0.insert(ByAnswer(Arc::clone(&ring)));
        ring
    }
}

/// A ring of one answer, found by that, which never changes.
#[derive(Debug)]
struct ByAnswer(Arc<Ring>);

impl Borrow<RenderedAnswer> for ByAnswer {
    fn borrow(&self) -> &RenderedAnswer {
        &self.0.answers[0]
    }
}

impl Hash for ByAnswer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<RenderedAnswer>::borrow(self).hash(state);
    }
}

impl PartialEq for ByAnswer {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<RenderedAnswer>::borrow(self) == Borrow::<RenderedAnswer>::borrow(other)
    }
}

impl Eq for ByAnswer {}

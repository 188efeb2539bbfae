//! What the records of a zone may not do to each other.

use std::collections::BTreeMap;
use std::path::Path;

use super::load::Loaded;
use super::types::type_text;
use super::{CNAME, DNAME, Fault, NS, Place, SOA, ZoneFile};
use crate::model::{Authority, ZoneRecord, show_domain, suffixes};

/// Types that may stand beside a CNAME (RFC 2181, 10.1; RFC 4034, 2.5): SIG, KEY, RRSIG, NSEC.
const BESIDE_CNAME: [u16; 4] = [24, 25, 46, 47];

/// The zone, or what is wrong with it.
pub(super) fn zone(path: &Path, apex: &[u8], loaded: &[Loaded], faults: &mut Vec<Fault>) -> Option<ZoneFile> {
    let mut complain = |place: &Place, what: String, fix: &str| {
        faults.push(Fault { place: place.clone(), what, fix: fix.to_owned() });
    };
    // Sorted by name and type, which keeps the file's order inside an RRset.
    let mut order: Vec<&Loaded> = loaded.iter().collect();
    order.sort_by(|a, b| (&a.owner, a.rtype).cmp(&(&b.owner, b.rtype)));

    let dnames = order.iter().filter(|record| record.rtype == DNAME);
    let dnames: BTreeMap<&[u8], &Place> = dnames.map(|record| (record.owner.as_slice(), &record.place)).collect();

    let (mut soa, mut servers) = (None, Vec::new());
    let mut records = Vec::with_capacity(order.len());
    let mut places = Vec::with_capacity(order.len());
    for of_name in order.chunk_by(|a, b| a.owner == b.owner) {
        let owner = &of_name[0].owner;
        let name = show_domain(owner);
        if !lies_in(owner, apex) {
            if let Some(first) = of_name.iter().map(|record| &record.place).min() {
                let fix = "move it to its own zone, or check $ORIGIN and dots";
                complain(first, format!("{name} is out of zone"), fix);
            }
            continue;
        }
        let above = suffixes(owner).skip(1).find_map(|(_, above)| dnames.get_key_value(above));
        if let Some((dname, place)) = above.filter(|(dname, _)| lies_in(dname, apex)) {
            let what = format!("{name} is below {}, which has a DNAME (line {})", show_domain(dname), place.line);
            complain(&of_name[0].place, what, "remove one: a DNAME stands for all names below its own (RFC 6672, 2.4)");
        }
        alone(of_name, &name, owner == apex, |record, what, fix| complain(&record.place, what, fix));
        for set in of_name.chunk_by(|a, b| a.rtype == b.rtype) {
            let (first, at_apex) = (set[0], owner == apex);
            match first.rtype {
                SOA if !at_apex => {
                    complain(&first.place, format!("{name} has an SOA and is not the apex"), "remove it");
                }
                SOA => {
                    soa = Some(first);
                    if let Some(second) = set.iter().find(|record| record.rdata != first.rdata) {
                        let what = format!("{name} has a second SOA (the first: line {})", first.place.line);
                        complain(&second.place, what, "remove one");
                    }
                }
                NS if at_apex => servers.extend(distinct(set)),
                NS if owner.starts_with(b"\x01*") => {
                    let fix = "delegate each name by itself";
                    complain(&first.place, format!("{name} is a wildcard and has NS"), fix);
                }
                // One RRset has one TTL (RFC 2181, 5.2): the first that the file gives.
                _ => {
                    for record in distinct(set) {
                        places.push(record.place.clone());
                        let (rtype, ttl_s, rdata) = (record.rtype, first.ttl_s, record.rdata.clone());
                        records.push(ZoneRecord { name: name.clone(), rtype, ttl_s, rdata });
                    }
                }
            }
        }
    }
    let whole = Place { file: path.into(), line: 1 };
    if servers.is_empty() {
        complain(&whole, "the zone has no NS records".to_owned(), "name its servers: @ NS ns1");
    }
    let Some(soa) = soa else {
        let fix = "begin with @ SOA PRIMARY CONTACT SERIAL REFRESH RETRY EXPIRE MINIMUM";
        complain(&whole, "the zone has no SOA record".to_owned(), fix);
        return None;
    };
    start(soa, &servers, records, places)
}

/// The zone's own records taken apart, the rest as it is.
fn start(soa: &Loaded, servers: &[&Loaded], records: Vec<ZoneRecord>, places: Vec<Place>) -> Option<ZoneFile> {
    let numbers = soa.rdata.last_chunk::<20>()?;
    let names = &soa.rdata[..soa.rdata.len() - numbers.len()];
    let split = end_of_name(names)?;
    let word = |at: usize| u32::from_be_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]);
    Some(ZoneFile {
        primary: show_domain(&names[..split]),
        contact: show_domain(&names[split..]),
        nameservers: servers.iter().map(|server| show_domain(&server.rdata)).collect(),
        ttl_s: soa.ttl_s,
        minimum_s: word(16),
        authority: Authority {
            serial: word(0),
            refresh_s: word(4),
            retry_s: word(8),
            expire_s: word(12),
            ns_ttl_s: servers.first()?.ttl_s,
        },
        nameservers_at: servers.first()?.place.clone(),
        records,
        places,
    })
}

/// A record that is there twice counts once (RFC 2181, 5).
fn distinct<'r>(set: &[&'r Loaded]) -> impl Iterator<Item = &'r Loaded> {
    let mut seen = std::collections::HashSet::with_capacity(set.len());
    set.iter().copied().filter(move |record| seen.insert(record.rdata.as_slice()))
}

/// A CNAME has nothing beside it, neither CNAME nor DNAME is there twice, and no DNAME is delegated.
fn alone<'r>(of_name: &[&'r Loaded], name: &str, at_apex: bool, mut complain: impl FnMut(&'r Loaded, String, &str)) {
    for rtype in [CNAME, DNAME] {
        let mut set = of_name.iter().filter(|record| record.rtype == rtype);
        let Some(first) = set.next() else { continue };
        if let Some(second) = set.find(|record| record.rdata != first.rdata) {
            let what = format!("{name} has a second {} (the first: line {})", type_text(rtype), first.place.line);
            complain(second, what, "remove one");
        }
        let beside = |record: &&&Loaded| record.rtype != CNAME && !BESIDE_CNAME.contains(&record.rtype);
        if rtype == CNAME
            && let Some(other) = of_name.iter().find(beside)
        {
            let what = format!("{name} has CNAME and other data (CNAME: line {})", first.place.line);
            complain(other, what, "a CNAME stands alone at its name: remove one");
        }
        if rtype == DNAME
            && let Some(ns) = of_name.iter().find(|record| record.rtype == NS && !at_apex)
        {
            let what = format!("{name} has DNAME and NS (DNAME: line {})", first.place.line);
            complain(ns, what, "what is delegated is for others to say: remove one (RFC 6672, 2.3)");
        }
    }
}

/// Whether a name in wire form is the apex or below it; both lower case.
fn lies_in(name: &[u8], apex: &[u8]) -> bool {
    suffixes(name).any(|(_, suffix)| suffix == apex)
}

/// Where the name that stands at the start ends: behind its root.
fn end_of_name(bytes: &[u8]) -> Option<usize> {
    suffixes(bytes).last().map(|(root, _)| root + 1)
}

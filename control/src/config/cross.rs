//! Checks over several sections, on fields that were sound by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::errors::Complaint;
use super::names::lies_in;
use super::reader::{Field, Reader};
use super::services::ServiceSection;
use super::technologies::PoolSection;
use super::zone::ZoneSection;

/// No apex twice. A zone below another is fine: the longer apex decides.
pub(super) fn zones(reader: &Reader<'_>, zones: &[ZoneSection]) {
    for (i, ZoneSection { zone, .. }) in zones.iter().enumerate() {
        if let Some(ZoneSection { zone: first, .. }) = zones[..i].iter().find(|z| z.zone.value.apex == zone.value.apex)
        {
            let what = format!("{} is there twice (line {})", zone.value.apex, first.line);
            let key = format!("zone.{:?}.name", zone.value.apex.trim_end_matches('.'));
            reader.complain(zone.line, &key, Complaint::new(what, "remove one"));
        }
    }
}

/// Names and services once, names inside a zone and not its apex. `all_zones` is false where some zone
/// was complained of and is missing in `zones`.
pub(super) fn services(reader: &Reader<'_>, services: &[ServiceSection], zones: &[ZoneSection], all_zones: bool) {
    let mut owners: BTreeMap<&str, &ServiceSection> = BTreeMap::new();
    for (i, service) in services.iter().enumerate() {
        if let Some(first) = services[..i].iter().find(|s| s.spec.name == service.spec.name) {
            let what = format!("{:?} is there twice (line {})", service.spec.name.as_str(), first.name.line);
            reader.complain(service.name.line, &format!("{}.name", service.path), Complaint::new(what, "rename one"));
        }
        let key = format!("{}.names", service.path);
        for name in &service.names {
            if let Some(owner) = owners.insert(&name.value, service) {
                let what = format!("{} belongs to service {} already", name.value, owner.spec.name);
                reader.complain(name.line, &key, Complaint::new(what, "give each service names of its own"));
            }
            if zones.iter().any(|z| z.zone.value.apex == name.value) {
                let what = format!("{} is the apex of a zone, which holds SOA and NS", name.value);
                reader.complain(name.line, &key, Complaint::new(what, "use a name below it"));
            } else if all_zones && !zones.iter().any(|z| lies_in(&name.value, &z.zone.value.apex)) {
                let what = format!("{} lies in no configured zone", name.value);
                let fix = match zones.first() {
                    Some(first) => format!("use a name below {} or add a [[zone]]", first.zone.value.apex),
                    None => "add a [[zone]] with an apex above it".to_owned(),
                };
                reader.complain(name.line, &key, Complaint::new(what, fix));
            }
        }
    }
}

/// All services' fewest instances fit on the node together.
pub(super) fn limits(reader: &Reader<'_>, services: &[ServiceSection], limit: &Field<u32>) {
    // A single `min` above the limit, or a broken one, was complained of where it stands.
    let fit = |s: &ServiceSection| !s.min.broken && !s.max.broken && s.min.value <= limit.value;
    let sum: u64 = services.iter().map(|s| u64::from(s.min.value)).sum();
    if !limit.broken && services.iter().all(fit) && sum > u64::from(limit.value) {
        let what = format!("{} is less than the sum of the services' min, {sum}", limit.value);
        let fix = format!("use at least {sum} or lower a min");
        reader.complain(limit.line, "limits.instances", Complaint::new(what, fix));
    }
}

/// Pools are apart, on bridges of their own, large enough, and hold no address that queries are sent to. A pool that the file does not give
/// and no service uses is as large as it is.
pub(super) fn pools(
    reader: &Reader<'_>,
    pools: &[PoolSection],
    listen: &[Field<IpAddr>],
    limit: &Field<u32>,
    services: &[ServiceSection],
) {
    for pool in pools {
        let size = pool.pool.size();
        if pool.v4.broken || limit.broken || u64::from(limit.value) <= size || !pool.is_meant(services) {
            continue;
        }
        let what = format!("{} has {size} addresses for instances, limits.instances is {}", pool.v4.value, limit.value);
        let complaint = Complaint::new(what, "use a larger prefix or lower the limit");
        // Where the file gives no pool, the limit is what somebody wrote.
        if pool.v4.written {
            reader.complain(pool.v4.line, &format!("{}.pool", pool.path), complaint);
        } else {
            reader.complain(limit.line, "limits.instances", complaint);
        }
    }
    for (i, pool) in pools.iter().enumerate() {
        let Some(first) = pools[..i].iter().find(|first| first.bridge.value == pool.bridge.value) else { continue };
        // The line is the one that somebody wrote, the later where both are.
        let (wrong, other) = if pool.bridge.written { (pool, first) } else { (first, pool) };
        let what = format!("{:?} is {}'s bridge", wrong.bridge.value, other.path);
        let complaint = Complaint::new(what, "give each technology a bridge of its own");
        reader.complain(wrong.bridge.line, &format!("{}.bridge", wrong.path), complaint);
    }
    let pools = prefixes(pools);
    for (first, line, second) in overlaps(&pools) {
        let what = format!("overlaps {first}");
        reader.complain(line, second, Complaint::new(what, "give each pool a prefix of its own"));
    }
    for address in listen {
        if let Some((key, _, net)) = pools.iter().find(|(_, _, net)| net.contains(&address.value)) {
            let what = format!("{} lies in {key} {net}, which is given to instances", address.value);
            reader.complain(
                address.line,
                "dns.listen",
                Complaint::new(what, "use an address outside or move the pool"),
            );
        }
    }
}

/// Addresses that are to stand in for instances are none that instances get.
pub(super) fn elsewhere(reader: &Reader<'_>, pools: &[PoolSection], services: &[ServiceSection]) {
    let pools = prefixes(pools);
    for (key, address) in services.iter().flat_map(|s| &s.elsewhere) {
        if let Some((pool, _, net)) = pools.iter().find(|(_, _, net)| net.contains(&address.value)) {
            let what = format!("{} lies in {pool} {net}, which is given to instances", address.value);
            reader.complain(address.line, key, Complaint::new(what, "name an address elsewhere"));
        }
    }
}

/// The prefixes that instances get addresses from, with their keys and lines.
fn prefixes(pools: &[PoolSection]) -> Vec<(String, usize, IpNet)> {
    let of = |pool: &PoolSection| {
        let path = &pool.path;
        let v4 = Some(&pool.v4).filter(|f| !f.broken).map(|f| (format!("{path}.pool"), f.line, IpNet::V4(f.value)));
        let v6 = pool.v6.iter().filter(|f| !f.broken).map(|f| (format!("{path}.pool6"), f.line, IpNet::V6(f.value)));
        v4.into_iter().chain(v6).collect::<Vec<_>>()
    };
    pools.iter().flat_map(of).collect()
}

/// Pairs of keys whose prefixes share an address, with the second one's line.
fn overlaps(pools: &[(String, usize, IpNet)]) -> Vec<(&str, usize, &str)> {
    let share = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let mut found = Vec::new();
    for (i, (second, line, net)) in pools.iter().enumerate() {
        let before = pools[..i].iter().filter(|(_, _, other)| share(net, other));
        found.extend(before.map(|(first, _, _)| (first.as_str(), *line, second.as_str())));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn pools_overlap_where_one_holds_the_other() {
        let pool = |key: &str, net: &str| (key.to_owned(), 1, net.parse().unwrap());
        let pools =
            [pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24"), pool("c", "10.0.0.0/16"), pool("d", "fd00::/64")];
        assert_eq!(overlaps(&pools), [("a", 1, "c"), ("b", 1, "c")]);
    }
}

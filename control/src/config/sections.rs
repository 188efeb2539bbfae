//! Each section of the file to its checked form. Every function tells all it finds and goes on with
//! stand-ins.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::STATE_DIR;
use super::guard;
use super::names::{domain_name, mailbox};
use super::reader::{Field, Section};
use super::records::record;
use super::shared::{LONGEST_TTL_S, MOST_INSTANCES, without_doubles};
use super::types::{AttachMode, Caps, Control, Dataplane, Dns, LogLevel, Transit};
use super::values::{absolute_path, boolean, duration, identifier, interface, number, prefix, socket_address, whole};
use super::values::{socket_path, unicast, whole32, word};
use super::zone::{ZONE_KEYS, ZoneSection};
use super::zone_file;
use crate::model::{NodeName, Zone};

/// Listening addresses per family that the kernel's settings hold.
const MOST_LISTEN: usize = xdp_balancer_common::LOCAL_ADDRESSES;
/// Most earlier tables that are kept.
const MOST_TABLES: u32 = 256;
/// Most interfaces per direction where replies in transit are rewritten; the kernel's table holds both together.
const MOST_TRANSIT: usize = 32;
/// Most prefixes of resolvers whose word on the client's subnet is taken; each query is held against all of them.
const MOST_RESOLVERS: usize = 64;

pub(super) fn node(section: &Section<'_, '_>, default: &NodeName) -> NodeName {
    section.allow(&["name"]);
    section.or("name", default.clone(), |v| identifier(v, NodeName::new)).value
}

pub(super) fn dataplane(section: &Section<'_, '_>) -> Dataplane {
    section.allow(&[
        "interfaces",
        "mode",
        "pin_dir",
        "transparent",
        "keep_tables",
        "sample",
        "cost_sample",
        "limits",
        "lists",
        "stale",
        "transit",
    ]);
    let modes = [AttachMode::Auto, AttachMode::Native, AttachMode::Generic].map(|m| (m.label(), m));
    let interfaces = section.list("interfaces", "[\"eth0\"]", interface);
    let interfaces: Vec<String> =
        without_doubles(section, "interfaces", interfaces).into_iter().map(|f| f.value).collect();
    let transit = transit(&section.section("transit"), &interfaces);
    Dataplane {
        interfaces,
        mode: section.or("mode", AttachMode::Auto, |v| word(v, &modes)).value,
        pin_dir: section.or("pin_dir", PathBuf::from("/sys/fs/bpf/selvedge"), absolute_path).value,
        transparent: section.or("transparent", false, boolean).value,
        keep_tables: section.or("keep_tables", 16, |v| whole32(v, 0, MOST_TABLES)).value,
        transit,
        guard: guard::guard(section),
    }
}

/// `[dataplane.transit]`. Only where the program is attached it sees replies come in.
fn transit(section: &Section<'_, '_>, attached: &[String]) -> Transit {
    section.allow(&["ingress", "egress"]);
    let list = |key| {
        let list = section.list(key, "[\"eth0\"]", interface);
        let line = list.as_ref().map_or(section.line, |l| l.line);
        let named = without_doubles(section, key, list);
        if named.len() > MOST_TRANSIT {
            let what = format!("has {} interfaces", named.len());
            section.complain(line, key, what, format!("use at most {MOST_TRANSIT}"));
        }
        named
    };
    let ingress = list("ingress");
    for name in ingress.iter().filter(|name| !attached.contains(&name.value)) {
        let what = format!("{} is not among dataplane.interfaces", name.value);
        section.complain(name.line, "ingress", what, "add it there, or rewrite as replies go out (egress)");
    }
    let values = |list: Vec<Field<String>>| list.into_iter().map(|f| f.value).collect();
    Transit { ingress: values(ingress), egress: values(list("egress")) }
}

/// `[dns]`: where is listened, with places, and the rest.
pub(super) fn dns(section: &Section<'_, '_>) -> (Vec<Field<IpAddr>>, Dns) {
    section.allow(&["listen", "cookies", "cookie_secret_file", "client_subnet_from"]);
    let list = section.list("listen", "[\"192.0.2.1\"]", unicast);
    let line = list.as_ref().map_or(section.line, |l| l.line);
    let listen = without_doubles(section, "listen", list);
    for (family, wanted) in [("IPv4", true), ("IPv6", false)] {
        let count = listen.iter().filter(|a| a.value.is_ipv4() == wanted).count();
        if count > MOST_LISTEN {
            let what = format!("has {count} {family} addresses");
            section.complain(line, "listen", what, format!("use at most {MOST_LISTEN} of each family"));
        }
    }
    let cookies = section.or("cookies", true, boolean);
    let secret = section.optional("cookie_secret_file", PathBuf::new(), absolute_path);
    if let Some(file) = &secret
        && !cookies.broken
        && !cookies.value
    {
        let fix = "remove it, or set cookies = true";
        section.complain(file.line, "cookie_secret_file", "is given, but cookies = false", fix);
    }
    let list = section.list("client_subnet_from", "[\"192.0.2.0/24\"]", prefix);
    let line = list.as_ref().map_or(section.line, |l| l.line);
    let resolvers = without_doubles(section, "client_subnet_from", list);
    if resolvers.len() > MOST_RESOLVERS {
        let what = format!("has {} prefixes", resolvers.len());
        section.complain(line, "client_subnet_from", what, format!("use at most {MOST_RESOLVERS}"));
    }
    let dns = Dns {
        cookies: cookies.value,
        cookie_secret_file: secret.map(|file| file.value),
        client_subnet_from: resolvers.into_iter().map(|f| f.value).collect(),
    };
    (listen, dns)
}

pub(super) fn control(section: &Section<'_, '_>) -> Control {
    section.allow(&["window", "state_dir", "socket", "metrics", "log"]);
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(3600));
    let loopback = (Ipv4Addr::LOCALHOST, 9553).into();
    Control {
        window: section.or("window", Duration::from_secs(30), |v| duration(v, shortest, longest)).value,
        state_dir: section.or("state_dir", PathBuf::from(STATE_DIR), absolute_path).value,
        socket: section.or("socket", PathBuf::from("/run/selvedge/selvedged.sock"), socket_path).value,
        metrics: section.or("metrics", loopback, socket_address).value,
        log: section.or("log", LogLevel::Info, |v| word(v, &levels.map(|l| (l.label(), l)))).value,
    }
}

pub(super) fn limits(section: &Section<'_, '_>) -> Field<u32> {
    section.allow(&["instances", "vcpus", "memory_mib"]);
    section.or("instances", 32, |v| whole32(v, 1, MOST_INSTANCES))
}

/// What the instances of this node may use together.
pub(super) fn caps(section: &Section<'_, '_>) -> Caps {
    Caps {
        vcpus: section.optional("vcpus", 1.0, |v| number(v, 0.01, 65_536.0)).map(|f| f.value),
        memory_mib: section.optional("memory_mib", 6, |v| whole(v, 6, 1 << 30)).map(|f| f.value),
    }
}

/// A zone, with the place of its apex. `None` where it has no usable name.
pub(super) fn zone(section: &mut Section<'_, '_>, listen: &[IpAddr]) -> Option<ZoneSection> {
    let apex = section.required("name", String::new(), "\"edge.example.\"", domain_name);
    if !apex.broken {
        section.path = format!("zone.{:?}", apex.value.trim_end_matches('.'));
    }
    section.allow(&ZONE_KEYS);
    if let Some(file) = zone_file::path(section) {
        return zone_file::zone(section, apex, &file);
    }
    let below = |label: &str| format!("{label}.{}", apex.value);

    let servers = section.list("nameservers", "[\"ns1.edge.example.\"]", domain_name);
    if let Some(list) = &servers
        && !list.broken
        && list.value.is_empty()
    {
        let fix = format!("name at least one, as in {:?}, or remove the key", below("ns1"));
        section.complain(list.line, "nameservers", "is empty", fix);
    }
    let mut nameservers: Vec<String> =
        without_doubles(section, "nameservers", servers).into_iter().map(|f| f.value).collect();
    let first = nameservers.first().cloned().unwrap_or_else(|| below("ns1"));
    let primary = section.or("primary", first, domain_name).value;
    if nameservers.is_empty() {
        nameservers.push(primary.clone());
    }
    let addresses = section.list("nameserver_addresses", "[\"192.0.2.1\"]", unicast);
    let nameserver_addresses = match &addresses {
        None => nameserver_default(listen),
        Some(_) => without_doubles(section, "nameserver_addresses", addresses).into_iter().map(|f| f.value).collect(),
    };
    let zone = Zone {
        primary,
        nameserver_addresses,
        authority: None,
        records: Vec::new(),
        contact: section.or("contact", below("hostmaster"), mailbox).value,
        nameservers,
        ttl_s: section.or("ttl_s", 3600, |v| whole32(v, 1, LONGEST_TTL_S)).value,
        negative_ttl_s: section.or("negative_ttl_s", 5, |v| whole32(v, 0, 86_400)).value,
        apex: apex.value.clone(),
    };
    if apex.broken {
        return None;
    }
    let records = section.sections("record").iter().filter_map(|s| record(s, &zone.apex, zone.ttl_s)).collect();
    Some(ZoneSection { zone: apex.map(|_| zone), records, file: None })
}

/// Where name servers of ours can be reached unless the file says so: where we listen. Loopback is no place for
/// others to ask at, so it is told only where there is nothing else.
pub(super) fn nameserver_default(listen: &[IpAddr]) -> Vec<IpAddr> {
    let public: Vec<IpAddr> = listen.iter().copied().filter(|address| !address.is_loopback()).collect();
    if public.is_empty() { listen.to_vec() } else { public }
}

//! Replies of unbound and knot-resolver on their way through a node to a client. Needs root, `dig`, and the servers
//! (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::namespace::{Namespace, veth};
use support::vlan;
use support::{A, AAAA, privileged};
use xdp_balancer::testing::{address_record, wire};
use xdp_balancer::{Below, Dataplane, Mode, Name, Options, Rendered, Ring, Rrset, Sizes, Table, TransitHook};
use xdp_balancer::{TransitVerdict, remove_all};

const TTL: u32 = 30;
const INSTANCES: [&str; 3] = ["10.9.0.1", "10.9.0.2", "10.9.0.3"];
const INSTANCES6: [&str; 2] = ["fd09::1", "fd09::2"];
const UNBOUND: &str = "10.53.0.2";
const UNBOUND6: &str = "fd53:1::2";
const KRESD: &str = "10.53.0.4";
const VLAN: &str = "7";

/// What the other servers know of the names. `video` is ours in both.
const RECORDS: &str = "$TTL 3600
@ SOA ns host 1 3600 900 86400 300
@ NS ns
ns A 203.0.113.53
video A 203.0.113.1
video AAAA 2001:db8:ff::1
many A 203.0.113.11
many A 203.0.113.12
many A 203.0.113.13
alias CNAME middle
middle CNAME video
other A 203.0.113.99
";

/// What lies between the client and the resolvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// A router.
    Plain,
    /// A router whose links are VLAN devices.
    Devices,
    /// A bridge that passes tagged frames.
    Bridged,
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.servers.clear();
        let _ = fs::remove_dir_all(&self.directory);
        let _ = remove_all(&self.pins);
    }
}

struct Lab {
    resolver: Namespace,
    edge: Namespace,
    client: Namespace,
    directory: PathBuf,
    pins: PathBuf,
    servers: Vec<Server>,
}

impl Lab {
    /// Resolvers behind an edge, a client in front.
    fn new(tag: &str, links: Links) -> Self {
        let name = |end: &str| format!("selv-t{tag}{end}{}", std::process::id());
        let [resolver, edge, client] = ["r", "e", "c"].map(|end| Namespace::create(&name(end)));
        veth((&edge, "er"), (&resolver, "r0"));
        veth((&edge, "ec"), (&client, "c0"));
        // As it is where nobody has turned it off: these checksums are finished behind us, if at all.
        leave_checksums_to_the_device(&resolver);
        if links == Links::Bridged {
            bridged(&resolver, &edge, &client);
        } else {
            routed(&resolver, &edge, &client, links == Links::Devices);
        }
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}", name("p")));
        let directory = std::env::temp_dir().join(name("d"));
        fs::create_dir(&directory).unwrap();
        Self { resolver, edge, client, directory, pins, servers: Vec::new() }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn start(&mut self, program: &str, arguments: &[&str]) {
        let log = fs::File::create(self.directory.join(format!("{program}.log"))).unwrap();
        let mut command = self.resolver.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.servers.push(Server(command.spawn().unwrap()));
    }

    fn answers(&self, from: &Namespace, server: &[&str], name: &str) {
        let asked = || {
            let mut command = from.command("dig");
            let output = command.args(server).args([name, "SOA", "+time=1", "+tries=1"]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).contains("status: NOERROR").then_some(())
        };
        let start = Instant::now();
        while asked().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "{server:?} does not answer: see {:?}", self.directory);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Knot with the records, once unsigned and once signed, and both resolvers on it.
    fn servers(&mut self) {
        let directory = self.directory.to_str().unwrap().to_owned();
        self.write("records", RECORDS);
        let knot = self.write(
            "knot.conf",
            &format!(
                "server:\n    rundir: {directory}\n    listen: 127.0.0.1@5300\n    user: root\n\
                 database:\n    storage: {directory}\n\
                 zone:\n  - domain: edge.test\n    file: {directory}/records\n    zonefile-sync: -1\n\
                 \x20 - domain: signed.test\n    file: {directory}/records\n    zonefile-sync: -1\n    \
                 journal-content: none\n    dnssec-signing: on\n"
            ),
        );
        self.start("knotd", &["-c", knot.to_str().unwrap()]);
        let own = ["@127.0.0.1", "-p", "5300"];
        self.answers(&self.resolver, &own, "signed.test");
        let mut ask = self.resolver.command("dig");
        let keys = ask.args(own).args(["signed.test", "DNSKEY", "+noall", "+answer"]).output().unwrap().stdout;
        let anchor = self.write("anchor", &String::from_utf8(keys).unwrap());
        let stub = |zone| format!("stub-zone:\n    name: {zone}\n    stub-addr: 127.0.0.1@5300\n");
        let unbound = self.write(
            "unbound.conf",
            &format!(
                "server:\n    interface: {UNBOUND}\n    interface: {UNBOUND6}\n    username: \"\"\n    chroot: \"\"\n    \
                 directory: \"{directory}\"\n    pidfile: \"\"\n    use-syslog: no\n    num-threads: 1\n    \
                 do-daemonize: no\n    access-control: 0.0.0.0/0 allow\n    access-control: ::/0 allow\n    \
                 do-not-query-localhost: no\n    local-zone: \"test.\" nodefault\n    rrset-roundrobin: yes\n    \
                 trust-anchor-file: {}\nremote-control:\n    control-enable: no\n{}{}",
                anchor.display(),
                stub("edge.test"),
                stub("signed.test")
            ),
        );
        self.start("unbound", &["-d", "-c", unbound.to_str().unwrap()]);
        fs::create_dir(self.directory.join("kresd")).unwrap();
        let kresd = self.write(
            "kresd.conf",
            &format!(
                "net.listen('{KRESD}', 53)\nnet.ipv6 = false\ncache.size = 10 * MB\n\
                 modules.unload('ta_update') modules.unload('ta_signal_query') modules.unload('priming')\n\
                 trust_anchors.remove('.')\n\
                 policy.add(policy.suffix(policy.STUB('127.0.0.1@5300'), {{todname('edge.test')}}))\n"
            ),
        );
        self.start("kresd", &["-n", "-c", kresd.to_str().unwrap(), &format!("{directory}/kresd")]);
        for server in [UNBOUND, UNBOUND6, KRESD] {
            self.answers(&self.client, &[&format!("@{server}")], "edge.test");
        }
    }

    fn dataplane(&self, hook: TransitHook) -> Dataplane {
        let (interface, pins) = (if hook == TransitHook::Ingress { "er" } else { "ec" }, self.pins.clone());
        let open = move || {
            let sizes = Sizes { pool_bytes: 1 << 20, cursors: 64, services: 16, flows: 8, ..Sizes::default() };
            let mut plane = Dataplane::open(&Options { pin_dir: pins, sizes }).unwrap();
            plane.publish(&table()).unwrap();
            plane.attach("er", Mode::Auto).unwrap();
            plane.set_transit(&[(interface, hook)]).unwrap();
            plane
        };
        self.edge.run_in(open)
    }
}

/// Addresses and routes; with `vlan` on devices for the tag.
fn routed(resolver: &Namespace, edge: &Namespace, client: &Namespace, vlan: bool) {
    for (namespace, link, v4, v6) in [
        (edge, "er", "10.53.0.1", "fd53:1::1"),
        (edge, "ec", "10.54.0.1", "fd53:2::1"),
        (resolver, "r0", UNBOUND, UNBOUND6),
        (client, "c0", "10.54.0.2", "fd53:2::2"),
    ] {
        let tagged = format!("{link}.{VLAN}");
        if vlan {
            namespace.ip(&["link", "add", "link", link, "name", &tagged, "type", "vlan", "id", VLAN]);
            namespace.up(&tagged);
        }
        let interface = if vlan { &tagged } else { link };
        namespace.up("lo");
        namespace.add_address(interface, v4.parse().unwrap(), 24);
        namespace.add_address(interface, v6.parse().unwrap(), 64);
        if link == "r0" {
            namespace.add_address(interface, KRESD.parse().unwrap(), 24);
        }
    }
    edge.set("net/ipv4/ip_forward", "1");
    edge.set("net/ipv6/conf/all/forwarding", "1");
    for (namespace, v4, v6) in [(resolver, "10.53.0.1", "fd53:1::1"), (client, "10.54.0.1", "fd53:2::1")] {
        namespace.ip(&["route", "add", "default", "via", v4]);
        namespace.ip(&["-6", "route", "add", "default", "via", v6]);
    }
}

/// One network whose frames bear a tag on both links, put on and taken off by programs at both ends: needs no VLAN
/// devices. The edge is a bridge, which passes them as they are.
fn bridged(resolver: &Namespace, edge: &Namespace, client: &Namespace) {
    edge.ip(&["link", "add", "br0", "type", "bridge"]);
    edge.up("br0");
    for link in ["er", "ec"] {
        edge.ip(&["link", "set", link, "master", "br0"]);
    }
    let tags = vlan::Tags::load(VLAN.parse().unwrap());
    for (namespace, link, v4, v6) in [(resolver, "r0", UNBOUND, UNBOUND6), (client, "c0", "10.53.0.9", "fd53:1::9")] {
        // In the frame, not beside it.
        run(namespace, "ethtool", &["-K", link, "txvlan", "off"]);
        namespace.tc(&["qdisc", "add", "dev", link, "clsact"]);
        for (direction, pin) in [("egress", tags.push()), ("ingress", tags.pop())] {
            namespace.tc(&["filter", "add", "dev", link, direction, "bpf", "da", "object-pinned", &pin]);
        }
        namespace.up("lo");
        namespace.add_address(link, v4.parse().unwrap(), 24);
        namespace.add_address(link, v6.parse().unwrap(), 64);
    }
    resolver.add_address("r0", KRESD.parse().unwrap(), 24);
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) {
    let output = namespace.command(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lets the resolvers leave their checksums to a device again, as they do by default.
fn leave_checksums_to_the_device(resolver: &Namespace) {
    run(resolver, "ethtool", &["-K", "r0", "tx", "on"]);
}

fn table() -> Table {
    let ring = |addresses: &[&str]| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let rotated = |first: usize| {
            let order = addresses.iter().cycle().skip(first).take(addresses.len());
            let bytes = order.flat_map(|address| address_record(*address, TTL)).collect();
            Rendered { flags: 0x0400, ancount: addresses.len() as u16, bytes, ..Rendered::default() }
        };
        Some(Arc::new(Ring::round_robin((0..addresses.len()).map(rotated).collect())))
    };
    let name = |name: &str, service| Name {
        wire: wire(name),
        service,
        rrsets: vec![Rrset { qtype: A, ring: ring(&INSTANCES) }, Rrset { qtype: AAAA, ring: ring(&INSTANCES6) }],
        others: None,
        below: Below::UserSpace,
    };
    let names = vec![name("video.edge.test", 1), name("many.edge.test", 1), name("video.signed.test", 2)];
    Table { generation: 1, names, ..Table::default() }
}

/// An answer section, record by record, word by word; and whether the server says that it has validated it.
#[derive(Debug)]
struct Dig {
    answer: Vec<Vec<String>>,
    validated: bool,
}

impl Dig {
    fn addresses(&self) -> BTreeSet<IpAddr> {
        self.answer.iter().filter(|r| r[3] == "A" || r[3] == "AAAA").map(|r| r[4].parse().unwrap()).collect()
    }
}

fn dig(from: &Namespace, arguments: &[&str]) -> Dig {
    let output = from.command("dig").args(["+tries=2", "+time=3"]).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("status: NOERROR"), "{arguments:?}: {text}");
    let flags = text.lines().find_map(|line| line.strip_prefix(";; flags: ")).unwrap().split(';').next().unwrap();
    let answer =
        text.lines().skip_while(|line| *line != ";; ANSWER SECTION:").skip(1).take_while(|line| !line.is_empty());
    Dig {
        answer: answer.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect(),
        validated: flags.split_whitespace().any(|flag| flag == "ad"),
    }
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

/// TTLs of address records.
fn ttls(reply: &Dig) -> Vec<u32> {
    reply.answer.iter().filter(|r| r[3] == "A" || r[3] == "AAAA").map(|r| r[1].parse().unwrap()).collect()
}

fn ask(lab: &Lab) {
    for server in [UNBOUND, UNBOUND6, KRESD] {
        let at = format!("@{server}");
        for edns in ["+edns=0", "+noedns"] {
            let ask = |name: &str, kind: &str| dig(&lab.client, &[&at, name, kind, edns, "+noadflag", "+notcp"]);
            let mut met = BTreeSet::new();
            for _ in 0..INSTANCES.len() {
                let reply = ask("video.edge.test", "A");
                assert_eq!(reply.addresses().len(), 1, "{server}: {reply:?}");
                assert!(ttls(&reply).iter().all(|ttl| *ttl <= TTL), "{server}: {reply:?}");
                met.extend(reply.addresses());
            }
            assert!(met.is_subset(&set(&INSTANCES)) && met.len() > 1, "{server}: {met:?}");
            let reply = ask("VIDEO.edge.test", "AAAA");
            assert!(reply.addresses().is_subset(&set(&INSTANCES6)) && reply.answer.len() == 1, "{server}: {reply:?}");
            let reply = ask("alias.edge.test", "A");
            let kinds: Vec<&str> = reply.answer.iter().map(|record| record[3].as_str()).collect();
            assert_eq!(kinds, ["CNAME", "CNAME", "A"], "{server}: {reply:?}");
            assert!(reply.addresses().is_subset(&set(&INSTANCES)), "{server}: {reply:?}");
            assert_eq!(ask("many.edge.test", "A").addresses(), set(&INSTANCES), "{server}: one each");
            assert_eq!(ask("other.edge.test", "A").addresses(), set(&["203.0.113.99"]), "{server}: none of ours");
        }
    }
    // Validated: said so, or with its signatures.
    for extra in ["+adflag", "+dnssec"] {
        for server in [UNBOUND, UNBOUND6] {
            let reply = dig(&lab.client, &[&format!("@{server}"), "video.signed.test", "A", extra, "+notcp"]);
            assert!(reply.validated, "{server}: {reply:?}");
            assert_eq!(reply.addresses(), set(&["203.0.113.1"]), "{server} {extra}");
            assert_eq!(reply.answer.iter().any(|r| r[3] == "RRSIG"), extra == "+dnssec");
        }
    }
}

#[test]
fn resolvers_behind_us_tell_of_our_instances() {
    let test = "resolvers_behind_us_tell_of_our_instances";
    if !privileged(test) {
        return;
    }
    let there = |tool: &&str| ["/usr/sbin", "/usr/bin", "/sbin"].iter().any(|path| Path::new(path).join(tool).exists());
    if let Some(missing) = ["knotd", "unbound", "kresd", "dig", "ethtool", "tc"].iter().find(|tool| !there(tool)) {
        println!("SKIPPED (no {missing}): {test}");
        return;
    }
    let vlan_devices = Namespace::create(&format!("selv-tx{}", std::process::id())).has_vlan_devices();
    println!("VLAN devices in this kernel: {vlan_devices}");
    for (links, tag) in [(Links::Plain, "p"), (Links::Bridged, "b"), (Links::Devices, "v")] {
        if links == Links::Devices && !vlan_devices {
            continue;
        }
        let mut lab = Lab::new(tag, links);
        lab.servers();
        for hook in [TransitHook::Ingress, TransitHook::Egress] {
            let plane = lab.dataplane(hook);
            ask(&lab);
            let counts = plane.transit_counts().unwrap().unwrap();
            let count = |verdict: TransitVerdict| counts[verdict as usize];
            println!(
                "{links:?} {hook:?} rewritten={} signed={}",
                count(TransitVerdict::Rewritten),
                count(TransitVerdict::Signed)
            );
            assert!(count(TransitVerdict::Rewritten) >= 36 && count(TransitVerdict::Signed) >= 4, "{counts:?}");
            assert_eq!(count(TransitVerdict::Broken), 0);
            drop(plane);
            let pins = lab.pins.clone();
            lab.edge.run_in(move || remove_all(&pins)).unwrap();
            let filters = lab.edge.command("tc").args(["filter", "show", "dev", "ec", "egress"]).output().unwrap();
            assert!(filters.stdout.is_empty(), "{}", String::from_utf8_lossy(&filters.stdout));
            let untouched = dig(&lab.client, &[&format!("@{UNBOUND}"), "video.edge.test", "A"]);
            assert_eq!(untouched.addresses(), set(&["203.0.113.1"]), "off is off");
        }
    }
}

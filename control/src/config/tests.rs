#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Whole files: what they mean, and that all their faults are told.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Choice, Late, LateClients, Launch, OnAllDown, ServiceName, Shaping, Summon, Technology, Weights};
use autoscale::predict::PredictorKind;

const PACKAGED: &str = include_str!("../../../packaging/selvedge.toml");

/// A file that uses every key.
const FULL: &str = r#"
[node]
name = "edge-1"
[dataplane]
interfaces = ["eth0", "eth1"]
mode = "native"
pin_dir = "/sys/fs/bpf/other"
transparent = true
keep_tables = 3
[images]
dir = "/srv/images"
listen = "127.0.0.1:5001"
push_from = ["127.0.0.1/32"]
largest_blob_mib = 100
plain_http = ["192.0.2.7:5000"]
auth_file = "/etc/selvedge/auth.json"
parallel = 5
bandwidth_mbit = 200
verify_key = "/etc/selvedge/key.pub"
[dns]
listen = ["192.0.2.1", "2001:db8::1"]
cookies = true
cookie_secret_file = "/etc/selvedge/cookie"
client_subnet_from = ["192.0.2.0/24", "2001:db8::/32"]
[control]
window = "1s"
state_dir = "/tmp/state"
socket = "/tmp/s.sock"
metrics = "[::1]:9000"
log = "debug"
[limits]
instances = 10
[summon]
monitors = ["192.0.2.10/32", "2001:db8:10::/48"]
starts_per_minute = 30
client_starts_per_minute = 5
held = 100
held_per_client = 10
[technology.docker]
socket = "/tmp/docker.sock"
bridge = "br0"
pool = "10.9.0.0/28"
gateway = "10.9.0.14"
pool6 = "fd5e:9::/64"
rate = "2gbit"
burst = "1MiB"
[[network.vxlan]]
name = "vx0"
vni = 7
local = "2001:db8::1"
remotes = ["2001:db8::2", "2001:db8::3"]
addresses = ["10.99.0.1/24", "fd99::1/64"]
port = 4790
[[network.route]]
to = "fd74::/64"
via = "fd99::2"
device = "vx0"
metric = 7
[[network.route]]
to = "10.74.0.0/16"
device = "vx0"
[[network.uplink]]
interface = "eth1"
rate = "10mbit"
[technology.unikernel]
user = "selvedge-guest"
bridge = "br9"
pool = "10.10.0.0/24"
gateway = "10.10.0.254"
pool6 = "fd5e:10::/64"
[technology.spt]
program = "/opt/solo5-spt"
[technology.hvt]
program = "/opt/solo5-hvt"
[technology.qemu-microvm]
program = "/opt/qemu"
accelerator = "kvm"
[technology.qemu-pc]
program = "/opt/qemu-pc"
accelerator = "tcg"
[technology.firecracker]
program = "/opt/firecracker"
[[zone]]
name = "Edge.Example"
primary = "ns1.edge.example."
contact = "admin.edge.example."
nameservers = ["ns1.edge.example.", "ns2.edge.example"]
nameserver_addresses = ["198.51.100.53"]
ttl_s = 60
negative_ttl_s = 0
[[zone.record]]
name = "Info"
type = "txt"
data = "\"a b\" c"
ttl_s = 7
[[zone.record]]
name = "@"
type = "MX"
data = "10 mail"
[[zone]]
name = "other.example."
[[service]]
name = "video"
names = ["VIDEO.edge.example", "v.other.example."]
technology = "docker"
image = "nginx@sha256:00"
port = 8080
probe_path = "/ready?x=1"
capacity = 2.5
min = 2
max = 9
ttl_s = 1
answers = 64
choice = "client"
weights = "load"
on_all_down = "servfail"
sorry = ["192.0.2.99"]
vcpus = 0.5
memory_mib = 64
rate = "200mbit"
burst = "16KiB"
start_deadline = "10s"
drain_quiet = "500ms"
drain_deadline = "1m"
drain_at_deadline = "keep"
drain_late = "forward"
drain_forward = "1h"
predictor = "naive"
[[service.fallback]]
addresses = ["192.0.2.7", "2001:db8::7"]
[[service.fallback]]
addresses = ["192.0.2.8"]
[[service]]
name = "audio"
names = ["audio.edge.example"]
image = "nginx:1"
min = 0
sorry = ["192.0.2.98"]
[service.summon]
hold = "500ms"
late = "sorry"
ttl_s = 1
idle_after = "10s"
starts_per_minute = 6
[[service]]
name = "page"
names = ["page.edge.example"]
technology = "qemu-microvm"
image = "/images/page"
launch = "osv"
arguments = ["/httpd", "--quiet"]
disk = "/images/page.raw"
"#;

fn sound(text: &str) -> Config {
    parse(text, "f.toml").unwrap_or_else(|e| panic!("{e}"))
}

fn faults(text: &str) -> Vec<String> {
    parse(text, "f.toml").err().map_or_else(Vec::new, |e| e.list().iter().map(ToString::to_string).collect())
}

#[test]
fn every_key_is_taken() {
    let config = sound(FULL);
    assert_eq!(config.node.as_str(), "edge-1");
    assert_eq!(config.dataplane.interfaces, ["eth0", "eth1"]);
    assert_eq!(config.dataplane.mode, AttachMode::Native);
    assert_eq!(config.dataplane.pin_dir, Path::new("/sys/fs/bpf/other"));
    assert_eq!(config.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!((config.dataplane.transparent, config.dataplane.keep_tables), (true, 3));
    assert_eq!(config.dns.cookie_secret_file.as_deref(), Some(Path::new("/etc/selvedge/cookie")));
    assert_eq!(
        config.dns.client_subnet_from.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        "192.0.2.0/24 2001:db8::/32"
    );
    let images = &config.images;
    assert_eq!((images.dir.as_path(), images.parallel), (Path::new("/srv/images"), 5));
    assert_eq!((images.listen.map(|a| a.port()), images.push_from.len()), (Some(5001), 1));
    assert_eq!((images.largest_blob_mib, images.bandwidth_mbit), (100, Some(200)));
    assert_eq!(images.plain_http, ["192.0.2.7:5000"]);
    assert_eq!(images.auth_file.as_deref(), Some(Path::new("/etc/selvedge/auth.json")));
    assert_eq!(images.verify_key.as_deref(), Some(Path::new("/etc/selvedge/key.pub")));
    assert_eq!(config.control.window, Duration::from_secs(1));
    assert_eq!(config.control.state_dir, Path::new("/tmp/state"));
    assert_eq!(config.control.socket, Path::new("/tmp/s.sock"));
    assert_eq!(config.control.metrics.to_string(), "[::1]:9000");
    assert_eq!(config.control.log, LogLevel::Debug);
    assert_eq!(config.limits.instances, 10);
    let summon = &config.summon;
    assert_eq!((summon.monitors.len(), summon.held, summon.held_per_client), (2, 100, 10));
    assert_eq!((summon.starts_per_minute, summon.client_starts_per_minute), (30, 5));
    let audio = config.services.iter().find(|s| s.name.as_str() == "audio").unwrap();
    let (hold, idle_after) = (Duration::from_millis(500), Duration::from_secs(10));
    let expected = Summon { hold, late: Late::Sorry, ttl_s: 1, idle_after, starts_per_minute: 6 };
    assert_eq!((audio.min, audio.summon.as_ref()), (0, Some(&expected)));
    assert!(config.services.iter().filter(|s| s.min > 0).all(|s| s.summon.is_none()));
    assert_eq!(config.technologies.docker.socket, Path::new("/tmp/docker.sock"));
    let pool = config.pool(Technology::Docker);
    assert_eq!((pool.bridge.as_str(), pool.v4.to_string().as_str(), pool.size()), ("br0", "10.9.0.0/28", 13));
    assert_eq!(
        (pool.gateway.to_string(), pool.gateway6().unwrap().to_string()),
        ("10.9.0.14".into(), "fd5e:9::e".into())
    );
    assert_eq!(pool.shaping, Some(Shaping { rate_bps: 2_000_000_000, burst_bytes: 1 << 20 }));
    let [tunnel] = config.networks.tunnels.as_slice() else { panic!("{:?}", config.networks) };
    assert_eq!((tunnel.name.as_str(), tunnel.vni, tunnel.port, tunnel.mtu), ("vx0", 7, 4790, 1430));
    assert_eq!((tunnel.remotes.len(), tunnel.addresses.len()), (2, 2));
    let [first, second] = config.networks.routes.as_slice() else { panic!("{:?}", config.networks) };
    assert_eq!((first.to.to_string().as_str(), first.device.as_deref(), first.metric), ("fd74::/64", Some("vx0"), 7));
    assert_eq!((second.via, second.metric), (None, 100));
    assert_eq!(config.networks.uplinks[0].shaping, Shaping::with_default_burst(10_000_000));
    let unikernels = &config.technologies.unikernels;
    let pool = config.pool(Technology::Spt);
    assert_eq!((unikernels.user.as_str(), pool.bridge.as_str(), pool.size()), ("selvedge-guest", "br9", 253));
    assert_eq!(pool.gateway6().unwrap().to_string(), "fd5e:10::fe");
    let monitors: Vec<_> =
        unikernels.monitors.values().map(|m| (m.program.to_str().unwrap(), m.accelerator.label())).collect();
    let expected = [
        ("/opt/solo5-spt", "tcg"),
        ("/opt/solo5-hvt", "tcg"),
        ("/opt/qemu", "kvm"),
        ("/opt/qemu-pc", "tcg"),
        ("/opt/firecracker", "tcg"),
    ];
    assert_eq!(monitors, expected);
    let page = config.service(&ServiceName::new("page").unwrap()).unwrap();
    assert_eq!((page.technology, page.guest.launch), (Technology::QemuMicrovm, Launch::Osv));
    assert_eq!(
        (page.guest.arguments.join(" "), page.guest.disk.as_deref()),
        ("/httpd --quiet".to_owned(), Some("/images/page.raw"))
    );
    let zone = &config.zones[0];
    assert_eq!((zone.apex.as_str(), zone.contact.as_str()), ("edge.example.", "admin.edge.example."));
    assert_eq!(zone.nameservers, ["ns1.edge.example.", "ns2.edge.example."]);
    assert_eq!((zone.ttl_s, zone.negative_ttl_s), (60, 0));
    assert_eq!(zone.nameserver_addresses, ["198.51.100.53".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(config.zones[1].nameserver_addresses, config.listen);
    let [mx, info] = zone.records.as_slice() else { panic!("{:?}", zone.records) };
    assert_eq!((mx.name.as_str(), mx.rtype, mx.ttl_s), ("edge.example.", 15, 60));
    assert_eq!((info.name.as_str(), info.rtype, info.ttl_s), ("info.edge.example.", 16, 7));
    assert_eq!(info.rdata, b"\x03a b\x01c");
    let video = config.service(&ServiceName::new("video").unwrap()).unwrap();
    assert_eq!(video.names, ["video.edge.example.", "v.other.example."]);
    assert_eq!((video.port, video.probe_path.as_str(), video.capacity), (8080, "/ready?x=1", 2.5));
    assert_eq!((video.min, video.max, video.ttl_s, video.answers), (2, 9, 1, 64));
    assert_eq!((video.choice, video.weights), (Choice::Client, Weights::Load));
    assert_eq!(video.on_all_down, OnAllDown::ServFail);
    assert_eq!((video.drain_late, video.drain_forward), (LateClients::Forward, Duration::from_secs(3600)));
    let kept = FULL.replace("drain_late = \"forward\"\n", "");
    assert_eq!(sound(&kept).service(&video.name).unwrap().drain_late, LateClients::Keep, "as at the deadline");
    let shown = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(video.fallback.iter().map(|g| shown(g)).collect::<Vec<_>>(), ["192.0.2.7 2001:db8::7", "192.0.2.8"]);
    assert_eq!(shown(&video.sorry), "192.0.2.99");
    assert_eq!((video.vcpus, video.memory_mib), (0.5, 64));
    assert_eq!(video.shaping, Some(Shaping { rate_bps: 200_000_000, burst_bytes: 16 << 10 }));
    assert_eq!((video.start_deadline, video.drain_deadline), (Duration::from_secs(10), Duration::from_secs(60)));
    assert_eq!(video.drain_quiet, Duration::from_millis(500));
    assert_eq!(config.scaling[&video.name].predictor, PredictorKind::Naive);
}

#[test]
fn an_empty_file_does_no_harm() {
    let config = sound("");
    assert!(config.dataplane.interfaces.is_empty() && config.services.is_empty() && config.zones.is_empty());
    assert!(config.listen.is_empty() && config.technologies_in_use().is_empty());
    assert!(config.control.metrics.ip().is_loopback());
    assert!(config.remarks().is_empty());
}

#[test]
fn the_packaged_file_holds_the_defaults() {
    assert_eq!(sound(PACKAGED), sound(""));
}

/// What the packaged file shows in comments is taken as it stands, and is what it calls the default.
#[test]
fn the_packaged_examples_are_sound_and_are_the_defaults() {
    let key = |line: &&str| {
        let word = line.trim_start_matches("# ");
        word.starts_with("[[")
            || word.starts_with("[service.")
            || word.split_once(" = ").is_some_and(|(k, _)| !k.contains(' '))
    };
    let shown: Vec<&str> = PACKAGED.lines().filter(|l| !l.starts_with('#') || key(l)).collect();
    let shown = shown.iter().map(|l| l.trim_start_matches("# ")).collect::<Vec<_>>().join("\n");
    let config = sound(&shown);
    let minimal = "[[zone]]\nname='edge.example'\n[[zone.record]]\nname='www'\ntype='CNAME'\ndata='video'\n\
                   [[service]]\nname='video'\nnames=['video.edge.example']\nimage='nginx:1.28'\n\
                   rate='200mbit'\nburst='256KiB'\ndrain_ttl_s=1\n\
                   [service.scaling]\nseason=48\nup_instances=4\nup_share=1.0\ndown_instances=1\ndown_share=0.1\n\
                   churn=20\nlatency='50ms'\nmost_vcpus=8\nmost_memory_mib=4096\n\
                   [[service.fallback]]\naddresses=['192.0.2.7','2001:db8::7']\n\
                   [[service]]\nname='rare'\nnames=['rare.edge.example']\nimage='nginx:1.28'\nmin=0\n\
                   [[service]]\nname='page'\nnames=['page.edge.example']\ntechnology='spt'\n\
                   image='/var/lib/images/page.spt'\ndisk='/var/lib/images/page.raw'\n\
                   [[service]]\nname='router'\nnames=['router.edge.example']\ntechnology='xen-pv'\n\
                   image='/var/lib/images/clickos'\nlaunch='clickos'\nramdisk='/var/lib/images/initrd'\n\
                   click='/var/lib/images/web.click'\n\
                   [service.prepared]\nmin=1\nmax=4\n\
                   [technology.docker]\npool6='fd5e:213::/64'\nrate='1gbit'\nburst='1MiB'\n\
                   [technology.unikernel]\npool6='fd5e:214::/64'\n\
                   [technology.xen]\npool6='fd5e:215::/64'\n\
                   [[network.vxlan]]\nname='selv-vx0'\nvni=100\nlocal='192.0.2.1'\n\
                   remotes=['192.0.2.2','192.0.2.3']\naddresses=['10.99.0.1/24']\n\
                   [[network.route]]\nto='10.216.0.0/24'\nvia='10.99.0.2'\ndevice='selv-vx0'\n\
                   [[network.uplink]]\ninterface='eth1'\nrate='100mbit'\nburst='128KiB'\n\
                   [limits]\nvcpus=16\nmemory_mib=8192\n\
                   [dns]\ncookie_secret_file='/etc/selvedge/cookie_secret'\n\
                   [api]\ngroup='selvedge'\nlisten='192.0.2.1:9554'\ncertificate='/etc/selvedge/api.crt'\n\
                   key='/etc/selvedge/api.key'\nclient_ca='/etc/selvedge/api-clients.pem'\n\
                   token_file='/etc/selvedge/api-tokens'\n\
                   [images]\nlisten='127.0.0.1:5000'\nauth_file='/etc/selvedge/registries.json'\nbandwidth_mbit=100\n\
                   verify_key='/etc/selvedge/cosign.pub'";
    assert_eq!(config, sound(minimal));
    // And no key is missing in it.
    for word in FULL.lines().filter_map(|l| l.split_once(" = ")).map(|(key, _)| key) {
        assert!(shown.lines().any(|l| l.starts_with(&format!("{word} = "))), "{word} is not documented");
    }
}

#[test]
fn all_faults_are_told_at_once_in_their_order() {
    let text = "[dns]\nlisten = [\n  \"192.0.2.1\",\n  \"nonsense\",\n]\n[[zone]]\nname = \"edge.example\"\n\
                [[service]]\nname = \"video\"\nnames = [\"video.edge.example\"]\nprot = 80\nttl_s = 0\nmin = \"1\"\n";
    assert_eq!(
        faults(text),
        [
            "f.toml:4: dns.listen[1]: \"nonsense\" is not an IP address; write it as in \"192.0.2.1\"",
            "f.toml:8: service.video.image: is missing; add image = \"nginx:1.28\"",
            "f.toml:11: service.video.prot: unknown key; did you mean \"port\"?",
            "f.toml:12: service.video.ttl_s: 0 is not allowed; use 1 to 604800",
            "f.toml:13: service.video.min: expects a whole number, has a text; use 0 to 4096",
        ]
    );
}

#[test]
fn one_fault_gives_one_line() {
    // A broken value is not complained of again by the checks over several sections.
    for text in [
        "[limits]\ninstances = 0",
        "[technology.docker]\npool = \"10.0.0.1/24\"",
        "[technology.docker]\npool = \"nonsense\"\ngateway = \"10.0.0.9\"",
        "[[zone]]\nname = \"-\"\ncontact = \"a.b\"",
        "[[zone]]\nname = \"-\"\n[[service]]\nname='s'\nnames=['s.e']\nimage='i'",
        "[[zone]]\nname='e'\n[[service]]\nname='s'\nnames=['s.e']\nimage='i'\nmin=-1",
        "[[zone]]\nname='e'\n[[service]]\nname='s'\nnames=['bad..name']\nimage='i'",
        "[[zone]]\nname='e'\n[[service]]\nname='s'\nnames=['s.e']\nimage='i'\nmin=9\nmax=4",
        "[limits]\ninstances=4\n[[zone]]\nname='e'\n[[service]]\nname='s'\nnames=['s.e']\nimage='i'\nmin=9",
    ] {
        assert_eq!(faults(text).len(), 1, "{text}: {:#?}", faults(text));
    }
}

#[test]
fn defaults_fit_a_small_limit() {
    let text = "[limits]\ninstances=3\n[[zone]]\nname='e'\n[[service]]\nname='s'\nnames=['s.e']\nimage='i'";
    assert_eq!(sound(text).services[0].max, 3);
    assert_eq!(sound(&format!("{}\nmin=3", text)).services[0].max, 3);
}

#[test]
fn what_is_probably_not_meant_is_remarked() {
    let text = "[control]\nmetrics='0.0.0.0:9'\n[limits]\ninstances=3\n[[zone]]\nname='e'\n[[service]]\nname='s'\n\
                names=['s.e']\nimage='i'\n[[service]]\nname='t'\nnames=['t.e']\nimage='i'";
    assert_eq!(sound(text).remarks().len(), 4, "{:?}", sound(text).remarks());
}

#[test]
fn unreadable_files_are_told_like_any_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.toml");
    let (code, text) = check_command(&path);
    assert_eq!(code, 2);
    assert!(text.contains("f.toml:1: (file): cannot be read: "), "{text}");
    std::fs::write(&path, b"# fine\n# \xff\n").unwrap();
    assert!(check_command(&path).1.contains("f.toml:2: (file): is not UTF-8 from here on; "));
    assert_eq!(check_command(dir.path()).0, 2);
    std::fs::write(&path, FULL).unwrap();
    let (code, text) = check_command(&path);
    assert_eq!((code, text.lines().count()), (0, 2), "{text}");
}

#[test]
fn differences_are_named() {
    let old = sound(FULL);
    assert!(diff(&old, &old).is_empty());
    let new = sound(
        &FULL
            .replace("name = \"audio\"", "name = \"music\"")
            .replace("max = 9", "max = 7")
            .replace("\"naive\"", "\"ema\"")
            .replace("window = \"1s\"", "window = \"2s\"")
            .replace("instances = 10", "instances = 9"),
    );
    let found = diff(&old, &new);
    assert_eq!((found.added[0].as_str(), found.removed[0].as_str()), ("music", "audio"));
    assert_eq!(found.changed.len(), 1);
    assert_eq!(found.changed[0].keys, ["max", "scaling"]);
    assert!(!found.changed[0].replaces_instances);
    assert_eq!((found.live, found.restart), (vec!["limits.instances"], vec!["control.window"]));
    let policy = FULL
        .replace("\"servfail\"", "\"sorry\"")
        .replace("192.0.2.8", "192.0.2.9")
        .replace("\"client\"", "\"round-robin\"")
        .replace("\"load\"", "\"equal\"");
    let found = diff(&old, &sound(&policy));
    assert_eq!(found.changed[0].keys, ["choice", "weights", "fallback", "on_all_down"]);
    assert!(!found.changed[0].replaces_instances && found.restart.is_empty());
    let image = diff(&old, &sound(&FULL.replace("nginx@sha256:00", "nginx:2")));
    assert!(image.changed[0].replaces_instances);
}

#[test]
fn rates_and_networks_are_changed_while_the_daemon_runs() {
    let old = sound(FULL);
    let new = sound(
        &FULL
            .replace("\"200mbit\"", "\"300mbit\"")
            .replace("\"2gbit\"", "\"3gbit\"")
            .replace("metric = 7", "metric = 8")
            .replace("\"br0\"", "\"br1\""),
    );
    let found = diff(&old, &new);
    assert_eq!(found.changed[0].keys, ["rate"]);
    assert!(!found.changed[0].replaces_instances);
    assert_eq!((found.live, found.restart), (vec!["network", "technology.docker.rate"], vec!["technology.docker"]));
    let running = new.clone().with_fixed_of(&old);
    let pool = running.pool(Technology::Docker);
    assert_eq!((pool.bridge.as_str(), pool.shaping), ("br0", new.pool(Technology::Docker).shaping));
    assert_eq!(running.networks, new.networks);
}

#[test]
fn name_servers_follow_what_is_listened_on() {
    let with = |listen: &str| sound(&format!("[dns]\nlisten={listen}\n[[zone]]\nname='e'"));
    let both = with("['127.0.0.1','192.0.2.1']");
    assert_eq!(both.zones[0].nameserver_addresses, both.listen[1..]);
    let local = with("['127.0.0.1']");
    assert_eq!(local.zones[0].nameserver_addresses, local.listen);
    // A running daemon goes on listening where it did, so its name servers stay there too.
    assert_eq!((diff(&local, &both).live, diff(&local, &both).restart), (vec![], vec!["dns.listen"]));
    assert_eq!(both.with_fixed_of(&local), local);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is done to a file, it is taken or told about, one line each with place and remedy.
    #[test]
    fn damaged_files_never_panic(
        cut in 0usize..FULL.len(),
        len in 0usize..40,
        insert in prop_oneof!["\\PC{0,12}", "[\\[\\]\"'=.#\n\r\t{}0-9a-z-]{0,12}"],
    ) {
        let end = (cut + len).min(FULL.len());
        let text = format!("{}{insert}{}", &FULL[..cut], &FULL[end..]);
        for line in faults(&text) {
            prop_assert!(!line.contains('\n') && line.contains("; "), "{line}");
            let number: usize = line.split(':').nth(1).unwrap().parse().unwrap();
            prop_assert!((1..=text.matches('\n').count() + 1).contains(&number), "{line}");
        }
    }
}

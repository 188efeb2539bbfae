//! `[[service]]`: one service to its checked form.

use std::net::IpAddr;
use std::time::Duration;

use autoscale::predict::PredictorKind;

use super::names::domain_name;
use super::reader::{Field, Section};
use super::scaling::{Scaling, Written, predictor_kind};
use super::shared::{LONGEST_TTL_S, MOST_INSTANCES, shaping, without_doubles};
use super::values::{absolute_path, argument, duration, identifier, image, number, request_path, unicast, whole};
use super::values::{whole32, word};
use crate::images::Reference;
use crate::model::{
    AtDeadline, Choice, Guest, LateClients, Launch, OnAllDown, Probing, ServiceName, ServiceSpec, Technology, Weights,
};

/// Names of one service that the file may list.
const MOST_NAMES: usize = 64;
const EXAMPLE_ADDRESSES: &str = "[\"192.0.2.7\", \"2001:db8::7\"]";
/// `max` where the file gives none and the node's limit allows it.
const DEFAULT_MAX: u32 = 8;

/// Fallback groups of one service, and addresses of one group.
const MOST_GROUPS: usize = 8;
const MOST_ADDRESSES: usize = 64;

const KEYS: [&str; 41] = [
    "name",
    "names",
    "technology",
    "image",
    "launch",
    "arguments",
    "disk",
    "ramdisk",
    "click",
    "port",
    "probe_path",
    "probe_interval",
    "probe_timeout",
    "probe_fall",
    "probe_rise",
    "replace_after",
    "capacity",
    "min",
    "max",
    "ttl_s",
    "answers",
    "choice",
    "weights",
    "fallback",
    "on_all_down",
    "sorry",
    "vcpus",
    "memory_mib",
    "rate",
    "burst",
    "start_deadline",
    "drain_quiet",
    "drain_deadline",
    "drain_at_deadline",
    "drain_late",
    "drain_forward",
    "drain_ttl_s",
    "predictor",
    "scaling",
    "summon",
    "prepared",
];

/// A service with the places that checks over several sections need.
pub(super) struct ServiceSection {
    pub(super) spec: ServiceSpec,
    pub(super) scaling: Scaling,
    /// How its keys are named in complaints.
    pub(super) path: String,
    pub(super) name: Field<ServiceName>,
    pub(super) names: Vec<Field<String>>,
    /// Addresses elsewhere that it may be answered with, with the names of their keys.
    pub(super) elsewhere: Vec<(String, Field<IpAddr>)>,
    pub(super) min: Field<u32>,
    pub(super) max: Field<u32>,
}

/// `None` where the service has no usable name.
pub(super) fn service(
    section: &mut Section<'_, '_>,
    node_limit: &Field<u32>,
    scaling: &Written,
) -> Option<ServiceSection> {
    let name = section.required("name", None, "\"video\"", |v| identifier(v, ServiceName::new).map(Some));
    if let Some(name) = &name.value {
        section.path = format!("service.{name}");
    }
    section.allow(&KEYS);

    let listed = section.list("names", "[\"video.edge.example.\"]", domain_name);
    let names_line = listed.as_ref().map_or(section.line, |l| l.line);
    let names_broken = listed.as_ref().is_some_and(|l| l.broken);
    let names = without_doubles(section, "names", listed);
    if names.is_empty() && !names_broken {
        section.complain(names_line, "names", "is missing or empty", "add names = [\"video.edge.example.\"]");
    }
    if names.len() > MOST_NAMES {
        let what = format!("has {} names", names.len());
        section.complain(names_line, "names", what, format!("use at most {MOST_NAMES}"));
    }

    let predictor = section.optional("predictor", PredictorKind::Ema, predictor_kind);
    let (min, max) = bounds(section, node_limit);
    let (quiet, deadline, at_deadline) = drain(section);
    let (late, forward) = late_clients(section, at_deadline);
    let ttl = section.or("ttl_s", 5, |v| whole32(v, 1, LONGEST_TTL_S));
    let drain_ttl_s = drain_ttl(section, &ttl);
    let choices = Choice::ALL.map(|c| (c.label(), c));
    let weights = Weights::ALL.map(|w| (w.label(), w));
    let groups = fallback(section);
    let (on_all_down, sorry) = policy(section);
    let summon = super::summon::of_service(section, &min, !sorry.is_empty());
    let time = |key, default: u64, least: u64, most: u64| {
        let limits = (Duration::from_millis(least), Duration::from_millis(most));
        section.or(key, Duration::from_millis(default), |v| duration(v, limits.0, limits.1)).value
    };
    let (technology, image, guest) = runs(section);
    let prepared = super::prepared::of_service(section, technology, guest.launch, max.value);
    let spec = ServiceSpec {
        names: names.iter().map(|f| f.value.clone()).collect(),
        technology,
        image,
        guest,
        port: section.or("port", 80, |v| whole(v, 1, 65_535).map(|p| u16::try_from(p).unwrap_or(80))).value,
        probe_path: section.or("probe_path", "/".to_owned(), request_path).value,
        capacity: section.or("capacity", 20.0, |v| number(v, 0.001, 1e9)).value,
        min: min.value,
        max: max.value,
        ttl_s: ttl.value,
        answers: section.or("answers", 4, |v| whole32(v, 1, 64)).value,
        choice: section.or("choice", Choice::RoundRobin, |v| word(v, &choices)).value,
        weights: section.or("weights", Weights::Equal, |v| word(v, &weights)).value,
        fallback: groups.iter().map(|(_, group)| group.iter().map(|a| a.value).collect()).collect(),
        on_all_down,
        sorry: sorry.iter().map(|a| a.value).collect(),
        vcpus: section.or("vcpus", 1.0, |v| number(v, 0.01, 512.0)).value,
        memory_mib: section.or("memory_mib", 256, |v| whole(v, 6, 1 << 20)).value,
        shaping: shaping(section),
        summon,
        prepared,
        probing: Probing {
            interval: time("probe_interval", 1_000, 10, 3_600_000),
            timeout: time("probe_timeout", 1_000, 10, 60_000),
            fall: section.or("probe_fall", 3, |v| whole32(v, 1, 100)).value,
            rise: section.or("probe_rise", 2, |v| whole32(v, 1, 100)).value,
            replace_after: time("replace_after", 10_000, 0, 86_400_000),
        },
        start_deadline: time("start_deadline", 30_000, 100, 3_600_000),
        drain_quiet: quiet,
        drain_deadline: deadline,
        drain_at_deadline: at_deadline,
        drain_late: late,
        drain_forward: forward,
        drain_ttl_s,
        name: name.value.clone()?,
    };
    let name = name.map(|_| spec.name.clone());
    let of_groups = groups.into_iter().flat_map(|(key, group)| group.into_iter().map(move |a| (key.clone(), a)));
    let elsewhere = of_groups.chain(sorry.into_iter().map(|a| (section.key("sorry"), a))).collect();
    let scaling = super::scaling::of_service(section, scaling, &spec, predictor);
    Some(ServiceSection { spec, scaling, path: section.path.clone(), name, names, elsewhere, min, max })
}

/// Technology and image, and what of a unikernel its image does not say.
fn runs(section: &Section<'_, '_>) -> (Technology, String, Guest) {
    let technologies = Technology::ALL.map(|t| (t.label(), t));
    let technology = section.or("technology", Technology::Docker, |v| word(v, &technologies));
    let image = section.required("image", String::new(), "\"nginx:1.28\"", image);
    let launches = Launch::ALL.map(|l| (l.label(), l));
    let launch = section.optional("launch", Launch::default(), |v| word(v, &launches));
    let arguments = section.list("arguments", "[\"--verbose\"]", argument);
    let file = |key| section.optional(key, std::path::PathBuf::new(), absolute_path);
    let (disk, ramdisk, click) = (file("disk"), file("ramdisk"), file("click"));
    let is_unikernel = technology.value.runs_guests();
    let is_tagged = |name: &str| name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let is_image = |text: &str| text.starts_with('/') || (is_tagged(text) && text.parse::<Reference>().is_ok());
    if is_unikernel && !image.broken && !is_image(&image.value) {
        let starts = technology.value.label();
        let what = format!(
            "{:?} is neither a file's path nor an image's name with its tag, which {starts} starts",
            image.value
        );
        let remedy = "write the whole path, from /, or a name as in \"page:1\" or \"192.0.2.7:5000/page:1\"";
        section.complain(image.line, "image", what, remedy);
    }
    let lines = [
        ("launch", launch.as_ref().map(|f| f.line)),
        ("arguments", arguments.as_ref().map(|f| f.line)),
        ("disk", disk.as_ref().map(|f| f.line)),
        ("ramdisk", ramdisk.as_ref().map(|f| f.line)),
        ("click", click.as_ref().map(|f| f.line)),
    ];
    for (key, line) in lines {
        if let Some(line) = line.filter(|_| !is_unikernel && !technology.broken) {
            let what = format!("is for unikernels, and technology is {:?}", technology.value.label());
            section.complain(line, key, what, "remove it, or use technology = \"spt\" or another that runs unikernels");
        }
    }
    let launch_line = launch.as_ref().map_or(section.line, |f| f.line);
    let launch = launch.map(|f| f.value).unwrap_or_default();
    let is_click = launch == Launch::ClickOs;
    let (fits, label) = (technology.value.is_xen(), technology.value.label());
    if is_unikernel && !technology.broken {
        let only = "is for guests of Xen alone";
        let remedy = "remove it, or use technology = \"xen-pv\" or \"xen-pvh\"";
        if let Some(line) = ramdisk.as_ref().map(|f| f.line).filter(|_| !fits) {
            section.complain(line, "ramdisk", format!("{only}, and technology is {label:?}"), remedy);
        }
        if is_click && !fits {
            section.complain(launch_line, "launch", format!("{only}, and technology is {label:?}"), remedy);
        }
        if let Some(line) = disk.as_ref().map(|f| f.line).filter(|_| fits) {
            let what = format!("is not for guests of Xen, and technology is {label:?}");
            section.complain(line, "disk", what, "remove it; a guest of Xen has its content in its image or ramdisk");
        }
        if is_click != click.is_some() {
            let line = click.as_ref().map_or(launch_line, |f| f.line);
            let what = "goes with launch = \"clickos\", and each is of no use without the other";
            section.complain(line, "click", what, "write both, or neither");
        }
    }
    let text = |file: Option<Field<std::path::PathBuf>>| file.map(|f| f.value.to_string_lossy().into_owned());
    let guest = Guest {
        launch,
        arguments: arguments.into_iter().flat_map(|list| list.value).map(|f| f.value).collect(),
        disk: text(disk),
        ramdisk: text(ramdisk),
        click: text(click),
    };
    (technology.value, image.value, guest)
}

/// `[[service.fallback]]`: the groups in order, each with the name of its key.
fn fallback(section: &Section<'_, '_>) -> Vec<(String, Vec<Field<IpAddr>>)> {
    let groups = section.sections("fallback");
    if let Some(extra) = groups.get(MOST_GROUPS) {
        let what = format!("has {} groups", groups.len());
        section.complain(extra.line, "fallback", what, format!("use at most {MOST_GROUPS}"));
    }
    let group = |group: &Section<'_, '_>| {
        group.allow(&["addresses"]);
        let list = group.list("addresses", EXAMPLE_ADDRESSES, unicast);
        let line = list.as_ref().map_or(group.line, |l| l.line);
        let empty = list.as_ref().is_none_or(|l| l.value.is_empty() && !l.broken);
        if empty {
            group.complain(line, "addresses", "is missing or empty", format!("add addresses = {EXAMPLE_ADDRESSES}"));
        }
        (group.key("addresses"), addresses(group, "addresses", list))
    };
    groups.iter().map(group).collect()
}

/// What is answered when all is down, and the addresses of `sorry`.
fn policy(section: &Section<'_, '_>) -> (OnAllDown, Vec<Field<IpAddr>>) {
    let policies = OnAllDown::ALL.map(|p| (p.label(), p));
    let policy = section.or("on_all_down", OnAllDown::LastGood, |v| word(v, &policies));
    let list = section.list("sorry", EXAMPLE_ADDRESSES, unicast);
    let missing = list.as_ref().is_none_or(|l| l.value.is_empty() && !l.broken);
    if policy.value == OnAllDown::Sorry && missing {
        let what = "is \"sorry\", but there are no sorry addresses";
        section.complain(policy.line, "on_all_down", what, format!("add sorry = {EXAMPLE_ADDRESSES}"));
    }
    (policy.value, addresses(section, "sorry", list))
}

/// A list of addresses, each once and not too many.
fn addresses(section: &Section<'_, '_>, key: &str, list: Option<Field<Vec<Field<IpAddr>>>>) -> Vec<Field<IpAddr>> {
    let line = list.as_ref().map_or(section.line, |l| l.line);
    let addresses = without_doubles(section, key, list);
    if addresses.len() > MOST_ADDRESSES {
        let what = format!("has {} addresses", addresses.len());
        section.complain(line, key, what, format!("use at most {MOST_ADDRESSES}"));
    }
    addresses
}

fn bounds(section: &Section<'_, '_>, node_limit: &Field<u32>) -> (Field<u32>, Field<u32>) {
    let min = section.or("min", 1, |v| whole32(v, 0, MOST_INSTANCES));
    let default_max = DEFAULT_MAX.max(min.value).min(node_limit.value).max(1);
    let max = section.or("max", default_max, |v| whole32(v, 1, MOST_INSTANCES));
    if !max.broken && !node_limit.broken && max.value > node_limit.value {
        let what = format!("{} is more than limits.instances = {}", max.value, node_limit.value);
        section.complain(max.line, "max", what, format!("use at most {} or raise the limit", node_limit.value));
    }
    if !min.broken && !max.broken && !node_limit.broken && min.value > max.value {
        let bound = if max.written { "max" } else { "limits.instances" };
        let what = format!("{} is more than {bound} = {}", min.value, max.value);
        section.complain(min.line, "min", what, format!("use at most {} or raise {bound}", max.value));
    }
    (min, max)
}

fn drain(section: &Section<'_, '_>) -> (Duration, Duration, AtDeadline) {
    let (shortest, day) = (Duration::from_millis(100), Duration::from_secs(86_400));
    let quiet = section.or("drain_quiet", Duration::from_secs(2), |v| duration(v, shortest, day));
    let deadline = section.or("drain_deadline", Duration::from_secs(300), |v| duration(v, shortest, day));
    if !quiet.broken && !deadline.broken && quiet.value > deadline.value {
        let what = "is longer than drain_deadline, so it could never pass";
        section.complain(quiet.line, "drain_quiet", what, "use a shorter time or raise drain_deadline");
    }
    let words = AtDeadline::ALL.map(|at| (at.label(), at));
    let at_deadline = section.or("drain_at_deadline", AtDeadline::Cut, |v| word(v, &words));
    (quiet.value, deadline.value, at_deadline.value)
}

/// What becomes of clients that come late, and how long they are forwarded. Unless it says so, they fare as all others do
/// at the deadline.
fn late_clients(section: &Section<'_, '_>, at_deadline: AtDeadline) -> (LateClients, Duration) {
    let usual = match at_deadline {
        AtDeadline::Cut => LateClients::Cut,
        AtDeadline::Keep => LateClients::Keep,
    };
    let words = LateClients::ALL.map(|late| (late.label(), late));
    let late = section.or("drain_late", usual, |v| word(v, &words));
    let (usual, day) = (Duration::from_secs(300), Duration::from_secs(86_400));
    let forward = section.or("drain_forward", usual, |v| duration(v, Duration::from_secs(1), day));
    (late.value, forward.value)
}

/// The TTL while a removal is coming, which shortens the usual one.
fn drain_ttl(section: &Section<'_, '_>, ttl: &Field<u32>) -> Option<u32> {
    let short = section.optional("drain_ttl_s", 1, |v| whole32(v, 1, LONGEST_TTL_S))?;
    if !short.broken && !ttl.broken && short.value >= ttl.value {
        let what = format!("{} is not below ttl_s = {}, so it would shorten nothing", short.value, ttl.value);
        section.complain(short.line, "drain_ttl_s", what, "use less, or remove it");
    }
    Some(short.value)
}

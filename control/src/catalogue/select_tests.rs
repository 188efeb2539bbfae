//! Staged requirements, each with the choice and the reason that are right for it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use super::*;
use crate::model::{Feature, Figures, Isolation, Quantiles, Timestamp};

const ALL: &str = "docker spt hvt qemu-microvm firecracker xen";

fn on_node(labels: &str) -> BTreeSet<String> {
    labels.split_whitespace().map(str::to_owned).collect()
}

fn asks() -> Requirements {
    Requirements::default()
}

fn within(ms: f64) -> Requirements {
    Requirements { start_within_ms: Some(ms), ..asks() }
}

fn memory(mib: f64) -> Requirements {
    Requirements { memory_mib: Some(mib), ..asks() }
}

fn throughput(mbit: f64) -> Requirements {
    Requirements { throughput_mbit: Some(mbit), ..asks() }
}

fn isolated(class: Isolation) -> Requirements {
    Requirements { isolation: Some(class), ..asks() }
}

fn with(features: &[Feature]) -> Requirements {
    Requirements { features: features.iter().copied().collect(), ..asks() }
}

#[test]
fn each_service_gets_what_fits_it() {
    use Feature::{BlockDevice, Ipv6, LinuxPrograms, LiveResize, RangeRequests};
    use Isolation::{Container, Sandbox, Vm};
    let catalogue = built_in();
    // Requirements, the node's technologies, the choice, a part of the reason.
    let rows: &[(Requirements, &str, &str, &str)] = &[
        (asks(), ALL, "spt web", "nothing is asked for; the least memory, 2.2 MiB where docker takes 8"),
        (within(20.0), ALL, "spt web", "starts in 8 of 20 ms (p95); the only one"),
        (Requirements { memory_mib: Some(16.0), ..within(20.0) }, ALL, "spt web", "takes 2.2 of 16 MiB"),
        (within(1000.0), "docker", "docker nginx", "spt would take 2.2 MiB, but is not on this node"),
        (within(100.0), "docker hvt xen", "hvt web", "starts in 60 of 100 ms"),
        (within(70.0), "docker qemu-microvm", "qemu-microvm web", "starts in 70 of 70 ms"),
        (within(150.0), "firecracker qemu-microvm", "firecracker web", "24 MiB where qemu-microvm takes 40"),
        (memory(4.0), ALL, "spt web", "takes 2.2 of 4 MiB; the only one"),
        (memory(10.0), "docker xen", "docker nginx", "takes 8 of 10 MiB"),
        (memory(20.0), "xen", "xen clickos", "takes 16 of 20 MiB"),
        (throughput(500.0), ALL, "spt web", "sends 1000 Mbit/s where 500 are asked for"),
        (throughput(1500.0), ALL, "docker nginx", "sends 8000 Mbit/s"),
        (throughput(5000.0), ALL, "docker nginx", "sends 8000 Mbit/s where 5000 are asked for; the only one"),
        (Requirements { isolation: Some(Vm), ..throughput(1500.0) }, ALL, "firecracker web", "isolation is vm"),
        (isolated(Container), ALL, "spt web", "isolation is sandbox"),
        (isolated(Sandbox), "docker spt", "spt web", "isolation is sandbox; the only one"),
        (isolated(Vm), ALL, "hvt web", "isolation is vm; the least memory, 12 MiB where xen takes 16"),
        (isolated(Vm), "docker spt qemu-microvm", "qemu-microvm web", "hvt would take 12 MiB, but is not on this node"),
        (with(&[LinuxPrograms]), ALL, "docker nginx", "has linux-programs; the least memory, 8 MiB where docker"),
        (with(&[LiveResize, Ipv6]), ALL, "docker nginx", "has live-resize, has ipv6"),
        (with(&[BlockDevice]), ALL, "spt web", "has block-device"),
        (with(&[BlockDevice]), "docker qemu-microvm", "qemu-microvm web", "has block-device; the only one"),
        (with(&[RangeRequests]), "docker", "docker nginx", "has range-requests; the only one"),
        (Requirements { isolation: Some(Vm), ..with(&[BlockDevice]) }, ALL, "hvt web", "isolation is vm"),
        (Requirements { memory_mib: Some(64.0), ..within(1000.0) }, "xen", "xen clickos", "starts in 700 of 1000 ms"),
    ];
    assert!(rows.len() >= 20);
    for (requirements, node, expected, fragment) in rows {
        let choice = select(requirements, &catalogue, &on_node(node));
        let choice = choice.unwrap_or_else(|none| panic!("{requirements:?} on {node}: {none}"));
        let chosen = format!("{} {}", choice.entry.technology, choice.entry.image);
        assert_eq!(chosen, *expected, "{requirements:?} on {node}: {}", choice.reason);
        assert!(choice.reason.contains(fragment), "{requirements:?} on {node}: {}", choice.reason);
        assert!(choice.reason.contains("not measured here"), "{}", choice.reason);
    }
}

#[test]
fn where_nothing_fits_every_entry_says_why() {
    let catalogue = built_in();
    let rows: &[(Requirements, &str, &str)] = &[
        (within(1.0), ALL, "spt web: starts in 8 ms (p95), 1 ms are allowed"),
        (memory(1.0), ALL, "docker nginx: takes 8 MiB, 1 MiB are allowed"),
        (throughput(10_000.0), ALL, "docker nginx: sends 8000 Mbit/s, 10000 Mbit/s are asked for"),
        (throughput(1.0), "xen", "xen clickos: nobody has measured its throughput"),
        (isolated(Isolation::Vm), "docker", "docker nginx: isolation is container, vm or stronger is asked for"),
        (with(&[Feature::LinuxPrograms]), "spt", "spt web: has no linux-programs"),
        (within(20.0), "docker", "spt web: not on this node"),
        (asks(), "", "docker nginx: not on this node"),
    ];
    for (requirements, node, fragment) in rows {
        let none = select(requirements, &catalogue, &on_node(node)).unwrap_err();
        assert_eq!(none.rejected.len(), catalogue.len());
        assert!(none.to_string().contains(fragment), "{requirements:?} on {node}: {none}");
    }
    assert!(select(&asks(), &[], &on_node(ALL)).is_err());
}

#[test]
fn what_was_measured_here_counts() {
    let measured = |technology: &str, image: &str, p95: f64, memory_mib: f64| Measurement {
        technology: technology.to_owned(),
        image: image.to_owned(),
        at: Timestamp(5),
        runs: 30,
        figures: Figures {
            size_bytes: 1,
            allocation_ms: Quantiles { p50: p95 / 2.0, p95 },
            removal_ms: Quantiles { p50: 1.0, p95: 2.0 },
            memory_mib,
            throughput_mbit: Some(100.0),
        },
    };
    let catalogue = catalogue(&[
        measured("spt", "web", 40.0, 3.0),
        measured("docker", "shop/video:3", 500.0, 5.0),
        measured("unheard-of", "x", 1.0, 1.0),
    ]);
    assert_eq!(catalogue.len(), built_in().len() + 1);
    let late = select(&within(20.0), &catalogue, &on_node("spt")).unwrap_err();
    assert!(late.to_string().contains("spt web: starts in 40 ms"), "{late}");
    let video = select(&with(&[Feature::LinuxPrograms]), &catalogue, &on_node("docker")).unwrap();
    assert_eq!(video.entry.image, "shop/video:3");
    assert!(!video.reason.contains("not measured here"), "{}", video.reason);
    // What an image can is not taken from another image of the technology.
    let ranges = select(&with(&[Feature::RangeRequests]), &catalogue, &on_node("docker")).unwrap();
    assert_eq!(ranges.entry.image, "nginx");
}

//! Entries for a node on which nothing has been measured: published figures, to be replaced by its own.

use std::collections::BTreeSet;

use crate::model::{CatalogueEntry, Feature, Figures, Isolation, Quantiles};

/// Technology, image, class, features of the image beside the technology's; size in kB; allocation p50 and p95, removal
/// p50 and p95 in ms; memory in MiB; throughput in Mbit/s.
type Row = (&'static str, &'static str, Isolation, &'static [Feature], u64, [f64; 4], f64, Option<f64>);

/// Sizes of the containers, of Rumprun, ClickOS and MirageOS with 1 MB of content: table III of the paper; their times
/// in the order of its figure 3. Our unikernel: prototypes on Solo5 and QEMU (2.4 ms and 2.2 MiB, 33 ms and 40 MiB).
/// Firecracker: its specification (125 ms, 5 MiB beside the guest's memory).
const ROWS: [Row; 8] = {
    use Feature::{BlockDevice, RangeRequests};
    [
        (
            "docker",
            "nginx",
            Isolation::Container,
            &[RangeRequests],
            22_500,
            [600.0, 900.0, 300.0, 600.0],
            8.0,
            Some(8000.0),
        ),
        ("docker", "flask", Isolation::Container, &[], 85_200, [900.0, 1500.0, 300.0, 600.0], 32.0, Some(2000.0)),
        (
            "spt",
            "web",
            Isolation::Sandbox,
            &[BlockDevice, RangeRequests],
            179,
            [3.0, 8.0, 5.0, 10.0],
            2.2,
            Some(1000.0),
        ),
        ("hvt", "web", Isolation::Vm, &[BlockDevice, RangeRequests], 179, [35.0, 60.0, 5.0, 10.0], 12.0, Some(1000.0)),
        (
            "qemu-microvm",
            "web",
            Isolation::Vm,
            &[BlockDevice, RangeRequests],
            140,
            [33.0, 70.0, 8.0, 15.0],
            40.0,
            Some(300.0),
        ),
        (
            "firecracker",
            "web",
            Isolation::Vm,
            &[BlockDevice, RangeRequests],
            140,
            [60.0, 125.0, 8.0, 15.0],
            24.0,
            Some(2000.0),
        ),
        ("xen", "clickos", Isolation::Vm, &[], 6200, [500.0, 700.0, 10.0, 20.0], 16.0, None),
        ("xen", "mirage", Isolation::Vm, &[], 13_400, [2300.0, 3000.0, 10.0, 20.0], 32.0, None),
    ]
};

/// The built-in entries, none measured here.
#[must_use]
pub fn built_in() -> Vec<CatalogueEntry> {
    let entry = |(technology, image, isolation, features, kb, times, memory_mib, throughput_mbit): Row| {
        let [p50, p95, removal_p50, removal_p95] = times;
        let mut all = of_technology(technology);
        all.extend(features);
        CatalogueEntry {
            technology: technology.to_owned(),
            image: image.to_owned(),
            figures: Figures {
                size_bytes: kb * 1000,
                allocation_ms: Quantiles { p50, p95 },
                removal_ms: Quantiles { p50: removal_p50, p95: removal_p95 },
                memory_mib,
                throughput_mbit,
            },
            isolation,
            features: all,
            measured: None,
        }
    };
    ROWS.into_iter().map(entry).collect()
}

/// What every image of a technology can.
pub(super) fn of_technology(technology: &str) -> BTreeSet<Feature> {
    match technology {
        "docker" => [Feature::LinuxPrograms, Feature::LiveResize, Feature::Ipv6].into(),
        _ => BTreeSet::new(),
    }
}

//! How the time grows with the table. All tables are loaded at once and take turns.

use std::sync::Arc;

use xdp_balancer_common::{bench, object};

use super::harness::{Harness, Timed};
use super::{BenchOptions, ScalingReport, cases, open, scaling_dir};
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::frames::wire;
use crate::maps::Sizes;
use crate::table::{Below, Name, Rrset, Table};

/// Behind eight letters that number the names; 30 bytes in wire form with them.
const SUFFIX: &str = ".bench.edge.example";
/// Offset of the letters: Ethernet, IPv4, UDP, DNS, and the label's length.
const LETTERS_AT: u32 = 14 + 20 + 8 + 12 + 1;

/// Runs before the clock starts: the tables before this one have left theirs in the caches.
const WARM_UP: u32 = bench::SEQUENCE;
/// Runs per figure: short enough to fall between two disturbances.
const REPEAT: u32 = bench::SEQUENCE / 4;
/// Figures after each warming up.
const WINDOWS: u32 = 6;
/// Rounds for each of the other cases' ones: what others on the machine do to a shared cache lasts longer than what they
/// do to a core.
const ROUNDS: u32 = 3;

/// One table in place.
struct Size {
    names: u32,
    services: u32,
    plane: Dataplane,
    uniform: Timed,
    zipf: Timed,
}

/// Figures by size; `passing` holds the passing program.
pub(super) fn measure(
    options: &BenchOptions,
    harness: &mut Harness,
    passing: &Dataplane,
    pass_ns: f64,
) -> Result<Vec<ScalingReport>, Error> {
    let mut sizes = Vec::new();
    for (names, services) in &options.tables {
        sizes.push(Size::load(options, *names, *services)?);
    }
    let frame = cases::query(&name_of(0));
    harness.set_order(uniform())?;
    for _ in 0..options.rounds * ROUNDS {
        for size in &mut sizes {
            harness.set_frame(&frame, LETTERS_AT, size.names)?;
            size.warm_up(harness, &frame)?;
            size.uniform.add_windows(harness, [&size.plane, passing], &frame, REPEAT, WINDOWS)?;
        }
    }
    for size in &mut sizes {
        harness.set_order(zipf(size.names))?;
        harness.set_frame(&frame, LETTERS_AT, size.names)?;
        for _ in 0..options.rounds * ROUNDS {
            size.warm_up(harness, &frame)?;
            size.zipf.add_windows(harness, [&size.plane, passing], &frame, REPEAT, WINDOWS)?;
        }
    }
    let ns = |time: &Timed| time.program - time.pass + pass_ns;
    let report = |size: &Size| ScalingReport {
        names: size.names,
        services: size.services,
        ns: ns(&size.uniform),
        zipf_ns: ns(&size.zipf),
    };
    Ok(sizes.iter().map(report).collect())
}

impl Size {
    fn load(options: &BenchOptions, names: u32, services: u32) -> Result<Self, Error> {
        let sizes = Sizes { services, flows: 1, connections: 1, ..Sizes::default() };
        let mut plane = open(&scaling_dir(&options.pin_dir, names, services), sizes)?;
        let rings: Vec<_> = (0..services).map(|service| cases::ring(false, 4, service)).collect();
        let entries = (0..names).zip(rings.iter().cycle()).map(|(number, ring)| Name {
            wire: wire(&name_of(number)),
            service: number % services,
            rrsets: vec![Rrset { qtype: cases::A, ring: Some(Arc::clone(ring)) }],
            others: None,
            below: Below::UserSpace,
        });
        let names_in_it = entries.collect();
        plane.publish(&Table { generation: 1, local: cases::local(), names: names_in_it, ..Table::default() })?;
        Ok(Self { names, services, plane, uniform: Timed::default(), zipf: Timed::default() })
    }
}

impl Size {
    fn warm_up(&self, harness: &mut Harness, frame: &[u8]) -> Result<(), Error> {
        harness.aim(&self.plane, object::XDP)?;
        harness.run(frame, WARM_UP).map(drop)
    }
}

fn name_of(number: u32) -> String {
    let letters = bench::letters(number).to_ne_bytes();
    letters.iter().map(|letter| char::from(*letter)).chain(SUFFIX.chars()).collect()
}

/// A fixed sequence that looks random (splitmix64), so that runs can be compared.
fn random(seed: u64) -> impl Iterator<Item = u64> {
    (1_u64..).map(move |i| {
        let mixed = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    })
}

fn uniform() -> impl Iterator<Item = u32> {
    random(1).map(|number| (number >> 32) as u32)
}

/// Zipf's law with exponent 1: the chance of rank k goes with 1/k.
fn zipf(names: u32) -> impl Iterator<Item = u32> {
    let mut sums: Vec<f64> = Vec::with_capacity(names as usize);
    let mut sum = 0.0;
    for rank in 1..=names {
        sum += 1.0 / f64::from(rank);
        sums.push(sum);
    }
    random(2).map(move |number| {
        let at = (number >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        let rank = (sums.partition_point(|sum| *sum < at) as u32).min(names - 1);
        // The least fraction that leads to this rank.
        (u64::from(rank) << 32).div_ceil(u64::from(names)) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_stay_inside_the_table_and_reach_all_of_it() {
        let name = |fraction: u32| ((u64::from(fraction) * 10) >> 32) as usize;
        let mut met = [0_u32; 10];
        uniform().take(10_000).for_each(|fraction| met[name(fraction)] += 1);
        assert!(met.iter().all(|count| (800..1200).contains(count)), "{met:?}");
        let mut met = [0_u32; 10];
        zipf(10).take(10_000).for_each(|fraction| met[name(fraction)] += 1);
        assert!(met[0] > 3000 && met[9] > 200 && met[9] < 500, "{met:?}");
    }

    #[test]
    fn letters_number_the_names() {
        assert_eq!(name_of(0), "aaaaaaaa.bench.edge.example");
        assert_ne!(name_of(1), name_of(16));
    }
}

//! `[dataplane.limits]`, `[dataplane.lists]`, `[dataplane.stale]`, `dataplane.sample` and `dataplane.cost_sample`: who is
//! answered how much, and what is noted of it.

use std::time::Duration;

use ipnet::IpNet;

use super::reader::Section;
use super::shared::{LONGEST_TTL_S, without_doubles};
use super::values::{duration, prefix, whole32, word};
use crate::model::{ClientLists, Denied, Guard, QueryLimits, StalePolicy, Staleness};

/// Most answers in a second that can be asked for as a bound; more is none.
const MOST_RATE: u32 = 100_000_000;
/// Most prefixes in both lists together: what the kernel's trie holds.
const MOST_LISTED: usize = 16_384;
/// Longest silence of the daemon that can be waited for.
const LONGEST_SILENCE: Duration = Duration::from_secs(7 * 86_400);
/// Rarest sample.
const MOST_SAMPLE: u32 = 1 << 24;

/// All of it, out of `[dataplane]`.
pub(super) fn guard(dataplane: &Section<'_, '_>) -> Guard {
    Guard {
        limits: limits(&dataplane.section("limits")),
        lists: lists(&dataplane.section("lists")),
        stale: stale(&dataplane.section("stale")),
        sample: sample(dataplane, "sample"),
        cost_sample: sample(dataplane, "cost_sample"),
    }
}

/// One query in so many.
fn sample(dataplane: &Section<'_, '_>, key: &'static str) -> u32 {
    let sample = dataplane.or(key, 0, |v| whole32(v, 0, MOST_SAMPLE));
    if !sample.broken && sample.value != 0 && !sample.value.is_power_of_two() {
        let below = 1_u32 << sample.value.ilog2();
        let fix = format!("use {below} or {}, or 0 for none", below * 2);
        dataplane.complain(sample.line, key, format!("{} is no power of two", sample.value), fix);
    }
    sample.value
}

fn limits(section: &Section<'_, '_>) -> QueryLimits {
    section.allow(&["per_client", "per_service", "total", "prefix_v4", "prefix_v6", "slip", "amplification"]);
    let default = QueryLimits::default();
    let rate = |key| section.or(key, 0, |v| whole32(v, 0, MOST_RATE)).value;
    let bits = |key, default: u8, least, most| {
        // Bounded by `most`, which fits.
        section.or(key, u32::from(default), |v| whole32(v, least, most)).value as u8
    };
    QueryLimits {
        per_client: rate("per_client"),
        per_service: rate("per_service"),
        total: rate("total"),
        prefix_v4: bits("prefix_v4", default.prefix_v4, 8, 32),
        prefix_v6: bits("prefix_v6", default.prefix_v6, 16, 64),
        slip: section.or("slip", default.slip, |v| whole32(v, 0, 1000)).value,
        amplification: section.or("amplification", default.amplification, |v| whole32(v, 0, 100)).value,
    }
}

fn lists(section: &Section<'_, '_>) -> ClientLists {
    section.allow(&["allow", "deny", "denied"]);
    let of = |key: &'static str| -> Vec<IpNet> {
        let list = section.list(key, "[\"192.0.2.0/24\"]", prefix);
        without_doubles(section, key, list).into_iter().map(|field| field.value).collect()
    };
    let (allow, deny) = (of("allow"), of("deny"));
    let listed = allow.len() + deny.len();
    if listed > MOST_LISTED {
        let line = section.line_of("deny").unwrap_or(section.line);
        let fix = format!("use at most {MOST_LISTED} in allow and deny together");
        section.complain(line, "deny", format!("makes {listed} prefixes"), fix);
    }
    let words = Denied::ALL.map(|denied| (denied.label(), denied));
    ClientLists { allow, deny, denied: section.or("denied", Denied::default(), |v| word(v, &words)).value }
}

fn stale(section: &Section<'_, '_>) -> Staleness {
    section.allow(&["policy", "after", "ttl_s"]);
    let default = Staleness::default();
    let words = StalePolicy::ALL.map(|policy| (policy.label(), policy));
    // The daemon tells once a second that it is there.
    let shortest = Duration::from_secs(5);
    Staleness {
        policy: section.or("policy", default.policy, |v| word(v, &words)).value,
        after: section.or("after", default.after, |v| duration(v, shortest, LONGEST_SILENCE)).value,
        ttl_s: section.or("ttl_s", default.ttl_s, |v| whole32(v, 0, LONGEST_TTL_S)).value,
    }
}

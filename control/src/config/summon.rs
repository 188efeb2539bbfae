//! `[summon]` and `[service.summon]`: how queries start services that may have no instance.

use std::time::Duration;

use super::reader::{Field, Section};
use super::shared::{LONGEST_TTL_S, without_doubles};
use super::values::{duration, prefix, whole32, word};
use crate::model::{Late, Summon, SummonLimits};

/// Prefixes of clients that wake nothing; each query for a service at zero is held against all of them.
/// The kernel's settings hold them beside this node's own addresses.
const MOST_MONITORS: usize = 24;
/// Starts per minute that can be allowed.
const MOST_STARTS: u32 = 60_000;
/// Queries that can be held: each takes up to 1 KiB.
const MOST_HELD: u32 = 65_536;
/// A resolver asks again after about a second; a query held longer is one whose answer nobody waits for.
const DEFAULT_HOLD: Duration = Duration::from_millis(750);

/// `[summon]`.
pub(super) fn limits(section: &Section<'_, '_>) -> SummonLimits {
    section.allow(&["monitors", "starts_per_minute", "client_starts_per_minute", "held", "held_per_client"]);
    let list = section.list("monitors", "[\"192.0.2.10/32\"]", prefix);
    let line = list.as_ref().map_or(section.line, |l| l.line);
    let monitors = without_doubles(section, "monitors", list);
    if monitors.len() > MOST_MONITORS {
        let what = format!("has {} prefixes", monitors.len());
        section.complain(line, "monitors", what, format!("use at most {MOST_MONITORS}"));
    }
    let default = SummonLimits::default();
    let held = section.or("held", default.held, |v| whole32(v, 1, MOST_HELD));
    let per_client =
        section.or("held_per_client", default.held_per_client.min(held.value), |v| whole32(v, 1, MOST_HELD));
    if !held.broken && !per_client.broken && per_client.value > held.value {
        let what = format!("{} is more than held = {}", per_client.value, held.value);
        section.complain(per_client.line, "held_per_client", what, format!("use at most {} or raise held", held.value));
    }
    let starts = |key, default| section.or(key, default, |v| whole32(v, 1, MOST_STARTS)).value;
    SummonLimits {
        monitors: monitors.into_iter().map(|f| f.value).collect(),
        starts_per_minute: starts("starts_per_minute", default.starts_per_minute),
        client_starts_per_minute: starts("client_starts_per_minute", default.client_starts_per_minute),
        held: held.value,
        held_per_client: per_client.value,
    }
}

/// `[service.summon]`; `None` of a service that always has an instance.
pub(super) fn of_service(service: &Section<'_, '_>, min: &Field<u32>, has_sorry: bool) -> Option<Summon> {
    let section = service.section("summon");
    section.allow(&["hold", "late", "ttl_s", "idle_after", "starts_per_minute"]);
    let time = |key, default: Duration, least: u64, most: u64| {
        section.or(key, default, |v| duration(v, Duration::from_millis(least), Duration::from_millis(most))).value
    };
    let policies = Late::ALL.map(|late| (late.label(), late));
    let late = section.or("late", Late::default(), |v| word(v, &policies));
    let summon = Summon {
        hold: time("hold", DEFAULT_HOLD, 10, 10_000),
        late: late.value,
        ttl_s: section.or("ttl_s", 2, |v| whole32(v, 1, LONGEST_TTL_S)).value,
        idle_after: time("idle_after", Duration::from_secs(300), 100, 86_400_000),
        starts_per_minute: section.or("starts_per_minute", 12, |v| whole32(v, 1, MOST_STARTS)).value,
    };
    if min.broken {
        return None;
    }
    if min.value > 0 {
        if let Some(line) = service.line_of("summon") {
            let what = format!("is for services that may have no instance, and min = {}", min.value);
            service.complain(line, "summon", what, "set min = 0, or remove it");
        }
        return None;
    }
    if summon.late == Late::Sorry && !has_sorry {
        let fix = "add sorry = [\"192.0.2.7\", \"2001:db8::7\"] to the service";
        section.complain(late.line, "late", "is \"sorry\", but there are no sorry addresses", fix);
    }
    for key in ["fallback", "on_all_down"] {
        if let Some(line) = service.line_of(key) {
            let what = "is never used with min = 0: the next query starts an instance";
            service.complain(
                line,
                key,
                what,
                "remove it, or set min = 1; late in [service.summon] says what is answered",
            );
        }
    }
    Some(summon)
}

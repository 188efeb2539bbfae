//! What keys of several sections have in common.

use super::reader::{Field, Section};
use super::values::{burst, rate};
use crate::model::Shaping;

/// Most instances that a node can be allowed.
pub const MOST_INSTANCES: u32 = 4096;
/// Longest TTL (RFC 8767 advises against more than a week).
pub(super) const LONGEST_TTL_S: u32 = 604_800;

/// `rate` and `burst` of a section, where it has a rate.
pub(super) fn shaping(section: &Section<'_, '_>) -> Option<Shaping> {
    let rate = section.optional("rate", 0, rate);
    let burst = section.optional("burst", 0, burst);
    let Some(rate) = rate else {
        if let Some(burst) = burst {
            section.complain(burst.line, "burst", "is given, but no rate", "add rate, or remove it");
        }
        return None;
    };
    let standard = Shaping::with_default_burst(rate.value);
    let Some(burst) = burst else { return Some(standard) };
    if !rate.broken && !burst.broken && u64::from(burst.value) * 8 > rate.value {
        let what = "holds more than a second of the rate";
        let fix = format!("use less, or remove it for {} B", standard.burst_bytes);
        section.complain(burst.line, "burst", what, fix);
    }
    Some(Shaping { rate_bps: rate.value, burst_bytes: burst.value })
}

/// Complains of each element that is there twice and leaves the second out.
pub(super) fn without_doubles<T: PartialEq + std::fmt::Display>(
    section: &Section<'_, '_>,
    key: &str,
    list: Option<Field<Vec<Field<T>>>>,
) -> Vec<Field<T>> {
    let mut once: Vec<Field<T>> = Vec::new();
    for item in list.into_iter().flat_map(|l| l.value) {
        if let Some(first) = once.iter().find(|f| f.value == item.value) {
            let what = format!("{} is there twice (line {})", item.value, first.line);
            section.complain(item.line, key, what, "remove one");
        } else {
            once.push(item);
        }
    }
    once
}

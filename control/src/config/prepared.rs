//! `[service.prepared]`: instances that are prepared ahead of those that run.

use super::reader::Section;
use super::values::whole32;
use crate::model::{Launch, Prepared, Technology};

/// `None` of a service that has none prepared. It has at most `most` instances.
pub(super) fn of_service(
    service: &Section<'_, '_>,
    technology: Technology,
    launch: Launch,
    most: u32,
) -> Option<Prepared> {
    let line = service.line_of("prepared")?;
    let section = service.section("prepared");
    section.allow(&["min", "max"]);
    if !technology.is_xen() {
        let what = format!("is for guests of Xen, and technology is {:?}", technology.label());
        service.complain(line, "prepared", what, "remove it, or use technology = \"xen-pv\" or \"xen-pvh\"");
        return None;
    }
    if !launch.can_be_prepared() {
        let what =
            format!("cannot be had with launch = {:?}, which is told its address when it is made", launch.label());
        let fix = "remove it, or use a guest that waits for its address: selvedge, linux, rumprun, clickos";
        service.complain(line, "prepared", what, fix);
        return None;
    }
    let min = section.or("min", 1, |v| whole32(v, 0, most.max(1)));
    let max = section.or("max", most.max(1), |v| whole32(v, 0, most.max(1)));
    if !min.broken && !max.broken && max.value < min.value {
        let what = format!("{} is less than min = {}", max.value, min.value);
        section.complain(max.line, "max", what, format!("use at least {} or lower min", min.value));
    }
    Some(Prepared { min: min.value, max: max.value })
}

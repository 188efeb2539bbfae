//! What is left of another layout once its last link runs our program.

use std::path::Path;

use xdp_balancer_common::object;

use crate::carried::is_countable;
use crate::error::Error;
use crate::pins;

/// Counted on from layout to layout; and where replies are rewritten, until that is taken over too.
const KEPT: [&str; 4] = [object::VERDICTS, object::SERVICES, object::TRANSIT_VERDICTS, object::TRANSIT_HOOKS];

/// Gives up the tables of a layout, if it has no link any more; its counters stay. Classifiers at instances' interfaces
/// hold its maps until [`count_flows`](crate::Dataplane::count_flows) puts ours in their place.
pub(crate) fn retire(layout: &Path) -> Result<(), Error> {
    let links = layout.join("links");
    for link in pins::links_in(&links)? {
        if link.info.ifindex != 0 {
            return Ok(());
        }
        pins::remove(&link.path)?;
    }
    for path in pins::entries(layout)? {
        let kept = is_countable(layout) && path.file_name().is_some_and(|name| KEPT.iter().any(|kept| name == *kept));
        if !kept && !path.is_dir() {
            pins::remove(&path)?;
        }
    }
    pins::remove_dir(&links)?;
    pins::remove_dir(layout)
}

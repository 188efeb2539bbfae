//! Why tables are published, said in one line: what the new content has that the old had not.

use std::collections::BTreeSet;

use crate::model::{InstanceId, PublishedService, Snapshot};

/// More than these are counted, not named.
const MOST: usize = 4;

/// What differs, for people.
pub(super) fn cause(before: &Snapshot, after: &Snapshot, first: bool) -> String {
    let mut causes = Vec::new();
    if first {
        causes.push("the daemon started".to_owned());
    }
    for zone in &after.zones {
        match before.zones.iter().find(|z| z.apex == zone.apex) {
            None => causes.push(format!("zone {} is new", zone.apex)),
            Some(old) if old != zone => causes.push(format!("zone {} changed", zone.apex)),
            Some(_) => {}
        }
    }
    let gone = before.zones.iter().filter(|z| after.zones.iter().all(|new| new.apex != z.apex));
    causes.extend(gone.map(|z| format!("zone {} left", z.apex)));
    for service in &after.services {
        match before.services.iter().find(|s| s.name == service.name) {
            None => causes.push(format!("service {} is new", service.name)),
            Some(old) if old != service => causes.push(of_service(old, service)),
            Some(_) => {}
        }
    }
    let gone = before.services.iter().filter(|s| after.services.iter().all(|new| new.name != s.name));
    causes.extend(gone.map(|s| format!("service {} left", s.name)));
    if causes.is_empty() {
        return "nothing changed".to_owned();
    }
    let more = causes.len().saturating_sub(MOST);
    causes.truncate(MOST);
    if more > 0 {
        causes.push(format!("{more} more"));
    }
    causes.join(", ")
}

fn of_service(old: &PublishedService, new: &PublishedService) -> String {
    let ids = |service: &PublishedService| -> BTreeSet<InstanceId> {
        service.backends.iter().map(|b| b.instance.clone()).collect()
    };
    let (before, after) = (ids(old), ids(new));
    let list = |word: &str, ids: Vec<&InstanceId>| match ids.as_slice() {
        [] => None,
        [one] => Some(format!("{word}{one}")),
        many => Some(format!("{word}{} instances", many.len())),
    };
    let came = list("+", after.difference(&before).collect());
    let went = list("-", before.difference(&after).collect());
    let changes: Vec<String> = [came, went].into_iter().flatten().collect();
    let what = if changes.is_empty() { "changed".to_owned() } else { changes.join(" ") };
    format!("{}: {what}", new.name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;
    use crate::model::fixtures::{backend, service};

    fn snapshot(services: &[(&str, &[u8])]) -> Snapshot {
        let service =
            |(name, backends): &(&str, &[u8])| service(name, backends.iter().map(|number| backend(*number)).collect());
        Snapshot { services: services.iter().map(service).collect(), ..Snapshot::default() }
    }

    #[test]
    fn says_what_came_and_went() {
        let before = snapshot(&[("a", &[1, 2]), ("b", &[3]), ("c", &[])]);
        let after = snapshot(&[("a", &[2, 4, 5]), ("b", &[3]), ("d", &[])]);
        assert_eq!(cause(&before, &after, false), "a: +2 instances -00000001, service d is new, service c left");
        assert_eq!(cause(&before, &before, true), "the daemon started");
        assert_eq!(cause(&before, &before, false), "nothing changed");
        let many = snapshot(&[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[]), ("e", &[]), ("f", &[])]);
        assert!(cause(&Snapshot::default(), &many, false).ends_with("service d is new, 2 more"));
    }
}

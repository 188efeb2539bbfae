//! New connections for the address of an instance that has left the answers, sent to another instance: what is wanted
//! against what the kernel's table has. Pure; connections that are open are none of its business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::error::NetError;
use super::nft::{Change, Protocol, Redirect, Table};
use crate::model::{ForwardReport, InstanceId, NetChange, in_full};

/// New connections, over TCP and UDP, for an instance's address and port go to another address of the same family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// Whose address it was.
    pub instance: InstanceId,
    /// The address.
    pub from: IpAddr,
    /// The service's port.
    pub port: u16,
    /// Who answers there.
    pub to: IpAddr,
}

/// Everything that shall be forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwards {
    /// Whether anything may come to be: the kernel then keeps track of connections beforehand, so that one that is open
    /// when the first forward comes is known to be so.
    pub on: bool,
    /// What is forwarded now.
    pub all: BTreeSet<Forward>,
}

impl Forward {
    fn redirects(&self) -> impl Iterator<Item = Redirect> {
        let Self { from, port, to, .. } = *self;
        Protocol::ALL.into_iter().map(move |protocol| Redirect { from, protocol, port, to })
    }
}

/// What makes the table what is wanted; `None` where it is.
pub(super) fn change(wanted: &Forwards, seen: Option<&Table>) -> Option<Change> {
    let redirects = || wanted.all.iter().flat_map(Forward::redirects);
    let table = match seen {
        None if !wanted.on => return None,
        Some(_) if !wanted.on => return Some(Change::Remove),
        Some(table) if table.is_whole() => table,
        _ => return Some(Change::Make { replaces: seen.is_some(), add: redirects().collect() }),
    };
    let mut missing: BTreeMap<String, Redirect> = redirects().map(|r| (r.comment(), r)).collect();
    // A rule that is there twice is one too many.
    let surplus = table.redirects().filter(|rule| missing.remove(&rule.comment).is_none());
    let remove: Vec<u64> = surplus.map(|rule| rule.handle).collect();
    let add: Vec<Redirect> = missing.into_values().collect();
    let own = table.is_orphan();
    (own || !add.is_empty() || !remove.is_empty()).then_some(Change::Alter { own, add, remove })
}

/// The change in words.
pub(super) fn words(change: &Change) -> NetChange {
    let what = match change {
        Change::Remove => "remove".to_owned(),
        Change::Make { replaces, add } => {
            let verb = if *replaces { "make anew" } else { "make" };
            format!("{verb}, {} rules", add.len())
        }
        Change::Alter { add, remove, .. } if add.is_empty() && remove.is_empty() => "take over".to_owned(),
        Change::Alter { add, remove, .. } => {
            let added = add.iter().map(|redirect| format!("add {}", redirect.comment()));
            let removed = (!remove.is_empty()).then(|| format!("remove {} rules", remove.len()));
            added.chain(removed).collect::<Vec<_>>().join(", ")
        }
    };
    NetChange { object: "forward".to_owned(), name: "late clients".to_owned(), what }
}

/// Whether the kernel lacks nf_tables, or its address translation.
pub(super) fn is_missing(error: &NetError) -> bool {
    let lacks = [libc::EPROTONOSUPPORT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EINVAL, libc::ENOENT];
    error.errno().is_some_and(|errno| lacks.contains(&errno))
}

/// Forwarding does not work on this node, in words.
pub(super) fn hazard(error: &NetError) -> String {
    format!("late clients are not forwarded, they are cut at drain_deadline: {}", in_full(error))
}

/// How many connections were forwarded, over changes of the rules that count them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    last: BTreeMap<String, u64>,
    of_address: BTreeMap<IpAddr, u64>,
    total: u64,
}

impl Tally {
    /// Whether a look at the table would tell nothing new: nothing is forwarded, and nothing was.
    pub fn is_idle(&self, wanted: &Forwards) -> bool {
        wanted.all.is_empty() && self.last.is_empty() && self.of_address.is_empty()
    }

    /// Takes in the table's counts; what is forwarded, with its count, and the count of all that ever was.
    pub fn count(&mut self, wanted: &Forwards, table: &Table) -> (Vec<ForwardReport>, u64) {
        let now: BTreeMap<&str, u64> = table.redirects().map(|r| (r.comment.as_str(), r.connections)).collect();
        self.of_address.retain(|address, _| wanted.all.iter().any(|forward| forward.from == *address));
        let mut in_force = Vec::new();
        for forward in &wanted.all {
            let mut is_there = true;
            for comment in forward.redirects().map(|redirect| redirect.comment()) {
                let Some(count) = now.get(comment.as_str()).copied() else {
                    is_there = false;
                    continue;
                };
                let before = self.last.get(&comment).copied().unwrap_or(0);
                let more = count.checked_sub(before).unwrap_or(count);
                *self.of_address.entry(forward.from).or_default() += more;
                self.total += more;
            }
            if is_there {
                in_force.push(ForwardReport {
                    instance: forward.instance.clone(),
                    from: forward.from,
                    port: forward.port,
                    to: forward.to,
                    connections: self.of_address.get(&forward.from).copied().unwrap_or(0),
                });
            }
        }
        self.last = now.into_iter().map(|(comment, count)| (comment.to_owned(), count)).collect();
        (in_force, self.total)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::super::nft::SeenRule;
    use super::*;

    fn forward(from: u8, to: u8) -> Forward {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        Forward { instance: InstanceId::from_number(from.into()), from: address(from), port: 80, to: address(to) }
    }

    fn wanted(all: &[(u8, u8)]) -> Forwards {
        Forwards { on: true, all: all.iter().map(|(from, to)| forward(*from, *to)).collect() }
    }

    /// The table that the kernel has once these forwards are made, each rule with that count.
    fn table(all: &[(u8, u8)], connections: u64) -> Table {
        let redirects = wanted(all).all.into_iter().flat_map(|f| f.redirects().collect::<Vec<_>>());
        let rules = redirects.zip(10..).map(|(redirect, handle)| SeenRule {
            chain: "late".to_owned(),
            handle,
            comment: redirect.comment(),
            connections,
        });
        Table::whole(rules.collect())
    }

    #[test]
    fn what_is_as_wanted_is_left_alone() {
        assert_eq!(change(&Forwards::default(), None), None);
        assert_eq!(change(&wanted(&[]), Some(&table(&[], 0))), None);
        assert_eq!(change(&wanted(&[(2, 3)]), Some(&table(&[(2, 3)], 7))), None);
        assert_eq!(change(&Forwards::default(), Some(&table(&[], 0))), Some(Change::Remove));
    }

    #[test]
    fn only_what_differs_is_changed() {
        let Some(Change::Alter { own: false, add, remove }) = change(&wanted(&[(2, 4)]), Some(&table(&[(2, 3)], 0)))
        else {
            panic!("no change of the rules");
        };
        let added: Vec<String> = add.iter().map(Redirect::comment).collect();
        assert_eq!(added, ["10.0.0.2 tcp 80 to 10.0.0.4", "10.0.0.2 udp 80 to 10.0.0.4"]);
        assert_eq!(remove, [10, 11]);
        // Somebody added a rule of ours once more.
        let rules: Vec<SeenRule> = table(&[(2, 3)], 0).redirects().cloned().collect();
        let again = SeenRule { handle: 12, ..rules[0].clone() };
        let twice = Table::whole(rules.into_iter().chain([again]).collect());
        let removed = Change::Alter { own: false, add: vec![], remove: vec![12] };
        assert_eq!(change(&wanted(&[(2, 3)]), Some(&twice)), Some(removed));
    }

    #[test]
    fn a_table_that_others_have_changed_is_made_anew() {
        let made = |replaces| Change::Make { replaces, add: forward(2, 3).redirects().collect() };
        assert_eq!(change(&wanted(&[(2, 3)]), None), Some(made(false)));
        assert_eq!(change(&wanted(&[(2, 3)]), Some(&Table::default())), Some(made(true)));
    }

    #[test]
    fn connections_are_counted_over_changes_of_the_rules() {
        let mut tally = Tally::default();
        let count = |tally: &mut Tally, now: &[(u8, u8)], connections| {
            let (reports, total) = tally.count(&wanted(now), &table(now, connections));
            (reports.iter().map(|r| r.connections).collect::<Vec<_>>(), total)
        };
        assert_eq!(count(&mut tally, &[(2, 3)], 5), (vec![10], 10));
        assert_eq!(count(&mut tally, &[(2, 3)], 6), (vec![12], 12));
        // The rule to another target counts from nothing.
        assert_eq!(count(&mut tally, &[(2, 4)], 1), (vec![14], 14));
        assert_eq!(count(&mut tally, &[], 0), (vec![], 14));
        let (reports, total) = tally.count(&wanted(&[(2, 3)]), &table(&[], 0));
        assert_eq!((reports, total), (vec![], 14), "wanted and not there");
    }
}

//! `selvedge dataplane`: break-glass. Needs neither the daemon nor its configuration.

use std::collections::BTreeMap;
use std::path::Path;

use super::Done;
use super::paint::age;
use crate::datapath::offline;

pub(super) fn show(pin_dir: &Path, json: bool) -> Done {
    let found = offline::show(pin_dir).map_err(|e| e.to_string())?;
    if json {
        println!("{}", serde_json::to_string_pretty(&found).map_err(|e| format!("show: {e}"))?);
        return Ok(());
    }
    if found.interfaces.is_empty() {
        println!("nothing is attached under {}", pin_dir.display());
    }
    for interface in &found.interfaces {
        let status = &interface.status;
        let id = status.program_id.map_or("-".to_owned(), |id| id.to_string());
        let walked =
            interface.verified_instructions.map_or(String::new(), |count| format!(", {count} instructions verified"));
        println!("{}: {} (program {id}{walked})", status.interface, status.mode);
    }
    if found.generation != 0 {
        let age = found.heartbeat_age_ms.map_or("never".to_owned(), |ms| format!("{} ago", age(ms)));
        let stale = if found.stale { ", stale" } else { "" };
        println!("tables: generation {}, daemon last there {age}{stale}", found.generation);
    }
    if !found.guards.is_empty() {
        println!("in force: {}", found.guards.join(", "));
    }
    let counts: Vec<String> = GUARDS.iter().filter_map(|verdict| count(&found.verdicts, verdict)).collect();
    if !counts.is_empty() {
        println!("packets: {}", counts.join(", "));
    }
    Ok(())
}

/// Verdicts that limits, lists and stale tables lead to.
const GUARDS: [&str; 8] = ["limited", "ceiling", "slipped", "unproven", "denied", "refused", "stale", "aged"];

fn count(verdicts: &BTreeMap<&'static str, u64>, verdict: &str) -> Option<String> {
    verdicts.get(verdict).filter(|count| **count != 0).map(|count| format!("{count} {verdict}"))
}

pub(super) fn top(pin_dir: &Path, most: usize, json: bool) -> Done {
    let top = offline::top(pin_dir, most).map_err(|e| e.to_string())?;
    if json {
        println!("{}", serde_json::to_string_pretty(&top).map_err(|e| format!("top: {e}"))?);
        return Ok(());
    }
    match top.one_in {
        0 => println!("no query is noted now; dataplane.sample = 64 in the configuration notes one in 64"),
        n => println!("one query in {n} is noted, since the tables were made"),
    }
    for (head, entries) in [("CLIENTS", &top.clients), ("NAMES", &top.names)] {
        println!("\n{:>10}  {head}", "NOTED");
        for entry in entries {
            println!("{:>10}  {}", entry.noted, entry.what);
        }
    }
    Ok(())
}

pub(super) fn detach(pin_dir: &Path, interface: Option<&str>, tables: bool) -> Done {
    let detached = offline::detach(pin_dir, interface, tables).map_err(|e| e.to_string())?;
    match (detached.is_empty(), interface) {
        (true, Some(interface)) => Err(format!("{interface}: nothing of ours is attached there")),
        (true, None) => {
            println!("nothing was attached");
            Ok(())
        }
        (false, _) => {
            println!("detached from {}", detached.join(", "));
            Ok(())
        }
    }
}

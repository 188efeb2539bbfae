//! `selvedge dataplane`: break-glass. Needs no daemon, and its configuration only to know the last table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Done;
use super::paint::age;
use crate::config::AttachMode;
use crate::datapath::Costs;
use crate::datapath::offline::{self, FoundProgram, LogLevel};

/// Something differs.
const DIFFERS: u8 = 1;
/// It could not be found out.
const TROUBLE: u8 = 3;

pub(super) async fn verify(config: PathBuf, json: bool) -> ExitCode {
    let drifts = match crate::daemon::verify(&config).await {
        Ok(drifts) => drifts,
        Err(error) => {
            eprintln!("selvedge: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if json {
        match serde_json::to_string_pretty(&serde_json::json!({ "drifts": drifts })) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("selvedge: verify: {error}");
                return ExitCode::from(TROUBLE);
            }
        }
    } else if drifts.is_empty() {
        println!("nothing differs");
    } else {
        drifts.iter().for_each(|drift| println!("{drift}"));
    }
    if drifts.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) }
}

pub(super) fn attach(pin_dir: &Path, interface: &str, mode: &str, config: &Path) -> Done {
    let mode = match mode {
        "native" => AttachMode::Native,
        "generic" => AttachMode::Generic,
        _ => AttachMode::Auto,
    };
    let status = crate::daemon::attach(pin_dir, interface, mode, config).map_err(|e| e.to_string())?;
    let id = status.program_id.map_or("-".to_owned(), |id| id.to_string());
    println!("attached to {interface}: {} (program {id})", status.mode);
    Ok(())
}

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
    for place in &found.transit {
        let state = match (place.program_id, place.verified_instructions) {
            (Some(id), Some(count)) => format!("rewritten (program {id}, {count} instructions verified)"),
            (Some(id), None) => format!("rewritten (program {id})"),
            (None, _) => "not rewritten: its program was taken away".to_owned(),
        };
        let by = place.egress.map_or(String::new(), |by| format!(" by {by}"));
        println!("{}: replies in transit, {}{by}: {state}", place.interface, place.direction);
    }
    if let Some(FoundProgram { program_id, verified_instructions }) = &found.capture {
        let walked = verified_instructions.map_or(String::new(), |count| format!(", {count} instructions verified"));
        println!("queries are captured (program {program_id}{walked})");
    }
    if found.generation != 0 {
        let age = found.heartbeat_age_ms.map_or("never".to_owned(), |ms| format!("{} ago", age(ms)));
        let stale = if found.stale { ", stale" } else { "" };
        println!("tables: generation {}, daemon last there {age}{stale}", found.generation);
    }
    if !found.guards.is_empty() {
        println!("in force: {}", found.guards.join(", "));
    }
    if let Some(costs) = &found.costs {
        costs_lines(costs).iter().for_each(|line| println!("{line}"));
    }
    let counts: Vec<String> = GUARDS.iter().filter_map(|verdict| count(&found.verdicts, verdict)).collect();
    if !counts.is_empty() {
        println!("packets: {}", counts.join(", "));
    }
    let counts: Vec<String> = found.transit_verdicts.keys().filter_map(|v| count(&found.transit_verdicts, v)).collect();
    if !counts.is_empty() {
        println!("replies in transit: {}", counts.join(", "));
    }
    Ok(())
}

/// What queries cost, a line for each bucket.
fn costs_lines(costs: &Costs) -> Vec<String> {
    const WIDTH: u64 = 40;
    let rate = match costs.one_in {
        0 => "none is measured now".to_owned(),
        n => format!("one query in {n} is measured"),
    };
    let mut lines = vec![format!("cost:   {} queries measured, {rate}", costs.count)];
    if costs.count == 0 {
        return lines;
    }
    let below = |share| costs.quantile_below(share).map_or("-".to_owned(), |ns| format!("< {ns} ns"));
    lines.push(format!("        mean {} ns, half {}, 99 % {}", costs.sum_ns / costs.count, below(0.5), below(0.99)));
    let most = costs.below_ns.values().copied().max().unwrap_or(1).max(1);
    lines.extend(costs.below_ns.iter().map(|(bound, count)| {
        let bar = "#".repeat((count * WIDTH).div_ceil(most) as usize);
        format!("        {:>10} to {bound:>10} ns {count:>12} {bar}", bound / 2)
    }));
    lines
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

pub(super) fn log(pin_dir: &Path, level: Option<&str>, json: bool) -> Done {
    let level = LogLevel::ALL.iter().find(|known| level == Some(known.label()));
    if let Some(level) = level {
        offline::set_log_level(pin_dir, *level).map_err(|e| e.to_string())?;
    }
    let level = offline::log_level(pin_dir).map_err(|e| e.to_string())?;
    let Some(level) = level else { return Err(format!("there are no tables under {}", pin_dir.display())) };
    if json {
        println!("{}", serde_json::json!({ "level": level }));
    } else {
        println!("{level}");
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

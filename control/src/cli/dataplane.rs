//! `selvedge dataplane`: break-glass. Needs neither the daemon nor its configuration.

use std::path::Path;

use super::Done;
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

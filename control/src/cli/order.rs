//! What the commands that give orders to the daemon have in common: their options, and how an outcome is told.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::SocketArg;
use crate::api::Outcome;
use crate::api::client::{ClientError, Terms};
use crate::model::{Order, Timestamp};

/// Options of a command that looks.
#[derive(Debug, Args)]
pub(super) struct Look {
    #[command(flatten)]
    socket: SocketArg,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Options of a command that looks once or goes on.
#[derive(Debug, Args)]
pub(super) struct Watch {
    #[command(flatten)]
    pub look: Look,
    /// Go on and print each change; Ctrl-C ends
    #[arg(long)]
    pub watch: bool,
}

/// Options of a command that gives an order.
#[derive(Debug, Args)]
pub(super) struct Give {
    #[command(flatten)]
    look: Look,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Refuse where it has another revision by now, as list and show tell it
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
}

/// Why, beside an order.
#[derive(Debug, Args)]
pub(super) struct Reason {
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

impl Look {
    pub fn socket(&self) -> &Path {
        &self.socket.socket
    }

    pub const fn json(&self) -> bool {
        self.json
    }

    pub fn print(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), String> {
        let text = if self.json { serde_json::to_string_pretty(document).map_err(|e| e.to_string())? } else { text() };
        println!("{}", text.trim_end());
        Ok(())
    }
}

impl Give {
    pub fn socket(&self) -> &Path {
        self.look.socket()
    }

    pub const fn terms(&self) -> Terms {
        Terms { dry_run: self.dry_run, expected: self.if_revision }
    }

    /// Tells what came of it.
    pub fn tell(&self, outcome: &Outcome) -> Result<(), String> {
        for warning in &outcome.warnings {
            eprintln!("selvedge: warning: {warning}");
        }
        self.look.print(outcome, || {
            let mut lines = outcome.changes.clone();
            if outcome.changes.is_empty() {
                lines.push("nothing changes".to_owned());
            }
            if outcome.dry_run {
                lines.push("nothing was changed: --dry-run".to_owned());
            }
            lines.join("\n")
        })
    }
}

/// The sentence of an error.
pub(super) fn plain(error: ClientError) -> String {
    error.to_string()
}

/// "by root 3m ago: maintenance".
pub(super) fn giver<T>(order: &Order<T>, now: Timestamp) -> String {
    let reason = if order.reason.is_empty() { String::new() } else { format!(": {}", order.reason) };
    format!("by {} {} ago{reason}", order.by, super::paint::age(now.millis_since(order.at)))
}

/// Prints each change of one kind of thing as a line, until the daemon ends or the reader does.
pub(super) async fn follow(
    look: &Look,
    resource: &str,
    line: impl Fn(&serde_json::Value) -> String,
) -> Result<(), String> {
    let watched = crate::api::client::watch(look.socket(), resource, |event| {
        use std::io::Write as _;
        let text = if look.json() {
            serde_json::to_string(event).unwrap_or_default()
        } else {
            event.object.as_ref().map_or_else(|| format!("{} is gone", event.name), &line)
        };
        // A closed pipe on the reader's side is the reader's choice.
        writeln!(std::io::stdout(), "{text}").is_ok()
    });
    watched.await.map_err(plain)
}

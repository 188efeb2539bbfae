//! `selvedge table`: the last published tables, their differences, rollback and release.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::SocketArg;
use super::paint::{Paint, Tone, age, table, utc};
use crate::api::{Pair, RollbackOrder, TableContent, TableDifference, TableList, TableOrdered, TableSummary, client};
use crate::model::{PublishedService, TableHeader};

/// As `diff` has it.
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

#[derive(Debug, Subcommand)]
pub(super) enum TableCommand {
    /// List the last published tables, oldest first
    #[command(
        after_help = "Examples:\n  selvedge table list\n  selvedge table list --json | jq '.tables[] | select(.in_force).generation'"
    )]
    List(Output),
    /// Show what is in a table; the one in force where none is named
    #[command(after_help = "Examples:\n  selvedge table show\n  selvedge table show 17 --names")]
    Show {
        /// Its generation
        generation: Option<u64>,
        /// List every name and what stands there
        #[arg(long)]
        names: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show what one table has and the other has not; exit code 0 same, 1 different, 2 trouble
    #[command(
        after_help = "Examples:\n  selvedge table diff          # the one before that in force, and that in force\n  \
                      selvedge table diff 17       # 17 and that in force\n  selvedge table diff 12 17"
    )]
    Diff {
        /// Generation of the first
        from: Option<u64>,
        /// Generation of the second; the one in force where none is named
        to: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Put an earlier table in force again, and keep it there until it is released
    ///
    /// Its content goes out under a new generation. Instances that it names stay; nothing else is published, not
    /// over restarts either, until `table release` or another rollback.
    #[command(
        after_help = "Examples:\n  selvedge table diff 17 && echo nothing would change\n  selvedge table rollback 17"
    )]
    Rollback {
        /// The generation to go back to
        generation: u64,
        /// Also where its zones or services are not the configured ones, or nobody has an address that it names
        #[arg(long)]
        force: bool,
        /// Only say whether it could be done
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Let the tables follow the instances and the configuration again
    #[command(after_help = "Example:\n  selvedge table release")]
    Release(Output),
}

#[derive(Debug, Args)]
pub(super) struct Output {
    #[command(flatten)]
    socket: SocketArg,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Output {
    fn socket(&self) -> &Path {
        &self.socket.socket
    }

    fn print(&self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), String> {
        let text =
            if self.json { serde_json::to_string_pretty(document).map_err(|e| format!("table: {e}"))? } else { text() };
        println!("{}", text.trim_end());
        Ok(())
    }
}

/// Runs the command; the exit code is its own to choose.
pub(super) async fn run(command: TableCommand) -> ExitCode {
    let trouble = if matches!(command, TableCommand::Diff { .. }) { TROUBLE } else { 1 };
    match carry_out(command).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("selvedge: {error}");
            ExitCode::from(trouble)
        }
    }
}

async fn carry_out(command: TableCommand) -> Result<u8, String> {
    let plain = |error: client::ClientError| error.to_string();
    match command {
        TableCommand::List(output) => {
            let list = client::tables(output.socket()).await.map_err(plain)?;
            output.print(&list, || list_text(&list, Paint::detect()))?;
        }
        TableCommand::Show { generation, names, output } => {
            let generation = match generation {
                Some(generation) => generation,
                None => client::status(output.socket()).await.map_err(plain)?.generation,
            };
            let content = client::table(output.socket(), generation).await.map_err(plain)?;
            output.print(&content, || show_text(&content, names))?;
        }
        TableCommand::Diff { from, to, output } => {
            let difference = client::table_diff(output.socket(), Pair { from, to }).await.map_err(plain)?;
            // As diff: where there is nothing to say, nothing is said.
            if output.json || !difference.changes.is_empty() {
                output.print(&difference, || diff_text(&difference, Paint::detect()))?;
            }
            return Ok(if difference.changes.is_empty() { 0 } else { DIFFERENT });
        }
        TableCommand::Rollback { generation, force, dry_run, output } => {
            let done = client::roll_back(output.socket(), &RollbackOrder { generation, force }, dry_run)
                .await
                .map_err(plain)?;
            warn(&done);
            output.print(&done, || {
                let now = done.generation;
                if done.dry_run {
                    return format!("table {generation} would be put in force; {now} is, nothing was changed");
                }
                format!("table {generation} is in force as generation {now}, until selvedge table release")
            })?;
        }
        TableCommand::Release(output) => {
            let done = client::release(output.socket()).await.map_err(plain)?;
            warn(&done);
            output.print(&done, || format!("released; generation {} is in force", done.generation))?;
        }
    }
    Ok(0)
}

fn warn(done: &TableOrdered) {
    for warning in &done.warnings {
        eprintln!("selvedge: warning: {warning}");
    }
}

/// "17", or "12-17" where the same content was published again.
fn generations(header: &TableHeader) -> String {
    let TableHeader { first_generation, generation, .. } = header;
    if first_generation == generation { generation.to_string() } else { format!("{first_generation}-{generation}") }
}

fn mark(summary: &TableSummary) -> &'static str {
    match (summary.in_force, summary.held) {
        (true, true) => "in force, held",
        (true, false) => "in force",
        _ => "",
    }
}

fn list_text(list: &TableList, paint: Paint) -> String {
    if list.tables.is_empty() {
        return "nothing was published yet\n".to_owned();
    }
    let head = ["GENERATION", "WHEN", "AGO", "ZONES", "NAMES", "SERVICES", "BACKENDS", "", "CAUSE"];
    let row = |summary: &TableSummary| {
        let header = &summary.header;
        let tone = if summary.held { Tone::Bad } else { Tone::Good };
        vec![
            (generations(header), None),
            (utc(header.at), None),
            (age(list.at.millis_since(header.at)), None),
            (header.zones.to_string(), None),
            (header.names.to_string(), None),
            (header.services.to_string(), None),
            (header.backends.to_string(), None),
            (mark(summary).to_owned(), Some(tone)),
            (header.cause.clone(), Some(Tone::Quiet)),
        ]
    };
    let mut out = table(&head, &list.tables.iter().map(row).collect::<Vec<_>>(), paint);
    if let Some(hold) = &list.held {
        let ago = age(list.at.millis_since(hold.since));
        let _ = writeln!(
            out,
            "\nheld: rolled back to {} by {}, {ago} ago; selvedge table release ends that",
            hold.of, hold.by
        );
    }
    out
}

fn show_text(content: &TableContent, names: bool) -> String {
    let header = &content.summary.header;
    let mut out = String::new();
    // Writing into a String does not fail.
    let mark = mark(&content.summary);
    let mark = if mark.is_empty() { String::new() } else { format!(" ({mark})") };
    let _ = writeln!(out, "generation {}{mark}, {}: {}", generations(header), utc(header.at), header.cause);
    let (zones, count, services, backends) = (header.zones, header.names, header.services, header.backends);
    let _ = writeln!(out, "zones {zones}, names {count}, services {services}, backends {backends}");
    if names {
        for (name, what) in by_name(content) {
            let _ = writeln!(out, "{name}  {}", what.join(", "));
        }
        return out;
    }
    for zone in &content.zone_data {
        let _ = writeln!(out, "\nzone {}  SOA {} {}", zone.apex, zone.primary, zone.contact);
        let servers = zone.nameservers.join(" ");
        let _ = writeln!(out, "  TTL {}, negative {}, NS {servers}", zone.ttl_s, zone.negative_ttl_s);
        for record in &zone.records {
            let _ = writeln!(out, "  {record}");
        }
    }
    for service in &content.service_data {
        let names = service.names.join(" ");
        let _ = writeln!(out, "\nservice {}  {names}", service.name);
        let _ = writeln!(out, "  TTL {}, {} addresses per answer", service.ttl_s, service.answers);
        for backend in &service.backends {
            let _ = writeln!(out, "  {}  {}  weight {}", backend.instance, addresses(backend), backend.weight);
        }
    }
    out
}

fn addresses(backend: &crate::model::Backend) -> String {
    let v4 = backend.addresses.v4.map(|a| a.to_string());
    let v6 = backend.addresses.v6.map(|a| a.to_string());
    [v4, v6].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// What stands at each name.
fn by_name(content: &TableContent) -> BTreeMap<&str, Vec<String>> {
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for zone in &content.zone_data {
        names.entry(&zone.apex).or_default().push("SOA, NS".to_owned());
        for line in &zone.records {
            let mut fields = line.split(' ');
            let (name, rtype) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
            let types = names.entry(name).or_default();
            if types.iter().all(|known| known != rtype) {
                types.push(rtype.to_owned());
            }
        }
    }
    for service in &content.service_data {
        let what = |service: &PublishedService| format!("service {}", service.name);
        for name in &service.names {
            names.entry(name).or_default().push(what(service));
        }
    }
    names
}

fn diff_text(difference: &TableDifference, paint: Paint) -> String {
    if difference.changes.is_empty() {
        return String::new();
    }
    let title =
        |header: &TableHeader| format!("generation {} {} {}", generations(header), utc(header.at), header.cause);
    let mut out = format!("--- {}\n+++ {}\n", title(&difference.from), title(&difference.to));
    for change in &difference.changes {
        let (sign, tone) = if change.added { ('+', Tone::Good) } else { ('-', Tone::Bad) };
        let line = &change.line;
        let text = format!("{sign}{} {} {}", line.object, line.what, line.text);
        let _ = writeln!(out, "{}", paint.text(tone, text.trim_end()));
    }
    out
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

//! `selvedge net`: declared networks against the kernel's.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::paint::{Paint, Tone, table, utc};
use super::{CONFIG, SocketArg};
use crate::api::client;
use crate::daemon::{NetworkError, net_apply, net_plan};
use crate::model::{NetChange, NetPlan, NetReport, Shaping};

/// As `terraform plan -detailed-exitcode` has it.
const CHANGES: u8 = 2;
const TROUBLE: u8 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum NetCommand {
    /// Show what differs between the configuration file and the kernel; exit code 0 nothing, 2 something, 1 trouble
    ///
    /// Changes nothing. Works with and without the daemon.
    #[command(after_help = "Examples:\n  selvedge net plan && echo as it shall be\n  \
                      selvedge net plan --config new.toml --json | jq '.changes[]'")]
    Plan(FileArgs),
    /// Make the kernel's networks as the configuration file says, all or nothing
    ///
    /// A daemon that runs does it, with the configuration that it has taken; what a changed file has more needs a
    /// reload, which is said. Exit code 0 done, 2 something is left, 1 nothing was changed.
    #[command(
        after_help = "Examples:\n  selvedge net apply\n  selvedge net apply --json | jq '.done.changes | length'"
    )]
    Apply(FileArgs),
    /// Show networks, ports, shaping, and what was repaired since the daemon started
    #[command(after_help = "Examples:\n  selvedge net show\n  selvedge net show --json | jq .repairs")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    socket: SocketArg,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What `apply` prints as JSON.
#[derive(Debug, Serialize)]
struct Applied {
    done: NetPlan,
    left: NetPlan,
}

/// Runs the command; the exit code is its own to choose.
pub(super) async fn run(command: NetCommand) -> ExitCode {
    match carry_out(command).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            for line in error.lines() {
                eprintln!("selvedge: {line}");
            }
            ExitCode::from(TROUBLE)
        }
    }
}

async fn carry_out(command: NetCommand) -> Result<u8, String> {
    let plain = |error: NetworkError| error.to_string();
    match command {
        NetCommand::Plan(args) => {
            let plan = net_plan(&args.config).await.map_err(plain)?;
            print(args.json, &plan, || plan_text(&plan, Paint::detect()))?;
            Ok(if plan.changes.is_empty() { 0 } else { CHANGES })
        }
        NetCommand::Apply(args) => {
            let (done, left) = net_apply(&args.config).await.map_err(plain)?;
            let applied = Applied { done, left };
            print(args.json, &applied, || applied_text(&applied, Paint::detect()))?;
            Ok(if applied.left.changes.is_empty() { 0 } else { CHANGES })
        }
        NetCommand::Show(args) => {
            let report = client::network(&args.socket.socket).await.map_err(|error| error.to_string())?;
            print(args.json, &report, || report_text(&report, Paint::detect()))?;
            Ok(0)
        }
    }
}

fn print(json: bool, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), String> {
    let text = if json { serde_json::to_string_pretty(document).map_err(|e| format!("net: {e}"))? } else { text() };
    println!("{}", text.trim_end());
    Ok(())
}

fn change_line(change: &NetChange) -> String {
    format!("{} {}: {}", change.object, change.name, change.what)
}

fn plan_text(plan: &NetPlan, paint: Paint) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    for change in &plan.changes {
        let tone = if change.what.starts_with("remove") { Tone::Bad } else { Tone::Good };
        let _ = writeln!(out, "{}", paint.text(tone, &change_line(change)));
    }
    if plan.changes.is_empty() {
        out.push_str("nothing to do\n");
    }
    out.push_str(&hazards(&plan.hazards, paint));
    out
}

fn applied_text(applied: &Applied, paint: Paint) -> String {
    let mut out = plan_text(&applied.done, paint);
    if !applied.left.changes.is_empty() {
        out.push_str("\nleft to do; if the file was changed, systemctl reload selvedged:\n");
        for change in &applied.left.changes {
            let _ = writeln!(out, "  {}", change_line(change));
        }
    }
    out
}

fn hazards(hazards: &[String], paint: Paint) -> String {
    hazards.iter().map(|text| format!("{}\n", paint.text(Tone::Bad, &format!("hazard: {text}")))).collect()
}

fn report_text(report: &NetReport, paint: Paint) -> String {
    let plain = |text: String| (text, None);
    let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(" ") };
    let rows: Vec<_> = report
        .networks
        .iter()
        .map(|network| {
            let addresses = list(network.addresses.iter().map(ToString::to_string).collect());
            vec![
                plain(network.name.clone()),
                plain(network.kind.clone()),
                plain(addresses),
                plain(rate(network.shaping)),
            ]
        })
        .collect();
    let mut out = if rows.is_empty() {
        "no network is declared\n".to_owned()
    } else {
        table(&["NETWORK", "KIND", "ADDRESSES", "RATE"], &rows, paint)
    };
    let rows: Vec<_> = report
        .ports
        .iter()
        .map(|port| {
            let addresses = list(port.addresses.iter().map(ToString::to_string).collect());
            let cells = [port.interface.clone(), port.instance.to_string(), port.bridge.clone(), addresses];
            cells.into_iter().chain([rate(port.shaping)]).map(plain).collect()
        })
        .collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&table(&["PORT", "INSTANCE", "BRIDGE", "ADDRESSES", "RATE"], &rows, paint));
    }
    for route in &report.routes {
        let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
        let device = route.device.as_ref().map(|device| format!(" dev {device}")).unwrap_or_default();
        let _ = writeln!(out, "\nroute {}{via}{device} metric {}", route.to, route.metric);
    }
    for uplink in &report.uplinks {
        let _ = writeln!(out, "\nuplink {}: {}", uplink.interface, rate(Some(uplink.shaping)));
    }
    for forward in &report.forwards {
        let (from, port, to) = (forward.from, forward.port, forward.to);
        let _ = writeln!(out, "\nforward {from} port {port} to {to}: {} connections", forward.connections);
    }
    let counts: Vec<String> = report.repairs.iter().map(|(object, count)| format!("{object} {count}")).collect();
    let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let _ = writeln!(out, "\nrepairs since the daemon started: {counts}");
    for repair in report.recent.iter().rev().take(10) {
        let line = format!("  {}  {}", utc(repair.at), change_line(&repair.change));
        let _ = writeln!(out, "{}", paint.text(Tone::Quiet, &line));
    }
    if let Some(problem) = &report.problem {
        let _ = writeln!(out, "{}", paint.text(Tone::Bad, &format!("not as it shall be: {problem}")));
    }
    out.push_str(&hazards(&report.hazards, paint));
    out
}

/// A rate as the configuration has it.
fn rate(shaping: Option<Shaping>) -> String {
    let Some(Shaping { rate_bps, burst_bytes }) = shaping else { return "-".to_owned() };
    let rate = match rate_bps {
        bps if bps.is_multiple_of(1_000_000_000) => format!("{}gbit", bps / 1_000_000_000),
        bps if bps.is_multiple_of(1_000_000) => format!("{}mbit", bps / 1_000_000),
        bps => format!("{}kbit", bps / 1_000),
    };
    format!("{rate} burst {burst_bytes}B")
}

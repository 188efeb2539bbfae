//! `selvedge store`: dump, restore and check what survives a restart.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{CONFIG, SocketArg};
use crate::api::client::{self, ClientError};
use crate::config;
use crate::daemon::{Examination, StoreCommandError, check_store, dump_store, restore_store};

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Print all that the store holds as JSON; the daemon does it where one runs
    #[command(after_help = "Examples:\n  selvedge store dump > store.json\n  \
        selvedge store dump | jq '.instances | length'")]
    Dump(Place),
    /// Make the store out of a dump; the daemon must be stopped, and the old file moved away
    ///
    /// Refuses a dump of another installation, of a newer version, or with records that cannot be understood.
    #[command(after_help = "Example:\n  systemctl stop selvedged\n  mv /var/lib/selvedge/selvedge.redb{,.old}\n  \
        selvedge store restore store.json\n  systemctl start selvedged")]
    Restore {
        /// The dump; - for standard input
        file: PathBuf,
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read all of it and say what cannot be understood; exit code 0 sound, 1 not, 2 wrong configuration
    ///
    /// Works with and without the daemon; without, an older schema is taken over, as a start of the daemon does.
    #[command(after_help = "Examples:\n  selvedge store check\n  selvedge store check --json | jq .content.records")]
    Check(Place),
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The configuration file, which says where the store is while no daemon runs
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    #[command(flatten)]
    socket: SocketArg,
    /// Print as JSON; a dump always is
    #[arg(long)]
    json: bool,
}

/// What a command gives, and its exit code where it could not.
type Failed = (u8, String);

pub(super) async fn run(command: StoreCommand) -> ExitCode {
    let done = match command {
        StoreCommand::Dump(place) => dump(&place).await,
        StoreCommand::Restore { file, config, json } => restore(&file, &config, json),
        StoreCommand::Check(place) => check(&place).await,
    };
    match done {
        Ok(code) => code,
        Err((code, error)) => {
            eprintln!("selvedge: {error}");
            ExitCode::from(code)
        }
    }
}

fn failed(error: StoreCommandError) -> Failed {
    (error.exit_code(), error.to_string())
}

/// Nobody listens: the file is free.
const fn no_daemon(error: &ClientError) -> bool {
    matches!(error, ClientError::Connect { .. })
}

async fn dump(place: &Place) -> Result<ExitCode, Failed> {
    let text = match client::store_dump(&place.socket.socket).await {
        Ok(dump) => dump.get().to_owned(),
        Err(error) if no_daemon(&error) => dump_store(&place.config).map_err(failed)?,
        Err(error) => return Err((1, error.to_string())),
    };
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn restore(file: &Path, config: &Path, json: bool) -> Result<ExitCode, Failed> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        if std::io::stdin().is_terminal() {
            eprintln!("selvedge: reading the dump from this terminal; Ctrl-D ends it");
        }
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    read.map_err(|e| (1, format!("{}: {e}", file.display())))?;
    // One that runs has the store open, also where its file was moved away.
    if let Ok(config) = config::load(config)
        && std::os::unix::net::UnixStream::connect(&config.control.socket).is_ok()
    {
        return Err((1, "selvedged is running; stop it first (systemctl stop selvedged)".to_owned()));
    }
    let found = restore_store(config, &text).map_err(failed)?;
    print(&found, json, || format!("restored\n{}", examined(&found)))?;
    Ok(ExitCode::SUCCESS)
}

async fn check(place: &Place) -> Result<ExitCode, Failed> {
    let (problems, printed) = match client::store(&place.socket.socket).await {
        Ok(store) => {
            let problems = store.content.problems.iter().chain(&store.health.problem).count();
            (
                problems,
                print(&store, place.json, || {
                    let health = store.health.problem.as_ref().map(|p| format!("\nnot writable: {p}"));
                    format!("{}{}", examined(&store.content), health.unwrap_or_default())
                }),
            )
        }
        Err(error) if no_daemon(&error) => {
            let found = check_store(&place.config).map_err(failed)?;
            (found.problems.len(), print(&found, place.json, || examined(&found)))
        }
        Err(error) => return Err((1, error.to_string())),
    };
    printed?;
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(document: &impl serde::Serialize, json: bool, text: impl FnOnce() -> String) -> Result<(), Failed> {
    let text = if json { serde_json::to_string_pretty(document).map_err(|e| (1, e.to_string()))? } else { text() };
    println!("{text}");
    Ok(())
}

fn examined(found: &Examination) -> String {
    let records: Vec<String> = found.records.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let Examination { path, schema, owner, bytes, .. } = found;
    let mut text =
        format!("{path}: schema {schema}, owner {owner}, {}\n{}", super::paint::bytes(*bytes), records.join(", "));
    for problem in &found.problems {
        text.push_str(&format!("\n{problem}"));
    }
    if found.problems.is_empty() {
        text.push_str("\nsound");
    }
    text
}

//! `selvedge capture`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{PinArg, SocketArg, WRONG};
use crate::capture::{self, Filter, Options, Outcome, Output};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Which queries: name=NAME (and below it), client=ADDRESS[/LENGTH], verdict=VERDICT[,VERDICT], sample=N (one in N)
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Write queries and answers into this pcapng file; - for standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "json")]
    write: Option<PathBuf>,
    /// End after N queries
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Most queries in a second; the others are counted only
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pins: PinArg,
    #[command(flatten)]
    socket: SocketArg,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| format!("{text:?} is no time; write it as in \"90s\" or \"1h\""))
}

pub(super) async fn run(args: CaptureArgs) -> ExitCode {
    let filter = match Filter::parse(&args.filter) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("selvedge: capture: {error}");
            return ExitCode::from(WRONG);
        }
    };
    let output = match args.write {
        Some(path) => Output::Pcapng(path),
        None if args.json => Output::Json,
        None => Output::Lines,
    };
    let options = Options {
        pin_dir: args.pins.pin_dir,
        socket: args.socket.socket,
        filter,
        rate: args.rate,
        output,
        count: args.count,
        duration: args.duration,
    };
    match capture::capture(&options, || eprintln!("capturing; Ctrl-C ends it")).await {
        Ok(outcome) => {
            eprintln!("{}", summary(&outcome));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("selvedge: capture: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was written, and why the rest was not.
fn summary(outcome: &Outcome) -> String {
    let Outcome { written, totals } = outcome;
    let mut text = format!("{written} queries captured");
    for (count, why) in [(totals.over_rate, "over the rate"), (totals.lost, "lost, for they were not read fast enough")]
    {
        if count != 0 {
            // Writing into a String does not fail.
            let _ = write!(text, ", {count} {why}");
        }
    }
    text
}

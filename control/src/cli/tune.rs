//! `selvedge tune`: the policy that a recorded load asks for, found by replay over a grid.

use std::path::PathBuf;
use std::process::ExitCode;

use autoscale::predict::PredictorKind;
use autoscale::replay::{Candidate, Goal, Options, tune};
use clap::Args;
use serde::Serialize;

use super::paint::{Paint, table};
use super::replay::{Progress, Train, positive, print_report, read, season, train};

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// The recorded load: the header `time_unix_s,requests`, then a row per window, all equally long
    file: PathBuf,
    /// Windows that may have too few instances, in percent
    #[arg(long, value_name = "PERCENT", default_value = "5", value_parser = percent, allow_negative_numbers = true)]
    short: f64,
    /// Requests that an instance serves per window
    #[arg(long, value_name = "REQUESTS", default_value = "20", value_parser = positive, allow_negative_numbers = true)]
    capacity: f64,
    /// Windows that an instance takes to start, beyond the one in which it is decided
    #[arg(long, value_name = "WINDOWS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=1000))]
    delay: u32,
    /// Windows per season; found in the load where it is not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    season: Option<u32>,
    /// What is not scored: so many windows, or below 1 such a share of them
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = train, allow_negative_numbers = true)]
    train: Train,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| (0.0..=100.0).contains(n));
    number.ok_or_else(|| "write a number from 0 to 100".to_owned())
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    trace: &'a str,
    windows: usize,
    window_s: f64,
    scored_from: usize,
    capacity: f64,
    delay: usize,
    goal: Goal,
    reached: bool,
    proposed: &'a Candidate,
    toml: String,
    /// Those that no other beats, by windows with too few instances.
    candidates: &'a [Candidate],
}

/// Candidates that people are shown on either side of the proposed one.
const AROUND: usize = 8;

pub(super) fn run(args: &TuneArgs) -> ExitCode {
    print_report(proposal(args))
}

fn proposal(args: &TuneArgs) -> Result<String, (ExitCode, String)> {
    let trace = read(&args.file)?;
    let start = args.train.start(&args.file, &trace)?;
    let season = season(args.season, &args.file, &trace)?;
    let options = Options { start, delay: args.delay as usize, season, ..Options::usual(&trace, args.capacity) };
    let goal = Goal { tau_u: args.short };
    let mut progress: Option<Progress> = None;
    let mut tell = |_: PredictorKind, done: usize, all: usize| {
        progress.get_or_insert_with(|| Progress::new("tune".to_owned(), all)).tell(done);
    };
    let found = tune(&trace, &options, goal, &mut tell);
    if let Some(progress) = progress {
        progress.end();
    }
    let nothing = || (ExitCode::FAILURE, format!("{}: nothing was scored", args.file.display()));
    let (candidates, at) = found.ok_or_else(nothing)?;
    let report = Report {
        trace: &trace.name,
        windows: trace.values.len(),
        window_s: trace.window_s,
        scored_from: start,
        capacity: options.capacity,
        delay: options.delay,
        goal,
        reached: candidates[at].elasticity.tau_u <= goal.tau_u,
        proposed: &candidates[at],
        toml: toml(&candidates[at], trace.window_s),
        candidates: &candidates,
    };
    if args.json {
        return serde_json::to_string_pretty(&report).map_err(|e| (ExitCode::FAILURE, format!("tune: {e}")));
    }
    Ok(for_people(&report, at))
}

/// The section to paste behind a service.
fn toml(candidate: &Candidate, window_s: f64) -> String {
    // With the newest window, which the plan counts apart.
    let seconds = match candidate.stabilisation_windows {
        0 => 0.0,
        windows => f64::from(windows + 1) * window_s,
    };
    let stabilisation = if seconds.fract() == 0.0 { format!("{seconds}s") } else { format!("{:.0}ms", seconds * 1e3) };
    let mut text = format!(
        "[service.scaling]\npredictor = \"{}\"\nheadroom = {}\nstabilisation = \"{stabilisation}\"\n",
        candidate.predictor, candidate.headroom,
    );
    if let Some(share) = candidate.down_share {
        text.push_str(&format!("down_instances = 1\ndown_share = {share}\n"));
    }
    text
}

fn for_people(report: &Report<'_>, at: usize) -> String {
    let cell = |text: String| (text, None);
    let shown = at.saturating_sub(AROUND)..(at + AROUND + 1).min(report.candidates.len());
    let line = |i: usize| {
        let c = &report.candidates[i];
        let e = &c.elasticity;
        vec![
            cell(if i == at { "*" } else { "" }.to_owned()),
            cell(c.predictor.clone()),
            cell(c.headroom.to_string()),
            cell(c.stabilisation_windows.to_string()),
            cell(c.down_share.map_or_else(|| "-".to_owned(), |share| share.to_string())),
            cell(format!("{:.2}", e.tau_u)),
            cell(format!("{:.3}", e.instance_seconds_ratio)),
            cell(format!("{:.2}", e.adaptations_per_h)),
        ]
    };
    let lines: Vec<_> = shown.clone().map(line).collect();
    let head = ["", "PREDICTOR", "HEADROOM", "STABILISATION", "DOWN", "τU %", "INST-S", "ADAPT/H"];
    let mut text = format!(
        "{}: {} windows of {} s, the last {} scored; {} requests per instance, {} windows delay\n",
        report.trace,
        report.windows,
        report.window_s,
        report.windows - report.scored_from,
        report.capacity,
        report.delay,
    );
    text.push_str(&format!(
        "{} of {} policies that no other beats; stabilisation in windows beside the newest\n\n",
        shown.len(),
        report.candidates.len()
    ));
    text.push_str(&table(&head, &lines, Paint::detect()));
    let goal = report.goal.tau_u;
    text.push_str(&if report.reached {
        format!("\n* takes the fewest instance-seconds (within 1 %, then fewest changes) of those with at most {goal} % of the windows short:\n\n")
    } else {
        format!("\nNo policy leaves at most {goal} % of the windows short; * leaves the fewest:\n\n")
    });
    text.push_str(&report.toml);
    text
}

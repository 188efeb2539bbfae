//! `selvedge replay`: predictors and plan over a recorded load, offline.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use autoscale::predict::PredictorKind;
use autoscale::replay::{Hpa, Options, PolicyKind, Row, Trace, hpa, hpa_alike, outlook, plot, score};
use autoscale::score::{ElasticityScore, elasticity};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use super::WRONG;
use super::paint::{Paint, table};

/// What takes less says nothing of its progress.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The recorded load: the header `time_unix_s,requests`, then a row per window, all equally long
    file: PathBuf,
    /// Predictors, separated by commas: naive, ema3, snaive, holt-winters, arima, sarima, `sarima(p,d,q)(P,D,Q)m`, stepwise,
    /// best, select
    #[arg(long, value_name = "NAME,…", default_value = "ema3,naive,snaive,sarima,select", value_parser = predictors)]
    predictor: Predictors,
    /// Windows per season; found in the load where it is not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    season: Option<u32>,
    /// What is not scored: so many windows, or below 1 such a share of them
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = train, allow_negative_numbers = true)]
    train: Train,
    /// Requests that an instance serves per window
    #[arg(long, value_name = "REQUESTS", default_value = "20", value_parser = positive, allow_negative_numbers = true)]
    capacity: f64,
    /// Windows that an instance takes to start, beyond the one in which it is decided
    #[arg(long, value_name = "WINDOWS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=1000))]
    delay: u32,
    /// Share of windows that shall have enough instances, or none for the bare forecast
    #[arg(long, value_name = "SHARE", default_value = "0.9", value_parser = headroom, allow_negative_numbers = true)]
    headroom: Headroom,
    /// How instances follow the forecast
    #[arg(long, value_enum, default_value_t = PolicyArg::Direct)]
    policy: PolicyArg,
    /// Share of its capacity at which the autoscaler of `--policy hpa` wants an instance to run
    #[arg(long, value_name = "SHARE", default_value = "0.8", value_parser = share)]
    hpa_target: f64,
    /// Draw load, forecast and supply of the last predictor into a file
    #[arg(long, value_name = "OUT.svg")]
    svg: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// ⌈(forecast + headroom) / capacity⌉ in each window
    Direct,
    /// The plan with stabilisation, tolerance and trust
    Plan,
    /// Kubernetes' HorizontalPodAutoscaler, which looks at the last window only: tolerance 0.1, stabilisation 300 s
    Hpa,
}

/// A list that clap takes as one value, for orders contain commas.
#[derive(Debug, Clone)]
struct Predictors(Vec<PredictorKind>);

#[derive(Debug, Clone, Copy)]
pub(super) enum Train {
    Windows(usize),
    Share(f64),
}

#[derive(Debug, Clone, Copy)]
struct Headroom(Option<f64>);

fn predictors(list: &str) -> Result<Predictors, String> {
    let mut depth = 0usize;
    let mut kinds: Vec<PredictorKind> = Vec::new();
    let names = list.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    for name in names {
        let kind = name.trim().parse::<PredictorKind>().map_err(|e| e.to_string())?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(Predictors(kinds))
}

pub(super) fn train(text: &str) -> Result<Train, String> {
    if let Ok(windows) = text.parse::<usize>()
        && windows > 0
    {
        return Ok(Train::Windows(windows));
    }
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.map(Train::Share).ok_or_else(|| "write a number of windows, or a share between 0 and 1".to_owned())
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| *n > 0.0 && n.is_finite());
    number.ok_or_else(|| "write a number above 0".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "write a share above 0, at most 1".to_owned())
}

fn headroom(text: &str) -> Result<Headroom, String> {
    if text == "none" {
        return Ok(Headroom(None));
    }
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.map(|share| Headroom(Some(share))).ok_or_else(|| "write a share between 0 and 1, or none".to_owned())
}

/// The name of a predictor's row.
fn key(kind: PredictorKind) -> String {
    match kind {
        // With its n, as the reference and the paper's successors write it.
        PredictorKind::Ema => "ema3".to_owned(),
        other => other.to_string(),
    }
}

#[derive(Debug, Serialize)]
struct Report {
    trace: String,
    windows: usize,
    window_s: f64,
    /// First window that is scored.
    scored_from: usize,
    capacity: f64,
    delay: usize,
    headroom: Option<f64>,
    predictors: Map<String, Value>,
    /// What a reactive autoscaler does with the same load, for comparison.
    reactive: Reactive,
}

#[derive(Debug, Serialize)]
struct Reactive {
    hpa: ElasticityScore,
    hpa_target: f64,
    /// The one that takes as many instance-seconds as the last predictor, or just more.
    #[serde(skip_serializing_if = "Option::is_none")]
    hpa_alike: Option<Alike>,
}

#[derive(Debug, Serialize)]
struct Alike {
    target: f64,
    #[serde(flatten)]
    score: ElasticityScore,
}

pub(super) fn run(args: &ReplayArgs) -> ExitCode {
    print_report(replay(args))
}

/// Prints a report, or why there is none.
pub(super) fn print_report(report: Result<String, (ExitCode, String)>) -> ExitCode {
    match report {
        Ok(text) => {
            // A closed pipe on the reader's side is the reader's choice.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err((code, error)) => {
            eprintln!("selvedge: {error}");
            code
        }
    }
}

fn wrong(error: String) -> (ExitCode, String) {
    (ExitCode::from(WRONG), error)
}

fn failed(path: &Path, error: &std::io::Error) -> (ExitCode, String) {
    (ExitCode::FAILURE, format!("{}: {error}", path.display()))
}

/// The load in a file, named as the file.
pub(super) fn read(file: &Path) -> Result<Trace, (ExitCode, String)> {
    let bytes = std::fs::read(file).map_err(|e| failed(file, &e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        wrong(format!("{}: line {line}: no UTF-8 text", file.display()))
    })?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    Trace::parse(&name, &text).map_err(|e| wrong(format!("{}: {e}", file.display())))
}

/// The season that was asked for, if the load is long enough for it.
pub(super) fn season(season: Option<u32>, file: &Path, trace: &Trace) -> Result<Option<usize>, (ExitCode, String)> {
    let (season, n) = (season.map(|season| season as usize), trace.values.len());
    match season.filter(|season| 2 * season > n) {
        None => Ok(season),
        Some(season) => {
            let file = file.display();
            Err(wrong(format!("--season {season}: two seasons are more than the {n} windows of {file}")))
        }
    }
}

impl Train {
    /// The first window of a load that is scored; at least one from there on was counted.
    pub(super) fn start(self, file: &Path, trace: &Trace) -> Result<usize, (ExitCode, String)> {
        let n = trace.values.len();
        let start = match self {
            Self::Windows(windows) => windows,
            Self::Share(share) => (share * n as f64) as usize,
        };
        if start == 0 || start >= n {
            let file = file.display();
            return Err(wrong(format!("--train leaves nothing to train on or to score: {file} has {n} windows")));
        }
        if trace.values[start..].iter().all(Option::is_none) {
            let (file, left) = (file.display(), n - start);
            return Err(wrong(format!("{file}: nothing to score: none of the last {left} windows was counted")));
        }
        Ok(start)
    }
}

fn replay(args: &ReplayArgs) -> Result<String, (ExitCode, String)> {
    let trace = read(&args.file)?;
    let n = trace.values.len();
    let start = args.train.start(&args.file, &trace)?;
    let season = season(args.season, &args.file, &trace)?;
    let options = Options {
        start,
        delay: args.delay as usize,
        headroom: args.headroom.0,
        season,
        hpa: Hpa { target: args.hpa_target, ..Hpa::default() },
        ..Options::usual(&trace, args.capacity)
    };
    let policy = match args.policy {
        PolicyArg::Direct => PolicyKind::Direct,
        PolicyArg::Plan => PolicyKind::Plan,
        PolicyArg::Hpa => PolicyKind::Hpa,
    };
    let clock = Instant::now();
    let mut rows: Vec<(String, Row)> = Vec::new();
    for kind in &args.predictor.0 {
        let mut progress = Progress::new(key(*kind), n);
        let now = || clock.elapsed().as_secs_f64() * 1e3;
        let seen = outlook(&trace, *kind, &options, &now, &mut |done| progress.tell(done));
        progress.end();
        rows.push((key(*kind), score(&trace, &seen, &options, policy)));
        if let Some(path) = args.svg.as_deref().filter(|_| rows.len() == args.predictor.0.len()) {
            std::fs::write(path, plot(&trace, &seen, &options, policy)).map_err(|e| failed(path, &e))?;
        }
    }
    let supply = hpa(&trace, &options, &options.hpa);
    let alike = rows.last().and_then(|(_, row)| hpa_alike(&trace, &options, row.elasticity.instance_seconds_ratio));
    let reactive = Reactive {
        hpa: elasticity(&trace.values, &supply, start, options.capacity, trace.window_s),
        hpa_target: options.hpa.target,
        hpa_alike: alike.map(|(target, score)| Alike { target, score }),
    };
    if !args.json {
        return Ok(for_people(&trace, &options, &rows, &reactive));
    }
    let json = |e: serde_json::Error| (ExitCode::FAILURE, format!("replay: {e}"));
    let mut predictors = Map::new();
    for (key, row) in rows {
        predictors.insert(key, serde_json::to_value(row).map_err(json)?);
    }
    let report = Report {
        trace: trace.name,
        windows: n,
        window_s: trace.window_s,
        scored_from: start,
        capacity: options.capacity,
        delay: options.delay,
        headroom: options.headroom,
        predictors,
        reactive,
    };
    serde_json::to_string_pretty(&report).map_err(json)
}

fn for_people(trace: &Trace, options: &Options, rows: &[(String, Row)], reactive: &Reactive) -> String {
    let cell = |text: String| (text, None);
    let number = |x: f64| cell(format!("{x:.2}"));
    let followed = |e: &ElasticityScore| {
        let ratio = cell(format!("{:.3}", e.instance_seconds_ratio));
        vec![number(e.theta_u), number(e.theta_o), number(e.tau_u), number(e.tau_o), number(e.adaptations_per_h), ratio]
    };
    let mut lines = Vec::new();
    for (key, row) in rows {
        let mase = row.forecast.mase.map_or_else(|| "-".to_owned(), |mase| format!("{mase:.3}"));
        let mut line = vec![cell(key.clone()), number(row.forecast.rmse), number(row.forecast.mae), cell(mase)];
        line.extend(followed(&row.elasticity));
        line.push(number(row.fit_ms));
        lines.push(line);
    }
    let alike = reactive.hpa_alike.as_ref().map(|alike| (alike.target, &alike.score));
    for (target, score) in [(reactive.hpa_target, &reactive.hpa)].into_iter().chain(alike) {
        let mut line = vec![cell(format!("(hpa {target:.2})"))];
        line.extend(std::iter::repeat_n(cell("-".to_owned()), 3));
        line.extend(followed(score));
        line.push(cell("-".to_owned()));
        lines.push(line);
    }
    let head = ["PREDICTOR", "RMSE", "MAE", "MASE", "θU %", "θO %", "τU %", "τO %", "ADAPT/H", "INST-S", "FIT MS"];
    let n = trace.values.len();
    let mut text = format!(
        "{}: {n} windows of {} s, the last {} scored; {} requests per instance, {} windows delay, headroom {}\n\n",
        trace.name,
        trace.window_s,
        n - options.start,
        options.capacity,
        options.delay,
        options.headroom.map_or_else(|| "none".to_owned(), |level| level.to_string()),
    );
    text.push_str(&table(&head, &lines, Paint::detect()));
    text.push('\n');
    for (_, row) in rows {
        text.push_str(&row.model);
        text.push('\n');
    }
    text
}

/// What is done, on standard error: in place on a terminal, else a line every now and then.
pub(super) struct Progress {
    key: String,
    windows: usize,
    begun: Instant,
    next: Duration,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(key: String, windows: usize) -> Self {
        Self { key, windows, begun: Instant::now(), next: QUIET, terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn tell(&mut self, done: usize) {
        let since = self.begun.elapsed();
        if since < self.next {
            return;
        }
        self.next = since + if self.terminal { QUIET / 10 } else { 5 * QUIET };
        let (start, end) = if self.terminal { ("\r", "") } else { ("", "\n") };
        eprint!("{start}{}: {done} of {} windows{end}", self.key, self.windows);
    }

    pub(super) fn end(&self) {
        if self.terminal && self.next > QUIET {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn args(words: &[&str]) -> Result<ReplayArgs, clap::Error> {
        match Cli::try_parse_from(["selvedge", "replay"].iter().chain(words))?.command {
            Command::Replay(args) => Ok(args),
            _ => unreachable!("replay was asked for"),
        }
    }

    #[test]
    fn orders_are_not_torn_at_their_commas() {
        let list = predictors("ema3,sarima(0,1,0)(0,1,0)10, naive,ema").unwrap();
        let keys: Vec<String> = list.0.into_iter().map(key).collect();
        assert_eq!(keys, ["ema3", "sarima(0,1,0)(0,1,0)10", "naive"]);
        for wrong in ["", "ema3,", "emma", "sarima(1,1)"] {
            assert!(predictors(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_numbers_are_wrong_usage() {
        for wrong in [
            ["--train", "0"],
            ["--train", "1.5"],
            ["--capacity", "0"],
            ["--capacity", "NaN"],
            ["--headroom", "1"],
            ["--headroom", "90"],
            ["--season", "1"],
            ["--delay", "-1"],
        ] {
            assert!(args(&["x.csv", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_report_has_a_row_for_each_predictor() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cycle.csv");
        let mut text = "time_unix_s,requests\n".to_owned();
        for t in 0..120 {
            text.push_str(&format!("{},{}\n", 30 * t, if t % 10 < 8 { 100 } else { 20 }));
        }
        std::fs::write(&file, text).unwrap();
        let (path, svg) = (file.to_str().unwrap(), directory.path().join("out.svg"));
        let words = [path, "--json", "--predictor", "ema3,sarima(0,1,0)(0,1,0)10", "--svg", svg.to_str().unwrap()];
        let report: Value = serde_json::from_str(&replay(&args(&words).unwrap()).unwrap()).unwrap();
        assert_eq!(report["trace"], "cycle");
        assert_eq!(report["scored_from"], 60);
        let exact = &report["predictors"]["sarima(0,1,0)(0,1,0)10"];
        assert_eq!((exact["rmse"].as_f64(), exact["order"].as_str()), (Some(0.0), Some("(0,1,0)(0,1,0)10")));
        assert!(report["predictors"]["ema3"]["rmse"].as_f64().unwrap() > 30.0);
        assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));
        // Too short for the season; nothing left to score; no such file.
        assert!(replay(&args(&[path, "--season", "61"]).unwrap()).unwrap_err().1.contains("two seasons"));
        assert!(replay(&args(&[path, "--train", "120"]).unwrap()).unwrap_err().1.contains("120 windows"));
        assert!(replay(&args(&["/nowhere.csv"]).unwrap()).unwrap_err().1.contains("/nowhere.csv"));
    }

    #[test]
    fn a_file_that_is_no_load_is_told_by_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("load.csv");
        let says = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            replay(&args(&[file.to_str().unwrap()]).unwrap()).unwrap_err()
        };
        for (content, said) in [
            (&b""[..], "line 1: \"\" is not the header"),
            (b"time_unix_s,requests\n0,1\n30,\xff\n", "line 3: no UTF-8 text"),
            (b"time_unix_s,requests\n0,1\n30,1\n60,\n90,\n", "none of the last 2 windows was counted"),
        ] {
            let (code, error) = says(content);
            assert!(code == ExitCode::from(WRONG) && error.contains(said), "{error}");
        }
    }
}

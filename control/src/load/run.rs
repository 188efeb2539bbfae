//! The open loop: begins each request at its moment and gathers what becomes of it.

use std::future::Future;
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::error::LoadError;
use super::options::{LoadArgs, LoadOptions};
use super::report::{Failure, LoadReport, RequestRecord, Tally, WindowRecord};
use super::request::{Client, overloaded};
use crate::model::Timestamp;

/// Failures that the report quotes.
const QUOTED: usize = 20;
/// Events that may wait for a slow reader; more are dropped, for a reader must not slow the load.
const EVENTS: usize = 4096;

/// What happens while a run goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LoadEvent {
    /// A window begins.
    WindowStarted {
        /// Its number, from 0.
        window: usize,
        /// Windows in all.
        windows: usize,
        /// Requests that it will offer.
        requests: u32,
    },
    /// A request has ended.
    RequestEnded(RequestRecord),
    /// All requests of a window have ended.
    WindowEnded(WindowRecord),
}

/// Runs the command: prints events and the report as the arguments say.
///
/// # Errors
/// [`LoadError`] where the run cannot begin. Failed requests are in the report, for the caller to
/// make an exit code of.
pub async fn command(args: &LoadArgs, shutdown: impl Future<Output = ()>) -> Result<LoadReport, LoadError> {
    let (sender, mut events) = mpsc::channel(EVENTS);
    let print = args.events;
    let printer = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if print && let Ok(line) = serde_json::to_string(&event) {
                // A reader that has gone is no reason to stop the load.
                _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    });
    let report = run(LoadOptions::from(args), Some(sender), shutdown).await;
    _ = printer.await;
    let report = report?;
    let text = match args.json.then(|| serde_json::to_string(&report)) {
        Some(Ok(json)) => format!("{json}\n"),
        _ => report.to_string(),
    };
    _ = std::io::stdout().write_all(text.as_bytes());
    Ok(report)
}

/// Offers the load until it is done or `shutdown` completes; requests still under way are then given up.
///
/// # Errors
/// [`LoadError`] where the options are out of bounds.
pub async fn run(
    options: LoadOptions,
    events: Option<mpsc::Sender<LoadEvent>>,
    shutdown: impl Future<Output = ()>,
) -> Result<LoadReport, LoadError> {
    options.check()?;
    let client = Arc::new(Client::new(&options)?);
    let windows: Vec<u32> = options.pattern.repeat(options.cycles as usize);
    let mut gathered = Gathered::new(&windows, options.window, events);
    let mut shutdown = pin!(shutdown);
    let mut requests = JoinSet::new();
    let start = Instant::now();
    let mut number = 0;
    let mut interrupted = false;

    'windows: for (window, count) in windows.iter().enumerate() {
        gathered.begin(window, *count);
        let window_start = start + options.window * window as u32;
        for i in 0..*count {
            // In the middle of its part of the window, so that windows meet without a gap or a heap.
            let moment = window_start + options.window.mul_f64((f64::from(i) + 0.5) / f64::from(*count));
            if !gathered.until(moment, &mut requests, shutdown.as_mut()).await {
                interrupted = true;
                break 'windows;
            }
            gathered.offered[window] += 1;
            if requests.len() >= options.concurrency as usize {
                gathered.end(overloaded(window, options.concurrency));
            } else {
                requests.spawn(Arc::clone(&client).request(window, number));
            }
            number += 1;
        }
        if !gathered.until(window_start + options.window, &mut requests, shutdown.as_mut()).await {
            interrupted = true;
            break;
        }
        if *count == 0 {
            gathered.tell(LoadEvent::WindowEnded(gathered.window(window)));
        }
    }
    while !interrupted && !requests.is_empty() {
        tokio::select! {
            Some(ended) = requests.join_next() => gathered.joined(ended),
            () = shutdown.as_mut() => interrupted = true,
        }
    }
    requests.shutdown().await;
    Ok(gathered.report(options.name, start.elapsed(), interrupted))
}

/// What has come of the requests so far.
struct Gathered {
    start: Timestamp,
    length: Duration,
    planned: Vec<u32>,
    starts: Vec<Timestamp>,
    offered: Vec<u64>,
    records: Vec<Vec<RequestRecord>>,
    failures: Vec<Failure>,
    events: Option<mpsc::Sender<LoadEvent>>,
}

impl Gathered {
    fn new(windows: &[u32], length: Duration, events: Option<mpsc::Sender<LoadEvent>>) -> Self {
        Self {
            start: Timestamp::now(),
            length,
            planned: windows.to_vec(),
            starts: Vec::with_capacity(windows.len()),
            offered: vec![0; windows.len()],
            records: vec![Vec::new(); windows.len()],
            failures: Vec::new(),
            events,
        }
    }

    fn tell(&self, event: LoadEvent) {
        if let Some(events) = &self.events {
            // Full or gone: the load goes on without its audience.
            _ = events.try_send(event);
        }
    }

    fn begin(&mut self, window: usize, requests: u32) {
        self.starts.push(Timestamp::now());
        self.tell(LoadEvent::WindowStarted { window, windows: self.planned.len(), requests });
    }

    /// Gathers what ends until `moment`. False where `shutdown` came first.
    async fn until(
        &mut self,
        moment: Instant,
        requests: &mut JoinSet<RequestRecord>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        loop {
            tokio::select! {
                biased;
                () = shutdown.as_mut() => return false,
                () = sleep_until(moment) => break,
                Some(ended) = requests.join_next() => self.joined(ended),
            }
        }
        // Behind schedule the moment is always first: what has ended must not count as under way.
        while let Some(ended) = requests.try_join_next() {
            self.joined(ended);
        }
        true
    }

    fn joined(&mut self, ended: Result<RequestRecord, tokio::task::JoinError>) {
        match ended {
            Ok(record) => self.end(record),
            // Counted as cancelled by the tally, since there is no record of it.
            Err(error) => tracing::error!(%error, "load: request task"),
        }
    }

    fn end(&mut self, record: RequestRecord) {
        if let Some(failure) = &record.failure
            && self.failures.len() < QUOTED
        {
            self.failures.push(failure.clone());
        }
        self.tell(LoadEvent::RequestEnded(record.clone()));
        let window = record.window;
        self.records[window].push(record);
        if self.records[window].len() == self.planned[window] as usize {
            self.tell(LoadEvent::WindowEnded(self.window(window)));
        }
    }

    fn window(&self, window: usize) -> WindowRecord {
        WindowRecord {
            window,
            start: self.starts[window],
            length_ms: u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX),
            tally: Tally::of(self.offered[window], self.records[window].iter()),
        }
    }

    fn report(self, name: String, took: Duration, interrupted: bool) -> LoadReport {
        LoadReport {
            name,
            start: self.start,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            interrupted,
            total: Tally::of(self.offered.iter().sum(), self.records.iter().flatten()),
            windows: (0..self.starts.len()).map(|window| self.window(window)).collect(),
            failures: self.failures,
        }
    }
}

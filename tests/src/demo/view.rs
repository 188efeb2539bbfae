//! The demo on the terminal: a picture that renews itself, or a line per step where nobody looks.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

use control::api::Status;
use control::model::InstanceState;

use super::service;
use super::summary::{Seen, Summary, Verdict};

/// Bars of one row, low to high.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a chart.
const WIDTH: usize = 64;

/// What is drawn.
pub(super) struct View {
    live: bool,
    begun: Instant,
    /// Lines that the picture takes now, to be drawn over.
    drawn: usize,
    last_window: u64,
}

impl View {
    pub fn new() -> Self {
        Self { live: stdout().is_terminal(), begun: Instant::now(), drawn: 0, last_window: 0 }
    }

    /// A step begins.
    pub fn step(&mut self, what: &str) {
        println!("[{:5.1} s] {what}", self.begun.elapsed().as_secs_f64());
        self.drawn = 0;
    }

    /// The state of things.
    pub fn draw(&mut self, status: &Status, seen: &Seen) {
        let Some(service) = service(status) else { return };
        let newest = service.history.last();
        if !self.live {
            // One line per window.
            if let Some(window) = newest.filter(|w| w.window > self.last_window) {
                self.last_window = window.window;
                let show = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.0}"));
                println!(
                    "[{:5.1} s] window {:2}: predicted {:>4}, came {:>4}; serving {}, wanted {}; downloads {} ok, {} failed",
                    self.begun.elapsed().as_secs_f64(),
                    window.window,
                    show(window.predicted),
                    show(window.observed),
                    window.replicas,
                    window.wanted,
                    seen.ok,
                    seen.failed
                );
            }
            return;
        }
        let observed: Vec<u64> = service.history.iter().map(|w| w.observed.unwrap_or(0.0) as u64).collect();
        let predicted: Vec<u64> = service.history.iter().map(|w| w.predicted.unwrap_or(0.0) as u64).collect();
        let states = InstanceState::ALL.iter().filter_map(|state| {
            let count = service.instances.iter().filter(|i| i.report.instance.state == *state).count();
            (count > 0).then(|| format!("{count} {}", state.label()))
        });
        let lines = [
            format!("  requests   {}", bars(&observed)),
            format!("  forecast   {}", bars(&predicted)),
            format!("  instances  {}", bars(&seen.serving())),
            format!("  now        {}", states.collect::<Vec<_>>().join(", ")),
            format!(
                "  answers    {} in the kernel, {} by the daemon",
                service.answered_in_kernel, service.answered_by_daemon
            ),
            format!("  downloads  {} ok, {} failed", seen.ok, seen.failed),
        ];
        let mut out = stdout().lock();
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for line in &lines {
            let _ = writeln!(out, "\x1b[2K{line}");
        }
        let _ = out.flush();
        self.drawn = lines.len();
    }

    /// The end.
    pub fn finish(&mut self, summary: &Summary, verdict: &Verdict) {
        println!();
        for line in summary.lines() {
            println!("{line}");
        }
        println!();
        for (holds, text) in &verdict.checks {
            println!("{} {text}", if *holds { "ok    " } else { "FAILED" });
        }
    }
}

/// The newest values as bars, scaled to the largest.
fn bars(values: &[u64]) -> String {
    let newest = &values[values.len().saturating_sub(WIDTH)..];
    let top = newest.iter().copied().max().unwrap_or(0).max(1);
    let bar = |v: &u64| BARS[usize::try_from(v * 7 / top).unwrap_or(7).min(7)];
    format!("{} {}", newest.iter().map(bar).collect::<String>(), newest.last().copied().unwrap_or(0))
}

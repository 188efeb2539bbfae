//! One instance after the other: how long until it answers, and until it is gone.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::site::{Steps, on_site};
use super::{BenchError, BenchOptions, Plain, Spread};

/// How long the machine's load is looked at for one reading of its peak.
const SAMPLE: Duration = Duration::from_millis(100);

/// What the parts of an allocation took, in milliseconds, medians.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Parts {
    /// Port made and on its bridge.
    pub port: f64,
    /// The driver's start.
    pub start: f64,
    /// From there to the first accepted connection.
    pub accept: f64,
    /// From there to the answer.
    pub answer: f64,
}

/// One size of content.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContentFigures {
    /// Megabytes (10^6 bytes) that the instance serves.
    pub content_mb: u64,
    /// Bytes of the image, 0 where the technology does not tell.
    pub image_bytes: u64,
    /// From nothing to the first HTTP 200.
    pub allocation_ms: Spread,
    /// From the order to stop until nothing is left.
    pub removal_ms: Spread,
    /// Parts of the allocation.
    pub parts_ms: Parts,
    /// The driver's start and the wait for the first accepted connection together.
    pub cold_start_ms: Spread,
    /// The whole content, once the instance is there.
    pub download_ms: Spread,
    /// Memory that an instance's control group is charged with after that, in MB (10^6 bytes), median.
    pub memory_mb: f64,
    /// Largest share of the machine's processors that was busy in any tenth of a second.
    pub cpu_peak_percent: f64,
    /// Of Xen: a domain of the same form by `xl` alone, one behind each of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain: Option<Plain>,
    /// Where it was asked for: an instance that was prepared, one behind each of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pooled>,
}

/// How instances come that were prepared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pooled {
    /// Until one is prepared, which nobody waits for.
    pub preparation_ms: Spread,
    /// From the order to the first HTTP 200.
    pub allocation_ms: Spread,
    /// The driver's part of that, median.
    pub start_ms: f64,
    /// How many times as long an instance takes that was not prepared; medians.
    pub times_sooner: f64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lifecycle {
    /// The technology's label.
    pub technology: &'static str,
    /// What it runs on.
    pub version: String,
    /// Runs of each size.
    pub runs: u32,
    /// By size of content.
    pub contents: Vec<ContentFigures>,
}

/// Allocates and removes `runs` instances for each size, one at a time; with `pool`, one that was prepared behind each.
/// `say` is told how far it is.
///
/// # Errors
/// [`BenchError`] at the first run that fails; nothing is left.
pub fn lifecycle(
    options: &BenchOptions,
    contents: &[u64],
    runs: u32,
    pool: bool,
    say: impl Fn(&str) + Send,
) -> Result<Lifecycle, BenchError> {
    on_site(options, async move |site| {
        let version = site.driver.check().await?;
        let mut figures = Vec::new();
        // The first start reads files from disk.
        site.up(0, 1).await?;
        site.down(0).await?;
        for &content_mb in contents {
            let (mut steps, mut removals) = (Vec::<Steps>::new(), Vec::new());
            let (mut downloads, mut memory) = (Vec::new(), Vec::new());
            let (mut creations, mut destructions) = (Vec::new(), Vec::new());
            let (mut preparations, mut prepared) = (Vec::new(), Vec::<Steps>::new());
            let image_bytes = site.driver.image_bytes(&site.spec(0, content_mb)?).await?;
            let load = Load::watch();
            for run in 0..runs {
                say(&format!("{content_mb} MB: run {} of {runs}", run + 1));
                steps.push(site.up(run, content_mb).await?);
                let begun = Instant::now();
                let length = site.download(run, "/content").await?;
                downloads.push(ms(begun.elapsed()));
                if length != content_mb * 1_000_000 {
                    return Err(BenchError::Answer {
                        operation: "get",
                        object: "/content".to_owned(),
                        reason: format!("{length} bytes instead of {content_mb} MB"),
                    });
                }
                memory.extend(site.driver.usage().await?.values().map(|usage| usage.memory_bytes as f64 / 1e6));
                removals.push(ms(site.down(run).await?));
                if let Some(plain) = &site.plain {
                    creations.push(ms(plain.create().await?));
                    destructions.push(ms(plain.destroy().await?));
                }
                if pool {
                    preparations.push(ms(site.prepare(content_mb, 1).await?));
                    prepared.push(site.up(run, content_mb).await?);
                    site.down(run).await?;
                }
            }
            let spread =
                |steps: &[Steps], of: fn(&Steps) -> Duration| Spread::of(steps.iter().map(|s| ms(of(s))).collect());
            let part = |of| spread(&steps, of);
            let pooled = pool.then(|| {
                let allocation_ms = spread(&prepared, Steps::total);
                Pooled {
                    preparation_ms: Spread::of(preparations),
                    allocation_ms,
                    start_ms: spread(&prepared, |s| s.driver).median,
                    times_sooner: part(Steps::total).median / allocation_ms.median,
                }
            });
            figures.push(ContentFigures {
                content_mb,
                image_bytes: image_bytes.unwrap_or_default(),
                allocation_ms: part(Steps::total),
                removal_ms: Spread::of(removals),
                parts_ms: Parts {
                    port: part(|s| s.port).median,
                    start: part(|s| s.start).median,
                    accept: part(|s| s.accept).median,
                    answer: part(|s| s.answer).median,
                },
                cold_start_ms: part(|s| s.start + s.accept),
                download_ms: Spread::of(downloads),
                memory_mb: Spread::of(memory).median,
                cpu_peak_percent: load.peak_percent(),
                plain: Plain::of(creations, destructions, part(|s| s.driver).median),
                pool: pooled,
            });
        }
        Ok(Lifecycle { technology: options.technology.label(), version, runs, contents: figures })
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The machine's load, watched by a thread.
struct Load {
    stop: std::sync::Arc<AtomicBool>,
    thread: std::thread::JoinHandle<f64>,
}

impl Load {
    fn watch() -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut peak, mut before) = (0f64, times());
            while !seen.load(Ordering::Relaxed) {
                std::thread::sleep(SAMPLE);
                let now = times();
                let (busy, all) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
                if all > 0 {
                    peak = peak.max(100.0 * busy as f64 / all as f64);
                }
                before = now;
            }
            peak
        });
        Self { stop, thread }
    }

    fn peak_percent(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Busy and all processor time since boot, in the kernel's ticks; zeroes where it cannot be read.
fn times() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; what follows is contained in these.
    let fields: Vec<u64> = line.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let all: u64 = fields.iter().sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (all - idle, all)
}

//! Many instances at once.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use super::site::on_site;
use super::{BenchError, BenchOptions};

/// Starts under way at one time, for each processor.
const AT_ONCE: usize = 4;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Density {
    /// The technology's label.
    pub technology: &'static str,
    /// Instances that were wanted.
    pub count: u32,
    /// Instances that ran at once, each of which answered 200.
    pub started: u32,
    /// From the first start to the last answer.
    pub seconds: f64,
    /// Starts per second.
    pub per_second: f64,
    /// Memory that an instance's control group is charged with, in MB (10^6 bytes), mean.
    pub rss_mb_each: f64,
    /// Until all were gone.
    pub removal_seconds: f64,
    /// Why the others did not start, the first one's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Starts `count` instances, asks each, reads what they use, asks each again, and removes them. `say` is told how far
/// it is.
///
/// # Errors
/// [`BenchError`] where nothing could be measured. Instances that do not start are a result.
pub fn density(options: &BenchOptions, count: u32, say: impl Fn(&str) + Send) -> Result<Density, BenchError> {
    let at_once = AT_ONCE * std::thread::available_parallelism().map_or(1, usize::from);
    on_site(options, async move |site| {
        let begun = Instant::now();
        let mut failure = None;
        let mut up = Vec::new();
        let mut starts = stream::iter(0..count).map(async |number| (number, site.up(number, 1).await));
        let mut under_way = starts.by_ref().buffer_unordered(at_once);
        while let Some((number, outcome)) = under_way.next().await {
            match outcome {
                Ok(_) => up.push(number),
                Err(error) => failure = failure.or(Some(error.to_string())),
            }
            say(&format!("{} of {count} are up", up.len()));
        }
        let seconds = begun.elapsed().as_secs_f64();

        // All at once means that each still answers when the last has come.
        let mut started = 0;
        for number in &up {
            match site.download(*number, "/healthz").await {
                Ok(_) => started += 1,
                Err(error) => failure = failure.or(Some(error.to_string())),
            }
        }
        let usage = site.driver.usage().await?;
        let bytes: u64 = usage.values().map(|usage| usage.memory_bytes).sum();
        let removing = Instant::now();
        for number in up {
            site.down(number).await?;
        }
        Ok(Density {
            technology: options.technology.label(),
            count,
            started,
            seconds,
            per_second: f64::from(started) / seconds,
            rss_mb_each: bytes as f64 / usage.len().max(1) as f64 / 1e6,
            removal_seconds: removing.elapsed().as_secs_f64(),
            failure,
        })
    })
}

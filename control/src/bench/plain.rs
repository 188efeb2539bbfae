//! The same domain by Xen's own tool alone, by turns with our driver: what that adds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::process::Command;

use super::{BenchError, Spread};
use crate::model::Technology;

/// The tool, as the driver here finds it, too.
pub(super) const XL: &str = "xl";
/// The domain's name. It has no mark of ours, so it is removed by name.
const NAME: &str = "selvedge-bench-plain";

/// What the tool alone took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plain {
    /// `xl create`.
    pub create_ms: Spread,
    /// `xl destroy`.
    pub destroy_ms: Spread,
    /// How much longer our driver's start takes, which notes the domain down and connects its interface, in percent of
    /// `create_ms`; medians.
    pub overhead_percent: f64,
}

impl Plain {
    /// Of these times in milliseconds; `start` is the median of our driver's start.
    pub(super) fn of(creations: Vec<f64>, destructions: Vec<f64>, start: f64) -> Option<Self> {
        let create_ms = Spread::of(creations);
        let overhead_percent = 100.0 * (start / create_ms.median - 1.0);
        let measured = create_ms.median > 0.0;
        measured.then(|| Self { create_ms, destroy_ms: Spread::of(destructions), overhead_percent })
    }
}

/// A domain as the driver would make it, in a file of `xl`'s.
pub(super) struct PlainDomain {
    file: PathBuf,
}

impl PlainDomain {
    /// Writes the file into `directory`.
    pub(super) fn new(
        technology: Technology,
        (image, ramdisk): (&str, Option<&Path>),
        (memory_mib, most_memory_mib): (u64, u64),
        directory: &Path,
    ) -> Result<Self, BenchError> {
        let kind = if technology == Technology::XenPv { "pv" } else { "pvh" };
        let ramdisk = ramdisk.map(|file| format!("ramdisk = \"{}\"\n", file.display())).unwrap_or_default();
        // The interface is joined to nothing, and no script is run for it, as of ours.
        let text = format!(
            "name = \"{NAME}\"\ntype = \"{kind}\"\nkernel = \"{image}\"\n{ramdisk}cmdline = \"quiet\"\nmemory = {memory_mib}\n\
             maxmem = {most_memory_mib}\nvcpus = 1\nvif = [\"mac=02:00:00:00:00:01,script=/bin/true\"]\n"
        );
        let file = directory.join("plain.cfg");
        fs::write(&file, text).map_err(BenchError::system("write the plain domain's configuration"))?;
        Ok(Self { file })
    }

    /// How long it takes to make it.
    pub(super) async fn create(&self) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        // As the driver does it: no process stays behind for the domain's end.
        let mut command = Command::new(XL);
        command.args(["create", "-q", "-e"]).arg(&self.file);
        run(command).await.map_err(BenchError::system("make a plain domain with xl"))?;
        Ok(begun.elapsed())
    }

    /// How long it takes to remove it.
    pub(super) async fn destroy(&self) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        let mut command = Command::new(XL);
        command.args(["destroy", NAME]);
        run(command).await.map_err(BenchError::system("remove a plain domain with xl"))?;
        Ok(begun.elapsed())
    }
}

async fn run(mut command: Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_told_in_percent() {
        let plain = Plain::of(vec![200.0, 100.0, 300.0], vec![50.0], 210.0).map(|plain| plain.overhead_percent);
        assert!(plain.is_some_and(|percent| (percent - 5.0).abs() < 1e-9), "{plain:?}");
        assert_eq!(Plain::of(vec![], vec![], 210.0), None);
    }
}

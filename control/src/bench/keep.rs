//! What was measured, written down where the catalogue reads it.

use std::fs;
use std::io;
use std::path::Path;

use super::{Lifecycle, Spread};
use crate::model::{Figures, Measurement, Measurements, Quantiles, Timestamp};

impl Lifecycle {
    /// The row of the catalogue: times, memory and size of the first content, throughput of the best. `None` where
    /// nothing was measured.
    #[must_use]
    pub fn measurement(&self, image: &str, at: Timestamp) -> Option<Measurement> {
        let first = self.contents.first()?;
        let quantiles = |spread: Spread| Quantiles { p50: hundredths(spread.median), p95: hundredths(spread.p95) };
        // Megabytes in milliseconds are gigabytes per second.
        let rates = self.contents.iter().map(|size| size.content_mb as f64 * 8e3 / size.download_ms.median);
        Some(Measurement {
            technology: self.technology.to_owned(),
            image: image.to_owned(),
            at,
            runs: self.runs,
            figures: Figures {
                size_bytes: first.image_bytes,
                allocation_ms: quantiles(first.allocation_ms),
                removal_ms: quantiles(first.removal_ms),
                memory_mib: hundredths(first.memory_mb * 1e6 / f64::from(1 << 20)),
                throughput_mbit: rates.reduce(f64::max).map(f64::round),
            },
        })
    }
}

/// Figures for people: more digits would be noise.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Puts a measurement into the file in the place of an earlier one of the same technology and image. A reader sees the
/// old file or the new one.
///
/// # Errors
/// What the system said; a file that holds no measurements is [`io::ErrorKind::InvalidData`], and left as it is.
pub fn keep(file: &Path, measurement: Measurement) -> io::Result<()> {
    let mut all: Measurements = match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Measurements::default(),
        Err(error) => return Err(error),
    };
    all.measurements.retain(|old| (&old.technology, &old.image) != (&measurement.technology, &measurement.image));
    all.measurements.push(measurement);
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(&all)?)?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::super::{ContentFigures, Parts};
    use super::*;

    fn measured(allocation: f64) -> Lifecycle {
        let spread = |median| Spread { median, p95: 2.0 * median, min: median, max: 3.0 * median };
        let size = |content_mb, download| ContentFigures {
            content_mb,
            image_bytes: 1000 + content_mb,
            allocation_ms: spread(allocation),
            removal_ms: spread(2.0),
            parts_ms: Parts::default(),
            cold_start_ms: spread(1.0),
            download_ms: spread(download),
            memory_mb: 2.097_152,
            cpu_peak_percent: 50.0,
            plain: None,
            pool: None,
        };
        Lifecycle { technology: "spt", version: String::new(), runs: 30, contents: vec![size(1, 8.0), size(20, 40.0)] }
    }

    #[test]
    fn the_last_measurement_of_each_image_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/catalogue.json");
        let read = || serde_json::from_slice::<Measurements>(&fs::read(&file).unwrap()).unwrap().measurements;
        keep(&file, measured(3.0).measurement("web", Timestamp(1)).unwrap()).unwrap();
        keep(&file, measured(3.0).measurement("other", Timestamp(2)).unwrap()).unwrap();
        keep(&file, measured(4.0).measurement("web", Timestamp(3)).unwrap()).unwrap();
        let all = read();
        assert_eq!(
            all.iter().map(|m| (m.image.as_str(), m.at)).collect::<Vec<_>>(),
            [("other", Timestamp(2)), ("web", Timestamp(3))]
        );
        let figures = all[1].figures;
        assert_eq!((figures.size_bytes, figures.allocation_ms), (1001, Quantiles { p50: 4.0, p95: 8.0 }));
        assert_eq!((figures.memory_mib, figures.throughput_mbit), (2.0, Some(4000.0)));

        fs::write(&file, "not ours").unwrap();
        let error = keep(&file, measured(3.0).measurement("web", Timestamp(1)).unwrap()).unwrap_err();
        assert_eq!(
            (error.kind(), fs::read_to_string(&file).unwrap().as_str()),
            (io::ErrorKind::InvalidData, "not ours")
        );
    }
}

//! `selvedge catalog` and `selvedge select`: what technologies cost, and which one a service should have.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::paint::{Paint, bytes, table, utc};
use super::{CONFIG, WRONG};
use crate::catalogue::{Probe, Requirements, catalogue, select};
use crate::config;
use crate::model::{CatalogueEntry, Feature, Isolation, Measurements, Technology};

/// The file of measurements below `control.state_dir`.
pub(super) const FILE: &str = "catalogue.json";

#[derive(Debug, Args)]
pub(super) struct CatalogueArgs {
    /// The configuration file; without one, the defaults hold
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Measurements instead of catalogue.json below control.state_dir
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
    /// Technologies to reckon with instead of those that are found on this node
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    technologies: Option<Vec<String>>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SelectArgs {
    /// Longest time from the order to the first answer, as in 20ms or 2s
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    start_within: Option<f64>,
    /// Most memory of an instance, as in 16M or 1G (powers of 1024)
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    memory: Option<f64>,
    /// Least throughput of an instance in bits per second, as in 200M or 1G (powers of 1000)
    #[arg(long, value_name = "RATE", value_parser = megabits)]
    throughput: Option<f64>,
    /// Weakest isolation: container, sandbox or vm
    #[arg(long, value_name = "CLASS", value_parser = isolation)]
    isolation: Option<Isolation>,
    /// What it must be able to: linux-programs, live-resize, block-device, range-requests, ipv6; may be repeated
    #[arg(long = "feature", value_name = "FEATURE", value_parser = feature)]
    features: Vec<Feature>,
    #[command(flatten)]
    catalogue: CatalogueArgs,
}

/// Shows the catalogue; exit code 2 for a wrong configuration or measurements that cannot be read.
pub(super) fn show(args: &CatalogueArgs) -> ExitCode {
    let (entries, on_node) = match known(args) {
        Ok(known) => known,
        Err(text) => return wrong(&text),
    };
    if args.json {
        return print(&serde_json::json!({ "entries": entries, "technologies_here": on_node }));
    }
    let row = |entry: &CatalogueEntry| {
        let figures = &entry.figures;
        let here = on_node.contains(&entry.technology);
        let cells = [
            entry.technology.clone(),
            entry.image.clone(),
            if here { "yes" } else { "no" }.to_owned(),
            bytes(figures.size_bytes),
            format!("{}/{}", figures.allocation_ms.p50, figures.allocation_ms.p95),
            format!("{}/{}", figures.removal_ms.p50, figures.removal_ms.p95),
            figures.memory_mib.to_string(),
            figures.throughput_mbit.map_or_else(|| "-".to_owned(), |mbit| mbit.to_string()),
            entry.isolation.label().to_owned(),
            entry.measured.map_or_else(|| "not here".to_owned(), |measured| utc(measured.at)),
        ];
        cells.map(|cell| (cell, None)).to_vec()
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let head = [
        "TECHNOLOGY",
        "IMAGE",
        "HERE",
        "SIZE",
        "START p50/p95 ms",
        "REMOVAL p50/p95 ms",
        "MiB",
        "Mbit/s",
        "ISOLATION",
        "MEASURED",
    ];
    print!("{}", table(&head, &rows, Paint::detect()));
    ExitCode::SUCCESS
}

/// Chooses; exit code 1 where nothing does, 2 for wrong usage or configuration.
pub(super) fn choose(args: SelectArgs) -> ExitCode {
    let (entries, on_node) = match known(&args.catalogue) {
        Ok(known) => known,
        Err(text) => return wrong(&text),
    };
    let requirements = Requirements {
        start_within_ms: args.start_within,
        memory_mib: args.memory,
        throughput_mbit: args.throughput,
        isolation: args.isolation,
        features: args.features.into_iter().collect(),
    };
    match select(&requirements, &entries, &on_node) {
        Ok(choice) if args.catalogue.json => print(&serde_json::json!({
            "technology": choice.entry.technology,
            "image": choice.entry.image,
            "reason": choice.reason,
            "entry": choice.entry,
            "rejected": choice.rejected,
            "requirements": requirements,
        })),
        Ok(choice) => {
            println!("{} {}: {}", choice.entry.technology, choice.entry.image, choice.reason);
            for rejected in &choice.rejected {
                println!("  not {rejected}");
            }
            ExitCode::SUCCESS
        }
        Err(none) => {
            if args.catalogue.json {
                let _ = print(&serde_json::json!({
                    "technology": null,
                    "reason": "no technology of this node meets these requirements",
                    "rejected": none.rejected,
                    "requirements": requirements,
                }));
            } else {
                eprintln!("selvedge: {none}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The catalogue as it is on this node, and the technologies that this node has and Selvedge can drive.
fn known(args: &CatalogueArgs) -> Result<(Vec<CatalogueEntry>, BTreeSet<String>), String> {
    let config = configuration(&args.config)?;
    let file = args.measurements.clone().unwrap_or_else(|| config.control.state_dir.join(FILE));
    let measurements = match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| {
            format!("{}: no measurements: {e}; let selvedge bench write them, or remove the file", file.display())
        })?,
        // Nothing has been measured yet; a file that was named has to be there.
        Err(error) if error.kind() == ErrorKind::NotFound && args.measurements.is_none() => Measurements::default(),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let on_node = match &args.technologies {
        Some(labels) => labels.iter().cloned().collect(),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let docker_socket = config.technologies.docker.socket;
            let found = Probe { docker_socket, path, root: PathBuf::from("/") }.technologies();
            let driven = |label: &String| Technology::ALL.iter().any(|technology| technology.label() == label);
            found.into_iter().filter(driven).collect()
        }
    };
    Ok((catalogue(&measurements.measurements), on_node))
}

/// The configuration in `file`; the defaults where it is the usual one and not there.
pub(super) fn configuration(file: &Path) -> Result<config::Config, String> {
    let config =
        if file.exists() || file != Path::new(CONFIG) { config::load(file) } else { config::parse("", CONFIG) };
    config.map_err(|errors| errors.to_string())
}

fn print(document: &serde_json::Value) -> ExitCode {
    println!("{document:#}");
    ExitCode::SUCCESS
}

fn wrong(text: &str) -> ExitCode {
    eprintln!("selvedge: {text}");
    ExitCode::from(WRONG)
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let time = config::parse_duration(text);
    time.map(|time| time.as_secs_f64() * 1e3).ok_or_else(|| "write it as in 20ms or 2s".to_owned())
}

fn mebibytes(text: &str) -> Result<f64, String> {
    let mib = scaled(text, &[('K', 1.0 / 1024.0), ('M', 1.0), ('G', 1024.0)]);
    mib.ok_or_else(|| "write it as in 16M or 1G".to_owned())
}

fn megabits(text: &str) -> Result<f64, String> {
    let mbit = scaled(text, &[('K', 1e-3), ('M', 1.0), ('G', 1e3)]);
    mbit.ok_or_else(|| "write it as in 200M or 1G".to_owned())
}

/// A number above 0 with one of these letters behind it, in the unit of the letter that stands for 1.
fn scaled(text: &str, units: &[(char, f64)]) -> Option<f64> {
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with([*unit, unit.to_ascii_lowercase()]))?;
    let number: f64 = text.trim_end_matches([*unit, unit.to_ascii_lowercase()]).parse().ok()?;
    (number > 0.0 && number.is_finite()).then_some(number * factor)
}

fn isolation(text: &str) -> Result<Isolation, String> {
    let found = Isolation::ALL.into_iter().find(|class| class.label() == text);
    found.ok_or_else(|| format!("use one of {}", Isolation::ALL.map(Isolation::label).join(", ")))
}

fn feature(text: &str) -> Result<Feature, String> {
    let found = Feature::ALL.into_iter().find(|feature| feature.label() == text);
    found.ok_or_else(|| format!("use one of {}", Feature::ALL.map(Feature::label).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(mebibytes("16M"), Ok(16.0));
        assert_eq!(mebibytes("1g"), Ok(1024.0));
        assert_eq!(megabits("1.5G"), Ok(1500.0));
        assert_eq!(milliseconds("20ms"), Ok(20.0));
        for wrong in ["", "M", "16", "-1M", "nanM", "16X", "infG"] {
            assert!(mebibytes(wrong).is_err(), "{wrong}");
        }
    }
}

//! `selvedge bench`: figures of this machine.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::catalogue::{FILE, configuration};
use super::{CONFIG, Done};
use crate::bench::{self as technologies, BenchOptions, Lifecycle, Spread, Stage, SummonOptions, XEN_UNIKERNEL};
use crate::datapath::bench;
use crate::model::{Technology, Timestamp};

/// What is measured.
#[derive(Debug, Args)]
pub(super) struct TechnologyArgs {
    /// docker, spt, hvt, qemu-microvm, firecracker, xen-pv or xen-pvh
    #[arg(long, value_parser = technology)]
    technology: Technology,
    /// Directory with the reference unikernel and its tenders [default: where make unikernel puts them, or
    /// /usr/lib/selvedge/unikernel]
    #[arg(long, value_name = "DIR")]
    unikernels: Option<PathBuf>,
    /// Another image than the reference unikernel; {content} becomes the megabytes that it shall serve. For Xen it is a
    /// kernel [default: where --unikernels DIR has no reference unikernel for it, vmlinuz with the ramdisk initrd there]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Initial ramdisk, where the image is a Linux kernel for Xen; it is told ip= and content=
    #[arg(long, value_name = "FILE")]
    ramdisk: Option<PathBuf>,
    /// The Docker engine's socket
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    docker_socket: PathBuf,
    /// User that unikernels' monitors run as
    #[arg(long, value_name = "USER", default_value = "nobody")]
    user: String,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// How instances' coming and going is measured.
#[derive(Debug, Args)]
pub(super) struct LifecycleArgs {
    /// Megabytes of content to serve, one series for each
    #[arg(long, value_name = "MB", value_delimiter = ',', default_value = "1,5,10,20",
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    content: Vec<u64>,
    /// Instances of each
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Of Xen: behind each instance one more of a domain that was prepared; a Linux guest has to know how to wait
    #[arg(long)]
    pool: bool,
    /// Write the rows of a Markdown table behind those that this file has
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The image's name in the catalogue [default: web for the reference unikernel, else what is left of the image's
    /// name without registry, path and tag]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// The configuration file, for control.state_dir
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Where the catalogue reads it, instead of catalogue.json below control.state_dir
    #[arg(long, value_name = "FILE")]
    measurements: Option<PathBuf>,
}

fn technology(text: &str) -> Result<Technology, String> {
    // QEMU's PC has no reference image.
    let known: Vec<Technology> = Technology::ALL.into_iter().filter(|t| *t != Technology::QemuPc).collect();
    known.iter().find(|t| t.label() == text).copied().ok_or_else(|| {
        let labels: Vec<&str> = known.iter().map(|t| t.label()).collect();
        format!("use one of {}", labels.join(", "))
    })
}

impl From<TechnologyArgs> for BenchOptions {
    fn from(args: TechnologyArgs) -> Self {
        let built = || {
            let own = std::env::current_exe().ok()?;
            Some(own.parent()?.parent()?.join("unikernel")).filter(|directory| directory.is_dir())
        };
        let unikernels = args.unikernels.or_else(built).unwrap_or_else(|| "/usr/lib/selvedge/unikernel".into());
        let (mut image, mut ramdisk) = (args.image, args.ramdisk);
        let linux = (unikernels.join("vmlinuz"), unikernels.join("initrd"));
        let ours = unikernels.join(XEN_UNIKERNEL).exists();
        if image.is_none() && args.technology.is_xen() && !ours && linux.0.exists() && linux.1.exists() {
            (image, ramdisk) = (Some(linux.0.to_string_lossy().into_owned()), Some(linux.1));
        }
        let (technology, docker, user) = (args.technology, args.docker_socket, args.user);
        Self { technology, unikernels, docker, image, ramdisk, user }
    }
}

/// Says how far a measurement is, on a terminal only.
fn progress(words: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        // A terminal that is gone is nobody to tell.
        let _ = write!(out, "\r\x1b[K{words}");
        let _ = out.flush();
    }
}

fn end_of_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

fn print_json(figures: &impl serde::Serialize) -> Done {
    println!("{}", serde_json::to_string_pretty(figures).map_err(|e| format!("bench: {e}"))?);
    Ok(())
}

/// The image's name in the catalogue.
fn catalogue_name(image: Option<&str>) -> String {
    let Some(image) = image else { return "web".to_owned() };
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split([':', '@']).next().unwrap_or(last).to_owned()
}

pub(super) fn lifecycle(args: TechnologyArgs, of: &LifecycleArgs) -> Done {
    let json = args.json;
    let file = match &of.measurements {
        Some(file) => file.clone(),
        None => configuration(&of.config)?.control.state_dir.join(FILE),
    };
    let options = BenchOptions::from(args);
    let name = of.name.clone().unwrap_or_else(|| catalogue_name(options.image.as_deref()));
    let figures = technologies::lifecycle(&options, &of.content, of.runs, of.pool, progress);
    end_of_progress();
    let figures = figures.map_err(|e| e.to_string())?;
    if json {
        print_json(&figures)?;
    } else {
        print_lifecycle(&figures);
    }
    if let Some(table) = &of.markdown {
        add_rows(table, &figures, &name).map_err(|e| format!("{}: {e}", table.display()))?;
    }
    let Some(measurement) = figures.measurement(&name, Timestamp::now()) else { return Ok(()) };
    technologies::keep(&file, measurement)
        .map_err(|e| format!("measured, but not kept for the catalogue: {}: {e}", file.display()))
}

fn print_lifecycle(figures: &Lifecycle) {
    println!("{}, {}; {} runs each, times in ms: median (95 %)", figures.technology, figures.version, figures.runs);
    println!(
        "{:<10}{:>18}{:>18}{:>18}{:>18}{:>10}",
        "content", "allocation", "cold start", "download", "removal", "CPU peak"
    );
    let show = |spread: &Spread| format!("{:.2} ({:.2})", spread.median, spread.p95);
    for size in &figures.contents {
        println!(
            "{:<10}{:>18}{:>18}{:>18}{:>18}{:>9.0}%",
            format!("{} MB", size.content_mb),
            show(&size.allocation_ms),
            show(&size.cold_start_ms),
            show(&size.download_ms),
            show(&size.removal_ms),
            size.cpu_peak_percent
        );
        if let Some(pool) = &size.pool {
            let (allocation, preparation) = (show(&pool.allocation_ms), show(&pool.preparation_ms));
            println!(
                "  prepared: allocation {allocation}, {:.1} times sooner; preparation {preparation}",
                pool.times_sooner
            );
        }
        if let Some(plain) = &size.plain {
            let (create, destroy) = (show(&plain.create_ms), show(&plain.destroy_ms));
            println!("  plain xl: create {create}, destroy {destroy}; our start takes {:+.1}%", plain.overhead_percent);
        }
    }
}

/// The paper's figure 3 as a table: times in ms, medians with the 95th percentile behind them.
fn add_rows(table: &Path, figures: &Lifecycle, name: &str) -> std::io::Result<()> {
    let mut file = File::options().create(true).append(true).open(table)?;
    if file.metadata()?.len() == 0 {
        writeln!(
            file,
            "| technology | image | content | image size | allocation, ms (95 %) | removal, ms (95 %) | download, ms \
             | memory | CPU peak |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
        )?;
    }
    let show = |spread: &Spread| format!("{:.1} ({:.1})", spread.median, spread.p95);
    for size in &figures.contents {
        writeln!(
            file,
            "| {} | {name} | {} MB | {:.2} MB | {} | {} | {:.1} | {:.1} MB | {:.0} % |",
            figures.technology,
            size.content_mb,
            size.image_bytes as f64 / 1e6,
            show(&size.allocation_ms),
            show(&size.removal_ms),
            size.download_ms.median,
            size.memory_mb,
            size.cpu_peak_percent
        )?;
    }
    Ok(())
}

pub(super) fn density(args: TechnologyArgs, count: u32) -> Done {
    let json = args.json;
    let figures = technologies::density(&args.into(), count, progress);
    end_of_progress();
    let figures = figures.map_err(|e| e.to_string())?;
    if json {
        print_json(&figures)?;
    } else {
        println!("{} of {} instances at once, by {}", figures.started, figures.count, figures.technology);
        println!(
            "up in {:.2} s ({:.0} per second), gone in {:.2} s",
            figures.seconds, figures.per_second, figures.removal_seconds
        );
        println!("{:.1} MB each", figures.rss_mb_each);
    }
    match figures.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

pub(super) fn summon(args: TechnologyArgs, how: SummonOptions) -> Done {
    let json = args.json;
    let figures = technologies::summon(&args.into(), how, progress);
    end_of_progress();
    let figures = figures.map_err(|e| e.to_string())?;
    if json {
        return print_json(&figures);
    }
    println!("{}: {} cold starts by a query, {} asking at once", figures.technology, figures.runs, figures.askers);
    println!("query to HTTP 200: median {:.2} ms, 99 % within {:.2} ms", figures.median_ms, figures.p99_ms);
    println!("\n{:<12}{:>10}{:>10}", "part", "median", "99 %");
    let stages = Stage::ALL.iter().map(|stage| stage.label()).chain(["dns", "connect", "http"]);
    for label in stages {
        if let Some(part) = figures.parts.get(label) {
            println!("{label:<12}{:>10.2}{:>10.2}", part.median_ms, part.p99_ms);
        }
    }
    Ok(())
}

pub(super) fn dataplane(json: bool) -> Done {
    let figures = bench::run().map_err(|e| e.to_string())?;
    if json {
        return print_json(&figures);
    }
    let base = &figures.baselines;
    println!("kernel {}; ns per packet, least of several rounds, one core", figures.kernel);
    println!("{:<14}{:>8.1}", "bare pass", base.pass_ns);
    println!("{:<14}{:>8.1}   parse, exchange addresses, send back", "swap", base.swap_tx_ns);
    println!("\n{:<14}{:>8}{:>8}{:>8}  {:<14}", "case", "ns", "x swap", "x pass", "verdict");
    for case in &figures.cases {
        let (name, ns, swap, pass) = (&case.name, case.ns, case.ratio_to_swap, case.ratio_to_pass);
        println!("{name:<14}{ns:>8.1}{swap:>8.2}{pass:>8.2}  {:<14}{}", case.verdict, case.about);
    }
    println!("\n{:<14}{:>8}{:>8}{:>10}", "names", "uniform", "Zipf", "services");
    for size in figures.scaling.iter().chain(&figures.scaling_services) {
        println!("{:<14}{:>8.1}{:>8.1}{:>10}", size.names, size.ns, size.zipf_ns, size.services);
    }
    let capture = &figures.capture;
    println!("\n{:<14}{:>8}   an A answer", "capture", "ns");
    println!("{:<14}{:>8.1}   by the program without it", "without", capture.without_ns);
    println!("{:<14}{:>8.1}   x {:.3}", "off", capture.off_ns, capture.off_ratio);
    println!("{:<14}{:>8.1}", "not chosen", capture.not_chosen_ns);
    println!("{:<14}{:>8.1}", "captured", capture.captured_ns);
    println!("{:<14}{:>8}   x {:.3} of off", "1 in 1,000", "", capture.thousandth_ratio);
    println!("\n{:<22}{:>14}{:>14}{:>14}", "program", "instructions", "machine bytes", "verified");
    for program in &figures.programs {
        let (size, bytes, verified) = (program.instructions, program.jited_bytes, program.verified);
        println!("{:<22}{size:>14}{bytes:>14}{verified:>14}", program.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_without_registry_and_tag() {
        for (image, name) in [
            (None, "web"),
            (Some("nginx"), "nginx"),
            (Some("selvedge-bench/nginx:{content}"), "nginx"),
            (Some("127.0.0.1:5000/a/flask@sha256:00"), "flask"),
        ] {
            assert_eq!(catalogue_name(image), name);
        }
    }
}

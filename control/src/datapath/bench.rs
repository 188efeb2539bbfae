//! What the program in the kernel costs on this machine.

use serde::Serialize;
use xdp_balancer::bench::{self, BenchOptions};

use super::DatapathError;

/// All figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Release of the running kernel.
    pub kernel: String,
    /// What the figures are held against.
    pub baselines: Baselines,
    /// Kinds of frames.
    pub cases: Vec<Case>,
    /// Sizes of tables of ten services.
    pub scaling: Vec<Scaling>,
    /// The largest table with more services.
    pub scaling_services: Vec<Scaling>,
    /// What it costs an A answer that queries can be captured.
    pub capture: Capture,
    /// Programs and their sizes.
    pub programs: Vec<Program>,
}

/// Nanoseconds per packet of an A answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Capture {
    /// By the program without its look at what is captured.
    pub without_ns: f64,
    /// With nothing captured, and divided by `without_ns`.
    pub off_ns: f64,
    /// See `off_ns`.
    pub off_ratio: f64,
    /// Not chosen, while others are captured.
    pub not_chosen_ns: f64,
    /// Captured.
    pub captured_ns: f64,
    /// On average where one in 1,000 is captured, divided by `off_ns`.
    pub thousandth_ratio: f64,
}

/// Nanoseconds per packet of the least that a program can do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Baselines {
    /// Passes everything.
    pub pass_ns: f64,
    /// Parses, exchanges addresses and ports, sends back.
    pub swap_tx_ns: f64,
    /// The bench's own part, taken off everywhere.
    pub harness_ns: f64,
}

/// One kind of frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Nanoseconds per packet.
    pub ns: f64,
    /// Divided by `swap_tx_ns`.
    pub ratio_to_swap: f64,
    /// Divided by `pass_ns`.
    pub ratio_to_pass: f64,
    /// Instructions of the program.
    pub instructions: u32,
    /// What the program made of it.
    pub verdict: String,
    /// Bytes of the frame before.
    pub frame_bytes: usize,
    /// Bytes of the frame afterwards.
    pub result_bytes: usize,
    /// What it is.
    pub about: String,
}

/// One size of table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scaling {
    /// Names in it.
    pub names: u32,
    /// Services that they belong to; the names of one share its answers.
    pub services: u32,
    /// Nanoseconds per packet, asked for uniformly at random.
    pub ns: f64,
    /// The same by Zipf's law.
    pub zipf_ns: f64,
}

/// A program's size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Instructions after the kernel's rewriting.
    pub instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions that the kernel's verifier walked through; it gives up at a million.
    pub verified: u32,
}

/// Services in the tables that show the growth with the names alone.
const FEW_SERVICES: u32 = 10;

fn thousandth(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}

fn tenth(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}

fn sizes(report: &bench::Report, services: impl Fn(u32) -> bool) -> Vec<Scaling> {
    let of = |size: &bench::ScalingReport| Scaling {
        names: size.names,
        services: size.services,
        ns: tenth(size.ns),
        zipf_ns: tenth(size.zipf_ns),
    };
    report.scaling.iter().filter(|size| services(size.services)).map(of).collect()
}

/// Measures; takes some seconds and needs root. Touches nothing that is in force.
///
/// # Errors
/// [`DatapathError`] where a program cannot be loaded or run.
pub fn run() -> Result<Figures, DatapathError> {
    let report = bench::run(&BenchOptions::default())?;
    let ratio = |ns: f64, base: f64| (ns / base * 100.0).round() / 100.0;
    let instructions = report.programs.first().map_or(0, |program| program.instructions);
    Ok(Figures {
        cases: report
            .cases
            .iter()
            .map(|case| Case {
                name: case.name.to_owned(),
                ns: tenth(case.ns),
                ratio_to_swap: ratio(case.ns, report.swap_tx_ns),
                ratio_to_pass: ratio(case.ns, report.pass_ns),
                instructions,
                verdict: case.verdict.to_owned(),
                frame_bytes: case.frame_bytes,
                result_bytes: case.result_bytes,
                about: case.about.to_owned(),
            })
            .collect(),
        scaling: sizes(&report, |services| services <= FEW_SERVICES),
        scaling_services: sizes(&report, |services| services > FEW_SERVICES),
        capture: Capture {
            without_ns: tenth(report.capture.without_ns),
            off_ns: tenth(report.capture.off_ns),
            off_ratio: thousandth(report.capture.off_ns / report.capture.without_ns),
            not_chosen_ns: tenth(report.capture.not_chosen_ns),
            captured_ns: tenth(report.capture.captured_ns),
            thousandth_ratio: thousandth(report.capture.one_in(1000.0) / report.capture.off_ns),
        },
        programs: report
            .programs
            .iter()
            .map(|program| Program {
                name: program.name.to_owned(),
                instructions: program.instructions,
                jited_bytes: program.jited_bytes,
                verified: program.verified,
            })
            .collect(),
        baselines: Baselines {
            pass_ns: tenth(report.pass_ns),
            swap_tx_ns: tenth(report.swap_tx_ns),
            harness_ns: tenth(report.harness_ns),
        },
        kernel: report.kernel,
    })
}

//! What the program costs, by `PROG_TEST_RUN`.
//!
//! The program under test is the one that is attached elsewhere, instruction for instruction; a harness of
//! its own object stands in front of it, restores the frame, and goes on into it. The harness in front of
//! a program that passes everything, measured in the same rounds, is taken off again, and the bare pass
//! put back, so that a figure is what one `PROG_TEST_RUN` of the program alone would show.
//!
//! All programs take turns in each round, and the least of the rounds counts: what disturbs a run only
//! ever makes it longer.

mod capture;
mod cases;
mod harness;
mod scaling;

use std::path::{Path, PathBuf};

use xdp_balancer_common::{TransitHook, Verdict, bench as common, object};

use crate::counters::changed;
use crate::dataplane::{Dataplane, Options, RunAction};
use crate::error::Error;
use crate::guard::Rules;
use crate::maps::Sizes;
use crate::object as elf;
use crate::sys;
use harness::{Harness, Timed};

/// How to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Directory on a BPF file system for the tables of the bench; removed afterwards.
    pub pin_dir: PathBuf,
    /// Rounds, of which the least counts.
    pub rounds: u32,
    /// Runs per figure and round.
    pub repeat: u32,
    /// Sizes of the tables for the scaling: names, and services that they belong to.
    pub tables: Vec<(u32, u32)>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            pin_dir: PathBuf::from(format!("/sys/fs/bpf/selvedge-bench-{}", std::process::id())),
            rounds: 15,
            repeat: 100_000,
            tables: vec![(10, 10), (1_000, 10), (100_000, 10), (100_000, 1_000)],
        }
    }
}

/// All figures of one run, in nanoseconds per packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Release of the running kernel.
    pub kernel: String,
    /// A program that passes everything.
    pub pass_ns: f64,
    /// A program that parses, exchanges addresses and ports, and sends back.
    pub swap_tx_ns: f64,
    /// The harness in front of the passing program; part of no figure.
    pub harness_ns: f64,
    /// Kinds of frames.
    pub cases: Vec<CaseReport>,
    /// Sizes of tables.
    pub scaling: Vec<ScalingReport>,
    /// What it costs that queries can be captured.
    pub capture: CaptureReport,
    /// Programs.
    pub programs: Vec<ProgramReport>,
}

/// What it costs an A answer that queries can be captured, in nanoseconds per packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureReport {
    /// The program without its look at what is captured.
    pub without_ns: f64,
    /// As it is, with nothing captured.
    pub off_ns: f64,
    /// While others are captured and this query is not chosen.
    pub not_chosen_ns: f64,
    /// While this query is captured, into a buffer that has room.
    pub captured_ns: f64,
}

impl CaptureReport {
    /// What a packet costs on average where one in so many is captured.
    #[must_use]
    pub fn one_in(&self, many: f64) -> f64 {
        self.not_chosen_ns + (self.captured_ns - self.not_chosen_ns) / many
    }
}

/// One kind of frame.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseReport {
    /// Its name.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Nanoseconds per packet.
    pub ns: f64,
    /// What the program made of it.
    pub verdict: &'static str,
    /// Bytes of the frame.
    pub frame_bytes: usize,
    /// Bytes of what the program left.
    pub result_bytes: usize,
}

/// One size of table.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingReport {
    /// Names in the table.
    pub names: u32,
    /// Services, each with answers of its own that its names share.
    pub services: u32,
    /// Nanoseconds per packet, names asked for uniformly at random.
    pub ns: f64,
    /// The same by Zipf's law with exponent 1.
    pub zipf_ns: f64,
}

/// Size of a program as the kernel runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramReport {
    /// Its name.
    pub name: &'static str,
    /// Instructions after the kernel's rewriting.
    pub instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions that the kernel's verifier walked through; it gives up at a million.
    pub verified: u32,
}

/// Measures everything; takes some seconds. Needs the rights to load programs.
pub fn run(options: &BenchOptions) -> Result<Report, Error> {
    let report = measure(options);
    let removed = crate::attach::remove_all(&options.pin_dir);
    for (names, services) in &options.tables {
        crate::attach::remove_all(&scaling_dir(&options.pin_dir, *names, *services))?;
    }
    let report = report?;
    removed?;
    Ok(report)
}

fn scaling_dir(pin_dir: &Path, names: u32, services: u32) -> PathBuf {
    let mut dir = pin_dir.as_os_str().to_owned();
    dir.push(format!("-{names}-{services}"));
    dir.into()
}

fn open(pin_dir: &Path, sizes: Sizes) -> Result<Dataplane, Error> {
    Dataplane::open(&Options { pin_dir: pin_dir.to_owned(), sizes })
}

fn measure(options: &BenchOptions) -> Result<Report, Error> {
    let _pinned = sys::stay_on_cpu().map_err(Error::system("stay on", "one CPU"))?;
    let mut plane = open(&options.pin_dir, Sizes::default())?;
    plane.publish(&cases::table())?;
    // What a test run has for the interface that its frame came in on. Nothing is attached there.
    plane.set_transit(&[("lo", TransitHook::Ingress)])?;
    elf::xdp(&mut plane.object, object::PASS)?;
    let mut harness = Harness::open(&plane)?;

    let cases = cases::all();
    let mut reports = Vec::with_capacity(cases.len());
    for case in &cases {
        plane.set_rules(&case.rules)?;
        reports.push(describe(&plane, &mut harness, case)?);
    }

    let swap = cases[0].frame.clone();
    let (mut pass_ns, mut swap_ns, mut harness_ns) = (f64::MAX, f64::MAX, f64::MAX);
    let mut times = vec![Timed::default(); cases.len()];
    for _ in 0..options.rounds {
        pass_ns = pass_ns.min(harness::time(harness::program(&plane.object, object::PASS)?, &swap, options.repeat)?);
        swap_ns = swap_ns.min(harness.swap(&swap, options.repeat)?);
        for (case, time) in cases.iter().zip(&mut times) {
            plane.set_rules(&case.rules)?;
            harness.set_frame(&case.frame, 0, 0)?;
            time.add(&mut harness, &plane, &plane, &case.frame, options.repeat)?;
        }
    }
    for (report, time) in reports.iter_mut().zip(&times) {
        report.ns = time.program - time.pass + pass_ns;
        harness_ns = harness_ns.min(time.pass);
    }

    plane.set_rules(&Rules::default())?;
    let scaling = scaling::measure(options, &mut harness, &plane, pass_ns)?;
    let (capture, uncaptured) = capture::measure(options, &mut harness, &plane, &swap)?;
    let mut programs = Vec::new();
    for name in [object::XDP, object::PASS] {
        let [instructions, jited_bytes, verified] = harness::size(&plane.object, name)?;
        programs.push(ProgramReport { name, instructions, jited_bytes, verified });
    }
    for name in [common::object::SWAP, harness.name()] {
        let [instructions, jited_bytes, verified] = harness::size(harness.object(), name)?;
        programs.push(ProgramReport { name, instructions, jited_bytes, verified });
    }
    programs.push(uncaptured);
    let kernel = sys::release().map_err(Error::system("ask for", "the kernel's release"))?;
    Ok(Report { kernel, pass_ns, swap_tx_ns: swap_ns, harness_ns, cases: reports, scaling, capture, programs })
}

/// Runs the frame once, in front of the harness and behind it, and holds one against the other.
fn describe(plane: &Dataplane, harness: &mut Harness, case: &cases::Case) -> Result<CaseReport, Error> {
    if case.rules != Rules::default() {
        // Takes what a limit has in store.
        plane.run(&case.frame)?;
    }
    let before = plane.counters(0)?;
    let alone = plane.run(&case.frame)?;
    let after = plane.counters(0)?;
    let verdict = changed(&before.verdicts, &after.verdicts).map_or("none", Verdict::label);
    harness.set_frame(&case.frame, 0, 0)?;
    harness.aim(plane, object::XDP)?;
    // More than once: the second run meets what the first one left.
    let behind = harness.run(&case.frame, 3)?;
    let same = behind.action == alone.action
        && behind.frame.len() == alone.frame.len()
        && (alone.action == RunAction::Answer || case.rewritten || behind.frame == case.frame)
        && case.rewritten == (alone.action == RunAction::Pass && alone.frame != case.frame);
    if !same {
        return Err(Error::Bench { case: case.name });
    }
    Ok(CaseReport {
        name: case.name,
        about: case.about,
        ns: 0.0,
        verdict,
        frame_bytes: case.frame.len(),
        result_bytes: alone.frame.len(),
    })
}

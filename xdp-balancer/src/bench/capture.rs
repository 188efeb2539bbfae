//! What it costs that queries can be captured, off and on, beside the same program without.

use xdp_balancer_common::{CAPTURE_ONE_IN, object};

use super::harness::{self, Harness};
use super::{BenchOptions, CaptureReport, ProgramReport};
use crate::capture::{Capture, CaptureRules};
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::object as elf;

/// Runs in a row that are captured: so many fit into the buffer.
const CAPTURED: u32 = 500;
/// Turns in a round of the program with and without the look.
const TURNS: u32 = 4;
/// Windows of these in a round, for one is short.
const WINDOWS: u32 = 20;

/// The figures for a frame, and the size of the program without the look.
pub(super) fn measure(
    options: &BenchOptions,
    harness: &mut Harness,
    plane: &Dataplane,
    frame: &[u8],
) -> Result<(CaptureReport, ProgramReport), Error> {
    let rules = CaptureRules { one_in: 1, rate: u32::MAX, client: None, name: None, verdicts: Vec::new() };
    let mut capture = Capture::start(&options.pin_dir, &rules)?;
    capture.choose(None);
    elf::xdp(capture.object(), object::UNCAPTURED)?;
    let [instructions, jited_bytes, verified] = harness::size(capture.object(), object::UNCAPTURED)?;
    let size = ProgramReport { name: object::UNCAPTURED, instructions, jited_bytes, verified };

    harness.set_frame(frame, 0, 0)?;
    let (mut without, mut off, mut not_chosen, mut captured, mut pass) =
        (f64::MAX, f64::MAX, f64::MAX, f64::MAX, f64::MAX);
    let (mut few_off, mut bare) = (f64::MAX, f64::MAX);
    for _ in 0..options.rounds {
        bare = bare.min(harness::time(harness::program(&plane.object, object::PASS)?, frame, options.repeat)?);
        harness.aim(plane, object::PASS)?;
        pass = pass.min(harness.time(frame, options.repeat)?);
        // What is looked for is a percent, so these two take turns more often.
        for _ in 0..TURNS {
            harness.aim_at(capture.object(), object::UNCAPTURED)?;
            without = without.min(harness.time(frame, options.repeat)?);
            harness.aim(plane, object::XDP)?;
            off = off.min(harness.time(frame, options.repeat)?);
        }
        capture.choose(Some(CAPTURE_ONE_IN));
        not_chosen = not_chosen.min(harness.time(frame, options.repeat)?);
        // A window so short has the call itself in it; so has the one that it is held against.
        for _ in 0..WINDOWS {
            capture.choose(None);
            few_off = few_off.min(harness.time(frame, CAPTURED)?);
            capture.choose(Some(1));
            captured = captured.min(harness.time(frame, CAPTURED)?);
            while capture.next_query().is_some() {}
        }
        capture.choose(None);
    }
    let totals = capture.totals()?;
    if totals.lost + totals.over_rate > 0 {
        return Err(Error::Bench { case: "capture" });
    }
    capture.end()?;
    let alone = |ns: f64| ns - pass + bare;
    let report = CaptureReport {
        without_ns: alone(without),
        off_ns: alone(off),
        not_chosen_ns: alone(not_chosen),
        captured_ns: alone(off) + captured - few_off,
    };
    Ok((report, size))
}

//! `selvedge capture`: what the kernel does with queries, one by one, while it does it.
//!
//! ```text
//! program in the kernel ─ring─> captured query ─story─> a line, a JSON object, or two packets of a pcapng file
//! ```
//!
//! Works from the pins, as root, without the daemon: one looks at the kernel when one does not believe the daemon. Where it
//! is there it is asked which instance has an address.

mod filter;
mod instances;
mod pcapng;
mod story;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::datapath::DatapathError;
use crate::datapath::capture::{Capture, Totals};
pub use filter::{Filter, FilterError};
use instances::Instances;
use pcapng::Writer;
use story::Story;

/// How often the kernel is told that somebody still reads.
const BEAT: Duration = Duration::from_secs(1);

/// What to capture, and where to put it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the program's maps are pinned.
    pub pin_dir: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Which queries.
    pub filter: Filter,
    /// Most in a second.
    pub rate: u32,
    /// How it is told.
    pub output: Output,
    /// Ends after so many queries.
    pub count: Option<u64>,
    /// Ends after so long.
    pub duration: Option<Duration>,
}

/// How queries are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A line each.
    Lines,
    /// A JSON object each, on a line.
    Json,
    /// As packets, into this file; `-`: standard output.
    Pcapng(PathBuf),
}

/// Why it could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] DatapathError),
    /// Reading from the kernel.
    #[error("wait for the kernel: {0}")]
    Wait(#[source] io::Error),
    /// The file.
    #[error("write {}: {source}", .path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else switched it off.
    #[error("the capture was switched off from outside, or this process stood still for more than five seconds")]
    SwitchedOff,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Queries that were written.
    pub written: u64,
    /// What the kernel counted.
    pub totals: Totals,
}

/// Captures until it is enough, interrupted, or nobody reads any more. However it ends, capturing is switched off. Once it
/// is on, `begun` is called.
///
/// # Errors
/// [`CaptureError`].
pub async fn capture(options: &Options, begun: impl FnOnce()) -> Result<Outcome, CaptureError> {
    let mut teller = Teller::open(&options.output)?;
    // Before it is on, so that no signal can end it without this being left.
    let mut ends = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        ends.push(signal(kind).map_err(CaptureError::Wait)?);
    }
    let mut instances = Instances::new(&options.socket);
    instances.ask().await;
    let capture = Capture::start(&options.pin_dir, &options.filter.rules(options.rate));
    let capture = capture.map_err(DatapathError::from)?;
    // SAFETY: the capture owns its descriptor and gives out the same one for as long as it lives.
    let source = unsafe { AsyncFd::register_with_interest(capture, Interest::READABLE) };
    let mut source = source.map_err(|error| CaptureError::Wait(error.into()))?;
    begun();
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let deadline = options.duration.map(|duration| tokio::time::Instant::now() + duration);
    let until = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(until);
    let most = options.count.unwrap_or(u64::MAX);
    let (mut written, mut open) = (0, true);
    while open && written < most {
        tokio::select! {
            biased;
            () = any(&mut ends) => break,
            () = &mut until => break,
            _ = beat.tick() => {
                if !source.get_ref().is_on() {
                    return Err(CaptureError::SwitchedOff);
                }
                source.get_ref().beat();
                instances.tick().await;
                open = teller.flush()?;
            }
            ready = source.readable_mut() => {
                let mut ready = ready.map_err(CaptureError::Wait)?;
                // In portions, so that the beat has its turn.
                for _ in 0..PORTION {
                    let Some(captured) = ready.get_inner_mut().next_query().filter(|_| written < most) else {
                        ready.clear_ready();
                        break;
                    };
                    written += 1;
                    open = teller.tell(&Story::of(captured, &mut instances))?;
                    if !open {
                        break;
                    }
                }
            }
        }
    }
    let mut capture = source.into_inner();
    capture.end().map_err(DatapathError::from)?;
    // What came before the end.
    while open && written < most {
        let Some(captured) = capture.next_query() else { break };
        written += 1;
        open = teller.tell(&Story::of(captured, &mut instances))?;
    }
    let totals = capture.totals().map_err(DatapathError::from)?;
    teller.flush()?;
    Ok(Outcome { written, totals })
}

/// Queries that are told between two looks at everything else.
const PORTION: usize = 1024;

async fn any(signals: &mut [tokio::signal::unix::Signal]) {
    let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(waits).await;
}

/// Where queries are told.
enum Teller {
    Lines(Box<dyn Write>),
    Json(Box<dyn Write>),
    Pcapng(Writer<Box<dyn Write>>, PathBuf),
}

impl Teller {
    fn open(output: &Output) -> Result<Self, CaptureError> {
        let out = || -> Box<dyn Write> { Box::new(BufWriter::new(io::stdout())) };
        let path = match output {
            Output::Lines => return Ok(Self::Lines(Box::new(io::stdout()))),
            Output::Json => return Ok(Self::Json(Box::new(io::stdout()))),
            Output::Pcapng(path) => path.clone(),
        };
        let failed = |source| CaptureError::Write { path: path.clone(), source };
        let file: Box<dyn Write> =
            if path == Path::new("-") { out() } else { Box::new(BufWriter::new(File::create(&path).map_err(failed)?)) };
        let writer = Writer::new(file).map_err(failed)?;
        Ok(Self::Pcapng(writer, path))
    }

    /// Tells of a query; false where nobody reads any more.
    fn tell(&mut self, story: &Story) -> Result<bool, CaptureError> {
        let told = match self {
            Self::Lines(out) => writeln!(out, "{story}"),
            Self::Json(out) => {
                serde_json::to_writer(&mut *out, story).map_err(io::Error::from).and_then(|()| writeln!(out))
            }
            Self::Pcapng(writer, _) => story.write(writer),
        };
        self.settle(told)
    }

    /// Hands on what was told so far; false where nobody reads any more.
    fn flush(&mut self) -> Result<bool, CaptureError> {
        let flushed = match self {
            Self::Lines(out) | Self::Json(out) => out.flush(),
            Self::Pcapng(writer, _) => writer.flush(),
        };
        self.settle(flushed)
    }

    fn settle(&self, done: io::Result<()>) -> Result<bool, CaptureError> {
        match done {
            Ok(()) => Ok(true),
            // The reader's choice.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(source) => {
                let path = if let Self::Pcapng(_, path) = self { path.clone() } else { PathBuf::from("-") };
                Err(CaptureError::Write { path, source })
            }
        }
    }
}

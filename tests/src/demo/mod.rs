//! `make demo`: the whole of Selvedge on this machine in under three minutes.
//!
//! A client looks a name up and downloads 1 MB for each of its requests, in the paper's cycle (100 in
//! each of eight windows, 20 in each of two) on shortened windows. The daemon's instances have to follow.

mod summary;
mod view;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use control::api::Status;
use control::load::{LoadEvent, LoadReport};
use control::model::ServiceName;

use crate::edge::{EdgeLab, EdgeOptions, downloads};
use crate::lab::daemon::Daemon;
use crate::lab::{LabError, Result};
pub use summary::{Summary, Verdict};
use view::View;

/// Length of a shortened window.
const WINDOW: Duration = Duration::from_secs(3);
/// The paper's cycle (section V, scenario 3).
const CYCLE: &[(u32, usize)] = &[(100, 8), (20, 2)];
/// How often the cycle is gone through.
const CYCLES: u32 = 2;
/// Bytes of a download.
const CONTENT: usize = 1_000_000;
/// Until the first instance has to serve.
const FIRST_INSTANCE: Duration = Duration::from_secs(30);
/// Until the instances have to be down to one after the load has ended: the average falls by half in
/// each window, and then each instance drains.
const COOL_DOWN: Duration = Duration::from_secs(45);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Asked between steps: true once the run was interrupted.
pub type Interrupted = fn() -> bool;

/// The demo's files.
#[must_use]
pub fn directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from).join("demo")
}

/// Runs the demo and leaves `summary.json`.
///
/// # Errors
/// [`LabError`] where a part could not be made or did not come up, or the run was interrupted; everything is
/// removed then, too.
pub fn run(dir: &Path, interrupted: Interrupted) -> Result<Verdict> {
    let mut view = View::new();
    let mut lab = EdgeLab::create(
        EdgeOptions {
            name: "selvedge-demo".to_owned(),
            dir: dir.to_owned(),
            window: format!("{}s", WINDOW.as_secs()),
            content: CONTENT,
            service: "capacity = 20\nmin = 1\nmax = 8\nttl_s = 1\ndrain_quiet = \"1s\"\ndrain_deadline = \"20s\""
                .to_owned(),
        },
        &mut |step| {
            view.step(step);
            check(interrupted)
        },
    )?;
    let outcome = scenario(&mut lab, &mut view, interrupted);
    view.step("cleaning up");
    let removed = lab.remove();
    let summary = outcome?;
    removed?;
    summary.write(&dir.join("summary.json"))?;
    let verdict = summary.verdict();
    view.finish(&summary, &verdict);
    Ok(verdict)
}

fn scenario(lab: &mut EdgeLab, view: &mut View, interrupted: Interrupted) -> Result<Summary> {
    check(interrupted)?;
    view.step("selvedged");
    let mut daemon = lab.start_daemon()?;
    let watched = watch(lab, &mut daemon, view, interrupted);
    let ended = daemon.terminate();
    let summary = watched?;
    ended?;
    Ok(summary)
}

fn watch(lab: &EdgeLab, daemon: &mut Daemon, view: &mut View, interrupted: Interrupted) -> Result<Summary> {
    daemon.wait_for("the first instance to serve", FIRST_INSTANCE, |status| serving(status) >= 1 || interrupted())?;
    check(interrupted)?;
    view.step("load");
    let (events, heard) = mpsc::channel();
    let mut seen = summary::Seen::default();
    let report = std::thread::scope(|scope| {
        let client = &lab.client;
        let load = scope.spawn(move || client.run_in(|| offer_load(&events, interrupted)));
        while !load.is_finished() {
            look(daemon, &heard, &mut seen, view);
            std::thread::sleep(LOOK);
        }
        match load.join() {
            Ok(done) => done?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    check(interrupted)?;
    view.step("waiting for the instances to go");
    let begun = Instant::now();
    loop {
        let replicas = look(daemon, &heard, &mut seen, view);
        check(interrupted)?;
        if replicas.is_some_and(|(serving, all)| serving == 1 && all == 1) || begun.elapsed() > COOL_DOWN {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(Summary::new(&daemon.status()?, &report, seen))
}

/// One look at the daemon and the load; instances that serve, and all that are there.
fn look(
    daemon: &Daemon,
    heard: &mpsc::Receiver<LoadEvent>,
    seen: &mut summary::Seen,
    view: &mut View,
) -> Option<(u32, u32)> {
    while let Ok(event) = heard.try_recv() {
        seen.hear(&event);
    }
    // A daemon that is busy for a moment is looked at again.
    let status = daemon.status().ok()?;
    seen.look(&status);
    view.draw(&status, seen);
    let all = service(&status).map_or(0, |s| u32::try_from(s.instances.len()).unwrap_or(u32::MAX));
    Some((serving(&status), all))
}

fn offer_load(events: &mpsc::Sender<LoadEvent>, interrupted: Interrupted) -> Result<LoadReport> {
    let cycle = CYCLE.iter().flat_map(|(requests, windows)| std::iter::repeat_n(*requests, *windows)).collect();
    let options = downloads(cycle, WINDOW, CYCLES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LabError::system("start", "runtime"))?;
    let report = runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1024);
        let forward = tokio::spawn({
            let events = events.clone();
            async move {
                while let Some(event) = receiver.recv().await {
                    // Whoever watched has gone; the load goes on to its end all the same.
                    let _ = events.send(event);
                }
            }
        });
        let stop = async move {
            while !interrupted() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let report = control::load::run(options, Some(sender), stop).await;
        let _ = forward.await;
        report
    });
    report.map_err(|e| LabError::system("offer", "load")(std::io::Error::other(e)))
}

fn check(interrupted: Interrupted) -> Result<()> {
    if interrupted() {
        let source = std::io::Error::new(std::io::ErrorKind::Interrupted, "by a signal");
        return Err(LabError::system("interrupted", "the demo")(source));
    }
    Ok(())
}

fn service(status: &Status) -> Option<&control::api::ServiceStatus> {
    status.services.iter().find(|(name, _): &(&ServiceName, _)| name.as_str() == "video").map(|(_, s)| s)
}

fn serving(status: &Status) -> u32 {
    service(status).map_or(0, |s| s.serving)
}

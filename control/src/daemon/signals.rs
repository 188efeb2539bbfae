//! Signals: those that mean something, and a start that none of them disturbs.

use nix::sys::signal::{SigSet, SigmaskHow};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

/// Runs `work` with this thread's signals held back; other threads take them meanwhile. A signal makes the kernel give
/// up checking a program, and the loader then checks it anew with the checker's whole log, which takes half a minute.
pub(super) fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let done = work();
    match before.map(|mask| mask.thread_set_mask()) {
        Ok(Ok(())) => {}
        Ok(Err(errno)) | Err(errno) => warn!(%errno, "signals could not be held back"),
    }
    done
}

/// Signals that mean something to the daemon.
pub(super) struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

#[derive(PartialEq, Eq)]
pub(super) enum Signal {
    Reload,
    Stop,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop,
            _ = self.int.recv() => Signal::Stop,
            _ = self.hup.recv() => Signal::Reload,
        }
    }
}

//! `make demo`. Needs root: it makes namespaces, attaches a program and runs a container engine.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tests::demo;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn main() -> ExitCode {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!(
            "selvedge-demo needs root: it makes network namespaces, attaches an XDP program and runs a container engine"
        );
        return ExitCode::from(77);
    }
    // Also where the parent ignores them, as shells do for what they start in the background.
    let action = SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is async-signal-safe.
        if let Err(error) = unsafe { sigaction(signal, &action) } {
            eprintln!("selvedge-demo: {signal}: {error}");
            return ExitCode::FAILURE;
        }
    }
    let dir = demo::directory();
    match demo::run(&dir, || INTERRUPTED.load(Ordering::Relaxed)) {
        Ok(verdict) => {
            println!("\n{}", dir.join("summary.json").display());
            if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("selvedge-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

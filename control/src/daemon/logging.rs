//! Structured logs on standard error; systemd's journal takes them from there.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::LogLevel;

/// Starts logging at `level`; `RUST_LOG` overrides it. Also carries records of the `log` crate, by which
/// aya-log brings what the programs in the kernel say.
pub(super) fn start(level: LogLevel, json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.label()));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The builder installs the bridge from `log` too. It fails only where a logger is set already (tests).
    let started = if json {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was set up before");
    }
}

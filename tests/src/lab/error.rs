//! What can go wrong in the lab.

use std::io;

/// Why the lab could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The system refused.
    #[error("{operation} {object}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What was met.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("{program}: {status}: {stderr}")]
    Program {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The container engine refused.
    #[error("{operation} {object}: {source}")]
    Engine {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What it said.
        source: bollard::errors::Error,
    },
    /// Another process has a lab of that name up.
    #[error("{name} is running already (process {pid}); wait for its end, or end it")]
    Busy {
        /// The lab's name.
        name: String,
        /// Whose it is; 0 where that is not known.
        pid: i32,
    },
    /// Something did not come about in time.
    #[error("{what} did not come about within {seconds} s; see {log}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// Where to look for the reason.
        log: String,
    },
}

impl LabError {
    /// Wraps an error of the system.
    pub fn system(operation: &'static str, object: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let object = object.to_string();
        move |source| Self::System { operation, object, source }
    }

    /// Wraps an error of the engine.
    pub(super) fn engine(
        operation: &'static str,
        object: impl ToString,
    ) -> impl FnOnce(bollard::errors::Error) -> Self {
        let object = object.to_string();
        move |source| Self::Engine { operation, object, source }
    }

    /// Short fixed name.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::System { .. } => "system",
            Self::Program { .. } => "program",
            Self::Engine { .. } => "engine",
            Self::Busy { .. } => "busy",
            Self::Deadline { .. } => "deadline",
        }
    }
}

/// What the lab's calls give.
pub type Result<T> = std::result::Result<T, LabError>;

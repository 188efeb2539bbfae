//! What can go wrong with a domain: which operation, on which domain, why.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::DomainId;
use crate::spec::SpecError;
use crate::store::StoreError;
use crate::xl::{TableError, XlError};

/// What was to be done with a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Look whether there is a Xen host at all.
    Check,
    /// Make it, with its memory and its kernel.
    Create,
    /// Write what it is to find in the store.
    Configure,
    /// Hold it.
    Pause,
    /// Let it run.
    Unpause,
    /// Join its network interface to this side.
    Connect,
    /// Give it more or less memory or processors.
    Resize,
    /// Look at it.
    Observe,
    /// Ask it to end by itself.
    Shutdown,
    /// End it and take its memory back.
    Destroy,
}

impl Operation {
    /// Short fixed name for metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Create => "create",
            Self::Configure => "configure",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Connect => "connect",
            Self::Resize => "resize",
            Self::Observe => "observe",
            Self::Shutdown => "shutdown",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What went wrong. Operations on all domains name them as `*`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification is wrong; nothing has been tried.
    #[error("domain {domain}: wrong specification: {source}")]
    Spec {
        /// Which domain it should have been.
        domain: String,
        /// What is wrong.
        source: SpecError,
    },
    /// The kernel or the ramdisk cannot be read, or is empty.
    #[error("domain {domain}: {file}: {source}", file = file.display())]
    File {
        /// Which domain it should have been.
        domain: String,
        /// Which file.
        file: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// Another domain has the name.
    #[error("domain {domain}: the name is that of domain {by} already")]
    NameTaken {
        /// The name.
        domain: String,
        /// Which has it.
        by: DomainId,
    },
    /// The machine has not as much memory to give.
    #[error("domain {domain}: it wants {wanted_mib} MiB of memory, and {free_mib} MiB are free")]
    NoMemory {
        /// Which domain it should have been.
        domain: String,
        /// What it wants.
        wanted_mib: u32,
        /// What there is.
        free_mib: u32,
    },
    /// It is not there any more, or its number is another domain's now.
    #[error("cannot {operation} domain {domain}: it is gone")]
    Gone {
        /// What was to be done.
        operation: Operation,
        /// With which domain.
        domain: String,
    },
    /// What was waited for has not come.
    #[error("cannot {operation} domain {domain}: nothing has happened within {after:?}")]
    Deadline {
        /// What was to be done.
        operation: Operation,
        /// With which domain.
        domain: String,
        /// How long was waited.
        after: Duration,
    },
    /// `xl` could not do it.
    #[error("cannot {operation} domain {domain}: {source}")]
    Xl {
        /// What was to be done.
        operation: Operation,
        /// With which domain.
        domain: String,
        /// What was met.
        source: XlError,
    },
    /// `xl` has listed what cannot be read.
    #[error("cannot {operation} domains: {source}")]
    Table {
        /// What was to be done.
        operation: Operation,
        /// What cannot be read.
        source: TableError,
    },
    /// The store could not do it.
    #[error("cannot {operation} domain {domain}: {source}")]
    Store {
        /// What was to be done.
        operation: Operation,
        /// With which domain.
        domain: String,
        /// What was met.
        source: StoreError,
    },
    /// Its console cannot be read.
    #[error("cannot {operation} domain {domain}: its console: {source}")]
    Console {
        /// What was to be done.
        operation: Operation,
        /// With which domain.
        domain: String,
        /// What was met.
        source: io::Error,
    },
}

impl Error {
    /// Short fixed name for metrics, logs and documents.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Spec { .. } => "spec",
            Self::File { .. } => "file",
            Self::NameTaken { .. } => "name_taken",
            Self::NoMemory { .. } => "no_memory",
            Self::Gone { .. } => "gone",
            Self::Deadline { .. } => "deadline",
            Self::Xl { .. } => "xl",
            Self::Table { .. } => "table",
            Self::Store { .. } => "store",
            Self::Console { .. } => "console",
        }
    }

    /// Whether the caller asked for what can never be, so that trying again is in vain.
    #[must_use]
    pub const fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Spec { .. } | Self::File { .. })
    }

    /// Whether Xen itself is out of reach, whatever is asked.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Xl { source, .. } => matches!(source, XlError::Spawn { .. }),
            Self::Store { source, .. } => source.is_unavailable(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_says_what_with_which_and_why() {
        let source = XlError::Exit { status: 3, said: "libxl: something".into() };
        let refused = Error::Xl { operation: Operation::Create, domain: "web".into(), source };
        assert_eq!(refused.to_string(), "cannot create domain web: xl ended with status 3: libxl: something");
        assert!(refused.source().is_some() && !refused.is_callers_fault() && !refused.is_unavailable());

        let spec = Error::Spec { domain: "web".into(), source: SpecError::NoMemory };
        assert_eq!(spec.source().unwrap().to_string(), "memory_mib must be above 0");
        assert_eq!(spec.label(), "spec");
        assert!(spec.is_callers_fault());
    }
}

//! What can go wrong between us and XenStore, by kind.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::refusal::{Errno, Nonsense};
use super::wire::Request;

/// What is wrong with a path. The store would refuse it too, but some bytes would make it another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A byte that is in no path.
    #[error("it holds a character that is none of A-Z a-z 0-9 - / _ @")]
    Character,
    /// Empty, a part of it is empty, or it ends with a slash.
    #[error("a part of it is empty")]
    EmptyPart,
    /// Longer than the store takes.
    #[error("it has more than {max} bytes", max = super::MAX_PATH)]
    TooLong,
}

/// Why something could not be done with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The path is none; nothing was sent.
    #[error("{path:?} is no path: {source}")]
    Path {
        /// As it was given.
        path: String,
        /// What is wrong.
        source: PathError,
    },
    /// Path and value do not fit into a message; nothing was sent.
    #[error("cannot {} {path}: {bytes} bytes do not fit into a message", request.label())]
    TooLong {
        /// What was to be asked.
        request: Request,
        /// Of which entry.
        path: String,
        /// How many they are.
        bytes: usize,
    },
    /// The store's daemon is not there, or its socket is closed to us; nothing was sent.
    #[error("no XenStore at {socket}: {source}", socket = socket.display())]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// The connection ended before the answer: it may have been done or not.
    #[error("cannot {} {path}: the connection to XenStore was lost", request.label())]
    Lost {
        /// What was asked.
        request: Request,
        /// Of which entry.
        path: String,
    },
    /// No answer within the time.
    #[error("cannot {} {path}: XenStore does not answer within {after:?}", request.label())]
    Deadline {
        /// What was asked.
        request: Request,
        /// Of which entry.
        path: String,
        /// How long was waited.
        after: Duration,
    },
    /// The store refused.
    #[error("cannot {} {path}: {errno}", request.label())]
    Refused {
        /// What was asked.
        request: Request,
        /// Of which entry.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// The store's answer is none.
    #[error("cannot {} {path}: XenStore sent {source}", request.label())]
    Nonsense {
        /// What was asked.
        request: Request,
        /// Of which entry.
        path: String,
        /// What is wrong.
        source: Nonsense,
    },
    /// Others changed the same entries each time.
    #[error("{path}: {attempts} attempts met changes of others")]
    Contended {
        /// The entry, or the first one of a set of changes.
        path: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl StoreError {
    /// Short fixed name for metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Path { .. } => "path",
            Self::TooLong { .. } => "too_long",
            Self::Unreachable { .. } => "unreachable",
            Self::Lost { .. } => "lost",
            Self::Deadline { .. } => "deadline",
            Self::Refused { .. } => "refused",
            Self::Nonsense { .. } => "nonsense",
            Self::Contended { .. } => "contended",
        }
    }

    /// Whether the entry is not there.
    #[must_use]
    pub const fn is_no_entry(&self) -> bool {
        matches!(self, Self::Refused { errno: Errno::NoEntry, .. })
    }

    /// Whether the store itself is out of reach, whatever is asked.
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Lost { .. } | Self::Deadline { .. })
    }
}

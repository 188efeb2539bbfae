//! What can go wrong between us and XenStore, by kind.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::wire::Request;

/// Why the store refused. The protocol says it as an errno's name; it is made a kind here, once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Errno {
    /// `ENOENT`: there is no such entry, or none where it should be made.
    NoEntry,
    /// `EACCES`, `EPERM`: not allowed.
    Denied,
    /// `EINVAL`: what was asked has no meaning.
    Invalid,
    /// `EAGAIN`: what a transaction has read was changed by another before it was committed.
    Conflict,
    /// `EEXIST`: it is there already.
    Exists,
    /// `E2BIG`: the answer does not fit into a message.
    TooBig,
    /// `ENOSPC`: a quota is used up.
    Quota,
    /// `EBUSY`: too many transactions or requests at a time.
    Busy,
    /// `EIO`: entries do not fit each other. A transaction meets it where others have changed some of them meanwhile.
    Broken,
    /// Another one, by its name.
    Other(String),
}

impl Errno {
    /// By the name that the store says.
    pub(super) fn of(name: &[u8]) -> Result<Self, Nonsense> {
        Ok(match name {
            b"ENOENT" => Self::NoEntry,
            b"EACCES" | b"EPERM" => Self::Denied,
            b"EINVAL" => Self::Invalid,
            b"EAGAIN" => Self::Conflict,
            b"EEXIST" => Self::Exists,
            b"E2BIG" => Self::TooBig,
            b"ENOSPC" => Self::Quota,
            b"EBUSY" => Self::Busy,
            b"EIO" => Self::Broken,
            other if other.starts_with(b"E") && other.len() < 16 && other.is_ascii() => {
                Self::Other(String::from_utf8_lossy(other).into_owned())
            }
            _ => return Err(Nonsense::Error),
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEntry => "no such entry",
            Self::Denied => "not allowed",
            Self::Invalid => "not valid",
            Self::Conflict => "changed by another meanwhile",
            Self::Exists => "exists already",
            Self::TooBig => "too big for a message",
            Self::Quota => "a quota is used up",
            Self::Busy => "too many at a time",
            Self::Broken => "entries do not fit each other",
            Self::Other(name) => name,
        })
    }
}

/// In which way an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Longer than any message.
    #[error("a message of {0} bytes")]
    Length(usize),
    /// A string without its end, or that is no text.
    #[error("a string without an end")]
    String,
    /// A watch's event without path or token.
    #[error("an event without a token")]
    Event,
    /// An error without an errno's name.
    #[error("an error without a name")]
    Error,
    /// The answer to a request that was not sent, or was another.
    #[error("an answer to what was not asked")]
    Unasked,
    /// An answer that lacks what such an answer holds.
    #[error("an answer without its content")]
    Content,
}

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

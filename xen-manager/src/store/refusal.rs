//! What an answer says that gives nothing: the store's refusals, and what is no answer.

use std::fmt;

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

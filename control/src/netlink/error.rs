//! What can go wrong with links, addresses and routes.

use std::io;

/// Why the network could not be changed: operation, object, and the kernel's own reason.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel refused a request.
    #[error("{operation} {object}: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The kernel's errno.
        source: io::Error,
    },
    /// Something of that name exists and does not bear our mark; it was left as it is.
    #[error("{operation} {object}: exists and is not ours (its alias is {alias:?}, not {expected:?}); left untouched")]
    Foreign {
        /// What was tried.
        operation: &'static str,
        /// The interface.
        object: String,
        /// The alias that it has.
        alias: String,
        /// The alias that ours would have.
        expected: String,
    },
    /// What was asked for cannot be made; nothing was tried.
    #[error("{operation} {object}: {reason}")]
    Invalid {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Things of others are in the way of what was declared; nothing was changed.
    #[error("networks were left as they are: {by}")]
    Blocked {
        /// Each with its remedy.
        by: String,
    },
    /// The process is gone, or its namespace is not one that an interface may be moved into.
    #[error("{operation} of process {pid}: {source}")]
    Namespace {
        /// What was tried.
        operation: &'static str,
        /// The process.
        pid: u32,
        /// What was met.
        source: io::Error,
    },
    /// A kernel setting could not be read or written.
    #[error("{operation} {path}: {source}")]
    Setting {
        /// `read` or `write`.
        operation: &'static str,
        /// Path under `/proc/sys`.
        path: String,
        /// What was met.
        source: io::Error,
    },
}

impl NetError {
    /// Short fixed name: metric label and log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Foreign { .. } => "foreign",
            Self::Invalid { .. } => "invalid",
            Self::Blocked { .. } => "blocked",
            Self::Namespace { .. } => "namespace",
            Self::Setting { .. } => "setting",
        }
    }

    /// The errno behind it, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Namespace { source, .. } | Self::Setting { source, .. } => {
                source.raw_os_error()
            }
            Self::Foreign { .. } | Self::Invalid { .. } | Self::Blocked { .. } => None,
        }
    }
}

/// What this module's calls give.
pub type Result<T> = std::result::Result<T, NetError>;

/// The errno of a netlink answer; an answer without one becomes an error of kind `Other`.
pub(super) fn errno_of(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Wraps a failed request.
pub(super) fn refused(operation: &'static str, object: &str) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let object = object.to_owned();
    move |error| NetError::Refused { operation, object, source: errno_of(error) }
}

/// True where the kernel says that the link is not there.
pub(super) fn is_gone(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            matches!(-message.raw_code(), libc::ENODEV | libc::ENXIO | libc::ENOENT)
        }
        _ => false,
    }
}

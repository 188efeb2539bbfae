//! What can go wrong with a domain.

use std::fmt;
use std::io;

use crate::domain::DomainName;
use crate::spec::SpecError;

/// What was to be done with a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Make it, with its memory and its kernel, paused.
    Create,
    /// Let it run.
    Unpause,
    /// Give it a device.
    AttachDevice,
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
            Self::Create => "create",
            Self::Unpause => "unpause",
            Self::AttachDevice => "attach_device",
            Self::Observe => "observe",
            Self::Shutdown => "shutdown",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AttachDevice => "attach a device to",
            other => other.label(),
        })
    }
}

/// What went wrong: with which domain, at what, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification is wrong; nothing has been tried.
    #[error("domain {domain}: wrong specification")]
    Spec {
        /// Which domain it should have been.
        domain: DomainName,
        /// What is wrong.
        source: SpecError,
    },
    /// The hypervisor or XenStore refused. Both say why by an errno.
    #[error("cannot {operation} domain {domain}")]
    Refused {
        /// What was to be done.
        operation: Operation,
        /// With which domain.
        domain: DomainName,
        /// The errno.
        source: io::Error,
    },
}

impl Error {
    /// Short fixed name for metrics, logs and documents.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Spec { .. } => "spec",
            Self::Refused { operation, .. } => operation.label(),
        }
    }

    /// Which domain.
    #[must_use]
    pub const fn domain(&self) -> &DomainName {
        match self {
            Self::Spec { domain, .. } | Self::Refused { domain, .. } => domain,
        }
    }

    /// Whether the caller asked for what can never be, so that trying again is in vain.
    #[must_use]
    pub const fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Spec { .. })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_says_what_with_which_and_why() {
        let domain: DomainName = "web".parse().unwrap();
        let refused = Error::Refused {
            operation: Operation::AttachDevice,
            domain: domain.clone(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(refused.to_string(), "cannot attach a device to domain web");
        assert_eq!(refused.label(), "attach_device");
        assert!(refused.source().is_some() && !refused.is_callers_fault());

        let spec = Error::Spec { domain, source: SpecError::NoMemory };
        assert_eq!(spec.source().unwrap().to_string(), "memory_mib must be above 0");
        assert_eq!((spec.label(), spec.domain().as_str()), ("spec", "web"));
        assert!(spec.is_callers_fault());
    }
}

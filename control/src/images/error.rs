//! What can go wrong with images: operation, object and source, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::Digest;

/// Source of an error of whatever kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why something could not be done with an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// That is no image's name.
    #[error("{text:?} is no name of an image: {why}")]
    Reference {
        /// As it was written.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// That is no digest.
    #[error("{text:?} is no digest; write sha256: and 64 hex digits in lower case")]
    Digest {
        /// As it was written.
        text: String,
    },
    /// A file could not be read or written.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// No space is left.
    #[error("the file system of {path} is full; make room there, for example with selvedge image gc")]
    Full {
        /// What was to be written.
        path: PathBuf,
    },
    /// More than is allowed.
    #[error("{what} is larger than {most} bytes")]
    TooLarge {
        /// What is.
        what: String,
        /// The bound.
        most: u64,
    },
    /// The content is not what its name says.
    #[error("the content that was to be {expected} is {found}")]
    Mismatch {
        /// By its name.
        expected: Digest,
        /// By its content.
        found: Digest,
    },
    /// A manifest cannot be understood.
    #[error("{what}: not a manifest: {why}")]
    Manifest {
        /// Whose.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A manifest names a blob that is not there.
    #[error("{what} refers to {blob}, which is not in this repository")]
    MissingBlob {
        /// The manifest.
        what: String,
        /// The blob.
        blob: Digest,
    },
    /// There is no such thing.
    #[error("{what} is not there")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// It is an image, but no unikernel.
    #[error("{what} is no unikernel: {why}")]
    NotUnikernel {
        /// The image.
        what: String,
        /// What is missing.
        why: String,
    },
    /// Another transfer of the same content is under way.
    #[error("{path} is being written by another transfer; wait for it or end it")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A registry cannot be reached, or the connection broke.
    #[error("{registry}: {operation}: {source}")]
    Transfer {
        /// `host[:port]`.
        registry: String,
        /// What was tried.
        operation: String,
        /// What was met.
        source: BoxError,
    },
    /// A registry said no.
    #[error("{registry}: {operation}: HTTP status {status}{}", told(.message))]
    Refused {
        /// `host[:port]`.
        registry: String,
        /// What was tried.
        operation: String,
        /// Its answer.
        status: u16,
        /// What it said, for people.
        message: String,
    },
    /// Tried again and again without any progress.
    #[error("given up after {attempts} attempts without progress: {source}")]
    GivenUp {
        /// How often.
        attempts: u32,
        /// What was met last.
        source: Box<ImageError>,
    },
    /// A signature is required and none is good.
    #[error("{what} bears no signature that {key} verifies: {why}")]
    Unsigned {
        /// The image.
        what: String,
        /// The key's file.
        key: PathBuf,
        /// What was found.
        why: String,
    },
}

impl ImageError {
    /// Short fixed name: log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "reference",
            Self::Digest { .. } => "digest",
            Self::File { .. } => "file",
            Self::Full { .. } => "full",
            Self::TooLarge { .. } => "too_large",
            Self::Mismatch { .. } => "mismatch",
            Self::Manifest { .. } => "manifest",
            Self::MissingBlob { .. } => "missing_blob",
            Self::NotFound { .. } => "not_found",
            Self::NotUnikernel { .. } => "not_unikernel",
            Self::Busy { .. } => "busy",
            Self::Transfer { .. } => "transfer",
            Self::Refused { .. } => "refused",
            Self::GivenUp { .. } => "given_up",
            Self::Unsigned { .. } => "unsigned",
        }
    }

    /// Whether the same attempt may go well a moment later: a broken connection, a busy or failing registry.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Transfer { .. } | Self::Busy { .. } => true,
            Self::Refused { status, .. } => matches!(*status, 408 | 425 | 429 | 500..=504),
            _ => false,
        }
    }

    /// For use with `map_err`: what was tried on which file.
    pub(super) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::File { operation, path, source },
        }
    }
}

fn told(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

//! What keeps a run from beginning.

use super::options::OptionError;
use crate::dns::client::QuestionError;

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option is out of bounds.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] QuestionError),
    /// The path is none.
    #[error("path {path:?} must begin with / and hold no spaces")]
    Path {
        /// The path.
        path: String,
    },
}

impl LoadError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Option(error) => error.label(),
            Self::Name(error) => error.label(),
            Self::Path { .. } => "path",
        }
    }
}

//! Images by name: where their files come from. A name that begins with a slash is a file's path instead.

use std::fmt::Debug;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::driver::{BoxError, FetchProgress};

/// A unikernel's file, with what is known of it beside its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// The file.
    pub path: PathBuf,
    /// Label of the technology that it was built for; `None` where nobody has said.
    pub technology: Option<String>,
    /// Least memory in MiB that it runs with.
    pub memory_mib: u64,
    /// Its command line with placeholders, words parted by spaces, for one that is told its address in its own way.
    pub arguments: Option<String>,
}

impl ImageFile {
    /// A file of which nothing more is known.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, technology: None, memory_mib: 0, arguments: None }
    }
}

/// What has images by name: this node's repository, which can fetch from others.
pub trait ImageSource: Debug + Send + Sync {
    /// The image of that name; `None` where this node does not have it.
    ///
    /// # Errors
    /// That it cannot be used, and why.
    fn find(&self, image: &str) -> Result<Option<ImageFile>, BoxError>;

    /// Fetches it from the registry that its name begins with. May be dropped at any time; what came so far is of use
    /// to the next attempt.
    fn fetch<'a>(&'a self, image: &'a str, tell: FetchProgress<'a>) -> BoxFuture<'a, Result<(), BoxError>>;
}

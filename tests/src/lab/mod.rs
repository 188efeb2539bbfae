//! Real parts that start in a second: network namespaces, a container engine of its own, an image with a web server.
//!
//! Everything here is removed on drop. What a killed run leaves is in its [`record::Record`], from which
//! [`record::clean_up`] removes it.

pub mod cutter;
pub mod daemon;
pub mod docker;
mod error;
pub mod flask;
pub mod image;
mod lock;
pub mod machine;
pub mod netns;
pub mod node;
pub mod podman;
pub mod process;
pub mod record;
pub mod repository;
pub mod unikernel;
pub mod wire;
pub mod xen;

pub use cutter::Cutter;
pub use docker::Engine;
pub use error::{LabError, Result};
pub use lock::Lock;
pub use netns::Namespace;
pub use record::{Record, Thing};
pub use repository::{DebianRegistry, Repository};

/// True where the caller may make namespaces; else says on standard output that `test` is skipped, so that a run
/// without root never looks like a run in which it passed.
#[must_use]
pub fn is_root(test: &str) -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        println!("SKIPPED (needs root): {test}");
    }
    root
}

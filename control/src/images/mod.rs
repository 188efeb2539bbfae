//! The repository of images, for containers and unikernels alike.
//!
//! [`Store`] keeps them on disk as an OCI image layout; [`server`] serves it by the OCI distribution protocol, so that
//! engines and other nodes pull from it and push to it; [`client`] pulls and pushes between the store and a registry,
//! another node's or any other.

mod artifact;
pub mod client;
mod digest;
mod error;
mod gc;
mod ingest;
mod layout;
mod manifest;
mod reference;
pub mod server;
mod signature;

#[cfg(test)]
mod tests;

pub use artifact::{UNIKERNEL, Unikernel, UnikernelConfig};
pub use digest::Digest;
pub use error::ImageError;
pub use gc::{Sweep, Swept};
pub use ingest::Ingest;
pub use layout::{Entry, Store, StoredManifest};
pub use manifest::{Descriptor, Manifest};
pub use reference::{Reference, Repository, Target};
pub use signature::VerifyKey;

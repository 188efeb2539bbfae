//! Published tables as they are remembered, and the hold that keeps one of them in force.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Snapshot, Timestamp};

/// What is known of a remembered table without reading its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableHeader {
    /// The last generation under which this content was published.
    pub generation: u64,
    /// The first one; a restart publishes the same content again under a new generation.
    pub first_generation: u64,
    /// When the first one was published.
    pub at: Timestamp,
    /// Why.
    pub cause: String,
    /// Zones in it.
    pub zones: u64,
    /// Names that exist by a record, a service or as an apex.
    pub names: u64,
    /// Services in it.
    pub services: u64,
    /// Backends of all services.
    pub backends: u64,
}

impl TableHeader {
    /// The header of a snapshot that is published for the first time.
    #[must_use]
    pub fn of(snapshot: &Snapshot, at: Timestamp, cause: &str) -> Self {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Self {
            generation: snapshot.generation,
            first_generation: snapshot.generation,
            at,
            cause: cause.to_owned(),
            zones: count(snapshot.zones.len()),
            names: count(snapshot.names().len()),
            services: count(snapshot.services.len()),
            backends: count(snapshot.services.iter().map(|s| s.backends.len()).sum()),
        }
    }

    /// Whether this content was published under that generation.
    #[must_use]
    pub const fn covers(&self, generation: u64) -> bool {
        self.first_generation <= generation && generation <= self.generation
    }
}

/// An operator's order that a table stays in force, whatever the instances do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// The generation that was asked for; its content is published under a newer one.
    pub of: u64,
    /// Since when.
    pub since: Timestamp,
    /// Who ordered it.
    pub by: String,
}

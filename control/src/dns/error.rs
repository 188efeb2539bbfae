//! Why a snapshot cannot be answered from.

use super::render::RenderError;
use crate::model::DomainFault;

/// Why a snapshot cannot be answered from.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A name has no wire form.
    #[error("{what} {name:?} is not a domain name: it {source}")]
    Name {
        /// What it names.
        what: &'static str,
        /// The text.
        name: String,
        /// What is wrong with it.
        source: DomainFault,
    },
    /// Two zones with one apex.
    #[error("zone {apex} is there twice")]
    DuplicateZone {
        /// The apex.
        apex: String,
    },
    /// A zone without NS.
    #[error("zone {apex} names no name server")]
    NoNameserver {
        /// The apex.
        apex: String,
    },
    /// Two services with one name.
    #[error("service {service}: the name {name} belongs to another service already")]
    DuplicateName {
        /// The later service.
        service: String,
        /// The name.
        name: String,
    },
    /// A service's name that no zone contains.
    #[error("service {service}: the name {name} is in none of our zones")]
    OutsideZones {
        /// The service.
        service: String,
        /// The name.
        name: String,
    },
    /// A record that does not lie in the zone that has it.
    #[error("zone {apex}: the record's name {name} is outside it")]
    RecordOutside {
        /// The zone.
        apex: String,
        /// The name.
        name: String,
    },
    /// A record could not be encoded.
    #[error(transparent)]
    Render(#[from] RenderError),
}

impl IndexError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Name { source: DomainFault::Relative, .. } => "relative",
            Self::Name { .. } => "name",
            Self::DuplicateZone { .. } => "duplicate_zone",
            Self::NoNameserver { .. } => "no_nameserver",
            Self::DuplicateName { .. } => "duplicate_name",
            Self::OutsideZones { .. } => "outside_zones",
            Self::RecordOutside { .. } => "record_outside",
            Self::Render(error) => error.label(),
        }
    }
}

//! What can go wrong with the store.

use std::path::PathBuf;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("cannot open the store {path}: another process has it open; stop the other selvedged first")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged or no store.
    #[error(
        "cannot read the store {path} ({detail}); what the kernel answers goes on meanwhile; move the file away and put a \
         dump back (selvedge store restore), or start without: history is lost then and instances are replaced"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The copy of the owner id beside it is damaged.
    #[error(
        "cannot use the owner id in {path}: it {detail}; write the 12 hex digits that running instances are marked \
         with into it, or remove the file: it is made again from a sound store"
    )]
    OwnerCopy {
        /// The copy.
        path: PathBuf,
        /// What was found.
        detail: &'static str,
    },
    /// It was written by another version.
    #[error(
        "the store {path} has schema {found}, this version knows {known}; use the version that wrote it, or move the file away"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Schema number in it.
        found: u64,
        /// Schema number of this version.
        known: u64,
    },
    /// The file cannot be opened or made.
    #[error(
        "cannot open the store {path}: {source}; control.state_dir must be a directory that selvedged may write to"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A read or write failed; nothing of it took effect.
    #[error("cannot {operation} in the store {path}: {source}; look at the disk below it (full? read-only?)")]
    Access {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A record is not what this version writes.
    #[error(
        "cannot {operation}: the record {key:?} of the store {path} is unreadable: {source}; move the file away and start again"
    )]
    Record {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The record.
        key: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A store is there already.
    #[error("{path}: a store is there already; stop selvedged and move the file away first, nothing was changed")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is none.
    #[error("{path}: there is no store; is control.state_dir another one?")]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The dump is no dump, or of another installation or version.
    #[error("this dump cannot be put into {path}: {what}; nothing was changed")]
    Dump {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No number is left for another service.
    #[error("all {limit} service indexes were given out over time; move the store {path} away while no service runs")]
    IndexesUsedUp {
        /// Indexes that there are.
        limit: u32,
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Short fixed name: metric label and log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "store_locked",
            Self::Corrupt { .. } => "store_corrupt",
            Self::OwnerCopy { .. } => "store_owner_copy",
            Self::Schema { .. } => "store_schema",
            Self::Open { .. } => "store_open",
            Self::Access { .. } => "store_access",
            Self::Record { .. } => "store_record",
            Self::Exists { .. } => "store_exists",
            Self::Absent { .. } => "store_absent",
            Self::Dump { .. } => "store_dump",
            Self::IndexesUsedUp { .. } => "store_indexes_used_up",
        }
    }
}

//! `selvedge store` without the daemon: on the store's file itself.

use std::path::Path;

use super::StartError;
use crate::config;
use crate::model::Timestamp;
use crate::store::{Dump, Examination, FILE_NAME, Store, StoreError};

/// Why the command could not work on the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreCommandError {
    /// The configuration, which says where it is, is wrong.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The store itself.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The dump is no dump.
    #[error("this is no dump of a store: {0}")]
    Dump(#[from] serde_json::Error),
}

impl StoreCommandError {
    /// Exit code: 2 for a wrong configuration, else 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Start(error) => error.exit_code(),
            Self::Store(_) | Self::Dump(_) => 1,
        }
    }
}

/// The store of this configuration; one that is not there is not made.
fn existing(config: &Path) -> Result<Store, StoreCommandError> {
    let config = config::load(config).map_err(StartError::from)?;
    let path = config.control.state_dir.join(FILE_NAME);
    if !path.exists() {
        return Err(StoreError::Absent { path }.into());
    }
    Ok(Store::open(&path)?)
}

/// Everything in the store, as JSON.
///
/// # Errors
/// [`StoreCommandError`], also where the daemon has it open.
pub fn dump_store(config: &Path) -> Result<String, StoreCommandError> {
    Ok(serde_json::to_string(&existing(config)?.dump(Timestamp::now())?)?)
}

/// Reads all of the store.
///
/// # Errors
/// [`StoreCommandError`], also where the daemon has it open.
pub fn check_store(config: &Path) -> Result<Examination, StoreCommandError> {
    Ok(existing(config)?.examine()?)
}

/// Makes the store out of a dump, where none is.
///
/// # Errors
/// [`StoreCommandError`]; nothing was changed then.
pub fn restore_store(config: &Path, dump: &str) -> Result<Examination, StoreCommandError> {
    let config = config::load(config).map_err(StartError::from)?;
    let dump: Dump = serde_json::from_str(dump)?;
    Ok(Store::restore(&config.control.state_dir.join(FILE_NAME), &dump)?)
}

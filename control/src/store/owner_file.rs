//! The copy of the owner id beside the store.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{OWNER_FILE_NAME, StoreError};
use crate::model::OwnerId;

pub(super) struct OwnerFile(PathBuf);

impl OwnerFile {
    pub(super) fn beside(store: &Path) -> Self {
        Self(store.with_file_name(OWNER_FILE_NAME))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The id, where there is a copy.
    pub(super) fn read(&self) -> Result<Option<OwnerId>, StoreError> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(self.broken("is not a text")),
            Err(source) => return Err(self.failed(source)),
        };
        let id = text.trim_end();
        let hex = id.len() == OwnerId::MAX && id.bytes().all(|b| b.is_ascii_hexdigit());
        match OwnerId::new(id) {
            Ok(owner) if hex => Ok(Some(owner)),
            _ => Err(self.broken("does not hold 12 hex digits")),
        }
    }

    /// Replaces the copy whole: a reader finds the old one or the new one, also after a crash.
    pub(super) fn write(&self, owner: &OwnerId) -> Result<(), StoreError> {
        let new = self.0.with_extension("new");
        let write = || {
            let mut file = File::create(&new)?;
            writeln!(file, "{owner}")?;
            file.sync_all()?;
            fs::rename(&new, &self.0)?;
            // The name itself is the directory's content.
            File::open(self.0.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> StoreError {
        StoreError::Open { path: self.0.clone(), source }
    }

    fn broken(&self, detail: &'static str) -> StoreError {
        StoreError::OwnerCopy { path: self.0.clone(), detail }
    }
}

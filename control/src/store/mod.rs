//! What outlives the daemon: one file, written through redb.
//!
//! Methods are synchronous; an async caller wraps them in `block_in_place`. Each one is a single
//! transaction, and each that writes returns only when the file has been synced to the disk
//! (`Durability::Immediate`): after a crash the store holds every change whose call returned and none
//! of the others in part. The exceptions say so: they are synced with the next change that is, and until then a crash
//! may take them back, the newest first.

mod cookie_secret;
mod dump;
mod error;
mod health;
mod history;
mod orders;
mod owner_file;
mod records;
mod tables;

#[cfg(test)]
mod dump_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod tests;

use std::fs::DirBuilder;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::WriteTransaction;
use redb::{Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageError};
use tracing::{error, info};

pub use cookie_secret::{COOKIE_SECRET_FILE_NAME, SecretError, cookie_secret};
pub use dump::{Dump, Examination};
pub use error::StoreError;
pub use health::{Health, OnWrite, Write};
pub use tables::{MOST_SERVICE_INDEXES, MOST_TRANSITIONS};

use crate::model::{OwnerId, Timestamp};
use records::Generations;
use tables::{META, META_TEXT, OWNER, SCHEMA, SCHEMA_VERSION};

/// The file inside the state directory.
pub const FILE_NAME: &str = "selvedge.redb";
/// A copy of the owner id beside the store, so that a lost or damaged store does not make strangers of
/// everything that bears our mark.
pub const OWNER_FILE_NAME: &str = "owner";
/// The store is small; the default cache of 1 GiB is out of proportion on an edge node.
const CACHE_BYTES: usize = 8 << 20;
/// How long the lock of a daemon that was killed may outlive it: whatever it was just starting has it until it has become
/// its own program.
const LET_GO: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Room on the disk that makes it worth to go on after a failure.
const ROOM: usize = 128 << 10;

/// The open store. Only one process has it at a time.
pub struct Store {
    /// `None` where it could not be opened again after a failure.
    db: RwLock<Option<Database>>,
    /// A write has failed on the disk: the database takes no other until it is opened again.
    broken: AtomicBool,
    on_write: OnWrite,
    path: PathBuf,
    owner: OwnerId,
    generations: Mutex<Generations>,
    /// As of a disk that is full.
    #[cfg(test)]
    full: AtomicBool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `path`, or makes it, with the owner id that a lost store has left beside it or
    /// with a new one.
    ///
    /// The whole file is verified, so that a damaged one is told here and not met later.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Corrupt`], [`StoreError::Schema`] or [`StoreError::Open`],
    /// each with what to do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_watched(path, Box::new(|_| {}))
    }

    /// The same, with an eye on every write.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_watched(path: &Path, on_write: OnWrite) -> Result<Self, StoreError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let made = DirBuilder::new().recursive(true).mode(0o750).create(dir);
        made.map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
        let copy = owner_file::OwnerFile::beside(path);
        let left = copy.read()?;
        // The copy is written after the store: where it is, an empty file is a store that was emptied.
        if left.is_some() && std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
            return Err(StoreError::Corrupt { path: path.to_owned(), detail: "it is empty".to_owned() });
        }
        let db = open_unlocked(path)?;
        let made = match &left {
            Some(owner) => owner.clone(),
            None => {
                OwnerId::from_number(random().map_err(|source| StoreError::Open { path: path.to_owned(), source })?)
            }
        };
        let mut store = Self {
            db: RwLock::new(Some(db)),
            broken: AtomicBool::new(false),
            on_write,
            path: path.to_owned(),
            owner: made,
            generations: Mutex::default(),
            #[cfg(test)]
            full: AtomicBool::new(false),
        };
        store.owner = store.prepare()?;
        let last = store.generation()?;
        store.generations = Mutex::new(Generations { last, set_aside: last });
        if left.as_ref() != Some(&store.owner) {
            copy.write(&store.owner)?;
        }
        Ok(store)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// This installation's mark of ownership; the same as long as the store or the copy beside it is.
    #[must_use]
    pub const fn owner_id(&self) -> &OwnerId {
        &self.owner
    }

    /// Checks the schema, makes missing tables and settles the owner id.
    fn prepare(&self) -> Result<OwnerId, StoreError> {
        const OPERATION: &str = "prepare the tables";
        let found = self.write(OPERATION, |txn| {
            let mut meta = txn.open_table(META)?;
            let found = meta.get(SCHEMA)?.map(|v| v.value());
            if found.is_none() {
                meta.insert(SCHEMA, SCHEMA_VERSION)?;
            }
            Ok(found.unwrap_or(SCHEMA_VERSION))
        })?;
        if !(1..=SCHEMA_VERSION).contains(&found) {
            return Err(StoreError::Schema { path: self.path.clone(), found, known: SCHEMA_VERSION });
        }
        let owner = self.write(OPERATION, |txn| {
            tables::create_all(txn)?;
            let mut meta = txn.open_table(META_TEXT)?;
            let known = meta.get(OWNER)?.map(|v| v.value().to_owned());
            if known.is_none() {
                meta.insert(OWNER, self.owner.as_str())?;
            }
            Ok(known)
        })?;
        if found < SCHEMA_VERSION {
            self.take_over_snapshot(Timestamp::now())?;
            // Last, so that what was interrupted is done again.
            self.write(OPERATION, |txn| Ok(txn.open_table(META)?.insert(SCHEMA, SCHEMA_VERSION)?.map(drop)))?;
        }
        match owner {
            None => Ok(self.owner.clone()),
            Some(text) => OwnerId::new(text).map_err(|e| self.unreadable(OPERATION, OWNER, e)),
        }
    }

    /// Runs `change` in one transaction, which is synced when this returns.
    fn write<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.commit(operation, Durability::Immediate, change)
    }

    /// Runs `change` in one transaction, which is synced with the next one that is.
    fn write_lazily<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.commit(operation, Durability::None, change)
    }

    fn commit<T>(
        &self,
        operation: &'static str,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || {
            #[cfg(test)]
            self.room()?;
            let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
            let mut txn = db.as_ref().ok_or(redb::Error::PreviousIo)?.begin_write()?;
            txn.set_durability(durability)?;
            let result = change(&txn)?;
            txn.commit()?;
            Ok(result)
        };
        (self.on_write)(Write::Begins(operation));
        if self.broken.load(Ordering::Acquire) {
            self.mend();
        }
        let outcome = run().inspect_err(|error| {
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                self.broken.store(true, Ordering::Release);
            }
        });
        let outcome = outcome.map_err(|e: redb::Error| self.failed(operation, e));
        match &outcome {
            Ok(_) => (self.on_write)(Write::Done(operation)),
            Err(error) => (self.on_write)(Write::Failed(error)),
        }
        outcome
    }

    /// Opens the database again, once the disk has room. Until then the old one goes on answering from what it has
    /// read.
    fn mend(&self) {
        if has_room(&self.path).is_err() {
            return;
        }
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // It holds the file's lock.
        *db = None;
        match open_database(&self.path) {
            Ok(opened) => {
                info!(path = %self.path.display(), "the store is opened again");
                *db = Some(opened);
                self.broken.store(false, Ordering::Release);
            }
            Err(error) => error!(%error, "the store cannot be opened again yet"),
        }
    }

    fn read<T>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || {
            let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
            look(&db.as_ref().ok_or(redb::Error::PreviousIo)?.begin_read()?)
        };
        run().map_err(|e: redb::Error| self.failed(operation, e))
    }

    /// From now on every write fails, or none.
    #[cfg(test)]
    pub(crate) fn fill_disk(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    #[cfg(test)]
    fn room(&self) -> Result<(), redb::Error> {
        let full = self.full.load(Ordering::Relaxed);
        if full { Err(redb::Error::Io(ErrorKind::StorageFull.into())) } else { Ok(()) }
    }

    fn failed(&self, operation: &'static str, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Corrupted(detail) => StoreError::Corrupt { path: self.path.clone(), detail },
            other => StoreError::Access { operation, path: self.path.clone(), source: Box::new(other) },
        }
    }

    fn unreadable(
        &self,
        operation: &'static str,
        key: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        let (path, key) = (self.path.clone(), key.to_owned());
        StoreError::Record { operation, path, key, source: source.into() }
    }
}

/// Opens it once nobody else has it open, within [`LET_GO`].
fn open_unlocked(path: &Path) -> Result<Database, StoreError> {
    let begun = Instant::now();
    loop {
        match open_database(path) {
            // Nobody tells when a lock is free that is only tried for.
            Err(StoreError::Locked { .. }) if begun.elapsed() < LET_GO => std::thread::sleep(LOCK_POLL),
            done => return done,
        }
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder.create(path).map_err(|error| {
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::Locked { path },
            // How redb tells that the file is not, or no longer, one of its own.
            DatabaseError::Storage(StorageError::Io(e))
                if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                StoreError::Corrupt { path, detail: e.to_string() }
            }
            DatabaseError::Storage(StorageError::Io(source)) => StoreError::Open { path, source },
            other => StoreError::Corrupt { path, detail: other.to_string() },
        }
    })
}

/// Whether as much as a few changes take can be written beside the store.
fn has_room(path: &Path) -> std::io::Result<()> {
    let trial = path.with_extension("trial");
    let mut file = std::fs::File::create(&trial)?;
    let written = file.write_all(&[1; ROOM]).and_then(|()| file.sync_all());
    std::fs::remove_file(&trial)?;
    written
}

/// Sixty-four bits from the kernel's generator.
fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

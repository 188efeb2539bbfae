//! A blob that is being written: hashed as it grows, taken up again after an interruption, in its place only when whole.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::digest::Hasher;
use super::{Digest, ImageError};

/// Read at a time where a part that is there already is hashed again.
const CHUNK: usize = 256 << 10;

/// A growing file below `ingest`, which nobody else writes as long as this lives. Dropped, it stays for a later
/// [`Ingest::resume`]; garbage collection takes it when it is old.
pub struct Ingest {
    path: PathBuf,
    file: Flock<File>,
    hasher: Hasher,
    length: u64,
}

impl Ingest {
    /// A new one, empty.
    pub(super) fn create(path: &Path) -> Result<Self, ImageError> {
        let file = File::options().create_new(true).read(true).write(true).open(path);
        let file = lock(file.map_err(ImageError::file("create", path))?, path)?;
        Ok(Self { path: path.to_owned(), file, hasher: Hasher::default(), length: 0 })
    }

    /// The one that an earlier attempt left, with all that it had got; `None` where there is none.
    pub(super) fn resume(path: &Path) -> Result<Option<Self>, ImageError> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => lock(file, path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ImageError::file("open", path)(error)),
        };
        // It may have become a blob between opening and locking, and a blob is not to be written.
        let same = match (fs::metadata(path), file.metadata()) {
            (Ok(named), Ok(open)) => named.ino() == open.ino(),
            _ => false,
        };
        if !same {
            return Ok(None);
        }
        let mut ingest = Self { path: path.to_owned(), file, hasher: Hasher::default(), length: 0 };
        let mut buffer = vec![0; CHUNK];
        loop {
            match ingest.file.read(&mut buffer).map_err(ImageError::file("read", path))? {
                0 => break,
                read => {
                    ingest.hasher.update(&buffer[..read]);
                    ingest.length += read as u64;
                }
            }
        }
        Ok(Some(ingest))
    }

    /// Bytes so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Appends.
    ///
    /// # Errors
    /// [`ImageError::Full`] or [`ImageError::File`]; nothing of the blob is left then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if let Err(error) = self.file.write_all(bytes) {
            let error = ImageError::file("write", &self.path)(error);
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets all that was written.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn restart(&mut self) -> Result<(), ImageError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(ImageError::file("empty", &self.path))?;
        (self.hasher, self.length) = (Hasher::default(), 0);
        Ok(())
    }

    /// Puts it into its place, where it is seen whole or not at all, also after a crash. Gives its size.
    pub(super) fn commit(self, expected: &Digest, place: &Path) -> Result<u64, ImageError> {
        let found = self.hasher.finish();
        if found != *expected {
            let _ = fs::remove_file(&self.path);
            return Err(ImageError::Mismatch { expected: expected.clone(), found });
        }
        let settle = || {
            // The moment of its coming counts for garbage collection, not that of its last byte.
            self.file.set_modified(SystemTime::now())?;
            self.file.set_permissions(fs::Permissions::from_mode(0o444))?;
            self.file.sync_all()?;
            fs::rename(&self.path, place)?;
            // The name itself is the directory's content.
            File::open(place.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        if let Err(error) = settle() {
            let _ = fs::remove_file(&self.path);
            return Err(ImageError::file("put in place", place)(error));
        }
        Ok(self.length)
    }

    /// Removes it.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn lock(file: File, path: &Path) -> Result<Flock<File>, ImageError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => ImageError::Busy { path: path.to_owned() },
        errno => ImageError::file("lock", path)(errno.into()),
    })
}

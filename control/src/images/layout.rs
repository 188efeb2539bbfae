//! The store on disk: an OCI image layout with every repository of this node in it.
//!
//! Blobs are shared by all repositories, so equal content is there once. `index.json` holds one entry per tag, and
//! per manifest that was pushed by its digest. Every change of it is one rename under a lock, so that the daemon and
//! the command may work on the same directory at once.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};

use super::ingest::Ingest;
use super::manifest::{Descriptor, LARGEST_MANIFEST, Manifest, OCI_INDEX};
use super::reference::{Reference, Repository, Target};
use super::{Digest, ImageError};

/// Annotation with the name of an entry (the specification's own).
const NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the digest that an entry says something about.
const SUBJECT: &str = "dev.selvedge.subject";
/// The file that makes a directory a layout.
const MARKER: (&str, &str) = ("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");

/// The store below one directory. Calls wait for the disk.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// One image as the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without a registry.
    pub name: Reference,
    /// Its manifest.
    pub manifest: Descriptor,
    /// What it says something about.
    pub subject: Option<Digest>,
}

/// A manifest with its bytes, which are what its digest is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Kind, digest and size.
    pub descriptor: Descriptor,
    /// The bytes as they were pushed.
    pub bytes: Vec<u8>,
    /// What they say.
    pub manifest: Manifest,
}

impl Store {
    /// The store below `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let store = Self { dir: dir.to_owned() };
        for part in [store.blobs(), dir.join("ingest")] {
            fs::create_dir_all(&part).map_err(ImageError::file("create directory", &part))?;
        }
        if !dir.join(MARKER.0).exists() {
            replace(&dir.join(MARKER.0), MARKER.1.as_bytes())?;
        }
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    /// Where a blob is, if it is there.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// A blob and its size.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::File`].
    pub fn blob(&self, digest: &Digest) -> Result<(File, u64), ImageError> {
        let path = self.blob_path(digest);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::NotFound { what: digest.to_string() },
            _ => ImageError::file("open", &path)(error),
        })?;
        let size = file.metadata().map_err(ImageError::file("look at", &path))?.len();
        Ok((file, size))
    }

    /// The size of a blob that somebody is about to rely on, `None` where it is not there. From now on it counts as
    /// new, so that garbage collection leaves it for whoever refers to it next.
    ///
    /// # Errors
    /// [`ImageError::File`].
    pub fn claim(&self, digest: &Digest) -> Result<Option<u64>, ImageError> {
        match self.blob(digest) {
            Ok((file, size)) => {
                let path = self.blob_path(digest);
                file.set_modified(SystemTime::now()).map_err(ImageError::file("set the time of", &path))?;
                Ok(Some(size))
            }
            Err(ImageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn ingest_path(&self, name: &str) -> PathBuf {
        self.dir.join("ingest").join(name)
    }

    /// Begins to write a blob under a name that nobody has used.
    ///
    /// # Errors
    /// [`ImageError::File`], [`ImageError::Full`].
    pub fn ingest(&self, name: &str) -> Result<Ingest, ImageError> {
        Ingest::create(&self.ingest_path(name))
    }

    /// Goes on with a blob that was begun under this name; `None` where there is none.
    ///
    /// # Errors
    /// [`ImageError::Busy`], [`ImageError::File`].
    pub fn resume(&self, name: &str) -> Result<Option<Ingest>, ImageError> {
        Ingest::resume(&self.ingest_path(name))
    }

    /// Ends writing a blob; it is in the store then. Gives its size.
    ///
    /// # Errors
    /// [`ImageError::Mismatch`] where the content is another, [`ImageError::File`]; nothing of it is left then.
    pub fn commit(&self, ingest: Ingest, digest: &Digest) -> Result<u64, ImageError> {
        ingest.commit(digest, &self.blob_path(digest))
    }

    /// Writes a small blob in one go.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        if self.claim(&digest)?.is_none() {
            let mut ingest = self.ingest(&format!("put-{}", unique()?))?;
            ingest.write(bytes)?;
            self.commit(ingest, &digest)?;
        }
        Ok(digest)
    }

    /// The manifest of an image.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Manifest`], [`ImageError::File`].
    pub fn manifest(&self, repository: &Repository, target: &Target) -> Result<StoredManifest, ImageError> {
        let name = Reference { registry: None, repository: repository.clone(), target: target.clone() };
        let digest = match target {
            Target::Digest(digest) => digest.clone(),
            Target::Tag(_) => {
                let entry = self.entries()?.into_iter().find(|entry| entry.name == name);
                entry.ok_or_else(|| ImageError::NotFound { what: name.to_string() })?.manifest.digest
            }
        };
        self.read_manifest(&digest, &name.to_string())
    }

    pub(super) fn read_manifest(&self, digest: &Digest, what: &str) -> Result<StoredManifest, ImageError> {
        let (file, _) = self.blob(digest).map_err(|error| match error {
            ImageError::NotFound { .. } => ImageError::NotFound { what: what.to_owned() },
            error => error,
        })?;
        let mut bytes = Vec::new();
        let read = file.take(LARGEST_MANIFEST + 1).read_to_end(&mut bytes);
        read.map_err(ImageError::file("read", &self.blob_path(digest)))?;
        let manifest = Manifest::read(&bytes, what)?;
        let descriptor = Descriptor {
            artifact_type: manifest.artifact_type.clone(),
            ..Descriptor::new(manifest.kind(), digest.clone(), bytes.len() as u64)
        };
        Ok(StoredManifest { descriptor, bytes, manifest })
    }

    /// Takes an image in under its name, when all that it refers to is there. A tag moves from what bore it.
    ///
    /// # Errors
    /// [`ImageError::MissingBlob`], [`ImageError::Mismatch`] where it was to have another digest, [`ImageError::Manifest`],
    /// [`ImageError::File`]; nothing is changed then.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        bytes: &[u8],
    ) -> Result<StoredManifest, ImageError> {
        let name = Reference { registry: None, repository: repository.clone(), target: target.clone() };
        let manifest = Manifest::read(bytes, &name.to_string())?;
        if let Target::Digest(expected) = target {
            let found = Digest::of(bytes);
            if found != *expected {
                return Err(ImageError::Mismatch { expected: expected.clone(), found });
            }
        }
        let _locked = self.lock()?;
        for part in manifest.blobs().chain(&manifest.manifests) {
            if !self.blob_path(&part.digest).exists() {
                return Err(ImageError::MissingBlob { what: name.to_string(), blob: part.digest.clone() });
            }
        }
        let digest = self.put_blob(bytes)?;
        let descriptor = Descriptor {
            artifact_type: manifest.artifact_type.clone(),
            ..Descriptor::new(manifest.kind(), digest, bytes.len() as u64)
        };
        let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone());
        let mut entries = self.entries()?;
        entries.retain(|entry| entry.name != name);
        entries.push(Entry { name, manifest: descriptor.clone(), subject });
        self.write_index(&entries)?;
        Ok(StoredManifest { descriptor, bytes: bytes.to_vec(), manifest })
    }

    /// All images, by name.
    ///
    /// # Errors
    /// [`ImageError::File`], [`ImageError::Manifest`] where the index is broken.
    pub fn entries(&self) -> Result<Vec<Entry>, ImageError> {
        let path = self.dir.join("index.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::file("read", &path)(error)),
        };
        let wrong = |why: String| ImageError::Manifest { what: path.display().to_string(), why };
        let index: Manifest = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let mut entries = Vec::with_capacity(index.manifests.len());
        for mut manifest in index.manifests {
            // What others put here without a name is none of our images.
            let Some(name) = manifest.annotations.remove(NAME) else { continue };
            let subject = manifest.annotations.remove(SUBJECT).map(|d| Digest::parse(&d)).transpose()?;
            entries.push(Entry { name: name.parse()?, manifest, subject });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The tags of a repository, in order; `None` where there is no such repository.
    ///
    /// # Errors
    /// As [`Store::entries`].
    pub fn tags(&self, repository: &Repository) -> Result<Option<Vec<String>>, ImageError> {
        let entries = self.entries()?;
        let mut of_it = entries.into_iter().filter(|entry| entry.name.repository == *repository).peekable();
        if of_it.peek().is_none() {
            return Ok(None);
        }
        let tags = of_it.filter_map(|entry| match entry.name.target {
            Target::Tag(tag) => Some(tag),
            Target::Digest(_) => None,
        });
        Ok(Some(tags.collect()))
    }

    /// What says something about a manifest (signatures and the like), for the protocol's list of referrers.
    ///
    /// # Errors
    /// As [`Store::entries`].
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, ImageError> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for entry in self.entries()? {
            let about = entry.name.repository == *repository && entry.subject.as_ref() == Some(subject);
            if about && seen.insert(entry.manifest.digest.clone()) {
                let stored = self.read_manifest(&entry.manifest.digest, &entry.name.to_string())?;
                let artifact_type = stored.manifest.artifact().map(str::to_owned);
                let annotations = stored.manifest.annotations;
                found.push(Descriptor { artifact_type, annotations, ..entry.manifest });
            }
        }
        Ok(found)
    }

    /// Bytes of an image with all that it refers to, each content once.
    ///
    /// # Errors
    /// As [`Store::manifest`].
    pub fn size(&self, entry: &Entry) -> Result<u64, ImageError> {
        let mut seen = BTreeSet::new();
        let mut sum = 0;
        let mut next = vec![entry.manifest.digest.clone()];
        while let Some(digest) = next.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            let stored = self.read_manifest(&digest, &entry.name.to_string())?;
            sum += stored.descriptor.size;
            for blob in stored.manifest.blobs().filter(|blob| seen.insert(blob.digest.clone())) {
                sum += blob.size;
            }
            next.extend(stored.manifest.manifests.into_iter().map(|part| part.digest));
        }
        Ok(sum)
    }

    /// Nobody else changes the index or collects garbage as long as the guard lives.
    pub(super) fn lock(&self) -> Result<Flock<File>, ImageError> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(ImageError::file("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| ImageError::file("lock", &path)(errno.into()))
    }

    pub(super) fn write_index(&self, entries: &[Entry]) -> Result<(), ImageError> {
        let path = self.dir.join("index.json");
        let manifests = entries.iter().map(|entry| {
            let mut manifest = entry.manifest.clone();
            manifest.annotations.insert(NAME.to_owned(), entry.name.to_string());
            manifest.annotations.extend(entry.subject.iter().map(|d| (SUBJECT.to_owned(), d.to_string())));
            manifest
        });
        let index = Manifest {
            schema_version: 2,
            media_type: Some(OCI_INDEX.to_owned()),
            artifact_type: None,
            config: None,
            layers: Vec::new(),
            manifests: manifests.collect(),
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let wrong =
            |why: serde_json::Error| ImageError::Manifest { what: path.display().to_string(), why: why.to_string() };
        let mut text = serde_json::to_vec(&index).map_err(wrong)?;
        text.push(b'\n');
        replace(&path, &text)
    }
}

/// A name that nobody has used.
pub(super) fn unique() -> Result<String, ImageError> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0u8; 16];
    let path = Path::new("/dev/urandom");
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| ImageError::file("read", path)(io::Error::other("no random bytes")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Replaces a file whole: a reader finds the old one or the new one, also after a crash.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&new);
        ImageError::file("write", path)(error)
    })
}

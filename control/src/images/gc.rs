//! Garbage collection: what goes, and what never does.
//!
//! Kept are tagged images, images that a service of this node refers to by digest, what says something about a kept
//! image (signatures), and all blobs that any of these refers to. Blobs younger than the grace stay as well: whoever
//! pushes an image sends its blobs first and its manifest last, and asks for blobs that are there already; both make
//! them young. Under the store's lock no manifest can come in that refers to a blob which is just being removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::ingest::Ingest;
use super::layout::{Entry, Store};
use super::reference::{Reference, Target};
use super::{Digest, ImageError};

/// What to collect.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Images that the services of this node refer to, with or without a registry: never taken.
    pub needed: Vec<Reference>,
    /// Take tagged images as well that nobody in `needed` refers to.
    pub unused: bool,
    /// How young what nobody refers to may be and stays.
    pub grace: Duration,
    /// Only say what would be taken.
    pub dry_run: bool,
}

/// What was, or would be, taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Names of images.
    pub images: Vec<String>,
    /// Blobs, manifests included.
    pub blobs: u64,
    /// Abandoned uploads.
    pub uploads: u64,
    /// Their bytes, uploads included.
    pub bytes: u64,
    /// Bytes of the blobs that stay.
    pub kept_bytes: u64,
}

impl Store {
    /// Collects garbage.
    ///
    /// # Errors
    /// [`ImageError::File`], [`ImageError::Manifest`]: what cannot be read is not guessed at, nothing is taken then.
    pub fn collect(&self, sweep: &Sweep) -> Result<Swept, ImageError> {
        let _locked = self.lock()?;
        let entries = self.entries()?;
        let young = |path: &Path| is_young(path, sweep.grace);
        let kept = self.kept(&entries, sweep, &|digest| young(&self.blob_path(digest)));
        let mut marked = BTreeSet::new();
        for entry in entries.iter().filter(|entry| kept.contains(&entry.name)) {
            self.mark(&entry.manifest.digest, &mut marked)?;
        }
        for reference in &sweep.needed {
            // One platform's manifest of an index has no entry of its own.
            if let Target::Digest(digest) = &reference.target
                && self.blob_path(digest).exists()
            {
                self.mark(digest, &mut marked)?;
            }
        }
        let mut swept = Swept::default();
        let (stay, go): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| kept.contains(&entry.name));
        swept.images = go.iter().map(|entry| entry.name.to_string()).collect();
        // First nobody finds them any more, then they go: a crash between leaves garbage, no holes.
        if !go.is_empty() && !sweep.dry_run {
            self.write_index(&stay)?;
        }
        for (path, size) in files(&self.blobs())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let digest = Digest::parse(&format!("sha256:{name}"));
            if digest.is_ok_and(|digest| marked.contains(&digest)) || young(&path) {
                swept.kept_bytes += size;
                continue;
            }
            remove(&path, sweep.dry_run)?;
            swept.blobs += 1;
            swept.bytes += size;
        }
        for (path, size) in files(&self.ingest_path(""))? {
            // One that is written at this moment is locked, however long ago its last byte came.
            if !young(&path) && matches!(Ingest::resume(&path), Ok(Some(_))) {
                remove(&path, sweep.dry_run)?;
                swept.uploads += 1;
                swept.bytes += size;
            }
        }
        Ok(swept)
    }

    /// Names of the images that stay.
    fn kept(&self, entries: &[Entry], sweep: &Sweep, young: &dyn Fn(&Digest) -> bool) -> BTreeSet<Reference> {
        let needed: BTreeSet<Reference> = sweep.needed.iter().map(Reference::local).collect();
        let by_itself = |entry: &&Entry| {
            let wanted = needed.contains(&entry.name)
                || needed.iter().any(|n| n.target == Target::Digest(entry.manifest.digest.clone()));
            let tagged = matches!(entry.name.target, Target::Tag(_)) && !sweep.unused;
            about(entry).is_none() && (wanted || tagged || young(&entry.manifest.digest))
        };
        let mut kept: BTreeSet<Reference> = entries.iter().filter(by_itself).map(|e| e.name.clone()).collect();
        let mut digests: BTreeSet<Digest> =
            entries.iter().filter(|e| kept.contains(&e.name)).map(|e| e.manifest.digest.clone()).collect();
        digests.extend(needed.iter().filter_map(|n| match &n.target {
            Target::Digest(digest) => Some(digest.clone()),
            Target::Tag(_) => None,
        }));
        // What is about a kept one stays, and so does what is about that.
        loop {
            let more = entries.iter().find(|entry| {
                !kept.contains(&entry.name)
                    && about(entry).is_some_and(|d| digests.contains(&d) || young(&entry.manifest.digest))
            });
            let Some(more) = more else { return kept };
            kept.insert(more.name.clone());
            digests.insert(more.manifest.digest.clone());
        }
    }

    /// A manifest and all that it refers to.
    fn mark(&self, digest: &Digest, marked: &mut BTreeSet<Digest>) -> Result<(), ImageError> {
        let mut next = vec![digest.clone()];
        while let Some(digest) = next.pop() {
            if !marked.insert(digest.clone()) {
                continue;
            }
            let manifest = self.read_manifest(&digest, digest.as_str())?.manifest;
            marked.extend(manifest.blobs().map(|blob| blob.digest.clone()));
            next.extend(manifest.manifests.into_iter().map(|part| part.digest));
        }
        Ok(())
    }
}

/// The digest that an image is about: its subject, or what a signature's tag names (`sha256-<hex>.sig`, cosign's way).
fn about(entry: &Entry) -> Option<Digest> {
    let Target::Tag(tag) = &entry.name.target else { return entry.subject.clone() };
    let by_tag = tag.strip_prefix("sha256-").and_then(|rest| rest.split('.').next());
    let by_tag = by_tag.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
    entry.subject.clone().or(by_tag)
}

/// What cannot be looked at counts as young: it is not taken.
fn is_young(path: &Path, grace: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    // A time in the future is young, too.
    modified.map_or(true, |at| SystemTime::now().duration_since(at).map_or(true, |age| age < grace))
}

/// Files of a directory with their sizes.
fn files(dir: &Path) -> Result<Vec<(std::path::PathBuf, u64)>, ImageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(ImageError::file("list", dir))? {
        let entry = entry.map_err(ImageError::file("list", dir))?;
        // One that went away in between is gone anyway.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            found.push((entry.path(), metadata.len()));
        }
    }
    Ok(found)
}

fn remove(path: &Path, dry_run: bool) -> Result<(), ImageError> {
    if dry_run { Ok(()) } else { fs::remove_file(path).map_err(ImageError::file("remove", path)) }
}

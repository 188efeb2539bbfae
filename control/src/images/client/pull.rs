//! From a registry into the store: manifests first, blobs beside each other, the name last.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::header::CONTENT_RANGE;
use tokio::time::timeout;

use super::remote::{PATIENCE, Remote};
use super::{Client, Meter, Patience, Transferred, on_disk};
use crate::images::ingest::Ingest;
use crate::images::layout::Store;
use crate::images::manifest::{Descriptor, Manifest};
use crate::images::signature::{self, VerifyKey};
use crate::images::{Digest, ImageError, Reference, Repository, Target, Unikernel};

/// Written to the disk at a time.
const CHUNK: usize = 1 << 20;
/// Deepest that indexes may lie in each other, and most manifests of one image.
const MOST_MANIFESTS: usize = 256;

impl Client {
    /// Pulls an image whole, for all its platforms, under the name that it has there, without the registry. Where a key
    /// is set, the image's signatures come first, and without a good one nothing of the image comes.
    ///
    /// # Errors
    /// [`ImageError`]; what was got so far stays for the next attempt, and the image is not in the store.
    pub async fn pull(&self, name: &Reference, meter: &Meter) -> Result<Transferred, ImageError> {
        let remote = self.remote(name)?;
        let root = manifest(&remote, &name.repository, &name.target, meter).await?;
        let digest = Digest::of(&root);
        if let Some(file) = &self.settings.verify_key {
            self.verify(&remote, name, &digest, VerifyKey::read(file)?, meter).await?;
        }
        self.take(&remote, name, root, None, meter).await?;
        Ok(Transferred { image: name.local().to_string(), digest, progress: meter.progress() })
    }

    /// The unikernel of that name: the store's, and only where it has none, pulled from the registry of the name. So a
    /// node that has it needs no registry.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn unikernel(&self, name: &Reference, meter: &Meter) -> Result<Unikernel, ImageError> {
        let find = || {
            let (store, local) = (Arc::clone(&self.store), name.local());
            on_disk(move || store.unikernel(&local))
        };
        match find().await {
            Err(ImageError::NotFound { .. }) if name.registry.is_some() => {
                self.pull(name, meter).await?;
                find().await
            }
            found => found,
        }
    }

    /// Gets the signatures of the image `digest` and looks for a good one.
    async fn verify(
        &self,
        remote: &Remote,
        name: &Reference,
        digest: &Digest,
        key: VerifyKey,
        meter: &Meter,
    ) -> Result<(), ImageError> {
        let place = signature::place(name, digest);
        let found = manifest(remote, &place.repository, &place.target, meter).await;
        let found = found.map_err(|error| match error {
            ImageError::NotFound { what } => key.unsigned(name, format!("{what} is not there")),
            error => error,
        })?;
        self.take(remote, &place, found, Some(signature::LARGEST), meter).await?;
        let (store, name, digest) = (Arc::clone(&self.store), name.local(), digest.clone());
        on_disk(move || store.check_signature(&name, &digest, &key)).await
    }

    /// Takes in an image whose manifest has come, with all that it refers to, if that is at most `most` bytes.
    async fn take(
        &self,
        remote: &Remote,
        name: &Reference,
        root: Bytes,
        most: Option<u64>,
        meter: &Meter,
    ) -> Result<(), ImageError> {
        let repository = &name.repository;
        let mut parts: Vec<Bytes> = Vec::new();
        let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
        let mut next = vec![root.clone()];
        while let Some(bytes) = next.pop() {
            let read = Manifest::read(&bytes, &name.to_string())?;
            blobs.extend(read.blobs().map(|blob| (blob.digest.clone(), blob.clone())));
            parts.push(bytes);
            if parts.len() + next.len() + read.manifests.len() > MOST_MANIFESTS {
                let why = format!("it has more than {MOST_MANIFESTS} manifests");
                return Err(ImageError::Manifest { what: name.to_string(), why });
            }
            for part in read.manifests {
                next.push(manifest(remote, repository, &Target::Digest(part.digest), meter).await?);
            }
        }
        let sum = blobs.values().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        if let Some(most) = most.filter(|most| sum > *most) {
            return Err(ImageError::TooLarge { what: name.to_string(), most });
        }
        meter.expect(sum);
        // In a list of its own: a closure over references would keep this future from being sent between threads.
        let mut fetched = Vec::with_capacity(blobs.len());
        for blob in blobs.values() {
            fetched.push(self.fetch(remote, repository, blob, meter));
        }
        // Each is brought to its end, whatever comes of the others: what is whole need not come again.
        let fetched: Vec<_> = stream::iter(fetched).buffer_unordered(self.settings.parallel.max(1)).collect().await;
        fetched.into_iter().collect::<Result<(), _>>()?;

        let (store, local) = (Arc::clone(&self.store), name.local());
        on_disk(move || {
            // What an index refers to comes before it.
            for bytes in parts.iter().rev() {
                store.put_blob(bytes)?;
            }
            store.put_manifest(&local.repository, &local.target, &root).map(drop)
        })
        .await
    }

    /// One blob, whatever comes in between.
    async fn fetch(
        &self,
        remote: &Remote,
        repository: &Repository,
        blob: &Descriptor,
        meter: &Meter,
    ) -> Result<(), ImageError> {
        let (store, digest) = (Arc::clone(&self.store), blob.digest.clone());
        if let Some(size) = on_disk(move || store.claim(&digest)).await? {
            meter.present(size);
            return Ok(());
        }
        let mut patience = Patience::default();
        let mut ingest = loop {
            match begun(&self.store, &blob.digest).await {
                Ok(ingest) => break ingest,
                Err(error) => patience.after(error, false).await?,
            }
        };
        meter.resumed(ingest.length());
        let mut again = true;
        loop {
            let before = ingest.length();
            let (left, outcome) = self.fetch_once(remote, repository, blob, ingest, meter).await?;
            ingest = left;
            match outcome {
                Ok(()) => {}
                Err(error) => {
                    meter.interrupted();
                    patience.after(error, ingest.length() > before).await?;
                    meter.resumed(ingest.length());
                    continue;
                }
            }
            let (store, digest) = (Arc::clone(&self.store), blob.digest.clone());
            match on_disk(move || store.commit(ingest, &digest)).await {
                // A part of an earlier attempt may have been spoilt, by a crash for example; not this one as well.
                Err(ImageError::Mismatch { .. }) if again => {
                    again = false;
                    ingest = begun(&self.store, &blob.digest).await?;
                }
                done => return done.map(drop),
            }
        }
    }

    /// One request. Gives back what there is of the blob, and whether that is all of it; fails for good where nothing
    /// more can come of it.
    async fn fetch_once(
        &self,
        remote: &Remote,
        repository: &Repository,
        blob: &Descriptor,
        mut ingest: Ingest,
        meter: &Meter,
    ) -> Result<(Ingest, Result<(), ImageError>), ImageError> {
        let what = format!("blob {}", blob.digest.short());
        if ingest.length() > blob.size {
            ingest.restart()?;
        }
        if ingest.length() == blob.size {
            return Ok((ingest, Ok(())));
        }
        let from = ingest.length();
        let response = match remote.blob(repository, &blob.digest, from).await {
            Ok(response) => response,
            Err(error) => return Ok((ingest, Err(error))),
        };
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let goes_on = range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
        if from > 0 && !(response.status() == StatusCode::PARTIAL_CONTENT && goes_on) {
            ingest.restart()?;
            if response.status() != StatusCode::OK {
                let text = "it does not go on where it was asked to".to_owned();
                return Ok((ingest, Err(remote.broken(&what, io::Error::other(text)))));
            }
        }
        let mut body = response.into_body();
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            let frame = timeout(PATIENCE, body.frame()).await;
            let failure = match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.throttle.take(bytes.len() as u64).await;
                        meter.moved(bytes.len() as u64);
                        buffer.extend_from_slice(&bytes);
                    }
                    if ingest.length() + buffer.len() as u64 > blob.size {
                        ingest.discard();
                        return Err(ImageError::TooLarge { what, most: blob.size });
                    }
                    if buffer.len() < CHUNK {
                        continue;
                    }
                    None
                }
                Ok(None) => Some(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(Some(Err(error))) => Some(error.into()),
                Err(_) => Some(io::Error::from(io::ErrorKind::TimedOut).into()),
            };
            let full = std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK));
            ingest = on_disk(move || ingest.write(&full).map(|()| ingest)).await?;
            match failure {
                _ if ingest.length() == blob.size => return Ok((ingest, Ok(()))),
                Some(failure) => {
                    let failure: crate::images::error::BoxError = failure;
                    return Ok((ingest, Err(remote.broken(&what, failure))));
                }
                None => {}
            }
        }
    }
}

/// What an earlier attempt left of a blob, also of another process, or a new beginning.
async fn begun(store: &Arc<Store>, digest: &Digest) -> Result<Ingest, ImageError> {
    let (store, name) = (Arc::clone(store), format!("pull-{}", digest.hex()));
    on_disk(move || match store.resume(&name)? {
        Some(ingest) => Ok(ingest),
        None => store.ingest(&name),
    })
    .await
}

async fn manifest(
    remote: &Remote,
    repository: &Repository,
    target: &Target,
    meter: &Meter,
) -> Result<Bytes, ImageError> {
    let mut patience = Patience::default();
    loop {
        match remote.manifest(repository, target).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => {
                patience.after(error, false).await?;
                meter.interrupted();
            }
        }
    }
}

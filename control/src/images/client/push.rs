//! From the store to a registry: blobs that it lacks, then manifests, the named one last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use hyper::{Method, StatusCode};

use super::remote::{Body, PATIENCE, Payload, Remote, octets};
use super::{Client, Meter, Patience, Throttle, Transferred, on_disk};
use crate::images::layout::StoredManifest;
use crate::images::manifest::Descriptor;
use crate::images::{Digest, ImageError, Reference, Repository, Target};

/// Read from the disk at a time.
const CHUNK: u64 = 256 << 10;

/// An upload that was begun: where it goes on, and from which byte.
struct Upload {
    location: String,
    offset: u64,
}

impl Client {
    /// Pushes the image `from` of the store as `to`, which names the registry.
    ///
    /// # Errors
    /// [`ImageError`]; the image is not there under its name then, and blobs that arrived are not sent again.
    pub async fn push(&self, from: &Reference, to: &Reference, meter: &Arc<Meter>) -> Result<Transferred, ImageError> {
        let remote = self.remote(to)?;
        let (store, name) = (Arc::clone(&self.store), from.local());
        let manifests = on_disk(move || {
            let mut found: Vec<StoredManifest> = Vec::new();
            let mut next = vec![store.manifest(&name.repository, &name.target)?];
            while let Some(stored) = next.pop() {
                for part in &stored.manifest.manifests {
                    next.push(store.manifest(&name.repository, &Target::Digest(part.digest.clone()))?);
                }
                found.push(stored);
            }
            Ok(found)
        });
        let manifests = manifests.await?;
        let blobs: BTreeMap<Digest, Descriptor> =
            manifests.iter().flat_map(|m| m.manifest.blobs()).map(|b| (b.digest.clone(), b.clone())).collect();
        meter.expect(blobs.values().map(|blob| blob.size).sum());
        let mut sent = Vec::with_capacity(blobs.len());
        for blob in blobs.values() {
            sent.push(self.send(&remote, &to.repository, blob, meter));
        }
        stream::iter(sent).buffer_unordered(self.settings.parallel.max(1)).try_collect::<()>().await?;

        // Found from the root down, so sent from the end: what an index refers to comes before it.
        for (index, stored) in manifests.iter().enumerate().rev() {
            let target = if index == 0 { to.target.clone() } else { Target::Digest(stored.descriptor.digest.clone()) };
            name_it(&remote, &to.repository, &target, stored, meter).await?;
        }
        let digest = manifests.first().map_or_else(|| Digest::of(&[]), |root| root.descriptor.digest.clone());
        Ok(Transferred { image: to.to_string(), digest, progress: meter.progress() })
    }

    /// One blob, whatever comes in between.
    async fn send(
        &self,
        remote: &Remote,
        repository: &Repository,
        blob: &Descriptor,
        meter: &Arc<Meter>,
    ) -> Result<(), ImageError> {
        let mut patience = Patience::default();
        let mut upload = None;
        loop {
            // How far it was, to tell whether an attempt brought anything.
            let before = upload.as_ref().map_or(0, |upload: &Upload| upload.offset);
            let error = match self.send_once(remote, repository, blob, &mut upload, meter).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            meter.interrupted();
            // An upload that the registry has lost, or lost count of, is begun anew.
            let lost = matches!(error, ImageError::Refused { status: 400 | 404, .. }) && upload.take().is_some();
            if lost {
                let lost = io::Error::other(format!("the upload was lost: {error}"));
                patience.after(remote.broken("upload", lost), false).await?;
                continue;
            }
            // Where it is not where we thought, it is asked.
            let error = match error {
                ImageError::Refused { status: 416, .. } => remote.broken("upload", error),
                error => error,
            };
            let known = match &upload {
                Some(begun) => progress(remote, &begun.location).await,
                None => Ok(None),
            };
            match known {
                Ok(known) => upload = known,
                // Asked again after the pause.
                Err(error) if error.may_pass() => {}
                Err(_) => upload = None,
            }
            let now = upload.as_ref().map_or(0, |upload| upload.offset);
            patience.after(error, now > before).await?;
            meter.resumed(now);
        }
    }

    async fn send_once(
        &self,
        remote: &Remote,
        repository: &Repository,
        blob: &Descriptor,
        upload: &mut Option<Upload>,
        meter: &Arc<Meter>,
    ) -> Result<(), ImageError> {
        let what = format!("push of blob {}", blob.digest.short());
        let nothing = || Payload::Bytes(Bytes::new());
        let there = remote.uri(&format!("/v2/{repository}/blobs/{}", blob.digest));
        let head = remote.call(&what, &Method::HEAD, &there, &[], nothing()).await?;
        if head.status() == StatusCode::OK {
            meter.present(blob.size);
            return Ok(());
        }
        let Upload { location, offset } = match upload.take() {
            Some(begun) => begun,
            None => {
                let uri = remote.uri(&format!("/v2/{repository}/blobs/uploads/"));
                let begun =
                    remote.call(&what, &Method::POST, &uri, &[(CONTENT_LENGTH, "0".to_owned())], nothing()).await?;
                let begun = remote.expect(&what, begun, &[StatusCode::ACCEPTED]).await?;
                Upload { location: remote.location(&what, &begun)?, offset: 0 }
            }
        };
        *upload = Some(Upload { location: location.clone(), offset });
        let mut location = location;
        if offset < blob.size {
            let response = self.stream(remote, &what, &location, blob, offset, meter).await?;
            let response = remote.expect(&what, response, &[StatusCode::ACCEPTED]).await?;
            location = remote.location(&what, &response)?;
            *upload = Some(Upload { location: location.clone(), offset: blob.size });
        }
        let sign = if location.contains('?') { '&' } else { '?' };
        let uri = format!("{location}{sign}digest={}", blob.digest);
        let headers = [octets(), (CONTENT_LENGTH, "0".to_owned())];
        let done = remote.call(&what, &Method::PUT, &uri, &headers, nothing()).await?;
        remote.expect(&what, done, &[StatusCode::CREATED, StatusCode::NO_CONTENT]).await.map(drop)
    }

    /// Sends the rest of a blob, as long as it gets on.
    async fn stream(
        &self,
        remote: &Remote,
        what: &str,
        location: &str,
        blob: &Descriptor,
        offset: u64,
        meter: &Arc<Meter>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, ImageError> {
        let (store, digest) = (Arc::clone(&self.store), blob.digest.clone());
        let file = on_disk(move || {
            let (mut file, _) = store.blob(&digest)?;
            file.seek(SeekFrom::Start(offset)).map_err(ImageError::file("read", &store.blob_path(&digest)))?;
            Ok(file)
        });
        let left = blob.size - offset;
        let headers =
            [octets(), (CONTENT_LENGTH, left.to_string()), (CONTENT_RANGE, format!("{offset}-{}", blob.size - 1))];
        let sent = Arc::new(AtomicU64::new(0));
        let source = Source {
            file: file.await?,
            left,
            sent: Arc::clone(&sent),
            throttle: Arc::clone(&self.throttle),
            meter: Arc::clone(meter),
        };
        let stalled = async {
            loop {
                let before = sent.load(Ordering::Relaxed);
                tokio::time::sleep(PATIENCE).await;
                if sent.load(Ordering::Relaxed) == before {
                    return;
                }
            }
        };
        tokio::select! {
            response = remote.call(what, &Method::PATCH, location, &headers, Payload::Stream(source.body())) => response,
            () = stalled => Err(remote.broken(what, io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

/// What is left of a blob, read as it is sent.
struct Source {
    file: File,
    left: u64,
    sent: Arc<AtomicU64>,
    throttle: Arc<Throttle>,
    meter: Arc<Meter>,
}

impl Source {
    fn body(self) -> Body {
        let pieces = stream::try_unfold(self, |mut source| async move {
            if source.left == 0 {
                return Ok(None);
            }
            let most = usize::try_from(CHUNK.min(source.left)).unwrap_or(usize::MAX);
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; most];
                let read = source.file.read(&mut buffer)?;
                buffer.truncate(read);
                Ok::<_, io::Error>((Bytes::from(buffer), source))
            });
            let (bytes, mut source) = read.await.map_err(io::Error::other)??;
            if bytes.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let length = bytes.len() as u64;
            source.throttle.take(length).await;
            source.meter.moved(length);
            source.sent.fetch_add(length, Ordering::Relaxed);
            source.left -= length;
            Ok(Some((Frame::data(bytes), source)))
        });
        StreamBody::new(pieces).boxed_unsync()
    }
}

/// How far the registry says that an upload is; `None` where it knows of none.
async fn progress(remote: &Remote, location: &str) -> Result<Option<Upload>, ImageError> {
    let what = "progress of an upload";
    let response = remote.call(what, &Method::GET, location, &[], Payload::Bytes(Bytes::new())).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let response = remote.expect(what, response, &[StatusCode::NO_CONTENT]).await?;
    let range = response.headers().get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok());
    // `0-0` is what there is to say of nothing; one byte more or less is told by the next request's refusal.
    let offset = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
    Ok(Some(Upload { location: remote.location(what, &response)?, offset }))
}

/// Puts a manifest; the same again is no change, so it may be repeated.
async fn name_it(
    remote: &Remote,
    repository: &Repository,
    target: &Target,
    stored: &StoredManifest,
    meter: &Meter,
) -> Result<(), ImageError> {
    let what = format!("push of manifest {}", target.as_str());
    let uri = remote.uri(&format!("/v2/{repository}/manifests/{}", target.as_str()));
    let headers = [(CONTENT_TYPE, stored.descriptor.media_type.clone())];
    let mut patience = Patience::default();
    loop {
        let put = async {
            let bytes = Payload::Bytes(Bytes::from(stored.bytes.clone()));
            let done = remote.call(&what, &Method::PUT, &uri, &headers, bytes).await?;
            remote.expect(&what, done, &[StatusCode::CREATED, StatusCode::OK]).await
        };
        match put.await {
            Ok(_) => return Ok(()),
            Err(error) => {
                patience.after(error, false).await?;
                meter.interrupted();
            }
        }
    }
}

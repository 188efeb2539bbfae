//! Pushing: blobs in one go or in chunks, mounts, manifests.
//!
//! An upload is a file of the store that grows. What was hashed of it is kept between two requests where it can be;
//! where it cannot (a broken connection, a restart) the file is hashed again, so an upload outlives both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;

use super::answer::{CONTENT_DIGEST, Code, Refusal, with};
use super::path::{Query, name};
use super::{Shared, empty, on_disk};
use crate::images::ingest::Ingest;
use crate::images::layout::{Store, unique};
use crate::images::manifest::LARGEST_MANIFEST;
use crate::images::{Digest, ImageError, Repository, Target};

/// Longest wait for the next bytes of a client.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a broken request to let go of its upload.
const LET_GO: Duration = Duration::from_secs(5);
/// Written to the disk at a time.
const CHUNK: usize = 1 << 20;
/// Uploads whose hash is kept between two requests, and for how long.
const MOST_PARKED: usize = 64;
const PARKED_FOR: Duration = Duration::from_secs(300);

/// Uploads between two of their requests.
pub(super) struct Uploads {
    store: Arc<Store>,
    parked: Arc<Mutex<BTreeMap<String, (Instant, Ingest)>>>,
}

impl Uploads {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, parked: Arc::default() }
    }

    /// Takes an upload for one request.
    async fn take(&self, id: &str) -> Result<Ingest, Refusal> {
        let begun = Instant::now();
        loop {
            // Looked at each time: the broken request parks it as soon as it has noticed.
            if let Some((_, ingest)) = self.parked.lock().unwrap_or_else(PoisonError::into_inner).remove(id) {
                return Ok(ingest);
            }
            let (store, name) = (Arc::clone(&self.store), file_name(id));
            let resumed = on_disk(move || match store.resume(&name) {
                Err(ImageError::Busy { .. }) => Ok(None),
                resumed => resumed.map(Some),
            });
            match resumed.await? {
                Some(Some(ingest)) => return Ok(ingest),
                Some(None) => return Err(unknown(id)),
                None if begun.elapsed() > LET_GO => {
                    let message = format!("another request writes upload {id}");
                    return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, message));
                }
                // A lock on a file has no event to wait for.
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Keeps what was hashed for the next request, if that comes soon. A file that is kept is locked, which garbage
    /// collection respects.
    fn park(&self, id: &str, ingest: Ingest) {
        {
            let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
            if ingest.length() == 0 || parked.len() >= MOST_PARKED {
                return;
            }
            parked.insert(id.to_owned(), (Instant::now(), ingest));
        }
        let parked = Arc::downgrade(&self.parked);
        tokio::spawn(async move {
            tokio::time::sleep(PARKED_FOR).await;
            let Some(parked) = parked.upgrade() else { return };
            let mut parked = parked.lock().unwrap_or_else(PoisonError::into_inner);
            parked.retain(|_, (since, _)| since.elapsed() < PARKED_FOR);
        });
    }
}

fn file_name(id: &str) -> String {
    format!("up-{id}")
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, format!("there is no upload {id}"))
}

/// `POST …/blobs/uploads/`: begins an upload, or ends it at once where the blob is there or comes along.
pub(super) async fn begin(
    shared: &Shared,
    repository: &Repository,
    query: &Query,
    request: Request,
) -> Result<Response, Refusal> {
    if let Some(mount) = &query.mount {
        let wanted = Digest::parse(mount)?;
        let (store, claimed) = (Arc::clone(&shared.store), wanted.clone());
        if on_disk(move || store.claim(&claimed)).await?.is_some() {
            return Ok(created(repository, &wanted));
        }
    }
    let id = on_disk(unique).await?;
    let (store, name) = (Arc::clone(&shared.store), file_name(&id));
    let ingest = on_disk(move || store.ingest(&name)).await?;
    if query.digest.is_some() {
        let digest = match query.digest() {
            Ok(digest) => digest,
            Err(refusal) => {
                ingest.discard();
                return Err(refusal);
            }
        };
        // One request only: what does not come whole is not gone on with.
        return match receive(shared, ingest, request.into_body().into_data_stream()).await {
            Ok(ingest) => commit(shared, repository, ingest, digest).await,
            Err((refusal, ingest)) => {
                if let Some(ingest) = ingest {
                    ingest.discard();
                }
                Err(refusal)
            }
        };
    }
    shared.uploads.park(&id, ingest);
    Ok(under_way(StatusCode::ACCEPTED, repository, &id, 0))
}

/// `GET …/blobs/uploads/<id>`: how far it is.
pub(super) async fn status(shared: &Shared, repository: &Repository, id: &str) -> Result<Response, Refusal> {
    let ingest = shared.uploads.take(id).await?;
    let length = ingest.length();
    shared.uploads.park(id, ingest);
    Ok(under_way(StatusCode::NO_CONTENT, repository, id, length))
}

/// `PATCH …/blobs/uploads/<id>`: more of it.
pub(super) async fn append(
    shared: &Shared,
    repository: &Repository,
    id: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let ingest = take_at(shared, repository, id, request.headers()).await?;
    let ingest = match ingest {
        Ok(ingest) => ingest,
        Err(response) => return Ok(response),
    };
    match receive(shared, ingest, request.into_body().into_data_stream()).await {
        Ok(ingest) => {
            let length = ingest.length();
            shared.uploads.park(id, ingest);
            Ok(under_way(StatusCode::ACCEPTED, repository, id, length))
        }
        Err((refusal, ingest)) => {
            if let Some(ingest) = ingest {
                shared.uploads.park(id, ingest);
            }
            Err(refusal)
        }
    }
}

/// `PUT …/blobs/uploads/<id>?digest=…`: the last of it, and what it must be.
pub(super) async fn finish(
    shared: &Shared,
    repository: &Repository,
    id: &str,
    query: &Query,
    request: Request,
) -> Result<Response, Refusal> {
    let digest = query.digest()?;
    let ingest = match take_at(shared, repository, id, request.headers()).await? {
        Ok(ingest) => ingest,
        Err(response) => return Ok(response),
    };
    match receive(shared, ingest, request.into_body().into_data_stream()).await {
        Ok(ingest) => commit(shared, repository, ingest, digest).await,
        Err((refusal, ingest)) => {
            if let Some(ingest) = ingest {
                shared.uploads.park(id, ingest);
            }
            Err(refusal)
        }
    }
}

/// `DELETE …/blobs/uploads/<id>`: not wanted any more.
pub(super) async fn cancel(shared: &Shared, id: &str) -> Result<Response, Refusal> {
    shared.uploads.take(id).await?.discard();
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `PUT …/manifests/<tag or digest>`.
pub(super) async fn manifest(
    shared: &Shared,
    repository: Repository,
    target: Target,
    request: Request,
) -> Result<Response, Refusal> {
    let most = usize::try_from(LARGEST_MANIFEST).unwrap_or(usize::MAX);
    let mut body = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = next(&mut body).await? {
        if bytes.len() + part.len() > most {
            let what = name(&repository, &target).to_string();
            return Err(ImageError::TooLarge { what, most: LARGEST_MANIFEST }.into());
        }
        bytes.extend_from_slice(&part);
    }
    let (store, of, tag) = (Arc::clone(&shared.store), repository.clone(), target.clone());
    let stored = on_disk(move || store.put_manifest(&of, &tag, &bytes)).await?;
    tracing::info!(image = %name(&repository, &target), digest = %stored.descriptor.digest, "image pushed");
    let digest = stored.descriptor.digest.to_string();
    let mut headers =
        vec![(header::LOCATION, format!("/v2/{repository}/manifests/{digest}")), (CONTENT_DIGEST, digest)];
    if let Some(subject) = stored.manifest.subject {
        headers.push((header::HeaderName::from_static("oci-subject"), subject.digest.to_string()));
    }
    Ok(with(StatusCode::CREATED, headers, Body::empty()))
}

/// Takes an upload whose next byte the request has; otherwise the answer that says which is the next.
async fn take_at(
    shared: &Shared,
    repository: &Repository,
    id: &str,
    headers: &HeaderMap,
) -> Result<Result<Ingest, Response>, Refusal> {
    let ingest = shared.uploads.take(id).await?;
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let first =
        range.map(|range| range.trim_start_matches("bytes ").split('-').next().unwrap_or_default().parse::<u64>());
    match first {
        Some(first) if first != Ok(ingest.length()) => {
            let length = ingest.length();
            shared.uploads.park(id, ingest);
            Ok(Err(under_way(StatusCode::RANGE_NOT_SATISFIABLE, repository, id, length)))
        }
        _ => Ok(Ok(ingest)),
    }
}

/// Writes a request's body to an upload. With the refusal comes what there is of it, unless nothing is.
async fn receive(
    shared: &Shared,
    mut ingest: Ingest,
    mut body: BodyDataStream,
) -> Result<Ingest, (Refusal, Option<Ingest>)> {
    let most = shared.terms.largest_blob;
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        let part = next(&mut body).await;
        if let Ok(Some(part)) = &part {
            if ingest.length() + (buffer.len() + part.len()) as u64 > most {
                ingest.discard();
                return Err((ImageError::TooLarge { what: "the blob".to_owned(), most }.into(), None));
            }
            buffer.extend_from_slice(part);
            if buffer.len() < CHUNK {
                continue;
            }
        }
        let full = std::mem::replace(&mut buffer, Vec::with_capacity(CHUNK));
        let written = on_disk(move || ingest.write(&full).map(|()| ingest));
        ingest = written.await.map_err(|refusal| (refusal, None))?;
        match part {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(ingest),
            Err(refusal) => return Err((refusal, Some(ingest))),
        }
    }
}

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut BodyDataStream) -> Result<Option<bytes::Bytes>, Refusal> {
    match tokio::time::timeout(PATIENCE, body.next()).await {
        Ok(Some(Ok(part))) => Ok(Some(part)),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => {
            let message = format!("the content did not come whole: {error}");
            Err(Refusal::new(StatusCode::BAD_REQUEST, Code::BlobUploadInvalid, message))
        }
        Err(_) => {
            let message = format!("nothing came for {PATIENCE:?}");
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, message))
        }
    }
}

async fn commit(shared: &Shared, repository: &Repository, ingest: Ingest, digest: Digest) -> Result<Response, Refusal> {
    let (store, expected) = (Arc::clone(&shared.store), digest.clone());
    on_disk(move || store.commit(ingest, &expected)).await?;
    Ok(created(repository, &digest))
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    let location = (header::LOCATION, format!("/v2/{repository}/blobs/{digest}"));
    with(StatusCode::CREATED, vec![location, (CONTENT_DIGEST, digest.to_string())], Body::empty())
}

/// An upload's place and how far it is; `Range` is inclusive, so `0-0` also stands for nothing yet, as in the
/// reference implementation.
fn under_way(status: StatusCode, repository: &Repository, id: &str, length: u64) -> Response {
    let headers = vec![
        (header::LOCATION, format!("/v2/{repository}/blobs/uploads/{id}")),
        (header::RANGE, format!("0-{}", length.saturating_sub(1))),
        (header::HeaderName::from_static("docker-upload-uuid"), id.to_owned()),
    ];
    with(status, headers, Body::empty())
}

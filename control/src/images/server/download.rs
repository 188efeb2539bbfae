//! Pulling: manifests, blobs and parts of them, lists.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde_json::json as document;

use super::answer::{CONTENT_DIGEST, Code, Refusal, json, with};
use super::path::{Query, name};
use super::{Shared, on_disk};
use crate::images::manifest::OCI_INDEX;
use crate::images::{Digest, ImageError, Repository, Target};

/// Read from the disk at a time.
const CHUNK: usize = 256 << 10;

/// All repositories' names.
pub(super) async fn catalog(shared: &Shared, query: &Query) -> Result<Response, Refusal> {
    let store = Arc::clone(&shared.store);
    let entries = on_disk(move || store.entries()).await?;
    let names: BTreeSet<String> = entries.into_iter().map(|entry| entry.name.repository.to_string()).collect();
    let names = page(names.into_iter().collect(), query);
    Ok(json(StatusCode::OK, &document!({ "repositories": names })))
}

pub(super) async fn tags(shared: &Shared, repository: Repository, query: &Query) -> Result<Response, Refusal> {
    let (store, of) = (Arc::clone(&shared.store), repository.clone());
    let Some(tags) = on_disk(move || store.tags(&of)).await? else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::NameUnknown, format!("{repository} is not there")));
    };
    Ok(json(StatusCode::OK, &document!({ "name": repository.as_str(), "tags": page(tags, query) })))
}

/// The part of an ordered list that was asked for.
fn page(all: Vec<String>, query: &Query) -> Vec<String> {
    let after = query.last.as_deref().unwrap_or_default();
    let rest = all.into_iter().filter(|item| after.is_empty() || item.as_str() > after);
    rest.take(query.n.unwrap_or(usize::MAX)).collect()
}

pub(super) async fn referrers(
    shared: &Shared,
    repository: Repository,
    subject: Digest,
    query: &Query,
) -> Result<Response, Refusal> {
    let store = Arc::clone(&shared.store);
    let mut found = on_disk(move || store.referrers(&repository, &subject)).await?;
    if let Some(kind) = &query.artifact_type {
        found.retain(|descriptor| descriptor.artifact_type.as_ref() == Some(kind));
    }
    let index = document!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found });
    let mut response = json(StatusCode::OK, &index);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
    if query.artifact_type.is_some() {
        response.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

pub(super) async fn manifest(
    shared: &Shared,
    repository: Repository,
    target: Target,
    body: bool,
) -> Result<Response, Refusal> {
    let store = Arc::clone(&shared.store);
    let what = name(&repository, &target).to_string();
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, Code::ManifestUnknown, format!("{what} is not there"));
    let stored = on_disk(move || match store.manifest(&repository, &target) {
        // A blob that is no manifest is none under its digest either.
        Err(ImageError::NotFound { .. } | ImageError::Manifest { .. } | ImageError::TooLarge { .. }) => Ok(None),
        found => found.map(Some),
    });
    let stored = stored.await?.ok_or_else(unknown)?;
    let headers = vec![
        (header::CONTENT_TYPE, stored.descriptor.media_type),
        (header::CONTENT_LENGTH, stored.bytes.len().to_string()),
        (header::ETAG, format!("\"{}\"", stored.descriptor.digest)),
        (CONTENT_DIGEST, stored.descriptor.digest.to_string()),
    ];
    Ok(with(StatusCode::OK, headers, if body { Body::from(stored.bytes) } else { Body::empty() }))
}

pub(super) async fn blob(
    shared: &Shared,
    digest: Digest,
    range: Option<&HeaderValue>,
    body: bool,
) -> Result<Response, Refusal> {
    let (store, wanted) = (Arc::clone(&shared.store), digest.clone());
    let (mut file, size) = on_disk(move || {
        // Who asks whether it is there may rely on it and not send it.
        if !body {
            store.claim(&wanted)?;
        }
        store.blob(&wanted)
    })
    .await?;
    let mut headers = vec![
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let (status, first, length) = match range.and_then(|range| part(range, size)) {
        None => (StatusCode::OK, 0, size),
        Some(Some((first, last))) => {
            headers.push((header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Some(None) => {
            headers.push((header::CONTENT_RANGE, format!("bytes */{size}")));
            return Ok(with(StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty()));
        }
    };
    headers.push((header::CONTENT_LENGTH, length.to_string()));
    if !body {
        return Ok(with(status, headers, Body::empty()));
    }
    let path = shared.store.blob_path(&digest);
    let file = on_disk(move || {
        file.seek(SeekFrom::Start(first)).map_err(ImageError::file("read", &path))?;
        Ok(file)
    });
    Ok(with(status, headers, stream(file.await?, length)))
}

/// The first and last byte that `Range` asks for, where it asks for one part in bytes (RFC 9110, 14.1.2); `None` for
/// what may be ignored, `Some(None)` for what lies behind the end.
fn part(range: &HeaderValue, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let last_byte = size.checked_sub(1);
    if first.is_empty() {
        let length: u64 = last.parse().ok()?;
        return Some(last_byte.filter(|_| length > 0).map(|end| (size.saturating_sub(length), end)));
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    Some(last_byte.filter(|end| first <= *end).map(|end| (first, last.min(end))))
}

/// The next `length` bytes of a file, read as the client takes them.
fn stream(file: File, length: u64) -> Body {
    Body::from_stream(stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            let read = file.read(&mut buffer)?;
            buffer.truncate(read);
            Ok::<_, std::io::Error>((Bytes::from(buffer), file))
        });
        let (bytes, file) = read.await.map_err(std::io::Error::other)??;
        if bytes.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        let left = left - bytes.len() as u64;
        Ok(Some((bytes, (file, left))))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_them() {
        for (text, size, expected) in [
            ("bytes=0-", 10, Some(Some((0, 9)))),
            ("bytes=3-5", 10, Some(Some((3, 5)))),
            ("bytes=3-500", 10, Some(Some((3, 9)))),
            ("bytes=-4", 10, Some(Some((6, 9)))),
            ("bytes=-40", 10, Some(Some((0, 9)))),
            ("bytes=10-", 10, Some(None)),
            ("bytes=-0", 10, Some(None)),
            ("bytes=0-", 0, Some(None)),
            ("bytes=5-3", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("lines=0-1", 10, None),
            ("bytes=x-", 10, None),
        ] {
            assert_eq!(part(&HeaderValue::from_static(text), size), expected, "{text}");
        }
    }
}

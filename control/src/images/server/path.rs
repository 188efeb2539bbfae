//! What a request's target means: repository, object, and what comes behind the `?`.

use axum::http::StatusCode;

use super::answer::{Code, Refusal};
use crate::images::{Digest, Reference, Repository, Target};

/// The object of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/tags/list`
    Tags(Repository),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Repository, Digest),
    /// `/v2/<name>/manifests/<tag or digest>`
    Manifest(Repository, Target),
    /// `/v2/<name>/blobs/<digest>`
    Blob(Repository, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload { repository: Repository, id: String },
}

impl Path {
    /// Reads a path. No part of it is decoded: no name of the protocol needs that, so `%2e` is no dot.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, format!("there is no {path:?} here"));
        let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
        let rest = match rest.strip_prefix('/') {
            Some("") => return Ok(Self::Base),
            None if rest.is_empty() => return Ok(Self::Base),
            Some("_catalog") => return Ok(Self::Catalog),
            Some(rest) => rest,
            None => return Err(unknown()),
        };
        // From the end: a repository's name may hold any of these words itself.
        let words: Vec<&str> = rest.split('/').collect();
        let name = |parts: usize| -> Result<Repository, Refusal> {
            Repository::parse(&words[..words.len() - parts].join("/"))
                .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, Code::NameInvalid, e.to_string()))
        };
        let digest = |text: &str| {
            Digest::parse(text).map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, e.to_string()))
        };
        match words.as_slice() {
            [_, .., "tags", "list"] => Ok(Self::Tags(name(2)?)),
            [_, .., "referrers", about] => Ok(Self::Referrers(name(2)?, digest(about)?)),
            [_, .., "blobs", "uploads"] => Ok(Self::Uploads(name(2)?)),
            [_, .., "blobs", "uploads", ""] => Ok(Self::Uploads(name(3)?)),
            [_, .., "blobs", "uploads", id] => {
                if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Ok(Self::Upload { repository: name(3)?, id: (*id).to_owned() });
                }
                let message = format!("{id:?} is no upload of ours");
                Err(Refusal::new(StatusCode::NOT_FOUND, Code::BlobUploadUnknown, message))
            }
            [_, .., "blobs", content] => Ok(Self::Blob(name(2)?, digest(content)?)),
            [_, .., "manifests", target] => {
                let target = Target::parse(target)
                    .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, e.to_string()))?;
                Ok(Self::Manifest(name(2)?, target))
            }
            _ => Err(unknown()),
        }
    }
}

/// The protocol's parameters. All values are digests, names, media types or numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub digest: Option<String>,
    pub mount: Option<String>,
    pub artifact_type: Option<String>,
    pub last: Option<String>,
    pub n: Option<usize>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match key {
                "digest" => query.digest = Some(value),
                "mount" => query.mount = Some(value),
                "artifactType" => query.artifact_type = Some(value),
                "last" => query.last = Some(value),
                "n" => query.n = value.parse().ok(),
                _ => {}
            }
        }
        query
    }

    /// The digest that a request must have.
    pub(super) fn digest(&self) -> Result<Digest, Refusal> {
        let text = self.digest.as_deref().unwrap_or_default();
        Digest::parse(text).map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, e.to_string()))
    }
}

/// Percent-decoding; what is no escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A name without registry, for messages.
pub(super) fn name(repository: &Repository, target: &Target) -> Reference {
    Reference { registry: None, repository: repository.clone(), target: target.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let repository = |name: &str| Repository::parse(name).unwrap();
        let digest = Digest::of(b"");
        let id = "0123456789abcdef0123456789abcdef".to_owned();
        for (path, expected) in [
            ("/v2/".to_owned(), Path::Base),
            ("/v2".to_owned(), Path::Base),
            ("/v2/_catalog".to_owned(), Path::Catalog),
            ("/v2/a/b/tags/list".to_owned(), Path::Tags(repository("a/b"))),
            ("/v2/tags/list/tags/list".to_owned(), Path::Tags(repository("tags/list"))),
            (format!("/v2/a/blobs/{digest}"), Path::Blob(repository("a"), digest.clone())),
            ("/v2/a/blobs/uploads/".to_owned(), Path::Uploads(repository("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Path::Uploads(repository("a"))),
            (format!("/v2/a/blobs/uploads/{id}"), Path::Upload { repository: repository("a"), id }),
            ("/v2/a/manifests/1".to_owned(), Path::Manifest(repository("a"), Target::parse("1").unwrap())),
            (format!("/v2/a/referrers/{digest}"), Path::Referrers(repository("a"), digest.clone())),
        ] {
            assert_eq!(Path::parse(&path).map_err(|e| e.message().to_owned()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn nothing_leaves_the_store() {
        for path in [
            "/",
            "/v1/",
            "/v2x",
            "/v2/a",
            "/v2/../etc/manifests/1",
            "/v2/a/../../manifests/1",
            "/v2/%2e%2e/manifests/1",
            "/v2//manifests/1",
            "/v2/manifests/1",
            "/v2/a/manifests/..",
            "/v2/a/manifests/",
            "/v2/a/blobs/../../x",
            "/v2/a/blobs/sha256:..",
            "/v2/a/blobs/uploads/../../../x",
            "/v2/a/blobs/uploads/0123456789abcdef0123456789abcde/",
        ] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("digest=sha256%3A00&n=5&last=&mount=x%zz&other=1");
        assert_eq!(query.digest.as_deref(), Some("sha256:00"));
        assert_eq!((query.n, query.last.as_deref(), query.mount.as_deref()), (Some(5), Some(""), Some("x%zz")));
    }
}

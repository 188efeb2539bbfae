//! One registry over HTTP: requests with patience and credentials, and what its refusals say.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::auth::{Challenge, credentials, token};
use crate::images::manifest::{KINDS, LARGEST_MANIFEST};
use crate::images::{Digest, ImageError, Repository, Target};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for an answer to a request without a large body, and for the next bytes of one.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Most of a refusal's text that is read.
const REFUSAL: usize = 16 << 10;
/// Places in a row that a blob may be moved to.
const REDIRECTS: usize = 5;

/// A request's body; one that is read from a file while it is sent can be sent once only.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a request sends.
pub(super) enum Payload {
    /// These bytes, none for most requests; sent again where credentials are wanted first.
    Bytes(Bytes),
    /// A stream.
    Stream(Body),
}

/// The two ways to speak HTTP. Certificates are looked for only where TLS is spoken.
enum Http {
    Plain(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
}

/// A registry, for transfers of one repository.
pub(super) struct Remote {
    registry: String,
    base: String,
    http: Http,
    /// `user:password` in Base64.
    credentials: Option<String>,
    /// What `Authorization` says, once the registry wanted something.
    authorization: Mutex<Option<String>>,
}

impl Remote {
    pub(super) fn new(registry: &str, plain: bool, auth_file: Option<&Path>) -> Result<Self, ImageError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let http = if plain {
            Http::Plain(Client::builder(TokioExecutor::new()).build(connector))
        } else {
            let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|source| ImageError::Transfer {
                registry: registry.to_owned(),
                operation: "read this machine's certificates (package ca-certificates)".to_owned(),
                source: source.into(),
            })?;
            let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
            Http::Tls(Client::builder(TokioExecutor::new()).build(connector))
        };
        let base = format!("{}://{registry}", if plain { "http" } else { "https" });
        let credentials = auth_file.map(|file| credentials(file, registry)).transpose()?.flatten();
        Ok(Self { registry: registry.to_owned(), base, http, credentials, authorization: Mutex::new(None) })
    }

    /// The manifest under a tag or digest; verified where it is a digest.
    pub(super) async fn manifest(&self, repository: &Repository, target: &Target) -> Result<Bytes, ImageError> {
        let what = format!("manifest {}", target.as_str());
        let uri = self.uri(&format!("/v2/{repository}/manifests/{}", target.as_str()));
        let accept = [(ACCEPT, KINDS.join(", "))];
        let response = self.call(&what, &Method::GET, &uri, &accept, Payload::Bytes(Bytes::new())).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(ImageError::NotFound { what: format!("{}/{repository} {}", self.registry, target.as_str()) });
        }
        let response = self.expect(&what, response, &[StatusCode::OK]).await?;
        let bytes = self.whole(&what, response, usize::try_from(LARGEST_MANIFEST).unwrap_or(usize::MAX)).await?;
        if let Target::Digest(expected) = target {
            let found = Digest::of(&bytes);
            if found != *expected {
                return Err(ImageError::Mismatch { expected: expected.clone(), found });
            }
        }
        Ok(bytes)
    }

    /// A blob from its byte `from` on: the answer is 206 from there, or 200 from the start.
    pub(super) async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: u64,
    ) -> Result<Response<Incoming>, ImageError> {
        let what = format!("blob {}", digest.short());
        let mut uri = self.uri(&format!("/v2/{repository}/blobs/{digest}"));
        let range: &[_] = &[(hyper::header::RANGE, format!("bytes={from}-"))];
        let range = if from > 0 { range } else { &[] };
        for _ in 0..REDIRECTS {
            let response = self.call(&what, &Method::GET, &uri, range, Payload::Bytes(Bytes::new())).await?;
            if !response.status().is_redirection() {
                let fine = [StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
                return self.expect(&what, response, &fine).await;
            }
            uri = self.location(&what, &response)?;
        }
        Err(self.refused(&what, StatusCode::LOOP_DETECTED, "it is moved from place to place".to_owned()))
    }

    /// The URI of a path of this registry.
    pub(super) fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Where an answer says that it goes on.
    pub(super) fn location<B>(&self, what: &str, response: &Response<B>) -> Result<String, ImageError> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        match location {
            Some(path) if path.starts_with('/') => Ok(self.uri(path)),
            Some(uri) if uri.starts_with("http://") || uri.starts_with("https://") => Ok(uri.to_owned()),
            _ => Err(self.refused(what, response.status(), "it does not say where to go on".to_owned())),
        }
    }

    /// One request; with credentials where the registry wants some.
    pub(super) async fn call(
        &self,
        what: &str,
        method: &Method,
        uri: &str,
        headers: &[(HeaderName, String)],
        payload: Payload,
    ) -> Result<Response<Incoming>, ImageError> {
        let bytes = match payload {
            // Its own progress bounds the wait.
            Payload::Stream(body) => return self.send(what, method, uri, headers, body).await,
            Payload::Bytes(bytes) => bytes,
        };
        let body = || Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync();
        let late = |_| self.broken(what, io::Error::from(io::ErrorKind::TimedOut));
        let response = timeout(PATIENCE, self.send(what, method, uri, headers, body())).await.map_err(late)??;
        if response.status() != StatusCode::UNAUTHORIZED || !self.authorize(what, &response).await? {
            return Ok(response);
        }
        timeout(PATIENCE, self.send(what, method, uri, headers, body())).await.map_err(late)?
    }

    async fn send(
        &self,
        what: &str,
        method: &Method,
        uri: &str,
        headers: &[(HeaderName, String)],
        body: Body,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What a registry moved elsewhere is not shown its credentials.
        let own = uri.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'));
        if let Some(authorization) = authorization.filter(|_| own) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(body).map_err(|error| self.broken(what, error))?;
        let response = match &self.http {
            Http::Plain(client) => client.request(request).await,
            Http::Tls(client) => client.request(request).await,
        };
        response.map_err(|error| self.broken(what, error))
    }

    /// Gets what a 401 asks for; false where that was tried already or cannot be had.
    async fn authorize(&self, what: &str, response: &Response<Incoming>) -> Result<bool, ImageError> {
        let header = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let authorization = match header.and_then(Challenge::parse) {
            Some(Challenge::Basic) => self.credentials.as_ref().map(|credentials| format!("Basic {credentials}")),
            Some(Challenge::Bearer { uri }) => Some(format!("Bearer {}", self.token(&uri).await?)),
            None => None,
        };
        let Some(authorization) = authorization else { return Ok(false) };
        tracing::debug!(registry = self.registry, what, "authorization is wanted");
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(true)
    }

    async fn token(&self, uri: &str) -> Result<String, ImageError> {
        let what = "token";
        let mut request = Request::builder().uri(uri);
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
        }
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).map_err(|error| self.broken(what, error))?;
        let asked = async {
            match &self.http {
                Http::Plain(client) => client.request(request).await,
                Http::Tls(client) => client.request(request).await,
            }
        };
        let late = |_| self.broken(what, io::Error::from(io::ErrorKind::TimedOut));
        let response = timeout(PATIENCE, asked).await.map_err(late)?.map_err(|error| self.broken(what, error))?;
        let response = self.expect(what, response, &[StatusCode::OK]).await?;
        let answer = self.whole(what, response, 1 << 20).await?;
        token(&answer).ok_or_else(|| self.refused(what, StatusCode::OK, "there is no token in the answer".to_owned()))
    }

    /// The answer where it has one of these statuses; otherwise what it says against the request.
    pub(super) async fn expect(
        &self,
        what: &str,
        response: Response<Incoming>,
        fine: &[StatusCode],
    ) -> Result<Response<Incoming>, ImageError> {
        let status = response.status();
        if fine.contains(&status) {
            return Ok(response);
        }
        // The status tells enough where the text does not come.
        let text = self.whole(what, response, REFUSAL).await.unwrap_or_default();
        let document: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let first = document.as_ref().and_then(|d| d.get("errors")).and_then(|errors| errors.get(0));
        let field = |name: &str| first.and_then(|e| e.get(name)).and_then(|text| text.as_str()).unwrap_or_default();
        let message = [field("code"), field("message")].join(" ").trim().to_owned();
        Err(self.refused(what, status, message))
    }

    /// The whole of an answer.
    async fn whole(&self, what: &str, response: Response<Incoming>, most: usize) -> Result<Bytes, ImageError> {
        let body = Limited::new(response.into_body(), most).collect();
        match timeout(PATIENCE, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.broken(what, error)),
            Err(_) => Err(self.broken(what, io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// The connection, not the registry, is to blame.
    pub(super) fn broken(&self, what: &str, source: impl Into<crate::images::error::BoxError>) -> ImageError {
        ImageError::Transfer { registry: self.registry.clone(), operation: what.to_owned(), source: source.into() }
    }

    pub(super) fn refused(&self, what: &str, status: StatusCode, message: String) -> ImageError {
        let (registry, operation) = (self.registry.clone(), what.to_owned());
        ImageError::Refused { registry, operation, status: status.as_u16(), message }
    }
}

/// Header of an octet stream.
pub(super) fn octets() -> (HeaderName, String) {
    (CONTENT_TYPE, "application/octet-stream".to_owned())
}

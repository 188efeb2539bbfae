//! Answers of the protocol, its errors foremost.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::images::ImageError;

/// Tells old clients which protocol this is.
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
/// The digest of what is answered or was taken.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The specification's error codes, section "Error Codes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TooManyRequests,
    Unsupported,
    /// None of the specification's: trouble on our side.
    Unknown,
}

/// A request that is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
}

impl Refusal {
    pub(super) const fn new(status: StatusCode, code: Code, message: String) -> Self {
        Self { status, code, message }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Not the client's fault.
    pub(super) fn is_ours(&self) -> bool {
        self.status.is_server_error()
    }

    pub(super) fn into_response(self) -> Response {
        let error = serde_json::json!({ "code": self.code, "message": self.message, "detail": null });
        json(self.status, &serde_json::json!({ "errors": [error] }))
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        let (status, code) = match &error {
            ImageError::Digest { .. } | ImageError::Mismatch { .. } => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
            ImageError::Reference { .. } => (StatusCode::BAD_REQUEST, Code::NameInvalid),
            ImageError::Manifest { .. } => (StatusCode::BAD_REQUEST, Code::ManifestInvalid),
            ImageError::MissingBlob { .. } => (StatusCode::BAD_REQUEST, Code::ManifestBlobUnknown),
            ImageError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid),
            ImageError::NotFound { .. } => (StatusCode::NOT_FOUND, Code::BlobUnknown),
            ImageError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests),
            ImageError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, Code::Unknown),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown),
        };
        Self::new(status, code, error.to_string())
    }
}

/// A document.
pub(super) fn json(status: StatusCode, document: &serde_json::Value) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (status, [VERSION, kind], document.to_string()).into_response()
}

/// An answer with headers and any body.
pub(super) fn with(status: StatusCode, headers: Vec<(HeaderName, String)>, body: Body) -> Response {
    let mut response = (status, [VERSION], body).into_response();
    for (name, value) in headers {
        // Names, digests and numbers of ours; one that no header can hold is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

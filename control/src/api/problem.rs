//! What is told where something could not be done: problem details for HTTP (RFC 9457), one type per kind.

use std::borrow::Cow;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::orders::OrderError;
use crate::reconcile::HoldError;
use crate::store::StoreError;

tokio::task_local! {
    /// The name of the request that is being answered.
    pub(super) static REQUEST: String;
}

/// The name of the request that is being answered; empty outside of one.
pub(super) fn request_id() -> String {
    REQUEST.try_with(Clone::clone).unwrap_or_default()
}

/// Media type of a problem.
pub const PROBLEM: &str = "application/problem+json";

/// What kinds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is not what the document describes.
    Malformed,
    /// It is not known who asks.
    Unauthenticated,
    /// They may not.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The thing has no such method.
    MethodNotAllowed,
    /// No representation that is accepted.
    NotAcceptable,
    /// The request did not come in time.
    Timeout,
    /// The state of things speaks against it.
    Conflict,
    /// It was changed since it was looked at.
    Changed,
    /// The body is too large.
    TooLarge,
    /// The body is no JSON.
    UnsupportedMediaType,
    /// The content is wrong.
    Invalid,
    /// Too many requests.
    TooManyRequests,
    /// It failed inside.
    Failed,
    /// Not now: the daemon ends, or its store cannot be written.
    Unavailable,
}

impl Kind {
    /// Status code, short fixed name, title.
    #[must_use]
    pub const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed", "The request is not understood"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "Nobody is known by that"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not allowed to this caller"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "There is no such method here")
            }
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not_acceptable", "It cannot be had in that form"),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout", "The request took too long to come"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "The state of things speaks against it"),
            Self::Changed => (StatusCode::PRECONDITION_FAILED, "changed", "It was changed since it was looked at"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is not of that form")
            }
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The content is wrong"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests"),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed", "It could not be done"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not now"),
        }
    }

    /// Status code.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The kind that a bare status stands for, where the router or a limit answered by itself.
    pub(super) fn of(status: StatusCode) -> Option<Self> {
        [Self::NotFound, Self::MethodNotAllowed, Self::TooLarge, Self::Timeout, Self::UnsupportedMediaType]
            .into_iter()
            .find(|kind| kind.status() == status)
    }
}

/// A problem, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Names its kind: `urn:selvedge:problem:` and a short name.
    #[serde(rename = "type")]
    pub problem: String,
    /// The kind in words.
    pub title: String,
    /// The status code once more.
    pub status: u16,
    /// What happened this time, a whole sentence.
    pub detail: String,
    /// Short fixed name of the cause.
    pub code: String,
    /// Each thing that is wrong, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// The request's name in the log.
    #[serde(default)]
    pub request_id: String,
}

/// A problem before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    kind: Kind,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<String>,
}

impl Refused {
    /// A problem whose cause is its kind.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, code: kind.parts().1, detail: detail.into(), errors: Vec::new() }
    }

    /// With a cause of its own.
    pub fn coded(kind: Kind, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, ..Self::new(kind, detail) }
    }

    /// With a list of what is wrong.
    pub fn with(self, errors: Vec<String>) -> Self {
        Self { errors, ..self }
    }

    /// The daemon is about to end.
    pub fn ending() -> Self {
        Self::coded(Kind::Unavailable, "ending", "the daemon is about to end; nothing was done")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, name, title) = self.kind.parts();
        let problem = Problem {
            problem: format!("urn:selvedge:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.into_owned(),
            code: self.code.to_owned(),
            errors: self.errors,
            request_id: request_id(),
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        match self.kind {
            Kind::Unauthenticated => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Kind::TooManyRequests | Kind::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<HoldError> for Refused {
    fn from(error: HoldError) -> Self {
        let kind = match &error {
            HoldError::Unknown { .. } => Kind::NotFound,
            HoldError::NeedsForce { .. } | HoldError::NotHeld => Kind::Conflict,
            HoldError::Publish { .. } => Kind::Failed,
            HoldError::Store(_) => Kind::Unavailable,
        };
        let reasons = match &error {
            HoldError::NeedsForce { reasons, .. } => reasons.clone(),
            _ => Vec::new(),
        };
        Self::coded(kind, error.label(), error.to_string()).with(reasons)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        HoldError::Store(error).into()
    }
}

impl From<OrderError> for Refused {
    fn from(error: OrderError) -> Self {
        let kind = match &error {
            OrderError::Changed { .. } => Kind::Changed,
            OrderError::Store(_) => Kind::Unavailable,
        };
        Self::coded(kind, error.label(), error.to_string())
    }
}

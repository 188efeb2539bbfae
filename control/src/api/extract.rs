//! Parts of a request, with problems where they are wrong.

use std::time::Duration;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::problem::{Kind, Refused};

/// Longest wait for a body whose head has come.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// What stands in the path. What has not the form of a name names nothing.
pub(super) struct Of<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Of<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|e| Refused::new(Kind::NotFound, e.body_text()))
    }
}

/// The query.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|e| Refused::new(Kind::Malformed, e.body_text()))
    }
}

/// The revision that `If-Match` names; `None` without the header or with `*`.
pub(super) struct IfMatch(pub Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        revision(&parts.headers).map(Self)
    }
}

fn revision(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let wrong = || Refused::new(Kind::Malformed, "If-Match holds one entity tag as the ETag header had it, or *");
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.is_empty() {
        // A list of no tags (RFC 9110, 13.1.1): none of them matches.
        return Ok(Some(u64::MAX));
    }
    if text == "*" {
        return Ok(None);
    }
    let digits = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(wrong)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    // One that is larger than any revision matches none.
    Ok(Some(digits.parse().unwrap_or(u64::MAX)))
}

/// A JSON body.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let form = request.headers().get(CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or_default();
        if form.split(';').next().map(|form| form.trim().to_ascii_lowercase()).as_deref() != Some("application/json") {
            return Err(Refused::new(Kind::UnsupportedMediaType, "send JSON with Content-Type: application/json"));
        }
        let body = timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await;
        let late = |_| Refused::new(Kind::Timeout, format!("the body did not come within {BODY_PATIENCE:?}"));
        let bytes = body.map_err(late)?.map_err(|error| match error {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                Refused::new(Kind::TooLarge, "the body is larger than this operation takes")
            }
            other => Refused::new(Kind::Malformed, other.body_text()),
        })?;
        let mut content: Value = serde_json::from_slice(&bytes)
            .map_err(|e| Refused::new(Kind::Malformed, format!("the body is no JSON: {e}")))?;
        whole_numbers(&mut content);
        let content = serde_json::from_value(content);
        content.map(Self).map_err(|e| Refused::new(Kind::Invalid, format!("the body: {e}")))
    }
}

/// JSON has one kind of numbers, and JSON Schema takes 3.0 for an integer as well.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) => {
            // Exact up to here.
            let whole = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() < 9e15);
            if let Some(whole) = whole {
                *value = if whole < 0.0 { Value::from(whole as i64) } else { Value::from(whole as u64) };
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        let mut value = serde_json::json!({ "a": [3.0, -2.0, 1.5, 7], "b": 1e300 });
        whole_numbers(&mut value);
        assert_eq!(value, serde_json::json!({ "a": [3, -2, 1.5, 7], "b": 1e300 }));
    }
}

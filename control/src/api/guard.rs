//! What every request passes: a name for the log, its peer's rate, who asks and what they may, what form they accept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Extensions, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use tracing::{debug, info};

use super::caller::{Caller, Right, Tokens};
use super::limits::Limits;
use super::problem::{Kind, PROBLEM, REQUEST, Refused, request_id};

/// Longest time from a request's head to its answer's.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest name of a request that is taken from the caller.
const LONGEST_ID: usize = 64;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What a listener knows of its requests.
#[derive(Debug)]
pub(super) struct Guard {
    pub limits: Arc<Limits>,
    /// Who may come in with a token; `None` where the connection says who it is.
    pub tokens: Option<Tokens>,
}

/// Who the connection says is there, and for whom its requests are counted.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub caller: Option<Caller>,
    pub key: String,
}

/// Passes a request on, or tells why not.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| sound(id));
    let id = given.map_or_else(|| format!("{:x}", NEXT.fetch_add(1, Ordering::Relaxed)), str::to_owned);
    let named = HeaderValue::from_str(&id);
    let mut response = REQUEST.scope(id, answer(guard, request, next)).await;
    if let Ok(named) = named {
        response.headers_mut().insert(REQUEST_ID, named);
    }
    response
}

/// A name that a log line can hold.
fn sound(id: &str) -> bool {
    !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

async fn answer(guard: Arc<Guard>, mut request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = match admit(&guard, request.headers(), request.extensions()) {
        Ok(caller) => caller,
        Err(refused) => return refused.into_response(),
    };
    let wanted = right(&method);
    if caller.right < wanted {
        let detail =
            format!("{} may not {}", caller.name, if wanted == Right::Write { "change anything" } else { "look" });
        return Refused::new(Kind::Forbidden, detail).into_response();
    }
    request.extensions_mut().insert(caller.clone());
    let response = match timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refused::new(Kind::Unavailable, format!("no answer within {PATIENCE:?}")).into_response(),
    };
    let status = response.status().as_u16();
    if wanted == Right::Write {
        info!(request = request_id(), by = caller.name, %method, path, status, "api");
    } else {
        debug!(request = request_id(), by = caller.name, %method, path, status, "api");
    }
    told(response, &method, &path)
}

/// Who asks, within their rate.
fn admit(guard: &Guard, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refused> {
    let peer = extensions.get::<Peer>();
    let key = peer.map_or("", |peer| peer.key.as_str());
    if !guard.limits.take(key, Instant::now()) {
        return Err(Refused::new(Kind::TooManyRequests, "this peer asks too often; wait a second"));
    }
    if let Some(caller) = peer.and_then(|peer| peer.caller.clone()) {
        return Ok(caller);
    }
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let known = guard.tokens.as_ref().zip(token).and_then(|(tokens, token)| tokens.caller(token.trim()).cloned());
    known.ok_or_else(|| Refused::new(Kind::Unauthenticated, "give a token as Authorization: Bearer TOKEN"))
}

/// Looking is everybody's who may read; all else is an order.
pub(super) fn right(method: &Method) -> Right {
    if [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(method) {
        Right::Read
    } else {
        Right::Write
    }
}

/// Gives what the router answers by itself the form that all else has.
fn told(response: Response, method: &Method, path: &str) -> Response {
    let Some(kind) = Kind::of(response.status()) else { return response };
    let has_form = response.headers().get(axum::http::header::CONTENT_TYPE).is_some_and(|form| form == PROBLEM);
    if has_form {
        return response;
    }
    let detail = match kind {
        Kind::MethodNotAllowed => format!("{path} has no {method}; the Allow header tells what it has"),
        _ => format!("there is no {path}; /openapi.json lists all that is"),
    };
    let allow = response.headers().get(axum::http::header::ALLOW).cloned();
    let mut told = Refused::new(kind, detail).into_response();
    if let Some(allow) = allow {
        told.headers_mut().insert(axum::http::header::ALLOW, allow);
    }
    told
}

/// Refuses to look at what only those may who may write.
pub(super) async fn privileged(request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.right == Right::Write => next.run(request).await,
        _ => Refused::new(Kind::Forbidden, "only those who may write may look at this").into_response(),
    }
}

/// Refuses what accepts none of the forms that an operation has.
pub(super) async fn accepts(State(form): State<&'static str>, request: Request, next: Next) -> Response {
    let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<&str> = accepted.flat_map(|value| value.split(',')).collect();
    if accepted.is_empty() || accepted.iter().any(|range| covers(range, form)) {
        return next.run(request).await;
    }
    Refused::new(Kind::NotAcceptable, format!("it can be had as {form} only")).into_response()
}

/// Whether a media range (RFC 9110, 12.5.1) holds a media type. What follows `;` but for `q=0` is not looked at.
fn covers(range: &str, form: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let range = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
    if weight.is_some_and(|q| q.parse::<f64>().is_ok_and(|q| q <= 0.0)) {
        return false;
    }
    range == "*/*" || range == form || range.strip_suffix("/*").is_some_and(|kind| form.split('/').next() == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_ranges_hold_what_they_say() {
        for (range, held) in [
            ("*/*", true),
            ("application/*", true),
            ("Application/JSON", true),
            (" application/json;q=0.5", true),
            ("application/json; q=0", false),
            ("text/*", false),
            ("application/xml", false),
            ("", false),
        ] {
            assert_eq!(covers(range, "application/json"), held, "{range}");
        }
    }

    #[test]
    fn what_is_no_name_is_replaced() {
        assert!(sound("a-1.b_c:d") && !sound("") && !sound("a b") && !sound(&"a".repeat(65)) && !sound("ä"));
    }
}

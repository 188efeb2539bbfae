//! The command's way to a running daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Status;
use super::tables::{Pair, Refusal, RollbackOrder, TableContent, TableDifference, TableList, TableOrdered};
use crate::model::{NetPlan, NetReport};

/// Longest wait for an answer; the daemon answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for an order to be carried out: large tables take their time.
const ORDER_PATIENCE: Duration = Duration::from_secs(60);

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there.
    #[error("{path}: {source}; is selvedged running? (systemctl status selvedged)")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// The caller may not talk to it.
    #[error("{path}: not allowed; run this as root")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// It did not answer in time.
    #[error("{path}: no answer within {patience:?}; see journalctl -u selvedged")]
    Late {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The connection broke.
    #[error("{path}: {source}")]
    Http {
        /// The socket.
        path: PathBuf,
        /// What was met.
        source: hyper::Error,
    },
    /// It was asked for something that HTTP has no words for.
    #[error("{target}: {source}")]
    Request {
        /// What was asked for.
        target: String,
        /// What is wrong.
        source: hyper::http::Error,
    },
    /// It will not, and says why.
    #[error("{}", .0.error)]
    Refused(Refusal),
    /// It answered that it cannot.
    #[error("{path}: HTTP status {status}")]
    Status {
        /// The socket.
        path: PathBuf,
        /// The answer.
        status: StatusCode,
    },
    /// It answered something else; command and daemon are of different versions.
    #[error("{path}: not the document that was asked for: {source}; are selvedge and selvedged of the same version?")]
    Form {
        /// The socket.
        path: PathBuf,
        /// What was met.
        source: serde_json::Error,
    },
}

/// The daemon's status.
///
/// # Errors
/// [`ClientError`].
pub async fn status(path: &Path) -> Result<Status, ClientError> {
    get(path, "/v1/status").await
}

/// The published tables that are kept.
///
/// # Errors
/// [`ClientError`].
pub async fn tables(path: &Path) -> Result<TableList, ClientError> {
    get(path, "/v1/tables").await
}

/// What is in one of them.
///
/// # Errors
/// [`ClientError`].
pub async fn table(path: &Path, generation: u64) -> Result<TableContent, ClientError> {
    get(path, &format!("/v1/tables/{generation}")).await
}

/// What differs between two of them.
///
/// # Errors
/// [`ClientError`].
pub async fn table_diff(path: &Path, pair: Pair) -> Result<TableDifference, ClientError> {
    let field = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
    let fields: Vec<String> = [field("from", pair.from), field("to", pair.to)].into_iter().flatten().collect();
    get(path, &format!("/v1/tables/diff?{}", fields.join("&"))).await
}

/// Puts a table in force again and holds it.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn roll_back(path: &Path, order: &RollbackOrder) -> Result<TableOrdered, ClientError> {
    let form = |source| ClientError::Form { path: path.to_owned(), source };
    let body = serde_json::to_vec(order).map_err(form)?;
    call(path, Method::POST, "/v1/tables/rollback", body, ORDER_PATIENCE).await
}

/// Ends the hold.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn release(path: &Path) -> Result<TableOrdered, ClientError> {
    call(path, Method::POST, "/v1/tables/release", Vec::new(), ORDER_PATIENCE).await
}

/// The networks that are wanted, and what was repaired.
///
/// # Errors
/// [`ClientError`].
pub async fn network(path: &Path) -> Result<NetReport, ClientError> {
    get(path, "/v1/network").await
}

/// Makes the networks as they are declared; gives what was done.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn apply_network(path: &Path) -> Result<NetPlan, ClientError> {
    call(path, Method::POST, "/v1/network/apply", Vec::new(), ORDER_PATIENCE).await
}

async fn get<T: DeserializeOwned>(path: &Path, target: &str) -> Result<T, ClientError> {
    call(path, Method::GET, target, Vec::new(), PATIENCE).await
}

async fn call<T: DeserializeOwned>(
    path: &Path,
    method: Method,
    target: &str,
    body: Vec<u8>,
    patience: Duration,
) -> Result<T, ClientError> {
    let late = |_| ClientError::Late { path: path.to_owned(), patience };
    let (status, body) = timeout(patience, exchange(path, method, target, body)).await.map_err(late)??;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|source| ClientError::Form { path: path.to_owned(), source });
    }
    match serde_json::from_slice(&body) {
        Ok(refusal) => Err(ClientError::Refused(refusal)),
        Err(_) => Err(ClientError::Status { path: path.to_owned(), status }),
    }
}

async fn exchange(
    path: &Path,
    method: Method,
    target: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let http = |source| ClientError::Http { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied { path: path.to_owned() },
        _ => ClientError::Connect { path: path.to_owned(), source },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(hyper::header::HOST, "selvedged")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)));
    let request = request.map_err(|source| ClientError::Request { target: target.to_owned(), source })?;
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(http)?.to_bytes();
    driver.abort();
    Ok((status, body))
}

//! The command's way to a running daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Status;

/// Longest wait for an answer; the daemon answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

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
    #[error("{path}: no answer within {PATIENCE:?}; see journalctl -u selvedged")]
    Late {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("{path}: {source}")]
    Http {
        /// The socket.
        path: PathBuf,
        /// What was met.
        source: hyper::Error,
    },
    /// It answered that it cannot.
    #[error("{path}: HTTP status {status}")]
    Status {
        /// The socket.
        path: PathBuf,
        /// The answer.
        status: StatusCode,
    },
    /// It answered something else; command and daemon are of different versions.
    #[error("{path}: not a status document: {source}; are selvedge and selvedged of the same version?")]
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
    let body = timeout(PATIENCE, get(path, "/v1/status")).await;
    let body = body.map_err(|_| ClientError::Late { path: path.to_owned() })??;
    serde_json::from_slice(&body).map_err(|source| ClientError::Form { path: path.to_owned(), source })
}

async fn get(path: &Path, target: &'static str) -> Result<Bytes, ClientError> {
    let http = |source| ClientError::Http { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied { path: path.to_owned() },
        _ => ClientError::Connect { path: path.to_owned(), source },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let driver = tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::from_static(target);
    request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("selvedged"));
    let response = sender.send_request(request).await.map_err(http)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(http)?.to_bytes();
    driver.abort();
    if status == StatusCode::OK { Ok(body) } else { Err(ClientError::Status { path: path.to_owned(), status }) }
}

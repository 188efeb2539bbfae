//! One download over HTTP/1.1 and a connection of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Why a download is not a good one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("connect to {address}: {source}")]
    Connect {
        /// The instance.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The request cannot be written, from the options given.
    #[error("request {path:?} of {host:?}: {source}")]
    Request {
        /// Host header.
        host: String,
        /// Path.
        path: String,
        /// What is wrong.
        source: hyper::http::Error,
    },
    /// No response.
    #[error("response of {address}: {source}")]
    Response {
        /// The instance.
        address: SocketAddr,
        /// What went wrong.
        source: hyper::Error,
    },
    /// Another status than 200.
    #[error("{address} answers {status}")]
    Status {
        /// The instance.
        address: SocketAddr,
        /// The status.
        status: StatusCode,
    },
    /// The body broke off.
    #[error("body from {address} after {got} bytes: {source}")]
    Body {
        /// The instance.
        address: SocketAddr,
        /// Bytes that came.
        got: u64,
        /// What went wrong.
        source: hyper::Error,
    },
    /// The body is not as long as announced.
    #[error("body from {address}: {got} bytes came, {expected} were announced")]
    Length {
        /// The instance.
        address: SocketAddr,
        /// Bytes that came.
        got: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// Nothing says how long the body should be, so nothing says that it is whole.
    #[error("body from {address}: neither Content-Length nor Transfer-Encoding, so it cannot be checked")]
    Unbounded {
        /// The instance.
        address: SocketAddr,
    },
}

impl FetchError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Request { .. } => "request",
            Self::Response { .. } => "response",
            Self::Status { .. } => "status",
            Self::Body { .. } => "body",
            Self::Length { .. } => "length",
            Self::Unbounded { .. } => "unbounded",
        }
    }
}

/// How a download went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetched {
    /// Start of the connection → head of the response.
    pub response: Duration,
    /// Head → end of the body.
    pub download: Duration,
    /// Bytes of the body.
    pub bytes: u64,
}

/// The Host header for a service: its name without the final dot, and the port unless it is HTTP's.
pub(super) fn host(name: &str, port: u16) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    if port == 80 { name.to_owned() } else { format!("{name}:{port}") }
}

/// Downloads `path`. `progress` is called when the connection stands and when a good head has come.
pub(super) async fn fetch(
    address: SocketAddr,
    host: &str,
    path: &str,
    mut progress: impl FnMut(Progress),
) -> Result<Fetched, FetchError> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("selvedge-load/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|source| FetchError::Request { host: host.to_owned(), path: path.to_owned(), source })?;
    let start = Instant::now();
    let stream = TcpStream::connect(address).await.map_err(|source| FetchError::Connect { address, source })?;
    progress(Progress::Connected);
    let no_response = |source| FetchError::Response { address, source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_response)?;
    // Drives the connection; dropped with this request, however it ends. Its errors reach the sender.
    let mut driver = JoinSet::new();
    driver.spawn(connection);

    let response = sender.send_request(request).await.map_err(no_response)?;
    let first_byte = Instant::now();
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status { address, status: response.status() });
    }
    progress(Progress::Responded);
    let announced = announced(response.headers());
    if announced.is_none() && !response.headers().contains_key(TRANSFER_ENCODING) {
        return Err(FetchError::Unbounded { address });
    }
    let mut body = response.into_body();
    let mut got = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| FetchError::Body { address, got, source })?;
        got += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    match announced {
        Some(expected) if expected != got => Err(FetchError::Length { address, got, expected }),
        _ => Ok(Fetched { response: first_byte - start, download: first_byte.elapsed(), bytes: got }),
    }
}

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Connected,
    Responded,
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

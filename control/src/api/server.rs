//! The listeners: a Unix socket for this machine, TCP for others where that is configured, and metrics.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::http::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::{debug, error, info, warn};

use super::caller::{Caller, Local, Right, TokenError, Tokens, fingerprint};
use super::feed::Cut;
use super::guard::{Guard, Peer, guard};
use super::inspect;
use super::limits::{Limits, Place};
use super::openapi;
use super::operations::router;
use super::status::Sources;
use super::tls::{TlsError, acceptor};
use crate::config::Api;
use crate::stop::Stop;

/// Longest time for a request's head, and between two requests of a connection.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for a TLS handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Largest head of a request.
const LARGEST_HEAD: usize = 32 << 10;

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The Unix socket.
    #[error("API socket {path}: {source}; choose another path in control.socket")]
    Socket {
        /// Where it should have been.
        path: PathBuf,
        /// What was met.
        source: io::Error,
    },
    /// Another daemon answers there.
    #[error("API socket {path}: another selvedged is running there; stop it first or configure control.socket")]
    InUse {
        /// Where it is.
        path: PathBuf,
    },
    /// The listener for TCP.
    #[error("API on {address}: {source}; choose another address in api.listen")]
    Tcp {
        /// Where it should have been.
        address: SocketAddr,
        /// What was met.
        source: io::Error,
    },
    /// Its certificates.
    #[error("API on TCP: {0}; look at api.certificate, api.key and api.client_ca")]
    Tls(#[from] TlsError),
    /// Its tokens.
    #[error("api.token_file {path}: {source}")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// The metrics listener.
    #[error("metrics listener {address}: {source}; choose another address in control.metrics")]
    Metrics {
        /// Where it should have been.
        address: SocketAddr,
        /// What was met.
        source: io::Error,
    },
}

/// What a listener answers with, and how much.
#[derive(Clone)]
struct Answers {
    router: Router,
    limits: Arc<Limits>,
}

impl Answers {
    fn new(sources: Sources, api: &Api, tokens: Option<Tokens>) -> Self {
        let limits = Limits::new(api.requests_per_second);
        let state = Arc::new(Guard { limits: Arc::clone(&limits), tokens });
        let router = router(sources)
            .layer(from_fn_with_state(state, guard))
            .layer(Extension(Arc::clone(&limits)))
            .layer(Extension(openapi::document()));
        Self { router, limits }
    }

    /// One connection, until either side ends it, it is cut off, or the daemon ends.
    async fn converse<S>(self, stream: S, peer: Peer, place: Place, mut shutdown: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (cut, mut off) = Cut::new();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(cut.clone());
            self.router.clone().oneshot(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(LARGEST_HEAD);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut ending = false;
        loop {
            tokio::select! {
                done = connection.as_mut() => {
                    if let Err(error) = done {
                        debug!(%error, "API connection");
                    }
                    break;
                }
                () = off.ordered() => break,
                () = shutdown.ordered(), if !ending => {
                    connection.as_mut().graceful_shutdown();
                    ending = true;
                }
            }
        }
        drop(place);
    }
}

/// Serves the API on a Unix socket until `shutdown`. Who may do what, the kernel's word on the peer decides.
///
/// # Errors
/// [`ApiError`] where the socket cannot be made or another daemon answers on it.
pub async fn serve_socket(path: &Path, api: &Api, sources: Sources, mut shutdown: Stop) -> Result<(), ApiError> {
    let failed = |source| ApiError::Socket { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    if path.exists() {
        // A socket file outlives its daemon; a daemon that still answers keeps it.
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(ApiError::InUse { path: path.to_owned() }),
            Err(_) => fs::remove_file(path).map_err(failed)?,
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Where others than root may come at all, everybody may connect and the peer's credentials decide.
    let mode = if api.group.is_some() || api.others_read { 0o666 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    let local = Local { group: api.group.clone(), others_read: api.others_read };
    let answers = Answers::new(sources, api, None);
    let made = path.to_owned();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.ordered() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let caller = local.caller(&stream);
                    let trusted = caller.right == Right::Write;
                    // Beyond the limit a connection is closed at once, which says as much as an answer could.
                    let Some(place) = answers.limits.connect(&caller.name, trusted) else { continue };
                    let peer = Peer { key: caller.name.clone(), caller: Some(caller) };
                    tokio::spawn(answers.clone().converse(stream, peer, place, shutdown.clone()));
                }
                Err(error) => pause("API socket", &error).await,
            }
        }
        let _ = fs::remove_file(made);
    });
    Ok(())
}

/// No descriptor is left, as a rule: the next may be.
async fn pause(what: &str, error: &io::Error) {
    warn!(%error, "{what}: a connection could not be taken");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Serves the API over TCP until `shutdown`, where that is configured: with TLS, or on loopback; to those who have a
/// certificate of the configured authority or a token.
///
/// # Errors
/// [`ApiError`] where address, certificates or tokens cannot be used.
pub async fn serve_tcp(api: &Api, sources: Sources, mut shutdown: Stop) -> Result<(), ApiError> {
    let Some(address) = api.listen else { return Ok(()) };
    let tokens = api
        .token_file
        .as_deref()
        .map(|path| Tokens::load(path).map_err(|source| ApiError::Tokens { path: path.to_owned(), source }));
    let tokens = tokens.transpose()?;
    let tls = match &api.tls {
        Some((chain, key)) => Some(acceptor((chain, key), api.client_ca.as_deref(), tokens.is_some())?),
        None => None,
    };
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Tcp { address, source })?;
    info!(%address, tls = tls.is_some(), "API");
    let answers = Answers::new(sources, api, Some(tokens.unwrap_or_default()));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.ordered() => break,
            };
            match accepted {
                Ok((stream, from)) => {
                    let key = from.ip().to_string();
                    let Some(place) = answers.limits.connect(&key, false) else { continue };
                    tokio::spawn(take(answers.clone(), stream, tls.clone(), key, place, shutdown.clone()));
                }
                Err(error) => pause("API on TCP", &error).await,
            }
        }
    });
    Ok(())
}

/// A connection over TCP: the handshake, then requests.
async fn take(
    answers: Answers,
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    key: String,
    place: Place,
    shutdown: Stop,
) {
    let Some(tls) = tls else {
        return answers.converse(stream, Peer { caller: None, key }, place, shutdown).await;
    };
    match timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            // Only a verified certificate is there at all.
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let caller = certificate.map(|c| Caller { name: fingerprint(c), right: Right::Write });
            answers.converse(stream, Peer { caller, key }, place, shutdown).await;
        }
        Ok(Err(error)) => debug!(peer = key, %error, "TLS"),
        Err(_) => debug!(peer = key, "no TLS handshake in time"),
    }
}

/// Serves Prometheus metrics over TCP until `shutdown`.
///
/// # Errors
/// [`ApiError::Metrics`] where the address cannot be had.
pub async fn serve_metrics(address: SocketAddr, sources: Sources, mut shutdown: Stop) -> Result<(), ApiError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Metrics { address, source })?;
    info!(%address, "metrics");
    let router = Router::new().route("/metrics", get(inspect::metrics)).with_state(sources);
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.ordered().await }).await;
        if let Err(error) = served {
            error!(%error, "metrics listener");
        }
    });
    Ok(())
}

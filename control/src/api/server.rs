//! The two listeners: a Unix socket for this machine's operators, TCP for Prometheus.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::{TcpListener, UnixListener};
use tracing::info;

use super::status::{Sources, Status};
use super::{network, tables};
use crate::metrics;
use crate::stop::Stop;

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
    /// The metrics listener.
    #[error("metrics listener {address}: {source}; choose another address in control.metrics")]
    Metrics {
        /// Where it should have been.
        address: SocketAddr,
        /// What was met.
        source: io::Error,
    },
}

fn router(sources: Sources) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/tables", get(tables::list))
        .route("/v1/tables/{generation}", get(tables::show))
        .route("/v1/tables/diff", get(tables::diff))
        .route("/v1/tables/rollback", post(tables::roll_back))
        .route("/v1/tables/release", post(tables::release))
        .route("/v1/network", get(network::show))
        .route("/v1/network/apply", post(network::apply))
        .route("/metrics", get(prometheus))
        .with_state(sources)
}

async fn status(State(sources): State<Sources>) -> Json<Status> {
    Json(tokio::task::block_in_place(|| sources.status()))
}

async fn prometheus(State(sources): State<Sources>) -> impl IntoResponse {
    let text = tokio::task::block_in_place(|| metrics::render(&sources.status()));
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

/// Serves the API on a Unix socket that root and the socket's group may use, until `shutdown`.
///
/// # Errors
/// [`ApiError`] where the socket cannot be made or another daemon answers on it.
pub async fn serve_socket(path: &Path, sources: Sources, mut shutdown: Stop) -> Result<(), ApiError> {
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
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    let made = path.to_owned();
    tokio::spawn(async move {
        let served = axum::serve(listener, router(sources).into_make_service_with_connect_info::<tables::Caller>())
            .with_graceful_shutdown(async move { shutdown.ordered().await })
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "API socket");
        }
        let _ = fs::remove_file(made);
    });
    Ok(())
}

/// Serves Prometheus metrics over TCP until `shutdown`.
///
/// # Errors
/// [`ApiError::Metrics`] where the address cannot be had.
pub async fn serve_metrics(address: SocketAddr, sources: Sources, mut shutdown: Stop) -> Result<(), ApiError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Metrics { address, source })?;
    info!(%address, "metrics");
    let router = Router::new().route("/metrics", get(prometheus)).with_state(sources);
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.ordered().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "metrics listener");
        }
    });
    Ok(())
}

//! The OCI distribution protocol (v1.1) in front of a [`Store`]: pull and push for engines and other nodes.
//!
//! Blobs are shared by all repositories, so a blob that any of them has counts as there: pushes skip it, and mounts
//! from other repositories always find it. There is no deleting over the network; `selvedge image gc` does that.

mod answer;
mod download;
mod path;
mod upload;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use ipnet::IpNet;
use tokio::net::TcpListener;

use super::ImageError;
use super::layout::Store;
use answer::{Code, Refusal, json};
use path::{Path, Query};
use upload::Uploads;

/// Who may do what, and how much.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Clients that may push; all that reach the address may pull.
    pub push_from: Vec<IpNet>,
    /// Largest blob that is taken, in bytes.
    pub largest_blob: u64,
}

/// Why the repository cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("image repository on {address}: {source}; choose another address in images.listen")]
pub struct ListenError {
    /// Where it should have been.
    pub address: SocketAddr,
    /// What was met.
    pub source: io::Error,
}

/// What every request needs.
pub(super) struct Shared {
    store: Arc<Store>,
    uploads: Uploads,
    terms: Terms,
}

/// Begins to serve `store` on `address`, until `shutdown` ends. Gives the address, which matters where the port was 0.
///
/// # Errors
/// [`ListenError`].
pub async fn serve(
    address: SocketAddr,
    store: Arc<Store>,
    terms: Terms,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<SocketAddr, ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let shared = Shared { uploads: Uploads::new(Arc::clone(&store)), store, terms };
    let router = Router::new().fallback(handle).with_state(Arc::new(shared));
    tokio::spawn(async move {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::select! {
            served = axum::serve(listener, service) => {
                if let Err(error) = served {
                    tracing::error!(%error, "image repository");
                }
            }
            // A transfer may take long, and its client goes on where it stood.
            () = shutdown => {}
        }
    });
    Ok(address)
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    match answer(&shared, client, request).await {
        Ok(response) => response,
        Err(refusal) => {
            if refusal.is_ours() {
                tracing::error!(%client, error = refusal.message(), "image repository");
            }
            refusal.into_response()
        }
    }
}

async fn answer(shared: &Shared, client: SocketAddr, request: Request) -> Result<Response, Refusal> {
    let path = Path::parse(request.uri().path())?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let method = request.method().clone();
    let reads = matches!(method, Method::GET | Method::HEAD);
    let own_upload = matches!(path, Path::Upload { .. });
    if (!reads || own_upload) && !shared.terms.push_from.iter().any(|net| net.contains(&client.ip().to_canonical())) {
        let message = format!("{} may pull, but not push; see images.push_from", client.ip());
        return Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, message));
    }
    let body = method != Method::HEAD;
    match (method, path) {
        (Method::GET | Method::HEAD, Path::Base) => Ok(json(StatusCode::OK, &serde_json::json!({}))),
        (Method::GET, Path::Catalog) => download::catalog(shared, &query).await,
        (Method::GET, Path::Tags(repository)) => download::tags(shared, repository, &query).await,
        (Method::GET, Path::Referrers(repository, digest)) => {
            download::referrers(shared, repository, digest, &query).await
        }
        (Method::GET | Method::HEAD, Path::Manifest(repository, target)) => {
            download::manifest(shared, repository, target, body).await
        }
        (Method::PUT, Path::Manifest(repository, target)) => {
            upload::manifest(shared, repository, target, request).await
        }
        (Method::GET | Method::HEAD, Path::Blob(_, digest)) => {
            download::blob(shared, digest, request.headers().get(header::RANGE), body).await
        }
        (Method::POST, Path::Uploads(repository)) => upload::begin(shared, &repository, &query, request).await,
        (Method::GET, Path::Upload { repository, id }) => upload::status(shared, &repository, &id).await,
        (Method::PATCH, Path::Upload { repository, id }) => upload::append(shared, &repository, &id, request).await,
        (Method::PUT, Path::Upload { repository, id }) => {
            upload::finish(shared, &repository, &id, &query, request).await
        }
        (Method::DELETE, Path::Upload { id, .. }) => upload::cancel(shared, &id).await,
        (method, _) => {
            let message = format!("{method} is not done here");
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message))
        }
    }
}

/// Runs what waits for the disk where it holds up nobody.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Refusal::from),
        Err(error) => {
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, format!("work on the disk: {error}")))
        }
    }
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

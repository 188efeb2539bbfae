//! The command's way to a running daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::problem::Problem;
use super::{
    ConfigurationOrder, ConfigurationResource, DecisionResource, DrainOrder, DryRun, InstanceList, InstanceResource,
    Outcome, OverrideOrder, Pair, RollbackOrder, ServiceList, ServiceResource, Status, StoreResource, TableContent,
    TableDifference, TableList, TableOrdered,
};
use crate::model::{InstanceId, NetPlan, NetReport, ServiceName};

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
    #[error("{}", in_words(.0))]
    Refused(Box<Problem>),
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

/// What happened, and each thing that is wrong on a line of its own.
fn in_words(problem: &Problem) -> String {
    let mut words = problem.detail.clone();
    for error in problem.errors.iter().filter(|error| !problem.detail.contains(*error)) {
        words.push_str("\n  ");
        words.push_str(error);
    }
    words
}

/// How an order is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// Only say what would change.
    pub dry_run: bool,
    /// The revision that it shall replace; `None` for whatever is there.
    pub expected: Option<u64>,
}

/// A change, as a watcher is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// Rises with each change, until the daemon is started anew.
    pub revision: u64,
    /// Kind of thing.
    pub resource: String,
    /// Its name.
    pub name: String,
    /// As it is now; absent where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<serde_json::Value>,
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($($given:ident: $kind:ty),*) -> $answer:ty = $target:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`].
        pub async fn $name(path: &Path, $($given: $kind),*) -> Result<$answer, ClientError> {
            call(path, Method::GET, &$target, Vec::new(), None, PATIENCE).await
        }
    )*};
}

reads! {
    /// The daemon's status.
    status() -> Status = "/v1/status";
    /// All services.
    services() -> ServiceList = "/v1/services";
    /// One service.
    service(name: &ServiceName) -> ServiceResource = format!("/v1/services/{name}");
    /// What was decided for one service.
    decision(name: &ServiceName) -> DecisionResource = format!("/v1/decisions/{name}");
    /// All instances.
    instances() -> InstanceList = "/v1/instances";
    /// One instance.
    instance(id: &InstanceId) -> InstanceResource = format!("/v1/instances/{id}");
    /// The configuration in force.
    configuration() -> ConfigurationResource = "/v1/configuration";
    /// Whether the store is sound.
    store() -> StoreResource = "/v1/store";
    /// All that the store holds.
    store_dump() -> Box<serde_json::value::RawValue> = "/v1/store/dump";
    /// The published tables that are kept.
    tables() -> TableList = "/v1/tables";
    /// What is in one of them.
    table(generation: u64) -> TableContent = format!("/v1/tables/{generation}");
    /// The networks that are wanted, and what was repaired.
    network() -> NetReport = "/v1/networks";
}

/// What differs between two tables.
///
/// # Errors
/// [`ClientError`].
pub async fn table_diff(path: &Path, pair: Pair) -> Result<TableDifference, ClientError> {
    let field = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
    let fields: Vec<String> = [field("from", pair.from), field("to", pair.to)].into_iter().flatten().collect();
    call(path, Method::GET, &format!("/v1/tables/diff?{}", fields.join("&")), Vec::new(), None, PATIENCE).await
}

/// Puts a table in force again and holds it.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn roll_back(path: &Path, order: &RollbackOrder, dry_run: bool) -> Result<TableOrdered, ClientError> {
    give(path, Method::POST, "/v1/tables/rollback", Some(order), Terms { dry_run, expected: None }).await
}

/// Ends the hold.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn release(path: &Path) -> Result<TableOrdered, ClientError> {
    give(path, Method::POST, "/v1/tables/release", NOTHING, Terms::default()).await
}

/// Makes the networks as they are declared; gives what was done.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn apply_network(path: &Path) -> Result<NetPlan, ClientError> {
    give(path, Method::POST, "/v1/networks/apply", NOTHING, Terms::default()).await
}

/// Has the daemon look at the kernel's side; what it found, and whether it was put right.
///
/// # Errors
/// [`ClientError`].
pub async fn audit(path: &Path) -> Result<Vec<crate::datapath::audit::DriftReport>, ClientError> {
    give(path, Method::POST, "/v1/dataplane/audit", NOTHING, Terms::default()).await
}

/// Orders how many instances a service has; `None` takes the order back.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn set_override(
    path: &Path,
    service: &ServiceName,
    order: Option<&OverrideOrder>,
    terms: Terms,
) -> Result<Outcome, ClientError> {
    let method = if order.is_some() { Method::PUT } else { Method::DELETE };
    give(path, method, &format!("/v1/services/{service}/override"), order, terms).await
}

/// Takes an instance out of the answers; `None` puts it back.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn set_drain(
    path: &Path,
    id: &InstanceId,
    order: Option<&DrainOrder>,
    terms: Terms,
) -> Result<Outcome, ClientError> {
    let method = if order.is_some() { Method::PUT } else { Method::DELETE };
    give(path, method, &format!("/v1/instances/{id}/drain"), order, terms).await
}

/// Takes a configuration: this text, which is written into the file, or the file as it is.
///
/// # Errors
/// [`ClientError::Refused`] with the daemon's reason, or another.
pub async fn configure(path: &Path, order: Option<&ConfigurationOrder>, terms: Terms) -> Result<Outcome, ClientError> {
    match order {
        Some(_) => give(path, Method::PUT, "/v1/configuration", order, terms).await,
        None => give(path, Method::POST, "/v1/configuration/reload", order, terms).await,
    }
}

/// Hands each change of these kinds of things to `told`, first all that there is, until that says to end or the
/// daemon does. Goes on where it was after a broken connection.
///
/// # Errors
/// [`ClientError`] where the daemon cannot be asked, or not any more.
pub async fn watch(path: &Path, resources: &str, mut told: impl FnMut(&WatchEvent) -> bool) -> Result<(), ClientError> {
    let mut behind: Option<String> = None;
    loop {
        let target = format!("/v1/watch?resources={resources}");
        let mut headers = vec![("accept", "text/event-stream".to_owned())];
        headers.extend(behind.clone().map(|id| ("last-event-id", id)));
        let asked = timeout(PATIENCE, exchange(path, Method::GET, &target, Vec::new(), &headers)).await;
        let (response, driver) =
            asked.map_err(|_| ClientError::Late { path: path.to_owned(), patience: PATIENCE })??;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return understood(path, status, &whole(path, response).await?);
        }
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                if let Some(id) = event.lines().find_map(|line| line.strip_prefix("id: ")) {
                    behind = Some(id.to_owned());
                }
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                // What is no change (`listed`, `reset`) names no thing.
                let change = data.and_then(|data| serde_json::from_str::<WatchEvent>(data).ok());
                if change.is_some_and(|change| !told(&change)) {
                    driver.abort();
                    return Ok(());
                }
            }
        }
        driver.abort();
    }
}

/// No body.
const NOTHING: Option<&()> = None;

async fn give<O: Serialize, T: DeserializeOwned>(
    path: &Path,
    method: Method,
    target: &str,
    order: Option<&O>,
    terms: Terms,
) -> Result<T, ClientError> {
    let form = |source| ClientError::Form { path: path.to_owned(), source };
    let body = order.map(|order| serde_json::to_vec(order).map_err(form)).transpose()?;
    let DryRun { dry_run } = DryRun { dry_run: terms.dry_run };
    let target = if dry_run { format!("{target}?dry_run=true") } else { target.to_owned() };
    call(path, method, &target, body.unwrap_or_default(), terms.expected, ORDER_PATIENCE).await
}

async fn call<T: DeserializeOwned>(
    path: &Path,
    method: Method,
    target: &str,
    body: Vec<u8>,
    expected: Option<u64>,
    patience: Duration,
) -> Result<T, ClientError> {
    let late = |_| ClientError::Late { path: path.to_owned(), patience };
    let headers: Vec<_> = expected.map(|revision| (IF_MATCH.as_str(), format!("\"{revision}\""))).into_iter().collect();
    let asked = async {
        let (response, driver) = exchange(path, method, target, body, &headers).await?;
        let status = response.status();
        let body = whole(path, response).await?;
        driver.abort();
        understood(path, status, &body)
    };
    timeout(patience, asked).await.map_err(late)?
}

fn understood<T: DeserializeOwned>(path: &Path, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    if status == StatusCode::OK {
        return serde_json::from_slice(body).map_err(|source| ClientError::Form { path: path.to_owned(), source });
    }
    match serde_json::from_slice(body) {
        Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
        Err(_) => Err(ClientError::Status { path: path.to_owned(), status }),
    }
}

async fn whole(path: &Path, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|source| ClientError::Http { path: path.to_owned(), source })?.to_bytes())
}

async fn exchange(
    path: &Path,
    method: Method,
    target: &str,
    body: Vec<u8>,
    headers: &[(&str, String)],
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), ClientError> {
    let http = |source| ClientError::Http { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied { path: path.to_owned() },
        _ => ClientError::Connect { path: path.to_owned(), source },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header(HOST, "selvedged");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(|source| ClientError::Request { target: target.to_owned(), source })?;
    Ok((sender.send_request(request).await.map_err(http)?, driver))
}

//! Published tables over the API: those that are kept, what is in one, what differs, rollback and release.

use axum::Json;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::block_in_place;

use super::difference::{Change, difference, record};
use super::status::Sources;
use crate::model::{Hold, PublishedService, Snapshot, TableHeader, Timestamp, Zone};
use crate::reconcile::{Command, HoldError, Rollback};
use crate::store::StoreError;

/// The tables that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableList {
    /// When this was written.
    pub at: Timestamp,
    /// The order that keeps the one in force where it is, if there is one.
    pub held: Option<Hold>,
    /// Oldest first.
    pub tables: Vec<TableSummary>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSummary {
    /// Generations, time, cause and counts.
    #[serde(flatten)]
    pub header: TableHeader,
    /// Kernel and daemon answer from it.
    pub in_force: bool,
    /// And shall go on to, until it is released.
    pub held: bool,
}

/// What is in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableContent {
    /// Generations, time, cause and counts.
    #[serde(flatten)]
    pub summary: TableSummary,
    /// When this was written.
    pub written_at: Timestamp,
    /// Its zones.
    pub zone_data: Vec<ZoneContent>,
    /// Its services.
    pub service_data: Vec<PublishedService>,
}

/// What is in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneContent {
    /// Its apex.
    pub apex: String,
    /// SOA MNAME.
    pub primary: String,
    /// SOA RNAME.
    pub contact: String,
    /// NS targets.
    pub nameservers: Vec<String>,
    /// TTL in seconds of NS and SOA.
    pub ttl_s: u32,
    /// TTL in seconds of negative answers.
    pub negative_ttl_s: u32,
    /// All other records as a master file has them.
    pub records: Vec<String>,
}

impl From<&Zone> for ZoneContent {
    fn from(zone: &Zone) -> Self {
        Self {
            records: zone.records.iter().map(record).collect(),
            apex: zone.apex.clone(),
            primary: zone.primary.clone(),
            contact: zone.contact.clone(),
            nameservers: zone.nameservers.clone(),
            ttl_s: zone.ttl_s,
            negative_ttl_s: zone.negative_ttl_s,
        }
    }
}

/// What differs between two tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDifference {
    /// The first.
    pub from: TableHeader,
    /// The second.
    pub to: TableHeader,
    /// Lines that only one of them has.
    pub changes: Vec<Change>,
}

/// Which tables to compare; the one before that in force and that in force where nothing is said.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Pair {
    /// The first.
    pub from: Option<u64>,
    /// The second.
    pub to: Option<u64>,
}

/// An order to put a table in force again.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RollbackOrder {
    /// Its generation.
    pub generation: u64,
    /// Whatever speaks against it.
    #[serde(default)]
    pub force: bool,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOrdered {
    /// The generation that is in force now.
    pub generation: u64,
    /// What was forced, one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Short fixed name.
    pub code: String,
    /// A whole sentence.
    pub error: String,
}

/// A refusal with its status.
pub(super) struct Refused(pub StatusCode, pub Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<HoldError> for Refused {
    fn from(error: HoldError) -> Self {
        let status = match &error {
            HoldError::Unknown { .. } => StatusCode::NOT_FOUND,
            HoldError::NeedsForce { .. } | HoldError::NotHeld => StatusCode::CONFLICT,
            HoldError::Publish { .. } | HoldError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, Refusal { code: error.label().to_owned(), error: error.to_string() })
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        HoldError::Store(error).into()
    }
}

/// Who is at the other end of the socket, as the kernel says.
#[derive(Debug, Clone)]
pub(super) struct Caller(String);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let Ok(peer) = stream.io().peer_cred() else { return Self("somebody".to_owned()) };
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(peer.uid()));
        Self(user.ok().flatten().map_or_else(|| format!("uid {}", peer.uid()), |user| user.name))
    }
}

pub(super) async fn list(State(sources): State<Sources>) -> Result<Json<TableList>, Refused> {
    let (generation, held) = in_force(&sources);
    let tables = block_in_place(|| sources.store.tables())?;
    let tables = tables.into_iter().map(|header| summary(header, generation, held.as_ref())).collect();
    Ok(Json(TableList { at: Timestamp::now(), held, tables }))
}

pub(super) async fn show(
    State(sources): State<Sources>,
    Path(generation): Path<u64>,
) -> Result<Json<TableContent>, Refused> {
    let (now, held) = in_force(&sources);
    let (header, snapshot) = table(&sources, generation)?;
    Ok(Json(TableContent {
        summary: summary(header, now, held.as_ref()),
        written_at: Timestamp::now(),
        zone_data: block_in_place(|| snapshot.zones.iter().map(|zone| ZoneContent::from(&**zone)).collect()),
        service_data: snapshot.services,
    }))
}

pub(super) async fn diff(
    State(sources): State<Sources>,
    Query(pair): Query<Pair>,
) -> Result<Json<TableDifference>, Refused> {
    let to = pair.to.unwrap_or_else(|| in_force(&sources).0);
    let from = match pair.from {
        Some(from) => from,
        None => {
            let kept = block_in_place(|| sources.store.tables())?;
            let before = kept.iter().take_while(|header| !header.covers(to)).last();
            before.ok_or(HoldError::Unknown { generation: to.saturating_sub(1) })?.generation
        }
    };
    let ((from, before), (to, after)) = (table(&sources, from)?, table(&sources, to)?);
    let changes = block_in_place(|| difference(&before, &after));
    Ok(Json(TableDifference { from, to, changes }))
}

pub(super) async fn roll_back(
    State(sources): State<Sources>,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
    Json(order): Json<RollbackOrder>,
) -> Result<Json<TableOrdered>, Refused> {
    let order = Rollback { generation: order.generation, force: order.force, by };
    let done = command(&sources, |reply| Command::RollBack(order, reply)).await??;
    Ok(Json(TableOrdered { generation: done.generation, warnings: done.warnings }))
}

pub(super) async fn release(
    State(sources): State<Sources>,
    ConnectInfo(Caller(by)): ConnectInfo<Caller>,
) -> Result<Json<TableOrdered>, Refused> {
    let generation = command(&sources, |reply| Command::Release(by, reply)).await??;
    Ok(Json(TableOrdered { generation, warnings: Vec::new() }))
}

/// Gives an order and waits for what comes of it.
async fn command<T>(sources: &Sources, order: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refused> {
    let ended = || {
        let error = "the daemon is about to end; nothing was done".to_owned();
        Refused(StatusCode::SERVICE_UNAVAILABLE, Refusal { code: "ending".to_owned(), error })
    };
    let (reply, done) = oneshot::channel();
    sources.commands.send(order(reply)).await.map_err(|_| ended())?;
    done.await.map_err(|_| ended())
}

/// The generation in force, and the order to keep it.
fn in_force(sources: &Sources) -> (u64, Option<Hold>) {
    let view = sources.operator.borrow();
    (view.generation, view.held.clone())
}

fn summary(header: TableHeader, in_force: u64, held: Option<&Hold>) -> TableSummary {
    let in_force = header.covers(in_force);
    TableSummary { header, in_force, held: in_force && held.is_some() }
}

fn table(sources: &Sources, generation: u64) -> Result<(TableHeader, Snapshot), Refused> {
    let found = block_in_place(|| sources.store.table(generation))?;
    Ok(found.ok_or(HoldError::Unknown { generation })?)
}

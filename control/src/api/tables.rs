//! Published tables over the API: those that are kept, what is in one, what differs, rollback and release.

use axum::Json;
use axum::extract::{Extension, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::block_in_place;

use super::DryRun;
use super::caller::Caller;
use super::difference::{Change, difference, record};
use super::extract::{Asked, Body, Of};
use super::problem::Refused;
use super::status::Sources;
use crate::model::{Hold, PublishedService, Snapshot, TableHeader, Timestamp, Zone};
use crate::reconcile::{Command, HoldError, Rollback};

/// The tables that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableList {
    /// When this was written.
    pub at: Timestamp,
    /// The order that keeps the one in force where it is, if there is one.
    pub held: Option<Hold>,
    /// Oldest first.
    pub tables: Vec<TableSummary>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableDifference {
    /// The first.
    pub from: TableHeader,
    /// The second.
    pub to: TableHeader,
    /// Lines that only one of them has.
    pub changes: Vec<Change>,
}

/// Which tables to compare; the one before that in force and that in force where nothing is said.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The first.
    pub from: Option<u64>,
    /// The second.
    pub to: Option<u64>,
}

/// An order to put a table in force again.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct RollbackOrder {
    /// Its generation.
    pub generation: u64,
    /// Whatever speaks against it.
    #[serde(default)]
    pub force: bool,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableOrdered {
    /// The generation that is in force now.
    pub generation: u64,
    /// Nothing was changed: it was asked what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// What was forced, one sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

pub(super) async fn list(State(sources): State<Sources>) -> Result<Json<TableList>, Refused> {
    let (generation, held) = in_force(&sources);
    let tables = block_in_place(|| sources.store.tables())?;
    let tables = tables.into_iter().map(|header| summary(header, generation, held.as_ref())).collect();
    Ok(Json(TableList { at: Timestamp::now(), held, tables }))
}

pub(super) async fn show(
    State(sources): State<Sources>,
    Of(generation): Of<u64>,
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
    Asked(pair): Asked<Pair>,
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
    Extension(Caller { name: by, .. }): Extension<Caller>,
    Asked(DryRun { dry_run }): Asked<DryRun>,
    Body(order): Body<RollbackOrder>,
) -> Result<Json<TableOrdered>, Refused> {
    let order = Rollback { generation: order.generation, force: order.force, dry_run, by };
    let done = command(&sources, |reply| Command::RollBack(order, reply)).await??;
    Ok(Json(TableOrdered { generation: done.generation, dry_run, warnings: done.warnings }))
}

pub(super) async fn release(
    State(sources): State<Sources>,
    Extension(Caller { name: by, .. }): Extension<Caller>,
) -> Result<Json<TableOrdered>, Refused> {
    let generation = command(&sources, |reply| Command::Release(by, reply)).await??;
    Ok(Json(TableOrdered { generation, dry_run: false, warnings: Vec::new() }))
}

/// Gives an order and waits for what comes of it.
async fn command<T>(sources: &Sources, order: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refused> {
    let (reply, done) = oneshot::channel();
    sources.commands.send(order(reply)).await.map_err(|_| Refused::ending())?;
    done.await.map_err(|_| Refused::ending())
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

//! Networks over the API: what is wanted and what was repaired, and the order to make it so now.

use axum::Json;
use axum::extract::State;
use tokio::sync::oneshot;

use super::problem::{Kind, Refused};
use super::status::Sources;
use crate::model::{NetPlan, NetReport, in_full};
use crate::reconcile::Command;

pub(super) async fn show(State(sources): State<Sources>) -> Json<NetReport> {
    Json(sources.network.borrow().clone())
}

pub(super) async fn apply(State(sources): State<Sources>) -> Result<Json<NetPlan>, Refused> {
    let (reply, done) = oneshot::channel();
    sources.commands.send(Command::Networks(reply)).await.map_err(|_| Refused::ending())?;
    let done = done.await.map_err(|_| Refused::ending())?;
    done.map(Json).map_err(|error| Refused::coded(Kind::Conflict, error.label(), in_full(&error)))
}

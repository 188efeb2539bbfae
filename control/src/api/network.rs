//! Networks over the API: what is wanted and what was repaired, and the order to make it so now.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::status::Sources;
use super::tables::{Refusal, Refused};
use crate::model::{NetPlan, NetReport, in_full};
use crate::reconcile::Command;

pub(super) async fn show(State(sources): State<Sources>) -> Json<NetReport> {
    Json(sources.network.borrow().clone())
}

pub(super) async fn apply(State(sources): State<Sources>) -> Result<Json<NetPlan>, Refused> {
    let gone = || {
        let error = "the daemon is about to end; ask again when it is back".to_owned();
        Refused(StatusCode::SERVICE_UNAVAILABLE, Refusal { code: "ending".to_owned(), error })
    };
    let (reply, done) = oneshot::channel();
    sources.commands.send(Command::Networks(reply)).await.map_err(|_| gone())?;
    match done.await.map_err(|_| gone())? {
        Ok(plan) => Ok(Json(plan)),
        Err(error) => {
            let refusal = Refusal { code: error.label().to_owned(), error: in_full(&error) };
            Err(Refused(StatusCode::CONFLICT, refusal))
        }
    }
}

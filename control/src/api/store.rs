//! The daemon's store, looked at from outside.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::problem::{Kind, Refused};
use super::status::{Sources, StoreHealth};
use crate::model::Timestamp;
use crate::store::Examination;

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreResource {
    /// What is in it.
    #[serde(flatten)]
    pub content: Examination,
    /// How writing goes.
    pub health: StoreHealth,
}

pub(super) async fn show(State(sources): State<Sources>) -> Result<Json<StoreResource>, Refused> {
    let content = block_in_place(|| sources.store.examine())?;
    Ok(Json(StoreResource { content, health: StoreHealth::of(&sources.store_health) }))
}

pub(super) async fn dump(State(sources): State<Sources>) -> Result<Response, Refused> {
    let text = block_in_place(|| {
        let dump = sources.store.dump(Timestamp::now())?;
        serde_json::to_string(&dump).map_err(|e| Refused::coded(Kind::Unavailable, "store", e.to_string()))
    })?;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

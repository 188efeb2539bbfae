//! The kernel's side over the API: the order to look at it now.

use axum::Json;
use axum::extract::State;

use super::status::Sources;
use crate::datapath::audit::{Depth, DriftReport};

pub(super) async fn audit(State(sources): State<Sources>) -> Json<Vec<DriftReport>> {
    Json(tokio::task::block_in_place(|| sources.datapath.look(Depth::Full)))
}

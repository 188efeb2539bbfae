//! The configuration in force, and orders to take another.

use axum::extract::{Extension, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::caller::Caller;
use super::configured::{ConfigRefusal, ConfigRequest, ConfigTaken, ConfigurationResource};
use super::extract::{Asked, Body, IfMatch};
use super::problem::{Kind, Refused};
use super::status::Sources;
use super::{DryRun, Outcome, Tagged};

/// A configuration to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationOrder {
    /// The whole file's text, TOML.
    pub text: String,
}

impl From<ConfigRefusal> for Refused {
    fn from(refusal: ConfigRefusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            ConfigRefusal::Changed { .. } => Self::new(Kind::Changed, text),
            ConfigRefusal::Wrong(errors) => Self::coded(Kind::Invalid, "wrong_configuration", text).with(errors),
            ConfigRefusal::Write { .. } => Self::coded(Kind::Conflict, "file_not_writable", text),
            ConfigRefusal::Networks(_) => Self::coded(Kind::Conflict, "networks", text),
        }
    }
}

pub(super) async fn show(State(sources): State<Sources>) -> Tagged<ConfigurationResource> {
    let now = sources.configuration.now();
    Tagged(now.revision, now)
}

pub(super) async fn apply(
    State(sources): State<Sources>,
    Extension(caller): Extension<Caller>,
    Asked(asked): Asked<DryRun>,
    IfMatch(expected): IfMatch,
    Body(order): Body<ConfigurationOrder>,
) -> Result<Tagged<Outcome>, Refused> {
    give(&sources, caller, Some(order.text), asked, expected).await
}

pub(super) async fn reload(
    State(sources): State<Sources>,
    Extension(caller): Extension<Caller>,
    Asked(asked): Asked<DryRun>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<Outcome>, Refused> {
    give(&sources, caller, None, asked, expected).await
}

async fn give(
    sources: &Sources,
    caller: Caller,
    text: Option<String>,
    asked: DryRun,
    expected: Option<u64>,
) -> Result<Tagged<Outcome>, Refused> {
    let (reply, done) = oneshot::channel();
    let request = ConfigRequest { text, dry_run: asked.dry_run, expected, by: caller.name, reply };
    sources.configurations.send(request).await.map_err(|_| Refused::ending())?;
    let taken = done.await.map_err(|_| Refused::ending())??;
    let ConfigTaken { revision, changes, warnings } = taken;
    Ok(Tagged(revision, Outcome { dry_run: asked.dry_run, changes, warnings, revision }))
}

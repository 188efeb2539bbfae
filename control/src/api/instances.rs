//! Instances, and the order to take one out of the answers.

use axum::Json;
use axum::extract::{Extension, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::caller::Caller;
use super::extract::{Asked, Body, IfMatch, Of};
use super::problem::{Kind, Refused};
use super::services::{reason, seen};
use super::status::Sources;
use super::{DryRun, Outcome, Tagged};
use crate::model::{Drain, Instance, InstanceId, InstanceState, Order, ServiceName};
use crate::orders::Giver;
use crate::reconcile::{DrainReport, InstanceReport, OperatorView};

/// Instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceList {
    /// By id.
    pub instances: Vec<InstanceResource>,
}

/// An instance that is not stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceResource {
    /// Revision of the order that stands; 0 where none does.
    pub revision: u64,
    /// Its record.
    #[serde(flatten)]
    pub instance: Instance,
    /// What an operator of the machine has ordered, with who, when and why.
    pub ordered: Option<Order<Drain>>,
    /// Whether it is in the tables.
    pub published: bool,
    /// Its share of its service's answers, 0 to 1.
    pub share: f64,
    /// What it is taken to be able to do of what its peers can, 0.25 to 1, where its share follows its load.
    #[serde(default)]
    pub weight: Option<f64>,
    /// Whether it answered its last probe; `null` before the first.
    pub healthy: Option<bool>,
    /// How far its drain is, once the last answer that named it has run out, and who came late.
    #[serde(default)]
    pub drain: Option<DrainReport>,
    /// The instance that its late clients go to, if they are forwarded.
    #[serde(default)]
    pub forwarded_to: Option<InstanceId>,
}

/// Which instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Of this service only.
    #[serde(default)]
    pub service: Option<ServiceName>,
}

/// An order to take an instance out of the answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainOrder {
    /// What becomes of it.
    #[serde(flatten)]
    pub what: Drain,
    /// Why, in a few words.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// The instances as they are.
pub(super) fn resources(operator: &OperatorView) -> Vec<InstanceResource> {
    operator.instances.values().map(|report| resource(operator, report)).collect()
}

fn resource(operator: &OperatorView, report: &InstanceReport) -> InstanceResource {
    let left = operator.left.iter().find(|left| left.left.instance == report.instance.id);
    InstanceResource {
        revision: report.ordered.as_ref().map_or(0, |order| order.revision),
        instance: report.instance.clone(),
        ordered: report.ordered.clone(),
        published: report.published,
        share: report.share,
        weight: report.weight,
        healthy: report.last_probe.as_ref().map(|probe| probe.error.is_none()),
        drain: report.drain.clone(),
        forwarded_to: left.and_then(|left| left.to.clone()),
    }
}

/// The instance with the order as it is now, which the operator may not have taken up yet.
fn find(sources: &Sources, id: &InstanceId) -> Result<InstanceResource, Refused> {
    let operator = sources.operator.borrow().clone();
    let found = operator.instances.get(id).map(|report| resource(&operator, report));
    let found = found.ok_or_else(|| Refused::coded(Kind::NotFound, "unknown_instance", format!("no instance {id}")))?;
    let ordered = sources.orders().instances.get(id).cloned();
    Ok(InstanceResource { revision: ordered.as_ref().map_or(0, |order| order.revision), ordered, ..found })
}

pub(super) async fn list(State(sources): State<Sources>, Asked(filter): Asked<Filter>) -> Json<InstanceList> {
    let mut instances = resources(&sources.operator.borrow());
    instances.retain(|i| filter.service.as_ref().is_none_or(|service| i.instance.service == *service));
    Json(InstanceList { instances })
}

pub(super) async fn show(
    State(sources): State<Sources>,
    Of(id): Of<InstanceId>,
) -> Result<Tagged<InstanceResource>, Refused> {
    let instance = find(&sources, &id)?;
    Ok(Tagged(instance.revision, instance))
}

pub(super) async fn set_drain(
    State(sources): State<Sources>,
    Extension(caller): Extension<Caller>,
    Of(id): Of<InstanceId>,
    Asked(asked): Asked<DryRun>,
    IfMatch(expected): IfMatch,
    Body(order): Body<DrainOrder>,
) -> Result<Tagged<Outcome>, Refused> {
    let reason = reason(order.reason)?;
    let instance = find(&sources, &id)?;
    if order.what == Drain::Keep && !instance.instance.state.counts() {
        return Err(leaving(&instance));
    }
    let change = match order.what {
        Drain::Stop => "leaves the answers and stops when its clients have left",
        Drain::Keep => "leaves the answers and stays",
        Drain::Remove => "leaves the answers and is stopped at once",
    };
    change_drain(&sources, caller, &instance, Some(order.what), reason, asked, expected, change)
}

pub(super) async fn remove_drain(
    State(sources): State<Sources>,
    Extension(caller): Extension<Caller>,
    Of(id): Of<InstanceId>,
    Asked(asked): Asked<DryRun>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<Outcome>, Refused> {
    let instance = find(&sources, &id)?;
    if instance.ordered.is_none() {
        return Err(Refused::coded(Kind::NotFound, "no_drain", format!("nothing is ordered of instance {id}")));
    }
    if !instance.instance.state.counts() {
        return Err(leaving(&instance));
    }
    change_drain(&sources, caller, &instance, None, String::new(), asked, expected, "returns into the answers")
}

fn leaving(instance: &InstanceResource) -> Refused {
    let (id, state) = (&instance.instance.id, instance.instance.state);
    let when = if state == InstanceState::Failed { "has failed" } else { "is on its way out already" };
    Refused::coded(Kind::Conflict, "leaving", format!("instance {id} {when} ({}) and cannot be kept", state.label()))
}

#[expect(clippy::too_many_arguments, reason = "the parts of one order")]
fn change_drain(
    sources: &Sources,
    caller: Caller,
    instance: &InstanceResource,
    what: Option<Drain>,
    reason: String,
    asked: DryRun,
    expected: Option<u64>,
    change: &str,
) -> Result<Tagged<Outcome>, Refused> {
    let id = &instance.instance.id;
    let changes = vec![format!("instance {id} of {} {change}", instance.instance.service)];
    let warnings = match what {
        Some(Drain::Remove) if instance.share >= 1.0 => {
            vec!["it is the only one in the answers: there is none until another serves".to_owned()]
        }
        Some(_) if instance.share >= 1.0 => {
            vec!["it is the only one in the answers, and stays there until another serves".to_owned()]
        }
        _ => Vec::new(),
    };
    let done = |revision| Outcome { dry_run: asked.dry_run, changes, warnings, revision };
    if asked.dry_run {
        seen(expected, instance.revision)?;
        return Ok(Tagged(instance.revision, done(instance.revision)));
    }
    let giver = Giver { by: caller.name, reason, expected };
    let orders = block_in_place(|| sources.book.set_drain(id, what, giver))?;
    let revision = orders.instances.get(id).map_or(0, |order| order.revision);
    Ok(Tagged(revision, done(revision)))
}

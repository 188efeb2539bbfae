//! Services, and the order of how many instances one has.

use axum::Json;
use axum::extract::{Extension, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::caller::Caller;
use super::extract::{Asked, Body, IfMatch, Of};
use super::problem::{Kind, Refused};
use super::status::Sources;
use super::{DryRun, Outcome, Tagged};
use crate::config::Config;
use crate::model::{Basis, InstanceId, Order, Override, ServiceName, ServiceSpec, Technology};
use crate::orchestrator::OrchestratorView;
use crate::orders::Giver;
use crate::reconcile::OperatorView;

/// Most characters of a reason.
const LONGEST_REASON: usize = 1000;

/// Services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceList {
    /// By name.
    pub services: Vec<ServiceResource>,
}

/// A service: what is configured, what is wanted and ordered, what it is answered from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceResource {
    /// Its name.
    pub name: ServiceName,
    /// Revision of the order that stands; 0 where none does.
    pub revision: u64,
    /// Names that clients ask for.
    pub names: Vec<String>,
    /// What runs it.
    pub technology: Technology,
    /// Its image.
    pub image: String,
    /// Fewest instances.
    pub min: u32,
    /// Most instances.
    pub max: u32,
    /// Requests that one instance serves per window.
    pub capacity: f64,
    /// TTL of its answers in seconds.
    pub ttl_s: u32,
    /// Instances that are wanted.
    pub wanted: u32,
    /// Instances in the tables.
    pub serving: u32,
    /// What an operator of the machine has ordered, with who, when and why.
    pub ordered: Option<Order<Override>>,
    /// The last decision in a sentence.
    pub decision: String,
    /// From what it is answered.
    pub basis: String,
    /// Why that, for people.
    pub basis_reason: String,
    /// Its instances that are not stopped.
    pub instances: Vec<InstanceId>,
}

/// An order of how many instances a service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverrideOrder {
    /// What is ordered.
    #[serde(flatten)]
    pub what: Override,
    /// Why, in a few words.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// The services as they are.
pub(super) fn resources(config: &Config, operator: &OperatorView, plan: &OrchestratorView) -> Vec<ServiceResource> {
    config.services.iter().map(|spec| resource(spec, operator, plan)).collect()
}

fn resource(spec: &ServiceSpec, operator: &OperatorView, plan: &OrchestratorView) -> ServiceResource {
    let outlook = plan.services.get(&spec.name).cloned().unwrap_or_default();
    let basis = operator.bases.get(&spec.name).copied().unwrap_or(Basis::Nothing);
    let own = operator.instances.values().filter(|r| r.instance.service == spec.name);
    ServiceResource {
        name: spec.name.clone(),
        revision: outlook.ordered.as_ref().map_or(0, |order| order.revision),
        names: spec.names.clone(),
        technology: spec.technology,
        image: spec.image.clone(),
        min: spec.min,
        max: spec.max,
        capacity: spec.capacity,
        ttl_s: spec.ttl_s,
        wanted: outlook.wanted,
        serving: u32::try_from(own.clone().filter(|r| r.published).count()).unwrap_or(u32::MAX),
        ordered: outlook.ordered,
        decision: outlook.decision,
        basis: basis.label().to_owned(),
        basis_reason: basis.reason().to_owned(),
        instances: own.map(|r| r.instance.id.clone()).collect(),
    }
}

/// The service with the order as it is now, which the plan may not have taken up yet.
fn find(sources: &Sources, name: &ServiceName) -> Result<ServiceResource, Refused> {
    let (config, operator, plan) =
        (sources.config.borrow().clone(), sources.operator.borrow().clone(), sources.orchestrator.borrow().clone());
    let spec = config
        .service(name)
        .ok_or_else(|| Refused::coded(Kind::NotFound, "unknown_service", format!("no service {name} is configured")))?;
    let ordered = sources.orders().services.get(name).cloned();
    let found = resource(spec, &operator, &plan);
    Ok(ServiceResource { revision: ordered.as_ref().map_or(0, |order| order.revision), ordered, ..found })
}

pub(super) async fn list(State(sources): State<Sources>) -> Json<ServiceList> {
    let (config, operator, plan) =
        (sources.config.borrow().clone(), sources.operator.borrow().clone(), sources.orchestrator.borrow().clone());
    let mut services = resources(&config, &operator, &plan);
    let orders = sources.orders();
    for service in &mut services {
        service.ordered = orders.services.get(&service.name).cloned();
        service.revision = service.ordered.as_ref().map_or(0, |order| order.revision);
    }
    Json(ServiceList { services })
}

pub(super) async fn show(
    State(sources): State<Sources>,
    Of(name): Of<ServiceName>,
) -> Result<Tagged<ServiceResource>, Refused> {
    let service = find(&sources, &name)?;
    Ok(Tagged(service.revision, service))
}

pub(super) async fn set_override(
    State(sources): State<Sources>,
    Extension(caller): Extension<Caller>,
    Of(name): Of<ServiceName>,
    Asked(asked): Asked<DryRun>,
    IfMatch(expected): IfMatch,
    Body(order): Body<OverrideOrder>,
) -> Result<Tagged<Outcome>, Refused> {
    let reason = reason(order.reason)?;
    let service = find(&sources, &name)?;
    let most = service.max.min(sources.config.borrow().limits.instances);
    let (count, how) = order.what.apply(service.wanted, most);
    let change = format!("{name} is {how}: {} wanted now, {count} then", service.wanted);
    let warnings = match order.what {
        Override::Pin { replicas } if replicas > most => {
            vec![format!("{replicas} are more than the maximum of {most}")]
        }
        _ => Vec::new(),
    };
    change_override(&sources, caller, &service, Some(order.what), reason, asked, expected, change, warnings)
}

pub(super) async fn remove_override(
    State(sources): State<Sources>,
    Extension(caller): Extension<Caller>,
    Of(name): Of<ServiceName>,
    Asked(asked): Asked<DryRun>,
    IfMatch(expected): IfMatch,
) -> Result<Tagged<Outcome>, Refused> {
    let service = find(&sources, &name)?;
    if service.ordered.is_none() {
        return Err(Refused::coded(Kind::NotFound, "no_override", format!("nothing is ordered of {name}")));
    }
    let change = format!("{name} follows its plan again");
    change_override(&sources, caller, &service, None, String::new(), asked, expected, change, Vec::new())
}

#[expect(clippy::too_many_arguments, reason = "the parts of one order")]
fn change_override(
    sources: &Sources,
    caller: Caller,
    service: &ServiceResource,
    what: Option<Override>,
    reason: String,
    asked: DryRun,
    expected: Option<u64>,
    change: String,
    warnings: Vec<String>,
) -> Result<Tagged<Outcome>, Refused> {
    let done = |revision| Outcome { dry_run: asked.dry_run, changes: vec![change], warnings, revision };
    if asked.dry_run {
        seen(expected, service.revision)?;
        return Ok(Tagged(service.revision, done(service.revision)));
    }
    let giver = Giver { by: caller.name, reason, expected };
    let orders = block_in_place(|| sources.book.set_override(&service.name, what, giver))?;
    let revision = orders.services.get(&service.name).map_or(0, |order| order.revision);
    Ok(Tagged(revision, done(revision)))
}

/// Whether what was seen is what is.
pub(super) fn seen(expected: Option<u64>, found: u64) -> Result<(), Refused> {
    match expected {
        Some(expected) if expected != found => Err(crate::orders::OrderError::Changed { expected, found }.into()),
        _ => Ok(()),
    }
}

/// A reason that fits into a line of a log.
pub(super) fn reason(text: String) -> Result<String, Refused> {
    if text.chars().count() > LONGEST_REASON {
        return Err(Refused::new(Kind::Invalid, format!("the reason is longer than {LONGEST_REASON} characters")));
    }
    Ok(text.replace(char::is_control, " "))
}

//! What is only looked at: status, nodes, decisions, images, metrics.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::block_in_place;

use super::extract::Of;
use super::problem::{Kind, Refused};
use super::status::{Sources, Status};
use crate::config::Config;
use crate::images;
use crate::metrics;
use crate::model::{Forecast, NodeName, Order, Override, ServiceName};
use crate::orchestrator::{DecisionRecord, Fitness, OrchestratorView, ServiceOutlook, WindowRecord};
use crate::reconcile::{OperatorView, TechnologyReport};

/// Nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeList {
    /// By name.
    pub nodes: Vec<NodeResource>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeResource {
    /// Its name.
    pub name: NodeName,
    /// The program's version.
    pub version: String,
    /// Most instances that it may have.
    pub limit: u32,
    /// Instances that it has, draining ones included.
    pub instances: u32,
    /// Generation of its published tables.
    pub generation: u64,
    /// Whether it has read back what it ran before; nothing is planned before.
    pub settled: bool,
    /// Its technologies.
    pub technologies: BTreeMap<String, TechnologyReport>,
}

/// Decisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionList {
    /// Revision of the newest plan.
    pub revision: u64,
    /// The last one of each service, without windows and records.
    pub decisions: Vec<DecisionResource>,
}

/// What was decided last for a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionResource {
    /// The service.
    pub service: ServiceName,
    /// Instances that are wanted.
    pub wanted: u32,
    /// Instances that the plan gives, whatever was ordered.
    pub planned: Option<u32>,
    /// What an operator of the machine has ordered instead.
    pub ordered: Option<Order<Override>>,
    /// Why, in a sentence.
    pub reason: String,
    /// What is expected of the running window.
    pub forecast: Option<Forecast>,
    /// How the forecast comes about.
    pub model: String,
    /// How the forecasts fare.
    pub fitness: Fitness,
    /// Newest windows, oldest first.
    pub windows: Vec<WindowRecord>,
    /// Newest decisions with all that they rest on, oldest first; of several alike the newest.
    pub records: Vec<DecisionRecord>,
}

/// Images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageList {
    /// Where they are.
    pub dir: String,
    /// By name.
    pub images: Vec<ImageResource>,
}

/// An image in the node's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageResource {
    /// Its name, without a registry.
    pub name: String,
    /// Its manifest's digest.
    pub digest: String,
    /// All that belongs to it, in bytes.
    pub bytes: u64,
}

pub(super) async fn status(State(sources): State<Sources>) -> Json<Status> {
    Json(block_in_place(|| sources.status()))
}

pub(super) async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let text = block_in_place(|| metrics::render(&sources.status()));
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}

/// The document that describes all of this.
pub(super) async fn openapi(Extension(document): Extension<&'static Value>) -> Json<&'static Value> {
    Json(document)
}

/// This node.
pub(super) fn this_node(config: &Config, operator: &OperatorView) -> NodeResource {
    NodeResource {
        name: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        limit: config.limits.instances,
        instances: u32::try_from(operator.instances.len()).unwrap_or(u32::MAX),
        generation: operator.generation,
        settled: operator.settled,
        technologies: operator.technologies.iter().map(|(t, r)| (t.label().to_owned(), r.clone())).collect(),
    }
}

pub(super) async fn nodes(State(sources): State<Sources>) -> Json<NodeList> {
    Json(NodeList { nodes: vec![this_node(&sources.config.borrow(), &sources.operator.borrow())] })
}

pub(super) async fn node(
    State(sources): State<Sources>,
    Of(name): Of<NodeName>,
) -> Result<Json<NodeResource>, Refused> {
    let node = this_node(&sources.config.borrow(), &sources.operator.borrow());
    if node.name != name {
        return Err(Refused::coded(
            Kind::NotFound,
            "unknown_node",
            format!("no node {name}; this one is {}", node.name),
        ));
    }
    Ok(Json(node))
}

/// The decisions as they are, without windows and records.
pub(super) fn resources(plan: &OrchestratorView) -> Vec<DecisionResource> {
    plan.services.iter().map(|(name, outlook)| resource(name, outlook)).collect()
}

fn resource(name: &ServiceName, outlook: &ServiceOutlook) -> DecisionResource {
    DecisionResource {
        service: name.clone(),
        wanted: outlook.wanted,
        planned: outlook.planned,
        ordered: outlook.ordered.clone(),
        reason: outlook.decision.clone(),
        forecast: outlook.forecast.clone(),
        model: outlook.model.clone(),
        fitness: outlook.fitness.clone(),
        windows: Vec::new(),
        records: Vec::new(),
    }
}

pub(super) async fn decisions(State(sources): State<Sources>) -> Json<DecisionList> {
    let plan = sources.orchestrator.borrow().clone();
    Json(DecisionList { revision: plan.revision, decisions: resources(&plan) })
}

pub(super) async fn decision(
    State(sources): State<Sources>,
    Of(name): Of<ServiceName>,
) -> Result<Json<DecisionResource>, Refused> {
    let plan = sources.orchestrator.borrow().clone();
    let found = plan.services.get(&name).ok_or_else(|| {
        Refused::coded(Kind::NotFound, "no_decision", format!("nothing has been decided for a service {name}"))
    })?;
    Ok(Json(DecisionResource {
        windows: found.history.iter().cloned().collect(),
        records: found.decisions.iter().cloned().collect(),
        ..resource(&name, found)
    }))
}

pub(super) async fn images(State(sources): State<Sources>) -> Result<Json<ImageList>, Refused> {
    let dir = sources.config.borrow().images.dir.clone();
    let list = || -> Result<ImageList, images::ImageError> {
        // A repository that nobody has used yet is not made by looking at it.
        if !dir.exists() {
            return Ok(ImageList { dir: dir.display().to_string(), images: Vec::new() });
        }
        let store = images::Store::open(&dir)?;
        let mut found = Vec::new();
        for entry in store.entries()? {
            found.push(ImageResource {
                bytes: store.size(&entry)?,
                digest: entry.manifest.digest.to_string(),
                name: entry.name.to_string(),
            });
        }
        Ok(ImageList { dir: dir.display().to_string(), images: found })
    };
    block_in_place(list).map(Json).map_err(|e| Refused::coded(Kind::Failed, "image_store", e.to_string()))
}

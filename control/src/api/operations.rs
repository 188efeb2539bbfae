//! All that can be asked of the daemon, as one table: the router and the OpenAPI document are both made from it.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::sync::LazyLock;

use super::caller::Right;
use super::guard::accepts;
use super::problem::Kind;
use super::status::Sources;
use super::{configuration, dataplane, inspect, instances, network, services, store, tables, watch};

/// Largest body of an order.
const LARGEST_ORDER: usize = 64 << 10;
/// Largest body with a configuration: the file's own bound, and what JSON makes of its line breaks.
const LARGEST_CONFIGURATION: usize = 9 << 20;

/// JSON.
const JSON: &str = "application/json";

/// Makes a type's schema, or a reference to it.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation.
pub(super) struct Operation {
    /// Its name in the document, and for clients that are made from it.
    pub id: &'static str,
    /// In lower case, as the document has it.
    pub method: &'static str,
    /// With parameters in braces.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Media type of its answer.
    pub media: &'static str,
    /// Its parameters in the query: an object's schema.
    pub query: Option<SchemaOf>,
    /// Its body.
    pub body: Option<SchemaOf>,
    /// Largest body in bytes.
    pub largest: usize,
    /// Its answer; `None` where that is a text.
    pub answer: Option<SchemaOf>,
    /// The answer has an `ETag`, and an order may name it in `If-Match`.
    pub tagged: bool,
    /// Problems beside those that each operation can meet.
    pub problems: &'static [Kind],
    /// Who may.
    pub right: Right,
    route: fn() -> MethodRouter<Sources>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    const fn new(
        id: &'static str,
        (method, path): (&'static str, &'static str),
        route: fn() -> MethodRouter<Sources>,
        summary: &'static str,
    ) -> Self {
        let right = if matches!(method.as_bytes(), b"get") { Right::Read } else { Right::Write };
        Self {
            id,
            method,
            path,
            summary,
            media: JSON,
            query: None,
            body: None,
            largest: LARGEST_ORDER,
            answer: None,
            tagged: false,
            problems: &[],
            right,
            route,
        }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Some(schema::<T>), ..self }
    }

    fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema::<T>), ..self }
    }

    fn asks<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema::<T>), ..self }
    }

    const fn tagged(self) -> Self {
        Self { tagged: true, ..self }
    }

    const fn text(self, media: &'static str) -> Self {
        Self { media, ..self }
    }

    const fn up_to(self, largest: usize) -> Self {
        Self { largest, ..self }
    }

    const fn privileged(self) -> Self {
        Self { right: Right::Write, ..self }
    }

    const fn may(self, problems: &'static [Kind]) -> Self {
        Self { problems, ..self }
    }
}

/// Handlers stand beside what they are described with.
macro_rules! handler {
    ($method:ident, $handler:path) => {
        || axum::routing::$method($handler)
    };
}

/// The table.
pub(super) static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    use Kind::{Changed, Conflict, Failed, Invalid, Malformed, NotFound, Unavailable};
    vec![
        Operation::new("getStatus", ("get", "/v1/status"), handler!(get, inspect::status), "Everything at a glance.")
            .gives::<super::Status>(),
        Operation::new("listServices", ("get", "/v1/services"), handler!(get, services::list), "All services.")
            .gives::<services::ServiceList>(),
        Operation::new("getService", ("get", "/v1/services/{service}"), handler!(get, services::show), "One service.")
            .gives::<services::ServiceResource>()
            .tagged()
            .may(&[NotFound]),
        Operation::new(
            "setOverride",
            ("put", "/v1/services/{service}/override"),
            handler!(put, services::set_override),
            "Orders how many instances a service has, whatever its plan says, until that is taken back.",
        )
        .takes::<services::OverrideOrder>()
        .asks::<super::DryRun>()
        .gives::<super::Outcome>()
        .tagged()
        .may(&[NotFound, Changed, Invalid, Unavailable]),
        Operation::new(
            "removeOverride",
            ("delete", "/v1/services/{service}/override"),
            handler!(delete, services::remove_override),
            "Lets the plan decide again.",
        )
        .asks::<super::DryRun>()
        .gives::<super::Outcome>()
        .tagged()
        .may(&[NotFound, Changed, Unavailable]),
        Operation::new("listInstances", ("get", "/v1/instances"), handler!(get, instances::list), "All instances.")
            .asks::<instances::Filter>()
            .gives::<instances::InstanceList>()
            .may(&[Malformed]),
        Operation::new(
            "getInstance",
            ("get", "/v1/instances/{instance}"),
            handler!(get, instances::show),
            "One instance.",
        )
        .gives::<instances::InstanceResource>()
        .tagged()
        .may(&[NotFound]),
        Operation::new(
            "setDrain",
            ("put", "/v1/instances/{instance}/drain"),
            handler!(put, instances::set_drain),
            "Takes an instance out of the answers; another takes its place.",
        )
        .takes::<instances::DrainOrder>()
        .asks::<super::DryRun>()
        .gives::<super::Outcome>()
        .tagged()
        .may(&[NotFound, Conflict, Changed, Invalid, Unavailable]),
        Operation::new(
            "removeDrain",
            ("delete", "/v1/instances/{instance}/drain"),
            handler!(delete, instances::remove_drain),
            "Puts an instance back into the answers that was kept.",
        )
        .asks::<super::DryRun>()
        .gives::<super::Outcome>()
        .tagged()
        .may(&[NotFound, Conflict, Changed, Unavailable]),
        Operation::new("listNodes", ("get", "/v1/nodes"), handler!(get, inspect::nodes), "All nodes.")
            .gives::<inspect::NodeList>(),
        Operation::new("getNode", ("get", "/v1/nodes/{node}"), handler!(get, inspect::node), "One node.")
            .gives::<inspect::NodeResource>()
            .may(&[NotFound]),
        Operation::new(
            "listDecisions",
            ("get", "/v1/decisions"),
            handler!(get, inspect::decisions),
            "What was decided last for each service, and why.",
        )
        .gives::<inspect::DecisionList>(),
        Operation::new(
            "getDecision",
            ("get", "/v1/decisions/{service}"),
            handler!(get, inspect::decision),
            "What was decided for one service: the last decisions, and the windows before.",
        )
        .gives::<inspect::DecisionResource>()
        .may(&[NotFound]),
        Operation::new("getNetworks", ("get", "/v1/networks"), handler!(get, network::show), "Networks and repairs.")
            .gives::<crate::model::NetReport>(),
        Operation::new(
            "applyNetworks",
            ("post", "/v1/networks/apply"),
            handler!(post, network::apply),
            "Makes the kernel's networks as they are declared, all or nothing.",
        )
        .gives::<crate::model::NetPlan>()
        .may(&[Conflict, Unavailable]),
        Operation::new(
            "auditDataplane",
            ("post", "/v1/dataplane/audit"),
            handler!(post, dataplane::audit),
            "Compares the kernel's tables, links and pins with what they shall be, and puts right what differs.",
        )
        .gives::<Vec<crate::datapath::audit::DriftReport>>(),
        Operation::new("listImages", ("get", "/v1/images"), handler!(get, inspect::images), "Images on this node.")
            .gives::<inspect::ImageList>()
            .may(&[Failed]),
        Operation::new("listTables", ("get", "/v1/tables"), handler!(get, tables::list), "The last published tables.")
            .gives::<super::TableList>()
            .may(&[Unavailable]),
        Operation::new("getTable", ("get", "/v1/tables/{generation}"), handler!(get, tables::show), "What is in one.")
            .gives::<super::TableContent>()
            .may(&[NotFound, Unavailable]),
        Operation::new(
            "compareTables",
            ("get", "/v1/tables/diff"),
            handler!(get, tables::diff),
            "What differs between two; the one before that in force, and that, where nothing is said.",
        )
        .asks::<super::Pair>()
        .gives::<super::TableDifference>()
        .may(&[Malformed, NotFound, Unavailable]),
        Operation::new(
            "rollBack",
            ("post", "/v1/tables/rollback"),
            handler!(post, tables::roll_back),
            "Puts an earlier table in force and holds it.",
        )
        .takes::<super::RollbackOrder>()
        .asks::<super::DryRun>()
        .gives::<super::TableOrdered>()
        .may(&[NotFound, Conflict, Invalid, Failed, Unavailable]),
        Operation::new(
            "releaseTables",
            ("post", "/v1/tables/release"),
            handler!(post, tables::release),
            "Lets the tables follow the instances again.",
        )
        .gives::<super::TableOrdered>()
        .may(&[Conflict, Unavailable]),
        Operation::new(
            "getConfiguration",
            ("get", "/v1/configuration"),
            handler!(get, configuration::show),
            "The configuration in force.",
        )
        .gives::<super::ConfigurationResource>()
        .tagged(),
        Operation::new(
            "applyConfiguration",
            ("put", "/v1/configuration"),
            handler!(put, configuration::apply),
            "Checks a configuration, writes it into the file and takes it. One that is refused changes nothing.",
        )
        .takes::<configuration::ConfigurationOrder>()
        .up_to(LARGEST_CONFIGURATION)
        .asks::<super::DryRun>()
        .gives::<super::Outcome>()
        .tagged()
        .may(&[Conflict, Changed, Invalid, Unavailable]),
        Operation::new(
            "reloadConfiguration",
            ("post", "/v1/configuration/reload"),
            handler!(post, configuration::reload),
            "Takes the configuration file as it is now, as SIGHUP does. One that is refused changes nothing.",
        )
        .asks::<super::DryRun>()
        .gives::<super::Outcome>()
        .tagged()
        .may(&[Conflict, Changed, Invalid, Unavailable]),
        Operation::new("getStore", ("get", "/v1/store"), handler!(get, store::show), "Whether the store is sound.")
            .gives::<store::StoreResource>()
            .may(&[Unavailable]),
        Operation::new("dumpStore", ("get", "/v1/store/dump"), handler!(get, store::dump), "All that the store holds.")
            .gives::<serde_json::Map<String, serde_json::Value>>()
            .privileged()
            .may(&[Unavailable]),
        Operation::new(
            "watch",
            ("get", "/v1/watch"),
            handler!(get, watch::watch),
            "Changes as server-sent events: first what there is, then what changes. Last-Event-ID goes on behind an event.",
        )
        .asks::<watch::WatchFilter>()
        .text("text/event-stream")
        .may(&[Malformed, Unavailable]),
        Operation::new("getOpenapi", ("get", "/openapi.json"), handler!(get, inspect::openapi), "This document.")
            .gives::<serde_json::Map<String, serde_json::Value>>(),
        Operation::new("getMetrics", ("get", "/metrics"), handler!(get, inspect::metrics), "Prometheus metrics.")
            .text("text/plain"),
    ]
});

/// The router, without what a listener adds.
pub(super) fn router(sources: Sources) -> Router {
    let mut router = Router::new();
    for operation in OPERATIONS.iter() {
        let route = (operation.route)()
            .layer(DefaultBodyLimit::max(operation.largest))
            .layer(from_fn_with_state(operation.media, accepts));
        let route = if operation.method == "get" && operation.right == Right::Write {
            route.layer(from_fn(super::guard::privileged))
        } else {
            route
        };
        router = router.route(operation.path, route);
    }
    router.with_state(sources)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_operation_is_there_once_under_its_own_name() {
        let ids: BTreeSet<_> = OPERATIONS.iter().map(|o| o.id).collect();
        let ways: BTreeSet<_> = OPERATIONS.iter().map(|o| (o.method, o.path)).collect();
        assert_eq!((ids.len(), ways.len()), (OPERATIONS.len(), OPERATIONS.len()));
    }
}

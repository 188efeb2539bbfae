//! The OpenAPI 3.1 document of all operations, from the table that the router is made from and from the types that
//! handlers take and give.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::caller::Right;
use super::operations::{OPERATIONS, Operation, SchemaOf};
use super::problem::{Kind, PROBLEM, Problem};
use crate::model::{InstanceId, NodeName, ServiceName};

static DOCUMENT: LazyLock<Value> = LazyLock::new(make);

/// The document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// Problems that each operation can meet.
const ALWAYS: [Kind; 6] = [
    Kind::Malformed,
    Kind::Unauthenticated,
    Kind::Forbidden,
    Kind::NotAcceptable,
    Kind::TooManyRequests,
    Kind::Unavailable,
];
/// And each that takes a body.
const WITH_BODY: [Kind; 5] =
    [Kind::Malformed, Kind::Timeout, Kind::TooLarge, Kind::UnsupportedMediaType, Kind::Invalid];

fn make() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
        s.contract = schemars::generate::Contract::Serialize;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths = Map::new();
    for operation in OPERATIONS.iter() {
        let described = describe(operation, &mut generator, &problem);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method.to_owned(), described);
        }
    }
    let kinds: Vec<String> = all_kinds().map(|kind| format!("`urn:selvedge:problem:{}`", kind.parts().1)).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Selvedge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "What a node runs and answers, and orders to it. What cannot be done is told as problem details \
                 (RFC 9457) of one of these types: {}. Orders may carry `If-Match` with the `ETag` that was seen, and \
                 most `dry_run`, which says what would change and changes nothing.",
                kinds.join(", ")
            ),
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/", "description": "The daemon's Unix socket, or its address for TCP." }],
        "security": [{}, { "token": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "Over TCP; or a client's certificate." },
            },
        },
    })
}

/// Largest whole number that every reader of JSON takes exactly (RFC 8259, section 6).
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// Gives whole numbers the bound that they have.
fn bounded(schema: &mut Schema) {
    let largest = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => u32::MAX.into(),
        Some("uint64") => LARGEST_EXACT,
        _ => return,
    };
    schema.insert("maximum".to_owned(), largest.into());
}

/// What is taken has fields that may be left out; what is given has them all. So both have their own schemas, those of
/// what is taken in place.
fn taken(of: SchemaOf) -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.meta_schema = None;
        s.inline_subschemas = true;
    });
    let mut schema = of(&mut settings.into_generator());
    RecursiveTransform(bounded).transform(&mut schema);
    schema
}

/// The first word of a path behind the version.
fn tag(operation: &Operation) -> &'static str {
    let path = operation.path.strip_prefix("/v1/").unwrap_or("document");
    path.split('/').next().unwrap_or(path)
}

fn tags() -> Value {
    let mut names: Vec<_> = OPERATIONS.iter().map(tag).collect();
    names.dedup();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

fn all_kinds() -> impl Iterator<Item = Kind> {
    let special = [Kind::NotFound, Kind::MethodNotAllowed, Kind::Conflict, Kind::Changed, Kind::Failed];
    let mut kinds: Vec<Kind> = ALWAYS.into_iter().chain(WITH_BODY).chain(special).collect();
    kinds.sort_by_key(|kind| kind.status());
    kinds.dedup();
    kinds.into_iter()
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator, problem: &Schema) -> Value {
    let mut parameters = in_path(operation.path, generator);
    if let Some(query) = operation.query {
        parameters.extend(in_query(&taken(query)));
    }
    if operation.tagged && operation.method != "get" {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The ETag that was seen; refused with 412 where it is another by now. Without it, or with *, whatever is there is replaced.",
            "schema": { "type": "string", "minLength": 1, "pattern": "^(\"[0-9]{1,19}\"|\\*)$" },
        }));
    }
    let mut headers = json!({
        "X-Request-Id": { "description": "The request's name in the log.", "schema": { "type": "string" } },
    });
    if operation.tagged {
        headers["ETag"] = json!({ "description": "The revision.", "schema": { "type": "string" } });
    }
    let content = match operation.answer {
        Some(schema) => json!({ "schema": schema(generator) }),
        None => json!({ "schema": { "type": "string" } }),
    };
    let mut responses = json!({
        "200": {
            "description": operation.summary,
            "headers": headers,
            "content": { operation.media: content },
        },
    });
    let body_problems = if operation.body.is_some() { &WITH_BODY[..] } else { &[] };
    for kind in ALWAYS.iter().chain(body_problems).chain(operation.problems) {
        let (status, _, title) = kind.parts();
        responses[status.as_str()] = json!({
            "description": title,
            "content": { PROBLEM: { "schema": problem } },
        });
    }
    let right = if operation.right == Right::Write { "write" } else { "read" };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "description": format!("Needs the right to {right}."),
        "tags": [tag(operation)],
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": taken(body) } },
        });
    }
    described
}

/// The words in braces, each of which stands for one kind of thing.
fn in_path(path: &str, generator: &mut SchemaGenerator) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let schema = match name {
                "service" => generator.subschema_for::<ServiceName>(),
                "instance" => generator.subschema_for::<InstanceId>(),
                "node" => generator.subschema_for::<NodeName>(),
                _ => generator.subschema_for::<u64>(),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

/// The fields of a query's type, each a parameter.
fn in_query(schema: &Schema) -> Vec<Value> {
    let fields = schema.get("properties").and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|fields| fields.remove("description"));
        // Absence is the one way to say nothing in a query.
        if let Some(Value::Array(kinds)) = schema.get_mut("type") {
            kinds.retain(|kind| kind != "null");
        }
        json!({
            "name": name, "in": "query", "required": false,
            "description": description.unwrap_or_default(), "schema": schema,
        })
    };
    fields.into_iter().flatten().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    /// Every `$ref` of a value.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|v| references(v, found));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_whole() {
        let document = document();
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        let put = document.pointer("/paths/~1v1~1services~1{service}~1override/put").unwrap();
        assert_eq!(put["parameters"].as_array().unwrap().len(), 3, "path, dry_run, If-Match: {put:#}");
        for status in ["200", "400", "403", "404", "406", "412", "413", "415", "422", "429"] {
            assert!(put["responses"].get(status).is_some(), "{status}");
        }
    }
}

//! The OpenAPI document: made of the table of routes and the types that requests and replies are.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::message::{Reply, Request};
use super::routes::{DOCUMENT_PATH, Format, Kind, Method, ROUTES, Route};
use super::types::Refusal;

/// What every operation may answer instead.
const REFUSAL: &str = "#/components/schemas/Refusal";

/// The document; every answer that is a reply's value has a schema in it.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(make)
}

fn make() -> Value {
    let mut schemas = Vec::new();
    Request::schemas(&mut schemas);
    Reply::schemas(&mut schemas);
    schemas.push((Refusal::name().into_owned(), Refusal::schema()));
    Refusal::schemas(&mut schemas);
    let schemas: BTreeMap<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default())).collect();
    let (requests, replies) = (variants(&Request::schema(), "request"), variants(&Reply::schema(), "reply"));
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in &ROUTES {
        let method = if route.method == Method::Get { "get" } else { "post" };
        let operation = operation(route, requests.get(route.request).unwrap_or(&Value::Null), &replies);
        paths.entry(route.path).or_default().insert(method.to_owned(), operation);
    }
    let own = json!({
        "operationId": "openapi",
        "summary": "This document.",
        "responses": { "200": { "description": "OpenAPI 3.1.", "content": { "application/json": { "schema": { "type": "object" } } } } },
    });
    paths.entry(DOCUMENT_PATH).or_default().insert("get".to_owned(), own);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "p2psync",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The local interface of a p2psync agent. Within /v1 fields and operations are added, never \
                renamed or removed: ignore what you do not know.",
        },
        "servers": [{ "url": "/" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "On the browser port only; the control socket needs none.",
            } },
        },
    })
}

fn operation(route: &Route, request: &Value, replies: &BTreeMap<String, Value>) -> Value {
    let path_fields: Vec<&str> = route.path_fields().collect();
    let is_first = ROUTES.iter().find(|other| other.request == route.request).is_some_and(|r| r.path == route.path);
    let id = match path_fields.first() {
        Some(field) if !is_first => format!("{}_{field}", route.request),
        _ => route.request.to_owned(),
    };
    let mut fields: Map<String, Value> = request["properties"].as_object().cloned().unwrap_or_default();
    let required: Vec<String> = request["required"].as_array().into_iter().flatten().filter_map(text).collect();
    fields.remove("request");
    let mut parameters = Vec::new();
    for name in &path_fields {
        let schema = without_null(fields.remove(*name).unwrap_or_default());
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    for (name, kind) in route.query {
        let schema = without_null(fields.remove(*name).unwrap_or_default());
        let required = required.iter().any(|field| field == name);
        let mut parameter = json!({ "name": name, "in": "query", "required": required, "schema": schema });
        if *kind == Kind::Path {
            parameter["description"] = "An absolute path, percent-encoded once, as usual in addresses.".into();
        }
        parameters.push(parameter);
    }
    let mut operation = json!({
        "operationId": id,
        "summary": request["description"],
        "parameters": parameters,
        "responses": {
            "200": { "description": "Done.", "content": content(route, replies) },
            "default": {
                "description": "Not done.",
                "content": { "application/json": { "schema": { "$ref": REFUSAL } } },
            },
        },
    });
    if route.method == Method::Post && !fields.is_empty() {
        let required: Vec<&String> = required.iter().filter(|name| fields.contains_key(*name)).collect();
        let is_required = !required.is_empty();
        let schema = json!({ "type": "object", "properties": fields, "required": required });
        operation["requestBody"] =
            json!({ "required": is_required, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// What a route answers with, by media type.
fn content(route: &Route, replies: &BTreeMap<String, Value>) -> Value {
    let value_of = |name: &str| replies.get(name).map(|reply| reply["properties"]["value"].clone()).unwrap_or_default();
    let all = || route.replies.iter().copied().chain(["progress", "error"]);
    match route.format {
        Format::Json => json!({ "application/json": { "schema": value_of(route.replies[route.replies.len() - 1]) } }),
        Format::Events => {
            let values: Vec<Value> = route.replies.iter().map(|name| value_of(name)).collect();
            json!({ "text/event-stream": { "schema": { "anyOf": values } } })
        }
        Format::Lines => {
            let line = |name: &str| {
                json!({
                    "type": "object",
                    "required": ["last", "reply", "value"],
                    "properties": {
                        "last": { "type": "boolean" },
                        "reply": { "type": "string", "enum": [name] },
                        "value": value_of(name),
                    },
                })
            };
            json!({ "application/x-ndjson": { "schema": { "oneOf": all().map(line).collect::<Vec<_>>() } } })
        }
    }
}

/// The variants of an enum that has its name in this field.
pub(super) fn variants(schema: &impl serde::Serialize, tag: &str) -> BTreeMap<String, Value> {
    let schema = serde_json::to_value(schema).unwrap_or_default();
    let named = |variant: &Value| Some((text(&variant["properties"][tag]["enum"][0])?, variant.clone()));
    schema["oneOf"].as_array().into_iter().flatten().filter_map(named).collect()
}

/// The schema of a value that is there wherever it is spoken of.
fn without_null(mut schema: Value) -> Value {
    if let Some(kinds) = schema["type"].as_array() {
        let kinds: Vec<&Value> = kinds.iter().filter(|kind| *kind != "null").collect();
        if let [kind] = kinds[..] {
            schema["type"] = kind.clone();
        }
    }
    if let Some(object) = schema.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    schema
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

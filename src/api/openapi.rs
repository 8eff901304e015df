//! The OpenAPI 3.1 document, generated from the kind table and the table of routes below it.
//!
//! It describes; it serves nothing. `openapi/binnacle.json` is its committed output, and a test
//! fails when they differ.

use serde_json::{Map, Value, json};

use crate::kinds::{Column, Counts, Holds, Join, KINDS, KindDef, Source};
use crate::query;

/// Routes that are not a kind's list or detail: path, method, summary, content type of the answer.
const ROUTES: &[(&str, &str, &str, &str)] = &[
    ("/livez", "get", "Whether the process answers", "text/plain"),
    ("/healthz", "get", "The same as /livez", "text/plain"),
    (
        "/readyz",
        "get",
        "Whether to send requests here; ?verbose tells how each kind stands",
        "text/plain",
    ),
    (
        "/metrics",
        "get",
        "OpenMetrics text; needs the right to get the non-resource URL /metrics",
        "application/openmetrics-text",
    ),
    (
        "/clusters/{cluster}/{path}",
        "get",
        "The Kubernetes API itself, as the caller; every method and upgrade",
        "application/json",
    ),
];

/// The document as pretty JSON with a line end.
pub fn openapi() -> String {
    let mut paths = Map::new();
    for kind in KINDS.iter().filter(|kind| kind.source != Source::Poll) {
        let name = kind.name;
        paths.insert(format!("/api/v1/{name}"), json!({ "get": list(kind, false) }));
        let mut object = format!("/api/v1/{name}/{{name}}");
        if kind.resource.namespaced {
            let path = format!("/api/v1/{name}/{{namespace}}");
            paths.insert(path, json!({ "get": list(kind, true) }));
            object = format!("/api/v1/{name}/{{namespace}}/{{name}}");
        }
        paths.insert(object.clone(), json!({ "get": detail(kind) }));
        for (segment, _) in kind.children {
            let path = format!("{object}/{segment}");
            let summary = format!("What belongs to one of the {}: {segment}", kind.resource.plural);
            paths
                .insert(path.clone(), json!({ "get": plain(&path, &summary, "application/json") }));
        }
    }
    for (path, method, summary, content) in ROUTES {
        let operations = paths.entry(*path).or_insert_with(|| json!({}));
        operations[*method] = plain(path, summary, content);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Binnacle",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The API of the Kubernetes Dashboard, merged reads for frontends, and the Kubernetes API as a passthrough.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    });
    format!("{document:#}\n")
}

/// An operation that the kind table says nothing more about.
fn plain(path: &str, summary: &str, content: &str) -> Value {
    json!({
        "summary": summary,
        "parameters": path_parameters(path),
        "responses": { "200": { "description": "The answer", "content": { content: {} } } },
    })
}

fn list(kind: &KindDef, namespaced: bool) -> Value {
    let mut parameters = Vec::new();
    if namespaced {
        parameters.push(json!({
            "name": "namespace", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "One namespace, several separated by commas, or a blank (%20) for all.",
        }));
    }
    let columns = query::columns(kind).join(", ");
    for (name, schema, text) in [
        ("itemsPerPage", "integer", "Rows on a page; without it everything is answered.".into()),
        ("page", "integer", "Counted from 1.".into()),
        ("sortBy", "string", format!("Pairs of a or d and a column: {columns}.")),
        (
            "filterBy",
            "string",
            format!(
                "Pairs of a column and a substring: {columns}. Before the column: ! rows that do \
                 not, ~ whatever the case, = the whole value."
            ),
        ),
        ("labelSelector", "string", "As kubectl takes it: app=web,tier in (a,b),!canary.".into()),
    ] {
        parameters.push(json!({
            "name": name, "in": "query", "schema": { "type": schema }, "description": text,
        }));
    }
    let mut responses = errors();
    responses.insert("200".into(), answer(&format!("{}List", kind.resource.kind)));
    responses
        .insert("304".into(), json!({ "description": "Nothing changed since the ETag sent." }));
    json!({
        "operationId": format!("list{}{}", kind.resource.kind, if namespaced { "In" } else { "" }),
        "summary": format!("The {} that the caller may list, merged", kind.resource.plural),
        "parameters": parameters,
        "responses": responses,
    })
}

fn detail(kind: &KindDef) -> Value {
    let mut names = vec!["name"];
    if kind.resource.namespaced {
        names.insert(0, "namespace");
    }
    let parameters: Vec<Value> = names.into_iter().map(path_parameter).collect();
    let mut responses = errors();
    responses.insert("200".into(), answer(&format!("{}Detail", kind.resource.kind)));
    json!({
        "operationId": format!("get{}", kind.resource.kind),
        "summary": format!("One of the {}, with what belongs to it", kind.resource.plural),
        "parameters": parameters,
        "responses": responses,
    })
}

fn answer(schema: &str) -> Value {
    let reference = format!("#/components/schemas/{schema}");
    json!({
        "description": "The answer",
        "content": { "application/json": { "schema": { "$ref": reference } } },
    })
}

fn errors() -> Map<String, Value> {
    [
        ("400", "The request cannot be understood"),
        ("401", "No valid credentials"),
        ("403", "Not allowed"),
        ("404", "Not found"),
        ("503", "The API server cannot be reached"),
    ]
    .into_iter()
    .map(|(status, text)| {
        let content = json!({ "text/plain": { "schema": { "type": "string" } } });
        (status.into(), json!({ "description": text, "content": content }))
    })
    .collect()
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(path_parameter).collect()
}

/// What lists and details are made of; the fields of single kinds are those of their rows.
fn schemas() -> Value {
    let mut all = Map::new();
    all.insert("ListMeta".into(), json!({
        "type": "object", "required": ["totalItems"],
        "properties": { "totalItems": { "type": "integer", "description": "After the filter, before paging." } },
    }));
    all.insert("K8sError".into(), json!({
        "type": "object", "required": ["ErrStatus"],
        "properties": { "ErrStatus": { "type": "object", "description": "A metav1.Status of what could not be read." } },
    }));
    all.insert("ResourceStatus".into(), json!({
        "type": "object",
        "properties": { "running": {"type": "integer"}, "pending": {"type": "integer"}, "failed": {"type": "integer"},
                        "succeeded": {"type": "integer"}, "terminating": {"type": "integer"} },
    }));
    for kind in KINDS.iter().filter(|kind| kind.source != Source::Poll) {
        let name = kind.resource.kind;
        all.insert(name.into(), item(kind));
        all.insert(format!("{name}List"), list_schema(kind));
        all.insert(format!("{name}Detail"), json!({
            "type": "object", "required": ["objectMeta", "typeMeta", "errors"],
            "properties": { "objectMeta": {"type": "object"}, "typeMeta": {"type": "object"},
                            "errors": { "type": "array", "items": { "$ref": "#/components/schemas/K8sError" } } },
        }));
    }
    Value::Object(all)
}

fn item(kind: &KindDef) -> Value {
    let mut properties = Map::new();
    properties.insert("objectMeta".into(), json!({ "type": "object" }));
    properties.insert("typeMeta".into(), json!({ "type": "object" }));
    for Column { name, holds } in kind.columns {
        let schema = match holds {
            Holds::Time => json!({ "type": ["string", "null"], "format": "date-time" }),
            Holds::Number => json!({ "type": "integer" }),
            Holds::Text => json!({ "type": "string" }),
        };
        properties.insert((*name).into(), schema);
    }
    for join in kind.joins {
        let (key, schema) = match join {
            Join::Warnings => ("warnings", json!({ "type": "array" })),
            Join::PodInfo { key, .. } => (*key, json!({ "type": "object" })),
            Join::Allocation => ("allocatedResources", json!({ "type": "object" })),
            Join::Metrics => ("metrics", json!({ "type": ["object", "null"] })),
        };
        properties.insert(key.into(), schema);
    }
    json!({ "type": "object", "required": ["objectMeta", "typeMeta"], "properties": properties })
}

fn list_schema(kind: &KindDef) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let mut properties = Map::new();
    properties.insert("listMeta".into(), reference("ListMeta"));
    if kind.list.metrics {
        properties.insert("cumulativeMetrics".into(), json!({ "type": "array" }));
    }
    if kind.list.counts != Counts::None {
        properties.insert("status".into(), reference("ResourceStatus"));
    }
    let items = json!({ "type": "array", "items": reference(kind.resource.kind) });
    properties.insert(kind.list.items.into(), items);
    properties.insert("errors".into(), json!({ "type": "array", "items": reference("K8sError") }));
    let required: Vec<&String> = properties.keys().collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

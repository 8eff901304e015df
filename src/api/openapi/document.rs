//! The OpenAPI 3.1 document: what follows from the kind table, the other routes
//! (`openapi/routes.rs` and beside it), and all that they take and answer (`types.txt`).
//!
//! It describes; it serves nothing. `openapi/binnacle.json` is its committed output, and a test
//! fails when they differ.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::charts::CHARTS;
use super::releases::RELEASES;
use super::routes::{CHANGE, Gives, JOBS, READ, ROUTES, Refuses, Route};
use super::streams::STREAMS;
use super::types::{schema, schemas};
use crate::api::{CONTRACT, reads};
use crate::kinds::custom::CUSTOM;
use crate::kinds::{Child, Counts, KINDS, KindDef, Relation, Source, by_name};
use crate::query;

/// What an answer may be besides the one that was asked for: status, name, meaning, where.
const ERRORS: [(&str, &str, &str, Met); 14] = [
    ("400", "BadRequest", "The request cannot be understood", Met::Anywhere),
    ("401", "Unauthorized", "No valid credentials", Met::Anywhere),
    ("403", "Forbidden", "Not allowed", Met::Anywhere),
    ("404", "NotFound", "Not found", Met::Anywhere),
    ("408", "TooSlow", "The body did not come in time", Met::Writing),
    ("409", "Conflict", "Not as things are now", Met::Writing),
    ("413", "TooLarge", "The body, the list or the live answer is too large", Met::Listing),
    ("415", "UnsupportedMediaType", "The body is not declared as what is taken", Met::Writing),
    ("422", "Invalid", "The API server does not accept the object", Met::Writing),
    ("429", "Busy", "Too much at once for this caller or this server", Met::Anywhere),
    ("500", "Failed", "A fault of this server or of the API server", Met::Anywhere),
    ("502", "BadGateway", "An answer from behind this server is of no use", Met::Anywhere),
    (
        "503",
        "Unavailable",
        "The API server cannot be reached, or this server has no room, no turn or no rows yet",
        Met::Anywhere,
    ),
    ("504", "GatewayTimeout", "No answer from behind this server in time", Met::Anywhere),
];

/// Which operations an error is told of.
#[derive(Clone, Copy)]
enum Met {
    Anywhere,
    Writing,
    /// Writes, and reads of as much as there is.
    Listing,
}

/// The document as pretty JSON with a line end. What it is made of is compiled in; were that
/// broken, it would be the problem instead.
pub fn openapi() -> String {
    match document() {
        Ok(document) => format!("{document:#}\n"),
        Err(problem) => problem,
    }
}

struct Paths {
    all: Map<String, Value>,
    /// What the router has as live, behind `/api/v1`.
    live: HashSet<String>,
}

fn document() -> Result<Value, String> {
    let mut paths = Paths { all: Map::new(), live: reads().templates };
    for kind in shown() {
        add_kind(&mut paths, kind)?;
    }
    for route in ROUTES.iter().copied().chain([STREAMS, RELEASES, CHARTS]).flatten() {
        add(&mut paths, route.path, (route.id, route.summary), route)?;
    }
    let mut types = schemas()?;
    for kind in shown() {
        types.insert(format!("{}List", kind.resource.kind), list(kind));
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Binnacle",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The API of the Kubernetes Dashboard, merged reads for frontends, and the Kubernetes API as a passthrough.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "bearer": [] }],
        "paths": paths.all,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "parameters": shared_parameters(),
            "responses": errors()?,
            "schemas": types,
        },
    }))
}

/// Parts of the paths of POSTs that take no CSRF token: they need one that scripts would have to
/// fetch, and cross-site requests are refused anyway.
const UNGUARDED: [&str; 4] = ["/validate/", "/v1/release", "/v1/repository", "/v1/chart"];

/// The kinds that have routes.
pub fn shown() -> impl Iterator<Item = &'static KindDef> {
    KINDS.iter().filter(|kind| kind.source != Source::Poll)
}

/// The routes of a kind, as `kind_routes` in `mod.rs` makes them.
fn add_kind(paths: &mut Paths, kind: &'static KindDef) -> Result<(), String> {
    let (name, of, plural) = (kind.name, kind.resource.kind, kind.resource.plural);
    let list = Route { gives: Gives::List(name), ..READ };
    let summary = format!("The {plural} that the caller may list, merged");
    add(paths, &format!("/api/v1/{name}"), (&format!("list{of}"), &summary), &list)?;
    let mut object = format!("/api/v1/{name}/{{name}}");
    if kind.resource.namespaced {
        let path = format!("/api/v1/{name}/{{namespace}}");
        add(paths, &path, (&format!("list{of}In"), &summary), &list)?;
        object = format!("{path}/{{name}}");
    }
    let detail = Route { gives: Gives::Detail(name), ..READ };
    let summary = format!("One of the {plural}, with what belongs to it");
    add(paths, &object, (&format!("get{of}"), &summary), &detail)?;
    for &(segment, child) in kind.children {
        let id = format!("list{of}{}", capital(segment));
        let summary = format!("What belongs to one of the {plural}: {segment}");
        add(paths, &format!("{object}/{segment}"), (&id, &summary), &relatives(child))?;
    }
    for action in kind.actions {
        let segment = action.segment();
        let summary = format!("{} one of the {plural}", capital(segment));
        let id = format!("{segment}{of}");
        add(paths, &format!("{object}/{segment}"), (&id, &summary), &change(kind, segment))?;
    }
    Ok(())
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// A child list; that of autoscalers takes no query.
fn relatives(child: Child) -> Route {
    let gives = match child {
        Child::Containers => Gives::Json("PodContainerList"),
        Child::NewSet => Gives::Json("ReplicaSet"),
        Child::Autoscalers => Gives::Json("HorizontalPodAutoscalerList"),
        Child::Claims => Gives::List("persistentvolumeclaim"),
        Child::Events => Gives::List("event"),
        Child::Ingresses => Gives::List("ingress"),
        Child::Jobs => Gives::List("job"),
        Child::OldSets => Gives::List("replicaset"),
        Child::Pods => Gives::List("pod"),
        Child::PullSecrets | Child::Secrets => Gives::List("secret"),
        Child::Services => Gives::List("service"),
        Child::Volumes => Gives::List("persistentvolume"),
    };
    let query = if child == Child::Jobs { JOBS } else { &[] };
    Route { gives, query, ..READ }
}

/// What `PUT …/{action}` takes and answers.
fn change(kind: &KindDef, segment: &str) -> Route {
    match segment {
        "rollback" => Route { takes: "RolloutSpec", gives: Gives::Json("RolloutSpec"), ..CHANGE },
        "restart" if kind.name == "deployment" => {
            Route { gives: Gives::Json("RolloutSpec"), ..CHANGE }
        }
        "restart" | "pause" | "resume" => {
            Route { gives: Gives::Json("KubernetesObject"), ..CHANGE }
        }
        _ => CHANGE,
    }
}

/// One operation. `like` says all but its path, id and summary.
fn add(
    paths: &mut Paths,
    path: &str,
    (id, summary): (&str, &str),
    like: &Route,
) -> Result<(), String> {
    let rest = path.strip_prefix(CONTRACT).filter(|_| like.method == "get");
    let is_live = rest.is_some_and(|rest| paths.live.contains(rest));
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "parameters": parameters(path, like)?,
        "responses": responses(like, is_live)?,
    });
    if !like.takes.is_empty() {
        // What is no JSON is named by its content type alone.
        let content = if like.takes.contains('/') {
            json!({ like.takes: {} })
        } else {
            json!({ "application/json": { "schema": schema(like.takes)? } })
        };
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    if like.is_open {
        operation["security"] = json!([]);
    }
    let operations = paths.all.entry(path).or_insert_with(|| json!({}));
    operations[like.method] = operation;
    Ok(())
}

fn parameters(path: &str, like: &Route) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let mut parameter = json!({
            "name": name, "in": "path", "required": true, "schema": { "type": "string" },
        });
        if name == "namespace" && like.method == "get" && takes_several(path) {
            let text = "One namespace, several separated by commas, or a blank (%20) for all.";
            parameter["description"] = text.into();
        }
        all.push(parameter);
    }
    let listed = match like.gives {
        Gives::List(name) => Some(kind(name)?.1),
        Gives::Detail(name) => {
            // The lists in the detail follow the query.
            let has_pods = kind(name)?.1.relations.contains(&Relation::NodePods);
            by_name("pod").filter(|_| has_pods)
        }
        _ => None,
    };
    all.extend(listed.into_iter().flat_map(list_parameters));
    for (name, of, text) in like.query {
        all.push(json!({
            "name": name, "in": "query", "schema": schema(of)?, "description": text,
        }));
    }
    let unguarded = UNGUARDED.iter().any(|part| path.contains(part));
    if like.method == "post" && path.starts_with("/api/v1/") && !unguarded {
        all.push(json!({ "$ref": "#/components/parameters/csrf" }));
    }
    if like.is_repeatable {
        all.push(json!({ "$ref": "#/components/parameters/idempotencyKey" }));
    }
    Ok(all)
}

/// Whether the path's namespace may be several, for a read.
fn takes_several(path: &str) -> bool {
    let is_last = path.ends_with("/{namespace}") && !path.starts_with("/api/v1/metrics/");
    is_last || path == "/api/v1/crd/{namespace}/{crd}/object"
}

fn list_parameters(kind: &KindDef) -> Vec<Value> {
    let columns = query::columns(kind).join(", ");
    let own = [
        ("sortBy", format!("Pairs of a or d and a column: {columns}.")),
        (
            "filterBy",
            format!(
                "Pairs of a column and a substring: {columns}. Before the column: ! rows that do \
                 not, ~ whatever the case, = the whole value."
            ),
        ),
    ];
    let own = own.map(|(name, text)| {
        json!({ "name": name, "in": "query", "schema": { "type": "string" }, "description": text })
    });
    let shared = ["itemsPerPage", "page", "labelSelector"];
    let shared = shared.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    shared.into_iter().chain(own).collect()
}

fn shared_parameters() -> Value {
    let query = |name: &str, kind: &str, text: &str| json!({ "name": name, "in": "query", "schema": { "type": kind }, "description": text });
    json!({
        "itemsPerPage":
            query("itemsPerPage", "integer", "Rows on a page; without it everything is answered."),
        "page": query("page", "integer", "Counted from 1."),
        "labelSelector":
            query("labelSelector", "string", "As kubectl takes it: app=web,tier in (a,b),!canary,n>3."),
        "csrf": {
            "name": "x-csrf-token", "in": "header", "schema": { "type": "string" },
            "description": "From /api/v1/csrftoken with the element after /api/v1/; needed unless that is switched off.",
        },
        "idempotencyKey": {
            "name": "Idempotency-Key", "in": "header",
            "schema": { "type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$" },
            "description": "Repeated with the same key, a request is the same operation; 503 where the API server does not tell who asks.",
        },
    })
}

const EVENTS: &str = "text/event-stream";

/// Answers in the making: never the same again, with events of their own.
const OPERATION: &str = "/api/v1/operation/{namespace}/{id}";
/// The one write that tells how it goes, to those who accept events.
const DRAIN: &str = "/api/v1/node/{name}/drain";

fn events(text: &str) -> Value {
    json!({ "schema": { "type": "string", "description": text } })
}

fn responses(like: &Route, is_live: bool) -> Result<Map<String, Value>, String> {
    let mut answer = json!({ "description": "The answer" });
    if let Some((content, schema)) = content(like.gives)? {
        answer["content"] = json!({ content: { "schema": schema } });
    }
    let mut all = Map::new();
    for &(status, text) in like.also {
        let mut one = json!({ "description": text });
        match status {
            200..300 => one["content"] = answer["content"].clone(),
            400.. => one["content"] = refusal(like.refuses)?,
            _ => {}
        }
        all.insert(status.to_string(), one);
    }
    let is_read = like.method == "get";
    let told = if is_live {
        Some("The same, and what changes of it: events whole, change, stale, current, end.")
    } else if is_read && like.path == OPERATION {
        Some("How it stands, its log, and how it ended: events state, log, end.")
    } else {
        None
    };
    if let Some(text) = told {
        answer["content"][EVENTS] = events(text);
    }
    all.insert(like.status.to_string(), answer);
    if like.path == DRAIN {
        let text =
            "What becomes of each pod: events cordoned, evicting, waiting, evicted, failed, done.";
        let told = json!({
            "description": "The same, told as it goes to who accepts an event stream",
            "content": { EVENTS: events(text) },
        });
        all.insert("200".into(), told);
    }
    let is_shown = !matches!(like.gives, Gives::Nothing | Gives::Text(_));
    if is_read && is_shown && !like.is_untagged {
        let text = "Nothing changed since the ETag sent.";
        all.insert("304".into(), json!({ "description": text }));
    }
    if like.refuses != Refuses::Never {
        let suffix = wording(like.refuses).0;
        let is_listed = is_live || matches!(like.gives, Gives::List(_));
        for (status, name, _, met) in ERRORS {
            let is_met = match met {
                Met::Anywhere => true,
                Met::Writing => !is_read,
                Met::Listing => !is_read || is_listed,
            };
            if is_met {
                let reference = format!("#/components/responses/{name}{suffix}");
                all.insert(status.into(), json!({ "$ref": reference }));
            }
        }
    }
    Ok(all)
}

/// Content type and schema.
fn content(gives: Gives) -> Result<Option<(&'static str, Value)>, String> {
    const JSON: &str = "application/json";
    Ok(match gives {
        Gives::Nothing => None,
        Gives::Json(of) => Some((JSON, schema(of)?)),
        Gives::Text(content) => Some((content, json!({ "type": "string" }))),
        Gives::List(name) => Some((JSON, schema(&format!("{}List", kind(name)?.0))?)),
        Gives::Detail(name) => Some((JSON, schema(&format!("{}Detail", kind(name)?.0))?)),
    })
}

/// The name of a kind's type, and the kind.
fn kind(name: &str) -> Result<(&'static str, &'static KindDef), String> {
    if name == CUSTOM.name {
        return Ok(("CustomResourceObject", &CUSTOM));
    }
    let kind = by_name(name).ok_or_else(|| format!("there is no kind {name}"))?;
    Ok((kind.resource.kind, kind))
}

/// How errors are told apart by name, their content type and type.
fn wording(refuses: Refuses) -> (&'static str, &'static str, &'static str) {
    match refuses {
        Refuses::Never | Refuses::Text => ("", "text/plain", "string"),
        Refuses::Item => ("Item", "application/json", "K8sError"),
        Refuses::Status => ("Status", "application/json", "KubernetesObject"),
    }
}

/// What an error says.
fn refusal(refuses: Refuses) -> Result<Value, String> {
    let (_, content, of) = wording(refuses);
    Ok(json!({ content: { "schema": schema(of)? } }))
}

fn errors() -> Result<Map<String, Value>, String> {
    let mut all = Map::new();
    for refuses in [Refuses::Text, Refuses::Item, Refuses::Status] {
        let suffix = wording(refuses).0;
        for (_, name, text, _) in ERRORS {
            let error = json!({ "description": text, "content": refusal(refuses)? });
            all.insert(format!("{name}{suffix}"), error);
        }
    }
    Ok(all)
}

/// The list of a kind, as `listing.rs` writes it.
fn list(kind: &KindDef) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let array = |name: &str| json!({ "type": "array", "items": reference(name) });
    let mut properties = Map::new();
    properties.insert("listMeta".into(), reference("ListMeta"));
    if kind.list.metrics {
        properties.insert("cumulativeMetrics".into(), array("Metric"));
    }
    if kind.list.counts != Counts::None {
        properties.insert("status".into(), reference("ResourceStatus"));
    }
    properties.insert(kind.list.items.into(), array(kind.resource.kind));
    properties.insert("errors".into(), array("K8sError"));
    let required: Vec<&String> = properties.keys().collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;

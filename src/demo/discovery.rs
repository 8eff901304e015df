//! Version, health and discovery: groups and resources from the table of kinds, in the old form
//! and in the aggregated one.
//!
//! Of OpenAPI it has only what clients look up before they write: which objects can be patched, and
//! with which parameter. The demo holds no schemas and validates no fields.

use serde_json::{Map, Value, json};

use super::ask::Ask;
use super::kinds::{KINDS, Kind};
use super::reply::{self, Fail, Reply};

/// The version the demo claims, that of the Kubernetes API it imitates.
pub(super) const VERSION: &str = "v1.36.0";

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) fn answer(ask: &Ask, accept: &str) -> Result<Reply, Fail> {
    if ask.method != "GET" && ask.method != "HEAD" {
        return Err(Fail::method());
    }
    let aggregated = accept.split(',').any(|range| {
        let has = |part: &str| range.split(';').any(|it| it.trim() == part);
        has("as=APIGroupDiscoveryList") && has("v=v2")
    });
    let parts: Vec<&str> = ask.path.split('/').filter(|part| !part.is_empty()).collect();
    let body = match parts.as_slice() {
        ["version"] => version(),
        ["healthz" | "livez" | "readyz", ..] => return Ok(health()),
        ["api"] if aggregated => return Ok(discovered(true)),
        ["apis"] if aggregated => return Ok(discovered(false)),
        ["api"] => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }),
        ["apis"] => {
            let groups = groups().into_iter().filter(|it| !it.0.is_empty()).map(group);
            let groups: Vec<Value> = groups.collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["api", version] => resources("", version)?,
        ["apis", name] => {
            let found = groups().into_iter().find(|it| !it.0.is_empty() && it.0 == *name);
            let mut group = group(found.ok_or_else(Fail::no_page)?);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        }
        ["apis", group, version] => resources(group, version)?,
        ["openapi", "v3"] => documents(),
        ["openapi", "v3", "api", version] => document("", version)?,
        ["openapi", "v3", "apis", group, version] => document(group, version)?,
        ["openapi", ..] => return Err(Fail::unsupported("OpenAPI, for it holds no schemas")),
        [] => json!({ "paths": ["/api", "/apis", "/healthz", "/livez", "/readyz", "/version"] }),
        _ => return Err(Fail::no_page()),
    };
    Ok(reply::json(200, &body))
}

fn health() -> Reply {
    reply::whole(200, "text/plain; charset=utf-8", "ok")
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-04-22T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "demo",
    })
}

/// Group and version, each once, in the order of the table.
fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for kind in KINDS {
        if !groups.contains(&(kind.group, kind.version)) {
            groups.push((kind.group, kind.version));
        }
    }
    groups
}

fn group((name, version): (&str, &str)) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn of(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().copied().filter(move |kind| kind.group == group && kind.version == version)
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: a document for each group and version.
fn documents() -> Value {
    let document = |(group, version)| {
        let root = root(group, version);
        let url = format!("/openapi/v3/{root}");
        (root, json!({ "serverRelativeURL": url }))
    };
    json!({ "paths": Map::from_iter(groups().into_iter().map(document)) })
}

fn document(group: &str, version: &str) -> Result<Value, Fail> {
    let path = |kind: &Kind| {
        let space = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{space}{}/{{name}}", root(group, version), kind.plural);
        let parameter = json!({ "name": "fieldValidation", "in": "query" });
        let of = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
        let patch = json!({ "parameters": [parameter], "x-kubernetes-group-version-kind": of });
        (path, json!({ "patch": patch }))
    };
    let paths = Map::from_iter(of(group, version).map(path));
    if paths.is_empty() {
        return Err(Fail::no_page());
    }
    let info = json!({ "title": "Kubernetes", "version": VERSION });
    Ok(json!({ "openapi": "3.0.0", "info": info, "paths": paths }))
}

fn verbs_of(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "log" => &["get"],
        "exec" => &["create", "get"],
        "eviction" => &["create"],
        _ => &["get", "patch", "update"],
    }
}

/// Group, version and kind of what a subresource speaks.
fn type_of(kind: &Kind, subresource: &str) -> (&'static str, &'static str, &'static str) {
    match subresource {
        "scale" => ("autoscaling", "v1", "Scale"),
        "eviction" => ("policy", "v1", "Eviction"),
        "exec" => ("", "v1", "PodExecOptions"),
        _ => (kind.group, kind.version, kind.kind),
    }
}

fn resources(group: &str, version: &str) -> Result<Value, Fail> {
    let mut resources = Vec::new();
    for kind in of(group, version) {
        resources.push(json!({
            "name": kind.plural,
            "singularName": kind.kind.to_lowercase(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs(),
            "shortNames": kind.short,
        }));
        for sub in kind.subresources {
            let (sub_group, sub_version, sub_kind) = type_of(kind, sub);
            resources.push(json!({
                "name": format!("{}/{sub}", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "group": sub_group,
                "version": sub_version,
                "kind": sub_kind,
                "verbs": verbs_of(sub),
            }));
        }
    }
    if resources.is_empty() {
        return Err(Fail::unknown_path());
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": name,
        "resources": resources,
    }))
}

/// The aggregated form: the core group alone, or all the others.
fn discovered(core: bool) -> Reply {
    let groups = groups().into_iter().filter(|it| it.0.is_empty() == core);
    let items = groups.map(|(group, version)| {
        json!({
            "metadata": { "name": group, "creationTimestamp": null },
            "versions": [{
                "version": version,
                "freshness": "Current",
                "resources": of(group, version).map(discovered_kind).collect::<Vec<_>>(),
            }],
        })
    });
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items.collect::<Vec<_>>(),
    });
    reply::whole(200, AGGREGATED, list.to_string())
}

fn discovered_kind(kind: &Kind) -> Value {
    let subresources = kind.subresources.iter().map(|sub| {
        let (group, version, name) = type_of(kind, sub);
        json!({
            "subresource": sub,
            "responseKind": { "group": group, "version": version, "kind": name },
            "verbs": verbs_of(sub),
        })
    });
    json!({
        "resource": kind.plural,
        "responseKind": { "group": kind.group, "version": kind.version, "kind": kind.kind },
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.kind.to_lowercase(),
        "verbs": kind.verbs(),
        "shortNames": kind.short,
        "subresources": subresources.collect::<Vec<_>>(),
    })
}

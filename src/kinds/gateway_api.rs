//! What the kinds of the Gateway API share: references with their defaults, the parents of a route
//! with what their controllers say of them, and its rules.
//!
//! Only names are read here; what stands behind them is looked up by `api::gateways`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::conditions::status;
pub use super::conditions::together;
use super::detail::{list, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const GROUP: &str = "gateway.networking.k8s.io";

/// Columns of each kind of route.
pub(super) const ROUTE: &[Column] = &[Column::text("accepted")];

/// What a rule sends requests to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend<'a> {
    /// Empty for the core group.
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub port: Option<i64>,
}

/// What a route wants to be attached to.
#[derive(PartialEq)]
struct Parent<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    section: &'a str,
    port: Option<i64>,
}

/// A text of an object, or what stands for it when it is left out.
fn text_or<'a>(object: &'a Value, pointer: &str, otherwise: &'a str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or(otherwise)
}

impl<'a> Backend<'a> {
    fn of(reference: &'a Value, namespace: &'a str) -> Self {
        Self {
            group: text(reference, "/group"),
            kind: text_or(reference, "/kind", "Service"),
            namespace: text_or(reference, "/namespace", namespace),
            name: text(reference, "/name"),
            port: reference.get("port").and_then(Value::as_i64),
        }
    }

    pub fn is_service(&self) -> bool {
        self.group.is_empty() && self.kind == "Service"
    }

    /// As details show it.
    pub fn shown(&self) -> Value {
        json!({
            "group": self.group, "kind": self.kind, "namespace": self.namespace,
            "name": self.name, "port": self.port,
        })
    }
}

impl<'a> Parent<'a> {
    fn of(reference: &'a Value, namespace: &'a str) -> Self {
        Self {
            group: text_or(reference, "/group", GROUP),
            kind: text_or(reference, "/kind", "Gateway"),
            namespace: text_or(reference, "/namespace", namespace),
            name: text(reference, "/name"),
            section: text(reference, "/sectionName"),
            port: reference.get("port").and_then(Value::as_i64),
        }
    }

    /// With what one controller says of it. `whole`: as details show it.
    fn shown(&self, said: Option<&Value>, whole: bool) -> Value {
        let conditions = said.map_or(&[][..], |said| list(said, "/conditions"));
        let mut shown = json!({
            "group": self.group, "kind": self.kind, "namespace": self.namespace,
            "name": self.name, "port": self.port,
            "sectionName": (!self.section.is_empty()).then_some(self.section),
            "accepted": status(conditions, "Accepted"),
            "resolvedRefs": status(conditions, "ResolvedRefs"),
        });
        if whole {
            shown["controllerName"] = said.map(|said| text(said, "/controllerName")).into();
            shown["conditions"] = conditions.into();
        }
        shown
    }
}

/// Each parent once for each controller that speaks of it, or once when none does.
fn parents(route: &Value, whole: bool) -> Vec<Value> {
    let namespace = text(route, "/metadata/namespace");
    let mut shown = Vec::new();
    for reference in list(route, "/spec/parentRefs") {
        let parent = Parent::of(reference, namespace);
        let said: Vec<&Value> = list(route, "/status/parents")
            .iter()
            .filter(|said| {
                said.get("parentRef").is_some_and(|of| Parent::of(of, namespace) == parent)
            })
            .collect();
        if said.is_empty() {
            shown.push(parent.shown(None, whole));
        }
        shown.extend(said.into_iter().map(|said| parent.shown(Some(said), whole)));
    }
    shown
}

/// The rules with their fields as they stand in the object, but `backends` for `backendRefs`.
fn rules(route: &Value) -> Vec<Value> {
    let namespace = text(route, "/metadata/namespace");
    let rules = list(route, "/spec/rules").iter().map(|rule| {
        let mut shown = rule.as_object().cloned().unwrap_or_default();
        shown.remove("backendRefs");
        for key in ["matches", "filters"] {
            shown.entry(key).or_insert_with(|| json!([]));
        }
        let backends = list(rule, "/backendRefs").iter().map(|reference| {
            let mut backend = Backend::of(reference, namespace).shown();
            backend["weight"] = reference.get("weight").cloned().unwrap_or_else(|| 1.into());
            // For what goes to this backend alone.
            if let Some(filters) = reference.get("filters").filter(|filters| filters.is_array()) {
                backend["filters"] = filters.clone();
            }
            backend
        });
        shown.insert("backends".into(), Value::Array(backends.collect()));
        Value::Object(shown)
    });
    rules.collect()
}

/// What the rules of a route name, each once: what they send requests to, and copies of them, be it
/// of all that a rule sends or of what goes to one backend.
pub fn backends(route: &Value) -> BTreeSet<Backend<'_>> {
    let namespace = text(route, "/metadata/namespace");
    let mut all = BTreeSet::new();
    for rule in list(route, "/spec/rules") {
        let sent = list(rule, "/backendRefs");
        let own = sent.iter().flat_map(|reference| list(reference, "/filters"));
        let filters = list(rule, "/filters").iter().chain(own);
        let mirrors = filters.filter_map(|filter| filter.pointer("/requestMirror/backendRef"));
        let named = sent.iter().chain(mirrors);
        all.extend(named.map(|reference| Backend::of(reference, namespace)));
    }
    all
}

/// The row of any route: its host names, and its parents with whether each has accepted it.
pub(super) fn route_row(kind: &'static str, json: &str) -> Result<Row, Malformed> {
    row_with(kind, json, |route| {
        let parents = parents(route, false);
        let accepted = together(parents.iter().map(|parent| text(parent, "/accepted")));
        let fields = json!({
            "hostnames": list(route, "/spec/hostnames"),
            "parents": parents,
            "accepted": accepted,
        });
        Own { fields, cells: vec![Cell::Text(accepted.into())], ..Own::default() }
    })
}

/// The detail of any route: its parents with all that is said of them, and its rules.
pub(super) fn route_detail(
    kind: &'static str,
    object: &Value,
    row: &Row,
) -> Result<Fields, Malformed> {
    detail_with(
        kind,
        object,
        row,
        |route| json!({ "parents": parents(route, true), "rules": rules(route) }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_that_of_its_status_when_their_defaults_are_filled_in() {
        let route = json!({"metadata": {"namespace": "shop"},
            "spec": {"parentRefs": [{"name": "edge"}, {"name": "edge", "sectionName": "tls"},
                {"kind": "Service", "group": "", "name": "mesh"}]},
            "status": {"parents": [
                {"parentRef": {"group": GROUP, "kind": "Gateway", "namespace": "shop",
                    "name": "edge"}, "controllerName": "example.com/a",
                 "conditions": [{"type": "Accepted", "status": "True"}]},
                {"parentRef": {"name": "edge"}, "controllerName": "example.com/b",
                 "conditions": [{"type": "Accepted", "status": "False"}]}]}});
        let shown = parents(&route, true);
        assert_eq!(shown.len(), 4);
        assert_eq!(shown[0]["controllerName"], "example.com/a");
        assert_eq!(shown[0]["accepted"], "True");
        assert_eq!(shown[1]["accepted"], "False");
        assert_eq!(shown[0]["conditions"], json!([{"type": "Accepted", "status": "True"}]));
        let silent = json!({"group": GROUP, "kind": "Gateway", "namespace": "shop",
            "name": "edge", "port": null, "sectionName": "tls", "accepted": "Unknown",
            "resolvedRefs": "Unknown", "controllerName": null, "conditions": []});
        assert_eq!(shown[2], silent);
        assert_eq!((&shown[3]["group"], &shown[3]["kind"]), (&json!(""), &json!("Service")));
    }

    #[test]
    fn backends_are_each_named_once_with_their_mirrors() {
        let copied = |name: &str| {
            let backend = json!({"name": name, "port": 80});
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": backend}})
        };
        let route = json!({"metadata": {"namespace": "shop"}, "spec": {"rules": [
            {"backendRefs": [{"name": "web", "port": 80}, {"name": "web", "port": 80, "weight": 9}]},
            {"backendRefs": [{"name": "api", "namespace": "core", "port": 80}],
             "filters": [copied("log")]},
            {"backendRefs": [{"group": "example.com", "kind": "Bucket", "name": "files",
                "filters": [copied("audit"), copied("log"), {"type": "URLRewrite"}]}]}]}});
        let all: Vec<Value> = backends(&route).iter().map(Backend::shown).collect();
        let service = |namespace: &str, name: &str| json!({"group": "", "kind": "Service", "namespace": namespace, "name": name, "port": 80});
        let bucket = json!({"group": "example.com", "kind": "Bucket", "namespace": "shop",
            "name": "files", "port": null});
        let services = [("core", "api"), ("shop", "audit"), ("shop", "log"), ("shop", "web")];
        let services = services.map(|(namespace, name)| service(namespace, name));
        assert_eq!(all[..4], services);
        assert_eq!(all[4..], [bucket]);
        let services = backends(&route).into_iter().filter(Backend::is_service);
        assert_eq!(services.count(), 4);
        assert!(backends(&json!({})).is_empty());
    }

    #[test]
    fn a_backend_keeps_the_filters_of_its_own() {
        let own = json!([{"type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "x-new", "value": "1"}]}}]);
        let route = json!({"spec": {"rules": [{"backendRefs": [{"name": "new", "filters": own},
            {"name": "web"}, {"name": "odd", "filters": null}]}]}});
        let rules = rules(&route);
        let shown = &rules[0]["backends"];
        assert_eq!(shown[0]["filters"], own);
        for backend in [&shown[1], &shown[2]] {
            assert!(backend.get("filters").is_none(), "{backend}");
        }
        assert_eq!(rules[0]["filters"], json!([]));
    }
}

//! Ingresses: hosts and addresses, and links to the services that they send to.
//!
//! Whether those services exist is not looked at.

use std::collections::BTreeSet;

use serde_json::json;

use super::detail::{list, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "ingress",
        Resource::namespaced("networking.k8s.io", "v1", "Ingress", "ingresses"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |ingress| {
        let balancers = list(ingress, "/status/loadBalancer/ingress").iter();
        let endpoints = balancers.map(|at| match text(at, "/hostname") {
            "" => json!({ "host": text(at, "/ip"), "ports": null }),
            host => json!({ "host": host, "ports": null }),
        });
        let mut hosts: Vec<&str> = Vec::new();
        for rule in list(ingress, "/spec/rules") {
            let host = text(rule, "/host");
            if !host.is_empty() && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        let fields = json!({ "endpoints": endpoints.collect::<Vec<_>>(), "hosts": hosts });
        Own { fields, links: backends(ingress), ..Own::default() }
    })
}

/// The services that an ingress sends to, by rules or by default.
fn backends(ingress: &Value) -> Vec<Link> {
    let rules = list(ingress, "/spec/rules").iter();
    let paths = rules.flat_map(|rule| list(rule, "/http/paths"));
    let named = paths.map(|path| text(path, "/backend/service/name"));
    let default = text(ingress, "/spec/defaultBackend/service/name");
    let names: BTreeSet<&str> = named.chain([default]).collect();
    let names = names.into_iter().filter(|name| !name.is_empty());
    names.map(|name| Link::Backend(name.into())).collect()
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |ingress| {
        // Never null: both are structs of Kubernetes' types, written even when empty.
        let part = |key: &str| ingress.get(key).cloned().unwrap_or_else(|| json!({}));
        json!({ "spec": part("spec"), "status": part("status") })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = r#"{"metadata": {"name": "edge", "namespace": "atlas"},
        "spec": {"defaultBackend": {"service": {"name": "rest"}}, "rules": [
            {"host": "a.invalid", "http": {"paths": [{"backend": {"service": {"name": "tiles"}}}]}},
            {"host": "a.invalid", "http": {"paths": [{"backend": {"resource": {"name": "x"}}}]}},
            {"http": null}]},
        "status": {"loadBalancer": {"ingress": [
            {"hostname": "lb", "ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}}}"#;

    #[test]
    fn an_ingress_shows_distinct_hosts_and_links_to_its_services() {
        let row = row(EDGE).unwrap();
        assert_eq!(*row.links, [Link::Backend("rest".into()), Link::Backend("tiles".into())]);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "edge", "namespace": "atlas", "creationTimestamp": null},
                "typeMeta": {"kind": "ingress"},
                "endpoints": [{"host": "lb", "ports": null}, {"host": "192.0.2.2", "ports": null}],
                "hosts": ["a.invalid"],
            })
        );
    }

    #[test]
    fn a_detail_adds_spec_and_status_as_they_are() {
        let fields = detail_of(&KIND, EDGE).unwrap();
        let object: Value = serde_json::from_str(EDGE).unwrap();
        assert_eq!(fields["spec"], object["spec"]);
        assert_eq!(fields["status"], object["status"]);
        assert_eq!(fields.len(), 6);
    }

    #[test]
    fn a_bare_ingress_has_empty_lists_and_objects() {
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!((&fields["endpoints"], &fields["hosts"]), (&json!([]), &json!([])));
        assert_eq!((&fields["spec"], &fields["status"]), (&json!({}), &json!({})));
    }
}

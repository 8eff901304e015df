//! HTTP routes of the Gateway API: host names, parents, and rules with what they send to.

use super::gateway_api::{GROUP, ROUTE, route_detail, route_row};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    older: &["v1beta1"],
    columns: ROUTE,
    relations: &[Relation::Backends],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "httproute",
        Resource::namespaced(GROUP, "v1", "HTTPRoute", "httproutes"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    route_row(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    route_detail(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SHOP: &str = r#"{"metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"hostnames": ["shop.example.com"],
            "parentRefs": [{"name": "edge", "namespace": "infra"}],
            "rules": [{"name": "all", "timeouts": {"request": "5s"},
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "web", "port": 80}, {"name": "new", "port": 80, "weight": 0}]}]},
        "status": {"parents": [{"controllerName": "example.com/c",
            "parentRef": {"name": "edge", "namespace": "infra"},
            "conditions": [{"type": "Accepted", "status": "True"},
                {"type": "ResolvedRefs", "status": "False"}]}]}}"#;

    #[test]
    fn a_route_shows_its_hosts_and_what_its_parents_say() {
        let row = row(SHOP).unwrap();
        assert_eq!(*row.cells, [Cell::Text("True".into())]);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "shop", "namespace": "shop", "creationTimestamp": null},
                "typeMeta": {"kind": "httproute"},
                "hostnames": ["shop.example.com"], "accepted": "True",
                "parents": [{"group": GROUP, "kind": "Gateway", "namespace": "infra",
                    "name": "edge", "port": null, "sectionName": null,
                    "accepted": "True", "resolvedRefs": "False"}],
            })
        );
    }

    #[test]
    fn a_detail_shows_rules_with_weighted_backends() {
        let fields = detail_of(&KIND, SHOP).unwrap();
        let backend = |name: &str, weight: i64| {
            json!({"group": "", "kind": "Service", "namespace": "shop", "name": name, "port": 80,
                "weight": weight})
        };
        assert_eq!(
            fields["rules"],
            json!([{"name": "all", "timeouts": {"request": "5s"}, "filters": [],
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backends": [backend("web", 1), backend("new", 0)]}])
        );
        assert_eq!(fields["parents"][0]["controllerName"], "example.com/c");
        assert_eq!(fields.len(), 6);
    }

    #[test]
    fn a_route_without_parents_is_not_known_to_be_accepted() {
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!(fields["accepted"], "Unknown");
        for key in ["hostnames", "parents", "rules"] {
            assert_eq!(fields[key], json!([]), "{key}");
        }
    }
}

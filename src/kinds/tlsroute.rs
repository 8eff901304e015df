//! TLS routes of the Gateway API: connections sent on by the host name that they ask for.

use super::gateway_api::{GROUP, ROUTE, route_detail, route_row};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    older: &["v1alpha3", "v1alpha2"],
    columns: ROUTE,
    relations: &[Relation::Backends],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "tlsroute",
        Resource::namespaced(GROUP, "v1", "TLSRoute", "tlsroutes"),
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

    #[test]
    fn a_rule_has_backends_and_neither_matches_nor_filters() {
        let json = r#"{"metadata": {"name": "db", "namespace": "shop"}, "spec": {
            "hostnames": ["db.example.com"], "rules": [{"backendRefs": [{"name": "db", "port": 5432}]}]}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        assert_eq!(fields["hostnames"], json!(["db.example.com"]));
        assert_eq!(
            fields["rules"],
            json!([{"matches": [], "filters": [], "backends": [{"group": "", "kind": "Service",
                "namespace": "shop", "name": "db", "port": 5432, "weight": 1}]}])
        );
        assert_eq!(fields["typeMeta"], json!({"kind": "tlsroute"}));
    }
}

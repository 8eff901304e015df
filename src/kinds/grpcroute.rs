//! gRPC routes of the Gateway API: host names, parents, and rules by service and method.

use super::gateway_api::{GROUP, ROUTE, route_detail, route_row};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    older: &["v1alpha2"],
    columns: ROUTE,
    relations: &[Relation::Backends],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "grpcroute",
        Resource::namespaced(GROUP, "v1", "GRPCRoute", "grpcroutes"),
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
    fn a_rule_shows_the_methods_that_it_matches() {
        let json = r#"{"metadata": {"name": "api", "namespace": "shop"}, "spec": {
            "rules": [{"matches": [{"method": {"service": "shop.Cart", "method": "Add"}}],
                "backendRefs": [{"name": "cart", "port": 9000}]}]}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        let matches = json!([{"method": {"service": "shop.Cart", "method": "Add"}}]);
        assert_eq!(fields["rules"][0]["matches"], matches);
        assert_eq!(fields["rules"][0]["backends"][0]["name"], "cart");
        assert_eq!(fields["typeMeta"], json!({"kind": "grpcroute"}));
    }
}

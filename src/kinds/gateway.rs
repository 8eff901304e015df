//! Gateways of the Gateway API: where they are reached, and their listeners with what became of
//! each.
//!
//! The routes attached to one are other kinds, gathered by `api::gateways`.

use serde_json::{Value, json};

use super::conditions;
use super::detail::{copy, list, number, text};
use super::gateway_api::GROUP;
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    older: &["v1beta1"],
    columns: &[Column::text("class"), Column::text("programmed"), Column::number("attachedRoutes")],
    relations: &[Relation::Routes],
    children: &[("event", Child::Events)],
    ..KindDef::of("gateway", Resource::namespaced(GROUP, "v1", "Gateway", "gateways"), row, detail)
};

/// `attachedRoutes` is the sum over the listeners: a route of two of them counts twice.
fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |gateway| {
        let class = text(gateway, "/spec/gatewayClassName");
        let programmed = conditions::status(list(gateway, "/status/conditions"), "Programmed");
        let attached = list(gateway, "/status/listeners").iter();
        let attached = attached
            .fold(0, |sum: i64, listener| sum.saturating_add(number(listener, "/attachedRoutes")));
        let fields = json!({
            "class": class,
            "addresses": list(gateway, "/status/addresses"),
            "programmed": programmed,
            "attachedRoutes": attached,
        });
        let cells =
            vec![Cell::Text(class.into()), Cell::Text(programmed.into()), Cell::Number(attached)];
        Own { fields, cells, ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |gateway| {
        json!({
            "requestedAddresses": list(gateway, "/spec/addresses"),
            "infrastructure": copy(gateway, "/spec/infrastructure"),
            "listeners": listeners(gateway),
            "conditions": list(gateway, "/status/conditions"),
        })
    })
}

/// The listeners as they stand in the object, each with its status.
fn listeners(gateway: &Value) -> Vec<Value> {
    let said = list(gateway, "/status/listeners");
    let listeners = list(gateway, "/spec/listeners").iter().map(|listener| {
        let name = text(listener, "/name");
        let said = said.iter().find(|said| text(said, "/name") == name);
        let all = said.map_or(&[][..], |said| list(said, "/conditions"));
        let mut shown = listener.as_object().cloned().unwrap_or_default();
        let attached = said.map_or(0, |said| number(said, "/attachedRoutes"));
        let kinds = said.map_or(&[][..], |said| list(said, "/supportedKinds"));
        shown.insert("attachedRoutes".into(), attached.into());
        shown.insert("supportedKinds".into(), kinds.into());
        for (key, of) in [
            ("accepted", "Accepted"),
            ("programmed", "Programmed"),
            ("resolvedRefs", "ResolvedRefs"),
        ] {
            shown.insert(key.into(), conditions::status(all, of).into());
        }
        shown.insert("conditions".into(), all.into());
        Value::Object(shown)
    });
    listeners.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = r#"{"metadata": {"name": "edge", "namespace": "infra"},
        "spec": {"gatewayClassName": "edge", "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP"},
            {"name": "tls", "port": 443, "protocol": "TLS", "hostname": "*.example.com"}]},
        "status": {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
            "conditions": [{"type": "Programmed", "status": "True"}],
            "listeners": [{"name": "http", "attachedRoutes": 2,
                "supportedKinds": [{"kind": "HTTPRoute"}],
                "conditions": [{"type": "Accepted", "status": "True"}]}]}}"#;

    #[test]
    fn a_gateway_shows_where_it_is_reached_and_how_many_routes_it_has() {
        let row = row(EDGE).unwrap();
        let cells = [Cell::Text("edge".into()), Cell::Text("True".into()), Cell::Number(2)];
        assert_eq!(*row.cells, cells);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "edge", "namespace": "infra", "creationTimestamp": null},
                "typeMeta": {"kind": "gateway"}, "class": "edge",
                "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
                "programmed": "True", "attachedRoutes": 2,
            })
        );
    }

    #[test]
    fn a_listener_has_its_status_or_nothing_is_known_of_it() {
        let fields = detail_of(&KIND, EDGE).unwrap();
        assert_eq!(
            fields["listeners"],
            json!([
                {"name": "http", "port": 80, "protocol": "HTTP", "attachedRoutes": 2,
                 "supportedKinds": [{"kind": "HTTPRoute"}], "accepted": "True",
                 "programmed": "Unknown", "resolvedRefs": "Unknown",
                 "conditions": [{"type": "Accepted", "status": "True"}]},
                {"name": "tls", "port": 443, "protocol": "TLS", "hostname": "*.example.com",
                 "attachedRoutes": 0, "supportedKinds": [], "accepted": "Unknown",
                 "programmed": "Unknown", "resolvedRefs": "Unknown", "conditions": []},
            ])
        );
        assert_eq!(fields["conditions"], json!([{"type": "Programmed", "status": "True"}]));
        assert_eq!(fields["requestedAddresses"], json!([]));
    }
}

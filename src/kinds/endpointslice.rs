//! Endpoint slices: the addresses behind a service, with what each is ready for.
//!
//! The contract's `endpointList` of a service is made of core/v1 `Endpoints`, not of these.

use serde_json::{Value, json};

use super::detail::{copy, list, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

/// Addresses that a row shows, as many as kubectl does; the detail has all.
const SHOWN: usize = 3;
/// The label that names the service (`discoveryv1.LabelServiceName`).
const SERVICE: &str = "/metadata/labels/kubernetes.io~1service-name";

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[
        Column::text("addressType"),
        Column::text("service"),
        Column::number("readyEndpoints"),
        Column::number("totalEndpoints"),
    ],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "endpointslice",
        Resource::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |slice| {
        let endpoints = list(slice, "/endpoints");
        let addresses = endpoints.iter().flat_map(|endpoint| list(endpoint, "/addresses"));
        let ready = endpoints.iter().filter(|endpoint| holds(endpoint, "ready", true)).count();
        let (kind, service) = (text(slice, "/addressType"), text(slice, SERVICE));
        let fields = json!({
            "addressType": kind,
            "service": service,
            "ports": list(slice, "/ports"),
            "addresses": addresses.take(SHOWN).collect::<Vec<_>>(),
            "readyEndpoints": ready,
            "totalEndpoints": endpoints.len(),
        });
        let cells = vec![
            Cell::Text(kind.into()),
            Cell::Text(service.into()),
            Cell::Number(count(ready)),
            Cell::Number(count(endpoints.len())),
        ];
        Own { fields, cells, ..Own::default() }
    })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A condition of an endpoint; discovery/v1 says what it means when it is left out.
fn holds(endpoint: &Value, condition: &str, otherwise: bool) -> bool {
    let conditions = endpoint.get("conditions");
    conditions.and_then(|all| all.get(condition)?.as_bool()).unwrap_or(otherwise)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |slice| {
        let endpoints = list(slice, "/endpoints").iter().map(|endpoint| {
            json!({
                "addresses": list(endpoint, "/addresses"),
                "ready": holds(endpoint, "ready", true),
                "serving": holds(endpoint, "serving", true),
                "terminating": holds(endpoint, "terminating", false),
                "hostname": copy(endpoint, "/hostname"),
                "nodeName": copy(endpoint, "/nodeName"),
                "zone": copy(endpoint, "/zone"),
                "targetRef": copy(endpoint, "/targetRef"),
            })
        });
        json!({ "endpoints": endpoints.collect::<Vec<_>>() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILES: &str = r#"{
        "metadata": {"name": "tiles-x", "namespace": "atlas",
            "labels": {"kubernetes.io/service-name": "tiles"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.0.0.1", "10.0.0.2"], "nodeName": "node-0",
             "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "tiles-1"}},
            {"addresses": ["10.0.0.3", "10.0.0.4"],
             "conditions": {"ready": false, "serving": false, "terminating": true}},
            {"addresses": ["10.0.0.5"]}]}"#;

    #[test]
    fn a_slice_shows_its_service_its_first_addresses_and_how_many_are_ready() {
        let row = row(TILES).unwrap();
        let texts = [Cell::Text("IPv4".into()), Cell::Text("tiles".into())];
        assert_eq!(row.cells[..2], texts);
        assert_eq!(row.cells[2..], [Cell::Number(2), Cell::Number(3)]);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "tiles-x", "namespace": "atlas", "creationTimestamp": null,
                    "labels": {"kubernetes.io/service-name": "tiles"}},
                "typeMeta": {"kind": "endpointslice"},
                "addressType": "IPv4", "service": "tiles",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
                "addresses": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
                "readyEndpoints": 2, "totalEndpoints": 3,
            })
        );
    }

    #[test]
    fn an_endpoint_without_conditions_is_ready_and_serving() {
        let fields = detail_of(&KIND, TILES).unwrap();
        assert_eq!(fields["endpoints"][0]["targetRef"]["name"], "tiles-1");
        assert_eq!(fields["endpoints"][1]["terminating"], true);
        let last = json!({"addresses": ["10.0.0.5"], "ready": true, "serving": true,
            "terminating": false, "hostname": null, "nodeName": null, "zone": null,
            "targetRef": null});
        assert_eq!(fields["endpoints"][2], last);
    }
}

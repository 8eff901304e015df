//! Gateway classes of the Gateway API: which controller makes gateways of this class.

use serde_json::{Value, json};

use super::conditions;
use super::detail::{copy, list, text};
use super::gateway_api::GROUP;
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    older: &["v1beta1"],
    columns: &[Column::text("controller"), Column::text("accepted")],
    relations: &[Relation::Gateways],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "gatewayclass",
        Resource::cluster(GROUP, "v1", "GatewayClass", "gatewayclasses"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |class| {
        let controller = text(class, "/spec/controllerName");
        let accepted = conditions::status(list(class, "/status/conditions"), "Accepted");
        let fields = json!({
            "controller": controller,
            "accepted": accepted,
            "description": text(class, "/spec/description"),
        });
        let cells = [controller, accepted].map(|text| Cell::Text(text.into())).into();
        Own { fields, cells, ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |class| {
        json!({
            "parametersRef": copy(class, "/spec/parametersRef"),
            "supportedFeatures": features(class),
            "conditions": list(class, "/status/conditions"),
        })
    })
}

/// Names of features, which are objects since v1.3 of the Gateway API and were texts before.
fn features(class: &Value) -> Vec<&str> {
    let features = list(class, "/status/supportedFeatures").iter();
    features.filter_map(|one| one.as_str().or_else(|| one.get("name")?.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_shows_its_controller_and_what_that_says() {
        let json = r#"{"metadata": {"name": "edge"},
            "spec": {"controllerName": "example.com/c", "description": "at the edge"},
            "status": {"supportedFeatures": ["GRPCRoute", {"name": "HTTPRoute"}],
                "conditions": [{"type": "Accepted", "status": "True"}]}}"#;
        let texts = ["example.com/c", "True"];
        assert_eq!(*row(json).unwrap().cells, texts.map(|text| Cell::Text(text.into())));
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "edge", "creationTimestamp": null},
                "typeMeta": {"kind": "gatewayclass"},
                "controller": "example.com/c", "accepted": "True", "description": "at the edge",
                "parametersRef": null, "supportedFeatures": ["GRPCRoute", "HTTPRoute"],
                "conditions": [{"type": "Accepted", "status": "True"}],
            })
        );
    }
}

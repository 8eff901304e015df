//! Ingress classes: which controller serves them, and in the detail what parametrises it.

use serde_json::json;

use super::detail::text;
use super::loose::{detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef::of(
    "ingressclass",
    Resource::cluster("networking.k8s.io", "v1", "IngressClass", "ingressclasses"),
    row,
    detail,
);

/// Kubernetes' keys of `spec.parameters`, and the contract's.
const PARAMETERS: [(&str, &str); 5] = [
    ("apiGroup", "ApiGroup"),
    ("kind", "Kind"),
    ("name", "Name"),
    ("namespace", "Namespace"),
    ("scope", "Scope"),
];

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |class| {
        json!({ "controller": text(class, "/spec/controller") }).into()
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |class| {
        let parameters = class.pointer("/spec/parameters");
        let given = PARAMETERS.iter().filter_map(|(key, shown)| {
            let value = parameters?.get(key).filter(|value| value.is_string())?;
            Some(((*shown).to_owned(), value.clone()))
        });
        json!({ "parameters": given.collect::<Fields>() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ingress_class_shows_its_controller_and_no_parameters() {
        let json = r#"{"metadata": {"name": "edge"},
            "spec": {"controller": "example.invalid/edge"}}"#;
        let mut expected = json!({
            "objectMeta": {"name": "edge", "creationTimestamp": null},
            "typeMeta": {"kind": "ingressclass"},
            "controller": "example.invalid/edge",
        });
        let row = row(json).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        expected["parameters"] = json!({});
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }

    #[test]
    fn a_detail_names_the_parameters_that_are_given() {
        let json = r#"{"metadata": {"name": "edge"}, "spec": {"controller": "c", "parameters":
            {"apiGroup": "example.com", "kind": "Edge", "name": "main", "scope": "Cluster",
                "namespace": null}}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        let expected =
            json!({"ApiGroup": "example.com", "Kind": "Edge", "Name": "main", "Scope": "Cluster"});
        assert_eq!(fields["parameters"], expected);
    }
}

//! Cluster role bindings: as role bindings, but of no namespace.

use super::loose::{detail_with, head};
use super::rolebinding::bound;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    ..KindDef::of(
        "clusterrolebinding",
        Resource::cluster(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRoleBinding",
            "clusterrolebindings",
        ),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    head(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_role_binding_shows_role_and_subjects_in_its_detail_alone() {
        let json = r#"{"metadata": {"name": "atlas-viewers"},
            "roleRef": {"kind": "ClusterRole", "name": "atlas-viewer"},
            "subjects": [{"kind": "Group", "name": "maps"}]}"#;
        let mut expected = json!({
            "objectMeta": {"name": "atlas-viewers", "creationTimestamp": null},
            "typeMeta": {"kind": "clusterrolebinding"},
        });
        let row = row(json).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        expected["roleRef"] = json!({"kind": "ClusterRole", "name": "atlas-viewer"});
        expected["subjects"] = json!([{"kind": "Group", "name": "maps"}]);
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }
}

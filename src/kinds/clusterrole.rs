//! Cluster roles: as roles, but of no namespace. Aggregated ones show the rules that the API
//! server's controller gathered.

use super::loose::{detail_with, head};
use super::role::rules;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    ..KindDef::of(
        "clusterrole",
        Resource::cluster("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    head(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_role_shows_its_rules_in_its_detail_alone() {
        let json = r#"{"metadata": {"name": "atlas-viewer"},
            "rules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]}"#;
        let mut expected = json!({
            "objectMeta": {"name": "atlas-viewer", "creationTimestamp": null},
            "typeMeta": {"kind": "clusterrole"},
        });
        let row = row(json).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        expected["rules"] = json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]);
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }
}

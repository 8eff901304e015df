//! Roles: metadata alone in lists, the rules in the detail.
//!
//! What someone may do is never worked out from them: the API server is asked.

use serde_json::json;

use super::detail::copy;
use super::loose::{detail_with, head};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    ..KindDef::of(
        "role",
        Resource::namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles"),
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

/// What the details of roles and cluster roles have of their own.
pub fn rules(role: &Value) -> Value {
    json!({ "rules": copy(role, "/rules") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = r#"{"metadata": {"name": "reader", "namespace": "atlas"},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}"#;

    #[test]
    fn a_role_is_listed_without_its_rules_and_shows_them_in_its_detail() {
        let mut expected = json!({
            "objectMeta": {"name": "reader", "namespace": "atlas", "creationTimestamp": null},
            "typeMeta": {"kind": "role"},
        });
        let row = row(READER).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        expected["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        assert_eq!(Value::Object(detail_of(&KIND, READER).unwrap()), expected);
    }

    #[test]
    fn a_role_without_rules_has_null() {
        let bare = r#"{"metadata": {"name": "a"}}"#;
        let null = r#"{"metadata": {"name": "a"}, "rules": null}"#;
        for json in [bare, null] {
            assert_eq!(detail_of(&KIND, json).unwrap()["rules"], Value::Null);
        }
    }
}

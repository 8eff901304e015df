//! Role bindings: metadata alone in lists, in the detail who gets which role.
//!
//! Whether the role or the subjects exist is not looked at.

use serde_json::json;

use super::detail::list;
use super::loose::{detail_with, head};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    ..KindDef::of(
        "rolebinding",
        Resource::namespaced("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
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

/// What the details of role bindings and cluster role bindings have of their own.
pub fn bound(binding: &Value) -> Value {
    let role = binding.get("roleRef").cloned();
    let mut own = json!({ "roleRef": role.unwrap_or_else(|| json!({})) });
    let subjects = list(binding, "/subjects");
    if !subjects.is_empty() {
        own["subjects"] = subjects.into();
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_shows_role_and_subjects_in_its_detail_alone() {
        let json = r#"{"metadata": {"name": "readers", "namespace": "atlas"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "tiles", "namespace": "atlas"}]}"#;
        let mut expected = json!({
            "objectMeta": {"name": "readers", "namespace": "atlas", "creationTimestamp": null},
            "typeMeta": {"kind": "rolebinding"},
        });
        let row = row(json).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        expected["roleRef"] =
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"});
        expected["subjects"] =
            json!([{"kind": "ServiceAccount", "name": "tiles", "namespace": "atlas"}]);
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }

    #[test]
    fn a_binding_of_nobody_has_no_subjects() {
        for subjects in [json!(null), json!([])] {
            let object = json!({
                "metadata": {"name": "a"}, "roleRef": {"name": "r"}, "subjects": subjects,
            });
            let fields = detail_of(&KIND, &object.to_string()).unwrap();
            assert!(!fields.contains_key("subjects"), "{subjects}");
            assert_eq!(fields["roleRef"], json!({"name": "r"}));
        }
    }
}

//! Storage classes: who provisions, with which parameters. Their volumes are a child list.

use serde_json::json;

use super::detail::{copy, text};
use super::loose::row_with;
use super::meta::flat;
use super::*;

pub const KIND: KindDef = KindDef {
    children: &[("persistentvolume", Child::Volumes)],
    ..KindDef::of(
        "storageclass",
        Resource::cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |class| {
        json!({
            "provisioner": text(class, "/provisioner"),
            "parameters": copy(class, "/parameters"),
        })
        .into()
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_class_shows_its_provisioner_and_parameters() {
        let json = r#"{"metadata": {"name": "fast"}, "provisioner": "example.invalid/disk",
            "parameters": {"type": "ssd"}, "reclaimPolicy": "Delete"}"#;
        let expected = json!({
            "objectMeta": {"name": "fast", "creationTimestamp": null},
            "typeMeta": {"kind": "storageclass"},
            "provisioner": "example.invalid/disk", "parameters": {"type": "ssd"},
        });
        let row = row(json).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }

    #[test]
    fn a_storage_class_without_parameters_has_null() {
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!(fields["parameters"], Value::Null);
        assert_eq!(fields["provisioner"], "");
    }
}

//! Persistent volume claims: what they ask for and what they got, and which of them a pod uses.
//!
//! The volume behind a claim is another kind.

use std::collections::BTreeSet;

use serde_json::json;

use super::detail::{copy, list, text};
use super::loose::{Own, row_with};
use super::meta::flat;
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::text("status")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "persistentvolumeclaim",
        Resource::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |claim| {
        let status = text(claim, "/status/phase");
        let fields = json!({
            "status": status,
            "volume": text(claim, "/spec/volumeName"),
            "capacity": copy(claim, "/status/capacity"),
            "accessModes": copy(claim, "/spec/accessModes"),
            "storageClass": copy(claim, "/spec/storageClassName"),
        });
        Own { fields, cells: vec![Cell::Text(status.into())], ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(KIND.name, object, row)
}

/// Names of the claims that a pod's volumes use, each once; those that Kubernetes makes for
/// ephemeral volumes are called `<pod>-<volume>`.
pub fn claim_names(pod: &Value) -> Vec<String> {
    let volumes = list(pod, "/spec/volumes").iter();
    let names = volumes.filter_map(|volume| {
        let named = text(volume, "/persistentVolumeClaim/claimName");
        if !named.is_empty() {
            return Some(named.to_owned());
        }
        volume.get("ephemeral")?;
        let (pod, volume) = (text(pod, "/metadata/name"), text(volume, "/name"));
        Some(format!("{pod}-{volume}"))
    });
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_shows_its_volume_and_what_it_got() {
        let json = r#"{"metadata": {"name": "data", "namespace": "atlas"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "vol-1"},
            "status": {"phase": "Bound", "capacity": {"storage": "5Gi"}}}"#;
        let row = row(json).unwrap();
        assert_eq!(*row.cells, [Cell::Text("Bound".into())]);
        let expected = json!({
            "objectMeta": {"name": "data", "namespace": "atlas", "creationTimestamp": null},
            "typeMeta": {"kind": "persistentvolumeclaim"},
            "status": "Bound", "volume": "vol-1", "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"], "storageClass": "fast",
        });
        assert_eq!(serde_json::from_slice::<Value>(&row.json).unwrap(), expected);
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }

    #[test]
    fn a_claim_that_got_nothing_has_nulls() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Pending"}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        for key in ["capacity", "accessModes", "storageClass"] {
            assert_eq!(fields[key], Value::Null, "{key}");
        }
        assert_eq!(fields["status"], "Pending");
        assert_eq!(fields["volume"], "");
    }

    #[test]
    fn the_claims_of_a_pod_are_named_and_made_ones_each_once() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"volumes": [
            {"name": "x", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "y", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "scratch", "ephemeral": {}}, {"name": "z", "emptyDir": {}}]}});
        assert_eq!(claim_names(&pod), ["a-scratch", "data"]);
        assert!(claim_names(&json!({})).is_empty());
    }
}

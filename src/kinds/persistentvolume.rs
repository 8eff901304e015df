//! Persistent volumes: what they hold, who claims them, and in the detail where they are.
//!
//! Which volumes are of a storage class is found by the link; the class itself is not looked at.

use serde_json::json;

use super::detail::{copy, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::text("status")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "persistentvolume",
        Resource::cluster("", "v1", "PersistentVolume", "persistentvolumes"),
        row,
        detail,
    )
};

/// Keys of the spec that say where a volume is: those of core/v1 `PersistentVolumeSource`, which
/// stands inline among the spec's own.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |volume| {
        let status = text(volume, "/status/phase");
        let class = text(volume, "/spec/storageClassName");
        let fields = json!({
            "capacity": copy(volume, "/spec/capacity"),
            "accessModes": copy(volume, "/spec/accessModes"),
            "reclaimPolicy": text(volume, "/spec/persistentVolumeReclaimPolicy"),
            "storageClass": class,
            "mountOptions": copy(volume, "/spec/mountOptions"),
            "status": status,
            "claim": claim(volume),
            "reason": text(volume, "/status/reason"),
        });
        let links = if class.is_empty() { vec![] } else { vec![Link::Class(class.into())] };
        Own { fields, cells: vec![Cell::Text(status.into())], links, ..Own::default() }
    })
}

/// `namespace/name` of the claim that the volume is bound to or kept for; empty for a free one.
fn claim(volume: &Value) -> String {
    match volume.pointer("/spec/claimRef") {
        Some(claim) if claim.is_object() => {
            format!("{}/{}", text(claim, "/namespace"), text(claim, "/name"))
        }
        _ => String::new(),
    }
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |volume| {
        let mut source = volume.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        source.retain(|key, _| SOURCES.contains(&key.as_str()));
        json!({ "message": text(volume, "/status/message"), "persistentVolumeSource": source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: &str = r#"{
        "metadata": {"name": "vol-1"},
        "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "fast",
            "volumeMode": "Filesystem", "hostPath": {"path": "/data/1", "type": ""},
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "atlas", "name": "data"}},
        "status": {"phase": "Failed", "reason": "R", "message": "M"}}"#;

    #[test]
    fn a_volume_shows_its_claim_and_links_to_its_class() {
        let row = row(VOLUME).unwrap();
        assert_eq!(*row.cells, [Cell::Text("Failed".into())]);
        assert_eq!(*row.links, [Link::Class("fast".into())]);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "vol-1", "creationTimestamp": null},
                "typeMeta": {"kind": "persistentvolume"},
                "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"],
                "reclaimPolicy": "Retain", "storageClass": "fast", "mountOptions": null,
                "status": "Failed", "claim": "atlas/data", "reason": "R",
            })
        );
    }

    #[test]
    fn a_detail_adds_the_message_and_only_the_source_of_the_spec() {
        let fields = detail_of(&KIND, VOLUME).unwrap();
        assert_eq!(fields["message"], "M");
        let source = json!({"hostPath": {"path": "/data/1", "type": ""}});
        assert_eq!(fields["persistentVolumeSource"], source);
        assert_eq!(fields.len(), 12);
    }

    #[test]
    fn a_bare_volume_has_nulls_and_empty_texts_and_no_link() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {"claimRef": null}}"#;
        assert!(row(json).unwrap().links.is_empty());
        let fields = detail_of(&KIND, json).unwrap();
        for key in ["capacity", "accessModes", "mountOptions"] {
            assert_eq!(fields[key], Value::Null, "{key}");
        }
        for key in ["reclaimPolicy", "storageClass", "status", "claim", "reason", "message"] {
            assert_eq!(fields[key], "", "{key}");
        }
        assert_eq!(fields["persistentVolumeSource"], json!({}));
    }
}

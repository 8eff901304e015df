//! Releases of Helm 2: records that Tiller kept in ConfigMaps, as far as their labels tell of them
//! (pkg/storage/driver/cfgmaps.go of Helm 2). Their content is protobuf, and nobody reads it here.
//!
//! Pure, and read-only for ever: Helm 3 and 4 do not know them either.

use std::collections::BTreeMap;

use compact_str::CompactString;

use super::facts::Fact;
use crate::kinds::release::{Head, Item, cells, type_meta};
use crate::kinds::{Row, time};

/// Selects them among ConfigMaps.
pub const SELECTOR: &str = "OWNER=TILLER";

/// The row of a release and what its list shows beside it; `None` when the ConfigMap is not
/// Tiller's. Its namespace is Tiller's own, since the release's stands in the content.
pub fn row(map: &Row) -> Option<(Row, Fact)> {
    let label = |key: &str| map.labels.get(key);
    // First what nearly no ConfigMap has.
    let owner = label("OWNER").filter(|owner| *owner == "TILLER");
    let name = owner.and_then(|_| label("NAME"))?;
    let revision: u32 = label("VERSION")?.parse().ok()?;
    let status = status(label("STATUS").unwrap_or_default());
    let (created, uid) = (time(map.created), map.uid.to_string());
    let object_meta = Head {
        name,
        namespace: &map.namespace,
        labels: BTreeMap::new(),
        creation_timestamp: created.as_deref(),
        uid: &uid,
    };
    let type_meta = type_meta();
    let item = Item { object_meta, type_meta, revision, status: &status, legacy: true };
    let row = Row {
        name: name.into(),
        cells: cells(&status, revision).into(),
        json: serde_json::to_vec(&item).ok()?.into(),
        ..map.clone()
    };
    let seconds = |key| label(key).and_then(|seconds| seconds.parse().ok());
    let updated = seconds("MODIFIED_AT").or_else(|| seconds("CREATED_AT"));
    Some((row, Fact { updated, ..Fact::default() }))
}

/// In the words of later Helms.
fn status(code: &str) -> CompactString {
    match code {
        "DELETED" => "uninstalled".into(),
        "DELETING" => "uninstalling".into(),
        "" => "unknown".into(),
        other => other.to_lowercase().replace('_', "-").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::{Cell, by_name};

    fn map(labels: Value) -> Row {
        let metadata = json!({"name": "web.v2", "namespace": "kube-system", "uid": "u-1",
            "creationTimestamp": "2019-01-02T03:04:05Z", "labels": labels});
        (by_name("configmap").unwrap().row)(&json!({"metadata": metadata}).to_string()).unwrap()
    }

    #[test]
    fn a_record_of_tiller_is_a_release_of_which_the_labels_tell() {
        let labels = json!({"OWNER": "TILLER", "NAME": "web", "STATUS": "PENDING_UPGRADE",
            "VERSION": "2", "CREATED_AT": "7", "MODIFIED_AT": "8"});
        let (row, fact) = row(&map(labels)).unwrap();
        assert_eq!((row.name.as_str(), row.namespace.as_str()), ("web", "kube-system"));
        assert_eq!(row.cells[..2], [Cell::Text("pending-upgrade".into()), Cell::Number(2)]);
        assert_eq!(fact, Fact { updated: Some(8), ..Fact::default() });
        let meta = json!({"name": "web", "namespace": "kube-system", "uid": "u-1",
            "creationTimestamp": "2019-01-02T03:04:05Z"});
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({"objectMeta": meta, "typeMeta": {"kind": "release"}, "revision": 2,
                "status": "pending-upgrade", "legacy": true})
        );
    }

    #[test]
    fn other_config_maps_are_none() {
        for labels in [
            json!({}),
            json!({"OWNER": "me", "NAME": "web", "VERSION": "2"}),
            json!({"OWNER": "TILLER", "VERSION": "2"}),
            json!({"OWNER": "TILLER", "NAME": "web", "VERSION": "two"}),
        ] {
            assert!(row(&map(labels)).is_none());
        }
    }

    #[test]
    fn a_status_is_told_in_the_words_of_later_helms() {
        let pairs = [("DEPLOYED", "deployed"), ("DELETED", "uninstalled"), ("", "unknown")];
        for (code, wanted) in pairs {
            assert_eq!(status(code), wanted);
        }
    }
}

//! CSI storage capacities: how much room a driver says it has for a storage class, and where.
//!
//! Amounts are shown as the driver wrote them.

use serde_json::json;

use super::detail::{copy, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::text("storageClass")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "csistoragecapacity",
        Resource::namespaced("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |capacity| {
        let class = text(capacity, "/storageClassName");
        let fields = json!({
            "storageClass": class,
            "capacity": copy(capacity, "/capacity"),
            "maximumVolumeSize": copy(capacity, "/maximumVolumeSize"),
        });
        Own { fields, cells: vec![Cell::Text(class.into())], ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(
        KIND.name,
        object,
        row,
        |capacity| json!({ "nodeTopology": copy(capacity, "/nodeTopology") }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_shows_how_much_of_which_class_is_where() {
        let json = r#"{"metadata": {"name": "c", "namespace": "n"}, "storageClassName": "fast",
            "capacity": "5Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}"#;
        assert_eq!(*row(json).unwrap().cells, [Cell::Text("fast".into())]);
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "c", "namespace": "n", "creationTimestamp": null},
                "typeMeta": {"kind": "csistoragecapacity"},
                "storageClass": "fast", "capacity": "5Gi", "maximumVolumeSize": null,
                "nodeTopology": {"matchLabels": {"zone": "a"}},
            })
        );
    }
}

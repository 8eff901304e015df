//! CSI nodes: which storage drivers a node has, and how many volumes each can take there.

use serde_json::json;

use super::detail::{list, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::number("driverCount")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "csinode",
        Resource::cluster("storage.k8s.io", "v1", "CSINode", "csinodes"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |node| {
        let drivers = list(node, "/spec/drivers").iter();
        let names: Vec<&str> = drivers.map(|driver| text(driver, "/name")).collect();
        let fields = json!({ "driverCount": names.len(), "driverNames": names });
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        Own { fields, cells: vec![Cell::Number(count)], ..Own::default() }
    })
}

/// `drivers` as they stand in the object: name, the node's id there, topology keys, allocatable.
fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |node| json!({ "drivers": list(node, "/spec/drivers") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_shows_its_drivers() {
        let json = r#"{"metadata": {"name": "node-0"}, "spec": {"drivers": [
            {"name": "csi.example.com", "nodeID": "i-1", "allocatable": {"count": 25}}]}}"#;
        assert_eq!(*row(json).unwrap().cells, [Cell::Number(1)]);
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "node-0", "creationTimestamp": null},
                "typeMeta": {"kind": "csinode"},
                "driverCount": 1, "driverNames": ["csi.example.com"],
                "drivers": [
                    {"name": "csi.example.com", "nodeID": "i-1", "allocatable": {"count": 25}}],
            })
        );
    }
}

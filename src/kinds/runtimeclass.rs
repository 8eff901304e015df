//! Runtime classes: which container runtime handles a pod, what it costs and where it is.

use serde_json::json;

use super::detail::{copy, list, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::text("handler")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "runtimeclass",
        Resource::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |class| {
        let handler = text(class, "/handler");
        let (fields, cells) = (json!({ "handler": handler }), vec![Cell::Text(handler.into())]);
        Own { fields, cells, ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |class| {
        json!({
            "overhead": copy(class, "/overhead/podFixed"),
            "nodeSelector": copy(class, "/scheduling/nodeSelector"),
            "tolerations": list(class, "/scheduling/tolerations"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_shows_its_handler_and_where_its_pods_may_go() {
        let json = r#"{"metadata": {"name": "kata"}, "handler": "kata-qemu",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata"}]}}"#;
        assert_eq!(*row(json).unwrap().cells, [Cell::Text("kata-qemu".into())]);
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "kata", "creationTimestamp": null},
                "typeMeta": {"kind": "runtimeclass"}, "handler": "kata-qemu",
                "overhead": {"cpu": "250m"}, "nodeSelector": {"kata": "yes"},
                "tolerations": [{"key": "kata"}],
            })
        );
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "a"}, "handler": "runc"}"#);
        let bare = bare.unwrap();
        assert_eq!((&bare["overhead"], &bare["tolerations"]), (&Value::Null, &json!([])));
    }
}

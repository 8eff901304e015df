//! Namespaces: phase, and in the detail their quotas and limits.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode, flat};
use super::*;

pub const KIND: KindDef = KindDef {
    list: ListShape::rows("namespaces"),
    relations: &[Relation::Quotas, Relation::Limits],
    children: &[("event", Child::Events)],
    ..KindDef::of("namespace", Resource::cluster("", "v1", "Namespace", "namespaces"), row, detail)
};

#[derive(Deserialize)]
struct Namespace<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    phase: &'a str,
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: Namespace = decode(KIND.name, json)?;
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta::plain(KIND.name),
        phase: &object.status.phase,
    };
    object.metadata.row(KIND.name, &item, vec![], vec![], Facts::None)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Map<String, Value>, Malformed> {
    flat(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_shows_its_phase_and_metadata() {
        let row = row(
            r#"{"metadata":{"name":"shop","uid":"u1","resourceVersion":"7","creationTimestamp":"2026-01-02T03:04:05Z",
               "labels":{"team":"a"},"managedFields":[{"manager":"x"}]},"status":{"phase":"Active"}}"#,
        )
        .unwrap();
        assert_eq!(row.version, 7);
        assert_eq!(row.created, 1_767_323_045);
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            r#"{"objectMeta":{"name":"shop","labels":{"team":"a"},"creationTimestamp":"2026-01-02T03:04:05Z","uid":"u1"},"typeMeta":{"kind":"namespace"},"phase":"Active"}"#
        );
    }

    #[test]
    fn a_detail_shows_the_last_applied_object_that_the_row_leaves_out() {
        let json = r#"{"metadata":{"name":"shop","annotations":{
            "kubectl.kubernetes.io/last-applied-configuration":"{}","note":"x"}}}"#;
        let row = row(json).unwrap();
        assert!(!std::str::from_utf8(&row.json).unwrap().contains("last-applied"));
        let detail = detail_of(&KIND, json).unwrap();
        assert_eq!(
            Value::Object(detail),
            serde_json::json!({
                "objectMeta": {"name": "shop", "creationTimestamp": null, "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x"}},
                "typeMeta": {"kind": "namespace"},
                "phase": "",
            })
        );
    }
}

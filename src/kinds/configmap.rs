//! Config maps: metadata alone in lists, their texts in the detail.
//!
//! Not their `binaryData`, which the contract leaves to the raw object. Lists watch metadata only,
//! so that no content is held.

use super::loose::{detail_with, head};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    ..KindDef::of(
        "configmap",
        Resource::namespaced("", "v1", "ConfigMap", "configmaps"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    head(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |map| {
        let mut own = Fields::new();
        let data = map.get("data").and_then(Value::as_object).filter(|data| !data.is_empty());
        if let Some(data) = data {
            own.insert("data".into(), Value::Object(data.clone()));
        }
        Value::Object(own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SETTINGS: &str = r#"{"metadata": {"name": "settings", "namespace": "atlas"},
        "data": {"LEVEL": "debug", "app.properties": "a=1\n"}, "binaryData": {"x": "AA=="}}"#;

    #[test]
    fn a_config_map_is_listed_without_its_content() {
        let row = row(SETTINGS).unwrap();
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"settings","namespace":"atlas","creationTimestamp":null},"#,
                r#""typeMeta":{"kind":"configmap"}}"#,
            )
        );
    }

    #[test]
    fn a_detail_shows_the_texts_but_no_binary_data() {
        let fields = detail_of(&KIND, SETTINGS).unwrap();
        assert_eq!(
            Value::Object(fields),
            json!({
                "objectMeta": {"name": "settings", "namespace": "atlas", "creationTimestamp": null},
                "typeMeta": {"kind": "configmap"},
                "data": {"LEVEL": "debug", "app.properties": "a=1\n"},
            })
        );
    }

    #[test]
    fn a_detail_without_texts_has_no_data() {
        for data in [json!(null), json!({})] {
            let object = json!({"metadata": {"name": "a"}, "data": data});
            let fields = detail_of(&KIND, &object.to_string()).unwrap();
            assert!(!fields.contains_key("data"), "{data}");
        }
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!(fields.len(), 2);
    }
}

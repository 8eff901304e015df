//! Rows and details made from a whole JSON value: for kinds that have few objects or are read
//! live, where clarity is worth more than the copies.
//!
//! Not for pods, events and replica sets: those are many and borrow typed parts of their JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{Meta, ObjectMeta, TypeMeta, decode, encode, flat};
use super::*;

/// What a kind's row holds besides metadata.
#[derive(Default)]
pub struct Own {
    /// A JSON object: fields of the list item.
    pub fields: Value,
    pub cells: Vec<Cell>,
    pub links: Vec<Link>,
    pub facts: Facts,
    /// `None`: the kind's name alone.
    pub type_meta: Option<TypeMeta>,
}

impl From<Value> for Own {
    fn from(fields: Value) -> Self {
        Self { fields, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

/// A row whose item is `objectMeta`, `typeMeta` and the fields of what `made` makes.
pub fn row_with(
    kind: &'static str,
    json: &str,
    made: impl FnOnce(&Value) -> Own,
) -> Result<Row, Malformed> {
    let head: Head = decode(kind, json)?;
    let object: Value = decode(kind, json)?;
    let Own { fields, cells, links, facts, type_meta } = made(&object);
    let mut item = Fields::new();
    item.insert("objectMeta".into(), encode(kind, head.metadata.object_meta())?);
    item.insert("typeMeta".into(), encode(kind, type_meta.unwrap_or(TypeMeta::plain(kind)))?);
    if let Value::Object(fields) = fields {
        item.extend(fields);
    }
    head.metadata.row(kind, &item, cells, links, facts)
}

/// A row of metadata alone.
pub fn head(kind: &'static str, json: &str) -> Result<Row, Malformed> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Item<'a> {
        object_meta: ObjectMeta<'a>,
        type_meta: TypeMeta,
    }
    let Head { metadata } = decode(kind, json)?;
    let item = Item { object_meta: metadata.object_meta(), type_meta: TypeMeta::plain(kind) };
    metadata.row(kind, &item, vec![], vec![], Facts::None)
}

/// A detail that is flat over its list item, plus the fields that `own` makes.
pub fn detail_with(
    kind: &'static str,
    object: &Value,
    row: &Row,
    own: impl FnOnce(&Value) -> Value,
) -> Result<Fields, Malformed> {
    let mut fields = flat(kind, object, row)?;
    if let Value::Object(own) = own(object) {
        fields.extend(own);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OBJECT: &str = r#"{"metadata":{"name":"a","namespace":"n"},"spec":{"x":1}}"#;

    #[test]
    fn a_row_holds_metadata_and_its_own_fields() {
        let row = row_with("thing", OBJECT, |object| json!({"x": object["spec"]["x"]}).into());
        let item: Value = serde_json::from_slice(&row.unwrap().json).unwrap();
        let meta = json!({"name": "a", "namespace": "n", "creationTimestamp": null});
        assert_eq!(item, json!({"objectMeta": meta, "typeMeta": {"kind": "thing"}, "x": 1}));
    }

    #[test]
    fn a_head_is_the_same_without_fields_and_a_detail_has_more() {
        let row = head("thing", OBJECT).unwrap();
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item.as_object().unwrap().len(), 2);
        let object = serde_json::from_str(OBJECT).unwrap();
        let fields = detail_with("thing", &object, &row, |_| json!({"y": 2}));
        assert_eq!(fields.unwrap()["y"], 2);
        assert!(head("thing", "{}").is_err());
    }
}

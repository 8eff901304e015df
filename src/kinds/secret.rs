//! Secrets: their type in lists, their content in the detail of one.
//!
//! Lists are read as the caller and as the server's `Table`: which type a secret has is one of its
//! columns, and no content comes with it. Nothing of secrets is ever held.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::detail::copy;
use super::loose::detail_with;
use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Table,
    columns: &[Column::text("type")],
    list: ListShape::rows("secrets"),
    ..KindDef::of("secret", Resource::namespaced("", "v1", "Secret", "secrets"), row, detail)
};

/// Where the server's table of secrets has the type: its columns are Name, Type, Data, Age
/// (`secretColumnDefinitions` in pkg/printers/internalversion/printers.go of Kubernetes).
const TYPE: usize = 1;

/// A whole secret, or a row of the server's table, which has its metadata in `object`.
#[derive(Deserialize)]
struct Secret<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(default)]
    cells: Vec<Value>,
    #[serde(borrow, default)]
    object: Option<Head<'a>>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    #[serde(rename = "type")]
    kind: &'a str,
}

fn row(json: &str) -> Result<Row, Malformed> {
    let secret: Secret = decode(KIND.name, json)?;
    let (metadata, kind) = match &secret.object {
        Some(head) => {
            let kind = secret.cells.get(TYPE).and_then(Value::as_str);
            (&head.metadata, kind.unwrap_or_default())
        }
        None => (&secret.metadata, &*secret.kind),
    };
    let item =
        Item { object_meta: metadata.object_meta(), type_meta: TypeMeta::plain(KIND.name), kind };
    let cells = vec![Cell::Text(CompactString::new(kind))];
    metadata.row(KIND.name, &item, cells, vec![], Facts::None)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |secret| json!({ "data": copy(secret, "/data") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"kind": "Secret", "metadata": {"name": "api-key", "namespace": "atlas"},
        "type": "Opaque", "data": {"key": "czNjcjN0"}}"#;

    #[test]
    fn a_secret_and_its_row_in_a_table_are_listed_the_same_and_without_content() {
        let line = r#"{"cells": ["api-key", "Opaque", 1, "5m"],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"name": "api-key", "namespace": "atlas"}}}"#;
        for json in [KEY, line] {
            let row = row(json).unwrap();
            assert_eq!((row.namespace.as_str(), row.name.as_str()), ("atlas", "api-key"));
            assert_eq!(*row.cells, [Cell::Text("Opaque".into())]);
            assert_eq!(
                std::str::from_utf8(&row.json).unwrap(),
                concat!(
                    r#"{"objectMeta":{"name":"api-key","namespace":"atlas","creationTimestamp":null},"#,
                    r#""typeMeta":{"kind":"secret"},"type":"Opaque"}"#,
                )
            );
        }
    }

    #[test]
    fn a_table_row_without_a_type_has_an_empty_one_and_without_an_object_is_malformed() {
        let bare = row(r#"{"cells": [], "object": {"metadata": {"name": "a"}}}"#).unwrap();
        assert_eq!(*bare.cells, [Cell::Text("".into())]);
        assert!(row(r#"{"cells": ["a", "Opaque"], "object": null}"#).is_err());
    }

    #[test]
    fn a_detail_shows_the_type_and_the_encoded_content() {
        let fields = detail_of(&KIND, KEY).unwrap();
        assert_eq!(fields["type"], "Opaque");
        assert_eq!(fields["data"], json!({"key": "czNjcjN0"}));
        assert_eq!(fields.len(), 4);
        let empty = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!(empty["data"], Value::Null);
        assert_eq!(empty["type"], "");
    }
}

//! Objects of custom kinds: metadata and the cells of the server's own `Table`, whose columns the
//! definition's author chose; an aggregated API that prints none has rows without cells. Their
//! content stays where it is; `_raw` shows it.
//!
//! One description for all custom kinds: which one it is, the caller knows.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::loose::head;
use super::meta::{Meta, ObjectMeta, decode, encode, full_meta};
use super::*;

/// Rows of any custom kind; their items have no `typeMeta` yet ([`type_meta`]).
pub static CUSTOM: KindDef = KindDef {
    source: Source::Table,
    ..KindDef::of("customobject", Resource::namespaced("", "", "", ""), row, detail)
};

/// A row of a `Table` (meta.k8s.io/v1).
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    cells: Vec<Value>,
    #[serde(borrow)]
    object: Object<'a>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    cells: Vec<Value>,
}

fn row(json: &str) -> Result<Row, Malformed> {
    // Who prints no tables sends the object itself.
    let whole = |_| decode(CUSTOM.name, json).map(|object| Line { cells: Vec::new(), object });
    let Line { cells, object } = decode(CUSTOM.name, json).or_else(whole)?;
    let item = Item { object_meta: object.metadata.object_meta(), cells };
    object.metadata.row(CUSTOM.name, &item, vec![], vec![], Facts::None)
}

fn detail(object: &Value, _: &Row, _: &References) -> Result<Fields, Malformed> {
    Ok(Fields::from_iter([("objectMeta".to_owned(), full_meta(CUSTOM.name, object)?)]))
}

/// What a detail shows of a custom object itself. The rest of it may be anything, of any depth.
pub fn own(json: &str) -> Result<Fields, Malformed> {
    let object: Object = decode(CUSTOM.name, json)?;
    let meta = encode(CUSTOM.name, object.metadata.full_object_meta())?;
    Ok(Fields::from_iter([("objectMeta".to_owned(), meta)]))
}

/// Name, namespace and uid of an object of any depth: what finding its events takes.
pub fn bare(json: &str) -> Result<Row, Malformed> {
    head(CUSTOM.name, json)
}

/// `typeMeta` of a custom object: the full name of its definition.
pub fn type_meta(full_name: &str, scalable: bool) -> Value {
    if scalable {
        json!({ "kind": full_name, "scalable": true })
    } else {
        json!({ "kind": full_name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_any_depth_has_a_detail_and_events() {
        let deep = ("[".repeat(500), "]".repeat(500));
        let json = format!(r#"{{"metadata":{{"name":"a"}},"spec":{}{}}}"#, deep.0, deep.1);
        assert_eq!(own(&json).unwrap()["objectMeta"]["name"], "a");
        assert_eq!(bare(&json).unwrap().name, "a");
    }

    #[test]
    fn a_bare_row_is_enough_to_find_events_by() {
        let row = bare(r#"{"metadata":{"name":"a","namespace":"n","uid":"1"}}"#).unwrap();
        assert_eq!((row.namespace.as_str(), row.name.as_str()), ("n", "a"));
        assert!(bare("{}").is_err());
    }

    #[test]
    fn a_line_of_a_table_is_a_row_with_its_cells() {
        let line = r#"{"cells":["big",3,null],"object":{"kind":"PartialObjectMetadata",
            "metadata":{"name":"big","namespace":"atlas","uid":"1"}}}"#;
        let row = row(line).unwrap();
        assert_eq!((row.namespace.as_str(), row.name.as_str()), ("atlas", "big"));
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["cells"], json!(["big", 3, null]));
        assert_eq!(type_meta("a.b", true), json!({"kind": "a.b", "scalable": true}));
        assert_eq!(type_meta("a.b", false), json!({"kind": "a.b"}));
    }

    #[test]
    fn an_object_that_came_in_place_of_a_line_is_a_row_without_cells() {
        for own in ["", r#","spec":{"cells":1}"#, r#","cells":1"#, r#","object":"round""#] {
            let json = r#"{"kind":"Foo","metadata":{"name":"a","namespace":"n"}"#.to_owned();
            let row = row(&(json + own + "}")).unwrap();
            assert_eq!((row.namespace.as_str(), row.name.as_str()), ("n", "a"), "{own}");
            let item: Value = serde_json::from_slice(&row.json).unwrap();
            assert_eq!(item["cells"], json!([]), "{own}");
        }
        assert!(row("{}").is_err() && row(r#"{"kind":"Foo"}"#).is_err());
    }
}

//! Holds JSON to JSON Schemas, as far as our own OpenAPI document uses them; a keyword that it does
//! not know is a problem, not passed over.
//! It is NOT a validator for anybody else's schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Holds values to the schemas of a document. It knows no more of JSON Schema than the document
/// uses, and takes no keys that a schema with properties does not name.
pub struct Checker<'a> {
    pub document: &'a Value,
}

impl Checker<'_> {
    /// What is wrong with a value, each with its path; list elements and map values are `*`.
    pub fn problems(&self, schema: &Value, value: &Value) -> BTreeSet<String> {
        let mut wrong = BTreeSet::new();
        self.check(schema, value, "", &mut wrong);
        wrong
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, wrong: &mut BTreeSet<String>) {
        let Some(keywords) = schema.as_object() else {
            wrong.insert(format!("{at}: the schema is {schema}"));
            return;
        };
        for (keyword, wanted) in keywords {
            match keyword.as_str() {
                "$ref" => {
                    let place = wanted.as_str().and_then(|place| place.strip_prefix('#'));
                    match place.and_then(|place| self.document.pointer(place)) {
                        Some(schema) => self.check(schema, value, at, wrong),
                        None => {
                            wrong.insert(format!("{at}: {wanted} leads nowhere"));
                        }
                    }
                }
                "anyOf" => self.check_any(wanted, value, at, wrong),
                "type" if !is_of(wanted, value) => {
                    wrong.insert(format!("{at}: {} is not of type {wanted}", short(value)));
                }
                "const" if value != wanted => {
                    wrong.insert(format!("{at}: {} is not {wanted}", short(value)));
                }
                "enum" if !elements(wanted).contains(value) => {
                    wrong.insert(format!("{at}: {} is none of {wanted}", short(value)));
                }
                "items" => {
                    for one in value.as_array().into_iter().flatten() {
                        self.check(wanted, one, &format!("{at}/*"), wrong);
                    }
                }
                "required" => {
                    let Some(fields) = value.as_object() else { continue };
                    let keys = elements(wanted).iter().filter_map(Value::as_str);
                    for key in keys.filter(|key| !fields.contains_key(*key)) {
                        wrong.insert(format!("{at}/{key}: missing"));
                    }
                }
                "type" | "const" | "enum" | "properties" | "additionalProperties" => {}
                "description" | "format" => {}
                other => {
                    wrong.insert(format!("{at}: this checker does not know {other}"));
                }
            }
        }
        if let Some(fields) = value.as_object() {
            self.check_fields(keywords, fields, at, wrong);
        }
    }

    /// The values of an object, by their own schemas or that of further keys.
    fn check_fields(
        &self,
        keywords: &Map<String, Value>,
        fields: &Map<String, Value>,
        at: &str,
        wrong: &mut BTreeSet<String>,
    ) {
        let properties = keywords.get("properties").and_then(Value::as_object);
        for (key, value) in fields {
            let own = properties.and_then(|properties| properties.get(key));
            match (own, keywords.get("additionalProperties")) {
                (Some(schema), _) => self.check(schema, value, &format!("{at}/{key}"), wrong),
                (None, Some(Value::Bool(true))) => {}
                (None, Some(schema @ Value::Object(_))) => {
                    self.check(schema, value, &format!("{at}/*"), wrong);
                }
                (None, None) if properties.is_none() => {}
                (None, _) => {
                    wrong.insert(format!("{at}/{key}: not in the document"));
                }
            }
        }
    }

    fn check_any(&self, all: &Value, value: &Value, at: &str, wrong: &mut BTreeSet<String>) {
        let mut found = BTreeSet::new();
        for one in elements(all) {
            let mut problems = BTreeSet::new();
            self.check(one, value, at, &mut problems);
            if problems.is_empty() {
                return;
            }
            // That it is not null says nothing.
            if *one != json!({ "type": "null" }) {
                found.extend(problems);
            }
        }
        wrong.extend(found);
    }
}

/// The elements of a list; none of anything else.
pub fn elements(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_of(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match wanted {
        Value::String(name) => is(name),
        names => elements(names).iter().filter_map(Value::as_str).any(is),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

#[test]
fn the_checker_finds_other_types_missing_and_unknown_keys_and_unknown_keywords() {
    let document = json!({ "types": {
        "Pair": {
            "type": "object", "required": ["a", "list"],
            "properties": {
                "a": { "type": "integer", "description": "first" },
                "list": { "type": ["array", "null"], "items": { "$ref": "#/types/Word" } },
                "more": { "anyOf": [{ "$ref": "#/types/Pair" }, { "type": "null" }] },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "open": { "type": "object", "additionalProperties": true },
                "yes": { "type": "boolean", "const": true },
            },
        },
        "Word": { "type": "string", "enum": ["x", "y"] },
        "Odd": { "minimum": 1 },
    }});
    let of = |name: &str, value: Value| -> Vec<String> {
        let schema = json!({ "$ref": format!("#/types/{name}") });
        Checker { document: &document }.problems(&schema, &value).into_iter().collect()
    };
    let none: [&str; 0] = [];
    let more = json!({"a": 2, "list": null, "more": null});
    let open = json!({"b": [1], "c": {"d": null}});
    let good = json!({
        "a": 1, "list": ["x", "y"], "more": more, "labels": {"k": "v"}, "open": open, "yes": true,
    });
    assert_eq!(of("Pair", good), none);
    assert_eq!(of("Pair", json!({"a": 1.5, "list": []})), ["/a: 1.5 is not of type \"integer\""]);
    assert_eq!(of("Pair", json!({"a": 1})), ["/list: missing"]);
    assert_eq!(of("Pair", json!({"a": 1, "list": [], "b": 2})), ["/b: not in the document"]);
    let words = of("Pair", json!({"a": 1, "list": ["x", "z"]}));
    assert_eq!(words, ["/list/*: \"z\" is none of [\"x\",\"y\"]"]);
    let inner = of("Pair", json!({"a": 1, "list": [], "more": {"a": 1}}));
    assert_eq!(inner, ["/more/list: missing"]);
    let labels = of("Pair", json!({"a": 1, "list": [], "labels": {"k": 1}}));
    assert_eq!(labels, ["/labels/*: 1 is not of type \"string\""]);
    let no = of("Pair", json!({"a": 1, "list": [], "yes": false}));
    assert_eq!(no, ["/yes: false is not true"]);
    assert_eq!(of("Odd", json!(1)), [": this checker does not know minimum"]);
    assert_eq!(of("None", json!(1)), [": \"#/types/None\" leads nowhere"]);
}

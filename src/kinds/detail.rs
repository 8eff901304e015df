//! Reading a whole object for its detail: once from its text, then by paths into the JSON, and the
//! contract's `Condition`.
//!
//! Not for rows: those borrow typed parts of the JSON, because they are made of every object.

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::Fields;

/// The object without `metadata.managedFields`, which no detail shows: they are up to half of it.
pub fn whole(json: &str) -> serde_json::Result<Value> {
    let mut text = serde_json::Deserializer::from_str(json);
    let object = Level::Object.deserialize(&mut text)?;
    text.end()?;
    Ok(object)
}

/// Which JSON object is read.
#[derive(Clone, Copy)]
enum Level {
    Object,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Fields::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = match (self, key.as_str()) {
                (Self::Object, "metadata") => map.next_value_seed(Self::Metadata)?,
                (Self::Metadata, "managedFields") => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                _ => map.next_value()?,
            };
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// What stands at a JSON pointer that goes through objects alone: indices into lists are not known
/// here. For pointers without escapes, nearly all, this allocates nothing.
pub fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') {
        return object.pointer(pointer);
    }
    pointer.split('/').skip(1).try_fold(object, |object, key| object.as_object()?.get(key))
}

/// The text at a JSON pointer; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    at(object, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; 0 when there is none, as Kubernetes leaves zeros out.
pub fn number(object: &Value, pointer: &str) -> i64 {
    at(object, pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a JSON pointer; empty when there is none or it is null.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    at(object, pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A copy of what stands at a JSON pointer, null when there is nothing.
pub fn copy(object: &Value, pointer: &str) -> Value {
    at(object, pointer).cloned().unwrap_or_default()
}

/// The contract's `Condition`, its keys in alphabetical order as those of all details.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition<'a> {
    last_probe_time: Option<&'a Value>,
    last_transition_time: Option<&'a Value>,
    message: &'a str,
    reason: &'a str,
    status: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
}

/// `status.conditions`; null when there are none. `probe_time` is the key that this kind calls the
/// contract's `lastProbeTime`.
pub fn conditions<'a>(object: &'a Value, probe_time: &str) -> Option<Vec<Condition<'a>>> {
    let conditions = list(object, "/status/conditions");
    let shown = |condition: &'a Value| Condition {
        last_probe_time: condition.get(probe_time),
        last_transition_time: condition.get("lastTransitionTime"),
        message: text(condition, "/message"),
        reason: text(condition, "/reason"),
        status: text(condition, "/status"),
        kind: text(condition, "/type"),
    };
    (!conditions.is_empty()).then(|| conditions.iter().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_is_read_without_its_managed_fields() {
        let object = json!({
            "managedFields": 1, "metadata": {"name": "a", "managedFields": [{"manager": "x"}]},
            "spec": {"metadata": {"managedFields": 2}},
        });
        let read = json!({
            "managedFields": 1, "metadata": {"name": "a"},
            "spec": {"metadata": {"managedFields": 2}},
        });
        assert_eq!(whole(&object.to_string()).unwrap(), read);
        assert_eq!(whole(r#"{"metadata": null}"#).unwrap(), json!({"metadata": null}));
        for text in ["", "7", "[]", "{", "{} {}", r#"{"metadata": [] }"#] {
            assert!(whole(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pointer_leads_through_objects() {
        let object = json!({"a": {"b/c": {"d": 7}, "list": [{"d": 8}]}});
        assert_eq!((number(&object, "/a/b~1c/d"), number(&object, "/a/list/0/d")), (7, 0));
        assert_eq!(copy(&object, ""), object);
        assert_eq!((list(&object, "/a/list").len(), list(&object, "/a/none").len()), (1, 0));
    }

    #[test]
    fn a_condition_has_all_keys_even_when_the_object_left_them_out() {
        let object = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "Up", "status": "True", "beat": "2026-01-02T03:04:06Z", "reason": "R", "message": "M"},
        ]}});
        assert_eq!(
            json!(conditions(&object, "beat")),
            json!([
                {"type": "Ready", "status": "False", "lastProbeTime": null,
                 "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "", "message": ""},
                {"type": "Up", "status": "True", "lastProbeTime": "2026-01-02T03:04:06Z",
                 "lastTransitionTime": null, "reason": "R", "message": "M"},
            ])
        );
    }

    #[test]
    fn no_conditions_are_null() {
        for object in [json!({}), json!({"status": {"conditions": null}}), json!({"status": null})]
        {
            assert!(conditions(&object, "lastProbeTime").is_none());
        }
    }
}

//! Reading a whole object for its detail: paths into JSON, and the contract's `Condition`.
//!
//! Not for rows: those borrow typed parts of the JSON, because they are made of every object.

use serde_json::{Value, json};

/// The text at a JSON pointer; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; 0 when there is none, as Kubernetes leaves zeros out.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a JSON pointer; empty when there is none or it is null.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A copy of what stands at a JSON pointer, null when there is nothing.
pub fn copy(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_default()
}

/// `status.conditions` as the contract's `Condition`s; null when there are none. `probe_time` is
/// the key that this kind calls the contract's `lastProbeTime`.
pub fn conditions(object: &Value, probe_time: &str) -> Value {
    let conditions = list(object, "/status/conditions");
    if conditions.is_empty() {
        return Value::Null;
    }
    let condition = |condition: &Value| {
        json!({
            "type": text(condition, "/type"),
            "status": text(condition, "/status"),
            "lastProbeTime": condition.get(probe_time),
            "lastTransitionTime": condition.get("lastTransitionTime"),
            "reason": text(condition, "/reason"),
            "message": text(condition, "/message"),
        })
    };
    conditions.iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_all_keys_even_when_the_object_left_them_out() {
        let object = json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "Up", "status": "True", "beat": "2026-01-02T03:04:06Z", "reason": "R", "message": "M"},
        ]}});
        assert_eq!(
            conditions(&object, "beat"),
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
            assert_eq!(conditions(&object, "lastProbeTime"), Value::Null);
        }
    }
}

//! Limit ranges: one item for each limit's type and resource, as the contract shows them in a
//! namespace's detail, too.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::detail::{list, text};
use super::loose::row_with;
use super::meta::{decode, flat};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "limitrange",
        Resource::namespaced("", "v1", "LimitRange", "limitranges"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |range| json!({ "resourceLimits": items(range) }).into())
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(KIND.name, object, row)
}

/// `resourceLimits` of a namespace from its `LimitRangeList`; null when there are none.
pub fn limits(limit_ranges: &str) -> Result<Value, Malformed> {
    let ranges: Value = decode(KIND.name, limit_ranges)?;
    let items: Vec<Value> = list(&ranges, "/items").iter().flat_map(items).collect();
    Ok(if items.is_empty() { Value::Null } else { items.into() })
}

/// The contract's `LimitRangeItem`s of one limit range.
fn items(range: &Value) -> Vec<Value> {
    const KEYS: [&str; 5] = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
    let mut items = Vec::new();
    for limit in list(range, "/spec/limits") {
        let objects = KEYS.iter().filter_map(|key| limit.get(key)?.as_object());
        let resources: BTreeSet<&String> = objects.flat_map(Fields::keys).collect();
        for resource in resources {
            let mut item = Fields::new();
            item.insert("resourceName".into(), resource.as_str().into());
            item.insert("resourceType".into(), text(limit, "/type").into());
            for key in KEYS {
                if let Some(amount) = limit.get(key).and_then(|all| all.get(resource)) {
                    item.insert(key.into(), amount.clone());
                }
            }
            items.push(Value::Object(item));
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: &str = r#"{"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container",
        "max": {"cpu": "2"}, "default": {"cpu": "200m", "memory": "128Mi"}}]}}"#;

    #[test]
    fn limits_are_one_item_for_each_type_and_resource() {
        let wanted = json!([
            {"resourceName": "cpu", "resourceType": "Container", "max": "2", "default": "200m"},
            {"resourceName": "memory", "resourceType": "Container", "default": "128Mi"},
        ]);
        let ranges = format!(r#"{{"items": [{RANGE}, {{"spec": {{}}}}]}}"#);
        assert_eq!(limits(&ranges).unwrap(), wanted);
        let fields = detail_of(&KIND, RANGE).unwrap();
        assert_eq!(fields["resourceLimits"], wanted);
    }

    #[test]
    fn no_limits_are_null_of_a_namespace_and_an_empty_list_of_a_range() {
        assert_eq!(limits(r#"{"items": []}"#).unwrap(), Value::Null);
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "r"}}"#).unwrap();
        assert_eq!(fields["resourceLimits"], json!([]));
    }
}

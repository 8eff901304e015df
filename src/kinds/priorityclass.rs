//! Priority classes: how much a pod's claim to a node weighs.

use serde_json::{Value, json};

use super::detail::{number, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::number("value"), Column::text("preemptionPolicy")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "priorityclass",
        Resource::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |class| {
        let (value, policy) = (number(class, "/value"), text(class, "/preemptionPolicy"));
        let fields = json!({
            "value": value,
            "globalDefault": class.get("globalDefault").and_then(Value::as_bool).unwrap_or(false),
            "preemptionPolicy": policy,
        });
        let cells = vec![Cell::Number(value), Cell::Text(policy.into())];
        Own { fields, cells, ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |class| json!({"description": text(class, "/description")}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_shows_its_weight_and_what_it_is_for() {
        let json = r#"{"metadata": {"name": "high"}, "value": 1000, "globalDefault": true,
            "preemptionPolicy": "Never", "description": "for queues"}"#;
        assert_eq!(*row(json).unwrap().cells, [Cell::Number(1000), Cell::Text("Never".into())]);
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "high", "creationTimestamp": null},
                "typeMeta": {"kind": "priorityclass"},
                "value": 1000, "globalDefault": true, "preemptionPolicy": "Never",
                "description": "for queues",
            })
        );
    }

    #[test]
    fn a_class_without_a_value_weighs_nothing_and_is_no_default() {
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!((&fields["value"], &fields["globalDefault"]), (&json!(0), &json!(false)));
    }
}

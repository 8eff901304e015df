//! Pod disruption budgets: what they demand and what they allow right now.
//!
//! Whether an eviction passes is the API server's to decide; this only shows the numbers.

use serde_json::json;

use super::detail::{copy, number};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::number("disruptionsAllowed")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "poddisruptionbudget",
        Resource::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |budget| {
        let allowed = number(budget, "/status/disruptionsAllowed");
        let mut fields = json!({
            "minAvailable": copy(budget, "/spec/minAvailable"),
            "maxUnavailable": copy(budget, "/spec/maxUnavailable"),
            "unhealthyPodEvictionPolicy": copy(budget, "/spec/unhealthyPodEvictionPolicy"),
            "currentHealthy": number(budget, "/status/currentHealthy"),
            "desiredHealthy": number(budget, "/status/desiredHealthy"),
            "disruptionsAllowed": allowed,
            "expectedPods": number(budget, "/status/expectedPods"),
        });
        let selector = copy(budget, "/spec/selector");
        if !selector.is_null() {
            fields["labelSelector"] = selector;
        }
        Own { fields, cells: vec![Cell::Number(allowed)], ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(
        KIND.name,
        object,
        row,
        |budget| json!({"disruptedPods": copy(budget, "/status/disruptedPods")}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILES: &str = r#"{
        "metadata": {"name": "tiles", "namespace": "atlas"},
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "tiles"}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        "status": {"currentHealthy": 6, "desiredHealthy": 3, "disruptionsAllowed": 3, "expectedPods": 6,
            "disruptedPods": {"tiles-1": "2026-01-02T03:04:05Z"}}}"#;

    #[test]
    fn a_budget_shows_what_it_demands_and_allows() {
        let row = row(TILES).unwrap();
        assert_eq!(*row.cells, [Cell::Number(3)]);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "tiles", "namespace": "atlas", "creationTimestamp": null},
                "typeMeta": {"kind": "poddisruptionbudget"},
                "minAvailable": "50%", "maxUnavailable": null,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "labelSelector": {"matchLabels": {"app": "tiles"}},
                "currentHealthy": 6, "desiredHealthy": 3, "disruptionsAllowed": 3, "expectedPods": 6,
            })
        );
        let fields = detail_of(&KIND, TILES).unwrap();
        assert_eq!(fields["disruptedPods"], json!({"tiles-1": "2026-01-02T03:04:05Z"}));
        assert_eq!(fields.len(), 11);
    }

    #[test]
    fn a_bare_budget_has_nulls_and_zeros_but_no_selector() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {"maxUnavailable": 1}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        for key in ["minAvailable", "unhealthyPodEvictionPolicy", "disruptedPods"] {
            assert_eq!(fields[key], Value::Null, "{key}");
        }
        assert_eq!(fields["maxUnavailable"], 1);
        assert_eq!(fields["expectedPods"], 0);
        assert!(!fields.contains_key("labelSelector"));
    }
}

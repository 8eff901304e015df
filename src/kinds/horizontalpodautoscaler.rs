//! Horizontal pod autoscalers: read as autoscaling/v2, shown as the contract's v1 view of it, and
//! in the detail with every metric besides.
//!
//! What they scale is only named here; whose autoscalers they are is decided by the links above.

use serde_json::{Value, json};

use super::detail::{copy, list, number, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    list: ListShape::rows("horizontalpodautoscalers"),
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "horizontalpodautoscaler",
        Resource::namespaced(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        ),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |autoscaler| {
        let kind = text(autoscaler, "/spec/scaleTargetRef/kind");
        let name = text(autoscaler, "/spec/scaleTargetRef/name");
        let fields = json!({
            "scaleTargetRef": { "kind": kind, "name": name },
            "minReplicas": copy(autoscaler, "/spec/minReplicas"),
            "maxReplicas": number(autoscaler, "/spec/maxReplicas"),
            "currentCPUUtilizationPercentage":
                cpu(autoscaler, "/status/currentMetrics", "/resource/current/averageUtilization"),
            "targetCPUUtilizationPercentage":
                cpu(autoscaler, "/spec/metrics", "/resource/target/averageUtilization"),
        });
        let target = (kind.to_ascii_lowercase().into(), name.into());
        let links = vec![Link::Target(Box::new(target))];
        Own { fields, links, ..Own::default() }
    })
}

/// The contract shows autoscaling/v1, which knows CPU utilization alone.
fn cpu(autoscaler: &Value, metrics: &str, utilization: &str) -> Value {
    let mut metrics = list(autoscaler, metrics).iter();
    let cpu = metrics.find(|metric| {
        text(metric, "/type") == "Resource" && text(metric, "/resource/name") == "cpu"
    });
    cpu.map(|metric| copy(metric, utilization)).unwrap_or_default()
}

/// `metrics`, `currentMetrics` and `conditions` are those of autoscaling/v2, `[]` without any.
fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |autoscaler| {
        json!({
            "currentReplicas": number(autoscaler, "/status/currentReplicas"),
            "desiredReplicas": number(autoscaler, "/status/desiredReplicas"),
            "lastScaleTime": copy(autoscaler, "/status/lastScaleTime"),
            "metrics": list(autoscaler, "/spec/metrics"),
            "currentMetrics": list(autoscaler, "/status/currentMetrics"),
            "conditions": list(autoscaler, "/status/conditions"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILES: &str = r#"{
        "metadata": {"name": "tiles", "namespace": "atlas"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "tiles"},
            "minReplicas": 2, "maxReplicas": 6, "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"averageUtilization": 1}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]},
        "status": {"currentReplicas": 6, "desiredReplicas": 5, "lastScaleTime": "2026-01-02T03:04:05Z",
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 120}}}],
            "conditions": [{"type": "AbleToScale", "status": "True"}]}}"#;

    #[test]
    fn an_autoscaler_shows_cpu_alone_and_links_to_its_target() {
        let row = row(TILES).unwrap();
        let target = ("deployment".into(), "tiles".into());
        assert_eq!(*row.links, [Link::Target(Box::new(target))]);
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "tiles", "namespace": "atlas", "creationTimestamp": null},
                "typeMeta": {"kind": "horizontalpodautoscaler"},
                "scaleTargetRef": {"kind": "Deployment", "name": "tiles"},
                "minReplicas": 2, "maxReplicas": 6,
                "currentCPUUtilizationPercentage": 120,
                "targetCPUUtilizationPercentage": 80,
            })
        );
    }

    #[test]
    fn a_detail_shows_replicas_and_all_metrics() {
        let fields = detail_of(&KIND, TILES).unwrap();
        assert_eq!(fields["currentReplicas"], 6);
        assert_eq!(fields["desiredReplicas"], 5);
        assert_eq!(fields["lastScaleTime"], "2026-01-02T03:04:05Z");
        assert_eq!(fields["metrics"][0]["resource"]["name"], "memory");
        assert_eq!(fields["currentMetrics"][0]["resource"]["current"]["averageUtilization"], 120);
        assert_eq!(fields["conditions"], json!([{"type": "AbleToScale", "status": "True"}]));
        assert_eq!(fields.len(), 13);
    }

    #[test]
    fn an_autoscaler_that_has_not_scaled_yet_has_nulls_zeros_and_empty_lists() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {"maxReplicas": 3}, "status": {"currentMetrics": null}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        for key in [
            "minReplicas",
            "currentCPUUtilizationPercentage",
            "targetCPUUtilizationPercentage",
            "lastScaleTime",
        ] {
            assert_eq!(fields[key], Value::Null, "{key}");
        }
        assert_eq!(fields["currentReplicas"], 0);
        assert_eq!(fields["desiredReplicas"], 0);
        for key in ["metrics", "currentMetrics", "conditions"] {
            assert_eq!(fields[key], json!([]), "{key}");
        }
    }
}

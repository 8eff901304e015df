//! Deployments: images and counts in the list, strategy and progress in the detail.
//!
//! Their pods are two owners away (through replica sets); the join is made above.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::detail::{conditions, copy, number, text};
use super::meta::{Meta, ObjectMeta, TypeMeta, decode, flat};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    list: ListShape { items: "deployments", counts: Counts::Workloads, metrics: true },
    joins: &[Join::PodInfo { key: "pods", pods: PodsOf::ReplicaSets }],
    children: &[
        ("event", Child::Events),
        ("horizontalpodautoscaler", Child::Autoscalers),
        ("newreplicaset", Child::NewSet),
        ("oldreplicaset", Child::OldSets),
        ("pod", Child::Pods),
    ],
    actions: &[Action::Pause, Action::Restart, Action::Resume, Action::Rollback],
    ..KindDef::of(
        "deployment",
        Resource::namespaced("apps", "v1", "Deployment", "deployments"),
        row,
        detail,
    )
};

#[derive(Deserialize)]
struct Deployment<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec<'a> {
    replicas: Option<i64>,
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    replicas: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    container_images: Option<Vec<&'a str>>,
    init_container_images: Option<Vec<&'a str>>,
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: Deployment = decode(KIND.name, json)?;
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta { kind: KIND.name, scalable: true, restartable: true },
        container_images: object.spec.template.images(),
        init_container_images: object.spec.template.init_images(),
    };
    let facts = Facts::from(WorkloadFacts {
        current: object.status.replicas,
        desired: object.spec.replicas,
    });
    object.metadata.row(KIND.name, &item, vec![], vec![], facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Map<String, Value>, Malformed> {
    let mut fields = flat(KIND.name, object, row)?;
    fields.insert("selector".into(), copy(object, "/spec/selector/matchLabels"));
    let status = json!({
        "replicas": number(object, "/status/replicas"),
        "updated": number(object, "/status/updatedReplicas"),
        "available": number(object, "/status/availableReplicas"),
        "unavailable": number(object, "/status/unavailableReplicas"),
    });
    fields.insert("statusInfo".into(), status);
    // The contract has a list here where other kinds have null.
    let conditions = conditions(object, "lastUpdateTime").unwrap_or_default();
    fields.insert("conditions".into(), json!(conditions));
    fields.insert("strategy".into(), text(object, "/spec/strategy/type").into());
    fields.insert("minReadySeconds".into(), number(object, "/spec/minReadySeconds").into());
    if let Some(rolling) = object.pointer("/spec/strategy/rollingUpdate").filter(|v| !v.is_null()) {
        let rolling = json!({
            "maxSurge": rolling.get("maxSurge"),
            "maxUnavailable": rolling.get("maxUnavailable"),
        });
        fields.insert("rollingUpdateStrategy".into(), rolling);
    }
    let limit = copy(object, "/spec/revisionHistoryLimit");
    fields.insert("revisionHistoryLimit".into(), limit);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILES: &str = r#"{
        "metadata": {"name": "tiles", "namespace": "atlas", "uid": "d1", "resourceVersion": "41",
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "tiles"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x"}},
        "spec": {"replicas": 3, "revisionHistoryLimit": 5, "minReadySeconds": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "tiles"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]},
            "template": {"metadata": {}, "spec": {
                "initContainers": [{"name": "init", "image": "init:1"}],
                "containers": [{"name": "main", "image": "tiles:1"}]}}},
        "status": {"replicas": 4, "updatedReplicas": 2, "availableReplicas": 3, "unavailableReplicas": 1,
            "conditions": [{"type": "Available", "status": "True", "lastUpdateTime": "2026-01-02T03:05:00Z",
                "lastTransitionTime": "2026-01-02T03:04:59Z", "reason": "R", "message": "M"}]}}"#;

    #[test]
    fn a_deployment_shows_its_images_and_counts() {
        let row = row(TILES).unwrap();
        assert_eq!(row.facts, Facts::from(WorkloadFacts { current: 4, desired: Some(3) }));
        assert!(row.links.is_empty());
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"tiles","namespace":"atlas","labels":{"app":"tiles"},"#,
                r#""annotations":{"note":"x"},"creationTimestamp":"2026-01-02T03:04:05Z","uid":"d1"},"#,
                r#""typeMeta":{"kind":"deployment","scalable":true,"restartable":true},"#,
                r#""containerImages":["tiles:1"],"initContainerImages":["init:1"]}"#,
            )
        );
    }

    #[test]
    fn a_detail_shows_strategy_progress_and_the_match_labels_alone() {
        let fields = detail_of(&KIND, TILES).unwrap();
        assert_eq!(
            Value::Object(fields),
            json!({
                "objectMeta": {"name": "tiles", "namespace": "atlas", "uid": "d1", "labels": {"app": "tiles"},
                    "creationTimestamp": "2026-01-02T03:04:05Z",
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x"}},
                "typeMeta": {"kind": "deployment", "scalable": true, "restartable": true},
                "containerImages": ["tiles:1"],
                "initContainerImages": ["init:1"],
                "selector": {"app": "tiles"},
                "statusInfo": {"replicas": 4, "updated": 2, "available": 3, "unavailable": 1},
                "conditions": [{"type": "Available", "status": "True", "lastProbeTime": "2026-01-02T03:05:00Z",
                    "lastTransitionTime": "2026-01-02T03:04:59Z", "reason": "R", "message": "M"}],
                "strategy": "RollingUpdate",
                "minReadySeconds": 1,
                "rollingUpdateStrategy": {"maxSurge": "25%", "maxUnavailable": 0},
                "revisionHistoryLimit": 5,
            })
        );
    }

    #[test]
    fn a_bare_deployment_has_nulls_and_zeros_where_the_contract_wants_them() {
        let fields = detail_of(&KIND, r#"{"metadata":{"name":"a"}}"#).unwrap();
        for key in ["selector", "revisionHistoryLimit", "containerImages"] {
            assert_eq!(fields[key], Value::Null, "{key}");
        }
        assert_eq!(fields["conditions"], json!([]));
        assert!(!fields.contains_key("rollingUpdateStrategy"));
        assert_eq!(fields["strategy"], "");
        assert_eq!(fields["statusInfo"]["unavailable"], 0);
    }
}

//! Replication controllers: images and counts, and the selector in the detail.
//!
//! The forerunner of replica sets: its selector is a plain map of labels.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::detail::copy;
use super::meta::{Meta, ObjectMeta, TypeMeta, decode, flat};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::number("ready")],
    list: ListShape { items: "replicationControllers", counts: Counts::Workloads, metrics: true },
    joins: &[Join::PodInfo { key: "podInfo", pods: PodsOf::Owner }],
    children: &[
        ("event", Child::Events),
        ("horizontalpodautoscaler", Child::Autoscalers),
        ("pod", Child::Pods),
        ("service", Child::Services),
    ],
    ..KindDef::of(
        "replicationcontroller",
        Resource::namespaced("", "v1", "ReplicationController", "replicationcontrollers"),
        row,
        detail,
    )
};

#[derive(Deserialize)]
struct ReplicationController<'a> {
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
#[serde(rename_all = "camelCase", default)]
struct Status {
    replicas: i64,
    ready_replicas: i64,
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
    let object: ReplicationController = decode(KIND.name, json)?;
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta { kind: KIND.name, scalable: true, restartable: false },
        container_images: object.spec.template.images(),
        init_container_images: object.spec.template.init_images(),
    };
    let facts = Facts::from(WorkloadFacts {
        current: object.status.replicas,
        desired: object.spec.replicas,
    });
    let cells = vec![Cell::Number(object.status.ready_replicas)];
    object.metadata.row(KIND.name, &item, cells, vec![], facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    let mut fields = flat(KIND.name, object, row)?;
    fields.insert("labelSelector".into(), copy(object, "/spec/selector"));
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = r#"{
        "metadata": {"name": "legacy", "namespace": "atlas", "uid": "c1", "labels": {"app": "legacy"},
            "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"replicas": 2, "selector": {"app": "legacy"},
            "template": {"spec": {"containers": [{"name": "old", "image": "old:0"}]}}},
        "status": {"replicas": 2, "readyReplicas": 1}}"#;

    #[test]
    fn a_replication_controller_shows_its_images_and_counts() {
        let row = row(LEGACY).unwrap();
        assert_eq!(row.facts, Facts::from(WorkloadFacts { current: 2, desired: Some(2) }));
        assert_eq!(*row.cells, [Cell::Number(1)]);
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"legacy","namespace":"atlas","labels":{"app":"legacy"},"#,
                r#""creationTimestamp":"2026-01-02T03:04:05Z","uid":"c1"},"#,
                r#""typeMeta":{"kind":"replicationcontroller","scalable":true},"#,
                r#""containerImages":["old:0"],"initContainerImages":null}"#,
            )
        );
    }

    #[test]
    fn a_detail_shows_the_labels_it_selects_or_null() {
        let fields = detail_of(&KIND, LEGACY).unwrap();
        assert_eq!(fields["labelSelector"], serde_json::json!({"app": "legacy"}));
        assert_eq!(fields.len(), 5);
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!(bare["labelSelector"], Value::Null);
    }
}

//! Stateful sets: images and counts; the contract's detail has nothing more.
//!
//! Their claims are found by the pods that use them, not from here.

use serde::{Deserialize, Serialize};

use super::meta::{Meta, ObjectMeta, TypeMeta, decode, flat};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::number("ready")],
    list: ListShape { items: "statefulSets", counts: Counts::Workloads, metrics: true },
    joins: &[Join::PodInfo { key: "podInfo", pods: PodsOf::Owner }],
    children: &[
        ("event", Child::Events),
        ("horizontalpodautoscaler", Child::Autoscalers),
        ("pod", Child::Pods),
    ],
    actions: &[Action::Restart],
    ..KindDef::of(
        "statefulset",
        Resource::namespaced("apps", "v1", "StatefulSet", "statefulsets"),
        row,
        detail,
    )
};

#[derive(Deserialize)]
struct StatefulSet<'a> {
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
    let object: StatefulSet = decode(KIND.name, json)?;
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
    let cells = vec![Cell::Number(object.status.ready_replicas)];
    object.metadata.row(KIND.name, &item, cells, vec![], facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = r#"{
        "metadata": {"name": "store", "namespace": "atlas", "uid": "s1",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"replicas": 3, "serviceName": "store", "selector": {"matchLabels": {"app": "store"}},
            "template": {"spec": {"containers": [{"name": "db", "image": "db:2"}]}}},
        "status": {"replicas": 2, "readyReplicas": 1, "currentReplicas": 2}}"#;

    #[test]
    fn a_stateful_set_shows_its_images_and_counts() {
        let row = row(STORE).unwrap();
        assert_eq!(row.facts, Facts::from(WorkloadFacts { current: 2, desired: Some(3) }));
        assert_eq!(*row.cells, [Cell::Number(1)]);
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"store","namespace":"atlas","#,
                r#""creationTimestamp":"2026-01-02T03:04:05Z","uid":"s1"},"#,
                r#""typeMeta":{"kind":"statefulset","scalable":true,"restartable":true},"#,
                r#""containerImages":["db:2"],"initContainerImages":null}"#,
            )
        );
    }

    #[test]
    fn a_detail_is_the_item_with_all_annotations() {
        let fields = detail_of(&KIND, STORE).unwrap();
        assert_eq!(fields.len(), 4);
        let annotations = &fields["objectMeta"]["annotations"];
        assert_eq!(annotations["kubectl.kubernetes.io/last-applied-configuration"], "{}");
    }
}

//! Replica sets: images and counts, and the link to the deployment that controls them.
//!
//! Which one is a deployment's new set is decided above, where both are at hand.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::detail::copy;
use super::meta::{Meta, ObjectMeta, TypeMeta, decode, flat};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    list: ListShape { items: "replicaSets", counts: Counts::Workloads, metrics: true },
    joins: &[Join::PodInfo { key: "podInfo", pods: PodsOf::Owner }],
    relations: &[Relation::Autoscalers],
    children: &[
        ("event", Child::Events),
        ("horizontalpodautoscaler", Child::Autoscalers),
        ("pod", Child::Pods),
        ("service", Child::Services),
    ],
    ..KindDef::of(
        "replicaset",
        Resource::namespaced("apps", "v1", "ReplicaSet", "replicasets"),
        row,
        detail,
    )
};

#[derive(Deserialize)]
struct ReplicaSet<'a> {
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
    let object: ReplicaSet = decode(KIND.name, json)?;
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
    let links = object.metadata.owner_link().into_iter().collect();
    object.metadata.row(KIND.name, &item, vec![], links, facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Map<String, Value>, Malformed> {
    let mut fields = flat(KIND.name, object, row)?;
    fields.insert("selector".into(), copy(object, "/spec/selector"));
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = r#"{
        "metadata": {"name": "tiles-1", "namespace": "atlas", "uid": "r1",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o1"},
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "tiles", "uid": "d1",
                 "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "tiles"}},
            "template": {"spec": {"containers": [{"name": "main", "image": "tiles:1"}]}}},
        "status": {"replicas": 1}}"#;

    #[test]
    fn a_replica_set_shows_its_images_and_links_to_its_controller() {
        let row = row(SET).unwrap();
        assert_eq!(*row.links, [Link::Owner("d1".into())]);
        assert_eq!(row.facts, Facts::from(WorkloadFacts { current: 1, desired: Some(2) }));
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"tiles-1","namespace":"atlas","creationTimestamp":"2026-01-02T03:04:05Z","#,
                r#""uid":"r1","ownerReferences":[{"kind":"Other","name":"o"},{"kind":"Deployment","name":"tiles"}]},"#,
                r#""typeMeta":{"kind":"replicaset","scalable":true},"#,
                r#""containerImages":["tiles:1"],"initContainerImages":null}"#,
            )
        );
    }

    #[test]
    fn a_detail_shows_the_whole_selector() {
        let fields = detail_of(&KIND, SET).unwrap();
        assert_eq!(fields["selector"], serde_json::json!({"matchLabels": {"app": "tiles"}}));
        assert_eq!(fields["typeMeta"]["kind"], "replicaset");
        assert_eq!(fields["objectMeta"]["name"], "tiles-1");
        assert_eq!(fields.len(), 5);
    }
}

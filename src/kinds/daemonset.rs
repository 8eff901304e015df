//! Daemon sets: images and counts, and the selector in the detail.
//!
//! They count nodes, not replicas: what is wanted is decided by the nodes that fit.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::meta::{Meta, ObjectMeta, TypeMeta, decode, flat};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::number("ready")],
    list: ListShape { items: "daemonSets", counts: Counts::Workloads, metrics: true },
    joins: &[Join::PodInfo { key: "podInfo", pods: PodsOf::Owner }],
    children: &[("event", Child::Events), ("pod", Child::Pods), ("service", Child::Services)],
    actions: &[Action::Restart],
    ..KindDef::of(
        "daemonset",
        Resource::namespaced("apps", "v1", "DaemonSet", "daemonsets"),
        row,
        detail,
    )
};

#[derive(Deserialize)]
struct DaemonSet<'a> {
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
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    current_number_scheduled: i64,
    desired_number_scheduled: i64,
    number_ready: i64,
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
    let object: DaemonSet = decode(KIND.name, json)?;
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta { kind: KIND.name, scalable: false, restartable: true },
        container_images: object.spec.template.images(),
        init_container_images: object.spec.template.init_images(),
    };
    let facts = Facts::from(WorkloadFacts {
        current: object.status.current_number_scheduled,
        desired: Some(object.status.desired_number_scheduled),
    });
    let cells = vec![Cell::Number(object.status.number_ready)];
    object.metadata.row(KIND.name, &item, cells, vec![], facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    let mut fields = flat(KIND.name, object, row)?;
    if let Some(selector) = object.pointer("/spec/selector").filter(|value| !value.is_null()) {
        fields.insert("labelSelector".into(), selector.clone());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = r#"{
        "metadata": {"name": "agent", "namespace": "atlas", "uid": "s1",
            "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "template": {"spec": {"containers": [{"name": "main", "image": "agent:3"}],
                "initContainers": [{"name": "init", "image": "init:1"}]}}},
        "status": {"currentNumberScheduled": 4, "desiredNumberScheduled": 5, "numberReady": 3,
            "numberMisscheduled": 0}}"#;

    #[test]
    fn a_daemon_set_counts_nodes_and_can_be_restarted_but_not_scaled() {
        let row = row(AGENT).unwrap();
        assert_eq!(row.facts, Facts::from(WorkloadFacts { current: 4, desired: Some(5) }));
        assert_eq!(*row.cells, [Cell::Number(3)]);
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"agent","namespace":"atlas","#,
                r#""creationTimestamp":"2026-01-02T03:04:05Z","uid":"s1"},"#,
                r#""typeMeta":{"kind":"daemonset","restartable":true},"#,
                r#""containerImages":["agent:3"],"initContainerImages":["init:1"]}"#,
            )
        );
    }

    #[test]
    fn a_detail_shows_the_whole_selector_or_no_such_key() {
        let fields = detail_of(&KIND, AGENT).unwrap();
        assert_eq!(fields["labelSelector"], serde_json::json!({"matchLabels": {"app": "agent"}}));
        assert_eq!(fields.len(), 5);
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert!(!bare.contains_key("labelSelector"));
        assert_eq!(bare["containerImages"], Value::Null);
    }

    #[test]
    fn a_daemon_set_nobody_looked_at_yet_wants_no_pods() {
        let row = row(r#"{"metadata": {"name": "a"}, "status": {}}"#).unwrap();
        assert_eq!(row.facts, Facts::from(WorkloadFacts { current: 0, desired: Some(0) }));
        assert_eq!(*row.cells, [Cell::Number(0)]);
    }
}

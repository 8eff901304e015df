//! Pods: the row, and the part of the object that it is made of.
//!
//! The printable status is worked out in `pod_status.rs`, sums over containers in
//! `pod_resources.rs`, the detail in `pod_detail.rs`. Warnings and usage are joined above.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode};
use super::pod_resources::{self, AllocatedResources, ResourceList};
use super::pod_status::{self, ContainerStatus, Status};
use super::{pod_detail, pod_env, *};

pub const KIND: KindDef = KindDef {
    columns: &[Column::text("status")],
    list: ListShape { items: "pods", counts: Counts::Pods, metrics: true },
    joins: &[Join::Warnings, Join::Metrics],
    relations: &[
        Relation::Controller,
        Relation::Events { key: "eventList", first: 10 },
        Relation::Claims,
    ],
    children: &[
        ("container", Child::Containers),
        ("event", Child::Events),
        ("persistentvolumeclaim", Child::Claims),
    ],
    references: pod_env::references,
    ..KindDef::of(NAME, Resource::namespaced("", "v1", "Pod", "pods"), row, pod_detail::detail)
};

pub const NAME: &str = "pod";
/// The annotation by which the mirror of a static pod tells the uid of its file.
const MIRROR: &str = "kubernetes.io/config.mirror";

#[derive(Deserialize)]
pub struct Pod<'a> {
    #[serde(borrow, default)]
    pub metadata: Meta<'a>,
    #[serde(borrow, default)]
    pub spec: Spec<'a>,
    #[serde(borrow, default)]
    pub status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    #[serde(borrow)]
    pub node_name: Text<'a>,
    #[serde(borrow)]
    pub containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    pub init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    pub overhead: Option<ResourceList<'a>>,
    /// What is asked for the pod as a whole.
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default)]
    pub image: Text<'a>,
    #[serde(borrow, default)]
    pub restart_policy: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub resources: Resources<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Resources<'a> {
    #[serde(borrow)]
    pub requests: Option<ResourceList<'a>>,
    #[serde(borrow)]
    pub limits: Option<ResourceList<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    status: &'a str,
    restart_count: i64,
    node_name: &'a str,
    container_images: Option<Vec<&'a str>>,
    container_statuses: Vec<State<'a>>,
    allocated_resources: AllocatedResources,
}

#[derive(Serialize)]
struct State<'a> {
    name: &'a str,
    state: &'static str,
    ready: bool,
}

fn row(json: &str) -> Result<Row, Malformed> {
    let pod: Pod = decode(NAME, json)?;
    let status = pod_status::printable(&pod);
    let allocated_resources = pod_resources::allocated(&pod);
    let facts = PodFacts {
        phase: pod.status.phase(),
        up: pod.status.up(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        ready_or_succeeded: pod.status.ready_or_succeeded(),
        allocated: allocated_resources.sums(),
    };
    let containers = pod.spec.containers.as_deref().filter(|all| !all.is_empty());
    let statuses = pod.status.init_container_statuses.iter().flatten();
    let statuses = statuses.chain(pod.status.container_statuses.iter().flatten());
    let item = Item {
        object_meta: pod.metadata.object_meta(),
        type_meta: TypeMeta::plain(NAME),
        status: &status,
        restart_count: pod.status.restarts(),
        node_name: &pod.spec.node_name,
        container_images: containers.map(|all| all.iter().map(|one| &*one.image).collect()),
        container_statuses: statuses.map(state).collect(),
        allocated_resources,
    };
    let node = Some(CompactString::new(&*pod.spec.node_name)).filter(|node| !node.is_empty());
    let own = pod.metadata.owner_link().into_iter().chain(node.map(Link::Node));
    let links = own.chain(file(&pod.metadata)).collect();
    let cells = vec![Cell::Text(CompactString::new(&*status))];
    pod.metadata.row(NAME, &item, cells, links, Facts::from(facts))
}

/// How events point to a static pod: by the uid of its file, not of its mirror.
fn file(meta: &Meta) -> Option<Link> {
    let (_, uid) = meta.annotations.iter().flatten().find(|(key, _)| ***key == *MIRROR)?;
    Some(Link::Involved((&**uid).into()))
}

fn state<'a>(status: &'a ContainerStatus<'_>) -> State<'a> {
    State { name: &status.name, state: status.state.shown(), ready: status.ready }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_pod_points_to_the_uid_that_its_events_name() {
        let row = row(r#"{"metadata": {"name": "etcd-node-0",
            "annotations": {"kubernetes.io/config.mirror": "f1"}}}"#)
        .unwrap();
        assert_eq!(*row.links, [Link::Involved("f1".into())]);
    }

    #[test]
    fn a_pod_shows_status_images_containers_and_what_it_asks_for() {
        let row = row(
            r#"{"metadata": {"name": "tiles-1-a", "namespace": "atlas", "uid": "p1", "resourceVersion": "9",
                    "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "tiles"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "tiles-1", "uid": "r1", "controller": true}]},
                "spec": {"nodeName": "node-0",
                    "initContainers": [{"name": "init", "image": "init:1",
                        "resources": {"requests": {"cpu": "50m"}}}],
                    "containers": [{"name": "main", "image": "tiles:1", "resources": {
                        "requests": {"cpu": "100m", "memory": "64Mi"},
                        "limits": {"cpu": "500m", "memory": "256Mi", "nvidia.com/gpu": "2"}}}]},
                "status": {"phase": "Running",
                    "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                    "initContainerStatuses": [{"name": "init", "ready": true, "restartCount": 5,
                        "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
                    "containerStatuses": [{"name": "main", "ready": true, "restartCount": 2,
                        "state": {"running": {"startedAt": "2026-01-02T03:04:06Z"}}}]}}"#,
        )
        .unwrap();
        assert_eq!(*row.cells, [Cell::Text("Running".into())]);
        assert_eq!(*row.links, [Link::Owner("r1".into()), Link::Node("node-0".into())]);
        let expected = PodFacts {
            phase: Phase::Running,
            up: true,
            terminating: false,
            ready_or_succeeded: true,
            allocated: Allocated {
                cpu_requests: 100,
                cpu_limits: 500,
                memory_requests: 64 << 20,
                memory_limits: 256 << 20,
            },
        };
        assert_eq!(row.pod(), Some(&expected));
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"tiles-1-a","namespace":"atlas","labels":{"app":"tiles"},"#,
                r#""creationTimestamp":"2026-01-02T03:04:05Z","uid":"p1","#,
                r#""ownerReferences":[{"kind":"ReplicaSet","name":"tiles-1"}]},"typeMeta":{"kind":"pod"},"#,
                r#""status":"Running","restartCount":2,"nodeName":"node-0","containerImages":["tiles:1"],"#,
                r#""containerStatuses":[{"name":"init","state":"Terminated","ready":true},"#,
                r#"{"name":"main","state":"Running","ready":true}],"#,
                r#""allocatedResources":{"cpuRequests":100,"cpuLimits":500,"memoryRequests":67108864,"#,
                r#""memoryLimits":268435456,"gpuRequests":[],"gpuLimits":[{"quantity":2,"type":"nvidia"}]}}"#,
            )
        );
    }

    #[test]
    fn a_pod_that_nothing_has_looked_at_yet_is_shown_too() {
        let row = row(r#"{"metadata": {"name": "a", "deletionTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"containers": null}, "status": {"containerStatuses": null, "conditions": null}}"#)
        .unwrap();
        assert!(row.links.is_empty());
        assert!(row.pod().unwrap().terminating);
        assert_eq!(row.pod().unwrap().phase, Phase::Unknown);
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["status"], "Terminating");
        assert_eq!(item["containerImages"], Value::Null);
        assert_eq!(item["containerStatuses"], serde_json::json!([]));
        assert_eq!(item["nodeName"], "");
    }

    #[test]
    fn an_object_that_is_no_pod_costs_one_row() {
        for json in
            ["", "[]", "{}", r#"{"metadata":{"name":7}}"#, r#"{"metadata":{"name":"a"},"spec":7}"#]
        {
            assert_eq!(row(json).unwrap_err().kind, "pod", "{json}");
        }
    }
}

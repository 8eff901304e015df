//! Nodes: readiness and system in the list; conditions, images, taints and addresses in the detail.
//!
//! What is allocated on a node is the sum over its pods, joined above.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::detail::{conditions, copy, list, text};
use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode, flat};
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::text("ready"), Column::text("version")],
    list: ListShape { items: "nodes", counts: Counts::None, metrics: true },
    joins: &[Join::Allocation],
    relations: &[Relation::NodePods, Relation::NodeEvents],
    children: &[("event", Child::Events), ("pod", Child::Pods)],
    ..KindDef::of("node", Resource::cluster("", "v1", "Node", "nodes"), row, detail)
};

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    #[serde(borrow)]
    allocatable: Option<Resources<'a>>,
    #[serde(borrow)]
    capacity: Option<Resources<'a>>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
    #[serde(borrow)]
    node_info: NodeInfo<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources<'a> {
    #[serde(borrow)]
    cpu: Text<'a>,
    #[serde(borrow)]
    memory: Text<'a>,
    #[serde(borrow)]
    pods: Text<'a>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
}

/// Kubernetes' `NodeSystemInfo`: all texts are always there.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo<'a> {
    #[serde(borrow, rename = "machineID")]
    machine_id: Text<'a>,
    #[serde(borrow, rename = "systemUUID")]
    system_uuid: Text<'a>,
    #[serde(borrow, rename = "bootID")]
    boot_id: Text<'a>,
    #[serde(borrow)]
    kernel_version: Text<'a>,
    #[serde(borrow)]
    os_image: Text<'a>,
    #[serde(borrow)]
    container_runtime_version: Text<'a>,
    #[serde(borrow)]
    kubelet_version: Text<'a>,
    #[serde(borrow)]
    kube_proxy_version: Text<'a>,
    #[serde(borrow)]
    operating_system: Text<'a>,
    #[serde(borrow)]
    architecture: Text<'a>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    swap: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    ready: &'a str,
    node_info: &'a NodeInfo<'a>,
}

impl Status<'_> {
    /// Status of the Ready condition; Unknown when the node never reported one.
    fn ready(&self) -> &str {
        let mut conditions = self.conditions.iter().flatten();
        conditions
            .find(|condition| &*condition.kind == "Ready")
            .map_or("Unknown", |condition| &*condition.status)
    }

    fn facts(&self) -> Facts {
        let amount = |text: &str| Quantity::parse(text).unwrap_or_default();
        let allocatable = self.allocatable.as_ref();
        Facts::from(NodeFacts {
            cpu: allocatable.map_or(0, |resources| amount(&resources.cpu).milli()),
            memory: allocatable.map_or(0, |resources| amount(&resources.memory).value()),
            pods: self.capacity.as_ref().map_or(0, |resources| amount(&resources.pods).value()),
        })
    }
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: Node = decode(KIND.name, json)?;
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta::plain(KIND.name),
        ready: object.status.ready(),
        node_info: &object.status.node_info,
    };
    let cell = |text: &str| Cell::Text(text.into());
    let cells = vec![cell(object.status.ready()), cell(&object.status.node_info.kubelet_version)];
    object.metadata.row(KIND.name, &item, cells, vec![], object.status.facts())
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Map<String, Value>, Malformed> {
    let mut fields = flat(KIND.name, object, row)?;
    fields.insert("phase".into(), text(object, "/status/phase").into());
    fields.insert("podCIDR".into(), text(object, "/spec/podCIDR").into());
    fields.insert("providerID".into(), text(object, "/spec/providerID").into());
    let unschedulable = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    fields.insert("unschedulable".into(), unschedulable.into());
    fields.insert("conditions".into(), json!(conditions(object, "lastHeartbeatTime")));
    let images = list(object, "/status/images").iter();
    let names: Vec<Value> = images.flat_map(|image| list(image, "/names")).cloned().collect();
    let names = if names.is_empty() { Value::Null } else { names.into() };
    fields.insert("containerImages".into(), names);
    fields.insert("metrics".into(), Value::Null);
    for (key, pointer) in [("taints", "/spec/taints"), ("addresses", "/status/addresses")] {
        if !list(object, pointer).is_empty() {
            fields.insert(key.into(), copy(object, pointer));
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = r#"{
        "metadata": {"name": "node-0", "uid": "n1"},
        "spec": {"podCIDR": "10.0.0.0/24", "unschedulable": true,
            "taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"phase": "Running",
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "allocatable": {"cpu": "3920m", "memory": "7Gi", "pods": "100", "ephemeral-storage": "1"},
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-02T03:04:05Z",
                 "lastTransitionTime": "2026-01-02T03:04:00Z", "reason": "KubeletReady", "message": "ok"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}],
            "images": [{"names": ["a:1", "a@sha256:1"], "sizeBytes": 1}, {"names": null}, {"names": ["b:1"]}],
            "nodeInfo": {"machineID": "m", "systemUUID": "s", "bootID": "b", "kernelVersion": "6.1",
                "osImage": "Linux", "containerRuntimeVersion": "containerd://2", "kubeletVersion": "v1.36.3",
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
                "swap": {"capacity": 0}}}}"#;

    #[test]
    fn a_node_shows_readiness_and_system_and_keeps_what_it_can_hold() {
        let row = row(NODE).unwrap();
        assert_eq!(row.facts, Facts::from(NodeFacts { cpu: 3_920, memory: 7 << 30, pods: 110 }));
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"node-0","creationTimestamp":null,"uid":"n1"},"#,
                r#""typeMeta":{"kind":"node"},"ready":"True","nodeInfo":{"machineID":"m","systemUUID":"s","#,
                r#""bootID":"b","kernelVersion":"6.1","osImage":"Linux","#,
                r#""containerRuntimeVersion":"containerd://2","kubeletVersion":"v1.36.3","#,
                r#""kubeProxyVersion":"","operatingSystem":"linux","architecture":"amd64","#,
                r#""swap":{"capacity": 0}}}"#,
            )
        );
    }

    #[test]
    fn a_node_that_never_reported_is_unknown_and_holds_nothing() {
        let row = row(r#"{"metadata":{"name":"n"},"status":{"conditions":null}}"#).unwrap();
        assert_eq!(row.facts, Facts::from(NodeFacts { cpu: 0, memory: 0, pods: 0 }));
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["ready"], "Unknown");
        assert_eq!(item["nodeInfo"].as_object().unwrap().len(), 10);
    }

    #[test]
    fn a_detail_shows_conditions_images_taints_and_addresses() {
        let mut fields = detail_of(&KIND, NODE).unwrap();
        fields.remove("nodeInfo").unwrap();
        assert_eq!(
            Value::Object(fields),
            json!({
                "objectMeta": {"name": "node-0", "creationTimestamp": null, "uid": "n1"},
                "typeMeta": {"kind": "node"},
                "ready": "True",
                "phase": "Running",
                "podCIDR": "10.0.0.0/24",
                "providerID": "",
                "unschedulable": true,
                "conditions": [
                    {"type": "MemoryPressure", "status": "False", "lastProbeTime": null,
                     "lastTransitionTime": null, "reason": "", "message": ""},
                    {"type": "Ready", "status": "True", "lastProbeTime": "2026-01-02T03:04:05Z",
                     "lastTransitionTime": "2026-01-02T03:04:00Z", "reason": "KubeletReady", "message": "ok"},
                ],
                "containerImages": ["a:1", "a@sha256:1", "b:1"],
                "metrics": null,
                "taints": [{"key": "a", "effect": "NoSchedule"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.9"}],
            })
        );
    }

    #[test]
    fn a_bare_node_has_no_taints_and_null_images() {
        let fields = detail_of(&KIND, r#"{"metadata":{"name":"n"}}"#).unwrap();
        assert!(!fields.contains_key("taints"));
        assert!(!fields.contains_key("addresses"));
        assert_eq!(fields["containerImages"], Value::Null);
        assert_eq!(fields["unschedulable"], false);
    }
}

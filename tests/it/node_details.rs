//! What belongs to a node though it is in a namespace and the node is not, on the real control
//! plane: the static pods that it controls, and the events about it.
//! It is NOT where a node's own lists and their query are tested (`details.rs`).

use serde_json::{Value, json};

use crate::cluster;
use crate::details::until;
use crate::gateway::{self, Options};
use crate::people::create;

const NODE: &str = "node-0";

#[tokio::test]
async fn the_controller_of_a_static_pod_is_its_node_with_its_pods_counted() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("static-pod").await;
    let path = format!("/api/v1/nodes/{NODE}");
    let (status, _, node) = cluster.get(cluster.token("admin"), &path).await;
    assert_eq!(status, 200);
    let node: Value = serde_json::from_slice(&node).unwrap();
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": NODE,
        "uid": node["metadata"]["uid"], "controller": true});
    let main = json!({"name": "main", "image": "example.invalid/main"});
    let object = json!({"metadata": {"name": "static", "ownerReferences": [owner]},
        "spec": {"nodeName": NODE, "containers": [main]}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;

    let gateway = gateway::start(Options::default()).await;
    let counted = |pod: &Value| pod["controller"]["pods"]["running"] == 1;
    let pod = until(&gateway, &format!("/api/v1/pod/{namespace}/static"), counted).await;
    assert_eq!(pod["controller"]["typeMeta"], json!({"kind": "node"}), "{pod}");
    assert_eq!(pod["controller"]["objectMeta"]["name"], NODE, "{pod}");
    assert_eq!(pod["errors"], json!([]), "{pod}");
}

#[tokio::test]
async fn events_about_a_node_are_those_where_its_kubelet_writes_them() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let mut made = Vec::new();
    // In this order: when the second is shown, the first has been heard of.
    for namespace in ["kube-system", "default"] {
        let object = json!({
            "metadata": {"generateName": "told-"}, "reason": "Told", "action": "Tell",
            "type": "Normal", "eventTime": "2026-01-02T03:04:05.000000Z",
            "reportingComponent": "example.com/test", "reportingInstance": "test",
            "involvedObject": {"kind": "Node", "name": NODE, "uid": NODE},
        });
        let path = format!("/api/v1/namespaces/{namespace}/events");
        made.push(create(cluster, &path, object).await["metadata"]["name"].clone());
    }
    let has = |list: &Value, name: &Value| {
        let events = list["events"].as_array().unwrap();
        events.iter().any(|event| event["objectMeta"]["name"] == *name)
    };
    let path = format!("/api/v1/node/{NODE}/event");
    let events = until(&gateway, &path, |list| has(list, &made[1])).await;
    assert!(!has(&events, &made[0]), "{events}");
    let all = until(&gateway, "/api/v1/event/kube-system", |list| has(list, &made[0])).await;
    assert_eq!(all["errors"], json!([]), "{all}");
}

//! What is said of static pods, which the API server knows by their mirrors, on the real control
//! plane.
//! It is NOT where the node that controls them is tested (`node_details.rs`).

use serde_json::{Value, json};

use crate::cluster;
use crate::details::until;
use crate::gateway::{self, Options};
use crate::people::create;

#[tokio::test]
async fn the_warnings_of_a_static_pod_are_those_that_name_its_file() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("static-warned").await;
    let main = json!({"name": "main", "image": "example.invalid/main"});
    let notes = json!({"kubernetes.io/config.mirror": "f1", "test.binnacle/fate": "pending"});
    let object = json!({"metadata": {"name": "static", "annotations": notes},
        "spec": {"nodeName": "node-0", "containers": [main]}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
    let event = json!({
        "metadata": {"name": "halted"}, "type": "Warning", "reason": "Halted", "message": "no",
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "static", "uid": "f1"},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/events"), event).await;

    let gateway = gateway::start(Options::default()).await;
    let is_warned = |list: &Value| {
        let warnings = list["pods"][0]["warnings"].as_array();
        warnings.into_iter().flatten().any(|warning| warning["reason"] == "Halted")
    };
    let list = until(&gateway, &format!("/api/v1/pod/{namespace}"), is_warned).await;
    assert_eq!(list["status"]["failed"], 1, "{list}");
}

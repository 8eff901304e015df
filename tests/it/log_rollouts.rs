//! Followed workloads whose pods are not all alike: in a rollout the new ones have other containers.
//!
//! It is NOT where pods that come and go are tested (`log_streams.rs`).

use serde_json::json;

use crate::cluster;
use crate::gateway::{self, Options};
use crate::log_streams::{Stream, workload};
use crate::writes::patch;

#[tokio::test]
async fn who_follows_a_deployment_gets_the_containers_that_a_rollout_brings() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-rollout").await;
    workload(cluster, &namespace, "Deployment", 1, 1).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/follow/deployment/{namespace}/web");
    let mut stream = Stream::of(&gateway, cluster.token("admin"), &path).await;
    for (container, next) in [("main", Some("app")), ("app", None)] {
        loop {
            let event = stream.next().await;
            if event.name == "pods" {
                assert_eq!(event.data["failed"], json!([]), "{event:?}");
                continue;
            }
            assert_eq!(event.name, "lines", "{event:?}");
            if event.data.as_array().unwrap().iter().any(|line| line["container"] == container) {
                break;
            }
        }
        let Some(next) = next else { break };
        let containers = json!([{"name": next, "image": "example.invalid/main"}]);
        let spec = json!({"template": {"spec": {"containers": containers}}});
        let deployment = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
        patch(cluster, &deployment, json!({"spec": spec})).await;
    }
}

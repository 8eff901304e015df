//! A metrics source that is not there, cannot be reached, answers, dies and is removed, on a real
//! API server of this test's own: lists go on with what there is, the state of the source says how
//! it stands, and whatever changes is noticed without a restart.
//!
//! It is NOT where figures are added up or permitted (`metrics.rs`); the shared cluster's own
//! metrics-server is never touched.

use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::gateway::Gateway;
use crate::people::{create, delete};
use crate::reads::{DEADLINE, POLL};
use crate::restarts::Plane;

const STATE: &str = "/api/v1/integration/sidecar/state";
const PODS: &str = "/api/v1/pod/measured";
const OF_NAMESPACE: &str = "/api/v1/metrics/namespace/measured";
/// What the pod is said to use.
const MEMORY: i64 = 64 << 20;

/// Waits until the admin's answer is as wanted. We ask the source every 15 s, and after failures
/// at growing intervals.
async fn until(gateway: &Gateway, path: &str, what: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = gateway.get("admin", path).await;
        assert_eq!(answer.status, 200, "{path} until {what}: {}", answer.text());
        let body = answer.json();
        if ready(&body) {
            return body;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain until {what}, {path}: {body}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until the state says that the source fails with this status.
async fn fails(gateway: &Gateway, status: u16) {
    let what = format!("the source fails with {status}");
    let state = until(gateway, STATE, &what, |state| {
        state["error"]["ErrStatus"]["code"] == status && state["lastChecked"].is_string()
    });
    assert_eq!(state.await["connected"], false);
}

fn codes(list: &Value) -> Vec<&Value> {
    let errors = list["errors"].as_array().unwrap().iter();
    errors.map(|error| &error["ErrStatus"]["code"]).collect()
}

/// The one pod's row is there, without usage.
fn is_bare(list: &Value) -> bool {
    list["pods"][0]["objectMeta"]["name"] == "one" && list["pods"][0]["metrics"].is_null()
}

/// A node whose kubelet is the one of the plane, and a pod that is said to run on it: neither
/// scheduler nor kwok is there to do it.
async fn a_running_pod(cluster: &Cluster) {
    let path = "/metrics/nodes/node-0/metrics/resource";
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-0", "annotations": {
            "metrics.k8s.io/resource-metrics-path": path,
        }},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": cluster.ports["kubelet"]}},
        },
    });
    create(cluster, "/api/v1/nodes", node).await;
    let usage = json!({
        "kwok.x-k8s.io/usage-cpu": "120m", "kwok.x-k8s.io/usage-memory": "64Mi",
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "annotations": usage},
        "spec": {
            "nodeName": "node-0", "containers": [{"name": "main", "image": "example.invalid/main"}],
        },
    });
    create(cluster, "/api/v1/namespaces/measured/pods", pod).await;
    let started = "2026-01-02T03:04:05Z";
    let main = json!({
        "name": "main", "image": "example.invalid/main", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {"startedAt": started}},
    });
    let status = json!({"status": {"phase": "Running", "containerStatuses": [main]}});
    let (admin, path) = (cluster.token("admin"), "/api/v1/namespaces/measured/pods/one/status");
    let headers = [("content-type", "application/merge-patch+json")];
    let answer = cluster.request(Method::PATCH, admin, path, &headers, status.to_string()).await;
    assert_eq!(answer.0, 200, "{}", String::from_utf8_lossy(&answer.2));
}

/// Says that metrics.k8s.io is behind a Service, which does not exist yet.
async fn announce(cluster: &Cluster) {
    let service = json!({
        "name": "metrics-server", "namespace": "kube-system",
        "port": cluster.ports["metrics-server"],
    });
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "insecureSkipTLSVerify": true, "service": service,
        },
    });
    create(cluster, "/apis/apiregistration.k8s.io/v1/apiservices", object).await;
}

/// The Service leads to this machine: an `ExternalName` is the one kind that may.
async fn connect(cluster: &Cluster) {
    let port = cluster.ports["metrics-server"];
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "metrics-server"},
        "spec": {
            "type": "ExternalName", "externalName": "localhost",
            "ports": [{"port": port, "protocol": "TCP"}],
        },
    });
    create(cluster, "/api/v1/namespaces/kube-system/services", object).await;
}

#[tokio::test]
async fn a_metrics_source_may_be_missing_down_killed_and_removed_and_lists_go_on() {
    let mut plane = Plane::start().await;
    plane.namespace("measured").await;
    a_running_pod(plane.cluster).await;
    let gateway = plane.gateway().await;

    // Missing: there is no usage, and that is no error.
    fails(&gateway, 404).await;
    let list = until(&gateway, PODS, "the pod is shown", is_bare).await;
    assert_eq!(list["errors"], json!([]), "{list}");
    assert_eq!(gateway.get("admin", OF_NAMESPACE).await.status, 404);

    // Promised, and nobody is there: lists say so.
    announce(plane.cluster).await;
    fails(&gateway, 503).await;
    let list = until(&gateway, PODS, "the pod is shown", is_bare).await;
    assert_eq!(codes(&list), [&json!(503)], "{list}");
    let answer = gateway.get("admin", OF_NAMESPACE).await;
    assert_eq!(answer.status, 503, "{}", answer.text());

    // There at last: it is found without anybody's help.
    plane.order("start kubelet").await;
    plane.order("start metrics-server").await;
    connect(plane.cluster).await;
    let connected = |state: &Value| state["connected"] == true && state["error"].is_null();
    until(&gateway, STATE, "the source is connected", connected).await;
    let measured = |list: &Value| list["pods"][0]["metrics"]["memoryUsage"] == MEMORY;
    let list = until(&gateway, PODS, "the pod is measured", measured).await;
    assert_eq!(list["errors"], json!([]), "{list}");

    // Dead: what it last said is shown for a while, and its state says that it is gone.
    plane.order("kill metrics-server").await;
    fails(&gateway, 503).await;
    let list = until(&gateway, PODS, "the pod is shown", |_| true).await;
    assert_eq!(list["pods"][0]["objectMeta"]["name"], "one", "{list}");
    assert_eq!(gateway.get("admin", "/readyz").await.status, 200);

    // Removed: as if it had never been.
    let service = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    delete(plane.cluster, service).await;
    fails(&gateway, 404).await;
    let list = until(&gateway, PODS, "the pod is shown", is_bare).await;
    assert_eq!(list["errors"], json!([]), "{list}");
    gateway.stop().await;
}

//! Cordon, uncordon and drain: on the real API server with a node of the test's own, which nobody
//! else's pods come to. It is no place for what a drain of the demo would show as well.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, create, delete, grant, rule};
use crate::writes::live;

const NODES: &str = "/api/v1/nodes";

/// A node that no component cares for.
async fn node(cluster: &Cluster, name: &str) {
    let taint = json!({"key": "test.binnacle/private", "effect": "NoSchedule"});
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"taints": [taint]},
    });
    create(cluster, NODES, object).await;
}

/// A pod that is bound to the node from the beginning.
async fn pod(cluster: &Cluster, namespace: &str, name: &str, node: &str, more: Value) {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "example.invalid/main"}]},
    });
    if let Some(volumes) = more.get("volumes") {
        object["spec"]["volumes"] = volumes.clone();
    }
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
}

async fn put(gateway: &Gateway, token: &str, path: &str, body: &Value) -> Answer {
    let value = format!("Bearer {token}");
    let headers = [("authorization", value.as_str()), ("content-type", "application/json")];
    gateway.request(Method::PUT, None, path, &headers, body.to_string().into_bytes()).await
}

#[tokio::test]
async fn a_node_is_cordoned_and_uncordoned_as_often_as_one_likes() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("cordon").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    for (action, wanted) in
        [("cordon", json!(true)), ("cordon", json!(true)), ("uncordon", Value::Null)]
    {
        let answer =
            put(&gateway, admin, &format!("/api/v1/node/{name}/{action}"), &json!({})).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        let object = live(cluster, &format!("{NODES}/{name}")).await.unwrap();
        let found = object["spec"].get("unschedulable").cloned().unwrap_or_default();
        let is_off = found.is_null() || found == json!(false);
        assert!(found == wanted || (wanted.is_null() && is_off), "{action}: {object}");
    }
    let stranger = Person::new(cluster, &namespace, "stranger").await;
    let path = format!("/api/v1/node/{name}/cordon");
    assert_eq!(put(&gateway, &stranger.token, &path, &json!({})).await.status, 403);
    let gone = put(&gateway, admin, "/api/v1/node/no-such-node/drain", &json!({})).await;
    assert_eq!(gone.status, 404, "{}", gone.text());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_drain_evicts_what_may_go_and_names_what_a_budget_holds() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("drain").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    pod(cluster, &namespace, "free", &name, json!({})).await;
    pod(cluster, &namespace, "held", &name, json!({})).await;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "hold"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
    });
    let budgets = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets");
    create(cluster, &budgets, budget).await;
    // A running pod, as its kubelet would say: a pending one no budget holds.
    let status = json!({"status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let (admin, headers) =
        (cluster.token("admin"), [("content-type", "application/merge-patch+json")]);
    let path = format!("{pods}/held/status");
    let (code, _, _) =
        cluster.request(Method::PATCH, admin, &path, &headers, status.to_string()).await;
    assert_eq!(code, 200);
    let counted = || async {
        let budget = live(cluster, &format!("{budgets}/hold")).await.unwrap();
        budget["status"]["currentHealthy"] == 1
    };
    Cluster::eventually("the budget counts its pod", counted).await;

    let gateway = gateway::start(Options::default()).await;
    let drain = format!("/api/v1/node/{name}/drain");
    let second = 1_000_000_000u64;
    let answer = put(&gateway, admin, &drain, &json!({"timeout": 3 * second})).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let words = answer.text();
    assert!(words.contains(&format!("{namespace}/held")), "{words}");
    assert!(words.contains("disruption budget hold needs"), "{words}");
    assert!(!words.contains("/free"), "{words}");
    assert!(live(cluster, &format!("{pods}/free")).await.is_none(), "the free one is gone");
    assert!(live(cluster, &format!("{pods}/held")).await.is_some());
    let object = live(cluster, &format!("{NODES}/{name}")).await.unwrap();
    assert_eq!(object["spec"]["unschedulable"], true);

    let value = format!("Bearer {admin}");
    let headers = [
        ("authorization", value.as_str()),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
    ];
    let body = json!({"timeout": 2 * second}).to_string().into_bytes();
    let told = gateway.request(Method::PUT, None, &drain, &headers, body).await;
    assert_eq!((told.status, told.header("content-type")), (200, "text/event-stream"));
    let events: Vec<String> =
        told.text().lines().filter_map(|line| Some(line.strip_prefix("event: ")?.into())).collect();
    assert_eq!(events, ["cordoned", "evicting", "waiting", "failed", "done"], "{}", told.text());
    assert!(told.text().contains("\"status\":409"), "{}", told.text());

    delete(cluster, &format!("{budgets}/hold")).await;
    let answer = put(&gateway, admin, &drain, &json!({"timeout": 30 * second})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(live(cluster, &format!("{pods}/held")).await.is_none());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_strict_drain_refuses_bare_pods_and_scratch_data_and_evicts_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("strict").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let volumes = json!({"volumes": [{"name": "scratch", "emptyDir": {}}]});
    pod(cluster, &namespace, "scratch", &name, volumes).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let drain = format!("/api/v1/node/{name}/drain");
    for (spec, word) in [
        (json!({"force": false}), "without a controller"),
        (json!({"deleteEmptyDirData": false}), "emptyDir"),
    ] {
        let answer = put(&gateway, admin, &drain, &spec).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    assert!(live(cluster, &format!("{pods}/scratch")).await.is_some());
    // Who may cordon but not evict is told the API server's own words.
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["patch"], &["nodes"]), rule(&["list"], &["pods"])]);
    grant(cluster, None, &name, person.subject.clone(), rules).await;
    let answer = put(&gateway, &person.token, &drain, &json!({})).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("forbidden"), "{}", answer.text());
    assert!(live(cluster, &format!("{pods}/scratch")).await.is_some());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

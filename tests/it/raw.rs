//! `_raw` on the real control plane: every kind of discovery, and writes that meet other writes.
//! It is NOT a test of Kubernetes' own validation.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::create;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

const GADGETS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.raw.example.org}
spec:
  group: raw.example.org
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

async fn put(gateway: &Gateway, path: &str, object: &Value) -> Answer {
    let body = object.to_string().into_bytes();
    gateway.request(Method::PUT, Some("admin"), path, &JSON, body).await
}

/// A config map with one key, as the API server made it.
async fn config_map(cluster: &Cluster, namespace: &str) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"level": "info"}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/configmaps"), object).await
}

#[tokio::test]
async fn an_object_is_read_byte_for_byte() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("raw-read").await;
    config_map(cluster, &namespace).await;
    let gateway = gateway::start(Options::default()).await;
    for (path, upstream) in [
        (
            format!("configmap/namespace/{namespace}/name/settings"),
            format!("/api/v1/namespaces/{namespace}/configmaps/settings"),
        ),
        (format!("namespace/name/{namespace}"), format!("/api/v1/namespaces/{namespace}")),
        (
            "clusterrole/name/system:basic-user".into(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:basic-user".into(),
        ),
    ] {
        let answer = gateway.get("admin", &format!("/api/v1/_raw/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let (_, _, body) = cluster.get(cluster.token("admin"), &upstream).await;
        assert_eq!(answer.body, body, "{path}");
        let nobody = gateway.get("nobody", &format!("/api/v1/_raw/{path}")).await;
        assert_eq!(nobody.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_custom_kind_is_found_by_its_full_name_as_soon_as_it_exists() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("raw-custom").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/_raw/gadgets.raw.example.org/namespace/{namespace}/name/one");
    // The document of before is in the gateway's memory now.
    let before = gateway.get("admin", &path).await;
    assert_eq!(before.status, 404, "{}", before.text());
    assert!(before.text().contains("gadgets.raw.example.org"), "{}", before.text());
    cluster.apply(GADGETS).await;
    let object = json!({"apiVersion": "raw.example.org/v1", "kind": "Gadget",
        "metadata": {"name": "one"}, "spec": {"size": 1}});
    let collection = format!("/apis/raw.example.org/v1/namespaces/{namespace}/gadgets");
    let is_made = || async {
        let admin = cluster.token("admin");
        let sent = object.to_string();
        let answer = cluster.request(Method::POST, admin, &collection, &JSON, sent).await;
        matches!(answer.0, 201 | 409)
    };
    Cluster::eventually("the custom kind is served", is_made).await;
    let is_found = || async { gateway.get("admin", &path).await.status == 200 };
    Cluster::eventually("the gateway knows the custom kind", is_found).await;
    let mut gadget = gateway.get("admin", &path).await.json();
    gadget["spec"]["size"] = json!(2);
    let answer = put(&gateway, &path, &gadget).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(gateway.get("admin", &path).await.json()["spec"]["size"], 2);
    let answer = gateway.request(Method::DELETE, Some("admin"), &path, &[], Vec::new()).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let is_gone = || async { gateway.get("admin", &path).await.status == 404 };
    Cluster::eventually("the object is deleted", is_gone).await;
}

#[tokio::test]
async fn a_stale_write_is_a_conflict_that_shows_both_versions() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("raw-stale").await;
    let stale = config_map(cluster, &namespace).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/_raw/configmap/namespace/{namespace}/name/settings");
    let mut first = stale.clone();
    first["data"]["level"] = json!("debug");
    let answer = put(&gateway, &path, &first).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
    let current = gateway.get("admin", &path).await.json();

    let answer = put(&gateway, &path, &stale).await;
    assert_eq!(answer.status, 409);
    for object in [&stale, &current] {
        let version = object["metadata"]["resourceVersion"].as_str().unwrap();
        assert!(answer.text().contains(version), "{version}: {}", answer.text());
    }
    assert_eq!(gateway.get("admin", &path).await.json()["data"]["level"], "debug");
}

#[tokio::test]
async fn without_a_version_the_last_writer_wins() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("raw-last").await;
    let mut object = config_map(cluster, &namespace).await;
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/_raw/configmap/namespace/{namespace}/name/settings");
    let writes = (0..4).map(|level| {
        let mut object = object.clone();
        object["data"]["level"] = json!(level.to_string());
        let (gateway, path) = (&gateway, &path);
        async move { put(gateway, path, &object).await }
    });
    for answer in futures::future::join_all(writes).await {
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    let level = gateway.get("admin", &path).await.json()["data"]["level"].clone();
    assert!(["0", "1", "2", "3"].iter().any(|one| level == *one), "{level}");
    // The last one of all is over what it never saw.
    object["data"]["level"] = json!("last");
    assert_eq!(put(&gateway, &path, &object).await.status, 204);
    assert_eq!(gateway.get("admin", &path).await.json()["data"]["level"], "last");
}

#[tokio::test]
async fn a_body_that_is_not_the_object_of_the_path_is_refused() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("raw-bad").await;
    let good = config_map(cluster, &namespace).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/_raw/configmap/namespace/{namespace}/name/settings");
    for (pointer, value) in [
        ("/apiVersion", json!("apps/v1")),
        ("/apiVersion", json!("v9")),
        ("/kind", json!("Secret")),
        ("/metadata/name", json!("other")),
        ("/metadata/namespace", json!("other")),
    ] {
        let mut object = good.clone();
        *object.pointer_mut(pointer).unwrap() = value;
        let answer = put(&gateway, &path, &object).await;
        assert_eq!(answer.status, 400, "{pointer}: {}", answer.text());
    }
    let mut newer = good.clone();
    newer["data"]["level"] = json!("debug");
    assert_eq!(put(&gateway, &path, &newer).await.status, 204);
    for odd in [json!(123), json!(true), json!({})] {
        let mut object = good.clone();
        object["metadata"]["resourceVersion"] = odd;
        let answer = put(&gateway, &path, &object).await;
        assert_eq!(answer.status, 400, "{object}: {}", answer.text());
        assert!(answer.text().contains("metadata.resourceVersion"), "{}", answer.text());
    }
    assert_eq!(gateway.get("admin", &path).await.json()["data"]["level"], "debug");
    for (headers, body, status) in [
        (&[("content-type", "application/yaml")], b"a: 1".to_vec(), 415),
        (&JSON, b"{\"apiVersion\":".to_vec(), 400),
        (&JSON, vec![b' '; (3 << 20) + 1], 413),
    ] {
        let answer = gateway.request(Method::PUT, Some("admin"), &path, headers, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let answer = gateway.get("admin", "/api/v1/_raw/nonsense/name/a").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("nonsense"), "{}", answer.text());
    let answer = gateway.get("admin", "/api/v1/_raw/namespace/name/%2e%2e").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_delete_keeps_or_takes_dependents_as_it_is_told() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("raw-delete").await;
    crate::people::workload(cluster, &namespace, "web", 1, "none").await;
    let admin = cluster.token("admin");
    let sets = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
    let count = || async {
        let (_, _, body) = cluster.get(admin, &sets).await;
        let list: Value = serde_json::from_slice(&body).unwrap();
        list["items"].as_array().unwrap().len()
    };
    Cluster::eventually("there is a replica set", || async { count().await == 1 }).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/_raw/deployment/namespace/{namespace}/name/web");
    let orphan = format!("{path}?propagation=Orphan");
    let answer = gateway.request(Method::DELETE, Some("admin"), &orphan, &[], Vec::new()).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    let is_gone = || async { gateway.get("admin", &path).await.status == 404 };
    Cluster::eventually("the deployment is deleted", is_gone).await;
    assert_eq!(count().await, 1, "its replica set is an orphan now");
}

//! What tests of reads put into the real cluster: workloads, roles, and people of their own
//! (service accounts, whose rights no other test can change).
//!
//! It proves nothing itself; the modules beside it do.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::gateway::{Answer, Gateway};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Creates an object as admin and returns what the API server made of it.
pub async fn create(cluster: &Cluster, collection: &str, object: Value) -> Value {
    let headers = [("content-type", "application/json")];
    let (admin, sent) = (cluster.token("admin"), object.to_string());
    let (status, _, body) = cluster.request(Method::POST, admin, collection, &headers, sent).await;
    assert_eq!(status, 201, "creating in {collection}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).unwrap()
}

/// Deletes an object as admin.
pub async fn delete(cluster: &Cluster, path: &str) {
    let admin = cluster.token("admin");
    let (status, _, body) = cluster.request(Method::DELETE, admin, path, &[], "").await;
    assert_eq!(status, 200, "deleting {path}: {}", String::from_utf8_lossy(&body));
}

/// The spec of a pod that asks for 100m of a processor.
fn pod_spec() -> Value {
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    let main = json!({"name": "main", "image": "example.invalid/main", "resources": resources});
    json!({"containers": [main]})
}

/// A pod with a fate of `tests/cluster/README.md`; `none` runs.
pub async fn pod(cluster: &Cluster, namespace: &str, name: &str, fate: &str) {
    let annotations = json!({"test.binnacle/fate": fate});
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations}, "spec": pod_spec(),
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
}

/// A deployment of `replicas` pods with this fate, and a service in front of it.
pub async fn workload(cluster: &Cluster, namespace: &str, name: &str, replicas: u32, fate: &str) {
    let labels = json!({"app": name});
    let metadata = json!({"labels": labels, "annotations": {"test.binnacle/fate": fate}});
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": metadata, "spec": pod_spec()},
        },
    });
    create(cluster, &format!("/apis/apps/v1/namespaces/{namespace}/deployments"), object).await;
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": labels, "ports": [{"port": 80}]},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/services"), object).await;
}

/// One rule of a role; these kinds are in these two groups.
pub fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": ["", "apps"], "verbs": verbs, "resources": resources})
}

/// The rules of who may list these resources, and the usage of pods and nodes among them, as the
/// roles that metrics-server brings grant it.
pub fn listing(resources: &[&str]) -> Value {
    let usage = json!({"apiGroups": ["metrics.k8s.io"], "verbs": ["list"], "resources": resources});
    json!([rule(&["list"], resources), usage])
}

/// A user as the subject of a binding.
pub fn user(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name})
}

/// Where a role is: in a namespace or, without one, of the whole cluster.
fn roles(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/roles"),
        None => format!("{RBAC}/clusterroles"),
    }
}

/// The same for bindings.
pub fn bindings(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/rolebindings"),
        None => format!("{RBAC}/clusterrolebindings"),
    }
}

/// A role and its binding to a subject, both called `name`.
pub async fn grant(cluster: &Cluster, at: Option<&str>, name: &str, to: Value, rules: Value) {
    let kind = if at.is_some() { "Role" } else { "ClusterRole" };
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "rules": rules,
    });
    create(cluster, &roles(at), role).await;
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
        "metadata": {"name": name}, "roleRef": reference, "subjects": [to],
    });
    create(cluster, &bindings(at), binding).await;
}

/// A service account of one test: nobody else's test can change its rights.
pub struct Person {
    pub subject: Value,
    pub token: String,
}

impl Person {
    /// Somebody without any rights.
    pub async fn new(cluster: &Cluster, namespace: &str, name: &str) -> Person {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let metadata = json!({"name": name});
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        create(cluster, &accounts, object).await;
        let object = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        });
        let answer = create(cluster, &format!("{accounts}/{name}/token"), object).await;
        let subject = json!({"kind": "ServiceAccount", "namespace": namespace, "name": name});
        Person { subject, token: answer["status"]["token"].as_str().unwrap().to_owned() }
    }

    /// A person who may list these in the namespace.
    pub async fn who_lists(cluster: &Cluster, namespace: &str, resources: &[&str]) -> Person {
        let person = Person::new(cluster, namespace, "person").await;
        let to = person.subject.clone();
        grant(cluster, Some(namespace), "person", to, listing(resources)).await;
        person
    }
}

/// GET with a bearer token.
pub async fn ask(gateway: &Gateway, token: &str, path: &str) -> Answer {
    let value = format!("Bearer {token}");
    gateway.request(Method::GET, None, path, &[("authorization", value.as_str())], Vec::new()).await
}

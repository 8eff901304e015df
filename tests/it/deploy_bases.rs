//! Files on the real control plane whose objects stand on others of the same file that the API
//! server looks up when it makes them: the role of a binding, the account and the class of a pod.
//!
//! It is NOT where files are tested otherwise (`deploys.rs`).

use serde_json::json;

use crate::cluster::{self, Cluster};
use crate::deploys::file;
use crate::gateway::{self, Options};
use crate::people::{Person, bindings, create, delete};
use crate::writes::live;

const RBAC: &str = "rbac.authorization.k8s.io";

/// A role called `name`, and its binding to somebody of this kind.
fn role(name: &str, somebody: &str) -> String {
    let head =
        |kind: &str| format!("apiVersion: {RBAC}/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
    let rules = "rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get]}]\n---\n";
    let reference = format!("roleRef: {{apiGroup: {RBAC}, kind: Role, name: {name}}}\n");
    let subjects = format!("subjects: [{{apiGroup: {RBAC}, kind: {somebody}, name: guest}}]\n");
    [head("Role"), rules.to_owned(), head("RoleBinding"), reference, subjects].concat()
}

#[tokio::test]
async fn a_role_comes_with_its_binding_and_an_account_with_its_pod() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("deploys-below").await;
    // May make roles and bindings, of rights that he has himself, and bind to no other.
    let person = Person::new(cluster, &namespace, "person").await;
    let binding = json!({"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "person"}, "subjects": [person.subject],
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "admin"}});
    create(cluster, &bindings(Some(&namespace)), binding).await;
    let roles = format!("/apis/{RBAC}/v1/namespaces/{namespace}/roles");
    for path in [format!("{roles}/none"), format!("/api/v1/namespaces/{namespace}/pods/none")] {
        let may = || async { cluster.get(&person.token, &path).await.0 == 404 };
        Cluster::eventually("the person has his rights", may).await;
    }
    let gateway = gateway::start(Options::default()).await;
    let is_made = async |name: &str| {
        let binding = format!("{}/{name}", bindings(Some(&namespace)));
        let role = live(cluster, &format!("{roles}/{name}")).await;
        [role.is_some(), live(cluster, &binding).await.is_some()]
    };
    let answer = file(&gateway, &person.token, &namespace, &role("readers", "User")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(is_made("readers").await, [true, true]);

    // What is wrong with a binding whose role may be bound is told before anything is made; and a
    // role that nobody brings is missing.
    let other = role("other", "User").replace("kind: Role, name: other", "kind: Role, name: none");
    for (token, name, content, status, words) in [
        (cluster.token("admin"), "odd", role("odd", "Ghost"), 422, "Ghost"),
        (person.token.as_str(), "other", other, 404, "\"none\" not found"),
    ] {
        let answer = file(&gateway, token, &namespace, &content).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
        assert_eq!(is_made(name).await, [false, false], "{}", answer.text());
    }

    let class = format!("{namespace}-high");
    let content = format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: runner}}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {{name: {class}}}
value: 7
---
apiVersion: v1
kind: Pod
metadata: {{name: run}}
spec:
  serviceAccountName: runner
  priorityClassName: {class}
  containers: [{{name: main, image: example.invalid/run}}]
"
    );
    let answer = file(&gateway, cluster.token("admin"), &namespace, &content).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = format!("/api/v1/namespaces/{namespace}/pods/run");
    assert_eq!(live(cluster, &path).await.unwrap()["spec"]["priority"], 7);
    delete(cluster, &format!("/apis/scheduling.k8s.io/v1/priorityclasses/{class}")).await;
}

//! Kinds whose definition changes while a gateway remembers how the cluster served them, and kinds
//! that can only be created.
//!
//! It is NOT where kinds come and go (`raw.rs`, `faults.rs`).

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::deploys::file;
use crate::gateway::{self, Gateway, Options};
use crate::writes::live;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// Ten times as long as a memory that sent somebody wrong may stand, and less than it is believed
/// in otherwise.
const WITHIN: Duration = Duration::from_secs(50);
const POLL: Duration = Duration::from_millis(100);

/// A definition with the versions that are told, each served or not; the last one is stored.
fn definition(plural: &str, kind: &str, versions: &[(&str, bool)]) -> String {
    let mut text = format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.served.example.org}}
spec:
  group: served.example.org
  scope: Namespaced
  names: {{plural: {plural}, kind: {kind}, listKind: {kind}List}}
  versions:
"
    );
    for (index, (name, served)) in versions.iter().enumerate() {
        let storage = index + 1 == versions.len();
        text.push_str(&format!(
            "  - name: {name}
    served: {served}
    storage: {storage}
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
    subresources:
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
"
        ));
    }
    text
}

/// Collection of such objects in a version.
fn collection(version: &str, namespace: &str, plural: &str) -> String {
    format!("/apis/served.example.org/{version}/namespaces/{namespace}/{plural}")
}

async fn made(cluster: &Cluster, namespace: &str, plural: &str, kind: &str, name: &str) {
    let object = json!({"apiVersion": "served.example.org/v1", "kind": kind,
        "metadata": {"name": name}, "spec": {"replicas": 1}});
    let (at, sent) = (collection("v1", namespace, plural), object.to_string());
    let is_made = || async {
        let admin = cluster.token("admin");
        let answer = cluster.request(Method::POST, admin, &at, &JSON, sent.clone()).await;
        matches!(answer.0, 201 | 409)
    };
    Cluster::eventually("an object of the custom kind is made", is_made).await;
}

/// A gateway that keeps no rows: what it remembers is what the cluster serves.
async fn plain() -> Gateway {
    gateway::start(Options { shared_cache: false, ..Options::default() }).await
}

/// Asks until the answer has this status.
async fn answered(gateway: &Gateway, method: Method, path: &str, body: &str, status: u16) {
    let begun = Instant::now();
    loop {
        let sent = body.as_bytes().to_vec();
        let answer = gateway.request(method.clone(), Some("admin"), path, &JSON, sent).await;
        if answer.status == status {
            return;
        }
        let code = answer.status;
        assert!(begun.elapsed() < WITHIN, "{method} {path}: {code}: {}", answer.text());
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn objects_are_found_in_the_version_of_now_when_the_remembered_one_is_gone() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("served-gone").await;
    cluster.apply(&definition("bolts", "Bolt", &[("v1", true)])).await;
    for name in ["one", "two"] {
        made(cluster, &namespace, "bolts", "Bolt", name).await;
    }
    let bolts = "bolts.served.example.org";
    let one = format!("/api/v1/_raw/{bolts}/namespace/{namespace}/name/one");
    let two = format!("/api/v1/_raw/{bolts}/namespace/{namespace}/name/two?propagation=Background");
    let scale = format!("/api/v1/scale/{bolts}/{namespace}/one");
    let asks = [
        (Method::GET, one.clone(), 200),
        (Method::DELETE, two, 204),
        (Method::GET, scale.clone(), 200),
        (Method::PUT, format!("{scale}?scaleBy=2"), 200),
        (Method::GET, format!("/api/v1/crd/{namespace}/{bolts}/object"), 200),
        (Method::GET, format!("/api/v1/crd/{namespace}/{bolts}/one"), 200),
    ];
    // Each has a gateway of its own: the first that asks again would help the others.
    let gateways = join_all(asks.iter().map(|_| plain())).await;
    join_all(gateways.iter().map(|gateway| answered(gateway, Method::GET, &one, "", 200))).await;

    cluster.apply(&definition("bolts", "Bolt", &[("v1", false), ("v2", true)])).await;
    let [old, new] = ["v1", "v2"].map(|version| collection(version, &namespace, "bolts"));
    let is_moved = || async {
        let admin = cluster.token("admin");
        let (old, new) = (cluster.get(admin, &old).await, cluster.get(admin, &new).await);
        (old.0, new.0) == (404, 200)
    };
    Cluster::eventually("the second version is served alone", is_moved).await;
    let asked = gateways.iter().zip(asks).map(|(gateway, (method, path, status))| async move {
        answered(gateway, method, &path, "", status).await;
    });
    join_all(asked).await;
    let bolt = live(cluster, &format!("{new}/one")).await.unwrap();
    assert_eq!(bolt["spec"]["replicas"], 2);
    assert_eq!(live(cluster, &format!("{new}/two")).await, None);
}

#[tokio::test]
async fn a_version_that_was_added_a_moment_ago_may_be_written() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("served-new").await;
    cluster.apply(&definition("nuts", "Nut", &[("v1", true)])).await;
    made(cluster, &namespace, "nuts", "Nut", "one").await;
    let gateway = plain().await;
    let path = format!("/api/v1/_raw/nuts.served.example.org/namespace/{namespace}/name/one");
    answered(&gateway, Method::GET, &path, "", 200).await;

    cluster.apply(&definition("nuts", "Nut", &[("v1", true), ("v2", true)])).await;
    let new = format!("{}/one", collection("v2", &namespace, "nuts"));
    let is_served = || async { live(cluster, &new).await.is_some() };
    Cluster::eventually("the second version is served", is_served).await;
    let mut nut: Value = live(cluster, &new).await.unwrap();
    nut["spec"]["replicas"] = json!(3);
    answered(&gateway, Method::PUT, &path, &nut.to_string(), 204).await;
    assert_eq!(live(cluster, &new).await.unwrap()["spec"]["replicas"], 3);
    // One that there is not is still told apart, with those that there are.
    nut["apiVersion"] = json!("served.example.org/v3");
    let sent = nut.to_string().into_bytes();
    let answer = gateway.request(Method::PUT, Some("admin"), &path, &JSON, sent).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("served.example.org/v2"), "{}", answer.text());
}

#[tokio::test]
async fn a_file_may_have_what_can_only_be_created() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("served-create").await;
    let gateway = plain().await;
    let review = "apiVersion: authentication.k8s.io/v1\nkind: SelfSubjectReview\n\
                  metadata: {name: me}\n---\n\
                  apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside}\n";
    let answer = file(&gateway, cluster.token("admin"), &namespace, review).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let beside = format!("/api/v1/namespaces/{namespace}/configmaps/beside");
    assert!(live(cluster, &beside).await.is_some());
    // There is nothing to read.
    let answer = gateway.get("admin", "/api/v1/_raw/selfsubjectreview/name/me").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("selfsubjectreview"), "{}", answer.text());
}

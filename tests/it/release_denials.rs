//! Operation by outcome where the cluster is against an act, with helm 4 (and helm 3 beside it):
//! somebody else owns a field, a right or a quota is missing.
//!
//! The table is told by `release_writes.rs`, which has the other outcomes.

use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway};
use crate::helm_charts::{Hand, options};
use crate::people::{Person, create, grant};
use crate::release_writes::{Step, good, step, tell, tell_as, with};
use crate::writes::live;

/// Helm 4 asks the API server who owns the number, helm 3 takes it.
fn conflict(major: u32) -> Vec<Step> {
    let (three, back) = (|| with(json!({"replicas": 3})), || json!({"revision": 1}));
    let forced = |mut body: Value| {
        body["forceConflicts"] = true.into();
        body
    };
    let scale = || good("scale", json!({}), "");
    let counts = |number: u32| good("replicas", number.into(), "");
    let mut steps = vec![good("install", with(json!({"message": "one"})), "deployed"), scale()];
    if major == 4 {
        steps.push(step("upgrade", three(), "failed", "conflict", "failed"));
        steps.push(step("rollback", back(), "failed", "conflict", "failed"));
        steps.extend([counts(5), good("upgrade", forced(three()), "deployed"), counts(3), scale()]);
        steps.extend([good("rollback", forced(back()), "deployed"), counts(1)]);
    } else {
        steps.extend([good("upgrade", three(), "deployed"), counts(3), scale()]);
        steps.extend([good("rollback", back(), "deployed"), counts(1)]);
    }
    // Neither of the two writes the number.
    steps.extend([scale(), good("test", json!({}), "deployed"), counts(5)]);
    steps.push(good("uninstall", json!({}), ""));
    steps
}

#[tokio::test]
async fn acts_that_the_cluster_is_against_end_as_helm_4_lists_them() {
    table(4).await;
}

pub async fn table(major: u32) {
    let gateway = gateway::start(options(major)).await;
    let conflict = tell(&gateway, major, "conflict", conflict(major));
    tokio::join!(conflict, forbidden(&gateway, major), quota(&gateway, major));
    gateway.stop().await;
}

/// Who may keep releases but not their Deployments and pods.
async fn forbidden(gateway: &Gateway, major: u32) {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace(&format!("helm{major}-forbidden")).await;
    let admin = Hand { gateway, token: cluster.token("admin"), namespace: &namespace };
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([
        {"apiGroups": [""], "verbs": ["*"], "resources": ["secrets", "configmaps", "services"]},
        {"apiGroups": ["networking.k8s.io"], "verbs": ["*"], "resources": ["ingresses"]},
    ]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let hand = Hand { token: &person.token, ..admin };
    let failed = |act, body, status| step(act, body, "failed", "forbidden", status);
    let none = vec![failed("install", with(json!({"message": "one"})), "")];
    tell_as(hand, admin, major, "none", none).await;
    admin.succeeds("install", "web", with(json!({"message": "one"}))).await;
    let steps = vec![
        failed("upgrade", with(json!({"replicas": 2})), "failed"),
        failed("rollback", json!({"revision": 1}), "failed"),
        failed("test", json!({}), "failed"),
        failed("uninstall", json!({}), "uninstalling"),
    ];
    tell_as(hand, admin, major, "web", steps).await;
}

/// No service and no pod more may be made.
async fn quota(gateway: &Gateway, major: u32) {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace(&format!("helm{major}-quota")).await;
    let hand = Hand { gateway, token: cluster.token("admin"), namespace: &namespace };
    hand.succeeds("install", "web", with(json!({"service": true, "replicas": 0}))).await;
    hand.succeeds("upgrade", "web", with(json!({"service": false, "replicas": 0}))).await;
    let hooked = with(json!({"service": false, "replicas": 0, "hook": "done"}));
    hand.succeeds("install", "hooked", hooked).await;
    let object = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"},
        "spec": {"hard": {"services": "0", "pods": "0"}},
    });
    let quotas = format!("/api/v1/namespaces/{namespace}/resourcequotas");
    create(cluster, &quotas, object).await;
    let path = format!("{quotas}/tight");
    let holds = || async {
        live(cluster, &path).await.is_some_and(|quota| quota["status"]["hard"]["services"] == "0")
    };
    Cluster::eventually("the quota is counted", holds).await;
    let failed = |act, body| step(act, body, "failed", "quota", "failed");
    tell_as(hand, hand, major, "more", vec![failed("install", with(json!({"replicas": 1})))]).await;
    let steps = vec![
        failed("upgrade", with(json!({"service": true}))),
        failed("rollback", json!({"revision": 1})),
        failed("test", json!({})),
        good("uninstall", json!({}), ""),
    ];
    tell_as(hand, hand, major, "web", steps).await;
    // Before it is deleted its pod is to run. (Of a Job whose pod is refused helm only sees that it
    // does not end: that is a timeout.)
    let steps = vec![
        step("uninstall", json!({}), "failed", "quota", "uninstalling"),
        good("uninstall", json!({"hooks": false}), ""),
    ];
    tell_as(hand, hand, major, "hooked", steps).await;
}

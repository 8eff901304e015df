//! Operation by outcome, with helm 4 and helm 3, on the real control plane: what the operation says
//! it came to, and the release afterwards as helm itself lists it.
//!
//! It is NOT where an act is refused before helm runs (`release_rules.rs`, `release_bad_input.rs`),
//! nor where our process is killed (`release_kills.rs`).

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway};
use crate::helm_charts::{BOTH, Hand, archive, hookfail, listed_by_helm, options, slow, web};
use crate::people::{Person, create, grant};
use crate::writes::live;

/// One row of the table.
struct Step {
    /// Of the API; `cancelled …` is called off when it is under way, `scale` is kubectl's.
    act: &'static str,
    body: Value,
    state: &'static str,
    /// Of the error; empty without one.
    class: &'static str,
    /// Of the release afterwards; empty: there is none.
    status: &'static str,
}

fn step(
    act: &'static str,
    body: Value,
    state: &'static str,
    class: &'static str,
    status: &'static str,
) -> Step {
    Step { act, body, state, class, status }
}

fn good(act: &'static str, body: Value, status: &'static str) -> Step {
    step(act, body, "succeeded", "", status)
}

/// The chart with these values.
fn with(values: Value) -> Value {
    json!({"chart": archive(&web()), "values": values})
}

/// The same, and waiting so long for its pods.
fn waiting(major: u32, timeout: &str, values: Value) -> Value {
    let mut body = with(values);
    body["wait"] = wait(major).into();
    body["timeout"] = timeout.into();
    body
}

/// The way to wait that this version of helm has.
fn wait(major: u32) -> &'static str {
    if major == 4 { "watcher" } else { "legacy" }
}

/// The rows of one release, one after the other, in a namespace of its own.
async fn tell(gateway: &Gateway, major: u32, story: &str, steps: Vec<Step>) {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace(&format!("helm{major}-{story}")).await;
    let hand = Hand { gateway, token: cluster.token("admin"), namespace: &namespace };
    tell_as(hand, hand, major, story, steps).await;
}

/// Done by one, and looked at by another who may see all.
async fn tell_as(hand: Hand<'_>, eye: Hand<'_>, major: u32, name: &str, steps: Vec<Step>) {
    for (number, row) in steps.into_iter().enumerate() {
        let what = format!("helm {major}, {name}, row {number}: {}", row.act);
        if row.act == "scale" {
            scale(&hand, name).await;
            continue;
        }
        if row.act == "unlock" {
            let answer = hand.act("unlock", name, &[], row.body).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        } else {
            let ended = match row.act.strip_prefix("cancelled ") {
                Some(act) => called_off(&hand, act, name, row.body).await,
                None => hand.done(row.act, name, row.body).await,
            };
            let class = ended["error"]["class"].as_str().unwrap_or_default();
            let state = ended["state"].as_str().unwrap_or_default();
            assert_eq!((state, class), (row.state, row.class), "{what}: {ended}");
            let sentence = ended["error"]["message"].as_str().unwrap_or_default();
            assert_eq!(sentence.is_empty(), class.is_empty(), "{what}: {ended}");
            assert!(ended["finishedAt"].is_string(), "{what}: {ended}");
            if row.act == "test" && state == "succeeded" {
                let log = ended["log"].to_string();
                assert!(log.contains("line 1"), "{what}: the pod's own words are in {log}");
            }
        }
        assert_eq!(eye.status(name).await, row.status, "{what}");
        eye.agrees_with_helm(major, &what).await;
    }
}

/// Begun, and cancelled when helm has made its mark.
async fn called_off(hand: &Hand<'_>, act: &str, name: &str, body: Value) -> Value {
    let operation = hand.begun(act, name, body).await;
    let cluster = cluster::shared().await;
    match act {
        "test" => {
            let pod = format!("/api/v1/namespaces/{}/pods/{name}-test", hand.namespace);
            let is_there = || async { live(cluster, &pod).await.is_some() };
            Cluster::eventually("the pod of the test is there", is_there).await;
        }
        "uninstall" => hand.until(name, "uninstalling").await,
        _ => hand.until(name, "pending-").await,
    }
    let id = operation["id"].as_str().unwrap();
    let path = format!("operation/{}/{id}", hand.namespace);
    let answer = hand.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    hand.ended(&operation).await
}

/// By hand, which makes kubectl the owner of the number.
async fn scale(hand: &Hand<'_>, name: &str) {
    let cluster = cluster::shared().await;
    let mut command = tokio::process::Command::from(cluster.kubectl_command("admin"));
    let deployment = format!("deployment/{name}");
    command.args(["scale", "-n", hand.namespace, &deployment, "--replicas", "5"]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn success() -> Vec<Step> {
    vec![
        good("install", with(json!({"message": "one"})), "deployed"),
        good("upgrade", with(json!({"message": "two"})), "deployed"),
        good("rollback", json!({"revision": 1}), "deployed"),
        good("test", json!({}), "deployed"),
        good("uninstall", json!({"keepHistory": true}), "uninstalled"),
        good("uninstall", json!({}), ""),
    ]
}

/// Helm 4 asks the API server who owns the number, helm 3 takes it.
fn conflict(major: u32) -> Vec<Step> {
    let three = || with(json!({"replicas": 3}));
    let mut forced = three();
    forced["forceConflicts"] = true.into();
    let install = good("install", with(json!({"message": "one"})), "deployed");
    let mut steps = vec![install, good("scale", json!({}), "")];
    if major == 4 {
        steps.push(step("upgrade", three(), "failed", "conflict", "failed"));
        steps.push(step("rollback", json!({"revision": 1}), "failed", "conflict", "failed"));
        steps.push(good("upgrade", forced, "deployed"));
    } else {
        steps.push(good("upgrade", three(), "deployed"));
        steps.push(good("scale", json!({}), ""));
        steps.push(good("rollback", json!({"revision": 1}), "deployed"));
    }
    steps
}

/// Helm leaves a rollback whose hook failed pending for ever, and an uninstall half done.
fn hooks() -> Vec<Step> {
    let values = |hook: &str| with(json!({"hook": hook, "test": "fail"}));
    let failed = |act, body, status| step(act, body, "failed", "hook-failed", status);
    vec![
        failed("install", values("fail"), "failed"),
        good("upgrade", values("done"), "deployed"),
        failed("upgrade", values("fail"), "failed"),
        failed("rollback", json!({"revision": 3}), "pending-rollback"),
        good("unlock", json!({"confirm": false}), "failed"),
        step("test", json!({}), "failed", "test-failed", "failed"),
        failed("uninstall", json!({}), "uninstalling"),
        good("uninstall", json!({"hooks": false}), ""),
    ]
}

fn timeouts(major: u32) -> Vec<Step> {
    let body = |message: &str| {
        let mut values = json!({"fate": "pending", "test": "pending", "hold": true});
        values["message"] = message.into();
        waiting(major, "1s", values)
    };
    let back = json!({"revision": 1, "wait": wait(major), "timeout": "1s"});
    let failed = |act, body, status| step(act, body, "failed", "timeout", status);
    vec![
        failed("install", body("one"), "failed"),
        failed("upgrade", body("two"), "failed"),
        failed("rollback", back, "failed"),
        step("test", json!({"timeout": "1s"}), "failed", "test-failed", "failed"),
        failed("uninstall", json!({"wait": wait(major), "timeout": "1s"}), ""),
    ]
}

/// A rollback and an uninstall do not heed a signal: helm leaves them as they were.
fn cancels(major: u32) -> Vec<Step> {
    let body = |message: &str| {
        let mut values = json!({"fate": "pending", "test": "pending", "hold": true});
        values["message"] = message.into();
        waiting(major, "60s", values)
    };
    let back = json!({"revision": 1, "wait": wait(major), "timeout": "60s"});
    let gone = json!({"wait": wait(major), "timeout": "60s"});
    let off = |act, body, status| step(act, body, "cancelled", "cancelled", status);
    vec![
        off("cancelled install", body("one"), "failed"),
        off("cancelled upgrade", body("two"), "failed"),
        off("cancelled rollback", back, "pending-rollback"),
        good("unlock", json!({"confirm": false}), "failed"),
        off("cancelled test", json!({"timeout": "60s"}), "failed"),
        off("cancelled uninstall", gone, "uninstalling"),
    ]
}

#[tokio::test]
async fn acts_end_as_they_are_said_to_and_as_helm_4_lists_them() {
    table(4).await;
}

#[tokio::test]
async fn acts_end_as_they_are_said_to_and_as_helm_3_lists_them() {
    table(3).await;
}

async fn table(major: u32) {
    let gateway = gateway::start(options(major)).await;
    let stories = [
        ("success", success()),
        ("conflict", conflict(major)),
        ("hooks", hooks()),
        ("timeouts", timeouts(major)),
        ("cancels", cancels(major)),
    ];
    let told = stories.map(|(story, steps)| tell(&gateway, major, story, steps));
    tokio::join!(join_all(told), forbidden(&gateway, major), quota(&gateway, major));
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
}

#[tokio::test]
async fn what_waits_or_fails_may_take_itself_back_and_nothing_of_it_stays() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let gateway = gateway::start(options(major)).await;
        let namespace = cluster.namespace(&format!("helm{major}-back")).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let mut body = json!({"chart": archive(&slow()), "rollbackOnFailure": true});
        body["timeout"] = "1s".into();
        let ended = hand.done("install", "slow", body).await;
        assert_eq!(ended["state"], "failed", "{ended}");
        assert_eq!(ended["error"]["class"], "timeout", "{ended}");
        assert_eq!(hand.status("slow").await, "");

        hand.succeeds("install", "web", with(json!({"message": "one"}))).await;
        // The way back waits as long, for pods to end.
        let mut body = waiting(major, "4s", json!({"message": "two", "fate": "pending"}));
        body["rollbackOnFailure"] = true.into();
        let ended = hand.done("upgrade", "web", body).await;
        assert_eq!(ended["error"]["class"], "timeout", "{ended}");
        let rows = listed_by_helm(major, hand.token, &namespace).await;
        assert_eq!(rows["web"][..2], ["3".to_owned(), "deployed".to_owned()]);
        hand.agrees_with_helm(major, "taken back").await;

        let body = json!({"chart": archive(&hookfail()), "rollbackOnFailure": true});
        let ended = hand.done("install", "hooked", body).await;
        assert_eq!(ended["error"]["class"], "hook-failed", "{ended}");
        assert_eq!(hand.status("hooked").await, "");
        gateway.stop().await;
    }))
    .await;
}

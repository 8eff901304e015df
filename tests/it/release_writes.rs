//! Operation by outcome, with helm 4 and helm 3, on the real control plane: what the operation says
//! it came to, and the release afterwards as helm itself lists it. Here are the ends that acts have
//! by themselves or by who calls them off; also how such a table is told.
//!
//! It is NOT where the cluster is against an act (`release_denials.rs`), where one is refused
//! before helm runs (`release_rules.rs`, `release_bad_input.rs`), nor where our process is killed
//! (`release_kills.rs`, `release_killed.rs`).

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway};
use crate::helm_charts::{Hand, archive, options, web};
use crate::writes::live;

/// One row of the table.
pub struct Step {
    /// Of the API; `cancelled …` is called off when it is under way, `scale` is kubectl's, and
    /// `replicas` is no act, but looks whether the Deployment asks for so many.
    act: &'static str,
    body: Value,
    state: &'static str,
    /// Of the error; empty without one.
    class: &'static str,
    /// Of the release afterwards; empty: there is none.
    status: &'static str,
}

pub fn step(
    act: &'static str,
    body: Value,
    state: &'static str,
    class: &'static str,
    status: &'static str,
) -> Step {
    Step { act, body, state, class, status }
}

pub fn good(act: &'static str, body: Value, status: &'static str) -> Step {
    step(act, body, "succeeded", "", status)
}

/// The chart with these values.
pub fn with(values: Value) -> Value {
    json!({"chart": archive(&web()), "values": values})
}

/// The same, and waiting so long for its pods.
pub fn waiting(major: u32, timeout: &str, values: Value) -> Value {
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
pub async fn tell(gateway: &Gateway, major: u32, story: &str, steps: Vec<Step>) {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace(&format!("helm{major}-{story}")).await;
    let hand = Hand { gateway, token: cluster.token("admin"), namespace: &namespace };
    tell_as(hand, hand, major, story, steps).await;
}

/// Done by one, and looked at by another who may see all.
pub async fn tell_as(hand: Hand<'_>, eye: Hand<'_>, major: u32, name: &str, steps: Vec<Step>) {
    for (number, row) in steps.into_iter().enumerate() {
        let what = format!("helm {major}, {name}, row {number}: {}", row.act);
        if row.act == "scale" {
            scale(&hand, name).await;
            continue;
        }
        if row.act == "replicas" {
            let path = format!("/apis/apps/v1/namespaces/{}/deployments/{name}", hand.namespace);
            let deployment = live(cluster::shared().await, &path).await.unwrap();
            assert_eq!(deployment["spec"]["replicas"], row.body, "{what}");
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
            let engine = if state == "succeeded" { "engine done" } else { "engine failed" };
            assert_eq!(way(&ended), ["lock done", engine, "release done", "record done"], "{what}");
            if row.act == "test" && state == "succeeded" {
                let log = ended["log"].to_string();
                assert!(log.contains("line 1"), "{what}: the pod's own words are in {log}");
            }
        }
        assert_eq!(eye.status(name).await, row.status, "{what}");
        eye.agrees_with_helm(major, &what).await;
    }
}

/// The steps of an operation, and what came of each.
fn way(operation: &Value) -> Vec<String> {
    let steps = operation["steps"].as_array().unwrap_or_else(|| panic!("{operation}")).iter();
    steps.map(|step| format!("{} {}", step["name"], step["state"]).replace('"', "")).collect()
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

pub async fn table(major: u32) {
    let gateway = gateway::start(options(major)).await;
    let stories = [
        ("success", success()),
        ("hooks", hooks()),
        ("timeouts", timeouts(major)),
        ("cancels", cancels(major)),
    ];
    join_all(stories.map(|(story, steps)| tell(&gateway, major, story, steps))).await;
    gateway.stop().await;
}

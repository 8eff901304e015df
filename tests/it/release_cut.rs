//! The real binary taken away from its operations with helm 4 and helm 3: killed (-9) together with
//! helm and the guard, and told to end (SIGTERM), which cancels what does not end by itself. The
//! next binary tells what became of them, as helm itself does, and they are brought to their ends.
//!
//! It is NOT where the binary alone is killed (`release_killed.rs`, `release_kills.rs`).

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::lifecycle::get;
use crate::release_killed::{End, Release, Story, TIME, rollback, tell, with};
use crate::release_kills::{processes, settings, started};
use crate::writes::live;

/// Nobody marks the release: helm is gone in the midst of its hook.
fn killed() -> Vec<Story> {
    let (gone, done) = (json!({"hooks": "false"}), with(json!({"hook": "done"})));
    vec![
        Story {
            act: "install",
            values: &[],
            body: with(json!({"hook": "pending"})),
            pod: "web-hook",
            status: "pending-install",
            remedy: Some(("uninstall", None)),
            then: vec![("uninstall", gone, ""), ("install", done, "deployed")],
        },
        Story {
            act: "upgrade",
            values: &["message=one"],
            body: with(json!({"hook": "pending"})),
            pod: "web-hook",
            status: "pending-upgrade",
            remedy: Some(("rollback", Some(1))),
            then: vec![("rollback", json!({"revision": 1}), "deployed")],
        },
    ]
}

/// Helm heeds the signal and marks the release, but not in a rollback.
fn told() -> Vec<Story> {
    let mut stories = killed();
    for story in &mut stories {
        story.status = "failed";
        story.remedy = None;
        story.then = vec![("upgrade", with(json!({"hook": "done"})), "deployed")];
    }
    stories.push(rollback());
    stories
}

#[tokio::test]
async fn a_release_whose_helm_is_killed_with_the_gateway_is_recovered_with_helm_4() {
    tell(End::KilledWithHelm, 4, killed()).await;
}

#[tokio::test]
async fn a_release_whose_helm_is_killed_with_the_gateway_is_recovered_with_helm_3() {
    tell(End::KilledWithHelm, 3, killed()).await;
}

#[tokio::test]
async fn what_hangs_as_the_gateway_is_told_to_end_is_cancelled_with_helm_4() {
    tell(End::Told, 4, told()).await;
}

#[tokio::test]
async fn what_hangs_as_the_gateway_is_told_to_end_is_cancelled_with_helm_3() {
    tell(End::Told, 3, told()).await;
}

#[tokio::test]
async fn what_ends_by_itself_while_the_gateway_drains_is_waited_for() {
    let cluster = cluster::shared().await;
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The grace is longer than the test waits: to sit it out is an error. No heartbeat is too late.
    let patient = |setting: String| {
        let setting = setting.replace("--drain-grace=2", "--drain-grace=300");
        setting.replace("--operation-silence=5", "--operation-silence=60")
    };
    let settings: Vec<_> = settings(4, cluster).into_iter().map(patient).collect();
    let release = Release::made(4, "uninstall", &["hold=true"]).await;
    let other = started(elsewhere.path(), &settings).await;
    let mut binary = started(folder.path(), &settings).await;
    let body = json!({"wait": "watcher", "timeout": TIME});
    let operation = release.begun(&binary, "uninstall", &body).await;
    let map = format!("/api/v1/namespaces/{}/configmaps/web", release.namespace);
    let is_held = || async {
        let map = live(cluster, &map).await.expect("its finalizer keeps it");
        map["metadata"]["deletionTimestamp"].is_string()
    };
    Cluster::eventually("helm waits for the ConfigMap to go", is_held).await;

    binary.terminate();
    let url = format!("{}/livez", binary.https);
    let is_closed = || async { get(&binary.tls, &url, &[]).await.is_err() };
    Cluster::eventually("it takes nothing any more", is_closed).await;
    assert_eq!(release.operation(&other, &operation).await["state"], "elsewhere");
    assert!(binary.child.try_wait().unwrap().is_none(), "it waits for helm");

    let headers = [("content-type", "application/merge-patch+json")];
    let body = r#"{"metadata": {"finalizers": null}}"#;
    let admin = cluster.token("admin");
    let (status, _, answer) = cluster.request(Method::PATCH, admin, &map, &headers, body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(binary.exit_code().await, Some(0));
    let left = processes(folder.path());
    assert!(left.is_empty(), "it left {left:?}");
    assert_eq!(release.ended(&other, &operation).await["state"], "succeeded");
    assert_eq!(release.agreed(&other).await, Value::Null, "there is no such release");
}

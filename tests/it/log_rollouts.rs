//! Followed workloads whose pods are not all alike: in a rollout the new ones have other containers.
//! And logs that cannot be read when they are first asked for: of containers that have not begun,
//! that have not run before, and of pods of which nobody can say which they are.
//!
//! It is NOT where pods that come and go are tested (`log_streams.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::certificate::trusting;
use crate::cluster;
use crate::gateway::{self, Options};
use crate::log_follow::in_front_of;
use crate::log_streams::{Stream, workload};
use crate::logs::answering;
use crate::writes::patch;

#[tokio::test]
async fn who_follows_a_deployment_gets_the_containers_that_a_rollout_brings() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-rollout").await;
    workload(cluster, &namespace, "Deployment", 1, 1).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/follow/deployment/{namespace}/web");
    let mut stream = Stream::of(&gateway, cluster.token("admin"), &path).await;
    for (container, next) in [("main", Some("app")), ("app", None)] {
        loop {
            let event = stream.next().await;
            if event.name == "pods" {
                assert_eq!(event.data["failed"], json!([]), "{event:?}");
                continue;
            }
            assert_eq!(event.name, "lines", "{event:?}");
            if event.data.as_array().unwrap().iter().any(|line| line["container"] == container) {
                break;
            }
        }
        let Some(next) = next else { break };
        let containers = json!([{"name": next, "image": "example.invalid/main"}]);
        let spec = json!({"template": {"spec": {"containers": containers}}});
        let deployment = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
        patch(cluster, &deployment, json!({"spec": spec})).await;
    }
}

/// What is told of the followed pod `web` to its end: the lines, and the last word about pods.
async fn followed(
    query: &str,
    answers: impl Fn(&str) -> (u16, String) + Send + Sync + 'static,
) -> (Vec<String>, Value) {
    let server = answering(Arc::new(move |head: &str| {
        let is_about_it = head.contains("/pods/web");
        let allowed = || (200, json!({"status": {"allowed": true}}).to_string());
        Some(if is_about_it { answers(head) } else { allowed() })
    }));
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(server.await, folder.path()).await;
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let url = format!("https://{}/api/v1/log/follow/pod/shop/web?{query}", running.https);
    let mut stream = Stream::open(tls, &url, "anything", &[]).await;
    let (mut lines, mut pods) = (Vec::new(), Value::Null);
    loop {
        let event = stream.next().await;
        match event.name.as_str() {
            "end" => {
                assert_eq!(event.data["reason"], "completed", "{event:?}");
                return (lines, pods);
            }
            "pods" => pods = event.data,
            _ => lines.extend(event.contents()),
        }
    }
}

/// The pod `web`, whose only container has not begun.
fn web(uid: &str, phase: &str) -> (u16, String) {
    let pod = json!({
        "kind": "Pod", "metadata": {"name": "web", "uid": uid},
        "spec": {"containers": [{"name": "main"}]}, "status": {"phase": phase},
    });
    (200, pod.to_string())
}

fn is_log(head: &str) -> bool {
    head.contains("/pods/web/log?")
}

/// The pod, whose log is answered so by how often it has been opened before; with the second time
/// the pod has ended.
fn opened_twice(
    log: impl Fn(usize, &str) -> (u16, String) + Send + Sync + 'static,
) -> impl Fn(&str) -> (u16, String) + Send + Sync + 'static {
    let reads = AtomicUsize::default();
    move |head: &str| match is_log(head) {
        true => log(reads.fetch_add(1, Ordering::Relaxed), head),
        false if reads.load(Ordering::Relaxed) > 1 => web("first", "Succeeded"),
        false => web("first", "Pending"),
    }
}

/// What the API server passes on of a kubelet that has no such log.
fn refused(words: &str) -> (u16, String) {
    let status = json!({"kind": "Status", "status": "Failure", "message": words, "code": 400});
    (400, status.to_string())
}

#[tokio::test]
async fn a_container_that_starts_later_is_followed_from_its_first_line() {
    let waiting = "container \"main\" in pod \"web\" is waiting to start: ContainerCreating";
    // An empty log is what the API server has of a pod without a node.
    for first in [refused(waiting), (200, String::new())] {
        let log = move |before: usize, head: &str| {
            let line = |second: u32, text: &str| format!("2026-01-02T03:04:0{second}Z {text}\n");
            let last = line(3, "three");
            match before {
                0 => first.clone(),
                _ if head.contains("tailLines=1") => (200, last),
                _ => (200, [line(1, "one"), line(2, "two"), last].concat()),
            }
        };
        let (lines, _) = followed("tailLines=1", opened_twice(log)).await;
        assert_eq!(lines, ["one", "two", "three"]);
    }
}

#[tokio::test]
async fn who_wants_new_lines_gets_those_that_come_while_a_quiet_log_is_opened_again() {
    for (query, first) in [("tailLines=0", 200), ("sinceSeconds=5", 503)] {
        let log = move |before: usize, head: &str| {
            let is_late = head.contains("tailLines") || head.contains("sinceSeconds");
            match before {
                0 => (first, String::new()),
                _ if is_late || !head.contains("sinceTime=") => (200, String::new()),
                _ => (200, "2026-01-02T03:04:05Z one\n".to_owned()),
            }
        };
        let (lines, _) = followed(query, opened_twice(log)).await;
        assert_eq!(lines, ["one"], "{query}");
    }
}

#[tokio::test]
async fn who_asks_for_a_run_before_where_there_was_none_is_told() {
    let none = "previous terminated container \"main\" in pod \"web\" not found";
    let answers = opened_twice(move |_, _| refused(none));
    let (lines, pods) = followed("previous=true", answers).await;
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(pods["failed"][0]["reason"], "failed", "{pods}");
    assert_eq!(pods["failed"][0]["message"], none, "{pods}");
}

#[tokio::test]
async fn a_log_is_told_only_once_it_is_known_whose_it_is() {
    let (reads, looks) = (AtomicUsize::default(), AtomicUsize::default());
    let answers = move |head: &str| match reads.load(Ordering::Relaxed) {
        number if is_log(head) => {
            reads.fetch_add(1, Ordering::Relaxed);
            (200, format!("2026-01-02T03:04:0{number}Z line {number}\n"))
        }
        0 | 1 => web("first", "Running"),
        // Another pod has taken the name, and the first who asks for it is not answered.
        _ if looks.fetch_add(1, Ordering::Relaxed) == 0 => (503, String::new()),
        _ => web("next", "Running"),
    };
    let (lines, _) = followed("", answers).await;
    assert_eq!(lines, ["line 0"]);
}

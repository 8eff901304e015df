//! Cordon, uncordon and drain of a node, as the caller, with kubectl's rules about which pods may
//! go. A drain evicts, so that disruption budgets are kept; what they refuse is asked again until
//! the time is over, and then named with the API server's own words.
//!
//! It ends with its client: a drain that nobody waits for evicts no more.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::body::{self, JSON, MERGE, get, send};
use super::error::ApiError;
use super::related::known;
use super::target::{Target, encoded};
use super::{Caller, Gateway, Shared};
use crate::upstream::{Failure, User};

/// The contract's default, and the longest that a request may take.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(600));
/// Evictions under way at once: a node has a hundred pods, and the API server other work.
const AT_ONCE: usize = 16;
/// Between two attempts at a pod that a budget holds, as kubectl waits.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks whether an evicted pod is gone.
const LOOK: Duration = Duration::from_secs(1);
/// Pods of one node that are looked at; Kubernetes is built for 110.
const PODS: usize = 2_000;
/// Pods that a message names.
const NAMED: usize = 10;

/// The contract's `NodeDrainSpec`; `timeout` is in nanoseconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    force: bool,
    timeout: u64,
    grace_period_seconds: i64,
    ignore_all_daemon_sets: bool,
    delete_empty_dir_data: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            force: true,
            timeout: 0,
            grace_period_seconds: -1,
            ignore_all_daemon_sets: true,
            delete_empty_dir_data: true,
        }
    }
}

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Evict,
    /// It does not stand in the way: of a daemon set, a mirror of a file.
    Skip,
    /// kubectl's own reason.
    Refuse(&'static str),
}

/// A pod that is evicted.
struct Pod {
    path: String,
    shown: String,
    uid: String,
}

/// `PUT /api/v1/node/{name}/cordon` and `…/uncordon`: 204, whatever it was before.
pub async fn cordon(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let kind = known("node")?;
    let path = request.uri().path();
    let wanted = !path.ends_with("/uncordon");
    let target = Target::of(path, kind, 1)?;
    let node = set(&gateway, &user, &target.path(&kind.resource), wanted).await?;
    let answer = StatusCode::NO_CONTENT.into_response();
    Ok(body::wrote(&gateway, &user, (kind, ""), &node, answer))
}

/// `PUT /api/v1/node/{name}/drain`: 202 when all pods that may go are gone.
pub async fn drain(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let kind = known("node")?;
    let target = Target::of(request.uri().path(), kind, 1)?;
    let (head, body) = request.into_parts();
    let spec: Spec = body::read(&gateway, &head.headers, body).await?;
    let time = match Duration::from_nanos(spec.timeout) {
        Duration::ZERO => TIMEOUT.0,
        asked => asked.min(TIMEOUT.1),
    };
    let until = Instant::now() + time;
    let node = set(&gateway, &user, &target.path(&kind.resource), true).await?;
    let pods = pods(&gateway, &user, &target.name, &spec).await?;
    let all = pods.len();
    let (gateway_of, user_of, spec) = (&*gateway, &user, &spec);
    let outcomes = futures::stream::iter(pods)
        .map(|pod| async move { evict(gateway_of, user_of, &pod, spec, until).await })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Result<(), String>>>();
    let left: Vec<String> = outcomes.await.into_iter().filter_map(Result::err).collect();
    if !left.is_empty() {
        let (gone, all) = ((all - left.len()).to_string(), all.to_string());
        let left = named(left.into_iter());
        let args = [("gone", gone.as_str()), ("all", all.as_str()), ("left", left.as_str())];
        return Err(ApiError::with_status(StatusCode::CONFLICT, "error-drain-left", &args));
    }
    let answer = StatusCode::ACCEPTED.into_response();
    Ok(body::wrote(&gateway, &user, (kind, ""), &node, answer))
}

async fn set(
    gateway: &Gateway,
    user: &User,
    path: &str,
    unschedulable: bool,
) -> Result<Value, Failure> {
    let patch = Bytes::from(json!({ "spec": { "unschedulable": unschedulable } }).to_string());
    send(gateway, user, Method::PATCH, path, MERGE, patch).await
}

/// The pods to evict; an error that names those which must not go.
async fn pods(
    gateway: &Gateway,
    user: &User,
    node: &str,
    spec: &Spec,
) -> Result<Vec<Pod>, ApiError> {
    let selector = format!("spec.nodeName%3D{}", encoded(node));
    let path = format!("/api/v1/pods?fieldSelector={selector}&limit={PODS}");
    let list = get(gateway, user, &path).await?;
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut evicted, mut refused) = (Vec::new(), Vec::new());
    for pod in &items {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let shown = format!("{namespace}/{name}");
        match fate(pod, spec) {
            Fate::Skip => {}
            Fate::Refuse(why) => refused.push(format!("{shown} ({why})")),
            Fate::Evict => evicted.push(Pod {
                path: format!("/api/v1/namespaces/{}/pods/{}", encoded(namespace), encoded(name)),
                shown,
                uid: text(pod, "/metadata/uid").to_owned(),
            }),
        }
    }
    if refused.is_empty() {
        return Ok(evicted);
    }
    let refused = named(refused.into_iter());
    let args = [("pods", refused.as_str())];
    Err(ApiError::with_status(StatusCode::CONFLICT, "error-drain-refused", &args))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// kubectl's filters (k8s.io/kubectl/pkg/drain/filters.go).
fn fate(pod: &Value, spec: &Spec) -> Fate {
    let annotations = pod.pointer("/metadata/annotations");
    if annotations.is_some_and(|all| all.get("kubernetes.io/config.mirror").is_some()) {
        return Fate::Skip;
    }
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return Fate::Evict;
    }
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    let controller = owners.find(|owner| owner.get("controller") == Some(&Value::Bool(true)));
    match controller.map(|owner| text(owner, "/kind")) {
        Some("DaemonSet") if spec.ignore_all_daemon_sets => return Fate::Skip,
        Some("DaemonSet") => return Fate::Refuse("of a daemon set; ignoreAllDaemonSets skips it"),
        None if !spec.force => return Fate::Refuse("without a controller; force evicts it"),
        _ => {}
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    if !spec.delete_empty_dir_data && { volumes }.any(|volume| volume.get("emptyDir").is_some()) {
        return Fate::Refuse("with data in an emptyDir; deleteEmptyDirData gives it up");
    }
    Fate::Evict
}

/// Evicts a pod and waits until it is gone; the error says why it is not.
async fn evict(
    gateway: &Gateway,
    user: &User,
    pod: &Pod,
    spec: &Spec,
    until: Instant,
) -> Result<(), String> {
    let (namespace, name) = pod.shown.split_once('/').unwrap_or_default();
    let mut eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "namespace": namespace, "name": name },
        "deleteOptions": { "preconditions": { "uid": pod.uid } },
    });
    if spec.grace_period_seconds >= 0 {
        eviction["deleteOptions"]["gracePeriodSeconds"] = spec.grace_period_seconds.into();
    }
    let (path, eviction) = (format!("{}/eviction", pod.path), Bytes::from(eviction.to_string()));
    loop {
        match send(gateway, user, Method::POST, &path, JSON, eviction.clone()).await {
            Ok(_) => break,
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => return Ok(()),
            // Another pod of that name: this one is gone.
            Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => break,
            Err(failure) if failure.code() == Some(StatusCode::TOO_MANY_REQUESTS) => {
                if Instant::now() + AGAIN > until {
                    return Err(format!("{}: {failure}", pod.shown));
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(failure) => return Err(format!("{}: {failure}", pod.shown)),
        }
    }
    loop {
        match get(gateway, user, &pod.path).await {
            Ok(now) if text(&now, "/metadata/uid") == pod.uid => {}
            Ok(_) => return Ok(()),
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => return Ok(()),
            Err(failure) => return Err(format!("{}: {failure}", pod.shown)),
        }
        if Instant::now() + LOOK > until {
            return Err(format!("{}: still terminating", pod.shown));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn named(mut all: impl ExactSizeIterator<Item = String>) -> String {
    let count = all.len();
    let shown: Vec<String> = all.by_ref().take(NAMED).collect();
    match count.saturating_sub(NAMED) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(more: Value) -> Value {
        let owner = json!([{"kind": "ReplicaSet", "controller": true}]);
        let mut pod =
            json!({"metadata": {"ownerReferences": owner}, "status": {"phase": "Running"}});
        for (pointer, value) in more.as_object().unwrap() {
            pod[pointer.as_str()] = value.clone();
        }
        pod
    }

    #[test]
    fn pods_go_by_kubectls_rules() {
        let (lax, strict) = (
            Spec::default(),
            Spec {
                force: false,
                ignore_all_daemon_sets: false,
                delete_empty_dir_data: false,
                ..Spec::default()
            },
        );
        let bare = json!({"metadata": {}});
        let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
        let daemon =
            json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "controller": true}]}});
        let scratch = json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}});
        let ended = json!({"metadata": {}, "status": {"phase": "Succeeded"}});
        let refused = |fate: Fate| matches!(fate, Fate::Refuse(_));
        for (object, easy) in [
            (json!({}), Fate::Evict),
            (bare.clone(), Fate::Evict),
            (mirror, Fate::Skip),
            (daemon.clone(), Fate::Skip),
            (scratch.clone(), Fate::Evict),
        ] {
            assert_eq!(fate(&pod(object.clone()), &lax), easy, "{object}");
        }
        for object in [bare, daemon, scratch] {
            assert!(refused(fate(&pod(object.clone()), &strict)), "{object}");
        }
        assert_eq!(fate(&pod(ended), &strict), Fate::Evict);
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let all = |count: usize| {
            named((0..count).map(|at| at.to_string()).collect::<Vec<_>>().into_iter())
        };
        assert_eq!(all(2), "0; 1");
        assert!(all(13).ends_with("9; and 3 more"));
    }
}

//! Cordon, uncordon and drain of a node, as the caller, with kubectl's rules about which pods may
//! go. A drain evicts, so that disruption budgets are kept; what they refuse is asked again until
//! the time is over, and then named with the API server's own words.
//!
//! It ends with its client: a drain that nobody waits for evicts no more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::body::{self, JSON, MERGE, get, send};
use super::error::ApiError;
use super::related::known;
use super::target::{Target, encoded};
use super::written::Wrote;
use super::{Caller, Gateway, Shared};
use crate::i18n::Locale;
use crate::upstream::{Failure, User};

/// The contract's default, and the longest that a request may take.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(600));
/// Evictions under way at once: a node has a hundred pods, and the API server other work.
const AT_ONCE: usize = 16;
/// Between two attempts at a pod that a budget holds, as kubectl waits.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks whether an evicted pod is gone.
const LOOK: Duration = Duration::from_secs(1);
/// Pods of the node that are asked for at once; Kubernetes is built for 110 a node.
const PAGE: usize = 250;
/// Pods that a message names.
const NAMED: usize = 10;

/// The contract's `NodeDrainSpec`; `timeout` is in nanoseconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
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

/// A drain at work; it ends when it is dropped.
struct Run {
    gateway: Arc<Gateway>,
    user: User,
    spec: Spec,
    until: Instant,
    turns: Semaphore,
    /// Where progress is told, if somebody listens.
    tell: Option<mpsc::Sender<News>>,
}

/// Name and data of an event.
type News = (&'static str, Value);

/// `PUT /api/v1/node/{name}/drain`: 202 when all pods that may go are gone. With
/// `Accept: text/event-stream` the same with its progress: `cordoned`, then for each pod
/// `evicting`, `waiting` (with the reason), `evicted` or `failed`, and at last `done`.
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
    let locale = gateway.locale_of(&head.headers);
    let node = set(&gateway, &user, &target.path(&kind.resource), true).await?;
    gateway.writes.note(&user, &Wrote::of(kind, "", &node));
    let pods = pods(&gateway, &user, &target.name, &spec).await?;
    let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let live = accept.is_some_and(|accept| accept.contains("text/event-stream"));
    let (tell, heard) = mpsc::channel(AT_ONCE);
    let turns = Semaphore::new(AT_ONCE);
    let tell = live.then_some(tell);
    let run = Run { gateway: gateway.clone(), user: user.clone(), spec, until, turns, tell };
    if live {
        return Ok(progress(run, pods, heard, locale));
    }
    run.all(&pods).await?;
    Ok(body::wrote(&gateway, &user, (kind, ""), &node, StatusCode::ACCEPTED.into_response()))
}

/// The run as a stream of events, which does the work while it is read.
fn progress(run: Run, pods: Vec<Pod>, mut heard: mpsc::Receiver<News>, locale: Locale) -> Response {
    let work = async move {
        run.tell("cordoned", json!({ "pods": pods.len() })).await;
        let done = match run.all(&pods).await {
            Ok(()) => json!({ "status": 202, "message": "" }),
            Err(error) => json!({ "status": error.status.as_u16(), "message": error.text(locale) }),
        };
        run.tell("done", done).await;
    };
    let news = futures::stream::poll_fn(move |context| heard.poll_recv(context)).map(Some);
    let work = futures::stream::once(work).map(|()| None);
    let events = futures::stream::select(news, work).filter_map(|news: Option<News>| {
        let event = news.map(|(name, data)| {
            Ok::<_, std::convert::Infallible>(Event::default().event(name).data(data.to_string()))
        });
        std::future::ready(event)
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    // Proxies such as nginx would hold it back until its end.
    let name = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(name, HeaderValue::from_static("no"));
    response
}

impl Run {
    async fn tell(&self, name: &'static str, data: Value) {
        if let Some(tell) = &self.tell {
            // Nobody listens any more: the stream is being dropped, and this with it.
            let _ = tell.send((name, data)).await;
        }
    }

    /// Evicts all of them side by side; the error names those that are left.
    async fn all(&self, pods: &[Pod]) -> Result<(), ApiError> {
        let outcomes = join_all(pods.iter().map(|pod| self.evicted(pod))).await;
        let left: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
        if left.is_empty() {
            return Ok(());
        }
        let (gone, all) = ((pods.len() - left.len()).to_string(), pods.len().to_string());
        let left = named(left.into_iter());
        let args = [("gone", gone.as_str()), ("all", all.as_str()), ("left", left.as_str())];
        Err(ApiError::with_status(StatusCode::CONFLICT, "error-drain-left", &args))
    }

    /// Evicts a pod and waits until it is gone; the error says why it is not.
    async fn evicted(&self, pod: &Pod) -> Result<(), String> {
        let reason = Mutex::new("the time was over before its turn".to_owned());
        let known = || reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let outcome = match timeout_at(self.until, self.evict(pod, &reason)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(known()),
        };
        let about = |more: Value| {
            let mut data = json!({ "pod": pod.shown });
            if !more.is_null() {
                data["reason"] = more;
            }
            data
        };
        match outcome {
            Ok(()) => {
                self.tell("evicted", about(Value::Null)).await;
                Ok(())
            }
            Err(why) => {
                self.tell("failed", about(why.as_str().into())).await;
                Err(format!("{}: {why}", pod.shown))
            }
        }
    }

    /// One request in its turn.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Bytes>,
    ) -> Result<Value, Failure> {
        let _turn = self.turns.acquire().await;
        match body {
            Some(body) => send(&self.gateway, &self.user, method, path, JSON, body.clone()).await,
            None => get(&self.gateway, &self.user, path).await,
        }
    }

    async fn evict(&self, pod: &Pod, reason: &Mutex<String>) -> Result<(), String> {
        let (namespace, name) = pod.shown.split_once('/').unwrap_or_default();
        let mut eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "namespace": namespace, "name": name },
            "deleteOptions": { "preconditions": { "uid": pod.uid } },
        });
        if self.spec.grace_period_seconds >= 0 {
            eviction["deleteOptions"]["gracePeriodSeconds"] = self.spec.grace_period_seconds.into();
        }
        let wait = |why: String| *reason.lock().unwrap_or_else(PoisonError::into_inner) = why;
        let (path, eviction) =
            (format!("{}/eviction", pod.path), Bytes::from(eviction.to_string()));
        self.tell("evicting", json!({ "pod": pod.shown })).await;
        loop {
            match self.ask(Method::POST, &path, Some(&eviction)).await {
                // Two budgets for one pod are refused by a status with code 201.
                Ok(said) if text(&said, "/status") == "Failure" => {
                    return Err(text(&said, "/message").to_owned());
                }
                Ok(_) => break,
                Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => return Ok(()),
                // Another pod of that name: this one is gone.
                Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => break,
                Err(failure) if is_passing(&failure) => {
                    let why = words(&failure);
                    self.tell("waiting", json!({ "pod": pod.shown, "reason": why })).await;
                    wait(why);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(failure) => return Err(words(&failure)),
            }
        }
        wait("still terminating".to_owned());
        loop {
            match self.ask(Method::GET, &pod.path, None).await {
                Ok(now) if text(&now, "/metadata/uid") == pod.uid => {}
                Ok(_) => return Ok(()),
                Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => return Ok(()),
                Err(failure) if is_passing(&failure) => wait(words(&failure)),
                Err(failure) => return Err(words(&failure)),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A budget that holds the pod, or an API server that has other work.
fn is_passing(failure: &Failure) -> bool {
    failure
        .code()
        .is_none_or(|code| code == StatusCode::TOO_MANY_REQUESTS || code.is_server_error())
}

/// The API server's words, with the causes, which name the budget.
fn words(failure: &Failure) -> String {
    let mut words = failure.to_string();
    let Failure::Status { details: Some(details), .. } = failure else { return words };
    let causes = details.get("causes").and_then(Value::as_array).into_iter().flatten();
    for cause in causes.map(|cause| text(cause, "/message")) {
        if !words.contains(cause) {
            words = format!("{words} {cause}");
        }
    }
    words
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
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/pods?fieldSelector={selector}&limit={PAGE}&continue={token}");
        let list = get(gateway, user, &path).await?;
        items.extend(list.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
        token =
            utf8_percent_encode(text(&list, "/metadata/continue"), NON_ALPHANUMERIC).to_string();
        if token.is_empty() {
            break;
        }
    }
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
    match controller.map(|owner| (text(owner, "/apiVersion"), text(owner, "/kind"))) {
        Some(("apps/v1", "DaemonSet")) if spec.ignore_all_daemon_sets => return Fate::Skip,
        Some(("apps/v1", "DaemonSet")) => {
            return Fate::Refuse("of a daemon set; ignoreAllDaemonSets skips it");
        }
        None if !spec.force => return Fate::Refuse("without a controller; force evicts it"),
        _ => {}
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    if !spec.delete_empty_dir_data && { volumes }.any(|volume| volume.get("emptyDir").is_some()) {
        return Fate::Refuse("with data in an emptyDir; deleteEmptyDirData gives it up");
    }
    Fate::Evict
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
        let daemon = json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "controller": true}]}});
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

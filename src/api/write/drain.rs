//! Cordon, uncordon and drain of a node, as the caller. A drain evicts, so that disruption budgets
//! are kept; what they refuse is asked again until the time is over, and then named with the API
//! server's own words. Which pods may go: `drain_pods`.
//!
//! It ends with its client: a drain that nobody waits for evicts no more. What is gone is gone, and
//! the node stays cordoned.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::drain_pods::{Pod, Spec, chosen, named, text, words};
use crate::api::body::{self, JSON, MERGE, get, send};
use crate::api::error::ApiError;
use crate::api::read::related::known;
use crate::api::target::Target;
use crate::api::written::Wrote;
use crate::api::{Caller, Gateway, Shared};
use crate::i18n::{self, Locale};
use crate::upstream::{Failure, User};

/// The contract's default, and the longest that a request may take.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(120), Duration::from_secs(600));
/// Evictions under way at once: a node has a hundred pods, and the API server other work.
const AT_ONCE: usize = 16;
/// Between two attempts at a pod that a budget holds, as kubectl waits.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks whether an evicted pod is gone.
const LOOK: Duration = Duration::from_secs(1);
/// The cause in the API server's 403 to who creates something in a namespace that is being deleted.
const ENDING: &str = "NamespaceTerminating";

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
    locale: Locale,
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
    let pods = chosen(&gateway, &user, &target.name, &spec, locale).await?;
    let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let live = accept.is_some_and(|accept| accept.contains("text/event-stream"));
    let (tell, heard) = mpsc::channel(AT_ONCE);
    let turns = Semaphore::new(AT_ONCE);
    let tell = live.then_some(tell);
    let (ours, caller) = (gateway.clone(), user.clone());
    let run = Run { gateway: ours, user: caller, locale, spec, until, turns, tell };
    if live {
        return Ok(progress(run, pods, heard));
    }
    run.all(&pods).await?;
    Ok(body::wrote(&gateway, &user, (kind, ""), &node, StatusCode::ACCEPTED.into_response()))
}

/// The run as a stream of events, which does the work while it is read.
fn progress(run: Run, pods: Vec<Pod>, mut heard: mpsc::Receiver<News>) -> Response {
    let work = async move {
        run.tell("cordoned", json!({ "pods": pods.len() })).await;
        let done = match run.all(&pods).await {
            Ok(()) => json!({ "status": 202, "message": "" }),
            Err(error) => {
                json!({ "status": error.status.as_u16(), "message": error.text(run.locale) })
            }
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
    /// A reason of ours, in the caller's language.
    fn said(&self, id: &'static str) -> String {
        i18n::message(self.locale, id, &[])
    }

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
        let left = named(left, self.locale);
        let args = [("gone", gone.as_str()), ("all", all.as_str()), ("left", left.as_str())];
        Err(ApiError::with_status(StatusCode::CONFLICT, "error-drain-left", &args))
    }

    /// Evicts a pod and waits until it is gone; the error says why it is not.
    async fn evicted(&self, pod: &Pod) -> Result<(), String> {
        let reason = Mutex::new(self.said("note-drain-no-time"));
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

    /// Whether the pod is still there or may be. Who may not read it is told so when he waits for
    /// its end.
    async fn is_there(&self, pod: &Pod) -> bool {
        match self.ask(Method::GET, &pod.path, None).await {
            Ok(now) => text(&now, "/metadata/uid") == pod.uid,
            Err(failure) => is_passing(&failure),
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
            let Err(failure) = self.ask(Method::POST, &path, Some(&eviction)).await else { break };
            let is_conflict = failure.code() == Some(StatusCode::CONFLICT);
            if failure.code() == Some(StatusCode::NOT_FOUND) {
                return Ok(());
            }
            // As kubectl does: no eviction is taken there, and the pod goes without one.
            if is_ending(&failure) {
                break;
            }
            // Another pod of that name: this one is gone. The same was changed in between.
            if is_conflict && !self.is_there(pod).await {
                break;
            }
            let why = words(&failure, self.locale);
            if !is_conflict && !is_passing(&failure) {
                return Err(why);
            }
            self.tell("waiting", json!({ "pod": pod.shown, "reason": why })).await;
            wait(why);
            tokio::time::sleep(AGAIN).await;
        }
        wait(self.said("note-drain-terminating"));
        loop {
            match self.ask(Method::GET, &pod.path, None).await {
                Ok(now) if text(&now, "/metadata/uid") == pod.uid => {}
                Ok(_) => return Ok(()),
                Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => return Ok(()),
                Err(failure) if is_passing(&failure) => wait(words(&failure, self.locale)),
                Err(failure) => return Err(words(&failure, self.locale)),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A budget that holds the pod, or an API server that has other work or is away. A 500 is final, as
/// for kubectl: so are two budgets for one pod refused (pkg/registry/core/pod/storage/eviction.go).
fn is_passing(failure: &Failure) -> bool {
    failure.code().is_none_or(|code| match code {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::INTERNAL_SERVER_ERROR => false,
        code => code.is_server_error(),
    })
}

/// The pod's namespace is being deleted: nothing is created in it any more, no eviction either.
fn is_ending(failure: &Failure) -> bool {
    let Failure::Status { code: StatusCode::FORBIDDEN, details: Some(details), .. } = failure
    else {
        return false;
    };
    let mut causes = details.get("causes").and_then(Value::as_array).into_iter().flatten();
    causes.any(|cause| text(cause, "/reason") == ENDING)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamError;

    #[test]
    fn what_passes_is_waited_for_and_a_refusal_is_final() {
        let said = |code: u16| Failure::status(StatusCode::from_u16(code).unwrap(), b"");
        for code in [429, 502, 503, 504] {
            assert!(is_passing(&said(code)), "{code}");
        }
        for code in [400, 403, 500] {
            assert!(!is_passing(&said(code)), "{code}");
        }
        assert!(is_passing(&UpstreamError::Timeout.into()));
    }

    #[test]
    fn only_a_namespace_that_is_being_deleted_makes_a_refusal_worth_waiting() {
        let refused = |code: u16, reason: &str| {
            let details = json!({ "causes": [{ "reason": "Other" }, { "reason": reason }] });
            let status = json!({ "reason": "Forbidden", "message": "no", "details": details });
            Failure::status(StatusCode::from_u16(code).unwrap(), status.to_string().as_bytes())
        };
        assert!(is_ending(&refused(403, "NamespaceTerminating")));
        assert!(!is_ending(&refused(403, "FieldValueInvalid")));
        assert!(!is_ending(&refused(422, "NamespaceTerminating")));
        assert!(!is_ending(&Failure::status(StatusCode::FORBIDDEN, b"NamespaceTerminating")));
    }
}

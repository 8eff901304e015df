//! What may be done to one workload besides editing it: restart, pause, resume, roll back, trigger,
//! and the replicas of a replication controller. Each is a patch as the caller, so that what others
//! change meanwhile is not lost.
//!
//! What kubectl refuses is refused here too, with a 409. Scaling anything else: `scale`.

use std::fmt::Write as _;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::body::{self, JSON, MERGE, STRATEGIC, get, send};
use crate::api::error::ApiError;
use crate::api::read::sets::{HASH, owned};
use crate::api::target::{Target, encoded};
use crate::api::{Caller, Gateway, Shared};
use crate::kinds::{Action, KindDef, by_name};
use crate::upstream::{Failure, User};

const JSON_PATCH: &str = "application/json-patch+json";
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotations that stay with the deployment when its template goes back (kubectl's
/// `annotationsToSkip`): all others are those of the revision.
const STAY: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];
/// Of a cron job's name in the names of jobs made by hand, as the contract has it.
const JOB_NAME: usize = 41;
/// Random names that are tried, each of which is free with near certainty; and how often an object
/// is read again that others write meanwhile.
const TRIES: usize = 5;

/// What an action is done to, and for whom.
struct Work<'a> {
    gateway: &'a Gateway,
    user: &'a User,
    kind: &'static KindDef,
    target: Target,
}

#[derive(Deserialize)]
struct Rollback {
    revision: String,
}

#[derive(Deserialize)]
struct Replicas {
    replicas: u32,
}

/// `PUT /api/v1/{kind}/{namespace}/{name}/{action}`.
pub async fn act(
    State(gateway): Shared,
    Caller(user): Caller,
    kind: &'static KindDef,
    action: Action,
    request: Request,
) -> Result<Response, ApiError> {
    let target = Target::of(request.uri().path(), kind, 1)?;
    let work = Work { gateway: &gateway, user: &user, kind, target };
    match action {
        Action::Restart => work.restart().await,
        Action::Pause => work.pause(true).await,
        Action::Resume => work.pause(false).await,
        Action::Rollback => {
            let (head, body) = request.into_parts();
            let Rollback { revision } = body::read(&gateway, &head.headers, body).await?;
            work.roll_back(&revision).await
        }
        Action::Trigger => work.trigger().await,
    }
}

/// `POST /api/v1/replicationcontroller/{namespace}/{name}/update/pod`.
pub async fn update_pods(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(kind) = by_name("replicationcontroller") else {
        return Err(ApiError::internal(&"no replication controllers in the kind table"));
    };
    let target = Target::of(request.uri().path(), kind, 2)?;
    let (head, body) = request.into_parts();
    let Replicas { replicas } = body::read(&gateway, &head.headers, body).await?;
    let work = Work { gateway: &gateway, user: &user, kind, target };
    let object = work.patch(MERGE, &json!({ "spec": { "replicas": replicas } })).await?;
    Ok(work.done(&object, StatusCode::ACCEPTED.into_response()))
}

impl Work<'_> {
    async fn read(&self) -> Result<Value, Failure> {
        get(self.gateway, self.user, &self.target.path(&self.kind.resource)).await
    }

    async fn patch(&self, content: &'static str, patch: &Value) -> Result<Value, Failure> {
        let (path, body) = (self.target.path(&self.kind.resource), Bytes::from(patch.to_string()));
        send(self.gateway, self.user, Method::PATCH, &path, content, body).await
    }

    fn done(&self, object: &Value, answer: Response) -> Response {
        let place = (self.kind, self.target.namespace.as_str());
        body::wrote(self.gateway, self.user, place, object, answer)
    }

    fn refused(&self, id: &'static str) -> ApiError {
        let name = format!("{} {}", self.kind.name, self.target.name);
        ApiError::with_status(StatusCode::CONFLICT, id, &[("name", name.as_str())])
    }

    async fn restart(&self) -> Result<Response, ApiError> {
        let is_deployment = self.kind.name == "deployment";
        if is_deployment && is_paused(&self.read().await?) {
            return Err(self.refused("error-is-paused"));
        }
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second());
        let now = now.map_err(|error| ApiError::internal(&error))?.to_string();
        let annotations = json!({ "kubectl.kubernetes.io/restartedAt": now });
        let template = json!({ "metadata": { "annotations": annotations } });
        let object = self.patch(STRATEGIC, &json!({ "spec": { "template": template } })).await?;
        let answer = match is_deployment {
            true => body::answer(StatusCode::OK, &json!({ "revision": revision(&object) })),
            false => body::answer(StatusCode::OK, &object),
        };
        Ok(self.done(&object, answer))
    }

    /// Its controller writes the status many times in a rollout: then it is looked at again.
    async fn pause(&self, pause: bool) -> Result<Response, ApiError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let object = self.read().await?;
            if is_paused(&object) == pause {
                let id = if pause { "error-is-paused" } else { "error-is-not-paused" };
                return Err(self.refused(id));
            }
            let version = object.pointer("/metadata/resourceVersion");
            let patch = json!({
                "metadata": { "resourceVersion": version }, "spec": { "paused": pause },
            });
            match self.patch(MERGE, &patch).await {
                Err(failure) if failure.code() == Some(StatusCode::CONFLICT) && tries < TRIES => {}
                patched => {
                    let object = patched?;
                    return Ok(self.done(&object, body::answer(StatusCode::OK, &object)));
                }
            }
        }
    }

    /// As `kubectl rollout undo --to-revision` does it.
    async fn roll_back(&self, wanted: &str) -> Result<Response, ApiError> {
        let deployment = self.read().await?;
        if is_paused(&deployment) {
            return Err(self.refused("error-is-paused"));
        }
        let sets = owned(self.gateway, self.user, &deployment).await?;
        let Some((_, set)) =
            sets.iter().find(|(_, set)| !wanted.is_empty() && revision(set) == wanted)
        else {
            let mut known: Vec<u64> =
                sets.iter().filter_map(|(_, set)| revision(set).parse().ok()).collect();
            known.sort_unstable();
            let known: Vec<String> = known.iter().map(u64::to_string).collect();
            let known = known.join(", ");
            let args = [("revision", wanted), ("known", known.as_str())];
            return Err(ApiError::with_status(StatusCode::NOT_FOUND, "error-no-revision", &args));
        };
        if revision(&deployment) == wanted {
            return Err(self.refused("error-is-that-revision"));
        }
        let object = self.patch(JSON_PATCH, &back_to(&deployment, set)).await?;
        let answer = body::answer(StatusCode::OK, &json!({ "revision": wanted }));
        Ok(self.done(&object, answer))
    }

    async fn trigger(&self) -> Result<Response, ApiError> {
        let cron_job = self.read().await?;
        let Some(jobs) = by_name("job") else {
            return Err(ApiError::internal(&"no jobs in the kind table"));
        };
        let namespace = encoded(&self.target.namespace);
        let path = jobs.resource.collection(Some(&namespace));
        let mut tries = 0;
        loop {
            tries += 1;
            let job = Bytes::from(job_of(&cron_job, &random_letters()?).to_string());
            match send(self.gateway, self.user, Method::POST, &path, JSON, job).await {
                Err(failure) if failure.code() == Some(StatusCode::CONFLICT) && tries < TRIES => {}
                made => {
                    let place = (jobs, self.target.namespace.as_str());
                    let answer = StatusCode::OK.into_response();
                    return Ok(body::wrote(self.gateway, self.user, place, &made?, answer));
                }
            }
        }
    }
}

fn is_paused(deployment: &Value) -> bool {
    deployment.pointer("/spec/paused") == Some(&Value::Bool(true))
}

fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.pointer("/metadata/annotations")?.as_object()
}

fn revision(object: &Value) -> &str {
    annotations(object).and_then(|all| all.get(REVISION)?.as_str()).unwrap_or_default()
}

/// The JSON patch that gives a deployment the template and annotations of one of its sets.
fn back_to(deployment: &Value, set: &Value) -> Value {
    let mut template = set.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    let stays = |key: &&String| STAY.contains(&key.as_str());
    let own = annotations(deployment).into_iter().flatten().filter(|(key, _)| stays(key));
    let theirs = annotations(set).into_iter().flatten().filter(|(key, _)| !stays(key));
    let all: Map<String, Value> =
        own.chain(theirs).map(|(key, value)| (key.clone(), value.clone())).collect();
    let version = deployment.pointer("/metadata/resourceVersion");
    json!([
        // Not a test: one that fails is a 422, an old version a 409.
        { "op": "replace", "path": "/metadata/resourceVersion", "value": version },
        { "op": "replace", "path": "/spec/template", "value": template },
        { "op": "add", "path": "/metadata/annotations", "value": all },
    ])
}

/// The job that a cron job would make now.
fn job_of(cron_job: &Value, letters: &str) -> Value {
    let text =
        |pointer: &str| cron_job.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let copy = |pointer: &str| cron_job.pointer(pointer).cloned();
    let name: String = text("/metadata/name").chars().take(JOB_NAME).collect();
    // A part of a name ends with a letter or digit.
    let name = name.trim_end_matches(['.', '-']);
    let annotations = copy("/spec/jobTemplate/metadata/annotations");
    let mut annotations = annotations.unwrap_or_else(|| json!({}));
    annotations["cronjob.kubernetes.io/instantiate"] = "manual".into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": format!("{name}-manual-{letters}"),
            "namespace": text("/metadata/namespace"),
            "labels": copy("/spec/jobTemplate/metadata/labels"),
            "annotations": annotations,
            // As kubectl has it: to block the owner's deletion is a right of its own.
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": text("/metadata/name"),
                "uid": text("/metadata/uid"), "controller": true,
            }],
        },
        "spec": copy("/spec/jobTemplate/spec"),
    })
}

/// Three random letters.
fn random_letters() -> Result<String, ApiError> {
    let mut bytes = [0u8; 3];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ApiError::internal(&"no randomness"))?;
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{}", char::from(b'a' + byte % 26));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_takes_the_template_without_its_hash_and_leaves_what_is_the_deployments() {
        let deployment = json!({"metadata": {"resourceVersion": "7",
            "annotations": {REVISION: "3", "note": "now"}}});
        let set = json!({"metadata": {"annotations": {REVISION: "1", "note": "then"}},
            "spec": {"template": {"metadata": {"labels": {"app": "a", HASH: "x"}}, "spec": {}}}});
        let patch = back_to(&deployment, &set);
        assert_eq!(patch[0]["value"], "7");
        assert_eq!(patch[1]["value"]["metadata"]["labels"], json!({"app": "a"}));
        assert_eq!(patch[2]["value"], json!({REVISION: "3", "note": "then"}));
    }

    #[test]
    fn a_triggered_job_is_the_cron_jobs_own_with_a_short_enough_name() {
        let long = "n".repeat(52);
        let cron_job = json!({"metadata": {"name": long, "namespace": "atlas", "uid": "c1"},
            "spec": {"jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}}});
        let job = job_of(&cron_job, "abc");
        assert_eq!(job["metadata"]["name"], format!("{}-manual-abc", "n".repeat(41)));
        let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": long, "uid": "c1",
            "controller": true});
        assert_eq!(job["metadata"]["ownerReferences"], json!([owner]));
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        let instantiate = "cronjob.kubernetes.io/instantiate";
        assert_eq!(job["metadata"]["annotations"], json!({instantiate: "manual"}));
        assert_eq!(job["spec"], json!({"x": 1}));
        assert_eq!(random_letters().unwrap().len(), 3);
    }
}

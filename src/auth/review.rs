//! SelfSubjectAccessReview as the user (authorization.k8s.io/v1), and how long its answer holds.
//!
//! Remembers nothing itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::rules::Listable;
use super::{ALLOWED_FOR, DENIED_FOR, Question, Ruled, UNCHANGED_FOR, Verdict};
use crate::kinds::KindDef;
use crate::upstream::{Cluster, Failure, Identity, OBJECT_LIMIT, UpstreamError, User};

/// What a review asks about; empty texts mean all or none, as in `ResourceAttributes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl Attributes {
    pub(super) fn list(kind: &KindDef, namespace: Option<&str>) -> Self {
        Self {
            verb: "list".into(),
            group: kind.resource.group.into(),
            version: kind.resource.version.into(),
            resource: kind.resource.plural.into(),
            namespace: namespace.unwrap_or_default().into(),
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    allowed: bool,
}

pub(super) async fn ask(
    cluster: &Cluster,
    user: &User,
    attributes: &Attributes,
) -> Result<bool, Failure> {
    let Attributes { verb, group, version, resource, subresource, namespace, name } = attributes;
    let spec = json!({ "resourceAttributes": {
        "verb": verb, "group": group, "version": version, "resource": resource,
        "subresource": subresource, "namespace": namespace, "name": name,
    }});
    send(cluster, user, spec).await
}

/// The same about a path that is no resource, such as `/metrics`.
pub(super) async fn ask_path(
    cluster: &Cluster,
    user: &User,
    verb: &str,
    path: &str,
) -> Result<bool, Failure> {
    let spec = json!({ "nonResourceAttributes": { "verb": verb, "path": path } });
    send(cluster, user, spec).await
}

async fn send(cluster: &Cluster, user: &User, spec: serde_json::Value) -> Result<bool, Failure> {
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": spec,
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = cluster.post(Identity::User(user), path, &question).await?;
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|error| UpstreamError::Broken(format!("access review: {error}")))?;
    Ok(answer.status.allowed)
}

/// A denial in the API server's own words: what it says to a list of one as this caller.
pub(super) async fn words_of_denial(
    cluster: &Cluster,
    user: &User,
    kind: &KindDef,
    namespace: Option<&str>,
) -> Result<Verdict, Failure> {
    let path = format!("{}?limit=1", kind.resource.collection(namespace));
    match cluster.get(Identity::User(user), &path, OBJECT_LIMIT).await {
        Err(failure) if failure.code() == Some(StatusCode::FORBIDDEN) => {
            Ok(Verdict::Denied(Arc::new(failure)))
        }
        Err(failure) => Err(failure),
        // Denied a moment ago, allowed now: the next question will find out; this one stays a no.
        Ok(_) => Ok(Verdict::Denied(Arc::new(Failure::Status {
            code: StatusCode::FORBIDDEN,
            message: format!("{} is forbidden: list was denied", kind.resource.plural),
            reason: "Forbidden".into(),
            details: Some(json!({ "kind": kind.resource.plural })),
        }))),
    }
}

/// Whether the caller's token says of itself that it is over.
pub(super) fn expired(user: &User) -> bool {
    user.expires().is_some_and(|at| at <= jiff::Timestamp::now().as_second())
}

pub(super) fn expired_token() -> Failure {
    Failure::Status {
        code: StatusCode::UNAUTHORIZED,
        message: "Unauthorized".into(),
        reason: "Unauthorized".into(),
        details: None,
    }
}

/// Allowed and denied verdicts live for different times, and so do rules.
pub(super) struct Expiry;

impl moka::Expiry<Ruled, Arc<Listable>> for Expiry {
    fn expire_after_create(&self, of: &Ruled, _: &Arc<Listable>, _: Instant) -> Option<Duration> {
        Some(if of.epoch.is_some() { UNCHANGED_FOR } else { DENIED_FOR })
    }
}

impl moka::Expiry<Question, Verdict> for Expiry {
    fn expire_after_create(&self, _: &Question, verdict: &Verdict, _: Instant) -> Option<Duration> {
        Some(match verdict {
            Verdict::Allowed => ALLOWED_FOR,
            Verdict::Denied(_) => DENIED_FOR,
        })
    }
}

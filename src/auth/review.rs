//! SelfSubjectAccessReview as the user (authorization.k8s.io/v1), how a denial is worded, and how
//! long an answer holds.
//!
//! Remembers nothing itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::rules::Listable;
use super::{ALLOWED_FOR, Authorizer, DENIED_FOR, Question, Refusal, Ruled, UNCHANGED_FOR};
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

    /// What the API server says to a user who may not (`forbiddenMessage` of
    /// k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go).
    pub fn denial(&self, user: &str) -> String {
        let Self { verb, group, resource, subresource, namespace, name, .. } = self;
        let part = |before: &str, text: &str, after: &str| match text {
            "" => String::new(),
            text => format!("{before}{text}{after}"),
        };
        let (of, name, sub) =
            (part(".", group, ""), part(" \"", name, "\""), part("/", subresource, ""));
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        format!(
            "{resource}{of}{name} is forbidden: User \"{user}\" cannot {verb} resource \
             \"{resource}{sub}\" in API group \"{group}\" {place}"
        )
    }
}

impl Authorizer {
    /// One access review, not remembered: for what is rare and must be right now (exec, drains).
    pub async fn review(
        &self,
        cluster: &Cluster,
        user: &User,
        attributes: &Attributes,
    ) -> Result<bool, Failure> {
        self.heed(user, ask(cluster, user, attributes).await).await
    }

    /// Whether the caller may `get` a path that is no resource, such as `/metrics`.
    pub async fn may_get(
        &self,
        cluster: &Cluster,
        user: &User,
        path: &str,
    ) -> Result<bool, Failure> {
        let spec = json!({ "nonResourceAttributes": { "verb": "get", "path": path } });
        self.heed(user, send(cluster, user, spec).await).await
    }

    /// Those of `candidates` in which the caller's right was confirmed shortly before, where nobody
    /// could be asked now; the refusal itself where there is none, or where it is an answer.
    pub(super) fn standing(
        &self,
        user: &User,
        kind: &'static KindDef,
        candidates: &[CompactString],
        refusal: Refusal,
    ) -> Result<Arc<BTreeSet<CompactString>>, Refusal> {
        if !refusal.is_absence() || user.is_over() {
            return Err(refusal);
        }
        let is_confirmed = |namespace: &&CompactString| {
            let namespace = Some((*namespace).clone());
            self.is_confirmed(&Question { who: user.fingerprint(), kind: kind.name, namespace })
        };
        let standing: BTreeSet<_> = candidates.iter().filter(is_confirmed).cloned().collect();
        if standing.is_empty() { Err(refusal) } else { Ok(Arc::new(standing)) }
    }

    /// Whether a right was confirmed shortly before, to this or to all namespaces, and nothing of
    /// it denied since.
    pub(super) fn is_confirmed(&self, question: &Question) -> bool {
        let everywhere = Question { namespace: None, ..question.clone() };
        self.confirmed.contains_key(question) || self.confirmed.contains_key(&everywhere)
    }
}

impl Refusal {
    /// Whether the API server has not answered at all, or failed: neither yes nor no, and no word
    /// on the caller either.
    pub(super) fn is_absence(&self) -> bool {
        let Self::Unknown(failure) = self else { return false };
        failure.code().is_none_or(|code| code.is_server_error())
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
) -> Result<Arc<Failure>, Failure> {
    let path = format!("{}?limit=1", kind.resource.collection(namespace));
    match cluster.get(Identity::User(user), &path, OBJECT_LIMIT).await {
        Err(failure) if failure.code() == Some(StatusCode::FORBIDDEN) => Ok(Arc::new(failure)),
        Err(failure) => Err(failure),
        // Denied a moment ago, allowed now: the next question will find out; this one stays a no.
        Ok(_) => Ok(Arc::new(Failure::Status {
            code: StatusCode::FORBIDDEN,
            message: format!("{} is forbidden: list was denied", kind.resource.plural),
            reason: "Forbidden".into(),
            details: Some(json!({ "kind": kind.resource.plural })),
        })),
    }
}

/// How long a rules review is believed in that was asked for in this epoch.
pub(super) fn believed_for(epoch: Option<u64>) -> Duration {
    if epoch.is_some() { UNCHANGED_FOR } else { DENIED_FOR }
}

/// Allowed and denied verdicts live for different times, and so do rules.
pub(super) struct Expiry;

impl moka::Expiry<Ruled, Arc<Listable>> for Expiry {
    fn expire_after_create(&self, of: &Ruled, _: &Arc<Listable>, _: Instant) -> Option<Duration> {
        Some(believed_for(of.epoch))
    }
}

impl moka::Expiry<Question, bool> for Expiry {
    fn expire_after_create(&self, _: &Question, allowed: &bool, _: Instant) -> Option<Duration> {
        Some(if *allowed { ALLOWED_FOR } else { DENIED_FOR })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_worded_as_kubernetes_words_it() {
        let of = |verb: &str, group: &str, resource: &str, subresource: &str, namespace: &str| {
            let [verb, group, resource] = [verb, group, resource].map(str::to_owned);
            let (subresource, namespace) = (subresource.to_owned(), namespace.to_owned());
            let asked = Attributes { verb, group, resource, subresource, namespace, ..named() };
            asked.denial("jane")
        };
        assert_eq!(
            of("create", "", "pods", "exec", "shop"),
            "pods \"web\" is forbidden: User \"jane\" cannot create resource \"pods/exec\" in API \
             group \"\" in the namespace \"shop\""
        );
        assert_eq!(
            of("unprotect", "binnacle.dev", "releases", "", "atlas"),
            "releases.binnacle.dev \"web\" is forbidden: User \"jane\" cannot unprotect resource \
             \"releases\" in API group \"binnacle.dev\" in the namespace \"atlas\""
        );
        assert!(of("create", "", "nodes", "proxy", "").ends_with("at the cluster scope"));
        let all = Attributes { resource: "pods".into(), ..Attributes::default() };
        assert!(all.denial("jane").starts_with("pods is forbidden: "));
    }

    fn named() -> Attributes {
        Attributes { name: "web".into(), ..Attributes::default() }
    }
}

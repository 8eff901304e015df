//! Which kinds the cluster serves, and where: aggregated discovery (KEP-3352), read as the user
//! and kept for a minute. It is no secret: the API server shows it to everybody who is signed in.
//!
//! It reads no schemas and judges no rights.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, header};
use serde::Deserialize;

use super::{ANSWER_TIMEOUT, Cluster, Failure, Identity, UpstreamError, User};

/// How long a document is believed in.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// A kind that is not in it may have been made since; names that do not exist must not become a
/// flood of reads.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Two thousand custom kinds make about 2 MiB; this is room for ten thousand.
const DOCUMENT_LIMIT: usize = 16 << 20;
/// v2 since Kubernetes 1.30, v2beta1 on by default since 1.27.
const ACCEPT: &str = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io,\
                      application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io";

/// A kind as the cluster serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    /// The preferred one first.
    pub versions: Vec<String>,
    /// The preferred version has a `scale` subresource.
    pub scalable: bool,
}

/// What one cluster serves.
#[derive(Default)]
pub struct Discovery {
    known: Mutex<Option<Known>>,
    version: Mutex<Option<(Instant, String)>>,
    /// Held while reading, so that many who wait cause one read.
    reading: tokio::sync::Mutex<()>,
}

struct Known {
    at: Instant,
    kinds: Arc<[Served]>,
}

impl Discovery {
    /// The first kind that `is_wanted` takes: the core group first, then groups that need no custom
    /// resource definition, then the order of the document, which is that of the groups' priority.
    pub async fn find(
        &self,
        cluster: &Cluster,
        user: &User,
        is_wanted: impl Fn(&Served) -> bool,
    ) -> Result<Option<Served>, Failure> {
        for age in [FRESH_FOR, ASK_AGAIN_AFTER] {
            let kinds = self.kinds(cluster, user, age).await?;
            if let Some(served) = kinds.iter().find(|served| is_wanted(served)) {
                return Ok(Some(served.clone()));
            }
        }
        Ok(None)
    }

    /// The API server's `gitVersion`, such as `v1.36.1`.
    pub async fn version(&self, cluster: &Cluster, user: &User) -> Result<String, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, version)) = known.filter(|(at, _)| at.elapsed() < FRESH_FOR) {
            return Ok(version);
        }
        let body = cluster.get(Identity::User(user), "/version", DOCUMENT_LIMIT).await?;
        let Version { git_version } = serde_json::from_slice(&body)
            .map_err(|error| UpstreamError::Broken(format!("/version: {error}")))?;
        let fresh = (Instant::now(), git_version.clone());
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(git_version)
    }

    async fn kinds(
        &self,
        cluster: &Cluster,
        user: &User,
        age: Duration,
    ) -> Result<Arc<[Served]>, Failure> {
        if let Some(kinds) = self.younger_than(age) {
            return Ok(kinds);
        }
        // Whoever waits for another's read waits no longer than for one of its own.
        let turn = tokio::time::timeout(ANSWER_TIMEOUT, self.reading.lock());
        let _one_at_a_time = turn.await.map_err(|_| UpstreamError::Timeout)?;
        if let Some(kinds) = self.younger_than(age) {
            return Ok(kinds);
        }
        let (core, groups) =
            tokio::try_join!(read(cluster, user, "/api"), read(cluster, user, "/apis"))?;
        let kinds: Arc<[Served]> = served(core.items.into_iter().chain(groups.items)).into();
        let known = Known { at: Instant::now(), kinds: kinds.clone() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(kinds)
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<[Served]>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.at.elapsed() < age).map(|known| known.kinds.clone())
    }
}

impl Served {
    /// Whether the contract calls it so: `pod`, `widgets.example.com`.
    pub fn is_called(&self, name: &str) -> bool {
        match name.split_once('.') {
            None => self.kind.eq_ignore_ascii_case(name),
            Some((plural, group)) => self.plural == plural && self.group == group,
        }
    }

    /// The contract's name of the kind: lower case, or the full name of its definition.
    pub fn shown(&self) -> String {
        if self.is_custom() {
            format!("{}.{}", self.plural, self.group)
        } else {
            self.kind.to_ascii_lowercase()
        }
    }

    /// Kubernetes' own groups have no dot or end in `.k8s.io`.
    fn is_custom(&self) -> bool {
        self.group.contains('.') && !self.group.ends_with(".k8s.io")
    }

    /// `wanted` if it is served, the preferred version if none is wanted.
    pub fn version(&self, wanted: Option<&str>) -> Option<&str> {
        let mut versions = self.versions.iter().map(String::as_str);
        versions.find(|version| wanted.is_none_or(|wanted| wanted == *version))
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.into() } else { format!("{}/{version}", self.group) }
    }

    /// Path of the collection; the (encoded) namespace is left out for what has none.
    pub fn collection(&self, version: &str, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let (version, plural) = (self.api_version(version), &self.plural);
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{plural}"),
            None => format!("{root}/{version}/{plural}"),
        }
    }
}

#[derive(Deserialize)]
struct Document {
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

/// The core group has no name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Option<Kind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct Subresource {
    subresource: String,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

async fn read(cluster: &Cluster, user: &User, path: &str) -> Result<Document, Failure> {
    let request = Request::get(path)
        .header(header::ACCEPT, ACCEPT)
        .body(Body::empty())
        .map_err(|error| UpstreamError::Setup(error.to_string()))?;
    let body = cluster.fetch(Identity::User(user), request, DOCUMENT_LIMIT).await?;
    let document: Document = serde_json::from_slice(&body)
        .map_err(|error| UpstreamError::Broken(format!("discovery at {path}: {error}")))?;
    if document.kind != "APIGroupDiscoveryList" {
        let what = format!(
            "discovery at {path} is a {}; Kubernetes 1.27 or newer is needed",
            document.kind
        );
        return Err(UpstreamError::Broken(what).into());
    }
    Ok(document)
}

/// What can be read by name, in the order in which an ambiguous kind is looked for.
fn served(groups: impl Iterator<Item = Group>) -> Vec<Served> {
    let mut all: Vec<Served> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    for Group { metadata: Name { name: group }, versions } in groups {
        for Version { version, resources } in versions {
            for resource in resources {
                let Some(Kind { kind }) = resource.response_kind else { continue };
                if !resource.verbs.iter().any(|verb| verb == "get") {
                    continue;
                }
                let place = (group.clone(), resource.resource.clone());
                if let Some(known) = places.get(&place).and_then(|index| all.get_mut(*index)) {
                    known.versions.push(version.clone());
                    continue;
                }
                let mut subresources = resource.subresources.iter();
                let scalable = subresources.any(|sub| sub.subresource == "scale");
                places.insert(place, all.len());
                all.push(Served {
                    group: group.clone(),
                    kind,
                    plural: resource.resource,
                    namespaced: resource.scope == "Namespaced",
                    versions: vec![version.clone()],
                    scalable,
                });
            }
        }
    }
    // Stable: within a rank the document's order stays.
    all.sort_by_key(|served| match served.group.as_str() {
        "" => 0,
        _ if !served.is_custom() => 1,
        _ => 2,
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Vec<Served> {
        let document = r#"{"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": "example.com"}, "versions": [{"version": "v1", "resources": [
                {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["get"]},
                {"resource": "widgets", "responseKind": {"kind": "Widget"}, "scope": "Cluster", "verbs": ["get"]}]}]},
            {"metadata": {"name": "autoscaling"}, "versions": [
                {"version": "v2", "resources": [{"resource": "horizontalpodautoscalers",
                    "responseKind": {"kind": "HorizontalPodAutoscaler"}, "scope": "Namespaced", "verbs": ["get"]}]},
                {"version": "v1", "resources": [{"resource": "horizontalpodautoscalers",
                    "responseKind": {"kind": "HorizontalPodAutoscaler"}, "scope": "Namespaced", "verbs": ["get"]}]}]},
            {"metadata": {"creationTimestamp": null}, "versions": [{"version": "v1", "resources": [
                {"resource": "bindings", "responseKind": {"kind": "Binding"}, "scope": "Namespaced", "verbs": ["create"]},
                {"resource": "odd", "scope": "Namespaced", "verbs": ["get"]},
                {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced", "verbs": ["get", "list"]}]}]}]}"#;
        let document: Document = serde_json::from_str(document).unwrap();
        served(document.items.into_iter())
    }

    fn called(name: &str) -> Option<Served> {
        cluster().into_iter().find(|served| served.is_called(name))
    }

    #[test]
    fn an_ambiguous_kind_is_that_of_the_core_group() {
        let pod = called("pod").unwrap();
        assert_eq!(pod.collection("v1", Some("atlas")), "/api/v1/namespaces/atlas/pods");
        assert_eq!(called("pods.example.com").unwrap().group, "example.com");
    }

    #[test]
    fn the_preferred_version_is_the_first_of_the_document_and_others_are_known() {
        let kind = called("horizontalpodautoscaler").unwrap();
        assert_eq!(kind.versions, ["v2", "v1"]);
        assert_eq!(kind.version(None), Some("v2"));
        assert_eq!(kind.version(Some("v1")), Some("v1"));
        assert_eq!(kind.version(Some("v9")), None);
        assert_eq!(kind.shown(), "horizontalpodautoscaler");
    }

    #[test]
    fn a_custom_kind_is_shown_by_its_full_name_and_found_by_both() {
        let widget = called("widgets.example.com").unwrap();
        assert_eq!(called("widget"), Some(widget.clone()));
        assert_eq!(widget.shown(), "widgets.example.com");
        assert_eq!(widget.collection("v1", Some("atlas")), "/apis/example.com/v1/widgets");
    }

    #[test]
    fn what_cannot_be_read_by_name_is_unknown() {
        assert_eq!(called("binding"), None);
        assert_eq!(called("odd"), None);
        assert_eq!(called("widgets.example.org"), None);
    }
}

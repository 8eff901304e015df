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
/// v2 since Kubernetes 1.30, v2beta1 on by default since 1.27. Older ones would say no more than 406
/// if they might not answer as they can; we tell by that what they are.
const ACCEPT: &str = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io,\
                      application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,\
                      application/json";

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
    /// Not what can only be created: reviews, bindings and requests are kept nowhere.
    pub readable: bool,
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
    /// What can only be created comes after all of them.
    pub async fn find(
        &self,
        cluster: &Cluster,
        user: &User,
        is_wanted: impl Fn(&Served) -> bool,
    ) -> Result<Option<Served>, Failure> {
        let kinds = self.kinds(cluster, user, FRESH_FOR).await?;
        match kinds.iter().find(|served| is_wanted(served)) {
            Some(served) => Ok(Some(served.clone())),
            None => self.find_anew(cluster, user, is_wanted).await,
        }
    }

    /// The same for who was sent by [`Self::find`] where nobody serves anything: out of a document
    /// that is younger than `ASK_AGAIN_AFTER`. Then, too, many who ask cause one read.
    pub async fn find_anew(
        &self,
        cluster: &Cluster,
        user: &User,
        is_wanted: impl Fn(&Served) -> bool,
    ) -> Result<Option<Served>, Failure> {
        let kinds = self.kinds(cluster, user, ASK_AGAIN_AFTER).await?;
        Ok(kinds.iter().find(|served| is_wanted(served)).cloned())
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
        let before = self.younger_than(Duration::MAX).unwrap_or_default();
        let groups = core.items.into_iter().chain(groups.items);
        let kinds: Arc<[Served]> = served(groups, &before).into();
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
    /// Whether the contract calls it so: `pod`, `widgets.example.com`. It has names for what can be
    /// read alone.
    pub fn is_called(&self, name: &str) -> bool {
        let is_it = match name.split_once('.') {
            None => self.kind.eq_ignore_ascii_case(name),
            Some((plural, group)) => self.plural == plural && self.group == group,
        };
        self.readable && is_it
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
    /// `Stale` where the server of an aggregated API does not answer; then there are no resources.
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Option<Kind>,
    #[serde(default)]
    scope: String,
    /// Null where an API has only subresources of it, as that of custom metrics and KubeVirt's.
    verbs: Option<Vec<String>>,
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

/// What can be read by name or created, in the order in which an ambiguous kind is looked for.
fn served(groups: impl Iterator<Item = Group>, before: &[Served]) -> Vec<Served> {
    let mut all: Vec<Served> = Vec::new();
    let mut places: HashMap<(String, String, bool), usize> = HashMap::new();
    for Group { metadata: Name { name: group }, versions } in groups {
        let mut away = Vec::new();
        for Version { version, resources, freshness } in versions {
            if resources.is_empty() && freshness == "Stale" {
                away.push(version);
                continue;
            }
            for resource in resources {
                let Some(Kind { kind }) = resource.response_kind else { continue };
                let mut verbs = resource.verbs.iter().flatten();
                let readable = verbs.clone().any(|verb| verb == "get");
                if !readable && !verbs.any(|verb| verb == "create") {
                    continue;
                }
                let place = (group.clone(), resource.resource.clone(), readable);
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
                    readable,
                });
            }
        }
        keep(&mut all, &group, &away, before);
    }
    // Stable: within a rank the document's order stays.
    all.sort_by_key(|served| {
        let rank = match served.group.as_str() {
            "" => 0,
            _ if !served.is_custom() => 1,
            _ => 2,
        };
        (!served.readable, rank)
    });
    all
}

/// Adds what was known of a group's versions whose server is away: only the API server can say that
/// it is, to who asks there. Unknown, its objects would count as gone, and a name that another group
/// has as well would mean that one's.
fn keep(all: &mut Vec<Served>, group: &str, away: &[String], before: &[Served]) {
    for known in before.iter().filter(|known| !away.is_empty() && known.group == group) {
        let versions = known.versions.iter().filter(|version| away.contains(version));
        let versions: Vec<String> = versions.cloned().collect();
        if versions.is_empty() {
            continue;
        }
        let mut there = all.iter_mut().filter(|now| now.group == known.group);
        match there.find(|now| now.plural == known.plural && now.readable == known.readable) {
            // Behind the versions that are served: the first is the one that is used.
            Some(now) => now.versions.extend(versions),
            None => all.push(Served { versions, ..known.clone() }),
        }
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;

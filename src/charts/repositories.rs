//! All repositories: those of the configuration's file, and one for each ConfigMap with our label
//! in our namespace, found by looking there again and again with our own rights: a few objects
//! every quarter of a minute are one small request. A mark on the ConfigMap has all replicas read a
//! repository anew. Those of the file have none: what one replica writes to them, the others see
//! after the interval. It judges nobody's right and fetches nothing from repositories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::Policy;
use super::access::Access;
use super::definition::{BadDefinition, Definition};
use super::file::Files;
use super::repository::{Home, Repository, config_map};
use crate::upstream::{Cluster, Failure, Identity, UpstreamError};

/// The label of ConfigMaps that are repositories, its value, and both as a selector.
const LABEL: &str = "binnacle.dev/repository";
const LABELLED: &str = "true";
const SELECTOR: &str = "labelSelector=binnacle.dev%2Frepository%3Dtrue";
/// The key of a ConfigMap with its definition, in JSON.
const KEY: &str = "definition";
/// An annotation of those ConfigMaps: another one has each replica read the repository anew.
const MARK: &str = "binnacle.dev/changed";
/// As many characters of it count; ours is a time, with some thirty.
const MARK_LENGTH: usize = 64;
/// Between two looks: what somebody else changed shows after that.
const LOOK: Duration = Duration::from_secs(15);
/// Repositories of ConfigMaps: each has its catalogue in memory.
const MOST: usize = 200;
/// ConfigMaps that are asked for at once.
const PAGE: usize = 20;
/// Of so many in bytes: etcd takes 1.5 MiB for each, most have 200 bytes.
const LIST: usize = 32 << 20;

/// The set of repositories; clones share it.
#[derive(Clone)]
pub struct Repositories(Arc<Inner>);

struct Inner {
    home: Arc<Home>,
    files: Vec<Arc<Repository>>,
    found: ArcSwap<Found>,
    /// One looks at a time, so that nothing older replaces what is newer.
    looking: Mutex<()>,
    changed: watch::Sender<()>,
}

/// What is there.
#[derive(Default)]
struct Found {
    /// By name.
    all: Vec<Arc<Repository>>,
    problems: Vec<Problem>,
    /// The last look at ConfigMaps has succeeded: without that `all` may lack some.
    is_seen: bool,
}

/// Something that is no repository though it is meant as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The ConfigMap, whose readers may know it; `None`: all of them are concerned.
    pub config_map: Option<String>,
    pub reason: String,
}

/// A file's list that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum BadList {
    #[error("the repository {0:?}: {1}")]
    Definition(String, BadDefinition),
    #[error("there are two repositories with the name {0:?}")]
    Twice(String),
}

/// Whether a file's list makes sense; nobody is asked.
pub fn judge(list: &[(Definition, Files)], policy: &Policy) -> Result<(), BadList> {
    let mut names = BTreeSet::new();
    for (definition, _) in list {
        let name = &definition.name;
        definition.base(policy).map_err(|error| BadList::Definition(name.clone(), error))?;
        if !names.insert(name) {
            return Err(BadList::Twice(name.clone()));
        }
    }
    Ok(())
}

impl Repositories {
    /// With those of the configuration. Those of ConfigMaps in `namespace` are found by `look`.
    pub fn new(
        cluster: Cluster,
        namespace: String,
        policy: Policy,
        file: Vec<(Definition, Files)>,
    ) -> Result<Self, BadList> {
        let home = Arc::new(Home { cluster, namespace, policy });
        let mut files = BTreeMap::new();
        for (definition, paths) in file {
            let name = definition.name.clone();
            let made = Repository::of_file(&home, definition, paths);
            let made = made.map_err(|error| BadList::Definition(name.clone(), error))?;
            if files.insert(name.clone(), Arc::new(made)).is_some() {
                return Err(BadList::Twice(name));
            }
        }
        let files: Vec<_> = files.into_values().collect();
        home.policy.know(files.iter().map(|one| &one.base));
        let found = Found { all: files.clone(), ..Found::default() };
        Ok(Self(Arc::new(Inner {
            home,
            files,
            found: ArcSwap::from_pointee(found),
            looking: Mutex::default(),
            changed: watch::Sender::default(),
        })))
    }

    /// Our namespace, where the ConfigMaps are.
    pub fn namespace(&self) -> &str {
        &self.0.home.namespace
    }

    /// By name.
    pub fn all(&self) -> Vec<Arc<Repository>> {
        self.0.found.load().all.clone()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Repository>> {
        let found = self.0.found.load();
        let at = found.all.binary_search_by(|one| one.name().cmp(name)).ok()?;
        found.all.get(at).cloned()
    }

    /// What could not be made a repository.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.found.load().problems.clone()
    }

    /// `all`, and whether these are all there are: the last look at ConfigMaps has succeeded.
    pub(super) fn seen(&self) -> (Vec<Arc<Repository>>, bool) {
        let found = self.0.found.load();
        (found.all.clone(), found.is_seen)
    }

    /// Hears of it whenever `all` has become another, and when a look succeeds again.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Whether this can become a repository of a ConfigMap.
    pub fn check(&self, definition: &Definition) -> Result<url::Url, BadDefinition> {
        definition.base(&self.0.home.policy)
    }

    /// A repository that is not among ours, to try it: with these credentials, or else with the
    /// stored ones of its name if it says that there are any.
    pub fn on_trial(
        &self,
        definition: Definition,
        access: Option<Access>,
    ) -> Result<Repository, BadDefinition> {
        Repository::on_trial(&self.0.home, definition, access)
    }

    /// Looks again and again, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = async {
                    self.look().await;
                    tokio::time::sleep(LOOK).await;
                } => {}
            }
        }
    }

    /// Looks for ConfigMaps now: what was written before the call is there after it.
    pub async fn look(&self) {
        let _turn = self.0.looking.lock().await;
        let before = self.0.found.load_full();
        let listed = self.list(&before).await;
        let after = listed.unwrap_or_else(|failure| self.without(&before, &failure));
        let same = before.all.len() == after.all.len()
            && before.all.iter().zip(&after.all).all(|(one, other)| Arc::ptr_eq(one, other));
        if before.problems != after.problems {
            for Problem { config_map, reason } in &after.problems {
                match config_map {
                    Some(name) => tracing::warn!(%name, reason, "no usable repository of charts"),
                    // An API server that is away is told of elsewhere, a missing right in lists.
                    None => tracing::debug!(reason, "repositories of charts are not known"),
                }
            }
        }
        self.0.home.policy.know(after.all.iter().map(|one| &one.base));
        let sees_again = after.is_seen && !before.is_seen;
        self.0.found.store(Arc::new(after));
        if !same || sees_again {
            self.0.changed.send_replace(());
        }
        // With it may go a large catalogue, which takes a while.
        spawn_blocking(move || drop(before));
    }

    /// What the ConfigMaps say, page by page; what has not changed stays as it is.
    async fn list(&self, before: &Found) -> Result<Found, Failure> {
        let known: HashMap<&str, &Arc<Repository>> =
            before.all.iter().map(|one| (one.name(), one)).collect();
        let files = self.0.files.iter().map(|one| (one.name().to_owned(), one.clone()));
        let mut all: BTreeMap<String, Arc<Repository>> = files.collect();
        let (mut problems, mut next) = (Vec::new(), String::new());
        for _ in 0..MOST / PAGE {
            let path = format!(
                "/api/v1/namespaces/{}/configmaps?{SELECTOR}&limit={PAGE}{next}",
                self.0.home.namespace
            );
            let json = self.0.home.cluster.get(Identity::Server, &path, LIST).await?;
            let list: Value = serde_json::from_slice(&json)
                .map_err(|error| UpstreamError::Broken(format!("{path}: {error}")))?;
            self.add(&list, &known, &mut all, &mut problems);
            match list["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => {
                    next = format!("&continue={}", utf8_percent_encode(token, NON_ALPHANUMERIC));
                }
                None => {
                    let all = all.into_values().collect();
                    return Ok(Found { all, problems, is_seen: true });
                }
            }
        }
        let reason = format!("there are more than {MOST} repositories; the rest is left out");
        problems.push(Problem { config_map: None, reason });
        Ok(Found { all: all.into_values().collect(), problems, is_seen: true })
    }

    /// Adds what these ConfigMaps say.
    fn add(
        &self,
        list: &Value,
        known: &HashMap<&str, &Arc<Repository>>,
        all: &mut BTreeMap<String, Arc<Repository>>,
        problems: &mut Vec<Problem>,
    ) {
        for map in list["items"].as_array().into_iter().flatten() {
            let name = map["metadata"]["name"].as_str().unwrap_or_default();
            let made = self.of(map).and_then(|made| match all.contains_key(made.name()) {
                // A ConfigMap has the name that its definition has: these are those of the file.
                true => Err("the configuration's file has a repository of that name: that one \
                             counts"
                    .to_owned()),
                false => Ok(made),
            });
            match made {
                Ok(made) => {
                    let before = known.get(made.name()).copied();
                    let made = merged(made, before);
                    all.insert(made.name().to_owned(), made);
                }
                Err(reason) => problems.push(Problem { config_map: Some(name.into()), reason }),
            }
        }
    }

    /// What is left when we cannot look: without the right those of the file; else all, since an
    /// API server that is away takes nothing away. Either may be over in a moment: see `is_seen`.
    fn without(&self, before: &Found, failure: &Failure) -> Found {
        let refused = matches!(
            failure.code(),
            Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND)
        );
        let all = if refused { self.0.files.clone() } else { before.all.clone() };
        let reason = format!(
            "repositories of ConfigMaps cannot be found, which takes our own right to list \
             ConfigMaps in the namespace {}: {failure}",
            self.0.home.namespace
        );
        let mut problems = vec![Problem { config_map: None, reason }];
        if !refused {
            let of_maps = before.problems.iter().filter(|problem| problem.config_map.is_some());
            problems.extend(of_maps.cloned());
        }
        Found { all, problems, is_seen: false }
    }

    fn of(&self, map: &Value) -> Result<Repository, String> {
        let text = map["data"][KEY].as_str();
        let text = text.ok_or_else(|| format!("it has no key {KEY:?} with a definition"))?;
        let definition: Definition = serde_json::from_str(text)
            .map_err(|error| format!("its definition cannot be read: {error}"))?;
        if map["metadata"]["name"].as_str() != Some(config_map(&definition.name).as_str()) {
            return Err("its name is not that of its definition with binnacle.repository. before \
                        it"
            .to_owned());
        }
        let uid = map["metadata"]["uid"].as_str().unwrap_or_default();
        let made = Repository::of_config_map(&self.0.home, definition, uid);
        let mut made = made.map_err(|error| error.to_string())?;
        made.mark = mark(map);
        Ok(made)
    }
}

/// The one that was there, if it is the same; else the new one with what is true of it as well.
fn merged(mut made: Repository, before: Option<&Arc<Repository>>) -> Arc<Repository> {
    let Some(before) = before.filter(|before| made.is_same_place(before)) else {
        return Arc::new(made);
    };
    if made.definition == before.definition && made.mark == before.mark {
        return before.clone();
    }
    // Shared, so that a refresh under way is not lost.
    made.loaded = before.loaded.clone();
    Arc::new(made)
}

/// The ConfigMap of a definition: `map` with it, or a new one where there is none (`Null`).
pub fn written(map: Value, definition: &Definition, namespace: &str) -> serde_json::Result<Value> {
    let name = config_map(&definition.name);
    let new = || {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": namespace },
        })
    };
    let mut map = if map.is_object() { map } else { new() };
    map["metadata"]["labels"][LABEL] = LABELLED.into();
    map["data"][KEY] = serde_json::to_string(definition)?.into();
    Ok(map)
}

/// What a ConfigMap is marked with; empty without a mark.
pub fn mark(map: &Value) -> String {
    let text = map["metadata"]["annotations"][MARK].as_str().unwrap_or_default();
    text.chars().take(MARK_LENGTH).collect()
}

/// The ConfigMap with another mark.
pub fn marked(mut map: Value, at: Timestamp) -> Value {
    map["metadata"]["annotations"][MARK] = at.to_string().into();
    map
}

/// What the ConfigMap says, if it can be read.
pub fn read(map: &Value) -> Option<Definition> {
    serde_json::from_str(map["data"][KEY].as_str()?).ok()
}

#[cfg(test)]
#[path = "repositories_tests.rs"]
mod tests;

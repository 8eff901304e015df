//! One repository: its definition, what is known of it, and the client that speaks to it.
//!
//! It refreshes nothing by itself. Its credentials are read anew whenever a client is asked for,
//! with our own rights, and leave this file only inside of that client.

use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::access::{Access, BadAccess};
use super::catalogue::Catalogue;
use super::client::{BadClient, Client};
use super::definition::{BadDefinition, Definition};
use super::file::{BadFile, Files};
use super::search::Search;
use super::snapshot::Etags;
use super::{Policy, hex};
use crate::upstream::{Cluster, Failure, Identity, OBJECT_LIMIT};

/// Before the name of a repository in those of its ConfigMap and its Secret.
const PREFIX: &str = "binnacle.repository.";

/// Where a definition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    ConfigMap,
    File,
}

/// What was last made of a repository; replaced as a whole.
#[derive(Clone, Default)]
pub struct Loaded {
    pub catalogue: Arc<Catalogue>,
    /// Bytes of text in it: to add it up takes a while.
    pub text: usize,
    pub search: Arc<Search>,
    pub status: Status,
    pub etags: Etags,
}

/// How a repository is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub state: State,
    pub last_success: Option<Timestamp>,
    pub last_attempt: Option<Timestamp>,
    /// Of the last success.
    pub duration_millis: Option<u64>,
    pub charts: usize,
    pub versions: usize,
    /// Entries that could not be read.
    pub skipped: usize,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Of what was last read, in hexadecimal.
    pub digest: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Nothing was tried yet.
    #[default]
    Never,
    Ok,
    Refreshing,
    Failing,
}

/// Why there is no client for a repository.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    #[error(
        "the credentials in the Secret {0} cannot be read, which takes our own right to get \
         Secrets in the namespace {1}: {2}"
    )]
    Unreadable(String, String, String),
    #[error("there is no Secret {0} with the repository's credentials; give them anew")]
    Missing(String),
    #[error(transparent)]
    Access(#[from] BadAccess),
    #[error(transparent)]
    File(#[from] BadFile),
    #[error(transparent)]
    Client(#[from] BadClient),
}

/// Where repositories of ConfigMaps are kept, and what may be reached.
pub(super) struct Home {
    pub cluster: Cluster,
    pub namespace: String,
    pub policy: Policy,
}

/// Where the credentials are.
enum Keys {
    /// In the Secret of the same name, if the definition says so. With the ConfigMap's uid.
    Secret(String),
    Files(Files),
    /// Handed in for a trial.
    Given(Access),
}

/// A repository of charts.
pub struct Repository {
    pub definition: Definition,
    pub source: Source,
    /// Where it is spoken to: with `http` or `https`, and a slash at the end.
    pub base: Url,
    pub loaded: Arc<ArcSwap<Loaded>>,
    /// What its ConfigMap was marked with.
    pub(super) mark: String,
    keys: Keys,
    home: Arc<Home>,
    /// The last client with a hash of its credentials: connections last while these do.
    client: Mutex<Option<(u64, Client)>>,
    hasher: RandomState,
}

impl Repository {
    fn new(
        home: &Arc<Home>,
        definition: Definition,
        source: Source,
        keys: Keys,
    ) -> Result<Self, BadDefinition> {
        Ok(Self {
            base: definition.base(&home.policy)?,
            definition,
            source,
            loaded: Arc::default(),
            mark: String::new(),
            keys,
            home: home.clone(),
            client: Mutex::default(),
            hasher: RandomState::new(),
        })
    }

    /// One of the configuration's file.
    pub(super) fn of_file(
        home: &Arc<Home>,
        definition: Definition,
        files: Files,
    ) -> Result<Self, BadDefinition> {
        Self::new(home, definition, Source::File, Keys::Files(files))
    }

    /// One of a ConfigMap with this uid.
    pub(super) fn of_config_map(
        home: &Arc<Home>,
        definition: Definition,
        uid: &str,
    ) -> Result<Self, BadDefinition> {
        Self::new(home, definition, Source::ConfigMap, Keys::Secret(uid.to_owned()))
    }

    /// One that is only tried: with credentials that were handed in, or else with the stored ones,
    /// if the definition says that there are any.
    pub(super) fn on_trial(
        home: &Arc<Home>,
        definition: Definition,
        access: Option<Access>,
    ) -> Result<Self, BadDefinition> {
        let keys = access.map_or_else(|| Keys::Secret(String::new()), Keys::Given);
        Self::new(home, definition, Source::ConfigMap, keys)
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Whose rights are those to the repository, and the name of its Secret.
    pub fn config_map(&self) -> String {
        config_map(self.name())
    }

    /// Whether something is shown to it that others do not have.
    pub fn has_credentials(&self) -> bool {
        match &self.keys {
            Keys::Secret(_) => self.definition.has_credentials,
            Keys::Files(files) => !files.is_empty(),
            Keys::Given(access) => !access.is_empty(),
        }
    }

    /// What tells its snapshot from those of others and of what it was before: hexadecimal.
    pub fn key(&self) -> String {
        let uid = if let Keys::Secret(uid) = &self.keys { uid.as_str() } else { "" };
        let Definition { name, kind, oci, .. } = &self.definition;
        let place = format!("{name}\n{uid}\n{kind:?}\n{}\n{oci:?}", self.base);
        hex(digest(&SHA256, place.as_bytes()).as_ref())
    }

    /// Whether what was loaded of `other` is true of this one as well.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// The client with the credentials of now.
    pub async fn client(&self) -> Result<Client, NoClient> {
        let access = self.access().await?;
        let hash = self.hasher.hash_one(&access);
        let kept = || self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = &*kept()
            && *known == hash
        {
            return Ok(client.clone());
        }
        let credentials = access.map(|access| access.credentials(&self.base));
        let client = Client::new(&self.home.policy.of(&self.base), credentials)?;
        *kept() = Some((hash, client.clone()));
        Ok(client)
    }

    async fn access(&self) -> Result<Option<Access>, NoClient> {
        let access = match &self.keys {
            Keys::Secret(_) if !self.definition.has_credentials => return Ok(None),
            Keys::Secret(_) => self.secret().await?,
            Keys::Files(files) => files.read().await?,
            Keys::Given(access) => access.clone(),
        };
        Ok((!access.is_empty()).then_some(access))
    }

    async fn secret(&self) -> Result<Access, NoClient> {
        let Home { cluster, namespace, .. } = &*self.home;
        let name = self.config_map();
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let unreadable = |failure: Failure| {
            NoClient::Unreadable(name.clone(), namespace.clone(), failure.to_string())
        };
        let json = match cluster.get(Identity::Server, &path, OBJECT_LIMIT).await {
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => {
                return Err(NoClient::Missing(name));
            }
            answer => answer.map_err(unreadable)?,
        };
        // Whatever it is: no word of it goes into a message.
        let secret: Value =
            serde_json::from_slice(&json).map_err(|_| BadAccess::Encoding(name.clone()))?;
        if let Keys::Secret(uid) = &self.keys
            && is_of_others(&secret, uid)
        {
            return Err(NoClient::Missing(name));
        }
        Ok(Access::stored(&secret, &self.base)?)
    }
}

/// Whether a Secret belongs to others than the ConfigMap with this uid: to one of the same name
/// that is gone, whose credentials are nobody's any more. Of a trial no uid is known.
fn is_of_others(secret: &Value, uid: &str) -> bool {
    let owners = secret.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owners = owners.filter(|owners| !uid.is_empty() && !owners.is_empty());
    owners.is_some_and(|owners| owners.iter().all(|owner| owner["uid"] != uid))
}

/// The name of the ConfigMap of a repository.
pub fn config_map(repository: &str) -> String {
    format!("{PREFIX}{repository}")
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;

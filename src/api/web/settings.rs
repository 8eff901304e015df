//! The web UI's settings, and what it pins: JSON texts in one ConfigMap, read with our own identity
//! because the UI shows them before anybody has signed in, written as the caller.
//!
//! It keeps nothing but what it read seconds ago. What a client saw last is a hash in its cookie,
//! so that every replica knows it; for those who keep no cookies this one remembers it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::body::{self, JSON, MERGE, malformed};
use crate::api::caller::{Asked, cookies};
use crate::api::error::ApiError;
use crate::api::read::view::told_to_known;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::encoded;
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Attributes;
use crate::upstream::{Cluster, Failure, Fingerprint, Identity, OBJECT_LIMIT, UpstreamError, User};

/// Keys of the ConfigMap, as the contract has them.
const SETTINGS: &str = "settings";
pub const PINNED: &str = "pinnedResources";
/// How old what we answer may be; a change through us shows at once.
const READ_FOR: Duration = Duration::from_secs(3);
/// Holds the hash of the settings that this client saw last. It carries no right.
const COOKIE: &str = "binnacle-settings";
/// Callers whose last sight of the settings is remembered, and how long, as by the cookie: a form
/// left open overnight is saved without a check.
const SEEN: u64 = 10_000;
const SEEN_FOR: Duration = Duration::from_secs(12 * 60 * 60);
/// Writes are repeated so often when somebody else is faster.
const TRIES: usize = 5;

/// The contract's settings of all users; with the contract's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    cluster_name: String,
    items_per_page: u32,
    labels_limit: u32,
    /// Seconds.
    logs_auto_refresh_time_interval: u32,
    /// Seconds.
    resource_auto_refresh_time_interval: u32,
    disable_access_denied_notifications: bool,
    hide_all_namespaces: bool,
    default_namespace: String,
    namespace_fallback_list: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_name: String::new(),
            items_per_page: 10,
            labels_limit: 3,
            logs_auto_refresh_time_interval: 5,
            resource_auto_refresh_time_interval: 10,
            disable_access_denied_notifications: false,
            hide_all_namespaces: false,
            default_namespace: "default".into(),
            namespace_fallback_list: vec!["default".into()],
        }
    }
}

impl Settings {
    /// These with what `over` says; what it leaves out or has as null stays, and zero values are
    /// those of the default, as the contract has it.
    fn with(&self, over: &Value) -> serde_json::Result<Self> {
        let mut whole = serde_json::to_value(self)?;
        if let (Value::Object(whole), Value::Object(over)) = (&mut whole, over) {
            for (key, value) in over.iter().filter(|(_, value)| !value.is_null()) {
                whole.insert(key.clone(), value.clone());
            }
        }
        Ok(serde_json::from_value::<Self>(whole)?.without_zeros())
    }

    fn without_zeros(mut self) -> Self {
        let default = Self::default();
        let numbers = [
            (&mut self.items_per_page, default.items_per_page),
            (&mut self.labels_limit, default.labels_limit),
            (&mut self.logs_auto_refresh_time_interval, default.logs_auto_refresh_time_interval),
            (
                &mut self.resource_auto_refresh_time_interval,
                default.resource_auto_refresh_time_interval,
            ),
        ];
        for (number, default) in numbers {
            if *number == 0 {
                *number = default;
            }
        }
        if self.default_namespace.is_empty() {
            self.default_namespace = default.default_namespace;
        }
        if self.namespace_fallback_list.is_empty() {
            self.namespace_fallback_list = default.namespace_fallback_list;
        }
        self
    }
}

/// A custom resource definition, or an object of one, that the UI's menu shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    pub kind: String,
    pub name: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Pinned {
    pub fn is(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let own = self.namespace.as_deref().unwrap_or_default();
        (self.kind.as_str(), own, self.name.as_str()) == (kind, namespace, name)
    }
}

/// The ConfigMap, understood.
#[derive(Default)]
pub struct Stored {
    settings: Settings,
    pub pinned: Vec<Pinned>,
    /// Its resource version; `None`: there is no ConfigMap.
    version: Option<String>,
}

impl Stored {
    /// What cannot be read counts as not there: a typo in one must not take the UI away from all.
    fn of(config_map: &Value) -> Self {
        let data = |key: &str| config_map["data"][key].as_str().filter(|text| !text.is_empty());
        let settings = data(SETTINGS).map(|text| {
            let over: Value = serde_json::from_str(text)?;
            Settings::default().with(&over)
        });
        let pinned = data(PINNED).map(serde_json::from_str::<Option<Vec<Pinned>>>);
        Self {
            settings: read_or_default(SETTINGS, settings),
            pinned: read_or_default(PINNED, pinned).unwrap_or_default(),
            version: config_map["metadata"]["resourceVersion"].as_str().map(str::to_owned),
        }
    }
}

fn read_or_default<T: Default>(key: &str, read: Option<serde_json::Result<T>>) -> T {
    let read = read.transpose().unwrap_or_else(|error| {
        tracing::warn!(%error, key, "the settings' ConfigMap holds what is not of the contract");
        None
    });
    read.unwrap_or_default()
}

/// The ConfigMap's place, and what was read of it.
pub struct SettingsMap {
    namespace: String,
    name: String,
    /// By change: what began to be read before a change through us is not taken for the new.
    read: Cache<u64, Option<Arc<Stored>>>,
    changes: AtomicU64,
    /// Hash of the settings that a caller saw last.
    seen: Cache<Fingerprint, String>,
}

impl SettingsMap {
    pub fn new(namespace: String, name: String) -> Self {
        Self {
            namespace,
            name,
            read: Cache::builder().max_capacity(2).time_to_live(READ_FOR).build(),
            changes: AtomicU64::new(0),
            seen: Cache::builder().max_capacity(SEEN).time_to_idle(SEEN_FOR).build(),
        }
    }

    fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", encoded(&self.namespace))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), encoded(&self.name))
    }

    /// `None` when this identity may not read it.
    async fn fetch(
        &self,
        cluster: &Cluster,
        who: Identity<'_>,
    ) -> Result<Option<Arc<Stored>>, Failure> {
        let path = self.path();
        match cluster.get(who, &path, OBJECT_LIMIT).await {
            Ok(json) => {
                let map: Value = serde_json::from_slice(&json)
                    .map_err(|error| UpstreamError::Broken(format!("{path}: {error}")))?;
                Ok(Some(Arc::new(Stored::of(&map))))
            }
            Err(failure) => match failure.code() {
                Some(StatusCode::NOT_FOUND) => Ok(Some(Arc::default())),
                Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => Ok(None),
                _ => Err(failure),
            },
        }
    }

    /// As it was seconds ago; where we may not read it as the caller, and else the defaults.
    async fn recent(
        &self,
        gateway: &Gateway,
        user: Option<&User>,
    ) -> Result<Arc<Stored>, ApiError> {
        let change = self.changes.load(Ordering::Acquire);
        let reading = self.fetch(&gateway.cluster, Identity::Server);
        let own = self.read.try_get_with(change, reading).await;
        if let Some(stored) = own.map_err(|failure| (*failure).clone())? {
            return Ok(stored);
        }
        let Some(user) = user else { return Ok(Arc::default()) };
        let theirs = self.fetch(&gateway.cluster, Identity::User(user)).await?;
        Ok(theirs.unwrap_or_default())
    }

    /// As it was seconds ago, and the hash of a part of it; anew when this client has seen another
    /// of that part: carried from another replica it may be newer than what we have read, and nobody
    /// sees his own change undone.
    pub async fn seen_by(
        &self,
        gateway: &Gateway,
        user: Option<&User>,
        request: &HeaderMap,
        (cookie, hash_of): (&str, impl Fn(&Stored) -> String),
    ) -> Result<(Arc<Stored>, String), ApiError> {
        let stored = self.recent(gateway, user).await?;
        let shown = hash_of(&stored);
        let seen: Vec<&str> = cookies(request, cookie).collect();
        if user.is_some()
            && !seen.is_empty()
            && !seen.contains(&shown.as_str())
            && let Ok(Some(now)) = self.fetch(&gateway.cluster, Identity::Server).await
        {
            let shown = hash_of(&now);
            return Ok((now, shown));
        }
        Ok((stored, shown))
    }

    /// As it is now, to be changed by `user`.
    async fn current(&self, gateway: &Gateway, user: &User) -> Result<Arc<Stored>, ApiError> {
        if let Some(stored) = self.fetch(&gateway.cluster, Identity::Server).await? {
            return Ok(stored);
        }
        match body::get(gateway, user, &self.path()).await {
            Ok(map) => Ok(Arc::new(Stored::of(&map))),
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => Ok(Arc::default()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Writes one key as `user`, unless the ConfigMap is another than `current` by then (409).
    async fn write(
        &self,
        gateway: &Gateway,
        user: &User,
        current: &Stored,
        (key, text): (&str, String),
    ) -> Result<(), Failure> {
        let data = json!({ key: text });
        let sent = match &current.version {
            Some(version) => {
                let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
                let (path, patch) = (self.path(), Bytes::from(patch.to_string()));
                body::send(gateway, user, Method::PATCH, &path, MERGE, patch).await
            }
            None => {
                let map = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "data": data,
                    "metadata": { "name": self.name, "namespace": self.namespace },
                });
                let (path, map) = (self.collection(), Bytes::from(map.to_string()));
                body::send(gateway, user, Method::POST, &path, JSON, map).await
            }
        };
        sent.map(drop)
    }

    /// Reads, edits and writes one key until nobody was faster.
    pub async fn change(
        &self,
        gateway: &Gateway,
        user: &User,
        mut edit: impl FnMut(&Stored) -> Result<(&'static str, String), ApiError> + Send,
    ) -> Result<(), ApiError> {
        for _ in 0..TRIES {
            let current = self.current(gateway, user).await?;
            let changed = match edit(&current) {
                Ok(changed) => changed,
                Err(error) => return Err(told_to_known(gateway, user, error).await),
            };
            let Err(failure) = self.write(gateway, user, &current, changed).await else {
                self.changes.fetch_add(1, Ordering::AcqRel);
                return Ok(());
            };
            match failure.code() {
                Some(StatusCode::CONFLICT) => {}
                // Deleted meanwhile; a create's 404 is a namespace that is not there.
                Some(StatusCode::NOT_FOUND) if current.version.is_some() => {}
                _ => return Err(failure.into()),
            }
        }
        Err(ApiError::with_status(StatusCode::CONFLICT, "error-settings-busy", &[]))
    }
}

/// Half a SHA-256 of its JSON, in hex: the same at every replica.
pub fn hash<T: Serialize + ?Sized>(shown: &T) -> String {
    // Texts, numbers and lists of them always are JSON.
    let json = serde_json::to_vec(shown).unwrap_or_default();
    digest(&SHA256, &json).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Has the client carry what it sees now, as a cookie of this name, to whichever replica it asks
/// next.
pub fn carry(
    gateway: &Gateway,
    request: &HeaderMap,
    (cookie, seen): (&str, &str),
    mut response: Response,
) -> Response {
    let path = gateway.seen_at(request, "/settings");
    let seconds = SEEN_FOR.as_secs();
    let cookie =
        format!("{cookie}={seen}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    if let Ok(value) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// `GET /settings`; needs no credentials.
pub async fn read(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let user = gateway.callers.user(&Asked::of(&request)).ok();
    let map = &gateway.settings;
    let headers = request.headers();
    let part = |stored: &Stored| hash(&stored.settings);
    let (stored, shown) = map.seen_by(&gateway, user.as_ref(), headers, (COOKIE, part)).await?;
    let response = reply(&gateway, &request, &stored.settings)?;
    let response = carry(&gateway, headers, (COOKIE, &shown), response);
    if let Some(user) = user {
        map.seen.insert(user.fingerprint(), shown).await;
    }
    Ok(response)
}

/// `PUT /settings`: 409 when they are others than this client saw last; sent once more after that,
/// they are saved. What the body leaves out stays.
pub async fn replace(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let given: Value = body::read(&gateway, &head.headers, sent).await?;
    if !given.is_object() {
        return Err(malformed(&"settings are a JSON object"));
    }
    let map = &gateway.settings;
    let mut seen: Vec<String> = cookies(&head.headers, COOKIE).map(str::to_owned).collect();
    if seen.is_empty() {
        seen.extend(map.seen.get(&user.fingerprint()).await);
    }
    let (mut latest, mut saved) = (String::new(), String::new());
    let edit = |stored: &Stored| {
        latest = hash(&stored.settings);
        if !seen.is_empty() && !seen.contains(&latest) {
            let status = StatusCode::CONFLICT;
            return Err(ApiError::with_status(status, "error-settings-changed", &[]));
        }
        let next = stored.settings.with(&given).map_err(|error| malformed(&error))?;
        saved = hash(&next);
        let text = serde_json::to_string(&next).map_err(|error| ApiError::internal(&error))?;
        Ok((SETTINGS, text))
    };
    let answer = match map.change(&gateway, &user, edit).await {
        Ok(()) => {
            latest = saved;
            StatusCode::NO_CONTENT.into_response()
        }
        // Told of a change, the caller has seen it; of any other refusal nothing is known. It is
        // worded here: the layer that words errors drops their headers.
        Err(error) if error.status == StatusCode::CONFLICT => {
            let item = error.as_item(gateway.locale_of(&head.headers));
            body::answer(error.status, &item)
        }
        Err(error) => return Err(error),
    };
    let answer = carry(&gateway, &head.headers, (COOKIE, &latest), answer);
    map.seen.insert(user.fingerprint(), latest).await;
    Ok(answer)
}

/// `GET /settings/cani` and `/settings/pinnedresources/cani`: whether the caller may read the
/// ConfigMap; nobody in particular may not.
pub async fn can_i(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let user = gateway.callers.user(&Asked::of(&request)).ok();
    let mut allowed = false;
    if let Some(user) = user {
        let attributes = Attributes {
            verb: "get".into(),
            version: "v1".into(),
            resource: "configmaps".into(),
            namespace: gateway.settings.namespace.clone(),
            name: gateway.settings.name.clone(),
            ..Attributes::default()
        };
        allowed = gateway.authorizer.review(&gateway.cluster, &user, &attributes).await?;
    }
    Ok(body::answer(StatusCode::OK, &json!({ "allowed": allowed })))
}

pub fn reply<T: Serialize + ?Sized>(
    gateway: &Gateway,
    request: &Request,
    shown: &T,
) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(shown).map_err(|error| ApiError::internal(&error))?;
    let reply = Reply::json(body, Freshness::default().with_live());
    Ok(reply.respond(gateway, request.headers()))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

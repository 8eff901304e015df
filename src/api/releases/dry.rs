//! One object of a release that is not made yet, tried out: applied as the caller on a dry run, as
//! the engine would apply it, and compared with what is there.
//!
//! Nothing is changed. What would be tried, and what the whole means, is `releases::preview`'s part.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::api::Gateway;
use crate::api::body::{JSON, MERGE, STRATEGIC, get, send, too_many};
use crate::api::error::ApiError;
use crate::api::read::list::is_namespace;
use crate::api::target::{self, encoded};
use crate::api::write::raw::STRICT;
use crate::auth::Attributes;
use crate::helm::diff::{Change, changes, comparable, patch};
use crate::helm::manifest::Object;
use crate::helm::quota::{self, Needs};
use crate::helm::redact::without_values;
use crate::helm::room::Room;
use crate::i18n::{self, Locale};
use crate::upstream::{Failure, Served, User};

const APPLY: &str = "application/apply-patch+yaml";
/// As the engine asks: its own manager (helm `cmd/helm/main.go`).
const OPTIONS: &str = "dryRun=All&fieldManager=helm";
/// The beginning of a cause's message when the engine's own older writes are in the way.
const OWN_CONFLICT: &str = "conflict with \"helm\"";
/// What the engine adds to each object (helm `pkg/action/validate.go`, `setMetadataVisitor`).
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const RELEASE_NAME: &str = "meta.helm.sh/release-name";
const RELEASE_NAMESPACE: &str = "meta.helm.sh/release-namespace";
/// Objects that it leaves behind (helm `pkg/kube/resource_policy.go`).
const KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// A release whose objects are tried out.
pub struct Dry<'a> {
    pub gateway: &'a Gateway,
    pub user: &'a User,
    pub locale: Locale,
    pub release: &'a str,
    pub namespace: &'a str,
    pub way: Way,
    /// Namespaces that are made before the objects in them.
    pub namespaces: Vec<String>,
    /// Group and kind of definitions that are made before the other objects.
    pub kinds: Vec<(String, String)>,
}

/// How the engine applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    pub server_side: bool,
    /// Takes fields over from other managers.
    pub force: bool,
    /// The release was applied client-side so far: the engine takes its own fields over first.
    pub migrates: bool,
}

/// An object as a preview shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    /// `None` of what has no namespace.
    pub namespace: Option<String>,
    /// `create`, `change`, `none`, `delete`, or `unknown` when it may not be read.
    pub change: &'static str,
    pub diff: Vec<Change>,
    /// As rendered, secrets masked; `None` of what is deleted.
    pub rendered: Option<Box<RawValue>>,
    pub problem: Option<Problem>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    /// It only cannot be tried out.
    Info,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    pub class: &'static str,
    pub severity: Severity,
    pub message: String,
    /// The engine's own words.
    pub detail: String,
}

/// An object that was tried out.
pub struct Tried {
    pub shown: Shown,
    /// What it counts for in its namespace's quotas more than what is there.
    pub needs: Needs,
}

/// Where an object is.
struct Place {
    served: Served,
    namespace: String,
    collection: String,
    path: String,
}

impl Problem {
    pub fn error(class: &'static str, message: String) -> Self {
        Self { class, severity: Severity::Error, message, detail: String::new() }
    }

    pub fn info(class: &'static str, message: String) -> Self {
        Self { severity: Severity::Info, ..Self::error(class, message) }
    }
}

impl Tried {
    fn new(object: &Object, release: &str) -> Self {
        let namespace = object.namespace.as_deref().unwrap_or(release);
        let shown = Shown {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            name: object.name.clone(),
            namespace: Some(namespace.to_owned()),
            change: "unknown",
            diff: Vec::new(),
            rendered: None,
            problem: None,
        };
        Self { shown, needs: Needs::new() }
    }

    fn count(&mut self, object: &Value, place: &Place, times: i64) {
        let kind = (place.served.plural.as_str(), place.served.group.as_str());
        quota::add(&mut self.needs, object, kind, times);
    }
}

impl Dry<'_> {
    /// What the engine would make of `object`; `old` is what it made of it last.
    ///
    /// # Errors
    /// Refused credentials, and 429 where there is no room for its tree: what else goes wrong is
    /// the object's problem.
    pub async fn tried(&self, object: &Object, old: Option<&Object>) -> Result<Tried, ApiError> {
        let mut tried = Tried::new(object, self.namespace);
        // What is sent of it, what is compared, and what comes back.
        let room = 4 * object.weight() + old.map_or(0, Object::weight);
        let _room = Room::of(room).await.ok_or_else(too_many)?;
        tried.shown.rendered = to_raw_value(&comparable(&object.value())).ok();
        match self.try_out(object, old, &mut tried).await {
            Ok(()) => Ok(tried),
            Err(failure) => self.with(tried, failure, object),
        }
    }

    /// The same of an object that the release will not have any more; `None` when it is gone.
    pub async fn gone(&self, object: &Object) -> Result<Option<Tried>, ApiError> {
        let mut tried = Tried::new(object, self.namespace);
        match self.try_delete(object, &mut tried).await {
            Ok(true) => Ok(Some(tried)),
            Ok(false) => Ok(None),
            Err(failure) => self.with(tried, failure, object).map(Some),
        }
    }

    fn with(&self, mut tried: Tried, failure: Failure, of: &Object) -> Result<Tried, ApiError> {
        if failure.code() == Some(StatusCode::UNAUTHORIZED) {
            return Err(failure.into());
        }
        tried.shown.problem = Some(self.problem(failure, &of.value()));
        Ok(tried)
    }

    async fn try_out(
        &self,
        object: &Object,
        old: Option<&Object>,
        tried: &mut Tried,
    ) -> Result<(), Failure> {
        let Some(place) = self.place(object).await? else {
            tried.shown.change = "create";
            tried.shown.problem = Some(self.no_kind(object));
            return Ok(());
        };
        tried.shown.namespace = Some(place.namespace.clone()).filter(|name| !name.is_empty());
        if !place.served.readable {
            let args = [("kind", object.kind.as_str()), ("version", object.api_version.as_str())];
            let message = self.text("helm-preview-only-created", &args);
            tried.shown.problem = Some(Problem::info("unknown", message));
            return Ok(());
        }
        if let Some(problem) = odd(object, &place) {
            tried.shown.problem = Some(problem);
            return Ok(());
        }
        let live = self.live(&place).await?;
        tried.shown.change = if live.is_some() { "change" } else { "create" };
        let after = self.applied(&place, live.as_ref(), &self.target(object), old).await?;
        tried.count(&after, &place, 1);
        if let Some(live) = live {
            tried.count(&live, &place, -1);
            tried.shown.diff = changes(&live, &after);
            if tried.shown.diff.is_empty() {
                tried.shown.change = "none";
            }
        }
        Ok(())
    }

    /// Whether there is something to delete. Of deletes, the right is asked about and nothing
    /// sent: an API server that knows no dry runs would do it.
    async fn try_delete(&self, object: &Object, tried: &mut Tried) -> Result<bool, Failure> {
        let Some(place) = self.place(object).await? else { return Ok(false) };
        tried.shown.namespace = Some(place.namespace.clone()).filter(|name| !name.is_empty());
        // What can only be created is not there afterwards.
        if !place.served.readable || odd(object, &place).is_some() {
            return Ok(false);
        }
        let Some(live) = self.live(&place).await? else { return Ok(false) };
        let policy = live.pointer("/metadata/annotations").and_then(|all| all.get(KEEP.0));
        if policy.is_some_and(|policy| policy == KEEP.1) {
            tried.shown.change = "none";
            tried.shown.problem = Some(Problem::info("kept", self.text("helm-preview-kept", &[])));
            return Ok(true);
        }
        tried.shown.change = "delete";
        tried.count(&live, &place, -1);
        let asked = Attributes {
            verb: "delete".into(),
            group: place.served.group.clone(),
            version: object.version().to_owned(),
            resource: place.served.plural.clone(),
            namespace: place.namespace.clone(),
            name: object.name.clone(),
            ..Attributes::default()
        };
        if !self.gateway.authorizer.review(&self.gateway.cluster, self.user, &asked).await? {
            let args = [("resource", place.served.plural.as_str()), ("name", object.name.as_str())];
            let message = self.text("helm-preview-may-not-delete", &args);
            tried.shown.problem = Some(Problem::error("forbidden", message));
        }
        Ok(true)
    }

    /// `None` when the cluster does not serve the kind in this version.
    async fn place(&self, object: &Object) -> Result<Option<Place>, Failure> {
        let is_it = |served: &Served| {
            served.group == object.group()
                && served.kind == object.kind
                && served.version(Some(object.version())).is_some()
        };
        let found = target::find(self.gateway, self.user, is_it).await?;
        let Some(served) = found else { return Ok(None) };
        let namespace = object.namespace.as_deref().unwrap_or(self.namespace);
        let namespace = if served.namespaced { namespace } else { "" }.to_owned();
        let collection = served.collection(object.version(), Some(&encoded(&namespace)));
        let path = format!("{collection}/{}", encoded(&object.name));
        Ok(Some(Place { served, namespace, collection, path }))
    }

    async fn live(&self, place: &Place) -> Result<Option<Value>, Failure> {
        match get(self.gateway, self.user, &place.path).await {
            Ok(live) => Ok(Some(live)),
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The object as the engine sends it.
    fn target(&self, object: &Object) -> Value {
        let mut target = object.value();
        mark(&mut target, "labels", MANAGED_BY, "Helm");
        mark(&mut target, "annotations", RELEASE_NAME, self.release);
        mark(&mut target, "annotations", RELEASE_NAMESPACE, self.namespace);
        target
    }

    /// What the API server would make of it.
    async fn applied(
        &self,
        place: &Place,
        live: Option<&Value>,
        target: &Value,
        old: Option<&Object>,
    ) -> Result<Value, Failure> {
        let Way { server_side, force, migrates } = self.way;
        if server_side {
            // As the engine: strict here (`kube.FieldValidationDirectiveStrict`), and not where it
            // creates and patches client-side, so that an unknown field is only warned about.
            let path = format!("{}?{OPTIONS}&{STRICT}&force={force}", place.path);
            let answer = self.sent(Method::PATCH, &path, APPLY, target).await;
            let takes_over = migrates && live.is_some();
            match answer {
                // What the engine owns so far is taken over before: then fields that are gone from
                // the manifest go, which an apply by a new owner does not do.
                Ok(_) if takes_over => {}
                Err(failure) if takes_over && is_own_conflict(&failure) => {}
                other => return other,
            }
        }
        if live.is_none() {
            let path = format!("{}?{OPTIONS}", place.collection);
            return self.sent(Method::POST, &path, JSON, target).await;
        }
        let old = old.map_or(Value::Null, Object::value);
        let path = format!("{}?{OPTIONS}", place.path);
        // Custom kinds know no strategic patch; some of them are in Kubernetes' own groups.
        if !place.served.shown().contains('.') {
            let strategic = patch(&old, target, true);
            let answer = self.sent(Method::PATCH, &path, STRATEGIC, &strategic).await;
            let unknown = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            match answer {
                Err(failure) if failure.code() == unknown => {}
                other => return other,
            }
        }
        self.sent(Method::PATCH, &path, MERGE, &patch(&old, target, false)).await
    }

    async fn sent(
        &self,
        method: Method,
        path: &str,
        content: &'static str,
        body: &Value,
    ) -> Result<Value, Failure> {
        let body = Bytes::from(body.to_string());
        send(self.gateway, self.user, method, path, content, body).await
    }

    fn no_kind(&self, object: &Object) -> Problem {
        let made =
            |(group, kind): &(String, String)| group == object.group() && *kind == object.kind;
        let args = [("kind", object.kind.as_str()), ("version", object.api_version.as_str())];
        if self.kinds.iter().any(made) {
            Problem::info("crd-missing", self.text("helm-preview-kind-later", &args))
        } else {
            Problem::error("crd-missing", self.text("helm-preview-no-kind", &args))
        }
    }

    /// What a refused dry run means. The API server's words may repeat what it was sent.
    fn problem(&self, failure: Failure, object: &Value) -> Problem {
        let class = class(&failure);
        let namespace = missing_namespace(&failure);
        if let Some(name) = namespace.filter(|name| self.namespaces.iter().any(|of| of == name)) {
            let message = self.text("helm-preview-namespace-later", &[("namespace", name)]);
            return Problem::info("namespace-missing", message);
        }
        let message = match failure {
            Failure::Status { message, .. } => without_secrets(without_values(&message), object),
            Failure::Upstream(error) => ApiError::from(error).text(self.locale),
        };
        Problem::error(class, message)
    }

    fn text(&self, id: &str, args: &[(&str, &str)]) -> String {
        i18n::message(self.locale, id, args)
    }
}

/// A name from a manifest must not reach a path before it was looked at.
fn odd(object: &Object, place: &Place) -> Option<Problem> {
    let dots = matches!(object.name.as_str(), "." | "..");
    let is_odd = dots || is_namespace(&place.namespace).is_err();
    let message = || format!("{:?} in {:?} is no valid name", object.name, place.namespace);
    is_odd.then(|| Problem::error("invalid-object", message()))
}

fn mark(object: &mut Value, part: &str, key: &str, text: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let all = metadata.entry(part).or_insert(Value::Null);
    // A template whose map is empty.
    if all.is_null() {
        *all = json!({});
    }
    if let Some(all) = all.as_object_mut() {
        all.insert(key.to_owned(), text.into());
    }
}

/// Nothing but the engine's own writes of another kind is in the way.
fn is_own_conflict(failure: &Failure) -> bool {
    let Failure::Status { code: StatusCode::CONFLICT, details: Some(details), .. } = failure else {
        return false;
    };
    let causes = details.get("causes").and_then(Value::as_array);
    let is_own = |cause: &Value| {
        let message = cause.get("message").and_then(Value::as_str);
        message.is_some_and(|message| message.starts_with(OWN_CONFLICT))
    };
    causes.is_some_and(|causes| !causes.is_empty() && causes.iter().all(is_own))
}

/// The namespace that the API server does not have.
fn missing_namespace(failure: &Failure) -> Option<&str> {
    let Failure::Status { code: StatusCode::NOT_FOUND, details: Some(details), .. } = failure
    else {
        return None;
    };
    let text = |key: &str| details.get(key).and_then(Value::as_str);
    text("name").filter(|_| text("kind") == Some("namespaces"))
}

/// The classes of operations' errors, by what the API server says.
fn class(failure: &Failure) -> &'static str {
    let Failure::Status { code, message, .. } = failure else { return "unreachable" };
    let says = |words: &str| message.contains(words);
    match code.as_u16() {
        _ if says("admission webhook") || says("failed calling webhook") => "webhook",
        403 if says("exceeded quota") || says("failed quota") => "quota",
        403 if says("is being terminated") => "namespace-terminating",
        403 => "forbidden",
        404 if missing_namespace(failure).is_some() => "namespace-missing",
        404 => "not-found",
        409 => "conflict",
        422 if says("immutable") || says("updates to statefulset spec for fields other than") => {
            "immutable"
        }
        400 | 422 => "invalid-object",
        413 => "too-large",
        429 | 503 => "unreachable",
        500 if says("typed patch object") || says("convert unstructured object") => {
            "invalid-object"
        }
        504 => "timeout",
        _ => "unknown",
    }
}

/// The message without anything that stands in the Secret that it is about.
fn without_secrets(message: String, object: &Value) -> String {
    if object.get("kind").and_then(Value::as_str) != Some("Secret") {
        return message;
    }
    let parts = ["data", "stringData"].map(|part| object.get(part).and_then(Value::as_object));
    let values = parts.into_iter().flatten().flat_map(|fields| fields.values());
    values.fold(message, |message, value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if text.is_empty() { message } else { message.replace(&text, "***") }
    })
}

#[cfg(test)]
#[path = "dry_tests.rs"]
mod tests;

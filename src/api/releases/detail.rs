//! One release as its records tell it, read as the caller whenever it is asked for: the detail,
//! and its history, values, manifest, notes, hooks and chart by themselves.
//!
//! It writes nothing, and it keeps nothing of what it has read: records are Secrets.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use compact_str::CompactString;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::plan::CLIENT_SIDE;
use super::resources::{Look, looked};
use super::run::standing;
use super::urls::{services, urls};
use crate::api::body::{self, TURN};
use crate::api::error::ApiError;
use crate::api::live::events::{self, WRITE};
use crate::api::read::list::is_namespace;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{Target, encoded};
use crate::api::{Caller, Gateway, Shared};
use crate::helm::act::{Act, BadAct};
use crate::helm::blob::{BadRelease, Hook, Release, computed};
use crate::helm::facts::{Fact, Read};
use crate::helm::manifest::{self, Object};
use crate::helm::record::{self, ReadError, Record};
use crate::helm::redact::without_values;
use crate::i18n::Locale;
use crate::kinds::release::{RELEASE, type_meta};
use crate::kinds::{Uid, time};
use crate::upstream::User;

/// Manifests read at once, each document by document: the tree of one takes 60 MiB at worst.
static READING: Semaphore = Semaphore::const_new(4);
/// Bytes of YAML that are read where they came: some 3 ms.
const IN_PLACE: usize = 64 << 10;
/// What a detail shows of `Chart.yaml`.
const OF_CHART: [&str; 14] = [
    "name",
    "version",
    "appVersion",
    "description",
    "icon",
    "home",
    "sources",
    "keywords",
    "maintainers",
    "deprecated",
    "type",
    "kubeVersion",
    "dependencies",
    "annotations",
];

/// What `/release/{namespace}/{name}…?revision=` names.
pub struct Asked {
    pub namespace: CompactString,
    pub name: CompactString,
    /// `None`: the newest.
    pub revision: Option<u32>,
}

impl Asked {
    /// Of a path with `after` segments behind the release's name.
    pub fn of(uri: &Uri, after: usize) -> Result<Self, ApiError> {
        let Target { namespace, name } = Target::of(uri.path(), &RELEASE, after)?;
        is_namespace(&namespace)?;
        let mut pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let revision = pairs.find(|(key, _)| key == "revision").map(|(_, value)| {
            let number = value.parse::<u32>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| {
                let value: String = value.chars().take(40).collect();
                ApiError::bad_request("error-bad-revision", &[("value", value.as_str())])
            })
        });
        Ok(Self { namespace, name, revision: revision.transpose()? })
    }

    /// All revisions, and the one that is asked for.
    pub async fn found(
        &self,
        gateway: &Gateway,
        user: &User,
    ) -> Result<(Vec<Record>, Record), ApiError> {
        found(gateway, user, &self.namespace, &self.name, self.revision).await
    }

    /// The content of the revision that is asked for; 502 when nobody can read it.
    pub async fn release(&self, gateway: &Gateway, user: &User) -> Result<Release, ApiError> {
        let (_, record) = self.found(gateway, user).await?;
        readable(gateway, user, &record).await
    }
}

/// All revisions of a release, the newest first, and the chosen one: of this number, or the newest.
/// There is at least one; 404 with a sentence when there is none, or none of this number.
pub async fn found(
    gateway: &Gateway,
    user: &User,
    namespace: &str,
    name: &str,
    revision: Option<u32>,
) -> Result<(Vec<Record>, Record), ApiError> {
    let history = record::history(&gateway.cluster, user, namespace, name).await;
    let history = gateway.authorizer.heed(user, history).await?;
    let Some(newest) = history.first() else {
        let args = [("name", name), ("namespace", namespace)];
        return Err(ApiError::with_status(StatusCode::NOT_FOUND, "error-no-release", &args));
    };
    let chosen = match revision {
        None => newest,
        Some(revision) => chosen(&history, name, revision)?,
    };
    let chosen = chosen.clone();
    Ok((history, chosen))
}

/// The revision of this number; 404 with a sentence that names those that there are.
pub fn chosen<'h>(
    history: &'h [Record],
    name: &str,
    revision: u32,
) -> Result<&'h Record, ApiError> {
    let chosen = history.iter().find(|record| record.revision == revision);
    chosen.ok_or_else(|| {
        let known = history.iter().take(20).map(|record| record.revision.to_string());
        let known = known.collect::<Vec<_>>().join(", ");
        // Nobody has asked for it: it is the one before the first.
        if revision == 0 {
            let (code, args) = (StatusCode::NOT_FOUND, [("known", known.as_str())]);
            return ApiError::with_status(code, "error-no-earlier-revision", &args);
        }
        let revision = revision.to_string();
        let args = [("name", name), ("revision", revision.as_str()), ("known", known.as_str())];
        ApiError::with_status(StatusCode::NOT_FOUND, "error-no-revision", &args)
    })
}

/// A record's content; 502 when nobody can read it, 429 when too many are read.
pub async fn readable(
    gateway: &Gateway,
    user: &User,
    record: &Record,
) -> Result<Release, ApiError> {
    content(gateway, user, record).await?.map_err(|why| broken(record, &why))
}

/// A record's content, or why nobody can read it.
pub async fn content(
    gateway: &Gateway,
    user: &User,
    record: &Record,
) -> Result<Result<Release, BadRelease>, ApiError> {
    match record::release(&gateway.cluster, user, record).await {
        Ok(release) => Ok(Ok(release)),
        Err(ReadError::Broken(why)) => Ok(Err(why)),
        Err(ReadError::Busy) => Err(body::too_many()),
        Err(ReadError::Failed(failure)) => {
            if failure.code() == Some(StatusCode::UNAUTHORIZED) {
                gateway.authorizer.refused(user).await;
            }
            Err(failure.into())
        }
    }
}

fn broken(record: &Record, why: &BadRelease) -> ApiError {
    let reason = why.to_string();
    let args = [("secret", record.secret.as_str()), ("reason", reason.as_str())];
    ApiError::with_status(StatusCode::BAD_GATEWAY, "error-release-broken", &args)
}

/// The objects of a manifest, and what of it could not be read.
pub async fn objects(manifest: String) -> Result<(Vec<Object>, Vec<String>), ApiError> {
    parsed(move || manifest::objects(&manifest)).await
}

/// Reads a manifest where nobody waits for the thread: it may be tens of MiB. It goes on when the
/// caller leaves, so it has its place until it ends; 429 when there is none in time.
pub async fn parsed<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let place = body::turn(&READING, TURN).await?;
    let read = tokio::task::spawn_blocking(move || {
        let _place = place;
        read()
    });
    read.await.map_err(|error| ApiError::internal(&error))
}

/// What a person asks of the engine. Values may be 1 MiB of YAML, and charts come as base64: they
/// are read where nobody waits for the thread.
pub async fn act(
    head: &Parts,
    body: &Bytes,
    read: fn(&str, &[u8]) -> Result<Act, BadAct>,
) -> Result<Act, ApiError> {
    let query = head.uri.query().unwrap_or_default();
    if is_quick(body) {
        return Ok(read(query, body)?);
    }
    let (query, body) = (query.to_owned(), body.clone());
    Ok(parsed(move || read(&query, &body)).await??)
}

/// Whether a body is read as fast as it is short. A few bytes may be many values where aliases
/// repeat what an anchor names (`&`, which JSON may write as an escape).
fn is_quick(body: &[u8]) -> bool {
    let has_anchor = || body.contains(&b'&') || body.windows(5).any(|part| part == br"\u002");
    body.len() <= IN_PLACE && !has_anchor()
}

/// `GET /api/v1/release/{namespace}/{name}`.
pub async fn detail(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(request.uri(), 0)?;
    let locale = gateway.locale_of(request.headers());
    let (history, record) = asked.found(&gateway, &user).await?;
    let mut content = content(&gateway, &user, &record).await?;
    let manifest = content.as_mut().ok().map(|release| std::mem::take(&mut release.manifest));
    let now = async {
        match &content {
            Ok(_) => {
                let manifest = manifest.unwrap_or_default();
                now(&gateway, &user, locale, &asked.namespace, manifest).await
            }
            Err(why) => {
                let errors = vec![broken(&record, why).as_item(locale)];
                Ok((Look { errors, ..Look::default() }, Vec::new()))
            }
        }
    };
    let place = (asked.namespace.as_str(), asked.name.as_str());
    let standing = standing(&gateway, &user, locale, place, &history);
    let facts = facts(&gateway, &user, &asked, &history);
    let (now, (operation, stuck), facts) = tokio::join!(now, standing, facts);
    let (mut look, urls) = now?;
    let (facts, unknown) = facts?;
    look.errors.extend(unknown.map(|error| error.as_item(locale)));
    let mut body = told(&record, content.as_ref().ok());
    let newest = history.first().unwrap_or(&record);
    let protection = &gateway.helm.protection;
    let guarded = protection.of(&asked.namespace, &asked.name, &newest.labels);
    body["protection"] = guarded.shown();
    body["operation"] = operation;
    body["stuck"] = stuck;
    body["resources"] = look.shown().into();
    body["urls"] = urls.into();
    body["services"] = services(&look).into();
    body["history"] = revisions(&history, &facts);
    body["errors"] = look.errors.into();
    let room = content.ok().and_then(|release| release.room);
    Ok(events::held(secret(&gateway, &request, &body), room, WRITE))
}

/// What lists show of these revisions, and why it is not known of all. Only refused credentials
/// fail it.
async fn facts(
    gateway: &Gateway,
    user: &User,
    asked: &Asked,
    history: &[Record],
) -> Result<(Read, Option<ApiError>), ApiError> {
    let facts = &gateway.helm.facts;
    let mut found = Read::new();
    for record in history {
        let version = record.resource_version.parse().unwrap_or(0);
        let uid = Uid::from(&*record.uid);
        if let Some(fact) = facts.known(&uid, version).await {
            found.insert(uid, fact);
        }
    }
    if found.len() == history.len() {
        return Ok((found, None));
    }
    let selector = format!("owner=helm,name={}", asked.name);
    let selector = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
    let collection = RELEASE.resource.collection(Some(&encoded(&asked.namespace)));
    let path = format!("{collection}?labelSelector={selector}");
    let read = facts.read(&gateway.cluster, user, &path, &mut found).await;
    match gateway.authorizer.heed(user, read).await.map_err(ApiError::from) {
        Err(error) if error.status == StatusCode::UNAUTHORIZED => Err(error),
        read => Ok((found, read.err())),
    }
}

/// How the objects of a release are, and where it can be reached.
async fn now(
    gateway: &Gateway,
    user: &User,
    locale: Locale,
    namespace: &str,
    manifest: String,
) -> Result<(Look, Vec<Value>), ApiError> {
    let look = looked(gateway, user, locale, namespace, manifest).await?;
    let urls = urls(gateway, user, &look).await;
    Ok((look, urls))
}

/// What a record tells of a revision; without its content what its metadata knows.
fn told(record: &Record, release: Option<&Release>) -> Value {
    let at = |seconds: Option<i64>| seconds.and_then(time);
    let info = release.map(|release| &release.info);
    let last = info.map_or(Some(record.created), |info| info.last_deployed);
    let method = release.map(|release| match release.apply_method.as_str() {
        "" => CLIENT_SIDE,
        method => method,
    });
    let hooks = release.into_iter().flat_map(|release| &release.hooks).map(hook);
    json!({
        "objectMeta": {
            "name": record.name, "namespace": record.namespace, "uid": record.uid,
            "labels": record.labels, "creationTimestamp": time(record.created),
        },
        "typeMeta": type_meta(),
        "revision": record.revision,
        "status": record.status,
        "firstDeployed": at(info.and_then(|info| info.first_deployed)),
        "lastDeployed": at(last),
        "deleted": at(info.and_then(|info| info.deleted)),
        "description": info.map(|info| without_values(&info.description)).unwrap_or_default(),
        "applyMethod": method,
        "chart": release.map(|release| chart_of(&release.chart.metadata)),
        "labels": record.labels,
        "notes": info.map_or("", |info| info.notes.as_str()),
        "hooks": hooks.collect::<Vec<_>>(),
        "values": release.map(|release| &release.config),
    })
}

fn chart_of(metadata: &Value) -> Value {
    let fields = OF_CHART.iter().map(|key| {
        let value = metadata.get(*key).cloned().unwrap_or_default();
        ((*key).to_owned(), value)
    });
    Value::Object(fields.collect())
}

/// A hook without its manifest.
fn hook(hook: &Hook) -> Value {
    json!({
        "name": hook.name, "kind": hook.kind, "path": hook.path, "events": hook.events,
        "weight": hook.weight, "deletePolicies": hook.delete_policies,
        "lastRun": {
            "startedAt": hook.last_run.started_at.and_then(time),
            "completedAt": hook.last_run.completed_at.and_then(time),
            "phase": hook.last_run.phase,
        },
    })
}

/// The revisions, the newest first, each with what lists show of one.
fn revisions(history: &[Record], facts: &Read) -> Value {
    let revisions = history.iter().map(|record| {
        let fact: Option<&Fact> = facts.get(&Uid::from(&*record.uid)).map(|fact| &**fact);
        let updated = fact.and_then(|fact| fact.updated).unwrap_or(record.created);
        json!({
            "revision": record.revision, "status": record.status, "updated": time(updated),
            "chart": fact.map(|fact| &fact.chart),
            "chartVersion": fact.map(|fact| &fact.chart_version),
            "appVersion": fact.map(|fact| &fact.app_version),
            "description": fact.map(|fact| &fact.description),
        })
    });
    revisions.collect()
}

/// An answer that may hold secrets.
fn secret(gateway: &Gateway, request: &Request, body: &Value) -> Response {
    let reply = Reply::json(body.to_string(), Freshness::default().with_live()).secret();
    reply.respond(gateway, request.headers())
}

/// The same as text that no browser takes for anything else. The record's room goes with it, as
/// with all answers that may be as long as a record.
fn text<T: Send + 'static>(content: &'static str, body: String, room: T) -> Response {
    let mut response = Response::new(Body::from(body));
    for (name, value) in [
        (header::CONTENT_TYPE, content),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    events::held(response, room, WRITE)
}

/// `GET …/history`: every revision that there is a record of.
pub async fn history(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(request.uri(), 1)?;
    let locale = gateway.locale_of(request.headers());
    let (history, _) = asked.found(&gateway, &user).await?;
    let (facts, unknown) = facts(&gateway, &user, &asked, &history).await?;
    let body = json!({
        "listMeta": { "totalItems": history.len() },
        "history": revisions(&history, &facts),
        "errors": unknown.iter().map(|error| error.as_item(locale)).collect::<Vec<_>>(),
    });
    Ok(secret(&gateway, &request, &body))
}

/// `GET …/values`: the user's, and what they make of the chart's.
pub async fn values(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let release = Asked::of(request.uri(), 1)?.release(&gateway, &user).await?;
    let body = json!({ "user": release.config, "computed": computed(&release) });
    Ok(events::held(secret(&gateway, &request, &body), release.room, WRITE))
}

/// `GET …/manifest`, as YAML.
pub async fn manifest(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let release = Asked::of(request.uri(), 1)?.release(&gateway, &user).await?;
    Ok(text("application/yaml", release.manifest, release.room))
}

/// `GET …/notes`, as text; empty when the chart has none.
pub async fn notes(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let release = Asked::of(request.uri(), 1)?.release(&gateway, &user).await?;
    Ok(text("text/plain; charset=utf-8", release.info.notes, release.room))
}

/// `GET …/hooks`, with their manifests.
pub async fn hooks(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let release = Asked::of(request.uri(), 1)?.release(&gateway, &user).await?;
    let hooks = release.hooks.iter().map(|one| {
        let mut shown = hook(one);
        shown["manifest"] = one.manifest.as_str().into();
        shown
    });
    let body = json!({ "hooks": hooks.collect::<Vec<_>>() });
    Ok(events::held(secret(&gateway, &request, &body), release.room, WRITE))
}

/// `GET …/chart`: what the record holds of the chart.
pub async fn chart(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let release = Asked::of(request.uri(), 1)?.release(&gateway, &user).await?;
    let chart = &release.chart;
    let body = json!({
        "metadata": chart.metadata, "readme": chart.readme, "values": chart.values,
        "schema": chart.schema, "files": chart.files, "templates": chart.templates,
    });
    Ok(events::held(secret(&gateway, &request, &body), release.room, WRITE))
}

#[cfg(test)]
#[path = "detail_tests.rs"]
mod tests;

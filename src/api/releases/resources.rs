//! The objects of a release as they are now: each of its manifest read live as the caller, and the
//! pods that its workloads control, from views of the caller's own.
//!
//! It looks at what the release says that there is; what else has its labels is none of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::detail::{self, Asked};
use crate::api::body::get;
use crate::api::error::ApiError;
use crate::api::read::list::{is_namespace, open_joins};
use crate::api::read::related::{Chosen, is_missing, known};
use crate::api::read::usage;
use crate::api::read::view::{self, View};
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{self, encoded};
use crate::api::{Caller, Gateway, Shared};
use crate::auth::Reach;
use crate::cache::Page;
use crate::helm::manifest::Object;
use crate::helm::room::weight;
use crate::i18n::Locale;
use crate::kinds::health::{Health, health};
use crate::kinds::{Link, Row, Uid};
use crate::query::ListQuery;
use crate::upstream::{Failure, Served, UpstreamError, User};

/// Objects of one release that are read for one answer.
const LOOKS: usize = 200;
/// Of those, side by side: one request must not crowd out others.
const AT_ONCE: usize = 8;
/// For all of them: frontends give up later. What was not read by then is unknown.
const TIME: Duration = Duration::from_secs(20);
/// Bytes that trees of objects take which tell where one release can be reached: a thousand
/// ordinary ones.
const KEPT: usize = 32 << 20;
/// Namespaces that pods of one release are looked for in.
const NAMESPACES: usize = 16;

/// An object of a release, and how it is.
pub struct Seen {
    pub object: Object,
    /// Where it is; empty of what has no namespace.
    pub namespace: String,
    /// Empty unless it is there.
    pub uid: String,
    /// `ready`, `progressing`, `failing`, `missing` or `unknown`.
    pub state: &'static str,
    /// What is missing, wrong or not known; empty of what is ready.
    pub message: String,
    /// The live object where it is known, else what the manifest says. Kept only of kinds that
    /// tell where a release can be reached.
    pub value: Value,
}

/// What was seen, in the manifest's order, and what could not be read, as the contract's errors.
#[derive(Default)]
pub struct Look {
    pub seen: Vec<Seen>,
    pub errors: Vec<Value>,
}

/// What one read found.
struct Found {
    namespace: String,
    uid: String,
    state: &'static str,
    message: String,
    live: Option<Value>,
    /// Why it is not known.
    error: Option<ApiError>,
}

impl Seen {
    /// As answers show it.
    pub fn shown(&self) -> Value {
        let namespace = Some(self.namespace.as_str()).filter(|name| !name.is_empty());
        json!({
            "apiVersion": self.object.api_version, "kind": self.object.kind,
            "name": self.object.name, "namespace": namespace,
            "uid": self.uid, "state": self.state, "message": self.message,
        })
    }
}

impl Look {
    pub fn shown(&self) -> Vec<Value> {
        self.seen.iter().map(Seen::shown).collect()
    }
}

impl Found {
    fn not(state: &'static str, namespace: &str, message: String) -> Self {
        let (namespace, uid) = (namespace.to_owned(), String::new());
        Self { namespace, uid, state, message, live: None, error: None }
    }

    fn failed(namespace: &str, error: ApiError) -> Self {
        Self { error: Some(error), ..Self::not("unknown", namespace, String::new()) }
    }
}

/// `GET /api/v1/release/{namespace}/{name}/resource`.
pub async fn resources(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(request.uri(), 1)?;
    let locale = gateway.locale_of(request.headers());
    let release = asked.release(&gateway, &user).await?;
    let look = looked(&gateway, &user, locale, &asked.namespace, release.manifest).await?;
    let body = json!({
        "listMeta": { "totalItems": look.seen.len() },
        "resources": look.shown(),
        "errors": look.errors,
    });
    let reply = Reply::json(body.to_string(), Freshness::default().with_live());
    Ok(reply.respond(&gateway, request.headers()))
}

/// `GET /api/v1/release/{namespace}/{name}/pod`: the contract's list of pods.
pub async fn pods(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(request.uri(), 1)?;
    let kind = known("pod")?;
    let query = ListQuery::parse(request.uri().query(), kind)?;
    let locale = gateway.locale_of(request.headers());
    let release = asked.release(&gateway, &user).await?;
    let (mut objects, _) = detail::objects(release.manifest).await?;
    objects.retain(has_pods);
    let look = look(&gateway, &user, locale, &asked.namespace, objects).await?;
    let chosen = pods_of(&gateway, &user, locale, &look, &query).await?;
    let freshness = Freshness::of(chosen.views.iter().chain(chosen.joins.views())).with_live();
    let reply = Reply::json(chosen.body(kind)?, freshness).warned(&query.warnings);
    Ok(reply.respond(&gateway, request.headers()))
}

/// How the objects of a manifest are, and which of its documents are none.
pub async fn looked(
    gateway: &Gateway,
    user: &User,
    locale: Locale,
    namespace: &str,
    manifest: String,
) -> Result<Look, ApiError> {
    let (objects, unreadable) = detail::objects(manifest).await?;
    let mut look = look(gateway, user, locale, namespace, objects).await?;
    look.errors.extend(unreadable.iter().map(|reason| unread(reason, locale)));
    Ok(look)
}

fn unread(reason: &str, locale: Locale) -> Value {
    let (status, args) = (StatusCode::UNPROCESSABLE_ENTITY, [("reason", reason)]);
    ApiError::with_status(status, "error-manifest-unreadable", &args).as_item(locale)
}

/// Takes so many bytes of the room, if there are so many.
fn fits(room: &mut usize, bytes: usize) -> bool {
    let left = room.checked_sub(bytes);
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// How these objects of a release in `namespace` are. Only refused credentials fail it.
async fn look(
    gateway: &Gateway,
    user: &User,
    locale: Locale,
    namespace: &str,
    objects: Vec<Object>,
) -> Result<Look, ApiError> {
    let until = Instant::now() + TIME;
    let all = objects.as_slice();
    let found = futures::stream::iter(0..all.len().min(LOOKS)).map(|index| async move {
        let object = all.get(index)?;
        let found = timeout_at(until, look_at(gateway, user, namespace, object)).await;
        Some(found.unwrap_or_else(|_| Found::failed(namespace, UpstreamError::Timeout.into())))
    });
    let (mut room, mut is_whole) = (KEPT, true);
    let found = found.buffered(AT_ONCE).map(|found| {
        let mut found = found?;
        found.live = found.live.filter(|live| {
            let fitted = fits(&mut room, weight(live));
            is_whole &= fitted;
            fitted
        });
        Some(found)
    });
    let found: Vec<_> = found.collect().await;
    let (mut look, mut found) = (Look::default(), found.into_iter().flatten());
    let mut said = BTreeSet::new();
    for object in objects {
        let mut found = found.next().unwrap_or_else(|| {
            let message = format!("only the first {LOOKS} objects of a release are looked at");
            Found::not("unknown", namespace, message)
        });
        if let Some(error) = found.error.take() {
            if error.status == StatusCode::UNAUTHORIZED {
                return Err(error);
            }
            found.message = error.text(locale);
            if said.insert(found.message.clone()) {
                look.errors.push(error.as_item(locale));
            }
        }
        let Found { namespace, uid, state, message, live, .. } = found;
        let value = match live {
            Some(live) => live,
            None if !tells_where(&object) => Value::Null,
            None if fits(&mut room, object.weight()) => object.value(),
            None => {
                is_whole = false;
                Value::Null
            }
        };
        look.seen.push(Seen { object, namespace, uid, state, message, value });
    }
    if !is_whole {
        let most = KEPT >> 20;
        let reason = format!("where it can be reached is told of the first {most} MiB of services");
        look.errors.push(unread(&reason, locale));
    }
    Ok(look)
}

async fn look_at(gateway: &Gateway, user: &User, release: &str, object: &Object) -> Found {
    let namespace = object.namespace.as_deref().unwrap_or(release);
    let is_it = |served: &Served| served.group == object.group() && served.kind == object.kind;
    let served = match target::find(gateway, user, is_it).await {
        Ok(Some(served)) => served,
        Ok(None) => {
            let (kind, of) = (&object.kind, &object.api_version);
            let message = format!("the cluster serves no {kind} of {of}");
            return Found::not("missing", namespace, message);
        }
        Err(failure) => return Found::failed(namespace, failure.into()),
    };
    let found = match look_as(gateway, user, namespace, object, &served).await {
        Ok(found) => Ok(found),
        Err(failure) => match target::moved(gateway, user, &served, failure).await {
            Ok(now) => look_as(gateway, user, namespace, object, &now).await,
            Err(failure) => Err(failure),
        },
    };
    let namespace = if served.namespaced { namespace } else { "" };
    match found {
        Ok(found) => found,
        Err(failure) if is_missing(&failure) => {
            Found::not("missing", namespace, failure.to_string())
        }
        Err(failure) => Found::failed(namespace, failure.into()),
    }
}

/// Reads the object where it is if it is of this kind.
async fn look_as(
    gateway: &Gateway,
    user: &User,
    namespace: &str,
    object: &Object,
    served: &Served,
) -> Result<Found, Failure> {
    let namespace = if served.namespaced { namespace } else { "" };
    let unknown = |why: &str| Ok(Found::not("unknown", namespace, why.to_owned()));
    if !served.readable {
        return unknown("objects of this kind can only be created");
    }
    let version = served.version(Some(object.version())).or_else(|| served.version(None));
    // A name from a manifest must not reach a path before it was looked at.
    let is_odd = matches!(object.name.as_str(), "." | "..") || is_namespace(namespace).is_err();
    let Some(version) = version.filter(|_| !is_odd) else {
        return unknown("no object can have this name");
    };
    let place = served.namespaced.then(|| encoded(namespace));
    let collection = served.collection(version, place.as_deref());
    let path = format!("{collection}/{}", encoded(&object.name));
    let mut value = get(gateway, user, &path).await?;
    let (state, message) = match health(&value) {
        Health::Ready => ("ready", String::new()),
        Health::Progressing(message) => ("progressing", message),
        Health::Failing(message) => ("failing", message),
    };
    let uid = value.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        // More than all the rest.
        metadata.remove("managedFields");
    }
    Ok(Found {
        namespace: namespace.to_owned(),
        uid,
        state,
        message,
        live: tells_where(object).then_some(value),
        error: None,
    })
}

/// Whether an object tells where the release can be reached.
fn tells_where(object: &Object) -> bool {
    matches!(
        (object.group(), object.kind.as_str()),
        ("", "Service")
            | ("networking.k8s.io", "Ingress")
            | ("gateway.networking.k8s.io", "Gateway" | "HTTPRoute")
    )
}

/// Whether an object is a pod or may control some, as controllers of custom kinds do.
fn has_pods(object: &Object) -> bool {
    match object.group() {
        "" => matches!(object.kind.as_str(), "Pod" | "ReplicationController"),
        "apps" | "batch" => true,
        group => group.contains('.') && !group.ends_with(".k8s.io"),
    }
}

/// Pods that are there, and those that the objects control, themselves or by a replica set or job.
async fn pods_of(
    gateway: &Gateway,
    user: &User,
    locale: Locale,
    look: &Look,
    query: &ListQuery,
) -> Result<Chosen, ApiError> {
    let mut errors = look.errors.clone();
    let there = || look.seen.iter().filter(|seen| !seen.uid.is_empty());
    let wanted: BTreeSet<&str> = there().map(|seen| seen.namespace.as_str()).collect();
    let wanted = wanted.into_iter().filter(|name| !name.is_empty());
    let wanted: Reach = wanted.take(NAMESPACES).map(CompactString::from).collect();
    if wanted.names().next().is_none() {
        // Nothing is there: nobody needs to be asked.
        return Ok(Chosen { errors, ..Chosen::default() });
    }
    let kind = known("pod")?;
    let (pods, (mut joins, joined), (usage, unknown), between) = tokio::join!(
        view::open(gateway, user, kind, &wanted),
        open_joins(gateway, user, kind, &wanted, locale),
        usage::shown(gateway, user, kind, &wanted, locale),
        between(gateway, user, look, &wanted),
    );
    let (between, denied) = between?;
    errors.extend(denied.into_iter().map(|error| error.as_item(locale)));
    errors.extend(joined.into_iter().chain(unknown));
    joins.usage = usage;
    let pods = match pods {
        Ok(view) => view,
        Err(none) => {
            errors.insert(0, none.unless_unauthorized()?.as_item(locale));
            return Ok(Chosen { joins, errors, views: between, ..Chosen::default() });
        }
    };
    let short = pods.denied_among(&wanted).into_iter().chain(pods.missing());
    errors.extend(short.map(|error| error.as_item(locale)));
    let own = there().map(|seen| (seen.namespace.as_str().into(), seen.uid.as_str().into()));
    let own: Vec<(CompactString, Uid)> = own.collect();
    let mut owners = own.clone();
    for view in &between {
        let controlled = controlled(view, &own);
        owners.extend(controlled.iter().map(|row| (row.namespace.clone(), row.uid.clone())));
    }
    let mut rows = controlled(&pods, &owners);
    rows.extend(there().filter_map(|seen| {
        let pod = pods.store().get(&pods.scope, &seen.namespace, &seen.object.name)?;
        (pod.uid == *seen.uid).then_some(pod)
    }));
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    rows.dedup_by(|a, b| a.uid == b.uid);
    let rows = Page::left(rows, query);
    let usage = joins.usage.as_ref().filter(|_| kind.list.metrics);
    let usage = usage.map(|usage| usage.of_rows(kind, &rows, &joins));
    let page = Page::of(&rows, query);
    let views = [pods].into_iter().chain(between).collect();
    Ok(Chosen { page, usage, joins, errors, views })
}

/// The replica sets and jobs that may stand between the objects and their pods, and what of them
/// the caller may not see.
async fn between(
    gateway: &Gateway,
    user: &User,
    look: &Look,
    wanted: &Reach,
) -> Result<(Vec<View>, Vec<ApiError>), ApiError> {
    let (mut views, mut denied) = (Vec::new(), Vec::new());
    for name in ["replicaset", "job"] {
        let mut there = look.seen.iter().filter(|seen| !seen.uid.is_empty());
        if !there.any(|seen| by_way_of(&seen.object.kind).contains(&name)) {
            continue;
        }
        match view::open(gateway, user, known(name)?, wanted).await {
            Ok(view) => {
                denied.extend(view.denied_among(wanted).into_iter().chain(view.missing()));
                views.push(view);
            }
            Err(none) => denied.push(none.unless_unauthorized()?),
        }
    }
    Ok((views, denied))
}

/// The kinds through which an object of this kind controls its pods, if not by itself.
fn by_way_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" | "ReplicationController" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => &[],
        "Deployment" => &["replicaset"],
        "CronJob" => &["job"],
        _ => &["replicaset", "job"],
    }
}

/// Rows that these objects, each with its namespace, control. Owners are of the same namespace:
/// anybody may write another's uid into an object of his own.
fn controlled(view: &View, owners: &[(CompactString, Uid)]) -> Vec<Arc<Row>> {
    let mut rows = Vec::new();
    for (namespace, uid) in owners {
        view.store().linked(&view.scope, &Link::Owner(uid.clone()), |row| {
            if row.namespace == *namespace {
                rows.push(row.clone());
            }
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helm::manifest::objects;

    fn object(api_version: &str, kind: &str) -> Object {
        let text = format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: a}}}}");
        objects(&text).0.remove(0)
    }

    #[test]
    fn pods_are_looked_for_behind_workloads_and_custom_kinds_alone() {
        for (api_version, kind, wanted) in [
            ("v1", "Pod", true),
            ("v1", "ConfigMap", false),
            ("apps/v1", "Deployment", true),
            ("batch/v1", "CronJob", true),
            ("argoproj.io/v1alpha1", "Rollout", true),
            ("rbac.authorization.k8s.io/v1", "Role", false),
            ("autoscaling/v2", "HorizontalPodAutoscaler", false),
        ] {
            assert_eq!(has_pods(&object(api_version, kind)), wanted, "{kind}");
        }
        assert_eq!(by_way_of("StatefulSet"), [] as [&str; 0]);
        assert_eq!(by_way_of("Deployment"), ["replicaset"]);
        assert_eq!(by_way_of("Rollout"), ["replicaset", "job"]);
    }

    #[test]
    fn live_objects_are_kept_only_of_kinds_that_tell_where_a_release_is_reached() {
        assert!(tells_where(&object("v1", "Service")));
        assert!(tells_where(&object("gateway.networking.k8s.io/v1", "HTTPRoute")));
        assert!(!tells_where(&object("v1", "Secret")));
        assert!(!tells_where(&object("serving.knative.dev/v1", "Service")));
    }

    #[test]
    fn an_object_without_a_namespace_is_shown_without_one() {
        let object = object("rbac.authorization.k8s.io/v1", "ClusterRole");
        let (namespace, uid, message) = (String::new(), "u".into(), String::new());
        let seen = Seen { object, namespace, uid, state: "ready", message, value: Value::Null };
        let shown = seen.shown();
        assert_eq!((&shown["namespace"], &shown["state"]), (&Value::Null, &json!("ready")));
    }

    #[test]
    fn what_does_not_fit_any_more_takes_no_room_from_what_does() {
        let mut room = 10;
        let fitted = [4, 7, 6, 1].map(|bytes| fits(&mut room, bytes));
        assert_eq!((fitted, room), ([true, false, true, false], 0));
    }
}

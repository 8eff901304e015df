//! `POST /release/{namespace}/{name}/preview`: what an install, upgrade or rollback would do,
//! object by object, without doing it. The engine renders on a dry run, and each object is tried
//! out as the caller (`releases::dry`).
//!
//! Nothing is changed and nothing is locked: when it is done the cluster may be another one.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, TryStreamExt as _};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::detail;
use super::dry::{Dry, Problem, Severity, Shown, Tried};
use super::plan::{Asked, is_of};
use super::write::whose;
use crate::api::body::{self, get};
use crate::api::error::ApiError;
use crate::api::passthrough::user_name;
use crate::api::read::view;
use crate::api::target::encoded;
use crate::api::{Caller, Shared};
use crate::helm::act::{self, Act};
use crate::helm::classify::SchemaError;
use crate::helm::diff::ENTRIES;
use crate::helm::manifest::Object;
use crate::helm::names;
use crate::helm::quota::{Needs, exceeded};
use crate::helm::rendered::{Hook, Rendered};
use crate::helm::words::Verb;
use crate::upstream::Turns;

/// For all of it: proxies before us give up soon after.
const TIME: Duration = Duration::from_secs(90);
/// Objects that are tried out, each with some requests.
const OBJECTS: usize = 500;
/// Of those, side by side: one request must not crowd out others.
const AT_ONCE: usize = 8;
/// Of all rendered objects together, as JSON. Those behind it are shown without.
const RENDERED: usize = 4 << 20;
/// Namespaces whose quotas are looked at.
const NAMESPACES: usize = 8;
/// Previews at once, each with its chart or what was rendered in memory.
static SEATS: Semaphore = Semaphore::const_new(32);
/// Of those, of one caller, by his name: nobody looks at more, and a script leaves seats to others.
const OF_ONE: usize = 8;
static OWN: LazyLock<Turns<String>> = LazyLock::new(|| Turns::new(OF_ONE));

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    release: String,
    namespace: String,
    act: Verb,
    objects: Vec<Shown>,
    hooks: Vec<Hook>,
    /// Files of the chart itself with definitions that are made before anything else.
    crds: Vec<String>,
    notes: String,
    schema_errors: Vec<SchemaError>,
    /// A sentence for each rendered document that is no object.
    unreadable: Vec<String>,
    problem: Option<Problem>,
    truncated: bool,
}

/// What an answer still has room for.
struct Room {
    entries: usize,
    rendered: usize,
    truncated: bool,
}

/// `POST …/release/{namespace}/{name}/preview`.
pub async fn preview(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let place = detail::Asked::of(&head.uri, 1)?;
    names::release(&place.name)?;
    let caller = user_name(&gateway, &user).await;
    if caller.is_empty() {
        // Strangers send us no charts.
        view::verified(&gateway, &user).await?;
    }
    let caller = whose(&caller, &user);
    let (body, large) = body::with_chart(&user, &head.headers, body).await?;
    let act = detail::act(&head, &body, |_, body| act::preview(body)).await?;
    drop((body, large));
    let _seat = seat(&caller)?;
    let asked = Asked {
        gateway: &gateway,
        user: &user,
        caller: &caller,
        locale: gateway.locale_of(&head.headers),
        namespace: &place.namespace,
        name: &place.name,
    };
    let preview = match tokio::time::timeout(TIME, asked.preview(&act)).await {
        Ok(preview) => preview?,
        Err(_) => {
            let problem = Some(Problem::error("timeout", asked.sentence("timeout")));
            Preview { problem, truncated: true, ..asked.empty(&act) }
        }
    };
    // Not by way of a tree: it may be long.
    let preview = serde_json::to_string(&preview).map_err(|error| ApiError::internal(&error))?;
    let head = [(header::CONTENT_TYPE, body::JSON), (header::CACHE_CONTROL, "no-store")];
    Ok((head, preview).into_response())
}

/// One of the caller's seats and one of all; 429 when there is none.
fn seat(caller: &str) -> Result<(OwnedSemaphorePermit, SemaphorePermit<'static>), ApiError> {
    let own = OWN.at(caller.to_owned()).try_acquire_owned().map_err(|_| body::too_many())?;
    Ok((own, SEATS.try_acquire().map_err(|_| body::too_many())?))
}

impl Asked<'_> {
    async fn preview(&self, act: &Act) -> Result<Preview, ApiError> {
        let plan = match act {
            Act::Install(deploy) | Act::Upgrade(deploy) => self.deployed(act, deploy).await?,
            Act::Rollback(back) => self.rolled_back(back).await?,
            Act::Uninstall(_) | Act::Test(_) => return Err(body::malformed(&"it has no preview")),
        };
        let Rendered { objects, unreadable, hooks, notes } = plan.rendered;
        let namespaces = objects.iter().filter(|object| is_of(object, ("", "Namespace")));
        let own = plan.creates_namespace.then(|| self.namespace.to_owned());
        let dry = Dry {
            gateway: self.gateway,
            user: self.user,
            locale: self.locale,
            release: self.name,
            namespace: self.namespace,
            way: plan.way,
            namespaces: namespaces.map(|object| object.name.clone()).chain(own).collect(),
            kinds: plan.kinds,
        };
        let is_whole = unreadable.is_empty();
        let (tried, truncated) = self.tried(&dry, (&objects, is_whole), &plan.old).await?;
        let problem = match plan.problem {
            Some(problem) if problem.severity == Severity::Error => Some(problem),
            // The engine looks for all kinds before it makes anything.
            _ if tried.iter().any(has_no_kind) => {
                Some(Problem::error("crd-missing", self.sentence("crd-missing")))
            }
            known => self.over_quota(&tried).await?.or(known),
        };
        Ok(Preview {
            objects: tried.into_iter().map(|tried| tried.shown).collect(),
            hooks,
            crds: plan.crds,
            notes,
            schema_errors: plan.schema_errors,
            unreadable,
            problem,
            truncated: truncated || plan.truncated,
            ..self.empty(act)
        })
    }

    fn empty(&self, act: &Act) -> Preview {
        Preview {
            release: self.name.to_owned(),
            namespace: self.namespace.to_owned(),
            act: act.verb(),
            objects: Vec::new(),
            hooks: Vec::new(),
            crds: Vec::new(),
            notes: String::new(),
            schema_errors: Vec::new(),
            unreadable: Vec::new(),
            problem: None,
            truncated: false,
        }
    }

    /// Every object tried out, in the manifest's order, then those that go; and whether some of it
    /// was left out.
    async fn tried(
        &self,
        dry: &Dry<'_>,
        (objects, is_whole): (&[Object], bool),
        old: &[Object],
    ) -> Result<(Vec<Tried>, bool), ApiError> {
        let key = |object: &Object| {
            let namespace = object.namespace.as_deref().unwrap_or(self.namespace).to_owned();
            (object.group().to_owned(), object.kind.clone(), namespace, object.name.clone())
        };
        let before: HashMap<_, &Object> = old.iter().map(|object| (key(object), object)).collect();
        let after: HashMap<_, &Object> =
            objects.iter().map(|object| (key(object), object)).collect();
        // What was not read may be among them.
        let gone = old.iter().filter(|object| is_whole && !after.contains_key(&key(object)));
        let all: Vec<(&Object, bool)> = objects
            .iter()
            .map(|object| (object, true))
            .chain(gone.map(|object| (object, false)))
            .collect();
        let (all, before) = (all.as_slice(), &before);
        let mut tried = futures::stream::iter(0..all.len().min(OBJECTS))
            .map(|index| async move {
                match all.get(index) {
                    Some((object, true)) => {
                        let old = before.get(&key(object)).copied();
                        dry.tried(object, old).await.map(Some)
                    }
                    Some((object, false)) => dry.gone(object).await,
                    None => Ok(None),
                }
            })
            .buffered(AT_ONCE);
        let mut room = Room::new(!is_whole || all.len() > OBJECTS);
        let mut found = Vec::new();
        while let Some(one) = tried.try_next().await? {
            if let Some(mut one) = one {
                room.take(&mut one.shown);
                found.push(one);
            }
        }
        Ok((found, room.truncated))
    }

    /// Which quotas the release does not fit into, as far as the caller may see them.
    async fn over_quota(&self, tried: &[Tried]) -> Result<Option<Problem>, ApiError> {
        let mut needs: BTreeMap<&str, Needs> = BTreeMap::new();
        for one in tried {
            let Some(namespace) = one.shown.namespace.as_deref() else { continue };
            let sums = needs.entry(namespace).or_default();
            for (name, amount) in &one.needs {
                let sum = sums.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        needs.retain(|_, needs| needs.values().any(|amount| *amount > 0));
        let mut found = Vec::new();
        for (namespace, needs) in needs.into_iter().take(NAMESPACES) {
            let namespace_path = format!("/api/v1/namespaces/{}", encoded(namespace));
            let path = format!("{namespace_path}/resourcequotas?limit=100");
            let quotas = match get(self.gateway, self.user, &path).await {
                Ok(quotas) => quotas,
                Err(failure) if failure.code() == Some(StatusCode::UNAUTHORIZED) => {
                    return Err(failure.into());
                }
                // What may not be seen cannot be told of.
                Err(_) => continue,
            };
            for quota in quotas.get("items").and_then(Value::as_array).into_iter().flatten() {
                let sentences = exceeded(&needs, quota).into_iter();
                found.extend(sentences.map(|sentence| format!("{namespace}/{sentence}")));
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let problem = Problem::error("quota", self.sentence("quota"));
        Ok(Some(Problem { detail: found.join("\n"), ..problem }))
    }
}

fn has_no_kind(tried: &Tried) -> bool {
    let problem = tried.shown.problem.as_ref();
    problem.is_some_and(|problem| {
        (problem.class, problem.severity) == ("crd-missing", Severity::Error)
    })
}

impl Room {
    fn new(truncated: bool) -> Self {
        Self { entries: ENTRIES, rendered: RENDERED, truncated }
    }

    /// Cuts an object down to what there is room for.
    fn take(&mut self, shown: &mut Shown) {
        let entries = shown.diff.len();
        self.truncated |= entries > self.entries || entries == ENTRIES;
        shown.diff.truncate(self.entries);
        self.entries -= shown.diff.len();
        let size = shown.rendered.as_ref().map_or(0, |object| object.get().len());
        if size > self.rendered {
            shown.rendered = None;
            self.truncated = true;
        } else {
            self.rendered -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_previews_much_leaves_seats_to_others() {
        let jane: Vec<_> = (0..OF_ONE).map(|_| seat("jane").unwrap()).collect();
        assert_eq!(seat("jane").unwrap_err().status, StatusCode::TOO_MANY_REQUESTS);
        assert!(seat("joe").is_ok());
        drop(jane);
        assert!(seat("jane").is_ok());
    }

    #[test]
    fn what_there_is_no_room_for_is_cut_and_told() {
        let object = || Shown {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: "a".into(),
            namespace: None,
            change: "change",
            diff: crate::helm::diff::changes(
                &serde_json::json!({"data": {"a": "1", "b": "1"}}),
                &serde_json::json!({"data": {"a": "2", "b": "2"}}),
            ),
            rendered: serde_json::value::to_raw_value(&"r".repeat(10)).ok(),
            problem: None,
        };
        let mut room = Room { entries: 3, rendered: 20, truncated: false };
        let (mut first, mut second) = (object(), object());
        room.take(&mut first);
        assert!(first.diff.len() == 2 && first.rendered.is_some() && !room.truncated);
        room.take(&mut second);
        assert!(second.diff.len() == 1 && second.rendered.is_none() && room.truncated);
    }
}

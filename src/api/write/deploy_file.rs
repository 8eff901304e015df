//! Objects from a file: YAML of several documents, or JSON, made as the caller. All are looked at
//! first and tried (dry run); what lies in a namespace or is of a kind that the same file makes
//! cannot be, and what can only be created is not. Should one fail in the middle all the same, the
//! answer says which exist now.
//!
//! It creates and never updates, as the contract has it. Like kubectl it takes no field that the
//! API server does not know.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::raw::STRICT;
use crate::api::body::{self, JSON, send};
use crate::api::error::ApiError;
use crate::api::read::list;
use crate::api::read::view;
use crate::api::releases::detail::parsed;
use crate::api::target::{self, encoded};
use crate::api::written::Wrote;
use crate::api::{Caller, Gateway, Shared};
use crate::helm::room::nodes;
use crate::kinds::KINDS;
use crate::upstream::{Failure, Served, Turns, User};
use crate::yaml;

/// Objects of one file: each costs three requests, and the caller waits for all of them.
const OBJECTS: usize = 200;
/// Bytes of texts that a file may have once its aliases are followed, if it is not longer itself.
const TEXT: usize = 8 << 20;
/// Nodes of a file; of short YAML fewer, whatever its aliases repeat.
const NODES: usize = 250_000;
/// Files of one caller under way at once, from when they are read until all is made.
const OF_ONE: usize = 4;
static TURNS: LazyLock<Turns> = LazyLock::new(|| Turns::new(OF_ONE));
/// For the documents' own namespaces.
const OWN: &str = "_all";
const MISMATCH: &str = "MSG_DEPLOY_NAMESPACE_MISMATCH_ERROR";
const EMPTY: &str = "MSG_DEPLOY_EMPTY_NAMESPACE_ERROR";
/// What the words of admission name that refuses a pod because something is not there.
const LOOKED_UP: [&str; 3] = ["service account", "PriorityClass", "RuntimeClass"];
/// A custom kind is served about a second after its definition was made.
const ESTABLISHED: (u32, Duration) = (50, Duration::from_millis(200));

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    content: String,
}

/// An object that is to be made.
struct Planned {
    /// As it is sent; its tree would be several times as large.
    body: Bytes,
    /// Where it is posted.
    path: String,
    group: String,
    plural: String,
    namespace: String,
    /// For people: `Deployment atlas/tiles`.
    shown: String,
    /// Its namespace or its definition comes with the file: before that it cannot be tried. Or it
    /// can only be created: some of these act whatever they are told of a dry run, as OpenShift's
    /// `ProjectRequest` does, whose project would then be there already.
    is_untried: bool,
    /// What the API server looks up before it makes it, as far as that comes with the file; names.
    bases: Vec<String>,
}

impl Planned {
    /// Whether it stands on an earlier object of the file.
    fn waits(&self) -> bool {
        self.is_untried || !self.bases.is_empty()
    }

    /// Whether it was refused, when it was tried, because what it stands on is not there yet.
    fn lacks_a_base(&self, failure: &Failure) -> bool {
        let words = failure.to_string();
        // As roles, accounts and runtime classes are missed, and as priority classes are.
        let is_missed = |name: &String| {
            words.contains(&format!("\"{name}\" not found"))
                || words.contains(&format!("with name {name} was found"))
        };
        is_early(failure) && self.bases.iter().any(is_missed)
    }
}

/// `POST /api/v1/appdeploymentfromfile`: 201 and the file itself.
pub async fn deploy(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let spec: Spec = body::read(&gateway, &head.headers, body).await?;
    // Nothing is read for somebody made up, and what is wrong with it tells what the cluster serves.
    view::verified(&gateway, &user).await?;
    let turn = timeout(body::TURN, TURNS.of(&user).acquire_owned()).await;
    let turn = turn.ok().and_then(Result::ok).ok_or_else(body::too_many)?;
    let content = spec.content.clone();
    let objects = parsed(move || objects(&content)).await??;
    let plan = plan(&gateway, &user, objects, &spec.namespace).await?;
    for planned in plan.iter().filter(|planned| !planned.is_untried) {
        match post(&gateway, &user, planned, "&dryRun=All").await {
            Err(failure) if !planned.lacks_a_base(&failure) => {
                let args = [("object", planned.shown.as_str())];
                return Err(ApiError::from(failure).followed_by("error-nothing-created", &args));
            }
            _ => {}
        }
    }
    // In a task of its own: a client that goes away must not leave a half of it.
    let making = tokio::spawn(async move {
        let _turn = turn;
        make(&gateway, &user, &plan).await
    });
    let wrote = making.await.map_err(|error| ApiError::internal(&error))??;
    let answer = json!({ "name": spec.name, "content": spec.content, "error": "" });
    let mut answer = body::answer(StatusCode::CREATED, &answer);
    answer.extensions_mut().insert(wrote);
    Ok(answer)
}

/// Makes the objects one after the other.
async fn make(gateway: &Gateway, user: &User, plan: &[Planned]) -> Result<Vec<Wrote>, ApiError> {
    let mut wrote = Vec::new();
    for (index, planned) in plan.iter().enumerate() {
        let made = create(gateway, user, planned).await;
        let made = made.map_err(|failure| half_done(failure, plan, index))?;
        let mut kinds = KINDS.iter().filter(|kind| kind.is_kept());
        let kind = kinds.find(|kind| {
            kind.resource.group == planned.group && kind.resource.plural == planned.plural
        });
        if let Some(kind) = kind {
            let one = Wrote::of(kind, &planned.namespace, &made);
            gateway.writes.note(user, &one);
            wrote.push(one);
        }
    }
    Ok(wrote)
}

/// The file's objects; those of a `List` one by one.
fn objects(content: &str) -> Result<Vec<Value>, ApiError> {
    // Depth is bounded by the parser's own budget.
    // Numbers such as 0400 are octal, and the key `on` is `true`, as kubectl reads them.
    let options = || {
        serde_saphyr::options! {
            legacy_octal_numbers: true,
            budget: serde_saphyr::budget! {
                max_nodes: yaml::nodes(content, NODES),
                max_total_scalar_bytes: content.len().max(TEXT),
            },
        }
    };
    let documents =
        yaml::read(content, |content| serde_saphyr::from_multiple_with_options(content, options()));
    let documents: Vec<Value> = match documents {
        Ok(documents) => documents,
        Err(error) => stream(content).ok_or_else(|| body::malformed(&yaml::reason(&error)))?,
    };
    let mut all = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if text(&document, "/kind").ends_with("List") => {
                all.extend(items.iter().map(|item| of_list(&document, item)));
            }
            _ => all.push(document),
        }
    }
    match all.len() {
        0 => Err(body::malformed(&"there is no document in it")),
        1..=OBJECTS => Ok(all),
        many => Err(body::malformed(&format!("it has {many} objects; {OBJECTS} are the most"))),
    }
}

/// JSON objects one after the other, as `jq -c` writes them and kubectl takes them, which of fields of
/// one name takes the last, too; no YAML has that. `None` where the text is anything else.
fn stream(content: &str) -> Option<Vec<Value>> {
    if !content.trim_start().starts_with('{') || nodes(content.as_bytes()) > NODES {
        return None;
    }
    let all = serde_json::Deserializer::from_str(content).into_iter::<Value>();
    let all = all.collect::<Result<Vec<Value>, _>>().ok()?;
    (all.len() > 1).then_some(all)
}

/// An item of a list. One of a single kind, a `RoleList`, names kind and version once for all of
/// them, as kubectl reads it (apimachinery, unstructured/helpers.go); a `List` names none.
fn of_list(list: &Value, item: &Value) -> Value {
    let mut item = item.clone();
    let kind = text(list, "/kind");
    let kind = kind.strip_suffix("List").unwrap_or(kind);
    let is_bare = text(&item, "/kind").is_empty() && text(&item, "/apiVersion").is_empty();
    if let Some(fields) = item.as_object_mut().filter(|_| is_bare && !kind.is_empty()) {
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("apiVersion".to_owned(), text(list, "/apiVersion").into());
    }
    item
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What a file makes for later documents of its own.
#[derive(Default)]
struct Own {
    namespaces: HashSet<String>,
    kinds: Vec<Served>,
    /// Kind, namespace and name of each object.
    made: HashSet<(String, String, String)>,
}

async fn plan(
    gateway: &Gateway,
    user: &User,
    objects: Vec<Value>,
    namespace: &str,
) -> Result<Vec<Planned>, ApiError> {
    let mut own = Own::default();
    let mut plan: Vec<Planned> = Vec::new();
    for (index, object) in objects.into_iter().enumerate() {
        let number = index + 1;
        for (pointer, field) in [("/apiVersion", "apiVersion"), ("/kind", "kind")] {
            if text(&object, pointer).is_empty() {
                return Err(body::malformed(&format!("document {number} has no {field}")));
            }
        }
        let (name, generated) =
            (text(&object, "/metadata/name"), text(&object, "/metadata/generateName"));
        if name.is_empty() && generated.is_empty() {
            return Err(body::malformed(&format!("document {number} has no metadata.name")));
        }
        let (served, version, is_own) = find(gateway, user, &own, &object, number).await?;
        let place = namespace_of(&served, &object, namespace)?;
        let bases = own.bases(&object, &place);
        own.take(&object, &place);
        let is_untried = is_own || !served.readable || own.namespaces.contains(&place);
        let encoded = encoded(&place);
        let shown = match place.as_str() {
            "" => format!("{} {name}{generated}", served.kind),
            place => format!("{} {place}/{name}{generated}", served.kind),
        };
        let twice = |other: &Planned| other.shown == shown && other.group == served.group;
        if !name.is_empty() && plan.iter().any(twice) {
            return Err(body::malformed(&format!("document {number}: {shown} is there twice")));
        }
        plan.push(Planned {
            path: served.collection(&version, (!place.is_empty()).then_some(&encoded)),
            group: served.group,
            plural: served.plural,
            namespace: place,
            body: Bytes::from(object.to_string()),
            shown,
            is_untried,
            bases,
        });
    }
    Ok(plan)
}

impl Own {
    fn take(&mut self, object: &Value, place: &str) {
        let of = |pointer: &str| text(object, pointer).to_owned();
        self.made.insert((of("/kind"), place.to_owned(), of("/metadata/name")));
        let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
        match (group, text(object, "/kind"), text(object, "/metadata/name")) {
            (_, _, "") => {}
            ("", "Namespace", name) => {
                self.namespaces.insert(name.to_owned());
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition", _) => {
                let versions = object.pointer("/spec/versions").and_then(Value::as_array);
                let versions = versions.into_iter().flatten();
                self.kinds.push(Served {
                    group: text(object, "/spec/group").to_owned(),
                    kind: text(object, "/spec/names/kind").to_owned(),
                    plural: text(object, "/spec/names/plural").to_owned(),
                    namespaced: text(object, "/spec/scope") == "Namespaced",
                    versions: versions.map(|one| text(one, "/name").to_owned()).collect(),
                    scalable: false,
                    readable: true,
                });
            }
            _ => {}
        }
    }

    /// The names of what earlier objects bring and the API server looks up before it makes this
    /// one: the role of a binding, whose rights its maker must have, and what admission reads for a
    /// pod.
    fn bases(&self, object: &Value, place: &str) -> Vec<String> {
        let wanted = match text(object, "/kind") {
            "RoleBinding" | "ClusterRoleBinding" => {
                vec![(text(object, "/roleRef/kind"), "/roleRef/name")]
            }
            "Pod" => vec![
                ("ServiceAccount", "/spec/serviceAccountName"),
                ("ServiceAccount", "/spec/serviceAccount"),
                ("PriorityClass", "/spec/priorityClassName"),
                ("RuntimeClass", "/spec/runtimeClassName"),
            ],
            _ => Vec::new(),
        };
        let named = wanted.into_iter().map(|(kind, pointer)| (kind, text(object, pointer)));
        let is_made = |(kind, name): &(&str, &str)| {
            // In its own namespace or, as cluster roles and classes, in none.
            let key = |place: &str| ((*kind).to_owned(), place.to_owned(), (*name).to_owned());
            !name.is_empty() && [place, ""].into_iter().any(|at| self.made.contains(&key(at)))
        };
        named.filter(is_made).map(|(_, name)| name.to_owned()).collect()
    }
}

/// What the cluster calls the object's kind, its version, and whether only this file makes it known.
async fn find(
    gateway: &Gateway,
    user: &User,
    own: &Own,
    object: &Value,
    number: usize,
) -> Result<(Served, String, bool), ApiError> {
    let (api_version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let is_it = |served: &Served| {
        served.group == group && served.kind == kind && served.version(Some(version)).is_some()
    };
    if let Some(served) = own.kinds.iter().find(|served| is_it(served)) {
        return Ok((served.clone(), version.to_owned(), true));
    }
    match target::find(gateway, user, is_it).await? {
        Some(served) => Ok((served, version.to_owned(), false)),
        None => {
            let reason =
                format!("document {number}: the cluster serves no {kind} of {api_version}");
            Err(body::malformed(&reason))
        }
    }
}

/// The namespace to make the object in; empty for what has none. The contract's own words tell
/// what is wrong.
fn namespace_of(served: &Served, object: &Value, asked: &str) -> Result<String, ApiError> {
    let own = text(object, "/metadata/namespace");
    if !served.namespaced {
        return Ok(String::new());
    }
    match (asked, own) {
        (OWN | "", "") => Err(ApiError::contract(StatusCode::BAD_REQUEST, EMPTY)),
        (OWN | "", name) | (name, "") => list::is_namespace(name).map(|()| name.to_owned()),
        (asked, own) if asked == own => list::is_namespace(own).map(|()| own.to_owned()),
        _ => Err(ApiError::contract(StatusCode::BAD_REQUEST, MISMATCH)),
    }
}

async fn post(
    gateway: &Gateway,
    user: &User,
    planned: &Planned,
    more: &str,
) -> Result<Value, Failure> {
    let path = format!("{}?{STRICT}{more}", planned.path);
    send(gateway, user, Method::POST, &path, JSON, planned.body.clone()).await
}

/// Makes the object; what stands on another one of the file has to wait until that is heard of.
async fn create(gateway: &Gateway, user: &User, planned: &Planned) -> Result<Value, Failure> {
    let (tries, pause) = if planned.waits() { ESTABLISHED } else { (1, Duration::ZERO) };
    let mut left = tries;
    loop {
        left -= 1;
        match post(gateway, user, planned, "").await {
            Err(failure) if left > 0 && is_early(&failure) => {
                tokio::time::sleep(pause).await;
            }
            made => return made,
        }
    }
}

/// What an earlier object brings is not there yet: a kind, a role, a namespace or its service
/// account, or what admission looks up.
fn is_early(failure: &Failure) -> bool {
    match failure.code() {
        Some(StatusCode::NOT_FOUND) => true,
        Some(StatusCode::FORBIDDEN) => {
            let words = failure.to_string();
            LOOKED_UP.iter().any(|what| words.contains(what))
        }
        _ => false,
    }
}

/// An error in the middle, with what exists now and what does not.
fn half_done(failure: Failure, plan: &[Planned], done: usize) -> ApiError {
    let names = |planned: &[Planned]| {
        let names: Vec<&str> = planned.iter().map(|planned| planned.shown.as_str()).collect();
        if names.is_empty() { "–".to_owned() } else { names.join(", ") }
    };
    let (made, rest) = plan.split_at(done.min(plan.len()));
    let made = names(made);
    if failure.code().is_none() {
        // No answer came: the object under way may exist.
        let (unknown, missing) = rest.split_at(rest.len().min(1));
        let (unknown, missing) = (names(unknown), names(missing));
        let args =
            [("created", made.as_str()), ("unknown", &unknown), ("missing", missing.as_str())];
        return ApiError::from(failure).followed_by("error-half-unknown", &args);
    }
    let missing = names(rest);
    let args = [("created", made.as_str()), ("missing", missing.as_str())];
    ApiError::from(failure).followed_by("error-half-created", &args)
}

#[cfg(test)]
#[path = "deploy_file_tests.rs"]
mod tests;

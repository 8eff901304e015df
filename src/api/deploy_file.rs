//! Objects from a file: YAML of several documents, or JSON, made as the caller. All are looked at
//! first and tried (dry run); what lies in a namespace or is of a kind that the same file makes
//! cannot be. Should one fail in the middle all the same, the answer says which exist now.
//!
//! It creates and never updates, as the contract has it. Like kubectl it takes no field that the
//! API server does not know.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, JSON, send};
use super::error::ApiError;
use super::raw::STRICT;
use super::target::{self, encoded};
use super::written::Wrote;
use super::{Caller, Gateway, Shared, list, view};
use crate::kinds::KINDS;
use crate::upstream::{Failure, Served, User};
use crate::yaml;

/// Objects of one file: each costs three requests, and the caller waits for all of them.
const OBJECTS: usize = 200;
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
    object: Value,
    /// Where it is posted.
    path: String,
    group: String,
    plural: String,
    namespace: String,
    /// For people: `Deployment atlas/tiles`.
    shown: String,
    /// Its namespace or its definition comes with the file: before that it cannot be tried.
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
    let plan = match plan(&gateway, &user, objects(&spec.content)?, &spec.namespace).await {
        Ok(plan) => plan,
        // What is wrong with it tells what the cluster serves.
        Err(error) => return Err(view::told_to_known(&gateway, &user, error).await),
    };
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
    let making = tokio::spawn(async move { make(&gateway, &user, &plan).await });
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
    // Aliases, depth and size are bounded by the parser's own budget.
    // Numbers such as 0400 are octal, as kubectl reads them.
    let options = || serde_saphyr::options! { legacy_octal_numbers: true };
    let documents =
        yaml::read(content, |content| serde_saphyr::from_multiple_with_options(content, options()));
    let documents: Vec<Value> =
        documents.map_err(|error| body::malformed(&yaml::reason(&error)))?;
    let mut all = Vec::new();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if text(&document, "/kind").ends_with("List") => all.extend(items.clone()),
            _ => all.push(document),
        }
    }
    match all.len() {
        0 => Err(body::malformed(&"there is no document in it")),
        1..=OBJECTS => Ok(all),
        many => Err(body::malformed(&format!("it has {many} objects; {OBJECTS} are the most"))),
    }
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
        let is_untried = is_own || own.namespaces.contains(&place);
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
            object,
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
    let body = planned.object.to_string();
    send(gateway, user, Method::POST, &path, JSON, Bytes::from(body)).await
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
mod tests {
    use super::*;

    fn config_maps() -> Served {
        Served {
            group: String::new(),
            kind: "ConfigMap".into(),
            plural: "configmaps".into(),
            namespaced: true,
            versions: vec!["v1".into()],
            scalable: false,
        }
    }

    #[test]
    fn documents_are_yaml_or_json_and_lists_are_taken_apart() {
        assert_eq!(objects("a: 1\n---\n# nothing\n---\nb: 2\n").unwrap().len(), 2);
        assert_eq!(objects(r#"{"kind": "Pod"}"#).unwrap()[0]["kind"], "Pod");
        let list = "kind: List\nitems:\n- {kind: A}\n- {kind: B}\n";
        assert_eq!(objects(list).unwrap().len(), 2);
        for bad in ["", "---\n---\n", "a: [", "a: b: c"] {
            assert!(objects(bad).is_err(), "{bad}");
        }
        assert!(objects(&"a: 1\n---\n".repeat(OBJECTS + 1)).is_err());
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}", level - 1);
            let row = vec![below; 9].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
        }
        assert!(objects(&bomb).is_err());
        assert!(objects(&format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000))).is_err());
    }

    #[test]
    fn what_the_api_server_looks_up_may_come_with_the_file() {
        let mut own = Own::default();
        for (kind, place, name) in [
            ("Role", "atlas", "readers"),
            ("ClusterRole", "", "viewers"),
            ("ServiceAccount", "atlas", "runner"),
            ("PriorityClass", "", "high"),
            ("ServiceAccount", "atlas", ""),
        ] {
            own.take(&json!({"kind": kind, "metadata": {"name": name}}), place);
        }
        let binding = |kind: &str, role: &str, name: &str| {
            let reference = json!({"kind": role, "name": name});
            json!({"kind": kind, "roleRef": reference})
        };
        let pod = |account: &str, class: &str| {
            let spec = json!({"serviceAccountName": account, "priorityClassName": class});
            json!({"kind": "Pod", "spec": spec})
        };
        for (object, place, expected) in [
            (binding("RoleBinding", "Role", "readers"), "atlas", vec!["readers"]),
            (binding("RoleBinding", "Role", "readers"), "other", vec![]),
            (binding("RoleBinding", "Role", "viewers"), "atlas", vec![]),
            (binding("RoleBinding", "ClusterRole", "viewers"), "atlas", vec!["viewers"]),
            (binding("ClusterRoleBinding", "ClusterRole", "viewers"), "", vec!["viewers"]),
            (binding("Deployment", "Role", "readers"), "atlas", vec![]),
            (pod("runner", "high"), "atlas", vec!["runner", "high"]),
            (pod("runner", "low"), "other", vec![]),
            (pod("", ""), "atlas", vec![]),
        ] {
            assert_eq!(own.bases(&object, place), expected, "{object} in {place}");
        }
    }

    #[test]
    fn only_a_base_of_its_own_is_forgiven_to_an_object_that_was_tried() {
        let refused = |code: StatusCode, message: &str| {
            let status = json!({"kind": "Status", "message": message}).to_string();
            Failure::status(code, status.as_bytes())
        };
        let planned = Planned {
            object: Value::Null,
            path: String::new(),
            group: String::new(),
            plural: String::new(),
            namespace: String::new(),
            shown: String::new(),
            is_untried: false,
            bases: vec!["runner".into()],
        };
        let (missing, forbidden) = (StatusCode::NOT_FOUND, StatusCode::FORBIDDEN);
        for (code, words, is_forgiven) in [
            (missing, "roles.rbac.authorization.k8s.io \"runner\" not found", true),
            (missing, "namespaces \"atlas\" not found", false),
            (
                forbidden,
                "pods \"a\" is forbidden: error looking up service account atlas/runner: \
                 serviceaccount \"runner\" not found",
                true,
            ),
            (forbidden, "pods \"runner\" is forbidden: exceeded quota: pods", false),
            (
                forbidden,
                "pods \"runner\" is forbidden: no PriorityClass with name none was found",
                false,
            ),
            (StatusCode::CONFLICT, "pods \"runner\" already exists", false),
        ] {
            assert_eq!(planned.lacks_a_base(&refused(code, words)), is_forgiven, "{words}");
        }
    }

    #[test]
    fn the_namespace_is_that_of_the_form_or_of_the_document_and_never_two() {
        let of = |own: &str, asked: &str| {
            let object = json!({"metadata": {"namespace": own}});
            namespace_of(&config_maps(), &object, asked).map_err(|error| error.status.as_u16())
        };
        assert_eq!(of("a", OWN), Ok("a".into()));
        assert_eq!(of("", "b"), Ok("b".into()));
        assert_eq!(of("b", "b"), Ok("b".into()));
        assert_eq!(of("a", "b"), Err(400));
        assert_eq!(of("", OWN), Err(400));
        let cluster = Served { namespaced: false, ..config_maps() };
        let object = json!({"metadata": {"namespace": "a"}});
        assert_eq!(namespace_of(&cluster, &object, "b").unwrap(), "");
    }
}

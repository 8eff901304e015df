//! Writes: create, update, patch, delete, status and scale.
//!
//! Nothing but a namespace is defaulted, nothing is validated beyond names and versions, there are
//! no finalizers and no grace periods: what is deleted is gone at once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ask::{Ask, Resource};
use super::kinds::{
    CLAIM, KINDS, Kind, NAMESPACE, POD, RESOURCE_QUOTA, SERVICE, SERVICE_ACCOUNT, Serve, VOLUME,
};
use super::objects;
use super::patch::Patch;
use super::read::{self, space};
use super::reply::{self, Fail, Reply};
use super::store::{Store, Stored, metadata_of};
use super::table::Form;

/// Kinds whose deletion answers with the object; that of others, with a Status.
static RETURNED: [&Kind; 7] =
    [&POD, &NAMESPACE, &SERVICE, &SERVICE_ACCOUNT, &CLAIM, &VOLUME, &RESOURCE_QUOTA];

fn whole(code: u16, kind: &Kind, object: &Stored) -> Reply {
    reply::whole(code, "application/json", object.full(kind))
}

pub(super) fn create(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    mut object: Value,
) -> Result<Reply, Fail> {
    if !path.name.is_empty() {
        return Err(Fail::method());
    }
    check_type(kind, &object)?;
    let namespace = space(kind, path);
    if kind.namespaced {
        if namespace.is_empty() {
            return Err(Fail::method());
        }
        check_namespace(&object, namespace)?;
        if store.get(&NAMESPACE, "", namespace).is_none() {
            return Err(Fail::not_found(&NAMESPACE, namespace));
        }
    }
    let metadata = metadata_of(&mut object)?;
    if metadata.contains_key("resourceVersion") {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(Fail::bad_request(message));
    }
    for given in ["uid", "creationTimestamp", "generation", "deletionTimestamp"] {
        metadata.remove(given);
    }
    if std::ptr::eq(kind, &NAMESPACE) {
        complete_namespace(&mut object);
    }
    let object = store.create(kind, namespace, object, ask.query.dry_run())?;
    Ok(whole(201, kind, &object))
}

/// What the API server itself gives a new namespace.
fn complete_namespace(namespace: &mut Value) {
    let name = namespace["metadata"]["name"].clone();
    if let (true, Value::Object(metadata)) = (name.is_string(), &mut namespace["metadata"])
        && let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| json!({}))
    {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
    namespace["spec"] = json!({ "finalizers": ["kubernetes"] });
    namespace["status"] = json!({ "phase": "Active" });
}

/// 400 when the object says another namespace than the path.
fn check_namespace(object: &Value, namespace: &str) -> Result<(), Fail> {
    let said = object.pointer("/metadata/namespace").and_then(Value::as_str);
    if said.is_none_or(|said| said.is_empty() || said == namespace) {
        return Ok(());
    }
    let message = "the namespace of the provided object does not match the namespace sent on the \
                   request";
    Err(Fail::bad_request(message))
}

/// The body must be of the kind that the path names, if it says one.
fn check_type(kind: &Kind, object: &Value) -> Result<(), Fail> {
    let said = |field: &str| object.get(field).and_then(Value::as_str);
    let version = kind.api_version();
    let fits = said("kind").is_none_or(|it| it == kind.kind)
        && said("apiVersion").is_none_or(|it| it == version);
    if fits {
        return Ok(());
    }
    let message = format!("the object provided is not a {} of {version}", kind.kind);
    Err(Fail::bad_request(message))
}

/// 409 when the new object was made from an older version than the stored one.
fn check_version(kind: &Kind, old: &Value, new: &Value) -> Result<(), Fail> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    match version(new) {
        Value::Null => Ok(()),
        Value::String(text) if text.is_empty() => Ok(()),
        said if said == version(old) => Ok(()),
        _ => Err(Fail::conflict(kind, name)),
    }
}

/// Puts the new object in the place of the old, or only the part that the path names.
fn replace(kind: &Kind, sub: &str, old: &mut Value, mut new: Value) -> Result<(), Fail> {
    check_version(kind, old, &new)?;
    let uid = new["metadata"]["uid"].as_str();
    if uid.is_some_and(|uid| Some(uid) != old["metadata"]["uid"].as_str()) {
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Fail::conflict(kind, name));
    }
    if sub == "status" {
        old["status"] = new["status"].take();
        return Ok(());
    }
    if kind.has_subresource("status") {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => drop(new.as_object_mut().and_then(|new| new.remove("status"))),
        }
    }
    *old = new;
    Ok(())
}

pub(super) fn update(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    mut object: Value,
) -> Result<Reply, Fail> {
    check_type(kind, &object)?;
    let space = space(kind, path);
    let metadata = metadata_of(&mut object)?;
    let said = metadata.get("name").and_then(Value::as_str).unwrap_or(&path.name);
    if said != path.name {
        let message = format!(
            "the name of the object ({said}) does not match the name on the URL ({})",
            path.name
        );
        return Err(Fail::bad_request(message));
    }
    check_namespace(&object, space)?;
    let object = store.update(kind, space, &path.name, ask.query.dry_run(), |old| {
        replace(kind, &path.sub, old, object)
    })?;
    Ok(whole(200, kind, &object))
}

pub(super) fn patch(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    content: &str,
    patch: Value,
) -> Result<Reply, Fail> {
    let patch = Patch::read(content, patch)?;
    let space = space(kind, path);
    if let Patch::Apply(object) = &patch
        && path.sub.is_empty()
        && store.get(kind, space, &path.name).is_none()
    {
        return apply_anew(store, kind, ask, path, object.clone());
    }
    let object = store.update(kind, space, &path.name, ask.query.dry_run(), |old| {
        let mut new = old.clone();
        patch.apply(&mut new)?;
        metadata_of(&mut new)?;
        replace(kind, &path.sub, old, new)
    })?;
    Ok(whole(200, kind, &object))
}

/// An apply of what is not there makes it.
fn apply_anew(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    mut object: Value,
) -> Result<Reply, Fail> {
    metadata_of(&mut object)?.insert("name".into(), json!(path.name));
    let namespace = path.namespace.clone();
    create(store, kind, ask, &Resource { namespace, ..Resource::default() }, object)
}

/// Writes the replicas of a Scale, given whole or as a patch.
pub(super) fn scale(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
    content: &str,
    body: Value,
) -> Result<Reply, Fail> {
    let before = read::find(store, kind, path)?;
    let mut scale = read::scale_of(&before);
    if ask.verb == "patch" {
        Patch::read(content, body)?.apply(&mut scale)?;
    } else {
        scale = body;
    }
    let wanted = scale.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0);
    let space = space(kind, path);
    let object = store.update(kind, space, &path.name, ask.query.dry_run(), |old| {
        check_version(kind, old, &scale)?;
        let Some(Value::Object(spec)) = old.get_mut("spec") else {
            return Err(Fail::invalid(kind, &path.name, "spec: Required value"));
        };
        spec.insert("replicas".into(), json!(wanted));
        Ok(())
    })?;
    Ok(reply::json(200, &read::scale_of(&object)))
}

pub(super) fn delete(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
) -> Result<Reply, Fail> {
    let object = read::find(store, kind, path)?;
    if ask.query.dry_run() {
        return Ok(gone_reply(kind, &object));
    }
    if std::ptr::eq(kind, &NAMESPACE) {
        let object = end_namespace(store, &path.name)?;
        return Ok(whole(200, kind, &object));
    }
    let gone = store.delete(kind, space(kind, path), &path.name);
    let gone = gone.ok_or_else(|| Fail::not_found(kind, &path.name))?;
    if path.sub == "eviction" {
        return Ok(success(201, "code", json!(201)));
    }
    Ok(gone_reply(kind, &gone))
}

fn gone_reply(kind: &Kind, object: &Stored) -> Reply {
    if RETURNED.iter().any(|returned| std::ptr::eq(*returned, kind)) {
        return whole(200, kind, object);
    }
    let mut details = reply::details(kind.group, kind.plural, &object.name);
    details["uid"] = object.value()["metadata"]["uid"].clone();
    success(200, "details", details)
}

/// A `metav1.Status` that says a request was done, with one more field.
fn success(code: u16, field: &str, value: Value) -> Reply {
    let (kind, status) = ("Status", "Success");
    let mut done = json!({ "kind": kind, "apiVersion": "v1", "metadata": {}, "status": status });
    done[field] = value;
    reply::json(code, &done)
}

/// Deletes a namespace with all that is in it; watches see it terminating first.
fn end_namespace(store: &Store, name: &str) -> Result<Arc<Stored>, Fail> {
    let terminating = store.update(&NAMESPACE, "", name, false, |namespace| {
        metadata_of(namespace)?.insert("deletionTimestamp".into(), json!(objects::ago(0)));
        namespace["status"] = json!({ "phase": "Terminating" });
        Ok(())
    })?;
    for kind in KINDS.iter().filter(|kind| kind.namespaced && kind.serve == Serve::Stored) {
        for object in store.all(kind, Some(name)) {
            store.delete(kind, name, &object.name);
        }
    }
    store.delete(&NAMESPACE, "", name);
    Ok(terminating)
}

pub(super) fn delete_all(
    store: &Store,
    kind: &'static Kind,
    ask: &Ask,
    path: &Resource,
) -> Result<Reply, Fail> {
    let selector = read::selector(kind, ask)?;
    if std::ptr::eq(kind, &NAMESPACE) {
        return Err(Fail::method());
    }
    let page = store.list(kind, read::limited(kind, path), &selector, None, 0);
    if !ask.query.dry_run() {
        for object in &page.items {
            store.delete(kind, &object.namespace, &object.name);
        }
    }
    let metadata = json!({ "resourceVersion": store.version().to_string() });
    Ok(read::send(kind, Form::Plain, &metadata, page.items))
}

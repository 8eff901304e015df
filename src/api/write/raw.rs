//! `_raw`: any object that discovery offers, as Kubernetes has it: read, replaced, deleted as the
//! caller.
//!
//! It knows no kinds and checks no schema; that is the API server's part.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::body::{self, JSON, get, is_json, malformed, send};
use crate::api::error::ApiError;
use crate::api::read::view;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{self, encoded, segment};
use crate::api::{Caller, Gateway, Shared};
use crate::helm::room::{Room, nodes};
use crate::kinds::KINDS;
use crate::upstream::{Failure, Identity, OBJECT_LIMIT, Served, User};

/// Writes without a resource version are repeated so often when somebody else is faster.
const TRIES: usize = 5;
/// Fields, items, objects and lists of an object: enough for ordinary ones of 1.5 MiB whose fields
/// are short. The largest definitions of kinds have some 60,000.
const NODES: usize = 400_000;
/// So many are looked at for anybody; more take room, and the API server has to know whose they are.
const OF_ANYBODY: usize = 20_000;
/// Bytes that each of them takes at worst.
const NODE: usize = 240;
/// Fields that nobody knows are a 400 that names them: else a misspelt one vanishes in silence.
pub const STRICT: &str = "fieldValidation=Strict";

/// What the path names: `{kind}` as the contract calls it, and an object.
struct Named {
    kind: String,
    namespace: Option<String>,
    name: String,
}

/// `GET …/_raw/…`: the object, byte for byte.
pub async fn read(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let named = Named::of(request.uri().path())?;
    let mut served = named.served(&gateway, &user, None).await?;
    let path = |served: &Served| named.path(served, preferred(served));
    let get = |path: String| {
        let (gateway, user) = (&gateway, &user);
        async move {
            let object = gateway.cluster.get(Identity::User(user), &path, OBJECT_LIMIT).await;
            gateway.authorizer.heed(user, object).await
        }
    };
    let object = target::asked(&gateway, &user, &mut served, path, get).await?;
    let reply = Reply::json(object, Freshness::default().with_live()).secret();
    Ok(reply.respond(&gateway, request.headers()))
}

/// `PUT …/_raw/…`: with a resource version the write of who saw that version, without one the last
/// writer wins. Fields that the API server does not know are a 400.
pub async fn replace(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let named = Named::of(request.uri().path())?;
    let (head, sent_body) = request.into_parts();
    is_json(&head.headers)?;
    let body = body::bytes(&gateway, sent_body).await?;
    let _room = room(&gateway, &user, &body).await?;
    let object: Value = serde_json::from_slice(&body).map_err(|error| malformed(&error))?;
    // Before what the cluster serves is looked at: made-up credentials learn nothing by it.
    let sent = seen(&object)?.to_owned();
    let (served, path) = match named.place_of(&gateway, &user, &object).await {
        Ok(found) => found,
        // What is wrong with it tells what the cluster serves.
        Err(error) => return Err(view::told_to_known(&gateway, &user, error).await),
    };
    let object = if sent.is_empty() {
        last_wins(&gateway, &user, &path, object).await?
    } else {
        drop(object);
        if_unchanged(&gateway, &user, &path, &sent, body).await?
    };
    Ok(named.done(&gateway, &user, &served, &object))
}

/// `DELETE …/_raw/…`.
pub async fn remove(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let named = Named::of(request.uri().path())?;
    let options = delete_options(request.uri().query().unwrap_or_default());
    let mut served = named.served(&gateway, &user, None).await?;
    let body = Bytes::from(options.to_string());
    let path = |served: &Served| named.path(served, preferred(served));
    let delete = |path: String| {
        let (gateway, user, body) = (&gateway, &user, body.clone());
        async move { send(gateway, user, Method::DELETE, &path, JSON, body).await }
    };
    let answer = target::asked(&gateway, &user, &mut served, path, delete).await?;
    Ok(named.done(&gateway, &user, &served, &answer))
}

/// What the tree of a large body takes; nothing is taken for a small one.
async fn room(gateway: &Gateway, user: &User, json: &[u8]) -> Result<Option<Room>, ApiError> {
    let count = nodes(json);
    if count > NODES {
        return Err(body::too_full());
    }
    if count <= OF_ANYBODY {
        return Ok(None);
    }
    view::verified(gateway, user).await?;
    Room::of(count * NODE).await.map(Some).ok_or_else(body::too_many)
}

impl Named {
    /// Of `…/_raw/{kind}[/namespace/{namespace}]/name/{name}`.
    fn of(path: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("error-bad-path", &[("reason", path)]);
        let (_, rest) = path.split_once("/_raw/").ok_or_else(bad)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let (kind, namespace, name) = match parts.as_slice() {
            [kind, "name", name] => (kind, None, name),
            [kind, "namespace", namespace, "name", name] => (kind, Some(namespace), name),
            _ => return Err(bad()),
        };
        let namespace = namespace.map(|namespace| segment(namespace)).transpose()?;
        Ok(Self {
            kind: segment(kind)?.into(),
            namespace: namespace.map(Into::into),
            name: segment(name)?.into(),
        })
    }

    /// What the cluster serves under this kind's name; of an ambiguous one that of the group in
    /// `of`, which has the version, too, unless the cluster does not serve that.
    async fn served(
        &self,
        gateway: &Gateway,
        user: &User,
        of: Option<(&str, &str)>,
    ) -> Result<Served, ApiError> {
        if let Some((group, version)) = of {
            let both = |served: &Served| served.group == group && served.is_called(&self.kind);
            // The version may be newer than what is remembered of the kind.
            let all = |served: &Served| both(served) && served.version(Some(version)).is_some();
            if let Some(served) = target::find(gateway, user, all).await? {
                return Ok(served);
            }
            if let Some(served) = target::find(gateway, user, both).await? {
                return Ok(served);
            }
        }
        let called = |served: &Served| served.is_called(&self.kind);
        let Some(served) = target::find(gateway, user, called).await? else {
            return Err(view::unknown(gateway, user, "error-unknown-kind", &self.kind).await);
        };
        match of {
            None => Ok(served),
            Some((group, _)) => {
                let shown = served.group;
                Err(malformed(&format!("apiVersion is of group {group:?}, the path of {shown:?}")))
            }
        }
    }

    /// What this object is to the cluster and where it is, if it is what the path names.
    async fn place_of(
        &self,
        gateway: &Gateway,
        user: &User,
        object: &Value,
    ) -> Result<(Served, String), ApiError> {
        let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let served = self.served(gateway, user, Some((group, version))).await?;
        let Some(version) = served.version(Some(version)) else {
            let known = served.versions.iter().map(|known| served.api_version(known));
            return Err(malformed(&format!(
                "apiVersion is {api_version}; the cluster serves {}",
                known.collect::<Vec<_>>().join(", ")
            )));
        };
        self.is_named_by(&served, object)?;
        let path = self.path(&served, version);
        Ok((served, path))
    }

    /// Where the API server has the object; the namespace of what has none is left out.
    fn path(&self, served: &Served, version: &str) -> String {
        let namespace = self.namespace.as_deref().map(encoded);
        let collection = served.collection(version, namespace.as_deref());
        format!("{collection}/{}", encoded(&self.name))
    }

    /// 204, and what was written remembered.
    fn done(&self, gateway: &Gateway, user: &User, served: &Served, said: &Value) -> Response {
        let answer = StatusCode::NO_CONTENT.into_response();
        let mut kinds = KINDS.iter();
        let kind = kinds.find(|kind| {
            kind.resource.group == served.group && kind.resource.plural == served.plural
        });
        match kind {
            Some(kind) => {
                let namespace = self.namespace.as_deref().unwrap_or_default();
                body::wrote(gateway, user, (kind, namespace), said, answer)
            }
            None => answer,
        }
    }

    /// Whether the body is the object that the path names.
    fn is_named_by(&self, served: &Served, object: &Value) -> Result<(), ApiError> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let namespace = self.namespace.as_deref().filter(|_| served.namespaced);
        for (what, found, wanted) in [
            ("kind", text("/kind"), Some(served.kind.as_str())),
            ("metadata.name", text("/metadata/name"), Some(self.name.as_str())),
            // Left out, it is that of the path.
            ("metadata.namespace", text("/metadata/namespace").or(namespace), namespace),
        ] {
            if found.unwrap_or_default() != wanted.unwrap_or_default() {
                let (found, wanted) = (found.unwrap_or_default(), wanted.unwrap_or_default());
                let reason = format!("{what} is {found:?}, the path says {wanted:?}");
                return Err(malformed(&reason));
            }
        }
        Ok(())
    }
}

fn preferred(served: &Served) -> &str {
    served.version(None).unwrap_or_default()
}

fn resource_version(object: &Value) -> &str {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default()
}

/// The version that a writer saw; empty when he names none. Of another type it is no such thing,
/// and must not be taken for none: he would overwrite what he never saw.
fn seen(object: &Value) -> Result<&str, ApiError> {
    match object.pointer("/metadata/resourceVersion") {
        Some(Value::String(version)) => Ok(version),
        None | Some(Value::Null) => Ok(""),
        Some(_) => Err(malformed(&"metadata.resourceVersion must be a string, as it was read")),
    }
}

async fn put(gateway: &Gateway, user: &User, path: &str, body: Bytes) -> Result<Value, Failure> {
    let path = format!("{path}?{STRICT}");
    send(gateway, user, Method::PUT, &path, JSON, body).await
}

/// A write of who saw the version `sent`: a stale one is a 409 that shows both.
async fn if_unchanged(
    gateway: &Gateway,
    user: &User,
    path: &str,
    sent: &str,
    body: Bytes,
) -> Result<Value, ApiError> {
    let failure = match put(gateway, user, path, body).await {
        Ok(object) => return Ok(object),
        Err(failure) => failure,
    };
    if failure.code() == Some(StatusCode::CONFLICT) {
        // Conflicts have other causes, too; only another version is this one.
        if let Ok(current) = get(gateway, user, path).await
            && resource_version(&current) != sent
        {
            let args = [("sent", sent), ("current", resource_version(&current))];
            return Err(ApiError::with_status(StatusCode::CONFLICT, "error-conflict", &args));
        }
    }
    Err(failure.into())
}

/// A write over whatever is there.
async fn last_wins(
    gateway: &Gateway,
    user: &User,
    path: &str,
    mut wanted: Value,
) -> Result<Value, ApiError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let current = resource_version(&get(gateway, user, path).await?).to_owned();
        if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), current.into());
        }
        let body = Bytes::from(wanted.to_string());
        match put(gateway, user, path, body).await {
            Err(failure) if failure.code() == Some(StatusCode::CONFLICT) && tries < TRIES => {}
            other => return Ok(other?),
        }
    }
}

/// `propagation` is Background, Foreground or Orphan, anything else Foreground; `deleteNow=true`
/// leaves a second of grace.
fn delete_options(query: &str) -> Value {
    let mut options = json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground",
    });
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*key, &*value) {
            ("propagation", policy @ ("Background" | "Orphan")) => {
                options["propagationPolicy"] = policy.into();
            }
            ("deleteNow", "true") => options["gracePeriodSeconds"] = 1.into(),
            _ => {}
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Served {
        Served {
            group: String::new(),
            kind: "Pod".into(),
            plural: "pods".into(),
            namespaced: true,
            versions: vec!["v1".into()],
            scalable: false,
            readable: true,
        }
    }

    #[test]
    fn both_forms_of_the_path_name_an_object() {
        let named = Named::of("/_raw/pod/namespace/atlas/name/a%3Ab").unwrap();
        assert_eq!(named.path(&pods(), "v1"), "/api/v1/namespaces/atlas/pods/a:b");
        let named = Named::of("/api/v1/_raw/node/name/node-0").unwrap();
        assert_eq!((named.kind.as_str(), named.namespace.as_deref()), ("node", None));
    }

    #[test]
    fn what_could_leave_its_segment_is_refused() {
        for path in
            ["/_raw/pod/namespace/../name/a", "/_raw/pod/name/%2e%2e", "/_raw/pod/name/a%2Fb"]
        {
            assert!(Named::of(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_body_must_be_the_object_that_the_path_names() {
        let named = Named::of("/_raw/pod/namespace/atlas/name/a").unwrap();
        let check = |object: Value| named.is_named_by(&pods(), &object).is_ok();
        assert!(check(json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "atlas"}})));
        assert!(check(json!({"kind": "Pod", "metadata": {"name": "a"}})));
        assert!(!check(json!({"kind": "Pod", "metadata": {"name": "b", "namespace": "atlas"}})));
        assert!(!check(json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "shop"}})));
        assert!(!check(json!({"kind": "Node", "metadata": {"name": "a", "namespace": "atlas"}})));
        assert!(!check(json!(7)));
    }

    #[test]
    fn a_version_that_is_no_string_is_not_taken_for_none() {
        let seen = |version: Value| {
            seen(&json!({"metadata": {"resourceVersion": version}})).map(str::to_owned).ok()
        };
        assert_eq!(seen(json!("41")).as_deref(), Some("41"));
        assert_eq!(seen(Value::Null).as_deref(), Some(""));
        for odd in [json!(41), json!(true), json!(["41"]), json!({})] {
            assert_eq!(seen(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn a_delete_is_in_the_foreground_unless_it_is_told_otherwise() {
        assert_eq!(delete_options("")["propagationPolicy"], "Foreground");
        assert_eq!(delete_options("propagation=odd")["propagationPolicy"], "Foreground");
        let options = delete_options("propagation=Orphan&deleteNow=true");
        assert_eq!(options["propagationPolicy"], "Orphan");
        assert_eq!(options["gracePeriodSeconds"], 1);
    }
}

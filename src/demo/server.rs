//! The way of one request: injected faults, authentication, impersonation, authorization, then
//! the room that answers.
//!
//! No room behind this one checks rights again.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::ask::{Ask, Resource};
use super::faults::Faults;
use super::kinds::{KINDS, Kind, NODE_METRICS, POD, Serve};
use super::rbac::{Attributes, Caller, MASTERS, Rbac};
use super::reply::{Fail, Reply};
use super::store::Store;
use super::table::Form;
use super::{USERS, discovery, exec, log, metrics, read, reviews, watch, write};

/// The API server's own limit on a body.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Paths that answer everyone, as `system:public-info-viewer` has it.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// What all requests share.
pub(super) struct Shared {
    pub store: Arc<Store>,
    pub faults: Arc<Faults>,
    pub rbac: Rbac,
    pub stop: CancellationToken,
}

pub(super) async fn handle(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    Ok(answer(shared, request).await.unwrap_or_else(|fail| fail.reply()))
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Fail> {
    let ask = Ask::read(request.method(), request.uri())?;
    shared.faults.record(ask.verb, &ask.path);
    if let Some(wait) = shared.faults.wait(&ask.path) {
        tokio::time::sleep(wait).await;
    }
    if let Some(code) = shared.faults.failure(&ask.path) {
        return Err(Fail::injected(code, &ask.path));
    }
    let caller = authenticate(request.headers())?;
    let caller = impersonate(&shared, caller, &ask, request.headers())?;
    if !PUBLIC.iter().any(|path| ask.path == *path || in_folder(&ask.path, path)) {
        authorize(&shared, &caller, &ask.attributes())?;
    }
    let accept = text(request.headers(), ACCEPT.as_str());
    let Some(resource) = &ask.resource else {
        return discovery::answer(&ask, &accept);
    };
    let kind = resource.kind.ok_or_else(|| {
        let is_group = KINDS.iter().any(|kind| kind.group == resource.group);
        if is_group { Fail::unknown_path() } else { Fail::no_page() }
    })?;
    // These need the request itself: an upgrade is taken from it.
    if std::ptr::eq(kind, &POD) && resource.sub == "exec" {
        let also = Attributes { verb: "create".into(), ..ask.attributes() };
        authorize(&shared, &caller, &also)?;
        return exec::answer(&shared, &ask, resource, request);
    }
    match kind.serve {
        Serve::Stored => stored(&shared, &ask, resource, kind, &accept, request).await,
        Serve::Review if ask.verb != "create" => Err(Fail::method()),
        Serve::Review => reviews::answer(&shared, &caller, kind, body(request).await?),
        Serve::Metrics if std::ptr::eq(kind, &NODE_METRICS) => {
            metrics::nodes(&shared.store, &ask, resource)
        }
        Serve::Metrics => metrics::pods(&shared.store, &ask, resource),
    }
}

fn in_folder(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

async fn stored(
    shared: &Arc<Shared>,
    ask: &Ask,
    resource: &Resource,
    kind: &'static Kind,
    accept: &str,
    request: Request<Incoming>,
) -> Result<Reply, Fail> {
    let form = Form::accepted(accept, ask.query.get("includeObject"))?;
    if !resource.sub.is_empty() && !kind.has_subresource(&resource.sub) {
        return match resource.sub.as_str() {
            "attach"
            | "portforward"
            | "proxy"
            | "ephemeralcontainers"
            | "token"
            | "binding"
            | "finalize"
            | "resize" => Err(Fail::unsupported(&format!("the subresource \"{}\"", resource.sub))),
            _ => Err(Fail::unknown_path()),
        };
    }
    if resource.name.is_empty() && matches!(ask.verb, "update" | "patch") {
        return Err(Fail::method());
    }
    let content = text(request.headers(), CONTENT_TYPE.as_str());
    match (ask.verb, resource.sub.as_str()) {
        ("get", "log") => log::answer(shared, ask, resource),
        ("get", "scale") => read::scale(&shared.store, kind, resource),
        ("get", _) => read::get(&shared.store, kind, resource, &form),
        ("list", _) => read::list(&shared.store, kind, ask, resource, &form),
        ("watch", _) => watch::answer(shared, kind, ask, resource, form),
        ("create", "eviction") => write::delete(&shared.store, kind, ask, resource),
        ("create", "") => write::create(&shared.store, kind, ask, resource, body(request).await?),
        ("update", "" | "status") => {
            write::update(&shared.store, kind, ask, resource, body(request).await?)
        }
        ("patch", "" | "status") => {
            let body = body(request).await?;
            write::patch(&shared.store, kind, ask, resource, &content, body)
        }
        ("update" | "patch", "scale") => {
            let body = body(request).await?;
            write::scale(&shared.store, kind, ask, resource, &content, body)
        }
        ("delete", "") => write::delete(&shared.store, kind, ask, resource),
        ("deletecollection", "") => write::delete_all(&shared.store, kind, ask, resource),
        _ => Err(Fail::method()),
    }
}

/// The body as JSON; 400 when it is not, 413 beyond 3 MiB.
async fn body(request: Request<Incoming>) -> Result<Value, Fail> {
    let limited = Limited::new(request.into_body(), BODY_LIMIT);
    let body: Bytes = match limited.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => {
            let message = "Request entity too large: limit is 3145728";
            return Err(Fail::new(413, "RequestEntityTooLarge", message));
        }
    };
    serde_json::from_slice(&body)
        .map_err(|error| Fail::bad_request(format!("the body is not JSON: {error}")))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// The user of the bearer token; without one it is nobody in particular, who may do next to
/// nothing, as on a real server.
fn authenticate(headers: &HeaderMap) -> Result<Caller, Fail> {
    let header = text(headers, AUTHORIZATION.as_str());
    let (scheme, token) = header.split_once(' ').unwrap_or_default();
    let token = token.trim();
    if token.is_empty() || !scheme.eq_ignore_ascii_case("bearer") {
        let groups = vec!["system:unauthenticated".to_owned()];
        return Ok(Caller { name: "system:anonymous".to_owned(), groups });
    }
    let user = USERS.iter().find(|user| user.token == token).ok_or_else(Fail::unauthorized)?;
    let mut groups = vec!["system:authenticated".to_owned()];
    if user.name == USERS[0].name {
        groups.insert(0, MASTERS.to_owned());
    }
    Ok(Caller { name: user.name.to_owned(), groups })
}

fn authorize(shared: &Shared, caller: &Caller, asked: &Attributes) -> Result<(), Fail> {
    match shared.rbac.allowed(&shared.store, caller, asked) {
        Some(_) => Ok(()),
        None => Err(refused(caller, asked)),
    }
}

fn refused(caller: &Caller, asked: &Attributes) -> Fail {
    let plural = asked.resource.split('/').next().unwrap_or_default();
    Fail::forbidden(asked.forbidden(caller), &asked.group, plural, &asked.name)
}

/// Becomes another caller where `Impersonate-*` asks for it and the rights allow every part.
fn impersonate(
    shared: &Shared,
    caller: Caller,
    ask: &Ask,
    headers: &HeaderMap,
) -> Result<Caller, Fail> {
    let asks = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
    if !asks {
        return Ok(caller);
    }
    let name = text(headers, "impersonate-user");
    if name.is_empty() {
        return Err(Fail::bad_request("requested impersonation without impersonating a user"));
    }
    let account = name.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
    // What a refusal names is the last that Kubernetes 1.36 tries: to become this one constrained.
    let last = match account {
        Some(_) => "serviceaccount",
        None if name.starts_with("system:node:") => "arbitrary-node",
        None => "user-info",
    };
    let verb = format!("impersonate-on:{last}:{}", ask.verb);
    let constrained = Attributes { verb, ..ask.attributes() };
    let may = |group: &str, resource: &str, namespace: &str, name: &str| {
        let asked = Attributes {
            verb: "impersonate".into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            path: None,
        };
        let allowed = shared.rbac.allowed(&shared.store, &caller, &asked);
        allowed.map(drop).ok_or_else(|| refused(&caller, &constrained))
    };
    match account {
        Some((namespace, account)) => may("", "serviceaccounts", namespace, account)?,
        None => may("", "users", "", &name)?,
    }
    let mut groups = Vec::new();
    for group in headers.get_all("impersonate-group") {
        let group = group.to_str().map_err(|_| Fail::bad_request("a group is not text"))?;
        may("", "groups", "", group)?;
        groups.push(group.to_owned());
    }
    for (header, value) in headers {
        let value = value.to_str().unwrap_or_default();
        if header == "impersonate-uid" {
            may("authentication.k8s.io", "uids", "", value)?;
        } else if let Some(key) = header.as_str().strip_prefix("impersonate-extra-") {
            may("authentication.k8s.io", &format!("userextras/{key}"), "", value)?;
        }
    }
    if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    groups.push("system:authenticated".to_owned());
    Ok(Caller { name, groups })
}

//! `/settings/pinnedresources`: what the web UI's menu shows of custom resources. It stands beside the
//! settings, and is read and written as they are.
//!
//! Unlike the settings it is not compared before a write: each change adds or takes one.

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};

use super::settings::{PINNED, Pinned, Stored, carry, hash, reply};
use crate::api::body::{self, malformed};
use crate::api::caller::Asked;
use crate::api::error::ApiError;
use crate::api::target::segment;
use crate::api::{Caller, Gateway, Shared};

/// Holds the hash of the pins that this client saw or made last. It carries no right.
const COOKIE: &str = "binnacle-pins";
/// More is no choice any more, and the ConfigMap must stay below 1 MiB.
const MOST_PINNED: usize = 200;

/// `GET /settings/pinnedresources`; needs no credentials.
pub async fn read(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let user = gateway.callers.user(&Asked::of(&request)).ok();
    let headers = request.headers();
    let seen = gateway.settings.seen_by(&gateway, user.as_ref(), headers, (COOKIE, of));
    let (stored, shown) = seen.await?;
    let response = reply(&gateway, &request, &stored.pinned)?;
    Ok(carry(&gateway, headers, (COOKIE, &shown), response))
}

/// `PUT /settings/pinnedresources`: one more; what is pinned already takes its new display name.
pub async fn pin(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let new: Pinned = body::read(&gateway, &head.headers, sent).await?;
    if new.kind.is_empty() || new.name.is_empty() {
        return Err(malformed(&"kind and name must not be empty"));
    }
    let mut saved = String::new();
    let edit = |stored: &Stored| {
        let namespace = new.namespace.as_deref().unwrap_or_default();
        let mut pinned = stored.pinned.clone();
        match pinned.iter_mut().find(|one| one.is(&new.kind, namespace, &new.name)) {
            Some(one) => *one = new.clone(),
            None => pinned.push(new.clone()),
        }
        if pinned.len() > MOST_PINNED {
            let limit = MOST_PINNED.to_string();
            let (status, args) = (StatusCode::UNPROCESSABLE_ENTITY, [("limit", limit.as_str())]);
            return Err(ApiError::with_status(status, "error-too-many-pinned", &args));
        }
        saved = hash(&pinned);
        written(&pinned)
    };
    gateway.settings.change(&gateway, &user, edit).await?;
    Ok(done(&gateway, &head.headers, &saved))
}

/// `DELETE /settings/pinnedresources/{kind}[/{namespace}]/{name}`: 404 when it is not pinned.
pub async fn unpin(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let bad = || ApiError::bad_request("error-bad-path", &[("reason", path)]);
    let (_, rest) = path.split_once("/pinnedresources/").ok_or_else(bad)?;
    let parts: Vec<_> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
    let (kind, namespace, name) = match parts.as_slice() {
        [kind, name] => (kind.as_str(), "", name.as_str()),
        [kind, namespace, name] => (kind.as_str(), namespace.as_str(), name.as_str()),
        _ => return Err(bad()),
    };
    let mut saved = String::new();
    let edit = |stored: &Stored| {
        let mut pinned = stored.pinned.clone();
        pinned.retain(|one| !one.is(kind, namespace, name));
        if pinned.len() == stored.pinned.len() {
            let (status, args) = (StatusCode::NOT_FOUND, [("kind", kind), ("name", name)]);
            return Err(ApiError::with_status(status, "error-not-pinned", &args));
        }
        saved = hash(&pinned);
        written(&pinned)
    };
    gateway.settings.change(&gateway, &user, edit).await?;
    Ok(done(&gateway, request.headers(), &saved))
}

fn of(stored: &Stored) -> String {
    hash(&stored.pinned)
}

fn written(pinned: &[Pinned]) -> Result<(&'static str, String), ApiError> {
    let text = serde_json::to_string(pinned).map_err(|error| ApiError::internal(&error))?;
    Ok((PINNED, text))
}

fn done(gateway: &Gateway, request: &HeaderMap, saved: &str) -> Response {
    carry(gateway, request, (COOKIE, saved), StatusCode::NO_CONTENT.into_response())
}

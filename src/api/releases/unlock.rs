//! Unlocking a release that is stuck in `pending-*`: its newest revision becomes `failed`, from where
//! every act of Helm goes on. By compare-and-swap, so that nothing is overwritten that somebody has
//! just written.
//!
//! It mends nothing: the remedy that the answer names is an act of its own.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::detail::{Asked, found};
use super::write::{busy, changed, conflict, pending, place_of};
use crate::api::body::{self, JSON, send};
use crate::api::error::ApiError;
use crate::api::passthrough::user_name;
use crate::api::read::view;
use crate::api::target::encoded;
use crate::api::{Caller, Gateway, Shared};
use crate::helm::blob::marked_failed;
use crate::helm::lock::{Place, Seen};
use crate::helm::record::{self, Record, Status};
use crate::helm::stuck::{Standing, stuck};
use crate::upstream::User;

/// What the history says of a revision that was unlocked.
const UNLOCKED: &str = "Interrupted: unlocked by";

/// `POST /api/v1/release/{namespace}/{name}/unlock`: a `pending-*` revision that nobody works on
/// any more becomes `failed`. Where that cannot be known, `{"confirm":true}` says that it is so.
pub async fn unlock(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Spec {
        #[serde(default)]
        confirm: bool,
    }
    let (head, body) = request.into_parts();
    let asked = Asked::of(&head.uri, 1)?;
    let (namespace, name) = (asked.namespace.as_str(), asked.name.as_str());
    let place = place_of(namespace, name)?;
    view::verified(&gateway, &user).await?;
    let (body, _) = body::with_chart(&user, &head.headers, body).await?;
    let spec: Spec = serde_json::from_slice(&body).map_err(|error| body::malformed(&error))?;
    let (history, newest) = found(&gateway, &user, namespace, name, None).await?;
    let seen = place.look(&gateway.cluster, &user).await;
    let seen = gateway.authorizer.heed(&user, seen).await?;
    // Whatever the lock says, and if there is none any more.
    let here = gateway.helm.operations.at(namespace, name);
    let Some(stuck) = stuck(&history, seen.as_ref(), here.is_some()) else {
        let args = [("name", name), ("status", newest.status.as_str())];
        return Err(conflict("error-release-not-stuck", &args));
    };
    if let Some(live) = here {
        return Err(busy(&live.operation()));
    }
    if let (Standing::Running, Some(seen)) = (stuck.standing, &seen) {
        return Err(busy(&seen.operation()));
    }
    if stuck.standing == Standing::Elsewhere && !spec.confirm {
        return Err(pending(name, &stuck));
    }
    if let Some(seen) = &seen {
        end_lock(&gateway, &user, &place, seen).await?;
    }
    let caller = user_name(&gateway, &user).await;
    mark_failed(&gateway, &user, &newest, &caller).await?;
    tracing::info!(%namespace, %name, revision = newest.revision, "a release was unlocked");
    let value = json!({
        "revision": newest.revision, "status": Status::Failed.as_str(),
        "remedy": stuck.remedy, "rollbackTo": stuck.rollback_to,
    });
    Ok(body::answer(StatusCode::OK, &value))
}

/// Ends the lock of an operation that is silent, unless it speaks again.
async fn end_lock(
    gateway: &Gateway,
    user: &User,
    place: &Place,
    seen: &Seen,
) -> Result<(), ApiError> {
    let left = place.is_left(&gateway.cluster, user, seen).await;
    if !gateway.authorizer.heed(user, left).await? {
        return Err(busy(&seen.operation()));
    }
    if seen.is_over() {
        return Ok(());
    }
    let closed = place.close(&gateway.cluster, user, seen).await;
    Ok(gateway.authorizer.heed(user, closed).await?)
}

/// Writes the record as `failed`, if it is what it was when we read it.
async fn mark_failed(
    gateway: &Gateway,
    user: &User,
    record: &Record,
    caller: &str,
) -> Result<(), ApiError> {
    let (namespace, secret) = (encoded(&record.namespace), encoded(&record.secret));
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
    let turn = record::turn().await.ok_or_else(body::too_many)?;
    let mut value = body::get(gateway, user, &path).await?;
    let is_same =
        |pointer: &str, known: &str| value.pointer(pointer).and_then(Value::as_str) == Some(known);
    if !is_same("/metadata/resourceVersion", &record.resource_version) {
        return Err(changed());
    }
    let data = value.pointer("/data/release").and_then(Value::as_str).unwrap_or_default();
    let (data, description) = (data.to_owned(), format!("{UNLOCKED} {caller}"));
    // A whole chart is packed again: too long for a thread that others wait for.
    let mark = move || {
        let _turn = turn;
        marked_failed(&data, &description)
    };
    let marked = tokio::task::spawn_blocking(mark).await;
    let marked = marked.map_err(|error| ApiError::internal(&error))?;
    let marked = marked.map_err(|error| {
        let reason = error.to_string();
        let args = [("secret", record.secret.as_str()), ("reason", reason.as_str())];
        ApiError::with_status(StatusCode::BAD_GATEWAY, "error-release-broken", &args)
    })?;
    value["data"]["release"] = marked.into();
    value["metadata"]["labels"]["status"] = Status::Failed.as_str().into();
    value["metadata"]["labels"]["modifiedAt"] = Timestamp::now().as_second().to_string().into();
    let value = Bytes::from(value.to_string());
    send(gateway, user, Method::PUT, &path, JSON, value).await?;
    Ok(())
}

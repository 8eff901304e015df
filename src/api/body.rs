//! Bodies in both directions: a request's own, checked and bounded, and those of the writes that
//! we make as its caller.
//!
//! What a body means is its handler's part.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Gateway;
use super::error::ApiError;
use super::target::live;
use super::written::Wrote;
use crate::kinds::KindDef;
use crate::upstream::{Failure, Identity, OBJECT_LIMIT, UpstreamError, User};

/// From a request's head to the end of its body. A few MiB on a bad mobile network take less; who
/// needs longer holds a connection for nothing.
const BODY_TIME: Duration = Duration::from_secs(60);

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The request's JSON body: 415 for another type, 413 when it is too large, 400 when it is not
/// JSON of this shape.
pub async fn read<T: DeserializeOwned>(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    is_json(headers)?;
    let body = bytes(gateway, body).await?;
    serde_json::from_slice(&body).map_err(|error| malformed(&error))
}

/// The request's body as it is, at most `max_body` bytes of it.
pub async fn bytes(gateway: &Gateway, body: Body) -> Result<Bytes, ApiError> {
    up_to(gateway.max_body, body).await
}

/// The same with a bound of the route's own, in bytes.
pub async fn up_to(limit: usize, body: Body) -> Result<Bytes, ApiError> {
    let body = tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect());
    let body = body.await.map_err(|_| {
        ApiError::with_status(StatusCode::REQUEST_TIMEOUT, "error-body-too-slow", &[])
    })?;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let limit = limit.to_string();
            let args = [("limit", limit.as_str())];
            ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "error-body-too-large", &args)
        } else {
            malformed(&error)
        }
    })?;
    Ok(body.to_bytes())
}

/// A body that is not what the route takes.
pub fn malformed(reason: &dyn std::fmt::Display) -> ApiError {
    let reason = reason.to_string();
    ApiError::bad_request("error-malformed-body", &[("reason", reason.as_str())])
}

/// 415 unless the body is declared as JSON.
pub fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = found.unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    let found: String = found.chars().take(80).collect();
    let args = [("type", found.as_str()), ("known", JSON)];
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(ApiError::with_status(status, "error-unsupported-media-type", &args))
}

/// GET of `path` as the user, as JSON.
pub async fn get(gateway: &Gateway, user: &User, path: &str) -> Result<Value, Failure> {
    let json = live(gateway, user, path).await?;
    serde_json::from_str(&json)
        .map_err(|error| UpstreamError::Broken(format!("{path}: {error}")).into())
}

/// One request as the user; the answer as JSON, `Null` when it has no body.
pub async fn send(
    gateway: &Gateway,
    user: &User,
    method: Method,
    path: &str,
    content: &'static str,
    body: Bytes,
) -> Result<Value, Failure> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, JSON)
        .header(header::CONTENT_TYPE, content)
        .body(Body::from(body))
        .map_err(|error| UpstreamError::Setup(error.to_string()))?;
    let answer = gateway.cluster.fetch(Identity::User(user), request, OBJECT_LIMIT).await;
    let answer = gateway.authorizer.heed(user, answer).await?;
    if answer.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer)
        .map_err(|error| UpstreamError::Broken(format!("{path}: {error}")).into())
}

/// The answer to a write of `kind` in `namespace`, which the caller's next read shall show.
/// `object` is what the API server said.
pub fn wrote(
    gateway: &Gateway,
    user: &User,
    (kind, namespace): (&'static KindDef, &str),
    object: &Value,
    mut answer: Response,
) -> Response {
    if kind.is_kept() {
        let wrote = Wrote::of(kind, namespace, object);
        gateway.writes.note(user, &wrote);
        answer.extensions_mut().insert(vec![wrote]);
    }
    answer
}

/// An answer to a write.
pub fn answer(status: StatusCode, value: &Value) -> Response {
    let mut response = (status, value.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_understood() {
        let with = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(text));
            is_json(&headers).is_ok()
        };
        assert!(with("application/json"));
        assert!(with("Application/JSON; charset=utf-8"));
        assert!(!with("application/yaml"));
        assert!(is_json(&HeaderMap::new()).is_err());
    }
}

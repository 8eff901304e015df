//! Bodies in both directions: a request's own, checked and bounded, and those of the writes that
//! we make as its caller.
//!
//! What a body means is its handler's part.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Gateway;
use super::error::ApiError;
use super::target::live;
use super::written::Wrote;
use crate::kinds::KindDef;
use crate::upstream::{Failure, Identity, OBJECT_LIMIT, UpstreamError, User};

/// From a request's head to the end of its body. A few MiB on a bad mobile network take less; who
/// needs longer holds a connection for nothing.
const BODY_TIME: Duration = Duration::from_secs(60);
/// A body with a chart of 20 MiB in base64, values and what is around them.
const CHART: usize = 29 << 20;
/// Bytes that a body may have without a place among the large ones.
const SMALL: u64 = 2 << 20;
/// Large bodies in memory at once, until what they ask for begins.
static LARGE: Semaphore = Semaphore::const_new(8);
/// The longest wait for a place: who waits longer shall rather hear that there is none.
pub const TURN: Duration = Duration::from_secs(30);

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
    let body = timeout(BODY_TIME, Limited::new(body, limit).collect());
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

/// A request's body that may hold a chart: 415 and 413 as everywhere, and `{}` when it is empty.
/// With the place that it has among the large ones, if it needs one.
pub async fn with_chart(
    headers: &HeaderMap,
    sent: Body,
) -> Result<(Bytes, Option<SemaphorePermit<'static>>), ApiError> {
    let is_small = sent.size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
    let place = if is_small { None } else { Some(turn(&LARGE, TURN).await?) };
    let bytes = up_to(CHART, sent).await?;
    if bytes.is_empty() {
        return Ok((Bytes::from_static(b"{}"), None));
    }
    is_json(headers)?;
    Ok((bytes, place))
}

/// One of a few places; 429 when none is free in time.
pub async fn turn(
    places: &'static Semaphore,
    wait: Duration,
) -> Result<SemaphorePermit<'static>, ApiError> {
    let place = timeout(wait, places.acquire()).await.ok().and_then(Result::ok);
    place.ok_or_else(too_many)
}

pub fn too_many() -> ApiError {
    ApiError::with_status(StatusCode::TOO_MANY_REQUESTS, "error-too-many-operations", &[])
}

/// A body that is not what the route takes.
pub fn malformed(reason: &dyn std::fmt::Display) -> ApiError {
    let reason = reason.to_string();
    ApiError::bad_request("error-malformed-body", &[("reason", reason.as_str())])
}

/// 415 unless the body is declared as JSON.
pub fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    is_one_of(headers, &[JSON])
}

/// 415 unless the body is declared as one of these types; the first is the one to be told of.
pub fn is_one_of(headers: &HeaderMap, known: &[&str]) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = found.unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if known.iter().any(|one| essence.eq_ignore_ascii_case(one)) {
        return Ok(());
    }
    let found: String = found.chars().take(80).collect();
    let known = known.first().copied().unwrap_or_default();
    let args = [("type", found.as_str()), ("known", known)];
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
    use futures::FutureExt as _;

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

    #[tokio::test]
    async fn a_small_body_needs_none_of_the_places_of_large_ones() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        let taken = LARGE.acquire_many(8).await.unwrap();
        for small in [Body::empty(), Body::from("{}"), Body::from(vec![b' '; 2 << 20])] {
            let (_, place) = with_chart(&headers, small).await.unwrap();
            assert!(place.is_none());
        }
        let large = || Body::from(vec![b' '; (2 << 20) + 1]);
        assert!(Box::pin(with_chart(&headers, large())).now_or_never().is_none(), "it waits");
        // How much comes is not known.
        let chunks = futures::stream::iter([Ok::<_, std::convert::Infallible>("{}")]);
        let unknown = Body::from_stream(chunks);
        assert!(Box::pin(with_chart(&headers, unknown)).now_or_never().is_none(), "it waits");
        drop(taken);
        assert!(with_chart(&headers, large()).await.unwrap().1.is_some());
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_so_and_one_that_is_given_back_is_free() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        let place = turn(&PLACES, Duration::ZERO).await.unwrap();
        let error = turn(&PLACES, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
        drop(place);
        assert!(turn(&PLACES, Duration::ZERO).await.is_ok());
    }
}

//! Bodies in both directions: a request's own, checked and bounded, and those of the writes that
//! we make as its caller.
//!
//! What a body means is its handler's part.

use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tower::BoxError;

use super::Gateway;
use super::error::ApiError;
use super::target::live;
use super::written::Wrote;
use crate::helm::room::nodes;
use crate::kinds::KindDef;
use crate::upstream::{Failure, Identity, OBJECT_LIMIT, Turns, UpstreamError, User};

/// From a request's head to the end of its body. A few MiB on a bad mobile network take less; who
/// needs longer holds a connection for nothing.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Fields, items, objects and lists of a form: far more than any has, and 5 MiB of a tree where they
/// are made up for it. Most are read before the API server is asked whose they are.
const FIELDS: usize = 20_000;
/// Bytes of bodies in memory at once, whoever sends them: most are read before the API server is
/// asked who that is. Room is taken for what has come, so that who sends slowly has no more of it
/// than he has sent, and given back with the last of the bytes.
const ROOM: usize = 256 << 20;
static RECEIVED: Semaphore = Semaphore::const_new(ROOM);
/// A body with a chart of 20 MiB in base64, values and what is around them.
const CHART: usize = 29 << 20;
/// Bytes that a body may have without a place among the large ones.
const SMALL: u64 = 2 << 20;
/// Large bodies in memory at once, until what they ask for begins; these need no other room.
static LARGE: Semaphore = Semaphore::const_new(8);
/// Of them those of one caller: who sends slowly leaves places to others.
const LARGE_OF_ONE: usize = 3;
static TURNS: LazyLock<Turns> = LazyLock::new(|| Turns::new(LARGE_OF_ONE));
/// The longest wait for a place: who waits longer shall rather hear that there is none.
pub const TURN: Duration = Duration::from_secs(30);

pub const JSON: &str = "application/json";
pub const MERGE: &str = "application/merge-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Who the API server notes as the manager of what is written (up to the slash), and its audit log.
/// Not the name alone: a holder's heartbeats are known by that (`helm::lock_ask`).
const AGENT: &str = concat!("binnacle-api/", env!("CARGO_PKG_VERSION"));

/// The request's JSON body: 415 for another type, 413 when it is too large, 400 when it is not
/// JSON of this shape.
pub async fn read<T: DeserializeOwned>(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    read_up_to(gateway, gateway.max_body, headers, body).await
}

/// The same where a route needs less than others, above all one that needs no credentials.
pub async fn read_up_to<T: DeserializeOwned>(
    gateway: &Gateway,
    limit: usize,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    is_json(headers)?;
    let body = counted(limit.min(gateway.max_body), body, &RECEIVED).await?;
    if nodes(&body) > FIELDS {
        return Err(too_full());
    }
    is_no_list(&body)?;
    serde_json::from_slice(&body).map_err(|error| malformed(&error))
}

/// The request's body as it is, at most `max_body` bytes of it.
pub async fn bytes(gateway: &Gateway, body: Body) -> Result<Bytes, ApiError> {
    counted(gateway.max_body, body, &RECEIVED).await
}

/// An answer's body, or one of a request that has a place of its own: what it takes is not counted
/// with the others.
pub async fn up_to(limit: usize, body: Body) -> Result<Bytes, ApiError> {
    let body = timeout(BODY_TIME, Limited::new(body, limit).collect());
    let body = body.await.map_err(|_| too_slow())?;
    Ok(body.map_err(|error| broken(limit, &error))?.to_bytes())
}

/// The body, which has its room for as long as there is a part of it; 429 where all have too much.
async fn counted(limit: usize, body: Body, room: &'static Semaphore) -> Result<Bytes, ApiError> {
    // Of the longest that can be set two fit: what they take is counted in units of two bytes.
    let unit = limit.div_ceil(ROOM / 2).max(1);
    let mut body = Limited::new(body, limit);
    let mut come = Come::default();
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(limit, &error))?;
            if let Ok(data) = frame.into_data() {
                come.take(&data, unit, room)?;
            }
        }
        Ok::<_, ApiError>(())
    };
    timeout(BODY_TIME, all).await.map_err(|_| too_slow())??;
    Ok(Bytes::from_owner(come))
}

/// What has come of a body, with its room.
#[derive(Default)]
struct Come {
    /// Not the frames themselves: each keeps all alive that was read with it.
    bytes: Vec<u8>,
    room: Option<SemaphorePermit<'static>>,
}

impl Come {
    fn take(&mut self, data: &[u8], unit: usize, room: &'static Semaphore) -> Result<(), ApiError> {
        let count = u32::try_from(data.len().div_ceil(unit)).unwrap_or(u32::MAX);
        let more = room.try_acquire_many(count).map_err(|_| too_many())?;
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

impl AsRef<[u8]> for Come {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn too_slow() -> ApiError {
    ApiError::with_status(StatusCode::REQUEST_TIMEOUT, "error-body-too-slow", &[])
}

/// A body that is longer than it may be, or never came to its end.
fn broken(limit: usize, error: &BoxError) -> ApiError {
    if !error.is::<LengthLimitError>() {
        return malformed(error);
    }
    let limit = limit.to_string();
    let args = [("limit", limit.as_str())];
    ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "error-body-too-large", &args)
}

/// A request's body that may hold a chart: 415 and 413 as everywhere, and `{}` when it is empty.
/// With the place that it has among the large ones, if it needs one.
pub async fn with_chart(
    user: &User,
    headers: &HeaderMap,
    sent: Body,
) -> Result<(Bytes, Option<LargePlace>), ApiError> {
    let is_small = sent.size_hint().upper().is_some_and(|bytes| bytes <= SMALL);
    let (bytes, place) = if is_small {
        (counted(CHART, sent, &RECEIVED).await?, None)
    } else {
        let place = large(user).await?;
        (up_to(CHART, sent).await?, Some(place))
    };
    if bytes.is_empty() {
        return Ok((Bytes::from_static(b"{}"), None));
    }
    is_json(headers)?;
    is_no_list(&bytes)?;
    Ok((bytes, place))
}

/// A place among the large ones; given back when dropped.
pub struct LargePlace {
    _own: OwnedSemaphorePermit,
    _common: SemaphorePermit<'static>,
}

/// One of the places of large bodies; 429 when none is free in time. The caller's own turn comes
/// first: who waits for it takes no place from others.
async fn large(user: &User) -> Result<LargePlace, ApiError> {
    let both = async {
        let own = TURNS.of(user).acquire_owned().await.ok()?;
        Some(LargePlace { _own: own, _common: LARGE.acquire().await.ok()? })
    };
    timeout(TURN, both).await.ok().flatten().ok_or_else(too_many)
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

/// All bodies of ours are objects. Structs would be read from lists, too, by the order of their
/// fields.
fn is_no_list(body: &[u8]) -> Result<(), ApiError> {
    match body.trim_ascii_start().first() {
        Some(b'[') => Err(malformed(&"it has to be a JSON object, not a list")),
        _ => Ok(()),
    }
}

/// A body that is not what the route takes.
pub fn malformed(reason: &dyn std::fmt::Display) -> ApiError {
    let reason = reason.to_string();
    ApiError::bad_request("error-malformed-body", &[("reason", reason.as_str())])
}

/// A body of which no tree is made.
pub fn too_full() -> ApiError {
    malformed(&"it has too many fields")
}

/// 415 unless the body is declared as JSON.
pub fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    is_one_of(headers, &[JSON])
}

/// 415 unless the body is declared as one of these types; the first is the one to be told of.
pub fn is_one_of(headers: &HeaderMap, known: &[&str]) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let found = String::from_utf8_lossy(found);
    let essence = found.split(';').next().unwrap_or_default().trim();
    if known.iter().any(|one| essence.eq_ignore_ascii_case(one)) {
        return Ok(());
    }
    let found: String = found.chars().take(80).collect();
    let known = known.first().copied().unwrap_or_default();
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(match found.trim() {
        "" => ApiError::with_status(status, "error-no-media-type", &[("known", known)]),
        found => {
            let args = [("type", found), ("known", known)];
            ApiError::with_status(status, "error-unsupported-media-type", &args)
        }
    })
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
        .header(header::USER_AGENT, AGENT)
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
    use std::convert::Infallible;

    use futures::{FutureExt as _, StreamExt as _, stream};

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

    #[test]
    fn a_list_is_no_object_whatever_stands_before_it() {
        for list in ["[]", " \r\n\t[\"a\"]", "["] {
            assert_eq!(is_no_list(list.as_bytes()).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
        for other in ["{}", "", " {\"a\":[]}", "\"[\""] {
            assert!(is_no_list(other.as_bytes()).is_ok(), "{other}");
        }
    }

    #[tokio::test]
    async fn a_small_body_needs_none_of_the_places_of_large_ones() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        let user = |token| User::bearer(token, &HeaderMap::new()).unwrap();
        let (one, other) = (user("one"), user("other"));
        let taken = LARGE.acquire_many(8).await.unwrap();
        for small in [Body::empty(), Body::from("{}"), Body::from(vec![b' '; 2 << 20])] {
            let (_, place) = with_chart(&one, &headers, small).await.unwrap();
            assert!(place.is_none());
        }
        let large = || Body::from(vec![b' '; (2 << 20) + 1]);
        let waits = |body| Box::pin(with_chart(&one, &headers, body)).now_or_never().is_none();
        assert!(waits(large()));
        // How much comes is not known.
        let chunks = stream::iter([Ok::<_, Infallible>("{}")]);
        assert!(waits(Body::from_stream(chunks)));
        drop(taken);
        let mut places = Vec::new();
        for _ in 0..LARGE_OF_ONE {
            places.push(with_chart(&one, &headers, large()).await.unwrap().1.unwrap());
        }
        assert!(waits(large()), "there are places, but none for him");
        assert!(with_chart(&other, &headers, large()).await.unwrap().1.is_some());
        places.pop();
        assert!(with_chart(&one, &headers, large()).await.unwrap().1.is_some());
    }

    #[tokio::test]
    async fn bodies_whose_end_is_held_back_have_a_bound_for_all_and_give_back_what_they_had() {
        static ROOM_FOR_FOUR: Semaphore = Semaphore::const_new(40);
        let room = &ROOM_FOR_FOUR;
        let slow = || {
            let begun = stream::iter([Ok::<_, Infallible>("0123456789")]);
            Box::pin(counted(100, Body::from_stream(begun.chain(stream::pending())), room))
        };
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let mut one = slow();
            assert!(one.as_mut().now_or_never().is_none(), "it waits for the rest");
            waiting.push(one);
        }
        let error = slow().now_or_never().unwrap().unwrap_err();
        assert_eq!(error.status, StatusCode::TOO_MANY_REQUESTS);
        waiting.pop();
        let whole = counted(100, Body::from("0123456789"), room).await.unwrap();
        assert_eq!(&whole[..], b"0123456789");
        assert_eq!(room.available_permits(), 0);
        let part = whole.slice(3..);
        drop((whole, waiting));
        assert_eq!(room.available_permits(), 30, "a part of it is still there");
        drop(part);
        assert_eq!(room.available_permits(), 40);
        // Of the longest that may be set two fit, and none beside them.
        let longest = counted(ROOM, Body::from("0123456789"), room).await.unwrap();
        assert_eq!((longest.len(), room.available_permits()), (10, 35));
        let error = counted(5, Body::from("0123456789"), room).await.unwrap_err();
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
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

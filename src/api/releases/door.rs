//! What `helm` reaches behind its door: the Kubernetes API as the user of its one operation, by
//! the passthrough's own way.
//!
//! A listener of its own, on loopback. It knows no other credential than a door's token, and
//! carries no upgrade: helm needs none.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::body;
use crate::api::caller::Asked;
use crate::api::error::ApiError;
use crate::api::passthrough;
use crate::api::respond;
use crate::api::{Gateway, Shared};
use crate::upstream::{Failure, Identity, User, wanted_upgrade};

/// A denial is a sentence, and a version little more; what is larger is none of the API server's.
const DENIAL: usize = 64 << 10;
/// How long newer credentials of the same person are waited for when his are refused. Helm takes a
/// 401 for its end, in the midst of what it does, and with it leaves the release `pending-*`: a 503
/// with `Retry-After` is what client-go comes again after, ten times.
const PATIENCE: Duration = Duration::from_secs(25);
/// Seconds. Ten times that is more than the patience, so that the last answer to a request is the
/// 401, and less than the 32 s that client-go's discovery has for all of them.
const RENEWED: &str = "3";
/// Of the lock, which may be written at the next heartbeat.
const WRITTEN: &str = "1";
const LATE: &str = "the lock of this operation could not be renewed in time";
/// Also for `classify`, should anybody give up sooner.
const REFUSED: &str =
    "the credentials of this operation are refused: unauthorized until newer ones come";

/// Everything that the port answers.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().fallback(serve).with_state(gateway)
}

async fn serve(State(gateway): Shared, request: Request) -> Response {
    respond::noted(&gateway, request, |request| answer(&gateway, request)).await
}

/// The child's own `Impersonate-*` go no further than any identity header (`Cluster::send`).
async fn answer(gateway: &Gateway, mut request: Request) -> Result<Response, ApiError> {
    let doors = &gateway.helm.doors;
    let token = token(request.headers()).map(str::to_owned).ok_or_else(ApiError::unauthorized)?;
    let user = doors.user(&token).ok_or_else(ApiError::unauthorized)?;
    let host = Asked::of(&request).host().unwrap_or_default().to_owned();
    if host != doors.authority() {
        let args = [("host", host.as_str())];
        return Err(ApiError::with_status(StatusCode::FORBIDDEN, "error-host-refused", &args));
    }
    if doors.is_late(&token) {
        // Another may hold the lock by now. It was not renewed by credentials that are refused, or
        // for another reason.
        let since = doors.refused_since(&token);
        return since.map_or_else(|| Ok(later(LATE, WRITTEN)), later_or_never);
    }
    let target = request.uri().path_and_query().cloned();
    if let Some(target) = target {
        *request.uri_mut() = Uri::from(target);
    }
    let uri = request.uri().clone();
    let info = passthrough::read(request.method(), &uri)?;
    if wanted_upgrade(&request).is_some() {
        let args = [("reason", "the engine's door carries none")];
        return Err(ApiError::bad_request("error-upgrade-refused", &args));
    }
    let answer = passthrough::forward(gateway, &user, &info, request).await?;
    let code = answer.status();
    // Nothing was done: whatever it is, it may come again.
    if code == StatusCode::UNAUTHORIZED
        && is_refused(gateway, &user).await
        && let Some(since) = doors.refuse(&token, &user)
    {
        return later_or_never(since);
    }
    if code.is_success() {
        doors.taken(&token, &user);
    }
    if code != StatusCode::FORBIDDEN {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let body = body::up_to(DENIAL, body).await?;
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(words) = status.get("message").and_then(Value::as_str) {
        doors.denied(&token, words.to_owned());
    }
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Whether a 401 is the API server's own. One behind it (`APIService`) may say that of anybody.
async fn is_refused(gateway: &Gateway, user: &User) -> bool {
    let asked = gateway.cluster.get(Identity::User(user), "/version", DENIAL).await;
    // Whom it denies that it knows.
    asked.is_err_and(|failure| failure.code() != Some(StatusCode::FORBIDDEN))
}

/// To credentials that are refused since then: a 503 while newer ones are waited for, then the 401.
fn later_or_never(since: Instant) -> Result<Response, ApiError> {
    if since.elapsed() < PATIENCE {
        return Ok(later(REFUSED, RENEWED));
    }
    Err(ApiError::unauthorized())
}

/// What has client-go come again after so many seconds.
fn later(words: &str, seconds: &'static str) -> Response {
    let failure = Failure::status(StatusCode::SERVICE_UNAVAILABLE, words.as_bytes());
    let mut response = ApiError::from(failure).into_status_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
    response
}

/// The one bearer token, as client-go writes it.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()?.strip_prefix("Bearer ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helm::classify::classify;
    use crate::helm::engine::Why;

    #[test]
    fn who_is_late_is_asked_to_come_again() {
        let response = later(LATE, WRITTEN);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn newer_credentials_are_waited_for_a_while_and_then_the_end_is_clear() {
        let response = later_or_never(Instant::now()).unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], RENEWED);
        let since = Instant::now().checked_sub(PATIENCE).unwrap();
        assert_eq!(later_or_never(since).unwrap_err().status, StatusCode::UNAUTHORIZED);
        // client-go asks ten times more, and its discovery within 32 s.
        let last = 10 * RENEWED.parse::<u64>().unwrap();
        assert!((PATIENCE.as_secs() + 1..32).contains(&last), "{last}");
    }

    #[test]
    fn what_the_door_says_of_refused_credentials_is_told_as_that() {
        for words in [REFUSED, "Unauthorized"] {
            let said = format!("Error: UPGRADE FAILED: {words}\n");
            assert_eq!(classify(Why::Itself, &said).class, "credentials", "{said}");
        }
    }

    #[test]
    fn one_bearer_token_is_read_and_nothing_else() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for &value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            token(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer t"]).as_deref(), Some("t"));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["Basic t"]), None);
        assert_eq!(of(&["Bearer a", "Bearer b"]), None);
    }
}

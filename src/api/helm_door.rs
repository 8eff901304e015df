//! What `helm` reaches behind its door: the Kubernetes API as the user of its one operation, by
//! the passthrough's own way.
//!
//! A listener of its own, on loopback. It knows no other credential than a door's token, and
//! carries no upgrade: helm needs none.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::Value;

use super::caller::Asked;
use super::error::ApiError;
use super::{Gateway, Shared, body, passthrough, respond};
use crate::upstream::{Failure, wanted_upgrade};

/// A denial is a sentence; what is larger is none of the API server's.
const DENIAL: usize = 64 << 10;

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
        return Ok(late());
    }
    let target = request.uri().path_and_query().cloned();
    if let Some(target) = target {
        *request.uri_mut() = Uri::from(target);
    }
    let info = passthrough::read(&request)?;
    if wanted_upgrade(&request).is_some() {
        let args = [("reason", "the engine's door carries none")];
        return Err(ApiError::bad_request("error-upgrade-refused", &args));
    }
    let answer = passthrough::forward(gateway, &user, &info, request).await?;
    if answer.status() != StatusCode::FORBIDDEN {
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

/// Another may hold the lock by now. When it was renewed after all, client-go is back in a second.
fn late() -> Response {
    let words = "the lock of this operation could not be renewed in time";
    let failure = Failure::status(StatusCode::SERVICE_UNAVAILABLE, words.as_bytes());
    let mut response = ApiError::from(failure).into_status_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
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

    #[test]
    fn who_is_late_is_asked_to_come_again() {
        let response = late();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
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

//! Signing in as the web UI does it: `login` says whether a token is good, `me` who its owner is.
//!
//! No session is made and nothing is set: the UI keeps the token and sends it with every request.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use compact_str::CompactString;
use http::{HeaderValue, StatusCode, header};
use moka::future::Cache;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::body;
use crate::api::caller::Asked;
use crate::api::error::{ApiError, Told};
use crate::api::{Caller, Gateway, Shared};
use crate::i18n::Locale;
use crate::serve::Peer;
use crate::upstream::{Failure, Fingerprint, Identity, OBJECT_LIMIT, User};

/// Who am I (Kubernetes 1.28 and later). Other than `/version` it is never open to everybody.
const SELF_REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// What user names of service accounts begin with; the namespace and the name follow.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// The UI asks every 30 s in each window; a deleted account is noticed within this time more.
const NAMED_FOR: Duration = Duration::from_secs(10);
/// Of a body with a token: as much as a header may have, in which it is sent from then on.
const LOGIN: usize = 64 << 10;
/// Names kept, each about 200 bytes.
const NAMES: u64 = 10_000;

/// The names of callers, for seconds.
pub struct Names(Cache<Fingerprint, Option<CompactString>>);

impl Default for Names {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(NAMES).time_to_live(NAMED_FOR).build())
    }
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    token: String,
}

/// `POST /api/v1/login`: the token back when the API server knows it, else 401.
pub async fn login(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let (head, sent) = request.into_parts();
    let Login { token } = body::read_up_to(&gateway, LOGIN, &head.headers, sent).await?;
    // Pasted tokens come with line ends.
    let token = token.trim();
    if token.is_empty() {
        return Err(ApiError::bad_request("error-token-missing", &[]));
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| ApiError::unauthorized())?;
    value.set_sensitive(true);
    let mut headers = head.headers;
    headers.insert(header::AUTHORIZATION, value);
    let peer = head.extensions.get::<Peer>().copied();
    let asked = Asked { method: &head.method, uri: &head.uri, headers: &headers, peer };
    let user = gateway.callers.user(&asked)?;
    who_is(&gateway, &user).await?;
    Ok(body::answer(StatusCode::OK, &json!({ "token": token })))
}

/// `GET /api/v1/me`: who the caller is.
pub async fn me(State(gateway): Shared, Caller(user): Caller) -> Result<Response, ApiError> {
    let name = if user.is_over() {
        who_is(&gateway, &user).await?
    } else {
        let asking = who_is(&gateway, &user);
        let found = gateway.names.0.try_get_with(user.fingerprint(), asking).await;
        found.map_err(|failure| (*failure).clone())?
    };
    let mut answer = json!({ "authenticated": true });
    if let Some(name) = name {
        answer["name"] = name.as_str().into();
    }
    Ok(body::answer(StatusCode::OK, &answer))
}

/// Around the routes of sign-in and web: their errors are JSON, in the caller's language.
pub async fn as_items(State(gateway): Shared, request: Request, next: Next) -> Response {
    let locale = gateway.locale_of(request.headers());
    as_item(next.run(request).await, locale)
}

fn as_item(mut response: Response, locale: Locale) -> Response {
    let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() else {
        return response;
    };
    let mut item = body::answer(error.status, &error.as_item(locale));
    if let Some(after) = response.headers_mut().remove(header::RETRY_AFTER) {
        item.headers_mut().insert(header::RETRY_AFTER, after);
    }
    item.extensions_mut().insert(Told(error));
    item
}

/// The caller's name, if the API server tells it; 401 when it does not know the caller.
async fn who_is(gateway: &Gateway, user: &User) -> Result<Option<CompactString>, Failure> {
    let who = Identity::User(user);
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let answer = gateway.cluster.post(who, SELF_REVIEW, &review).await;
    match gateway.authorizer.heed(user, answer).await {
        Ok(answer) => Ok(name_in(&answer)),
        // An old API server, or one where people may not ask: good credentials get a version.
        Err(failure)
            if matches!(failure.code(), Some(StatusCode::NOT_FOUND | StatusCode::FORBIDDEN)) =>
        {
            let version = gateway.cluster.get(who, "/version", OBJECT_LIMIT).await;
            gateway.authorizer.heed(user, version).await.map(|_| None)
        }
        Err(failure) => Err(failure),
    }
}

/// The user name of a review; of a service account its bare name, as the contract has it.
fn name_in(review: &[u8]) -> Option<CompactString> {
    let review: Value = serde_json::from_slice(review).ok()?;
    let name = review.pointer("/status/userInfo/username")?.as_str()?;
    let bare = name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let name = bare.map_or(name, |(_, name)| name);
    (!name.is_empty()).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn an_error_becomes_an_item_that_the_log_hears_of_and_says_when_to_come_again() {
        let chinese = Locale::parse("zh-Hans").unwrap();
        for (error, after) in [(body::too_many(), Some("5")), (ApiError::unauthorized(), None)] {
            let mut answer = as_item(error.clone().into_response(), chinese);
            assert_eq!(answer.status(), error.status);
            let said = answer.headers().get(header::RETRY_AFTER);
            assert_eq!(said.map(|value| value.to_str().unwrap()), after);
            let Told(told) = answer.extensions_mut().remove().unwrap();
            assert_eq!(told.text(chinese), error.text(chinese));
            assert_eq!(answer.extensions().get::<Arc<ApiError>>().map(|error| error.status), None);
        }
    }

    #[test]
    fn a_service_account_goes_by_its_bare_name_and_others_by_their_own() {
        let name = |username: &str| {
            let review = json!({ "status": { "userInfo": { "username": username } } });
            name_in(review.to_string().as_bytes())
        };
        assert_eq!(name("system:serviceaccount:atlas:reader").as_deref(), Some("reader"));
        assert_eq!(name("jane@example.com").as_deref(), Some("jane@example.com"));
        assert_eq!(name("system:serviceaccount:odd").as_deref(), Some("system:serviceaccount:odd"));
        assert_eq!(name(""), None);
        assert_eq!(name_in(b"{}"), None);
        assert_eq!(name_in(b"no JSON"), None);
    }
}

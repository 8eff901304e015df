//! The contract's CSRF tokens: a MAC over action and time. Every replica with the same key accepts
//! them, so a token may be fetched from one and used at another.
//!
//! They are bound to no user and no session: they prove that a page of ours sent the request, and
//! are NOT a way to sign in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::api::Shared;
use crate::api::body;
use crate::api::error::ApiError;
use crate::api::target::{encoded, segment};
use crate::upstream::{Cluster, Failure, Identity, OBJECT_LIMIT, UpstreamError};

/// What the web UI sends the token in.
const HEADER: &str = "x-csrf-token";
/// The contract's fixed text: it is compared, never translated.
const REFUSED: &str = "MSG_CSRF_VALIDATION_ERROR";
/// How long a token is good, in milliseconds.
const LIFETIME: i64 = 24 * 60 * 60 * 1000;
/// How far the clock of another replica may be ahead of ours, in milliseconds.
const AHEAD: i64 = 60 * 1000;
/// Bytes of a key that we make; the contract's length.
const KEY_LENGTH: usize = 256;
/// Shorter keys are weaker than the MAC.
const SHORTEST_KEY: usize = 32;
/// The key's name in the Secret.
const ENTRY: &str = "csrf.key";
/// Rounds of read and create until we give up; each lost one means that another replica has won.
const ROUNDS: usize = 5;
/// How long a caller waits for the key, whoever reads it: as long as for any answer of the API
/// server.
const WAIT: Duration = Duration::from_secs(30);
/// How long a key is taken before the Secret is asked for again: somebody may have put another one
/// there, and what denies it at first may be a role that is applied a moment after us.
const AGAIN: Duration = Duration::from_secs(60);
/// How long one caller waits for that. The others have the key of before, and so has he then.
const LOOK: Duration = Duration::from_secs(5);

/// Makes and checks tokens.
pub struct Csrf {
    /// Off, every POST is accepted; tokens are still handed out.
    on: bool,
    /// Namespace and name of the Secret that replicas share; `None`: the key is this process's own.
    secret: Option<(String, String)>,
    /// Had at the first token, not at start: an API server that is away must not keep us from it.
    /// One reads the Secret while the others wait, until there is a key.
    held: Mutex<Option<Held>>,
}

/// A key that we have.
struct Held {
    key: Arc<hmac::Key>,
    /// Until the Secret is asked for again, where replicas share one.
    until: Option<Instant>,
}

impl Csrf {
    /// A random key of this process: right for a single replica.
    pub fn random() -> Self {
        Self { on: true, secret: None, held: Mutex::default() }
    }

    /// The key in a Secret, made there by the first replica that needs it.
    pub fn shared(namespace: String, name: String) -> Self {
        Self { on: true, secret: Some((namespace, name)), held: Mutex::default() }
    }

    /// A key as base64, as `head -c 256 /dev/urandom | base64` makes it.
    ///
    /// # Errors
    /// What is wrong with the text; never the text itself.
    pub fn with_key(text: &str) -> Result<Self, String> {
        let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(plain).map_err(|_| "the CSRF key is not base64".to_owned())?;
        if bytes.len() < SHORTEST_KEY {
            let found = bytes.len();
            return Err(format!("the CSRF key has {found} bytes; use {KEY_LENGTH}"));
        }
        let held = Held { key: Arc::new(new_key(&bytes)), until: None };
        Ok(Self { on: true, secret: None, held: Mutex::new(Some(held)) })
    }

    /// POSTs need no token: only for API clients that no browser is. The key stays, and what is
    /// derived from it.
    pub fn off(self) -> Self {
        Self { on: false, ..self }
    }

    /// A key for this purpose alone (HKDF-Expand, RFC 5869). No token is one: theirs are MACs of
    /// texts that begin with "none:".
    pub async fn derived(
        &self,
        cluster: &Cluster,
        purpose: &'static str,
    ) -> Result<[u8; 32], ApiError> {
        let key = self.key(cluster).await?;
        let tag = hmac::sign(&key, &[purpose.as_bytes(), &[1]].concat());
        let mut derived = [0; 32];
        derived.copy_from_slice(tag.as_ref());
        Ok(derived)
    }

    async fn key(&self, cluster: &Cluster) -> Result<Arc<hmac::Key>, ApiError> {
        self.key_within(cluster, WAIT).await
    }

    /// When the one who reads fails the next one reads: without a bound for each the last would wait
    /// for the time-outs of all before.
    async fn key_within(
        &self,
        cluster: &Cluster,
        wait: Duration,
    ) -> Result<Arc<hmac::Key>, ApiError> {
        timeout(wait, self.found(cluster)).await.map_err(|_| UpstreamError::Timeout)?
    }

    async fn found(&self, cluster: &Cluster) -> Result<Arc<hmac::Key>, ApiError> {
        let mut held = self.held.lock().await;
        let Some(Held { key, until }) = &mut *held else {
            let first = self.asked(cluster, None).await?;
            return Ok(held.insert(first).key.clone());
        };
        if until.is_none_or(|until| Instant::now() < until) {
            return Ok(key.clone());
        }
        // Before we ask: while nobody answers, whoever comes next has the key that we have.
        *until = Some(Instant::now() + AGAIN);
        let before = key.clone();
        drop(held);
        let asked = timeout(LOOK, self.asked(cluster, Some(before.clone()))).await;
        let Ok(Ok(now)) = asked else { return Ok(before) };
        Ok(self.held.lock().await.insert(now).key.clone())
    }

    /// The key that the Secret has now; while we are denied it, the one of before or one of our own.
    async fn asked(
        &self,
        cluster: &Cluster,
        before: Option<Arc<hmac::Key>>,
    ) -> Result<Held, ApiError> {
        let Some((namespace, name)) = &self.secret else {
            return Ok(Held { key: Arc::new(new_key(&random_bytes()?)), until: None });
        };
        let key = match shared_key(cluster, namespace, name).await? {
            Found::Key(key) => key,
            Found::Denied(failure) => alone(before, &failure, namespace, name)?,
        };
        Ok(Held { key, until: Some(Instant::now() + AGAIN) })
    }

    /// Whether the request may be done, seen from here.
    async fn accepts(
        &self,
        cluster: &Cluster,
        action: &str,
        sent: Option<&str>,
    ) -> Result<bool, ApiError> {
        if !self.on {
            return Ok(true);
        }
        let Some(sent) = sent else { return Ok(false) };
        let key = self.key(cluster).await?;
        Ok(is_valid(&key, action, sent, now()))
    }
}

/// `GET /api/v1/csrftoken/{action}`; needs no credentials.
pub async fn issue(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let action = segment(request.uri().path().rsplit('/').next().unwrap_or_default())?;
    let key = gateway.csrf.key(&gateway.cluster).await?;
    Ok(body::answer(StatusCode::OK, &json!({ "token": token(&key, &action, now()) })))
}

/// In front of the POSTs of the contract: 401 without a token for the path's first element.
pub async fn guard(State(gateway): Shared, request: Request, next: Next) -> Response {
    let Some(action) = guarded(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let sent = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
    match gateway.csrf.accepts(&gateway.cluster, action, sent).await {
        Ok(true) => next.run(request).await,
        Ok(false) => refusal(action),
        Err(error) => error.into_response(),
    }
}

/// The action that a request needs a token for: only POSTs do, and validations change nothing.
fn guarded<'a>(method: &Method, path: &'a str) -> Option<&'a str> {
    let path = path.strip_prefix("/api/v1").unwrap_or(path).trim_start_matches('/');
    if method != Method::POST || path.starts_with("appdeployment/validate/") {
        return None;
    }
    path.split('/').next()
}

/// The contract's two forms of the same: of the sign-in JSON, else text.
fn refusal(action: &str) -> Response {
    let status = StatusCode::UNAUTHORIZED;
    if action != "login" {
        return (status, REFUSED).into_response();
    }
    let item = json!({ "ErrStatus": {
        "metadata": {}, "status": "Failure", "message": REFUSED, "reason": "Invalid",
        "code": status.as_u16(),
    }});
    body::answer(status, &item)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn new_key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

fn random_bytes() -> Result<[u8; KEY_LENGTH], ApiError> {
    let mut bytes = [0; KEY_LENGTH];
    rand::fill(&mut bytes).map_err(|_| ApiError::internal(&"no randomness for a CSRF key"))?;
    Ok(bytes)
}

/// "none" is the user that the contract has in every token.
fn message(action: &str, at: i64) -> String {
    format!("none:{action}:{at}")
}

fn token(key: &hmac::Key, action: &str, at: i64) -> String {
    let mac = hmac::sign(key, message(action, at).as_bytes());
    format!("{}:{at}", URL_SAFE_NO_PAD.encode(mac))
}

/// The MAC is compared in constant time.
fn is_valid(key: &hmac::Key, action: &str, token: &str, now: i64) -> bool {
    let Some((mac, at)) = token.split_once(':') else { return false };
    let (Ok(mac), Ok(at)) = (URL_SAFE_NO_PAD.decode(mac), at.parse::<i64>()) else { return false };
    let age = now.saturating_sub(at);
    (-AHEAD..=LIFETIME).contains(&age)
        && hmac::verify(key, message(action, at).as_bytes(), &mac).is_ok()
}

/// What came of asking for the Secret.
enum Found {
    Key(Arc<hmac::Key>),
    /// We have no right to it, or its namespace is not there.
    Denied(Failure),
}

/// Reads the Secret or creates it; of replicas that create it at once, one wins.
async fn shared_key(cluster: &Cluster, namespace: &str, name: &str) -> Result<Found, ApiError> {
    let collection = format!("/api/v1/namespaces/{}/secrets", encoded(namespace));
    let path = format!("{collection}/{}", encoded(name));
    for _ in 0..ROUNDS {
        let read = cluster.get(Identity::Server, &path, OBJECT_LIMIT).await;
        let found = match read {
            Err(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => {
                let made = made(namespace, name)?;
                cluster.post(Identity::Server, &collection, &made).await
            }
            other => other,
        };
        match found {
            Ok(secret) => {
                let found = key_in(&secret).map(|key| Found::Key(Arc::new(key)));
                return found.ok_or_else(|| {
                    ApiError::internal(&format!(
                        "Secret {namespace}/{name} has no {ENTRY} of at least {SHORTEST_KEY} \
                         bytes; delete it to have a new one made"
                    ))
                });
            }
            Err(failure) if failure.code() == Some(StatusCode::CONFLICT) => {}
            Err(failure) => {
                return match failure.code() {
                    Some(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                        Ok(Found::Denied(failure))
                    }
                    // Our own credentials are refused, not the caller's.
                    Some(_) => Err(ApiError::internal(&failure)),
                    None => Err(failure.into()),
                };
            }
        }
    }
    Err(ApiError::internal(&format!("Secret {namespace}/{name} is there and is not, in turn")))
}

/// Without the Secret one replica can still work: said once, since the key stays as it is while we
/// are denied.
fn alone(
    before: Option<Arc<hmac::Key>>,
    denied: &Failure,
    namespace: &str,
    name: &str,
) -> Result<Arc<hmac::Key>, ApiError> {
    if let Some(before) = before {
        return Ok(before);
    }
    tracing::warn!(
        error = %denied, secret = %format_args!("{namespace}/{name}"),
        "the CSRF key cannot be shared: allow get and create of this Secret, or other replicas \
         will refuse our tokens"
    );
    random_bytes().map(|bytes| Arc::new(new_key(&bytes)))
}

fn made(namespace: &str, name: &str) -> Result<Value, ApiError> {
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": { "app.kubernetes.io/managed-by": "binnacle" },
        },
        "data": { ENTRY: STANDARD.encode(random_bytes()?) },
    }))
}

fn key_in(secret: &[u8]) -> Option<hmac::Key> {
    let secret: Value = serde_json::from_slice(secret).ok()?;
    let bytes = STANDARD.decode(secret["data"][ENTRY].as_str()?).ok()?;
    (bytes.len() >= SHORTEST_KEY).then(|| new_key(&bytes))
}

#[cfg(test)]
#[path = "csrf_tests.rs"]
mod tests;

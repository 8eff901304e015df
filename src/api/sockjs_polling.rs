//! SockJS's xhr transports: what the client is told waits in a session of this replica until a poll
//! or a stream fetches it, what it says comes in requests of its own.
//!
//! NOT for several replicas: both directions must reach the same one. A cookie whose path is the
//! session's own address tells which one that was, so that another can say what is wrong.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::time::timeout;

use super::Gateway;
use super::caller::{Asked, cookie};
use super::error::ApiError;
use super::shell::{self, Client, Told};
use super::shell_session::cookie_path;
use super::sockjs::{BEAT, audit, client, going_away, too_large};
use super::sockjs_frames::{self as frames, BadFrame, Close, LARGEST};
use crate::i18n::{self, Locale};
use crate::upstream::{Fingerprint, User};

/// Says at which replica a session is.
const COOKIE: &str = "binnacle-xhr";
/// Seconds that the cookie is kept; each answer to a poll renews it.
const COOKIE_AGE: u32 = 60 * 60;
/// The protocol's: how long a session waits for the next poll.
const PATIENCE: Duration = Duration::from_secs(5);
/// The protocol's: what browsers of old do not show before so much has come.
const PRELUDE: usize = 2048;
/// The protocol's limit of a streaming answer, in bytes: scripts hold all of it until its end.
const STREAM_LIMIT: usize = 128 << 10;
/// Bytes that one frame gathers from what waits.
const FRAME_LIMIT: usize = 64 << 10;
/// How long a process may leave typed text lie before the session is given up.
const PUSH_TIME: Duration = Duration::from_secs(30);
/// How long a body of at most `LARGEST` bytes may take.
const BODY_TIME: Duration = Duration::from_secs(30);
const STILL_OPEN: (u16, &str) = (2010, "Another connection still open");
const INTERRUPTED: (u16, &str) = (1002, "Connection interrupted");

/// A session's place in its address.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    pub server: &'p str,
    pub session: &'p str,
}

/// The sessions of the xhr transports, by name.
#[derive(Default)]
pub(super) struct Polled(Mutex<HashMap<String, Arc<Polling>>>);

impl Polled {
    fn get(&self, name: &str) -> Option<Arc<Polling>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whether it was new.
    fn add(&self, name: &str, polling: &Arc<Polling>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.entry(name.to_owned()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(polling.clone());
                true
            }
        }
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// One session.
struct Polling {
    /// Whom the request that began it could speak for.
    owners: Vec<Fingerprint>,
    /// Who has bound it.
    bound: Arc<OnceLock<Fingerprint>>,
    state: Mutex<State>,
    /// Held by the one connection that fetches.
    inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<Told>>>,
    /// Whether there is such a connection.
    attached: watch::Sender<bool>,
    transport: &'static str,
}

struct State {
    /// `None`: nothing is taken any more.
    say: Option<mpsc::Sender<String>>,
    /// How it ended.
    close: Option<Close>,
}

impl Polling {
    /// Others do not learn that it exists.
    fn belongs_to(&self, users: &[User]) -> bool {
        let mut found = users.iter().map(User::fingerprint);
        match self.bound.get() {
            Some(bound) => found.any(|one| one == *bound),
            None if self.owners.is_empty() => users.is_empty(),
            None => found.any(|one| self.owners.contains(&one)),
        }
    }

    /// Ends it; the first reason counts.
    fn close(&self, close: Close) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.say = None;
        state.close.get_or_insert(close);
    }

    fn closed(&self) -> Option<Close> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).close.clone()
    }

    fn say(&self) -> Option<mpsc::Sender<String>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).say.clone()
    }
}

/// The connection that fetches a session's frames. Dropped before it is finished, it was cut off,
/// and the protocol ends the session: what it held may be lost.
struct Attached {
    gateway: Arc<Gateway>,
    polling: Arc<Polling>,
    inbox: OwnedMutexGuard<mpsc::Receiver<Told>>,
    finished: bool,
}

impl Attached {
    /// `None` while there is another.
    fn to(gateway: &Arc<Gateway>, polling: &Arc<Polling>) -> Option<Self> {
        let inbox = polling.inbox.clone().try_lock_owned().ok()?;
        polling.attached.send_replace(true);
        let (gateway, polling) = (gateway.clone(), polling.clone());
        Some(Self { gateway, polling, inbox, finished: false })
    }

    /// The next frame; `true` with the session's last.
    async fn frame(&mut self) -> (String, bool) {
        if let Some(close) = self.polling.closed() {
            return (close.frame(), true);
        }
        let mut next = tokio::select! {
            told = self.inbox.recv() => told,
            () = tokio::time::sleep(BEAT) => return (frames::HEARTBEAT.to_owned(), false),
            () = self.gateway.shells.ended.cancelled() => Some(Told::Close(going_away())),
        };
        let (mut messages, mut size) = (Vec::new(), 0);
        loop {
            match next {
                Some(Told::Message(message)) => {
                    size += message.len();
                    messages.push(message);
                }
                Some(Told::Close(close)) => {
                    self.polling.close(close);
                    break;
                }
                None => {
                    self.polling.close(interrupted());
                    break;
                }
            }
            if size >= FRAME_LIMIT {
                break;
            }
            let Ok(told) = self.inbox.try_recv() else { break };
            next = Some(told);
        }
        match self.polling.closed() {
            Some(close) if messages.is_empty() => (close.frame(), true),
            _ => (frames::array(&messages), false),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.finished {
            self.polling.close(interrupted());
        }
        self.polling.attached.send_replace(false);
    }
}

fn interrupted() -> Close {
    Close::new(INTERRUPTED.0, INTERRUPTED.1)
}

/// Begins a session, whose first poll this is; `None` when another poll was faster.
fn begin(gateway: &Arc<Gateway>, name: &str, client: Client) -> Result<Option<Attached>, ApiError> {
    let owners = client.users.iter().map(User::fingerprint).collect();
    let (bound, transport) = (client.bound.clone(), client.transport);
    let (say, inbox) = shell::begin(gateway, client);
    let polling = Arc::new(Polling {
        owners,
        bound,
        state: Mutex::new(State { say: Some(say), close: None }),
        inbox: Arc::new(tokio::sync::Mutex::new(inbox)),
        attached: watch::Sender::new(true),
        transport,
    });
    if !gateway.shells.polled.add(name, &polling) {
        return Ok(None);
    }
    let attached = Attached::to(gateway, &polling);
    gateway.shells.tasks.spawn(keep(gateway.clone(), name.to_owned(), polling));
    Ok(attached)
}

/// Keeps a session until nobody has fetched for a while.
async fn keep(gateway: Arc<Gateway>, name: String, polling: Arc<Polling>) {
    let mut attached = polling.attached.subscribe();
    let left = async {
        loop {
            if attached.wait_for(|is| !*is).await.is_err() {
                return;
            }
            let back = timeout(PATIENCE, attached.wait_for(|is| *is)).await;
            let is_back = back.is_ok_and(|seen| seen.is_ok());
            if !is_back {
                return;
            }
        }
    };
    let close = tokio::select! {
        () = left => interrupted(),
        () = gateway.shells.ended.cancelled() => going_away(),
    };
    polling.close(close);
    gateway.shells.polled.remove(&name);
}

/// `POST …/xhr` and `…/xhr_streaming`: the next frame, or all of them for a while.
pub(super) async fn poll(
    gateway: Arc<Gateway>,
    request: Request,
    at: At<'_>,
    streaming: bool,
) -> Result<Response, ApiError> {
    let transport = if streaming { "sockjs-xhr-streaming" } else { "sockjs-xhr" };
    let asked = Asked::of(&request);
    let client = client(&gateway, &asked, transport).await?;
    let (attached, first) = match gateway.shells.polled.get(at.session) {
        Some(polling) if !polling.belongs_to(&client.users) => {
            let close = client.refuse(None, "error-shell-stranger", &[]);
            return Ok(only(&close, streaming));
        }
        Some(polling) => (Attached::to(&gateway, &polling), None),
        None => match replica(asked.headers) {
            Some(one) if one == gateway.shells.replica => {
                return Ok(only(&going_away(), streaming));
            }
            Some(_) => {
                let close = client.refuse(None, "error-shell-other-replica", &[]);
                return Ok(only(&close, streaming));
            }
            None => (begin(&gateway, at.session, client)?, Some(frames::OPEN.to_owned())),
        },
    };
    let Some(mut attached) = attached else {
        return Ok(only(&Close::new(STILL_OPEN.0, STILL_OPEN.1), streaming));
    };
    let cookie = replica_cookie(&gateway, asked.headers, at);
    let mut response = if streaming {
        stream(attached, first)
    } else {
        let frame = match first {
            Some(frame) => frame,
            None => attached.frame().await.0,
        };
        attached.finished = true;
        format!("{frame}\n").into_response()
    };
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// An answer of one close frame.
fn only(close: &Close, streaming: bool) -> Response {
    let prelude = if streaming { prelude() } else { String::new() };
    format!("{prelude}{}\n", close.frame()).into_response()
}

fn prelude() -> String {
    "h".repeat(PRELUDE) + "\n"
}

/// Frames as they come, until the limit is reached or the session ends.
fn stream(attached: Attached, first: Option<String>) -> Response {
    struct Streaming {
        attached: Attached,
        /// What comes before the session's own frames, the next at the end.
        before: Vec<String>,
        sent: usize,
    }
    let before = first.map(|frame| format!("{frame}\n")).into_iter().chain([prelude()]).collect();
    let begun = Streaming { attached, before, sent: 0 };
    let frames = futures::stream::unfold(begun, |mut state| async move {
        if state.attached.finished {
            return None;
        }
        let text = match state.before.pop() {
            Some(text) => text,
            None => {
                let (frame, is_last) = state.attached.frame().await;
                state.sent += frame.len();
                state.attached.finished = is_last || state.sent >= STREAM_LIMIT;
                frame + "\n"
            }
        };
        Some((Ok::<_, Infallible>(Bytes::from(text)), state))
    });
    let mut response = Response::new(Body::from_stream(frames));
    // Proxies such as nginx would hold it back until its end.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// `POST …/xhr_send`: what the client says.
pub(super) async fn send(
    gateway: Arc<Gateway>,
    request: Request,
    session: &str,
) -> Result<Response, ApiError> {
    let asked = Asked::of(&request);
    let client = client(&gateway, &asked, "sockjs-xhr-send").await?;
    let found = gateway.shells.polled.get(session);
    let Some(polling) = found.filter(|polling| polling.belongs_to(&client.users)) else {
        let message = match replica(asked.headers) {
            Some(one) if one != gateway.shells.replica => "error-shell-other-replica",
            _ => "error-shell-no-session",
        };
        let close = client.refuse(None, message, &[]);
        return Ok((StatusCode::NOT_FOUND, close.reason).into_response());
    };
    let locale = client.locale;
    let reading = Limited::new(request.into_body(), LARGEST).collect();
    let body = match timeout(BODY_TIME, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let close = too_large(locale);
            audit(polling.transport, &close);
            polling.close(close.clone());
            return Ok((StatusCode::PAYLOAD_TOO_LARGE, close.reason).into_response());
        }
        Ok(Err(_)) | Err(_) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(ApiError::with_status(status, "error-body-too-slow", &[]));
        }
    };
    let broken = |words: &'static str| (StatusCode::INTERNAL_SERVER_ERROR, words).into_response();
    match frames::messages(&body) {
        Ok(messages) => push(&polling, messages, locale).await,
        Err(BadFrame::Empty) => return Ok(broken("Payload expected.")),
        Err(BadFrame::Broken) => return Ok(broken("Broken JSON encoding.")),
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What a session that has ended is told is lost; the next poll says how it ended.
async fn push(polling: &Polling, messages: Vec<String>, locale: Locale) {
    let Some(say) = polling.say() else { return };
    let all = async {
        for message in messages {
            if say.send(message).await.is_err() {
                return;
            }
        }
    };
    if timeout(PUSH_TIME, all).await.is_err() {
        polling.close(Close::new(2, i18n::message(locale, "error-shell-stuck", &[])));
    }
}

/// The replica that began this session, as the client's cookie tells.
fn replica(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

fn replica_cookie(gateway: &Gateway, headers: &HeaderMap, at: At<'_>) -> Option<HeaderValue> {
    let path = cookie_path(headers, &gateway.base_path);
    let (At { server, session }, name) = (at, &gateway.shells.replica);
    let text = format!(
        "{COOKIE}={name}; Path={path}/{server}/{session}; Max-Age={COOKIE_AGE}; HttpOnly; Secure; \
         SameSite=Strict"
    );
    HeaderValue::from_str(&text).ok()
}

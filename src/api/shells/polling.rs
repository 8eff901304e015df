//! SockJS's xhr transports: what the client is told waits in a session of this replica until a poll
//! or a stream fetches it, what it says comes in requests of its own.
//!
//! NOT for several replicas: both directions must reach the same one. A cookie whose path is the
//! session's own address tells which one that was, so that another can say what is wrong.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::frames::{self as frames, BadFrame, Close, LARGEST, LARGEST_BODY};
use super::shell::{self, Client, Room, Shells, Told};
use super::sockjs::{PREFIX, client, going_away, too_large};
use crate::api::Gateway;
use crate::api::caller::{Asked, cookie};
use crate::api::error::ApiError;
use crate::api::websocket::BEAT;
use crate::i18n;
use crate::upstream::User;

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
/// How long more may wait than fits into a frame, while the connection that fetches takes nothing:
/// client-go's write deadline.
const UNREAD: Duration = Duration::from_secs(60);
/// How long a process may leave typed text lie before the session is given up.
const PUSH_TIME: Duration = Duration::from_secs(30);
/// How long a long paste may take as a whole: proxies give up an answer after 60 s, and nobody is
/// told then; and its place is others' again.
const PASTE_TIME: Duration = Duration::from_secs(50);
/// How long a body of at most `LARGEST_BODY` bytes may take, with its wait for room.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Bodies at once of one session. Clients send one after the other, so that what was typed stays in
/// order; the second is for one whose connection was lost and that we have not given up yet.
const SENDS: usize = 2;
const STILL_OPEN: (u16, &str) = (2010, "Another connection still open");
const INTERRUPTED: (u16, &str) = (1002, "Connection interrupted");

/// A session's place in its address.
#[derive(Clone, Copy)]
pub(crate) struct At<'p> {
    pub server: &'p str,
    pub session: &'p str,
}

/// The sessions of the xhr transports, by name.
#[derive(Default)]
pub(crate) struct Polled(Mutex<HashMap<String, Arc<Polling>>>);

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
    client: Arc<Client>,
    state: watch::Sender<State>,
    /// Room for what the client says: a body waits here as long as the process does not read.
    sends: Semaphore,
}

#[derive(Default)]
struct State {
    /// What waits to be fetched. It is here and not with the connection, which may have stopped to
    /// read and is in nobody's hand then.
    waits: Vec<String>,
    /// Whether there is a connection that fetches, and how many there were.
    attached: bool,
    visits: u64,
    /// `None`: nothing is taken any more.
    say: Option<mpsc::Sender<String>>,
    /// How it ended.
    close: Option<Close>,
}

impl State {
    /// Bytes that wait.
    fn size(&self) -> usize {
        self.waits.iter().map(String::len).sum()
    }
}

impl Polling {
    fn new(client: Arc<Client>, say: mpsc::Sender<String>) -> Self {
        let state = State { say: Some(say), ..State::default() };
        Self { client, state: watch::Sender::new(state), sends: Semaphore::new(SENDS) }
    }

    /// Whether one of these is whose it is. Until it is bound that is anybody for whom the request
    /// that began it could speak.
    fn belongs_to(&self, users: &[User]) -> bool {
        let owners = &self.client.users;
        let mut found = users.iter().map(User::fingerprint);
        match self.client.bound.get() {
            Some(bound) => found.any(|one| one == *bound),
            None if owners.is_empty() => users.is_empty(),
            None => found.any(|one| owners.iter().any(|owner| owner.fingerprint() == one)),
        }
    }

    /// Waits until it is so.
    async fn until(&self, is_so: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        // Its other end is ours, and stays.
        let _ = state.wait_for(is_so).await;
    }

    /// Ends it, and forgets what nobody has fetched; the first reason counts.
    fn close(&self, close: Close) {
        self.state.send_modify(|state| {
            state.say = None;
            if state.close.is_none() {
                state.close = Some(close);
                state.waits = Vec::new();
            }
        });
    }

    /// Brings what is told to where it is fetched. Ends with the talk, when all was fetched, or
    /// when nobody fetches for too long.
    async fn carry(&self, mut told: mpsc::Receiver<Told>) -> Close {
        loop {
            let next = told.recv().await;
            let room = if matches!(next, Some(Told::Message(_))) { FRAME_LIMIT } else { 1 };
            let free = self.until(|state| state.size() < room);
            if timeout(UNREAD, free).await.is_err() {
                return interrupted();
            }
            match next {
                Some(Told::Message(message)) => {
                    self.state.send_modify(|state| state.waits.push(message));
                }
                Some(Told::Close(close)) => return close,
                None => return interrupted(),
            }
        }
    }

    /// Waits until nobody has fetched for a while.
    async fn left(&self) {
        loop {
            self.until(|state| !state.attached).await;
            let visits = self.state.borrow().visits;
            let back = self.until(|state| state.attached || state.visits != visits);
            if timeout(PATIENCE, back).await.is_err() {
                return;
            }
        }
    }
}

/// The connection that fetches a session's frames. Dropped before it is finished, it was cut off,
/// and the protocol ends the session: what it held may be lost.
struct Attached {
    polling: Arc<Polling>,
    finished: bool,
}

impl Attached {
    /// `None` while there is another.
    fn to(polling: Arc<Polling>) -> Option<Self> {
        let mut is_free = false;
        polling.state.send_modify(|state| {
            is_free = !state.attached;
            state.attached = true;
            state.visits += u64::from(is_free);
        });
        is_free.then(|| Self { polling, finished: false })
    }

    /// The next frame; `true` with the session's last.
    async fn frame(&self) -> (String, bool) {
        let state = &self.polling.state;
        let ready = self.polling.until(|state| !state.waits.is_empty() || state.close.is_some());
        if timeout(BEAT, ready).await.is_err() {
            return (frames::HEARTBEAT.to_owned(), false);
        }
        let mut messages = Vec::new();
        state.send_modify(|state| messages = std::mem::take(&mut state.waits));
        let close = state.borrow().close.clone();
        match close {
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
        self.polling.state.send_modify(|state| state.attached = false);
    }
}

fn interrupted() -> Close {
    Close::new(INTERRUPTED.0, INTERRUPTED.1)
}

/// Begins a session, whose first poll this is; `None` when another poll was faster.
fn begin(
    gateway: &Arc<Gateway>,
    name: &str,
    client: Arc<Client>,
    waiting: Room,
) -> Option<Attached> {
    let (say, told) = shell::begin(gateway, &client, waiting);
    let polling = Arc::new(Polling::new(client, say));
    let attached = Attached::to(polling.clone());
    if !gateway.shells.polled.add(name, &polling) {
        return None;
    }
    gateway.shells.tasks.spawn(keep(gateway.clone(), name.to_owned(), polling, told));
    attached
}

/// Keeps a session until it ends, or nobody has fetched for a while. It alone holds what the talk
/// tells: a connection that does not read holds up neither the talk nor the end of this process.
async fn keep(
    gateway: Arc<Gateway>,
    name: String,
    polling: Arc<Polling>,
    told: mpsc::Receiver<Told>,
) {
    let ended = gateway.shells.ended.cancelled();
    let close = tokio::select! {
        close = polling.carry(told) => close,
        // The reason is there already.
        () = polling.until(|state| state.close.is_some()) => interrupted(),
        () = polling.left() => interrupted(),
        () = ended => going_away(),
    };
    polling.close(close);
    // Told again to whoever asks again.
    let _ = timeout(PATIENCE, gateway.shells.ended.cancelled()).await;
    gateway.shells.polled.remove(&name);
}

/// `POST …/xhr` and `…/xhr_streaming`: the next frame, or all of them for a while.
pub(crate) async fn poll(
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
            let close = client.refuse(&gateway, None, "error-shell-stranger", &[]).await;
            return Ok(only(&close, streaming));
        }
        Some(polling) => (Attached::to(polling), None),
        None => match replica(asked.headers) {
            Some(one) if one == gateway.shells.replica => {
                return Ok(only(&going_away(), streaming));
            }
            Some(_) => {
                let close = client.refuse(&gateway, None, "error-shell-other-replica", &[]).await;
                return Ok(only(&close, streaming));
            }
            None => {
                let waiting = shell::waiting(&gateway, &client.users).await?;
                let attached = begin(&gateway, at.session, client, waiting);
                (attached, Some(frames::OPEN.to_owned()))
            }
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
pub(crate) async fn send(
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
        let close = client.refuse(&gateway, None, message, &[]).await;
        return Ok((StatusCode::NOT_FOUND, close.reason).into_response());
    };
    let Ok(_send) = polling.sends.try_acquire() else { return Err(Shells::too_many()) };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // Who is not bound has an id to send: room for long pastes is for those who are.
    let is_bound = |user: &&User| polling.client.bound.get() == Some(&user.fingerprint());
    let bound = client.users.iter().find(is_bound);
    let most = if bound.is_some() { LARGEST_BODY } else { LARGEST };
    let pasting = bound.filter(|_| length.is_none_or(|length| length > LARGEST));
    let _share = pasting.map(|user| gateway.shells.pasting(user)).transpose()?;
    let body = Limited::new(request.into_body(), most).collect();
    let mut room = None;
    let reading = async {
        if pasting.is_some() {
            room = gateway.shells.long_bodies.acquire().await.ok();
        }
        body.await
    };
    let body = match timeout(BODY_TIME, reading).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Ok(larger(&gateway, &polling, most).await);
        }
        Ok(Err(_)) | Err(_) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(ApiError::with_status(status, "error-body-too-slow", &[]));
        }
    };
    let broken = |words: &'static str| (StatusCode::INTERNAL_SERVER_ERROR, words).into_response();
    let messages = match frames::messages(&body) {
        Ok(messages) => frames::short(messages),
        Err(BadFrame::Empty) => return Ok(broken("Payload expected.")),
        Err(BadFrame::Broken) => return Ok(broken("Broken JSON encoding.")),
    };
    // It may be long until all of it is typed.
    drop(body);
    let Some(messages) = messages else { return Ok(larger(&gateway, &polling, LARGEST).await) };
    push(&polling, messages, PASTE_TIME).await;
    drop(room);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Ends a session whose client said more at once than it may.
async fn larger(gateway: &Gateway, polling: &Polling, most: usize) -> Response {
    let close = too_large(gateway, &polling.client, most).await;
    polling.close(close.clone());
    (StatusCode::PAYLOAD_TOO_LARGE, close.reason).into_response()
}

/// What a session that has ended is told is lost; the next poll says how it ended. A process may
/// take a long paste slowly, but within `most`.
async fn push(polling: &Polling, messages: Vec<String>, most: Duration) {
    let Some(say) = polling.state.borrow().say.clone() else { return };
    let end = Instant::now() + most;
    for message in messages {
        let until = end.min(Instant::now() + PUSH_TIME);
        match timeout_at(until, say.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                let reason = i18n::message(polling.client.locale, "error-shell-stuck", &[]);
                polling.close(Close::new(2, reason));
                return;
            }
        }
    }
}

/// The replica that began this session, as the client's cookie tells.
fn replica(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

fn replica_cookie(gateway: &Gateway, headers: &HeaderMap, at: At<'_>) -> Option<HeaderValue> {
    let path = gateway.seen_at(headers, PREFIX);
    let (At { server, session }, name) = (at, &gateway.shells.replica);
    let text = format!(
        "{COOKIE}={name}; Path={path}/{server}/{session}; Max-Age={COOKIE_AGE}; HttpOnly; Secure; \
         SameSite=Strict"
    );
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
#[path = "polling_tests.rs"]
mod tests;

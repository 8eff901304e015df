//! The contract's shell: a session id for a container, and the beginning of a talk between a client
//! that binds it and the process (`shells::talk`), whichever transport carries it.
//!
//! It sees messages, never frames or connections (`sockjs`). What it decides about is who may take
//! an id; whether the caller may open a shell is the API server's to say (`terminal`).

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::Either;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frames::{self as frames, Close, Command};
use super::polling::Polled;
use super::session::{COOKIE, Keys, Shell, Taken, Ticket};
use super::sockjs;
use super::talk::{FAILED, Talk};
use crate::api::body;
use crate::api::caller::{Asked, cookie};
use crate::api::error::ApiError;
use crate::api::logs::follow::{Seat, Taken as Places};
use crate::api::logs::lines::parameter;
use crate::api::passthrough::user_name;
use crate::api::read::related::known;
use crate::api::read::view;
use crate::api::target::{Target, segment};
use crate::api::{Caller, Gateway, Shared};
use crate::i18n::{self, Locale};
use crate::upstream::{Fingerprint, User, is_impersonation};

/// Shells and ports at once: ten times what one instance is promised to hold.
const MOST_OPEN: usize = 2_000;
/// Of those, of one caller, at up to a MiB each where processes do not read: nobody takes what is
/// for others.
const MOST_OF_ONE: usize = 400;
/// Long pastes over xhr at once, of up to a MiB each.
const LONG_BODIES: usize = 64;
/// Of those, of one caller: a person has a shell or two to paste into.
const LONG_BODIES_OF_ONE: usize = 8;
/// SockJS sessions at once that are not bound yet: anybody may begin one, and each has 30 s. When
/// all are taken, those whom the API server knows have as many again.
const MOST_UNBOUND: usize = 500;
/// Of the latter, of one caller.
const MOST_UNBOUND_OF_ONE: usize = 50;
/// Lines about refused strangers that the audit log takes in a minute: who has no credentials must
/// not be able to fill it.
const MOST_LINES: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);
/// How long a client that is connected may take to say which shell it wants. Frontends do it at
/// once; over a bad mobile network that is seconds.
const BIND_TIME: Duration = Duration::from_secs(30);
/// Messages of up to 64 KiB between a transport and the talk, and between the talk and the process.
/// A full queue holds up whoever fills it.
pub(crate) const QUEUE: usize = 4;
/// Where the contract's frontend keeps its token. Its script sets this cookie, for the path that
/// it was loaded from, and so it reaches us where ours does not: behind a proxy that takes off a
/// prefix without a word, or when the token is too long to be sealed.
const FRONTEND_COOKIE: &str = "token";

/// The shells of this process.
pub struct Shells {
    taken: Mutex<Taken>,
    places: Places,
    /// Sessions of the xhr transports.
    pub(crate) polled: Polled,
    /// Room for long bodies of theirs that are read or typed, and each caller's share of it.
    pub(crate) long_bodies: Semaphore,
    pasting: Places,
    pub(crate) tasks: TaskTracker,
    /// Room for those who have not shown yet who they are, and for those of them who are known.
    unbound: Arc<Semaphore>,
    known: Places,
    /// Lines about refused strangers in this minute, and when it began.
    lines: Mutex<(Option<Instant>, u32)>,
    pub(crate) ended: CancellationToken,
    /// Tells this process from other replicas.
    pub(crate) replica: String,
}

impl Default for Shells {
    fn default() -> Self {
        let mut name = [0u8; 9];
        let _ = rand::fill(&mut name);
        Self {
            taken: Mutex::default(),
            places: Places::default(),
            unbound: Arc::new(Semaphore::new(MOST_UNBOUND)),
            known: Places::default(),
            lines: Mutex::default(),
            polled: Polled::default(),
            long_bodies: Semaphore::new(LONG_BODIES),
            pasting: Places::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            replica: URL_SAFE_NO_PAD.encode(name),
        }
    }
}

impl Shells {
    /// Shells and ports that are open now.
    pub fn count(&self) -> usize {
        self.places.count()
    }

    /// Tells every client that we go, ends all shells and returns when the last is gone.
    pub async fn end(&self) {
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Room for one more shell or port of this caller: 429 where he has too many, 503 where all do.
    pub(crate) fn place(&self, user: &User) -> Result<Seat, ApiError> {
        seat(&self.places, user, (MOST_OPEN, MOST_OF_ONE))
    }

    /// Room for one more SockJS session that is not bound yet; `known`: whom the API server knows.
    fn waiting(&self, known: Option<&User>) -> Result<Room, ApiError> {
        let Some(user) = known else {
            let room = self.unbound.clone().try_acquire_owned();
            return room.map(Either::Left).map_err(|_| Self::full());
        };
        seat(&self.known, user, (MOST_UNBOUND, MOST_UNBOUND_OF_ONE)).map(Either::Right)
    }

    /// This caller's share of the room for long bodies, for one more of his.
    pub(crate) fn pasting(&self, user: &User) -> Result<Seat, ApiError> {
        seat(&self.pasting, user, (usize::MAX, LONG_BODIES_OF_ONE))
    }

    /// Whether the audit log takes one more line about somebody unknown.
    pub(crate) fn may_log(&self) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = &mut *lines;
        if since.is_none_or(|since| since.elapsed() >= MINUTE) {
            (*since, *count) = (Some(Instant::now()), 0);
        }
        *count += 1;
        *count <= MOST_LINES
    }

    fn full() -> ApiError {
        ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-shell-too-many", &[])
    }

    /// More than one caller may have.
    pub(crate) fn too_many() -> ApiError {
        ApiError::with_status(StatusCode::TOO_MANY_REQUESTS, "error-shell-too-many", &[])
    }
}

/// One of so many places in all, and of so many of one caller: 429 where he has too many, 503 where
/// all do.
fn seat(places: &Places, user: &User, most: (usize, usize)) -> Result<Seat, ApiError> {
    let seat = places.take(user, 1, most);
    seat.ok_or_else(|| match places.count() < most.0 {
        true => Shells::too_many(),
        false => Shells::full(),
    })
}

/// Derived each time: the CSRF key may give way to another, as one that is ours alone to the shared one.
async fn keys(gateway: &Gateway) -> Result<Keys, ApiError> {
    Keys::derived(&gateway.csrf, &gateway.cluster).await
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// `GET /api/v1/pod/{namespace}/{pod}/shell/{container}`: an id to bind a shell with. Nothing is
/// asked of the API server yet: the contract tells of missing rights when the shell is opened.
pub async fn open(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let container = segment(path.rsplit('/').next().unwrap_or_default())?;
    let pod = Target::of(path, known("pod")?, 2)?;
    let query = request.uri().query().unwrap_or_default();
    let shell = parameter(query, "shell").and_then(|name| Shell::parse(&name));
    // An id opens nothing by itself: the right is asked for when it is bound, as the contract has
    // it. But we seal nobody's credentials whom the API server does not know.
    view::verified(&gateway, &user).await?;
    let keys = keys(&gateway).await?;
    let sealed = keys.seal_credentials(request.headers(), now());
    let is_bare = sealed.is_none() && request.headers().contains_key(header::AUTHORIZATION);
    let container = [&pod.namespace, &pod.name, &container];
    let id = keys.ticket(container, shell, (&user, is_bare), now())?;
    let mut response = body::answer(StatusCode::OK, &json!({ "id": id }));
    if let Some(value) = sealed {
        let path = gateway.seen_at(request.headers(), sockjs::PREFIX);
        let text = format!("{COOKIE}={value}; Path={path}; HttpOnly; Secure; SameSite=Strict");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
    }
    Ok(response)
}

/// Whom a connection can speak for: by its own credentials, by our cookie, by the frontend's.
/// Whether it may is decided by the id that it binds.
pub(crate) async fn users(gateway: &Gateway, asked: &Asked<'_>) -> Result<Vec<User>, ApiError> {
    let mut all: Vec<User> = gateway.callers.user(asked).into_iter().collect();
    let mut by = |headers: &HeaderMap| {
        let asked = Asked { method: asked.method, uri: asked.uri, headers, peer: asked.peer };
        all.extend(gateway.callers.user(&asked));
    };
    if let Some(sealed) = cookie(asked.headers, COOKIE)
        && let Some(headers) = keys(gateway).await?.open_credentials(sealed, now())
    {
        by(&headers);
    }
    if let Some(token) = cookie(asked.headers, FRONTEND_COOKIE)
        && let Ok(token) = percent_decode_str(token).decode_utf8()
        && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}"))
    {
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        for (name, value) in asked.headers.iter().filter(|(name, _)| is_impersonation(name)) {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(header::AUTHORIZATION, value);
        by(&headers);
    }
    Ok(all)
}

/// Room for a talk that is not bound yet, until it is dropped: everybody's or a known caller's.
pub(crate) type Room = Either<OwnedSemaphorePermit, Seat>;

/// Room for a talk that is not bound yet. Strangers can take what is for everybody, no more.
pub(crate) async fn waiting(gateway: &Gateway, users: &[User]) -> Result<Room, ApiError> {
    if let Ok(room) = gateway.shells.waiting(None) {
        return Ok(room);
    }
    for user in users {
        if view::verified(gateway, user).await.is_ok() {
            return gateway.shells.waiting(Some(user));
        }
    }
    Err(Shells::full())
}

/// The other end of a talk.
pub(crate) struct Client {
    pub users: Vec<User>,
    pub locale: Locale,
    /// For the audit log.
    pub transport: &'static str,
    /// Who it turned out to be.
    pub bound: OnceLock<Fingerprint>,
}

impl Client {
    /// The end of a talk, in the client's language, and a line in the audit log.
    pub async fn refuse(
        &self,
        gateway: &Gateway,
        ticket: Option<&Ticket>,
        message: &'static str,
        args: &[(&str, &str)],
    ) -> Close {
        let close = Close::new(FAILED, i18n::message(self.locale, message, args));
        let bound = self.bound.get();
        if bound.is_none() && !gateway.shells.may_log() {
            return close;
        }
        let is_bound = |user: &&User| bound == Some(&user.fingerprint());
        let user = match self.users.iter().find(is_bound).or(self.users.first()) {
            Some(user) => user_name(gateway, user).await,
            None => String::new(),
        };
        let name = |part: fn(&Ticket) -> &str| ticket.map_or("", part);
        tracing::warn!(
            target: "audit", event = "shell-refused", user, transport = self.transport,
            namespace = name(|ticket| ticket.namespace.as_str()),
            pod = name(|ticket| ticket.pod.as_str()),
            container = name(|ticket| ticket.container.as_str()),
            reason = ?i18n::message(Locale::EN, message, args), "a shell was refused"
        );
        close
    }
}

/// What a transport has to pass on.
pub(crate) enum Told {
    Message(String),
    Close(Close),
}

/// The two queues between a transport and its talk, and the talk's ends of them.
pub(crate) type Ends = (mpsc::Sender<String>, mpsc::Receiver<Told>);

/// Begins a talk. Dropping either end is how a transport tells that its client has gone.
/// `waiting` is given back when it is bound, for a place among the shells.
pub(crate) fn begin(gateway: &Arc<Gateway>, client: &Arc<Client>, waiting: Room) -> Ends {
    let (say, said) = mpsc::channel(QUEUE);
    let (tell, told) = mpsc::channel(QUEUE);
    gateway.shells.tasks.spawn(converse(gateway.clone(), client.clone(), waiting, said, tell));
    (say, told)
}

async fn converse(
    gateway: Arc<Gateway>,
    client: Arc<Client>,
    waiting: Room,
    mut said: mpsc::Receiver<String>,
    told: mpsc::Sender<Told>,
) {
    let bound = bind(&gateway, &client, &mut said).await;
    drop(waiting);
    let close = match bound {
        Bound::Gone => return,
        Bound::Refused(close) => close,
        Bound::To(bound) => {
            let (user, ticket) = *bound;
            if let Ok(_place) = gateway.shells.place(&user) {
                let talk = Talk { gateway: &gateway, client: &client, user, ticket };
                let Some(close) = talk.through(&mut said, &told).await else { return };
                close
            } else {
                client.refuse(&gateway, Some(&ticket), "error-shell-too-many", &[]).await
            }
        }
    };
    let _ = told.send(Told::Close(close)).await;
}

enum Bound {
    Gone,
    Refused(Close),
    To(Box<(User, Ticket)>),
}

/// Waits for the message that must come first.
async fn bind(gateway: &Gateway, client: &Client, said: &mut mpsc::Receiver<String>) -> Bound {
    let message = match tokio::time::timeout(BIND_TIME, said.recv()).await {
        Ok(Some(message)) => message,
        Ok(None) => return Bound::Gone,
        Err(_) => {
            let seconds = BIND_TIME.as_secs().to_string();
            let args = [("seconds", seconds.as_str())];
            let close = client.refuse(gateway, None, "error-shell-no-bind", &args).await;
            return Bound::Refused(close);
        }
    };
    let id = match frames::command(&message) {
        Ok(Command::Bind(id)) => id,
        Ok(_) => {
            let close = client.refuse(gateway, None, "error-shell-unbound", &[]).await;
            return Bound::Refused(close);
        }
        Err(wrong) => {
            let reason = wrong.to_string();
            let args = [("reason", reason.as_str())];
            let close = client.refuse(gateway, None, "error-shell-message", &args).await;
            return Bound::Refused(close);
        }
    };
    let keys = match keys(gateway).await {
        Ok(keys) => keys,
        Err(error) => return Bound::Refused(Close::new(FAILED, error.text(client.locale))),
    };
    let taken = {
        let mut taken = gateway.shells.taken.lock().unwrap_or_else(PoisonError::into_inner);
        keys.take(&id, &client.users, &mut taken, now())
    };
    match taken {
        Ok((user, ticket)) => {
            let _ = client.bound.set(user.fingerprint());
            Bound::To(Box::new((user, ticket)))
        }
        Err((refusal, ticket)) => {
            let message = refusal.message();
            Bound::Refused(client.refuse(gateway, ticket.as_ref(), message, &[]).await)
        }
    }
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;

//! The contract's shell: a session id for a container, and the talk between a client that binds it
//! and the process, whichever transport carries it.
//!
//! It sees messages, never frames or connections (`sockjs`). What it decides about is who may take
//! an id; whether the caller may open a shell is the API server's to say (`terminal`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::{Asked, cookie};
use super::error::ApiError;
use super::log_lines::parameter;
use super::related::known;
use super::shell_session::{COOKIE, Keys, Shell, Taken, Ticket, cookie_path};
use super::sockjs_frames::{self as frames, Close, Command};
use super::sockjs_polling::Polled;
use super::target::{Target, segment};
use super::terminal::{self, End, Session, Shown, Typed, Verb};
use super::{Caller, Gateway, Shared, body, view};
use crate::i18n::{self, Locale};
use crate::upstream::{Fingerprint, User, is_impersonation};

/// Shells and ports at once: ten times what one instance is promised to hold.
const MOST_OPEN: usize = 2_000;
/// SockJS sessions at once that are not bound yet: anybody may begin one, and each has 30 s.
const MOST_UNBOUND: usize = 500;
/// How long a client that is connected may take to say which shell it wants. Frontends do it at
/// once; over a bad mobile network that is seconds.
const BIND_TIME: Duration = Duration::from_secs(30);
/// The contract's codes: the process ended well, and everything else.
const ENDED: u16 = 1;
const FAILED: u16 = 2;
/// Messages between a transport and the talk, and between the talk and the process. A full queue
/// holds up whoever fills it.
const QUEUE: usize = 32;
/// What is typed before a shell has shown that it started is kept for the next one to try; past
/// so many messages it is taken for started.
const EARLY: usize = QUEUE;
/// Longest output that is looked at for a runtime's "there is no such shell".
const LONGEST_EXCUSE: usize = 1024;
/// How runtimes say that a command does not exist: Go's os/exec, runc, crun, hcsshim.
const EXCUSES: [&str; 4] = [
    "executable file not found",
    "no such file or directory",
    "not found in $PATH",
    "cannot find the file specified",
];
/// Some runtimes say it in the terminal itself, where programs say such things, too.
const RUNTIME: &str = "exec failed";
/// Where the contract's frontend keeps its token. Its script sets this cookie, for the path that
/// it was loaded from, and so it reaches us where ours does not: behind a proxy that takes off a
/// prefix without a word, or when the token is too long to be sealed.
const FRONTEND_COOKIE: &str = "token";

/// The shells of this process.
pub struct Shells {
    keys: OnceCell<Keys>,
    taken: Mutex<Taken>,
    places: Arc<Semaphore>,
    /// Sessions of the xhr transports.
    pub(super) polled: Polled,
    pub(super) tasks: TaskTracker,
    /// Room for those who have not shown yet who they are.
    unbound: Arc<Semaphore>,
    pub(super) ended: CancellationToken,
    /// Tells this process from other replicas.
    pub(super) replica: String,
}

impl Default for Shells {
    fn default() -> Self {
        let mut name = [0u8; 9];
        let _ = rand::fill(&mut name);
        Self {
            keys: OnceCell::new(),
            taken: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST_OPEN)),
            unbound: Arc::new(Semaphore::new(MOST_UNBOUND)),
            polled: Polled::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            replica: URL_SAFE_NO_PAD.encode(name),
        }
    }
}

impl Shells {
    /// Shells and ports that are open now.
    pub fn count(&self) -> usize {
        MOST_OPEN - self.places.available_permits()
    }

    /// Tells every client that we go, ends all shells and returns when the last is gone.
    pub async fn end(&self) {
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Room for one more shell or port whose right was shown.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.places.clone().try_acquire_owned().map_err(|_| Self::full())
    }

    /// Room for one more SockJS session that is not bound yet.
    pub(super) fn waiting(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.unbound.clone().try_acquire_owned().map_err(|_| Self::full())
    }

    fn full() -> ApiError {
        ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-shell-too-many", &[])
    }
}

async fn keys(gateway: &Gateway) -> Result<&Keys, ApiError> {
    let derived = || Keys::derived(&gateway.csrf, &gateway.cluster);
    gateway.shells.keys.get_or_try_init(derived).await
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
    let id = keys.ticket([&pod.namespace, &pod.name, &container], shell, &user, now())?;
    let mut response = body::answer(StatusCode::OK, &json!({ "id": id }));
    if let Some(value) = keys.seal_credentials(request.headers(), now()) {
        let path = cookie_path(request.headers(), &gateway.base_path);
        let text = format!("{COOKIE}={value}; Path={path}; HttpOnly; Secure; SameSite=Strict");
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header::SET_COOKIE, value);
        }
    }
    Ok(response)
}

/// Whom a connection can speak for: by its own credentials, by our cookie, by the frontend's.
/// Whether it may is decided by the id that it binds.
pub(super) async fn users(gateway: &Gateway, asked: &Asked<'_>) -> Result<Vec<User>, ApiError> {
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

/// The other end of a talk.
pub(super) struct Client {
    pub users: Vec<User>,
    pub locale: Locale,
    /// For the audit log.
    pub transport: &'static str,
    /// Who it turned out to be.
    pub bound: Arc<OnceLock<Fingerprint>>,
    /// Given back when it is bound, for a place among the shells.
    pub waiting: Option<OwnedSemaphorePermit>,
}

impl Client {
    /// The end of a talk, in the client's language, and a line in the audit log.
    pub fn refuse(
        &self,
        ticket: Option<&Ticket>,
        message: &'static str,
        args: &[(&str, &str)],
    ) -> Close {
        let name = |part: fn(&Ticket) -> &str| ticket.map_or("", part);
        tracing::warn!(
            target: "audit", event = "shell-refused", transport = self.transport,
            namespace = name(|ticket| ticket.namespace.as_str()),
            pod = name(|ticket| ticket.pod.as_str()),
            container = name(|ticket| ticket.container.as_str()),
            reason = ?i18n::message(Locale::EN, message, args), "a shell was refused"
        );
        Close::new(FAILED, i18n::message(self.locale, message, args))
    }
}

/// What a transport has to pass on.
pub(super) enum Told {
    Message(String),
    Close(Close),
}

/// The two queues between a transport and its talk, and the talk's ends of them.
pub(super) type Ends = (mpsc::Sender<String>, mpsc::Receiver<Told>);

/// Begins a talk. Dropping either end is how a transport tells that its client has gone.
pub(super) fn begin(gateway: &Arc<Gateway>, client: Client) -> Ends {
    let (say, said) = mpsc::channel(QUEUE);
    let (tell, told) = mpsc::channel(QUEUE);
    gateway.shells.tasks.spawn(converse(gateway.clone(), client, said, tell));
    (say, told)
}

async fn converse(
    gateway: Arc<Gateway>,
    mut client: Client,
    mut said: mpsc::Receiver<String>,
    told: mpsc::Sender<Told>,
) {
    let bound = bind(&gateway, &client, &mut said).await;
    client.waiting = None;
    let place = gateway.shells.place();
    let close = match (bound, &place) {
        (Bound::Gone, _) => return,
        (Bound::Refused(close), _) => close,
        (Bound::To(_), Err(_)) => client.refuse(None, "error-shell-too-many", &[]),
        (Bound::To(bound), Ok(_)) => {
            let (user, ticket) = *bound;
            let talk = Talk { gateway: &gateway, client: &client, user, ticket };
            let Some(close) = talk.through(&mut said, &told).await else { return };
            close
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
            return Bound::Refused(client.refuse(None, "error-shell-no-bind", &args));
        }
    };
    let id = match frames::command(&message) {
        Ok(Command::Bind(id)) => id,
        Ok(_) => return Bound::Refused(client.refuse(None, "error-shell-unbound", &[])),
        Err(wrong) => {
            let reason = wrong.to_string();
            let args = [("reason", reason.as_str())];
            return Bound::Refused(client.refuse(None, "error-shell-message", &args));
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
            Bound::Refused(client.refuse(ticket.as_ref(), refusal.message(), &[]))
        }
    }
}

/// A talk after its beginning.
struct Talk<'t> {
    gateway: &'t Arc<Gateway>,
    client: &'t Client,
    user: User,
    ticket: Ticket,
}

/// How one try of a shell ended.
enum Outcome {
    Gone,
    Closed(Close),
    /// The container has no such shell; in the runtime's words.
    Missing(String),
}

impl Talk<'_> {
    /// Tries the shells; `None`: the client has gone.
    async fn through(
        &self,
        said: &mut mpsc::Receiver<String>,
        told: &mpsc::Sender<Told>,
    ) -> Option<Close> {
        let all = &Shell::ALL;
        let shells = self.ticket.shell.as_ref().map_or(all.as_slice(), std::slice::from_ref);
        let (mut early, mut last) = (Vec::new(), String::new());
        for shell in shells {
            match self.attempt(*shell, &mut early, said, told).await {
                Outcome::Gone => return None,
                Outcome::Closed(close) => return Some(close),
                Outcome::Missing(words) => last = words,
            }
        }
        let names: Vec<&str> = shells.iter().map(|shell| shell.command()).collect();
        let names = names.join(", ");
        let args = [("shells", names.as_str()), ("reason", last.trim())];
        Some(Close::new(FAILED, i18n::message(self.client.locale, "error-shell-missing", &args)))
    }

    async fn attempt(
        &self,
        shell: Shell,
        early: &mut Vec<Command>,
        said: &mut mpsc::Receiver<String>,
        told: &mpsc::Sender<Told>,
    ) -> Outcome {
        let (types, typed) = mpsc::channel(2 * QUEUE);
        let (shows, shown) = mpsc::channel(QUEUE);
        let session = Session {
            namespace: self.ticket.namespace.clone(),
            pod: self.ticket.pod.clone(),
            container: self.ticket.container.clone(),
            command: vec![shell.command().to_owned()],
            tty: true,
            stdin: true,
            verb: Verb::Exec,
            transport: self.client.transport,
        };
        for known in early.iter().filter_map(typed_by) {
            let _ = types.try_send(known);
        }
        let running = terminal::run(self.gateway.clone(), self.user.clone(), session, typed, shows);
        self.gateway.shells.tasks.spawn(running);
        let started = AtomicBool::new(false);
        tokio::select! {
            outcome = self.input(&types, early, &started, said, told) => outcome,
            outcome = self.output(shown, &started, told) => outcome,
        }
    }

    /// What the client says, to the process; ends when the client goes or has to.
    async fn input(
        &self,
        types: &mpsc::Sender<Typed>,
        early: &mut Vec<Command>,
        started: &AtomicBool,
        said: &mut mpsc::Receiver<String>,
        told: &mpsc::Sender<Told>,
    ) -> Outcome {
        let locale = self.client.locale;
        while let Some(message) = said.recv().await {
            let command = match frames::command(&message) {
                Ok(Command::Bind(_)) => {
                    let close = self.refuse("error-shell-bound", &[]);
                    return Outcome::Closed(close);
                }
                Ok(Command::OddSize) => {
                    let text = i18n::message(locale, "error-shell-size", &[]);
                    if told.send(Told::Message(frames::toast(&text))).await.is_err() {
                        return Outcome::Gone;
                    }
                    continue;
                }
                Ok(command) => command,
                Err(wrong) => {
                    let reason = wrong.to_string();
                    let args = [("reason", reason.as_str())];
                    return Outcome::Closed(self.refuse("error-shell-message", &args));
                }
            };
            let Some(typed) = typed_by(&command) else { continue };
            if !started.load(Ordering::Relaxed) {
                early.push(command);
                if early.len() >= EARLY {
                    started.store(true, Ordering::Relaxed);
                }
            }
            // A process that does not read must not keep what its client has left.
            let sent = tokio::select! {
                sent = types.send(typed) => sent,
                () = told.closed() => return Outcome::Gone,
            };
            if sent.is_err() {
                // The process has ended; what it has to say still comes.
                std::future::pending::<()>().await;
            }
        }
        Outcome::Gone
    }

    /// What the process shows, to the client; ends with the process, or when the client is gone.
    async fn output(
        &self,
        mut shown: mpsc::Receiver<Shown>,
        started: &AtomicBool,
        told: &mpsc::Sender<Told>,
    ) -> Outcome {
        let mut held = String::new();
        loop {
            let next = shown.recv().await;
            let end = match next {
                Some(Shown::Output(text) | Shown::Error(text)) => {
                    held.push_str(&text);
                    let is_runtimes = held.contains(RUNTIME) && is_excuse(&held);
                    if is_runtimes && !started.load(Ordering::Relaxed) {
                        continue;
                    }
                    started.store(true, Ordering::Relaxed);
                    let text = std::mem::take(&mut held);
                    if told.send(Told::Message(frames::stdout(&text))).await.is_err() {
                        return Outcome::Gone;
                    }
                    continue;
                }
                Some(Shown::End(end)) => end,
                None => End { code: None, reason: String::new() },
            };
            let is_missing = end.code != Some(0) && (is_excuse(&end.reason) || !held.is_empty());
            if is_missing && !started.load(Ordering::Relaxed) {
                return Outcome::Missing(if held.is_empty() { end.reason } else { held });
            }
            if !held.is_empty() {
                let _ = told.send(Told::Message(frames::stdout(&held))).await;
            }
            return Outcome::Closed(closing(end, self.client.locale));
        }
    }

    fn refuse(&self, message: &'static str, args: &[(&str, &str)]) -> Close {
        self.client.refuse(Some(&self.ticket), message, args)
    }
}

fn typed_by(command: &Command) -> Option<Typed> {
    match command {
        Command::Stdin(data) => Some(Typed::Bytes(Bytes::from(data.clone()))),
        Command::Resize { columns, rows } => Some(Typed::Resize { columns: *columns, rows: *rows }),
        Command::Bind(_) | Command::OddSize | Command::Nothing => None,
    }
}

fn is_excuse(text: &str) -> bool {
    text.len() <= LONGEST_EXCUSE && EXCUSES.iter().any(|excuse| text.contains(excuse))
}

/// The contract's words, which are kubectl's for exit codes.
fn closing(end: End, locale: Locale) -> Close {
    match end.code {
        Some(0) => Close::new(ENDED, "Process exited"),
        Some(code) => Close::new(FAILED, format!("command terminated with exit code {code}")),
        None if end.reason.is_empty() => {
            Close::new(FAILED, i18n::message(locale, "error-shell-broken", &[]))
        }
        None => Close::new(FAILED, end.reason),
    }
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;

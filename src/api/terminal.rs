//! One session between a person and a process in a container, whichever transport carries it: asks
//! whether it may begin, runs it within its limits, and writes it into the audit log.
//!
//! It knows no frames and no connections to clients. What is typed and shown is never kept and
//! never logged. A right that is revoked ends a session; an API server that is away does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use url::form_urlencoded;

use super::Gateway;
use super::error::ApiError;
use super::passthrough::{review_create, user_name};
use super::target::encoded;
use super::websocket::Utf8;
use crate::auth::Attributes;
use crate::i18n::{self, Locale};
use crate::upstream::channel::{self, Channel, Exit, Input, Output, Receiver, Sender};
use crate::upstream::{Failure, User, classify};

/// Nobody types and nothing is shown: a shell that was left open is a right that was left lying.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Longer than a working day; who comes back the next one opens another.
const TOTAL: Duration = Duration::from_secs(12 * 60 * 60);
/// A revoked right is used for so long at most; as lists are.
const RECHECK: Duration = Duration::from_secs(10);
/// Columns or rows: what people have. Programs allocate by them.
const SIZES: std::ops::RangeInclusive<u16> = 1..=1000;
/// After writing has failed: how long the other direction may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the API server may take to hear that we go.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long sessions may last.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Without a byte in either direction.
    pub idle: Duration,
    pub total: Duration,
    /// Between two looks at the right.
    pub recheck: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: IDLE, total: TOTAL, recheck: RECHECK }
    }
}

/// What the person does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    Bytes(Bytes),
    Resize { columns: u16, rows: u16 },
    Eof,
}

/// What the person sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    Output(String),
    Error(String),
    End(End),
}

/// How a session ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// The process's own; `None` when it did not end by itself, or never began.
    pub code: Option<i32>,
    /// The cluster's words, or ours.
    pub reason: String,
}

/// Whose doing an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The process's, or the cluster's that did not start it.
    Process,
    /// A limit or a right that is gone.
    Policy,
    /// The connection's to the API server.
    Broken,
    Shutdown,
    /// The person's, who is not there any more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Exec,
    Attach,
    /// Of a port, which is no process: `forward` carries it.
    Forward(u16),
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::Forward(_) => "portforward",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Session {
    pub namespace: CompactString,
    pub pod: CompactString,
    /// Empty: the API server's choice.
    pub container: CompactString,
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub verb: Verb,
    pub transport: &'static str,
}

impl Session {
    fn path(&self) -> String {
        let (namespace, pod) = (encoded(&self.namespace), encoded(&self.pod));
        format!("/api/v1/namespaces/{namespace}/pods/{pod}/{}", self.verb.name())
    }

    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Verb::Forward(port) = self.verb {
            return query.append_pair("ports", &port.to_string()).finish();
        }
        if !self.container.is_empty() {
            query.append_pair("container", &self.container);
        }
        if self.verb == Verb::Exec {
            query.extend_pairs(self.command.iter().map(|word| ("command", word)));
        }
        // A terminal has one output for both.
        let wanted = [("stdin", self.stdin), ("stderr", !self.tty), ("tty", self.tty)];
        query.append_pair("stdout", "true");
        query.extend_pairs(wanted.iter().map(|(name, wanted)| (name, wanted.to_string())));
        query.finish()
    }

    fn right(&self) -> Attributes {
        Attributes {
            verb: "create".into(),
            version: "v1".into(),
            resource: "pods".into(),
            subresource: self.verb.name().into(),
            namespace: self.namespace.as_str().into(),
            name: self.pod.as_str().into(),
            ..Attributes::default()
        }
    }

    /// What a stranger put into the path or the query is quoted: it must not make a line of its own.
    fn refused(&self, error: &ApiError) {
        let Self { namespace, pod, container, verb, transport, .. } = self;
        tracing::warn!(
            target: "audit", event = "terminal-refused", ?namespace, ?pod, ?container,
            ?verb, transport, status = error.status.as_u16(), reason = ?error.text(Locale::EN),
            "a session was refused"
        );
    }
}

/// A session whose process runs and waits for its person.
pub struct Opened {
    pub(super) watch: Watch,
    pub(super) channel: Channel,
    pub(super) record: Record,
}

/// Who may do what, for how long, and in which language it is told.
pub(super) struct Watch {
    gateway: Arc<Gateway>,
    user: User,
    right: Attributes,
    locale: Locale,
}

/// Runs a session from the question whether it may begin to its end, which is always shown. It
/// ends, too, when `typed` or `shown` has lost its other end: then the person is gone.
pub async fn run(
    gateway: Arc<Gateway>,
    user: User,
    session: Session,
    typed: mpsc::Receiver<Typed>,
    shown: mpsc::Sender<Shown>,
) {
    let opened = tokio::select! {
        opened = open(&gateway, &user, session, gateway.locale) => opened,
        () = shown.closed() => return,
    };
    match opened {
        Ok(opened) => {
            opened.run(typed, shown).await;
        }
        Err(error) => {
            let end = End { code: None, reason: error.text(gateway.locale) };
            let _ = shown.send(Shown::End(end)).await;
        }
    }
}

/// Starts the process, if the person may. `locale` is that of the reasons we give.
pub async fn open(
    gateway: &Arc<Gateway>,
    user: &User,
    session: Session,
    locale: Locale,
) -> Result<Opened, ApiError> {
    let path = session.path();
    let target = format!("{path}?{}", session.query());
    let opening = async {
        let info = classify(&Method::GET, &path, None);
        let info = info.map_err(|error| ApiError::internal(&error))?;
        review_create(gateway, user, &info).await?;
        let channel = async {
            match session.verb {
                Verb::Forward(_) => channel::open_port(&gateway.cluster, user, &target).await,
                _ => channel::open(&gateway.cluster, user, &target).await,
            }
        };
        let (channel, name) = tokio::join!(channel, user_name(gateway, user));
        let channel = gateway.authorizer.heed(user, channel).await?;
        Ok::<_, ApiError>((channel, name))
    };
    let (channel, name) = opening.await.inspect_err(|error| session.refused(error))?;
    let right = session.right();
    let watch = Watch { gateway: gateway.clone(), user: user.clone(), right, locale };
    Ok(Opened { watch, channel, record: Record::begin(name, session) })
}

impl Opened {
    /// Carries the session to its end.
    pub async fn run(self, typed: mpsc::Receiver<Typed>, shown: mpsc::Sender<Shown>) -> Cause {
        let Self { watch, channel, mut record } = self;
        let (mut sender, mut receiver) = channel.split();
        let (meter, session) = (&record.meter, &record.session);
        let keys = Keys { session, shown: &shown, meter, locale: watch.locale };
        let (cause, end) = tokio::select! {
            biased;
            ended = output(&mut receiver, &shown, meter) => ended,
            () = shown.closed() => gone(),
            ended = watch.over(meter) => ended,
            ended = keys.pass(typed, &mut sender) => ended,
        };
        record.end = Some(end.clone());
        drop(record);
        // First of all: who is told the end may take his time to read it.
        let _ = timeout(GOODBYE, sender.close()).await;
        drop(receiver);
        if cause != Cause::Gone {
            let _ = shown.send(Shown::End(end)).await;
        }
        cause
    }
}

pub(super) type Ended = (Cause, End);

fn gone() -> Ended {
    (Cause::Gone, End { code: None, reason: "the client went away".into() })
}

fn broken(failure: &Failure) -> Ended {
    (Cause::Broken, End { code: None, reason: failure.to_string() })
}

/// Passes on what the process shows, until it ends.
async fn output(receiver: &mut Receiver, shown: &mpsc::Sender<Shown>, meter: &Meter) -> Ended {
    let (mut out, mut error) = (Utf8::default(), Utf8::default());
    loop {
        let text = match receiver.next().await {
            Ok(Output::Stdout(bytes)) => Shown::Output(out.feed(meter.showed(&bytes))),
            Ok(Output::Stderr(bytes)) => Shown::Error(error.feed(meter.showed(&bytes))),
            Ok(Output::End(Exit { code, message })) => {
                for left in [Shown::Output(out.end()), Shown::Error(error.end())] {
                    show(shown, left).await;
                }
                return (Cause::Process, End { code, reason: message });
            }
            Err(failure) => return broken(&failure),
        };
        if !show(shown, text).await {
            return gone();
        }
    }
}

/// Whether there still is somebody to see it; empty texts are not shown.
async fn show(shown: &mpsc::Sender<Shown>, what: Shown) -> bool {
    match &what {
        Shown::Output(text) | Shown::Error(text) if text.is_empty() => true,
        _ => shown.send(what).await.is_ok(),
    }
}

/// What the person does, on its way to the process.
struct Keys<'s> {
    session: &'s Session,
    shown: &'s mpsc::Sender<Shown>,
    meter: &'s Meter,
    locale: Locale,
}

impl Keys<'_> {
    /// Ends when the person is gone, or the connection.
    async fn pass(self, mut typed: mpsc::Receiver<Typed>, sender: &mut Sender) -> Ended {
        let (mut is_ended, mut was_told) = (!self.session.stdin, false);
        let failure = loop {
            let next = tokio::select! {
                next = typed.recv() => next,
                failure = sender.idle() => break failure,
            };
            let Some(next) = next else { return gone() };
            let input = match next {
                Typed::Bytes(_) | Typed::Eof if is_ended => None,
                Typed::Bytes(bytes) => {
                    self.meter.typed(&bytes);
                    Some(Input::Stdin(bytes))
                }
                Typed::Eof => {
                    is_ended = true;
                    self.end_of_input(sender).await
                }
                Typed::Resize { .. } if !self.session.tty => None,
                Typed::Resize { columns, rows } if is_size(columns, rows) => {
                    Some(Input::Resize { columns, rows })
                }
                Typed::Resize { .. } if was_told => None,
                Typed::Resize { .. } => {
                    was_told = true;
                    self.word("error-terminal-size", &[("most", &SIZES.end().to_string())]).await;
                    None
                }
            };
            let Some(input) = input else { continue };
            if let Err(failure) = sender.send(input).await {
                break failure;
            }
        };
        sleep(LAST_WORDS).await;
        broken(&failure)
    }

    /// v4 has no word for it: a terminal has a key (Ctrl-D), anything else is told that it waits.
    async fn end_of_input(&self, sender: &Sender) -> Option<Input> {
        if sender.can_close_stdin() {
            return Some(Input::CloseStdin);
        }
        if self.session.tty {
            return Some(Input::Stdin(Bytes::from_static(b"\x04")));
        }
        self.word("error-terminal-no-eof", &[]).await;
        None
    }

    async fn word(&self, id: &str, args: &[(&str, &str)]) {
        let text = format!("{}\r\n", i18n::message(self.locale, id, args));
        show(self.shown, Shown::Error(text)).await;
    }
}

fn is_size(columns: u16, rows: u16) -> bool {
    SIZES.contains(&columns) && SIZES.contains(&rows)
}

impl Watch {
    /// Returns when a session has to end though neither side ended it.
    pub async fn over(&self, meter: &Meter) -> Ended {
        let Limits { idle, total, recheck } = self.gateway.terminals;
        let total_over = sleep_until(meter.begun + total);
        let (cause, id, limit) = tokio::select! {
            id = self.revoked(recheck) => (Cause::Policy, id, recheck),
            () = meter.idle(idle) => (Cause::Policy, "error-terminal-idle", idle),
            () = total_over => (Cause::Policy, "error-terminal-total", total),
            () = self.gateway.shells.ended.cancelled() => {
                (Cause::Shutdown, "error-terminal-shutdown", Duration::ZERO)
            }
        };
        let time = match limit.as_secs() {
            seconds if seconds >= 120 => format!("{} min", seconds / 60),
            seconds => format!("{seconds} s"),
        };
        (cause, End { code: None, reason: i18n::message(self.locale, id, &[("time", &time)]) })
    }

    /// Returns when the right is gone, with the message that says so. An API server that gives no
    /// answer takes no right.
    async fn revoked(&self, recheck: Duration) -> &'static str {
        const REFUSED: &str = "error-terminal-unauthorized";
        let Self { gateway, user, right, .. } = self;
        loop {
            sleep(recheck).await;
            if user.expires().is_some_and(|at| at <= Timestamp::now().as_second()) {
                return REFUSED;
            }
            let answer = gateway.authorizer.review(&gateway.cluster, user, right).await;
            match gateway.authorizer.heed(user, answer).await.map_err(|failure| failure.code()) {
                Ok(false) => return "error-terminal-denied",
                Err(Some(StatusCode::UNAUTHORIZED)) => return REFUSED,
                // Impersonation is no longer allowed, for one.
                Err(Some(StatusCode::FORBIDDEN)) => return "error-terminal-denied",
                Ok(true) | Err(_) => {}
            }
        }
    }
}

/// Counts a session's bytes, and knows when the last one passed.
pub(super) struct Meter {
    begun: Instant,
    typed: AtomicU64,
    shown: AtomicU64,
    /// Milliseconds from the beginning.
    last: AtomicU64,
}

impl Meter {
    fn new() -> Self {
        let zero = AtomicU64::default;
        Self { begun: Instant::now(), typed: zero(), shown: zero(), last: zero() }
    }

    pub fn typed(&self, bytes: &[u8]) {
        self.count(&self.typed, bytes);
    }

    pub fn showed<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        self.count(&self.shown, bytes);
        bytes
    }

    fn count(&self, counter: &AtomicU64, bytes: &[u8]) {
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.last.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has passed for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let due = self.begun + last + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A session in the audit log: a line when it begins, one when it ends, however it does.
pub(super) struct Record {
    user: String,
    session: Session,
    pub meter: Meter,
    pub end: Option<End>,
}

impl Record {
    fn begin(user: String, session: Session) -> Self {
        let Session { namespace, pod, container, verb, transport, .. } = &session;
        tracing::info!(
            target: "audit", event = "terminal-begun", user, ?namespace, ?pod, ?container, ?verb,
            transport, "a session began"
        );
        Self { user, session, meter: Meter::new(), end: None }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Session { namespace, pod, container, verb, transport, .. } = &self.session;
        let end = self.end.take().unwrap_or_else(|| gone().1);
        // With a code the words are the runtime's, and may repeat the command.
        let reason = if end.code.is_some() { "" } else { end.reason.as_str() };
        let Meter { begun, typed, shown, .. } = &self.meter;
        tracing::info!(
            target: "audit", event = "terminal-ended", user = self.user, ?namespace, ?pod,
            ?container, ?verb, transport, seconds = begun.elapsed().as_secs_f64(),
            bytes_in = typed.load(Ordering::Relaxed), bytes_out = shown.load(Ordering::Relaxed),
            code = end.code, ?reason, "a session ended"
        );
    }
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;

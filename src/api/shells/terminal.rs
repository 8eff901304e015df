//! One session between a person and a process in a container, whichever transport carries it: asks
//! whether it may begin, runs it within its limits, and has it recorded (`shells::record`).
//!
//! It knows no frames and no connections to clients. What is typed and shown is never kept and
//! never logged. A right that is revoked ends a session; an API server that is away does not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use http::Method;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use url::form_urlencoded;

use super::record::{Meter, Record, refused};
use crate::api::Gateway;
use crate::api::error::ApiError;
use crate::api::passthrough::{granted, review_create, user_name};
use crate::api::standing::{self, Lost};
use crate::api::target::encoded;
use crate::api::websocket::Utf8;
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
/// The messages of two ends.
const REFUSED: &str = "error-terminal-unauthorized";
const SHUTDOWN: &str = "error-terminal-shutdown";
/// After writing has failed: how long the other direction, which may say why, may be silent.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the API server may take to hear that we go.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

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
    /// A limit or a right that is gone: the message that says which.
    Policy(&'static str),
    /// The person's, whose client broke the rules of its protocol.
    Frame,
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
}

/// A session whose process runs and waits for its person.
pub struct Opened {
    pub(crate) watch: Watch,
    pub(crate) channel: Channel,
    pub(crate) record: Record,
}

/// Who may do what, for how long, and in which language it is told.
pub(crate) struct Watch {
    gateway: Arc<Gateway>,
    user: User,
    right: Attributes,
    locale: Locale,
}

/// Runs a session from the question whether it may begin to its end, which is always shown, in the
/// person's language. It ends, too, when `typed` or `shown` has lost its other end: then the person
/// is gone.
pub async fn run(
    gateway: Arc<Gateway>,
    user: User,
    session: Session,
    locale: Locale,
    typed: mpsc::Receiver<Typed>,
    shown: mpsc::Sender<Shown>,
) {
    let opening = async {
        let permit = permit(&gateway, &user, session).await?;
        open(&gateway, &user, permit, locale).await
    };
    let opened = tokio::select! {
        opened = opening => opened,
        () = shown.closed() => return,
    };
    match opened {
        Ok(opened) => {
            opened.run(typed, shown).await;
        }
        Err(error) => {
            let end = End { code: None, reason: error.text(locale) };
            let _ = shown.send(Shown::End(end)).await;
        }
    }
}

/// A session that may begin, and the name of whose it is, as far as the API server says it.
pub(crate) struct Permit {
    session: Session,
    name: String,
}

impl Permit {
    /// Writes down that it does not begin all the same, if so.
    pub fn heed<T>(&self, gateway: &Gateway, found: Result<T, ApiError>) -> Result<T, ApiError> {
        found.inspect_err(|error| refused(&gateway.shells, &self.name, &self.session, error))
    }
}

/// Asks whether the person may begin a session.
pub(crate) async fn permit(
    gateway: &Gateway,
    user: &User,
    session: Session,
) -> Result<Permit, ApiError> {
    let path = session.path();
    let may = async {
        let info = classify(&Method::GET, &path, None).map_err(|error| {
            let reason = error.to_string();
            ApiError::bad_request("error-bad-path", &[("reason", &reason)])
        })?;
        // The API server takes a WebSocket for a `get`: what it would refuse shall not be recorded
        // as begun.
        let get = Attributes { verb: "get".into(), ..session.right() };
        let both = tokio::join!(review_create(gateway, user, &info), granted(gateway, user, &get));
        both.0.and(both.1)
    };
    let (may, name) = tokio::join!(may, user_name(gateway, user));
    let mut permit = Permit { session, name };
    permit.heed(gateway, may)?;
    if permit.name.is_empty() {
        // For the audit log: now that the API server answers, it may say that, too.
        permit.name = user_name(gateway, user).await;
    }
    Ok(permit)
}

/// Starts the process. `locale` is that of the reasons we give.
pub(crate) async fn open(
    gateway: &Arc<Gateway>,
    user: &User,
    permit: Permit,
    locale: Locale,
) -> Result<Opened, ApiError> {
    let Permit { session, name } = permit;
    let target = format!("{}?{}", session.path(), session.query());
    let right = session.right();
    // Before the API server hears of it: from then on a process may run, whoever goes away.
    let mut record = Record::begin(name, session);
    let channel = match record.session.verb {
        Verb::Forward(_) => channel::open_port(&gateway.cluster, user, &target).await,
        Verb::Exec | Verb::Attach => channel::open(&gateway.cluster, user, &target).await,
    };
    let channel = gateway.authorizer.heed(user, channel).await.map_err(ApiError::from);
    let channel = channel.inspect_err(|error| record.refused = Some(error.status))?;
    let watch = Watch { gateway: gateway.clone(), user: user.clone(), right, locale };
    Ok(Opened { watch, channel, record })
}

impl Opened {
    /// Carries the session to its end.
    pub async fn run(self, typed: mpsc::Receiver<Typed>, shown: mpsc::Sender<Shown>) -> Cause {
        let Self { watch, channel, mut record } = self;
        let (mut sender, mut receiver) = channel.split();
        let (meter, session) = (&record.meter, &record.session);
        let keys = Keys { session, shown: &shown, meter, locale: watch.locale };
        let carried = async {
            tokio::select! {
                biased;
                ended = output(&mut receiver, &shown, meter) => ended,
                ended = keys.pass(typed, &mut sender) => ended,
            }
        };
        let (cause, end) = tokio::select! {
            biased;
            ended = watch.during(carried) => match ended { Ok(ended) | Err(ended) => ended },
            () = shown.closed() => gone(),
            ended = watch.over(meter) => ended,
        };
        record.end = Some((cause, end.clone()));
        drop(record);
        // First of all: who is told the end may take his time to read it. Kubernetes takes a goodbye
        // for the end of what is typed, and lets the process run on for nobody; a connection that
        // breaks ends what was begun over it. What was attached to goes on in either case.
        if cause == Cause::Process {
            let _ = timeout(GOODBYE, sender.close()).await;
        } else {
            drop(sender);
        }
        drop(receiver);
        if cause != Cause::Gone {
            let _ = shown.send(Shown::End(end)).await;
        }
        cause
    }
}

pub(crate) type Ended = (Cause, End);

pub(crate) fn gone() -> Ended {
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
        sender.last_words(LAST_WORDS).await;
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

/// Whether a terminal may be so large; whoever takes sizes from clients asks here.
pub(crate) fn is_size(columns: u16, rows: u16) -> bool {
    SIZES.contains(&columns) && SIZES.contains(&rows)
}

impl Watch {
    /// What comes of the session while its right stands, or how it ends without it.
    pub async fn during<T>(&self, carried: impl Future<Output = T>) -> Result<T, Ended> {
        let Self { gateway, user, right, .. } = self;
        let recheck = gateway.terminals.recheck;
        let carried = standing::during(gateway, user, right, recheck, carried).await;
        carried.map_err(|lost| self.ended(words(&lost), recheck))
    }

    /// Returns when a session has to end though neither side ended it and its right stands.
    pub async fn over(&self, meter: &Meter) -> Ended {
        let Limits { idle, total, .. } = self.gateway.terminals;
        let total_over = sleep_until(meter.begun + total);
        let (id, limit) = tokio::select! {
            () = meter.idle(idle) => ("error-terminal-idle", idle),
            () = total_over => ("error-terminal-total", total),
            () = self.gateway.shells.ended.cancelled() => (SHUTDOWN, Duration::ZERO),
        };
        self.ended(id, limit)
    }

    fn ended(&self, id: &'static str, limit: Duration) -> Ended {
        let cause = if id == SHUTDOWN { Cause::Shutdown } else { Cause::Policy(id) };
        let time = match limit.as_secs() {
            seconds if seconds >= 120 => format!("{} min", seconds / 60),
            seconds => format!("{seconds} s"),
        };
        (cause, End { code: None, reason: i18n::message(self.locale, id, &[("time", &time)]) })
    }
}

/// The message of a right's end.
fn words(lost: &Lost) -> &'static str {
    match lost {
        Lost::Unauthorized => REFUSED,
        Lost::Denied(_) => "error-terminal-denied",
        Lost::Unconfirmed(_) => "error-terminal-unconfirmed",
    }
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;

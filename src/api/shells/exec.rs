//! Shells for frontends without SockJS: `GET /api/v1/pod/{namespace}/{pod}/exec` and `…/attach`,
//! a plain websocket each. What is refused is refused before the upgrade, in Kubernetes' own words.
//!
//! It translates messages; what may begin and for how long is `terminal`'s to say.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use compact_str::CompactString;
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use url::form_urlencoded;

use super::record::Record;
use super::terminal::{self, Cause, End, GOODBYE, Opened, Session, Shown, Typed, Verb};
use crate::api::error::ApiError;
use crate::api::logs::lines::parameter;
use crate::api::read::related::known;
use crate::api::read::view;
use crate::api::target::Target;
use crate::api::websocket::{
    self, BEAT, Pulse, Sink, Socket, Source, close_frame, farewell, put, refused,
};
use crate::api::{Caller, Gateway, Shared};
use crate::i18n::{self, Locale};
use crate::upstream::User;

/// What we speak, for browsers that bring their token among the protocols: one must be echoed.
const PROTOCOLS: [&str; 1] = ["exec.binnacle.v1"];
/// Bytes of a client's message: what somebody may paste at once.
pub(crate) const MESSAGE: usize = 256 << 10;
/// Messages between the socket and the session; a full queue holds up whoever fills it. One that is
/// on its way and one that comes: so much may lie there where a process does not read.
const QUEUE: usize = 2;
pub(crate) const TRANSPORT: &str = "websocket";

/// A client's text message; a binary one is `stdin`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Frame {
    Stdin { data: String },
    Resize { columns: u64, rows: u64 },
    Eof,
}

/// `GET /api/v1/pod/{namespace}/{pod}/exec?container=&command=&tty=&stdin=`; `command` repeats.
pub async fn exec(state: Shared, who: Caller, request: Request) -> Result<Response, ApiError> {
    serve(state, who, request, Verb::Exec).await
}

/// `GET /api/v1/pod/{namespace}/{pod}/attach?container=&tty=&stdin=`.
pub async fn attach(state: Shared, who: Caller, request: Request) -> Result<Response, ApiError> {
    serve(state, who, request, Verb::Attach).await
}

async fn serve(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
    verb: Verb,
) -> Result<Response, ApiError> {
    let pod = Target::of(request.uri().path(), known("pod")?, 1)?;
    let session = asked(pod, verb, request.uri().query().unwrap_or_default())?;
    upgrade(gateway, user, request, &PROTOCOLS, session, talk).await
}

/// Opens a session, and a websocket for it that `carry` takes to its end. What may not begin is
/// refused before the upgrade.
pub(crate) async fn upgrade<F: Future<Output = ()> + Send + 'static>(
    gateway: Arc<Gateway>,
    user: User,
    mut request: Request,
    protocols: &[&'static str],
    session: Session,
    carry: impl FnOnce(Opened, Socket, Locale) -> F + Send + 'static,
) -> Result<Response, ApiError> {
    let locale = gateway.locale_of(request.headers());
    let (response, upgrading) = match websocket::accept(&mut request, protocols, MESSAGE) {
        Ok(accepted) => accepted,
        Err(error) => return Err(view::told_to_known(&gateway, &user, error).await),
    };
    // Strangers get no place, however slowly the API server says who they are.
    let permit = terminal::permit(&gateway, &user, session).await?;
    let place = permit.heed(&gateway, gateway.shells.place(&user))?;
    let opened = terminal::open(&gateway, &user, permit, locale).await?;
    gateway.shells.tasks.spawn(async move {
        let _place = place;
        match upgrading.socket().await {
            Ok(socket) => carry(opened, socket, locale).await,
            Err(error) => tracing::debug!(%error, "a websocket was agreed on, not made"),
        }
    });
    Ok(response)
}

/// What a query asks for; flags are read as Kubernetes reads them.
fn asked(pod: Target, verb: Verb, query: &str) -> Result<Session, ApiError> {
    let is_set =
        |name: &str| parameter(query, name).is_some_and(|value| !matches!(&*value, "false" | "0"));
    let pairs = form_urlencoded::parse(query.as_bytes());
    let command = pairs.filter(|(name, _)| name == "command").map(|(_, word)| word.into_owned());
    let command: Vec<String> = if verb == Verb::Exec { command.collect() } else { Vec::new() };
    if verb == Verb::Exec && command.is_empty() {
        return Err(ApiError::bad_request("error-exec-no-command", &[]));
    }
    let container = parameter(query, "container").unwrap_or_default();
    Ok(Session {
        namespace: pod.namespace,
        pod: pod.name,
        container: CompactString::from(&*container),
        command,
        tty: is_set("tty"),
        stdin: is_set("stdin"),
        verb,
        transport: TRANSPORT,
    })
}

/// How the talk ends, as far as the client's side knows.
enum Last {
    Gone,
    Refused(CloseFrame),
    Ended(End),
}

async fn talk(opened: Opened, socket: Socket, locale: Locale) {
    let (types, typed) = mpsc::channel(QUEUE);
    let (shows, shown) = mpsc::channel(QUEUE);
    let (mut sink, mut source) = socket.split();
    let (user, session) = (opened.record.user.clone(), opened.record.session.clone());
    let running = opened.run(typed, shows);
    let passing = pass(&mut sink, &mut source, types, shown, locale);
    let (cause, last) = tokio::join!(running, passing);
    let frame = match last {
        Last::Gone => {
            // A client that has said goodbye is answered.
            let _ = timeout(GOODBYE, sink.close()).await;
            return;
        }
        Last::Refused(frame) => {
            Record::frame_refused(&user, &session, frame.code.into());
            frame
        }
        Last::Ended(end) => close_frame(code(cause, &end), &end.reason),
    };
    farewell(sink, source, frame).await;
}

/// Passes messages both ways until one side ends; the session hears of it by its queues.
async fn pass(
    sink: &mut Sink,
    source: &mut Source,
    types: mpsc::Sender<Typed>,
    shown: mpsc::Receiver<Shown>,
    locale: Locale,
) -> Last {
    let pulse = Pulse::default();
    tokio::select! {
        last = read(source, types, &pulse, locale) => last,
        last = write(sink, shown, &pulse) => last,
    }
}

/// What the person does.
async fn read(
    source: &mut Source,
    types: mpsc::Sender<Typed>,
    pulse: &Pulse,
    locale: Locale,
) -> Last {
    loop {
        let message = match source.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                return refused(&error, MESSAGE, locale).map_or(Last::Gone, Last::Refused);
            }
            None => return Last::Gone,
        };
        pulse.heard();
        let typed = match message {
            Message::Binary(data) => Typed::Bytes(data),
            Message::Text(text) => match typed(&text, locale) {
                Ok(typed) => typed,
                Err(frame) => return Last::Refused(frame),
            },
            Message::Close(_) => return Last::Gone,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        pulse.deafen(true);
        if types.send(typed).await.is_err() {
            // The session is over; how it ended is on its way out.
            std::future::pending::<()>().await;
        }
        pulse.deafen(false);
    }
}

/// What a text message says. No JSON is 1007, any other JSON 1008.
fn typed(text: &Utf8Bytes, locale: Locale) -> Result<Typed, CloseFrame> {
    let size = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    match serde_json::from_str(text) {
        Ok(Frame::Stdin { data }) => Ok(Typed::Bytes(Bytes::from(data))),
        // What is no size is the session's to say.
        Ok(Frame::Resize { columns, rows }) => {
            Ok(Typed::Resize { columns: size(columns), rows: size(rows) })
        }
        Ok(Frame::Eof) => Ok(Typed::Eof),
        Err(error) => {
            let code = if error.is_data() { CloseCode::Policy } else { CloseCode::Invalid };
            let reason = error.to_string();
            let text = i18n::message(locale, "error-exec-frame", &[("reason", &reason)]);
            Err(close_frame(code, &text))
        }
    }
}

/// What the person sees.
async fn write(sink: &mut Sink, mut shown: mpsc::Receiver<Shown>, pulse: &Pulse) -> Last {
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = shown.recv() => next,
            _ = beat.tick() => {
                if pulse.beat(sink).await {
                    continue;
                }
                return Last::Gone;
            }
        };
        let (message, end) = match next {
            Some(Shown::Output(text)) => (json!({ "type": "stdout", "data": text }), None),
            Some(Shown::Error(text)) => (json!({ "type": "stderr", "data": text }), None),
            Some(Shown::End(end)) => {
                (json!({ "type": "end", "code": end.code, "reason": end.reason }), Some(end))
            }
            None => return Last::Gone,
        };
        if !put(sink, Message::text(message.to_string())).await {
            return Last::Gone;
        }
        if let Some(end) = end {
            return Last::Ended(end);
        }
    }
}

/// The close code for an end.
pub(crate) fn code(cause: Cause, end: &End) -> CloseCode {
    match cause {
        Cause::Process if end.code.is_some() => CloseCode::Normal,
        Cause::Policy(_) | Cause::Frame => CloseCode::Policy,
        Cause::Shutdown => CloseCode::Away,
        Cause::Process | Cause::Broken | Cause::Gone => CloseCode::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &'static str) -> Result<Typed, CloseCode> {
        typed(&Utf8Bytes::from_static(text), Locale::EN).map_err(|frame| frame.code)
    }

    #[test]
    fn a_text_message_is_what_was_typed_a_size_or_the_end_of_input() {
        let bytes = Bytes::from_static("é\n".as_bytes());
        assert_eq!(said(r#"{"type":"stdin","data":"é\n"}"#), Ok(Typed::Bytes(bytes)));
        let size = Typed::Resize { columns: 80, rows: 24 };
        assert_eq!(said(r#"{"type":"resize","columns":80,"rows":24}"#), Ok(size));
        let odd = Typed::Resize { columns: u16::MAX, rows: 0 };
        assert_eq!(said(r#"{"type":"resize","columns":1000000000,"rows":0}"#), Ok(odd));
        assert_eq!(said(r#"{"type":"eof"}"#), Ok(Typed::Eof));
    }

    #[test]
    fn what_is_no_json_and_what_is_no_message_have_codes_of_their_own() {
        for text in ["", "stdin", r#"{"type":"#, "\u{0}"] {
            assert_eq!(said(text), Err(CloseCode::Invalid), "{text}");
        }
        for text in [
            "1",
            "{}",
            r#"{"type":"exit"}"#,
            r#"{"type":"stdin"}"#,
            r#"{"type":"stdin","data":1}"#,
            r#"{"type":"stdin","data":"","more":1}"#,
            r#"{"type":"resize","columns":-1,"rows":24}"#,
            r#"{"type":"resize","columns":1.5,"rows":24}"#,
        ] {
            assert_eq!(said(text), Err(CloseCode::Policy), "{text}");
        }
    }

    #[test]
    fn a_query_asks_as_kubernetes_has_it() {
        let pod = || Target { namespace: "shop".into(), name: "web".into() };
        let query = "container=main&command=sh&command=-c&command=a%20b&tty=true&stdin";
        let session = asked(pod(), Verb::Exec, query).unwrap();
        assert_eq!(session.command, ["sh", "-c", "a b"]);
        assert_eq!((session.container.as_str(), session.tty, session.stdin), ("main", true, true));
        let attach = asked(pod(), Verb::Attach, "command=sh&tty=0&stdin=false").unwrap();
        assert_eq!((attach.container.as_str(), attach.tty, attach.stdin), ("", false, false));
        assert!(attach.command.is_empty());
        assert_eq!(asked(pod(), Verb::Exec, "tty=true").unwrap_err().status, 400);
    }
}

//! `GET /api/v1/pod/{namespace}/{pod}/portforward/{port}`: a websocket that is one connection to
//! one port of a pod, bytes as binary messages both ways. Another connection is another websocket.
//!
//! It knows nothing of what is spoken over it. Neither side can end its direction alone: the
//! protocol behind it has no word for that, and browsers' websockets have none either.

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use futures::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::exec::{MESSAGE, TRANSPORT, code, upgrade};
use super::record::Meter;
use super::terminal::{Cause, End, Ended, GOODBYE, LAST_WORDS, Opened, Session, Verb, gone};
use crate::api::error::ApiError;
use crate::api::read::related::known;
use crate::api::target::Target;
use crate::api::websocket::{
    BEAT, Pulse, Sink, Socket, Source, close_frame, farewell, put, refused,
};
use crate::api::{Caller, Shared};
use crate::i18n::{self, Locale};
use crate::upstream::channel::{Input, Output, Receiver, Sender};

/// What we speak, for browsers that bring their token among the protocols: one must be echoed.
const PROTOCOLS: [&str; 1] = ["portforward.binnacle.v1"];

/// The handler; see above.
pub async fn forward(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    let pod = Target::of(path, known("pod")?, 2)?;
    let port = path.rsplit('/').next().unwrap_or_default();
    let Some(number) = port.parse::<u16>().ok().filter(|number| *number > 0) else {
        return Err(ApiError::bad_request("error-forward-port", &[("port", port)]));
    };
    let session = Session {
        namespace: pod.namespace,
        pod: pod.name,
        container: CompactString::default(),
        command: Vec::new(),
        tty: false,
        stdin: true,
        verb: Verb::Forward(number),
        transport: TRANSPORT,
    };
    upgrade(gateway, user, request, &PROTOCOLS, session, carry).await
}

/// How one direction ended.
struct Last {
    /// What the client is told, if it is still there.
    frame: Option<CloseFrame>,
    /// For the audit log.
    ended: Ended,
}

impl Last {
    fn gone() -> Self {
        Self { frame: None, ended: gone() }
    }

    fn of(ended: Ended) -> Self {
        let (cause, end) = &ended;
        Self { frame: Some(close_frame(code(*cause, end), &end.reason)), ended }
    }

    fn told(cause: Cause, frame: CloseFrame) -> Self {
        Self { frame: Some(frame), ended: (cause, End::default()) }
    }
}

async fn carry(opened: Opened, socket: Socket, locale: Locale) {
    let Opened { watch, channel, mut record } = opened;
    let (mut sender, mut receiver) = channel.split();
    let (mut sink, mut source) = socket.split();
    let (pulse, meter) = (Pulse::default(), &record.meter);
    let carried = async {
        tokio::select! {
            biased;
            last = down(&mut receiver, &mut sink, meter, &pulse) => last,
            last = up(&mut source, &mut sender, meter, &pulse, locale) => last,
        }
    };
    let Last { frame, ended } = tokio::select! {
        biased;
        last = watch.during(carried) => last.unwrap_or_else(Last::of),
        ended = watch.over(meter) => Last::of(ended),
    };
    record.end = Some(ended);
    drop(record);
    let _ = timeout(GOODBYE, sender.close()).await;
    drop(receiver);
    match frame {
        Some(frame) => farewell(sink, source, frame).await,
        // A client that has said goodbye is answered.
        None => drop(timeout(GOODBYE, sink.close()).await),
    }
}

/// From the client to the port.
async fn up(
    source: &mut Source,
    sender: &mut Sender,
    meter: &Meter,
    pulse: &Pulse,
    locale: Locale,
) -> Last {
    let failure = loop {
        let next = tokio::select! {
            next = source.next() => next,
            failure = sender.idle() => break failure,
        };
        pulse.heard();
        let data = match next {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Text(_))) => {
                let text = i18n::message(locale, "error-forward-text", &[]);
                return Last::told(Cause::Frame, close_frame(CloseCode::Unsupported, &text));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(_))) | None => return Last::gone(),
            Some(Err(error)) => {
                let told = |frame| Last::told(Cause::Frame, frame);
                return refused(&error, MESSAGE, locale).map_or_else(Last::gone, told);
            }
        };
        meter.typed(&data);
        pulse.deafen(true);
        if let Err(failure) = sender.send(Input::Stdin(data)).await {
            break failure;
        }
        pulse.deafen(false);
    };
    // What the client says now is not heard.
    pulse.deafen(true);
    sender.last_words(LAST_WORDS).await;
    Last::of((Cause::Broken, End { code: None, reason: failure.to_string() }))
}

/// From the port to the client. A port that ends without a word ended well.
async fn down(receiver: &mut Receiver, sink: &mut Sink, meter: &Meter, pulse: &Pulse) -> Last {
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = receiver.next() => next,
            _ = beat.tick() => {
                if pulse.beat(sink).await {
                    continue;
                }
                return Last::gone();
            }
        };
        let data = match next {
            Ok(Output::Stdout(data) | Output::Stderr(data)) => data,
            Ok(Output::End(exit)) if exit.message.is_empty() => {
                return Last::told(Cause::Process, close_frame(CloseCode::Normal, ""));
            }
            Ok(Output::End(exit)) => {
                let end = End { code: None, reason: exit.message };
                return Last::of((Cause::Process, end));
            }
            Err(failure) => {
                let end = End { code: None, reason: failure.to_string() };
                return Last::of((Cause::Broken, end));
            }
        };
        meter.showed(&data);
        if !put(sink, Message::Binary(data)).await {
            return Last::gone();
        }
    }
}

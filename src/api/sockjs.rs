//! SockJS 0.3.3 at `/api/sockjs`: addresses, headers, and the websockets. The xhr transports are in
//! `sockjs_polling`; what is said over any of them is `shell`'s part.
//!
//! NOT a general SockJS server: iframe, eventsource, htmlfile and jsonp serve pages of other sites
//! and browsers of 2011, and are a 404. For the same reason CORS is granted to our own pages alone.
//! Queries carry the session id; nothing here reads or logs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::caller::{Asked, refuse_cross_site};
use super::error::ApiError;
use super::shell::{self, Client, Told};
use super::sockjs_frames::{self as frames, BadFrame, Close, HEARTBEAT, LARGEST, Place, Transport};
use super::websocket::{self, Socket};
use super::{Gateway, Shared, sockjs_polling};
use crate::i18n::{self, Locale};

const PREFIX: &str = "/api/sockjs";
const GREETING: &str = "Welcome to SockJS!\n";
/// The protocol's words.
const NO_UPGRADE: &str = "Can \"Upgrade\" only to \"WebSocket\".";
/// The protocol's cadence: proxies cut what is silent for 30 or 60 s.
pub(super) const BEAT: Duration = Duration::from_secs(25);
/// Beats without a word from the other end, not even a pong, after which it is taken for gone.
const SILENT_BEATS: u32 = 3;
/// How long the other end may not read; client-go's write deadline.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// How long, and how much, is read from a client that was told to go, so that it hears why: closing
/// with its words unread would cut ours off.
const LAST_WAIT: Duration = Duration::from_secs(2);
const LAST_WORDS: u64 = 1 << 20;
/// The protocol's header values.
const UNCACHED: &str = "no-store, no-cache, must-revalidate, max-age=0";
const YEAR: &str = "31536000";
const CACHED: &str = "public, max-age=31536000";
/// A date that never comes as far as caches are concerned.
const EXPIRES: &str = "Sun, 17 Jan 2038 19:14:07 GMT";
/// Ends of ours, in the protocol's range for applications.
const GO_AWAY: (u16, &str) = (3000, "Go away!");
/// Close codes of a raw websocket: those of `c` frames are none there.
const RAW_FAILED: u16 = 4002;
/// A websocket's control frame has room for so many bytes of a reason.
const LONGEST_REASON: usize = 123;

/// All of `/api/sockjs`.
pub async fn serve(State(gateway): Shared, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().to_owned();
    let (_, rest) = path.split_once(PREFIX).unwrap_or_default();
    let Some(place) = frames::place(rest) else {
        return Ok((StatusCode::NOT_FOUND, "404: Page Not Found").into_response());
    };
    let (method, by_script) = match place {
        Place::Greeting => (Method::GET, false),
        Place::Info => (Method::GET, true),
        Place::RawWebsocket | Place::Session { transport: Transport::Websocket, .. } => {
            (Method::GET, false)
        }
        Place::Session { .. } => (Method::POST, true),
    };
    let origin = own_origin(&Asked::of(&request));
    if by_script && request.method() == Method::OPTIONS {
        return Ok(preflight(&request, &method, origin));
    }
    // An HTTP/2 websocket is a CONNECT.
    if *request.method() != method && (by_script || request.method() != Method::CONNECT) {
        let allowed = if by_script { format!("OPTIONS, {method}") } else { method.to_string() };
        return Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allowed)]).into_response());
    }
    if place == Place::Greeting {
        return Ok(GREETING.into_response());
    }
    refuse_cross_site(&Asked::of(&request))?;
    match place {
        Place::Greeting | Place::Info => info(origin),
        Place::RawWebsocket => websocket(gateway, request, false).await,
        Place::Session { server, session, transport } => match transport {
            Transport::Websocket => websocket(gateway, request, true).await,
            Transport::Xhr | Transport::XhrStreaming => {
                let streaming = transport == Transport::XhrStreaming;
                let at = sockjs_polling::At { server, session };
                let polled = sockjs_polling::poll(gateway, request, at, streaming).await?;
                Ok(scripted(polled, "application/javascript; charset=UTF-8", origin))
            }
            Transport::XhrSend => {
                let sent = sockjs_polling::send(gateway, request, session).await?;
                Ok(scripted(sent, "text/plain; charset=UTF-8", origin))
            }
        },
    }
}

/// What a page's script reads: never cached, and by our own pages alone.
fn scripted(
    mut response: Response,
    content: &'static str,
    origin: Option<HeaderValue>,
) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(UNCACHED));
    allow(&mut response, origin);
    response
}

/// The origin of a request from one of our own pages.
fn own_origin(asked: &Asked<'_>) -> Option<HeaderValue> {
    let value = asked.headers.get(header::ORIGIN)?;
    let (_, host) = value.to_str().ok()?.split_once("://")?;
    (Some(host) == asked.host()).then(|| value.clone())
}

fn allow(response: &mut Response, origin: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
}

/// The answer to OPTIONS, good for a year.
fn preflight(request: &Request, method: &Method, origin: Option<HeaderValue>) -> Response {
    let methods = format!("OPTIONS, {method}");
    let mut response = (
        StatusCode::NO_CONTENT,
        [
            (header::CACHE_CONTROL, CACHED),
            (header::EXPIRES, EXPIRES),
            (header::ACCESS_CONTROL_MAX_AGE, YEAR),
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods.as_str()),
        ],
    )
        .into_response();
    if let (Some(_), Some(wanted)) =
        (&origin, request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS))
    {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    allow(&mut response, origin);
    response
}

/// `/info`: what we can do, and a random number for browsers that have none.
fn info(origin: Option<HeaderValue>) -> Result<Response, ApiError> {
    let mut entropy = [0u8; 4];
    rand::fill(&mut entropy).map_err(|_| ApiError::internal(&"no randomness for SockJS"))?;
    let info = json!({
        "websocket": true, "cookie_needed": false, "origins": ["*:*"],
        "entropy": u32::from_be_bytes(entropy),
    });
    let response = Response::new(Body::from(info.to_string()));
    Ok(scripted(response, "application/json; charset=UTF-8", origin))
}

/// The other end of a connection; whom it can speak for is found out now, before it says anything.
pub(super) async fn client(
    gateway: &Gateway,
    asked: &Asked<'_>,
    transport: &'static str,
) -> Result<Client, ApiError> {
    let locale = gateway.locale_of(asked.headers);
    let waiting = Some(gateway.shells.waiting()?);
    let users = shell::users(gateway, asked).await?;
    Ok(Client { users, locale, transport, bound: Arc::default(), waiting })
}

pub(super) fn going_away() -> Close {
    Close::new(GO_AWAY.0, GO_AWAY.1)
}

/// What was sent is larger than we take.
pub(super) fn too_large(locale: Locale) -> Close {
    let limit = LARGEST.to_string();
    Close::new(2, i18n::message(locale, "error-shell-frame-too-large", &[("limit", &limit)]))
}

fn malformed(locale: Locale) -> Close {
    Close::new(2, i18n::message(locale, "error-shell-frame", &[]))
}

/// A line in the audit log for what was refused before it was a message.
pub(super) fn audit(transport: &str, close: &Close) {
    let reason = close.reason.as_str();
    tracing::warn!(
        target: "audit", event = "shell-refused", transport, reason, "a frame was refused"
    );
}

async fn websocket(
    gateway: Arc<Gateway>,
    mut request: Request,
    framed: bool,
) -> Result<Response, ApiError> {
    if request.method() == Method::GET && !request.headers().contains_key(header::UPGRADE) {
        return Ok((StatusCode::BAD_REQUEST, NO_UPGRADE).into_response());
    }
    let transport = if framed { "sockjs-websocket" } else { "sockjs-raw-websocket" };
    let asked = Asked::of(&request);
    let client = client(&gateway, &asked, transport).await?;
    let (response, upgrading) = websocket::accept(&mut request, &[], LARGEST)?;
    let shells = gateway.clone();
    shells.shells.tasks.spawn(async move {
        match upgrading.socket().await {
            Ok(socket) => over(&gateway, socket, client, framed).await,
            Err(_) => tracing::debug!("a websocket was agreed on, not made"),
        }
    });
    Ok(response)
}

type Sink = SplitSink<Socket, Message>;

/// When the other end was heard of last, in beats.
#[derive(Default)]
struct Pulse {
    beats: AtomicU32,
    /// We do not listen just now: the process takes nothing.
    deaf: AtomicBool,
}

impl Pulse {
    /// One more beat; whether there have been too many.
    fn is_over(&self) -> bool {
        let beats = self.beats.fetch_add(1, Ordering::Relaxed);
        beats >= SILENT_BEATS && !self.deaf.load(Ordering::Relaxed)
    }
}

/// A talk over a websocket, from `o` to the close frame.
async fn over(gateway: &Arc<Gateway>, socket: Socket, client: Client, framed: bool) {
    let (locale, transport) = (client.locale, client.transport);
    let (say, told) = shell::begin(gateway, client);
    let (mut sink, mut stream) = socket.split();
    let pulse = Pulse::default();
    let reading = read(&mut stream, say, framed, &pulse, locale);
    let writing = write(&mut sink, told, framed, &pulse);
    let close = tokio::select! {
        close = reading => close.inspect(|close| audit(transport, close)),
        close = writing => close,
        () = gateway.shells.ended.cancelled() => Some(going_away()),
    };
    let farewell = async {
        if let Some(close) = close {
            if framed && sink.send(Message::text(close.frame())).await.is_err() {
                return;
            }
            let frame = close_frame(&close, framed);
            if sink.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
        } else if sink.close().await.is_err() {
            return;
        }
        if let Ok(mut socket) = sink.reunite(stream) {
            let wire = socket.get_mut();
            let _ = wire.shutdown().await;
            let mut rest = wire.take(LAST_WORDS);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
    };
    let _ = timeout(LAST_WAIT, farewell).await;
}

fn close_frame(close: &Close, framed: bool) -> CloseFrame {
    if framed {
        // The reason has been told in SockJS's own frame.
        return CloseFrame { code: CloseCode::Normal, reason: "".into() };
    }
    let mut end = close.reason.len().min(LONGEST_REASON);
    while !close.reason.is_char_boundary(end) {
        end -= 1;
    }
    let code = match close.code {
        1 => u16::from(CloseCode::Normal),
        code if code >= 3000 => code,
        _ => RAW_FAILED,
    };
    CloseFrame { code: CloseCode::from(code), reason: close.reason[..end].into() }
}

/// Passes on what the client says; ends when it goes (`None`) or says what cannot be understood.
async fn read(
    stream: &mut SplitStream<Socket>,
    say: mpsc::Sender<String>,
    framed: bool,
    pulse: &Pulse,
    locale: Locale,
) -> Option<Close> {
    loop {
        let message = match stream.next().await? {
            Ok(message) => message,
            Err(Error::Capacity(_)) => return Some(too_large(locale)),
            Err(_) => return None,
        };
        pulse.beats.store(0, Ordering::Relaxed);
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Some(malformed(locale)),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let messages = if framed {
            match frames::messages(text.as_bytes()) {
                Ok(messages) => messages,
                Err(BadFrame::Empty) => continue,
                Err(BadFrame::Broken) => return Some(malformed(locale)),
            }
        } else {
            vec![text.as_str().to_owned()]
        };
        pulse.deaf.store(true, Ordering::Relaxed);
        for message in messages {
            if say.send(message).await.is_err() {
                // The talk is over; how it ended is on its way out.
                std::future::pending::<()>().await;
            }
        }
        pulse.deaf.store(false, Ordering::Relaxed);
    }
}

/// Passes on what the client is told, and beats; ends with the talk, or when the client is gone.
async fn write(
    sink: &mut Sink,
    mut told: mpsc::Receiver<Told>,
    framed: bool,
    pulse: &Pulse,
) -> Option<Close> {
    if framed && !put(sink, frames::OPEN.to_owned()).await {
        return None;
    }
    let mut beat = interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let text = tokio::select! {
            told = told.recv() => match told? {
                Told::Message(message) if framed => frames::array(&[message]),
                Told::Message(message) => message,
                Told::Close(close) => return Some(close),
            },
            _ = beat.tick() => {
                let ping = sink.send(Message::Ping(bytes::Bytes::new()));
                if pulse.is_over() || !matches!(timeout(WRITE_TIME, ping).await, Ok(Ok(()))) {
                    return None;
                }
                if !framed {
                    continue;
                }
                HEARTBEAT.to_owned()
            }
        };
        if !put(sink, text).await {
            return None;
        }
    }
}

/// Whether the client took it in time.
async fn put(sink: &mut Sink, text: String) -> bool {
    matches!(timeout(WRITE_TIME, sink.send(Message::text(text))).await, Ok(Ok(())))
}

#[cfg(test)]
#[path = "sockjs_tests.rs"]
mod tests;

//! SockJS 0.3.3 at `/api/sockjs`: addresses, headers, and the websockets. The xhr transports are in
//! `shells::polling`; what is said over any of them is `shell`'s part.
//!
//! NOT a general SockJS server: iframe, eventsource, htmlfile and jsonp serve pages of other sites
//! and browsers of 2011, and are a 404. For the same reason CORS is granted to our own pages alone.
//! Queries carry the session id; nothing here reads or logs them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::rand;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::frames::{self as frames, BadFrame, Close, HEARTBEAT, LARGEST, Place, Transport};
use super::polling;
use super::shell::{self, Client, Room, Told};
use crate::api::caller::{Asked, refuse_cross_site};
use crate::api::error::ApiError;
use crate::api::websocket::{self, BEAT, Pulse, Sink, Socket, Source, farewell, put};
use crate::api::{Gateway, Shared};

/// Where it stands, behind the base path.
pub const PREFIX: &str = "/api/sockjs";
const GREETING: &str = "Welcome to SockJS!\n";
/// The protocol's words.
const NO_UPGRADE: &str = "Can \"Upgrade\" only to \"WebSocket\".";
/// How long a client that goes, or has to, may take to hear it.
const LAST_WAIT: Duration = Duration::from_secs(2);
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
                let at = polling::At { server, session };
                let polled = polling::poll(gateway, request, at, streaming).await?;
                Ok(scripted(polled, "application/javascript; charset=UTF-8", origin))
            }
            Transport::XhrSend => {
                let sent = polling::send(gateway, request, session).await?;
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
pub(crate) async fn client(
    gateway: &Gateway,
    asked: &Asked<'_>,
    transport: &'static str,
) -> Result<Arc<Client>, ApiError> {
    let locale = gateway.locale_of(asked.headers);
    let users = shell::users(gateway, asked).await?;
    Ok(Arc::new(Client { users, locale, transport, bound: OnceLock::new() }))
}

pub(crate) fn going_away() -> Close {
    Close::new(GO_AWAY.0, GO_AWAY.1)
}

/// What was sent is larger than we take.
pub(crate) async fn too_large(gateway: &Gateway, client: &Client, limit: usize) -> Close {
    let limit = limit.to_string();
    let args = [("limit", limit.as_str())];
    client.refuse(gateway, None, "error-shell-frame-too-large", &args).await
}

async fn malformed(gateway: &Gateway, client: &Client) -> Close {
    client.refuse(gateway, None, "error-shell-frame", &[]).await
}

async fn websocket(
    gateway: Arc<Gateway>,
    mut request: Request,
    framed: bool,
) -> Result<Response, ApiError> {
    let (response, upgrading) = match websocket::accept(&mut request, &[], LARGEST) {
        // The protocol's own answer to who asks for no upgrade at all.
        Err(error)
            if error.status == StatusCode::UPGRADE_REQUIRED
                && !request.headers().contains_key(header::UPGRADE) =>
        {
            return Ok((StatusCode::BAD_REQUEST, NO_UPGRADE).into_response());
        }
        accepted => accepted?,
    };
    let transport = if framed { "sockjs-websocket" } else { "sockjs-raw-websocket" };
    let asked = Asked::of(&request);
    let client = client(&gateway, &asked, transport).await?;
    let waiting = shell::waiting(&gateway, &client.users).await?;
    let shells = gateway.clone();
    shells.shells.tasks.spawn(async move {
        match upgrading.socket().await {
            Ok(socket) => over(&gateway, socket, &client, waiting, framed).await,
            Err(_) => tracing::debug!("a websocket was agreed on, not made"),
        }
    });
    Ok(response)
}

/// A talk over a websocket, from `o` to the close frame.
async fn over(
    gateway: &Arc<Gateway>,
    socket: Socket,
    client: &Arc<Client>,
    waiting: Room,
    framed: bool,
) {
    let (say, told) = shell::begin(gateway, client, waiting);
    let (mut sink, mut source) = socket.split();
    let pulse = Pulse::default();
    let close = tokio::select! {
        close = read(&mut source, say, framed, &pulse, gateway, client) => close,
        close = write(&mut sink, told, framed, &pulse) => close,
        () = gateway.shells.ended.cancelled() => Some(going_away()),
    };
    let Some(close) = close else {
        let _ = timeout(LAST_WAIT, sink.close()).await;
        return;
    };
    if framed {
        let frame = Message::text(close.frame());
        if !matches!(timeout(LAST_WAIT, put(&mut sink, frame)).await, Ok(true)) {
            return;
        }
    }
    farewell(sink, source, close_frame(&close, framed)).await;
}

fn close_frame(close: &Close, framed: bool) -> CloseFrame {
    if framed {
        // The reason has been told in SockJS's own frame.
        return websocket::close_frame(CloseCode::Normal, "");
    }
    let code = match close.code {
        1 => CloseCode::Normal,
        code if code >= 3000 => CloseCode::from(code),
        _ => CloseCode::from(RAW_FAILED),
    };
    websocket::close_frame(code, &close.reason)
}

/// Passes on what the client says; ends when it goes (`None`) or says what cannot be understood.
async fn read(
    source: &mut Source,
    say: mpsc::Sender<String>,
    framed: bool,
    pulse: &Pulse,
    gateway: &Gateway,
    client: &Client,
) -> Option<Close> {
    loop {
        let message = match source.next().await? {
            Ok(message) => message,
            Err(Error::Capacity(_)) => return Some(too_large(gateway, client, LARGEST).await),
            Err(_) => return None,
        };
        pulse.heard();
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Some(malformed(gateway, client).await),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let messages = if framed {
            match frames::messages(text.as_bytes()) {
                Ok(messages) => messages,
                Err(BadFrame::Empty) => continue,
                Err(BadFrame::Broken) => return Some(malformed(gateway, client).await),
            }
        } else {
            vec![text.as_str().to_owned()]
        };
        pulse.deafen(true);
        for message in messages {
            if say.send(message).await.is_err() {
                // The talk is over; how it ended is on its way out.
                std::future::pending::<()>().await;
            }
        }
        pulse.deafen(false);
    }
}

/// Passes on what the client is told, and beats; ends with the talk, or when the client is gone.
async fn write(
    sink: &mut Sink,
    mut told: mpsc::Receiver<Told>,
    framed: bool,
    pulse: &Pulse,
) -> Option<Close> {
    if framed && !put(sink, Message::text(frames::OPEN)).await {
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
                if !pulse.beat(sink).await {
                    return None;
                }
                if !framed {
                    continue;
                }
                HEARTBEAT.to_owned()
            }
        };
        if !put(sink, Message::text(text)).await {
            return None;
        }
    }
}

#[cfg(test)]
#[path = "sockjs_tests.rs"]
mod tests;

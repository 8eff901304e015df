//! Accepts websockets (RFC 6455 over HTTP/1.1, RFC 8441 over HTTP/2): judges the request's headers,
//! makes the answer, and hands out the socket once the client has it. One that the API server
//! speaks is not accepted but bridged: asked for over HTTP/2, passed on as HTTP/1.1's upgrade.
//!
//! It knows no caller and no message: who may have a socket is decided before, what is said over it
//! by who takes it. No compression is agreed on.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::SinkExt as _;
use futures::stream::{SplitSink, SplitStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::error::{ApiError, Fault};
use crate::i18n::{self, Locale};
use crate::upstream::wanted_upgrade;

/// The only version there is (RFC 6455, 4.1).
const VERSION: &str = "13";
/// Bytes that a key encodes (RFC 6455, 4.1).
const KEY_BYTES: usize = 16;
/// Read and write buffers are made at once and for each socket; the library's own 128 KiB are for
/// few sockets that carry much, ours are many that mostly wait.
const BUFFER: usize = 8 << 10;

/// Bytes of a close frame that are left for its reason (RFC 6455, 5.5).
const REASON: usize = 123;
/// How long a message may wait for a client that does not read.
const WRITE: Duration = Duration::from_secs(20);
/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a client may still have sent when we say goodbye: read, so that it hears us.
const LAST_WORDS: u64 = 4 << 20;
/// Between pings; proxies give up after 60 s of silence.
pub const BEAT: Duration = Duration::from_secs(20);
/// So many pings without a sign of life, and the client is gone.
const SILENT: u32 = 3;

/// A client's websocket, and its halves.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;
pub type Sink = SplitSink<Socket, Message>;
pub type Source = SplitStream<Socket>;

/// A socket that exists once the answer has reached the client.
pub struct Upgrading {
    upgrade: OnUpgrade,
    config: WebSocketConfig,
}

impl Upgrading {
    /// The socket; an error when the client went away before. Only to be waited for beside the
    /// answer, never before it is sent.
    pub async fn socket(self) -> Result<Socket, hyper::Error> {
        let upgraded = TokioIo::new(self.upgrade.await?);
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(self.config)).await)
    }
}

/// The answer to a request for a websocket, and the socket to come. The first protocol of the
/// client's that is one of `protocols` is agreed on; a client that names only others is refused
/// (400), one that names none gets none. Without `protocols` none is ever agreed on. A message of
/// more than `max_message` bytes breaks the socket (`Error::Capacity`).
pub fn accept(
    request: &mut Request,
    protocols: &[&'static str],
    max_message: usize,
) -> Result<(Response, Upgrading), ApiError> {
    let accepted = match request.version() {
        Version::HTTP_2 => {
            refuse_other_than_connect(request)?;
            None
        }
        _ => Some(refuse_other_than_upgrade(request)?),
    };
    let protocol = agreed(request.headers(), protocols)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    let upgrading = Upgrading { upgrade: hyper::upgrade::on(request), config };
    let mut response = Response::new(Body::empty());
    if let Some(accepted) = accepted {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    }
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_static(protocol);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok((response, upgrading))
}

/// A websocket asked for over HTTP/2 that somebody behind us speaks over HTTP/1.1: behind the
/// handshakes the bytes are the same.
pub struct Bridge {
    /// What `Sec-WebSocket-Accept` must be.
    accepted: String,
}

impl Bridge {
    /// Makes an extended CONNECT the GET that upgrades; `None` leaves any other request as it is.
    pub fn open(request: &mut Request) -> Result<Option<Bridge>, ApiError> {
        if request.extensions().get::<Protocol>().is_none() {
            return Ok(None);
        }
        refuse_other_than_connect(request)?;
        let key = generate_key();
        let accepted = derive_accept_key(key.as_bytes());
        let value = HeaderValue::try_from(key).map_err(|error| ApiError::internal(&error))?;
        *request.method_mut() = Method::GET;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_KEY, value);
        Ok(Some(Bridge { accepted }))
    }

    /// The answer as HTTP/2 has it. A 2xx would tell the client that it has a websocket: who did
    /// not switch, and refuses nothing either, is a 502.
    pub fn answer(&self, mut response: Response) -> Result<Response, ApiError> {
        let status = response.status();
        if status.is_redirection() || status.is_client_error() || status.is_server_error() {
            return Ok(response);
        }
        let headers = response.headers_mut();
        headers.remove(header::CONNECTION);
        let protocol = headers.remove(header::UPGRADE);
        let accepted = headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        if status == StatusCode::SWITCHING_PROTOCOLS
            && protocol.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && accepted.is_some_and(|value| value.as_bytes() == self.accepted.as_bytes())
        {
            *response.status_mut() = StatusCode::OK;
            return Ok(response);
        }
        Err(ApiError::with_status(StatusCode::BAD_GATEWAY, "error-websocket-not-switched", &[]))
    }
}

/// Whether the client took it in time.
pub async fn put(sink: &mut Sink, message: Message) -> bool {
    matches!(timeout(WRITE, sink.send(message)).await, Ok(Ok(())))
}

/// Tells a client why its socket ends, and ends it.
pub async fn farewell(mut sink: Sink, source: Source, frame: CloseFrame) {
    let farewell = async {
        if sink.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        if let Ok(mut socket) = sink.reunite(source) {
            let wire = socket.get_mut();
            let _ = wire.shutdown().await;
            let mut rest = wire.take(LAST_WORDS);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// Whether a client is still there: it has to answer pings, or to say anything else.
#[derive(Default)]
pub struct Pulse {
    unanswered: AtomicU32,
    /// We do not read just now, and so hear nothing.
    deaf: AtomicBool,
}

impl Pulse {
    pub fn heard(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Called before and after what keeps us from reading.
    pub fn deafen(&self, deaf: bool) {
        self.heard();
        self.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Pings, every [`BEAT`]; whether the client is still there.
    pub async fn beat(&self, sink: &mut Sink) -> bool {
        !self.is_gone() && put(sink, Message::Ping(Bytes::new())).await
    }

    fn is_gone(&self) -> bool {
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed);
        unanswered >= SILENT && !self.deaf.load(Ordering::Relaxed)
    }
}

/// Bytes that come in pieces as the text that messages have to be (RFC 6455, 5.6): what is no UTF-8
/// becomes U+FFFD, an incomplete character waits for the next piece.
#[derive(Default)]
pub struct Utf8 {
    /// At most three bytes.
    tail: Vec<u8>,
}

impl Utf8 {
    pub fn feed(&mut self, bytes: &[u8]) -> String {
        let mut held = std::mem::take(&mut self.tail);
        let mut rest = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            held.as_slice()
        };
        let mut text = String::with_capacity(rest.len());
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => error,
            };
            let (valid, odd) = rest.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let Some(length) = error.error_len() else {
                self.tail = odd.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = odd.get(length..).unwrap_or_default();
        }
    }

    /// What is left when nothing more comes.
    pub fn end(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.tail)).into_owned()
    }
}

/// A close frame with as much of the reason as it has room for.
pub fn close_frame(code: CloseCode, reason: &str) -> CloseFrame {
    let mut end = reason.len().min(REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame { code, reason: reason[..end].into() }
}

/// What a client is told whose bytes are no message of at most `limit`; `None`: it is not there any
/// more.
pub fn refused(error: &Error, limit: usize, locale: Locale) -> Option<CloseFrame> {
    let (code, id) = match error {
        Error::Capacity(_) => (CloseCode::Size, "error-websocket-too-large"),
        Error::Utf8(_) => (CloseCode::Invalid, "error-websocket-utf8"),
        _ => return None,
    };
    Some(close_frame(code, &i18n::message(locale, id, &[("limit", &limit.to_string())])))
}

/// RFC 8441: a CONNECT with `:protocol`. Other HTTP/2 requests cannot become anything else. One for
/// another protocol is a 501 (RFC 9220, 3).
fn refuse_other_than_connect(request: &Request) -> Result<(), ApiError> {
    let protocol = request.extensions().get::<Protocol>();
    let Some(protocol) = protocol.filter(|_| request.method() == Method::CONNECT) else {
        return Err(ApiError::bad_request("error-websocket-connect", &[]));
    };
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        let status = StatusCode::NOT_IMPLEMENTED;
        let mut error = ApiError::with_status(status, "error-websocket-connect", &[]);
        error.fault = Fault::Caller;
        return Err(error);
    }
    // Not 426: that one names what to upgrade to, which HTTP/2 cannot.
    refuse_other_version(request.headers(), StatusCode::BAD_REQUEST)
}

/// The value of `Sec-WebSocket-Accept`.
fn refuse_other_than_upgrade(request: &Request) -> Result<HeaderValue, ApiError> {
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    if request.method() != Method::GET || !wanted_upgrade(request).is_some_and(websocket) {
        let status = StatusCode::UPGRADE_REQUIRED;
        return Err(ApiError::with_status(status, "error-websocket-upgrade", &[]));
    }
    refuse_other_version(request.headers(), StatusCode::UPGRADE_REQUIRED)?;
    let bad_key = || ApiError::bad_request("error-websocket-key", &[]);
    let key = only(request.headers(), &header::SEC_WEBSOCKET_KEY).ok_or_else(bad_key)?;
    let key = key.as_bytes().trim_ascii();
    if !STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
        return Err(bad_key());
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|error| ApiError::internal(&error))
}

fn refuse_other_version(headers: &HeaderMap, status: StatusCode) -> Result<(), ApiError> {
    let version = only(headers, &header::SEC_WEBSOCKET_VERSION);
    if version.is_some_and(|value| value.as_bytes().trim_ascii() == VERSION.as_bytes()) {
        return Ok(());
    }
    Err(ApiError::with_status(status, "error-websocket-version", &[("version", VERSION)]))
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The protocol that both sides know. What the client named is not repeated in the error: a bearer
/// token may be among it.
fn agreed(
    headers: &HeaderMap,
    protocols: &[&'static str],
) -> Result<Option<&'static str>, ApiError> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let lists = values.filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).map(str::trim);
    let mut names = names.filter(|name| !name.is_empty()).peekable();
    if protocols.is_empty() || names.peek().is_none() {
        return Ok(None);
    }
    match names.find_map(|name| protocols.iter().find(|known| **known == name)) {
        Some(protocol) => Ok(Some(*protocol)),
        None => {
            let known = protocols.join(", ");
            Err(ApiError::bad_request("error-websocket-protocol", &[("known", &known)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];

    /// The good headers with one of them replaced, or left out when it is empty.
    fn request(name: &'static str, value: &str) -> Request {
        let mut request = Request::new(Body::empty());
        for (known, good) in GOOD {
            if known != name {
                request.headers_mut().insert(known, HeaderValue::from_static(good));
            }
        }
        if !value.is_empty() {
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    fn status(mut request: Request) -> u16 {
        accept(&mut request, &["a", "b"], 1024)
            .map_or_else(|error| error.status.as_u16(), |(response, _)| response.status().as_u16())
    }

    #[test]
    fn the_answer_has_the_key_of_the_standards_example() {
        let mut request = request("sec-websocket-protocol", "x, b, a");
        let (response, _) = accept(&mut request, &["a", "b"], 1024).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()["sec-websocket-protocol"], "b");
        let (response, _) = accept(&mut request, &[], 1024).unwrap();
        assert!(!response.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn a_request_that_is_no_good_upgrade_is_refused() {
        assert_eq!(status(request("accept", "")), 101);
        for (name, value, expected) in [
            ("connection", "close", 426),
            ("upgrade", "", 426),
            ("upgrade", "SPDY/3.1", 426),
            ("upgrade", "h2c", 426),
            ("sec-websocket-version", "", 426),
            ("sec-websocket-version", "8", 426),
            ("sec-websocket-key", "", 400),
            ("sec-websocket-key", "c2hvcnQ=", 400),
            ("sec-websocket-key", "no base64!", 400),
            ("sec-websocket-protocol", "A, c", 400),
        ] {
            assert_eq!(status(request(name, value)), expected, "{name}: {value}");
        }
        let mut post = request("accept", "");
        *post.method_mut() = Method::POST;
        assert_eq!(status(post), 426);
        let mut twice = request("accept", "");
        twice.headers_mut().append("sec-websocket-key", HeaderValue::from_static(KEY));
        assert_eq!(status(twice), 400);
    }

    /// An extended CONNECT as HTTP/2 brings it.
    fn connect(protocol: &'static str, version: &'static str) -> Request {
        let mut request = Request::new(Body::empty());
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static(protocol));
        let version = HeaderValue::from_static(version);
        request.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
        request
    }

    #[test]
    fn over_http_2_it_is_a_connect_with_the_websockets_protocol() {
        let mut get = request("accept", "");
        *get.version_mut() = Version::HTTP_2;
        assert_eq!(status(get), 400, "a GET stays a GET");
        let mut plain = connect("websocket", "13");
        plain.extensions_mut().clear();
        assert_eq!(status(plain), 400, "and so does a plain CONNECT");
        for (protocol, version, expected) in [
            ("websocket", "13", 200),
            ("WebSocket", "13", 200),
            ("websocket", "8", 400),
            ("connect-udp", "13", 501),
            ("", "13", 501),
        ] {
            assert_eq!(status(connect(protocol, version)), expected, "{protocol} {version}");
        }
        let (response, _) = accept(&mut connect("websocket", "13"), &["a"], 1024).unwrap();
        assert!(response.headers().is_empty(), "{response:?}");
    }

    /// An answer to a bridged request, with the right `Sec-WebSocket-Accept` where none is given.
    fn bridged(status: u16, upgrade: &'static str, accepted: Option<&'static str>) -> u16 {
        let mut request = connect("websocket", "13");
        let bridge = Bridge::open(&mut request).unwrap().unwrap();
        assert!(wanted_upgrade(&request).is_some_and(|protocol| protocol == "websocket"));
        let ours = refuse_other_than_upgrade(&request).unwrap();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        let accepted = accepted.map_or(ours, HeaderValue::from_static);
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
        match bridge.answer(response) {
            Ok(response) if response.status().is_success() => {
                assert!(response.headers().is_empty(), "{response:?}");
                200
            }
            Ok(response) => response.status().as_u16(),
            Err(error) => error.status.as_u16(),
        }
    }

    #[test]
    fn a_bridged_websocket_is_one_only_where_the_other_side_has_agreed() {
        assert_eq!(bridged(101, "WebSocket", None), 200);
        assert_eq!(bridged(101, "SPDY/3.1", None), 502);
        assert_eq!(bridged(101, "websocket", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")), 502);
        for (status, seen) in [(200, 502), (204, 502), (301, 301), (403, 403), (500, 500)] {
            assert_eq!(bridged(status, "websocket", None), seen);
        }
        let mut get = request("accept", "");
        assert!(Bridge::open(&mut get).unwrap().is_none());
        assert_eq!(status(get), 101, "it is as it was");
        assert!(Bridge::open(&mut connect("connect-ip", "13")).is_err());
    }

    #[test]
    fn a_silent_client_is_given_up_unless_we_do_not_listen() {
        let pulse = Pulse::default();
        assert!((0..SILENT).all(|_| !pulse.is_gone()));
        assert!(pulse.is_gone());
        pulse.deafen(true);
        assert!((0..=SILENT).all(|_| !pulse.is_gone()));
        pulse.deafen(false);
        assert!(!pulse.is_gone());
    }
}

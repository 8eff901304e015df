//! The API server's websockets with channels: a process in a container (exec, attach), or one
//! forwarded port. Opens them as the user and translates frames.
//!
//! It judges no rights, no sizes and no times but one: whether the other end is still there. What
//! it carries it does not keep. Frames: k8s.io/streaming/pkg/httpstream/wsstream/conn.go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::{Cluster, Failure, Identity, UpstreamError, User};

/// k8s.io/apimachinery/pkg/util/remotecommand/constants.go. Servers before 1.30 know no v5.
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// Channels of a process.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the byte behind it names the channel that ends.
const CLOSE: u8 = 255;
/// Channels of a port (k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go).
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// How long the upgrade may take: as any answer that we wait for.
const OPENING: Duration = Duration::from_secs(30);
/// A refusal is a `Status` of some hundred bytes.
const REFUSAL: usize = 64 << 10;
/// Servers copy with 32 KiB; what is far longer is no output.
const MESSAGE: usize = 1 << 20;
/// Read and write buffers, made at once for each socket.
const BUFFER: usize = 16 << 10;
/// Bytes of one frame that we send: pings and sizes must not wait behind more.
const CHUNK: usize = 32 << 10;
/// Between two pings: load balancers forget what is silent for a minute.
const PING: Duration = Duration::from_secs(30);
/// Pings without any frame in return after which the other end is taken for gone.
const SILENT: u32 = 3;
/// A server that has taken so much since its last word may wait for the process to read it, and
/// then it reads no pings either: less than what pipes and sockets on the way hold.
const HELD_UP: usize = 16 << 10;
/// Longest message of an end that is passed on, in characters.
const WORDS: usize = 2_048;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// For the process, or the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Stdin(Bytes),
    /// Only where a terminal was asked for: others never read it, and would stop reading at all.
    Resize {
        columns: u16,
        rows: u16,
    },
    /// Nothing more will be typed. See [`Sender::can_close_stdin`].
    CloseStdin,
}

/// From the process, or the port, whose data is `Stdout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last.
    End(Exit),
}

/// How a process ended. A port has no code, and no message when all went well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// `None`: it never began, or nobody knows.
    pub code: Option<i32>,
    /// The cluster's own words; empty when all went well.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    V5,
    V4,
    Port,
}

/// An open websocket.
pub struct Channel {
    socket: Socket,
    speech: Speech,
}

/// What both halves know of the other end.
#[derive(Default)]
struct Pulse {
    /// Pings since its last word.
    unanswered: AtomicU32,
    /// Bytes for the process since its last word.
    pressed: AtomicUsize,
    /// Nobody reads what it says just now.
    deaf: AtomicBool,
}

/// The half towards the process.
pub struct Sender {
    sink: SplitSink<Socket, Message>,
    speech: Speech,
    pulse: Arc<Pulse>,
    beat: Interval,
}

/// The half from the process.
pub struct Receiver {
    stream: SplitStream<Socket>,
    frames: Frames,
    pulse: Arc<Pulse>,
}

/// What frames mean.
struct Frames {
    speech: Speech,
    /// Of a port's channels: whether the port's number, which comes first, has come.
    greeted: [bool; 2],
}

/// Opens `path` (path and query of `pods/exec` or `pods/attach`) as the user. What the API server
/// refuses before it switches protocols is a [`Failure::Status`].
pub async fn open(cluster: &Cluster, user: &User, path: &str) -> Result<Channel, Failure> {
    connect(cluster, user, path, &[V5, V4]).await
}

/// Opens `path` (of `pods/portforward`, with one port in `ports=`) as the user: one connection to
/// that port. Neither side can end its direction alone.
pub async fn open_port(cluster: &Cluster, user: &User, path: &str) -> Result<Channel, Failure> {
    let channel = connect(cluster, user, path, &[V4]).await?;
    Ok(Channel { speech: Speech::Port, ..channel })
}

async fn connect(
    cluster: &Cluster,
    user: &User,
    path: &str,
    protocols: &[&str],
) -> Result<Channel, Failure> {
    let opening = timeout(OPENING, upgrade(cluster, user, path, protocols)).await;
    opening.unwrap_or(Err(Failure::Upstream(UpstreamError::Timeout)))
}

async fn upgrade(
    cluster: &Cluster,
    user: &User,
    path: &str,
    protocols: &[&str],
) -> Result<Channel, Failure> {
    let key = generate_key();
    let request = Request::get(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        // One header: the API server reads the first only.
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))
        .body(Body::empty())
        .map_err(|error| UpstreamError::Setup(error.to_string()))?;
    let mut answer = cluster.send(Identity::User(user), request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    let said = |name: HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if said(header::SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(broken("it switched to something that is no websocket"));
    }
    let speech = match said(header::SEC_WEBSOCKET_PROTOCOL) {
        Some(V5) if protocols.contains(&V5) => Speech::V5,
        Some(V4) => Speech::V4,
        _ => return Err(broken("it speaks none of the channel protocols v5 and v4")),
    };
    let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|error| broken(&error))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
    Ok(Channel { socket, speech })
}

async fn refusal(answer: Response<Incoming>) -> Failure {
    let (head, body) = answer.into_parts();
    if !head.status.is_client_error() && !head.status.is_server_error() {
        return broken(&format!("it answered {} in place of a websocket", head.status));
    }
    match Limited::new(body, REFUSAL).collect().await {
        Ok(body) => Failure::status(head.status, &body.to_bytes()).after(&head.headers),
        Err(error) => broken(&error),
    }
}

fn broken(why: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::Upstream(UpstreamError::Broken(why.to_string()))
}

impl Channel {
    pub fn split(self) -> (Sender, Receiver) {
        let Self { socket, speech } = self;
        let (sink, stream) = socket.split();
        let pulse = Arc::new(Pulse::default());
        let mut beat = interval_at(Instant::now() + PING, PING);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sender = Sender { sink, speech, pulse: pulse.clone(), beat };
        let frames = Frames { speech, greeted: [false; 2] };
        (sender, Receiver { stream, frames, pulse })
    }
}

impl Sender {
    /// Whether the process can be told that nothing more comes: v4 has no word for it, and a port
    /// neither; there `CloseStdin` does nothing.
    pub fn can_close_stdin(&self) -> bool {
        self.speech == Speech::V5
    }

    /// Waits until the server has taken it, however long the process does not.
    pub async fn send(&mut self, input: Input) -> Result<(), Failure> {
        match input {
            Input::Stdin(data) => {
                for chunk in data.chunks(CHUNK) {
                    // Before: it may be this that it cannot take.
                    self.pulse.pressed.fetch_add(chunk.len(), Ordering::Relaxed);
                    self.frame(STDIN, chunk).await?;
                }
                Ok(())
            }
            Input::Resize { columns, rows } => {
                let size = format!(r#"{{"Width":{columns},"Height":{rows}}}"#);
                self.frame(RESIZE, size.as_bytes()).await
            }
            Input::CloseStdin if self.can_close_stdin() => self.frame(CLOSE, &[STDIN]).await,
            Input::CloseStdin => Ok(()),
        }
    }

    /// Keeps the connection alive for as long as there is nothing to send; returns when the other
    /// end is gone. May be dropped at any time.
    pub async fn idle(&mut self) -> Failure {
        loop {
            self.beat.tick().await;
            if self.pulse.is_gone() {
                let seconds = PING.as_secs() * u64::from(SILENT);
                return broken(&format!("nothing was heard for {seconds} s"));
            }
            if let Err(error) = self.sink.send(Message::Ping(Bytes::new())).await {
                return broken(&error);
            }
        }
    }

    /// Says goodbye; whoever does not, breaks the connection off.
    pub async fn close(mut self) {
        let _ = self.sink.close().await;
    }

    async fn frame(&mut self, channel: u8, data: &[u8]) -> Result<(), Failure> {
        let mut frame = Vec::with_capacity(1 + data.len());
        frame.push(channel);
        frame.extend_from_slice(data);
        self.sink.send(Message::binary(frame)).await.map_err(|error| broken(&error))
    }
}

impl Receiver {
    /// What comes next. An error is an end, too: the connection broke before the process had one.
    /// May be dropped at any time; after the end there is nothing more.
    pub async fn next(&mut self) -> Result<Output, Failure> {
        self.pulse.listen();
        let output = loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(broken(&error)),
                None => break self.frames.closed(None)?,
            };
            self.pulse.heard();
            match message {
                Message::Binary(frame) => {
                    if let Some(output) = self.frames.read(&frame) {
                        break output;
                    }
                }
                Message::Close(frame) => break self.frames.closed(frame)?,
                // Pings are answered by the library, as long as we read.
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        };
        self.pulse.deafen();
        Ok(output)
    }
}

impl Frames {
    /// What a frame says. Empty ones open channels; channels that we do not know are ignored.
    fn read(&mut self, frame: &Bytes) -> Option<Output> {
        let channel = *frame.first()?;
        let data = frame.slice(1..);
        if self.speech == Speech::Port
            && let Some(greeted) = self.greeted.get_mut(usize::from(channel))
            && !*greeted
        {
            *greeted = true;
            return None;
        }
        if data.is_empty() {
            return None;
        }
        match (self.speech, channel) {
            (Speech::Port, DATA) => Some(Output::Stdout(data)),
            (Speech::Port, ERROR) => Some(Output::End(Exit { code: None, message: words(&data) })),
            (Speech::V5 | Speech::V4, STDOUT) => Some(Output::Stdout(data)),
            (Speech::V5 | Speech::V4, STDERR) => Some(Output::Stderr(data)),
            (Speech::V5 | Speech::V4, STATUS) => Some(Output::End(Exit::of(&data))),
            _ => None,
        }
    }

    /// A port's connection ends so; a process has to say first how it ended.
    fn closed(&self, frame: Option<CloseFrame>) -> Result<Output, Failure> {
        if self.speech == Speech::Port {
            return Ok(Output::End(Exit::default()));
        }
        let why = frame.map(|frame| frame.reason).unwrap_or_default();
        match why.as_str() {
            "" => Err(broken("it was closed before the process said how it ended")),
            why => Err(broken(why)),
        }
    }
}

impl Exit {
    /// Of the `metav1.Status` on the error channel.
    fn of(status: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            status: String,
            reason: String,
            message: String,
            details: Option<Details>,
        }
        #[derive(Deserialize)]
        struct Details {
            causes: Option<Vec<Cause>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Cause {
            reason: String,
            message: String,
        }
        let Ok(status) = serde_json::from_slice::<Status>(status) else {
            return Self { code: None, message: words(status) };
        };
        if status.status == "Success" {
            return Self { code: Some(0), message: String::new() };
        }
        let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
        let mut causes = causes.iter().filter(|_| status.reason == "NonZeroExitCode");
        let cause = causes.find(|cause| cause.reason == "ExitCode");
        let code = cause.and_then(|cause| cause.message.parse().ok());
        Self { code, message: words(status.message.as_bytes()) }
    }
}

fn words(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(WORDS).collect()
}

impl Pulse {
    fn heard(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
        self.pressed.store(0, Ordering::Relaxed);
    }

    fn deafen(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Somebody reads again; what was not read meanwhile is no silence.
    fn listen(&self) {
        if self.deaf.swap(false, Ordering::Relaxed) {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }

    /// One more ping is due; whether too many have had no answer.
    fn is_gone(&self) -> bool {
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed);
        unanswered >= SILENT
            && !self.deaf.load(Ordering::Relaxed)
            && self.pressed.load(Ordering::Relaxed) < HELD_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: &str) -> (Option<i32>, String) {
        let Exit { code, message } = Exit::of(status.as_bytes());
        (code, message)
    }

    #[test]
    fn an_end_is_read_from_the_status() {
        assert_eq!(exit(r#"{"metadata":{},"status":"Success"}"#), (Some(0), String::new()));
        let failed = r#"{"status":"Failure","message":"command terminated","reason":
            "NonZeroExitCode","details":{"causes":[{"reason":"X"},{"reason":"ExitCode",
            "message":"137"}]}}"#;
        assert_eq!(exit(failed), (Some(137), "command terminated".into()));
        let internal = r#"{"status":"Failure","message":"no such container","reason":
            "InternalError","details":{"causes":[{"message":"no such container"}]},"code":500}"#;
        assert_eq!(exit(internal), (None, "no such container".into()));
    }

    #[test]
    fn an_odd_status_has_no_code_and_is_repeated_in_part() {
        assert_eq!(exit("plain words"), (None, "plain words".into()));
        assert_eq!(exit(r#"{"status":"Failure","details":null}"#), (None, String::new()));
        let odd = r#"{"status":"Failure","reason":"NonZeroExitCode",
            "details":{"causes":[{"reason":"ExitCode","message":"many"}]}}"#;
        assert_eq!(exit(odd), (None, String::new()));
        assert_eq!(exit(&"x".repeat(10_000)).1.len(), WORDS);
    }

    fn read(frames: &mut Frames, frame: &[u8]) -> Option<Output> {
        frames.read(&Bytes::copy_from_slice(frame))
    }

    fn data(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_processs_frames_are_told_apart_by_their_channel() {
        let mut frames = Frames { speech: Speech::V5, greeted: [false; 2] };
        assert_eq!(read(&mut frames, b"\x01out"), Some(Output::Stdout(data("out"))));
        assert_eq!(read(&mut frames, b"\x02err"), Some(Output::Stderr(data("err"))));
        let end = Exit { code: Some(0), message: String::new() };
        assert_eq!(read(&mut frames, b"\x03{\"status\":\"Success\"}"), Some(Output::End(end)));
        for nothing in [&b""[..], b"\x01", b"\x03", b"\x00echo", b"\x09x", b"\xff\x01"] {
            assert_eq!(read(&mut frames, nothing), None, "{nothing:?}");
        }
        assert!(frames.closed(None).is_err());
    }

    #[test]
    fn a_ports_channels_each_begin_with_its_number() {
        let mut frames = Frames { speech: Speech::Port, greeted: [false; 2] };
        assert_eq!(read(&mut frames, b"\x00\x50\x00"), None);
        assert_eq!(read(&mut frames, b"\x01\x50\x00"), None);
        assert_eq!(read(&mut frames, b"\x00hello"), Some(Output::Stdout(data("hello"))));
        let end = Exit { code: None, message: "refused".into() };
        assert_eq!(read(&mut frames, b"\x01refused"), Some(Output::End(end)));
        assert_eq!(frames.closed(None).unwrap(), Output::End(Exit::default()));
    }

    #[test]
    fn who_says_nothing_is_gone_unless_we_do_not_listen_or_the_process_takes_nothing() {
        let gone = |pulse: &Pulse| (0..=SILENT).any(|_| pulse.is_gone());
        let pulse = Pulse::default();
        assert!((0..SILENT).all(|_| !pulse.is_gone()));
        assert!(pulse.is_gone());
        pulse.deafen();
        assert!(!gone(&pulse));
        pulse.listen();
        assert!(gone(&pulse));
        pulse.pressed.store(HELD_UP, Ordering::Relaxed);
        assert!(!gone(&pulse));
        pulse.heard();
        assert!(gone(&pulse));
    }
}

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
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::{Answer, Cluster, Failure, Identity, UpstreamError, User};

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
    let upgrading = hyper::upgrade::on(&mut answer);
    let headers = answer.into_parts().0.headers;
    let said = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if said(header::SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(broken("it switched to something that is no websocket"));
    }
    let speech = match said(header::SEC_WEBSOCKET_PROTOCOL) {
        Some(V5) if protocols.contains(&V5) => Speech::V5,
        Some(V4) => Speech::V4,
        _ => return Err(broken("it speaks none of the channel protocols v5 and v4")),
    };
    let upgraded = upgrading.await.map_err(|error| broken(&error))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
    Ok(Channel { socket, speech })
}

async fn refusal(answer: Response<Answer>) -> Failure {
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

    /// After a failure: returns when the other half has listened for so long, and heard nothing.
    /// What it heard before may take its time on the way to who reads it.
    pub async fn last_words(&self, silence: Duration) {
        self.pulse.falls_silent(silence).await;
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
        self.pulse.deaf.store(true, Ordering::Relaxed);
        Ok(output)
    }
}

/// What a fuzzer's frames say, in one of the protocols: v5, v4, a port.
#[cfg(any(test, fuzzing))]
pub fn said(protocol: u8, frames: &[Bytes]) -> Vec<Option<Output>> {
    let speech = [Speech::V5, Speech::V4, Speech::Port][usize::from(protocol % 3)];
    let mut reader = Frames { speech, greeted: [false; 2] };
    frames.iter().map(|frame| reader.read(frame)).collect()
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

    /// A port's connection ends so, if it ends well; a process has to say first how it ended.
    fn closed(&self, frame: Option<CloseFrame>) -> Result<Output, Failure> {
        let (code, why) = frame.map_or((CloseCode::Normal, "".into()), |f| (f.code, f.reason));
        match (self.speech, why.as_str()) {
            (Speech::Port, _) if code == CloseCode::Normal => Ok(Output::End(Exit::default())),
            (_, "") => Err(broken(&format!("it was closed before its end, with code {code}"))),
            (_, why) => Err(broken(why)),
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

    /// Somebody reads again; what was not read meanwhile is no silence.
    fn listen(&self) {
        if self.deaf.swap(false, Ordering::Relaxed) {
            self.unanswered.store(0, Ordering::Relaxed);
        }
    }

    /// Returns when nothing was heard for so long though somebody listened; no pings meanwhile.
    async fn falls_silent(&self, silence: Duration) {
        loop {
            self.unanswered.store(1, Ordering::Relaxed);
            sleep(silence).await;
            let is_unanswered = self.unanswered.load(Ordering::Relaxed) > 0;
            if is_unanswered && !self.deaf.load(Ordering::Relaxed) {
                return;
            }
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
#[path = "channel_tests.rs"]
mod tests;

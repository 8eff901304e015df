//! A container's log as it is written, to a reader by event stream or websocket. A right that ends
//! takes the log with it, a server that ends says so, and a reader costs so much and no more.
//!
//! How lines are made and queued is `log_stream`'s part, how a log is read on is `log_source`'s;
//! several pods are `log_merge`'s.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::ApiError;
use super::log_source::{HAND_OVER, Names, Said, Source, Wanted};
use super::log_stream::{End, News, Queue, Reason};
use super::logs::X_ACCEL_BUFFERING;
use super::related::known;
use super::target::{Target, segment};
use super::websocket::{self, Socket};
use super::{Caller, Gateway, Shared};
use crate::auth::Attributes;
use crate::upstream::{Fingerprint, User};

/// A sign of life on a quiet stream: proxies commonly end one after a minute without a byte.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Signs of life that a websocket may leave unanswered, and how long it may take nothing; then it
/// is gone, whatever the network says.
const SILENT: (u32, Duration) = (3, Duration::from_secs(50));
/// How long a websocket that was told the end has to agree to it.
const FAREWELL: Duration = Duration::from_secs(2);
/// What a follower may say to us, in bytes; nothing of it matters.
const MESSAGE: usize = 4 << 10;
/// The subprotocol to name beside one that carries a token.
const PROTOCOLS: [&str; 1] = ["v1.logs.binnacle"];
/// Milliseconds after which readers come again whom our end sent away: not all of them at once.
const RETRY: (u64, u64) = (500, 2_500);

/// What may be chosen of following.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Between two looks whether a right still stands: a revoked right may be used for so long.
    pub recheck: Duration,
    /// Readers at once: each costs some KiB when it is quiet, some MiB at most.
    pub all: usize,
    /// Of those, of one caller.
    pub of_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { recheck: Duration::from_secs(10), all: 2_000, of_one: 1_000 }
    }
}

type Seats = Arc<Mutex<HashMap<Fingerprint, usize>>>;

/// Logs that are followed now.
#[derive(Default)]
pub struct Follows {
    limits: Limits,
    ending: CancellationToken,
    seats: Seats,
}

/// A reader's place; given back when dropped.
pub struct Seat {
    seats: Seats,
    who: Fingerprint,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Follows {
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Readers that there are now.
    pub fn count(&self) -> usize {
        locked(&self.seats).values().sum()
    }

    /// Tells every reader, and later ones, that this server ends.
    pub fn end(&self) {
        self.ending.cancel();
    }

    pub fn recheck(&self) -> Duration {
        self.limits.recheck
    }

    /// A place for one more reader, or 429.
    pub fn seat(&self, user: &User) -> Result<Seat, ApiError> {
        let who = user.fingerprint();
        let mut seats = locked(&self.seats);
        let own = seats.get(&who).copied().unwrap_or_default();
        if own >= self.limits.of_one || seats.values().sum::<usize>() >= self.limits.all {
            let busy = StatusCode::TOO_MANY_REQUESTS;
            return Err(ApiError::with_status(busy, "error-too-many-followed-logs", &[]));
        }
        seats.insert(who, own + 1);
        Ok(Seat { seats: self.seats.clone(), who })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = locked(&self.seats);
        match seats.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                seats.remove(&self.who);
            }
        }
    }
}

/// `GET /api/v1/log/{namespace}/{pod}/{container}/follow`: an event stream, or a websocket for who
/// asks to upgrade. What the API server refuses at once is the answer's error.
pub async fn follow(
    State(gateway): Shared,
    Caller(user): Caller,
    mut request: Request,
) -> Result<Response, ApiError> {
    let pods = known("pod")?;
    let path = request.uri().path();
    let pod = Target::of(path, pods, 2)?;
    let container = segment(path.rsplit('/').nth(1).unwrap_or_default())?;
    let query = request.uri().query().unwrap_or_default();
    let wanted = Arc::new(Wanted::of(query, request.headers())?);
    let seat = gateway.follows.seat(&user)?;
    let right = right(&pod.namespace, &pod.name);
    let source = Source {
        gateway: gateway.clone(),
        user: user.clone(),
        path: pod.path(&pods.resource),
        names: Arc::new(Names { pod: pod.name, container }),
        wanted,
        uid: None,
    };
    let first = source.first().await?;
    let queue = Arc::new(Queue::default());
    let lines = queue.clone();
    let begun = Timestamp::now();
    let work = async move {
        let (to, mut said) = mpsc::channel::<Said>(HAND_OVER);
        let tell = async {
            while let Some(said) = said.recv().await {
                let line = said.line;
                let id = line.mark.map(|mark| mark.to_string());
                let entry = source.wanted.entry(&line, None, id);
                // What was written before waits in its file until the reader has time.
                lines.put(entry, line.at.is_some_and(|at| at < begun)).await;
            }
        };
        tokio::join!(source.run(Some(first), to), tell).0
    };
    let reading = Reading { gateway, user, right, seat, queue };
    reading.answer(&mut request, work)
}

/// The right that a log is read by; without a pod's name, for all pods of the namespace.
pub fn right(namespace: &str, pod: &str) -> Attributes {
    Attributes {
        verb: "get".into(),
        version: "v1".into(),
        resource: "pods".into(),
        subresource: "log".into(),
        namespace: namespace.into(),
        name: pod.into(),
        ..Attributes::default()
    }
}

/// Returns when a right is gone. An API server that gives no answer takes no right.
async fn revoked(gateway: &Gateway, user: &User, right: &Attributes) -> End {
    loop {
        sleep(gateway.follows.recheck()).await;
        if user.expires().is_some_and(|at| at <= Timestamp::now().as_second()) {
            return Reason::Unauthorized.into();
        }
        match gateway.authorizer.review(&gateway.cluster, user, right).await {
            Ok(true) => {}
            Ok(false) => return Reason::Denied.into(),
            Err(failure) => match failure.code() {
                Some(StatusCode::UNAUTHORIZED) => return Reason::Unauthorized.into(),
                // Impersonation is no longer allowed, for one.
                Some(StatusCode::FORBIDDEN) => return End::of(Reason::Denied, &failure),
                _ => {}
            },
        }
    }
}

/// This server's end, with a time to come again.
fn shutdown() -> End {
    let (least, most) = RETRY;
    let part = u64::from(Timestamp::now().subsec_nanosecond().unsigned_abs());
    let retry = Duration::from_millis(least + part % (most - least));
    End { retry: Some(retry), ..Reason::Shutdown.into() }
}

/// A log's body that breaks off when the right to read it is gone, or this server ends. A good
/// end would look like the log's own.
pub fn judged(gateway: &Arc<Gateway>, user: &User, pod: &Target, log: Incoming) -> Body {
    let (gateway, user) = (gateway.clone(), user.clone());
    let right = right(&pod.namespace, &pod.name);
    let ended = Box::pin(async move {
        tokio::select! {
            end = revoked(&gateway, &user, &right) => end,
            () = gateway.follows.ending.cancelled() => shutdown(),
        }
    });
    let frames = futures::stream::unfold(Some((log, ended)), |state| async move {
        let (mut log, mut ended) = state?;
        loop {
            let frame = tokio::select! {
                biased;
                end = &mut ended => {
                    return Some((Err(io::Error::other(end.data().to_string())), None));
                }
                frame = log.frame() => frame?,
            };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => return Some((Ok(data), Some((log, ended)))),
                Ok(Err(_)) => {}
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            }
        }
    });
    Body::from_stream(frames)
}

/// Somebody who is about to follow.
pub struct Reading {
    pub gateway: Arc<Gateway>,
    pub user: User,
    pub right: Attributes,
    pub seat: Seat,
    pub queue: Arc<Queue>,
}

/// A reader that is told; the work for it ends with it.
struct Told {
    queue: Arc<Queue>,
    _work: AbortOnDropHandle<()>,
    _seat: Seat,
}

impl Reading {
    /// The answer, fed by `work`, which puts into the queue. Whoever reads slowly, or not at all,
    /// stops neither the work nor the look at the right.
    pub fn answer(
        self,
        request: &mut Request,
        work: impl Future<Output = End> + Send + 'static,
    ) -> Result<Response, ApiError> {
        if !is_socket(request) {
            return Ok(events(self.start(work)));
        }
        let (response, upgrading) = websocket::accept(request, &PROTOCOLS, MESSAGE)?;
        let told = self.start(work);
        tokio::spawn(async move {
            // The client went away before it was told anything.
            let Ok(socket) = upgrading.socket().await else { return };
            serve(socket, told).await;
        });
        Ok(response)
    }

    fn start(self, work: impl Future<Output = End> + Send + 'static) -> Told {
        let Self { gateway, user, right, seat, queue } = self;
        let ends = queue.clone();
        let work = tokio::spawn(async move {
            let end = tokio::select! {
                end = work => end,
                end = revoked(&gateway, &user, &right) => end,
                () = gateway.follows.ending.cancelled() => shutdown(),
            };
            ends.end(end);
        });
        Told { queue, _work: AbortOnDropHandle::new(work), _seat: seat }
    }
}

/// Over HTTP/1.1 by a header, over HTTP/2 by an extended CONNECT.
fn is_socket(request: &Request) -> bool {
    let upgrade = request.headers().get(header::UPGRADE);
    request.method() == Method::CONNECT
        || upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn events(told: Told) -> Response {
    let events = futures::stream::unfold(Some(told), |told| async move {
        let told = told?;
        let news = told.queue.next().await;
        let more = (!matches!(news, News::End(_))).then_some(told);
        Some((Ok::<_, Infallible>(event(&news)), more))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT);
    let mut response = Sse::new(events).keep_alive(alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold it back until a buffer is full.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

fn event(news: &News) -> Event {
    let event = Event::default();
    match news {
        News::Lines { id: Some(id), data } => event.id(id).event("lines").data(data),
        News::Lines { id: None, data } => event.event("lines").data(data),
        News::Missed(lines) => event.event("missed").data(json!({ "lines": lines }).to_string()),
        News::Pods(pods) => event.event("pods").data(pods.to_string()),
        News::End(end) => {
            let event = event.event("end").data(end.data().to_string());
            match end.retry {
                Some(retry) => event.retry(retry),
                None => event,
            }
        }
    }
}

/// The same as a message: `{"event":…,"id":…,"data":…}`.
fn message(news: &News) -> Message {
    let of = |event: &str, data: &Value| json!({ "event": event, "data": data }).to_string();
    let text = match news {
        // The lines are JSON already.
        News::Lines { id, data } => {
            let id = Value::from(id.as_deref());
            format!(r#"{{"event":"lines","id":{id},"data":{data}}}"#)
        }
        News::Missed(lines) => of("missed", &json!({ "lines": lines })),
        News::Pods(pods) => of("pods", pods),
        News::End(end) => of("end", &end.data()),
    };
    Message::text(text)
}

fn close(reason: Reason) -> CloseFrame {
    let code = match reason {
        Reason::Completed | Reason::Gone => CloseCode::Normal,
        Reason::Shutdown => CloseCode::Away,
        Reason::Denied | Reason::Unauthorized | Reason::Filter => CloseCode::Policy,
        Reason::Failed => CloseCode::Error,
    };
    let name = json!(reason);
    CloseFrame { code, reason: name.as_str().unwrap_or_default().into() }
}

/// Tells a websocket until one side ends.
async fn serve(mut socket: Socket, told: Told) {
    let mut unanswered = 0;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    loop {
        let (message, end) = tokio::select! {
            news = told.queue.next() => match &news {
                News::End(end) => (message(&news), Some(close(end.reason))),
                _ => (message(&news), None),
            },
            said = socket.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    unanswered = 0;
                    continue;
                }
            },
            _ = beat.tick() => {
                if unanswered >= SILENT.0 {
                    return;
                }
                unanswered += 1;
                (Message::Ping(Default::default()), None)
            }
        };
        if !matches!(timeout(SILENT.1, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
        if let Some(frame) = end {
            // What the client still sends is read: a reset could overtake our last words.
            let goodbye = async {
                let _ = socket.close(Some(frame)).await;
                while let Some(Ok(_)) = socket.next().await {}
            };
            let _ = timeout(FAREWELL, goodbye).await;
            return;
        }
    }
}

#[cfg(test)]
#[path = "log_follow_tests.rs"]
mod tests;

//! A container's log as it is written, to a reader by event stream or websocket. A right that ends
//! takes the log with it, a server that ends says so, and a reader costs so much and no more.
//!
//! How lines are made and queued is `logs::stream`'s part, how a log is read on is `logs::source`'s;
//! several pods are `logs::merge`'s.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{SinkExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::source::{self, HAND_OVER, Names, Opening, Said, Source, Wanted};
use super::stream::{End, News, Queue, Reason};
use super::window::X_ACCEL_BUFFERING;
use crate::api::error::ApiError;
use crate::api::live::events;
use crate::api::read::related::known;
use crate::api::standing::{self, Lost, unless};
use crate::api::target::{Target, segment};
use crate::api::websocket::{self, Socket};
use crate::api::{Caller, Gateway, Shared};
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
    /// Readers at once: each costs some KiB when it is quiet, some hundred at most.
    pub all: usize,
    /// Of those, of one caller.
    pub of_one: usize,
    /// Containers of followed workloads at once, of all readers and of those of one caller: each
    /// is a connection to the API server, of which there are some 28,000 ports, and files fewer.
    pub sources: (usize, usize),
}

impl Default for Limits {
    fn default() -> Self {
        let recheck = Duration::from_secs(10);
        Self { recheck, all: 2_000, of_one: 1_000, sources: (2_000, 400) }
    }
}

/// How many places each caller has taken of those that there are.
#[derive(Clone, Default)]
pub struct Taken(Arc<Mutex<HashMap<Fingerprint, usize>>>);

/// Logs that are followed now.
#[derive(Default)]
pub struct Follows {
    limits: Limits,
    ending: CancellationToken,
    readers: Taken,
    sources: Taken,
    pub filters: Taken,
}

/// Places that are taken together; given back when dropped.
pub struct Seat {
    taken: Taken,
    who: Fingerprint,
    count: usize,
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
        self.readers.count()
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
        let seat = self.readers.take(user, 1, (self.limits.all, self.limits.of_one));
        let busy = StatusCode::TOO_MANY_REQUESTS;
        seat.ok_or_else(|| ApiError::with_status(busy, "error-too-many-followed-logs", &[]))
    }

    /// Places for a further pod of this many containers in a followed workload, if there are any.
    pub fn pod(&self, user: &User, containers: usize) -> Option<Seat> {
        self.sources.take(user, containers, self.limits.sources)
    }
}

impl Taken {
    /// Places that are taken.
    pub fn count(&self) -> usize {
        locked(&self.0).values().sum()
    }

    pub fn take(&self, user: &User, count: usize, (all, of_one): (usize, usize)) -> Option<Seat> {
        let who = user.fingerprint();
        let mut taken = locked(&self.0);
        let own = taken.get(&who).copied().unwrap_or_default() + count;
        if own > of_one || taken.values().sum::<usize>() + count > all {
            return None;
        }
        taken.insert(who, own);
        Some(Seat { taken: self.clone(), who, count })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken.0);
        if let Some(own) = taken.get_mut(&self.who) {
            *own = own.saturating_sub(self.count);
            if *own == 0 {
                taken.remove(&self.who);
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
    let right = right(&pod.namespace, &pod.name);
    let mut source = Source {
        gateway: gateway.clone(),
        user: user.clone(),
        path: pod.path(&pods.resource),
        names: Arc::new(Names { pod: pod.name, container }),
        wanted,
        filter: None,
        uid: None,
    };
    let first = source.first().await?;
    // Strangers get neither a pattern compiled nor a place.
    source.filter = source::filter(&gateway.follows.filters, &source.user, query).await?;
    let seat = gateway.follows.seat(&user)?;
    let queue = Arc::new(Queue::default());
    let lines = queue.clone();
    let begun = Timestamp::now();
    let work = async move {
        let (to, mut said) = mpsc::channel::<Vec<Said>>(HAND_OVER);
        let tell = async {
            while let Some(said) = said.recv().await {
                for Said { line, .. } in said {
                    let id = line.mark.map(|mark| mark.to_string());
                    let entry = source.wanted.entry(&line, None, id);
                    // What was written before waits in its file until the reader has time.
                    lines.put(entry, line.at.is_some_and(|at| at < begun)).await;
                }
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

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unauthorized => Reason::Unauthorized.into(),
            Lost::Denied(None) => Reason::Denied.into(),
            Lost::Denied(Some(words)) => Self::of(Reason::Denied, &words),
            Lost::Unconfirmed(words) => Self::of(Reason::Failed, &words),
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

/// A log's body that breaks off when the right to read it is gone, this server ends, or nobody
/// takes it.
pub fn judged(
    gateway: &Arc<Gateway>,
    user: &User,
    pod: &Target,
    opening: Opening,
    seat: Seat,
) -> Body {
    let (gateway, user) = (gateway.clone(), user.clone());
    let right = right(&pod.namespace, &pod.name);
    let (doubt, doubted) = watch::channel(false);
    let ended = async move {
        let every = gateway.follows.recheck();
        tokio::select! {
            lost = standing::lost(&gateway, &user, &right, every, &doubt) => End::from(lost),
            () = gateway.follows.ending.cancelled() => shutdown(),
        }
    };
    // A task: the look at the right goes on while nobody takes the log.
    let ended = AbortOnDropHandle::new(tokio::spawn(ended));
    let ended = async { ended.await.unwrap_or_else(|error| End::of(Reason::Failed, &error)) };
    broken_off(opening, (ended, doubted), seat, SILENT.1)
}

/// The body until it is `ended`, or nothing of it is taken for so long, and then an error: a good
/// end would look like the log's own. Nothing of it is read while the right to it is `doubted`.
fn broken_off(
    opening: Opening,
    (ended, doubted): (impl Future<Output = End> + Send + 'static, watch::Receiver<bool>),
    seat: Seat,
    patience: Duration,
) -> Body {
    let log = opening
        .map_err(io::Error::other)
        .map_ok(|log| log.into_data_stream().map_err(io::Error::other))
        .try_flatten_stream();
    let begun = Some((Box::pin(log), Box::pin(ended), doubted, seat));
    let frames = stream::unfold(begun, |state| async move {
        let (mut log, mut ended, mut doubted, seat) = state?;
        let data: Result<_, io::Error> = tokio::select! {
            biased;
            end = &mut ended => Err(io::Error::other(end.data().to_string())),
            data = unless(&mut doubted, log.next()) => data?,
        };
        let more = data.is_ok().then_some((log, ended, doubted, seat));
        Some((data, more))
    });
    events::whole(frames, patience)
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
            let every = gateway.follows.recheck();
            let end = tokio::select! {
                end = standing::during(&gateway, &user, &right, every, work) => {
                    end.unwrap_or_else(End::from)
                }
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
    let events = stream::unfold(Some(told), |told| async move {
        let told = told?;
        let news = told.queue.next().await;
        let more = (!matches!(news, News::End(_))).then_some(told);
        Some((Ok::<_, Infallible>(event(&news)), more))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT);
    let response = Sse::new(events).keep_alive(alive).into_response();
    // Who takes nothing keeps no place.
    let paced = |body: Body| Body::from_stream(events::paced(body.into_data_stream(), SILENT.1));
    let mut response = response.map(paced);
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
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
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
    // Who says goodbye hears it.
    let _ = timeout(FAREWELL, socket.flush()).await;
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;

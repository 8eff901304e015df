//! Live answers as event streams: the same addresses with `Accept: text/event-stream`. First
//! `whole`, the body of the plain answer, then `change`s of it; who resumes where he is gets no
//! whole. Here are the places of streams, their readers, and the middleware that begins one.
//!
//! It evaluates nothing (`live::hub`), and how to apply a change stands in `live::diff`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::iter;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequestParts as _, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use moka::future::Cache;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::diff::Change;
use super::held::Whole;
use super::hub::{Ask, Live, Seen, lock};
use crate::api::error::ApiError;
use crate::api::read::view;
use crate::api::{CONTRACT, Caller, Gateway};
use crate::i18n::Locale;
use crate::upstream::{Fingerprint, User};

/// Streams of one caller: some windows of a frontend with a dozen lists each.
const OF_ONE: usize = 100;
/// Streams of all callers: what is built for, at some 10 KiB and a body each.
const IN_ALL: usize = 10_000;
/// How many callers are remembered as good ones, and how long: a page of a dozen streams asks the
/// API server once. What may be shown is asked for each evaluation all the same.
const KNOWN: (u64, Duration) = (10_000, Duration::from_secs(600));
/// Evaluations at once for one caller, as many requests as a page sends side by side.
const TURNS: usize = 8;
/// When a reader may come back whose stream has ended for a reason that stays, in milliseconds:
/// browsers do it by themselves.
const LATER: u64 = 30_000;
/// The same at shutdown, from and how much more by chance: not all of them at once.
const ELSEWHERE: (u64, u64) = (1_000, 3_000);
/// Who waits for an event must see that there is a stream before it; a comment is no event.
const COMMENT: &[u8] = b": \n\n";
/// Whoever takes nothing for so long does not read any more; proxies give up as early.
pub const WRITE: Duration = Duration::from_secs(60);
/// A whole answer that others' memory waits for may take so many times as long: 30 MiB at 52 KiB/s.
const SLOWEST: u32 = 10;
/// Bytes given to a connection at once: so much stays there, whoever does not read.
const PIECE: usize = 64 << 10;

/// How many streams there are, and who may have one.
pub struct Places {
    taken: Arc<Mutex<Taken>>,
    known: Cache<Fingerprint, ()>,
}

impl Default for Places {
    fn default() -> Self {
        let known = Cache::builder().max_capacity(KNOWN.0).time_to_live(KNOWN.1);
        Self { taken: Arc::default(), known: known.build() }
    }
}

#[derive(Default)]
struct Taken {
    all: usize,
    each: HashMap<Fingerprint, Person>,
}

struct Person {
    streams: usize,
    turns: Arc<Semaphore>,
}

/// The place of one stream; free again when it is dropped.
pub struct Seat {
    taken: Arc<Mutex<Taken>>,
    who: Fingerprint,
    turns: Arc<Semaphore>,
}

impl Places {
    /// An error unless the API server has taken the caller's credentials some time ago: nobody
    /// else has a place, or anything evaluated, while it is silent.
    pub async fn verified(&self, gateway: &Gateway, user: &User) -> Result<(), ApiError> {
        let verified = view::verified(gateway, user);
        let known = self.known.try_get_with(user.fingerprint(), verified).await;
        known.map_err(|error| error.as_ref().clone())
    }

    /// A place for one more stream of this caller, or 429; 503 when all have too many.
    pub fn seat(&self, user: &User) -> Result<Seat, ApiError> {
        let who = user.fingerprint();
        let mut taken = lock(&self.taken);
        let own = taken.each.get(&who).map_or(0, |person| person.streams);
        if taken.all >= IN_ALL {
            let full = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::with_status(full, "error-live-too-much", &[]));
        }
        if own >= OF_ONE {
            let (busy, most) = (StatusCode::TOO_MANY_REQUESTS, OF_ONE.to_string());
            return Err(ApiError::with_status(busy, "error-too-many-streams", &[("most", &most)]));
        }
        taken.all += 1;
        let turns = || Arc::new(Semaphore::new(TURNS));
        let person = taken.each.entry(who).or_insert_with(|| Person { streams: 0, turns: turns() });
        person.streams += 1;
        let turns = person.turns.clone();
        Ok(Seat { taken: self.taken.clone(), who, turns })
    }

    pub fn taken(&self) -> usize {
        lock(&self.taken).all
    }
}

impl Seat {
    /// What evaluations for this caller wait for.
    pub fn turns(&self) -> Arc<Semaphore> {
        self.turns.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all = taken.all.saturating_sub(1);
        if let Some(person) = taken.each.get_mut(&self.who) {
            person.streams = person.streams.saturating_sub(1);
            if person.streams == 0 {
                taken.each.remove(&self.who);
            }
        }
    }
}

/// One event for one reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// `whole`, `change`, `stale`, `current`, `end` or `error`; after the last two comes nothing.
    pub event: &'static str,
    /// What to resume at.
    pub tag: Option<String>,
    /// JSON on one line.
    pub data: Bytes,
    /// When to come back, in milliseconds.
    pub retry: Option<u64>,
}

impl News {
    fn whole(whole: &Whole) -> Self {
        let tag = Some(whole.tag.clone());
        Self { event: "whole", tag, data: whole.body.clone(), retry: None }
    }

    fn change(whole: &Whole, data: Bytes) -> Self {
        Self { event: "change", tag: Some(whole.tag.clone()), data, retry: None }
    }

    /// `stale`: what was sent may be out of date; `error`: there is no such stream.
    pub fn of_error(event: &'static str, error: &ApiError, locale: Locale) -> Self {
        let words = json!({ "reason": error.text(locale), "status": error.status.as_u16() });
        Self { event, tag: None, data: words.to_string().into(), retry: None }
    }

    fn current() -> Self {
        Self { event: "current", tag: None, data: Bytes::from_static(b"{}"), retry: None }
    }

    /// The last one. The reason is for people, but that of a shutdown, which scripts look for.
    pub fn end(reason: &str, status: u16, retry: u64) -> Self {
        let words = json!({ "reason": reason, "status": status, "retry": retry });
        Self { event: "end", tag: None, data: words.to_string().into(), retry: Some(retry) }
    }

    /// To every reader when this process ends: another may be there for him.
    pub fn shutdown() -> Self {
        let mut byte = [0u8; 1];
        let _ = aws_lc_rs::rand::fill(&mut byte);
        let retry = ELSEWHERE.0 + ELSEWHERE.1 * u64::from(byte[0]) / 255;
        Self::end("shutting down", StatusCode::SERVICE_UNAVAILABLE.as_u16(), retry)
    }

    pub fn is_last(&self) -> bool {
        matches!(self.event, "end" | "error")
    }

    /// As an event stream has it; the body itself is not copied.
    fn frame(self) -> [Bytes; 3] {
        let mut head = String::new();
        if let Some(retry) = self.retry {
            head.push_str(&format!("retry: {retry}\n"));
        }
        if let Some(tag) = &self.tag {
            head.push_str(&format!("id: {tag}\n"));
        }
        head.push_str(&format!("event: {}\ndata: ", self.event));
        [head.into(), self.data, Bytes::from_static(b"\n\n")]
    }
}

/// One reader of an evaluation, who knows what he was sent: changes are told from there.
pub struct Reader {
    seen: watch::Receiver<Seen>,
    sent: Option<Arc<Whole>>,
    stale: bool,
    over: bool,
    locale: Locale,
    ending: CancellationToken,
    _seat: Seat,
}

impl Reader {
    /// Waits for the first answer; `last` is the tag of what the reader has already.
    ///
    /// # Errors
    /// What the plain answer would be; 429 when there are too many streams.
    pub async fn open(live: &Live, ask: Ask, last: Option<&str>) -> Result<Self, ApiError> {
        let streams = &live.gateway.streams;
        let seat = streams.places.seat(&ask.user)?;
        let mut seen = live.join(&ask, &seat);
        let first = async { seen.wait_for(Seen::is_answered).await.ok().map(|seen| seen.clone()) };
        let first = tokio::select! {
            () = streams.ended() => None,
            first = first => first,
        };
        let Some(Seen { whole, trouble, failed, end }) = first else {
            let away = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::with_status(away, "error-shutting-down", &[]));
        };
        let whole = whole.filter(|_| !failed);
        if let (None, Some(error)) = (&whole, end.or(trouble)) {
            return Err(error.as_ref().clone());
        }
        let sent = whole.filter(|whole| Some(whole.tag.as_str()) == last);
        let (locale, ending) = (ask.locale, streams.ending());
        Ok(Self { seen, sent, stale: false, over: false, locale, ending, _seat: seat })
    }

    /// What comes next; `None` after the end. Whoever stops waiting for it loses nothing.
    pub async fn next(&mut self) -> Option<News> {
        if self.over {
            return None;
        }
        loop {
            if let Some(news) = self.news().await {
                self.over = news.is_last();
                return Some(news);
            }
            let goes_on = tokio::select! {
                biased;
                () = self.ending.cancelled() => false,
                changed = self.seen.changed() => changed.is_ok(),
            };
            if !goes_on {
                self.over = true;
                return Some(News::shutdown());
            }
        }
    }

    /// What this reader has not been told yet. Nothing is taken for told before it is returned.
    async fn news(&mut self) -> Option<News> {
        let Seen { whole, trouble, end, .. } = self.seen.borrow_and_update().clone();
        let known = self.sent.as_ref().map(|sent| sent.tag.as_str());
        if let Some(whole) = whole.filter(|whole| known != Some(whole.tag.as_str())) {
            let change = match &self.sent {
                Some(sent) => whole.since(sent).await,
                None => Change::Whole,
            };
            // If his right has ended meanwhile, that is what comes next.
            self.seen.borrow().whole.as_ref()?;
            self.sent = Some(whole.clone());
            match change {
                Change::Nothing => {}
                Change::Members(data) => return Some(News::change(&whole, data)),
                Change::Whole => return Some(News::whole(&whole)),
            }
        }
        if let Some(error) = end {
            return Some(News::end(&error.text(self.locale), error.status.as_u16(), LATER));
        }
        if trouble.is_some() == self.stale {
            return None;
        }
        self.stale = trouble.is_some();
        let stale = trouble.map(|error| News::of_error("stale", &error, self.locale));
        Some(stale.unwrap_or_else(News::current))
    }

    /// All that comes, one after the other as they are taken.
    pub fn into_news(self) -> impl Stream<Item = News> + Send {
        stream::unfold(self, |mut reader| async move {
            let news = reader.next().await?;
            Some((news, reader))
        })
    }
}

/// The event stream of a plain answer's route.
pub async fn live(live: &Live, request: Request) -> Response {
    begin(live, request).await.unwrap_or_else(ApiError::into_response)
}

/// Whether a request is for an event stream. On the way of every read: nothing is copied.
pub fn is_wanted(method: &Method, headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let has = |accept: &HeaderValue| {
        let mut parts = accept.as_bytes().windows(EVENTS.len());
        parts.any(|part| part.eq_ignore_ascii_case(EVENTS))
    };
    method == Method::GET && headers.get_all(header::ACCEPT).iter().any(has)
}

async fn begin(live: &Live, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let Caller(user) = Caller::from_request_parts(&mut parts, &live.gateway).await?;
    let locale = live.gateway.locale_of(&parts.headers);
    let target = parts.uri.path_and_query().and_then(|target| {
        let within = target.as_str().strip_prefix(CONTRACT)?;
        PathAndQuery::try_from(within).ok()
    });
    let Some(target) = target else {
        return Err(ApiError::bad_request("error-bad-path", &[("reason", parts.uri.path())]));
    };
    live.gateway.streams.places.verified(&live.gateway, &user).await?;
    let last = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let reader = Reader::open(live, Ask { user, target, locale }, last).await?;
    let heartbeat = live.gateway.streams.pace.load().heartbeat;
    let mut response = Response::new(Body::from_stream(events(reader, heartbeat, WRITE)));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies such as nginx would hold it back until its end.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// The stream's bytes, made as they are read: what a slow reader leaves is not queued.
fn events(
    reader: Reader,
    heartbeat: Duration,
    write: Duration,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let comment = || [Bytes::from_static(COMMENT), Bytes::new(), Bytes::new()];
    let frames = stream::unfold(reader, move |mut reader| async move {
        let frame = match timeout(heartbeat, reader.next()).await {
            Ok(news) => news?.frame(),
            Err(_) => comment(),
        };
        Some((frame, reader))
    });
    let frames = stream::iter([comment()]).chain(frames);
    paced(frames.flat_map(|frame| stream::iter(pieces(frame))), write).map(Ok)
}

/// The pieces of a body until nothing was taken for `write`: then all that makes them is dropped,
/// whatever becomes of the connection. A task hands them over, since a connection that takes nothing
/// asks for nothing, and a body by itself would wait as long as the connection lives. It costs some
/// 300 bytes (tokio's channel would cost 2 KiB), and one piece for a reader who is behind.
pub fn paced<T: Send + 'static>(
    pieces: impl Stream<Item = T> + Send + 'static,
    write: Duration,
) -> impl Stream<Item = T> + Send {
    let (mut to, taken) = mpsc::channel(0);
    let telling = tokio::spawn(async move {
        let mut pieces = pin!(pieces);
        while let Some(piece) = pieces.next().await {
            // Done when it has been taken, not when it lies there.
            if !matches!(timeout(write, to.send(piece)).await, Ok(Ok(()))) {
                return;
            }
        }
    });
    stream::unfold((taken, AbortOnDropHandle::new(telling)), |(mut taken, telling)| async move {
        let piece = taken.next().await?;
        Some((piece, (taken, telling)))
    })
}

/// A body of these pieces that breaks off when nothing of it was taken for `write`: a good end
/// would look like its own.
pub fn whole<E: Into<BoxError> + Send + 'static>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    write: Duration,
) -> Body {
    // What ends otherwise than with the last one was given up.
    let told = pieces.map(|piece| Some(piece.map_err(Into::into))).chain(stream::iter([None]));
    let told = Some(Box::pin(paced(told, write)));
    Body::from_stream(stream::unfold(told, |told| async move {
        let mut told = told?;
        match told.next().await {
            Some(data) => Some((data?, Some(told))),
            None => Some((Err(BoxError::from("nobody took it")), None)),
        }
    }))
}

/// An answer that keeps `needed`, what bounds the memory for its bytes, until the last of them are
/// taken, or nothing of them was for `write`, or they take `SLOWEST` times as long. Pieces are copies: what lies in a connection holds no
/// more than itself. What is no longer than one of them may lie there as it is.
pub fn held<T: Send + 'static>(answer: Response, needed: T, write: Duration) -> Response {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        if usize::try_from(length).is_ok_and(|length| length <= PIECE) {
            return Response::from_parts(head, body);
        }
        // A stream by itself tells none.
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let end = Instant::now() + write * SLOWEST;
    let begun = Some((body.into_data_stream(), Bytes::new(), needed));
    let pieces = stream::unfold(begun, move |begun| async move {
        let (mut body, mut left, needed) = begun?;
        if Instant::now() >= end {
            return Some((Err(axum::Error::new("it was taken too slowly")), None));
        }
        while left.is_empty() {
            match body.next().await? {
                Ok(data) => left = data,
                Err(error) => return Some((Err(error), None)),
            }
        }
        let piece = left.split_to(left.len().min(PIECE));
        Some((Ok(Bytes::copy_from_slice(&piece)), Some((body, left, needed))))
    });
    Response::from_parts(head, whole(pieces, write))
}

/// Copies of what follows one another, one at a time: a body of which a part lies in a connection
/// must be gone when nobody holds it.
fn pieces(mut parts: [Bytes; 3]) -> impl Iterator<Item = Bytes> + Send {
    iter::from_fn(move || {
        let left: usize = parts.iter().map(Bytes::len).sum();
        let mut piece: Vec<u8> = Vec::with_capacity(left.min(PIECE));
        for part in &mut parts {
            let room = PIECE - piece.len();
            piece.extend_from_slice(&part.split_to(part.len().min(room)));
        }
        (!piece.is_empty()).then(|| piece.into())
    })
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;

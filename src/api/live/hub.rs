//! What live streams share: one evaluation for each caller, address and language, made anew when a
//! feed that its answer came from says that something changed, and now and then without that, since
//! rights end and some kinds nobody watches.
//!
//! An evaluation IS the plain GET, by the same routes, which we ask ourselves on the caller's
//! behalf: a stream shows nothing that a plain answer would not, and there is no second way to a
//! row. It sends nothing; that is the part of `live` and `stream`.
//!
//! Evaluations of different callers are NOT merged, not even where their scopes are equal: what a
//! caller may see is known only once his own rights were asked for, details and live kinds are read
//! with his own credentials, and refusals name him. The costly part of it, keeping and encoding the
//! rows, is shared by all already.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri, header};
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tower::ServiceExt as _;

use super::events::{Places, Seat};
use super::held::{Held, Whole};
use super::pace::Pace;
use crate::api::error::ApiError;
use crate::api::respond::{Denied, Freshness};
use crate::api::standing::Doubt;
use crate::api::{CONTRACT, Caller, Gateway};
use crate::cache::{Feed, State};
use crate::i18n::Locale;
use crate::kinds::{KindDef, by_name};
use crate::upstream::{Fingerprint, User};

/// Largest body that is sent live; a page of a thousand pods has 1.5 MB.
const LARGEST: usize = 8 << 20;
/// Longer than any read of the API server may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What takes long is done rarely: a fifth of the time goes to it, unless the pause were to be longer
/// than `After::latest`: most of a long time is waiting for others, whom a pause does not help.
const REST: u32 = 4;
/// How long nobody looks whether a token is over: clocks are set, and machines sleep.
const CLOCK: Duration = Duration::from_secs(5);

/// All live streams of this process.
#[derive(Default)]
pub struct Streams {
    pub pace: ArcSwap<Pace>,
    pub places: Places,
    entries: Mutex<HashMap<Key, Arc<Entry>>>,
    pub(crate) held: Held,
    ended: CancellationToken,
}

/// Caller, address, language: all that an answer depends on.
type Key = (Fingerprint, PathAndQuery, Locale);

impl Streams {
    /// Streams that are open, and evaluations that they share.
    pub fn counts(&self) -> (usize, usize) {
        (self.places.taken(), lock(&self.entries).len())
    }

    /// Ends all streams, later ones too: each reader is told, and to come back elsewhere.
    pub fn end(&self) {
        self.ended.cancel();
    }

    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }

    /// For those that outlive a borrow of us.
    pub fn ending(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// What the latest evaluation found. Readers see the latest alone: who is slow misses what lay
/// between, and nothing is queued for him.
#[derive(Clone, Default)]
pub struct Seen {
    pub whole: Option<Arc<Whole>>,
    /// Why `whole` may not be current.
    pub trouble: Option<Arc<ApiError>>,
    /// The plain answer is `trouble` itself: `whole` is for those who have seen it alone.
    pub failed: bool,
    /// Nothing more comes, and why.
    pub end: Option<Arc<ApiError>>,
}

impl Seen {
    pub fn is_answered(&self) -> bool {
        self.whole.is_some() || self.trouble.is_some() || self.end.is_some()
    }

    /// Takes over what an evaluation found; whether readers have to know.
    fn take(&mut self, found: Result<Found, Arc<ApiError>>) -> bool {
        match found {
            Ok(Found { whole, trouble, denied, .. }) => {
                let same = self.whole.as_ref().is_some_and(|known| known.tag == whole.tag);
                let news = !same || trouble.is_some() != self.trouble.is_some() || denied.is_some();
                if !same {
                    self.whole = Some(whole);
                }
                (self.trouble, self.failed) = (trouble, false);
                self.end = denied;
                news
            }
            Err(error) if is_final(&error) => {
                // Who has not got it yet does not get it any more.
                *self = Self { end: Some(error), ..Self::default() };
                true
            }
            Err(error) => {
                self.failed = true;
                self.trouble.replace(error).is_none()
            }
        }
    }
}

/// What an evaluation found, but for a denial of an API server that may have begun just now: until
/// there is another word what was shown stays, out of date, and nothing new is shown.
fn doubted(
    found: Result<Found, Arc<ApiError>>,
    doubt: &mut Doubt,
    now: Instant,
) -> Result<Found, Arc<ApiError>> {
    let (is_denied, is_stale) = match &found {
        Ok(found) => (found.denied.is_some(), found.trouble.is_some()),
        Err(error) => (error.status == StatusCode::FORBIDDEN, false),
    };
    // Our own watches are silent.
    doubt.was_away(is_stale.then_some(now));
    if is_denied && doubt.excuses(now) {
        return Err(stale());
    }
    if found.is_ok() && !is_denied && !is_stale {
        doubt.allowed();
    }
    found
}

/// What was shown may not be current.
fn stale() -> Arc<ApiError> {
    Arc::new(ApiError::with_status(StatusCode::SERVICE_UNAVAILABLE, "error-live-stale", &[]))
}

/// Whether asking again would bring nothing else: refused, gone, or never there.
fn is_final(error: &ApiError) -> bool {
    let passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
    error.status.is_client_error() && !passing.contains(&error.status)
}

/// One evaluation's readers, and how they call for another.
#[derive(Default)]
struct Entry {
    seen: watch::Sender<Seen>,
    /// Somebody joined: he may have written just now.
    joined: Notify,
}

/// What a stream shows: a GET of ours, as it would be asked without the stream.
#[derive(Clone)]
pub struct Ask {
    pub user: User,
    /// Below `/api/v1`.
    pub target: PathAndQuery,
    pub locale: Locale,
}

impl Ask {
    fn key(&self) -> Key {
        (self.user.fingerprint(), self.target.clone(), self.locale)
    }

    /// The kind that its path begins with, if that is what it shows.
    fn kind(&self) -> Option<&'static KindDef> {
        let mut segments = self.target.path().trim_start_matches('/').split('/');
        let kind = by_name(segments.next()?)?;
        // Objects of custom kinds are below the kind of their definitions.
        (kind.name != "crd" || segments.count() < 2).then_some(kind)
    }
}

struct Found {
    whole: Arc<Whole>,
    trouble: Option<Arc<ApiError>>,
    denied: Option<Arc<ApiError>>,
    after: After,
}

/// When to evaluate again: not before `soonest`, then when a feed changes, and `latest` without.
#[derive(Default)]
struct After {
    feeds: Vec<Arc<Feed>>,
    soonest: Duration,
    latest: Duration,
}

/// How streams get their answers. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    pub gateway: Arc<Gateway>,
    /// The routes of plain answers, below `/api/v1`.
    reads: Router,
    templates: Arc<HashSet<String>>,
}

impl Live {
    /// `templates`: of the routes of `reads`, as they stand behind [`CONTRACT`].
    pub fn new(gateway: Arc<Gateway>, reads: Router, templates: HashSet<String>) -> Self {
        Self { gateway, reads, templates: Arc::new(templates) }
    }

    /// Whether the route of this template may be live.
    pub fn has(&self, template: &str) -> bool {
        let ours = template.strip_prefix(self.gateway.base_path.as_str()).unwrap_or(template);
        ours.strip_prefix(CONTRACT).is_some_and(|rest| self.templates.contains(rest))
    }

    /// The answers to this from now on; evaluations begin with the first reader and end with the
    /// last. Who joins others is first shown what they see, and then at once what is new.
    pub fn join(&self, ask: &Ask, seat: &Seat) -> watch::Receiver<Seen> {
        let mut entries = lock(&self.gateway.streams.entries);
        if let Some(entry) = entries.get(&ask.key()) {
            entry.joined.notify_one();
            return entry.seen.subscribe();
        }
        let entry = Arc::new(Entry::default());
        let seen = entry.seen.subscribe();
        entries.insert(ask.key(), entry.clone());
        let work = Work { live: self.clone(), ask: ask.clone(), entry, turns: seat.turns() };
        tokio::spawn(work.run());
        seen
    }

    /// Asks our own route. The caller is an extension, which no request from outside can bring:
    /// neither headers nor cookies are needed again, and what they told of writes is heard once.
    /// `known` is what it brought before.
    async fn evaluate(&self, ask: &Ask, known: Option<Arc<Whole>>) -> Result<Found, ApiError> {
        let request = Request::get(Uri::from(ask.target.clone()))
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_LANGUAGE, ask.locale.tag())
            .extension(Caller(ask.user.clone()))
            .body(Body::empty())
            .map_err(|error| ApiError::internal(&error))?;
        let Ok(response) = self.reads.clone().oneshot(request).await;
        self.read(ask, response, known).await
    }

    async fn read(
        &self,
        ask: &Ask,
        response: Response,
        known: Option<Arc<Whole>>,
    ) -> Result<Found, ApiError> {
        let (mut head, body) = response.into_parts();
        if let Some(error) = head.extensions.remove::<Arc<ApiError>>() {
            return Err(error.as_ref().clone());
        }
        if head.status != StatusCode::OK {
            let words = format!("{}: Page Not Found", head.status.as_u16());
            return Err(ApiError::contract(head.status, &words));
        }
        let denied = head.extensions.remove::<Denied>().map(|Denied(error)| error);
        let fresh = head.extensions.remove::<Arc<Freshness>>().unwrap_or_default();
        let (after, trouble) = (self.after(ask, &fresh), fresh.is_stale().then(stale));
        let tag = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        let Some(tag) = tag.map(str::to_owned) else {
            let code = StatusCode::NOT_ACCEPTABLE;
            return Err(ApiError::with_status(code, "error-not-live", &[]));
        };
        // Held once: to find that nothing has changed must not need room for it.
        if let Some(whole) = known.filter(|known| known.tag == tag) {
            return Ok(Found { whole, trouble, denied, after });
        }
        let body = to_bytes(body, LARGEST).await.map_err(|_| {
            let most = (LARGEST >> 20).to_string();
            let args = [("most", most.as_str())];
            ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "error-live-too-large", &args)
        })?;
        let whole = self.gateway.streams.held.hold(&ask.user, tag, on_one_line(body))?;
        Ok(Found { whole, trouble, denied, after })
    }

    /// All feeds that an answer came from are in its freshness.
    fn after(&self, ask: &Ask, fresh: &Freshness) -> After {
        let cache = &self.gateway.cache;
        let own = ask.kind().and_then(|kind| cache.feed(kind));
        let mut feeds: Vec<Arc<Feed>> = own.into_iter().cloned().collect();
        for name in fresh.kinds() {
            let feed = by_name(name).and_then(|kind| cache.feed(kind));
            let known = |feed: &&Arc<Feed>| feeds.iter().any(|known| Arc::ptr_eq(known, feed));
            if let Some(feed) = feed.filter(|feed| !known(feed)) {
                feeds.push(feed.clone());
            }
        }
        let pace = self.gateway.streams.pace.load();
        let kept = |feed: &Arc<Feed>| matches!(feed.state(), State::Current | State::Stale(_));
        let watched = own.is_some_and(kept) && !fresh.has_live_rows();
        let (soonest, latest) = match (fresh.is_cached(), watched) {
            (true, _) => (pace.shared, pace.check),
            (false, true) => (pace.live, pace.reread),
            (false, false) => (pace.live, pace.poll),
        };
        After { feeds, soonest, latest }
    }
}

/// The task behind an entry. However it ends, the entry goes with it.
struct Work {
    live: Live,
    ask: Ask,
    entry: Arc<Entry>,
    turns: Arc<Semaphore>,
}

impl Work {
    async fn run(self) {
        tokio::select! {
            biased;
            () = expiry(&self.ask.user), if !self.ask.user.is_over() => {
                self.forget();
                let over = Err(Arc::new(ApiError::unauthorized()));
                self.entry.seen.send_if_modified(|seen| seen.take(over));
            }
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let (streams, mut doubt) = (&self.live.gateway.streams, Doubt::default());
        loop {
            // Before: what changes while we look is looked at again.
            let counts = self.counts();
            let found = tokio::select! {
                biased;
                () = streams.ended() => return,
                () = self.entry.seen.closed() => {
                    if self.left() { return } else { continue }
                }
                found = self.found(&mut doubt) => found,
            };
            let (Some(after), took) = found else { return };
            tokio::select! {
                biased;
                () = streams.ended() => return,
                () = self.entry.seen.closed() => if self.left() { return },
                () = self.idle(&after, took, &counts) => {}
            }
        }
    }

    /// Evaluates and tells the readers; `None`: it was for the last time.
    async fn found(&self, doubt: &mut Doubt) -> (Option<After>, Duration) {
        let turn = self.turns.acquire().await;
        let begun = Instant::now();
        let known = self.entry.seen.borrow().whole.clone();
        let evaluation = timeout(PATIENCE, self.live.evaluate(&self.ask, known)).await;
        let took = begun.elapsed();
        drop(turn);
        let late = || {
            let code = StatusCode::GATEWAY_TIMEOUT;
            Err(ApiError::with_status(code, "error-upstream-timeout", &[]))
        };
        let found = evaluation.unwrap_or_else(|_| late()).map_err(Arc::new);
        let now = Instant::now();
        doubt.was_away(self.live.gateway.cluster.away());
        let mut found = doubted(found, doubt, now);
        let (over, mut after) = match &mut found {
            Ok(found) => (found.denied.is_some(), std::mem::take(&mut found.after)),
            Err(error) => (is_final(error), self.live.after(&self.ask, &Freshness::default())),
        };
        // What is in doubt is looked at again when the doubt is over.
        after.latest = doubt.left(now).map_or(after.latest, |left| left.min(after.latest));
        if over {
            // First of all, so that nobody joins what has ended.
            self.forget();
        }
        self.entry.seen.send_if_modified(|seen| seen.take(found));
        ((!over).then_some(after), took)
    }

    /// Until it is time to evaluate again.
    async fn idle(&self, after: &After, took: Duration, counts: &[u64]) {
        let now = Instant::now();
        let soonest = after.soonest.max((took * REST).min(after.latest));
        sleep_until(now + soonest).await;
        let changed = after.feeds.iter().map(|feed| {
            let count = counts.get(feed.kind.index()).copied().unwrap_or_default();
            Box::pin(feed.changed_since(count))
        });
        let changed: Vec<_> = changed.collect();
        let changed = async {
            match changed.is_empty() {
                true => std::future::pending().await,
                false => drop(futures::future::select_all(changed).await),
            }
        };
        tokio::select! {
            () = changed => {}
            () = self.entry.joined.notified() => {}
            () = sleep_until(now + soonest.max(earlier(after.latest))) => {}
        }
    }

    /// How often each feed has changed, by the kinds' indices.
    fn counts(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        for feed in self.live.gateway.cache.feeds() {
            let at = feed.kind.index();
            if counts.len() <= at {
                counts.resize(at + 1, 0);
            }
            if let Some(count) = counts.get_mut(at) {
                *count = feed.changes();
            }
        }
        counts
    }

    /// Whether the last reader has gone; then the entry is gone, too. Under the lock that readers
    /// join under, so that none joins what ends.
    fn left(&self) -> bool {
        let mut entries = lock(&self.live.gateway.streams.entries);
        let left = self.entry.seen.receiver_count() == 0;
        if left {
            self.remove(&mut entries);
        }
        left
    }

    fn forget(&self) {
        self.remove(&mut lock(&self.live.gateway.streams.entries));
    }

    /// Removes our own entry, never one that has taken its place.
    fn remove(&self, entries: &mut HashMap<Key, Arc<Entry>>) {
        let key = self.ask.key();
        if entries.get(&key).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            entries.remove(&key);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Returns when the caller's token says of itself that it is over: an API server that is away
/// does not.
pub(crate) async fn expiry(user: &User) {
    let Some(at) = user.expires() else { return std::future::pending().await };
    loop {
        let left = at.saturating_sub(Timestamp::now().as_second());
        if left <= 0 {
            return;
        }
        sleep(Duration::from_secs(left.unsigned_abs()).min(CLOCK)).await;
    }
}

/// JSON without line ends: they can only stand between its parts.
fn on_one_line(body: Bytes) -> Bytes {
    if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return body;
    }
    let blank = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    body.trim_ascii_end().iter().map(blank).collect()
}

/// Up to a quarter earlier: streams that began together must not go on together.
fn earlier(wait: Duration) -> Duration {
    let mut byte = [0u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    wait.mul_f64(1.0 - f64::from(byte[0]) / 1024.0)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;

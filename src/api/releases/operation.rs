//! `/api/v1/operation/{namespace}/{id}`: how far an act of Helm is, as it is now or as it goes on,
//! and the wish to end it. Any replica answers: of its own operations out of memory, of others' out
//! of the release's lock, which it reads as the caller.
//!
//! It begins none; that is `releases::write`'s part.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Extracted};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::api::body;
use crate::api::error::ApiError;
use crate::api::live::events;
use crate::api::logs::follow::Seat;
use crate::api::logs::window::X_ACCEL_BUFFERING;
use crate::api::passthrough::user_name;
use crate::api::standing::UNJUDGED;
use crate::api::target::segment;
use crate::api::{Caller, Gateway, Shared};
use crate::helm::lock::{Place, Seen};
use crate::helm::operation::{Live, Operation, State, read_id};
use crate::helm::record;
use crate::helm::words::Verb;
use crate::i18n::{self, Locale};
use crate::upstream::{Failure, User};

/// Between two looks at an operation that another process runs; it tells news every 5 s.
const POLL: Duration = Duration::from_secs(2);
/// A sign of life on a quiet stream: proxies commonly end one after a minute without a byte.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Who takes nothing for so long does not read any more.
const WRITE: Duration = Duration::from_secs(50);

/// An operation as it was found.
enum Found {
    /// This process runs it, or has lately.
    Here(Arc<Live>),
    There(Box<Operation>),
}

/// `GET /api/v1/operation/{namespace}/{id}`: the operation, or with `Accept: text/event-stream`
/// its `state`s, its `log` (`{"from":n,"lines":[…]}`; `n` counts from its first line) and its `end`.
pub async fn read(
    Extracted(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (namespace, id) = place_of(request.uri().path())?;
    let locale = gateway.locale_of(request.headers());
    let found = found(&gateway, &user, &namespace, &id).await?;
    if !events::is_wanted(request.method(), request.headers()) {
        return Ok(body::answer(StatusCode::OK, &shown(&found.operation(), locale)));
    }
    let seat = gateway.follows.seat(&user)?;
    let next = last_seen(request.headers());
    let reader = Reader {
        told: found.watch(),
        was_over: user.is_over(),
        ends: end_of(&user),
        gateway,
        user,
        locale,
        namespace,
        id,
        found,
        next,
        state: String::new(),
        queue: VecDeque::new(),
        over: false,
        looked: Instant::now(),
        judged: Instant::now(),
        _seat: seat,
    };
    Ok(events(reader))
}

/// `DELETE /api/v1/operation/{namespace}/{id}`: 202 when it is asked to end, 200 when it is over.
/// Whoever may write the release's lock may; whoever began it needs nobody's leave.
pub async fn cancel(
    Extracted(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (namespace, id) = place_of(request.uri().path())?;
    let locale = gateway.locale_of(request.headers());
    let found = found(&gateway, &user, &namespace, &id).await?;
    let mut operation = found.operation();
    if operation.state.is_over() {
        return Ok(body::answer(StatusCode::OK, &shown(&operation, locale)));
    }
    if !matches!(&found, Found::Here(live) if live.is_owner(&user)) {
        let place = lock_of(&namespace, &id)?;
        let asked = place.cancel(&gateway.cluster, &user, &id).await;
        let asked = gateway.authorizer.heed(&user, asked).await?;
        if !asked.is_some_and(|seen| may_be_asked(&seen, &id)) {
            // Nothing was written, and so nobody was asked whether this caller may.
            let now = self::found(&gateway, &user, &namespace, &id).await?.operation();
            if !now.state.is_over() {
                return Err(unknown(&namespace, &id));
            }
            return Ok(body::answer(StatusCode::OK, &shown(&now, locale)));
        }
    }
    match &found {
        Found::Here(live) => {
            live.cancel();
            operation = live.operation();
        }
        Found::There(_) => operation.state = State::Cancelling,
    }
    Ok(body::answer(StatusCode::ACCEPTED, &shown(&operation, locale)))
}

/// Whether a lock is that of this operation, which is not over.
fn may_be_asked(seen: &Seen, id: &str) -> bool {
    !seen.is_over() && seen.operation().id == id
}

/// An operation as JSON, with the sentence that a person needs.
pub fn shown(operation: &Operation, locale: Locale) -> Value {
    let mut operation = operation.clone();
    if let Some(error) = &mut operation.error {
        error.message = i18n::message(locale, &format!("helm-{}", error.class), &[]);
    }
    serde_json::to_value(&operation).unwrap_or_default()
}

/// The namespace and the id at the end of a path.
fn place_of(path: &str) -> Result<(String, String), ApiError> {
    let mut segments = path.rsplit('/');
    let mut next = || segment(segments.next().unwrap_or_default());
    let id = next()?;
    Ok((next()?.into(), id.into()))
}

fn lock_of(namespace: &str, id: &str) -> Result<Place, ApiError> {
    let place = read_id(id).and_then(|(release, _)| Place::of(namespace, release));
    place.ok_or_else(|| unknown(namespace, id))
}

fn unknown(namespace: &str, id: &str) -> ApiError {
    let args = [("id", id), ("namespace", namespace)];
    ApiError::with_status(StatusCode::NOT_FOUND, "error-operation-unknown", &args)
}

/// The operation, if the caller may read the release's lock, which is asked of the API server each
/// time. While that is away, whoever began the operation here is told of it all the same.
async fn found(
    gateway: &Gateway,
    user: &User,
    namespace: &str,
    id: &str,
) -> Result<Found, ApiError> {
    let place = lock_of(namespace, id)?;
    let here = gateway.helm.operations.find(namespace, id);
    let seen = place.look(&gateway.cluster, user).await;
    match (here, gateway.authorizer.heed(user, seen).await) {
        (Some(live), Ok(_)) => {
            if !live.state().is_over() && live.is_unknown(user) {
                let name = user_name(gateway, user).await;
                live.renew(user, &name);
            }
            Ok(Found::Here(live))
        }
        (Some(live), Err(Failure::Upstream(_))) if live.is_owner(user) => Ok(Found::Here(live)),
        (_, Err(failure)) => Err(failure.into()),
        (None, Ok(seen)) => {
            let known = seen.as_ref().and_then(|seen| seen.find(id));
            match known {
                Some(operation) => Ok(Found::There(Box::new(operation))),
                None => gone(gateway, user, (namespace, id), seen.as_ref()).await,
            }
        }
    }
}

/// An operation of which nothing is left. An uninstall that no repeated request shall find takes its
/// lock with it: it is done when there is no such release.
async fn gone(
    gateway: &Gateway,
    user: &User,
    (namespace, id): (&str, &str),
    lock: Option<&Seen>,
) -> Result<Found, ApiError> {
    let uninstalled = read_id(id).filter(|(_, verb)| *verb == Verb::Uninstall && lock.is_none());
    let Some((release, verb)) = uninstalled else { return Err(unknown(namespace, id)) };
    let history = record::history(&gateway.cluster, user, namespace, release).await;
    if !gateway.authorizer.heed(user, history).await?.is_empty() {
        return Err(unknown(namespace, id));
    }
    Ok(Found::There(Box::new(Operation {
        id: id.to_owned(),
        namespace: namespace.to_owned(),
        release: release.to_owned(),
        act: verb.into(),
        state: State::Succeeded,
        ..Operation::default()
    })))
}

impl Found {
    fn operation(&self) -> Operation {
        match self {
            Self::Here(live) => live.operation(),
            Self::There(operation) => Operation::clone(operation),
        }
    }

    fn watch(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Here(live) => Some(live.watch()),
            Self::There(_) => None,
        }
    }
}

/// Where a reader who comes back has been.
fn last_seen(headers: &HeaderMap) -> u64 {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    last.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// When a token ends that has not ended yet.
fn end_of(user: &User) -> Option<Instant> {
    let left = user.expires()?.checked_sub(Timestamp::now().as_second())?;
    Instant::now().checked_add(Duration::from_secs(u64::try_from(left).ok()?))
}

/// Somebody who looks on.
struct Reader {
    gateway: Arc<Gateway>,
    user: User,
    /// His token was over by our clock when he came: then the API server alone decides.
    was_over: bool,
    /// When his token ends, and the stream with it: at once, since a newer one comes with a new
    /// request alone, and an operation of his waits for that no longer than `releases::door` says.
    ends: Option<Instant>,
    locale: Locale,
    namespace: String,
    id: String,
    found: Found,
    told: Option<watch::Receiver<u64>>,
    /// The number of the first line that he has not been told.
    next: u64,
    /// What he was told last.
    state: String,
    queue: VecDeque<Event>,
    over: bool,
    looked: Instant,
    /// When it was last certain that he may look on.
    judged: Instant,
    _seat: Seat,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            // Whoever reads slowly finds news each time, and never waits.
            if self.again() <= Instant::now() {
                self.look().await;
                if self.over {
                    continue;
                }
            }
            if let Some(told) = &mut self.told {
                told.borrow_and_update();
            }
            self.tell();
            if self.queue.is_empty() {
                self.wait().await;
            }
        }
    }

    /// What he has not been told yet.
    fn tell(&mut self) {
        // The state first: what is over has no more lines.
        let (operation, (from, lines)) = match &self.found {
            Found::Here(live) => (live.operation().bare(), live.lines(self.next)),
            Found::There(operation) => (operation.bare(), rest(operation, self.next)),
        };
        let told = shown(&operation, self.locale).to_string();
        if told != self.state {
            self.queue.push_back(Event::default().event("state").data(&told));
        }
        if !lines.is_empty() {
            self.next = from.saturating_add(lines.len() as u64);
            let data = json!({ "from": from, "lines": lines }).to_string();
            let event = Event::default().id(self.next.to_string()).event("log").data(data);
            self.queue.push_back(event);
        }
        if operation.state.is_over() {
            self.over = true;
            self.queue.push_back(Event::default().event("end").data(&told));
        }
        self.state = told;
    }

    /// When to look again.
    fn again(&self) -> Instant {
        let pause = if self.told.is_some() { self.gateway.follows.recheck() } else { POLL };
        let again = self.looked + pause;
        self.ends.map_or(again, |ends| ends.min(again))
    }

    /// Until there may be news, or it is time to look again.
    async fn wait(&mut self) {
        let ending = self.gateway.streams.ending();
        let again = self.again();
        let told = &mut self.told;
        let changed = async {
            match told {
                // The operation itself holds the sender.
                Some(told) => drop(told.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = ending.cancelled() => {
                let away = StatusCode::SERVICE_UNAVAILABLE;
                self.end(&ApiError::with_status(away, "error-shutting-down", &[]));
            }
            () = sleep_until(again) => {}
        }
    }

    /// Looks again at what others run, and at the right to look on.
    async fn look(&mut self) {
        if self.user.is_over() && !self.was_over {
            return self.end(&ApiError::unauthorized());
        }
        self.looked = Instant::now();
        // A clock that was set back meanwhile makes nobody look without a pause.
        self.ends = self.ends.filter(|ends| *ends > self.looked);
        let most = self.gateway.follows.recheck() * UNJUDGED;
        match found(&self.gateway, &self.user, &self.namespace, &self.id).await {
            Ok(found) => {
                self.judged = self.looked;
                self.told = found.watch();
                self.found = found;
            }
            Err(error) if is_passing(error.status, self.judged.elapsed() < most) => {}
            Err(error) => self.end(&error),
        }
    }

    /// The end of the stream, not of the operation.
    fn end(&mut self, error: &ApiError) {
        self.over = true;
        let words = json!({
            "state": null, "status": error.status.as_u16(), "reason": error.text(self.locale),
        });
        self.queue.push_back(Event::default().event("end").data(words.to_string()));
    }
}

/// Whether an error takes no right: an API server that is away takes none, and no lock. One that
/// is there and does not judge takes it in the end, since whoever lost it may bring about a 429.
fn is_passing(status: StatusCode, is_fresh: bool) -> bool {
    status.is_server_error() || (status == StatusCode::TOO_MANY_REQUESTS && is_fresh)
}

/// Lines of an operation elsewhere from this one on.
fn rest(operation: &Operation, next: u64) -> (u64, Vec<String>) {
    let from = next.max(operation.log_dropped);
    let skip = usize::try_from(from - operation.log_dropped).unwrap_or(usize::MAX);
    (from, operation.log.iter().skip(skip).cloned().collect())
}

fn events(reader: Reader) -> Response {
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let alive = KeepAlive::new().interval(HEARTBEAT);
    let response = Sse::new(events).keep_alive(alive).into_response();
    let paced = |body: Body| Body::from_stream(events::paced(body.into_data_stream(), WRITE));
    let mut response = response.map(paced);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold it back until a buffer is full.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helm::operation::Problem;

    #[test]
    fn every_class_of_trouble_has_a_sentence() {
        let others = ["engine", "locked", "test-failed", "pending", "name-taken"];
        for class in crate::helm::classify::classes().chain(others) {
            let id = format!("helm-{class}");
            assert_ne!(i18n::message(Locale::EN, &id, &[]), id);
        }
    }

    #[test]
    fn a_remedy_is_none_that_the_request_may_have_taken_already() {
        // An upgrade that may install ends so, too, where Helm finds no deployed revision.
        let told = i18n::message(Locale::EN, "helm-no-deployed", &[]);
        assert!(!told.contains("allow") && told.contains("install it again"), "{told}");
    }

    #[test]
    fn a_path_ends_in_namespace_and_id() {
        let found = place_of("/api/v1/operation/shop/web.v1.iaaaaaaa").unwrap();
        assert_eq!(found, ("shop".to_owned(), "web.v1.iaaaaaaa".to_owned()));
        let place = Place::of("shop", "web.v1").unwrap();
        assert_eq!(lock_of("shop", "web.v1.iaaaaaaa").unwrap(), place);
        for odd in ["web", "web.iaaa", "../x.iaaaaaaa"] {
            assert_eq!(lock_of("shop", odd).unwrap_err().status, StatusCode::NOT_FOUND, "{odd}");
        }
    }

    #[test]
    fn a_look_that_is_refused_for_load_ends_no_stream_for_a_while_and_a_denial_does_at_once() {
        let passing =
            |code: u16, is_fresh| is_passing(StatusCode::from_u16(code).unwrap(), is_fresh);
        assert!(passing(429, true) && !passing(429, false));
        for away in [500, 502, 503, 504] {
            assert!(passing(away, true) && passing(away, false), "{away}");
        }
        for denied in [401, 403, 404] {
            assert!(!passing(denied, true), "{denied}");
        }
    }

    #[test]
    fn a_stream_ends_with_its_token_where_that_is_known_to_end() {
        let ends = |token: &str| end_of(&User::bearer(token, &HeaderMap::new()).unwrap());
        // {"exp":32503680000}, which is the year 3000, {"exp":1} and the last number that there is.
        assert!(ends("e30.eyJleHAiOjMyNTAzNjgwMDAwfQ.x").is_some_and(|at| at > Instant::now()));
        for token in ["opaque", "e30.eyJleHAiOjF9.x"] {
            assert_eq!(ends(token), None, "{token}");
        }
        assert!(
            ends("e30.eyJleHAiOjkyMjMzNzIwMzY4NTQ3NzU4MDd9.x").is_none_or(|at| at > Instant::now())
        );
    }

    #[test]
    fn lines_of_another_process_are_told_once_and_gaps_are_seen() {
        let log = vec!["c".to_owned(), "d".to_owned()];
        let operation = Operation { log, log_dropped: 2, ..Operation::default() };
        assert_eq!(rest(&operation, 0), (2, vec!["c".to_owned(), "d".to_owned()]));
        assert_eq!(rest(&operation, 3), (3, vec!["d".to_owned()]));
        assert_eq!(rest(&operation, 4), (4, vec![]));
        assert_eq!(rest(&operation, u64::MAX).1, Vec::<String>::new());
    }

    #[test]
    fn an_error_is_told_in_the_readers_language_and_in_the_engines_words() {
        let (class, detail) = ("timeout".into(), "deadline".into());
        let error = Problem { class, detail, ..Problem::default() };
        let operation = Operation { error: Some(error), ..Operation::default() };
        let value = shown(&operation, Locale::EN);
        assert_eq!(value["error"]["detail"], "deadline");
        assert_ne!(value["error"]["message"], "");
        assert_eq!(value["state"], "queued");
    }
}

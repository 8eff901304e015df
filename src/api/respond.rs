//! How an answer leaves: headers that say where it came from and how fresh it is, ETags and 304,
//! the caller's language for errors, request ids, and the count of it all.
//!
//! No handler writes these headers itself.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ahash::RandomState;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use compact_str::CompactString;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::Gateway;
use super::caller::Asked;
use super::error::{ApiError, Told};
use super::front::PASSTHROUGH;
use super::written::{self, Wrote};
use crate::api::live::events;
use crate::api::live::hub::Live;
use crate::api::read::kept::Baked;
use crate::api::read::view::View;
use crate::i18n::{self, Locale};
use crate::upstream::{Fingerprint, User};

/// `cache`, `live`, or both when views differ.
const SOURCE: HeaderName = HeaderName::from_static("binnacle-source");
/// Age of the oldest rows in seconds, with three decimals.
const AGE: HeaderName = HeaderName::from_static("binnacle-age");
/// The age of each merged source: `pod;age=0.000, event;live`.
const SOURCES: HeaderName = HeaderName::from_static("binnacle-sources");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// All that an answer may depend on besides its address.
const VARY: &str = "Authorization, Cookie, Accept, Accept-Language, Accept-Encoding, Impersonate-User, Impersonate-Group, Impersonate-Uid";
/// Longest request id of a client's that we repeat.
const REQUEST_ID_LIMIT: usize = 64;
/// Entries of an answer's header map: those of [`head`], warnings, and what is added around it.
const HEADERS: usize = 12;
/// Longest body that leaves without room of its own: a page of some 600 pods.
pub(super) const SHORT: usize = 1 << 20;

/// What is random for each process: the key of the ETags, since an ETag must tell nothing of its
/// content, and the numbers that request ids are made of.
pub struct Tags {
    key: RandomState,
    next: AtomicU64,
}

impl Default for Tags {
    fn default() -> Self {
        let mut seed = [0u8; 8];
        let _ = aws_lc_rs::rand::fill(&mut seed);
        Self { key: RandomState::new(), next: AtomicU64::new(u64::from_be_bytes(seed)) }
    }
}

impl Tags {
    pub(super) fn of(&self, body: &[u8]) -> CompactString {
        let mut hasher = self.key.build_hasher();
        hasher.write(body);
        compact_str::format_compact!("\"{:016x}{:x}\"", hasher.finish(), body.len())
    }

    /// Unique within the process, and without a visible order.
    fn request_id(&self) -> HeaderValue {
        let text = format!("{:016x}", self.key.hash_one(self.next.fetch_add(1, Ordering::Relaxed)));
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// Where an answer's rows came from; in its extensions, too, for those who ask on our side.
#[derive(Debug, Clone, Default)]
pub struct Freshness {
    cached: bool,
    live: bool,
    age: Duration,
    /// Every merged source by its kind's name, and how old its rows are; `None`: it was read live.
    sources: Vec<(&'static str, Option<Duration>)>,
}

impl Freshness {
    pub fn of<'a>(views: impl Iterator<Item = &'a View>) -> Self {
        let mut all = Self::default();
        for view in views {
            all.cached |= view.is_shared();
            all.live |= !view.is_shared();
            all.age = all.age.max(view.age);
            all.sources.push((view.scope.kind().name, view.is_shared().then_some(view.age)));
        }
        all
    }

    /// The answer also holds what was read just now as the caller.
    pub fn with_live(mut self) -> Self {
        self.live = true;
        self
    }

    /// Whether all of it came from the shared cache.
    pub(super) fn is_cached(&self) -> bool {
        self.cached && !self.live
    }

    /// Whether rows of one of its sources were read live.
    pub(super) fn has_live_rows(&self) -> bool {
        self.sources.iter().any(|(_, age)| age.is_none())
    }

    pub(super) fn is_stale(&self) -> bool {
        !self.age.is_zero()
    }

    /// The names of all kinds that were merged.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.sources.iter().map(|(name, _)| *name)
    }

    fn source(&self) -> &'static str {
        match (self.cached, self.live) {
            (true, true) => "cache, live",
            (true, false) => "cache",
            _ => "live",
        }
    }

    /// All sources, as the header has them.
    fn listed(&self) -> String {
        let mut text = String::new();
        for (name, age) in &self.sources {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(name);
            match age {
                None => text.push_str(";live"),
                Some(age) if age.is_zero() => text.push_str(";age=0.000"),
                Some(age) => {
                    let _ = write!(text, ";age={:.3}", age.as_secs_f64());
                }
            }
        }
        text
    }
}

/// In an answer's extensions: the list is empty because the API server denies it to the caller.
#[derive(Clone)]
pub struct Denied(pub Arc<ApiError>);

/// In an answer's extensions: it is longer than [`SHORT`], and whose it is.
#[derive(Clone)]
struct Long(Fingerprint);

/// A JSON answer before it has headers.
pub struct Reply {
    body: Bytes,
    /// The headers, the body's ETag among them, where they are known already.
    made: Option<HeaderMap>,
    freshness: Arc<Freshness>,
    warnings: Vec<String>,
    /// May hold secrets: no cache keeps it, the browser's on disk neither.
    secret: bool,
    denied: Option<ApiError>,
}

impl Reply {
    pub fn json(body: impl Into<Bytes>, freshness: Freshness) -> Self {
        Self::of(body.into(), None, Arc::new(freshness))
    }

    fn of(body: Bytes, made: Option<HeaderMap>, freshness: Arc<Freshness>) -> Self {
        Self { body, made, freshness, warnings: Vec::new(), secret: false, denied: None }
    }

    /// A body that may serve others, too.
    pub fn baked(baked: &Baked) -> Self {
        Self::of(baked.body.clone(), Some(baked.head.clone()), baked.freshness.clone())
    }

    /// Why there is nothing in it, for those who would wait for more.
    pub fn denied(mut self, error: Option<ApiError>) -> Self {
        self.denied = error;
        self
    }

    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Adds what of the query was ignored, as `Warning` headers (RFC 9111 still names 299).
    pub fn warned(mut self, warnings: &[(&'static str, CompactString)]) -> Self {
        let text = |(id, value): &(&'static str, CompactString)| {
            let value: String = value.chars().take(80).collect();
            i18n::message(Locale::EN, id, &[("key", &value)])
        };
        self.warnings.extend(warnings.iter().map(text));
        self
    }

    pub fn respond(self, gateway: &Gateway, request: &HeaderMap) -> Response {
        let mut headers = self.made.unwrap_or_else(|| {
            let tag = gateway.tags.of(&self.body);
            head(&self.freshness, &tag, self.secret)
        });
        let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let known = request.get_all(header::IF_NONE_MATCH).iter();
        let known = known.filter_map(|value| value.to_str().ok());
        let same = known.flat_map(|list| list.split(',')).any(|one| {
            let one = one.trim();
            one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
        });
        let long = (!same && self.body.len() > SHORT).then(|| Long(asker(gateway, request)));
        let mut response = if same {
            headers.remove(header::CONTENT_TYPE);
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Response::new(Body::from(self.body))
        };
        response.extensions_mut().insert(self.freshness);
        if let Some(long) = long {
            response.extensions_mut().insert(long);
        }
        if let Some(error) = self.denied {
            response.extensions_mut().insert(Denied(Arc::new(error)));
        }
        for warning in self.warnings {
            let text: String =
                warning.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
            let text = format!("299 binnacle \"{}\"", text.replace(['"', '\\'], "'"));
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.append(header::WARNING, value);
            }
        }
        *response.headers_mut() = headers;
        response
    }
}

/// What an answer says of itself.
fn head(freshness: &Freshness, tag: &str, secret: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let caching = if secret { "no-store" } else { "private, no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::VARY, HeaderValue::from_static(VARY));
    headers.insert(SOURCE, HeaderValue::from_static(freshness.source()));
    if freshness.age.is_zero() {
        headers.insert(AGE, HeaderValue::from_static("0.000"));
    } else {
        let age = format!("{:.3}", freshness.age.as_secs_f64());
        headers.extend(HeaderValue::try_from(age).ok().map(|age| (AGE, age)));
        let stale = HeaderValue::from_static("110 binnacle \"Response is Stale\"");
        headers.append(header::WARNING, stale);
    }
    headers.extend(HeaderValue::from_str(tag).ok().map(|tag| (header::ETAG, tag)));
    let sources = Some(freshness.listed()).filter(|sources| !sources.is_empty());
    let sources = sources.and_then(|sources| HeaderValue::try_from(sources).ok());
    headers.extend(sources.map(|sources| (SOURCES, sources)));
    headers
}

impl Baked {
    /// Of what holds no secrets. Only what is current may be kept: there is a recipe for nothing else.
    pub fn of(gateway: &Gateway, body: Bytes, freshness: Freshness) -> Self {
        let head = head(&freshness, &gateway.tags.of(&body), false);
        Self { body, head, freshness: Arc::new(freshness) }
    }
}

impl Gateway {
    /// The caller's language.
    pub fn locale_of(&self, headers: &HeaderMap) -> Locale {
        self.locale_in(headers.get(header::ACCEPT_LANGUAGE))
    }

    fn locale_in(&self, wanted: Option<&HeaderValue>) -> Locale {
        i18n::negotiate(wanted.and_then(|value| value.to_str().ok()), self.locale)
    }
}

/// Who has sent these headers, which have let him in already: who brings no token is the one person
/// of this machine.
fn asker(gateway: &Gateway, headers: &HeaderMap) -> Fingerprint {
    let (method, uri) = (Method::GET, Uri::default());
    let asked = Asked { method: &method, uri: &uri, headers, peer: None };
    let user = gateway.callers.user(&asked);
    user.unwrap_or_else(|_| User::kubeconfig(headers)).fingerprint()
}

/// Around every request: its id, its error in the caller's language, its line in the metrics, and
/// room for a long answer until it is taken; live answers, which ask behind this, have their own.
/// Whoever accepts an event stream where an answer may be live gets one.
pub async fn observe(State(live): State<Arc<Live>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let is_live = events::is_wanted(request.method(), request.headers()) && live.has(route);
    let answer = |request| async {
        match is_live {
            // Boxed: plain reads must not carry this large future about.
            true => Box::pin(events::live(&live, request)).await,
            false => next.run(request).await,
        }
    };
    observed(&live.gateway, route, request, answer).await
}

/// The same around whatever answers, under the name of its route.
pub async fn observed<A: Future<Output = Response>>(
    gateway: &Gateway,
    route: &str,
    request: Request,
    answer: impl FnOnce(Request) -> A,
) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let language = request.headers().get(header::ACCEPT_LANGUAGE).cloned();
    let known = known_id(request.headers());
    // Kept for writes alone: an answer may add to what the client already carries.
    let carried = (!method.is_safe()).then(|| request.headers().clone());
    let mut response = answer(request).await;
    if let Some(Long(who)) = response.extensions_mut().remove::<Long>() {
        response = gateway.answers.hold(who, response);
    }
    if let (Some(wrote), Some(headers)) =
        (response.extensions_mut().remove::<Vec<Wrote>>(), carried)
        && let Some(all) = written::carry(&wrote, &headers, &gateway.base_path)
    {
        response.headers_mut().extend(all);
    }
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    let other = response.extensions_mut().remove::<Told>();
    // The passthrough adds nothing to what the API server says, which has its own Audit-Id.
    if route != PASSTHROUGH || error.is_some() || other.is_some() {
        let id = known.unwrap_or_else(|| gateway.tags.request_id());
        if let Some(Told(error)) = other {
            told(&error, &id);
        }
        if let Some(error) = error {
            told(&error, &id);
            let locale = gateway.locale_in(language.as_ref());
            if locale != Locale::EN {
                response = error.as_ref().clone().into_text_response(locale);
            }
        }
        response.headers_mut().entry(REQUEST_ID).or_insert(id);
    }
    let status = response.status().as_u16();
    gateway.metrics.request(route, method.as_str(), status, begun.elapsed());
    response
}

/// At a port of its own, whose answers are the API server's: an error of ours has its id and its
/// line in the log, and all else stays as it is.
pub(super) async fn noted<A: Future<Output = Result<Response, ApiError>>>(
    gateway: &Gateway,
    request: Request,
    answer: impl FnOnce(Request) -> A,
) -> Response {
    let known = known_id(request.headers());
    let mut response = answer(request).await.unwrap_or_else(ApiError::into_status_response);
    if let Some(Told(error)) = response.extensions_mut().remove::<Told>() {
        let id = known.unwrap_or_else(|| gateway.tags.request_id());
        told(&error, &id);
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The log's line of an error. What was not the caller's fault is there at the usual level: by the id
/// that a person reports, an operator finds it.
fn told(error: &ApiError, id: &HeaderValue) {
    let request = id.to_str().unwrap_or_default();
    let (status, fault) = (error.status.as_u16(), error.fault);
    // One line, whatever somebody else's words are.
    let words = error.text(Locale::EN).replace(['\n', '\r'], " ");
    if error.status.is_server_error() {
        tracing::info!(request, status, ?fault, %words, "failed");
    } else {
        tracing::debug!(request, status, ?fault, %words, "refused");
    }
}

/// The client's own request id where it is sane.
fn known_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= REQUEST_ID_LIMIT
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    headers.get(REQUEST_ID).filter(sane).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(freshness: &Freshness) -> [String; 3] {
        let head = head(freshness, "\"a\"", false);
        let text = |name| head.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        [SOURCE, SOURCES, AGE].map(text)
    }

    #[test]
    fn headers_and_those_who_ask_on_our_side_are_told_the_same() {
        let age = Duration::from_millis(1_500);
        let mut freshness = Freshness::default();
        assert_eq!(said(&freshness), ["live", "", "0.000"]);
        assert!(!freshness.is_cached() && !freshness.is_stale() && !freshness.has_live_rows());

        freshness.cached = true;
        freshness.sources = vec![("pod", Some(Duration::ZERO)), ("replicaset", Some(age))];
        freshness.age = age;
        assert_eq!(said(&freshness), ["cache", "pod;age=0.000, replicaset;age=1.500", "1.500"]);
        assert!(freshness.is_cached() && freshness.is_stale() && !freshness.has_live_rows());
        assert_eq!(freshness.kinds().collect::<Vec<_>>(), ["pod", "replicaset"]);

        // What was read beside the rows is no source of them.
        let freshness = freshness.with_live();
        assert_eq!(said(&freshness)[0], "cache, live");
        assert!(!freshness.is_cached() && !freshness.has_live_rows());

        let sources = vec![("pod", Some(Duration::ZERO)), ("event", None)];
        let freshness = Freshness { cached: true, live: true, sources, age: Duration::ZERO };
        assert_eq!(said(&freshness), ["cache, live", "pod;age=0.000, event;live", "0.000"]);
        assert!(freshness.has_live_rows() && !freshness.is_stale());
    }
}

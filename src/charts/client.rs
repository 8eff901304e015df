//! HTTP with the servers of one repository: checked addresses, checked redirects, credentials for
//! one host alone, and limits on everything that comes back.
//!
//! It knows nothing of charts, indexes or registries, it keeps no cookies and asks no proxy: one
//! would connect to addresses that nobody has checked.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as Sent;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

pub use super::body::{Body, Reader};

use super::address::{Connector, Policy, Refused};
use super::tls;

/// Redirects that are followed: to another name, to a mirror, to where its files are, and spare.
const REDIRECTS: usize = 5;
/// The longest address: signed ones of object stores have about 2 KiB.
const ADDRESS: usize = 8 << 10;
/// Connections to a host that wait for the next request of a refresh.
const IDLE_CONNECTIONS: usize = 2;
/// A refresh asks again within this, or not for minutes.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Letters of an address in a message.
const SHOWN: usize = 200;

type Http = legacy::Client<HttpsConnector<Connector>, Sent>;

/// What a repository's owner has given to reach it. All of it serves `host` alone, but for the
/// authorities: servers beside it that it leads to are trusted by them too.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Option<String>,
    /// For `Authorization: Bearer`; it goes before name and password.
    pub token: Option<String>,
    /// A client certificate with its chain and its key, each PEM.
    pub client: Option<(String, String)>,
    /// Authorities that are trusted besides the system's, PEM.
    pub ca: Option<String>,
    /// `host:port` that they are for, as `authority` writes it.
    pub host: String,
}

/// Only whose they are: values stand in no log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("host", &self.host).finish_non_exhaustive()
    }
}

/// How long, how much and how slowly an answer may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To the head of an answer, with the connection and its TLS, for each redirect anew. A request
    /// with a body has `total` instead.
    pub head: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// For everything.
    pub total: Duration,
    /// Of a body, as it came and unpacked.
    pub bytes: u64,
    /// Bytes a second that a body has to have on average after its first 10 s of waiting.
    pub least_rate: u64,
}

/// Credentials that cannot be used. No value is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadClient {
    #[error("the CA of the repository cannot be read: {0}")]
    Ca(String),
    #[error("the client certificate of the repository cannot be used: {0}")]
    Certificate(String),
    #[error("the client key of the repository is no readable PEM private key")]
    Key,
    #[error("the client key of the repository does not belong to its client certificate")]
    Pair,
    #[error("the token of the repository has letters that cannot stand in a header")]
    Token,
    #[error("the user name of the repository has a colon, which separates it from the password")]
    Username,
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Why there is no answer, or no whole one. The first field says of whom: `host[:port]`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} cannot be fetched: {1}")]
    Address(String, &'static str),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, String),
    #[error("TLS with {0} fails: {1}")]
    Tls(String, String),
    #[error("{0} is too slow: {1}")]
    TooSlow(String, String),
    #[error("{0} sends more than the {1} bytes that are taken")]
    TooLarge(String, u64),
    #[error("{0} redirects {1}")]
    Redirect(String, String),
    #[error("the answer of {0} cannot be used: {1}")]
    Broken(String, String),
    #[error("{place} answered {status}{hint}", place = .0, status = .1, hint = hint(.1))]
    Status(String, StatusCode),
}

impl FetchError {
    /// Whether the same request may succeed later, with nothing changed by us.
    pub fn retriable(&self) -> bool {
        match self {
            Self::Unreachable(..) | Self::TooSlow(..) | Self::Broken(..) => true,
            Self::Status(_, status) => {
                let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                status.is_server_error() || later.contains(status)
            }
            Self::Address(..)
            | Self::Refused(_)
            | Self::Tls(..)
            | Self::TooLarge(..)
            | Self::Redirect(..) => false,
        }
    }
}

fn hint(status: &StatusCode) -> &'static str {
    match *status {
        StatusCode::UNAUTHORIZED => ": it wants credentials, or others than the repository has",
        StatusCode::FORBIDDEN => ": the repository's credentials do not allow it",
        StatusCode::TOO_MANY_REQUESTS => ": it was asked too often",
        _ => "",
    }
}

/// An answer, whatever its status; redirects have been followed.
#[derive(Debug)]
pub struct Fetched {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    place: String,
}

impl Fetched {
    /// # Errors
    /// [`FetchError::Status`] unless the status is 2xx.
    pub fn success(self) -> Result<Self, FetchError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(FetchError::Status(self.place, self.status))
    }

    /// The whole body, at most [`Limits::bytes`].
    pub async fn bytes(self) -> Result<Bytes, FetchError> {
        self.body.bytes().await
    }

    /// The body for code that blocks (`spawn_blocking`), and what fetches it: code that blocks
    /// cannot be stopped, so whoever waits for it holds this, and it fails when nobody does. To be
    /// called within the runtime.
    pub fn reader(self) -> (Reader, AbortOnDropHandle<()>) {
        self.body.reader()
    }
}

/// For one repository. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// It alone shows the client certificate.
    home: Http,
    others: Http,
    policy: Policy,
    /// Whom the credentials are for; empty without any.
    host: String,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// # Errors
    /// Credentials that cannot be used; without any it fails only where there is no TLS at all, or
    /// where the system's certificates cannot be read just now.
    pub fn new(policy: &Policy, credentials: Option<Credentials>) -> Result<Self, BadClient> {
        let Credentials { username, password, token, client, ca, host } =
            credentials.unwrap_or_default();
        let authorization = authorization(username, password, token)?;
        let others = connections(policy, tls::config(ca.as_deref(), None)?);
        let home = match &client {
            Some(_) => connections(policy, tls::config(ca.as_deref(), client.as_ref())?),
            None => others.clone(),
        };
        let (policy, host) = (policy.clone(), host.to_ascii_lowercase());
        Ok(Self(Arc::new(Inner { home, others, policy, host, authorization })))
    }

    /// The answer to a GET, see [`Client::send`].
    pub async fn get(
        &self,
        url: &Url,
        headers: &HeaderMap,
        limits: &Limits,
    ) -> Result<Fetched, FetchError> {
        self.send(Method::GET, url, headers, Sent::empty(), limits).await
    }

    /// The answer to this request. Redirects of GET and HEAD are followed; another host then sees
    /// none of `headers` but those that ask for a form. The credentials go along to their own
    /// host alone, unless `headers` have an `Authorization` already.
    ///
    /// A body that is gzip on its way is unpacked, unless `headers` ask for another
    /// `Accept-Encoding` or the address is that of an archive (`….tgz`, `/blobs/…`): what servers
    /// then call its encoding is mostly the archive itself.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &HeaderMap,
        body: impl Into<Sent>,
        limits: &Limits,
    ) -> Result<Fetched, FetchError> {
        let begun = Instant::now();
        let (mut at, mut hops) = (checked(url.clone())?, 0);
        let (mut headers, mut body): (_, Sent) = (headers.clone(), body.into());
        let is_archive = at.path().ends_with(".tgz") || at.path().contains("/blobs/");
        let form = if is_archive { "identity" } else { "gzip" };
        let form = headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static(form));
        let is_unpacked = form.to_str().is_ok_and(|form| form.contains("gzip"));
        loop {
            let left = limits.total.saturating_sub(begun.elapsed());
            // How long a body takes on its way out is not the server's doing alone.
            let is_bare = body.size_hint().exact() == Some(0);
            let patience = if is_bare { limits.head.min(left) } else { left };
            self.0.policy.crosses(&at)?;
            let is_first = at.origin() == url.origin();
            let request = self.request(&method, &at, &headers, is_first, body)?;
            let answer = self.answer(&at, request, patience).await?;
            if !is_redirect(answer.status()) {
                return fetched(&at, answer, limits, begun, is_unpacked);
            }
            let to = redirected(&at, answer.headers())?;
            if method != Method::GET && method != Method::HEAD {
                let why = "; what is sent goes nowhere else than where it was addressed to";
                return Err(FetchError::Redirect(place(&at), format!("to {}{why}", shown(&to))));
            }
            hops += 1;
            if hops > REDIRECTS {
                let why = format!("more than {REDIRECTS} times, at last to {}", shown(&to));
                return Err(FetchError::Redirect(place(url), why));
            }
            (at, body) = (to, Sent::empty());
        }
    }

    fn request(
        &self,
        method: &Method,
        at: &Url,
        headers: &HeaderMap,
        is_first: bool,
        body: Sent,
    ) -> Result<Request<Sent>, FetchError> {
        let is_empty = body.size_hint().exact() == Some(0);
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() = at.as_str().parse::<Uri>().map_err(|_| {
            FetchError::Address(shown(at), "it has letters that cannot stand in an address")
        })?;
        let sent = request.headers_mut();
        for (name, value) in headers {
            // Anything else may be a secret that is meant for the first host.
            let is_harmless = matches!(
                name.as_str(),
                "accept" | "accept-encoding" | "if-modified-since" | "if-none-match" | "range"
            );
            if is_first || is_harmless {
                sent.append(name.clone(), value.clone());
            }
        }
        sent.entry(header::USER_AGENT).or_insert(HeaderValue::from_static("binnacle"));
        // Without it some registries answer 411; hyper writes none where there is no body.
        if is_empty && (method == Method::POST || method == Method::PUT) {
            sent.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(authorization) = self.0.authorization.as_ref().filter(|_| self.is_home(at)) {
            sent.entry(header::AUTHORIZATION).or_insert_with(|| authorization.clone());
        }
        Ok(request)
    }

    async fn answer(
        &self,
        at: &Url,
        request: Request<Sent>,
        patience: Duration,
    ) -> Result<Response<Incoming>, FetchError> {
        let http = if self.is_home(at) { &self.0.home } else { &self.0.others };
        match timeout(patience, http.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(at, &error)),
            Err(_) => {
                let why = format!("it gave no answer within {patience:?}");
                Err(FetchError::TooSlow(place(at), why))
            }
        }
    }

    /// Whether the credentials are for this address: host, port, and TLS, but where the
    /// configuration says that this very host has none.
    fn is_home(&self, at: &Url) -> bool {
        let Inner { host, policy, .. } = &*self.0;
        let is_host = *host == authority(at) || (at.port().is_none() && *host == place(at));
        let name = at.host_str().unwrap_or_default();
        let is_safe =
            at.scheme() == "https" || policy.scheme(name, at.port_or_known_default()) == "http";
        !host.is_empty() && is_host && is_safe
    }
}

/// `host:port` of an address, with the port that its scheme implies; what credentials are for.
pub(super) fn authority(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
    format!("{host}:{}", port.unwrap_or_default())
}

/// For messages: `host[:port]`.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// For messages: an address without what may be secret in it.
fn shown(url: &Url) -> String {
    let text = format!("{}://{}{}", url.scheme(), place(url), url.path());
    text.chars().take(SHOWN).collect()
}

fn connections(policy: &Policy, tls: Arc<ClientConfig>) -> Http {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .build(HttpsConnector::from((Connector(policy.clone()), tls)))
}

fn authorization(
    username: Option<String>,
    password: Option<String>,
    token: Option<String>,
) -> Result<Option<HeaderValue>, BadClient> {
    let text = match (token, username, password) {
        (Some(token), ..) => format!("Bearer {token}"),
        (None, None, None) => return Ok(None),
        (None, username, password) => {
            let username = username.unwrap_or_default();
            // RFC 7617, 2.
            if username.contains(':') {
                return Err(BadClient::Username);
            }
            let both = format!("{username}:{}", password.unwrap_or_default());
            format!("Basic {}", STANDARD.encode(both))
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| BadClient::Token)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn checked(url: Url) -> Result<Url, FetchError> {
    let bad = |why| Err(FetchError::Address(shown(&url), why));
    if !matches!(url.scheme(), "http" | "https") {
        return bad("only https is spoken, and http where the configuration allows it");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("credentials stand beside a repository's address, never in one");
    }
    if url.as_str().len() > ADDRESS {
        return bad("it is too long");
    }
    Ok(url)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let to = to.and_then(|to| from.join(to).ok());
    let to = to.ok_or_else(|| FetchError::Redirect(place(from), "to no address".into()))?;
    checked(to).map_err(|error| FetchError::Redirect(place(from), format!("to nowhere: {error}")))
}

fn fetched(
    at: &Url,
    answer: Response<Incoming>,
    limits: &Limits,
    begun: Instant,
    is_unpacked: bool,
) -> Result<Fetched, FetchError> {
    let (head, wire) = answer.into_parts();
    let place = place(at);
    let encoding = head.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    let is_gzip = match encoding.unwrap_or_default().to_ascii_lowercase().as_slice() {
        _ if !is_unpacked => false,
        b"" | b"identity" => false,
        b"gzip" | b"x-gzip" => true,
        other => {
            let other: String = String::from_utf8_lossy(other).chars().take(SHOWN).collect();
            let why = format!("it is packed as {other:?}, which was not asked for");
            return Err(FetchError::Broken(place, why));
        }
    };
    let body = Body::new(wire, place.clone(), *limits, begun, is_gzip);
    Ok(Fetched { status: head.status, headers: head.headers, body, place })
}

/// A failed request. What matters is deep among its causes, and io errors hide theirs.
fn failed(at: &Url, error: &(dyn StdError + 'static)) -> FetchError {
    let (mut text, mut next) = (String::new(), Some(error));
    while let Some(cause) = next {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused.clone().into();
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return FetchError::Tls(place(at), tls::explained(error));
        }
        // The last cause says most: those before it are the names of hyper's layers.
        text = cause.to_string();
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => cause.source(),
        };
    }
    FetchError::Unreachable(place(at), text)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

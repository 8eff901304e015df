//! The only door to the API server: every request leaves here, as a user or as ourselves.
//!
//! Two connectors: the one for bearers never carries a client certificate (the API server would
//! try x509 before the token), the other has the kubeconfig's or service account's credentials.
//! It decides nothing about rights and keeps nothing of what it carries.

pub mod channel;
mod dial;
mod discovery;
mod error;
mod identity;
mod items;
mod link;
mod outage;
mod own;
mod path;
mod plugin;
mod pool;
mod proxy;
mod tunnel;
mod turns;

pub use discovery::{Discovery, Served};
pub use error::{Failure, UpstreamError};
pub use identity::{Fingerprint, Identity, User, is_identity, is_impersonation};
pub use path::{BadPath, RequestInfo, classify};
pub use pool::Answer;
pub use proxy::pass;
pub use tunnel::{Tunnels, subprotocol_token, wanted_upgrade};
pub use turns::Turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use kube::client::ConfigExt as _;

use dial::{Dial, InTime};
use identity::Credentials;
use items::Items;
use outage::Outage;
use own::Own;
use pool::Pool;

/// A connection attempt that takes longer will not become a good one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// With all that comes after TCP: Go's transport gives TLS 10 s.
const CONNECTING: Duration = Duration::from_secs(15);
/// How long an answer's head may take where we, not the user's client, are waiting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The API server limits an object to about 1.5 MiB in etcd; reviews and single objects fit well.
pub const OBJECT_LIMIT: usize = 8 << 20;

/// One Kubernetes cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    name: String,
    scheme: Scheme,
    authority: Authority,
    /// The same as `Host` has it: without a scheme's own port.
    host: HeaderValue,
    /// Path that the kubeconfig puts before the API's own, without a trailing slash.
    prefix: String,
    bearer: Pool,
    own: Arc<Own>,
    outage: Outage,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Cluster {
    /// A cluster as a kubeconfig or a pod's environment describes it. Nothing is sent yet, but a
    /// plugin for credentials runs.
    pub fn new(name: &str, config: kube::Config) -> Result<Self, UpstreamError> {
        let (scheme, authority, prefix) = address(&config)?;
        let mut anonymous = config.clone();
        anonymous.auth_info = Default::default();
        let bearer = pool(&anonymous, CONNECTING)?;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            host: host(&scheme, &authority)?,
            scheme,
            authority,
            prefix,
            bearer,
            own: Arc::new(Own::new(config)?),
            outage: Outage::default(),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// For messages and logs: `https://host:port/prefix`.
    pub fn address(&self) -> String {
        format!("{}://{}{}", self.0.scheme, self.0.authority, self.0.prefix)
    }

    /// Path that the cluster's address puts before the API's own.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// kube's client with the server's identity, for our own objects. It sends as all else is sent,
    /// so whoever keeps it has the credentials of the day.
    pub fn server_client(&self) -> kube::Client {
        let cluster = self.clone();
        let send = move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move { cluster.send(Identity::Server, request.map(Body::new)).await }
        };
        kube::Client::new(tower::service_fn(send), "default")
    }

    /// Sends `request`, whose URI is path and query alone, and returns the answer's head with its
    /// body still streaming. Identity headers of the request are replaced by those of `who`.
    /// No time-out once there is a connection: watches and logs last. Upgrades work through
    /// `hyper::upgrade::on`.
    pub async fn send(
        &self,
        who: Identity<'_>,
        mut request: Request<Body>,
    ) -> Result<Response<Answer>, UpstreamError> {
        self.aim(&mut request)?;
        *request.version_mut() = http::Version::HTTP_11;
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.0.host.clone());
        headers.remove(header::AUTHORIZATION);
        let foreign: Vec<_> = headers.keys().filter(|name| is_identity(name)).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
        let user = match who {
            Identity::Server => None,
            Identity::User(user) => Some(user),
        };
        for (name, value) in user.iter().flat_map(|user| &user.impersonation) {
            headers.append(name, value.clone());
        }
        let answer = match user.map(|user| &user.credentials) {
            Some(Credentials::Bearer(value)) => {
                headers.insert(header::AUTHORIZATION, value.clone());
                self.0.bearer.send(request).await.map_err(UpstreamError::from)
            }
            Some(Credentials::Kubeconfig) | None => {
                let impersonates = user.is_some_and(|user| !user.impersonation.is_empty());
                self.0.own.send(request, impersonates).await
            }
        };
        let count = match &answer {
            Ok(_) => {
                self.0.outage.answered();
                &self.0.answered
            }
            Err(UpstreamError::Cut(_)) => return answer,
            Err(error) => {
                self.0.outage.failed(error, user.is_none());
                &self.0.failed
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Requests that the API server has answered and those that it has not, since start; without
    /// those that their senders have cut off.
    pub fn counts(&self) -> (u64, u64) {
        (self.0.answered.load(Ordering::Relaxed), self.0.failed.load(Ordering::Relaxed))
    }

    /// When the API server was away last, as far as no caller brings that about.
    pub fn away(&self) -> Option<tokio::time::Instant> {
        self.0.outage.last().map(tokio::time::Instant::from_std)
    }

    /// Sends a small request and reads its whole answer, at most `limit` bytes of it.
    /// Statuses of 400 and above are a [`Failure::Status`].
    pub async fn fetch(
        &self,
        who: Identity<'_>,
        request: Request<Body>,
        limit: usize,
    ) -> Result<Bytes, Failure> {
        let begun = (matches!(who, Identity::Server), self.counts().0);
        let answer = async {
            let response = self.send(who, request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, limit).collect().await.map_err(|error| {
                match error.is::<LengthLimitError>() {
                    true => UpstreamError::TooLarge(limit),
                    false => UpstreamError::Broken(error.to_string()),
                }
            });
            let body = body?.to_bytes();
            if head.status.is_client_error() || head.status.is_server_error() {
                return Err(Failure::status(head.status, &body).after(&head.headers));
            }
            Ok(body)
        };
        let timed = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
        timed.unwrap_or_else(|_| Err(self.late(begun)))
    }

    /// GET of a list, at most `limit` bytes of it: hands out each item's JSON as it arrives and
    /// returns the rest of the document. After an error what was handed out is a part.
    pub async fn items(
        &self,
        who: Identity<'_>,
        (path, accept): (&str, &str),
        limit: usize,
        visit: &mut (impl FnMut(&str) + Send),
    ) -> Result<Vec<u8>, Failure> {
        let request = Request::get(path)
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|error| UpstreamError::Setup(error.to_string()))?;
        let begun = (matches!(who, Identity::Server), self.counts().0);
        let answer = async {
            let (head, mut body) = self.send(who, request).await?.into_parts();
            if head.status.is_client_error() || head.status.is_server_error() {
                let body = Limited::new(body, OBJECT_LIMIT).collect().await;
                let body = body.map_err(|error| UpstreamError::Broken(error.to_string()))?;
                return Err(Failure::status(head.status, &body.to_bytes()).after(&head.headers));
            }
            let (mut items, mut read) = (Items::default(), 0);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| UpstreamError::Broken(error.to_string()))?;
                let Ok(data) = frame.into_data() else { continue };
                read += data.len();
                if read > limit {
                    return Err(UpstreamError::TooLarge(limit).into());
                }
                items.feed(&data, visit)?;
            }
            Ok(items.end()?)
        };
        let timed = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
        timed.unwrap_or_else(|_| Err(self.late(begun)))
    }

    /// No whole answer came in time. Where others had one since, it is this one that takes long.
    fn late(&self, (is_ours, answered): (bool, u64)) -> Failure {
        let late = UpstreamError::Timeout;
        if self.counts().0 == answered {
            self.0.outage.failed(&late, is_ours);
        }
        late.into()
    }

    /// GET of `path` (path and query, already encoded) as JSON.
    pub async fn get(&self, who: Identity<'_>, path: &str, limit: usize) -> Result<Bytes, Failure> {
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| UpstreamError::Setup(error.to_string()))?;
        self.fetch(who, request, limit).await
    }

    /// POST of a JSON body: access reviews, creations.
    pub async fn post(
        &self,
        who: Identity<'_>,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<Bytes, Failure> {
        let request = Request::post(path)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .map_err(|error| UpstreamError::Setup(error.to_string()))?;
        self.fetch(who, request, OBJECT_LIMIT).await
    }

    fn aim(&self, request: &mut Request<Body>) -> Result<(), UpstreamError> {
        if self.0.prefix.is_empty() && request.uri().authority().is_none() {
            return Ok(());
        }
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let target = PathAndQuery::try_from(format!("{}{path}", self.0.prefix))
            .map_err(|error| UpstreamError::Setup(error.to_string()))?;
        *request.uri_mut() = Uri::from(target);
        Ok(())
    }
}

/// What `Host` says of a server: its port unless it is the scheme's own (RFC 9110, 7.2).
fn host(scheme: &Scheme, authority: &Authority) -> Result<HeaderValue, UpstreamError> {
    let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let host = match authority.port_u16().filter(|port| *port != usual) {
        Some(port) => format!("{}:{port}", authority.host()),
        None => authority.host().to_owned(),
    };
    HeaderValue::try_from(host).map_err(|error| UpstreamError::Setup(error.to_string()))
}

/// Idle time after which the other end is asked whether it still is there; a minute later it is
/// taken for gone. Load balancers forget idle connections after more than this.
const KEEPALIVE: Duration = Duration::from_secs(30);

fn connector(config: &kube::Config) -> Result<HttpsConnector<Dial>, UpstreamError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // A host that vanished says nothing: without this a quiet watch through it would hang for ever.
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE / 3));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let dial = Dial::new(tcp, config.proxy_url.as_ref())?;
    config
        .rustls_https_connector_with_connector(dial)
        .map_err(|error| UpstreamError::Setup(error.to_string()))
}

/// Where a cluster is, and the path before the API's own, without a trailing slash.
fn address(config: &kube::Config) -> Result<(Scheme, Authority, String), UpstreamError> {
    let parts = config.cluster_url.clone().into_parts();
    let nowhere = || UpstreamError::Setup("the cluster's address has no host".into());
    let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::path);
    let prefix = path.trim_end_matches('/').to_owned();
    // A kubeconfig may say `host:port` alone.
    let scheme = parts.scheme.unwrap_or(Scheme::HTTPS);
    Ok((scheme, parts.authority.ok_or_else(nowhere)?, prefix))
}

/// Connections to a cluster, each of which is made within `time`.
fn pool(config: &kube::Config, time: Duration) -> Result<Pool, UpstreamError> {
    let connector = InTime { connector: connector(config)?, time };
    let (scheme, authority, _) = address(config)?;
    let server = Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build();
    let server = server.map_err(|error| UpstreamError::Setup(error.to_string()))?;
    Ok(Pool::new(connector, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Until the test gives up waiting; never how long anything should take.
    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_answer_with_many_warnings_is_taken() {
        let answer = async || {
            let warning = |at| {
                let text = format!("299 - \"unknown field {at}\"");
                (header::WARNING, HeaderValue::try_from(text).unwrap())
            };
            (0..200).map(warning).collect::<http::HeaderMap>()
        };
        let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = cluster.send(Identity::Server, request).await.unwrap();
        assert_eq!(response.headers().get_all(header::WARNING).iter().count(), 200);
    }

    impl Cluster {
        /// A cluster whose API server is played by these routes.
        pub(crate) async fn played(routes: axum::Router) -> Self {
            // kube's own client wants a process-wide provider; a second call is harmless.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            tokio::spawn(async move { axum::serve(listener, routes).await });
            Self::new("test", kube::Config::new(url)).unwrap()
        }
    }

    #[tokio::test]
    async fn a_port_that_takes_connections_and_says_nothing_is_given_up_in_time() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The kernel takes them: nobody accepts.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let server: Uri = format!("https://{address}/version").parse().unwrap();
        let proxy: Uri = format!("http://{address}").parse().unwrap();
        for proxy in [None, Some(proxy)] {
            let mut config = kube::Config::new(server.clone());
            // Nothing of this machine's is needed to hear nothing.
            config.root_cert = Some(Vec::new());
            config.proxy_url = proxy;
            let pool = pool(&config, Duration::from_millis(50)).unwrap();
            let request = Request::get("/version").body(Body::empty()).unwrap();
            let answer = tokio::time::timeout(DEADLINE, pool.send(request)).await;
            let lost = answer.expect("it is given up").err().expect("nobody is there");
            let error = UpstreamError::from(lost);
            let words = error.to_string();
            assert!(matches!(error, UpstreamError::Unreachable(_)), "{words}");
            assert!(words.contains("no connection was made within 50ms"), "{words}");
        }
    }

    #[tokio::test]
    async fn a_body_that_its_sender_breaks_off_is_no_failure_of_the_api_server() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The kernel takes them: nobody accepts.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server: Uri = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let cluster = Cluster::new("test", kube::Config::new(server)).unwrap();
        let nobody = http::HeaderMap::new();
        for user in [User::bearer("mine", &nobody).unwrap(), User::kubeconfig(&nobody)] {
            let gone = std::io::Error::other("the sender is gone");
            let parts = [Ok(Bytes::from_static(b"{")), Err(gone)];
            let body = Body::from_stream(futures::stream::iter(parts));
            let request = Request::post("/api/v1/namespaces").body(body).unwrap();
            let answer = cluster.send(Identity::User(&user), request);
            let error =
                tokio::time::timeout(DEADLINE, answer).await.expect("it ends").err().unwrap();
            let is_cut = matches!(&error, UpstreamError::Cut(why) if why == "the sender is gone");
            assert!(is_cut, "{error}");
        }
        assert_eq!(cluster.counts(), (0, 0));
    }
}

//! A plain HTTP server before a demo API server that passes all on, watches included, and counts
//! who asked for what; on request it holds every request back, so that rounds can be told apart.
//!
//! It costs time of its own: what is timed without a delay is not sent through it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::process::ADMIN;

/// A watch for each kind and a burst of reviews; far above both.
const CONNECTIONS: usize = 512;
/// Requests remembered; a bench that asks for more would count wrong.
const RECORDED: usize = 200_000;

/// The server. Dropping it ends it; its connections end with their clients.
pub struct Recorder {
    pub address: SocketAddr,
    /// In front of this server, as the demo's admin.
    pub kubeconfig: PathBuf,
    upstream: Arc<Upstream>,
    accepting: JoinHandle<()>,
    _folder: TempDir,
}

struct Upstream {
    server: String,
    client: Client<HttpConnector, Incoming>,
    asked: Mutex<Vec<Asked>>,
    delay_ms: AtomicU64,
}

struct Asked {
    token: String,
    /// `GET /api/v1/pods`
    what: String,
}

impl Recorder {
    /// Before the plain HTTP server `http://127.0.0.1:port`.
    pub async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Arc::new(Upstream {
            server: server.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            asked: Mutex::default(),
            delay_ms: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&upstream)));
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "demo",
            "clusters": [{"name": "demo", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "admin", "user": {"token": ADMIN}}],
            "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "admin"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { address, kubeconfig, upstream, accepting, _folder: folder }
    }

    /// Requests with this token, since the start, whose method and path begin with `prefix`.
    pub fn count(&self, token: &str, prefix: &str) -> usize {
        let asked = self.upstream.asked.lock().unwrap();
        let own = asked.iter().filter(|asked| asked.token == token);
        own.filter(|asked| asked.what.starts_with(prefix)).count()
    }

    /// Holds each request that comes from now on back for so long, to the millisecond.
    pub fn delay(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.upstream.delay_ms.store(millis, Ordering::Relaxed);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: Arc<Upstream>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.unwrap();
        let Ok((stream, _)) = listener.accept().await else { continue };
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            serve(stream, upstream).await;
            drop(seat);
        });
    }
}

async fn serve(stream: TcpStream, upstream: Arc<Upstream>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| pass(Arc::clone(&upstream), request));
    // A client that goes away ends its connection, and with it what was asked on it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn pass(
    upstream: Arc<Upstream>,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, legacy::Error> {
    upstream.note(&request);
    let delay = Duration::from_millis(upstream.delay_ms.load(Ordering::Relaxed));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = format!("{}{path}", upstream.server).parse().unwrap();
    *request.uri_mut() = uri;
    request.headers_mut().remove(HOST);
    upstream.client.request(request).await
}

impl Upstream {
    fn note(&self, request: &Request<Incoming>) {
        let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let what = format!("{} {}", request.method(), request.uri().path());
        let mut asked = self.asked.lock().unwrap();
        assert!(asked.len() < RECORDED, "more than {RECORDED} requests: the counts are wrong");
        asked.push(Asked { token: token.to_owned(), what });
    }
}

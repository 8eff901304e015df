//! Many long answers of one gateway at once: event streams over HTTP/1.1 and HTTP/2, read one event
//! after the other, and websockets.
//!
//! `load` is for answers that end. This counts nothing; it panics when a stream does not begin.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::load::{Client, Target};
use super::process::{Heard, Process};

/// A stream begins at once; whoever needs longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// A sync of some thousand pods on a busy machine.
const SYNC: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// `binnacle` as a process of its own, with the addresses of its listeners.
pub struct Front {
    pub process: Process,
    pub https: SocketAddr,
    pub http: SocketAddr,
    roots: Arc<RootCertStore>,
    _folder: TempDir,
}

impl Front {
    /// In front of the kubeconfig's cluster.
    pub fn start(kubeconfig: &Path, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let mut command = Command::new(env!("CARGO_BIN_EXE_binnacle"));
        command.args(["--listen", "127.0.0.1:0", "--insecure-listen", "127.0.0.1:0"]);
        command.args(["--log-level", "warn"]).args(extra);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--state-dir").arg(&state);
        let process = Process::start("binnacle", &mut command, Heard::Stderr);
        let https = process.address_after("listening on https://");
        let http = process.address_after("listening on http://");
        let ca = binnacle::tls::read_ca(&state).unwrap();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Self { process, https, http, roots: Arc::new(roots), _folder: folder }
    }

    /// Waits until every kind is in the cache.
    pub async fn synced(&self) {
        let begun = Instant::now();
        let mut client = Client::open(&Target::plain(self.http)).await;
        loop {
            let answer = client.get("/readyz?verbose").await;
            let text = String::from_utf8_lossy(&answer.body);
            if answer.status == 200 && !text.contains("syncing") {
                return;
            }
            assert!(begun.elapsed() < SYNC, "no sync in {} s: {text}", SYNC.as_secs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// A TLS connection that speaks this protocol.
    pub async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let connected = timeout(PATIENCE, async {
            let tcp = TcpStream::connect(self.https).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let name = ServerName::from(self.https.ip());
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
        });
        connected.await.unwrap_or_else(|_| panic!("{}: no connection", self.https))
    }

    /// One connection for many streams.
    pub async fn http2(&self) -> http2::SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.connect("h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        sender
    }

    /// An event stream over a connection that it shares.
    pub async fn shared(
        &self,
        sender: &mut http2::SendRequest<Empty<Bytes>>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Events {
        let request = self.request(&format!("https://{}{path}", self.https), headers);
        Events::of(path, sender.send_request(request)).await
    }

    /// An event stream over a connection of its own.
    pub async fn alone(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let io = TokioIo::new(self.connect("http/1.1").await);
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut request = self.request(path, headers);
        let host = self.https.to_string().parse().unwrap();
        request.headers_mut().insert(HOST, host);
        Events::of(path, sender.send_request(request)).await
    }

    fn request(&self, uri: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::get(uri).header(ACCEPT, "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).unwrap()
    }
}

/// An event stream that is being read.
pub struct Events {
    body: Incoming,
    read: Vec<u8>,
}

impl Events {
    async fn of(
        path: &str,
        answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    ) -> Self {
        let answer = timeout(PATIENCE, answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path}: no answer in time")).unwrap();
        let (head, body) = answer.into_parts();
        if head.status != 200 {
            let text = body.collect().await.unwrap().to_bytes();
            panic!("{path}: {} {}", head.status, String::from_utf8_lossy(&text));
        }
        Self { body, read: Vec::new() }
    }

    /// The next event, or sign of life, with all its lines; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&event).into_owned());
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }
}

/// A websocket on an open connection, as who has this token. Without `protocol` none is named.
pub async fn websocket<S>(stream: S, path: &str, token: &str, protocol: &str) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The scheme is for the library's taste; the connection is made already.
    let mut request = format!("ws://127.0.0.1{path}").into_client_request().unwrap();
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert(AUTHORIZATION, bearer);
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let opened = timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await;
    let opened = opened.unwrap_or_else(|_| panic!("{path}: no answer in time"));
    opened.unwrap_or_else(|error| panic!("{path}: {error}")).0
}

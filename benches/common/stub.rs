//! A bare hyper server over rustls, in a process of its own: the limit that a page is compared
//! with, and the API server behind the passthrough.
//!
//! It sends bytes and understands nothing: `…/bytes-N` is N bytes, all else one fixed body. Or it
//! passes all on, as the barest second hop, or as a relay that takes no TLS off: the kernel's part.

use std::convert::Infallible;
use std::future::ready;
use std::io::Read as _;
use std::iter::{once, repeat_n};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::BoxError;

use super::load::Target;
use super::process::{Heard, Process};

/// Bodies up to this size are sent from one block of memory, larger ones in chunks.
const BLOCK: usize = 16 << 20;
const CHUNK: usize = 64 << 10;
/// Far above what a bench opens.
const CONNECTIONS: usize = 256;
/// What a relay reads at once: more makes it no cheaper.
const PIECE: usize = 256 << 10;
/// Files that tell the server what to be.
const BODY: &str = "body";
const UPSTREAM: &str = "upstream";
const RELAY: &str = "relay";

/// The server as a bench sees it.
pub struct Stub {
    pub process: Process,
    pub target: Target,
    url: String,
    folder: TempDir,
}

impl Stub {
    /// Starts this very program again, as a server of `body`.
    pub fn start(body: &[u8]) -> Self {
        Self::with(BODY, body)
    }

    /// The same, as the barest passthrough to the API server of a kubeconfig: what any second
    /// hop over TLS costs.
    pub fn hop(kubeconfig: &Path) -> Self {
        Self::with(UPSTREAM, kubeconfig.to_str().unwrap().as_bytes())
    }

    /// Bytes to this server and back, as they come: what no second hop can do without.
    pub fn relay(&self) -> Self {
        let address = self.url.trim_start_matches("https://");
        let relay = Self::with(RELAY, address.as_bytes());
        Self { target: self.target.by_way_of(&relay.target), ..relay }
    }

    fn with(file: &str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = pair.cert.pem();
        std::fs::write(folder.path().join("cert.pem"), &certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join(file), content).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(super::STUB).arg(folder.path());
        let process = Process::start("the bare server", &mut command, Heard::Stdout);
        let address = process.address_after("listening on ");
        let target = Target::tls(address, certificate.as_bytes());
        Self { process, target, url: format!("https://{address}"), folder }
    }

    /// A kubeconfig with the context `stub` and a bearer token.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stub",
            "clusters": [{"name": "stub", "cluster": {
                "server": self.url,
                "certificate-authority": self.folder.path().join("cert.pem"),
            }}],
            "users": [{"name": "bench", "user": {"token": token}}],
            "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "bench"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

type StubBody = Either<Full<Bytes>, BoxBody<Bytes, Infallible>>;

/// What the server sends.
#[derive(Clone)]
struct Bodies {
    fixed: Bytes,
    block: Bytes,
}

/// The server itself: until its stdin closes, which it does when the bench ends.
pub async fn serve(folder: &Path) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    if let Ok(address) = std::fs::read_to_string(folder.join(RELAY)) {
        return relay(&address).await;
    }
    if let Ok(kubeconfig) = std::fs::read_to_string(folder.join(UPSTREAM)) {
        let upstream = Upstream::of(Path::new(&kubeconfig)).await;
        return listen(folder, move |request| upstream.clone().pass(request)).await;
    }
    let fixed = Bytes::from(std::fs::read(folder.join(BODY)).unwrap());
    let bodies = Bodies { fixed, block: Bytes::from(vec![b'x'; BLOCK]) };
    listen(folder, move |request| ready(Ok(answer(&request, &bodies)))).await;
}

/// Passes bytes on to `address` and back.
async fn relay(address: &str) {
    accept(|mut near| {
        let address = address.to_owned();
        async move {
            let Ok(mut far) = TcpStream::connect(address).await else { return };
            let _ = far.set_nodelay(true);
            let _ = copy_bidirectional_with_sizes(&mut near, &mut far, PIECE, PIECE).await;
        }
    })
    .await;
}

/// HTTP over the folder's certificate.
async fn listen<A, B>(
    folder: &Path,
    answer: impl Fn(Request<Incoming>) -> A + Clone + Send + 'static,
) where
    A: Future<Output = Result<Response<B>, BoxError>> + Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    accept(|tcp| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let service = service_fn(answer);
                let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            }
        }
    })
    .await;
}

/// Says where it listens, and has each connection served in a task of its own, for ever.
async fn accept<S>(serve: impl Fn(TcpStream) -> S)
where
    S: Future<Output = ()> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.unwrap();
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let _ = tcp.set_nodelay(true);
        let served = serve(tcp);
        tokio::spawn(async move {
            served.await;
            drop(seat);
        });
    }
}

/// The API server behind a hop: requests go there as they came, answers come back as they are.
#[derive(Clone)]
struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Incoming>,
    server: Uri,
}

impl Upstream {
    async fn of(kubeconfig: &Path) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let connector = config.rustls_https_connector().unwrap();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, server: config.cluster_url }
    }

    async fn pass(self, mut request: Request<Incoming>) -> Result<Response<Incoming>, BoxError> {
        let mut parts = self.server.into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts)?;
        request.headers_mut().remove(HOST);
        Ok(self.client.request(request).await?)
    }
}

fn answer(request: &Request<Incoming>, bodies: &Bodies) -> Response<StubBody> {
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    let wanted = last.strip_prefix("bytes-").and_then(|number| number.parse::<usize>().ok());
    let body = match wanted {
        None => Either::Left(Full::new(bodies.fixed.clone())),
        Some(length) if length <= BLOCK => Either::Left(Full::new(bodies.block.slice(..length))),
        Some(length) => Either::Right(chunked(&bodies.block, length)),
    };
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    if let Some(length) = wanted {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn chunked(block: &Bytes, length: usize) -> BoxBody<Bytes, Infallible> {
    let whole = repeat_n(block.slice(..CHUNK), length / CHUNK);
    let chunks = whole.chain(once(block.slice(..length % CHUNK)));
    let frames = chunks.filter(|chunk| !chunk.is_empty()).map(|chunk| Ok(Frame::data(chunk)));
    StreamBody::new(futures::stream::iter(frames)).boxed()
}

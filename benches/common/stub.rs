//! A bare hyper server over rustls, in a process of its own: the limit that a page is compared
//! with, and the API server behind the passthrough.
//!
//! It sends bytes and understands nothing: `…/bytes-N` is N bytes, all else one fixed body.

use std::convert::Infallible;
use std::io::Read as _;
use std::iter::{once, repeat_n};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::load::Target;
use super::process::{Heard, Process};

/// Bodies up to this size are sent from one block of memory, larger ones in chunks.
const BLOCK: usize = 16 << 20;
const CHUNK: usize = 64 << 10;
/// Far above what a bench opens.
const CONNECTIONS: usize = 256;

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
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = pair.cert.pem();
        std::fs::write(folder.path().join("cert.pem"), &certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("body"), body).unwrap();
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
    let fixed = Bytes::from(std::fs::read(folder.join("body")).unwrap());
    let bodies = Bodies { fixed, block: Bytes::from(vec![b'x'; BLOCK]) };
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.unwrap();
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, bodies) = (acceptor.clone(), bodies.clone());
        tokio::spawn(async move {
            let _ = tcp.set_nodelay(true);
            if let Ok(tls) = acceptor.accept(tcp).await {
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(&request, &bodies);
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            }
            drop(seat);
        });
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

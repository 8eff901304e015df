//! Servers of charts for tests: any that answers as a test says, with TLS of a private authority
//! where it is asked for, and ChartMuseum's API as ChartMuseum 0.16 has it (upload, provenance,
//! delete, tenants, its limits and its refusals; pkg/chartmuseum/server/multitenant).
//!
//! It proves nothing itself; the modules beside it do. What is wrong on purpose is in
//! `chart_hostile.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::helm_charts::chart;

/// `MAX_UPLOAD_SIZE` of ChartMuseum, in bytes.
const UPLOAD: usize = 20 << 20;

/// A private authority, which nobody trusts unless he is told to.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { params, key, pem }
    }

    /// A certificate for these names and its key, both PEM.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    /// A server on loopback; with `clients` it talks only to those who have a certificate of it.
    pub fn server(&self, clients: bool) -> ServerConfig {
        let (certificate, key) = self.issue(&["localhost", "127.0.0.1"]);
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
            let checks = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(checks.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        builder.with_single_cert(vec![certificate], key).unwrap()
    }
}

/// The head of a request that a server got.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
}

/// A server on loopback, which ends with its connections when this is dropped.
pub struct Site {
    pub address: SocketAddr,
    secure: bool,
    log: Arc<Mutex<Vec<Asked>>>,
    accepting: JoinHandle<()>,
}

impl Site {
    pub async fn start<F, A>(tls: Option<ServerConfig>, answer: F) -> Site
    where
        F: Fn(Request) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let log = Arc::<Mutex<Vec<Asked>>>::default();
        let asked = log.clone();
        let router = Router::new().fallback(move |request: Request| {
            let target = request.uri().to_string();
            let (method, headers) = (request.method().clone(), request.headers().clone());
            asked.lock().unwrap().push(Asked { method, target, headers });
            answer(request)
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let secure = tls.is_some();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        Site { address, secure, log, accepting: tokio::spawn(accept(listener, tls, router)) }
    }

    /// One that has these pages.
    pub async fn of(tls: Option<ServerConfig>, wants: Wants, pages: &Pages) -> Site {
        let pages = pages.clone();
        let answer = move |request: Request| {
            let refused = wants.refuses(request.headers());
            std::future::ready(refused.unwrap_or_else(|| pages.answer(&request)))
        };
        Site::start(tls, answer).await
    }

    /// Of a path with a leading slash.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// As the configuration allows it.
    pub fn host(&self) -> String {
        self.url("")
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// Requests so far whose path and query begin so.
    pub fn count(&self, method: &Method, target: &str) -> usize {
        let is_it = |asked: &&Asked| asked.method == method && asked.target.starts_with(target);
        self.asked().iter().filter(is_it).count()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (tls, router) = (tls.clone(), router.clone());
        connections.spawn(async move {
            match tls {
                None => talk(stream, router).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        talk(stream, router).await;
                    }
                }
            }
        });
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Whom a server talks to.
#[derive(Debug, Clone, Copy, Default)]
pub enum Wants {
    #[default]
    Nothing,
    /// `user:password`
    Basic(&'static str),
    Bearer(&'static str),
}

impl Wants {
    pub fn refuses(self, headers: &HeaderMap) -> Option<Response> {
        let (wanted, challenge) = match self {
            Wants::Nothing => return None,
            Wants::Basic(pair) => {
                (format!("Basic {}", STANDARD.encode(pair)), "Basic realm=\"ChartMuseum\"")
            }
            Wants::Bearer(token) => (format!("Bearer {token}"), "Bearer realm=\"ChartMuseum\""),
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if given == Some(wanted.as_str()) {
            return None;
        }
        let headers = [(header::WWW_AUTHENTICATE, challenge)];
        Some((StatusCode::UNAUTHORIZED, headers, said("unauthorized")).into_response())
    }
}

/// Files by path, which a test may change; their ETags are those of their content.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<BTreeMap<String, (&'static str, Bytes)>>>);

impl Pages {
    /// An index and the archives it names, below this path.
    pub fn of(base: &str, packs: &[Pack]) -> Pages {
        let pages = Pages::default();
        pages.put(&format!("{base}/index.yaml"), "application/yaml", index(packs));
        for pack in packs {
            let path = format!("{base}/charts/{}", pack.file());
            pages.put(&path, "application/gzip", pack.bytes.clone());
        }
        pages
    }

    pub fn put(&self, path: &str, kind: &'static str, body: impl Into<Bytes>) {
        self.0.lock().unwrap().insert(path.to_owned(), (kind, body.into()));
    }

    pub fn answer(&self, request: &Request) -> Response {
        let found = self.0.lock().unwrap().get(request.uri().path()).cloned();
        let Some((kind, body)) = found else {
            return (StatusCode::NOT_FOUND, said("not found")).into_response();
        };
        let tag = format!("\"{}\"", digest(&body));
        let known = request.headers().get(header::IF_NONE_MATCH);
        if known.is_some_and(|value| value.as_bytes() == tag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
        }
        let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::ETAG, tag)];
        (headers, body).into_response()
    }
}

/// SHA-256 in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut text = String::new();
    for byte in digest.as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// A chart with its archive, and what an index says of it.
#[derive(Debug, Clone)]
pub struct Pack {
    pub name: String,
    pub version: String,
    pub bytes: Bytes,
    /// The digest that the index tells.
    pub digest: String,
    /// Lines of YAML in its entry.
    pub about: String,
}

impl Pack {
    /// Of files whose paths begin below the chart's folder.
    pub fn new(name: &str, version: &str, files: &[(&str, &str)]) -> Pack {
        Pack::archived(name, version, chart(name, version, files))
    }

    pub fn archived(name: &str, version: &str, bytes: Vec<u8>) -> Pack {
        let about = "description: A page that says something".to_owned();
        let (name, version, digest) = (name.to_owned(), version.to_owned(), digest(&bytes));
        Pack { name, version, digest, bytes: bytes.into(), about }
    }

    pub fn about(self, about: &str) -> Pack {
        Pack { about: about.to_owned(), ..self }
    }

    pub fn file(&self) -> String {
        format!("{}-{}.tgz", self.name, self.version)
    }
}

/// An index as `helm repo index` makes it, with relative addresses.
pub fn index(packs: &[Pack]) -> String {
    let mut entries = BTreeMap::<&str, String>::new();
    for pack in packs {
        let Pack { name, version, digest, about, .. } = pack;
        let file = pack.file();
        let about = about.replace('\n', "\n    ");
        let entry = entries.entry(name).or_default();
        write!(
            entry,
            "  - apiVersion: v2\n    name: {name}\n    version: {version}\n\
             \x20   appVersion: \"2.0\"\n    created: \"2026-01-02T03:04:05.123456789Z\"\n\
             \x20   digest: {digest}\n    urls:\n    - charts/{file}\n    {about}\n"
        )
        .unwrap();
    }
    let entries = entries.iter().map(|(name, text)| format!("  {name}:\n{text}"));
    let entries: String = entries.collect();
    let entries = if entries.is_empty() { " {}\n".to_owned() } else { format!("\n{entries}") };
    format!("apiVersion: v1\nentries:{entries}generated: \"2026-01-02T03:04:05Z\"\n")
}

/// How a ChartMuseum is configured.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub wants: Wants,
    /// `--auth-anonymous-get`
    pub anonymous_get: bool,
    pub disable_api: bool,
    /// `--max-storage-objects`; 0: any number.
    pub most: usize,
    /// Path elements of a tenant.
    pub depth: usize,
    /// `--disable-force-overwrite` turned round.
    pub force: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let (wants, anonymous_get, disable_api) = (Wants::Nothing, false, false);
        Self { wants, anonymous_get, disable_api, most: 0, depth: 0, force: true }
    }
}

/// Tenant and file, and what it has.
type Store = Arc<Mutex<BTreeMap<(String, String), Bytes>>>;

pub struct Museum {
    pub site: Site,
    store: Store,
}

impl Museum {
    pub async fn start(tls: Option<ServerConfig>, rules: Rules) -> Museum {
        let store = Store::default();
        let kept = store.clone();
        let answer = move |request: Request| served(rules, kept.clone(), request);
        Museum { site: Site::start(tls, answer).await, store }
    }

    /// The files of a tenant.
    pub fn files(&self, tenant: &str) -> Vec<String> {
        let store = self.store.lock().unwrap();
        store.keys().filter(|(of, _)| of == tenant).map(|(_, file)| file.clone()).collect()
    }

    /// Behind our back, as another client would.
    pub fn put(&self, tenant: &str, pack: &Pack) {
        self.store.lock().unwrap().insert((tenant.to_owned(), pack.file()), pack.bytes.clone());
    }
}

/// The form of all that ChartMuseum says.
fn said(error: &str) -> String {
    json!({"error": error}).to_string()
}

fn reply(status: u16, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    let status = StatusCode::from_u16(status).unwrap();
    (status, headers, body.to_string()).into_response()
}

fn refused(status: u16, error: &str) -> Response {
    reply(status, &json!({"error": error}))
}

async fn served(rules: Rules, store: Store, request: Request) -> Response {
    let is_open = rules.anonymous_get && request.method() == Method::GET;
    if let Some(refused) = rules.wants.refuses(request.headers()).filter(|_| !is_open) {
        return refused;
    }
    let (head, body) = request.into_parts();
    let parts: Vec<&str> = head.uri.path().split('/').skip(1).collect();
    let is_api = parts[0] == "api";
    let parts = if is_api { &parts[1..] } else { &parts[..] };
    if parts.len() <= rules.depth || (is_api && rules.disable_api) {
        return refused(404, "not found");
    }
    let (tenant, rest) = parts.split_at(rules.depth);
    let tenant = tenant.join("/");
    let at = |file: String| (tenant.clone(), file);
    // As gin's GetQuery: whether it is there, whatever it says.
    let query = head.uri.query().unwrap_or_default();
    let asked = query.split('&').any(|pair| pair.split('=').next() == Some("force"));
    let forced = rules.force && asked;
    match (head.method, is_api, rest) {
        (Method::GET, false, ["index.yaml"]) => {
            let index = index(&packs(&store, &tenant));
            ([(header::CONTENT_TYPE, "application/x-yaml")], index).into_response()
        }
        (Method::GET, false, ["charts", file]) => {
            let found = store.lock().unwrap().get(&at((*file).to_owned())).cloned();
            let Some(bytes) = found else { return refused(404, "object not found") };
            ([(header::CONTENT_TYPE, "application/x-tar")], bytes).into_response()
        }
        (Method::POST, true, ["charts"]) => {
            let Ok(bytes) = whole(body).await else { return refused(413, "request too large") };
            let Some(file) = named(&bytes) else { return refused(500, "no chart in it") };
            kept(rules, &store, at(file), bytes, forced)
        }
        (Method::POST, true, ["prov"]) => {
            let Ok(bytes) = whole(body).await else { return refused(413, "request too large") };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some(file) = name_and_version(&text) else {
                return refused(500, "invalid provenance file");
            };
            kept(rules, &store, at(format!("{file}.tgz.prov")), bytes, forced)
        }
        (Method::DELETE, true, ["charts", name, version]) => {
            let mut store = store.lock().unwrap();
            let file = format!("{name}-{version}.tgz");
            store.remove(&at(format!("{file}.prov")));
            match store.remove(&at(file)) {
                Some(_) => reply(200, &json!({"deleted": true})),
                None => refused(404, "remove: no such file or directory"),
            }
        }
        _ => refused(404, "not found"),
    }
}

fn kept(rules: Rules, store: &Store, at: (String, String), bytes: Bytes, forced: bool) -> Response {
    let mut store = store.lock().unwrap();
    let is_there = store.contains_key(&at);
    if is_there && !forced {
        return refused(409, "file already exists");
    }
    let count = store.keys().filter(|(tenant, _)| *tenant == at.0).count();
    if rules.most > 0 && count >= rules.most && !is_there {
        return refused(507, "repo has reached storage limit");
    }
    store.insert(at, bytes);
    reply(201, &json!({"saved": true}))
}

async fn whole(body: Body) -> Result<Bytes, axum::Error> {
    axum::body::to_bytes(body, UPLOAD).await
}

fn packs(store: &Store, tenant: &str) -> Vec<Pack> {
    let store = store.lock().unwrap();
    let archives = store.iter().filter(|((of, file), _)| of == tenant && file.ends_with(".tgz"));
    let pack = |((_, file), bytes): (&(String, String), &Bytes)| {
        let about = chart_yaml(bytes).unwrap_or_default();
        let name = value(&about, "name").unwrap_or_default();
        let version = value(&about, "version").unwrap_or_default();
        assert_eq!(*file, format!("{name}-{version}.tgz"));
        Pack::archived(&name, &version, bytes.to_vec())
    };
    archives.map(pack).collect()
}

/// The file that an archive becomes.
fn named(archive: &[u8]) -> Option<String> {
    Some(format!("{}.tgz", name_and_version(&chart_yaml(archive)?)?))
}

fn name_and_version(text: &str) -> Option<String> {
    Some(format!("{}-{}", value(text, "name")?, value(text, "version")?))
}

/// Of a key without any indent.
fn value(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?;
    Some(value.trim().to_owned())
}

fn chart_yaml(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let path = entry.path().ok()?.to_string_lossy().into_owned();
        if path.ends_with("/Chart.yaml") && path.matches('/').count() == 1 {
            let mut text = String::new();
            entry.read_to_string(&mut text).ok()?;
            return Some(text);
        }
    }
    None
}

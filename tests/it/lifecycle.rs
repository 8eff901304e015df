//! The process from start to end: the real binary with the demo cluster, its first words, probes,
//! SIGTERM under load, a restart, an API server that is not there.
//!
//! It is NOT where the certificate itself (`certificate.rs`), connections (`listeners.rs`) or
//! an API server that goes away for a while (`away.rs`) are tested.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::spawned::{Binary, authority, command};

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
pub const POLL: Duration = Duration::from_millis(20);
const CLIENTS: usize = 16;

pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else {
        panic!("waited {DEADLINE:?} in vain: {what}");
    };
    value
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// How many pods the list has.
    pub fn pods(&self) -> usize {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["pods"].as_array().unwrap().len()
    }
}

/// The header of this token; none for the empty one.
pub fn bearer(token: &str) -> Vec<(&'static str, Vec<u8>)> {
    match token {
        "" => Vec::new(),
        _ => vec![("authorization", format!("Bearer {token}").into_bytes())],
    }
}

pub type GetError = Box<dyn std::error::Error + Send + Sync>;

/// GET on a connection of its own.
pub async fn get(
    tls: &ClientConfig,
    url: &str,
    headers: &[(&'static str, Vec<u8>)],
) -> Result<Answer, GetError> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, value.as_slice());
    }
    let exchange = async {
        let (head, body) = client.request(request.body(Empty::new())?).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok::<_, GetError>(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    in_time(&format!("an answer to {url}"), exchange).await
}

#[tokio::test]
async fn the_demo_says_what_it_is_and_probes_need_no_language_and_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Binary::start(folder.path(), &["--demo"]).await;
    let first = &binary.said[0];
    assert!(first.contains("demo") && first.contains("asked for"), "{:#?}", binary.said);
    assert!(binary.said.iter().any(|line| line.contains("curl")), "{:#?}", binary.said);

    let ready = format!("{}/readyz", binary.http);
    while get(&binary.tls, &ready, &[]).await.unwrap().status != 200 {
        tokio::time::sleep(POLL).await;
    }
    let languages: [&[&[u8]]; 5] = [&[], &[b""], &[b";;q=*, -,\xff\xfe"], &[b"zh-Hans"], &[b"xx"]];
    for base in [&binary.https, &binary.http] {
        for probe in ["livez", "readyz", "healthz"] {
            for language in languages {
                let language = language.iter().map(|text| ("accept-language", text.to_vec()));
                let language: Vec<_> = language.collect();
                let url = format!("{base}/{probe}");
                let answer = get(&binary.tls, &url, &language).await.unwrap();
                assert_eq!(answer.status, 200, "{url} {language:?}");
                assert_eq!(answer.text(), "ok", "{url} {language:?}");
            }
        }
    }

    let all = binary.get("/api/v1/pod", "").await.pods();
    assert!(binary.get("/api/v1/pod", "demo-admin-token").await.pods() > 0);
    let team = binary.get("/api/v1/pod", "demo-team-token").await;
    assert!((1..all).contains(&team.pods()), "{} of {all}", team.pods());
    let namespaces = ["shop", "monitoring"];
    for pod in team.json()["pods"].as_array().unwrap() {
        let namespace = pod["objectMeta"]["namespace"].as_str().unwrap();
        assert!(namespaces.contains(&namespace), "{pod}");
    }
    let viewer = binary.get("/api/v1/pod", "demo-viewer-token").await;
    let error = viewer.json()["errors"][0]["ErrStatus"]["message"].to_string();
    assert!(viewer.pods() > 0 && error.contains("events is forbidden"), "{error}");
    assert_eq!(binary.get("/api/v1/pod", "guess").await.status, 401);
}

/// What a stream of either listener is.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A keep-alive connection; encrypted if there is a configuration.
async fn connect(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
) -> Result<SendRequest<Empty<Bytes>>, GetError> {
    let tcp = TcpStream::connect(address).await?;
    let stream: Box<dyn Io> = match tls {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from("localhost")?;
            Box::new(TlsConnector::from(config).connect(name, tcp).await?)
        }
    };
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// What all clients share.
#[derive(Default)]
struct Load {
    answered: AtomicU64,
    /// SIGTERM is sent: from now on new connections may be refused.
    ending: AtomicBool,
}

/// Asks on one connection after the other until none is taken any more. An error is a lost request.
async fn client(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    load: Arc<Load>,
) -> Result<(), String> {
    loop {
        let mut sender = match connect(address, tls.clone()).await {
            Ok(sender) => sender,
            Err(_) if load.ending.load(Ordering::SeqCst) => return Ok(()),
            Err(error) => return Err(format!("refused before the end: {error}")),
        };
        let mut answered = 0;
        // A connection that was closed between two requests has lost none.
        while sender.ready().await.is_ok() {
            let request = Request::get("/api/v1/pod?itemsPerPage=10&page=1");
            let request = request.header("host", "localhost").body(Empty::new()).unwrap();
            let answer = async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
            };
            match answer.await {
                Ok((head, _)) if head.status == 200 => {
                    answered += 1;
                    load.answered.fetch_add(1, Ordering::SeqCst);
                    let close = head.headers.get("connection");
                    if close.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close")) {
                        break;
                    }
                }
                Ok((head, body)) => return Err(format!("{}: {body:?}", head.status)),
                // The kernel took it in after the last accept: it was never ours. While we still
                // accept, that is no excuse.
                Err(_)
                    if answered == 0
                        && load.ending.load(Ordering::SeqCst)
                        && TcpStream::connect(address).await.is_err() =>
                {
                    return Ok(());
                }
                Err(error) => return Err(format!("lost after {answered} answers: {error}")),
            }
        }
    }
}

#[tokio::test]
async fn a_termination_under_load_loses_no_accepted_request() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--demo", "--drain-delay", "3", "--drain-grace", "20"];
    let mut binary = Binary::start(folder.path(), &args).await;
    let address = |url: &str| url.rsplit_once('/').unwrap().1.parse::<SocketAddr>().unwrap();
    let (https, http) = (address(&binary.https), address(&binary.http));
    let (tls, load) = (Arc::new(binary.tls.clone()), Arc::new(Load::default()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| match number % 2 {
            0 => tokio::spawn(client(http, None, load.clone())),
            _ => tokio::spawn(client(https, Some(tls.clone()), load.clone())),
        })
        .collect();
    let ready = format!("{}/readyz", binary.http);
    let under_way = async {
        while get(&binary.tls, &ready, &[]).await.unwrap().status != 200
            || load.answered.load(Ordering::SeqCst) < 20 * CLIENTS as u64
        {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the load is under way", under_way).await;

    load.ending.store(true, Ordering::SeqCst);
    binary.terminate();
    // It still accepts while load balancers find out.
    let noticed = async {
        while get(&binary.tls, &ready, &[]).await.unwrap().status != 503 {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("readyz says so", noticed).await;
    let before = load.answered.load(Ordering::SeqCst);
    assert_eq!(binary.exit_code().await, Some(0));
    for client in clients {
        let outcome = in_time("the client ends", client).await.unwrap();
        assert_eq!(outcome, Ok(()));
    }
    assert!(load.answered.load(Ordering::SeqCst) > before, "it went on serving after the signal");
}

#[tokio::test]
async fn without_an_api_server_it_starts_says_so_and_is_ready_after_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    // Bound and never listening: connections are refused, and nobody else gets the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let server = format!("http://{}", closed.local_addr().unwrap());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{"name": "away", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "mine"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "away", "user": "me"}}],
    });
    let path = folder.path().join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let binary = Binary::start(folder.path(), &["--kubeconfig", path.to_str().unwrap()]).await;
    let first = &binary.said[0];
    assert!(first.contains("nowhere") && first.contains("--demo"), "{:#?}", binary.said);
    assert_eq!(binary.get("/livez", "").await.text(), "ok");
    assert_eq!(binary.get("/api/v1/pod", "").await.status, 401);
    for path in ["/api/v1/pod", "/api/v1/pod/default", "/api/v1/node"] {
        let answer = binary.get(path, "anything").await;
        assert!(matches!(answer.status, 503 | 504), "{}: {}", answer.status, answer.text());
        assert!(answer.text().contains("API server"), "{}", answer.text());
    }
    let ready = async {
        while binary.get("/readyz", "").await.status != 200 {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("it is ready without an API server", ready).await;
    assert!(binary.get("/readyz?verbose", "").await.text().contains("[pod] syncing"));
    assert!(matches!(binary.get("/api/v1/pod", "anything").await.status, 503 | 504));
}

/// The certificate that the TLS listener shows.
async fn leaf(binary: &Binary) -> CertificateDer<'static> {
    let address = binary.https.trim_start_matches("https://");
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(binary.tls.clone()));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn a_restart_keeps_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--demo", "--drain-delay", "0"];
    let mut first = Binary::start(folder.path(), &args).await;
    let (ca, shown) = (authority(folder.path()).await, leaf(&first).await);
    first.terminate();
    assert_eq!(first.exit_code().await, Some(0));
    let second = Binary::start(folder.path(), &args).await;
    assert_eq!(authority(folder.path()).await, ca);
    assert_eq!(leaf(&second).await, shown);
}

#[tokio::test]
async fn a_bad_flag_ends_it_with_64_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path());
    command.args(["--demo", "--no-such-flag"]);
    let output = in_time("it ends", command.output()).await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), words.trim_end().lines().count()), (Some(64), 1), "{words}");
    assert!(words.contains("--no-such-flag"), "{words}");
}

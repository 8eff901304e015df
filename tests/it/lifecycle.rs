//! The process from start to end: the real binary with the demo cluster, its first words, probes,
//! SIGTERM under load, a restart, an API server that is not there.
//!
//! It is NOT where the certificate itself (`certificate.rs`), connections (`listeners.rs`) or
//! an API server that goes away for a while (`away.rs`) are tested.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use binnacle::demo::{Demo, DemoOptions};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::certificate::trusting;
use crate::spawned::{Binary, Spoken, authority, command, signal, urls};

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

/// The line that says which cluster it is: why its API server does not answer may be told before.
fn which(binary: &Binary) -> &str {
    let line = binary.said.iter().find(|line| line.starts_with("cluster "));
    line.unwrap_or_else(|| panic!("no cluster in {:#?}", binary.said))
}

#[tokio::test]
async fn the_demo_says_what_it_is_and_probes_need_no_language_and_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let binary = Binary::start(folder.path(), &["--demo"]).await;
    let first = which(&binary);
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
pub async fn connect(
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

/// A port bound and never listening: connections are refused, and nobody else gets it.
pub fn closed_port() -> TcpSocket {
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    closed
}

/// Writes one whose server is this port, and gives its path.
pub fn kubeconfig(folder: &Path, server: &TcpSocket, token: &str) -> String {
    let server = format!("http://{}", server.local_addr().unwrap());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
        "clusters": [{"name": "away", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": token}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "away", "user": "me"}}],
    });
    let path = folder.join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn without_an_api_server_it_starts_says_so_and_is_ready_after_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let binary = Binary::start(folder.path(), &["--kubeconfig", &path]).await;
    let first = which(&binary);
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

/// A client that takes any certificate, as a kubelet's probe does.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

pub fn anybody() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth()
}

/// The API server is there from now on: what comes to the port goes to the demo.
pub fn open(port: TcpSocket, demo: &Demo) {
    let (listener, demo) = (port.listen(64).unwrap(), demo.addr());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(demo).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
}

#[tokio::test]
async fn while_its_certificate_is_kept_by_an_api_server_that_is_away_probes_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (closed, token) = (closed_port(), "demo-admin-token");
    let path = kubeconfig(folder.path(), &closed, token);
    let args = ["--kubeconfig", &path, "--tls-secret", "shop/binnacle-tls"];
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &args);
    let line = spoken.says("answers probes alone").await;
    let urls = urls(&line);
    let [https, http, ..] = urls.as_slice() else { panic!("{line}") };
    for base in [https, http] {
        for probe in ["livez", "healthz"] {
            let answer = get(&anybody(), &format!("{base}/{probe}"), &[]).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()), "{base} {probe}");
        }
        for path in ["readyz", "", "api/v1/pod", "clusters/demo/api/v1/pods"] {
            let answer = get(&anybody(), &format!("{base}/{path}"), &bearer(token)).await.unwrap();
            assert_eq!(answer.status, 503, "{base}/{path}");
            assert!(answer.text().contains("API server"), "{}", answer.text());
            assert_eq!(answer.text().lines().count(), 1, "{}", answer.text());
        }
    }
    let stand_in = leaf(https, &anybody()).await.unwrap();
    let mut of_before = connect(address(https), Some(Arc::new(anybody()))).await.unwrap();

    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = DemoOptions { listen, pods: 0, simulate: false };
    let demo = Demo::start(options).await.unwrap();
    open(closed, &demo);
    assert_eq!(spoken.listens().await, (https.clone(), http.clone()));
    let mut shown = command(folder.path());
    let shown = in_time("the authority", shown.arg("ca").args(args).output()).await.unwrap();
    let tls = trusting(&String::from_utf8(shown.stdout).unwrap());
    assert_ne!(leaf(https, &tls).await.unwrap(), stand_in);
    let url = format!("{https}/api/v1/pod");
    assert!(get(&tls, &url, &bearer(token)).await.unwrap().pods() > 0);
    let ready = async {
        while get(&tls, &format!("{https}/readyz"), &[]).await.unwrap().status != 200 {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("it is ready", ready).await;
    let request = Request::get("/api/v1/pod").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {token}"));
    let late = of_before.send_request(request.body(Empty::new()).unwrap()).await;
    assert!(late.is_err(), "{:?} under the stand-in's certificate", late.map(|a| a.status()));
}

#[tokio::test]
async fn while_it_waits_for_its_certificate_a_port_in_use_is_told_and_a_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let args = ["--kubeconfig", &path, "--tls-secret", "shop/binnacle-tls"];
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &args);
    let https = urls(&spoken.says("answers probes alone").await).remove(0);
    let mut second = command(folder.path());
    second.args(["--listen", https.trim_start_matches("https://")]).args(args);
    let output = in_time("it ends", second.output()).await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && words.contains("cannot listen on"), "{words}");

    signal("-TERM", &[spoken.child.id().unwrap()]);
    let ended = in_time("it ends", spoken.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn the_id_of_an_answer_leads_to_its_line_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let args = ["--kubeconfig", &path];
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &args);
    let (_, http) = spoken.listens().await;
    let long = "x".repeat(65);
    for given in ["from-a_person.7", "", "two words", "a\"quote", &long] {
        let mut headers = bearer("anything");
        headers.push(("x-request-id", given.as_bytes().to_vec()));
        let answer = get(&anybody(), &format!("{http}/api/v1/pod"), &headers).await.unwrap();
        let id = answer.header("x-request-id").to_owned();
        match given {
            "from-a_person.7" => assert_eq!(id, given),
            _ => assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}"),
        }
        let line = spoken.says(&id).await;
        assert!(answer.status >= 500 && line.contains(&answer.status.to_string()), "{line}");
        assert!(line.contains("INFO"), "{line}");
    }
    let answer = get(&anybody(), &format!("{http}/api/v1/pod"), &[]).await.unwrap();
    assert_eq!((answer.status, answer.header("x-request-id").len()), (401, 16));
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--demo", "--drain-delay", "3600"];
    let mut binary = Binary::start(folder.path(), &args).await;
    let ready = format!("{}/readyz", binary.http);
    let is = async |status: u16| {
        while get(&binary.tls, &ready, &[]).await.unwrap().status != status {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("it is ready", is(200)).await;
    binary.terminate();
    in_time("it drains", is(503)).await;
    binary.terminate();
    assert_eq!(binary.exit_code().await, Some(0));
}

#[tokio::test]
async fn the_cluster_is_a_persons_own_before_it_is_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let first = Binary::start(folder.path(), &[]).await;
    let said = which(&first);
    assert!(said.starts_with("cluster \"demo\": no cluster is configured"), "{said}");
    assert!(first.get("/api/v1/pod", "").await.pods() > 0);

    // As kubectl leaves it where the last context was deleted.
    let own = folder.path().join(".kube/config");
    std::fs::create_dir(folder.path().join(".kube")).unwrap();
    std::fs::write(&own, "contexts: null\ncurrent-context: \"\"\n").unwrap();
    let empty = Binary::start(folder.path(), &[]).await;
    let said = which(&empty);
    assert!(said.starts_with("cluster \"demo\": no cluster is configured: ~/.kube/"), "{said}");

    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    std::fs::copy(&path, &own).unwrap();
    let second = Binary::start(folder.path(), &[]).await;
    let said = which(&second);
    assert!(said.starts_with("cluster \"nowhere\": ~/.kube/config exists"), "{said}");
    assert!(said.contains("--demo"), "{said}");

    let mut told = command(folder.path());
    told.env("KUBECONFIG", &path);
    let third = Binary::of(told, folder.path(), &[]).await;
    let said = which(&third);
    assert!(said.starts_with("cluster \"nowhere\": $KUBECONFIG is set"), "{said}");
}

#[tokio::test]
async fn the_line_to_try_works_where_it_listens_on_every_address() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = |args: &[&str]| {
        let mut command = command(folder.path());
        command.args(["--listen", "0.0.0.0:0", "--state-dir"]).arg(folder.path().join("state"));
        command.args(args);
        Spoken::of(command)
    };
    let mut demo = everywhere(&["--demo"]);
    let line = demo.says("try  curl -k ").await;
    let url = urls(&line).remove(0);
    assert!(url.starts_with("https://localhost:"), "{line}");
    let (_, token) = line.split_once("-H \"Authorization: Bearer ").unwrap();
    let (token, _) = token.split_once('"').unwrap();
    demo.says("listening on https://0.0.0.0:").await;
    let tls = trusting(&authority(folder.path()).await);
    assert!(!token.is_empty(), "{line}");
    assert!(get(&tls, &url, &bearer(token)).await.unwrap().pods() > 0, "{line}");

    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let mut real = everywhere(&["--kubeconfig", &path]);
    let line = real.says("try  curl -k ").await;
    assert!(line.contains("-H \"Authorization: Bearer $TOKEN\" https://localhost:"), "{line}");
}

fn address(url: &str) -> SocketAddr {
    url.rsplit_once('/').unwrap().1.parse().unwrap()
}

/// The certificate that a TLS listener shows, or why it is not believed.
pub async fn leaf(url: &str, tls: &ClientConfig) -> Result<CertificateDer<'static>, String> {
    let tcp = TcpStream::connect(address(url)).await.unwrap();
    let connector = TlsConnector::from(Arc::new(tls.clone()));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, tcp).await.map_err(|error| error.to_string())?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone())
}

#[tokio::test]
async fn a_restart_keeps_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--demo", "--drain-delay", "0"];
    let mut first = Binary::start(folder.path(), &args).await;
    let (ca, shown) = (authority(folder.path()).await, leaf(&first.https, &first.tls).await);
    first.terminate();
    assert_eq!(first.exit_code().await, Some(0));
    let second = Binary::start(folder.path(), &args).await;
    assert_eq!(authority(folder.path()).await, ca);
    assert_eq!(leaf(&second.https, &second.tls).await.unwrap(), shown.unwrap());
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

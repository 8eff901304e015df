//! A proxy between a gateway and its API server that carries bytes, so TLS too, and breaks as
//! networks do: cut, slow, silent with open sockets (half open), refusing. With it a gateway whose
//! only way to its API server it is, and the comparison of all rows with the API server's own list.
//!
//! It proves nothing itself; `faults.rs` does. Answers it does NOT invent: the demo's faults do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binnacle::app::{self, Running};
use binnacle::config;
use binnacle::demo::{Demo, DemoOptions};
use binnacle::kinds::{KindDef, by_name};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::certificate::trusting;
use crate::cluster;
use crate::lifecycle::{Answer, POLL, bearer, get, in_time};

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes carried at once.
const CHUNK: usize = 16 << 10;
/// A slow line carries something this often.
const STEP: Duration = Duration::from_millis(20);
const STEPS_A_SECOND: usize = 50;
/// Request lines that are remembered.
const REMEMBERED: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// So many bytes a second in each direction of each connection.
    Slow(usize),
    /// Nothing is carried, not even the end of a connection; what was sent waits. New connections
    /// are taken, and are as silent.
    Silent,
    /// New connections are closed at once.
    Refused,
}

pub struct FaultProxy {
    pub address: SocketAddr,
    lines: Arc<Lines>,
    accepting: JoinHandle<()>,
}

struct Lines {
    upstream: SocketAddr,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
    /// After how many bytes to the client new connections end: from, to.
    life: Mutex<Option<(u64, u64)>>,
    random: AtomicU64,
    accepted: AtomicU64,
    /// First lines of requests in plain HTTP, and when they came.
    asked: Mutex<Vec<(Instant, String)>>,
}

impl FaultProxy {
    pub async fn start(upstream: SocketAddr) -> FaultProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let lines = Arc::new(Lines {
            upstream,
            mode: watch::Sender::new(Mode::Open),
            cuts: watch::Sender::new(0),
            life: Mutex::new(None),
            random: AtomicU64::new(1),
            accepted: AtomicU64::new(0),
            asked: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, lines.clone()));
        FaultProxy { address, lines, accepting }
    }

    pub fn set(&self, mode: Mode) {
        self.lines.mode.send_replace(mode);
    }

    /// Ends all connections, wherever they are in what they carry.
    pub fn cut(&self) {
        self.lines.cuts.send_modify(|count| *count += 1);
    }

    /// The API server is down: every connection ends, and no new one lives.
    pub fn refuse(&self) {
        self.set(Mode::Refused);
        self.cut();
    }

    /// From now on new connections end in the middle of what they carry, after a random number of
    /// bytes in this range; `None`: they live.
    pub fn cut_after(&self, bytes: Option<(u64, u64)>) {
        *self.lines.life.lock().unwrap() = bytes;
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.lines.accepted.load(Ordering::SeqCst)
    }

    /// When requests came whose first line begins so. Each is noted before it is carried on, so
    /// that its answer is later than its time.
    pub fn asked(&self, start: &str) -> Vec<Instant> {
        let asked = self.lines.asked.lock().unwrap();
        asked.iter().filter(|(_, line)| line.starts_with(start)).map(|(at, _)| *at).collect()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, lines: Arc<Lines>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(STEP).await;
            continue;
        };
        lines.accepted.fetch_add(1, Ordering::SeqCst);
        // In this order no connection slips through between the mode and the cut of `refuse`.
        let cuts = lines.cuts.subscribe();
        if *lines.mode.borrow() != Mode::Refused {
            tokio::spawn(carry(lines.clone(), client, cuts));
        }
    }
}

async fn carry(lines: Arc<Lines>, client: TcpStream, mut cuts: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(lines.upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let life = lines.life();
    let both = async {
        tokio::try_join!(
            pump(&lines, from_client, to_server, None),
            pump(&lines, from_server, to_client, Some(life)),
        )
    };
    tokio::select! {
        _ = cuts.changed() => {}
        _ = both => {}
    }
}

/// Carries one direction to its end. The way to the client has a length of life, and an error at
/// its end; on the way to the server requests are noted.
async fn pump(
    lines: &Lines,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    life: Option<u64>,
) -> io::Result<()> {
    let mut mode = lines.mode.subscribe();
    let mut left = life.unwrap_or(u64::MAX);
    let mut buffer = vec![0; CHUNK];
    loop {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = from.read(&mut buffer[..most]).await?;
        if life.is_none() {
            lines.note(&buffer[..read]);
        }
        left -= read as u64;
        let mut data = &buffer[..read];
        loop {
            let heard = mode.wait_for(|mode| *mode != Mode::Silent).await.map(|mode| *mode);
            let Ok(now) = heard else { return Ok(()) };
            if data.is_empty() {
                break;
            }
            let Mode::Slow(rate) = now else {
                to.write_all(data).await?;
                break;
            };
            let (piece, rest) = data.split_at((rate / STEPS_A_SECOND).clamp(1, data.len()));
            to.write_all(piece).await?;
            data = rest;
            tokio::time::sleep(STEP).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        if left == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

impl Lines {
    /// The same numbers in every run (splitmix64).
    fn life(&self) -> u64 {
        let Some((from, to)) = *self.life.lock().unwrap() else { return u64::MAX };
        let mut number = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        from + (number ^ (number >> 31)) % (to - from)
    }

    fn note(&self, data: &[u8]) {
        let line = data.split(|byte| *byte == b'\r').next().unwrap_or_default();
        if !line.ends_with(b" HTTP/1.1") {
            return;
        }
        let mut asked = self.asked.lock().unwrap();
        if asked.len() < REMEMBERED {
            asked.push((Instant::now(), String::from_utf8_lossy(line).into_owned()));
        }
    }
}

/// The API server itself, past the proxy, as its admin.
pub struct Api {
    url: String,
    token: String,
    tls: ClientConfig,
}

impl Api {
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: &Value,
    ) -> (u16, Value) {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .build();
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let sent = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", content)
            .body(Full::new(sent))
            .unwrap();
        let exchange = async {
            let (head, body) = client.request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
        };
        in_time(path, exchange).await
    }

    pub async fn create(&self, collection: &str, object: &Value) {
        let (status, said) = self.send(Method::POST, collection, "application/json", object).await;
        assert_eq!(status, 201, "creating in {collection}: {said}");
    }

    pub async fn patch(&self, path: &str, patch: &Value) {
        let content = "application/merge-patch+json";
        let (status, said) = self.send(Method::PATCH, path, content, patch).await;
        assert_eq!(status, 200, "patching {path}: {said}");
    }

    /// Marks an object with a revision, which its row shows.
    pub async fn mark(&self, path: &str, revision: usize) {
        let labels = json!({"revision": revision.to_string()});
        self.patch(path, &json!({"metadata": {"labels": labels}})).await;
    }

    pub async fn remove(&self, path: &str) {
        let (status, said) =
            self.send(Method::DELETE, path, "application/json", &Value::Null).await;
        assert_eq!(status, 200, "deleting {path}: {said}");
    }

    pub async fn list(&self, collection: &str) -> Vec<Value> {
        let (status, mut said) =
            self.send(Method::GET, collection, "application/json", &Value::Null).await;
        assert_eq!(status, 200, "listing {collection}: {said}");
        match said["items"].take() {
            Value::Array(items) => items,
            other => panic!("{collection} has no items but {other}"),
        }
    }
}

/// A gateway of this process whose only way to its API server is a proxy.
pub struct Front {
    pub proxy: FaultProxy,
    pub api: Api,
    running: Running,
    tls: ClientConfig,
    _folder: tempfile::TempDir,
}

impl Front {
    /// In front of a demo of its own, at rest.
    pub async fn demo(pods: usize) -> (Front, Demo) {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let demo = Demo::start(DemoOptions { listen, pods, simulate: false }).await.unwrap();
        let proxy = FaultProxy::start(demo.addr()).await;
        let through = format!("http://{}", proxy.address);
        let kubeconfig = demo.kubeconfig().replace(&demo.url(), &through);
        let [admin, ..] = Demo::users() else { panic!("the demo has users") };
        let url = demo.url();
        let front = Front::start(proxy, &kubeconfig, (url.as_str(), admin.token), None).await;
        (front, demo)
    }

    /// In front of the shared real control plane, which is never touched itself.
    pub async fn real() -> Front {
        let cluster = cluster::shared().await;
        let upstream = cluster.server.trim_start_matches("https://").parse().unwrap();
        let proxy = FaultProxy::start(upstream).await;
        let through = format!("https://{}", proxy.address);
        let kubeconfig = std::fs::read_to_string(cluster.kubeconfig("admin")).unwrap();
        let kubeconfig = kubeconfig.replace(&cluster.server, &through);
        assert!(kubeconfig.contains(&through), "{kubeconfig}");
        let admin = (cluster.server.as_str(), cluster.token("admin"));
        Front::start(proxy, &kubeconfig, admin, Some(cluster.ca_pem())).await
    }

    async fn start(
        proxy: FaultProxy,
        kubeconfig: &str,
        (url, token): (&str, &str),
        ca_pem: Option<&str>,
    ) -> Front {
        let folder = tempfile::tempdir().unwrap();
        let (path, state) = (folder.path().join("kubeconfig.yaml"), folder.path().join("state"));
        std::fs::write(&path, kubeconfig).unwrap();
        let args = [
            ["binnacle", "serve"],
            ["--listen", "127.0.0.1:0"],
            ["--kubeconfig", path.to_str().unwrap()],
            ["--state-dir", state.to_str().unwrap()],
            ["--stale-while-away", "60"],
        ];
        let args = args.concat().into_iter().map(OsString::from);
        let Ok(config::Command::Serve(config)) = config::parse(args) else {
            panic!("the arguments are good");
        };
        let running = app::start(config).await.unwrap();
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        let its_tls = ca_pem.map_or_else(|| tls.clone(), trusting);
        let api = Api { url: url.to_owned(), token: token.to_owned(), tls: its_tls };
        let front = Front { proxy, api, running, tls, _folder: folder };
        let current = async {
            while !is_current(&front.get("/api/v1/pod").await) {
                tokio::time::sleep(POLL).await;
            }
        };
        in_time("the cache is current", current).await;
        front
    }

    /// GET from the gateway as the admin.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_as(&self.api.token, path).await
    }

    /// GET from the gateway with a bearer token.
    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        let url = format!("https://{}{path}", self.running.https);
        get(&self.tls, &url, &bearer(token)).await.unwrap()
    }

    /// A figure of one kind from the gateway's own metrics.
    pub async fn metric(&self, name: &str, kind: &str) -> u64 {
        let start = format!("{name}{{kind=\"{kind}\"}} ");
        let text = self.get("/metrics").await.text();
        let figure = text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok());
        figure.unwrap_or(0)
    }

    /// Waits until each of these kinds has the very rows of the API server, current, field by
    /// field, and, over all namespaces, not one row more in memory.
    pub async fn converges(&self, kinds: &str, namespace: Option<&str>) {
        for name in kinds.split_ascii_whitespace() {
            let kind = by_name(name).unwrap();
            let begun = Instant::now();
            loop {
                let truth = self.truth(kind, namespace).await;
                let why = self.difference(kind, namespace, &truth).await;
                let Some(why) = why else { break };
                assert!(begun.elapsed() < DEADLINE, "{name} is not as in the API server: {why}");
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// What the API server lists, by namespace and name, as rows that are made from it now.
    async fn truth(&self, kind: &KindDef, namespace: Option<&str>) -> Rows {
        let mut rows = Rows::new();
        for object in self.api.list(&kind.resource.collection(namespace)).await {
            let row = (kind.row)(&object.to_string()).unwrap();
            let item: Value = serde_json::from_slice(&row.json).unwrap();
            for key in ["name", "namespace", "uid"] {
                assert_eq!(item["objectMeta"][key], object["metadata"][key], "{object}");
            }
            rows.insert(place(&item), item);
        }
        rows
    }

    async fn difference(
        &self,
        kind: &KindDef,
        namespace: Option<&str>,
        truth: &Rows,
    ) -> Option<String> {
        let namespace = namespace.filter(|_| kind.resource.namespaced);
        let end = namespace.map(|namespace| format!("/{namespace}")).unwrap_or_default();
        let answer = self.get(&format!("/api/v1/{}{end}", kind.name)).await;
        if !is_current(&answer) {
            return Some(format!("{} with {:?}", answer.status, answer.headers));
        }
        let mut list = answer.json();
        let Value::Array(items) = list[kind.list.items].take() else {
            return Some(format!("no {}: {list}", kind.list.items));
        };
        let count = items.len();
        let shown: Rows = items.into_iter().map(|item| (place(&item), item)).collect();
        if shown.len() != count || list["listMeta"]["totalItems"] != count {
            return Some(format!("{count} rows, {} of them distinct: {list}", shown.len()));
        }
        let lost = truth.keys().find(|place| !shown.contains_key(*place));
        let left = shown.keys().find(|place| !truth.contains_key(*place));
        if lost.is_some() || left.is_some() {
            return Some(format!("lost {lost:?}, left over {left:?}"));
        }
        for (place, wanted) in truth {
            for (field, value) in wanted.as_object().into_iter().flatten() {
                if shown[place][field] != *value {
                    let found = &shown[place][field];
                    return Some(format!("{place:?}: {field} is {found}, and was made {value}"));
                }
            }
        }
        if namespace.is_some() {
            return None;
        }
        let kept = self.metric("binnacle_cache_rows", kind.name).await;
        (kept != truth.len() as u64).then(|| format!("{kept} rows kept of {}", truth.len()))
    }
}

/// List items by namespace and name.
type Rows = BTreeMap<(String, String), Value>;

fn place(item: &Value) -> (String, String) {
    let text = |key: &str| item["objectMeta"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// From rows that are as current as an open watch makes them.
fn is_current(answer: &Answer) -> bool {
    answer.status == 200
        && answer.header("binnacle-source").starts_with("cache")
        && answer.header("binnacle-age") == "0.000"
}

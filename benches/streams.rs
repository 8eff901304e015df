//! Streams on one instance before a demo cluster: 1,000 live lists of ten callers, 200 shells and
//! 1,000 followed logs, all open at the same time: memory of each, how soon a change is with all
//! readers, how soon a key comes back; and 100 MiB through a port beside the same bytes without us.
//!
//! Loopback, at most 90 s. Readers share the machine with what they measure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::load::{Client, Target};
use common::ports::{self, Ports};
use common::process::{ADMIN, DemoServer, Process};
use common::socket::{Front, websocket};
use common::{figure, median, mib, millis, section};
use futures::{SinkExt as _, StreamExt as _};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http_body_util::Full;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The bench as a whole.
const LONGEST: Duration = Duration::from_secs(90);
const PODS: usize = 1_000;
const NAMESPACE: &str = "load-0";
/// Callers by impersonation, and live lists of each: as many as one may have.
const CALLERS: usize = 10;
const LISTS: usize = 100;
/// Different lists among those of one caller; readers of the same one share an evaluation.
const PAGES: usize = 10;
const SHELLS: usize = 200;
const FOLLOWERS: usize = 1_000;
/// Changes whose way to all readers is timed.
const CHANGES: u32 = 20;
/// Keys typed into one shell, and into all of them at once.
const KEYS: usize = 500;
const KEYS_OF_ALL: usize = 20;
/// Before memory is read, for what opening has left to do.
const REST: Duration = Duration::from_secs(1);
const LISTENING: Duration = Duration::from_secs(5);
/// A change or a key that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files that we may have open: the demo has as many connections as there are shells and logs, we
/// have those and the clients'.
const FILES: u64 = 4_096;
/// Turns of the port, each without us and through us.
const ROUNDS: usize = 3;
/// Before the number of a change.
const MARK: &str = "bench-change-";
const TOKEN: &str = "bench-token";

fn main() {
    common::run(bench);
}

async fn bench() {
    let measured = timeout(LONGEST, async {
        match open_files() {
            most if most >= FILES => streams().await,
            most => println!("\nstreams: skipped, `ulimit -n` is {most} and not {FILES}"),
        }
        port().await;
    });
    if measured.await.is_err() {
        println!("ended after {} s: figures are missing", LONGEST.as_secs());
    }
}

/// The soft limit, which children inherit.
fn open_files() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft = line.split_whitespace().next().unwrap_or_default();
    soft.parse().unwrap_or(u64::MAX)
}

async fn streams() {
    let demo = DemoServer::start(PODS);
    let server = Server::of(&demo.kubeconfig);
    let front = Front::start(&demo.kubeconfig, &[]);
    front.synced().await;
    let pods = server.pods(&front).await;
    let mut meter = Meter { process: &front.process, before: 0 };
    sleep(REST).await;
    section(format_args!("one instance, {PODS} pods; each row comes on top of those before it"));
    meter.before = front.process.memory().resident;
    figure("before the first stream", mib(meter.before), "");

    let mut tasks = JoinSet::new();
    let (tell, mut heard) = mpsc::channel(CALLERS * LISTS);
    lists(&front, &mut tasks, &tell).await;
    meter.grown("live lists, 10 callers over HTTP/2", CALLERS * LISTS).await;

    let mut shells = Vec::with_capacity(SHELLS);
    for number in 0..SHELLS {
        shells.push(Shell::open(&front, &pods[number % pods.len()].0).await);
    }
    for shell in &mut shells {
        shell.key().await;
    }
    meter.grown("shells, a TLS connection each", SHELLS).await;

    section("a typed key's echo, while all of these are open");
    typing("one of 200 shells", &mut shells).await;

    section(format_args!("a change, from its request to {} readers", CALLERS * LISTS));
    changes(&server, &pods[0].0, &mut heard).await;

    section("followed logs, a line a second each");
    let lines = Arc::new(AtomicU64::new(0));
    for number in 0..FOLLOWERS {
        follow(&front, &pods[number % pods.len()], &mut tasks, &lines).await;
    }
    meter.grown("followed logs, a TLS connection each", FOLLOWERS).await;
    let (before, spent) = (lines.load(Ordering::Relaxed), front.process.cpu());
    sleep(LISTENING).await;
    let came = lines.load(Ordering::Relaxed) - before;
    let spent = front.process.cpu().saturating_sub(spent);
    figure("lines/s that came", came / LISTENING.as_secs(), "");
    let busy = spent.as_secs_f64() / LISTENING.as_secs_f64() * 100.0;
    figure("CPU of one core, with all that is open", format_args!("{busy:.0} %"), "");
    typing("one of 200 shells, beside the logs", &mut shells).await;
    figure("peak of the instance", mib(front.process.memory().peak), "");
}

/// Reads the memory again when streams have been added.
struct Meter<'p> {
    process: &'p Process,
    before: u64,
}

impl Meter<'_> {
    async fn grown(&mut self, what: &str, streams: usize) {
        sleep(REST).await;
        let now = self.process.memory().resident;
        let kib = now.saturating_sub(self.before) as f64 / 1024.0 / streams as f64;
        figure(format_args!("{streams} {what}"), mib(now), "");
        figure("  more for each", format_args!("{kib:.1} KiB"), "");
        self.before = now;
    }
}

/// The demo, without us.
struct Server {
    address: SocketAddr,
}

impl Server {
    fn of(kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let server = |line: &str| line.trim().strip_prefix("server: http://")?.parse().ok();
        Self { address: text.lines().find_map(server).unwrap() }
    }

    /// Names and containers of the first pods by name, all of them on every list that is open.
    async fn pods(&self, front: &Front) -> Vec<(String, String)> {
        let (ours, theirs) = (Target::plain(front.http), Target::plain(self.address));
        let path = format!("/api/v1/pod/{NAMESPACE}?{}", page(0));
        let answer = Client::open(&ours.with_token(ADMIN)).await.get(&path).await;
        let list: Value = serde_json::from_slice(&answer.body).unwrap();
        let mut client = Client::open(&theirs.with_token(ADMIN)).await;
        let mut pods = Vec::new();
        for pod in list["pods"].as_array().unwrap_or_else(|| panic!("{path}: {list}")) {
            let name = pod["objectMeta"]["name"].as_str().unwrap().to_owned();
            let answer = client.get(&pod_path(&name)).await;
            let pod: Value = serde_json::from_slice(&answer.body).unwrap();
            let container = pod["spec"]["containers"][0]["name"].as_str().unwrap().to_owned();
            pods.push((name, container));
        }
        assert!(!pods.is_empty(), "{path} shows no pods");
        pods
    }

    /// Labels a pod with the number of a change.
    async fn label(&self, pod: &str, number: u32) {
        let client: legacy::Client<HttpConnector, Full<Bytes>> =
            legacy::Client::builder(TokioExecutor::new()).build_http();
        let patch = json!({ "metadata": { "labels": { "bench": format!("{MARK}{number:04}") } } });
        let request = Request::patch(format!("http://{}{}", self.address, pod_path(pod)))
            .header(AUTHORIZATION, format!("Bearer {ADMIN}"))
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .body(Full::from(patch.to_string()));
        let answer = client.request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200, "labelling {pod}");
    }
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")
}

fn page(number: usize) -> String {
    format!("itemsPerPage={}&page=1&sortBy=a,name", 10 + number % PAGES)
}

/// Opens live lists; each reader tells the number of a change when it sees it.
async fn lists(front: &Front, tasks: &mut JoinSet<()>, tell: &mpsc::Sender<u32>) {
    let bearer = format!("Bearer {ADMIN}");
    for caller in 0..CALLERS {
        let name = format!("reader-{caller}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("impersonate-user", name.as_str()),
            ("impersonate-group", "system:masters"),
        ];
        let mut sender = front.http2().await;
        for number in 0..LISTS {
            let path = format!("/api/v1/pod/{NAMESPACE}?{}", page(number));
            let mut events = front.shared(&mut sender, &path, &headers).await;
            let tell = tell.clone();
            tasks.spawn(async move {
                let mut latest = 0;
                while let Some(event) = events.next().await {
                    let seen = change_in(&event);
                    if seen > latest {
                        latest = seen;
                        let _ = tell.send(seen).await;
                    }
                }
            });
        }
    }
}

/// The number of the last change that an event shows; 0 without one.
fn change_in(event: &str) -> u32 {
    let numbers = event.split(MARK).skip(1);
    numbers.filter_map(|rest| rest.get(..4)?.parse().ok()).max().unwrap_or_default()
}

async fn changes(server: &Server, pod: &str, heard: &mut mpsc::Receiver<u32>) {
    let (mut each, mut last) = (Vec::new(), Vec::new());
    for number in 1..=CHANGES {
        // Out of step with the evaluations, of which there are two a second at most.
        sleep(Duration::from_millis(500 + u64::from(number) * 137 % 500)).await;
        let begun = Instant::now();
        server.label(pod, number).await;
        let mut missing = CALLERS * LISTS;
        let all = timeout(PATIENCE, async {
            while missing > 0 {
                if heard.recv().await == Some(number) {
                    each.push(begun.elapsed());
                    missing -= 1;
                }
            }
        });
        if all.await.is_err() {
            println!("  change {number}: {missing} readers have NOT seen it");
            continue;
        }
        last.push(begun.elapsed());
    }
    show("any reader", &mut each);
    show("the last of them", &mut last);
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        millis(times.get(index).copied().unwrap_or_default())
    };
    figure(format_args!("{what}: p50"), at(0.50), "");
    figure(format_args!("{what}: p99"), at(0.99), "");
}

/// A shell whose process says what it is told.
struct Shell {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

impl Shell {
    async fn open(front: &Front, pod: &str) -> Self {
        let path = format!("/api/v1/pod/{NAMESPACE}/{pod}/exec?command=cat&stdin=true");
        let stream = front.connect("http/1.1").await;
        Self { socket: websocket(stream, &path, ADMIN, "").await }
    }

    /// The time that a key takes there and back.
    async fn key(&mut self) -> Duration {
        let begun = Instant::now();
        self.socket.send(Message::binary(Bytes::from_static(b"k"))).await.unwrap();
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("an echo in time");
            match next.expect("the shell goes on").unwrap() {
                Message::Text(text) if text.contains("stdout") => return begun.elapsed(),
                Message::Text(text) => panic!("not an echo: {text}"),
                Message::Close(frame) => panic!("the shell has ended: {frame:?}"),
                _ => {}
            }
        }
    }
}

/// Keys into one shell while the others wait, and into all of them at once.
async fn typing(what: &str, shells: &mut [Shell]) {
    let mut times = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        times.push(shells[0].key().await);
    }
    show(what, &mut times);
    let mut times = Vec::with_capacity(KEYS_OF_ALL * shells.len());
    for _ in 0..KEYS_OF_ALL {
        times.extend(futures::future::join_all(shells.iter_mut().map(Shell::key)).await);
    }
    show(&format!("{what}, typing in all at once"), &mut times);
}

/// Opens a followed log, whose reader counts its lines.
async fn follow(
    front: &Front,
    (pod, container): &(String, String),
    tasks: &mut JoinSet<()>,
    lines: &Arc<AtomicU64>,
) {
    let path = format!("/api/v1/log/{NAMESPACE}/{pod}/{container}/follow?tailLines=1");
    let bearer = format!("Bearer {ADMIN}");
    let mut events = front.alone(&path, &[("authorization", &bearer)]).await;
    let lines = Arc::clone(lines);
    tasks.spawn(async move {
        while let Some(event) = events.next().await {
            let came = event.matches("\"content\":").count();
            lines.fetch_add(came as u64, Ordering::Relaxed);
        }
    });
}

/// The same bytes from the same server, without us and through us, by turns.
async fn port() {
    let ports = Ports::start().await;
    let front = Front::start(&ports.kubeconfig(TOKEN), &["--shared-cache=false"]);
    let before = front.process.memory().resident;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let path = "/api/v1/namespaces/default/pods/web/portforward?ports=8080";
        let stream = TcpStream::connect(ports.address).await.unwrap();
        let socket = websocket(stream, path, TOKEN, ports::PROTOCOL).await;
        direct.push(download(socket, 1).await);
        let path = "/api/v1/pod/default/web/portforward/8080";
        let stream = TcpStream::connect(front.http).await.unwrap();
        through.push(download(websocket(stream, path, TOKEN, "").await, 0).await);
    }
    section(format_args!("{} through a port, plain HTTP", mib(ports::BYTES as u64)));
    let (direct, through) = (median(direct), median(through));
    let rate = |time: Duration| {
        let rate = ports::BYTES as f64 / time.as_secs_f64().max(1e-9);
        mib(rate as u64) + "/s"
    };
    figure("without us", rate(direct), "");
    figure("through our websocket", rate(through), "");
    let ratio = direct.as_secs_f64() / through.as_secs_f64().max(1e-9) * 100.0;
    figure("of the rate without us", format_args!("{ratio:.0} %"), "");
    let memory = front.process.memory();
    figure("resident before", mib(before), "");
    figure("resident, at most", mib(memory.peak), "");
}

/// Takes all that a port sends; the first `head` bytes of a message are no data, nor are greetings.
async fn download<S>(mut socket: WebSocketStream<S>, head: usize) -> Duration
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// A port's number behind its channel.
    const GREETING: usize = 3;
    let begun = Instant::now();
    // Channel 0 for who speaks to the server itself, and for the port any word will do.
    socket.send(Message::binary(Bytes::from_static(b"\0go"))).await.unwrap();
    let mut left = ports::BYTES;
    while left > 0 {
        let next = timeout(PATIENCE, socket.next()).await.expect("bytes in time");
        match next.expect("the port goes on").unwrap() {
            Message::Binary(data) if head > 0 && data.len() <= GREETING => {}
            Message::Binary(data) => left = left.saturating_sub(data.len() - head),
            Message::Close(frame) => panic!("{left} bytes were still to come: {frame:?}"),
            _ => {}
        }
    }
    let elapsed = begun.elapsed();
    let _ = socket.close(None).await;
    elapsed
}

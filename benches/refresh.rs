//! Refreshes of a large repository of charts, 2,000 charts with 20 versions each, while others are
//! answered: what the process grows by, how long probes, lists and searches take meanwhile, and how
//! soon the catalogue is there after a kill.
//!
//! The repository's server and the clients share the machine with what is measured. What reading
//! such an index takes by itself is in `index`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use common::charts::{CHARTS, VERSIONS, yaml};
use common::launch::Launch;
use common::load::{Client, Target};
use common::process::DemoServer;
use common::{figure, median, mib, millis, section};
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const PODS: usize = 1_000;
const ROUNDS: usize = 5;
/// The load without a refresh beside it.
const QUIET: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(20);
/// One refresh, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// The whole bench.
const LONGEST: Duration = Duration::from_secs(120);
const REPOSITORY: &str = "/api/v1/repository/large";
const CATALOGUE: &str = "/api/v1/chart?itemsPerPage=10&page=1";

/// Requests of one kind, on connections side by side.
struct Lane {
    what: &'static str,
    goal: &'static str,
    paths: &'static [&'static str],
    connections: u32,
    /// Between two requests of one connection.
    every: Duration,
}

const KINDS: usize = 3;

static LANES: [Lane; KINDS] = [
    Lane {
        what: "probe",
        goal: "p99 < 10 ms",
        paths: &["/livez", "/readyz"],
        connections: 4,
        every: Duration::from_millis(4),
    },
    Lane {
        what: "search",
        goal: "p99 < 10 ms",
        // Names, a typo, words that are nowhere in a name.
        paths: &[
            "/api/v1/chart?itemsPerPage=10&page=1&q=proxy",
            "/api/v1/chart?itemsPerPage=10&page=1&q=queue%20maintainer7",
            "/api/v1/chart?itemsPerPage=10&page=1&q=pruxy",
            "/api/v1/chart?itemsPerPage=10&page=1&q=replicated%20mesh%20with%20metrics",
            "/api/v1/chart?itemsPerPage=10&page=1&q=forge-vault-103",
        ],
        connections: 2,
        every: Duration::from_millis(40),
    },
    Lane {
        what: "list of pods",
        goal: "",
        paths: &["/api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp"],
        connections: 4,
        every: Duration::from_millis(20),
    },
];

/// Latencies of each lane.
type Times = [Vec<Duration>; KINDS];

fn main() {
    common::run(bench);
}

async fn bench() {
    if timeout(LONGEST, measure()).await.is_err() {
        println!("ended after {} s: figures are missing", LONGEST.as_secs());
    }
}

async fn measure() {
    let (demo, folder) = (DemoServer::start(PODS), tempfile::tempdir().unwrap());
    let shelf = Arc::new(Shelf::default());
    let site = format!("http://{}", serve(shelf.clone()).await);
    let file = folder.path().join("repositories.yaml");
    // JSON is YAML.
    let listed = json!([{"name": "large", "type": "index", "url": site}]);
    fs::write(&file, listed.to_string()).unwrap();
    let args = ["--repositories", file.to_str().unwrap(), "--chart-hosts", site.as_str()];
    let state = folder.path().join("state");
    let launch = Launch::with(Some(&demo.kubeconfig), &state, &args);
    let client = Client::open(&launch.plain()).await;
    let snapshots = state.join("charts/catalogues");
    refreshes(Gateway { launch, client, snapshots }, &shelf).await;
    section(format_args!("killed and started again, median of {ROUNDS}"));
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(restart(&demo.kubeconfig, &state, &args).await);
    }
    figure("start to the first page of the catalogue", millis(median(times)), "< 300 ms");
}

async fn refreshes(mut gateway: Gateway, shelf: &Shelf) {
    gateway.ready().await;
    let tls = gateway.launch.tls();
    meanwhile(&tls, sleep(QUIET / 2), &mut Times::default()).await;
    let empty = gateway.launch.process.memory().resident;
    gateway.launch.process.forget_peak();
    let size = shelf.put(0).await;
    gateway.refresh().await;
    let first = gateway.launch.process.memory().peak.saturating_sub(empty);
    let (mut quiet, mut busy, mut took) = (Times::default(), Times::default(), Vec::new());
    meanwhile(&tls, sleep(QUIET), &mut quiet).await;
    let idle = gateway.launch.process.memory().resident;
    gateway.launch.process.forget_peak();
    for round in 1..=ROUNDS {
        shelf.put(round).await;
        meanwhile(&tls, gateway.refresh(), &mut busy).await;
        let millis = gateway.status().await["durationMillis"].as_u64().unwrap();
        took.push(Duration::from_millis(millis));
    }
    let after = gateway.launch.process.memory();
    let size = mib(size);
    section(format_args!("refresh under load: {CHARTS} charts x {VERSIONS} versions, {size}"));
    figure("idle, before the first catalogue", mib(empty), "");
    figure("peak growth while it is read", mib(first), "<= 64 MiB");
    figure("idle, with a catalogue", mib(idle), "");
    let growth = after.peak.saturating_sub(idle);
    figure(format_args!("peak growth in {ROUNDS} refreshes"), mib(growth), "<= 64 MiB");
    figure("resident after them", mib(after.resident), "");
    figure("time of a refresh, median", millis(median(took)), "");
    section("answers over TLS: p50 / p99 / most");
    for ((lane, quiet), busy) in LANES.iter().zip(quiet).zip(busy) {
        figure(format_args!("{}, no refresh", lane.what), spread(quiet), "");
        figure(format_args!("{}, during refreshes", lane.what), spread(busy), lane.goal);
    }
}

/// Asks on all lanes until the work is done.
async fn meanwhile(target: &Target, work: impl Future<Output = ()>, times: &mut Times) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for (index, lane) in LANES.iter().enumerate() {
        for number in 0..lane.connections {
            clients.push((index, number, Client::open(target).await));
        }
    }
    let asking = clients.into_iter().map(|(index, number, client)| {
        (index, tokio::spawn(ask(client, &LANES[index], number, stop.clone())))
    });
    let asking: Vec<_> = asking.collect();
    work.await;
    stop.store(true, Ordering::Relaxed);
    for (index, lane) in asking {
        times[index].extend(lane.await.unwrap());
    }
}

async fn ask(
    mut client: Client,
    lane: &'static Lane,
    number: u32,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    // Side by side, not all at once.
    let first = Instant::now() + lane.every * number / lane.connections;
    let mut times = Vec::new();
    for (turn, path) in (0..).zip(lane.paths.iter().cycle()) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = first + lane.every * turn;
        // One that could not be sent in time because the answer before it was late has waited, too.
        let mut from = due;
        if Instant::now() < due {
            sleep_until(due).await;
            from = Instant::now();
        }
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        times.push(from.elapsed());
    }
    times
}

/// `0.2 / 1.4 / 3.0 ms`
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    let at = |share: usize| times.get(last * share / 100).copied().unwrap_or_default();
    let [p50, p99, most] = [50, 99, 100].map(|share| at(share).as_secs_f64() * 1e3);
    format!("{p50:.1} / {p99:.1} / {most:.1} ms")
}

/// From the start of a process until it shows the catalogue that the one before it had.
async fn restart(kubeconfig: &Path, state: &Path, args: &[&str]) -> Duration {
    let launch = Launch::with(Some(kubeconfig), state, args);
    let mut client = Client::open(&launch.tls()).await;
    loop {
        let answer = client.get(CATALOGUE).await;
        let total = body(&answer.body)["listMeta"]["totalItems"].as_u64();
        if answer.status == 200 && total == Some(CHARTS as u64) {
            return launch.elapsed();
        }
        assert!(launch.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&answer.body));
        sleep(Duration::from_millis(1)).await;
    }
}

/// A running one, and where it keeps its catalogues.
struct Gateway {
    launch: Launch,
    client: Client,
    snapshots: PathBuf,
}

impl Gateway {
    /// Waits until every kind is in the cache, and the empty shelf was seen.
    async fn ready(&mut self) {
        self.launch.until_kinds(&mut self.client, |text| !text.contains("] syncing")).await;
        self.until(|status, _| status["state"] == "failing").await;
    }

    async fn status(&mut self) -> Value {
        let answer = self.client.get(REPOSITORY).await;
        body(&answer.body)["status"].take()
    }

    /// From the request until the new catalogue answers and its snapshot is written.
    async fn refresh(&mut self) {
        let (digest, written) = (self.status().await["digest"].take(), self.written());
        let forgery = self.client.get("/api/v1/csrftoken/repository").await;
        let forgery = body(&forgery.body);
        let (path, token) = (format!("{REPOSITORY}/refresh"), forgery["token"].as_str().unwrap());
        let answer = self.client.post(&path, token).await;
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        self.until(|status, now| status["digest"] != digest && now != written).await;
    }

    async fn until(&mut self, suits: impl Fn(&Value, Option<SystemTime>) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if suits(&status, self.written()) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the repository's status is {status}");
            sleep(POLL).await;
        }
    }

    /// When the newest snapshot was written.
    fn written(&self) -> Option<SystemTime> {
        let files = fs::read_dir(&self.snapshots).into_iter().flatten().flatten();
        let is_whole = |path: &Path| path.extension().is_some_and(|end| end == "snapshot");
        let whole = files.filter(|file| is_whole(&file.path()));
        whole.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
    }
}

fn body(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}

/// The index that the repository's server has, with its number; none at first.
#[derive(Default)]
struct Shelf(Mutex<Option<(usize, Bytes)>>);

impl Shelf {
    /// Puts another index there; its size.
    async fn put(&self, number: usize) -> u64 {
        let made = spawn_blocking(move || {
            let mut text = Vec::new();
            yaml(&mut text, number);
            text
        });
        let text = made.await.unwrap();
        let size = text.len() as u64;
        *self.0.lock().unwrap() = Some((number, text.into()));
        size
    }
}

async fn serve(shelf: Arc<Shelf>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/index.yaml", get(index)).with_state(shelf);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn index(State(shelf): State<Arc<Shelf>>, headers: HeaderMap) -> Response {
    let now = shelf.0.lock().unwrap().clone();
    let Some((number, text)) = now else { return StatusCode::NOT_FOUND.into_response() };
    let etag = format!("\"{number}\"");
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known == etag.as_str()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(ETAG, etag)], text).into_response()
}

//! The real binary killed (-9) while it writes a snapshot and while it uploads: the next one
//! answers with the old catalogue or the new one as a whole, and a chart is in its repository or
//! not, and can be sent again.
//!
//! `BINNACLE_CHART_KILLS=100` asks for more than six of each; whether one comes in the middle of a
//! snapshot is luck, so two more are cut in half by hand. It is NOT where a download is cut off
//! (`chart_catalogue.rs`), nor where uploads are judged (`chart_uploads.rs`).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::IntoResponse as _;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use crate::chart_catalogue::{binary, walk};
use crate::chart_repos::Shelf;
use crate::cluster::{self, Cluster};
use crate::lifecycle::{POLL, in_time};
use crate::museum_server::{Museum, Pack, Rules, Site};
use crate::spawned::Binary;

/// Kills of an ordinary run.
const KILLS: usize = 6;
/// Charts of the large index, and versions of each: to write its snapshot takes a while.
const CHARTS: usize = 400;
const VERSIONS: usize = 10;
/// Within which a kill comes, in milliseconds from the moment that is waited for.
const SPAN: u64 = 40;

fn kills() -> usize {
    let asked = std::env::var("BINNACLE_CHART_KILLS").ok();
    asked.map_or(KILLS, |text| text.parse().expect("BINNACLE_CHART_KILLS is a number"))
}

/// A time that nobody has chosen, and now and then none.
fn moment(number: usize) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mixed = (u64::from(now.subsec_nanos()) ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Duration::from_millis(if number.is_multiple_of(3) { 0 } else { (mixed >> 20) % SPAN })
}

/// An index of which all tells its generation: how many charts there are and what each version is.
fn generation(number: usize) -> String {
    let mut text = "apiVersion: v1\nentries:\n".to_owned();
    for chart in 0..CHARTS + number {
        text += &format!("  chart-{chart}:\n");
        for version in 0..VERSIONS {
            text += &format!(
                "  - {{name: chart-{chart}, version: {number}.0.{version}, urls: [a.tgz], \
                 description: One of very many that say how they are}}\n"
            );
        }
    }
    text
}

/// The generation of a catalogue, which has to be whole; `None` while it is not known.
async fn known(binary: &Binary, name: &str, token: &str) -> Option<usize> {
    let path = format!("/api/v1/chart?repository={name}&sortBy=a,name&itemsPerPage=1000&page=1");
    let answer = binary.get(&path, token).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json();
    let charts = list["charts"].as_array().unwrap();
    let newest = charts.first()?["version"].as_str().unwrap();
    let number: usize = newest.split('.').next().unwrap().parse().unwrap();
    assert_eq!(charts.len(), CHARTS + number, "a part of generation {number}");
    for chart in charts {
        assert_eq!(
            (&chart["version"], &chart["versions"]),
            (&json!(format!("{number}.0.{}", VERSIONS - 1)), &json!(VERSIONS)),
            "{chart}"
        );
    }
    Some(number)
}

/// Until a snapshot is being written, or has been: one that was torn before is written over.
async fn is_being_written(folder: &Path, before: &[(String, SystemTime)]) {
    let begun = async {
        loop {
            if snapshots(folder) != before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    in_time("a snapshot is written", begun).await;
}

/// Snapshots, whole and unfinished, with the times of their last change.
fn snapshots(folder: &Path) -> Vec<(String, SystemTime)> {
    let files = walk(&folder.join("state/charts/catalogues")).into_iter();
    let changed = |path: &String| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    let mut files: Vec<_> = files.filter_map(|path| changed(&path).map(|at| (path, at))).collect();
    files.sort();
    files
}

/// Until one whole snapshot is left, and it is another than before.
async fn is_renewed(folder: &Path, before: &[(String, SystemTime)]) {
    let is_so = || async {
        let now = snapshots(folder);
        now.len() == 1 && now[0].0.ends_with(".snapshot") && now != before
    };
    Cluster::eventually("one new snapshot is left", is_so).await;
}

#[tokio::test]
async fn killed_while_it_writes_a_snapshot_it_has_the_old_catalogue_or_the_new_one() {
    let (stalls, latest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stalled, shown) = (stalls.clone(), latest.clone());
    let site = Site::start(None, move |_: Request| {
        let (stalled, shown) = (stalled.clone(), shown.clone());
        async move {
            while stalled.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            generation(usize::try_from(shown.load(Ordering::SeqCst)).unwrap()).into_response()
        }
    });
    let site = site.await;
    let shelf = Shelf::open("charts-kills", &[&site]).await;
    let name = shelf.create("many", json!({"type": "index", "url": site.url("/")})).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut kept, mut torn) = (0, 0);
    let kills = kills();
    for number in 1..=kills + 1 {
        stalls.store(true, Ordering::SeqCst);
        latest.store(number as u64, Ordering::SeqCst);
        let mut running = binary(folder.path(), &shelf, &site.host()).await;
        if number > 1 && snapshots(folder.path()).iter().any(|(at, _)| at.ends_with(".snapshot")) {
            // The server says nothing yet: this is what was kept.
            let first = async {
                loop {
                    match known(&running, &name, shelf.token).await {
                        Some(found) => return found,
                        None => tokio::time::sleep(POLL).await,
                    }
                }
            };
            let found = in_time("what was kept is told", first).await;
            assert!((kept..number).contains(&found), "{found} after {kept}, at {number}");
            kept = found;
        }
        let before = snapshots(folder.path());
        // There is never more than one that was torn.
        assert!(before.len() <= 2, "{before:?}");
        torn += before.iter().filter(|(at, _)| at.ends_with(".unfinished")).count();
        if number > kills {
            stalls.store(false, Ordering::SeqCst);
            let is_read = || async { known(&running, &name, shelf.token).await == Some(number) };
            Cluster::eventually("the last one is read", is_read).await;
            is_renewed(folder.path(), &before).await;
            running.kill().await;
            break;
        }
        stalls.store(false, Ordering::SeqCst);
        is_being_written(folder.path(), &before).await;
        tokio::time::sleep(moment(number)).await;
        running.kill().await;
    }
    println!("{torn} of {kills} kills came while a snapshot was written");
    halved(folder.path(), (&shelf, &name, &site.host()), kills + 1, (&stalls, &latest)).await;
    shelf.close().await;
}

/// Half a snapshot beside the last generation's, as a kill leaves it, and half of that one itself,
/// as a broken disk does. The next process has the old catalogue or none, and then the new one.
async fn halved(
    folder: &Path,
    (shelf, name, site): (&Shelf, &str, &str),
    last: usize,
    (stalls, latest): (&AtomicBool, &AtomicU64),
) {
    for (number, ending) in [(last + 1, ".unfinished"), (last + 2, ".snapshot")] {
        let whole = snapshots(folder).pop().unwrap().0;
        let bytes = std::fs::read(&whole).unwrap();
        let torn = whole.replace(".snapshot", ending);
        std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        let before = snapshots(folder);
        stalls.store(true, Ordering::SeqCst);
        latest.store(number as u64, Ordering::SeqCst);
        let mut running = binary(folder, shelf, site).await;
        let now = async || known(&running, name, shelf.token).await;
        if torn == whole {
            let is_removed = || async { !Path::new(&torn).exists() };
            Cluster::eventually("half a snapshot is removed", is_removed).await;
            assert_eq!(now().await, None, "half a snapshot answers");
        } else {
            let is_kept = || async { now().await == Some(number - 1) };
            Cluster::eventually("the whole one is told", is_kept).await;
        }
        stalls.store(false, Ordering::SeqCst);
        let is_read = || async { now().await == Some(number) };
        Cluster::eventually("the new one is read", is_read).await;
        is_renewed(folder, &before).await;
        running.kill().await;
    }
}

/// What a relay lets through.
#[derive(Default)]
struct Valve {
    /// Bytes of uploads that may still go to the server.
    up: AtomicU64,
    /// Whether answers are kept from the client.
    mute: AtomicBool,
    /// Something of an upload was held back.
    held: AtomicBool,
    /// Ends all connections.
    cut: Notify,
}

/// Stands before a server, and holds back what is uploaded there or comes from there.
struct Relay {
    address: SocketAddr,
    valve: Arc<Valve>,
    accepting: JoinHandle<()>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let valve = Arc::new(Valve::default());
        let shared = valve.clone();
        let accepting = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(relay(client, server, shared.clone()));
            }
        });
        let relay = Relay { address, valve, accepting };
        relay.open();
        relay
    }

    fn set(&self, up: u64, mute: bool) {
        self.valve.up.store(up, Ordering::SeqCst);
        self.valve.mute.store(mute, Ordering::SeqCst);
        self.valve.held.store(false, Ordering::SeqCst);
    }

    fn open(&self) {
        self.set(u64::MAX, false);
    }

    /// Nothing of what was held back gets there later.
    fn cut(&self) {
        self.valve.cut.notify_waiters();
    }

    async fn has_held(&self) {
        while !self.valve.held.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, until either side has left.
async fn relay(client: TcpStream, server: SocketAddr, valve: Arc<Valve>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from, mut to), (mut answers, mut back)) = (client.into_split(), server.into_split());
    let up = async {
        let (mut part, mut uploads) = (vec![0; 16 << 10], false);
        while let Ok(count @ 1..) = from.read(&mut part).await {
            // Reads in the background go through: to hold one back would say nothing of an upload.
            // A request begins a part, since it waits for the answer to the one before.
            uploads |= part[..count].starts_with(b"POST ");
            let left = if uploads { valve.up.load(Ordering::SeqCst) } else { u64::MAX };
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(count);
            if left < u64::MAX {
                valve.up.store(left - most as u64, Ordering::SeqCst);
                valve.held.fetch_or(most < count, Ordering::SeqCst);
            }
            if back.write_all(&part[..most]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut part = vec![0; 16 << 10];
        while let Ok(count @ 1..) = answers.read(&mut part).await {
            let is_mute = valve.mute.load(Ordering::SeqCst);
            if !is_mute && to.write_all(&part[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = valve.cut.notified() => {}
        () = up => {}
        () = down => {}
    }
}

/// A chart whose archive takes many parts to send, since it cannot be packed.
fn large(number: usize) -> Pack {
    let mut state = number as u64 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + u8::try_from((state >> 40) % 90).unwrap())
    };
    let text: String = (0..300_000).map(|_| letter()).collect();
    Pack::new("web", &format!("1.0.{number}"), &[("README.md", text.as_str())])
}

/// Files of all versions that the catalogue has.
async fn listed(binary: &Binary, name: &str, token: &str) -> Vec<String> {
    let answer = binary.get(&format!("/api/v1/chart/{name}/web"), token).await;
    if answer.status != 200 {
        return Vec::new();
    }
    let chart = answer.json();
    let file = |one: &Value| format!("web-{}.tgz", one["version"].as_str().unwrap());
    let mut files: Vec<_> = chart["versions"].as_array().unwrap().iter().map(file).collect();
    files.sort();
    files
}

#[tokio::test]
async fn killed_while_it_uploads_a_chart_is_there_or_not_and_can_be_sent_again() {
    let museum = Museum::start(None, Rules::default()).await;
    let relay = Relay::start(museum.site.address).await;
    let host = format!("http://{}", relay.address);
    let namespace = cluster::shared().await.namespace("charts-torn").await;
    let shelf = Shelf::allowing(&namespace, std::slice::from_ref(&host), &[]).await;
    let name = shelf.create("museum", json!({"type": "museum", "url": host})).await;
    let folder = tempfile::tempdir().unwrap();
    let path = format!("chart/{name}");
    let kind = "application/gzip";
    let mut running = binary(folder.path(), &shelf, &host).await;
    for number in 0..kills() {
        let pack = large(number);
        let is_ready = || async {
            let answer = running.get(&format!("/api/v1/repository/{name}"), shelf.token).await;
            answer.status == 200 && answer.json()["status"]["state"] == "ok"
        };
        Cluster::eventually("the repository is read", is_ready).await;
        // Nothing of it gets there, half of it, all of it without an answer, or who knows.
        match number % 4 {
            0 => relay.set(0, false),
            1 => relay.set(pack.bytes.len() as u64 / 2, false),
            2 => relay.set(u64::MAX, true),
            _ => {}
        }
        let kill = async {
            match number % 4 {
                0 | 1 => relay.has_held().await,
                2 => {
                    while !museum.files("").contains(&pack.file()) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                _ => tokio::time::sleep(moment(number)).await,
            }
        };
        let sent = running.send(Method::POST, &path, shelf.token, kind, pack.bytes.clone());
        tokio::select! {
            answer = sent => {
                let told = answer.map(|answer| answer.text());
                assert_eq!(number % 4, 3, "an answer to what was held back: {told:?}");
            }
            () = in_time("the moment of the kill comes", kill) => {}
        }
        running.kill().await;
        relay.cut();
        relay.open();
        match number % 4 {
            0 | 1 => assert!(!museum.files("").contains(&pack.file())),
            2 => assert!(museum.files("").contains(&pack.file())),
            _ => {}
        }

        running = binary(folder.path(), &shelf, &host).await;
        let agree = || async { listed(&running, &name, shelf.token).await == museum.files("") };
        Cluster::eventually("what is there is listed", agree).await;
        let again = running.send(Method::POST, &path, shelf.token, kind, pack.bytes.clone());
        let again = again.await.unwrap();
        assert!(matches!(again.status, 201 | 409), "{}: {}", again.status, again.text());
        assert!(listed(&running, &name, shelf.token).await.contains(&pack.file()));
        let at = format!("/api/v1/{path}/web/{}/archive", pack.version);
        let archive = running.get(&at, shelf.token).await;
        assert_eq!((archive.status, &archive.body), (200, &pack.bytes));
    }
    running.kill().await;
    assert_eq!(museum.files("").len(), kills());
    shelf.close().await;
}

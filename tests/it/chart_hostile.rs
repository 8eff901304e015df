//! Servers whose index or lists lie, never end or lead inwards: each costs its own repository
//! alone, within bounds and with a sentence, what may not be reached is never asked for anything,
//! and the real binary goes on in little memory.
//!
//! It is NOT where archives and servers that stall are tested (`chart_hostile_archives.rs`), nor
//! honest mistakes (`chart_catalogue.rs`, `chart_uploads.rs`); limits that take long to reach are
//! tested beside the code.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use futures::stream;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::chart_repos::{Shelf, says};
use crate::cluster::{self, Cluster};
use crate::lifecycle::{POLL, in_time};
use crate::museum_server::{Pack, Pages, Site, Wants};
use crate::spawned::Binary;

/// More than this no server has to send before we have had enough.
pub const ENOUGH: u64 = 512 << 20;
pub const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

/// A server that says just these bytes to everybody and hangs up.
pub struct Raw {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Raw {
    pub async fn start(says: &'static [u8]) -> Raw {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut head, mut part) = (Vec::new(), [0; 1024]);
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut part).await {
                        Ok(count) if count > 0 => head.extend_from_slice(&part[..count]),
                        _ => break,
                    }
                }
                let _ = stream.write_all(says).await;
                let _ = stream.shutdown().await;
            }
        });
        Raw { address, task }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A body without end, made piece by piece and counted.
fn endless(
    pause: Duration,
    sent: &Arc<AtomicU64>,
    mut piece: impl FnMut(usize) -> Bytes + Send + 'static,
) -> Body {
    let sent = sent.clone();
    let pieces = stream::unfold(0, move |number| {
        let (next, sent) = (piece(number), sent.clone());
        async move {
            if number > 0 {
                tokio::time::sleep(pause).await;
            }
            sent.fetch_add(next.len() as u64, Ordering::Relaxed);
            Some((Ok::<_, std::io::Error>(next), number + 1))
        }
    });
    Body::from_stream(pieces)
}

/// A MiB of one letter as a part of a gzip stream that may stand there any number of times, behind
/// the head of such a stream.
fn zipped() -> (Bytes, Bytes) {
    let mut part = Vec::with_capacity(64 << 10);
    let mut zip = Compress::new(Compression::fast(), false);
    let letters = vec![b'a'; 1 << 20];
    zip.compress_vec(&letters, &mut part, FlushCompress::Full).unwrap();
    assert_eq!(zip.total_in(), 1 << 20);
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    (Bytes::copy_from_slice(&head), part.into())
}

pub fn moved(to: &str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to.to_owned())]).into_response()
}

/// Ten times ten times … an anchor, as an entry.
fn laughs() -> String {
    let mut text = "apiVersion: v1\nentries:\n  a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("  a{level}: &a{level} [{before}]\n");
    }
    text
}

/// What this path of a bad server gives; `spy` may not be reached.
pub fn bad(path: &str, spy: &str, sent: &Arc<AtomicU64>) -> Response {
    let begin = "apiVersion: v1\nentries:\n  web:\n";
    // What comes first, and then what comes for ever.
    let twice = |first: Bytes, then: Bytes| {
        move |number: usize| if number == 0 { first.clone() } else { then.clone() }
    };
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "endless" => {
            let pieces = twice("apiVersion: v1\nentries: ".into(), "a".repeat(1 << 16).into());
            endless(Duration::ZERO, sent, pieces).into_response()
        }
        "slow" => {
            endless(Duration::from_secs(1), sent, twice(begin.into(), " ".into())).into_response()
        }
        "many" => {
            let one = |number: usize| format!("  - {{name: web, version: 1.0.{number}}}\n");
            let some = move |from: usize| (from..from + 2000).map(one).collect::<String>();
            let pieces = move |number: usize| match number {
                0 => Bytes::from(begin),
                number => Bytes::from(some(number * 2000)),
            };
            endless(Duration::ZERO, sent, pieces).into_response()
        }
        "bomb" => {
            let (head, part) = zipped();
            let body = endless(Duration::ZERO, sent, twice(head, part));
            ([(header::CONTENT_ENCODING, "gzip")], body).into_response()
        }
        "deep" => {
            let deep = "[".repeat(100_000);
            format!("apiVersion: v1\nentries:\n  web: {deep}").into_response()
        }
        "laughs" => laughs().into_response(),
        "loop" => moved(path),
        "inward" => moved(&format!("{spy}/index.yaml")),
        "metadata" => moved(METADATA),
        "file" => moved("file:///etc/passwd"),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// An honest server and its repository, and what every bad one has to leave as it is.
pub struct Honest {
    site: Site,
    pub shelf: Shelf,
    name: String,
}

impl Honest {
    /// With a gateway that may reach these servers, too.
    pub async fn open(prefix: &str, others: &[SocketAddr]) -> Honest {
        let pages = Pages::of("", &[Pack::new("web", "1.0.0", &[])]);
        let site = Site::of(None, Wants::Nothing, &pages).await;
        let hosts = others.iter().chain([&site.address]).map(|address| format!("http://{address}"));
        let hosts: Vec<_> = hosts.collect();
        let namespace = cluster::shared().await.namespace(prefix).await;
        let shelf = Shelf::allowing(&namespace, &hosts, &[]).await;
        let name = shelf.create("good", json!({"type": "index", "url": site.url("/")})).await;
        Honest { site, shelf, name }
    }

    /// Bad indexes by address, each with words, divided by `|`, of which its error has one.
    pub async fn stays(&self, bad: &[(&str, String, &str)]) {
        let bad = bad.iter().map(|(short, url, words)| {
            (*short, json!({"type": "index", "url": url}), (*words).to_owned())
        });
        self.stays_beside(&bad.collect::<Vec<_>>()).await;
    }

    /// The same with repositories of any type.
    async fn stays_beside(&self, bad: &[(&str, Value, String)]) {
        let shelf = &self.shelf;
        let mut names = Vec::new();
        for (short, definition, words) in bad {
            names.push((shelf.define(short, definition.clone()).await, words));
        }
        for (name, words) in names {
            let status = shelf.until(&name, "failing").await;
            assert_eq!(shelf.charts(&self.name).await, ["web 1.0.0"]);
            let ready = shelf.gateway.request(Method::GET, None, "/readyz", &[], Vec::new()).await;
            assert_eq!(ready.status, 200, "{}", ready.text());
            let words: Vec<_> = words.split('|').collect();
            says(status["error"].as_str().unwrap(), &words);
            assert_eq!(status["charts"], 0, "{name}: {status}");
            let list = shelf.read(&format!("chart?repository={name},{}", self.name)).await;
            assert_eq!(list["listMeta"]["totalItems"], 1, "{name}: {list}");
        }
    }

    /// It is still read, and then all is removed.
    pub async fn close(self) {
        assert_eq!(self.shelf.refresh(&self.name, &self.site).await["state"], "ok");
        self.shelf.close().await;
    }
}

/// What is said of what is too large, and of addresses inside.
const LARGE: &str = "large|long|more than|bytes|limit|budget";
/// Indexes without end, or without bottom, and what is said of them.
const ENDLESS: [(&str, &str); 4] = [
    ("endless", LARGE),
    ("many", "more than|too many|versions"),
    ("bomb", LARGE),
    ("deep", "deep|depth|nest|budget|level|limit"),
];
const INWARDS: &str = "no public address";

/// A server with all that `bad` has; how much it has sent.
pub async fn bad_site(spy: &Site) -> (Site, Arc<AtomicU64>) {
    let (sent, inward) = (Arc::new(AtomicU64::new(0)), spy.url(""));
    let counted = sent.clone();
    let site = Site::start(None, move |request: Request| {
        std::future::ready(bad(request.uri().path(), &inward, &counted))
    });
    (site.await, sent)
}

#[tokio::test]
async fn a_bad_index_is_explained_and_costs_no_other_repository_anything() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (site, sent) = bad_site(&spy).await;
    let honest = Honest::open("hostile", &[site.address]).await;
    let path = |path: &str| site.url(&format!("/{path}/"));
    let laughs = json!({"type": "index", "url": path("laughs")});
    let laughs = honest.shelf.define("laughs", laughs).await;
    honest.stays(&ENDLESS.map(|(short, words)| (short, path(short), words))).await;
    // Of nothing but bad entries nothing is left, or it is no index at all.
    let is_over = || async {
        let status = honest.shelf.status(&laughs).await;
        (status["state"] == "failing" || status["state"] == "ok") && status["charts"] == 0
    };
    Cluster::eventually("anchors within anchors are given up", is_over).await;
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < ENOUGH, "{sent} bytes were taken");
    honest.close().await;
}

#[tokio::test]
async fn a_bad_server_is_explained_and_costs_no_other_repository_anything() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (site, _) = bad_site(&spy).await;
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\napiVersion: v1\nentries: {}\n";
    let short = Raw::start(short).await;
    let vast = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\napiVersion: v1\n";
    let vast = Raw::start(vast).await;
    let noise = Raw::start(b"\x00\x01\x02 this is no HTTP\r\n\r\n").await;
    // Bound and not listening: it refuses, and nobody else gets the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let gone = closed.local_addr().unwrap();
    let addresses = [site.address, short.address, vast.address, noise.address, gone];
    let honest = Honest::open("hostile-servers", &addresses).await;
    let at = |address: SocketAddr| format!("http://{address}/");
    let path = |path: &str| site.url(&format!("/{path}/"));
    let bad = [
        ("loop", path("loop"), "redirect"),
        ("inward", path("inward"), INWARDS),
        ("metadata", path("metadata"), INWARDS),
        ("file", path("file"), "redirect|fetched"),
        ("nothing", path("nothing"), "404"),
        ("short", at(short.address), "cannot be used|end|cut|length|cannot be reached"),
        ("vast", at(vast.address), LARGE),
        ("noise", at(noise.address), "cannot be reached|cannot be used|http"),
        ("gone", at(gone), "cannot be reached"),
        ("private", "http://10.1.2.3/".to_owned(), INWARDS),
        ("itself", spy.url("/"), INWARDS),
    ];
    honest.stays(&bad).await;
    assert_eq!(spy.asked().len(), 0, "somebody was led inwards");
    honest.close().await;
}

/// A registry whose lists never end or are too long, which leads away or inwards, or sends for its
/// tokens to where nobody may go.
fn registry(request: &Request, spy: &str, pages: &AtomicU64, sent: &Arc<AtomicU64>) -> Response {
    let path = request.uri().path();
    let name = path.split('/').nth(2).unwrap_or_default();
    let page = pages.fetch_add(1, Ordering::Relaxed);
    let linked = |to: String, body: Value| {
        ([(header::LINK, format!("<{to}>; rel=\"next\""))], body.to_string()).into_response()
    };
    let tags = json!({"name": name, "tags": [format!("1.0.{page}")]});
    match name {
        "_catalog" => linked(format!("{path}?n=1&last={page}"), json!({"repositories": []})),
        "endless" => linked(format!("{path}?n=1&last={page}"), tags),
        "inward" => linked(format!("{spy}{path}"), tags),
        "token" => {
            let challenge = format!("Bearer realm=\"{spy}/token\",service=\"registry\"");
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
        }
        "long" => bad("endless", spy, sent),
        "loop" => moved(path),
        name => bad(name, spy, sent),
    }
}

#[tokio::test]
async fn a_bad_registry_is_explained_and_costs_no_other_repository_anything() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (pages, sent) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (asked, taken, inward) = (pages.clone(), sent.clone(), spy.url(""));
    let site = Site::start(None, move |request: Request| {
        std::future::ready(registry(&request, &inward, &asked, &taken))
    });
    let site = site.await;
    let honest = Honest::open("hostile-registry", &[site.address]).await;
    let (here, there) = (site.address, spy.address);
    let tags = format!("{here} has more than 200 pages of tags in one repository");
    let large = format!("{here} sends more than the 4194304 bytes that are taken");
    let bad = [
        ("catalog", format!("{here} has more than 200 pages of repositories")),
        ("endless", tags.clone()),
        // The next page is asked of the server that was asked before.
        ("inward", tags),
        ("token", format!("{there} has {INWARDS}")),
        ("metadata", format!("169.254.169.254:80 has {INWARDS}")),
        ("long", large.clone()),
        ("bomb", large),
        ("loop", format!("{here} redirects more than 5 times")),
        ("laughs", format!("{here} answered what is not understood")),
    ];
    let credentials = json!({"username": "keeper", "password": "pw-of-a-keeper"});
    let bad = bad.map(|(name, words)| {
        let mut definition = json!({"type": "oci", "url": format!("oci://{here}")});
        definition["credentials"] = credentials.clone();
        if name != "catalog" {
            definition["oci"] = json!({"repositories": [name]});
        }
        (name, definition, words)
    });
    honest.stays_beside(&bad).await;
    assert_eq!(spy.asked().len(), 0, "somebody was led inwards");
    let (pages, sent) = (pages.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
    assert!(pages < 5_000 && sent < ENOUGH, "{pages} pages and {sent} bytes were taken");
    honest.close().await;
}

/// What hostile servers may add to the memory of an idle gateway, at its worst moment.
const GROWTH: u64 = 128 << 20;
/// How long a probe may take before the process counts as dead; more than ten times what kubelet
/// waits where nobody tells it otherwise.
const PROBE: Duration = Duration::from_secs(15);

/// A line of what the kernel says of a process's memory, in bytes.
fn memory(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_suffix("kB"));
    found.unwrap_or_else(|| panic!("no {line} in {status}")).trim().parse::<u64>().unwrap() << 10
}

/// An index at a real binary, whose status gets this far: its error, if it has one.
async fn read(running: &Binary, token: &str, name: &str, url: &str, state: &str) -> String {
    let body = json!({"name": name, "type": "index", "url": url}).to_string();
    let made = running.send(Method::POST, "repository", token, "", body).await.unwrap();
    assert_eq!(made.status, 201, "{name}: {}", made.text());
    let path = format!("/api/v1/repository/{name}");
    let is_so = async {
        loop {
            let status = running.get(&path, token).await.json()["status"].clone();
            if status["state"] == state {
                return status["error"].as_str().unwrap_or_default().to_owned();
            }
            tokio::time::sleep(POLL).await;
        }
    };
    in_time(&format!("{name} is {state}"), is_so).await
}

#[tokio::test]
async fn the_real_process_stays_small_and_alive_whatever_it_is_sent() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (site, sent) = bad_site(&spy).await;
    let pages = Pages::of("", &[Pack::new("web", "1.0.0", &[])]);
    let good = Site::of(None, Wants::Nothing, &pages).await;
    let cluster = cluster::shared().await;
    let (token, namespace) = (cluster.token("admin"), cluster.namespace("hostile-memory").await);
    let (folder, kubeconfig) = (tempfile::tempdir().unwrap(), cluster.kubeconfig("admin"));
    let hosts = format!("{},{}", site.host(), good.host());
    let mut args = vec!["--shared-cache=false", "--chart-hosts", &hosts, "--kubeconfig"];
    args.extend([kubeconfig.to_str().unwrap(), "--settings-namespace", &namespace]);
    let mut running = Binary::start(folder.path(), &args).await;
    let process = running.child.id().unwrap();
    read(&running, token, "good", &good.url("/"), "ok").await;
    let idle = memory(process, "VmRSS:");

    let is_over = AtomicBool::new(false);
    let probes = async {
        while !is_over.load(Ordering::SeqCst) {
            let answer = tokio::time::timeout(PROBE, running.get("/livez", "")).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer to a probe in {PROBE:?}"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            tokio::time::sleep(POLL).await;
        }
    };
    let work = async {
        // It keeps one of the two places until the others are done.
        read(&running, token, "slow", &site.url("/slow/"), "refreshing").await;
        for (kind, words) in ENDLESS {
            let url = site.url(&format!("/{kind}/"));
            let error = read(&running, token, kind, &url, "failing").await;
            says(&error, &words.split('|').collect::<Vec<_>>());
        }
        is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(probes, work);
    let peak = memory(process, "VmHWM:");
    println!("{} MiB idle, {} MiB at the most", idle >> 20, peak >> 20);
    assert!(peak.saturating_sub(idle) <= GROWTH, "from {idle} to {peak} bytes");
    let list = running.get("/api/v1/chart?repository=good", token).await;
    assert_eq!(list.json()["listMeta"]["totalItems"], 1, "{}", list.text());
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < ENOUGH, "{sent} bytes were taken");
    running.kill().await;
}

//! Servers whose index lies, never ends or leads inwards: each costs its own repository alone,
//! within bounds and with a sentence, and what may not be reached is never asked for anything.
//!
//! It is NOT where archives, registries and servers that stall are tested
//! (`chart_hostile_archives.rs`), nor honest mistakes (`chart_catalogue.rs`, `chart_uploads.rs`);
//! limits that take long to reach are tested beside the code.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use futures::stream;
use http::{Method, StatusCode, header};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::chart_repos::{Shelf, says};
use crate::cluster::{self, Cluster};
use crate::museum_server::{Pack, Pages, Site, Wants};

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

    /// Bad repositories by address, each with words, divided by `|`, of which its error has one.
    pub async fn stays(&self, bad: &[(&str, String, &str)]) {
        let shelf = &self.shelf;
        let mut names = Vec::new();
        for (short, url, words) in bad {
            names.push((shelf.define(short, json!({"type": "index", "url": url})).await, words));
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
    let bad = [
        ("endless", path("endless"), LARGE),
        ("many", path("many"), "more than|too many|versions"),
        ("bomb", path("bomb"), LARGE),
        ("deep", path("deep"), "deep|depth|nest|budget|level|limit"),
    ];
    honest.stays(&bad).await;
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

//! Servers that lie, stall, never end or lead inwards: each costs its own repository alone, within
//! bounds and with a sentence, and what may not be reached is never asked for anything.
//!
//! It is NOT where honest mistakes are shown (`chart_catalogue.rs`, `chart_uploads.rs`); limits
//! that take long to reach are tested beside the code.

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
use http::{HeaderName, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::chart_repos::{Shelf, says};
use crate::cluster::{self, Cluster};
use crate::museum_server::{Pack, Pages, Site, Wants, digest, index};

/// More than this no server has to send before we have had enough.
const ENOUGH: u64 = 512 << 20;
const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

/// A server that says just these bytes to everybody and hangs up.
struct Raw {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Raw {
    async fn start(says: &'static [u8]) -> Raw {
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

fn moved(to: &str) -> Response {
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
fn bad(path: &str, spy: &str, sent: &Arc<AtomicU64>) -> Response {
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

#[tokio::test]
async fn a_bad_server_is_explained_and_costs_no_other_repository_anything() {
    let pages = Pages::of("", &[Pack::new("web", "1.0.0", &[])]);
    let good = Site::of(None, Wants::Nothing, &pages).await;
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (sent, inward) = (Arc::new(AtomicU64::new(0)), spy.url(""));
    let counted = sent.clone();
    let site = Site::start(None, move |request: Request| {
        std::future::ready(bad(request.uri().path(), &inward, &counted))
    });
    let site = site.await;
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\napiVersion: v1\nentries: {}\n";
    let short = Raw::start(short).await;
    let vast = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\napiVersion: v1\n";
    let vast = Raw::start(vast).await;
    let noise = Raw::start(b"\x00\x01\x02 this is no HTTP\r\n\r\n").await;
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let addresses = [good.address, site.address, short.address, vast.address, noise.address, gone];
    let hosts = addresses.map(|address| format!("http://{address}"));
    let namespace = cluster::shared().await.namespace("hostile").await;
    let shelf = Shelf::allowing(&namespace, &hosts, &[]).await;
    let honest = shelf.create("good", json!({"type": "index", "url": good.url("/")})).await;

    let at = |address: SocketAddr| format!("http://{address}/");
    let path = |path: &str| site.url(&format!("/{path}/"));
    let large = "large|long|more than|bytes|limit|budget";
    let inwards = "no public address";
    let mut names = Vec::new();
    for (short, url, words) in [
        // This one takes longest until it is given up.
        ("slow", path("slow"), "slow|time"),
        ("endless", path("endless"), large),
        ("many", path("many"), "more than|too many|versions"),
        ("bomb", path("bomb"), large),
        ("deep", path("deep"), "deep|depth|nest|budget|level|limit"),
        ("loop", path("loop"), "redirect"),
        ("inward", path("inward"), inwards),
        ("metadata", path("metadata"), inwards),
        ("file", path("file"), "redirect|fetched"),
        ("nothing", path("nothing"), "404"),
        ("short", at(short.address), "cannot be used|end|cut|length|cannot be reached"),
        ("vast", at(vast.address), large),
        ("noise", at(noise.address), "cannot be reached|cannot be used|http"),
        ("gone", at(gone), "cannot be reached"),
        ("private", "http://10.1.2.3/".to_owned(), inwards),
        ("itself", spy.url("/"), inwards),
    ] {
        names.push((shelf.define(short, json!({"type": "index", "url": url})).await, words));
    }
    let laughs = shelf.define("laughs", json!({"type": "index", "url": path("laughs")})).await;
    for (name, words) in names {
        let status = shelf.until(&name, "failing").await;
        assert_eq!(shelf.charts(&honest).await, ["web 1.0.0"]);
        let ready = shelf.gateway.request(Method::GET, None, "/readyz", &[], Vec::new()).await;
        assert_eq!(ready.status, 200, "{}", ready.text());
        let words: Vec<_> = words.split('|').collect();
        says(status["error"].as_str().unwrap(), &words);
        assert_eq!(status["charts"], 0, "{name}: {status}");
        let list = shelf.read(&format!("chart?repository={name},{honest}")).await;
        assert_eq!(list["listMeta"]["totalItems"], 1, "{name}: {list}");
    }
    // Of nothing but bad entries nothing is left, or it is no index at all.
    let is_over = || async {
        let status = shelf.status(&laughs).await;
        (status["state"] == "failing" || status["state"] == "ok") && status["charts"] == 0
    };
    Cluster::eventually("anchors within anchors are given up", is_over).await;
    assert_eq!(spy.asked().len(), 0, "somebody was led inwards");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < ENOUGH, "{sent} bytes were taken");
    assert_eq!(shelf.refresh(&honest, &good).await["state"], "ok");
    shelf.close().await;
}

/// A server with one good chart and many whose archives are not what the index says.
async fn archives(spy: String, elsewhere: String, sent: Arc<AtomicU64>) -> (Site, Vec<Pack>) {
    let good = Pack::new("good", "1.0.0", &[]);
    let mut packs = vec![good.clone()];
    for name in ["cut", "lying", "endless", "bomb", "loop", "inward", "gone", "renamed", "short"] {
        packs.push(Pack::new(name, "1.0.0", &[]));
    }
    packs.extend(["file", "metadata"].map(|name| Pack::new(name, "1.0.0", &[])));
    let cut = packs[1].bytes.slice(..packs[1].bytes.len() - 30);
    packs[1].digest = digest(&cut);
    packs[2].digest = "0".repeat(64);
    packs[8].digest = good.digest.clone();
    let mut text = index(&packs);
    for (chart, address) in
        [("file", "file:///etc/passwd"), ("metadata", METADATA), ("short", elsewhere.as_str())]
    {
        text = text.replace(&format!("charts/{chart}-1.0.0.tgz"), address);
    }
    let kept = packs.clone();
    let site = Site::start(None, move |request: Request| {
        let path = request.uri().path();
        let file = path.rsplit('/').next().unwrap_or_default().to_owned();
        let answer = match file.trim_end_matches("-1.0.0.tgz") {
            "index.yaml" => text.clone().into_response(),
            "cut" => cut.clone().into_response(),
            "renamed" => kept[0].bytes.clone().into_response(),
            name @ ("endless" | "bomb" | "loop" | "inward") => match name {
                "loop" => moved(path),
                name => bad(name, &spy, &sent),
            },
            name => match kept.iter().find(|pack| pack.name == name && name != "gone") {
                Some(pack) => pack.bytes.clone().into_response(),
                None => StatusCode::NOT_FOUND.into_response(),
            },
        };
        std::future::ready(answer)
    });
    (site.await, packs)
}

#[tokio::test]
async fn an_archive_that_is_not_what_the_index_says_is_refused() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n\x1f\x8b\x08";
    let short = Raw::start(short).await;
    let sent = Arc::new(AtomicU64::new(0));
    let elsewhere = format!("http://{}/short.tgz", short.address);
    let (site, packs) = archives(spy.url(""), elsewhere, sent.clone()).await;
    let hosts = [site.host(), format!("http://{}", short.address)];
    let namespace = cluster::shared().await.namespace("hostile-archives").await;
    let shelf = Shelf::allowing(&namespace, &hosts, &[]).await;
    let name = shelf.create("liar", json!({"type": "index", "url": site.url("/")})).await;
    for pack in &packs[1..] {
        let at = format!("chart/{name}/{}/1.0.0", pack.name);
        for path in [at.clone(), format!("{at}/archive")] {
            let answer = shelf.get(&path).await;
            let (status, text) = (answer.status, answer.text());
            assert!(status >= 400 && status != 500 && status != 401, "{path}: {status}: {text}");
            assert!(text.contains(' ') && !text.contains("root:"), "{path}: {text}");
            if pack.name == "lying" {
                let real = digest(&pack.bytes);
                assert!(text.contains(&pack.digest) && text.contains(&real), "{text}");
            }
        }
        let body = json!({"chart": {"repository": name, "name": pack.name, "version": "1.0.0"}});
        let answer = shelf.hand().act("install", &pack.name, &[], body).await;
        let (status, text) = (answer.status, answer.text());
        assert!(status >= 400 && status != 401 && status != 500, "{}: {status}: {text}", pack.name);
    }
    let answer = shelf.get(&format!("chart/{name}/good/1.0.0/archive")).await;
    assert_eq!((answer.status, &answer.body), (200, &packs[0].bytes));
    assert_eq!(spy.asked().len(), 0, "somebody was led inwards");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < ENOUGH, "{sent} bytes were taken");
    shelf.close().await;
}

/// A registry whose lists never end, or which sends for its tokens to where nobody may go.
fn registry(request: &Request, spy: &str, pages: &AtomicU64) -> Response {
    let path = request.uri().path();
    let link = HeaderName::from_static("link");
    match path.split('/').nth(2).unwrap_or_default() {
        "_catalog" => {
            let page = pages.fetch_add(1, Ordering::Relaxed);
            let next = format!("</v2/_catalog?n=1&last={page}>; rel=\"next\"");
            ([(link, next)], json!({"repositories": []}).to_string()).into_response()
        }
        "endless" => {
            let page = pages.fetch_add(1, Ordering::Relaxed);
            let next = format!("<{path}?n=1&last={page}>; rel=\"next\"");
            let tags = json!({"name": "endless", "tags": [format!("1.0.{page}")]});
            ([(link, next)], tags.to_string()).into_response()
        }
        "inward" => {
            let next = format!("<{spy}/v2/inward/tags/list>; rel=\"next\"");
            let tags = json!({"name": "inward", "tags": ["1.0.0"]}).to_string();
            ([(link, next)], tags).into_response()
        }
        "token" => {
            let challenge = format!("Bearer realm=\"{spy}/token\",service=\"registry\"");
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test]
async fn a_registry_that_never_ends_or_leads_inwards_is_given_up() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (pages, inward) = (Arc::new(AtomicU64::new(0)), spy.url(""));
    let counted = pages.clone();
    let site = Site::start(None, move |request: Request| {
        std::future::ready(registry(&request, &inward, &counted))
    });
    let site = site.await;
    let shelf = Shelf::open("hostile-registry", &[&site]).await;
    let url = format!("oci://{}", site.address);
    let credentials = json!({"username": "keeper", "password": "pw-of-a-keeper"});
    for (short, repositories) in [
        ("catalog", Value::Null),
        ("tags", json!(["endless"])),
        ("inward", json!(["inward"])),
        ("token", json!(["token"])),
    ] {
        let mut definition = json!({"type": "oci", "url": url, "credentials": credentials});
        if !repositories.is_null() {
            definition["oci"] = json!({"repositories": repositories});
        }
        let name = shelf.define(short, definition).await;
        let is_over = || async {
            let status = shelf.status(&name).await;
            status["state"] == "failing" || (status["state"] == "ok" && status["charts"] != 1)
        };
        Cluster::eventually(&format!("{short} is given up"), is_over).await;
    }
    assert_eq!(spy.asked().len(), 0, "somebody was led inwards");
    let pages = pages.load(Ordering::Relaxed);
    assert!(pages < 5_000, "{pages} pages were taken");
    shelf.close().await;
}

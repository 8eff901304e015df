//! What is fetched of hostile servers besides an index: archives that are not what the index says
//! or become very large, and servers that stall, which keep nobody from other repositories.
//!
//! It is NOT where an index or a registry's lists are bad; how such servers are made is there, too
//! (`chart_hostile.rs`).

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::FutureExt as _;
use futures::future::{Either, join_all, select};
use http::{Method, StatusCode};
use serde_json::json;

use crate::chart_hostile::{ENOUGH, Honest, METADATA, Raw, bad, bad_site, moved};
use crate::chart_repos::Shelf;
use crate::chart_uploads::push;
use crate::cluster;
use crate::lifecycle::in_time;
use crate::museum_server::{Museum, Pack, Pages, Rules, Site, Wants, digest, index};

#[tokio::test]
async fn a_server_that_says_a_letter_a_second_is_given_up() {
    let spy = Site::of(None, Wants::Nothing, &Pages::default()).await;
    let (site, _) = bad_site(&spy).await;
    let honest = Honest::open("hostile-slow", &[site.address]).await;
    honest.stays(&[("slow", site.url("/slow/"), "slow|time")]).await;
    honest.close().await;
}

/// More than have a place for details and downloads.
const STALLED: usize = 24;
/// Archives and provenance files that are asked of one repository at once (`charts::store`).
const ARCHIVES: usize = 2;
const SIGNATURES: usize = 4;

#[tokio::test]
async fn archives_of_a_server_that_stalls_keep_nobody_from_those_of_others() {
    let names: Vec<_> = (0..STALLED).map(|number| format!("web-{number}")).collect();
    let packs: Vec<_> = names.iter().map(|name| Pack::new(name, "1.0.0", &[])).collect();
    let text = index(&packs);
    let stalls = Site::start(None, move |request: Request| {
        let text = text.clone();
        async move {
            if request.uri().path() != "/index.yaml" {
                std::future::pending::<()>().await;
            }
            text.into_response()
        }
    });
    let stalls = stalls.await;
    let pages = Pages::of("", &[Pack::new("db", "1.0.0", &[]), Pack::new("api", "1.0.0", &[])]);
    let site = Site::of(None, Wants::Nothing, &pages).await;
    let shelf = Shelf::open("hostile-stalls", &[&stalls, &site]).await;
    let stalled = shelf.create("stalls", json!({"type": "index", "url": stalls.url("/")})).await;
    let good = shelf.create("good", json!({"type": "index", "url": site.url("/")})).await;
    shelf.read(&format!("chart/{good}/api/1.0.0")).await;

    let paths = names.iter().map(|name| format!("chart/{stalled}/{name}/1.0.0"));
    let paths: Vec<_> = paths.flat_map(|path| [format!("{path}/archive"), path]).collect();
    let waiting = join_all(paths.iter().map(|path| shelf.get(path)));
    let others = async {
        // They have come as far as they will.
        let asked =
            |end: &str| stalls.asked().iter().filter(|asked| asked.target.ends_with(end)).count();
        while asked(".tgz") < ARCHIVES || asked(".prov") < SIGNATURES {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for name in ["db", "api"] {
            let detail = format!("chart/{good}/{name}/1.0.0");
            shelf.read(&detail).await;
            let answer = shelf.get(&format!("{detail}/archive")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    // Two at a time, each with its own time to answer: they never come to an end before the others.
    let first = select(waiting.boxed_local(), others.boxed_local());
    let first = in_time("others answer", first).await;
    assert!(matches!(first, Either::Right(_)), "those that stall came first");
    drop(first);
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

/// Bytes of zeros that are packed at once, and how often they stand in an archive.
const PART: usize = 4 << 20;
const PARTS: usize = 50;

/// Archives of some 200 KB that become 200 MiB of zeros: as they are, as one file, and as files
/// none of which is too large; and what each is refused with.
fn bombs() -> [(Pack, &'static str); 3] {
    let zip = |data: &[u8]| {
        let mut zip = GzEncoder::new(Vec::new(), Compression::best());
        zip.write_all(data).unwrap();
        zip.finish().unwrap()
    };
    let header = |path: String, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_path(path).unwrap();
        header.set_mode(0o644);
        header.set_size(size as u64);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    // What is gzipped may stand one behind the other.
    let zeros = zip(&vec![0_u8; PART]);
    let chart = |name: &str, files: usize| {
        let about = format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n");
        let mut begin = header(format!("{name}/Chart.yaml"), about.len());
        begin.extend(about.as_bytes());
        begin.resize(1024, 0);
        let mut bytes = zip(&begin);
        for number in 0..files {
            bytes.extend(zip(&header(format!("{name}/files/{number}"), PARTS / files * PART)));
            bytes.extend(zeros.repeat(PARTS / files));
        }
        bytes.extend(zip(&[0_u8; 1024]));
        Pack::archived(name, "1.0.0", bytes)
    };
    [
        (Pack::archived("zeros", "1.0.0", zeros.repeat(PARTS)), "there is no Chart.yaml"),
        (chart("one", 1), "/files/0\" in the archive has more than 5242880 bytes"),
        (chart("many", PARTS), "the archive has more than 100 MiB unpacked"),
    ]
}

#[tokio::test]
async fn an_archive_that_becomes_very_large_is_refused_wherever_it_comes_from() {
    let (bombs, good) = (bombs(), Pack::new("good", "1.0.0", &[]));
    let packs = bombs.iter().map(|(pack, _)| pack).chain([&good]).cloned();
    let site = Site::of(None, Wants::Nothing, &Pages::of("", &packs.collect::<Vec<_>>())).await;
    let museum = Museum::start(None, Rules::default()).await;
    let shelf = Shelf::open("hostile-bombs", &[&site, &museum.site]).await;
    let name = shelf.create("bombs", json!({"type": "index", "url": site.url("/")})).await;
    let url = museum.site.url("/");
    let to = shelf.create("museum", json!({"type": "museum", "url": url})).await;
    let (hand, to) = (shelf.hand(), format!("chart/{to}"));
    for (pack, why) in &bombs {
        let (short, bytes) = (&pack.name, &pack.bytes);
        assert!(bytes.len() < 300 << 10, "{short}: {}", bytes.len());
        let detail = format!("chart/{name}/{short}/1.0.0");
        let archive = format!("{detail}/archive");
        let body = json!({"chart": {"repository": name, "name": short, "version": "1.0.0"}});
        // The digest is right: it is what is in it.
        let (detail, archive, install, upload) = tokio::join!(
            shelf.get(&detail),
            shelf.get(&archive),
            hand.act("install", short, &[], body),
            push(&hand, Method::POST, &to, bytes),
        );
        for (what, answer, status) in [
            ("detail", detail, 502),
            ("archive", archive, 502),
            ("install", install, 502),
            ("upload", upload, 400),
        ] {
            let text = answer.text();
            assert_eq!(answer.status, status, "{what} of {short}: {text}");
            assert!(text.contains(why), "{what} of {short}: {text}");
        }
        assert_eq!(hand.status(short).await, "", "{short} is installed");
    }
    assert_eq!(museum.site.count(&Method::POST, "/"), 0, "{:?}", museum.files(""));
    let answer = shelf.get(&format!("chart/{name}/good/1.0.0/archive")).await;
    assert_eq!((answer.status, &answer.body), (200, &good.bytes));
    shelf.close().await;
}

//! What is fetched of hostile servers besides an index: archives that are not what the index says,
//! registries without end, and servers that stall, which keep nobody from other repositories.
//!
//! It is NOT where an index itself is bad; how such servers are made is there, too
//! (`chart_hostile.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use futures::future::{Either, join_all, select};
use http::{HeaderName, StatusCode, header};
use serde_json::{Value, json};

use crate::chart_hostile::{ENOUGH, Honest, METADATA, Raw, bad, bad_site, moved};
use crate::chart_repos::Shelf;
use crate::cluster::{self, Cluster};
use crate::lifecycle::in_time;
use crate::museum_server::{Pack, Pages, Site, Wants, digest, index};

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

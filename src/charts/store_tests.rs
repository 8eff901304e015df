//! A server of a few files, and what it was asked for.

use std::net::SocketAddr;
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::Request as Asked;
use axum::response::IntoResponse as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use serde_json::json;
use tokio::time::timeout;

use super::super::client::Credentials;
use super::super::hex;
use super::super::oci::{CONFIG, CONTENT};
use super::*;

/// Paths with the `Authorization` that came along.
type Log = Arc<Mutex<Vec<(String, String)>>>;

/// A server on loopback with these files.
async fn serve(files: Vec<(&'static str, Vec<u8>)>) -> (SocketAddr, Log) {
    let log = Log::default();
    let asked = log.clone();
    let handler = move |request: Asked| {
        let path = request.uri().path().to_owned();
        let shown = request.headers().get(header::AUTHORIZATION);
        let shown = shown.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let found = files.iter().find(|(known, _)| *known == path);
        let answer = match found {
            Some((_, bytes)) => bytes.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
        asked.lock().unwrap().push((path, shown));
        std::future::ready(answer)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handler);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, log)
}

fn here() -> Policy {
    Policy::default().with_loopback()
}

fn client(credentials: Option<Credentials>) -> GivesClient {
    let client = Client::new(&here(), credentials).unwrap();
    async move { Ok(client) }.boxed()
}

/// The archive of the chart `web` 1.2.3.
fn packed() -> Vec<u8> {
    let chart = b"apiVersion: v2\nname: web\nversion: 1.2.3\n";
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(chart.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "web/Chart.yaml", &chart[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn wanted(base: SocketAddr, url: &str, digest: Option<[u8; 32]>) -> Wanted {
    Wanted {
        scope: "one".into(),
        base: Url::parse(&format!("http://{base}/stable/")).unwrap(),
        mark: String::new(),
        chart: "web".into(),
        version: Version {
            version: "1.2.3".into(),
            urls: [url].into_iter().collect(),
            digest,
            ..Version::default()
        },
    }
}

#[tokio::test]
async fn an_archive_is_fetched_once_for_all_who_wait_and_kept_for_who_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = packed();
    let found = Some(sha256(&bytes));
    let (address, log) = serve(vec![("/stable/web-1.2.3.tgz", bytes.clone())]).await;
    let store = Store::new(folder.path(), here());
    let asked =
        (0..8).map(|_| store.archive_of(wanted(address, "web-1.2.3.tgz", found), client(None)));
    for answer in join_all(asked).await {
        let (archive, same) = answer.unwrap();
        assert_eq!((archive.version.as_str(), &same[..]), ("1.2.3", &bytes[..]));
    }
    assert_eq!(log.lock().unwrap().len(), 1);
    let store = Store::new(folder.path(), here());
    store.archive_of(wanted(address, "web-1.2.3.tgz", found), client(None)).await.unwrap();
    assert_eq!(log.lock().unwrap().len(), 1);
    // Another repository has to have it, whatever digest it tells.
    let other = Wanted { scope: "two".into(), ..wanted(address, "gone.tgz", found) };
    let error = store.archive_of(other, client(None)).await.unwrap_err();
    assert!(matches!(*error, BadChart::Fetch(FetchError::Status(..))), "{error}");
}

#[tokio::test]
async fn what_was_damaged_on_disk_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = packed();
    let found = Some(sha256(&bytes));
    let (address, log) = serve(vec![("/stable/a.tgz", bytes)]).await;
    let store = Store::new(folder.path(), here());
    store.archive_of(wanted(address, "a.tgz", found), client(None)).await.unwrap();
    let name = wanted(address, "a.tgz", found).name();
    store.keep(name, Bytes::from_static(b"half of it")).await.unwrap();
    store.archive_of(wanted(address, "a.tgz", found), client(None)).await.unwrap();
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_damaged_or_no_file_is_not_kept_and_no_server_is_asked_to_find_out() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = packed();
    let found = Some(sha256(&bytes));
    let (address, log) = serve(vec![("/a.tgz", bytes)]).await;
    let store = Store::new(folder.path(), here());
    let one = || wanted(address, "/a.tgz", found);
    let name = one().name();
    let path = folder.path().join("charts").join("archives").join(&name);
    let is_kept = || async { store.found(&one(), &name).await.unwrap().is_some() };
    assert!(!is_kept().await);
    store.fetch_of(one(), client(None)).await.unwrap();
    assert!(is_kept().await);
    store.keep(name.clone(), Bytes::from_static(b"half of it")).await.unwrap();
    store.fetch_of(one(), client(None)).await.unwrap();
    assert!(!is_kept().await && log.lock().unwrap().len() == 1);
    store.fetch_of(one(), client(None)).await.unwrap();
    assert!(is_kept().await && log.lock().unwrap().len() == 2);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    store.fetch_of(one(), client(None)).await.unwrap();
    assert!(!is_kept().await && log.lock().unwrap().len() == 3);
    // Those that `fetch` found there and those that it did not: a first view is one miss.
    let (_, hits, misses) = store.counts();
    assert_eq!((hits, misses), (1, 3));
}

#[tokio::test]
async fn what_was_written_anew_is_fetched_again_where_no_digest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let digest = sha256(&packed());
    let (address, log) = serve(vec![("/a.tgz", packed())]).await;
    let store = Store::new(folder.path(), here());
    let one =
        |mark: &str, digest| Wanted { mark: mark.into(), ..wanted(address, "/a.tgz", digest) };
    for (mark, requests) in [("1", 1), ("1", 1), ("2", 2), ("2", 2)] {
        store.archive_of(one(mark, None), client(None)).await.unwrap();
        assert_eq!(log.lock().unwrap().len(), requests, "marked with {mark}");
    }
    // Without another mark our own disk forgets it.
    store.forget(one("2", None).name()).await;
    store.fetch_of(one("2", None), client(None)).await.unwrap();
    assert_eq!(log.lock().unwrap().len(), 3);
    // By its digest it is the same one, whoever has written something.
    for mark in ["2", "3"] {
        store.archive_of(one(mark, Some(digest)), client(None)).await.unwrap();
    }
    assert_eq!(log.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn an_archive_that_is_not_what_the_repository_says_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = packed();
    let found = sha256(&bytes);
    let cut = bytes[..bytes.len() / 2].to_vec();
    let (address, _) = serve(vec![("/a.tgz", bytes), ("/cut.tgz", cut)]).await;
    let store = Store::new(folder.path(), here());
    let error = store.archive_of(wanted(address, "/a.tgz", Some([7; 32])), client(None)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&hex(&found)) && error.contains(&hex(&[7; 32])), "{error}");
    let other = Wanted { chart: "db".into(), ..wanted(address, "/a.tgz", Some(found)) };
    let error = store.archive_of(other, client(None)).await.unwrap_err();
    assert!(matches!(&*error, BadChart::Other(name, _) if name == "web"), "{error}");
    let error = store.archive_of(wanted(address, "/cut.tgz", None), client(None)).await;
    let error = error.unwrap_err();
    assert!(matches!(*error, BadChart::Archive(_)), "{error}");
    for url in ["ftp://x.example/a.tgz", "file:///etc/passwd"] {
        let error = store.archive_of(wanted(address, url, None), client(None)).await.unwrap_err();
        assert!(matches!(*error, BadChart::Address(_)), "{error}");
    }
}

#[tokio::test]
async fn credentials_go_with_relative_addresses_and_not_to_another_host() {
    let folder = tempfile::tempdir().unwrap();
    let (home, asked) = serve(vec![("/stable/charts/a.tgz", packed())]).await;
    let (other, there) = serve(vec![("/a.tgz", packed())]).await;
    let credentials = || {
        client(Some(Credentials {
            username: Some("me".into()),
            password: Some("secret".into()),
            host: home.to_string(),
            ..Credentials::default()
        }))
    };
    let store = Store::new(folder.path(), here());
    store.archive_of(wanted(home, "charts/a.tgz", None), credentials()).await.unwrap();
    let absolute = format!("http://{other}/a.tgz");
    store.archive_of(wanted(home, &absolute, None), credentials()).await.unwrap();
    assert!(asked.lock().unwrap()[0].1.starts_with("Basic "));
    assert_eq!(*there.lock().unwrap(), [("/a.tgz".to_owned(), String::new())]);
}

#[tokio::test]
async fn an_icon_is_kept_and_one_that_cannot_be_had_is_not_asked_for_at_once_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = vec![("/a.png", b"GIF89a".to_vec()), ("/b.png", b"<html></html>".to_vec())];
    let (address, log) = serve(files).await;
    let store = Store::new(folder.path(), here());
    for _ in 0..3 {
        for (path, good) in [("/a.png", true), ("/b.png", false), ("/c.png", false)] {
            let url = Url::parse(&format!("http://{address}{path}")).unwrap();
            let icon = store.icon_at("one", url, client(None)).await;
            assert_eq!(icon.is_ok(), good, "{path}");
        }
    }
    assert_eq!(log.lock().unwrap().len(), 3);
    let store = Store::new(folder.path(), here());
    let url = Url::parse(&format!("http://{address}/a.png")).unwrap();
    let icon = store.icon_at("one", url, client(None)).await.unwrap();
    assert_eq!(icon.kind, icon::Kind::Gif);
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_on_disk_waits_for_no_place_to_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _) = serve(vec![("/a.tgz", packed()), ("/a.png", b"GIF89a".to_vec())]).await;
    let store = Store::new(folder.path(), here());
    let icon = || Url::parse(&format!("http://{address}/a.png")).unwrap();
    store.archive_of(wanted(address, "/a.tgz", None), client(None)).await.unwrap();
    store.icon_at("one", icon(), client(None)).await.unwrap();
    let mut held = Vec::new();
    for places in [&store.0.fetches, &store.0.icon_places] {
        for all in [&places.quick, &places.slow] {
            let count = u32::try_from(all.available_permits()).unwrap();
            held.push(all.clone().acquire_many_owned(count).await.unwrap());
        }
    }
    store.archive_of(wanted(address, "/a.tgz", None), client(None)).await.unwrap();
    store.icon_at("one", icon(), client(None)).await.unwrap();
}

#[tokio::test]
async fn repositories_that_hang_keep_nobody_from_others_and_from_what_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _) = serve(vec![("/a.tgz", packed()), ("/b.tgz", packed())]).await;
    let mut store = Store::new(folder.path(), here());
    let rule = Rule { soon: Duration::from_secs(2), ..FETCHES };
    Arc::get_mut(&mut store.0).unwrap().fetches = Places::new(rule);
    let of =
        |scope: &str, path: &str| Wanted { scope: scope.into(), ..wanted(address, path, None) };
    store.fetch_of(of("hangs 0", "/a.tgz"), client(None)).await.unwrap();
    let waiting = (0..40).map(|number| {
        let lost = of(&format!("hangs {}", number % 5), &format!("/{number}.tgz"));
        let store = store.clone();
        tokio::spawn(async move { store.fetch_of(lost, std::future::pending().boxed()).await })
    });
    let waiting: Vec<_> = waiting.collect();
    let others = async {
        let all = &store.0.fetches;
        while all.quick.available_permits() > 0 && all.slow.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for one in ["/a.tgz", "/b.tgz"] {
            store.fetch_of(of("one", one), client(None)).await.unwrap();
        }
        store.fetch_of(of("two", "/b.tgz"), client(None)).await.unwrap();
        for _ in 0..2 {
            store.fetch_of(of("hangs 0", "/a.tgz"), client(None)).await.unwrap();
        }
        store.archive_of(of("hangs 0", "/a.tgz"), client(None)).await.unwrap();
    };
    timeout(Duration::from_secs(60), others).await.unwrap();
    assert_eq!(store.0.fetches.slow.available_permits(), 0, "some of them hang on");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    let (bytes, hits, _) = store.counts();
    assert_eq!((bytes, hits), (4 * packed().len() as u64, 3));
}

#[tokio::test]
async fn what_waits_for_a_place_in_vain_is_told_so_and_an_icon_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let (address, log) = serve(vec![("/a.png", b"GIF89a".to_vec())]).await;
    let mut store = Store::new(folder.path(), here());
    // One place, which is taken from who turns out to be slow.
    let rule = Rule { quick: 1, slow: 0, each: 1, soon: Duration::ZERO };
    Arc::get_mut(&mut store.0).unwrap().icon_places = Places::new(rule);
    let icon = || Url::parse(&format!("http://{address}/a.png")).unwrap();
    let hangs = store.clone();
    let hangs = async move { hangs.icon_at("one", icon(), std::future::pending().boxed()).await };
    let (lost, found) = tokio::join!(hangs, async {
        while store.0.icon_places.quick.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        store.0.icon_places.place("two", Duration::from_secs(60)).await
    });
    assert!(matches!(*lost.unwrap_err(), BadChart::Busy(_)) && log.lock().unwrap().is_empty());
    drop(found.unwrap());
    Arc::get_mut(&mut store.0).unwrap().icon_places = Places::new(ICONS);
    store.icon_at("one", icon(), client(None)).await.unwrap();
}

#[tokio::test]
async fn pulls_of_one_caller_leave_places_to_others_and_last_until_they_are_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = packed();
    let digest = format!("sha256:{}", hex(&sha256(&bytes)));
    let manifest = json!({
        "schemaVersion": 2,
        "config": {"mediaType": CONFIG, "digest": digest, "size": 2},
        "layers": [{"mediaType": CONTENT, "digest": digest, "size": bytes.len()}],
    });
    let blob: &'static str = format!("/v2/web/blobs/{digest}").leak();
    let manifest = ("/v2/web/manifests/1.2.3", manifest.to_string().into_bytes());
    let (address, _) = serve(vec![manifest, (blob, bytes.clone())]).await;
    // Nobody ever answers there.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let mut store = Store::new(folder.path(), here());
    let rule = Rule { soon: Duration::from_secs(600), ..PULLS };
    Arc::get_mut(&mut store.0).unwrap().pulls = Places::new(rule);
    let waiting = (0..8).map(|number| {
        let (store, lost) = (store.clone(), format!("oci://{}/web:{number}", silent.0));
        tokio::spawn(async move { store.pull("jane", &lost).await.map(|_| ()) })
    });
    let waiting: Vec<_> = waiting.collect();
    let free = || store.0.pulls.quick.available_permits();
    let others = async {
        while free() > PULLS.quick - PULLS.each {
            tokio::task::yield_now().await;
        }
        let chart = format!("oci://{address}/web:1.2.3");
        let (found, place) = store.pull("joe", &chart).await.unwrap();
        assert_eq!((found, free()), (bytes.into(), PULLS.quick - PULLS.each - 1));
        drop(place);
        assert_eq!(free(), PULLS.quick - PULLS.each);
    };
    timeout(Duration::from_secs(60), others).await.unwrap();
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn icons_of_a_repository_that_hangs_keep_nobody_from_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _) = serve(vec![("/a.png", b"GIF89a".to_vec())]).await;
    let store = Store::new(folder.path(), here());
    let url = |path: &str| Url::parse(&format!("http://{address}/{path}")).unwrap();
    let waiting = (0..48).map(|number| {
        let (store, lost) = (store.clone(), url(&number.to_string()));
        let never = std::future::pending().boxed();
        tokio::spawn(async move { store.icon_at("hangs", lost, never).await })
    });
    let waiting: Vec<_> = waiting.collect();
    let others = async {
        while store.0.icon_places.quick.available_permits() > ICONS.quick - ICONS.each {
            tokio::task::yield_now().await;
        }
        store.icon_at("one", url("a.png"), client(None)).await.unwrap();
    };
    timeout(Duration::from_secs(60), others).await.unwrap();
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_provenance_file_is_remembered_until_somebody_signs() {
    let folder = tempfile::tempdir().unwrap();
    let (address, log) = serve(vec![("/a.tgz.prov", b"signed".to_vec())]).await;
    let store = Store::new(folder.path(), here());
    for _ in 0..2 {
        for (url, text) in [("/a.tgz", Some("signed")), ("/b.tgz", None)] {
            let signed = store.signed(wanted(address, url, None), client(None), SIGNED_TIME);
            assert_eq!(signed.await.unwrap().as_deref(), text);
        }
    }
    assert_eq!(log.lock().unwrap().len(), 2);
    store.0.signed.invalidate(&wanted(address, "/b.tgz", None).signed_name()).await;
    store.signed(wanted(address, "/b.tgz", None), client(None), SIGNED_TIME).await.unwrap();
    assert_eq!(log.lock().unwrap().len(), 3);
    // Somebody has signed at another replica.
    let marked = Wanted { mark: "later".into(), ..wanted(address, "/b.tgz", None) };
    store.signed(marked, client(None), SIGNED_TIME).await.unwrap();
    assert_eq!(log.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn that_a_provenance_file_waited_for_its_place_in_vain_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (address, log) = serve(vec![("/a.tgz.prov", b"signed".to_vec())]).await;
    let store = Store::new(folder.path(), here());
    let all = u32::try_from(SIGNATURES.quick).unwrap();
    let held = store.0.signatures.quick.clone().acquire_many_owned(all).await.unwrap();
    let signed = |time| store.signed(wanted(address, "/a.tgz", None), client(None), time);
    let error = signed(Duration::ZERO).await.unwrap_err();
    assert!(matches!(*error, BadChart::Slow(_)) && log.lock().unwrap().is_empty(), "{error}");
    drop(held);
    assert_eq!(signed(SIGNED_TIME).await.unwrap().as_deref(), Some("signed"));
}

#[test]
fn an_address_in_a_registry_has_a_tag_or_gets_that_of_the_version() {
    let base = SocketAddr::from(([127, 0, 0, 1], 80));
    for (url, reference) in [
        ("oci://r.example:5000/web", "oci://r.example:5000/web:1.2.3"),
        ("oci://r.example:5000/web:v1", "oci://r.example:5000/web:v1"),
        ("oci://r.example/a/web@sha256:x", "oci://r.example/a/web@sha256:x"),
    ] {
        match wanted(base, url, None).address().unwrap() {
            Address::Registry(found) => assert_eq!(found, reference),
            Address::Server(url) => panic!("{url}"),
        }
    }
}

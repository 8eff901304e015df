//! One refresh against a server of a few lines, whose index can be changed.

use axum::Router;
use axum::extract::Request as Asked;
use axum::response::{IntoResponse as _, Response as Answer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;
use crate::charts::catalogue::{Chart, Entry, Version};
use crate::charts::{Policy, file};
use crate::upstream::Cluster;

#[derive(Default)]
struct Said {
    status: u16,
    body: String,
    etag: Option<&'static str>,
    changed: Option<String>,
}

/// What the server says, whether it waits before, and how often it was asked.
#[derive(Default)]
struct Server {
    said: Mutex<Said>,
    asked: Mutex<Vec<HeaderMap>>,
    arrived: Notify,
    /// Answers wait for this, if there is one.
    gate: Mutex<Option<Arc<Notify>>>,
}

impl Server {
    fn say(&self, status: u16, body: &str, etag: Option<&'static str>) {
        *self.said.lock().unwrap() = Said { status, body: body.to_owned(), etag, changed: None };
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn answer(&self, request: Asked) -> Answer {
        assert_eq!(request.uri().path(), "/stable/index.yaml");
        let asked_for = request.headers().get(header::IF_NONE_MATCH).cloned();
        self.asked.lock().unwrap().push(request.headers().clone());
        self.arrived.notify_one();
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let said = self.said.lock().unwrap();
        let Some(etag) = said.etag else {
            let status = StatusCode::from_u16(said.status).unwrap();
            let mut answer = (status, said.body.clone()).into_response();
            if let Some(changed) = &said.changed {
                answer.headers_mut().insert(header::LAST_MODIFIED, changed.parse().unwrap());
            }
            return answer;
        };
        if asked_for.is_some_and(|asked_for| asked_for == etag) {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        let status = StatusCode::from_u16(said.status).unwrap();
        (status, [(header::ETAG, etag)], said.body.clone()).into_response()
    }
}

fn index(versions: &[&str]) -> String {
    let mut text = "apiVersion: v1\nentries:\n  web:\n".to_owned();
    for version in versions {
        let entry = format!("  - name: web\n    version: {version}\n    urls: [web.tgz]\n");
        text.push_str(&entry);
    }
    text
}

async fn server() -> (Arc<Server>, String) {
    let server = Arc::new(Server::default());
    let answering = server.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/stable", listener.local_addr().unwrap());
    let router = Router::new().fallback(move |request: Asked| {
        let server = answering.clone();
        async move { server.answer(request).await }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (server, url)
}

/// One refresh where there are no other repositories.
async fn refresh(repository: &Arc<Repository>, snapshots: &Path) -> Ended {
    super::refresh(&repositories(&[], ""), repository, snapshots).await
}

fn restore(repository: &Repository, snapshots: &Path) {
    super::restore(&repositories(&[], ""), repository, snapshots);
}

fn repository(url: &str) -> Arc<Repository> {
    repositories(&["stable"], url).get("stable").unwrap()
}

/// Repositories with these names, all of them at one address.
fn repositories(names: &[&str], url: &str) -> Repositories {
    // kube's own client wants a process-wide provider; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Nobody answers there, and nobody asks.
    let nowhere = "http://127.0.0.1:1".parse().unwrap();
    let cluster = Cluster::new("test", kube::Config::new(nowhere)).unwrap();
    let entry = |name: &&str| format!("- name: {name}\n  type: index\n  url: {url}\n");
    let list = file::parse(&names.iter().map(entry).collect::<String>()).unwrap();
    let policy = Policy::default().with_loopback();
    Repositories::new(cluster, "ops".into(), policy, list).unwrap()
}

fn versions_of(repository: &Repository) -> Vec<String> {
    let loaded = repository.loaded.load();
    let all = loaded.catalogue.charts.iter().flat_map(|chart| &chart.versions);
    all.map(|version| version.version.to_string()).collect()
}

#[tokio::test]
async fn what_has_not_changed_is_not_read_again() {
    let (server, url) = server().await;
    let (repository, dir) = (repository(&url), tempfile::tempdir().unwrap());
    server.say(200, &index(&["1.0.0", "1.1.0"]), Some("\"a\""));
    assert_eq!(refresh(&repository, dir.path()).await, Ended::Changed);
    let first = repository.loaded.load_full();
    assert_eq!((first.status.state, first.status.charts, first.status.versions), (State::Ok, 1, 2));
    assert!(first.status.duration_millis.is_some() && first.status.digest.is_some());
    assert_eq!(refresh(&repository, dir.path()).await, Ended::Unchanged);
    let second = repository.loaded.load_full();
    assert!(Arc::ptr_eq(&first.catalogue, &second.catalogue));
    assert!(second.status.last_success >= first.status.last_success);
    assert_eq!((second.status.state, second.status.versions), (State::Ok, 2));
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|one| one.contains_key(header::IF_NONE_MATCH)).count(), 1);
}

#[tokio::test]
async fn the_same_document_without_an_etag_keeps_the_catalogue_and_another_replaces_it() {
    let (server, url) = server().await;
    let (repository, dir) = (repository(&url), tempfile::tempdir().unwrap());
    server.say(200, &index(&["1.0.0"]), None);
    refresh(&repository, dir.path()).await;
    let first = repository.loaded.load_full();
    refresh(&repository, dir.path()).await;
    assert!(Arc::ptr_eq(&first.catalogue, &repository.loaded.load().catalogue));
    server.say(200, &index(&["1.0.0", "2.0.0"]), None);
    refresh(&repository, dir.path()).await;
    assert_eq!(versions_of(&repository), ["2.0.0", "1.0.0"]);
    assert_eq!(repository.loaded.load().search.find("web").len(), 1);
}

#[tokio::test]
async fn a_broken_index_keeps_the_old_catalogue_and_says_so_until_it_is_mended() {
    let (server, url) = server().await;
    let (repository, dir) = (repository(&url), tempfile::tempdir().unwrap());
    server.say(200, &index(&["1.0.0"]), None);
    refresh(&repository, dir.path()).await;
    let success = repository.loaded.load().status.last_success;
    for (status, body) in [(200, "<html>"), (200, ""), (500, "busy"), (304, ""), (401, "")] {
        server.say(status, body, None);
        assert!(matches!(refresh(&repository, dir.path()).await, Ended::Badly), "{status} {body}");
        let loaded = repository.loaded.load_full();
        assert_eq!((loaded.status.state, loaded.status.last_success), (State::Failing, success));
        assert!(loaded.status.error.as_ref().is_some_and(|error| !error.is_empty()));
        assert_eq!(versions_of(&repository), ["1.0.0"]);
    }
    server.say(200, &index(&["1.0.1"]), None);
    refresh(&repository, dir.path()).await;
    assert_eq!(repository.loaded.load().status.error, None);
    assert_eq!(versions_of(&repository), ["1.0.1"]);
}

#[tokio::test]
async fn a_broken_entry_is_counted_and_the_others_are_there() {
    let (server, url) = server().await;
    let (repository, dir) = (repository(&url), tempfile::tempdir().unwrap());
    server.say(200, &index(&["1.0.0", "no-version", "1.2.0"]), None);
    refresh(&repository, dir.path()).await;
    assert_eq!(versions_of(&repository), ["1.2.0", "1.0.0"]);
    let status = repository.loaded.load().status.clone();
    assert_eq!((status.state, status.skipped, status.error), (State::Ok, 1, None));
    let tried = once(&repository).await.unwrap();
    assert_eq!((tried.charts, tried.versions, tried.skipped), (1, 2, 1));
    assert!(tried.first.unwrap().contains("no-version"));
}

#[tokio::test]
async fn a_snapshot_answers_until_the_first_refresh_and_is_not_read_again_by_it() {
    let (server, url) = server().await;
    let (first, dir) = (repository(&url), tempfile::tempdir().unwrap());
    server.say(200, &index(&["1.0.0"]), Some("\"a\""));
    refresh(&first, dir.path()).await;
    let again = repository(&url);
    assert!(versions_of(&again).is_empty());
    restore(&again, dir.path());
    assert_eq!(versions_of(&again), ["1.0.0"]);
    let status = again.loaded.load().status.clone();
    assert_eq!((status.state, status.charts, status.versions), (State::Ok, 1, 1));
    assert!(status.last_success.is_some());
    let restored = again.loaded.load_full();
    refresh(&again, dir.path()).await;
    assert!(Arc::ptr_eq(&restored.catalogue, &again.loaded.load().catalogue));
    assert_eq!(server.asked(), 2);
    // Of another address nothing is known.
    let other = repository("http://127.0.0.1:1/other");
    restore(&other, dir.path());
    assert_eq!(other.loaded.load().status.state, State::Never);
}

#[tokio::test]
async fn what_is_put_into_the_catalogue_during_a_refresh_is_not_lost_by_it() {
    let (server, url) = server().await;
    let (repository, dir) = (repository(&url), tempfile::tempdir().unwrap());
    let gate = Arc::new(Notify::new());
    *server.gate.lock().unwrap() = Some(gate.clone());
    server.say(200, &index(&["1.0.0"]), None);
    let uploaded = async {
        server.arrived.notified().await;
        assert_eq!(repository.loaded.load().status.state, State::Refreshing);
        let entry = Entry { name: "web".into(), version: "2.0.0".into(), ..Entry::default() };
        change(&repository, move |known| known.with(&entry).ok()).await;
        gate.notify_one();
    };
    let (ended, ()) = tokio::join!(refresh(&repository, dir.path()), uploaded);
    assert!(matches!(ended, Ended::Overtaken));
    assert_eq!(versions_of(&repository), ["2.0.0"]);
    assert_eq!(repository.loaded.load().status.state, State::Ok);
}

#[test]
fn a_changed_catalogue_is_not_taken_for_what_the_repository_has() {
    let text = || Some("a".to_owned());
    let etags =
        Etags { etag: text(), last_modified: text(), digest: text(), success: Some(1), skipped: 2 };
    let status = Status { charts: 7, error: text(), ..Status::default() };
    let loaded = Loaded { etags, status, ..Loaded::default() };
    let changed = changed(&loaded, Catalogue::default());
    let kept = Etags { success: Some(1), skipped: 2, ..Etags::default() };
    assert_eq!(changed.etags, kept);
    assert_eq!((changed.status.charts, changed.status.error), (0, text()));
}

#[tokio::test]
async fn what_is_too_much_with_all_others_is_not_taken_and_the_old_one_stays() {
    let (server, url) = server().await;
    let others = ["a", "b", "c", "d"];
    let all = repositories(&["stable", "a", "b", "c", "d"], &url);
    let (repository, dir) = (all.get("stable").unwrap(), tempfile::tempdir().unwrap());
    server.say(200, &index(&["1.0.0"]), None);
    assert_eq!(super::refresh(&all, &repository, dir.path()).await, Ended::Changed);
    server.say(200, &index(&["1.0.0", "2.0.0"]), None);
    let fill = |name: &str, catalogue: &Arc<Catalogue>| {
        let (text, catalogue) = (catalogue.text(), catalogue.clone());
        let status = Status { versions: catalogue.versions(), ..Status::default() };
        let loaded = Loaded { catalogue, text, status, ..Loaded::default() };
        all.get(name).unwrap().loaded.store(Arc::new(loaded));
    };
    let versions = vec![Version::default(); ALL_VERSIONS / 4];
    let many = Chart { versions: versions.into(), ..Chart::default() };
    let long = Chart { description: "x".repeat(ALL_TEXT / 4).into(), ..Chart::default() };
    for chart in [many, long] {
        let catalogue = Arc::new(Catalogue { charts: vec![chart] });
        others.iter().for_each(|name| fill(name, &catalogue));
        assert!(matches!(super::refresh(&all, &repository, dir.path()).await, Ended::Badly));
        let error = repository.loaded.load().status.error.clone().unwrap();
        assert!(error.contains("all repositories together"), "{error}");
        assert_eq!(versions_of(&repository), ["1.0.0"]);
    }
    fill("a", &Arc::default());
    assert_eq!(super::refresh(&all, &repository, dir.path()).await, Ended::Changed);
    assert_eq!(versions_of(&repository), ["2.0.0", "1.0.0"]);
}

#[tokio::test]
async fn a_date_of_last_change_that_is_no_date_is_not_kept() {
    let (server, url) = server().await;
    let (repository, dir) = (repository(&url), tempfile::tempdir().unwrap());
    let said = [
        ("1.0.0", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), true),
        ("2.0.0", "x".repeat(65), false),
    ];
    for (version, changed, kept) in said {
        server.say(200, &index(&[version]), None);
        server.said.lock().unwrap().changed = Some(changed);
        refresh(&repository, dir.path()).await;
        assert_eq!(versions_of(&repository), [version]);
        assert_eq!(repository.loaded.load().etags.last_modified.is_some(), kept);
    }
}

#[tokio::test]
async fn a_trial_that_nobody_waits_for_leaves_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repository = repository(&format!("http://{}/stable", listener.local_addr().unwrap()));
    let trial = tokio::spawn(async move { once(&repository).await.map(drop) });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = [0; 4096];
    assert!(stream.read(&mut asked).await.unwrap() > 0);
    let said = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\napiVersion: v1\n";
    stream.write_all(said).await.unwrap();
    // Lets it come to where it reads.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    trial.abort();
    assert!(trial.await.unwrap_err().is_cancelled());
    // Long before a server that says nothing is found too slow.
    let left = timeout(Duration::from_secs(20), stream.read(&mut asked)).await.unwrap();
    assert!(left.is_err() || left.is_ok_and(|count| count == 0));
}

//! The schedule, with a server that answers only when it is told to.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::IntoResponse;
use http::StatusCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::charts::catalogue::{Catalogue, Entry};
use crate::charts::repository::State;
use crate::charts::snapshot::Etags;
use crate::charts::{Policy, file};
use crate::upstream::Cluster;

/// Within this whatever should happen has happened, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    /// Requests that are waiting, the most that ever were, and all.
    inside: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
    /// One permit for each answer.
    gate: Semaphore,
}

impl Server {
    async fn answer(&self) -> &'static str {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.all.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        "apiVersion: v1\nentries:\n  web:\n  - name: web\n    version: 1.0.0\n    urls: [w.tgz]\n"
    }

    fn all(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }
}

/// A server, and repositories with these names in it.
async fn set(names: &[&str]) -> (Arc<Server>, Repositories) {
    let server = Arc::new(Server {
        inside: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        all: AtomicUsize::new(0),
        gate: Semaphore::new(0),
    });
    let answering = server.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let router = Router::new().fallback(move || {
        let server = answering.clone();
        async move { server.answer().await }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    // kube's own client wants a process-wide provider; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let nowhere = "http://127.0.0.1:1".parse().unwrap();
    let cluster = Cluster::new("test", kube::Config::new(nowhere)).unwrap();
    let entry =
        |name: &&str| format!("- name: {name}\n  type: index\n  url: http://{host}/{name}\n");
    let list = file::parse(&names.iter().map(entry).collect::<String>()).unwrap();
    let policy = Policy::default().with_loopback();
    (server, Repositories::new(cluster, "ops".into(), policy, list).unwrap())
}

async fn until(what: impl Fn() -> bool) {
    let reached = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
}

fn is_ok(repositories: &Repositories, name: &str) -> bool {
    repositories.get(name).unwrap().loaded.load().status.state == State::Ok
}

#[tokio::test]
async fn two_are_refreshed_at_once_and_the_others_after_them() {
    let names = ["a", "b", "c", "d", "e"];
    let (server, repositories) = set(&names).await;
    let (tasks, stop, dir) =
        (TaskTracker::new(), CancellationToken::new(), tempfile::tempdir().unwrap());
    start(&repositories, dir.path(), &tasks, &stop);
    until(|| server.inside.load(Ordering::SeqCst) == DOWNLOADS).await;
    server.gate.add_permits(names.len());
    until(|| names.iter().all(|name| is_ok(&repositories, name))).await;
    assert_eq!((server.most.load(Ordering::SeqCst), server.all()), (DOWNLOADS, names.len()));
    stop.cancel();
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn what_is_asked_for_during_a_refresh_is_done_behind_it() {
    let (server, repositories) = set(&["a"]).await;
    let (tasks, stop, dir) =
        (TaskTracker::new(), CancellationToken::new(), tempfile::tempdir().unwrap());
    let refresher = start(&repositories, dir.path(), &tasks, &stop);
    until(|| server.all() == 1).await;
    refresher.refresh_now("a");
    refresher.refresh_now("a");
    refresher.refresh_now("unknown");
    server.gate.add_permits(1);
    until(|| server.all() == 2).await;
    server.gate.add_permits(1);
    until(|| is_ok(&repositories, "a") && server.inside.load(Ordering::SeqCst) == 0).await;
    // And when nothing is due.
    refresher.refresh_now("a");
    until(|| server.all() == 3).await;
    stop.cancel();
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn refreshes_are_counted_by_what_became_of_them_and_catalogues_added_up() {
    let (server, repositories) = set(&["a", "b"]).await;
    let (tasks, stop, dir) =
        (TaskTracker::new(), CancellationToken::new(), tempfile::tempdir().unwrap());
    let refresher = start(&repositories, dir.path(), &tasks, &stop);
    let counted = |wanted: [u64; OUTCOMES.len()]| {
        let found = refresher.totals().refreshes;
        found.iter().map(|(_, count)| *count).eq(wanted)
    };
    server.gate.add_permits(3);
    until(|| counted([2, 0, 0, 0])).await;
    refresher.refresh_now("a");
    until(|| counted([2, 1, 0, 0])).await;
    let totals = refresher.totals();
    assert_eq!((totals.charts, totals.versions, totals.skipped), (2, 2, 0));
    let text = repositories.get("a").unwrap().loaded.load().catalogue.text();
    assert_eq!(totals.bytes, 2 * text);
    repositories.get("b").unwrap().loaded.store(Arc::default());
    assert_eq!(refresher.totals().bytes, text);
    assert_eq!(totals.repositories[1], ("ok", 2));
    assert!(totals.last_refresh <= totals.refreshing);
    stop.cancel();
}

#[tokio::test]
async fn snapshots_answer_before_any_server_does() {
    let (server, repositories) = set(&["a"]).await;
    let dir = tempfile::tempdir().unwrap();
    let repository = repositories.get("a").unwrap();
    let entry = Entry { name: "web".into(), version: "1.0.0".into(), ..Entry::default() };
    let catalogue = Catalogue::default().with(&entry).unwrap();
    let etags = Etags { success: Some(1), ..Etags::default() };
    snapshot::save(dir.path(), &repository.key(), &catalogue, &etags).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    start(&repositories, dir.path(), &tasks, &stop);
    until(|| server.all() == 1).await;
    assert!(repository.loaded.load().catalogue.find("web").is_some());
    stop.cancel();
}

fn plan(repository: Arc<Repository>, task: AbortHandle, begun: Instant) -> Plan {
    let running = Some(Running { task, begun });
    Plan { repository, due: begun, asked: false, failures: 0, running }
}

fn refresher(repositories: &Repositories, snapshots: &Path) -> Refresher {
    Refresher(Arc::new(Inner {
        repositories: repositories.clone(),
        snapshots: snapshots.to_owned(),
        wanted: Mutex::default(),
        wake: Notify::new(),
        counts: Counts::default(),
    }))
}

#[tokio::test]
async fn a_refresh_ends_when_its_repository_is_gone_or_another_one() {
    let (_server, repositories) = set(&["here", "moved"]).await;
    let (_other, before) = set(&["moved", "gone"]).await;
    let dir = tempfile::tempdir().unwrap();
    let refresher = refresher(&repositories, dir.path());
    let mut running = JoinSet::new();
    let mut plans = HashMap::new();
    for (all, name) in [(&repositories, "here"), (&before, "moved"), (&before, "gone")] {
        let task = running.spawn(std::future::pending::<Ended>());
        plans.insert(name.to_owned(), plan(all.get(name).unwrap(), task, Instant::now()));
    }
    refresher.meet(&mut plans, &mut false).await;
    for _ in 0..2 {
        let ended = timeout(PATIENCE, running.join_next_with_id()).await.unwrap().unwrap();
        assert!(ended.as_ref().is_err_and(JoinError::is_cancelled));
        settle(&mut plans, ended);
    }
    refresher.meet(&mut plans, &mut false).await;
    assert!(plans["here"].running.is_some() && !plans.contains_key("gone"));
    let moved = repositories.get("moved").unwrap();
    assert!(Arc::ptr_eq(&plans["moved"].repository, &moved) && plans["moved"].asked);
}

#[tokio::test]
async fn a_refresh_that_takes_long_holds_no_place_until_there_are_too_many() {
    let (_server, repositories) = set(&["a"]).await;
    let (mut running, mut plans) = (JoinSet::new(), HashMap::new());
    let begun = Instant::now();
    let mut add = |plans: &mut HashMap<String, Plan>, begun: Instant| {
        let task = running.spawn(std::future::pending::<()>());
        let plan = plan(repositories.get("a").unwrap(), task, begun);
        plans.insert(plans.len().to_string(), plan);
    };
    (0..DOWNLOADS).for_each(|_| add(&mut plans, begun));
    assert_eq!(free(&plans, begun), begun + LONG);
    let later = begun + LONG;
    assert_eq!(free(&plans, later), later);
    (DOWNLOADS..MOST - 1).for_each(|_| add(&mut plans, begun));
    assert_eq!(free(&plans, later), later);
    add(&mut plans, begun);
    assert!(free(&plans, later) > later);
}

/// Repositories of an API server that says this, whatever it is asked for.
async fn told<A: IntoResponse + Send + 'static>(
    said: impl Fn() -> A + Clone + Send + Sync + 'static,
) -> Repositories {
    let router = Router::new().fallback(move || std::future::ready(said()));
    let cluster = Cluster::played(router).await;
    Repositories::new(cluster, "ops".into(), Policy::default(), Vec::new()).unwrap()
}

#[tokio::test]
async fn another_mark_on_a_config_map_asks_for_one_refresh() {
    let mark = Arc::new(Mutex::new(""));
    let said = mark.clone();
    let repositories = told(move || {
        let definition = json!({ "name": "a", "type": "index", "url": "https://a.example" });
        let annotations = json!({ "binnacle.dev/changed": *said.lock().unwrap() });
        let metadata = json!({ "name": "binnacle.repository.a", "annotations": annotations });
        let data = json!({ "definition": definition.to_string() });
        json!({ "items": [{ "metadata": metadata, "data": data }] }).to_string()
    });
    let repositories = repositories.await;
    let dir = tempfile::tempdir().unwrap();
    let (refresher, mut swept) = (refresher(&repositories, dir.path()), false);
    let mut plans = HashMap::new();
    for (said, is_asked) in [
        // A new one is due anyway.
        ("first", false),
        ("first", false),
        ("second", true),
        ("second", false),
        ("by hand", true),
        ("by hand", false),
    ] {
        *mark.lock().unwrap() = said;
        repositories.look().await;
        refresher.meet(&mut plans, &mut swept).await;
        let plan = plans.get_mut("a").unwrap();
        assert_eq!(std::mem::take(&mut plan.asked), is_asked, "{said}");
    }
}

#[tokio::test]
async fn snapshots_of_what_went_before_we_came_are_removed_once_we_know_what_there_is() {
    let repositories = told(|| "{\"items\":[]}".to_owned()).await;
    let dir = tempfile::tempdir().unwrap();
    snapshot::save(dir.path(), "ab", &Catalogue::default(), &Etags::default()).unwrap();
    let (refresher, mut swept) = (refresher(&repositories, dir.path()), false);
    refresher.meet(&mut HashMap::new(), &mut swept).await;
    assert!(dir.path().join("ab.snapshot").exists() && !swept);
    let changed = repositories.changed();
    repositories.look().await;
    assert!(changed.has_changed().unwrap());
    refresher.meet(&mut HashMap::new(), &mut swept).await;
    assert!(!dir.path().join("ab.snapshot").exists() && swept);
}

#[tokio::test]
async fn a_moment_without_the_right_to_look_costs_no_snapshot() {
    let metadata = json!({ "name": "binnacle.repository.a", "uid": "uid of a" });
    let definition = json!({ "name": "a", "type": "index", "url": "https://a.example" });
    let data = json!({ "definition": definition.to_string() });
    let list = json!({ "items": [{ "metadata": metadata, "data": data }] }).to_string();
    let says = Arc::new(Mutex::new((StatusCode::OK, list.clone())));
    let said = says.clone();
    let repositories = told(move || said.lock().unwrap().clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let (refresher, mut swept) = (refresher(&repositories, dir.path()), false);
    let mut plans = HashMap::new();
    repositories.look().await;
    refresher.meet(&mut plans, &mut swept).await;
    let key = repositories.get("a").unwrap().key();
    let entry = Entry { name: "web".into(), version: "1.0.0".into(), ..Entry::default() };
    let catalogue = Catalogue::default().with(&entry).unwrap();
    let etags = Etags { success: Some(1), ..Etags::default() };
    snapshot::save(dir.path(), &key, &catalogue, &etags).unwrap();
    *says.lock().unwrap() = (StatusCode::FORBIDDEN, "{}".to_owned());
    repositories.look().await;
    refresher.meet(&mut plans, &mut swept).await;
    assert!(repositories.get("a").is_none() && plans.is_empty());
    *says.lock().unwrap() = (StatusCode::OK, list);
    repositories.look().await;
    refresher.meet(&mut plans, &mut swept).await;
    let again = repositories.get("a").unwrap();
    assert!(again.loaded.load().catalogue.find("web").is_some());
    // But one that is really gone takes its own along.
    *says.lock().unwrap() = (StatusCode::OK, "{\"items\":[]}".to_owned());
    repositories.look().await;
    refresher.meet(&mut plans, &mut swept).await;
    assert!(!dir.path().join(format!("{key}.snapshot")).exists());
}

#[test]
fn a_repository_that_fails_is_asked_less_and_less_often_but_within_an_interval_and_an_hour() {
    let waits = |interval: u64| {
        let wait = |failures| back_off(failures, Duration::from_secs(interval)).as_secs();
        (1..10).chain([u32::MAX]).map(wait).collect::<Vec<u64>>()
    };
    assert_eq!(waits(24 * 3600), [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    assert_eq!(waits(900), [30, 60, 120, 240, 480, 900, 900, 900, 900, 900]);
    assert_eq!(waits(10), [10; 10]);
}

#[tokio::test]
async fn however_a_refresh_has_ended_the_next_one_is_due_within_an_interval() {
    let (_server, repositories) = set(&["a"]).await;
    let repository = repositories.get("a").unwrap();
    let interval = repository.definition.interval();
    for ended in OUTCOMES.map(|(_, ended)| ended) {
        let mut running = JoinSet::new();
        let task = running.spawn(std::future::ready(ended));
        // So many that it would be asked once an hour.
        let failing = Plan { failures: 20, ..plan(repository.clone(), task, Instant::now()) };
        let mut plans = HashMap::from([("a".to_owned(), failing)]);
        settle(&mut plans, running.join_next_with_id().await.unwrap());
        assert!(plans["a"].running.is_none());
        assert!(plans["a"].due <= Instant::now() + interval, "{ended:?}");
    }
}

#[test]
fn waits_are_a_fifth_shorter_at_most_and_never_longer() {
    let wait = Duration::from_secs(100);
    for _ in 0..100 {
        let seconds = jittered(wait).as_secs_f64();
        assert!((79.9..=100.0).contains(&seconds), "{seconds}");
    }
    assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
}

//! Tests of how a feed is kept: a watch that says nothing is not taken for a dead one, nor believed
//! for ever, and not after a sleep. The API server is played by a few lines here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;

use super::super::State;
use super::super::watch::SILENCE;
use super::*;
use crate::kinds::by_name;

/// How long a watch of this server says nothing before it ends in good order: not `SHORT`.
const HELD: Duration = Duration::from_millis(1_200);
/// Far beyond what any wait here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// An API server without objects, whose watches are quiet; and the queries of watches and lists.
async fn quiet(kind: &str) -> (Cluster, mpsc::UnboundedReceiver<String>) {
    played(kind, Duration::ZERO, |_| held(None)).await
}

/// An answer to a watch: perhaps a line, and nothing more until it ends in good order.
fn held(line: Option<String>) -> Response {
    let line = line.map(|line| Ok::<_, Infallible>(Bytes::from(line)));
    let silence = futures::stream::pending().take_until(tokio::time::sleep(HELD));
    Body::from_stream(futures::stream::iter(line).chain(silence)).into_response()
}

/// An API server without objects that takes so long for a list, and answers the first, second, …
/// watch like this; and the queries of watches and lists.
async fn played(
    kind: &str,
    listing: Duration,
    watch: impl Fn(usize) -> Response + Clone + Send + Sync + 'static,
) -> (Cluster, mpsc::UnboundedReceiver<String>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let empty = json!({
        "kind": format!("{kind}List"), "metadata": {"resourceVersion": "7"}, "items": [],
    });
    let (empty, watches) = (empty.to_string(), Arc::<AtomicUsize>::default());
    let answer = move |uri: http::Uri| {
        let query = uri.query().unwrap_or_default().to_owned();
        let (is_list, empty) = (!query.contains("watch=1"), empty.clone());
        let (watch, watches) = (watch.clone(), watches.clone());
        let _ = sender.send(query);
        async move {
            if is_list {
                tokio::time::sleep(listing).await;
                return empty.into_response();
            }
            watch(watches.fetch_add(1, Ordering::SeqCst) + 1)
        }
    };
    (Cluster::played(axum::Router::new().fallback(answer)).await, asked)
}

/// How long a watch asks to last.
fn lasting(query: &str) -> Duration {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("timeoutSeconds="));
    Duration::from_secs(asked.unwrap().parse().unwrap())
}

/// The next watch.
async fn watched(asked: &mut mpsc::UnboundedReceiver<String>) -> String {
    loop {
        let query = tokio::time::timeout(DEADLINE, asked.recv()).await.unwrap().unwrap();
        if query.contains("watch=1") {
            return query;
        }
    }
}

#[tokio::test]
async fn what_nothing_moves_is_listed_anew_before_its_version_is_forgotten_or_hides_events() {
    for (name, has_bookmarks) in [("event", false), ("pod", false), ("pod", true)] {
        let kind = by_name(name).unwrap();
        let watch = move |turn: usize| {
            let version = json!({"metadata": {"resourceVersion": (7 + turn).to_string()}});
            let bookmark = json!({"type": "BOOKMARK", "object": version});
            held(has_bookmarks.then(|| format!("{bookmark}\n")))
        };
        let (cluster, mut asked) = played(kind.resource.kind, Duration::ZERO, watch).await;
        let feed = Arc::new(Feed::new(kind));
        let kept = feed.clone();
        let keeping =
            tokio::spawn(async move { keep(&cluster, &kept, HELD, SystemTime::now).await });
        watched(&mut asked).await;
        let mut lists = 0;
        // The first ends after HELD, and so does what the list behind it has begun.
        for _ in 0..2 {
            loop {
                let query = tokio::time::timeout(DEADLINE, asked.recv()).await.unwrap().unwrap();
                if query.contains("watch=1") {
                    break;
                }
                lists += 1;
            }
            assert_ne!(feed.state(), State::Refused);
        }
        assert_eq!(lists > 0, !has_bookmarks, "{name}: {lists} lists");
        assert_eq!(feed.restarts.load(Ordering::Relaxed), 0, "{name}");
        keeping.abort();
    }
    // Before etcd is compacted; with bookmarks not before it has told its progress.
    let longest = |name| longest_quiet(by_name(name).unwrap()).as_secs() / 60;
    assert!(longest("event") < 5 && longest("pod") > 22);
}

#[tokio::test]
async fn a_refusal_that_stalls_in_its_body_does_not_hold_a_feed_for_ever() {
    let watch = |turn| {
        if turn == 1 {
            return held(None);
        }
        let stalled = futures::stream::pending::<Result<Bytes, Infallible>>();
        (StatusCode::SERVICE_UNAVAILABLE, Body::from_stream(stalled)).into_response()
    };
    let (cluster, mut asked) = played("Pod", Duration::ZERO, watch).await;
    let feed = Arc::new(Feed::new(by_name("pod").unwrap()));
    let kept = feed.clone();
    let keeping = tokio::spawn(async move { run(&cluster, &kept).await });
    for _ in 0..3 {
        watched(&mut asked).await;
    }
    assert!(matches!(feed.state(), State::Stale(_)), "{:?}", feed.state());
    keeping.abort();
}

#[tokio::test]
async fn slow_lists_whose_watches_expire_at_once_are_not_a_storm() {
    let watch = |_| (StatusCode::GONE, "{}").into_response();
    let (cluster, mut asked) = played("Pod", SHORT, watch).await;
    let feed = Feed::new(by_name("pod").unwrap());
    let keeping = tokio::spawn(async move { run(&cluster, &feed).await });
    for _ in 0..3 {
        watched(&mut asked).await;
    }
    let since = Instant::now();
    tokio::time::timeout(DEADLINE, asked.recv()).await.unwrap().unwrap();
    // The third wait is at least half of four times the first; some of it for the way until here.
    assert!(since.elapsed() >= BACK_OFF.0, "{:?}", since.elapsed());
    keeping.abort();
}

#[test]
fn what_was_watched_is_not_gone_at_the_first_404() {
    let feed = Feed::new(by_name("pod").unwrap());
    let gone = Failure::status(StatusCode::NOT_FOUND, b"404 page not found");
    assert!(is_refused(&feed, &gone, &mut None), "it was never watched");
    feed.heard();
    let mut since = None;
    assert!(!is_refused(&feed, &gone, &mut since) && since.is_some());
    since = Some(Instant::now().checked_sub(NEWBORN).unwrap());
    assert!(is_refused(&feed, &gone, &mut since));
}

#[tokio::test]
async fn a_quiet_watch_ends_before_its_silence_is_taken_for_death_and_goes_on_unnoticed() {
    for name in ["event", "pod"] {
        let kind = by_name(name).unwrap();
        let (cluster, mut asked) = quiet(kind.resource.kind).await;
        let feed = Arc::new(Feed::new(kind));
        let kept = feed.clone();
        let keeping = tokio::spawn(async move { run(&cluster, &kept).await });
        let mut changes = 0;
        for turn in 0..2 {
            let query = watched(&mut asked).await;
            assert!(lasting(&query) < SILENCE, "{query}");
            assert!(query.contains("resourceVersion=7"), "{query}");
            let opened = async {
                while feed.state() != State::Current {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(DEADLINE, opened).await.unwrap();
            if turn == 0 {
                changes = feed.changes();
            }
        }
        assert_eq!(feed.changes(), changes, "nobody is woken when the watch of {name} is resumed");
        assert_eq!(feed.restarts.load(Ordering::Relaxed), 0, "{name}");
        keeping.abort();
    }
}

#[tokio::test]
async fn after_a_sleep_rows_are_as_old_as_it_was_long_until_a_watch_is_open_again() {
    /// In seconds.
    static SLEPT: AtomicU64 = AtomicU64::new(0);
    fn calendar() -> SystemTime {
        SystemTime::now() + Duration::from_secs(SLEPT.load(Ordering::SeqCst))
    }
    let watch = |turn| {
        if turn > 1 {
            return (StatusCode::SERVICE_UNAVAILABLE, "{}").into_response();
        }
        Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()).into_response()
    };
    let (cluster, mut asked) = played("Pod", Duration::ZERO, watch).await;
    let feed = Arc::new(Feed::new(by_name("pod").unwrap()));
    let kept = feed.clone();
    let keeping = tokio::spawn(async move { keep(&cluster, &kept, QUIET, calendar).await });
    watched(&mut asked).await;
    let opened = async {
        while feed.state() != State::Current {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, opened).await.unwrap();
    let night = Duration::from_secs(8 * 3_600);
    SLEPT.store(night.as_secs(), Ordering::SeqCst);
    watched(&mut asked).await;
    let state = feed.state();
    assert!(matches!(state, State::Stale(age) if age + NAP >= night), "{state:?}");
    keeping.abort();
}

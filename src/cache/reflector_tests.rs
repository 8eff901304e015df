//! Tests of how a feed is kept: a watch that says nothing is not taken for a dead one. The API server
//! is played by a few lines here.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::IntoResponse as _;
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
    let (sender, watches) = mpsc::unbounded_channel();
    let empty = json!({
        "kind": format!("{kind}List"), "metadata": {"resourceVersion": "7"}, "items": [],
    });
    let answer = move |uri: http::Uri| {
        let query = uri.query().unwrap_or_default().to_owned();
        let is_list = !query.contains("watch=1");
        let _ = sender.send(query);
        if is_list {
            return std::future::ready(empty.to_string().into_response());
        }
        let silence = futures::stream::pending::<Result<Bytes, Infallible>>();
        let silence = silence.take_until(tokio::time::sleep(HELD));
        std::future::ready(Body::from_stream(silence).into_response())
    };
    // kube's own client wants a process-wide provider; a second call is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let router = axum::Router::new().fallback(answer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Cluster::new("test", kube::Config::new(url)).unwrap(), watches)
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
async fn a_quiet_watch_without_bookmarks_is_listed_anew_before_its_version_is_forgotten() {
    for (name, has_bookmarks) in [("event", false), ("pod", true)] {
        let kind = by_name(name).unwrap();
        let (cluster, mut asked) = quiet(kind.resource.kind).await;
        let feed = Arc::new(Feed::new(kind));
        let kept = feed.clone();
        let keeping = tokio::spawn(async move { keep(&cluster, &kept, HELD).await });
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
}

#[tokio::test]
async fn a_quiet_watch_ends_before_its_silence_is_taken_for_death_and_goes_on_unnoticed() {
    for (name, has_bookmarks) in [("event", false), ("pod", true)] {
        let kind = by_name(name).unwrap();
        let (cluster, mut asked) = quiet(kind.resource.kind).await;
        let feed = Arc::new(Feed::new(kind));
        let kept = feed.clone();
        let keeping = tokio::spawn(async move { run(&cluster, &kept).await });
        let mut changes = 0;
        for turn in 0..2 {
            let query = watched(&mut asked).await;
            assert_eq!(lasting(&query) > SILENCE, has_bookmarks, "{query}");
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

//! Logs that cost much, and readers who never read: long windows have a few places, costly filters
//! are few and keep nobody else waiting.
//!
//! It is NOT where the bounds of one log are tested (`src/api/log*_tests.rs`).

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::certificate::trusting;
use crate::log_follow::in_front_of;
use crate::log_streams::get;
use crate::logs::answering;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Near the limit of a filter, and each byte of a line makes a state that was not there before.
const COSTLY: &str = "%5Bab%5D*a%5Bab%5D%7B2000%7D%5B%5Eab%5D";

#[tokio::test]
async fn long_windows_whom_nobody_takes_keep_long_ones_waiting_and_no_others() {
    // Twice as much in JSON, which is more than connections hold by themselves.
    let short = format!("2026-01-02T03:04:05Z {}\n", "\"".repeat(1_500));
    let (some, long) = (short.repeat(300), short.repeat(5_000));
    let read = Arc::<AtomicUsize>::default();
    let reads = read.clone();
    let server = answering(Arc::new(move |head: &str| {
        if head.contains("/pods/long/log?") {
            reads.fetch_add(1, Ordering::Relaxed);
            return Some((200, long.clone()));
        }
        if head.contains("/pods/some/log?") {
            return Some((200, some.clone()));
        }
        let is_short = head.contains("/pods/short/log?");
        Some(if is_short { (200, short.clone()) } else { (404, "{}".to_owned()) })
    }));
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(server.await, folder.path()).await;
    let ask = |pod: &str, person: usize| {
        let query = "logFilePosition=end&offsetFrom=-9999&offsetTo=9999";
        let url = format!("https://{}/api/v1/log/shop/{pod}/main?{query}", running.https);
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        async move { get(tls, &url, &format!("person-{person}"), &[]).await }
    };
    let mut held = join_all((0..8).map(|number| ask("long", number / 2))).await;
    assert!(held.iter().all(|answer| answer.status() == 200), "{held:?}");
    let mut ninth = pin!(ask("long", 9));
    let others = async {
        while read.load(Ordering::Relaxed) < 9 {
            assert_eq!(ask("short", 9).await.status(), 200);
        }
        assert_eq!(ask("short", 0).await.status(), 200);
        // As much work as the ninth would be, if it had no place to wait for.
        for _ in 0..16 {
            let answer = ask("some", 9).await;
            answer.into_body().collect().await.unwrap();
        }
    };
    tokio::select! {
        biased;
        answer = &mut ninth => panic!("{} without a place", answer.status()),
        others = tokio::time::timeout(DEADLINE, others) => others.unwrap(),
    }
    drop(held.pop());
    let answer = ninth.await;
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let window: Value = serde_json::from_slice(&body).unwrap();
    let lines = window["logs"].as_array().unwrap();
    assert!(lines.len() > 1_000 && window["info"]["truncated"] == true, "{}", lines.len());
}

#[tokio::test]
async fn costly_filters_over_long_lines_are_few_and_keep_nobody_else_waiting() {
    let line: String = (0..64 << 10).map(|at| if at % 7 < 3 { 'a' } else { 'b' }).collect();
    let log = format!("{line}\n").repeat(4);
    let server = answering(Arc::new(move |head: &str| {
        if head.contains("/pods/web/log?") {
            return Some((200, log.clone()));
        }
        let state = json!([{"name": "main", "state": {"running": {}}}]);
        let pod = json!({
            "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": "Running", "containerStatuses": state, "allowed": true},
        });
        Some((200, pod.to_string()))
    }));
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(server.await, folder.path()).await;
    let ask = |path: &str, person: usize| {
        let url = format!("https://{}{path}", running.https);
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        async move { get(tls, &url, &format!("person-{person}"), &[]).await }
    };
    let path = format!("/api/v1/log/shop/web/main/follow?filter={COSTLY}");
    let following = join_all((0..64).map(|number| ask(&path, number / 8))).await;
    let count = |status: u16| following.iter().filter(|answer| answer.status() == status).count();
    assert_eq!(count(200) + count(429), 64, "{following:?}");
    assert!(count(200) >= 32 && count(429) > 0, "{} of 64 are followed", count(200));
    for _ in 0..20 {
        assert_eq!(ask("/livez", 9).await.status(), 200);
    }
    let plain = ask("/api/v1/log/shop/web/main/follow", 9).await;
    assert_eq!(plain.status(), 200);
    let event = tokio::time::timeout(DEADLINE, plain.into_body().frame()).await;
    assert!(event.unwrap().is_some(), "a log without a filter is read meanwhile");
}

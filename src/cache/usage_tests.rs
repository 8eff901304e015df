//! Tests of the history: what a poll adds, what a scope opens, what is summed, and how the poller
//! stands while its source is absent, refused, broken or back.

use axum::response::IntoResponse as _;
use serde_json::json;

use super::*;
use crate::cache::usage_table::{POINTS, WINDOW};
use crate::kinds::usage::Measured;
use crate::kinds::{UsageFacts, by_name};
use crate::tests::beside;

/// Some time in unix seconds; the first poll.
const T: i64 = 1_800_000_000;
const MIB: i64 = 1 << 20;

fn scope(namespaces: Option<&[&str]>) -> Scope {
    Scope::for_tests(by_name("podmetrics").unwrap(), namespaces)
}

fn item(namespace: &str, name: &str, time: i64, cpu: i64) -> Measured {
    let usage = UsageFacts { time, cpu, memory: cpu * MIB };
    Measured { namespace: namespace.into(), name: name.into(), usage }
}

fn pods(usage: &Usage, now: i64, items: Vec<Measured>) {
    let pods = Measurements { items, ..Measurements::default() };
    usage.take(now, Measurements::default(), pods);
}

fn cpu(series: &Series) -> Vec<(i64, i64)> {
    series.points.iter().map(|(at, cpu, _)| (at - T, *cpu)).collect()
}

fn one(usage: &Usage, name: &str) -> Option<Vec<(i64, i64)>> {
    usage.get(&scope(None), "n", name).map(|series| cpu(&series))
}

#[test]
fn a_point_is_added_only_when_the_source_has_measured_anew() {
    let usage = Usage::default();
    pods(&usage, T, vec![item("n", "a", 1, 10), item("n", "b", 1, 1)]);
    pods(&usage, T + 15, vec![item("n", "a", 1, 10), item("n", "b", 1, 1)]);
    assert_eq!(one(&usage, "a").unwrap(), [(0, 10)], "nothing moved: no tick either");
    pods(&usage, T + 30, vec![item("n", "a", 2, 11), item("n", "b", 1, 1)]);
    // The clock of the node was set back: still a new measurement.
    pods(&usage, T + 45, vec![item("n", "a", 1, 12), item("n", "b", 2, 2)]);
    assert_eq!(one(&usage, "a").unwrap(), [(0, 10), (30, 11), (45, 12)]);
    assert_eq!(one(&usage, "b").unwrap(), [(0, 1), (45, 2)]);
    let both = usage.sum(&scope(None), [("n", "a"), ("n", "b")].into_iter());
    assert_eq!(both.points[0], (T, 11, 11 * MIB));
    // What was not measured anew counts as it was measured last.
    assert_eq!(cpu(&both), [(0, 11), (30, 12), (45, 14)]);
    assert_eq!(both.sources, 2);
    let all = Scope::for_tests(by_name("pod").unwrap(), None);
    assert_eq!(usage.total(&scope(None), &all), both);
}

#[test]
fn what_is_back_unchanged_after_a_while_counts_from_then_on_and_not_in_between() {
    let usage = Usage::default();
    pods(&usage, T, vec![item("n", "a", 1, 10), item("n", "b", 1, 1)]);
    pods(&usage, T + 15, vec![item("n", "a", 2, 11)]);
    pods(&usage, T + 30, vec![item("n", "a", 3, 12), item("n", "b", 1, 1)]);
    let both = usage.sum(&scope(None), [("n", "a"), ("n", "b")].into_iter());
    assert_eq!(cpu(&both), [(0, 11), (15, 11), (30, 13)]);
    assert_eq!(one(&usage, "b").unwrap(), [(0, 1), (30, 1)]);
}

#[test]
fn what_is_measured_rarely_counts_all_the_time_until_no_measurement_is_in_the_window() {
    let usage = Usage::default();
    let poll = |at: i64, slow: i64| {
        let slow = item("n", "slow", slow, 10 + slow);
        pods(&usage, T + at * 15, vec![item("n", "fast", at, 1), slow]);
        usage.sum(&scope(None), [("n", "fast"), ("n", "slow")].into_iter())
    };
    // Anew every ten minutes, so that most of the window lies behind its first measurement.
    let slow = |at: i64| at / 40;
    for at in 0..150 {
        let sum = cpu(&poll(at, slow(at)));
        assert_eq!(sum.len() as i64, (at + 1).min(POINTS as i64));
        assert_eq!(sum.last().unwrap().0, at * 15);
        for (time, cpu) in sum {
            assert_eq!(cpu, 11 + slow(time / 15), "{time} s, seen at poll {at}");
        }
        for (time, cpu) in one(&usage, "slow").unwrap() {
            assert_eq!((time % 600, cpu), (0, 10 + slow(time / 15)), "its own points are measured");
        }
    }
    // The last measurement was poll 120.
    for at in 150..180 {
        assert_eq!(*cpu(&poll(at, 3)).last().unwrap(), (at * 15, 14));
    }
    let over = poll(180, 3);
    assert_eq!((cpu(&over).last().unwrap().1, over.sources), (1, 1));
    assert_eq!(one(&usage, "slow"), None);
    assert_eq!(*cpu(&poll(181, 4)).last().unwrap(), (181 * 15, 15));
    assert_eq!(one(&usage, "slow").unwrap(), [(181 * 15, 14)]);
}

#[test]
fn history_is_a_window_and_what_vanished_leaves_with_its_last_point() {
    let usage = Usage::default();
    pods(&usage, T, vec![item("n", "gone", 1, 1), item("n", "here", 0, 1)]);
    assert!(one(&usage, "gone").is_some());
    for poll in 1..=POINTS as i64 {
        assert_eq!(usage.series(), 2, "poll {poll}");
        pods(&usage, T + poll * 15, vec![item("n", "here", poll, 1)]);
        assert_eq!(one(&usage, "gone"), None, "its past may be another's");
    }
    assert_eq!(usage.series(), 1);
    let here = one(&usage, "here").unwrap();
    assert_eq!((here.len(), here[0].0), (POINTS, 15));
    // Nothing new for longer than the window: no old figure is left, and a new one begins anew.
    pods(&usage, T + 900 + WINDOW, vec![item("n", "here", POINTS as i64, 1)]);
    assert_eq!(one(&usage, "here"), None);
    pods(&usage, T + 915 + WINDOW, vec![item("n", "here", 99, 7)]);
    assert_eq!(one(&usage, "here").unwrap(), [(915 + WINDOW, 7)]);
}

#[test]
fn a_scope_opens_its_kind_and_its_namespaces_and_nothing_else() {
    let usage = Usage::default();
    let pods = vec![item("a", "x", 1, 1), item("b", "x", 1, 2), item("c", "x", 1, 4)];
    let pods = Measurements { items: pods, ..Measurements::default() };
    let nodes = Measurements { items: vec![item("", "x", 1, 8)], ..Measurements::default() };
    usage.take(T, nodes, pods);
    let names = || ["a", "b", "c", ""].into_iter().map(|namespace| (namespace, "x"));
    let sum = |scope: &Scope| usage.sum(scope, names()).points.first().map_or(0, |point| point.1);
    let some = scope(Some(&["a", "c"]));
    assert_eq!((sum(&scope(None)), sum(&some), sum(&scope(Some(&[])))), (7, 5, 0));
    assert!(usage.get(&some, "a", "x").is_some());
    assert!(usage.get(&some, "b", "x").is_none());
    let node = Scope::for_tests(by_name("nodemetrics").unwrap(), None);
    assert_eq!(usage.get(&node, "", "x").unwrap().points, [(T, 8, 8 * MIB)]);
    assert!(usage.get(&node, "a", "x").is_none());
    let other = Scope::for_tests(by_name("pod").unwrap(), None);
    assert!(usage.get(&other, "a", "x").is_none());
    assert_eq!(sum(&other), 0);
    assert_eq!(usage.total(&other, &other), Series::default());
}

#[test]
fn a_total_is_the_sum_of_what_the_last_poll_had_where_both_scopes_reach() {
    let usage = Usage::default();
    pods(&usage, T, vec![item("a", "x", 1, 1), item("a", "y", 1, 2), item("b", "x", 1, 4)]);
    pods(&usage, T + 15, vec![item("a", "x", 2, 1), item("b", "x", 2, 4), item("b", "y", 2, 8)]);
    let pods_in = |names: Option<&[&str]>| Scope::for_tests(by_name("pod").unwrap(), names);
    let total = usage.total(&scope(None), &pods_in(None));
    assert_eq!((cpu(&total), total.sources), (vec![(0, 5), (15, 13)], 3));
    let names = [("a", "x"), ("b", "x"), ("b", "y")];
    assert_eq!(usage.sum(&scope(None), names.into_iter()), total);
    let total = usage.total(&scope(Some(&["a", "b"])), &pods_in(Some(&["b", "c"])));
    assert_eq!((cpu(&total), total.sources), (vec![(0, 4), (15, 12)], 2));
}

#[test]
fn a_clock_that_is_set_back_takes_the_history_with_it() {
    let usage = Usage::default();
    pods(&usage, T, vec![item("n", "a", 1, 1)]);
    pods(&usage, T - 5, vec![item("n", "a", 2, 2)]);
    assert_eq!(one(&usage, "a").unwrap(), [(-6, 1), (-5, 2)]);
    pods(&usage, T - 10_000, vec![item("n", "a", 3, 3)]);
    assert_eq!(one(&usage, "a").unwrap(), [(-10_002, 1), (-10_001, 2), (-10_000, 3)]);
}

/// A pod that was created then.
fn pod(created: &str) -> Row {
    let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u",
        "creationTimestamp": created}});
    (by_name("pod").unwrap().row)(&object.to_string()).unwrap()
}

#[test]
fn a_pod_made_anew_shows_nothing_that_was_measured_of_its_predecessor() {
    let usage = Usage::default();
    let created = jiff::Timestamp::from_second(T + 2).unwrap().to_string();
    let pod = pod(&created);
    let shown = || {
        let series = usage.of(&scope(None), ("n", "a"), pod.created);
        let written = usage.written(&scope(None), &pod, |_| Vec::new());
        assert_eq!(written.is_some(), series.is_some());
        series.map(|series| cpu(&series))
    };
    pods(&usage, T - 12, vec![item("n", "a", T - 20, 9)]);
    // The source has measured the old one for the last time; we see it after the new one is there.
    pods(&usage, T + 3, vec![item("n", "a", T - 5, 9)]);
    assert_eq!(shown(), None);
    pods(&usage, T + 18, vec![item("n", "a", T + 10, 1)]);
    assert_eq!(shown().unwrap(), [(18, 1)]);
    pods(&usage, T + 33, vec![item("n", "a", T + 25, 2)]);
    assert_eq!(shown().unwrap(), [(18, 1), (33, 2)]);
    let name = usage.get(&scope(None), "n", "a").unwrap();
    assert_eq!(name.points.len(), 4, "the name has both");
}

#[test]
fn what_a_pod_has_used_is_written_once_a_poll_also_when_a_poll_comes_meanwhile() {
    let usage = Usage::default();
    let pod = pod("1970-01-01T00:00:00Z");
    let newest = |series: &Series| vec![u8::try_from(cpu(series).last().unwrap().1).unwrap()];
    pods(&usage, T, vec![item("n", "a", 1, 10)]);
    let overtaken = usage.written(&scope(None), &pod, |series| {
        pods(&usage, T + 15, vec![item("n", "a", 2, 20)]);
        newest(series)
    });
    assert_eq!(overtaken.unwrap(), [10u8].as_slice());
    assert_eq!(usage.written(&scope(None), &pod, newest).unwrap(), [20u8].as_slice());
    let again = usage.written(&scope(None), &pod, |_| panic!("it is written already"));
    assert_eq!(again.unwrap(), [20u8].as_slice());
    // Our clock is set back by more than the window: the numbers of the polls are not.
    pods(&usage, T - 10_000, vec![item("n", "a", 3, 30)]);
    assert_eq!(usage.written(&scope(None), &pod, newest).unwrap(), [30u8].as_slice());
}

#[test]
fn what_failed_decides_whether_others_are_asked_live_and_success_ends_it() {
    let usage = Usage::default();
    let refused = |code: StatusCode| Failure::status(code, b"");
    let failed = |usage: &Usage, failure: Failure| {
        usage.fail(T, failure);
        assert!(!usage.report().connected);
        usage.standing()
    };
    assert!(matches!(usage.standing(), Standing::Live));
    assert!(matches!(failed(&usage, refused(StatusCode::FORBIDDEN)), Standing::Live));
    assert!(matches!(failed(&usage, refused(StatusCode::NOT_FOUND)), Standing::Absent));
    let down = failed(&usage, refused(StatusCode::SERVICE_UNAVAILABLE));
    assert!(matches!(down, Standing::Down(_)), "{down:?}");
    pods(&usage, T + 15, vec![]);
    assert!(matches!(usage.standing(), Standing::Current));
    let report = usage.report();
    assert_eq!((report.connected, report.checked), (true, Some(T + 15)));
    assert!(report.failure.is_none());
    // Heard a moment ago: the figures are still good.
    assert!(matches!(failed(&usage, UpstreamError::Timeout.into()), Standing::Current));
}

#[test]
fn figures_of_a_poller_that_has_stopped_are_not_current() {
    let usage = Usage::default();
    pods(&usage, T, vec![]);
    let heard = |ago: Duration| {
        usage.health().heard = Some(Instant::now().checked_sub(ago).unwrap());
        (usage.report().connected, usage.standing())
    };
    // A poll may be slow.
    let late = heard(STALE);
    assert!(matches!(late, (true, Standing::Current)), "{late:?}");
    let stopped = heard(STOPPED);
    assert!(matches!(stopped, (false, Standing::Live)), "{stopped:?}");
}

/// An API server that has metrics.k8s.io in this version alone.
async fn source(version: &'static str, body: &'static str) -> Cluster {
    let answer = move |uri: http::Uri| async move {
        if uri.path().starts_with(&format!("/apis/metrics.k8s.io/{version}/")) {
            body.into_response()
        } else {
            (StatusCode::NOT_FOUND, "404 page not found").into_response()
        }
    };
    Cluster::played(axum::Router::new().fallback(answer)).await
}

#[tokio::test]
async fn the_version_that_is_served_is_found_and_remembered() {
    for served in VERSIONS {
        let body = r#"{"kind":"NodeMetricsList","items":[{"metadata":{"name":"x"}}]}"#;
        let cluster = source(served, body).await;
        let mut version = None;
        let (nodes, pods) = poll(&cluster, &mut version).await.unwrap();
        assert_eq!((nodes.malformed, pods.malformed), (1, 1));
        assert_eq!(version, Some(served));
        let before = cluster.counts().0;
        poll(&cluster, &mut version).await.unwrap();
        assert_eq!(cluster.counts().0 - before, 2, "only what is served is asked for");
    }
}

#[tokio::test]
async fn a_source_that_is_missing_or_speaks_nonsense_fails_the_poll() {
    let cluster = source("v2", "{}").await;
    let missing = poll(&cluster, &mut None).await.unwrap_err();
    assert_eq!(missing.code(), Some(StatusCode::NOT_FOUND));
    for nonsense in ["<html>", "null", "7", "{}", r#"{"items":[]}"#, r#"{"kind":"Status"}"#] {
        let cluster = source("v1", nonsense).await;
        let broken = poll(&cluster, &mut None).await.unwrap_err();
        assert!(broken.to_string().contains("not a list"), "{nonsense}: {broken}");
    }
}

#[tokio::test]
async fn the_poller_fills_the_history_by_itself_and_ends_when_it_is_stopped() {
    let time = json!({"metadata": {"name": "x", "namespace": "n"},
        "timestamp": "2026-01-02T03:04:05Z", "usage": {"cpu": "7m", "memory": "1Mi"}});
    let list = json!({"kind": "PodMetricsList", "items": [time]});
    let body: &'static str = list.to_string().leak();
    let cluster = source("v1beta1", body).await;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let usage = Usage::start(&cluster, &tasks, &stop);
    let deadline = Instant::now() + Duration::from_secs(30);
    while usage.get(&scope(None), "n", "x").is_none() {
        assert!(Instant::now() < deadline, "no usage came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(usage.get(&scope(None), "n", "x").unwrap().points[0].1, 7);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn the_first_poll_is_waited_for_and_a_history_that_nobody_fills_is_not() {
    let at_once = Duration::from_millis(1);
    assert!(Usage::default().begun(at_once).await);
    let usage = Usage { starting: watch::Sender::new(true), ..Usage::default() };
    assert!(!usage.begun(at_once).await);
    let poll = async { usage.starting.send_replace(false) };
    let (begun, _) = tokio::join!(usage.begun(Duration::from_secs(60)), poll);
    assert!(begun);
}

#[tokio::test]
async fn others_have_their_turn_while_a_long_poll_is_taken() {
    let usage = Arc::<Usage>::default();
    let items = (0..=MANY).map(|number| item("n", &format!("pod-{number}"), 1, 1)).collect();
    let pods = Measurements { items, ..Measurements::default() };
    let ((), turns) = beside(usage.taken(T, Measurements::default(), pods)).await;
    assert_ne!(turns, 0);
    let all = Scope::for_tests(by_name("pod").unwrap(), None);
    assert_eq!((usage.series(), usage.total(&scope(None), &all).sources), (MANY + 1, MANY + 1));
}

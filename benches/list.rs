//! Lists over loopback TLS: the first page of pods beside a bare hyper server that sends the same
//! bytes, its time when the cluster grows, sorts and filters, and the lists of a start page.
//!
//! `BENCH_FULL=1` grows the cluster to 150,000 pods instead of 20,000. Nothing here fails on time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::time::{Duration, Instant};

use common::load::{Client, Load, Outcome, load};
use common::process::{ADMIN, Binnacle, DemoServer, sum};
use common::stub::Stub;
use common::{figure, full, median, millis, section};

const PODS: usize = 10_000;
const PAGE: &str = "/api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp";
/// The same, each time made anew: an unknown parameter is passed over, and no kept page has it.
const ANEW: &str = "/api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp&n={n}";
/// Measured by turns, so that a slow moment of the machine hits both.
const ROUNDS: usize = 3;
const LONGEST: Duration = Duration::from_secs(20);
const FAST: Load = Load { connections: 16, requests: 40_000, longest: LONGEST, rate: None };
const WARM: Load = Load { connections: 16, requests: 2_000, longest: LONGEST, rate: None };
const ALONE: Load = Load { connections: 1, requests: 3_000, longest: LONGEST, rate: None };
/// Each of these is run by itself.
const ORDERS: [&str; 9] = [
    "sortBy=a,creationTimestamp",
    "sortBy=a,name",
    "sortBy=d,name",
    "sortBy=a,namespace",
    "sortBy=d,status",
    "filterBy=name,app-1",
    "filterBy=name,nothing-is-called-so",
    "filterBy=status,Running&sortBy=d,name",
    "filterBy=namespace,load-3,name,app&sortBy=a,status,d,creationTimestamp",
];
/// A dashboard's start page: the workloads. Those that are not served are replaced, see below.
const START: [&str; 8] = [
    "cronjob",
    "daemonset",
    "deployment",
    "job",
    "pod",
    "replicaset",
    "replicationcontroller",
    "statefulset",
];
const INSTEAD: [&str; 5] = ["event", "namespace", "node", "service", "pod/default"];
const VISITS: usize = 51;

fn main() {
    common::run(bench);
}

async fn bench() {
    {
        let demo = DemoServer::start(PODS);
        let binnacle = Binnacle::start(&demo.kubeconfig, ADMIN, &[]);
        let synced = binnacle.synced().await;
        section(format_args!("{PODS} pods; in the cache after {}", millis(synced)));
        first_page(&binnacle).await;
        orders(&binnacle).await;
        start_page(&binnacle).await;
    }
    growth(if full() { 150_000 } else { 20_000 }).await;
}

/// Requests/s and CPU beside the bare server, and the latency at half that load.
async fn first_page(binnacle: &Binnacle) {
    let page = Client::open(&binnacle.tls).await.get(PAGE).await;
    assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
    let stub = Stub::start(&page.body);
    load(&stub.process, &stub.target, "/page", WARM).await;
    load(&binnacle.process, &binnacle.tls, PAGE, WARM).await;
    let (mut bare, mut ours, mut anew) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(load(&stub.process, &stub.target, "/page", FAST).await);
        ours.push(load(&binnacle.process, &binnacle.tls, PAGE, FAST).await);
        anew.push(load(&binnacle.process, &binnacle.tls, ANEW, FAST).await);
    }
    let (bare, ours, anew) = (middle(bare), middle(ours), middle(anew));
    section(format_args!("first page of pods, {} bytes, 16 connections", page.body.len()));
    figure("bare hyper server, requests/s", format_args!("{:.0}", bare.rate()), "");
    figure("bare hyper server, CPU a request", micros(bare.cpu), "");
    figure("binnacle, requests/s", format_args!("{:.0}", ours.rate()), "");
    figure("binnacle, CPU a request", micros(ours.cpu), "");
    let ratio = ours.rate() / bare.rate().max(1.0) * 100.0;
    figure("requests/s of the bare server's", format_args!("{ratio:.0} %"), ">= 70 %");
    let ratio = ours.cpu.as_secs_f64() / bare.cpu.as_secs_f64().max(1e-9);
    figure("CPU a request, times the bare server's", format_args!("{ratio:.2}"), "");
    let ratio = anew.rate() / bare.rate().max(1.0) * 100.0;
    figure("each page made anew, requests/s", format_args!("{:.0}", anew.rate()), "");
    figure("each page made anew, CPU a request", micros(anew.cpu), "");
    figure("each page made anew, of the bare server's", format_args!("{ratio:.0} %"), "");
    let rate = (ours.rate() / 2.0).max(1.0);
    // Ten seconds of it.
    let requests = (rate * 10.0) as usize;
    let half = Load { rate: Some(rate), requests, ..FAST };
    let half = load(&binnacle.process, &binnacle.tls, PAGE, half).await;
    figure("half that load: requests/s", format_args!("{:.0}", half.rate()), "");
    figure("half that load: p50", millis(half.percentile(0.50)), "");
    figure("half that load: p99", millis(half.percentile(0.99)), "< 2 ms");
}

async fn orders(binnacle: &Binnacle) {
    section("sorts and filters, each page made anew, one connection");
    let mut worst = Duration::ZERO;
    let last = format!("sortBy=a,name&page={}", PODS / 10);
    let first = ORDERS.iter().map(|order| format!("{order}&page=1"));
    for query in first.chain([last]) {
        let path = format!("/api/v1/pod?itemsPerPage=10&{query}&n={{n}}");
        let few = Load { requests: 500, ..ALONE };
        let outcome = load(&binnacle.process, &binnacle.tls, &path, few).await;
        let p99 = outcome.percentile(0.99);
        worst = worst.max(p99);
        let p50 = millis(outcome.percentile(0.50));
        figure(query, format_args!("p50 {p50}, p99 {}", millis(p99)), "");
    }
    figure("the slowest p99", millis(worst), "< 5 ms");
}

/// Eight lists at once, each on a connection of its own, as a browser's first look.
async fn start_page(binnacle: &Binnacle) {
    let mut one = Client::open(&binnacle.tls).await;
    let mut lists = Vec::new();
    for name in START.iter().chain(&INSTEAD) {
        let path = format!("/api/v1/{name}?itemsPerPage=10&page=1&sortBy=d,creationTimestamp");
        if lists.len() < START.len() && one.get(&path).await.status == 200 {
            lists.push((*name, path));
        }
    }
    let names: Vec<&str> = lists.iter().map(|(name, _)| *name).collect();
    section(format_args!("start page, {} lists at once: {}", lists.len(), names.join(", ")));
    let mut clients = Vec::new();
    for _ in &lists {
        clients.push(Client::open(&binnacle.tls).await);
    }
    let before = binnacle.metrics().await;
    let mut times = Vec::new();
    for _ in 0..VISITS {
        let begun = Instant::now();
        let asked = clients.iter_mut().zip(&lists).map(|(client, (_, path))| client.get(path));
        for answer in futures::future::join_all(asked).await {
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        }
        times.push(begun.elapsed());
    }
    let after = binnacle.metrics().await;
    let slowest = times.iter().max().copied().unwrap_or_default();
    figure("all of them, median", millis(median(times)), "< 5 ms");
    figure("all of them, the slowest visit", millis(slowest), "");
    let grown = |name: &str| sum(&after, name, "").saturating_sub(sum(&before, name, ""));
    let reviews = grown("binnacle_access_reviews_total");
    // One of them is the review that reading the metrics itself costs.
    let sent = grown("binnacle_upstream_requests_total").saturating_sub(1);
    figure(format_args!("access reviews in {VISITS} visits"), reviews, "");
    let lists = sent.saturating_sub(reviews);
    figure("list requests to the API server", lists, "0");
}

/// The first page's time in a large cluster and in one of a thousand pods.
async fn growth(pods: usize) {
    let small = alone(1_000).await;
    let large = alone(pods).await;
    section("first page of pods, each made anew, one connection");
    for (pods, outcome) in [(1_000, &small), (pods, &large)] {
        let (p50, p99) = (outcome.percentile(0.50), outcome.percentile(0.99));
        figure(format_args!("{pods} pods, p50"), millis(p50), "");
        figure(format_args!("{pods} pods, p99"), millis(p99), "");
        figure(format_args!("{pods} pods, CPU a request"), micros(outcome.cpu), "");
    }
    let times = |outcome: &Outcome| outcome.percentile(0.50).as_secs_f64().max(1e-9);
    let ratio = times(&large) / times(&small);
    let goal = "<= 1.5 (150,000 against 1,000)";
    figure(format_args!("{pods} against 1000 pods, p50"), format_args!("{ratio:.2}"), goal);
    let ratio = large.cpu.as_secs_f64() / small.cpu.as_secs_f64().max(1e-9);
    figure(format_args!("{pods} against 1000 pods, CPU"), format_args!("{ratio:.2}"), goal);
}

async fn alone(pods: usize) -> Outcome {
    let demo = DemoServer::start(pods);
    let binnacle = Binnacle::start(&demo.kubeconfig, ADMIN, &[]);
    binnacle.synced().await;
    load(&binnacle.process, &binnacle.tls, PAGE, WARM).await;
    load(&binnacle.process, &binnacle.tls, ANEW, Load { requests: 10_000, ..ALONE }).await
}

/// The outcome with the middle rate.
fn middle(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    let middle = outcomes.len() / 2;
    outcomes.swap_remove(middle)
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

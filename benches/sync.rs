//! The cold sync: from the start of a gateway until its list of pods comes from the cache, beside
//! `kubectl get --raw` and a plain GET of the same list, by turns; with and without what it takes
//! each of them to start.
//!
//! Before a demo of 10,000 pods, which answers far faster than an API server: the goal is about a
//! real one, which `BENCH_KUBECONFIG` names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::cluster::{Cluster, kubectl_get};
use common::launch::Launch;
use common::load::Client;
use common::{figure, median, mib, millis, ratio, section};
use serde_json::Value;

const PODS: usize = 10_000;
const ROUNDS: usize = 9;
const GOAL: &str = "<= 1.3";
/// From the API server's own watch cache, as its fastest answer.
const LIST: &str = "/api/v1/pods?resourceVersion=0";
const PAGE: &str = "/api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp";
/// The least that kubectl can be asked for: what is left of its time is its start.
const NOTHING: &str = "/livez";

/// One start of the gateway, from before its process was made.
struct Sync {
    /// The first answer of a probe.
    alive: Duration,
    /// The first page of pods from the cache, read to its end.
    pods: Duration,
    /// Every kind is in the cache.
    all: Duration,
    total: u64,
}

fn main() {
    common::run(bench);
}

async fn bench() {
    let cluster = Cluster::real().unwrap_or_else(|| Cluster::demo(PODS));
    let kubeconfig = &cluster.kubeconfig;
    let state = tempfile::tempdir().unwrap();
    // Makes the certificate: that is no part of a sync.
    let warm = sync(kubeconfig, state.path()).await;
    let (mut syncs, mut gets) = (Vec::new(), Vec::new());
    let (mut kubectls, mut kubectl_starts) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        syncs.push(sync(kubeconfig, state.path()).await);
        if let Some(target) = &cluster.api.target {
            let begun = Instant::now();
            let answer = Client::open(target).await.get(LIST).await;
            gets.push(begun.elapsed());
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            bytes = answer.body.len();
        }
        // Without kubectl there is nothing to compare with, which is said below.
        kubectl_starts.extend(kubectl_get(kubeconfig, NOTHING).await);
        kubectls.extend(kubectl_get(kubeconfig, LIST).await);
    }
    let name = cluster.name;
    section(format_args!("cold sync of {} pods ({name}), median of {ROUNDS}", warm.total));
    let of = |time: fn(&Sync) -> Duration| -> Vec<Duration> { syncs.iter().map(time).collect() };
    let (alive, pods, all) = (of(|sync| sync.alive), of(|sync| sync.pods), of(|sync| sync.all));
    let without = without_start(&pods, &alive);
    let show = |what, times: &[Duration]| figure(what, millis(median(times.to_vec())), "");
    show("binnacle: start to the first probe's answer", &alive);
    show("binnacle: start to pods from the cache", &pods);
    show("binnacle: the same without its start", &without);
    show("binnacle: start to every kind in the cache", &all);
    if kubectls.len() == ROUNDS && kubectl_starts.len() == ROUNDS {
        let bare = without_start(&kubectls, &kubectl_starts);
        show("kubectl get --raw: the list", &kubectls);
        show("kubectl get --raw: the same without its start", &bare);
        figure("binnacle over kubectl, both with their start", ratio(&pods, &kubectls), GOAL);
        figure("binnacle over kubectl, both without", ratio(&without, &bare), GOAL);
    } else {
        println!("  kubectl get --raw: skipped, there is none in PATH or it failed");
    }
    if gets.len() == ROUNDS {
        show(&format!("plain GET of the list, {}", mib(bytes as u64)), &gets);
        figure("binnacle without its start, over the plain GET", ratio(&without, &gets), GOAL);
    } else {
        println!("  plain GET: skipped, the kubeconfig has no token or is not of this machine");
    }
}

async fn sync(kubeconfig: &Path, state: &Path) -> Sync {
    let launch = Launch::start(Some(kubeconfig), state);
    let mut client = Client::open(&launch.plain()).await;
    let alive = launch.until(&mut client, "/livez").await;
    launch.until_kinds(&mut client, |text| text.contains("[pod] current\n")).await;
    let page = client.get(PAGE).await;
    let pods = launch.elapsed();
    assert_eq!(page.status, 200, "{}", String::from_utf8_lossy(&page.body));
    let page: Value = serde_json::from_slice(&page.body).unwrap();
    let total = page["listMeta"]["totalItems"].as_u64().unwrap_or_default();
    let all = launch.until_kinds(&mut client, |text| !text.contains("] syncing")).await;
    Sync { alive, pods, all, total }
}

fn without_start(times: &[Duration], starts: &[Duration]) -> Vec<Duration> {
    times.iter().zip(starts).map(|(time, start)| time.saturating_sub(*start)).collect()
}

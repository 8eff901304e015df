//! Resident memory of binnacle in front of a demo cluster of its own process: idle, with 10,000
//! pods and their events, and with `BENCH_FULL=1` 150,000; after the sync and after 1,000 requests.
//!
//! It reads what the kernel says (VmRSS, VmHWM); it looks into no allocator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::time::Duration;

use common::load::{Load, load};
use common::process::{ADMIN, Binnacle, DemoServer, sum};
use common::{full, mib, millis};

const PAGE: &str = "/api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp";
const REQUESTS: Load =
    Load { connections: 16, requests: 1_000, longest: Duration::from_secs(60), rate: None };

fn main() {
    common::run(bench);
}

async fn bench() {
    println!(
        "\n{:>8} {:>8} {:>8} {:>12} {:>12} {:>14} {:>12}  goal",
        "pods", "events", "rows", "sync", "after sync", "1000 requests", "peak"
    );
    measure(0, "<= 16 MiB").await;
    measure(10_000, "<= 48 MiB").await;
    if full() {
        measure(150_000, "<= 450 MiB").await;
    } else {
        println!("{:>8} skipped: BENCH_FULL=1 measures it", 150_000);
    }
}

/// One line of the table. The lively set of the demo is in every cluster.
async fn measure(pods: usize, goal: &str) {
    let demo = DemoServer::start(pods);
    let binnacle = Binnacle::start(&demo.kubeconfig, ADMIN, &[]);
    let sync = binnacle.synced().await;
    let synced = binnacle.process.memory().resident;
    load(&binnacle.process, &binnacle.tls, PAGE, REQUESTS).await;
    let used = binnacle.process.memory();
    let metrics = binnacle.metrics().await;
    let rows = |label: &str| sum(&metrics, "binnacle_cache_rows", label);
    println!(
        "{:>8} {:>8} {:>8} {:>12} {:>12} {:>14} {:>12}  {goal}",
        rows("kind=\"pod\""),
        rows("kind=\"event\""),
        rows(""),
        millis(sync),
        mib(synced),
        mib(used.resident),
        mib(used.peak),
    );
}

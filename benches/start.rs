//! From the start of the process to its first answers over TLS: alive, and the namespaces; with the
//! demo in the same process, with one in another, and with a certificate that is yet to be made.
//!
//! What is cached later does not matter here: the first namespaces are a live list.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::cluster::Cluster;
use common::launch::Launch;
use common::load::Client;
use common::{figure, section};

const STARTS: usize = 20;
const GOAL: &str = "< 100 ms";
const NAMESPACES: &str = "/api/v1/namespace?itemsPerPage=10&page=1";

/// What one start came to, from before the process was made.
struct Start {
    alive: Duration,
    namespaces: Duration,
}

fn main() {
    common::run(bench);
}

async fn bench() {
    let demo = Cluster::demo(0);
    let kept = tempfile::tempdir().unwrap();
    // Makes the certificate, and brings the program's file into the page cache.
    start(None, kept.path()).await;
    section(format_args!("start to first answer, {STARTS} starts: least / median / most"));
    let (mut own, mut beside, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    // By turns, so that a slow moment of the machine hits all.
    for _ in 0..STARTS {
        own.push(start(None, kept.path()).await);
        beside.push(start(Some(&demo.kubeconfig), kept.path()).await);
        let empty = tempfile::tempdir().unwrap();
        fresh.push(start(None, empty.path()).await);
    }
    show("--demo", &own);
    show("--kubeconfig of a demo", &beside);
    show("--demo, first start ever", &fresh);
}

async fn start(kubeconfig: Option<&Path>, state: &Path) -> Start {
    let launch = Launch::start(kubeconfig, state);
    let mut client = Client::open(&launch.tls()).await;
    let alive = launch.until(&mut client, "/livez").await;
    let namespaces = launch.until(&mut client, NAMESPACES).await;
    Start { alive, namespaces }
}

fn show(what: &str, starts: &[Start]) {
    let alive = starts.iter().map(|start| start.alive).collect();
    figure(format_args!("{what}: /livez"), spread(alive), GOAL);
    let namespaces = starts.iter().map(|start| start.namespaces).collect();
    figure(format_args!("{what}: /api/v1/namespace"), spread(namespaces), GOAL);
}

/// `12.1 / 13.4 / 20.9 ms`
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let last = times.len().saturating_sub(1);
    format!("{:.1} / {:.1} / {:.1} ms", at(0), at(last.div_ceil(2)), at(last))
}

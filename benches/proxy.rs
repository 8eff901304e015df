//! The passthrough with a bare TLS server as its API server: CPU and requests/s of small and large
//! GETs, beside that server alone, beside a relay of TCP that takes no TLS off, beside the barest hop
//! of hyper over rustls, and beside `kubectl proxy` where one is at hand; and the memory that a body
//! of 1 GiB takes (10 GiB with `BENCH_FULL=1`).
//!
//! All take turns, several times; a figure is the middle one of its rounds, a ratio the middle one of
//! the rounds' ratios.
//!
//! The bare server is no API server: what the passthrough must do right is tested elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::load::{Load, Outcome, Target, load};
use common::process::{Binnacle, Heard, Process};
use common::stub::Stub;
use common::{figure, full, mib, section};

const TOKEN: &str = "bench-token";
/// Read without rights of our own: the bare server has no lists to watch.
const NO_CACHE: [&str; 1] = ["--shared-cache=false"];
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LONGEST: Duration = Duration::from_secs(30);
const SMALL_BYTES: usize = 4 << 10;
const LARGE_BYTES: usize = 10 << 20;
const ROUNDS: usize = 9;
const WARM: Load = Load { connections: 16, requests: 1_000, longest: LONGEST, rate: None };
const SMALL: Load = Load { connections: 16, requests: 16_000, longest: LONGEST, rate: None };
const LARGE: Load = Load { connections: 4, requests: 100, longest: LONGEST, rate: None };

/// Somebody who answers GETs of config maps.
struct Peer<'a> {
    name: &'a str,
    process: &'a Process,
    target: &'a Target,
    /// Before the API server's own paths.
    prefix: &'a str,
    /// What its small and its large GETs came to, by round.
    small: Vec<Outcome>,
    large: Vec<Outcome>,
}

fn main() {
    common::run(bench);
}

async fn bench() {
    let stub = Stub::start(b"{}");
    let kubeconfig = stub.kubeconfig(TOKEN);
    memory(&kubeconfig).await;
    let binnacle = Binnacle::start(&kubeconfig, TOKEN, &NO_CACHE);
    let relay = stub.relay();
    let hop = Stub::hop(&kubeconfig);
    let home = tempfile::tempdir().unwrap();
    let kubectl = kubectl_proxy(&kubeconfig, home.path());
    let prefix = "/clusters/stub";
    let mut bare = Peer::new("bare server", &stub.process, &stub.target, "");
    let mut relay = Peer::new("TCP relay", &relay.process, &relay.target, "");
    let mut hop = Peer::new("bare hop, TLS", &hop.process, &hop.target, "");
    let mut tls = Peer::new("binnacle, TLS", &binnacle.process, &binnacle.tls, prefix);
    let mut plain = Peer::new("binnacle, plain HTTP", &binnacle.process, &binnacle.plain, prefix);
    let mut kubectl =
        kubectl.as_ref().map(|(process, target)| Peer::new("kubectl proxy", process, target, ""));
    // All small ones first: after large ones a Go program's heap is so large that it collects no garbage.
    for is_large in [false, true] {
        for _ in 0..ROUNDS {
            let ours = [&mut bare, &mut relay, &mut hop, &mut tls, &mut plain];
            for peer in ours.into_iter().chain(&mut kubectl) {
                peer.measure(is_large).await;
            }
        }
    }
    section(format_args!(
        "GET of 4 KiB, 16 connections; GET of 10 MiB, 4 connections; {ROUNDS} rounds in turn"
    ));
    bare.show(["", ""]);
    relay.show(["", ""]);
    hop.show(["", ""]);
    tls.show(["<= 40 us", "<= 5 ms"]);
    plain.show(["<= 40 us", "<= 5 ms"]);
    // What a second hop over TLS costs changes with the machine.
    let large = ratio(&tls.large, &hop.large);
    figure("CPU, 10 MiB, binnacle over the bare hop (TLS)", large, "<= 1");
    // Of a hop's time the relay's is the kernel's: where that is near the goal, no program reaches it.
    let large = ratio(&plain.large, &relay.large);
    figure("CPU, 10 MiB, binnacle (plain) over the TCP relay", large, "");
    // `kubectl proxy` listens without TLS, so plain is what it is compared with.
    let Some(kubectl) = kubectl else {
        println!("  kubectl proxy: skipped, no kubectl in the folder of the test cluster");
        return;
    };
    kubectl.show(["", ""]);
    let small = ratio(&kubectl.small, &plain.small);
    figure("CPU, small, kubectl proxy over binnacle (plain)", small, ">= 3.5");
    let large = ratio(&kubectl.large, &plain.large);
    figure("CPU, 10 MiB, kubectl proxy over binnacle (plain)", large, "");
}

impl<'a> Peer<'a> {
    fn new(name: &'a str, process: &'a Process, target: &'a Target, prefix: &'a str) -> Self {
        Self { name, process, target, prefix, small: Vec::new(), large: Vec::new() }
    }

    /// One round.
    async fn measure(&mut self, is_large: bool) {
        let path = |bytes: usize| format!("{}{MAPS}/bytes-{bytes}", self.prefix);
        load(self.process, self.target, &path(SMALL_BYTES), WARM).await;
        let (bytes, wanted, figures) = match is_large {
            false => (SMALL_BYTES, SMALL, &mut self.small),
            true => (LARGE_BYTES, LARGE, &mut self.large),
        };
        figures.push(load(self.process, self.target, &path(bytes), wanted).await);
    }

    fn show(&self, [small_goal, large_goal]: [&str; 2]) {
        let Self { name, small, large, .. } = self;
        let micros = middle(small.iter().map(|outcome| outcome.cpu.as_secs_f64() * 1e6));
        let goal = small_goal;
        figure(format_args!("{name}: CPU a small GET"), format_args!("{micros:.1} us"), goal);
        let rate = middle(small.iter().map(Outcome::rate));
        figure(format_args!("{name}: small GETs/s"), format_args!("{rate:.0}"), "");
        let millis = middle(large.iter().map(|outcome| outcome.cpu.as_secs_f64() * 1e3));
        let goal = large_goal;
        figure(format_args!("{name}: CPU a 10 MiB GET"), format_args!("{millis:.1} ms"), goal);
        let each = |outcome: &Outcome| outcome.bytes as f64 / outcome.elapsed.as_secs_f64();
        let rate = middle(large.iter().map(each));
        figure(format_args!("{name}: throughput"), mib(rate as u64) + "/s", "");
        let memory = self.process.memory();
        figure(format_args!("{name}: resident, at most"), mib(memory.peak), "");
    }
}

/// Of CPU time.
fn ratio(these: &[Outcome], those: &[Outcome]) -> String {
    let cpu = |outcomes: &[Outcome]| -> Vec<Duration> {
        outcomes.iter().map(|outcome| outcome.cpu).collect()
    };
    common::ratio(&cpu(these), &cpu(those))
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The peak of a gateway that has passed small bodies, and of the same one after a huge body.
async fn memory(kubeconfig: &Path) {
    let huge: usize = if full() { 10 << 30 } else { 1 << 30 };
    let binnacle = Binnacle::start(kubeconfig, TOKEN, &NO_CACHE);
    let (process, target) = (&binnacle.process, &binnacle.tls);
    let path = |bytes: usize| format!("/clusters/stub{MAPS}/bytes-{bytes}");
    let one = Load { connections: 1, requests: 1, longest: 20 * LONGEST, rate: None };
    load(process, target, &path(10 << 10), Load { requests: 1_000, ..one }).await;
    let small = process.memory().peak;
    let outcome = load(process, target, &path(huge), one).await;
    let large = process.memory().peak;
    section(format_args!("one body of {} beside bodies of 10 KiB", mib(huge as u64)));
    if outcome.bytes != huge as u64 {
        println!("  only {} of it came: the figures below mean nothing", mib(outcome.bytes));
    }
    figure("peak after 1000 small bodies", mib(small), "");
    figure("peak after the huge one as well", mib(large), "");
    figure("more", mib(large.saturating_sub(small)), "none");
}

/// `kubectl proxy` of the test cluster's build; a home of its own keeps the person's settings out.
fn kubectl_proxy(kubeconfig: &Path, home: &Path) -> Option<(Process, Target)> {
    let mut command = Command::new(kubectl()?);
    command.arg("--kubeconfig").arg(kubeconfig).env("HOME", home);
    command.args(["proxy", "--address", "127.0.0.1", "--port", "0"]);
    let process = Process::start("kubectl proxy", &mut command, Heard::Stdout);
    let address = process.address_after("Starting to serve on ");
    Some((process, Target::plain(address)))
}

/// Where `cargo test` keeps the test cluster that it has built, or a person has one.
fn kubectl() -> Option<PathBuf> {
    let set = |name: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.map(PathBuf::from)
    };
    let assets = set("KUBEBUILDER_ASSETS").map(|folder| folder.join("kubectl"));
    if let Some(kubectl) = assets.filter(|kubectl| kubectl.exists()) {
        return Some(kubectl);
    }
    let base = set("BINNACLE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME"))
        .or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    let builds = std::fs::read_dir(base.join("binnacle").join("cluster")).ok()?;
    builds.flatten().map(|build| build.path().join("kubectl")).find(|kubectl| kubectl.exists())
}

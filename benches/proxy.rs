//! The passthrough with a bare TLS server as its API server: CPU and requests/s of small and large
//! GETs, beside that server alone, beside the barest hop of hyper over rustls, and beside `kubectl
//! proxy` where one is at hand; and the memory that a body of 1 GiB takes (10 GiB with
//! `BENCH_FULL=1`).
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
const WARM: Load = Load { connections: 16, requests: 2_000, longest: LONGEST, rate: None };
const SMALL: Load = Load { connections: 16, requests: 40_000, longest: LONGEST, rate: None };
const LARGE: Load = Load { connections: 4, requests: 400, longest: LONGEST, rate: None };

/// Somebody who answers GETs of config maps.
struct Peer<'a> {
    name: &'a str,
    process: &'a Process,
    target: &'a Target,
    /// Before the API server's own paths.
    prefix: &'a str,
}

/// What a peer's small and large GETs came to.
struct Figures {
    small: Outcome,
    large: Outcome,
}

fn main() {
    common::run(bench);
}

async fn bench() {
    let stub = Stub::start(b"{}");
    let kubeconfig = stub.kubeconfig(TOKEN);
    memory(&kubeconfig).await;
    let binnacle = Binnacle::start(&kubeconfig, TOKEN, &NO_CACHE);
    let (process, prefix) = (&binnacle.process, "/clusters/stub");
    let bare =
        Peer { name: "bare server", process: &stub.process, target: &stub.target, prefix: "" };
    let tls = Peer { name: "binnacle, TLS", process, target: &binnacle.tls, prefix };
    let plain = Peer { name: "binnacle, plain HTTP", process, target: &binnacle.plain, prefix };
    section("GET of 4 KiB, 16 connections; GET of 10 MiB, 4 connections");
    show(&bare, &measure(&bare).await, ["", ""]);
    let bare_hop = Stub::hop(&kubeconfig);
    let hop = Peer {
        name: "bare hop, TLS",
        process: &bare_hop.process,
        target: &bare_hop.target,
        prefix: "",
    };
    let barest = measure(&hop).await;
    show(&hop, &barest, ["", ""]);
    let ours = measure(&tls).await;
    show(&tls, &ours, ["<= 40 us", "<= 5 ms"]);
    // A machine's figures change by the hour; what a second hop over TLS costs changes with them.
    figure(
        "CPU, 10 MiB, binnacle over the bare hop (TLS)",
        ratio(&ours.large, &barest.large),
        "<= 1",
    );
    let ours = measure(&plain).await;
    show(&plain, &ours, ["<= 40 us", "<= 5 ms"]);
    // `kubectl proxy` listens without TLS, so plain is what it is compared with.
    let home = tempfile::tempdir().unwrap();
    let Some((process, target)) = kubectl_proxy(&kubeconfig, home.path()) else {
        println!("  kubectl proxy: skipped, no kubectl in the folder of the test cluster");
        return;
    };
    let kubectl = Peer { name: "kubectl proxy", process: &process, target: &target, prefix: "" };
    let theirs = measure(&kubectl).await;
    show(&kubectl, &theirs, ["", ""]);
    let small = ratio(&theirs.small, &ours.small);
    figure("CPU, small, kubectl proxy over binnacle (plain)", small, ">= 3.5");
    let large = ratio(&theirs.large, &ours.large);
    figure("CPU, 10 MiB, kubectl proxy over binnacle (plain)", large, "");
}

/// Of CPU time.
fn ratio(these: &Outcome, those: &Outcome) -> String {
    let ratio = these.cpu.as_secs_f64() / those.cpu.as_secs_f64().max(1e-9);
    format!("{ratio:.2}")
}

async fn measure(peer: &Peer<'_>) -> Figures {
    let small = format!("{}{MAPS}/bytes-{SMALL_BYTES}", peer.prefix);
    let large = format!("{}{MAPS}/bytes-{LARGE_BYTES}", peer.prefix);
    load(peer.process, peer.target, &small, WARM).await;
    Figures {
        small: load(peer.process, peer.target, &small, SMALL).await,
        large: load(peer.process, peer.target, &large, LARGE).await,
    }
}

fn show(peer: &Peer<'_>, figures: &Figures, [small_goal, large_goal]: [&str; 2]) {
    let Figures { small, large } = figures;
    let name = peer.name;
    let micros = small.cpu.as_secs_f64() * 1e6;
    let goal = small_goal;
    figure(format_args!("{name}: CPU a small GET"), format_args!("{micros:.1} us"), goal);
    let rate = small.rate();
    figure(format_args!("{name}: small GETs/s"), format_args!("{rate:.0}"), "");
    let millis = large.cpu.as_secs_f64() * 1e3;
    let goal = large_goal;
    figure(format_args!("{name}: CPU a 10 MiB GET"), format_args!("{millis:.1} ms"), goal);
    let rate = large.bytes as f64 / large.elapsed.as_secs_f64().max(1e-9);
    figure(format_args!("{name}: throughput"), mib(rate as u64) + "/s", "");
    let memory = peer.process.memory();
    figure(format_args!("{name}: resident, at most"), mib(memory.peak), "");
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

//! The list of 500 releases of 10 revisions each beside `helm list`: the first request of a fresh
//! process and the later ones, a page of ten and all of them, and what remembering them takes.
//!
//! All of it before the real cluster that `BENCH_KUBECONFIG` names, as its user, who must be an
//! admin: the records are written into a namespace of the bench's own, which is deleted at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::cluster::Cluster;
use common::load::{Client, Load, load};
use common::process::Binnacle;
use common::{figure, median, mib, millis, section};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

const RELEASES: usize = 500;
const REVISIONS: usize = 10;
/// Secrets written at once.
const AT_ONCE: usize = 8;
/// Lines of a manifest of which a record is about 12 kB: packed and in base64, as Helm stores it.
const LINES: usize = 750;
/// Of a generator of numbers that look random (Knuth's MMIX).
const NOISE: u64 = 1_442_695_040_888_963_407;
/// Measured by turns, so that a slow moment of the machine hits all.
const ROUNDS: usize = 3;
const LONGEST: Duration = Duration::from_secs(20);
const WARM: Load = Load { connections: 1, requests: 200, longest: LONGEST, rate: None };
/// A namespace with so many Secrets is gone after seconds.
const GONE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);
/// `helm list`, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    common::run(bench);
}

async fn bench() {
    let Some(cluster) = Cluster::real() else {
        println!("\nlist of releases: skipped, BENCH_KUBECONFIG names no cluster");
        return;
    };
    let Some(token) = cluster.api.token.clone() else {
        println!("\nlist of releases: skipped, the user of BENCH_KUBECONFIG has no token");
        return;
    };
    let client = client(&cluster.kubeconfig).await;
    let namespace = format!("bench-releases-{}", std::process::id());
    let measured = async {
        fill(&client, &namespace).await;
        measure(&cluster.kubeconfig, &token, &namespace).await;
    };
    // What was written is deleted, whatever happens.
    let measured = AssertUnwindSafe(measured).catch_unwind().await;
    remove(&client, &namespace).await;
    if let Err(panic) = measured {
        std::panic::resume_unwind(panic);
    }
}

async fn client(kubeconfig: &Path) -> kube::Client {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(config, &options).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

async fn fill(client: &kube::Client, namespace: &str) {
    let begun = Instant::now();
    let object = json!({"metadata": {"name": namespace}});
    let object: Namespace = serde_json::from_value(object).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    let secrets: &Api<Secret> = &Api::namespaced(client.clone(), namespace);
    let of = |release: usize| (1..=REVISIONS).map(move |revision| (release, revision));
    let all = (0..RELEASES).flat_map(of);
    let posts = all.map(|(release, revision)| async move {
        let blob = blob(namespace, release, revision);
        let secret = secret(release, revision, &blob);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
        blob.len()
    });
    let posts = futures::stream::iter(posts).buffer_unordered(AT_ONCE);
    let bytes = posts.fold(0, |sum, bytes| async move { sum + bytes }).await;
    section(format_args!("{RELEASES} releases of {REVISIONS} revisions in one namespace"));
    let each = bytes / (RELEASES * REVISIONS);
    figure("a record, packed and in base64", format_args!("{each} B"), "");
    figure("writing them", format_args!("{:.1} s", begun.elapsed().as_secs_f64()), "");
}

fn name(release: usize) -> String {
    format!("bench-{release:03}")
}

/// The status of a revision.
fn status(revision: usize) -> &'static str {
    if revision == REVISIONS { "deployed" } else { "superseded" }
}

/// A record's Secret as Helm makes it (pkg/storage/driver/secrets.go).
fn secret(release: usize, revision: usize, blob: &str) -> Secret {
    let name = name(release);
    let labels = json!({
        "owner": "helm", "name": name, "status": status(revision),
        "version": revision.to_string(), "createdAt": "1767323045",
    });
    let secret = json!({
        "metadata": {"name": format!("sh.helm.release.v1.{name}.v{revision}"), "labels": labels},
        "type": "helm.sh/release.v1",
        "data": {"release": STANDARD.encode(blob)},
    });
    serde_json::from_value(secret).unwrap()
}

/// A record: base64 of gzip of JSON. Its text packs about as well as that of charts.
fn blob(namespace: &str, release: usize, revision: usize) -> String {
    let name = name(release);
    let mut noise = (release * REVISIONS + revision) as u64;
    let mut line = |number: usize| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(NOISE);
        format!("  setting-{number:03}: value-{:08x}\n", noise >> 32)
    };
    let settings: String = (0..LINES).map(&mut line).collect();
    let manifest =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n{settings}");
    let template: String = (0..LINES / 4).map(&mut line).collect();
    let at = "2026-01-02T03:04:05Z";
    let record = json!({
        "name": name, "namespace": namespace, "version": revision,
        "info": {
            "first_deployed": at, "last_deployed": at, "deleted": "", "notes": "Have fun.\n",
            "description": "Upgrade complete", "status": status(revision),
        },
        "chart": {
            "metadata": {
                "apiVersion": "v2", "name": "bench", "version": "1.2.0", "appVersion": "2.0",
                "description": "Settings, and nothing else",
            },
            "lock": null, "values": {"replicas": 1}, "schema": null, "files": null,
            "templates": [{"name": "templates/map.yaml", "data": STANDARD.encode(template)}],
        },
        "config": {"replicas": 2},
        "manifest": manifest,
    });
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(record.to_string().as_bytes()).unwrap();
    STANDARD.encode(packer.finish().unwrap())
}

/// What is asked of us: how it is called, its path, and the rows it has.
fn reads(namespace: &str) -> [(&'static str, String, usize); 2] {
    let all = format!("/api/v1/release/{namespace}");
    [("a page of 10", format!("{all}?itemsPerPage=10&page=1"), 10), ("all of them", all, RELEASES)]
}

async fn measure(kubeconfig: &Path, token: &str, namespace: &str) {
    let reads = reads(namespace);
    let mut helm = Vec::new();
    let mut cold = [Vec::new(), Vec::new()];
    let mut warm = [Vec::new(), Vec::new()];
    let mut memory = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        helm.extend(helm_list(kubeconfig, namespace).await);
        for (number, (_, path, rows)) in reads.iter().enumerate() {
            let binnacle = Binnacle::start(kubeconfig, token, &[]);
            binnacle.synced().await;
            // Connected before: a browser is, and helm's start is part of what people wait for.
            let mut client = Client::open(&binnacle.tls).await;
            let before = binnacle.process.memory().resident;
            let begun = Instant::now();
            let answer = client.get(path).await;
            cold[number].push(begun.elapsed());
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            check(&serde_json::from_slice(&answer.body).unwrap(), *rows);
            let later = load(&binnacle.process, &binnacle.tls, path, WARM).await;
            assert_eq!(later.failed, 0, "no round means anything");
            warm[number].push(later.percentile(0.50));
            let after = binnacle.process.memory().resident;
            memory[number].push(after.saturating_sub(before));
        }
    }
    section("list of releases beside `helm list`");
    let helm = (!helm.is_empty()).then(|| median(helm));
    match helm {
        Some(helm) => figure("helm list, all of them", millis(helm), ""),
        None => println!("  helm list: skipped, there is no helm in PATH; BENCH_HELM names one"),
    }
    for (number, (what, _, _)) in reads.iter().enumerate() {
        let (cold, warm) = (median(cold[number].clone()), median(warm[number].clone()));
        figure(format_args!("{what}: first request after the sync"), millis(cold), "");
        ratio(what, helm, cold, ">= 20");
        figure(format_args!("{what}: later requests, p50"), millis(warm), "");
        ratio(what, helm, warm, ">= 100");
        let most = memory[number].iter().copied().max().unwrap_or_default();
        figure(format_args!("{what}: resident memory, more"), mib(most), "<= 10 MiB");
    }
}

/// How many times as long helm takes.
fn ratio(what: &str, helm: Option<Duration>, ours: Duration, goal: &str) {
    let Some(helm) = helm else { return };
    let ratio = helm.as_secs_f64() / ours.as_secs_f64().max(1e-9);
    figure(format_args!("{what}: helm over it"), format_args!("{ratio:.0}"), goal);
}

/// The answer is what was asked for, with the facts of each row.
fn check(list: &Value, wanted: usize) {
    let total = list["listMeta"]["totalItems"].as_u64().unwrap_or_default();
    assert_eq!(total, RELEASES as u64, "releases listed");
    let rows = list["releases"].as_array().unwrap();
    assert_eq!(rows.len(), wanted, "rows shown");
    let is_whole = |row: &Value| row["chart"] == "bench" && row["revision"] == REVISIONS;
    assert!(rows.iter().all(is_whole), "a row lacks what its record tells: {}", rows[0]);
}

/// `helm list` of the namespace from before its process is made until it has ended; `None` where
/// there is no helm.
async fn helm_list(kubeconfig: &Path, namespace: &str) -> Option<Duration> {
    let set = std::env::var_os("BENCH_HELM").filter(|path| !path.is_empty());
    let program = set.clone().map_or_else(|| PathBuf::from("helm"), PathBuf::from);
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(&program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELM_") {
            command.env_remove(name);
        }
    }
    command.env_remove("KUBECONFIG").env("HOME", home.path());
    command.args(["list", "--output", "json", "--max", "100000", "--namespace", namespace]);
    command.arg("--kubeconfig").arg(kubeconfig);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let begun = Instant::now();
    let output = timeout(PATIENCE, command.output()).await.expect("helm list ends in time");
    let elapsed = begun.elapsed();
    let output = match output {
        Ok(output) => output,
        Err(_) if set.is_none() => return None,
        Err(error) => panic!("{}: {error}", program.display()),
    };
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} list: {words}", program.display());
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.as_array().map(Vec::len), Some(RELEASES), "releases that helm lists");
    Some(elapsed)
}

/// Deletes the namespace and waits until it is gone.
async fn remove(client: &kube::Client, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if let Err(error) = namespaces.delete(namespace, &DeleteParams::default()).await {
        println!("  the namespace {namespace} could not be deleted: {error}");
        return;
    }
    let begun = Instant::now();
    while !matches!(namespaces.get_opt(namespace).await, Ok(None)) {
        if begun.elapsed() > GONE {
            println!("  the namespace {namespace} is not gone after {} s", GONE.as_secs());
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

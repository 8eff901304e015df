//! The real binary killed (-9) at random moments of installs and upgrades: nothing of it runs on,
//! another instance tells what became of the release, and it can be recovered through the API.
//!
//! The kills of a run are side by side. `BINNACLE_KILLS=50` asks for more than four. It is NOT
//! where operations are cancelled (`release_writes.rs`), nor where what hangs is killed, or helm
//! with it (`release_killed.rs`, `release_cut.rs`).

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway;
use crate::helm_charts::{Hand, archive, made, options, program, web};
use crate::lifecycle::POLL;
use crate::spawned::Binary;

/// Kills of an ordinary run, and how many are side by side: each has a gateway of its own. Install
/// and upgrade with helm 4 and helm 3.
const KILLS: usize = 4;
const AT_ONCE: usize = 4;
/// Until an operation is called interrupted, and twice that for a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// Within which a kill comes, from the request on: an install of this chart takes about half.
const SPAN: u64 = 2500;

/// What a binary of these tests is started with: it is soon taken for gone.
pub fn settings(major: u32, cluster: &Cluster) -> Vec<String> {
    let kubeconfig = cluster.kubeconfig("admin").display().to_string();
    let helm = program(major).display().to_string();
    let settings = [
        ("--shared-cache", "false"),
        ("--operation-silence", "5"),
        ("--drain-delay", "0"),
        ("--drain-grace", "2"),
        ("--kubeconfig", kubeconfig.as_str()),
        ("--helm", helm.as_str()),
    ];
    settings.map(|(name, value)| format!("{name}={value}")).to_vec()
}

/// A binary with these settings and its state in this folder.
pub async fn started(folder: &Path, settings: &[String]) -> Binary {
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    Binary::start(folder, &settings).await
}

/// Processes that run in this folder or know of it: numbers and commands.
pub fn processes(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.display().to_string();
    let of = |process: std::fs::DirEntry| {
        let id: u32 = process.file_name().to_str()?.parse().ok()?;
        let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let shown = format!("{command}{}", String::from_utf8_lossy(&read("environ")));
        // What ended and was not reaped shows neither.
        shown.contains(&folder).then_some((id, command))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

/// A moment that nobody has chosen, in milliseconds from the request on.
fn moment(number: usize) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mixed = (u64::from(now.subsec_nanos()) ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Duration::from_millis((mixed >> 20) % SPAN)
}

/// One kill, seen from its end by another instance.
async fn kill(eye: Hand<'_>, number: usize) {
    let cluster = cluster::shared().await;
    let major = if number % 4 < 2 { 4 } else { 3 };
    let namespace = cluster.namespace("kill").await;
    let eye = Hand { namespace: &namespace, ..eye };
    let folder = tempfile::tempdir().unwrap();
    let chart = web();
    let upgrades = number % 2 == 1;
    if upgrades {
        made(major, eye.token, &chart, &["install", "web", "chart.tgz", "-n", &namespace]).await;
    }
    let mut binary = started(folder.path(), &settings(major, cluster)).await;
    let mut body = json!({"chart": archive(&chart), "wait": "legacy", "timeout": "60s"});
    body["values"] = json!({"message": "two", "replicas": 2});
    let after = moment(number);
    let asked = async {
        let (method, path) = if upgrades {
            (Method::PUT, format!("release/{namespace}/web"))
        } else {
            body["name"] = "web".into();
            (Method::POST, format!("release/{namespace}"))
        };
        let answer = binary.send(method, &path, eye.token, "", body.to_string()).await.ok()?;
        serde_json::from_slice::<Value>(&answer.body).ok()
    };
    // The answer may never come: then nobody knows the operation's name, but its release is known.
    let begun = Instant::now();
    let operation = tokio::time::timeout(after, asked).await.ok().flatten();
    tokio::time::sleep(after.saturating_sub(begun.elapsed())).await;
    binary.kill().await;
    let act = if upgrades { "upgrade" } else { "install" };
    let what = format!("helm {major}, {act}, killed after {after:?}");

    let is_alone = || async { processes(folder.path()).is_empty() };
    Cluster::eventually(&format!("{what}: nothing of it runs on"), is_alone).await;
    if let Some(operation) = operation.filter(|operation| operation["id"].is_string()) {
        let ended = explained(&eye, &operation, &what).await;
        let state = ended["state"].as_str().unwrap();
        assert!(["succeeded", "failed", "interrupted"].contains(&state), "{what}: {ended}");
    }
    recovered(&eye, &what).await;
}

/// What another instance says of the operation in the end.
async fn explained(eye: &Hand<'_>, operation: &Value, what: &str) -> Value {
    let begun = Instant::now();
    loop {
        let now = eye.operation(operation).await;
        if now["state"] != "running" && now["state"] != "queued" && now["state"] != "elsewhere" {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: it is never explained: {now}");
        tokio::time::sleep(POLL * 10).await;
    }
}

/// Whatever it is, it becomes a deployed release and then none.
async fn recovered(eye: &Hand<'_>, what: &str) {
    let begun = Instant::now();
    // While the lock is not silent for long enough, it may be that the holder still works.
    loop {
        let answer = eye.get(&eye.at("web")).await;
        let detail = if answer.status == 404 { json!({}) } else { answer.json() };
        if detail["stuck"].is_null() {
            break;
        }
        if detail["stuck"]["state"] == "interrupted" {
            let answer = eye.act("unlock", "web", &[], json!({"confirm": false})).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            break;
        }
        assert_eq!(detail["stuck"]["state"], "running", "{what}: {detail}");
        assert!(begun.elapsed() < PATIENCE, "{what}: it is never interrupted: {detail}");
        tokio::time::sleep(POLL * 10).await;
    }
    let status = eye.status("web").await;
    assert!(["", "failed", "deployed"].contains(&status.as_str()), "{what}: {status}");
    let body = json!({"chart": archive(&web()), "values": {"message": "three"}, "install": true});
    // Killed before its record: the lock alone is left, until it is silent for long enough.
    let operation = loop {
        let answer = eye.act("upgrade", "web", &[], body.clone()).await;
        if answer.status == 202 {
            break answer.json();
        }
        assert_eq!(answer.status, 409, "{what}: {}", answer.text());
        assert!(begun.elapsed() < PATIENCE, "{what}: {}", answer.text());
        tokio::time::sleep(POLL * 10).await;
    };
    let ended = eye.ended(&operation).await;
    assert_eq!((&ended["state"], &ended["status"]), (&json!("succeeded"), &json!("deployed")));
    eye.agrees_with_helm(4, what).await;
    eye.succeeds("uninstall", "web", json!({})).await;
    assert_eq!(eye.status("web").await, "", "{what}");
}

#[tokio::test]
async fn a_release_whose_gateway_is_killed_at_any_moment_is_explained_and_recovered_by_another() {
    let asked = std::env::var("BINNACLE_KILLS").ok();
    let kills = asked.map_or(KILLS, |text| text.parse().expect("BINNACLE_KILLS is a number"));
    let gateway = gateway::start(options(4)).await;
    let token = cluster::shared().await.token("admin");
    let eye = Hand { gateway: &gateway, token, namespace: "" };
    let numbers: Vec<_> = (0..kills).collect();
    for some in numbers.chunks(AT_ONCE) {
        join_all(some.iter().map(|number| kill(eye, *number))).await;
    }
    gateway.stop().await;
}

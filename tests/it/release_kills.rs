//! The real binary killed (-9) at random moments of installs and upgrades: nothing of it runs on,
//! another instance tells what became of the release, and it can be recovered through the API.
//!
//! The kills of a run are side by side. `BINNACLE_KILLS=50` asks for more than three. It is NOT where operations
//! are cancelled (`release_writes.rs`).

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::gateway;
use crate::helm_charts::{Hand, archive, made, options, program, web};
use crate::lifecycle::{POLL, in_time};

/// Kills of an ordinary run, and how many are side by side: each has a gateway of its own.
const KILLS: usize = 3;
const AT_ONCE: usize = 3;
/// Until an operation is called interrupted, and twice that for a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(120);
/// Within which a kill comes, from the request on: an install of this chart takes about half.
const SPAN: u64 = 2500;

/// A binary of a test's own.
struct Binary {
    child: Child,
    url: String,
    tls: ClientConfig,
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_binnacle"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BINNACLE_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", folder).env_remove("KUBECONFIG").stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Binary {
    async fn start(folder: &Path, major: u32, cluster: &Cluster) -> Binary {
        let state = folder.join("state");
        let mut command = command(folder);
        command.args(["--listen", "127.0.0.1:0", "--shared-cache=false"]);
        command.args(["--operation-silence", "5"]);
        command.arg("--kubeconfig").arg(cluster.kubeconfig("admin"));
        command.arg("--state-dir").arg(&state).arg("--helm").arg(program(major));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let line = in_time("it says where it listens", lines.next_line()).await.unwrap();
            let line = line.expect("it listens before it ends");
            let address = line.split_once("listening on https://").map(|(_, address)| address);
            if let Some(address) = address.and_then(|text| text.split_whitespace().next()) {
                break format!("https://{address}");
            }
        };
        // A full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut ca = self::command(folder);
        ca.args(["ca", "--state-dir"]).arg(&state);
        let ca = in_time("binnacle ca ends", ca.output()).await.unwrap();
        let tls = trusting(&String::from_utf8(ca.stdout).unwrap());
        Binary { child, url, tls }
    }

    /// JSON of an answer; `None` when there was none.
    async fn ask(&self, method: Method, path: &str, token: &str, body: &Value) -> Option<Value> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_only()
            .enable_http1()
            .build();
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let mut request = Request::builder().uri(format!("{}/api/v1/{path}", self.url));
        request = request.header("authorization", format!("Bearer {token}"));
        if method == Method::POST {
            let found = Box::pin(self.ask(Method::GET, "csrftoken/release", token, &Value::Null));
            request = request.header("x-csrf-token", found.await?["token"].as_str()?);
        }
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.header("content-type", "application/json").method(method);
        let answer = client.request(request.body(Full::new(Bytes::from(sent))).unwrap());
        let body = answer.await.ok()?.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    }
}

/// Processes that run in this folder or know of it.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let of = |process: std::fs::DirEntry| {
        let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let shown = format!("{command}{}", String::from_utf8_lossy(&read("environ")));
        // What ended and was not reaped shows neither.
        shown.contains(&folder).then_some(command)
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
    let mut binary = Binary::start(folder.path(), major, cluster).await;
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
        binary.ask(method, &path, eye.token, &body).await
    };
    // The answer may never come: then nobody knows the operation's name, but its release is known.
    let begun = Instant::now();
    let operation = tokio::time::timeout(after, asked).await.ok().flatten();
    tokio::time::sleep(after.saturating_sub(begun.elapsed())).await;
    binary.child.kill().await.unwrap();
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

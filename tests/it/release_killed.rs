//! Operation by outcome, for the outcome that nobody reports: the whole binary killed (-9) while a
//! rollback, an uninstall and a test hang, with helm 4 and helm 3. Started again with the same
//! state it tells what became of them, as helm itself does, and they are brought to their ends.
//!
//! It is NOT where installs and upgrades are killed, at moments of chance (`release_kills.rs`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::helm_charts::{archive, listed_by_helm, made, told, web};
use crate::lifecycle::{Answer, POLL};
use crate::release_kills::{processes, settings, started};
use crate::spawned::Binary;
use crate::writes::live;

/// Until an operation is called interrupted, and more for a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of what hangs: on the slowest machine the kill comes before.
const TIME: &str = "300s";

/// An act that hangs when the binary is killed. Its release is made by helm, past its hooks.
struct Story {
    act: &'static str,
    /// Of each revision that is there before.
    values: &'static [&'static str],
    body: Value,
    /// Whose pod hangs; helm has made its mark by the time that it is there.
    pod: &'static str,
    /// Of the release then.
    status: &'static str,
    /// Whether it has to be unlocked, and which acts go on from there to which status.
    stuck: bool,
    then: Vec<(&'static str, Value, &'static str)>,
}

fn stories() -> [Story; 3] {
    let done = json!({"chart": archive(&web()), "values": {"test": "done"}});
    [
        Story {
            act: "rollback",
            values: &["hook=pending", "message=two"],
            body: json!({"revision": 1, "timeout": TIME}),
            pod: "web-hook",
            status: "pending-rollback",
            stuck: true,
            then: vec![("rollback", json!({"revision": 2}), "deployed")],
        },
        Story {
            act: "uninstall",
            values: &["hook=pending"],
            body: json!({"timeout": TIME}),
            pod: "web-hook",
            status: "uninstalling",
            stuck: false,
            then: vec![("uninstall", json!({"hooks": "false"}), "")],
        },
        Story {
            act: "test",
            values: &["test=pending"],
            body: json!({"timeout": TIME}),
            pod: "web-test",
            status: "deployed",
            stuck: false,
            then: vec![("upgrade", done, "deployed"), ("test", json!({}), "deployed")],
        },
    ]
}

/// A release `web` in this namespace, as a binary and as helm tell of it.
struct Release {
    major: u32,
    token: &'static str,
    namespace: String,
}

impl Release {
    async fn made(major: u32, story: &Story) -> Release {
        let cluster = cluster::shared().await;
        let namespace = cluster.namespace(&format!("killed{major}-{}", story.act)).await;
        let release = Release { major, token: cluster.token("admin"), namespace };
        for (number, values) in story.values.iter().enumerate() {
            let act = if number == 0 { "install" } else { "upgrade" };
            let namespace = release.namespace.as_str();
            let args = [act, "web", "chart.tgz", "-n", namespace, "--no-hooks", "--set", values];
            made(major, release.token, &web(), &args).await;
        }
        release
    }

    fn at(&self) -> String {
        format!("release/{}/web", self.namespace)
    }

    async fn send(&self, binary: &Binary, method: Method, path: &str, body: &Value) -> Answer {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        binary.send(method, path, self.token, "", sent).await.unwrap()
    }

    async fn act(&self, binary: &Binary, act: &str, body: &Value) -> Answer {
        let at = self.at();
        match act {
            "upgrade" => self.send(binary, Method::PUT, &at, body).await,
            "uninstall" => {
                let pairs = body.as_object().unwrap().iter();
                let pairs = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap()));
                let path = format!("{at}?{}", pairs.collect::<Vec<_>>().join("&"));
                self.send(binary, Method::DELETE, &path, &Value::Null).await
            }
            _ => self.send(binary, Method::POST, &format!("{at}/{act}"), body).await,
        }
    }

    async fn begun(&self, binary: &Binary, act: &str, body: &Value) -> Value {
        let answer = self.act(binary, act, body).await;
        assert_eq!(answer.status, 202, "{act}: {}", answer.text());
        answer.json()
    }

    /// The operation, when nobody is said to be at it any more.
    async fn ended(&self, binary: &Binary, operation: &Value) -> Value {
        let path = format!("operation/{}/{}", self.namespace, operation["id"].as_str().unwrap());
        let begun = Instant::now();
        loop {
            let answer = self.send(binary, Method::GET, &path, &Value::Null).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let now = answer.json();
            if !["queued", "running", "elsewhere"].iter().any(|state| now["state"] == *state) {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {now}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The detail, which says of status and history what helm says; null when both know of none.
    async fn agreed(&self, binary: &Binary) -> Value {
        let Release { major, token, namespace } = self;
        let answer = self.send(binary, Method::GET, &self.at(), &Value::Null).await;
        if answer.status == 404 {
            assert!(listed_by_helm(*major, token, namespace).await.is_empty());
            return Value::Null;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let detail = answer.json();
        let status = told(*major, token, &["status", "web", "-n", namespace]).await;
        let theirs = (&status["version"], &status["info"]["status"]);
        assert_eq!((&detail["revision"], &detail["status"]), theirs, "{detail}");
        let history = told(*major, token, &["history", "web", "-n", namespace]).await;
        let row = |row: &Value| ["revision", "status", "description"].map(|key| row[key].clone());
        let mut ours: Vec<_> = detail["history"].as_array().unwrap().iter().map(row).collect();
        // Helm's begins with the oldest.
        ours.reverse();
        let theirs: Vec<_> = history.as_array().unwrap().iter().map(row).collect();
        assert_eq!(ours, theirs, "{detail}");
        detail
    }
}

/// The folders of helm's runs.
fn runs(folder: &Path) -> Vec<PathBuf> {
    let runs = std::fs::read_dir(folder.join("state/helm")).unwrap().flatten();
    runs.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Begins the act and waits until it hangs: its operation.
async fn hangs(binary: &Binary, story: &Story, release: &Release) -> Value {
    let cluster = cluster::shared().await;
    let operation = release.begun(binary, story.act, &story.body).await;
    let pod = format!("/api/v1/namespaces/{}/pods/{}", release.namespace, story.pod);
    let is_there = || async { live(cluster, &pod).await.is_some() };
    Cluster::eventually(&format!("the pod of the {} is there", story.act), is_there).await;
    operation
}

/// What the binary says after its restart, and how the release is brought to an end.
async fn recovered(binary: &Binary, story: &Story, release: &Release, operation: &Value) {
    let what = format!("helm {}, {}", release.major, story.act);
    let ended = release.ended(binary, operation).await;
    for (key, value) in [("state", "interrupted"), ("act", story.act), ("release", "web")] {
        assert_eq!(ended[key], value, "{what}: {ended}");
    }
    assert_eq!(ended["holder"], operation["holder"], "{what}");
    let detail = release.agreed(binary).await;
    assert_eq!(detail["status"], story.status, "{what}");
    assert_eq!(detail["operation"]["id"], operation["id"], "{what}");
    assert_eq!(detail["operation"]["state"], "interrupted", "{what}");
    let unlocked = release.act(binary, "unlock", &json!({"confirm": false})).await;
    if story.stuck {
        assert_eq!(detail["stuck"]["state"], "interrupted", "{what}: {detail}");
        assert_eq!(detail["stuck"]["remedy"], "rollback", "{what}: {detail}");
        assert_eq!(detail["stuck"]["rollbackTo"], 2, "{what}: {detail}");
        assert_eq!(unlocked.status, 200, "{what}: {}", unlocked.text());
        assert_eq!(release.agreed(binary).await["status"], "failed", "{what}");
    } else {
        assert_eq!(detail["stuck"], Value::Null, "{what}: {detail}");
        assert_eq!(unlocked.status, 409, "there is nothing to unlock: {}", unlocked.text());
    }
    for (act, body, status) in &story.then {
        let operation = release.begun(binary, act, body).await;
        let ended = release.ended(binary, &operation).await;
        assert_eq!(ended["state"], "succeeded", "{what}, then {act}: {ended}");
        let detail = release.agreed(binary).await;
        assert_eq!(detail["status"].as_str().unwrap_or_default(), *status, "{what}, then {act}");
    }
}

async fn killed(major: u32) {
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(major, cluster);
    let stories = stories();
    let releases = join_all(stories.iter().map(|story| Release::made(major, story))).await;
    let mut binary = started(folder.path(), &settings).await;
    let both = stories.iter().zip(&releases);
    let operations = join_all(both.map(|(story, release)| hangs(&binary, story, release))).await;
    let left = runs(folder.path());
    assert!(!left.is_empty(), "helm runs in folders of its own");
    binary.kill().await;
    let is_alone = || async { processes(folder.path()).is_empty() };
    Cluster::eventually("nothing of it runs on", is_alone).await;

    let mut binary = started(folder.path(), &settings).await;
    assert!(!left.iter().any(|run| run.exists()), "left over: {left:?}");
    let all = stories.iter().zip(&releases).zip(&operations);
    let all =
        all.map(|((story, release), operation)| recovered(&binary, story, release, operation));
    join_all(all).await;
    binary.terminate();
    assert_eq!(binary.exit_code().await, Some(0));
}

#[tokio::test]
async fn what_hangs_as_the_gateway_is_killed_is_told_by_the_next_one_with_helm_4() {
    killed(4).await;
}

#[tokio::test]
async fn what_hangs_as_the_gateway_is_killed_is_told_by_the_next_one_with_helm_3() {
    killed(3).await;
}

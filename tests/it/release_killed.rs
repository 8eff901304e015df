//! Operation by outcome, for the outcome that nobody reports: the whole binary killed (-9) while a
//! rollback, an uninstall and a test hang, with helm 4 and helm 3. Started again with the same
//! state it tells what became of them, as helm itself does, and they are brought to their ends.
//!
//! It is NOT where installs and upgrades are killed, at moments of chance (`release_kills.rs`), nor
//! where helm is killed as well, or the binary told to end (`release_cut.rs`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::helm_charts::{archive, listed_by_helm, made, told, web};
use crate::lifecycle::{Answer, POLL};
use crate::release_kills::{processes, settings, started};
use crate::spawned::{Binary, signal};
use crate::writes::live;

/// Until an operation is called interrupted, and more for a machine that is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of what hangs: on the slowest machine the end comes before.
pub const TIME: &str = "300s";

/// How the binary is ended.
#[derive(Clone, Copy, PartialEq)]
pub enum End {
    Killed,
    /// With all that it has started.
    KilledWithHelm,
    Told,
}

/// An act that hangs when the binary is ended. Its release is made by helm, past its hooks.
pub struct Story {
    pub act: &'static str,
    /// Of each revision that is there before.
    pub values: &'static [&'static str],
    pub body: Value,
    /// Whose pod hangs; helm has made its mark by the time that it is there.
    pub pod: &'static str,
    /// Of the release then.
    pub status: &'static str,
    /// If it has to be unlocked: what is proposed then, and the revision to go back to.
    pub remedy: Option<(&'static str, Option<u32>)>,
    /// Which acts go on from there to which status.
    pub then: Vec<(&'static str, Value, &'static str)>,
}

/// The chart with these values.
pub fn with(values: Value) -> Value {
    json!({"chart": archive(&web()), "values": values, "timeout": TIME})
}

pub fn rollback() -> Story {
    Story {
        act: "rollback",
        values: &["hook=pending", "message=two"],
        body: json!({"revision": 1, "timeout": TIME}),
        pod: "web-hook",
        status: "pending-rollback",
        remedy: Some(("rollback", Some(2))),
        then: vec![("rollback", json!({"revision": 2}), "deployed")],
    }
}

fn stories() -> Vec<Story> {
    let done = with(json!({"test": "done"}));
    vec![
        rollback(),
        Story {
            act: "uninstall",
            values: &["hook=pending"],
            body: json!({"timeout": TIME}),
            pod: "web-hook",
            status: "uninstalling",
            remedy: None,
            then: vec![("uninstall", json!({"hooks": "false"}), "")],
        },
        Story {
            act: "test",
            values: &["test=pending"],
            body: json!({"timeout": TIME}),
            pod: "web-test",
            status: "deployed",
            remedy: None,
            then: vec![("upgrade", done, "deployed"), ("test", json!({}), "deployed")],
        },
    ]
}

/// A release `web` in this namespace, as a binary and as helm tell of it.
pub struct Release {
    major: u32,
    token: &'static str,
    pub namespace: String,
}

impl Release {
    pub async fn made(major: u32, act: &str, values: &[&str]) -> Release {
        let cluster = cluster::shared().await;
        let namespace = cluster.namespace(&format!("killed{major}-{act}")).await;
        let release = Release { major, token: cluster.token("admin"), namespace };
        for (number, values) in values.iter().enumerate() {
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
            "install" => {
                let mut body = body.clone();
                body["name"] = "web".into();
                let path = format!("release/{}", self.namespace);
                self.send(binary, Method::POST, &path, &body).await
            }
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

    pub async fn begun(&self, binary: &Binary, act: &str, body: &Value) -> Value {
        let answer = self.act(binary, act, body).await;
        assert_eq!(answer.status, 202, "{act}: {}", answer.text());
        answer.json()
    }

    pub async fn operation(&self, binary: &Binary, operation: &Value) -> Value {
        let path = format!("operation/{}/{}", self.namespace, operation["id"].as_str().unwrap());
        let answer = self.send(binary, Method::GET, &path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The operation, when nobody is said to be at it any more.
    pub async fn ended(&self, binary: &Binary, operation: &Value) -> Value {
        let begun = Instant::now();
        loop {
            let now = self.operation(binary, operation).await;
            if !["queued", "running", "elsewhere"].iter().any(|state| now["state"] == *state) {
                return now;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {now}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The detail, which says of status and history what helm says; null when both know of none.
    pub async fn agreed(&self, binary: &Binary) -> Value {
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

/// Ends the binary in the midst of so many acts; nothing of it runs on.
async fn ended(how: End, binary: &mut Binary, folder: &Path, acts: usize) {
    match how {
        End::Killed => binary.kill().await,
        End::KilledWithHelm => {
            let own = binary.child.id().unwrap();
            let others = processes(folder).into_iter().filter(|(id, _)| *id != own);
            let (guards, helms): (Vec<_>, Vec<_>) =
                others.partition(|(_, command)| command.contains("helm-guard"));
            assert_eq!((guards.len(), helms.len()), (acts, acts), "{guards:?} {helms:?}");
            let ids = |of: Vec<(u32, String)>| of.into_iter().map(|(id, _)| id);
            // A guard first, which would ask its helm to end; helm last, of whose end the binary
            // would still write.
            let all: Vec<u32> = ids(guards).chain([own]).chain(ids(helms)).collect();
            signal("-KILL", &all);
            assert_eq!(binary.exit_code().await, None);
        }
        End::Told => {
            binary.terminate();
            assert_eq!(binary.exit_code().await, Some(0));
            // It has waited for all of them.
            let left = processes(folder);
            assert!(left.is_empty(), "it left {left:?}");
            assert!(runs(folder).is_empty(), "it left {:?}", runs(folder));
        }
    }
    let is_alone = || async { processes(folder).is_empty() };
    Cluster::eventually("nothing of it runs on", is_alone).await;
}

/// What the next binary says, and how the release is brought to an end.
async fn recovered(how: End, binary: &Binary, story: &Story, release: &Release, begun: &Value) {
    let what = format!("helm {}, {}", release.major, story.act);
    let (state, class) =
        if how == End::Told { ("cancelled", "cancelled") } else { ("interrupted", "") };
    let now = release.ended(binary, begun).await;
    for (key, value) in [("state", state), ("act", story.act), ("release", "web")] {
        assert_eq!(now[key], value, "{what}: {now}");
    }
    assert_eq!(now["error"]["class"].as_str().unwrap_or_default(), class, "{what}: {now}");
    assert_eq!(now["holder"], begun["holder"], "{what}");
    let detail = release.agreed(binary).await;
    assert_eq!(detail["status"], story.status, "{what}");
    assert_eq!(detail["operation"]["id"], begun["id"], "{what}");
    assert_eq!(detail["operation"]["state"], state, "{what}");
    if let Some((remedy, back_to)) = story.remedy {
        assert_eq!(detail["stuck"]["state"], "interrupted", "{what}: {detail}");
        let (act, body, _) = &story.then[0];
        let refused = release.act(binary, act, body).await;
        assert_eq!(refused.status, 409, "{what}: {}", refused.text());
        assert!(refused.text().contains("Unlock it"), "{what}: {}", refused.text());
        let unlocked = release.act(binary, "unlock", &json!({"confirm": false})).await;
        assert_eq!(unlocked.status, 200, "{what}: {}", unlocked.text());
        for told in [&detail["stuck"], &unlocked.json()] {
            assert_eq!(told["remedy"], remedy, "{what}: {told}");
            assert_eq!(told["rollbackTo"], json!(back_to), "{what}: {told}");
        }
        assert_eq!(release.agreed(binary).await["status"], "failed", "{what}");
    } else {
        assert_eq!(detail["stuck"], Value::Null, "{what}: {detail}");
        let refused = release.act(binary, "unlock", &json!({"confirm": false})).await;
        assert_eq!(refused.status, 409, "there is nothing to unlock: {}", refused.text());
    }
    for (act, body, status) in &story.then {
        let operation = release.begun(binary, act, body).await;
        let ended = release.ended(binary, &operation).await;
        assert_eq!(ended["state"], "succeeded", "{what}, then {act}: {ended}");
        let detail = release.agreed(binary).await;
        assert_eq!(detail["status"].as_str().unwrap_or_default(), *status, "{what}, then {act}");
    }
}

/// All of them hang side by side when the binary is ended.
pub async fn tell(how: End, major: u32, stories: Vec<Story>) {
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(major, cluster);
    let made = stories.iter().map(|story| Release::made(major, story.act, story.values));
    let releases = join_all(made).await;
    let mut binary = started(folder.path(), &settings).await;
    let both = stories.iter().zip(&releases);
    let operations = join_all(both.map(|(story, release)| hangs(&binary, story, release))).await;
    let left = runs(folder.path());
    assert!(!left.is_empty(), "helm runs in folders of its own");
    ended(how, &mut binary, folder.path(), stories.len()).await;

    let mut binary = started(folder.path(), &settings).await;
    assert!(!left.iter().any(|run| run.exists()), "left over: {left:?}");
    let all = stories.iter().zip(&releases).zip(&operations);
    let all = all.map(|((story, release), begun)| recovered(how, &binary, story, release, begun));
    join_all(all).await;
    binary.terminate();
    assert_eq!(binary.exit_code().await, Some(0));
}

#[tokio::test]
async fn what_hangs_as_the_gateway_is_killed_is_told_by_the_next_one_with_helm_4() {
    tell(End::Killed, 4, stories()).await;
}

#[tokio::test]
async fn what_hangs_as_the_gateway_is_killed_is_told_by_the_next_one_with_helm_3() {
    tell(End::Killed, 3, stories()).await;
}

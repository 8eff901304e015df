//! An operation told as it goes on: its events at the instance that runs it and at another, to who
//! comes back and to who may not look. Also what `/metrics` says of runs, and the choices of an
//! install or upgrade that no other module makes, with helm 4.
//!
//! It is NOT where operations end in all their ways (`release_writes.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway};
use crate::helm_charts::{Hand, archive, broken, chart, made, options, packed, small, told};
use crate::log_follow::in_front_of;
use crate::log_streams::{Stream, get};
use crate::logs::answering;
use crate::people::{Person, delete, grant};
use crate::writes::live;

/// Of a chart that helm says a word about before it does anything.
const DEPRECATED: &str = "apiVersion: v2\nname: lingers\nversion: 0.1.0\ndeprecated: true\n";
/// Its pod never becomes ready.
const PODS: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
      annotations: {test.binnacle/fate: pending}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: example.invalid/lingers}]
";
const MAP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {colour: {{ .Values.colour | quote }}}
";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// An install that says something, and then nothing until its deployment wants no pods.
fn lingering() -> Value {
    let files = [
        ("lingers/Chart.yaml", DEPRECATED.as_bytes()),
        ("lingers/templates/pods.yaml", PODS.as_bytes()),
    ];
    json!({"chart": archive(&packed(&files)), "wait": "legacy", "timeout": "60s"})
}

/// Lets the install go on.
async fn let_go(namespace: &str) {
    let cluster = cluster::shared().await;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/lingers");
    let is_there = || async { live(cluster, &path).await.is_some() };
    Cluster::eventually("the deployment is made", is_there).await;
    let (admin, none) = (cluster.token("admin"), json!({"spec": {"replicas": 0}}));
    let headers = [("content-type", "application/merge-patch+json")];
    let patched = cluster.request(Method::PATCH, admin, &path, &headers, none.to_string());
    assert_eq!(patched.await.0, 200);
}

/// Where an operation is, as a whole URL.
fn url(hand: &Hand<'_>, operation: &Value) -> String {
    let id = operation["id"].as_str().unwrap();
    format!("{}/api/v1/operation/{}/{id}", hand.gateway.url, hand.namespace)
}

/// Somebody who looks on, and what he was told.
struct Reader {
    stream: Stream,
    states: Vec<String>,
    lines: Vec<String>,
    /// The number of the line that is to come.
    next: u64,
    logs: usize,
    end: Value,
}

impl Reader {
    /// From the beginning, or from behind the last event that he had.
    async fn open(hand: &Hand<'_>, operation: &Value, last: &str) -> Reader {
        let headers = [("accept", "text/event-stream"), ("last-event-id", last)];
        let url = url(hand, operation);
        let stream = Stream::open(hand.gateway.tls(), &url, hand.token, &headers).await;
        let next = last.parse().unwrap_or_default();
        let (states, lines) = (Vec::new(), Vec::new());
        Reader { stream, states, lines, next, logs: 0, end: Value::Null }
    }

    /// The next event; lines are numbered without a gap.
    async fn step(&mut self) {
        let event = self.stream.next().await;
        match event.name.as_str() {
            "state" => {
                assert_eq!(event.data["log"], json!([]), "a state has no log: {}", event.data);
                self.states.push(event.data["state"].as_str().unwrap().to_owned());
            }
            "log" => {
                assert_eq!(event.data["from"], self.next, "{}", event.data);
                let lines = event.data["lines"].as_array().unwrap();
                assert!(!lines.is_empty(), "{}", event.data);
                self.lines.extend(lines.iter().map(|line| line.as_str().unwrap().to_owned()));
                self.next += lines.len() as u64;
                assert_eq!(event.id, self.next.to_string());
                self.logs += 1;
            }
            "end" => self.end = event.data,
            other => panic!("no event is called {other}"),
        }
    }

    /// Until a line with this word has come.
    async fn hears(&mut self, word: &str) {
        while !self.lines.iter().any(|line| line.contains(word)) {
            assert!(self.end.is_null(), "{word} was not said: {:?}", self.lines);
            self.step().await;
        }
    }

    async fn read_out(&mut self) {
        while self.end.is_null() {
            self.step().await;
        }
    }
}

#[tokio::test]
async fn an_operation_is_told_as_it_goes_on_and_who_comes_back_misses_and_doubles_no_line() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("told").await;
    let (one, other) = (gateway::start(options(4)).await, gateway::start(options(4)).await);
    let hand = Hand { gateway: &one, token: cluster.token("admin"), namespace: &namespace };
    let there = Hand { gateway: &other, ..hand };
    let operation = hand.begun("install", "lingers", lingering()).await;
    let mut whole = Reader::open(&hand, &operation, "").await;
    let mut elsewhere = Reader::open(&there, &operation, "").await;
    let mut away = Reader::open(&hand, &operation, "").await;
    away.hears("deprecated").await;
    let (seen, last) = (away.lines, away.next.to_string());
    drop(away.stream);
    whole.hears("deprecated").await;
    while elsewhere.states.is_empty() {
        elsewhere.step().await;
    }
    let mut back = Reader::open(&hand, &operation, &last).await;
    let_go(&namespace).await;

    whole.read_out().await;
    assert_eq!((&whole.end["state"], &whole.end["revision"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(whole.end["status"], "deployed", "{}", whole.end);
    assert_eq!(whole.states.last().unwrap(), "succeeded");
    let before = &whole.states[..whole.states.len() - 1];
    let is_on = |state: &String| state == "queued" || state == "running";
    assert!(!before.is_empty() && before.iter().all(is_on), "{before:?}");
    assert!(whole.logs > 1, "lines came when they were said: {:?}", whole.lines);
    assert!(whole.lines.iter().any(|line| line.contains("deployed")), "{:?}", whole.lines);
    assert_eq!(hand.operation(&operation).await["log"], json!(whole.lines));

    back.read_out().await;
    assert_eq!([&seen[..], &back.lines].concat(), whole.lines, "who came back at once");
    elsewhere.read_out().await;
    assert_eq!(elsewhere.end["state"], "succeeded", "{}", elsewhere.end);
    assert_eq!(elsewhere.states.pop().unwrap(), "succeeded");
    let is_elsewhere = |state: &String| state == "elsewhere";
    let states = &elsewhere.states;
    assert!(!states.is_empty() && states.iter().all(is_elsewhere), "{states:?}");
    assert_eq!(elsewhere.lines, whole.lines, "at another instance");
    for hand in [hand, there] {
        let mut late = Reader::open(&hand, &operation, &last).await;
        late.read_out().await;
        assert_eq!(late.end["state"], "succeeded", "{}", late.end);
        assert_eq!([&seen[..], &late.lines].concat(), whole.lines, "who came back at the end");
    }
}

#[tokio::test]
async fn a_cancelled_operation_ends_its_streams_as_cancelled_everywhere() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("called-off").await;
    let (one, other) = (gateway::start(options(4)).await, gateway::start(options(4)).await);
    let hand = Hand { gateway: &one, token: cluster.token("admin"), namespace: &namespace };
    let there = Hand { gateway: &other, ..hand };
    let operation = hand.begun("install", "lingers", lingering()).await;
    let mut readers =
        [Reader::open(&hand, &operation, "").await, Reader::open(&there, &operation, "").await];
    hand.until("lingers", "pending-install").await;
    let path = format!("operation/{namespace}/{}", operation["id"].as_str().unwrap());
    let answer = hand.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    for reader in &mut readers {
        reader.read_out().await;
        assert_eq!(reader.end["state"], "cancelled", "{}", reader.end);
        assert_eq!(reader.end["status"], "failed", "{}", reader.end);
        assert_eq!(reader.end["error"]["class"], "cancelled", "{}", reader.end);
        assert_eq!(reader.states.last().unwrap(), "cancelled");
    }
}

#[tokio::test]
async fn nobody_is_told_of_an_operation_whose_releases_he_may_not_read() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("overheard").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let operation = hand.begun("install", "lingers", lingering()).await;
    let stranger = Person::new(cluster, &namespace, "stranger").await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    grant(cluster, Some(&namespace), "stranger", stranger.subject.clone(), rules).await;
    let listener = Person::new(cluster, &namespace, "listener").await;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]);
    grant(cluster, Some(&namespace), "listener", listener.subject.clone(), rules).await;

    let accept = [("accept", "text/event-stream")];
    let status = async |token: &str, url: &str| {
        get(gateway.tls(), url, token, &accept).await.status().as_u16()
    };
    let at = url(&hand, &operation);
    assert_eq!(status(&stranger.token, &at).await, 403);
    let strange = Hand { token: &stranger.token, ..hand };
    let path = format!("operation/{namespace}/{}", operation["id"].as_str().unwrap());
    assert_eq!(strange.get(&path).await.status, 403);
    let answer = strange.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let unknown = format!("{}/api/v1/operation/{namespace}/lingers.iaaaaaaa", gateway.url);
    assert_eq!(status(hand.token, &unknown).await, 404);

    // Who may read is told, and may not cancel.
    let listening = Hand { token: &listener.token, ..hand };
    let may_read = || async { listening.get(&path).await.status == 200 };
    Cluster::eventually("who may read secrets is told", may_read).await;
    let mut reader = Reader::open(&listening, &operation, "").await;
    reader.hears("deprecated").await;
    let answer = listening.send(Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let_go(&namespace).await;
    reader.read_out().await;
    assert_eq!(reader.end["state"], "succeeded", "{}", reader.end);
}

#[tokio::test]
async fn who_came_with_a_token_that_is_over_by_our_clock_alone_is_told_to_the_end() {
    // {"alg":"none"} and {"sub":"token-admin","exp":1}, which this API server takes.
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0b2tlbi1hZG1pbiIsImV4cCI6MX0.";
    let looks = AtomicUsize::default();
    let server = answering(Arc::new(move |head: &str| {
        if !head.contains("/secrets/binnacle.operation.web ") {
            return Some((404, String::new()));
        }
        let is_first = looks.fetch_add(1, Ordering::Relaxed) == 0;
        let state = if is_first { "running" } else { "succeeded" };
        let operation = json!({"id": "web.iaaaaaaa", "namespace": "shop", "state": state});
        let record = STANDARD.encode(json!({"operation": operation}).to_string());
        let lock = json!({
            "kind": "Secret", "type": "binnacle.dev/operation.v1",
            "metadata": {"uid": "first", "resourceVersion": "1"}, "data": {"record": record},
        });
        Some((200, lock.to_string()))
    }));
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(server.await, folder.path()).await;
    let url = format!("https://{}/api/v1/operation/shop/web.iaaaaaaa", running.https);
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let accept = [("accept", "text/event-stream")];
    let mut stream = Stream::open(tls, &url, token, &accept).await;
    let mut states = Vec::new();
    let end = loop {
        let event = stream.next().await;
        if event.name == "end" {
            break event.data;
        }
        states.push(event.data["state"].clone());
    };
    assert_eq!(states, ["elsewhere", "succeeded"], "{end}");
    assert_eq!(end["state"], "succeeded", "{end}");
}

/// The sample of a metric with exactly these labels.
async fn sample(gateway: &Gateway, name: &str) -> Option<u64> {
    let answer = gateway.get("admin", "/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().parse().unwrap_or_else(|_| panic!("{name}: {line}")))
}

#[tokio::test]
async fn metrics_tell_which_helm_is_run_and_how_its_runs_ended() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("counted").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let runs = async |outcome: &str| {
        let name = format!("binnacle_helm_runs_total{{outcome=\"{outcome}\"}}");
        sample(&gateway, &name).await.unwrap_or_default()
    };
    assert_eq!((runs("succeeded").await, runs("failed").await), (0, 0));
    hand.succeeds("install", "good", json!({"chart": archive(&small())})).await;
    let ended = hand.done("install", "bad", json!({"chart": archive(&broken())})).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_eq!((runs("succeeded").await, runs("failed").await), (1, 1));
    assert_eq!(sample(&gateway, "binnacle_helm_children").await, Some(0));

    let version = made(4, hand.token, &[], &["version", "--template", "{{.Version}}"]).await;
    let engine = format!("binnacle_helm_engine{{version=\"{}\"}}", version.trim());
    assert_eq!(sample(&gateway, &engine).await, Some(1), "{engine}");
    let state = hand.get("integration/helm/state").await.json();
    assert_eq!(state["version"], version.trim(), "{state}");
}

#[tokio::test]
async fn what_is_chosen_of_an_act_is_what_helm_keeps_of_it() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("chosen").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    tokio::join!(words(&hand), definitions(&hand), reused(&hand));
    hand.agrees_with_helm(4, "after all of them").await;
}

/// `helm get metadata`.
async fn metadata(hand: &Hand<'_>, name: &str) -> Value {
    told(4, hand.token, &["get", "metadata", name, "-n", hand.namespace]).await
}

/// Descriptions and labels; `null` takes a label off.
async fn words(hand: &Hand<'_>) {
    for (act, description, labels, kept) in [
        ("install", "as agreed", json!({"team": "red"}), json!({"team": "red"})),
        ("upgrade", "and on", json!({"tier": "back"}), json!({"team": "red", "tier": "back"})),
        ("upgrade", "less of it", json!({"team": null}), json!({"tier": "back"})),
    ] {
        let mut body = json!({"chart": archive(&small()), "labels": labels});
        body["description"] = description.into();
        hand.succeeds(act, "words", body).await;
        let ours = hand.get(&hand.at("words")).await.json();
        assert_eq!((&ours["description"], &ours["labels"]), (&json!(description), &kept));
        // Helm tells its own labels, too.
        let told_by_helm = metadata(hand, "words").await;
        for name in ["team", "tier"] {
            assert_eq!(told_by_helm["labels"].get(name), kept.get(name), "{description}: {name}");
        }
        let history = told(4, hand.token, &["history", "words", "-n", hand.namespace]).await;
        let newest = history.as_array().unwrap().last().unwrap();
        assert_eq!(newest["description"], description, "{history}");
    }
}

/// The definitions of a chart are skipped or made.
async fn definitions(hand: &Hand<'_>) {
    let cluster = cluster::shared().await;
    let group = format!("{}.example.org", hand.namespace);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let definition = definition.to_string();
    let files = [
        ("crds/things.yaml", definition.as_str()),
        ("templates/map.yaml", MAP),
        ("values.yaml", "colour: red\n"),
    ];
    let chart = chart("things", "0.1.0", &files);
    let path = format!("{CRDS}/things.{group}");
    for (name, skip) in [("without", true), ("with", false)] {
        let body = json!({"chart": archive(&chart), "skipCrds": skip});
        hand.succeeds("install", name, body).await;
        assert_eq!(metadata(hand, name).await["status"], "deployed", "{name}");
        assert_eq!(live(cluster, &path).await.is_none(), skip, "{name}");
    }
    delete(cluster, &path).await;
}

/// What becomes of earlier values when the chart has others by then.
async fn reused(hand: &Hand<'_>) {
    let cluster = cluster::shared().await;
    let painted = |version: &str, values: &str| {
        chart("painted", version, &[("templates/map.yaml", MAP), ("values.yaml", values)])
    };
    let old = painted("0.1.0", "colour: red\n");
    let new = painted("0.2.0", "colour: blue\nsize: 1\n");
    let both = json!({"message": "mine", "extra": 1});
    let all = json!({"colour": "blue", "size": 1, "message": "mine", "extra": 1});
    let modes = [
        ("reset", json!({"extra": 1}), json!({"colour": "blue", "size": 1, "extra": 1})),
        ("reuse", both.clone(), json!({"colour": "red", "message": "mine", "extra": 1})),
        ("resetThenReuse", both, all),
    ];
    let (old, new) = (&old, &new);
    join_all(modes.map(|(mode, user, computed)| async move {
        let name = mode.to_lowercase();
        let body = json!({"chart": archive(old), "values": {"message": "mine"}});
        hand.succeeds("install", &name, body).await;
        let body = json!({"chart": archive(new), "values": {"extra": 1}, "reuse": mode});
        hand.succeeds("upgrade", &name, body).await;
        let ours = hand.get(&format!("{}/values", hand.at(&name))).await.json();
        assert_eq!((&ours["user"], &ours["computed"]), (&user, &computed), "{mode}");
        let args = ["get", "values", &name, "-n", hand.namespace];
        assert_eq!(told(4, hand.token, &args).await, user, "{mode}");
        let all = [&args[..], &["--all"]].concat();
        assert_eq!(told(4, hand.token, &all).await, computed, "{mode}");
        assert_eq!(metadata(hand, &name).await["version"], "0.2.0", "{mode}");
        let path = format!("/api/v1/namespaces/{}/configmaps/{name}", hand.namespace);
        let map = live(cluster, &path).await.unwrap();
        assert_eq!(map["data"]["colour"], computed["colour"], "{mode}");
    }))
    .await;
}

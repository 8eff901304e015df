//! What is wrong with a request, a chart, a namespace or the engine itself: the right answer with a
//! sentence, and nothing left behind, neither a release nor a lock.
//!
//! It is NOT where acts fail for reasons that lie in the cluster's objects (`release_writes.rs`).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Options};
use crate::helm_charts::{
    BOTH, Hand, archive, broken, chart, crd, huge, options, packed, slow, small, web,
};
use crate::log_streams::Stream;
use crate::people::{create, delete};
use crate::release_kills::processes;
use crate::restarts::Plane;
use crate::writes::live;

const ABOUT: &[u8] = b"apiVersion: v2\nname: bad\nversion: 0.1.0\n";
const SECRET: &str = "nobody-may-read-this-of-me";
/// A secret that was stored before.
const EARLIER: &str = "nobody-may-read-what-was";
/// One where a text belongs.
pub const NUMBER: u64 = 471_108_154_711;
const TYPED: &str = "apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}}
stringData: {{ toJson .Values.secret }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: 0
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      containers:
      - name: a
        image: a
        env: [{name: WORD, value: {{ toJson .Values.word }} }]
";

/// Neither records nor locks.
async fn is_clean(cluster: &Cluster, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let list = live(cluster, &path).await.unwrap();
    let names = list["items"].as_array().unwrap().iter().map(|one| &one["metadata"]["name"]);
    assert_eq!(names.collect::<Vec<_>>(), Vec::<&Value>::new(), "left in {namespace}");
}

/// Nine times nine times … an anchor.
fn bomb(levels: usize) -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..levels {
        let before = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
    }
    text
}

/// A chart with one thing wrong that nobody can see from outside.
fn linked() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("bad/Chart.yaml").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_link_name("/etc/passwd").unwrap();
    header.set_cksum();
    let writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(writer);
    archive.append(&header, std::io::empty()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

/// What is wrong with an archive, words of the sentence that says it, and the archive.
fn archives() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let zeros = vec![0_u8; 6 << 20];
    let template = b"kind: Nothing".as_slice();
    let renamed = b"apiVersion: v2\nname: other\nversion: 0.1.0\n".as_slice();
    let version = b"apiVersion: v2\nname: bad\nversion: newest\n".as_slice();
    let kind = b"apiVersion: v7\nname: bad\nversion: 0.1.0\n".as_slice();
    let about = ("bad/Chart.yaml", ABOUT);
    let many: Vec<_> = (0..10_001).map(|number| format!("bad/files/{number}")).collect();
    let many: Vec<_> = many.iter().map(|path| (path.as_str(), b"".as_slice())).collect();
    let with = |path: &str, data: &[u8]| packed(&[about, (path, data)]);
    let alone = |path: &str, data: &[u8]| packed(&[(path, data)]);
    vec![
        ("a file of 6 MiB", "more than 5242880 bytes", with("bad/zeros", &zeros)),
        ("too many files", "more than 10000 entries", packed(&[&[about][..], &many[..]].concat())),
        ("an absolute path", "is absolute", with("/etc/cron.d/bad", template)),
        ("a path upwards", "leads out of it", with("bad/../../bad", template)),
        ("a link", "a symbolic link", linked()),
        ("two folders", "has the folders", with("worse/Chart.yaml", ABOUT)),
        ("no folder", "is in no folder", alone("Chart.yaml", ABOUT)),
        ("another name than its folder", "the chart's name", alone("bad/Chart.yaml", renamed)),
        ("no Chart.yaml", "there is no Chart.yaml", alone("bad/templates/x.yaml", template)),
        ("a version that is none", "no semantic version", alone("bad/Chart.yaml", version)),
        ("an unknown kind of chart", "v1 and v2 are known", alone("bad/Chart.yaml", kind)),
        ("no archive", "a gzipped tar", b"PK\x03\x04 something else".to_vec()),
        ("an archive that is cut off", "archive cannot be read", web()[..300].to_vec()),
        ("nothing", "in base64", Vec::new()),
    ]
}

fn bodies() -> Vec<(&'static str, Value)> {
    let with = |key: &str, value: Value| {
        let mut body = json!({"chart": archive(&small()), "values": {"message": SECRET}});
        body[key] = value;
        body
    };
    vec![
        ("values that are a list", with("values", json!(["a"]))),
        ("values that are a list in YAML", with("values", json!("- a\n- b\n"))),
        ("values that are no YAML", with("values", json!("a: [b\nc: }"))),
        ("5 MB of values", with("values", json!({"a": "x".repeat(5 << 20)}))),
        ("a YAML bomb", with("values", json!(bomb(9)))),
        ("a few bytes that are many values", with("values", json!(bomb(5)))),
        ("an unknown key", with("colour", json!("red"))),
        ("a set that is none", with("set", json!(["a.b"]))),
        ("a set into nowhere", with("set", json!(["a[999999999]=c"]))),
        ("a time that is none", with("timeout", json!("soon"))),
        ("an unknown way to wait", with("wait", json!("forever"))),
        ("a reserved label", with("labels", json!({"owner": "me"}))),
        ("a label of ours", with("labels", json!({"binnacle.dev/protected": "false"}))),
        ("no chart", with("chart", Value::Null)),
        ("a chart that is not base64", with("chart", json!({"archive": "%%%"}))),
        ("two charts", with("chart", json!({"archive": "", "oci": "oci://example.org/a"}))),
        ("an address that is no OCI reference", with("chart", json!({"oci": "--debug"}))),
        ("an address of a file", with("chart", json!({"oci": "file:///etc/passwd"}))),
    ]
}

#[tokio::test]
async fn a_bad_body_or_archive_is_refused_with_a_sentence_before_anything_is_made() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("bad").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let charts = archives().into_iter().map(|(what, words, chart)| {
        (what, words, json!({"chart": archive(&chart), "values": {"message": SECRET}}))
    });
    let all = charts.chain(bodies().into_iter().map(|(what, body)| (what, " ", body)));
    let answers = all.map(|(what, words, body)| async move {
        let answer = hand.act("install", "bad", &[], body).await;
        (what, words, answer)
    });
    for (what, words, answer) in join_all(answers).await {
        let text = answer.text();
        assert!(text.contains(words), "{what}: {words:?} is not in {text}");
        assert!(matches!(answer.status, 400 | 413 | 422), "{what}: {}: {text}", answer.status);
        assert!(text.len() > 20 && text.contains(' '), "{what} has a sentence: {text:?}");
        assert!(!text.contains(SECRET) && text.len() < 4096, "{what}: {text}");
    }
    let answer = hand.act("install", "bad", &[], json!({"colour": "red"})).await;
    let text = answer.text();
    assert!(text.contains("colour") && text.contains("setString"), "the key, the known: {text}");
    is_clean(cluster, &namespace).await;
}

#[tokio::test]
async fn a_chart_that_fails_later_says_why_and_the_next_request_is_served() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("chart-fails{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let endless = "{{ define \"a\" }}{{ include \"a\" . }}{{ end }}{{ include \"a\" . }}";
        let endless = chart("endless", "0.1.0", &[("templates/a.yaml", endless)]);
        let no_object = chart("loose", "0.1.0", &[("templates/a.yaml", "a: [b\nc: }\n")]);
        // With what Go reserves, more addresses than the guard leaves to helm. (A block that is taken
        // at once from what is reserved the kernel does not hold against the limit of data.)
        let eats = "{{ repeat 4000000000 \"x\" | len }}\n";
        let eats = chart("eats", "0.1.0", &[("templates/a.yaml", eats)]);
        let schema = json!({"replicas": -1, "password": SECRET});
        let none = json!({"password": SECRET});
        let cases = [
            ("broken", broken(), none.clone(), "render-failed"),
            ("endless", endless, none.clone(), "render-failed"),
            ("loose", no_object, none.clone(), "render-failed"),
            ("crd", crd(), none.clone(), "crd-missing"),
            ("huge", huge(), none.clone(), "too-large"),
            ("eats", eats, none, "too-large"),
            ("schema", web(), schema, "values-invalid"),
        ];
        let ended = cases.map(|(name, chart, values, class)| async move {
            let body = json!({"chart": archive(&chart), "values": values});
            (class, hand.done("install", name, body).await)
        });
        for (class, ended) in join_all(ended).await {
            assert_eq!(ended["state"], "failed", "{class}: {ended}");
            assert_eq!(ended["error"]["class"], class, "{ended}");
            assert!(!ended["error"]["message"].as_str().unwrap().is_empty(), "{ended}");
            assert!(!ended["error"]["detail"].as_str().unwrap().is_empty(), "{ended}");
            assert!(!ended.to_string().contains(SECRET), "{ended}");
        }
        hand.agrees_with_helm(major, "after charts that fail").await;
        hand.succeeds("install", "good", json!({"chart": archive(&small())})).await;
    }))
    .await;
}

/// A Secret and a Deployment whose values may have any type.
pub fn typed() -> Vec<u8> {
    let values = "secret: {}\nword: plain\n";
    chart("typed", "0.1.0", &[("values.yaml", values), ("templates/a.yaml", TYPED)])
}

/// Fails with this act, and says of what, but nowhere with which values.
async fn fails_without_values(hand: Hand<'_>, act: &str, name: &str, of: &str, values: Value) {
    let body = json!({"chart": archive(&typed()), "values": values});
    let operation = hand.begun(act, name, body).await;
    let id = operation["id"].as_str().unwrap();
    let url = format!("{}/api/v1/operation/{}/{id}", hand.gateway.url, hand.namespace);
    let headers = [("accept", "text/event-stream")];
    let mut stream = Stream::open(hand.gateway.tls(), &url, hand.token, &headers).await;
    let mut streamed = String::new();
    loop {
        let event = stream.next().await;
        streamed += &event.data.to_string();
        if event.name == "end" {
            break;
        }
    }
    let ended = hand.ended(&operation).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_eq!(ended["error"]["class"], "invalid-object", "{ended}");
    let secrets = format!("/api/v1/namespaces/{}/secrets", hand.namespace);
    let cluster = cluster::shared().await;
    let lock = live(cluster, &format!("{secrets}/binnacle.operation.{name}")).await.unwrap();
    let record = STANDARD.decode(lock["data"]["record"].as_str().unwrap()).unwrap();
    let record = String::from_utf8(record).unwrap();
    let log = ended["log"].to_string();
    let detail = ended["error"]["detail"].to_string();
    for text in [&detail, &log, &streamed, &record] {
        assert!(text.contains(of), "{act} {name} says what is wrong with {of}: {text}");
    }
    // Helm keeps the error in its own record, as the description of the revision.
    let rows = hand.get(&format!("release/{}", hand.namespace)).await.text();
    let detail = hand.get(&hand.at(name)).await.json();
    let described = format!("{} {}", detail["description"], detail["history"]);
    assert!(described.contains("failed: "), "{detail}");
    let stored = STANDARD.encode(EARLIER);
    for value in [SECRET, EARLIER, stored.as_str(), NUMBER.to_string().as_str()] {
        for text in [&ended.to_string(), &streamed, &record, &rows, &described] {
            assert!(!text.contains(value), "{act} {name} repeats {value}: {text}");
        }
    }
}

#[tokio::test]
async fn a_value_whose_type_is_wrong_is_nowhere_in_what_is_said_of_the_failure() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("typed{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        // Applied by the client: the API server gets a patch, and repeats all that is there.
        let earlier = json!({"secret": {"password": EARLIER}});
        let mut body = json!({"chart": archive(&typed()), "values": earlier});
        if major == 4 {
            body["serverSideApply"] = "false".into();
        }
        hand.succeeds("install", "there", body).await;
        let inner = json!({"secret": {"password": {"inner": SECRET}, "list": [SECRET, NUMBER]}});
        let lines = format!("{{password: {SECRET}}}\nmore: {SECRET}\n");
        let fails = |act, name, of, values| fails_without_values(hand, act, name, of, values);
        tokio::join!(
            fails("install", "number", "stringData", json!({"secret": {"password": NUMBER}})),
            fails("install", "inner", "stringData", inner.clone()),
            fails("install", "lines", "stringData", json!({"secret": lines})),
            fails("install", "word", "env", json!({"word": [SECRET]})),
            fails("upgrade", "there", "stringData", inner),
        );
        gateway.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn a_namespace_that_is_missing_or_going_is_told_and_one_can_be_made() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(options(4)).await;
    let namespace = cluster.namespace("going").await;
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let metadata = json!({"name": "held", "finalizers": ["test.binnacle/hold"]});
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    create(cluster, &maps, held).await;
    delete(cluster, &format!("/api/v1/namespaces/{namespace}")).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let body = json!({"chart": archive(&small())});
    let answer = hand.act("install", "late", &[], body.clone()).await;
    assert!(matches!(answer.status, 403 | 409), "{}: {}", answer.status, answer.text());
    assert!(answer.text().contains("terminat"), "{}", answer.text());
    let (admin, path) = (cluster.token("admin"), format!("{maps}/held"));
    let headers = [("content-type", "application/merge-patch+json")];
    let patch = json!({"metadata": {"finalizers": null}}).to_string();
    cluster.request(Method::PATCH, admin, &path, &headers, patch).await;

    let missing = format!("{namespace}-missing");
    let hand = Hand { namespace: &missing, ..hand };
    let answer = hand.act("install", "early", &[], body.clone()).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains(&missing), "{}", answer.text());
    let mut body = body;
    body["createNamespace"] = true.into();
    hand.succeeds("install", "early", body).await;
    assert_eq!(hand.status("early").await, "deployed");
}

#[tokio::test]
async fn a_namespace_that_goes_while_helm_waits_in_it_ends_the_operation() {
    let cluster = cluster::shared().await;
    join_all(BOTH.map(|major| async move {
        let namespace = cluster.namespace(&format!("goes{major}")).await;
        let gateway = gateway::start(options(major)).await;
        let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
        let body = json!({"chart": archive(&slow()), "wait": "legacy", "timeout": "50s"});
        let operation = hand.begun("install", "slow", body).await;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/slow");
        let is_made = || async { live(cluster, &path).await.is_some() };
        Cluster::eventually("helm has made what it waits for", is_made).await;
        let here = Path::new(&namespace);
        assert!(!processes(here).is_empty(), "helm {major} is at work");
        delete(cluster, &format!("/api/v1/namespaces/{namespace}")).await;
        // Each question for it on the way is answered with 200.
        let ended = hand.ended(&operation).await;
        assert_eq!(ended["state"], "failed", "{ended}");
        let class = ended["error"]["class"].as_str().unwrap();
        let fitting = ["not-found", "namespace-missing", "namespace-terminating"];
        assert!(fitting.contains(&class), "{ended}");
        assert!(!ended["error"]["message"].as_str().unwrap().is_empty(), "{ended}");
        Cluster::eventually("helm is gone", || async { processes(here).is_empty() }).await;
        let path = format!("/api/v1/namespaces/{namespace}");
        let is_gone = || async { live(cluster, &path).await.is_none() };
        Cluster::eventually("the namespace is gone", is_gone).await;
        assert_eq!(hand.operation(&operation).await["error"]["class"], class);
        assert_eq!(hand.status("slow").await, "");
        assert_eq!(hand.rows().await.len(), 0);
        gateway.stop().await;
    }))
    .await;
}

/// A program in helm's place, which says that it is a helm of this version.
fn engine(path: &Path, version: &str, does: &str) {
    let text = format!("#!/bin/sh\ncase $1 in version) echo {version} ;; *) {does} ;; esac\n");
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn an_engine_that_is_replaced_prints_without_end_or_hangs_is_told_and_stopped() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("engine").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helm");
    let line = "x".repeat(4000);
    engine(&path, "v4.2.4", &format!("while :; do echo {line}; done"));
    let extra = vec!["--helm".into(), path.display().to_string()];
    let plain = Options { shared_cache: false, extra, ..Options::default() };
    let gateway = gateway::start(plain).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let state = hand.get("integration/helm/state").await.json();
    assert_eq!((&state["connected"], &state["version"]), (&json!(true), &json!("v4.2.4")));
    let body = json!({"chart": archive(&small())});
    let ended = hand.done("install", "prints", body.clone()).await;
    assert_eq!(ended["error"]["class"], "output-limit", "{ended}");

    engine(&path, "v3.21.4", "exec /bin/sleep 1000");
    let operation = hand.begun("install", "hangs", body.clone()).await;
    let runs = || async { hand.operation(&operation).await["state"] == "running" };
    Cluster::eventually("it runs", runs).await;
    let id = operation["id"].as_str().unwrap();
    let at = format!("operation/{namespace}/{id}");
    assert_eq!(hand.send(Method::DELETE, &at, &[], &Value::Null).await.status, 202);
    let ended = hand.ended(&operation).await;
    assert_eq!(ended["state"], "cancelled", "{ended}");

    engine(&path, "v5.0.0", "exit 0");
    refused(&hand, &body).await;
    std::fs::write(&path, "something else\n").unwrap();
    refused(&hand, &body).await;
    std::fs::remove_file(&path).unwrap();
    refused(&hand, &body).await;
    let list = hand.get(&format!("release/{namespace}")).await;
    assert_eq!(list.status, 200, "reads need no engine: {}", list.text());
}

/// Without an engine.
async fn refused(hand: &Hand<'_>, body: &Value) {
    let answer = hand.act("install", "late", &[], body.clone()).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("helm"), "{}", answer.text());
    let state = hand.get("integration/helm/state").await.json();
    assert_eq!(state["connected"], false, "{state}");
    assert!(state["error"]["ErrStatus"]["message"].is_string(), "{state}");
}

#[tokio::test]
async fn no_secret_of_values_and_no_credentials_are_in_what_other_processes_show() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("private").await;
    let gateway = gateway::start(options(4)).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    let values = json!({"password": SECRET, "message": SECRET});
    let body = json!({"chart": archive(&slow()), "values": values, "wait": "watcher",
        "timeout": "60s", "setString": [format!("other={SECRET}")]});
    let operation = hand.begun("install", "private", body).await;
    hand.until("private", "pending-install").await;
    let mut helms = 0;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
        let shown = [read("cmdline"), read("environ")].concat();
        let shown = String::from_utf8_lossy(&shown);
        assert!(!shown.contains(SECRET), "{}: {shown}", process.path().display());
        if shown.contains("chart.tgz") && shown.contains(&namespace) {
            helms += 1;
            assert!(!shown.contains(hand.token), "{}: {shown}", process.path().display());
        }
    }
    assert!(helms > 0, "helm runs with this chart");
    let now = hand.operation(&operation).await.to_string();
    assert!(!now.contains(SECRET), "{now}");
    let detail = hand.get(&hand.at("private")).await.json();
    assert!(!detail["resources"].to_string().contains(SECRET), "{detail}");
    let id = operation["id"].as_str().unwrap();
    hand.send(Method::DELETE, &format!("operation/{namespace}/{id}"), &[], &Value::Null).await;
    let ended = hand.ended(&operation).await;
    assert!(!ended.to_string().contains(SECRET), "{ended}");
}

#[tokio::test]
async fn an_api_server_that_is_gone_in_the_middle_leaves_a_release_that_can_be_recovered() {
    let mut plane = Plane::start().await;
    plane.namespace("gone").await;
    let kubeconfig = plane.cluster.kubeconfig("admin");
    let gateway = gateway::start_with(&kubeconfig, options(4), plane.cluster).await;
    let token = plane.cluster.token("admin");
    let hand = Hand { gateway: &gateway, token, namespace: "gone" };
    let body = json!({"chart": archive(&slow()), "wait": "watcher", "timeout": "5s"});
    let operation = hand.begun("install", "slow", body).await;
    hand.until("slow", "pending-install").await;
    plane.order("kill kube-apiserver").await;
    plane.order("start kube-apiserver").await;
    let answers = || async { hand.get("release/gone").await.status == 200 };
    Cluster::eventually("the gateway has its API server again", answers).await;
    let ended = hand.ended(&operation).await;
    assert!(ended["state"] == "failed" || ended["state"] == "interrupted", "{ended}");
    assert!(!ended["error"]["message"].as_str().unwrap().is_empty(), "{ended}");
    let detail = hand.get(&hand.at("slow")).await.json();
    if !detail["stuck"].is_null() {
        let answer = hand.act("unlock", "slow", &[], json!({"confirm": true})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    hand.succeeds("uninstall", "slow", json!({})).await;
    assert_eq!(hand.status("slow").await, "");
    gateway.stop().await;
}

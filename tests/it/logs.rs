//! Logs on the real control plane, by way of the test kubelet, whose containers count lines:
//! sources of each workload, windows turned like pages, whole files, and who may read them.
//!
//! It is NOT where windows are tested in all their cases (`src/api/logs/lines_tests.rs`), nor what
//! logs that are followed bring (`log_follow.rs`, `log_streams.rs`).

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::log_follow::in_front_of;
use crate::log_streams::get;
use crate::people::{Person, ask, create, grant, pod, rule};

const OLDEST: &str = "referenceTimestamp=oldest&referenceLineNum=0";
const NEWEST: &str = "referenceTimestamp=newest&referenceLineNum=0";

/// A running pod with this many numbered lines, and one more every `interval` milliseconds.
pub async fn counting(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    lines: usize,
    interval: usize,
) {
    let mut annotations = json!({"test.binnacle/log-lines": lines.to_string()});
    if interval > 0 {
        annotations["test.binnacle/log-interval-ms"] = json!(interval.to_string());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?tailLines=1");
    let is_read = || async {
        let (status, _, body) = cluster.get(cluster.token("admin"), &path).await;
        status == 200 && body.starts_with(b"line ")
    };
    Cluster::eventually(&format!("{name} has a log"), is_read).await;
}

/// What the API server has as the log with times: (time, text).
async fn whole(cluster: &Cluster, namespace: &str, name: &str) -> Vec<(String, String)> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?timestamps=true");
    let (status, _, body) = cluster.get(cluster.token("admin"), &path).await;
    assert_eq!(status, 200);
    let text = String::from_utf8(body.into()).unwrap();
    let pair = |line: &str| {
        let (time, text) = line.split_once(' ').unwrap();
        (time.to_owned(), text.to_owned())
    };
    text.lines().map(pair).collect()
}

async fn window(gateway: &Gateway, path: &str) -> Value {
    let answer = gateway.get("admin", &format!("/api/v1/log/{path}")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn shown(window: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = window["logs"].as_array().unwrap_or_else(|| panic!("no logs: {window}"));
    lines.iter().map(|line| (text(line, "timestamp"), text(line, "content"))).collect()
}

fn contents(window: &Value) -> Vec<String> {
    shown(window).into_iter().map(|(_, text)| text).collect()
}

fn numbered(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| format!("line {number}")).collect()
}

/// The query of the page after this one, or of the one before, as the web UI makes it.
fn turned(window: &Value, size: i64) -> String {
    let selection = &window["selection"];
    let point = &selection["referencePoint"];
    let offset = |key: &str| selection[key].as_i64().unwrap();
    let (from, to) = if size > 0 {
        (offset("offsetTo"), offset("offsetTo") + size)
    } else {
        (offset("offsetFrom") + size, offset("offsetFrom"))
    };
    format!(
        "logFilePosition={}&referenceTimestamp={}&referenceLineNum={}&offsetFrom={from}\
         &offsetTo={to}&previous=false",
        selection["logFilePosition"].as_str().unwrap(),
        point["timestamp"].as_str().unwrap(),
        point["lineNum"],
    )
}

/// The first page from either end, as the web UI asks for it.
fn first(position: &str, size: i64) -> String {
    let far = 2_000_000_000;
    match position {
        "beginning" => format!(
            "logFilePosition=beginning&{OLDEST}&offsetFrom={}&offsetTo={}",
            -far - size,
            -far
        ),
        _ => format!("logFilePosition=end&{NEWEST}&offsetFrom={far}&offsetTo={}", far + size),
    }
}

#[tokio::test]
async fn turning_pages_either_way_shows_every_line_once() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-pages").await;
    counting(cluster, &namespace, "web", 240, 0).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("{namespace}/web/main");
    let log = whole(cluster, &namespace, "web").await;
    assert_eq!(log.len(), 240);
    for (position, size) in [("beginning", 60), ("end", -60)] {
        let query = first(position, 60);
        let mut page = window(&gateway, &format!("{path}?{query}")).await;
        let mut pages = vec![shown(&page)];
        for _ in 0..3 {
            page = window(&gateway, &format!("{path}?{}", turned(&page, size))).await;
            pages.push(shown(&page));
        }
        let beyond = window(&gateway, &format!("{path}?{}", turned(&page, size))).await;
        assert_eq!(shown(&beyond), pages[3], "there is no page behind the last one");
        if position == "end" {
            pages.reverse();
        }
        assert!(pages.concat() == log, "{position}: {pages:#?}");
        assert_eq!(page["info"]["truncated"], false);
    }

    let page = window(&gateway, &path).await;
    assert_eq!(contents(&page), numbered(141..=240));
    let info = json!({
        "podName": "web", "containerName": "main", "initContainerName": "",
        "fromDate": log[140].0, "toDate": log[239].0, "truncated": false,
    });
    assert_eq!(page["info"], info);
    assert_eq!(window(&gateway, &format!("{namespace}/web")).await, page, "its first container");
}

#[tokio::test]
async fn pages_hold_while_the_log_grows() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-grows").await;
    counting(cluster, &namespace, "web", 400, 20).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("{namespace}/web/main");

    let mut page = window(&gateway, &format!("{path}?{}", first("beginning", 100))).await;
    let mut forwards = contents(&page);
    for _ in 0..3 {
        page = window(&gateway, &format!("{path}?{}", turned(&page, 100))).await;
        forwards.extend(contents(&page));
    }
    assert_eq!(forwards, numbered(1..=400));

    let mut page = window(&gateway, &format!("{path}?{}", first("end", 100))).await;
    let mut backwards = contents(&page);
    for _ in 0..3 {
        page = window(&gateway, &format!("{path}?{}", turned(&page, -100))).await;
        backwards = [contents(&page), backwards].concat();
    }
    let newest: usize = backwards[399].trim_start_matches("line ").parse().unwrap();
    assert_eq!(backwards, numbered(newest - 399..=newest));
}

#[tokio::test]
async fn a_log_too_long_to_be_searched_is_searched_from_the_end_that_is_asked_for() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-long").await;
    counting(cluster, &namespace, "web", 15_000, 0).await;
    let gateway = gateway::start(Options::default()).await;
    let ask = async |position: &str, point: &str, from: i64| {
        let query =
            format!("logFilePosition={position}&{point}&offsetFrom={from}&offsetTo={}", from + 10);
        window(&gateway, &format!("{namespace}/web/main?{query}")).await
    };
    let far = 2_000_000_000;
    let page = ask("end", OLDEST, -far).await;
    assert_eq!(contents(&page), numbered(10_001..=10_010));
    assert_eq!(page["info"]["truncated"], true);
    let page = ask("end", NEWEST, far).await;
    assert_eq!(contents(&page), numbered(14_991..=15_000));
    assert_eq!(page["info"]["truncated"], false);
    let page = ask("beginning", OLDEST, -far).await;
    assert_eq!(contents(&page), numbered(1..=10));
    assert_eq!(page["info"]["truncated"], false);
    let page = ask("beginning", NEWEST, far).await;
    assert_eq!(page["logs"].as_array().unwrap().len(), 10);
    assert_eq!(page["info"]["truncated"], true);
}

#[tokio::test]
async fn a_file_is_what_kubectl_prints() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-file").await;
    counting(cluster, &namespace, "web", 6_000, 0).await;
    let gateway = gateway::start(Options::default()).await;
    for (query, flag) in [
        ("previous=false&timestamps=false", "--timestamps=false"),
        ("previous=false&timestamps=true", "--timestamps"),
        ("tailLines=7", "--tail=7"),
        ("sinceTime=2026-01-02T03:04:05Z&tailLines=3", "--tail=3"),
        ("sinceSeconds=86400", "--since=24h"),
    ] {
        let path = format!("/api/v1/log/file/{namespace}/web/main?{query}");
        let answer = gateway.get("admin", &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        let disposition = "attachment; filename=\"web_main.log\"";
        assert_eq!(answer.header("content-disposition"), disposition);
        let args = ["logs", "web", "--namespace", namespace.as_str(), flag];
        let printed = cluster.kubectl("admin", &args).stdout;
        assert!(!printed.is_empty() && printed == answer.body, "{query}");
    }
    for query in [
        "tailLines=-1",
        "sinceSeconds=0",
        "sinceTime=yesterday",
        "sinceTime=2026-01-02T03:04:05Z&sinceSeconds=1",
    ] {
        let path = format!("/api/v1/log/file/{namespace}/web/main?{query}");
        let answer = gateway.get("admin", &path).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
}

#[tokio::test]
async fn what_keeps_a_log_from_being_read_is_its_text_in_a_window_and_an_error_for_a_file() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-words").await;
    pod(cluster, &namespace, "late", "pending").await;
    counting(cluster, &namespace, "web", 1, 0).await;
    let gateway = gateway::start(Options::default()).await;
    let late = format!("/api/v1/log/{namespace}/late/main");
    let waits = || async {
        gateway.get("admin", &late).await.text().contains("trying and failing to pull image")
    };
    Cluster::eventually("the container waits for its image", waits).await;
    for (path, words) in [
        ("late/main", "container \"main\" in pod \"late\" is waiting to start"),
        ("web/main?previous=true", "previous terminated container \"main\""),
        ("web/none", "container none is not valid for pod web"),
    ] {
        let page = window(&gateway, &format!("{namespace}/{path}")).await;
        let lines = shown(&page);
        let [(time, text)] = lines.as_slice() else { panic!("not one line: {page}") };
        assert_eq!(time, "0");
        assert!(text.contains(words), "{path}: {text}");
        assert_eq!(page["selection"]["offsetTo"], 1);
        let answer = gateway.get("admin", &format!("/api/v1/log/file/{namespace}/{path}")).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    for path in ["gone", "gone/main", "file/NS/gone/main", "source/NS/gone/pod"] {
        let (head, rest) = path.split_once("NS/").unwrap_or(("", path));
        let path = format!("/api/v1/log/{head}{namespace}/{rest}");
        let answer = gateway.get("admin", &path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(answer.text().contains("pods \"gone\" not found"), "{}", answer.text());
        assert_eq!(gateway.get("nobody", &path).await.status, 403, "{path}");
    }
    for path in ["%2e%2e", "web/a%2Fb", "file/NS/web/%2e%2e", "source/NS/a%00b/pod"] {
        let (head, rest) = path.split_once("NS/").unwrap_or(("", path));
        let path = format!("/api/v1/log/{head}{namespace}/{rest}");
        assert_eq!(gateway.get("admin", &path).await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn a_log_is_read_by_the_right_to_read_logs_and_no_other() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-rights").await;
    counting(cluster, &namespace, "web", 3, 0).await;
    let gateway = gateway::start(Options::default()).await;
    let window = format!("/api/v1/log/{namespace}/web/main");
    let file = format!("/api/v1/log/file/{namespace}/web/main");
    for (name, resource, status) in [("sees", "pods", 403), ("reads", "pods/log", 200)] {
        let person = Person::new(cluster, &namespace, name).await;
        let rules = json!([rule(&["get"], &[resource])]);
        grant(cluster, Some(&namespace), name, person.subject.clone(), rules).await;
        let is_asked = || async { ask(&gateway, &person.token, &window).await.status == status };
        Cluster::eventually(&format!("who {name} gets {status}"), is_asked).await;
        let answer = ask(&gateway, &person.token, &file).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        // The first container is a matter of the pod.
        let path = format!("/api/v1/log/{namespace}/web");
        assert_eq!(ask(&gateway, &person.token, &path).await.status, 403, "{name}");
    }
}

/// A pod template whose pods are found by the label `app`.
fn template(app: &str, restart: &str) -> Value {
    let container = |name: &str| json!({"name": name, "image": "example.invalid/main"});
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "restartPolicy": restart, "initContainers": [container("init")],
            "containers": [container("main"), container("side")],
        },
    })
}

/// A workload of each type, named as its type; a cron job never runs by itself, so its job is ours.
async fn workloads(cluster: &Cluster, namespace: &str) {
    let make = async |group: &str, plural: &str, kind: &str, mut metadata: Value, spec: Value| {
        let (api, version) = if group.is_empty() {
            ("api/v1".to_owned(), "v1".to_owned())
        } else {
            (format!("apis/{group}/v1"), format!("{group}/v1"))
        };
        if metadata.get("name").is_none() {
            metadata["name"] = json!(kind.to_lowercase());
        }
        let object =
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        create(cluster, &format!("/{api}/namespaces/{namespace}/{plural}"), object).await
    };
    for (plural, kind) in
        [("deployments", "Deployment"), ("replicasets", "ReplicaSet"), ("daemonsets", "DaemonSet")]
    {
        let app = kind.to_lowercase();
        let mut spec = json!({
            "selector": {"matchLabels": {"app": app}}, "template": template(&app, "Always"),
        });
        if kind != "DaemonSet" {
            spec["replicas"] = json!(2);
        }
        make("apps", plural, kind, json!({}), spec).await;
    }
    let app = "statefulset";
    let spec = json!({
        "selector": {"matchLabels": {"app": app}}, "serviceName": "s", "replicas": 1,
        "template": template(app, "Always"),
    });
    make("apps", "statefulsets", "StatefulSet", json!({}), spec).await;
    let app = "replicationcontroller";
    let spec =
        json!({"replicas": 2, "selector": {"app": app}, "template": template(app, "Always")});
    make("", "replicationcontrollers", "ReplicationController", json!({}), spec).await;
    let spec = json!({"template": template("job", "Never")});
    make("batch", "jobs", "Job", json!({}), spec).await;
    let spec = json!({"template": template("cronjob", "Never")});
    let cron = json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": spec}});
    let cron = make("batch", "cronjobs", "CronJob", json!({}), cron).await;
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "cronjob", "controller": true,
        "uid": cron["metadata"]["uid"],
    });
    let metadata = json!({"name": "cronjob-now", "ownerReferences": [owner]});
    make("batch", "jobs", "Job", metadata, spec).await;
}

#[tokio::test]
async fn each_type_of_workload_names_its_pods_and_containers() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-sources").await;
    workloads(cluster, &namespace).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    for (kind, count) in [
        ("Deployment", 2),
        ("ReplicaSet", 2),
        ("DAEMONSET", 3),
        ("statefulset", 1),
        ("replicationController", 2),
        ("job", 1),
        ("CronJob", 1),
    ] {
        let app = kind.to_lowercase();
        let pods = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}");
        let path = format!("/api/v1/log/source/{namespace}/{app}/{kind}");
        let agree = || async {
            let (_, _, body) = cluster.get(admin, &pods).await;
            let list: Value = serde_json::from_slice(&body).unwrap();
            let pods = list["items"].as_array().unwrap().iter();
            let mut names: Vec<Value> = pods.map(|pod| pod["metadata"]["name"].clone()).collect();
            names.sort_by_key(Value::to_string);
            let expected = json!({
                "containerNames": ["main", "side"], "initContainerNames": ["init"],
                "podNames": names,
            });
            let answer = gateway.get("admin", &path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            names.len() == count && answer.json() == expected
        };
        Cluster::eventually(&format!("{path} names {count} pods"), agree).await;
        assert_eq!(gateway.get("nobody", &path).await.status, 403, "{path}");
        let gone = path.replace(&format!("/{app}/"), "/gone/");
        assert_eq!(gateway.get("admin", &gone).await.status, 404, "{gone}");
    }

    pod(cluster, &namespace, "alone", "none").await;
    let alone = gateway.get("admin", &format!("/api/v1/log/source/{namespace}/alone/Pod")).await;
    let expected =
        json!({"containerNames": ["main"], "initContainerNames": null, "podNames": ["alone"]});
    assert_eq!(alone.json(), expected);
    let odd = gateway.get("admin", &format!("/api/v1/log/source/{namespace}/alone/service")).await;
    assert_eq!(odd.status, 404);
    assert!(odd.text().contains("service") && odd.text().contains("cronjob"), "{}", odd.text());

    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["get"], &["replicasets"])]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let path = format!("/api/v1/log/source/{namespace}/replicaset/replicaset");
    let is_told = || async {
        let answer = ask(&gateway, &person.token, &path).await;
        answer.status == 403 && answer.text().contains("pods is forbidden")
    };
    Cluster::eventually("who may not list pods is told so", is_told).await;
}

/// What a client asks of an API server of ours, up to the end of its head.
pub async fn asked(tcp: &mut TcpStream) -> Option<String> {
    let (mut head, mut buffer) = (Vec::<u8>::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match tcp.read(&mut buffer).await {
            Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Status and body of what an API server of ours is asked; `None` is silence.
type Answers = Arc<dyn Fn(&str) -> Option<(u16, String)> + Send + Sync>;

/// An API server that answers so.
pub async fn answering(answers: Answers) -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = server.accept().await {
            tokio::spawn(answer(tcp, answers.clone()));
        }
    });
    address
}

async fn answer(mut tcp: TcpStream, answers: Answers) {
    let Some(head) = asked(&mut tcp).await else { return };
    if let Some((status, body)) = answers(&head) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} So\r\nconnection: close\r\n");
        let text = format!("{head}content-length: {length}\r\n\r\n{body}");
        let _ = tcp.write_all(text.as_bytes()).await;
    }
    let mut rest = [0; 4096];
    while tcp.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

#[tokio::test]
async fn a_silent_log_is_followed_by_nobody_whom_the_api_server_does_not_know() {
    let server = answering(Arc::new(|head: &str| {
        (!head.contains("/pods/web/log?")).then(|| (401, "Unauthorized".to_owned()))
    }));
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(server.await, folder.path()).await;
    let paths = ["file/shop/web/main?follow=true", "shop/web/main/follow"];
    let answers = paths.map(|path| {
        let url = format!("https://{}/api/v1/log/{path}", running.https);
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        async move { get(tls, &url, "anything", &[]).await.status().as_u16() }
    });
    assert_eq!(futures::future::join_all(answers).await, [401, 401]);
}

//! Reads that merge: a pod's detail beside one GET of the pod, the overview and the search before
//! 10,000 pods, what rows of each kind take of memory, and a caller with rights in 500 of 2,000
//! namespaces.
//!
//! All of it before demo clusters, which answer far faster than an API server; the detail once more
//! before the real one that `BENCH_KUBECONFIG` names, from which is only read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

mod common;

use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::fill::create;
use common::load::{Answer, Client, Load, Target, load};
use common::process::{ADMIN, Binnacle, sum};
use common::recorder::Recorder;
use common::stub::Stub;
use common::{figure, median, mib, millis, ratio, section};
use serde_json::{Value, json};

const PODS: usize = 10_000;
/// Measured by turns, so that a slow moment of the machine hits both.
const ROUNDS: usize = 3;
/// Of what is held against a goal as a ratio.
const TURNS: usize = 9;
const LONGEST: Duration = Duration::from_secs(2);
const WARM: Load = Load { connections: 4, requests: 200, longest: LONGEST, rate: None };
const DETAILS: Load = Load { connections: 1, requests: 2_000, longest: LONGEST, rate: None };
const MANY: usize = 8;
const ALONE: Load = Load { connections: 1, requests: 1_000, longest: LONGEST, rate: None };
const CROWD: Load = Load { connections: 8, requests: 4_000, longest: LONGEST, rate: None };
const PAGE: &str = "/api/v1/pod?itemsPerPage=10&page=1&sortBy=d,creationTimestamp";

/// A pod whose environment names this many objects of each kind.
const REFERENCES: usize = 3;
const REFERRING: &str = "bench-env";
/// So long that the gateway's own work is nothing beside it.
const HELD_BACK: Duration = Duration::from_millis(100);

/// Objects of a kind for its share of memory, and starts whose middle is the gateway without any.
const OBJECTS: usize = 5_000;
const STARTS: usize = 3;

const NAMESPACES: usize = 2_000;
/// The caller has rights in one of so many.
const OWN_EVERY: usize = 4;
const TEAM: (&str, &str) = ("demo-team", "demo-team-token");
const ACCESS: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const RULES: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
/// Longer than any verdict is believed in.
const VISITS: usize = 12;

fn main() {
    common::run(bench);
}

async fn bench() {
    {
        let demo = Cluster::demo(PODS);
        create(&demo.api.server, referring()).await;
        let binnacle = Binnacle::start(&demo.kubeconfig, ADMIN, &[]);
        binnacle.synced().await;
        let pod = first_pod(&demo, "/api/v1/namespaces/load-3/pods?limit=1").await;
        detail(&demo, &binnacle, &pod, "a pod").await;
        let pod = Pod::named("default", REFERRING);
        let what = format!("a pod that names {} config maps and secrets", 2 * REFERENCES);
        detail(&demo, &binnacle, &pod, &what).await;
        merged(&demo, &binnacle).await;
    }
    rounds().await;
    real().await;
    memory().await;
    namespaces().await;
}

/// Where a pod is, here and at the API server.
struct Pod {
    detail: String,
    get: String,
    uid: String,
}

impl Pod {
    fn named(namespace: &str, name: &str) -> Self {
        Self {
            detail: format!("/api/v1/pod/{namespace}/{name}"),
            get: format!("/api/v1/namespaces/{namespace}/pods/{name}"),
            uid: String::new(),
        }
    }
}

/// The first of a list at the API server.
async fn first_pod(cluster: &Cluster, list: &str) -> Pod {
    let target = cluster.api.target.as_ref().unwrap();
    let found = body(&Client::open(target).await.get(list).await);
    let metadata = &found["items"][0]["metadata"];
    let text = |name: &str| {
        let text = metadata[name].as_str();
        text.unwrap_or_else(|| panic!("{list}: no pod with a {name}")).to_owned()
    };
    Pod { uid: text("uid"), ..Pod::named(&text("namespace"), &text("name")) }
}

fn body(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

/// Config maps, secrets, and a pod whose environment names all of them.
fn referring() -> impl Iterator<Item = (String, Value)> {
    let mut objects = Vec::new();
    let mut variables = Vec::new();
    for number in 0..REFERENCES {
        let name = format!("bench-{number}");
        let map = json!({"metadata": {"name": name}, "data": {"level": "info"}});
        objects.push(("/api/v1/namespaces/default/configmaps".to_owned(), map));
        let secret = json!({
            "metadata": {"name": name}, "type": "Opaque", "data": {"key": "bm90LWEtc2VjcmV0"},
        });
        objects.push(("/api/v1/namespaces/default/secrets".to_owned(), secret));
        for (field, key) in [("configMapKeyRef", "level"), ("secretKeyRef", "key")] {
            let from = json!({ field: {"name": name, "key": key} });
            variables.push(json!({"name": format!("{field}{number}"), "valueFrom": from}));
        }
    }
    let mut pod = running("default", REFERRING);
    pod["spec"]["containers"][0]["env"] = Value::Array(variables);
    objects.push(("/api/v1/namespaces/default/pods".to_owned(), pod));
    objects.into_iter()
}

/// A pod that the demo leaves alone, since it has a node and runs.
fn running(namespace: &str, name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "bench"}},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "main", "image": "demo.example/app:1.0"}],
        },
        "status": {"phase": "Running", "containerStatuses": []},
    })
}

/// A detail through us beside one GET of the same pod at the API server, and, where that speaks
/// TLS, beside one through the barest second hop: the same user, the same number of connections,
/// all with TLS or none.
async fn detail(cluster: &Cluster, binnacle: &Binnacle, pod: &Pod, what: &str) {
    let api = cluster.api.target.as_ref().unwrap();
    let ours = if cluster.api.is_tls() { &binnacle.tls } else { &binnacle.plain };
    section(format_args!("detail of {what}, beside a GET of it ({})", cluster.name));
    let process = &binnacle.process;
    // What a load tells of CPU is the gateway's: it means nothing for the API server's own.
    load(process, api, &pod.get, WARM).await;
    load(process, ours, &pod.detail, WARM).await;
    let token = cluster.api.token.as_deref().unwrap_or_default();
    let hop = cluster.api.is_tls().then(|| Stub::hop(&cluster.kubeconfig));
    let hop = hop.as_ref().map(|hop| (hop, hop.target.clone().with_token(token)));
    if let Some((hop, target)) = &hop {
        load(&hop.process, target, &pod.get, WARM).await;
    }
    for connections in [1, MANY] {
        let each = Load { connections, ..DETAILS };
        let (mut gets, mut details, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        let (mut hops, mut hop_cpu) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let get = load(process, api, &pod.get, each).await;
            let detail = load(process, ours, &pod.detail, each).await;
            assert_eq!((get.failed, detail.failed), (0, 0), "no round means anything");
            gets.push(get.percentile(0.50));
            details.push(detail.percentile(0.50));
            cpu.push(detail.cpu);
            if let Some((hop, target)) = &hop {
                let passed = load(&hop.process, target, &pod.get, each).await;
                assert_eq!(passed.failed, 0, "no round means anything");
                hops.push(passed.percentile(0.50));
                hop_cpu.push(passed.cpu);
            }
        }
        let (get, detail) = (median(gets.clone()), median(details.clone()));
        let with = format!("{connections} connection(s)");
        figure(format_args!("{with}: GET, p50"), millis(get), "");
        figure(format_args!("{with}: detail, p50"), millis(detail), "");
        figure(format_args!("{with}: CPU of ours a detail"), micros(median(cpu)), "");
        let added = micros(detail.saturating_sub(get));
        figure(format_args!("{with}: more than a GET"), added, "");
        figure(format_args!("{with}: detail over GET"), ratio(&details, &gets), "");
        if hops.is_empty() {
            continue;
        }
        figure(format_args!("{with}: CPU of the bare hop a GET"), micros(median(hop_cpu)), "");
        figure(format_args!("{with}: the bare hop over GET"), ratio(&hops, &gets), "");
        let goal = "<= 1.2 (of a real API server)";
        figure(format_args!("{with}: detail over the bare hop"), ratio(&details, &hops), goal);
    }
}

/// How many GETs a detail with references waits for one after the other: with every request held
/// back for so long that nothing else counts.
async fn rounds() {
    let demo = Cluster::demo(0);
    create(&demo.api.server, referring()).await;
    let recorder = Recorder::start(&demo.api.server).await;
    let binnacle = Binnacle::start(&recorder.kubeconfig, ADMIN, &[]);
    binnacle.synced().await;
    let pod = Pod::named("default", REFERRING);
    let mut ours = Client::open(&binnacle.plain).await;
    let mut api = Client::open(&Target::plain(recorder.address).with_token(ADMIN)).await;
    // The rights are known from here on, for longer than this takes.
    body(&ours.get(&pod.detail).await);
    body(&api.get(&pod.get).await);
    let own = "GET /api/v1/namespaces/default/";
    let before = recorder.count(ADMIN, own);
    body(&ours.get(&pod.detail).await);
    let gets = recorder.count(ADMIN, own) - before;
    recorder.delay(HELD_BACK);
    let (mut get, mut detail) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        get.push(timed(&mut api, &pod.get).await);
        detail.push(timed(&mut ours, &pod.detail).await);
    }
    let (get, detail) = (median(get), median(detail));
    section(format_args!("the same detail, each request held back for {}", millis(HELD_BACK)));
    figure("GETs of one detail", gets, "");
    figure("a GET", millis(get), "");
    figure("a detail", millis(detail), "");
    let rounds = detail.as_secs_f64() / get.as_secs_f64().max(1e-9);
    figure("rounds of GETs", format_args!("{rounds:.1}"), "<= 2");
}

async fn timed(client: &mut Client, path: &str) -> Duration {
    let begun = Instant::now();
    body(&client.get(path).await);
    begun.elapsed()
}

/// The detail before a real API server, when there is one that the load generator can reach.
async fn real() {
    let Some(cluster) = Cluster::real() else {
        println!("\ndetail before a real API server: skipped, BENCH_KUBECONFIG names none");
        return;
    };
    let (Some(token), true) = (cluster.api.token.as_deref(), cluster.api.target.is_some()) else {
        println!("\ndetail before a real API server: skipped, it takes a token and loopback");
        return;
    };
    let binnacle = Binnacle::start(&cluster.kubeconfig, token, &[]);
    binnacle.synced().await;
    let pod = first_pod(&cluster, "/api/v1/pods?limit=1").await;
    detail(&cluster, &binnacle, &pod, "the first pod").await;
}

/// Overview and search: one connection for the times, several for the rate.
async fn merged(demo: &Cluster, binnacle: &Binnacle) {
    let pod = first_pod(demo, "/api/v1/namespaces/load-5/pods?limit=1").await;
    let uid = format!("/api/v1/search?q={}", pod.uid);
    let reads = [
        ("overview", "/api/v1/overview"),
        ("overview of a namespace", "/api/v1/overview/load-3"),
        ("search: a short word, in every name", "/api/v1/search?q=app"),
        ("search: a label's name", "/api/v1/search?q=template-hash"),
        ("search: a uid", uid.as_str()),
        ("search: nothing has it", "/api/v1/search?q=nothing-is-called-so"),
    ];
    section(format_args!("overview and search, {PODS} pods"));
    for (what, path) in reads {
        let found = body(&Client::open(&binnacle.tls).await.get(path).await);
        load(&binnacle.process, &binnacle.tls, path, WARM).await;
        let alone = load(&binnacle.process, &binnacle.tls, path, ALONE).await;
        let crowd = load(&binnacle.process, &binnacle.tls, path, CROWD).await;
        let what = match found["listMeta"]["totalItems"].as_u64() {
            Some(total) => format!("{what}: {total} found"),
            None => what.to_owned(),
        };
        let (p50, p99) = (alone.percentile(0.50), alone.percentile(0.99));
        figure(&what, format_args!("p50 {}, p99 {}", millis(p50), millis(p99)), "");
        let (rate, cpu) = (crowd.rate(), micros(crowd.cpu));
        let connections = CROWD.connections;
        figure(
            format_args!("  {connections} connections"),
            format_args!("{rate:.0} requests/s, {cpu} of CPU each"),
            "",
        );
    }
}

/// Objects as an API server sends them; the name of their kind, and where they are made.
const KINDS: [(&str, &str, &str); 7] = [
    ("pod", "/api/v1/namespaces/default/pods", include_str!("objects/pod.json")),
    ("event", "/api/v1/namespaces/default/events", include_str!("objects/event.json")),
    ("node", "/api/v1/nodes", include_str!("objects/node.json")),
    (
        "deployment",
        "/apis/apps/v1/namespaces/default/deployments",
        include_str!("objects/deployment.json"),
    ),
    (
        "service",
        "/api/v1/namespaces/default/services",
        r#"{"spec":{"type":"ClusterIP","clusterIP":"10.96.17.9","selector":{"app":"checkout"},
            "ports":[{"name":"http","port":80,"targetPort":8080,"protocol":"TCP"}]},
            "metadata":{"labels":{"app":"checkout"}},"status":{"loadBalancer":{}}}"#,
    ),
    ("configmap", "/api/v1/namespaces/default/configmaps", r#"{"metadata":{},"data":{}}"#),
    ("secret", "/api/v1/namespaces/default/secrets", r#"{"metadata":{},"data":{}}"#),
];
/// Content of a config map and of a secret; neither is kept.
const CONTENT: usize = 4 << 10;

/// Resident memory after the sync, with and without the objects of one kind: a cluster and a
/// gateway for each, so that none has what another has left.
async fn memory() {
    let mut empty = Vec::new();
    for _ in 0..STARTS {
        empty.push(resident("pod", Vec::new()).await.0);
    }
    empty.sort_unstable();
    let empty = empty[STARTS / 2];
    section(format_args!("memory of {OBJECTS} objects of a kind; without them {}", mib(empty)));
    for (kind, path, text) in KINDS {
        let objects: Vec<Value> = (0..OBJECTS).map(|number| object(kind, text, number)).collect();
        let wire = objects[0].to_string().len();
        let objects = objects.into_iter().map(|object| (path.to_owned(), object)).collect();
        let (with, rows) = resident(kind, objects).await;
        let more = with.saturating_sub(empty);
        let goal = if kind == "secret" { "none: never kept" } else { "" };
        let each = more / OBJECTS as u64;
        figure(
            format_args!("{kind}, {wire} B on the wire, {rows} rows kept"),
            format_args!("{}, {each} B each", mib(more)),
            goal,
        );
    }
}

/// Resident bytes of a fresh gateway before a demo with these objects, and its rows of `kind`.
async fn resident(kind: &str, objects: Vec<(String, Value)>) -> (u64, u64) {
    let demo = Cluster::demo(0);
    create(&demo.api.server, objects.into_iter()).await;
    let binnacle = Binnacle::start(&demo.kubeconfig, ADMIN, &[]);
    binnacle.synced().await;
    let resident = binnacle.process.memory().resident;
    let metrics = binnacle.metrics().await;
    (resident, sum(&metrics, "binnacle_cache_rows", &format!("kind=\"{kind}\"")))
}

fn object(kind: &str, text: &str, number: usize) -> Value {
    let mut object: Value = serde_json::from_str(text).unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    metadata.insert("name".into(), format!("bench-{number:05}").into());
    if kind != "node" {
        metadata.insert("namespace".into(), "default".into());
    }
    match kind {
        "configmap" => object["data"]["text"] = "x".repeat(CONTENT).into(),
        // Base64 of zeros.
        "secret" => object["data"]["text"] = "A".repeat(CONTENT).into(),
        // Each of another pod, as events are.
        "event" => {
            object["involvedObject"]["name"] = format!("bench-{number:05}").into();
            object["involvedObject"]["namespace"] = "default".into();
            object["involvedObject"]["uid"] =
                format!("0d9f6f0e-52b1-4c0e-8b5d-{number:012}").into();
        }
        // Of a template without metadata the demo makes no pods.
        "deployment" => {
            object["spec"]["template"].as_object_mut().unwrap().remove("metadata");
        }
        _ => {}
    }
    object
}

/// A caller who may list in some of many namespaces: what the first page costs in reviews, and how
/// long it takes, before anything is known of the caller and after.
async fn namespaces() {
    let demo = Cluster::demo(0);
    create(&demo.api.server, (0..NAMESPACES).map(namespace)).await;
    create(&demo.api.server, (0..NAMESPACES).step_by(OWN_EVERY).map(binding)).await;
    // Pods where the caller has rights, and as many where not.
    create(&demo.api.server, (0..NAMESPACES).step_by(OWN_EVERY / 2).map(pod_in)).await;
    let own = NAMESPACES.div_ceil(OWN_EVERY);
    section(format_args!("a caller with rights in {own} of {NAMESPACES} namespaces"));
    reviews(&demo, own).await;
    let mut cold = Vec::new();
    for round in 0..ROUNDS {
        let binnacle = Binnacle::start(&demo.kubeconfig, TEAM.1, &[]);
        binnacle.synced().await;
        let mut client = Client::open(&binnacle.tls).await;
        cold.push(timed(&mut client, PAGE).await);
        if round + 1 < ROUNDS {
            continue;
        }
        let few = Load { requests: 300, ..ALONE };
        let warm = load(&binnacle.process, &binnacle.tls, PAGE, few).await;
        figure("first page, cold", millis(median(cold.clone())), "");
        figure("first page, warm, p50", millis(warm.percentile(0.50)), "");
        figure("first page, warm, p99", millis(warm.percentile(0.99)), "");
        figure("first page, warm, CPU a request", micros(warm.cpu), "");
    }
}

/// What the recorder counts of that caller's questions.
async fn reviews(demo: &Cluster, own: usize) {
    let recorder = Recorder::start(&demo.api.server).await;
    let binnacle = Binnacle::start(&recorder.kubeconfig, TEAM.1, &[]);
    binnacle.synced().await;
    let mut client = Client::open(&binnacle.plain).await;
    let count = |prefix: &str| recorder.count(TEAM.1, prefix);
    let page = body(&client.get(PAGE).await);
    let total = page["listMeta"]["totalItems"].as_u64().unwrap_or_default();
    assert!(total >= own as u64, "{total} pods are shown, of at least {own}");
    figure(format_args!("pods shown, {own} and those of two more namespaces"), total, "");
    let (access, rules, all) = (count(ACCESS), count(RULES), count(""));
    figure("first page, cold: access reviews", access, "");
    figure("first page, cold: rules reviews", rules, "");
    figure("first page, cold: other requests as the caller", all - access - rules, "");
    body(&client.get(PAGE).await);
    figure("the same page again: requests as the caller", count("") - all, "0");
    let before = count("");
    body(&client.get("/api/v1/deployment?itemsPerPage=10&page=1").await);
    figure("deployments after it: requests as the caller", count("") - before, "");
    let before = count(RULES) + count(ACCESS);
    let begun = Instant::now();
    for _ in 0..VISITS {
        // A frontend's pace, at which verdicts grow old.
        tokio::time::sleep(Duration::from_secs(1)).await;
        body(&client.get(PAGE).await);
    }
    let sent = count(RULES) + count(ACCESS) - before;
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    figure("a page a second: reviews/s", format_args!("{rate:.0}"), "");
}

fn namespace(number: usize) -> (String, Value) {
    let name = format!("bench-{number:04}");
    ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": name}}))
}

fn binding(number: usize) -> (String, Value) {
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": TEAM.0}],
    });
    (format!("/apis/{group}/v1/namespaces/bench-{number:04}/rolebindings"), binding)
}

fn pod_in(number: usize) -> (String, Value) {
    let namespace = format!("bench-{number:04}");
    let pod = running(&namespace, "bench");
    (format!("/api/v1/namespaces/{namespace}/pods"), pod)
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

//! Usage of CPU and memory on the real control plane with metrics-server: in lists, details and
//! routes of its own, added up over exactly what its reader may see, and the state of its source.
//! Nodes are taken away and made anew on the demo. It is NOT where our own `/metrics` is tested, nor
//! how the history grows (`cache`).

use std::collections::BTreeMap;
use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::fault_proxy::Front;
use crate::gateway::{self, Gateway, Options};
use crate::people::{Person, ask, create, grant, rule};
use crate::reads::{DEADLINE, Names, POLL, rows};

/// What each pod is said to use.
const MEMORY: i64 = 64 << 20;

/// A pod that asks for as much memory as it uses, and for no processor. All are on one node.
async fn pod(cluster: &Cluster, namespace: &str, name: &str) {
    let usage = json!({
        "kwok.x-k8s.io/usage-cpu": "120m", "kwok.x-k8s.io/usage-memory": "64Mi",
    });
    let resources = json!({"requests": {"memory": "64Mi"}});
    let main = json!({"name": "main", "image": "example.invalid/main", "resources": resources});
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": usage},
        "spec": {"nodeName": "node-0", "containers": [main]},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
}

/// The right to list the usage of pods.
fn usage_rule() -> Value {
    json!({"apiGroups": ["metrics.k8s.io"], "verbs": ["list"], "resources": ["pods"]})
}

/// Waits until the answer is as wanted. metrics-server takes two of its rounds, 10 s each, to show
/// a new pod, and we ask it every 15 s.
async fn until(
    gateway: &Gateway,
    token: &str,
    path: &str,
    wanted: u16,
    ready: impl Fn(&Value) -> bool,
) -> Value {
    let begun = Instant::now();
    loop {
        let answer = ask(gateway, token, path).await;
        let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status == wanted && ready(&body) {
            return body;
        }
        let text = answer.text();
        assert!(begun.elapsed() < DEADLINE, "waited in vain, {path}: {} {text}", answer.status);
        tokio::time::sleep(POLL).await;
    }
}

fn pods(list: &Value) -> &[Value] {
    list["pods"].as_array().unwrap()
}

fn is_measured(list: &Value) -> bool {
    pods(list).iter().all(|pod| pod["metrics"]["cpuUsage"].is_i64())
}

/// Whether `cumulativeMetrics` adds up the listed pods: in its newest point each as it was measured
/// last, and where all of them were measured in one second, as they were then. Between its own
/// measurements a pod counts as it was measured last, which the few points of a list need not show.
fn adds_up(list: &Value) -> bool {
    let keys = [
        ("cpuUsage", "cpuUsageHistory", "cpu/usage_rate"),
        ("memoryUsage", "memoryUsageHistory", "memory/usage"),
    ];
    keys.iter().enumerate().all(|(index, (newest, history, name))| {
        let last: i64 = pods(list).iter().filter_map(|pod| pod["metrics"][*newest].as_i64()).sum();
        let mut measured: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for point in pods(list).iter().flat_map(|pod| pod["metrics"][*history].as_array()).flatten()
        {
            let at: jiff::Timestamp = point["timestamp"].as_str().unwrap().parse().unwrap();
            measured.entry(at.as_second()).or_default().push(point["value"].as_i64().unwrap());
        }
        let metric = &list["cumulativeMetrics"][index];
        let number = |point: &Value, key: &str| point[key].as_i64().unwrap();
        let points = metric["dataPoints"].as_array().into_iter().flatten();
        let points: BTreeMap<i64, i64> =
            points.map(|point| (number(point, "x"), number(point, "y"))).collect();
        let fits = |(at, sum): (&i64, &i64)| {
            let all = measured.get(at).filter(|values| values.len() == pods(list).len());
            all.is_none_or(|values| values.iter().sum::<i64>() == *sum)
        };
        metric["metricName"] == *name
            && metric["aggregation"] == "sum"
            && points.iter().all(fits)
            && points.values().next_back() == Some(&last)
    })
}

fn messages(list: &Value) -> String {
    let errors = list["errors"].as_array().unwrap().iter();
    let texts = errors.map(|error| error["ErrStatus"]["message"].as_str().unwrap());
    texts.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn usage_is_in_lists_in_details_and_in_routes_of_its_own() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("usage").await;
    pod(cluster, &namespace, "one").await;
    pod(cluster, &namespace, "two").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let get = async |path: &str| until(&gateway, admin, path, 200, |_| true).await;

    let path = format!("/api/v1/pod/{namespace}");
    let whole = |list: &Value| pods(list).len() == 2 && is_measured(list) && adds_up(list);
    let list = until(&gateway, admin, &path, 200, whole).await;
    assert_eq!(messages(&list), "");
    for pod in pods(&list) {
        let metrics = &pod["metrics"];
        assert_eq!(metrics["memoryUsage"], MEMORY, "{pod}");
        assert!((60..=240).contains(&metrics["cpuUsage"].as_i64().unwrap()), "{pod}");
        let newest = metrics["cpuUsageHistory"].as_array().unwrap().last().unwrap();
        assert_eq!(newest["value"], metrics["cpuUsage"], "{pod}");
    }

    let one = |list: &Value| pods(list).len() == 1 && is_measured(list) && adds_up(list);
    until(&gateway, admin, &format!("{path}?filterBy=name,one"), 200, one).await;
    // A page shows one pod and sums over both.
    let both = |list: &Value| {
        let points = list["cumulativeMetrics"][1]["dataPoints"].as_array().unwrap();
        pods(list).len() == 1 && points.iter().any(|point| point["y"] == 2 * MEMORY)
    };
    until(&gateway, admin, &format!("{path}?itemsPerPage=1&page=1"), 200, both).await;

    let node = list["pods"][0]["nodeName"].as_str().unwrap();
    // Of what belongs to a node, too, only what the filter leaves is added up.
    let one_of_node = format!("/api/v1/node/{node}/pod?filterBy==namespace,{namespace},name,one");
    until(&gateway, admin, &one_of_node, 200, one).await;
    for path in [format!("{path}/one"), format!("/api/v1/node/{node}")] {
        let detail = get(&path).await;
        let metrics = &detail["metrics"];
        let points = metrics[0]["dataPoints"].as_array().unwrap();
        assert!(!points.is_empty(), "{path}: {metrics}");
        assert_eq!(metrics[0]["metricPoints"].as_array().unwrap().len(), points.len(), "{path}");
        assert_eq!(metrics[1]["metricName"], "memory/usage", "{path}");
    }
    let nodes = get("/api/v1/node").await;
    assert!(!nodes["cumulativeMetrics"][0]["dataPoints"].as_array().unwrap().is_empty());

    let own = get(&format!("/api/v1/metrics/pod/{namespace}/one")).await;
    assert_eq!(own["memoryUsage"], MEMORY);
    assert_eq!(own["percentOfRequests"], json!({"cpu": null, "memory": 100.0}));
    assert_eq!(own["percentOfLimits"], json!({"cpu": null, "memory": null}));
    let all = |own: &Value| own["memoryUsage"] == 2 * MEMORY;
    until(&gateway, admin, &format!("/api/v1/metrics/namespace/{namespace}"), 200, all).await;
    let own = get(&format!("/api/v1/metrics/node/{node}")).await;
    assert!(own["cpuUsage"].as_i64().unwrap() > 0, "{own}");
    assert!(own["percentOfAllocatable"]["memory"].as_f64().unwrap() > 0.0, "{own}");
    let missing = ask(&gateway, admin, &format!("/api/v1/metrics/pod/{namespace}/none")).await;
    assert_eq!(missing.status, 404, "{}", missing.text());
    gateway.stop().await;
}

#[tokio::test]
async fn who_may_not_list_usage_sees_none_and_is_told_so() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("nousage").await;
    pod(cluster, &namespace, "one").await;
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["list"], &["pods"])]);
    grant(cluster, Some(&namespace), "person", person.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    let told = |list: &Value| {
        pods(list).len() == 1 && messages(list).contains("pods.metrics.k8s.io is forbidden")
    };
    let path = format!("/api/v1/pod/{namespace}");
    let list = until(&gateway, &person.token, &path, 200, told).await;
    assert_eq!(list["pods"][0]["metrics"], Value::Null, "{list}");
    assert_eq!(list["cumulativeMetrics"], json!([]), "{list}");
    for path in [
        format!("/api/v1/metrics/pod/{namespace}/one"),
        format!("/api/v1/metrics/namespace/{namespace}"),
        "/api/v1/metrics/node/node-0".to_owned(),
    ] {
        until(&gateway, &person.token, &path, 403, |_| true).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn sums_hold_nothing_from_namespaces_that_are_not_their_readers() {
    let cluster = cluster::shared().await;
    let (a, b) = (cluster.namespace("mine").await, cluster.namespace("theirs").await);
    pod(cluster, &a, "one").await;
    pod(cluster, &b, "one").await;
    let gateway = gateway::start(Options::default()).await;
    let person = Person::new(cluster, &a, "both").await;
    let rules = json!([rule(&["list"], &["pods"]), usage_rule()]);
    grant(cluster, Some(&a), "both", person.subject.clone(), rules).await;
    // Lists pods here and usage there: nothing fits together.
    let split = Person::new(cluster, &a, "split").await;
    let rules = json!([rule(&["list"], &["pods"])]);
    grant(cluster, Some(&a), "split", split.subject.clone(), rules).await;
    grant(cluster, Some(&b), "split", split.subject.clone(), json!([usage_rule()])).await;

    let whole = |list: &Value| pods(list).len() == 1 && is_measured(list) && adds_up(list);
    let theirs = format!("/api/v1/pod/{b}");
    until(&gateway, cluster.token("admin"), &theirs, 200, whole).await;
    for path in ["/api/v1/pod".to_owned(), format!("/api/v1/pod/{a},{b}")] {
        let list = until(&gateway, &person.token, &path, 200, whole).await;
        assert_eq!(rows(&list, "pods"), Names::from([(a.clone(), "one".to_owned())]));
        let empty = |list: &Value| {
            let metrics = list["cumulativeMetrics"].as_array().unwrap();
            pods(list).len() == 1
                && metrics.len() == 2
                && metrics.iter().all(|metric| metric["dataPoints"] == json!([]))
        };
        let list = until(&gateway, &split.token, &path, 200, empty).await;
        assert_eq!(list["pods"][0]["metrics"], Value::Null, "{list}");
    }
    for person in [&person, &split] {
        let path = format!("/api/v1/metrics/namespace/{b}");
        assert_eq!(ask(&gateway, &person.token, &path).await.status, 403);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_that_may_not_list_usage_itself_shows_what_its_caller_may() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("liveusage").await;
    pod(cluster, &namespace, "one").await;
    let options = Options { server_user: "nobody", ..Options::default() };
    let gateway = gateway::start(options).await;
    let whole = |list: &Value| pods(list).len() == 1 && is_measured(list) && adds_up(list);
    let path = format!("/api/v1/pod/{namespace}");
    let list = until(&gateway, cluster.token("admin"), &path, 200, whole).await;
    let metrics = &list["pods"][0]["metrics"];
    assert_eq!(metrics["memoryUsage"], MEMORY);
    assert_eq!(metrics["memoryUsageHistory"].as_array().unwrap().len(), 1);
    let state = |state: &Value| state["connected"] == true;
    until(&gateway, cluster.token("nobody"), "/api/v1/integration/sidecar/state", 200, state).await;
    gateway.stop().await;
}

/// When the points of an answer were taken, in unix seconds.
fn times(usage: &Value) -> Vec<i64> {
    let points = usage["cpuUsageHistory"].as_array().unwrap().iter();
    let time = |point: &Value| -> jiff::Timestamp {
        point["timestamp"].as_str().unwrap().parse().unwrap()
    };
    points.map(|point| time(point).as_second()).collect()
}

#[tokio::test]
async fn a_node_that_is_made_anew_shows_nothing_of_the_one_that_had_its_name() {
    let (front, _demo) = Front::demo(0).await;
    let node = front.api.list("/api/v1/nodes").await.swap_remove(0);
    let name = node["metadata"]["name"].as_str().unwrap();
    let own = format!("/api/v1/metrics/node/{name}");
    // Times are whole seconds: the new one must not be of the last point's.
    let is_measured = || async {
        let usage = front.get(&own).await;
        let now = jiff::Timestamp::now().as_second();
        usage.status == 200 && times(&usage.json()).iter().all(|at| *at < now)
    };
    Cluster::eventually("the first node is measured", is_measured).await;
    let path = format!("/api/v1/nodes/{name}");
    front.api.remove(&path).await;
    let anew = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    front.api.create("/api/v1/nodes", &anew).await;
    front.converges("node", None).await;
    let (_, node) = front.api.send(Method::GET, &path, "application/json", &Value::Null).await;
    let created = node["metadata"]["creationTimestamp"].as_str().unwrap();
    let created: jiff::Timestamp = created.parse().unwrap();
    let usage = front.get(&own).await;
    // A poll may have come meanwhile.
    let is_its_own =
        usage.status == 200 && times(&usage.json()).iter().all(|at| *at >= created.as_second());
    assert!(usage.status == 404 || is_its_own, "since {created}: {}", usage.text());
}

#[tokio::test]
async fn the_state_of_the_metrics_source_is_told_to_everybody_with_a_name() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    for name in ["sidecar", "metrics"] {
        let path = format!("/api/v1/integration/{name}/state");
        let connected = |state: &Value| state["connected"] == true;
        let state = until(&gateway, cluster.token("nobody"), &path, 200, connected).await;
        assert_eq!(state["error"], Value::Null);
        let checked = state["lastChecked"].as_str().unwrap();
        assert!(checked.parse::<jiff::Timestamp>().is_ok(), "{checked}");
        assert_eq!(state.as_object().unwrap().len(), 3);
        let nameless = gateway.request(Method::GET, None, &path, &[], Vec::new()).await;
        assert_eq!(nameless.status, 401, "{}", nameless.text());
    }
    let other = gateway.get("admin", "/api/v1/integration/heapster/state").await;
    assert_eq!(other.status, 404, "{}", other.text());
    gateway.stop().await;
}

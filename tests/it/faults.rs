//! Faults between us and the API server, and in what it says: after each one the rows are those of
//! the API server again, object by object and field by field, and none is left over.
//!
//! It is NOT where stale rows and rights during an outage are tested, nor malformed objects
//! (`away.rs`), nor lost client connections (`listeners.rs`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::fault_proxy::{Api, Front, Mode};
use crate::gateway::{self, Options};
use crate::lifecycle::{POLL, in_time};
use crate::people::{create, delete, pod, workload};

/// Kinds that both clusters have and a namespace has, read as whole objects and as metadata alone.
const NAMESPACED: &str = "configmap deployment ingress event pod replicaset service serviceaccount";
/// The same, with some that have no namespace.
const KINDS: &str = "configmap deployment ingress event namespace node pod replicaset \
                     service serviceaccount";
/// One for each kind of a namespace.
const READERS: usize = 8;

/// Changes without an end, made past the faults: each round marks a pod, then makes one config map,
/// marks another and deletes a third.
struct Changes<'a> {
    api: &'a Api,
    maps: String,
    pods: Vec<String>,
    round: usize,
}

impl<'a> Changes<'a> {
    async fn of(api: &'a Api, namespace: &str) -> Changes<'a> {
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let path = |pod: &Value| format!("{pods}/{}", pod["metadata"]["name"].as_str().unwrap());
        let pods = api.list(&pods).await.iter().map(path).collect();
        Changes { api, maps: format!("/api/v1/namespaces/{namespace}/configmaps"), pods, round: 0 }
    }

    async fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round += 1;
            let round = self.round;
            if let Some(pod) = self.pods.get(round % self.pods.len().max(1)) {
                self.api.mark(pod, round).await;
            }
            self.api.create(&self.maps, &config_map(&self.newest())).await;
            if round > 1 {
                self.api.mark(&format!("{}/made-{}", self.maps, round - 1), round).await;
            }
            if round > 3 {
                self.api.remove(&format!("{}/made-{}", self.maps, round - 3)).await;
            }
        }
    }

    /// The config map that was made last.
    fn newest(&self) -> String {
        format!("made-{}", self.round)
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// A deployment without pods whose only container has an environment of so many bytes.
fn large_deployment(bytes: usize) -> Value {
    let labels = json!({"app": "large"});
    let env = json!([{"name": "LARGE", "value": "x".repeat(bytes)}]);
    let container = json!({"name": "main", "image": "example.invalid/main", "env": env});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "large"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time(what, wait).await;
}

#[tokio::test]
async fn watches_that_end_anywhere_under_constant_changes_lose_nothing() {
    let (front, _demo) = Front::demo(0).await;
    let mut changes = Changes::of(&front.api, "shop").await;
    // In the middle of a line most of the time: an event of a pod has some 2,500 bytes.
    front.proxy.cut_after(Some((300, 9_000)));
    let first = front.proxy.accepted();
    let cuts = async {
        while front.proxy.accepted() < first + 250 {
            front.proxy.cut();
            changes.rounds(5).await;
        }
    };
    in_time("250 connections were cut", cuts).await;
    front.proxy.cut_after(None);
    front.proxy.cut();
    front.converges(KINDS, None).await;
    assert!(front.metric("binnacle_watch_restarts_total", "configmap").await > 0);
}

#[tokio::test]
async fn after_a_410_on_resume_what_was_deleted_meanwhile_is_gone() {
    let (front, demo) = Front::demo(0).await;
    let mut changes = Changes::of(&front.api, "shop").await;
    for _ in 0..2 {
        // The API server is away, and comes back without a memory of the time before.
        front.proxy.refuse();
        changes.rounds(8).await;
        demo.faults().expire_history();
        front.proxy.set(Mode::Open);
        front.converges(KINDS, None).await;
    }
    // It forgets while everybody watches, and ends the watches.
    changes.rounds(2).await;
    demo.faults().expire_history();
    demo.faults().drop_watches();
    changes.rounds(2).await;
    front.converges(KINDS, None).await;
}

#[tokio::test]
async fn a_list_whose_continue_token_expires_between_pages_is_begun_again() {
    let (front, demo) = Front::demo(1_700).await;
    let (faults, pods) = (demo.faults(), "/api/v1/pods");
    let mut changes = Changes::of(&front.api, "shop").await;
    changes.rounds(1).await;
    let begun = || {
        let first = front.proxy.asked("GET /api/v1/pods?limit=500 HTTP").len();
        first + front.proxy.asked("GET /api/v1/pods HTTP").len()
    };
    let before = (begun(), faults.requests_of("list", pods));
    faults.delay(pods, Duration::from_millis(200));
    faults.expire_history();
    faults.drop_watches();
    let asks = || faults.requests_of("list", pods) >= before.1 + 2;
    until("the second page is asked for", asks).await;
    // Each page is read when its time has come: the tokens of all that follow are too old now.
    changes.rounds(1).await;
    faults.expire_history();
    faults.delay(pods, Duration::ZERO);
    front.converges("pod configmap", None).await;
    assert!(begun() >= before.0 + 2, "no page was refused: {} and {}", before.0, begun());
}

#[tokio::test]
async fn a_429_is_asked_again_when_its_retry_after_is_over() {
    let (front, demo) = Front::demo(0).await;
    let mut changes = Changes::of(&front.api, "shop").await;
    let asked = || front.proxy.asked("GET /api/v1/pods?");
    let before = asked().len();
    demo.faults().respond("/api/v1/pods", 429, 2);
    demo.faults().drop_watches();
    changes.rounds(2).await;
    until("both refusals are over", || asked().len() >= before + 3).await;
    front.converges(KINDS, None).await;
    // Times of requests on their way to the API server, whose answers come later: what was waited
    // is never less than what lies between them.
    for pair in asked()[before..before + 3].windows(2) {
        let waited = pair[1] - pair[0];
        assert!(waited >= Duration::from_secs(1), "Retry-After: 1, and it came after {waited:?}");
    }
}

#[tokio::test]
async fn a_storm_of_500_and_503_is_sat_out_with_rows_and_without_a_flood() {
    let (front, demo) = Front::demo(0).await;
    let faults = demo.faults();
    let mut changes = Changes::of(&front.api, "shop").await;
    let rows = front.get("/api/v1/pod").await.pods();
    front.proxy.refuse();
    changes.rounds(4).await;
    let before = faults.requests("/api");
    for code in [500, 503, 500] {
        faults.respond("/api", code, 40);
    }
    front.proxy.set(Mode::Open);
    let storm = async {
        while faults.requests("/api") < before + 120 {
            assert_eq!(front.get("/api/v1/pod").await.pods(), rows);
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the storm is over", storm).await;
    changes.rounds(4).await;
    front.converges(KINDS, None).await;
    // Some 35 kinds that each open one watch, what this test has asked, and reviews.
    let asked = faults.requests("/api") - before;
    assert!(asked < 120 + 400, "{asked} requests in a storm of 120");
}

#[tokio::test]
async fn over_a_slow_line_lists_and_watches_arrive_whole() {
    let (front, demo) = Front::demo(0).await;
    let mut changes = Changes::of(&front.api, "shop").await;
    front.proxy.refuse();
    changes.rounds(4).await;
    demo.faults().expire_history();
    front.proxy.set(Mode::Slow(60_000));
    front.converges(KINDS, None).await;
    changes.rounds(4).await;
    front.converges(KINDS, None).await;
}

#[tokio::test]
async fn half_open_connections_lose_nothing_however_they_end() {
    let (front, _demo) = Front::demo(0).await;
    let mut changes = Changes::of(&front.api, "shop").await;
    let maps = "/api/v1/configmap/shop";
    let is_shown = async |name: &str| {
        let answer = front.get(maps).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().contains(&format!("\"{name}\""))
    };
    changes.rounds(1).await;
    front.converges(KINDS, None).await;
    // The right to this list is fresh from here on.
    assert!(is_shown(&changes.newest()).await);
    front.proxy.set(Mode::Silent);
    changes.rounds(5).await;
    assert!(!is_shown(&changes.newest()).await, "the line is not silent");
    // What was held back arrives late.
    front.proxy.set(Mode::Open);
    front.converges(KINDS, None).await;

    // What was held back is lost, and those who connect anew find silence at first.
    front.proxy.set(Mode::Silent);
    changes.rounds(5).await;
    let before = front.proxy.accepted();
    front.proxy.cut();
    until("watches are opened into silence", || front.proxy.accepted() >= before + 5).await;
    changes.rounds(5).await;
    front.proxy.cut();
    front.proxy.set(Mode::Open);
    front.converges(KINDS, None).await;
}

#[tokio::test]
async fn ten_mebibytes_of_annotations_and_objects_of_one_and_a_half_cost_what_is_shown_of_them() {
    let (front, demo) = Front::demo(0).await;
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    front.api.create(deployments, &large_deployment(3 << 19)).await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    let name = |number: usize| format!("annotated-{number}");
    for number in 0..40 {
        let mut map = config_map(&name(number));
        map["metadata"]["annotations"] = json!({"example.org/much": "x".repeat(256 << 10)});
        front.api.create(maps, &map).await;
    }
    // From watches, then from lists.
    front.converges("configmap deployment", None).await;
    front.api.mark(&format!("{deployments}/large"), 1).await;
    // A change of another kind is the last: the history ends behind both.
    front.api.mark("/api/v1/namespaces/shop", 1).await;
    demo.faults().expire_history();
    demo.faults().drop_watches();
    front.api.mark(&format!("{maps}/{}", name(0)), 1).await;
    front.converges("configmap deployment", None).await;
    // A page holds its own rows, and a row nothing of a container's environment.
    let page = front.get("/api/v1/configmap/shop?itemsPerPage=1&page=1").await;
    assert!(page.body.len() < 512 << 10, "{} bytes", page.body.len());
    let rows = front.get("/api/v1/deployment/shop").await;
    assert!(rows.body.len() < 64 << 10, "{} bytes", rows.body.len());
    for number in 0..40 {
        front.api.remove(&format!("{maps}/{}", name(number))).await;
    }
    front.converges("configmap", None).await;
    let rest = front.get("/api/v1/configmap").await;
    assert!(rest.body.len() < 64 << 10, "{} bytes are left", rest.body.len());
}

#[tokio::test]
async fn a_large_object_of_a_real_api_server_arrives_by_list_and_by_watch() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fault-large").await;
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    // etcd takes requests of 1.5 MiB.
    create(cluster, &deployments, large_deployment(1_400_000)).await;
    let front = Front::real().await;
    let kinds = "deployment replicaset";
    front.converges(kinds, Some(&namespace)).await;
    let large = format!("{deployments}/large");
    front.api.mark(&large, 1).await;
    front.converges(kinds, Some(&namespace)).await;
    let rows = front.get(&format!("/api/v1/deployment/{namespace}")).await;
    assert!(rows.body.len() < 16 << 10, "{} bytes", rows.body.len());
    front.api.remove(&large).await;
    front.converges(kinds, Some(&namespace)).await;
}

/// Reads until it is over; every answer is a list, and of pods one with rows.
async fn reader(
    front: &Front,
    namespace: &str,
    number: usize,
    over: &AtomicBool,
    (answered, stale): (&AtomicUsize, &AtomicUsize),
) {
    let kind = NAMESPACED.split(' ').nth(number).unwrap();
    while !over.load(Ordering::SeqCst) {
        let answer = front.get(&format!("/api/v1/{kind}/{namespace}")).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        assert!(kind != "pod" || answer.pods() > 0, "{}", answer.text());
        answered.fetch_add(1, Ordering::SeqCst);
        stale.fetch_add(usize::from(answer.header("binnacle-age") != "0.000"), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_api_server_that_restarts_under_load_costs_no_answer_and_no_row() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fault-restart").await;
    workload(cluster, &namespace, "web", 3, "none").await;
    let front = Front::real().await;
    let has_pods = || async { front.get(&format!("/api/v1/pod/{namespace}")).await.pods() == 3 };
    Cluster::eventually("the pods are shown", has_pods).await;
    // Whoever read before goes on reading: the right is known.
    for kind in NAMESPACED.split(' ') {
        assert_eq!(front.get(&format!("/api/v1/{kind}/{namespace}")).await.status, 200);
    }
    let mut changes = Changes::of(&front.api, &namespace).await;
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stale = AtomicUsize::new(0);
    let readers =
        (0..READERS).map(|number| reader(&front, &namespace, number, &over, (&answered, &stale)));
    let outages = async {
        for _ in 0..2 {
            front.proxy.refuse();
            let enough = answered.load(Ordering::SeqCst) + 25 * READERS;
            while answered.load(Ordering::SeqCst) < enough {
                changes.rounds(1).await;
            }
            front.proxy.set(Mode::Open);
            front.converges(NAMESPACED, Some(&namespace)).await;
        }
        over.store(true, Ordering::SeqCst);
    };
    in_time("two restarts", async { tokio::join!(join_all(readers), outages) }).await;
    assert!(stale.load(Ordering::SeqCst) > 0, "no answer was marked as stale");
    assert!(front.metric("binnacle_watch_restarts_total", "pod").await > 0);
}

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: parts.fault.example.org}
spec:
  group: fault.example.org
  scope: Namespaced
  names: {plural: parts, singular: part, kind: Part, listKind: PartList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[tokio::test]
async fn a_custom_kind_that_is_removed_while_it_is_listed_is_a_404_and_may_come_back() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fault-custom").await;
    let gateway = gateway::start(Options::default()).await;
    cluster.apply(DEFINITION).await;
    let parts = format!("/apis/fault.example.org/v1/namespaces/{namespace}/parts");
    let (admin, json_type) = (cluster.token("admin"), [("content-type", "application/json")]);
    for number in 0..5 {
        let part = json!({"apiVersion": "fault.example.org/v1", "kind": "Part",
            "metadata": {"name": format!("part-{number}")}, "spec": {"size": number}});
        let is_made = || async {
            let sent = part.to_string();
            let answer = cluster.request(Method::POST, admin, &parts, &json_type, sent).await;
            matches!(answer.0, 201 | 409)
        };
        Cluster::eventually("a part is made", is_made).await;
    }
    let list = format!("/api/v1/crd/{namespace}/parts.fault.example.org/object");
    let has = async |total: usize| {
        let answer = gateway.get("admin", &list).await;
        answer.status == 200 && answer.json()["listMeta"]["totalItems"] == total
    };
    Cluster::eventually("the parts are listed", || async { has(5).await }).await;

    let definition =
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/parts.fault.example.org";
    delete(cluster, definition).await;
    let is_gone = || async {
        let answer = gateway.get("admin", &list).await;
        assert!(answer.status < 500, "{}: {}", answer.status, answer.text());
        answer.status == 404
    };
    Cluster::eventually("the custom kind is not served", is_gone).await;
    let is_left = || async { cluster.get(admin, definition).await.0 == 404 };
    Cluster::eventually("the definition is deleted", is_left).await;
    let shown = async || {
        let definitions = gateway.get("admin", "/api/v1/crd").await;
        assert_eq!(definitions.status, 200, "{}", definitions.text());
        let list = definitions.json();
        let mut items = list["items"].as_array().unwrap().iter();
        let one = items.find(|one| one["objectMeta"]["name"] == "parts.fault.example.org");
        one.map(|one| one["objectMeta"]["uid"].clone())
    };
    Cluster::eventually("its row is gone", || async { shown().await.is_none() }).await;

    cluster.apply(DEFINITION).await;
    Cluster::eventually("there is an empty list", || async { has(0).await }).await;
    let (_, _, body) = cluster.get(admin, definition).await;
    let uid = serde_json::from_slice::<Value>(&body).unwrap()["metadata"]["uid"].clone();
    let is_new = || async { shown().await.as_ref() == Some(&uid) };
    Cluster::eventually("the row is that of the new definition", is_new).await;
}

#[tokio::test]
async fn clocks_that_go_wrong_shift_what_is_shown_and_break_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fault-clock").await;
    pod(cluster, &namespace, "tick", "none").await;
    let (past, future) = ("1971-01-02T03:04:05Z", "2999-01-02T03:04:05Z");
    let events = format!("/api/v1/namespaces/{namespace}/events");
    for (name, times) in [
        ("past", json!({"firstTimestamp": past, "lastTimestamp": past})),
        ("future", json!({"firstTimestamp": future, "lastTimestamp": future})),
        ("backwards", json!({"firstTimestamp": future, "lastTimestamp": past})),
        // As the newer event API writes them.
        ("new", json!({"eventTime": "2031-05-06T07:08:09.123456Z"})),
    ] {
        let mut event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": "Warning",
            "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "tick"},
            "reason": "Skew", "message": name, "action": "Watch",
            "reportingComponent": "example.org/clock", "reportingInstance": "clock-0",
        });
        for (field, value) in times.as_object().unwrap() {
            event[field] = value.clone();
        }
        create(cluster, &events, event).await;
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "lease"},
        "spec": {"holderIdentity": "me", "renewTime": "2999-01-02T03:04:05.000000Z"},
    });
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    create(cluster, &leases, lease).await;

    let front = Front::real().await;
    front.converges("event pod", Some(&namespace)).await;
    for order in ["a,firstSeen", "d,firstSeen", "a,lastSeen", "d,lastSeen", "d,creationTimestamp"] {
        let answer = front.get(&format!("/api/v1/event/{namespace}?sortBy={order}")).await;
        assert_eq!(answer.status, 200, "{order}: {}", answer.text());
        let list = answer.json();
        let seen = |name: &str| {
            let mut items = list["events"].as_array().unwrap().iter();
            let one = items.find(|one| one["objectMeta"]["name"] == name).unwrap();
            [one["firstSeen"].clone(), one["lastSeen"].clone()]
        };
        assert_eq!(seen("past"), [past, past], "{order}");
        assert_eq!(seen("future"), [future, future], "{order}");
        assert_eq!(seen("backwards"), [future, past], "{order}");
        assert_eq!(seen("new"), ["2031-05-06T07:08:09Z"; 2], "{order}");
    }
    for path in [
        format!("/api/v1/pod/{namespace}/tick/event"),
        format!("/api/v1/pod/{namespace}/tick"),
        format!("/api/v1/pod/{namespace}"),
        format!("/api/v1/lease/{namespace}/lease"),
        format!("/api/v1/overview/{namespace}"),
    ] {
        let answer = front.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(front.metric("binnacle_malformed_objects_total", "event").await, 0);
}

#[tokio::test]
async fn objects_that_were_deleted_in_the_future_or_long_ago_are_shown_until_they_are_gone() {
    let (front, _demo) = Front::demo(0).await;
    let all = "/api/v1/namespaces/shop/pods";
    let pods = front.api.list(all).await;
    let path = |pod: &Value| format!("{all}/{}", pod["metadata"]["name"].as_str().unwrap());
    for (pod, at) in pods.iter().zip(["1971-01-02T03:04:05Z", "2999-01-02T03:04:05Z"]) {
        front.api.patch(&path(pod), &json!({"metadata": {"deletionTimestamp": at}})).await;
    }
    front.converges("pod", None).await;
    for pod in pods.iter().take(2) {
        front.api.remove(&path(pod)).await;
    }
    front.converges("pod", None).await;
}

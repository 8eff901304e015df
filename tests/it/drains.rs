//! Cordon, uncordon and drain: on the real API server with a node of the test's own, which nobody
//! else's pods come to. It is no place for what a drain of the demo would show as well, nor for how
//! many evictions there are at once (`drain_turns.rs`).

use std::collections::BTreeSet;

use binnacle::i18n::{self, Locale};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, create, delete, grant, rule};
use crate::schemas::document;
use crate::writes::live;

pub const NODES: &str = "/api/v1/nodes";
/// In the contract's nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// A node that no component cares for.
pub async fn node(cluster: &Cluster, name: &str) {
    let taint = json!({"key": "test.binnacle/private", "effect": "NoSchedule"});
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"taints": [taint]},
    });
    create(cluster, NODES, object).await;
}

/// A pod that is bound to the node from the beginning. It may have `volumes`, an `owner`, and
/// another `app` than its name.
pub async fn pod(cluster: &Cluster, namespace: &str, name: &str, node: &str, more: Value) {
    let app = more.get("app").cloned().unwrap_or_else(|| name.into());
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "example.invalid/main"}]},
    });
    if let Some(volumes) = more.get("volumes") {
        object["spec"]["volumes"] = volumes.clone();
    }
    if let Some(owner) = more.get("owner") {
        object["metadata"]["ownerReferences"] = json!([owner]);
        // Owners that are gone or want no pod here have it deleted: it stays all the same.
        object["metadata"]["finalizers"] = json!(["test.binnacle/hold"]);
    }
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
}

async fn patch(cluster: &Cluster, path: &str, patch: Value) {
    let headers = [("content-type", "application/merge-patch+json")];
    let admin = cluster.token("admin");
    let (status, _, body) =
        cluster.request(Method::PATCH, admin, path, &headers, patch.to_string()).await;
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
}

/// A running pod, as its kubelet would say: a pending one no budget holds.
pub async fn runs(cluster: &Cluster, namespace: &str, name: &str) {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"status": {"phase": "Running", "conditions": ready}});
    patch(cluster, &format!("/api/v1/namespaces/{namespace}/pods/{name}/status"), status).await;
}

/// A budget that lets none of so many running pods of `app` go; its path.
pub async fn budget(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    app: &str,
    pods: usize,
) -> String {
    let object = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": pods, "selector": {"matchLabels": {"app": app}}},
    });
    let budgets = format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets");
    create(cluster, &budgets, object).await;
    format!("{budgets}/{name}")
}

/// Until the budget has counted so many running pods.
pub async fn counted(cluster: &Cluster, path: &str, pods: usize) {
    let are = || async { live(cluster, path).await.unwrap()["status"]["currentHealthy"] == pods };
    Cluster::eventually("the budget counts its pods", are).await;
}

/// What is told of a drain, and what of it is about which pod.
pub struct Told(pub Vec<(String, Value)>);

impl Told {
    /// A drain as a stream, to its end.
    pub async fn of(
        gateway: &Gateway,
        token: &str,
        path: &str,
        language: &str,
        spec: Value,
    ) -> Told {
        let value = format!("Bearer {token}");
        let headers = [
            ("authorization", value.as_str()),
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("accept-language", language),
        ];
        let body = spec.to_string().into_bytes();
        let told = gateway.request(Method::PUT, None, path, &headers, body).await;
        let said = (told.status, told.header("content-type"));
        assert_eq!(said, (200, "text/event-stream"), "{}", told.text());
        let event = |text: &str| {
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let data: Value = serde_json::from_str(field("data: ")?).unwrap();
            Some((field("event: ")?.to_owned(), data))
        };
        Told(told.text().split("\n\n").filter_map(event).collect())
    }

    /// The admin's drain of a node with a pod that does not go. It lasts as long as it may: that is
    /// short, and longer only where it was over before the pod's eviction was answered.
    async fn in_vain(gateway: &Gateway, admin: &str, path: &str) -> Told {
        let no_time = i18n::message(Locale::EN, "note-drain-no-time", &[]);
        let mut seconds = 2;
        loop {
            let spec = json!({"timeout": seconds * SECOND});
            let told = Told::of(gateway, admin, path, "en", spec).await;
            if told.last("failed")["reason"] != no_time.as_str() || seconds > 60 {
                return told;
            }
            seconds *= 2;
        }
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The pods of the events of this name.
    pub fn pods(&self, name: &str) -> BTreeSet<&str> {
        let of = self.0.iter().filter(|(event, _)| event == name);
        of.map(|(_, data)| data["pod"].as_str().unwrap()).collect()
    }

    /// The last event of this name.
    pub fn last(&self, name: &str) -> &Value {
        let mut events = self.0.iter().rev();
        &events.find(|(event, _)| event == name).unwrap_or_else(|| panic!("{:?}", self.0)).1
    }
}

/// A gateway that keeps nothing: nodes and pods are read live here.
pub fn plain() -> Options {
    Options { shared_cache: false, ..Options::default() }
}

async fn put(gateway: &Gateway, token: &str, path: &str, body: &Value) -> Answer {
    let value = format!("Bearer {token}");
    let headers = [("authorization", value.as_str()), ("content-type", "application/json")];
    gateway.request(Method::PUT, None, path, &headers, body.to_string().into_bytes()).await
}

#[tokio::test]
async fn a_node_is_cordoned_and_uncordoned_as_often_as_one_likes() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("cordon").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    for (action, wanted) in
        [("cordon", json!(true)), ("cordon", json!(true)), ("uncordon", Value::Null)]
    {
        let answer =
            put(&gateway, admin, &format!("/api/v1/node/{name}/{action}"), &json!({})).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        let object = live(cluster, &format!("{NODES}/{name}")).await.unwrap();
        let found = object["spec"].get("unschedulable").cloned().unwrap_or_default();
        let is_off = found.is_null() || found == json!(false);
        assert!(found == wanted || (wanted.is_null() && is_off), "{action}: {object}");
    }
    let stranger = Person::new(cluster, &namespace, "stranger").await;
    let path = format!("/api/v1/node/{name}/cordon");
    assert_eq!(put(&gateway, &stranger.token, &path, &json!({})).await.status, 403);
    let gone = put(&gateway, admin, "/api/v1/node/no-such-node/drain", &json!({})).await;
    assert_eq!(gone.status, 404, "{}", gone.text());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_drain_evicts_what_may_go_and_names_what_a_budget_holds() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("drain").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    pod(cluster, &namespace, "free", &name, json!({})).await;
    pod(cluster, &namespace, "held", &name, json!({})).await;
    let hold = budget(cluster, &namespace, "hold", "held", 1).await;
    runs(cluster, &namespace, "held").await;
    counted(cluster, &hold, 1).await;
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let admin = cluster.token("admin");

    let gateway = gateway::start(Options::default()).await;
    let drain = format!("/api/v1/node/{name}/drain");
    let answer = put(&gateway, admin, &drain, &json!({"timeout": 3 * SECOND})).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let words = answer.text();
    assert!(words.contains(&format!("{namespace}/held")), "{words}");
    assert!(words.contains("disruption budget hold needs"), "{words}");
    assert!(!words.contains("/free"), "{words}");
    assert!(live(cluster, &format!("{pods}/free")).await.is_none(), "the free one is gone");
    assert!(live(cluster, &format!("{pods}/held")).await.is_some());
    let object = live(cluster, &format!("{NODES}/{name}")).await.unwrap();
    assert_eq!(object["spec"]["unschedulable"], true);

    let told = Told::in_vain(&gateway, admin, &drain).await;
    assert_eq!(told.names(), ["cordoned", "evicting", "waiting", "failed", "done"], "{:?}", told.0);
    assert_eq!(told.last("done")["status"], 409);

    delete(cluster, &hold).await;
    let answer = put(&gateway, admin, &drain, &json!({"timeout": 30 * SECOND})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(live(cluster, &format!("{pods}/held")).await.is_none());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_drain_with_nothing_to_do_answers_as_the_document_says_with_its_progress_and_without() {
    let cluster = cluster::shared().await;
    let name = format!("{}-node", cluster.namespace("told").await);
    node(cluster, &name).await;
    let gateway = gateway::start(plain()).await;
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));
    let document = document();
    let answers = &document["paths"]["/api/v1/node/{name}/drain"]["put"]["responses"];

    let answer = put(&gateway, admin, &drain, &json!({})).await;
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    assert!(answers["202"].is_object() && answers["202"].get("content").is_none(), "{answers}");

    // Its answer is a 200 of that type, or this fails.
    let told = Told::of(&gateway, admin, &drain, "en", json!({})).await;
    let content = &answers["200"]["content"]["text/event-stream"];
    let described = content["schema"]["description"].as_str().unwrap_or_default();
    assert_eq!(told.names(), ["cordoned", "done"], "{:?}", told.0);
    for name in told.names() {
        assert!(described.contains(name), "{name}: {answers}");
    }
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_strict_drain_refuses_bare_pods_and_scratch_data_and_evicts_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("strict").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let volumes = json!({"volumes": [{"name": "scratch", "emptyDir": {}}]});
    pod(cluster, &namespace, "scratch", &name, volumes).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let drain = format!("/api/v1/node/{name}/drain");
    for (spec, word) in [
        (json!({"force": false}), "without a controller"),
        (json!({"deleteEmptyDirData": false}), "emptyDir"),
    ] {
        let answer = put(&gateway, admin, &drain, &spec).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    assert!(live(cluster, &format!("{pods}/scratch")).await.is_some());
    // Who may cordon but not evict is told the API server's own words.
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["patch"], &["nodes"]), rule(&["list"], &["pods"])]);
    grant(cluster, None, &name, person.subject.clone(), rules).await;
    let answer = put(&gateway, &person.token, &drain, &json!({})).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("forbidden"), "{}", answer.text());
    assert!(live(cluster, &format!("{pods}/scratch")).await.is_some());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_pod_under_two_budgets_fails_at_once_in_kubernetes_own_words_among_the_callers() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("torn").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    pod(cluster, &namespace, "torn", &name, json!({})).await;
    runs(cluster, &namespace, "torn").await;
    for budgets in ["one", "two"] {
        budget(cluster, &namespace, budgets, "torn", 1).await;
    }
    let gateway = gateway::start(plain()).await;
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));
    let told = Told::of(&gateway, admin, &drain, "zh-CN", json!({})).await;
    assert_eq!(told.names(), ["cordoned", "evicting", "failed", "done"], "{:?}", told.0);
    let words = "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                 does not support.";
    assert_eq!(told.last("failed")["reason"], words);
    let done = told.last("done");
    let message = done["message"].as_str().unwrap();
    let left = format!("{namespace}/torn: {words}");
    let args = [("gone", "0"), ("all", "1"), ("left", left.as_str())];
    let chinese = Locale::parse("zh-Hans").unwrap();
    assert_eq!(message, i18n::message(chinese, "error-drain-left", &args));
    assert_eq!(done["status"], 409);

    let value = format!("Bearer {admin}");
    let headers = [
        ("authorization", value.as_str()),
        ("content-type", "application/json"),
        ("accept-language", "zh-TW"),
    ];
    let spec = json!({"force": false}).to_string().into_bytes();
    let answer = gateway.request(Method::PUT, None, &drain, &headers, spec).await;
    let chinese = Locale::parse("zh-Hant").unwrap();
    let why = i18n::message(chinese, "note-drain-unmanaged", &[]);
    let pods = format!("{namespace}/torn ({why})");
    let refused = i18n::message(chinese, "error-drain-refused", &[("pods", pods.as_str())]);
    assert_eq!((answer.status, answer.text()), (409, refused));
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_drain_waits_for_what_goes_with_its_namespace_where_nothing_is_evicted_any_more() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("ending").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    pod(cluster, &namespace, "late", &name, json!({})).await;
    let path = format!("/api/v1/namespaces/{namespace}/pods/late");
    let hold = json!(["test.binnacle/hold"]);
    patch(cluster, &path, json!({"metadata": {"finalizers": hold}})).await;
    delete(cluster, &format!("/api/v1/namespaces/{namespace}")).await;
    let gateway = gateway::start(plain()).await;
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));

    let told = Told::in_vain(&gateway, admin, &drain).await;
    assert_eq!(told.names(), ["cordoned", "evicting", "failed", "done"], "{:?}", told.0);
    let why = i18n::message(Locale::EN, "note-drain-terminating", &[]);
    let late = format!("{namespace}/late");
    assert_eq!(told.last("failed"), &json!({"pod": late, "reason": why}));

    let spec = json!({"timeout": 30 * SECOND});
    let again = Told::of(&gateway, admin, &drain, "en", spec);
    let free = patch(cluster, &path, json!({"metadata": {"finalizers": null}}));
    let (told, ()) = tokio::join!(again, free);
    assert_eq!(told.last("done")["status"], 202, "{:?}", told.0);
    assert!(live(cluster, &path).await.is_none());
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_pod_whose_daemon_set_is_gone_is_evicted_by_force_alone_and_that_of_a_living_one_never() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("daemons").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let labels = json!({"app": "kept"});
    let spec = json!({
        "nodeSelector": {"test.binnacle/none": "such"},
        "containers": [{"name": "main", "image": "example.invalid/main"}],
    });
    let object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "there"},
        "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    let sets = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets");
    let set = create(cluster, &sets, object).await;
    let owner = |name: &str, uid: &Value| {
        json!({"owner": {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid,
            "controller": true}})
    };
    pod(cluster, &namespace, "kept", &name, owner("there", &set["metadata"]["uid"])).await;
    pod(cluster, &namespace, "orphan", &name, owner("gone", &json!("no-such-uid"))).await;
    let gateway = gateway::start(plain()).await;
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));

    let answer = put(&gateway, admin, &drain, &json!({"force": false})).await;
    let words = answer.text();
    assert_eq!(answer.status, 409, "{words}");
    assert!(words.contains("orphan (daemonsets.apps \"gone\" not found"), "{words}");
    assert!(!words.contains("/kept"), "{words}");
    let answer = put(&gateway, admin, &drain, &json!({"ignoreAllDaemonSets": false})).await;
    let words = answer.text();
    assert_eq!(answer.status, 409, "{words}");
    assert!(words.contains("/kept (") && !words.contains("/orphan"), "{words}");
    // Who may not look whether the set is there evicts none of its pods, as with kubectl.
    let person = Person::new(cluster, &namespace, "person").await;
    let rules = json!([rule(&["patch"], &["nodes"]), rule(&["list"], &["pods"])]);
    grant(cluster, None, &name, person.subject.clone(), rules).await;
    let answer = put(&gateway, &person.token, &drain, &json!({})).await;
    let words = answer.text();
    assert_eq!(answer.status, 409, "{words}");
    assert_eq!(words.matches("cannot get resource \"daemonsets\"").count(), 2, "{words}");

    let told = Told::in_vain(&gateway, admin, &drain).await;
    assert_eq!(told.names(), ["cordoned", "evicting", "failed", "done"], "{:?}", told.0);
    let orphan = format!("{namespace}/orphan");
    assert_eq!(told.last("evicting")["pod"], orphan);
    // The finalizer of the test holds it.
    let why = i18n::message(Locale::EN, "note-drain-terminating", &[]);
    assert_eq!(told.last("failed"), &json!({"pod": orphan, "reason": why}));
    for pod in ["kept", "orphan"] {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        patch(cluster, &path, json!({"metadata": {"finalizers": null}})).await;
    }
    delete(cluster, &format!("{sets}/there")).await;
    delete(cluster, &format!("{NODES}/{name}")).await;
}

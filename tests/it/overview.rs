//! What is made of many kinds at once: overview, search, the namespaces of who may not list them,
//! and numbers that somebody else's forged references must not move. On the real API server,
//! but for what takes many namespaces.

use std::time::Instant;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::fault_proxy::Front;
use crate::gateway::{self, Gateway, Options};
use crate::people::{Person, ask, bindings, create, grant, listing, pod, rule, user, workload};
use crate::reads::{DEADLINE, Names, POLL, rows};

/// The answer, once `ready` likes it.
async fn until(
    gateway: &Gateway,
    token: &str,
    path: &str,
    ready: impl Fn(&Value) -> bool,
) -> Value {
    let begun = Instant::now();
    loop {
        let answer = ask(gateway, token, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let body = answer.json();
        if ready(&body) {
            return body;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {path}: {body}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn an_overview_counts_what_the_lists_count() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("overview").await;
    workload(cluster, &namespace, "front", 2, "none").await;
    workload(cluster, &namespace, "sad", 1, "crash").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let path = format!("/api/v1/overview/{namespace}");
    let settled = |body: &Value| {
        body["workloads"]["pod"]["running"] == 2 && body["workloads"]["deployment"]["failed"] == 1
    };
    let body = until(&gateway, admin, &path, settled).await;
    assert_eq!(body["errors"], json!([]), "{body}");
    assert_eq!(body["namespaces"], json!([namespace]));
    for kind in ["pod", "deployment", "replicaset", "service", "configmap"] {
        let list = ask(&gateway, admin, &format!("/api/v1/{kind}/{namespace}")).await.json();
        assert_eq!(body["objects"][kind], list["listMeta"]["totalItems"], "{kind}: {body}");
        if let Some(status) = body["workloads"].get(kind) {
            assert_eq!(*status, list["status"], "{kind}: {body}");
        }
    }
    let backoff = |body: &Value| {
        let mut warnings = body["warnings"].as_array().unwrap().iter();
        warnings.any(|one| one["reason"] == "BackOff" && one["example"]["namespace"] == *namespace)
    };
    until(&gateway, admin, &path, backoff).await;
    // Three pods that ask for 100m each.
    assert_eq!(body["capacity"]["cpu"]["requests"], 300, "{body}");
    assert!(body["capacity"].get("nodes").is_none(), "one namespace is not all: {body}");
    // A namespace may be called like the route.
    let like_it = ask(&gateway, admin, "/api/v1/overview/overview").await.json();
    assert_eq!(like_it["namespaces"], json!(["overview"]), "{like_it}");
    let all = until(&gateway, admin, "/api/v1/overview", |_| true).await;
    // Other tests may have a node of their own for a while.
    assert!(all["capacity"]["nodes"]["ready"].as_u64().unwrap() >= 3, "{all}");
    let version = all["versions"]["kubernetes"].as_str().unwrap();
    assert!(version.starts_with("v1."), "{all}");
    assert!(!all["versions"]["kubelets"].as_object().unwrap().is_empty(), "{all}");
}

/// A pod of which metrics-server hears that it uses this much.
async fn busy(cluster: &Cluster, namespace: &str) {
    let usage = json!({
        "kwok.x-k8s.io/usage-cpu": "120m", "kwok.x-k8s.io/usage-memory": "64Mi",
    });
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy", "annotations": usage},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
}

#[tokio::test]
async fn an_overview_shows_what_pods_use_to_those_who_may_read_it() {
    let cluster = cluster::shared().await;
    let (mine, other) = tokio::join!(cluster.namespace("busy"), cluster.namespace("busy"));
    tokio::join!(busy(cluster, &mine), busy(cluster, &other));
    let person = Person::who_lists(cluster, &mine, &["pods"]).await;
    let poor = Person::new(cluster, &mine, "poor").await;
    let rules = json!([rule(&["list"], &["pods"])]);
    grant(cluster, Some(&mine), "poor", poor.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let own = format!("/api/v1/overview/{mine}");
    let both = format!("/api/v1/overview/{mine},{other}");
    for (token, path, pods) in
        [(admin, &own, 1), (admin, &both, 2), (&*person.token, &own, 1), (&*person.token, &both, 1)]
    {
        let memory = pods * (64_i64 << 20);
        let used = |body: &Value| body["capacity"]["memory"]["usage"] == memory;
        let body = until(&gateway, token, path, used).await;
        let cpu = body["capacity"]["cpu"]["usage"].as_i64().unwrap();
        assert!((60..=240).contains(&(cpu / pods)), "{body}");
    }
    let sees = |body: &Value| body["objects"]["pod"] == 1;
    let body = until(&gateway, &poor.token, &own, sees).await;
    for what in ["cpu", "memory"] {
        assert!(body["capacity"][what].get("usage").is_none(), "{body}");
    }
    let words = "pods.metrics.k8s.io is forbidden";
    assert!(body["errors"].to_string().contains(words), "{body}");
}

#[tokio::test]
async fn events_of_the_newer_api_are_seen_when_their_series_says() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("series").await;
    // No node is so: the scheduler says it by that API.
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stuck"},
        "spec": {"nodeSelector": {"disk": "none"},
            "containers": [{"name": "main", "image": "example.invalid/main"}]},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "again"}, "type": "Warning",
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "stuck"},
        "reason": "Strained", "message": "again", "action": "Watch",
        "reportingComponent": "example.org/clock", "reportingInstance": "clock-0",
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "series": {"count": 7, "lastObservedTime": "2031-05-06T07:08:09.123456Z"},
    });
    create(cluster, &format!("/api/v1/namespaces/{namespace}/events"), event).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let seen = |body: &Value, reason: &str| {
        let mut warnings = body["warnings"].as_array().unwrap().iter();
        warnings.find(|one| one["reason"] == reason).map(|one| one["lastSeen"].clone())
    };
    let both =
        |body: &Value| seen(body, "FailedScheduling").is_some() && seen(body, "Strained").is_some();
    let path = format!("/api/v1/overview/{namespace}");
    let body = until(&gateway, admin, &path, both).await;
    assert_eq!(seen(&body, "Strained"), Some(json!("2031-05-06T07:08:09Z")), "{body}");
    assert!(seen(&body, "FailedScheduling").unwrap().is_string(), "{body}");

    let newest = format!("/api/v1/event/{namespace}?sortBy=d,lastSeen");
    let list = ask(&gateway, admin, &newest).await.json();
    let first = &list["events"][0];
    let shown = ["reason", "count", "firstSeen", "lastSeen"].map(|key| first[key].clone());
    let times = ("2026-01-02T03:04:05Z", "2031-05-06T07:08:09Z");
    assert_eq!(json!(shown), json!(["Strained", 7, times.0, times.1]), "{list}");
    let mut events = list["events"].as_array().unwrap().iter();
    let failed = events.find(|one| one["reason"] == "FailedScheduling").unwrap();
    assert!(failed["lastSeen"].is_string() && failed["count"].as_u64() > Some(0), "{failed}");
}

#[tokio::test]
async fn an_overview_of_a_namespaces_reader_holds_nothing_else() {
    let cluster = cluster::shared().await;
    let (mine, other) = tokio::join!(cluster.namespace("ours"), cluster.namespace("theirs"));
    workload(cluster, &mine, "front", 1, "none").await;
    workload(cluster, &other, "sad", 1, "crash").await;
    let resources = ["pods", "deployments", "replicasets", "events"];
    let person = Person::who_lists(cluster, &mine, &resources).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let warned = |body: &Value| body["workloads"]["deployment"]["failed"] == 1;
    until(&gateway, admin, &format!("/api/v1/overview/{other}"), warned).await;
    let running = |body: &Value| body["workloads"]["pod"]["running"] == 1;
    let body = until(&gateway, &person.token, "/api/v1/overview", running).await;
    assert_eq!(body["objects"]["pod"], 1, "{body}");
    assert_eq!(body["workloads"]["deployment"]["failed"], 0, "{body}");
    assert_eq!(body["warnings"], json!([]), "{body}");
    assert!(body["capacity"].get("nodes").is_none(), "{body}");
    assert!(body["objects"].get("service").is_none() && body["objects"].get("node").is_none());
    let denied = body["errors"].to_string();
    assert!(denied.contains("services is forbidden") && denied.contains("nodes is forbidden"));
    assert!(!body.to_string().contains(other.as_str()), "{body}");
}

#[tokio::test]
async fn what_an_overview_leaves_out_of_replica_sets_is_named() {
    let cluster = cluster::shared().await;
    let (mine, other) = tokio::join!(cluster.namespace("ours"), cluster.namespace("theirs"));
    workload(cluster, &mine, "front", 1, "none").await;
    workload(cluster, &other, "front", 1, "none").await;
    let person = Person::who_lists(cluster, &mine, &["pods", "replicasets"]).await;
    let rules = listing(&["replicasets"]);
    grant(cluster, Some(&other), "sets", person.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/overview/{mine},{other}");
    let seen = |body: &Value| body["objects"]["replicaset"] == 2 && body["objects"]["pod"] == 1;
    let body = until(&gateway, &person.token, &path, seen).await;
    assert!(body["errors"].to_string().contains("\"pods is forbidden"), "{body}");
}

#[tokio::test]
async fn a_search_finds_names_labels_images_and_uids_of_permitted_rows_best_first() {
    let cluster = cluster::shared().await;
    let (mine, other) = tokio::join!(cluster.namespace("search"), cluster.namespace("search"));
    for namespace in [&mine, &other] {
        workload(cluster, namespace, "needle", 1, "none").await;
    }
    let person = Person::who_lists(cluster, &mine, &["pods", "deployments"]).await;
    let gateway = gateway::start(Options::default()).await;
    let path = "/api/v1/search?q=Needle&kinds=deployment,pod";
    let both = |body: &Value| body["items"].as_array().unwrap().len() == 2;
    let body = until(&gateway, &person.token, path, both).await;
    let shown: Vec<(&str, &str)> = { body["items"].as_array().unwrap().iter() }
        .map(|item| (item["kind"].as_str().unwrap(), item["match"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, [("deployment", "name"), ("pod", "name")], "{body}");
    assert_eq!(body["listMeta"]["totalItems"], 2, "{body}");
    assert!(!body.to_string().contains(&format!("\"{other}\"")), "{body}");
    let uid = body["items"][0]["objectMeta"]["uid"].as_str().unwrap();
    for (query, found) in
        [(format!("q={uid}"), "uid"), ("q=example.invalid%2Fmain&kinds=pod".to_owned(), "image")]
    {
        let answer = ask(&gateway, &person.token, &format!("/api/v1/search?{query}")).await;
        let body = answer.json();
        assert_eq!(body["items"][0]["match"], found, "{query}: {body}");
    }
    let image = "example.invalid/tool:V1-RC2";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "thread"},
        "spec": {"containers": [{"name": "main", "image": image}]}});
    create(cluster, &format!("/api/v1/namespaces/{mine}/pods"), pod).await;
    for text in ["tool:V1-RC2", "tool:v1-rc2"] {
        let path = format!("/api/v1/search?q={text}&kinds=pod");
        let found = |body: &Value| body["listMeta"]["totalItems"] == 1;
        let body = until(&gateway, &person.token, &path, found).await;
        let (item, name) = (&body["items"][0], &body["items"][0]["objectMeta"]["name"]);
        assert_eq!((name, &item["match"]), (&json!("thread"), &json!("image")), "{body}");
    }
    for bad in ["", "?q=x", "?q=needle&kinds=gadget", "?q=needle&namespace=A_B"] {
        let answer = ask(&gateway, &person.token, &format!("/api/v1/search{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
}

#[tokio::test]
async fn who_may_not_list_namespaces_gets_those_with_rights_in_them() {
    let cluster = cluster::shared().await;
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(cluster.namespace("own").await);
    }
    let person = Person::who_lists(cluster, &names[0], &["pods"]).await;
    let mut rules = listing(&["configmaps"]);
    rules.as_array_mut().unwrap().push(rule(&["get"], &["namespaces"]));
    grant(cluster, Some(&names[1]), "own", person.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    let own = Names::from([&names[0], &names[1]].map(|name| (String::new(), name.clone())));
    let theirs = |body: &Value| rows(body, "namespaces") == own;
    let body = until(&gateway, &person.token, "/api/v1/namespace?sortBy=a,name", theirs).await;
    assert_eq!(body["errors"], json!([]), "{body}");
    let phase = |name: &str| {
        let mut all = body["namespaces"].as_array().unwrap().iter();
        all.find(|row| row["objectMeta"]["name"] == name).unwrap()["phase"].clone()
    };
    assert_eq!((phase(&names[0]), phase(&names[1])), (json!(""), json!("Active")), "{body}");
    let its_label = format!("labelSelector=kubernetes.io/metadata.name={}", names[1]);
    let by_name = format!("filterBy=name,{}", names[1]);
    for query in [&by_name, &its_label, &format!("{by_name}&{its_label}")] {
        let path = format!("/api/v1/namespace?{query}");
        let body = ask(&gateway, &person.token, &path).await.json();
        assert_eq!(body["listMeta"]["totalItems"], 1, "{query}: {body}");
        assert_eq!(body["namespaces"][0]["phase"], "Active", "{query}: {body}");
        assert_eq!(body["errors"], json!([]), "{query}: {body}");
    }
    // Of the other one no time is known.
    let newest = "/api/v1/namespace?sortBy=d,creationTimestamp";
    let body = ask(&gateway, &person.token, newest).await.json();
    assert_eq!(body["namespaces"][0]["objectMeta"]["name"], names[1].as_str(), "{body}");
}

#[tokio::test]
async fn more_own_namespaces_than_are_read_stand_in_the_order_of_their_names_and_that_is_said() {
    let (front, _demo) = Front::demo(0).await;
    let names: Vec<String> = (0..51).map(|number| format!("crowd-{number:02}")).collect();
    let binding = json!({
        "metadata": {"name": "team"}, "subjects": [user("demo-team")],
        "roleRef": {"kind": "ClusterRole", "name": "view"},
    });
    let (api, binding) = (&front.api, &binding);
    let made = names.iter().map(|name| async move {
        api.create("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
        api.create(&bindings(Some(name)), binding).await;
    });
    join_all(made).await;
    let get = async |path: &str| front.get_as("demo-team-token", path).await.json();
    let oldest = "/api/v1/namespace?itemsPerPage=10&page=1&sortBy=a,creationTimestamp";
    // Those, and the two that the team has anyway.
    let all_known = || async { get(oldest).await["listMeta"]["totalItems"] == 53 };
    Cluster::eventually("all namespaces are known", all_known).await;
    let list = get(oldest).await;
    let shown = list["namespaces"].as_array().unwrap();
    let order: Vec<&str> =
        shown.iter().map(|row| row["objectMeta"]["name"].as_str().unwrap()).collect();
    assert_eq!(order, names[..10], "{list}");
    assert!(shown.iter().all(|row| row["phase"] == "Active"), "{list}");
    assert_eq!(list["errors"][0]["ErrStatus"]["code"], 413, "{list}");
    let fewer = get(&format!("{oldest}&filterBy=name,crowd-4")).await;
    assert_eq!(fewer["listMeta"]["totalItems"], 10, "{fewer}");
    assert_eq!(fewer["errors"], json!([]), "{fewer}");
}

#[tokio::test]
async fn references_forged_in_another_namespace_move_no_number() {
    let cluster = cluster::shared().await;
    let (mine, other) = tokio::join!(cluster.namespace("honest"), cluster.namespace("forger"));
    workload(cluster, &mine, "front", 1, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let running = |body: &Value| body["replicaSets"][0]["podInfo"]["running"] == 1;
    let list = until(&gateway, admin, &format!("/api/v1/replicaset/{mine}"), running).await;
    let set = &list["replicaSets"][0]["objectMeta"];
    let owner = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set["name"], "uid": set["uid"],
        "controller": true,
    });
    // Pods of a gate do not start, so that the garbage collector is the only one who acts on it.
    let forged = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "forged", "ownerReferences": [owner], "finalizers": ["test.binnacle/stay"]},
        "spec": {"schedulingGates": [{"name": "test.binnacle/gate"}],
            "containers": [{"name": "main", "image": "example.invalid/main"}]},
    });
    create(cluster, &format!("/api/v1/namespaces/{other}/pods"), forged).await;
    let seen = |body: &Value| body["listMeta"]["totalItems"] == 1;
    until(&gateway, admin, &format!("/api/v1/pod/{other}"), seen).await;
    for (kind, items, info) in
        [("replicaset", "replicaSets", "podInfo"), ("deployment", "deployments", "pods")]
    {
        let path = format!("/api/v1/{kind}?filterBy==namespace,{mine}");
        let body = ask(&gateway, admin, &path).await.json();
        let shown = &body[items][0][info];
        assert_eq!((&shown["pending"], &shown["running"]), (&json!(0), &json!(1)), "{body}");
    }
    let patch = json!({"metadata": {"finalizers": null}}).to_string();
    let headers = [("content-type", "application/merge-patch+json")];
    let path = format!("/api/v1/namespaces/{other}/pods/forged");
    let (status, _, _) = cluster.request(http::Method::PATCH, admin, &path, &headers, patch).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn bad_credentials_are_a_401_also_where_shared_knowledge_could_answer() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("badtoken").await;
    pod(cluster, &namespace, "one", "none").await;
    let gateway = gateway::start(Options::default()).await;
    for path in [
        "/api/v1/overview",
        "/api/v1/search?q=one",
        "/api/v1/crd/x/gadgets.example.org/object",
        "/api/v1/scale/gadget/x/y",
        "/api/v1/_raw/gadget/name/x",
    ] {
        // As admin first: what that taught us is no answer for others.
        ask(&gateway, cluster.token("admin"), path).await;
        let answer = ask(&gateway, "made-up", path).await;
        assert_eq!(answer.status, 401, "{path}: {}", answer.text());
    }
}

//! Lists as their reader gets them, on the real control plane: content, joins, headers, the query
//! grammar, freshness.
//! It is NOT where rights are tested (`rights.rs`), nor details, child lists or the passthrough.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, ask, delete, pod, workload};

/// Until a test gives up waiting; never how long anything should take.
pub const DEADLINE: Duration = Duration::from_secs(90);
pub const POLL: Duration = Duration::from_millis(50);
/// The kinds that have namespaces, with the key of their lists' items.
pub const NAMESPACED: [(&str, &str); 5] = [
    ("pod", "pods"),
    ("deployment", "deployments"),
    ("replicaset", "replicaSets"),
    ("service", "services"),
    ("event", "events"),
];

/// Namespace and name.
pub type Names = BTreeSet<(String, String)>;

/// The rows of a list.
pub fn rows(list: &Value, items: &str) -> Names {
    let text = |row: &Value, key: &str| row["objectMeta"][key].as_str().unwrap_or("").to_owned();
    let all = list[items].as_array().unwrap_or_else(|| panic!("no {items}: {list}"));
    all.iter().map(|row| (text(row, "namespace"), text(row, "name"))).collect()
}

/// A page of pods in its order, and how many there are in all: `a b of 5`.
fn page(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json();
    let rows = list["pods"].as_array().unwrap().iter();
    let names: Vec<&str> = rows.map(|row| row["objectMeta"]["name"].as_str().unwrap()).collect();
    format!("{} of {}", names.join(" "), list["listMeta"]["totalItems"])
}

/// Waits until the admin's answer to `path` is as wanted.
async fn until(gateway: &Gateway, path: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = gateway.get("admin", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let list = answer.json();
        if ready(&list) {
            return list;
        }
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain, {path}: {list}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn each_kind_is_listed_with_its_total_and_says_where_it_came_from() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("kinds").await;
    workload(cluster, &namespace, "web", 1, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let of_namespace = NAMESPACED.map(|(kind, items)| (format!("{kind}/{namespace}"), items));
    let of_cluster = [("node".to_owned(), "nodes"), ("namespace".to_owned(), "namespaces")];
    for (path, items) in of_namespace.into_iter().chain(of_cluster) {
        let path = format!("/api/v1/{path}");
        let list = until(&gateway, &path, |list| !rows(list, items).is_empty()).await;
        let count = list[items].as_array().unwrap().len();
        assert_eq!(list["listMeta"]["totalItems"], count, "{list}");
        assert_eq!(list["errors"], json!([]), "{list}");

        let answer = gateway.get("admin", &path).await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("binnacle-source"), "cache", "{path}");
        assert_eq!(answer.header("binnacle-age"), "0.000", "{path}");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert!(answer.header("etag").starts_with('"'), "{:?}", answer.headers);
        let vary = answer.header("vary").to_lowercase();
        for name in ["authorization", "cookie", "accept-language", "impersonate-user"] {
            assert!(vary.contains(name), "Vary: {vary}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_the_client_has_already_is_a_304_without_a_body() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("etag").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/service/{namespace}");
    until(&gateway, &path, |list| list["listMeta"]["totalItems"] == 1).await;
    let first = gateway.get("admin", &path).await;
    let tag = first.header("etag").to_owned();
    let again = async |known: &str| {
        let headers = [("if-none-match", known)];
        gateway.request(Method::GET, Some("admin"), &path, &headers, Vec::new()).await
    };
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let answer = again(known.as_str()).await;
        assert_eq!((answer.status, answer.text().as_str()), (304, ""), "{known}");
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
    assert_eq!(again("\"other\"").await.status, 200);
    // The same address with other rights is another answer.
    let headers = [("if-none-match", tag.as_str())];
    let other = gateway.request(Method::GET, Some("nobody"), &path, &headers, Vec::new()).await;
    assert_eq!(other.status, 200);
    workload(cluster, &namespace, "api", 0, "none").await;
    until(&gateway, &path, |list| list["listMeta"]["totalItems"] == 2).await;
    assert_eq!(again(tag.as_str()).await.status, 200);
}

#[tokio::test]
async fn troubled_pods_show_their_warnings_and_deployments_what_becomes_of_their_pods() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("joins").await;
    for fate in ["none", "crash", "pending"] {
        pod(cluster, &namespace, fate, fate).await;
    }
    workload(cluster, &namespace, "good", 2, "none").await;
    workload(cluster, &namespace, "bad", 1, "crash").await;
    let gateway = gateway::start(Options::default()).await;

    for (name, reason) in [("crash", "BackOff"), ("pending", "Failed")] {
        let path = format!("/api/v1/pod/{namespace}?filterBy=name,{name}&sortBy=a,name");
        let warned = |list: &Value| list["pods"].to_string().contains(&format!("\"{reason}\""));
        let list = until(&gateway, &path, warned).await;
        let own = list["pods"].as_array().unwrap();
        let own = own.iter().find(|row| row["objectMeta"]["name"] == name).unwrap();
        let reasons: Vec<&Value> =
            own["warnings"].as_array().unwrap().iter().map(|warning| &warning["reason"]).collect();
        assert_eq!(reasons, [reason], "{own}");
        assert_eq!(own["warnings"][0]["type"], "Warning", "{own}");
    }
    let path = format!("/api/v1/pod/{namespace}?filterBy=name,none");
    let list = until(&gateway, &path, |list| list["pods"][0]["status"] == "Running").await;
    assert_eq!(list["pods"][0]["warnings"], json!([]), "{list}");

    let path = format!("/api/v1/deployment/{namespace}?sortBy=a,name");
    let settled = |list: &Value| {
        let (bad, good) = (&list["deployments"][0]["pods"], &list["deployments"][1]["pods"]);
        bad["warnings"][0]["reason"] == "BackOff" && good["running"] == 2 && good["current"] == 2
    };
    let list = until(&gateway, &path, settled).await;
    let expected = json!({
        "current": 2, "desired": 2, "running": 2, "pending": 0, "failed": 0, "succeeded": 0,
        "warnings": [],
    });
    assert_eq!(list["deployments"][1]["pods"], expected);
    assert_eq!(list["status"]["failed"], 1, "{list}");
    assert_eq!(list["status"]["running"], 1, "{list}");
}

/// An answer of the API server itself.
async fn read(cluster: &Cluster, path: &str) -> Value {
    serde_json::from_slice(&cluster.get(cluster.token("admin"), path).await.2).unwrap()
}

#[tokio::test]
async fn nodes_show_what_their_pods_ask_for() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("allocation").await;
    pod(cluster, &namespace, "asking", "none").await;
    let gateway = gateway::start(Options::default()).await;
    let own = format!("/api/v1/pod/{namespace}");
    until(&gateway, &own, |list| list["status"]["running"] == 1).await;
    let as_counted = async || {
        let all = read(cluster, "/api/v1/pods").await;
        let pods = all["items"].as_array().unwrap().iter();
        let going = pods.filter(|pod| {
            let phase = &pod["status"]["phase"];
            phase != "Succeeded" && phase != "Failed"
        });
        let nodes: Vec<&str> = going.filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        let list = gateway.get("admin", "/api/v1/node").await.json();
        let shown = list["nodes"].as_array().unwrap();
        !nodes.is_empty()
            && shown.iter().all(|node| {
                let here = nodes.iter().filter(|name| node["objectMeta"]["name"] == **name);
                node["allocatedResources"]["allocatedPods"] == here.count()
            })
    };
    // Other tests make pods meanwhile: at some moment both have counted the same.
    let what = "the pods of each node are counted as the API server lists them";
    let begun = Instant::now();
    while !as_counted().await {
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
    let asking = read(cluster, &format!("/api/v1/namespaces/{namespace}/pods/asking")).await;
    let home = asking["spec"]["nodeName"].as_str().unwrap();
    let node = read(cluster, &format!("/api/v1/nodes/{home}")).await;
    let list = gateway.get("admin", &format!("/api/v1/node?filterBy=name,{home}")).await.json();
    let allocated = &list["nodes"][0]["allocatedResources"];
    assert!(allocated["cpuRequests"].as_i64().unwrap() >= 100, "{allocated}");
    assert!(allocated["memoryRequests"].as_i64().unwrap() >= 64 << 20, "{allocated}");
    let capacity = node["status"]["capacity"]["pods"].as_str().unwrap();
    assert_eq!(allocated["podCapacity"].to_string(), capacity);
}

#[tokio::test]
async fn lists_are_paged_sorted_and_filtered_over_the_namespaces_of_the_path() {
    let cluster = cluster::shared().await;
    let (a, b) = (cluster.namespace("page").await, cluster.namespace("page").await);
    for number in 0..5 {
        pod(cluster, &a, &format!("p-{number}"), "none").await;
    }
    pod(cluster, &b, "other", "none").await;
    let gateway = gateway::start(Options::default()).await;
    let both = format!("/api/v1/pod/{a},{b}");
    until(&gateway, &both, |list| list["status"]["running"] == 6).await;

    let pages = [
        ("itemsPerPage=2&page=2&sortBy=a,name", "p-2 p-3 of 5"),
        ("itemsPerPage=2&page=1&sortBy=d,name", "p-4 p-3 of 5"),
        ("itemsPerPage=2&page=3&sortBy=a,status,a,name", "p-4 of 5"),
        ("itemsPerPage=2&page=9&sortBy=a,name", " of 5"),
        ("itemsPerPage=0&page=1", " of 5"),
        ("filterBy=name,p-3", "p-3 of 1"),
        ("filterBy=status,Runn,name,-1", "p-1 of 1"),
        ("filterBy=status,running", " of 0"),
    ];
    for (query, shown) in pages {
        let answer = gateway.get("admin", &format!("/api/v1/pod/{a}?{query}")).await;
        assert_eq!(page(&answer), shown, "{query}");
        assert_eq!(answer.header("warning"), "", "{query}");
    }
    let newest = format!("{both}?sortBy=d,creationTimestamp");
    let list = gateway.get("admin", &newest).await.json();
    let made = list["pods"].as_array().unwrap().iter();
    let made: Vec<_> =
        made.map(|row| row["objectMeta"]["creationTimestamp"].as_str().unwrap()).collect();
    assert!(made.is_sorted_by(|a, b| a >= b) && made.len() == 6, "{made:?}");

    for segment in [format!("{a},%20{b}"), format!(",{b},,{a},{a}"), format!("%20{a}%20,{b}/")] {
        let list = gateway.get("admin", &format!("/api/v1/pod/{segment}")).await.json();
        assert_eq!(rows(&list, "pods").len(), 6, "{segment}: {list}");
        assert_eq!(list["listMeta"]["totalItems"], 6);
    }
    for path in ["/api/v1/pod", "/api/v1/pod/", "/api/v1/pod/%20", "/api/v1/pod/,"] {
        let list = gateway.get("admin", path).await.json();
        let (all, own) = (rows(&list, "pods"), [(a.clone(), "p-0"), (b.clone(), "other")]);
        for (namespace, name) in own {
            assert!(all.contains(&(namespace, name.into())), "{path}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_understood_is_ignored_with_a_warning_and_an_unknown_filter_is_refused() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("odd").await;
    pod(cluster, &namespace, "one", "none").await;
    pod(cluster, &namespace, "two", "none").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/pod/{namespace}");
    until(&gateway, &path, |list| list["listMeta"]["totalItems"] == 2).await;
    let odd = [
        ("sortBy=a,colour,d,name", "colour"),
        ("sortBy=a,name,d", "sortBy"),
        ("sortBy=up,name", "sortBy"),
        ("filterBy=name", "filterBy"),
        ("itemsPerPage=x&page=1", "itemsPerPage"),
        ("itemsPerPage=1&page=0", "itemsPerPage"),
    ];
    for (query, named) in odd {
        let answer = gateway.get("admin", &format!("{path}?{query}")).await;
        assert_eq!(page(&answer), "one two of 2", "{query}");
        let warning = answer.header("warning");
        assert!(warning.starts_with("299 ") && warning.contains(named), "{query}: {warning}");
    }
    for column in ["colour", "Name"] {
        let answer = gateway.get("admin", &format!("{path}?filterBy={column},red")).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        let text = answer.text();
        assert!(
            text.contains(column) && text.contains("name, namespace, creationTimestamp, status"),
            "{text}"
        );
    }
    // More namespaces than are looked into are not cut in silence.
    let names: Vec<String> = (0..=1_000).map(|at| format!("n{at}")).collect();
    let names = names.join(",");
    for path in [format!("pod/{names}"), format!("crd/{names}/odd.example.org/object")] {
        let answer = gateway.get("admin", &format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("1000 namespaces"), "{}", answer.text());
    }
}

#[tokio::test]
async fn events_are_filtered_by_their_columns_like_every_kind() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("filtered-events").await;
    pod(cluster, &namespace, "sad", "crash").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/event/{namespace}");
    let reasons = |list: &Value| -> BTreeSet<String> {
        let events = list["events"].as_array().unwrap().iter();
        events.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    };
    let is_there = |list: &Value| {
        let found = reasons(list);
        found.contains("BackOff") && found.contains("Scheduled")
    };
    until(&gateway, &path, is_there).await;
    let filtered = async |filter: &str| {
        reasons(&gateway.get("admin", &format!("{path}?filterBy={filter}")).await.json())
    };
    assert_eq!(filtered("reason,BackOff").await, BTreeSet::from(["BackOff".to_owned()]));
    let others = filtered("!reason,BackOff").await;
    assert!(others.contains("Scheduled") && !others.contains("BackOff"), "{others:?}");
    for path in [path.clone(), format!("/api/v1/pod/{namespace}/sad/event")] {
        let answer = gateway.get("admin", &format!("{path}?filterBy=colour,red")).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.text().contains("lastSeen, reason"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_created_pod_appears_and_a_deleted_one_goes() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/pod/{namespace}");
    until(&gateway, &path, |list| list["listMeta"]["totalItems"] == 0).await;
    pod(cluster, &namespace, "brief", "none").await;
    until(&gateway, &path, |list| list["listMeta"]["totalItems"] == 1).await;
    let object = format!("/api/v1/namespaces/{namespace}/pods/brief?gracePeriodSeconds=0");
    delete(cluster, &object).await;
    let list = until(&gateway, &path, |list| list["listMeta"]["totalItems"] == 0).await;
    assert_eq!(list["errors"], json!([]), "{list}");
}

#[tokio::test]
async fn a_gateway_that_may_not_watch_serves_each_caller_live() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("unwatched").await;
    pod(cluster, &namespace, "own", "none").await;
    let person = Person::who_lists(cluster, &namespace, &["pods", "events"]).await;
    let extra = vec!["--namespaces".to_owned(), namespace.clone()];
    let options = Options { server_user: "user-4", extra, ..Options::default() };
    let gateway = gateway::start(options).await;
    for path in ["/api/v1/pod".to_owned(), format!("/api/v1/pod/{namespace}")] {
        let sees = async || {
            let answer = ask(&gateway, &person.token, &path).await;
            assert_eq!(answer.header("binnacle-source"), "live", "{path}");
            let own = (namespace.clone(), "own".to_owned());
            let list = answer.json();
            rows(&list, "pods") == Names::from([own]) && list["errors"] == json!([])
        };
        // Its rights are known to the API server a moment after they are given.
        let begun = Instant::now();
        while !sees().await {
            assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {path}");
            tokio::time::sleep(POLL).await;
        }
    }
    let nodes = gateway.get("admin", "/api/v1/node").await;
    assert_eq!(nodes.header("binnacle-source"), "live");
    // Other tests may have a node of their own for a while.
    assert!(nodes.json()["listMeta"]["totalItems"].as_u64().unwrap() >= 3);
    let all = until(&gateway, "/api/v1/pod", |list| !rows(list, "pods").is_empty()).await;
    assert_eq!(all["errors"], json!([]));
}

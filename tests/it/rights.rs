//! Who sees what: the real RBAC decides, and a gateway with the shared cache gives the same bytes
//! as one that lists live as the user. What is derived from other kinds obeys their own rights.
//!
//! It is NOT where the content of rows, headers or the query grammar are tested (`reads.rs`).

use std::time::Instant;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::people::{Person, ask, bindings, delete, grant, listing, pod, rule, user, workload};
use crate::reads::{DEADLINE, NAMESPACED, Names, POLL, rows};

/// A gateway with the shared cache and one without.
struct Both {
    cached: Gateway,
    live: Gateway,
}

impl Both {
    /// `namespaces`: those that the live one is told of, since it watches none.
    async fn start(namespaces: &[&str]) -> Both {
        let extra = vec!["--namespaces".to_owned(), namespaces.join(",")];
        let live = Options { shared_cache: false, extra, ..Options::default() };
        let (cached, live) = tokio::join!(gateway::start(Options::default()), gateway::start(live));
        Both { cached, live }
    }

    /// The list that both give, once they give the same bytes, but for usage, and `ready` likes it.
    async fn agree(&self, token: &str, path: &str, ready: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let (cached, live) =
                tokio::join!(ask(&self.cached, token, path), ask(&self.live, token, path));
            let texts = format!("{path}:\ncached: {}\nlive:   {}", cached.text(), live.text());
            assert_eq!((cached.status, live.status), (200, 200), "{texts}");
            assert_eq!(live.header("binnacle-source"), "live", "{texts}");
            let body = cached.json();
            let same = without_usage(&cached.text()) == without_usage(&live.text());
            if same && ready(&body) {
                return body;
            }
            assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {texts}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The text without the values of usage, which has a history in the shared cache and one point
/// where it is read live. Within a string the quotes of a key would be escaped.
fn without_usage(list: &str) -> String {
    let (mut kept, mut rest) = (String::new(), list);
    let end_of = |key: &str, text: &str| text.find(key).map(|at| at + key.len());
    let keys = ["\"metrics\":", "\"cumulativeMetrics\":"];
    while let Some(end) = keys.iter().filter_map(|key| end_of(key, rest)).min() {
        let (before, tail) = rest.split_at(end);
        kept.push_str(before);
        let mut values = serde_json::Deserializer::from_str(tail).into_iter::<IgnoredAny>();
        values.next().unwrap().unwrap();
        rest = &tail[values.byte_offset()..];
    }
    kept + rest
}

#[test]
fn all_of_a_list_is_compared_but_usage() {
    let list = r#"{"pods":[{"n":"\"metrics\":1","metrics":{"b":["]"]}}],"cumulativeMetrics":null}"#;
    let rest = r#"{"pods":[{"n":"\"metrics\":1","metrics":}],"cumulativeMetrics":}"#;
    assert_eq!(without_usage(list), rest);
}

fn within(list: &Value, items: &str, namespace: &str) -> bool {
    rows(list, items).iter().all(|(of, _)| of == namespace)
}

fn within_names(list: &Value, namespace: &str) -> bool {
    rows(list, "namespaces").into_iter().eq([(String::new(), namespace.to_owned())])
}

fn errors(list: &Value) -> Vec<&str> {
    let errors = list["errors"].as_array().unwrap().iter();
    errors.map(|error| error["ErrStatus"]["message"].as_str().unwrap()).collect()
}

/// No rows, and the first error is a refusal of these.
fn is_denied(list: &Value, items: &str, plural: &str) -> bool {
    list[items] == json!([])
        && list["listMeta"]["totalItems"] == 0
        && list["errors"][0]["ErrStatus"]["code"] == 403
        && errors(list)[0].starts_with(plural)
        && errors(list)[0].contains(" is forbidden: User \"")
}

#[tokio::test]
async fn rights_in_one_namespace_give_exactly_its_rows_cached_and_live() {
    let cluster = cluster::shared().await;
    let (a, b) = (cluster.namespace("mine").await, cluster.namespace("theirs").await);
    for namespace in [&a, &b] {
        workload(cluster, namespace, "web", 1, "none").await;
        pod(cluster, namespace, "sad", "crash").await;
    }
    let resources = ["pods", "deployments", "replicasets", "services", "events"];
    let person = Person::who_lists(cluster, &a, &resources).await;
    let both = Both::start(&[&a, &b]).await;
    let token = &person.token;

    let running = |list: &Value| list["status"]["running"] == 1 && list["status"]["failed"] == 1;
    both.agree(token, &format!("/api/v1/pod/{a}"), running).await;
    for (kind, items) in NAMESPACED {
        let least = if kind == "pod" { 2 } else { 1 };
        let whole = |list: &Value| rows(list, items).len() >= least && errors(list).is_empty();
        let one = both.agree(token, &format!("/api/v1/{kind}/{a}"), whole).await;
        assert!(within(&one, items, &a), "{one}");
        let plural = items.to_lowercase();
        // What is denied of namespaces that were named is said, and nothing of all the others.
        let (all, named) = (["".into(), "/%20".into()], [format!("/{a},{b}"), format!("/{b},{a}")]);
        for (segment, refused) in all.map(|all| (all, 0)).into_iter().chain(named.map(|n| (n, 1))) {
            let path = format!("/api/v1/{kind}{segment}");
            let told =
                |list: &Value| rows(list, items).len() >= least && errors(list).len() == refused;
            let list = both.agree(token, &path, told).await;
            assert!(errors(&list).iter().all(|words| words.starts_with(&plural)), "{list}");
            assert!(within(&list, items, &a), "{path}: {list}");
            assert_eq!(list["listMeta"]["totalItems"], rows(&list, items).len(), "{list}");
        }
        let denied = |list: &Value| is_denied(list, items, &plural);
        let other = both.agree(token, &format!("/api/v1/{kind}/{b}"), denied).await;
        assert!(errors(&other)[0].contains(&format!("in the namespace \"{b}\"")), "{other}");
    }
    let cached = ask(&both.cached, token, &format!("/api/v1/pod/{a}")).await;
    assert_eq!(cached.header("binnacle-source"), "cache");
}

#[tokio::test]
async fn a_reader_of_the_cluster_sees_nodes_and_namespaces_and_counts_only_pods_of_its_own() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("nodes").await;
    pod(cluster, &namespace, "one", "none").await;
    let reader = Person::new(cluster, &namespace, "reader").await;
    let rules = listing(&["nodes", "namespaces", "pods"]);
    grant(cluster, None, &format!("{namespace}-reader"), reader.subject.clone(), rules).await;
    // May list pods, but not those of all namespaces, which the allocation of a node adds up.
    let part = Person::who_lists(cluster, &namespace, &["pods"]).await;
    let rules = listing(&["nodes"]);
    grant(cluster, None, &format!("{namespace}-part"), part.subject.clone(), rules).await;
    let both = Both::start(&[&namespace]).await;

    let has = |list: &Value| rows(list, "namespaces").contains(&(String::new(), namespace.clone()));
    let list = both.agree(&reader.token, "/api/v1/namespace", has).await;
    assert!(errors(&list).is_empty(), "{list}");
    let pods = |node: &Value| node["allocatedResources"]["allocatedPods"].as_u64().unwrap();
    let counted = |list: &Value| {
        let nodes = list["nodes"].as_array().unwrap();
        nodes.len() >= 3 && nodes.iter().map(pods).sum::<u64>() > 0 && errors(list).is_empty()
    };
    both.agree(&reader.token, "/api/v1/node", counted).await;
    let three = |list: &Value| rows(list, "nodes").len() >= 3;
    let list = both.agree(&part.token, "/api/v1/node", three).await;
    for node in list["nodes"].as_array().unwrap() {
        assert_eq!(pods(node), 0, "{node}");
        assert_eq!(node["allocatedResources"]["cpuRequests"], 0, "{node}");
    }
    assert!(errors(&list).iter().any(|words| words.starts_with("pods is forbidden")), "{list}");
    // Not the right to list namespaces, but one in which it has rights.
    let own = |list: &Value| within_names(list, &namespace) && errors(list).is_empty();
    both.agree(&part.token, "/api/v1/namespace", own).await;
}

#[tokio::test]
async fn a_right_to_one_kind_everywhere_names_the_namespaces_of_its_rows_and_no_others() {
    let cluster = cluster::shared().await;
    let (some, none) = (cluster.namespace("some").await, cluster.namespace("none").await);
    let account = cluster.namespace("account").await;
    pod(cluster, &some, "one", "none").await;
    let person = Person::new(cluster, &account, "person").await;
    let rules = listing(&["pods"]);
    grant(cluster, None, &format!("{account}-person"), person.subject.clone(), rules).await;
    let gateway = gateway::start(Options::default()).await;
    until(&gateway, &person.token, "/api/v1/namespace?itemsPerPage=10000", |list| {
        let names = rows(list, "namespaces");
        let has = |name: &String| names.contains(&(String::new(), name.clone()));
        assert!(!has(&none) && !has(&account), "nothing of theirs is there: {list}");
        has(&some)
    })
    .await;
}

#[tokio::test]
async fn who_may_list_pods_but_not_events_sees_no_warning_and_no_number_made_of_one() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("noevents").await;
    pod(cluster, &namespace, "sad", "crash").await;
    let person = Person::who_lists(cluster, &namespace, &["pods"]).await;
    let both = Both::start(&[&namespace]).await;
    let admin = cluster.token("admin");
    let one = format!("/api/v1/pod/{namespace}");
    let warned = |list: &Value| list["pods"][0]["warnings"][0]["reason"] == "BackOff";
    let all = both.agree(admin, &one, warned).await;
    assert_eq!(all["status"]["failed"], 1, "{all}");
    for path in [one.as_str(), "/api/v1/pod"] {
        let seen = |list: &Value| rows(list, "pods").len() == 1;
        let list = both.agree(&person.token, path, seen).await;
        assert_eq!(list["pods"][0]["warnings"], json!([]), "{list}");
        assert_eq!(list["status"]["failed"], 0, "{list}");
        let words = errors(&list);
        assert!(words.len() == 1 && words[0].starts_with("events is forbidden"), "{words:?}");
        assert_eq!(list["errors"][0]["ErrStatus"]["code"], 403);
    }
}

#[tokio::test]
async fn what_is_left_out_of_some_namespaces_only_is_named_too() {
    let cluster = cluster::shared().await;
    let (a, b) = (cluster.namespace("heard").await, cluster.namespace("unheard").await);
    for namespace in [&a, &b] {
        pod(cluster, namespace, "sad", "crash").await;
    }
    let person = Person::who_lists(cluster, &a, &["events"]).await;
    let rules = listing(&["pods"]);
    grant(cluster, None, &format!("{a}-person"), person.subject.clone(), rules).await;
    let both = Both::start(&[&a, &b]).await;
    let warned = |list: &Value, namespace: &String| {
        let pods = list["pods"].as_array().unwrap().iter();
        let mut pods = pods.filter(|pod| pod["objectMeta"]["namespace"] == namespace.as_str());
        pods.any(|pod| pod["warnings"] != json!([]))
    };
    let named = |list: &Value| {
        let words = errors(list);
        words.len() == 1
            && words[0].starts_with("events is forbidden")
            && words[0].contains("at the cluster scope")
    };
    let part = |list: &Value| rows(list, "pods").len() == 2 && warned(list, &a) && named(list);
    let list = both.agree(&person.token, &format!("/api/v1/pod/{a},{b}"), part).await;
    assert!(!warned(&list, &b), "{list}");
    assert_eq!(list["status"]["failed"], 1, "{list}");
    // Of all namespaces, too; and nothing where nothing is left out.
    until(&both.cached, &person.token, "/api/v1/pod?itemsPerPage=1&page=1", named).await;
    let whole = |list: &Value| warned(list, &a) && errors(list).is_empty();
    both.agree(&person.token, &format!("/api/v1/pod/{a}"), whole).await;
}

#[tokio::test]
async fn who_may_list_deployments_but_not_pods_sees_no_number_made_of_pods() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("nopods").await;
    workload(cluster, &namespace, "web", 2, "crash").await;
    let resources = ["deployments", "replicasets", "events"];
    let person = Person::who_lists(cluster, &namespace, &resources).await;
    let both = Both::start(&[&namespace]).await;
    for (kind, items, info) in
        [("deployment", "deployments", "pods"), ("replicaset", "replicaSets", "podInfo")]
    {
        let one = format!("/api/v1/{kind}/{namespace}");
        let warned = |list: &Value| list[items][0][info]["warnings"][0]["reason"] == "BackOff";
        let all = both.agree(cluster.token("admin"), &one, warned).await;
        assert_eq!(all["status"]["failed"], 1, "{all}");
        for path in [one, format!("/api/v1/{kind}")] {
            let seen = |list: &Value| rows(list, items).len() == 1;
            let list = both.agree(&person.token, &path, seen).await;
            let shown = &list[items][0][info];
            for key in ["running", "pending", "failed", "succeeded"] {
                assert_eq!(shown[key], 0, "{key} of {list}");
            }
            assert_eq!(shown["warnings"], json!([]), "{list}");
            assert_eq!(shown["desired"], 2, "{list}");
            assert_eq!(list["status"]["failed"], 0, "{list}");
            assert_eq!(list["status"]["pending"], 0, "{list}");
            let words = errors(&list);
            // Neither the pods nor their usage.
            assert!(words.len() == 2 && words[0].starts_with("pods is forbidden"), "{words:?}");
            assert!(words[1].starts_with("pods.metrics.k8s.io is forbidden"), "{words:?}");
        }
    }
}

#[tokio::test]
async fn who_may_nothing_gets_empty_lists_with_the_api_servers_own_words() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("denied").await;
    pod(cluster, &namespace, "one", "none").await;
    let both = Both::start(&[&namespace]).await;
    let token = cluster.token("nobody");
    let refusal = async |path: &str| {
        let (status, _, body) = cluster.get(token, path).await;
        let said: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 403, "{said}");
        said["message"].as_str().unwrap().to_owned()
    };
    let here = format!("/api/v1/namespaces/{namespace}/pods");
    let refusals = [refusal("/api/v1/pods").await, refusal(here.as_str()).await];
    let paths = ["/api/v1/pod".to_owned(), format!("/api/v1/pod/{namespace}")];
    for (path, words) in paths.into_iter().zip(refusals) {
        let said = "pods is forbidden: User \"nobody\" cannot list resource \"pods\"";
        assert!(words.starts_with(said), "{words}");
        let list = both.agree(token, &path, |list| is_denied(list, "pods", "pods")).await;
        assert_eq!(errors(&list)[0], words);
        let status = &list["status"];
        assert!(status.as_object().unwrap().values().all(|count| count == 0), "{status}");
    }
    for kind in ["node", "namespace", "deployment", "replicaset", "service", "event"] {
        let list = both.agree(token, &format!("/api/v1/{kind}"), |_| true).await;
        assert_eq!(list["listMeta"]["totalItems"], 0, "{list}");
        assert!(errors(&list)[0].contains("is forbidden: User \"nobody\""), "{list}");
    }
    for gateway in [&both.cached, &both.live] {
        for path in ["/api/v1/pod".to_owned(), format!("/api/v1/event/{namespace}")] {
            let answer = ask(gateway, "no-such-token", &path).await;
            assert_eq!(answer.status, 401);
            assert_eq!(answer.text(), "MSG_LOGIN_UNAUTHORIZED_ERROR");
        }
    }
}

#[tokio::test]
async fn rights_limited_by_resource_names_give_no_rows() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("named").await;
    pod(cluster, &namespace, "one", "none").await;
    let person = Person::new(cluster, &namespace, "person").await;
    let mut rules = rule(&["get", "list", "watch"], &["pods"]);
    rules["resourceNames"] = json!(["one"]);
    let to = person.subject.clone();
    grant(cluster, Some(&namespace), "named", to, json!([rules])).await;
    let object = format!("/api/v1/namespaces/{namespace}/pods/one");
    let named = || async { cluster.get(&person.token, &object).await.0 == 200 };
    Cluster::eventually("the right by name is in force", named).await;
    let both = Both::start(&[&namespace]).await;
    for path in ["/api/v1/pod".to_owned(), format!("/api/v1/pod/{namespace}")] {
        both.agree(&person.token, &path, |list| is_denied(list, "pods", "pods")).await;
    }
}

/// The pods of a direct list as this user; `None` where the API server refuses it.
async fn direct(cluster: &Cluster, user: &str, path: &str) -> Option<Names> {
    let (status, _, body) = cluster.get(cluster.token(user), path).await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    if status == 403 {
        return None;
    }
    assert_eq!(status, 200, "{list}");
    let text = |pod: &Value, key: &str| pod["metadata"][key].as_str().unwrap().to_owned();
    let pods = list["items"].as_array().unwrap().iter();
    Some(pods.map(|pod| (text(pod, "namespace"), text(pod, "name"))).collect())
}

/// Ends of our list's path, each with what the API server itself lists there to this user.
async fn expected(cluster: &Cluster, user: &str, namespaces: &[String]) -> Vec<(String, Names)> {
    let (mut wanted, mut union) = (Vec::new(), Names::new());
    for namespace in namespaces {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let found = direct(cluster, user, &path).await.unwrap_or_default();
        union.extend(found.iter().cloned());
        wanted.push((format!("/{namespace}"), found));
    }
    let everywhere = direct(cluster, user, "/api/v1/pods").await.unwrap_or(union);
    wanted.push((String::new(), everywhere));
    wanted
}

/// Where the gateway's lists differ from what the API server lists to this user.
async fn difference(gateway: &Gateway, user: &str, wanted: &[(String, Names)]) -> Option<String> {
    for (end, wanted) in wanted {
        let path = format!("/api/v1/pod{end}");
        let list = gateway.get(user, &path).await.json();
        let given = rows(&list, "pods");
        if given != *wanted {
            return Some(format!("{user} {path}: {given:?}, the API server {wanted:?}"));
        }
    }
    None
}

/// Users five to seven have no rights but those given here.
#[tokio::test]
async fn each_users_rows_are_those_that_the_api_server_lists_to_that_user() {
    let cluster = cluster::shared().await;
    let mut namespaces = Vec::new();
    for _ in 0..4 {
        let namespace = cluster.namespace("differ").await;
        pod(cluster, &namespace, "one", "none").await;
        pod(cluster, &namespace, "two", "crash").await;
        namespaces.push(namespace);
    }
    let anything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let mut named = rule(&["list"], &["pods"]);
    named["resourceNames"] = json!(["one"]);
    let rights = [
        ("user-5", Some(0), rule(&["list"], &["pods"])),
        ("user-5", Some(1), rule(&["list"], &["pods/log", "services"])),
        ("user-5", Some(2), anything),
        ("user-6", Some(0), named),
        ("user-6", Some(1), rule(&["get", "list", "watch"], &["pods", "events"])),
        ("user-6", Some(3), rule(&["get", "watch", "delete"], &["pods"])),
        ("user-7", None, rule(&["list"], &["*"])),
    ];
    for (name, at, rules) in rights {
        let at = at.map(|index: usize| namespaces[index].as_str());
        let role = format!("{}-{name}", namespaces[0]);
        grant(cluster, at, &role, user(name), json!([rules])).await;
    }
    let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let both = Both::start(&names).await;
    for (user, least) in [("user-5", 4), ("user-6", 2), ("user-7", 8)] {
        for gateway in [&both.cached, &both.live] {
            let begun = Instant::now();
            loop {
                // Anew each time: other tests make pods, too, which user seven sees.
                let wanted = expected(cluster, user, &namespaces).await;
                let known = wanted.iter().all(|(end, rows)| !end.is_empty() || rows.len() >= least);
                let found = difference(gateway, user, &wanted).await;
                if known && found.is_none() {
                    break;
                }
                assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {found:?}");
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Waits until a list to this person is as wanted.
async fn until(gateway: &Gateway, token: &str, path: &str, ready: impl Fn(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let answer = ask(gateway, token, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        if ready(&answer.json()) {
            return;
        }
        let text = answer.text();
        assert!(begun.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain, {path}: {text}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_ends_for_one_namespace_and_for_all() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("revoked").await;
    pod(cluster, &namespace, "one", "none").await;
    let person = Person::who_lists(cluster, &namespace, &["pods", "events"]).await;
    let gateway = gateway::start(Options::default()).await;
    let paths = [format!("/api/v1/pod/{namespace}"), "/api/v1/pod".to_owned()];
    for path in &paths {
        until(&gateway, &person.token, path, |list| rows(list, "pods").len() == 1).await;
    }
    delete(cluster, &format!("{}/person", bindings(Some(&namespace)))).await;
    for path in &paths {
        until(&gateway, &person.token, path, |list| is_denied(list, "pods", "pods")).await;
    }
}

#[tokio::test]
async fn a_right_that_is_given_shows_after_a_denial() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("granted").await;
    pod(cluster, &namespace, "one", "none").await;
    let person = Person::new(cluster, &namespace, "person").await;
    let gateway = gateway::start(Options::default()).await;
    let paths = [format!("/api/v1/pod/{namespace}"), "/api/v1/pod".to_owned()];
    for path in &paths {
        until(&gateway, &person.token, path, |list| is_denied(list, "pods", "pods")).await;
    }
    let (to, rules) = (person.subject.clone(), listing(&["pods", "events"]));
    grant(cluster, Some(&namespace), "person", to, rules).await;
    for path in &paths {
        let whole = |list: &Value| rows(list, "pods").len() == 1 && errors(list).is_empty();
        until(&gateway, &person.token, path, whole).await;
    }
}

#[tokio::test]
async fn a_right_that_ends_in_one_namespace_takes_nothing_of_another_when_rows_are_read_live() {
    let cluster = cluster::shared().await;
    let (a, b) = (cluster.namespace("stays").await, cluster.namespace("ends").await);
    for namespace in [&a, &b] {
        pod(cluster, namespace, "one", "none").await;
    }
    let resources = ["pods", "events"];
    let person = Person::who_lists(cluster, &a, &resources).await;
    let (to, rules) = (person.subject.clone(), listing(&resources));
    grant(cluster, Some(&b), "person", to, rules).await;
    let extra = vec!["--namespaces".to_owned(), format!("{a},{b}")];
    let live = Options { shared_cache: false, extra, ..Options::default() };
    let gateway = gateway::start(live).await;
    until(&gateway, &person.token, "/api/v1/pod", |list| rows(list, "pods").len() == 2).await;
    delete(cluster, &format!("{}/person", bindings(Some(&b)))).await;
    let stays = (a.clone(), "one".to_owned());
    until(&gateway, &person.token, "/api/v1/pod", |list| {
        let seen = rows(list, "pods");
        assert!(seen.contains(&stays), "{list}");
        seen.len() == 1 && errors(list).is_empty()
    })
    .await;
}

//! Who writes through us reads it back: in the very next list after each kind of write, on another
//! replica too when the client carries what the answer told; nobody else is slowed or shown
//! anything by it. And what an answer says of its age: source, age, ETag.
//!
//! It is NOT where watches break (`faults.rs`, `away.rs`), nor what a write does (`writes.rs`).

use futures::future::join;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, create, workload};
use crate::property_truth::Client;

/// Writes of each kind: a race that is lost now and then must show.
const ROUNDS: usize = 50;
const WROTE: &str = "binnacle-wrote";
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");
/// What a browser's script sends by itself.
const BROWSER: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Two replicas that share nothing, and somebody who writes through the first.
struct Replicas {
    first: Client,
    second: Client,
    token: String,
    servers: [Gateway; 2],
}

/// How a client carries what an answer told.
#[derive(Clone, Copy)]
enum Carried {
    Header,
    Cookie,
}

impl Carried {
    /// Scripts and browsers by turns.
    fn of(round: usize) -> Self {
        if round.is_multiple_of(2) { Self::Header } else { Self::Cookie }
    }

    fn of_answer(self, answer: &Answer) -> (&'static str, String) {
        match self {
            Self::Header => (WROTE, answer.header(WROTE).to_owned()),
            Self::Cookie => {
                let pair = answer.header("set-cookie").split(';').next().unwrap_or_default();
                ("cookie", pair.to_owned())
            }
        }
    }
}

impl Replicas {
    async fn start(cluster: &Cluster) -> Replicas {
        let start = || gateway::start(Options::default());
        let servers: [Gateway; 2] = join(start(), start()).await.into();
        let [first, second] = [&servers[0], &servers[1]].map(Client::of_gateway);
        Replicas { first, second, token: cluster.token("admin").to_owned(), servers }
    }

    /// A write through the first replica; the answer must tell what to carry.
    async fn write(&self, method: Method, path: &str, body: &Value) -> Answer {
        let action = path.strip_prefix("/api/v1/").filter(|_| method == Method::POST);
        let action = action.map(|rest| rest.split('/').next().unwrap_or_default());
        let csrf = match action {
            Some(action) => {
                let answer = self.first.get("", &format!("/api/v1/csrftoken/{action}")).await;
                answer.json()["token"].as_str().unwrap().to_owned()
            }
            None => String::new(),
        };
        let mut headers = vec![BROWSER];
        if !csrf.is_empty() {
            headers.push(("x-csrf-token", csrf.as_str()));
        }
        if method == Method::PATCH {
            headers.push(MERGE);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.first.send(method, &self.token, path, &headers, body).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
        let [told, cookie] = [WROTE, "set-cookie"].map(|name| answer.header(name));
        assert!(!told.is_empty() && cookie.contains(told), "{path}: {:?}", answer.headers);
        answer
    }

    /// The next list of both replicas must be as wanted, at once.
    async fn shows(
        &self,
        round: usize,
        written: &Answer,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) {
        let (name, value) = Carried::of(round).of_answer(written);
        let carried = [(name, value.as_str())];
        let of_first = self.first.get(&self.token, path);
        let of_second = self.second.send(Method::GET, &self.token, path, &carried, "");
        let (of_first, of_second) = join(of_first, of_second).await;
        for (replica, answer) in [("the first", of_first), ("the second", of_second)] {
            let source = answer.header("binnacle-source").to_owned();
            let list = answer.json();
            let about = format!("{replica} replica ({source}) after {carried:?}");
            assert!(wanted(&list), "round {round}, {path}, {about}: {list}");
        }
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

fn config_map(namespace: &str, name: &str, turn: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"turn": turn.to_string()}}})
}

/// The row with this name.
fn row<'a>(list: &'a Value, items: &str, name: &str) -> Option<&'a Value> {
    let rows = list[items].as_array().unwrap_or_else(|| panic!("no {items}: {list}"));
    rows.iter().find(|row| row["objectMeta"]["name"] == name)
}

fn has_turn(list: &Value, name: &str, turn: usize) -> bool {
    row(list, "items", name)
        .is_some_and(|row| row["objectMeta"]["labels"]["turn"] == turn.to_string().as_str())
}

fn raw(namespace: &str, name: &str) -> String {
    format!("/api/v1/_raw/configmap/namespace/{namespace}/name/{name}")
}

#[tokio::test]
async fn what_is_created_replaced_and_deleted_shows_in_the_writers_next_list() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-raw").await;
    let replicas = Replicas::start(cluster).await;
    let list = format!("/api/v1/configmap/{namespace}");
    for round in 0..ROUNDS {
        let name = format!("map-{round}");
        let content = config_map(&namespace, &name, 0).to_string();
        let body = json!({"name": "", "namespace": namespace, "content": content});
        let file = "/api/v1/appdeploymentfromfile";
        let made = replicas.write(Method::POST, file, &body).await;
        replicas.shows(round, &made, &list, |list| has_turn(list, &name, 0)).await;

        let path = raw(&namespace, &name);
        let body = config_map(&namespace, &name, round + 1);
        let replaced = replicas.write(Method::PUT, &path, &body).await;
        let has_new = |list: &Value| has_turn(list, &name, round + 1);
        replicas.shows(round, &replaced, &list, has_new).await;

        let path = format!("{path}?propagation=Background");
        let deleted = replicas.write(Method::DELETE, &path, &Value::Null).await;
        let is_gone = |list: &Value| row(list, "items", &name).is_none();
        replicas.shows(round, &deleted, &list, is_gone).await;
    }
    replicas.stop().await;
}

#[tokio::test]
async fn scales_and_triggered_jobs_show_in_the_writers_next_list() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-scale").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    let containers = json!([{"name": "main", "image": "example.invalid/main"}]);
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    // Suspended, so that fifty jobs make no pod.
    let job = json!({"spec": {"suspend": true, "template": pod}});
    let cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 3 1 1 *", "suspend": true, "jobTemplate": job}});
    let cron_jobs = format!("/apis/batch/v1/namespaces/{namespace}/cronjobs");
    create(cluster, &cron_jobs, cron_job).await;
    let replicas = Replicas::start(cluster).await;
    let deployments = format!("/api/v1/deployment/{namespace}");
    let jobs = format!("/api/v1/job/{namespace}");
    for round in 0..ROUNDS {
        let wanted = (round + 1) % 2;
        let path = format!("/api/v1/scale/deployment/{namespace}/web?scaleBy={wanted}");
        let scaled = replicas.write(Method::PUT, &path, &json!({"scaleBy": wanted})).await;
        let has_count = |list: &Value| {
            let web = row(list, "deployments", "web");
            web.is_some_and(|web| web["pods"]["desired"] == wanted)
        };
        replicas.shows(round, &scaled, &deployments, has_count).await;

        let path = format!("/api/v1/cronjob/{namespace}/nightly/trigger");
        let triggered = replicas.write(Method::PUT, &path, &json!({})).await;
        let is_there = |list: &Value| list["listMeta"]["totalItems"] == round + 1;
        replicas.shows(round, &triggered, &jobs, is_there).await;
    }
    replicas.stop().await;
}

#[tokio::test]
async fn restarts_and_forms_tell_what_they_wrote_too() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-forms").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    let replicas = Replicas::start(cluster).await;
    let path = format!("/api/v1/deployment/{namespace}/web/restart");
    let restarted = replicas.write(Method::PUT, &path, &json!({})).await;
    let told = restarted.header(WROTE).to_owned();
    let version = told.strip_prefix("deployment:").and_then(|version| version.parse::<u64>().ok());
    assert!(version.is_some(), "{told}");

    for round in 0..10 {
        let name = format!("form-{round}");
        let port = json!({"port": 80, "targetPort": 8080, "protocol": "TCP"});
        let form = json!({"name": name, "namespace": namespace, "replicas": 0,
            "containerImage": "example.invalid/main", "portMappings": [port],
            "labels": [{"key": "app", "value": name}]});
        let made = replicas.write(Method::POST, "/api/v1/appdeployment", &form).await;
        for (kind, items) in [("deployment", "deployments"), ("service", "services")] {
            let list = format!("/api/v1/{kind}/{namespace}");
            replicas.shows(round, &made, &list, |list| row(list, items, &name).is_some()).await;
        }
    }
    // Few: every namespace is a question to everybody who may not list them.
    for round in 0..3 {
        let name = format!("{namespace}-{round}");
        let made = replicas.write(Method::POST, "/api/v1/namespace", &json!({"name": name})).await;
        let is_there = |list: &Value| row(list, "namespaces", &name).is_some();
        replicas.shows(round, &made, "/api/v1/namespace", is_there).await;
    }
    replicas.stop().await;
}

#[tokio::test]
async fn writes_of_kubectl_through_us_show_in_the_writers_next_list() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-pass").await;
    let replicas = Replicas::start(cluster).await;
    let list = format!("/api/v1/configmap/{namespace}");
    let collection = format!("/clusters/test/api/v1/namespaces/{namespace}/configmaps");
    for round in 0..ROUNDS {
        let name = format!("map-{round}");
        let object = format!("{collection}/{name}");
        let body = config_map(&namespace, &name, 0);
        let made = replicas.write(Method::POST, &collection, &body).await;
        replicas.shows(round, &made, &list, |list| has_turn(list, &name, 0)).await;

        let patch = json!({"metadata": {"labels": {"turn": (round + 1).to_string()}}});
        let patched = replicas.write(Method::PATCH, &object, &patch).await;
        let has_new = |list: &Value| has_turn(list, &name, round + 1);
        replicas.shows(round, &patched, &list, has_new).await;

        let deleted = replicas.write(Method::DELETE, &object, &Value::Null).await;
        let is_gone = |list: &Value| row(list, "items", &name).is_none();
        replicas.shows(round, &deleted, &list, is_gone).await;
    }
    // kubectl keeps no cookies: its answers are the API server's own.
    let answer = replicas.first.send(Method::DELETE, &replicas.token, &collection, &[], "").await;
    assert_eq!((answer.status, answer.header(WROTE), answer.header("set-cookie")), (200, "", ""));
    replicas.stop().await;
}

#[tokio::test]
async fn of_two_writes_at_once_neither_is_forgotten() {
    let cluster = cluster::shared().await;
    let (here, there) =
        (cluster.namespace("fresh-here").await, cluster.namespace("fresh-there").await);
    let api = Client::of_cluster(cluster);
    let admin = cluster.token("admin");
    for namespace in [&here, &there] {
        let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
        for round in 0..ROUNDS {
            let map = config_map(namespace, &format!("map-{round}"), 0).to_string();
            assert_eq!(api.send(Method::POST, admin, &collection, &[], map).await.status, 201);
        }
    }
    let replicas = Replicas::start(cluster).await;
    let path = |name: &str| format!("/api/v1/namespaces/{here}/configmaps/{name}");
    for round in 0..ROUNDS {
        let name = format!("map-{round}");
        // With its version the write is one request, as the deletion is.
        let mut map = api.get(admin, &path(&name)).await.json();
        map["metadata"]["labels"]["turn"] = json!("9999");
        let (changed, gone) = (raw(&here, &name), raw(&there, &name));
        let gone = format!("{gone}?propagation=Background");
        join(
            replicas.write(Method::PUT, &changed, &map),
            replicas.write(Method::DELETE, &gone, &Value::Null),
        )
        .await;
        let lists = [&here, &there].map(|namespace| format!("/api/v1/configmap/{namespace}"));
        let list = replicas.first.get(admin, &lists[0]).await.json();
        assert!(has_turn(&list, &name, 9999), "round {round}: {list}");
        let list = replicas.first.get(admin, &lists[1]).await.json();
        assert!(row(&list, "items", &name).is_none(), "round {round}: {list}");
    }
    replicas.stop().await;
}

#[tokio::test]
async fn writes_of_one_make_nobody_elses_reads_live_and_carry_no_right() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-others").await;
    let reader = Person::who_lists(cluster, &namespace, &["configmaps"]).await;
    let replicas = Replicas::start(cluster).await;
    let list = format!("/api/v1/configmap/{namespace}");
    let may = || async {
        let answer = replicas.first.get(&reader.token, &list).await;
        answer.json()["errors"] == json!([]) && answer.header("binnacle-source") == "cache"
    };
    Cluster::eventually("the reader may list", may).await;
    let collection = format!("/clusters/test/api/v1/namespaces/{namespace}/configmaps");
    let mut live = 0;
    for round in 0..10 {
        let map = config_map(&namespace, &format!("map-{round}"), 0);
        replicas.write(Method::POST, &collection, &map).await;
        let own = replicas.first.get(&replicas.token, &list).await;
        live += usize::from(own.header("binnacle-source") == "live");
        let others = replicas.first.get(&reader.token, &list).await;
        assert_eq!((others.status, others.header("binnacle-source")), (200, "cache"));
    }
    // The passthrough does not read what it carries: for a moment its writer's lists are live.
    assert!(live > 0, "the writer's own lists were never live");

    // A version that never comes costs its sender patience, and nobody else.
    let future = [(WROTE, "configmap:999999999999999999")];
    let of_sender = replicas.second.send(Method::GET, &reader.token, &list, &future, "").await;
    assert_eq!((of_sender.status, of_sender.header("binnacle-source")), (200, "live"));
    // And the one that every namespace has.
    assert_eq!(of_sender.json()["listMeta"]["totalItems"], 11);
    let of_other = replicas.second.get(&replicas.token, &list).await;
    assert_eq!((of_other.status, of_other.header("binnacle-source")), (200, "cache"));
    let nobody = cluster.token("nobody");
    for wrote in ["configmap", "configmap:1", "configmap:999999999999999999", "secret:1", "%00"] {
        let headers = [(WROTE, wrote)];
        let answer = replicas.second.send(Method::GET, nobody, &list, &headers, "").await;
        assert_eq!(answer.status, 200, "{wrote}: {}", answer.text());
        let denied = answer.json();
        assert_eq!(denied["items"], json!([]), "{wrote}: {denied}");
        assert_eq!(denied["errors"][0]["ErrStatus"]["code"], 403, "{wrote}: {denied}");
    }
    replicas.stop().await;
}

#[tokio::test]
async fn lists_details_and_child_lists_have_an_etag_until_they_change() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-etag").await;
    workload(cluster, &namespace, "web", 0, "none").await;
    let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
    create(cluster, &collection, config_map(&namespace, "map", 0)).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
        "stringData": {"a": "b"}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/secrets"), secret).await;
    let replicas = Replicas::start(cluster).await;
    let (client, token) = (&replicas.first, &replicas.token);
    let ask = async |path: &str, known: &str| {
        client.send(Method::GET, token, path, &[("if-none-match", known)], "").await
    };
    let list = format!("/api/v1/configmap/{namespace}");
    let is_known = || async {
        let list = client.get(token, &list).await.json();
        list["items"].as_array().unwrap().iter().any(|row| row["objectMeta"]["name"] == "map")
    };
    Cluster::eventually("the config map is listed", is_known).await;
    let secrets = format!("/api/v1/secret/{namespace}");
    let unchanging = [
        (secrets.clone(), "private, no-cache"),
        (format!("{secrets}/key"), "no-store"),
        (format!("/api/v1/service/{namespace}/web"), "private, no-cache"),
        (format!("/api/v1/service/{namespace}/web/pod"), "private, no-cache"),
    ];
    for (path, caching) in &unchanging {
        // Endpoints come a little later than their service.
        let same = || async {
            let first = client.get(token, path).await;
            let tag = first.header("etag");
            assert_eq!((first.status, first.header("cache-control")), (200, *caching), "{path}");
            assert!(tag.starts_with('"'), "{path}: {:?}", first.headers);
            assert_eq!(ask(path, "\"other\"").await.status, 200, "{path}");
            let again = ask(path, tag).await;
            let is_short = again.status == 304 && again.body.is_empty();
            assert!(is_short == (again.header("etag") == tag), "{path}: {:?}", again.headers);
            is_short
        };
        Cluster::eventually(&format!("{path} is not sent twice"), same).await;
    }

    let detail = format!("{list}/map");
    let raw = raw(&namespace, "map");
    let changing = [list, detail, raw.clone()];
    for round in 0..ROUNDS {
        let mut tags = Vec::new();
        for path in &changing {
            tags.push(client.get(token, path).await.header("etag").to_owned());
        }
        let map = config_map(&namespace, "map", round + 1);
        replicas.write(Method::PUT, &raw, &map).await;
        for (path, tag) in changing.iter().zip(&tags) {
            let answer = ask(path, tag).await;
            assert_eq!(answer.status, 200, "{path} has changed, {tag} has not");
            assert_ne!(answer.header("etag"), tag, "{path}");
            let turn = format!("\"turn\":\"{}\"", round + 1);
            assert!(answer.text().contains(&turn), "{path}: {}", answer.text());
        }
    }
    for path in &changing {
        let tag = client.get(token, path).await.header("etag").to_owned();
        assert_eq!(ask(path, &tag).await.status, 304, "{path}");
    }
    replicas.stop().await;
}

#[tokio::test]
async fn an_answer_says_where_its_rows_came_from_and_how_old_they_are() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-says").await;
    workload(cluster, &namespace, "web", 1, "none").await;
    let gateway = gateway::start(Options::default()).await;
    let client = Client::of_gateway(&gateway);
    let token = cluster.token("admin");
    for (path, source, sources) in [
        (format!("pod/{namespace}"), "cache", &["pod;age=0.000", "event;age=0.000"][..]),
        (format!("configmap/{namespace}"), "cache", &["configmap;age=0.000"][..]),
        (format!("secret/{namespace}"), "live", &["secret;live"][..]),
        (format!("deployment/{namespace}/web"), "cache, live", &["pod;age=0.000"][..]),
        (format!("service/{namespace}/web"), "live", &[][..]),
        (format!("service/{namespace}/web/pod"), "cache, live", &["pod;age=0.000"][..]),
    ] {
        let path = format!("/api/v1/{path}");
        // A watch that is opened anew makes rows older for a moment.
        let says = || async {
            let answer = client.get(token, &path).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            let listed = answer.header("binnacle-sources").to_owned();
            let listed: Vec<&str> = listed.split(", ").collect();
            answer.header("binnacle-source") == source
                && answer.header("binnacle-age") == "0.000"
                && answer.header("warning").is_empty()
                && sources.iter().all(|one| listed.contains(one))
        };
        let what = format!("{path} is from {source}, of {sources:?}");
        Cluster::eventually(&what, says).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_pod_deleted_without_grace_is_gone_from_the_writers_next_list() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-pod").await;
    let replicas = Replicas::start(cluster).await;
    let list = format!("/api/v1/pod/{namespace}");
    let path = format!("/clusters/test/api/v1/namespaces/{namespace}/pods/brief");
    let path = format!("{path}?gracePeriodSeconds=0");
    for round in 0..20 {
        crate::people::pod(cluster, &namespace, "brief", "none").await;
        let deleted = replicas.write(Method::DELETE, &path, &Value::Null).await;
        replicas.shows(round, &deleted, &list, |list| row(list, "pods", "brief").is_none()).await;
    }
    replicas.stop().await;
}

#[tokio::test]
async fn a_forged_cookie_or_anothers_etag_gains_nothing() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("fresh-forged").await;
    let reader = Person::who_lists(cluster, &namespace, &["configmaps"]).await;
    let replicas = Replicas::start(cluster).await;
    let (client, token) = (&replicas.second, &replicas.token);
    let list = format!("/api/v1/configmap/{namespace}");
    let (long, huge) = ("x|".repeat(5_000), format!("configmap:{}", u64::MAX));
    for forged in ["%00;=|||", long.as_str(), "gadget:4|secret:1|configmap:-1", huge.as_str()] {
        let cookie = format!("binnacle-wrote={forged}");
        let cookie = [("cookie", cookie.as_str())];
        let asked = client.send(Method::GET, token, &list, &cookie, "");
        let answer = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await.unwrap();
        let source = if forged == huge { "live" } else { "cache" };
        assert_eq!((answer.status, answer.header("binnacle-source")), (200, source), "{forged}");
        let cached =
            || async { client.get(token, &list).await.header("binnacle-source") == "cache" };
        Cluster::eventually("its sender reads from the cache again", cached).await;
    }
    for path in ["overview", "pod"].map(|kind| format!("/api/v1/{kind}/{namespace}")) {
        // The overview counts what other tests make meanwhile.
        let same = || async {
            let first = client.get(token, &path).await;
            assert!(first.header("vary").to_lowercase().contains("authorization"), "{path}");
            let known = [("if-none-match", first.header("etag"))];
            let other = client.send(Method::GET, &reader.token, &path, &known, "").await;
            assert_eq!(other.status, 200, "{path}: a reader with fewer rights");
            client.send(Method::GET, token, &path, &known, "").await.status == 304
        };
        Cluster::eventually(&format!("{path} is not sent twice"), same).await;
    }
    replicas.stop().await;
}

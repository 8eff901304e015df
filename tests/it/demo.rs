//! The demo answers as a real API server: the same scenarios of reads, writes, lists, watches and
//! rights run on both, and are compared.
//!
//! It does NOT compare what only a real cluster has: defaults, validation, schemas, the way to
//! explain a selector that cannot be read, and the wide columns of tables.

use http::Method;
use serde_json::{Value, json};

use crate::both::{Api, Pair, Who, delete, get, patch, post, rule, send};
use crate::cluster;
use crate::spawned::{Binary, authority};

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_not_there_and_who_is_not_known_is_said_in_the_same_words() {
    let pair = Pair::start("demo-missing").await;
    let maps = pair.core("configmaps");
    for path in [
        format!("{maps}/none"),
        pair.apps("deployments/none"),
        pair.core("pods/none/log"),
        pair.core("unicorns"),
        "/api/v2/pods".to_owned(),
        "/apis/none.example/v1/things".to_owned(),
        "/apis/none.example".to_owned(),
        "/nothing".to_owned(),
    ] {
        assert_eq!(pair.same(get(path)).await.status, 404);
    }
    for ask in [
        send(Method::PUT, &maps, &json!({})),
        patch(MERGE, &maps, &json!({})),
        post(format!("{maps}/x"), &config_map("x")),
        post("/api/v1/configmaps", &config_map("x")),
        get(format!("{AUTHORIZATION}/selfsubjectaccessreviews")),
    ] {
        assert_eq!(pair.same(ask).await.status, 405);
    }
    let wrong = pair.same(get(&maps).by(Who::Header("Bearer wrong"))).await;
    assert_eq!((wrong.status, &wrong.body["reason"]), (401, &json!("Unauthorized")));
    for header in ["", "Basic YTpi"] {
        for path in [maps.as_str(), "/api", "/api/v1/nodes"] {
            assert_eq!(pair.same(get(path).by(Who::Header(header))).await.status, 403);
        }
        assert_eq!(pair.same(get("/healthz").by(Who::Header(header))).await.status, 200);
    }
}

#[tokio::test]
async fn writes_conflicts_patches_and_deletions_are_answered_the_same() {
    let pair = Pair::start("demo-writes").await;
    let maps = pair.core("configmaps");
    let one = format!("{maps}/one");
    let named = |name: &str, field: &str, value: &str| {
        let mut map = config_map(name);
        map["metadata"][field] = json!(value);
        map
    };
    let put = |path: &str, map: &Value| send(Method::PUT, path, map);
    let mut whole = config_map("one");
    whole["metadata"]["labels"] = json!({"app": "a"});
    whole["data"] = json!({"k": "1"});
    let nowhere = format!("/api/v1/namespaces/{}-none/configmaps", pair.namespace);
    let nope = format!("{maps}/nope");
    let (ok, test) = (json!({"data": {"k": null, "m": "3"}}), json!({"data": {}}));
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "b"}});
    let replace = json!([{"op": "replace", "path": "/data/m", "value": "4"}]);
    let unfit = json!([{"op": "test", "path": "/data/m", "value": "9"}]);
    let strategic = "application/strategic-merge-patch+json";
    let helper = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "h"}});
    let accounts = pair.core("serviceaccounts");
    for (ask, status) in [
        (post(&maps, &whole), 201),
        (post(&maps, &config_map("one")), 409),
        (post(&nowhere, &config_map("one")), 404),
        (post(&maps, &named("other", "namespace", "default")), 400),
        (get(&one), 200),
        (put(&one, &named("one", "resourceVersion", "1")), 409),
        (put(&one, &whole), 200),
        (put(&one, &config_map("two")), 400),
        (put(&one, &named("one", "namespace", "default")), 400),
        (put(&nope, &config_map("nope")), 404),
        (patch(MERGE, &one, &ok), 200),
        (patch(MERGE, &one, &stale), 409),
        (patch(MERGE, &nope, &test), 404),
        (patch(JSON_PATCH, &one, &replace), 200),
        (patch(JSON_PATCH, &one, &unfit), 422),
        (patch(strategic, &one, &json!({"metadata": {"labels": {"x": "y"}}})), 200),
        (patch("application/odd", &one, &json!({})), 415),
        (post(format!("{maps}?dryRun=All"), &config_map("dry")), 201),
        (get(format!("{maps}/dry")), 404),
        (delete(format!("{one}?dryRun=All")), 200),
        (delete(&one), 200),
        (delete(&one), 404),
        (delete(pair.apps("deployments/none")), 404),
        (post(&accounts, &helper), 201),
        (delete(format!("{accounts}/h")), 200),
    ] {
        let said = pair.same(ask.clone()).await;
        assert_eq!(said.status, status, "{ask:?}: {said:?}");
    }
    let unnamed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    pair.alike(post(&maps, &unnamed), 422).await;
    pair.alike(post(&maps, &config_map("UPPER")), 422).await;
    pair.alike(post(&maps, &json!({})).saying("{\"kind\":"), 400).await;
    let secrets = pair.secrets().await;
    let gone = pair.same(delete(format!("{secrets}?labelSelector=app%3Da"))).await;
    assert_eq!(names(&gone.body), ["s0", "s1"]);
    let name = format!("{}-made", pair.namespace);
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    assert_eq!(pair.same(post("/api/v1/namespaces", &space)).await.status, 201);
    let ending = pair.same(delete(format!("/api/v1/namespaces/{name}"))).await;
    assert_eq!(ending.body["status"]["phase"], "Terminating");
}

/// For each page: its names, how many remain and whether there is a next one.
async fn pages(api: &Api, collection: &str) -> Vec<(Vec<String>, Value, bool)> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let page = api.said(&get(format!("{collection}?limit=2&continue={token}"))).await;
        assert_eq!(page.status, 200, "{page:?}");
        let metadata = &page.body["metadata"];
        token = metadata["continue"].as_str().unwrap_or_default().to_owned();
        let more = !token.is_empty();
        pages.push((names(&page.body), metadata["remainingItemCount"].clone(), more));
        if !more {
            return pages;
        }
    }
}

#[tokio::test]
async fn lists_their_pages_and_selectors_are_the_same() {
    let pair = Pair::start("demo-lists").await;
    let secrets = pair.secrets().await;
    for (query, wanted) in [
        ("", "s0 s1 s2 s3 s4"),
        ("labelSelector=app%3Da", "s0 s1"),
        ("labelSelector=app%3D%3Da%2Ctier", "s0"),
        ("labelSelector=app%21%3Da", "s2 s3 s4"),
        ("labelSelector=app%20in%20%28a%2Cb%29", "s0 s1 s2"),
        ("labelSelector=app%20notin%20%28a%29", "s2 s3 s4"),
        ("labelSelector=tier", "s0 s2"),
        ("labelSelector=%21tier", "s1 s3 s4"),
        ("fieldSelector=metadata.name%3Ds2", "s2"),
        ("fieldSelector=metadata.name%21%3Ds2%2Ctype%3DOpaque", "s0 s1 s3 s4"),
    ] {
        let list = pair.same(get(format!("{secrets}?{query}"))).await;
        assert_eq!((list.status, names(&list.body).join(" ").as_str()), (200, wanted));
    }
    let real = pages(&pair.real, &secrets).await;
    assert_eq!(pages(&pair.demo, &secrets).await, real);
    let sizes: Vec<_> = real.iter().map(|(names, left, _)| (names.len(), left.as_u64())).collect();
    assert_eq!(sizes, [(2, Some(3)), (2, Some(1)), (1, None)]);
    for plural in ["secrets", "configmaps", "pods"] {
        let path = format!("{}?fieldSelector=spec.unknown%3D1", pair.core(plural));
        assert_eq!(pair.same(get(path)).await.status, 400);
    }
    for query in ["fieldSelector=nonsense", "labelSelector=app%3D%3D%3Da"] {
        assert_eq!(pair.same(get(format!("{secrets}?{query}"))).await.status, 400);
    }
    for query in ["labelSelector=a%20b", "labelSelector=app%3Db%20c", "limit=x", "continue=junk"] {
        pair.alike(get(format!("{secrets}?{query}")), 400).await;
    }
    pair.alike(get(format!("{secrets}?resourceVersion=9000000000000")), 504).await;
    for query in [
        "resourceVersionMatch=Exact",
        "sendInitialEvents=true",
        "watch=1&sendInitialEvents=true",
        "watch=1&resourceVersionMatch=NotOlderThan&timeoutSeconds=1",
    ] {
        assert_eq!(pair.same(get(format!("{secrets}?{query}"))).await.status, 422);
    }
}

/// Of a table: kind, version, the columns that are always shown, and each row's first cell and the
/// kind of its object.
async fn table(api: &Api, path: &str) -> (Value, Value, Vec<Value>, Vec<(Value, Value)>) {
    let mut said = api.said(&get(path).with("accept", TABLE)).await.body;
    let columns = said["columnDefinitions"].as_array().unwrap().iter();
    let columns = columns.filter(|it| it["priority"] == 0).map(|it| it["name"].clone()).collect();
    let rows = said["rows"].as_array().into_iter().flatten();
    let rows = rows.map(|it| (it["cells"][0].clone(), it["object"]["kind"].clone())).collect();
    (said["kind"].take(), said["apiVersion"].take(), columns, rows)
}

#[tokio::test]
async fn tables_and_metadata_have_the_same_form() {
    let pair = Pair::start("demo-forms").await;
    let secrets = pair.secrets().await;
    let space = format!("/api/v1/namespaces/{}", pair.namespace);
    for path in [&pair.core("pods"), &pair.apps("deployments"), &space] {
        let real = table(&pair.real, path).await;
        assert_eq!(table(&pair.demo, path).await, real, "{path}");
        assert_eq!((&real.0, &real.2[0]), (&json!("Table"), &json!("Name")));
    }
    let s2 = format!("{secrets}/s2");
    for path in [&secrets, &s2, &pair.core("services"), &pair.apps("replicasets")] {
        let (mut real, mut demo) = (table(&pair.real, path).await, table(&pair.demo, path).await);
        real.2.truncate(1);
        demo.2.truncate(1);
        assert_eq!(demo, real, "{path}");
    }
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = pair.same(get(&secrets).with("accept", accept)).await;
    assert_eq!(list.body["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list.body).len(), 5);
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let one = pair.same(get(&s2).with("accept", accept)).await;
    assert_eq!(one.body["kind"], "PartialObjectMetadata");
    pair.alike(get(&secrets).with("accept", "text/csv"), 406).await;
}

/// What a watch from a list on tells of one config map, which is made, changed and deleted.
async fn life_of_a_map(api: &Api, maps: &str) -> Vec<Value> {
    let version = api.version(maps).await;
    let selector = "labelSelector=seen%3Dyes";
    let path = format!("{maps}?watch=1&{selector}&resourceVersion={version}");
    let mut events = api.watch(&path).await;
    let mut map = config_map("seen");
    map["metadata"]["labels"] = json!({"seen": "yes"});
    assert_eq!(api.said(&post(maps, &config_map("unseen"))).await.status, 201);
    assert_eq!(api.said(&post(maps, &map)).await.status, 201);
    let one = format!("{maps}/seen");
    let change = patch(MERGE, &one, &json!({"data": {"a": "b"}}));
    assert_eq!(api.said(&change).await.status, 200);
    // One that no longer matches is deleted, to this watch.
    let hide = patch(MERGE, &one, &json!({"metadata": {"labels": {"seen": "no"}}}));
    assert_eq!(api.said(&hide).await.status, 200);
    let show = patch(MERGE, &one, &json!({"metadata": {"labels": {"seen": "yes"}}}));
    assert_eq!(api.said(&show).await.status, 200);
    assert_eq!(api.said(&delete(&one)).await.status, 200);
    events.take(5).await
}

#[tokio::test]
async fn a_watch_tells_the_same_in_the_same_order() {
    let pair = Pair::start("demo-watch").await;
    let maps = pair.core("configmaps");
    let real = life_of_a_map(&pair.real, &maps).await;
    let kinds: Vec<_> = real.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
    assert_eq!(life_of_a_map(&pair.demo, &maps).await, real);
    for api in [&pair.real, &pair.demo] {
        let version = api.version(&maps).await;
        let query = "watch=1&timeoutSeconds=1&labelSelector=seen";
        let path = format!("{maps}?{query}&resourceVersion={version}");
        let rest = api.watch(&path).await.next().await;
        assert!(rest.is_none(), "it should end after a second: {rest:?}");
    }
}

/// The events of a streaming list up to its end, sorted, and that end.
async fn streamed(api: &Api, collection: &str) -> (Vec<Value>, Value) {
    let path = format!(
        "{collection}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
         &allowWatchBookmarks=true&labelSelector=app"
    );
    let mut events = api.watch(&path).await;
    let mut added = Vec::new();
    loop {
        let event = events.next().await.expect("a bookmark comes before the end");
        if event["type"] == "BOOKMARK" {
            added.sort_by_key(|event: &Value| event["object"]["metadata"]["name"].to_string());
            return (added, event);
        }
        added.push(event);
    }
}

#[tokio::test]
async fn a_streaming_list_ends_with_the_same_bookmark_and_forgotten_versions_are_gone() {
    let pair = Pair::start("demo-stream").await;
    let secrets = pair.secrets().await;
    let real = streamed(&pair.real, &secrets).await;
    assert_eq!(streamed(&pair.demo, &secrets).await, real);
    let annotations = &real.1["object"]["metadata"]["annotations"];
    assert_eq!((real.0.len(), &annotations["k8s.io/initial-events-end"]), (3, &json!("true")));

    // A real server forgets after minutes; what it says then is its own source's.
    pair.server.faults().expire_history();
    let mut events = pair.demo.watch(&format!("{secrets}?watch=1&resourceVersion=1")).await;
    let mut error = events.next().await.unwrap();
    let message = error["object"]["message"].take();
    assert!(message.as_str().unwrap().starts_with("too old resource version: 1 ("), "{message}");
    let expired = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": null, "reason": "Expired", "code": 410,
    });
    assert_eq!(error, json!({"type": "ERROR", "object": expired}));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn what_a_role_does_not_allow_is_refused_word_for_word() {
    let pair = Pair::start("demo-rights").await;
    pair.grant().await;
    let maps = pair.core("configmaps");
    let none = format!("{maps}/none");
    assert_eq!(pair.same(get(&none).by(Who::Person)).await.status, 404);
    let space = format!("/api/v1/namespaces/{}", pair.namespace);
    let writes = [
        delete(&none),
        delete(&maps),
        post(&maps, &config_map("none")),
        send(Method::PUT, &none, &json!({})),
        patch(MERGE, &none, &json!({})),
        post("/api/v1/namespaces", &json!({"metadata": {"name": "mine"}})),
        post(pair.core("pods/x/exec?command=a"), &json!({})),
    ];
    let reads = [
        format!("{maps}?watch=1"),
        format!("{maps}?watch=1&fieldSelector=metadata.name%3Dx"),
        "/api/v1/configmaps".to_owned(),
        "/api/v1/namespaces/default/configmaps".to_owned(),
        pair.core("secrets"),
        pair.core("pods/x/log"),
        pair.core("unicorns"),
        pair.apps("deployments"),
        pair.apps("deployments/d"),
        pair.apps("deployments/d/scale"),
        "/api/v1/nodes".to_owned(),
        "/api/v1/nodes/n".to_owned(),
        "/api/v1/namespaces".to_owned(),
        space,
        "/metrics".to_owned(),
        "/".to_owned(),
    ];
    for ask in writes.into_iter().chain(reads.into_iter().map(get)) {
        let said = pair.same(ask.by(Who::Person)).await;
        assert_eq!((said.status, &said.body["reason"]), (403, &json!("Forbidden")), "{said:?}");
        assert!(said.body["message"].as_str().unwrap().contains("\"PERSON\" cannot "), "{said:?}");
    }
}

#[tokio::test]
async fn reviews_answer_the_same() {
    let pair = Pair::start("demo-reviews").await;
    pair.grant().await;
    let here = pair.namespace.as_str();
    let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let review = |spec: Value| {
        let (version, kind) = ("authorization.k8s.io/v1", "SelfSubjectAccessReview");
        let body = json!({"apiVersion": version, "kind": kind, "spec": spec});
        post(&path, &body)
    };
    for (attributes, allowed) in [
        (json!({"namespace": here, "verb": "get", "resource": "configmaps"}), true),
        (json!({"namespace": here, "verb": "list", "resource": "configmaps"}), true),
        (json!({"namespace": here, "verb": "delete", "resource": "configmaps"}), false),
        (json!({"namespace": "default", "verb": "get", "resource": "configmaps"}), false),
        (json!({"verb": "list", "resource": "configmaps"}), false),
        (
            json!({"namespace": here, "verb": "list", "group": "apps", "resource": "deployments"}),
            false,
        ),
        (json!({"namespace": here, "verb": "*", "group": "*", "resource": "*"}), false),
    ] {
        let ask = review(json!({"resourceAttributes": attributes}));
        let admin = pair.same(ask.clone()).await;
        assert_eq!((admin.status, &admin.body["status"]["allowed"]), (201, &json!(true)));
        let person = pair.same(ask.by(Who::Person)).await;
        assert_eq!(person.body["status"]["allowed"], allowed, "{attributes}: {person:?}");
    }
    for (path, allowed) in [("/api", true), ("/metrics", false)] {
        let ask = review(json!({"nonResourceAttributes": {"path": path, "verb": "get"}}));
        let (real, demo) = pair.both(&ask.by(Who::Person)).await;
        // The bindings of a new cluster have other names.
        let verdict = |status: &Value| status["allowed"].clone();
        assert_eq!(verdict(&real.body["status"]), allowed);
        assert_eq!(verdict(&demo.body["status"]), allowed);
    }
    let path = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let (version, kind) = ("authorization.k8s.io/v1", "SelfSubjectRulesReview");
    let body = json!({"apiVersion": version, "kind": kind, "spec": {"namespace": here}});
    let (mut real, mut demo) = pair.both(&post(path, &body).by(Who::Person)).await;
    for said in [&mut real, &mut demo] {
        let status = said.body["status"].take();
        assert_eq!(status["incomplete"], false);
        assert!(status["resourceRules"].as_array().unwrap().contains(&rule()), "{status}");
        assert!(status["nonResourceRules"].is_array(), "{status}");
    }
    assert_eq!(demo, real);
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (real, demo) = pair.both(&post(path, &body).by(Who::Person)).await;
    for said in [real, demo] {
        assert_eq!(said.body["status"]["userInfo"]["username"], "PERSON", "{said:?}");
    }
}

#[tokio::test]
async fn becoming_somebody_else_needs_the_same_rights() {
    let pair = Pair::start("demo-become").await;
    pair.grant().await;
    let maps = pair.core("configmaps");
    let secrets = pair.secrets().await;
    let (real, demo) = pair.both(&get("/version")).await;
    let account = format!("system:serviceaccount:{}:some", pair.namespace);
    let one = format!("{maps}/x");
    for (path, name) in [
        (maps.as_str(), "jane"),
        (one.as_str(), "jane"),
        ("/metrics", "jane"),
        (maps.as_str(), account.as_str()),
        (maps.as_str(), "system:node:x"),
    ] {
        let ask = get(path).with("impersonate-user", name).by(Who::Person);
        // What is refused has had these words since 1.36.
        if real.body["minor"] == demo.body["minor"] {
            assert_eq!(pair.same(ask).await.status, 403);
        } else {
            let (real, demo) = pair.both(&ask).await;
            assert_eq!((real.status, demo.status), (403, 403));
        }
    }
    let jane = get(&secrets).with("impersonate-user", "jane");
    let refused = pair.same(jane.clone()).await;
    let words = refused.body["message"].as_str().unwrap();
    assert!(words.starts_with("secrets is forbidden: User \"jane\" cannot list"), "{words}");
    let master = pair.same(jane.with("impersonate-group", "system:masters")).await;
    assert_eq!((master.status, names(&master.body).len()), (200, 5));
    pair.alike(get(&maps).with("impersonate-group", "some"), 400).await;
}

#[tokio::test]
async fn kubectl_applies_and_server_side_applies_to_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let mut binary = Binary::start(folder.path(), &["--demo"]).await;
    let (ca, file) = (folder.path().join("ca.pem"), folder.path().join("map.yaml"));
    std::fs::write(&ca, authority(folder.path()).await).unwrap();
    let cluster = cluster::shared().await;
    let apply = async |data: &str, more: &[&str]| {
        let map =
            format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m}}, data: {data}}}");
        std::fs::write(&file, map).unwrap();
        let mut command = tokio::process::Command::from(cluster.kubectl_command("admin"));
        command.env("KUBECONFIG", folder.path().join("none")).arg("apply").args(more);
        command.arg("--server").arg(format!("{}/clusters/demo", binary.https));
        command.arg("--certificate-authority").arg(&ca).args(["--token", "demo-admin-token", "-f"]);
        let output = command.arg(&file).kill_on_drop(true).output().await.unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{more:?}: {words}");
        let map = "/clusters/demo/api/v1/namespaces/default/configmaps/m";
        binary.get(map, "demo-admin-token").await.json()["data"].clone()
    };
    assert_eq!(apply("{a: '1', b: '1'}", &[]).await, json!({"a": "1", "b": "1"}));
    assert_eq!(apply("{a: '2'}", &[]).await, json!({"a": "2"}), "b was applied before");
    let data = apply("{c: '3'}", &["--server-side"]).await;
    assert_eq!(data, json!({"a": "2", "c": "3"}), "nobody owns a");
    binary.kill().await;
}

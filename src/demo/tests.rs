//! The demo API over a real connection: pages, watches, streaming lists, rights, tables, faults
//! and the life of a deployment.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{Demo, DemoOptions};

/// Far beyond what any answer here takes.
const DEADLINE: Duration = Duration::from_secs(30);

const ADMIN: &str = "demo-admin-token";
const TEAM: &str = "demo-team-token";
const VIEWER: &str = "demo-viewer-token";

async fn demo(pods: usize, simulate: bool) -> Demo {
    let listen = "127.0.0.1:0".parse().unwrap();
    Demo::start(DemoOptions { listen, pods, simulate }).await.unwrap()
}

async fn send(
    demo: &Demo,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> http::Response<Incoming> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("{}{path}", demo.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(body.to_owned())).unwrap();
    tokio::time::timeout(DEADLINE, client.request(request)).await.unwrap().unwrap()
}

async fn get(demo: &Demo, token: &str, path: &str) -> (StatusCode, Value) {
    call(demo, Method::GET, token, path, &[], &Value::Null).await
}

async fn call(
    demo: &Demo,
    method: Method,
    token: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> (StatusCode, Value) {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("authorization", bearer.as_str())];
    all.extend_from_slice(headers);
    let reply = send(demo, method, path, &all, &body.to_string()).await;
    let status = reply.status();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The events of a watch, one by one.
struct Events {
    body: Incoming,
    read: Vec<u8>,
}

impl Events {
    async fn open(demo: &Demo, path: &str) -> Events {
        let bearer = format!("Bearer {ADMIN}");
        let reply = send(demo, Method::GET, path, &[("authorization", bearer.as_str())], "").await;
        assert_eq!(reply.status(), 200);
        Events { body: reply.into_body(), read: Vec::new() }
    }

    /// None at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.unwrap()?;
            self.read.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn add_map(demo: &Demo, name: &str) -> Value {
    let path = "/api/v1/namespaces/default/configmaps";
    let body = json!({ "metadata": { "name": name } });
    let (status, object) = call(demo, Method::POST, ADMIN, path, &[], &body).await;
    assert_eq!(status, 201, "{object}");
    object
}

#[tokio::test]
async fn pages_add_up_to_the_whole_list() {
    let demo = demo(250, false).await;
    let (_, whole) = get(&demo, ADMIN, "/api/v1/pods").await;
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let (_, page) = get(&demo, ADMIN, &format!("/api/v1/pods?limit=40&continue={token}")).await;
        paged.extend(names(&page));
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged.len(), 250);
    assert_eq!(paged, names(&whole));
}

#[tokio::test]
async fn a_continue_token_of_a_forgotten_version_is_gone_but_offers_another() {
    let demo = demo(0, false).await;
    let (_, page) = get(&demo, ADMIN, "/api/v1/pods?limit=2").await;
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    add_map(&demo, "newer").await;
    demo.faults().expire_history();
    let path = format!("/api/v1/pods?limit=2&continue={token}");
    let (status, gone) = get(&demo, ADMIN, &path).await;
    assert_eq!((status.as_u16(), &gone["reason"]), (410, &json!("Expired")));
    let token = gone["metadata"]["continue"].as_str().unwrap();
    let (status, _) = get(&demo, ADMIN, &format!("/api/v1/pods?continue={token}")).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_watch_resumes_behind_its_version_and_tells_deletions() {
    let demo = demo(0, false).await;
    let first = add_map(&demo, "first").await;
    add_map(&demo, "second").await;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("/api/v1/configmaps?watch=1&resourceVersion={version}");
    let mut events = Events::open(&demo, &path).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["metadata"]["name"], "second");
    assert_eq!(event["object"]["kind"], "ConfigMap");
    let path = "/api/v1/namespaces/default/configmaps/first";
    call(&demo, Method::DELETE, ADMIN, path, &[], &Value::Null).await;
    assert_eq!(events.next().await.unwrap()["type"], "DELETED");
    demo.faults().drop_watches();
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_gets_410_as_an_event() {
    let demo = demo(0, false).await;
    let mut events = Events::open(&demo, "/api/v1/pods?watch=1&resourceVersion=5").await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 410);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let demo = demo(0, false).await;
    let path = "/api/v1/pods?watch=1&allowWatchBookmarks=true&sendInitialEvents=true\
                &resourceVersionMatch=NotOlderThan&resourceVersion=";
    let mut events = Events::open(&demo, path).await;
    let mut added = 0;
    loop {
        let event = events.next().await.unwrap();
        if event["type"] == "BOOKMARK" {
            let annotations = &event["object"]["metadata"]["annotations"];
            assert_eq!(annotations["k8s.io/initial-events-end"], "true");
            break;
        }
        assert_eq!(event["type"], "ADDED");
        added += 1;
    }
    let (_, list) = get(&demo, ADMIN, "/api/v1/pods").await;
    assert_eq!(added, names(&list).len());
    let path = "/api/v1/pods?watch=1&sendInitialEvents=true";
    assert_eq!(get(&demo, ADMIN, path).await.0, 422);
}

#[tokio::test]
async fn a_watch_lasts_as_long_as_it_asks_for_and_that_of_events_has_no_bookmarks() {
    let demo = demo(0, false).await;
    let (_, list) = get(&demo, ADMIN, "/api/v1/configmaps").await;
    let since =
        format!("resourceVersion={}", list["metadata"]["resourceVersion"].as_str().unwrap());
    let wanted: [(&str, &[&str]); 2] = [("configmaps", &["BOOKMARK"]), ("events", &[])];
    for (collection, wanted) in wanted {
        let query = "watch=1&allowWatchBookmarks=true&timeoutSeconds=1";
        let mut events =
            Events::open(&demo, &format!("/api/v1/{collection}?{query}&{since}")).await;
        let mut told = Vec::new();
        while let Some(event) = events.next().await {
            told.push(event["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(told, wanted, "{collection}");
    }
    let path = format!("/api/v1/configmaps?watch=1&timeoutSeconds=0&{since}");
    let mut events = Events::open(&demo, &path).await;
    add_map(&demo, "later").await;
    assert_eq!(events.next().await.expect("0 is not the shortest time")["type"], "ADDED");
}

#[tokio::test]
async fn each_user_may_do_what_their_roles_say() {
    let demo = demo(0, false).await;
    let cases = [
        (TEAM, "/api/v1/namespaces/shop/pods", 200),
        (TEAM, "/api/v1/namespaces/shop/secrets", 200),
        (TEAM, "/api/v1/namespaces/monitoring/pods", 200),
        (TEAM, "/api/v1/namespaces/monitoring/secrets", 403),
        (TEAM, "/api/v1/namespaces/payments/pods", 403),
        (TEAM, "/api/v1/namespaces", 403),
        (VIEWER, "/api/v1/pods", 200),
        (VIEWER, "/apis/apps/v1/deployments", 200),
        (VIEWER, "/api/v1/events", 403),
        (VIEWER, "/api/v1/secrets", 403),
        (VIEWER, "/apis", 200),
        (ADMIN, "/api/v1/secrets", 200),
        ("nobody", "/api/v1/pods", 401),
    ];
    for (token, path, wanted) in cases {
        assert_eq!(get(&demo, token, path).await.0, wanted, "{token} {path}");
    }
    let (_, refused) = get(&demo, TEAM, "/api/v1/namespaces/payments/pods").await;
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"demo-team\" cannot list resource \"pods\" in API group \"\" in \
         the namespace \"payments\""
    );
}

#[tokio::test]
async fn access_reviews_agree_with_the_roles_and_impersonation_needs_a_right() {
    let demo = demo(0, false).await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (namespace, allowed) in [("shop", true), ("payments", false)] {
        let attributes = json!({ "namespace": namespace, "verb": "list", "resource": "pods" });
        let body = json!({ "spec": { "resourceAttributes": attributes } });
        let (status, review) = call(&demo, Method::POST, TEAM, path, &[], &body).await;
        assert_eq!(status, 201);
        assert_eq!(review["status"]["allowed"], allowed, "{namespace}");
    }
    let become_viewer = [("impersonate-user", "demo-viewer")];
    let path = "/api/v1/events";
    for token in [TEAM, ADMIN] {
        let (status, refused) =
            call(&demo, Method::GET, token, path, &become_viewer, &Value::Null).await;
        assert_eq!(status, 403);
        let words = if token == TEAM { "cannot impersonate" } else { "User \"demo-viewer\"" };
        assert!(refused["message"].as_str().unwrap().contains(words), "{refused}");
    }
}

#[tokio::test]
async fn a_table_has_columns_and_a_row_for_each_pod() {
    let demo = demo(0, false).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let path = "/api/v1/namespaces/shop/pods?labelSelector=app%20in%20(checkout)";
    let (_, table) = call(&demo, Method::GET, ADMIN, path, &accept, &Value::Null).await;
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["cells"][1], "0/1");
    assert_eq!(rows[0]["cells"][2], "CrashLoopBackOff");
    assert_eq!(rows[0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_table_of_secrets_has_their_type_behind_the_name_and_none_of_their_content() {
    let demo = demo(0, false).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let path = "/api/v1/namespaces/payments/secrets";
    let (_, table) = call(&demo, Method::GET, ADMIN, path, &accept, &Value::Null).await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let columns: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Type", "Data", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("gateway-credentials"), json!("Opaque"), json!(2)]);
    assert!(!table.to_string().contains("ZGVtbw"), "{table}");
}

#[tokio::test]
async fn a_stale_update_conflicts_and_a_merge_patch_does_not() {
    let demo = demo(0, false).await;
    let old = add_map(&demo, "map").await;
    let path = "/api/v1/namespaces/default/configmaps/map";
    let patch = json!({ "data": { "a": "1" } });
    let merge = [("content-type", "application/merge-patch+json")];
    let (status, new) = call(&demo, Method::PATCH, ADMIN, path, &merge, &patch).await;
    assert_eq!((status.as_u16(), &new["data"]["a"]), (200, &json!("1")));
    let (status, refused) = call(&demo, Method::PUT, ADMIN, path, &[], &old).await;
    assert_eq!((status.as_u16(), &refused["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn faults_fail_break_and_count_requests() {
    let demo = demo(0, false).await;
    let faults = demo.faults();
    faults.respond("/api/v1/pods", 429, 1);
    assert_eq!(get(&demo, ADMIN, "/api/v1/pods").await.0, 429);
    assert!(faults.insert_malformed("pods"));
    let (_, list) = get(&demo, ADMIN, "/api/v1/pods").await;
    let items = list["items"].as_array().unwrap();
    assert!(items.iter().any(|it| it["metadata"]["name"] == 42));
    assert_eq!(faults.requests("/api/v1/pods"), 2);
    assert_eq!(faults.requests_of("watch", "/"), 0);
    demo.stop().await;
}

/// Asks for so many pods of the deployment `frontend`.
async fn scale(demo: &Demo, replicas: u64) {
    let path = "/apis/apps/v1/namespaces/shop/deployments/frontend/scale";
    let merge = [("content-type", "application/merge-patch+json")];
    let patch = json!({ "spec": { "replicas": replicas } });
    let (status, scale) = call(demo, Method::PATCH, ADMIN, path, &merge, &patch).await;
    assert_eq!(status, 200, "{scale}");
}

/// Until its status has this number.
async fn reaches(demo: &Demo, field: &str, number: u64) {
    let wait = async {
        let watch = "/apis/apps/v1/namespaces/shop/deployments?watch=1";
        let mut events = Events::open(demo, watch).await;
        while let Some(event) = events.next().await {
            let object = &event["object"];
            if object["metadata"]["name"] == "frontend" && object["status"][field] == number {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}

#[tokio::test]
async fn a_scaled_deployment_gets_its_pods() {
    let demo = demo(0, true).await;
    scale(&demo, 5).await;
    reaches(&demo, "readyReplicas", 5).await;
    let pods = "/api/v1/namespaces/shop/pods?labelSelector=app=frontend\
                &fieldSelector=status.phase=Running";
    assert_eq!(names(&get(&demo, ADMIN, pods).await.1).len(), 5);
}

#[tokio::test]
async fn pods_wait_while_all_nodes_are_cordoned_and_start_on_the_first_that_takes_them() {
    let demo = demo(0, true).await;
    let merge = [("content-type", "application/merge-patch+json")];
    let cordon = async |node: &str, on: bool| {
        let path = format!("/api/v1/nodes/{node}");
        let patch = json!({ "spec": { "unschedulable": on } });
        let (status, node) = call(&demo, Method::PATCH, ADMIN, &path, &merge, &patch).await;
        assert_eq!(status, 200, "{node}");
    };
    let pods = "/api/v1/namespaces/shop/pods?labelSelector=app=frontend";
    let before = names(&get(&demo, ADMIN, pods).await.1);
    let nodes = names(&get(&demo, ADMIN, "/api/v1/nodes").await.1);
    for node in &nodes {
        cordon(node, true).await;
    }
    scale(&demo, 9).await;
    reaches(&demo, "replicas", 9).await;
    // The step that makes one more has tried to start those before it.
    scale(&demo, 10).await;
    reaches(&demo, "replicas", 10).await;
    cordon(&nodes[0], false).await;
    reaches(&demo, "readyReplicas", 10).await;
    let (_, list) = get(&demo, ADMIN, pods).await;
    let all = list["items"].as_array().unwrap();
    let of = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    let (old, new): (Vec<&Value>, _) = all.iter().partition(|&pod| before.contains(&of(pod)));
    assert_eq!(old.len() + new.len(), 10);
    let on: Vec<_> = new.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap()).collect();
    assert!(on.iter().all(|node| **node == nodes[0]), "{on:?}");
}

/// A shell on a terminal.
struct Typed {
    socket: WebSocketStream<TcpStream>,
    /// What it has shown since it was asked last.
    shown: String,
}

impl Typed {
    async fn open(demo: &Demo) -> Typed {
        let (_, list) = get(demo, ADMIN, "/api/v1/namespaces/shop/pods").await;
        let path = format!("/api/v1/namespaces/shop/pods/{}/exec", names(&list)[0]);
        let url = format!("ws://{}{path}?command=sh&tty=true&stdin=true&stdout=true", demo.addr());
        let mut request = url.into_client_request().unwrap();
        let bearer = format!("Bearer {ADMIN}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        let protocol = "v5.channel.k8s.io".parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let stream = TcpStream::connect(demo.addr()).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        Typed { socket, shown: String::new() }
    }

    async fn types(&mut self, keys: &str) {
        let frame = [&[0_u8][..], keys.as_bytes()].concat();
        self.socket.send(Message::binary(frame)).await.unwrap();
    }

    /// Until it has shown this; `None` for its end.
    async fn until(&mut self, words: Option<&str>) {
        loop {
            if let Some(at) = words.and_then(|words| self.shown.find(words)) {
                self.shown = self.shown.split_off(at + words.map_or(0, str::len));
                return;
            }
            let next = tokio::time::timeout(DEADLINE, self.socket.next()).await;
            let next = next.unwrap_or_else(|_| panic!("waited for {words:?}: {:?}", self.shown));
            match next.map(Result::unwrap) {
                Some(Message::Binary(frame)) if frame[0] == 1 => {
                    self.shown += std::str::from_utf8(&frame[1..]).unwrap();
                }
                Some(Message::Close(_)) | None if words.is_none() => return,
                Some(Message::Close(_)) | None => panic!("it ended: {:?}", self.shown),
                Some(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn a_line_is_corrected_given_up_and_ended_as_on_a_terminal() {
    let demo = demo(0, false).await;
    let mut shell = Typed::open(&demo).await;
    shell.until(Some("/ # ")).await;
    shell.types("\x7flx\x7fs\r").await;
    shell.until(Some("lx\x08 \x08s\r\nbin\r\n")).await;
    shell.until(Some("/ # ")).await;
    shell.types("nonsense\x04\x03").await;
    shell.until(Some("nonsense^C\r\n/ # ")).await;
    shell.types("pwd\r").await;
    shell.until(Some("pwd\r\n/\r\n/ # ")).await;
    shell.types("\x04").await;
    shell.until(None).await;
}

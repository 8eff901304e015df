//! Logs that are followed as events: by event stream and websocket, on where they broke off, only
//! what a filter lets through, of whole workloads, and no longer than the right to read them.
//!
//! It is NOT where lines, batches and merging are tested in all their cases (the unit tests of
//! `src/api/log_*.rs`), nor the plain followed file (`log_follow.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::log_follow::in_front_of;
use crate::logs::{answering, asked, counting};
use crate::people::{Person, ask, bindings, create, delete, grant, rule};

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Event {
    pub id: String,
    pub name: String,
    pub data: Value,
    retry: String,
}

impl Event {
    fn of(text: &str) -> Event {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().unwrap_or_default().trim().to_owned()
        };
        let data = field("data:");
        let data = serde_json::from_str(&data).unwrap_or_else(|_| panic!("no JSON: {text}"));
        Event { id: field("id:"), name: field("event:"), data, retry: field("retry:") }
    }

    pub fn contents(&self) -> Vec<String> {
        if self.name != "lines" {
            return Vec::new();
        }
        let lines = self.data.as_array().unwrap().iter();
        lines.map(|line| line["content"].as_str().unwrap().to_owned()).collect()
    }
}

/// An event stream that is being read.
pub struct Stream {
    body: Incoming,
    headers: HeaderMap,
    read: Vec<u8>,
}

/// An answer whose body is still to be read.
pub async fn get(
    tls: ClientConfig,
    url: &str,
    token: &str,
    headers: &[(&str, &str)],
) -> Response<Incoming> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let mut request = Request::get(url).header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = tokio::time::timeout(DEADLINE, client.request(request)).await;
    answer.expect("an answer in time").unwrap()
}

impl Stream {
    pub async fn open(
        tls: ClientConfig,
        url: &str,
        token: &str,
        headers: &[(&str, &str)],
    ) -> Stream {
        let (head, body) = get(tls, url, token, headers).await.into_parts();
        assert_eq!(head.status, 200, "{url}");
        Stream { body, headers: head.headers, read: Vec::new() }
    }

    pub async fn of(gateway: &Gateway, token: &str, path: &str) -> Stream {
        Self::open(gateway.tls(), &format!("{}{path}", gateway.url), token, &[]).await
    }

    /// The next event; signs of life are passed over.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.read.drain(..end + 2).collect();
                let text = String::from_utf8(event).unwrap();
                if text.contains("event:") {
                    return Event::of(&text);
                }
                continue;
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await;
            let frame = frame.expect("an event in time").expect("the stream goes on").unwrap();
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// Lines until there are so many, and the last id.
    pub async fn lines(&mut self, least: usize) -> (Vec<String>, String) {
        let (mut lines, mut id) = (Vec::new(), String::new());
        while lines.len() < least {
            let event = self.next().await;
            assert_eq!(event.name, "lines", "{event:?}");
            lines.extend(event.contents());
            id = event.id;
        }
        (lines, id)
    }

    async fn end(&mut self) -> Event {
        loop {
            let event = self.next().await;
            if event.name == "end" {
                let rest = tokio::time::timeout(DEADLINE, self.body.frame()).await;
                assert!(rest.expect("an end in time").is_none(), "nothing behind the end");
                return event;
            }
        }
    }
}

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub async fn socket(gateway: &Gateway, token: &str, path: &str) -> Socket {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(gateway.address.ip().to_string()).unwrap();
    let tls = TlsConnector::from(Arc::new(gateway.tls())).connect(name, tcp).await.unwrap();
    let mut request = format!("wss://{}{path}", gateway.address).into_client_request().unwrap();
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let (socket, answer) = tokio_tungstenite::client_async(request, tls).await.unwrap();
    assert_eq!(answer.status(), 101);
    socket
}

/// The next message that says something; `Null` for the closing one.
pub async fn told(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time");
        match message.expect("the socket is open").unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(_) => return Value::Null,
            _ => {}
        }
    }
}

fn number(line: &str) -> usize {
    line.trim_start_matches("line ").parse().unwrap()
}

/// Lines that follow one another, from this number on.
fn in_a_row(lines: &[String], first: usize) {
    let numbers: Vec<usize> = lines.iter().map(|line| number(line)).collect();
    assert!(numbers.iter().copied().eq(first..first + lines.len()), "{first}: {numbers:?}");
}

#[tokio::test]
async fn new_lines_come_as_they_are_written_and_a_reader_that_comes_again_gets_no_line_twice() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-events").await;
    counting(cluster, &namespace, "web", 10, 20).await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let path = format!("/api/v1/log/{namespace}/web/main/follow");
    let mut stream = Stream::of(&gateway, admin, &format!("{path}?tailLines=3")).await;
    assert!(stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    assert_eq!(stream.headers["cache-control"], "no-store");
    let (lines, id) = stream.lines(20).await;
    let first = number(&lines[0]);
    in_a_row(&lines, first);
    drop(stream);

    let url = format!("{}{path}?tailLines=3", gateway.url);
    let headers = [("last-event-id", id.as_str())];
    let mut stream = Stream::open(gateway.tls(), &url, admin, &headers).await;
    let (more, id) = stream.lines(5).await;
    in_a_row(&more, first + lines.len());

    let from = format!("{path}?from={}&timestamps=false", id.replace('#', "%23"));
    let mut socket = socket(&gateway, admin, &from).await;
    let message = told(&mut socket).await;
    assert_eq!(message["event"], "lines");
    assert_eq!(message["data"][0].get("timestamp"), None);
    let content = message["data"][0]["content"].as_str().unwrap();
    assert_eq!(number(content), first + lines.len() + more.len());
    assert!(message["id"].as_str().is_some_and(|last| !last.is_empty() && last != id));
}

#[tokio::test]
async fn a_filter_lets_only_its_lines_through_and_what_is_none_is_refused() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-filter").await;
    counting(cluster, &namespace, "web", 100, 20).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/{namespace}/web/main/follow");
    let filtered = format!("{path}?filter=%5B05%5D%24");
    let mut stream = Stream::of(&gateway, cluster.token("admin"), &filtered).await;
    let (lines, _) = stream.lines(25).await;
    let numbers: Vec<usize> = lines.iter().map(|line| number(line)).collect();
    assert!(numbers.iter().copied().eq((1..=numbers.len()).map(|n| n * 5)), "{numbers:?}");

    for (path, status, words) in [
        (format!("{path}?filter=("), 400, "unclosed group"),
        (format!("{path}?filter=(%5Cw%7B90%7D)%7B90%7D"), 400, "size limit"),
        (format!("{path}?from=yesterday"), 400, "yesterday"),
        (format!("{path}?tailLines=-1"), 400, "tailLines"),
        (path.replace("/main/", "/%2e%2e/"), 400, ""),
        (format!("/api/v1/log/follow/service/{namespace}/web"), 404, "service"),
    ] {
        let answer = gateway.get("admin", &path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    for (path, status, words) in [
        (path.replace("/main/", "/none/"), 400, "container none is not valid"),
        (path.replace("/web/", "/gone/"), 404, "pods \"gone\" not found"),
        (format!("/api/v1/log/follow/deployment/{namespace}/gone"), 404, "\"gone\" not found"),
    ] {
        let answer = gateway.get("admin", &path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
        assert_eq!(gateway.get("nobody", &path).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_right_that_is_revoked_ends_the_log_on_either_stream() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-revoked").await;
    counting(cluster, &namespace, "web", 3, 50).await;
    let extra = vec!["--stream-recheck".to_owned(), "1".to_owned()];
    let gateway = gateway::start(Options { extra, ..Options::default() }).await;
    let person = Person::new(cluster, &namespace, "reader").await;
    let rules = json!([rule(&["get"], &["pods/log"])]);
    grant(cluster, Some(&namespace), "reader", person.subject.clone(), rules).await;
    let window = format!("/api/v1/log/{namespace}/web/main");
    let may = || async { ask(&gateway, &person.token, &window).await.status == 200 };
    Cluster::eventually("the right is there", may).await;

    let path = format!("{window}/follow");
    let mut stream = Stream::of(&gateway, &person.token, &path).await;
    let mut socket = socket(&gateway, &person.token, &path).await;
    stream.lines(5).await;
    assert_eq!(told(&mut socket).await["event"], "lines");
    delete(cluster, &format!("{}/reader", bindings(Some(&namespace)))).await;
    assert_eq!(stream.end().await.data, json!({"reason": "denied"}));
    loop {
        let message = told(&mut socket).await;
        if message["event"] == "end" {
            assert_eq!(message["data"], json!({"reason": "denied"}));
            break;
        }
    }
    assert_eq!(told(&mut socket).await, Value::Null, "it is closed");
}

#[tokio::test]
async fn a_server_that_ends_says_so_and_when_to_come_again() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-drain").await;
    counting(cluster, &namespace, "web", 3, 50).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/{namespace}/web/main/follow");
    let mut stream = Stream::of(&gateway, cluster.token("admin"), &path).await;
    stream.lines(3).await;
    let ((), end) = tokio::join!(gateway.stop(), stream.end());
    assert_eq!(end.data["reason"], "shutdown");
    assert_eq!(end.data["retry"].to_string(), end.retry);
}

/// A workload `web` whose containers count lines.
pub async fn workload(cluster: &Cluster, namespace: &str, kind: &str, replicas: u32, lines: u32) {
    let labels = json!({"app": "web"});
    let annotations = json!({
        "test.binnacle/log-lines": lines.to_string(), "test.binnacle/log-interval-ms": "50",
    });
    let object = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]},
            },
        },
    });
    let plural = format!("{}s", kind.to_lowercase());
    create(cluster, &format!("/apis/apps/v1/namespaces/{namespace}/{plural}"), object).await;
}

/// Reads until lines of so many pods, that are none of the `known`, have come.
async fn speakers(stream: &mut Stream, known: &BTreeSet<String>, count: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    while found.len() < count {
        let event = stream.next().await;
        assert!(["lines", "pods"].contains(&event.name.as_str()), "{event:?}");
        if event.name == "pods" {
            assert_eq!(event.data["beyondCount"], 0, "{event:?}");
            continue;
        }
        for line in event.data.as_array().unwrap() {
            assert_eq!(line["container"], "main", "{line}");
            let pod = line["pod"].as_str().unwrap();
            if !known.contains(pod) {
                found.insert(pod.to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_deployments_pods_are_followed_together_as_they_come_and_go() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-merged").await;
    workload(cluster, &namespace, "Deployment", 2, 1).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/follow/deployment/{namespace}/web");
    let mut stream = Stream::of(&gateway, cluster.token("admin"), &path).await;
    let both = speakers(&mut stream, &BTreeSet::new(), 2).await;
    let gone = both.iter().next().unwrap();
    delete(cluster, &format!("/api/v1/namespaces/{namespace}/pods/{gone}")).await;
    let mut known = speakers(&mut stream, &both, 1).await;
    known.insert(gone.clone());
    let left = both.iter().nth(1).unwrap();
    let others = speakers(&mut stream, &known, 1).await;
    assert!(others.contains(left), "the other one goes on: {others:?}");

    let path = format!("/api/v1/log/follow/pod/{namespace}/{left}");
    let mut alone = Stream::of(&gateway, cluster.token("admin"), &path).await;
    speakers(&mut alone, &BTreeSet::new(), 1).await;
    delete(cluster, &format!("/api/v1/namespaces/{namespace}/pods/{left}")).await;
    assert_eq!(alone.end().await.data["reason"], "completed");
    assert_eq!(gateway.get("nobody", &path).await.status, 403);
}

#[tokio::test]
async fn the_next_pod_of_the_same_name_is_followed_from_its_first_line_and_only_once() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-same-name").await;
    workload(cluster, &namespace, "StatefulSet", 1, 300).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/follow/statefulset/{namespace}/web");
    let mut stream = Stream::of(&gateway, cluster.token("admin"), &path).await;
    let pod = speakers(&mut stream, &BTreeSet::new(), 1).await;
    assert_eq!(pod, BTreeSet::from(["web-0".to_owned()]));
    let before = stream.lines(1).await.0;
    // What either pod says next; the last words of the first one may come late.
    let (mut first, mut second) = (number(before.last().unwrap()) + 1, 1);
    delete(cluster, &format!("/api/v1/namespaces/{namespace}/pods/web-0")).await;
    while second <= 310 {
        for line in stream.next().await.contents() {
            match number(&line) {
                line if line == second => second += 1,
                line if line == first => first += 1,
                line => panic!("{line} is neither {second} of the new pod nor {first} of the old"),
            }
        }
        assert!(first < 900, "the next pod's first line is missing");
    }
}

/// One connection of an API server whose log breaks off within its third line when it is first
/// read.
async fn breaking(mut tcp: TcpStream, reads: Arc<AtomicUsize>) {
    let Some(head) = asked(&mut tcp).await else { return };
    let mut buffer = [0; 4096];
    let line = |tenth: u32, text: &str| format!("2026-01-02T03:04:05.{tenth}Z {text}\n");
    let log = [line(1, "one"), line(2, "two"), line(2, "too"), line(3, "three")].concat();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = if !head.contains("/namespaces/shop/pods/web") {
        "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
    } else if !head.contains("/pods/web/log?") {
        let state = json!([{"name": "main", "state": {"running": {}}}]);
        let spec = json!({"containers": [{"name": "main"}]});
        let status = json!({"phase": "Running", "containerStatuses": state});
        let pod = json!({"kind": "Pod", "spec": spec, "status": status}).to_string();
        let length = pod.len();
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{pod}")
    } else if reads.fetch_add(1, Ordering::Relaxed) == 0 {
        let half = &log[..log.len() - 3];
        format!("{chunked}{:x}\r\n{half}", log.len())
    } else {
        let since = "sinceTime=2026-01-02T03%3A04%3A05Z";
        assert!(head.contains(since) && !head.contains("tailLines"), "{head}");
        let log = format!("{log}{}", line(4, "four"));
        format!("{chunked}{:x}\r\n{log}\r\n", log.len())
    };
    tcp.write_all(answer.as_bytes()).await.unwrap();
    if reads.load(Ordering::Relaxed) > 1 && head.contains("/log?") {
        while tcp.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}

#[tokio::test]
async fn a_log_whose_connection_breaks_goes_on_without_a_doubled_or_a_broken_line() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let reads = Arc::<AtomicUsize>::default();
    let serving = tokio::spawn(async move {
        while let Ok((tcp, _)) = server.accept().await {
            tokio::spawn(breaking(tcp, reads.clone()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(address, folder.path()).await;
    let path = "/api/v1/log/shop/web/main/follow?tailLines=9";
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let url = format!("https://{}{path}", running.https);
    let mut stream = Stream::open(tls, &url, "anything", &[]).await;
    let (lines, id) = stream.lines(5).await;
    assert_eq!(lines, ["one", "two", "too", "three", "four"]);
    assert_eq!(id, "2026-01-02T03:04:05.4Z#1");
    serving.abort();
}

#[tokio::test]
async fn nothing_is_told_of_a_pod_that_took_the_name_while_a_log_was_opened_anew() {
    let reads = AtomicUsize::default();
    let server = answering(Arc::new(move |head: &str| {
        let body = if head.contains("/pods/web/log?") {
            let number = reads.fetch_add(1, Ordering::Relaxed);
            format!("2026-01-02T03:04:0{number}Z line {number}\n")
        } else if head.contains("/pods/web") {
            let uid = if reads.load(Ordering::Relaxed) < 2 { "first" } else { "next" };
            let state = json!([{"name": "main", "state": {"running": {}}}]);
            let pod = json!({
                "kind": "Pod", "metadata": {"name": "web", "uid": uid},
                "spec": {"containers": [{"name": "main"}]},
                "status": {"phase": "Running", "containerStatuses": state},
            });
            pod.to_string()
        } else {
            json!({"status": {"allowed": true}}).to_string()
        };
        Some((200, body))
    }));
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(server.await, folder.path()).await;
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let url = format!("https://{}/api/v1/log/follow/pod/shop/web", running.https);
    let mut stream = Stream::open(tls, &url, "anything", &[]).await;
    let mut told = Vec::new();
    loop {
        let event = stream.next().await;
        if event.name == "end" {
            assert_eq!(event.data["reason"], "completed");
            break;
        }
        told.extend(event.contents());
    }
    assert_eq!(told, ["line 0"]);
}

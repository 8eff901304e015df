//! Processes and ports behind plain websockets on the real control plane: exec, attach and
//! port-forward for new frontends, how each of them ends, and what never begins.
//!
//! It is NOT where the contract's shell is tested (`shells.rs`), nor messages in all their cases
//! (the unit tests of `src/api/shells/exec.rs`, `terminal.rs` and `src/upstream/channel.rs`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use url::form_urlencoded;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::people::{self, Person};

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);
pub const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Waits until the first container of the pod runs.
pub async fn runs(cluster: &Cluster, namespace: &str, pod: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    let running = || async {
        let (_, _, body) = cluster.get(cluster.token("admin"), &path).await;
        let pod: Value = serde_json::from_slice(&body).unwrap();
        pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    };
    Cluster::eventually("the pod runs", running).await;
}

/// A namespace with a pod `web` that runs.
pub async fn web(cluster: &Cluster, prefix: &str) -> String {
    let namespace = cluster.namespace(prefix).await;
    people::pod(cluster, &namespace, "web", "none").await;
    runs(cluster, &namespace, "web").await;
    namespace
}

/// The address of a process in the pod `web`.
fn exec(namespace: &str, flags: &str, command: &[&str]) -> String {
    let words = command.iter().map(|word| ("command", word));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(words).finish();
    format!("/api/v1/pod/{namespace}/web/exec?container=main&{query}&{flags}")
}

pub fn sh(namespace: &str, script: &str) -> String {
    exec(namespace, "", &["sh", "-c", script])
}

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// An open WebSocket, and the answer that opened it.
pub async fn upgraded(
    address: SocketAddr,
    tls: ClientConfig,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (Socket, Response) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(address.ip().to_string()).unwrap();
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let url = format!("wss://{address}{path}");
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (socket, answer) = tokio_tungstenite::client_async(request, tls).await.unwrap();
    assert_eq!(answer.status(), 101);
    (socket, answer)
}

/// A client of ours, and what it has heard.
pub struct Client {
    socket: Socket,
    protocol: String,
    pub out: String,
    pub error: String,
    pub bytes: Vec<u8>,
    end: Value,
    close: Option<(u16, String)>,
}

impl Client {
    async fn with(gateway: &Gateway, path: &str, headers: &[(&'static str, &str)]) -> Client {
        Self::at(gateway.address, gateway.tls(), path, headers).await
    }

    /// The same of a server that is no gateway of ours.
    pub async fn at(
        address: SocketAddr,
        tls: ClientConfig,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Client {
        let (socket, answer) = upgraded(address, tls, path, headers).await;
        let protocol = answer.headers().get("sec-websocket-protocol");
        let protocol = protocol.map_or("", |value| value.to_str().unwrap()).to_owned();
        let (out, error, bytes) = Default::default();
        Client { socket, protocol, out, error, bytes, end: Value::Null, close: None }
    }

    pub async fn open(gateway: &Gateway, token: &str, path: &str) -> Client {
        Self::with(gateway, path, &[("authorization", &format!("Bearer {token}"))]).await
    }

    pub async fn put(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    async fn say(&mut self, message: Value) {
        self.put(Message::text(message.to_string())).await;
    }

    async fn types(&mut self, text: &str) {
        self.say(json!({"type": "stdin", "data": text})).await;
    }

    async fn resize(&mut self, columns: u64, rows: u64) {
        self.say(json!({"type": "resize", "columns": columns, "rows": rows})).await;
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Text(text) => {
                let said: Value = serde_json::from_str(&text).unwrap();
                assert!(self.end.is_null(), "{said} after the end");
                let data = said["data"].as_str().unwrap_or_default();
                match said["type"].as_str().unwrap() {
                    "stdout" => self.out.push_str(data),
                    "stderr" => self.error.push_str(data),
                    "end" => self.end = said,
                    other => panic!("{other}: {said}"),
                }
            }
            Message::Binary(data) => self.bytes.extend_from_slice(&data),
            Message::Close(frame) => {
                let frame = frame.expect("a code and a reason");
                self.close = Some((frame.code.into(), frame.reason.as_str().to_owned()));
            }
            _ => {}
        }
    }

    /// Listens until it is so.
    async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Client) -> bool) {
        while !is_so(self) {
            let next = tokio::time::timeout(DEADLINE, self.socket.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{what} in time: {}", self.heard()));
            let next = next.unwrap_or_else(|| panic!("{what}: {}", self.heard()));
            self.hear(next.unwrap());
        }
    }

    fn heard(&self) -> String {
        format!("{:?} {:?} {} {:?}", self.out, self.error, self.end, self.close)
    }

    pub async fn shows(&mut self, text: &str) {
        self.until(text, |client| client.out.contains(text)).await;
    }

    /// The close code, after which nothing may come.
    pub async fn closed(&mut self) -> u16 {
        self.until("the close", |client| client.close.is_some()).await;
        self.close.clone().unwrap().0
    }

    pub fn code(&self) -> Option<i64> {
        self.end["code"].as_i64()
    }

    fn reason(&self) -> &str {
        self.end["reason"].as_str().expect("it has ended")
    }
}

#[tokio::test]
async fn a_process_shows_both_outputs_takes_input_and_tells_how_it_ended() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-exec").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");

    let failing = sh(&namespace, "echo out; echo problem >&2; exit 3");
    let mut client = Client::open(&gateway, admin, &failing).await;
    assert_eq!(client.closed().await, 1000);
    assert_eq!((client.out.as_str(), client.error.as_str()), ("out\n", "problem\n"));
    assert_eq!(client.code(), Some(3));

    let cat = exec(&namespace, "stdin=true", &["cat"]);
    let mut client = Client::open(&gateway, admin, &cat).await;
    client.types("héllo\n").await;
    for part in [&b"\xc3"[..], b"\xa9\n", b"\xff\n"] {
        client.put(Message::binary(part.to_vec())).await;
    }
    client.say(json!({"type": "eof"})).await;
    assert_eq!(client.closed().await, 1000);
    assert_eq!(client.out, "héllo\né\n\u{fffd}\n");
    assert_eq!((client.code(), client.reason()), (Some(0), ""));

    // More than any buffer on the way: what is not read yet holds up whoever writes it.
    let mut client = Client::open(&gateway, admin, &sh(&namespace, "seq 1 300000")).await;
    client.closed().await;
    assert!(client.out.starts_with("1\n2\n") && client.out.ends_with("\n300000\n"));
    assert_eq!(client.out.lines().count(), 300_000);

    let missing = exec(&namespace, "", &["no-such-program"]);
    let mut client = Client::open(&gateway, admin, &missing).await;
    assert_eq!(client.closed().await, 1011);
    assert_eq!(client.code(), None);
    assert!(client.reason().contains("no-such-program"), "{}", client.reason());
    gateway.stop().await;
}

#[tokio::test]
async fn a_terminal_has_the_last_good_size_and_its_token_may_come_as_a_subprotocol() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-tty").await;
    let gateway = gateway::start(Options::default()).await;
    let token = URL_SAFE_NO_PAD.encode(cluster.token("admin"));
    let offered = format!("base64url.bearer.authorization.k8s.io.{token}, exec.binnacle.v1");
    let path = exec(&namespace, "tty=true&stdin=true", &["sh"]);
    let mut client = Client::with(&gateway, &path, &[("sec-websocket-protocol", &offered)]).await;
    assert_eq!(client.protocol, "exec.binnacle.v1");
    client.resize(101, 37).await;
    // Sizes and what is typed go different ways to the container.
    let wait = "until [ \"$(stty size)\" = '37 101' ]; do sleep 0.05; done; echo wide-$((40+2))\n";
    client.types(wait).await;
    client.shows("wide-42").await;
    for (columns, rows) in [(0, 0), (1_000_000_000, 24), (80, 0)] {
        client.resize(columns, rows).await;
    }
    client.types("stty size; echo same-$((1+1))\n").await;
    client.shows("same-2").await;
    assert!(client.out.contains("37 101\r\nsame-2"), "{}", client.out);
    assert_eq!(client.error.matches("1000").count(), 1, "{}", client.error);
    client.types("exit 5\n").await;
    assert_eq!(client.closed().await, 1000);
    assert_eq!(client.code(), Some(5));
    gateway.stop().await;
}

#[tokio::test]
async fn attaching_meets_the_containers_own_process() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("terminal-attach").await;
    let main = "{name: main, image: example.invalid/main, stdin: true, stdinOnce: true}";
    let metadata = format!("{{name: echo, namespace: {namespace}}}");
    let pod = format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n");
    cluster.apply(&format!("{pod}spec: {{containers: [{main}]}}\n")).await;
    runs(cluster, &namespace, "echo").await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/pod/{namespace}/echo/attach?stdin=true");
    let mut client = Client::open(&gateway, cluster.token("admin"), &path).await;
    client.types("one\n").await;
    client.shows("one\n").await;
    client.say(json!({"type": "eof"})).await;
    assert_eq!(client.closed().await, 1000);
    assert_eq!(client.code(), Some(0), "{}", client.heard());
    gateway.stop().await;
}

#[tokio::test]
async fn what_may_not_begin_is_refused_before_the_upgrade() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-refused").await;
    let gateway = gateway::start(Options::default()).await;
    let good = exec(&namespace, "", &["true"]);
    let forward = format!("/api/v1/pod/{namespace}/web/portforward");
    for (path, status, words) in [
        (good.replace("/web/", "/gone/"), 404, "pods \"gone\" not found"),
        (good.replace("=main", "=none"), 400, "container none is not valid"),
        (format!("/api/v1/pod/{namespace}/web/exec?tty=true"), 400, "command"),
        (good.replace("/web/", "/%2e%2e/"), 400, ""),
        (good.replace("/web/", "/web%0Aevent/"), 400, "web%0Aevent"),
        (good.replace("/web/", "/a%2525b/"), 400, ""),
        (format!("{forward}/0"), 400, "0"),
        (format!("{forward}/65536"), 400, "65536"),
        (format!("{forward}/http"), 400, "http"),
    ] {
        let asked = gateway.request(Method::GET, Some("admin"), &path, &UPGRADE, Vec::new()).await;
        assert_eq!(asked.status, status, "{path}: {}", asked.text());
        assert!(asked.text().contains(words), "{path}: {}", asked.text());
    }
    for (subresource, path) in [
        ("exec", good.clone()),
        ("attach", good.replace("/exec", "/attach")),
        ("portforward", format!("{forward}/80")),
    ] {
        let asked = gateway.request(Method::GET, Some("nobody"), &path, &UPGRADE, Vec::new()).await;
        assert_eq!(asked.status, 403, "{path}: {}", asked.text());
        assert!(asked.text().contains(&format!("pods/{subresource}")), "{}", asked.text());
        let asked = gateway.request(Method::GET, None, &path, &UPGRADE, Vec::new()).await;
        assert_eq!(asked.status, 401, "{path}");
    }
    for (name, value, status) in [
        ("upgrade", "SPDY/3.1", 426),
        ("sec-websocket-version", "8", 426),
        ("sec-websocket-key", "short", 400),
        ("sec-websocket-protocol", "v5.channel.k8s.io", 400),
    ] {
        let mut headers: Vec<_> = UPGRADE.into_iter().filter(|(known, _)| *known != name).collect();
        headers.push((name, value));
        let asked = gateway.request(Method::GET, Some("admin"), &good, &headers, Vec::new()).await;
        assert_eq!(asked.status, status, "{name}: {}", asked.text());
    }
    assert_eq!(gateway.get("admin", &good).await.status, 426);
    gateway.stop().await;
}

#[tokio::test]
async fn frames_that_are_no_messages_end_the_session_with_their_code() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-frames").await;
    let gateway = gateway::start(Options::default()).await;
    let cat = exec(&namespace, "stdin=true", &["cat"]);
    let large = "x".repeat((1 << 20) + 1);
    for (text, code) in [
        ("{\"type\":\"stdin\"", 1007),
        ("{\"type\":\"exit\"}", 1008),
        ("{\"type\":\"resize\",\"columns\":-1,\"rows\":1}", 1008),
        (large.as_str(), 1009),
    ] {
        let mut client = Client::open(&gateway, cluster.token("admin"), &cat).await;
        client.types("before\n").await;
        client.shows("before\n").await;
        client.put(Message::text(text)).await;
        assert_eq!(client.closed().await, code, "{}", client.heard());
        assert!(!client.close.unwrap().1.is_empty(), "{code}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_session_ends_with_its_pod_its_right_its_time_and_its_server() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-ends").await;
    let person = Person::new(cluster, &namespace, "typist").await;
    let rules = json!([people::rule(&["get", "create"], &["pods/exec", "pods/portforward"])]);
    people::grant(cluster, Some(&namespace), "typist", person.subject.clone(), rules).await;
    let extra = ["--stream-recheck", "1"].map(String::from).to_vec();
    let gateway = gateway::start(Options { extra, ..Options::default() }).await;
    let bearer = format!("Bearer {}", person.token);
    let mut headers = UPGRADE.to_vec();
    headers.push(("authorization", bearer.as_str()));
    let quick = exec(&namespace, "", &["true"]);
    let may = || async {
        gateway.request(Method::GET, None, &quick, &headers, Vec::new()).await.status == 101
    };
    Cluster::eventually("the right is there", may).await;

    let long = sh(&namespace, "echo up; exec sleep 600");
    let mut client = Client::open(&gateway, &person.token, &long).await;
    client.shows("up\n").await;
    let port = format!("/api/v1/pod/{namespace}/web/portforward/8080");
    let mut port = Client::open(&gateway, &person.token, &port).await;
    let bindings = people::bindings(Some(&namespace));
    people::delete(cluster, &format!("{bindings}/typist")).await;
    assert_eq!(client.closed().await, 1008);
    assert_eq!(port.closed().await, 1008);
    assert_eq!(client.code(), None);
    assert!(!client.reason().is_empty());

    // Who says goodbye hears it.
    for path in [&long, &format!("/api/v1/pod/{namespace}/web/portforward/8080")] {
        let mut client = Client::open(&gateway, cluster.token("admin"), path).await;
        client.socket.close(None).await.unwrap();
        let answered = async {
            loop {
                let message = client.socket.next().await.expect("a goodbye before the end");
                if message.expect("a goodbye before the end").is_close() {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, answered).await.expect("in time");
    }

    let extra = ["--terminal-idle", "1"].map(String::from).to_vec();
    let hasty = gateway::start(Options { extra, ..Options::default() }).await;
    let mut client = Client::open(&hasty, cluster.token("admin"), &long).await;
    assert_eq!(client.closed().await, 1008);
    assert!(client.reason().contains("1 s"), "{}", client.reason());
    hasty.stop().await;

    // Never idle: only its whole time ends it.
    let extra = ["--terminal-total", "2"].map(String::from).to_vec();
    let brief = gateway::start(Options { extra, ..Options::default() }).await;
    let busy = sh(&namespace, "while :; do echo x; sleep 0.1; done");
    let mut client = Client::open(&brief, cluster.token("admin"), &busy).await;
    assert_eq!(client.closed().await, 1008);
    assert!(client.reason().contains("2 s"), "{}", client.reason());
    brief.stop().await;

    let mut client = Client::open(&gateway, cluster.token("admin"), &long).await;
    client.shows("up\n").await;
    let pod = format!("/api/v1/namespaces/{namespace}/pods/web?gracePeriodSeconds=0");
    people::delete(cluster, &pod).await;
    client.closed().await;
    assert_ne!(client.code(), Some(0));
    assert!(!client.reason().is_empty());

    people::pod(cluster, &namespace, "web", "none").await;
    runs(cluster, &namespace, "web").await;
    let mut client = Client::open(&gateway, cluster.token("admin"), &long).await;
    client.shows("up\n").await;
    let ((), code) = tokio::join!(gateway.stop(), client.closed());
    assert_eq!(code, 1001, "{}", client.heard());
}

/// A pod whose ports all are this address.
async fn joined(cluster: &Cluster, namespace: &str, name: &str, address: &str) {
    let annotations = json!({"test.binnacle/port-forward-to": address});
    let main = json!({"name": "main", "image": "example.invalid/main"});
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations}, "spec": {"containers": [main]},
    });
    people::create(cluster, &format!("/api/v1/namespaces/{namespace}/pods"), object).await;
    runs(cluster, namespace, name).await;
}

#[tokio::test]
async fn a_port_is_a_connection_and_ends_with_it() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "terminal-port").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    joined(cluster, &namespace, "echo", &address).await;
    let echo = async {
        let (tcp, _) = listener.accept().await.unwrap();
        drop(listener);
        let (mut from, mut to) = tcp.into_split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    };
    let gateway = gateway::start(Options::default()).await;
    let path = |pod: &str| format!("/api/v1/pod/{namespace}/{pod}/portforward/8080");
    let admin = cluster.token("admin");

    let mut client = Client::open(&gateway, admin, &path("web")).await;
    let asked = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    client.put(Message::binary(asked.as_bytes().to_vec())).await;
    assert_eq!(client.closed().await, 1000, "{}", client.heard());
    let answer = String::from_utf8(client.bytes).unwrap();
    assert!(answer.contains(&format!("hello from {namespace}/web port 8080")), "{answer}");

    let sent: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let talk = async {
        let client = Client::open(&gateway, admin, &path("echo")).await;
        let (mut sink, mut source) = client.socket.split();
        let writing = async {
            for part in sent.chunks(100_000) {
                sink.send(Message::binary(part.to_vec())).await.unwrap();
            }
        };
        let reading = async {
            let mut back = Vec::new();
            while back.len() < sent.len() {
                let next = source.next().await.expect("it goes on").unwrap();
                if let Message::Binary(data) = next {
                    back.extend_from_slice(&data);
                }
            }
            back
        };
        let ((), back) = tokio::join!(writing, reading);
        assert!(back == sent, "{} bytes came back", back.len());
        sink.send(Message::Close(None)).await.unwrap();
    };
    let both = async { tokio::join!(talk, echo) };
    tokio::time::timeout(DEADLINE, both).await.expect("all came back, and the port's end was told");

    // Nobody listens there any more.
    let mut client = Client::open(&gateway, admin, &path("echo")).await;
    assert_eq!(client.closed().await, 1011);
    let (_, reason) = client.close.unwrap();
    assert!(reason.contains("forwarding port 8080"), "{reason}");
    let mut client = Client::open(&gateway, admin, &path("web")).await;
    client.put(Message::text("text")).await;
    assert_eq!(client.closed().await, 1003);
    gateway.stop().await;
}

//! WebSockets over HTTP/2 (RFC 8441), as browsers open them on the connection that they have:
//! shells, live lists, logs and the passthrough side by side on one, who is refused, and the end; and
//! streams that nobody reads.
//!
//! It is NOT where what is said over them is tested in all its cases (`terminals.rs`, `shells.rs`,
//! `live.rs`, `log_streams.rs`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{connect, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use binnacle::serve::{Limits, Server};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use url::form_urlencoded;

use crate::certificate::{on_a_machine, trusting};
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::lifecycle::in_time;
use crate::logs::counting;
use crate::people::create;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// One HTTP/2 connection.
struct Line {
    sender: SendRequest<Empty<Bytes>>,
    address: SocketAddr,
    /// The connection is closed.
    ended: JoinHandle<()>,
}

/// TLS, for HTTP/2 alone.
async fn secured(address: SocketAddr, mut tls: ClientConfig) -> TokioIo<TlsStream<TcpStream>> {
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(address.ip().to_string()).unwrap();
    TokioIo::new(TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap())
}

impl Line {
    async fn open(address: SocketAddr, tls: ClientConfig) -> Line {
        let handshake = http2::handshake(TokioExecutor::new(), secured(address, tls).await);
        let (sender, connection) = handshake.await.unwrap();
        let ended = tokio::spawn(async move { drop(connection.await) });
        let mut line = Line { sender, address, ended };
        // What the server offers is known with its first answer.
        line.get("/", &[]).await;
        line
    }

    async fn to(gateway: &Gateway) -> Line {
        Self::open(gateway.address, gateway.tls()).await
    }

    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Answer {
        let answer = in_time("an answer", self.sender.send_request(request)).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = in_time("its body", body.collect()).await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status: head.status.as_u16(), headers: head.headers, text }
    }

    fn request(&self, method: Method, path: &str, headers: Headers<'_>) -> Request<Empty<Bytes>> {
        let uri = format!("https://{}{path}", self.address);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).unwrap()
    }

    async fn get(&mut self, path: &str, headers: Headers<'_>) -> Answer {
        let request = self.request(Method::GET, path, headers);
        self.ask(request).await
    }

    /// An extended CONNECT: what it has become, or the status of the refusal.
    async fn connect(
        &mut self,
        protocol: &'static str,
        path: &str,
        headers: Headers<'_>,
    ) -> Result<(TokioIo<Upgraded>, HeaderMap), u16> {
        let mut request = self.request(Method::CONNECT, path, headers);
        request.extensions_mut().insert(Protocol::from_static(protocol));
        let mut answer = in_time("an answer", self.sender.send_request(request)).await.unwrap();
        if answer.status() != 200 {
            return Err(answer.status().as_u16());
        }
        let upgraded = in_time("a stream", hyper::upgrade::on(&mut answer)).await.unwrap();
        Ok((TokioIo::new(upgraded), answer.headers().clone()))
    }

    async fn websocket(&mut self, path: &str, headers: Headers<'_>) -> Result<Socket, u16> {
        let mut all = vec![("sec-websocket-version", "13")];
        all.extend_from_slice(headers);
        let (stream, headers) = self.connect("websocket", path, &all).await?;
        for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
            assert!(!headers.contains_key(name), "{path}: {headers:?}");
        }
        let protocol = headers.get("sec-websocket-protocol");
        let protocol = protocol.map_or("", |value| value.to_str().unwrap()).to_owned();
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Ok(Socket { stream, protocol })
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    protocol: String,
}

impl Socket {
    async fn say(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// The next message that says something; the code where the socket is closed.
    async fn next(&mut self) -> Result<Message, u16> {
        loop {
            match in_time("a message", self.stream.next()).await {
                None | Some(Err(_)) => return Err(1006),
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Ok(message),
            }
        }
    }

    async fn text(&mut self) -> Result<String, u16> {
        let message = self.next().await?;
        Ok(message.into_text().unwrap().as_str().to_owned())
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await.unwrap()).unwrap()
    }

    /// All texts until one has this in it.
    async fn until(&mut self, what: &str) -> String {
        let mut all = String::new();
        while !all.contains(what) {
            all.push_str(&self.text().await.unwrap_or_else(|code| panic!("{code}: {all}")));
        }
        all
    }

    /// All texts, and the code that it was closed with; then the stream ends.
    async fn closed(mut self) -> (String, u16) {
        let mut all = String::new();
        loop {
            match self.text().await {
                Ok(text) => all.push_str(&text),
                Err(code) => return (all, code),
            }
        }
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A namespace with a pod `web` that runs and counts lines.
async fn web(cluster: &Cluster, prefix: &str) -> String {
    let namespace = cluster.namespace(prefix).await;
    counting(cluster, &namespace, "web", 10, 50).await;
    let path = format!("/api/v1/namespaces/{namespace}/pods/web");
    let running = || async {
        let (_, _, body) = cluster.get(cluster.token("admin"), &path).await;
        let pod: Value = serde_json::from_slice(&body).unwrap();
        pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    };
    Cluster::eventually("the pod runs", running).await;
    namespace
}

fn script(text: &str) -> String {
    let words = ["sh", "-c", text].map(|word| ("command", word));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(words).finish()
}

fn exec(namespace: &str, text: &str) -> String {
    format!("/api/v1/pod/{namespace}/web/exec?container=main&stdin=true&{}", script(text))
}

#[tokio::test]
async fn one_connection_carries_lists_logs_shells_and_requests_side_by_side() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "http2-all").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = bearer(cluster.token("admin"));
    let signed: Headers<'_> = &[("authorization", &admin)];
    let mut line = Line::to(&gateway).await;

    let mut list = line.websocket("/api/v1/stream", signed).await.unwrap();
    let maps = format!("/api/v1/configmap/{namespace}/");
    list.say(&json!({"id": "maps", "subscribe": maps}).to_string()).await;
    assert_eq!(list.json().await["event"], "whole", "also with a slash at its end");
    let follow = format!("/api/v1/log/{namespace}/web/main/follow?tailLines=2");
    let mut log = line.websocket(&follow, signed).await.unwrap();
    assert_eq!(log.json().await["event"], "lines");
    let read = exec(&namespace, "read word; echo is-$word; exit 7");
    let mut shell = line.websocket(&read, signed).await.unwrap();

    // Each goes on while the others do.
    assert_eq!(line.get(&format!("/api/v1/pod/{namespace}"), signed).await.status, 200);
    shell.say(&json!({"type": "stdin", "data": "it\n"}).to_string()).await;
    let (said, code) = shell.closed().await;
    assert!(said.contains("is-it") && said.contains("\"code\":7"), "{said}");
    assert_eq!(code, 1000);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/configmaps"), object).await;
    list.until("\"new\"").await;
    log.until("lines").await;

    // The contract's shell: an id and its cookie, then SockJS.
    let opened = line.get(&format!("/api/v1/pod/{namespace}/web/shell/main"), signed).await;
    let id: Value = serde_json::from_str(&opened.text).unwrap();
    let id = id["id"].as_str().unwrap();
    let cookie = opened.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let origin = format!("https://{}", gateway.address);
    let path = format!("/api/sockjs/000/abcdefgh/websocket?{id}");
    let foreign = [("cookie", cookie), ("origin", "https://evil.example")];
    assert_eq!(line.websocket(&path, &foreign).await.err(), Some(403));
    let own = [("cookie", cookie), ("origin", origin.as_str())];
    let mut shell = line.websocket(&path, &own).await.unwrap();
    assert_eq!(shell.text().await.unwrap(), "o");
    let bind = json!({"Op": "bind", "SessionID": id}).to_string();
    let typed = json!({"Op": "stdin", "Data": "echo is-$((40+2))\n", "Cols": 80, "Rows": 24});
    shell.say(&json!([bind, typed.to_string()]).to_string()).await;
    shell.until("is-42").await;
    assert_eq!(line.get(&format!("/api/v1/pod/{namespace}"), signed).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn the_passthrough_bridges_a_websocket_and_nothing_else() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "http2-bridge").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = bearer(cluster.token("admin"));
    let signed: Headers<'_> = &[("authorization", &admin)];
    let mut line = Line::to(&gateway).await;
    let pods = format!("/clusters/test/api/v1/namespaces/{namespace}/pods");
    let query = script("echo is-$((40+2))");
    let path = format!("{pods}/web/exec?container=main&stdout=true&{query}");
    // The token as browsers bring it: it is neither echoed nor passed on.
    let token = URL_SAFE_NO_PAD.encode(cluster.token("admin"));
    let offered = format!("base64url.bearer.authorization.k8s.io.{token}, v5.channel.k8s.io");
    let mut socket = line.websocket(&path, &[("sec-websocket-protocol", &offered)]).await.unwrap();
    assert_eq!(socket.protocol, "v5.channel.k8s.io");
    let mut out = Vec::new();
    while let Ok(message) = socket.next().await {
        let data = message.into_data();
        // Channel 1 is the output.
        if data.first() == Some(&1) {
            out.extend_from_slice(&data[1..]);
        }
    }
    assert_eq!(out, b"is-42\n");

    let nobody = bearer(cluster.token("nobody"));
    let refused = line.websocket(&path, &[("authorization", &nobody)]).await.err();
    assert_eq!(refused, Some(403), "the review is asked here, too");
    assert_eq!(line.websocket(&path, &[]).await.err(), Some(401));
    // Who does not switch has not become a websocket, whatever the status says.
    assert_eq!(line.websocket(&pods, signed).await.err(), Some(502));
    assert_eq!(line.websocket(&format!("{pods}/%2e%2e/x"), signed).await.err(), Some(400));
    let all: Headers<'_> = &[("authorization", &admin), ("sec-websocket-version", "13")];
    assert_eq!(line.connect("connect-udp", &path, all).await.err(), Some(501));
    // An answer to HEAD has no body, or the stream would be reset: the API server's and our own.
    let pod = format!("{pods}/web");
    for (path, headers, status) in [(&pod, signed, 405), (&pod, &[], 401)] {
        let head = line.request(Method::HEAD, path, headers);
        let answer = line.ask(head).await;
        assert_eq!((answer.status, answer.text.as_str()), (status, ""), "{path}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn who_may_not_and_what_is_no_websocket_is_refused_and_the_connection_goes_on() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let admin = bearer(cluster.token("admin"));
    let signed: Headers<'_> = &[("authorization", &admin)];
    let mut line = Line::to(&gateway).await;
    let stream = "/api/v1/stream";

    let token = URL_SAFE_NO_PAD.encode(cluster.token("admin"));
    let offered = format!("base64url.bearer.authorization.k8s.io.{token}, stream.binnacle.v1");
    let socket = line.websocket(stream, &[("sec-websocket-protocol", &offered)]).await;
    assert_eq!(socket.unwrap().protocol, "stream.binnacle.v1");
    let alone = offered.split(',').next().unwrap();
    let alone = line.websocket(stream, &[("sec-websocket-protocol", alone)]).await.err();
    assert_eq!(alone, Some(401));

    // The cookie of a person's own machine: for our own pages alone.
    let local = gateway.local_token.clone().unwrap();
    let link = line.get(&format!("/?token={local}"), &[]).await;
    let cookie = link.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let origin = format!("https://{}", gateway.address);
    for (origin, refused) in [(origin.as_str(), None), ("https://evil.example", Some(403))] {
        let headers = [("cookie", cookie), ("origin", origin)];
        assert_eq!(line.websocket(stream, &headers).await.err(), refused, "{origin}");
    }

    let versions = [("authorization", admin.as_str()), ("sec-websocket-version", "8")];
    assert_eq!(line.connect("websocket", stream, &versions).await.err(), Some(400));
    assert_eq!(line.connect("websocket", stream, signed).await.err(), Some(400), "no version");
    let good = [("authorization", admin.as_str()), ("sec-websocket-version", "13")];
    assert_eq!(line.connect("connect-udp", stream, &good).await.err(), Some(501));
    assert_eq!(line.get(stream, signed).await.status, 400, "a GET stays a GET");
    assert_eq!(line.websocket(stream, &[]).await.err(), Some(401));
    for (path, status) in [("/api/v1/pod", 405), ("/livez", 405), ("/api/v1/nothing", 404)] {
        assert_eq!(line.websocket(path, signed).await.err(), Some(status), "{path}");
    }
    assert_eq!(line.get("/api/v1/node", signed).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_drain_tells_every_websocket_of_a_connection() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "http2-drain").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = bearer(cluster.token("admin"));
    let signed: Headers<'_> = &[("authorization", &admin)];
    let mut line = Line::to(&gateway).await;
    let mut list = line.websocket("/api/v1/stream", signed).await.unwrap();
    list.say(&json!({"id": "a", "subscribe": "/api/v1/csidriver"}).to_string()).await;
    assert_eq!(list.json().await["event"], "whole");
    let follow = format!("/api/v1/log/{namespace}/web/main/follow");
    let mut log = line.websocket(&follow, signed).await.unwrap();
    log.until("lines").await;
    let long = exec(&namespace, "echo up; exec sleep 600");
    let mut shell = line.websocket(&long, signed).await.unwrap();
    shell.until("up").await;

    let listen = async { tokio::join!(list.closed(), log.closed(), shell.closed()) };
    let ((), (list, log, shell)) = tokio::join!(gateway.stop(), listen);
    assert!(list.0.contains("shutting down"), "{list:?}");
    assert!(log.0.contains("\"shutdown\""), "{log:?}");
    assert_eq!((list.1, shell.1), (1001, 1001), "{shell:?}");
    in_time("the connection ends", line.ended).await.unwrap();
}

/// Becomes its own echo.
async fn echo(mut request: axum::extract::Request) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    Response::new(Body::empty())
}

#[tokio::test]
async fn a_connection_is_not_idle_while_a_stream_is_open_and_is_once_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = on_a_machine(folder.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { idle: Duration::from_millis(100), ..Limits::default() };
    let server = Server { limits, ..Server::default() };
    let drain = server.drain.clone();
    let routes = Router::new().route("/echo", connect(echo)).route("/", get(|| async { "hello" }));
    let serving = tokio::spawn(server.serve(listener, Some(keeper.server_config()), routes));
    let tls = trusting(&keeper.ca_pem().unwrap());

    let mut used = Line::open(address, tls.clone()).await;
    let (mut stream, _) = used.connect("websocket", "/echo", &[]).await.unwrap();
    // By the time that a later one was idle for too long, this one would have been, too.
    let unused = Line::open(address, tls).await;
    in_time("an idle connection is closed", unused.ended).await.unwrap();
    let mut heard = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    in_time("the echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
    assert_eq!(used.get("/", &[]).await.text, "hello");

    stream.shutdown().await.unwrap();
    assert_eq!(in_time("its end", stream.read(&mut heard)).await.unwrap(), 0);
    drop(stream);
    in_time("it is idle, and closed", used.ended).await.unwrap();
    drain.stop.cancel();
    in_time("the listener ends", serving).await.unwrap();
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other_of_their_connection() {
    const STREAMS: u32 = 8;
    let folder = tempfile::tempdir().unwrap();
    let keeper = on_a_machine(folder.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { streams: STREAMS, ..Limits::default() };
    let server = Server { limits, ..Server::default() };
    let drain = server.drain.clone();
    let (came, mut unread) = mpsc::unbounded_channel();
    let hold = move |body: Body| {
        let came = came.clone();
        async move {
            came.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(body);
        }
    };
    let read = |body: Bytes| async move { body.len().to_string() };
    let routes = Router::new().route("/unread", post(hold)).route("/read", post(read));
    let serving = tokio::spawn(server.serve(listener, Some(keeper.server_config()), routes));

    let stream = secured(address, trusting(&keeper.ca_pem().unwrap())).await;
    let handshake = http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let sent = |path: &str| {
        let request = Request::post(format!("https://{address}{path}"));
        request.body(Full::new(body.clone())).unwrap()
    };
    // All streams but one, each with more than it may send unread.
    for _ in 1..STREAMS {
        let (mut sender, request) = (sender.clone(), sent("/unread"));
        tokio::spawn(async move { sender.send_request(request).await });
        in_time("it is there", unread.recv()).await.unwrap();
    }
    for _ in 0..4 {
        let answer = in_time("an answer", sender.send_request(sent("/read"))).await.unwrap();
        let size = in_time("its body", answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(size, body.len().to_string());
    }
    drain.stop.cancel();
    drain.kill.cancel();
    in_time("the listener ends", serving).await.unwrap();
}

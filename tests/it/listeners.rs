//! The listeners as clients meet them: protocols, limits, misuse and the drain. Bytes are written by hand
//! where a well-behaved client would not. What the routes answer is not the subject here.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{get, post};
use axum::{Extension, Router};
use binnacle::serve::{Counts, Drain, Limits, Peer, Server};
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::{on_a_machine, trusting};

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One listener with routes for these tests.
struct Listener {
    address: SocketAddr,
    ca: Option<String>,
    drain: Drain,
    counts: Arc<Counts>,
    /// `/slow` has been asked.
    asked: Arc<Notify>,
    /// Lets `/slow` answer.
    go: Arc<Notify>,
    ended: JoinHandle<()>,
}

impl Listener {
    async fn plain(limits: Limits) -> Listener {
        Listener::start(limits, None).await
    }

    async fn tls(limits: Limits) -> Listener {
        let dir = tempfile::tempdir().unwrap();
        let keeper = on_a_machine(dir.path()).await;
        Listener::start(limits, Some((keeper.server_config(), keeper.ca_pem().unwrap()))).await
    }

    async fn start(limits: Limits, tls: Option<(Arc<rustls::ServerConfig>, String)>) -> Listener {
        let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            move || async move {
                asked.notify_one();
                go.notified().await;
                "done"
            }
        };
        let routes = Router::new()
            .route("/hello", get(|| async { "hello" }))
            .route("/livez", get(|| async { "alive" }))
            .route("/echo", post(|body: Body| async { body }))
            .route("/line", get(line))
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server { limits, ..Server::default() };
        let (drain, counts) = (server.drain.clone(), Arc::clone(&server.counts));
        let (config, ca) = tls.unzip();
        let ended = tokio::spawn(server.serve(listener, config, routes));
        Listener { address, ca, drain, counts, asked, go, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A TLS connection on which ALPN offers just this protocol.
    async fn connect_tls(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut config = trusting(self.ca.as_ref().unwrap());
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, self.connect().await).await.unwrap()
    }
}

async fn line(Extension(peer): Extension<Peer>) -> String {
    peer.0.to_string()
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else {
        unreachable!("waited {DEADLINE:?} in vain: {what}");
    };
    value
}

/// Everything until the server closes; a reset ends it as well.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = in_time("the server closes the connection", read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer with a body that has been announced by its last bytes.
async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&bytes).ends_with(end) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&buffer[..count]);
        }
    };
    in_time("the answer", read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a fresh connection answers to a GET of this path, to its end.
async fn only(listener: &Listener, path: &str, headers: &str) -> String {
    let mut stream = listener.connect().await;
    send(&mut stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    rest(&mut stream).await
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// One request on a fresh HTTP/2 connection: status and body.
async fn http2(listener: &Listener, request: Request<Body>) -> (StatusCode, String) {
    let io = TokioIo::new(listener.connect_tls(b"h2").await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let answer = in_time("an answer", sender.send_request(request)).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn tls_carries_http_1_and_http_2_as_alpn_says() {
    let listener = Listener::tls(Limits::default()).await;
    let mut stream = listener.connect_tls(b"http/1.1").await;
    send(&mut stream, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    let request = Request::get("https://localhost/hello").body(Body::empty()).unwrap();
    let answer = http2(&listener, request).await;
    assert_eq!(answer, (StatusCode::OK, "hello".to_owned()));
}

#[tokio::test]
async fn requests_know_the_other_end() {
    let plain = Listener::plain(Limits::default()).await;
    let mut stream = plain.connect().await;
    let own = stream.local_addr().unwrap();
    send(&mut stream, "GET /line HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let answer = rest(&mut stream).await;
    assert!(answer.ends_with(&own.to_string()), "{answer}");

    let tls = Listener::tls(Limits::default()).await;
    let mut stream = tls.connect_tls(b"http/1.1").await;
    let own = stream.get_ref().0.local_addr().unwrap();
    send(&mut stream, "GET /line HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(&mut stream, &own.to_string()).await;
}

#[tokio::test]
async fn plain_http_to_the_tls_port_is_told_so() {
    let listener = Listener::tls(Limits::default()).await;
    let mut stream = listener.connect().await;
    send(&mut stream, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
    assert!(answer.contains("This port speaks HTTPS"), "{answer}");
}

#[tokio::test]
async fn rubbish_on_the_tls_port_is_cut_off_and_counted() {
    let listener = Listener::tls(Limits::default()).await;
    let mut stream = listener.connect().await;
    send(&mut stream, "\0\0\0\0").await;
    assert_eq!(rest(&mut stream).await, "");
    let counted = async {
        while listener.counts.handshake_errors.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    in_time("the error is counted", counted).await;
}

#[tokio::test]
async fn people_in_many_groups_have_as_many_headers() {
    let listener = Listener::plain(Limits::default()).await;
    let groups = "Impersonate-Group: a\r\n".repeat(200);
    let answer = only(&listener, "/hello", &format!("{groups}Connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn headers_of_100_kb_are_a_431_and_the_connection_lives_on() {
    let listener = Listener::tls(Limits::default()).await;
    let big = "x".repeat(100_000);
    let mut stream = listener.connect_tls(b"http/1.1").await;
    let head = format!("GET /hello HTTP/1.1\r\nHost: localhost\r\nBig: {big}\r\n\r\n");
    send(&mut stream, &head).await;
    let answer = until(&mut stream, "bytes.\n").await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    send(&mut stream, "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let request = Request::get("https://localhost/hello").header("big", &big);
    let (status, _) = http2(&listener, request.body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[tokio::test]
async fn a_large_body_is_not_a_large_header() {
    let listener = Listener::plain(Limits::default()).await;
    let mut stream = listener.connect().await;
    let body = "y".repeat(1_000_000);
    let request = format!(
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (mut reader, mut writer) = stream.split();
    let (answer, ()) = tokio::join!(rest(&mut reader), send(&mut writer, &request));
    assert!(answer.len() > body.len(), "{} bytes came back", answer.len());
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{}", &answer[..200]);
}

/// Sends all of a body of 8 MB that `/hello` does not read, and only then listens.
async fn refused(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let body = "y".repeat(8_000_000);
    let length = body.len();
    let head = format!("POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    in_time("all is sent", send(&mut stream, &(head + &body))).await;
    rest(&mut stream).await
}

#[tokio::test]
async fn who_is_refused_before_the_body_is_read_may_send_it_all_and_hears_why() {
    let listener = Listener::plain(Limits::default()).await;
    let answer = refused(listener.connect().await).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let listener = Listener::tls(Limits::default()).await;
    let answer = refused(listener.connect_tls(b"http/1.1").await).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_first_head_is_cut_off() {
    let limits = Limits { header_time: Duration::from_millis(200), ..Limits::default() };
    let listener = Listener::plain(limits).await;
    let mut silent = listener.connect().await;
    let mut slow = listener.connect().await;
    send(&mut slow, "GET /hello HTTP/1.1\r\nHost: ").await;
    assert_eq!(rest(&mut silent).await, "");
    let answer = rest(&mut slow).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_second_head_is_cut_off_too() {
    let limits = Limits { keep: Duration::from_millis(200), ..Limits::default() };
    let listener = Listener::plain(limits).await;
    let mut stream = listener.connect().await;
    send(&mut stream, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /hel").await;
    let answer = rest(&mut stream).await;
    assert_eq!(answer.matches("200 OK").count(), 1, "{answer}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
    let listener = Listener::tls(limits).await;
    let mut stream = listener.connect().await;
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn above_the_limit_probes_are_answered_and_all_else_is_told_to_come_back() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let listener = Listener::plain(limits).await;
    let mut first = listener.connect().await;
    send(&mut first, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(&mut first, "hello").await;
    // It has a seat before the next one comes, and says nothing.
    let second = listener.connect().await;

    // None of them asks to be the last on its connection.
    let answer = only(&listener, "/livez", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("alive"), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    for (path, headers) in [("/hello", ""), ("/livez", upgrade)] {
        let answer = only(&listener, path, headers).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{path}: {answer}");
        let head = answer.to_lowercase();
        assert!(head.contains("\r\nconnection: close\r\n"), "{path}: {answer}");
        assert!(head.contains("\r\nretry-after: 5\r\n"), "{path}: {answer}");
    }
    // Who has a seat is served as ever.
    send(&mut first, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = until(&mut first, "hello").await;
    assert!(!answer.to_lowercase().contains("connection: close"), "{answer}");

    drop(second);
    let served = async {
        while !only(&listener, "/hello", "Connection: close\r\n").await.ends_with("hello") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("the seat is free again", served).await;
    listener.drain.stop.cancel();
    drop(first);
    in_time("the listener ends", listener.ended).await.unwrap();
    assert_eq!(listener.counts.open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn above_the_limit_http_2_has_its_probe_and_its_end_too() {
    let listener = Listener::tls(Limits { connections: 1, ..Limits::default() }).await;
    let _seated = listener.connect_tls(b"h2").await;
    let wanted = [
        ("/livez", StatusCode::OK, "alive"),
        ("/hello", StatusCode::SERVICE_UNAVAILABLE, "taken: try again in some seconds.\n"),
    ];
    for (path, status, end) in wanted {
        let io = TokioIo::new(listener.connect_tls(b"h2").await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.unwrap();
        let ended = tokio::spawn(connection);
        let request = Request::get(format!("https://localhost{path}")).body(Body::empty());
        let answer = sender.send_request(request.unwrap());
        let answer = in_time("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.ends_with(end), "{path}: {body}");
        // The client would go on.
        drop(in_time("the server ends the connection", ended).await.unwrap());
        drop(sender);
    }
}

#[tokio::test]
async fn more_than_there_are_spare_seats_who_say_nothing_keep_no_probe_out() {
    let listener = Listener::plain(Limits { connections: 1, ..Limits::default() }).await;
    let _seated = listener.connect().await;
    let mut silent = Vec::new();
    for _ in 0..160 {
        silent.push(listener.connect().await);
    }
    let answer = only(&listener, "/livez", "").await;
    assert!(answer.ends_with("alive"), "{answer}");
    // All were taken in before it, and the first of them had to go.
    assert_eq!(listener.counts.accepted.load(Ordering::Relaxed), 162);
    assert_eq!(rest(&mut silent[0]).await, "");
}

#[tokio::test]
async fn a_drain_finishes_what_was_accepted_and_refuses_what_comes_after() {
    let listener = Listener::plain(Limits::default()).await;
    let mut slow = listener.connect().await;
    send(&mut slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    in_time("the request arrives", listener.asked.notified()).await;
    // Idle when the drain begins, with a request under way shortly after it.
    let mut idle = listener.connect().await;
    send(&mut idle, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until(&mut idle, "hello").await;

    listener.drain.stop.cancel();
    send(&mut idle, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = rest(&mut idle).await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    let refused = async {
        while TcpStream::connect(listener.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("new connections are refused", refused).await;
    assert!(!listener.ended.is_finished());

    listener.go.notify_one();
    let answer = rest(&mut slow).await;
    assert!(answer.ends_with("done"), "{answer}");
    in_time("the listener ends", listener.ended).await.unwrap();
    assert_eq!(listener.counts.open.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_drain_finishes_http_2_requests_too() {
    let listener = Listener::tls(Limits::default()).await;
    let request = Request::get("https://localhost/slow").body(Body::empty()).unwrap();
    let drained = async {
        listener.asked.notified().await;
        listener.drain.stop.cancel();
        listener.go.notify_one();
    };
    let (answer, ()) = tokio::join!(http2(&listener, request), in_time("a request", drained));
    assert_eq!(answer, (StatusCode::OK, "done".to_owned()));
    in_time("the listener ends", listener.ended).await.unwrap();
}

#[tokio::test]
async fn a_kill_ends_what_does_not_end_by_itself() {
    let listener = Listener::plain(Limits::default()).await;
    let mut slow = listener.connect().await;
    send(&mut slow, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    in_time("the request arrives", listener.asked.notified()).await;
    listener.drain.stop.cancel();
    listener.drain.kill.cancel();
    in_time("the listener ends", listener.ended).await.unwrap();
    assert_eq!(rest(&mut slow).await, "");
}

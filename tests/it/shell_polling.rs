//! The contract's shell over SockJS's xhr transports on the real control plane, on one replica or
//! another, SockJS's addresses and headers, and how shells are told that we stop.
//!
//! NOT the websocket transport, nor who may have a shell (`shells.rs`).

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::shells::{DEADLINE, Heard, Opened, Shell, bind, cookie_of, opened, resize, stdin};
use crate::terminals::web;

/// A session of the xhr transports.
pub struct Xhr {
    base: String,
    id: String,
    cookie: String,
}

impl Xhr {
    pub fn of(opened: &Opened, session: &str) -> Xhr {
        let base = format!("/api/sockjs/000/{session}");
        Xhr { base, id: opened.id.clone(), cookie: opened.cookie.clone() }
    }

    fn path(&self, transport: &str) -> String {
        format!("{}/{transport}?{}", self.base, self.id)
    }

    async fn post(&self, gateway: &Gateway, transport: &str, body: &str) -> Answer {
        let headers = [("cookie", self.cookie.as_str())];
        let body = body.as_bytes().to_vec();
        gateway.request(Method::POST, None, &self.path(transport), &headers, body).await
    }

    pub async fn say(&self, gateway: &Gateway, messages: &[Value]) {
        let texts: Vec<String> = messages.iter().map(Value::to_string).collect();
        let sent = self.post(gateway, "xhr_send", &json!(texts).to_string()).await;
        assert_eq!((sent.status, sent.body.len()), (204, 0), "{}", sent.text());
        assert_eq!(sent.header("content-type"), "text/plain; charset=UTF-8");
    }

    /// A message that may take its time, both ways.
    fn send<B>(&self, gateway: &Gateway, transport: &str, body: B) -> ResponseFuture
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(gateway.tls())
            .https_only()
            .enable_http1()
            .build();
        let url = format!("{}{}", gateway.url, self.path(transport));
        let request = Request::post(url).header("cookie", &self.cookie).body(body).unwrap();
        Client::builder(TokioExecutor::new()).build(connector).request(request)
    }

    pub async fn stream(&self, gateway: &Gateway) -> Stream {
        let asked = self.send(gateway, "xhr_streaming", Empty::<Bytes>::new());
        let answer = tokio::time::timeout(DEADLINE, asked).await;
        let (head, body) = answer.expect("an answer in time").unwrap().into_parts();
        assert_eq!(head.status, 200);
        Stream { body, headers: head.headers, read: Vec::new() }
    }
}

/// A message whose body never comes.
fn stalled(xhr: &Xhr, gateway: &Gateway) -> JoinHandle<()> {
    let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let asked = xhr.send(gateway, "xhr_send", body);
    tokio::spawn(async move { drop(asked.await) })
}

/// A streaming answer that is still being read.
pub struct Stream {
    body: Incoming,
    headers: HeaderMap,
    read: Vec<u8>,
}

impl Stream {
    /// The next line; `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await;
            let frame = frame.expect("a frame in time")?;
            self.read.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
    }

    pub async fn shows(&mut self, text: &str) {
        let mut heard = Heard::default();
        while !heard.shown.contains(text) {
            let line = self.line().await.unwrap_or_else(|| panic!("{text} before the end"));
            heard.frame(&line);
        }
    }
}

#[tokio::test]
async fn another_replica_serves_the_id_by_websocket_and_tells_xhr_what_is_wrong() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-replicas").await;
    let secret = format!("{namespace}/csrf");
    let start = async || {
        let extra = vec!["--csrf-secret".to_owned(), secret.clone()];
        gateway::start(Options { extra, ..Options::default() }).await
    };
    let (one, two) = (start().await, start().await);
    let id = opened(&one, cluster.token("admin"), &namespace, "?shell=sh").await;
    // Each takes it once: replicas know nothing of each other.
    for replica in [&two, &one] {
        let mut shell = Shell::bound(replica, &id).await;
        shell.say(&[stdin("echo is-$((40+2))\n")]).await;
        shell.shows("is-42").await;
    }

    let id = opened(&one, cluster.token("admin"), &namespace, "?shell=sh").await;
    let xhr = Xhr::of(&id, "replicas");
    let mut first = xhr.post(&one, "xhr", "").await;
    assert_eq!(first.text(), "o\n");
    let replica = cookie_of(&first);
    let path = "; Path=/api/sockjs/000/replicas; Max-Age=";
    assert!(first.header("set-cookie").contains(path), "{}", first.header("set-cookie"));
    let both = Xhr { cookie: format!("{}; {replica}", id.cookie), ..xhr };
    first = both.post(&two, "xhr", "").await;
    let mut heard = Heard::default();
    heard.frame(first.text().trim());
    assert!(heard.refusal().contains("the same replica"), "{heard:?}");
    let sent = both.post(&two, "xhr_send", "[]").await;
    assert_eq!(sent.status, 404);
    assert!(sent.text().contains("the same replica"), "{}", sent.text());
    assert_eq!(both.post(&one, "xhr_send", "[]").await.status, 204);

    let alone = gateway::start(Options::default()).await;
    let id = opened(&one, cluster.token("admin"), &namespace, "").await;
    let mut shell = Shell::bound(&alone, &id).await;
    assert!(shell.end().await.refusal().contains("not one of ours"));
    for gateway in [one, two, alone] {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn polls_and_what_is_sent_make_a_shell() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-xhr").await;
    let gateway = gateway::start(Options::default()).await;
    let one = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let viewer = opened(&gateway, cluster.token("viewer"), &namespace, "").await;
    let xhr = Xhr::of(&one, "polled");
    assert_eq!(xhr.post(&gateway, "xhr_send", "[]").await.status, 404);
    let first = xhr.post(&gateway, "xhr", "").await;
    assert_eq!((first.status, first.text().as_str()), (200, "o\n"));
    assert_eq!(first.header("content-type"), "application/javascript; charset=UTF-8");
    let uncached = "no-store, no-cache, must-revalidate, max-age=0";
    assert_eq!(first.header("cache-control"), uncached);

    for (body, words) in [("", "Payload expected."), ("[\"a", "Broken JSON encoding.")] {
        let answer = xhr.post(&gateway, "xhr_send", body).await;
        assert_eq!((answer.status, answer.text().as_str()), (500, words));
    }
    xhr.say(&gateway, &[bind(&one.id), resize(80, 24)]).await;
    xhr.say(&gateway, &[stdin("echo is-$((40+2))\n")]).await;
    // Somebody else finds nothing there.
    let theirs = Xhr { cookie: viewer.cookie, base: xhr.base.clone(), id: xhr.id.clone() };
    assert_eq!(theirs.post(&gateway, "xhr_send", "[]").await.status, 404);
    let mut heard = Heard::default();
    heard.frame(theirs.post(&gateway, "xhr", "").await.text().trim());
    assert!(heard.refusal().contains("somebody else"), "{heard:?}");

    let mut heard = Heard::default();
    while !heard.shown.contains("is-42") {
        heard.frame(xhr.post(&gateway, "xhr", "").await.text().trim());
        assert_eq!(heard.close, None, "{heard:?}");
    }
    xhr.say(&gateway, &[stdin("exit\n")]).await;
    while heard.close.is_none() {
        heard.frame(xhr.post(&gateway, "xhr", "").await.text().trim());
    }
    assert_eq!(heard.close, Some((1, "Process exited".to_owned())));
    // Told again to whoever asks again.
    let again = xhr.post(&gateway, "xhr", "").await.text();
    assert_eq!(again, "c[1,\"Process exited\"]\n");
    gateway.stop().await;
}

#[tokio::test]
async fn a_session_takes_two_bodies_at_once_and_no_third() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let one = opened(&gateway, cluster.token("admin"), "no-such-namespace", "?shell=sh").await;
    let (xhr, other) = (Xhr::of(&one, "stalled"), Xhr::of(&one, "beside"));
    // Sessions that nobody fetches from would end.
    let mut fetching = Vec::new();
    for xhr in [&xhr, &other] {
        let mut stream = xhr.stream(&gateway).await;
        while stream.line().await.as_deref() != Some("o") {}
        fetching.push(stream);
    }
    let ask = async || xhr.post(&gateway, "xhr_send", "[]").await;
    let mut stalls = vec![stalled(&xhr, &gateway)];
    // A client sends one after the other: with one that is lost it can go on.
    for _ in 0..3 {
        assert_eq!(ask().await.status, 204);
    }
    stalls.push(stalled(&xhr, &gateway));
    let is_full = || {
        // One that came just while we asked found no room: it comes again.
        for stall in stalls.iter_mut().filter(|stall| stall.is_finished()) {
            *stall = stalled(&xhr, &gateway);
        }
        async { ask().await.status != 204 }
    };
    Cluster::eventually("there is no room", is_full).await;
    let third = ask().await;
    assert_eq!(third.status, 429, "{}", third.text());
    assert!(third.text().contains("Too many"), "{}", third.text());
    let beside = other.post(&gateway, "xhr_send", "[]").await.status;
    assert_eq!(beside, 204, "other sessions have room of their own");
    for stall in &stalls {
        assert!(!stall.is_finished(), "it was not answered");
        stall.abort();
    }
    Cluster::eventually("there is room again", || async { ask().await.status == 204 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_brings_frames_until_its_limit_and_nobody_listens_beside_it() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-stream").await;
    let gateway = gateway::start(Options::default()).await;
    let one = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let xhr = Xhr::of(&one, "streamed");
    let mut stream = xhr.stream(&gateway).await;
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    assert_eq!(stream.line().await.unwrap(), "h".repeat(2048));
    assert_eq!(stream.line().await.unwrap(), "o");
    let beside = xhr.post(&gateway, "xhr", "").await.text();
    assert_eq!(beside, "c[2010,\"Another connection still open\"]\n");
    xhr.say(&gateway, &[bind(&one.id), stdin("echo is-$((40+2))\n")]).await;
    stream.shows("is-42").await;
    // Half as much again as one answer holds: the rest comes with the next.
    let much = "head -c 200000 /dev/zero | tr '\\0' x; echo; echo all-$((40+2))\n";
    xhr.say(&gateway, &[stdin(much)]).await;
    let mut heard = Heard::default();
    while let Some(line) = stream.line().await {
        heard.frame(&line);
    }
    let mut stream = xhr.stream(&gateway).await;
    assert_eq!(stream.line().await.unwrap(), "h".repeat(2048));
    while !heard.shown.contains("all-42") {
        heard.frame(&stream.line().await.expect("it goes on"));
    }
    assert_eq!(heard.shown.matches('x').count() - much.matches('x').count(), 200_000);

    // A client that goes ends its session.
    drop(stream);
    let ended = || async {
        let answer = xhr.post(&gateway, "xhr", "").await.text();
        answer == "c[1002,\"Connection interrupted\"]\n"
    };
    Cluster::eventually("the session has ended", ended).await;
    let large = format!("[\"{}\"]", "x".repeat(70_000));
    let xhr = Xhr::of(&one, "large");
    assert_eq!(xhr.post(&gateway, "xhr", "").await.text(), "o\n");
    assert_eq!(xhr.post(&gateway, "xhr_send", &large).await.status, 413);
    let mut heard = Heard::default();
    heard.frame(xhr.post(&gateway, "xhr", "").await.text().trim());
    assert!(heard.refusal().contains("65536"), "nobody is bound there: {heard:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_long_paste_is_typed_whole_and_nothing_else_may_be_so_long() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-paste").await;
    let gateway = gateway::start(Options::default()).await;
    let one = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let xhr = Xhr::of(&one, "pasted");
    let mut stream = xhr.stream(&gateway).await;
    assert_eq!(stream.line().await.unwrap(), "h".repeat(2048));
    // A terminal keeps no line that is so long unless it is told to pass on what comes.
    let count = "stty raw -echo; echo raw-$((40+2)); head -c $((299999+1)) | wc -c\n";
    xhr.say(&gateway, &[bind(&one.id), resize(80, 24), stdin(count)]).await;
    stream.shows("raw-42").await;
    xhr.say(&gateway, &[stdin(&"x".repeat(300_000))]).await;
    stream.shows("300000").await;
    let padded = format!("{}{}", resize(80, 24), " ".repeat(70_000));
    let refused = xhr.post(&gateway, "xhr_send", &json!([padded]).to_string()).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains("65536"), "{}", refused.text());
    gateway.stop().await;
}

#[tokio::test]
async fn addresses_answer_as_the_protocol_has_it_and_to_our_own_pages() {
    let gateway = gateway::start(Options::default()).await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        gateway.request(method, None, &format!("/api/sockjs{path}"), headers, Vec::new()).await
    };
    for path in ["", "/"] {
        assert_eq!(ask(Method::GET, path, &[]).await.text(), "Welcome to SockJS!\n");
    }
    let ours = gateway.url.as_str();
    let info = ask(Method::GET, "/info?some-id&t=1", &[("origin", ours)]).await;
    assert_eq!(info.header("content-type"), "application/json; charset=UTF-8");
    assert_eq!(info.header("access-control-allow-origin"), ours);
    let mut said = info.json();
    assert!(said["entropy"].as_u64().is_some_and(|entropy| u32::try_from(entropy).is_ok()));
    said["entropy"] = json!(0);
    let expected =
        json!({"websocket": true, "cookie_needed": false, "origins": ["*:*"], "entropy": 0});
    assert_eq!(said, expected);
    let evil = [("origin", "https://evil.example")];
    let info = ask(Method::GET, "/info", &evil).await;
    assert_eq!(info.header("access-control-allow-origin"), "");
    for path in ["/000/a/xhr", "/000/a/xhr_streaming", "/000/a/xhr_send"] {
        assert_eq!(ask(Method::POST, path, &evil).await.status, 403, "{path}");
        let options = ask(Method::OPTIONS, path, &[("origin", ours)]).await;
        assert_eq!(options.status, 204, "{path}");
        assert_eq!(options.header("access-control-allow-methods"), "OPTIONS, POST");
        let get = ask(Method::GET, path, &[]).await;
        assert_eq!((get.status, get.header("allow")), (405, "OPTIONS, POST"), "{path}");
    }
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(ask(Method::GET, "/000/a/websocket", &upgrade).await.status, 403);
    assert_eq!(ask(Method::GET, "/000/a/websocket", &[]).await.status, 400);
    for nowhere in ["/a", "/000/a/jsonp", "/000/a.b/xhr", "/iframe.html", "/000//xhr"] {
        assert_eq!(ask(Method::POST, nowhere, &[]).await.status, 404, "{nowhere}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn shells_are_told_when_we_stop() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-stop").await;
    let gateway = gateway::start(Options::default()).await;
    let one = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let mut shell = Shell::bound(&gateway, &one).await;
    shell.say(&[stdin("echo is-$((40+2))\n")]).await;
    shell.shows("is-42").await;
    let two = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let mut stream = Xhr::of(&two, "stopped").stream(&gateway).await;
    assert_eq!(stream.line().await.unwrap().len(), 2048);
    assert_eq!(stream.line().await.unwrap(), "o");
    let told = async {
        let close = shell.end().await.close.clone();
        (close, stream.line().await)
    };
    let (_, (close, line)) = tokio::join!(gateway.stop(), told);
    assert_eq!(close, Some((3000, "Go away!".to_owned())));
    assert_eq!(line.as_deref(), Some("c[3000,\"Go away!\"]"));
}

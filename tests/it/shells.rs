//! The contract's shell on the real control plane, as browsers open it: an id and its cookie, then
//! SockJS by websocket, and everybody who must not get one. The xhr transports are in
//! `shell_polling.rs`.
//!
//! It is NOT where frames and seals are tested in all their cases (the unit tests of
//! `src/api/sockjs*.rs` and `shell*.rs`), nor the official client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::certificate::trusting;
use crate::cluster;
use crate::gateway::{self, Answer, Gateway, Options};
use crate::lifecycle::{bearer, get};
use crate::log_follow::in_front_of;
use crate::logs::asked;
use crate::people::{self, Person};
use crate::terminals::{Socket, upgraded, web};

/// Until a test gives up waiting; never how long anything should take.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const WEBSOCKET: &str = "/api/sockjs/000/abcdefgh/websocket";

/// A session id and the cookie that came with it.
pub struct Opened {
    pub id: String,
    pub cookie: String,
}

pub fn cookie_of(answer: &Answer) -> String {
    answer.header("set-cookie").split(';').next().unwrap().to_owned()
}

pub async fn opened(gateway: &Gateway, token: &str, namespace: &str, query: &str) -> Opened {
    let path = format!("/api/v1/pod/{namespace}/web/shell/main{query}");
    let answer = people::ask(gateway, token, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    Opened { id, cookie: cookie_of(&answer) }
}

pub fn bind(id: &str) -> Value {
    json!({"Op": "bind", "SessionID": id})
}

pub fn stdin(text: &str) -> Value {
    json!({"Op": "stdin", "Data": text, "Cols": 80, "Rows": 24})
}

pub fn resize(columns: u64, rows: u64) -> Value {
    json!({"Op": "resize", "Cols": columns, "Rows": rows})
}

/// What the frames of an answer or a message say.
#[derive(Debug, Default)]
pub struct Heard {
    /// What the process showed.
    pub shown: String,
    pub toasts: Vec<String>,
    pub close: Option<(u64, String)>,
}

impl Heard {
    pub fn frame(&mut self, frame: &str) {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        if let Some(messages) = frame.strip_prefix('a') {
            for message in json(messages).as_array().unwrap() {
                let message = json(message.as_str().unwrap());
                let data = message["Data"].as_str().unwrap();
                match message["Op"].as_str().unwrap() {
                    "stdout" => self.shown.push_str(data),
                    "toast" => self.toasts.push(data.to_owned()),
                    other => panic!("{other}: {message}"),
                }
            }
        } else if let Some(close) = frame.strip_prefix('c') {
            let close = json(close);
            let (code, reason) = (close[0].as_u64().unwrap(), close[1].as_str().unwrap());
            self.close = Some((code, reason.to_owned()));
        } else {
            assert!(matches!(frame, "o" | "h"), "no frame: {frame}");
        }
    }

    /// The reason of a refusal.
    pub fn refusal(&self) -> &str {
        let (code, reason) = self.close.as_ref().expect("it has ended");
        assert_eq!(*code, 2, "{reason}");
        assert_eq!(self.shown, "", "nothing was shown");
        reason
    }
}

/// A SockJS client on a websocket.
pub struct Shell {
    socket: Socket,
    heard: Heard,
}

impl Shell {
    pub async fn connect(gateway: &Gateway, path: &str, headers: &[(&'static str, &str)]) -> Shell {
        Self::at(gateway.address, gateway.tls(), path, headers).await
    }

    /// The same of a server that is no gateway of ours.
    pub async fn at(
        address: SocketAddr,
        tls: ClientConfig,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Shell {
        let (socket, _) = upgraded(address, tls, path, headers).await;
        Shell { socket, heard: Heard::default() }
    }

    /// As a browser: with the id in the query and the cookie, and nothing bound yet.
    async fn open(gateway: &Gateway, opened: &Opened) -> Shell {
        let path = format!("{WEBSOCKET}?{}", opened.id);
        Self::connect(gateway, &path, &[("cookie", &opened.cookie)]).await
    }

    pub async fn bound(gateway: &Gateway, opened: &Opened) -> Shell {
        let mut shell = Self::open(gateway, opened).await;
        shell.say(&[bind(&opened.id), resize(80, 24)]).await;
        shell
    }

    pub async fn say(&mut self, messages: &[Value]) {
        let texts: Vec<String> = messages.iter().map(Value::to_string).collect();
        self.put(Message::text(json!(texts).to_string())).await;
    }

    async fn put(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Listens until it is so.
    async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Heard) -> bool) -> &Heard {
        while !is_so(&self.heard) {
            let next = tokio::time::timeout(DEADLINE, self.socket.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{what} in time: {:?}", self.heard));
            match next.unwrap_or_else(|| panic!("{what}: {:?}", self.heard)).unwrap() {
                Message::Text(text) => self.heard.frame(&text),
                Message::Close(_) => panic!("closed before {what}: {:?}", self.heard),
                _ => {}
            }
        }
        &self.heard
    }

    pub async fn shows(&mut self, text: &str) {
        self.until(text, |heard| heard.shown.contains(text)).await;
    }

    pub async fn end(&mut self) -> &Heard {
        self.until("the end", |heard| heard.close.is_some()).await
    }
}

#[tokio::test]
async fn an_id_has_the_contracts_shape_and_comes_with_a_cookie_for_sockjs_alone() {
    let gateway = gateway::start(Options::default()).await;
    let path = "/api/v1/pod/atlas/tiles-1/shell/main";
    let answer = gateway.get("admin", path).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let object = answer.json();
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id"]);
    let id = object["id"].as_str().unwrap();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    assert!(id.len() >= 32 && id.chars().all(plain), "{id}");
    assert_ne!(gateway.get("admin", path).await.json()["id"], id);
    let cookie = answer.header("set-cookie");
    let attributes = "; Path=/api/sockjs; HttpOnly; Secure; SameSite=Strict";
    assert!(cookie.starts_with("binnacle-shell=") && cookie.ends_with(attributes), "{cookie}");
    assert!(!cookie.contains(cluster::shared().await.token("admin")), "{cookie}");
    let nobody = gateway.request(Method::GET, None, path, &[], Vec::new()).await;
    assert_eq!((nobody.status, nobody.text().as_str()), (401, "MSG_LOGIN_UNAUTHORIZED_ERROR"));
    for odd in ["a%2Fb/web", "a/%2e%2e", "a%00/web", "a%0Ab/web", "a/web%1B"] {
        let answer = gateway.get("admin", &format!("/api/v1/pod/{odd}/shell/main")).await;
        assert_eq!(answer.status, 400, "{odd}: {}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_browser_types_into_a_shell_and_hears_how_it_ended() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-ws").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = cluster.token("admin");
    let first = opened(&gateway, admin, &namespace, "").await;
    let mut shell = Shell::bound(&gateway, &first).await;
    shell.say(&[stdin("printf 'is-\\303\\251-%d\\n' $((40+2))\n")]).await;
    shell.shows("is-é-42").await;
    // Sizes and what is typed go different ways to the container.
    let wait = "until [ \"$(stty size)\" = '37 101' ]; do sleep 0.05; done; echo wide-$((40+2))\n";
    shell.say(&[resize(101, 37), stdin(wait)]).await;
    shell.shows("wide-42").await;
    shell.say(&[resize(0, 0), resize(1_000_000_000, 24), stdin("stty size; echo same\n")]).await;
    let heard = shell.until("a toast", |heard| !heard.toasts.is_empty()).await;
    assert_eq!(heard.toasts.len(), 1);
    shell.shows("37 101\r\nsame").await;
    shell.say(&[stdin("exit\n")]).await;
    assert_eq!(shell.end().await.close, Some((1, "Process exited".to_owned())));

    let second = opened(&gateway, admin, &namespace, "?shell=sh").await;
    let mut shell = Shell::bound(&gateway, &second).await;
    shell.say(&[stdin("exit 3\n")]).await;
    let ended = (2, "command terminated with exit code 3".to_owned());
    assert_eq!(shell.end().await.close, Some(ended));

    // Its own credentials, as proxies add them, are as good as the cookie.
    let third = opened(&gateway, admin, &namespace, "?shell=sh").await;
    let bearer = format!("Bearer {admin}");
    let mut shell = Shell::connect(&gateway, WEBSOCKET, &[("authorization", &bearer)]).await;
    shell.say(&[bind(&third.id), stdin("echo is-$((40+3))\n")]).await;
    shell.shows("is-43").await;
    // And so is the frontend's own cookie.
    let fourth = opened(&gateway, admin, &namespace, "?shell=sh").await;
    let cookie = format!("lang=en; token={admin}");
    let mut shell = Shell::connect(&gateway, WEBSOCKET, &[("cookie", &cookie)]).await;
    shell.say(&[bind(&fourth.id), stdin("echo is-$((40+4))\n")]).await;
    shell.shows("is-44").await;
    gateway.stop().await;
}

#[tokio::test]
async fn without_the_right_or_the_shell_the_reason_is_told() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-rights").await;
    let gateway = gateway::start(Options::default()).await;
    let person = Person::new(cluster, &namespace, "stranger").await;
    let one = opened(&gateway, &person.token, &namespace, "").await;
    let mut shell = Shell::bound(&gateway, &one).await;
    let reason = shell.end().await.refusal().to_owned();
    assert!(reason.contains("stranger") && reason.contains("pods/exec"), "{reason}");
    let one = opened(&gateway, cluster.token("admin"), &namespace, "?shell=powershell").await;
    let mut shell = Shell::bound(&gateway, &one).await;
    let reason = shell.end().await.refusal().to_owned();
    assert!(reason.contains("powershell") && reason.contains("not found"), "{reason}");
    let path = format!("/api/v1/pod/{namespace}/web/shell/main");
    assert_eq!(people::ask(&gateway, "no-such-token", &path).await.status, 401);
    gateway.stop().await;
}

#[tokio::test]
async fn an_id_is_good_once_a_replica_for_its_caller_and_nothing_comes_before_it() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-ids").await;
    let gateway = gateway::start(Options::default()).await;
    let admin = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let viewer = opened(&gateway, cluster.token("viewer"), &namespace, "").await;

    let mut shell = Shell::open(&gateway, &admin).await;
    shell.say(&[stdin("echo never\n"), bind(&admin.id)]).await;
    let reason = shell.end().await.refusal().to_owned();
    assert!(reason.contains("first message"), "{reason}");

    let (before, after) = admin.id.split_at(admin.id.len() / 2);
    let other = if after.starts_with('A') { 'B' } else { 'A' };
    let changed = format!("{before}{other}{}", &after[1..]);
    let contracts = "0f5a0a0e8e83ac0dc4a0e80aca63ba19";
    for forged in [changed.as_str(), contracts, ""] {
        let mut shell = Shell::open(&gateway, &admin).await;
        shell.say(&[bind(forged)]).await;
        let reason = shell.end().await.refusal().to_owned();
        assert!(reason.contains("not one of ours"), "{forged}: {reason}");
    }

    let cookies = [viewer.cookie.as_str(), "binnacle-shell=x", "other=1"];
    for cookie in cookies {
        let mut shell = Shell::connect(&gateway, WEBSOCKET, &[("cookie", cookie)]).await;
        shell.say(&[bind(&admin.id)]).await;
        let reason = shell.end().await.refusal().to_owned();
        assert!(reason.contains("somebody else"), "{cookie}: {reason}");
    }

    // Nobody has used it up: once it is good.
    let mut first = Shell::bound(&gateway, &admin).await;
    first.say(&[stdin("echo is-$((40+2))\n")]).await;
    first.shows("is-42").await;
    let mut again = Shell::bound(&gateway, &admin).await;
    let reason = again.end().await.refusal().to_owned();
    assert!(reason.contains("used already"), "{reason}");
    first.say(&[bind(&viewer.id)]).await;
    let heard = first.end().await;
    assert!(heard.close.as_ref().unwrap().1.contains("bound already"), "{heard:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn frames_that_are_none_end_a_shell_with_a_reason() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "shell-frames").await;
    let gateway = gateway::start(Options::default()).await;
    let one = opened(&gateway, cluster.token("admin"), &namespace, "?shell=sh").await;
    let large = format!("[\"{}\"]", "x".repeat(70_000));
    for (frame, reason) in [
        (Message::text(large), "65536"),
        (Message::text(r#"["a"#), "frame"),
        (Message::text("[1]"), "frame"),
        (Message::binary(Bytes::from_static(b"[]")), "frame"),
        (Message::text(r#"["no JSON"]"#), "JSON object"),
        (Message::text(json!([json!({"Op": "dance"}).to_string()]).to_string()), "Op must be"),
    ] {
        let mut shell = Shell::open(&gateway, &one).await;
        // Empty ones are ignored.
        shell.put(Message::text("")).await;
        shell.put(frame).await;
        let found = shell.end().await.refusal().to_owned();
        assert!(found.contains(reason), "{reason}: {found}");
    }
    let mut shell = Shell::bound(&gateway, &one).await;
    shell.say(&[stdin("echo is-$((40+2))\n")]).await;
    shell.shows("is-42").await;
    shell.say(&[json!({"Op": "dance"})]).await;
    let close = shell.end().await.close.clone().unwrap();
    assert!(close.0 == 2 && close.1.contains("Op must be"), "{close:?}");
    gateway.stop().await;
}

/// One connection of an API server that has lost how the first process ended and says that all
/// went well; of the next one it tells.
async fn forgetful(mut tcp: TcpStream, tries: Arc<AtomicUsize>) {
    let Some(head) = asked(&mut tcp).await else { return };
    if !head.contains("/pods/web/exec?") {
        let body = json!({"status": {"allowed": true}}).to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}");
        tcp.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut rest = [0; 4096];
        while tcp.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        return;
    }
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accepted = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accepted}\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await.unwrap();
    let mut socket = WebSocketStream::from_raw_socket(tcp, Role::Server, None).await;
    // The size of its terminal is for each.
    while !socket.next().await.unwrap().unwrap().into_data().starts_with(b"\x04") {}
    let words = "exec: \"sh\": executable file not found in $PATH";
    let status = match tries.fetch_add(1, Ordering::SeqCst) {
        0 => json!({"status": "Success"}),
        _ => json!({"status": "Failure", "reason": "InternalError", "message": words}),
    };
    let frame = format!("\u{3}{status}").into_bytes();
    socket.send(Message::binary(frame)).await.unwrap();
    while socket.next().await.is_some_and(|heard| heard.is_ok()) {}
}

/// Such an API server, and how often it was asked for a process.
async fn forgetful_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let tries = Arc::<AtomicUsize>::default();
    let counted = tries.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = server.accept().await {
            tokio::spawn(forgetful(tcp, counted.clone()));
        }
    });
    (address, tries)
}

#[tokio::test]
async fn whose_token_is_too_long_for_a_cookie_is_told_so_and_may_bring_it_himself() {
    let (address, tries) = forgetful_server().await;
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(address, folder.path()).await;
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let token = "t".repeat(3000);
    let url = format!("https://{}/api/v1/pod/shop/web/shell/main?shell=sh", running.https);
    let answer = get(&tls, &url, &bearer(&token)).await.unwrap();
    assert_eq!((answer.status, answer.header("set-cookie")), (200, ""), "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let bring = format!("Bearer {token}");
    let cases: [(&[(&str, &str)], &str); 2] =
        [(&[], "too long"), (&[("authorization", bring.as_str())], "not found")];
    for (headers, words) in cases {
        let mut shell = Shell::at(running.https, tls.clone(), WEBSOCKET, headers).await;
        shell.say(&[bind(&id), resize(80, 24)]).await;
        let reason = shell.end().await.refusal().to_owned();
        assert!(reason.contains(words), "{words}: {reason}");
    }
    assert_eq!(tries.load(Ordering::SeqCst), 2, "nobody else opened one");
}

#[tokio::test]
async fn a_shell_whose_end_the_api_server_has_lost_is_tried_once_more() {
    let (address, tries) = forgetful_server().await;
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(address, folder.path()).await;
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let url = format!("https://{}/api/v1/pod/shop/web/shell/main?shell=sh", running.https);
    let answer = get(&tls, &url, &bearer("anything")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let by = [("authorization", "Bearer anything")];
    let mut shell = Shell::at(running.https, tls, WEBSOCKET, &by).await;
    shell.say(&[bind(&id), resize(80, 24)]).await;
    let reason = shell.end().await.refusal().to_owned();
    assert!(reason.contains("not found"), "{reason}");
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

//! What live answers may cost, and long plain ones, and who gets one: no caller takes what is for
//! others, nobody unknown takes anything, and an API server that is away is not hidden by what others
//! still see.
//!
//! A demo of each test's own stands behind the gateway, to be large, slow or away at will; it is
//! NOT where what streams show is tested (`live.rs`).

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use binnacle::api::Pace;
use binnacle::app::{self, Running};
use binnacle::config::{self, Command};
use binnacle::demo::{Demo, DemoOptions};
use bytes::Bytes;
use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::certificate::trusting;
use crate::lifecycle::{Answer, POLL, bearer, get, in_time};

const ADMIN: &str = "demo-admin-token";
const PODS: &str = "/api/v1/pod";

type Socket = WebSocketStream<TlsStream<TcpStream>>;
type Sender = http2::SendRequest<Empty<Bytes>>;

/// A gateway of this process in front of a demo.
struct Front {
    demo: Demo,
    running: Running,
    tls: ClientConfig,
    _folder: tempfile::TempDir,
}

impl Front {
    /// `away`: how many seconds rows are served without an API server.
    async fn start(pods: usize, away: &str) -> Front {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let demo = Demo::start(DemoOptions { listen, pods, simulate: false }).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (kubeconfig, state) = (folder.path().join("kubeconfig"), folder.path().join("state"));
        std::fs::write(&kubeconfig, demo.kubeconfig()).unwrap();
        let args = [
            ["binnacle", "serve", "--listen", "127.0.0.1:0"],
            ["--kubeconfig", kubeconfig.to_str().unwrap(), "--state-dir", state.to_str().unwrap()],
            ["--stale-while-away", away, "--drain-delay", "0"],
        ];
        let command = config::parse(args.concat().into_iter().map(OsString::from));
        let Ok(Command::Serve(config)) = command else { panic!("bad arguments: {command:?}") };
        let running = app::start(config).await.unwrap();
        let often = Duration::from_millis(300);
        let (check, heartbeat) = (often, Duration::from_secs(1));
        let pace = Pace { check, heartbeat, ..Pace::default() };
        running.gateway.streams.pace.store(Arc::new(pace));
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        let front = Front { demo, running, tls, _folder: folder };
        front.until("the cache is current", 200).await;
        // Without a first poll of usage pages are shorter than they will be.
        assert!(front.running.gateway.usage.begun(Duration::from_secs(60)).await);
        front
    }

    async fn get(&self, path: &str) -> Answer {
        let url = format!("https://{}{path}", self.running.https);
        get(&self.tls, &url, &bearer(ADMIN)).await.unwrap()
    }

    /// Until the plain answer has this status, and comes from the cache if it is a good one.
    async fn until(&self, what: &str, status: u16) {
        let wait = async {
            loop {
                let answer = self.get(PODS).await;
                let cached = answer.header("binnacle-source") == "cache";
                if answer.status == status && (cached || status != 200) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        in_time(what, wait).await;
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_by(self.tls.clone()).await
    }

    async fn connect_by(&self, tls: ClientConfig) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.running.https).await.unwrap();
        let name = ServerName::try_from(self.running.https.ip().to_string()).unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap()
    }

    /// An HTTP/2 connection on which little lies unread.
    async fn http2(&self) -> Sender {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let line = TokioIo::new(self.connect_by(tls).await);
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(64u32 << 10);
        let (sender, connection) = client.handshake(line).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A plain answer that nobody reads yet, or what is answered instead of one.
    async fn ask(
        &self,
        sender: &mut Sender,
        token: &str,
        path: &str,
    ) -> Result<Incoming, (u16, String)> {
        let request = Request::get(format!("https://{}{path}", self.running.https))
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new());
        let answer = in_time("an answer", sender.send_request(request.unwrap())).await.unwrap();
        told(answer).await
    }

    /// A websocket that nobody reads yet.
    async fn socket(&self, path: &str) -> Socket {
        let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
        let value = format!("Bearer {ADMIN}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        let client = tokio_tungstenite::client_async(request, self.connect().await);
        in_time("an upgrade", client).await.unwrap().0
    }

    /// A stream that nobody reads yet, or what is answered instead of one.
    async fn open(&self, token: &str, path: &str) -> Result<Incoming, (u16, String)> {
        let tls = self.connect().await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "text/event-stream")
            .body(Empty::<Bytes>::new());
        let answer = in_time("an answer", sender.send_request(request.unwrap())).await.unwrap();
        told(answer).await
    }
}

/// The body of a good answer, or what another one says.
async fn told(answer: Response<Incoming>) -> Result<Incoming, (u16, String)> {
    let (head, body) = answer.into_parts();
    if head.status == 200 {
        return Ok(body);
    }
    let text = body.collect().await.unwrap().to_bytes();
    Err((head.status.as_u16(), String::from_utf8_lossy(&text).into_owned()))
}

/// All that comes until this has come.
async fn reads(stream: &mut Incoming, wanted: &str) -> String {
    let mut read: Vec<u8> = Vec::new();
    let reading = async {
        loop {
            let frame = stream.frame().await.expect("the stream goes on").unwrap();
            let from = read.len().saturating_sub(wanted.len());
            read.extend_from_slice(&frame.into_data().unwrap_or_default());
            if String::from_utf8_lossy(&read[from..]).contains(wanted) {
                return;
            }
        }
    };
    in_time(wanted, reading).await;
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn no_caller_takes_the_memory_that_is_for_others_and_is_told_what_to_do() {
    let front = Front::start(3_000, "60").await;
    let mut open = Vec::new();
    // Places are for a hundred: memory is taken before.
    let (status, text) = loop {
        match front.open(ADMIN, &format!("{PODS}?a={}", open.len())).await {
            Ok(stream) => open.push(stream),
            Err(refused) => break refused,
        }
    };
    assert!((2..100).contains(&open.len()), "{} streams", open.len());
    let more = format!("{PODS}?a=more");
    assert_eq!(status, 429, "{text}");
    assert!(text.contains("32 MiB") && text.contains("Close some"), "{text}");
    let other = front.open("demo-viewer-token", &more).await;
    assert!(other.is_ok(), "others have room: {other:?}");
    // Looked at again and again meanwhile: what has not changed is not held twice.
    let read = reads(&mut open[0], "}\n\n: \n\n").await;
    assert!(read.contains("event: whole") && !read.contains("event: stale"));

    open.clear();
    let again = async {
        while front.open(ADMIN, &more).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("there is room again", again).await;
}

#[tokio::test]
async fn long_plain_answers_that_nobody_reads_leave_memory_to_others_and_pages_to_everybody() {
    let front = Front::start(3_000, "60").await;
    let mut sender = front.http2().await;
    let mut unread = Vec::new();
    let (status, text) = loop {
        match front.ask(&mut sender, ADMIN, &format!("{PODS}?a={}", unread.len())).await {
            Ok(body) => unread.push(body),
            Err(refused) => break refused,
        }
        assert!(unread.len() < 100, "no end of it");
    };
    assert!(unread.len() > 1, "two long answers have room: {text}");
    assert_eq!(status, 429, "{text}");
    assert!(text.contains("64 MiB") && text.contains("pages"), "{text}");
    // Who reads gets all of it, and who has taken too much still gets pages.
    let mut other = front.http2().await;
    let whole = front.ask(&mut other, "demo-viewer-token", PODS).await.unwrap();
    let whole = in_time("the whole", whole.collect()).await.unwrap().to_bytes();
    assert!(whole.len() > 1 << 20 && whole.ends_with(b"}"), "{} bytes", whole.len());
    assert_eq!(front.get(&format!("{PODS}?itemsPerPage=10&page=1")).await.status, 200);

    drop(unread);
    let again = async {
        while front.ask(&mut sender, ADMIN, PODS).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("there is room again", again).await;
}

#[tokio::test]
async fn a_thousand_reconnects_take_no_place_from_who_comes_after_them() {
    let front = &Front::start(20, "60").await;
    let lanes = (0..20).map(|lane| async move {
        let mut refused = 0;
        for at in 0..50 {
            // Some read the beginning, some are gone before.
            match front.open(ADMIN, PODS).await {
                Ok(mut stream) if (lane + at) % 2 == 0 => {
                    reads(&mut stream, "event: whole").await;
                }
                Ok(_) => {}
                Err((status, text)) => {
                    assert_eq!(status, 429, "{text}");
                    refused += 1;
                }
            }
        }
        refused
    });
    let refused: usize = join_all(lanes).await.into_iter().sum();
    assert!(refused < 1_000, "all were refused");
    let all = async {
        let mut open = Vec::new();
        // As many as one caller may have.
        while open.len() < 100 {
            match front.open(ADMIN, PODS).await {
                Ok(stream) => open.push(stream),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    };
    in_time("places for a hundred streams", all).await;
    assert_eq!(front.get(PODS).await.status, 200);
}

#[tokio::test]
async fn who_goes_and_comes_again_leaves_no_log_and_no_shell_behind() {
    let front = &Front::start(20, "60").await;
    let pods = front.get(&format!("{PODS}?filterBy=status,Running")).await.json();
    let of = |name: &str| pods["pods"][0]["objectMeta"][name].as_str().unwrap().to_owned();
    let (namespace, pod) = (of("namespace"), of("name"));
    let detail = front.get(&format!("{PODS}/{namespace}/{pod}")).await.json();
    let container = detail["containers"][0]["name"].as_str().unwrap();
    let shell = &format!("{PODS}/{namespace}/{pod}/exec?command=sh&stdin=true");
    let log = &format!("/api/v1/log/{namespace}/{pod}/{container}/follow");
    let gateway = &front.running.gateway;
    let open = || (gateway.follows.count(), gateway.shells.count());
    let lanes = (0..10).map(|_| async move {
        for _ in 0..20 {
            let (log, shell) = tokio::join!(front.open(ADMIN, log), front.socket(shell));
            assert!(log.is_ok() && open() != (0, 0), "{log:?}");
            drop(shell);
        }
    });
    join_all(lanes).await;
    let none = async {
        while open() != (0, 0) {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("no place is taken", none).await;
}

#[tokio::test]
async fn a_socket_that_shows_nothing_ends_when_its_caller_is_not_known_any_more() {
    let front = Front::start(0, "60").await;
    let heartbeat = Duration::from_millis(500);
    front.running.gateway.streams.pace.store(Arc::new(Pace { heartbeat, ..Pace::default() }));
    let mut idle = front.socket("/api/v1/stream").await;
    // Read from the beginning: who answers no ping is gone.
    let close = tokio::spawn(async move {
        loop {
            if let Message::Close(frame) = idle.next().await.expect("a close").unwrap() {
                return frame.expect("a code and a reason");
            }
        }
    });
    let mut busy = front.socket("/api/v1/stream").await;
    let subscribe = format!(r#"{{"id":"pods","subscribe":"{PODS}"}}"#);
    busy.send(Message::text(subscribe)).await.unwrap();
    while !in_time("a first answer", busy.next()).await.unwrap().unwrap().is_text() {}
    // Who reads answers pings.
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = busy.next().await {} });
    front.demo.faults().respond("/version", 401, u32::MAX);
    let close = in_time("the end of who shows nothing", close).await.unwrap();
    assert_eq!((u16::from(close.code), close.reason.is_empty()), (1008, false));
    let one_left = async {
        while front.running.gateway.streams.counts().0 != 2 {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the place of the other, and of what it shows", one_left).await;
    assert!(!reading.is_finished(), "who is shown something goes on");
    reading.abort();
}

#[tokio::test]
async fn who_comes_while_the_api_server_is_away_gets_the_plain_answer_and_not_what_others_see() {
    let front = Front::start(0, "1").await;
    let mut shown = front.open(ADMIN, PODS).await.unwrap();
    reads(&mut shown, "event: whole").await;
    front.demo.faults().set_down(true);
    front.until("stale rows end", 503).await;
    let refused = async {
        loop {
            match front.open(ADMIN, PODS).await {
                // Until the next look of the stream that is open.
                Ok(_) => tokio::time::sleep(POLL).await,
                Err(refused) => return refused,
            }
        }
    };
    let (status, text) = in_time("no new stream", refused).await;
    assert!(matches!(status, 503 | 504) && text.contains("API server"), "{status} {text}");
    reads(&mut shown, "event: stale").await;
    front.demo.faults().set_down(false);
    reads(&mut shown, "event: current").await;
    assert!(front.open(ADMIN, PODS).await.is_ok());
}

#[tokio::test]
async fn nobody_unknown_has_a_place_or_anything_evaluated_while_the_api_server_is_silent() {
    let front = Front::start(0, "60").await;
    let faults = front.demo.faults();
    let before = faults.requests("/version");
    faults.delay("/", Duration::from_secs(300));
    let tokens = ["nobody-1", "nobody-2", "nobody-3"];
    let asked = async {
        while faults.requests("/version") < before + 3 {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        _ = join_all(tokens.map(|token| front.open(token, PODS))) => panic!("nobody can answer"),
        () = in_time("each is asked for", asked) => {}
    }
    assert_eq!(front.running.gateway.streams.counts(), (0, 0));
    faults.delay("/", Duration::ZERO);
    assert_eq!(front.open(tokens[0], PODS).await.unwrap_err().0, 401);
    assert!(front.open(ADMIN, PODS).await.is_ok());
}

/// A live detail of a pod that is looked at often, and the pod's path at the API server.
async fn shown_pod() -> (Front, Incoming, String) {
    let front = Front::start(20, "60").await;
    let often = Duration::from_millis(300);
    let pace = Pace { live: often, reread: often, poll: often, ..Pace::default() };
    front.running.gateway.streams.pace.store(Arc::new(pace));
    let pods = front.get(PODS).await.json();
    let of = |name: &str| pods["pods"][0]["objectMeta"][name].as_str().unwrap().to_owned();
    let (namespace, pod) = (of("namespace"), of("name"));
    let mut shown = front.open(ADMIN, &format!("{PODS}/{namespace}/{pod}")).await.unwrap();
    reads(&mut shown, "event: whole").await;
    (front, shown, format!("/api/v1/namespaces/{namespace}/pods/{pod}"))
}

#[tokio::test]
async fn one_slow_answer_of_the_api_server_does_not_hold_up_the_next_for_long() {
    let (front, _shown, object) = shown_pod().await;
    let faults = front.demo.faults();
    let asked_again = async || {
        let before = faults.requests(&object);
        while faults.requests(&object) == before {
            tokio::time::sleep(POLL).await;
        }
    };
    // From now on each look at the pod takes so long; the pause after it must not be four times that.
    faults.delay(&object, Duration::from_secs(4));
    in_time("a look that takes long", asked_again()).await;
    let next = tokio::time::timeout(Duration::from_secs(16), asked_again()).await;
    assert!(next.is_ok(), "the next look waits for longer than the one before took");
}

#[tokio::test]
async fn an_api_server_that_has_just_begun_ends_no_stream_by_what_it_denies_at_first() {
    let (front, mut shown, object) = shown_pod().await;
    let faults = front.demo.faults();
    faults.set_down(true);
    reads(&mut shown, "event: stale").await;
    let away = async {
        while front.running.gateway.cluster.away().is_none() {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("our own watches know it", away).await;
    faults.respond(&object, 403, 3);
    faults.set_down(false);
    // Behind an end nothing more would come.
    reads(&mut shown, "event: current").await;
}

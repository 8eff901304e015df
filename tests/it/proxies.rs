//! Behind a real nginx with the configuration that we ship: one replica or two that take turns, at
//! the root or under a base path, what streams arrives as it is said, and kubectl works. And what
//! other proxies do, said by hand: they add an `Authorization`, or call us by a name of their own.
//!
//! It is NOT where streams, shells and the passthrough are tested in all their cases (`live.rs`,
//! `log_streams.rs`, `shells.rs`, `terminals.rs`, `kubectl.rs`).

use std::time::Duration;

use binnacle::api::Pace;
use futures::SinkExt as _;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::kubectl::{Pair, Way, finish, first_lines, forwarded};
use crate::lifecycle::{self, in_time};
use crate::log_streams::{Stream, socket, told};
use crate::logs::{asked, counting};
use crate::nginx::{self, Nginx};
use crate::people;
use crate::shell_polling::Xhr;
use crate::shells::{Shell, WEBSOCKET, bind, opened, stdin};
use crate::terminals::{Client, sh, web};

/// What nginx's `proxy_read_timeout` is unless somebody changes it.
const NGINX_GIVES_UP: Duration = Duration::from_secs(60);

const SHIPPED: &str = include_str!("../../deploy/nginx.conf");
/// Where some answers say nothing until they are done, and how long that may take: the longest
/// drain; a chart with what it depends on, and a turn; an upload, and a turn; a repository's trial.
const SILENT: [(&str, Duration); 4] = [
    ("/api/v1/node", Duration::from_secs(600)),
    ("/api/v1/release", Duration::from_secs(240)),
    ("/api/v1/chart", Duration::from_secs(330)),
    ("/api/v1/repository", Duration::from_secs(60)),
];

/// Gateways and the nginx in front of them.
struct Front {
    /// One of them, whose addresses and authority are now nginx's: all its clients go through it.
    gateway: Gateway,
    others: Vec<Gateway>,
    nginx: Nginx,
    base: &'static str,
}

impl Front {
    async fn start(replicas: usize, base: &'static str) -> Front {
        let mut gateways = Vec::new();
        for _ in 0..replicas {
            // The first that needs the key makes this Secret, and the others read it.
            let secret = format!("default/csrf-{}", std::process::id());
            let args = ["--insecure-listen", "127.0.0.1:0", "--base-path", base, "--csrf-secret"];
            let mut extra: Vec<String> = args.map(String::from).to_vec();
            extra.push(secret);
            gateways.push(gateway::start(Options { extra, ..Options::default() }).await);
        }
        let servers: Vec<_> = gateways.iter().map(|gateway| gateway.http.unwrap()).collect();
        let nginx = nginx::start(&servers, base).await;
        let mut gateway = gateways.remove(0);
        std::fs::write(&gateway.ca_file, nginx.root_pem()).unwrap();
        gateway.url = format!("{}{base}", nginx.url());
        gateway.address = ([127, 0, 0, 1], nginx.port()).into();
        Front { gateway, others: gateways, nginx, base }
    }

    /// The path that websockets ask for; that of other requests begins with the gateway's `url`.
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The server that answered the only request with this in its path, once it is over.
    async fn served(&self, part: &str) -> String {
        let server = || {
            let log = self.nginx.access_log();
            let line = log.lines().find(|line| line.contains(part))?;
            line.split_whitespace().next_back().map(str::to_owned)
        };
        let is_over = || async { server().is_some() };
        Cluster::eventually(&format!("nginx has logged {part}"), is_over).await;
        server().unwrap()
    }

    async fn stop(self) {
        drop(self.nginx);
        for gateway in std::iter::once(self.gateway).chain(self.others) {
            gateway.stop().await;
        }
    }
}

/// What a change of the list says of its rows, as soon as it says this.
async fn changed<T>(stream: &mut Stream, said: impl Fn(&Value) -> Option<T>) -> T {
    loop {
        if let Some(found) = said(&stream.next().await.data["pods"]) {
            return found;
        }
    }
}

/// As event stream and over the websocket that carries many: a pod that comes and goes. The first
/// events are so small that a proxy which holds anything back would hold them.
async fn a_list_lives(front: &Front, cluster: &Cluster) {
    let namespace = cluster.namespace("proxies-list").await;
    let (gateway, admin) = (&front.gateway, cluster.token("admin"));
    let path = format!("/api/v1/pod/{namespace}?itemsPerPage=10&page=1");
    let (url, accept) = (format!("{}{path}", gateway.url), [("accept", "text/event-stream")]);
    let mut stream = Stream::open(gateway.tls(), &url, admin, &accept).await;
    assert_eq!(stream.next().await.name, "whole");
    let mut many = socket(gateway, admin, &front.at("/api/v1/stream")).await;
    let subscribe = json!({"id": "pods", "subscribe": path}).to_string();
    many.send(Message::text(subscribe)).await.unwrap();
    assert_eq!(told(&mut many).await["event"], "whole");

    people::pod(cluster, &namespace, "seen", "none").await;
    let row = |rows: &Value| {
        let mut rows = rows["set"].as_array()?.iter();
        let row = rows.find(|row| row["objectMeta"]["name"] == "seen")?;
        Some(row["objectMeta"]["uid"].clone())
    };
    let uid = changed(&mut stream, row).await;
    while row(&told(&mut many).await["data"]["pods"]).is_none() {}
    let object = format!("/api/v1/namespaces/{namespace}/pods/seen?gracePeriodSeconds=0");
    people::delete(cluster, &object).await;
    let gone = |rows: &Value| rows["removed"].as_array()?.contains(&uid).then_some(());
    changed(&mut stream, gone).await;
    while gone(&told(&mut many).await["data"]["pods"]).is_none() {}
}

/// Three lines, and nothing more that could push them through.
async fn a_log_is_followed(front: &Front, cluster: &Cluster) {
    let namespace = cluster.namespace("proxies-log").await;
    counting(cluster, &namespace, "log", 3, 0).await;
    let (gateway, admin) = (&front.gateway, cluster.token("admin"));
    let path = format!("/api/v1/log/{namespace}/log/main/follow");
    let (lines, _) = Stream::of(gateway, admin, &path).await.lines(3).await;
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);
    let mut socket = socket(gateway, admin, &front.at(&path)).await;
    let message = told(&mut socket).await;
    let content = &message["data"][0]["content"];
    assert_eq!((&message["event"], content), (&json!("lines"), &json!("line 1")));
}

/// The contract's shell, a process, and a port. Returns the id of the shell.
async fn terminals_work(front: &Front, cluster: &Cluster, namespace: &str) -> String {
    let (gateway, admin) = (&front.gateway, cluster.token("admin"));
    let id = opened(gateway, admin, namespace, "?shell=sh").await;
    let path = front.at(&format!("{WEBSOCKET}?{}", id.id));
    let origin = front.nginx.url();
    // As a browser: by a name and a port of which only nginx knows.
    let host = origin.trim_start_matches("https://");
    let headers = [("cookie", id.cookie.as_str()), ("origin", origin.as_str()), ("host", host)];
    let mut shell = Shell::connect(gateway, &path, &headers).await;
    shell.say(&[bind(&id.id), stdin("echo is-$((40+2))\n")]).await;
    shell.shows("is-42").await;

    let failing = front.at(&sh(namespace, "echo out; echo problem >&2; exit 3"));
    let mut client = Client::open(gateway, admin, &failing).await;
    assert_eq!((client.closed().await, client.code()), (1000, Some(3)));
    assert_eq!((client.out.as_str(), client.error.as_str()), ("out\n", "problem\n"));

    let port = front.at(&format!("/api/v1/pod/{namespace}/web/portforward/8080"));
    let mut client = Client::open(gateway, admin, &port).await;
    let asked = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    client.put(Message::binary(asked.as_bytes().to_vec())).await;
    assert_eq!(client.closed().await, 1000);
    let answer = String::from_utf8_lossy(&client.bytes).into_owned();
    assert!(answer.contains(&format!("hello from {namespace}/web port 8080")), "{answer}");
    id.id
}

/// By xhr both directions have to reach the same replica, so only with one.
async fn a_shell_works_by_xhr(front: &Front, cluster: &Cluster, namespace: &str) {
    let id = opened(&front.gateway, cluster.token("admin"), namespace, "?shell=sh").await;
    let xhr = Xhr::of(&id, "streamed");
    let mut stream = xhr.stream(&front.gateway).await;
    assert_eq!(stream.line().await.unwrap(), "h".repeat(2048));
    assert_eq!(stream.line().await.unwrap(), "o");
    xhr.say(&front.gateway, &[bind(&id.id), stdin("echo is-$((40+2))\n")]).await;
    stream.shows("is-42").await;
}

#[tokio::test]
async fn what_streams_works_through_nginx_with_one_replica() {
    let cluster = cluster::shared().await;
    let front = Front::start(1, "").await;
    let namespace = web(cluster, "proxies-one").await;
    a_list_lives(&front, cluster).await;
    a_log_is_followed(&front, cluster).await;
    terminals_work(&front, cluster, &namespace).await;
    a_shell_works_by_xhr(&front, cluster, &namespace).await;
    front.stop().await;
}

#[tokio::test]
async fn what_streams_works_through_nginx_with_two_replicas_that_take_turns() {
    let cluster = cluster::shared().await;
    let front = Front::start(2, "").await;
    let namespace = web(cluster, "proxies-two").await;
    a_list_lives(&front, cluster).await;
    a_log_is_followed(&front, cluster).await;
    let id = terminals_work(&front, cluster, &namespace).await;
    let (open, bound) = (front.served("/web/shell/main").await, front.served(WEBSOCKET).await);
    assert_ne!(open, bound, "the id came from one replica, and was bound at the other");
    assert!(!front.nginx.access_log().contains(&id), "ids are not logged");
    front.stop().await;
}

#[tokio::test]
async fn what_streams_works_through_nginx_under_a_base_path() {
    let cluster = cluster::shared().await;
    let front = Front::start(2, "/dashboard").await;
    let namespace = web(cluster, "proxies-base").await;
    let page = front.gateway.get("admin", &format!("/api/v1/pod/{namespace}")).await;
    assert_eq!(page.json()["pods"][0]["objectMeta"]["name"], "web");
    a_list_lives(&front, cluster).await;
    a_log_is_followed(&front, cluster).await;
    terminals_work(&front, cluster, &namespace).await;
    front.stop().await;
}

/// kubectl behind nginx, in a namespace with a pod that runs and one that has logged three lines.
async fn kubectl(replicas: usize, base: &'static str) -> (Pair, Nginx, Vec<Gateway>) {
    let cluster = cluster::shared().await;
    let Front { gateway, others, nginx, .. } = Front::start(replicas, base).await;
    let namespace = cluster.namespace("proxies-kubectl").await;
    let pair = Pair { cluster, gateway, namespace, at_root: false };
    pair.pod().await;
    counting(cluster, &pair.namespace, "log", 3, 0).await;
    (pair, nginx, others)
}

async fn runs(pair: &Pair, websockets: &str) {
    let script = "cat; echo problem >&2; exit 7";
    let args = ["exec", "-i", "web", "--", "sh", "-c", script];
    let mut command = pair.command(Way::Through, &pair.namespace, &args);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
    let input = "some input\n".repeat(5000);
    let ran = finish(command, &input).await;
    assert_eq!(ran.code, Some(7), "websockets: {websockets}: {}", ran.words);
    assert!(ran.out == input, "{} bytes came back", ran.out.len());
}

#[tokio::test]
async fn kubectl_works_through_nginx() {
    let (pair, _nginx, _others) = kubectl(2, "").await;
    let out = pair.same(&["get", "pods"]).await.out;
    assert!(out.contains("web "), "{out}");
    let args = ["logs", "-f", "log"];
    let mut child = pair.command(Way::Through, &pair.namespace, &args).spawn().unwrap();
    assert_eq!(first_lines(&mut child, 3).await, ["line 1", "line 2", "line 3"]);
    let hello = format!("hello from {}/web port 8080", pair.namespace);
    for websockets in ["true", "false"] {
        runs(&pair, websockets).await;
        let answer = forwarded(&pair, websockets).await;
        assert!(answer.contains(&hello), "websockets: {websockets}: {answer}");
    }
}

#[tokio::test]
async fn kubectl_works_through_nginx_under_a_base_path_and_sees_changes_at_once() {
    let (pair, _nginx, _others) = kubectl(1, "/dashboard").await;
    runs(&pair, "true").await;
    let args = ["get", "configmaps", "--watch", "-o", "name"];
    let mut child = pair.command(Way::Through, &pair.namespace, &args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listed = in_time("the list", lines.next_line()).await.unwrap();
    assert_eq!(listed.as_deref(), Some("configmap/kube-root-ca.crt"));
    // From the list on nothing is missed.
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}});
    let collection = format!("/api/v1/namespaces/{}/configmaps", pair.namespace);
    people::create(pair.cluster, &collection, object).await;
    let next = in_time("the change", lines.next_line()).await.unwrap();
    assert_eq!(next.as_deref(), Some("configmap/seen"));
    child.kill().await.unwrap();
}

#[tokio::test]
async fn behind_nginx_our_own_pages_are_known_by_their_origin_and_others_refused() {
    let front = Front::start(1, "/dashboard").await;
    let gateway = &front.gateway;
    let link = format!("/?token={}", gateway.local_token.as_ref().unwrap());
    let signed = gateway.request(Method::GET, None, &link, &[], Vec::new()).await;
    assert_eq!((signed.status, signed.header("location")), (303, "/dashboard/"));
    let cookie = signed.header("set-cookie");
    assert!(cookie.contains("; Path=/dashboard/;"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let object = "/clusters/test/api/v1/namespaces/default/configmaps/nobody-made-this";
    let ours = front.nginx.url();
    for (origin, known) in [
        (ours.as_str(), true),
        ("https://evil.example", false),
        ("https://localhost", false),
        ("null", false),
    ] {
        let headers = [("cookie", cookie), ("origin", origin)];
        let answer = gateway.request(Method::DELETE, None, object, &headers, Vec::new()).await;
        assert_eq!(answer.status, if known { 404 } else { 403 }, "{origin}: {}", answer.text());
        let xhr = format!("/api/sockjs/000/{}/xhr", origin.len());
        let headers = [("origin", origin)];
        let answer = gateway.request(Method::POST, None, &xhr, &headers, Vec::new()).await;
        assert_eq!(answer.status, if known { 200 } else { 403 }, "{origin}: {}", answer.text());
    }
    // The token is nowhere in the log.
    let (log, link) = (front.nginx.access_log(), gateway.local_token.clone().unwrap());
    assert!(log.contains("GET /dashboard/ ") && !log.contains(&link), "{log}");
    front.stop().await;
}

#[tokio::test]
async fn no_other_sites_page_acts_by_an_authorization_that_a_proxy_adds() {
    let gateway = gateway::start(Options::default()).await;
    let (ours, theirs) = (("origin", gateway.url.as_str()), ("origin", "https://evil.example"));
    let json_type = ("content-type", "application/json");
    let by_browser = ("sec-fetch-site", "same-origin");
    let socket = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    // Nobody is there: who is told so would have had a shell.
    let exec = "/clusters/test/api/v1/namespaces/default/pods/nobody-made-this/exec?command=id";
    let cases: [(&[(&str, &str)], u16); 4] =
        [(&[], 404), (&[ours], 404), (&[theirs, by_browser], 404), (&[theirs], 403)];
    for (more, status) in cases {
        let headers = [&socket[..], more].concat();
        let answer = gateway.request(Method::GET, Some("admin"), exec, &headers, Vec::new()).await;
        assert_eq!(answer.status, status, "{more:?}: {}", answer.text());
    }
    let path = "/clusters/test/api/v1/namespaces?dryRun=All";
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "posted"}});
    // Other sites' pages post JSON only after a preflight, in which we let them have nothing.
    let cases: [(&[(&str, &str)], u16); 4] =
        [(&[], 201), (&[ours], 201), (&[theirs], 403), (&[theirs, json_type], 201)];
    for (headers, status) in cases {
        let body = object.to_string().into_bytes();
        let answer = gateway.request(Method::POST, Some("admin"), path, headers, body).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_shell_opens_behind_a_proxy_that_calls_us_by_another_name() {
    let gateway = gateway::start(Options::default()).await;
    let page = [("host", "dashboard-api:8000"), ("origin", "https://localhost:8443")];
    let told = [("x-forwarded-host", "localhost"), ("x-forwarded-port", "8443")];
    let cases: [(&[(&str, &str)], u16); 4] = [
        (&[("sec-fetch-site", "same-origin")], 200),
        (&told, 200),
        (&told[..1], 403),
        (&[("sec-fetch-site", "same-site"), told[0], told[1]], 403),
    ];
    for (at, (more, status)) in cases.into_iter().enumerate() {
        let (path, headers) =
            (format!("/api/sockjs/000/named-{at}/xhr"), [&page[..], more].concat());
        let answer = gateway.request(Method::POST, None, &path, &headers, Vec::new()).await;
        assert_eq!(answer.status, status, "{more:?}: {}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_chart_is_not_too_large_for_nginx_and_lists_at_the_same_paths_are_not_redirected() {
    let front = Front::start(1, "").await;
    let gateway = &front.gateway;
    let (release, chart) = ("/api/v1/release/default", "/api/v1/chart/none");
    // The second is refused before its body is read: it must not look like a replica that fails.
    let json = (release, "application/json", 400, "chart");
    for (path, content, status, word) in [json, (chart, "application/gzip", 404, "none")] {
        let (headers, large) = ([("content-type", content)], vec![b' '; 6 << 20]);
        let answer = gateway.request(Method::POST, Some("admin"), path, &headers, large).await;
        let words = answer.text();
        assert!(answer.status == status && words.contains(word), "{path}: {words}");
        assert_ne!(front.served(path).await, "-", "{path}: a replica was asked");
    }
    for list in ["node", "release", "chart", "repository"] {
        let answer = gateway.get("admin", &format!("/api/v1/{list}")).await;
        assert_eq!(answer.status, 200, "{list}: {}", answer.text());
    }
    front.stop().await;
}

/// A server that answers everything, each time on a connection of its own, until it is aborted.
fn answering(listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            if asked(&mut tcp).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
                let _ = tcp.write_all(answer).await;
            }
        }
    })
}

/// What nginx says of so many requests, one after the other.
async fn statuses(nginx: &Nginx, path: &str, requests: usize) -> Vec<u16> {
    let (tls, url) = (trusting(nginx.root_pem()), format!("{}{path}", nginx.url()));
    let mut all = Vec::new();
    for _ in 0..requests {
        all.push(lifecycle::get(&tls, &url, &[]).await.unwrap().status);
    }
    all
}

#[tokio::test]
async fn replicas_that_were_refused_in_turn_are_asked_again_at_once() {
    let (mut servers, mut held) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        // Nobody else gets the port while nobody listens there.
        let kept = TcpSocket::new_v4().unwrap();
        kept.set_reuseaddr(true).unwrap();
        kept.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = kept.local_addr().unwrap();
        held.push(kept);
        servers.push((address, answering(TcpListener::bind(address).await.unwrap())));
    }
    let addresses: Vec<_> = servers.iter().map(|(address, _)| *address).collect();
    let nginx = nginx::start(&addresses, "").await;
    // As a rolling update does it: one after the other is away for a moment.
    for (address, server) in &mut servers {
        server.abort();
        assert!((&mut *server).await.unwrap_err().is_cancelled());
        assert_eq!(statuses(&nginx, "/api/v1/pod", 4).await, [200u16; 4], "{address} is away");
        *server = answering(TcpListener::bind(*address).await.unwrap());
    }
    assert_eq!(statuses(&nginx, "/api/v1/pod", 4).await, [200u16; 4], "both are back");
    drop(held);
}

#[tokio::test]
async fn who_does_not_even_refuse_is_passed_over_before_anybody_gives_up() {
    let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Nobody takes what comes here: when its queue is full, connecting is not answered.
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let silent = silent.listen(1).unwrap();
    let gone = silent.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(one) = timeout(Duration::from_millis(500), TcpStream::connect(gone)).await {
        queue.push(one.unwrap());
        assert!(queue.len() < 100, "the queue has an end");
    }
    let nginx = nginx::start(&[gone, here.local_addr().unwrap()], "").await;
    let server = answering(here);
    // nginx's own patience would be twice as long.
    for path in ["/api/v1/pod", "/api/v1/node"] {
        let said = timeout(NGINX_GIVES_UP / 2, statuses(&nginx, path, 2)).await;
        assert_eq!(said.expect("in time"), [200u16; 2], "{path}");
    }
    let is_logged = || async { nginx.access_log().contains(&gone.to_string()) };
    Cluster::eventually("it was tried", is_logged).await;
    server.abort();
    drop(queue);
}

#[test]
fn a_quiet_stream_gives_a_sign_of_life_before_nginx_gives_up() {
    assert!(Pace::default().heartbeat * 2 < NGINX_GIVES_UP);
    // But for the Kubernetes API as it is, and logs as plain files, into which nobody may put any,
    // and for what is no stream.
    assert_eq!(SHIPPED.matches("proxy_read_timeout").count(), 2 + SILENT.len());
    assert_eq!(SHIPPED.matches("proxy_buffering").count(), 1);
}

#[test]
fn nginx_waits_for_what_says_nothing_until_it_is_done_and_asks_no_other_replica_for_it() {
    for (path, longest) in SILENT {
        let begin = format!("location {path} {{");
        let (_, location) = SHIPPED.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
        let (location, _) = location.split_once('}').unwrap();
        let (_, limit) = location.split_once("proxy_read_timeout ").unwrap();
        let minutes: u64 = limit.split_once("m;").unwrap().0.parse().unwrap();
        assert!(Duration::from_secs(60 * minutes) > longest, "{path}: {minutes} minutes");
        // A connect that is not answered is over within these, no answer that is waited for.
        let passed_on =
            "proxy_next_upstream error timeout;\n            proxy_next_upstream_timeout 10s;";
        assert!(location.contains(passed_on), "{path}: {location}");
        let takes_charts = location.contains("client_max_body_size 30m;");
        assert_eq!(takes_charts, ["/api/v1/release", "/api/v1/chart"].contains(&path), "{path}");
    }
}

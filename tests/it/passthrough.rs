//! The passthrough on the real API server, byte by byte: the same bodies and headers, streams that
//! stream, upgrades that are reviewed, and paths that are refused.
//!
//! kubectl itself is in `kubectl.rs`; misuse that concerns every route is in `bad_input.rs`.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderName, Method};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::log_streams;
use crate::people::{self, Person, ask, grant, rule};

const DEADLINE: Duration = Duration::from_secs(60);
const DISCOVERY: &str = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A connection on which the test writes and reads the bytes itself.
struct Wire {
    stream: TlsStream<TcpStream>,
    seen: Vec<u8>,
}

impl Wire {
    async fn open(gateway: &Gateway) -> Wire {
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(gateway.tls()));
        Wire { stream: connector.connect(name, tcp).await.unwrap(), seen: Vec::new() }
    }

    /// Sends the head of a GET through us and nothing else.
    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) {
        let mut head = format!("GET /clusters/test{path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Reads until the text has come, and returns all that has.
    async fn until(&mut self, text: &str) -> String {
        let reading = async {
            loop {
                let seen = String::from_utf8_lossy(&self.seen).into_owned();
                if seen.contains(text) {
                    return seen;
                }
                let count = self.stream.read_buf(&mut self.seen).await.unwrap_or_default();
                assert!(count > 0, "the connection ended before {text:?} came: {seen}");
            }
        };
        let read = tokio::time::timeout(DEADLINE, reading).await;
        read.unwrap_or_else(|_| panic!("{text:?} did not come"))
    }

    /// Reads until the other side ends the connection.
    async fn read_to_end(&mut self) {
        let reading = async {
            while self.stream.read_buf(&mut self.seen).await.is_ok_and(|count| count > 0) {}
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("the connection ends");
    }
}

/// The headers of a WebSocket request, but for who asks.
fn websocket(protocols: &str) -> Vec<(&str, &str)> {
    vec![
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", protocols),
    ]
}

/// What must be equal: not the time, not the API server's name for a single request, and nothing that
/// speaks of one connection only. We add none of our own.
fn comparable(headers: &HeaderMap) -> Vec<(String, String)> {
    let ignored = |name: &str| {
        matches!(name, "date" | "audit-id" | "connection" | "transfer-encoding")
            || name.starts_with("x-kubernetes-pf-")
    };
    let mut all: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !ignored(name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    all.sort();
    all
}

async fn running_pod(cluster: &Cluster, namespace: &str) {
    people::pod(cluster, namespace, "web", "none").await;
    let path = format!("/api/v1/namespaces/{namespace}/pods/web");
    let running = || async {
        let (_, _, body) = cluster.get(cluster.token("admin"), &path).await;
        let pod: serde_json::Value = serde_json::from_slice(&body).unwrap();
        pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    };
    Cluster::eventually("the pod runs", running).await;
}

#[tokio::test]
async fn answers_are_those_of_the_api_server_in_body_headers_and_status() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("same").await;
    let in_it = format!("/api/v1/namespaces/{namespace}");
    let metadata = json!({"name": "a"});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    people::create(cluster, &format!("{in_it}/configmaps"), object).await;
    // Too long for the API server to know its length before it is written.
    let long = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "long"},
        "data": {"text": "x".repeat(10_000)}});
    people::create(cluster, &format!("{in_it}/configmaps"), long).await;
    let map = format!("{in_it}/configmaps/a");
    let long = format!("{in_it}/configmaps/long");
    let missing = format!("{in_it}/pods/missing");
    let service = format!("{in_it}/services/https:dashboard:/proxy/a%20b/c%2Fd?e=%2F&&f");
    let cases = [
        (Method::GET, map.as_str(), "application/json"),
        (Method::GET, map.as_str(), "application/yaml"),
        (Method::GET, map.as_str(), PROTOBUF),
        (Method::HEAD, map.as_str(), "*/*"),
        (Method::GET, long.as_str(), "*/*"),
        (Method::HEAD, long.as_str(), "*/*"),
        (Method::GET, map.as_str(), "image/png"),
        (Method::GET, missing.as_str(), "application/json"),
        (Method::GET, service.as_str(), "application/json"),
        (Method::GET, "/version", "*/*"),
        (Method::GET, "/version/", "*/*"),
        (Method::POST, "/version", "*/*"),
        (Method::PUT, "/api/v1/pods", "*/*"),
        (Method::GET, "/api/v1", "application/json"),
        (Method::GET, "/apis/apps/v1", "application/json"),
        (Method::GET, "/api", DISCOVERY),
        (Method::GET, "/nowhere", "*/*"),
        (Method::GET, "/apis/no.such.group/v1/things", "application/json"),
    ];
    for user in ["admin", "nobody"] {
        for (method, path, accept) in &cases {
            let headers = [("accept", *accept)];
            let token = cluster.token(user);
            let (status, direct, body) =
                cluster.request(method.clone(), token, path, &headers, "").await;
            let path = format!("/clusters/test{path}");
            let through =
                gateway.request(method.clone(), Some(user), &path, &headers, Vec::new()).await;
            let case = format!("{method} {path} as {accept} for {user}");
            assert_eq!(through.status, status, "{case}: {}", through.text());
            assert_eq!(through.body, body, "{case}");
            assert_eq!(comparable(&through.headers), comparable(&direct), "{case}");
        }
    }
}

#[tokio::test]
async fn without_good_credentials_it_is_a_401_as_kubernetes_writes_it() {
    let gateway = gateway::start(Options::default()).await;
    // Nor does anybody learn whether a path is odd or a cluster exists.
    for path in ["/clusters/test/api/v1/pods", "/clusters/test/%00", "/clusters/other/api"] {
        let answer = gateway.request(Method::GET, None, path, &[], Vec::new()).await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
        let wanted = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
        });
        assert_eq!(answer.json(), wanted);
    }
    // And who made his up not what the cluster is called.
    for path in ["/clusters/test/api/v1/pods", "/clusters/other/api"] {
        let answer = ask(&gateway, "no-such-token", path).await;
        assert_eq!((answer.status, answer.json()["code"].as_u64()), (401, Some(401)), "{path}");
        assert_eq!(answer.json()["message"], "Unauthorized", "{path}");
    }
    let other = gateway.get("admin", "/clusters/other/api").await;
    assert_eq!((other.status, other.json()["reason"].as_str()), (404, Some("NotFound")));
}

#[tokio::test]
async fn kubectl_reaches_a_cluster_whose_name_has_a_slash() {
    const NAME: &str = "arn:aws:eks:eu-1:1:cluster/prod";
    let cluster = cluster::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig("admin")).unwrap();
    let renamed = kubeconfig
        .replace("- name: test\n  context:", &format!("- name: {NAME}\n  context:"))
        .replace("current-context: test", &format!("current-context: {NAME}"));
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, renamed).unwrap();
    let extra = vec!["--base-path".to_owned(), "/b".to_owned()];
    let options = Options { extra, ..Options::default() };
    let gateway = gateway::start_with(&path, options, cluster).await;
    let namespace = cluster.namespace("slash").await;
    running_pod(cluster, &namespace).await;
    for name in [NAME.to_owned(), NAME.replace('/', "%2F")] {
        let kubectl = async |user: &str, args: &[&str]| {
            let mut command = Command::from(cluster.kubectl_command(user));
            command.env("KUBECONFIG", "/dev/null").args(["--token", cluster.token(user)]);
            command.arg("--server").arg(format!("{}/b/clusters/{name}", gateway.url));
            command.arg("--certificate-authority").arg(&gateway.ca_file);
            command.args(["--namespace", &namespace]).args(args).kill_on_drop(true);
            let output = tokio::time::timeout(DEADLINE, command.output()).await;
            output.expect("kubectl ends").unwrap()
        };
        let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        let listed = kubectl("admin", &["get", "pods", "-o", "name"]).await;
        assert_eq!(listed.stdout, b"pod/web\n", "{name}: {}", said(&listed));
        let exec = ["exec", "web", "--", "echo", "good-morning"];
        let ran = kubectl("admin", &exec).await;
        assert_eq!(ran.stdout, b"good-morning\n", "{name}: {}", said(&ran));
    }
    let other = gateway.get("admin", "/b/clusters/arn:aws:eks:eu-1:1:cluster/test/api").await;
    assert_eq!(other.status, 404, "{}", other.text());
    gateway.stop().await;
}

#[tokio::test]
async fn impersonation_goes_on_with_the_callers_own_credentials() {
    let gateway = gateway::start(Options::default()).await;
    let path = "/clusters/test/api/v1/nodes";
    let forged = [("x-remote-user", "token-admin"), ("x-remote-group", "system:masters")];
    let answer = gateway.request(Method::GET, Some("nobody"), path, &forged, Vec::new()).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("nobody"), "{}", answer.text());
    let headers = [("impersonate-user", "viewer")];
    let answer = gateway.request(Method::GET, Some("nobody"), path, &headers, Vec::new()).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("impersonate"), "{}", answer.text());
    let answer = gateway.request(Method::GET, Some("admin"), path, &headers, Vec::new()).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("User \\\"viewer\\\""), "{}", answer.text());
}

#[tokio::test]
async fn nul_dot_segments_and_slashes_in_names_are_a_400_for_requests_and_upgrades() {
    let gateway = gateway::start(Options::default()).await;
    let bearer = format!("Bearer {}", cluster::shared().await.token("admin"));
    for path in [
        "/api/v1/../../version",
        "/api/v1/namespaces/%2e%2e/pods",
        "/api/v1/namespaces/%252e%252e/pods",
        "/api/v1/namespaces/default/pods/a%00",
        "/api/v1/namespaces/default/pods/a%2Fexec",
        "/api/v1/namespaces/default/services/s/proxy/%2e%2e/x",
        "/api/v1/namespaces/default/pods/%zz",
    ] {
        let answer = gateway.get("admin", &format!("/clusters/test{path}")).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(answer.json()["reason"], "BadRequest", "{path}");
    }
    for path in [
        "/api/v1/namespaces/default/pods/a%2Fexec?command=id",
        "//api/v1/namespaces/default/pods/a/exec?command=id",
        "/api/v1/namespaces/default/pods/a//exec?command=id",
        "/api/v1/proxy/nodes/n/exec",
        "/version",
    ] {
        let mut wire = Wire::open(&gateway).await;
        let mut headers = websocket("v5.channel.k8s.io");
        headers.push(("Authorization", &bearer));
        wire.get(path, &headers).await;
        let answer = wire.until("\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_watch_delivers_its_first_event_before_the_second_exists() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("stream").await;
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    let secret = |name: &str| {
        let metadata = json!({"name": name});
        people::create(
            cluster,
            &secrets,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}),
        )
    };
    let mut wire = Wire::open(&gateway).await;
    let bearer = format!("Bearer {}", cluster.token("admin"));
    wire.get(&format!("{secrets}?watch=1"), &[("Authorization", &bearer)]).await;
    wire.until("200 OK").await;
    secret("the-first").await;
    let seen = wire.until("the-first").await;
    assert!(seen.contains("ADDED") && !seen.contains("the-second"), "{seen}");
    secret("the-second").await;
    wire.until("the-second").await;
}

#[tokio::test]
async fn a_megabyte_goes_both_ways_unchanged() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("big").await;
    let maps = format!("/clusters/test/api/v1/namespaces/{namespace}/configmaps");
    let letter = |at: u64| char::from(b'a' + (at * at % 23) as u8);
    let text: String = (0..1_000_000).map(letter).collect();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "big"}, "data": {"text": text},
    });
    let json_type = [("content-type", "application/json")];
    let body = map.to_string().into_bytes();
    let made = gateway.request(Method::POST, Some("admin"), &maps, &json_type, body).await;
    assert_eq!(made.status, 201);
    let read = gateway.get("admin", &format!("{maps}/big")).await;
    assert!(read.json()["data"]["text"] == text.as_str(), "the text came back changed");
}

/// Greets whoever opens a websocket, and says everything back.
async fn echo(listener: TcpListener) {
    while let Ok((tcp, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut socket = tokio_tungstenite::accept_async(tcp).await.unwrap();
            socket.send(Message::text("welcome")).await.unwrap();
            while let Some(Ok(message @ Message::Text(_))) = socket.next().await {
                socket.send(message).await.unwrap();
            }
        });
    }
}

/// Gives everybody the same page with a cookie, and says which headers came.
async fn page(listener: TcpListener) {
    let page = |headers: HeaderMap| async move {
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        ([("set-cookie", "theirs=1")], format!("a page of a service, by {}", names.join(" ")))
    };
    axum::serve(listener, axum::Router::new().fallback(page)).await.unwrap();
}

/// A page that is shown by an `Authorization` which a proxy may have added acts as nobody, its server
/// gets no token, and what a prefix was taken off leads back behind it.
async fn is_fenced_for_browsers(gateway: &Gateway, path: &str) {
    let token = ("x-forwarded-access-token", "secret");
    let link = ("sec-fetch-site", "cross-site");
    for browser in [&[link, ("sec-fetch-mode", "navigate")][..], &[("accept", "text/html, */*")]] {
        let headers = [browser, &[token, ("x-forwarded-user", "jane")]].concat();
        let answer = gateway.request(Method::GET, Some("admin"), path, &headers, Vec::new()).await;
        let (fence, text) = (answer.header("content-security-policy"), answer.text());
        assert!(fence.starts_with("sandbox ") && !fence.contains("same-origin"), "{fence}");
        assert_eq!((answer.status, answer.header("set-cookie")), (200, ""), "{text}");
        assert!(text.contains("x-forwarded-user") && !text.contains(token.0), "{text}");
    }
    let slashless = path.split_once("/proxy/").unwrap().0.to_owned() + "/proxy";
    for (prefix, begin) in [("/k8s", "/k8s/clusters/"), ("//evil.example", "/clusters/")] {
        let headers = [("x-forwarded-prefix", prefix)];
        let user = Some("admin");
        let answer = gateway.request(Method::GET, user, &slashless, &headers, Vec::new()).await;
        let location = answer.header("location");
        assert!(location.starts_with(begin) && location.ends_with("/proxy/"), "{location}");
    }
}

/// Behind a service are pods' addresses, and the API server proxies to none of loopback.
#[tokio::test]
async fn pages_and_websockets_of_a_service_come_through() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("proxied-service").await;
    // Nothing is sent: it only chooses a way out.
    let way = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    way.connect("198.51.100.1:9").await.expect("this machine has an IPv4 address of its own");
    let own = way.local_addr().unwrap().ip();
    let (pages, sockets) =
        (TcpListener::bind((own, 0)).await.unwrap(), TcpListener::bind((own, 0)).await.unwrap());
    let port = |name: &str, listener: &TcpListener| json!({"name": name, "port": listener.local_addr().unwrap().port()});
    let ports = [port("pages", &pages), port("sockets", &sockets)];
    let servers = [tokio::spawn(page(pages)), tokio::spawn(echo(sockets))];
    let in_it = format!("/api/v1/namespaces/{namespace}");
    let metadata = json!({"name": "site"});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"ports": ports}});
    people::create(cluster, &format!("{in_it}/services"), service).await;
    // It proxies to addresses of pods alone, so a pod gets this one.
    let admin = cluster.token("admin");
    running_pod(cluster, &namespace).await;
    let status = json!({"status": {"podIP": own.to_string(), "podIPs": [{"ip": own.to_string()}]}});
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{in_it}/pods/web/status");
    let patched = cluster.request(Method::PATCH, admin, &path, &merge, status.to_string()).await;
    assert_eq!(patched.0, 200, "{}", String::from_utf8_lossy(&patched.2));
    let of = json!({"kind": "Pod", "namespace": namespace, "name": "web"});
    let addresses = json!([{"ip": own.to_string(), "targetRef": of}]);
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
        "subsets": [{"addresses": addresses, "ports": ports}]});
    people::create(cluster, &format!("{in_it}/endpoints"), endpoints).await;

    let path = format!("/clusters/test{in_it}/services/site:pages/proxy/some/page?q=1");
    let answer = ask(&gateway, admin, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().starts_with("a page of a service, by "), "{}", answer.text());
    assert_eq!(answer.header("set-cookie"), "theirs=1", "no browser, no fence");
    assert_eq!(answer.header("content-security-policy"), "");
    is_fenced_for_browsers(&gateway, &path).await;
    let path = format!("/clusters/test{in_it}/services/site:sockets/proxy/");
    let mut socket = log_streams::socket(&gateway, admin, &path).await;
    for word in ["welcome", "there and back 💧"] {
        let heard = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time");
        assert_eq!(heard.unwrap().unwrap().into_text().unwrap(), word);
        socket.send(Message::text("there and back 💧")).await.unwrap();
    }
    servers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_right_to_get_opens_no_shell_and_no_proxied_connection() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("readers").await;
    let person = Person::new(cluster, &namespace, "reader").await;
    let resources = ["pods", "pods/exec", "services/proxy", "pods/portforward"];
    let rules = json!([rule(&["get"], &resources)]);
    grant(cluster, Some(&namespace), "reader", person.subject.clone(), rules).await;
    let in_it = format!("/api/v1/namespaces/{namespace}");
    let plain = format!("/clusters/test{in_it}/services/s/proxy/");
    let arrived = || async { ask(&gateway, &person.token, &plain).await.status != 403 };
    Cluster::eventually("the role has reached the API server", arrived).await;
    let bearer = format!("Bearer {}", person.token);
    for (path, denied) in [
        ("pods/web/exec?command=id&stdout=true", "pods/exec"),
        ("pods/web/portforward?ports=80", "pods/portforward"),
        ("services/s/proxy/", "services/proxy"),
    ] {
        let mut wire = Wire::open(&gateway).await;
        let mut headers = websocket("v5.channel.k8s.io");
        headers.push(("Authorization", &bearer));
        wire.get(&format!("{in_it}/{path}"), &headers).await;
        let answer = wire.until("}\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        let words = format!(
            "User \\\"system:serviceaccount:{namespace}:reader\\\" cannot create resource \
             \\\"{denied}\\\" in API group \\\"\\\" in the namespace \\\"{namespace}\\\""
        );
        assert!(answer.contains(&words), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_browser_may_send_its_token_as_a_subprotocol_and_never_sees_it_again() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("browser").await;
    running_pod(cluster, &namespace).await;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(cluster.token("admin"));
    let token = format!("base64url.bearer.authorization.k8s.io.{encoded}");
    let exec = format!("/api/v1/namespaces/{namespace}/pods/web/exec");
    let protocols = format!("{token}, v5.channel.k8s.io");
    let mut wire = Wire::open(&gateway).await;
    let command = "command=echo&command=good-morning&stdout=true";
    wire.get(&format!("{exec}?{command}"), &websocket(&protocols)).await;
    let seen = wire.until("\"Success\"").await;
    assert!(seen.starts_with("HTTP/1.1 101 "), "{seen}");
    assert!(seen.to_lowercase().contains("sec-websocket-protocol: v5.channel.k8s.io"), "{seen}");
    assert!(seen.contains("good-morning") && !seen.contains(&encoded), "{seen}");
    // Alone it leaves nothing to answer with.
    let mut wire = Wire::open(&gateway).await;
    wire.get(&format!("{exec}?{command}"), &websocket(&token)).await;
    assert!(wire.until("\r\n\r\n").await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn open_shells_are_ended_when_we_stop() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let namespace = cluster.namespace("ending").await;
    running_pod(cluster, &namespace).await;
    let mut wire = Wire::open(&gateway).await;
    let bearer = format!("Bearer {}", cluster.token("admin"));
    let mut headers = websocket("v5.channel.k8s.io");
    headers.push(("Authorization", &bearer));
    let exec = format!("/api/v1/namespaces/{namespace}/pods/web/exec");
    let shell = "command=sh&command=-c&command=echo%20ready%3Bcat&stdin=true&stdout=true";
    wire.get(&format!("{exec}?{shell}"), &headers).await;
    wire.until("ready").await;
    tokio::join!(gateway.stop(), wire.read_to_end());
}

//! `--proxy-listen`: the core of kubectl's commands without credentials, what its filters let
//! through and what not, and who is taken for whom.
//!
//! kubectl through `/clusters/{cluster}` is in `kubectl.rs`.

use std::net::SocketAddr;

use http::{HeaderMap, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::kubectl::{DEADLINE, DEPLOYMENT, Pair, Way, finish, first_lines, forwarded, watched};
use crate::logs::counting;

fn at_root(extra: &[&str]) -> Options {
    let extra = extra.iter().map(|text| (*text).to_owned()).collect();
    Options { proxy_listen: true, extra, ..Options::default() }
}

#[tokio::test]
async fn the_proxy_port_serves_kubectl_without_credentials_and_keeps_shells_shut() {
    let pair = Pair::of("kubectl-proxy", at_root(&[])).await;
    pair.pod().await;
    let list = format!("/api/v1/namespaces/{}/pods/web", pair.namespace);
    for args in [
        &["get", "pods", "-o", "wide"][..],
        &["get", "pod", "web", "-o", "yaml"],
        &["get", "--raw", &list],
        &["describe", "pod", "web"],
        &["api-resources"],
        &["version"],
        &["auth", "can-i", "create", "pods"],
        &["explain", "deployment.spec"],
        &["logs", "web"],
        &["get", "pods", "--as", "nobody"],
    ] {
        pair.same(args).await;
    }
    let other = pair.cluster.namespace("kubectl-proxy").await;
    pair.same_change(&other, &["apply", "-f", "-"], DEPLOYMENT).await.ok();
    pair.same_change(&other, &["delete", "configmap", "settings"], "").await.ok();
    let hello = format!("hello from {}/web port 8080", pair.namespace);
    assert!(forwarded(&pair, "true").await.contains(&hello));
    for args in [&["exec", "web", "--", "true"][..], &["attach", "web"]] {
        let shell = pair.run(Way::Through, &pair.namespace, args, "").await;
        assert_ne!(shell.code, Some(0), "{shell:?}");
        assert!(shell.words.contains("orbidden"), "{shell:?}");
    }
}

/// The answer to a GET at the proxy port with these headers.
async fn answer_at_port(gateway: &Gateway, path: &str, headers: &str) -> String {
    let address = gateway.proxy_url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(DEADLINE, reading).await.expect("the answer ends").unwrap();
    answer
}

/// Its status.
async fn at_port(gateway: &Gateway, path: &str, headers: &str) -> String {
    let answer = answer_at_port(gateway, path, headers).await;
    answer.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_proxy_port_refuses_rebound_names_other_sites_and_hidden_paths() {
    let gateway = gateway::start(at_root(&[])).await;
    let exec = "/api/v1/namespaces/default/pods/web/exec?command=id";
    let (encoded, doubled) = (exec.replace("pods", "p%6fds"), format!("/{exec}"));
    for (path, headers, status) in [
        ("/version", "Host: localhost:8001\r\n", "200"),
        ("/version", "Host: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n", "200"),
        ("/version", "Host: rebound.example\r\n", "403"),
        ("/version", "Host: localhost.rebound.example:8001\r\n", "403"),
        ("/version", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "403"),
        ("/version", "Host: localhost\r\nSec-Fetch-Site: same-site\r\n", "403"),
        ("/api/v1/../../version", "Host: localhost\r\n", "400"),
        ("/api/%2e%2e/version", "Host: localhost\r\n", "400"),
        (
            "/api/v1/namespaces?watch=1",
            "Host: localhost\r\nOrigin: https://evil.example\r\nUpgrade: websocket\r\n",
            "403",
        ),
        (exec, "Host: localhost\r\n", "403"),
        (encoded.as_str(), "Host: localhost\r\n", "403"),
        (doubled.as_str(), "Host: localhost\r\n", "400"),
    ] {
        assert_eq!(at_port(&gateway, path, headers).await, status, "{path} {headers}");
    }
}

#[tokio::test]
async fn a_filter_of_no_text_fits_nothing_as_kubectls_own() {
    let gateway = gateway::start(at_root(&["--proxy-accept-hosts", ""])).await;
    for host in ["localhost", "127.0.0.1", "rebound.example"] {
        let headers = format!("Host: {host}\r\n");
        assert_eq!(at_port(&gateway, "/version", &headers).await, "403", "{host}");
    }
    gateway.stop().await;
    let gateway = gateway::start(at_root(&["--proxy-reject-paths", ""])).await;
    assert_eq!(at_port(&gateway, "/version", "Host: localhost\r\n").await, "200");
    assert_eq!(at_port(&gateway, "/version", "Host: rebound.example\r\n").await, "403");
}

#[tokio::test]
async fn other_filters_open_shells_and_shut_what_they_name() {
    let secrets = ["--proxy-reject-paths", "^/api/v1/secrets$"];
    let deletes = ["--proxy-reject-methods", "^DELETE$"];
    let options = at_root(&[secrets, deletes].concat());
    let pair = Pair::of("kubectl-filters", options).await;
    pair.pod().await;
    let namespace = pair.namespace.as_str();
    counting(pair.cluster, namespace, "log", 3, 100).await;
    // More than there is yet.
    let logged = pair.run(Way::Direct, namespace, &["logs", "log"], "").await.ok().out;
    let count = logged.lines().count() + 20;
    let args = ["logs", "log", "--follow"];
    let mut follow = pair.command(Way::Through, namespace, &args).spawn().unwrap();
    let lines: Vec<String> = (1..=count).map(|number| format!("line {number}")).collect();
    assert_eq!(first_lines(&mut follow, count).await, lines);

    let script = "cat; echo problem >&2; exit 7";
    let exec = ["exec", "-i", "web", "--", "sh", "-c", script];
    let hello = format!("hello from {namespace}/web port 8080");
    for websockets in ["true", "false"] {
        let mut command = pair.command(Way::Through, namespace, &exec);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
        let ran = finish(command, "some input\n").await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(7), "some input\n"), "{ran:?}");
        assert!(ran.words.contains("problem"), "websockets: {websockets}: {ran:?}");
        let answer = forwarded(&pair, websockets).await;
        assert!(answer.contains(&hello), "websockets: {websockets}: {answer}");
    }
    assert_eq!(watched(&pair, Way::Through).await, ["configmap/seen"; 3]);
    let measured = || async {
        let ran = pair.run(Way::Through, namespace, &["top", "nodes"], "").await;
        ran.code == Some(0) && ran.out.lines().count() > 3
    };
    Cluster::eventually("top names the nodes", measured).await;
    // Rejected are those of all namespaces at once, and nothing else.
    pair.run(Way::Through, namespace, &["get", "secrets"], "").await.ok();

    let pod = ["get", "pod", "web", "-o", "jsonpath={.metadata.uid} {.metadata.deletionTimestamp}"];
    let before = pair.run(Way::Direct, namespace, &pod, "").await.ok().out;
    for args in [&["get", "secrets", "--all-namespaces"][..], &["delete", "pod", "web"]] {
        let refused = pair.run(Way::Through, namespace, args, "").await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.words.contains("orbidden"), "{refused:?}");
    }
    assert_eq!(pair.run(Way::Direct, namespace, &pod, "").await.ok().out, before);
}

#[tokio::test]
async fn who_brings_credentials_of_his_own_is_not_taken_for_the_kubeconfigs_user() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(at_root(&[])).await;
    let local = gateway.local_token.as_deref().unwrap();
    for (authorization, status) in [
        (format!("Bearer {}", cluster.token("admin")), "200"),
        (format!("Bearer {local}"), "200"),
        (format!("Bearer {}", cluster.token("nobody")), "403"),
        ("Bearer rubbish".to_owned(), "401"),
        ("Bearer".to_owned(), "401"),
        ("Basic YWRtaW46YWRtaW4=".to_owned(), "401"),
        ("Negotiate YWRtaW4=".to_owned(), "401"),
    ] {
        let headers = format!("Host: localhost\r\nAuthorization: {authorization}\r\n");
        let answered = at_port(&gateway, "/api/v1/secrets?limit=1", &headers).await;
        assert_eq!(answered, status, "{authorization}");
    }
    assert_eq!(at_port(&gateway, "/api/v1/nodes", "Host: localhost\r\n").await, "200");
}

#[tokio::test]
async fn who_asks_to_be_somebody_says_whom_and_once() {
    let gateway = gateway::start(at_root(&[])).await;
    let secrets = "/api/v1/secrets?limit=1";
    for (asked, status) in [
        ("", "200"),
        ("Impersonate-User: nobody\r\n", "403"),
        ("Impersonate-User:\r\n", "400"),
        ("Impersonate-User: \t\r\nImpersonate-User: nobody\r\n", "400"),
        ("Impersonate-User: nobody\r\nImpersonate-User: admin\r\n", "400"),
        ("Impersonate-Group: system:masters\r\n", "400"),
        ("Impersonate-Foo: nobody\r\n", "200"),
    ] {
        let headers = format!("Host: localhost\r\n{asked}");
        let answer = answer_at_port(&gateway, secrets, &headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}: {answer}");
        assert_eq!(answer.contains("Impersonate-User"), status == "400", "{asked}: {answer}");
    }
}

/// In place of an API server and a service behind it: it sends everybody elsewhere below `/k`, and
/// says which cookies came.
async fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |headers: HeaderMap| async move {
        let cookies = headers.get_all("cookie").iter().map(|value| value.to_str().unwrap());
        ([("location", "/k/api/x/")], cookies.collect::<Vec<_>>().join("|"))
    };
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn a_service_has_its_own_cookies_and_redirects_that_lead_back_to_it() {
    let cluster = cluster::shared().await;
    let server = format!("http://{}/k", service().await);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "own", "user": {"token": "own"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "own"}}],
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let gateway = gateway::start_with(&path, at_root(&[]), cluster).await;
    let page = "/api/v1/namespaces/x/services/site/proxy/";
    for (cookies, arrived) in [
        ("binnacle-token=a; session=b; binnacle-wrote=c; theme=d", "session=b; theme=d"),
        ("session=b", "session=b"),
        ("binnacle-token=a", ""),
    ] {
        let headers = format!("Host: localhost\r\nCookie: {cookies}\r\n");
        let answer = answer_at_port(&gateway, page, &headers).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("location: /api/x/\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{arrived}")), "{cookies}: {answer}");
        // In our own origin there are others' as well: none goes on.
        let path = format!("/clusters/test{page}");
        let headers = [("cookie", cookies)];
        let answer = gateway.request(Method::GET, Some("admin"), &path, &headers, Vec::new()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{cookies}");
        assert_eq!(answer.header("location"), "/clusters/test/api/x/");
    }
}

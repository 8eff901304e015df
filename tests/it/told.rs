//! What is told, and to whom: an error of ours leads to its line in the log on every way in, a body
//! reaches the API server with each method and breaks off at its sender's cost alone, and what is
//! gone from no namespace is heard of at another replica.
//!
//! It is NOT where the passthrough is compared with the API server (`passthrough.rs`), nor where
//! broken requests are judged (`bad_input.rs`).

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use futures::future::join;
use futures::stream;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::lifecycle::{anybody, bearer, closed_port, get, in_time, kubeconfig};
use crate::people::create;
use crate::spawned::{Spoken, command, urls};

#[tokio::test]
async fn an_error_of_ours_leads_to_its_line_in_the_log_in_whosever_words_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let closed = closed_port();
    let path = kubeconfig(folder.path(), &closed, "mine");
    let args = ["--kubeconfig", &path, "--proxy-listen", "127.0.0.1:0"];
    let mut spoken = Spoken::start(command(folder.path()), folder.path(), &args);
    let (_, http) = spoken.listens().await;
    let port = urls(&spoken.says("(the API server's paths)").await).remove(0);
    let through = format!("{http}/clusters/nowhere/api/v1/pods");
    for (url, words) in [
        (format!("{http}/api/v1/pod"), "API server"),
        (format!("{http}/api/v1/me"), "ErrStatus"),
        (through.clone(), "\"kind\":\"Status\""),
        (format!("{port}/api/v1/pods"), "\"kind\":\"Status\""),
    ] {
        for given in ["", "from-a_person.7"] {
            let mut headers = bearer("anything");
            headers.push(("x-request-id", given.as_bytes().to_vec()));
            let answer = get(&anybody(), &url, &headers).await.unwrap();
            assert!(answer.status >= 500 && answer.text().contains(words), "{}", answer.text());
            let id = answer.header("x-request-id").to_owned();
            match given {
                "" => assert!(id.len() == 16, "{url}: {id:?}"),
                _ => assert_eq!(id, given, "{url}"),
            }
            let line = spoken.says(&id).await;
            let status = answer.status.to_string();
            let told = ["INFO", "failed", status.as_str()];
            assert!(told.iter().all(|part| line.contains(part)), "{url}: {line}");
        }
    }
    let nobodys = get(&anybody(), &through, &[]).await.unwrap();
    assert_eq!((nobodys.status, nobodys.header("x-request-id").len()), (401, 16));
}

/// How many bytes came with a request, and how its head said so, as headers of the answer.
async fn heard(request: Request) -> [(&'static str, String); 2] {
    let framing = request.headers().get("transfer-encoding").cloned();
    let framing = framing.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let body = request.into_body().collect().await;
    let length = body.map_or(0, |body| body.to_bytes().len());
    [("x-framing", framing), ("x-length", length.to_string())]
}

/// A gateway in front of what takes any request and says what it has heard.
async fn in_front_of_an_ear(folder: &Path) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let ear = axum::Router::new().fallback(heard);
    tokio::spawn(async move { axum::serve(listener, ear).await.unwrap() });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "mine"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
    });
    let path = folder.join("config");
    std::fs::write(&path, config.to_string()).unwrap();
    let options = Options { shared_cache: false, proxy_listen: true, ..Options::default() };
    gateway::start_with(&path, options, cluster::shared().await).await
}

/// A client of one of the two protocols.
fn client(gateway: &Gateway, is_h2: bool) -> Client<HttpsConnector<HttpConnector>, Body> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(gateway.tls()).https_or_http();
    let connector = match is_h2 {
        true => builder.enable_http2().build(),
        false => builder.enable_http1().build(),
    };
    Client::builder(TokioExecutor::new()).http2_only(is_h2).build(connector)
}

#[tokio::test]
async fn a_body_whose_length_nobody_says_reaches_the_api_server_with_every_method() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = in_front_of_an_ear(folder.path()).await;
    let through = format!("{}/clusters/test/api/v1/x", gateway.url);
    let at_port = format!("{}/api/v1/x", gateway.proxy_url);
    let told = |headers: &HeaderMap| {
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        (text("x-framing"), text("x-length"))
    };
    for (url, is_h2) in [(&through, false), (&through, true), (&at_port, false)] {
        let client = client(&gateway, is_h2);
        for method in [Method::GET, Method::HEAD, Method::DELETE, Method::POST] {
            for (parts, framing, length) in
                [(&["one ", "two"][..], "chunked", "7"), (&[][..], "", "0")]
            {
                let case = format!("{method} {url}, HTTP/2: {is_h2}, {parts:?}");
                let mut request = http::Request::builder().method(&method).uri(url);
                request = request.header("authorization", "Bearer anything");
                let body = if parts.is_empty() {
                    Body::empty()
                } else {
                    // Of a read hyper's client sends it only when the head says so.
                    if !is_h2 {
                        request = request.header("transfer-encoding", "chunked");
                    }
                    let parts: Vec<_> = parts.iter().map(|part| Bytes::from(*part)).collect();
                    Body::from_stream(stream::iter(parts.into_iter().map(Ok::<_, Infallible>)))
                };
                let answer = in_time(&case, client.request(request.body(body).unwrap())).await;
                let answer = answer.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                let heard = (framing.to_owned(), length.to_owned());
                assert_eq!(told(answer.headers()), heard, "{case}");
            }
        }
    }
    gateway.stop().await;
}

/// Sends these bytes over TLS and returns the answer, to the end of its `Status`.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(gateway.tls()));
    let mut stream = connector.connect(name, tcp).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        let mut is_open = true;
        while is_open && !answer.ends_with(b"}\n") {
            is_open = stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0);
        }
    };
    in_time("an answer", reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_is_no_good_is_its_senders_fault_and_not_the_api_servers() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = in_front_of_an_ear(folder.path()).await;
    for method in ["POST", "PUT", "GET"] {
        let head = format!(
            "{method} /clusters/test/api/v1/x HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer anything\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let answer = raw(&gateway, format!("{head}2\r\n{{}}\r\nzz\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{method}: {answer}");
        assert!(answer.contains("\"reason\":\"BadRequest\""), "{method}: {answer}");
        assert!(answer.contains("The request body cannot be understood"), "{method}: {answer}");
        assert!(answer.contains("x-request-id: "), "{method}: {answer}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn another_replica_hears_what_is_gone_from_no_namespace() {
    let cluster = cluster::shared().await;
    let name = cluster.namespace("told-roles").await;
    let group = "rbac.authorization.k8s.io/v1";
    let role = json!({"apiVersion": group, "kind": "ClusterRole", "metadata": {"name": name},
        "rules": []});
    let made = create(cluster, &format!("/apis/{group}/clusterroles"), role).await;
    let gone = format!("clusterrole::{}", made["metadata"]["uid"].as_str().unwrap());
    let start = || gateway::start(Options::default());
    let (first, second) = join(start(), start()).await;
    let list = format!("/api/v1/clusterrole?filterBy=name,{name}");
    let ask = async |carried: &str| {
        let headers = [("binnacle-wrote", carried)];
        let answer = second.request(Method::GET, Some("admin"), &list, &headers, Vec::new()).await;
        let count = answer.json()["listMeta"]["totalItems"].as_u64();
        (answer.header("binnacle-source").to_owned(), count)
    };
    let cached = || async { ask("").await == ("cache".to_owned(), Some(1)) };
    Cluster::eventually("the role is in the cache", cached).await;
    // It is there all the same: nobody waits for ever.
    assert_eq!(ask(&gone).await, ("live".to_owned(), Some(1)));

    let path = format!("/api/v1/_raw/clusterrole/name/{name}?propagation=Background");
    let deleted = first.request(Method::DELETE, Some("admin"), &path, &[], Vec::new()).await;
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    assert_eq!(deleted.header("binnacle-wrote"), gone);
    assert_eq!(ask(&gone).await.1, Some(0));
    first.stop().await;
    second.stop().await;
}

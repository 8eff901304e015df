//! Logs that are followed: new lines come as they are written, and the API server is let go when
//! the reader goes away.
//!
//! It is NOT where logs with an end are tested (`logs.rs`).

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use binnacle::app::{self, Running};
use binnacle::config::{self, Command};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::certificate::trusting;
use crate::cluster;
use crate::gateway::{self, Options};
use crate::log_streams::{socket, told};
use crate::logs::counting;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A file that is still being read.
struct Followed {
    body: Incoming,
    headers: HeaderMap,
    read: Vec<u8>,
}

impl Followed {
    async fn open(tls: ClientConfig, url: &str, token: &str) -> Followed {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let request = Request::get(url).header("authorization", format!("Bearer {token}"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = tokio::time::timeout(DEADLINE, client.request(request)).await;
        let (head, body) = answer.expect("an answer in time").unwrap().into_parts();
        assert_eq!(head.status, 200);
        Followed { body, headers: head.headers, read: Vec::new() }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return String::from_utf8(line).unwrap().trim_end().to_owned();
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await;
            let frame = frame.expect("a line in time").expect("the log goes on").unwrap();
            self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn a_followed_log_brings_new_lines_as_they_come() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-follow").await;
    counting(cluster, &namespace, "web", 10, 50).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/file/{namespace}/web/main?follow=true&tailLines=2");
    let url = format!("{}{path}", gateway.url);
    let mut log = Followed::open(gateway.tls(), &url, cluster.token("admin")).await;
    assert_eq!(log.headers["x-accel-buffering"], "no");
    let number = |line: String| line.trim_start_matches("line ").parse::<usize>().unwrap();
    let first = number(log.line().await);
    // More than were there when it was opened.
    for expected in first + 1..first + 8 {
        assert_eq!(number(log.line().await), expected);
    }
}

#[tokio::test]
async fn who_closes_the_websocket_of_a_followed_log_is_answered() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("log-goodbye").await;
    counting(cluster, &namespace, "web", 3, 50).await;
    let gateway = gateway::start(Options::default()).await;
    let path = format!("/api/v1/log/{namespace}/web/main/follow");
    let mut socket = socket(&gateway, cluster.token("admin"), &path).await;
    assert_eq!(told(&mut socket).await["event"], "lines");
    socket.close(None).await.unwrap();
    // An end without a goodbye would be an error.
    while told(&mut socket).await != Value::Null {}
}

/// A gateway in front of an API server that has one log, which never ends, and nothing else.
pub async fn in_front_of(server: SocketAddr, folder: &Path) -> Running {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "only",
        "clusters": [{"name": "only", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "me", "user": {"token": "mine"}}],
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": "me"}}],
    });
    let path = folder.join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut args: Vec<String> = ["binnacle", "--listen", "127.0.0.1:0"].map(String::from).into();
    args.extend(["--kubeconfig".into(), path.display().to_string()]);
    args.extend(["--state-dir".into(), folder.join("state").display().to_string()]);
    args.push("--shared-cache=false".into());
    let command = config::parse(args.into_iter().map(Into::into));
    let Ok(Command::Serve(config)) = command else { panic!("bad arguments: {command:?}") };
    app::start(config).await.unwrap()
}

/// One connection of that API server; tells `gone` when the reader of the log went away.
async fn endless(mut tcp: TcpStream, gone: mpsc::UnboundedSender<()>) {
    let (mut head, mut buffer) = (Vec::<u8>::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match tcp.read(&mut buffer).await {
            Ok(count) if count > 0 => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    if !String::from_utf8_lossy(&head).contains("/pods/web/log?") {
        let nothing = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let _ = tcp.write_all(nothing).await;
        return;
    }
    let log = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n";
    tcp.write_all(log).await.unwrap();
    while tcp.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    let _ = gone.send(());
}

#[tokio::test]
async fn a_followed_log_ends_at_the_api_server_when_its_reader_goes_away() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let (gone, mut ended) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = server.accept().await {
            tokio::spawn(endless(tcp, gone.clone()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let running = in_front_of(address, folder.path()).await;
    let url = format!("https://{}/api/v1/log/file/shop/web/main?follow=true", running.https);
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let mut log = Followed::open(tls, &url, "anything").await;
    assert_eq!(log.line().await, "one");
    assert!(ended.try_recv().is_err(), "it goes on while it is read");
    drop(log);
    let ended = tokio::time::timeout(DEADLINE, ended.recv()).await;
    assert_eq!(ended.expect("the log is closed in time"), Some(()));
}

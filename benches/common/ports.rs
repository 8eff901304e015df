//! An API server as far as port-forward needs one: every right is granted, and every port sends a
//! fixed number of bytes as soon as it is spoken to.
//!
//! Plain HTTP/1.1 in the bench's own process. It knows no users, pods or ports.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The channel protocol of ports; channel 0 is data, 1 errors, each begins with the port's number.
pub const PROTOCOL: &str = "v4.channel.k8s.io";
/// Bytes that a port sends.
pub const BYTES: usize = 100 << 20;
/// As kubelets copy.
const CHUNK: usize = 32 << 10;
const GREETING: [u8; 2] = 8080_u16.to_le_bytes();
/// Some idle ones of a client's, and those of a bench.
const CONNECTIONS: usize = 256;

/// The server. Dropping it ends it; its connections end with their clients.
pub struct Ports {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
    folder: TempDir,
}

impl Ports {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener));
        Self { address, accepting, folder: tempfile::tempdir().unwrap() }
    }

    /// A kubeconfig with the context `ports` and a bearer token.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        let server = format!("http://{}", self.address);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "ports",
            "clusters": [{"name": "ports", "cluster": {"server": server}}],
            "users": [{"name": "bench", "user": {"token": token}}],
            "contexts": [{"name": "ports", "context": {"cluster": "ports", "user": "bench"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.unwrap();
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(request)) });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
            drop(seat);
        });
    }
}

fn answer(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let Some(key) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        // What reviews say; all else reads nothing in it.
        let status = json!({ "allowed": true, "userInfo": { "username": "bench" } });
        let mut response = Response::new(Full::from(json!({ "status": status }).to_string()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        if request.method() == Method::POST {
            *response.status_mut() = StatusCode::CREATED;
        }
        return response;
    };
    tokio::spawn(send(hyper::upgrade::on(&mut request)));
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&key).unwrap());
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    response
}

async fn send(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    for channel in 0..=1 {
        let greeting = vec![channel, GREETING[0], GREETING[1]];
        let _ = socket.send(Message::binary(greeting)).await;
    }
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(_))) => break,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
    let mut chunk = vec![b'x'; 1 + CHUNK];
    chunk[0] = 0;
    let chunk = Bytes::from(chunk);
    for _ in 0..BYTES / CHUNK {
        if socket.send(Message::Binary(chunk.clone())).await.is_err() {
            return;
        }
    }
    // Until the client has them all and goes.
    while let Some(Ok(_)) = socket.next().await {}
}

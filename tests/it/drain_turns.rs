//! How many evictions a drain asks for at once, and what becomes of it when its client goes away or
//! a pod is changed meanwhile: through a gate to the real API server that holds evictions back.
//!
//! It is NOT where it is tested which pods go and what is said of the others (`drains.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::body::Body;
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::drains::{NODES, SECOND, Told, budget, counted, node, plain, pod, runs};
use crate::gateway::{self, Gateway};
use crate::people::delete;
use crate::writes::live;

/// Evictions that a drain has under way at once.
const AT_ONCE: usize = 16;
/// Pods of a node with more than that.
const CROWD: usize = 20;
/// The words of an eviction whose pod was changed meanwhile.
const CHANGED: &str = "the object has been modified";

/// A way to the real API server that holds evictions back until it is opened, and counts them.
struct Gate {
    held: Arc<Held>,
    accepting: JoinHandle<()>,
    _folder: TempDir,
}

struct Held {
    server: String,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    is_open: watch::Sender<bool>,
    /// Whether the next eviction hears that its pod was changed, and goes no further.
    is_changed: AtomicBool,
    asked: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

/// An eviction under way, until it is answered or given up.
struct Eviction(Arc<Held>);

impl Eviction {
    fn of(held: &Arc<Held>) -> Eviction {
        held.asked.fetch_add(1, Ordering::SeqCst);
        let now = held.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        held.most.fetch_max(now, Ordering::SeqCst);
        Eviction(held.clone())
    }
}

impl Drop for Eviction {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gate {
    /// Closed; and a gateway whose only way it is.
    async fn start(cluster: &'static Cluster) -> (Gate, Gateway) {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trusting(cluster.ca_pem()))
            .https_only()
            .enable_http1()
            .build();
        let held = Arc::new(Held {
            server: cluster.server.clone(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            is_open: watch::Sender::new(false),
            is_changed: AtomicBool::default(),
            asked: AtomicUsize::default(),
            under_way: AtomicUsize::default(),
            most: AtomicUsize::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, held.clone()));
        let server = format!("http://{address}");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "own", "user": {"token": cluster.token("admin")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "own"}}],
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig.yaml");
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        let gateway = gateway::start_with(&path, plain(), cluster).await;
        (Gate { held, accepting, _folder: folder }, gateway)
    }

    async fn holds(&self, wanted: usize) {
        let holds = || async { self.held.under_way.load(Ordering::SeqCst) == wanted };
        Cluster::eventually(&format!("{wanted} evictions are under way"), holds).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, held: Arc<Held>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let held = held.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| pass(held.clone(), request));
            // A client that goes away ends its connection, and with it what was asked on it.
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn pass(
    held: Arc<Held>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut head, body) = request.into_parts();
    // Read first: whether a client has gone is noticed only behind its request's end.
    let body = body.collect().await?.to_bytes();
    let is_eviction = head.uri.path().ends_with("/eviction");
    let _eviction = is_eviction.then(|| Eviction::of(&held));
    if is_eviction {
        held.is_open.subscribe().wait_for(|is_open| *is_open).await?;
    }
    if is_eviction && held.is_changed.swap(false, Ordering::SeqCst) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "Conflict", "code": 409, "message": CHANGED});
        let answer = Response::builder().status(409).header("content-type", "application/json");
        return Ok(answer.body(Body::from(status.to_string()))?);
    }
    head.uri = format!("{}{}", held.server, head.uri).parse()?;
    head.headers.remove("host");
    let answer = held.client.request(Request::from_parts(head, Body::from(body))).await?;
    Ok(answer.map(Body::new))
}

/// So many pods of one app on the node.
async fn crowd(cluster: &Cluster, namespace: &str, node: &str) -> Vec<String> {
    let names: Vec<String> = (0..CROWD).map(|at| format!("crowd-{at}")).collect();
    let app = json!({"app": "crowd"});
    let pods = names.iter().map(|name| pod(cluster, namespace, name, node, app.clone()));
    join_all(pods).await;
    names
}

/// A drain that goes on until the task is aborted: then its client is gone without a word.
async fn leaving(gateway: &Gateway, token: &str, path: &str, accept: &str) -> JoinHandle<()> {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(gateway.address.ip().to_string()).unwrap();
    let tls = TlsConnector::from(Arc::new(gateway.tls())).connect(name, tcp).await.unwrap();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(tls));
    let (mut sender, connection) = handshake.await.unwrap();
    let request = Request::put(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("accept", accept)
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    tokio::spawn(async move {
        let exchange = async {
            if let Ok(answer) = sender.send_request(request).await {
                let _ = answer.into_body().collect().await;
            }
        };
        let _ = tokio::join!(connection, exchange);
    })
}

#[tokio::test]
async fn a_drain_asks_for_sixteen_evictions_at_once_and_every_held_pod_has_its_turn() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("crowd").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let pods = crowd(cluster, &namespace, &name).await;
    join_all(pods.iter().map(|pod| runs(cluster, &namespace, pod))).await;
    let hold = budget(cluster, &namespace, "hold", "crowd", CROWD).await;
    counted(cluster, &hold, CROWD).await;
    let (gate, gateway) = Gate::start(cluster).await;
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));
    let told = Told::of(&gateway, admin, &drain, "en", json!({"timeout": 6 * SECOND}));
    let opening = async {
        gate.holds(AT_ONCE).await;
        gate.held.is_open.send_replace(true);
    };
    let (told, ()) = tokio::join!(told, opening);
    assert_eq!(gate.held.most.load(Ordering::SeqCst), AT_ONCE);
    let all: BTreeSet<String> = pods.iter().map(|pod| format!("{namespace}/{pod}")).collect();
    let all: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    for event in ["evicting", "waiting", "failed"] {
        assert_eq!(told.pods(event), all, "{event}");
    }
    let held = told.0.iter().filter(|(name, _)| name == "failed");
    for (_, failed) in held {
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.contains("disruption budget hold needs"), "{failed}");
    }
    let message = told.last("done")["message"].as_str().unwrap();
    assert!(message.starts_with("0 of 20") && message.contains("and 10 more"), "{message}");
    delete(cluster, &hold).await;
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_drain_whose_client_goes_away_evicts_no_more_and_leaves_the_node_cordoned() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("leaving").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    let pods = crowd(cluster, &namespace, &name).await;
    let (gate, gateway) = Gate::start(cluster).await;
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));
    for (round, accept) in [(1, "*/*"), (2, "text/event-stream")] {
        let client = leaving(&gateway, admin, &drain, accept).await;
        gate.holds(AT_ONCE).await;
        client.abort();
        // Given up by the gateway itself: there is no drain any more that could ask for others.
        gate.holds(0).await;
        assert_eq!(gate.held.asked.load(Ordering::SeqCst), round * AT_ONCE, "{accept}");
    }
    for pod in pods {
        let pod = live(cluster, &format!("/api/v1/namespaces/{namespace}/pods/{pod}")).await;
        assert_eq!(pod.unwrap()["metadata"]["deletionTimestamp"], Value::Null);
    }
    let object = live(cluster, &format!("{NODES}/{name}")).await.unwrap();
    assert_eq!(object["spec"]["unschedulable"], true);
    delete(cluster, &format!("{NODES}/{name}")).await;
}

#[tokio::test]
async fn a_pod_that_is_changed_while_it_is_evicted_is_evicted_once_more() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("changed").await;
    let name = format!("{namespace}-node");
    node(cluster, &name).await;
    pod(cluster, &namespace, "web", &name, json!({})).await;
    let (gate, gateway) = Gate::start(cluster).await;
    gate.held.is_open.send_replace(true);
    gate.held.is_changed.store(true, Ordering::SeqCst);
    let (admin, drain) = (cluster.token("admin"), format!("/api/v1/node/{name}/drain"));
    let told = Told::of(&gateway, admin, &drain, "en", json!({"timeout": 60 * SECOND})).await;
    assert_eq!(told.last("done")["status"], 202, "{:?}", told.0);
    assert_eq!(told.last("waiting")["reason"], CHANGED);
    assert_eq!(gate.held.asked.load(Ordering::SeqCst), 2);
    assert_eq!(live(cluster, &format!("/api/v1/namespaces/{namespace}/pods/web")).await, None);
    delete(cluster, &format!("{NODES}/{name}")).await;
}

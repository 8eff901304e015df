//! What the API server itself gives to a person of `property_world.rs`, asked with the person's own
//! token and remembered until rights change; and a client that keeps its connections.
//!
//! It knows no rules of RBAC: who may see what, only the API server says.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use binnacle::kinds::{Row, Source};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cluster::Cluster;
use crate::gateway::{Answer, Gateway};
use crate::property_world::{Served, World};

/// How long a changed right may still be answered from memory before a row that is not permitted
/// any more is an error at once: three times the ten seconds that an allowance is believed in.
const SETTLING: Duration = Duration::from_secs(30);
/// How long after a change the API server's own answer may still change, and is not remembered.
const PROPAGATION: Duration = Duration::from_secs(2);
/// Until a busy API server must have answered.
const BUSY: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// Kinds whose rows are the rights themselves: they change with every change of rights.
const RIGHTS: [&str; 4] = ["role", "rolebinding", "clusterrole", "clusterrolebinding"];

/// Requests to one server over connections that are kept.
pub struct Client {
    base: String,
    http: Hyper<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// To the API server itself.
    pub fn of_cluster(cluster: &Cluster) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(cluster.ca_pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::new(cluster.server.clone(), tls)
    }

    pub fn of_gateway(gateway: &Gateway) -> Self {
        Self::new(gateway.url.clone(), gateway.tls())
    }

    fn new(base: String, tls: rustls::ClientConfig) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        Self { base, http: Hyper::builder(TokioExecutor::new()).build(connector) }
    }

    /// GET, as nobody when the token is empty.
    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(Method::GET, token, path, &[], "").await
    }

    /// A request whose body is JSON unless the headers say otherwise.
    pub async fn send(
        &self,
        method: Method,
        token: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = body.into();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let typed = headers.iter().any(|(name, _)| *name == "content-type");
        if !typed && !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("path and headers are valid");
        let exchange = async {
            let response = self.http.request(request).await;
            let response = response.unwrap_or_else(|error| panic!("{path}: {error:?}"));
            let (parts, body) = response.into_parts();
            let body = body.collect().await.expect("the answer has an end").to_bytes();
            Answer { status: parts.status.as_u16(), headers: parts.headers, body }
        };
        let answer = tokio::time::timeout(BUSY, exchange).await;
        answer.unwrap_or_else(|_| panic!("no answer to {path} in {BUSY:?}"))
    }
}

/// The rows of one namespace (of none for cluster-scoped kinds); `None` where they are refused.
pub type Space = Option<Arc<Vec<Row>>>;
/// Person, kind, namespace.
type Key = (usize, &'static str, Option<String>);

/// What a person may list of a kind among some namespaces, with the rows of those of the world.
#[derive(Default)]
pub struct Permit {
    /// In all namespaces of the cluster, asked for all.
    pub everywhere: bool,
    pub spaces: BTreeMap<String, Arc<Vec<Row>>>,
}

impl Permit {
    pub fn is_denied(&self) -> bool {
        !self.everywhere && self.spaces.is_empty()
    }

    /// Whether the other one reaches further.
    pub fn lacks(&self, other: &Self) -> bool {
        let mut theirs = other.spaces.keys();
        !self.everywhere && (other.everywhere || theirs.any(|name| !self.covers(name)))
    }

    pub fn covers(&self, namespace: &str) -> bool {
        self.everywhere || self.spaces.contains_key(namespace)
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.spaces.values().flat_map(|rows| rows.iter())
    }

    pub fn rows_in(&self, namespace: &str) -> impl Iterator<Item = &Row> {
        self.spaces.get(namespace).into_iter().flat_map(|rows| rows.iter())
    }
}

pub struct Truth<'a> {
    pub world: &'a World,
    pub api: &'a Client,
    known: Mutex<HashMap<Key, Space>>,
    /// When the rights of a person changed last.
    changes: Mutex<Vec<Option<Instant>>>,
    /// Counts changes: what was asked before one is not remembered after it.
    generation: AtomicU64,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
    /// Of a `Table`.
    #[serde(default)]
    rows: Option<Vec<Box<RawValue>>>,
}

impl<'a> Truth<'a> {
    pub fn new(world: &'a World, api: &'a Client) -> Self {
        let changes = Mutex::new(vec![None; world.people.len()]);
        let known = Mutex::default();
        Self { world, api, known, changes, generation: AtomicU64::new(0) }
    }

    /// Forgets what a change of these people's rights may have changed.
    pub fn changed(&self, who: &[usize]) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let mut changes = self.changes.lock().unwrap();
        who.iter().for_each(|who| changes[*who] = Some(Instant::now()));
        let mut known = self.known.lock().unwrap();
        known.retain(|(person, kind, _), _| !who.contains(person) && !RIGHTS.contains(kind));
    }

    /// When this person's rights changed last.
    pub fn changed_at(&self, who: usize) -> Option<Instant> {
        self.changes.lock().unwrap()[who]
    }

    /// Whether an answer may still follow this person's former rights.
    pub fn is_settling(&self, who: usize) -> bool {
        self.changed_at(who).is_some_and(|at| at.elapsed() < SETTLING)
    }

    /// What `who` may list of a kind in the `wanted` namespaces (`None`: in all).
    pub async fn permit(
        &self,
        who: usize,
        served: &Served,
        wanted: Option<&[String]>,
        fresh: bool,
    ) -> Permit {
        if !served.at.namespaced {
            let rows = self.rows(who, served, "", fresh).await;
            let spaces = rows.into_iter().map(|rows| (String::new(), rows)).collect();
            return Permit { everywhere: false, spaces };
        }
        let everywhere = wanted.is_none() && self.everywhere(who, served, fresh).await;
        let namespaces = wanted.unwrap_or(&self.world.namespaces);
        let spaces = join_all(namespaces.iter().map(|namespace| async move {
            let rows = self.rows(who, served, namespace, fresh).await;
            rows.map(|rows| (namespace.clone(), rows))
        }));
        Permit { everywhere, spaces: spaces.await.into_iter().flatten().collect() }
    }

    /// Whether `who` may list a kind in all namespaces at once.
    pub async fn everywhere(&self, who: usize, served: &Served, fresh: bool) -> bool {
        let path = format!("{}?limit=1", served.at.collection(None));
        let key = (who, served.kind.name, None);
        self.asked(key, served, path, fresh).await.is_some()
    }

    /// The rows of one namespace.
    pub async fn rows(&self, who: usize, served: &Served, namespace: &str, fresh: bool) -> Space {
        let path = served.at.collection(served.at.namespaced.then_some(namespace));
        let key = (who, served.kind.name, Some(namespace.to_owned()));
        self.asked(key, served, path, fresh).await
    }

    async fn asked(&self, key: Key, served: &Served, path: String, fresh: bool) -> Space {
        if !fresh && let Some(known) = self.known.lock().unwrap().get(&key) {
            return known.clone();
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let space = self.list(key.0, served, &path).await;
        let settled = self.changed_at(key.0).is_none_or(|at| at.elapsed() > PROPAGATION);
        if settled && self.generation.load(Ordering::SeqCst) == generation {
            self.known.lock().unwrap().insert(key, space.clone());
        }
        space
    }

    /// Lists with the person's token, in the form that a gateway lists this kind in.
    async fn list(&self, who: usize, served: &Served, path: &str) -> Space {
        let accept = match served.kind.source {
            Source::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Source::Table => "application/json;as=Table;g=meta.k8s.io;v=v1",
            _ => "application/json",
        };
        let answer = self.get(who, path, accept).await;
        match answer.status {
            200 => {}
            403 => return None,
            status => panic!("the API server answers {path} with {status}: {}", answer.text()),
        }
        let list: List = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.text()));
        let items = list.items.into_iter().chain(list.rows).flatten();
        let rows = items.map(|item| {
            (served.kind.row)(item.get()).unwrap_or_else(|error| panic!("{path}: {error}"))
        });
        Some(Arc::new(rows.collect()))
    }

    /// GET with the person's token; waits while the API server is busy.
    pub async fn get(&self, who: usize, path: &str, accept: &str) -> Answer {
        let token = &self.world.people[who].token;
        let begun = Instant::now();
        loop {
            let headers = [("accept", accept)];
            let answer = self.api.send(Method::GET, token, path, &headers, "").await;
            let is_busy = answer.status == 429 || answer.status >= 500;
            if !is_busy || begun.elapsed() > BUSY {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

//! An API server that is killed under load and started again, for real: etcd and kube-apiserver of
//! one test, whose supervisor obeys. With it that small control plane, which `outages.rs` uses too.
//!
//! It is NOT where connections break in other ways (`faults.rs`), nor where the time that stale
//! rows are served has an end (`away.rs`).

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use binnacle::kinds::by_name;
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::fault_proxy::Front;
use crate::gateway::{self, Answer, Gateway, Options};
use crate::helm_guard::lives;
use crate::lifecycle::{POLL, in_time};
use crate::people::{create, grant, rule, user};

/// Until the whole is given up; never how long anything should take.
const PATIENCE: Duration = Duration::from_secs(180);
/// Who reads the pods, each as many times at once: one sees all namespaces, one sees one.
const READERS: [(&str, &str); 2] = [("admin", "/api/v1/pod"), ("viewer", "/api/v1/pod/shop")];
const READERS_EACH: usize = 3;
/// Answers in each part: before the API server is killed, without it, and after it is back.
const ANSWERS: usize = 60;
/// Pods that live at the same time of those that are made and deleted without an end.
const ALIVE: usize = 5;
/// What is compared in the end.
const KINDS: &str = "pod namespace configmap service serviceaccount clusterrole clusterrolebinding";

/// etcd and kube-apiserver, and what is ordered beside them; they end when this is dropped.
pub struct Plane {
    /// Kept for ever, as a gateway wants it: its processes are not, only what is known of them.
    pub cluster: &'static Cluster,
    supervisor: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Plane {
    pub async fn start() -> Plane {
        let (cluster, mut supervisor) = cluster::own(&["--bare"]).await;
        let orders = ChildStdin::from_std(supervisor.stdin.take().unwrap()).unwrap();
        let answers = ChildStdout::from_std(supervisor.stdout.take().unwrap()).unwrap();
        Plane {
            cluster: Box::leak(Box::new(cluster)),
            supervisor,
            orders: Some(orders),
            answers: BufReader::new(answers).lines(),
        }
    }

    /// Waits until it is done: `kill NAME`, the process is gone; `start NAME`, it answers.
    pub async fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().unwrap();
        orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        orders.flush().await.unwrap();
        let answer = self.answers.next_line().await.unwrap();
        assert_eq!(answer, Some(format!("done: {order}")), "the supervisor's reason is on stderr");
    }

    /// A namespace in which pods can be made, without a controller that would make its account.
    pub async fn namespace(&self, name: &str) {
        let metadata = json!({"name": name});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        create(self.cluster, "/api/v1/namespaces", object).await;
        let metadata = json!({"name": "default"});
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
        create(self.cluster, &accounts, object).await;
    }

    /// A gateway in front of it, ready.
    pub async fn gateway(&self) -> Gateway {
        // However slow this machine is: when stale rows end is not what is asked here.
        let extra = ["--stale-while-away", "600"].map(String::from).into();
        let options = Options { extra, ..Options::default() };
        let kubeconfig = self.cluster.kubeconfig(options.server_user);
        let gateway = gateway::start_with(&kubeconfig, options, self.cluster).await;
        let is_ready = || async { probed(&gateway).await == 200 };
        Cluster::eventually("the gateway is ready", is_ready).await;
        gateway
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.supervisor.wait();
    }
}

async fn probed(gateway: &Gateway) -> u16 {
    gateway.request(Method::GET, None, "/readyz", &[], Vec::new()).await.status
}

/// The API server itself, as its admin; it may be gone.
struct Direct {
    url: &'static str,
    token: &'static str,
    tls: ClientConfig,
}

impl Direct {
    fn to(cluster: &'static Cluster) -> Direct {
        let (url, token) = (cluster.server.as_str(), cluster.token("admin"));
        Direct { url, token, tls: trusting(cluster.ca_pem()) }
    }

    /// `None`: there was no answer, and nobody knows whether it was done.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_only()
            .enable_http1()
            .build();
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let sent = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(sent))
            .unwrap();
        let (head, body) = client.request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// Namespace and name.
type Place = (String, String);

fn place(meta: &Value) -> Place {
    let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]},
    })
}

fn pods_of(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// What everybody who makes load shares.
struct Load<'a> {
    gateway: &'a Gateway,
    direct: Direct,
    /// Every pod that may ever have been; its uid is empty until an answer has told it.
    pods: Mutex<BTreeMap<Place, String>>,
    /// Those that are never deleted.
    lasting: Vec<Place>,
    over: AtomicBool,
    answered: AtomicUsize,
    stale: AtomicUsize,
    made: AtomicUsize,
}

impl Load<'_> {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits until so many more answers were read.
    async fn answers(&self, of: &AtomicUsize, count: usize) {
        let enough = of.load(Ordering::SeqCst) + count;
        while of.load(Ordering::SeqCst) < enough {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Reads until it is over; no answer has a row that never was, or that is not this reader's.
    async fn read(&self, who: &'static str, path: &'static str) {
        while !self.is_over() {
            let answer = self.gateway.get(who, path).await;
            self.judge(who, &answer);
            self.answered.fetch_add(1, Ordering::SeqCst);
            self.stale.fetch_add(usize::from(is_stale(&answer)), Ordering::SeqCst);
        }
    }

    /// An API server that has just begun does not know its roles yet and denies what they allow:
    /// only an admin, whose group needs none, is never without rows.
    fn judge(&self, who: &str, answer: &Answer) {
        let may_be_denied = who != "admin";
        if may_be_denied && matches!(answer.status, 403 | 503 | 504) {
            return;
        }
        assert_eq!(answer.status, 200, "{who}: {}", answer.text());
        let list = answer.json();
        let rows = list["pods"].as_array().unwrap();
        if may_be_denied && rows.is_empty() {
            assert_ne!(list["errors"], json!([]), "no row, and no word why");
            return;
        }
        assert_eq!(list["listMeta"]["totalItems"], rows.len(), "{who}");
        let known = self.pods.lock().unwrap();
        let mut shown = BTreeMap::new();
        for row in rows {
            let (at, uid) = (place(&row["objectMeta"]), row["objectMeta"]["uid"].as_str().unwrap());
            assert!(who == "admin" || at.0 == "shop", "a row of somebody else's: {row}");
            let Some(made) = known.get(&at) else { panic!("a row that never was: {row}") };
            assert!(made.is_empty() || made == uid, "{made} has become {row}");
            assert!(shown.insert(at, ()).is_none(), "twice: {row}");
        }
        let mine = self.lasting.iter().filter(|at| who == "admin" || at.0 == "shop");
        for at in mine {
            assert!(shown.contains_key(at), "{at:?} is lost to {who}");
        }
    }

    /// Makes and deletes pods until it is over, whether the API server is there or not.
    async fn write(&self) {
        for number in 0.. {
            if self.is_over() {
                return;
            }
            self.make("shop", &format!("made-{number}")).await;
            if let Some(old) = usize::checked_sub(number, ALIVE) {
                let path = format!("{}/made-{old}", pods_of("shop"));
                self.direct.send(Method::DELETE, &path, &Value::Null).await;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the pod is there, as its maker was told.
    async fn make(&self, namespace: &str, name: &str) -> bool {
        let at = (namespace.to_owned(), name.to_owned());
        self.pods.lock().unwrap().entry(at.clone()).or_default();
        let answer = self.direct.send(Method::POST, &pods_of(namespace), &pod(name)).await;
        // By an attempt whose answer was lost.
        let is_there_already = matches!(answer, Some((409, _)));
        let Some((201, made)) = answer else { return is_there_already };
        let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
        self.pods.lock().unwrap().insert(at, uid);
        self.made.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Asks whether we are ready, until it is over: an API server that is away changes nothing.
    async fn probe(&self) {
        while !self.is_over() {
            assert_eq!(probed(self.gateway).await, 200);
            tokio::time::sleep(POLL).await;
        }
    }

    /// The API server dies in the middle of it all, and comes back.
    async fn outage(&self, plane: &mut Plane) {
        self.answers(&self.answered, ANSWERS).await;
        self.answers(&self.made, ALIVE).await;
        plane.order("kill kube-apiserver").await;
        assert_eq!(self.direct.send(Method::GET, "/readyz", &Value::Null).await, None);
        self.answers(&self.stale, ANSWERS).await;
        plane.order("start kube-apiserver").await;
        while !self.make("rest", "after").await {
            tokio::time::sleep(POLL).await;
        }
        let is_shown = || async {
            let list = self.gateway.get("admin", "/api/v1/pod/rest").await;
            !is_stale(&list) && list.text().contains("\"after\"")
        };
        Cluster::eventually("what was made after the restart is shown", is_shown).await;
        self.answers(&self.answered, ANSWERS).await;
        self.answers(&self.made, ALIVE).await;
        self.over.store(true, Ordering::SeqCst);
    }
}

fn is_stale(answer: &Answer) -> bool {
    let mut warnings = answer.headers.get_all("warning").iter();
    warnings.any(|warning| warning.as_bytes().starts_with(b"110 "))
}

/// What of a kind is not as the API server lists it to the same person now, object by object and
/// field by field; `None`: all is.
async fn difference(
    gateway: &Gateway,
    plane: &Plane,
    who: &str,
    (kind, namespace): (&str, &str),
) -> Option<String> {
    let kind = by_name(kind).unwrap();
    let namespace = Some(namespace).filter(|name| !name.is_empty());
    let truth = kind.resource.collection(namespace);
    let (status, _, body) = plane.cluster.get(plane.cluster.token(who), &truth).await;
    let truth: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{truth}");
    let mut wanted = BTreeMap::new();
    for object in truth["items"].as_array().unwrap() {
        let row = (kind.row)(&object.to_string()).unwrap();
        let row: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(row["objectMeta"]["uid"], object["metadata"]["uid"], "{object}");
        wanted.insert(place(&object["metadata"]), row);
    }
    let end = namespace.map(|namespace| format!("/{namespace}")).unwrap_or_default();
    let answer = gateway.get(who, &format!("/api/v1/{}{end}", kind.name)).await;
    let is_current = answer.status == 200
        && answer.header("binnacle-source").starts_with("cache")
        && answer.header("binnacle-age") == "0.000";
    if !is_current {
        return Some(format!("{} with {:?}: {}", answer.status, answer.headers, answer.text()));
    }
    let list = answer.json();
    let rows = list[kind.list.items].as_array().unwrap().iter();
    let shown: BTreeMap<Place, &Value> = rows.map(|row| (place(&row["objectMeta"]), row)).collect();
    if !shown.keys().eq(wanted.keys()) || list["listMeta"]["totalItems"] != wanted.len() {
        return Some(format!("{:?}, and there are {:?}", shown.keys(), wanted.keys()));
    }
    for (at, wanted) in &wanted {
        for (field, value) in wanted.as_object().unwrap() {
            if shown[at][field] != *value {
                return Some(format!("{at:?}: {field} is {} and not {value}", shown[at][field]));
            }
        }
    }
    None
}

async fn converges(gateway: &Gateway, plane: &Plane, who: &str, at: (&str, &str)) {
    let last = Mutex::new(None);
    let is_so = || async {
        let why = difference(gateway, plane, who, at).await;
        let is_so = why.is_none();
        *last.lock().unwrap() = why;
        is_so
    };
    let wait = Cluster::eventually("the rows are the API server's", is_so);
    if tokio::time::timeout(Duration::from_secs(50), wait).await.is_err() {
        panic!("{at:?} is not to {who} as in the API server: {:?}", last.lock().unwrap());
    }
}

/// How many requests the gateway has answered with pods since its start, by its own count.
async fn counted(gateway: &Gateway) -> usize {
    let text = gateway.get("admin", "/metrics").await.text();
    let of_pods = text
        .lines()
        .filter(|line| line.starts_with("binnacle_http_requests_total{route=\"/api/v1/pod"));
    let counts = of_pods.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    counts.sum()
}

#[tokio::test]
async fn an_api_server_killed_under_load_and_started_again_costs_no_row_and_no_restart_of_ours() {
    let mut plane = Plane::start().await;
    plane.namespace("shop").await;
    plane.namespace("rest").await;
    let lists = json!([rule(&["list"], &["pods"])]);
    grant(plane.cluster, Some("shop"), "reads", user("viewer"), lists).await;
    let gateway = plane.gateway().await;
    let mut load = Load {
        gateway: &gateway,
        direct: Direct::to(plane.cluster),
        pods: Mutex::default(),
        lasting: Vec::new(),
        over: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
        stale: AtomicUsize::new(0),
        made: AtomicUsize::new(0),
    };
    for number in 0..40 {
        let (namespace, name) = (["shop", "rest"][number % 2], format!("lasting-{number}"));
        assert!(load.make(namespace, &name).await, "{name} was not made");
        load.lasting.push((namespace.to_owned(), name));
    }
    for (who, namespace) in [("admin", ""), ("viewer", "shop")] {
        converges(&gateway, &plane, who, ("pod", namespace)).await;
    }

    let readers = READERS.iter().cycle().take(READERS.len() * READERS_EACH);
    let readers = join_all(readers.map(|&(who, path)| load.read(who, path)));
    let all = async {
        tokio::join!(readers, load.write(), load.probe(), load.outage(&mut plane));
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the outage and what follows have an end");

    for kind in KINDS.split_ascii_whitespace() {
        converges(&gateway, &plane, "admin", (kind, "")).await;
    }
    converges(&gateway, &plane, "viewer", ("pod", "shop")).await;
    let stranger = gateway.get("nobody", "/api/v1/pod").await;
    assert!(!stranger.text().contains("lasting-"), "{}", stranger.text());
    assert_eq!(probed(&gateway).await, 200);
    // The same process has counted all of it.
    let (counted, answered) = (counted(&gateway).await, load.answered.load(Ordering::SeqCst));
    assert!(counted >= answered, "{counted} of {answered} answers are remembered");
    gateway.stop().await;
}

/// Roles are read by an API server after it has begun to answer: until then it denies what they
/// allow. The demo stands in for one, since such moments cannot be called for.
#[tokio::test]
async fn who_is_denied_to_watch_by_an_api_server_that_has_just_begun_keeps_the_rows_and_goes_on() {
    let (front, demo) = Front::demo(0).await;
    let rows = front.get("/api/v1/pod").await.pods();
    let asked = || front.proxy.asked("GET /api/v1/pods?").len();
    let before = asked();
    demo.faults().respond("/api/v1/pods", 403, 3);
    demo.faults().drop_watches();
    let is_current = async || {
        let answer = front.get("/api/v1/pod").await;
        assert!(answer.header("binnacle-source").starts_with("cache"), "{:?}", answer.headers);
        assert_eq!(answer.pods(), rows);
        answer.header("binnacle-age") == "0.000"
    };
    let resumed = async {
        // Three denials, and the watch that is allowed.
        while asked() < before + 4 || !is_current().await {
            tokio::time::sleep(POLL).await;
        }
    };
    in_time("the watch is resumed", resumed).await;
    front.converges("pod", None).await;
}

/// A test process that ends, however it ends, closes the supervisor's stdin; the worst that can
/// happen is that the supervisor is killed itself.
#[tokio::test]
async fn nothing_of_a_test_cluster_outlives_its_supervisor() {
    for killed in [false, true] {
        let (cluster, mut supervisor) = cluster::own(&["--bare"]).await;
        let named = ["supervisor", "etcd", "kube-apiserver"].map(|name| cluster.pids[name]);
        assert_eq!(cluster.pids.len(), named.len(), "{:?}", cluster.pids);
        let ids = named.map(|id| id.to_string());
        assert!(ids.iter().all(|id| lives(id)), "{:?}", cluster.pids);
        if killed {
            supervisor.kill().unwrap();
        } else {
            drop(supervisor.stdin.take());
        }
        let are_gone = || async { !ids.iter().any(|id| lives(id)) };
        Cluster::eventually("its processes are gone", are_gone).await;
        let status = supervisor.wait().unwrap();
        assert_eq!(status.success(), !killed, "{status}");
        // Who is killed leaves the folder to the next test process.
        let folder = cluster.dir.clone();
        cluster::remove_left();
        assert_eq!(folder.exists(), killed, "not while this process owns it");
        drop(cluster);
        let is_removed = || async {
            cluster::remove_left();
            !folder.exists()
        };
        Cluster::eventually("what was left is removed", is_removed).await;
    }
}

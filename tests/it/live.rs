//! Live answers on the real API server: what comes, changes and goes arrives as changes which,
//! applied, are the plain answer; who resumes gets no second whole, who loses a right is told so.
//!
//! It is NOT where changes and slow readers are tested in all their cases (`src/api/live_*.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use binnacle::api::Pace;
use binnacle::app::{self, Running};
use binnacle::config::{self, Command};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};
use crate::lifecycle::{Answer, POLL, bearer, get, in_time};
use crate::people::{Person, bindings, create, delete, pod};

/// A gateway of this process whose streams are in a hurry.
struct Front {
    running: Running,
    tls: ClientConfig,
    _folder: tempfile::TempDir,
}

impl Front {
    async fn start(cluster: &Cluster) -> Front {
        let folder = tempfile::tempdir().unwrap();
        let (kubeconfig, state) = (cluster.kubeconfig("admin"), folder.path().join("state"));
        let args = [
            ["binnacle", "serve", "--listen", "127.0.0.1:0"],
            ["--kubeconfig", kubeconfig.to_str().unwrap(), "--state-dir", state.to_str().unwrap()],
            ["--drain-delay", "0", "--drain-grace", "300"],
        ];
        let command = config::parse(args.concat().into_iter().map(Into::into));
        let Ok(Command::Serve(config)) = command else { panic!("bad arguments: {command:?}") };
        let running = app::start(config).await.unwrap();
        let (soon, often) = (Duration::from_millis(20), Duration::from_millis(300));
        let (check, reread, poll, heartbeat) = (often, often, often, often);
        let pace = Pace { shared: soon, live: soon, check, reread, poll, heartbeat };
        running.gateway.streams.pace.store(Arc::new(pace));
        let tls = trusting(running.ca_pem.as_deref().unwrap());
        let front = Front { running, tls, _folder: folder };
        let is_ready = || async { front.get("", "/readyz").await.status == 200 };
        Cluster::eventually("the gateway is ready", is_ready).await;
        front
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        let url = format!("https://{}{path}", self.running.https);
        get(&self.tls, &url, &bearer(token)).await.unwrap()
    }

    /// The plain answer as soon as it is as wanted.
    async fn until(&self, token: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Answer {
        let is = || async {
            let answer = self.get(token, path).await;
            answer.status == 200 && wanted(&answer.json())
        };
        Cluster::eventually(&format!("{path} is as wanted"), is).await;
        self.get(token, path).await
    }

    /// A new connection.
    async fn connect(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.running.https).await.unwrap();
        let name = ServerName::try_from(self.running.https.ip().to_string()).unwrap();
        TlsConnector::from(Arc::new(self.tls.clone())).connect(name, tcp).await.unwrap()
    }

    /// Until there are so many streams and evaluations.
    async fn counts(&self, wanted: (usize, usize)) {
        let are = || async { self.running.gateway.streams.counts() == wanted };
        Cluster::eventually(&format!("streams and evaluations are {wanted:?}"), are).await;
    }
}

#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// Whom to ask for the plain answer, as whom, and where.
type Plain<'a> = (&'a Front, &'a str, &'a str);

/// A live answer as a frontend keeps it.
struct Shown {
    stream: Incoming,
    read: Vec<u8>,
    body: Value,
    tag: String,
    /// Names of all events that have come; comments, too.
    came: Vec<String>,
}

impl Shown {
    /// Begins; `last` is what it has from before.
    async fn open(front: &Front, token: &str, path: &str, last: &str) -> Result<Shown, u16> {
        let stream = TokioIo::new(front.connect().await);
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "text/event-stream")
            .header("last-event-id", last)
            .body(Empty::<Bytes>::new());
        let request = request.unwrap();
        let answer = in_time("an answer", sender.send_request(request)).await.unwrap();
        let (head, stream) = answer.into_parts();
        if head.status != 200 {
            return Err(head.status.as_u16());
        }
        let header = |name: &str| head.headers[name].to_str().unwrap();
        let said = ["content-type", "cache-control", "x-accel-buffering"].map(header);
        assert_eq!(said, ["text/event-stream", "no-store", "no"]);
        let (read, came, tag) = (Vec::new(), Vec::new(), String::new());
        Ok(Shown { stream, read, body: Value::Null, tag, came })
    }

    async fn of(front: &Front, token: &str, path: &str) -> Shown {
        let mut shown = Self::open(front, token, path, "").await.unwrap();
        assert_eq!(shown.event().await.unwrap().name, "whole");
        shown
    }

    /// The next event, taken over into the body; `None` at the end of the stream.
    async fn event(&mut self) -> Option<Event> {
        let event = in_time("an event", self.raw()).await?;
        self.came.push(event.name.clone());
        match event.name.as_str() {
            "whole" => self.body = event.data.clone(),
            "change" => apply(&mut self.body, &event.data),
            _ => {}
        }
        if !event.id.is_empty() {
            self.tag = event.id.clone();
        }
        Some(event)
    }

    /// Cancelling it loses nothing: what was read stays in the buffer.
    async fn raw(&mut self) -> Option<Event> {
        loop {
            let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") else {
                let frame = self.stream.frame().await?.unwrap();
                self.read.extend_from_slice(&frame.into_data().unwrap_or_default());
                continue;
            };
            let text = String::from_utf8(self.read.drain(..end + 2).collect()).unwrap();
            let field = |name: &str| {
                let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
                lines.next().unwrap_or_default().trim().to_owned()
            };
            let name = field("event:");
            if name.is_empty() {
                assert!(text.starts_with(':'), "a comment, or an event: {text}");
                self.came.push("comment".to_owned());
                continue;
            }
            let data = serde_json::from_str(&field("data:")).unwrap();
            return Some(Event { name, id: field("id:"), data });
        }
    }

    /// Until what is shown is the plain answer, and as wanted.
    async fn agrees(&mut self, plain: Plain<'_>, wanted: impl Fn(&Value) -> bool) {
        let (front, token, path) = plain;
        let compare = async {
            loop {
                let plain = front.get(token, path).await;
                if plain.header("etag") == self.tag {
                    assert_eq!(self.body, plain.json(), "{path}");
                    if wanted(&self.body) {
                        return;
                    }
                }
                // Not for long: it may have come already, and be no more than to be compared.
                if let Ok(event) = tokio::time::timeout(POLL * 5, self.event()).await {
                    assert!(event.is_some(), "the stream of {path} goes on");
                }
            }
        };
        in_time(&format!("{path} is shown as wanted"), compare).await;
    }

    /// The end that the stream comes to, behind which there is nothing.
    async fn end(&mut self) -> Event {
        loop {
            let event = self.event().await.expect("an end is told");
            if event.name == "end" {
                assert!(self.event().await.is_none(), "nothing behind the end");
                return event;
            }
        }
    }

    fn count(&self, name: &str) -> usize {
        self.came.iter().filter(|came| *came == name).count()
    }
}

/// What a frontend does with a change.
fn apply(body: &mut Value, change: &Value) {
    for (name, value) in change.as_object().unwrap() {
        let rows = body.get(name).and_then(Value::as_array);
        let (Some(rows), Some(set)) = (rows, value.get("set").and_then(Value::as_array)) else {
            body[name] = value.clone();
            continue;
        };
        let uid = |row: &Value| row["objectMeta"]["uid"].to_string();
        let mut known: BTreeMap<String, Value> =
            rows.iter().chain(set).map(|row| (uid(row), row.clone())).collect();
        let gone = value["removed"].as_array().unwrap();
        gone.iter().for_each(|uid| drop(known.remove(&uid.to_string()).unwrap()));
        let order: Vec<String> = match value.get("order").and_then(Value::as_array) {
            Some(order) => order.iter().map(Value::to_string).collect(),
            None => rows.iter().map(uid).filter(|uid| known.contains_key(uid)).collect(),
        };
        body[name] = order.iter().map(|uid| known[uid].clone()).collect();
    }
}

fn names(body: &Value, items: &str) -> Vec<String> {
    let name = |row: &Value| row["objectMeta"]["name"].as_str().unwrap().to_owned();
    body[items].as_array().unwrap().iter().map(name).collect()
}

async fn config_map(cluster: &Cluster, namespace: &str, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    create(cluster, &format!("/api/v1/namespaces/{namespace}/configmaps"), object).await;
}

async fn patch(cluster: &Cluster, path: &str, change: Value) {
    let headers = [("content-type", "application/merge-patch+json")];
    let (admin, sent) = (cluster.token("admin"), change.to_string());
    let (status, _, body) = cluster.request(Method::PATCH, admin, path, &headers, sent).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
}

fn has(items: &'static str, name: &'static str) -> impl Fn(&Value) -> bool {
    move |body| names(body, items).iter().any(|known| known == name)
}

#[tokio::test]
async fn what_comes_changes_and_goes_arrives_and_is_the_plain_answer_each_time() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("live-pods").await;
    for name in ["a", "b", "c"] {
        pod(cluster, &namespace, name, "none").await;
    }
    let (front, admin) = (Front::start(cluster).await, cluster.token("admin"));
    let path = format!("/api/v1/pod/{namespace}?sortBy=d,name&itemsPerPage=10&page=1");
    let mut shown = Shown::of(&front, admin, &path).await;
    shown.agrees((&front, admin, &path), |body| names(body, "pods").len() == 3).await;

    // One that is sad, so that the warnings of a join arrive as well.
    pod(cluster, &namespace, "d", "crash").await;
    let warned = |body: &Value| {
        let row = &body["pods"][0];
        row["objectMeta"]["name"] == "d" && row["warnings"][0]["reason"] == "BackOff"
    };
    shown.agrees((&front, admin, &path), warned).await;
    let object = format!("/api/v1/namespaces/{namespace}/pods/b");
    patch(cluster, &object, json!({"metadata": {"labels": {"turn": "1"}}})).await;
    let labelled = |body: &Value| body["pods"][2]["objectMeta"]["labels"]["turn"] == "1";
    shown.agrees((&front, admin, &path), labelled).await;
    delete(cluster, &object).await;
    let gone = |body: &Value| names(body, "pods") == ["d", "c", "a"];
    shown.agrees((&front, admin, &path), gone).await;
    assert!(shown.count("change") > 0, "{:?}", shown.came);

    // A page stays that page: what the first one loses, it takes over.
    let second = format!("/api/v1/pod/{namespace}?sortBy=a,name&itemsPerPage=2&page=2");
    let mut shown = Shown::of(&front, admin, &second).await;
    shown.agrees((&front, admin, &second), |body| names(body, "pods") == ["d"]).await;
    pod(cluster, &namespace, "b2", "none").await;
    shown.agrees((&front, admin, &second), |body| names(body, "pods") == ["c", "d"]).await;
}

#[tokio::test]
async fn who_resumes_where_he_is_gets_changes_and_who_does_not_gets_the_whole() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("live-resume").await;
    for name in ["a", "b", "c"] {
        config_map(cluster, &namespace, name).await;
    }
    let (front, admin) = (Front::start(cluster).await, cluster.token("admin"));
    let path = format!("/api/v1/configmap/{namespace}");
    let settled = |body: &Value| has("items", "kube-root-ca.crt")(body) && has("items", "c")(body);
    let plain = front.until(admin, &path, settled).await;
    let Shown { tag, body, .. } = Shown::of(&front, admin, &path).await;
    assert_eq!((tag.as_str(), &body), (plain.header("etag"), &plain.json()));

    let mut resumed = Shown::open(&front, admin, &path, &tag).await.unwrap();
    resumed.body = body;
    config_map(cluster, &namespace, "d").await;
    assert_eq!(resumed.event().await.unwrap().name, "change");
    resumed.agrees((&front, admin, &path), has("items", "d")).await;
    assert_eq!(resumed.count("whole"), 0);
    let quiet = async {
        while resumed.count("comment") < 3 {
            let _ = tokio::time::timeout(POLL, resumed.event()).await;
        }
    };
    in_time("signs of life", quiet).await;
    let mut behind = Shown::open(&front, admin, &path, &tag).await.unwrap();
    assert_eq!(behind.event().await.unwrap().name, "whole");
    behind.agrees((&front, admin, &path), has("items", "d")).await;

    // Of equal questions one evaluation, which ends with the last of them.
    front.counts((2, 1)).await;
    let other = Shown::of(&front, admin, "/api/v1/node").await;
    front.counts((3, 2)).await;
    drop((resumed, behind, other));
    front.counts((0, 0)).await;
}

#[tokio::test]
async fn a_user_of_one_namespace_is_told_of_nothing_else_and_when_the_right_is_taken_away() {
    let cluster = cluster::shared().await;
    let (own, other) = (cluster.namespace("live-own").await, cluster.namespace("live-b").await);
    for namespace in [&own, &other] {
        pod(cluster, namespace, "first", "none").await;
    }
    let person = Person::who_lists(cluster, &own, &["pods", "events"]).await;
    let front = Front::start(cluster).await;
    let (path, token) = ("/api/v1/pod", person.token.as_str());
    front.until(token, path, has("pods", "first")).await;
    let mut shown = Shown::of(&front, token, path).await;
    pod(cluster, &other, "theirs", "none").await;
    let theirs = format!("/api/v1/pod/{other}");
    front.until(cluster.token("admin"), &theirs, has("pods", "theirs")).await;
    pod(cluster, &own, "second", "none").await;
    while !has("pods", "second")(&shown.body) {
        let event = shown.event().await.expect("the stream goes on");
        assert!(!event.data.to_string().contains(other.as_str()), "{event:?}");
    }
    shown.agrees((&front, token, path), |body| names(body, "pods").len() == 2).await;

    delete(cluster, &format!("{}/person", bindings(Some(&own)))).await;
    let end = shown.end().await.data;
    assert_eq!(end["status"], 403, "{end}");
    assert!(end["reason"].as_str().unwrap().contains("pods is forbidden"), "{end}");
    assert_eq!(Shown::open(&front, "nonsense", path, "").await.err(), Some(401));
}

#[tokio::test]
async fn a_detail_changes_with_its_object_also_for_a_slow_reader_and_ends_with_it() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("live-detail").await;
    config_map(cluster, &namespace, "one").await;
    let (front, admin) = (Front::start(cluster).await, cluster.token("admin"));
    let path = format!("/api/v1/configmap/{namespace}/one");
    let mut shown = Shown::of(&front, admin, &path).await;
    let object = format!("/api/v1/namespaces/{namespace}/configmaps/one");
    for turn in ["1", "2"] {
        patch(cluster, &object, json!({"data": {"turn": turn}})).await;
        shown.agrees((&front, admin, &path), |body| body["data"]["turn"] == turn).await;
    }
    // Nothing is read meanwhile; what is shown then is the present.
    for turn in 0..20 {
        let much = format!("{turn} {}", "x".repeat(100_000));
        patch(cluster, &object, json!({"data": {"turn": much}})).await;
    }
    let last = |body: &Value| body["data"]["turn"].as_str().unwrap().starts_with("19 ");
    shown.agrees((&front, admin, &path), last).await;

    // What nobody watches is read again now and then.
    let version = "coordination.k8s.io/v1";
    let lease = json!({"apiVersion": version, "kind": "Lease", "metadata": {"name": "one"}});
    let leases = format!("/api/v1/lease/{namespace}");
    let mut listed = Shown::of(&front, admin, &leases).await;
    let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    create(cluster, &collection, lease).await;
    listed.agrees((&front, admin, &leases), |body| body["listMeta"]["totalItems"] == 1).await;

    delete(cluster, &object).await;
    assert_eq!(shown.end().await.data["status"], 404);
    assert_eq!(Shown::open(&front, admin, &path, "").await.err(), Some(404));
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn socket(front: &Front, token: &str) -> Socket {
    let mut request = "wss://localhost/api/v1/stream".into_client_request().unwrap();
    let value = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    let client = tokio_tungstenite::client_async(request, front.connect().await);
    client.await.expect("an upgrade").0
}

async fn say(socket: &mut Socket, command: Value) {
    socket.send(Message::text(command.to_string())).await.unwrap();
}

/// The next message in words; `Null` for the closing one.
async fn told(socket: &mut Socket) -> Value {
    loop {
        let message = in_time("a message", socket.next()).await;
        match message.expect("the socket is open").unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(_) => return Value::Null,
            _ => {}
        }
    }
}

#[tokio::test]
async fn one_websocket_carries_many_live_answers() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("live-socket").await;
    for name in ["a", "b", "c"] {
        config_map(cluster, &namespace, name).await;
    }
    let (front, admin) = (Front::start(cluster).await, cluster.token("admin"));
    let of = |kind: &str| format!("/api/v1/{kind}/{namespace}");
    let (maps, services) = (of("configmap"), of("service"));
    let settled = |body: &Value| has("items", "kube-root-ca.crt")(body) && has("items", "c")(body);
    let plain = front.until(admin, &maps, settled).await;
    let mut socket = socket(&front, admin).await;

    say(&mut socket, json!({"id": "maps", "subscribe": maps})).await;
    let mut shown = told(&mut socket).await;
    assert_eq!((&shown["id"], &shown["event"]), (&json!("maps"), &json!("whole")));
    assert_eq!((&shown["data"], &shown["tag"]), (&plain.json(), &json!(plain.header("etag"))));
    // Under an id that is taken the new one takes its place.
    for path in [maps.as_str(), services.as_str()] {
        say(&mut socket, json!({"id": "services", "subscribe": path})).await;
        assert_eq!(told(&mut socket).await["id"], "services");
    }
    for (command, status) in [
        (json!({"id": "x", "subscribe": "/api/v1/no-such-kind"}), 404),
        (json!({"id": "x", "subscribe": "/clusters/test/api/v1/pods"}), 400),
        (json!({"id": "x", "subscribe": format!("{services}?filterBy=colour,red")}), 400),
        (json!({"id": "x"}), 400),
        (json!(["x"]), 400),
    ] {
        say(&mut socket, command.clone()).await;
        let refused = told(&mut socket).await;
        assert_eq!(refused["event"], "error", "{command}: {refused}");
        assert_eq!(refused["data"]["status"], status, "{command}: {refused}");
    }

    config_map(cluster, &namespace, "d").await;
    let change = told(&mut socket).await;
    assert_eq!((&change["id"], &change["event"]), (&json!("maps"), &json!("change")));
    apply(&mut shown["data"], &change["data"]);
    assert!(has("items", "d")(&shown["data"]), "{shown}");

    say(&mut socket, json!({"id": "maps", "unsubscribe": true})).await;
    assert_eq!(told(&mut socket).await["data"]["reason"], "unsubscribed");
    let last = change["tag"].as_str().unwrap();
    say(&mut socket, json!({"id": "maps", "subscribe": maps, "lastEventId": last})).await;
    // It is looked at before the next one comes: what is known already is not told again.
    front.counts((3, 2)).await;
    front.get(admin, &maps).await;
    config_map(cluster, &namespace, "e").await;
    let resumed = told(&mut socket).await;
    assert_eq!((&resumed["id"], &resumed["event"]), (&json!("maps"), &json!("change")));
    let mut full = self::socket(&front, admin).await;
    for id in 0..=64 {
        say(&mut full, json!({"id": id.to_string(), "subscribe": services})).await;
    }
    let refused = loop {
        let news = told(&mut full).await;
        if news["event"] != "whole" {
            break news;
        }
    };
    assert_eq!((&refused["id"], &refused["event"]), (&json!("64"), &json!("error")));
    assert_eq!(refused["data"]["status"], 429, "{refused}");
    drop(full);
    let long = json!({"id": "maps", "subscribe": "x".repeat(64 << 10)});
    say(&mut socket, long).await;
    let closed = async {
        loop {
            if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
                return frame.unwrap();
            }
        }
    };
    assert_eq!(u16::from(in_time("it is too long", closed).await.code), 1009);
    drop(socket);
    front.counts((0, 0)).await;
}

#[tokio::test]
async fn a_shutdown_tells_every_reader_to_come_back_and_waits_for_none() {
    let cluster = cluster::shared().await;
    let (front, admin) = (Front::start(cluster).await, cluster.token("admin"));
    let path = "/api/v1/csidriver";
    let mut shown = Shown::of(&front, admin, path).await;
    let mut socket = socket(&front, admin).await;
    say(&mut socket, json!({"id": "drivers", "subscribe": path})).await;
    assert_eq!(told(&mut socket).await["event"], "whole");
    // Nobody reads this one.
    let mut deaf = self::socket(&front, admin).await;
    say(&mut deaf, json!({"id": "drivers", "subscribe": path})).await;
    let Front { running, _folder, .. } = front;
    let drained = tokio::spawn(running.drain());
    let end = shown.end().await.data;
    assert_eq!(end["reason"], "shutting down", "{end}");
    assert!(end["retry"].as_u64().is_some_and(|retry| retry >= 1_000), "{end}");
    let end = told(&mut socket).await;
    assert_eq!((&end["event"], &end["data"]["reason"]), (&json!("end"), &json!("shutting down")));
    assert!(told(&mut socket).await.is_null(), "and then the socket is closed");
    drop(socket);
    in_time("it has ended", drained).await.unwrap();
    drop(deaf);
}

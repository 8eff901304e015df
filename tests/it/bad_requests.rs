//! Every family of operations on the real cluster, asked in every wrong way that its callers find:
//! what does not exist, is not theirs, is no JSON, too large, of another type or method, or encoded
//! oddly. Each answer has the right status and words that name the thing, and nothing is half done.
//!
//! Here reads, raw objects, actions and scales; bodies and forms: `forms`; lists for objects, names
//! that nothing can have, selectors: `shapes`. It is NOT where broken HTTP, headers and credentials
//! are tested (`bad_input.rs`).

mod forms;
mod shapes;

use binnacle::kinds::{KINDS, KindDef, Source};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::{Person, create, workload};

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;
const PATCH: Method = Method::PATCH;
/// A name that nothing has.
const NONE: &str = "nosuch";
/// Parts of a path that may not leave their place, or are no text.
const ODD: [&str; 4] = ["%00", "%2e%2e", "a%2Fb", "%ff"];

#[derive(Debug, Clone, Copy)]
enum Who {
    Admin,
    /// Somebody without any rights.
    Stranger,
}
use Who::{Admin, Stranger};

/// A gateway, a namespace, and connections that are used again.
struct Desk {
    gateway: Gateway,
    cluster: &'static Cluster,
    namespace: String,
    stranger: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Desk {
    async fn open(prefix: &str) -> Desk {
        let cluster = cluster::shared().await;
        let namespace = cluster.namespace(prefix).await;
        let stranger = Person::new(cluster, &namespace, "stranger").await.token;
        let extra = vec!["--settings-namespace".to_owned(), namespace.clone()];
        let gateway = gateway::start(Options { extra, ..Options::default() }).await;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(gateway.tls())
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Desk { gateway, cluster, namespace, stranger, client }
    }

    /// A request; a POST carries the token against forgery that it needs.
    async fn send(
        &self,
        (method, who, path): (Method, Who, &str),
        content: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Answer {
        let token = match who {
            Admin => self.cluster.token("admin"),
            Stranger => &self.stranger,
        };
        let mut request = Request::builder()
            .uri(format!("{}{path}", self.gateway.url))
            .header("authorization", format!("Bearer {token}"));
        if let Some(rest) = path.strip_prefix("/api/v1/").filter(|_| method == POST) {
            let action = rest.split('/').next().unwrap();
            let answer = self.gateway.get("admin", &format!("/api/v1/csrftoken/{action}")).await;
            request = request.header("x-csrf-token", answer.json()["token"].as_str().unwrap());
        }
        if let Some(content) = content {
            request = request.header("content-type", content);
        }
        let request = request.method(method).body(Full::new(body.into())).unwrap();
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// The request, with a body that is declared as JSON, has one of these statuses, and where it
    /// is refused the answer holds these words.
    async fn says(
        &self,
        (method, who, path): (Method, Who, &str),
        body: &str,
        statuses: &[u16],
        words: &str,
    ) -> Answer {
        let sent = body.to_owned();
        let content = (!sent.is_empty()).then_some("application/json");
        let answer = self.send((method.clone(), who, path), content, sent).await;
        let (status, text) = (answer.status, answer.text());
        let asked = format!("{method} {path} by {who:?} with {body:.80}");
        assert!(statuses.contains(&status), "{asked}: {status}, not {statuses:?}: {text}");
        assert!(status < 400 || !text.trim().is_empty(), "{asked}: {status} without a word");
        assert!(status < 400 || text.contains(words), "{asked}: no word of {words:?}: {text}");
        answer
    }

    /// A path with an odd part in the place of `@` is a 400.
    async fn is_odd(&self, method: Method, path: &str) {
        for part in ODD {
            let path = path.replace('@', part);
            self.says((method.clone(), Admin, &path), "", &[400], "").await;
        }
    }

    async fn wrong_methods(&self, path: &str, methods: &[Method]) {
        for method in methods {
            self.says((method.clone(), Admin, path), "{}", &[405], "Method").await;
        }
    }

    /// Where the contract has lists: refused to a stranger in words, and with nothing in it.
    async fn is_an_empty_list(&self, path: &str, items: &str) {
        let list = self.says((GET, Stranger, path), "", &[200], "").await.json();
        assert!(list[items].as_array().is_none_or(Vec::is_empty), "{path}: {list}");
        assert!(list["errors"].to_string().contains("forbidden"), "{path}: {list}");
    }

    async fn lists(&self, kind: &KindDef) {
        let all = format!("/api/v1/{}", kind.name);
        self.wrong_methods(&all, &[PUT, DELETE, PATCH]).await;
        self.is_an_empty_list(&all, kind.list.items).await;
        if kind.name != "event" {
            let filtered = format!("{all}?filterBy=nosuchcolumn,x");
            self.says((GET, Admin, &filtered), "", &[400], "nosuchcolumn").await;
        }
        let selected = format!("{all}?labelSelector=a%20in%20%28b");
        self.says((GET, Admin, &selected), "", &[400], "label selector").await;
        if kind.resource.namespaced {
            // Nothing is there, as nothing is where no namespace can be: half a name, typed.
            for nowhere in [NONE, "kube-", "Shop"].map(|name| format!("{all}/{name}")) {
                let answer = self.says((GET, Admin, &nowhere), "", &[200, 404], "").await;
                if answer.status == 200 {
                    assert_eq!(answer.json()["listMeta"]["totalItems"], 0, "{nowhere}");
                } else {
                    assert!(may_be_absent(kind), "{nowhere}: {}", answer.text());
                }
            }
            self.is_odd(GET, &format!("{all}/@")).await;
            self.is_an_empty_list(&format!("{all}/{}", self.namespace), kind.list.items).await;
        }
    }

    async fn details(&self, kind: &KindDef) {
        let place = match kind.resource.namespaced {
            true => format!("/api/v1/{}/{}", kind.name, self.namespace),
            false => format!("/api/v1/{}", kind.name),
        };
        let absent = may_be_absent(kind);
        let refused: &[u16] = if absent { &[403, 404] } else { &[403] };
        let (name, words) = if absent { ("", "") } else { (NONE, "forbidden") };
        let children = kind.children.iter().map(|(segment, _)| format!("/{segment}"));
        for end in [String::new()].into_iter().chain(children) {
            let path = format!("{place}/{NONE}{end}");
            self.says((GET, Admin, &path), "", &[404], name).await;
            self.says((GET, Stranger, &path), "", refused, words).await;
            self.is_odd(GET, &format!("{place}/@{end}")).await;
            self.wrong_methods(&path, &[POST, DELETE, PATCH]).await;
            if kind.resource.namespaced {
                self.is_odd(GET, &format!("/api/v1/{}/@/{NONE}{end}", kind.name)).await;
            }
        }
    }
}

/// Kinds that the cluster has only where somebody has installed their definitions.
fn may_be_absent(kind: &KindDef) -> bool {
    kind.resource.group == "gateway.networking.k8s.io"
}

#[tokio::test]
async fn lists_details_and_children_of_every_kind_say_what_is_wrong() {
    let desk = Desk::open("bad-reads").await;
    for kind in KINDS.iter().filter(|kind| kind.source != Source::Poll) {
        desk.lists(kind).await;
        desk.details(kind).await;
    }
    // What exists in one namespace does not in another.
    let other = format!("/api/v1/serviceaccount/{}/stranger", desk.namespace);
    desk.says((GET, Admin, &other), "", &[200], "").await;
    desk.says((GET, Admin, "/api/v1/serviceaccount/kube-system/stranger"), "", &[404], "stranger")
        .await;
}

#[tokio::test]
async fn raw_objects_say_what_is_wrong_and_keep_what_they_have() {
    let desk = Desk::open("bad-raw").await;
    let (cluster, namespace) = (desk.cluster, desk.namespace.as_str());
    let services = format!("/api/v1/namespaces/{namespace}/services");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}]}});
    let service = create(cluster, &services, service).await;
    let web = format!("/api/v1/_raw/service/namespace/{namespace}/name/web");
    let none = format!("/api/v1/_raw/service/namespace/{namespace}/name/{NONE}");
    let mut other = service.clone();
    other["metadata"] = json!({"name": NONE});
    for (method, body) in [(GET, String::new()), (PUT, other.to_string()), (DELETE, String::new())]
    {
        desk.says((method.clone(), Admin, &none), &body, &[404], NONE).await;
        let body = if method == PUT { service.to_string() } else { String::new() };
        desk.says((method.clone(), Stranger, &web), &body, &[403], "forbidden").await;
        let unknown = format!("/api/v1/_raw/nosuchkind/namespace/{namespace}/name/web");
        desk.says((method.clone(), Admin, &unknown), &body, &[404], "nosuchkind").await;
        let elsewhere = "/api/v1/_raw/service/namespace/kube-system/name/web";
        let says = if method == PUT { (400, "kube-system") } else { (404, "web") };
        desk.says((method.clone(), Admin, elsewhere), &body, &[says.0], says.1).await;
        if method != PUT {
            for place in [
                format!("/api/v1/_raw/@/namespace/{namespace}/name/web"),
                "/api/v1/_raw/service/namespace/@/name/web".to_owned(),
                format!("/api/v1/_raw/service/namespace/{namespace}/name/@"),
                "/api/v1/_raw/namespace/name/@".to_owned(),
            ] {
                desk.is_odd(method.clone(), &place).await;
            }
        }
    }
    desk.wrong_methods(&web, &[POST, PATCH]).await;
    // What the API server itself does not take, in its words.
    let edited = |pointer: &str, value: Value| {
        let mut object = service.clone();
        *object.pointer_mut(pointer).unwrap() = value;
        object.to_string()
    };
    let port = edited("/spec/ports/0/port", json!(99_999));
    desk.says((PUT, Admin, &web), &port, &[422], "spec.ports[0].port").await;
    let kind = edited("/spec/ports", json!("many"));
    desk.says((PUT, Admin, &web), &kind, &[400], "ports").await;
    let mut unknown = service.clone();
    unknown["spec"]["nosuchfield"] = json!(1);
    for version in [&service["metadata"]["resourceVersion"], &Value::Null] {
        unknown["metadata"]["resourceVersion"] = version.clone();
        let unknown = unknown.to_string();
        desk.says((PUT, Admin, &web), &unknown, &[400], "spec.nosuchfield").await;
    }
    let now = desk.says((GET, Admin, &web), "", &[200], "").await.json();
    let (port, unknown) = (&now["spec"]["ports"][0]["port"], &now["spec"]["nosuchfield"]);
    assert_eq!((port, unknown), (&json!(80), &Value::Null));
}

#[tokio::test]
async fn actions_and_scales_say_what_is_wrong_and_change_nothing() {
    let desk = Desk::open("bad-actions").await;
    let namespace = desk.namespace.clone();
    workload(desk.cluster, &namespace, "web", 0, "none").await;
    for kind in KINDS.iter().filter(|kind| !kind.actions.is_empty()) {
        for action in kind.actions {
            let action = action.segment();
            let body = if action == "rollback" { r#"{"revision":"1"}"# } else { "" };
            let place = format!("/api/v1/{}/{namespace}", kind.name);
            let path = format!("{place}/{NONE}/{action}");
            desk.says((PUT, Admin, &path), body, &[404], NONE).await;
            desk.says((PUT, Stranger, &path), body, &[403], "forbidden").await;
            desk.is_odd(PUT, &format!("{place}/@/{action}")).await;
            desk.is_odd(PUT, &format!("/api/v1/{}/@/web/{action}", kind.name)).await;
            desk.wrong_methods(&path, &[GET, POST, DELETE]).await;
        }
    }
    let web = format!("/api/v1/deployment/{namespace}/web");
    let rollback = format!("{web}/rollback");
    desk.says((PUT, Admin, &rollback), r#"{"revision":"77"}"#, &[404], "77").await;
    desk.says((PUT, Admin, &format!("{web}/resume")), "", &[409], "web").await;
    desk.says((PUT, Admin, &format!("{web}/pause")), "", &[200], "").await;
    for again in ["pause", "restart"] {
        desk.says((PUT, Admin, &format!("{web}/{again}")), "", &[409], "paused").await;
    }
    desk.says((PUT, Admin, &rollback), r#"{"revision":"1"}"#, &[409], "paused").await;

    let scale = format!("/api/v1/scale/deployment/{namespace}/web");
    for wrong in ["", "?scaleBy=", "?scaleBy=-1", "?scaleBy=1.5", "?scaleBy=9999999999"] {
        desk.says((PUT, Admin, &format!("{scale}{wrong}")), "", &[400], "scaleBy").await;
    }
    for (method, query) in [(GET, ""), (PUT, "?scaleBy=3")] {
        let ask = async |who, path: String, status, words| {
            let path = format!("{path}{query}");
            desk.says((method.clone(), who, &path), "", &[status], words).await;
        };
        ask(Stranger, scale.clone(), 403, "forbidden").await;
        ask(Admin, format!("/api/v1/scale/deployment/{namespace}/{NONE}"), 404, NONE).await;
        ask(Admin, format!("/api/v1/scale/deployment/{NONE}/web"), 404, "web").await;
        for kind in ["nosuchkind", "configmap", "nosuch.example.org"] {
            ask(Admin, format!("/api/v1/scale/{kind}/{namespace}/web"), 404, kind).await;
        }
        ask(Admin, "/api/v1/scale/deployment/web".to_owned(), 400, "/NAMESPACE/NAME").await;
        for place in ["deployment/a/@", "deployment/@/web", "@/a/b", "deployment/@"] {
            desk.is_odd(method.clone(), &format!("/api/v1/scale/{place}{query}")).await;
        }
    }
    desk.wrong_methods(&scale, &[POST, DELETE, PATCH]).await;
    let counts = desk.says((GET, Admin, &scale), "", &[200], "").await.json();
    assert_eq!(counts, json!({"desiredReplicas": 0, "actualReplicas": 0}));
}

#[tokio::test]
async fn logs_metrics_overview_search_and_custom_objects_say_what_is_wrong() {
    let desk = Desk::open("bad-others").await;
    let here = desk.namespace.clone();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    create(desk.cluster, definitions, widgets()).await;
    let crd = format!("/api/v1/crd/{here}/widgets.bad.example.org");
    let objects = format!("{crd}/object");
    let is_served = || async { desk.gateway.get("admin", &objects).await.status == 200 };
    Cluster::eventually("the custom kind is listed", is_served).await;
    let bad: &[u16] = &[400];
    let absent: &[u16] = &[404];
    let refused: &[u16] = &[403];
    // The metrics source of a young cluster does not answer yet.
    let young: &[u16] = &[404, 503, 504];
    let unknown: &[u16] = &[403, 404, 503, 504];
    for (path, statuses, words, strangers) in [
        (format!("log/{here}/{NONE}"), absent, NONE, refused),
        (format!("log/{here}/{NONE}/main"), absent, NONE, refused),
        (format!("log/file/{here}/{NONE}/main"), absent, NONE, refused),
        (format!("log/source/{here}/{NONE}/pod"), absent, NONE, refused),
        (format!("log/source/{here}/{NONE}/deployment"), absent, NONE, refused),
        (format!("log/source/{here}/web/nosuchkind"), absent, "nosuchkind", absent),
        (format!("log/file/{here}/a/b?tailLines=x"), bad, "tailLines", bad),
        (format!("log/file/{here}/a/b?sinceSeconds=0"), bad, "sinceSeconds", bad),
        (format!("log/file/{here}/a/b?sinceTime=noon"), bad, "noon", bad),
        (format!("metrics/pod/{here}/{NONE}"), young, "", unknown),
        (format!("metrics/node/{NONE}"), young, "", unknown),
        ("metrics/pod/a%20b/c".to_owned(), bad, "a b", bad),
        (format!("integration/{NONE}/state"), absent, NONE, absent),
        ("search?q=a".to_owned(), bad, "characters", bad),
        ("search".to_owned(), bad, "characters", bad),
        ("search?q=web&kinds=pod,gadget".to_owned(), bad, "gadget", bad),
        ("search?q=web&namespace=Not_one".to_owned(), bad, "Not_one", bad),
        ("overview/Not_one".to_owned(), bad, "Not_one", bad),
        (format!("crd/{here}/{NONE}.example.org/object"), absent, NONE, absent),
        (format!("crd/{here}/plain/object"), absent, "plain", absent),
        (format!("crd/{here}/widgets.bad.example.org/{NONE}"), absent, NONE, refused),
        (format!("crd/{here}/widgets.bad.example.org/{NONE}/event"), absent, NONE, refused),
        (format!("crd/{here},b/widgets.bad.example.org/{NONE}"), bad, "one namespace", bad),
    ] {
        let path = format!("/api/v1/{path}");
        desk.says((GET, Admin, &path), "", statuses, words).await;
        desk.says((GET, Stranger, &path), "", strangers, "").await;
        let bare = path.split('?').next().unwrap();
        desk.wrong_methods(bare, &[PUT, DELETE]).await;
    }
    for odd in [
        "log/@/pod",
        "log/ns/@",
        "log/ns/pod/@",
        "log/file/ns/@/main",
        "log/source/@/a/pod",
        "metrics/pod/ns/@",
        "metrics/node/@",
        "metrics/namespace/@",
        "integration/@/state",
        "overview/@",
        "csrftoken/@",
        "crd/ns/@/object",
        "crd/@/widgets.bad.example.org/object",
        "crd/ns/widgets.bad.example.org/@",
        "crd/ns/widgets.bad.example.org/@/event",
    ] {
        desk.is_odd(GET, &format!("/api/v1/{odd}")).await;
    }
    desk.is_an_empty_list(&objects, "items").await;
    desk.is_an_empty_list("/api/v1/search?q=kube", "items").await;
    let path = format!("/api/v1/overview/{here}");
    let overview = desk.says((GET, Stranger, &path), "", &[200], "").await.json();
    assert_eq!((&overview["objects"], &overview["warnings"]), (&json!({}), &json!([])));
    assert!(overview["errors"].to_string().contains("forbidden"), "{overview}");
    let nowhere = desk.says((GET, Admin, "/api/v1/overview/nosuch"), "", &[200], "").await.json();
    assert_eq!(nowhere["objects"]["pod"], 0, "{nowhere}");
}

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.bad.example.org"},
        "spec": {
            "group": "bad.example.org", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    })
}

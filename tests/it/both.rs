//! Two API servers side by side, the demo and the real one: the same request goes to both, and what
//! they say is compared, but for what is another with every object (uids, versions, times, field
//! managers).
//!
//! It proves nothing itself; `demo.rs` does.

use std::net::SocketAddr;
use std::time::Duration;

use binnacle::demo::{Demo, DemoOptions};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::certificate::trusting;
use crate::cluster::{self, Cluster};

/// Far beyond what any answer here takes.
const DEADLINE: Duration = Duration::from_secs(60);

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// One of the two API servers.
pub struct Api {
    url: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    admin: String,
    /// Somebody who may do nothing in the test's namespace until a role is bound.
    person: &'static str,
    person_token: String,
}

/// Both, with a namespace of the same name in each.
pub struct Pair {
    pub real: Api,
    pub demo: Api,
    pub namespace: String,
    pub server: Demo,
}

#[derive(Clone, Copy, Debug)]
pub enum Who {
    Admin,
    Person,
    /// This `Authorization`; none when it is empty.
    Header(&'static str),
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub who: Who,
    pub method: Method,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    body: String,
}

/// An answer without what always differs.
#[derive(Debug, PartialEq)]
pub struct Said {
    pub status: u16,
    content_type: String,
    pub body: Value,
}

pub fn get(path: impl Into<String>) -> Ask {
    let (who, method, path) = (Who::Admin, Method::GET, path.into());
    Ask { who, method, path, headers: Vec::new(), body: String::new() }
}

pub fn delete(path: impl Into<String>) -> Ask {
    Ask { method: Method::DELETE, ..get(path) }
}

pub fn send(method: Method, path: impl Into<String>, body: &Value) -> Ask {
    let ask = Ask { method, body: body.to_string(), ..get(path) };
    ask.with("content-type", "application/json")
}

pub fn post(path: impl Into<String>, body: &Value) -> Ask {
    send(Method::POST, path, body)
}

pub fn patch(content_type: &str, path: impl Into<String>, body: &Value) -> Ask {
    let ask = Ask { method: Method::PATCH, body: body.to_string(), ..get(path) };
    ask.with("content-type", content_type)
}

impl Ask {
    pub fn by(self, who: Who) -> Ask {
        Ask { who, ..self }
    }

    /// With this body, which need not be JSON.
    pub fn saying(self, body: &str) -> Ask {
        Ask { body: body.to_owned(), ..self }
    }

    pub fn with(mut self, header: &'static str, value: &str) -> Ask {
        self.headers.push((header, value.to_owned()));
        self
    }
}

impl Api {
    async fn send(&self, ask: &Ask) -> http::Response<Incoming> {
        let mut request =
            Request::builder().method(ask.method.clone()).uri(format!("{}{}", self.url, ask.path));
        let authorization = match ask.who {
            Who::Admin => format!("Bearer {}", self.admin),
            Who::Person => format!("Bearer {}", self.person_token),
            Who::Header(value) => value.to_owned(),
        };
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(ask.body.clone())).unwrap();
        let response = tokio::time::timeout(DEADLINE, self.client.request(request)).await;
        response.unwrap_or_else(|_| panic!("{} did not answer {ask:?}", self.url)).unwrap()
    }

    pub async fn said(&self, ask: &Ask) -> Said {
        let (head, body) = self.send(ask).await.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect()).await.expect("an end of it");
        let body = body.unwrap().to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&body));
        let content_type = head.headers.get("content-type").map(|it| it.to_str().unwrap());
        Said {
            status: head.status.as_u16(),
            content_type: content_type.unwrap_or_default().to_owned(),
            body: self.comparable(serde_json::from_slice(&body).unwrap_or_else(|_| text())),
        }
    }

    /// Without uids, versions, times and field managers; the person is called PERSON.
    fn comparable(&self, value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let kept = fields.into_iter().filter(|(name, _)| !differs(name));
                kept.map(|(name, value)| (name, self.comparable(value))).collect()
            }
            Value::Array(items) => items.into_iter().map(|item| self.comparable(item)).collect(),
            Value::String(text) if text == self.person => json!("PERSON"),
            Value::String(text) => {
                json!(text.replace(&format!("\"{}\"", self.person), "\"PERSON\""))
            }
            other => other,
        }
    }

    /// The events of a watch.
    pub async fn watch(&self, path: &str) -> Events<'_> {
        let reply = self.send(&get(path)).await;
        assert_eq!(reply.status(), 200, "{path}");
        Events { api: self, body: reply.into_body(), read: Vec::new() }
    }

    /// The `resourceVersion` of a list, from which a watch can go on.
    pub async fn version(&self, collection: &str) -> String {
        let reply = self.send(&get(format!("{collection}?limit=1"))).await;
        let list = reply.into_body().collect().await.unwrap().to_bytes();
        let list: Value = serde_json::from_slice(&list).unwrap();
        list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
    }
}

fn differs(field: &str) -> bool {
    let always = ["uid", "resourceVersion", "generation", "managedFields"];
    let times = ["creationTimestamp", "deletionTimestamp"];
    always.contains(&field) || times.contains(&field)
}

pub struct Events<'a> {
    api: &'a Api,
    body: Incoming,
    read: Vec<u8>,
}

impl Events<'_> {
    /// None at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(self.api.comparable(serde_json::from_slice(&line).unwrap()));
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await;
            let frame = frame.expect("an event, or the end")?;
            self.read.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
    }

    pub async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await.unwrap_or_else(|| panic!("it ended after {taken:?}")));
        }
        taken
    }
}

impl Pair {
    pub async fn start(prefix: &str) -> Pair {
        let cluster = cluster::shared().await;
        let namespace = cluster.namespace(prefix).await;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = DemoOptions { listen, pods: 0, simulate: false };
        let server = Demo::start(options).await.unwrap();
        let [admin, team, ..] = Demo::users() else { panic!("the demo has users") };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trusting(cluster.ca_pem()))
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let real = Api {
            url: cluster.server.clone(),
            client: client.clone(),
            admin: cluster.token("admin").to_owned(),
            person: "user-3",
            person_token: cluster.token("user-3").to_owned(),
        };
        let demo = Api {
            url: server.url(),
            client,
            admin: admin.token.to_owned(),
            person: team.name,
            person_token: team.token.to_owned(),
        };
        let object = json!({"metadata": {"name": namespace}});
        let made = demo.said(&post("/api/v1/namespaces", &object)).await;
        assert_eq!(made.status, 201, "{made:?}");
        Pair { real, demo, namespace, server }
    }

    /// The path of a collection of the core group in the test's namespace.
    pub fn core(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.namespace)
    }

    pub fn apps(&self, plural: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{plural}", self.namespace)
    }

    pub async fn both(&self, ask: &Ask) -> (Said, Said) {
        (self.real.said(ask).await, self.demo.said(ask).await)
    }

    /// Asks both; they say the same.
    pub async fn same(&self, ask: Ask) -> Said {
        let (real, demo) = self.both(&ask).await;
        assert_eq!(demo, real, "the demo (left) and a real server (right) on {ask:?}");
        real
    }

    /// Asks both; they fail with the same status and reason, each in its own words.
    pub async fn alike(&self, ask: Ask, status: u16) {
        let (real, demo) = self.both(&ask).await;
        let shape = |said: &Said| (said.status, said.body["reason"].clone());
        assert_eq!(shape(&demo), shape(&real), "{ask:?}:\n{demo:?}\n{real:?}");
        assert_eq!(real.status, status, "{ask:?}: {real:?}");
    }

    /// Makes secrets `s0` to `s4` with different labels.
    pub async fn secrets(&self) -> String {
        let secrets = self.core("secrets");
        let labels = [
            json!({"app": "a", "tier": "x"}),
            json!({"app": "a"}),
            json!({"app": "b", "tier": "y"}),
            json!({"other": "c"}),
            json!(null),
        ];
        for (number, labels) in labels.into_iter().enumerate() {
            let mut object = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": format!("s{number}")}, "data": {"k": "MQ=="},
            });
            if labels.is_object() {
                object["metadata"]["labels"] = labels;
            }
            assert_eq!(self.same(post(&secrets, &object)).await.status, 201);
        }
        secrets
    }

    /// Lets the person get and list config maps in the test's namespace.
    pub async fn grant(&self) {
        let group = "rbac.authorization.k8s.io";
        let at = format!("{RBAC}/namespaces/{}", self.namespace);
        let role = json!({
            "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "reader"},
            "rules": [rule()],
        });
        let made = self.same(post(format!("{at}/roles"), &role)).await;
        assert_eq!(made.status, 201, "{made:?}");
        for api in [&self.real, &self.demo] {
            let subject = json!({"apiGroup": group, "kind": "User", "name": api.person});
            let binding = json!({
                "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
                "metadata": {"name": "reader"}, "subjects": [subject],
                "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            });
            let made = api.said(&post(format!("{at}/rolebindings"), &binding)).await;
            assert_eq!(made.status, 201, "{made:?}");
            let ask = get(format!("{}?labelSelector=no", self.core("configmaps"))).by(Who::Person);
            let may = || async { api.said(&ask).await.status == 200 };
            Cluster::eventually("the role is in force", may).await;
        }
    }
}

pub fn rule() -> Value {
    json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]})
}

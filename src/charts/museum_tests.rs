//! A ChartMuseum of a few lines: its routes, its refusals and its words, without its storage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::super::client::Credentials;
use super::super::{PACKED, Policy};
use super::*;

/// What it was started with; archives are told apart by their text, `name-version`.
struct Server {
    context: &'static str,
    tenant: &'static str,
    has_api: bool,
    deletes: bool,
    forces: bool,
    most: usize,
    /// The `Authorization` that is wanted.
    wants: Option<&'static str>,
    files: Mutex<BTreeMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            context: "",
            tenant: "",
            has_api: true,
            deletes: true,
            forces: true,
            most: usize::MAX,
            wants: None,
            files: Mutex::default(),
            asked: Mutex::default(),
        }
    }
}

impl Server {
    /// Runs it; the address of its repository.
    async fn start(self) -> (Arc<Self>, Url) {
        let server = Arc::new(self);
        let serving = server.clone();
        let handler = move |request: Request| {
            let server = serving.clone();
            async move { server.answer(request).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let url = format!("http://{address}{}{}/", server.context, server.tenant);
        (server, url.parse().unwrap())
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, PACKED).await.unwrap();
        self.asked.lock().unwrap().push(format!("{} {}", head.method, head.uri));
        let said = |status: u16, error: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            (status, json!({ "error": error }).to_string()).into_response()
        };
        let api = format!("{}/api{}/", self.context, self.tenant);
        let rest = head.uri.path().strip_prefix(&api).filter(|_| self.has_api);
        let Some(rest) = rest else { return said(404, "not found") };
        let wanted = head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        if self.wants.is_some() && self.wants != wanted {
            return said(401, "unauthorized");
        }
        let forced = self.forces && head.uri.query().is_some_and(|query| query == "force");
        let parts: Vec<&str> = rest.split('/').collect();
        let mut files = self.files.lock().unwrap();
        let (kind, text) = (parts[0], String::from_utf8_lossy(&body).into_owned());
        match (head.method.as_str(), parts.as_slice()) {
            ("POST", ["charts" | "prov"]) => {
                let end = if kind == "prov" { "tgz.prov" } else { "tgz" };
                let file = format!("{text}.{end}");
                if !forced && files.contains_key(&file) {
                    return said(409, "file already exists");
                }
                if files.len() >= self.most && !files.contains_key(&file) {
                    return said(507, "repo has reached storage limit");
                }
                files.insert(file, body);
                (StatusCode::CREATED, json!({ "saved": true }).to_string()).into_response()
            }
            ("DELETE", ["charts", name, version]) if self.deletes => {
                match files.remove(&format!("{name}-{version}.tgz")) {
                    Some(_) => json!({ "deleted": true }).to_string().into_response(),
                    None => said(404, "remove /charts/web.tgz: no such file or directory"),
                }
            }
            _ => said(404, "not found"),
        }
    }

    fn files(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn client() -> Client {
    Client::new(&Policy::default().with_loopback(), None).unwrap()
}

async fn upload(url: &Url, chart: &'static str, force: bool) -> Result<(), BadPush> {
    Museum { client: &client(), url }.upload(chart, Bytes::from(chart), force).await
}

async fn delete(url: &Url, version: &str) -> Result<(), BadPush> {
    Museum { client: &client(), url }.delete("web", "web", version).await
}

#[tokio::test]
async fn a_chart_and_its_provenance_go_to_the_api_of_their_tenant() {
    let (server, url) = Server { tenant: "/org/repo", ..Server::default() }.start().await;
    upload(&url, "web-1.2.3", false).await.unwrap();
    let client = client();
    let museum = Museum { client: &client, url: &url };
    museum.sign("web", Bytes::from("web-1.2.3"), false).await.unwrap();
    assert_eq!(server.files(), ["web-1.2.3.tgz", "web-1.2.3.tgz.prov"]);
    assert_eq!(server.asked(), ["POST /api/org/repo/charts", "POST /api/org/repo/prov"]);
}

#[tokio::test]
async fn the_api_is_found_behind_a_context_path() {
    let server = Server { context: "/museum", tenant: "/org", ..Server::default() };
    let (server, url) = server.start().await;
    upload(&url, "web-1.2.3", true).await.unwrap();
    assert_eq!(
        server.asked(),
        ["POST /api/museum/org/charts?force", "POST /museum/api/org/charts?force"]
    );
    delete(&url, "1.2.3").await.unwrap();
    assert!(server.files().is_empty());
}

#[tokio::test]
async fn what_is_there_is_replaced_by_force_alone() {
    let (server, url) = Server::default().start().await;
    upload(&url, "web-1.2.3", false).await.unwrap();
    let error = upload(&url, "web-1.2.3", false).await.unwrap_err();
    assert!(matches!(error, BadPush::Exists(..)), "{error}");
    upload(&url, "web-1.2.3", true).await.unwrap();
    assert_eq!(server.files().len(), 1);
    let (_, url) = Server { forces: false, ..Server::default() }.start().await;
    upload(&url, "web-1.2.3", false).await.unwrap();
    let error = upload(&url, "web-1.2.3", true).await.unwrap_err();
    assert!(matches!(error, BadPush::Immutable(..)), "{error}");
    assert!(error.to_string().ends_with("file already exists"), "{error}");
}

#[tokio::test]
async fn a_museum_that_is_full_says_so() {
    let (_, url) = Server { most: 1, ..Server::default() }.start().await;
    upload(&url, "web-1.2.3", false).await.unwrap();
    let error = upload(&url, "web-1.2.4", false).await.unwrap_err();
    assert!(matches!(error, BadPush::Full(..)), "{error}");
    assert!(error.to_string().ends_with("repo has reached storage limit"), "{error}");
}

#[tokio::test]
async fn an_api_that_is_switched_off_is_told_from_a_chart_that_is_not_there() {
    let (_, url) = Server { has_api: false, ..Server::default() }.start().await;
    let error = upload(&url, "web-1.2.3", false).await.unwrap_err();
    assert!(matches!(error, BadPush::NoApi(_)), "{error}");
    let error = delete(&url, "1.2.3").await.unwrap_err();
    assert!(matches!(error, BadPush::NoDelete(_)), "{error}");
    let (_, url) = Server { deletes: false, ..Server::default() }.start().await;
    upload(&url, "web-1.2.3", false).await.unwrap();
    let error = delete(&url, "1.2.3").await.unwrap_err();
    assert!(matches!(error, BadPush::NoDelete(_)), "{error}");
    let (_, url) = Server::default().start().await;
    let error = delete(&url, "1.2.3").await.unwrap_err();
    assert!(matches!(error, BadPush::NotFound(..)), "{error}");
}

#[tokio::test]
async fn a_server_of_plain_files_takes_no_charts() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/charts/", listener.local_addr().unwrap()).parse().unwrap();
    let page = (StatusCode::METHOD_NOT_ALLOWED, "<html>405 Not Allowed</html>");
    let router = Router::new().fallback(move || std::future::ready(page));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let error = upload(&url, "web-1.2.3", false).await.unwrap_err();
    assert!(matches!(error, BadPush::NoApi(_)), "{error}");
}

#[tokio::test]
async fn credentials_open_it_and_without_them_it_is_said() {
    // me:secret
    let server = Server { wants: Some("Basic bWU6c2VjcmV0"), ..Server::default() };
    let (server, url) = server.start().await;
    let error = upload(&url, "web-1.2.3", false).await.unwrap_err();
    assert!(matches!(error, BadPush::Denied(..)), "{error}");
    let credentials = Credentials {
        username: Some("me".into()),
        password: Some("secret".into()),
        token: None,
        client: None,
        ca: None,
        host: format!("127.0.0.1:{}", url.port().unwrap()),
    };
    let client = Client::new(&Policy::default().with_loopback(), Some(credentials)).unwrap();
    let museum = Museum { client: &client, url: &url };
    museum.upload("web", Bytes::from("web-1.2.3"), false).await.unwrap();
    assert_eq!(server.files(), ["web-1.2.3.tgz"]);
}

#[test]
fn a_name_cannot_leave_its_segment() {
    let url: Url = "https://m.example/a%20b/".parse().unwrap();
    let found = places(&url, &["charts", "../x?y", "1.0.0+b"]);
    assert_eq!(
        found.iter().map(Url::as_str).collect::<Vec<_>>(),
        [
            "https://m.example/api/a%20b/charts/..%2Fx%3Fy/1.0.0+b",
            "https://m.example/a%20b/api/charts/..%2Fx%3Fy/1.0.0+b",
        ]
    );
    let deep: Url = "https://m.example/1/2/3/4/5/6/7".parse().unwrap();
    assert_eq!(places(&deep, &["charts"]).len(), 1 + CONTEXT);
}

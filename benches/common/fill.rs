//! Puts objects into a demo API server, some at a time, as its admin.
//!
//! For the demo alone: nobody's real cluster is written to.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::process::ADMIN;

/// Requests at once: the demo is busy with them, and no more.
const AT_ONCE: usize = 16;
/// Ten thousand objects take seconds.
const LONGEST: Duration = Duration::from_secs(120);

/// POSTs each object to its collection's path; whatever is refused ends the bench.
pub async fn create(server: &str, objects: impl Iterator<Item = (String, Value)>) {
    assert!(server.starts_with("http://127.0.0.1:"), "{server} is no demo of ours");
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let client = &client;
    let posts = objects.map(|(path, object)| async move {
        let request = Request::post(format!("{server}{path}"))
            .header(AUTHORIZATION, format!("Bearer {ADMIN}"))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(object.to_string())))
            .unwrap();
        let response = client.request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(status, StatusCode::CREATED, "{path}: {}", String::from_utf8_lossy(&body));
    });
    let all = futures::stream::iter(posts).buffer_unordered(AT_ONCE).collect::<()>();
    timeout(LONGEST, all).await.unwrap_or_else(|_| panic!("the demo did not take all objects"));
}

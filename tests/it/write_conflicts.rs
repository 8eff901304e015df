//! Writes that those of others come between: how often an object is read again, and what is told in
//! the end.
//!
//! It is NOT where actions are tested as they are meant (`writes.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use binnacle::app::Running;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::certificate::trusting;
use crate::log_follow::in_front_of;
use crate::logs::answering;

/// PUT to a gateway in front of an API server of ours: status and text.
async fn put(running: &Running, path: &str) -> (u16, String) {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(trusting(running.ca_pem.as_deref().unwrap()))
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::put(format!("https://{}{path}", running.https));
    let request = request.header("authorization", "Bearer anything");
    let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_pause_that_others_write_before_is_tried_again_unless_they_have_paused() {
    // How many patches come too late, whether others pause it then, and what becomes of it.
    for (late, is_paused, expected, words, tries) in [
        (1, false, 200, "\"paused\":true", 2),
        (4, false, 200, "\"paused\":true", 5),
        (9, false, 409, "modified", 5),
        (1, true, 409, "web", 1),
    ] {
        let (reads, patches) = (AtomicUsize::default(), Arc::<AtomicUsize>::default());
        let counted = patches.clone();
        let server = answering(Arc::new(move |head: &str| {
            if !head.contains("/deployments/web ") {
                return Some((404, "{}".to_owned()));
            }
            let deployment = |version: usize, is_paused: bool| {
                let metadata = json!({"name": "web", "resourceVersion": version.to_string()});
                let spec = json!({"paused": is_paused});
                json!({"kind": "Deployment", "metadata": metadata, "spec": spec}).to_string()
            };
            if head.starts_with("GET ") {
                let number = reads.fetch_add(1, Ordering::Relaxed);
                return Some((200, deployment(number, is_paused && number > 0)));
            }
            let message = "the object has been modified";
            let conflict = json!({"kind": "Status", "message": message, "reason": "Conflict"});
            if counted.fetch_add(1, Ordering::Relaxed) < late {
                return Some((409, conflict.to_string()));
            }
            Some((200, deployment(99, true)))
        }));
        let folder = tempfile::tempdir().unwrap();
        let running = in_front_of(server.await, folder.path()).await;
        let (status, text) = put(&running, "/api/v1/deployment/shop/web/pause").await;
        assert_eq!(status, expected, "{late} {is_paused}: {text}");
        assert!(text.contains(words), "{late} {is_paused}: {text}");
        assert_eq!(patches.load(Ordering::Relaxed), tries, "{late} {is_paused}: {text}");
    }
}

//! Keys of requests where the API server does not tell who asks, as one before 1.28 or one under
//! pressure: none is taken and then not heeded.
//!
//! It is NOT where a repeated request is the same operation (`release_rules.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway;
use crate::helm_charts::{Hand, archive, options, small};
use crate::museum_server::Site;
use crate::writes::live;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// Far more than any body of this test.
const BODY: usize = 8 << 20;

/// The real API server, but that this is its answer to who asks for his own name.
async fn discreet(cluster: &'static Cluster, status: &Arc<AtomicU16>) -> Site {
    let status = status.clone();
    let answer = move |request: Request| {
        let code = StatusCode::from_u16(status.load(Ordering::SeqCst)).unwrap();
        async move {
            if request.uri().path() == WHO {
                return code.into_response();
            }
            passed(cluster, request).await
        }
    };
    Site::start(None, answer).await
}

/// The API server's own answer, as a whole.
async fn passed(cluster: &Cluster, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY).await.unwrap();
    let text = |name: &'static str| {
        head.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let (bearer, accept, content) = (text("authorization"), text("accept"), text("content-type"));
    let mut headers = Vec::new();
    for (name, value) in [("accept", accept.as_str()), ("content-type", content.as_str())] {
        if !value.is_empty() {
            headers.push((name, value));
        }
    }
    let (target, token) = (head.uri.to_string(), bearer.trim_start_matches("Bearer "));
    let answer = cluster.request(head.method.clone(), token, &target, &headers, body).await;
    let (status, said, body) = answer;
    let content = said.get(header::CONTENT_TYPE).cloned();
    let content = content.unwrap_or_else(|| HeaderValue::from_static("application/json"));
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, content)], body).into_response()
}

#[tokio::test]
async fn a_key_is_refused_while_nobody_tells_whose_it_is_and_nothing_is_begun() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("nameless").await;
    let status = Arc::new(AtomicU16::new(404));
    let site = discreet(cluster, &status).await;
    let token = cluster.token("admin");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": site.host()}}],
        "users": [{"name": "own", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "own"}}],
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let gateway = gateway::start_with(&path, options(4), cluster).await;
    let hand = Hand { gateway: &gateway, token, namespace: &namespace };
    let key = [("idempotency-key", "press-1")];
    let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
    for code in [404, 429] {
        status.store(code, Ordering::SeqCst);
        let body = json!({"chart": archive(&small())});
        let answer = hand.act("install", "nobodys", &key, body).await;
        assert_eq!(answer.status, 503, "{code}: {}", answer.text());
        assert!(answer.text().contains("Idempotency-Key"), "{code}: {}", answer.text());
        let list: Value = live(cluster, &secrets).await.unwrap();
        assert_eq!(list["items"], json!([]), "{code}: neither a release nor a lock");
    }
    // Who asks for no such promise is served all the same.
    let body = json!({"chart": archive(&small())});
    let ended = hand.done("install", "nobodys", body).await;
    assert_eq!([&ended["state"], &ended["holder"]["user"]], ["succeeded", ""], "{ended}");
}

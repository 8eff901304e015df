//! Where the API server does not tell who asks, as one before 1.28 or one under pressure: no key of
//! a request is taken and then not heeded, and nobody takes the places of others.
//!
//! It is NOT where a repeated request is the same operation (`release_rules.rs`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures::future::join;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway};
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

/// A gateway that has this one for its API server, and its kubeconfig in `folder`.
pub async fn before(
    site: &Site,
    cluster: &'static Cluster,
    folder: &Path,
    more: &[&str],
) -> Gateway {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": site.host()}}],
        "users": [{"name": "own", "user": {"token": cluster.token("admin")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "own"}}],
    });
    let path = folder.join("kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut options = options(4);
    options.extra.extend(more.iter().map(|arg| (*arg).to_owned()));
    gateway::start_with(&path, options, cluster).await
}

#[tokio::test]
async fn a_key_is_refused_while_nobody_tells_whose_it_is_and_nothing_is_begun() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("nameless").await;
    let status = Arc::new(AtomicU16::new(404));
    let site = discreet(cluster, &status).await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = before(&site, cluster, folder.path(), &[]).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
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

#[tokio::test]
async fn who_has_no_name_waits_for_no_registry_of_others_who_have_none() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("nameless-pulls").await;
    let site = discreet(cluster, &Arc::new(AtomicU16::new(404))).await;
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let gateway = before(&site, cluster, folder.path(), &["--chart-hosts", &host]).await;
    let hand = Hand { gateway: &gateway, token: cluster.token("admin"), namespace: &namespace };
    // As many as one caller may fetch at once.
    let lost = json!({"chart": {"oci": format!("oci://{host}/web:1")}});
    let hang =
        join(hand.act("install", "one", &[], lost.clone()), hand.act("install", "two", &[], lost));
    let other = async {
        let held = [silent.accept().await.unwrap(), silent.accept().await.unwrap()];
        // Other credentials. A host that may not be reached is told by who has a place to fetch.
        let body = json!({"chart": {"oci": "oci://127.0.0.1:1/web:1"}});
        let answer = hand.act("install", "three", &[("impersonate-user", "other")], body).await;
        drop(held);
        answer
    };
    tokio::select! {
        (one, two) = hang => panic!("nobody answers there: {} {}", one.text(), two.text()),
        answer = other => {
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(answer.text().contains("127.0.0.1:1"), "{}", answer.text());
        }
    }
}

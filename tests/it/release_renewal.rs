//! Credentials of an operation that are over while helm is at work: newer ones of the same person
//! are waited for and gone on with. A stream of it ends with the token that it was opened with.
//!
//! It is NOT where it is held how long is waited (the unit tests of `src/api/releases/door.rs`), nor
//! whose credentials are taken for newer ones (those of `src/helm/operation.rs`).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::gateway::Gateway;
use crate::helm_charts::{Hand, archive, slow};
use crate::log_streams::Stream;
use crate::museum_server::Site;
use crate::release_keys;
use crate::writes::live;

/// The token with which the operation begins, and the one that comes after it.
const FIRST: &str = "first-of-the-admin";
const SECOND: &str = "second-of-the-admin";
/// Far more than any body of this test.
const BODY: usize = 8 << 20;

/// What becomes of the first token.
#[derive(Default)]
struct Fate {
    over: AtomicBool,
    /// Requests of helm that were refused since then.
    refused: AtomicUsize,
}

/// The real API server, for which every token is the admin's, but not the first once it is over.
async fn api(cluster: &'static Cluster, fate: &Arc<Fate>) -> Site {
    let fate = fate.clone();
    let answer = move |request: Request| {
        let bearer = request.headers().get(header::AUTHORIZATION).cloned();
        let is_first = bearer.is_some_and(|value| value == format!("Bearer {FIRST}").as_str());
        let is_over = is_first && fate.over.load(Ordering::SeqCst);
        // An object of the chart, and no heartbeat.
        if is_over && request.uri().path().ends_with("/slow") {
            fate.refused.fetch_add(1, Ordering::SeqCst);
        }
        async move {
            if is_over {
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
                });
                let json = [(header::CONTENT_TYPE, "application/json")];
                return (StatusCode::UNAUTHORIZED, json, status.to_string()).into_response();
            }
            passed(cluster, request).await
        }
    };
    Site::start(None, answer).await
}

/// The API server's own answer to the admin, as a whole.
async fn passed(cluster: &Cluster, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY).await.unwrap();
    let mut headers = Vec::new();
    for name in ["accept", "content-type"] {
        headers.extend(head.headers.get(name).map(|value| (name, value.to_str().unwrap())));
    }
    let (target, token) = (head.uri.to_string(), cluster.token("admin"));
    let answer = cluster.request(head.method.clone(), token, &target, &headers, body).await;
    let (status, said, body) = answer;
    let content = said.get(header::CONTENT_TYPE).cloned();
    let content = content.unwrap_or_else(|| HeaderValue::from_static("application/json"));
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, content)], body).into_response()
}

/// One in front of this API server, of whose streams nothing is looked at again for minutes.
async fn in_front_of(site: &Site, folder: &Path, cluster: &'static Cluster) -> Gateway {
    release_keys::before(site, cluster, folder, &["--stream-recheck", "10m"]).await
}

/// A token that says of itself that it ends in so many seconds.
fn ending_in(seconds: i64) -> String {
    let claims = json!({"exp": Timestamp::now().as_second() + seconds}).to_string();
    format!("eyJhbGciOiJub25lIn0.{}.", URL_SAFE_NO_PAD.encode(claims))
}

/// Follows an operation with a token that ends soon, to the end of the stream.
async fn end_of_stream(hand: &Hand<'_>, operation: &Value) -> Value {
    let id = operation["id"].as_str().unwrap();
    let url = format!("{}/api/v1/operation/{}/{id}", hand.gateway.url, hand.namespace);
    let accept = [("accept", "text/event-stream")];
    let mut stream = Stream::open(hand.gateway.tls(), &url, &ending_in(12), &accept).await;
    loop {
        let event = stream.next().await;
        if event.name == "end" {
            return event.data;
        }
    }
}

/// Lets an install of the slow chart go on, which waits for its pods.
async fn let_go(cluster: &Cluster, deployment: &str) {
    let headers = [("content-type", "application/merge-patch+json")];
    let (admin, none) = (cluster.token("admin"), json!({"spec": {"replicas": 0}}));
    let patched = cluster.request(Method::PATCH, admin, deployment, &headers, none.to_string());
    assert_eq!(patched.await.0, 200);
}

#[tokio::test]
async fn an_operation_whose_credentials_are_over_waits_for_newer_ones_and_goes_on_with_them() {
    let cluster = cluster::shared().await;
    let namespace = cluster.namespace("renewed").await;
    let fate = Arc::new(Fate::default());
    let site = api(cluster, &fate).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let file = Arc::new(File::create(&log).unwrap());
    let logged = tracing_subscriber::fmt().with_writer(file).finish();
    // All of this test and its gateway is of this thread.
    let _logged = tracing::subscriber::set_default(logged);
    let gateway = in_front_of(&site, folder.path(), cluster).await;
    let first = Hand { gateway: &gateway, token: FIRST, namespace: &namespace };
    let body = json!({"chart": archive(&slow()), "wait": "legacy", "timeout": "60s"});
    let operation = first.begun("install", "slow", body).await;
    let deployment = format!("/apis/apps/v1/namespaces/{namespace}/deployments/slow");
    let is_made = || async { live(cluster, &deployment).await.is_some() };
    Cluster::eventually("helm has made the deployment", is_made).await;

    let second = Hand { token: SECOND, ..first };
    let renewed = async {
        fate.over.store(true, Ordering::SeqCst);
        let is_refused = || async { fate.refused.load(Ordering::SeqCst) > 0 };
        Cluster::eventually("helm has asked with what is over", is_refused).await;
        second.operation(&operation).await
    };
    let (end, now) = tokio::join!(end_of_stream(&first, &operation), renewed);
    assert_eq!([&end["state"], &end["status"]], [&Value::Null, &json!(401)], "{end}");
    assert_eq!(now["state"], "running", "it waits: {now}");
    let_go(cluster, &deployment).await;
    let ended = second.ended(&operation).await;
    assert_eq!([&ended["state"], &ended["status"]], ["succeeded", "deployed"], "{ended}");
    assert_eq!(first.get(&first.at("slow")).await.status, 401, "it still is over");

    // What the door could not do is in the log for whoever runs us.
    let said = std::fs::read_to_string(&log).unwrap();
    let of_door = |line: &str| line.contains("failed") && line.contains("credentials of this");
    assert!(said.lines().any(of_door), "{said}");
    gateway.stop().await;
}

//! Tests of a repository's client: where its credentials come from, and where they do not go. The
//! API server is played by a few lines here.

use axum::extract::State as Extracted;
use axum::response::{IntoResponse as _, Response};
use http::Uri;
use serde_json::json;

use super::*;
use crate::charts::definition::Kind;

const SECRET: &str = "hunter2";

/// What the API server has, by path; no value: it may not be read.
type Objects = Arc<Mutex<Vec<(String, Option<Value>)>>>;

async fn answer(Extracted(objects): Extracted<Objects>, uri: Uri) -> Response {
    let objects = objects.lock().unwrap();
    let found = objects.iter().find(|(path, _)| path == uri.path());
    let status = |code: u16, message: &str| {
        let body = json!({ "kind": "Status", "message": message, "code": code }).to_string();
        (StatusCode::from_u16(code).unwrap(), body).into_response()
    };
    match found {
        Some((_, Some(object))) => object.to_string().into_response(),
        Some((_, None)) => status(403, "secrets is forbidden"),
        None => status(404, "not found"),
    }
}

async fn home(objects: &Objects) -> Arc<Home> {
    let router = axum::Router::new().fallback(answer).with_state(objects.clone());
    let cluster = Cluster::played(router).await;
    Arc::new(Home { cluster, namespace: "ops".into(), policy: Policy::default() })
}

fn definition(url: &str, has_credentials: bool) -> Definition {
    let (name, kind) = ("stable".to_owned(), Kind::Index);
    Definition { name, kind, url: url.into(), oci: None, interval: None, has_credentials }
}

fn secret(password: &str, url: &str) -> Value {
    let access = Access::given(&json!({ "username": "me", "password": password })).unwrap();
    access.secret("binnacle.repository.stable", &url.parse().unwrap(), None)
}

fn put(objects: &Objects, object: Option<Value>) {
    let path = "/api/v1/namespaces/ops/secrets/binnacle.repository.stable".to_owned();
    *objects.lock().unwrap() = vec![(path, object)];
}

#[tokio::test]
async fn credentials_are_those_that_the_secret_has_now() {
    let objects = Objects::default();
    let home = home(&objects).await;
    let one = definition("https://charts.example", true);
    let one = Repository::of_config_map(&home, one, "u").unwrap();
    put(&objects, Some(secret(SECRET, "https://charts.example/")));
    assert_eq!(one.access().await.unwrap().unwrap().password.as_deref(), Some(SECRET));
    assert!(one.client().await.is_ok());
    put(&objects, Some(secret("changed", "https://charts.example/")));
    assert_eq!(one.access().await.unwrap().unwrap().password.as_deref(), Some("changed"));
}

#[tokio::test]
async fn without_credentials_in_the_definition_no_secret_is_read() {
    let objects = Objects::default();
    put(&objects, None);
    let one = definition("https://charts.example", false);
    let one = Repository::of_config_map(&home(&objects).await, one, "u").unwrap();
    assert!(one.access().await.unwrap().is_none());
    assert!(one.client().await.is_ok());
}

#[tokio::test]
async fn why_there_are_no_credentials_is_said_without_them() {
    let objects = Objects::default();
    let home = home(&objects).await;
    let one = definition("https://charts.example", true);
    let one = Repository::of_config_map(&home, one, "u").unwrap();
    let error = one.client().await.err().unwrap();
    assert!(matches!(error, NoClient::Missing(_)), "{error}");
    put(&objects, None);
    let error = one.client().await.err().unwrap();
    assert!(matches!(error, NoClient::Unreadable(..)), "{error}");
    assert!(error.to_string().contains("the namespace ops: secrets is forbidden"), "{error}");
    // Somebody has changed the ConfigMap and not the Secret.
    put(&objects, Some(secret(SECRET, "https://other.example/")));
    let error = one.client().await.err().unwrap();
    assert!(matches!(error, NoClient::Access(BadAccess::Host { .. })), "{error}");
    put(&objects, Some(json!({ "type": SECRET, "data": SECRET })));
    let error = one.client().await.err().unwrap();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
}

#[tokio::test]
async fn credentials_of_another_config_map_of_the_same_name_are_none() {
    let objects = Objects::default();
    let home = home(&objects).await;
    let one = definition("https://charts.example", true);
    let one = Repository::of_config_map(&home, one, "u").unwrap();
    let mut stored = secret(SECRET, "https://charts.example/");
    stored["metadata"]["ownerReferences"] = json!([{ "kind": "ConfigMap", "uid": "gone" }]);
    put(&objects, Some(stored.clone()));
    let error = one.client().await.err().unwrap();
    assert!(matches!(error, NoClient::Missing(_)), "{error}");
    stored["metadata"]["ownerReferences"] = json!([{ "uid": "gone" }, { "uid": "u" }]);
    put(&objects, Some(stored));
    assert!(one.client().await.is_ok());
}

#[tokio::test]
async fn its_key_is_another_where_it_is_another_place_or_another_config_map() {
    let home = home(&Objects::default()).await;
    let of = |url: &str, has_credentials, uid: &str| {
        Repository::of_config_map(&home, definition(url, has_credentials), uid).unwrap()
    };
    let one = of("https://a.example", false, "u");
    assert!(one.is_same_place(&of("https://a.example/", true, "u")));
    assert!(!one.is_same_place(&of("https://b.example/", false, "u")));
    assert!(!one.is_same_place(&of("https://a.example/", false, "v")));
    assert_eq!(one.key().len(), 64);
}

#[test]
fn a_status_says_nothing_before_anything_was_tried() {
    let status = serde_json::to_value(Status::default()).unwrap();
    assert_eq!(status["state"], "never");
    assert_eq!((&status["lastSuccess"], &status["charts"]), (&Value::Null, &json!(0)));
}

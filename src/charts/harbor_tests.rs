//! A Harbor of a few lines.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request as Asked;
use axum::response::{IntoResponse as _, Response as Answer};
use http::{StatusCode, header};
use serde_json::json;

use super::*;
use crate::charts::Policy;

type Log = Arc<Mutex<Vec<String>>>;

fn chart(name: &str, tags: &[&str]) -> Value {
    let tags: Vec<Value> = tags.iter().map(|tag| json!({"name": tag})).collect();
    json!({
        "type": "CHART", "digest": "sha256:00", "push_time": "2024-05-06T07:08:09.123Z",
        "tags": if tags.is_empty() { Value::Null } else { tags.into() },
        "extra_attrs": {
            "name": name, "apiVersion": "v2", "appVersion": "7", "description": "Sells things",
            "icon": "https://e.example/i.png", "maintainers": [{"name": "Ann"}], "keywords": null,
            "deprecated": true,
        },
    })
}

fn answer(request: &Asked) -> Answer {
    let uri = request.uri().to_string();
    let Some(rest) = uri.strip_prefix("/api/v2.0/projects") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (path, query) = rest.split_once('?').unwrap();
    let next = |to: &str| [(header::LINK, format!("</api/v2.0/projects{to}>; rel=\"next\""))];
    match path {
        "" => json!([{"name": "apps"}, {"name": "library"}]).to_string().into_response(),
        "/many/repositories" => {
            let name = |number: usize| json!({ "name": format!("many/c{number}") });
            let page: Vec<Value> = (0..=CHARTS).map(name).collect();
            (next("/many/repositories?page=2"), Value::from(page).to_string()).into_response()
        }
        "/tagged/repositories" => json!([{"name": "tagged/web"}]).to_string().into_response(),
        "/tagged/repositories/web/artifacts" => {
            let tags: Vec<String> = (0..=TAGS).map(|number| format!("1.0.{number}")).collect();
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            let next = next("/tagged/repositories/web/artifacts?page=2");
            (next, json!([chart("web", &tags)]).to_string()).into_response()
        }
        "/library/repositories" if !query.contains("page=2") => {
            let names = json!([{"name": "library/web"}, {"name": "library/images/web"}]);
            let next = next("/library/repositories?page=2&page_size=100");
            (next, names.to_string()).into_response()
        }
        "/library/repositories" => json!([{"name": "library/team/db"}]).to_string().into_response(),
        "/apps/repositories" => json!([{"name": "apps/shop"}]).to_string().into_response(),
        "/library/repositories/web/artifacts" if !query.contains("page=2") => {
            let next = next("/library/repositories/web/artifacts?page=2");
            let tags = ["1.1.0", "1.1.0_build", "newest"];
            let page = json!([chart("web", &tags), chart("web", &[])]);
            (next, page.to_string()).into_response()
        }
        "/library/repositories/web/artifacts" => {
            json!([chart("web", &["1.0.0"])]).to_string().into_response()
        }
        "/library/repositories/team%252Fdb/artifacts" => {
            json!([chart("db", &["2.0.0"])]).to_string().into_response()
        }
        "/library/repositories/images%252Fweb/artifacts" => {
            let odd = json!([{"type": "IMAGE", "tags": [{"name": "1.0.0"}],
                "extra_attrs": {"description": 7, "os": "linux"}}]);
            (next("/library/repositories/images%252Fweb/artifacts?page=2"), odd.to_string())
                .into_response()
        }
        _ => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn listed(path: &str) -> (Result<Listed, BadListing>, Vec<String>, String) {
    let log = Log::default();
    let asked = log.clone();
    let handler = move |request: Asked| {
        asked.lock().unwrap().push(request.uri().to_string());
        std::future::ready(answer(&request))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    let client = Client::new(&Policy::default().with_loopback(), None).unwrap();
    let base = Url::parse(&format!("http://{host}{path}")).unwrap();
    let found = list(&client, &base).await;
    let log = log.lock().unwrap().clone();
    (found, log, host)
}

fn names(found: &Listed) -> Vec<&str> {
    found.catalogue.charts.iter().map(|chart| chart.name.as_str()).collect()
}

#[tokio::test]
async fn the_charts_of_a_project_come_from_all_pages_with_what_they_say_of_themselves() {
    let (found, log, host) = listed("/library/").await;
    let found = found.unwrap();
    assert_eq!((names(&found), found.skipped), (vec!["db", "web"], 0));
    let web = found.catalogue.find("web").unwrap();
    let versions: Vec<&str> = web.versions.iter().map(|one| one.version.as_str()).collect();
    assert_eq!(versions, ["1.1.0+build", "1.1.0", "1.0.0"]);
    assert_eq!(&*web.description, "Sells things");
    assert!(web.deprecated);
    let newest = web.version("1.1.0+build").unwrap();
    assert_eq!(newest.urls.first().unwrap(), format!("oci://{host}/library/web:1.1.0_build"));
    assert_eq!((newest.app_version.as_str(), newest.created), ("7", Some(1_714_979_289)));
    assert_eq!(newest.digest, None);
    // Of images one page is enough.
    assert_eq!(log.iter().filter(|asked| asked.contains("images%252Fweb")).count(), 1);
}

#[tokio::test]
async fn a_path_below_a_project_and_none_at_all_say_how_much_is_wanted() {
    let (found, ..) = listed("/library/team/").await;
    assert_eq!(names(&found.unwrap()), ["db"]);
    // One repository that cannot be read is counted.
    let (found, ..) = listed("/").await;
    let found = found.unwrap();
    assert_eq!((names(&found), found.skipped), (vec!["db", "web"], 1));
    assert!(found.first.unwrap().contains("apps/shop"));
}

#[tokio::test]
async fn a_list_that_is_too_long_is_given_up_at_once() {
    let (found, log, _) = listed("/many/").await;
    let error = found.unwrap_err();
    assert!(matches!(error, BadListing::TooMany(_, CHARTS, _)), "{error}");
    assert_eq!(log.len(), 1);
    let (found, log, _) = listed("/tagged/").await;
    let error = found.unwrap_err();
    assert!(matches!(error, BadListing::TooMany(_, TAGS, _)), "{error}");
    assert_eq!(log.len(), 2);
}

#[tokio::test]
async fn a_project_that_cannot_be_read_is_an_error() {
    let (found, ..) = listed("/apps/").await;
    assert!(matches!(found, Err(BadListing::Denied(..))));
    let (found, ..) = listed("/secret/").await;
    assert!(matches!(found, Err(BadListing::Denied(..))));
}

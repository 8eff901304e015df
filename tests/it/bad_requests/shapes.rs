//! What is well made and of the wrong shape: lists where objects belong, no type, names longer than
//! any, and label selectors, which are judged as the API server judges them.
//!
//! It is NOT where selectors are tested in all their cases (`src/query/labels_tests.rs`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Who::Admin;
use super::{Desk, GET, POST, PUT};
use crate::cluster::Cluster;
use crate::people::create;

/// Selectors, good and bad, over the labels that are made below.
const SELECTORS: &str = "; ;n;!n;! n;n=;n=1;n==1;n = 1;n!=1;n!=;n>1;n<2;n > 0,n<3;n in (1,2);\
    n in();n in (,1);n in (1,);n notin (1,,2);n notin ();in in (in,notin);in=notin;example.org/a;\
    example.org/a=b;n=1,;,n;,;n,,n;n=-x;n=x-;a/b/c;A.org/b;/b;n>x;n>;n<-1;n>=1;\
    n>99999999999999999999;n===1;n=1=2;!n=1;n in 1;n in (1;n in 1);n in ((1));n in (1 2);\
    n near (1);n 1;n%1;n=ü;\0n;n\0;n\0n";

#[tokio::test]
async fn lists_for_objects_no_type_and_names_longer_than_any_are_refused_in_words() {
    let desk = Desk::open("bad-shapes").await;
    let made = format!("{}-made", desk.namespace);
    for (method, path, body) in [
        (POST, "namespace", json!([made])),
        (POST, "login", json!(["viewer-token"])),
        (POST, "appdeployment/validate/protocol", json!(["UDP", true])),
        (PUT, "deployment/nosuch/nosuch/rollback", json!(["1"])),
        (PUT, "node/nosuch/drain", json!([])),
    ] {
        let (path, body) = (format!("/api/v1/{path}"), format!(" \n{body}"));
        desk.says((method, Admin, &path), &body, &[400], "JSON object").await;
    }
    desk.says((GET, Admin, &format!("/api/v1/namespace/{made}")), "", &[404], &made).await;
    let drain = (PUT, Admin, "/api/v1/node/nosuch/drain");
    let answer = desk.says(drain, "", &[415], "names no content type").await;
    assert!(answer.text().contains("application/json"), "{}", answer.text());

    // As we would encode them, no path could hold them: that is not the API server's fault.
    let long = "'".repeat(30_000);
    for path in ["pod/default/@", "pod/@/a", "scale/deployment/default/@", "log/default/@/a"] {
        let path = format!("/api/v1/{}", path.replace('@', &long));
        let answer = desk.says((GET, Admin, &path), "", &[400], "'''").await;
        assert!(answer.body.len() < 1000, "{}", answer.text());
    }
    let (name, validate) = ("a".repeat(70_000), "/api/v1/appdeployment/validate/name");
    let form = json!({"name": name, "namespace": "default"}).to_string();
    let answer = desk.says((POST, Admin, validate), &form, &[400], "is no name").await;
    assert!(answer.body.len() < 1000, "{}", answer.text());
}

#[tokio::test]
async fn label_selectors_pick_what_the_api_server_picks_and_are_refused_where_it_refuses_them() {
    let desk = Desk::open("bad-selectors").await;
    let here = desk.namespace.as_str();
    let collection = format!("/api/v1/namespaces/{here}/configmaps");
    for (name, labels) in [
        ("one", json!({"n": "1", "example.org/a": "b"})),
        ("two", json!({"n": "2"})),
        ("text", json!({"n": "x", "in": "notin"})),
        ("empty", json!({"n": ""})),
        ("bare", json!({})),
    ] {
        let metadata = json!({"name": name, "labels": labels});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        create(desk.cluster, &collection, object).await;
    }
    let list = format!("/api/v1/configmap/{here}");
    // With the one that each namespace has.
    let are_there =
        || async { desk.gateway.get("admin", &list).await.json()["listMeta"]["totalItems"] == 6 };
    Cluster::eventually("the config maps are listed", are_there).await;
    let names = |items: &Value, pointer: &str| {
        let name = |item: &Value| item.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        items.as_array().unwrap().iter().map(name).collect::<BTreeSet<String>>()
    };
    for selector in SELECTORS.split(';') {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let query = query.append_pair("labelSelector", selector).finish();
        let token = desk.cluster.token("admin");
        let (status, _, theirs) = desk.cluster.get(token, &format!("{collection}?{query}")).await;
        let ours = desk.gateway.get("admin", &format!("{list}?{query}")).await;
        assert_eq!(ours.status, status, "{selector:?}: {}", ours.text());
        if status == 200 {
            let theirs: Value = serde_json::from_slice(&theirs).unwrap();
            let theirs = names(&theirs["items"], "/metadata/name");
            assert_eq!(names(&ours.json()["items"], "/objectMeta/name"), theirs, "{selector:?}");
        } else {
            assert!(ours.text().contains("label selector"), "{selector:?}: {}", ours.text());
        }
    }
}

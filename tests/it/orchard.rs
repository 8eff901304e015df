//! The demo cluster has something to show of every kind: each list has a row, each detail answers
//! and names no errors, custom objects are found, and names in Gateway API objects lead somewhere.
//!
//! It is NOT where kinds are held against Kubernetes (`beyond.rs`), nor the demo (`demo.rs`).

use binnacle::kinds::{KINDS, Source};
use serde_json::{Value, json};

use crate::fault_proxy::Front;

/// What is answered with 200 and without errors.
async fn shown(front: &Front, path: &str) -> Value {
    let answer = front.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let shown = answer.json();
    assert_eq!(shown["errors"], json!([]), "{path}: {shown}");
    shown
}

#[tokio::test]
async fn every_kind_has_a_row_in_the_demo_and_each_of_them_has_a_detail() {
    let (front, _demo) = Front::demo(0).await;
    for kind in &KINDS {
        let there = front.api.list(&kind.resource.collection(None)).await;
        assert!(!there.is_empty(), "the demo has no {}", kind.name);
        // Usage has no route of its own.
        if kind.source == Source::Poll {
            continue;
        }
        let end = if kind.resource.namespaced { "/orchard" } else { "" };
        let mut list = shown(&front, &format!("/api/v1/{}{end}", kind.name)).await;
        let Value::Array(rows) = list[kind.list.items].take() else {
            panic!("{} has no {}: {list}", kind.name, kind.list.items);
        };
        assert!(!rows.is_empty(), "no {} in the orchard", kind.name);
        for row in rows {
            let text = |key: &str| row["objectMeta"][key].as_str().unwrap_or_default();
            let (namespace, name) = (text("namespace"), text("name"));
            let place = if kind.resource.namespaced {
                format!("{namespace}/{name}")
            } else {
                name.to_owned()
            };
            let detail = shown(&front, &format!("/api/v1/{}/{place}", kind.name)).await;
            assert_eq!(detail["objectMeta"]["name"], name, "{} {place}: {detail}", kind.name);
        }
    }
}

#[tokio::test]
async fn the_trees_of_the_orchard_are_custom_objects() {
    let (front, _demo) = Front::demo(0).await;
    let trees = "/api/v1/crd/orchard/trees.orchard.example.com";
    let list = shown(&front, &format!("{trees}/object")).await;
    let items = list["items"].as_array().unwrap().iter();
    let mut names: Vec<&str> =
        items.map(|item| item["objectMeta"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["old-boskoop", "young-katy"]);
    let columns = list["columns"].as_array().unwrap().iter();
    let columns: Vec<&str> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Variety", "Apples", "Age"], "{list}");
    for name in names {
        let tree = shown(&front, &format!("{trees}/{name}")).await;
        assert_eq!(tree["typeMeta"]["kind"], "trees.orchard.example.com");
    }
    let definition = shown(&front, "/api/v1/crd/trees.orchard.example.com").await;
    assert_eq!(definition["objects"]["listMeta"]["totalItems"], 2, "{definition}");
}

#[tokio::test]
async fn what_the_gate_of_the_orchard_names_is_there() {
    let (front, _demo) = Front::demo(0).await;
    let gate = shown(&front, "/api/v1/gateway/orchard/gate").await;
    assert_eq!((&gate["programmed"], &gate["routeCount"]), (&json!("True"), &json!(4)), "{gate}");
    // A route of two listeners counts twice there; here each has one.
    assert_eq!(gate["attachedRoutes"], gate["routeCount"]);
    let class = shown(&front, "/api/v1/gatewayclass/orchard").await;
    assert_eq!((&class["accepted"], &class["gatewayCount"]), (&json!("True"), &json!(1)));
    let routes = "httproute/orchard/cider httproute/shop/cider grpcroute/orchard/press \
                  tlsroute/orchard/cellar";
    for route in routes.split(' ') {
        let detail = shown(&front, &format!("/api/v1/{route}")).await;
        let backends = detail["backends"].as_array().unwrap();
        assert_eq!(backends.len(), 1, "{route}: {detail}");
        assert_eq!(detail["accepted"], "True", "{route}: {detail}");
        for key in ["found", "permitted"] {
            assert_eq!(backends[0][key], true, "{route}: {detail}");
        }
    }
}

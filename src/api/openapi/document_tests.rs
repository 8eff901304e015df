//! References and ids of the document, and what it tells of single routes.

use std::collections::BTreeSet;

use super::*;
use crate::api::body;
use crate::kinds::Join;

fn visit(value: &Value, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| visit(one, see)),
        Value::Object(fields) => {
            for (key, one) in fields {
                see(key, one);
                visit(one, see);
            }
        }
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document().unwrap();
    let mut lost = BTreeSet::new();
    visit(&document, &mut |key, value| {
        // A property may be called so, too; its schema is no text.
        if let ("$ref", Some(reference)) = (key, value.as_str())
            && document.pointer(&reference[1..]).is_none()
        {
            lost.insert(reference.to_owned());
        }
    });
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn that_there_is_too_much_at_once_is_told_of_reads_and_writes() {
    let busy = body::too_many().status;
    for route in [READ, CHANGE] {
        assert!(responses(&route, false).unwrap().contains_key(busy.as_str()), "{}", route.method);
    }
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let document = document().unwrap();
    let mut seen = BTreeSet::new();
    visit(&document["paths"], &mut |key, value| {
        if key == "operationId" {
            assert!(seen.insert(value.to_string()), "{value} is there twice");
        }
    });
    assert!(seen.len() > 200, "only {} operations", seen.len());
}

#[test]
fn items_have_the_keys_that_are_joined_to_their_rows() {
    let types = schemas().unwrap();
    for kind in shown() {
        let properties = &types[kind.resource.kind]["properties"];
        for join in kind.joins {
            let key = match join {
                Join::Warnings => "warnings",
                Join::PodInfo { key, .. } => key,
                Join::Allocation => "allocatedResources",
                Join::Metrics => "metrics",
            };
            assert!(properties.get(key).is_some(), "{} has no {key}", kind.name);
        }
    }
}

/// What the document says of an answer; `Null` when that is nothing.
fn told<'d>(document: &'d Value, (method, path, status): (&str, &str, &str)) -> &'d Value {
    let operation = &document["paths"][path][method];
    assert!(operation.is_object(), "there is no {method} {path}");
    &operation["responses"][status]
}

#[test]
fn what_few_routes_answer_is_told_of_those() {
    let document = document().unwrap();
    let follow = "/api/v1/log/{namespace}/{pod}/{container}/follow";
    let operation = "/api/v1/operation/{namespace}/{id}";
    let version = "/api/v1/chart/{repository}/{name}/{version}";
    let raw = "/api/v1/_raw/{kind}/name/{name}";
    let through = "/clusters/{cluster}/{path}";
    for (method, path, status, is_told) in [
        ("get", "/readyz", "503", true),
        ("get", "/livez", "503", false),
        ("get", "/api/v1/stream", "426", true),
        ("get", "/api/v1/pod/{namespace}/{name}/exec", "426", true),
        ("get", follow, "101", true),
        ("delete", operation, "200", true),
        ("get", operation, "304", false),
        ("post", "/api/v1/chart/{repository}", "405", true),
        ("post", "/api/v1/chart/{repository}", "507", true),
        ("delete", version, "405", true),
        ("delete", version, "507", false),
        ("get", "/api/v1/pod", "413", true),
        ("get", "/api/v1/release/{namespace}/{name}/pod", "413", true),
        ("get", "/api/v1/me", "413", false),
        ("get", "/api/v1/me", "304", false),
        ("get", "/api/v1/me", "502", true),
        ("put", "/settings", "504", true),
        ("get", "/settings", "304", true),
        ("put", DRAIN, "200", true),
        ("put", DRAIN, "202", true),
        ("put", "/api/v1/node/{name}/cordon", "200", false),
        ("get", raw, "405", true),
        ("put", raw, "405", true),
        ("delete", raw, "405", true),
        ("get", through, "410", true),
        ("get", through, "304", false),
        ("post", through, "405", true),
        ("patch", through, "406", true),
        ("put", through, "410", false),
        ("delete", through, "410", true),
        ("get", "/api/v1/pod/{namespace}/{name}/shell/{container}", "304", false),
    ] {
        let told = told(&document, (method, path, status));
        assert_eq!(told.is_object(), is_told, "{method} {path} {status}");
    }
    let drained = &told(&document, ("put", DRAIN, "200"))["content"];
    assert!(drained[EVENTS].is_object() && drained.get("application/json").is_none(), "{drained}");
    let over = &told(&document, ("delete", operation, "200"))["content"];
    assert_eq!(*over, told(&document, ("delete", operation, "202"))["content"]);
    let full = &told(&document, ("post", "/api/v1/chart/{repository}", "507"))["content"];
    assert_eq!(*full, json!({ "text/plain": { "schema": { "type": "string" } } }));
}

#[test]
fn only_reads_take_several_namespaces() {
    let document = document().unwrap();
    let described = |method: &str| {
        let operation = &document["paths"]["/api/v1/release/{namespace}"][method];
        operation["parameters"][0].get("description").is_some()
    };
    assert_eq!(["get", "post"].map(described), [true, false]);
}

#[test]
fn an_idempotency_key_is_taken_by_what_becomes_an_operation_and_by_nothing_else() {
    let document = document().unwrap();
    let mut taken = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let key = json!({ "$ref": "#/components/parameters/idempotencyKey" });
            if operation["parameters"].as_array().unwrap().contains(&key) {
                assert!(path.starts_with("/api/v1/release/"), "{path}");
                taken.push(operation["operationId"].as_str().unwrap());
            }
        }
    }
    taken.sort_unstable();
    assert_eq!(taken, ["install", "rollbackRelease", "testRelease", "uninstall", "upgrade"]);
}

/// `front` answers plain lists past the routes: one beside a kind's namespaces would never be reached.
#[test]
fn no_route_stands_where_a_kinds_namespaces_do() {
    let document = document().unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut lists = 0;
    for (path, operations) in paths {
        let Some((name, second)) =
            path.strip_prefix("/api/v1/").and_then(|path| path.split_once('/'))
        else {
            continue;
        };
        let Some(kind) = by_name(name).filter(|kind| kind.resource.namespaced) else {
            continue;
        };
        if operations.get("get").is_some() && !second.contains('/') {
            assert_eq!(second, "{namespace}", "{path} of {}", kind.name);
            lists += 1;
        }
    }
    assert!(lists > 20, "{lists} lists");
}

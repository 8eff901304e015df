//! What differs, masked and bounded.

use super::*;

fn paths(before: &Value, after: &Value) -> Vec<String> {
    changes(before, after).into_iter().map(|change| change.path).collect()
}

fn pod(containers: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": containers}})
}

#[test]
fn what_the_api_server_writes_for_itself_is_no_difference() {
    let before = json!({"kind": "Pod", "metadata": {"name": "a", "uid": "1", "generation": 1,
        "resourceVersion": "7", "creationTimestamp": "x", "managedFields": [{"manager": "helm"}],
        "annotations": {LAST_APPLIED: "{}"}}, "status": {"phase": "Running"}});
    let after = json!({"kind": "Pod", "metadata": {"name": "a", "generation": 2}});
    assert!(changes(&before, &after).is_empty());
}

#[test]
fn a_secret_shows_that_it_changed_and_never_what_is_in_it() {
    let secret = |value: &str| {
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s",
            "annotations": {LAST_APPLIED: format!("{{\"data\":\"{value}\"}}")}},
            "data": {"password": value, "user": "YQ=="}})
    };
    let found = changes(&secret("aHVudGVyMg=="), &secret("c3dvcmRmaXNo"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "data.password");
    assert_ne!(found[0].from, found[0].to);
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("aHVudGVyMg") && !text.contains("c3dvcmRmaXNo"), "{text}");
}

#[test]
fn containers_are_found_by_name_and_ports_by_number() {
    let before = pod(json!([
        {"name": "side", "image": "s:1"},
        {"name": "web", "image": "w:1", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
    ]));
    let after = pod(json!([
        {"name": "web", "image": "w:2", "ports": [{"containerPort": 81}]},
    ]));
    let expected = [
        "spec.containers[name=side]",
        "spec.containers[name=web].image",
        "spec.containers[name=web].ports[containerPort=80]",
    ];
    assert_eq!(paths(&before, &after), expected);
}

#[test]
fn another_order_of_named_items_is_one_entry() {
    let env = |names: &[&str]| {
        let env: Vec<_> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        pod(json!([{"name": "web", "env": env}]))
    };
    let found = changes(&env(&["A", "B"]), &env(&["B", "A"]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "spec.containers[name=web].env");
    assert_eq!((&found[0].from, &found[0].to), (&json!(["A", "B"]), &json!(["B", "A"])));
}

#[test]
fn items_that_no_field_tells_apart_are_compared_in_their_order() {
    let rules = |verbs: [&str; 2]| json!({"rules": [{"verbs": [verbs[0]]}, {"verbs": [verbs[1]]}]});
    assert_eq!(paths(&rules(["get", "list"]), &rules(["get", "watch"])), ["rules[1].verbs"]);
    let twice = |port: u16| json!({"ports": [{"port": 53}, {"port": 53, "nodePort": port}]});
    assert_eq!(paths(&twice(1), &twice(2)), ["ports[1].nodePort"]);
}

#[test]
fn keys_with_dots_are_quoted() {
    let labels = |value: &str| json!({"metadata": {"labels": {"app.kubernetes.io/name": value}}});
    let expected = ["metadata.labels[\"app.kubernetes.io/name\"]"];
    assert_eq!(paths(&labels("a"), &labels("b")), expected);
}

#[test]
fn entries_are_bounded_in_number_and_length() {
    let many = |value: u32| -> Value {
        let fields: Map<_, _> =
            (0..3 * ENTRIES).map(|n| (n.to_string(), Value::from(value))).collect();
        json!({"kind": "ConfigMap", "data": fields})
    };
    assert_eq!(changes(&many(1), &many(2)).len(), ENTRIES);
    assert_eq!(changes(&json!({}), &many(2)).len(), ENTRIES);
    let long = |end: &str| json!({"data": {"text": format!("{}{end}", "ä".repeat(100_000))}});
    let found = changes(&long("one"), &long("two"));
    let (from, to) = (found[0].from.as_str().unwrap(), found[0].to.as_str().unwrap());
    assert!(from.len() < 2 * TEXT && from.ends_with("one") && to.ends_with("two"));
}

#[test]
fn a_client_side_patch_takes_away_what_only_the_old_manifest_has() {
    let old = pod(json!([{"name": "a", "env": [{"name": "X"}]}, {"name": "b"}]));
    let new = pod(json!([{"name": "a", "image": "i"}]));
    let containers = json!([
        {"name": "a", "image": "i", "env": null},
        {"name": "b", "$patch": "delete"},
    ]);
    assert_eq!(patch(&old, &new, true)["spec"]["containers"], containers);
}

#[test]
fn a_patch_of_a_custom_kind_has_the_differences_alone() {
    let old = json!({"kind": "Widget", "spec": {"size": 1, "same": 2, "gone": 3, "list": [1]}});
    let new = json!({"kind": "Widget", "spec": {"size": 2, "same": 2, "list": [1, 2]}});
    let expected = json!({"spec": {"size": 2, "gone": null, "list": [1, 2]}});
    assert_eq!(patch(&old, &new, false), expected);
}

#[test]
fn ports_of_a_service_are_merged_and_those_of_a_network_policy_replaced() {
    let service = |ports: Value| json!({"spec": {"selector": {"app": "a"}, "ports": ports}});
    let (old, new) = (json!([{"port": 80}, {"port": 81}]), json!([{"port": 80}]));
    let merged = patch(&service(old.clone()), &service(new.clone()), true);
    assert_eq!(merged["spec"]["ports"], json!([{"port": 80}, {"port": 81, "$patch": "delete"}]));
    let policy = |ports: Value| json!({"spec": {"ports": ports}});
    assert_eq!(patch(&policy(old), &policy(new.clone()), true)["spec"]["ports"], new);
}

//! Manifests in parts, broken ones among them, and what is masked.

use serde_json::json;

use super::*;

const WEB: &str = "---
# Source: web/templates/config.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
  labels: {tier: a, tier: b}
data:
  text: |
    --- is no separator here
---
# Source: web/templates/empty.yaml
---
# Source: web/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: other}
spec: {mode: 0400}
";

#[test]
fn objects_stand_in_their_order_with_the_template_they_came_from() {
    let (objects, unreadable) = objects(WEB);
    assert_eq!(unreadable, [] as [&str; 0]);
    let [config, deployment] = objects.as_slice() else { panic!("{objects:?}") };
    assert_eq!((config.kind.as_str(), config.namespace.as_deref()), ("ConfigMap", None));
    assert_eq!(config.source.as_deref(), Some("web/templates/config.yaml"));
    assert_eq!((config.group(), config.version()), ("", "v1"));
    assert_eq!(config.value["data"]["text"], "--- is no separator here\n");
    // As the engine reads them.
    assert_eq!(config.value["metadata"]["labels"]["tier"], "b");
    assert_eq!(deployment.value["spec"]["mode"], 0o400);
    assert_eq!((deployment.group(), deployment.version()), ("apps", "v1"));
    assert_eq!(deployment.namespace.as_deref(), Some("other"));
}

#[test]
fn one_broken_document_does_not_take_the_others_along_and_its_words_are_not_told() {
    let manifest = format!("{WEB}---\nkind: Secret\ndata: [hunter2\n---\nkind: X\n---\n{WEB}");
    let (objects, unreadable) = objects(&manifest);
    assert_eq!(objects.len(), 4);
    assert_eq!(unreadable.len(), 2);
    assert!(unreadable[0].starts_with("the document at line 19 is not YAML"), "{unreadable:?}");
    assert!(unreadable[1].ends_with("has no apiVersion"), "{unreadable:?}");
    assert!(!unreadable.concat().contains("hunter2"));
}

#[test]
fn the_objects_of_a_list_are_taken_one_by_one() {
    let list = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
        - {apiVersion: v1, kind: Service, metadata: {name: b}}\n";
    let (found, _) = objects(list);
    let names: Vec<&str> = found.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn nothing_of_a_manifest_is_without_bounds() {
    let one = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let (found, unreadable) = objects(&one.repeat(OBJECTS + 1));
    assert_eq!((found.len(), unreadable.len()), (OBJECTS, 1));
    let (found, unreadable) = objects(&"---\na: [\n".repeat(10 * UNREADABLE));
    assert_eq!((found.len(), unreadable.len()), (0, UNREADABLE + 1));
    assert_eq!(objects(&"---\n".repeat(100_000)), (vec![], vec![]));
    assert_eq!(objects(""), (vec![], vec![]));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let row = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    assert_eq!(objects(&bomb).1.len(), 1);
}

#[test]
fn secret_values_are_hidden_and_a_change_of_one_still_shows() {
    let secret = |data: Value| json!({"kind": "Secret", "metadata": {"name": "a"}, "data": data});
    let before = masked(&secret(json!({"user": "cm9vdA==", "password": "aHVudGVyMg=="})));
    let after = masked(&secret(json!({"user": "cm9vdA==", "password": "aHVudGVyMw=="})));
    assert_eq!(before["data"]["user"], after["data"]["user"]);
    assert_ne!(before["data"]["password"], after["data"]["password"]);
    assert!(before["data"]["password"].as_str().unwrap().starts_with("*** "));
    assert!(!before.to_string().contains("aHVudGVyMg"));
    let plain = json!({"kind": "Secret", "stringData": {"password": "hunter2"}});
    assert_eq!(masked(&plain)["stringData"]["password"], before["data"]["password"]);
}

#[test]
fn odd_secrets_are_hidden_too_and_other_kinds_stay_as_they_are() {
    let odd = json!({"kind": "Secret", "data": "hunter2", "stringData": null});
    assert!(!masked(&odd).to_string().contains("hunter2"));
    let config = json!({"kind": "ConfigMap", "data": {"a": "b"}});
    assert_eq!(masked(&config), config);
}

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
    assert_eq!(config.value()["data"]["text"], "--- is no separator here\n");
    // As the engine reads them.
    assert_eq!(config.value()["metadata"]["labels"]["tier"], "b");
    assert_eq!(deployment.value()["spec"]["mode"], 0o400);
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
fn a_commit_that_looks_like_a_number_beyond_all_costs_no_document() {
    let map = "apiVersion: v1\nkind: ConfigMap\n# -7e1234\n\
        metadata: {name: web, labels: {commit: 12e4567}}\ndata: {pin: -7e1234}\n";
    let (found, unreadable) = objects(map);
    assert_eq!(unreadable, [] as [&str; 0]);
    let object = found[0].value();
    let (label, pin) = (&object["metadata"]["labels"]["commit"], &object["data"]["pin"]);
    assert_eq!((label, pin), (&json!("12e4567"), &json!("-7e1234")));
}

#[test]
fn keys_are_those_that_the_engine_makes_of_them() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata:\n  on: x\n  1.10: v\n  \
        0400: z\n  9000: m\n  plain: p\n  y: \"1\"\n  'off': o\n";
    let (found, unreadable) = objects(map);
    assert_eq!(unreadable, [] as [&str; 0]);
    // Of `on` and `y`, which are one key, the last one counts.
    let wanted = json!({
        "true": "1", "1.1": "v", "256": "z", "9000": "m", "plain": "p", "off": "o",
    });
    assert_eq!(found[0].value()["data"], wanted);
    let (_, unreadable) = objects("apiVersion: v1\nkind: A\n~: a\n");
    assert_eq!(unreadable, ["the document at line 1 is not YAML: see line 3"]);
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
    // Short, and within what a long document may have: many of them would be read for minutes.
    let short = bomb.lines().take(5).map(|line| format!("{line}\n")).collect::<String>();
    let short = format!("---\napiVersion: v1\nkind: A\nmetadata: {{name: a}}\n{short}a4: 0\n");
    let (found, unreadable) = objects(&short.repeat(2));
    assert_eq!((found.len(), unreadable.len()), (0, 2));
    let wanted = "the document at line 1 is left out: one has at most 250000 keys and values (a";
    assert!(unreadable[0].starts_with(wanted), "{unreadable:?}");
}

/// A document of about so many bytes.
fn config(name: &str, bytes: usize) -> String {
    let lines = "  key: a line of a file\n".len();
    let lines = (0..bytes / lines).map(|line| format!("  k{line:04}: a line of a file\n"));
    let head = "---\n# Source: big/templates/a.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata:\n";
    format!("{head}  name: {name}\ndata:\n{}", lines.collect::<String>())
}

#[test]
fn an_ordinary_big_manifest_is_read_whole() {
    let all: String = (0..OBJECTS).map(|number| config(&format!("n{number}"), 1_500)).collect();
    assert!(all.len() > 3 << 20, "{}", all.len());
    let (found, unreadable) = objects(&all);
    assert_eq!((found.len(), unreadable.as_slice()), (OBJECTS, &[] as &[String]));
    let last = found.last().unwrap();
    assert_eq!(last.name, "n1999");
    assert_eq!(last.value()["data"]["k0000"], "a line of a file");
    // What is kept of it is about its text, and no tree.
    assert!(found.iter().map(|object| object.json.len()).sum::<usize>() < 2 * all.len());
    assert!(last.weight() > last.json.len());
}

#[test]
fn of_a_manifest_that_is_too_long_the_beginning_is_read_and_the_rest_is_told() {
    let head = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let text = format!("{head}data: {{a: {}}}\n", "a".repeat(3 << 20));
    let (found, unreadable) = objects(&text.repeat(4));
    assert_eq!((found.len(), unreadable.len()), (2, 1));
    let wanted = "what follows line 11 is left out: of a manifest, 2000 objects and 8 MiB";
    assert!(unreadable[0].starts_with(wanted), "{unreadable:?}");
}

#[test]
fn a_document_that_is_made_up_to_take_memory_costs_itself_alone() {
    let head = "apiVersion: v1\nkind: A\nmetadata: {name: a}\n";
    let maps = "{a: 0},".repeat(NODES / 2);
    let many = format!("---\n# Source: m.yaml\n{head}a: [{maps}0]\n---\n");
    let (found, unreadable) = objects(&format!("{WEB}{many}{WEB}"));
    assert_eq!((found.len(), unreadable.len()), (4, 1));
    let wanted = "the document at line 19, m.yaml is left out: one has at most 250000 keys";
    assert!(unreadable[0].starts_with(wanted), "{unreadable:?}");
    // A text that stands there once, and is meant so many times more.
    let long = "a".repeat(1 << 20);
    let again = |count: usize| format!("{head}b: &b {long}\na: [{}0]\n---\n", "*b,".repeat(count));
    let (found, unreadable) = objects(&again(20));
    assert_eq!((found.len(), unreadable.len()), (0, 1));
    let (found, unreadable) = objects(&again(5).repeat(3));
    assert_eq!((found.len(), unreadable.len()), (1, 1));
    assert!(unreadable[0].starts_with("what follows line 6 is left out"), "{unreadable:?}");
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

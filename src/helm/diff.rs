//! What differs between two states of one object, by path, as people read manifests; and the patch
//! that makes one of the other, as the engine's client-side apply would.
//!
//! It asks nobody: what defaults the API server adds has to be in both states already.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::manifest::masked;

/// Entries of one object: nobody reads more, and an answer stays within some MiB.
pub const ENTRIES: usize = 1_000;
/// Longest text of an entry's side, in bytes: a screenful. Longer ones show where they begin to
/// differ.
const TEXT: usize = 2 << 10;
/// Of a long text what is shown before the first difference, in bytes.
const BEFORE: usize = 256;
/// Written by the API server, not by a chart (apimachinery `ObjectMeta`).
const SERVERS: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];
/// A copy of the whole object, of a Secret too (`kubectl apply`).
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields that tell the items of a list apart, the first that fits: those of lists that
/// Kubernetes itself merges by key, and then what is usual in custom kinds.
const NAMES: [&str; 10] = [
    "name",
    "containerPort",
    "mountPath",
    "devicePath",
    "port",
    "ip",
    "topologyKey",
    "key",
    "type",
    "uid",
];
/// Lists that a strategic merge patch merges, and their keys (`patchMergeKey` in k8s.io/api).
/// `ports` has two: see [`merge_key`].
const MERGED: [(&str, &str); 10] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("secrets", "name"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
];

static NOTHING: Value = Value::Null;

/// One difference: `spec.template.spec.containers[name=web].image`; `null` where one side has
/// nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub path: String,
    pub from: Value,
    pub to: Value,
}

/// The differences, at most [`ENTRIES`], without the status and what the API server writes for
/// itself. Values of Secrets are masked: that they changed shows.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", &comparable(before), &comparable(after), &mut found);
    found
}

/// The object as a chart could have written it, secrets masked.
pub fn comparable(object: &Value) -> Value {
    let mut object = masked(object);
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return object;
    };
    for field in SERVERS {
        metadata.remove(field);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    object
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    if before == after || found.len() >= ENTRIES {
        return;
    }
    let (no_fields, no_items): (Map<String, Value>, Vec<Value>) = Default::default();
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => maps(path, before, after, found),
        (Value::Array(before), Value::Array(after)) => lists(path, before, after, found),
        // What came or went whole and is too long for one entry is told part by part.
        (Value::Null, Value::Object(fields)) if is_long(after) => {
            maps(path, &no_fields, fields, found);
        }
        (Value::Object(fields), Value::Null) if is_long(before) => {
            maps(path, fields, &no_fields, found);
        }
        (Value::Null, Value::Array(items)) if is_long(after) => {
            lists(path, &no_items, items, found);
        }
        (Value::Array(items), Value::Null) if is_long(before) => {
            lists(path, items, &no_items, found);
        }
        _ => push(path, before, after, found),
    }
}

fn push(path: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    if found.len() < ENTRIES {
        let (from, to) = shortened(before, after);
        found.push(Change { path: path.to_owned(), from, to });
    }
}

fn maps(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    found: &mut Vec<Change>,
) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (was, is) = (before.get(key), after.get(key));
        compare(&field(path, key), was.unwrap_or(&NOTHING), is.unwrap_or(&NOTHING), found);
    }
}

fn lists(path: &str, before: &[Value], after: &[Value], found: &mut Vec<Change>) {
    if let Some(key) = NAMES.into_iter().find(|key| names(key, before) && names(key, after)) {
        return by_name(path, key, before, after, found);
    }
    let plain = |items: &[Value]| items.iter().all(|item| !item.is_object() && !item.is_array());
    let (all_before, all_after) = (Value::from(before), Value::from(after));
    // Arguments of a command are understood in a row.
    if plain(before) && plain(after) && !is_long(&all_before) && !is_long(&all_after) {
        return push(path, &all_before, &all_after, found);
    }
    for index in 0..before.len().max(after.len()) {
        let (was, is) = (before.get(index), after.get(index));
        let path = format!("{path}[{index}]");
        compare(&path, was.unwrap_or(&NOTHING), is.unwrap_or(&NOTHING), found);
    }
}

/// Whether this field tells all these items apart.
fn names(key: &str, items: &[Value]) -> bool {
    let mut seen = BTreeSet::new();
    items.iter().all(|item| label(item, key).is_some_and(|label| seen.insert(label)))
}

fn label(item: &Value, key: &str) -> Option<String> {
    match item.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn by_name(path: &str, key: &str, before: &[Value], after: &[Value], found: &mut Vec<Change>) {
    let labels = |items: &[Value]| -> Vec<String> {
        items.iter().filter_map(|item| label(item, key)).collect()
    };
    let (old, new) = (labels(before), labels(after));
    let was: BTreeMap<&String, &Value> = old.iter().zip(before).collect();
    let is: BTreeMap<&String, &Value> = new.iter().zip(after).collect();
    let added = new.iter().filter(|name| !was.contains_key(name));
    for name in old.iter().chain(added) {
        let (was, is) = (was.get(name).copied(), is.get(name).copied());
        let path = format!("{path}[{key}={name}]");
        compare(&path, was.unwrap_or(&NOTHING), is.unwrap_or(&NOTHING), found);
    }
    // Some lists mean something by their order: init containers, variables.
    let kept = |names: &[String], other: &BTreeMap<&String, &Value>| -> Vec<String> {
        names.iter().filter(|name| other.contains_key(name)).cloned().collect()
    };
    let (before, after) = (kept(&old, &is), kept(&new, &was));
    if before != after {
        push(path, &json!(before), &json!(after), found);
    }
}

/// `path.key`, quoted where the key could be taken for more than one.
fn field(path: &str, key: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match (path, !key.is_empty() && key.chars().all(simple)) {
        ("", true) => key.to_owned(),
        (path, true) => format!("{path}.{key}"),
        (path, false) => format!("{path}[{key:?}]"),
    }
}

fn is_long(value: &Value) -> bool {
    value.to_string().len() > TEXT
}

/// Both sides; of long texts a part that begins shortly before the first difference.
fn shortened(before: &Value, after: &Value) -> (Value, Value) {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !is_long(before) && !is_long(after) {
        return (before.clone(), after.clone());
    }
    let (from, to) = (text(before), text(after));
    let same = from.bytes().zip(to.bytes()).take_while(|(a, b)| a == b).count();
    // A side that is missing is not compared with.
    let start = if before.is_null() || after.is_null() { 0 } else { same.saturating_sub(BEFORE) };
    let side = |value: &Value, text: &str| match value {
        Value::Null => Value::Null,
        _ => Value::from(window(text, start)),
    };
    (side(before, &from), side(after, &to))
}

/// [`TEXT`] bytes of it; an ellipsis for what is left out.
fn window(text: &str, start: usize) -> String {
    let boundary = |at: usize| {
        let at = at.min(text.len());
        (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
    };
    let start = boundary(start);
    let end = boundary(start.saturating_add(TEXT));
    let left = if start > 0 { "…" } else { "" };
    let right = if end < text.len() { "…" } else { "" };
    format!("{left}{}{right}", text.get(start..end).unwrap_or_default())
}

/// The patch from one manifest to the next for an object that is applied client-side: what the
/// new one says, and `null` for what only the old one has. A strategic one (for Kubernetes' own
/// kinds) also resets what others changed and merges lists by their keys; one for custom kinds
/// (JSON merge patch) has the differences alone (helm `pkg/kube/client.go`, `createPatch`).
pub fn patch(old: &Value, new: &Value, strategic: bool) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut all = new.clone();
    for (key, was) in old {
        let wanted = match (was, new.get(key)) {
            (_, None) => Value::Null,
            (was, Some(is)) if !strategic && was == is => {
                all.remove(key);
                continue;
            }
            (Value::Array(was), Some(Value::Array(is))) if strategic => {
                match merge_key(new, key, was) {
                    Some(by) => merged(was, is, by),
                    None => continue,
                }
            }
            (was, Some(is)) => patch(was, is, strategic),
        };
        all.insert(key.clone(), wanted);
    }
    Value::Object(all)
}

/// What the items of the list `key` in `parent` are merged by.
fn merge_key(parent: &Map<String, Value>, key: &str, items: &[Value]) -> Option<&'static str> {
    if key != "ports" {
        return MERGED.into_iter().find(|(list, _)| *list == key).map(|(_, by)| by);
    }
    if items.iter().all(|item| item.get("containerPort").is_some()) {
        return Some("containerPort");
    }
    // A Service's; those of a NetworkPolicy are replaced.
    let service = ["selector", "type", "clusterIP"].into_iter().any(|of| parent.contains_key(of));
    service.then_some("port")
}

fn merged(was: &[Value], is: &[Value], by: &str) -> Value {
    let name = |item: &Value| item.get(by).map(Value::to_string);
    // Of several with one name the first counts.
    let old: BTreeMap<_, _> = was.iter().rev().map(|item| (name(item), item)).collect();
    let new: BTreeSet<_> = is.iter().map(&name).collect();
    let kept = is.iter().map(|item| {
        let key = name(item);
        match old.get(&key).filter(|_| key.is_some()) {
            Some(old) => patch(old, item, true),
            None => item.clone(),
        }
    });
    let gone = was.iter().filter(|old| old.get(by).is_none() || !new.contains(&name(old)));
    let gone = gone.map(|old| json!({ "$patch": "delete", by: old.get(by) }));
    kept.chain(gone).collect()
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;

//! The contract as it was recorded: the objects of `tests/contract`, the requests of its index, and
//! answers of the same keys, types and nesting. Values, times and uids are those of another run.
//! It is NOT where content is tested (`reads.rs`, `details.rs`, `raw.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Answer, Gateway, Options};
use crate::people::ask;
use crate::reads::{DEADLINE, POLL};

/// Names of the recorded run, which this run has its own for.
const RECORDED_POD: &str = "tiles-74d57ccf4b-8gphk";
const RECORDED_SET: &str = "tiles-74d57ccf4b";
const RECORDED_PENDING: &str = "starved-567b7cf4cd-6pqgx";

/// Keys whose content is not compared, and why.
const SKIPPED: [(&str, &str); 7] = [
    ("annotations", "free-form; lists leave out those that hold the whole object once more"),
    ("labels", "free-form; some objects have none"),
    ("managedFields", "keys are the fields that somebody wrote"),
    ("cumulativeMetrics", "usage comes later"),
    ("metrics", "usage comes later"),
    ("details", "the recorded ones name a token of that implementation"),
    ("nodeInfo", "the kubelet's own words"),
];
/// Keys that an object may have or not (`?` in the contract), depending on the run.
const OPTIONAL: [&str; 3] = ["ownerReferences", "objectNamespace", "taints"];
/// Keys that we have beyond the contract: frontends ignore what they do not know. `errors` is in
/// every detail; an autoscaler shows autoscaling/v2, custom objects the server's own columns.
const BEYOND: [&str; 6] = ["errors", "conditions", "currentMetrics", "metrics", "columns", "cells"];
/// Keys that may be null in this run and were not in the recorded one: no usage was measured yet.
const NULLABLE: [&str; 1] = ["currentCPUUtilizationPercentage"];
/// Lists that may be empty in this run and were not in the recorded one.
const EMPTY: [&str; 2] = ["warnings", "ownerReferences"];

/// Every path in a JSON value, list elements as `*`, with the types that stand there.
type Shape = BTreeMap<String, BTreeSet<&'static str>>;
/// The shape of a list's elements in all samples, by the list's key.
type Elements = BTreeMap<String, Shape>;

fn shape(value: &Value, at: &str, found: &mut Shape) {
    let key = at.rsplit('/').next().unwrap_or_default();
    // The status of a container is the kubelet's own words.
    let kubelet =
        key == "status" && (at.contains("/containers/*") || at.contains("/initContainers/*"));
    if kubelet || SKIPPED.iter().any(|(skipped, _)| *skipped == key) {
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    found.entry(at.to_owned()).or_default().insert(kind);
    match value {
        Value::Array(all) => all.iter().for_each(|one| shape(one, &format!("{at}/*"), found)),
        Value::Object(fields) => {
            for (key, one) in fields {
                shape(one, &format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
}

fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned()
}

/// Adds what the lists in a recorded answer hold.
fn learn(recorded: &Value, known: &mut Elements) {
    let mut found = Shape::new();
    shape(recorded, "", &mut found);
    for (path, types) in &found {
        for (at, _) in path.match_indices("/*") {
            let elements = known.entry(last(&path[..at])).or_default();
            elements.entry(path[at + 2..].to_owned()).or_default().extend(types);
        }
    }
}

/// What is wrong with a path within a list that was recorded empty: it has to be as in the other
/// lists of its name. Where there are none, anything may stand there.
fn odd_element(
    wanted: &Shape,
    known: &Elements,
    (path, types): (&str, &BTreeSet<&'static str>),
) -> Option<String> {
    let mut lists = path.match_indices("/*").map(|(at, _)| at);
    let at = lists.find(|at| !wanted.contains_key(&path[..at + 2]))?;
    wanted.get(&path[..at]).filter(|types| types.contains("array"))?;
    let (elements, rest) = (known.get(&last(&path[..at]))?, &path[at + 2..]);
    match elements.get(rest) {
        Some(known) if *known == BTreeSet::from(["null"]) => None,
        Some(known) => {
            let odd = types.iter().any(|kind| *kind != "null" && !known.contains(kind));
            odd.then(|| format!("{path} is {types:?}, elsewhere recorded as {known:?}"))
        }
        None => {
            let above = parent(rest);
            let is_first = elements.contains_key(&above) && !is_null(elements, &above);
            let odd = is_first && last(path) != "*" && !is_known_extra(&last(path));
            odd.then(|| format!("{path} is in no recorded list of that name"))
        }
    }
}

/// Where `ours` is not as `recorded`. What was null tells nothing of what else may stand there; of
/// an empty list other samples may tell.
fn differences(recorded: &Value, ours: &Value, known: &Elements) -> Vec<String> {
    let (mut wanted, mut found) = (Shape::new(), Shape::new());
    shape(recorded, "", &mut wanted);
    shape(ours, "", &mut found);
    let mut all = Vec::new();
    for (path, types) in &wanted {
        let key = last(path);
        match found.get(path) {
            // Said once, for the highest part that is missing.
            None if !path.is_empty() && !found.contains_key(&parent(path)) => {}
            None if OPTIONAL.contains(&key.as_str()) => {}
            None if key == "*" && EMPTY.contains(&last(&parent(path)).as_str()) => {}
            None if is_null(&found, &parent(path)) => {}
            None => all.push(format!("{path} is missing")),
            Some(ours) => {
                let known = types.contains("null") && types.len() == 1;
                let other = ours.iter().any(|kind| *kind != "null" && !types.contains(kind));
                let null = *ours == BTreeSet::from(["null"]) && !types.contains("null");
                if (other && !known) || (null && !NULLABLE.contains(&key.as_str())) {
                    all.push(format!("{path} is {ours:?}, recorded as {types:?}"));
                }
            }
        }
    }
    for (path, types) in found.iter().filter(|(path, _)| !wanted.contains_key(*path)) {
        all.extend(odd_element(&wanted, known, (path, types)));
        let above = parent(path);
        let open = !wanted.contains_key(&above) || is_null(&wanted, &above);
        let was_empty = last(path) == "*";
        if !open && !was_empty && !is_known_extra(&last(path)) {
            all.push(format!("{path} is not in the recorded answer"));
        }
    }
    all
}

fn is_known_extra(key: &str) -> bool {
    OPTIONAL.contains(&key) || BEYOND.contains(&key)
}

fn is_null(shape: &Shape, path: &str) -> bool {
    shape.get(path).is_some_and(|types| *types == BTreeSet::from(["null"]))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract")
}

fn text(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A line of the index.
struct Sample {
    name: String,
    request: String,
    /// Whose token; admin's unless the index says otherwise.
    token: String,
    status: u16,
    is_json: bool,
}

fn samples() -> Vec<Sample> {
    let index = text("INDEX.tsv");
    let lines = index.lines().skip(1).filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let (request, token) = match cells[1].split_once("(token: ") {
                Some((request, token)) => (request.trim(), token.trim_end_matches(')')),
                None => (cells[1], "admin-token"),
            };
            Sample {
                name: cells[0].to_owned(),
                request: request.to_owned(),
                token: token.to_owned(),
                status: cells[2].parse().unwrap(),
                is_json: cells[3].starts_with("application/json"),
            }
        })
        .collect()
}

/// What this run calls the recorded names.
struct Names {
    pod: String,
    set: String,
    pending: String,
}

impl Names {
    fn of_this_run(&self, text: &str) -> String {
        // The pod's name begins with its set's.
        let text = text.replace(RECORDED_POD, &self.pod).replace(RECORDED_SET, &self.set);
        text.replace(RECORDED_PENDING, &self.pending)
    }
}

/// The objects of the recorded run; back when pods run, the claim is bound and the gateway saw it.
async fn prepared(cluster: &Cluster, gateway: &Gateway) -> Names {
    cluster.apply(&text("all-kinds.yaml")).await;
    let admin = cluster.token("admin");
    let widgets = || async {
        cluster.get(admin, "/apis/example.com/v1/namespaces/atlas/widgets").await.0 == 200
    };
    Cluster::eventually("the custom kind is served", widgets).await;
    cluster.apply(&text("widget.yaml")).await;
    let begun = Instant::now();
    loop {
        let list = gateway.get("admin", "/api/v1/pod/atlas").await.json();
        let pods = list["pods"].as_array().unwrap();
        let named = |app: &str, status: &str| {
            let mut names = pods.iter().filter_map(|pod| {
                let labels = &pod["objectMeta"]["labels"];
                let fits = labels["app"] == app && pod["status"] == status;
                fits.then(|| pod["objectMeta"]["name"].as_str()).flatten()
            });
            names.next().map(str::to_owned)
        };
        if let (Some(pod), Some(pending)) = (named("tiles", "Running"), named("starved", "Pending"))
        {
            let set = pod.rsplit_once('-').unwrap().0.to_owned();
            return Names { pod, set, pending };
        }
        assert!(begun.elapsed() < DEADLINE, "the recorded pods do not run: {list}");
        tokio::time::sleep(POLL).await;
    }
}

/// What is wrong with our answer to a sample; nothing when it is as recorded.
fn wrong(sample: &Sample, names: &Names, answer: &Answer, known: &Elements) -> Vec<String> {
    // Missing objects were a 500 with the right text; the port answers as HTTP has it.
    let status = if sample.status == 500 { 404 } else { sample.status };
    if answer.status != status {
        return vec![format!("status {} for {status}: {}", answer.status, answer.text())];
    }
    if sample.is_json {
        let extension = if sample.token == "admin-token" { "json" } else { "txt" };
        let recorded = text(&format!("{}.{extension}", sample.name));
        let recorded: Value = serde_json::from_str(&recorded).unwrap();
        if answer.header("content-type") != "application/json" {
            return vec![format!("content type {}", answer.header("content-type"))];
        }
        return differences(&recorded, &answer.json(), known);
    }
    let recorded = names.of_this_run(text(&format!("{}.txt", sample.name)).trim());
    if answer.text().trim() == recorded && answer.header("content-type").starts_with("text/plain") {
        Vec::new()
    } else {
        vec![format!("{:?}, recorded as {recorded:?}", answer.text())]
    }
}

#[tokio::test]
async fn every_recorded_request_has_an_answer_of_the_recorded_shape() {
    let cluster = cluster::shared().await;
    let gateway = gateway::start(Options::default()).await;
    let names = prepared(cluster, &gateway).await;
    let samples = samples();
    assert!(samples.len() > 30, "the index has only {} samples", samples.len());
    let mut known = Elements::new();
    for sample in samples.iter().filter(|sample| sample.is_json && sample.token == "admin-token") {
        learn(&serde_json::from_str(&text(&format!("{}.json", sample.name))).unwrap(), &mut known);
    }
    for sample in &samples {
        let path = format!("/api/v1/{}", names.of_this_run(&sample.request));
        let begun = Instant::now();
        loop {
            let answer = ask(&gateway, &sample.token, &path).await;
            let wrong = wrong(sample, &names, &answer, &known);
            if wrong.is_empty() {
                break;
            }
            // Events, endpoints and usage of this run come a little later than its pods.
            let wrong = wrong.join("\n");
            assert!(begun.elapsed() < DEADLINE, "{} ({path}):\n{wrong}", sample.name);
            tokio::time::sleep(POLL).await;
        }
    }
}

#[test]
fn missing_keys_other_types_and_unknown_keys_are_differences() {
    let recorded = serde_json::json!({"a": [{"b": 1, "c": null}], "d": {"e": "x"}, "f": []});
    let none = Elements::new();
    let differences = |recorded: &Value, ours: &Value| differences(recorded, ours, &none);
    assert!(differences(&recorded, &recorded).is_empty());
    let same = serde_json::json!({"a": [{"b": 2, "c": "now"}], "d": {"e": ""}, "f": [{"g": 1}]});
    assert!(differences(&recorded, &same).is_empty());
    let other = serde_json::json!({"a": [{"b": "1", "c": null}], "d": null, "f": [], "h": 1});
    let found = differences(&recorded, &other);
    assert_eq!(found.len(), 3, "{found:?}");
    let empty = serde_json::json!({"a": [], "d": {"e": "x"}, "f": []});
    assert_eq!(differences(&recorded, &empty), ["/a/* is missing"]);
}

#[test]
fn a_list_that_was_recorded_empty_is_compared_with_others_of_its_name() {
    let mut known = Elements::new();
    learn(&serde_json::json!({"a": {"f": [{"g": 1, "h": null, "i": [{"j": true}]}]}}), &mut known);
    let recorded = serde_json::json!({"f": [], "k": []});
    let of = |ours: Value| differences(&recorded, &ours, &known);
    let same = serde_json::json!({"f": [{"g": 2, "h": "x", "i": [{"j": false}]}], "k": [1]});
    assert_eq!(of(same), [] as [&str; 0]);
    let other = serde_json::json!({"f": [{"g": "2", "i": [{"l": {"m": 1}}]}], "k": []});
    let found = of(other);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("/f/*/g is ") && found[1].starts_with("/f/*/i/*/l "), "{found:?}");
}

//! `metrics.k8s.io`, made up: usage moves in slow waves around a third of what is requested,
//! each pod and node with a phase of its own.
//!
//! Nothing is measured and nothing remembered.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{Ask, Resource};
use super::kinds::{NODE, NODE_METRICS, POD, POD_METRICS};
use super::objects;
use super::read;
use super::reply::{self, Fail, Reply};
use super::store::{Store, Stored};

/// A wave between 0 and 1 with a period of four minutes, shifted by the name.
fn wave(name: &str) -> f64 {
    let shift: u64 = name.bytes().map(u64::from).sum();
    let now = Timestamp::now().as_millisecond() as f64 / 1_000.0;
    (((now + shift as f64 * 7.0) / 240.0 * std::f64::consts::TAU).sin() + 1.0) / 2.0
}

fn usage(name: &str, millicores: f64, mebibytes: f64) -> Value {
    let wave = wave(name);
    let cpu = (millicores * (0.2 + 0.3 * wave) * 1_000_000.0) as u64;
    let memory = (mebibytes * (0.4 + 0.2 * wave) * 1_024.0) as u64;
    json!({ "cpu": format!("{cpu}n"), "memory": format!("{memory}Ki") })
}

pub(super) fn nodes(store: &Store, ask: &Ask, path: &Resource) -> Result<Reply, Fail> {
    let of = |node: &Stored| {
        Some(json!({
            "kind": "NodeMetrics",
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": metadata(node),
            "timestamp": objects::ago(0),
            "window": "30s",
            "usage": usage(&node.name, 8_000.0, 32_768.0),
        }))
    };
    match (ask.verb, path.name.as_str()) {
        ("get", name) => {
            let node = store.get(&NODE, "", name).and_then(|node| of(&node));
            let node = node.ok_or_else(|| Fail::not_found(&NODE_METRICS, name))?;
            Ok(reply::json(200, &node))
        }
        ("list", _) => {
            let page = store.list(&NODE, None, &read::selector(&NODE, ask)?, None, 0);
            Ok(list("NodeMetricsList", page.items.iter().filter_map(|node| of(node)).collect()))
        }
        _ => Err(Fail::method()),
    }
}

pub(super) fn pods(store: &Store, ask: &Ask, path: &Resource) -> Result<Reply, Fail> {
    match (ask.verb, path.name.as_str()) {
        ("get", name) => {
            let pod = store.get(&POD, &path.namespace, name).and_then(|pod| pod_usage(&pod));
            let pod = pod.ok_or_else(|| Fail::not_found(&POD_METRICS, name))?;
            Ok(reply::json(200, &pod))
        }
        ("list", _) => {
            let namespace = read::limited(&POD, path);
            let page = store.list(&POD, namespace, &read::selector(&POD, ask)?, None, 0);
            let items = page.items.iter().filter_map(|pod| pod_usage(pod)).collect();
            Ok(list("PodMetricsList", items))
        }
        _ => Err(Fail::method()),
    }
}

/// Running pods have usage, all others are absent.
fn pod_usage(pod: &Stored) -> Option<Value> {
    if pod.field("status.phase") != "Running" {
        return None;
    }
    let value = pod.value();
    let containers = value["spec"]["containers"].as_array().into_iter().flatten();
    let containers = containers.map(
        |container| json!({ "name": container["name"], "usage": usage(&pod.name, 100.0, 128.0) }),
    );
    Some(json!({
        "kind": "PodMetrics",
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": metadata(pod),
        "timestamp": objects::ago(0),
        "window": "15s",
        "containers": containers.collect::<Vec<_>>(),
    }))
}

fn metadata(object: &Stored) -> Value {
    let value = object.value();
    let mut metadata = json!({
        "name": object.name,
        "creationTimestamp": objects::ago(0),
        "labels": value["metadata"]["labels"],
    });
    if !object.namespace.is_empty() {
        metadata["namespace"] = json!(object.namespace);
    }
    metadata
}

fn list(kind: &str, items: Vec<Value>) -> Reply {
    let list = json!({
        "kind": kind,
        "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": items,
    });
    reply::json(200, &list)
}

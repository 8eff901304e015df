//! Many pods for benches: one template per deployment, filled in as text, so that 150,000 pods
//! are made in seconds and cost little more than their bytes.
//!
//! These objects are at rest; the simulation touches them only where somebody changes them.

use std::sync::Arc;

use serde_json::json;

use super::discovery::VERSION;
use super::kinds::{DEPLOYMENT, EVENT, NAMESPACE, NODE, POD, REPLICA_SET, SERVICE_ACCOUNT};
use super::objects::{self, News};
use super::store::{Labels, Store};

/// Pods a deployment, and pods a node.
const EACH: usize = 100;

/// Deployments a namespace.
const DEPLOYMENTS: usize = 10;

/// Nodes of the lively set, which come first.
const SEEDED_NODES: usize = 3;

/// Every pod has an event, as in a cluster that was just filled; one in so many is a warning.
const WARNED_EVERY: usize = 10;

/// Adds nodes, deployments and pods until there are `pods` of them.
pub(super) fn fill(store: &Store, pods: usize) {
    let nodes = (pods / EACH).max(SEEDED_NODES);
    for number in SEEDED_NODES + 1..=nodes {
        let node = objects::node(&format!("node-{number}"), VERSION);
        let _ = store.create(&NODE, "", node, false);
    }
    let missing = pods.saturating_sub(store.all(&POD, None).len());
    for number in 0..missing.div_ceil(EACH) {
        let namespace = format!("load-{}", number / DEPLOYMENTS);
        if number % DEPLOYMENTS == 0 {
            let object = json!({
                "metadata": { "name": namespace },
                "status": { "phase": "Active" },
            });
            let _ = store.create(&NAMESPACE, "", object, false);
            let account = json!({ "metadata": { "name": "default" } });
            let _ = store.create(&SERVICE_ACCOUNT, &namespace, account, false);
        }
        let count = EACH.min(missing - number * EACH);
        deployment(store, &namespace, number, count, nodes);
    }
}

fn deployment(store: &Store, namespace: &str, number: usize, count: usize, nodes: usize) {
    let name = format!("app-{number}");
    let template = objects::template(&name, "demo.example/app:1.0", "");
    let hash = objects::template_hash(&template);
    let status = json!({
        "replicas": count,
        "readyReplicas": count,
        "updatedReplicas": count,
        "availableReplicas": count,
        "observedGeneration": 1,
    });
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let mut deployment = objects::workload(namespace, &name, count, &template);
    deployment["status"] = status.clone();
    let Ok(deployment) = store.create(&DEPLOYMENT, namespace, deployment, false) else { return };
    let deployment = deployment.value();
    let mut set = super::sim::replica_set(&deployment, &hash, count, 1);
    set["status"] = status;
    let Ok(set) = store.create(&REPLICA_SET, namespace, set, false) else { return };
    let owners = objects::owned_by("apps/v1", "ReplicaSet", &set.value());
    let set = set.value();
    let mut pod = objects::pod(namespace, "@NAME@", &set["spec"]["template"], owners);
    objects::settle(&mut pod, "@NODE@", 3_600);
    pod["metadata"]["uid"] = json!("@UID@");
    pod["metadata"]["resourceVersion"] = json!("@VERSION@");
    pod["metadata"]["creationTimestamp"] = json!(objects::ago(3_600));
    let labels: Labels = pod["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    let text = pod.to_string();
    for index in 0..count as usize {
        let random = objects::random();
        let pod_name = format!("{name}-{hash}-{}", objects::suffix(random, 5));
        let node = format!("node-{}", (number * EACH + index) % nodes + 1);
        let uid = objects::uid(random);
        let fields = vec![
            ("spec.nodeName", node.as_str().into()),
            ("status.phase", "Running".into()),
            ("spec.serviceAccountName", "default".into()),
        ];
        let key = (namespace.to_owned(), pod_name.clone());
        store.insert_raw(&POD, key, Arc::clone(&labels), fields, |version| {
            text.replace("@NAME@", &pod_name)
                .replace("@NODE@", &node)
                .replace("@UID@", &uid)
                .replace("@VERSION@", &version.to_string())
        });
        let about = json!({
            "metadata": { "name": pod_name, "namespace": namespace, "uid": uid },
        });
        let (reason, message, warning) = match index % WARNED_EVERY {
            0 => (
                "Unhealthy",
                "Readiness probe failed: HTTP probe failed with statuscode: 503",
                true,
            ),
            _ => ("Started", "Started container main", false),
        };
        let news = News { kind: "Pod", reason, message, warning, count: 1 };
        let _ = store.create(&EVENT, namespace, objects::event(&about, "v1", &news), false);
    }
}

//! The standard lively set: seven namespaces, three nodes, workloads that run and some that fail,
//! the roles of the demo users, and at least one object of each kind the demo serves.
//!
//! Secrets hold made-up values.

use serde_json::{Value, json};

use super::discovery::VERSION;
use super::kinds::{
    CLUSTER_ROLE_BINDING, CRON_JOB, DAEMON_SET, DEPLOYMENT, ENDPOINT_SLICE, ENDPOINTS, EVENT, JOB,
    KINDS, Kind, NAMESPACE, NODE, POD, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT, STATEFUL_SET,
};
use super::objects::{self, News};
use super::sim;
use super::store::Store;

const SEED: &str = include_str!("seed.yaml");
const ORCHARD: &str = include_str!("orchard.yaml");

const NAMESPACES: [&str; 7] =
    ["default", "kube-system", "shop", "payments", "monitoring", "batch", "orchard"];

/// Namespace, name, replicas, image and behaviour.
const DEPLOYMENTS: [(&str, &str, u32, &str, &str); 11] = [
    ("shop", "frontend", 3, "demo.example/frontend:2.4.1", ""),
    ("shop", "cart", 2, "demo.example/cart:1.9.0", ""),
    ("shop", "catalog", 2, "demo.example/catalog:3.0.2", ""),
    ("shop", "checkout", 1, "demo.example/checkout:1.2.0", "crash-loop"),
    ("payments", "gateway", 2, "demo.example/gateway:5.1.0", ""),
    ("payments", "ledger", 1, "demo.example/ledger:0.0.0-missing", "image-pull"),
    ("payments", "fraud", 1, "demo.example/fraud:1.0.0", "unschedulable"),
    ("monitoring", "prometheus", 1, "demo.example/prometheus:3.5.0", ""),
    ("monitoring", "grafana", 1, "demo.example/grafana:12.1.0", ""),
    ("kube-system", "coredns", 2, "demo.example/coredns:1.13.0", ""),
    ("orchard", "cider", 2, "demo.example/cider:4.2.0", ""),
];

/// Fills an empty store.
pub(super) fn fill(store: &Store) {
    for name in NAMESPACES {
        put(
            store,
            &NAMESPACE,
            "",
            json!({
                "metadata": {
                    "name": name,
                    "labels": { "kubernetes.io/metadata.name": name },
                    "creationTimestamp": objects::ago(864_000),
                },
                "spec": { "finalizers": ["kubernetes"] },
                "status": { "phase": "Active" },
            }),
        );
        put(store, &SERVICE_ACCOUNT, name, json!({ "metadata": { "name": "default" } }));
    }
    for number in 1..=3 {
        put(store, &NODE, "", objects::node(&format!("node-{number}"), VERSION));
    }
    written(store);
    for (namespace, name, replicas, image, behaviour) in DEPLOYMENTS {
        let template = objects::template(name, image, behaviour);
        let deployment = objects::workload(namespace, name, replicas, &template);
        put(store, &DEPLOYMENT, namespace, deployment);
        service(store, namespace, name);
    }
    owned_pods(store);
    // The controllers make replica sets and pods now, not in the first seconds of the demo.
    sim::settle(store);
    failures(store);
}

fn put(store: &Store, kind: &'static Kind, namespace: &str, object: Value) {
    // The seed names each object once and creates its namespace first: nothing is refused.
    let _ = store.create(kind, namespace, object, false);
}

fn service(store: &Store, namespace: &str, name: &str) {
    put(
        store,
        &SERVICE,
        namespace,
        json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": format!("10.96.{}.{}", objects::random() % 250, objects::random() % 250),
                "selector": { "app": name },
                "sessionAffinity": "None",
                "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }],
            },
            "status": { "loadBalancer": {} },
        }),
    );
    let ports = json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]);
    put(
        store,
        &ENDPOINTS,
        namespace,
        json!({
            "metadata": { "name": name },
            "subsets": [{ "addresses": [{ "ip": "10.244.0.2" }], "ports": ports }],
        }),
    );
    put(
        store,
        &ENDPOINT_SLICE,
        namespace,
        json!({
            "metadata": {
                "name": format!("{name}-1"),
                "labels": { "kubernetes.io/service-name": name },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.244.0.2"], "conditions": { "ready": true } }],
            "ports": ports,
        }),
    );
}

/// Pods of the controllers that the simulation does not play.
fn owned_pods(store: &Store) {
    let status = json!({
        "currentNumberScheduled": 3,
        "desiredNumberScheduled": 3,
        "numberReady": 3,
        "numberAvailable": 3,
        "updatedNumberScheduled": 3,
        "numberMisscheduled": 0,
    });
    for at in [("kube-system", "kube-proxy"), ("orchard", "sprinkler")] {
        let pods: Vec<String> = (1..=3).map(|number| format!("{}-{number}", at.1)).collect();
        owner(store, &DAEMON_SET, at, status.clone(), &pods, "Running");
    }
    let status =
        json!({ "replicas": 1, "readyReplicas": 1, "currentReplicas": 1, "updatedReplicas": 1 });
    for at in [("shop", "postgres"), ("orchard", "cellar")] {
        let pods = [format!("{}-0", at.1)];
        owner(store, &STATEFUL_SET, at, status.clone(), &pods, "Running");
    }
    let status = json!({
        "succeeded": 1,
        "startTime": objects::ago(7_200),
        "completionTime": objects::ago(7_100),
        "conditions": [{ "type": "Complete", "status": "True" }],
    });
    for at in [("batch", "settlement"), ("orchard", "harvest")] {
        let pods = [format!("{}-x7k2p", at.1)];
        owner(store, &JOB, at, status.clone(), &pods, "Succeeded");
    }
    cron_job(store, ("batch", "nightly-report"), "0 2 * * *", "report");
    cron_job(store, ("orchard", "watering"), "0 5 * * *", "watering");
}

fn cron_job(store: &Store, (namespace, name): (&str, &str), schedule: &str, app: &str) {
    let template = objects::template(app, &format!("demo.example/{app}:1"), "");
    put(
        store,
        &CRON_JOB,
        namespace,
        json!({
            "metadata": { "name": name },
            "spec": {
                "schedule": schedule,
                "suspend": false,
                "concurrencyPolicy": "Forbid",
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
                "jobTemplate": { "spec": { "template": template } },
            },
            "status": { "lastScheduleTime": objects::ago(40_000) },
        }),
    );
}

fn owner(
    store: &Store,
    kind: &'static Kind,
    (namespace, name): (&str, &str),
    status: Value,
    pods: &[String],
    phase: &str,
) {
    let template = objects::template(name, &format!("demo.example/{name}:1.0"), "");
    let mut object = objects::workload(namespace, name, 1, &template);
    object["status"] = status;
    if std::ptr::eq(kind, &JOB) {
        object["spec"] = json!({
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "selector": { "matchLabels": { "app": name } },
            "template": template,
        });
    } else if std::ptr::eq(kind, &STATEFUL_SET) {
        object["spec"]["serviceName"] = json!(name);
    }
    let Ok(object) = store.create(kind, namespace, object, false) else { return };
    let owners = objects::owned_by(&kind.api_version(), kind.kind, &object.value());
    for (at, pod_name) in pods.iter().enumerate() {
        let mut pod = objects::pod(namespace, pod_name, &template, owners.clone());
        objects::settle(&mut pod, &format!("node-{}", at + 1), 7_200);
        if phase == "Succeeded" {
            pod["status"]["phase"] = json!(phase);
            let status = &mut pod["status"]["containerStatuses"][0];
            status["ready"] = json!(false);
            status["state"] = json!({ "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": objects::ago(7_200),
                "finishedAt": objects::ago(7_100),
            } });
        }
        if std::ptr::eq(kind, &STATEFUL_SET) {
            let claim = json!({ "claimName": format!("data-{pod_name}") });
            pod["spec"]["volumes"] = json!([{ "name": "data", "persistentVolumeClaim": claim }]);
        }
        put(store, &POD, namespace, pod);
    }
}

/// Warnings about the pods that fail.
fn failures(store: &Store) {
    for pod in store.all(&POD, None) {
        let (reason, message, count) = match pod.label(objects::BEHAVIOUR) {
            Some("crash-loop") => ("BackOff", "Back-off restarting failed container", 42),
            Some("image-pull") => ("Failed", "Error: ImagePullBackOff", 18),
            Some("unschedulable") => {
                ("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu.", 9)
            }
            _ => continue,
        };
        let news = News { kind: "Pod", reason, message, warning: true, count };
        put(store, &EVENT, &pod.namespace, objects::event(&pod.value(), "v1", &news));
    }
}

fn bind(store: &Store, namespace: &str, role: &str, kind: &str, subject: &str) {
    let group = "rbac.authorization.k8s.io";
    let kind_of_binding = if namespace.is_empty() { &CLUSTER_ROLE_BINDING } else { &ROLE_BINDING };
    put(
        store,
        kind_of_binding,
        namespace,
        json!({
            "metadata": { "name": format!("{role}-{}", subject.replace(':', "-")) },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": group, "kind": kind, "name": subject }],
        }),
    );
}

/// `orchard.yaml` with its moments filled in.
fn orchard() -> String {
    let moment = |seconds: i64| objects::ago(seconds).trim_end_matches('Z').to_owned();
    ORCHARD.replace("@DAY@", &moment(86_400)).replace("@NOW@", &moment(0))
}

/// What stands in `seed.yaml` and `orchard.yaml`, and who has which of their roles.
fn written(store: &Store) {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(SEED).unwrap_or_default();
    objects.extend(serde_saphyr::from_multiple::<Value>(&orchard()).unwrap_or_default());
    for object in objects {
        let kind = KINDS.iter().find(|kind| object["kind"] == kind.kind);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        if let Some(kind) = kind {
            put(store, kind, &namespace, object);
        }
    }
    bind(store, "", "cluster-admin", "Group", "system:masters");
    bind(store, "", "system:discovery", "Group", "system:authenticated");
    bind(store, "", "system:basic-user", "Group", "system:authenticated");
    bind(store, "", "demo-viewer", "User", "demo-viewer");
    bind(store, "shop", "edit", "User", "demo-team");
    bind(store, "monitoring", "view", "User", "demo-team");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::kinds::Serve;

    #[test]
    fn every_object_of_the_written_seed_is_of_a_known_kind() {
        for (written, least) in [(SEED, 15), (orchard().as_str(), 45)] {
            let objects: Vec<Value> = serde_saphyr::from_multiple(written).unwrap();
            assert!(objects.len() > least);
            for object in objects {
                assert!(KINDS.iter().any(|kind| object["kind"] == kind.kind), "{object}");
            }
        }
    }

    #[test]
    fn each_definition_of_the_seed_is_served_as_it_says() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&orchard()).unwrap();
        let definitions = objects.iter().filter(|it| it["kind"] == "CustomResourceDefinition");
        for spec in definitions.map(|it| &it["spec"]) {
            let kind = KINDS.iter().find(|kind| spec["names"]["plural"] == kind.plural).unwrap();
            assert_eq!(spec["group"], kind.group);
            assert_eq!(spec["names"]["kind"], kind.kind);
            assert_eq!(spec["versions"][0]["name"], kind.version);
            assert_eq!(spec["scope"] == "Namespaced", kind.namespaced);
            let status = &spec["versions"][0]["subresources"]["status"];
            assert_eq!(status.is_object(), kind.has_subresource("status"), "{}", kind.kind);
        }
    }

    #[test]
    fn each_kind_that_is_stored_has_an_object() {
        let store = Store::new();
        fill(&store);
        for kind in KINDS.iter().filter(|kind| kind.serve == Serve::Stored) {
            assert!(!store.all(kind, None).is_empty(), "no {}", kind.kind);
        }
    }
}

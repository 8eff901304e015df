//! What stands in each namespace of `property_world.rs`: objects of many kinds, pods of all states
//! and events about them.
//!
//! Chosen so that no controller touches them again: gated pods are never scheduled, what would
//! make pods makes none, jobs are suspended, claims name a volume that nobody has.

use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::property_truth::Client;
use crate::property_world::{Rng, create};

/// Requests at once of one namespace.
const AT_ONCE: usize = 4;
/// Pods that a deployment's replica set makes.
const REPLICAS: usize = 2;
const WORDS: [&str; 3] = ["atlas", "birch", "cedar"];

/// A bed of one namespace: what is to be created where.
struct Bed<'a> {
    prefix: &'a str,
    namespace: &'a str,
    rng: Rng,
    all: Vec<(String, Value)>,
}

/// Fills a namespace and returns when all of it is there.
pub async fn plants(api: &Client, admin: &str, prefix: &str, namespace: &str, rng: Rng) {
    let mut bed = Bed { prefix, namespace, rng, all: Vec::new() };
    bed.plain();
    bed.workloads();
    for word in WORDS {
        let name = format!("{word}-0");
        bed.add("v1", "Pod", "pods", &name, json!({"spec": gated(true)}));
    }
    let planned = std::mem::take(&mut bed.all);
    let making = planned
        .into_iter()
        .map(|(collection, object)| async move { create(api, admin, &collection, &object).await });
    let made: Vec<Value> = futures::stream::iter(making).buffer_unordered(AT_ONCE).collect().await;
    let set = made.iter().find(|object| object["kind"] == "DaemonSet").expect("a daemon set");
    let (name, uid) = (&set["metadata"]["name"], &set["metadata"]["uid"]);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid,
                        "controller": true}]);
    for number in 0..2 {
        bed.add("v1", "Pod", "pods", &format!("walker-{number}"), json!({"spec": gated(false)}));
        let (_, pod) = bed.all.last_mut().expect("it was just added");
        pod["metadata"]["ownerReferences"] = owner.clone();
        pod["metadata"]["labels"]["app"] = "walker".into();
    }
    // The last one: who creates while a quota is young is refused.
    bed.add(
        "v1",
        "ResourceQuota",
        "resourcequotas",
        "quota",
        json!({
            "spec": {"hard": {"services.loadbalancers": "9"}},
        }),
    );
    for (collection, object) in std::mem::take(&mut bed.all) {
        create(api, admin, &collection, &object).await;
    }
    give_states(api, admin, &mut bed).await;
}

impl Bed<'_> {
    fn add(&mut self, version: &str, kind: &str, plural: &str, name: &str, rest: Value) {
        let tier = *self.rng.pick(&["front", "back", "side"]);
        let mut labels = json!({"world": self.prefix, "tier": tier});
        if self.rng.chance(30) {
            labels["canary"] = "yes".into();
        }
        let metadata = json!({"name": name, "labels": labels});
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        for (key, value) in rest.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        let group = if version == "v1" { "/api/v1".into() } else { format!("/apis/{version}") };
        self.all.push((format!("{group}/namespaces/{}/{plural}", self.namespace), object));
    }

    /// Objects that only lie there.
    fn plain(&mut self) {
        let hush = format!("hush-{}-{}", self.prefix, self.namespace);
        for word in &WORDS[..1 + self.rng.below(WORDS.len())] {
            let name = format!("{word}-0");
            self.add("v1", "ConfigMap", "configmaps", &name, json!({"data": {"a": "b"}}));
        }
        for word in &WORDS[..1 + self.rng.below(2)] {
            let name = format!("{word}-0");
            self.add("v1", "Secret", "secrets", &name, json!({"stringData": {"hush": hush}}));
        }
        let spec = json!({"ports": [{"port": 80}], "selector": {"app": "gated"}});
        self.add("v1", "Service", "services", "gated", json!({"spec": spec}));
        self.add("v1", "Service", "services", "bare", json!({"spec": {"ports": [{"port": 80}]}}));
        let storage = json!({"requests": {"storage": "1Gi"}});
        self.add(
            "v1",
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            "claim",
            json!({
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                         "volumeName": "nobody-has-it", "resources": storage},
            }),
        );
        let limit = json!({"type": "PersistentVolumeClaim", "max": {"storage": "9Gi"}});
        self.add("v1", "LimitRange", "limitranges", "limits", json!({"spec": {"limits": [limit]}}));
        let backend = json!({"service": {"name": "gated", "port": {"number": 80}}});
        self.add(
            "networking.k8s.io/v1",
            "Ingress",
            "ingresses",
            "ingress",
            json!({
                "spec": {"defaultBackend": backend},
            }),
        );
        self.add(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "networkpolicies",
            "policy",
            json!({
                "spec": {"podSelector": {}},
            }),
        );
        self.add(
            "policy/v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            "budget",
            json!({
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "gated"}}},
            }),
        );
        self.add(
            "coordination.k8s.io/v1",
            "Lease",
            "leases",
            "lease",
            json!({
                "spec": {"holderIdentity": "nobody"},
            }),
        );
    }

    /// Whatever controls pods; only one of them makes some.
    fn workloads(&mut self) {
        let selector = |app: &str| json!({"matchLabels": {"app": app}});
        for (name, replicas) in [("gated", REPLICAS), ("idle", 0)] {
            self.add(
                "apps/v1",
                "Deployment",
                "deployments",
                name,
                json!({
                    "spec": {"replicas": replicas, "selector": selector(name),
                             "progressDeadlineSeconds": 86_400, "template": template(name)},
                }),
            );
        }
        self.add(
            "apps/v1",
            "StatefulSet",
            "statefulsets",
            "still",
            json!({
                "spec": {"replicas": 0, "serviceName": "bare", "selector": selector("still"),
                         "template": template("still")},
            }),
        );
        let mut nowhere = template("walker");
        nowhere["spec"]["nodeSelector"] = json!({"test.binnacle/none": "none"});
        self.add(
            "apps/v1",
            "DaemonSet",
            "daemonsets",
            "walker",
            json!({
                "spec": {"selector": selector("walker"), "template": nowhere},
            }),
        );
        self.add(
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            "old",
            json!({
                "spec": {"replicas": 0, "selector": {"app": "old"}, "template": template("old")},
            }),
        );
        let mut once = json!({"spec": gated(false)});
        once["spec"]["restartPolicy"] = "Never".into();
        let job = json!({"suspend": true, "template": once});
        self.add("batch/v1", "Job", "jobs", "job", json!({"spec": job}));
        self.add(
            "batch/v1",
            "CronJob",
            "cronjobs",
            "cron",
            json!({
                "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": job}},
            }),
        );
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "idle"});
        let plural = "horizontalpodautoscalers";
        self.add(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            plural,
            "scaler",
            json!({
                "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3},
            }),
        );
    }
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": gated(false)})
}

/// A pod that is never scheduled. `hush`: with a value of a secret in its environment.
fn gated(hush: bool) -> Value {
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    let mut main = json!({"name": "main", "image": "example.invalid/main", "resources": resources});
    if hush {
        let from = json!({"secretKeyRef": {"name": "atlas-0", "key": "hush"}});
        main["env"] = json!([{"name": "HUSH", "valueFrom": from}]);
    }
    json!({"schedulingGates": [{"name": "test.binnacle/never"}], "containers": [main]})
}

/// Writes a state into each pod, and events about some; the deployment's pods are waited for.
async fn give_states(api: &Client, admin: &str, bed: &mut Bed<'_>) {
    let path = format!("/api/v1/namespaces/{}/pods", bed.namespace);
    let wanted = WORDS.len() + 2 + REPLICAS;
    let there = || async {
        let list = api.get(admin, &path).await.json();
        list["items"].as_array().is_some_and(|pods| pods.len() == wanted)
    };
    Cluster::eventually("the pods of the deployment are made", there).await;
    let mut pods = api.get(admin, &path).await.json();
    let pods = pods["items"].as_array_mut().expect("pods are a list");
    pods.sort_by_key(|pod| pod["metadata"]["name"].to_string());
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().expect("pods have names").to_owned();
        // One that ends would be replaced by its controller.
        let owned = pod["metadata"]["ownerReferences"].is_array();
        let states = if owned { 3 } else { 5 };
        let state = ["Pending", "unready", "ready", "Failed", "Succeeded"][bed.rng.below(states)];
        if state != "Pending" {
            let (phase, ready) = match state {
                "unready" => ("Running", "False"),
                "ready" => ("Running", "True"),
                ended => (ended, "False"),
            };
            let conditions = json!([
                {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"},
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": ready},
            ]);
            let patch = json!({"status": {"phase": phase, "conditions": conditions}}).to_string();
            let path = format!("{path}/{name}/status");
            let merge = [("content-type", "application/merge-patch+json")];
            let answer = api.send(Method::PATCH, admin, &path, &merge, patch).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        for number in 0..bed.rng.below(4) {
            let event = event(bed, pod, &format!("{name}.{number}"));
            let collection = format!("/api/v1/namespaces/{}/events", bed.namespace);
            create(api, admin, &collection, &event).await;
        }
    }
}

/// An event about a pod: a warning, mostly.
fn event(bed: &mut Bed<'_>, pod: &Value, name: &str) -> Value {
    let kind = if bed.rng.chance(70) { "Warning" } else { "Normal" };
    let reason = *bed.rng.pick(&["BackOff", "Failed", "Unhealthy"]);
    let time = format!("2026-01-01T00:{:02}:00Z", bed.rng.below(60));
    let metadata = &pod["metadata"];
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "labels": {"world": bed.prefix}},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": bed.namespace,
                           "name": metadata["name"], "uid": metadata["uid"]},
        "reason": reason, "message": format!("said of {name} in {}", bed.namespace),
        "type": kind, "count": 1 + bed.rng.below(9), "source": {"component": "test"},
        "firstTimestamp": time, "lastTimestamp": time,
    })
}

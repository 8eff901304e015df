//! The life of the demo: deployments become replica sets become pods, failing pods fail again,
//! nodes send heartbeats, dependents of what was deleted go too. One step a second.
//!
//! It looks only at what changed since its last step, so 150,000 pods at rest cost nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::kinds::{
    CRON_JOB, DAEMON_SET, DEPLOYMENT, EVENT, JOB, Kind, NAMESPACE, NODE, POD, REPLICA_SET,
    REPLICATION_CONTROLLER, SERVICE_ACCOUNT, STATEFUL_SET,
};
use super::objects::{self, News};
use super::selector::Selector;
use super::store::{Key, Store, Stored, metadata_of};

/// The pace of the simulation.
const STEP: Duration = Duration::from_secs(1);

/// Steps between crashes of failing pods, and between heartbeats.
const SELDOM: u64 = 10;

/// Nodes that send a heartbeat in one round; the next round takes the next ones.
const HEARTBEATS: usize = 20;

/// Pods made for one replica set in one round.
const BURST: usize = 50;

/// Pods of one workload that are ever made: who asks for millions would be given them until there
/// is no memory left. Ten times what the largest deployment of a bench has.
const MOST: u64 = 1_000;

/// Events made here and still kept; older ones are deleted.
const EVENTS: usize = 500;

/// Rounds of a step: a change of a deployment reaches its pods within one step.
const ROUNDS: usize = 4;

/// What owns others: its dependents go with it.
static OWNERS: [&Kind; 7] = [
    &DEPLOYMENT,
    &REPLICA_SET,
    &DAEMON_SET,
    &STATEFUL_SET,
    &JOB,
    &CRON_JOB,
    &REPLICATION_CONTROLLER,
];

/// What is owned.
static DEPENDENTS: [&Kind; 3] = [&REPLICA_SET, &POD, &JOB];

pub(super) struct Simulation {
    store: Arc<Store>,
    /// The version up to which changes were looked at.
    seen: u64,
    steps: u64,
    events: VecDeque<Key>,
    /// Pods seen in the last step: those without a node start in the next, or wait for one.
    pods: BTreeSet<Key>,
}

/// Brings all deployments to rest at once, for the seed.
pub(super) fn settle(store: &Store) {
    for deployment in store.all(&DEPLOYMENT, None) {
        reconcile_deployment(store, &deployment);
        for set in store.all(&REPLICA_SET, Some(&deployment.namespace)) {
            reconcile_set(store, &set);
        }
    }
    for pod in store.all(&POD, None) {
        advance(store, &pod, 3_600);
    }
    for set in store.all(&REPLICA_SET, None) {
        reconcile_set(store, &set);
    }
    for deployment in store.all(&DEPLOYMENT, None) {
        reconcile_deployment(store, &deployment);
    }
}

impl Simulation {
    pub(super) fn new(store: Arc<Store>) -> Simulation {
        let seen = store.version();
        Simulation { store, seen, steps: 0, events: VecDeque::new(), pods: BTreeSet::new() }
    }

    pub(super) async fn run(mut self) {
        let mut pace = tokio::time::interval(STEP);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            self.step();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let mut pods = std::mem::take(&mut self.pods);
        pods.retain(|(namespace, name)| {
            let pod = self.store.get(&POD, namespace, name);
            pod.is_some_and(|pod| !advance(&self.store, &pod, 0))
        });
        for _ in 0..ROUNDS {
            let version = self.store.version();
            if version == self.seen {
                break;
            }
            self.round(&mut pods);
            self.seen = version;
        }
        self.pods = pods;
        if self.steps.is_multiple_of(SELDOM) {
            self.heartbeat();
            self.crash();
        }
    }

    /// Looks at all changes since the last round.
    fn round(&self, pods: &mut BTreeSet<Key>) {
        let store = &self.store;
        for namespace in self.changed(&NAMESPACE) {
            let account = json!({ "metadata": { "name": "default" } });
            // It is refused where there is one already.
            let _ = store.create(&SERVICE_ACCOUNT, &namespace.name, account, false);
        }
        for owner in OWNERS {
            self.collect_garbage(owner);
        }
        let mut deployments = BTreeSet::new();
        let mut sets = BTreeSet::new();
        for pod in self.touched(&POD) {
            pods.insert((pod.namespace.to_string(), pod.name.to_string()));
            sets.extend(controller(&pod, "ReplicaSet"));
        }
        for set in self.touched(&REPLICA_SET) {
            sets.insert((set.namespace.to_string(), set.name.to_string()));
            deployments.extend(controller(&set, "Deployment"));
        }
        for deployment in self.changed(&DEPLOYMENT) {
            deployments.insert((deployment.namespace.to_string(), deployment.name.to_string()));
        }
        for (namespace, name) in deployments {
            if let Some(deployment) = store.get(&DEPLOYMENT, &namespace, &name) {
                reconcile_deployment(store, &deployment);
            }
        }
        for (namespace, name) in sets {
            if let Some(set) = store.get(&REPLICA_SET, &namespace, &name) {
                reconcile_set(store, &set);
            }
        }
    }

    /// Objects made, changed or deleted; all of them when the history does not reach back.
    fn touched(&self, kind: &Kind) -> Vec<Arc<Stored>> {
        match self.store.news(kind, self.seen) {
            Ok(news) => news.changes.into_iter().map(|change| change.object).collect(),
            Err(_) => self.store.all(kind, None),
        }
    }

    /// The same without the deleted ones.
    fn changed(&self, kind: &Kind) -> Vec<Arc<Stored>> {
        let touched = self.touched(kind).into_iter();
        touched.filter(|it| self.store.get(kind, &it.namespace, &it.name).is_some()).collect()
    }

    /// Deletes what a deleted object was the controller of.
    fn collect_garbage(&self, kind: &Kind) {
        let Ok(news) = self.store.news(kind, self.seen) else { return };
        for gone in news.changes.into_iter().filter(|change| change.deleted) {
            let owner = gone.object.value();
            for dependent in DEPENDENTS {
                for object in self.store.all(dependent, Some(&gone.object.namespace)) {
                    let value = object.value();
                    let owners = value["metadata"]["ownerReferences"].as_array();
                    let uid = &owner["metadata"]["uid"];
                    if owners.into_iter().flatten().any(|it| it["uid"] == *uid) {
                        self.store.delete(dependent, &object.namespace, &object.name);
                    }
                }
            }
        }
    }

    fn heartbeat(&self) {
        let nodes = self.store.all(&NODE, None);
        let first = (self.steps / SELDOM) as usize * HEARTBEATS;
        for offset in 0..HEARTBEATS.min(nodes.len()) {
            let node = &nodes[(first + offset) % nodes.len()];
            // A node deleted meanwhile has no heartbeat.
            let _ = self.store.update(&NODE, "", &node.name, false, |node| {
                if let Some(conditions) = node.pointer_mut("/status/conditions") {
                    for condition in conditions.as_array_mut().into_iter().flatten() {
                        if condition.is_object() {
                            condition["lastHeartbeatTime"] = json!(objects::ago(0));
                        }
                    }
                }
                Ok(())
            });
        }
    }

    /// Restarts every crash-looping pod once more, and says so.
    fn crash(&mut self) {
        let Ok(selector) = Selector::parse(&POD, &format!("{}=crash-loop", objects::BEHAVIOUR), "")
        else {
            return;
        };
        for pod in self.store.list(&POD, None, &selector, None, 0).items {
            let _ = self.store.update(&POD, &pod.namespace, &pod.name, false, |pod| {
                if let Some(count) = pod.pointer_mut("/status/containerStatuses/0/restartCount") {
                    *count = json!(count.as_u64().unwrap_or(0) + 1);
                }
                Ok(())
            });
            let news = News {
                kind: "Pod",
                reason: "BackOff",
                message: "Back-off restarting failed container",
                warning: true,
                count: self.steps / SELDOM,
            };
            let event = objects::event(&pod.value(), "v1", &news);
            if let Ok(event) = self.store.create(&EVENT, &pod.namespace, event, false) {
                self.events.push_back((event.namespace.to_string(), event.name.to_string()));
            }
        }
        while self.events.len() > EVENTS {
            if let Some((namespace, name)) = self.events.pop_front() {
                self.store.delete(&EVENT, &namespace, &name);
            }
        }
    }
}

/// The controller of an object, if it is of this kind.
fn controller(object: &Stored, kind: &str) -> Option<Key> {
    let value = object.value();
    let owners = value["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true && owner["kind"] == kind)?;
    Some((object.namespace.to_string(), owner["name"].as_str()?.to_owned()))
}

/// How many pods a workload asks for, as far as it is given them.
fn replicas(object: &Value) -> u64 {
    object["spec"]["replicas"].as_u64().unwrap_or(1).min(MOST)
}

/// The replica set of a deployment's present template.
pub(super) fn replica_set(deployment: &Value, hash: &str, replicas: u32, revision: u64) -> Value {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let mut template = deployment["spec"]["template"].clone();
    let mut labels = match template["metadata"]["labels"].take() {
        Value::Object(labels) => labels,
        _ => serde_json::Map::new(),
    };
    labels.insert("pod-template-hash".into(), json!(hash));
    template["metadata"]["labels"] = json!(labels);
    let namespace = deployment["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut set = objects::workload(namespace, &format!("{name}-{hash}"), replicas, &template);
    set["metadata"]["labels"] = json!(labels);
    set["metadata"]["annotations"] =
        json!({ "deployment.kubernetes.io/revision": revision.to_string() });
    set["metadata"]["ownerReferences"] = objects::owned_by("apps/v1", "Deployment", deployment);
    set["metadata"]["creationTimestamp"] = json!(objects::ago(0));
    set["spec"]["selector"] = json!({ "matchLabels": labels });
    set
}

/// Makes the replica set of the present template, scales it and the older ones, and writes the
/// status.
fn reconcile_deployment(store: &Store, deployment: &Stored) {
    let value = deployment.value();
    let template = &value["spec"]["template"];
    // Only what has the shape of a template is acted upon.
    if !template["spec"].is_object() || !template["metadata"].is_object() {
        return;
    }
    let hash = objects::template_hash(template);
    let current = format!("{}-{hash}", deployment.name);
    let namespace = &*deployment.namespace;
    let all = store.all(&REPLICA_SET, Some(namespace));
    let is_own = |set: &&Arc<Stored>| {
        controller(set, "Deployment").is_some_and(|owner| *owner.1 == *deployment.name)
    };
    let own: Vec<&Arc<Stored>> = all.iter().filter(is_own).collect();
    let wanted = replicas(&value);
    if !own.iter().any(|set| *set.name == *current) {
        let count = u32::try_from(wanted).unwrap_or(u32::MAX);
        let set = replica_set(&value, &hash, count, own.len() as u64 + 1);
        let _ = store.create(&REPLICA_SET, namespace, set, false);
        let message = format!("Scaled up replica set {current} to {wanted}");
        let news = News {
            kind: "Deployment",
            reason: "ScalingReplicaSet",
            message: &message,
            warning: false,
            count: 1,
        };
        let event = objects::event(&value, "apps/v1", &news);
        let _ = store.create(&EVENT, namespace, event, false);
    }
    let count = |set: &Stored, field: &str| set.value()["status"][field].as_u64().unwrap_or(0);
    let fresh = store.get(&REPLICA_SET, namespace, &current);
    let fresh_ready = fresh.as_ref().map_or(0, |set| count(set, "readyReplicas"));
    scale(store, namespace, &current, wanted);
    for old in own.iter().filter(|set| *set.name != *current) {
        // Old pods stay until new ones are ready in their place.
        let left = wanted.saturating_sub(fresh_ready).min(replicas(&old.value()));
        scale(store, namespace, &old.name, left);
    }
    let total: u64 = own.iter().map(|set| count(set, "replicas")).sum();
    let ready: u64 = own.iter().map(|set| count(set, "readyReplicas")).sum();
    let updated = fresh.as_ref().map_or(0, |set| count(set, "replicas"));
    let status = |object: &Value| {
        json!({
            "observedGeneration": object["metadata"]["generation"],
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": wanted.saturating_sub(ready),
            "conditions": [
                condition("Available", ready >= wanted, "MinimumReplicas", object),
                condition("Progressing", true, "NewReplicaSetAvailable", object),
            ],
        })
    };
    write_status(store, &DEPLOYMENT, deployment, status);
}

/// A condition that keeps its time while it does not change.
fn condition(name: &str, holds: bool, reason: &str, object: &Value) -> Value {
    let status = if holds { "True" } else { "False" };
    let before = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut before = before.filter(|it| it["type"] == name && it["status"] == status);
    let since = before.find_map(|it| it["lastTransitionTime"].as_str()).map(str::to_owned);
    let since = since.unwrap_or_else(|| objects::ago(0));
    json!({
        "type": name,
        "status": status,
        "reason": reason,
        "message": "",
        "lastUpdateTime": since,
        "lastTransitionTime": since,
    })
}

fn write_status(
    store: &Store,
    kind: &'static Kind,
    object: &Stored,
    status: impl FnOnce(&Value) -> Value,
) {
    // An object deleted meanwhile needs no status.
    let _ = store.update(kind, &object.namespace, &object.name, false, |object| {
        let status = status(object);
        metadata_of(object)?;
        object["status"] = status;
        Ok(())
    });
}

fn scale(store: &Store, namespace: &str, name: &str, wanted: u64) {
    let _ = store.update(&REPLICA_SET, namespace, name, false, |set| {
        if set["spec"].is_object() {
            set["spec"]["replicas"] = json!(wanted);
        }
        Ok(())
    });
}

/// Makes and deletes pods until there are as many as wanted, and writes the status.
fn reconcile_set(store: &Store, set: &Stored) {
    // The one given may be older than the last scaling.
    let Some(set) = store.get(&REPLICA_SET, &set.namespace, &set.name) else { return };
    let value = set.value();
    let template = &value["spec"]["template"];
    if !template["spec"].is_object() || !template["metadata"].is_object() {
        return;
    }
    let Some(hash) = set.label("pod-template-hash") else { return };
    let namespace = &*set.namespace;
    let own = || -> Vec<Arc<Stored>> {
        let pods = store.all(&POD, Some(namespace)).into_iter();
        pods.filter(|pod| pod.label("pod-template-hash") == Some(hash))
            .filter(|pod| controller(pod, "ReplicaSet").is_some_and(|it| *it.1 == *set.name))
            .collect()
    };
    let pods = own();
    let wanted = usize::try_from(replicas(&value)).unwrap_or(usize::MAX);
    for _ in pods.len()..wanted.min(pods.len().saturating_add(BURST)) {
        let name = format!("{}-{}", set.name, objects::suffix(objects::random(), 5));
        let owners = objects::owned_by("apps/v1", "ReplicaSet", &value);
        let pod = objects::pod(namespace, &name, template, owners);
        let _ = store.create(&POD, namespace, pod, false);
    }
    for pod in pods.iter().skip(wanted) {
        store.delete(&POD, namespace, &pod.name);
    }
    let pods = own();
    let ready = pods.iter().filter(|pod| objects::is_ready(&pod.value())).count();
    write_status(store, &REPLICA_SET, &set, |object| {
        json!({
            "replicas": pods.len(),
            "fullyLabeledReplicas": pods.len(),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": object["metadata"]["generation"],
        })
    });
}

/// Schedules and starts a pod that no node has yet; false while no node takes any.
fn advance(store: &Store, pod: &Stored, seconds: i64) -> bool {
    let waits = pod.field("spec.nodeName").is_empty() && pod.field("status.phase") == "Pending";
    if !waits {
        return true;
    }
    let mut nodes = store.all(&NODE, None);
    nodes.retain(|node| node.field("spec.unschedulable") != "true");
    if nodes.is_empty() {
        return false;
    }
    let node = &nodes[(objects::random() % nodes.len() as u64) as usize];
    let _ = store.update(&POD, &pod.namespace, &pod.name, false, |pod| {
        // What cannot be scheduled stays as it was told first.
        let told = pod["status"]["conditions"].is_array();
        if !told {
            objects::settle(pod, &node.name, seconds);
        }
        Ok(())
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_millions_of_pods_is_given_no_more_than_a_demo_can_bear() {
        let store = Store::new();
        let template = objects::template("app", "demo.example/app:1.0", "");
        let deployment = objects::workload("shop", "app", 5_000_000, &template);
        let deployment = store.create(&DEPLOYMENT, "shop", deployment, false).unwrap();
        reconcile_deployment(&store, &deployment);
        let sets = store.all(&REPLICA_SET, None);
        // One round more than they take.
        for _ in 0..=MOST as usize / BURST {
            reconcile_set(&store, &sets[0]);
        }
        assert_eq!(store.all(&POD, None).len(), MOST as usize);
        // Nor is the set itself, when it is asked.
        scale(&store, "shop", &sets[0].name, 5_000_000);
        reconcile_set(&store, &sets[0]);
        assert_eq!(store.all(&POD, None).len(), MOST as usize);
    }
}

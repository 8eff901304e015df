//! Objects as controllers and kubelets make them: pods in their states, workloads, events, and
//! the names, times and uids these need.
//!
//! Pure but for the clock and a counter; nothing is stored here.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::{Value, json};

/// The label that makes a pod fail: `crash-loop`, `image-pull` or `unschedulable`.
pub(super) const BEHAVIOUR: &str = "demo/behaviour";

/// The time so many seconds ago, as objects write it.
pub(super) fn ago(seconds: i64) -> String {
    let then = Timestamp::now().as_second() - seconds;
    Timestamp::from_second(then).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The next of an endless row of numbers that look random; names and addresses come from it.
pub(super) fn random() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    mixed(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The finalizer of splitmix64.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

pub(super) fn uid(seed: u64) -> String {
    let (a, b) = (mixed(seed), mixed(seed ^ 0x5555));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

/// The end of a generated name, in the letters Kubernetes uses.
pub(super) fn suffix(mut number: u64, length: usize) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::with_capacity(length);
    for _ in 0..length {
        text.push(char::from(LETTERS[(number % 27) as usize]));
        number /= 27;
    }
    text
}

/// The `pod-template-hash` of a template.
pub(super) fn template_hash(template: &Value) -> String {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(template.to_string());
    suffix(hash, 10)
}

/// The reference of a dependent to its controller.
pub(super) fn owned_by(api_version: &str, kind: &str, owner: &Value) -> Value {
    json!([{
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// A pod template with one container that asks for a little.
pub(super) fn template(app: &str, image: &str, behaviour: &str) -> Value {
    let mut labels = json!({ "app": app });
    if !behaviour.is_empty() {
        labels[BEHAVIOUR] = json!(behaviour);
    }
    let cpu = if behaviour == "unschedulable" { "64" } else { "100m" };
    json!({
        "metadata": { "labels": labels },
        "spec": {
            "containers": [{
                "name": app,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
                "env": [{ "name": "LOG_LEVEL", "value": "info" }],
                "resources": {
                    "requests": { "cpu": cpu, "memory": "128Mi" },
                    "limits": { "cpu": cpu, "memory": "256Mi" },
                },
            }],
            "restartPolicy": "Always",
            "serviceAccountName": "default",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
        },
    })
}

/// A pod made from a template, not yet scheduled.
pub(super) fn pod(namespace: &str, name: &str, template: &Value, owners: Value) -> Value {
    let mut metadata = json!({});
    for part in ["labels", "annotations"] {
        if template["metadata"][part].is_object() {
            metadata[part] = template["metadata"][part].clone();
        }
    }
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(namespace);
    metadata["ownerReferences"] = owners;
    metadata["managedFields"] = json!([{
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": "v1",
        "time": ago(0),
        "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:labels": {} }, "f:spec": { "f:containers": {} } },
    }]);
    json!({
        "metadata": metadata,
        "spec": template["spec"],
        "status": { "phase": "Pending", "qosClass": "Burstable" },
    })
}

/// Puts a pod on a node and into the state that its behaviour leads to.
pub(super) fn settle(pod: &mut Value, node: &str, seconds: i64) {
    if !pod["spec"].is_object() {
        return;
    }
    let behaviour = pod["metadata"]["labels"][BEHAVIOUR].as_str().unwrap_or_default().to_owned();
    if behaviour == "unschedulable" {
        let message = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are \
                       available: 3 No preemption victims found for incoming pod.";
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": ago(seconds),
        });
        pod["status"] =
            json!({ "phase": "Pending", "qosClass": "Burstable", "conditions": [condition] });
        return;
    }
    let number = random();
    pod["spec"]["nodeName"] = json!(node);
    let (phase, ready) = match behaviour.as_str() {
        "crash-loop" => ("Running", false),
        "image-pull" => ("Pending", false),
        _ => ("Running", true),
    };
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let statuses: Vec<Value> =
        containers.iter().map(|it| container_status(it, &behaviour, seconds, number)).collect();
    pod["status"] = json!({
        "phase": phase,
        "qosClass": "Burstable",
        "startTime": ago(seconds),
        "hostIP": "10.0.0.1",
        "hostIPs": [{ "ip": "10.0.0.1" }],
        "podIP": format!("10.244.{}.{}", number % 250, 2 + (number >> 8) % 250),
        "conditions": conditions(ready, seconds),
        "containerStatuses": statuses,
    });
}

fn conditions(ready: bool, seconds: i64) -> Value {
    let of = |name: &str, holds: bool| {
        json!({
            "type": name,
            "status": if holds { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": ago(seconds),
        })
    };
    json!([
        of("Initialized", true),
        of("Ready", ready),
        of("ContainersReady", ready),
        of("PodScheduled", true),
    ])
}

fn container_status(container: &Value, behaviour: &str, seconds: i64, number: u64) -> Value {
    let image = &container["image"];
    let id = format!("containerd://{number:016x}{:016x}", number.rotate_left(17));
    let (state, restarts, last) = match behaviour {
        "crash-loop" => (
            json!({ "waiting": {
                "reason": "CrashLoopBackOff",
                "message": "back-off 5m0s restarting failed container",
            } }),
            7,
            json!({ "terminated": {
                "exitCode": 1,
                "reason": "Error",
                "startedAt": ago(90),
                "finishedAt": ago(60),
                "containerID": id,
            } }),
        ),
        "image-pull" => (
            json!({ "waiting": {
                "reason": "ImagePullBackOff",
                "message": format!("Back-off pulling image {image}"),
            } }),
            0,
            json!({}),
        ),
        _ => (json!({ "running": { "startedAt": ago(seconds) } }), 0, json!({})),
    };
    let up = behaviour.is_empty();
    json!({
        "name": container["name"],
        "image": image,
        "imageID": if behaviour == "image-pull" { "" } else { "demo.example/image@sha256:0" },
        "containerID": id,
        "ready": up,
        "started": up,
        "restartCount": restarts,
        "state": state,
        "lastState": last,
    })
}

/// Whether the Ready condition of a pod holds.
pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// A workload of a template: deployments, replica sets, daemon sets and stateful sets alike.
pub(super) fn workload(namespace: &str, name: &str, replicas: u32, template: &Value) -> Value {
    json!({
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { "app": name },
            "creationTimestamp": ago(86_400),
        },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": template,
        },
    })
}

/// What an event tells.
pub(super) struct News<'a> {
    pub kind: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
    pub warning: bool,
    pub count: u64,
}

/// An event about an object.
pub(super) fn event(about: &Value, api_version: &str, news: &News<'_>) -> Value {
    let metadata = &about["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let namespace = metadata["namespace"].as_str().unwrap_or("default");
    let component = if news.kind == "Pod" { "kubelet" } else { "controller-manager" };
    json!({
        "metadata": {
            "name": format!("{name}.{:016x}", random()),
            "namespace": namespace,
        },
        "involvedObject": {
            "apiVersion": api_version,
            "kind": news.kind,
            "namespace": metadata["namespace"],
            "name": name,
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": news.reason,
        "message": news.message,
        "type": if news.warning { "Warning" } else { "Normal" },
        "count": news.count,
        "firstTimestamp": ago(60 * i64::try_from(news.count).unwrap_or(1)),
        "lastTimestamp": ago(0),
        "eventTime": null,
        "source": { "component": component },
        "reportingComponent": component,
        "reportingInstance": "",
    })
}

/// A ready node of 8 cores and 32 GiB.
pub(super) fn node(name: &str, version: &str) -> Value {
    let of = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "",
            "lastHeartbeatTime": ago(0),
            "lastTransitionTime": ago(864_000),
        })
    };
    let space = json!({
        "cpu": "8",
        "memory": "32Gi",
        "pods": "250",
        "ephemeral-storage": "100Gi",
    });
    json!({
        "metadata": {
            "name": name,
            "creationTimestamp": ago(864_000),
            "labels": { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" },
        },
        "spec": { "podCIDR": "10.244.0.0/24" },
        "status": {
            "capacity": space,
            "allocatable": space,
            "addresses": [
                { "type": "InternalIP", "address": "10.0.0.1" },
                { "type": "Hostname", "address": name },
            ],
            "conditions": [
                of("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                of("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                of("PIDPressure", "False", "KubeletHasSufficientPID"),
                of("Ready", "True", "KubeletReady"),
            ],
            "nodeInfo": {
                "kubeletVersion": version,
                "kubeProxyVersion": "",
                "osImage": "Demo Linux",
                "operatingSystem": "linux",
                "architecture": "amd64",
                "kernelVersion": "6.12.0",
                "containerRuntimeVersion": "containerd://2.1.0",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
        },
    })
}

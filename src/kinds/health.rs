//! Whether an object does what it was made for, from the object alone: the rules of kstatus
//! (`sigs.k8s.io/cli-utils`), which Helm 4 waits by, but a pod that has failed or cannot start is
//! failing, and a job is at work until it has ended.
//!
//! Nothing else is looked at: no events, no pods behind a workload, no clock.

use serde_json::Value;

use self::Health::Ready;
use super::conditions::find;
use super::detail::{list, number, text};

/// Longest message that is told; conditions may hold tens of KiB.
const MESSAGE: usize = 512;
/// Reasons of a waiting container that do not end by waiting (kubelet `images`, `container`).
const STUCK: [&str; 8] = [
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// On its way, and what is missing.
    Progressing(String),
    /// It will not become ready by waiting, and why.
    Failing(String),
}

/// How a live object is.
pub fn health(object: &Value) -> Health {
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        return progressing("it is being deleted");
    }
    if let Some(early) = unobserved(object).or_else(|| standard(object)) {
        return early;
    }
    let (group, _) = text(object, "/apiVersion").split_once('/').unwrap_or_default();
    match (group, text(object, "/kind")) {
        ("", "Pod") => pod(object),
        ("", "Service") => service(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => replica_set(object),
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("batch", "Job") => job(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        _ => by_condition(object, "Ready"),
    }
}

fn progressing(message: &str) -> Health {
    Health::Progressing(message.chars().take(MESSAGE).collect())
}

fn failing(message: &str) -> Health {
    Health::Failing(message.chars().take(MESSAGE).collect())
}

/// A number that Kubernetes leaves out where it is `otherwise`.
fn number_or(object: &Value, pointer: &str, otherwise: i64) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(otherwise)
}

fn conditions(object: &Value) -> &[Value] {
    list(object, "/status/conditions")
}

/// The condition of this type, if it has this status.
fn with_status<'a>(object: &'a Value, of: &str, status: &str) -> Option<&'a Value> {
    find(conditions(object), of).filter(|condition| text(condition, "/status") == status)
}

/// What a condition says, in its own words.
fn words(condition: &Value) -> &str {
    match text(condition, "/message") {
        "" => text(condition, "/reason"),
        message => message,
    }
}

/// `wanted` of something and fewer there.
fn short(what: &str, there: i64, wanted: i64) -> Option<Health> {
    (there < wanted).then(|| progressing(&format!("{there} of {wanted} {what}")))
}

/// The controller has not seen the newest specification.
fn unobserved(object: &Value) -> Option<Health> {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64)?;
    let observed = object.pointer("/status/observedGeneration").and_then(Value::as_i64)?;
    (generation != observed).then(|| progressing("its controller has not seen the change yet"))
}

/// The conditions that any kind may have (`Reconciling`, `Stalled`).
fn standard(object: &Value) -> Option<Health> {
    let reconciling = with_status(object, "Reconciling", "True");
    let stalled = || with_status(object, "Stalled", "True").map(|said| failing(words(said)));
    reconciling.map(|said| progressing(words(said))).or_else(stalled)
}

/// Without the condition nothing is known to be wrong.
fn by_condition(object: &Value, of: &str) -> Health {
    match find(conditions(object), of) {
        Some(said) if matches!(text(said, "/status"), "False" | "Unknown") => {
            progressing(words(said))
        }
        _ => Ready,
    }
}

fn pod(object: &Value) -> Health {
    match text(object, "/status/phase") {
        "Succeeded" => return Ready,
        "Failed" => {
            let said = |key: &str| text(object, key);
            let why = format!("{} {}", said("/status/reason"), said("/status/message"));
            return failing(format!("the pod has failed. {}", why.trim()).trim_end());
        }
        _ => {}
    }
    if with_status(object, "Ready", "True").is_some() {
        return Ready;
    }
    if let Some(stuck) = stuck_container(object) {
        return failing(&stuck);
    }
    match with_status(object, "PodScheduled", "False") {
        Some(said) if text(said, "/reason") == "Unschedulable" => failing(words(said)),
        _ => match find(conditions(object), "Ready").map(words).unwrap_or_default() {
            "" => progressing("the pod is not ready"),
            said => progressing(said),
        },
    }
}

/// A container that waits for what does not come.
fn stuck_container(pod: &Value) -> Option<String> {
    let init = list(pod, "/status/initContainerStatuses").iter();
    init.chain(list(pod, "/status/containerStatuses")).find_map(|container| {
        let reason = text(container, "/state/waiting/reason");
        let said = match text(container, "/state/waiting/message") {
            "" => String::new(),
            message => format!(": {message}"),
        };
        let name = text(container, "/name");
        STUCK.contains(&reason).then(|| format!("container {name}: {reason}{said}"))
    })
}

/// A load balancer is waited for until it has an address, as Helm's own wait does.
fn service(object: &Value) -> Health {
    let balanced = text(object, "/spec/type") == "LoadBalancer";
    let addressed = !list(object, "/spec/externalIPs").is_empty()
        || !list(object, "/status/loadBalancer/ingress").is_empty();
    if balanced && !addressed { progressing("the load balancer has no address yet") } else { Ready }
}

fn claim(object: &Value) -> Health {
    match text(object, "/status/phase") {
        "Bound" => Ready,
        "Lost" => failing("the claim has lost its volume"),
        _ => progressing("the claim is not bound to a volume"),
    }
}

fn replica_set(object: &Value) -> Health {
    if let Some(said) = with_status(object, "ReplicaFailure", "True") {
        return failing(words(said));
    }
    let wanted = number_or(object, "/spec/replicas", 1);
    let there = |key: &str| number(object, key);
    short("replicas have their labels", there("/status/fullyLabeledReplicas"), wanted)
        .or_else(|| short("replicas are available", there("/status/availableReplicas"), wanted))
        .or_else(|| short("replicas are ready", there("/status/readyReplicas"), wanted))
        .or_else(|| surplus(there("/status/replicas"), wanted))
        .unwrap_or(Ready)
}

/// Pods that are still to go.
fn surplus(there: i64, wanted: i64) -> Option<Health> {
    (there > wanted).then(|| progressing(&format!("{} pods are still to go", there - wanted)))
}

fn deployment(object: &Value) -> Health {
    let progress = find(conditions(object), "Progressing");
    if let Some(said) = progress
        && text(said, "/reason") == "ProgressDeadlineExceeded"
    {
        return failing(words(said));
    }
    if let Some(said) = with_status(object, "ReplicaFailure", "True") {
        return failing(words(said));
    }
    let wanted = number_or(object, "/spec/replicas", 1);
    let there = |key: &str| number(object, key);
    let (all, updated) = (there("/status/replicas"), there("/status/updatedReplicas"));
    let counted = short("replicas exist", all, wanted)
        .or_else(|| short("replicas are updated", updated, wanted))
        .or_else(|| surplus(all, wanted))
        .or_else(|| short("replicas are available", there("/status/availableReplicas"), updated))
        .or_else(|| short("replicas are ready", there("/status/readyReplicas"), wanted));
    if let Some(early) = counted {
        return early;
    }
    // Without a deadline, which is the largest number, the controller keeps no such condition.
    let deadline = object.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_i64);
    let has_deadline = deadline.is_some_and(|seconds| seconds != i64::from(i32::MAX));
    let rolled_out = progress.is_some_and(|said| {
        text(said, "/status") == "True" && text(said, "/reason") == "NewReplicaSetAvailable"
    });
    if has_deadline && !rolled_out {
        return progressing("the new replica set is not available yet");
    }
    match with_status(object, "Available", "True") {
        Some(_) => Ready,
        None => progressing("the deployment is not available yet"),
    }
}

fn stateful_set(object: &Value) -> Health {
    // Its pods are replaced by hand.
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return Ready;
    }
    let wanted = number_or(object, "/spec/replicas", 1);
    let there = |key: &str| number(object, key);
    let all = there("/status/replicas");
    let counted = short("replicas exist", all, wanted)
        .or_else(|| short("replicas are ready", there("/status/readyReplicas"), wanted))
        .or_else(|| surplus(all, wanted));
    if let Some(early) = counted {
        return early;
    }
    let updated = there("/status/updatedReplicas");
    let partition = number_or(object, "/spec/updateStrategy/rollingUpdate/partition", 0);
    // Kubernetes fills in a partition of 0, which holds nobody back.
    if partition > 0 {
        return short("replicas are updated", updated, wanted - partition).unwrap_or(Ready);
    }
    let same = text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
    if same { Ready } else { progressing("not all replicas are of the new revision yet") }
}

fn daemon_set(object: &Value) -> Health {
    let wanted = object.pointer("/status/desiredNumberScheduled").and_then(Value::as_i64);
    let (Some(wanted), Some(_)) = (wanted, object.pointer("/status/observedGeneration")) else {
        return progressing("its controller has not seen it yet");
    };
    let there = |key: &str| number(object, key);
    let by_hand = text(object, "/spec/updateStrategy/type") == "OnDelete";
    let updated = if by_hand { wanted } else { there("/status/updatedNumberScheduled") };
    short("pods exist", there("/status/currentNumberScheduled"), wanted)
        .or_else(|| short("pods are updated", updated, wanted))
        .or_else(|| short("pods are available", there("/status/numberAvailable"), wanted))
        .or_else(|| short("pods are ready", there("/status/numberReady"), wanted))
        .unwrap_or(Ready)
}

fn job(object: &Value) -> Health {
    if with_status(object, "Complete", "True").is_some() {
        return Ready;
    }
    if let Some(said) = with_status(object, "Failed", "True") {
        return failing(words(said));
    }
    if with_status(object, "Suspended", "True").is_some() {
        return progressing("the job is suspended");
    }
    let parallel = number_or(object, "/spec/parallelism", 1);
    let wanted = number_or(object, "/spec/completions", parallel);
    let (done, failed) = (number(object, "/status/succeeded"), number(object, "/status/failed"));
    progressing(&format!("{done} of {wanted} completions, {failed} pods have failed"))
}

fn definition(object: &Value) -> Health {
    if let Some(said) = with_status(object, "NamesAccepted", "False") {
        return failing(words(said));
    }
    match find(conditions(object), "Established") {
        Some(said) if text(said, "/status") == "True" => Ready,
        Some(said) if text(said, "/status") == "False" && text(said, "/reason") != "Installing" => {
            failing(words(said))
        }
        _ => progressing("the API server is still installing the kind"),
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;

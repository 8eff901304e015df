//! How objects are, by the rules of each kind.

use serde_json::json;

use super::*;

fn object(api_version: &str, kind: &str, spec: Value, status: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "generation": 2},
        "spec": spec, "status": status})
}

fn is_progressing(object: &Value) -> bool {
    matches!(health(object), Health::Progressing(_))
}

fn is_failing(object: &Value) -> bool {
    matches!(health(object), Health::Failing(_))
}

#[test]
fn what_its_controller_has_not_seen_or_is_being_deleted_is_not_ready() {
    let mut config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    assert_eq!(health(&config), Ready);
    config["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z".into();
    assert!(is_progressing(&config));
    let seen =
        |at: i64| object("example.com/v1", "X", json!({}), json!({"observedGeneration": at}));
    assert!(is_progressing(&seen(1)));
    assert_eq!(health(&seen(2)), Ready);
}

#[test]
fn any_kind_may_say_that_it_is_ready_stalled_or_at_work() {
    let with = |of: &str, status: &str| {
        let said = json!([{"type": of, "status": status, "reason": "R", "message": "why"}]);
        health(&object("example.com/v1", "Widget", json!({}), json!({"conditions": said})))
    };
    assert_eq!(with("Ready", "True"), Ready);
    assert_eq!(with("Ready", "False"), Health::Progressing("why".into()));
    assert_eq!(with("Stalled", "True"), Health::Failing("why".into()));
    assert_eq!(with("Reconciling", "True"), Health::Progressing("why".into()));
    assert_eq!(with("Other", "False"), Ready);
}

#[test]
fn a_deployment_is_ready_when_its_new_replicas_are_available() {
    let conditions = json!([
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        {"type": "Available", "status": "True"}]);
    let status = |all: i64, updated: i64, available: i64, conditions: &Value| {
        let status = json!({"observedGeneration": 2, "replicas": all, "updatedReplicas": updated,
            "availableReplicas": available, "readyReplicas": available, "conditions": conditions});
        let spec = json!({"replicas": 2, "progressDeadlineSeconds": 600});
        object("apps/v1", "Deployment", spec, status)
    };
    assert_eq!(health(&status(2, 2, 2, &conditions)), Ready);
    let few = health(&status(2, 2, 1, &conditions));
    assert_eq!(few, Health::Progressing("1 of 2 replicas are available".into()));
    assert!(is_progressing(&status(3, 2, 2, &conditions)));
    assert!(is_progressing(&status(2, 1, 2, &conditions)));
    assert!(is_progressing(&status(2, 2, 2, &json!([]))));
    let late = json!([{"type": "Progressing", "status": "False",
        "reason": "ProgressDeadlineExceeded", "message": "too late"}]);
    assert_eq!(health(&status(2, 2, 1, &late)), Health::Failing("too late".into()));
    let quota = json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]);
    assert_eq!(health(&status(0, 0, 0, &quota)), Health::Failing("exceeded quota".into()));
}

#[test]
fn a_stateful_set_waits_for_its_revision_unless_a_partition_holds_replicas_back() {
    let set = |spec: Value, update: &str, updated: i64| {
        let status = json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3,
            "updatedReplicas": updated, "currentRevision": "a", "updateRevision": update});
        object("apps/v1", "StatefulSet", spec, status)
    };
    let partition =
        |at: i64| json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": at}}});
    assert_eq!(health(&set(partition(0), "a", 3)), Ready);
    assert!(is_progressing(&set(partition(0), "b", 2)));
    assert_eq!(health(&set(partition(2), "b", 1)), Ready);
    assert!(is_progressing(&set(partition(2), "b", 0)));
    assert!(is_progressing(&set(json!({"replicas": 4}), "a", 3)));
    assert_eq!(health(&set(json!({"updateStrategy": {"type": "OnDelete"}}), "b", 0)), Ready);
}

#[test]
fn a_daemon_set_needs_its_controller_and_all_of_its_pods() {
    let set = |status: Value| object("apps/v1", "DaemonSet", json!({}), status);
    assert!(is_progressing(&set(json!({}))));
    let full = json!({"observedGeneration": 2, "desiredNumberScheduled": 2,
        "currentNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2,
        "numberReady": 2});
    assert_eq!(health(&set(full.clone())), Ready);
    let mut few = full;
    few["numberAvailable"] = 1.into();
    assert!(is_progressing(&set(few)));
}

#[test]
fn a_job_is_ready_when_it_is_complete_and_fails_with_its_own_words() {
    let said = |of: &str| json!({"conditions": [{"type": of, "status": "True", "message": "why"}]});
    let job = |status: Value| object("batch/v1", "Job", json!({"completions": 2}), status);
    assert_eq!(health(&job(said("Complete"))), Ready);
    assert_eq!(health(&job(said("Failed"))), Health::Failing("why".into()));
    assert!(is_progressing(&job(said("Suspended"))));
    let half = health(&job(json!({"succeeded": 1, "active": 1})));
    assert_eq!(half, Health::Progressing("1 of 2 completions, 0 pods have failed".into()));
}

#[test]
fn a_pod_fails_when_waiting_does_not_help() {
    let pod = |status: Value| object("v1", "Pod", json!({}), status);
    let ready = json!([{"type": "Ready", "status": "True"}]);
    assert_eq!(health(&pod(json!({"phase": "Running", "conditions": ready}))), Ready);
    assert_eq!(health(&pod(json!({"phase": "Succeeded"}))), Ready);
    assert!(is_failing(&pod(json!({"phase": "Failed", "reason": "Evicted"}))));
    assert!(is_progressing(&pod(json!({"phase": "Pending"}))));
    let waits = |reason: &str| {
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "web", "state": {"waiting": {"reason": reason, "message": "no such image"}}}]})
    };
    let image = Health::Failing("container web: ErrImagePull: no such image".into());
    assert_eq!(health(&pod(waits("ErrImagePull"))), image);
    assert!(is_progressing(&pod(waits("ContainerCreating"))));
    let nowhere = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available"}]);
    let nowhere = health(&pod(json!({"phase": "Pending", "conditions": nowhere})));
    assert_eq!(nowhere, Health::Failing("0/3 nodes are available".into()));
}

#[test]
fn services_claims_and_definitions_have_rules_of_their_own() {
    let service =
        |kind: &str, status: Value| object("v1", "Service", json!({"type": kind}), status);
    assert_eq!(health(&service("ClusterIP", json!({}))), Ready);
    assert!(is_progressing(&service("LoadBalancer", json!({}))));
    let balanced = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    assert_eq!(health(&service("LoadBalancer", balanced)), Ready);
    let claim =
        |phase: &str| object("v1", "PersistentVolumeClaim", json!({}), json!({"phase": phase}));
    assert_eq!(health(&claim("Bound")), Ready);
    assert!(is_progressing(&claim("Pending")));
    assert!(is_failing(&claim("Lost")));
    let crd = |conditions: Value| {
        let of = "apiextensions.k8s.io/v1";
        object(of, "CustomResourceDefinition", json!({}), json!({"conditions": conditions}))
    };
    assert_eq!(health(&crd(json!([{"type": "Established", "status": "True"}]))), Ready);
    assert!(is_failing(&crd(json!([{"type": "NamesAccepted", "status": "False"}]))));
    assert!(is_progressing(&crd(json!([]))));
}

#[test]
fn a_long_message_is_cut_and_odd_objects_are_no_harm() {
    let said = json!([{"type": "Stalled", "status": "True", "message": "x".repeat(100_000)}]);
    let long = health(&object("example.com/v1", "X", json!({}), json!({"conditions": said})));
    assert_eq!(long, Health::Failing("x".repeat(MESSAGE)));
    for odd in [json!(null), json!([]), json!({"status": "x", "kind": 7}), json!({"status": []})] {
        assert_eq!(health(&odd), Ready);
    }
}

//! Every branch of the printable status, and what lists and warnings ask of a pod.

use serde_json::{Value, json};

use super::*;

fn shown(pod: &Value) -> String {
    let text = pod.to_string();
    let pod: Pod = serde_json::from_str(&text).unwrap();
    printable(&pod).into_owned()
}

fn waiting(reason: &str) -> Value {
    json!({"name": "c", "state": {"waiting": {"reason": reason}}})
}

fn terminated(code: i64, signal: i64, reason: &str) -> Value {
    json!({"name": "c", "state": {"terminated": {"exitCode": code, "signal": signal, "reason": reason}}})
}

fn running(ready: bool) -> Value {
    json!({"name": "c", "ready": ready, "state": {"running": {}}})
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status})
}

/// A running pod with these container statuses.
fn with(containers: &[Value], conditions: &[Value]) -> Value {
    json!({"status": {"phase": "Running", "containerStatuses": containers, "conditions": conditions}})
}

/// A pending pod whose init containers (`i0` …, three of them, `i1` a sidecar) say this.
fn initializing(statuses: &[Value]) -> Value {
    let mut statuses = statuses.to_vec();
    for (index, status) in statuses.iter_mut().enumerate() {
        status["name"] = format!("i{index}").into();
    }
    json!({
        "spec": {"initContainers": [
            {"name": "i0"}, {"name": "i1", "restartPolicy": "Always"}, {"name": "i2"}]},
        "status": {"phase": "Pending", "initContainerStatuses": statuses,
            "containerStatuses": [waiting("PodInitializing")]},
    })
}

#[test]
fn without_containers_the_phase_or_the_reason_stands() {
    for (status, expected) in [
        (json!({"phase": "Pending"}), "Pending"),
        (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (
            json!({"phase": "Pending", "reason": "Odd", "conditions":
                [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "SchedulingGated",
        ),
        (
            json!({"phase": "Pending", "conditions":
                [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}),
            "Pending",
        ),
        (json!({}), ""),
    ] {
        assert_eq!(shown(&json!({"status": status})), expected);
    }
}

#[test]
fn the_first_init_container_that_is_not_done_decides() {
    let done = terminated(0, 0, "Completed");
    let mut sidecar = running(true);
    sidecar["started"] = true.into();
    let mut starting = running(false);
    starting["started"] = false.into();
    for (statuses, expected) in [
        (vec![terminated(1, 0, "Error"), waiting("PodInitializing")], "Init:Error"),
        (vec![terminated(137, 9, "")], "Init: Signal 9"),
        (vec![terminated(3, 0, "")], "Init: ExitCode 3"),
        (vec![waiting("ImagePullBackOff")], "Init: ImagePullBackOff"),
        (vec![waiting("PodInitializing")], "Init: 0/3"),
        (vec![waiting("")], "Init: 0/3"),
        (vec![running(false)], "Init: 0/3"),
        (vec![done.clone(), starting], "Init: 1/3"),
        (vec![done.clone(), sidecar.clone(), running(false)], "Init: 2/3"),
        (vec![done.clone(), sidecar, done], "PodInitializing"),
    ] {
        assert_eq!(shown(&initializing(&statuses)), expected);
    }
}

#[test]
fn an_initialized_pod_shows_its_containers_though_an_init_container_runs_again() {
    let mut pod = initializing(&[running(false)]);
    pod["status"]["conditions"] = json!([condition("Initialized", "True")]);
    assert_eq!(shown(&pod), "PodInitializing");
    pod["status"]["containerStatuses"] = json!([running(true)]);
    assert_eq!(shown(&pod), "Init: 0/3");
}

#[test]
fn the_first_container_has_the_last_word() {
    for (containers, expected) in [
        (vec![running(true)], "Running"),
        (vec![waiting("CrashLoopBackOff"), terminated(1, 0, "Error")], "CrashLoopBackOff"),
        (vec![terminated(1, 0, "Error"), waiting("CrashLoopBackOff")], "Error"),
        (vec![terminated(137, 9, "OOMKilled"), running(true)], "OOMKilled"),
        (vec![terminated(143, 15, "")], "Signal: 15"),
        (vec![terminated(2, 0, "")], "ExitCode: 2"),
        (vec![waiting("")], "Running"),
        // kubectl: Error.
        (vec![terminated(0, 0, "Completed"), terminated(1, 0, "Error")], "Completed"),
    ] {
        assert_eq!(shown(&with(&containers, &[])), expected);
    }
}

#[test]
fn a_completed_container_beside_a_running_one_is_running_or_not_ready() {
    let containers = [terminated(0, 0, "Completed"), running(true)];
    assert_eq!(shown(&with(&containers, &[condition("Ready", "True")])), "Running");
    assert_eq!(shown(&with(&containers, &[condition("Ready", "False")])), "NotReady");
    let unready = [terminated(0, 0, "Completed"), running(false)];
    assert_eq!(shown(&with(&unready, &[condition("Ready", "True")])), "Completed");
}

#[test]
fn a_deleted_pod_is_terminating_or_unknown_unless_it_has_ended() {
    let deleted = |status: Value| json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}, "status": status});
    for (status, expected) in [
        (json!({"phase": "Running"}), "Terminating"),
        (json!({"phase": "Pending", "reason": "Odd"}), "Terminating"),
        (json!({"phase": "Running", "reason": "NodeLost"}), "Unknown"),
        (json!({"phase": "Succeeded"}), "Succeeded"),
        (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
    ] {
        assert_eq!(shown(&deleted(status)), expected);
    }
    assert_eq!(shown(&json!({"status": {"phase": "Running", "reason": "NodeLost"}})), "NodeLost");
}

#[test]
fn a_pod_is_up_only_when_running_initialized_and_ready() {
    for (phase, initialized, ready, up, quiet) in [
        ("Running", "True", "True", true, true),
        ("Running", "False", "True", false, true),
        ("Running", "True", "False", false, false),
        ("Running", "True", "Unknown", false, true),
        ("Pending", "True", "True", false, false),
        ("Succeeded", "True", "False", false, true),
        ("Failed", "True", "True", false, false),
        ("Odd", "True", "True", false, false),
    ] {
        let conditions = [condition("Initialized", initialized), condition("Ready", ready)];
        let text = json!({"phase": phase, "conditions": conditions}).to_string();
        let status: Status = serde_json::from_str(&text).unwrap();
        assert_eq!((status.up(), status.ready_or_succeeded()), (up, quiet), "{text}");
    }
    let bare: Status = serde_json::from_str(r#"{"phase":"Running"}"#).unwrap();
    assert!(!bare.up());
    assert!(bare.ready_or_succeeded());
}

#[test]
fn a_container_state_is_one_of_five_words() {
    for (status, expected) in [
        (waiting("ContainerCreating"), "Waiting"),
        (running(true), "Running"),
        (terminated(0, 0, "Completed"), "Terminated"),
        (terminated(1, 0, "Error"), "Failed"),
        (json!({"name": "c", "state": {}}), "Unknown"),
        (json!({"name": "c"}), "Unknown"),
    ] {
        let text = status.to_string();
        let status: ContainerStatus = serde_json::from_str(&text).unwrap();
        assert_eq!(status.state.shown(), expected);
    }
}

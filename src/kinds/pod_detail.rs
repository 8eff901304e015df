//! The detail of a pod. It is not flat over the list item: other keys, and containers in full.
//!
//! Owner, events, claims and usage are gathered above; `metrics` is null until they are.

use serde_json::{Map, Value, json};

use super::detail::{conditions, copy, list, text};
use super::meta::{TypeMeta, decode, encode};
use super::pod::{NAME, Pod};
use super::{Malformed, References, pod_containers, pod_status};

pub fn detail(json: &str, references: &References) -> Result<Map<String, Value>, Malformed> {
    let pod: Pod = decode(NAME, json)?;
    let object: Value = decode(NAME, json)?;
    let containers = |pointer| -> Value {
        let containers = list(&object, pointer).iter();
        containers.map(|one| pod_containers::container(&object, one, references)).collect()
    };
    let fields = json!({
        "objectMeta": encode(NAME, pod.metadata.full_object_meta())?,
        "typeMeta": encode(NAME, TypeMeta::plain(NAME))?,
        "podPhase": &*pod_status::printable(&pod),
        "podIP": text(&object, "/status/podIP"),
        "nodeName": &*pod.spec.node_name,
        "serviceAccountName": &*pod.spec.service_account_name,
        "restartCount": pod.status.restarts(),
        "qosClass": text(&object, "/status/qosClass"),
        "containers": containers("/spec/containers"),
        "initContainers": containers("/spec/initContainers"),
        "metrics": null,
        "conditions": conditions(&object, "lastProbeTime"),
        "securityContext": copy(&object, "/spec/securityContext"),
    });
    let Value::Object(mut fields) = fields else {
        return Err(Malformed { kind: NAME, reason: "no object".into() });
    };
    if !list(&object, "/spec/imagePullSecrets").is_empty() {
        fields.insert("imagePullSecrets".into(), copy(&object, "/spec/imagePullSecrets"));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_shows_the_printable_status_and_what_surrounds_the_containers() {
        let json = r#"{
            "metadata": {"name": "a", "namespace": "atlas", "uid": "p1",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"nodeName": "node-0", "serviceAccountName": "tiles", "securityContext": {"runAsUser": 1},
                "imagePullSecrets": [{"name": "pull"}], "containers": [{"name": "main", "image": "tiles:1"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "qosClass": "Burstable",
                "conditions": [{"type": "Ready", "status": "False", "lastProbeTime": null,
                    "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "ContainersNotReady"}],
                "containerStatuses": [{"name": "main", "ready": false, "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}"#;
        let mut fields = detail(json, &References::new()).unwrap();
        let containers = fields.remove("containers").unwrap();
        assert_eq!(containers[0]["state"], "Waiting");
        assert_eq!(
            Value::Object(fields),
            json!({
                "objectMeta": {"name": "a", "namespace": "atlas", "uid": "p1", "creationTimestamp": null,
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                "typeMeta": {"kind": "pod"},
                "podPhase": "CrashLoopBackOff",
                "podIP": "10.0.0.1",
                "nodeName": "node-0",
                "serviceAccountName": "tiles",
                "restartCount": 4,
                "qosClass": "Burstable",
                "initContainers": [],
                "metrics": null,
                "conditions": [{"type": "Ready", "status": "False", "lastProbeTime": null,
                    "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "ContainersNotReady", "message": ""}],
                "imagePullSecrets": [{"name": "pull"}],
                "securityContext": {"runAsUser": 1},
            })
        );
    }

    #[test]
    fn a_bare_pod_has_empty_lists_and_nulls_where_the_contract_wants_them() {
        let fields = detail(r#"{"metadata":{"name":"a"}}"#, &References::new()).unwrap();
        assert_eq!(fields["containers"], json!([]));
        assert_eq!(fields["conditions"], Value::Null);
        assert_eq!(fields["securityContext"], Value::Null);
        assert_eq!(fields["podIP"], "");
        assert!(!fields.contains_key("imagePullSecrets"));
    }
}

//! The detail of a pod. It is not flat over the list item: other keys, and containers in full.
//!
//! Owner, events, claims and usage are gathered above; `metrics` is null until they are.

use serde::Serialize;
use serde_json::Value;

use super::detail::{Condition, at, conditions, list, number, text};
use super::meta::{TypeMeta, encode, full_meta};
use super::pod::NAME;
use super::pod_containers::{Container, container};
use super::{Cell, Fields, Malformed, References, Row};

/// The contract's `PodDetail`, its keys in alphabetical order as those of all details. It borrows
/// what it shows: a pod is looked at more often than anything else.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodDetail<'a> {
    conditions: Option<Vec<Condition<'a>>>,
    containers: Vec<Container<'a>>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    image_pull_secrets: &'a [Value],
    init_containers: Vec<Container<'a>>,
    pub metrics: Value,
    node_name: &'a str,
    object_meta: Value,
    #[serde(rename = "podIP")]
    pod_ip: &'a str,
    pod_phase: &'a str,
    qos_class: &'a str,
    restart_count: i64,
    security_context: Option<&'a Value>,
    service_account_name: &'a str,
    type_meta: TypeMeta,
}

impl<'a> PodDetail<'a> {
    pub fn of(
        object: &'a Value,
        row: &'a Row,
        references: &'a References,
    ) -> Result<Self, Malformed> {
        let containers = |pointer| -> Vec<Container<'a>> {
            let containers = list(object, pointer).iter();
            containers.map(|one| container(object, one, references)).collect()
        };
        let statuses = list(object, "/status/containerStatuses").iter();
        Ok(Self {
            conditions: conditions(object, "lastProbeTime"),
            containers: containers("/spec/containers"),
            image_pull_secrets: list(object, "/spec/imagePullSecrets"),
            init_containers: containers("/spec/initContainers"),
            metrics: Value::Null,
            node_name: text(object, "/spec/nodeName"),
            object_meta: full_meta(NAME, object)?,
            pod_ip: text(object, "/status/podIP"),
            // The printable status is the row's one column.
            pod_phase: match row.cells.first() {
                Some(Cell::Text(status)) => status.as_str(),
                _ => "",
            },
            qos_class: text(object, "/status/qosClass"),
            restart_count: statuses.map(|status| number(status, "/restartCount")).sum(),
            security_context: at(object, "/spec/securityContext"),
            service_account_name: text(object, "/spec/serviceAccountName"),
            type_meta: TypeMeta::plain(NAME),
        })
    }
}

pub fn detail(object: &Value, row: &Row, references: &References) -> Result<Fields, Malformed> {
    match encode(NAME, PodDetail::of(object, row, references)?)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Malformed { kind: NAME, reason: "no object".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{detail_of, pod::KIND};
    use super::*;
    use serde_json::json;

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
        let mut fields = detail_of(&KIND, json).unwrap();
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
    fn all_keys_are_written_in_alphabetical_order() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {"imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "main", "env": [{"name": "A", "value": "1"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}"#;
        let row = (KIND.row)(json).unwrap();
        let (object, references) = (serde_json::from_str(json).unwrap(), References::new());
        let written = PodDetail::of(&object, &row, &references).unwrap();
        let written = serde_json::to_string(&written).unwrap();
        assert_eq!(written, Value::Object(detail_of(&KIND, json).unwrap()).to_string());
    }

    #[test]
    fn a_bare_pod_has_empty_lists_and_nulls_where_the_contract_wants_them() {
        let fields = detail_of(&KIND, r#"{"metadata":{"name":"a"}}"#).unwrap();
        assert_eq!(fields["containers"], json!([]));
        assert_eq!(fields["conditions"], Value::Null);
        assert_eq!(fields["securityContext"], Value::Null);
        assert_eq!(fields["podIP"], "");
        assert!(!fields.contains_key("imagePullSecrets"));
    }
}

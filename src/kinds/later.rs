//! What no kind of the table shows: the endpoints behind a service, and whatever controls a pod,
//! of a kind that need not be in the table.
//!
//! Read live as the user, of single objects.

use serde::Deserialize;
use serde_json::{Value, json};

use super::detail::{copy, list, number, text};
use super::meta::{Meta, decode, encode};
use super::*;

/// `endpointList` of a service from its core/v1 `Endpoints`, which has its name.
pub fn endpoints(endpoints: Option<&Value>) -> Value {
    let mut all = Vec::new();
    for subset in endpoints.map_or(&[][..], |endpoints| list(endpoints, "/subsets")) {
        for (key, ready) in [("/addresses", true), ("/notReadyAddresses", false)] {
            all.extend(list(subset, key).iter().map(|address| {
                json!({
                    "objectMeta": { "creationTimestamp": null },
                    "typeMeta": { "kind": "endpoint" },
                    "host": text(address, "/ip"),
                    "nodeName": copy(address, "/nodeName"),
                    "ready": ready,
                    "ports": copy(subset, "/ports"),
                })
            }));
        }
    }
    // The number of Endpoints objects, as the contract has it.
    json!({ "listMeta": { "totalItems": usize::from(endpoints.is_some()) }, "endpoints": all })
}

/// Whatever controls a pod, as a row whose item is the contract's `ResourceOwner` without `pods`.
/// `shown` is the contract's name of its kind.
pub fn owner(json: &str, shown: &str) -> Result<Row, Malformed> {
    const KIND: &str = "controller";
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default)]
        metadata: Meta<'a>,
    }
    let head: Head = decode(KIND, json)?;
    let object: Value = decode(KIND, json)?;
    let mut type_meta = Fields::from_iter([("kind".to_owned(), shown.into())]);
    if matches!(shown, "deployment" | "replicaset" | "replicationcontroller" | "statefulset") {
        type_meta.insert("scalable".into(), true.into());
    }
    if matches!(shown, "deployment" | "daemonset" | "statefulset") {
        type_meta.insert("restartable".into(), true.into());
    }
    let images = |pointer: &str| {
        let containers = list(&object, pointer);
        if containers.is_empty() {
            return Value::Null;
        }
        containers.iter().map(|one| text(one, "/image")).collect()
    };
    let item = json!({
        "objectMeta": encode(KIND, head.metadata.object_meta())?,
        "typeMeta": type_meta,
        "containerImages": images("/spec/template/spec/containers"),
        "initContainerImages": images("/spec/template/spec/initContainers"),
    });
    let (current, desired) = match shown {
        "daemonset" => ("/status/currentNumberScheduled", "/status/desiredNumberScheduled"),
        "job" => ("/status/active", "/spec/completions"),
        _ => ("/status/replicas", "/spec/replicas"),
    };
    let facts = Facts::from(WorkloadFacts {
        current: number(&object, current),
        desired: object.pointer(desired).and_then(Value::as_i64),
    });
    head.metadata.row(KIND, &item, vec![], vec![], facts)
}

#[cfg(test)]
#[path = "later_tests.rs"]
mod tests;

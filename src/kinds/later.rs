//! Kinds that no cache holds yet: what details and child lists show of claims, autoscalers,
//! ingresses, quotas, limits, endpoints and of whatever controls a pod.
//!
//! They are read live as the user and are not in the kind table: no route lists them. A kind that
//! gets its own list moves to a file of its own.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::detail::{copy, list, number, text};
use super::meta::{Meta, decode, encode, flat};
use super::*;

pub static CLAIM: KindDef = KindDef {
    name: "persistentvolumeclaim",
    resource: Resource {
        group: "",
        version: "v1",
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        namespaced: true,
    },
    columns: &[],
    list: PLAIN,
    joins: &[],
    relations: &[],
    row: claim,
    detail: |json, _| flat(CLAIM.name, json, claim),
    references: no_references,
};

pub static INGRESS: KindDef = KindDef {
    name: "ingress",
    resource: Resource {
        group: "networking.k8s.io",
        version: "v1",
        kind: "Ingress",
        plural: "ingresses",
        namespaced: true,
    },
    columns: &[],
    list: PLAIN,
    joins: &[],
    relations: &[],
    row: ingress,
    detail: |json, _| flat(INGRESS.name, json, ingress),
    references: no_references,
};

pub static AUTOSCALER: KindDef = KindDef {
    name: "horizontalpodautoscaler",
    resource: Resource {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        namespaced: true,
    },
    columns: &[],
    list: ListShape { items: "horizontalpodautoscalers", status: false, metrics: false },
    joins: &[],
    relations: &[],
    row: autoscaler,
    detail: |json, _| flat(AUTOSCALER.name, json, autoscaler),
    references: no_references,
};

pub static QUOTA: KindDef = KindDef {
    name: "resourcequota",
    resource: Resource {
        group: "",
        version: "v1",
        kind: "ResourceQuota",
        plural: "resourcequotas",
        namespaced: true,
    },
    columns: &[],
    list: PLAIN,
    joins: &[],
    relations: &[],
    row: quota,
    detail: |json, _| flat(QUOTA.name, json, quota),
    references: no_references,
};

const PLAIN: ListShape = ListShape { items: "items", status: false, metrics: false };

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

/// A row whose item is metadata, type and `own` fields.
fn row_with(
    kind: &'static str,
    json: &str,
    links: fn(&Value) -> Vec<Link>,
    own: fn(&Value) -> Value,
) -> Result<Row, Malformed> {
    let head: Head = decode(kind, json)?;
    let object: Value = decode(kind, json)?;
    let mut item = Fields::new();
    item.insert("objectMeta".into(), encode(kind, head.metadata.object_meta())?);
    item.insert("typeMeta".into(), json!({ "kind": kind }));
    if let Value::Object(own) = own(&object) {
        item.extend(own);
    }
    head.metadata.row(kind, &item, vec![], links(&object), Facts::None)
}

fn claim(json: &str) -> Result<Row, Malformed> {
    row_with(
        CLAIM.name,
        json,
        |_| Vec::new(),
        |claim| {
            json!({
                "status": text(claim, "/status/phase"),
                "volume": text(claim, "/spec/volumeName"),
                "capacity": copy(claim, "/status/capacity"),
                "accessModes": copy(claim, "/spec/accessModes"),
                "storageClass": copy(claim, "/spec/storageClassName"),
            })
        },
    )
}

/// Names of the claims that a pod's volumes use, each once; those that Kubernetes makes for
/// ephemeral volumes are called `<pod>-<volume>`.
pub fn claim_names(pod: &Value) -> Vec<String> {
    let volumes = list(pod, "/spec/volumes").iter();
    let names = volumes.filter_map(|volume| {
        let named = text(volume, "/persistentVolumeClaim/claimName");
        if !named.is_empty() {
            return Some(named.to_owned());
        }
        volume.get("ephemeral")?;
        let (pod, volume) = (text(pod, "/metadata/name"), text(volume, "/name"));
        Some(format!("{pod}-{volume}"))
    });
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect()
}

fn ingress(json: &str) -> Result<Row, Malformed> {
    row_with(INGRESS.name, json, backends, |ingress| {
        let balancers = list(ingress, "/status/loadBalancer/ingress").iter();
        let endpoints = balancers.map(|at| match text(at, "/hostname") {
            "" => json!({ "host": text(at, "/ip"), "ports": null }),
            host => json!({ "host": host, "ports": null }),
        });
        let mut hosts: Vec<&str> = Vec::new();
        for rule in list(ingress, "/spec/rules") {
            let host = text(rule, "/host");
            if !host.is_empty() && !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        json!({ "endpoints": endpoints.collect::<Vec<_>>(), "hosts": hosts })
    })
}

/// The services that an ingress sends to, by rules or by default.
fn backends(ingress: &Value) -> Vec<Link> {
    let rules = list(ingress, "/spec/rules").iter();
    let paths = rules.flat_map(|rule| list(rule, "/http/paths"));
    let named = paths.map(|path| text(path, "/backend/service/name"));
    let default = text(ingress, "/spec/defaultBackend/service/name");
    let names: BTreeSet<&str> = named.chain([default]).collect();
    let names = names.into_iter().filter(|name| !name.is_empty());
    names.map(|name| Link::Backend(name.into())).collect()
}

fn autoscaler(json: &str) -> Result<Row, Malformed> {
    let target = |autoscaler: &Value| {
        let kind = text(autoscaler, "/spec/scaleTargetRef/kind").to_ascii_lowercase();
        let name = text(autoscaler, "/spec/scaleTargetRef/name");
        vec![Link::Target(kind.into(), name.into())]
    };
    row_with(AUTOSCALER.name, json, target, |autoscaler| {
        json!({
            "scaleTargetRef": {
                "kind": text(autoscaler, "/spec/scaleTargetRef/kind"),
                "name": text(autoscaler, "/spec/scaleTargetRef/name"),
            },
            "minReplicas": copy(autoscaler, "/spec/minReplicas"),
            "maxReplicas": number(autoscaler, "/spec/maxReplicas"),
            "currentCPUUtilizationPercentage":
                cpu(autoscaler, "/status/currentMetrics", "/resource/current/averageUtilization"),
            "targetCPUUtilizationPercentage":
                cpu(autoscaler, "/spec/metrics", "/resource/target/averageUtilization"),
        })
    })
}

/// The contract shows autoscaling/v1, which knows CPU utilization alone.
fn cpu(autoscaler: &Value, metrics: &str, utilization: &str) -> Value {
    let mut metrics = list(autoscaler, metrics).iter();
    let cpu = metrics.find(|metric| {
        text(metric, "/type") == "Resource" && text(metric, "/resource/name") == "cpu"
    });
    cpu.map(|metric| copy(metric, utilization)).unwrap_or_default()
}

fn quota(json: &str) -> Result<Row, Malformed> {
    row_with(
        QUOTA.name,
        json,
        |_| Vec::new(),
        |quota| {
            let mut own = Fields::new();
            if !list(quota, "/spec/scopes").is_empty() {
                own.insert("scopes".into(), copy(quota, "/spec/scopes"));
            }
            let hard = quota.pointer("/status/hard").and_then(Value::as_object);
            let used = quota.pointer("/status/used");
            let status = hard.into_iter().flatten().map(|(resource, hard)| {
                let used = used.and_then(|used| used.get(resource)).cloned();
                let used = used.unwrap_or_else(|| "0".into());
                (resource.clone(), json!({ "used": used, "hard": hard }))
            });
            let status: Fields = status.collect();
            if !status.is_empty() {
                own.insert("statusList".into(), status.into());
            }
            Value::Object(own)
        },
    )
}

/// `resourceLimits` of a namespace from its `LimitRangeList`: one item for each limit's type and
/// resource; null when there are none.
pub fn limits(limit_ranges: &str) -> Result<Value, Malformed> {
    const KEYS: [&str; 5] = ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"];
    let ranges: Value = decode("limitrange", limit_ranges)?;
    let ranges = list(&ranges, "/items").iter();
    let mut items = Vec::new();
    for limit in ranges.flat_map(|range| list(range, "/spec/limits")) {
        let objects = KEYS.iter().filter_map(|key| limit.get(key)?.as_object());
        let resources: BTreeSet<&String> = objects.flat_map(Fields::keys).collect();
        for resource in resources {
            let mut item = Fields::new();
            item.insert("resourceName".into(), resource.as_str().into());
            item.insert("resourceType".into(), text(limit, "/type").into());
            for key in KEYS {
                if let Some(amount) = limit.get(key).and_then(|all| all.get(resource)) {
                    item.insert(key.into(), amount.clone());
                }
            }
            items.push(Value::Object(item));
        }
    }
    Ok(if items.is_empty() { Value::Null } else { items.into() })
}

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
    let facts = Facts::Workload(WorkloadFacts {
        current: number(&object, current),
        desired: object.pointer(desired).and_then(Value::as_i64),
    });
    head.metadata.row(KIND, &item, vec![], vec![], facts)
}

#[cfg(test)]
#[path = "later_tests.rs"]
mod tests;

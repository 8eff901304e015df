//! The kind table: for each Kubernetes kind, what its row shows (and therefore sorts and filters
//! by), what is joined to it and what its detail gathers. Routes, query validation, OpenAPI and
//! the RBAC manifest follow from it.
//!
//! Pure: JSON in, rows out. No IO, no clock, no knowledge of users or HTTP.

mod deployment;
mod detail;
mod event;
pub mod later;
mod meta;
mod namespace;
mod node;
mod pod;
mod pod_containers;
mod pod_detail;
mod pod_env;
mod pod_resources;
mod pod_status;
mod quantity;
mod rbac;
mod replicaset;
mod row;
mod service;
mod template;

pub use meta::Malformed;
pub use quantity::Quantity;
pub use rbac::rbac_manifest;
pub use row::*;

use serde_json::{Map, Value};

/// Where the API server serves a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
}

/// What of a list can be sorted and filtered by, besides name, namespace and creationTimestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub is_time: bool,
}

/// What a list page adds to each row from other kinds, under a scope of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// `warnings` of a pod: warning events that involve it, unless it is ready or succeeded.
    Warnings,
    /// `PodInfo` under this key, of the pods that the workload controls.
    PodInfo { key: &'static str, pods: PodsOf },
    /// `allocatedResources` of a node: the sums over its non-terminal pods.
    Allocation,
    /// `metrics` of a pod; null without a metrics source.
    Metrics,
}

/// How a workload's pods are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodsOf {
    /// Pods whose controller is the object.
    Owner,
    /// Pods controlled by a replica set that the object controls.
    ReplicaSets,
}

/// What a detail gathers besides the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `EventList` under `key`: events by the object's name, the first `first` of them.
    Events {
        key: &'static str,
        first: usize,
    },
    /// `controller`: the owner as a `ResourceOwner`.
    Controller,
    /// `persistentVolumeClaimList`: the claims that the pod's volumes name.
    Claims,
    /// `podList` and `eventList` of a node.
    NodePods,
    NodeEvents,
    /// `resourceQuotaList` and `resourceLimits` of a namespace.
    Quotas,
    Limits,
    /// `endpointList` of a service.
    Endpoints,
    /// `horizontalPodAutoscalerList` of a workload.
    Autoscalers,
}

/// How the contract's list of a kind is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListShape {
    /// Key of the rows: `pods`, `deployments`, `items`.
    pub items: &'static str,
    /// `status` counts over all listed rows.
    pub status: bool,
    /// `cumulativeMetrics`.
    pub metrics: bool,
}

/// A reference to a config map or secret whose content a detail shows (`env` of a container).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    ConfigMap(String),
    Secret(String),
}

/// Fields of a JSON object.
pub type Fields = Map<String, Value>;

/// The referenced objects that the caller could read, by reference.
pub type References = std::collections::BTreeMap<Reference, Value>;

/// One Kubernetes kind as the dashboard shows it.
pub struct KindDef {
    /// Path segment and `typeMeta.kind` of the contract: `pod`.
    pub name: &'static str,
    pub resource: Resource,
    /// Own columns; `Row::cells` holds them in this order.
    pub columns: &'static [Column],
    pub list: ListShape,
    pub joins: &'static [Join],
    pub relations: &'static [Relation],
    /// Projects an object's JSON to its row.
    pub row: fn(&str) -> Result<Row, Malformed>,
    /// The contract's detail, `objectMeta` and `typeMeta` included, without joins, relations and
    /// `errors`.
    pub detail: fn(&str, &References) -> Result<Fields, Malformed>,
    /// Config maps and secrets that `detail` wants to look into.
    pub references: fn(&str) -> Result<Vec<Reference>, Malformed>,
}

/// Every kind that rows are kept of. A new kind is one file and one line here.
pub static KINDS: &[KindDef] = &[
    deployment::KIND,
    event::KIND,
    namespace::KIND,
    node::KIND,
    pod::KIND,
    replicaset::KIND,
    service::KIND,
];

/// The kind with this contract name, e.g. `pod`.
pub fn by_name(name: &str) -> Option<&'static KindDef> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl KindDef {
    /// Position in [`KINDS`]: a small stable number for tables of verdicts and stores.
    pub fn index(&self) -> usize {
        KINDS.iter().position(|kind| kind.name == self.name).unwrap_or(usize::MAX)
    }

    /// The column's position in `Row::cells`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

impl Resource {
    /// `/api/v1` or `/apis/{group}/{version}`.
    pub fn group_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection; all namespaces when `namespace` is `None`.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{}/namespaces/{namespace}/{}", self.group_path(), self.plural)
            }
            _ => format!("{}/{}", self.group_path(), self.plural),
        }
    }
}

/// A kind without references.
fn no_references(_: &str) -> Result<Vec<Reference>, Malformed> {
    Ok(Vec::new())
}

//! The kind table: for each Kubernetes kind, what its row shows (and therefore sorts and filters
//! by), what is joined to it and what its detail gathers. Routes, query validation, OpenAPI and
//! the RBAC manifest follow from it.
//!
//! Pure: JSON in, rows out. No IO, no clock, no knowledge of users or HTTP.

mod apiservice;
pub mod chart;
mod clusterrole;
mod clusterrolebinding;
mod compact;
mod conditions;
mod configmap;
mod cronjob;
mod csidriver;
mod csinode;
mod csistoragecapacity;
pub mod custom;
mod customresourcedefinition;
mod daemonset;
mod deployment;
pub mod detail;
mod endpointslice;
mod event;
mod gateway;
pub mod gateway_api;
mod gatewayclass;
mod grpcroute;
pub mod health;
mod horizontalpodautoscaler;
mod httproute;
mod ingress;
mod ingressclass;
mod job;
pub mod later;
mod lease;
mod limitrange;
mod loose;
mod meta;
mod mutatingwebhookconfiguration;
mod namespace;
mod networkpolicy;
mod node;
mod persistentvolume;
mod persistentvolumeclaim;
mod pod;
mod pod_containers;
mod pod_detail;
mod pod_env;
mod pod_resources;
mod pod_status;
mod poddisruptionbudget;
mod priorityclass;
mod quantity;
mod rbac;
mod referencegrant;
pub mod release;
mod replicaset;
mod replicationcontroller;
mod resourcequota;
mod role;
mod rolebinding;
mod row;
mod runtimeclass;
mod secret;
mod service;
mod serviceaccount;
mod statefulset;
mod storageclass;
mod template;
mod tlsroute;
pub mod usage;
mod validatingwebhookconfiguration;
mod volumeattachment;
mod webhooks;

pub use compact::{Labels, Uid};
pub use limitrange::limits;
pub use meta::{Malformed, time};
pub use persistentvolumeclaim::claim_names;
pub use pod_detail::PodDetail;
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

/// How a kind's rows are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Kept by list and watch.
    Watch,
    /// The same, of metadata alone (`PartialObjectMetadata`): the list shows nothing else, and
    /// content stays out of our memory.
    Metadata,
    /// Listed as the caller whenever asked, never held: rarely read, or changing all the time.
    Live,
    /// Listed as the caller as the server's `Table`: its columns without the objects' content.
    Table,
    /// metrics.k8s.io: polled into a history of its own, no rows are kept.
    Poll,
}

/// What of a list can be sorted and filtered by, besides name, namespace and creationTimestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub holds: Holds,
}

/// What a column's cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Text,
    Time,
    Number,
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
    /// `objects` of a custom resource definition: the first ten.
    CustomObjects,
    /// `backends` of a Gateway API route: what its references lead to.
    Backends,
    /// `routes` of a gateway.
    Routes,
    /// `gateways` of a gateway class.
    Gateways,
}

/// Which relatives a child list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    Autoscalers,
    Claims,
    Containers,
    Events,
    Ingresses,
    Jobs,
    NewSet,
    OldSets,
    Pods,
    PullSecrets,
    Secrets,
    Services,
    Volumes,
}

/// What may be done to one object by `PUT …/{name}/{action}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pause,
    Restart,
    Resume,
    Rollback,
    Trigger,
}

/// How the contract's list of a kind is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListShape {
    /// Key of the rows: `pods`, `deployments`, `items`.
    pub items: &'static str,
    /// What `status` counts over all listed rows.
    pub counts: Counts,
    /// `cumulativeMetrics`.
    pub metrics: bool,
}

/// What the `status` of a list counts; `None`: the list has no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    None,
    Pods,
    Workloads,
    Jobs,
    CronJobs,
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
    /// Other versions that show the same fields, tried in order where `resource.version` is not
    /// served.
    pub older: &'static [&'static str],
    pub source: Source,
    /// Own columns; `Row::cells` holds them in this order.
    pub columns: &'static [Column],
    pub list: ListShape,
    pub joins: &'static [Join],
    pub relations: &'static [Relation],
    /// The child lists, by the last segment of their route.
    pub children: &'static [(&'static str, Child)],
    pub actions: &'static [Action],
    /// Projects an object's JSON to its row.
    pub row: ToRow,
    /// The contract's detail, `objectMeta` and `typeMeta` included, without joins, relations and
    /// `errors`.
    pub detail: ToDetail,
    /// Config maps and secrets that `detail` wants to look into.
    pub references: fn(&Value) -> Vec<Reference>,
}

/// Every kind that we show, kept or not. What else a new one needs: CONTRIBUTING, "Add a kind".
pub static KINDS: [KindDef; 49] = [
    apiservice::KIND,
    clusterrole::KIND,
    clusterrolebinding::KIND,
    configmap::KIND,
    cronjob::KIND,
    csidriver::KIND,
    csinode::KIND,
    csistoragecapacity::KIND,
    customresourcedefinition::KIND,
    daemonset::KIND,
    deployment::KIND,
    endpointslice::KIND,
    event::KIND,
    gateway::KIND,
    gatewayclass::KIND,
    grpcroute::KIND,
    horizontalpodautoscaler::KIND,
    httproute::KIND,
    ingress::KIND,
    ingressclass::KIND,
    job::KIND,
    lease::KIND,
    limitrange::KIND,
    mutatingwebhookconfiguration::KIND,
    namespace::KIND,
    networkpolicy::KIND,
    node::KIND,
    persistentvolume::KIND,
    persistentvolumeclaim::KIND,
    pod::KIND,
    poddisruptionbudget::KIND,
    priorityclass::KIND,
    referencegrant::KIND,
    replicaset::KIND,
    replicationcontroller::KIND,
    resourcequota::KIND,
    role::KIND,
    rolebinding::KIND,
    runtimeclass::KIND,
    secret::KIND,
    service::KIND,
    serviceaccount::KIND,
    statefulset::KIND,
    storageclass::KIND,
    tlsroute::KIND,
    usage::NODE_USAGE,
    usage::POD_USAGE,
    validatingwebhookconfiguration::KIND,
    volumeattachment::KIND,
];

/// Kinds that code names, in their places in the table: stores know their kind by its place.
pub static EVENT: &KindDef = named(&KINDS, "event");
pub static NAMESPACE: &KindDef = named(&KINDS, "namespace");
pub static POD: &KindDef = named(&KINDS, "pod");
pub static REPLICA_SET: &KindDef = named(&KINDS, "replicaset");

/// For statics alone: a name that is not in the table ends the build.
const fn named(kinds: &'static [KindDef], name: &str) -> &'static KindDef {
    let mut at = 0;
    while !is_same(kinds[at].name.as_bytes(), name.as_bytes()) {
        at += 1;
    }
    &kinds[at]
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    match (one, other) {
        ([], []) => true,
        ([first, one @ ..], [second, other @ ..]) => *first == *second && is_same(one, other),
        _ => false,
    }
}

/// The kind with this contract name, e.g. `pod`.
pub fn by_name(name: &str) -> Option<&'static KindDef> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// Names are unique within the table.
impl PartialEq for KindDef {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for KindDef {}

impl std::fmt::Debug for KindDef {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Column {
    pub const fn text(name: &'static str) -> Self {
        Self { name, holds: Holds::Text }
    }

    pub const fn time(name: &'static str) -> Self {
        Self { name, holds: Holds::Time }
    }

    pub const fn number(name: &'static str) -> Self {
        Self { name, holds: Holds::Number }
    }
}

impl ListShape {
    /// `items` with neither counts nor metrics: most kinds.
    pub const ITEMS: Self = Self::rows("items");

    /// Rows under a key of their own, and nothing else.
    pub const fn rows(items: &'static str) -> Self {
        Self { items, counts: Counts::None, metrics: false }
    }
}

impl Action {
    /// The last segment of its route.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::Resume => "resume",
            Self::Rollback => "rollback",
            Self::Trigger => "trigger",
        }
    }
}

/// Projects an object's JSON to its row.
pub type ToRow = fn(&str) -> Result<Row, Malformed>;
/// Projects an object ([`detail::whole`]), its row and what it refers to, to its detail.
pub type ToDetail = fn(&Value, &Row, &References) -> Result<Fields, Malformed>;

impl KindDef {
    /// A kind as most are: watched, listed under `items`, with nothing about it.
    pub const fn of(name: &'static str, resource: Resource, row: ToRow, detail: ToDetail) -> Self {
        Self {
            name,
            resource,
            older: &[],
            source: Source::Watch,
            columns: &[],
            list: ListShape::ITEMS,
            joins: &[],
            relations: &[],
            children: &[],
            actions: &[],
            row,
            detail,
            references: no_references,
        }
    }

    /// Whether the shared cache keeps rows of it.
    pub const fn is_kept(&self) -> bool {
        matches!(self.source, Source::Watch | Source::Metadata)
    }

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
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural, namespaced: true }
    }

    pub const fn cluster(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural, namespaced: false }
    }

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

/// The detail of an object that refers to nothing.
#[cfg(test)]
fn detail_of(kind: &KindDef, json: &str) -> Result<Fields, Malformed> {
    let row = (kind.row)(json)?;
    (kind.detail)(&detail::whole(json).unwrap(), &row, &References::new())
}

/// A kind without references.
fn no_references(_: &Value) -> Vec<Reference> {
    Vec::new()
}

//! Rows: what the cache keeps of one Kubernetes object, and all that a list may show of it.
//!
//! A row is encoded once, when its object changes. It is not the object: what no list, join or
//! count needs is dropped here, so that memory is bounded by what is shown.

use bytes::Bytes;
use compact_str::CompactString;

/// One object as a list shows it. `json` is the contract's list item without what is joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Empty for cluster-scoped kinds.
    pub namespace: CompactString,
    pub name: CompactString,
    pub uid: CompactString,
    /// Unix seconds; 0 when the object carries none.
    pub created: i64,
    /// `metadata.resourceVersion`, comparable within one resource since Kubernetes 1.35 (KEP-5504).
    pub version: u64,
    pub labels: Box<[(CompactString, CompactString)]>,
    /// The kind's own columns, in the order of [`super::KindDef::columns`].
    pub cells: Box<[Cell]>,
    /// What this object points to; the store inverts it.
    pub links: Box<[Link]>,
    /// Numbers and states that joins and counts are made of.
    pub facts: Facts,
    pub json: Bytes,
}

/// A value to sort and filter by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Text(CompactString),
    /// Unix seconds; `None` sorts first.
    Time(Option<i64>),
    Number(i64),
}

/// An outgoing reference. All of them stay within the namespace of the row, except `Node`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// UID of the controlling owner (`ownerReferences[controller=true]`).
    Owner(CompactString),
    /// `spec.nodeName` of a pod.
    Node(CompactString),
    /// UID of an event's involved object.
    Involved(CompactString),
    /// Namespace and name of an event's involved object: the contract finds events by name.
    InvolvedName(CompactString, CompactString),
    /// Name of a service that an ingress sends requests to.
    Backend(CompactString),
    /// Lower-case kind and name of what an autoscaler scales.
    Target(CompactString, CompactString),
    /// Name of the storage class of a volume.
    Class(CompactString),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum Facts {
    #[default]
    None,
    Pod(Box<PodFacts>),
    Event(EventFacts),
    Workload(WorkloadFacts),
    Node(NodeFacts),
    Job(JobFacts),
    /// Whether a cron job counts as running in its list, else as failed.
    CronJob {
        running: bool,
    },
    Usage(UsageFacts),
}

/// `status.phase` of a pod; anything else is `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PodFacts {
    pub phase: Phase,
    /// Initialized and Ready are True and the phase is Running: counted as running in a list.
    pub up: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// Phase Succeeded, or Running and no Ready condition with status False: its warnings are not shown.
    pub ready_or_succeeded: bool,
    pub allocated: Allocated,
}

/// Sums over a pod's containers: CPU in millicores, memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocated {
    pub cpu_requests: i64,
    pub cpu_limits: i64,
    pub memory_requests: i64,
    pub memory_limits: i64,
}

impl Allocated {
    /// Adds `other` so many times; a negative number takes it away. Absurd amounts wrap, so that a
    /// sum is right again when the pod that brought them is gone.
    pub fn add(&mut self, other: &Self, times: i64) {
        for (sum, one) in [
            (&mut self.cpu_requests, other.cpu_requests),
            (&mut self.cpu_limits, other.cpu_limits),
            (&mut self.memory_requests, other.memory_requests),
            (&mut self.memory_limits, other.memory_limits),
        ] {
            *sum = sum.wrapping_add(one.wrapping_mul(times));
        }
    }
}

/// What a warning shows; `None` for events of another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFacts {
    pub warning: Option<Box<Warning>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub message: Box<str>,
    pub reason: Box<str>,
    /// The event's own type text, `Warning` (filled in when the event had none).
    pub kind: CompactString,
}

/// A workload's counts as `PodInfo` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadFacts {
    pub current: i64,
    pub desired: Option<i64>,
}

/// A job's counts, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobFacts {
    pub workload: WorkloadFacts,
    /// `None` while it is neither complete nor failed.
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Complete,
    Failed,
}

/// What metrics.k8s.io says of a pod or node at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageFacts {
    /// Unix seconds of the measurement.
    pub time: i64,
    /// Millicores.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

/// Allocatable resources: CPU in millicores, memory in bytes, and the pod capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    pub cpu: i64,
    pub memory: i64,
    pub pods: i64,
}

impl Row {
    /// UID of the controller, if one owns this object.
    pub fn owner(&self) -> Option<&str> {
        self.links.iter().find_map(|link| match link {
            Link::Owner(uid) => Some(uid.as_str()),
            _ => None,
        })
    }

    /// Counts of a workload or job.
    pub fn workload(&self) -> Option<WorkloadFacts> {
        match &self.facts {
            Facts::Workload(facts) => Some(*facts),
            Facts::Job(facts) => Some(facts.workload),
            _ => None,
        }
    }

    pub fn pod(&self) -> Option<&PodFacts> {
        match &self.facts {
            Facts::Pod(facts) => Some(facts),
            _ => None,
        }
    }

    pub fn warning(&self) -> Option<&Warning> {
        match &self.facts {
            Facts::Event(EventFacts { warning }) => warning.as_deref(),
            _ => None,
        }
    }
}

//! Rows: what the cache keeps of one Kubernetes object, and all that a list may show of it.
//!
//! A row is encoded once, when its object changes. It is not the object: what no list, join or
//! count needs is dropped here, so that memory is bounded by what is shown.

use bytes::Bytes;
use compact_str::CompactString;

use super::compact::{Labels, Uid};

/// One object as a list shows it. `json` is the contract's list item without what is joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Empty for cluster-scoped kinds.
    pub namespace: CompactString,
    pub name: CompactString,
    pub uid: Uid,
    /// Unix seconds; 0 when the object carries none.
    pub created: i64,
    /// `metadata.resourceVersion`, comparable within one resource since Kubernetes 1.35 (KEP-5504).
    pub version: u64,
    pub labels: Labels,
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

/// An outgoing reference. All of them stay within the namespace of the row, except `Node` and
/// `InvolvedAt`. Every row has some of them: pairs are boxed, so that the others take less.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Link {
    /// UID of the controlling owner (`ownerReferences[controller=true]`); of a job, of each owner.
    Owner(Uid),
    /// `spec.nodeName` of a pod.
    Node(CompactString),
    /// UID of the involved object: of warnings, and of events about what is in no namespace. Other
    /// events are found by name alone. Of a static pod's mirror: the uid that its events name.
    Involved(Uid),
    /// Name of an event's involved object in the event's own namespace: the contract finds events
    /// by name. They are looked for by [`Link::InvolvedAt`].
    InvolvedName(CompactString),
    /// Namespace and name of an event's involved object.
    InvolvedAt(Box<(CompactString, CompactString)>),
    /// Name of a service that an ingress sends requests to.
    Backend(CompactString),
    /// Lower-case kind and name of what an autoscaler scales.
    Target(Box<(CompactString, CompactString)>),
    /// Name of the storage class of a volume.
    Class(CompactString),
}

/// Boxed, as few rows have many of them and every row has room for the largest.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Facts {
    #[default]
    None,
    Pod(Box<PodFacts>),
    Event(EventFacts),
    Workload(Box<WorkloadFacts>),
    Node(Box<NodeFacts>),
    Job(Box<JobFacts>),
    /// Whether a cron job counts as running in its list, else as failed.
    CronJob {
        running: bool,
    },
    Usage(Box<UsageFacts>),
}

macro_rules! boxed {
    ($($variant:ident($facts:ident)),*) => {$(
        impl From<$facts> for Facts {
            fn from(facts: $facts) -> Self {
                Self::$variant(Box::new(facts))
            }
        }
    )*};
}
boxed!(Pod(PodFacts), Workload(WorkloadFacts), Node(NodeFacts), Job(JobFacts), Usage(UsageFacts));

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

impl Link {
    /// Namespace and name of the involved object, if that is what an event in this namespace points
    /// to by name.
    pub fn involved<'a>(&'a self, namespace: &'a str) -> Option<(&'a str, &'a str)> {
        match self {
            Self::InvolvedName(name) => Some((namespace, name.as_str())),
            Self::InvolvedAt(place) => Some((place.0.as_str(), place.1.as_str())),
            _ => None,
        }
    }
}

impl Row {
    /// UID of the controller, if one owns this object; of a job that has none, of another owner.
    pub fn owner(&self) -> Option<&Uid> {
        self.links.iter().find_map(|link| match link {
            Link::Owner(uid) => Some(uid),
            _ => None,
        })
    }

    /// Namespace and name of an event's involved object.
    pub fn involved(&self) -> Option<(&str, &str)> {
        self.links.iter().find_map(|link| link.involved(&self.namespace))
    }

    /// Whether it points to this; `InvolvedName` is asked for as `InvolvedAt`.
    pub fn links_to(&self, link: &Link) -> bool {
        match link {
            Link::InvolvedAt(_) => self.involved() == link.involved(""),
            _ => self.links.contains(link),
        }
    }

    /// Counts of a workload or job.
    pub fn workload(&self) -> Option<WorkloadFacts> {
        match &self.facts {
            Facts::Workload(facts) => Some(**facts),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_and_what_it_is_made_of_stay_small() {
        // Tens of thousands of them are kept: whoever adds to them should mean it.
        assert!(size_of::<Row>() <= 184, "{}", size_of::<Row>());
        assert!(size_of::<Link>() <= 32, "{}", size_of::<Link>());
        assert!(size_of::<Cell>() <= 24, "{}", size_of::<Cell>());
    }
}

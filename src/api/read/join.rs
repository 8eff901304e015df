//! What a list page adds to its rows from other kinds: warnings, pod info, node allocation, and
//! the counts over all listed rows. Each comes from a view of its own; what the caller may not
//! see counts as nothing and is named in `errors`.
//!
//! Only rows of the page are joined; counts visit troubled pods alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use compact_str::CompactString;
use serde::Serialize;

use super::usage::Usages;
use super::view::View;
use crate::auth::Scope;
use crate::kinds::{
    Allocated, Counts, Facts, Join, KindDef, Link, Outcome, Phase, PodsOf, Row, Uid,
};
use crate::upstream::Failure;

/// The views that joins look into; `None` when not needed or not permitted.
#[derive(Default)]
pub struct Joins {
    pub events: Option<View>,
    pub pods: Option<View>,
    pub replica_sets: Option<View>,
    pub usage: Option<Usages>,
}

/// Whether a kind's joins read the other kind of this name.
pub fn is_joined(kind: &KindDef, name: &str) -> bool {
    kind.joins.iter().any(|join| match join {
        Join::Warnings => name == "event",
        Join::PodInfo { pods, .. } => match name {
            "event" | "pod" => true,
            "replicaset" => *pods == PodsOf::ReplicaSets,
            _ => false,
        },
        Join::Allocation => name == "pod",
        Join::Metrics => false,
    })
}

/// The contract's `Event` with only the keys of a warning filled.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WarningItem<'a> {
    object_meta: NoMeta,
    type_meta: Empty,
    message: &'a str,
    source_component: &'static str,
    source_host: &'static str,
    object: &'static str,
    count: u8,
    first_seen: Option<u8>,
    last_seen: Option<u8>,
    reason: &'a str,
    r#type: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoMeta {
    creation_timestamp: Option<u8>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Debug, Default, Serialize, PartialEq, Eq)]
pub struct Status {
    pub running: usize,
    pub pending: usize,
    pub failed: usize,
    pub succeeded: usize,
    pub terminating: usize,
}

#[derive(Serialize)]
struct PodInfo<W: Serialize> {
    current: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    desired: Option<i64>,
    running: usize,
    pending: usize,
    failed: usize,
    succeeded: usize,
    warnings: W,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeAllocation {
    cpu_requests: i64,
    cpu_requests_fraction: f64,
    cpu_limits: i64,
    cpu_limits_fraction: f64,
    cpu_capacity: i64,
    memory_requests: i64,
    memory_requests_fraction: f64,
    memory_limits: i64,
    memory_limits_fraction: f64,
    memory_capacity: i64,
    allocated_pods: i64,
    pod_capacity: i64,
    pod_fraction: f64,
}

impl Joins {
    pub fn views(&self) -> impl Iterator<Item = &View> {
        let usage = self.usage.as_ref().and_then(Usages::view);
        [&self.events, &self.pods, &self.replica_sets].into_iter().flatten().chain(usage)
    }

    /// Why not all is looked into that belongs to the rows of this scope.
    pub fn left_out(&self, rows: &Scope) -> impl Iterator<Item = &Failure> {
        let usage = self.usage.as_ref().map(|usage| match usage {
            Usages::Shared { scope, .. } => scope,
            Usages::Own { view, .. } => &view.scope,
        });
        let views = [&self.pods, &self.events, &self.replica_sets].into_iter().flatten();
        let scopes = views.map(|view| &view.scope).chain(usage);
        let short = scopes.filter(move |scope| !scope.reach().contains(rows.reach()));
        short.filter_map(Scope::rest)
    }

    /// The row's list item with the joins of its kind, appended to `out`.
    pub fn write(&self, kind: &KindDef, row: &Row, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let Some((b'}', open)) = row.json.split_last() else { return Ok(()) };
        out.extend_from_slice(open);
        self.write_fields(kind, row, out)?;
        out.push(b'}');
        Ok(())
    }

    /// The joins alone, each as `,"key":value`: for a detail, whose own fields stand before them.
    pub fn write_fields(
        &self,
        kind: &KindDef,
        row: &Row,
        out: &mut Vec<u8>,
    ) -> serde_json::Result<()> {
        for join in kind.joins {
            match join {
                Join::Warnings => {
                    out.extend_from_slice(b",\"warnings\":");
                    let events = self.warnings_of(row);
                    serde_json::to_writer(&mut *out, &items(&events))?;
                }
                Join::Metrics => {
                    out.extend_from_slice(b",\"metrics\":");
                    let usage = self.usage.as_ref().and_then(|all| all.written(row));
                    out.extend_from_slice(usage.as_deref().unwrap_or(b"null"));
                }
                Join::PodInfo { key, pods } => {
                    out.extend_from_slice(b",\"");
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"\":");
                    self.write_pod_info(row, &self.pods_of(row, *pods), out)?;
                }
                Join::Allocation => {
                    out.extend_from_slice(b",\"allocatedResources\":");
                    serde_json::to_writer(&mut *out, &self.allocation(row))?;
                }
            }
        }
        Ok(())
    }

    /// `PodInfo` of a workload over these pods.
    pub fn write_pod_info(
        &self,
        row: &Row,
        pods: &[Arc<Row>],
        out: &mut Vec<u8>,
    ) -> serde_json::Result<()> {
        let facts = row.workload();
        let (current, desired) = facts.map_or((0, None), |facts| (facts.current, facts.desired));
        let count = |phase: Phase| {
            pods.iter().filter(|pod| pod.pod().is_some_and(|facts| facts.phase == phase)).count()
        };
        let events = self.warnings(pods);
        let info = PodInfo {
            current,
            desired,
            running: count(Phase::Running),
            pending: count(Phase::Pending),
            failed: count(Phase::Failed),
            succeeded: count(Phase::Succeeded),
            warnings: items(&events),
        };
        serde_json::to_writer(out, &info)
    }

    pub fn pods_of(&self, row: &Row, how: PodsOf) -> Vec<Arc<Row>> {
        let mut found = Vec::new();
        let Some(pods) = &self.pods else { return found };
        // Owners are of the same namespace (anybody may write another's uid into a pod of his own)
        // or of none, as the node of a static pod.
        let mut take = |uid: &Uid| {
            let owner = Link::Owner(uid.clone());
            pods.store().linked(&pods.scope, &owner, |pod| {
                if row.namespace.is_empty() || pod.namespace == row.namespace {
                    found.push(pod.clone());
                }
            });
        };
        match (how, &self.replica_sets) {
            (PodsOf::Owner, _) => take(&row.uid),
            (PodsOf::ReplicaSets, Some(sets)) => {
                let owner = Link::Owner(row.uid.clone());
                // Found first, looked into afterwards: while one store is visited, only stores of
                // events and replica sets may be read from within, never pods from those, or two
                // requests and two writers could wait for each other for ever.
                let mut found = Vec::new();
                sets.store().linked(&sets.scope, &owner, |set| found.push(set.clone()));
                found.retain(|set| set.namespace == row.namespace);
                found.iter().for_each(|set| take(&set.uid));
            }
            (PodsOf::ReplicaSets, None) => {}
        }
        found
    }

    fn warnings_of(&self, pod: &Row) -> Vec<Arc<Row>> {
        let mut found = BTreeMap::new();
        self.collect_warnings(pod, &mut found);
        distinct_reasons(found)
    }

    /// Warning events of these pods, the first of each reason, by the events' names.
    pub fn warnings(&self, pods: &[Arc<Row>]) -> Vec<Arc<Row>> {
        let mut found = BTreeMap::new();
        for pod in pods {
            self.collect_warnings(pod, &mut found);
        }
        distinct_reasons(found)
    }

    /// Visits the warnings of a pod that is not well.
    fn each_warning(&self, pod: &Row, mut visit: impl FnMut(&Arc<Row>)) {
        let Some(events) = &self.events else { return };
        if pod.pod().is_none_or(|facts| facts.ready_or_succeeded) {
            return;
        }
        for link in involved(pod) {
            events.store().linked(&events.scope, &link, |event| {
                if event.warning().is_some() && event.namespace == pod.namespace {
                    visit(event);
                }
            });
        }
    }

    fn collect_warnings(&self, pod: &Row, found: &mut Named) {
        self.each_warning(pod, |event| {
            found.insert((event.namespace.clone(), event.name.clone()), event.clone());
        });
    }

    fn is_warned(&self, pod: &Row) -> bool {
        let mut warned = false;
        self.each_warning(pod, |_| warned = true);
        warned
    }

    /// Requests and limits of a node's non-terminal pods; the view is of all pods or none.
    fn allocation(&self, row: &Row) -> NodeAllocation {
        let Facts::Node(capacity) = &row.facts else {
            return node_allocation((0, 0, 0), 0, Allocated::default());
        };
        let (mut count, mut sum) = (0, Allocated::default());
        if let Some(pods) = &self.pods {
            pods.store().linked(&pods.scope, &Link::Node(row.name.clone()), |pod| {
                let Some(facts) = pod.pod() else { return };
                if matches!(facts.phase, Phase::Succeeded | Phase::Failed) {
                    return;
                }
                count += 1;
                sum.add(&facts.allocated, 1);
            });
        }
        node_allocation((capacity.cpu, capacity.memory, capacity.pods), count, sum)
    }

    /// The contract's `status` over all rows of a list.
    pub fn status(&self, kind: &KindDef, primary: &View) -> Status {
        let pods = kind.joins.iter().find_map(|join| match join {
            Join::PodInfo { pods, .. } => Some(*pods),
            _ => None,
        });
        match (kind.list.counts, pods) {
            (Counts::Pods, _) => self.pod_status(primary),
            (Counts::Workloads, Some(how)) => self.workload_status(primary, how),
            (Counts::Jobs, Some(how)) => self.job_status(primary, how),
            (Counts::CronJobs, _) => cron_job_status(primary),
            _ => Status::default(),
        }
    }

    /// Jobs that ended by how they did; of the others, those with a running pod are running.
    fn job_status(&self, primary: &View, how: PodsOf) -> Status {
        let mut status = Status::default();
        let mut jobs = Vec::new();
        primary.store().each(&primary.scope, |job| jobs.push(job.clone()));
        for job in &jobs {
            let Facts::Job(facts) = &job.facts else { continue };
            let running =
                |pod: &Arc<Row>| pod.pod().is_some_and(|facts| facts.phase == Phase::Running);
            *match facts.outcome {
                Some(Outcome::Complete) => &mut status.succeeded,
                Some(Outcome::Failed) => &mut status.failed,
                None if self.pods_of(job, how).iter().any(running) => &mut status.running,
                None => &mut status.pending,
            } += 1;
        }
        status
    }

    /// The contract's `status` of a list of pods.
    fn pod_status(&self, primary: &View) -> Status {
        let mut status = Status::default();
        let sums = primary.store().pod_sums(&primary.scope, |row| {
            let Some(pod) = row.pod() else { return };
            if pod.phase == Phase::Failed || self.is_warned(row) {
                status.failed += 1;
            } else if pod.terminating {
                status.terminating += 1;
            }
        });
        status.running = sums.up;
        status.succeeded = sums.succeeded;
        status
    }

    /// The contract's `status` of a list of workloads: failed with any warning, pending with a
    /// pending pod, else running.
    fn workload_status(&self, primary: &View, how: PodsOf) -> Status {
        let mut worst: HashMap<(Uid, CompactString), bool> = HashMap::new();
        if let Some(pods) = &self.pods {
            pods.store().pod_sums(&pods.scope, |pod| {
                let Some(owner) = self.workload_of(pod, how) else { return };
                let pending = pod.pod().is_some_and(|facts| facts.phase == Phase::Pending);
                let warned = self.is_warned(pod);
                if warned || pending {
                    *worst.entry((owner, pod.namespace.clone())).or_default() |= warned;
                }
            });
        }
        let mut status = Status::default();
        for ((uid, namespace), warned) in &worst {
            let row = primary.store().by_uid(&primary.scope, uid);
            if row.is_some_and(|row| row.namespace == *namespace) {
                *(if *warned { &mut status.failed } else { &mut status.pending }) += 1;
            }
        }
        let total = primary.store().count(&primary.scope);
        // The store may have lost rows since.
        status.running = total.saturating_sub(status.failed + status.pending);
        status
    }

    fn workload_of(&self, pod: &Row, how: PodsOf) -> Option<Uid> {
        let owner = pod.owner()?;
        match how {
            PodsOf::Owner => Some(owner.clone()),
            PodsOf::ReplicaSets => {
                let sets = self.replica_sets.as_ref()?;
                let set = sets.store().by_uid(&sets.scope, owner)?;
                set.owner().filter(|_| set.namespace == pod.namespace).cloned()
            }
        }
    }
}

/// How events point to the pod: by its uid, and to a static one by that of its file, to which its
/// row has a link.
fn involved(pod: &Row) -> impl Iterator<Item = Link> {
    let own = Link::Involved(pod.uid.clone());
    let file = pod.links.iter().filter(|link| matches!(link, Link::Involved(_)));
    std::iter::once(own).chain(file.cloned())
}

fn cron_job_status(primary: &View) -> Status {
    let mut status = Status::default();
    primary.store().each(&primary.scope, |row| {
        let running = matches!(row.facts, Facts::CronJob { running: true });
        *(if running { &mut status.running } else { &mut status.failed }) += 1;
    });
    status
}

type Named = BTreeMap<(CompactString, CompactString), Arc<Row>>;

fn distinct_reasons(found: Named) -> Vec<Arc<Row>> {
    let mut seen: HashSet<Box<str>> = HashSet::new();
    let fresh = |event: &Arc<Row>| {
        event.warning().is_some_and(|warning| seen.insert(warning.reason.clone()))
    };
    found.into_values().filter(fresh).collect()
}

/// The warnings as the contract writes them.
pub fn items(events: &[Arc<Row>]) -> Vec<WarningItem<'_>> {
    events
        .iter()
        .filter_map(|event| event.warning())
        .map(|warning| WarningItem {
            object_meta: NoMeta { creation_timestamp: None },
            type_meta: Empty {},
            message: &warning.message,
            source_component: "",
            source_host: "",
            object: "",
            count: 0,
            first_seen: None,
            last_seen: None,
            reason: &warning.reason,
            r#type: &warning.kind,
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "percentages of less than 2^53")]
fn node_allocation(
    (cpu, memory, pods): (i64, i64, i64),
    count: i64,
    sum: Allocated,
) -> NodeAllocation {
    let percent = |part: i64, whole: i64| {
        if whole > 0 { part as f64 / whole as f64 * 100.0 } else { 0.0 }
    };
    NodeAllocation {
        cpu_requests: sum.cpu_requests,
        cpu_requests_fraction: percent(sum.cpu_requests, cpu),
        cpu_limits: sum.cpu_limits,
        cpu_limits_fraction: percent(sum.cpu_limits, cpu),
        cpu_capacity: cpu,
        memory_requests: sum.memory_requests,
        memory_requests_fraction: percent(sum.memory_requests, memory),
        memory_limits: sum.memory_limits,
        memory_limits_fraction: percent(sum.memory_limits, memory),
        memory_capacity: memory,
        allocated_pods: count,
        pod_capacity: pods,
        pod_fraction: percent(count, pods),
    }
}

//! What joins and counts of an answer must be, worked out from the objects that a person may list:
//! warnings, the pods of a workload, and the `status` of a list.
//!
//! One by one and slowly on purpose: nothing of the product's counting is used.

use std::collections::{BTreeMap, BTreeSet};

use binnacle::kinds::{Counts, Join, Link, Phase, PodFacts, PodsOf, Row, Uid};
use serde_json::{Value, json};

use crate::property_truth::{Permit, Truth};
use crate::property_world::Served;

/// Namespace and name, or reason and message.
pub type Pair = (String, String);

pub fn place_of(row: &Row) -> Pair {
    (row.namespace.to_string(), row.name.to_string())
}

/// What a list's joins look into; those that it does not look into are denied.
#[derive(Default)]
pub struct Around {
    pub pods: Permit,
    events: Permit,
    sets: Permit,
    /// Kinds that are refused where there may be rows, as the API server calls them.
    pub refused: BTreeSet<String>,
}

impl Around {
    /// Around the rows of a list.
    pub async fn of(
        truth: &Truth<'_>,
        who: usize,
        (served, rows): (&Served, &Permit),
        wanted: Option<&[String]>,
        fresh: bool,
    ) -> Self {
        let mut names = BTreeSet::new();
        let mut around = Self::default();
        for join in served.kind.joins {
            match join {
                Join::Warnings => names.extend(["event"]),
                Join::PodInfo { pods: PodsOf::Owner, .. } => names.extend(["event", "pod"]),
                Join::PodInfo { .. } => names.extend(["event", "pod", "replicaset"]),
                Join::Allocation => {
                    let pods = truth.world.kind("pod").expect("pods are served");
                    around.pods.everywhere = truth.everywhere(who, &pods, fresh).await;
                    if !around.pods.everywhere {
                        around.refused.insert(pods.called());
                    }
                }
                _ => {}
            }
        }
        for name in names {
            let joined = truth.world.kind(name).expect("what is joined is served");
            let permit = truth.permit(who, &joined, wanted, fresh).await;
            if permit.is_denied() || permit.lacks(rows) {
                around.refused.insert(joined.called());
            }
            *(match name {
                "pod" => &mut around.pods,
                "event" => &mut around.events,
                _ => &mut around.sets,
            }) = permit;
        }
        around
    }

    /// The permitted pods that a workload controls.
    pub fn pods_of(&self, workload: &Row, how: PodsOf) -> Vec<&Row> {
        let namespace = workload.namespace.as_str();
        let owners: Vec<&Uid> = match how {
            PodsOf::Owner => vec![&workload.uid],
            PodsOf::ReplicaSets => {
                let sets = self.sets.rows_in(namespace);
                let own = sets.filter(|set| set.owner() == Some(&workload.uid));
                own.map(|set| &set.uid).collect()
            }
        };
        let pods = self.pods.rows_in(namespace);
        pods.filter(|pod| pod.owner().is_some_and(|owner| owners.contains(&owner))).collect()
    }

    /// Reason and message of the permitted warnings about these pods: the first of each reason, by
    /// the events' names. Of a pod that is well there are none.
    pub fn warnings(&self, pods: &[&Row]) -> Vec<Pair> {
        let mut named = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.pod().is_some_and(|one| !one.ready_or_succeeded)) {
            let about = Link::Involved(pod.uid.clone());
            for event in self.events.rows_in(&pod.namespace) {
                if let Some(warning) = event.warning().filter(|_| event.links.contains(&about)) {
                    let said = (warning.reason.to_string(), warning.message.to_string());
                    named.insert(place_of(event), said);
                }
            }
        }
        let mut seen = BTreeSet::new();
        named.into_values().filter(|(reason, _)| seen.insert(reason.clone())).collect()
    }

    /// The contract's `status` of a list of these rows.
    pub fn status(&self, served: &Served, rows: &[&Row]) -> Option<Value> {
        let mut counts = BTreeMap::from([("running", 0), ("pending", 0), ("failed", 0)]);
        counts.extend([("succeeded", 0), ("terminating", 0)]);
        let mut add = |key: &'static str| *counts.entry(key).or_default() += 1;
        let how = served.kind.joins.iter().find_map(|join| match join {
            Join::PodInfo { pods, .. } => Some(*pods),
            _ => None,
        });
        match (served.kind.list.counts, how) {
            (Counts::Pods, _) => {
                for row in rows {
                    let Some(pod) = row.pod() else { continue };
                    let warned = !self.warnings(std::slice::from_ref(row)).is_empty();
                    state_of(pod, warned).into_iter().for_each(&mut add);
                }
            }
            (Counts::Workloads, Some(how)) => {
                for row in rows {
                    let pods = self.pods_of(row, how);
                    if !self.warnings(&pods).is_empty() {
                        add("failed");
                    } else if pods.iter().any(|pod| is_in(pod, Phase::Pending)) {
                        add("pending");
                    } else {
                        add("running");
                    }
                }
            }
            _ => return None,
        }
        Some(json!(counts))
    }
}

/// What a pod counts as in a list of pods.
fn state_of(pod: &PodFacts, warned: bool) -> Option<&'static str> {
    match pod.phase {
        Phase::Succeeded => Some("succeeded"),
        Phase::Running if pod.up => Some("running"),
        Phase::Failed => Some("failed"),
        _ if warned => Some("failed"),
        _ if pod.terminating => Some("terminating"),
        _ => None,
    }
}

pub fn is_in(pod: &Row, phase: Phase) -> bool {
    pod.pod().is_some_and(|pod| pod.phase == phase)
}

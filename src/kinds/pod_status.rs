//! A pod's status: what is read of it, and the one word that people see. The contract is followed
//! where `kubectl get pods` shows another: it has no blanks in the words for signals, exit codes and
//! init containers, and where a container that completed stands before one that failed it shows the
//! failure, not `Completed` or `NotReady`.
//!
//! Whether a pod counts as failed depends on its warnings too: that is decided above.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Phase;
use super::meta::Text;
use super::pod::{Pod, Resources};
use super::pod_resources::ResourceList;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow)]
    reason: Text<'a>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
    #[serde(borrow)]
    pub init_container_statuses: Option<Vec<ContainerStatus<'a>>>,
    #[serde(borrow)]
    pub container_statuses: Option<Vec<ContainerStatus<'a>>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    reason: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(default)]
    pub ready: bool,
    #[serde(default)]
    restart_count: i64,
    #[serde(default)]
    started: Option<bool>,
    #[serde(borrow, default)]
    pub state: State<'a>,
    /// What it has.
    #[serde(borrow, default)]
    pub resources: Option<Resources<'a>>,
    /// What the kubelet has set aside for it.
    #[serde(borrow, default)]
    pub allocated_resources: Option<ResourceList<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct State<'a> {
    #[serde(borrow)]
    waiting: Option<Waiting<'a>>,
    running: Option<IgnoredAny>,
    #[serde(borrow)]
    terminated: Option<Terminated<'a>>,
}

#[derive(Deserialize)]
struct Waiting<'a> {
    #[serde(borrow, default)]
    reason: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated<'a> {
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    signal: i64,
    #[serde(borrow, default)]
    reason: Text<'a>,
}

impl State<'_> {
    /// The contract's `ContainerState`.
    pub fn shown(&self) -> &'static str {
        match (&self.waiting, &self.terminated, &self.running) {
            (Some(_), _, _) => "Waiting",
            (_, Some(terminated), _) if terminated.exit_code > 0 => "Failed",
            (_, Some(_), _) => "Terminated",
            (_, _, Some(_)) => "Running",
            _ => "Unknown",
        }
    }
}

impl Status<'_> {
    pub fn phase(&self) -> Phase {
        match &*self.phase {
            "Pending" => Phase::Pending,
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            _ => Phase::Unknown,
        }
    }

    /// Initialized, ready and running: what a list counts as running.
    pub fn up(&self) -> bool {
        self.phase() == Phase::Running && self.is("Initialized", "True") && self.is("Ready", "True")
    }

    /// Warnings of such a pod are not shown.
    pub fn ready_or_succeeded(&self) -> bool {
        match self.phase() {
            Phase::Succeeded => true,
            Phase::Running => !self.is("Ready", "False"),
            _ => false,
        }
    }

    /// Restarts of the normal containers; those of init containers are not counted.
    pub fn restarts(&self) -> i64 {
        self.container_statuses.iter().flatten().map(|status| status.restart_count).sum()
    }

    fn is(&self, kind: &str, status: &str) -> bool {
        let mut conditions = self.conditions.iter().flatten();
        conditions.any(|condition| &*condition.kind == kind && &*condition.status == status)
    }

    fn gated(&self) -> bool {
        const GATED: &str = "SchedulingGated";
        let mut conditions = self.conditions.iter().flatten();
        conditions.any(|one| &*one.kind == "PodScheduled" && &*one.reason == GATED)
    }

    /// Whether what is asked for now is more than the node can ever give.
    pub fn infeasible(&self) -> bool {
        let mut conditions = self.conditions.iter().flatten();
        let pending = conditions.find(|one| &*one.kind == "PodResizePending");
        pending.is_some_and(|one| &*one.reason == "Infeasible")
    }

    /// What is said of the container, or init container, of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerStatus<'_>> {
        let normal = self.container_statuses.iter().flatten();
        let mut all = normal.chain(self.init_container_statuses.iter().flatten());
        all.find(|status| *status.name == *name)
    }
}

/// The printable status (`Pod.status` and `PodDetail.podPhase` of the contract).
pub fn printable<'a>(pod: &'a Pod<'_>) -> Cow<'a, str> {
    let status = &pod.status;
    let base = || {
        Cow::Borrowed(if status.gated() {
            "SchedulingGated"
        } else if status.reason.is_empty() {
            &*status.phase
        } else {
            &*status.reason
        })
    };
    let initializing = init_reason(pod);
    let started = initializing.is_none() || status.is("Initialized", "True");
    let mut shown = initializing.unwrap_or_else(base);
    if started {
        let mut running = false;
        // From last to first: the first container has the last word.
        for container in status.container_statuses.iter().flatten().rev() {
            if let Some(reason) = container_reason(&container.state) {
                shown = reason;
            } else if container.ready && container.state.running.is_some() {
                running = true;
            }
        }
        if shown == "Completed" && running {
            let ready = status.is("Ready", "True");
            shown = Cow::Borrowed(if ready { "Running" } else { "NotReady" });
        }
    }
    let terminal = matches!(status.phase(), Phase::Succeeded | Phase::Failed);
    match pod.metadata.deletion_timestamp {
        Some(_) if &*status.reason == "NodeLost" => "Unknown".into(),
        Some(_) if !terminal => "Terminating".into(),
        _ => shown,
    }
}

/// What the first init container that is not done says; `None` when all are.
fn init_reason<'a>(pod: &'a Pod<'_>) -> Option<Cow<'a, str>> {
    let specs = pod.spec.init_containers.as_deref().unwrap_or_default();
    let statuses = pod.status.init_container_statuses.iter().flatten();
    for (index, status) in statuses.enumerate() {
        let state = &status.state;
        let done = state.terminated.as_ref().is_some_and(|terminated| terminated.exit_code == 0);
        let sidecar = || {
            let mut specs = specs.iter().filter(|spec| *spec.name == *status.name);
            specs.any(|spec| spec.restart_policy.as_deref() == Some("Always"))
        };
        if done || (status.started == Some(true) && sidecar()) {
            continue;
        }
        let waiting = state.waiting.as_ref().map(|waiting| &*waiting.reason);
        return Some(match (&state.terminated, waiting) {
            (Some(terminated), _) => init_failure(terminated).into(),
            (None, Some(reason)) if !matches!(reason, "" | "PodInitializing") => {
                format!("Init: {reason}").into()
            }
            _ => format!("Init: {index}/{}", specs.len()).into(),
        });
    }
    None
}

/// With a blank only where there is no reason, as the contract has it.
fn init_failure(terminated: &Terminated) -> String {
    match (&*terminated.reason, terminated.signal) {
        ("", 0) => format!("Init: ExitCode {}", terminated.exit_code),
        ("", signal) => format!("Init: Signal {signal}"),
        (reason, _) => format!("Init:{reason}"),
    }
}

/// Why a container does not run; `None` when it does, or does not say.
fn container_reason<'a>(state: &'a State<'_>) -> Option<Cow<'a, str>> {
    if let Some(waiting) = state.waiting.as_ref().filter(|waiting| !waiting.reason.is_empty()) {
        return Some(Cow::Borrowed(&*waiting.reason));
    }
    let terminated = state.terminated.as_ref()?;
    Some(match (&*terminated.reason, terminated.signal) {
        ("", 0) => format!("ExitCode: {}", terminated.exit_code).into(),
        ("", signal) => format!("Signal: {signal}").into(),
        (reason, _) => reason.into(),
    })
}

#[cfg(test)]
#[path = "pod_status_tests.rs"]
mod tests;

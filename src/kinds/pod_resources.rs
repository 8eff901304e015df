//! What a pod asks for: requests and limits summed over its containers, init containers and
//! overhead, as the scheduler and `kubectl describe node` count them (`PodRequests` and `PodLimits`
//! of k8s.io/component-helpers/resource).
//!
//! While a container is resized it counts with the most of what is asked for, what the kubelet has
//! set aside and what it has; what its node can never give is not asked for. What is asked for the
//! pod as a whole is the spec's.

use std::collections::BTreeMap;
use std::ops::Add;

use serde::Serialize;

use super::meta::Text;
use super::pod::{Container, Pod, Resources};
use super::{Allocated, Quantity};

pub type ResourceList<'a> = BTreeMap<Text<'a>, Text<'a>>;

type Amounts<'a> = BTreeMap<&'a str, Quantity>;

/// The contract's `PodAllocatedResources`: CPU in millicores, memory in bytes.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllocatedResources {
    cpu_requests: i64,
    cpu_limits: i64,
    memory_requests: i64,
    memory_limits: i64,
    gpu_requests: Vec<Gpu>,
    gpu_limits: Vec<Gpu>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Gpu {
    quantity: i64,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl AllocatedResources {
    /// The part that a node adds up.
    pub fn sums(&self) -> Allocated {
        Allocated {
            cpu_requests: self.cpu_requests,
            cpu_limits: self.cpu_limits,
            memory_requests: self.memory_requests,
            memory_limits: self.memory_limits,
        }
    }
}

/// Which of the two is summed up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Limits,
}

impl Side {
    fn of<'a>(self, resources: &'a Resources<'_>) -> Option<&'a ResourceList<'a>> {
        match self {
            Self::Requests => resources.requests.as_ref(),
            Self::Limits => resources.limits.as_ref(),
        }
    }
}

pub fn allocated(pod: &Pod) -> AllocatedResources {
    let mut requests = total(pod, Side::Requests);
    let mut limits = total(pod, Side::Limits);
    for (name, amount) in amounts(pod.spec.overhead.as_ref()) {
        merge(&mut requests, name, amount, Add::add);
        // A limit that is not set stays without one.
        if let Some(limit) = limits.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit = *limit + amount;
        }
    }
    let of = |all: &Amounts, name: &str| all.get(name).copied().unwrap_or_default();
    AllocatedResources {
        cpu_requests: of(&requests, "cpu").milli(),
        cpu_limits: of(&limits, "cpu").milli(),
        memory_requests: of(&requests, "memory").value(),
        memory_limits: of(&limits, "memory").value(),
        gpu_requests: gpus(&requests),
        gpu_limits: gpus(&limits),
    }
}

/// The sum over containers and sidecars, but at least what each init container wants beside the
/// sidecars that started before it; instead of it what is asked for the pod as a whole.
fn total<'a>(pod: &'a Pod<'_>, side: Side) -> Amounts<'a> {
    let spec = &pod.spec;
    let (mut all, mut sidecars, mut least) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in spec.containers.iter().flatten() {
        for (name, amount) in effective(pod, container, side) {
            merge(&mut all, name, amount, Add::add);
        }
    }
    for container in spec.init_containers.iter().flatten() {
        if is_sidecar(container) {
            for (name, amount) in effective(pod, container, side) {
                merge(&mut all, name, amount, Add::add);
                merge(&mut sidecars, name, amount, Add::add);
            }
            continue;
        }
        let mut beside = sidecars.clone();
        for (name, amount) in amounts(side.of(&container.resources)) {
            merge(&mut beside, name, amount, Add::add);
        }
        beside.into_iter().for_each(|(name, amount)| merge(&mut least, name, amount, Ord::max));
    }
    least.into_iter().for_each(|(name, amount)| merge(&mut all, name, amount, Ord::max));
    let whole = spec.resources.as_ref().and_then(|resources| side.of(resources));
    all.extend(amounts(whole).filter(|(name, _)| is_pod_level(name)));
    all
}

/// What a container counts with: what its spec asks for, unless its node can never give that, and
/// what it has where its status tells (`determineEffectiveRequests`, `determineEffectiveLimits`).
fn effective<'a>(pod: &'a Pod<'_>, container: &'a Container<'_>, side: Side) -> Amounts<'a> {
    let asked = side.of(&container.resources);
    let status = pod.status.container(&container.name);
    let Some((status, has)) = status.and_then(|one| Some((one, one.resources.as_ref()?))) else {
        return amounts(asked).collect();
    };
    let asked = asked.filter(|_| !pod.status.infeasible());
    // Only requests are set aside.
    let aside = status.allocated_resources.as_ref().filter(|_| side == Side::Requests);
    let mut most = Amounts::new();
    for list in [asked, side.of(has), aside] {
        amounts(list).for_each(|(name, amount)| merge(&mut most, name, amount, Ord::max));
    }
    most
}

/// An init container that goes on beside the others.
fn is_sidecar(container: &Container<'_>) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What can be asked for a pod as a whole (`IsSupportedPodLevelResource`).
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// A text that is no quantity counts as zero: the API server lets none through.
fn amounts<'a>(list: Option<&'a ResourceList<'a>>) -> impl Iterator<Item = (&'a str, Quantity)> {
    let amount = |text: &str| Quantity::parse(text).unwrap_or_default();
    list.into_iter().flatten().map(move |(name, text)| (&**name, amount(text)))
}

fn merge<'a>(
    all: &mut Amounts<'a>,
    name: &'a str,
    amount: Quantity,
    with: fn(Quantity, Quantity) -> Quantity,
) {
    let before = all.entry(name).or_default();
    *before = with(*before, amount);
}

/// GPUs summed by maker, in the order of the makers' names.
fn gpus(all: &Amounts) -> Vec<Gpu> {
    let mut makers: BTreeMap<&'static str, Quantity> = BTreeMap::new();
    for (name, amount) in all {
        if let Some(maker) = gpu_maker(name) {
            let before = makers.entry(maker).or_default();
            *before = *before + *amount;
        }
    }
    makers.into_iter().map(|(kind, amount)| Gpu { quantity: amount.value(), kind }).collect()
}

fn gpu_maker(resource: &str) -> Option<&'static str> {
    match resource {
        "nvidia.com/gpu" => Some("nvidia"),
        "amd.com/gpu" => Some("amd"),
        name if name.starts_with("gpu.intel.com") => Some("intel"),
        name if name.contains("gpu") => Some("unknown"),
        _ => None,
    }
}

#[cfg(test)]
#[path = "pod_resources_tests.rs"]
mod tests;

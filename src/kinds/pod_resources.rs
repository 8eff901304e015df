//! What a pod asks for: requests and limits summed over its containers, init containers and
//! overhead, as the scheduler and `kubectl describe node` count them (`PodRequests` and `PodLimits`
//! of k8s.io/component-helpers/resource).
//!
//! Of the spec alone: what a resize has not reached yet counts as asked for.

use std::collections::BTreeMap;
use std::ops::Add;

use serde::Serialize;

use super::meta::Text;
use super::pod::{Container, Resources, Spec};
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

pub fn allocated(spec: &Spec) -> AllocatedResources {
    let mut requests = total(spec, |resources| resources.requests.as_ref());
    let mut limits = total(spec, |resources| resources.limits.as_ref());
    for (name, amount) in amounts(spec.overhead.as_ref()) {
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
fn total<'a>(
    spec: &'a Spec<'_>,
    list: impl Fn(&'a Resources<'a>) -> Option<&'a ResourceList<'a>>,
) -> Amounts<'a> {
    let (mut all, mut sidecars, mut least) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in spec.containers.iter().flatten() {
        for (name, amount) in amounts(list(&container.resources)) {
            merge(&mut all, name, amount, Add::add);
        }
    }
    for container in spec.init_containers.iter().flatten() {
        let own = amounts(list(&container.resources));
        if is_sidecar(container) {
            for (name, amount) in own {
                merge(&mut all, name, amount, Add::add);
                merge(&mut sidecars, name, amount, Add::add);
            }
            continue;
        }
        let mut beside = sidecars.clone();
        own.for_each(|(name, amount)| merge(&mut beside, name, amount, Add::add));
        beside.into_iter().for_each(|(name, amount)| merge(&mut least, name, amount, Ord::max));
    }
    least.into_iter().for_each(|(name, amount)| merge(&mut all, name, amount, Ord::max));
    let whole = spec.resources.as_ref().and_then(list);
    all.extend(amounts(whole).filter(|(name, _)| is_pod_level(name)));
    all
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
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(spec: &Value) -> Value {
        let text = spec.to_string();
        let spec: Spec = serde_json::from_str(&text).unwrap();
        serde_json::to_value(allocated(&spec)).unwrap()
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    /// CPU requests and limits, memory requests and limits.
    fn numbers(spec: &Value) -> [i64; 4] {
        let all = of(spec);
        ["cpuRequests", "cpuLimits", "memoryRequests", "memoryLimits"]
            .map(|key| all[key].as_i64().unwrap())
    }

    #[test]
    fn containers_are_summed_before_they_are_rounded() {
        let spec = json!({"containers": [
            container(json!({"cpu": "100m", "memory": "1Ki"}), json!({"cpu": "1"})),
            container(json!({"cpu": "0.5", "memory": "1k"}), Value::Null),
            container(json!({"cpu": "500u"}), json!({})),
            container(json!({"cpu": "500u"}), json!({})),
        ]});
        assert_eq!(numbers(&spec), [601, 1_000, 2_024, 0]);
    }

    #[test]
    fn the_largest_init_container_is_a_minimum_per_resource() {
        let spec = json!({
            "containers": [container(json!({"cpu": "100m", "memory": "1Gi"}), json!({"cpu": "200m"}))],
            "initContainers": [
                container(json!({"cpu": "300m", "memory": "1Mi"}), json!({"memory": "2Mi"})),
                container(json!({"cpu": "200m"}), json!({"memory": "1Mi"})),
            ],
        });
        assert_eq!(numbers(&spec), [300, 200, 1 << 30, 2 << 20]);
    }

    #[test]
    fn sidecars_are_added_to_the_sum_and_to_the_init_containers_after_them() {
        let mut sidecar = container(json!({"cpu": "50m", "memory": "1Mi"}), json!({"cpu": "100m"}));
        sidecar["restartPolicy"] = "Always".into();
        let init = |cpu: &str| container(json!({"cpu": cpu}), json!({"cpu": cpu}));
        let with = |inits: Value| {
            let main = container(json!({"cpu": "100m", "memory": "4Mi"}), json!({"cpu": "200m"}));
            json!({"containers": [main], "initContainers": inits})
        };
        let beside = with(json!([init("120m"), sidecar, sidecar]));
        assert_eq!(numbers(&beside), [200, 400, 6 << 20, 0]);
        // Before the sidecars it counts alone, after them with both.
        let after = with(json!([init("1"), sidecar, sidecar, init("950m")]));
        assert_eq!(numbers(&after), [1_050, 1_150, 6 << 20, 0]);
    }

    #[test]
    fn what_is_asked_for_the_whole_pod_takes_the_place_of_the_sum() {
        let gpus = json!({"cpu": "2", "nvidia.com/gpu": "1"});
        let mut spec = json!({
            "containers": [container(json!({"cpu": "100m", "memory": "1Mi"}), gpus)],
            "overhead": {"cpu": "10m"},
        });
        let whole = json!({"cpu": "1", "nvidia.com/gpu": "9"});
        spec["resources"] = json!({"requests": {"cpu": "500m"}, "limits": whole});
        assert_eq!(numbers(&spec), [510, 1_010, 1 << 20, 0]);
        assert_eq!(of(&spec)["gpuLimits"], json!([{"quantity": 1, "type": "nvidia"}]));
        for nothing in [Value::Null, json!({}), json!({"limits": null})] {
            spec["resources"] = nothing;
            assert_eq!(numbers(&spec), [110, 2_010, 1 << 20, 0]);
        }
    }

    #[test]
    fn overhead_is_added_to_requests_and_only_to_limits_that_are_set() {
        let overhead = json!({"cpu": "250m", "memory": "1Mi"});
        let with = |limits: Value| {
            let containers = [container(json!({"cpu": "100m"}), limits)];
            json!({"containers": containers, "overhead": overhead})
        };
        let set = with(json!({"cpu": "1", "memory": "0"}));
        assert_eq!(numbers(&set), [350, 1_250, 1 << 20, 0]);
        assert_eq!(numbers(&with(Value::Null)), [350, 0, 1 << 20, 0]);
    }

    #[test]
    fn gpus_are_summed_by_maker() {
        let limits = json!({"nvidia.com/gpu": "2", "amd.com/gpu": "1", "gpu.intel.com/i915": "1",
            "gpu.intel.com/xe": "2", "example.com/vgpu": "4", "example.com/gpu": "1", "cpu": "1"});
        let all = of(&json!({"containers": [container(Value::Null, limits)]}));
        assert_eq!(all["gpuRequests"], json!([]));
        assert_eq!(
            all["gpuLimits"],
            json!([
                {"quantity": 1, "type": "amd"},
                {"quantity": 3, "type": "intel"},
                {"quantity": 2, "type": "nvidia"},
                {"quantity": 5, "type": "unknown"},
            ])
        );
    }

    #[test]
    fn a_pod_that_asks_for_nothing_has_zeros() {
        assert_eq!(numbers(&json!({})), [0; 4]);
        assert_eq!(numbers(&json!({"containers": null, "overhead": null})), [0; 4]);
    }
}

//! Sums over containers, init containers, sidecars and overhead, and what is being resized.

use serde_json::{Value, json};

use super::*;

fn of(spec: &Value) -> Value {
    of_pod(&json!({"spec": spec}))
}

fn of_pod(pod: &Value) -> Value {
    let text = pod.to_string();
    let pod: Pod = serde_json::from_str(&text).unwrap();
    serde_json::to_value(allocated(&pod)).unwrap()
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

/// CPU requests and limits, memory requests and limits.
fn numbers(spec: &Value) -> [i64; 4] {
    in_order(&of(spec))
}

fn in_order(all: &Value) -> [i64; 4] {
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

/// A pod with this container, or sidecar, that has these resources and others set aside.
fn resized(list: &str, has: &Value, aside: &Value, pending: &str) -> Value {
    let cpu = |amount: &str| json!({"cpu": amount});
    let mut container = container(cpu("8"), cpu("8"));
    container["restartPolicy"] = "Always".into();
    let status = json!({"name": "c", "resources": has, "allocatedResources": aside});
    let statuses = list.replace("ontainers", "ontainerStatuses");
    json!({
        "spec": {list: [container]},
        "status": {
            statuses: [status],
            "conditions": [{"type": "PodResizePending", "status": "True", "reason": pending}],
        },
    })
}

#[test]
fn a_container_that_is_resized_counts_with_the_most_of_what_it_has_and_asks_for() {
    let one = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    let nine = json!({"requests": {"cpu": "9", "memory": "1k"}, "limits": {"cpu": "12"}});
    let (none, ten) = (Value::Null, json!({"cpu": "10"}));
    for (has, aside, pending, expected) in [
        // Growing: not yet given, and never.
        (&one, &json!({"cpu": "3"}), "Deferred", [8_000, 8_000, 0, 0]),
        (&one, &json!({"cpu": "3"}), "Infeasible", [3_000, 2_000, 0, 0]),
        (&one, &none, "Infeasible", [1_000, 2_000, 0, 0]),
        // Shrinking: not yet taken, or only half.
        (&nine, &none, "", [9_000, 12_000, 1_000, 0]),
        (&one, &ten, "", [10_000, 8_000, 0, 0]),
        // It tells what was set aside, but not what it has.
        (&none, &ten, "Infeasible", [8_000, 8_000, 0, 0]),
        (&json!({}), &none, "Infeasible", [0; 4]),
    ] {
        for list in ["containers", "initContainers"] {
            let pod = resized(list, has, aside, pending);
            assert_eq!(in_order(&of_pod(&pod)), expected, "{pod}");
        }
    }
    // An init container that ends is never resized.
    let mut pod = resized("initContainers", &nine, &ten, "");
    pod["spec"]["initContainers"][0]["restartPolicy"] = Value::Null;
    assert_eq!(in_order(&of_pod(&pod)), [8_000, 8_000, 0, 0]);
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

//! When a container has ended for good, by the rules that kubelets go by (`ContainerShouldRestart`
//! and `AllContainersCouldRestart` of Kubernetes' pkg/api/v1/pod, `computeInitContainerActions`).

use serde_json::Value;

use crate::kinds::detail::{list, text};

/// Whether nobody will start the container again. One that the pod has not is over, too.
pub fn is_over(pod: &Value, container: &str) -> bool {
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return true;
    }
    let find =
        |pointer: String| list(pod, &pointer).iter().find(|one| text(one, "/name") == container);
    let [main, init, debug] = ["c", "initC", "ephemeralC"]
        .map(|kind| (format!("/spec/{kind}ontainers"), format!("/status/{kind}ontainerStatuses")))
        .map(|(spec, status)| find(spec).map(|spec| (spec, find(status))));
    let is_init = main.is_none() && init.is_some();
    let is_debug = main.is_none() && init.is_none();
    // The API server says of it that there is none, however often it is asked.
    let Some((spec, status)) = main.or(init).or(debug) else { return true };
    let ended = status.and_then(|status| status.pointer("/state/terminated"));
    let Some(ended) = ended else { return false };
    if is_debug || pod.pointer("/metadata/deletionTimestamp").is_some() {
        return true;
    }
    // Then only the pod's end is that of any container.
    if may_restart_all(pod) {
        return false;
    }
    let code = ended.pointer("/exitCode").and_then(Value::as_i64);
    // An init container that ended well has done its part, whatever its rules say.
    let is_done = is_init && text(spec, "/restartPolicy") != "Always" && code == Some(0);
    is_done || !restarts(pod, spec, code)
}

/// Whether a container that ended so is started again: by the first of its rules that fits, else
/// by its own policy, else by the pod's.
fn restarts(pod: &Value, container: &Value, code: Option<i64>) -> bool {
    let rule = list(container, "/restartPolicyRules").iter().find(|rule| fits(rule, code));
    if rule.is_some_and(|rule| text(rule, "/action") == "Restart") {
        return true;
    }
    let own = text(container, "/restartPolicy");
    let policy = if own.is_empty() { text(pod, "/spec/restartPolicy") } else { own };
    match policy {
        "Never" => false,
        "OnFailure" => code != Some(0),
        _ => true,
    }
}

fn fits(rule: &Value, code: Option<i64>) -> bool {
    let is_named = list(rule, "/exitCodes/values").iter().any(|value| value.as_i64() == code);
    match text(rule, "/exitCodes/operator") {
        "In" => is_named,
        "NotIn" => !is_named,
        _ => false,
    }
}

/// Whether a container's end may have all the others started again, those that ended well as well.
fn may_restart_all(pod: &Value) -> bool {
    let all = list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers"));
    let mut rules = all.flat_map(|container| list(container, "/restartPolicyRules"));
    rules.any(|rule| text(rule, "/action") == "RestartAllContainers")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, policy: &str, state: &Value) -> Value {
        let is = |name: &str| json!({"name": name, "state": state});
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "restartPolicy": policy,
                "initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "main"}],
                "ephemeralContainers": [{"name": "debug"}],
            },
            "status": {
                "phase": phase,
                "initContainerStatuses": [is("init"), is("side")],
                "containerStatuses": [is("main")],
                "ephemeralContainerStatuses": [is("debug")],
            },
        })
    }

    fn ended(code: i64) -> Value {
        json!({"terminated": {"exitCode": code}})
    }

    fn over(pod: &Value) -> String {
        let names = ["init", "side", "main", "debug"].into_iter();
        names.filter(|name| is_over(pod, name)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_container_is_over_when_nobody_will_start_it_again() {
        let running = json!({"running": {}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        for (policy, state, expected) in [
            ("Always", &running, ""),
            ("Never", &running, ""),
            ("Always", &waiting, ""),
            ("Always", &ended(0), "init debug"),
            ("Always", &ended(1), "debug"),
            ("OnFailure", &ended(0), "init main debug"),
            ("OnFailure", &ended(1), "debug"),
            ("Never", &ended(1), "init main debug"),
        ] {
            assert_eq!(over(&pod("Running", policy, state)), expected, "{policy} {state}");
        }
        assert!(is_over(&pod("Succeeded", "Never", &running), "main"));
        assert!(is_over(&pod("Running", "Always", &running), "other"));
        let mut leaving = pod("Running", "Always", &ended(0));
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        assert!(is_over(&leaving, "main"));
        assert!(!is_over(&json!({"spec": {"containers": [{"name": "main"}]}}), "main"));
    }

    #[test]
    fn a_containers_own_rules_and_policy_stand_before_the_pods() {
        let rule = |operator: &str, action: &str| {
            let codes = json!({"operator": operator, "values": [42]});
            json!([{"action": action, "exitCodes": codes}])
        };
        let [again, unless] = ["In", "NotIn"].map(|operator| rule(operator, "Restart"));
        for (policy, own, rules, code, expected) in [
            ("Never", "Never", &again, 42, "debug"),
            ("Never", "Never", &again, 1, "init main debug"),
            ("Never", "Never", &unless, 42, "init main debug"),
            ("Never", "Never", &unless, 1, "debug"),
            ("Never", "OnFailure", &Value::Null, 1, "debug"),
            ("Never", "OnFailure", &Value::Null, 0, "init main debug"),
            ("Never", "Always", &Value::Null, 0, "debug"),
            ("Always", "Never", &Value::Null, 1, "init main debug"),
            ("Always", "OnFailure", &Value::Null, 0, "init main debug"),
            // That an init container runs again which ended well is not a rule's to say.
            ("Always", "OnFailure", &unless, 0, "init debug"),
        ] {
            let mut pod = pod("Running", policy, &ended(code));
            for list in ["initContainers", "containers"] {
                pod["spec"][list][0]["restartPolicy"] = own.into();
                pod["spec"][list][0]["restartPolicyRules"] = rules.clone();
            }
            assert_eq!(over(&pod), expected, "{policy} {own} {rules} {code}");
        }
        // Of one that may have all started again nothing is over before the pod is.
        let mut pod = pod("Running", "Never", &ended(0));
        pod["spec"]["containers"][0]["restartPolicy"] = "Never".into();
        pod["spec"]["containers"][0]["restartPolicyRules"] = rule("In", "RestartAllContainers");
        assert_eq!(over(&pod), "debug");
        pod["status"]["phase"] = "Failed".into();
        assert_eq!(over(&pod), "init side main debug");
    }
}

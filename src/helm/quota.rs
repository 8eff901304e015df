//! What objects count for in the terms of ResourceQuotas, and which quotas a release would not fit
//! into: on a dry run the API server counts pods alone, not those that a workload would make.
//!
//! An estimate: quotas with scopes, defaults of LimitRanges and pods that an update has besides
//! the old ones are left out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::kinds::Quantity;

/// Amounts by a quota's names for them (`requests.cpu`, `count/deployments.apps`), in thousandths
/// of their units; negative ones become free.
pub type Needs = BTreeMap<String, i64>;

const ONE: i64 = 1_000;
/// Kinds of the core group that quotas also name without `count/` (k8s.io/api/core/v1
/// `ResourceName`).
const OLD_NAMES: [&str; 7] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];
/// Resources whose requests quotas also name without `requests.`.
const SHORT_NAMES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Adds to `needs` what an object counts for, `times` 1 or -1. `plural` and `group` are those of
/// its kind.
pub fn add(needs: &mut Needs, object: &Value, (plural, group): (&str, &str), times: i64) {
    let mut count = |name: String, amount: i64| {
        let sum = needs.entry(name).or_default();
        *sum = sum.saturating_add(amount.saturating_mul(times));
    };
    match group {
        "" => count(format!("count/{plural}"), ONE),
        group => count(format!("count/{plural}.{group}"), ONE),
    }
    if group.is_empty() && OLD_NAMES.contains(&plural) {
        count(plural.to_owned(), ONE);
    }
    let at = |pointer: &str| object.pointer(pointer);
    match (group, plural) {
        ("", "services") if at("/spec/type").is_some_and(|of| of == "LoadBalancer") => {
            count("services.loadbalancers".into(), ONE);
        }
        ("", "persistentvolumeclaims") => {
            let storage = at("/spec/resources/requests/storage").map(milli).unwrap_or_default();
            count("requests.storage".into(), storage);
        }
        _ => {}
    }
    let Some((pods, spec)) = pods(object, (plural, group)) else { return };
    if plural != "pods" {
        count("pods".into(), pods.saturating_mul(ONE));
        count("count/pods".into(), pods.saturating_mul(ONE));
    }
    for part in ["requests", "limits"] {
        for (name, amount) in of_pod(spec, part) {
            let amount = amount.saturating_mul(pods);
            if part == "requests" && SHORT_NAMES.contains(&name.as_str()) {
                count(name.clone(), amount);
            }
            count(format!("{part}.{name}"), amount);
        }
    }
}

/// For each amount of the quota that the release needs more of than is left, a sentence with the
/// numbers.
pub fn exceeded(needs: &Needs, quota: &Value) -> Vec<String> {
    let at = |pointer: &str| quota.pointer(pointer);
    if at("/spec/scopes").is_some() || at("/spec/scopeSelector").is_some() {
        return Vec::new();
    }
    let name = at("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let hard = at("/status/hard").or(at("/spec/hard")).and_then(Value::as_object);
    let mut found = Vec::new();
    for (resource, hard) in hard.into_iter().flatten() {
        let Some(needed) = needs.get(resource).copied().filter(|needed| *needed > 0) else {
            continue;
        };
        let used = at("/status/used").and_then(|used| used.get(resource));
        let used_amount = used.map(milli).unwrap_or_default();
        if used_amount.saturating_add(needed) > milli(hard) {
            let used = used.and_then(Value::as_str).unwrap_or("0");
            let hard = hard.as_str().unwrap_or_default();
            let needed = shown(needed);
            found.push(format!("{name}: {resource}: {used} used + {needed} needed > {hard}"));
        }
    }
    found
}

/// How many pods an object makes, and their spec. Of a DaemonSet that depends on the nodes.
fn pods<'a>(object: &'a Value, (plural, group): (&str, &str)) -> Option<(i64, &'a Value)> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    let (count, spec) = match (group, plural) {
        ("", "pods") => (1, "/spec"),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets") => {
            (number("/spec/replicas").unwrap_or(1), "/spec/template/spec")
        }
        ("batch", "jobs") => {
            let parallel = number("/spec/parallelism").unwrap_or(1);
            let completions = number("/spec/completions").unwrap_or(parallel);
            (parallel.min(completions), "/spec/template/spec")
        }
        _ => return None,
    };
    object.pointer(spec).map(|spec| (count.max(0), spec))
}

/// What a pod asks for by resource: its containers and those beside them together, or what one of
/// its init containers needs by itself, and the overhead.
fn of_pod(spec: &Value, part: &str) -> BTreeMap<String, i64> {
    let list = |field: &str| spec.get(field).and_then(Value::as_array).into_iter().flatten();
    let stays = |container: &&Value| {
        container.get("restartPolicy").is_some_and(|policy| policy == "Always")
    };
    let of = |container: &Value| -> Vec<(String, i64)> {
        let amounts = container.get("resources").and_then(|all| all.get(part));
        let amounts = amounts.and_then(Value::as_object).into_iter().flatten();
        amounts.map(|(name, amount)| (name.clone(), milli(amount))).collect()
    };
    let mut all = BTreeMap::new();
    let lasting = list("containers").chain(list("initContainers").filter(stays));
    for (name, amount) in lasting.flat_map(of) {
        let sum: &mut i64 = all.entry(name).or_default();
        *sum = sum.saturating_add(amount);
    }
    for (name, amount) in list("initContainers").filter(|one| !stays(one)).flat_map(of) {
        let most = all.entry(name).or_default();
        *most = amount.max(*most);
    }
    let overhead = spec.get("overhead").and_then(Value::as_object);
    for (name, amount) in overhead.into_iter().flatten() {
        if let Some(sum) = all.get_mut(name) {
            *sum = sum.saturating_add(milli(amount));
        }
    }
    all
}

/// A quantity in thousandths; manifests may have numbers where the API has texts.
fn milli(amount: &Value) -> i64 {
    let quantity = match amount {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => None,
    };
    quantity.unwrap_or_default().milli()
}

fn shown(milli: i64) -> String {
    if milli % ONE == 0 { (milli / ONE).to_string() } else { format!("{milli}m") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(replicas: u32, cpu: &str) -> Value {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"memory": "1Mi"}});
        json!({"kind": "Deployment", "spec": {"replicas": replicas, "template": {"spec": {
            "containers": [{"name": "a", "resources": resources}, {"name": "b"}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "300m"}}}],
        }}}})
    }

    fn needs(before: Option<Value>, after: &Value) -> Needs {
        let mut needs = Needs::new();
        add(&mut needs, after, ("deployments", "apps"), 1);
        if let Some(before) = before {
            add(&mut needs, &before, ("deployments", "apps"), -1);
        }
        needs
    }

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}})
    }

    #[test]
    fn replicas_times_requests_are_compared_with_what_is_left() {
        let needs = needs(None, &deployment(4, "500m"));
        let fits = quota(json!({"requests.cpu": "3"}), json!({"requests.cpu": "1"}));
        assert!(exceeded(&needs, &fits).is_empty());
        let hard = json!({"requests.cpu": "3", "pods": "4"});
        let tight = quota(hard, json!({"requests.cpu": "1500m"}));
        assert_eq!(exceeded(&needs, &tight), ["q: requests.cpu: 1500m used + 2 needed > 3"]);
    }

    #[test]
    fn what_already_runs_is_not_counted_twice() {
        let needs = needs(Some(deployment(3, "500m")), &deployment(4, "500m"));
        let full = |hard: &str| quota(json!({"cpu": hard}), json!({"cpu": "1500m"}));
        assert!(exceeded(&needs, &full("2")).is_empty());
        assert_eq!(exceeded(&needs, &full("1900m")).len(), 1);
        assert_eq!(needs["count/deployments.apps"], 0);
    }

    #[test]
    fn an_init_container_counts_where_it_asks_for_more_than_the_others_together() {
        assert_eq!(needs(None, &deployment(2, "100m"))["cpu"], 600);
        assert_eq!(needs(None, &deployment(2, "400m"))["requests.cpu"], 800);
    }

    #[test]
    fn objects_are_counted_by_both_of_their_names_and_scoped_quotas_left_out() {
        let mut needs = Needs::new();
        let service = json!({"spec": {"type": "LoadBalancer"}});
        add(&mut needs, &service, ("services", ""), 1);
        let hard = json!({"services": "0", "count/services": "0", "services.loadbalancers": "0"});
        let mut quota = quota(hard, json!({}));
        assert_eq!(exceeded(&needs, &quota).len(), 3);
        quota["spec"] = json!({"scopes": ["BestEffort"]});
        assert!(exceeded(&needs, &quota).is_empty());
    }
}

//! Environment variables of a pod's containers, resolved as far as the pod and the config maps and
//! secrets at hand tell.
//!
//! Reads nothing itself: `references` says what it would like to see, and what is missing or may
//! not be read has an empty value. Values are those of the objects now, not of the running process.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::detail::{list, text};
use super::{Quantity, Reference, References};

/// The config maps and secrets that variables of any container name, each once.
pub fn references(pod: &Value) -> Vec<Reference> {
    let containers = list(pod, "/spec/initContainers").iter();
    let mut all = BTreeSet::new();
    for container in containers.chain(list(pod, "/spec/containers")) {
        let single = list(container, "/env").iter().filter_map(|one| one.get("valueFrom"));
        all.extend(single.filter_map(key_reference).map(|(reference, _)| reference));
        let whole = list(container, "/envFrom").iter();
        all.extend(whole.filter_map(whole_reference).map(|(reference, _)| reference));
    }
    all.into_iter().collect()
}

/// The contract's `EnvVar`, its keys in alphabetical order as those of all details.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    value_from: Option<Cow<'a, Value>>,
}

/// The variables in order, then what `envFrom` adds, by key.
pub fn resolve<'a>(
    pod: &Value,
    container: &'a Value,
    references: &'a References,
) -> Vec<EnvVar<'a>> {
    let single = list(container, "/env").iter().map(|variable| {
        let from = variable.get("valueFrom").filter(|from| !from.is_null());
        let value = match from {
            Some(from) => value(pod, container, from, references).unwrap_or_default().into(),
            None => text(variable, "/value").into(),
        };
        EnvVar { name: text(variable, "/name").into(), value, value_from: from.map(Cow::Borrowed) }
    });
    let whole = list(container, "/envFrom").iter();
    single.chain(whole.flat_map(|source| expand(source, references))).collect()
}

/// Text of a config map's key, base64 of a secret's, the pod's own field, or a resource of
/// this container, or of the one that is named.
fn value(pod: &Value, container: &Value, from: &Value, all: &References) -> Option<String> {
    if let Some((reference, key)) = key_reference(from) {
        let data = all.get(&reference)?.get("data")?;
        return data.get(key)?.as_str().map(str::to_owned);
    }
    if let Some(field) = from.get("fieldRef") {
        return field_value(pod, text(field, "/fieldPath"));
    }
    let field = from.get("resourceFieldRef")?;
    let named = match text(field, "/containerName") {
        "" => container,
        name => {
            let all = list(pod, "/spec/containers").iter();
            let mut all = all.chain(list(pod, "/spec/initContainers"));
            all.find(|one| text(one, "/name") == name)?
        }
    };
    resource_value(named, field)
}

/// All keys of the config map or secret that an `envFrom` element names.
fn expand<'a>(source: &Value, references: &'a References) -> Vec<EnvVar<'a>> {
    let Some((reference, kind)) = whole_reference(source) else {
        return Vec::new();
    };
    let (Reference::ConfigMap(name) | Reference::Secret(name)) = &reference;
    let data = references.get(&reference).and_then(|object| object.get("data"));
    let data = data.and_then(Value::as_object).into_iter().flatten();
    let variable = |(key, value): (&'a String, &'a Value)| EnvVar {
        name: format!("{}{key}", text(source, "/prefix")).into(),
        value: value.as_str().unwrap_or_default().into(),
        value_from: Some(Cow::Owned(json!({kind: {"name": name, "key": key}}))),
    };
    data.map(variable).collect()
}

/// What `valueFrom` looks up, and the key to look at.
fn key_reference(from: &Value) -> Option<(Reference, &str)> {
    let reference = |field: &Value, make: fn(String) -> Reference| named(field).map(make);
    if let Some(field) = from.get("configMapKeyRef") {
        return Some((reference(field, Reference::ConfigMap)?, text(field, "/key")));
    }
    let field = from.get("secretKeyRef")?;
    Some((reference(field, Reference::Secret)?, text(field, "/key")))
}

/// What an `envFrom` element looks up, and how `valueFrom` calls such a source.
fn whole_reference(source: &Value) -> Option<(Reference, &'static str)> {
    if let Some(field) = source.get("configMapRef") {
        return Some((Reference::ConfigMap(named(field)?), "configMapKeyRef"));
    }
    Some((Reference::Secret(named(source.get("secretRef")?)?), "secretKeyRef"))
}

/// The name in a reference, if an object can have it. The API server does not check names in
/// references, and they become part of a path.
fn named(field: &Value) -> Option<String> {
    /// Length of a DNS subdomain.
    const LONGEST: usize = 253;
    let name = text(field, "/name");
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = name.len() <= LONGEST
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.');
    good.then(|| name.to_owned())
}

/// The fields that a variable may name, as the kubelet resolves them.
fn field_value(pod: &Value, path: &str) -> Option<String> {
    match path {
        "metadata.name"
        | "metadata.namespace"
        | "metadata.uid"
        | "spec.nodeName"
        | "spec.serviceAccountName"
        | "status.hostIP"
        | "status.podIP" => Some(text(pod, &format!("/{}", path.replace('.', "/"))).to_owned()),
        "status.hostIPs" | "status.podIPs" => {
            let addresses = list(pod, &format!("/{}", path.replace('.', "/"))).iter();
            let addresses: Vec<_> = addresses.map(|address| text(address, "/ip")).collect();
            Some(addresses.join(","))
        }
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = map
                .strip_prefix("metadata.")
                .filter(|map| matches!(*map, "labels" | "annotations"))?;
            let value = pod.get("metadata")?.get(map)?.get(key)?;
            value.as_str().map(str::to_owned)
        }
    }
}

/// A limit or request of the container in units of the divisor, rounded up.
fn resource_value(container: &Value, field: &Value) -> Option<String> {
    let (kind, resource) = text(field, "/resource").split_once('.')?;
    if !matches!(kind, "limits" | "requests") {
        return None;
    }
    let quantity = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str);
        text.and_then(Quantity::parse).unwrap_or_default()
    };
    // CPU is counted in thousandths, so that half a core in units of millicores is 500.
    let measure = |quantity: Quantity| {
        i128::from(if resource == "cpu" { quantity.milli() } else { quantity.value() })
    };
    let set = container.get("resources").and_then(|all| all.get(kind)?.get(resource));
    let divisor = quantity(field.get("divisor"));
    let divisor = if divisor.is_zero() { Quantity::parse("1")? } else { divisor };
    let (amount, divisor) = (measure(quantity(set)), measure(divisor));
    if divisor < 1 {
        return None;
    }
    let amount = (amount + divisor - 1).div_euclid(divisor);
    if amount == 0 && kind == "limits" {
        return Some("node allocatable".to_owned());
    }
    Some(amount.to_string())
}

#[cfg(test)]
#[path = "pod_env_tests.rs"]
mod tests;

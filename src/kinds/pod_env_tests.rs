//! Environment values of every source, resolved and unresolvable.

use super::*;

fn pod() -> Value {
    json!({
        "metadata": {"name": "a", "namespace": "atlas", "uid": "p1", "labels": {"app": "tiles"},
            "annotations": {"example.com/x": "y"}},
        "spec": {"nodeName": "node-0", "serviceAccountName": "tiles"},
        "status": {"hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}], "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    })
}

fn read() -> References {
    References::from([
        (
            Reference::ConfigMap("settings".into()),
            json!({"metadata": {"name": "settings"}, "data": {"LEVEL": "debug", "a/b": "c"}}),
        ),
        (Reference::Secret("api-key".into()), json!({"data": {"key": "czNjcjN0"}})),
        (Reference::ConfigMap("empty".into()), json!({"metadata": {}, "data": null})),
    ])
}

/// The value that a container with these resources gets from this source.
fn of(from: &Value) -> String {
    let container = json!({
        "env": [{"name": "V", "valueFrom": from}],
        "resources": {
            "limits": {"cpu": "500m", "memory": "256Mi"},
            "requests": {"cpu": "1100m", "memory": "100"}},
    });
    let all = json!(resolve(&pod(), &container, &read()));
    assert_eq!(all[0]["valueFrom"], *from);
    all[0]["value"].as_str().unwrap().to_owned()
}

#[test]
fn keys_of_config_maps_are_text_and_keys_of_secrets_base64() {
    for (kind, name, key, expected) in [
        ("configMapKeyRef", "settings", "LEVEL", "debug"),
        ("configMapKeyRef", "settings", "a/b", "c"),
        ("configMapKeyRef", "settings", "missing", ""),
        ("configMapKeyRef", "unreadable", "LEVEL", ""),
        ("configMapKeyRef", "empty", "LEVEL", ""),
        ("secretKeyRef", "api-key", "key", "czNjcjN0"),
        ("secretKeyRef", "settings", "LEVEL", ""),
        ("fileKeyRef", "settings", "LEVEL", ""),
    ] {
        assert_eq!(of(&json!({kind: {"name": name, "key": key}})), expected, "{kind} {name} {key}");
    }
}

#[test]
fn fields_are_those_of_the_pod() {
    for (path, expected) in [
        ("metadata.name", "a"),
        ("metadata.namespace", "atlas"),
        ("metadata.uid", "p1"),
        ("metadata.labels['app']", "tiles"),
        ("metadata.annotations['example.com/x']", "y"),
        ("metadata.labels['other']", ""),
        ("spec.nodeName", "node-0"),
        ("spec.serviceAccountName", "tiles"),
        ("status.hostIP", "192.0.2.1"),
        ("status.podIP", "10.0.0.1"),
        ("status.podIPs", "10.0.0.1,fd00::1"),
        ("status.hostIPs", "192.0.2.1"),
        ("spec.hostname", ""),
        ("spec['nodeName']", ""),
        ("", ""),
    ] {
        let from = json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
        assert_eq!(of(&from), expected, "{path}");
    }
}

#[test]
fn resources_are_divided_and_rounded_up() {
    for (resource, divisor, expected) in [
        ("limits.cpu", "0", "1"),
        ("limits.cpu", "1m", "500"),
        ("limits.memory", "1Mi", "256"),
        ("limits.memory", "100Mi", "3"),
        ("limits.memory", "0", "268435456"),
        ("requests.cpu", "1", "2"),
        ("requests.memory", "1k", "1"),
        ("limits.ephemeral-storage", "1", "node allocatable"),
        ("requests.ephemeral-storage", "1", "0"),
        ("limits.cpu", "-1", ""),
        ("used.cpu", "1", ""),
        ("cpu", "1", ""),
    ] {
        let from = json!({"resourceFieldRef": {"resource": resource, "divisor": divisor}});
        assert_eq!(of(&from), expected, "{resource} / {divisor}");
    }
}

#[test]
fn a_resource_is_that_of_the_container_which_is_named() {
    let mut pod = pod();
    pod["spec"]["containers"] = json!([{"name": "app", "resources": {"limits": {"cpu": "2"}}}]);
    pod["spec"]["initContainers"] =
        json!([{"name": "init", "resources": {"limits": {"cpu": "3"}}}]);
    for (name, expected) in [("", "200"), ("app", "2000"), ("init", "3000"), ("other", "")] {
        let field = json!({"containerName": name, "resource": "limits.cpu", "divisor": "1m"});
        let container = json!({
            "name": "proxy",
            "env": [{"name": "V", "valueFrom": {"resourceFieldRef": field}}],
            "resources": {"limits": {"cpu": "200m"}},
        });
        let all = json!(resolve(&pod, &container, &read()));
        assert_eq!(all[0]["value"], expected, "{name}");
    }
}

#[test]
fn whole_sources_follow_the_single_variables_by_key_and_with_their_prefix() {
    let container = json!({
        "env": [{"name": "PLAIN", "value": "1"}, {"name": "NONE"}],
        "envFrom": [
            {"prefix": "P_", "configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "api-key"}},
            {"configMapRef": {"name": "unreadable"}},
            {"configMapRef": {"name": "empty"}}],
    });
    assert_eq!(
        json!(resolve(&pod(), &container, &read())),
        json!([
            {"name": "PLAIN", "value": "1", "valueFrom": null},
            {"name": "NONE", "value": "", "valueFrom": null},
            {"name": "P_LEVEL", "value": "debug",
             "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "LEVEL"}}},
            {"name": "P_a/b", "value": "c", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a/b"}}},
            {"name": "key", "value": "czNjcjN0", "valueFrom": {"secretKeyRef": {"name": "api-key", "key": "key"}}},
        ])
    );
}

#[test]
fn references_are_those_of_all_containers_each_once() {
    let pod = json!({"spec": {
        "initContainers": [{"envFrom": [{"secretRef": {"name": "api-key"}}]}],
        "containers": [
            {"env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "D", "value": "1"}]},
            {"env": null, "envFrom": [{"configMapRef": {"name": "api-key"}}]}],
    }});
    assert_eq!(
        references(&pod),
        [
            Reference::ConfigMap("api-key".into()),
            Reference::ConfigMap("settings".into()),
            Reference::Secret("api-key".into()),
        ]
    );
}

#[test]
fn names_that_no_object_can_have_are_never_asked_for() {
    let long = "a".repeat(254);
    for name in ["", ".", "..", "../secrets/x", "a/b", "A", "a?b", "a%2fb", long.as_str()] {
        let from = json!({"secretKeyRef": {"name": name, "key": "k"}});
        let pod = json!({"spec": {"containers": [{"env": [{"name": "V", "valueFrom": from}]}]}});
        assert!(references(&pod).is_empty(), "{name}");
        assert_eq!(of(&from), "");
    }
}

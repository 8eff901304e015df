//! A container in a pod's detail: its settings verbatim, its mounts with their volumes, its status.
//!
//! Environment values are resolved in `pod_env.rs`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::References;
use super::detail::{list, text};
use super::pod_env::{self, EnvVar};
use super::pod_status::ContainerStatus;

/// The contract's `Container`, its keys in alphabetical order as those of all details.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    args: Option<&'a Value>,
    commands: Option<&'a Value>,
    env: Vec<EnvVar<'a>>,
    image: &'a str,
    liveness_probe: Option<&'a Value>,
    name: &'a str,
    readiness_probe: Option<&'a Value>,
    resources: Cow<'a, Value>,
    security_context: Option<&'a Value>,
    startup_probe: Option<&'a Value>,
    state: &'static str,
    status: Option<&'a Value>,
    volume_mounts: Vec<Mount<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount<'a> {
    mount_path: &'a str,
    name: &'a str,
    read_only: bool,
    sub_path: &'a str,
    volume: Cow<'a, Value>,
}

/// One (init) container of the pod.
pub fn container<'a>(
    pod: &'a Value,
    container: &'a Value,
    references: &'a References,
) -> Container<'a> {
    let name = text(container, "/name");
    let status = status(pod, name);
    Container {
        args: container.get("args"),
        commands: container.get("command"),
        env: pod_env::resolve(pod, container, references),
        image: text(container, "/image"),
        liveness_probe: container.get("livenessProbe"),
        name,
        readiness_probe: container.get("readinessProbe"),
        resources: or_else(container.get("resources"), || json!({})),
        security_context: container.get("securityContext"),
        startup_probe: container.get("startupProbe"),
        state: state(status),
        status,
        volume_mounts: mounts(pod, container),
    }
}

fn or_else(value: Option<&Value>, otherwise: impl FnOnce() -> Value) -> Cow<'_, Value> {
    value.map_or_else(|| Cow::Owned(otherwise()), Cow::Borrowed)
}

fn status<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let normal = list(pod, "/status/containerStatuses").iter();
    let mut all = normal.chain(list(pod, "/status/initContainerStatuses"));
    all.find(|status| text(status, "/name") == name)
}

fn state(status: Option<&Value>) -> &'static str {
    let status = status.and_then(|status| ContainerStatus::deserialize(status).ok());
    status.map_or("Unknown", |status| status.state.shown())
}

/// Mounts with the volume of their name; a volume that does not exist is one with an empty name.
fn mounts<'a>(pod: &'a Value, container: &'a Value) -> Vec<Mount<'a>> {
    let volume = |name: &str| {
        let mut volumes = list(pod, "/spec/volumes").iter();
        volumes.find(|volume| text(volume, "/name") == name)
    };
    let mount = |mount: &'a Value| {
        let name = text(mount, "/name");
        Mount {
            mount_path: text(mount, "/mountPath"),
            name,
            read_only: mount.get("readOnly") == Some(&Value::Bool(true)),
            sub_path: text(mount, "/subPath"),
            volume: or_else(volume(name), || json!({"name": ""})),
        }
    };
    list(container, "/volumeMounts").iter().map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_shown_with_its_mounts_status_and_probes() {
        let pod = json!({
            "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]},
            "status": {
                "initContainerStatuses": [{"name": "init", "state": {"terminated": {"exitCode": 1}}}],
                "containerStatuses": [{"name": "main", "ready": true, "state": {"running": {}}}]},
        });
        let main = json!({
            "name": "main", "image": "tiles:1", "args": ["serve"],
            "volumeMounts": [
                {"name": "data", "mountPath": "/data", "readOnly": true, "subPath": "a"},
                {"name": "gone", "mountPath": "/gone"}],
            "livenessProbe": {"httpGet": {"path": "/live", "port": 80}},
            "resources": {"limits": {"cpu": "1"}},
        });
        assert_eq!(
            json!(container(&pod, &main, &References::new())),
            json!({
                "name": "main", "image": "tiles:1", "env": [], "commands": null, "args": ["serve"],
                "volumeMounts": [
                    {"name": "data", "readOnly": true, "mountPath": "/data", "subPath": "a",
                     "volume": {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}},
                    {"name": "gone", "readOnly": false, "mountPath": "/gone", "subPath": "",
                     "volume": {"name": ""}},
                ],
                "securityContext": null,
                "status": {"name": "main", "ready": true, "state": {"running": {}}},
                "state": "Running",
                "livenessProbe": {"httpGet": {"path": "/live", "port": 80}},
                "readinessProbe": null, "startupProbe": null,
                "resources": {"limits": {"cpu": "1"}},
            })
        );
        assert_eq!(
            json!(container(&pod, &json!({"name": "init"}), &References::new()))["state"],
            "Failed"
        );
        let new = json!(container(&pod, &json!({"name": "new"}), &References::new()));
        assert_eq!((&new["state"], &new["status"]), (&json!("Unknown"), &Value::Null));
        assert_eq!(new["resources"], json!({}));
    }
}

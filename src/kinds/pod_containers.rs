//! A container in a pod's detail: its settings verbatim, its mounts with their volumes, its status.
//!
//! Environment values are resolved in `pod_env.rs`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::detail::{copy, list, text};
use super::pod_status::ContainerStatus;
use super::{References, pod_env};

/// The contract's `Container` of one (init) container of the pod.
pub fn container(pod: &Value, container: &Value, references: &References) -> Value {
    let status = status(pod, text(container, "/name"));
    json!({
        "name": text(container, "/name"),
        "image": text(container, "/image"),
        "env": pod_env::resolve(pod, container, references),
        "commands": copy(container, "/command"),
        "args": copy(container, "/args"),
        "volumeMounts": mounts(pod, container),
        "securityContext": copy(container, "/securityContext"),
        "status": status,
        "state": state(status),
        "livenessProbe": copy(container, "/livenessProbe"),
        "readinessProbe": copy(container, "/readinessProbe"),
        "startupProbe": copy(container, "/startupProbe"),
        "resources": container.get("resources").cloned().unwrap_or_else(|| json!({})),
    })
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
fn mounts(pod: &Value, container: &Value) -> Value {
    let volume = |name: &str| {
        let mut volumes = list(pod, "/spec/volumes").iter();
        volumes.find(|volume| text(volume, "/name") == name).cloned()
    };
    let mount = |mount: &Value| {
        json!({
            "name": text(mount, "/name"),
            "readOnly": mount.get("readOnly") == Some(&Value::Bool(true)),
            "mountPath": text(mount, "/mountPath"),
            "subPath": text(mount, "/subPath"),
            "volume": volume(text(mount, "/name")).unwrap_or_else(|| json!({"name": ""})),
        })
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
            container(&pod, &main, &References::new()),
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
            container(&pod, &json!({"name": "init"}), &References::new())["state"],
            "Failed"
        );
        let new = container(&pod, &json!({"name": "new"}), &References::new());
        assert_eq!((&new["state"], &new["status"]), (&json!("Unknown"), &Value::Null));
        assert_eq!(new["resources"], json!({}));
    }
}

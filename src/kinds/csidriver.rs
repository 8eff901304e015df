//! CSI drivers: what each storage driver needs and can do.

use serde_json::{Value, json};

use super::detail::{copy, list};
use super::loose::{detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "csidriver",
        Resource::cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |driver| {
        let is = |key: &str| driver.pointer(key).and_then(Value::as_bool);
        let requests = list(driver, "/spec/tokenRequests").iter();
        json!({
            // The API server says true when nobody said anything.
            "attachRequired": is("/spec/attachRequired").unwrap_or(true),
            "podInfoOnMount": is("/spec/podInfoOnMount").unwrap_or(false),
            "storageCapacity": is("/spec/storageCapacity").unwrap_or(false),
            "requiresRepublish": is("/spec/requiresRepublish").unwrap_or(false),
            "tokenAudiences": requests.map(|one| copy(one, "/audience")).collect::<Vec<_>>(),
            "modes": list(driver, "/spec/volumeLifecycleModes"),
        })
        .into()
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |driver| {
        json!({
            "fsGroupPolicy": copy(driver, "/spec/fsGroupPolicy"),
            "seLinuxMount": copy(driver, "/spec/seLinuxMount"),
            "tokenRequests": list(driver, "/spec/tokenRequests"),
            "nodeAllocatableUpdatePeriodSeconds":
                copy(driver, "/spec/nodeAllocatableUpdatePeriodSeconds"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_shows_what_it_needs() {
        let json = r#"{"metadata": {"name": "csi.example.com"}, "spec": {"attachRequired": false,
            "storageCapacity": true, "fsGroupPolicy": "File", "volumeLifecycleModes": ["Persistent"],
            "tokenRequests": [{"audience": "vault", "expirationSeconds": 600}]}}"#;
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "csi.example.com", "creationTimestamp": null},
                "typeMeta": {"kind": "csidriver"},
                "attachRequired": false, "podInfoOnMount": false, "storageCapacity": true,
                "requiresRepublish": false, "tokenAudiences": ["vault"], "modes": ["Persistent"],
                "fsGroupPolicy": "File", "seLinuxMount": null,
                "tokenRequests": [{"audience": "vault", "expirationSeconds": 600}],
                "nodeAllocatableUpdatePeriodSeconds": null,
            })
        );
    }
}

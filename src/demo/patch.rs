//! The patch formats: JSON patch, merge patch, strategic merge with the merge keys of the lists
//! that clients patch in practice, and server-side apply.
//!
//! The demo keeps no field ownership: an apply conflicts with nobody, and what a later one leaves
//! out stays.

use serde_json::{Map, Value};

use super::reply::Fail;

/// A patch, read.
pub(super) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    /// The object as its manager wants it; made if it is not there.
    Apply(Value),
}

impl Patch {
    /// 415 on a format Kubernetes does not know. Apply is read as JSON, which is YAML.
    pub(super) fn read(content_type: &str, body: Value) -> Result<Patch, Fail> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => serde_json::from_value(body)
                .map(Patch::Json)
                .map_err(|error| Fail::bad_request(format!("not a JSON patch: {error}"))),
            "application/merge-patch+json" => Ok(Patch::Merge(body)),
            "application/strategic-merge-patch+json" => Ok(Patch::Strategic(body)),
            "application/apply-patch+yaml" => Ok(Patch::Apply(body)),
            _ => Err(Fail::media_type()),
        }
    }

    pub(super) fn apply(&self, object: &mut Value) -> Result<(), Fail> {
        match self {
            Patch::Json(patch) => json_patch::patch(object, patch).map_err(|_| Fail::unfit_patch()),
            Patch::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Patch::Strategic(patch) | Patch::Apply(patch) => {
                strategic(object, patch);
                Ok(())
            }
        }
    }
}

/// Merges maps, and lists by their merge key; `$` directives other than `$patch` are skipped.
fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").is_some_and(|how| how == "replace") || !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        match (value, merge_key(name)) {
            (Value::Null, _) => {
                target.remove(name);
            }
            (Value::Array(items), Some(key)) => {
                let list = target.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(list, items, key);
            }
            (value, _) => strategic(target.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// The `patchMergeKey` of a list, as the types of Kubernetes declare it.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "conditions" => Some("type"),
        "volumeMounts" => Some("mountPath"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn merge_list(list: &mut Value, items: &[Value], key: &str) {
    let Value::Array(list) = list else { return };
    for item in items {
        let at = list.iter().position(|it| it.get(key).is_some() && it.get(key) == item.get(key));
        let delete = item.get("$patch").is_some_and(|how| how == "delete");
        match (at, delete) {
            (Some(at), true) => drop(list.remove(at)),
            (Some(at), false) => strategic(&mut list[at], item),
            (None, true) => {}
            (None, false) => {
                let mut new = Value::Null;
                strategic(&mut new, item);
                list.push(new);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_strategic_patch_merges_containers_by_name() {
        let mut pod = json!({ "spec": { "containers": [
            { "name": "a", "image": "one" },
            { "name": "b", "image": "two" },
        ], "nodeName": "n" } });
        let patch = json!({ "spec": {
            "$setElementOrder/containers": [{ "name": "a" }],
            "containers": [{ "name": "a", "image": "three" }, { "name": "b", "$patch": "delete" }],
            "nodeName": null,
        } });
        strategic(&mut pod, &patch);
        let wanted = json!({ "spec": { "containers": [{ "name": "a", "image": "three" }] } });
        assert_eq!(pod, wanted);
    }

    #[test]
    fn an_apply_leaves_what_it_does_not_name() {
        let patch = json!({ "data": { "a": "2", "b": "1" } });
        let patch = Patch::read("application/apply-patch+yaml", patch).ok().unwrap();
        let mut map = json!({ "metadata": { "name": "m" }, "data": { "a": "1", "c": "1" } });
        patch.apply(&mut map).ok().unwrap();
        let wanted = json!({ "a": "2", "b": "1", "c": "1" });
        assert_eq!(map, json!({ "metadata": { "name": "m" }, "data": wanted }));
    }
}

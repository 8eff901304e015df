//! A deployment's replica sets: the new one, whose template is the deployment's own, and the old
//! ones that still have replicas.
//!
//! Read live as the caller: only whole objects tell templates apart.

use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Gateway;
use super::error::ApiError;
use super::related::{Subject, known};
use super::target::{encoded, live};
use crate::kinds::Row;
use crate::upstream::User;

/// Sets of one deployment that are looked at; Kubernetes keeps ten old ones unless told otherwise.
const SETS: usize = 500;
/// The label that tells the sets of a deployment apart: not a part of the deployment's template.
pub const HASH: &str = "pod-template-hash";

#[derive(Default)]
pub struct Sets {
    pub new: Option<Arc<Row>>,
    /// Without those that have no replicas.
    pub old: Vec<Arc<Row>>,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

/// The sets that the subject, a deployment, controls.
pub async fn sets(subject: &Subject<'_>) -> Result<Sets, ApiError> {
    let all = owned(subject.gateway, subject.user, subject.object).await?;
    Ok(choose(subject.object, all))
}

/// The sets that a deployment controls, whole.
pub async fn owned(
    gateway: &Gateway,
    user: &User,
    deployment: &Value,
) -> Result<Vec<(Arc<Row>, Value)>, ApiError> {
    let kind = known("replicaset")?;
    let selector = selector(deployment);
    let selector = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
    let collection = kind.resource.collection(Some(&encoded(text(deployment, "namespace"))));
    let path = format!("{collection}?labelSelector={selector}&limit={SETS}");
    let json = live(gateway, user, &path).await?;
    let list: List = serde_json::from_str(&json).map_err(|error| ApiError::internal(&error))?;
    let mut all = Vec::new();
    for item in list.items {
        let row = (kind.row)(item.get())?;
        if row.owner().is_some_and(|uid| uid == text(deployment, "uid")) {
            let set =
                serde_json::from_str(item.get()).map_err(|error| ApiError::internal(&error))?;
            all.push((Arc::new(row), set));
        }
    }
    Ok(all)
}

/// A text of an object's metadata.
fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get("metadata").and_then(|meta| meta.get(key)?.as_str()).unwrap_or_default()
}

/// The oldest set of the deployment's template is the new one, as the deployment controller has it.
fn choose(deployment: &Value, mut all: Vec<(Arc<Row>, Value)>) -> Sets {
    all.sort_by(|(a, _), (b, _)| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
    let wanted = template(deployment);
    let new = all.iter().position(|(_, set)| template(set) == wanted);
    let mut sets = Sets::default();
    for (index, (row, set)) in all.into_iter().enumerate() {
        if new == Some(index) {
            sets.new = Some(row);
        } else if set.pointer("/spec/replicas").and_then(Value::as_i64) != Some(0) {
            sets.old.push(row);
        }
    }
    sets
}

/// The pod template without the hash, and without what its absence leaves empty.
fn template(object: &Value) -> Value {
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH);
        }
        if metadata.get("labels").and_then(Value::as_object).is_some_and(Map::is_empty) {
            metadata.remove("labels");
        }
    }
    template
}

/// The deployment's selector as a query parameter writes it.
fn selector(deployment: &Value) -> String {
    let labels = deployment.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    let expressions = deployment.pointer("/spec/selector/matchExpressions");
    let expressions = expressions.and_then(Value::as_array).into_iter().flatten();
    labels.chain(expressions.filter_map(requirement)).collect::<Vec<_>>().join(",")
}

fn requirement(expression: &Value) -> Option<String> {
    let key = expression.get("key")?.as_str()?;
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values: Vec<&str> = values.filter_map(Value::as_str).collect();
    let values = values.join(",");
    match expression.get("operator")?.as_str()? {
        "In" => Some(format!("{key} in ({values})")),
        "NotIn" => Some(format!("{key} notin ({values})")),
        "Exists" => Some(key.to_owned()),
        "DoesNotExist" => Some(format!("!{key}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(name: &str, created: i64, replicas: i64, image: &str) -> (Arc<Row>, Value) {
        let object = json!({
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "template": {
                "metadata": {"labels": {HASH: name}, "creationTimestamp": null},
                "spec": {"containers": [{"image": image}]}}},
        });
        let mut row = (known("replicaset").unwrap().row)(&object.to_string()).unwrap();
        row.created = created;
        (Arc::new(row), object)
    }

    #[test]
    fn the_new_set_has_the_deployments_template_and_the_old_ones_have_replicas() {
        let deployment = json!({"spec": {"template": {
            "metadata": {}, "spec": {"containers": [{"image": "tiles:2"}]}}}});
        let all = vec![
            set("c", 3, 1, "tiles:2"),
            set("b", 2, 3, "tiles:2"),
            set("a", 1, 1, "tiles:1"),
            set("zero", 1, 0, "tiles:0"),
        ];
        let sets = choose(&deployment, all);
        assert_eq!(sets.new.unwrap().name, "b");
        let old: Vec<_> = sets.old.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(old, ["a", "c"]);
        assert!(choose(&deployment, Vec::new()).new.is_none());
    }

    #[test]
    fn a_selector_is_written_as_a_query_takes_it() {
        let deployment = json!({"spec": {"selector": {
            "matchLabels": {"app": "tiles"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["web", "api"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "new", "operator": "Exists"},
                {"key": "x", "operator": "NotIn", "values": ["y"]}]}}});
        assert_eq!(selector(&deployment), "app=tiles,tier in (web,api),!old,new,x notin (y)");
    }
}

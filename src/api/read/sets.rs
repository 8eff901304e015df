//! A deployment's replica sets: the new one, whose template is the deployment's own, and the old
//! ones that still have replicas.
//!
//! Read live as the caller: only whole objects tell templates apart. All of them are read, since
//! they come by name and the new one may be the last.

use std::sync::Arc;

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::related::{Subject, known};
use crate::api::Gateway;
use crate::api::error::ApiError;
use crate::api::target::{encoded, live};
use crate::kinds::Row;
use crate::kinds::detail::whole;
use crate::upstream::User;

/// Sets of one answer: it is as long as one may be when they have 80 KiB each.
const PAGE: usize = 100;
/// Answers that are read one after the other. Kubernetes keeps ten old sets unless told otherwise,
/// but some deployments were told to keep them all: 2,000 small sets, or some 900 of 9 KiB.
const PAGES: usize = 20;
/// Bytes of a deployment's own sets after which no more are read: they are kept until all are.
const BYTES: usize = 8 << 20;
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
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListMeta {
    /// Empty when this is the end.
    r#continue: String,
}

/// The sets that the subject, a deployment, controls.
pub async fn sets(subject: &Subject<'_>) -> Result<Sets, ApiError> {
    let all = owned(subject.gateway, subject.user, subject.object).await?;
    Ok(choose(subject.object, all))
}

/// The sets that a deployment controls, whole but for their `managedFields`.
///
/// # Errors
/// Also when there are too many to read them all: the one that is looked for may be any of them.
pub async fn owned(
    gateway: &Gateway,
    user: &User,
    deployment: &Value,
) -> Result<Vec<(Arc<Row>, Value)>, ApiError> {
    let kind = known("replicaset")?;
    let selector = selector(deployment);
    let selector = utf8_percent_encode(&selector, NON_ALPHANUMERIC);
    let collection = kind.resource.collection(Some(&encoded(text(deployment, "namespace"))));
    let first = format!("{collection}?labelSelector={selector}&limit={PAGE}");
    let (mut all, mut bytes, mut path) = (Vec::new(), 0, first.clone());
    for _ in 0..PAGES {
        let json = live(gateway, user, &path).await?;
        let list: List = serde_json::from_str(&json).map_err(|error| ApiError::internal(&error))?;
        for item in list.items {
            let row = (kind.row)(item.get())?;
            if row.owner().is_some_and(|uid| uid == text(deployment, "uid")) {
                bytes += item.get().len();
                if bytes > BYTES {
                    return Err(too_many());
                }
                let set = whole(item.get()).map_err(|error| ApiError::internal(&error))?;
                all.push((Arc::new(row), set));
            }
        }
        if list.metadata.r#continue.is_empty() {
            return Ok(all);
        }
        let token = utf8_percent_encode(&list.metadata.r#continue, NON_ALPHANUMERIC);
        path = format!("{first}&continue={token}");
    }
    Err(too_many())
}

fn too_many() -> ApiError {
    let most = (PAGE * PAGES).to_string();
    let args = [("most", most.as_str())];
    ApiError::with_status(StatusCode::BAD_GATEWAY, "error-too-many-sets", &args)
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

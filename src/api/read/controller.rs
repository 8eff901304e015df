//! What controls a pod, as the contract's `ResourceOwner`: a replica set out of the cache where the
//! caller may see it there, anything else by a live read as the caller, custom kinds included.
//!
//! It follows one owner, not the owner's owner.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::join::Joins;
use super::list;
use super::related::{Part, Subject, is_missing, known};
use super::view::{self, View};
use crate::api::error::ApiError;
use crate::api::target::{self, encoded, live};
use crate::auth::Reach;
use crate::cache::State;
use crate::kinds::{PodsOf, Row, later};
use crate::upstream::Served;

const KEY: &str = "controller";
/// For a pod that nothing controls, or whose controller is gone.
const NOBODY: &[u8] = br#"{"objectMeta":{"creationTimestamp":null},"typeMeta":{},"pods":{"current":0,"running":0,"pending":0,"failed":0,"succeeded":0,"warnings":[]},"containerImages":null,"initContainerImages":null}"#;

/// The owner reference with `controller: true`.
struct Owner<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
}

impl<'a> Owner<'a> {
    fn of(object: &'a Value) -> Option<Self> {
        let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
        let owner = owners.iter().find(|owner| is_true(owner.get("controller")))?;
        let text = |key: &str| owner.get(key).and_then(Value::as_str);
        let api_version = text("apiVersion")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (kind, name, uid) = (text("kind")?, text("name")?, text("uid")?);
        Some(Self { group, version, kind, name, uid })
    }
}

fn is_true(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool) == Some(true)
}

/// `controller` of a pod's detail; the key is absent only when the owner may not be read.
pub async fn controller(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let Some(owner) = Owner::of(subject.object) else { return Ok(Part::of(KEY, NOBODY)) };
    let Subject { gateway, user, locale, row: pod, .. } = *subject;
    let wanted = Reach::one(&pod.namespace);
    // The joins of any owner are those of a replica set: its pods and their warnings.
    let sets = known("replicaset")?;
    let (found, (joins, mut errors)) = tokio::join!(
        find(subject, &owner),
        list::open_joins(gateway, user, sets, &wanted, locale),
    );
    let mut views = Vec::new();
    let part = match found {
        Ok(Some((row, view))) => {
            views.extend(view);
            let json = written(&row, &joins).map_err(|error| ApiError::internal(&error))?;
            Part::of(KEY, &json)
        }
        Ok(None) => Part::of(KEY, NOBODY),
        Err(error) => {
            let forbidden = error.status == StatusCode::FORBIDDEN;
            errors.insert(0, subject.item(error));
            if forbidden { Part::default() } else { Part::of(KEY, NOBODY) }
        }
    };
    let Joins { pods, events, replica_sets, usage: _ } = joins;
    views.extend([pods, events, replica_sets].into_iter().flatten());
    Ok(Part { errors, views, ..part })
}

/// The owner's row, and the view that it came from unless it was read live; `None` when it is gone.
async fn find(
    subject: &Subject<'_>,
    owner: &Owner<'_>,
) -> Result<Option<(Arc<Row>, Option<View>)>, ApiError> {
    if let Some(found) = cached_set(subject, owner).await? {
        return Ok(Some(found));
    }
    let Subject { gateway, user, row: pod, .. } = *subject;
    let is_owner = |served: &Served| served.group == owner.group && served.kind == owner.kind;
    let Some(served) = target::find(gateway, user, is_owner).await? else {
        return Ok(None);
    };
    let version = served.version(Some(owner.version)).or_else(|| served.version(None));
    let version = version.unwrap_or(owner.version);
    let collection = served.collection(version, Some(&encoded(&pod.namespace)));
    let json = match live(gateway, user, &format!("{collection}/{}", encoded(owner.name))).await {
        Ok(json) => json,
        Err(failure) if is_missing(&failure) => return Ok(None),
        Err(failure) => return Err(failure.into()),
    };
    let row = later::owner(&json, &served.shown())?;
    // Another object of the same name is not the owner.
    Ok((row.uid == *owner.uid).then(|| (Arc::new(row), None)))
}

/// Only where a cache is kept: a live list of all sets would cost more than one GET. Rows of these
/// kinds have the same fields as [`later::owner`]'s; those of others, jobs among them, have not.
async fn cached_set(
    subject: &Subject<'_>,
    owner: &Owner<'_>,
) -> Result<Option<(Arc<Row>, Option<View>)>, ApiError> {
    let Subject { gateway, user, row: pod, .. } = *subject;
    let sets = match (owner.group, owner.kind) {
        ("apps", "ReplicaSet") => known("replicaset")?,
        ("apps", "DaemonSet") => known("daemonset")?,
        ("apps", "StatefulSet") => known("statefulset")?,
        _ => return Ok(None),
    };
    if gateway.cache.feed(sets).is_none_or(|feed| feed.state() != State::Current) {
        return Ok(None);
    }
    let Ok(view) = view::open(gateway, user, sets, &Reach::one(&pod.namespace)).await else {
        return Ok(None);
    };
    let row = view.store().by_uid(&view.scope, &owner.uid.into());
    Ok(row.map(|row| (row, Some(view))))
}

fn written(row: &Row, joins: &Joins) -> serde_json::Result<Vec<u8>> {
    let mut out = row.json.strip_suffix(b"}").unwrap_or_default().to_vec();
    out.extend_from_slice(b",\"pods\":");
    joins.write_pod_info(row, &joins.pods_of(row, PodsOf::Owner), &mut out)?;
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_owner_is_the_reference_that_controls() {
        let pod = json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
            {"apiVersion": "batch/v1", "kind": "Job", "name": "import", "uid": "2", "controller": true}]}});
        let owner = Owner::of(&pod).unwrap();
        assert_eq!((owner.group, owner.version, owner.kind), ("batch", "v1", "Job"));
        assert_eq!((owner.name, owner.uid), ("import", "2"));
        assert!(Owner::of(&json!({"metadata": {"ownerReferences": []}})).is_none());
        assert!(Owner::of(&json!({})).is_none());
    }

    #[test]
    fn nobody_is_an_owner_with_all_keys() {
        let nobody: Value = serde_json::from_slice(NOBODY).unwrap();
        assert_eq!(nobody.as_object().unwrap().len(), 5);
        assert_eq!(nobody["pods"]["warnings"], json!([]));
    }
}

//! Custom resource definitions: names, versions, and whether the API server has established them.
//!
//! Their schemas, which are most of their bytes, are skipped while reading and never kept. Objects
//! of the kinds they define are another matter (`custom`).

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::detail::{conditions, list, text};
use super::loose::detail_with;
use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode};
use super::*;

pub const KIND: KindDef = KindDef {
    relations: &[Relation::CustomObjects],
    ..KindDef::of(
        "crd",
        Resource::cluster(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        ),
        row,
        detail,
    )
};

/// `typeMeta.kind`: this one kind has another name in its routes.
const SHOWN: &str = "customresourcedefinition";

#[derive(Deserialize)]
struct Definition<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow)]
    group: Text<'a>,
    #[serde(borrow)]
    scope: Text<'a>,
    #[serde(borrow)]
    versions: Option<Vec<Version<'a>>>,
}

#[derive(Deserialize)]
struct Version<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(default)]
    served: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    accepted_names: Value,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    group: &'a str,
    scope: &'a str,
    names: Value,
    established: &'a str,
}

fn row(json: &str) -> Result<Row, Malformed> {
    let Definition { metadata, spec, status } = decode(KIND.name, json)?;
    let versions = spec.versions.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let established = conditions.iter().find(|condition| &*condition.kind == "Established");
    // Not accepted yet: the keys that every definition has, as Kubernetes writes them then.
    let names = match status.accepted_names {
        Value::Null => json!({ "plural": "", "kind": "" }),
        names => names,
    };
    let item = Item {
        object_meta: metadata.object_meta(),
        type_meta: TypeMeta::plain(SHOWN),
        version: versions.iter().find(|version| version.served).map(|version| &*version.name),
        group: &spec.group,
        scope: &spec.scope,
        names,
        established: established.map_or("Unknown", |condition| &*condition.status),
    };
    metadata.row(KIND.name, &item, vec![], vec![], Facts::None)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |definition| {
        let mut own = json!({
            "conditions": conditions(definition, "lastProbeTime"),
            "subresources": subresources(definition),
        });
        let versions = list(definition, "/spec/versions");
        if !versions.is_empty() {
            own["versions"] = versions.iter().map(version).collect();
        }
        own
    })
}

fn version(version: &Value) -> Value {
    json!({
        "name": text(version, "/name"),
        "served": is_true(version, "served"),
        "storage": is_true(version, "storage"),
    })
}

fn is_true(version: &Value, key: &str) -> bool {
    version.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// What objects of the first served version have besides themselves.
fn subresources(definition: &Value) -> Vec<&'static str> {
    let mut versions = list(definition, "/spec/versions").iter();
    let shown = versions.find(|version| is_true(version, "served"));
    let given = |pointer: &str| {
        shown.and_then(|version| version.pointer(pointer)).is_some_and(|one| !one.is_null())
    };
    let all = [("Scale", "/subresources/scale"), ("Status", "/subresources/status")];
    all.into_iter().filter(|(_, pointer)| given(pointer)).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDGETS: &str = r#"{"metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd", "wg"]},
            "versions": [{"name": "v2", "served": false, "storage": false},
                {"name": "v1", "served": true, "storage": true,
                 "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas"}},
                 "schema": {"openAPIV3Schema": {"type": "object"}}}]},
        "status": {"acceptedNames": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "conditions": [{"type": "NamesAccepted", "status": "False"},
                {"type": "Established", "status": "True", "reason": "R", "message": "M",
                 "lastTransitionTime": "2026-01-02T03:04:05Z"}]}}"#;

    #[test]
    fn a_definition_shows_its_first_served_version_and_the_accepted_names() {
        let row = row(WIDGETS).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&row.json).unwrap(),
            json!({
                "objectMeta": {"name": "widgets.example.com", "creationTimestamp": null},
                "typeMeta": {"kind": "customresourcedefinition"},
                "version": "v1", "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
                "established": "True",
            })
        );
    }

    #[test]
    fn a_detail_adds_versions_conditions_and_subresources() {
        let fields = detail_of(&KIND, WIDGETS).unwrap();
        assert_eq!(
            fields["versions"],
            json!([
                {"name": "v2", "served": false, "storage": false},
                {"name": "v1", "served": true, "storage": true},
            ])
        );
        assert_eq!(
            fields["conditions"][1],
            json!({"type": "Established", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": "2026-01-02T03:04:05Z", "reason": "R", "message": "M"})
        );
        assert_eq!(fields["subresources"], json!(["Scale", "Status"]));
        assert_eq!(fields["typeMeta"]["kind"], "customresourcedefinition");
        assert_eq!(fields.len(), 10);
    }

    #[test]
    fn a_definition_that_nobody_has_looked_at_yet_is_of_unknown_state() {
        let json = r#"{"metadata": {"name": "a.b"}, "spec": {"group": "b", "scope": "Cluster",
            "versions": [{"name": "v1", "served": false, "storage": true}]},
            "status": {"acceptedNames": null, "conditions": null}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        assert_eq!(fields["established"], "Unknown");
        assert_eq!(fields["names"], json!({"plural": "", "kind": ""}));
        assert_eq!(fields["conditions"], Value::Null);
        assert_eq!(fields["subresources"], json!([]));
        assert!(!fields.contains_key("version"));
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "a.b"}}"#).unwrap();
        assert!(!bare.contains_key("versions"));
    }
}

//! Reference grants of the Gateway API: who in other namespaces may refer to what in this one.

use serde_json::json;

use super::detail::list;
use super::gateway_api::GROUP;
use super::loose::row_with;
use super::meta::flat;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    older: &["v1beta1", "v1alpha2"],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "referencegrant",
        Resource::namespaced(GROUP, "v1", "ReferenceGrant", "referencegrants"),
        row,
        detail,
    )
};

/// `from` and `to` as they stand in the object: all there is of a grant.
fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |grant| {
        json!({ "from": list(grant, "/spec/from"), "to": list(grant, "/spec/to") }).into()
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_shows_who_may_refer_to_what() {
        let json = r#"{"metadata": {"name": "g", "namespace": "core"}, "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service"}]}}"#;
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "g", "namespace": "core", "creationTimestamp": null},
                "typeMeta": {"kind": "referencegrant"},
                "from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "shop"}],
                "to": [{"group": "", "kind": "Service"}],
            })
        );
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "g"}}"#).unwrap();
        assert_eq!((&bare["from"], &bare["to"]), (&json!([]), &json!([])));
    }
}

//! Service accounts: metadata alone. The secrets they name are their child lists.
//!
//! Not their tokens: those are asked for, and never kept in an account.

use super::loose::head;
use super::meta::flat;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    children: &[
        ("event", Child::Events),
        ("imagepullsecret", Child::PullSecrets),
        ("secret", Child::Secrets),
    ],
    ..KindDef::of(
        "serviceaccount",
        Resource::namespaced("", "v1", "ServiceAccount", "serviceaccounts"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    head(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_account_shows_metadata_alone_in_lists_and_details() {
        let json = r#"{"metadata": {"name": "tiles", "namespace": "atlas"},
            "secrets": [{"name": "api-key"}], "imagePullSecrets": [{"name": "pull"}]}"#;
        let expected = json!({
            "objectMeta": {"name": "tiles", "namespace": "atlas", "creationTimestamp": null},
            "typeMeta": {"kind": "serviceaccount"},
        });
        let item: Value = serde_json::from_slice(&row(json).unwrap().json).unwrap();
        assert_eq!(item, expected);
        assert_eq!(Value::Object(detail_of(&KIND, json).unwrap()), expected);
    }
}

//! Network policies: metadata alone in lists, the rules as they are in the detail.
//!
//! Which pods a policy selects or lets through is not worked out here.

use serde_json::json;

use super::detail::list;
use super::loose::{detail_with, head};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Metadata,
    ..KindDef::of(
        "networkpolicy",
        Resource::namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    head(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |policy| {
        // An empty selector is not nothing: it selects every pod of the namespace.
        let selector = policy.pointer("/spec/podSelector").cloned();
        let mut own = json!({ "podSelector": selector.unwrap_or_else(|| json!({})) });
        for key in ["ingress", "egress", "policyTypes"] {
            let given = list(policy, &format!("/spec/{key}"));
            if !given.is_empty() {
                own[key] = given.into();
            }
        }
        own
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"{"metadata": {"name": "deny", "namespace": "atlas"},
        "spec": {"podSelector": {"matchLabels": {"app": "tiles"}}, "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": 8080}],
                "from": [{"namespaceSelector": {}}]}]}}"#;

    #[test]
    fn a_policy_is_listed_without_its_rules() {
        let item: Value = serde_json::from_slice(&row(DENY).unwrap().json).unwrap();
        assert_eq!(item["typeMeta"], json!({"kind": "networkpolicy"}));
        assert_eq!(item.as_object().unwrap().len(), 2);
    }

    #[test]
    fn a_detail_shows_the_rules_that_there_are() {
        let fields = detail_of(&KIND, DENY).unwrap();
        assert_eq!(
            Value::Object(fields),
            json!({
                "objectMeta": {"name": "deny", "namespace": "atlas", "creationTimestamp": null},
                "typeMeta": {"kind": "networkpolicy"},
                "podSelector": {"matchLabels": {"app": "tiles"}},
                "ingress": [{"ports": [{"protocol": "TCP", "port": 8080}],
                    "from": [{"namespaceSelector": {}}]}],
                "policyTypes": ["Ingress"],
            })
        );
    }

    #[test]
    fn a_bare_detail_has_an_empty_selector_and_no_rules() {
        let json = r#"{"metadata": {"name": "a"}, "spec": {"egress": []}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        assert_eq!(fields["podSelector"], json!({}));
        assert_eq!(fields.len(), 3);
    }
}

//! Mutating webhook configurations: who may change an object before it is accepted.

use super::webhooks;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: webhooks::COLUMNS,
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "mutatingwebhookconfiguration",
        Resource::cluster(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        ),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    webhooks::row(KIND.name, json)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    webhooks::detail(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_detail_shows_whether_a_webhook_is_called_again() {
        let json = r#"{"metadata": {"name": "inject"}, "webhooks": [
            {"name": "a.example.com", "reinvocationPolicy": "IfNeeded"}]}"#;
        let fields = detail_of(&KIND, json).unwrap();
        assert_eq!(fields["webhookCount"], 1);
        assert_eq!(fields["webhooks"][0]["reinvocationPolicy"], "IfNeeded");
        assert_eq!(fields["typeMeta"], json!({"kind": "mutatingwebhookconfiguration"}));
    }

    #[test]
    fn a_configuration_may_have_no_webhooks() {
        let fields = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!((&fields["webhookCount"], &fields["webhooks"]), (&json!(0), &json!([])));
    }
}

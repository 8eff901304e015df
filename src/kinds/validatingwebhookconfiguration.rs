//! Validating webhook configurations: who is asked before an object is accepted.

use super::webhooks;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: webhooks::COLUMNS,
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "validatingwebhookconfiguration",
        Resource::cluster(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
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

    const GUARD: &str = r#"{"metadata": {"name": "guard"}, "webhooks": [
        {"name": "a.example.com", "failurePolicy": "Fail", "rules": [{"resources": ["pods"]}],
         "clientConfig": {"caBundle": "Zm9v", "service": {"namespace": "n", "name": "s"}}},
        {"name": "b.example.com", "clientConfig": {"url": "https://b.example.com"}}]}"#;

    #[test]
    fn a_configuration_shows_how_many_webhooks_it_has_and_their_names() {
        let row = row(GUARD).unwrap();
        assert_eq!(*row.cells, [Cell::Number(2)]);
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["webhookCount"], 2);
        assert_eq!(item["webhookNames"], json!(["a.example.com", "b.example.com"]));
        assert_eq!(item["typeMeta"], json!({"kind": "validatingwebhookconfiguration"}));
    }

    #[test]
    fn a_detail_shows_the_webhooks_without_their_ca_bundles() {
        let fields = detail_of(&KIND, GUARD).unwrap();
        let called = json!({"service": {"namespace": "n", "name": "s"}});
        assert_eq!(fields["webhooks"][0]["clientConfig"], called);
        assert_eq!(fields["webhooks"][0]["rules"], json!([{"resources": ["pods"]}]));
        assert_eq!(fields["webhooks"][1]["clientConfig"]["url"], "https://b.example.com");
    }
}

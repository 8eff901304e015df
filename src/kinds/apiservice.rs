//! API services: which server answers for a group's version, and whether it does.
//!
//! Those of the API server itself and of custom kinds are called `Local`, as kubectl does.

use serde_json::{Value, json};

use super::conditions;
use super::detail::{copy, list, number, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::text("service"), Column::text("available"), Column::text("reason")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "apiservice",
        Resource::cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |service| {
        let all = list(service, "/status/conditions");
        let available = conditions::status(all, "Available");
        let found = conditions::find(all, "Available");
        let reason = found.map(|found| text(found, "/reason")).unwrap_or_default();
        let behind = behind(service);
        let fields = json!({
            "group": text(service, "/spec/group"),
            "version": text(service, "/spec/version"),
            "service": behind,
            "available": available,
            "reason": reason,
        });
        let texts = [behind.as_str(), available, reason];
        let cells = texts.map(|text| Cell::Text(text.into())).into();
        Own { fields, cells, ..Own::default() }
    })
}

/// Namespace and name of the service that answers.
fn behind(service: &Value) -> String {
    match text(service, "/spec/service/name") {
        "" => "Local".into(),
        name => format!("{}/{name}", text(service, "/spec/service/namespace")),
    }
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |service| {
        let insecure = service.pointer("/spec/insecureSkipTLSVerify").and_then(Value::as_bool);
        json!({
            "port": copy(service, "/spec/service/port"),
            "insecureSkipTLSVerify": insecure.unwrap_or(false),
            "groupPriorityMinimum": number(service, "/spec/groupPriorityMinimum"),
            "versionPriority": number(service, "/spec/versionPriority"),
            "conditions": list(service, "/status/conditions"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_does_not_answer_says_why() {
        let json = r#"{"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "caBundle": "Zm9v",
            "service": {"namespace": "kube-system", "name": "metrics", "port": 443}},
            "status": {"conditions": [{"type": "Available", "status": "False",
                "reason": "MissingEndpoints", "message": "none"}]}}"#;
        let texts = ["kube-system/metrics", "False", "MissingEndpoints"];
        assert_eq!(*row(json).unwrap().cells, texts.map(|text| Cell::Text(text.into())));
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "v1beta1.metrics.k8s.io", "creationTimestamp": null},
                "typeMeta": {"kind": "apiservice"},
                "group": "metrics.k8s.io", "version": "v1beta1", "service": "kube-system/metrics",
                "available": "False", "reason": "MissingEndpoints",
                "port": 443, "insecureSkipTLSVerify": false,
                "groupPriorityMinimum": 100, "versionPriority": 100,
                "conditions": [{"type": "Available", "status": "False",
                    "reason": "MissingEndpoints", "message": "none"}],
            })
        );
    }

    #[test]
    fn one_without_a_service_is_local() {
        let json =
            r#"{"metadata": {"name": "v1.apps"}, "spec": {"group": "apps", "version": "v1"}}"#;
        let fields = detail_of(&KIND, json).unwrap();
        assert_eq!((&fields["service"], &fields["port"]), (&json!("Local"), &Value::Null));
        assert_eq!(fields["available"], "Unknown");
    }
}

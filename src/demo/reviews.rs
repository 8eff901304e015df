//! Reviews of the caller: may I, what may I, who am I.
//!
//! They answer for the caller only; reviews of others are not served.

use serde_json::{Value, json};

use super::kinds::{ACCESS_REVIEW, Kind, RULES_REVIEW};
use super::rbac::{Attributes, Caller, Rule};
use super::reply::{self, Fail, Reply};
use super::server::Shared;

pub(super) fn answer(
    shared: &Shared,
    caller: &Caller,
    kind: &'static Kind,
    body: Value,
) -> Result<Reply, Fail> {
    let spec = body.get("spec").cloned().unwrap_or_default();
    let status = if std::ptr::eq(kind, &ACCESS_REVIEW) {
        access(shared, caller, &spec)?
    } else if std::ptr::eq(kind, &RULES_REVIEW) {
        rules(shared, caller, &spec)?
    } else {
        json!({ "userInfo": { "username": caller.name, "groups": caller.groups } })
    };
    let mut review = json!({
        "kind": kind.kind,
        "apiVersion": kind.api_version(),
        "metadata": { "creationTimestamp": null },
        "status": status,
    });
    if !spec.is_null() {
        // A real server forgets which namespace the rules are of.
        review["spec"] = if std::ptr::eq(kind, &RULES_REVIEW) { json!({}) } else { spec };
    }
    Ok(reply::json(201, &review))
}

fn access(shared: &Shared, caller: &Caller, spec: &Value) -> Result<Value, Fail> {
    let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    let asked = match (spec.get("resourceAttributes"), spec.get("nonResourceAttributes")) {
        (Some(of), None) => {
            let mut resource = text(of, "resource");
            let sub = text(of, "subresource");
            if !sub.is_empty() {
                resource = format!("{resource}/{sub}");
            }
            Attributes {
                verb: text(of, "verb"),
                group: text(of, "group"),
                resource,
                namespace: text(of, "namespace"),
                name: text(of, "name"),
                path: None,
            }
        }
        (None, Some(of)) => Attributes {
            verb: text(of, "verb"),
            path: Some(text(of, "path")),
            ..Attributes::default()
        },
        _ => {
            let message = "spec: exactly one of nonResourceAttributes or resourceAttributes must \
                           be specified";
            return Err(Fail::new(422, "Invalid", message));
        }
    };
    Ok(match shared.rbac.allowed(&shared.store, caller, &asked) {
        Some(reason) if reason.is_empty() => json!({ "allowed": true }),
        Some(reason) => json!({ "allowed": true, "reason": reason }),
        None => json!({ "allowed": false }),
    })
}

fn rules(shared: &Shared, caller: &Caller, spec: &Value) -> Result<Value, Fail> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Fail::bad_request("no namespace on request"));
    }
    let rules = shared.rbac.rules(&shared.store, caller, namespace);
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    Ok(json!({
        "resourceRules": resources,
        "nonResourceRules": paths,
        "incomplete": false,
    }))
}

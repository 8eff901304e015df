//! SelfSubjectRulesReview as the user: which kinds may be listed in one namespace, all at once.
//!
//! Trusted only when complete and without error, and only for rules without resource names: what
//! it does not list then is denied, what it lists is allowed. Else the access review decides.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::kinds::{KINDS, KindDef, Resource};
use crate::upstream::{Cluster, Failure, Identity, UpstreamError, User};

/// The kinds of [`KINDS`] that may be listed in a namespace.
pub(super) struct Listable {
    complete: bool,
    kinds: Vec<bool>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    resource_rules: Option<Vec<Rule>>,
    incomplete: bool,
    evaluation_error: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Listable {
    /// Whether the kind may be listed; `None` when this review cannot tell.
    pub fn allows(&self, kind: &KindDef) -> Option<bool> {
        self.kinds.get(kind.index()).copied().filter(|_| self.complete)
    }
}

pub(super) async fn review(
    cluster: &Cluster,
    user: &User,
    namespace: &str,
) -> Result<Arc<Listable>, Failure> {
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": namespace },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = cluster.post(Identity::User(user), path, &question).await?;
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|error| UpstreamError::Broken(format!("rules review: {error}")))?;
    Ok(Arc::new(listable(&answer.status)))
}

fn listable(status: &Status) -> Listable {
    let rules = || status.resource_rules.iter().flatten();
    let kinds = KINDS.iter().map(|kind| rules().any(|rule| allows(rule, &kind.resource)));
    Listable {
        complete: !status.incomplete && status.evaluation_error.is_empty(),
        kinds: kinds.collect(),
    }
}

fn allows(rule: &Rule, resource: &Resource) -> bool {
    let has = |list: &[String], what: &str| list.iter().any(|item| item == "*" || item == what);
    rule.resource_names.is_empty()
        && has(&rule.verbs, "list")
        && has(&rule.api_groups, resource.group)
        && has(&rule.resources, resource.plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rules: serde_json::Value, kind: &str) -> bool {
        let status = serde_json::from_value(json!({ "resourceRules": rules })).unwrap();
        listable(&status).allows(crate::kinds::by_name(kind).unwrap()).unwrap()
    }

    #[test]
    fn a_rule_counts_with_its_group_resource_and_verb() {
        let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
        assert!(verdict(rules.clone(), "pod"));
        assert!(!verdict(rules.clone(), "event"));
        assert!(!verdict(rules, "deployment"));
        assert!(verdict(
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
            "deployment"
        ));
        assert!(!verdict(
            json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]),
            "pod"
        ));
    }

    #[test]
    fn rights_limited_by_resource_names_give_no_rows() {
        assert!(!verdict(
            json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}]),
            "pod"
        ));
    }

    #[test]
    fn a_subresource_is_not_its_resource() {
        assert!(!verdict(
            json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods/log"]}]),
            "pod"
        ));
    }

    #[test]
    fn an_incomplete_answer_says_so() {
        let status = serde_json::from_value(json!({ "incomplete": true })).unwrap();
        let pod = crate::kinds::by_name("pod").unwrap();
        assert_eq!(listable(&status).allows(pod), None);
        let status = serde_json::from_value(json!({ "evaluationError": "webhook" })).unwrap();
        assert_eq!(listable(&status).allows(pod), None);
    }
}

//! SelfSubjectRulesReview as the user: which kinds may be listed in one namespace, all at once.
//!
//! Trusted only when complete and without error, and only for rules without resource names: what
//! it does not list then is denied, what it lists is allowed. Else the access review decides.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use crate::kinds::{KINDS, KindDef, Resource};
use crate::upstream::{Cluster, Failure, Identity, UpstreamError, User};

/// The kinds of [`KINDS`] that may be listed in a namespace.
pub(super) struct Listable {
    complete: bool,
    namespace: bool,
    kinds: Vec<bool>,
    /// Pods may not be listed, though this cannot tell: somebody has asked.
    pub no_pods: OnceLock<()>,
    /// How often the caller had been denied something when it was asked for.
    pub denials: u64,
    /// When it was asked for.
    pub asked: Instant,
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
    /// Whether something that we show may be listed in the namespace which `elsewhere` may not.
    pub fn is_beyond(&self, elsewhere: &Self) -> bool {
        let both = KINDS.iter().zip(self.kinds.iter().zip(&elsewhere.kinds));
        both.into_iter().any(|(kind, (here, there))| kind.resource.namespaced && *here && !there)
    }

    /// The kinds with namespaces that may be listed.
    pub fn kinds(&self) -> impl Iterator<Item = &'static KindDef> {
        let all = KINDS.iter().zip(&self.kinds);
        all.filter(|(kind, listed)| kind.resource.namespaced && **listed).map(|(kind, _)| kind)
    }

    /// Whether the namespace itself may be read.
    pub fn may_get_namespace(&self) -> bool {
        self.namespace
    }

    /// Whether it cannot say that there is no right, as every one where a webhook authorizes beside
    /// RBAC: no denial contradicts it, nothing is listed by it alone, and it would be the same if it
    /// were asked for again.
    pub fn is_silent(&self) -> bool {
        !self.complete
    }

    /// Whether the kind may be listed; `None` when this review cannot tell.
    pub fn allows(&self, kind: &KindDef) -> Option<bool> {
        self.kinds.get(kind.index()).copied().filter(|_| self.complete)
    }

    /// What a review would give that was asked for now and tells of these kinds.
    #[cfg(test)]
    pub fn for_tests(complete: bool, kinds: &[&str]) -> Self {
        let kinds = KINDS.iter().map(|kind| kinds.contains(&kind.name)).collect();
        let (denials, no_pods, asked) = (0, OnceLock::new(), Instant::now());
        Self { complete, namespace: false, kinds, no_pods, denials, asked }
    }
}

pub(super) async fn review(
    cluster: &Cluster,
    user: &User,
    namespace: &str,
    denials: u64,
) -> Result<Arc<Listable>, Failure> {
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": namespace },
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let asked = Instant::now();
    let answer = cluster.post(Identity::User(user), path, &question).await?;
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|error| UpstreamError::Broken(format!("rules review: {error}")))?;
    Ok(Arc::new(Listable { denials, asked, ..listable(&answer.status) }))
}

fn listable(status: &Status) -> Listable {
    let rules = || status.resource_rules.iter().flatten();
    let listed = |kind: &KindDef| rules().any(|rule| allows(rule, "list", &kind.resource));
    let kinds: Vec<bool> = KINDS.iter().map(listed).collect();
    let namespace = Resource::cluster("", "v1", "Namespace", "namespaces");
    Listable {
        complete: !status.incomplete && status.evaluation_error.is_empty(),
        namespace: rules().any(|rule| allows(rule, "get", &namespace)),
        kinds,
        denials: 0,
        no_pods: OnceLock::new(),
        asked: Instant::now(),
    }
}

fn allows(rule: &Rule, verb: &str, resource: &Resource) -> bool {
    let has = |list: &[String], what: &str| list.iter().any(|item| item == "*" || item == what);
    rule.resource_names.is_empty()
        && has(&rule.verbs, verb)
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
    fn rights_that_hold_everywhere_are_none_of_a_namespace() {
        let rules = |resources: &[&str]| {
            let rule = json!({"verbs": ["list"], "apiGroups": [""], "resources": resources});
            let status = serde_json::from_value(json!({ "resourceRules": [rule] })).unwrap();
            listable(&status)
        };
        let everywhere = rules(&["pods", "nodes"]);
        assert!(!rules(&["pods", "nodes"]).is_beyond(&everywhere));
        assert!(!rules(&["pods", "persistentvolumes"]).is_beyond(&everywhere));
        assert!(rules(&["pods", "events"]).is_beyond(&everywhere));
        let kinds: Vec<_> = everywhere.kinds().map(|kind| kind.name).collect();
        assert_eq!(kinds, ["pod"]);
    }

    #[test]
    fn an_incomplete_answer_says_so() {
        let status = serde_json::from_value(json!({ "incomplete": true })).unwrap();
        let pod = crate::kinds::by_name("pod").unwrap();
        assert_eq!(listable(&status).allows(pod), None);
        let status = serde_json::from_value(json!({ "evaluationError": "webhook" })).unwrap();
        assert_eq!(listable(&status).allows(pod), None);
    }

    #[test]
    fn one_is_silent_that_cannot_say_that_there_is_no_right() {
        let rule = |resource: &str, incomplete: bool| {
            let rule = json!({"verbs": ["list"], "apiGroups": [""], "resources": [resource]});
            let status = json!({ "resourceRules": [rule], "incomplete": incomplete });
            listable(&serde_json::from_value(status).unwrap()).is_silent()
        };
        for (resource, incomplete, silent) in
            [("nodes", true, true), ("pods", true, true), ("nodes", false, false)]
        {
            assert_eq!(rule(resource, incomplete), silent, "{resource} {incomplete}");
        }
    }
}

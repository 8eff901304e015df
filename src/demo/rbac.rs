//! Who may do what, evaluated from the stored roles and bindings as Kubernetes' RBAC does.
//!
//! Aggregated cluster roles are not computed: the seed writes their rules out.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::kinds::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Kind, ROLE, ROLE_BINDING};
use super::store::{Store, Stored};

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub name: String,
    pub groups: Vec<String>,
}

/// What is asked: of a resource, or of a path when `path` is set.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes {
    pub verb: String,
    pub group: String,
    /// With the subresource, as rules have it: `pods/log`.
    pub resource: String,
    /// Empty for all namespaces, and for cluster kinds.
    pub namespace: String,
    pub name: String,
    pub path: Option<String>,
}

impl Attributes {
    /// The sentence of a 403, in Kubernetes' words.
    pub(super) fn forbidden(&self, caller: &Caller) -> String {
        let user = &caller.name;
        if let Some(path) = &self.path {
            return format!("forbidden: User \"{user}\" cannot {} path \"{path}\"", self.verb);
        }
        let plural = self.resource.split('/').next().unwrap_or_default();
        let mut subject = plural.to_owned();
        if !self.group.is_empty() {
            subject = format!("{subject}.{}", self.group);
        }
        if !self.name.is_empty() {
            subject = format!("{subject} \"{}\"", self.name);
        }
        let place = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", self.namespace)
        };
        format!(
            "{subject} is forbidden: User \"{user}\" cannot {} resource \"{}\" in API group \
             \"{}\" {place}",
            self.verb, self.resource, self.group
        )
    }
}

/// One rule of a role, as stored.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    fn allows(&self, asked: &Attributes) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|it| it == "*" || it == wanted);
        if !has(&self.verbs, &asked.verb) {
            return false;
        }
        if let Some(path) = &asked.path {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        let any_of_sub = asked.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
        has(&self.api_groups, &asked.group)
            && (has(&self.resources, &asked.resource)
                || any_of_sub.is_some_and(|any| self.resources.contains(&any)))
            && (self.resource_names.is_empty() || self.resource_names.contains(&asked.name))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

impl Subject {
    fn is(&self, caller: &Caller) -> bool {
        match self.kind.as_str() {
            "User" => self.name == caller.name,
            "Group" => caller.groups.contains(&self.name),
            _ => caller.name == format!("system:serviceaccount:{}:{}", self.namespace, self.name),
        }
    }

    fn said(&self) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => format!("{} \"{}/{}\"", self.kind, self.name, self.namespace),
            _ => format!("{} \"{}\"", self.kind, self.name),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleDocument {
    rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingDocument {
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

/// A binding with the rules it gives.
struct Grant {
    /// The namespace of a role binding; none for a cluster role binding.
    namespace: Option<String>,
    subjects: Vec<Subject>,
    rules: Vec<Rule>,
    said: String,
}

/// All grants, read again from the store when a role or a binding has changed.
#[derive(Default)]
pub(super) struct Rbac {
    grants: Mutex<(u64, Arc<Vec<Grant>>)>,
}

/// The group that may do everything.
pub(super) const MASTERS: &str = "system:masters";

impl Rbac {
    /// Why this is allowed, or `None` when it is not.
    pub(super) fn allowed(
        &self,
        store: &Store,
        caller: &Caller,
        asked: &Attributes,
    ) -> Option<String> {
        if caller.groups.iter().any(|group| group == MASTERS) {
            return Some(String::new());
        }
        self.grants(store)
            .iter()
            .filter(|grant| grant.rules.iter().any(|rule| rule.allows(asked)))
            .find_map(|grant| grant.subject(caller, &asked.namespace).map(|it| (grant, it)))
            .map(|(grant, to)| format!("RBAC: allowed by {} to {}", grant.said, to.said()))
    }

    /// All rules this caller has in a namespace.
    pub(super) fn rules(&self, store: &Store, caller: &Caller, namespace: &str) -> Vec<Rule> {
        self.grants(store)
            .iter()
            .filter(|grant| grant.subject(caller, namespace).is_some())
            .flat_map(|grant| grant.rules.iter().cloned())
            .collect()
    }

    fn grants(&self, store: &Store) -> Arc<Vec<Grant>> {
        let kinds: [&Kind; 4] = [&ROLE, &ROLE_BINDING, &CLUSTER_ROLE, &CLUSTER_ROLE_BINDING];
        let version = kinds.iter().map(|kind| store.changed(kind)).max().unwrap_or_default();
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.0 != version {
            *grants = (version, Arc::new(compile(store)));
        }
        Arc::clone(&grants.1)
    }
}

impl Grant {
    /// As which subject it is given to this caller in this namespace.
    fn subject(&self, caller: &Caller, namespace: &str) -> Option<&Subject> {
        let here = self.namespace.as_ref().is_none_or(|is| is == namespace);
        self.subjects.iter().find(|subject| here && subject.is(caller))
    }
}

fn compile(store: &Store) -> Vec<Grant> {
    let cluster = store.all(&CLUSTER_ROLE_BINDING, None);
    let local = store.all(&ROLE_BINDING, None);
    let cluster = cluster.iter().map(|binding| grant(store, binding, None));
    let local = local.iter().map(|it| grant(store, it, Some(it.namespace.to_string())));
    cluster.chain(local).collect()
}

fn grant(store: &Store, binding: &Stored, namespace: Option<String>) -> Grant {
    let document: BindingDocument = serde_json::from_slice(&binding.json).unwrap_or_default();
    let RoleRef { kind, name } = document.role_ref;
    let role = match (kind.as_str(), &namespace) {
        ("ClusterRole", _) => store.get(&CLUSTER_ROLE, "", &name),
        (_, Some(namespace)) => store.get(&ROLE, namespace, &name),
        _ => None,
    };
    let rules = role.and_then(|role| serde_json::from_slice::<RoleDocument>(&role.json).ok());
    let binding = match &namespace {
        Some(namespace) => format!("RoleBinding \"{}/{namespace}\"", binding.name),
        None => format!("ClusterRoleBinding \"{}\"", binding.name),
    };
    Grant {
        said: format!("{binding} of {kind} \"{name}\""),
        subjects: document.subjects,
        rules: rules.unwrap_or_default().rules,
        namespace,
    }
}

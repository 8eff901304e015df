//! Which pods of a node a drain evicts, by kubectl's filters (k8s.io/kubectl/pkg/drain/filters.go),
//! and the words for those that it may not or could not.
//!
//! It evicts nothing and cordons nothing: that is `drain`.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use crate::api::Gateway;
use crate::api::body::get;
use crate::api::error::ApiError;
use crate::api::target::{encoded, live_all};
use crate::i18n::{self, Locale};
use crate::upstream::{Failure, UpstreamError, User};

/// Pods of the node that are asked for at once; Kubernetes is built for 110 a node.
const PAGE: usize = 250;
/// Pods that a message names.
const NAMED: usize = 10;

/// The contract's `NodeDrainSpec`; `timeout` is in nanoseconds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Spec {
    pub force: bool,
    pub timeout: u64,
    pub grace_period_seconds: i64,
    pub ignore_all_daemon_sets: bool,
    pub delete_empty_dir_data: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            force: true,
            timeout: 0,
            grace_period_seconds: -1,
            ignore_all_daemon_sets: true,
            delete_empty_dir_data: true,
        }
    }
}

/// A pod that is evicted.
pub struct Pod {
    pub path: String,
    /// `namespace/name`.
    pub shown: String,
    pub uid: String,
}

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Evict,
    /// It does not stand in the way: of a daemon set, a mirror of a file.
    Skip,
    /// Why it must not go, for people.
    Refuse(String),
}

/// The daemon sets that could not be read, by their paths.
type Unread = BTreeMap<String, Failure>;

/// The pods to evict; an error that names those which must not go.
pub async fn chosen(
    gateway: &Gateway,
    user: &User,
    node: &str,
    spec: &Spec,
    locale: Locale,
) -> Result<Vec<Pod>, ApiError> {
    let items = on(gateway, user, node).await?;
    // kubectl asks once a pod; the answer is the same for all pods of a set.
    let sets: BTreeSet<String> = items.iter().filter_map(daemon_set).collect();
    let wanted = sets.into_iter().map(|path| (path.clone(), path)).collect();
    let answers = live_all(gateway, user, wanted).await.into_iter();
    let unread: Unread = answers.filter_map(|(path, answer)| Some((path, answer.err()?))).collect();
    let (mut evicted, mut refused) = (Vec::new(), Vec::new());
    for pod in &items {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let shown = format!("{namespace}/{name}");
        match fate(pod, spec, &unread, locale) {
            Fate::Skip => {}
            Fate::Refuse(why) => refused.push(format!("{shown} ({why})")),
            Fate::Evict => evicted.push(Pod {
                path: format!("/api/v1/namespaces/{}/pods/{}", encoded(namespace), encoded(name)),
                shown,
                uid: text(pod, "/metadata/uid").to_owned(),
            }),
        }
    }
    if refused.is_empty() {
        return Ok(evicted);
    }
    let refused = named(refused, locale);
    let args = [("pods", refused.as_str())];
    Err(ApiError::with_status(StatusCode::CONFLICT, "error-drain-refused", &args))
}

/// All pods of the node.
async fn on(gateway: &Gateway, user: &User, node: &str) -> Result<Vec<Value>, Failure> {
    let selector = format!("spec.nodeName%3D{}", encoded(node));
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/pods?fieldSelector={selector}&limit={PAGE}&continue={token}");
        let mut list = get(gateway, user, &path).await?;
        // Whatever else came must not pass for a node without pods.
        if text(&list, "/kind") != "PodList" {
            return Err(UpstreamError::Broken(format!("{path}: no PodList came")).into());
        }
        if let Some(Value::Array(page)) = list.get_mut("items").map(Value::take) {
            items.extend(page);
        }
        token =
            utf8_percent_encode(text(&list, "/metadata/continue"), NON_ALPHANUMERIC).to_string();
        if token.is_empty() {
            return Ok(items);
        }
    }
}

/// The string at the pointer; empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn is_mirror(pod: &Value) -> bool {
    let annotations = pod.pointer("/metadata/annotations");
    annotations.is_some_and(|all| all.get("kubernetes.io/config.mirror").is_some())
}

fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn controller(pod: &Value) -> Option<&Value> {
    let owners = pod.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

/// Where the daemon set is that the pod names as its controller, if that decides its fate.
fn daemon_set(pod: &Value) -> Option<String> {
    let owner = controller(pod).filter(|_| !is_mirror(pod) && !has_ended(pod))?;
    if (text(owner, "/apiVersion"), text(owner, "/kind")) != ("apps/v1", "DaemonSet") {
        return None;
    }
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(owner, "/name"));
    Some(format!("/apis/apps/v1/namespaces/{}/daemonsets/{}", encoded(namespace), encoded(name)))
}

/// kubectl's filters.
fn fate(pod: &Value, spec: &Spec, unread: &Unread, locale: Locale) -> Fate {
    let refuse = |id| Fate::Refuse(i18n::message(locale, id, &[]));
    if is_mirror(pod) {
        return Fate::Skip;
    }
    if has_ended(pod) {
        return Fate::Evict;
    }
    if let Some(set) = daemon_set(pod) {
        match unread.get(&set) {
            None if spec.ignore_all_daemon_sets => return Fate::Skip,
            None => return refuse("note-drain-daemon-set"),
            // An orphan: nothing would bring it back.
            Some(failure) if failure.code() == Some(StatusCode::NOT_FOUND) => {
                if !spec.force {
                    let reason = words(failure, locale);
                    let args = [("reason", reason.as_str())];
                    return Fate::Refuse(i18n::message(locale, "note-drain-orphan", &args));
                }
            }
            Some(failure) => return Fate::Refuse(words(failure, locale)),
        }
    } else if controller(pod).is_none() && !spec.force {
        return refuse("note-drain-unmanaged");
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    if !spec.delete_empty_dir_data && { volumes }.any(|volume| volume.get("emptyDir").is_some()) {
        return refuse("note-drain-empty-dir");
    }
    Fate::Evict
}

/// The API server's words as they are, with the causes, which name the budget; ours in the caller's
/// language where it said nothing.
pub fn words(failure: &Failure, locale: Locale) -> String {
    let Failure::Status { message, details, .. } = failure else {
        return ApiError::from(failure.clone()).text(locale);
    };
    let mut words = message.clone();
    let causes = details.as_ref().and_then(|details| details.get("causes")?.as_array());
    for cause in causes.into_iter().flatten().map(|cause| text(cause, "/message")) {
        if !words.contains(cause) {
            words = format!("{words} {cause}");
        }
    }
    words
}

/// Some of them by name, and how many more there are.
pub fn named(mut all: Vec<String>, locale: Locale) -> String {
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    let shown = all.join("; ");
    if more == 0 {
        return shown;
    }
    let more = more.to_string();
    let args = [("shown", shown.as_str()), ("more", more.as_str())];
    i18n::message(locale, "note-drain-more", &args)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DAEMON: &str = "/apis/apps/v1/namespaces/n/daemonsets/d";

    fn pod(more: Value) -> Value {
        let owner = json!([{"kind": "ReplicaSet", "controller": true}]);
        let mut pod =
            json!({"metadata": {"ownerReferences": owner}, "status": {"phase": "Running"}});
        for (pointer, value) in more.as_object().unwrap() {
            pod[pointer.as_str()] = value.clone();
        }
        pod
    }

    fn daemon() -> Value {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true});
        pod(json!({"metadata": {"namespace": "n", "ownerReferences": [owner]}}))
    }

    fn strict() -> Spec {
        Spec {
            force: false,
            ignore_all_daemon_sets: false,
            delete_empty_dir_data: false,
            ..Spec::default()
        }
    }

    /// What becomes of it when the daemon sets could all be read.
    fn plain(pod: &Value, spec: &Spec) -> Fate {
        fate(pod, spec, &Unread::new(), Locale::EN)
    }

    #[test]
    fn pods_go_by_kubectls_rules() {
        let bare = pod(json!({"metadata": {}}));
        let mirror = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
        let scratch = pod(json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}));
        for (object, easy) in [
            (pod(json!({})), Fate::Evict),
            (bare.clone(), Fate::Evict),
            (pod(json!({"metadata": mirror})), Fate::Skip),
            (daemon(), Fate::Skip),
            (scratch.clone(), Fate::Evict),
        ] {
            assert_eq!(plain(&object, &Spec::default()), easy, "{object}");
        }
        for object in [bare, daemon(), scratch] {
            let found = plain(&object, &strict());
            assert!(matches!(found, Fate::Refuse(_)), "{object}");
        }
        let mut ended = daemon();
        ended["status"]["phase"] = json!("Succeeded");
        assert_eq!(plain(&ended, &strict()), Fate::Evict);
        assert_eq!(daemon_set(&ended), None);
    }

    #[test]
    fn a_pod_whose_daemon_set_is_gone_needs_force_and_one_whose_set_is_unknown_stays() {
        assert_eq!(daemon_set(&daemon()).as_deref(), Some(DAEMON));
        let with = |code: u16, spec: &Spec| {
            let code = StatusCode::from_u16(code).unwrap();
            let failure = Failure::status(code, br#"{"message":"their own words"}"#);
            fate(&daemon(), spec, &Unread::from([(DAEMON.to_owned(), failure)]), Locale::EN)
        };
        assert_eq!(with(404, &Spec::default()), Fate::Evict);
        let Fate::Refuse(why) = with(404, &strict()) else { panic!("it needs force") };
        assert!(why.starts_with("their own words") && why.contains("force"), "{why}");
        for code in [403, 503] {
            let refused = Fate::Refuse("their own words".to_owned());
            assert_eq!(with(code, &Spec::default()), refused, "{code}");
        }
    }

    #[test]
    fn reasons_are_in_the_callers_language_and_kubernetes_words_as_they_are() {
        for locale in Locale::all().filter(|locale| *locale != Locale::EN) {
            let bare = pod(json!({"metadata": {}}));
            let said = |locale| fate(&bare, &strict(), &Unread::new(), locale);
            assert_ne!(said(locale), said(Locale::EN), "{locale:?}");
            let theirs = Failure::status(StatusCode::TOO_MANY_REQUESTS, b"No budget.");
            assert_eq!(words(&theirs, locale), "No budget.");
            let ours = Failure::from(UpstreamError::Timeout);
            assert_ne!(words(&ours, locale), words(&ours, Locale::EN), "{locale:?}");
        }
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let all = |count: usize| {
            let all = (0..count).map(|at| at.to_string()).collect();
            named(all, Locale::EN)
        };
        assert_eq!(all(2), "0; 1");
        assert!(all(13).ends_with("9; and 3 more"));
    }
}

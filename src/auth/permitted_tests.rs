//! What many namespaces cost at the API server and at a worker, and for how long they are believed.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use compact_str::format_compact;
use http::{HeaderMap, Uri};

use super::super::epoch::Epoch;
use super::*;
use crate::kinds::by_name;
use crate::tests::beside;

/// Rules of which no end is known, as where a webhook authorizes beside RBAC.
const INCOMPLETE: &str = r#"{"status":{"incomplete":true}}"#;
const PODS: &str = r#"{"status":{"resourceRules":[
    {"verbs":["list"],"apiGroups":[""],"resources":["pods"]}]}}"#;

/// Reviews of rules and of access, and lists.
#[derive(Default)]
struct Asked([AtomicUsize; 3]);

impl Asked {
    fn so_far(&self) -> [usize; 3] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// An API server with these rules that denies all else.
async fn api(rules: &'static str) -> (Cluster, Arc<Asked>) {
    let asked = Arc::new(Asked::default());
    let counted = asked.clone();
    let answer = move |uri: Uri| {
        let (at, code, body) = match uri.path().rsplit('/').next() {
            Some("selfsubjectrulesreviews") => (0, StatusCode::CREATED, rules),
            Some("selfsubjectaccessreviews") => {
                (1, StatusCode::CREATED, r#"{"status":{"allowed":false}}"#)
            }
            _ => (2, StatusCode::FORBIDDEN, r#"{"kind":"Status","message":"no pods"}"#),
        };
        counted.0[at].fetch_add(1, Ordering::Relaxed);
        async move { (code, body) }
    };
    (Cluster::played(axum::Router::new().fallback(answer)).await, asked)
}

/// One whose epochs settle at once.
fn authorizer(changes: &Arc<AtomicU64>) -> Authorizer {
    let changes = changes.clone();
    let epoch = Epoch::at_once(Box::new(move || Some(changes.load(Ordering::Relaxed))));
    Authorizer { epoch: Arc::new(epoch), ..Authorizer::new(Duration::from_secs(60), || None) }
}

/// The API server's words to whoever asks for pods of these namespaces.
async fn words(
    authorizer: &Authorizer,
    cluster: &Cluster,
    user: &User,
    names: &[CompactString],
) -> String {
    let (pod, none) = (by_name("pod").unwrap(), async || Ok(Vec::new()));
    let wanted = names.iter().cloned().collect();
    match authorizer.scope(cluster, user, pod, &wanted, none).await {
        Err(Refusal::Denied(words)) => words.to_string(),
        other => panic!("{:?}", other.err()),
    }
}

fn names(count: usize) -> Vec<CompactString> {
    (0..count).map(|at| format_compact!("n{at}")).collect()
}

#[tokio::test]
async fn where_rules_cannot_tell_a_namespace_costs_one_review_and_one_for_each_kind() {
    let (cluster, asked) = api(INCOMPLETE).await;
    let (authorizer, names) = (authorizer(&Arc::default()), names(50));
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    for kind in ["pod", "event"] {
        let kind = by_name(kind).unwrap();
        let permitted = authorizer.permitted(&cluster, &user, kind, &names).await.unwrap();
        assert!(permitted.is_empty(), "{permitted:?}");
    }
    assert_eq!(asked.so_far(), [50, 100, 0]);
}

#[tokio::test]
async fn a_denial_is_put_in_words_once_and_only_for_who_reads_them() {
    let (cluster, asked) = api(INCOMPLETE).await;
    let (authorizer, names) = (authorizer(&Arc::default()), names(1));
    let (user, pod) = (User::bearer("a", &HeaderMap::new()).unwrap(), by_name("pod").unwrap());
    authorizer.permitted(&cluster, &user, pod, &names).await.unwrap();
    assert_eq!(asked.so_far(), [1, 1, 0]);
    let words = || words(&authorizer, &cluster, &user, &names);
    let all = futures::future::join_all((0..20).map(|_| words())).await;
    assert_eq!(all, vec!["no pods"; 20]);
    assert_eq!(asked.so_far(), [1, 1, 1]);
    authorizer.refused(&user).await;
    assert_eq!(words().await, "no pods");
    assert_eq!(asked.so_far(), [1, 2, 2], "nothing is left of a caller who was refused");
}

#[tokio::test]
async fn others_have_their_turn_while_many_remembered_verdicts_are_looked_up() {
    let (cluster, asked) = api(PODS).await;
    let (authorizer, names) = (authorizer(&Arc::default()), names(2_000));
    let (user, pod) = (User::bearer("a", &HeaderMap::new()).unwrap(), by_name("pod").unwrap());
    let (who, epoch) = (user.fingerprint(), Some(0));
    for namespace in &names {
        let ruled = Ruled { who, namespace: namespace.clone(), epoch };
        let rules = rules::Listable::for_tests(true, &["pod"]);
        authorizer.rules.insert(ruled, rules.into()).await;
    }
    let (permitted, turns) = beside(authorizer.permitted(&cluster, &user, pod, &names)).await;
    assert_eq!((permitted.unwrap().len(), asked.so_far()), (2_000, [0; 3]));
    assert_ne!(turns, 0);
    let set = authorizer.sets.get(who, pod.name, (&names, epoch)).await;
    assert_eq!(set.map(|set| set.len()), Some(2_000));
}

#[tokio::test]
async fn a_set_of_namespaces_ends_with_the_oldest_review_in_it() {
    let (cluster, _) = api(PODS).await;
    let names = names(2);
    let (user, pod) = (User::bearer("a", &HeaderMap::new()).unwrap(), by_name("pod").unwrap());
    let who = user.fingerprint();
    for (age, stands) in [(Duration::ZERO, true), (believed_for(Some(0)), false)] {
        let authorizer = authorizer(&Arc::default());
        for (namespace, age) in names.iter().zip([Duration::ZERO, age]) {
            let ruled = Ruled { who, namespace: namespace.clone(), epoch: Some(0) };
            let mut rules = rules::Listable::for_tests(true, &["pod"]);
            rules.asked = rules.asked.checked_sub(age).unwrap();
            authorizer.rules.insert(ruled, rules.into()).await;
        }
        let permitted = authorizer.permitted(&cluster, &user, pod, &names).await.unwrap();
        assert_eq!(permitted.len(), 2);
        let set = authorizer.sets.get(who, pod.name, (&names, Some(0))).await;
        assert_eq!(set.is_some(), stands, "{age:?}");
    }
}

#[tokio::test]
async fn what_is_asked_after_a_change_takes_the_place_of_what_was_known_before() {
    let (cluster, asked) = api(PODS).await;
    let changes = Arc::new(AtomicU64::new(0));
    let (authorizer, names) = (authorizer(&changes), names(3));
    let (user, pod) = (User::bearer("a", &HeaderMap::new()).unwrap(), by_name("pod").unwrap());
    for (change, reviews) in [(0, 3), (0, 3), (1, 6), (2, 9)] {
        changes.store(change, Ordering::Relaxed);
        let permitted = authorizer.permitted(&cluster, &user, pod, &names).await.unwrap();
        assert_eq!((permitted.len(), asked.so_far()), (3, [reviews, 0, 0]), "{change}");
        authorizer.rules.run_pending_tasks().await;
        assert_eq!(authorizer.rules.entry_count(), 3, "{change}");
    }
}

#[tokio::test]
async fn what_a_webhook_gives_shows_among_ones_namespaces() {
    let answer = |uri: Uri, question: String| async move {
        let rules = r#"{"status":{"incomplete":true,"resourceRules":[
            {"verbs":["get"],"apiGroups":[""],"resources":["namespaces"]}]}}"#;
        let allowed = question.contains(r#""namespace":"n0""#);
        let body = match uri.path().ends_with("selfsubjectrulesreviews") {
            true => rules.to_owned(),
            false => format!(r#"{{"status":{{"allowed":{allowed}}}}}"#),
        };
        (StatusCode::CREATED, body)
    };
    let cluster = Cluster::played(axum::Router::new().fallback(answer)).await;
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let authorizer = authorizer(&Arc::default());
    let (kinds, all) = authorizer.visible(&cluster, &user, &names(2)).await.unwrap();
    assert!(kinds.is_empty());
    let seen: Vec<_> = all.iter().map(|one| (one.is_own, one.may_get)).collect();
    assert_eq!(seen, [(true, true), (false, true)]);
}

#[tokio::test]
async fn what_no_rules_tell_of_a_namespace_is_asked_as_seldom_as_they_are() {
    let (cluster, asked) = api(INCOMPLETE).await;
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let authorizer = authorizer(&Arc::default());
    for _ in 0..2 {
        let (_, all) = authorizer.visible(&cluster, &user, &names(5)).await.unwrap();
        assert!(all.iter().all(|one| !one.is_own));
        // Denials alone are remembered for a few seconds.
        authorizer.fresh.invalidate_all();
        assert_eq!(asked.so_far(), [6, 6, 0]);
    }
}

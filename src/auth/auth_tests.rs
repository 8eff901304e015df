//! What bridges an API server that is away, and what ends a right.

use std::collections::BTreeSet;

use http::HeaderMap;

use super::*;
use crate::kinds::by_name;
use crate::upstream::UpstreamError;

fn authorizer() -> Authorizer {
    Authorizer::new(Duration::from_secs(60), || Some(1))
}

fn question(user: &User) -> Question {
    Question { who: user.fingerprint(), kind: by_name("pod").unwrap().name, namespace: None }
}

/// An API server that answers everything like this.
async fn answering(code: StatusCode, body: &'static str) -> Cluster {
    Cluster::played(axum::Router::new().fallback(move || async move { (code, body) })).await
}

fn refusal(code: u16) -> Arc<Failure> {
    Arc::new(Failure::status(StatusCode::from_u16(code).unwrap(), b""))
}

#[test]
fn verdicts_stand_as_long_as_the_readme_says() {
    let readme = include_str!("../../README.md");
    let (allowed, denied) = (ALLOWED_FOR.as_secs(), DENIED_FOR.as_secs());
    // A set may rest on a denial that is as old as one may be.
    let several = 2 * denied;
    let words = format!("{allowed} s (allowed) or {denied} s (denied; {several} s over several");
    assert!(readme.contains(&words), "{words}");
    let words = format!("else after {} s at most", UNCHANGED_FOR.as_secs());
    assert!(readme.contains(&words), "{words}");
}

#[tokio::test]
async fn a_confirmed_right_bridges_an_api_server_that_is_away_but_not_refused_credentials() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let other = User::bearer("b", &HeaderMap::new()).unwrap();
    for user in [&user, &other] {
        authorizer.known.insert(user.fingerprint(), ()).await;
        authorizer.confirmed.insert(question(user), Instant::now()).await;
    }
    assert!(authorizer.bridge(&user, &question(&user), refusal(503)).await.is_ok());
    // Throttled is not away, and takes nothing from what was confirmed.
    assert!(authorizer.bridge(&user, &question(&user), refusal(429)).await.is_err());
    assert!(authorizer.bridge(&user, &question(&user), refusal(503)).await.is_ok());
    assert!(authorizer.bridge(&user, &question(&user), refusal(401)).await.is_err());
    // The 401 has purged all that was known of this caller, and of no other.
    assert!(authorizer.bridge(&user, &question(&user), refusal(503)).await.is_err());
    assert!(authorizer.bridge(&other, &question(&other), refusal(503)).await.is_ok());
}

#[tokio::test]
async fn a_denial_in_one_namespace_ends_what_was_confirmed_in_all_and_in_others() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let everywhere = question(&user);
    let within = |name: &str| Question { namespace: Some(name.into()), ..question(&user) };
    let events = Question { kind: by_name("event").unwrap().name, ..question(&user) };
    for confirmed in [&everywhere, &within("b"), &events] {
        authorizer.confirmed.insert(confirmed.clone(), Instant::now()).await;
    }
    authorizer.deny(&within("a")).await;
    assert!(authorizer.bridge(&user, &everywhere, refusal(503)).await.is_err());
    assert!(authorizer.bridge(&user, &within("b"), refusal(503)).await.is_err());
    assert!(authorizer.bridge(&user, &events, refusal(503)).await.is_ok());
}

#[tokio::test]
async fn a_denial_ends_the_set_that_it_contradicts_confirmed_or_not() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let (who, names) = (user.fingerprint(), [CompactString::from("a")]);
    let set = (Arc::new(BTreeSet::from(names.clone())), Instant::now() + ALLOWED_FOR);
    authorizer.sets.put(who, "pod", (&names, None), set).await;
    let denied = Question { namespace: Some("a".into()), ..question(&user) };
    authorizer.deny(&denied).await;
    assert_eq!(authorizer.sets.get(who, "pod", (&names, None)).await, None);
}

#[tokio::test]
async fn a_denial_of_what_was_never_confirmed_takes_no_other_right() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let within = |name: &str| Question { namespace: Some(name.into()), ..question(&user) };
    authorizer.confirmed.insert(within("b"), Instant::now()).await;
    authorizer.deny(&question(&user)).await;
    authorizer.deny(&within("a")).await;
    assert!(authorizer.bridge(&user, &within("b"), refusal(503)).await.is_ok());
}

#[tokio::test]
async fn while_nobody_can_be_asked_those_namespaces_stand_that_were_confirmed() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let pod = by_name("pod").unwrap();
    let within = |name: &str| Question { namespace: Some(name.into()), ..question(&user) };
    let names = ["a", "b", "c"].map(CompactString::from);
    for name in ["a", "b"] {
        authorizer.confirmed.insert(within(name), Instant::now()).await;
    }
    let standing = |refusal| {
        let standing = authorizer.standing(&user, pod, &names, refusal);
        standing.map_or(0, |namespaces| namespaces.len())
    };
    let unknown = |code| Refusal::Unknown(refusal(code));
    for (refusal, count) in [
        (unknown(503), 2),
        (Refusal::Unknown(Arc::new(UpstreamError::Timeout.into())), 2),
        // Each of these is an answer.
        (unknown(401), 0),
        (unknown(403), 0),
        (unknown(429), 0),
        (Refusal::Denied(refusal(403)), 0),
    ] {
        assert_eq!(standing(refusal.clone()), count, "{refusal:?}");
    }
    authorizer.deny(&within("c")).await;
    assert_eq!(standing(unknown(503)), 2, "it was never confirmed");
    authorizer.deny(&within("a")).await;
    assert_eq!(standing(unknown(503)), 0, "both may have rested on the same binding");
}

#[tokio::test]
async fn a_right_to_all_namespaces_that_was_confirmed_stands_for_each() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let within = Question { namespace: Some("a".into()), ..question(&user) };
    assert!(authorizer.bridge(&user, &within, refusal(503)).await.is_err());
    authorizer.confirmed.insert(question(&user), Instant::now()).await;
    assert!(authorizer.bridge(&user, &within, refusal(503)).await.is_ok());
    authorizer.deny(&question(&user)).await;
    assert!(authorizer.bridge(&user, &within, refusal(503)).await.is_err());
}

#[tokio::test]
async fn one_rules_review_confirms_each_kind_that_has_waited_for_it() {
    let rules = r#"{"status":{"resourceRules":[
        {"verbs":["list"],"apiGroups":[""],"resources":["pods","events"]}]}}"#;
    let cluster = answering(StatusCode::CREATED, rules).await;
    let (authorizer, name) = (authorizer(), CompactString::from("a"));
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    for (kind, allowed) in [("pod", true), ("event", true), ("service", false)] {
        let kind = by_name(kind).unwrap();
        let verdict = authorizer.permitted_in(&cluster, &user, kind, (&name, None)).await.unwrap();
        assert_eq!((verdict.0, verdict.1.is_some()), (allowed, true), "{}", kind.name);
        let asked = Question { kind: kind.name, namespace: Some(name.clone()), ..question(&user) };
        assert_eq!(authorizer.is_confirmed(&asked), allowed, "{}", kind.name);
    }
}

#[tokio::test]
async fn credentials_that_are_refused_anywhere_end_every_right() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    authorizer.known.insert(user.fingerprint(), ()).await;
    authorizer.confirmed.insert(question(&user), Instant::now()).await;
    for (code, stands) in [(403, true), (500, true), (401, false)] {
        let code = StatusCode::from_u16(code).unwrap();
        let answer: Result<(), _> = Err(Failure::status(code, b""));
        assert!(authorizer.heed(&user, answer).await.is_err());
        let bridged = authorizer.bridge(&user, &question(&user), refusal(503)).await;
        assert_eq!(bridged.is_ok(), stands, "{code}");
    }
}

#[tokio::test]
async fn credentials_that_a_review_finds_refused_end_every_right() {
    let cluster = answering(StatusCode::UNAUTHORIZED, "").await;
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    for of_a_path in [false, true] {
        let authorizer = authorizer();
        authorizer.known.insert(user.fingerprint(), ()).await;
        authorizer.confirmed.insert(question(&user), Instant::now()).await;
        let answer = match of_a_path {
            true => authorizer.may_get(&cluster, &user, "/metrics").await,
            false => authorizer.review(&cluster, &user, &Attributes::default()).await,
        };
        assert_eq!(answer.unwrap_err().code(), Some(StatusCode::UNAUTHORIZED));
        let bridged = authorizer.bridge(&user, &question(&user), refusal(503)).await;
        assert!(bridged.is_err(), "{of_a_path}");
    }
}

#[tokio::test]
async fn an_expired_token_bridges_nothing() {
    let authorizer = authorizer();
    // {"exp":1}
    let user = User::bearer("e30.eyJleHAiOjF9.x", &HeaderMap::new()).unwrap();
    authorizer.confirmed.insert(question(&user), Instant::now()).await;
    assert!(authorizer.bridge(&user, &question(&user), refusal(503)).await.is_err());
}

#[tokio::test]
async fn a_token_that_is_over_by_our_clock_alone_is_judged_by_the_api_server_each_time() {
    let cluster = answering(StatusCode::CREATED, r#"{"status":{"allowed":true}}"#).await;
    let pod = by_name("pod").unwrap();
    // {"exp":1}
    for (token, asked) in [("e30.eyJleHAiOjF9.x", 2), ("a", 1)] {
        let authorizer = authorizer();
        let user = User::bearer(token, &HeaderMap::new()).unwrap();
        for _ in 0..2 {
            let none = async || Ok(Vec::new());
            let scope = authorizer.scope(&cluster, &user, pod, &Reach::Everything, none).await;
            assert!(scope.is_ok(), "{token}");
        }
        assert_eq!(authorizer.counts.allowed.load(Ordering::Relaxed), asked, "{token}");
    }
}

#[tokio::test]
async fn namespaces_that_cannot_be_named_for_a_moment_are_no_denial() {
    let cluster = answering(StatusCode::CREATED, r#"{"status":{"allowed":false}}"#).await;
    let (authorizer, pod) = (authorizer(), by_name("pod").unwrap());
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let (all, none) = (Reach::Everything, async || Ok(Vec::new()));
    let denied = authorizer.scope(&cluster, &user, pod, &all, none).await.err();
    assert!(matches!(denied, Some(Refusal::Denied(_))), "{denied:?}");
    let away = async || Err(Failure::status(StatusCode::SERVICE_UNAVAILABLE, b""));
    let unknown = authorizer.scope(&cluster, &user, pod, &all, away).await.err();
    assert!(matches!(unknown, Some(Refusal::Unknown(_))), "{unknown:?}");
}

#[tokio::test]
async fn no_namespace_at_all_is_nothing_and_nobody_is_asked() {
    let cluster = answering(StatusCode::CREATED, r#"{"status":{"allowed":true}}"#).await;
    let (authorizer, before) = (authorizer(), cluster.counts());
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let nowhere: Reach = [].into_iter().collect();
    for kind in ["pod", "node"] {
        let kind = by_name(kind).unwrap();
        let away = async || Err(Failure::status(StatusCode::SERVICE_UNAVAILABLE, b""));
        let scope = authorizer.scope(&cluster, &user, kind, &nowhere, away).await;
        let scope = scope.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", kind.name));
        assert_eq!(scope.reach(), &nowhere, "{}", kind.name);
        assert!(!scope.covers("") && !scope.covers("a"), "{}", kind.name);
    }
    assert_eq!(cluster.counts(), before);
    // What a request names none of it wants everywhere; no other list is read so.
    assert_eq!(Reach::named(Vec::new()), Reach::Everything);
    assert_eq!(Reach::named(vec!["a".into()]), Reach::one(&"a".into()));
    assert!(Reach::Everything.contains(&nowhere) && !nowhere.contains(&Reach::Everything));
}

#[tokio::test]
async fn an_answer_made_of_rules_asks_once_each_time_about_a_token_that_is_over_by_our_clock() {
    let rules = r#"{"status":{"resourceRules":[
        {"verbs":["list"],"apiGroups":[""],"resources":["pods"]}]}}"#;
    let cluster = answering(StatusCode::CREATED, rules).await;
    let names = [CompactString::from("a")];
    for (token, asked) in [("e30.eyJleHAiOjF9.x", 3), ("a", 2)] {
        let (authorizer, before) = (authorizer(), cluster.counts().0);
        let user = User::bearer(token, &HeaderMap::new()).unwrap();
        for _ in 0..2 {
            assert!(authorizer.visible(&cluster, &user, &names).await.is_ok(), "{token}");
        }
        assert_eq!(cluster.counts().0 - before, asked, "{token}");
    }
}

#[tokio::test]
async fn a_denial_ends_the_rules_that_it_contradicts_and_a_revocation_all_of_the_caller() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let other = User::bearer("b", &HeaderMap::new()).unwrap();
    let ruled = |user: &User, name: &str| Ruled {
        who: user.fingerprint(),
        namespace: name.into(),
        epoch: None,
    };
    let within = |name: &str| Question { namespace: Some(name.into()), ..question(&user) };
    let known = [ruled(&user, "a"), ruled(&user, "b"), ruled(&other, "a")];
    for ruled in &known {
        let rules = rules::Listable::for_tests(true, &[]);
        authorizer.rules.insert(ruled.clone(), rules.into()).await;
    }
    let left = async || {
        let mut left = Vec::new();
        for ruled in &known {
            left.push(authorizer.rules.get(ruled).await.is_some());
        }
        left
    };
    authorizer.contradict(&question(&user)).await;
    assert_eq!(left().await, [true; 3], "it was never allowed in all namespaces");
    authorizer.contradict(&within("a")).await;
    assert_eq!(left().await, [false, true, true]);
    authorizer.confirmed.insert(within("c"), Instant::now()).await;
    authorizer.contradict(&within("c")).await;
    assert_eq!(left().await, [false, false, true]);
}

#[tokio::test]
async fn a_denial_ends_all_sets_on_the_rules_that_it_contradicts_and_no_rules_that_are_silent() {
    let authorizer = authorizer();
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let (who, names) = (user.fingerprint(), ["a", "b"].map(CompactString::from));
    let ruled = |name: &CompactString| Ruled { who, namespace: name.clone(), epoch: None };
    let all = Arc::new(BTreeSet::from(names.clone()));
    for (name, complete, kinds) in [("a", true, &["pod", "event"][..]), ("b", false, &[][..])] {
        let rules = rules::Listable::for_tests(complete, kinds);
        authorizer.rules.insert(ruled(&name.into()), rules.into()).await;
    }
    for kind in ["pod", "event", "service"] {
        let set = (all.clone(), Instant::now() + ALLOWED_FOR);
        authorizer.sets.put(who, kind, (&names, None), set).await;
    }
    for (name, left) in names.iter().zip([false, true]) {
        let denied = Question { namespace: Some(name.clone()), ..question(&user) };
        authorizer.contradict(&denied).await;
        assert_eq!(authorizer.rules.contains_key(&ruled(name)), left, "{name}");
    }
    for (kind, left) in [("pod", false), ("event", false), ("service", true)] {
        let set = authorizer.sets.get(who, kind, (&names, None)).await;
        assert_eq!(set.is_some(), left, "{kind}");
    }
    // A revocation.
    authorizer.confirmed.insert(question(&user), Instant::now()).await;
    authorizer.contradict(&question(&user)).await;
    assert_eq!(authorizer.sets.get(who, "service", (&names, None)).await, None);
}

#[tokio::test]
async fn there_is_room_for_dozens_of_callers_in_thousands_of_namespaces() {
    let authorizer = authorizer();
    let rules = authorizer.rules.policy().max_capacity();
    let confirmed = authorizer.confirmed.policy().max_capacity();
    for room in [rules, confirmed] {
        assert!(room >= Some(30 * 5_000), "{room:?}");
    }
}

#[tokio::test]
async fn where_there_is_no_room_the_rights_that_were_confirmed_last_stand() {
    let confirmed = confirmed(10, Duration::from_secs(60));
    let user = User::bearer("a", &HeaderMap::new()).unwrap();
    let within = |at: u32| Question { namespace: Some(at.to_string().into()), ..question(&user) };
    for at in 0..20 {
        confirmed.insert(within(at), Instant::now()).await;
        confirmed.run_pending_tasks().await;
    }
    let standing: Vec<u32> = (0..20).filter(|at| confirmed.contains_key(&within(*at))).collect();
    assert_eq!(standing, (10..20).collect::<Vec<_>>());
}

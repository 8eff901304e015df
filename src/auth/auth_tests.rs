//! What bridges an API server that is away, and what ends a right.

use http::HeaderMap;

use super::*;
use crate::kinds::by_name;

fn authorizer() -> Authorizer {
    Authorizer::new(Duration::from_secs(60), || Some(1))
}

fn question(user: &User) -> Question {
    Question { who: user.fingerprint(), kind: by_name("pod").unwrap().name, namespace: None }
}

fn refusal(code: u16) -> Arc<Failure> {
    Arc::new(Failure::status(StatusCode::from_u16(code).unwrap(), b""))
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
    authorizer.sets.put(who, "pod", (&names, None), &BTreeSet::from(names.clone())).await;
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
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = axum::Router::new().fallback(|| async { StatusCode::UNAUTHORIZED });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let cluster = Cluster::new("test", kube::Config::new(url)).unwrap();
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
        authorizer.rules.insert(ruled.clone(), Arc::default()).await;
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

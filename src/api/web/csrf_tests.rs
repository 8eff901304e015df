//! Tokens, whom they let through, and whose key they are made with.

use futures::future::join_all;
use tokio::net::TcpListener;

use super::*;

const AT: i64 = 1_795_231_205_799;

#[test]
fn a_token_is_good_for_its_action_and_its_key_alone() {
    let (ours, theirs) = (new_key(&[1; 256]), new_key(&[2; 256]));
    let token = token(&ours, "login", AT);
    assert!(token.ends_with(":1795231205799"), "{token}");
    assert!(is_valid(&ours, "login", &token, AT));
    assert!(!is_valid(&ours, "namespace", &token, AT));
    assert!(!is_valid(&theirs, "login", &token, AT));
}

#[test]
fn a_token_is_good_for_a_day_and_a_minute_early() {
    let key = new_key(&[1; 256]);
    let token = token(&key, "login", AT);
    for (now, good) in [
        (AT + LIFETIME, true),
        (AT + LIFETIME + 1, false),
        (AT - AHEAD, true),
        (AT - AHEAD - 1, false),
        (i64::MIN, false),
        (i64::MAX, false),
    ] {
        assert_eq!(is_valid(&key, "login", &token, now), good, "{now}");
    }
}

#[test]
fn what_is_no_token_is_not_good() {
    let key = new_key(&[1; 256]);
    let token = token(&key, "login", AT);
    let (mac, at) = token.split_once(':').unwrap();
    let later = format!("{mac}:{}", AT + 1);
    let padded = format!("{mac}=:{at}");
    for wrong in ["", ":", "x", mac, at, &later, &padded, &format!("{mac}:{at}:1"), "é:1"] {
        assert!(!is_valid(&key, "login", wrong, AT), "{wrong:?}");
    }
}

#[test]
fn only_posts_that_change_something_are_guarded() {
    for (method, path, action) in [
        (Method::POST, "/api/v1/namespace", Some("namespace")),
        (Method::POST, "/namespace", Some("namespace")),
        (Method::POST, "/replicationcontroller/a/b/update/pod", Some("replicationcontroller")),
        (Method::POST, "/appdeployment", Some("appdeployment")),
        (Method::POST, "/appdeploymentfromfile", Some("appdeploymentfromfile")),
        (Method::POST, "/appdeployment/validate/name", None),
        (Method::PUT, "/settings", None),
        (Method::DELETE, "/_raw/pod/name/a", None),
    ] {
        assert_eq!(guarded(&method, path), action, "{method} {path}");
    }
}

#[test]
fn a_key_is_base64_and_long_enough() {
    let text = STANDARD.encode([7; KEY_LENGTH]);
    assert!(Csrf::with_key(&text).is_ok());
    assert!(Csrf::with_key(&format!("{}\n{}\n", &text[..76], &text[76..])).is_ok());
    for wrong in ["", "AAAA", "no base64!"] {
        assert!(Csrf::with_key(wrong).is_err(), "{wrong}");
    }
}

/// What the Secret holds that a cluster answers with; without one it is denied.
type Kept = Arc<std::sync::Mutex<Option<String>>>;

/// A cluster at this listener.
fn cluster_at(listener: &TcpListener) -> Cluster {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    Cluster::new("test", kube::Config::new(url)).unwrap()
}

async fn keeping(kept: &Kept) -> Cluster {
    let kept = kept.clone();
    let answer = move || async move {
        let secret = kept.lock().unwrap().clone();
        match secret {
            Some(secret) => (StatusCode::OK, secret),
            None => (StatusCode::FORBIDDEN, "{}".to_owned()),
        }
    };
    Cluster::played(axum::Router::new().fallback(answer)).await
}

/// A Secret and its key.
fn secret() -> (String, hmac::Key) {
    let secret = made("binnacle", "binnacle-csrf").unwrap().to_string();
    let key = key_in(secret.as_bytes()).unwrap();
    (secret, key)
}

fn shared() -> Csrf {
    Csrf::shared("binnacle".into(), "binnacle-csrf".into())
}

/// Has the Secret asked for again.
async fn is_due(csrf: &Csrf) {
    csrf.held.lock().await.as_mut().unwrap().until = Some(Instant::now());
}

#[tokio::test]
async fn who_waits_behind_others_for_the_key_waits_no_longer_than_for_his_own() {
    // Connections are made and nothing is ever said.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (cluster, csrf) = (cluster_at(&silent), shared());
    let (wait, begun) = (Duration::from_millis(200), Instant::now());
    // One after the other they would take 6 s.
    let all = join_all((0..30).map(|_| csrf.key_within(&cluster, wait))).await;
    assert!(begun.elapsed() < wait * 10, "{:?}", begun.elapsed());
    for found in all {
        let status = found.err().map(|error| error.status);
        assert_eq!(status, Some(StatusCode::GATEWAY_TIMEOUT));
    }
}

#[tokio::test]
async fn while_the_secret_is_asked_for_again_nobody_else_waits() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (cluster, csrf) = (cluster_at(&silent), shared());
    let key = Arc::new(new_key(&[1; KEY_LENGTH]));
    *csrf.held.lock().await = Some(Held { key, until: Some(Instant::now()) });
    tokio::select! {
        biased;
        _ = csrf.key(&cluster) => panic!("it has asked, and nobody answers"),
        found = csrf.key(&cluster) => assert!(found.is_ok()),
    }
}

#[tokio::test]
async fn a_key_of_our_own_stands_in_only_until_the_secret_is_allowed() {
    let ((secret, shared_key), kept, csrf) = (secret(), Kept::default(), shared());
    let cluster = keeping(&kept).await;
    let issued = async || token(&csrf.key(&cluster).await.unwrap(), "login", AT);

    let alone = issued().await;
    assert!(!is_valid(&shared_key, "login", &alone, AT));
    is_due(&csrf).await;
    assert_eq!(issued().await, alone, "what it gave out stays good while it is denied");

    *kept.lock().unwrap() = Some(secret);
    assert_eq!(issued().await, alone, "it does not ask for each token");
    is_due(&csrf).await;
    assert!(is_valid(&shared_key, "login", &issued().await, AT));
}

#[tokio::test]
async fn a_key_that_somebody_replaced_is_taken_over_and_stays_while_no_other_is_told() {
    let ((one, first), (other, second)) = (secret(), secret());
    let (kept, csrf) = (Kept::default(), shared());
    let cluster = keeping(&kept).await;
    let issued = async || token(&csrf.key(&cluster).await.unwrap(), "login", AT);

    *kept.lock().unwrap() = Some(one);
    assert!(is_valid(&first, "login", &issued().await, AT));
    *kept.lock().unwrap() = Some(other);
    assert!(is_valid(&first, "login", &issued().await, AT), "it does not ask for each token");
    is_due(&csrf).await;
    assert!(is_valid(&second, "login", &issued().await, AT));
    for (odd, what) in [(Some("{}".to_owned()), "without a key"), (None, "denied")] {
        *kept.lock().unwrap() = odd;
        is_due(&csrf).await;
        assert!(is_valid(&second, "login", &issued().await, AT), "{what}");
    }
}

#[test]
fn what_is_made_is_found_again() {
    let secret = made("binnacle", "binnacle-csrf").unwrap();
    let key = key_in(secret.to_string().as_bytes()).unwrap();
    assert!(is_valid(&key, "login", &token(&key, "login", AT), AT));
    assert!(key_in(b"{\"data\":{\"csrf.key\":\"AAAA\"}}").is_none());
    assert!(key_in(b"{}").is_none());
}

//! Keys, generated names, and what the refusals say.

use std::time::Duration;

use super::*;
use crate::helm::operation::State;
use crate::helm::words::Verb;
use crate::i18n::Locale;

#[test]
fn a_key_is_visible_ascii_and_not_too_long() {
    let read = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        idempotency_key(&headers).map(|key| key.map(str::to_owned)).map_err(|error| error.status)
    };
    assert_eq!(read("a-1"), Ok(Some("a-1".to_owned())));
    assert!(read(&"a".repeat(KEY)).is_ok());
    for odd in ["", "a b", &"a".repeat(KEY + 1), "ä"] {
        assert_eq!(read(odd), Err(StatusCode::BAD_REQUEST), "{odd}");
    }
    assert!(idempotency_key(&HeaderMap::new()).unwrap().is_none());
}

#[tokio::test]
async fn who_begins_much_at_once_waits_for_himself_and_nobody_else_does() {
    let mut begun = Vec::new();
    for _ in 0..OF_ONE {
        begun.push(beginning("jane").await.unwrap());
    }
    let further = timeout(Duration::from_millis(50), beginning("jane")).await;
    assert!(further.is_err(), "there is none for her");
    drop(beginning("joe").await.unwrap());
    begun.pop();
    drop(beginning("jane").await.unwrap());
}

#[test]
fn the_same_request_gets_the_same_generated_name() {
    let key = key_of(&[b"jane", b"1"]);
    let (one, two) = (names::generated("My_Chart"), names::generated("My_Chart"));
    assert_ne!(one, two);
    assert_eq!(steady(&one, &key), steady(&two, &key));
    assert_ne!(steady(&one, &key), steady(&one, &key_of(&[b"jane", b"2"])));
    names::release(&steady(&one, &key)).unwrap();
}

#[test]
fn who_is_refused_learns_who_is_at_work_and_since_when() {
    let started: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let other = Operation {
        id: "web.gaaaaaaa".into(),
        release: "web".into(),
        act: Verb::Upgrade.into(),
        state: State::Elsewhere,
        started_at: Some(started),
        holder: Holder { user: "jane".into(), instance: "here-aaaa".into() },
        ..Operation::default()
    };
    let error = busy(&other);
    assert_eq!(error.status, StatusCode::CONFLICT);
    let text = error.text(Locale::EN);
    for part in ["web", "upgrade", "jane", "2026-01-02T03:04:05Z"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_pending_release_says_since_when_and_whether_it_was_left_so() {
    let stuck = |standing| Stuck {
        standing,
        since: Timestamp::from_second(1_767_323_045).ok(),
        revision: 4,
        status: Status::PendingUpgrade,
        remedy: Verb::Rollback,
        rollback_to: Some(3),
    };
    let left = pending("web", &stuck(Standing::Interrupted)).text(Locale::EN);
    let elsewhere = pending("web", &stuck(Standing::Elsewhere)).text(Locale::EN);
    assert_ne!(left, elsewhere);
    for text in [left, elsewhere] {
        let said = ["pending-upgrade", "2026-01-02T03:04:05Z"].map(|part| text.contains(part));
        assert_eq!(said, [true, true], "{text}");
    }
}

#[test]
fn who_has_no_name_has_the_turns_of_his_credentials() {
    let user = |token| User::bearer(token, &HeaderMap::new()).unwrap();
    let (one, other) = (user("one"), user("other"));
    assert_eq!(whose("jane", &one), whose("jane", &other));
    assert_ne!(whose("", &one), whose("", &other));
}

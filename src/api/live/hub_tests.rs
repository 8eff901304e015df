//! What evaluations tell their readers, and what is held for that.

use super::*;
use crate::auth::ALLOWED_FOR;

fn found(streams: &Streams, tag: &str) -> Result<Found, Arc<ApiError>> {
    let user = ask("/pod").user;
    let whole = streams.held.hold(&user, tag.to_owned(), Bytes::from_static(b"{}")).unwrap();
    Ok(Found { whole, trouble: None, denied: None, after: After::default() })
}

fn error(code: StatusCode) -> Arc<ApiError> {
    Arc::new(ApiError::contract(code, "words"))
}

fn ask(target: &'static str) -> Ask {
    let user = User::bearer("a", &http::HeaderMap::new()).unwrap();
    Ask { user, target: PathAndQuery::from_static(target), locale: Locale::EN }
}

#[test]
fn readers_are_told_of_what_is_new_alone() {
    let (streams, mut seen) = (Streams::default(), Seen::default());
    assert!(!seen.is_answered());
    assert!(seen.take(found(&streams, "1")) && seen.is_answered());
    assert!(!seen.take(found(&streams, "1")), "the same again");
    assert!(seen.take(found(&streams, "2")));
    let unavailable = || Err(error(StatusCode::SERVICE_UNAVAILABLE));
    assert!(seen.take(unavailable()) && !seen.take(unavailable()), "trouble is told once");
    assert!(seen.whole.is_some(), "what was shown stays");
    assert!(seen.take(found(&streams, "2")) && seen.trouble.is_none());
}

#[test]
fn a_refusal_is_the_end_and_takes_what_was_not_sent() {
    let (streams, mut seen) = (Streams::default(), Seen::default());
    seen.take(found(&streams, "1"));
    assert!(seen.take(Err(error(StatusCode::NOT_FOUND))));
    assert!(seen.whole.is_none() && seen.end.is_some());
    // A list that is denied is an empty one, and is shown.
    let mut denied = found(&streams, "2").unwrap();
    denied.denied = Some(error(StatusCode::FORBIDDEN));
    let mut seen = Seen::default();
    assert!(seen.take(Ok(denied)));
    assert!(seen.whole.is_some() && seen.end.is_some());
}

#[test]
fn what_passes_by_itself_ends_nothing() {
    for (code, ends) in [(401, true), (403, true), (404, true), (413, true), (429, false)] {
        assert_eq!(is_final(&error(StatusCode::from_u16(code).unwrap())), ends, "{code}");
    }
    assert!(!is_final(&error(StatusCode::BAD_GATEWAY)));
}

#[test]
fn what_failed_is_told_from_what_is_only_old() {
    let (streams, mut seen) = (Streams::default(), Seen::default());
    seen.take(found(&streams, "1"));
    seen.take(Err(error(StatusCode::SERVICE_UNAVAILABLE)));
    assert!(seen.failed && seen.whole.is_some());
    let mut stale = found(&streams, "1").unwrap();
    stale.trouble = Some(error(StatusCode::SERVICE_UNAVAILABLE));
    seen.take(Ok(stale));
    assert!(!seen.failed && seen.trouble.is_some());
}

#[tokio::test]
async fn a_token_that_says_when_it_is_over_is_over_then() {
    use base64::Engine as _;
    use futures::FutureExt as _;
    let of = |exp: i64| {
        let claims = serde_json::json!({ "exp": exp }).to_string();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        User::bearer(&format!("e30.{claims}.x"), &http::HeaderMap::new()).unwrap()
    };
    let now = Timestamp::now().as_second();
    assert!(expiry(&of(now)).now_or_never().is_some());
    assert!(expiry(&of(now + 3600)).now_or_never().is_none());
    assert!(expiry(&ask("/pod").user).now_or_never().is_none());
}

#[test]
fn a_body_stands_on_one_line_and_says_the_same() {
    assert_eq!(on_one_line(Bytes::from_static(b"{\n \"a\":\r\n1}\n")), "{  \"a\":  1}");
    assert_eq!(on_one_line(Bytes::from_static(b"{}")), "{}");
}

#[test]
fn a_path_begins_with_its_kind_but_for_custom_objects() {
    let kind = |target| ask(target).kind().map(|kind| kind.name);
    assert_eq!(kind("/pod?itemsPerPage=10"), Some("pod"));
    assert_eq!(kind("/deployment/shop/web/event"), Some("deployment"));
    assert_eq!(kind("/crd/widgets.example.com"), Some("crd"));
    assert_eq!(kind("/crd/shop/widgets.example.com/object"), None);
    assert_eq!(kind("/overview"), None);
}

#[test]
fn a_right_that_ends_takes_a_list_with_it_within_15_seconds() {
    let check = Pace::default().check;
    assert!(check + ALLOWED_FOR <= Duration::from_secs(15), "{check:?} and {ALLOWED_FOR:?}");
}

#[test]
fn what_began_together_goes_on_apart_and_never_late() {
    let wait = Duration::from_secs(8);
    let waits: Vec<Duration> = (0..100).map(|_| earlier(wait)).collect();
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*most <= wait && *least >= wait * 3 / 4, "{waits:?}");
    assert!(*most - *least > wait / 100, "{waits:?}");
}

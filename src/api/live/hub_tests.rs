//! What evaluations tell their readers, and what is held for that.

use super::*;
use crate::api::standing::YOUNG;
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

/// What readers have after evaluations at these seconds, of an API server that was away at the
/// first of them: the tag that is shown, whether it is known to be current, whether it is the end.
fn told(evaluations: &[(u64, u16)]) -> Vec<(Option<String>, bool, bool)> {
    let (streams, begun) = (Streams::default(), Instant::now());
    let (mut seen, mut doubt) = (Seen::default(), Doubt::default());
    let told = evaluations.iter().map(|(second, code)| {
        let answer = match code {
            200 => found(&streams, &second.to_string()),
            code => Err(error(StatusCode::from_u16(*code).unwrap())),
        };
        doubt.was_away((*code == 503).then_some(begun));
        seen.take(doubted(answer, &mut doubt, begun + Duration::from_secs(*second)));
        let tag = seen.whole.as_ref().map(|whole| whole.tag.clone());
        (tag, seen.trouble.is_none(), seen.end.is_some())
    });
    told.collect()
}

#[test]
fn a_denial_just_after_the_api_server_was_away_shows_nothing_new_and_is_not_the_end() {
    let tag = |second: u64| Some(second.to_string());
    let (whole, stale, end) = ((tag(0), true, false), (tag(0), false, false), (None, true, true));
    let back = (tag(7), true, false);
    let [one, two, three] = [(0, 200), (1, 503), (3, 403)];
    let found = told(&[one, two, three, (7, 200), (8, 403), (11, 403)]);
    let again = (tag(7), false, false);
    let wanted = [&whole, &stale, &stale, &back, &again, &end];
    assert!(found.iter().eq(wanted), "{found:?}");
    // A right that is gone ends, whatever else fails meanwhile.
    let found = told(&[one, two, three, (9, 403), (10, 403)]);
    assert!(found.iter().eq([&whole, &stale, &stale, &stale, &end]), "{found:?}");
    let found = told(&[one, (1, 429), (2, 403)]);
    assert!(found.iter().eq([&whole, &stale, &end]), "429 is no absence: {found:?}");
    assert!(told(&[one, (1, 403)]).iter().eq([&whole, &end]));
}

#[test]
fn a_list_that_is_denied_by_an_api_server_that_has_just_begun_does_not_empty_what_is_shown() {
    let (streams, mut doubt) = (Streams::default(), Doubt::default());
    let now = Instant::now();
    let mut stale_rows = found(&streams, "1").unwrap();
    stale_rows.trouble = Some(stale());
    assert!(doubted(Ok(stale_rows), &mut doubt, now).is_ok());
    let denied = || {
        let denied = Some(error(StatusCode::FORBIDDEN));
        Ok(Found { denied, ..found(&streams, "2").unwrap() })
    };
    let doubtful = doubted(denied(), &mut doubt, now).err().unwrap();
    assert_eq!(doubtful.status, StatusCode::SERVICE_UNAVAILABLE);
    // Rows of a right that was confirmed before are no verdict, and put nothing off.
    let mut stale_rows = found(&streams, "1").unwrap();
    stale_rows.trouble = Some(stale());
    let later = now + YOUNG;
    assert!(doubted(Ok(stale_rows), &mut doubt, later).is_ok());
    assert!(doubted(denied(), &mut doubt, later).unwrap().denied.is_some());
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

//! What is asked of the API server, and how a line is told.

use std::iter;

use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::*;
use crate::api::logs::stream::QUEUE;

fn user() -> User {
    User::bearer("a", &HeaderMap::new()).unwrap()
}

fn wanted(query: &str) -> Result<Wanted, ApiError> {
    Wanted::of(query, &HeaderMap::new())
}

fn asked(wanted: &Wanted, place: Option<Mark>) -> String {
    let options = wanted.options(place).into_iter().map(|(name, value)| format!("{name}={value}"));
    options.collect::<Vec<_>>().join("&")
}

#[test]
fn a_log_is_begun_where_the_reader_wants_and_gone_on_with_where_it_broke() {
    let begun = wanted("tailLines=5&previous=true&timestamps=false&follow=false").unwrap();
    let expected = "timestamps=true&follow=true&previous=true&tailLines=5";
    assert_eq!(asked(&begun, None), expected);
    let place: Mark = "2026-01-02T03:04:05.75Z#2".parse().unwrap();
    let expected = "timestamps=true&follow=true&previous=true&sinceTime=2026-01-02T03:04:05Z";
    assert_eq!(asked(&begun, Some(place)), expected);
    let tail = asked(&wanted("").unwrap().or_tail(7), None);
    assert_eq!(tail, "timestamps=true&follow=true&tailLines=7");
    let since = asked(&wanted("sinceSeconds=9").unwrap().or_tail(7), None);
    assert_eq!(since, "timestamps=true&follow=true&sinceSeconds=9");
}

#[test]
fn a_place_comes_back_as_a_header_or_in_the_query() {
    let place = "2026-01-02T03:04:05.5Z#3";
    let in_query = wanted("from=2026-01-02T03:04:05.5Z%233").unwrap().from.unwrap();
    assert_eq!(in_query.to_string(), place);
    let mut headers = HeaderMap::new();
    headers.insert(LAST_EVENT_ID, HeaderValue::from_static("2026-01-02T03:04:05.5Z#3"));
    let in_header = Wanted::of("from=2020-01-01T00:00:00Z", &headers).unwrap().from.unwrap();
    assert_eq!(in_header, in_query, "the newer one, which a browser sends by itself");
    for query in ["from=x", "tailLines=-1", "sinceTime=x"] {
        assert_eq!(wanted(query).err().unwrap().status.as_u16(), 400, "{query}");
    }
}

#[test]
fn a_line_is_told_with_what_was_asked_for() {
    let mut reader = Reader::default();
    let mut chunk = &b"2026-01-02T03:04:05.000000001Z say \"hi\"\n"[..];
    let mut line = reader.next(&mut chunk).unwrap();
    let plain = wanted("").unwrap().entry(&line, None, None).json;
    let stamp = "2026-01-02T03:04:05.000000001Z";
    assert_eq!(plain, format!(r#"{{"timestamp":"{stamp}","content":"say \"hi\""}}"#));
    line.cut = 3;
    let names = Names { pod: "web".into(), container: "main".into() };
    let told = wanted("timestamps=false").unwrap().entry(&line, Some(&names), None).json;
    let told: Value = serde_json::from_str(&told).unwrap();
    let expected = json!({"content": "say \"hi\"", "cut": 3, "pod": "web", "container": "main"});
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_filter_that_takes_all_the_time_is_ended() {
    let filter = filter(&Taken::default(), &user(), "filter=a%2B$").await.unwrap().unwrap();
    let lines = || {
        let mut chunk = &b"baa\nab\na\n"[..];
        iter::from_fn(|| Reader::default().next(&mut chunk)).collect::<Vec<_>>()
    };
    let mut filtering = Filtering::default();
    let kept = filtering.kept(&filter, lines()).await.unwrap();
    assert_eq!(kept.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["baa", "a"]);
    filtering.spent = FILTERING * 2 + filtering.begun.elapsed();
    assert_eq!(filtering.kept(&filter, lines()).await, Err(Reason::Filter.into()));
}

#[test]
fn what_began_after_its_reader_is_read_from_its_beginning() {
    let query = "tailLines=5&sinceSeconds=60&previous=true&from=2026-01-02T03:04:05Z";
    let wanted = Wanted::of(query, &HeaderMap::new()).unwrap();
    let whole = wanted.whole();
    let options = whole.options(None);
    let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["timestamps", "follow", "previous"]);
    assert!(whole.from.is_none());
}

#[test]
fn what_is_written_before_a_log_could_be_read_is_not_passed_over_when_it_is_opened_again() {
    let begun: Timestamp = "2026-01-02T03:04:05.75Z".parse().unwrap();
    let refused = |code: u16| -> Result<(), Failure> {
        Err(Failure::status(StatusCode::from_u16(code).unwrap(), b""))
    };
    for (query, outcome, expected) in [
        ("tailLines=5", refused(400), ""),
        ("tailLines=0&sinceSeconds=9", refused(400), ""),
        ("previous=true&tailLines=5", refused(503), "&previous=true&tailLines=5"),
        ("tailLines=5", Ok(()), ""),
        ("tailLines=0", Ok(()), "&sinceTime=2026-01-02T03:04:05Z"),
        ("tailLines=0", refused(503), "&sinceTime=2026-01-02T03:04:05Z"),
        ("tailLines=0&sinceSeconds=9", Ok(()), "&sinceTime=2026-01-02T03:04:05Z"),
        ("sinceSeconds=5", Ok(()), "&sinceTime=2026-01-02T03:04:00Z"),
        ("tailLines=7&sinceSeconds=5", refused(503), "&tailLines=7&sinceTime=2026-01-02T03:04:00Z"),
        ("sinceSeconds=9223372036854775807", Ok(()), "&sinceTime=1970-01-01T00:00:00Z"),
        ("sinceTime=2026-01-01T00:00:00Z", refused(503), "&sinceTime=2026-01-01T00:00:00Z"),
        ("sinceTime=2026-01-01T00:00:00Z&tailLines=0", Ok(()), "&sinceTime=2026-01-02T03:04:05Z"),
    ] {
        let once = wanted(query).unwrap().again(begun, &outcome, false);
        let twice = once.again(begun, &outcome, false);
        let expected = format!("timestamps=true&follow=true{expected}");
        assert_eq!([asked(&once, None), asked(&twice, None)], [&*expected; 2], "{query}");
    }
    // A word of the kubelet's own is no line, yet there was something.
    let words = wanted("tailLines=5").unwrap().again(begun, &Ok(()), true);
    assert_eq!(asked(&words, None), "timestamps=true&follow=true&tailLines=5");
}

#[tokio::test]
async fn a_pattern_is_compiled_apart_from_all_that_is_read_of_strangers() {
    assert!(wanted("filter=(").is_ok());
    assert_eq!(
        filter(&Taken::default(), &user(), "filter=(").await.err().unwrap().status.as_u16(),
        400
    );
    assert!(filter(&Taken::default(), &user(), "filter=").await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_that_takes_its_time_is_waited_for_by_those_whom_the_api_server_knows() {
    let refused = Err(Failure::status(StatusCode::NOT_FOUND, b"no such pod"));
    let opening = std::future::ready(refused).boxed();
    let at_once = within(OPENING, opening, std::future::pending()).await;
    assert_eq!(at_once.err().unwrap().status.as_u16(), 404);
    let silent = || -> Opening { std::future::pending().boxed() };
    let stranger = std::future::ready(Err(ApiError::unauthorized()));
    let refused = within(Duration::ZERO, silent(), stranger).await;
    assert_eq!(refused.err().unwrap().status.as_u16(), 401);
    assert!(within(Duration::ZERO, silent(), std::future::ready(Ok(()))).await.is_ok());
}

#[test]
fn attempts_are_counted_by_errors_in_a_row() {
    let failed = Err(Failure::status(StatusCode::BAD_REQUEST, b""));
    assert_eq!(failures(0, false, &failed), 1);
    assert_eq!(failures(3, false, &failed), 4);
    assert_eq!(failures(3, true, &failed), 1, "it went on before it broke");
    assert_eq!(failures(TRIES, false, &Ok(())), 0, "a quiet log does not fail");
}

#[test]
fn lines_are_handed_over_together_and_what_lies_between_is_less_than_waits_for_a_reader() {
    let long = format!("2026-01-02T03:04:05Z {}\n", "x".repeat(100_000)).repeat(20);
    let short = "2026-01-02T03:04:05Z short\n".repeat(1_000);
    let mut reader = Reader::default();
    for (log, lines, messages) in [(long, 20, 20), (short, 1_000, 16)] {
        let (mut chunk, mut found) = (log.as_bytes(), Vec::new());
        while !chunk.is_empty() {
            let together = at_hand(&mut reader, &mut chunk);
            let bytes: usize = together.iter().map(|line| line.text.len()).sum();
            // One is handed over, others wait, one is taken.
            let between = bytes * (HAND_OVER + 2);
            assert!(between <= QUEUE.1, "{between} bytes");
            found.push(together.len());
        }
        assert_eq!((found.iter().sum::<usize>(), found.len()), (lines, messages), "{found:?}");
    }
}

#[test]
fn readers_of_a_log_that_broke_do_not_come_back_as_one() {
    let wait = Duration::from_secs(1);
    let mut waits: Vec<Duration> = (0..100).map(|_| spread(wait)).collect();
    waits.sort();
    let (least, most) = (waits[0], waits[99]);
    assert!(most - least > wait / 100, "{least:?} to {most:?}");
    assert!(least >= wait * 3 / 4 && most <= wait * 5 / 4, "{least:?} to {most:?}");
}

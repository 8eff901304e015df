//! Readers of evaluations, their places, and events as bytes. Evaluations themselves: the
//! integration tests.

use std::sync::Arc;

use futures::FutureExt as _;
use serde_json::Value;

use super::super::hub::Streams;
use super::*;

fn user(token: &str) -> User {
    User::bearer(token, &HeaderMap::new()).unwrap()
}

fn whole(streams: &Streams, tag: &str, rows: &[(&str, u8)]) -> Arc<Whole> {
    let more = "x".repeat(90);
    let row = |(uid, shown): &(&str, u8)| json!({"objectMeta": {"uid": uid}, "shown": shown, "more": more});
    let rows: Vec<Value> = rows.iter().map(row).collect();
    let body = json!({"pods": rows, "errors": []}).to_string();
    streams.held.hold(&user("a"), tag.to_owned(), body.into()).unwrap()
}

fn seen(whole: &Arc<Whole>) -> Seen {
    Seen { whole: Some(whole.clone()), ..Seen::default() }
}

fn refused() -> Arc<ApiError> {
    Arc::new(ApiError::contract(StatusCode::FORBIDDEN, "no"))
}

fn reader(streams: &Streams, seen: &watch::Sender<Seen>, sent: Option<Arc<Whole>>) -> Reader {
    let seat = streams.places.seat(&user("a")).unwrap();
    Reader {
        seen: seen.subscribe(),
        sent,
        stale: false,
        over: false,
        locale: Locale::EN,
        ending: streams.ending(),
        _seat: seat,
    }
}

fn data(news: &News) -> Value {
    serde_json::from_slice(&news.data).unwrap()
}

#[tokio::test]
async fn a_reader_gets_the_whole_and_then_changes_of_what_he_was_sent() {
    let streams = Streams::default();
    let first = whole(&streams, "1", &[("a", 0), ("b", 0)]);
    let sender = watch::Sender::new(seen(&first));
    let mut reader = reader(&streams, &sender, None);
    let news = reader.next().await.unwrap();
    assert_eq!((news.event, news.tag.as_deref(), &news.data), ("whole", Some("1"), &first.body));
    assert!(reader.next().now_or_never().is_none(), "nothing has changed");

    // He is slow: of three states he gets the last, told from what he has.
    for (tag, shown) in [("2", 1), ("3", 2), ("4", 3)] {
        sender.send_replace(seen(&whole(&streams, tag, &[("a", 0), ("b", shown)])));
    }
    let news = reader.next().await.unwrap();
    assert_eq!((news.event, news.tag.as_deref()), ("change", Some("4")));
    let rows = &data(&news)["pods"];
    assert_eq!((&rows["set"][0]["shown"], &rows["removed"]), (&json!(3), &json!([])));
    assert!(reader.next().now_or_never().is_none());
}

#[tokio::test]
async fn who_resumes_where_he_is_gets_no_whole() {
    let streams = Streams::default();
    let first = whole(&streams, "1", &[("a", 0), ("b", 0)]);
    let sender = watch::Sender::new(seen(&first));
    let mut reader = reader(&streams, &sender, Some(first));
    assert!(reader.next().now_or_never().is_none());
    sender.send_replace(seen(&whole(&streams, "2", &[("a", 0)])));
    assert_eq!(data(&reader.next().await.unwrap())["pods"]["removed"], json!(["b"]));
}

#[tokio::test]
async fn when_rights_end_what_was_not_sent_yet_is_not_sent_any_more() {
    let streams = Streams::default();
    let sender = watch::Sender::new(seen(&whole(&streams, "1", &[("a", 0)])));
    let mut reader = reader(&streams, &sender, None);
    reader.next().await.unwrap();
    sender.send_replace(seen(&whole(&streams, "2", &[("a", 0), ("b", 0)])));
    sender.send_replace(Seen { end: Some(refused()), ..Seen::default() });
    let news = reader.next().await.unwrap();
    let words = json!({"reason": "forbidden: no", "status": 403, "retry": LATER});
    assert_eq!((news.event, data(&news)), ("end", words));
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn a_right_that_ends_while_a_difference_is_made_takes_the_difference() {
    let streams = Streams::default();
    let long = |tag: &str| {
        let body = json!({"long": "x".repeat(300 << 10), "turn": tag}).to_string();
        streams.held.hold(&user("a"), tag.to_owned(), body.into()).unwrap()
    };
    let first = long("1");
    let sender = watch::Sender::new(seen(&first));
    let mut reader = reader(&streams, &sender, Some(first));
    sender.send_replace(seen(&long("2")));
    let mut next = Box::pin(reader.next());
    assert!((&mut next).now_or_never().is_none(), "it is compared elsewhere");
    sender.send_replace(Seen { end: Some(refused()), ..Seen::default() });
    assert_eq!(next.await.unwrap().event, "end");
}

#[tokio::test]
async fn trouble_is_told_once_and_its_end_too() {
    let streams = Streams::default();
    let first = whole(&streams, "1", &[("a", 0)]);
    let sender = watch::Sender::new(seen(&first));
    let mut reader = reader(&streams, &sender, Some(first.clone()));
    let stale = Seen { trouble: Some(refused()), ..seen(&first) };
    sender.send_replace(stale.clone());
    assert_eq!(reader.next().await.unwrap().event, "stale");
    sender.send_replace(stale);
    assert!(reader.next().now_or_never().is_none());
    sender.send_replace(seen(&first));
    assert_eq!(reader.next().await.unwrap().event, "current");
}

#[tokio::test]
async fn at_shutdown_every_reader_is_told_when_to_come_back() {
    let streams = Streams::default();
    let first = whole(&streams, "1", &[("a", 0)]);
    let sender = watch::Sender::new(seen(&first));
    let mut reader = reader(&streams, &sender, Some(first));
    streams.end();
    let news = reader.next().await.unwrap();
    assert_eq!((news.event, &data(&news)["reason"]), ("end", &json!("shutting down")));
    let retry = news.retry.unwrap();
    assert!((1_000..=4_000).contains(&retry), "{retry}");
    assert_eq!(reader.next().await, None);
}

#[test]
fn an_event_stands_as_the_standard_has_it() {
    let one = News {
        event: "change",
        tag: Some("\"a1\"".into()),
        data: Bytes::from_static(b"{}"),
        retry: None,
    };
    let bytes = |news: News| String::from_utf8(news.frame().concat()).unwrap();
    assert_eq!(bytes(one), "id: \"a1\"\nevent: change\ndata: {}\n\n");
    let end = bytes(News::end("over", 404, 7));
    assert!(end.starts_with("retry: 7\nevent: end\ndata: {") && end.ends_with("}\n\n"), "{end}");
}

#[test]
fn a_caller_has_so_many_streams_and_a_place_that_is_left_is_free_again() {
    let streams = Streams::default();
    let mut seats: Vec<Seat> =
        (0..OF_ONE).map(|_| streams.places.seat(&user("a")).unwrap()).collect();
    let refused = streams.places.seat(&user("a")).err().unwrap();
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let other = streams.places.seat(&user("b"));
    assert!(other.is_ok(), "others have places of their own");
    seats.pop();
    assert!(streams.places.seat(&user("a")).is_ok());
    drop((seats, other));
    assert_eq!(streams.places.taken(), 0);
}

#[test]
fn all_callers_together_have_so_many_streams() {
    let streams = Streams::default();
    let taken: Result<Vec<Seat>, ApiError> =
        (0..IN_ALL).map(|at| streams.places.seat(&user(&format!("t{}", at / OF_ONE)))).collect();
    let taken = taken.unwrap();
    assert_eq!(taken.len(), IN_ALL);
    let refused = streams.places.seat(&user("somebody")).err().unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "he has none to close");
}

#[test]
fn only_who_accepts_an_event_stream_gets_one() {
    let wants = |accept: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        assert!(!is_wanted(&Method::POST, &headers), "{accept}");
        is_wanted(&Method::GET, &headers)
    };
    assert!(wants("text/event-stream") && wants("application/json, Text/Event-Stream;q=0.9"));
    assert!(!wants("application/json") && !wants("*/*") && !wants("text/event"));
    assert!(!is_wanted(&Method::GET, &HeaderMap::new()));
}

#[tokio::test]
async fn who_takes_nothing_for_a_while_has_no_place_and_holds_nothing_any_more() {
    let streams = Streams::default();
    let first = whole(&streams, "1", &[("a", 0)]);
    let sender = watch::Sender::new(seen(&first));
    let one = reader(&streams, &sender, None);
    let brief = Duration::from_millis(20);
    let mut events = std::pin::pin!(events(one, brief, brief));
    assert_eq!(events.next().await, Some(Ok(Bytes::from_static(COMMENT))));
    let gone = async {
        while (streams.places.taken(), sender.receiver_count()) != (0, 0) {
            tokio::time::sleep(brief).await;
        }
    };
    timeout(WRITE, gone).await.unwrap();
    sender.send_replace(Seen::default());
    assert_eq!(Arc::strong_count(&first), 1, "the reader holds it no more");
    // What lay there comes, and no more.
    let rest: Vec<_> = events.collect().await;
    assert!(rest.len() <= 1, "{rest:?}");
}

#[tokio::test]
async fn who_goes_away_has_no_place_any_more() {
    let streams = Streams::default();
    let sender = watch::Sender::new(seen(&whole(&streams, "1", &[("a", 0)])));
    let mut events = Box::pin(events(reader(&streams, &sender, None), WRITE, WRITE));
    assert!(events.next().await.is_some() && events.next().await.is_some());
    drop(events);
    let gone = async {
        while streams.places.taken() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(WRITE, gone).await.unwrap();
}

#[test]
fn a_long_event_is_given_in_pieces_that_are_copies() {
    let data = Bytes::from(vec![b'x'; 3 * PIECE]);
    let parts = || [Bytes::from_static(b"head"), data.clone(), Bytes::from_static(b"\n\n")];
    let all: Vec<Bytes> = pieces(parts()).collect();
    assert_eq!(all.concat(), parts().concat());
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|piece| piece.len() <= PIECE) && data.is_unique());
    assert_eq!(pieces([Bytes::new(), Bytes::new(), Bytes::new()]).count(), 0);
}

#[tokio::test]
async fn a_long_answer_keeps_what_it_needs_until_its_last_piece_is_taken() {
    let (bytes, needed) = (vec![b'x'; 2 * PIECE + 1], Arc::new(()));
    let long = held(Response::new(Body::from(bytes.clone())), needed.clone(), WRITE);
    assert_eq!(long.headers()[header::CONTENT_LENGTH], bytes.len().to_string());
    let mut sent = long.into_body().into_data_stream();
    let mut all = Vec::new();
    while all.len() < bytes.len() {
        assert_eq!(Arc::strong_count(&needed), 2, "{} bytes were taken", all.len());
        let piece = sent.next().await.unwrap().unwrap();
        assert!(piece.len() <= PIECE);
        all.extend(piece);
    }
    assert!(sent.next().await.is_none() && all == bytes);
    assert_eq!(Arc::strong_count(&needed), 1);
    let short = held(Response::new(Body::from(vec![b'x'; PIECE])), needed.clone(), WRITE);
    assert_eq!(Arc::strong_count(&needed), 1, "nobody waits for who takes a short one");
    assert_eq!(short.body().size_hint().exact(), u64::try_from(PIECE).ok());
}

#[tokio::test]
async fn a_long_answer_of_which_nothing_is_taken_keeps_nothing_and_breaks_off() {
    let (needed, brief) = (Arc::new(()), Duration::from_millis(20));
    let answer = Response::new(Body::from(vec![b'x'; 4 * PIECE]));
    let mut sent = held(answer, needed.clone(), brief).into_body().into_data_stream();
    assert!(sent.next().await.unwrap().is_ok());
    assert_eq!(Arc::strong_count(&needed), 2);
    let gone = async {
        while Arc::strong_count(&needed) > 1 {
            tokio::time::sleep(brief).await;
        }
    };
    timeout(WRITE, gone).await.unwrap();
    // What lay there comes, and then no good end.
    let rest: Vec<_> = sent.collect().await;
    assert!(rest.len() <= 2 && rest.last().is_some_and(Result::is_err), "{rest:?}");
}

#[tokio::test]
async fn a_long_answer_that_is_taken_bit_by_bit_breaks_off_and_keeps_nothing() {
    let (needed, brief) = (Arc::new(()), Duration::from_millis(100));
    let answer = Response::new(Body::from(vec![b'x'; 64 * PIECE]));
    let mut sent = held(answer, needed.clone(), brief).into_body().into_data_stream();
    let mut last = sent.next().await;
    while let Some(Ok(_)) = &last {
        tokio::time::sleep(brief / 5).await;
        last = sent.next().await;
    }
    assert!(last.is_some_and(|last| last.is_err()), "it came to a good end");
    drop(sent);
    let gone = async {
        while Arc::strong_count(&needed) > 1 {
            tokio::time::sleep(brief / 5).await;
        }
    };
    timeout(WRITE, gone).await.unwrap();
}

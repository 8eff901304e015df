//! Places for readers, and how news look on either kind of stream.

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::upstream::Failure;

fn user(token: &str) -> User {
    User::bearer(token, &http::HeaderMap::new()).unwrap()
}

#[test]
fn readers_have_places_together_and_each_for_himself() {
    let limits = Limits { all: 3, of_one: 2, ..Limits::default() };
    let follows = Follows::new(limits);
    let (a, b) = (user("a"), user("b"));
    let first = follows.seat(&a).unwrap();
    let _second = follows.seat(&a).unwrap();
    assert_eq!(follows.seat(&a).err().unwrap().status.as_u16(), 429);
    let _third = follows.seat(&b).unwrap();
    assert_eq!(follows.seat(&b).err().unwrap().status.as_u16(), 429);
    drop(first);
    assert_eq!(follows.count(), 2);
    assert!(follows.seat(&b).is_ok());
    assert_eq!(follows.count(), 2, "given back at once");
}

#[test]
fn pods_of_followed_workloads_have_places_of_their_own() {
    let follows = Follows::new(Limits { sources: (5, 4), ..Limits::default() });
    let (a, b) = (user("a"), user("b"));
    let first = follows.pod(&a, 3).unwrap();
    assert!(follows.pod(&a, 2).is_none(), "more than one caller's");
    let _second = follows.pod(&b, 2).unwrap();
    assert!(follows.pod(&a, 1).is_none(), "more than there are");
    assert_eq!(follows.count(), 0, "they are no readers");
    drop(first);
    assert!(follows.pod(&a, 3).is_some());
}

#[test]
fn a_right_that_is_gone_ends_a_log_with_the_api_servers_words() {
    let why = || Failure::status(StatusCode::FORBIDDEN, b"so");
    assert_eq!(End::from(Lost::Unauthorized), Reason::Unauthorized.into());
    assert_eq!(End::from(Lost::Denied(None)), Reason::Denied.into());
    assert_eq!(End::from(Lost::Denied(Some(why()))), End::of(Reason::Denied, &"so"));
    assert_eq!(End::from(Lost::Unconfirmed(why())), End::of(Reason::Failed, &"so"));
}

/// Returns when nobody has a place.
async fn all_given_back(follows: &Follows) {
    let given_back = async {
        while follows.count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), given_back).await.expect("places are given back");
}

#[tokio::test]
async fn a_followed_file_has_a_place_until_it_breaks_off_or_its_reader_is_gone() {
    let follows = Follows::default();
    let silent = || -> Opening { Box::pin(std::future::pending()) };
    let (_doubt, doubted) = watch::channel(false);
    let denied = (std::future::ready(End::from(Reason::Denied)), doubted.clone());
    let body = broken_off(silent(), denied, follows.seat(&user("a")).unwrap(), SILENT.1);
    assert_eq!(follows.count(), 1);
    let words = body.collect().await.err().unwrap().to_string();
    assert!(words.contains("denied"), "{words}");
    all_given_back(&follows).await;

    let refusal = Failure::status(StatusCode::BAD_REQUEST, b"waiting to start");
    let refused: Opening = Box::pin(std::future::ready(Err(refusal)));
    let seat = follows.seat(&user("a")).unwrap();
    let never = || (std::future::pending(), doubted.clone());
    let body = broken_off(refused, never(), seat, SILENT.1);
    let words = body.collect().await.err().unwrap().to_string();
    assert!(words.contains("waiting to start"), "{words}");

    let seat = follows.seat(&user("a")).unwrap();
    drop(broken_off(silent(), never(), seat, SILENT.1));
    all_given_back(&follows).await;
}

/// An opened log that always has more.
async fn endless() -> Opening {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = server.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while tcp.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    Box::pin(async move {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut to, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let answer = to.send_request(http::Request::new(Body::empty())).await.unwrap();
        Ok(answer.into_body().into())
    })
}

#[tokio::test]
async fn a_followed_file_that_nobody_takes_gives_its_place_back_and_breaks_off() {
    let follows = Follows::default();
    let seat = follows.seat(&user("a")).unwrap();
    let soon = Duration::from_millis(20);
    let (_doubt, doubted) = watch::channel(false);
    let body = broken_off(endless().await, (std::future::pending(), doubted), seat, soon);
    let mut data = body.into_data_stream();
    assert!(!data.next().await.unwrap().unwrap().is_empty());
    all_given_back(&follows).await;
    let end = async {
        loop {
            if let Err(error) = data.next().await.expect("no good end") {
                return error.to_string();
            }
        }
    };
    let words = timeout(Duration::from_secs(60), end).await.unwrap();
    assert!(words.contains("nobody took"), "{words}");
}

#[tokio::test]
async fn nothing_of_a_followed_file_is_shown_while_its_right_is_in_doubt() {
    let follows = Follows::default();
    let seat = follows.seat(&user("a")).unwrap();
    let (doubt, doubted) = watch::channel(true);
    let (deny, denied) = tokio::sync::oneshot::channel();
    let ended = async { denied.await.unwrap() };
    let body = broken_off(endless().await, (ended, doubted), seat, SILENT.1);
    let mut data = body.into_data_stream();
    let early = timeout(Duration::from_millis(50), data.next()).await;
    assert!(early.is_err(), "{early:?}");
    doubt.send_replace(false);
    assert!(!data.next().await.unwrap().unwrap().is_empty());
    doubt.send_replace(true);
    deny.send(End::from(Reason::Denied)).unwrap();
    let end = async {
        let mut shown = 0;
        loop {
            match data.next().await.expect("no good end") {
                Ok(_) => shown += 1,
                Err(error) => return (shown, error.to_string()),
            }
        }
    };
    let (shown, words) = timeout(Duration::from_secs(60), end).await.unwrap();
    assert!(shown < 100 && words.contains("denied"), "{shown} pieces, {words}");
}

#[tokio::test]
async fn news_are_events_and_messages() {
    let end = End { message: "so".into(), ..Reason::Denied.into() };
    let all = [
        (
            News::Lines { id: Some("T#1".into()), data: "[1]".into() },
            "id: T#1\nevent: lines\ndata: [1]\n\n",
            json!({"event": "lines", "id": "T#1", "data": [1]}),
        ),
        (
            News::Lines { id: None, data: "[]".into() },
            "event: lines\ndata: []\n\n",
            json!({"event": "lines", "id": null, "data": []}),
        ),
        (
            News::Missed(7),
            "event: missed\ndata: {\"lines\":7}\n\n",
            json!({"event": "missed", "data": {"lines": 7}}),
        ),
        (
            News::End(end),
            "event: end\ndata: {\"message\":\"so\",\"reason\":\"denied\"}\n\n",
            json!({"event": "end", "data": {"reason": "denied", "message": "so"}}),
        ),
    ];
    for (news, text, expected) in all {
        let events = stream::iter([Ok::<_, Infallible>(event(&news))]);
        let body = Sse::new(events).into_response().into_body().collect().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&body.to_bytes()), text);
        let message = message(&news).into_text().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&message).unwrap(), expected);
    }
}

#[test]
fn a_servers_end_says_when_to_come_again() {
    let end = shutdown();
    let retry = end.retry.unwrap().as_millis() as u64;
    assert!((RETRY.0..RETRY.1).contains(&retry), "{retry}");
    assert_eq!(end.data(), json!({"reason": "shutdown", "retry": retry}));
    assert_eq!(u16::from(close(end.reason).code), 1001);
}

#[test]
fn an_upgrade_is_a_websocket_and_all_else_an_event_stream() {
    let request = |upgrade: Option<&'static str>| {
        let mut request = Request::new(Body::empty());
        if let Some(upgrade) = upgrade {
            request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        }
        request
    };
    assert!(is_socket(&request(Some("WebSocket"))));
    assert!(!is_socket(&request(Some("h2c"))) && !is_socket(&request(None)));
}

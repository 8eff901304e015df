//! Places for readers, and how news look on either kind of stream.

use super::*;

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
        let events = futures::stream::iter([Ok::<_, Infallible>(event(&news))]);
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

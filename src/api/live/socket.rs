//! `GET /api/v1/stream`: many live answers over one WebSocket, each by an id of the client's. A
//! subscription is the same reader that an event stream has (`live`), so that each holds one state
//! back for a slow client and never more; what is due goes out in turns.
//!
//! The client says `{"id":"a","subscribe":"/api/v1/pod?itemsPerPage=10&page=1"}`, where it has an
//! answer already with its tag as `lastEventId`, and `{"id":"a","unsubscribe":true}`. It is told
//! `{"id":"a","event":"whole","tag":"…","data":…}`: the events of an event stream, and `error`
//! where there is none. An id that is subscribed again takes the new answer in place of the old;
//! after `end` and `error` it is free.

use std::future::{poll_fn, ready};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _, stream};
use http::StatusCode;
use http::uri::PathAndQuery;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_util::sync::CancellationToken;

use super::events::{News, Reader, Seat};
use super::hub::{Ask, Live, expiry};
use crate::api::Caller;
use crate::api::error::ApiError;
use crate::api::read::view;
use crate::api::websocket::{self, Socket};
use crate::i18n::Locale;
use crate::upstream::User;

/// What we speak, for browsers that bring their token among the protocols: one must be echoed.
const PROTOCOLS: [&str; 1] = ["stream.binnacle.v1"];
/// Subscriptions of one socket: more than the lists of any page.
const SUBSCRIPTIONS: usize = 64;
/// An address may name as many namespaces as a request's head has room for.
const MESSAGE: usize = 64 << 10;
/// Longest id: enough for a uuid and a word.
const ID: usize = 64;
/// Longer ones leave in pieces of so many bytes (RFC 6455, 5.4): while a client is slow it is the
/// body that `live::hub` counts which waits, and no copy of it.
const PIECE: usize = 64 << 10;
/// Whoever takes nothing for so long is not there any more.
const WRITE: Duration = Duration::from_secs(60);
/// Pings, one each heartbeat, that may stay without any word from the client. After as many the API
/// server is asked about the caller of a socket that shows nothing.
const SILENT: u32 = 4;
/// How long the last words may take.
const CLOSING: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Command {
    id: String,
    subscribe: Option<String>,
    #[serde(default)]
    unsubscribe: bool,
    last_event_id: Option<String>,
}

struct Subscription {
    id: String,
    news: BoxStream<'static, News>,
}

/// One client's socket.
struct Session {
    live: Live,
    user: User,
    locale: Locale,
    open: Vec<Subscription>,
    /// Whose turn it is.
    turn: usize,
    ending: CancellationToken,
    _seat: Seat,
}

/// `GET /api/v1/stream`.
pub async fn serve(
    live: Live,
    Caller(user): Caller,
    mut request: Request,
) -> Result<Response, ApiError> {
    // A socket asks for nothing yet: without this anybody could take all the places.
    live.gateway.streams.places.verified(&live.gateway, &user).await?;
    let seat = live.gateway.streams.places.seat(&user)?;
    let locale = live.gateway.locale_of(request.headers());
    let (response, upgrading) = websocket::accept(&mut request, &PROTOCOLS, MESSAGE)?;
    let ending = live.gateway.streams.ending();
    let session = Session { live, user, locale, open: Vec::new(), turn: 0, ending, _seat: seat };
    tokio::spawn(async move {
        if let Ok(socket) = upgrading.socket().await {
            session.run(socket).await;
        }
    });
    Ok(response)
}

impl Session {
    /// Until one side ends it.
    async fn run(mut self, mut socket: Socket) {
        let heartbeat = self.live.gateway.streams.pace.load().heartbeat;
        let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut stranger = pin!(unknown(self.live.clone(), self.user.clone(), heartbeat * SILENT));
        loop {
            let is_idle = self.open.is_empty();
            let message = tokio::select! {
                // What the client has said counts before the silence that it is judged by.
                biased;
                () = self.ending.cancelled() => return self.close(socket).await,
                // What is shown ends by itself, by its own rights.
                () = &mut stranger, if is_idle => {
                    let reason = ApiError::unauthorized().text(self.locale);
                    let frame = websocket::close_frame(CloseCode::Policy, &reason);
                    let _ = timeout(CLOSING, farewell(socket, frame)).await;
                    return;
                }
                said = socket.next() => {
                    let said = match said {
                        Some(Ok(said)) => said,
                        Some(Err(error)) => return self.refuse(socket, &error).await,
                        None => return,
                    };
                    heard = Instant::now();
                    self.hear(said)
                }
                _ = beat.tick() => {
                    if heard.elapsed() > heartbeat * SILENT {
                        return;
                    }
                    vec![Message::Ping(Bytes::new())]
                }
                (at, news) = due(&mut self.open, self.turn) => self.tell(at, news),
            };
            let begun = Instant::now();
            let sent = tokio::select! {
                sent = send(&mut socket, message) => sent,
                () = expire(&self.ending) => false,
            };
            if !sent {
                return;
            }
            if is_idle && !self.open.is_empty() {
                // A question under way would stand still, and its answer judge hours later.
                stranger.set(unknown(self.live.clone(), self.user.clone(), heartbeat * SILENT));
            }
            // Meanwhile nobody listened to the client: that was no silence of his.
            heard += begun.elapsed();
        }
    }

    /// Ends a socket whose client said what is no message, and says so.
    async fn refuse(self, socket: Socket, error: &Error) {
        if let Some(frame) = websocket::refused(error, MESSAGE, self.locale) {
            let (sink, source) = socket.split();
            websocket::farewell(sink, source, frame).await;
        }
    }

    /// The answer to what the client said; empty where it has none.
    fn hear(&mut self, said: Message) -> Vec<Message> {
        let text = match &said {
            Message::Text(text) => text.as_str(),
            Message::Binary(_) => "",
            // The library answers pings and a close by itself.
            _ => return Vec::new(),
        };
        let refused = match serde_json::from_str::<Command>(text) {
            Ok(command) => {
                let id = command.id.clone();
                match self.obey(command) {
                    Ok(answer) => {
                        return answer.map_or_else(Vec::new, |news| message(&id, &news));
                    }
                    Err(error) => (id, error),
                }
            }
            Err(error) => {
                let reason = error.to_string();
                let args = [("reason", reason.as_str())];
                (String::new(), ApiError::bad_request("error-stream-command", &args))
            }
        };
        let (id, error) = refused;
        // What the client wanted of the id has failed: it must not go on as something else.
        self.open.retain(|one| one.id != id);
        let shown: String = id.chars().take(ID).collect();
        message(&shown, &News::of_error("error", &error, self.locale))
    }

    fn obey(&mut self, command: Command) -> Result<Option<News>, ApiError> {
        let Command { id, subscribe, unsubscribe, last_event_id } = command;
        let bad = |reason| ApiError::bad_request("error-stream-command", &[("reason", reason)]);
        if id.is_empty() || id.len() > ID {
            return Err(bad("id has 1 to 64 bytes"));
        }
        let known = self.open.iter().position(|one| one.id == id);
        match (subscribe, unsubscribe, known) {
            (Some(path), false, known) => {
                if known.is_none() && self.open.len() >= SUBSCRIPTIONS {
                    let most = SUBSCRIPTIONS.to_string();
                    let (busy, args) = (StatusCode::TOO_MANY_REQUESTS, [("most", most.as_str())]);
                    return Err(ApiError::with_status(busy, "error-too-many-streams", &args));
                }
                let news = self.subscribe(&path, last_event_id)?;
                // Another page or filter of what is shown: the new one takes the old one's place.
                self.open.retain(|one| one.id != id);
                self.open.push(Subscription { id, news });
                Ok(None)
            }
            (None, true, Some(at)) => {
                self.open.remove(at);
                Ok(Some(News::end("unsubscribed", StatusCode::OK.as_u16(), 0)))
            }
            // It may have ended while the client was saying so.
            (None, true, None) => Ok(None),
            _ => Err(bad("either subscribe or unsubscribe")),
        }
    }

    /// The news of a route, as this caller would get it by a request of its own.
    fn subscribe(
        &self,
        path: &str,
        last: Option<String>,
    ) -> Result<BoxStream<'static, News>, ApiError> {
        let Some(target) = target(path, &self.live.gateway.base_path) else {
            let shown: String = path.chars().take(100).collect();
            return Err(ApiError::bad_request("error-bad-path", &[("reason", &shown)]));
        };
        let (live, locale) = (self.live.clone(), self.locale);
        let ask = Ask { user: self.user.clone(), target, locale };
        // The first answer may take long: it is waited for as the others are.
        let opening = async move { Reader::open(&live, ask, last.as_deref()).await };
        let news = stream::once(opening).flat_map(move |opened| match opened {
            Ok(reader) => reader.into_news().left_stream(),
            Err(error) => {
                let news = News::of_error("error", &error, locale);
                stream::once(ready(news)).right_stream()
            }
        });
        Ok(news.boxed())
    }

    fn tell(&mut self, at: usize, news: Option<News>) -> Vec<Message> {
        self.turn = at + 1;
        let told = self.open.get(at).zip(news.as_ref());
        let told = told.map_or_else(Vec::new, |(one, news)| message(&one.id, news));
        if news.is_none_or(|news| news.is_last()) && at < self.open.len() {
            self.open.remove(at);
        }
        told
    }

    /// Says goodbye: each subscription's end, which names when to come back, then the socket's.
    async fn close(self, mut socket: Socket) {
        let goodbye = async {
            for one in self.open {
                if !send(&mut socket, message(&one.id, &News::shutdown())).await {
                    return;
                }
            }
            let frame = CloseFrame { code: CloseCode::Away, reason: "shutting down".into() };
            farewell(socket, frame).await;
        };
        let _ = timeout(CLOSING, goodbye).await;
    }
}

/// The next news of any subscription, beginning with the one whose turn it is.
async fn due(open: &mut [Subscription], turn: usize) -> (usize, Option<News>) {
    poll_fn(|context| {
        let count = open.len();
        for at in (0..count).map(|step| (turn + step) % count) {
            let Some(one) = open.get_mut(at) else { continue };
            if let Poll::Ready(news) = one.news.poll_next_unpin(context) {
                return Poll::Ready((at, news));
            }
        }
        Poll::Pending
    })
    .await
}

/// Returns when the API server does not know the caller any more, or his token is over.
async fn unknown(live: Live, user: User, every: Duration) {
    let asking = async {
        loop {
            sleep(every).await;
            // Boxed: sockets mostly wait, and there are many.
            let known = Box::pin(view::verified(&live.gateway, &user)).await;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            if known.is_err_and(|error| refused.contains(&error.status)) {
                return;
            }
        }
    };
    tokio::select! {
        () = expiry(&user), if !user.is_over() => {}
        () = asking => {}
    }
}

/// Says the last word, and hears the client out.
async fn farewell(mut socket: Socket, frame: CloseFrame) {
    if socket.close(Some(frame)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// Returns a moment after the shutdown has begun.
async fn expire(ending: &CancellationToken) {
    ending.cancelled().await;
    sleep(CLOSING).await;
}

/// What the plain GET of this address would be routed by, below `/api/v1`: as there, a slash at
/// the end of the path is passed over.
fn target(address: &str, base_path: &str) -> Option<PathAndQuery> {
    let address = address.strip_prefix(base_path).unwrap_or(address);
    let below = address.strip_prefix("/api/v1").filter(|rest| rest.starts_with('/'))?;
    let (path, query) = below.split_at(below.find('?').unwrap_or(below.len()));
    PathAndQuery::try_from(format!("{}{query}", path.trim_end_matches('/'))).ok()
}

/// Whether the client took the pieces of a message.
async fn send(socket: &mut Socket, pieces: Vec<Message>) -> bool {
    for piece in pieces {
        if !matches!(timeout(WRITE, socket.send(piece)).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}

/// One message: itself, or where it is long its pieces.
fn message(id: &str, news: &News) -> Vec<Message> {
    let mut text = String::with_capacity(128 + news.data.len().min(PIECE));
    text.push_str("{\"id\":");
    text.push_str(&Value::from(id).to_string());
    text.push_str(",\"event\":\"");
    text.push_str(news.event);
    text.push('"');
    if let Some(tag) = &news.tag {
        text.push_str(",\"tag\":");
        text.push_str(&Value::from(tag.as_str()).to_string());
    }
    text.push_str(",\"data\":");
    let valid = std::str::from_utf8(&news.data).is_ok();
    if !valid || news.data.len() <= PIECE {
        text.push_str(&String::from_utf8_lossy(&news.data));
        text.push('}');
        return vec![Message::text(text)];
    }
    let piece =
        |kind, bytes: Bytes, last| Message::Frame(Frame::message(bytes, OpCode::Data(kind), last));
    let mut pieces = vec![piece(Data::Text, text.into(), false)];
    for at in (0..news.data.len()).step_by(PIECE) {
        let end = news.data.len().min(at + PIECE);
        pieces.push(piece(Data::Continue, news.data.slice(at..end), false));
    }
    pieces.push(piece(Data::Continue, Bytes::from_static(b"}"), true));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    fn subscription(id: &str, events: &[&'static str]) -> Subscription {
        let news: Vec<News> = events.iter().copied().map(news).collect();
        Subscription { id: id.to_owned(), news: stream::iter(news).boxed() }
    }

    fn news(event: &'static str) -> News {
        News { event, tag: None, data: Bytes::from_static(b"{}"), retry: None }
    }

    #[tokio::test]
    async fn what_is_due_goes_out_in_turns() {
        let mut open: Vec<Subscription> =
            ["a", "b", "c"].into_iter().map(|id| subscription(id, &["change"; 3])).collect();
        let mut told = String::new();
        let mut turn = 0;
        for _ in 0..6 {
            let (at, news) = due(&mut open, turn).await;
            assert_eq!(news.unwrap().event, "change");
            told.push_str(&open[at].id);
            turn = at + 1;
        }
        assert_eq!(told, "abcabc");
        // The turn of one that has gone is its neighbour's.
        open.truncate(1);
        assert_eq!(due(&mut open, 3).await.0, 0);
    }

    #[test]
    fn a_message_is_json_whatever_the_id_holds() {
        let one = News { tag: Some("\"abc\"".into()), ..news("whole") };
        let [Message::Text(text)] = &message("a\"\n", &one)[..] else { panic!("no text") };
        let value: Value = serde_json::from_str(text.as_str()).unwrap();
        assert_eq!(value, json!({"id": "a\"\n", "event": "whole", "tag": "\"abc\"", "data": {}}));
    }

    #[tokio::test]
    async fn a_long_message_leaves_in_pieces_that_are_no_copies_and_arrives_as_one() {
        let body = json!({"items": ["é".repeat(PIECE)]}).to_string();
        let one = News { data: Bytes::from(body), ..news("whole") };
        let pieces = message("a", &one);
        assert_eq!(pieces.len(), 5);
        let range = one.data.as_ptr_range();
        for piece in &pieces[1..4] {
            let Message::Frame(frame) = piece else { panic!("no piece: {piece}") };
            assert!(range.contains(&frame.payload().as_ptr()) && frame.payload().len() <= PIECE);
        }
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        for piece in pieces {
            server.send(piece).await.unwrap();
        }
        let Message::Text(text) = client.next().await.unwrap().unwrap() else { panic!("no text") };
        let value: Value = serde_json::from_str(text.as_str()).unwrap();
        let data: Value = serde_json::from_slice(&one.data).unwrap();
        assert_eq!(value, json!({"id": "a", "event": "whole", "data": data}));
    }

    #[test]
    fn an_address_is_read_as_that_of_a_plain_get() {
        for (address, below) in [
            ("/api/v1/pod", Some("/pod")),
            ("/api/v1/pod/", Some("/pod")),
            ("/b/api/v1/pod/a//?page=1", Some("/pod/a?page=1")),
            ("/api/v1/pod?filterBy=name,a/", Some("/pod?filterBy=name,a/")),
            ("/api/v1", None),
            ("/api/v1x/pod", None),
            ("/clusters/main/api/v1/pods", None),
            ("https://elsewhere.example/api/v1/pod", None),
        ] {
            let found = target(address, "/b");
            assert_eq!(found.as_ref().map(PathAndQuery::as_str), below, "{address}");
        }
    }

    #[test]
    fn commands_are_read_strictly() {
        let read = |text: &str| serde_json::from_str::<Command>(text).is_ok();
        assert!(read(r#"{"id":"a","subscribe":"/api/v1/pod","lastEventId":"x"}"#));
        assert!(read(r#"{"id":"a","unsubscribe":true}"#));
        for odd in ["", "[]", "{}", r#"{"id":1}"#, r#"{"id":"a","subscribed":"/api/v1/pod"}"#] {
            assert!(!read(odd), "{odd}");
        }
    }
}
